"""The index of a run's shards: a Parquet table of every member, and the same as arrays to find one in microseconds.

Every worker of every data loader opens the index, so it must open fast and stay small. Rows as Python objects in
dicts take hundreds of bytes a member; the arrays here take 11, because the members of a sample stand side by side: a
key, a shard and a 64-bit offset once a sample, and 16- or 32-bit numbers a member. Samples are found by bisection in
sorted keys. Arrays hold no Python objects, so forked workers go on sharing their memory.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.errors import EngineError
from corpus.store import parquet_source, schema_of

BATCH_ROWS = 65_536  # of the table, in memory while it is read
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Where one file of a sample stands. Its bytes are `shard[offset : offset + size]`, after a header of 512."""

    shard: str  # file name in the shards folder
    key: str  # sample, `<doc_id>-wNN`
    name: str  # what follows the key and a dot, e.g. "p0000.jpg"
    offset: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFile:
    """One finished archive. `xxh128` is the hex of its XXH3-128, as `xxhsum -H2` prints it."""

    shard: str
    num_bytes: int
    xxh128: str


def index_schema() -> pa.Schema:
    """Columns of `shards/index.parquet`: those of `Member`, then size and checksum of the member's shard."""
    return pa.schema([*schema_of(Member), pa.field("shard_bytes", pa.int64()), pa.field("shard_xxh128", pa.string())])


def index_table(files: Sequence[ShardFile], members: Sequence[Member]) -> pa.Table:
    """The index of finished archives: a row a member, in the order of the archives."""
    of = {f.shard: f for f in files}
    columns: list[list[Any]] = [[getattr(m, name) for m in members] for name in schema_of(Member).names]
    columns += [[of[m.shard].num_bytes for m in members], [of[m.shard].xxh128 for m in members]]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, index_schema(), strict=True)]
    return pa.Table.from_arrays(arrays, schema=index_schema())


class Shard(NamedTuple):
    """An archive as the index knows it."""

    name: str
    num_bytes: int


