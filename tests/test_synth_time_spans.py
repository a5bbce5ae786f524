"""Days, weeks and months between two dates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.quantities import folded, quantities
from synth.time_spans import span_matches


def matches(question: str, answer: str, *quotes: str) -> bool | None:
    (wanted,) = quantities(answer)
    return span_matches(folded(question), wanted, quotes)


@pytest.mark.parametrize(
    ("question", "right", "wrong", "quotes"),
    [
        (
            "How many days passed from the start to the end?",
            ["1633"],
            ["1603", "1634"],
            ["14 March 2016", "2 September 2020"],
        ),
        (
            "How many days did the works last?",
            ["291", "292"],
            ["290", "293"],
            ["from 9 January 2023 to 27 October 2023"],
        ),
        ("How many days, both days included, did they last?", ["292"], ["291"], ["9 January 2023", "27 October 2023"]),
        (
            "How many days after the first did the second follow?",
            ["160"],
            ["161"],
            ["on 3 January and again on 12 June 2023"],
        ),
        ("How many days was the fair open?", ["12", "11"], ["10", "17"], ["between 6 and 17 November 2023"]),
        ("两个日期相隔多少天？", ["227"], ["217", "228"], ["2023年7月18日封闭", "开工日期 2024年3月1日"]),
        ("活动持续了几天？", ["16", "15"], ["14"], ["2023年3月5日至20日"]),
        ("上市日期相差多少天？", ["141"], ["142"], ["于3月20日上市", "于8月8日上市"]),
        ("相隔多少天？", ["29", "28"], ["30"], ["2月1日开始", "3月1日结束"]),  # of any year
        ("How many weeks lie between them?", ["2", "2.0"], ["3", "4"], ["1 May 2023", "15 May 2023"]),
        ("How many full weeks lie between them?", ["4", "5"], ["3"], ["1 May 2023", "1 June 2023"]),
        ("How many months after the start did it end?", ["14"], ["13", "15"], ["May 2021", "July 2022"]),
        ("相隔多少个月？", ["20"], ["19"], ["2022年9月", "2024年5月"]),
        ("How many months apart are they?", ["13", "14"], ["12"], ["20 May 2021", "3 July 2022"]),
    ],
)
def test_the_time_between_two_dates(question: str, right: list[str], wrong: list[str], quotes: list[str]) -> None:
    assert [matches(question, a, *quotes) for a in right] == [True] * len(right)
    assert [matches(question, a, *quotes) for a in wrong] == [False] * len(wrong)


@pytest.mark.parametrize(
    ("question", "quotes"),
    [
        ("How many ships came?", ["1 May 2023", "15 May 2023"]),  # no time is asked for
        ("How many days did it take?", ["It began on 1 May 2023."]),
        ("How many days did both take?", ["1 May 2023, for 3 days", "15 May 2023, for 4 days"]),
        ("How many days are there?", ["31 February 2023", "30 February 2023"]),
    ],
)
def test_without_two_dates_alone_nothing_is_said(question: str, quotes: list[str]) -> None:
    assert matches(question, "7", *quotes) is None


@given(st.dates(), st.dates())
def test_any_two_dates(a: object, b: object) -> None:
    found = matches("How many days passed?", "7", f"{a}", f"{b}")
    assert found in (True, False, None)
