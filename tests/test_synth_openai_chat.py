"""Asking over HTTP: what is sent, whose fault a failure is, when to stop, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import email.utils
import importlib.util
import json
import os
import random
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_chat import Asked, FakeChat, always, in_turn, mixture
from hypothesis import given
from hypothesis import strategies as st

import synth.openai_chat as module
from corpus.errors import ConfigError, DocumentError, EngineError
from synth.chat import ChatAnswer, ChatRequest, PromptPage, RequestFailed, Sampling
from synth.openai_chat import (
    LONGEST_PAUSE_S,
    LONGEST_RETRY_AFTER_S,
    Fault,
    OpenAiChat,
    SettingNames,
    Silence,
    api_key_of,
    body_of,
    checked_base_url,
    fault_of_status,
    media_type,
    pause_s,
    read_answer,
    retry_after_s,
)
from synth.usage import Usage

KEY = "sk-loopback-0123456789"
JPEG = b"\xff\xd8\xff"
SCHEMA = '{"properties":{"answer":{"type":"string"}},"type":"object"}'
NOW = 1_700_000_000.0


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def request_of(text: str = "q", pages: Sequence[int] = (2, 3), size: int = 100) -> ChatRequest:
    return ChatRequest(
        purpose="reasoning",
        system="Be exact.",
        pages=tuple(PromptPage(doc_id="d", page=p, height=size, width=size, render="pymupdf-jpeg-90") for p in pages),
        text=text,
        schema=SCHEMA,
        sampling=Sampling(temperature=0.5, top_p=0.9, max_tokens=100, seed=7),
    )


async def load(pages: Sequence[PromptPage]) -> Sequence[bytes]:
    return [JPEG + bytes([page.page]) * 997 for page in pages]


def echo(asked: Asked) -> str:
    return json.dumps({"answer": asked.text})


def by_text(**behaviours: str) -> Callable[[Asked], str]:
    return lambda asked: behaviours.get(asked.text, "right")


def chat_with(server: FakeChat, **settings: Any) -> OpenAiChat:
    standard: dict[str, Any] = {"timeout_s": 10, "attempts": 3, "backoff_s": 0, "rng": random.Random(0)}
    return OpenAiChat(base_url=server.base_url, model=server.model, **{**standard, **settings})


def asking(server: FakeChat, *requests: ChatRequest, **settings: Any) -> list[Any]:
    """The answers or errors of requests that are asked at the same time."""

    async def main() -> list[Any]:
        async with chat_with(server, **settings) as chat:
            found = await asyncio.gather(*(chat.ask(r, load) for r in requests), return_exceptions=True)
            assert chat.image_bytes == 0
            assert asyncio.all_tasks() == {asyncio.current_task()}
            return found

    return asyncio.run(main())


# What is sent


def test_pages_come_before_the_text_each_after_its_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)  # of another server
    with FakeChat(echo) as server:
        (found,) = asking(server, request_of("How many?"))
    assert json.loads(found.text) == {"answer": "How many?"}
    assert (found.finish_reason, found.prompt_tokens, found.image_tokens) == ("stop", 22, 20)
    ((asked, _),) = server.requests
    assert asked.labels == ("Page 3", "Page 4")
    assert [image[3] for image in asked.images] == [2, 3]
    assert (asked.system, asked.text, asked.schema) == ("Be exact.", "How many?", json.loads(SCHEMA))
    assert "Authorization" not in asked.headers
    assert {k: v for k, v in asked.body.items() if k not in ("messages", "response_format")} == {
        "model": "fake-vl",
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 100,
        "seed": 7,
    }


def test_body_of_a_request_without_pages_system_or_schema() -> None:
    bare = replace(request_of("Q?", pages=()), system="", schema="")
    assert body_of(bare, "m", [], "response_format") == {
        "model": "m",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Q?"}]}],
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 100,
        "seed": 7,
    }


def test_the_other_way_to_send_a_schema() -> None:
    with FakeChat(echo) as server:
        asking(server, request_of(), structured="vllm")
    ((asked, _),) = server.requests
    assert asked.body["structured_outputs"] == {"json": json.loads(SCHEMA)}
    assert "response_format" not in asked.body


def test_purpose_is_not_sent() -> None:
    with FakeChat(echo) as server:
        asking(server, replace(request_of(), purpose="secret-purpose"))
    assert "secret-purpose" not in json.dumps(server.requests[0][0].body)


def test_media_types() -> None:
    assert [media_type(start + b"...") for start in (JPEG, b"\x89PNG\r\n\x1a\n", b"RIFF", b"?")] == [
        "image/jpeg",
        "image/png",
        "image/webp",
        "image/jpeg",
    ]


def test_images_as_files_are_private_and_gone_afterwards(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []

    def look(asked: Asked) -> str:
        (folder,) = tmp_path.iterdir()
        urls = [p["image_url"]["url"] for p in asked.body["messages"][1]["content"] if p["type"] == "image_url"]
        seen.append((urls[0], folder.stat().st_mode & 0o777, len(list(folder.iterdir()))))
        return echo(asked)

    with FakeChat(look, script=in_turn("500")) as server:
        (found,) = asking(server, request_of(), images="file", image_folder=tmp_path)
    assert found.finish_reason == "stop"
    ((url, mode, number),) = seen[-1:]
    assert url.startswith(tmp_path.as_uri())
    assert url.endswith(".jpeg")
    assert (mode, number) == (0o700, 2)
    assert [image[3] for image in server.requests[-1][0].images] == [2, 3]
    assert list(tmp_path.iterdir()) == []


def test_images_that_cannot_be_written_stop_the_run(tmp_path: Path) -> None:
    with FakeChat(echo) as server:
        (found,) = asking(server, request_of(), images="file", image_folder=tmp_path / "missing")
    assert isinstance(found, EngineError)
    assert "missing" in str(found)


# The key


def test_the_key_comes_from_the_environment_and_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    with FakeChat(echo, api_key=KEY, script=by_text(bad="401", echoed="400")) as server:
        (good,) = asking(server, request_of(), api_key_env="MY_KEY")
        (bad,) = asking(server, request_of("bad"), api_key_env="MY_KEY")
    assert isinstance(good, ChatAnswer)
    assert isinstance(bad, EngineError)
    assert "MY_KEY" in str(bad)
    assert KEY not in str(bad)


def test_a_key_that_a_server_repeats_is_blotted_out() -> None:
    fault = fault_of_status(400, {}, json.dumps({"error": {"message": f"bad header {KEY}!"}}).encode(), KEY, NOW)
    assert fault.detail == "HTTP 400: bad header ***!"


@pytest.mark.parametrize("value", ["", "  ", "käse", "a\x00b"])
def test_a_key_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setattr(os, "environ", {"MY_KEY": value})
    with pytest.raises(ConfigError, match="MY_KEY") as caught:
        api_key_of("MY_KEY")
    assert not value.strip() or value not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://me:hunter2@host/v1",
        "https://hunter2@host/v1",
        "https://host/v1?key=hunter2",
        "host:8000/v1",
        "ftp://host/v1",
        "http://",
        "http://host:port/v1",
        "",
    ],
)
def test_addresses_that_are_none_or_carry_a_secret_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"synth\.base_url") as caught:
        checked_base_url(url)
    assert "hunter2" not in str(caught.value)


def test_a_good_address() -> None:
    assert checked_base_url("http://[::1]:8000/v1/") == "http://[::1]:8000/v1"


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'longdoc\[openai\]'"):
        OpenAiChat(base_url="http://127.0.0.1:1/v1", model="m")


def test_nothing_heavy_is_loaded_before_it_is_needed() -> None:
    code = "import sys, synth.chat; print(sorted({'pydantic', 'numpy'} & set(sys.modules)))\n"
    code += "import synth.openai_chat, synth.cache; print(sorted({'openai', 'httpx2', 'aiohttp'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n[]\n"


# Pauses


@given(st.integers(1, 10_000), st.floats(0, 60), st.floats(0, 1e9), st.floats(0, 1, exclude_max=True))
def test_a_pause_is_bounded_and_never_shorter_than_the_server_asked_for(
    attempt: int, backoff_s: float, asked_s: float, draw: float
) -> None:
    pause = pause_s(attempt, backoff_s, asked_s, draw)
    assert min(asked_s, LONGEST_RETRY_AFTER_S) <= pause <= LONGEST_RETRY_AFTER_S + LONGEST_PAUSE_S


def test_pauses_double_and_are_drawn_from_their_full_length() -> None:
    assert [pause_s(n, 0.5, 0, 0.5) for n in (1, 2, 3, 4, 100)] == [0.25, 0.5, 1.0, 2.0, 15.0]
    assert pause_s(3, 0.5, 0, 0.0) == 0
    assert pause_s(1, 1.0, 7.0, 0.25) == 7.25


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 1.5 ", 1.5),
        (email.utils.formatdate(NOW + 90, usegmt=True), 90.0),
        (email.utils.formatdate(NOW - 90, usegmt=True), 0.0),
        ("", 0.0),
        ("-3", 0.0),
        ("soon", 0.0),
        ("nan", 0.0),
        ("9" * 5000, 0.0),
        ("Mon, 99 Foo 99999999999 99:99:99 GMT", 0.0),
    ],
)
def test_retry_after(value: str, seconds: float) -> None:
    assert retry_after_s(value, NOW) == seconds


def test_what_the_server_asks_for_is_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, float]] = []

    def recorded(attempt: int, backoff_s: float, asked_s: float, draw: float) -> float:
        asked.append((attempt, asked_s))
        return 0.0

    monkeypatch.setattr(module, "pause_s", recorded)
    with FakeChat(echo, script=in_turn("429", "500"), retry_after="17") as server:
        asking(server, request_of())
    assert asked == [(1, 17.0), (2, 0.0)]


# Whose fault it is


@pytest.mark.parametrize(
    ("status", "body", "kind", "reason"),
    [
        (400, b'{"error": {"message": "unknown field"}}', "refused", "request-refused"),
        (400, b'{"error": {"code": "context_length_exceeded", "message": "x"}}', "refused", "context-length"),
        (400, b'{"message": "longer than the maximum model length of 2048"}', "refused", "context-length"),
        (413, b"<html>too large</html>", "refused", "request-refused"),
        (422, b"[" * 10_000, "refused", "request-refused"),
        (401, b"", "fatal", "key-refused"),
        (403, b"", "fatal", "key-refused"),
        (402, b"", "fatal", "no-money"),
        (429, b'{"error": {"code": "insufficient_quota", "message": "pay"}}', "fatal", "no-money"),
        (404, b'{"error": {"message": "no model m"}}', "fatal", "unknown-model"),
        (429, b"", "passing", "rate-limited"),
        (408, b"", "passing", "server-busy"),
        (409, b"", "passing", "server-busy"),
        (500, b"\xff\xfe", "passing", "server-error"),
        (503, b'{"error": null}', "passing", "server-error"),
        (599, b"[]", "passing", "server-error"),
    ],
)
def test_what_an_error_response_means(status: int, body: bytes, kind: str, reason: str) -> None:
    fault = fault_of_status(status, {}, body, "", NOW)
    assert (fault.kind, fault.reason) == (kind, reason)
    assert str(status) in fault.detail
    assert len(fault.detail) < 500
    assert fault.detail.isprintable()


@pytest.mark.parametrize("trouble", ["429", "500", "503", "cut", "half-body", "broken-body", "hang", "endless-body"])
def test_what_may_pass_is_tried_again(trouble: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RESPONSE_BYTES", 2**20)
    usage = Usage()
    with FakeChat(echo, script=in_turn(trouble, trouble)) as server:
        (found,) = asking(server, request_of(), timeout_s=0.4 if trouble == "hang" else 10, usage=usage)
    assert json.loads(found.text) == {"answer": "q"}
    assert [behaviour for _, behaviour in server.requests] == [trouble, trouble, "right"]
    assert len(server.seen) == 1  # the very same request
    assert usage.of("reasoning").retries == 2


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("429", "rate-limited"),
        ("500", "server-error"),
        ("cut", "connection-cut"),
        ("junk", "connection-cut"),
        ("half-body", "connection-cut"),
        ("broken-body", "unreadable-response"),
        ("endless-body", "unreadable-response"),
        ("hang", "timeout"),
        ("drip", "timeout"),
    ],
)
def test_out_of_attempts(trouble: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RESPONSE_BYTES", 2**20)
    with FakeChat(echo, script=always(trouble)) as server:
        (found,) = asking(server, request_of(), timeout_s=0.3 if reason == "timeout" else 10, attempts=2)
    assert isinstance(found, RequestFailed)
    assert found.reason == reason
    assert found.detail.startswith("after 2 attempts: ")
    assert len(server.requests) == 2


@pytest.mark.parametrize(("trouble", "reason"), [("400", "request-refused"), ("context-length", "context-length")])
def test_a_refused_request_fails_at_once_and_alone(trouble: str, reason: str) -> None:
    with FakeChat(echo, script=by_text(bad=trouble)) as server:
        bad, good = asking(server, request_of("bad"), request_of("good"))
    assert isinstance(bad, RequestFailed)
    assert bad.reason == reason
    assert isinstance(good, ChatAnswer)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("behaviour", "finish_reason"),
    [("half-json", "length"), ("white-space", "length"), ("malformed-json", "stop"), ("refusal", "refusal")],
)
def test_whatever_a_model_says_is_an_answer(behaviour: str, finish_reason: str) -> None:
    with FakeChat(echo, script=always(behaviour)) as server:
        (found,) = asking(server, request_of())
    assert found.finish_reason == finish_reason
    assert found.text
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"choices": []}',
        b'{"choices": {}}',
        b'{"choices": [null]}',
        b'{"choices": [{"message": "text"}]}',
        b'{"choices": [{"message": {"content": [1]}}]}',
        b'{"error": {"message": "x"}}',
        b"[" * 100_000,
    ],
)
def test_responses_that_are_none(body: bytes) -> None:
    with pytest.raises(ValueError):
        read_answer(body)


def test_odd_answers_are_read_with_care() -> None:
    body = (
        rb'{"choices": [{"message": {"content": "a\ud800b"}, "finish_reason": null}], "usage": {"prompt_tokens": -1}}'
    )
    assert read_answer(body) == ChatAnswer(
        text="a?b", finish_reason="unknown", prompt_tokens=0, completion_tokens=0, image_tokens=0
    )
    body = b'{"choices": [{"message": {"content": null}, "finish_reason": "length"}], "usage": [1]}'
    assert read_answer(body).text == ""


# When to stop


@pytest.mark.parametrize("trouble", ["401", "404"])
def test_a_refused_key_or_an_unknown_model_stops_everyone_at_once(trouble: str) -> None:
    loaded: list[Sequence[PromptPage]] = []

    async def counted(pages: Sequence[PromptPage]) -> Sequence[bytes]:
        loaded.append(pages)
        return await load(pages)

    async def main() -> list[Any]:
        async with chat_with(server, max_in_flight=1) as chat:
            asked = (chat.ask(request_of(str(i)), counted) for i in range(20))
            return await asyncio.gather(*asked, return_exceptions=True)

    with FakeChat(echo, script=always(trouble)) as server:
        found = asyncio.run(main())
    assert len(loaded) == 1
    assert {type(f) for f in found} == {EngineError}
    assert server.base_url in str(found[0])
    assert len(server.requests) == 1


def test_a_server_that_is_not_there_stops_everyone() -> None:
    with FakeChat(echo) as server:
        pass
    found = asking(server, *(request_of(str(i)) for i in range(20)), max_in_flight=4, gone_after_s=0.5, backoff_s=0.05)
    assert {type(f) for f in found} == {EngineError}
    assert server.base_url in str(found[0])
    assert "no connection" in str(found[0])


def test_a_client_that_gave_up_takes_no_more_requests() -> None:
    async def main() -> None:
        async with chat_with(server, gone_after_s=0.5, backoff_s=0.05) as chat:
            for _ in range(2):
                with pytest.raises(EngineError, match="no connection"):
                    await chat.ask(request_of(), load)

    with FakeChat(echo) as server:
        pass
    asyncio.run(main())


def test_nothing_but_failures_stops_the_run() -> None:
    with FakeChat(echo, script=always("500")) as server:
        requests = [request_of(str(i)) for i in range(10)]
        found = asking(server, *requests, max_in_flight=1, attempts=2, gone_after_failures=3)
    assert [type(f) for f in found] == [RequestFailed] * 2 + [EngineError] * 8
    assert "3 requests in a row failed" in str(found[-1])
    assert len(server.requests) == 6


def test_an_answer_in_between_says_that_the_server_is_there() -> None:
    texts = [f"{'bad' if i % 3 else 'good'}{i}" for i in range(12)]
    script = by_text(**{text: "500" for text in texts if text.startswith("bad")})
    with FakeChat(echo, script=script) as server:
        found = asking(server, *map(request_of, texts), max_in_flight=1, attempts=1, gone_after_failures=3)
    assert [isinstance(f, ChatAnswer) for f in found] == [text.startswith("good") for text in texts]
    assert not any(isinstance(f, EngineError) for f in found)


def test_what_is_with_the_server_when_the_run_stops_is_not_thrown_away() -> None:
    with FakeChat(echo, script=by_text(paid="slow", key="401")) as server:
        paid, key, late = asking(server, request_of("paid"), request_of("key"), request_of("late"), max_in_flight=2)
    assert isinstance(paid, ChatAnswer)
    assert isinstance(key, EngineError)
    assert isinstance(late, EngineError)


def test_who_pauses_when_the_run_stops_does_not_sleep_on() -> None:
    async def main() -> list[Any]:
        async with asyncio.timeout(30), chat_with(server) as chat:
            pausing = await start(chat.ask(request_of("pausing"), load))
            while not server.requests:
                await asyncio.sleep(0.01)
            return await asyncio.gather(pausing, chat.ask(request_of("key"), load), return_exceptions=True)

    with FakeChat(echo, script=by_text(pausing="429", key="401"), retry_after="100") as server:
        assert [type(f) for f in asyncio.run(main())] == [EngineError, EngineError]


def test_any_sign_of_life_starts_the_clock_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is away from 0 s, answers with an error at 50 s, and is away again from 100 s to 150 s."""
    away = Fault(kind="unreachable", reason="unreachable", detail="")
    error = Fault(kind="passing", reason="server-error", detail="")
    answer = ChatAnswer(text="a", finish_reason="stop", prompt_tokens=0, completion_tokens=0)
    story = [(0.0, away), (50.0, error), (100.0, away), (150.0, away), (155.0, answer)]
    clock = [0.0]

    async def attempt(self: OpenAiChat, asking: Coroutine[Any, Any, Any]) -> ChatAnswer | Fault:
        asking.close()
        clock[0], found = story.pop(0)
        return found

    monkeypatch.setattr(OpenAiChat, "_attempt", attempt)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    async def main(gone_after_s: float) -> ChatAnswer:
        async with OpenAiChat(
            base_url="http://127.0.0.1:1/v1", model="m", backoff_s=0, gone_after_s=gone_after_s
        ) as chat:
            return await chat.ask(request_of(), load)

    again = list(story)
    assert asyncio.run(main(60)) == answer
    story, clock = again, [0.0]
    with pytest.raises(EngineError, match="no connection"):
        asyncio.run(main(50))


