"""Where sections begin: good bookmarks, else headings, else groups of pages; and no page without a section."""

from __future__ import annotations

from itertools import pairwise

import pytest
from fakes import block, page
from hypothesis import given
from hypothesis import strategies as st

from corpus.records import Page, SectionStart
from corpus.sections import MAX_GAP_PAGES, Bookmark, normalised_title, sections_of, with_sections

NUM_PAGES = 30
TITLES = [f"Chapter {letter}" for letter in "ABCDEFGHIJ"]
GOOD = [Bookmark(1, title, 3 * i) for i, title in enumerate(TITLES)]


def pages_saying(bookmarks: list[Bookmark], num_pages: int = NUM_PAGES) -> list[Page]:
    """Pages on which the title of every bookmark stands, as plain text."""
    return [page(i, "Text.", *(b.title for b in bookmarks if b.page == i)) for i in range(num_pages)]


def starts(pages: list[Page]) -> list[tuple[int, str, str]]:
    return [(p.index, s.title, s.source) for p in pages for s in p.sections]


def sources(pages: list[Page]) -> set[str]:
    return {source for _, _, source in starts(pages)}


# ----------------------------------------------------------------------------------------------------- bookmarks


def test_good_bookmarks_are_the_sections() -> None:
    found = with_sections(pages_saying(GOOD), GOOD)
    assert starts(found) == [(3 * i, title, "bookmarks") for i, title in enumerate(TITLES)]


def test_nine_bookmarks_are_enough_and_eight_are_not() -> None:
    for count, source in ((9, "bookmarks"), (8, "pages")):
        some = GOOD[:count]
        assert sources(with_sections(pages_saying(some, 26), some)) == {source}


@pytest.mark.parametrize(("strangers", "source"), [(1, "bookmarks"), (2, "pages")])
def test_nine_of_ten_titles_must_stand_on_their_page(strangers: int, source: str) -> None:
    named = [Bookmark(1, "report_v2_final.docx", b.page) if i < strangers else b for i, b in enumerate(GOOD)]
    assert sources(with_sections(pages_saying(GOOD), named)) == {source}


@pytest.mark.parametrize(("last", "source"), [(42, "bookmarks"), (43, "pages")])
def test_a_gap_of_more_than_fifteen_pages_is_not_trusted(last: int, source: str) -> None:
    assert sources(with_sections(pages_saying(GOOD, last), GOOD)) == {source}


def test_bookmarks_without_a_page_or_a_title_do_not_count() -> None:
    broken = [*GOOD[:8], Bookmark(1, "Chapter I", -1), Bookmark(1, "Chapter J", NUM_PAGES), Bookmark(1, " ", 2)]
    assert sources(with_sections(pages_saying(GOOD, 26), broken)) == {"pages"}


def test_a_title_is_found_whatever_its_spaces_marks_and_case() -> None:
    assert normalised_title("3.1  Net-Income (in €)") == normalised_title("31 NETINCOME in")
    marked = [Bookmark(b.level, b.title.upper().replace(" ", " - "), b.page) for b in GOOD]
    assert sources(with_sections(pages_saying(GOOD), marked)) == {"bookmarks"}


def test_bookmarks_of_one_page_keep_the_order_of_the_outline() -> None:
    twice = [*GOOD, Bookmark(2, "Text", 3)]
    found = with_sections(pages_saying(GOOD), twice)
    assert [s.title for s in found[3].sections] == ["Chapter B", "Text"]
    assert [s.level for s in found[3].sections] == [1, 2]


# ------------------------------------------------------------------------------------------------------ headings


def test_without_bookmarks_headings_are_the_sections() -> None:
    pages = [page(0, block("The Annual\nReport", kind="title"), "Text."), page(1, block("2.1 Costs", kind="heading"))]
    found = with_sections(pages, [])
    assert starts(found) == [(0, "The Annual Report", "headings"), (1, "2.1 Costs", "headings")]


def test_the_level_of_a_section_is_that_of_its_heading() -> None:
    headings = [block("3 Costs", kind="heading", level=1), block("3.2 Pumps", kind="heading", level=2)]
    (found,) = with_sections([page(0, *headings, block("Valves", kind="heading"))], [])
    assert [(s.title, s.level) for s in found.sections] == [("3 Costs", 1), ("3.2 Pumps", 2), ("Valves", 1)]


def test_a_running_header_and_a_stray_mark_are_no_sections() -> None:
    pages = [page(i, block("ACME plc", kind="heading"), block("§ 1", kind="heading")) for i in range(4)]
    assert starts(with_sections(pages, [])) == []
    assert len(starts(with_sections(pages[:3], []))) == 3


# ---------------------------------------------------------------------------------------------------------- gaps


def test_a_document_without_structure_is_cut_in_groups_of_ten() -> None:
    found = with_sections([page(i) for i in range(23)], [])
    assert starts(found) == [(0, "Pages 1-10", "pages"), (10, "Pages 11-20", "pages"), (20, "Pages 21-23", "pages")]


def test_fifteen_pages_without_a_heading_stay_whole() -> None:
    assert starts(with_sections([page(i) for i in range(15)], [])) == []


def test_a_gap_after_a_heading_is_filled() -> None:
    pages = [page(0, block("Start", kind="heading")), *(page(i) for i in range(1, 17))]
    assert starts(with_sections(pages, [])) == [(0, "Start", "headings"), (10, "Pages 11-17", "pages")]


HEADED = st.lists(st.booleans(), min_size=1, max_size=80)


@given(HEADED)
def test_no_section_is_longer_than_fifteen_pages(headed: list[bool]) -> None:
    pages = [page(i, *([block(f"Heading {i}", kind="heading")] if h else [])) for i, h in enumerate(headed)]
    found = with_sections(pages, [])
    borders = [0, *(i for i, _, _ in starts(found)), len(pages)]
    assert max(b - a for a, b in pairwise(borders)) <= MAX_GAP_PAGES
    assert {i for i, _, source in starts(found) if source == "headings"} == {i for i, h in enumerate(headed) if h}


# ------------------------------------------------------------------------------------------------------ sections


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40))
def test_sections_cover_every_page_in_order(counts: list[int]) -> None:
    pages = [
        page(i, sections=tuple(SectionStart(title=f"{i}.{k}", level=1, source="headings") for k in range(n)))
        for i, n in enumerate(counts)
    ]
    found = sections_of(pages)
    covered = [p for s in found for p in range(s.first_page, s.first_page + s.num_pages)]
    assert set(covered) == set(range(len(pages)))
    assert covered == sorted(covered)
    assert len(covered) - len(set(covered)) == sum(max(0, n - 1) for n in counts)  # pages that sections share
    titled = [s.title for s in found if s.title]
    assert titled == [f"{i}.{k}" for i, n in enumerate(counts) for k in range(n)]
    assert len(found) - len(titled) == (counts[0] == 0)
