"""Calculations from quotes: right answers are recomputed, wrong ones contradicted, and the rest left open."""

from __future__ import annotations

import pytest
from fakes import block, page
from hypothesis import given
from hypothesis import strategies as st

from synth.arithmetic import recompute
from synth.cells import grids

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


# ------------------------------------------------------------------------------- the operation follows the wording

STAFF = page(
    0,
    block("Table 4: Staff by department", "caption"),
    block(
        "Department\tStaff 2020\tStaff 2021\tVacancies\tShare of women (%)\n"
        "Nursing\t812\t840\t31\t78.5\nDoctors\t305\t299\t12\t46.2\nAdministration\t148\t155\t4\t66.0\n"
        "Ward 3\t20\t18\t1\t50.0",
        "table",
    ),
)
NURSES, DOCTORS, OFFICE = "Nursing 812 840 31 78.5", "Doctors 305 299 12 46.2", "Administration 148 155 4 66.0"


def from_table(question: str, answer: str, *quotes: str, answer_format: str = "Float") -> bool | None:
    return recompute(question, answer, answer_format, quotes, [STAFF.text], grids(STAFF)).matches


@pytest.mark.parametrize(
    ("question", "right", "wrong", "quotes"),
    [
        # difference, not sum
        ("How many ro-ro units fewer were there?", "30", "2790", ["ro-ro units fell from 1,410 to 1,380"]),
        ("How many of the ships did not use shore power?", "300", "340", ["Of 320 ships 20 used shore power."]),
        ("学生中没有住校的有多少人？", "1600", "35600", ["在校学生18,600人，住校17,000人"]),
        ("居民和工业以外，其余用电是多少？", "8.3", "108.9", ["售电量58.6，居民用电14.2，工业用电36.1"]),
        # sum, not difference
        ("How many beds have both wards together?", "70", "10", ["ward A has 40 beds, ward B 30 beds"]),
        ("两个校区一共有多少名教师？", "700", "100", ["东校区教师400人，西校区教师300人"]),
        # A per B
        ("How many tonnes were handled per employee?", "50", "0.02", ["2,250 tonnes were handled by 45 employees"]),
        ("平均每名教师负责多少名学生？", "15.5", "0.06", ["专任教师1,200人，在校学生18,600人"]),
        ("图书馆人均藏书多少册？", "110", "0.01", ["馆藏图书2,046,000册，服务18,600人"]),
        ("What is the ratio of nurses to doctors?", "2.5", "0.4", ["250 nurses and 100 doctors work there"]),
        ("甲厂产量是乙厂的几倍？", "2.5", "0.4", ["甲厂产量250吨，乙厂产量100吨"]),
        # share of its base
        (
            "研究生占在校学生的百分之多少？",
            "24.0",
            "31.6",
            ["在校学生23,450人，其中本科生17,820人，研究生5,630人"],
        ),
        (
            "What percentage of the fleet is electric?",
            "25",
            "400",
            ["The fleet has 80 trucks, of which 20 are electric."],
        ),
        ("What percentage of the fleet is not electric?", "75", "125", ["The fleet has 80 trucks, 20 are electric."]),
        # a share of a number
        (
            "How many tonnes were contaminated?",
            "84700",
            "84800",
            ["385,000 tonnes came, 22 % of them was contaminated"],
        ),
        ("How many tonnes were not contaminated?", "300300", "300400", ["385,000 tonnes came, 22 % was contaminated"]),
        # change in percent, from its beginning
        ("By how many percent did it fall?", "20.0", "25.0", ["fell from 500 to 400"]),
        ("By how many percent did it grow?", "25.0", "20.0", ["grew from 400 to 500"]),
        ("甲厂产量比乙厂高百分之多少？", "25", "20", ["甲厂产量500吨，乙厂产量400吨"]),
        ("用户同比增长百分之多少？", "5.3", "5.0", ["用户96万户，比上年增加4.8万户"]),
        # units by powers of a thousand
        ("How many MWh were used per call?", "3.5", "285.7", ["1.4 GWh went to 400 calls"]),
        ("户均用电多少千瓦时？", "6104", "6204", ["售电量58.6亿千瓦时，用户96万户"]),
        ("By how many million pounds do they differ?", "0.72", "720000.00", ["6.84 million and 6.12 million pounds"]),
        # rounded or cut off, no more
        ("By how many percent did it fall?", "2.1", "2.2", ["fell from 1,410 to 1,380"]),
    ],
)
def test_the_operation_follows_the_wording(question: str, right: str, wrong: str, quotes: list[str]) -> None:
    assert matches(question, right, *quotes) is True
    assert matches(question, wrong, *quotes) is False


