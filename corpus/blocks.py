"""Words, lines and regions of a page to its text blocks, in reading order.

Reading order is the order of the text layer, which producers write column by column; the layout model only says
which lines belong together and what they are. OCR reads across columns, so there the order of the model's regions
counts. A block keeps its line breaks and hyphens, so that a transcription is what the page shows; whoever wants flowing
text calls `flatten`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from corpus.layout import Line, PageLayout, center, contains, rounded, union
from corpus.records import Block, Box

KINDS = {
    "title": "title",
    "section-header": "heading",
    "text": "text",
    "list-item": "list-item",
    "table": "table",
    "caption": "caption",
    "page-header": "header",
    "page-footer": "footer",
    "picture": "picture",
    "formula": "formula",
    "footnote": "footnote",
}
HEADING_KINDS = ("title", "heading")
PARAGRAPH_GAP = 0.8  # of the line height; a larger vertical gap begins a new block
LARGER = 1.08  # of the body size; type of this size stands out
HEADING_SCALE = 1.15  # of the body size; larger type is a heading, where there is no layout model
OCR_HEADING_SCALE = 1.3  # of the body's line height, which OCR measures to a tenth or two
HEADING_MAX_WORDS = 14
CAPTION_START = re.compile(
    r"(?:Figure|Fig\.|Table|Abbildung|Tabelle|Tableau|\u56fe|\u8868) ?[A-Z]?\d+(?:[-.]\d+)*[:.|\uff1a]"
)
ITEM_START = re.compile(r"[\u2022\u25cf\u25aa\u25e6\u2023\u00b7\u2013-] \S|\(?(?:\d{1,2}|[a-z])[.)] \S")


def clean(text: str) -> str:
    """Text without control characters, in NFC, white space collapsed: safe to show and to compare."""
    text = " ".join(unicodedata.normalize("NFC", text).split())
    if not text.isprintable():  # most text is, and looking at every character costs a tenth of a page's rendering
        text = " ".join("".join(c for c in text if unicodedata.category(c)[0] != "C").split())
    return text


def flatten(text: str) -> str:
    """A block's text as one line; a word that a hyphen breaks at a line's end is joined."""
    return clean(re.sub(r"(?<=[a-z])[-\u00ad]\n(?=[a-z])", "", text))


def layer_blocks(layout: PageLayout) -> tuple[Block, ...]:
    """Blocks of a page that has a text layer: by the layout model's regions, else by gaps and fonts.

    Every line ends in exactly one block.
    """
    owner = [_owner(line, layout) for line in layout.lines]
    body, bold_body = _body_size(layout.lines), _body_is_bold(layout.lines)
    groups: list[tuple[int, Block]] = []  # index of the first line, block
    for r, region in enumerate(layout.regions):
        members = [i for i, o in enumerate(owner) if o == r]
        lines = [layout.lines[i] for i in members]
        kind = KINDS.get(region.label, "text")
        parts = _by_size(members, layout.lines) if kind in HEADING_KINDS else [members]
        if len(parts) > 1:  # the model takes a chapter's title and the first section's below it for one heading
            groups += [(part[0], _block(kind, [layout.lines[i] for i in part], body, bold_body)) for part in parts]
        elif lines or kind in ("picture", "table"):
            made = replace(_block(kind, lines, body, bold_body), box=rounded(region.box))
            groups.append((members[0] if members else len(owner), made))
    loose = [i for i, o in enumerate(owner) if o is None]
    for members in _paragraphs(loose, layout.lines):
        lines = [layout.lines[i] for i in members]
        kind = "heading" if not layout.regions and _is_heading(lines, body) else "text"
        groups.append((members[0], _block(kind, lines, body, bold_body)))
    return tuple(block for _, block in sorted(groups, key=lambda g: g[0]))


def _block(kind: str, lines: Sequence[Line], body: float, bold_body: bool) -> Block:
    """A block of these lines; without lines, its box is still to be given."""
    return Block(
        kind=kind,
        box=rounded(union([line.box for line in lines])) if lines else (0.0, 0.0, 0.0, 0.0),
        text=_join(lines, "\t" if kind == "table" else " "),
        emphasised=_stands_out(lines, body, bold_body),
        size=round(max((line.size for line in lines), default=0.0), 2),
    )


def _by_size(members: Sequence[int], lines: Sequence[Line]) -> list[list[int]]:
    """Runs of lines that are set in one size."""
    runs: list[list[int]] = []
    for i in members:
        if runs and _alike(lines[runs[-1][-1]].size, lines[i].size):
            runs[-1].append(i)
        else:
            runs.append([i])
    return runs


def _alike(a: float, b: float) -> bool:
    return max(a, b) < LARGER * min(a, b)


def ocr_blocks(layout: PageLayout) -> tuple[Block, ...]:
    """Blocks of a page that OCR read: by the layout model's regions, else by size, place and wording.

    Every line ends in exactly one block, which is as sure as its lowest line.
    """
    owner = [_owner(line, layout) for line in layout.lines]
    body = _body_size(layout.lines)
    groups: list[tuple[tuple[int, int], Block]] = []  # (region it is or follows, index of the first line), block
    for r, region in enumerate(layout.regions):
        members = [i for i, o in enumerate(owner) if o == r]
        kind = KINDS.get(region.label, "text")
        if kind == "table":
            members = _in_rows(members, layout.lines)
        if members or kind in ("picture", "table"):
            made = _read_block(kind, [layout.lines[i] for i in members], body)
            groups.append(((r, -1), replace(made, box=rounded(region.box))))
    loose = [i for i, o in enumerate(owner) if o is None]
    for members in _paragraphs(loose, layout.lines, breaks=ITEM_START):
        lines = [layout.lines[i] for i in members]
        before = next((o for o in reversed(owner[: members[0]]) if o is not None), -1)
        groups.append(((before, members[0]), _read_block(_kind_by_wording(lines, body), lines, body)))
    return tuple(block for _, block in sorted(groups, key=lambda g: g[0]))


def _read_block(kind: str, lines: Sequence[Line], body: float) -> Block:
    sure = tuple(round(line.confidence, 4) for line in lines)
    made = _block(kind, lines, body, bold_body=True)
    return replace(
        made, confidence=min(sure, default=1.0), line_confidences=sure, emphasised=bool(lines) and kind in HEADING_KINDS
    )


def _in_rows(members: Sequence[int], lines: Sequence[Line]) -> list[int]:
    """Lines row by row from the top, those of a row from the left: OCR's order wavers where a scan is not straight."""
    rows: list[list[int]] = []
    for i in sorted(members, key=lambda i: center(lines[i].box)[1]):
        if rows and _beside(lines[rows[-1][0]].box, lines[i].box):
            rows[-1].append(i)
        else:
            rows.append([i])
    return [i for row in rows for i in sorted(row, key=lambda i: lines[i].box[0])]


