"""What a page cannot say of itself: running headers and footers, levels of headings, what a caption belongs to. Pure.

The layout model looks at one page, and OCR and font heuristics know no headers at all. Seen together, the pages of a
document show what repeats in their margins; the sizes of all its headings, and the depth of those that are numbered,
give the levels of the others.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from corpus.blocks import HEADING_KINDS, flatten
from corpus.layout import center
from corpus.records import Block, Page

MARGIN = 0.12  # of the page's height, at its top and at its bottom: where headers and footers stand
RUNNING_PAGES = 3  # what stands in the margin of this many pages is a running header or footer
PLAIN_KINDS = ("title", "heading", "text")  # what may turn out to be a header or a footer
PAGE_NUMBER = re.compile(
    r"(?:page )?(?:\d{1,4}|[ivxlc]{1,6})(?: ?(?:of|/) ?\d{1,4})?|[-\u2013] ?\d{1,4} ?[-\u2013]", re.IGNORECASE
)
NUMBERED = re.compile(r"(\d{1,2}(?:\.\d{1,2})*|[A-Z](?:\.\d{1,2})+)\.?\s")
MAX_LEVEL = 6
SAME_SIZE = 1.08  # sizes within this factor are one; line heights of OCR need the tolerance
CAPTION_REACH = 0.15  # of the page's height, between a caption and its figure or table


def with_structure(pages: Sequence[Page]) -> list[Page]:
    """The pages of one document with headers, footers, levels of headings and targets of captions filled in."""
    running = _running_texts(pages)
    shown = [replace(p, blocks=tuple(_as_margin(b, p, running) for b in p.blocks)) for p in pages]
    levels = _levels_by_size([b for p in shown for b in p.blocks if b.kind in HEADING_KINDS])
    return [replace(p, blocks=_with_targets(p, [_with_level(b, levels) for b in p.blocks])) for p in shown]


# ------------------------------------------------------------------------------------------------ headers and footers


def _margin(block: Block, page: Page) -> str:
    """header, footer or '': the margin that holds the block whole."""
    if block.box[3] <= MARGIN * page.height:
        return "header"
    return "footer" if block.box[1] >= (1 - MARGIN) * page.height else ""


def _running_key(block: Block) -> str:
    """What stays the same where only the page number differs."""
    return re.sub(r"[\W\d_]+", "", block.text).casefold()


def _running_texts(pages: Sequence[Page]) -> set[tuple[str, str]]:
    """(margin, key) of texts that stand in the same margin of several pages."""
    seen = Counter(
        entry
        for p in pages
        for entry in {(_margin(b, p), _running_key(b)) for b in p.blocks if b.kind in PLAIN_KINDS and b.text}
    )
    return {(margin, key) for (margin, key), n in seen.items() if margin and key and n >= RUNNING_PAGES}


def _as_margin(block: Block, page: Page, running: set[tuple[str, str]]) -> Block:
    if block.kind not in PLAIN_KINDS or not block.text:
        return block
    margin = _margin(block, page)
    repeats = (margin, _running_key(block)) in running or PAGE_NUMBER.fullmatch(flatten(block.text))
    return replace(block, kind=margin) if margin and repeats else block


# --------------------------------------------------------------------------------------------------- levels of headings


def _depth(block: Block) -> int | None:
    """Depth of a heading's own number: 1 for "2 Methods", 2 for "2.1 Data" and "A.1 Proofs"; None without one."""
    number = NUMBERED.match(flatten(block.text))
    return min(MAX_LEVEL, number[1].count(".") + 1) if number else None


def _levels_by_size(headings: Sequence[Block]) -> dict[float, int]:
    """The level of each size of type, in the order of sizes; numbered headings of a size decide for all of it."""
    sizes = sorted({b.size for b in headings}, reverse=True)
    groups: list[list[float]] = []
    for size in sizes:
        if groups and size * SAME_SIZE > groups[-1][0]:
            groups[-1].append(size)
        else:
            groups.append([size])
    depths: Mapping[float, Counter[int]] = _depths_by_size(headings)
    levels: dict[float, int] = {}
    level = 0
    for group in groups:
        numbered = sum((depths[size] for size in group), Counter[int]())
        level = numbered.most_common(1)[0][0] if numbered else min(MAX_LEVEL, level + 1)
        levels |= dict.fromkeys(group, level)
    return levels


def _depths_by_size(headings: Sequence[Block]) -> Mapping[float, Counter[int]]:
    depths: defaultdict[float, Counter[int]] = defaultdict(Counter)
    for block in headings:
        depth = _depth(block)
        if depth is not None:
            depths[block.size][depth] += 1
    return depths


def _with_level(block: Block, levels: Mapping[float, int]) -> Block:
    """A number says a heading's level; else a title is outermost, and type says the level of the others."""
    if block.kind not in HEADING_KINDS:
        return block
    depth = _depth(block)
    if depth is None:
        depth = 1 if block.kind == "title" or not block.size else levels[block.size]
    return replace(block, level=depth)


# ---------------------------------------------------------------------------------------------------------- captions


def _with_targets(page: Page, blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Each caption with the index of its figure or table: the nearest above or below it, each taken once."""
    pairs = sorted(
        (_distance(caption, blocks[t], page), c, t)
        for c, caption in enumerate(blocks)
        if caption.kind == "caption"
        for t in range(len(blocks))
        if blocks[t].kind in ("picture", "table")
    )
    targets: dict[int, int] = {}
    for distance, c, t in pairs:
        if distance < CAPTION_REACH and c not in targets and t not in targets.values():
            targets[c] = t
    return tuple(replace(b, target=targets[i]) if i in targets else b for i, b in enumerate(blocks))


def _distance(caption: Block, target: Block, page: Page) -> float:
    """Gap between a caption and what it may belong to, in page heights; what stands beside it is far away.

    A caption that says "Table" prefers a table, any other a picture.
    """
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = caption.box, target.box
    if min(ax1, bx1) <= max(ax0, bx0):
        return 1.0
    inside = by0 <= center(caption.box)[1] <= by1
    gap = 0.0 if inside else max(by0 - ay1, ay0 - by1, 0.0)
    says_table = flatten(caption.text).lower().startswith("table")
    return gap / page.height + (0.0 if says_table == (target.kind == "table") else CAPTION_REACH / 2)
