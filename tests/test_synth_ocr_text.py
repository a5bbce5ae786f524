"""Digits that OCR read for letters, and what must stay as it is."""

from __future__ import annotations

import pytest
from fakes import page
from hypothesis import given
from hypothesis import strategies as st

from synth.ocr_text import mended, repaired


@pytest.mark.parametrize(
    ("read", "meant"),
    [
        ("Tab1e 6: Clinics", "Table 6: Clinics"),
        ("Tahle 6: Clinics", "Table 6: Clinics"),
        ("Table l2: Clinics", "Table 12: Clinics"),
        ("Figurc 2-1 Pumps", "Figure 2-1 Pumps"),
        ("Sectlon 4 Services", "Section 4 Services"),
        ("袁6 收支", "表6 收支"),
        ("the c1inic takes a11 and wi11", "the clinic takes all and will"),
        ("pub1ic h0use", "public house"),
    ],
)
def test_letters_are_put_back(read: str, meant: str) -> None:
    assert repaired(read) == meant


@pytest.mark.parametrize(
    "text",
    ["A104 and B219", "Table 11", "m3", "11 of 10", "the 1st of 10", "Cables 6 m", "W1N1", "2l", "RF-10", "圆形"],
)
def test_numbers_and_codes_stay(text: str) -> None:
    assert repaired(text) == text


def test_only_pages_that_ocr_read_are_mended() -> None:
    assert mended(page(0, "Tab1e 6\na11", text_source="ocr")).text == "Table 6\nall"
    assert mended(page(0, "Tab1e 6")).text == "Tab1e 6"


@given(st.text() | st.text(alphabet="Tabletl10|. 5表袁", max_size=40))
def test_any_text_is_mended_once(text: str) -> None:
    assert repaired(repaired(text)) == repaired(text)
