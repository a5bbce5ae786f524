"""The numbers of a quote, each with the words that say what it is.

A quote from a table is looked up in it, so that the digit of a row's name is no number and each cell has its header;
in a sentence a number belongs to the words of its clause.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from synth.cells import UNIT_NOTE, Grid, Row, is_quoted
from synth.grounding import CJK, STOP_WORDS, tokens
from synth.labels import without_names
from synth.quantities import Quantity, dates, folded, quantities
from synth.stems import pairs, words_of

CODE = re.compile(
    r"(?<![\w.])[A-Za-z]{0,9}\d{1,9}(?:-[A-Za-z]{0,9}\d{1,9}){1,3}[A-Za-z]{0,9}(?![\w.]\d)"
    r"|(?<![\w.])[A-Z]{1,6}-\d{1,5}[A-Za-z]{0,2}(?![\w.]\d)"
)
NUMBERING = re.compile(r"^\d{1,2}(?:(?:\.\d{1,2})+[.)]?|[.)]) (?=\D)")
YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")
CLAUSE = re.compile(r"[,，;；。:：()（）、|\t]|(?<!\d)\.|\.(?!\d)|其中| of whom | of which ")


@dataclass(frozen=True, slots=True)
class Operand:
    """`near` and `far`: the words on the side of the number where its noun stands, and those on the other."""

    number: Quantity
    near: str
    far: str = ""
    header: str = ""
    digits: frozenset[str] = frozenset()  # of its cell, as words

    @property
    def year(self) -> int:
        """Of the header, 0 where it names none."""
        found = YEAR.search(self.header)
        return int(found[0]) if found else 0

    def likeness(self, phrase: str) -> int:
        """How many words of a phrase say what this number is; those beside its noun's place count twice."""
        wanted = _terms(YEAR.sub(" ", phrase))
        return 2 * len(wanted & _terms(self.near)) + len(wanted & _terms(self.far) - _terms(self.near))


def _terms(text: str) -> frozenset[str]:
    """Words, and Chinese characters two by two, or the only one."""
    return pairs(text) if re.search(f"[{CJK}]", text) else words_of(text)


def operands(quote: str, tables: Sequence[Grid], with_years: bool) -> list[Operand]:
    """The numbers of a quote in their order; years only where they are asked for."""
    for grid in tables:
        for row in grid.rows:
            if is_quoted(row, quote):
                said = _digits(quote)
                if found := [o for o in of_row(grid, row, with_years) if said >= o.digits]:
                    return found
    return _of_text(quote, with_years)


def of_row(grid: Grid, row: Row, with_years: bool = False) -> list[Operand]:
    """The cells of a row that are one number each."""
    found = []
    for cell, header in grid.placed(row):
        numbers = _numbers_of(cell, with_years)
        if len(numbers) == 1 and not dates(folded(cell)):
            unit = "".join(UNIT_NOTE.findall(folded(header)))
            found.append(Operand(numbers[0], f"{header} {unit}", row.label, header, _digits(cell)))
    return found


def _digits(text: str) -> frozenset[str]:
    return frozenset(w for w in tokens(text) if w[0].isdecimal())


def _numbers_of(text: str, with_years: bool) -> list[Quantity]:
    """The numbers of a text without those of names and codes."""
    return [q for q in quantities(_cleaned(text)) if with_years or not q.is_year]


def _cleaned(text: str) -> str:
    text = without_names(folded(text))
    first = next(iter(quantities(text)), None)
    numbered = not first or first.start or not (first.unit or first.power)  # 1.4 GWh is no number of a section
    return CODE.sub(" ", NUMBERING.sub("", text) if numbered else text)


def _of_text(quote: str, with_years: bool) -> list[Operand]:
    text = _cleaned(quote)
    every = quantities(text)
    days = [d for d in dates(text) if d.month]
    found = []
    for i, q in enumerate(every):
        dated = any(d.start <= q.start < d.end for d in days)
        if not with_years if q.is_year else dated:
            continue
        before = text[every[i - 1].end if i else 0 : q.start]
        after = text[q.end : every[i + 1].start if i + 1 < len(every) else len(text)]
        own = text[q.start : q.end].lstrip("0123456789,. ")
        before, after = CLAUSE.split(before)[-1], CLAUSE.split(after)[0]
        chinese = re.search(f"[{CJK}]", before + own + after) is not None
        near, far = (before + own, after) if chinese else (f"{own} {_noun(after)}", before)
        found.append(Operand(q, near, far))
    return found


def _noun(text: str) -> str:
    """The first words of a text, which name what a number before it counts."""
    words = text.split()
    end = next((i for i, w in enumerate(words) if i and w.casefold() in STOP_WORDS), len(words))
    return " ".join(words[: min(end, 4)])


def header_of(quote: str, count: int, texts: Sequence[str]) -> list[str]:
    """Names of the columns that the `count` numbers of a quoted row stand in, [] where no table tells."""
    wanted = _digits(quote)
    for lines in (block.split("\n") for text in texts for block in text.split("\n\n") if wanted):
        row = next((i for i, line in enumerate(lines) if i and wanted <= set(tokens(line))), 0)
        for line in lines[:row]:
            found = quantities(UNIT_NOTE.sub(" ", folded(line)))
            cells = [c for c in line.split("\t") if c.strip()]
            if not all(q.is_year for q in found):
                continue
            if len(found) == count > 1 and len({q.value for q in found}) == count and len(cells) < count:
                return [str(q.value) for q in found]
            if len(cells) in (count, count + 1):
                return cells[-count:]  # without the name of the rows
            if len(cells) > count and all(YEAR.search(c) for c in cells[-count:]):
                return cells[-count:]  # a cell before the first year is empty in this row
    return []


def with_headers(row: Sequence[Operand], quote: str, texts: Sequence[str]) -> list[Operand]:
    """The numbers of a quote with the headers of the row of a table that it repeats."""
    if any(o.header for o in row):
        return list(row)
    names = header_of(quote, len(row), texts)
    return [replace(o, header=n, near=f"{n} {o.near}") for o, n in zip(row, names, strict=True)] if names else list(row)


def _opposites(header: str) -> set[str]:
    """Words that tell a column from its opposite, though they say little elsewhere."""
    return {"with", "from"} & set(tokens(header))


def in_columns(row: Sequence[Operand], years: Sequence[int], asked: str) -> list[Operand]:
    """The numbers of a row in the columns that the question names by their words and years, in the order of years."""
    if not row or not all(o.header for o in row):
        return list(row)
    if any(o.year in years for o in row):
        row = [o for o in row if o.year in years or not o.year]
    own = [words_of(UNIT_NOTE.sub(" ", folded(o.header))) | _opposites(o.header) for o in row]
    words = words_of(asked) | set(tokens(asked)) | {str(y) for y in years}
    named = [o for o, name in zip(row, own, strict=True) if name and name <= words]
    dated = [o for o in row if o.year in years]
    if not named and (
        (len({o.year for o in row}) == len(row) and asked) or len({o.year for o in dated}) == len(dated) > 1
    ):
        named = dated
    if set(years) <= {o.year for o in named}:
        named.sort(key=lambda o: o.year)
    return named or list(row)
