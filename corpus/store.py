"""Records on disk: Parquet and JSON files that appear whole or not at all.

A file is written under a temporary name in its own folder, fsynced and renamed, so a reader never sees half of
one and a kill leaves at most a `.tmp` file that the next run removes. Behind a URL, it is written into an unnamed local
file, which a kill takes with it, and then uploaded at once. Arrow schemas are derived from the
dataclasses of `corpus.records`: the record is the one definition of its columns.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import os
import tempfile
import types
import typing
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from corpus.errors import EngineError
from corpus.storage import RemotePath, cache_folder, remote_path

T = TypeVar("T")

TMP_SUFFIX = ".tmp"


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path`; on success fsync it and rename it to `path`, or upload it.

    Raises:
        EngineError: the system refuses: a full disk, a folder that cannot be written to, a store that cannot be had.
    """
    remote = remote_path(path)
    if remote is not None:
        with _uploaded_file(remote) as f:
            yield f
        return
    tmp = path.with_name(f".{path.name}.{os.getpid()}{TMP_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(tmp, "wb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(tmp, path)
        fsync_folder(path.parent)
    except OSError as e:
        raise EngineError(disk_message(path, e)) from e
    finally:
        with contextlib.suppress(OSError):
            tmp.unlink(missing_ok=True)


@contextmanager
def _uploaded_file(remote: RemotePath) -> Iterator[IO[bytes]]:
    folder = cache_folder(remote.settings) / "upload"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder) as f:
            yield f
            f.flush()
            remote.upload(f"/dev/fd/{f.fileno()}")
    except OSError as e:
        if e.filename == remote.url:
            raise EngineError(f"cannot write {remote}: {e.strerror}; is its bucket there?") from None
        raise EngineError(disk_message(folder, e)) from e


def disk_message(path: Path, error: OSError) -> str:
    """One line on a disk that refuses a write, with the way out."""
    way_out = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check its permissions"
    why = os.strerror(error.errno) if error.errno else str(error)
    return f"cannot write {path}: {why}; {way_out} and run the same command again"


def fsync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files that a killed run left below `folder`."""
    for tmp in folder.rglob(f".*{TMP_SUFFIX}"):
        tmp.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON, keys in the given order."""
    with atomic_file(path) as f:
        f.write((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "replace"))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text; lone surrogates become '?'."""
    with atomic_file(path) as f:
        f.write(text.encode("utf-8", "replace"))


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def file_xxh128(path: Path) -> str:
    """The XXH3-128 of a file's bytes, in hex, as `xxhsum -H2` prints it: no proof against malice, ten times as fast."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, xxhash.xxh3_128).hexdigest()


def has_digest(path: Path, digest: str) -> bool:
    """True where a file has the digest of a marker: the hex of a SHA-256, or that of an XXH3-128 after `xxh128:`."""
    kind, _, value = digest.rpartition(":")
    return (file_xxh128(path) if kind == "xxh128" else file_sha256(path)) == value


@functools.cache
def schema_of(record: type) -> pa.Schema:
    """The Arrow schema of a record class of `corpus.records`."""
    return pa.schema(_fields(record))


def _fields(record: type) -> list[pa.Field]:
    hints = typing.get_type_hints(record)
    return [pa.field(f.name, _arrow_type(hints[f.name])) for f in dataclasses.fields(record)]


def _arrow_type(hint: Any) -> pa.DataType:
    plain = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    if hint in plain:
        return plain[hint]
    if dataclasses.is_dataclass(hint):
        return pa.struct(_fields(typing.cast(type, hint)))
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return pa.string()
    if origin is types.UnionType:
        return _arrow_type(next(a for a in args if a is not types.NoneType))
    if origin is tuple:
        return pa.list_(_arrow_type(args[0]))
    raise TypeError(f"no Arrow type for {hint!r}")


def to_table(record: type, rows: Iterable[Any]) -> pa.Table:
    """Records as an Arrow table with the schema of their class."""
    return pa.Table.from_pylist([plain(r) for r in rows], schema=schema_of(record))


def plain(value: Any) -> Any:
    """A record as dicts and lists, ready for JSON or Arrow."""
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [plain(v) for v in value]
    if isinstance(value, str):  # a lone surrogate has no UTF-8 form
        return value.encode("utf-8", "replace").decode("utf-8") if not value.isascii() else value
    return value


def write_records(path: Path, record: type, rows: Iterable[Any]) -> None:
    """Write records as one Parquet file; the same records give the same bytes."""
    write_table(path, to_table(record, rows))


def write_table(path: Path, table: pa.Table, dictionary: bool | list[str] = True) -> None:
    """Write an Arrow table as zstd Parquet, whole or not at all.

    `dictionary`: the columns that repeat few values; those of other values are written in half the time without.
    """
    with atomic_file(path) as f:
        pq.write_table(table, f, compression="zstd", row_group_size=65_536, use_dictionary=dictionary)


def read_table(path: Path, **options: Any) -> pa.Table:
    """A Parquet file as an Arrow table; `options` are those of `pyarrow.parquet.read_table`."""
    return pq.read_table(parquet_source(path), **options)


def parquet_source(path: Path) -> Any:
    """What pyarrow reads a file from; it would go to a remote one by its own ways, without our retries."""
    return pa.BufferReader(path.read_bytes()) if remote_path(path) else path


def read_records(path: Path, record: type[T], filters: list[tuple[str, str, Any]] | None = None) -> list[T]:
    """Read records back, all of them or those that pass Parquet `filters` such as `("doc_id", "=", "ab12")`."""
    kind = typing.cast(Any, record)
    build = _builder(kind)
    return [build(row) for row in read_table(path, schema=schema_of(kind), filters=filters).to_pylist()]


def record_from(record: type[T], row: dict[str, Any]) -> T:
    """The record that `plain` turned into `row`."""
    return typing.cast(T, _builder(typing.cast(Any, record))(row))


@functools.cache
def _builder(hint: Any) -> Any:
    """A function from plain Arrow values (dict, list) to the value that `hint` describes."""
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(typing.cast(type, hint))
        builders = {name: _builder(h) for name, h in hints.items()}
        make = typing.cast(Any, hint)
        return lambda row: make(**{k: builders[k](v) for k, v in row.items()})
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        inner = _builder(next(a for a in args if a is not types.NoneType))
        return lambda v: None if v is None else inner(v)
    if origin is tuple:
        item = _builder(args[0])
        return lambda v: tuple(item(x) for x in v or ())
    return lambda v: v