def test_a_server_that_hangs_stops_everyone_whatever_the_time_for_an_answer() -> None:
    with FakeChat(echo, script=always("hang")) as server:
        requests = [request_of(str(i)) for i in range(6)]
        found = asking(server, *requests, max_in_flight=3, timeout_s=600, attempts=9, gone_after_s=0.5)
    assert {type(f) for f in found} == {EngineError}
    assert "no answer to any of 3 requests for 0.5 s (synth.client.give_up_s)" in str(found[0])
    assert len(server.requests) == 3


def test_silence_lasts_over_attempts() -> None:
    with FakeChat(echo, script=always("hang")) as server:
        (found,) = asking(server, request_of(), timeout_s=0.3, attempts=1_000, gone_after_s=1)
    assert isinstance(found, EngineError)
    assert "no answer" in str(found)
    assert 2 <= len(server.requests) <= 5


def test_a_server_that_answers_some_is_not_silent() -> None:
    """One request hangs; the others are answered one after the other, for longer than silence may last."""
    with FakeChat(echo, script=by_text(hung="hang"), delay_s=0.3) as server:

        async def main() -> tuple[list[Any], Any]:
            async with chat_with(server, max_in_flight=2, timeout_s=600, gone_after_s=2) as chat:
                hung = await start(chat.ask(request_of("hung"), load))
                answers = [await chat.ask(request_of(str(i)), load) for i in range(9)]
                return answers, (await asyncio.gather(hung, return_exceptions=True))[0]

        answers, hung = asyncio.run(main())
    assert [json.loads(a.text)["answer"] for a in answers] == [str(i) for i in range(9)]
    assert isinstance(hung, EngineError)


