"""Paid once: by what an answer is kept, that it survives kills and company, and that damage is said."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import synth.cache as module
from corpus.errors import EngineError
from synth.cache import AnswerCache, CachedChat, Payment, key_of
from synth.chat import ChatAnswer, ChatRequest, LoadImages, PromptPage, RequestFailed, Sampling
from synth.usage import Spent, Usage

PAGE = PromptPage(doc_id="d", page=3, height=1120, width=784, render="pymupdf-jpeg-90")
REQUEST = ChatRequest(
    purpose="reasoning",
    system="Be exact.",
    pages=(PAGE,),
    text="How many?",
    schema='{"type":"object"}',
    sampling=Sampling(temperature=0, top_p=1, max_tokens=100, seed=7),
)
ANSWER = ChatAnswer(
    text='{"answer": "12 Äpfel 苹果"}', finish_reason="stop", prompt_tokens=9, completion_tokens=4, image_tokens=5
)
KEY = key_of(REQUEST, "m")


def other(text: str) -> ChatAnswer:
    return replace(ANSWER, text=text)


def payment(run: str = "", purpose: str = "reasoning", seconds: float = 1.0, estimated: int = 0) -> Payment:
    return Payment(run=run, purpose=purpose, seconds=seconds, estimated_image_tokens=estimated)


# The key


def test_the_same_request_has_the_same_key_whatever_the_version() -> None:
    """Changing this number pays for every answer of every user again: raise KEY_VERSION only for that."""
    assert KEY.hex() == "ba3ebc978bc7626fb6ae208a641b62e198b1ee8714f82ece28441d0c37c30aa0"


@pytest.mark.parametrize(
    "changed",
    [
        replace(REQUEST, system="Be brief."),
        replace(REQUEST, text="How much?"),
        replace(REQUEST, schema=""),
        replace(REQUEST, pages=()),
        replace(REQUEST, pages=(PAGE, PAGE)),
        *(
            replace(REQUEST, pages=(replace(PAGE, **change),))
            for change in ({"doc_id": "e"}, {"page": 4}, {"height": 1}, {"width": 1}, {"render": "pdf2image-jpeg-90"})
        ),
        *(
            replace(REQUEST, sampling=replace(REQUEST.sampling, **change))
            for change in ({"temperature": 0.1}, {"top_p": 0.9}, {"max_tokens": 99}, {"seed": 8})
        ),
    ],
)
def test_whatever_is_asked_is_part_of_the_key(changed: ChatRequest) -> None:
    assert key_of(changed, "m") != KEY


def test_what_is_not_asked_is_not_part_of_the_key() -> None:
    assert key_of(replace(REQUEST, purpose="agreement"), "m") == KEY
    assert key_of(replace(REQUEST, sampling=replace(REQUEST.sampling, temperature=0.0)), "m") == KEY
    assert key_of(REQUEST, "n") != KEY


# The file


def test_answers_stay_in_a_file_whose_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "answers.sqlite"
    cache = AnswerCache(path)
    assert cache.get(KEY) is None
    assert cache.put(KEY, "m", ANSWER) == ANSWER
    cache.close()
    again = AnswerCache(path)
    assert again.get(KEY) == ANSWER
    assert len(again) == 1
    again.close()
    assert os.listdir(path.parent) == ["answers.sqlite"]


def test_the_first_answer_stays(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "answers.sqlite")
    cache.put(KEY, "m", ANSWER)
    assert cache.put(KEY, "m", other("second")) == ANSWER
    assert cache.get(KEY) == ANSWER


def test_an_answer_outlives_the_power(tmp_path: Path) -> None:
    """Which no test can cut: what SQLite promises for these two settings is that a commit is on the disk."""
    cache = AnswerCache(tmp_path / "answers.sqlite")
    settings = [cache._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert settings == ["wal", 2]


def test_long_answers_are_kept_small(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "answers.sqlite")
    cache.put(KEY, "m", other("a transcription " * 100_000))
    cache.close()
    assert cache.path.stat().st_size < 100_000


def test_threads_share_a_cache(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "answers.sqlite")

    def work(i: int) -> ChatAnswer:
        key = key_of(replace(REQUEST, text=str(i % 20)), "m")
        return cache.put(key, "m", other(f"{i % 20}")) if cache.get(key) is None else cache.get(key) or ANSWER

    with ThreadPoolExecutor(8) as pool:
        assert [a.text for a in pool.map(work, range(200))] == [f"{i % 20}" for i in range(200)]
    assert len(cache) == 20


WRITER = """
import hashlib, sys
from pathlib import Path
from synth.cache import AnswerCache
from synth.chat import ChatAnswer
name, first, step = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
cache = AnswerCache(Path(sys.argv[1]))
for i in range(first, int(sys.argv[5]), step):
    answer = ChatAnswer(text=f"{name} {i} " * 200, finish_reason="stop", prompt_tokens=i, completion_tokens=1)
    kept = cache.put(hashlib.sha256(str(i).encode()).digest(), "m", answer)
    print(i, kept.text.split()[0], flush=True)
