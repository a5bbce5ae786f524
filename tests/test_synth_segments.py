"""Segments: disjoint, complete, of the right length, and the same in every run."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corpus.records import Section, Segment
from synth.segments import draw_segments


def draw(
    num_pages: int, starts: list[int] | None = None, *, least: int = 8, most: int = 15, seed: int = 0, doc: str = "d"
) -> list[tuple[int, int]]:
    sections = [Section(title="", level=1, first_page=s, num_pages=1, source="headings") for s in starts or []]
    found = draw_segments(doc, sections, num_pages, min_pages=least, max_pages=most, seed=seed)
    assert all(isinstance(s, Segment) for s in found)
    return [(s.first_page, s.num_pages) for s in found]


PAGES = st.integers(1, 400)
STARTS = st.lists(st.integers(0, 400), max_size=40)


@given(PAGES, STARTS, st.integers(0, 5))
def test_segments_follow_one_another_from_the_first_page_to_the_last(pages: int, starts: list[int], seed: int) -> None:
    found = draw(pages, starts, seed=seed)
    ends = [first + n for first, n in found]
    assert [first for first, _ in found] == [0, *ends[:-1]]
    assert ends[-1] == pages


@given(PAGES, STARTS, st.integers(0, 5))
def test_every_segment_has_eight_to_fifteen_pages(pages: int, starts: list[int], seed: int) -> None:
    found = draw(pages, starts, seed=seed)
    if pages < 8:
        assert found == [(0, pages)]
    else:
        assert all(8 <= n <= 15 for _, n in found)


@given(PAGES, STARTS, st.integers(1, 20), st.integers(0, 20))
def test_with_any_limits_only_the_last_segment_may_be_short(
    pages: int, starts: list[int], least: int, more: int
) -> None:
    found = draw(pages, starts, least=least, most=least + more)
    assert all(n <= least + more for _, n in found)
    assert all(n >= least for _, n in found[:-1])
    if more >= least - 1 and pages >= least:
        assert found[-1][1] >= least


@given(st.integers(40, 400), STARTS)
def test_a_border_falls_on_a_section_where_one_is_in_reach(pages: int, starts: list[int]) -> None:
    found = draw(pages, starts)
    for first, n in found[:-1]:
        reach = range(first + 8, min(first + 15, pages - 8) + 1)
        in_reach = set(starts) & set(reach)
        assert not in_reach or first + n in in_reach


@given(st.integers(60, 400))
def test_the_draw_depends_on_document_and_seed_alone(pages: int) -> None:
    assert draw(pages, seed=3, doc="a") == draw(pages, seed=3, doc="a")
    assert len({tuple(draw(pages, seed=seed, doc=doc)) for seed in range(4) for doc in "abcd"}) > 4


def test_narrow_limits_are_kept_where_a_split_keeps_them() -> None:
    for seed in range(20):  # four segments of ten pages do
        assert all(10 <= n <= 12 for _, n in draw(40, least=10, most=12, seed=seed))


def test_a_draw_is_the_same_on_every_machine() -> None:
    assert draw(60) == [(0, 8), (8, 12), (20, 15), (35, 11), (46, 14)]


def test_borders_vary_between_documents() -> None:
    assert {draw(100, doc=f"d{i}")[0][1] for i in range(60)} == set(range(8, 16))


def test_a_document_without_pages_has_no_segments() -> None:
    assert draw(0) == []
