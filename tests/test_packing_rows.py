"""Rows: the textbook's best-fit decreasing, a bound that no packing beats, and patterns that come near it."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packing.patterns import fill_patterns, lower_bound, sizes_of
from packing.rows import best_fit_decreasing, count_rows, falling, pack

STEADY = settings(derandomize=True, deadline=None, max_examples=150)
IntArray = np.ndarray[tuple[int], np.dtype[np.int64]]


def ints(lengths: list[int]) -> IntArray:
    return np.array(lengths, dtype=np.int64)


def drawn(low: int, high: int, count: int, seed: int = 0) -> IntArray:
    return np.random.default_rng(seed).integers(low, high, count)


@pytest.mark.parametrize(
    ("lengths", "capacity", "rows"),
    [
        ([100, 60, 40], 100, [0, 1, 1]),
        ([40, 60, 60, 40], 100, [0, 0, 1, 1]),
        ([70, 60, 30], 100, [0, 1, 0]),  # 30 goes where it leaves nothing, not to the first row that takes it
        ([50] * 5, 100, [0, 0, 1, 1, 2]),
        ([3] * 7, 10, [0, 0, 0, 1, 1, 1, 2]),
        ([1], 10**15, [0]),
        ([], 100, []),
    ],
)
def test_rows_by_hand(lengths: list[int], capacity: int, rows: list[int]) -> None:
    assert best_fit_decreasing(ints(lengths), capacity).tolist() == rows


def test_rows_that_are_already_there_are_filled_first() -> None:
    assert best_fit_decreasing(ints([50, 30, 5]), 100, ints([20, 30, 1])).tolist() == [3, 1, 0]


def test_falling_is_a_stable_order() -> None:
    assert falling(ints([3, 9, 3, 9, 1])).tolist() == [1, 3, 0, 2, 4]


def one_by_one(lengths: list[int], capacity: int) -> list[int]:
    """Best-fit decreasing as the textbook has it: the free space of every row."""
    free: list[int] = []
    for length in sorted(lengths, reverse=True):
        fits = [(space, row) for row, space in enumerate(free) if space >= length]
        if fits:
            free[min(fits)[1]] -= length
        else:
            free.append(capacity - length)
    return sorted(free)


@STEADY
@given(st.lists(st.integers(1, 1200), max_size=120), st.integers(1200, 2000))
def test_classes_give_the_rows_of_the_textbook(lengths: list[int], capacity: int) -> None:
    rows = best_fit_decreasing(ints(lengths), capacity)
    used = np.bincount(rows, weights=ints(lengths))
    assert sorted(capacity - int(n) for n in used) == one_by_one(lengths, capacity)


def fewest_rows(lengths: list[int], capacity: int) -> int:
    """The optimum: next-fit over every order (an optimal packing, read row by row, is such an order)."""
    best = len(lengths)
    for order in permutations(lengths):
        rows, free = 0, 0
        for length in order:
            if length > free:
                rows, free = rows + 1, capacity
            free -= length
        best = min(best, rows)
    return best


@settings(STEADY, max_examples=60)
@given(st.lists(st.integers(1, 100), min_size=1, max_size=6))
def test_the_bound_holds_and_rows_are_near_the_optimum(lengths: list[int]) -> None:
    rows, bound = pack(ints(lengths), 100)
    best = fewest_rows(lengths, 100)
    assert bound <= best + 1e-6
    assert lower_bound(ints(lengths), 100, math.inf) <= best + 1e-6
    assert best <= count_rows(rows) <= 11 / 9 * best + 6 / 9  # best-fit decreasing has this bound


@settings(STEADY, max_examples=60)
@given(st.lists(st.integers(1, 120), min_size=1, max_size=80), st.integers(120, 400))
def test_every_sample_has_a_row_and_no_row_is_too_full(lengths: list[int], capacity: int) -> None:
    rows, bound = pack(ints(lengths), capacity)
    used = np.bincount(rows, weights=ints(lengths))
    assert len(rows) == len(lengths)
    assert (used > 0).all()
    assert used.max() <= capacity
    assert sum(lengths) / capacity - 1e-9 <= bound <= count_rows(rows) + 1e-6


@pytest.mark.parametrize(
    ("lengths", "capacity"),
    [
        (drawn(20_000, 60_000, 20_000), 131_072),  # three a row: best-fit decreasing alone is 4 % off
        (drawn(32_768, 131_073, 20_000), 131_072),
        (drawn(32_768, 131_073, 20_000), 262_144),
        (drawn(1, 131_073, 20_000), 131_072),
    ],
    ids=["three-a-row", "two-a-row", "longer-rows", "any"],
)
def test_rows_come_within_0_4_percent_of_the_bound(lengths: IntArray, capacity: int) -> None:
    rows, bound = pack(lengths, capacity)
    assert count_rows(rows) <= 1.004 * bound
    assert np.bincount(rows, weights=lengths).max() <= capacity


def test_best_fit_alone_would_not() -> None:
    lengths = drawn(20_000, 60_000, 20_000)
    assert count_rows(best_fit_decreasing(lengths, 131_072)) > 1.03 * lower_bound(lengths, 131_072, math.inf)


def test_two_sizes_by_hand() -> None:
    """Rows hold 40 + 40 or 40 + 60; best-fit decreasing pairs 60 with 40 and wastes nothing."""
    assert lower_bound(ints([60] * 10 + [40] * 30), 100, math.inf) == pytest.approx(20, abs=1e-6)
    # 3 x 40 does not fit 100: volume says 12 rows, the program 15
    assert lower_bound(ints([40] * 30), 100, math.inf) == pytest.approx(15, abs=1e-6)


def test_patterns_hold_what_they_say() -> None:
    lengths = drawn(20_000, 60_000, 5_000)
    sizes = sizes_of(lengths, 131_072)
    assert (sizes * 128 >= lengths).all()
    known = set(sizes.tolist())
    patterns = fill_patterns(lengths, 131_072)
    assert sum(n * len(p) for p, n in patterns) > 4_000
    assert all(sum(p) <= 1_024 and known.issuperset(p) and n > 0 for p, n in patterns)


def test_small_samples_fill_rows() -> None:
    lengths = drawn(1, 20_000, 20_000)
    rows, bound = pack(lengths, 131_072)
    assert count_rows(rows) == math.ceil(lengths.sum() / 131_072) == math.ceil(bound)
