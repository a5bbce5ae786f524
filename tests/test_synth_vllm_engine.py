"""The real vLLM, on the CPU, with a tiny random model: images under a schema, death, restart, stop.

Needs an environment that `make test-engines` sets up; without it everything here is skipped.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import signal
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import APIConnectionError, APIStatusError, AsyncOpenAI, AuthenticationError, BadRequestError, OpenAI
from openai.types.chat import ChatCompletion
from PIL import Image, ImageDraw
from test_corpus_workers import eventually, is_running

from corpus.config import VllmSettings
from synth.vllm_server import VllmServer

ENVIRONMENT = Path(__file__).parent.parent / ".venv-vllm"
MAX_IMAGES = 3
WIDTH, HEIGHT = 280, 392  # pixels of a page
PAGE = (WIDTH // 28) * (HEIGHT // 28)  # tokens
LONG_S = 300.0
# A seeded request whose prompt is cut into chunks ends the engine: "CPU Generator does not use offset" (vLLM 0.32.0).
WHOLE_PROMPTS = ("--no-enable-chunked-prefill", "--max-num-batched-tokens", "4096")
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "question": {"type": "string", "maxLength": 24},
        "evidence_pages": {"type": "array", "items": {"enum": [7, 8, 9]}, "minItems": 1, "maxItems": 2},
    },
    "required": ["question", "evidence_pages"],
    "additionalProperties": False,
}

pytestmark = pytest.mark.skipif(
    not (ENVIRONMENT / "installed").is_file(), reason="vLLM is not set up: run `make test-engines`"
)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three pages."""
    folder = tmp_path_factory.mktemp("media")
    for number in (7, 8, 9):
        page = Image.new("RGB", (WIDTH, HEIGHT), "white")
        ImageDraw.Draw(page).text((40, 60), f"Total of page {number}: {number * 111}", fill="black")
        page.save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def server(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    asked = VllmSettings(
        python=str(ENVIRONMENT / "bin" / "python"),
        max_model_len=4_096,
        extra_args=("--dtype", "bfloat16", "--enforce-eager", *WHOLE_PROMPTS),
        start_timeout_s=LONG_S,
    )
    log = tmp_path_factory.mktemp("logs") / "vllm.log"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("VLLM_CPU_KVCACHE_SPACE", "1")  # GB
        with VllmServer(asked, str(ENVIRONMENT / "model"), log=log, max_images=MAX_IMAGES, media=media) as made:
            yield made


def inline(page: Path) -> str:
    with Image.open(page) as image:
        encoded = io.BytesIO()
        image.save(encoded, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def request(server: VllmServer, urls: list[str], text: str = "Ask a question.", **more: Any) -> dict[str, Any]:
    """A chat request: images after their labels, before the text."""
    parts: list[dict[str, Any]] = []
    for number, url in enumerate(urls, 7):
        parts += [{"type": "text", "text": f"Page {number}\n"}, {"type": "image_url", "image_url": {"url": url}}]
    messages = [
        {"role": "system", "content": "You write questions."},
        {"role": "user", "content": [*parts, {"type": "text", "text": text}]},
    ]
    schema = {"type": "json_schema", "json_schema": {"name": "question", "schema": SCHEMA, "strict": True}}
    return {
        "model": server.model,
        "messages": messages,
        "response_format": schema,
        "max_tokens": 400,
        "temperature": 1.0,
        **more,
    }


def ask(server: VllmServer, urls: list[str], key: str | None = None, **more: Any) -> ChatCompletion:
    client = OpenAI(base_url=server.base_url, api_key=key or server.api_key, max_retries=0, timeout=LONG_S)
    with client:
        answer = client.chat.completions.create(**request(server, urls, **more))
    assert isinstance(answer, ChatCompletion)
    return answer


def assert_follows_schema(answer: ChatCompletion) -> None:
    (choice,) = answer.choices
    assert choice.finish_reason == "stop" and choice.message.content
    value = json.loads(choice.message.content, strict=False)  # XGrammar lets control characters into strings
    assert list(value) == ["question", "evidence_pages"]
    assert isinstance(value["question"], str) and len(value["question"]) <= 24
    assert 1 <= len(value["evidence_pages"]) <= 2 and set(value["evidence_pages"]) <= {7, 8, 9}


def metric(server: VllmServer, name: str) -> float:
    with urllib.request.urlopen(server.base_url.removesuffix("/v1") + "/metrics", timeout=LONG_S) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name + "{"))


