"""Lines to blocks: none lost, none twice, in the order of the text layer."""

from __future__ import annotations

import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.blocks import KINDS, clean, flatten, layer_blocks, ocr_blocks
from corpus.layout import Line, PageLayout, Region, words_of_line
from corpus.records import Block


def line(text: str, y: float, x: float = 72, *, size: float = 10, bold: bool = False, width: float = 200) -> Line:
    return Line((x, y, x + width, y + size), text, size, bold)


def layout(*lines: Line, regions: tuple[Region, ...] = ()) -> PageLayout:
    return PageLayout(612, 792, (), lines, regions, ())


def blocks(*lines: Line, regions: tuple[Region, ...] = ()) -> list[tuple[str, str]]:
    return [(b.kind, b.text) for b in layer_blocks(layout(*lines, regions=regions))]


# --------------------------------------------------------------------------------------------------------- text


def test_cleaning_removes_what_cannot_be_seen() -> None:
    assert clean("  a\tb \n\n c\u00a0d\x00\u200b\ufeff ") == "a b c d"
    assert clean("e\u0301") == "\u00e9"
    assert clean("\x1b[31mred") == "[31mred"
    assert clean("caf\ud800\ue000e") == "cafe"


@given(st.text(st.characters(), max_size=40))
def test_clean_text_is_clean(text: str) -> None:
    once = clean(text)
    assert once == once.strip()
    assert "  " not in once
    assert unicodedata.is_normalized("NFC", once)
    assert not any(unicodedata.category(c)[0] == "C" for c in once)
    assert sum(map(str.isalnum, once)) >= sum(c.isascii() and c.isalnum() for c in text)
    assert once.isspace() is False
    assert once.encode("utf-8").decode() == once


@pytest.mark.parametrize(
    ("text", "flat"),
    [
        ("the com-\npany grew", "the company grew"),
        ("soft\u00ad\nly", "softly"),
        ("pages 8-\n15", "pages 8- 15"),
        ("Jean-\nPaul", "Jean- Paul"),
        ("one\ntwo", "one two"),
    ],
)
def test_a_word_broken_by_a_hyphen_is_joined(text: str, flat: str) -> None:
    assert flatten(text) == flat


# ------------------------------------------------------------------------------------------------------- regions


@pytest.mark.parametrize(("label", "kind"), KINDS.items())
def test_a_region_is_a_block_of_its_kind(label: str, kind: str) -> None:
    region = Region(label, (70, 90, 300, 130))
    gap = "\t" if kind == "table" else " "
    found = blocks(line("left", 100, width=50), line("right", 100, x=150, width=50), regions=(region,))
    assert found == [(kind, f"left{gap}right")]


def test_lines_of_two_sizes_are_two_headings() -> None:
    region = Region("section-header", (70, 0, 600, 60))
    chapter, section = line("CONSOLIDATED RESULTS", 10, size=16), line("REVENUES", 30, size=12)
    made = layer_blocks(layout(chapter, section, regions=(region,)))
    assert [(b.kind, b.text, b.size, b.box) for b in made] == [
        ("heading", "CONSOLIDATED RESULTS", 16, (72, 10, 272, 26)),
        ("heading", "REVENUES", 12, (72, 30, 272, 42)),
    ]
    wrapped = layer_blocks(layout(chapter, line("OF OPERATIONS", 30, size=15.5), regions=(region,)))
    assert [(b.text, b.size, b.box) for b in wrapped] == [("CONSOLIDATED RESULTS\nOF OPERATIONS", 16, region.box)]


def test_an_unknown_label_is_text() -> None:
    assert blocks(line("x", 100), regions=(Region("seal", (70, 90, 300, 130)),)) == [("text", "x")]


def test_a_line_belongs_to_the_smallest_region_that_holds_its_middle() -> None:
    outer, inner = Region("text", (60, 80, 400, 300)), Region("caption", (60, 200, 400, 230))
    found = blocks(line("body", 100), line("Figure 1", 210), line("more", 260), regions=(outer, inner))
    assert found == [("text", "body\nmore"), ("caption", "Figure 1")]


def test_a_picture_and_a_table_need_no_lines_but_text_does() -> None:
    regions = tuple(Region(label, (60, 80, 400, 300)) for label in ("picture", "table", "text"))
    assert blocks(regions=regions) == [("picture", ""), ("table", "")]


