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
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from corpus.ink import LONG_SIDE, is_unseen, unread_chars
from corpus.layout import Line, PageLayout, Painting, Word, center, contains, image_share
from corpus.letters import unlikely_letters
from corpus.records import Box

T = TypeVar("T", Word, Line)

MIN_CHARS = 16  # fewer visible characters are no usable text layer
MAX_UNMAPPED = 0.1  # share of characters without a meaning
MIN_WORDS = 20  # of a kind, before a share of them says anything
MAX_MIXED = 0.2  # share of words that mix scripts within a word
MIN_ALPHANUMERIC = 0.4  # share of letters and digits among visible characters, leaders and rules aside
MIN_DIGITS = 200  # characters of a page without letters, before it is in doubt
ONLY_DIGITS = 0.8  # share of digits on such a page
MIN_SWAPPED = 0.3  # share of characters that are a Latin letter with its two bytes swapped
MAX_TWICE_DECODED = 0.02  # per character
MAX_COLLIDING = 0.3  # share of characters in lines that are printed across other lines
PAGE_IMAGE = 0.7  # of the page's area: images this large may be a scan of the whole page
SPARSE_CHARS = 300  # on a page under such an image: a stamp or a running title rather than the page's text
FEW_CHARS = 1_000  # with more, the layer holds at least a third of a page of print
SOME_IMAGE = 0.25  # of the page's area: images this large may hold text
MANY_SHAPES = 50  # may be letters as outlines
MIN_UNREAD = 100  # characters outside the layer, estimated
MAX_UNREAD = 1.0  # per character of the layer: OCR then reads twice as much

CID = re.compile(r"\(cid:\d+\)")
TWICE_DECODED = re.compile("[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac|\u00ef\u00bf\u00bd")
NOT_LETTERS = re.compile(r"[\W\d_]+")
LEADERS = re.compile(r"[.\-_=*~\u00b7\u2013\u2014\u2022\u2026\u2500-\u257f]")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where the page's text should come from.

    `source`: layer, ocr, or better (read the page by OCR and take what says more).
    """

    source: str
    reason: str


SOUND = Verdict("layer", "sound")


class View(Protocol):
    """A page to be looked at. Each question takes longer than the one before: 0.2, 2 and 10 ms a page."""

    def has_images(self) -> bool:
        """True where the page can show images."""
        ...

    def painting(self) -> Painting:
        """What the page paints, in the space of its layout."""
        ...

    def grey(self) -> NDArray[np.uint8]:
        """A picture of the page, its longer side `corpus.ink.LONG_SIDE` pixels: [height, width]."""
        ...


def examine(layout: PageLayout, view: View) -> tuple[PageLayout, Verdict]:
    """What the page shows of its text layer, and whether that may be used.

    Args:
        layout: everything the layer holds.
        view: the page, looked at only where its text is pale, under images, or little.
    """
    layout = _without_pale(layout, view)
    if layout.lines and view.has_images():
        layout = _without_covered(layout, view.painting())
    hidden = sum(len(line.text) for line in layout.lines if line.hidden)
    shown = sum(len(line.text) for line in layout.lines) - hidden
    if hidden > shown:
        return layout, Verdict("ocr", f"invisible-text-layer: {hidden} of {hidden + shown} characters")
    layout = _visible(layout)
    verdict = judge(layout)
    if verdict == SOUND and sum(len(w.text) for w in layout.words) < FEW_CHARS:
        verdict = _against_picture(layout, view)
    return layout, verdict


def _without_pale(layout: PageLayout, view: View) -> PageLayout:
    """The layout with pale lines marked hidden where the page shows one shade only."""
    pale = [line for line in layout.lines if line.pale and not line.hidden]
    if sum(len(line.text) for line in pale) < MIN_CHARS:
        return layout
    grey, scale = view.grey(), LONG_SIDE / max(layout.width, layout.height)
    unseen = {id(line) for line in pale if is_unseen(grey, _scaled(line.box, scale))}
    return _hiding(layout, unseen)


def _without_covered(layout: PageLayout, painting: Painting) -> PageLayout:
    """The layout with lines marked hidden that an opaque image covers and no later run of text repeats."""
    first = min((order for order, _ in painting.texts), default=0)
    covers = [image for image in painting.images if image.covers and image.order > first]
    covered = set()
    for line in layout.lines if covers else ():
        middle = center(line.box)
        last = max((image.order for image in covers if contains(image.box, middle)), default=0)
        if last and last > max((order for order, box in painting.texts if contains(box, middle)), default=last):
            covered.add(id(line))
    return _hiding(layout, covered)


def _hiding(layout: PageLayout, ids: set[int]) -> PageLayout:
    if not ids:
        return layout
    return replace(layout, lines=tuple(replace(x, hidden=x.hidden or id(x) in ids) for x in layout.lines))


def _scaled(box: Box, scale: float) -> Box:
    return box[0] * scale, box[1] * scale, box[2] * scale, box[3] * scale


def judge(layout: PageLayout) -> Verdict:
    """What the words and lines alone say of a layer, of which everything is shown."""
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
    digits, letters = sum(map(str.isdigit, text)), sum(map(str.isalpha, text))
    if len(text) >= MIN_DIGITS and digits > ONLY_DIGITS * len(text) and letters < 0.01 * len(text):
        return Verdict("better", f"no-letters: {digits} of {len(text)} characters are digits")
    return SOUND


def _against_picture(layout: PageLayout, view: View) -> Verdict:
    """Whether a page with little text shows more than its layer holds: a scan with a stamp, or text as outlines."""
    chars, painting = sum(len(w.text) for w in layout.words), view.painting()
    share = image_share(painting, layout)
    if chars < SPARSE_CHARS and share > PAGE_IMAGE:
        return Verdict("better", f"sparse-text-over-image: {chars} characters")
    if share > SOME_IMAGE or painting.num_shapes > MANY_SHAPES:
        scale = LONG_SIDE / max(layout.width, layout.height)
        unread = unread_chars(view.grey(), [_scaled(line.box, scale) for line in layout.lines])
        if unread > max(MIN_UNREAD, MAX_UNREAD * chars):
            return Verdict("better", f"text-outside-layer: about {unread} characters beside {chars}")
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
    return unlikely_letters(words, {char: count for char, count in chars.items() if not LEADERS.match(char)})


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
