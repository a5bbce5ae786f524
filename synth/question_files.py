"""Questions that people or other tools wrote, read from JSONL or Parquet.

A row names its document (`sha256`, or `uri`: a path, relative to the question file, or a file name that only one
document has), the `question`, the `answer` (text, number or list) and the `pages` of the evidence, counted from 1;
optionally `task`, `answer_format` and `evidence` (a quote, or one for each page). A row without pages (a question
that the document cannot answer) is asked of the whole document.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corpus.blocks import clean
from corpus.errors import ConfigError
from corpus.records import (
    ANSWER_FORMATS,
    TASKS,
    Document,
    Evidence,
    Question,
    Rejected,
    Segment,
    content_id,
    question_id,
)

GENERATOR = "file"


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenQuestion:
    """One row of a question file, checked in itself but not against its document."""

    where: str  # file name and row, for messages
    document: str  # sha256 or uri as given
    question: str
    answer: str
    answer_format: str
    pages: tuple[int, ...]  # counted from 1, in order
    task: str
    quotes: tuple[str, ...]
    fault: str = ""  # why the row cannot be used


def read_question_files(files: Sequence[str]) -> list[GivenQuestion]:
    """Every row of every file, in order; a faulty row carries its `fault`.

    Raises:
        ConfigError: a file that cannot be read, or a line that is not JSON.
    """
    return [_given(row, Path(file), number) for file in files for number, row in _rows(Path(file))]


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        if path.suffix.lower() == ".parquet":
            yield from enumerate(pq.read_table(path).to_pylist(), start=1)
            return
        with open(path, encoding="utf-8") as f:
            for number, line in enumerate(f, start=1):
                if line.strip():
                    try:
                        yield number, json.loads(line)
                    except json.JSONDecodeError as e:
                        raise ConfigError(f"question file {path}, line {number} is not JSON: {e.msg}") from None
    except (OSError, UnicodeDecodeError, pa.ArrowInvalid) as e:
        raise ConfigError(f"cannot read question file {path}: {str(e).splitlines()[0]}") from None


def _given(row: Any, path: Path, number: int) -> GivenQuestion:
    where = f"{path.name}:{number}"
    fault = ""
    if not isinstance(row, dict):
        row, fault = {}, "not an object with question, answer, pages and uri or sha256"
    question = clean(str(row.get("question") or ""))
    answer, answer_format = _answer(row.get("answer"), row.get("answer_format"))
    document = str(row.get("sha256") or "").lower()
    if not document and row.get("uri"):
        document = str(row["uri"])
    pages: tuple[int, ...] = ()
    try:
        pages = tuple(sorted({int(p) for p in row.get("pages") or ()}))
    except (TypeError, ValueError):
        fault = fault or f"pages {row.get('pages')!r} is not a list of page numbers"
    task = str(row.get("task") or ("extract-multi" if len(pages) > 1 else "extract-single"))
    evidence = row.get("evidence") or ()
    quotes = tuple(map(str, [evidence] if isinstance(evidence, str) else evidence))
    fault = fault or _fault(question, answer, answer_format, document, task)
    return GivenQuestion(
        where=where,
        document=document,
        question=question,
        answer=answer,
        answer_format=answer_format,
        pages=pages,
        task=task,
        quotes=quotes,
        fault=fault,
    )


def _fault(question: str, answer: str, answer_format: str, document: str, task: str) -> str:
    if not document:
        return "names no document; give sha256 or uri"
    if not question:
        return "has no question"
    if answer in ("", "[]"):
        return "has no answer"
    if task not in TASKS:
        return f"unknown task {task!r}; known: {', '.join(TASKS)}"
    if answer_format not in ANSWER_FORMATS:
        return f"unknown answer_format {answer_format!r}; known: {', '.join(ANSWER_FORMATS)}"
    return ""


def _answer(value: Any, answer_format: Any) -> tuple[str, str]:
    """The answer as text and its format, which follows from its type unless it is given."""
    if isinstance(value, list | tuple):
        return json.dumps([str(v) for v in value], ensure_ascii=False), str(answer_format or "List")
    if isinstance(value, bool) or value is None:
        return ("" if value is None else str(value)), str(answer_format or "String")
    if isinstance(value, int | float):
        return str(value), str(answer_format or ("Integer" if isinstance(value, int) else "Float"))
    return str(value).strip(), str(answer_format or "String")


def assign(
    given: Iterable[GivenQuestion], documents: Sequence[Document], files: Sequence[str]
) -> tuple[dict[str, tuple[GivenQuestion, ...]], list[Rejected]]:
    """Questions by document id, and those that no document of this build is meant by."""
    by_name: dict[str, list[Document]] = defaultdict(list)
    for d in documents:
        by_name[os.path.basename(d.uri)].append(d)
    known = {d.sha256: d for d in documents} | {d.uri: d for d in documents}
    folders = [os.path.dirname(os.path.abspath(f)) for f in files]
    assigned: dict[str, list[GivenQuestion]] = defaultdict(list)
    rejected = []
    for g in given:
        paths = [g.document, *(os.path.abspath(os.path.join(folder, g.document)) for folder in folders)]
        named = by_name[g.document] if len(by_name.get(g.document, ())) == 1 else []
        matches = [known[p] for p in paths if p in known] + named
        if matches:
            assigned[matches[0].doc_id].append(g)
        else:
            detail = g.fault or f"no document of this build is {g.document!r}"
            rejected.append(Rejected(id=g.where, stage="synthesise", reason="unknown-document", detail=detail))
    return {doc_id: tuple(questions) for doc_id, questions in assigned.items()}, rejected


def admit(given: GivenQuestion, document: Document) -> Question:
    """A row as a `Question` about its document, rejected where it does not fit it."""
    outside = [p for p in given.pages if not 1 <= p <= document.num_pages]
    reason, detail = ("faulty-row", f"{given.where}: {given.fault}") if given.fault else ("", "")
    if not reason and outside:
        reason = "page-outside-document"
        detail = f"{given.where}: page {outside[0]} of a document of {document.num_pages} pages"
    pages = [p - 1 for p in given.pages if p not in outside]
    first, last = (min(pages), max(pages)) if pages else (0, document.num_pages - 1)
    segment = Segment(first_page=first, num_pages=last - first + 1)
    quotes = given.quotes if len(given.quotes) == len(pages) else given.quotes[:1] * len(pages) or ("",) * len(pages)
    return Question(
        question_id=question_id(
            doc_id=document.doc_id,
            task=given.task,
            segment=segment,
            generator=GENERATOR,
            prompt_version="",
            seed=0,
            question=given.question or given.where,
        ),
        doc_id=document.doc_id,
        task=given.task,
        question=given.question,
        answer=given.answer,
        answer_format=given.answer_format,
        evidence=tuple(Evidence(page=p, kind="Text", quote=q) for p, q in zip(pages, quotes, strict=True)),
        segment_first=segment.first_page,
        segment_pages=segment.num_pages,
        names_pages=bool(re.search(r"\bpages?\s+\d", given.question, re.IGNORECASE)),
        generator=GENERATOR,
        reason=reason,
        detail=detail,
    )


def fingerprint(given: Iterable[GivenQuestion]) -> str:
    """Changes whenever one of the questions does."""
    digest = hashlib.sha256()
    for g in given:
        digest.update(content_id(repr(g), length=64).encode())
    return digest.hexdigest()
