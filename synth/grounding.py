"""Where a quote or an answer stands in the text of a page: words and numbers looked up in its blocks.

Spaces, punctuation, case and separators of thousands make no difference, and a hyphen at a line's end is joined; a
match begins and ends where words do, so "art" is not found in "party". Text that OCR read may differ in a few letters,
digits never: a number is what it is or is not found.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

from rapidfuzz import fuzz, process
from rapidfuzz.distance import LCSseq

from corpus.blocks import flatten
from corpus.layout import union
from corpus.records import Block, Box, Evidence, Page
from synth.answers import list_items
from synth.ocr_text import mended
from synth.quantities import Date, Quantity, dates, folded, quantities

CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
TOKEN = re.compile(rf"\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?(?!\d)|\d+(?:\.\d+)*|[{CJK}]|[^\W\d_{CJK}]+")
_STOP_WORDS = (
    "a an the of to and or in on at for by from between with is was are were be been as it its that this which"
)
STOP_WORDS = frozenset(_STOP_WORDS.split()) | frozenset("的了和与及至到为是在于由从")
OCR_LIKENESS = 88.0  # percent of the letters of a passage
OCR_WORD_LIKENESS = 80.0
OCR_MIN_CHARS = 6  # shorter texts must be exact
SPREAD = 2  # the words of an answer stand in order within so many times their number of words, plus a few
SPREAD_WORDS = 6
MAX_QUERY_CHARS = 4_000
NEAR_BLOCKS = 3  # that a quote may run over


def tokens(text: str) -> list[str]:
    """Words in lower case, Chinese characters and numbers without separators of thousands, in order."""
    return [_token(m[0]) for m in TOKEN.finditer(folded(text[:MAX_QUERY_CHARS]))]


def _token(text: str) -> str:
    return text.replace(",", "") if text[0].isdecimal() else text.casefold()


def joined(words: Iterable[str]) -> str:
    """Tokens as one text without spaces; numbers keep their ends, so that 4 12 is not 412."""
    return "".join(f"|{w}|" if w[0].isdecimal() else w for w in words)


def contains(text: str, part: str) -> bool:
    """Whether the words of `part` stand in `text`, one after another."""
    return _Index([tokens(text)]).find(joined(tokens(part))) is not None


def _neighbours(words: Sequence[str]) -> set[str]:
    """Chinese characters two by two as they follow one another, and the words of other scripts."""
    found = {w for w in words if not _is_chinese(w)}
    for chinese, run in itertools.groupby(words, _is_chinese):
        characters = list(run)
        if chinese:
            found.update(a + b for a, b in itertools.pairwise(characters))
            found.update(characters if len(characters) == 1 else ())
    return found


def _is_chinese(word: str) -> bool:
    return re.match(f"[{CJK}]", word) is not None


def _is_among(number: str, words: frozenset[str]) -> bool:
    """Whether a number stands among words, with or without closing zeros."""
    if number in words:
        return True
    return number.count(".") < 2 and any(
        w.count(".") < 2 and Decimal(w) == Decimal(number) for w in words if w[0].isdecimal()
    )


class _Index:
    """Tokens of several blocks, joined, with the places where they begin and end."""

    def __init__(self, blocks: Sequence[Sequence[str]]) -> None:
        self.words = [w for block in blocks for w in block]
        self.block_of = [b for b, block in enumerate(blocks) for _ in block]
        self.text = joined(self.words)
        self._ends: list[int] = []
        end = 0
        for word in self.words:
            end += len(word) + (2 if word[0].isdecimal() else 0)
            self._ends.append(end)
        self._starts = [0, *self._ends[:-1]]

    def find(self, key: str) -> tuple[int, int] | None:
        """First and last token of the first place where the joined tokens stand."""
        at = self.text.find(key) if key else -1
        while at >= 0:
            first, last = self._at(self._starts, at), self._at(self._ends, at + len(key))
            if first is not None and last is not None:
                return first, last
            at = self.text.find(key, at + 1)
        return None

    @staticmethod
    def _at(places: Sequence[int], offset: int) -> int | None:
        i = bisect.bisect_left(places, offset)
        return i if i < len(places) and places[i] == offset else None

    def covering(self, start: int, end: int) -> tuple[int, int]:
        """First and last token that the characters from start to end touch."""
        return bisect.bisect_right(self._ends, start), bisect.bisect_left(self._ends, end)


@dataclass(frozen=True, slots=True)
class Found:
    """A place on a page, and the box of its blocks."""

    page: int
    box: Box


class PageText:
    """The text of one page, ready to be looked into."""

    def __init__(self, page: Page) -> None:
        self.page = mended(page)
        self.blocks = [b for b in self.page.blocks if b.text]
        self.by_ocr = page.text_source == "ocr"

    @property
    def readable(self) -> bool:
        """Whether there is any text to find something in."""
        return self.page.text_source != "none" and bool(self.blocks)

    @cached_property
    def text(self) -> str:
        """All blocks, folded, one a line."""
        return "\n".join(folded(flatten(b.text)) for b in self.blocks)

    @cached_property
    def _index(self) -> _Index:
        return _Index(self._tokens)

    @cached_property
    def _tokens(self) -> list[list[str]]:
        """Of each block, however long."""
        return [[_token(m[0]) for m in TOKEN.finditer(folded(flatten(b.text)))] for b in self.blocks]

    @cached_property
    def words(self) -> frozenset[str]:
        return frozenset(self._index.words)

    @cached_property
    def quantities(self) -> list[Quantity]:
        return [q for line in self.text.split("\n") for q in quantities(line)]

    @cached_property
    def dates(self) -> list[Date]:
        return [d for line in self.text.split("\n") for d in dates(line)]

    def find(self, text: str) -> Found | None:
        """The words of a text one after another, on a page read by OCR with a few wrong letters."""
        wanted = tokens(text)
        key = joined(wanted)
        if place := self._index.find(key):
            return self._found(*place)
        if not self.by_ocr or not OCR_MIN_CHARS <= len(key) <= len(self._index.text):
            return None
        near = fuzz.partial_ratio_alignment(key, self._index.text, score_cutoff=OCR_LIKENESS)
        if near is None or near.dest_start == near.dest_end:
            return None
        first, last = self._index.covering(near.dest_start, near.dest_end)
        numbers = [w for w in self._index.words[first : last + 1] if w[0].isdecimal()]
        if numbers != [w for w in wanted if w[0].isdecimal()]:
            return None
        return self._found(first, last)

    def find_in_order(self, text: str) -> Found | None:
        """The words of a text in their order, few others between them: "4 June to 19 July" in "4 June and 19 July"."""
        wanted = [w for w in tokens(text) if w not in STOP_WORDS]
        reach = SPREAD * len(wanted) + SPREAD_WORDS
        words = self._index.words
        if not wanted:
            return None
        for start, word in enumerate(words):
            if word != wanted[0]:
                continue
            at = start
            for other in wanted[1:]:
                try:
                    at = words.index(other, at + 1, start + reach)
                except ValueError:
                    break
            else:
                return self._found(start, at)
        return None

    def _found(self, first: int, last: int) -> Found:
        blocks = self.blocks[self._index.block_of[first] : self._index.block_of[last] + 1]
        return Found(self.page.index, union([b.box for b in blocks]))

    def coverage(self, text: str) -> tuple[float, str]:
        """Share of a text's words that stand near one another, and a number that is not on the page ('' = all are).

        Near: in neighbouring blocks that also hold the numbers. Of Chinese, neighbouring characters count: one by one
        they stand on every page.
        """
        wanted = tokens(text)
        numbers = {w for w in wanted if w[0].isdecimal()}
        if missing := next((w for w in wanted if w in numbers and not _is_among(w, self.words)), ""):
            return 0.0, missing
        chinese = re.search(f"[{CJK}]", text) is not None
        plain = (_neighbours(wanted) if chinese else set(wanted)) - numbers - STOP_WORDS
        if not plain:
            return 1.0, ""
        share = max((self._covered(plain, numbers, words) for words in self._windows), default=0.0)
        if share < QUOTE_COVERAGE or chinese or self.by_ocr:
            return share, ""
        return min(share, self._in_order([w for w in wanted if w in plain])), ""

    def _in_order(self, words: Sequence[str]) -> float:
        """Share of words that stand in their order in neighbouring blocks."""
        runs = ([w for own in self._tokens[i : i + NEAR_BLOCKS] for w in own] for i in range(len(self._tokens)))
        return max((LCSseq.similarity(words, run) for run in runs), default=0) / len(words)

    def _covered(self, plain: set[str], numbers: set[str], words: frozenset[str]) -> float:
        """Share of plain words among those of a few blocks; 0 where these lack a number."""
        if not all(_is_among(n, words) for n in numbers):
            return 0.0
        missing = plain - words
        if self.by_ocr:
            missing = {w for w in missing if not self._nearly(w, words)}
        return 1 - len(missing) / len(plain)

    @cached_property
    def _windows(self) -> list[frozenset[str]]:
        """The words, and pairs of Chinese characters, of each few neighbouring blocks."""
        found: list[set[str]] = [set() for _ in self.blocks]
        for i, words in enumerate(self._tokens):
            own = {*words, *_neighbours(words)}
            for j in range(max(0, i - NEAR_BLOCKS + 1), i + 1):
                found[j] |= own
        return [frozenset(words) for words in found]

    @staticmethod
    def _nearly(word: str, words: frozenset[str]) -> bool:
        if word[0] >= "\u3000":  # one of two characters may be misread
            return any(c in words for c in word)
        if len(word) < OCR_MIN_CHARS - 2:
            return False
        letters = [w for w in words if not w[0].isdecimal()]
        return process.extractOne(word, letters, scorer=fuzz.ratio, score_cutoff=OCR_WORD_LIKENESS) is not None


# --------------------------------------------------------------------------------------------------------- answers

SCALE_WORDS = (  # power of ten, and the words of a page that name it
    (3, re.compile(r"thousand|千元", re.IGNORECASE)),
    (4, re.compile("万")),
    (6, re.compile(r"million|百万", re.IGNORECASE)),
    (8, re.compile("亿")),
    (9, re.compile("billion", re.IGNORECASE)),
)


def find_answer(answer: str, answer_format: str, page: PageText) -> Found | None:
    """Where a page holds an answer that is no list: its words, or its number or date in any notation.

    A number without its scale is found where the page names the scale: 5300000 in a table "in millions" that shows 5.3.
    """
    if found := page.find(answer):
        return found
    text = folded(answer)
    values = quantities(text)
    if len(values) == 1 and _says_only(text, values[0], answer_format):
        return _whole(page) if _has_value(page, values[0]) else None
    days = dates(text)
    if len(days) == 1 and any(_within(days[0], d) for d in page.dates):
        return _whole(page)
    return page.find_in_order(answer)


def says(passage: str, answer: str, text: str) -> bool:
    """Whether a passage says an answer, in a scale that the text of its page names."""
    page = Page(
        doc_id="",
        index=0,
        width=1.0,
        height=1.0,
        rotation=0,
        text_source="ocr",  # letters may be read otherwise than the answer writes them
        blocks=(Block(kind="text", box=(0.0, 0.0, 1.0, 1.0), text=passage),),
    )
    quoted = PageText(page)
    if find_answer(answer, "String", quoted):
        return True
    values = quantities(folded(answer))
    return len(values) == 1 and _has_value(quoted, values[0], text)


def _says_only(text: str, value: Quantity, answer_format: str) -> bool:
    rest = text[: value.start] + text[value.end :]
    return answer_format in ("Integer", "Float") or not any(c.isalnum() for c in rest)


def _has_value(page: PageText, wanted: Quantity, scales_in: str = "") -> bool:
    powers = [0, *(power for power, word in SCALE_WORDS if word.search(scales_in or page.text))]
    for shown in page.quantities:
        if wanted.unit and wanted.unit != shown.unit and (shown.unit or not _telling(wanted)):
            continue
        if any(abs(shown.value).scaleb(power) == abs(wanted.value) for power in powers):
            return True
        if shown.power and abs(shown.value).scaleb(-shown.power) == abs(wanted.value):
            return True
    return False


def _telling(number: Quantity) -> bool:
    """A number that does not stand on every page, so that its unit may stand elsewhere: in the header of a table."""
    return bool(number.decimals) or abs(number.value) >= TELLING_NUMBER


def _within(wanted: Date, shown: Date) -> bool:
    """Whether a date is the one shown, or its month or year."""
    return all(not w or w == s for w, s in zip(wanted.parts, shown.parts, strict=True))


def _whole(page: PageText) -> Found:
    return Found(page.page.index, union([b.box for b in page.blocks]))


# --------------------------------------------------------------------------------------------------------- evidence

TELLING_NUMBER = 100
QUOTE_COVERAGE = 0.7  # of a quote's words, on the page that it is said to come from


def find_quote(quote: str, pages: Sequence[PageText]) -> Found | None:
    """The page that holds a quote and the box of its blocks, which is the first that holds it to the letter.

    A quote from a table leaves out cells, so its words may stand apart; its numbers must all stand on the page.
    """
    for page in pages:
        if found := page.find(quote):
            return found
    for page in pages:
        share, missing = page.coverage(quote)
        if page.readable and not missing and share >= QUOTE_COVERAGE:
            return page.find_in_order(quote) or _nearest_block(quote, page)
    return None


def _nearest_block(quote: str, page: PageText) -> Found:
    """The block that has most of a quote's words; the page's text where several have as many."""
    wanted = set(tokens(quote))
    shared = [len(wanted & set(tokens(b.text))) for b in page.blocks]
    best = max(shared)
    if shared.count(best) != 1:
        return _whole(page)
    return Found(page.page.index, page.blocks[shared.index(best)].box)


def find_evidence(
    evidence_pages: Sequence[int],
    sources: Sequence[str],
    quotes: Sequence[str],
    answer: str,
    answer_format: str,
    pages: Sequence[Page],
) -> tuple[Evidence, ...]:
    """The evidence of a reply with its boxes: one entry a quote, and one for each page that no quote was found on.

    Args:
        evidence_pages: 0-based indices of the pages that the writer named.
        sources: what holds the evidence, one for each of these pages.
        quotes: in any order; one that is found nowhere is kept without a box.
        answer: marks the place on a page that no quote was found on.
        answer_format: of the answer.
        pages: of the document.
    """
    kinds = dict(zip(evidence_pages, sources, strict=True))
    texts = [PageText(p) for p in pages if p.index in kinds]
    found = [(quote, find_quote(quote, texts)) for quote in quotes]
    bare = [n for n in evidence_pages if n not in {f.page for _, f in found if f}]
    entries = []
    lost = 0
    for quote, place in found:
        if place:
            entries.append(Evidence(page=place.page, kind=kinds[place.page], quote=quote, box=place.box))
        else:
            number = bare[min(lost, len(bare) - 1)] if bare else evidence_pages[0]
            lost += 1
            entries.append(Evidence(page=number, kind=kinds[number], quote=quote))
    items = list_items(answer) if answer_format == "List" else [answer]
    for number in bare[lost:]:
        text = next((t for t in texts if t.page.index == number), None)
        place = next((f for i in items if text and text.readable and (f := find_answer(i, "String", text))), None)
        entries.append(Evidence(page=number, kind=kinds[number], quote="", box=place.box if place else None))
    return tuple(sorted(entries, key=lambda e: e.page))
