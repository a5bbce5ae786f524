"""The index of a run's shards: a Parquet table of every member, and the same as arrays to find one in microseconds.

Every worker of every data loader opens the index, so it must open fast and stay small. Rows as Python tuples in dicts
take 330 bytes a member; the arrays here take about 10, because the members of a sample stand side by side: a key, a
shard and a 64-bit offset once a sample, and 16- or 32-bit numbers a member. Samples are found by bisection in sorted
keys. Arrays hold no Python objects, so forked workers go on sharing them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.errors import EngineError
from corpus.store import parquet_source, schema_of

BATCH_ROWS = 65_536  # of the table, in memory while it is read
WIDTHS = (np.uint16, np.uint32)  # of the numbers of a member, where they fit


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
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
            self._load(pq.ParquetFile(parquet_source(file), read_dictionary=["shard", "key", "name"]))
        except (pa.ArrowException, KeyError, ValueError) as e:
            reason = str(e).partition("\n")[0]
            raise EngineError(f"{file} is damaged: {reason}; run the same `corpus build` again") from None

    def _load(self, file: pq.ParquetFile) -> None:
        names: dict[str, int] = {}
        shards: dict[str, Shard] = {}
        numbers: dict[str, int] = {}  # of shards
        parts = _Parts()
        rows = 0
        last: tuple[str, str, int] = ("", "", 0)  # key, shard and offset of the sample that the batch before ended in
        columns = ["shard", "key", "name", "offset", "size", "shard_bytes"]
        for batch in file.iter_batches(BATCH_ROWS, columns=columns, use_threads=False):
            if not len(batch):
                continue
            key, shard, name = (_codes(batch.column(c)) for c in ("key", "shard", "name"))
            offset, size, num_bytes = (batch.column(c).to_numpy() for c in ("offset", "size", "shard_bytes"))
            begins = (key.codes[1:] != key.codes[:-1]) | (shard.codes[1:] != shard.codes[:-1])
            first = np.concatenate([[0], np.flatnonzero(begins) + 1])
            start = offset[first]
            for code in np.unique(shard.codes[first]):
                text = shard.values[code]
                if text not in numbers:
                    where = first[np.argmax(shard.codes[first] == code)]
                    numbers[text] = len(numbers)
                    shards[text] = Shard(name=text, num_bytes=int(num_bytes[where]))
            goes_on = last[:2] == (key.values[key.codes[0]], shard.values[shard.codes[0]])
            if goes_on:
                start[0] = last[2]
            last = (key.values[key.codes[-1]], shard.values[shard.codes[-1]], int(start[-1]))
            parts.offset.append(_narrow(offset - np.repeat(start, np.diff(np.append(first, len(batch))))))
            parts.size.append(_narrow(size))
            parts.name.append(_narrow(_renumber(name, names)))
            fresh = slice(1 if goes_on else 0, None)
            if len(first[fresh]):
                parts.key.append(np.array([k.encode() for k in key.values])[key.codes[first[fresh]]])
                parts.first.append(rows + first[fresh])
                parts.start.append(start[fresh])
                shard_numbers = np.array([numbers.get(s, 0) for s in shard.values])
                parts.shard.append(_narrow(shard_numbers[shard.codes[first[fresh]]]))
            rows += len(batch)
        self._names, self._codes = list(names), names
        self._shards = list(shards.values())
        self._offset, self._size, self._name = (np.concatenate(p) for p in (parts.offset, parts.size, parts.name))
        keys, first, start, shard_of = (np.concatenate(p) for p in (parts.key, parts.first, parts.start, parts.shard))
        end = np.append(first, rows)[1:]
        if not (keys[1:] > keys[:-1]).all():
            order = np.argsort(keys, kind="stable")
            keys, first, start, shard_of, end = (a[order] for a in (keys, first, start, shard_of, end))
            if len(twice := np.flatnonzero(keys[1:] == keys[:-1])):
                raise ValueError(f"sample {keys[twice[0]].decode()} stands in it in two places")
        self._keys, self._start, self._shard, self._first, self._end = keys, start, shard_of, first, end

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        """Keys, in the order of the archives."""
        return (self._keys[i].decode() for i in np.argsort(self._first))

    @property
    def num_bytes(self) -> int:
        """Bytes that the arrays take."""
        arrays = (self._keys, self._start, self._shard, self._first, self._end, self._offset, self._size, self._name)
        return sum(a.nbytes for a in arrays)

    def find(self, key: str) -> int | None:
        """The number of a sample, None where there is no such key."""
        wanted = key.encode("utf-8", "replace")
        number = bisect_left(self._keys, wanted)
        return number if number < len(self._keys) and self._keys[number] == wanted else None

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


class _Parts:
    """Arrays of each batch, joined at the end; they begin empty, so that an empty table has arrays too."""

    def __init__(self) -> None:
        numbers = np.empty(0, np.uint16)
        self.key = [np.empty(0, "S1")]
        self.start, self.first = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        self.shard, self.offset, self.size, self.name = [numbers], [numbers], [numbers], [numbers]


@dataclass(frozen=True, slots=True)
class _Codes:
    """A column of text: row i is `values[codes[i]]`. The same text has one code."""

    codes: np.ndarray
    values: list[str]


def _codes(column: pa.Array) -> _Codes:
    column = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    if column.null_count:
        raise ValueError("a name is missing in it")
    return _Codes(column.indices.to_numpy(), column.dictionary.to_pylist())


def _renumber(column: _Codes, known: dict[str, int]) -> np.ndarray:
    """The codes of a column by `known`, which learns the names that are new."""
    return np.array([known.setdefault(value, len(known)) for value in column.values])[column.codes]


def _narrow(numbers: np.ndarray) -> np.ndarray:
    """The same numbers in the least of `WIDTHS` that holds them, else as they are."""
    limits = [np.iinfo(width).max for width in WIDTHS]
    fitting = [w for w, limit in zip(WIDTHS, limits, strict=True) if 0 <= numbers.min() and numbers.max() <= limit]
    return numbers.astype(fitting[0]) if fitting else numbers
