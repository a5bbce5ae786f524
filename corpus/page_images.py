"""A page's picture to a hash that survives re-saving, another renderer and cut margins. Pure.

The perceptual hash of `imagehash` (DCT, 16 x 16 bits) of the page trimmed to its ink. Of 551 pages of 17 documents,
unrelated pages differ in 22 % of the bits at least, while 95 % of the pages that were rasterised, compressed and
rasterised again differ in less than 15 %. With 8 x 8 bits unrelated pages of text come as near as 3 %, and the
difference hash of the same size comes as near as 4 %. A crop that cuts ink moves every bit; so the pages of a
benchmark, and only those, carry the hashes of several crops (`crop_hashes`).
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ENGINE = f"imagehash {importlib.metadata.version('imagehash')}"
HASH_SIDE = 16
HASH_BITS = HASH_SIDE * HASH_SIDE
LONG_SIDE = 448  # pixels of the raster that is hashed; a Letter page at 40 DPI
INK = 32  # grey levels between a pixel and the background
MIN_SIDE_SHARE = 0.25  # of the page's sides that the ink must span, else there is too little to compare
MIN_INK_SHARE = 0.01  # of the page's pixels
MIN_EDGE_SHARE = 0.008  # of neighbouring pixels, across and down, that differ: a smooth gradient has no hash of its own
EDGE = 16  # grey levels
EVEN_CROPS = tuple((c, c, c, c) for c in (0.0, 0.025, 0.05, 0.075, 0.1, 0.125))  # left, top, right, bottom
SIDES = ((0.0, 0.0), (0.05, 0.05), (0.1, 0.1), (0.05, 0.1), (0.1, 0.05))
UNEVEN_CROPS = tuple((left, top, right, bottom) for left, right in SIDES for top, bottom in SIDES)


def raster_size(width: float, height: float, long_side: int = LONG_SIDE) -> tuple[int, int]:
    """Pixels (width, height) of the raster to hash, for a page of these points."""
    scale = long_side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def image_hash(page: Image.Image) -> str:
    """The hash as 64 hex digits; '' for a page that is blank or nearly so, which resembles every other such page."""
    return _hash(np.asarray(page.convert("L")))


def crop_hashes(page: Image.Image, *, uneven: bool = True) -> tuple[str, ...]:
    """The hashes of a page and of its crops, the whole page first; () for a page that is nearly blank.

    `uneven`: also of crops that take more from one side than from the other, for a page that has no words.
    """
    grey = np.asarray(page.convert("L"))
    height, width = grey.shape
    found: list[str] = []
    for left, top, right, bottom in (*EVEN_CROPS, *(UNEVEN_CROPS if uneven else ())) if _hash(grey) else ():
        rows = slice(round(height * top), height - round(height * bottom))
        columns = slice(round(width * left), width - round(width * right))
        hashed = _hash(grey[rows, columns])
        if hashed and hashed not in found:
            found.append(hashed)
    return tuple(found)


def _hash(grey: NDArray[np.uint8]) -> str:
    height, width = grey.shape
    background = np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]]))
    ink = np.abs(grey - background) > INK
    if ink.mean() < MIN_INK_SHARE:
        return ""
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    shown = grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if shown.shape[0] < MIN_SIDE_SHARE * height or shown.shape[1] < MIN_SIDE_SHARE * width or min(shown.shape) < 2:
        return ""
    if any((np.abs(np.diff(shown.astype(np.int16), axis=axis)) > EDGE).mean() < MIN_EDGE_SHARE for axis in (0, 1)):
        return ""
    import imagehash  # only where a page is hashed

    return str(imagehash.phash(Image.fromarray(shown), hash_size=HASH_SIDE))


def bits(hashes: Sequence[str]) -> NDArray[np.float32]:
    """Hashes as rows of -1 and 1: [n] -> [n, 256]."""
    raw = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(len(hashes), HASH_BITS // 8)
    return np.unpackbits(raw, axis=1).astype(np.float32) * 2 - 1


def distances(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Share of bits in which each of `a` differs from each of `b`: [n, 256], [m, 256] -> [n, m]."""
    return ((HASH_BITS - a @ b.T) / (2 * HASH_BITS)).astype(np.float32)
