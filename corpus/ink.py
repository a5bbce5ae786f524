"""What a small picture of a page says about its text layer: text it does not hold, text nobody sees. Pure.

Printed text is told from other ink by its shape alone: in a strip an inch and a half wide, lines of it are low, change
from ink to paper and back many times across, and have paper between them; photos, charts and rules do not. The length
of a line over its height gives its characters: from 0.96 to 1.21 times the truth for eight in ten pages turned
into outlines or scans (`benchmarks/bench_text_layer.py`). Nothing is recognised, so this costs 10 ms, not seconds.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from corpus.records import Box

LONG_SIDE = 842  # pixels of the picture; A4 at 72 DPI
STRIP = 100  # pixels across
BAND = 64  # pixels down: the paper's grey is taken from a strip's part of this height, for shadows and coloured boxes
INK = 48  # grey levels between a pixel and the paper
MIN_ROW = 0.03  # share of ink in a row of a line of text, at least
MAX_LINE = 0.6  # share of ink in a line of text, at most
HEIGHTS = (4, 40)  # pixels of a line of text
MIN_CHANGES = 8  # from ink to paper or back, across the strip, in the densest row of a line
WIDTH_TO_HEIGHT = 0.6  # of a character, the height being that of a line's ink
FAINT = 8  # grey levels that nobody sees
MIN_SEEN = 0.02  # share of a line's pixels that differ from its background
DARK = 160  # grey level below which a pixel may belong to a rule


def horizontal_rules(grey: NDArray[np.uint8], shortest: int, thickest: int) -> list[Box]:
    """Horizontal strokes of a picture, as boxes in pixels, from the top; a stroke may slope by a pixel in its length.

    Args:
        grey: the page's picture, [height, width].
        shortest: pixels from left to right, at least.
        thickest: pixels from top to bottom, at most.
    """
    borders = np.diff(np.pad(grey < DARK, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(borders == 1)
    ends = np.nonzero(borders == -1)[1]
    long = ends - starts >= shortest
    found: list[list[int]] = []
    growing: list[list[int]] = []  # strokes that reach the row above, or this one
    for y, x0, x1 in np.stack([rows, starts, ends], axis=1)[long].tolist():
        growing = [s for s in growing if s[3] >= y]
        touched = next((s for s in growing if x0 <= s[2] and s[0] <= x1), None)
        if touched is None:
            found.append([x0, y, x1, y + 1])
            growing.append(found[-1])
        else:
            touched[:] = min(touched[0], x0), touched[1], max(touched[2], x1), y + 1
    return [(float(s[0]), float(s[1]), float(s[2]), float(s[3])) for s in found if s[3] - s[1] <= thickest]


def unread_chars(grey: NDArray[np.uint8], read: Iterable[Box]) -> int:
    """About how many printed characters the picture shows outside these boxes.

    Args:
        grey: the page's picture, [height, width].
        read: where the text layer has text, in pixels.
    """
    height, width = grey.shape
    known = np.zeros((height, width), bool)
    for x0, y0, x1, y1 in read:
        known[max(0, int(y0) - 2) : max(0, int(y1) + 3), max(0, int(x0) - 2) : max(0, int(x1) + 3)] = True
    return int(
        sum(
            _chars(grey[:, x : x + STRIP].astype(np.int16), known[:, x : x + STRIP])
            for x in range(0, max(1, width - STRIP // 2), STRIP)
        )
    )


def _chars(strip: NDArray[np.int16], known: NDArray[np.bool_]) -> float:
    ink = np.empty(strip.shape, bool)
    for y in range(0, len(strip), BAND):
        band = strip[y : y + BAND]
        ink[y : y + BAND] = np.abs(band - np.median(band)) > INK
    ink &= ~known
    share, changes = ink.mean(axis=1), (ink[:, 1:] != ink[:, :-1]).sum(axis=1)
    borders = np.flatnonzero(np.diff(np.concatenate([[False], share > MIN_ROW, [False]]).astype(np.int8)))
    found = 0.0
    for top, bottom in zip(borders[::2], borders[1::2], strict=True):
        rows = slice(top, bottom)
        low = HEIGHTS[0] <= bottom - top <= HEIGHTS[1]
        if low and changes[rows].max() >= MIN_CHANGES and share[rows].mean() < MAX_LINE:
            columns = np.flatnonzero(ink[rows].any(axis=0))
            found += (columns[-1] - columns[0] + 1) / (WIDTH_TO_HEIGHT * (bottom - top))
    return found


def is_unseen(grey: NDArray[np.uint8], box: Box) -> bool:
    """True where this part of the picture, in pixels, is of one shade; its border may touch something else."""
    x0, y0, x1, y1 = (round(c) for c in box)
    shown = grey[max(0, y0 + 1) : max(0, y1 - 1), max(0, x0) : max(0, x1)].astype(np.int16)
    return shown.size > 0 and bool((np.abs(shown - np.median(shown)) > FAINT).mean() < MIN_SEEN)
