"""Questions about numbers in strict tables: one cell, two cells, and exact arithmetic over cells.

Arithmetic is decimal and signed ("A minus B"), never a ranking of rows: over real tables "the largest row"
was right in 4 of 6 cases only, because totals and balances are rows too. Values are compared or added only
where they are of one kind: columns whose headers differ in nothing but numbers (years), rows of one unit
without rates, per-share values or counts.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal

from corpus.records import Segment
from corpus.table_words import PARENT
from synth.document_index import DocumentIndex, NamedTable, key_of, number_of, plain, quoted
from synth.drafts import Draft, shuffled

# Rows that do not carry the table's unit.
OTHER_UNIT = re.compile(
    r"per[ -](?:\w+ )?share|\bshares?\b|\brates?\b|ratio|percent|%|number|employees|average|yield|\bterm\b|lives|"
    r"\blife\b|\((?:in )?(?:years|months|days|hours)\)|price|margin|memberships|options|stores|conversion|volatility|"
    r"\bunits?\b",
    re.IGNORECASE,
)
AGGREGATE = re.compile(r"total|\bnet\b|balance|subtotal|\bless\b|gross|beginning|\bend\b|ending|overall", re.IGNORECASE)
CHANGE = re.compile(r"change|versus|\bvs\b|increase|decrease|variance", re.IGNORECASE)
SCALE = re.compile(r"millions|thousands|billions", re.IGNORECASE)
MAX_PER_TABLE = 40  # drafts of one pattern; more would only be variations


def _tables(index: DocumentIndex, segment: Segment, rng: random.Random) -> list[NamedTable]:
    return shuffled([t for t in index.tables if index.within(segment, t.page.index)], rng)


def _cells(named: NamedTable, rng: random.Random) -> list[tuple[int, int]]:
    """Usable cells in an order drawn by seed, at most `MAX_PER_TABLE`."""
    columns = _columns(named)
    cells = [(r, c) for r in named.rows for c in columns if named.usable(r, c)]
    return shuffled(cells, rng)[:MAX_PER_TABLE]


def _columns(named: NamedTable) -> list[int]:
    """Columns whose own name (without its group) is not another column's full name."""
    own = [key_of(name.split(PARENT)[-1]) for name in named.table.columns]
    return [
        i
        for i, name in enumerate(named.table.columns)
        if (PARENT in name or own.count(own[i]) == 1) and '"' not in name
    ]


def _unit(named: NamedTable, cells: list[tuple[int, int]], difference: bool = False) -> str:
    """A sentence on the unit: of the cells, if they are percentages, else of the table."""
    if all("%" in named.cell(r, c) for r, c in cells):
        return " Give the result in percentage points." if difference else " The value is a percentage."
    unit = _table_unit(named, cells)
    return f' Keep the unit of the table as printed ("{unit}").' if unit else ""


def _inline_unit(named: NamedTable, cell: tuple[int, int]) -> str:
    """The unit in parentheses, for a question about two tables."""
    if "%" in named.cell(*cell):
        return " (a percentage)"
    unit = _table_unit(named, [cell])
    return f' (unit as printed: "{unit}")' if unit else ""


def _table_unit(named: NamedTable, cells: list[tuple[int, int]]) -> str:
    """The table's unit, '' where it may not be the cells': "Shares in thousands" is none of a price."""
    unit = named.table.unit
    names = [f"{named.table.rows[r].label} {_without_dates(named, c)}" for r, c in cells]
    noun = re.match(r"(share|option|employee|number)", unit, re.IGNORECASE)
    if noun:
        return unit if all(noun[1].casefold() in name.casefold() for name in names) else ""
    return "" if any(OTHER_UNIT.search(name) for name in names) and "except" not in unit else unit


def _digits(*tables: NamedTable) -> str:
    """How to write the number; mentions signs wherever the tables show parentheses or minus signs."""
    signed = any(
        (value := number_of(cell.text)) is not None and value < 0
        for named in tables
        for row in named.table.rows
        for cell in row.cells
    )
    negative = "; a number in parentheses is negative" if signed else ""
    return f"Write plain digits, without thousands separators, currency signs or percent signs{negative}."


def _format_of(answer: str) -> str:
    return "Float" if "." in answer else "Integer"


