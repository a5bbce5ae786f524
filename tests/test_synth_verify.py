"""The checks: what each stops and lets pass, what a model's answers prove, and how often they are right."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from fakes import block, page, question
from hypothesis import given
from hypothesis import strategies as st
from verify_set import PARTS, checked, known_questions

from corpus.records import CHECKS, TEXT_CHECKS, Evidence, Question, Verdict
from synth.anchors import DocumentText
from synth.replies import Fault
from synth.verify import (
    ANSWER_SCHEMA,
    NOT_ANSWERABLE,
    answer_prompt,
    judge_agreement,
    judge_ambiguity,
    judge_closed_book,
    judge_leakage,
    judged,
    parse_answer,
    relabelled,
    sufficient_page,
    text_checks,
)

PAGES = [
    page(
        0, block("Harbour", "heading", level=1), "Ships of 12.50 metres pay 245 pounds on 3 May 2021. Ada Krol leads."
    ),
    page(
        1, block("Works", "heading", level=1), "The cranes cost 640 pounds and the quay 395 pounds. Noor Saleh leads."
    ),
    page(2, block("Chart", "heading", level=1), block(kind="picture")),
    page(3, block(kind="picture"), text_source="none"),
]
DOCUMENT = DocumentText(PAGES, ())


def asked(text: str, answer: str, *quotes: tuple[int, str], kind: str = "Text", **changes: Any) -> Question:
    return question(
        question=text,
        answer=answer,
        evidence=tuple(Evidence(page=p, kind=kind, quote=q) for p, q in quotes),
        segment_pages=4,
        **changes,
    )


def verdict(check: str, q: Question, *earlier: Question) -> Verdict:
    (found,) = text_checks(q, DOCUMENT, earlier, [check])
    assert found.check == check
    return found


# ------------------------------------------------------------------------------------------------------ text checks


@pytest.mark.parametrize(
    ("check", "text", "answer", "changes"),
    [
        ("format", "Who leads the Harbour?", "Ada Krol", {}),
        ("format", "How many pounds, by Harbour?", "245", {"answer_format": "Integer"}),
        ("evidence-pages", "Who leads the Harbour?", "Ada Krol", {}),
        ("anchor", "Who leads on page 1?", "Ada Krol", {"anchor": "page 1"}),
        ("answer-in-question", "Who leads the Harbour?", "Ada Krol", {}),
        ("answer-in-question", "Who leads it, Ada Krol or Noor Saleh?", "Ada Krol", {}),
        ("answer-in-question", "Is Ada Krol there, yes or no?", "yes", {}),
        ("answer-in-question", "How many ships stand on page 245?", "245", {"answer_format": "Integer"}),
        ("answer-in-question", "How many of the 5 ships pay?", "5", {"answer_format": "Integer"}),
        ("answer-in-question", "How many ships stand at 5 quays?", "5", {"answer_format": "Integer"}),
        ("quoted", "Who leads the Harbour?", "Ada Krol", {}),
        ("grounded", "Who leads the Harbour?", "ADA KROL", {}),
        ("grounded", "How long are they?", "12.5", {"answer_format": "Float"}),
        ("grounded", "When do they pay?", "May 3, 2021", {}),
        ("grounded", "On which page does it stand?", "1", {"answer_format": "Integer"}),
        ("grounded", "Who and how much?", '["Ada Krol", "245"]', {"answer_format": "List"}),
        ("verbatim", "By how much does it differ?", "395", {"answer_format": "Integer"}),
        ("verbatim", "What is the smaller number of days?", "3", {"answer_format": "Integer"}),
        ("verbatim", "Who leads the larger of both?", "Ada Krol", {}),
        ("duplicate", "Who leads the Harbour?", "Ada Krol", {}),
    ],
)
def test_these_pass(check: str, text: str, answer: str, changes: dict[str, Any]) -> None:
    q = asked(text, answer, (0, "Ships of 12.50 metres pay 245 pounds on 3 May 2021. Ada Krol leads"), **changes)
    assert verdict(check, q).passed


@pytest.mark.parametrize(
    ("check", "text", "answer", "changes", "detail"),
    [
        ("format", "Who leads the Harbour?", "not mentioned", {}, "says that there is none"),
        ("format", "Who leads the Harbour?", "", {}, "has no answer"),
        ("format", "How much is it, by Harbour?", "12.5", {"answer_format": "Integer"}, "no whole number"),
        ("format", "Who leads it, by Harbour?", '["A", "a."]', {"answer_format": "List"}, "an item twice"),
        ("format", "Who leads it, by Harbour?", "Ada, Noor", {"answer_format": "List"}, "no list"),
        ("format", "Who?", "Ada Krol", {}, "has no words"),
        (
            "evidence-pages",
            "Who leads the Harbour?",
            "Ada Krol",
            {"segment_first": 1},
            "page 1 is outside pages 2 to 5",
        ),
        ("anchor", "Who leads?", "Ada Krol", {"anchor": "Harbour"}, "names no section"),
        ("answer-in-question", "Does Ada Krol lead?", "Ada Krol", {}, "the question says"),
        ("answer-in-question", "Who pays 245 pounds?", "245", {"answer_format": "Integer"}, "the question says"),
        (
            "answer-in-question",
            "How many clerks work there, as the four clerks say?",
            "4",
            {"answer_format": "Integer"},
            "says",
        ),
        ("answer-in-question", "每篓不超过5千克的竹篓最多装多少千克？", "5", {"answer_format": "Integer"}, "says"),
        ("quoted", "Who?", "x", {"evidence": (Evidence(page=0, kind="Text", quote="pay 246 pounds"),)}, "has the 246"),
        ("quoted", "Who?", "x", {"evidence": (Evidence(page=0, kind="Text", quote="Ada Krol sleeps alone"),)}, "on no"),
        ("grounded", "Who leads the Harbour?", "Noor Saleh", {}, "not in the text of the evidence pages 1"),
        ("grounded", "How much?", "246", {"answer_format": "Integer"}, "not in the text"),
        ("grounded", "How much?", "245", {"answer_format": "Integer"}, "in none of the quotes"),
        ("grounded", "Who?", '["Ada Krol", "Noor"]', {"answer_format": "List"}, "'Noor' is not"),
        ("verbatim", "How much do they pay?", "245", {"answer_format": "Integer"}, "is printed on page 1"),
        ("verbatim", "What do they do?", "pay 245 pounds", {}, "is printed on page 1"),
    ],
)
def test_these_fail(check: str, text: str, answer: str, changes: dict[str, Any], detail: str) -> None:
    q = asked(text, answer, (0, "Ada Krol leads"))
    found = verdict(check, replace(q, **changes))
    assert not found.passed
    assert detail in found.detail


def test_calculations_are_recomputed_from_the_quotes() -> None:
    quotes = [(1, "The cranes cost 640 pounds and the quay 395 pounds.")]
    right = asked("By how much do the costs of the Works differ?", "245", *quotes, answer_format="Integer")
    assert verdict("arithmetic", right).passed
    assert not verdict("arithmetic", replace(right, answer="255")).passed
    assert verdict("arithmetic", replace(right, evidence=())).detail == "the quotes hold fewer than two numbers"


@pytest.mark.parametrize(("number", "kind"), [(2, "Figure"), (3, "Figure"), (3, "Text")])
def test_what_text_cannot_show_passes_and_says_so(number: int, kind: str) -> None:
    q = asked("What is the largest bar?", "Glass", (number, "Glass 99"), kind=kind)
    for check in ("quoted", "grounded"):
        assert verdict(check, q).passed
        assert verdict(check, q).detail.startswith("cannot be shown by text")


def test_duplicates_are_the_same_words_or_most_of_them_with_the_same_answer() -> None:
    first = asked('What do ships of 12.50 metres pay, by "Harbour"?', "245", (0, ""))
    assert verdict("duplicate", first).passed
    for other in (
        replace(first, answer="246"),
        replace(first, question='By "Harbour", what do ships of 12.50 metres pay in pounds?'),
    ):
        assert not verdict("duplicate", other, first).passed
    for other in (
        replace(first, question='What do ships of 14.50 metres pay, by "Harbour"?', answer="260"),
        replace(first, question='What do boats and rafts owe each year, by "Harbour"?'),
        asked('What do ships of 12.50 metres pay in pounds, by "Works"?', "245", (1, "")),
    ):
        assert verdict("duplicate", other, first).passed


@pytest.mark.parametrize(
    ("text", "answer", "quote", "same"),
    [
        ("How much do the cranes cost, in pounds?", "640", "The cranes cost 640 pounds", True),
        ("Give the price of the lifting gear.", "640", "The cranes cost 640 pounds", True),
        ("起重机的价格是多少英镑？", "640", "cranes cost 640 pounds", True),
        ("Give the price of the lifting gear.", "640", "The cranes cost 640 pounds and the quay 395", False),
        ("How much does the quay cost?", "395", "The cranes cost 640 pounds", False),
    ],
)
def test_a_telling_number_of_one_passage_makes_a_duplicate(text: str, answer: str, quote: str, same: bool) -> None:
    first = asked("What do the cranes of the Works cost?", "640", (1, "The cranes cost 640 pounds"))
    other = asked(text, answer, (1, quote))
    assert verdict("duplicate", other, first).passed is not same


def test_two_digits_that_several_equal_quotes_give_make_a_duplicate() -> None:
    quotes = ((0, "pay 245 pounds"), (1, "the quay 395 pounds"))
    first = asked("How many days lay between the first payment and the last one?", "38", *quotes)
    other = asked("How long after batch 1 was batch 5 made, counted in days?", "38", *quotes)
    assert not verdict("duplicate", other, first).passed
    assert verdict("duplicate", replace(other, answer="39"), first).passed
    assert verdict("duplicate", replace(other, evidence=other.evidence[:1]), first).passed


def test_a_small_number_or_a_name_of_one_passage_needs_words_in_common() -> None:
    boats, leads = (1, "5 boats are let for 5 months"), (1, "Noor Saleh leads")
    months = asked("In which months are boats let?", "5", boats)
    assert verdict("duplicate", asked("How many rafts are there?", "5", boats), months).passed
    assert not verdict("duplicate", asked("How many months are boats let?", "5", boats), months).passed
    lead = asked("Who leads the works at the quay?", "Noor Saleh", leads)
    assert verdict("duplicate", asked("Whom did the board appoint in May?", "Noor Saleh", leads), lead).passed
    assert not verdict("duplicate", asked("By whom are the works at the quay led?", "Noor Saleh", leads), lead).passed


def test_checks_run_in_order_up_to_the_first_failure() -> None:
    q = asked("Who leads, according to page 1?", "Noor Saleh", (0, "Ada Krol leads"), anchor="page 1")
    verdicts = text_checks(q, DOCUMENT, (), tuple(reversed(CHECKS)))
    assert [v.check for v in verdicts] == list(TEXT_CHECKS[: TEXT_CHECKS.index("grounded") + 1])
    assert [v.passed for v in verdicts] == [True] * 5 + [False]
    assert [v.check for v in text_checks(q, DOCUMENT, (), ["quoted", "agreement"])] == ["quoted"]
    assert text_checks(q, DOCUMENT, (), []) == ()


def test_the_first_failure_is_the_reason() -> None:
    good, bad, worse = (Verdict(check=c, passed=p, detail=c) for c, p in [("a", True), ("b", False), ("c", False)])
    assert judged(question(), [good]).accepted
    rejected = judged(judged(question(), [good, bad]), [worse])
    assert (rejected.reason, rejected.detail) == ("b", "b")
    assert rejected.verdicts == (good, bad, worse)


TEXTS = st.text(max_size=60) | st.text(alphabet="1,.%()-页第表 一年and|\n", max_size=60)


@given(TEXTS, TEXTS, TEXTS, TEXTS, st.sampled_from(["String", "Integer", "Float", "List"]))
def test_any_question_gets_verdicts(text: str, answer: str, quote: str, anchor: str, answer_format: str) -> None:
    q = asked(text, answer, (0, quote), (3, quote), answer_format=answer_format, anchor=anchor)
    for check in TEXT_CHECKS:
        assert verdict(check, q, q).check == check


# ----------------------------------------------------------------------------------------------------- model checks


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('{"answer": "Ada"}', "Ada"),
        ('{"answer": 12}', "12"),
        ('{"answer": 12.50}', "12.50"),
        ('{"answer": ["a", "b"]}', '["a", "b"]'),
        ('{"answer": null}', NOT_ANSWERABLE),
        ('{"answer": []}', NOT_ANSWERABLE),
        ('{"answer": ""}', NOT_ANSWERABLE),
        ('{"answer": "Not answerable."}', NOT_ANSWERABLE),
        ('{"answer": "无法确定"}', NOT_ANSWERABLE),
    ],
)
def test_answers_are_read(text: str, answer: str) -> None:
    assert parse_answer(text, structured=True) == answer
    assert parse_answer(f"<think>{{}}</think> So:\n```json\n{text}\n```", structured=False) == answer


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"answer": {"a": 1}}', "wrong-type"),
        ('{"answer": true}', "wrong-type"),
        ('{"reply": "Ada"}', "missing-key"),
        ("Ada", "no-json"),
        ('{"answer": "A', "cut-off"),
        ("I cannot help with that.", "refused"),
        ("", "empty"),
        (" \n\t", "empty"),
    ],
)
def test_what_is_no_answer_is_a_fault_to_count_by(text: str, reason: str) -> None:
    found = parse_answer(text, structured=True)
    assert isinstance(found, Fault)
    assert found.reason == reason


@given(st.text() | st.text(alphabet='{}[]":,answer1e0-'), st.booleans())
def test_any_text_is_read_or_not(text: str, structured: bool) -> None:
    assert isinstance(parse_answer(text, structured), str | Fault)


def test_a_prompt_for_an_answer_allows_none() -> None:
    q = question(question="Who leads?", answer="Ada Krol")
    for shown in (True, False):
        system, text = answer_prompt(q, pages_shown=shown)
        assert "Who leads?" in text
        assert "Ada" not in system + text
        assert "answer is null" in text
    assert answer_prompt(q, pages_shown=True)[0] == answer_prompt(q, pages_shown=False)[0]
    assert {"type": "null"} in json.loads(ANSWER_SCHEMA)["properties"]["answer"]["anyOf"]


Q = question(question="Who leads?", answer="Ada Krol")


@pytest.mark.parametrize(
    ("answers", "closed_book", "agreement", "ambiguity"),
    [
        ([""], True, False, True),
        (["Noor"], True, False, False),
        (["ada krol"], False, True, True),
        (["ada krol", "Noor"], True, False, False),
        (["ada krol", "Ada Krol", ""], False, True, True),
        ([None], False, False, False),
        ([], False, False, False),
    ],
)
def test_answers_are_judged(answers: list[str | None], closed_book: bool, agreement: bool, ambiguity: bool) -> None:
    assert judge_closed_book(Q, answers).passed is closed_book
    assert judge_agreement(Q, answers).passed is agreement
    assert judge_ambiguity(Q, answers).passed is ambiguity
    for found in (judge_closed_book(Q, answers), judge_agreement(Q, answers), judge_ambiguity(Q, answers)):
        assert bool(found.detail) is not found.passed


def test_a_question_that_one_page_answers_is_of_another_task() -> None:
    q = asked("Who leads both?", '["Ada", "Noor"]', (0, "Ada"), (1, "Noor"), answer_format="List", task="extract-multi")
    assert judge_leakage(q, {0: "", 1: '["Noor"]'}).passed
    assert not judge_leakage(q, {0: "", 1: None}).passed
    leaking = {0: "", 1: '["Noor", "Ada"]'}
    assert judge_leakage(q, leaking) == Verdict(check="leakage", passed=False, detail="page 2 is enough")
    assert sufficient_page(q, leaking) == 1
    single = relabelled(q, 1)
    assert (single.task, [e.page for e in single.evidence]) == ("extract-single", [1])
    assert single.question_id != q.question_id
    assert sufficient_page(single, {}) == 1


# ---------------------------------------------------------------------------------------------------------- quality


def test_right_questions_are_kept_and_wrong_ones_stopped() -> None:
    kept, total = Counter[tuple[str, bool]](), Counter[tuple[str, bool]]()
    for known, q in checked():
        total[known.part, known.kind == "right"] += 1
        kept[known.part, known.kind == "right"] += q.accepted
    for part in PARTS:
        assert kept[part, True] >= 0.95 * total[part, True]
        assert kept[part, False] <= 0.10 * total[part, False]
        assert min(total[part, True], total[part, False]) >= 30


def test_the_questions_of_known_quality_are_as_many_and_as_various_as_they_are_said_to_be() -> None:
    chinese = [k for k in known_questions() if not k.question.question.isascii() and k.document.endswith("zh")]
    assert len(known_questions()) >= 200
    assert len(chinese) >= 60
    assert len({k.kind for k in known_questions()}) == 11
