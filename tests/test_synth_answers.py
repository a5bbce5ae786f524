"""Answers that say the same, and above all those that do not, in English and Chinese."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.answers import answers_match, list_items

SAME = [
    ("Integer", "12,400", "12400"),
    ("Integer", "12", "12 people"),
    ("Integer", "3", "three"),
    ("Integer", "12", "十二人"),
    ("Integer", "1240万", "12,400,000"),
    ("Integer", "１２００", "1,200"),
    ("Integer", "1 234 567", "1,234,567"),
    ("Integer", "25", "twenty-five"),
    ("Float", "12.4%", "12.4"),
    ("Float", "12.4", "12.45"),
    ("Float", "(12.4)", "-12.4"),
    ("Float", "$(12.4)", "-12.4"),
    ("Float", "-5", "a decrease of 5%"),
    ("Float", "1.2亿元", "120,000,000"),
    ("Float", "百分之十五", "15%"),
    ("Float", "3.5个百分点", "3.5 percentage points"),
    ("Float", "负3.2", "-3.2"),
    ("Float", "1.234,56", "1234.56"),
    ("String", "The Board", "board"),
    ("String", "March 12, 2023", "2023年3月12日"),
    ("String", "12 March 2023", "2023-03-12"),
    ("String", "二〇二三年三月十二日", "2023/3/12"),
    ("String", "Sunday, 12 March 2023", "12 March 2023"),
    ("String", "2019", "2019年"),
    ("String", "12 km", "12 kilometres"),
    ("String", "five years", "5年"),
    ("String", "$5 million", "$5,000,000"),
    ("String", "long-term debt", "Long term debt."),
    ("String", "R&D", "R and D"),
    ("String", "U.S.", "US"),
    ("String", "是", "是的"),
    ("String", "Yes", "Yes, it did."),
    ("String", "张 伟", "张伟"),
    ("String", "“蓝海”计划", "蓝海计划"),
    ("String", "**Oslo**", '"Oslo"'),
    ("List", '["Oslo", "Bergen"]', '["Bergen", "Oslo"]'),
    ("List", '["Oslo", "Bergen"]', "Oslo and Bergen"),
    ("List", '["12.4", "1,200"]', '["1200", "12.40"]'),
    ("List", '["海宁", "临安"]', "海宁、临安"),
    ("List", '["海宁", "临安"]', "海宁和临安"),
]
DIFFERENT = [
    ("Integer", "12", "12.4"),
    ("Integer", "12", "more than 12"),
    ("Integer", "1000", "1001"),
    ("Integer", "5 years", "5 months"),
    ("Integer", "12", "12 of 15"),
    ("Integer", "3", "不到3"),
    ("Float", "2019", "2020"),
    ("Float", "12", "12.4"),
    ("Float", "5", "-5"),
    ("Float", "5 km", "5 miles"),
    ("Float", "$5", "€5"),
    ("Float", "5%", "$5"),
    ("Float", "an increase of 5%", "a decrease of 5%"),
    ("Float", "增加5%", "减少5%"),
    ("Float", "5 million", "5 billion"),
    ("Float", "5万", "5亿"),
    ("Float", "0", "0.001"),
    ("Float", "not 5", "5"),
    ("String", "increase", "decrease"),
    ("String", "approved", "not approved"),
    ("String", "同意", "不同意"),
    ("String", "增加", "减少"),
    ("String", "5", "-5"),
    ("String", "10⁵", "105"),
    ("String", "1.5", "15"),
    ("String", "3/4", "34"),
    ("String", "1.5%", "1.51%"),
    ("String", "5-7", "5"),
    ("String", "3 wins", "3 losses"),
    ("String", "No", "No change"),
    ("String", "Class A", "Class"),
    ("String", "C++", "C"),
    ("String", "A1", "A2"),
    ("String", "March 2023", "March 2022"),
    ("String", "March 2023", "12 March 2023"),
    ("String", "3 April 2023", "4 March 2023"),
    ("String", "Oslo", "Oslo and Bergen"),
    ("String", "A exceeds B", "B exceeds A"),
    ("String", "第三章", "第四章"),
    ("String", "+", "-"),
    ("String", "", ""),
    ("List", '["a", "b"]', '["a", "b", "b"]'),
    ("List", '["a", "a"]', '["a", "b"]'),
    ("List", '["2019", "2020"]', '["2019", "2021"]'),
    ("List", '["12.4"]', '["12.5"]'),
    ("List", "[]", "[]"),
]


@pytest.mark.parametrize(("answer_format", "a", "b"), SAME)
def test_these_say_the_same(answer_format: str, a: str, b: str) -> None:
    assert answers_match(answer_format, a, b)
    assert answers_match(answer_format, b, a)


@pytest.mark.parametrize(("answer_format", "a", "b"), DIFFERENT)
def test_these_do_not(answer_format: str, a: str, b: str) -> None:
    assert not answers_match(answer_format, a, b)
    assert not answers_match(answer_format, b, a)


FORMATS = st.sampled_from(["String", "Integer", "Float"])
ANSWERS = st.text(max_size=60) | st.from_regex(r"\A[$(]?-?[0-9]{1,6}(,[0-9]{3})?(\.[0-9]{1,3})?[%)万亿]?( km)?\Z")


@given(FORMATS, ANSWERS, ANSWERS)
def test_matching_is_symmetric_and_never_fails(answer_format: str, a: str, b: str) -> None:
    assert answers_match(answer_format, a, b) == answers_match(answer_format, b, a)


@given(FORMATS, ANSWERS)
def test_an_answer_matches_itself(answer_format: str, a: str) -> None:
    assert answers_match(answer_format, a, a) == bool(a.strip())


@given(st.integers(1, 10**12), st.integers(1, 10**12))
def test_whole_numbers_match_when_they_are_equal(a: int, b: int) -> None:
    assert answers_match("Integer", f"{a:,}", str(b)) == (a == b)
    assert answers_match("Integer", f"{a:,}", str(a))


ITEMS = st.lists(st.text(st.characters(categories=["L"]), min_size=1, max_size=8), min_size=1, max_size=6)


@given(ITEMS.flatmap(lambda items: st.tuples(st.just(items), st.permutations(items))))
def test_lists_have_no_order(lists: tuple[list[str], list[str]]) -> None:
    items, mixed = lists
    assert answers_match("List", json.dumps(items), json.dumps(mixed))


def test_hostile_answers_end_soon() -> None:
    for text in (
        "1" * 50_000,
        "1," * 20_000,
        "(" * 20_000,
        " " * 19_990 + "a",
        "-" * 20_000,
        "一" * 20_000,
        "a and " * 4_000,
    ):
        for answer_format in ("String", "Integer", "List"):
            assert not answers_match(answer_format, text, "b")


def test_items_of_a_line_keep_their_numbers_whole() -> None:
    assert list_items("1,200, 3,400 and 5") == ["1,200", "3,400", "5"]