def _draft(
    pattern: str,
    named: NamedTable,
    cells: list[tuple[int, int]],
    answer: str,
    fields: dict[str, str],
    key: tuple[str, ...],
) -> Draft:
    return Draft(
        pattern=pattern,
        fields={"table": named.name, **fields},
        answer=answer,
        answer_format=_format_of(answer),
        evidence=tuple(named.evidence(r, c) for r, c in cells),
        anchor=named.anchor,
        names_pages=named.names_page,
        key=key,
    )


def _row(named: NamedTable, row: int) -> str:
    return quoted(named.table.rows[row].label)


def _column(named: NamedTable, column: int) -> str:
    return quoted(named.table.columns[column])


def _value(named: NamedTable, row: int, column: int) -> Decimal:
    value = number_of(named.cell(row, column))
    assert value is not None
    return value


def lookup(index: DocumentIndex, segment: Segment, rng: random.Random) -> Iterator[Draft]:
    """The number in one row and one column."""
    for named in _tables(index, segment, rng):
        for row, column in _cells(named, rng):
            yield _draft(
                "table-lookup",
                named,
                [(row, column)],
                plain(_value(named, row, column)),
                {
                    "row": _row(named, row),
                    "column": _column(named, column),
                    "unit": _unit(named, [(row, column)]),
                    "digits": _digits(named),
                },
                ("lookup", key_of(named.table.rows[row].label), key_of(named.table.columns[column])),
            )


def lookup_two(index: DocumentIndex, segment: Segment, rng: random.Random) -> Iterator[Draft]:
    """Two numbers from two tables on different pages."""
    tables = _tables(index, segment, rng)
    for a, b in shuffled([p for p in itertools.combinations(tables, 2) if p[0].page.index != p[1].page.index], rng):
        first, second = (a, b) if a.page.index < b.page.index else (b, a)
        for (r1, c1), (r2, c2) in zip(_cells(first, rng)[:3], _cells(second, rng)[:3], strict=False):
            values = [plain(_value(first, r1, c1)), plain(_value(second, r2, c2))]
            yield Draft(
                pattern="table-lookup-two",
                fields={
                    "table": first.name,
                    "row": _row(first, r1),
                    "column": _column(first, c1),
                    "unit": _inline_unit(first, (r1, c1)),
                    "table2": second.name,
                    "row2": _row(second, r2),
                    "column2": _column(second, c2),
                    "unit2": _inline_unit(second, (r2, c2)),
                    "digits": _digits(first, second),
                },
                answer='["' + '", "'.join(values) + '"]',
                answer_format="List",
                evidence=(first.evidence(r1, c1), second.evidence(r2, c2)),
                anchor=f"{first.anchor}; {second.anchor}",
                names_pages=first.names_page or second.names_page,
                key=("lookup-two", first.table.rows[r1].label, second.table.rows[r2].label),
            )


def _year_pairs(named: NamedTable) -> list[tuple[int, int]]:
    """Pairs of columns, the later year first, whose headers differ in nothing but one year."""
    pairs = []
    for a, b in itertools.permutations(_columns(named), 2):
        one, two = named.table.columns[a], named.table.columns[b]
        years = [re.findall(r"(?:19|20)\d\d", name) for name in (one, two)]
        same_words = re.sub(r"(?:19|20)\d\d", "", one) == re.sub(r"(?:19|20)\d\d", "", two)
        if same_words and len(years[0]) == len(years[1]) == 1 and years[0] > years[1] and not CHANGE.search(one):
            pairs.append((a, b))
    return pairs


def _same_kind(*texts: str) -> bool:
    """All percentages or none, and as many decimals: "9.09" dollars a share is not "5,349" millions."""
    percent = {"%" in t for t in texts}
    decimals = {len(re.sub(r"[^\d.]", "", t).partition(".")[2]) for t in texts}
    return len(percent) == 1 and len(decimals) == 1


def _printed(named: NamedTable, value: Decimal) -> bool:
    """Whether the table prints the number anywhere: then it would be read, not computed."""
    return any(
        (other := number_of(cell.text)) is not None and abs(other) == abs(value)
        for row in named.table.rows
        for cell in row.cells
    )


def _year_cells(
    index: DocumentIndex, segment: Segment, rng: random.Random
) -> Iterator[tuple[NamedTable, int, int, int]]:
    for named in _tables(index, segment, rng):
        choices = [(r, a, b) for a, b in _year_pairs(named) for r in named.rows]
        for row, later, earlier in shuffled(choices, rng)[:MAX_PER_TABLE]:
            usable = named.usable(row, later) and named.usable(row, earlier)
            if usable and _same_kind(named.cell(row, later), named.cell(row, earlier)):
                yield named, row, later, earlier


