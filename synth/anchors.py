"""Does a question lead to one place of its document, and is that where its evidence stands?

A question is read beside 50-160 pages. It may name pages, tables and figures by their label, sections by their title or
number. What the question says it is about (its anchor, and what it names as a section, table or page) must hold an
evidence page; a title that merely occurs in it ("the revenue of Heat Supply") proves nothing against it.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from corpus.blocks import HEADING_KINDS, flatten
from corpus.records import Block, Page, Section
from corpus.sections import RUNNING_HEADING_PAGES, normalised_title
from synth.grounding import STOP_WORDS, PageText, contains, joined, tokens
from synth.labels import (
    ANCHOR_BREAK,
    LABEL,
    NUMBERED_SECTION,
    PAGES,
    is_caption,
    label_key,
    named_pages,
    parted,
    without_names,
    worded_number,
)
from synth.places import Outline
from synth.quantities import folded
from synth.wording import QUOTED

# What only the question writer saw: the reader of the question has the whole document.
DANGLING = re.compile(
    r"\b(?:provided|given|supplied|attached|displayed|shown|these|following|above) "
    r"(?:page|image|document|excerpt|segment|text|screenshot|picture|passage)s?\b"
    r"|\b(?:in|on|from|by|to|of) (?:the|this|these) (?:images?|screenshots?|segment|excerpt|passage)\b"
    r"|\b(?:table|figure|text|passage|chart|list|section|page)s? (?:above|below)\b"
    r"|\b(?:in|on|of|by|from|to) this (?:table|figure|chart|section|page|list)\b|\bpages? shown\b"
    r"|(?:所给|所示|给定|提供|给出|以上|上述|这些|该)的?(?:页面|图片|图像|文本|材料|片段|段落)|[上下](?:表|图)(?!\d)|本[页段](?!\w*第)",
    re.IGNORECASE,
)
# A title of one word: with a capital, quoted, or called a section; "cars" in "how many cars" is none.
LIKE_A_TITLE = (
    r"(?<![A-Za-z])(?:{1}(?![A-Za-z])|(?:(?i:sections?|chapters?|parts?|headings?)|[Ii]n the|under)\b[^.?!]{{0,12}}"
    r"(?<![A-Za-z])(?i:{0})(?![A-Za-z])|(?i:{0})[\"'”’]? (?:section|chapter|part)\b)|[\"'“‘](?i:{0})[\"'”’]"
)
_GENERIC = "section chapter part page pages table figure appendix the a an of in on and 第 章 节 页 表 图 部"
GENERIC = frozenset(_GENERIC.split())
TITLE_COVERAGE = 0.6  # of its words; a title with fewer on every page stands on none
MIN_TITLE_WORDS = 2
WHOLE_DOCUMENT = 0.9  # of its pages; a title over so many leads nowhere


@dataclass(frozen=True, slots=True)
class Place:
    """A title and the pages that its section touches; `number` is the section's own, '' where it has none."""

    title: str
    bare: str  # without its number
    words: str  # of the bare title, joined
    content: frozenset[str]
    word: str  # "note" in "Note 5: Staff"
    number: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Name:
    """Something that a question names, and the runs of pages it may mean (first, last); () where it names nothing."""

    shown: str
    places: tuple[tuple[int, int], ...]
    doubled: bool = False  # whether one page has several headings of this title

    @property
    def unique(self) -> bool:
        """One place, or places inside one another."""
        if self.doubled:
            return False
        first, last = min(self.places, key=lambda p: p[0] - p[1])
        return all(first <= a and b <= last for a, b in self.places)

    def holds(self, pages: Sequence[int]) -> bool:
        return any(a <= p <= b for a, b in self.places for p in pages)


