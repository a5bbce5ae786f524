"""Questions of the user's own: every row ends as a question, or as a refusal with its place and reason."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes import document

from corpus.errors import ConfigError
from corpus.records import Question
from synth.question_files import GivenQuestion, admit, assign, fingerprint, read_question_files

ROW = {"uri": "report.pdf", "question": "Where is the office?", "answer": "Oslo", "pages": [3]}


def jsonl(file: Path, *rows: Any) -> str:
    file.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return str(file)


@pytest.fixture
def read(tmp_path: Path) -> Any:
    """`read(answer="5")` is the row above with that change, as it is read from a file."""

    def one(**changes: Any) -> GivenQuestion:
        (given,) = read_question_files([jsonl(tmp_path / "q.jsonl", {**ROW, **changes})])
        return given

    return one


# --------------------------------------------------------------------------------------------------------- reading


def test_a_row_is_read_as_it_is_meant(read: Any, tmp_path: Path) -> None:
    assert read() == GivenQuestion(
        where="q.jsonl:1",
        folder=str(tmp_path),
        document="report.pdf",
        question="Where is the office?",
        answer="Oslo",
        answer_format="String",
        pages=(3,),
        task="extract-single",
        quotes=(),
    )


@pytest.mark.parametrize(
    ("answer", "text", "answer_format"),
    [
        ("  1,234 ", "1,234", "String"),
        (1234, "1234", "Integer"),
        (0, "0", "Integer"),
        (2.5, "2.5", "Float"),
        (True, "True", "String"),
        (["Oslo", 7], '["Oslo", "7"]', "List"),
        (["数"], '["数"]', "List"),
    ],
)
def test_the_format_of_an_answer_follows_from_its_type(read: Any, answer: Any, text: str, answer_format: str) -> None:
    given = read(answer=answer)
    assert (given.answer, given.answer_format, given.fault) == (text, answer_format, "")


def test_a_given_format_and_task_win(read: Any) -> None:
    given = read(answer="1234", answer_format="Integer", task="reasoning")
    assert (given.answer_format, given.task, given.fault) == ("Integer", "reasoning", "")


@pytest.mark.parametrize(
    ("pages", "kept", "task"),
    [
        ([3], (3,), "extract-single"),
        ([5, 3, 5], (3, 5), "extract-multi"),
        ([], (), "extract-single"),
        (["4"], (4,), "extract-single"),
    ],
)
def test_pages_are_counted_once_and_decide_the_task(
    read: Any, pages: list[Any], kept: tuple[int, ...], task: str
) -> None:
    assert (read(pages=pages).pages, read(pages=pages).task) == (kept, task)


def test_a_question_is_cleaned(read: Any) -> None:
    assert read(question=" Where\x00 is\n it? ").question == "Where is it?"


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"uri": None}, "names no document; give sha256 or uri"),
        ({"question": "  "}, "has no question"),
        ({"answer": None}, "has no answer"),
        ({"answer": " "}, "has no answer"),
        ({"answer": []}, "has no answer"),
        ({"task": "summary"}, "unknown task 'summary'"),
        ({"answer_format": "Text"}, "unknown answer_format 'Text'"),
        ({"pages": ["three"]}, "pages ['three'] is not a list of page numbers"),
        ({"pages": 3}, "pages 3 is not a list of page numbers"),
    ],
)
def test_a_faulty_row_says_what_is_wrong(read: Any, changes: dict[str, Any], fault: str) -> None:
    assert fault in read(**changes).fault


@pytest.mark.parametrize(
    "changes",
    [
        {"answer": "Oslo, Bergen", "answer_format": "List"},  # no JSON array: speaking it fails and ends the build
        {"answer": 5, "answer_format": "List"},
        {"answer": "[1, 2]", "answer_format": "List"},
        {"evidence": 5},
        {"pages": [float("inf")]},
        {"pages": "12"},  # is read as pages 1 and 2
    ],
    ids=str,
)
def test_a_row_of_wrong_types_is_a_fault(read: Any, changes: dict[str, Any]) -> None:
    assert read(**changes).fault


def test_a_row_that_is_no_object_is_a_fault_and_the_rest_is_read(tmp_path: Path) -> None:
    given = read_question_files([jsonl(tmp_path / "q.jsonl", ROW, "", ["no"], ROW)])
    assert [g.where for g in given] == ["q.jsonl:1", "q.jsonl:3", "q.jsonl:4"]
    assert [bool(g.fault) for g in given] == [False, True, False]


def test_parquet_rows_are_read_alike(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([ROW]), tmp_path / "q.parquet")
    (from_parquet,) = read_question_files([str(tmp_path / "q.parquet")])
    (from_jsonl,) = read_question_files([jsonl(tmp_path / "q.jsonl", ROW)])
    assert (from_parquet.pages, from_parquet.answer) == (from_jsonl.pages, from_jsonl.answer) == ((3,), "Oslo")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("no.jsonl", None, "cannot read question file"),
        ("q.jsonl", b"{broken\n", "line 1 is not JSON"),
        ("q.jsonl", b'{"question": "caf\xe9"}\n', "cannot read question file"),
        ("q.parquet", b"no parquet", "cannot read question file"),
    ],
)
def test_a_file_that_cannot_be_read_is_the_users_to_mend(
    tmp_path: Path, name: str, content: bytes | None, says: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=says) as e:
        read_question_files([str(tmp_path / name)])
    assert str(tmp_path / name) in str(e.value)
    assert len(str(e.value).splitlines()) == 1


def test_the_fingerprint_changes_with_any_question(read: Any) -> None:
    one, other = read(), read(answer="Bergen")
    assert fingerprint([one]) == fingerprint([read()])
    assert len({fingerprint(x) for x in ([one], [other], [one, other], [other, one], [])}) == 5


# ------------------------------------------------------------------------------------------------------- assigning

REPORT = document(sha256="a" * 64, uri="/library/2023/report.pdf")
OTHER = document(sha256="b" * 64, uri="/library/2022/report.pdf")
MANUAL = document(sha256="c" * 64, uri="/library/manual.pdf")
LIBRARY = [REPORT, OTHER, MANUAL]


@pytest.mark.parametrize(
    ("named", "doc_id"),
    [
        ({"sha256": "A" * 64}, REPORT.doc_id),
        ({"sha256": "b" * 64, "uri": "manual.pdf"}, OTHER.doc_id),
        ({"uri": "/library/2022/report.pdf"}, OTHER.doc_id),
        ({"uri": "../library/2023/report.pdf"}, REPORT.doc_id),
        ({"uri": "manual.pdf"}, MANUAL.doc_id),
    ],
)
def test_a_document_is_named_by_digest_path_or_a_name_of_its_own(read: Any, named: dict[str, str], doc_id: str) -> None:
    given = replace(read(**{"uri": None, **named}), folder="/questions")
    assigned, rejected = assign([given], LIBRARY)
    assert assigned == {doc_id: (given,)}
    assert rejected == []


@pytest.mark.parametrize("uri", ["report.pdf", "none.pdf", "2023/report.pdf"])
def test_a_name_that_is_not_one_documents_own_is_refused(read: Any, uri: str) -> None:
    assigned, rejected = assign([read(uri=uri)], LIBRARY)
    assert assigned == {}
    assert [(r.id, r.stage, r.reason) for r in rejected] == [("q.jsonl:1", "synthesise", "unknown-document")]
    assert repr(uri) in rejected[0].detail


def test_a_relative_path_is_relative_to_its_own_file(read: Any) -> None:
    given = [replace(read(uri="report.pdf"), folder=f"/library/{year}") for year in ("2022", "2023")]
    assigned, _ = assign(given, LIBRARY)
    assert assigned == {OTHER.doc_id: (given[0],), REPORT.doc_id: (given[1],)}


def test_questions_of_a_document_stay_in_order(read: Any) -> None:
    given = [read(uri="manual.pdf", question=f"{i}?") for i in range(5)]
    assigned, _ = assign(given, LIBRARY)
    assert assigned[MANUAL.doc_id] == tuple(given)


# ------------------------------------------------------------------------------------------------------- admission


def admitted(given: GivenQuestion) -> Question:
    return admit(given, MANUAL)


def test_an_admitted_row_is_a_question_about_its_pages(read: Any) -> None:
    made = admitted(read(pages=[7, 3], evidence=["on three", "on seven"], answer=["a", "b"]))
    assert made.accepted
    assert (made.segment_first, made.segment_pages, made.task) == (2, 5, "extract-multi")
    assert [(e.page, e.quote) for e in made.evidence] == [(2, "on three"), (6, "on seven")]
    assert (made.doc_id, made.answer, made.answer_format, made.generator) == (
        MANUAL.doc_id,
        '["a", "b"]',
        "List",
        "file",
    )


def test_a_row_without_pages_is_asked_of_the_whole_document(read: Any) -> None:
    made = admitted(read(pages=[], answer="Not answerable"))
    assert (made.segment_first, made.segment_pages, made.evidence) == (0, 10, ())
    assert made.accepted


def test_one_quote_stands_for_every_page(read: Any) -> None:
    assert [e.quote for e in admitted(read(pages=[1, 2], evidence="both")).evidence] == ["both", "both"]
    assert [e.quote for e in admitted(read(pages=[1, 2])).evidence] == ["", ""]


@pytest.mark.parametrize("page", [0, 11, -1])
def test_a_page_outside_the_document_is_refused(read: Any, page: int) -> None:
    made = admitted(read(pages=[3, page]))
    assert (made.reason, made.accepted) == ("page-outside-document", False)
    assert made.detail == f"q.jsonl:1: page {page} of a document of 10 pages"


def test_a_faulty_row_is_a_rejected_question_with_its_place(read: Any) -> None:
    made = admitted(read(question=""))
    assert (made.reason, made.detail) == ("faulty-row", "q.jsonl:1: has no question")
    assert made.question_id != admitted(read()).question_id


@pytest.mark.parametrize(
    ("text", "names"),
    [("What is on page 3?", True), ("See Pages 12 to 14?", True), ("Which page?", False), ("Webpage 3?", False)],
)
def test_a_question_that_names_pages_is_marked(read: Any, text: str, names: bool) -> None:
    assert admitted(read(question=text)).names_pages is names


def test_the_same_row_has_the_same_id_wherever_it_stands(tmp_path: Path) -> None:
    given = read_question_files([jsonl(tmp_path / "a.jsonl", ROW, ROW), jsonl(tmp_path / "b.jsonl", ROW)])
    assert len({admitted(g).question_id for g in given}) == 1
