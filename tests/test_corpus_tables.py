"""Strict tables: one good table drawn by hand, and for each rule the smallest change that must refuse it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from corpus.layout import Line, PageLayout, Region, Word
from corpus.records import Box, Table
from corpus.tables import strict_tables

HEIGHT = 10.0  # of a line
CHAR = 5.0  # width of a character
BOX = (45.0, 95.0, 405.0, 175.0)
ROW_LINES = (115.0, 135.0, 155.0)
COLUMN_LINES = (250.0, 350.0)

Text = tuple[float, float, str]  # x, y of the top, text

HEADER: list[Text] = [(50, 100, "(Millions)"), (280, 100, "2018"), (380, 100, "2017")]
BODY: list[Text] = [
    (50, 120, "Net sales"), (285, 120, "100"), (390, 120, "90"),
    (50, 140, "Cost of sales"), (290, 140, "60"), (390, 140, "55"),
    (50, 160, "Gross profit"), (290, 160, "40"), (390, 160, "35"),
]  # fmt: skip


def words(texts: Sequence[Text]) -> tuple[Word, ...]:
    """Words of 5 points a character, separated by 3 points."""
    found = []
    for x, y, text in texts:
        for word in text.split():
            found.append(Word((x, y, x + CHAR * len(word), y + HEIGHT), word))
            x += CHAR * len(word) + 3
    return tuple(found)


def read(
    texts: Sequence[Text],
    *,
    box: Box = BOX,
    row_lines: tuple[float, ...] = ROW_LINES,
    column_lines: tuple[float, ...] = COLUMN_LINES,
    rules: Sequence[Box] = (),
    regions: Sequence[Region] = (),
    lines: Sequence[Line] = (),
) -> tuple[Table, ...]:
    table = Region("table", box, row_lines, column_lines)
    return strict_tables(PageLayout(600, 800, words(texts), tuple(lines), (*regions, table), tuple(rules)))


def labels(tables: Sequence[Table]) -> list[str]:
    return [row.label for row in tables[0].rows]


def changed(texts: Sequence[Text], old: Text, *new: Text) -> list[Text]:
    assert old in texts
    return [t for t in texts if t != old] + list(new)


GOOD = HEADER + BODY


def test_good_table() -> None:
    (table,) = read(GOOD)
    assert table.columns == ("2018", "2017")
    assert [(r.label, tuple(c.text for c in r.cells)) for r in table.rows] == [
        ("Net sales", ("100", "90")),
        ("Cost of sales", ("60", "55")),
        ("Gross profit", ("40", "35")),
    ]
    assert table.unit == "Millions"
    assert table.whole
    assert table.anchor == ""
    assert table.box == BOX
    assert table.rows[0].cells[0].box == (285, 120, 300, 130)
    assert table.column_boxes[1] == (380, 100, 400, 110)


def test_signs_belong_to_their_number() -> None:
    texts = [t for t in GOOD if t[1] != 140]
    texts += [(50, 140, "Cost of sales"), (260, 140, "$"), (285, 140, "(60"), (301, 140, ")%"), (390, 140, "(5%)")]
    (table,) = read(texts)
    cell = table.rows[1].cells[0]
    assert cell.text == "$(60)%"
    assert cell.box == (260, 140, 311, 150)


def test_dash_is_a_cell_without_a_number() -> None:
    (table,) = read(changed(GOOD, (390, 140, "55"), (392, 140, "—")))
    assert table.rows[1].cells[1].text == "—"


def test_missing_number_is_an_empty_cell() -> None:
    (table,) = read([t for t in GOOD if t != (390, 140, "55")])
    assert table.rows[1].cells[1].text == ""


@pytest.mark.parametrize(
    ("why", "texts"),
    [
        ("one numeric column", [t for t in GOOD if t[0] < 350]),
        (
            "a column of dashes alone",
            [t for t in GOOD if t[0] < 350 or t[1] == 100] + [(390, y, "—") for y in (120, 140, 160)],
        ),
        ("no header at all", BODY),
        ("a year in the body", [*GOOD, (50, 110, "Founded"), (280, 110, "1990"), (380, 110, "1985")]),
        ("one row", [t for t in GOOD if t[1] < 140]),
        ("no header over a column", [t for t in GOOD if t != (380, 100, "2017")]),
        ("two columns of one name", changed(GOOD, (380, 100, "2017"), (380, 100, "2018"))),
        ("text among the numbers", changed(GOOD, (390, 140, "55"), (380, 140, "none"))),
        ("a number with a footnote mark", changed(GOOD, (390, 140, "55"), (385, 140, "55*"))),
        ("a word that is no part of any row", [*GOOD, (330, 148, "x")]),
        ("two numbers in one column of one row", [*GOOD, (286, 161.5, "7")]),
        ("columns that touch", changed(GOOD, (285, 120, "100"), (285, 120, "100,000,000,000,000,001"))),
        ("a label that runs into the numbers", changed(GOOD, (50, 140, "Cost of sales"), (50, 140, "C" * 50))),
        ("two columns of labels", [*GOOD, (150, 140, "Denver")]),
        ("unbalanced parentheses", changed(GOOD, (390, 140, "55"), (385, 140, "(55"))),
        ("a currency sign without a number", [*GOOD, (398, 140, "$")]),
        (
            "a row of text values under the header",
            [
                *changed(GOOD, (50, 100, "(Millions)"), (50, 97, "Results")),
                *[(50, 107, "Region"), (280, 107, "East"), (380, 107, "West")],
            ],
        ),
        ("a second header between the rows", changed(GOOD, (50, 140, "Cost of sales"), (280, 149, "Restated"))),
        (
            "a header that lacks its year",
            [
                *[t for t in GOOD if t[2] not in ("2018", "2017")],
                *[(272, 100, "May 31,"), (352, 100, "May 31, 2017")],
            ],
        ),
    ],
)  # fmt: skip
def test_refused(why: str, texts: list[Text]) -> None:
    assert read(texts) == (), why


def test_layout_grid_must_agree() -> None:
    assert read(GOOD, column_lines=(250.0,)) == ()
    assert read(GOOD, column_lines=(250.0, 350.0, 450.0)) == ()
    assert read(GOOD, column_lines=(294.0, 350.0)) == ()  # a number on the wrong side of the model's border
    assert read(GOOD, row_lines=(115.0, 155.0)) == ()  # two numeric rows in one grid row
    assert read(GOOD, row_lines=(), column_lines=()) == ()


def test_columns_must_be_clearly_apart() -> None:
    def close(x: float) -> list[Text]:
        moved = {(380, 100): x, (390, 120): x, (390, 140): x, (390, 160): x}
        return [(moved.get((left, top), left), top, text) for left, top, text in GOOD]

    assert read(close(303), column_lines=(250.0, 301.5)) == ()
    assert len(read(close(306), column_lines=(250.0, 303.0))) == 1


def test_centred_group_label_is_refused() -> None:
    row = (50, 180, "Other income"), (290, 180, "41"), (390, 180, "36")
    box, row_lines = (45.0, 95.0, 405.0, 195.0), (*ROW_LINES, 168.0, 177.0)
    tall = [(x, y + 10 if y == 160 else y, text) for x, y, text in GOOD]
    assert len(read([*tall, *[(x, y + 10, t) for x, y, t in row]], box=box, row_lines=(115, 135, 165, 185))) == 1
    centred = [*tall, (290, 156, "Restated"), *[(x, y + 10, t) for x, y, t in row]]
    assert read(centred, box=box, row_lines=row_lines) == ()


def test_header_phrase_across_a_border_is_refused() -> None:
    box = (45.0, 80.0, 405.0, 175.0)
    assert read([*GOOD, (275, 86, "Restated figures of")], box=box) == ()
    assert read([*GOOD, (272, 86, "Restated"), (372, 86, "First")], box=box)[0].columns == (
        "Restated 2018",
        "First 2017",
    )


def test_lone_phrase_over_the_middle_of_three_columns_is_refused() -> None:
    third = [(480, 100, "2016"), (490, 120, "19"), (490, 140, "11"), (490, 160, "75")]
    box, lines = (45.0, 80.0, 510.0, 175.0), (250.0, 350.0, 450.0)
    assert len(read([*GOOD, *third], box=box, column_lines=lines)) == 1
    assert read([*GOOD, *third, (375, 86, "Europe")], box=box, column_lines=lines) == ()


def test_rule_must_be_centred_under_its_header_and_shared_with_no_other() -> None:
    box = (45.0, 80.0, 405.0, 175.0)
    assert read([*GOOD, (280, 86, "Years")], box=box, rules=[(270, 98, 401, 98)]) == ()
    third = [(480, 100, "2016"), (490, 120, "19"), (490, 140, "11"), (490, 160, "75")]
    texts = [*GOOD, *third, (320, 86, "Europe"), (402, 86, "Asia")]
    rules = [(270, 98, 398, 98)]
    wide = (45.0, 80.0, 510.0, 175.0)
    assert read(texts, box=wide, column_lines=(250.0, 350.0, 450.0), rules=rules) == ()


def test_repeated_names_other_than_changes_are_refused() -> None:
    def four(*names: str) -> tuple[Table, ...]:
        texts = [t for t in GOOD if t[1] != 100]
        texts += [(x, y, "10") for x in (440, 490) for y in (120, 140, 160)]
        texts += [(x, 100, name) for x, name in zip((280, 380, 430, 480), names, strict=True)]
        return read(texts, box=(45.0, 95.0, 520.0, 175.0), column_lines=(250.0, 350.0, 420.0, 470.0))

    assert len(four("First", "Second", "Third", "Fourth")) == 1
    assert four("First", "Second", "Third", "Third") == ()
    assert four("First", "Change", "Change", "Change") == ()  # one column with a name is no table
    assert four("First", "Second", "Third", "#") == ()


def test_table_must_not_be_cut_off() -> None:
    assert read(GOOD, box=(2.0, 95.0, 405.0, 175.0)) == ()
    assert read(GOOD, box=(45.0, 95.0, 598.0, 175.0)) == ()
    assert read([*GOOD, (280, 171, "7")], box=(45.0, 95.0, 405.0, 175.5)) == ()  # a line half inside the box


def test_rotated_or_plain_regions_yield_nothing() -> None:
    assert strict_tables(PageLayout(600, 800, words(GOOD), (), (), ())) == ()
    assert read([]) == ()
    assert (
        strict_tables(PageLayout(600, 800, words(GOOD), (), (Region("text", BOX, ROW_LINES, COLUMN_LINES),), ())) == ()
    )


def test_spanning_header_needs_a_rule() -> None:
    texts = [*GOOD, (290, 86, "Years ended May 31,")]
    box = (45.0, 80.0, 405.0, 175.0)
    assert read(texts, box=box) == ()
    (table,) = read(texts, box=box, rules=[(270, 98, 401, 98)])
    assert table.columns == ("Years ended May 31, 2018", "Years ended May 31, 2017")


def test_spanning_header_covers_the_columns_of_its_rule() -> None:
    third = [(480, 100, "Total"), (490, 120, "190"), (490, 140, "115"), (490, 160, "75")]
    (table,) = read(
        [*GOOD, *third, (315, 86, "Europe")],
        box=(45.0, 80.0, 510.0, 175.0),
        column_lines=(250.0, 350.0, 450.0),
        rules=[(270, 98, 330, 98), (330, 98, 401, 98)],  # one rule, drawn cell by cell
    )
    assert table.columns == ("Europe 2018", "Europe 2017", "Total")


def test_spanning_header_is_set_off_from_the_names_below() -> None:
    texts = changed(changed(GOOD, (280, 100, "2018"), (280, 100, "High")), (380, 100, "2017"), (380, 100, "Low"))
    (table,) = read([*texts, (325, 86, "Price")], box=(45.0, 80.0, 405.0, 175.0), rules=[(270, 98, 401, 98)])
    assert table.columns == ("Price > High", "Price > Low")


def test_unit_line_across_columns() -> None:
    texts = [*[t for t in GOOD if t[2] != "(Millions)"], (300, 109.5, "(in thousands)")]
    (table,) = read(texts, row_lines=(119.0, 135.0, 155.0))
    assert table.columns == ("2018", "2017")
    assert table.unit == "in thousands"


def test_repeated_change_columns_are_left_out() -> None:
    texts = [*GOOD]
    for x in (480, 580):
        texts += [(x, 100, "Change"), (x + 10, 120, "10"), (x + 10, 140, "20"), (x + 10, 160, "30")]
    box = (45.0, 95.0, 620.0, 175.0)
    layout = PageLayout(
        700, 800, words(texts), (), (Region("table", box, ROW_LINES, (250.0, 350.0, 450.0, 550.0)),), ()
    )
    (table,) = strict_tables(layout)
    assert table.columns == ("2018", "2017")
    assert all(len(row.cells) == 2 for row in table.rows)


@pytest.mark.parametrize(
    ("why", "label"),
    [
        ("too short", "Ab"),
        ("lower case: the end of a longer label", "of goods sold"),
        ("a footnote", "(1) Restated"),
        ("a footnote mark glued on", "Cost of sales2"),
        ("a child without its group", "Basic"),
    ],
)
def test_doubtful_label_costs_the_row(why: str, label: str) -> None:
    tables = read(changed(GOOD, (50, 140, "Cost of sales"), (50, 140, label)))
    assert labels(tables) == ["Net sales", "Gross profit"], why
    assert not tables[0].whole


def test_repeated_label_costs_both_rows() -> None:
    texts = [*GOOD, (50, 180, "Net sales"), (285, 180, "300"), (390, 180, "80")]
    tables = read(texts, box=(45.0, 95.0, 405.0, 195.0), row_lines=(*ROW_LINES, 175.0))
    assert labels(tables) == ["Cost of sales", "Gross profit"]
    assert not tables[0].whole


def test_wrapped_label_costs_the_row() -> None:
    texts = changed(GOOD, (50, 160, "Gross profit"), (50, 160, "a very long label of which a part"))
    texts = [(x, y + 12 if y == 160 else y, t) for x, y, t in texts] + [(50, 160, "Gains and losses on")]
    tables = read(texts, box=(45.0, 95.0, 405.0, 190.0))
    assert labels(tables) == ["Net sales", "Cost of sales"]


def test_unlabelled_row_is_left_out() -> None:
    tables = read([t for t in GOOD if t != (50, 160, "Gross profit")])
    assert labels(tables) == ["Net sales", "Cost of sales"]
    assert not tables[0].whole


def test_dot_leaders_and_footnotes_are_stripped() -> None:
    texts = changed(GOOD, (50, 140, "Cost of sales"), (50, 140, "Cost of sales (1) . . . . . ."))
    assert labels(read(texts))[1] == "Cost of sales"
    texts = changed(GOOD, (50, 140, "Cost of sales"), (50, 140, "Cost of sales........"))
    assert labels(read(texts))[1] == "Cost of sales"


GROUPED: list[Text] = [
    *HEADER,
    (50, 120, "Earnings per share:"),
    (60, 140, "Basic"), (285, 140, "4.1"), (385, 140, "3.9"),
    (60, 160, "Diluted"), (285, 160, "4.0"), (385, 160, "3.8"),
    (50, 180, "Net income of the group"), (290, 180, "40"), (390, 180, "35"),
]  # fmt: skip


def test_children_carry_their_group() -> None:
    tables = read(GROUPED, box=(45.0, 95.0, 405.0, 195.0), row_lines=(115.0, 135.0, 155.0, 175.0))
    assert labels(tables) == ["Earnings per share > Basic", "Earnings per share > Diluted", "Net income of the group"]
    assert tables[0].whole


def test_children_at_the_same_indent_carry_their_group() -> None:
    texts = [(50.0 if x == 60 else x, y, t) for x, y, t in GROUPED]
    tables = read(texts, box=(45.0, 95.0, 405.0, 195.0), row_lines=(115.0, 135.0, 155.0, 175.0))
    assert labels(tables)[:2] == ["Earnings per share > Basic", "Earnings per share > Diluted"]


def test_child_of_a_number_must_follow_it() -> None:
    texts = [
        *HEADER,
        (50, 120, "Operating expense"), (285, 120, "900"), (385, 120, "800"),
        (60, 140, "Percent change"), (290, 140, "12"), (390, 140, "11"),
        (60, 160, "Total expense"), (285, 160, "950"), (385, 160, "850"),
        (60, 180, "Percent of revenue"), (290, 180, "29"), (390, 180, "31"),
    ]  # fmt: skip
    tables = read(texts, box=(45.0, 95.0, 405.0, 195.0), row_lines=(115.0, 135.0, 155.0, 175.0))
    assert labels(tables) == ["Operating expense", "Operating expense > Percent change", "Total expense"]
    assert not tables[0].whole  # whose percentage the last row is remains in doubt


def above(label: str, text: str, y: float = 70.0) -> tuple[Region, list[Text]]:
    return Region(label, (48, y - 2, 48 + CHAR * len(text) + 40, y + 12)), [(50.0, y, text)]


@pytest.mark.parametrize(
    ("label", "text", "anchor"),
    [
        ("section-header", "Segment results:", "Segment results"),
        ("caption", "Table 4: Results by segment. All values are rounded.", "Table 4: Results by segment"),
        ("text", "Sales grew. The results were as follows:", "The results were as follows:"),
        ("text", "Sales grew. The following tables show the results:", ""),
        ("text", "Sales grew by a tenth.", ""),
        ("section-header", "Statement of Incom e", ""),
        ("page-header", "Annual report", ""),
    ],
)
def test_anchor(label: str, text: str, anchor: str) -> None:
    region, texts = above(label, text)
    (table,) = read([*texts, *GOOD], regions=[region])
    assert table.anchor == anchor
    assert (table.anchor_box is not None) == bool(anchor)


def test_anchor_must_be_next_to_the_table() -> None:
    region, texts = above("section-header", "Segment results")
    bold = Line((50, 84, 100, 93), "Restated", 9, True)
    assert read([*texts, *GOOD], regions=[region], lines=[bold])[0].anchor == ""
    other = Region("table", (45, 84, 405, 94))
    assert read([*texts, *GOOD], regions=[region, other])[0].anchor == ""
    far, texts = above("section-header", "Segment results", y=20.0)
    assert read([*texts, *GOOD], regions=[far])[0].anchor == ""


def test_caption_below_and_between_two_tables() -> None:
    caption = Region("caption", (48, 178, 300, 192))
    texts = [(50.0, 180.0, "Table 7: Results"), *GOOD]
    assert read(texts, regions=[caption])[0].anchor == "Table 7: Results"
    other = Region("table", (45, 195, 405, 260))
    assert read(texts, regions=[caption, other])[0].anchor == ""


def test_unit_from_the_lead_in_and_from_nowhere() -> None:
    plain = [t for t in GOOD if t[2] != "(Millions)"]
    region, texts = above("text", "The results were as follows (in thousands):")
    assert read([*texts, *plain], regions=[region])[0].unit == "in thousands"
    region, texts = above("section-header", "Industrial Business (37.4% of sales)")
    assert read([*texts, *plain], regions=[region])[0].unit == ""
    assert read(plain)[0].unit == ""


def test_a_dash_that_ocr_did_not_read_leaves_no_number_in_its_column() -> None:
    signed = changed(BODY, (285, 120, "100"), (270, 120, "$"), (281, 120, "100"))
    assert read(HEADER + signed)[0].rows[0].cells[0].text == "$100"
    lost = [*signed, (360, 120, "$"), (372, 120, "$")]  # "$ —" and "$ 90", the dash lost
    assert read(HEADER + lost) == ()
