"""Tables whose every number is known to stand in one row and one column; any other table is no table.

What: the words inside a region that the layout model called a table become rows and columns by their own
geometry, and are believed only where every test passes and the model's own grid agrees. Why: a lookup
question with a wrong header teaches the wrong thing, and nobody sees it. PyMuPDF's `find_tables` gave the
right grid for 4 of 25 random regions, its text extraction damages numbers ("122,641" becomes "122641\\n,"),
whereas words in boxes under strict tests gave 48 of 48 values. The trade-off: about half of the regions
yield nothing. A doubt about the grid costs the table; a doubt about a row's label costs the row, and the
table says so (`whole=False`).

A number is a run of words: "$", "(", ")", "%" standing alone belong to the number beside them. A child row
("Basic" under "Earnings per share:") is named `parent + PARENT + child`.
"""

from __future__ import annotations

import itertools
import re
import statistics
from bisect import bisect
from collections import Counter
from collections.abc import Sequence

from corpus.layout import PageLayout, Region, center, contains, rounded, union
from corpus.records import Box, Cell, Table, TableRow
from corpus.table_headers import CONTEXT, headers
from corpus.table_labels import row_labels
from corpus.table_names import anchor_of, clean, unit_of
from corpus.table_words import FOOTNOTE, YEAR, Doubt, TextRow, Token, require, text_rows

LEADERS = re.compile(r"(?:\s*\.){3,}\s*$|(?:\s*[.…·_]){2,}\s*$")
LEADER_WORDS = re.compile(r"[.…·_]+(?: [.…·_]+)*")
REPEATABLE = re.compile(r"%|\bchange|\bvs\b|variance|increase|\(decrease\)", re.IGNORECASE)


def strict_tables(layout: PageLayout) -> tuple[Table, ...]:
    """The tables of a page that pass every test, in the layout's order; () where none does."""
    found = []
    for region in layout.regions:
        if region.label == "table" and region.row_lines and region.column_lines:
            try:
                found.append(_read(layout, region))
            except Doubt:
                continue
    return tuple(found)


def _read(layout: PageLayout, region: Region) -> Table:
    words = [w for w in layout.words if contains(region.box, center(w.box)) and w.text.strip()]
    require(bool(words))
    em = statistics.median(w.box[3] - w.box[1] for w in words)  # height of a line of text
    require(_clear_of_edges(layout, region, em))
    lines = text_rows(words, em)
    start = _body_start(lines, region.column_lines[0])
    head, body = lines[:start], lines[start:]
    columns = _columns(body, em)
    first = min(t.box[0] for line in body for t in line.tokens if t.value)
    _place(body, columns, first, em)
    _agree_with_grid(body, region, len(columns))
    limits = [min(first - 0.5 * em, region.column_lines[0]), *region.column_lines[1:], region.box[2] + 1]
    names, boxes, notes = headers(head, layout.rules, columns, limits, em)
    keep = _unique_columns(names)
    rows, whole = _rows(body, region, len(columns), em)
    require(len(rows) >= 2)
    anchor, anchor_box, lead_in = anchor_of(layout, region, em)
    return Table(
        box=rounded(region.box),
        columns=tuple(names[i] for i in keep),
        column_boxes=tuple(rounded(boxes[i]) for i in keep),
        rows=tuple(
            TableRow(label=r.label, box=r.box, cells=tuple(r.cells[i] for i in keep))
            for r in rows
            if any(r.cells[i].text for i in keep)
        ),
        unit=unit_of(notes, anchor, lead_in),
        anchor=anchor,
        anchor_box=rounded(anchor_box) if anchor_box else None,
        whole=whole,
    )


def _clear_of_edges(layout: PageLayout, region: Region, em: float) -> bool:
    """The table is not cut off: neither by the page nor by its own box."""
    x0, y0, x1, y1 = region.box
    if x0 < 4 or y0 < 4 or x1 > layout.width - 4 or y1 > layout.height - 4:
        return False
    for word in layout.words:
        if contains(region.box, center(word.box)):
            continue
        wx0, wy0, wx1, wy1 = word.box
        across = min(wx1, x1) - max(wx0, x0)
        down = min(wy1, y1) - max(wy0, y0)
        if across > 1 and down > 0.35 * em:
            return False
    return True


