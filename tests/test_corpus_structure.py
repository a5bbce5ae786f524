"""What only the whole document shows: running margins, levels of headings, what a caption belongs to."""

from __future__ import annotations

import fakes
from hypothesis import given
from hypothesis import strategies as st

from corpus.records import Block, Page
from corpus.structure import with_structure


def at(y: float, text: str, kind: str = "text", size: float = 10, height: float = 12, x: float = 72) -> Block:
    return Block(kind=kind, box=(x, y, x + 200, y + height), text=text, size=size)


def kinds(*pages: Page) -> list[list[str]]:
    return [[b.kind for b in p.blocks] for p in with_structure(pages)]


# ------------------------------------------------------------------------------------------------ headers and footers


def paged(count: int, top: str, bottom: str, kind: str = "text") -> list[Page]:
    return [
        fakes.page(i, at(30, top.format(i), kind), at(300, "Annual report 2023"), at(760, bottom.format(i)))
        for i in range(count)
    ]


def test_what_repeats_in_the_margin_of_three_pages_is_a_header_or_footer() -> None:
    assert kinds(*paged(3, "Annual report 202{}", "Confidential")) == [["header", "text", "footer"]] * 3
    assert kinds(*paged(2, "Annual report 202{}", "Confidential")) == [["text", "text", "text"]] * 2
    assert (
        kinds(*paged(3, "Table of Contents", "{} Confidential", kind="heading")) == [["header", "text", "footer"]] * 3
    )


def test_a_page_number_needs_no_repetition() -> None:
    for number in ("7", "Page 7", "page 7 of 90", "7/90", "- 7 -", "xii"):
        assert kinds(fakes.page(0, at(300, number), at(760, number))) == [["text", "footer"]]
    for text in ("7 Methods", "1,234", "Page seven", "Mild"):
        assert kinds(fakes.page(0, at(760, text))) == [["text"]]


def test_a_block_that_leaves_the_margin_is_none() -> None:
    pages = [fakes.page(i, at(30, "Long text", height=200), at(60, "Text", height=60)) for i in range(4)]
    assert kinds(*pages) == [["text", "text"]] * 4


def test_tables_and_captions_stay_what_they_are() -> None:
    pages = [fakes.page(i, at(30, "Year", "table"), at(60, "Table 1: Same", "caption")) for i in range(4)]
    assert kinds(*pages) == [["table", "caption"]] * 4


# --------------------------------------------------------------------------------------------------- levels of headings


def levels(*headings: tuple[str, str, float]) -> list[int]:
    blocks = [at(200 + 20 * i, text, kind, size) for i, (kind, text, size) in enumerate(headings)]
    return [b.level for b in with_structure([fakes.page(0, *blocks)])[0].blocks]


def test_sizes_rank_headings_without_numbers() -> None:
    assert levels(("heading", "Results", 18), ("heading", "Revenue", 14), ("heading", "Costs", 13.9)) == [1, 2, 2]
    assert levels(("heading", "Results", 14), ("text", "Body", 10), ("heading", "Outlook", 18)) == [2, 0, 1]
    assert levels(*(("heading", f"Part {i}", 60 / 1.2**i) for i in range(9))) == [1, 2, 3, 4, 5, 6, 6, 6, 6]


def test_numbers_say_the_level_and_teach_those_of_the_same_size() -> None:
    found = levels(
        ("title", "A study", 20), ("heading", "2 Methods", 14), ("heading", "2.1 Data", 12), ("heading", "Ethics", 12),
        ("heading", "A.1 Proofs", 12), ("heading", "Details", 10), ("heading", "References", 14),
    )  # fmt: skip
    assert found == [1, 1, 2, 2, 2, 3, 1]


def test_a_heading_of_unknown_size_has_a_level_too() -> None:
    assert levels(("heading", "Results", 0), ("title", "Results", 0)) == [1, 1]


# ---------------------------------------------------------------------------------------------------------- captions


def targets(*blocks: Block) -> list[int]:
    return [b.target for b in with_structure([fakes.page(0, *blocks)])[0].blocks]


def test_a_caption_belongs_to_its_neighbour_of_the_right_kind() -> None:
    picture, table = at(100, "", "picture", height=100), at(240, "1 2", "table", height=100)
    figure, below = at(205, "Figure 1: A chart", "caption"), at(222, "Table 1: Counts", "caption")
    assert targets(picture, figure, below, table) == [-1, 0, 3, -1]
    assert targets(table, below, figure, picture) == [-1, 0, 3, -1]


def test_each_figure_has_one_caption_and_the_nearest() -> None:
    picture = at(100, "", "picture", height=100)
    near, far = at(205, "Figure 1: A chart", "caption"), at(230, "Figure 2: Another", "caption")
    assert targets(far, picture, near) == [-1, -1, 1]


def test_a_caption_far_away_or_beside_belongs_to_nothing() -> None:
    picture = at(100, "", "picture", height=50)
    assert targets(picture, at(400, "Figure 1: A chart", "caption")) == [-1, -1]
    assert targets(picture, at(160, "Figure 1: A chart", "caption", x=400)) == [-1, -1]


@given(st.lists(st.tuples(st.sampled_from(["heading", "text", "caption", "picture", "table"]), st.floats(0, 780))))
def test_nothing_but_kinds_levels_and_targets_changes(drawn: list[tuple[str, float]]) -> None:
    page = fakes.page(0, *(at(y, f"text {i}", kind, size=8 + i % 3) for i, (kind, y) in enumerate(drawn)))
    (made,) = with_structure([page])
    assert [(b.box, b.text, b.size) for b in made.blocks] == [(b.box, b.text, b.size) for b in page.blocks]
    for b in made.blocks:
        assert (b.level > 0) == (b.kind in ("heading", "title"))
        assert b.target == -1 or made.blocks[b.target].kind in ("picture", "table")
