"""Records: identity is content, and nothing can be changed after the fact."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
from fakes import block, page, question
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus import records
from corpus.records import Segment, Window, content_id, question_id

CLASSES = [c for _, c in inspect.getmembers(records, dataclasses.is_dataclass)]
IDENTITY = {
    "doc_id": "0123456789abcdef",
    "task": "reasoning",
    "segment": Segment(first_page=3, num_pages=9),
    "generator": "layout/table-lookup",
    "prompt_version": "1",
    "seed": 7,
    "question": "Which year had the highest revenue?",
}


def test_there_are_records_to_test() -> None:
    assert {"Document", "Page", "Question", "Sample", "LedgerEntry"} <= {c.__name__ for c in CLASSES}


@pytest.mark.parametrize("record", CLASSES, ids=lambda c: c.__name__)
def test_a_record_is_frozen_slotted_and_takes_keywords_only(record: type) -> None:
    parameters = record.__dataclass_params__  # type: ignore[attr-defined]
    assert parameters.frozen
    assert "__slots__" in vars(record)
    assert all(f.kw_only for f in dataclasses.fields(record))


def test_a_content_id_is_the_same_on_every_machine() -> None:
    assert content_id("a", 1, None, ["ü"]) == "ead3209f54213726"
    assert content_id("a", 1, None, ["ü"], length=64).startswith("ead3209f54213726")


def test_the_order_of_keys_does_not_change_a_content_id() -> None:
    assert content_id({"a": 1, "b": 2}) == content_id({"b": 2, "a": 1})


@settings(max_examples=50)
@given(st.lists(st.text(), max_size=3), st.lists(st.text(), max_size=3))
def test_different_content_has_a_different_id(a: list[str], b: list[str]) -> None:
    assert (content_id(*a) == content_id(*b)) == (a == b)


def test_parts_of_a_content_id_do_not_run_together() -> None:
    assert len({content_id("ab", "c"), content_id("a", "bc"), content_id("abc"), content_id(["ab", "c"])}) == 4


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("doc_id", "0123456789abcdee"),
        ("task", "extract-multi"),
        ("segment", Segment(first_page=3, num_pages=8)),
        ("segment", Segment(first_page=4, num_pages=9)),
        ("generator", "layout/table-total"),
        ("prompt_version", "2"),
        ("seed", 8),
        ("question", "Which year had the lowest revenue?"),
    ],
)
def test_a_question_id_depends_on_every_part_of_its_identity(field: str, other: object) -> None:
    same, changed = question_id(**IDENTITY), question_id(**{**IDENTITY, field: other})  # type: ignore[arg-type]
    assert same == question_id(**IDENTITY)  # type: ignore[arg-type]
    assert same != changed
    assert len(same) == len(changed) == 16
    assert same[0] == changed[0] == "q"


def test_the_text_of_a_page_is_its_blocks_as_paragraphs() -> None:
    made = page(0, "First.", block("", kind="picture"), "Second\nline.")
    assert made.text == "First.\n\nSecond\nline."
    assert page(0).text == ""


def test_a_window_names_its_sample_in_the_tar() -> None:
    assert Window(doc_id="0123456789abcdef", index=3, first_page=40, num_pages=20).key == "0123456789abcdef-w03"


def test_a_question_with_a_reason_is_not_accepted() -> None:
    assert question().accepted
    assert not question(reason="page-outside-document").accepted