def _kind_by_wording(lines: Sequence[Line], body: float) -> str:
    text = _join(lines, " ")
    if CAPTION_START.match(text):
        return "caption"
    if _may_be_heading(lines) and all(line.size >= OCR_HEADING_SCALE * body for line in lines):
        return "heading"
    return "list-item" if ITEM_START.match(text) else "text"


def _owner(line: Line, layout: PageLayout) -> int | None:
    """The smallest region that holds the middle of the line."""
    middle = center(line.box)
    holding = [(_area(r.box), i) for i, r in enumerate(layout.regions) if contains(r.box, middle)]
    return min(holding)[1] if holding else None


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _join(lines: Sequence[Line], gap: str) -> str:
    """Lines joined by newlines; pieces that stand on one visual line are joined by `gap` instead."""
    text = ""
    for i, line in enumerate(lines):
        if i:
            text += gap if _same_row(lines[i - 1].box, line.box) else "\n"
        text += clean(line.text)
    return text


def _same_row(a: Box, b: Box) -> bool:
    return _beside(a, b) and b[0] >= a[0]


def _beside(a: Box, b: Box) -> bool:
    return min(a[3], b[3]) - max(a[1], b[1]) > 0.5 * min(a[3] - a[1], b[3] - b[1])


def _paragraphs(
    members: Sequence[int], lines: Sequence[Line], breaks: re.Pattern[str] | None = None
) -> list[list[int]]:
    """Runs of lines that follow one another on the page with no more than a small gap; `breaks` begins a new one."""
    runs: list[list[int]] = []
    for i in members:
        if runs and _follows(lines[runs[-1][-1]], lines[i]) and not (breaks and breaks.match(lines[i].text)):
            runs[-1].append(i)
        else:
            runs.append([i])
    return runs


def _follows(a: Line, b: Line) -> bool:
    if _same_row(a.box, b.box):
        return True
    height = max(1.0, min(a.box[3] - a.box[1], b.box[3] - b.box[1]))
    gap = b.box[1] - a.box[3]
    beside = min(a.box[2], b.box[2]) - max(a.box[0], b.box[0])
    same_type = abs(a.size - b.size) <= 0.25 * max(a.size, b.size) and a.bold == b.bold
    return same_type and beside > 0 and -0.5 * height <= gap <= PARAGRAPH_GAP * height


def _body_size(lines: Sequence[Line]) -> float:
    """The size most characters are set in, by the median over characters."""
    half = sum(len(line.text) for line in lines) / 2
    for line in sorted(lines, key=lambda line: line.size):
        half -= len(line.text)
        if half <= 0:
            return line.size
    return 0.0


def _body_is_bold(lines: Sequence[Line]) -> bool:
    """True where most of the page is bold, so that bold type says nothing."""
    return 2 * sum(len(line.text) for line in lines if line.bold) > sum(len(line.text) for line in lines)


def _stands_out(lines: Sequence[Line], body: float, bold_body: bool) -> bool:
    """Every line is set apart from the body text; a bold label before plain words ("Type dict") is not."""
    return bool(lines) and all(
        (line.bold and not bold_body) or line.size >= LARGER * body or (line.text.isupper() and len(line.text) > 3)
        for line in lines
    )


def _is_heading(lines: Sequence[Line], body: float) -> bool:
    larger = all(line.size >= HEADING_SCALE * body for line in lines)
    return _may_be_heading(lines) and (larger or all(line.bold for line in lines))


def _may_be_heading(lines: Sequence[Line]) -> bool:
    text = _join(lines, " ")
    short = len(lines) <= 2 and len(text.split()) <= HEADING_MAX_WORDS
    return short and not text.endswith((".", ",", ";")) and any(c.isalpha() for c in text)
