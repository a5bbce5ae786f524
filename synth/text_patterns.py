"""Questions about headings, captions, numbered lists and bookmarked sections.

Each asks for what the layout shows beyond doubt: on which page a unique heading stands, what a short
caption says, which item has a given number, how a section is divided. Prose is left alone: "key: value"
lines looked promising and were right in 9 of 17 cases.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial

from corpus.records import Evidence, Section, Segment
from synth.document_index import ITEM, DocumentIndex, NumberedList, Place, key_of, readable, verbatim
from synth.drafts import Draft, shuffled
from synth.phrasings import FIRST_IS_1

MAX_ITEM_CHARS = 220
MIN_DISTANCE = 2  # pages; fewer is no calculation
SUBSECTIONS = range(2, 9)  # more make a long answer of copied titles


def _inside(index: DocumentIndex, segment: Segment, places: Sequence[Place], rng: random.Random) -> list[Place]:
    return shuffled([p for p in places if index.within(segment, p.page)], rng)


def heading_page(index: DocumentIndex, segment: Segment, rng: random.Random) -> Iterator[Draft]:
    """The page of a heading that occurs once."""
    for place in _inside(index, segment, index.headings, rng):
        yield Draft(
            pattern="heading-page",
            fields={"title": place.title, "first_is_1": FIRST_IS_1},
            answer=str(place.page + 1),
            answer_format="Integer",
            evidence=(place.evidence(),),
            anchor=place.title,
            names_pages=True,
            key=("heading", key_of(place.title)),
            uses=("heading " + key_of(place.title),),
        )


def heading_pages(index: DocumentIndex, segment: Segment, rng: random.Random) -> Iterator[Draft]:
    """The pages of two or three headings that stand on different pages."""
    for chosen in _on_different_pages(_inside(index, segment, index.headings, rng)):
        titles = [p.title for p in chosen]
        yield Draft(
            pattern="heading-pages",
            fields={"titles": _listed([f'"{t}"' for t in titles]), "first_is_1": FIRST_IS_1},
            answer=json.dumps([str(p.page + 1) for p in chosen]),
            answer_format="List",
            evidence=tuple(p.evidence() for p in chosen),
            anchor="; ".join(titles),
            names_pages=True,
            key=("headings", *sorted(key_of(t) for t in titles)),
            uses=tuple("heading " + key_of(t) for t in titles),
        )


def _on_different_pages(places: list[Place]) -> Iterator[list[Place]]:
    """Groups of two or three places, no two on one page; each place at most once."""
    size = 3
    while len({p.page for p in places}) >= 2:
        chosen: list[Place] = []
        for place in places:
            if len(chosen) < size and place.page not in {c.page for c in chosen}:
                chosen.append(place)
        places = [p for p in places if p not in chosen]
        size = 5 - size
        yield chosen


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def heading_distance(index: DocumentIndex, segment: Segment, rng: random.Random) -> Iterator[Draft]:
    """How many pages lie between two headings."""
    places = _inside(index, segment, index.headings, rng)
    apart = [p for p in itertools.combinations(places, 2) if abs(p[0].page - p[1].page) >= MIN_DISTANCE]
    for a, b in shuffled(apart, rng)[:20]:
        first, later = (a, b) if a.page < b.page else (b, a)
        yield Draft(
            pattern="heading-distance",
            fields={"title": first.title, "later": later.title},
            answer=str(later.page - first.page),
            answer_format="Integer",
            evidence=(first.evidence(), later.evidence()),
            anchor=f"{first.title}; {later.title}",
            names_pages=False,
            key=("distance", key_of(first.title), key_of(later.title)),
            uses=("heading " + key_of(first.title), "heading " + key_of(later.title)),
        )


def caption_text(index: DocumentIndex, segment: Segment, rng: random.Random) -> Iterator[Draft]:
    """What a short caption says."""
    for place in _inside(index, segment, index.captions, rng):
        if index.caption_is_whole(place):
            yield Draft(
                pattern="caption-text",
                fields={"label": place.label},
                answer=place.title,
                answer_format="String",
                evidence=(place.evidence(),),
                anchor=place.label,
                names_pages=False,
                key=("caption", place.label),
            )


def caption_pages(index: DocumentIndex, segment: Segment, rng: random.Random) -> Iterator[Draft]:
    """The pages of two or three captioned figures or tables."""
    for chosen in _on_different_pages(_inside(index, segment, index.captions, rng)):
        labels = [p.label for p in chosen]
        yield Draft(
            pattern="caption-pages",
            fields={"labels": _listed([index.caption_name(p) for p in chosen]), "first_is_1": FIRST_IS_1},
            answer=json.dumps([str(p.page + 1) for p in chosen]),
            answer_format="List",
            evidence=tuple(p.evidence() for p in chosen),
            anchor="; ".join(labels),
            names_pages=True,
            key=("captions", *sorted(labels)),
        )


def list_item(index: DocumentIndex, segment: Segment, rng: random.Random) -> Iterator[Draft]:
    """One item of a numbered list, but never its last, whose end nothing marks."""
    for found in _lists(index, segment, rng):
        for number in shuffled(range(1, len(found.items)), rng):
            block = found.items[number - 1]
            match = ITEM.fullmatch(readable(block.text))
            if match is None or len(match[2]) > MAX_ITEM_CHARS or block.text.count("\n") > 1 or '"' in match[2]:
                continue
            yield Draft(
                pattern="list-item",
                fields={"number": str(number), "heading": found.heading},
                answer=match[2],
                answer_format="String",
                evidence=(Evidence(page=found.page, kind="Text", quote=verbatim(block.text), box=block.box),),
                anchor=found.anchor,
                names_pages=found.names_page,
                key=("item", found.heading, str(number)),
            )


def _lists(index: DocumentIndex, segment: Segment, rng: random.Random) -> list[NumberedList]:
    return shuffled([found for found in index.lists if index.within(segment, found.page)], rng)


def list_count(index: DocumentIndex, segment: Segment, rng: random.Random) -> Iterator[Draft]:
    """How many items a numbered list has, where its end is certain."""
    for found in _lists(index, segment, rng):
        if found.complete:
            yield Draft(
                pattern="list-count",
                fields={"heading": found.heading},
                answer=str(len(found.items)),
                answer_format="Integer",
                evidence=tuple(
                    Evidence(page=found.page, kind="Text", quote=verbatim(b.text), box=b.box) for b in found.items
                ),
                anchor=found.anchor,
                names_pages=found.names_page,
                key=("count", found.heading),
            )


def subsections(index: DocumentIndex, segment: Segment, rng: random.Random) -> Iterator[Draft]:
    """The subsections of a bookmarked section, where they begin on two pages or more."""
    for parent, children in shuffled(_divided(index, segment), rng):
        if len({c.first_page for c in children}) >= 2:
            yield _section_draft(
                "subsections",
                index,
                parent,
                children,
                json.dumps([c.title for c in children], ensure_ascii=False),
            )


def subsection_count(index: DocumentIndex, segment: Segment, rng: random.Random) -> Iterator[Draft]:
    """How many subsections a bookmarked section has."""
    for parent, children in shuffled(_divided(index, segment), rng):
        yield _section_draft("subsection-count", index, parent, children, str(len(children)))


def _section_draft(pattern: str, index: DocumentIndex, parent: Section, children: list[Section], answer: str) -> Draft:
    return Draft(
        pattern=pattern,
        fields={"title": parent.title},
        answer=answer,
        answer_format="List" if answer.startswith("[") else "Integer",
        evidence=tuple(_heading_evidence(index, s) for s in children),
        anchor=parent.title,
        names_pages=False,
        key=(pattern, key_of(parent.title)),
    )


def _divided(index: DocumentIndex, segment: Segment) -> list[tuple[Section, list[Section]]]:
    """Bookmarked sections of the segment with all their direct subsections, every title on its page."""
    sections = index.sections
    counts = Counter(key_of(s.title) for s in sections)
    found = []
    for i, parent in enumerate(sections):
        inner = list(itertools.takewhile(partial(_deeper, parent.level), sections[i + 1 :]))
        children = [s for s in inner if s.level == parent.level + 1]
        every = [parent, *children]
        titles = [key_of(s.title) for s in children]
        if (
            len(children) in SUBSECTIONS
            and inner[0] is children[0]
            and counts[key_of(parent.title)] == 1
            and len(set(titles)) == len(titles)
            and all(s.source == "bookmarks" and index.within(segment, s.first_page) for s in every)
            and all(_heading_block(index, s) for s in every)
            and not any(re.search(r'["\\]', s.title) for s in every)
        ):
            found.append((parent, children))
    return found


def _deeper(level: int, section: Section) -> bool:
    return section.level > level


def _heading_block(index: DocumentIndex, section: Section) -> bool:
    page = index.pages.get(section.first_page)
    return page is not None and page.text_source == "layer" and key_of(section.title) in key_of(page.text)


def _heading_evidence(index: DocumentIndex, section: Section) -> Evidence:
    title = key_of(section.title)
    for block in index.pages[section.first_page].blocks:
        if title in key_of(block.text) and len(key_of(block.text)) <= len(title) + 12:
            return Evidence(page=section.first_page, kind="Layout", quote=verbatim(block.text), box=block.box)
    return Evidence(page=section.first_page, kind="Layout", quote=section.title)