def test_silence_is_the_time_with_the_server_since_it_last_said_anything() -> None:
    silence = Silence()
    assert not silence
    silence.begin(100.0)
    silence.begin(103.0)
    assert silence
    assert silence.seconds(105.0) == 5.0
    silence.end(106.0, heard=True)  # the other one waits on
    assert silence.seconds(108.0) == 2.0
    silence.end(110.0, heard=False)
    assert not silence
    assert silence.seconds(500.0) == 4.0  # a pause does not count
    silence.begin(500.0)
    assert silence.seconds(501.0) == 5.0
    silence.end(502.0, heard=True)
    silence.begin(600.0)
    assert silence.seconds(601.0) == 1.0


def test_settings_are_called_by_the_names_that_led_here(monkeypatch: pytest.MonkeyPatch) -> None:
    names = SettingNames(base_url="a.base_url", model="a.model", api_key_env="a.key")
    with FakeChat(echo, script=by_text(key="401", model="404")) as server:
        (key,) = asking(server, request_of("key"), names=names)
        (model,) = asking(server, request_of("model"), names=names)
    (away,) = asking(server, request_of(), names=names, gone_after_s=0.5, backoff_s=0.05)
    assert "none is named in a.key" in str(key)
    assert "check a.model and a.base_url" in str(model)
    assert "correct a.base_url" in str(away)
    with pytest.raises(ConfigError, match=r"a\.base_url = 'x'"):
        OpenAiChat(base_url="x", model="m", names=names)
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"NO_SUCH_KEY \(a\.key\)"):
        OpenAiChat(base_url="http://127.0.0.1:1", model="m", api_key_env="NO_SUCH_KEY", names=names)