def _body_start(lines: Sequence[TextRow], first_column: float) -> int:
    """Index of the first line with a number that is not a year of the header, or of the group labels above it."""
    for i, line in enumerate(lines):
        values = [t for t in line.tokens if t.value]
        if not values:
            continue
        if all(YEAR.fullmatch(t.text) for t in values):
            stub = [t.text for t in line.tokens if not t.value and t.box[0] < values[0].box[0]]
            require(all(s.startswith("(") or CONTEXT.search(s) or i == 0 for s in stub))
            continue
        while i and not any(center(t.box)[0] > first_column for t in lines[i - 1].tokens):
            if lines[i - 1].tokens[0].text.startswith("("):  # a unit of its own line
                break
            i -= 1
        return i
    raise Doubt


def _columns(body: Sequence[TextRow], em: float) -> list[Box]:
    """The x-intervals that the numbers occupy; they must be clearly apart."""
    spans: list[list[Box]] = []
    for box in sorted((t.core for line in body for t in line.tokens if t.value), key=lambda b: b[0]):
        if spans and box[0] < max(b[2] for b in spans[-1]):
            spans[-1].append(box)
        else:
            spans.append([box])
    columns = [union(s) for s in spans]
    require(all(b[0] - a[2] >= 0.4 * em for a, b in itertools.pairwise(columns)))
    return columns


def _place(body: Sequence[TextRow], columns: Sequence[Box], first: float, em: float) -> None:
    """Give every token of the body its column or make it the row's label; no token may be left."""
    for line in body:
        label: list[Token] = []
        for token in line.tokens:
            if LEADER_WORDS.fullmatch(token.text):
                continue  # dot leaders
            if token.value:
                at = next(i for i, c in enumerate(columns) if c[0] <= center(token.core)[0] <= c[2])
                require(at not in line.cells)
                require(token.text.count("(") == token.text.count(")"))
                line.cells[at] = token
            else:
                label.append(token)
        if not label:
            continue
        require(label[0].box[0] < first)
        require(len(label) == 1)  # a wide gap: two columns of labels, or text in a column of numbers
        line.label_box = union([t.box for t in label])
        require(not line.numeric or line.label_box[2] < first)
        line.label = LEADERS.sub("", clean(" ".join(t.text for t in label)))
    for i in range(len(columns)):
        require(any(any(c.isdigit() for c in line.cells[i].text) for line in body if i in line.cells))


def _agree_with_grid(body: Sequence[TextRow], region: Region, num_columns: int) -> None:
    """The layout model saw as many columns, every number in the same one, and one numeric line a grid row."""
    require(len(region.column_lines) == num_columns)
    bands = [bisect(region.row_lines, line.y) for line in body if line.numeric]
    require(len(set(bands)) == len(bands))
    for line in body:
        for i, token in line.cells.items():
            require(bisect(region.column_lines, center(token.core)[0]) == i + 1)


def _unique_columns(names: Sequence[str]) -> list[int]:
    """Columns to keep: all, but for repeated "% change" columns, which have no name of their own."""
    counts = Counter(name.casefold() for name in names)
    repeated = [name for name in names if counts[name.casefold()] > 1]
    require(all(REPEATABLE.search(name) for name in repeated))
    keep = [i for i, name in enumerate(names) if counts[name.casefold()] == 1]
    require(len(keep) >= 2)
    return keep


def _rows(body: Sequence[TextRow], region: Region, num_columns: int, em: float) -> tuple[list[TableRow], bool]:
    """Rows whose label is beyond doubt, and whether those are all rows."""
    labels = row_labels(body, region, em)
    counts = Counter(label.casefold() for label in labels if label)
    printed = Counter(FOOTNOTE.sub("", line.label).rstrip(" :").casefold() for line in body)
    rows = []
    for line, label in zip(body, labels, strict=True):
        name = label.casefold()
        if not line.numeric or not label or counts[name] > 1 or line.label_box is None or printed[name] > 1:
            continue
        empty = Cell(text="", box=rounded(line.label_box))
        cells = tuple(
            Cell(text=line.cells[i].text, box=rounded(line.cells[i].box)) if i in line.cells else empty
            for i in range(num_columns)
        )
        rows.append(TableRow(label=label, box=rounded(line.label_box), cells=cells))
    return rows, len(rows) == sum(line.numeric for line in body)
