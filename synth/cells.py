"""Does an answer stand in the cell of a table that its question names?

A table is full of numbers, so that one of them stands on the page proves little: it must stand in the row, and in the
column, that the question names. Tables come from the strict reader where it believes one, else from lines that look
like rows. Precision before recall: a header that is not understood, a row of another length, words that fit two rows
leave more cells than one, and any of them will do; where the question names no row, its quotes may; where they do not
either, nothing is said.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from corpus.blocks import flatten
from corpus.layout import center
from corpus.layout import contains as box_contains
from corpus.records import Page
from corpus.table_words import PARENT
from synth.grounding import CJK, SCALE_WORDS, contains, joined, tokens
from synth.labels import LABEL, PAGES, label_key
from synth.quantities import Quantity, dates, folded, quantities
from synth.stems import pairs, words_of
from synth.wording import QUOTED

MIN_ROWS = 2
MAX_ROWS = 500  # of a table; further ones are not read
HEADER_LINES = 3  # a header ends within so many lines
MAX_LABEL_WORDS = 12  # of a line of text that is taken for a row
MAX_TITLE_CHARS = 160
UNIT_NOTE = re.compile(r"\([^()]*\)")
YEARS = re.compile(r"(?<!\d)(?:19|20)\d\d(?:[/-]\d\d(?!\d))?(?!\d)")
OTHER_YEAR = re.compile(  # a year that is told from another
    r"\b(?:previous|preceding|prior|following|next|last|earlier|later) (?:\w+ )?years?\b"
    r"|\byears? (?:before|earlier|after|later|ago)\b|\b(?:before|after|since|until) (?:19|20)\d\d"
    r"|上一?年|去年|前一?年|次年|翌年|后一?年|年[以之][前后]",
    re.IGNORECASE,
)
ANOTHER = re.compile(
    r"\b(?:another|(?:one|the|that|two|which|what) other)(?! than| kinds?)\b"
    r"|其[他它余]的?那?[一两]?[个项家台笔]|另[一外]",
    re.IGNORECASE,
)
OTHER_ROW = re.compile(  # a row that is told from the one that is named
    r"\b(?:an)?other\b|\bapart from\b|\bexcept\b|\bbesides\b|\belse\b|\bexcluding\b|\bbut not\b"
    r"|\b(?:next|directly|right|just|immediately) (?:to|after|before|above|below|behind)\b"
    r"|其他|其它|其余|另外?[一二两]?|除了?(?!尘|草|湿|氧|磷|氮)|之外|以外|不含|相邻|紧接",
    re.IGNORECASE,
)
PERCENT = re.compile(r"%|\b(?:per ?cent|percentage|share|proportion|rate)\b|百分|占比|比例|比重|率", re.IGNORECASE)
ASKS_PERCENT = re.compile(
    r"\b(?:what|which) (?:percentage|share|proportion)\b|\bhow many per ?cent\b"
    r"|百分之(?:几|多少)|比例[是为](?:多少|几)",
    re.IGNORECASE,
)
TOTAL_LABEL = re.compile(r"\b(?:total|sum|all)\b|合计|总计|小计|共计", re.IGNORECASE)
MAX_COLUMNS = 12  # of a table whose total is looked into
NUMBER_CELL = re.compile(r"[-(+$€£¥−–]*\d[\d,.]*[%)]*")


@dataclass(frozen=True, slots=True)
class Row:
    """`cells` without the label, which may be a group's name, `PARENT` and its own."""

    label: str
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """A table. `columns`: the header of each cell of a row as long as it is, () where headers cannot be told."""

    name: str  # of the caption or heading above it
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def placed(self, row: Row) -> tuple[tuple[str, str], ...]:
        """Cells with their headers, '' where the column of a cell cannot be told."""
        columns = self.columns if len(row.cells) == len(self.columns) else self._columns_of_total(row)
        return tuple(zip(row.cells, columns or [""] * len(row.cells), strict=True))

    def _columns_of_total(self, row: Row) -> tuple[str, ...]:
        """The headers of a total that leaves cells empty: those of the columns that add up to it; () where unclear."""
        wanted = [_only_number(c) for c in row.cells]
        others = [r.cells for r in self.rows if len(r.cells) == len(self.columns)]
        if not others or not TOTAL_LABEL.search(row.label) or not 0 < len(wanted) < len(self.columns) <= MAX_COLUMNS:
            return ()
        sums = [
            sum((_only_number(c) or Decimal(0) for c in column), Decimal(0)) for column in zip(*others, strict=True)
        ]
        fitting = [
            places
            for places in itertools.combinations(range(len(self.columns)), len(wanted))
            if all(w is not None and w == sums[i] for w, i in zip(wanted, places, strict=True))
        ]
        return tuple(self.columns[i] for i in fitting[0]) if len(fitting) == 1 else ()


