"""What a plan will do, before a GPU is rented: fill, balance, predicted idle and GPU-hours. Pure.

Idle is the share of rank-seconds spent waiting, when time is proportional to `packing.cost`. It is given for
both ways to train: ranks that wait for each other after every row (FSDP gathers weights in every forward),
and ranks that only meet at the optimizer step (gradient accumulation without synchronisation). The prediction
covers compute alone: reading, communication and recomputation come on top. The last, shorter step counts.

The number of rows stands beside a lower bound from a linear program (`packing.patterns`): what a better packer could
still save is at most the difference.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from corpus.blocks import clean
from corpus.config import DEFAULT_HARDWARE
from packing.plan import FloatArray, IntArray, Plan, assign_steps

ROW_MULTIPLE = 64  # tokens to which a row is padded, so that sequence-parallel ranks get equal parts

DATA_PARALLEL_SIZES = (1, 2, 4, 8, 16, 32, 64)

LENGTH_BUCKETS = ("<32K", "32-64K", "64-96K", "96-128K", ">128K")
_BUCKET_STARTS = (32_768, 65_536, 98_304, 131_073)  # 131,072 is the last length of 96-128K

FILL_EDGES = (0, 50, 60, 70, 80, 90, 95, 99)
COST_EDGES = (0, 25, 50, 75, 90, 110, 125, 150, 200)

PETA, TERA = 1e15, 1e12


class Hardware(Protocol):
    """What the report reads of `corpus.config.HardwareSettings`."""

    @property
    def peak_tflops(self) -> float: ...
    @property
    def utilisation(self) -> float: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Samples and tokens of one task or length bucket."""

    name: str
    num_samples: int
    num_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """Predicted share of rank-time spent waiting, 0..1, at one number of data-parallel ranks."""

    data_parallel_size: int
    every_row: float  # ranks wait for each other after every row
    every_step: float  # ranks wait for each other at the optimizer step alone


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """The figures of a plan. Shares and variation are 0..1; costs are forward and backward."""

    fingerprint: str  # '' for a plan that was not written
    capacity: int  # tokens of the longest rows, at most
    row_lengths: tuple[int, ...]  # of every kind of row; the last is `capacity`
    rows_per_step: tuple[int, ...]  # for each of `row_lengths`
    last_step_rows: int  # rows of the last step, at most as many
    num_samples: int
    num_tokens: int
    num_supervised: int
    num_rows: int
    num_steps: int
    fewest_rows: int  # no packing of these samples has fewer
    fill: float  # tokens / (rows x their length)
    padding: float  # tokens added where rows are padded to a multiple of 64 / tokens
    row_cost_variation: float  # standard deviation / mean of the rows' cost
    row_fill_histogram: dict[str, int]  # rows by how full they are
    row_cost_histogram: dict[str, int]  # rows by their cost, as a share of the mean
    petaflops: float  # of the whole plan
    gpu_hours: float  # at the hardware's speed, without idle
    hardware: str
    tasks: tuple[Share, ...]
    lengths: tuple[Share, ...]
    idle: tuple[Idle, ...]  # at the sizes that divide the rows of every step but short ones
    left_out: dict[str, int]  # samples by reason

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, in the order of the fields."""
        return asdict(self)


def make_report(plan: Plan, *, hardware: Hardware = DEFAULT_HARDWARE, fingerprint: str = "") -> PlanReport:
    """The figures of `plan`."""
    tokens = plan.samples.num_tokens
    mean = float(plan.row_cost.mean()) if plan.num_rows else 0.0
    flops = float(plan.row_cost.sum())
    return PlanReport(
        fingerprint=fingerprint,
        capacity=plan.capacity,
        row_lengths=plan.row_lengths,
        rows_per_step=plan.rows_per_step,
        last_step_rows=plan.last_step_rows,
        num_samples=len(tokens),
        num_tokens=int(tokens.sum()),
        num_supervised=int(plan.samples.num_supervised.sum()),
        num_rows=plan.num_rows,
        num_steps=plan.num_steps,
        fewest_rows=math.ceil(plan.fewest_rows - 1e-6),
        fill=_rounded(int(tokens.sum()) / int(plan.row_length.sum())) if plan.num_rows else 0.0,
        padding=_rounded(int((-plan.row_tokens % ROW_MULTIPLE).sum()) / int(tokens.sum())) if plan.num_rows else 0.0,
        row_cost_variation=_rounded(float(plan.row_cost.std()) / mean) if mean else 0.0,
        row_fill_histogram=_histogram(plan.row_tokens / plan.row_length, FILL_EDGES),
        row_cost_histogram=_histogram(plan.row_cost / (mean or 1.0), COST_EDGES),
        petaflops=round(flops / PETA, 3),
        gpu_hours=round(flops / (hardware.peak_tflops * TERA * hardware.utilisation) / 3600, 3),
        hardware=f"{hardware.utilisation:.0%} of {hardware.peak_tflops:g} TFLOP/s",
        tasks=_task_shares(plan),
        lengths=_length_shares(tokens),
        idle=tuple(predict_idle(plan, n) for n in _sizes(plan)),
        left_out=dict(sorted(Counter(r.reason for r in plan.left_out).items())),
    )


def predict_idle(plan: Plan, data_parallel_size: int) -> Idle:
    """How long that many ranks wait for each other when `assign` deals each step's rows to them."""
    costs = _step_costs(plan)
    num_steps, num_rows = costs.shape
    ranks, rounds = assign_steps(costs, data_parallel_size)
    busy = np.zeros((num_steps, data_parallel_size, -(-num_rows // data_parallel_size)))
    busy[np.arange(num_steps)[:, None], ranks, rounds] = costs
    return Idle(
        data_parallel_size=data_parallel_size,
        every_row=_waiting(busy, busy.max(axis=1, initial=0.0)),
        every_step=_waiting(busy, busy.sum(axis=2).max(axis=1, initial=0.0)),
    )


def _sizes(plan: Plan) -> list[int]:
    return [n for n in DATA_PARALLEL_SIZES if all(rows % n == 0 for rows in plan.rows_per_step)]


def _step_costs(plan: Plan) -> FloatArray:
    """`[steps, rows of the largest step]` costs; the rows that other steps lack cost nothing."""
    sizes = np.bincount(plan.row_step)
    first = np.cumsum(sizes) - sizes
    costs = np.zeros((len(sizes), int(sizes.max(initial=0))))
    costs[plan.row_step, np.arange(plan.num_rows) - first[plan.row_step]] = plan.row_cost
    return costs


def _waiting(busy: npt.NDArray[np.float64], duration: npt.NDArray[np.float64]) -> float:
    available = float(duration.sum()) * busy.shape[1]
    return max(0.0, _rounded(1 - float(busy.sum()) / available)) if available else 0.0


def _histogram(shares: FloatArray, edges: tuple[int, ...]) -> dict[str, int]:
    """How many shares lie from each edge to the next, edges in percent; the last is open."""
    counts = np.bincount(np.searchsorted(edges, shares * 100, side="right") - 1, minlength=len(edges)).tolist()
    labels = [f"{a}-{b} %" for a, b in pairwise(edges)] + [f"{edges[-1]} % and more"]
    return dict(zip(labels, counts, strict=True))


def _task_shares(plan: Plan) -> tuple[Share, ...]:
    task = plan.samples.task
    names, codes = task.dictionary.to_pylist(), task.indices.to_numpy()
    counts = np.bincount(codes, minlength=len(names)).tolist()
    tokens = np.bincount(codes, weights=plan.samples.num_tokens, minlength=len(names)).tolist()
    found = sorted(zip(names, counts, tokens, strict=True))
    return tuple(Share(name=n, num_samples=c, num_tokens=int(t)) for n, c, t in found if c)


def _length_shares(lengths: IntArray) -> tuple[Share, ...]:
    bucket = np.searchsorted(_BUCKET_STARTS, lengths, side="right")
    return tuple(
        Share(
            name=name,
            num_samples=int((bucket == i).sum()),
            num_tokens=int(lengths[bucket == i].sum()),
        )
        for i, name in enumerate(LENGTH_BUCKETS)
    )


def _rounded(share: float) -> float:
    return round(share, 6)


def format_report(report: PlanReport) -> str:
    """The figures as lines for a terminal."""
    lines = [
        f"plan {report.fingerprint}".rstrip(),
        f"  {report.num_samples:,} samples, {report.num_tokens:,} tokens ({report.num_supervised:,} supervised)",
        f"  {report.num_rows:,} {_plural('row', report.num_rows)} of at most {_either(report.row_lengths)} tokens, "
        f"{report.fill:.1%} full; no packing has fewer than {report.fewest_rows:,}{_above(report)}",
        f"  {report.num_steps:,} {_plural('step', report.num_steps)} of {_either(report.rows_per_step)} rows"
        f"{_last_step(report)}",
        f"  {report.petaflops:,.1f} PFLOP, {report.gpu_hours:,.1f} GPU-hours at {report.hardware}; "
        f"a row's cost varies by {report.row_cost_variation:.1%}",
        *_share_lines("task", report.tasks, report),
        *_share_lines("length", report.lengths, report),
    ]
    if report.idle:
        lines.append("  predicted idle at data-parallel size: after every row / at the optimizer step")
        for i in report.idle:
            lines.append(f"    {i.data_parallel_size:>4} {i.every_row:>8.2%} /{i.every_step:>7.2%}")
    if report.left_out:
        lines.append("  left out")
        lines += [f"    {reason:<22} {count:>12,} samples" for reason, count in report.left_out.items()]
    return "\n".join(lines)


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def _either(numbers: tuple[int, ...]) -> str:
    return " / ".join(f"{n:,}" for n in numbers)


def _above(report: PlanReport) -> str:
    more = report.num_rows / report.fewest_rows - 1 if report.fewest_rows else 0.0
    return f" ({more:.2%} above)" if more > 0 else ""


def _last_step(report: PlanReport) -> str:
    if report.last_step_rows in (0, *report.rows_per_step):
        return ""
    return f", the last of {report.last_step_rows}"


def _share_lines(title: str, shares: tuple[Share, ...], report: PlanReport) -> list[str]:
    return [f"  by {title}"] + [
        f"    {clean(s.name) or '(no name)':<22} {s.num_samples:>12,} samples {s.num_tokens:>18,} tokens "
        f"{s.num_tokens / max(report.num_tokens, 1):>6.1%}"
        for s in shares
    ]