@pytest.mark.parametrize(
    ("question", "right", "wrong", "quotes"),
    [
        ("By how many did the doctors decrease from 2020 to 2021?", "6", "604", [DOCTORS]),
        ("By how many did the nurses increase from 2020 to 2021?", "28", "-28", [NURSES]),
        ("By how many did the number of nurses change from 2020 to 2021?", "28", "-28", [NURSES]),
        ("How many nurses were there per doctor in 2021?", "2.81", "2.66", [NURSES, DOCTORS]),  # 2.66 is of 2020
        ("How many more vacancies than in administration does nursing have?", "27", "35", [NURSES, OFFICE]),
        ("In how many departments did the staff grow from 2020 to 2021?", "2", "3", [NURSES, DOCTORS, OFFICE]),
        ("How many departments had more than 150 staff in 2021?", "3", "2", [NURSES, DOCTORS, OFFICE]),
        ("By how many percent is the staff of 2021 lower on ward 3 than in 2020?", "10", "11.1", ["Ward 3 20 18 1 50"]),
    ],
)
def test_cells_of_a_table_are_told_apart(question: str, right: str, wrong: str, quotes: list[str]) -> None:
    assert from_table(question, right, *quotes) is True
    assert from_table(question, wrong, *quotes) is False


@pytest.mark.parametrize(
    ("question", "right", "wrong", "quotes"),
    [
        ("Which department lost staff from 2020 to 2021?", "Doctors", "Nursing", [DOCTORS]),  # Nursing is not quoted
        ("Which department had more staff in 2020 than in 2021?", "Doctors", "Nursing", [NURSES, DOCTORS]),
        ("Which department had fewer staff in 2020 than in 2021?", "Nursing", "Doctors", [NURSES, DOCTORS]),
        ("2021年比2020年人数减少的是哪个部门？", "Doctors", "Administration", [DOCTORS]),
        (
            "Which department has the second-highest share of women?",
            "Administration",
            "Nursing",
            [NURSES, DOCTORS, OFFICE],
        ),
        ("Which department had the most staff in 2021?", "Nursing", "Ward 3", [NURSES, DOCTORS]),
        ("Where is the difference between staff of 2020 and 2021 smallest?", "Doctors", "Nursing", [NURSES, DOCTORS]),
    ],
)
def test_the_row_that_is_named_must_be_the_one(question: str, right: str, wrong: str, quotes: list[str]) -> None:
    assert from_table(question, right, *quotes, answer_format="String") is True
    assert from_table(question, wrong, *quotes, answer_format="String") is False


def test_what_is_said_to_fall_must_not_rise() -> None:
    assert from_table("By how many did the nurses decrease from 2020 to 2021?", "28", NURSES) is False
    assert from_table("By how many percent did the nurses decrease from 2020 to 2021?", "3.4", NURSES) is False


def test_a_list_of_rows_must_be_complete() -> None:
    def grew(answer: str) -> bool | None:
        return from_table("Which grew from 2020 to 2021?", answer, NURSES, DOCTORS, OFFICE, answer_format="List")

    assert grew('["Nursing", "Administration"]') is True
    assert grew('["Nursing"]') is False
    assert grew('["Nursing", "Doctors"]') is False
    assert grew('["Nursing", "Catering"]') is False  # Administration is left out


def test_days_between_two_dates() -> None:
    assert matches("How many days later was it opened?", "25", "begun on 8 March", "opened on 2 April") is True
    assert matches("晚多少天？", "25", "3月8日", "4月2日") is True


