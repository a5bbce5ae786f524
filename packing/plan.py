"""Samples to rows to steps, from lengths alone: what every training step will contain. Pure, seeded.

1. Rows: `packing.rows`, over all samples or, with `pack_window`, over so many at a time.
2. Steps: rows are shuffled, then grouped by predicted cost inside windows of `balance_window` rows, so that rows
   that run at the same time finish together; then all steps are shuffled, so that no curriculum of lengths or
   tasks is hidden in the order. Without declared data-parallel sizes a whole step is one group, which serves
   every size; with them a group is as large as their common multiple, and a step mixes groups of different
   cost. Larger windows balance better: `benchmarks/bench_packing.py` has the figures.
3. Ranks: `assign` is the one rule, for the trainer and for every prediction.

Samples are put in order by their id before anything is drawn, so the order of the input changes nothing. No
sample is lost: each is in the plan once or in `left_out` with its reason. Rows are as full as their samples
make them, never padded to capacity. The rows that do not fill a whole step form a last, shorter one; they are
drawn by the shuffle, not by their cost. Where sizes are declared, rows of several samples are split until the last
step, too, is a multiple of them.

Shorter rows (`row_lengths`) beside those of `capacity` tokens take the samples that fit them, and every step then
has rows of one length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpus.records import Rejected
from packing.cost import ModelDims, sample_flops
from packing.ids import RepeatedId, order_of_ids
from packing.rows import count_rows, pack

PLAN_VERSION = 2  # raise it when the same input would give another plan

TOO_LONG = "longer-than-capacity"
VALIDATION = "validation-split"

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class PlanSettings(Protocol):
    """What `plan` reads of `corpus.config.PackingSettings`."""

    @property
    def capacity(self) -> int: ...
    @property
    def largest_sample(self) -> int | None: ...
    @property
    def row_lengths(self) -> tuple[int, ...]: ...
    @property
    def tokens_per_step(self) -> int: ...
    @property
    def rows_per_step(self) -> int | None: ...
    @property
    def data_parallel_sizes(self) -> tuple[int, ...]: ...
    @property
    def balance_window(self) -> int: ...
    @property
    def pack_window(self) -> int | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Columns of a table of samples, one entry a sample. Ids are unique; the reader checks lengths."""

    sample_id: pa.Array  # of strings
    num_tokens: IntArray  # >= 1
    num_patches: IntArray  # >= 0
    num_supervised: IntArray  # >= 0
    patch_pairs: IntArray  # >= 0; 0 = not known
    task: pa.Array  # of strings, as a dictionary
    split: pa.Array  # likewise; only 'train' is planned
    epoch: IntArray  # 0-based; an id may stand once in each

    @staticmethod
    def of(
        sample_id: Sequence[str] | pa.Array,
        num_tokens: npt.ArrayLike,
        num_patches: npt.ArrayLike | None = None,
        num_supervised: npt.ArrayLike | None = None,
        patch_pairs: npt.ArrayLike | None = None,
        task: Sequence[str] | pa.Array | None = None,
        split: Sequence[str] | pa.Array | None = None,
        epoch: npt.ArrayLike | None = None,
    ) -> Samples:
        """Samples from plain sequences; what is not given is 0, '' or 'train'."""
        n = len(sample_id)
        zeros = np.zeros(n, dtype=np.int64)
        samples = Samples(
            sample_id=pa.array(sample_id, pa.string()),
            num_tokens=np.asarray(num_tokens, dtype=np.int64),
            num_patches=zeros if num_patches is None else np.asarray(num_patches, dtype=np.int64),
            num_supervised=zeros if num_supervised is None else np.asarray(num_supervised, dtype=np.int64),
            patch_pairs=zeros if patch_pairs is None else np.asarray(patch_pairs, dtype=np.int64),
            task=_words("", n) if task is None else _encoded(task),
            split=_words("train", n) if split is None else _encoded(split),
            epoch=zeros if epoch is None else np.asarray(epoch, dtype=np.int64),
        )
        assert all(len(column) == n for column in samples.columns().values()), "columns of different lengths"
        return samples

    def __len__(self) -> int:
        return len(self.sample_id)

    def columns(self) -> dict[str, Any]:
        """Every column by its name."""
        return {
            "sample_id": self.sample_id,
            "num_tokens": self.num_tokens,
            "num_patches": self.num_patches,
            "num_supervised": self.num_supervised,
            "patch_pairs": self.patch_pairs,
            "task": self.task,
            "split": self.split,
            "epoch": self.epoch,
        }

    def take(self, index: IntArray) -> Samples:
        """The samples at `index`, in that order."""
        places = pa.array(index)
        taken = {n: c.take(places) if isinstance(c, pa.Array) else c[index] for n, c in self.columns().items()}
        return Samples(**taken)

    def in_order(self) -> Samples:
        """The samples by epoch, and within it in an order that their ids alone decide (`packing.ids`).

        Raises:
            RepeatedId: an id stands twice in an epoch.
        """
        orders = [np.empty(0, dtype=np.int64)]
        for epoch in np.unique(self.epoch).tolist():
            members = np.flatnonzero(self.epoch == epoch)
            try:
                orders.append(members[order_of_ids(self.sample_id.take(pa.array(members)))])
            except RepeatedId as e:
                raise RepeatedId(int(members[e.first]), int(members[e.second])) from None
        order = np.concatenate(orders)
        return self if np.array_equal(order, np.arange(len(order))) else self.take(order)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Every sample in its place, ordered by step, row and position; and what was left out.

    Rows of a step are in falling order of cost. What begins with `row_` has one entry a row, in the same order.
    """

    samples: Samples
    step: IntArray
    row: IntArray  # 0-based in the step
    position: IntArray  # 0-based in the row
    rows_per_step: tuple[int, ...]  # of whole steps, for each of `row_lengths`
    row_lengths: tuple[int, ...]  # tokens of a row at most, rising; one, or one for each kind of step
    row_step: IntArray
    row_length: IntArray  # tokens at most
    row_tokens: IntArray
    row_cost: FloatArray  # floating-point operations, forward and backward
    fewest_rows: float  # no packing of these samples has fewer
    left_out: tuple[Rejected, ...]

    @property
    def capacity(self) -> int:
        """Tokens of the longest rows, at most."""
        return self.row_lengths[-1]

    @property
    def num_rows(self) -> int:
        return len(self.row_step)

    @property
    def num_steps(self) -> int:
        return int(self.row_step[-1]) + 1 if self.num_rows else 0

    @property
    def last_step_rows(self) -> int:
        """Rows of the last step; 0 for an empty plan."""
        return int((self.row_step == self.row_step[-1]).sum()) if self.num_rows else 0

    def columns(self) -> dict[str, Any]:
        """The fields of `corpus.records.PlanEntry`, one entry a sample."""
        columns = self.samples.columns()
        del columns["split"], columns["epoch"]
        return {"step": self.step, "row": self.row, "position": self.position, **columns}


def plan(samples: Samples, settings: PlanSettings, *, seed: int, dims: ModelDims) -> Plan:
    """Pack samples into rows and group rows into steps; the same input and seed give the same plan."""
    rng = np.random.default_rng(seed)
    samples = samples.in_order()
    kept, left_out = _leave_out(samples, settings)
    shuffled = rng.permutation(np.flatnonzero(kept))
    tokens = samples.num_tokens[shuffled]
    row_lengths = tuple(sorted({*settings.row_lengths, settings.capacity}))
    per_step = tuple(step_rows(settings, length) for length in row_lengths)
    kind = np.searchsorted(np.array(row_lengths), tokens)  # the shortest rows that hold the sample
    rows = _pack_each(tokens, kind, samples.epoch[shuffled], row_lengths, settings)
    num_rows = len(rows.kind)

    patches, supervised = samples.num_patches[shuffled], samples.num_supervised[shuffled]
    flops = sample_flops(tokens, patches, supervised, dims, samples.patch_pairs[shuffled])
    costs: FloatArray = np.bincount(rows.of, weights=flops, minlength=num_rows).astype(np.float64)
    steps = _order_steps(costs, rows, per_step, settings, rng)
    row_order = np.concatenate([np.empty(0, dtype=np.int64), *steps])
    sizes = np.array([len(step) for step in steps], dtype=np.int64)
    row_step = np.repeat(np.arange(len(steps)), sizes)
    row_in_step = np.arange(num_rows) - np.repeat(np.cumsum(sizes) - sizes, sizes)

    place = np.empty(num_rows, dtype=np.int64)  # row of the packing -> row of the plan
    place[row_order] = np.arange(num_rows)
    by_row = np.argsort(place[rows.of], kind="stable")
    row_of = place[rows.of][by_row]
    first = np.searchsorted(row_of, np.arange(num_rows))
    planned = samples.take(shuffled[by_row])
    return Plan(
        samples=planned,
        step=row_step[row_of],
        row=row_in_step[row_of],
        position=np.arange(len(row_of)) - first[row_of],
        rows_per_step=per_step,
        row_lengths=row_lengths,
        row_step=row_step,
        row_length=np.array(row_lengths)[rows.kind[row_order]],
        row_tokens=np.bincount(row_of, weights=planned.num_tokens, minlength=num_rows).astype(np.int64),
        row_cost=costs[row_order],
        fewest_rows=rows.fewest,
        left_out=left_out,
    )


def step_rows(settings: PlanSettings, length: int | None = None) -> int:
    """Rows of `length` tokens (by default `capacity`) of a step.

    As set, or about as many full ones as `tokens_per_step` holds: at least one, and a multiple of the declared
    data-parallel sizes.
    """
    if settings.rows_per_step:
        return settings.rows_per_step
    multiple = math.lcm(*settings.data_parallel_sizes)
    return multiple * max(1, round(settings.tokens_per_step / (length or settings.capacity) / multiple))


def _leave_out(samples: Samples, settings: PlanSettings) -> tuple[npt.NDArray[np.bool_], tuple[Rejected, ...]]:
    """Which samples are planned, and the others with their reason."""
    held_out = ~pc.equal(samples.split, "train").to_numpy(zero_copy_only=False)
    most = min(settings.capacity, settings.largest_sample or settings.capacity)
    key = "capacity" if most == settings.capacity else "largest_sample"
    too_long = samples.num_tokens > most
    refused: list[Rejected] = []
    for i in np.flatnonzero(held_out | too_long).tolist():
        if held_out[i]:
            reason, detail = VALIDATION, f"split {samples.split[i].as_py()!r} is not trained on"
        else:
            reason = TOO_LONG
            detail = f"{samples.num_tokens[i]} tokens; raise packing.{key}, now {most}, to take it"
        refused.append(Rejected(id=samples.sample_id[i].as_py(), stage="plan", reason=reason, detail=detail))
    return ~(held_out | too_long), tuple(sorted(refused, key=lambda r: r.id))


@dataclass(frozen=True, slots=True)
class _Rows:
    """The row of each sample, and the kind (a number of `row_lengths`) and epoch of each row."""

    of: IntArray
    kind: IntArray
    epoch: IntArray
    fewest: float  # no packing has fewer


def _pack_each(
    tokens: IntArray, kind: IntArray, epoch: IntArray, row_lengths: Sequence[int], settings: PlanSettings
) -> _Rows:
    """Pack the samples of each kind of row and each epoch on their own."""
    of = np.empty(len(tokens), dtype=np.int64)
    row_kind, row_epoch = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    num_rows, fewest = 0, 0.0
    for number, length in enumerate(row_lengths):
        for e in np.unique(epoch).tolist():
            members = np.flatnonzero((kind == number) & (epoch == e))
            window = settings.pack_window or max(len(members), 1)
            for start in range(0, len(members), window):
                part = members[start : start + window]
                found, bound = pack(tokens[part], length)
                of[part] = num_rows + found
                row_kind.append(np.full(count_rows(found), number))
                row_epoch.append(np.full(count_rows(found), e))
                num_rows += count_rows(found)
                fewest += bound
    rows = _Rows(of, np.concatenate(row_kind), np.concatenate(row_epoch), fewest)
    for number in range(len(row_lengths)):
        rows = _split_rows(rows, number, math.lcm(*settings.data_parallel_sizes))
    return rows


def _split_rows(rows: _Rows, kind: int, multiple: int) -> _Rows:
    """With as many rows of the kind split in two as make their number a multiple; fewer where none can be split."""
    while missing := -int((rows.kind == kind).sum()) % multiple:
        num_rows = len(rows.kind)
        last = np.empty(num_rows, dtype=np.int64)
        last[rows.of] = np.arange(len(rows.of))  # the last sample of each row
        several = np.bincount(rows.of, minlength=num_rows) > 1
        split = np.flatnonzero(several & (rows.kind == kind))[-missing:]
        if not len(split):
            break
        of = rows.of.copy()
        of[last[split]] = num_rows + np.arange(len(split))
        rows = _Rows(of, np.append(rows.kind, rows.kind[split]), np.append(rows.epoch, rows.epoch[split]), rows.fewest)
    return rows


def _order_steps(
    costs: FloatArray, rows: _Rows, per_step: Sequence[int], settings: PlanSettings, rng: np.random.Generator
) -> list[IntArray]:
    """The rows of every step, costliest first: of one kind, of similar cost, in random order, epoch by epoch.

    Rows that fill no step begin one with the first of the next epoch; those of the last epoch form short steps.
    """
    ordered: list[IntArray] = []
    left: list[IntArray] = [np.empty(0, dtype=np.int64) for _ in per_step]
    for epoch in np.unique(rows.epoch).tolist():
        steps: list[IntArray] = []
        for kind, size in enumerate(per_step):
            found = rng.permutation(np.flatnonzero((rows.kind == kind) & (rows.epoch == epoch)))
            shuffled = np.concatenate([left[kind], found])
            start = size if len(left[kind]) and len(shuffled) >= size else 0
            end = len(shuffled) // size * size
            ordered += [_by_cost(shuffled[:start], costs)] if start else []
            left[kind] = shuffled[end:]
            group = math.lcm(*settings.data_parallel_sizes) if settings.data_parallel_sizes else size
            window = max(settings.balance_window // size, 1) * size
            for first in range(start, end, window):
                groups = _by_cost(shuffled[first : min(first + window, end)], costs).reshape(-1, group)
                steps += list(_by_cost(rng.permutation(groups).reshape(-1, size), costs))
        ordered += [steps[i] for i in rng.permutation(len(steps)).tolist()]
    return ordered + [_by_cost(rest, costs) for rest in left if len(rest)]


def _by_cost(rows: IntArray, costs: FloatArray) -> IntArray:
    """Rows, or those of each step, costliest first."""
    order = np.argsort(-costs[rows], axis=-1, kind="stable")
    return np.take_along_axis(rows, order, axis=-1)


def assign(costs: Sequence[float] | FloatArray, num_ranks: int) -> list[list[int]]:
    """The rows of one step for each data-parallel rank, in the order in which the rank runs them.

    Longest processing time first, in rounds: the costliest `num_ranks` rows go one to a rank, then the next
    ones, and so on. In a round, the costliest row goes to the rank with the least so far; rounds whose rows differ
    most are dealt first, so that the others even out what they leave. Every rank gets the same number of rows where
    `num_ranks` divides them (else some have one fewer), rows that run at the same time cost about the same,
    and so do the sums. Ties go to the lower row and the lower rank.
    """
    ranks, rounds = assign_steps(np.asarray(costs, dtype=np.float64)[None, :], num_ranks)
    order = np.argsort(rounds[0], kind="stable")
    return [[int(row) for row in order if ranks[0, row] == rank] for rank in range(num_ranks)]


def assign_steps(costs: FloatArray, num_ranks: int) -> tuple[IntArray, IntArray]:
    """`assign` for many steps at once: `[steps, rows]` costs to the rank and the round of each row."""
    num_steps, num_rows = costs.shape
    num_rounds = -(-num_rows // num_ranks)
    padded = np.zeros((num_steps, num_rounds * num_ranks))
    padded[:, :num_rows] = costs
    order = np.argsort(-padded, axis=1, kind="stable")  # what is padded costs nothing and comes last
    dealt = np.take_along_axis(padded, order, axis=1).reshape(num_steps, num_rounds, num_ranks)
    uneven_first = np.argsort(dealt[:, :, -1] - dealt[:, :, 0], axis=1, kind="stable")
    rank_of = np.empty_like(dealt, dtype=np.int64)
    load = np.zeros((num_steps, num_ranks))
    for turn in range(num_rounds):
        at = uneven_first[:, turn, None, None]
        chosen = np.argsort(load, axis=1, kind="stable")
        np.put_along_axis(rank_of, at, chosen[:, None, :], axis=1)
        added = np.take_along_axis(dealt, at, axis=1)[:, 0]
        np.put_along_axis(load, chosen, np.take_along_axis(load, chosen, axis=1) + added, axis=1)
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, rank_of.reshape(order.shape), axis=1)
    rounds = np.empty_like(order)
    np.put_along_axis(rounds, order, np.arange(num_rounds * num_ranks)[None] // num_ranks, axis=1)
    return ranks[:, :num_rows], rounds[:, :num_rows]


def _encoded(words: Sequence[str] | pa.Array) -> pa.Array:
    array = words if isinstance(words, pa.Array) else pa.array(words, pa.string())
    return array if pa.types.is_dictionary(array.type) else array.dictionary_encode()


def _words(word: str, n: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(np.zeros(n, dtype=np.int32), [word])