"""


def writer(path: Path, name: str, first: int, step: int, stop: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", WRITER, str(path), name, str(first), str(step), str(stop)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def test_what_was_stored_survives_kills(tmp_path: Path) -> None:
    """Two writers at once are killed in the middle of their work, several times over."""
    path, stored = tmp_path / "answers.sqlite", []
    for start, enough in ((0, 1), (1_000_000, 25), (2_000_000, 60)):  # too many to come to an end
        writers = [writer(path, f"w{n}", start + n, 2, start + 1_000_000) for n in range(2)]
        for process in writers:
            assert process.stdout
            stored += [int(process.stdout.readline().split()[0]) for _ in range(enough)]
        for process in writers:
            process.send_signal(signal.SIGKILL)
            assert process.stdout
            stored += [int(line.split()[0]) for line in process.stdout if line.endswith("\n")]
            process.stdout.close()
            assert process.wait(20) == -signal.SIGKILL
    cache = AnswerCache(path)
    found = [cache.get(hashlib.sha256(str(i).encode()).digest()) for i in stored]
    assert [answer.prompt_tokens if answer else None for answer in found] == stored
    assert 0 <= len(cache) - len(stored) <= 6  # one of each writer may be stored and not yet announced
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_processes_that_store_the_same_agree_on_the_first(tmp_path: Path) -> None:
    """They also make the file at the same time."""
    path = tmp_path / "answers.sqlite"
    writers = [writer(path, f"w{n}", 0, 1, 60) for n in range(3)]
    said = [process.communicate(timeout=60)[0].splitlines() for process in writers]
    assert [process.returncode for process in writers] == [0, 0, 0]
    assert said[0] == said[1] == said[2]
    assert len(said[0]) == 60
    assert len(AnswerCache(path)) == 60
    assert not [name for name in os.listdir(tmp_path) if not name.startswith("answers.sqlite")]


def filled(path: Path) -> Path:
    cache = AnswerCache(path)
    for i in range(100):
        cache.put(key_of(replace(REQUEST, text=str(i)), "m"), "m", other(os.urandom(300).hex()))
    cache.close()
    return path


def read_all(path: Path) -> None:
    cache = AnswerCache(path)
    for i in range(100):
        cache.get(key_of(replace(REQUEST, text=str(i)), "m"))


@pytest.mark.parametrize("damage", ["empty", "text", "header", "middle", "half"])
def test_a_damaged_file_is_said_and_left_alone(tmp_path: Path, damage: str) -> None:
    path = filled(tmp_path / "answers.sqlite")
    read_all(path)
    content = path.read_bytes()
    spoilt = {
        "empty": b"",
        "text": b"no database" * 1000,
        "header": b"\0" * 16 + content[16:],
        "middle": content[:4096] + b"\xaa" * (len(content) - 8192) + content[-4096:],
        "half": content[: len(content) // 8192 * 4096],
    }[damage]
    path.write_bytes(spoilt)
    with pytest.raises(EngineError) as caught:
        read_all(path)
    assert str(path) in str(caught.value)
    assert "damaged" in str(caught.value)
    assert ".recover" in str(caught.value)
    assert path.read_bytes() == spoilt


def test_a_damaged_answer_is_said(tmp_path: Path) -> None:
    path = filled(tmp_path / "answers.sqlite")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE answers SET text = x'00'")
    with pytest.raises(EngineError, match="damaged"):
        read_all(path)


def test_another_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE answers (key)")
    with pytest.raises(EngineError, match="not an answer cache"):
        AnswerCache(path)


def test_a_format_of_the_future_is_refused(tmp_path: Path) -> None:
    path = filled(tmp_path / "answers.sqlite")
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(EngineError, match="format 99"):
        AnswerCache(path)


def test_a_log_without_its_file_is_not_buried(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    (tmp_path / "answers.sqlite-wal").write_bytes(b"answers")
    with pytest.raises(EngineError, match="log"):
        AnswerCache(path)
    assert not path.exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="file/answers"):
        AnswerCache(tmp_path / "file" / "answers.sqlite")
    with pytest.raises(EngineError, match="answer cache"):
        AnswerCache(tmp_path)


def test_waiting_for_another_writer_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_S", 0.1)
    cache = AnswerCache(tmp_path / "answers.sqlite")
    cache.put(KEY, "m", ANSWER)
    blocker = sqlite3.connect(cache.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    assert cache.get(KEY) == ANSWER  # readers do not wait
    with pytest.raises(EngineError, match="another process"):
        cache.put(key_of(REQUEST, "n"), "n", ANSWER)
    blocker.execute("ROLLBACK")
    cache.put(key_of(REQUEST, "n"), "n", ANSWER)


# The chat model


class Model:
    """Answers with the number of the question, or fails while `failing`."""

    name = "m"

    def __init__(self) -> None:
        self.asked: list[ChatRequest] = []
        self.failing = False
        self.go_on: asyncio.Event | None = None
        self.held: dict[str, asyncio.Event] = {}

    async def ask(self, request: ChatRequest, load: LoadImages) -> ChatAnswer:
        self.asked.append(request)
        await load(request.pages)
        if self.go_on:
            await self.go_on.wait()
        if request.text in self.held:
            await self.held[request.text].wait()
        if self.failing:
            raise RequestFailed("timeout", "after 3 attempts")
        return other(f"{request.text} {len(self.asked)}")


async def load(pages: Sequence[PromptPage]) -> Sequence[bytes]:
    return [b"image" for _ in pages]


async def never(pages: Sequence[PromptPage]) -> Sequence[bytes]:
    raise AssertionError("a page was rendered for an answer that is there")


class Bench:
    """A model behind a cache."""

    def __init__(self, path: Path) -> None:
        self.model, self.usage = Model(), Usage()
        self.cache = AnswerCache(path)
        self.chat = CachedChat(self.model, self.cache, self.usage)

    def close(self) -> None:
        self.chat.close()
        self.cache.close()


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    bench = Bench(tmp_path / "answers.sqlite")
    yield bench
    bench.close()


def test_a_second_time_costs_nothing_not_even_rendering(bench: Bench) -> None:
    async def main() -> list[ChatAnswer]:
        first = await bench.chat.ask(REQUEST, load)
        return [first, await bench.chat.ask(replace(REQUEST, purpose="agreement"), never)]

    first, second = asyncio.run(main())
    assert first == second == other("How many? 1")
    assert bench.usage.of("reasoning").requests == 1
    assert bench.usage.of("reasoning").completion_tokens == 4
    assert bench.usage.of("agreement").to_dict() == {
        **dict.fromkeys(bench.usage.of("agreement").to_dict(), 0),
        "failures": {},
        "cache_hits": 1,
    }
    assert bench.chat.name == "m"


def test_an_answer_is_on_the_disk_before_anyone_sees_it(bench: Bench) -> None:
    async def main() -> None:
        await bench.chat.ask(REQUEST, load)
        reader = AnswerCache(bench.cache.path)
        assert reader.get(KEY) == other("How many? 1")
        reader.close()

    asyncio.run(main())


def test_an_answer_that_was_cut_was_paid_for_too(bench: Bench) -> None:
    bench.cache.put(KEY, "m", replace(ANSWER, finish_reason="length"))
    assert asyncio.run(bench.chat.ask(REQUEST, never)).finish_reason == "length"
    assert bench.model.asked == []


def test_the_same_question_at_the_same_time_is_asked_once(bench: Bench) -> None:
    async def main() -> list[ChatAnswer]:
        requests = [replace(REQUEST, purpose=f"p{i % 2}", text=f"t{i % 3}") for i in range(30)]
        return await asyncio.gather(*(bench.chat.ask(r, load) for r in requests))

    found = asyncio.run(main())
    assert len(bench.model.asked) == 3
    assert len({a.text for a in found}) == 3
    total = bench.usage.total()
    assert (total.requests, total.cache_hits) == (3, 27)


def test_a_failure_is_shared_but_not_kept(bench: Bench) -> None:
    async def main() -> None:
        bench.model.failing = True
        found = await asyncio.gather(*(bench.chat.ask(REQUEST, load) for _ in range(3)), return_exceptions=True)
        assert [type(f) for f in found] == [RequestFailed] * 3
        bench.model.failing = False
        assert (await bench.chat.ask(REQUEST, load)).text == "How many? 2"

    asyncio.run(main())
    assert bench.usage.of("reasoning").failures == {"timeout": 1}
    assert bench.usage.of("reasoning").requests == 2


def test_when_the_one_who_asks_is_cancelled_another_one_asks(bench: Bench) -> None:
    async def main() -> None:
        bench.model.go_on = asyncio.Event()
        tasks = [asyncio.create_task(bench.chat.ask(REQUEST, load)) for _ in range(3)]
        while not bench.model.asked:
            await asyncio.sleep(0.001)
        tasks[0].cancel()
        tasks[1].cancel()
        while len(bench.model.asked) < 2:
            await asyncio.sleep(0.001)
        bench.model.go_on.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(found[0], asyncio.CancelledError)
        assert isinstance(found[1], asyncio.CancelledError)
        assert isinstance(found[2], ChatAnswer)

    asyncio.run(main())
    assert len(bench.model.asked) == 2


def test_an_answer_is_kept_even_if_nobody_waits_for_it_any_more(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    writing, go_on, put_all = threading.Event(), threading.Event(), bench.cache.put_all

    def slow(*arguments: Any) -> list[ChatAnswer]:
        writing.set()
        assert go_on.wait(10)
        return put_all(*arguments)

    monkeypatch.setattr(bench.cache, "put_all", slow)

    async def main() -> None:
        bench.model.held["b"] = asyncio.Event()
        tasks = [asyncio.create_task(bench.chat.ask(replace(REQUEST, text=t), load)) for t in "ab"]
        while not writing.is_set() or len(bench.model.asked) < 2:
            await asyncio.sleep(0.001)
        bench.model.held["b"].set()
        while not bench.chat._unstored:  # b waits for the thread, which is busy with a
            await asyncio.sleep(0.001)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        go_on.set()

    asyncio.run(main())
    bench.chat.close()
    assert [bench.cache.get(key_of(replace(REQUEST, text=t), "m")) for t in "ab"] == [other("a 1"), other("b 2")]


def test_answers_that_wait_are_written_together(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    batches, put_all = [], bench.cache.put_all

    def counted(model_name: str, answers: Sequence[tuple[bytes, ChatAnswer]], *payments: Any) -> list[ChatAnswer]:
        batches.append(len(answers))
        return put_all(model_name, answers, *payments)

    monkeypatch.setattr(bench.cache, "put_all", counted)
    waiting = [module._Stored(bytes([i]), other(str(i)), payment()) for i in range(5)]
    bench.chat._unstored.extend(waiting)
    assert [bench.chat._store(one).text for one in waiting] == ["0", "1", "2", "3", "4"]
    assert batches == [5]
    assert len(bench.cache) == 5


def test_a_batch_that_cannot_be_written_fails_for_everyone_in_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> list[ChatAnswer]:
        raise EngineError("the disk is full")

    monkeypatch.setattr(bench.cache, "put_all", broken)

    async def main() -> list[Any]:
        requests = [replace(REQUEST, text=str(i)) for i in range(5)]
        return await asyncio.gather(*(bench.chat.ask(r, load) for r in requests), return_exceptions=True)

    assert [str(e) for e in asyncio.run(main())] == ["the disk is full"] * 5


def test_all_or_nothing_is_stored(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "answers.sqlite")
    cache.put(b"b", "m", ANSWER)
    kept = cache.put_all("m", [(b"a", other("1")), (b"b", other("2")), (b"a", other("3")), (b"c", other("a\ud800b"))])
    assert kept == [other("1"), ANSWER, other("1"), other("a\ud800b")]
    assert [cache.get(key) for key in (b"a", b"b", b"c")] == [other("1"), ANSWER, other("a\ud800b")]
    with pytest.raises(EngineError):
        cache.put_all("m", [(b"d", ANSWER), (b"e", replace(ANSWER, finish_reason=None))])  # type: ignore[arg-type]
    assert cache.get(b"d") is None
    cache.put(b"d", "m", ANSWER)


def test_a_cache_that_breaks_stops_the_run(bench: Bench) -> None:
    async def main() -> None:
        with pytest.raises(EngineError, match="answer cache"):
            await bench.chat.ask(REQUEST, load)

    bench.cache.close()
    asyncio.run(main())
    assert bench.model.asked == []


# Who paid


def test_what_a_run_paid_is_kept_with_the_answers(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "answers.sqlite")
    mine = [payment("mine"), payment("mine", "agreement", seconds=2.5, estimated=7)]
    cache.put_all("m", [(b"a", ANSWER), (b"b", replace(ANSWER, image_tokens=0))], mine)
    cache.put_all("m", [(b"b", ANSWER), (b"c", ANSWER)], [payment("theirs"), payment("theirs")])
    cache.put_all("m", [(b"a", ANSWER), (b"d", ANSWER)], [payment("mine"), payment()])  # again after a kill; for nobody
    cache.close()
    again = AnswerCache(tmp_path / "answers.sqlite")
    assert again.paid("mine").purposes == {
        "reasoning": Spent(requests=1, prompt_tokens=9, completion_tokens=4, image_tokens=5, seconds=1.0),
        "agreement": Spent(
            requests=1, prompt_tokens=9, completion_tokens=4, image_tokens=7, estimated_image_tokens=7, seconds=2.5
        ),
    }
    assert again.paid("theirs").total().requests == 2
    assert again.paid("") == again.paid("nobody") == Usage()


def test_nothing_is_paid_that_is_not_kept(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "answers.sqlite")
    with pytest.raises(EngineError):
        cache.put_all("m", [(b"a", ANSWER)], [payment("mine", None)])  # type: ignore[arg-type]
    assert cache.get(b"a") is None
    assert cache.paid("mine") == Usage()


def test_an_answer_of_an_earlier_attempt_is_no_hit(tmp_path: Path) -> None:
    def attempt(run: str) -> Spent:
        usage, cache = Usage(), AnswerCache(tmp_path / "answers.sqlite")
        chat = CachedChat(Model(), cache, usage, run=run)

        async def main() -> None:
            for _ in range(2):
                await chat.ask(REQUEST, load)

        asyncio.run(main())
        chat.close()
        cache.close()
        return usage.total()

    first, second, other_run = attempt("mine"), attempt("mine"), attempt("other")
    assert (first.requests, first.cache_hits, first.resumed) == (1, 1, 0)
    assert (second.requests, second.cache_hits, second.resumed) == (0, 0, 2)
    assert (other_run.requests, other_run.cache_hits, other_run.resumed) == (0, 2, 0)


def test_image_tokens_that_a_server_does_not_tell_are_estimated(tmp_path: Path) -> None:
    class Silent(Model):
        async def ask(self, request: ChatRequest, load: LoadImages) -> ChatAnswer:
            return replace(await super().ask(request, load), image_tokens=0)

    usage, cache = Usage(), AnswerCache(tmp_path / "answers.sqlite")
    chat = CachedChat(Silent(), cache, usage, run="mine")
    asyncio.run(chat.ask(REQUEST, load))
    chat.close()
    for spent in (usage.total(), cache.paid("mine").total()):
        assert (spent.image_tokens, spent.estimated_image_tokens) == (40 * 28, 40 * 28)  # a page of 1120 x 784 pixels


def test_a_file_without_accounts_is_used_on(tmp_path: Path) -> None:
    path = filled(tmp_path / "answers.sqlite")
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE paid")
    cache = AnswerCache(path)
    assert len(cache) == 100
    cache.put_all("m", [(b"a", ANSWER)], [payment("mine")])
    assert cache.paid("mine").total().requests == 1
