"""What names a table and its unit: the caption, heading or lead-in sentence beside it, and notes like "(Millions)".

Split from `corpus.tables`, which decides about rows and columns. A name is given only where nothing else
lies between it and the table: a name that may belong to another table is worse than none, because a page
number always remains.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from corpus.layout import PageLayout, Region, center, contains
from corpus.records import Box

CAPTION = re.compile(r"Table\s+[A-Z]?\d+(?:[.\-]\d+)*\s*[:.|]?", re.IGNORECASE)
UNIT_WORD = (
    r"(?:millions?|thousands?|billions?|percent|percentages?|%|u\.?s\.? dollars|dollars|usd|eur|euros?|hours?|"
    r"years?|days?|months?|seconds?|ms|kg|mm|cm|km|tons?|tonnes|units?|mb|gb|basis points)"
)
PARENTHESISED = re.compile(rf"\(([^()0-9]*\b{UNIT_WORD}(?![a-z])[^()0-9]*|%)\)", re.IGNORECASE)
BROKEN = re.compile(r"\w [b-z]\b(?![).])|\w a\W*$")  # "Statement of Incom e": letters set apart by kerning
IN_UNIT = re.compile(
    r"\b((?:dollars |amounts |shares )?in (?:millions|thousands|billions)(?:,? except [a-z0-9 ,\-]+?)?)(?=[.,;:)]|$)",
    re.IGNORECASE,
)
MAX_ANCHOR = 220  # characters; a longer sentence is no name


def clean(text: str) -> str:
    """Collapse white space, drop control characters and soft hyphens, join words hyphenated at a line end."""
    text = "".join(c if c.isprintable() else " " for c in text.replace("\u00ad", ""))
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"(-[A-Za-z]+-|[A-Z]-) (?=[A-Za-z])(?!and |or |to )", r"\1", text)  # "available-for- sale"
    return re.sub(r"(?<=[a-z])- (?=[a-z])(?!and |or |to )", "", text)


def unit_of(notes: Iterable[str], anchor: str, lead_in: str) -> str:
    """The unit as printed, without parentheses; '' where none, or two different ones, are printed."""
    found = [m for note in notes for m in PARENTHESISED.findall(note)]
    if not found:
        found = [m for text in (anchor, lead_in) for m in (*PARENTHESISED.findall(text), *IN_UNIT.findall(text))]
    units = {" ".join(m.split()): None for m in found}
    return next(iter(units)) if len({u.casefold() for u in units}) == 1 else ""


def anchor_of(layout: PageLayout, region: Region, em: float) -> tuple[str, Box | None, str]:
    """Name and its box, and the text directly above the table (for its unit); ('', None, ...) where in doubt.

    A caption "Table N" above or below wins over a heading or a lead-in sentence above.
    """
    above = _neighbour(layout, region, em, upwards=True)
    below = _neighbour(layout, region, em, upwards=False)
    upper = _text(layout, above.box) if above else ""
    lower = _text(layout, below.box) if below else ""
    upper_caption = above is not None and above.label in ("caption", "text") and bool(CAPTION.match(upper))
    lower_caption = below is not None and below.label in ("caption", "text") and bool(CAPTION.match(lower))
    if upper_caption and lower_caption:
        return "", None, ""
    if lower_caption and below is not None:
        other = _neighbour(layout, below, em, upwards=False)
        return ("", None, "") if other and other.label == "table" else (_first_sentence(lower), below.box, lower)
    if above is None:
        return "", None, ""
    if upper_caption:
        other = _neighbour(layout, above, em, upwards=True)
        return ("", None, "") if other and other.label == "table" else (_first_sentence(upper), above.box, upper)
    if above.label in ("section-header", "title"):
        named = 4 <= len(upper) <= 150 and upper[0].isalnum() and not BROKEN.search(upper)
        return (upper.rstrip(" :"), above.box, upper) if named else ("", None, upper)
    if above.label in ("text", "list-item") and upper.endswith(":"):
        sentence = re.split(r"(?<=[a-z)0-9][.;]) +(?=[A-Z])", upper)[-1]
        plural = re.search(r"\btables\b", sentence, re.IGNORECASE)
        if 20 <= len(sentence) <= MAX_ANCHOR and sentence[0].isupper() and not plural:
            return sentence, above.box, upper
    return "", None, upper


def _first_sentence(text: str) -> str:
    """A caption's number and first sentence, '' where that is too long to quote."""
    head = CAPTION.match(text)
    assert head is not None
    rest = re.split(r"(?<=[a-z)\]0-9%]\.) +(?=[A-Z])", text[head.end() :].strip())[0].rstrip(".")
    name = f"{head.group(0).rstrip('.:| ')}: {rest}" if rest else head.group(0).rstrip(".:| ")
    return name if len(name) <= MAX_ANCHOR else head.group(0).rstrip(".:| ")


def _text(layout: PageLayout, box: Box) -> str:
    return clean(" ".join(w.text for w in layout.words if contains(box, center(w.box))))


def _neighbour(layout: PageLayout, region: Region, em: float, upwards: bool) -> Region | None:
    """The region directly above or below, at most 3.5 lines away, with no line of text between them."""
    x0, y0, x1, y1 = region.box
    near = []
    for other in layout.regions:
        ox0, oy0, ox1, oy1 = other.box
        if other is region or min(x1, ox1) - max(x0, ox0) <= 0 or other.label in ("page-header", "page-footer"):
            continue
        gap = y0 - oy1 if upwards else oy0 - y1
        if -0.5 * em <= gap <= 3.5 * em:
            near.append((gap, other))
    if not near:
        return None
    gap, nearest = min(near, key=lambda n: n[0])
    top, bottom = (nearest.box[3], y0) if upwards else (y1, nearest.box[1])
    for line in layout.lines:
        lx, ly = center(line.box)
        if top + 1 < ly < bottom - 1 and x0 < lx < x1:
            return None
    return nearest
