"""Rows that are counted: lower in one column than in another, or changed at all."""

from __future__ import annotations

import pytest

from synth.cells import Grid, Row
from synth.counts import count_rows

LOTS = Grid(
    "表6 评分权重",
    ("第一包", "第二包", "比6月末增减"),
    (
        Row("报价", ("40", "45", "0")),
        Row("性能", ("28", "24", "-14.4")),
        Row("业绩", ("12", "10", "18.0")),
        Row("服务", ("6", "8", "0")),
        Row("合计", ("86", "87", "3.6")),
    ),
)
MILLS = Grid(
    "Table 1",
    ("Output (t)", "2021", "2022"),
    (Row("Elm", ("5", "41", "40")), Row("Oak", ("7", "30", "33")), Row("Ash", ("6", "28", "29"))),
)


@pytest.mark.parametrize(
    ("question", "counts"),
    [
        ("有几个项目第二包的分值低于第一包？", {2}),
        ("有几个项目第二包的分值比第一包高？", {0, 2}),
        ("有几个项目发生了增减？", {2}),
        ("有几个项目第二包没有低于第一包？", None),
        ("有几个项目第二包的分值低于20？", None),
        ("第二包的分值比第一包低多少？", None),
    ],
)
def test_chinese_rows_are_counted(question: str, counts: set[int] | None) -> None:
    assert count_rows(question, ["性能 28 24 -14.4", "业绩 12 10 18.0"], [LOTS]) == counts


@pytest.mark.parametrize(
    ("question", "counts"),
    [
        ("In how many mills was more made in 2022 than in 2021?", {2}),
        ("How many mills made less in 2022 than in 2021?", {0, 1}),
        ("For how many mills did 2021 exceed 2022?", {0, 1}),
        ("How many mills made more in 2022 than 30 tonnes?", None),
        ("How many mills made more in 2022?", None),
        ("How many mills did not make more in 2022 than in 2021?", None),
        ("How many more tonnes were made in 2022 than in 2021?", None),
    ],
)
def test_english_rows_are_counted(question: str, counts: set[int] | None) -> None:
    assert count_rows(question, ["Oak 7 30 33", "Ash 6 28 29"], [MILLS]) == counts


def test_columns_with_years_and_columns_with_zeros() -> None:
    rows = (Row("Tankers", ("486", "467", "0")), Row("Ferries", ("402", "438", "12")), Row("Other", ("74", "70", "5")))
    grid = Grid("Table 3", ("Calls 2022", "Calls 2023", "Pledged shares"), rows)
    quotes = ["Tankers 486 467 0", "Ferries 402 438 12", "Other 74 70 5"]
    assert count_rows("How many types made fewer calls in 2023 than in 2022?", quotes, [grid]) == {2}
    assert count_rows("How many owners have pledged shares?", quotes, [grid]) == {2}
    assert count_rows("How many owners have pledged no shares?", quotes, [grid]) is None
    assert count_rows("How many owners are there?", quotes, [grid]) is None


def test_what_is_no_row_of_the_table_says_nothing() -> None:
    question = "How many mills made less in 2022 than in 2021?"
    assert count_rows(question, ["Oak 7 30 33"], [MILLS]) is None
    assert count_rows(question, ["Oak 7 30 33", "All mills belong to one owner."], [MILLS]) is None
    assert count_rows("How much was made?", ["Oak 7 30 33", "Ash 6 28 29"], [MILLS]) is None
    assert count_rows("2022年的产量比2021年多几吨？", ["Oak 7 30 33", "Ash 6 28 29"], [MILLS]) is None