def test_where_the_wording_is_unknown_any_operation_will_do() -> None:
    for answer in ("12", "8", "20", "1.25", "25", "5"):
        assert matches("What does the index come to?", answer, "first 10", "second 2") in (True, False)
    assert matches("What does the index come to?", "12", "first 10", "second 2") is True
    assert matches("What does the index come to?", "5", "first 10", "second 2") is True
    assert matches("What does the index come to?", "13", "first 10", "second 2") is False


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


# ------------------------------------------------------------------------------------------- tables with gaps, names

STEPS = page(
    0,
    block("Table 4: Steps (minutes)", "caption"),
    block(
        "Step\tTemperature (°C)\tShort programme\tFull programme\nPre-rinse\t20\t4\t8\nCaustic wash\t78\t12\t25\n"
        "Acid wash\t62\t–\t18\nTotal\t16\t51",
        "table",
    ),
)
AIDS = page(
    0,
    block(
        "Situation\tWith hearing aid 2017\tWith hearing aid 2023\tWithout hearing aid 2017\tWithout hearing aid 2023\n"
        "Group\t58.3\t54.9\t66.1\t67.4\nTelephone\t39.6\t30.2\t33.5\t28.8\nTelevision\t21.7\t19.4\t35.2\t36.9",
        "table",
    ),
)
DEBT = page(
    0,
    block("表4 债务（亿元）", "caption"),
    block(
        "指标\t2022年\t2023年\t2025年目标\n债务余额合计\t26.97\t28.78\t29.00\n债务限额\t28.35\t30.26\t35.00\n付息\t0.86\t0.94\t1.20",
        "table",
    ),
)
GROUP, PHONE, SCREEN = "Group 58.3 54.9 66.1 67.4", "Telephone 39.6 30.2 33.5 28.8", "Television 21.7 19.4 35.2 36.9"
OWED, LIMIT = "债务余额合计 26.97 28.78 29.00", "债务限额 28.35 30.26 35.00"


def found(made: object, question: str, answer: str, *quotes: str, answer_format: str = "Float") -> bool | None:
    return recompute(question, answer, answer_format, quotes, [made.text], grids(made)).matches


@pytest.mark.parametrize(
    ("made", "question", "right", "wrong", "quotes"),
    [
        # a total that leaves a cell empty belongs to the columns that add up to it
        (
            STEPS,
            "What share of the total duration of the full programme is taken up by the caustic wash, in percent?",
            "49.0",
            "156.3",
            ["Caustic wash 78 12 25", "Total 16 51"],
        ),
        # how many rows rose, in two columns of four
        (
            AIDS,
            "In how many situations did the percentage without hearing aid rise from 2017 to 2023?",
            "2",
            "1",
            [GROUP, PHONE, SCREEN],
        ),
        (
            AIDS,
            "In how many situations did the percentage with hearing aid fall from 2017 to 2023?",
            "3",
            "2",
            [GROUP, PHONE, SCREEN],
        ),
        # the words of names are no operations
        (DEBT, "2023年债务余额合计距债务限额还有多少亿元的空间？", "1.48", "59.04", [OWED, LIMIT]),
        (DEBT, "2023年债务余额合计与债务限额之和是多少？", "59.04", "1.48", [OWED, LIMIT]),
    ],
)
def test_rows_and_columns_of_tables(made: object, question: str, right: str, wrong: str, quotes: list[str]) -> None:
    assert found(made, question, right, *quotes) is True
    assert found(made, question, wrong, *quotes) is False


def test_the_row_that_is_farthest_from_another_column() -> None:
    rows = [OWED, LIMIT, "付息 0.86 0.94 1.20"]
    question = "哪一项2023年的数值离2025年目标差得最多？"
    assert found(DEBT, question, "债务限额", *rows, answer_format="String") is True
    assert found(DEBT, question, "债务余额合计", *rows, answer_format="String") is False


@pytest.mark.parametrize(
    ("question", "right", "wrong", "quotes"),
    [
        (
            "Apply the factor to the RF-40. How many cubic metres per hour are needed?",
            "32.48",
            "15.45",
            ["for the RF-60 multiply by 1.45", "air 22.4 m³"],
        ),
        (
            "By what factor did the visitors grow?",
            "5.64",
            "0.18",
            ["3,200 visitors in 2020", "18,050 visitors in 2022"],
        ),
        ("How many MWh came from both together?", "2100", "241.86", ["1.86 GWh of gas", "240 MWh of heat"]),
        ("How many minutes do both take together?", "105", "46", ["rinsing takes 1 hour", "washing takes 45 minutes"]),
        ("两批共重多少千克？", "1740", "241.5", ["第一批1.5吨", "第二批240千克"]),
    ],
)
def test_factors_and_units(question: str, right: str, wrong: str, quotes: list[str]) -> None:
    assert matches(question, right, *quotes) is True
    assert matches(question, wrong, *quotes) is False


