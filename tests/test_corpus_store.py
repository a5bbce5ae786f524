"""Files that appear whole or not at all, and records that come back as they went."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import inspect
import os
import subprocess
import sys
import types
import typing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import xxhash
from fakes import block, page, question
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpus import records, store
from corpus.errors import EngineError
from corpus.records import Evidence, Page, Question, Table
from corpus.store import (
    atomic_file,
    file_sha256,
    file_xxh128,
    has_digest,
    plain,
    read_records,
    remove_leftovers,
    schema_of,
    write_json,
    write_records,
    write_text,
)

CLASSES = [c for _, c in inspect.getmembers(records, dataclasses.is_dataclass)]
UTF8 = st.text(st.characters(codec="utf-8"), max_size=20)


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Any value that a field of this type may hold."""
    if hint is float:
        return st.floats(allow_nan=False)
    if hint is int:
        return st.integers(-(2**63), 2**63 - 1)
    simple = {str: UTF8, bool: st.booleans()}
    if hint in simple:
        return simple[hint]
    if dataclasses.is_dataclass(hint):
        return st.builds(hint, **{name: values_of(h) for name, h in typing.get_type_hints(hint).items()})
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return st.sampled_from(args)
    if origin is types.UnionType:
        return st.one_of(*(st.none() if a is types.NoneType else values_of(a) for a in args))
    assert origin is tuple, hint
    if args[-1] is Ellipsis:
        return st.lists(values_of(args[0]), max_size=2).map(tuple)
    return st.tuples(*map(values_of, args))


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file that the store opens for writing stands on a device without space."""

    def open_full(_: Any, mode: str) -> Any:
        return open("/dev/full", mode)

    monkeypatch.setattr(store, "open", open_full, raising=False)


def names(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


# ---------------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("record", CLASSES, ids=lambda c: c.__name__)
def test_records_come_back_equal(record: type, tmp_path: Path) -> None:
    file = tmp_path / "records.parquet"
    seen = []

    @settings(max_examples=15)
    @given(st.lists(values_of(record), max_size=3))
    def check(rows: list[Any]) -> None:
        write_records(file, record, rows)
        assert read_records(file, record) == rows
        seen.append(len(rows))

    check()
    assert max(seen) > 1


def test_a_missing_box_stays_missing_and_nested_tuples_stay_tuples(tmp_path: Path) -> None:
    table = Table(
        box=(0.0, 0.0, 9.0, 9.0),
        columns=("2022", "2023"),
        column_boxes=((1.0, 0.0, 2.0, 1.0), (3.0, 0.0, 4.0, 1.0)),
        rows=(),
        anchor_box=None,
    )
    rows = [page(0, "Ünïcödé 数字 🜁", tables=(table,)), page(1)]
    write_records(tmp_path / "p.parquet", Page, rows)
    back = read_records(tmp_path / "p.parquet", Page)
    assert back == rows
    assert back[0].tables[0].anchor_box is None
    assert back[0].tables[0].column_boxes[1] == (3.0, 0.0, 4.0, 1.0)
    assert back[1].blocks == ()


def test_a_lone_surrogate_becomes_a_question_mark(tmp_path: Path) -> None:
    write_records(tmp_path / "p.parquet", Page, [page(0, block("a\ud800b"))])
    assert read_records(tmp_path / "p.parquet", Page) == [page(0, "a?b")]
    write_json(tmp_path / "a.json", {"name": "caf\udce9"})
    assert (tmp_path / "a.json").read_text() == '{\n  "name": "caf?"\n}\n'
    write_text(tmp_path / "a.txt", "caf\udce9")
    assert (tmp_path / "a.txt").read_text() == "caf?"


def test_records_can_be_read_by_a_filter(tmp_path: Path) -> None:
    rows = [page(i, doc_id=doc_id) for doc_id in ("aa", "bb") for i in range(3)]
    write_records(tmp_path / "p.parquet", Page, rows)
    assert read_records(tmp_path / "p.parquet", Page, filters=[("doc_id", "=", "bb")]) == rows[3:]


def test_a_schema_has_the_fields_of_its_record_in_order() -> None:
    assert schema_of(Question).names == [f.name for f in dataclasses.fields(Question)]
    assert str(schema_of(Evidence).field("box").type).startswith("list<")


def test_a_record_is_dicts_and_lists_for_json() -> None:
    evidence = Evidence(page=0, kind="Text", quote="x", box=(0.0, 1.0, 2.0, 3.0))
    assert plain(evidence) == {"page": 0, "kind": "Text", "quote": "x", "box": [0.0, 1.0, 2.0, 3.0]}


def test_the_same_records_have_the_same_bytes(tmp_path: Path) -> None:
    rows = [question(question_id=f"q{i}") for i in range(50)]
    write_records(tmp_path / "a.parquet", Question, rows)
    write_records(tmp_path / "b" / "c.parquet", Question, iter(rows))
    write_records(tmp_path / "d.parquet", Question, rows[:-1])
    assert file_sha256(tmp_path / "a.parquet") == file_sha256(tmp_path / "b" / "c.parquet")
    assert file_sha256(tmp_path / "a.parquet") != file_sha256(tmp_path / "d.parquet")


def test_json_keeps_the_order_of_its_keys_and_its_letters(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": "ü", "a": [1]})
    assert (tmp_path / "a.json").read_text() == '{\n  "b": "ü",\n  "a": [\n    1\n  ]\n}\n'


# --------------------------------------------------------------------------------------------- whole or not at all


def test_a_file_is_seen_only_when_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.bin"
    with atomic_file(file) as f:
        f.write(b"half")
        f.flush()
        assert not file.exists()
    assert file.read_bytes() == b"half"
    assert names(tmp_path) == {"new", "new/a.bin"}


def test_who_reads_the_old_file_reads_it_to_its_end(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"old")
    with open(file, "rb") as reader:
        with atomic_file(file) as f:
            f.write(b"new and longer")
        assert reader.read() == b"old"
    assert file.read_bytes() == b"new and longer"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"old")
    with pytest.raises(KeyError), atomic_file(file) as f:
        f.write(b"new")
        raise KeyError("x")
    assert file.read_bytes() == b"old"
    assert names(tmp_path) == {"a.bin"}


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("rows", [1, 5_000])
def test_a_full_disk_is_named_with_the_path_and_a_way_out(tmp_path: Path, rows: int) -> None:
    file = tmp_path / "questions.parquet"
    questions = [question(question_id=hashlib.sha256(b"%d" % i).hexdigest()) for i in range(rows)]
    with pytest.raises(EngineError, match=r"No space left on device; free some space and run") as e:
        write_records(file, Question, questions)
    assert str(file) in str(e.value)
    assert "\n" not in str(e.value)
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("number", "way_out"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EROFS, "check its permissions"),
        (errno.EACCES, "check its permissions"),
    ],
)
def test_a_disk_that_refuses_at_the_end_is_an_engine_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, way_out: str
) -> None:
    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(EngineError, match=way_out):
        write_json(tmp_path / "a.json", {})
    assert names(tmp_path) == set()


def test_leftovers_of_a_killed_run_are_removed_and_nothing_else(tmp_path: Path) -> None:
    killed = tmp_path / "pages"
    killed.mkdir()
    dies = "import os, pathlib, sys\nfrom corpus.store import atomic_file\n"
    dies += "with atomic_file(pathlib.Path(sys.argv[1])) as f:\n    f.write(b'half'); os._exit(1)"
    subprocess.run([sys.executable, "-c", dies, str(killed / "p0000.parquet")], check=False)
    assert len(names(killed)) == 1
    (tmp_path / "notes.tmp").write_bytes(b"not ours")
    (killed / "p0001.parquet").write_bytes(b"whole")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == {"pages", "pages/p0001.parquet", "notes.tmp"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(data=st.binary(max_size=100))
def test_a_digest_is_that_of_the_bytes(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    sha256, xxh128 = hashlib.sha256(data).hexdigest(), xxhash.xxh3_128_hexdigest(data)
    assert (file_sha256(tmp_path / "x"), file_xxh128(tmp_path / "x")) == (sha256, xxh128)
    assert has_digest(tmp_path / "x", sha256) and has_digest(tmp_path / "x", f"xxh128:{xxh128}")
    for wrong in (xxh128, f"xxh128:{sha256}", hashlib.sha256(data + b"!").hexdigest(), ""):
        assert not has_digest(tmp_path / "x", wrong)


def test_the_digest_of_nothing_is_the_published_one(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    assert file_xxh128(tmp_path / "x") == "99aa06d3014798d86001c324468d497f"  # what `xxhsum -H2` prints


def test_a_parquet_file_is_readable_by_anybody(tmp_path: Path) -> None:
    write_records(tmp_path / "q.parquet", Question, [question()])
    assert pq.read_table(tmp_path / "q.parquet")["answer"].to_pylist() == ["1,234"]
