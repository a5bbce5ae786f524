"""Whether the row that an answer names is the one that a comparison asks for: the largest, the second, one that fell.

Rows are those of the quotes; the row of an answer that was not quoted is looked up in the tables of the pages, because
a wrong name is rarely quoted. What cannot be put in order (no years in the header, rows of different length) says
nothing.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from synth.answers import list_items
from synth.cells import Grid, is_quoted
from synth.grounding import contains, tokens
from synth.operands import YEAR, Operand, in_columns, of_row
from synth.quantities import dates, folded, quantities
from synth.stems import pairs
from synth.wording import (
    BEST,
    CHOICE,
    COMPARED_YEARS,
    DIFFERENCE,
    EARLIEST,
    FALL,
    INTENTS,
    LARGEST,
    LATEST,
    RANK,
    RISE,
    SMALLEST,
    STEADILY,
    base_phrases,
)

Day = tuple[int, int, int]  # year, month, day; 0 = not said


@dataclass(frozen=True, slots=True)
class Recomputed:
    """`matches`: True, False, or None where nothing can be said; `detail` shows how."""

    matches: bool | None
    detail: str


def compared(
    asked: str,
    answer: str,
    answer_format: str,
    quotes: Sequence[str],
    rows: Sequence[Sequence[Operand]],
    years: Sequence[int],
    tables: Sequence[Grid],
) -> Recomputed:
    """Whether the rows that the answer names are those that the question asks for.

    Args:
        asked: the question without what stands in quotation marks.
        answer: the name of a row, or a list of names.
        answer_format: String or List.
        quotes: one for each of `rows`.
        rows: their numbers.
        years: that it names.
        tables: of the evidence pages.
    """
    if not CHOICE.search(asked):
        return Recomputed(None, "the question asks for no row")
    items = list_items(answer) if answer_format == "List" else [answer]
    sign = 0 if BEST.search(asked) else move(asked)
    if sign:
        return _moved(asked, sign, items, answer_format == "List", quotes, rows, years, tables)
    if answer_format == "List":
        return Recomputed(None, "a list of rows is compared by no more than their direction")
    if (dated := _dated(asked, answer, quotes, tables)) is not None:
        return Recomputed(dated, "compared by date" if dated else f"{answer} is not the one by date")
    return _ranked(asked, answer, quotes, rows, years, tables)


def _dated(asked: str, answer: str, quotes: Sequence[str], tables: Sequence[Grid]) -> bool | None:
    """Whether the row of an answer is the earliest or latest by a date or year; None where none is asked for."""
    late, early = bool(LATEST.search(asked)), bool(EARLIEST.search(asked))
    named = [i for i, q in enumerate(quotes) if contains(q, answer)]
    if late == early or len(quotes) < 2:
        return None
    rows = [next(((g, r) for g in tables for r in g.rows if is_quoted(r, q)), None) for q in quotes]
    own = [i for i, found in enumerate(rows) if found and tokens(found[1].label) == tokens(answer)]
    cells = [found[0].placed(found[1]) for found in rows if found]
    if len(cells) == len(quotes):
        columns = _dated_columns(cells, asked)
    else:
        days = [_days(q) for q in quotes]
        columns = list(zip(*days, strict=True)) if len({len(d) for d in days}) == 1 else []
    named = own or named
    if not columns or len(named) != 1:
        return None
    best = max if late else min
    return any(column[named[0]] == best(column) for column in columns)


def _dated_columns(rows: Sequence[Sequence[tuple[str, str]]], asked: str) -> list[tuple[Day, ...]]:
    """The dates of the columns of rows that hold one in every row; those alone whose header the question says best."""
    found: list[tuple[int, tuple[Day, ...]]] = []
    for column in zip(*rows, strict=False):
        days = [_days(cell) for cell, _ in column]
        if all(len(d) == 1 for d in days):
            header = column[0][1]
            found.append((len(pairs(header) & pairs(asked)), tuple(d[0] for d in days)))
    best = max((score for score, _ in found), default=0)
    return [days for score, days in found if score == best]


def _days(text: str) -> list[Day]:
    """The dates of a text, else its years."""
    text = folded(text)
    found = [d.parts for d in dates(text) if d.year and d.month]
    return found or [(int(q.value), 0, 0) for q in quantities(text) if q.is_year]


# ---------------------------------------------------------------------------------------------------------- directions


def move(asked: str) -> int:
    """1 = asks for what rose from one year to another, -1 = for what fell, 0 = for neither or both."""
    if m := COMPARED_YEARS.search(asked):
        sign = 1 if m["more"] or m["more2"] or m["more3"] else -1
        than = max(YEAR.findall(m[0])[-1:], default="")
        others = [y for y in YEAR.findall(asked) if y != than]
        return -sign if than and others and than > max(others) else sign  # "more in 2018 than in 2020"
    return bool(RISE.search(asked)) - bool(FALL.search(asked))


def in_time(row: Sequence[Operand], years: Sequence[int] = ()) -> list[Decimal]:
    """The numbers of a row from the first of its headers' years to the last; [] where headers name no different years.

    Args:
        row: with headers.
        years: of which two or more are the first and the last.
    """
    dated = sorted((o for o in row if o.year), key=lambda o: o.year)
    if len(years) > 1 and {years[0], years[-1]} <= {o.year for o in dated}:
        dated = [o for o in dated if years[0] <= o.year <= years[-1]]
    if len(dated) < 2 or len({o.year for o in dated}) < len(dated):
        return []
    return [o.number.value for o in dated]


def moves(values: Sequence[Decimal], sign: int, steadily: bool) -> bool:
    """Whether values rise (sign 1) or fall (-1): from the first to the last, or at every step."""
    steps = itertools.pairwise(values) if steadily else [(values[0], values[-1])]
    return all(sign * (b - a) > 0 for a, b in steps)


def _moved(
    asked: str,
    sign: int,
    items: Sequence[str],
    complete: bool,
    quotes: Sequence[str],
    rows: Sequence[Sequence[Operand]],
    years: Sequence[int],
    tables: Sequence[Grid],
) -> Recomputed:
    steadily = bool(STEADILY.search(asked))
    known = [(item, in_time(_row_of(item, quotes, rows, tables), years)) for item in items]
    word = "rose" if sign > 0 else "fell"
    for item, values in known:
        if values and not moves(values, sign, steadily):
            return Recomputed(False, f"{item} is not among those that {word}")
    for quote, row in zip(quotes, rows, strict=True) if complete else ():
        values = in_time(row, years)
        if values and moves(values, sign, steadily) and not any(contains(quote, i) for i in items):
            return Recomputed(False, f'the answer leaves out "{quote[:80]}", which {word}')
    if all(values for _, values in known):
        return Recomputed(True, "compared")
    return Recomputed(None, "no header tells which number is the earlier one")


def _row_of(
    item: str,
    quotes: Sequence[str],
    rows: Sequence[Sequence[Operand]],
    tables: Sequence[Grid],
) -> list[Operand]:
    """The numbers of the row that an answer names: of the one quote that holds it, else of the one such row; or []."""
    quoted = [row for quote, row in zip(quotes, rows, strict=True) if contains(quote, item)]
    if quoted:
        return list(quoted[0]) if len(quoted) == 1 else []
    found = [of_row(grid, row) for grid in tables for row in grid.rows if tokens(row.label) == tokens(item)]
    return found[0] if len(found) == 1 else []


# --------------------------------------------------------------------------------------------------------------- ranks


def _ranked(
    asked: str,
    answer: str,
    quotes: Sequence[str],
    rows: Sequence[Sequence[Operand]],
    years: Sequence[int],
    tables: Sequence[Grid],
) -> Recomputed:
    """Whether the row that the answer names is the largest or smallest in anything that may be meant."""
    largest, smallest = bool(LARGEST.search(asked)), bool(SMALLEST.search(asked))
    if largest == smallest:
        return Recomputed(None, "the question asks for no largest or smallest")
    chosen = [in_columns(r, years, asked) for r in rows]
    named = [i for i, quote in enumerate(quotes) if contains(quote, answer)]
    if len(named) > 1:  # RF-40 and RF-40 H
        own_rows = [r for g in tables for r in g.rows if tokens(r.label) == tokens(answer)]
        named = [i for i in named if len(own_rows) == 1 and is_quoted(own_rows[0], quotes[i])] or named
        longer = [r for g in tables for r in g.rows if contains(r.label, answer) and r not in own_rows]
        named = [i for i in named if not any(is_quoted(r, quotes[i]) for r in longer)] or named
    of_one_table = any(all(any(is_quoted(r, q) for r in grid.rows) for q in quotes) for grid in tables)
    if not named and of_one_table and (own := _row_of(answer, (), (), tables)):
        named = [len(chosen)]
        chosen.append(in_columns(own, years, asked))
    numbers = [[o.number.value for o in r] for r in chosen]
    widths = {len(r) for r in numbers}
    if len(numbers) < 2 or len(widths) != 1 or 0 in widths or len(named) != 1:
        return Recomputed(None, "the quotes are not one row for each that is compared")
    m = RANK.search(asked)
    rank = 0 if not m else 1 if m["second"] else 2
    columns = list(zip(*numbers, strict=True))
    scores = _per_base(columns, chosen[0], asked) or _scores(columns, asked, in_time=len(years) == 2)
    if any(score[named[0]] == sorted(score, reverse=largest)[min(rank, len(score) - 1)] for score in scores):
        return Recomputed(True, "compared")
    place = ("", "second ", "third ")[rank] + ("largest" if largest else "smallest")
    return Recomputed(False, f"{answer} is not the {place} of the quoted rows in anything")


def _per_base(columns: Sequence[Sequence[Decimal]], row: Sequence[Operand], asked: str) -> list[list[Decimal]]:
    """Each column divided by the one that the wording names as the base; [] where it names none."""
    if len(columns) < 2 or not any(INTENTS[name].search(asked) for name in ("ratio", "share", "per")):
        return []
    for phrase, _ in base_phrases(asked):
        likeness = [o.likeness(phrase) for o in row]
        base = likeness.index(max(likeness))
        if max(likeness) and likeness.count(max(likeness)) == 1 and all(columns[base]):
            others = [c for i, c in enumerate(columns) if i != base]
            return [[x / y for x, y in zip(c, columns[base], strict=True)] for c in others]
    return []


def _scores(columns: Sequence[Sequence[Decimal]], asked: str, in_time: bool) -> list[list[Decimal]]:
    """What the rows may be compared by: a column, or how two columns differ; `in_time`: they are two years in order."""
    between = any(INTENTS[name].search(asked) for name in ("difference", "change", "ratio", "share", "per"))
    if len(columns) == 1 or not between:
        return [list(c) for c in columns] + ([[sum(r, Decimal(0)) for r in zip(*columns, strict=True)]])
    apart = re.search(DIFFERENCE, asked, re.IGNORECASE) is not None
    pairs = list(itertools.permutations(columns, 2))
    if in_time and len(columns) == 2 and not apart:
        earlier, later = columns
        pairs = [(earlier, later)] if FALL.search(asked) else [(later, earlier)]
    scores = []
    for a, b in pairs:
        if apart or len(pairs) > 1:
            scores.append([abs(x - y) for x, y in zip(a, b, strict=True)])
        if not apart:
            scores.append([x - y for x, y in zip(a, b, strict=True)])
            if all(b):
                scores.append([x / y for x, y in zip(a, b, strict=True)])
    return scores
