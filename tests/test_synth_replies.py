"""Replies: what a model may write, and that whatever else it writes ends as a fault with a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.records import Segment
from synth.replies import KEYS, Fault, Reply, parse_reply, reply_schema
from synth.tasks import load_tasks

(SINGLE, MULTI) = load_tasks(["extract-single", "extract-multi"])
SEGMENT = Segment(first_page=10, num_pages=8)
GOOD: dict[str, Any] = {
    "evidence_pages": [12],
    "evidence_sources": ["Table"],
    "evidence": ["Ferries 14.2 15.9"],
    "anchor": "Table 3",
    "question": 'What is the 2020 revenue of the ferries in "Table 3"?',
    "answer_format": "Float",
    "answer": 15.9,
}


def parsed(changes: dict[str, Any] | None = None, task: Any = SINGLE, structured: bool = True) -> Reply | Fault:
    return parse_reply(json.dumps({**GOOD, **(changes or {})}), task, SEGMENT, structured)


def reason(text: str, structured: bool = True) -> str:
    found = parse_reply(text, SINGLE, SEGMENT, structured)
    return found.reason if isinstance(found, Fault) else ""


def test_a_reply_is_read_with_pages_from_0() -> None:
    assert parsed() == Reply(
        question='What is the 2020 revenue of the ferries in "Table 3"?',
        answer="15.9",
        answer_format="Float",
        anchor="Table 3",
        evidence_pages=(11,),
        evidence_sources=("Table",),
        quotes=("Ferries 14.2 15.9",),
    )


@pytest.mark.parametrize(
    ("answer_format", "answer", "text"),
    [
        ("Integer", 1234, "1234"),
        ("Integer", -3, "-3"),
        ("Float", 15, "15"),
        ("Float", 1e-7, "0.0000001"),
        ("String", "  the\nHarbour\x00 ", "the Harbour"),
        ("List", ["Oslo", "数"], '["Oslo", "数"]'),
    ],
)
def test_answers_become_text(answer_format: str, answer: Any, text: str) -> None:
    reply = parsed({"answer_format": answer_format, "answer": answer})
    assert isinstance(reply, Reply)
    assert reply.answer == text


def test_decimals_are_kept_as_written() -> None:
    reply = parse_reply(json.dumps(GOOD).replace("15.9}", "15.90}"), SINGLE, SEGMENT, structured=True)
    assert isinstance(reply, Reply)
    assert reply.answer == "15.90"


def test_sources_follow_their_pages_and_else_claim_nothing() -> None:
    reply = parsed({"evidence_pages": [14, 11], "evidence_sources": ["Table", "Text"]}, MULTI)
    assert isinstance(reply, Reply)
    assert (reply.evidence_pages, reply.evidence_sources) == ((10, 13), ("Text", "Table"))
    reply = parsed({"evidence_pages": [14, 11, 12], "evidence_sources": ["Text", "Figure"]}, MULTI)
    assert isinstance(reply, Reply)
    assert reply.evidence_sources == ("Figure",) * 3


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"answer": "15.9"}, "wrong-type"),
        ({"answer": True}, "wrong-type"),
        ({"answer": None}, "wrong-type"),
        ({"answer": [15.9]}, "wrong-type"),
        ({"answer_format": "Integer"}, "wrong-type"),
        ({"answer_format": "List", "answer": "a, b"}, "wrong-type"),
        ({"answer_format": "List", "answer": []}, "wrong-type"),
        ({"answer_format": "List", "answer": ["a", 1]}, "wrong-type"),
        ({"answer_format": "List", "answer": ["a"] * 51}, "too-long"),
        ({"answer_format": "List", "answer": ["a" * 1_900] * 50}, "too-long"),
        ({"answer_format": "String", "answer": "a" * 2_001}, "too-long"),
        ({"answer_format": "String", "answer": " \n "}, "empty"),
        ({"answer_format": "Text"}, "answer-format"),
        ({"answer_format": 5}, "wrong-type"),
        ({"answer": 10**40, "answer_format": "Integer"}, "too-long"),
        ({"answer": 1e200}, "too-long"),
        ({"question": ""}, "empty"),
        ({"question": "", "answer": ""}, "nothing-to-ask"),
        ({"question": ["Why?"]}, "wrong-type"),
        ({"question": "why " * 400}, "too-long"),
        ({"anchor": " "}, "empty"),
        ({"anchor": None}, "wrong-type"),
        ({"evidence_pages": []}, "evidence-pages"),
        ({"evidence_pages": [12, 13]}, "evidence-pages"),
        ({"evidence_pages": [10]}, "page-out-of-range"),
        ({"evidence_pages": [19]}, "page-out-of-range"),
        ({"evidence_pages": [-1]}, "page-out-of-range"),
        ({"evidence_pages": ["12"]}, "wrong-type"),
        ({"evidence_pages": [12.0]}, "wrong-type"),
        ({"evidence_pages": [True]}, "wrong-type"),
        ({"evidence_pages": 12}, "wrong-type"),
        ({"evidence_sources": ["Chart"]}, "wrong-type"),
        ({"evidence_sources": [["Table"]]}, "wrong-type"),
        ({"evidence_sources": []}, "empty"),
        ({"evidence": {"a": 1}}, "wrong-type"),
        ({"evidence": ["q" * 1_001]}, "too-long"),
        ({"evidence": ["q"] * 21}, "too-long"),
    ],
)
def test_a_faulty_field_is_a_fault(changes: dict[str, Any], expected: str) -> None:
    found = parsed(changes)
    assert isinstance(found, Fault)
    assert (found.reason, bool(found.detail)) == (expected, True)


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_key_is_a_fault(key: str) -> None:
    assert reason(json.dumps({k: v for k, v in GOOD.items() if k != key})) == "missing-key"


TEXT = json.dumps(GOOD)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "empty"),
        (" \n" * 50_000, "empty"),
        (TEXT[:60], "cut-off"),
        ("{" + " \n" * 5_000, "cut-off"),
        ("I'm sorry, but I can't help with that.", "refused"),
        ("抱歉，我无法回答这个问题。", "refused"),
        ("There is nothing to ask.", "no-json"),
        (TEXT + TEXT, "no-json"),
        (f"Sure! {TEXT}", "no-json"),
        ("[1, 2]", "no-object"),
        ("null", "no-object"),
        ('"text"', "no-object"),
        (TEXT.replace("15.9}", "NaN}"), "not-finite"),
        (TEXT.replace("15.9}", "-Infinity}"), "not-finite"),
        (TEXT.replace("15.9}", "1e999999999999999999999}"), "no-json"),
        (TEXT.replace("15.9}", "1e9999}"), "too-long"),
        (TEXT.replace("15.9}", "9" * 5_000 + "}"), "no-json"),
        (TEXT.replace("15.9}", "15.9, " + '"answer": 16.9}'), "duplicate-key"),
        ("[" * 100_000, "no-json"),
        ('{"a":' * 30_000, "cut-off"),
        ("x" * 200_001, "too-long"),
    ],
)
def test_what_is_no_object_is_a_fault(text: str, expected: str) -> None:
    assert reason(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        f"<think>A {{draft}}: {json.dumps({**GOOD, 'answer': 1.0})}</think>\n{TEXT}",
        f"thoughts without a beginning</think>{TEXT}",
        f"Here is the question:\n```json\n{json.dumps(GOOD, indent=2)}\n```\nI hope it helps.",
        f'First {{"question": "draft"}}, better: {TEXT}',
        f"Sets like {{a, b}} are common. {TEXT} Done {{ok}}.",
    ],
)
def test_the_last_object_of_a_free_text_counts(text: str) -> None:
    assert parse_reply(text, SINGLE, SEGMENT, structured=False) == parsed()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>Let me see. " + TEXT, "cut-off"),
        ("<think>Let me see.</think>   ", "empty"),
        ("<think>Let me see.</think> I cannot do this.", "refused"),
        (f"<think></think>{TEXT[:-20]}", "cut-off"),
        (TEXT.replace("15.9}", '15.9, "answer": 16.9}'), "duplicate-key"),
        ("{" * 100_000, "cut-off"),
        ('{"a":' * 30_000, "cut-off"),
        ("no object at all", "no-json"),
    ],
)
def test_free_text_without_an_object_is_a_fault(text: str, expected: str) -> None:
    assert reason(text, structured=False) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(KEYS), JSON), st.booleans())
def test_any_value_ends_as_a_reply_or_a_fault(changes: dict[str, Any], structured: bool) -> None:
    assert isinstance(parsed(changes, structured=structured), Reply | Fault)


@given(st.text() | st.text(alphabet='{}[]":,\\<think/>01eE.-\n'), st.booleans())
def test_any_text_ends_as_a_reply_or_a_fault(text: str, structured: bool) -> None:
    assert isinstance(parse_reply(text, SINGLE, SEGMENT, structured), Fault)


def test_the_schema_allows_what_the_parser_does() -> None:
    schema = json.loads(reply_schema(MULTI, SEGMENT))
    properties = schema["properties"]
    assert tuple(properties) == KEYS
    assert schema["required"] == list(KEYS)
    assert schema["additionalProperties"] is False
    assert properties["evidence_pages"]["items"]["enum"] == list(range(11, 19))
    assert properties["evidence_pages"]["maxItems"] == 5
    assert properties["answer_format"]["enum"] == ["List", "String", "Integer", "Float"]
    short = json.loads(reply_schema(MULTI, Segment(first_page=0, num_pages=2)))
    assert short["properties"]["evidence_pages"]["maxItems"] == 2