def _only_number(cell: str) -> Decimal | None:
    """The value of a cell that is one number; None where it is none or several."""
    found = quantities(folded(cell))
    return found[0].value if len(found) == 1 and _bare(cell) else None


# ------------------------------------------------------------------------------------------------------------ reading


def grids(page: Page) -> list[Grid]:
    """The tables of a page: those of the strict reader, and blocks whose lines look like rows."""
    found = [
        Grid(
            name=t.anchor,
            columns=t.columns,
            rows=tuple(Row(r.label, tuple(c.text for c in r.cells)) for r in t.rows[:MAX_ROWS]),
        )
        for t in page.tables
    ]
    name = ""
    for i, block in enumerate(page.blocks):
        if any(box_contains(t.box, center(block.box)) for t in page.tables):
            continue
        caption = next((b.text for b in page.blocks if b.kind == "caption" and b.target == i), "")
        if grid := _grid(flatten(caption) or name, block.text.split("\n")):
            found.append(grid)
        elif block.text and (block.kind in ("heading", "title", "caption") or LABEL.match(folded(block.text))):
            name = flatten(block.text)[:MAX_TITLE_CHARS]
    return found


def looks_like_rows(text: str) -> bool:
    """Whether the lines of a block are those of a table."""
    return _grid("", text.split("\n")) is not None


def _grid(name: str, lines: Sequence[str]) -> Grid | None:
    """Lines as a table, None where they are none: most of them must have the same number of cells."""
    split = [_split(line) for line in lines[:MAX_ROWS]]
    lengths = Counter(len(cells) for cells in split if len(cells) > 1)
    if not lengths:
        return None
    width, often = max(lengths.items(), key=lambda item: (item[1], item[0]))
    if often < MIN_ROWS or 2 * often < len(split):
        return None
    head = next((i for i, cells in enumerate(split[:HEADER_LINES]) if _is_header(cells, width)), None)
    body = split[head + 1 :] if head is not None else split
    rows = tuple(Row(cells[0].strip(), tuple(c.strip() for c in cells[1:])) for cells in body if len(cells) > 1)
    return Grid(name, tuple(split[head][1 - width :]) if head is not None else (), rows)


def _split(line: str) -> list[str]:
    """The cells of a line; numbers that stand in one piece are apart, and so is the label before them."""
    pieces = line.split("\t")
    if len(pieces) == 1:
        words = line.split()
        numbers = list(itertools.takewhile(NUMBER_CELL.fullmatch, reversed(words)))[::-1]
        label = " ".join(words[: len(words) - len(numbers)])
        told = any(c.isalpha() for c in label) and len(tokens(label)) <= MAX_LABEL_WORDS
        return [label, *numbers] if told else [line]
    cells: list[str] = []
    for piece in pieces:
        numbers = piece.split()
        apart = len(numbers) > 1 and all(NUMBER_CELL.fullmatch(n) for n in numbers)
        cells += numbers if apart else [piece]
    return cells


def _is_header(cells: Sequence[str], width: int) -> bool:
    """A header has a cell for every column, or for every one but that of the labels, where it ends with a year."""
    if any(not q.is_year for cell in cells for q in quantities(UNIT_NOTE.sub(" ", folded(cell))) if _bare(cell)):
        return False
    return len(cells) == width or (len(cells) == width - 1 > 1 and bool(YEARS.search(cells[-1])))


def _bare(cell: str) -> bool:
    """Whether a cell is a number and no words, so that it is data."""
    return not any(c.isalpha() for c in cell)


# ------------------------------------------------------------------------------------------------------------ naming