def group(server: VllmServer) -> dict[int, str]:
    """Command lines of the processes in the supervisor's process group."""
    assert server._process is not None
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            number = int((folder / "stat").read_text().rpartition(")")[2].split()[2])
            if number == server._process.pid:
                found[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:  # it ended meanwhile
            continue
    return found


def listening(pids: Iterable[int]) -> list[str]:
    """Addresses, as /proc writes them, at which these processes listen for TCP connections."""
    held = set()
    for descriptor in (d for pid in pids for d in Path(f"/proc/{pid}/fd").iterdir()):
        with contextlib.suppress(OSError):  # it was closed meanwhile
            held.add(os.readlink(descriptor))
    rows = [row.split() for v in ("tcp", "tcp6") for row in Path(f"/proc/net/{v}").read_text().splitlines()[1:]]
    return [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in held]


def test_answers_about_images_follow_the_schema(server: VllmServer, media: Path) -> None:
    pages = [media / f"{number}.png" for number in (7, 8, 9)]

    async def ask_all() -> list[ChatCompletion]:
        async with AsyncOpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0) as client:
            asked = [[inline(p) for p in pages], [p.as_uri() for p in pages]] * 8
            calls = [client.chat.completions.create(**request(server, u, seed=n)) for n, u in enumerate(asked)]
            return await asyncio.gather(*calls)

    answers = asyncio.run(ask_all())
    assert len(answers) == 16
    for answer in answers:
        assert_follows_schema(answer)
    assert len({answer.choices[0].message.content for answer in answers}) > 1
    assert all(answer.model == server.model == "model" for answer in answers)


def test_pages_cost_what_they_show_however_they_are_sent(server: VllmServer, media: Path) -> None:
    pages = [media / f"{number}.png" for number in (7, 8, 9)]
    counts = []
    for urls in ([], [inline(pages[0])], [pages[0].as_uri()], [p.as_uri() for p in pages]):
        usage = ask(server, urls).usage
        assert usage is not None and usage.completion_tokens > 0
        counts.append(usage.prompt_tokens)
    words = len("Page 7\n") + 2  # a token a byte, start and end of an image
    assert counts == [counts[0], counts[0] + words + PAGE, counts[0] + words + PAGE, counts[0] + 3 * (words + PAGE)]


def test_the_questions_of_a_segment_share_its_pages(server: VllmServer, media: Path) -> None:
    urls = [(media / f"{number}.png").as_uri() for number in (8, 7, 9)]  # pages that were not yet asked about so
    ask(server, urls)
    before = metric(server, "vllm:prefix_cache_hits_total")
    ask(server, urls, text="Another question about the same pages.")
    assert metric(server, "vllm:prefix_cache_hits_total") - before > 2.5 * PAGE  # in blocks of 128 tokens


def test_nobody_else_is_answered(server: VllmServer) -> None:
    port = int(server.base_url.removesuffix("/v1").rpartition(":")[2])
    addresses = listening(group(server))
    assert f"0100007F:{port:04X}" in addresses
    assert {address.partition(":")[0] for address in addresses} == {"0100007F"}  # 127.0.0.1
    with pytest.raises(AuthenticationError):
        ask(server, [], key="guessed")


def test_files_elsewhere_and_too_many_pages_are_refused(server: VllmServer, media: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "7.png"
    elsewhere.write_bytes((media / "7.png").read_bytes())
    with pytest.raises(APIStatusError) as caught:
        ask(server, [elsewhere.as_uri()])
    assert caught.value.status_code in (400, 500)
    with pytest.raises(BadRequestError, match="At most 3 image"):
        ask(server, [(media / "7.png").as_uri()] * (MAX_IMAGES + 1))
    assert_follows_schema(ask(server, [(media / "7.png").as_uri()]))


def test_an_engine_that_is_killed_is_noticed_and_serves_again(server: VllmServer, media: Path) -> None:
    urls = [(media / "7.png").as_uri()]
    first = group(server)
    (engine,) = [pid for pid, command in first.items() if command.startswith("VLLM::EngineCore")]
    os.kill(engine, signal.SIGKILL)
    with pytest.raises((APIConnectionError, APIStatusError)):
        ask(server, urls)
    address = server.base_url
    server.ensure_running()
    assert server.restarts == 1
    assert server.base_url == address
    assert not any(map(is_running, first))
    assert_follows_schema(ask(server, urls))


def test_stopping_leaves_nothing_and_the_key_was_never_told(server: VllmServer) -> None:
    """The last one: no test after it has a server."""
    server.ensure_running()
    held = group(server)
    assert len(held) >= 3  # supervisor, server, engine
    assert not any(server.api_key in command for command in held.values())
    server.stop()
    assert eventually(lambda: not any(map(is_running, held)))
    assert server.api_key not in server._log.read_text()
