"""Small numbers that a page states as a result, and those that stand on it by chance."""

from __future__ import annotations

import pytest
from fakes import block, page
from hypothesis import given
from hypothesis import strategies as st

from synth.cells import grids
from synth.grounding import PageText
from synth.printed import stated
from synth.quantities import folded, quantities

FIELD = page(
    0,
    "Availability is a share of time. Compared with 2022, it rose by 1.6 percentage points thanks to new valves.",
    block(
        "Item\t2022\t2023\tChange\nAvailability\t94.2\t95.8\t1.7\nStops\t6.8\t5.1\t-1.8\nTotal\t101.0\t12.5\t", "table"
    ),
    "The valve opens at 2.3 bar; the share of steel is 1.9 percent.",
)
BUDGET = page(
    1,
    "全县一般公共预算收入68,488万元，比上年增长7.8%，其中税收收入占71.3%。契税下降8.2%。",
    block("项目\t2022年\t2023年\t增减额\n污水处理费\t42\t51\t9\n彩票公益金\t48\t55\t7", "table"),
)


def is_stated(question: str, answer: str, *quotes: str) -> bool:
    (number,) = quantities(answer)
    made = FIELD if question.isascii() else BUDGET
    return stated(number, folded(question), quotes, PageText(made), grids(made))


@pytest.mark.parametrize(
    ("question", "result", "chance", "quote"),
    [
        (
            "By how many percentage points was the availability higher in 2023 than in 2022?",
            "1.6",
            "1.9",
            "Availability 94.2 95.8",
        ),
        ("By how many points did the availability rise?", "1.7", "2.3", "Availability 94.2 95.8"),
        ("2023年一般公共预算收入比2022年增长百分之几？", "7.8", "8.2", "收入合计 63,525 68,488"),
        ("污水处理费2023年比2022年增加多少万元？", "9", "7", "污水处理费 42 51"),
    ],
)
def test_a_result_is_told_from_chance(question: str, result: str, chance: str, quote: str) -> None:
    assert is_stated(question, result, quote)
    assert not is_stated(question, chance, quote)


def test_a_direction_must_agree() -> None:
    assert not is_stated("By how many percentage points did the availability fall from 2022 to 2023?", "1.6")


def test_what_falls_short_of_a_target_has_no_direction() -> None:
    made = page(
        0,
        "M30 missed the target of 50 MPa at 28 days by 3.1 MPa. Sand came late. At night it was 3.2 MPa in the tank.",
    )
    for answer, printed in (("3.1", True), ("3.2", False)):
        question = "By how many MPa did M30 fall short of the target of 50 MPa?"
        assert stated(quantities(answer)[0], question, ["M30 46.9"], PageText(made), []) is printed


TEXTS = st.text(max_size=40) | st.sampled_from(["Availability 94.2 95.8", "rose by 1.6 percent", "增长"])


@given(TEXTS, TEXTS, st.sampled_from(["1.6", "9", "0.0", "7.8%"]))
def test_any_text_gets_an_answer(question: str, quote: str, answer: str) -> None:
    assert is_stated(question, answer, quote) in (True, False)