def test_lines_outside_every_region_are_kept_as_text() -> None:
    region = Region("section-header", (60, 90, 400, 120))
    found = blocks(line("Margin note", 40), line("Title", 100), line("Footer", 700), regions=(region,))
    assert found == [("text", "Margin note"), ("heading", "Title"), ("text", "Footer")]


def test_order_is_that_of_the_text_layer_not_of_the_regions() -> None:
    right, left = Region("text", (300, 90, 500, 120)), Region("text", (60, 90, 290, 120))
    found = blocks(line("left", 100, width=100), line("right", 100, x=320, width=100), regions=(right, left))
    assert [text for _, text in found] == ["left", "right"]


def test_boxes_are_rounded_to_hundredths() -> None:
    (found,) = layer_blocks(layout(Line((1.2345, 2.0, 3.999, 4.005001), "x", 10, False)))
    assert found.box == (1.23, 2.0, 4.0, 4.01)


# ---------------------------------------------------------------------------------------------- without a model


def test_a_gap_begins_a_new_block() -> None:
    found = blocks(line("one", 100), line("two", 112), line("three", 140))
    assert found == [("text", "one\ntwo"), ("text", "three")]


def test_another_type_begins_a_new_block_and_large_or_bold_type_is_a_heading() -> None:
    body = [line(f"body text of some length {i}", 130 + 12 * i) for i in range(4)]
    found = blocks(line("Results", 100, size=16), *body, line("Method", 180, bold=True))
    assert found[0] == ("heading", "Results")
    assert found[1][0] == "text"
    assert found[2] == ("heading", "Method")


@pytest.mark.parametrize("text", ["A whole sentence.", "1234", "word " * 15])
def test_a_sentence_a_number_and_a_long_line_are_no_headings(text: str) -> None:
    body = [line(f"body text of some length {i}", 130 + 12 * i) for i in range(20)]
    assert blocks(line(text, 100, size=16), *body)[0] == ("text", text.strip())


BOXES = st.builds(
    lambda x, y, w, h: (x, y, x + w, y + h),
    *(st.floats(0, 600) for _ in range(2)),
    *(st.floats(0, 300) for _ in range(2)),
)
LINES = st.builds(Line, BOXES, st.just(""), st.floats(4, 40), st.booleans())
REGIONS = st.builds(Region, st.sampled_from(sorted(KINDS)), BOXES)


@given(st.lists(LINES, max_size=12), st.lists(REGIONS, max_size=5))
def test_every_line_ends_in_exactly_one_block(lines: list[Line], regions: list[Region]) -> None:
    named = [Line(x.box, f"line{i}", x.size, x.bold) for i, x in enumerate(lines)]
    found = layer_blocks(layout(*named, regions=tuple(regions)))
    assert Counter(word for b in found for word in b.text.split()) == Counter(x.text for x in named)


# ----------------------------------------------------------------------------------------------------------- OCR


def read(text: str, y: float, height: float = 10, *, x: float = 72, width: float = 328, sure: float = 0.99) -> Line:
    """A line of OCR."""
    return Line((x, y, x + width, y + height), text, height, False, confidence=sure)


def test_a_block_of_ocr_is_as_sure_as_its_lowest_line() -> None:
    found = ocr_blocks(
        layout(read("one", 100, width=228, sure=0.91), read("two", 112, width=228, sure=0.678912), read("far", 300))
    )
    assert [(b.kind, b.text, b.confidence) for b in found] == [("text", "one\ntwo", 0.6789), ("text", "far", 0.99)]
    assert found[0].box == (72, 100, 300, 122)
    assert [b.line_confidences for b in found] == [(0.91, 0.6789), (0.99,)]
    assert ocr_blocks(layout()) == ()


