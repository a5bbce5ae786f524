"""Can a page's text layer be believed? Pure; `corpus.parse` asks, and sends the page to OCR where it cannot.

A layer lies in many ways: fonts without a Unicode map give private-use or unassigned code points, "(cid:12)", letters
shifted along the alphabet, bytes swapped or decoded twice; text is drawn invisibly (somebody else's OCR), outside the
page, or twice for a bold look; and a scan may carry a stamp as its only text. Each test below is for one of these, with
a threshold that no sound page among 1,100 of annual reports, papers, manuals and slides reaches
(`benchmarks/bench_text_layer.py`). Tests on words need enough words to be fair: a short page passes.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from corpus.layout import Line, PageLayout, Word, center, contains
from corpus.records import Box

T = TypeVar("T", Word, Line)

MIN_CHARS = 16  # fewer visible characters are no usable text layer
MAX_UNMAPPED = 0.1  # share of characters without a meaning
MIN_WORDS = 20  # of a kind, before a share of them says anything
MAX_MIXED = 0.2  # share of words that mix scripts within a word
MIN_LETTERS = 200  # of Latin script, before their frequencies say anything
COMMON = frozenset("eaintors")  # two thirds of a text in any language of Latin script, 8 of 26 in gibberish
MIN_COMMON = 0.45
MIN_ALPHANUMERIC = 0.4  # share of letters and digits among visible characters, leaders and rules aside
MIN_SWAPPED = 0.3  # share of characters that are a Latin letter with its two bytes swapped
MAX_TWICE_DECODED = 0.02  # per character
MAX_COLLIDING = 0.3  # share of characters in lines that are printed across other lines
PAGE_IMAGE = 0.7  # of the page's area: images this large may be a scan of the whole page
SPARSE_CHARS = 300  # on a page under such an image: a stamp or a running title rather than the page's text

CID = re.compile(r"\(cid:\d+\)")
TWICE_DECODED = re.compile("[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac|\u00ef\u00bf\u00bd")
NOT_LETTERS = re.compile(r"[\W\d_]+")
LEADERS = re.compile(r"[.\-_=*~\u00b7\u2013\u2014\u2022\u2026\u2500-\u257f]")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where the page's text should come from.

    `source`: layer, ocr, or better (read the page by OCR and take what says more). `reason`: '' for a sound layer.
    """

    source: str
    reason: str = ""


SOUND = Verdict("layer")


def examine(layout: PageLayout, image_share: Callable[[], float]) -> tuple[PageLayout, Verdict]:
    """What the page shows of its text layer, and whether that may be used.

    Args:
        layout: everything the layer holds.
        image_share: gives the share of the page's area that images cover, 0..1 (above 1 where they overlap); asked
            only of pages with little text, since finding the images takes as long as reading the words.
    """
    hidden = sum(len(line.text) for line in layout.lines if line.hidden)
    shown = sum(len(line.text) for line in layout.lines) - hidden
    if hidden > shown:
        return layout, Verdict("ocr", f"invisible-text-layer: {hidden} of {hidden + shown} characters")
    layout = _visible(layout)
    return layout, _verdict(layout, image_share)


def _verdict(layout: PageLayout, image_share: Callable[[], float]) -> Verdict:
    words = [w.text for w in layout.words]
    text = "".join(words)
    if len(text) < MIN_CHARS:
        return Verdict("ocr", f"text-layer-of-{len(text)}-characters")
    fault = garbled(words)
    if fault:
        return Verdict("ocr", f"garbled-text-layer: {fault}")
    colliding, printed = _colliding(layout.lines), sum(len(line.text) for line in layout.lines)
    if len(layout.words) >= MIN_WORDS and colliding > MAX_COLLIDING * printed:
        return Verdict("ocr", f"overlapping-text: {colliding} of {printed} characters are printed across others")
    if len(text) < SPARSE_CHARS and image_share() > PAGE_IMAGE:
        return Verdict("better", f"sparse-text-over-image: {len(text)} characters")
    return SOUND