class ShardIndex:
    """Samples and their members, by number. Read-only; safe to share by threads and forked processes."""

    def __init__(self, file: Path) -> None:
        """Read `shards/index.parquet`, a batch of rows at a time.

        Raises:
            EngineError: it is damaged.
        """
        try:
            self._load(pq.ParquetFile(parquet_source(file), read_dictionary=["shard", "key", "name"], pre_buffer=False))
        except (pa.ArrowException, KeyError, ValueError) as e:
            reason = str(e).partition("\n")[0]
            raise EngineError(f"{file} is damaged: {reason}; run the same `corpus build` again") from None

    def _load(self, file: pq.ParquetFile) -> None:
        names: dict[str, int] = {}  # text -> number
        shards: dict[str, int] = {}
        shard_bytes: dict[int, int] = {}  # number of a shard -> size
        self._offset, self._size = (np.empty(file.metadata.num_rows, np.uint32) for _ in range(2))
        self._name = np.empty(file.metadata.num_rows, np.uint16)
        keys, starts, firsts = [np.empty(0, "S1")], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        shards_of = [np.empty(0, np.uint16)]
        rows = 0
        columns = ["shard", "key", "name", "offset", "size", "shard_bytes"]
        for batch in file.iter_batches(BATCH_ROWS, columns=columns, use_threads=False):
            if not len(batch):
                continue
            key, shard, name = (_coded(batch.column(c)) for c in ("key", "shard", "name"))
            offset, size, num_bytes = (batch.column(c).to_numpy() for c in ("offset", "size", "shard_bytes"))
            begins = (key.codes[1:] != key.codes[:-1]) | (shard.codes[1:] != shard.codes[:-1])
            first = np.concatenate([[0], np.flatnonzero(begins) + 1])
            start, key_of, shard_of = offset[first], key.bytes_of(first), shard.renumbered(shards)[first]
            for number, at in zip(*np.unique(shard_of, return_index=True), strict=True):
                shard_bytes.setdefault(int(number), int(num_bytes[first[at]]))
            goes_on = bool(rows) and (keys[-1][-1], shards_of[-1][-1]) == (key_of[0], shard_of[0])
            if goes_on:  # the batch begins within a sample
                start[0] = starts[-1][-1]
            distance = offset - np.repeat(start, np.diff(np.append(first, len(batch))))
            self._offset = _put(self._offset, rows, distance)
            self._size = _put(self._size, rows, size)
            self._name = _put(self._name, rows, name.renumbered(names))
            if len(first) > goes_on:
                new = slice(int(goes_on), None)
                keys.append(key_of[new])
                starts.append(start[new])
                firsts.append(rows + first[new])
                shards_of.append(shard_of[new])
            rows += len(batch)
        self._names, self._codes = list(names), names
        self._shards = [Shard(name=text, num_bytes=shard_bytes[number]) for text, number in shards.items()]
        self._keys, self._start, self._first = np.concatenate(keys), np.concatenate(starts), np.concatenate(firsts)
        self._shard = np.concatenate(shards_of)
        self._end = np.append(self._first, rows)[1:]
        if not (self._keys[1:] > self._keys[:-1]).all():
            self._sort()

    def _sort(self) -> None:
        order = np.argsort(self._keys, kind="stable")
        self._keys, self._start, self._shard = self._keys[order], self._start[order], self._shard[order]
        self._first, self._end = self._first[order], self._end[order]
        twice = np.flatnonzero(self._keys[1:] == self._keys[:-1])
        if len(twice):
            raise ValueError(f"sample {self._keys[twice[0]].decode()} stands in it in two places")

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        """Keys, in the order of the archives."""
        return (self._keys[i].decode() for i in np.argsort(self._first))

    @property
    def num_bytes(self) -> int:
        """Bytes that the arrays take, texts aside."""
        arrays = (self._keys, self._start, self._shard, self._first, self._end, self._offset, self._size, self._name)
        return sum(a.nbytes for a in arrays)

    def sample(self, key: str) -> int:
        """The number of a sample.

        Raises:
            KeyError: there is no such key.
        """
        wanted = key.encode("utf-8", "replace")
        number = bisect_left(self._keys, wanted)
        if number == len(self._keys) or self._keys[number] != wanted:
            raise KeyError(key)
        return number

    def shard(self, sample: int) -> Shard:
        """The archive that holds a sample."""
        return self._shards[int(self._shard[sample])]

    def members(self, sample: int) -> list[tuple[str, int, int]]:
        """Name, offset and size of each member of a sample, in the order of the archive."""
        rows = slice(self._first[sample], self._end[sample])
        names = [self._names[code] for code in self._name[rows].tolist()]
        start = int(self._start[sample])
        offsets = [start + offset for offset in self._offset[rows].tolist()]
        return list(zip(names, offsets, self._size[rows].tolist(), strict=True))

    def member(self, sample: int, name: str) -> tuple[int, int] | None:
        """Offset and size of one member of a sample, None where it has no such member."""
        first = int(self._first[sample])
        try:
            row = first + self._name[first : self._end[sample]].tolist().index(self._codes[name])
        except (KeyError, ValueError):
            return None
        return int(self._start[sample]) + int(self._offset[row]), int(self._size[row])


@dataclass(frozen=True, slots=True)
class _Coded:
    """A column of text: row i is `values[codes[i]]`. The same text has one code."""

    codes: Array
    values: list[str]

    def bytes_of(self, rows: Array) -> Array:
        """The text of some rows, as bytes of one width."""
        return np.array([value.encode() for value in self.values])[self.codes[rows]]

    def renumbered(self, known: dict[str, int]) -> Array:
        """The number of each row's text in `known`, which learns what is new."""
        numbers = np.zeros(len(self.values), np.int64)
        for code in np.flatnonzero(np.bincount(self.codes)):
            numbers[code] = known.setdefault(self.values[code], len(known))
        return np.asarray(numbers[self.codes])


def _coded(column: pa.Array) -> _Coded:
    column = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    if column.null_count:
        raise ValueError("a name is missing")
    return _Coded(column.indices.to_numpy(), column.dictionary.to_pylist())


def _put(array: Array, begin: int, numbers: Array) -> Array:
    """`array` with `numbers` from `begin` on, in 64 bits when they do not fit into its own."""
    limits = np.iinfo(array.dtype)
    if numbers.min() < limits.min or numbers.max() > limits.max:
        array = array.astype(np.int64)
    array[begin : begin + len(numbers)] = numbers
    return array
