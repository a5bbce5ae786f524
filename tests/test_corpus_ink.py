"""Strokes on a picture of a page."""

from __future__ import annotations

import numpy as np

from corpus.ink import horizontal_rules


def paper() -> np.ndarray:
    return np.full((100, 200), 255, np.uint8)


def test_strokes_are_found_from_the_top() -> None:
    page = paper()
    page[70:72, 20:120] = 0
    page[30, 10:60] = 100
    page[30, 70:110] = 100  # its neighbour on the same height
    assert horizontal_rules(page, 24, 6) == [(10, 30, 60, 31), (70, 30, 110, 31), (20, 70, 120, 72)]


def test_what_is_short_thick_or_pale_is_no_stroke() -> None:
    page = paper()
    page[10, 10:30] = 0
    page[30:40, 10:100] = 0
    page[60, 10:100] = 200
    assert horizontal_rules(page, 24, 6) == []
    assert horizontal_rules(page, 20, 10) == [(10, 10, 30, 11), (10, 30, 100, 40)]
    assert horizontal_rules(paper(), 24, 6) == []


def test_a_stroke_that_slopes_is_one() -> None:
    page = paper()
    for step in range(3):
        page[50 + step, 10 + 50 * step : 62 + 50 * step] = 0
    assert horizontal_rules(page, 24, 6) == [(10, 50, 162, 53)]
