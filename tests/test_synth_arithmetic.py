"""Calculations from quotes: right answers are recomputed, wrong ones contradicted, and the rest left open."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.arithmetic import recompute

TABLE = "Division\t2022\t2023\nEnergy\t604.3\t571.9\nHeat\t498.7\t466.2\nWater\t231.0\t246.5"
ENERGY, HEAT, WATER = "Energy 604.3 571.9", "Heat 498.7 466.2", "Water 231.0 246.5"
ALL = [ENERGY, HEAT, WATER]


def matches(question: str, answer: str, *quotes: str, answer_format: str = "Float") -> bool | None:
    return recompute(question, answer, answer_format, quotes, [TABLE]).matches


@pytest.mark.parametrize(
    ("question", "answer", "wrong", "quotes"),
    [
        ("By how much did Energy fall from 2022 to 2023?", "32.4", "33.4", [ENERGY]),
        ("What is the difference between Energy and Heat in 2023?", "105.7", "105.6", [ENERGY, HEAT]),
        ("By what percentage did Water grow from 2022 to 2023?", "6.7", "6.3", [WATER]),  # 6.3 has the wrong base
        ("What was the total of the three divisions in 2023?", "1284.6", "1334.0", ALL),  # that of 2022
        ("What was the average of the divisions in 2022?", "444.67", "428.2", ALL),
        ("What share of the revenue of Energy and Water in 2023 is Water's?", "30.1", "33.1", [ENERGY, WATER]),
        ("How many times larger than Water was Heat in 2023?", "1.89", "2.16", [HEAT, WATER]),
        ("2023年能源比供热多多少？", "105.7", "104.7", [ENERGY, HEAT]),
        ("2023年三项合计是多少？", "1284.6", "1284.5", ALL),
        (
            "By how many thousand did it rise from 5 thousand to 8 thousand?",
            "3",
            "4",
            ["from 5 thousand to 8 thousand"],
        ),
        ("How many more meetings were there?", "4", "5", ["seven meetings, after three"]),
        ("How many kilometres a day were built per day?", "12.5", "13.5", ["250 km in 20 days"]),
    ],
)
def test_a_result_is_recomputed(question: str, answer: str, wrong: str, quotes: list[str]) -> None:
    assert matches(question, answer, *quotes) is True
    assert matches(question, wrong, *quotes) is False


def test_counts_under_a_condition() -> None:
    rows = ["Elm 31", "Oak 44", "Birch 27", "Pine 52"]
    assert matches("How many species have more than 30 stands?", "3", *rows, answer_format="Integer") is True
    assert matches("How many species have more than 30 stands?", "2", *rows, answer_format="Integer") is False
    assert matches("How many species are there?", "9", *rows, answer_format="Integer") is None


def test_the_largest_row_must_be_largest_in_something() -> None:
    def largest(question: str, answer: str) -> bool | None:
        return matches(question, answer, *ALL, answer_format="String")

    assert largest("Which division had the highest revenue in 2023?", "Energy") is True
    assert largest("Which division had the highest revenue in 2023?", "Heat") is False
    assert largest("Which division had the largest increase from 2022 to 2023?", "Water") is True
    assert largest("Which division had the largest revenue?", "Solar") is None
    assert largest("Which division is named?", "Heat") is None


def test_two_steps_are_tried_and_a_wrong_result_of_two_steps_is_mostly_found() -> None:
    question = "What is the difference between the averages of Energy and Heat?"
    assert matches(question, "105.65", ENERGY, HEAT) is True
    assert matches(question, "777.77", ENERGY, HEAT) is False


@pytest.mark.parametrize(
    ("answer", "quotes"), [("5", ["no numbers"]), ("5", ["only 7"]), ("5", ["1 2 " * 40]), ("soon", ["1 and 2"])]
)
def test_without_operands_nothing_is_said(answer: str, quotes: list[str]) -> None:
    assert matches("What is the difference?", answer, *quotes) is None


def test_names_in_quotation_marks_say_nothing_about_the_operation() -> None:
    assert matches('What is "Total growth in percent" minus "Sum of times"?', "2", "Total 7", "Sum 5") is True


NUMBERS = st.integers(1, 10**6)


@given(NUMBERS, NUMBERS)
def test_every_difference_of_two_quotes_is_recomputed(a: int, b: int) -> None:
    quotes = (f"Ferries {a:,}.0 ships", f"Cranes {b:,}.0 ships")
    assert matches("What is the difference between the two?", str(abs(a - b)), *quotes) is True
    assert matches("What is the difference between the two?", str(abs(a - b) + 1), *quotes) is False


@given(st.text(max_size=80), st.text(max_size=20), st.lists(st.text(max_size=40), max_size=5))
def test_any_text_gets_a_verdict(question: str, answer: str, quotes: list[str]) -> None:
    for answer_format in ("Integer", "String", "List"):
        assert recompute(question, answer, answer_format, quotes, [TABLE]).matches in (True, False, None)