def test_a_server_that_comes_back_is_found_again_and_nothing_was_paid_twice() -> None:
    with FakeChat(echo, script=mixture(5, {"right": 8, "500": 1, "cut": 1}), dies_after=(7, 25)) as server:

        def revive() -> None:
            for _ in range(2):
                assert server.died.wait(20)
                server.start()

        helper = threading.Thread(target=revive)
        helper.start()
        found = asking(
            server,
            *(request_of(str(i)) for i in range(40)),
            max_in_flight=6,
            attempts=9,
            backoff_s=0.05,
            gone_after_s=30,
        )
        helper.join(20)
    assert [json.loads(f.text)["answer"] for f in found] == [str(i) for i in range(40)]
    assert len(server.answered) == 40
    assert server.answered_again == []


def test_looking_whether_there_is_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(**settings: Any) -> None:
        async with chat_with(server, **settings) as chat:
            await chat.check()

    monkeypatch.setenv("MY_KEY", KEY)
    with FakeChat(echo, api_key=KEY) as server:
        asyncio.run(main(api_key_env="MY_KEY"))
        with pytest.raises(EngineError, match=r"synth\.client\.api_key_env"):
            asyncio.run(main())
    with pytest.raises(EngineError, match="no connection"):
        asyncio.run(main())
    assert server.requests == []


