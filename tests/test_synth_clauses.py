"""Numbers of a sentence that belong to the words of their clause, and quotes that support a part of the answer each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.clauses import clause_problem, clauses, parts_problem

STOPS = (
    "Most stops came from jammed bottles (44 percent), followed by lubricant warnings that were ignored (17 percent) "
    "and worn float valves (12 percent)."
)
LONELY = (
    "On the scale from 0 to 9 the mean was 3.6 for those with a loss who wore no aid, 2.9 for those who wore one "
    "and 2.4 for persons without a loss."
)
HOURS = "人均培训时长为31.5小时，其中一线员工28.4小时，管理人员46.0小时。"
PROFIT = "2023年营业收入为36.84亿元，净利润为2.15亿元"


def problem(question: str, answer: str, quote: str, *items: str) -> str:
    return clause_problem(answer, items or [answer], question, "", [quote])


@pytest.mark.parametrize(
    ("question", "right", "wrong", "quote"),
    [
        ("What percentage of the stops was caused by worn float valves?", "12", "17", STOPS),
        ("What percentage of the stops was caused by worn float valves?", "12", "44", STOPS),
        ("What percentage of the stops came from ignored lubricant warnings?", "17", "12", STOPS),
        ("一线员工的人均培训时长是多少小时？", "28.4", "46.0", HOURS),
        ("管理人员的培训时长是多少小时？", "46.0", "28.4", HOURS),
        ("2023年净利润是多少亿元？", "2.15", "36.84", PROFIT),
        ("2023年营业收入是多少亿元？", "36.84", "2.15", PROFIT),
    ],
)
def test_a_number_belongs_to_its_clause(question: str, right: str, wrong: str, quote: str) -> None:
    assert problem(question, right, quote) == ""
    assert "said of something else" in problem(question, wrong, quote)


@pytest.mark.parametrize(
    ("question", "answer", "quote"),
    [
        ("What percentage of the stops came from jammed bottles?", "44", STOPS),
        ("What was the mean on the scale for persons with a loss who wore an aid?", "2.9", LONELY),
        ("What was the mean on the scale of those who wore no aid?", "3.6", LONELY),
        ("How many were scheduled in advance?", "20", "Of the 40 operations, 20 were planned and 5 were urgent."),
        ("How long did the hearing test take?", "22", "Interviews lasted 34 minutes, and the hearing test 22 minutes."),
        ("What is it called?", "Ada", STOPS),
    ],
)
def test_other_words_for_a_clause_do_not_make_an_answer_wrong(question: str, answer: str, quote: str) -> None:
    assert problem(question, answer, quote) == ""


def test_the_other_items_of_a_list_are_no_rivals() -> None:
    quote = "第一次剪离地15厘米，第二次剪离地30厘米，第三次剪离地45厘米。"
    assert problem("三次定型修剪的离地高度依次是多少？", "45厘米", quote, "15厘米", "30厘米", "45厘米") == ""


def test_clauses_end_at_commas_and_conjunctions() -> None:
    assert [(abs(c.number.value), c.first) for c in clauses(STOPS)] == [(44, True), (17, False), (12, False)]
    assert clauses("from 4 to 5 metres") == []


def test_each_quote_supports_a_part_of_its_own() -> None:
    first, second = "农林水 47,651 49,500 46,233 93.4", "农林水 48,600"
    question = "农林水支出2023年执行数和2024年预算数分别为多少万元？"
    assert parts_problem(["46,233", "48,600"], question, [first, second]) == ""
    assert "48,600" in parts_problem(["46,233", "49,500"], question, [first, second])


def test_a_quote_may_lead_to_the_one_that_holds_both_parts() -> None:
    quotes = ["B219 Bowl level unstable Replace float valve", "77-231 Float valve 264.50 3"]
    question = "What do the parts that fault B219 asks for cost, and in how many days are they delivered?"
    assert parts_problem(["264.50", "3"], question, quotes) == ""
    assert parts_problem(["264.50"], question, quotes) == ""


TEXTS = st.text(max_size=60) | st.text(alphabet="ab1,. 5%和为()。\n", max_size=40)


@given(TEXTS, TEXTS, TEXTS)
def test_any_text_gets_an_answer(question: str, answer: str, quote: str) -> None:
    assert isinstance(problem(question, answer, quote), str)
    assert isinstance(parts_problem([answer, question], question, [quote, answer]), str)