def test_points_that_a_value_rose_by_count_no_rows() -> None:
    assert matches("可回收比例2023年比2020年提高了多少个百分点？", "13.1", "可回收比例71.5%升至84.6%") is True
    assert matches("可回收比例2023年比2020年提高了多少个百分点？", "18.3", "可回收比例71.5%升至84.6%") is False


# ------------------------------------------------------------------------------------------------- further wordings

WEIGHTS = page(
    0,
    block("Table 1: Machines by their output", "caption"),
    block(
        "Machine\tValves\tRated output (bottles/h)\tNet weight (kg)\tBuilt\nRF-24\t24\t9,600\t2,850\t2006\n"
        "RF-40\t40\t17,500\t4,160\t2011\nRF-40 H\t40\t15,000\t4,385\t2014\nRF-60\t60\t26,400\t5,970\t1998",
        "table",
    ),
)
SMALL, MIDDLE = "RF-24 24 9,600 2,850 2006", "RF-40 40 17,500 4,160 2011"
HOT, LARGE = "RF-40 H 40 15,000 4,385 2014", "RF-60 60 26,400 5,970 1998"
MACHINES = [SMALL, MIDDLE, HOT, LARGE]
BUDGET = page(
    0,
    block("表1 收入", "caption"),
    block(
        "项目\t2021年决算\t2022年决算\t2023年预算\t2023年执行\n契税\t5,320\t3,941\t4,200\t3,616\n个税\t1,938\t2,046\t2,100\t1,875",
        "table",
    ),
)
VISITS = page(0, block("Item\t2020\t2021\t2022\t2023\nVisits\t112\t126\t171\t160\nStops\t7.4\t6.3\t6.8\t5.1", "table"))


@pytest.mark.parametrize(
    ("made", "question", "right", "wrong", "quotes"),
    [
        (WEIGHTS, "What is the median net weight of the machines?", "4272.5", "4341.3", MACHINES),
        (WEIGHTS, "What is the range of the net weights, highest minus lowest?", "3120", "1310", MACHINES),
        (WEIGHTS, "How many machines have a rated output of at least 15,000 bottles per hour?", "3", "2", MACHINES),
        (WEIGHTS, "How many machines weigh less than 4,200 kg?", "2", "3", MACHINES),
        (
            WEIGHTS,
            "How many bottles do three RF-40 fill in an hour at their rated output, multiplied up?",
            "52500",
            "17503",
            [MIDDLE],
        ),
        (
            VISITS,
            "How many visits took place on average from 2020 to 2023?",
            "142.25",
            "569.00",
            ["Visits 112 126 171 160"],
        ),
        (BUDGET, "2021年至2023年契税三年平均为多少万元？", "4292", "5320", ["契税 5,320 3,941 4,200 3,616"]),
        (BUDGET, "2023年个税执行完成预算的百分之几？", "89.3", "112.0", ["个税 1,938 2,046 2,100 1,875"]),
    ],
)
def test_wordings_over_rows_and_columns(made: object, question: str, right: str, wrong: str, quotes: list[str]) -> None:
    assert found(made, question, right, *quotes) is True
    assert found(made, question, wrong, *quotes) is False


@pytest.mark.parametrize(
    ("question", "right", "wrong"),
    [
        ("Which machine has the lowest rated output per valve?", "RF-40 H", "RF-24"),
        ("Which machine has the second highest net weight?", "RF-40 H", "RF-40"),
        ("Which machine is the oldest?", "RF-60", "RF-40 H"),
        ("Which machine was built the latest?", "RF-40 H", "RF-24"),
    ],
)
def test_a_row_by_its_ratio_or_date(question: str, right: str, wrong: str) -> None:
    assert found(WEIGHTS, question, right, *MACHINES, answer_format="String") is True
    assert found(WEIGHTS, question, wrong, *MACHINES, answer_format="String") is False


