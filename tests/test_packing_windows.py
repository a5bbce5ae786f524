"""Windows: every page once, within the range, and as good as an exhaustive search."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.records import LeftOut, Section, Segment
from packing.windows import NO_WINDOW_FITS, PAGE_TOO_LONG, TOO_SHORT, WindowCut, cut_windows

STEADY = settings(derandomize=True, deadline=None, max_examples=150)


def cut(
    pages: list[int | None],
    sections: dict[int, int] | None = None,
    segments: list[tuple[int, int]] | None = None,
    *,
    least: int = 30,
    most: int = 100,
    reserve: int = 0,
    overhead: int = 0,
) -> WindowCut:
    """`sections`: first page -> level; `segments`: (first page, pages)."""
    return cut_windows(
        "d",
        pages,
        [
            Section(title="", level=level, first_page=page, num_pages=1, source="headings")
            for page, level in (sections or {}).items()
        ],
        [Segment(first_page=first, num_pages=num) for first, num in segments or []],
        min_tokens=least,
        max_tokens=most,
        reserve=reserve,
        overhead=overhead,
        page_problems={i: "render-failed" for i, t in enumerate(pages) if t is None},
    )


def spans(result: WindowCut) -> list[tuple[int, int]]:
    return [(w.first_page, w.first_page + w.num_pages) for w in result.windows]


def left(result: WindowCut) -> list[tuple[int, int, str]]:
    return [(x.first_page, x.num_pages, x.reason) for x in result.left_out]


def test_a_document_that_fits_is_one_window() -> None:
    result = cut([10] * 10, segments=[(0, 10)])
    assert spans(result) == [(0, 10)]
    assert result.windows[0].key == "d-w00"
    assert result.left_out == ()


@pytest.mark.parametrize(("reserve", "overhead"), [(1, 0), (0, 1)])
def test_reserve_and_overhead_count_towards_the_largest_length(reserve: int, overhead: int) -> None:
    assert spans(cut([10] * 10, reserve=reserve, overhead=overhead)) == [(0, 5), (5, 10)]


def test_overhead_but_not_reserve_counts_towards_the_smallest_length() -> None:
    assert spans(cut([10, 15], overhead=5)) == [(0, 2)]
    assert left(cut([10, 15], reserve=5)) == [(0, 2, TOO_SHORT)]


def test_equal_lengths_where_nothing_else_decides() -> None:
    assert spans(cut([10] * 24)) == [(0, 8), (8, 16), (16, 24)]


def test_cuts_at_sections_outer_ones_first() -> None:
    assert spans(cut([10] * 12, {5: 2})) == [(0, 5), (5, 12)]
    assert spans(cut([10] * 12, {5: 2, 4: 1})) == [(0, 4), (4, 12)]
    assert spans(cut([10] * 12, {5: 1, 6: 1})) == [(0, 6), (6, 12)]


def test_a_segment_outweighs_a_section() -> None:
    assert spans(cut([10] * 12, {6: 1}, [(3, 4)])) == [(0, 7), (7, 12)]
    assert spans(cut([10] * 12, {6: 1}, [(3, 3), (6, 4)])) == [(0, 6), (6, 12)]


def test_fewest_windows_outweigh_a_segment() -> None:
    assert spans(cut([10] * 12, {}, [(0, 12)])) == [(0, 6), (6, 12)]
    # the only border of two windows of 10 pages is inside the second segment; a third window would spare it
    assert spans(cut([10] * 20, {}, [(1, 8), (9, 9)])) == [(0, 10), (10, 20)]


def test_no_window_spans_a_page_that_cannot_be_rendered() -> None:
    result = cut([10, 10, 10, None, None, 10, 10, 10, 10, None, 10])
    assert spans(result) == [(0, 3), (5, 9)]
    assert left(result) == [(3, 2, "render-failed"), (9, 1, "render-failed"), (10, 1, TOO_SHORT)]
    assert [w.index for w in result.windows] == [0, 1]


def test_a_page_above_the_largest_length_is_left_out() -> None:
    result = cut([20, 20, 101, 20, 20])
    assert (spans(result), left(result)) == ([(0, 2), (3, 5)], [(2, 1, PAGE_TOO_LONG)])
    assert left(cut([95], reserve=3, overhead=3)) == [(0, 1, PAGE_TOO_LONG)]


def test_a_narrow_range_keeps_what_it_can() -> None:
    result = cut([10] * 15, least=90)  # 150 tokens are neither one window nor two
    assert [b - a for a, b in spans(result)] == [10]
    assert sum(x.num_pages for x in result.left_out) == 5
    assert {x.reason for x in result.left_out} == {TOO_SHORT}
    assert left(cut([60] * 4, least=70)) == [(0, 4, NO_WINDOW_FITS)]


def test_an_empty_document_has_no_windows() -> None:
    assert cut([]) == WindowCut(windows=(), left_out=())


PAGES = st.lists(st.one_of(st.none(), st.integers(1, 60), st.integers(90, 110)), max_size=40)
SEGMENTS = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 8)), max_size=6)
SECTIONS = st.dictionaries(st.integers(0, 40), st.integers(1, 12), max_size=10)


@STEADY
@given(PAGES, SECTIONS, SEGMENTS, st.integers(0, 100), st.integers(0, 20), st.integers(0, 20))
def test_every_page_is_in_one_window_or_left_out(
    pages: list[int | None],
    sections: dict[int, int],
    segments: list[tuple[int, int]],
    least: int,
    reserve: int,
    overhead: int,
) -> None:
    result = cut(pages, sections, segments, least=least, reserve=reserve, overhead=overhead)
    runs = [(w.first_page, w.num_pages) for w in result.windows]
    runs += [(x.first_page, x.num_pages) for x in result.left_out]
    assert sorted(p for first, num in runs for p in range(first, first + num)) == list(range(len(pages)))
    assert all(num > 0 for _, num in runs)
    assert [w.index for w in result.windows] == list(range(len(result.windows)))
    for start, stop in spans(result):
        tokens = sum(t for t in pages[start:stop] if t is not None) + overhead
        assert None not in pages[start:stop]
        assert least <= tokens <= 100 - reserve
    assert result == cut(pages, sections, segments, least=least, reserve=reserve, overhead=overhead)


def score(
    pages: list[int], spans: list[tuple[int, int]], sections: dict[int, int], segments: list[tuple[int, int]]
) -> tuple[int, ...]:
    """What the module promises, in its order: pages lost, windows, segments cut through and depth of the section that
    starts there (both by each window border), squared distance of the windows from the mean length."""
    n = len(pages)
    borders = [b for span in spans for b in span if 0 < b < n]
    through = sum(first < b < first + num for b in borders for first, num in segments)
    depth = sum(min(sections[b], 9) if b in sections else 10 for b in borders)
    mean = sum(pages) // max(1, len(spans))
    uneven = sum((sum(pages[start:stop]) - mean) ** 2 for start, stop in spans)
    return n - sum(stop - start for start, stop in spans), len(spans), through, depth, uneven


def every_cut(pages: list[int], least: int, most: int, start: int = 0) -> list[list[tuple[int, int]]]:
    """All ways to take windows and leave pages, by recursion."""
    if start == len(pages):
        return [[]]
    found = every_cut(pages, least, most, start + 1)
    for stop in range(start + 1, len(pages) + 1):
        if least <= sum(pages[start:stop]) <= most:
            found += [[(start, stop), *rest] for rest in every_cut(pages, least, most, stop)]
    return found


@settings(STEADY, max_examples=200)
@given(
    st.lists(st.integers(15, 60), min_size=1, max_size=9),
    st.dictionaries(st.integers(0, 8), st.integers(1, 12), max_size=4),
    st.lists(st.tuples(st.integers(0, 8), st.integers(1, 5)), max_size=3),
    st.integers(20, 90),
)
def test_no_other_cut_is_better(
    pages: list[int], sections: dict[int, int], segments: list[tuple[int, int]], least: int
) -> None:
    best = min(score(pages, spans, sections, segments) for spans in every_cut(pages, least, 100))
    found = spans(cut(list(pages), sections, segments, least=least))
    assert score(pages, found, sections, segments) == best


@STEADY
@given(st.integers(1, 300), st.integers(1, 9))
def test_equal_pages_make_windows_that_differ_by_one_page(num_pages: int, tokens: int) -> None:
    result = cut([tokens] * num_pages, least=1)
    lengths = [stop - start for start, stop in spans(result)]
    assert sum(lengths) == num_pages
    assert max(lengths) - min(lengths) <= 1
    assert len(lengths) == -(-num_pages // (100 // tokens))  # no fewer would do


@STEADY
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 8)), max_size=6),
    st.randoms(use_true_random=False),
)
def test_a_segment_is_cut_only_where_every_cut_of_as_few_windows_does(
    pages: list[int], segments: list[tuple[int, int]], draw: Random
) -> None:
    """Moving any one border elsewhere spares no segment; the order in which segments are named decides nothing."""
    result = cut(list(pages), {}, segments)
    assert cut(list(pages), {}, draw.sample(segments, len(segments))) == result
    found = spans(result)
    chosen = score(pages, found, {}, segments)
    for k in range(len(found) - 1):
        (start, border), (after, stop) = found[k], found[k + 1]
        if border != after:
            continue
        for other in range(start + 1, stop):
            halves = [(start, other), (other, stop)]
            if all(30 <= sum(pages[a:b]) <= 100 for a, b in halves):
                assert score(pages, [*found[:k], *halves, *found[k + 2 :]], {}, segments)[2] >= chosen[2]


def test_ten_thousand_pages_are_cut() -> None:
    segments = [(first, 12) for first in range(0, 9_980, 20)]
    pages: list[int | None] = [2_526] * 10_000
    result = cut(pages, dict.fromkeys(range(0, 10_000, 20), 1), segments, least=32_768, most=131_072)
    assert len(result.windows) == 197  # at most 51 pages each


def test_neighbouring_pages_with_one_reason_are_one_entry() -> None:
    assert cut([None, None, 120, 120]).left_out == (
        LeftOut(first_page=0, num_pages=2, reason="render-failed"),
        LeftOut(first_page=2, num_pages=2, reason=PAGE_TOO_LONG),
    )
