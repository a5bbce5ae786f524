"""Tables as rows and columns, and answers that stand in the cell that is asked for, in another one, or in neither."""

from __future__ import annotations

import pytest
from fakes import block, page
from hypothesis import given
from hypothesis import strategies as st

from corpus.records import Cell, Table, TableRow
from synth.cells import Grid, Row, cell_problem, grids, row_problem

BOX = (72.0, 100.0, 540.0, 200.0)
CARGO = page(
    0,
    block("Table 1: Cargo by type (in thousands of tonnes)", "caption"),
    block("Type\t2021\t2022\nContainers\t5,630\t6,120\nRo-ro cargo\t1,410\t1,380\nDry bulk\t2,250\t2,900", "table"),
    block("Table 2: Berths", "caption"),
    block("Berth\tLength (m)\tDepth (m)\tShare of calls (%)\nNorth\t240\t11.5\t38\nSouth\t310\t14.0\t62", "table"),
    block("In a good year 4,400 thousand tonnes of timber are handled."),
)
SCHOOLS = page(
    1,
    block("表3 各区教育情况", "caption"),
    block("区\t学校（所）\t教师（人）\t区长\n东区\t42\t2,150\t林芳\n西区\t35\t1,820\t周明", "table"),
)
TABLES = [*grids(CARGO), *grids(SCHOOLS)]


def problem(answer: str, question: str, *quotes: str, anchor: str = "Table 1") -> str:
    return cell_problem(answer, question, anchor, quotes, [CARGO, SCHOOLS], TABLES)


def test_tables_are_read_from_blocks_with_the_names_above_them() -> None:
    cargo, berths = grids(CARGO)
    assert (cargo.name, cargo.columns) == ("Table 1: Cargo by type (in thousands of tonnes)", ("2021", "2022"))
    assert cargo.rows[1] == Row("Ro-ro cargo", ("1,410", "1,380"))
    assert berths.placed(berths.rows[0])[2] == ("38", "Share of calls (%)")


@pytest.mark.parametrize(
    ("lines", "columns", "cells"),
    [
        ("2021\t2022\nHeat\t1\t2\nPower\t3\t4", ("2021", "2022"), ("1", "2")),  # no header over the labels
        ("Division 2021 2022\nHeat 1.5 2\nPower 3 (4)", ("2021", "2022"), ("1.5", "2")),  # no tabs
        ("Division\t2021 2022\nHeat\t1 2\nPower\t3 4", ("2021", "2022"), ("1", "2")),  # numbers in one piece
        ("Note\tValue\nHeat\t1\t2\nPower\t3\t4", (), ("1", "2")),  # which columns these are is not told
        ("Heat\t1\t2\nPower\t3\t4", (), ("1", "2")),
        ("Code\tMeaning\nE1\tToo hot\nE2\tToo cold", ("Meaning",), ("Too hot",)),
    ],
)
def test_headers_are_told_or_left_open(lines: str, columns: tuple[str, ...], cells: tuple[str, ...]) -> None:
    (grid,) = grids(page(0, block(lines, "table")))
    assert grid.columns == columns
    assert next(r for r in grid.rows if r.label in ("Heat", "E1")).cells == cells


@pytest.mark.parametrize("text", ["", "One line\t2", "A sentence about 3\nand another one", "a\tb\nc\nd\ne\nf"])
def test_other_lines_are_no_table(text: str) -> None:
    assert grids(page(0, block(text))) == []


def test_strict_tables_come_first_and_hide_their_blocks() -> None:
    rows = (TableRow(label="Tax > Basic", box=BOX, cells=(Cell(text="7", box=BOX),)),)
    strict = Table(box=BOX, columns=("2021",), column_boxes=(BOX,), rows=rows, anchor="Tax by kind")
    made = page(0, block("Basic\t7\nOther\t8", "table", box=BOX), tables=(strict,))
    assert grids(made) == [Grid("Tax by kind", ("2021",), (Row("Tax > Basic", ("7",)),))]


RO_RO = "Ro-ro cargo 1,410 1,380"


@pytest.mark.parametrize(
    ("question", "right", "wrong", "quotes", "anchor"),
    [
        ("In Table 1, how much ro-ro cargo was handled in 2021?", "1410", "1380", [RO_RO], "Table 1"),
        ("In Table 1, how much ro-ro cargo was handled in 2021?", "1,410 thousand tonnes", "5630", [RO_RO], "Table 1"),
        ("How many tonnes of ro-ro cargo does Table 1 give for 2022?", "1380000", "1410000", [RO_RO], "Table 1"),
        ("What was the cargo of 2021 in Table 1?", "1410", "2250", [RO_RO], "Table 1"),  # the row by its quote
        ("How deep is the North berth in Table 2?", "11.5", "14.0", ["North 240 11.5 38"], "Table 2"),
        ("What is the depth of the south berth in Table 2?", "14.0", "310", ["South 310 14.0 62"], "Table 2"),
        (
            "What percentage of the calls had the north berth, by Table 2?",
            "38",
            "240",
            ["North 240 11.5 38"],
            "Table 2",
        ),
        ("表3中，西区有多少名教师？", "1820", "35", ["西区 35 1,820 周明"], "表3"),
        ("表3中，西区的学校数是多少？", "35", "42", ["西区 35 1,820 周明"], "表3"),
        ("表3中，西区的区长是谁？", "周明", "林芳", ["西区 35 1,820 周明"], "表3"),
    ],
)
def test_the_cell_that_is_asked_for(question: str, right: str, wrong: str, quotes: list[str], anchor: str) -> None:
    assert problem(right, question, *quotes, anchor=anchor) == ""
    assert " stands at " in problem(wrong, question, *quotes, anchor=anchor)


