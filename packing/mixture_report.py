"""What a mixture holds, what it was asked for, and every shortfall in words with the way out. Pure.

It is made before anything is written: a build prints it, keeps it in `mixture.json`, and `corpus inspect` and
`report.html` show it from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from corpus.blocks import clean

REASONS = {  # why a question is left out, and the way to have it
    "task-not-asked": "its task has no share in mixture.tasks",
    "length-not-asked": "its length has no share in mixture.lengths",
    "samples-per-window": "its window has as many samples as mixture.samples_per_window allows",
    "share-filled": "its share is filled; mixture.shortage: fill takes more than the shares",
    "budget-filled": "mixture.token_budget is filled",
    "short-share": "mixture.short.share is filled",
}

NOTABLE = 0.005  # deviation of a share that is told

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Portion:
    """What a task or a length bucket was asked for and got. Shares are of the questions, 0..1."""

    name: str
    asked: float | None  # None = as it comes
    got: float
    pool: int  # questions there are
    chosen: int  # questions asked, over all epochs
    num_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureReport:
    """What a mixture holds, what it was asked for, and what it could not satisfy."""

    num_pool: int  # questions there are for training
    num_samples: int  # over all epochs
    num_questions: int
    num_tokens: int
    num_epochs: int  # begun
    epochs: int  # allowed
    token_budget: int | None
    shortage: str
    questions_per_window: int
    samples_per_window: int | None
    tasks: tuple[Portion, ...]
    lengths: tuple[Portion, ...]
    short: Portion  # shares are of the tokens here
    num_validation: int  # samples, which are kept beside
    left_out: dict[str, int]  # questions by reason
    shortfalls: tuple[str, ...]  # sentences: what was asked for and not had, and the way out

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, in the order of the fields."""
        return asdict(self)


def portions_of(
    names: Sequence[str],
    asked: dict[str, float] | None,
    code: IntArray,
    question: IntArray,
    tokens: IntArray,
    pool: IntArray,
) -> tuple[Portion, ...]:
    """Figures of every task or bucket that there is or that was asked for; `code` is an index into `names`."""
    there = np.bincount(code[pool], minlength=len(names))
    chosen = np.bincount(code[question], minlength=len(names))
    num_tokens = np.bincount(code[question], weights=tokens, minlength=len(names))
    return tuple(
        Portion(
            name=name,
            asked=None if asked is None else rounded(asked.get(name, 0.0)),
            got=rounded(int(chosen[i]) / max(1, len(question))),
            pool=int(there[i]),
            chosen=int(chosen[i]),
            num_tokens=int(num_tokens[i]),
        )
        for i, name in enumerate(names)
        if there[i] or (asked and name in asked)
    )


def shortfalls(report: MixtureReport, limit: str, epochs_needed: int) -> list[str]:
    """Sentences on what was asked for and not had, and the way out.

    Args:
        limit: what is used up first; '' = nothing is.
        epochs_needed: for the budget; 0 = it is reached.
    """
    said = []
    there = [f"{clean(p.name) or 'no name'} {p.pool:,}" for p in report.tasks if p.pool]
    if there and not any(p.chosen for p in report.tasks):
        said.append(
            f"no question is chosen; the pool has {', '.join(there)}: ask for these in mixture.tasks, "
            "or see mixture.lengths, mixture.samples_per_window and mixture.token_budget"
        )
    others = report.left_out.get("share-filled", 0)
    if limit and others and (epochs_needed or not report.token_budget):
        said.append(
            f"{limit}; {others:,} questions that the shares have no room for are left out: mixture.shortage=fill takes "
            "them, more of what is scarce makes room for them"
        )
    for portion in (*report.tasks, *report.lengths):
        off = abs(portion.got - portion.asked) if portion.asked is not None and report.num_questions else 0.0
        if off > max(NOTABLE, 1 / max(1, report.num_questions)) and report.shortage == "fill":
            said.append(f"{clean(portion.name)}: {percent(portion.asked or 0)} asked, {percent(portion.got)} got")
    if report.token_budget and epochs_needed and report.num_questions:
        if epochs_needed > report.epochs:
            way_out = f"mixture.epochs={epochs_needed} would reach it, now {report.epochs}; so would more documents"
        else:
            way_out = "more documents would reach it"
        said.append(
            f"mixture.token_budget is {report.token_budget:,} and {report.num_tokens:,} tokens are there "
            f"({percent(report.num_tokens / report.token_budget)}): {way_out}"
        )
    if report.short.pool and (report.short.asked or 0) - report.short.got > NOTABLE:
        said.append(
            f"short data: {percent(report.short.asked or 0)} of the tokens asked, {percent(report.short.got)} got; "
            "name more in mixture.short.files, or ask for less in mixture.short.share"
        )
    if report.short.pool and not report.short.asked:
        said.append(
            f"none of {report.short.pool:,} conversations of mixture.short.files is used: mixture.short.share is 0"
        )
    return said


def format_mixture(report: MixtureReport) -> str:
    """The figures as lines for a terminal."""
    lines = [
        f"mixture: {report.num_questions:,} questions in {report.num_samples:,} samples, {report.num_tokens:,} tokens, "
        f"{report.num_epochs} of at most {report.epochs} epochs",
        *_portion_lines("task", report.tasks),
        *_portion_lines("length", report.lengths),
    ]
    if report.short.pool or report.short.asked:
        lines += _portion_lines("tokens", (report.short,))
    if report.token_budget:
        lines.append(
            f"  budget {report.token_budget:,} tokens, {percent(report.num_tokens / report.token_budget)} of it"
        )
    if report.num_validation:
        lines.append(f"  {report.num_validation:,} samples for validation beside them")
    if report.left_out:
        lines.append("  left out")
        lines += [f"    {reason:<22} {n:>12,} questions: {REASONS[reason]}" for reason, n in report.left_out.items()]
    lines += [f"  ! {shortfall}" for shortfall in report.shortfalls]
    return "\n".join(lines)


def _portion_lines(title: str, portions: Sequence[Portion]) -> list[str]:
    return [f"  by {title:<22}  asked     got         pool       chosen             tokens"] + [
        f"    {clean(p.name) or '(no name)':<22} {'-' if p.asked is None else percent(p.asked):>7} {percent(p.got):>7} "
        f"{p.pool:>12,} {p.chosen:>12,} {p.num_tokens:>18,}"
        for p in portions
    ]


def percent(share: float) -> str:
    """A share of 1 in words."""
    return f"{share * 100:.1f} %"


def rounded(share: float) -> float:
    """A share as reports give it."""
    return round(share, 6)
