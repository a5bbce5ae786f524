"""Samples to rows to steps, from lengths alone: what every training step will contain. Pure, seeded.

1. Rows: best-fit decreasing on tokens. Equal lengths are one class and rows with equal free space are one
   slot, so a whole class moves between slots at once. 1,000,000 samples of which 40 % fill a row alone take
   0.4 s for this part; a loop over single samples takes 10 s and gives the same number of rows.
2. Steps: rows are shuffled, then grouped by predicted cost inside windows of `balance_window` rows, so that
   the rows of one step finish together; then the steps of a window are shuffled, so that no curriculum of
   lengths is hidden in the order. Larger windows balance better and mix less: with 60,000 samples of 85 K
   tokens on average and 8 ranks that wait for each other after every row, 25 % idle when only shuffled, 4.9 %
   in windows of 64 rows, 1.3 % of 256, 0.35 % of 1,024.
3. Ranks: `assign` is the one rule, for the trainer and for every prediction.

Samples are put in order by their id before anything is drawn, so the order of the input changes nothing. No
sample is lost: each is in the plan once or in `left_out` with its reason. Rows are as full as their samples
make them, never padded to capacity. The rows that do not fill a whole step form a last, shorter one; they are
drawn by the shuffle, not by their cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from corpus.records import Rejected
from packing.cost import ModelDims, sample_flops

PLAN_VERSION = 1  # raise it when the same input would give another plan

TOO_LONG = "longer-than-capacity"
VALIDATION = "validation-split"

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
TextArray = npt.NDArray[np.object_]


class PlanSettings(Protocol):
    """What `plan` reads of `corpus.config.PackingSettings`."""

    @property
    def capacity(self) -> int: ...
    @property
    def tokens_per_step(self) -> int: ...
    @property
    def rows_per_step(self) -> int | None: ...
    @property
    def balance_window(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Columns of a table of samples, one entry a sample. Ids are unique; the reader checks lengths."""

    sample_id: TextArray
    num_tokens: IntArray  # >= 1
    num_patches: IntArray  # >= 0
    num_supervised: IntArray  # >= 0
    task: TextArray
    split: TextArray  # only 'train' is planned
    epoch: IntArray  # 0-based; all of one epoch stand before those of the next

    @staticmethod
    def of(
        sample_id: Sequence[str],
        num_tokens: npt.ArrayLike,
        num_patches: npt.ArrayLike | None = None,
        num_supervised: npt.ArrayLike | None = None,
        task: Sequence[str] | None = None,
        split: Sequence[str] | None = None,
        epoch: npt.ArrayLike | None = None,
    ) -> Samples:
        """Samples from plain sequences; what is not given is 0, '' or 'train'."""
        n = len(sample_id)
        zeros = np.zeros(n, dtype=np.int64)
        samples = Samples(
            sample_id=_texts(sample_id, n),
            num_tokens=np.asarray(num_tokens, dtype=np.int64),
            num_patches=zeros if num_patches is None else np.asarray(num_patches, dtype=np.int64),
            num_supervised=zeros if num_supervised is None else np.asarray(num_supervised, dtype=np.int64),
            task=_texts([""] * n if task is None else task, n),
            split=_texts(["train"] * n if split is None else split, n),
            epoch=zeros if epoch is None else np.asarray(epoch, dtype=np.int64),
        )
        assert all(len(column) == n for column in samples.columns().values()), "columns of different lengths"
        return samples

    def __len__(self) -> int:
        return len(self.sample_id)

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Every column by its name."""
        return {
            "sample_id": self.sample_id,
            "num_tokens": self.num_tokens,
            "num_patches": self.num_patches,
            "num_supervised": self.num_supervised,
            "task": self.task,
            "split": self.split,
            "epoch": self.epoch,
        }

    def take(self, index: npt.NDArray[Any]) -> Samples:
        """The samples at `index`, in that order."""
        return Samples(**{name: column[index] for name, column in self.columns().items()})

    def by_id(self) -> Samples:
        """The samples in the order of their epochs and ids."""
        ids = self.sample_id.tolist()
        order = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)
        return self.take(order[np.argsort(self.epoch[order], kind="stable")])


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Every sample in its place, ordered by step, row and position; and what was left out.

    Rows of a step are in falling order of cost. `row_step`, `row_cost` and `row_tokens` have one entry a
    row, in the same order.
    """

    capacity: int
    rows_per_step: int  # of every step but the last, which may have fewer
    samples: Samples
    step: IntArray
    row: IntArray  # 0-based in the step
    position: IntArray  # 0-based in the row
    row_step: IntArray
    row_cost: FloatArray  # floating-point operations, forward and backward
    row_tokens: IntArray
    left_out: tuple[Rejected, ...]

    @property
    def num_rows(self) -> int:
        return len(self.row_step)

    @property
    def num_steps(self) -> int:
        return -(-self.num_rows // self.rows_per_step)

    @property
    def last_step_rows(self) -> int:
        """Rows of the last step; 0 for an empty plan."""
        return self.num_rows - (self.num_steps - 1) * self.rows_per_step if self.num_rows else 0

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """The fields of `corpus.records.PlanEntry`, one entry a sample."""
        columns = self.samples.columns()
        del columns["split"], columns["epoch"]
        return {"step": self.step, "row": self.row, "position": self.position, **columns}


def plan(samples: Samples, settings: PlanSettings, *, seed: int, dims: ModelDims) -> Plan:
    """Pack samples into rows and group rows into steps; the same input and seed give the same plan."""
    rng = np.random.default_rng(seed)
    samples = samples.by_id()
    kept, left_out = _leave_out(samples, settings.capacity)
    samples = samples.take(kept)

    shuffled = rng.permutation(len(samples))
    order = shuffled[np.argsort(-samples.num_tokens[shuffled], kind="stable")]
    samples = samples.take(order)
    bins, row_epoch = _pack_epochs(samples, settings.capacity)
    num_rows = len(row_epoch)
    flops = sample_flops(samples.num_tokens, samples.num_patches, samples.num_supervised, dims)
    costs: FloatArray = np.bincount(bins, weights=flops, minlength=num_rows).astype(np.float64)
    rows_per_step = step_rows(settings)
    row_order = _order_rows(costs, row_epoch, rows_per_step, settings.balance_window, rng)

    place = np.empty(num_rows, dtype=np.int64)  # row of the packing -> row of the plan
    place[row_order] = np.arange(num_rows)
    sample_row = place[bins]
    by_row = np.argsort(sample_row, kind="stable")
    sample_row = sample_row[by_row]
    samples = samples.take(by_row)
    first_of_row = np.searchsorted(sample_row, np.arange(num_rows))
    row_tokens = np.add.reduceat(samples.num_tokens, first_of_row) if num_rows else samples.num_tokens
    return Plan(
        capacity=settings.capacity,
        rows_per_step=rows_per_step,
        samples=samples,
        step=sample_row // rows_per_step,
        row=sample_row % rows_per_step,
        position=np.arange(len(samples)) - first_of_row[sample_row],
        row_step=np.arange(num_rows) // rows_per_step,
        row_cost=costs[row_order],
        row_tokens=row_tokens,
        left_out=left_out,
    )


def step_rows(settings: PlanSettings) -> int:
    """Rows of a step: as set, or as many full ones as `tokens_per_step` holds, at least one."""
    return settings.rows_per_step or max(1, settings.tokens_per_step // settings.capacity)


def _leave_out(samples: Samples, capacity: int) -> tuple[npt.NDArray[np.bool_], tuple[Rejected, ...]]:
    """Which samples are planned, and the others with their reason."""
    held_out = samples.split != "train"
    too_long = samples.num_tokens > capacity
    refused: list[Rejected] = []
    for i in np.flatnonzero(held_out | too_long).tolist():
        if held_out[i]:
            reason, detail = VALIDATION, f"split {samples.split[i]!r} is not trained on"
        else:
            reason = TOO_LONG
            detail = f"{samples.num_tokens[i]} tokens; raise packing.capacity, now {capacity}, to take it"
        refused.append(Rejected(id=samples.sample_id[i], stage="plan", reason=reason, detail=detail))
    return ~(held_out | too_long), tuple(refused)


def _pack_epochs(samples: Samples, capacity: int) -> tuple[IntArray, IntArray]:
    """The row of each sample, no two epochs in one, and the epoch of each row, which rises. Lengths fall."""
    bins = np.empty(len(samples), dtype=np.int64)
    row_epoch = [np.empty(0, dtype=np.int64)]
    for epoch in np.unique(samples.epoch).tolist():
        members = np.flatnonzero(samples.epoch == epoch)
        rows = pack(samples.num_tokens[members], capacity)
        bins[members] = rows + sum(map(len, row_epoch))
        row_epoch.append(np.full(int(rows.max()) + 1, epoch))
    return bins, np.concatenate(row_epoch)


def pack(lengths: IntArray, capacity: int) -> IntArray:
    """Best-fit decreasing: the row of each sample. `lengths` fall, and none exceeds `capacity`.

    A sample goes to the row with the least free space that still takes it. That row stays the best one for
    the next sample of the same length, as long as it takes it: so a slot's rows are filled with `space //
    length` samples each, all at once.
    """
    assert not len(lengths) or lengths[0] <= capacity, f"a sample of {lengths[0]} tokens exceeds {capacity}"
    values, counts = np.unique(lengths, return_counts=True)
    slots = _Slots(min(capacity, int(lengths.sum())))
    # One entry a move: `num_rows` rows from `first_rows` on take `per_row` samples each.
    first_rows: list[int] = []
    num_rows: list[int] = []
    per_row: list[int] = []
    opened = 0
    for length, count in zip(values[::-1].tolist(), counts[::-1].tolist(), strict=True):
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
    within = np.arange(len(lengths)) - np.repeat(np.cumsum(moved) - moved, moved)
    start = np.repeat(np.array(first_rows, dtype=np.int64), moved)
    rows: IntArray = start + within // np.repeat(each_row, moved)
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


def _order_rows(
    costs: FloatArray, row_epoch: IntArray, rows_per_step: int, window: int, rng: np.random.Generator
) -> IntArray:
    """The rows in the order of the plan: steps of similar cost, shuffled inside windows of rows, epoch by epoch.

    One step holds the last rows of an epoch and the first of the next.
    """
    window = max(window // rows_per_step, 1) * rows_per_step
    ordered: list[IntArray] = []
    rest = np.empty(0, dtype=np.int64)
    for epoch in np.unique(row_epoch).tolist():
        rows = np.concatenate([rest, rng.permutation(np.flatnonzero(row_epoch == epoch))])
        whole = len(rows) // rows_per_step * rows_per_step
        shared = min(rows_per_step, whole) if len(rest) else 0
        ordered.append(_by_cost(rows[:shared], costs))
        for start in range(shared, whole, window):
            steps = _by_cost(rows[start : min(start + window, whole)], costs).reshape(-1, rows_per_step)
            ordered.append(rng.permutation(steps).reshape(-1))
        rest = rows[whole:]
    return np.concatenate([*ordered, _by_cost(rest, costs)])


def _by_cost(rows: IntArray, costs: FloatArray) -> IntArray:
    return rows[np.argsort(-costs[rows], kind="stable")]


def assign(costs: Sequence[float] | FloatArray, num_ranks: int) -> list[list[int]]:
    """The rows of one step for each data-parallel rank, in the order in which the rank runs them.

    Longest processing time first, in rounds: the costliest `num_ranks` rows go one to a rank, the costliest
    of them to the rank with the least so far, and so on. Every rank gets the same number of rows where
    `num_ranks` divides them (else some have one fewer), rows that run at the same time cost about the same,
    and so do the sums. Ties go to the lower row and the lower rank.
    """
    ranks, rounds = assign_steps(np.asarray(costs, dtype=np.float64)[None, :], num_ranks)
    order = np.argsort(rounds[0], kind="stable")
    return [[int(row) for row in order if ranks[0, row] == rank] for rank in range(num_ranks)]


def assign_steps(costs: FloatArray, num_ranks: int) -> tuple[IntArray, IntArray]:
    """`assign` for many steps at once: `[steps, rows]` costs to the rank and the round of each row."""
    num_steps, num_rows = costs.shape
    ranks = np.empty((num_steps, num_rows), dtype=np.int64)
    rounds = np.empty((num_steps, num_rows), dtype=np.int64)
    order = np.argsort(-costs, axis=1, kind="stable")
    load = np.zeros((num_steps, num_ranks))
    for start in range(0, num_rows, num_ranks):
        rows = order[:, start : start + num_ranks]
        chosen = np.argsort(load, axis=1, kind="stable")[:, : rows.shape[1]]
        np.put_along_axis(ranks, rows, chosen, axis=1)
        np.put_along_axis(rounds, rows, start // num_ranks, axis=1)
        added = np.take_along_axis(costs, rows, axis=1)
        np.put_along_axis(load, chosen, np.take_along_axis(load, chosen, axis=1) + added, axis=1)
    return ranks, rounds


def _texts(values: Sequence[str], n: int) -> TextArray:
    texts = np.empty(n, dtype=np.object_)
    texts[:] = values
    return texts
