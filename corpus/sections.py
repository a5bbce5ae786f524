"""Where the sections of a document begin: bookmarks when they are good, else headings, else page groups.

Against good bookmarks, headings of the layout model reach a precision of .64 and a recall of .92 over 93 real
documents, a font rule .46 and .57. Bookmarks are trusted only when there are nine or more, at least 90 % of their
titles stand on the page they point to, and no gap exceeds 15 pages: single-entry bookmarks, entries named after
source files and gaps of 82 pages all occur.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from corpus.blocks import HEADING_KINDS, clean, flatten
from corpus.records import Page, Section, SectionStart

MIN_BOOKMARKS = 9
MIN_TITLES_ON_PAGE = 0.9
MAX_GAP_PAGES = 15
GROUP_PAGES = 10
MAX_TITLE_CHARS = 160
RUNNING_HEADING_PAGES = 3  # a heading on more pages than this is a running header


@dataclass(frozen=True, slots=True)
class Bookmark:
    """One entry of the document's outline. `page` is 0-based, -1 where it points nowhere."""

    level: int
    title: str
    page: int


def with_sections(pages: Sequence[Page], bookmarks: Sequence[Bookmark]) -> list[Page]:
    """The pages with their `sections` filled in."""
    starts = _from_bookmarks(pages, bookmarks) or _from_headings(pages)
    starts = _fill_gaps(starts, len(pages))
    by_page: dict[int, list[SectionStart]] = {}
    for page, start in starts:
        by_page.setdefault(page, []).append(start)
    return [replace(p, sections=tuple(by_page.get(p.index, ()))) for p in pages]


def sections_of(pages: Sequence[Page]) -> tuple[Section, ...]:
    """Sections of a whole document, in order. Pages before the first start form a section without a title."""
    starts = [(p.index, s) for p in pages for s in p.sections]
    if not starts or starts[0][0] > 0:
        starts.insert(0, (0, SectionStart(title="", level=1, source="pages")))
    ends = [page for page, _ in starts[1:]] + [len(pages)]
    return tuple(
        Section(title=s.title, level=s.level, first_page=page, num_pages=max(1, end - page), source=s.source)
        for (page, s), end in zip(starts, ends, strict=True)
    )


def normalised_title(title: str) -> str:
    """Letters and digits alone, in lower case: what a bookmark and its heading share."""
    return re.sub(r"[\W_]+", "", clean(title)).lower()


def _from_bookmarks(pages: Sequence[Page], bookmarks: Sequence[Bookmark]) -> list[tuple[int, SectionStart]]:
    """Section starts from bookmarks, or [] when the bookmarks cannot be trusted."""
    entries = [b for b in bookmarks if 0 <= b.page < len(pages) and normalised_title(b.title)]
    if len(entries) < MIN_BOOKMARKS:
        return []
    texts = {b.page: normalised_title(pages[b.page].text) for b in entries}
    on_page = sum(normalised_title(b.title) in texts[b.page] for b in entries)
    borders = sorted({0, len(pages), *(b.page for b in entries)})
    gap = max(b - a for a, b in zip(borders, borders[1:], strict=False))
    if on_page < MIN_TITLES_ON_PAGE * len(entries) or gap > MAX_GAP_PAGES:
        return []
    ordered = sorted(entries, key=lambda b: b.page)  # stable: the outline's order within a page
    return [
        (b.page, SectionStart(title=clean(b.title)[:MAX_TITLE_CHARS], level=b.level, source="bookmarks"))
        for b in ordered
    ]


def _from_headings(pages: Sequence[Page]) -> list[tuple[int, SectionStart]]:
    found = [(p.index, b, flatten(b.text)) for p in pages for b in p.blocks if b.kind in HEADING_KINDS]
    on_pages = Counter(normalised_title(title) for _, title in {(page, title) for page, _, title in found})
    return [
        (page, SectionStart(title=title[:MAX_TITLE_CHARS], level=max(1, block.level), source="headings"))
        for page, block, title in found
        if len(normalised_title(title)) >= 3 and on_pages[normalised_title(title)] <= RUNNING_HEADING_PAGES
    ]


def _fill_gaps(starts: list[tuple[int, SectionStart]], num_pages: int) -> list[tuple[int, SectionStart]]:
    """Fixed groups of pages wherever no section starts for longer than `MAX_GAP_PAGES`."""
    filled: list[tuple[int, SectionStart]] = []
    borders = [0, *(page for page, _ in starts), num_pages]
    for i, (begin, end) in enumerate(zip(borders, borders[1:], strict=False)):
        if i:
            filled.append(starts[i - 1])
        if end - begin > MAX_GAP_PAGES:
            first = begin if i == 0 else begin + GROUP_PAGES
            for page in range(first, end, GROUP_PAGES):
                title = f"Pages {page + 1}-{min(page + GROUP_PAGES, end)}"
                filled.append((page, SectionStart(title=title, level=1, source="pages")))
    return filled
