"""Sections to segments: the runs of 8-15 pages that a question writer sees.

Drawn by seed from the document alone, whatever model will be trained, so that a paid question never depends on
it. Segments are disjoint and cover the document from its beginning to its end, so questions do too.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from corpus.records import Section, Segment


def draw_segments(
    doc_id: str, sections: Sequence[Section], num_pages: int, *, min_pages: int, max_pages: int, seed: int
) -> tuple[Segment, ...]:
    """Disjoint segments that cover `num_pages` pages, each `min_pages` to `max_pages` long where possible.

    A border falls on the start of a section if one is in reach. A document shorter than `min_pages` is one
    segment; where no split leaves the rest long enough, the last segment is shorter.
    """
    draw = random.Random(f"segments:{doc_id}:{seed}")
    starts = {s.first_page for s in sections}
    segments = []
    first = 0
    while first < num_pages:
        left = num_pages - first
        if left <= max_pages:
            end = num_pages
        else:
            ends = range(first + min_pages, first + max_pages + 1)
            fitting = [e for e in ends if _splits(num_pages - e, min_pages, max_pages)] or list(ends)
            end = draw.choice([e for e in fitting if e in starts] or fitting)
        segments.append(Segment(first_page=first, num_pages=end - first))
        first = end
    return tuple(segments)


def is_left_to_layout(doc_id: str, segment: Segment, share: float, seed: int) -> bool:
    """True for the share of segments whose questions no model writes; drawn by seed."""
    return random.Random(f"layout-share:{doc_id}:{segment.first_page}:{seed}").random() < share


def _splits(num_pages: int, min_pages: int, max_pages: int) -> bool:
    """True where some number of segments of the wanted size covers exactly that many pages."""
    return -(-num_pages // max_pages) * min_pages <= num_pages
