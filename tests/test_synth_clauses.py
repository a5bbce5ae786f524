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
COURSES = "Operators attend a course of 2 days, maintenance fitters one of 5 days, and electricians one of 4 days."
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
        ("How many days does the course for electricians last?", "4", "5", COURSES),
        ("How many days does the course for operators last?", "2", "4", COURSES),
        (
            "How loud is it with glass bottles, in dB?",
            "81",
            "76",
            "It is 76 dB with plastic bottles and 81 dB with glass.",
        ),
        (
            "What percentage of the weight is plastics?",
            "9",
            "14",
            "71 percent steel, 14 percent tin and 9 percent plastics.",
        ),
        (
            "What percentage of the women did?",
            "11.8",
            "13.6",
            "It was reported by 13.6 percent of the men and 11.8 percent of the women.",
        ),
        (
            "What percentage of adults was it in 2017?",
            "17.4",
            "16.2",
            "It was 18.9 percent, against 17.4 percent in 2017 and 16.2 percent in 2011.",
        ),
        (
            "How many hours a day do women wear it?",
            "8.5",
            "7.1",
            "Owners wore it for 7.8 hours a day, men for 7.1 and women for 8.5 hours.",
        ),
        ("2023年的耗水量是多少？", "3.18", "3.42", "耗水量由2022年的3.42立方米降至2023年的3.18立方米"),
        (
            "2025年到期本金是多少亿元？",
            "2.04",
            "1.57",
            "到期本金分别为：2024年1.38亿元，2025年2.04亿元，2026年1.57亿元。",
        ),
        ("因口感差异投诉的比例是多少？", "26%", "43%", "投诉原因以包装破损（43%）和口感差异（26%）为主。"),
        ("新招聘的应届毕业生有多少人？", "147", "512", "全年新招聘员工512人，其中应届毕业生147人"),
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
        (
            "How many patients of the emergency room had to stay?",
            "89",
            "The emergency room saw 420 patients, 89 were admitted.",
        ),
        (
            "杀菌余热回收的投资回收期是几年？",
            "3.5",
            "变频改造年节电185万千瓦时，杀菌余热回收年节约天然气42万立方米，投资回收期分别为2.8年和3.5年。",
        ),
        (
            "How many operations were planned for the hospital?",
            "20",
            "Of the 40 operations of the hospital, 20 were arranged.",
        ),
    ],
)
def test_other_words_for_a_clause_do_not_make_an_answer_wrong(question: str, answer: str, quote: str) -> None:
    assert problem(question, answer, quote) == ""


def test_the_other_items_of_a_list_are_no_rivals() -> None:
    quote = "第一次剪离地15厘米，第二次剪离地30厘米，第三次剪离地45厘米。"
    assert problem("三次定型修剪的离地高度依次是多少？", "45厘米", quote, "15厘米", "30厘米", "45厘米") == ""


def test_clauses_end_at_commas_and_conjunctions() -> None:
    assert [(abs(c.number.value), c.first) for c in clauses(STOPS)] == [(44, True), (17, False), (12, False)]
    assert [c.year for c in clauses("耗水量由2022年的3.42立方米降至2023年的3.18立方米")] == ["2022", "2023"]
    assert clauses("from 4 metres to 5 metres") == []


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


LOTS = "第一包在合同生效后150天内交货，第二包120天，第三包180天"
LOSS = "the prisms had lost 4.9 percent of their mass in M0, 4.6 percent in M10 and 4.7 percent in M30"
OVERDUE = "逾期贷款余额为3,655百万元，其中逾期90天以上的为2,470百万元"
PILOTS = "The pilots carried out 3,118 pilotages, 611 of them at night."
LEVY = "The fund received 840 million kroner, of which 450 million kroner from the levy."


@pytest.mark.parametrize(
    ("question", "right", "wrong", "quote"),
    [
        ("第三包应在合同生效后多少天内交货？", "180", "150", LOTS),
        ("第一包应在合同生效后多少天内交货？", "150", "120", LOTS),
        ("What percentage of their mass had the prisms of M30 lost?", "4.7", "4.6", LOSS),
        ("What percentage of their mass had the prisms of M10 lost?", "4.6", "4.9", LOSS),
        ("报告期末逾期90天以上的贷款余额是多少百万元？", "2470", "3655", OVERDUE),
        ("报告期末逾期贷款余额是多少百万元？", "3655", "90", OVERDUE),
        ("How many pilotages were carried out at night?", "611", "3118", PILOTS),
        ("How many million kroner did the fund receive from the levy?", "450", "840", LEVY),
    ],
)
def test_a_number_belongs_to_the_code_or_the_part_that_is_asked_for(
    question: str, right: str, wrong: str, quote: str
) -> None:
    assert problem(question, right, quote) == ""
    assert problem(question, wrong, quote) != "" or wrong == "90"


@pytest.mark.parametrize(
    ("question", "answer", "quote"),
    [
        ("How many pilotages were there?", "3118", PILOTS),
        ("How many million kroner did the fund receive, the levy included?", "840", LEVY),
        ("第一包和第三包中较长的是多少天？", "180", LOTS),
        ("How much mass had M30 lost?", "9.3", "From M0 to M30 it was 4.9 to 9.3 percent."),
        ("第三包交货期是多少天？", "150", "150天和第三包的120天，第一包"),
    ],
)
def test_no_code_and_no_part_says_nothing(question: str, answer: str, quote: str) -> None:
    assert problem(question, answer, quote) == ""
