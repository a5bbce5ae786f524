"""Does a document show pages of a benchmark, does a question repeat one of its questions? Pure.

A page matches a page of the benchmark by its words or by its picture (the benchmark's pages carry hashes of several
crops). A document is refused when enough of its own pages match, or enough of one benchmark document's: the one
finds an excerpt, the other a benchmark document inside a longer file. Pages that say too little count on neither side.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from corpus.benchmark_sets import BenchmarkPage, BenchmarkQuestion
from corpus.config import CleanSettings
from corpus.page_images import bits, distances
from corpus.sketches import PageSketch, unpack, words_of

GRAM_WORDS = 4
SINGLE_PAGE_SHARE = 0.5
MIN_GRAMS = 5  # a shorter question is compared whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Contamination:
    """What a document has in common with one benchmark document."""

    benchmark: str
    document_pages: int  # informative pages of ours that match
    of_document: int
    benchmark_pages: int  # informative pages of the benchmark's document that are found
    of_benchmark: int

    @property
    def share(self) -> float:
        return max(self.document_pages / self.of_document, self.benchmark_pages / self.of_benchmark)

    @property
    def detail(self) -> str:
        """For the ledger."""
        return (
            f"{self.document_pages} of {self.of_document} recognisable pages show "
            f"{self.benchmark_pages} of the {self.of_benchmark} of benchmark document {self.benchmark}"
        )


class PageIndex:
    """The pages of all benchmark documents, ready to be looked up."""

    def __init__(self, pages: Sequence[BenchmarkPage]) -> None:
        self._pages = pages
        self._of_document = Counter(p.document for p in pages)
        words = [unpack(p.words) for p in pages]
        owners = np.repeat(np.arange(len(pages)), [len(w) for w in words])
        hashes = np.concatenate([np.zeros(0, np.uint32), *words])
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._owners = hashes[order], owners[order]  # [h], [h]
        self._sizes = np.array([len(w) for w in words])
        images = [(i, h) for i, p in enumerate(pages) for h in p.images]
        self._image_owners = np.array([i for i, _ in images])
        self._images = bits([h for _, h in images])  # [m, 256]

    def matches(self, page: PageSketch, settings: CleanSettings) -> set[int]:
        """Benchmark pages, by position, that this page shows."""
        found: set[int] = set()
        if page.words and len(self._hashes):
            own = unpack(page.words)
            left, right = (np.searchsorted(self._hashes, own, side) for side in ("left", "right"))
            hits = np.concatenate([self._owners[a:b] for a, b in zip(left, right, strict=True)])
            owners, counts = np.unique(hits, return_counts=True)
            smaller = np.minimum(self._sizes[owners], len(own))
            found |= set(owners[counts >= settings.benchmark_words * smaller].tolist())
        if page.image and len(self._images):
            near = distances(bits([page.image]), self._images)[0] <= settings.benchmark_image
            found |= set(self._image_owners[near].tolist())
        return found

    def contamination(self, pages: Sequence[PageSketch], settings: CleanSettings) -> Contamination | None:
        """What the document has most in common with one of the benchmark's; None where it has nothing."""
        informative = [p for p in pages if p.informative]
        ours: Counter[str] = Counter()
        theirs: dict[str, set[int]] = defaultdict(set)
        for page in informative:
            matches = self.matches(page, settings)
            ours.update({self._pages[i].document for i in matches})
            for i in matches:
                theirs[self._pages[i].document].add(i)
        found = [
            Contamination(
                benchmark=name,
                document_pages=ours[name],
                of_document=len(informative),
                benchmark_pages=len(theirs[name]),
                of_benchmark=self._of_document[name],
            )
            for name in sorted(theirs)
        ]
        return max(found, key=lambda c: c.share, default=None)


def is_contaminated(found: Contamination | None, settings: CleanSettings) -> bool:
    """True where enough pages match. One page of many is not enough: documents share forms and licences."""
    if found is None or found.share < settings.benchmark_pages:
        return False
    return min(found.document_pages, found.benchmark_pages) > 1 or found.share >= SINGLE_PAGE_SHARE


class QuestionIndex:
    """The questions of all benchmarks, ready to be looked up."""

    def __init__(self, questions: Sequence[BenchmarkQuestion]) -> None:
        self._questions = questions
        self._grams = [_grams(words_of(q.question)) for q in questions]
        self._with_gram: dict[tuple[str, ...], list[int]] = defaultdict(list)
        self._whole: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for i, (question, grams) in enumerate(zip(questions, self._grams, strict=True)):
            self._whole[tuple(words_of(question.question))].append(i)
            for gram in grams if len(grams) >= MIN_GRAMS else ():
                self._with_gram[gram].append(i)

    def overlap(self, question: str, answer: str, least: float) -> str:
        """What in the benchmark this question repeats, for the ledger; '' where it repeats nothing.

        A question of few words ("What is the title?") repeats another only where the answers are the same too, or
        the benchmark gives none.
        """
        words = words_of(question)
        for i in self._whole.get(tuple(words), ()):
            known = self._questions[i]
            if len(self._grams[i]) >= MIN_GRAMS or not known.answer or words_of(known.answer) == words_of(answer):
                return f"the same words as the question of {known.where}"
        shared = Counter(i for gram in _grams(words) for i in self._with_gram.get(gram, ()))
        shares = [(n / len(self._grams[i]), -i) for i, n in shared.items()]
        share, place = max(shares, default=(0.0, 0))
        if share < least:
            return ""
        return f"{share:.0%} of the word runs of the question of {self._questions[-place].where}"


def _grams(words: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + GRAM_WORDS]) for i in range(len(words) - GRAM_WORDS + 1)}
