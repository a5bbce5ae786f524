"""Ids: an order that they alone decide, and no id twice."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packing import ids
from packing.ids import RepeatedId, hash_ids, order_of_ids

STEADY = settings(derandomize=True, deadline=None, max_examples=150)


@STEADY
@given(st.lists(st.text(max_size=40), unique=True, max_size=60), st.integers(0, 9))
def test_the_order_of_the_input_changes_nothing(texts: list[str], seed: int) -> None:
    other = random.Random(seed).sample(texts, len(texts))
    assert [texts[i] for i in order_of_ids(pa.array(texts, pa.string()))] == [
        other[i] for i in order_of_ids(pa.array(other, pa.string()))
    ]


def test_ids_of_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "hash_ids", lambda array: np.zeros(len(array), dtype=np.uint64))
    assert order_of_ids(pa.array(["c", "a", "b"])).tolist() == [1, 2, 0]
    with pytest.raises(RepeatedId) as fault:
        order_of_ids(pa.array(["c", "a", "b", "a"]))
    assert (fault.value.first, fault.value.second) == (1, 3)


def test_an_id_that_occurs_twice_is_found_among_many() -> None:
    texts = [f"s{i:06d}" for i in range(50_000)]
    assert sorted(order_of_ids(pa.array(texts)).tolist()) == list(range(50_000))
    with pytest.raises(RepeatedId) as fault:
        order_of_ids(pa.array([*texts, "s012345"]))
    assert (fault.value.first, fault.value.second) == (12_345, 50_000)


def test_hashes_are_spread_and_the_same_everywhere() -> None:
    texts = [f"{i:x}" for i in range(20_000)] + [f"{i:x}\0" for i in range(20_000)] + [""]
    hashes = hash_ids(pa.array(texts))
    assert len(np.unique(hashes)) == len(texts)
    assert abs(float((hashes >> np.uint64(63)).mean()) - 0.5) < 0.02
    assert abs(float((hashes & np.uint64(1)).mean()) - 0.5) < 0.02
    assert hash_ids(pa.array(["s0123456789abcdef", ""])).tolist() == GOLDEN
    assert hash_ids(pa.array(["a"]), seed=1)[0] != hash_ids(pa.array(["a"]))[0]


def test_parts_of_arrays_and_long_ids() -> None:
    texts = ["b" * n for n in (3, 900, 1, 8, 16, 0, 17)] + ["c" * 8] * 3
    whole = hash_ids(pa.array(texts)).tolist()
    assert hash_ids(pa.array(texts).slice(2, 4)).tolist() == whole[2:6]
    assert hash_ids(pa.chunked_array([texts[:3], texts[3:]])).tolist() == whole


GOLDEN = [13337642960472226840, 16294208416658607535]
