"""What was spent adds up, by purpose and over builds."""

from __future__ import annotations

import json
import pickle

from synth.chat import ChatAnswer
from synth.usage import Prices, Spent, Usage, usage_of

ANSWER = ChatAnswer(text="a", finish_reason="stop", prompt_tokens=1000, completion_tokens=50, image_tokens=900)


def spent_some() -> Usage:
    usage = Usage()
    usage.answered("reasoning", ANSWER, 2.0)
    usage.answered("reasoning", ANSWER, 3.0)
    usage.hit("reasoning")
    usage.retried("closed-book")
    usage.failed("closed-book", "timeout", 1.5)
    return usage


def test_counters_by_purpose() -> None:
    assert spent_some().purposes == {
        "reasoning": Spent(
            requests=2, cache_hits=1, prompt_tokens=2000, image_tokens=1800, completion_tokens=100, seconds=5.0
        ),
        "closed-book": Spent(requests=1, retries=1, failures={"timeout": 1}, seconds=1.5),  # type: ignore[arg-type]
    }


def test_total_and_money() -> None:
    found = spent_some().to_dict(Prices(prompt=2.0, completion=10.0))
    assert found["total"] == {
        "requests": 3,
        "cache_hits": 1,
        "retries": 1,
        "failures": {"timeout": 1},
        "prompt_tokens": 2000,
        "image_tokens": 1800,
        "completion_tokens": 100,
        "seconds": 6.5,
        "money": 0.005,
    }
    assert found["purposes"]["closed-book"]["money"] == 0
    assert list(found["purposes"]) == ["closed-book", "reasoning"]
    assert "money" not in spent_some().to_dict()["total"]


def test_merging_adds_and_leaves_the_other_alone() -> None:
    usage, other = spent_some(), pickle.loads(pickle.dumps(spent_some()))
    other.failed("other", "timeout", 1.0)
    usage.merge(other)
    assert usage.of("reasoning").prompt_tokens == 4000
    assert usage.of("closed-book").failures == {"timeout": 2}
    assert usage.of("other").requests == 1
    usage.failed("other", "timeout", 1.0)
    assert other.of("other").failures == {"timeout": 1}
    assert usage.total().failures == {"timeout": 4}


def test_what_was_written_is_read_back() -> None:
    written = json.loads(json.dumps(spent_some().to_dict(Prices(prompt=1, completion=1))))
    assert usage_of(written) == spent_some()
    assert usage_of({}) == Usage()