def test_size_and_wording_tell_what_ocr_read() -> None:
    page = [
        read("2. Pumps and valves", 50, 16),
        read("The council reads its report on", 80),
        read("copper and pumps.", 92),
        read("1. First item of a list", 104),
        read("that goes on", 116),
        read("(b) Second item", 128),
        read("\u2022 Third item", 140),
        read("Figure 3: The harbour", 170),
        read("图3：港口", 190),
        read("Table of contents", 220),
        read("A LARGE LINE THAT ENDS LIKE A SENTENCE.", 250, 16),
    ]
    found = ocr_blocks(layout(*page))
    assert [(b.kind, b.text.replace("\n", " / ")) for b in found] == [
        ("heading", "2. Pumps and valves"),
        ("text", "The council reads its report on / copper and pumps."),
        ("list-item", "1. First item of a list / that goes on"),
        ("list-item", "(b) Second item"),
        ("list-item", "\u2022 Third item"),
        ("caption", "Figure 3: The harbour"),
        ("caption", "图3：港口"),
        ("text", "Table of contents"),
        ("text", "A LARGE LINE THAT ENDS LIKE A SENTENCE."),
    ]
    assert [b.emphasised for b in found] == [True] + [False] * 8


def test_what_ocr_reads_across_columns_is_put_in_order_by_the_model() -> None:
    left, right = (50.0, 50.0, 300.0, 200.0), (310.0, 50.0, 560.0, 200.0)
    lines = [
        read("left one", 60, x=60, width=200),
        read("right one", 60, x=320, width=200),
        read("left two", 72, x=60, width=200),
        read("right two", 72, x=320, width=200),
        read("no region", 300),
    ]
    found = ocr_blocks(layout(*lines, regions=(Region("text", left), Region("section-header", right))))
    assert [(b.kind, b.text) for b in found] == [
        ("text", "left one\nleft two"),
        ("heading", "right one\nright two"),
        ("text", "no region"),
    ]
    assert [b.emphasised for b in found] == [False, True, False]


def test_a_table_that_ocr_read_is_put_in_rows() -> None:
    cells = [  # a scan that is not straight: what stands to the right is read first
        read("2023", 58, x=300, width=40),
        read("Year", 60, width=60),
        read("41", 71, x=300, width=40, sure=0.8),
        read("Oslo", 73, width=60),
    ]
    (table,) = ocr_blocks(layout(*cells, regions=(Region("table", (60.0, 50.0, 400.0, 90.0)),)))
    assert (table.kind, table.text, table.confidence) == ("table", "Year\t2023\nOslo\t41", 0.8)
    assert table.line_confidences == (0.99, 0.99, 0.99, 0.8)  # in the order of the text


@given(st.lists(LINES, max_size=12), st.lists(REGIONS, max_size=5))
def test_every_line_that_ocr_read_ends_in_exactly_one_block(lines: list[Line], regions: list[Region]) -> None:
    named = [Line(x.box, f"line{i}", x.size, x.bold) for i, x in enumerate(lines)]
    found = ocr_blocks(layout(*named, regions=tuple(regions)))
    assert Counter(word for b in found for word in b.text.split()) == Counter(x.text for x in named)


def test_words_share_the_width_of_their_line() -> None:
    (one, two) = words_of_line(Line((100, 10, 200, 20), "ab 港", 10, False))
    assert (one.text, tuple(map(round, one.box))) == ("ab", (100, 10, 144, 20))
    assert (two.text, tuple(map(round, two.box))) == ("港", (156, 10, 200, 20))
    assert words_of_line(Line((100, 10, 200, 20), "", 10, False)) == []


def test_a_block_stands_out_only_if_every_line_does() -> None:
    body = [line(f"Plain words of line {i} that go on and on", 300 + 12 * i) for i in range(4)]
    label_then_plain = line("Type dict", 100)  # a bold label before regular type: the line as a whole is not bold
    found = layer_blocks(
        layout(
            line("Bold heading", 50, bold=True),
            label_then_plain,
            line("Larger heading", 150, size=12),
            line("IN CAPITALS", 200),
            *body,
            regions=tuple(
                Region(label="section-header", box=(70.0, y - 1.0, 300.0, y + 13.0))
                for y in (50.0, 100.0, 150.0, 200.0)
            ),
        )
    )
    assert [(b.text, b.emphasised) for b in found if b.kind == "heading"] == [
        ("Bold heading", True),
        ("Type dict", False),
        ("Larger heading", True),
        ("IN CAPITALS", True),
    ]


def test_bold_type_says_nothing_on_a_page_that_is_bold() -> None:
    found = blocks_of(
        line("A short line", 50, bold=True), *(line("Bold body text", 80 + 12 * i, bold=True) for i in range(5))
    )
    assert not any(b.emphasised for b in found)


def blocks_of(*lines: Line) -> tuple[Block, ...]:
    return layer_blocks(layout(*lines))
