"""Benchmarks from folders, PDFs, lists and question files; and lists made for others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from corpus.benchmark_sets import BenchmarkFile, FingerprintJob, fingerprint_pdf, list_lines, read_benchmarks
from corpus.cli import main
from corpus.config import DEFAULT_STORAGE
from corpus.errors import ConfigError, DocumentError

TEXT = "\n".join(f"Line {i} of page {{page}} says that pump {i} was repaired in week {i * 7 % 50}." for i in range(30))


def fingerprint(path: Path) -> BenchmarkFile:
    return fingerprint_pdf(FingerprintJob(uri=str(path), name=path.name, storage=DEFAULT_STORAGE), lambda _: None)


def test_entries_are_sorted_by_what_they_are(make_pdf: Callable[..., Path], tmp_path: Path) -> None:
    a, b = make_pdf("set/deep/a.pdf"), make_pdf("b.pdf")
    digest = "AB" * 32
    (tmp_path / "sums.txt").write_text(f"# ours\n\n{'0c' * 32} *some file.pdf\n{'0d' * 32}\n")
    questions = tmp_path / "q.json"
    questions.write_text(json.dumps([{"question": "Why?", "answer": 3, "doc_id": "x"}, {"question": "How?"}]))
    found = read_benchmarks([str(tmp_path / "set"), str(b), digest, str(tmp_path / "sums.txt"), str(questions), str(a)])
    assert found.pdfs == {str(a): "a.pdf", str(b): "b.pdf"}
    assert found.digests == {digest.lower(): digest.lower(), "0c" * 32: "some file.pdf", "0d" * 32: "sums.txt:4"}
    assert [(q.where, q.question, q.answer) for q in found.questions] == [
        ("q.json:1", "Why?", "3"),
        ("q.json:2", "How?", ""),
    ]


def test_files_of_the_same_name_are_told_apart(make_pdf: Callable[..., Path], tmp_path: Path) -> None:
    a, b = make_pdf("x/same.pdf"), make_pdf("y/same.pdf")
    assert read_benchmarks([str(tmp_path)]).pdfs == {str(a): str(a), str(b): str(b)}


@pytest.mark.parametrize("name", ["q.jsonl", "q.parquet"])
def test_questions_come_in_every_format(name: str, tmp_path: Path) -> None:
    rows = [{"question": "Why?", "answer": "so"}]
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    else:
        (tmp_path / name).write_text("".join(json.dumps(r) + "\n" for r in rows))
    (found,) = read_benchmarks([str(tmp_path / name)]).questions
    assert (found.where, found.question, found.answer) == (f"{name}:1", "Why?", "so")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.pdf", None, "does not exist"),
        ("data.csv", "x", "neither a PDF, nor a list"),
        ("list.txt", "page - - x:0 1", "line 1: neither a SHA-256 nor a page hash"),
        ("list.txt", "hello", "line 1: neither a SHA-256 nor a page hash"),
        ("list.txt", "page " + "a" * 63 + " - x:1", "line 1"),
        ("q.json", "{}", "not a list"),
        ("q.json", "[", "cannot read questions"),
        ("q.jsonl", '{"text": "Why?"}', "row 1 has no 'question'"),
        ("q.parquet", "no parquet", "cannot read questions"),
    ],
)
def test_what_cannot_be_understood_stops_the_build(
    name: str, content: str | None, message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=r"clean\.decontaminate") as caught:
        read_benchmarks([str(tmp_path / name)])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_without_pdfs_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^clean\.decontaminate: no PDF found in"):
        read_benchmarks([str(tmp_path)])


def test_a_list_says_what_the_pdf_would(make_pdf: Callable[..., Path], tmp_path: Path) -> None:
    path = make_pdf("a: b.pdf", pages=2, text=TEXT)
    file = fingerprint(path)
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [(p.document, p.page, bool(p.images), bool(p.words)) for p in file.pages] == [
        ("a: b.pdf", 1, True, True),
        ("a: b.pdf", 2, True, True),
    ]
    (tmp_path / "list.txt").write_text("\n".join(list_lines(file)))
    listed = read_benchmarks([str(tmp_path / "list.txt")])
    assert (listed.pages, listed.digests) == (file.pages, {file.sha256: "a: b.pdf"})


def test_pages_without_words_carry_more_crops(make_pdf: Callable[..., Path]) -> None:
    wide = "\n".join(f"{i} " + f"of {i * i} pumps {i * 7 % 50} were repaired in week {i} " * 5 for i in range(80))
    words = fingerprint(make_pdf("a.pdf", pages=1, text=wide, size=(1_200, 1_400))).pages[0]
    scan = fingerprint(make_pdf("b.pdf", pages=1, text=wide, size=(1_200, 1_400), images=True)).pages[0]
    assert words.words and not scan.words
    assert len(scan.images) > len(words.images) >= 2


def test_blank_pages_are_not_listed(make_pdf: Callable[..., Path]) -> None:
    assert fingerprint(make_pdf(pages=3, text=["", "7", TEXT])).pages[0].page == 3


def test_a_broken_benchmark_is_known_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_text("no PDF at all")
    file = fingerprint(tmp_path / "a.pdf")
    assert (file.pages, len(file.sha256)) == ((), 64) and file.problem.startswith("not-a-pdf")
    with pytest.raises(DocumentError, match="unreadable"):
        fingerprint(tmp_path / "gone.pdf")


def test_the_command_prints_a_list_and_names_what_it_cannot_read(make_pdf: Callable[..., Path], tmp_path: Path) -> None:
    sound = make_pdf("sound.pdf", pages=2, text=TEXT)
    result = CliRunner().invoke(main, ["fingerprint", str(sound), "--workers", "1"])
    assert result.exit_code == 0
    assert result.stdout.splitlines() == list(list_lines(fingerprint(sound)))
    (tmp_path / "broken.pdf").write_text("no PDF at all")
    result = CliRunner().invoke(main, ["fingerprint", str(tmp_path), "--workers", "1"])
    assert result.exit_code == 1 and "broken.pdf: only its bytes are listed: not-a-pdf" in result.stderr
    assert len(result.stdout.splitlines()) == 4