def difference_columns(index: DocumentIndex, segment: Segment, rng: random.Random) -> Iterator[Draft]:
    """One row, two years: the signed difference."""
    for named, row, later, earlier in _year_cells(index, segment, rng):
        result = _value(named, row, later) - _value(named, row, earlier)
        if result and not _printed(named, result):
            cells = [(row, later), (row, earlier)]
            yield _draft(
                "difference-columns",
                named,
                [(row, later), (row, earlier)],
                plain(result),
                {
                    "row": _row(named, row),
                    "column": _column(named, later),
                    "column2": _column(named, earlier),
                    "unit": _unit(named, cells, difference=True),
                    "digits": _digits(named),
                },
                (
                    "years",
                    key_of(named.table.rows[row].label),
                    named.table.columns[later],
                    str(named.page.index),
                ),
            )


def percent_change(index: DocumentIndex, segment: Segment, rng: random.Random) -> Iterator[Draft]:
    """One row of positive values, two years: the change in percent, rounded to one decimal place."""
    for named, row, later, earlier in _year_cells(index, segment, rng):
        new, old = _value(named, row, later), _value(named, row, earlier)
        if "%" in named.cell(row, later) or new <= 0 or old <= 0 or new == old:
            continue
        exact = (new - old) * 100 / old
        result = exact.quantize(Decimal("0.1"), ROUND_HALF_UP)
        borderline = abs(abs(exact - result) - Decimal("0.05")) < Decimal("0.0005")
        if (
            borderline
            or not result
            or abs(result) > 500
            or _printed(named, result)
            or _printed(named, Decimal(round(exact)))
        ):
            continue
        yield _draft(
            "percent-change",
            named,
            [(row, later), (row, earlier)],
            plain(result),
            {
                "row": _row(named, row),
                "column": _column(named, later),
                "column2": _column(named, earlier),
                "rounding": "Answer with the number of percent, rounded to one decimal place, negative for a decrease.",
            },
            ("years", key_of(named.table.rows[row].label), named.table.columns[later], str(named.page.index)),
        )


def _row_pairs(named: NamedTable) -> list[tuple[int, int]]:
    """Rows near each other in one group, both in the table's unit."""
    if not SCALE.search(named.table.unit):
        return []
    rows = [r for r in named.rows if not OTHER_UNIT.search(named.table.rows[r].label)]
    return [
        (a, b)
        for a, b in itertools.combinations(rows, 2)
        if b - a <= 5 and _group(named, a) == _group(named, b) and "%" not in named.cell(a, 0) + named.cell(b, 0)
    ]


def _group(named: NamedTable, row: int) -> str:
    return named.table.rows[row].label.rpartition(PARENT)[0]


def _row_cells(
    index: DocumentIndex, segment: Segment, rng: random.Random
) -> Iterator[tuple[NamedTable, int, int, int]]:
    for named in _tables(index, segment, rng):
        columns = [
            c
            for c in _columns(named)
            if not CHANGE.search(named.table.columns[c]) and not OTHER_UNIT.search(_without_dates(named, c))
        ]
        for (a, b), column in shuffled(list(itertools.product(_row_pairs(named), columns)), rng)[:MAX_PER_TABLE]:
            texts = named.cell(a, column), named.cell(b, column)
            if named.usable(a, column) and named.usable(b, column) and _same_kind(*texts) and "%" not in texts[0]:
                yield named, a, b, column


def _without_dates(named: NamedTable, column: int) -> str:
    """A column's name without "Year ended ...", which is no unit."""
    return re.sub(r"\b(?:fiscal )?years?,? (?:ended|ending)\b", "", named.table.columns[column], flags=re.IGNORECASE)


def difference_rows(index: DocumentIndex, segment: Segment, rng: random.Random) -> Iterator[Draft]:
    """One column, two rows: the signed difference."""
    for named, a, b, column in _row_cells(index, segment, rng):
        result = _value(named, a, column) - _value(named, b, column)
        if result and not _printed(named, result):
            yield _rows_draft("difference-rows", named, a, b, column, result)


def sum_rows(index: DocumentIndex, segment: Segment, rng: random.Random) -> Iterator[Draft]:
    """One column, two rows that are no totals: the sum."""
    for named, a, b, column in _row_cells(index, segment, rng):
        labels = named.table.rows[a].label + named.table.rows[b].label
        result = _value(named, a, column) + _value(named, b, column)
        if result and not AGGREGATE.search(labels) and not _printed(named, result):
            yield _rows_draft("sum-rows", named, a, b, column, result)


