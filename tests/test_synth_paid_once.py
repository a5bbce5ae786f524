"""A client that is killed, a server that dies: nothing that was answered and kept is asked again."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from fake_chat import Asked, FakeChat, mixture

from synth.cache import AnswerCache, CachedChat
from synth.chat import ChatAnswer, ChatRequest, PromptPage, RequestFailed, Sampling
from synth.openai_chat import OpenAiChat
from synth.usage import Usage

WORKERS, QUESTIONS = 6, 60


def echo(asked: Asked) -> str:
    return json.dumps({"answer": asked.text, "pages": [image[3] for image in asked.images]})


async def load(pages: Sequence[PromptPage]) -> Sequence[bytes]:
    return [b"\xff\xd8\xff" + bytes([page.page]) * 2000 for page in pages]


def question(i: int) -> ChatRequest:
    pages = (PromptPage(doc_id="d", page=p, height=56, width=56, render="fake") for p in (i % 7, i % 7 + 1))
    sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=64, seed=i)
    return ChatRequest(
        purpose="reasoning", system="", pages=tuple(pages), text=f"q{i}", schema='{"type":"object"}', sampling=sampling
    )


async def ask_all(base_url: str, path: Path) -> tuple[dict[int, ChatAnswer | str], Usage]:
    """The answer, or the reason why there is none, of every question; so many workers take one after the other."""
    usage, found = Usage(), {}
    left = iter(range(QUESTIONS))
    async with OpenAiChat(
        base_url=base_url,
        model="fake-vl",
        timeout_s=60,
        attempts=4,
        backoff_s=0.01,
        gone_after_s=20,
        usage=usage,
        rng=random.Random(0),
    ) as model:
        chat = CachedChat(model, AnswerCache(path), usage)

        async def work() -> None:
            for i in left:
                try:
                    found[i] = await chat.ask(question(i), load)
                except RequestFailed as e:
                    found[i] = e.reason

        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(work())
        chat.close()
    return found, usage


def test_a_client_that_is_killed_repeats_at_most_what_was_in_flight(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    kills = 3
    with FakeChat(echo, delay_s=0.03) as server:
        for n in range(1, kills + 1):
            client = subprocess.Popen([sys.executable, __file__, server.base_url, str(path)])
            while len(server.requests) < 14 * n:
                assert client.poll() is None
                time.sleep(0.002)
            client.kill()
            client.wait(20)
        kept = len(AnswerCache(path))
        found, usage = asyncio.run(ask_all(server.base_url, path))
    assert kept > 0
    assert [json.loads(found[i].text)["answer"] for i in range(QUESTIONS)] == [f"q{i}" for i in range(QUESTIONS)]
    assert sum(times - 1 for times in server.answered.values()) <= kills * WORKERS
    assert usage.total().cache_hits == kept
    assert usage.total().requests == QUESTIONS - kept


def test_after_any_mixture_and_two_deaths_every_question_has_one_answer_or_a_reason(tmp_path: Path) -> None:
    """Without hangs: a short time limit on a machine that stands still for a moment gives up answers that were sent."""
    weights = {"right": 6, "429": 1, "500": 1, "cut": 1, "half-body": 1, "broken-body": 1, "junk": 1}
    weights |= {"400": 0.5, "refusal": 0.5, "half-json": 0.5, "white-space": 0.5}
    path = tmp_path / "answers.sqlite"
    with FakeChat(echo, script=mixture(11, weights), dies_after=(20, 60)) as server:

        def revive() -> None:
            for _ in range(2):
                assert server.died.wait(60)
                server.start()

        helper = threading.Thread(target=revive)
        helper.start()
        first, usage = asyncio.run(ask_all(server.base_url, path))
        helper.join(20)
        again, usage_again = asyncio.run(ask_all(server.base_url, path))
    answered = {i for i, a in first.items() if isinstance(a, ChatAnswer)}
    failed = set(first) - answered
    assert sorted(first) == sorted(again) == list(range(QUESTIONS))
    assert answered
    assert failed
    assert server.answered_again == []
    assert {i: again[i] for i in answered} == {i: first[i] for i in answered}
    total = usage.total()
    assert total.requests == QUESTIONS
    assert total.failures.total() == len(failed)
    assert total.cache_hits == 0
    assert usage_again.total().cache_hits == len(answered)
    assert usage_again.total().requests == len(failed)
    assert len(server.requests) >= total.requests + usage_again.total().requests
    assert set(server.met) == set(weights)


if __name__ == "__main__":
    asyncio.run(ask_all(sys.argv[1], Path(sys.argv[2])))