# Bounds


def test_requests_in_flight_are_bounded_and_the_bound_is_used() -> None:
    with FakeChat(echo, delay_s=0.1) as server:
        found = asking(server, *(request_of(str(i)) for i in range(30)), max_in_flight=5)
    assert len(found) == 30
    assert server.max_in_flight == 5


def test_bytes_of_images_are_bounded() -> None:
    """Two of the small requests fit; the large one goes alone."""
    held: list[tuple[str, int]] = []

    async def watched(pages: Sequence[PromptPage]) -> Sequence[bytes]:
        held.append(("large" if len(pages) > 2 else "small", chat.image_bytes))
        await asyncio.sleep(0)
        return [JPEG + bytes(4_997) for _ in pages]

    async def main() -> None:
        global chat
        async with chat_with(server, max_image_bytes=20_000) as chat:
            small = [request_of(str(i)) for i in range(8)]
            large = request_of("large", pages=range(6))
            await asyncio.gather(*(chat.ask(r, watched) for r in (*small[:4], large, *small[4:])))
            assert chat.image_bytes == 0

    with FakeChat(echo, delay_s=0.02) as server:
        asyncio.run(main())
    assert {(kind, size) for kind, size in held if kind == "large"} == {("large", 30_000)}
    assert max(size for kind, size in held if kind == "small") == 20_000
    assert server.max_in_flight == 2
    assert len(server.requests) == 9


