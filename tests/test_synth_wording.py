"""What wordings ask for: operations, directions, and the base of a share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.comparisons import move
from synth.wording import base_phrases, direction, intents


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("How many more cranes than tugs are there?", ["difference", "count"]),
        ("How many wards have more than 30 beds?", ["count"]),  # a limit, no comparison
        ("By how much dearer is the courier abroad?", ["difference"]),
        ("By how many percent is A lower than B?", ["change", "count"]),
        ("By how many percentage points did it fall?", ["difference", "count"]),
        ("How many of them were not opened?", ["rest", "count"]),
        ("How many times larger is A than B?", ["ratio", "count"]),
        ("What share of the total went to A?", ["share", "total"]),
        ("How many did both have together?", ["sum", "count"]),
        ("How many more did A and B have together?", ["difference", "total", "count"]),
        ("How many birds per hour?", ["per", "count"]),
        ("女生比男生多多少人？", ["difference"]),
        ("比例是多少？", []),
        ("生师比是多少？", ["ratio"]),
        ("A占B的百分之多少？", ["share"]),
        ("其余有多少人？", ["rest"]),
        ("合计是多少？", ["sum"]),
        ("人均是多少？", ["per"]),
    ],
)
def test_operations(asked: str, found: list[str]) -> None:
    assert intents(asked) == found


@pytest.mark.parametrize(
    ("asked", "rises", "in_time"),
    [
        ("By how much did it rise?", 1, 1),
        ("By how much did it fall?", -1, -1),
        ("Did it rise or fall?", 0, 0),
        ("Which got cheaper from 2020 to 2021?", -1, -1),
        ("Which had more in 2021 than in 2020?", 1, 1),
        ("Which had more in 2020 than in 2021?", 1, -1),  # more in the earlier year is a fall
        ("In 2020, which had less than in 2021?", -1, 1),
        ("Which had less in 2021 than in the year before?", -1, -1),
        ("哪些2021年比2020年多？", 0, 1),
        ("哪些2020年比2021年少？", 0, 1),
        ("2021年比2020年下降了百分之多少？", -1, -1),
    ],
)
def test_directions(asked: str, rises: int, in_time: int) -> None:
    assert direction(asked) == rises
    assert move(asked) == in_time


@pytest.mark.parametrize(
    ("asked", "base", "part"),
    [
        ("What share of the 31,200 objects are prints?", "the 31,200 objects", ""),
        ("What is the ratio of nurses to doctors?", "doctors", "nurses"),
        ("How many times as large as the bonus was the salary?", "the bonus", ""),
        ("How many tonnes per employee were handled?", "employee were", ""),
        ("研究生占在校学生的百分之多少？", "在校学生", "研究生"),
        ("甲厂是乙厂的几倍？", "乙厂", "甲厂"),
        ("平均每名教师有多少学生？", "教师有多", ""),
    ],
)
def test_bases(asked: str, base: str, part: str) -> None:
    assert base_phrases(asked)[0] == (base, part)


@given(st.text(max_size=200) | st.text(alphabet="more than 比多少占的百分 2021年 percent of to by", max_size=200))
def test_any_text_is_read(asked: str) -> None:
    assert isinstance(intents(asked), list)
    assert direction(asked) in (-1, 0, 1)
    assert move(asked) in (-1, 0, 1)
    assert all(base for base, _ in base_phrases(asked))