@pytest.mark.parametrize(
    ("answer", "question", "quotes"),
    [
        ("5630", "How much cargo was handled in 2021?", []),  # no row is named
        ("4400", "In Table 1, how much ro-ro cargo was handled in 2021?", [RO_RO]),  # in no cell
        (
            "1380",
            "How much ro-ro cargo was handled in the year before 2022 (Table 1)?",
            [RO_RO],
        ),  # another year is told
        ("Containers", "Which type beside ro-ro cargo does Table 1 list?", [RO_RO]),  # the name of a row
        ("1380", "What is said of ro-ro cargo of 2021?", ["a quote of 1380 words from elsewhere"]),
        ("310", "How long is the berth for ro-ro cargo, by Table 2?", ["The berth of 310 metres is for ro-ro cargo"]),
        ("6120", "How much ro-ro cargo was there in 2021?", []),  # neither the table nor a row of it is said to hold it
    ],
)
def test_where_the_cell_is_not_told_nothing_is_said(answer: str, question: str, quotes: list[str]) -> None:
    assert problem(answer, question, *quotes, anchor="") == ""


def test_a_part_of_a_longer_label_is_not_named_by_it() -> None:
    made = page(
        0, block("Table 7: Accounts", "caption"), block("Item\t2021\nTotal\t9\nTotal debts\t4\nCash\t5", "table")
    )
    question = "What are the total debts of 2021 in Table 7?"
    quotes = ["Total debts 4"]
    assert cell_problem("4", question, "Table 7", quotes, [made], grids(made)) == ""
    assert cell_problem("9", question, "Table 7", quotes, [made], grids(made)) != ""


WORDS = st.text(max_size=40) | st.sampled_from(["Table 1", "2021", "Ro-ro cargo", "1,410", "\t", "表3", "("])
LINES = st.lists(st.text(alphabet="ab1,.\t 年表()\n%-", max_size=40), max_size=8).map("\n".join)


@given(WORDS, WORDS, WORDS, WORDS, LINES)
def test_any_text_gets_an_answer(answer: str, question: str, anchor: str, quote: str, lines: str) -> None:
    made = page(0, block(lines, "table"), block(lines))
    assert isinstance(cell_problem(answer, question, anchor, [quote], [made], grids(made)), str)


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_cell_is_right_and_its_neighbour_is_not(a: int, b: int) -> None:
    made = page(
        0, block("Table 1: Ships", "caption"), block(f"Kind\t2021\t2022\nFerries\t{a:,}\t{b:,}\nTugs\t0\t0", "table")
    )
    question = "How many ferries does Table 1 list for 2022?"
    assert cell_problem(str(b), question, "Table 1", [], [made], grids(made)) == ""
    assert bool(cell_problem(str(a), question, "Table 1", [], [made], grids(made))) == (a not in (b, 1000 * b))


def test_a_page_full_of_numbers_takes_no_more_than_its_lines() -> None:
    lines = "\n".join(f"{'1 ' * 400}x" for _ in range(50))
    assert grids(page(0, block(lines))) == []


@pytest.mark.parametrize(
    ("question", "quote", "wrong"),
    [
        ("By how much did Ro-ro cargo fall from 2021 to 2022?", "Containers 5,630 6,120", True),
        ("By how much did Ro-ro cargo fall from 2021 to 2022?", "Ro-ro cargo 1,410 1,380", False),
        ("What was handled besides Ro-ro cargo in 2022?", "Containers 5,630 6,120", False),
        ("By how much did cargo grow from 2021 to 2022?", "Containers 5,630 6,120", False),
        ("How many teachers per school are there in 东区?", "西区 35 1,820 周明", True),
        ("西区每所学校有多少教师？", "东区 42 2,150 林芳", True),
        ("西区以外的区每所学校有多少教师？", "东区 42 2,150 林芳", False),
        ("周明任区长的西区每所学校有多少教师？", "西区 35 1,820 周明", False),
        ("How deep is the berth North?", "In a good year 4,400 thousand tonnes of timber are handled.", False),
    ],
)
def test_a_row_that_is_named_is_quoted(question: str, quote: str, wrong: bool) -> None:
    assert bool(row_problem(question, "Table 1", [quote], TABLES)) is wrong


def test_each_row_that_is_named_is_quoted() -> None:
    question = "By how much did Ro-ro cargo exceed Dry bulk in 2021?"
    right = ["Ro-ro cargo 1,410 1,380", "Dry bulk 2,250 2,900"]
    assert row_problem(question, "Table 1", right, TABLES) == ""
    assert row_problem(question, "Table 1", [right[0], "Containers 5,630 6,120"], TABLES) != ""
    assert row_problem(question, "Table 1", right[:1], TABLES) == ""


def test_another_row_than_the_one_that_is_named_may_be_asked_for() -> None:
    quotes = ("handled more Dry bulk and one other kind", "Ro-ro cargo 1,410 1,380")
    question = "Dry bulk rose, and so did another cargo: how much of that cargo was handled in 2021?"
    assert problem("1410", question, *quotes) == ""
    assert problem("1410", "How much Dry bulk was handled in 2021?", *quotes[1:]) != ""