def test_an_unusual_format_is_learnt() -> None:
    sizes: list[int] = []

    async def heavy(pages: Sequence[PromptPage]) -> Sequence[bytes]:
        sizes.append(chat.image_bytes)
        return [JPEG + bytes(29_997) for _ in pages]  # three bytes a pixel

    async def main() -> None:
        global chat
        async with chat_with(server) as chat:
            for i in range(3):
                await chat.ask(request_of(str(i), pages=[0]), heavy)

    with FakeChat(echo) as server:
        asyncio.run(main())
    assert sizes == [5_000, 30_000, 30_000]


class Images(list[bytes]):
    """A list that can be watched."""


def test_images_are_let_go_while_the_server_thinks() -> None:
    watched: list[weakref.ref[Images]] = []
    alive: list[bool] = []

    async def load_watched(pages: Sequence[PromptPage]) -> Images:
        images = Images([JPEG + bytes(1000)])
        watched.append(weakref.ref(images))
        return images

    def look(asked: Asked) -> str:
        alive.append(watched[-1]() is not None)
        return echo(asked)

    async def main(images: str) -> None:
        async with chat_with(server, images=images) as chat:
            await chat.ask(request_of(images, pages=[0]), load_watched)

    with FakeChat(look) as server:
        for images in ("inline", "file"):
            asyncio.run(main(images))
    assert alive == [False, False]


