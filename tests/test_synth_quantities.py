"""Numbers and dates in text, and what looks like them and is not read."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.quantities import chinese_number, dates, folded, quantities, scales


def read(text: str) -> list[tuple[str, str]]:
    return [(f"{q.value:f}", q.unit) for q in quantities(folded(text))]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("12.4 million", [("12400000", "")]),
        ("US$ 3.5bn in cash", [("3500000000", "USD")]),
        ("(12.4)%", [("-12.4", "%")]),
        ("5-7", [("5", ""), ("7", "")]),
        ("人民币3.5亿元", [("350000000", "CNY")]),
        ("增长3.5个百分点", [("3.5", "%")]),
        ("20 h at 6 m", [("20", "hour"), ("6", "m")]),
        ("1.234.567", [("1234567", "")]),
        ("three of twenty-five", [("3", ""), ("25", "")]),
        ("百分之十五", [("15", "%")]),
        ("共有十二人参加", [("12", "")]),
        ("二〇二三年", [("2023", "year")]),
        ("5 × 4", [("5", "times"), ("4", "")]),
        ("５．２％", [("5.2", "%")]),
        ("section 3.2.1", []),
        ("CO2 and A4", []),
        ("3/4 or 10⁵", []),
        ("第三章", []),
        ("一般来说", []),
        ("someone bone", []),
    ],
)
def test_numbers_are_read_with_scale_and_unit(text: str, found: list[tuple[str, str]]) -> None:
    assert read(text) == found


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("十", 10),
        ("三百零五", 305),
        ("一亿二千万", 120_000_000),
        ("两万五千", 25_000),
        ("三点五", "3.5"),
        ("二〇二三", 2023),
        ("三四", None),
        ("万", None),
        ("百", None),
        ("点五", None),
        ("", None),
    ],
)
def test_chinese_numerals(text: str, value: int | str | None) -> None:
    assert chinese_number(text) == (None if value is None else Decimal(value))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("on 12 March 2023", [(2023, 3, 12)]),
        ("March 12th, 2023", [(2023, 3, 12)]),
        ("Sept. 2023", [(2023, 9, 0)]),
        ("2023年3月12日", [(2023, 3, 12)]),
        ("二〇二三年十二月三十一日", [(2023, 12, 31)]),
        ("13/04/2023", [(2023, 4, 13)]),
        ("03/04/2023", []),
        ("2023-13-01", []),
        ("1.2.3", []),
        ("5 May and 2024-01-02", [(0, 5, 5), (2024, 1, 2)]),
    ],
)
def test_dates(text: str, parts: list[tuple[int, int, int]]) -> None:
    assert [d.parts for d in dates(folded(text))] == parts


@given(st.text(alphabet="0123456789.,()-$% 万亿一二十百点年月日KMmillionMarch/^第", max_size=80) | st.text(max_size=80))
def test_any_text_is_read(text: str) -> None:
    text = folded(text)
    found = quantities(text)
    assert all(0 <= q.start < q.end <= len(text) for q in found)
    assert all(a.end <= b.start for a, b in zip(found, found[1:], strict=False))
    assert all(0 <= d.start < d.end <= len(text) for d in dates(text))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1.4 GWh, in MWh per call", {"Wh": {9, 6}}),
        ("用电量（万千瓦时）", {"Wh": {3}, "": {4}}),
        ("in thousands of euros", {"": {3}}),
        ("240 m of cable, 3 kg", {"m": {0}, "g": {3}}),
        ("a meeting of members", {}),
    ],
)
def test_units_and_scales_stand_for_powers_of_ten(text: str, found: dict[str, set[int]]) -> None:
    assert scales(folded(text)) == found


def test_working_and_standby_machines_are_numbers() -> None:
    assert [q.value for q in quantities("水泵四用两备，共用两台")] == [4, 2, 2]
