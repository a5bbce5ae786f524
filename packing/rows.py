"""Sample lengths to rows of a bounded number of tokens: as few rows as possible. Pure; lengths alone.

Best-fit decreasing comes first. Equal lengths are one class and rows with equal free space are one slot, so a
whole class moves between slots at once: 1,000,000 samples take a fraction of a second, a loop over single samples
about ten. It is within 0.2 % of the fewest rows where most rows hold one or two samples, as natural documents in
rows of 131,072 tokens do. Where they hold three or more it can be 4 % off (documents of 20-60 K tokens), because it
never looks for samples that fill a row together. There, the linear program of `packing.patterns` says which ones do,
and best-fit decreasing places only what is left.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from math import ceil

import numpy as np
import numpy.typing as npt

from packing.patterns import fill_patterns, lower_bound, sizes_of

IntArray = npt.NDArray[np.int64]

NEAR = 1.002  # times the lower bound: rows so few are few enough


def pack(lengths: IntArray, capacity: int) -> tuple[IntArray, float]:
    """The row of each sample, numbered from 0, and a lower bound on the number of rows.

    Args:
        lengths: tokens of each sample, 1..capacity, in any order.
        capacity: tokens of a row, at most.
    """
    rows = best_fit_decreasing(lengths, capacity)
    num_rows = count_rows(rows)
    bound = lower_bound(lengths, capacity, num_rows / NEAR)
    if num_rows <= NEAR * bound or num_rows <= ceil(bound):
        return rows, bound
    better = _by_patterns(lengths, capacity)
    return (better, bound) if count_rows(better) < num_rows else (rows, bound)


def count_rows(rows: IntArray) -> int:
    """How many rows there are."""
    return int(rows.max()) + 1 if len(rows) else 0


def falling(lengths: IntArray) -> IntArray:
    """The order that makes lengths fall; equal ones stay in order. Sorting keys that hold both is the fastest way."""
    assert len(lengths) < 2**32 and (not len(lengths) or lengths.max() < 2**31)
    keys = ((2**31 - 1 - lengths.astype(np.uint64)) << np.uint64(32)) | np.arange(len(lengths), dtype=np.uint64)
    keys.sort()
    return (keys & np.uint64(2**32 - 1)).astype(np.int64)


def best_fit_decreasing(lengths: IntArray, capacity: int, spaces: IntArray | None = None) -> IntArray:
    """The row of each sample; `spaces` are the free tokens of rows that are already there, numbered first.

    A sample goes to the row with the least free space that still takes it. That row stays the best one for
    the next sample of the same length, as long as it takes it: so a slot's rows are filled with `space //
    length` samples each, all at once.
    """
    order = falling(lengths)
    ordered = lengths[order]
    assert not len(ordered) or ordered[0] <= capacity, f"a sample of {ordered[0]} tokens exceeds {capacity}"
    slots = _Slots(min(capacity, int(ordered.sum())))
    opened = 0
    if spaces is not None:
        opened = len(spaces)
        for row in np.flatnonzero(spaces >= ordered[-1]).tolist() if len(ordered) else []:
            slots.put(min(int(spaces[row]), slots.capacity), row, 1)
    # One entry a move: `num_rows` rows from `first_rows` on take `per_row` samples each.
    first_rows: list[int] = []
    num_rows: list[int] = []
    per_row: list[int] = []
    for length, count in _classes(ordered):
        while count:
            space = slots.tightest(length)
            if space is None:
                space, fresh = slots.capacity, -(-count // (slots.capacity // length))
                slots.put(space, opened, fresh)
                opened += fresh
            each = min(space // length, count)
            first, taken = slots.take(space, count // each)
            slots.put(space - each * length, first, taken)
            first_rows.append(first)
            num_rows.append(taken)
            per_row.append(each)
            count -= taken * each
    each_row = np.array(per_row, dtype=np.int64)
    moved = np.array(num_rows, dtype=np.int64) * each_row
    within = np.arange(len(ordered)) - np.repeat(np.cumsum(moved) - moved, moved)
    start = np.repeat(np.array(first_rows, dtype=np.int64), moved)
    rows = np.empty(len(ordered), dtype=np.int64)
    rows[order] = start + within // np.repeat(each_row, moved)
    return rows


def _classes(ordered: IntArray) -> Iterable[tuple[int, int]]:
    """Each length and how many samples have it, the longest first."""
    if not len(ordered):
        return ()
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[0] + 1))
    counts = np.diff(starts, append=len(ordered))
    return zip(ordered[starts].tolist(), counts.tolist(), strict=True)


def _by_patterns(lengths: IntArray, capacity: int) -> IntArray:
    """Rows that follow the patterns of the linear program; best-fit decreasing places what no pattern takes."""
    order = falling(lengths)
    sizes = sizes_of(lengths, capacity)
    steps = np.flatnonzero(np.diff(sizes[order], prepend=-1, append=-1))
    next_of = {int(sizes[order[a]]): a for a in steps[:-1].tolist()}  # size -> place of its next sample in `order`
    end_of = {int(sizes[order[a]]): b for a, b in pairwise(steps.tolist())}
    rows = np.full(len(lengths), -1, dtype=np.int64)
    num_rows = 0
    for pattern, wanted in fill_patterns(lengths, capacity):
        count = min(wanted, *((end_of[s] - next_of[s]) // pattern.count(s) for s in pattern))
        for size in pattern:
            rows[order[next_of[size] : next_of[size] + count]] = np.arange(num_rows, num_rows + count)
            next_of[size] += count
        num_rows += count
    placed = rows >= 0
    used = np.bincount(rows[placed], weights=lengths[placed], minlength=num_rows).astype(np.int64)
    rows[~placed] = best_fit_decreasing(lengths[~placed], capacity, capacity - used)
    return rows


class _Slots:
    """Open rows by their free space, as ranges of row numbers, and the tightest space that takes a length.

    The spaces in use are bits of words of 512, with one summary bit a word: finding the next one is two
    shifts.
    """

    WORD = 512

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._rows: dict[int, list[tuple[int, int]]] = {}  # space -> (first row, number of rows)
        self._words = [0] * (capacity // self.WORD + 1)
        self._summary = 0

    def tightest(self, length: int) -> int | None:
        """The least free space in use that is at least `length`."""
        index, bit = divmod(length, self.WORD)
        if index < len(self._words) and (word := self._words[index] >> bit):
            return length + _lowest_bit(word)
        if not (later := self._summary >> (index + 1)):
            return None
        index += 1 + _lowest_bit(later)
        return index * self.WORD + _lowest_bit(self._words[index])

    def put(self, space: int, first: int, num_rows: int) -> None:
        """Add rows with this much free space; full rows are forgotten."""
        if not space:
            return
        self._rows.setdefault(space, []).append((first, num_rows))
        index, bit = divmod(space, self.WORD)
        self._words[index] |= 1 << bit
        self._summary |= 1 << index

    def take(self, space: int, at_most: int) -> tuple[int, int]:
        """Remove one range of at most that many rows: its first row and its length."""
        ranges = self._rows[space]
        first, num_rows = ranges.pop()
        if num_rows > at_most:
            ranges.append((first + at_most, num_rows - at_most))
            return first, at_most
        if not ranges:
            del self._rows[space]
            index, bit = divmod(space, self.WORD)
            self._words[index] ^= 1 << bit
            if not self._words[index]:
                self._summary ^= 1 << index
        return first, num_rows


def _lowest_bit(word: int) -> int:
    return (word & -word).bit_length() - 1