@dataclass(frozen=True, slots=True)
class Asked:
    """What a question says about rows and columns, without the titles that it names."""

    text: str
    key: str  # the text as `joined`
    words: frozenset[str]
    years: frozenset[str]
    labels: frozenset[tuple[str, str]]  # ("table", "2-1")

    @classmethod
    def of(cls, question: str, anchor: str, names: Sequence[str]) -> Asked:
        """`names`: titles of the tables that may be meant."""
        whole = folded(question)
        text = whole
        for title in (*names, *re.split("[;；]", anchor)):
            text = _without(text, title)
        text = QUOTED.sub(lambda m: " " if LABEL.search(m[0]) else m[0], text)
        text = LABEL.sub(" ", PAGES.sub(" ", text))
        labels = {label_key(m) for m in LABEL.finditer(f"{whole} ; {folded(anchor)}")}
        years = frozenset() if OTHER_YEAR.search(text) else frozenset(YEARS.findall(text))
        return cls(
            text,
            joined(tokens(text)),
            words_of(text),
            years,
            frozenset(k for k in labels if k[0] in ("table", "tab.", "exhibit")),
        )

    def names(self, label: str) -> bool:
        """Whether all of a label's words are said: Chinese ones and numbers one after another, others anywhere."""
        bare = UNIT_NOTE.sub(" ", folded(label))
        words = words_of(bare)
        if not re.search(rf"[\d{CJK}]", bare):
            return bool(words) and words <= self.words
        parts = bare.split(PARENT.strip())
        return bool(words) and all(_key(p) in self.key and contains(self.text, p) for p in parts)

    def hints(self, label: str, said: frozenset[str]) -> bool:
        """Whether half of a label's words are said, those aside that are `said` by another label."""
        bare = UNIT_NOTE.sub(" ", folded(label))
        words = pairs(bare) if re.search(f"[{CJK}]", bare) else words_of(bare)
        own = pairs(self.text) | self.words
        return bool(words) and 2 * len(words & own - said) >= len(words)


def _without(text: str, title: str) -> str:
    """A text without a title of several words; a title of one may be the name of a row."""
    bare = UNIT_NOTE.sub(" ", folded(title))
    for part in (title, bare, LABEL.sub(" ", bare)):
        words = tokens(part)
        if len(words) > (3 if re.search(f"[{CJK}]", part) else 1):
            text = re.sub(r"[\W_]*".join(map(re.escape, words)), " ", text, flags=re.IGNORECASE)
    return text


def named_rows(grid: Grid, asked: Asked) -> list[Row]:
    """The rows whose labels the question says, and those that may be meant beside them; [] where it says none."""
    named = [r for r in grid.rows if asked.names(r.label)]
    named = [r for r in named if not any(_within(r.label, o.label) for o in named)]
    if not named:
        named = [r for r in grid.rows if any(_telling(c) and asked.names(c) for c in r.cells)]
        return named
    said = frozenset[str]().union(*(pairs(r.label) | words_of(r.label) for r in named))
    return [r for r in grid.rows if r in named or asked.hints(r.label, said) or _spoken_within(named, r)]


def _within(label: str, other: str) -> bool:
    """Whether a label is a part of another: Total of Total assets."""
    return words_of(label) < words_of(other) or (tokens(label) != tokens(other) and contains(other, label))


def _spoken_within(named: Sequence[Row], row: Row) -> bool:
    return any(_within(r.label, row.label) for r in named)


def _telling(cell: str) -> bool:
    return sum(c.isalpha() for c in cell) > 1


def quoted_rows(grid: Grid, quotes: Sequence[str]) -> list[Row]:
    """The rows that quotes are taken from; they may leave out the name of a group."""
    return [row for row in grid.rows if any(is_quoted(row, q) for q in quotes)]


def is_quoted(row: Row, quote: str) -> bool:
    """Whether a quote holds the label of a row and some of its cells, and no number of anything else."""
    own = folded(row.label.split(PARENT)[-1])
    labels = [label for label in (own, UNIT_NOTE.sub(" ", own)) if _key(label) in _key(quote)]
    if not any(contains(quote, label) for label in labels):
        return False
    words = Counter(w for text in (row.label, *row.cells) for w in tokens(text))
    said = Counter(w for w in tokens(quote) if w[0].isdecimal())
    return not said - words and any(contains(quote, c) for c in row.cells)


@lru_cache(maxsize=10_000)
def _key(text: str) -> str:
    return joined(tokens(text))


def column_names(grid: Grid, asked: Asked) -> set[str]:
    """The headers that the question may mean; all where it names none."""
    columns = set(grid.columns)
    if ASKS_PERCENT.search(asked.text) and not PERCENT.search(grid.name):
        columns = {c for c in columns if PERCENT.search(c)} or columns
    if agreeing := {c for c in columns if asked.years & set(YEARS.findall(c))}:
        columns = agreeing | {c for c in columns if not YEARS.search(c)}
    named = {c for c in columns if asked.names(_without_years(c) or c)}
    named = {c for c in named if not any(_within(c, o) for o in named)}
    if not named:
        return agreeing or columns
    said = frozenset[str]().union(*(pairs(c) | words_of(c) for c in named))
    percent = bool(PERCENT.search(asked.text)) and not any(PERCENT.search(c) for c in named)
    return {c for c in columns if c in named or asked.hints(c, said) or (percent and PERCENT.search(c))}


def _without_years(header: str) -> str:
    return YEARS.sub(" ", header).replace("年", " ").strip()


# ----------------------------------------------------------------------------------------------------------- checking


