"""Real and broken PDFs that are not part of the repository: run where `../shared/data` stands beside the checkout."""

from __future__ import annotations

import ast
import json
import os
import subprocess
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from test_build import by_name, quick

from corpus.linting import lint_run
from corpus.pipeline import build
from corpus.records import Question, Sample
from corpus.store import read_records

DATA = Path(__file__).parents[2] / "shared" / "data"
FORMATS = {"Str": "String", "Int": "Integer", "Float": "Float", "List": "List", "None": "String"}

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not beside this checkout")


def converted(row: dict[str, Any]) -> dict[str, Any]:
    """A question of the benchmark as a row of a question file."""
    answer_format = FORMATS[row["answer_format"]]
    answer = row["answer"]
    if answer_format == "List":
        answer = [str(a) for a in ast.literal_eval(answer)]
    elif answer_format in ("Integer", "Float") and not answer.replace(".", "", 1).rstrip("%").isdecimal():
        answer_format = "String"  # "$12 million" and the like
    pages = ast.literal_eval(row["evidence_pages"])
    return {
        "uri": row["doc_id"],
        "question": row["question"],
        "answer": answer,
        "answer_format": answer_format,
        "pages": pages,
    }


def test_the_questions_of_a_benchmark_become_a_corpus(tmp_path: Path) -> None:
    names = ["Independents-Report.pdf", "tacl_a_00660.pdf", "NETFLIX_2015_10K.pdf"]
    rows = [r for r in json.loads((DATA / "questions.json").read_text()) if r["doc_id"] in names]
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(converted(r)) + "\n" for r in rows))
    config = quick("synth.backend=file", f"synth.files={file}", "windows.min_tokens=32768")
    run = tmp_path / "run"
    build([str(DATA / "documents" / name) for name in names], run, config, workers=2, quiet=True)
    lint_run(run)
    questions = [q for f in run.glob("questions/*.parquet") for q in read_records(f, Question)]
    assert Counter(q.reason for q in questions) == {"": len(rows)} and len(rows) > 20
    samples = read_records(run / "samples.parquet", Sample)
    placed = {i for s in samples for i in s.question_ids}
    refused = set(pq.read_table(run / "rejected.parquet")["id"].to_pylist())
    assert {q.question_id for q in questions} == placed | (refused & {q.question_id for q in questions})
    assert len(placed) > 0.8 * len(rows)


def started_with(name: str, value: str) -> set[int]:
    """The living processes that were started with this in their environment, Python's resource tracker left out."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            tracker = b"resource_tracker" in (process / "cmdline").read_bytes()
            if not tracker and f"{name}={value}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.add(int(process.name))
    return found


def descriptors() -> list[str]:
    """What the open descriptors of this process lead to."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the listing
            found.append(os.readlink(link))
    return sorted(found)


def test_every_broken_document_ends_once_and_the_run_is_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted((DATA / "malformed").glob("*.pdf"))
    run = tmp_path / "run"
    config = quick("ocr.engine=none", "windows.min_tokens=1", "workers.timeout_s=20", "workers.page_timeout_s=1")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))  # of the workers
    monkeypatch.setenv("LONGDOC_TEST", str(tmp_path))
    build([str(files[0])], tmp_path / "first", config, workers=2, quiet=True)  # what opens once stays open
    before = descriptors()
    build([str(DATA / "malformed")], run, config, workers=2, quiet=True)
    assert len(descriptors()) <= len(before), set(descriptors()) - set(before)
    with subprocess.Popen(["sleep", "60"]) as ours:
        assert started_with("LONGDOC_TEST", str(tmp_path)) == {ours.pid}
        ours.kill()
    assert list((tmp_path / "tmp").iterdir()) == []
    ends = by_name(run)
    assert sorted(ends) == [f.name for f in files] and len(files) > 200
    assert all(e.reason for e in ends.values() if e.status == "rejected")
    assert sum(e.status == "kept" for e in ends.values()) > 50
    lint_run(run)
