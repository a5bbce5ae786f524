"""What was spent adds up, by purpose and over builds."""

from __future__ import annotations

import json
import pickle
from collections import Counter

import pytest

from synth.chat import ChatAnswer, PromptPage
from synth.usage import Prices, Spent, Usage, estimated_image_tokens, projected, recovered, usage_of

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
        "resumed": 0,
        "retries": 1,
        "failures": {"timeout": 1},
        "prompt_tokens": 2000,
        "image_tokens": 1800,
        "estimated_image_tokens": 0,
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


def test_what_an_older_version_wrote_is_read() -> None:
    written = spent_some().to_dict()
    for sums in written["purposes"].values():
        del sums["resumed"], sums["estimated_image_tokens"]
        sums["of_a_later_version"] = 1
    assert usage_of(written) == spent_some()


def paid(requests: int, tokens: int = 10) -> Spent:
    return Spent(requests=requests, prompt_tokens=requests * tokens, completion_tokens=requests, seconds=requests * 1.0)


def test_what_an_attempt_spent_before_it_was_killed_is_recovered() -> None:
    told = Usage({"reasoning": paid(3), "closed-book": Spent(requests=2, failures=Counter(timeout=2), retries=5)})
    kept = Usage({"reasoning": paid(8), "closed-book": paid(4), "leakage": paid(1)})
    found = recovered(told, kept)
    assert found.of("reasoning") == paid(8)
    assert found.of("closed-book") == Spent(
        requests=6, failures=Counter(timeout=2), retries=5, prompt_tokens=40, completion_tokens=4, seconds=4.0
    )
    assert found.of("leakage") == paid(1)
    assert told.of("reasoning") == paid(3)  # left alone


@pytest.mark.parametrize("kept", [Usage(), Usage({"reasoning": paid(2)}), Usage({"reasoning": paid(3, tokens=99)})])
def test_what_the_run_told_stands_where_the_cache_knows_no_more(kept: Usage) -> None:
    assert recovered(Usage({"reasoning": paid(3)}), kept) == Usage({"reasoning": paid(3)})


def page(height: int, width: int) -> PromptPage:
    return PromptPage(doc_id="d", page=0, height=height, width=width, render="jpeg-90")


def test_image_tokens_are_estimated_only_where_none_were_counted() -> None:
    silent = ChatAnswer(text="", finish_reason="stop", prompt_tokens=9, completion_tokens=1)
    assert estimated_image_tokens(ANSWER, [page(280, 280)]) == 0
    assert estimated_image_tokens(silent, []) == 0
    assert estimated_image_tokens(silent, [page(280, 280), page(285, 560)]) == 100 + 200
    assert estimated_image_tokens(silent, [page(28_000, 28)]) == 1_000  # a family refuses such an image


def test_a_projection_counts_answers_that_were_found_as_asked_for() -> None:
    spent = Spent(requests=10, cache_hits=5, resumed=5, prompt_tokens=100, completion_tokens=20, seconds=4.0)
    assert projected(spent, 2, 20) == Spent(requests=200, prompt_tokens=2000, completion_tokens=400, seconds=80.0)
