"""What a page shows before anybody interprets it: words, lines, rules and the layout model's regions.

`corpus.parse` fills these records from PyMuPDF; `corpus.tables`, `corpus.blocks` and `corpus.sections` decide
from them alone, without PyMuPDF, so that every decision can be tested on literals.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from dataclasses import dataclass

from corpus.records import Box

NARROW = " .,:;!|'()[]ijlftI"


@dataclass(frozen=True, slots=True)
class Word:
    """A run of characters without white space."""

    box: Box
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """One line of one text block, in the order of the page's text layer, or in that of OCR."""

    box: Box
    text: str
    size: float  # points, of the largest span
    bold: bool  # every span is bold
    hidden: bool = False  # every span is drawn invisibly: neither filled nor stroked, or fully transparent
    pale: bool = False  # every span is of a light colour, which a light background swallows
    confidence: float = 1.0  # 0..1; below 1 only where OCR read it


@dataclass(frozen=True, slots=True)
class Region:
    """A box that the layout model labelled, in its reading order.

    `label` is one of PyMuPDF's: title, section-header, text, list-item, table, caption, page-header, page-footer,
    picture, formula, footnote. `row_lines` and `column_lines` are the model's own grid of a table, as y and x
    coordinates on the page; both empty for other regions or where the model drew none.
    """

    label: str
    box: Box
    row_lines: tuple[float, ...] = ()
    column_lines: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class PageLayout:
    """One page. Boxes are in points of the page as displayed, origin top left."""

    width: float
    height: float
    words: tuple[Word, ...]
    lines: tuple[Line, ...]
    regions: tuple[Region, ...]  # () where the layout model saw nothing or was not asked
    rules: tuple[Box, ...]  # thin horizontal strokes, read only where the page has a table region


@dataclass(frozen=True, slots=True)
class PaintedImage:
    """An image on a page, as far as its clips let it show."""

    order: int  # among the page's operations
    box: Box
    covers: bool  # hides what was painted before: no mask, no transparency, no blending


@dataclass(frozen=True, slots=True)
class Painting:
    """What a page paints, in the space of its layout."""

    texts: tuple[tuple[int, Box], ...]  # order and place of each run of text
    images: tuple[PaintedImage, ...]
    num_shapes: int  # filled or stroked


def words_of_line(line: Line) -> list[Word]:
    """A line's words where only its own box is known: its characters share its width as they do in most fonts."""
    parts = [0, *itertools.accumulate(_parts(c) for c in line.text)]
    x0, y0, x1, y1 = line.box
    scale = (x1 - x0) / max(1, parts[-1])
    return [
        Word((x0 + parts[m.start()] * scale, y0, x0 + parts[m.end()] * scale, y1), m[0])
        for m in re.finditer(r"\S+", line.text)
    ]


def _parts(char: str) -> int:
    """Width of a character in quarters of the height of its line."""
    if unicodedata.east_asian_width(char) in "WF":
        return 4
    return 1 if char in NARROW else 2


def image_share(painting: Painting, layout: PageLayout) -> float:
    """Share of the page's area that images cover, 0..1; above 1 where they overlap."""
    return sum(area(image.box) for image in painting.images) / (layout.width * layout.height)


def area(box: Box) -> float:
    """Square points; 0 for a box that is empty or inside out."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def center(box: Box) -> tuple[float, float]:
    """The middle of a box."""
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def contains(outer: Box, point: tuple[float, float]) -> bool:
    """True where the point lies in the box, borders included."""
    return outer[0] <= point[0] <= outer[2] and outer[1] <= point[1] <= outer[3]


def union(boxes: list[Box]) -> Box:
    """The smallest box around all of the boxes; there must be at least one."""
    return (
        min(b[0] for b in boxes),
        min(b[1] for b in boxes),
        max(b[2] for b in boxes),
        max(b[3] for b in boxes),
    )


def rounded(box: tuple[float, ...]) -> Box:
    """A box rounded to 0.01 pt, as it is stored."""
    x0, y0, x1, y1 = box
    return round(x0, 2), round(y0, 2), round(x1, 2), round(y1, 2)