def test_the_year_of_the_largest_number() -> None:
    stops, due = "Stops 7.4 6.3 6.8 5.1", "2024年1.38亿元，2025年2.04亿元，2026年1.57亿元"
    assert found(VISITS, "In which year were there the fewest stops?", "2023", stops, answer_format="Integer") is True
    assert found(VISITS, "In which year were there the fewest stops?", "2020", stops, answer_format="Integer") is False
    assert found(VISITS, "哪一年到期本金最多？", "2025年", due, answer_format="String") is True
    assert found(VISITS, "哪一年到期本金最多？", "2024年", due, answer_format="String") is False
    assert found(VISITS, "In which year did the stops fall the most?", "2023", stops, answer_format="Integer") is None


@pytest.mark.parametrize(
    ("question", "right", "wrong", "quote"),
    [
        ("How many kilometres were there in 2017?", "277", "359", "There are 318 kilometres, 41 more than in 2017."),
        ("2022年工伤有多少起？", "25", "13", "全年工伤19起，比上年少6起"),
        ("2022年平均收购价是多少元？", "4.15", "3.57", "2023年平均收购价为3.86元，比上年下降0.29元"),
        ("当年收支结余多少万元？", "3555", "75965", "基金收入39,760万元，支出36,205万元"),
        ("一年的补助合计多少万元？", "1564", "147.5", "补助标准为每村每年11.5万元，共有136个村"),
        ("办结率是百分之多少？", "95.1", "105.1", "收到意见41条，办结39条"),
        ("平均每个项目投资多少万元？", "214.5", "2349.0", "实施项目11项，投资2,360万元"),
    ],
)
def test_wordings_over_sentences(question: str, right: str, wrong: str, quote: str) -> None:
    assert matches(question, right, quote) is True
    assert matches(question, wrong, quote) is False


def test_a_share_of_several_rows_together() -> None:
    rows = ["Severe 52", "Profound 14", "Total 654"]
    assert matches("What share of the total had a severe or profound loss, in percent?", "10.1", *rows) is True
    assert matches("What share of the total had a severe or profound loss, in percent?", "12.2", *rows) is False


def test_pages_are_compared_but_not_counted() -> None:
    rows = ["1 21 April 2016 88 First edition", "5 5 February 2024 156 Field data"]
    assert matches("How many pages more than edition 1 does edition 5 have?", "68", *rows) is True
    assert matches("How many pages does the list run over?", "68", *rows) is None


@pytest.mark.parametrize(
    ("question", "answer", "wrong", "quotes"),
    [
        ("By how many percent was the final set of B later than that of A?", "82.2", "45.1", ["A 118", "B 215"]),
        ("B的终凝时间比A晚百分之几？", "82.2", "45.1", ["A 118", "B 215"]),
        ("What was the removal rate from inlet to outlet, in percent?", "92.0", "8.0", ["inlet 345, outlet 27.6"]),
        ("进水到出水的去除率是百分之几？", "92.0", "8.0", ["进水 345，出水 27.6"]),
        ("核销减去收回，净额为多少百万元？", "838", "1214", ["核销1,026百万元，收回188百万元"]),
        ("A加上B共多少？", "1214", "838", ["A为1,026", "B为188"]),
        ("What is the cost net of the grant?", "838", "1214", ["cost 1,026", "grant 188"]),
        ("Without the share of the gate, how many kilograms does M4 cause?", "86", "87", ["178 for M4, gate 92 each"]),
        ("What is the sum of A, B and C? Answer in percent.", "87.0", "88.0", ["A 61.4", "B 18.7", "C 6.9"]),
        ("累计支付合同价的百分之几？", "85", "50.5", ["10%作为预付款，到货支付50%，合格后支付25%"]),
    ],
)
def test_bases_and_words_of_an_operation(question: str, answer: str, wrong: str, quotes: list[str]) -> None:
    assert matches(question, answer, *quotes) is True
    assert matches(question, wrong, *quotes) is False


