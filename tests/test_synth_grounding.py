"""Quotes and answers in the blocks of pages: what is found, where, and what must not be."""

from __future__ import annotations

import pytest
from fakes import block, page
from hypothesis import given
from hypothesis import strategies as st

from synth.grounding import PageText, contains, find_answer, find_evidence, find_quote, joined, tokens

TOP, MIDDLE, LOW = (72.0, 72.0, 540.0, 90.0), (72.0, 100.0, 300.0, 118.0), (72.0, 130.0, 540.0, 148.0)
LAYER = PageText(
    page(
        4,
        block("Revenue in mil-\nlions of euros", box=TOP),
        block("Energy\t1,284.6\nWater\t(12.4)", kind="table", box=MIDDLE),
        block("The party met on 12 March 2023; three members left. 净利润为5.12亿元。", box=LOW),
    )
)
SCAN = PageText(
    page(0, "The new breakwatcr was opened by the Harbour Mastcr at a cost of 2.36 rnillion pounds.", text_source="ocr")
)


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("revenue in millions", TOP),
        ("Energy 1284.6", MIDDLE),
        ("The PARTY met", LOW),
        ("净利润为 5.12 亿元", LOW),
        ("Water (12.4) The party", (72.0, 100.0, 540.0, 148.0)),
    ],
)
def test_words_are_found_whatever_their_spaces_and_signs(text: str, box: tuple[float, ...]) -> None:
    found = LAYER.find(text)
    assert found is not None
    assert (found.page, found.box) == (4, box)


@pytest.mark.parametrize(
    "text", ["", "art", "1284", "284.6", "1 284.6", "Energy 1,284.5", "party net", "5.1", "12 April"]
)
def test_parts_of_words_and_other_numbers_are_not(text: str) -> None:
    assert LAYER.find(text) is None


def test_ocr_may_misread_letters_but_no_digits() -> None:
    assert SCAN.find("opened by the Harbour Master") is not None
    assert SCAN.find("at a cost of 2.36 million pounds") is not None
    assert SCAN.find("at a cost of 2.86 million pounds") is None
    assert SCAN.find("at a cost of 236 million pounds") is None
    assert SCAN.find("closed for the Harbour Board") is None
    exact = PageText(page(0, SCAN.blocks[0]))
    assert exact.find("opened by the Harbour Master") is None


@pytest.mark.parametrize(
    ("answer", "answer_format"),
    [
        ("1284.6", "Float"),
        ("1284600000", "Integer"),
        ("-12.4", "Float"),
        ("12.4%", "Float"),
        ("3", "Integer"),
        ("512000000", "Integer"),
        ("5.12", "Float"),
        ("March 12, 2023", "String"),
        ("2023年3月12日", "String"),
        ("March 2023", "String"),
        ("three members", "String"),
        ("The party met three members", "String"),
    ],
)
def test_answers_are_found_by_what_they_say(answer: str, answer_format: str) -> None:
    assert find_answer(answer, answer_format, LAYER) is not None


@pytest.mark.parametrize(
    ("answer", "answer_format"),
    [
        ("1284.5", "Float"),
        ("4", "Integer"),
        ("13 March 2023", "String"),
        ("members party", "String"),
        ("Solar", "String"),
    ],
)
def test_other_answers_are_not(answer: str, answer_format: str) -> None:
    assert find_answer(answer, answer_format, LAYER) is None


def test_a_quote_may_leave_out_cells_but_change_no_number() -> None:
    table = PageText(page(2, block("Division\t2022\t2023\nEnergy\t604.3\t571.9", kind="table", box=MIDDLE)))
    found = find_quote("Energy 2023: 571.9", [LAYER, table])
    assert found is not None
    assert (found.page, found.box) == (2, MIDDLE)
    assert find_quote("Energy 2023: 571.8", [LAYER, table]) is None
    assert find_quote("Solar power in Norway 571.9", [LAYER, table]) is None


@pytest.mark.parametrize(
    ("quote", "share"),
    [
        ("第三污水处理厂 12,450", 1.0),
        ("第三污水处理厂总投资12,450万元", 0.9),
        ("第三污水处理厂的总投资为12,450万元，由县水务公司承建。", 0.7),  # its characters stand on the page, one by one
        ("Coal is stored in the northern yard in 2023", 1.0),
        ("Coal for the ferries is stored in harbour sheds by the company", 0.7),  # its words do, far apart
        ("In the northern yard of 2023 is stored Coal", 0.7),  # in another order
        ("Coal 12,450", 0.5),  # so does its number
    ],
)
def test_the_words_of_a_quote_stand_near_one_another(quote: str, share: float) -> None:
    blocks = (
        *("Coal is stored in the northern yard since 2023.", "No ships came.", "No ships left."),
        block("项目\t总投资（万元）\n第三污水处理厂\t12,450\n供水管网\t4,680", kind="table"),
        "由县长审批，承办单位为公司；水务建设另行公布。",
        *("Harbour sheds are let.", "The company runs ferries."),
    )
    found, missing = PageText(page(0, *blocks)).coverage(quote)
    assert missing == ""
    assert found >= share if share > 0.8 else found < share


def test_one_of_two_characters_may_be_misread() -> None:
    scan = PageText(page(0, "乡镇财政所统一使用惠财通系纺，全县共有行政忖136个。", text_source="ocr"))
    assert scan.coverage("财政所使用惠财通系统，共有行政村136个")[0] > 0.8


def test_evidence_has_an_entry_a_quote_and_one_for_every_other_page() -> None:
    pages = [
        page(i, block(text, box=TOP)) for i, text in enumerate(["Dues are 5 pounds.", "Ada Krol leads.", "", "Noor"])
    ]
    found = find_evidence(
        [0, 1, 3], ["Text", "Table", "Figure"], ["Ada Krol leads", "made up"], '["Noor"]', "List", pages
    )
    assert [(e.page, e.kind, e.quote, e.box) for e in found] == [
        (0, "Text", "made up", None),
        (1, "Table", "Ada Krol leads", TOP),
        (3, "Figure", "", TOP),
    ]


def test_a_page_without_text_is_evidence_without_a_box() -> None:
    (found,) = find_evidence([0], ["Figure"], [], "Yellow", "String", [page(0, text_source="none")])
    assert (found.page, found.kind, found.quote, found.box) == (0, "Figure", "", None)


TEXTS = st.text(max_size=60) | st.text(alphabet="ab1,. 亿-²፩\n", max_size=40)


@given(TEXTS, TEXTS)
def test_a_text_is_found_in_what_holds_it(text: str, other: str) -> None:
    whole = PageText(page(0, other, text, other))
    assert (whole.find(text) is not None) == bool(tokens(text))
    assert contains(f"{other}\n{text}", text) == bool(tokens(text))


@given(TEXTS, TEXTS, st.sampled_from(["String", "Integer"]))
def test_nothing_fails_on_any_text(text: str, other: str, answer_format: str) -> None:
    scan = PageText(page(0, other, text_source="ocr"))
    find_answer(text, answer_format, scan)
    find_quote(text, [scan])
    assert joined(tokens(text)) == joined(tokens(text.upper().lower())) or not text.isascii()


def test_hostile_pages_end_soon() -> None:
    for text in ("1 " * 20_000, "a" * 50_000, "1," * 20_000, "一" * 20_000, "a b " * 10_000):
        scan = PageText(page(0, text, text_source="ocr"))
        assert find_answer("zebra crossing 77", "String", scan) is None
