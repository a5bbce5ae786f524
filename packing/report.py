"""What a plan will do, before a GPU is rented: fill, balance and predicted idle. Pure.

Idle is the share of rank-seconds spent waiting, when time is proportional to `packing.cost`. It is given for
both ways to train: ranks that wait for each other after every row (FSDP gathers weights in every forward),
and ranks that only meet at the optimizer step (gradient accumulation without synchronisation): 0.35 % and
0.07 % for 32 rows of natural lengths over 8 ranks in the default balance window. The prediction covers
compute alone: reading, communication and recomputation come on top. The last, shorter step counts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from corpus.blocks import clean
from packing.plan import FloatArray, IntArray, Plan, assign_steps

DATA_PARALLEL_SIZES = (1, 2, 4, 8, 16, 32, 64)

LENGTH_BUCKETS = ("<32K", "32-64K", "64-96K", "96-128K", ">128K")
_BUCKET_STARTS = (32_768, 65_536, 98_304, 131_073)  # 131,072 is the last length of 96-128K

PETA = 1e15


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
    capacity: int  # tokens of a row
    rows_per_step: int
    last_step_rows: int  # rows of the last step, at most `rows_per_step`
    num_samples: int
    num_tokens: int
    num_supervised: int
    num_rows: int
    num_steps: int
    fill: float  # tokens / (rows x capacity)
    row_cost_variation: float  # standard deviation / mean of the rows' cost
    petaflops: float  # of the whole plan
    tasks: tuple[Share, ...]
    lengths: tuple[Share, ...]
    idle: tuple[Idle, ...]  # at the sizes that divide `rows_per_step`
    left_out: dict[str, int]  # samples by reason

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, in the order of the fields."""
        return asdict(self)


def make_report(plan: Plan, *, fingerprint: str = "") -> PlanReport:
    """The figures of `plan`."""
    tokens = plan.samples.num_tokens
    mean = float(plan.row_cost.mean()) if plan.num_rows else 0.0
    return PlanReport(
        fingerprint=fingerprint,
        capacity=plan.capacity,
        rows_per_step=plan.rows_per_step,
        last_step_rows=plan.last_step_rows,
        num_samples=len(tokens),
        num_tokens=int(tokens.sum()),
        num_supervised=int(plan.samples.num_supervised.sum()),
        num_rows=plan.num_rows,
        num_steps=plan.num_steps,
        fill=_rounded(int(tokens.sum()) / (plan.num_rows * plan.capacity)) if plan.num_rows else 0.0,
        row_cost_variation=_rounded(float(plan.row_cost.std()) / mean) if mean else 0.0,
        petaflops=round(float(plan.row_cost.sum()) / PETA, 3),
        tasks=_task_shares(plan),
        lengths=_length_shares(tokens),
        idle=tuple(predict_idle(plan, n) for n in DATA_PARALLEL_SIZES if plan.rows_per_step % n == 0),
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


def _step_costs(plan: Plan) -> FloatArray:
    """`[steps, rows_per_step]` costs; the rows that the last step lacks cost nothing."""
    costs = np.zeros(plan.num_steps * plan.rows_per_step)
    costs[: plan.num_rows] = plan.row_cost
    return costs.reshape(plan.num_steps, plan.rows_per_step)


def _waiting(busy: npt.NDArray[np.float64], duration: npt.NDArray[np.float64]) -> float:
    available = float(duration.sum()) * busy.shape[1]
    return max(0.0, _rounded(1 - float(busy.sum()) / available)) if available else 0.0


def _task_shares(plan: Plan) -> tuple[Share, ...]:
    counts: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for task, length in zip(plan.samples.task.tolist(), plan.samples.num_tokens.tolist(), strict=True):
        counts[task] += 1
        tokens[task] += length
    return tuple(Share(name=t, num_samples=counts[t], num_tokens=tokens[t]) for t in sorted(counts))


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
        f"  {report.num_rows:,} rows of at most {report.capacity:,} tokens, {report.fill:.1%} full",
        f"  {report.num_steps:,} steps of {report.rows_per_step} rows{_last_step(report)}",
        f"  {report.petaflops:,.1f} PFLOP; a row's cost varies by {report.row_cost_variation:.1%}",
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


def _last_step(report: PlanReport) -> str:
    if report.last_step_rows in (0, report.rows_per_step):
        return ""
    return f", the last of {report.last_step_rows}"


def _share_lines(title: str, shares: tuple[Share, ...], report: PlanReport) -> list[str]:
    return [f"  by {title}"] + [
        f"    {clean(s.name) or '(no name)':<22} {s.num_samples:>12,} samples {s.num_tokens:>18,} tokens "
        f"{s.num_tokens / max(report.num_tokens, 1):>6.1%}"
        for s in shares
    ]