class DocumentText:
    """A parsed document as the checks look at it; made once, it serves all questions of the document."""

    def __init__(self, pages: Sequence[Page], sections: Sequence[Section]) -> None:
        self.pages = {p.index: PageText(p) for p in pages}
        self.num_pages = max(self.pages, default=-1) + 1
        read = [p.page for p in self.pages.values()]
        self._places = _places(read, sections, self.num_pages)
        self._captions = _captions(read)
        self.outline = Outline(read)

    def named(self, text: str) -> list[Name]:
        """What a text names beyond doubt: pages, labels, numbers of sections."""
        text = folded(text)
        names = [Name(f"page {a + 1}" if a == b else f"pages {a + 1}-{b + 1}", ((a, b),)) for a, b in named_pages(text)]
        for m in LABEL.finditer(text):
            names.append(Name(m[0], tuple(self._captions.get(label_key(m), ())) or self._mentions_of(m[0])))
        for m in NUMBERED_SECTION.finditer(text):
            number = (m["number"] or m["dotted"] or worded_number(m["chinese"]) + m["unit"]).casefold()
            alike = [p for p in self._places if p.number == number]
            word = (m["word"] or "").casefold().replace("sec.", "section")
            found = [p for p in alike if p.word == word] or alike
            if found:  # else its heading was not recognised, which is no fault of the question
                names.append(Name(m[0], tuple((p.first, p.last) for p in found)))
        return names

    def numbered(self, question: str, anchor: str) -> list[Name]:
        """The section of the anchor's number ("5.1 Modes"), where the question says "in 5.1"."""
        number = parted(anchor)[1]
        if "." not in number or number not in tokens(question):
            return []
        found = [p for p in self._places if p.number == number]
        return [Name(number, tuple((p.first, p.last) for p in found))] if found else []

    def _mentions_of(self, label: str) -> tuple[tuple[int, int], ...]:
        """The run of pages that speak of a label without a caption: it may stand inside a picture."""
        pages = [number for number, page in self.pages.items() if page.find(label)]
        return ((min(pages), max(pages)),) if pages else ()

    def titles(self, text: str) -> list[Name]:
        """Sections whose titles stand in a text."""
        found: dict[str, list[Place]] = defaultdict(list)
        words = joined(tokens(text))
        for place in self._places:
            if place.words and place.words in words and _mentions(text, place):
                found[place.words].append(place)
        return [_name(places[0].title, places, text) for places in found.values()]

    def titled(self, anchor: str, question: str) -> list[Name]:
        """Sections that the parts of an anchor are the titles of, or most of a title."""
        names = []
        for part in ANCHOR_BREAK.split(anchor):
            own = _content(part)
            if not own or LABEL.search(folded(part)):
                continue
            same = [p for p in self._places if p.content == own]
            near = [p for p in self._places if own < p.content and 2 * len(own) >= len(p.content)]
            if places := same or near:
                names.append(_name(part.strip(), places, f"{part} ; {question}"))
        return names

    def lacks(self, title: str) -> bool:
        """Whether no page holds most words of a title near one another; False where some page has no text."""
        pages = self.pages.values()
        return all(
            p.readable and max(p.coverage(title)[0], p.coverage(parted(title)[2])[0]) < TITLE_COVERAGE for p in pages
        )

    def singles_out(self, text: str, pages: Sequence[int], most: int) -> bool:
        """Whether a text stands on one of these pages and on no more than `most` in all."""
        found = {number for number, page in self.pages.items() if page.find(text)}
        return not found.isdisjoint(pages) and len(found) <= most


def _name(shown: str, places: Sequence[Place], text: str) -> Name:
    """The name of places of one title; it tells those of one page apart where the text has their numbers."""
    alike = [a for a, b in itertools.permutations(places, 2) if (a.first, a.words) == (b.first, b.words)]
    numbered = any(a.title != a.bare and contains(text, a.title) for a in alike)
    return Name(shown, tuple((p.first, p.last) for p in places), bool(alike) and not numbered)


def _places(pages: Sequence[Page], sections: Sequence[Section], num_pages: int) -> list[Place]:
    """Sections with their subsections, and headings that begin no section; without those that span the document."""
    starts = [(s.first_page, s.level, s.title) for s in sections if s.title and s.source != "pages"]
    known = {(page, normalised_title(title)) for page, _, title in starts}
    for page in pages:
        for block in page.blocks:
            title = flatten(block.text)
            if block.kind in HEADING_KINDS and (page.index, normalised_title(title)) not in known:
                starts.append((page.index, max(1, block.level), title))
    starts.sort(key=lambda s: s[0])
    tops = {p.index: normalised_title(flatten(top.text)) for p in pages if (top := _top(p))}
    places = []
    for i, (first, level, title) in enumerate(starts):
        after = next(((page, other) for page, rank, other in starts[i + 1 :] if rank <= level), (num_pages, ""))
        below = after[0] in tops and tops[after[0]] != normalised_title(after[1])  # this one's end stands above it
        last = max(first, after[0] if below else after[0] - 1)
        word, number, bare = parted(title)
        if last - first + 1 < WHOLE_DOCUMENT * num_pages or num_pages < 3:
            words, content = joined(tokens(bare)), frozenset(_content(title))
            places.append(Place(title, bare, words, content, word, number, first, last))
    return places


