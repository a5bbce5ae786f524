"""Column headers of a table: which phrases above the numbers name which column.

A phrase names the column it stands over; a phrase over several columns names those of the rule directly
beneath it, and without such a rule the table is refused. Rules were the only sign that decided rightly in
every table seen.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect
from collections.abc import Iterable, Sequence

from corpus.layout import center, union
from corpus.records import Box
from corpus.table_names import clean, unit_of
from corpus.table_words import FOOTNOTE, PARENT, YEAR, TextRow, Token, require

# A stub that belongs to the header rather than being a row's name: "Years ended December 31".
CONTEXT = re.compile(r"\b(?:(?:19|20)\d\d|ended|percent|millions|thousands|fiscal|quarter)\b", re.IGNORECASE)


def headers(
    head: Sequence[TextRow], rules: Iterable[Box], columns: Sequence[Box], limits: Sequence[float], em: float
) -> tuple[list[str], list[Box], list[str]]:
    """Full name and box of each column, and the notes (stub, unit line) that belong to none."""
    strokes = _joined(rules, em)
    parts: list[list[tuple[Token, int]]] = [[] for _ in columns]  # phrase, number of columns it covers
    notes: list[str] = []
    middle = (columns[0][0] + columns[-1][2]) / 2
    named_rows = 0
    bottom = max((line.y for line in head), default=0.0)
    for line in head:
        phrases = [p for t in line.tokens for p in _split_at(t, limits, em)]
        over = [p for p in phrases if p.box[2] > limits[0] and center(p.box)[0] > limits[0]]
        stub = [p.text for p in phrases if p not in over]
        named_rows += bool(over) and any(not s.startswith("(") and not CONTEXT.search(s) for s in stub)
        notes += stub
        if len(over) == 1 and _is_unit_line(over[0], limits, em):
            notes.append(over[0].text)
            continue
        taken: set[int] = set()
        for phrase in over:
            covered = _covered(phrase, over, line, head, strokes, columns, limits, em)
            alone = len(over) == 1 and len(covered) == 1 and len(columns) > 1
            require(not (alone and line.y < bottom and abs(center(phrase.box)[0] - middle) < em))
            require(not taken & set(covered))
            taken |= set(covered)
            for i in covered:
                parts[i].append((phrase, len(covered)))
    require(all(parts) and named_rows <= 1)  # a second named row is a row of text values
    names = [_column_name(part) for part in parts]
    require(all(any(c.isalnum() for c in name) and len(name) <= 120 for name in names))
    folded = [name.casefold() for name in names]
    require(not any(b != a and b.startswith(a) and a.endswith(",") for a in folded for b in folded))
    return names, [union([p.box for p, _ in part]) for part in parts], notes


def _column_name(part: Sequence[tuple[Token, int]]) -> str:
    """The phrases over a column, top down; a phrase over more columns is set off as a group is from its rows."""
    name, width = "", 1
    for token, covers in part:
        text = clean(token.text)
        grouped = covers < width and not YEAR.match(text) and not name.endswith((" ended", " of", " vs."))
        name = f"{name.rstrip(',')}{PARENT}{text}" if grouped else clean(f"{name} {text}")
        width = covers
    return FOOTNOTE.sub("", name)


def _is_unit_line(phrase: Token, limits: Sequence[float], em: float) -> bool:
    """A lone "(in thousands)" across a column border, or over the middle one of an odd number of columns."""
    if not re.fullmatch(r"\(.*\)", phrase.text) or not unit_of([phrase.text], "", ""):
        return False
    crosses = any(phrase.box[0] < x - 0.3 * em and phrase.box[2] > x + 0.3 * em for x in limits[1:-1])
    num_columns = len(limits) - 1
    return crosses or (num_columns % 2 == 1 and bisect(limits, center(phrase.box)[0]) - 1 == num_columns // 2)


def _split_at(token: Token, limits: Sequence[float], em: float) -> list[Token]:
    """Cut a phrase where a column border falls into a gap that is wider than its other gaps."""
    words = token.words
    gaps = [b.box[0] - a.box[2] for a, b in itertools.pairwise(words)]
    for i, gap in enumerate(gaps):
        left, right = words[i].box[2], words[i + 1].box[0]
        others = gaps[:i] + gaps[i + 1 :]
        if any(left - 1 <= x <= right + 1 for x in limits) and gap >= 0.3 * em and gap > 1.4 * max(others, default=0):
            halves = [Token(w, union([x.box for x in w]), False) for w in (words[: i + 1], words[i + 1 :])]
            return [p for h in halves for p in _split_at(h, limits, em)]
    return [token]


def _covered(
    phrase: Token,
    row: Sequence[Token],
    line: TextRow,
    head: Sequence[TextRow],
    strokes: Sequence[Box],
    columns: Sequence[Box],
    limits: Sequence[float],
    em: float,
) -> list[int]:
    """The columns that a header phrase names: those of the rule directly beneath it, else the one it stands over."""
    x, _ = center(phrase.box)
    bottom = phrase.box[3]
    end = max(h.y for h in head) + em
    below = sorted((s for s in strokes if s[0] <= x <= s[2] and bottom - 0.3 * em <= s[1] <= end), key=lambda s: s[1])
    if below:
        stroke = below[0]
        under = [i for i, c in enumerate(columns) if stroke[0] - 1 <= center(c)[0] <= stroke[2] + 1]
        between = [h for h in head if line.y <= h.y < stroke[1]]
        lone = all(
            sum(stroke[0] <= center(t.box)[0] <= stroke[2] for t in (row if h is line else h.tokens)) <= 1
            for h in between
        )
        if len(under) > 1 and lone:
            covered_x = (stroke[0] + stroke[2]) / 2
            require(abs(x - covered_x) < max(2 * em, 0.12 * (stroke[2] - stroke[0])))
            return under
    at = bisect(limits, x) - 1
    require(phrase.box[0] >= limits[at] - 0.4 * em and phrase.box[2] <= limits[at + 1] + 0.4 * em)
    return [at]


def _joined(rules: Iterable[Box], em: float) -> list[Box]:
    """Strokes that touch on one height become one: a rule is often drawn cell by cell."""
    joined: list[Box] = []
    for box in sorted(rules, key=lambda r: (round(r[1]), r[0])):
        last = joined[-1] if joined else None
        if last is not None and abs(last[1] - box[1]) < 1.5 and box[0] <= last[2] + 1 and box[0] >= last[0] - 1:
            joined[-1] = union([last, box])
        else:
            joined.append(box)
    return joined
