"""What a page and a document can be recognised by: hashes of word runs, of the page's picture, and a language.

A page's *word hashes* are the smallest 64 hashes of its runs of five words. Two samples made this way hold the same
part of what two pages share, also where one of them was cropped, so that `resemblance` needs nothing but them. A
document's signature is the MinHash of all its runs (`datasketch`). Word hashes are 256 bytes a page and a signature
is 512 bytes a document, so that comparing a whole corpus needs no page in memory.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corpus.blocks import flatten
from corpus.language import detect_language
from corpus.records import Page, content_id
from corpus.store import read_records, write_records

STAGE_VERSION = 1  # raise it when the same pages should be sketched anew
ENGINES = tuple(f"{name} {importlib.metadata.version(name)}" for name in ("datasketch", "py3langid"))

RUN_WORDS = 5
MIN_RUNS = 16  # fewer are too few to tell one page from another
WORD_HASHES = 64
PERMUTATIONS = 128
SEED = 1
SIGNATURE_IMAGES = 8
IDEOGRAPHS = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # Chinese and Japanese have no spaces: each is a word
LETTERS = rf"[^\W_{IDEOGRAPHS}]+"
WORD = re.compile(rf"[{IDEOGRAPHS}]|{LETTERS}(?:[.,]{LETTERS})*")  # "1,234.5" is one word: figures tell documents apart


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSketch:
    """One page. `image` and `words` are hex, '' where the page shows too little to be recognised by it."""

    doc_id: str
    page: int  # 0-based
    image: str  # of `corpus.page_images`
    words: str  # of `word_hashes`
    text: str  # hash of all its words, '' where it has none

    @property
    def informative(self) -> bool:
        return bool(self.image or self.words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One document. `minhash` is hex, '' where no page has enough words."""

    doc_id: str
    num_layer_pages: int  # pages with a sound text layer
    minhash: str
    images: str  # image hashes of its first pages that have one, joined
    language: str  # detected, '' where in doubt


@dataclass(frozen=True, slots=True, kw_only=True)
class SketchJob:
    """Documents of a partition to sketch."""

    doc_ids: tuple[str, ...]
    pages_file: Path
    sketches: Path
    signatures: Path


def sketch_partition(job: SketchJob, progress: Callable[[int], None]) -> None:
    """Write the sketches of a partition's pages and the signatures of its documents; runs in a worker."""
    sketches: list[PageSketch] = []
    signatures = []
    pages = {d: list(g) for d, g in itertools.groupby(read_records(job.pages_file, Page), attrgetter("doc_id"))}
    for doc_id in job.doc_ids:
        of_document = pages[doc_id]
        words = [page_words(p) for p in of_document]
        runs = [run_hashes(w) for w in words]
        own = [page_sketch(p, w) for p, w in zip(of_document, words, strict=True)]
        sketches += own
        signatures.append(
            Signature(
                doc_id=doc_id,
                num_layer_pages=sum(p.has_sound_layer for p in of_document),
                minhash=minhash_of(r for r in runs if len(r) >= MIN_RUNS),
                images="".join([s.image for s in own if s.image][:SIGNATURE_IMAGES]),
                language=detect_language([p.text for p in of_document]),
            )
        )
        progress(len(of_document))
    write_records(job.sketches, PageSketch, sketches)
    write_records(job.signatures, Signature, signatures)


def words_of(text: str) -> list[str]:
    """Words as they are compared: case folded, compatibility forms and punctuation gone."""
    return WORD.findall(unicodedata.normalize("NFKC", flatten(text)).casefold())


def page_words(page: Page) -> list[str]:
    """Every word of a page, in reading order."""
    return [w for b in page.blocks if b.text for w in words_of(b.text)]


def page_sketch(page: Page, words: list[str]) -> PageSketch:
    """The sketch of a page with these words."""
    return PageSketch(
        doc_id=page.doc_id,
        page=page.index,
        image=page.image_hash,
        words=word_hashes(run_hashes(words)),
        text=content_id(words) if words else "",
    )


def run_hashes(words: list[str]) -> NDArray[np.uint32]:
    """Hashes of every run of five words, sorted, each once: [n words] -> at most [n - 4]."""
    count = len(words) - RUN_WORDS + 1
    if count < 1:
        return np.zeros(0, np.uint32)
    single = np.fromiter((zlib.crc32(w.encode("utf-8", "replace")) for w in words), np.uint64, len(words))
    mixed = np.zeros(count, np.uint64)
    for k in range(RUN_WORDS):
        mixed = (mixed ^ single[k : k + count]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return np.unique((mixed >> np.uint64(32)).astype(np.uint32))


def word_hashes(runs: NDArray[np.uint32]) -> str:
    """The smallest hashes of a page's runs, as hex; '' where there are too few to recognise the page by."""
    return runs[:WORD_HASHES].astype(">u4").tobytes().hex() if len(runs) >= MIN_RUNS else ""


def unpack(hashes: str) -> NDArray[np.uint32]:
    """Hex of 32-bit numbers as an array."""
    return np.frombuffer(bytes.fromhex(hashes), ">u4").astype(np.uint32)


def minhash_of(runs: Iterable[NDArray[np.uint32]]) -> str:
    """The MinHash of all runs together as hex, '' where there is none."""
    from datasketch import MinHash  # a second to import; the parent process does without

    sketch = MinHash(num_perm=PERMUTATIONS, seed=SEED, hashfunc=int)
    for hashes in runs:
        sketch.update_batch(hashes)
    return "" if sketch.is_empty() else sketch.hashvalues.astype(">u4").tobytes().hex()


def resemblance(a: NDArray[np.uint32], b: NDArray[np.uint32]) -> float:
    """Share of word hashes that two pages have in common, of the page with fewer: 0..1."""
    return len(np.intersect1d(a, b, assume_unique=True)) / min(len(a), len(b))