def row_problem(question: str, anchor: str, quotes: Sequence[str], tables: Sequence[Grid]) -> str:
    """Why the quoted rows are others than the one that the question names; '' where they may be right.

    Only the whole label of a row that no quote says, beside a quoted row of the same table that the question says
    nothing of, shows that a quote is taken from a wrong row.
    """
    asked = Asked.of(question, anchor, [t.name for t in tables])
    if OTHER_ROW.search(asked.text):
        return ""
    taken = [(grid, quoted_rows(grid, quotes)) for grid in tables]
    for grid, rows in taken:
        named = [r for r in grid.rows if asked.names(r.label) and not TOTAL_LABEL.search(r.label)]
        named = [r for r in named if not any(_within(r.label, o.label) for o in named)]
        missing = [r for r in named if not any(contains(q, r.label) for q in quotes)]
        said = frozenset[str]().union(*(pairs(r.label) | words_of(r.label) for r in named))
        strange = [
            r
            for r in rows
            if not (asked.names(r.label) or asked.hints(r.label, said) or any(_names_cell(asked, r)))
            and not _spoken_within(named, r)
        ]
        if missing and strange:
            return f'a quote is of "{strange[0].label}", and none of "{missing[0].label}"'
    return ""


def _names_cell(asked: Asked, row: Row) -> Iterator[bool]:
    """Whether a question says the words of a row's cells: a name, a date."""
    return (asked.names(c) for c in row.cells if _telling(c))


def cell_problem(
    item: str, question: str, anchor: str, quotes: Sequence[str], pages: Sequence[Page], tables: Sequence[Grid]
) -> str:
    """Why an answer, or an item of one, is not in the cell that the question names; '' where it may be.

    Args:
        item: a number or a few words.
        question: names rows and columns by the words of their headers.
        anchor: what the question says it is about.
        quotes: of the evidence; they tell the row where the question does not.
        pages: of the evidence; their words name scales ("in millions").
        tables: of these pages.
    """
    text = "\n".join(p.text for p in pages)
    powers = [0, *(power for power, word in SCALE_WORDS if word.search(text))]
    asked = Asked.of(question, anchor, [t.name for t in tables])
    rest = [q for q in quotes if _telling(folded(q)) and not any(quoted_rows(t, [q]) for t in tables)]
    if any(_shows(q, item, powers) for q in rest):
        return ""
    problem = ""
    another = ANOTHER.search(asked.text) is not None
    for grid in tables:
        own = {label_key(m) for m in LABEL.finditer(grid.name)}
        if (asked.labels and own and not own & asked.labels) or _heads(item, grid):
            continue
        sure = bool(own & asked.labels) or (len(tokens(grid.name)) > 1 and contains(question, grid.name))
        taken = quoted_rows(grid, quotes)
        rows = (not another and named_rows(grid, asked)) or taken
        if not rows or not (sure or taken):
            continue
        columns = column_names(grid, asked)
        cells = [(r, *placed) for r in rows for placed in grid.placed(r)]
        if any(_shows(cell, item, powers) for _, cell, header in cells if not header or header in columns):
            return ""
        other = next(
            ((r, header) for r in grid.rows for cell, header in grid.placed(r) if _shows(cell, item, powers)), None
        )
        if other:
            row, header = other
            place = f'"{row.label}"' + (f' under "{header}"' if header else "")
            problem = f'{item!r} stands at {place}, not at "{rows[0].label}"'
            if row in rows:
                problem = f"{item!r} stands at {place}, which is not what is asked for"
    return problem


def _heads(item: str, grid: Grid) -> bool:
    """Whether the answer is the name of a row or column."""
    return any(tokens(item) == tokens(UNIT_NOTE.sub(" ", h)) for h in (*grid.columns, *(r.label for r in grid.rows)))


def _shows(cell: str, item: str, powers: Sequence[int]) -> bool:
    """Whether a cell says an item: its number in any scale, its date, or its words."""
    days = dates(folded(item))
    if days:
        return any(a.parts[1:] == b.parts[1:] for a in days for b in dates(folded(cell)))
    wanted, shown = quantities(folded(item)), quantities(folded(cell))
    if len(wanted) == 1 and not _telling(folded(item)[: wanted[0].start] + folded(item)[wanted[0].end :]):
        return any(_same(wanted[0], s, powers) for s in shown)
    return contains(cell, item) or (_telling(cell) and contains(item, cell))


def _same(wanted: Quantity, shown: Quantity, powers: Sequence[int]) -> bool:
    a, b = abs(wanted.value), abs(shown.value)
    return any(b.scaleb(p) == a or b == a.scaleb(p) for p in powers) or Decimal(a).scaleb(-wanted.power) == b