def _rows_draft(pattern: str, named: NamedTable, a: int, b: int, column: int, result: Decimal) -> Draft:
    labels = sorted((key_of(named.table.rows[a].label), key_of(named.table.rows[b].label)))
    return _draft(
        pattern,
        named,
        [(a, column), (b, column)],
        plain(result),
        {
            "row": _row(named, a),
            "row2": _row(named, b),
            "column": _column(named, column),
            "unit": _unit(named, [(a, column), (b, column)]),
            "digits": _digits(named),
        },
        ("rows", *labels, str(named.page.index)),
    )


def _full_columns(named: NamedTable) -> list[int]:
    """Columns of a whole table of one kind in which every row shows a number."""
    table = named.table
    if not table.whole or len(table.rows) < 4 or len(named.rows) < len(table.rows):
        return []
    if any(OTHER_UNIT.search(row.label) for row in table.rows):
        return []
    full = []
    for column in _columns(named):
        texts = [row.cells[column].text for row in table.rows]
        numbers = all(number_of(t) is not None for t in texts)
        if numbers and _same_kind(*texts) and not CHANGE.search(table.columns[column]):
            full.append(column)
    return full


def rows_above(index: DocumentIndex, segment: Segment, rng: random.Random) -> Iterator[Draft]:
    """How many rows exceed a round threshold."""
    for named in _tables(index, segment, rng):
        for column in shuffled(_full_columns(named), rng):
            values = [_value(named, r, column) for r in range(len(named.table.rows))]
            threshold = _threshold(values)
            if threshold is None:
                continue
            percent = "%" if "%" in named.cell(0, column) else ""
            yield _draft(
                "rows-above",
                named,
                [(r, column) for r in range(len(values))],
                str(sum(v > threshold for v in values)),
                {
                    "column": _column(named, column),
                    "threshold": f"{threshold:,f}{percent}",
                    "unit": "" if percent else _unit(named, [(0, column)]).replace(" Keep", " Use"),
                },
                ("above", named.name, named.table.columns[column]),
            )


def _threshold(values: list[Decimal]) -> Decimal | None:
    """A positive round number well inside a gap near the middle of the values, None where there is none."""
    ordered = sorted(set(values), reverse=True)
    gaps = [(hi, lo) for hi, lo in itertools.pairwise(ordered) if hi > 0]
    middle = len(gaps) // 2
    for hi, lo in sorted(gaps, key=lambda g: abs(gaps.index(g) - middle)):
        for power in (5, 4, 3, 2, 1, 0):
            step = Decimal(10) ** power
            candidate = (max(lo, Decimal(0)) // step + 1) * step
            if lo < candidate < hi and candidate not in values:
                return candidate
    return None


def rows_increased(index: DocumentIndex, segment: Segment, rng: random.Random) -> Iterator[Draft]:
    """In how many rows one year's number exceeds another's."""
    for named in _tables(index, segment, rng):
        full = _full_columns(named)
        for later, earlier in shuffled([p for p in _year_pairs(named) if p[0] in full and p[1] in full], rng):
            rows = range(len(named.table.rows))
            yield _draft(
                "rows-increased",
                named,
                [(r, c) for r in rows for c in (later, earlier)],
                str(sum(_value(named, r, later) > _value(named, r, earlier) for r in rows)),
                {"column": _column(named, later), "column2": _column(named, earlier)},
                ("increased", named.name, named.table.columns[later]),
            )


def range_column(index: DocumentIndex, segment: Segment, rng: random.Random) -> Iterator[Draft]:
    """The largest value of a column minus its smallest."""
    for named in _tables(index, segment, rng):
        for column in shuffled(_full_columns(named), rng):
            values = [_value(named, r, column) for r in range(len(named.table.rows))]
            low, high = values.index(min(values)), values.index(max(values))
            result = values[high] - values[low]
            if result and not _printed(named, result):
                yield _draft(
                    "range-column",
                    named,
                    [(high, column), (low, column)],
                    plain(result),
                    {
                        "column": _column(named, column),
                        "unit": _unit(named, [(high, column)], difference=True),
                        "digits": _digits(named),
                    },
                    ("range", named.name, named.table.columns[column]),
                )