# Nothing is left behind


@pytest.mark.parametrize("where", ["hang", "429", "waiting", "loading"])
def test_a_cancelled_request_leaves_nothing(where: str, tmp_path: Path) -> None:
    reached = threading.Event()

    def script(asked: Asked) -> str:
        reached.set()
        return where if asked.text == "first" and where in ("hang", "429") else "right"

    async def stuck(pages: Sequence[PromptPage]) -> Sequence[bytes]:
        reached.set()
        await asyncio.sleep(3600)
        return []

    async def main() -> None:
        async with chat_with(server, max_in_flight=1, images="file", image_folder=tmp_path) as chat:
            blocker = await start(chat.ask(request_of("first"), stuck if where in ("loading", "waiting") else load))
            while not reached.is_set():
                await asyncio.sleep(0.01)
            task = await start(chat.ask(request_of("second"), load)) if where == "waiting" else blocker
            if where == "429":
                await asyncio.sleep(0.1)  # so that it waits for its next attempt
            for cancelled in (task, blocker):
                cancelled.cancel()
                assert isinstance((await asyncio.gather(cancelled, return_exceptions=True))[0], asyncio.CancelledError)
            assert chat.image_bytes == 0
            assert [file for folder in tmp_path.iterdir() for file in folder.iterdir()] == []
            assert isinstance(await chat.ask(request_of("next"), load), ChatAnswer)
            assert asyncio.all_tasks() == {asyncio.current_task()}

    with FakeChat(echo, script=script, retry_after="60") as server:
        asyncio.run(main())
    assert list(tmp_path.iterdir()) == []


