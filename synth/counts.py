"""How many rows of a table are as the question says: lower in one column than in another, or changed at all.

The rows of the whole table are counted, and those that are quoted: a question may speak of a part of the rows. Columns
that are not named by their whole header, several comparisons, and limits that the question gives say nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from decimal import Decimal

from synth.cells import TOTAL_LABEL, UNIT_NOTE, YEARS, Grid, Row, is_quoted
from synth.grounding import CJK
from synth.quantities import folded, quantities
from synth.stems import pairs, words_of
from synth.wording import COUNTED_ROWS, FALL, LESS, MORE, RISE, THRESHOLD

THAN = re.compile(
    rf"(?<!how many )(?<!how much )\b(?:(?P<more>{MORE})|(?P<less>{LESS}))\b(?P<what>[^?;]{{0,60}}?) than\b"
    r"|\b(?P<more2>exceed(?:s|ed)?|surpass(?:es|ed)?)\b|\b(?P<less2>falls? short of|fell short of)\b"
    r"|(?P<more3>高于|多于|大于|超过|高过|长于|超出)|(?P<less3>低于|少于|小于|不及|不如|短于)",
    re.IGNORECASE,
)
COMPARED = re.compile(
    r"比(?![例率重值]|分(?![析公行店厂局支]))(?P<base>.{1,30}?)(?:(?P<more>[高大长重]|(?<!更)多(?!少))|[低少小短轻])(?!了?出?[几多])"
)
LIMIT = re.compile(r" ?[^\W\d]{0,6} ?(?!(?:19|20)\d\d(?!\d))[\d.]+")
NOT_SO = re.compile(r"\b(?:not|no|neither|both|at least as)\b|n't\b|[不未没]|都|均", re.IGNORECASE)
CHANGED = re.compile(r"\bchanged\b|\ba change\b|增减|变动|变化", re.IGNORECASE)
CHANGES = re.compile(r"\bchanges?\b|增减|变动|变化", re.IGNORECASE)  # the header of a column


def count_rows(asked: str, quotes: Sequence[str], tables: Sequence[Grid]) -> set[int] | None:
    """How many rows of the quoted table are so, in the table and among the quotes; None where that cannot be told."""
    if not COUNTED_ROWS.search(asked) and not re.search(r"\bhow many\b", asked, re.IGNORECASE):
        return None
    if any(LIMIT.match(asked[m.end() :]) for m in THRESHOLD.finditer(asked)):
        return None
    for grid in tables:
        rows = [r for r in grid.rows if not TOTAL_LABEL.search(r.label)]
        taken = [r for r in rows if any(is_quoted(r, q) for q in quotes)]
        if len(quotes) > 1 and len(taken) == len(quotes) and (test := _test(asked, grid)):
            hits = [test(r) for r in rows]
            if None not in hits:
                return {sum(map(bool, hits)), sum(bool(test(r)) for r in taken)}
    return None


def _test(asked: str, grid: Grid) -> Callable[[Row], bool | None] | None:
    """What the question asks of a row; None where it cannot be told."""
    found = _compared_columns(asked, grid)
    if found is not None:
        first, base, sign = found

        def beyond(row: Row) -> bool | None:
            a, b = _value(grid, row, first), _value(grid, row, base)
            return None if a is None or b is None else sign * (a - b) > 0

        return beyond
    if THAN.search(asked) or THRESHOLD.search(asked) or RISE.search(asked) or FALL.search(asked):
        return None
    columns = [i for i, c in enumerate(grid.columns) if CHANGES.search(folded(c)) and CHANGED.search(asked)]
    columns = columns or _with_zeros(asked, grid)
    if len(columns) != 1 or NOT_SO.search(asked):
        return None

    def moved(row: Row) -> bool | None:
        value = _value(grid, row, columns[0])
        return None if value is None else value != 0

    return moved


def _with_zeros(asked: str, grid: Grid) -> list[int]:
    """The columns that hold zeros in some rows, and whose header shares words with the question."""
    found = []
    for i, header in enumerate(grid.columns):
        values = [_value(grid, r, i) for r in grid.rows if not TOTAL_LABEL.search(r.label)]
        if 0 in values and any(values) and None not in values and pairs(folded(header)) & pairs(asked):
            found.append(i)
    return found


def _compared_columns(asked: str, grid: Grid) -> tuple[int, int, int] | None:
    """The column that is compared, the one that it is compared with, and 1 = is more, -1 = is less."""
    comparisons = [*THAN.finditer(asked)] or [*COMPARED.finditer(asked)]
    if len(comparisons) != 1 or NOT_SO.search(asked):
        return None
    m = comparisons[0]
    places = _places(asked, grid)
    if len(places) != 2:
        return None
    (first, start), (second, other) = places
    groups = m.groupdict()
    at = m.start("base") if "base" in groups else m.end()
    if not start < at <= other:
        return None
    return first, second, 1 if any(v for name, v in groups.items() if name.startswith("more")) else -1


def _places(asked: str, grid: Grid) -> list[tuple[int, int]]:
    """The columns whose whole header stands in the question, each with its place there, in order."""
    text = asked.casefold()
    found: list[tuple[int, int]] = []
    names = [UNIT_NOTE.sub(" ", folded(c)).strip().casefold() for c in grid.columns]
    words = words_of(asked)
    for i, name in enumerate(names):  # "calls in 2023" is the column "Calls 2023"
        year = YEARS.search(name)
        rest = words_of(YEARS.sub(" ", name))
        if name not in text and year and rest and rest <= words and text.count(year[0]) == 1:
            names[i] = year[0]
    if len({*names}) < len(names):
        return []
    for i, name in sorted(enumerate(names), key=lambda item: -len(item[1])):
        chinese = re.search(f"[{CJK}]", name) is not None
        m = re.search(re.escape(name) if chinese else rf"(?<!\w){re.escape(name)}(?!\w)", text) if name else None
        if m:
            found.append((i, m.start()))
            text = text[: m.start()] + " " * len(name) + text[m.end() :]
    return sorted(found, key=lambda item: item[1])


def _value(grid: Grid, row: Row, column: int) -> Decimal | None:
    placed = grid.placed(row)
    cell = next((cell for cell, header in placed if header == grid.columns[column]), "")
    numbers = quantities(folded(cell))
    return numbers[0].value if len(numbers) == 1 else None
