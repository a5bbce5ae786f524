"""Does a quote stand in the section or table that the question names, where both are on one page?

The pages that a name may mean are looked at elsewhere (`synth.anchors`); here it is the blocks. A section goes from its
heading to the next one of its kind, a table from its caption to its last row. Precision before recall: a heading whose
rank is unclear, a quote that stands in no block as a whole, a table without a caption say nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rapidfuzz import fuzz

from corpus.blocks import HEADING_KINDS, flatten
from corpus.records import Evidence, Page
from synth.cells import looks_like_rows
from synth.grounding import OCR_LIKENESS, STOP_WORDS, PageText, joined, tokens
from synth.labels import ANCHOR_BREAK, LABEL, is_caption, label_key, parted
from synth.quantities import folded
from synth.wording import QUOTED

STYLES = (  # of a title's number
    ("dotted", re.compile(r"[A-Z]?\d{1,2}(?:\.\d{1,2})*[.):]? ")),
    ("chapter", re.compile(r"第[一二三四五六七八九十百\d]{1,5}[章节部分]")),
    ("listed", re.compile(r"[一二三四五六七八九十]{1,3} ?[、.]")),
    ("bracketed", re.compile(r"\( ?[一二三四五六七八九十\d]{1,3} ?\)")),
    ("worded", re.compile(r"(?:section|chapter|part|appendix|annex|clause|article|note) [A-Z\d]", re.IGNORECASE)),
)
Spot = tuple[int, int]  # 0-based page, index of the block


@dataclass(frozen=True, slots=True)
class Heading:
    """`key`: the words of its title without the number, joined."""

    spot: Spot
    title: str
    style: str
    number: str
    key: str
    level: int
    by_ocr: bool


@dataclass(frozen=True, slots=True)
class Caption:
    """`rows`: the block of its table, -1 where it cannot be told."""

    spot: Spot
    label: tuple[str, str]
    rows: int


class Outline:
    """The headings and captions of a document in their order."""

    def __init__(self, pages: Sequence[Page]) -> None:
        self._pages = {p.index: PageText(p) for p in pages}
        self._headings: list[Heading] = []
        self._captions: list[Caption] = []
        for page in sorted(pages, key=lambda p: p.index):
            for i, block in enumerate(page.blocks):
                text = folded(flatten(block.text))
                label = LABEL.match(text)
                if block.kind in HEADING_KINDS and text:
                    self._headings.append(_heading((page.index, i), text, block.level, page.text_source == "ocr"))
                elif label and (block.kind == "caption" or is_caption(text)):
                    self._captions.append(Caption((page.index, i), label_key(label), _rows_of(page, i)))

    def problem(self, question: str, anchor: str, evidence: Sequence[Evidence]) -> str:
        """Why no quote stands in a place that is named, '' where one may."""
        if not all(e.quote and e.kind != "Figure" and e.page in self._pages for e in evidence):
            return ""
        spots = [self._spots(e) for e in evidence]
        if not spots or not all(spots):
            return ""
        quoted = [s for found in spots for s in found]
        for name, places in self._named(question, anchor):
            if all(holds is False for spot in quoted for holds in places.hold(spot)):
                return f"the quotes do not stand in {name}"
        return ""

    def _spots(self, evidence: Evidence) -> list[Spot]:
        """The blocks that hold a quote as a whole, to the letter or with cells left out."""
        blocks = self._pages[evidence.page].page.blocks
        words = [tokens(flatten(b.text)) for b in blocks]
        key, wanted = joined(tokens(evidence.quote)), {*tokens(evidence.quote)} - STOP_WORDS
        exact = [i for i, own in enumerate(words) if key in joined(own)]
        near = [i for i, own in enumerate(words) if wanted and wanted <= {*own}]
        return [(evidence.page, i) for i in exact or near]

    def _named(self, question: str, anchor: str) -> Iterator[tuple[str, _Places]]:
        """What question and anchor name, with the places that each may mean."""
        quoted = (m[0].strip("\"'“”「」《》") for m in QUOTED.finditer(folded(question)))
        numbered = (q for q in quoted if any(style.match(q) for _, style in STYLES))  # others may be names of rows
        parts = [*ANCHOR_BREAK.split(anchor), *numbered]
        for m in LABEL.finditer(f"{folded(question)} ; {folded(anchor)}"):
            captions = [c for c in self._captions if c.label == label_key(m)]
            if captions:
                yield m[0], _Places(self, captions, [])
        for part in parts:
            text = folded(part).strip()
            headings = [] if LABEL.search(text) else [h for h in self._headings if _is_title(text, h)]
            if headings:
                yield f'"{headings[0].title}"', _Places(self, [], headings)

    def in_section(self, spot: Spot, heading: Heading) -> bool | None:
        """Whether a block belongs to the section of a heading; None where that is not clear."""
        if spot < heading.spot:
            return False
        doubt = False
        for other in self._headings:
            if heading.spot < other.spot <= spot:
                ends = _ends(heading, other)
                if ends:
                    return False
                doubt = doubt or ends is None
        return None if doubt else True

    def in_table(self, spot: Spot, caption: Caption) -> bool | None:
        """Whether a block belongs to the table of a caption; None where that is not clear."""
        page, block = spot
        if page != caption.spot[0] or caption.rows < 0:
            return None
        if block in (caption.spot[1], caption.rows):
            return True
        others = [c for c in self._captions if c.spot[0] == page and c.label != caption.label]
        if any(c.rows == block for c in others):
            return False
        low, high = sorted([spot, caption.spot])
        return False if any(low < h.spot < high for h in self._headings if not h.by_ocr) else None


@dataclass(frozen=True, slots=True)
class _Places:
    """What one name may mean."""

    outline: Outline
    captions: Sequence[Caption]
    headings: Sequence[Heading]

    def hold(self, spot: Spot) -> Iterator[bool | None]:
        yield from (self.outline.in_table(spot, c) for c in self.captions)
        yield from (self.outline.in_section(spot, h) for h in self.headings)


def _heading(spot: Spot, title: str, level: int, by_ocr: bool) -> Heading:
    style = next((name for name, pattern in STYLES if pattern.match(title)), "")
    number = parted(title)[1]
    return Heading(spot, title, style, number, _title_key(title), level, by_ocr)


def _title_key(title: str) -> str:
    """The words of a title without its number, whose brackets may be left out."""
    bare = parted(title)[2]
    for name, pattern in STYLES:
        if name in ("listed", "bracketed"):
            bare = pattern.sub("", bare, count=1) if pattern.match(bare) else bare
    return joined(tokens(bare))


def _is_title(text: str, heading: Heading) -> bool:
    """Whether a text is the title of a heading, with its number or without it."""
    key, number = _title_key(text), parted(text)[1]
    if not key or (number and heading.number and number != heading.number):
        return False
    style = next((name for name, pattern in STYLES if pattern.match(text)), "")
    if style and style == heading.style and not number and tokens(text) != tokens(heading.title):
        return False
    return key == heading.key or (heading.by_ocr and fuzz.ratio(key, heading.key) >= OCR_LIKENESS)


def _ends(heading: Heading, other: Heading) -> bool | None:
    """Whether a later heading ends the section of another one; None where that is not clear."""
    if heading.number and other.number and heading.style == other.style:
        return not other.number.startswith(heading.number + ".")
    if heading.style and heading.style == other.style:
        return True
    known = heading.level > 0 and other.level > 0 and not other.by_ocr
    if known and other.level < heading.level and other.style:
        return True
    if heading.style or not known:
        return None if not known or other.level <= heading.level else False
    return other.level <= heading.level


def _rows_of(page: Page, caption: int) -> int:
    """The block of the table that a caption names: its target, else the one below it, else the one above."""
    blocks = page.blocks
    target = blocks[caption].target
    if target >= 0:
        return target if blocks[target].kind == "table" else -1
    for i in (caption + 1, caption - 1):
        if 0 <= i < len(blocks) and (blocks[i].kind == "table" or looks_like_rows(blocks[i].text)):
            return i
    return -1