async def start(asking: Coroutine[Any, Any, ChatAnswer]) -> asyncio.Task[ChatAnswer]:
    task = asyncio.create_task(asking)
    await asyncio.sleep(0)
    return task


def test_images_that_cannot_be_loaded_hold_no_place() -> None:
    async def broken(pages: Sequence[PromptPage]) -> Sequence[bytes]:
        raise DocumentError("unreadable")

    async def main() -> None:
        async with chat_with(server, max_in_flight=1) as chat:
            for _ in range(3):
                with pytest.raises(DocumentError):
                    await chat.ask(request_of(), broken)
            assert chat.image_bytes == 0
            assert isinstance(await chat.ask(request_of(), load), ChatAnswer)

    with FakeChat(echo) as server:
        asyncio.run(main())


def test_no_file_or_socket_stays_open() -> None:
    def open_files() -> set[str]:
        return {os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if n.isdigit() and _is_open(n)}

    before = open_files()
    with FakeChat(echo, script=in_turn("cut", "hang", "half-body")) as server:
        asking(server, *(request_of(str(i)) for i in range(8)), attempts=5, timeout_s=0.5, images="file")
    assert open_files() - before == set()


def _is_open(number: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{number}")


# A server of ours


def test_a_server_of_ours_that_died_is_started_again_and_asked_again() -> None:
    told: list[str] = []
    with FakeChat(echo, dies_after=(1, 2, 3, 6)) as server:

        def revive() -> int:
            assert server.died.wait(20)
            server.start()
            told.append("restart")
            return told.count("restart")

        # three deaths at the first request: two attempts are enough, for they say nothing about it
        questions = [request_of(f"q{i}") for i in range(8)]
        told_of = {"revive": revive, "on_answer": lambda: told.append("answer")}
        found = asking(server, *questions, **told_of, max_in_flight=1, attempts=2)
    assert [json.loads(a.text)["answer"] for a in found] == [f"q{i}" for i in range(8)]
    assert server.answered_again == []
    assert told == ["restart"] * 3 + ["answer"] * 2 + ["restart"] + ["answer"] * 6


def test_what_a_living_server_of_ours_fails_at_is_counted() -> None:
    with FakeChat(echo, script=always("500")) as server:
        (found,) = asking(server, request_of("q"), revive=lambda: 3, attempts=2)
    assert isinstance(found, RequestFailed)
    assert len(server.requests) == 3  # the first showed that the server had died some time


def test_a_server_of_ours_that_stays_down_ends_the_run() -> None:
    def revive() -> int:
        raise EngineError("it died too often")

    with FakeChat(echo) as server:
        server.stop()
        found = asking(server, request_of("a"), request_of("b"), revive=revive)
    assert [str(e) for e in found] == ["it died too often"] * 2


def test_a_key_of_ours_is_sent_without_an_environment_variable() -> None:
    with FakeChat(echo, api_key="drawn") as server:
        (found,) = asking(server, request_of("q"), api_key="drawn")
    assert json.loads(found.text) == {"answer": "q"}