def test_a_rate_that_is_a_unit_of_the_quotes_divides_nothing() -> None:
    question = "How many cubic metres per hour do the four pumps move?"
    assert matches(question, "4200", "Flow (cubic metres per hour) 1,050", "four pumps work") is True
    assert matches(question, "6300", "Flow (cubic metres per hour) 1,050", "four pumps work") is False
    assert matches("工作泵总流量是每小时多少立方米？", "4200", "流量（立方米/小时） 1,050", "四用两备") is True
    assert matches("工作泵总流量是每小时多少立方米？", "7350", "流量（立方米/小时） 1,050", "四用两备") is False


@pytest.mark.parametrize(
    ("question", "answer", "wrong", "quotes"),
    [
        ("How far is Water below Heat in 2023?", "219.7", "712.7", [HEAT, WATER]),
        ("What is the total of Heat and Water in 2023?", "712.7", "219.7", [HEAT, WATER]),
        ("2023年供热和供水加在一起是多少？", "712.7", "356.35", [HEAT, WATER]),
        ("2023年Heat超出Water百分之几？", "89.1", "47.1", [HEAT, WATER]),
        ("2023年分析仪A比分析仪B高百分之几？", "89.1", "47.1", ["分析仪A 466.2", "分析仪B 246.5"]),
    ],
)
def test_more_words_of_sums_and_differences(question: str, answer: str, wrong: str, quotes: list[str]) -> None:
    assert matches(question, answer, *quotes) is True
    assert matches(question, wrong, *quotes) is False


AGES = "Age\tMen 2023\tWomen 2023\n50 to 64\t19.3\t13.4\n65 to 74\t40.2\t27.5\n5\t156\t140"
YOUNG, OLD = "50 to 64 19.3 13.4", "65 to 74 40.2 27.5"


@pytest.mark.parametrize(
    ("question", "answer", "wrong"),
    [
        ("How many times as large as 50 to 64 is 65 to 74 under Women 2023?", "2.05", "0.49"),
        ("What percentage of 65 to 74 is 50 to 64 under Women 2023?", "48.7", "205.2"),
        ("By what factor is 65 to 74 larger than 50 to 64 under Women 2023?", "2.05", "0.49"),
        ("Women 2023中50 to 64占65 to 74的百分之几？", "48.7", "51.3"),
        ("Women 2023中50 to 64是65 to 74的几分之几？", "0.49", "2.05"),
    ],
)
def test_the_numbers_of_a_row_s_name_are_no_base(question: str, answer: str, wrong: str) -> None:
    tables = grids(page(0, block("Table 2", "caption"), block(AGES, "table")))
    found = [recompute(question, a, "Float", [YOUNG, OLD], [AGES], tables).matches for a in (answer, wrong)]
    assert found == [True, False]


@pytest.mark.parametrize(
    ("question", "answer", "wrong", "quote"),
    [
        (
            "By how many percent was M40 lower than M0?",
            "9.2",
            "4.8",
            "196 kilograms for M0, 187 for M20 and 178 for M40",
        ),
        ("第三包的交货期比第四包长多少天？", "90", "30", "第一包150天，第二包120天，第三包180天，第四包90天"),
        ("第二包和第三包共需多少万元？", "27", "33", "第一包18万元，第二包12万元，第三包15万元，第四包6万元"),
        ("按“7.1 处罚”，两家共被罚款多少万元？", "85", "35", "甲行被罚款60万元，乙行被罚款25万元"),
    ],
)
def test_the_numbers_of_the_codes_that_are_named_are_taken(question: str, answer: str, wrong: str, quote: str) -> None:
    assert matches(question, answer, quote) is True
    assert matches(question, wrong, quote) is False


def test_the_base_of_a_share_may_be_a_column_with_a_number_in_its_name() -> None:
    text = "Mix\t1 day\t7 days\t90 days\nM20\t14.2\t37.8\t61.7\nM30\t10.5\t31.6\t55.3"
    tables = grids(page(0, block("Table 4", "caption"), block(text, "table")))
    question = "What percentage of its 90-day strength had M20 reached after 7 days?"
    found = [recompute(question, a, "Float", ["M20 14.2 37.8 61.7"], [text], tables).matches for a in ("61.3", "163.2")]
    assert found == [True, False]