def garbled(words: Sequence[str]) -> str:
    """Why these words cannot be what the page shows; '' where they can."""
    text = "".join(words)
    chars = Counter(text)  # a page has three thousand characters, but about eighty different ones
    unmapped = len("".join(CID.findall(text))) + _count(chars, _is_unmapped)
    if unmapped > MAX_UNMAPPED * len(text):
        return f"{unmapped} of {len(text)} characters are unmapped"
    if not text.isascii():
        swapped = _count(chars, _is_swapped)
        if swapped > MIN_SWAPPED * len(text):
            return f"{swapped} of {len(text)} characters have their bytes swapped"
        twice = len(TWICE_DECODED.findall(text))
        if twice > MAX_TWICE_DECODED * len(text):
            return f"{twice} letters were decoded twice"
        long = sum(len(word) >= 4 for word in words if word.isascii())
        runs = [run for word in words if not word.isascii() for run in NOT_LETTERS.split(word) if len(run) >= 4]
        mixed = sum(len({*map(_script, run)} - {""}) > 1 for run in runs)
        if long + len(runs) >= MIN_WORDS and mixed > MAX_MIXED * (long + len(runs)):
            return f"{mixed} of {long + len(runs)} words mix scripts"
    body = _count(chars, lambda c: not LEADERS.match(c))
    named = _count(chars, lambda c: c.isalnum() or unicodedata.category(c)[0] == "M")
    if body >= 5 * MIN_WORDS and named < MIN_ALPHANUMERIC * body:
        return f"{named} of {body} characters are letters or digits"
    latin = Counter[str]()
    for char, count in chars.items():
        letter = char.lower() if char.isascii() else unicodedata.normalize("NFD", char)[0].lower()
        if "a" <= letter <= "z":
            latin[letter] += count
    common = sum(latin[c] for c in COMMON)
    if latin.total() >= MIN_LETTERS and common < MIN_COMMON * latin.total():
        return f"{common} of {latin.total()} Latin letters are common ones"
    return ""


def _count(chars: Mapping[str, int], test: Callable[[str], object]) -> int:
    return sum(count for char, count in chars.items() if test(char))


def _is_swapped(char: str) -> bool:
    """A Latin letter or digit with its two bytes exchanged."""
    return ord(char) >= 0x2000 and ord(char) % 256 == 0 and chr(ord(char) // 256).isalnum()


def _is_unmapped(char: str) -> bool:
    return char == "\ufffd" or (not char.isprintable() and unicodedata.category(char) in ("Co", "Cn", "Cc"))


@functools.lru_cache(maxsize=4096)
def _script(char: str) -> str:
    """The script of a letter, as the first word of its Unicode name; '' for what every script may use.

    The scripts of Chinese, Japanese and Korean count as one, for they are mixed in every sentence.
    """
    if not char.isalpha():
        return ""
    name = unicodedata.name(char, "").split(" ")[0].removesuffix("-A")
    if name in ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HANGUL", "HALFWIDTH", "FULLWIDTH", "BOPOMOFO"):
        return "CJK"
    return "" if name in ("MICRO", "OHM", "ANGSTROM", "KELVIN", "MODIFIER", "FEMININE", "MASCULINE") else name


def _visible(layout: PageLayout) -> PageLayout:
    """The layout without lines and words that are drawn invisibly, outside the page, or a second time."""
    lines = _once([line for line in layout.lines if not line.hidden and _on_page(line.box, layout)])
    if len(lines) == len(layout.lines):
        return layout
    shown, hidden = [line.box for line in lines], [line.box for line in layout.lines if line.hidden]
    words = [w for w in layout.words if _on_page(w.box, layout)]
    words = [w for w in words if not _in_any(w.box, hidden) or _in_any(w.box, shown)]
    return replace(layout, words=_once(words), lines=lines)


def _on_page(box: Box, layout: PageLayout) -> bool:
    return contains((0.0, 0.0, layout.width, layout.height), center(box))


def _in_any(box: Box, boxes: Iterable[Box]) -> bool:
    middle = center(box)
    return any(contains(b, middle) for b in boxes)


def _once(items: Sequence[T]) -> tuple[T, ...]:
    """The items without those that repeat an earlier one within a fraction of its height: bold by printing twice."""
    if len({item.text for item in items}) == len(items):
        return tuple(items)
    kept: list[T] = []
    at: dict[str, list[Box]] = {}
    for item in items:
        twins = at.setdefault(item.text, [])
        if not any(_same_place(item.box, twin) for twin in twins):
            twins.append(item.box)
            kept.append(item)
    return tuple(kept)


def _same_place(a: Box, b: Box) -> bool:
    reach = 0.25 * min(a[3] - a[1], b[3] - b[1])
    return all(abs(p - q) <= reach for p, q in zip(a, b, strict=True))


def _colliding(lines: Sequence[Line]) -> int:
    """Characters of lines that are printed across other lines: two layers of text, one on top of the other."""
    ordered = sorted((center(line.box)[1], i) for i, line in enumerate(lines))
    across: set[int] = set()
    for at, (y, i) in enumerate(ordered):
        ax0, ay0, ax1, ay1 = lines[i].box
        for other_y, j in ordered[at + 1 :]:
            bx0, by0, bx1, by1 = lines[j].box
            if other_y - y > min(ay1 - ay0, by1 - by0) / 4:
                break
            if min(ax1, bx1) - max(ax0, bx0) > 0.3 * min(ax1 - ax0, bx1 - bx0):
                across |= {i, j}
    return sum(len(lines[i].text) for i in across)
