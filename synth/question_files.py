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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corpus.blocks import clean
from corpus.errors import ConfigError
from corpus.records import (
    TASKS,
    Document,
    Evidence,
    Question,
    Rejected,
    Segment,
    content_id,
    question_id,
)
from synth.answers import answer_fault

GENERATOR = "file"


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenQuestion:
    """One row of a question file, checked in itself but not against its document."""

    where: str  # file name and row, for messages
    folder: str  # of the file; a relative uri is relative to it
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
                    except (ValueError, RecursionError) as e:
                        raise ConfigError(f"question file {path}, line {number} is not JSON: {e}") from None
    except (OSError, UnicodeDecodeError, pa.ArrowInvalid) as e:
        raise ConfigError(f"cannot read question file {path}: {str(e).splitlines()[0]}") from None


def _given(row: Any, path: Path, number: int) -> GivenQuestion:
    faults = []
    if not isinstance(row, dict):
        row = {}
        faults.append("not an object with question, answer, pages and uri or sha256")
    pages, fault = _pages(row.get("pages"))
    faults.append(fault)
    quotes, fault = _quotes(row.get("evidence"))
    faults.append(fault)
    document = str(row.get("sha256") or "").lower() or str(row.get("uri") or "")
    question = clean(str(row.get("question") or ""))
    answer, answer_format = _answer(row.get("answer"), row.get("answer_format"))
    task = str(row.get("task") or ("extract-multi" if len(pages) > 1 else "extract-single"))
    faults += [
        "" if document else "names no document; give sha256 or uri",
        "" if question else "has no question",
        answer_fault(answer, answer_format),
        "" if task in TASKS else f"unknown task {task!r}; known: {', '.join(TASKS)}",
    ]
    return GivenQuestion(
        where=f"{path.name}:{number}",
        folder=os.path.dirname(os.path.abspath(path)),
        document=document,
        question=question,
        answer=answer,
        answer_format=answer_format,
        pages=pages,
        task=task,
        quotes=quotes,
        fault=next(filter(None, faults), ""),
    )


def _pages(value: Any) -> tuple[tuple[int, ...], str]:
    """Page numbers in order, once each; and what is wrong with them."""
    if value is None:
        return (), ""
    if not isinstance(value, list | tuple) or not all(_is_page_number(p) for p in value):
        return (), f"pages {value!r} is not a list of page numbers"
    return tuple(sorted({int(p) for p in value})), ""


def _is_page_number(value: Any) -> bool:
    if isinstance(value, str):
        return value.isdecimal() and len(value) < 10
    return isinstance(value, int) and not isinstance(value, bool)


def _quotes(value: Any) -> tuple[tuple[str, ...], str]:
    if value is None:
        return (), ""
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(t, str) for t in texts):
        return (), f"evidence {value!r} is not a text or a list of texts"
    return tuple(texts), ""


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
    given: Iterable[GivenQuestion], documents: Sequence[Document]
) -> tuple[dict[str, tuple[GivenQuestion, ...]], list[Rejected]]:
    """Questions by document id, and those that no document of this build is meant by."""
    by_name: dict[str, list[Document]] = defaultdict(list)
    for d in documents:
        by_name[os.path.basename(d.uri)].append(d)
    known = {d.sha256: d for d in documents} | {d.uri: d for d in documents}
    assigned: dict[str, list[GivenQuestion]] = defaultdict(list)
    rejected = []
    for g in given:
        paths = [g.document, os.path.abspath(os.path.join(g.folder, g.document))]
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
        digest.update(content_id(repr(replace(g, where="", folder="")), length=64).encode())
    return digest.hexdigest()