def _top(page: Page) -> Block | None:
    """The first text of a page, below its header."""
    return next((b for b in page.blocks if b.text and b.kind != "header"), None)


def _captions(pages: Sequence[Page]) -> dict[tuple[str, str], list[tuple[int, int]]]:
    """Runs of pages by label: where a block begins with it, and the page after where its table may run onto it."""
    found: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    goes_on = {p.index for p in pages if (top := _top(p)) and top.kind not in (*HEADING_KINDS, "caption")}
    for page in pages:
        for block in page.blocks:
            text = folded(flatten(block.text))
            m = LABEL.match(text)
            if m and (block.kind == "caption" or is_caption(text)):
                last = page.index + 1 if page.index + 1 in goes_on else page.index
                runs = found[label_key(m)]
                if runs and runs[-1][1] + 1 >= page.index:
                    runs[-1] = runs[-1][0], last
                else:
                    runs.append((page.index, last))
    return found


def _content(text: str) -> set[str]:
    """The words of a title, or of several, that tell it from others."""
    bare = " ".join(parted(part)[2] for part in ANCHOR_BREAK.split(text))
    return {w for w in tokens(bare) if w not in GENERIC and not w[0].isdecimal()}


def _mentions(text: str, place: Place) -> bool:
    """Whether the title stands in the text; a title of one word must look like one there."""
    if not contains(text, place.bare):
        return False
    if len(tokens(place.bare)) > 1 or (place.number and contains(text, place.title)):
        return True
    capital = place.bare[:1].upper() + place.bare[1:]
    return bool(re.search(rf"(?<![A-Za-z]){re.escape(capital)}(?![A-Za-z])", folded(text)))


def anchor_problem(question: str, anchor: str, evidence: Sequence[int], document: DocumentText) -> str:
    """Why the question does not lead to its evidence, '' where it does or text cannot show that it does not."""
    if m := DANGLING.search(folded(question)):
        return f'speaks of "{m[0]}", which its reader does not see'
    echoed = _echoes(question, anchor)
    named = [*document.named(question), *document.numbered(question, anchor)]
    titles = document.titled(anchor, question) if echoed else []
    blind = not all(p in document.pages and document.pages[p].readable for p in evidence)
    for name in [*named, *titles]:
        if not name.places and not blind:
            return f"the document has no {name.shown}"
        if name.places and not name.holds(evidence):
            return f"{name.shown} holds none of the evidence pages {_numbers(evidence)}"
    for title in _quoted_titles(question, anchor):
        if document.lacks(title):
            return f'the document has no "{title}"'
    leading = [n for n in [*named, *titles, *document.titles(question)] if n.holds(evidence)]
    doubled = next((n for n in leading if n.doubled), None)
    if doubled and not any(n.unique and not PAGES.fullmatch(n.shown) for n in leading):
        return f"{doubled.shown} is the title of several sections of one page"
    if any(n.unique for n in leading):
        return ""
    most = 1 if leading else RUNNING_HEADING_PAGES  # words that are no title may stand in a list of contents too
    if echoed and document.singles_out(anchor, evidence, most):
        return ""
    if leading:
        return f"{leading[0].shown} is the name of several places"
    if blind and (named or echoed):
        return ""
    return "names no section, table, figure or page of the document that holds the evidence"


def _quoted_titles(question: str, anchor: str) -> list[str]:
    """The parts of an anchor, but for labels, that have several words and stand in the question in quotation marks."""
    parts = [part.strip() for part in ANCHOR_BREAK.split(folded(anchor)) if not LABEL.search(part)]
    quoted = {m[0][1:-1].strip() for m in QUOTED.finditer(folded(question))}
    return [p for p in parts if p in quoted and len(_content(p)) >= MIN_TITLE_WORDS]


def _echoes(question: str, anchor: str) -> bool:
    """Whether the question repeats most words of its anchor, labels, units and the like left out."""
    wanted = _content(without_names(re.sub(r"\([^()]*\)", " ", folded(anchor)))) - STOP_WORDS
    word = min(wanted, default="")
    if len(wanted) == 1 and word < "\u3000":
        return bool(re.search(LIKE_A_TITLE.format(re.escape(word), re.escape(word.capitalize())), folded(question)))
    return bool(wanted) and 3 * len(wanted & set(tokens(question))) >= 2 * len(wanted)


def _numbers(pages: Sequence[int]) -> str:
    return ", ".join(str(p + 1) for p in sorted(set(pages)))
