"""Which documents show the same pages as others, and which copy is the best. Pure.

Candidates come from bands: eight values of a MinHash (16 bands), or 32 bits of the image hash of one of a document's
first pages. Whoever shares a band is compared page by page, and only pages decide: two annual reports of one company
share phrases, a filled form shares its picture, neither shares its pages.

Documents are taken in the order of `copy_rank`, best first; each is compared to those already kept alone. So a chain
of small changes never merges its two ends, and neither workers nor the order of inputs matter. Bands are sorted one
after another in NumPy: 32 bytes a document at a time instead of the several kilobytes of an LSH table in Python.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corpus.config import CleanSettings
from corpus.page_images import HASH_BITS, bits, distances
from corpus.records import Document
from corpus.sketches import PERMUTATIONS, PageSketch, Signature, resemblance, unpack

BAND_VALUES = 8  # of a MinHash: documents that have 85 % of their runs in common share a band in 99 of 100 cases
BAND_DIGITS = 8  # hex digits of an image hash: 32 bits
MIX = np.uint64(0x9E3779B97F4A7C15) ** np.arange(1, BAND_VALUES + 1, dtype=np.uint64)  # wraps: a band to one number
MIN_JACCARD = 0.6  # estimated, of candidates whose words differ more no page is read
MAX_COMPARED = 64  # members of one band that a document is compared to, the best first
SCAN_WORDS = 0.8  # resemblance of the words that OCR reads twice from the same picture; a form filled anew has less


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """A document that shows the same pages as a better copy."""

    doc_id: str
    kept: str  # the better copy's id
    shared_pages: int
    of_pages: int  # of the copy with more pages that can be recognised


def copy_rank(document: Document, signature: Signature) -> tuple[int, int, int, str]:
    """Sorts copies, the best first: most pages, most pages with a text layer, most bytes, smallest id."""
    return -document.num_pages, -signature.num_layer_pages, -document.num_bytes, document.doc_id


def find_duplicates(
    ranked: Sequence[Signature], sketches_of: Callable[[str], Sequence[PageSketch]], settings: CleanSettings
) -> list[Duplicate]:
    """The documents that an earlier one of `ranked` makes superfluous.

    Args:
        ranked: signatures, the best copy first.
        sketches_of: the pages of a document, read when a candidate has to be looked at.
    """
    earlier: dict[int, set[int]] = defaultdict(set)
    for later, first in itertools.chain(_word_candidates(ranked), _image_candidates(ranked)):
        earlier[later].add(first)
    found: dict[int, Duplicate] = {}
    for later in sorted(earlier):
        for first in sorted(earlier[later] - found.keys()):
            a, b = sketches_of(ranked[later].doc_id), sketches_of(ranked[first].doc_id)
            shared, of = shared_pages(a, b, settings)
            if of and shared >= settings.duplicate_pages * of:
                found[later] = Duplicate(
                    doc_id=ranked[later].doc_id, kept=ranked[first].doc_id, shared_pages=shared, of_pages=of
                )
                break
    return [found[i] for i in sorted(found)]


def shared_pages(a: Sequence[PageSketch], b: Sequence[PageSketch], settings: CleanSettings) -> tuple[int, int]:
    """Pages that two documents have in common, and how many the one with more informative pages has of these."""
    ours, theirs = ([p for p in pages if p.informative] for pages in (a, b))
    most = max(len(ours), len(theirs))
    if min(len(ours), len(theirs)) < settings.duplicate_pages * most:
        return 0, most
    there = [{i for i, q in enumerate(theirs) if _same_page(p, q, settings)} for p in ours]
    return min(sum(map(bool, there)), len(set().union(*there))), most


def _same_page(a: PageSketch, b: PageSketch, settings: CleanSettings) -> bool:
    """By words where both have enough; a picture decides only where words do not object, for forms look alike."""
    if a.words and b.words:
        words = resemblance(unpack(a.words), unpack(b.words))
        if words >= settings.duplicate_words:
            return True
        if words < SCAN_WORDS:
            return False
    elif a.text and b.text and a.text != b.text:
        return False
    if not a.image or not b.image:
        return False
    return bool(distances(bits([a.image]), bits([b.image]))[0, 0] <= settings.duplicate_image)


def _word_candidates(ranked: Sequence[Signature]) -> Iterator[tuple[int, int]]:
    """Pairs (later, earlier) whose MinHashes share a band and are alike enough."""
    with_words = [i for i, s in enumerate(ranked) if s.minhash]
    if not with_words:
        return
    owners = np.array(with_words)
    hashes = np.empty((len(with_words), PERMUTATIONS), np.uint32)
    for row, i in enumerate(with_words):
        hashes[row] = unpack(ranked[i].minhash)
    for band in range(0, PERMUTATIONS, BAND_VALUES):
        keys = hashes[:, band : band + BAND_VALUES].astype(np.uint64) @ MIX
        for later, first in _pairs(keys):
            if (hashes[later] == hashes[first]).mean() >= MIN_JACCARD:
                yield int(owners[later]), int(owners[first])


def _image_candidates(ranked: Sequence[Signature]) -> Iterator[tuple[int, int]]:
    """Pairs (later, earlier) of which two of the first pages agree in 32 bits of their image hashes."""
    digits = HASH_BITS // 4
    hashes = [(i, s.images[k : k + digits]) for i, s in enumerate(ranked) for k in range(0, len(s.images), digits)]
    if not hashes:
        return
    owners = np.array([i for i, _ in hashes])
    for band in range(0, digits, BAND_DIGITS):
        keys = np.array([int(h[band : band + BAND_DIGITS], 16) for _, h in hashes], np.uint32)
        for later, first in _pairs(keys):
            if owners[later] != owners[first]:
                yield int(owners[later]), int(owners[first])


def _pairs(keys: NDArray[np.unsignedinteger]) -> Iterator[tuple[int, int]]:
    """Positions (later, earlier) with the same key; of each key only so many of the earliest are partners."""
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.append(True, keys[order][1:] != keys[order][:-1]))
    sizes = np.diff(np.append(starts, len(keys)))
    for start, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True):
        group = order[start : start + size]
        for place in range(1, size):
            for first in group[: min(place, MAX_COMPARED)]:
                yield int(group[place]), int(first)


def explain(duplicate: Duplicate, uri: str) -> str:
    """The ledger's detail: which copy stays, at `uri`, and how much the two have in common."""
    shared = f"{duplicate.shared_pages} of {duplicate.of_pages} recognisable pages"
    return f"{shared} are those of {uri} ({duplicate.kept}), which is kept"
