"""Quotes inside and outside of the sections and tables that a question names, on one page."""

from __future__ import annotations

import pytest
from fakes import block, page
from hypothesis import given
from hypothesis import strategies as st

from corpus.records import Evidence
from synth.places import Outline


def head(text: str, level: int = 2) -> object:
    return block(text, "heading", level=level)


PAGES = [
    page(
        0,
        head("5 Upkeep", 1),
        "Upkeep is planned by the works.",
        head("5.1 Plan"),
        block("Table 1: Tasks", "caption"),
        block("Task\tHours\nValves\t50\nPumps\t75", "table"),
        block("Table 2: Oils", "caption"),
        block("Oil\tGrams\nBearing\t340\nLift\t860", "table"),
        "A task is done by a fitter.",
        head("5.1.1 Hints", 3),
        "Gloves are worn.",
        head("5.2 Oil"),
        "The first change is due after 300 hours.",
        head("Precision"),
        "All numbers are rounded.",
    ),
    page(1, "Later changes follow every 400 hours.", head("6 Faults", 1), "Faults are shown."),
    page(
        2,
        head("（一）收入"),
        "收入为320万元。",
        head("（二）支出"),
        "支出为290万元。",
        head("培训"),
        "培训时长为28小时。",
    ),
]
OUTLINE = Outline(PAGES)


def problem(question: str, anchor: str, *quotes: tuple[int, str]) -> str:
    return OUTLINE.problem(question, anchor, [Evidence(page=p, kind="Text", quote=q) for p, q in quotes])


@pytest.mark.parametrize(
    ("question", "anchor", "inside", "outside"),
    [
        ("When is it due?", "5.2 Oil", (0, "due after 300 hours"), (0, "A task is done by a fitter")),
        ("When is it due?", "Oil", (1, "every 400 hours"), (1, "Faults are shown")),
        ("By whom?", "5.1 Plan", (0, "Gloves are worn"), (0, "due after 300 hours")),
        ("By whom?", "5 Upkeep", (0, "due after 300 hours"), (1, "Faults are shown")),
        ('By whom, by "5.1 Plan"?', "", (0, "Pumps 75"), (0, "Upkeep is planned")),
        ("How many hours, by Table 1?", "", (0, "Valves 50"), (0, "Lift 860")),
        ("How many grams?", "Table 2", (0, "Lift 860"), (0, "Pumps 75")),
        ("How many hours, by Table 1?", "", (0, "A task is done"), (0, "due after 300 hours")),
        ("收入是多少？", "（一）收入", (2, "收入为320万元"), (2, "支出为290万元")),
        ("支出是多少？", "支出", (2, "支出为290万元"), (2, "收入为320万元")),
    ],
)
def test_a_quote_stands_in_what_is_named(
    question: str, anchor: str, inside: tuple[int, str], outside: tuple[int, str]
) -> None:
    assert problem(question, anchor, inside) == ""
    assert problem(question, anchor, outside) != ""
    assert problem(question, anchor, outside, inside) == ""


@pytest.mark.parametrize(
    ("anchor", "quotes"),
    [
        ("5.2 Oil", [(0, "All numbers are rounded")]),  # a heading without a number may stand within
        ("5.2 Oil", [(0, "")]),
        ("5.2 Oil", [(0, "words that stand nowhere")]),
        ("5.2 Oil", [(7, "Gloves are worn")]),
        ("5.2 Oil", []),
        ("5.9 Other", [(0, "Gloves are worn")]),
        ("Table 1", [(1, "Faults are shown")]),  # it may go on there
        ("", [(0, "Pumps 75")]),
        ("（二）支出", [(2, "培训时长为28小时")]),
    ],
)
def test_where_it_is_unclear_nothing_is_said(anchor: str, quotes: list[tuple[int, str]]) -> None:
    assert problem('What is "Oil" in it?', anchor, *quotes) == ""


def test_every_name_must_hold_a_quote() -> None:
    assert problem("How many?", "Table 1; 5.2 Oil", (0, "Valves 50"), (0, "after 300 hours")) == ""
    assert "5.2 Oil" in problem("How many?", "Table 1; 5.2 Oil", (0, "Valves 50"), (0, "Pumps 75"))


TEXTS = st.text(max_size=30) | st.sampled_from(["5.1 Plan", "Table 1", "（一）", "Pumps 75", ""])


@given(TEXTS, TEXTS, TEXTS, st.integers(0, 3))
def test_any_text_gets_an_answer(question: str, anchor: str, quote: str, number: int) -> None:
    assert isinstance(problem(question, anchor, (number, quote)), str)
    made = Outline([page(0, head(question, 0), block(anchor, "caption"), quote)])
    assert isinstance(made.problem(question, anchor, [Evidence(page=0, kind="Text", quote=quote)]), str)
