"""Whatever is given as input ends as a document or as a rejection with its reason."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes import PDF_WITHOUT_PAGES

from corpus.config import DEFAULT_STORAGE as NEAR
from corpus.config import IngestSettings
from corpus.errors import ConfigError
from corpus.ingest import Ingested, Probe, ProbeJob, Source, expand_inputs, judge, probe_file, reusable, stat_file
from corpus.store import file_sha256

MakePdf = Callable[..., Path]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Files of which only the names matter."""
    for name in ("b.pdf", "a.PDF", "sub/c.pdf", "notes.txt", "sub/d.pdfx", "odd [1].pdf"):
        file = tmp_path / "library" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    return tmp_path / "library"


def found(*inputs: Path | str, below: Path) -> list[str]:
    return [os.path.relpath(s.uri, below) for s in expand_inputs([str(i) for i in inputs])]


def refusal(*inputs: Path | str) -> str:
    with pytest.raises(ConfigError) as e:
        expand_inputs([str(i) for i in inputs])
    assert len(str(e.value).splitlines()) == 1
    return str(e.value)


def jsonl(file: Path, *rows: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return file


def probe(path: Path | str, password: str | None = None) -> Probe:
    seen = stat_file(str(path))
    return seen if seen.reason else probe_file(ProbeJob(seen=seen, password=password, storage=NEAR), lambda _: None)


# -------------------------------------------------------------------------------------------------- what is meant


def test_a_folder_gives_the_pdfs_below_it(library: Path) -> None:
    assert found(library, below=library) == ["a.PDF", "b.pdf", "odd [1].pdf", "sub/c.pdf"]


def test_a_file_that_is_named_is_taken_whatever_its_suffix(library: Path) -> None:
    assert found(library / "notes.txt", library / "odd [1].pdf", below=library) == ["notes.txt", "odd [1].pdf"]


def test_a_glob_gives_files_and_the_pdfs_of_folders(library: Path) -> None:
    assert found(library / "*.pdf", below=library) == ["b.pdf", "odd [1].pdf"]
    assert found(library / "**/*.pdf", below=library) == ["b.pdf", "odd [1].pdf", "sub/c.pdf"]
    assert found(library / "s*", below=library) == ["sub/c.pdf"]


def test_an_input_that_is_named_twice_is_taken_once_and_the_order_is_fixed(library: Path) -> None:
    forwards = found(library, library / "sub/c.pdf", library / "sub", below=library)
    assert forwards == found(library / "sub", library, below=library)
    assert len(forwards) == len(set(forwards)) == 4


def test_a_relative_path_becomes_absolute(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(library / "sub")
    assert [s.uri for s in expand_inputs(["../b.pdf"])] == [str(library / "b.pdf")]


def test_a_limit_takes_the_first(library: Path) -> None:
    assert [Path(s.uri).name for s in expand_inputs([str(library)], limit=2)] == ["a.PDF", "b.pdf"]


@pytest.mark.parametrize(
    "name", ["with\nnew line.pdf", "..pdf", "a..pdf", "x" * 196 + ".pdf", "-rf.pdf", "%s {}.pdf", "ü数.pdf"]
)
def test_a_strange_name_is_a_name(tmp_path: Path, make_pdf: MakePdf, name: str) -> None:
    make_pdf(f"in/{name}", pages=2)
    (source,) = expand_inputs([str(tmp_path / "in")])
    assert (Path(source.uri).name, probe(source.uri).num_pages) == (name, 2)
    assert expand_inputs([str(tmp_path / "in" / ".." / "in" / name)]) == [source]


def test_what_matches_nothing_is_refused(library: Path, tmp_path: Path) -> None:
    assert refusal(library / "none.pdf") == f"input {str(library / 'none.pdf')!r} does not exist"
    assert refusal(library / "*.doc").endswith("matches no file")
    (tmp_path / "empty").mkdir()
    assert "no PDF found in" in refusal(tmp_path / "empty")


def test_one_missing_input_refuses_them_all(library: Path) -> None:
    assert "does not exist" in refusal(library / "b.pdf", library / "none.pdf")


# ------------------------------------------------------------------------------------------------------ manifests


def test_a_manifest_says_where_and_what(tmp_path: Path) -> None:
    rows = [
        {"uri": "docs/b.pdf", "license": "CC-BY-4.0", "title": "B", "language": "en", "source": "web", "year": 2020},
        {"uri": str(tmp_path / "a.pdf"), "license": None},
    ]
    expected = [
        Source(uri=str(tmp_path / "a.pdf")),
        Source(uri=str(tmp_path / "lists/docs/b.pdf"), license="CC-BY-4.0", title="B", language="en", source="web"),
    ]
    assert expand_inputs([str(jsonl(tmp_path / "lists/m.jsonl", rows[0], "", rows[1]))]) == expected
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "lists/m.parquet")
    assert expand_inputs([str(tmp_path / "lists/m.parquet")]) == expected


def test_an_entry_leaves_its_folder_only_as_its_author_says(tmp_path: Path) -> None:
    manifest = jsonl(tmp_path / "lists/m.jsonl", {"uri": "../a.pdf"}, {"uri": "./sub/../b.pdf"})
    assert found(manifest, below=tmp_path) == ["a.pdf", "lists/b.pdf"]


def test_the_first_of_two_entries_for_a_file_counts(tmp_path: Path) -> None:
    manifest = jsonl(tmp_path / "m.jsonl", {"uri": "a.pdf", "title": "first"}, {"uri": "./a.pdf", "title": "second"})
    assert [s.title for s in expand_inputs([str(manifest)])] == ["first"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{not json", "line 2 is not JSON"),
        ({"url": "a.pdf"}, "row 2: no 'uri'"),
        ({"uri": ""}, "row 2: no 'uri'"),
        ({"uri": 7}, "row 2: no 'uri'"),
        (["a.pdf"], "row 2: no 'uri'"),
        ({"uri": "ftp://host/a.pdf"}, "row 2: 'ftp://host/a.pdf': no such kind of storage"),
    ],
)
def test_a_broken_manifest_names_the_row(tmp_path: Path, row: Any, says: str) -> None:
    manifest = jsonl(tmp_path / "m.jsonl", {"uri": "a.pdf"}, row)
    message = refusal(manifest)
    assert str(manifest) in message
    assert says in message


def test_a_manifest_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.parquet").write_bytes(b"PAR1 no PAR1")
    assert "cannot read manifest" in refusal(tmp_path / "m.parquet")
    (tmp_path / "m.jsonl").write_bytes(b'{"uri": "caf\xe9.pdf"}\n')
    assert "cannot read manifest" in refusal(tmp_path / "m.jsonl")
    pq.write_table(pa.table({"path": ["a.pdf"]}), tmp_path / "p.parquet")
    assert "no 'uri'" in refusal(tmp_path / "p.parquet")
    assert "no PDF found" in refusal(jsonl(tmp_path / "none.jsonl"))


# --------------------------------------------------------------------------------------------- what a file shows


def test_a_sound_pdf_is_hashed_and_counted(make_pdf: MakePdf) -> None:
    file = make_pdf("a.pdf", pages=4)
    assert probe(file) == Probe(
        uri=str(file),
        num_bytes=file.stat().st_size,
        mtime_ns=file.stat().st_mtime_ns,
        sha256=file_sha256(file),
        num_pages=4,
    )


def test_bytes_before_the_header_do_no_harm(make_pdf: MakePdf) -> None:
    file = make_pdf("a.pdf")
    file.write_bytes(b"\n\n" + file.read_bytes())
    assert (probe(file).reason, probe(file).num_pages) == ("", 3)


def test_an_encrypted_pdf_needs_its_password(make_pdf: MakePdf) -> None:
    file = make_pdf("a.pdf", password="secret")
    assert (probe(file).reason, probe(file).num_pages) == ("encrypted", 0)
    assert "--password" in probe(file).detail
    assert probe(file, "wrong").reason == "wrong-password"
    assert (probe(file, "secret").reason, probe(file, "secret").num_pages) == ("", 3)
    assert probe(make_pdf("open.pdf"), "secret").reason == ""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty-file"),
        (b"<html>not found</html>", "not-a-pdf"),
        (b" " * 2_000 + b"%PDF-1.4", "not-a-pdf"),
        (b"%PDF-1.4\n", "damaged"),
        (PDF_WITHOUT_PAGES, "no-pages"),
    ],
)
def test_a_file_that_is_no_sound_pdf_says_why(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.pdf").write_bytes(content)
    seen = probe(tmp_path / "a.pdf")
    assert (seen.reason, seen.num_pages) == (reason, 0)
    assert seen.detail
    assert seen.sha256 == file_sha256(tmp_path / "a.pdf")


def test_a_truncated_pdf_is_repaired_or_refused_but_never_half_a_success(make_pdf: MakePdf) -> None:
    whole = make_pdf("a.pdf", pages=3).read_bytes()
    reasons = set()
    for length in range(16, len(whole), 97):
        file = make_pdf("cut.pdf")
        file.write_bytes(whole[:length])
        seen = probe(file)
        assert (seen.num_pages > 0) == (seen.reason == "")
        reasons.add(seen.reason)
    assert {"", "damaged"} <= reasons <= {"", "damaged", "no-pages"}


def test_what_is_not_a_regular_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.pdf").mkdir()
    os.mkfifo(tmp_path / "pipe.pdf")
    (tmp_path / "gone.pdf").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop.pdf").symlink_to(tmp_path / "loop.pdf")
    expected = {
        "folder.pdf": "not-a-file",
        "pipe.pdf": "not-a-file",
        "gone.pdf": "unreadable",
        "loop.pdf": "unreadable",
    }
    assert {name: probe(tmp_path / name).reason for name in expected} == expected
    assert found(tmp_path, below=tmp_path) == ["gone.pdf", "loop.pdf", "pipe.pdf"]
    assert found(tmp_path / "gone.pdf", below=tmp_path) == ["gone.pdf"]
    manifest = jsonl(tmp_path / "m.jsonl", *({"uri": name} for name in expected))
    assert found(manifest, below=tmp_path) == sorted(expected)


def test_a_file_that_vanishes_is_unreadable(tmp_path: Path) -> None:
    seen = probe(tmp_path / "a.pdf")
    assert (seen.reason, seen.num_bytes) == ("unreadable", 0)
    assert "No such file" in seen.detail


def test_a_name_that_is_not_utf8_is_a_name(make_pdf: MakePdf) -> None:
    file = make_pdf("in/a.pdf")
    file.rename(file.parent / os.fsdecode(b"caf\xe9.pdf"))
    (source,) = expand_inputs([str(file.parent)])
    assert (probe(source.uri).reason, probe(source.uri).num_pages) == ("", 3)


def test_a_path_that_cannot_exist_is_unreadable() -> None:
    assert stat_file("/library/a\0.pdf").reason == "unreadable"


# ------------------------------------------------------------------------------------------------------- judgement


def ends(*probes: tuple[str, str, int, str], **settings: Any) -> list[tuple[str, str]]:
    """(name, digest, pages, reason) -> (name, reason) in order."""
    made = {n: Probe(uri=n, num_bytes=1, mtime_ns=0, sha256=d, num_pages=p, reason=r) for n, d, p, r in probes}
    judged = judge([Source(uri=n) for n in made], made, IngestSettings(**settings))
    return [(i.source.uri, i.reason) for i in judged]


def test_the_first_of_files_with_the_same_bytes_is_kept() -> None:
    assert ends(("a", "x", 1, ""), ("b", "y", 1, ""), ("c", "x", 1, "")) == [("a", ""), ("b", ""), ("c", "duplicate")]


def test_a_rejected_file_makes_no_duplicate() -> None:
    assert ends(("a", "x", 0, "encrypted"), ("b", "x", 0, "encrypted")) == [("a", "encrypted"), ("b", "encrypted")]


def test_a_file_that_failed_keeps_its_own_reason() -> None:
    assert ends(("a", "x", 1, ""), ("b", "x", 0, "timeout")) == [("a", ""), ("b", "timeout")]


def test_page_limits_are_inclusive() -> None:
    probes = [(str(n), str(n), n, "") for n in (4, 5, 6, 7, 8)]
    expected = ["too-few-pages", "", "", "", "too-many-pages"]
    assert [reason for _, reason in ends(*probes, min_pages=5, max_pages=7)] == expected


def filtered(source: Source, **settings: Any) -> tuple[str, str]:
    probe = Probe(uri=source.uri, num_bytes=100, mtime_ns=0, sha256="s", num_pages=3)
    (item,) = judge([source], {source.uri: probe}, IngestSettings(**settings))
    return item.reason, item.detail


def test_size_limits_are_inclusive_and_name_value_and_setting() -> None:
    source = Source(uri="a")
    assert filtered(source, min_bytes=100, max_bytes=100) == ("", "")
    assert filtered(source, min_bytes=101) == ("too-small", "100 bytes, ingest.min_bytes = 101")
    assert filtered(source, max_bytes=99) == ("too-large", "100 bytes, ingest.max_bytes = 99")


@pytest.mark.parametrize(
    ("stated", "taken", "detail"),
    [
        ("CC-BY-4.0", ("cc-by-*", "MIT"), ""),
        ("CC-BY-4.0", ("CC-BY",), "'CC-BY-4.0', ingest.licenses = ['CC-BY']"),
        ("", ("*-*",), "no licence stated, ingest.licenses = ['*-*']"),
        ("", (), ""),
    ],
)
def test_licences_are_compared_without_case_and_with_wildcards(
    stated: str, taken: tuple[str, ...], detail: str
) -> None:
    assert filtered(Source(uri="a", license=stated), licenses=taken) == ("license" if detail else "", detail)


def test_a_stated_language_is_judged_before_anything_is_parsed() -> None:
    assert filtered(Source(uri="a", language="en-US"), languages=("en",)) == ("", "")
    assert filtered(Source(uri="a", language="fr"), languages=("en",)) == (
        "language",
        "'fr', ingest.languages = ['en']",
    )
    assert filtered(Source(uri="a"), languages=("en",)) == ("", "")


def test_an_accepted_input_is_a_document_with_what_the_manifest_says() -> None:
    source = Source(uri="/a.pdf", title="T", language="de", license="MIT", source="S")
    item = Ingested(source=source, probe=Probe(uri="/a.pdf", num_bytes=9, mtime_ns=1, sha256="ab" * 32, num_pages=3))
    made = item.document
    assert (made.doc_id, made.sha256, made.num_bytes, made.num_pages) == ("ab" * 8, "ab" * 32, 9, 3)
    assert (made.uri, made.title, made.language, made.license, made.source) == ("/a.pdf", "T", "de", "MIT", "S")


def test_a_probe_is_reused_while_size_and_time_stay_and_failures_never(make_pdf: MakePdf) -> None:
    file = make_pdf("a.pdf")
    before = probe(file)
    assert reusable(before, stat_file(str(file)))
    os.utime(file, ns=(0, before.mtime_ns + 1))
    assert not reusable(before, stat_file(str(file)))
    os.utime(file, ns=(0, before.mtime_ns))
    assert reusable(before, stat_file(str(file)))
    file.write_bytes(file.read_bytes() + b"\n")
    os.utime(file, ns=(0, before.mtime_ns))
    assert not reusable(before, stat_file(str(file)))
    empty = file.with_name("empty.pdf")
    empty.touch()
    assert not reusable(probe(empty), stat_file(str(empty)))
