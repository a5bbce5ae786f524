"""WebDataset shards: plain ustar archives written deterministically, and an index to read one page by one `pread`.

Members carry no time, owner or order of chance, so the same corpus has the same bytes on every machine. The headers
are written here rather than by `tarfile` because the offset of every member is known while writing, and because it
is four times as fast; the archives stay plain tars that the stock `webdataset` reads.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from corpus.errors import ConfigError
from corpus.storage import path_of, remote_path
from corpus.store import atomic_file, read_table

BLOCK = 512
MAX_NAME = 100
SUFFIXES = {"jpeg": "jpg", "webp": "webp", "png": "png"}  # of page images, by format


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Where one file of a sample stands. Its bytes are `shard[offset : offset + size]`."""

    shard: str  # file name in the shards folder
    key: str  # sample, `<doc_id>-wNN`
    name: str  # what follows the key and a dot, e.g. "p0000.jpg"
    offset: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFile:
    """One finished archive."""

    shard: str
    num_bytes: int
    sha256: str


def tar_header(name: str, size: int) -> bytes:
    """A ustar header of a regular file: mode 0644, owner 0, time 0.

    Raises:
        ValueError: the name is longer than 100 bytes or not ASCII, or the file is 8 GiB or more.
    """
    encoded = name.encode("ascii")
    if len(encoded) > MAX_NAME or size >= 8**11:
        raise ValueError(f"cannot be a ustar member: {name!r}, {size} bytes")
    head = bytearray(BLOCK)
    head[0 : len(encoded)] = encoded
    head[100:108] = b"0000644\0"
    head[108:116] = head[116:124] = b"0000000\0"
    head[124:136] = b"%011o\0" % size
    head[136:148] = b"00000000000\0"
    head[148:156] = b" " * 8
    head[156:157] = b"0"
    head[257:265] = b"ustar\x0000"
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def write_shards(
    folder: Path, prefix: str, samples: Iterable[tuple[str, Iterable[tuple[str, bytes]]]], max_bytes: int
) -> tuple[list[ShardFile], list[Member]]:
    """Write samples `(key, members (name, bytes))` as `<prefix>-000000.tar` and so on.

    A shard is closed after the sample that takes it past `max_bytes`; every shard appears whole or not at all.
    """
    files: list[ShardFile] = []
    members: list[Member] = []
    remaining = iter(samples)
    sample = next(remaining, None)
    while sample is not None:
        shard = f"{prefix}-{len(files):06d}.tar"
        with atomic_file(folder / shard) as f:
            out = _HashingFile(f)
            while sample is not None and out.offset < max_bytes:
                key, content = sample
                for name, data in content:
                    out.write(tar_header(f"{key}.{name}", len(data)))
                    members.append(Member(shard=shard, key=key, name=name, offset=out.offset, size=len(data)))
                    out.write(data)
                    out.write(bytes(-len(data) % BLOCK))
                sample = next(remaining, None)
            out.write(bytes(2 * BLOCK))
        files.append(ShardFile(shard=shard, num_bytes=out.offset, sha256=out.sha256.hexdigest()))
    return files, members


class _HashingFile:
    """Counts and hashes what is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.offset = 0
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self.sha256.update(data)
        self.offset += len(data)


def page_name(page: int, image_format: str = "jpeg") -> str:
    """Member name of a page image; `page` is the document's page index."""
    return f"p{page:04d}.{SUFFIXES[image_format]}"


def image_name(index: int, image_format: str = "jpeg") -> str:
    """Member name of an image of a conversation; `index` counts from 0."""
    return f"i{index:04d}.{SUFFIXES[image_format]}"


def dump_json(value: Any) -> bytes:
    """Compact JSON with sorted keys: the same value has the same bytes."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


class ShardReader:
    """Reads members of a run's shards at random: one `pread` or ranged request each.

    Close it, or use it as a context manager.
    """

    def __init__(self, run: str | Path) -> None:
        self._folder = path_of(run) / "shards"
        index = self._folder / "index.parquet"
        if not index.is_file():
            raise ConfigError(f"{run} has no shards/index.parquet; finish its build first")
        table = read_table(index, columns=["shard", "key", "name", "offset", "size"])
        columns = [table.column(c).to_pylist() for c in ("shard", "key", "name", "offset", "size")]
        self._where: dict[str, dict[str, tuple[str, int, int]]] = {}
        for shard, key, name, offset, size in zip(*columns, strict=True):
            self._where.setdefault(key, {})[name] = (shard, offset, size)
        self._open: dict[str, int] = {}

    def __enter__(self) -> ShardReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def close(self) -> None:
        """Close every open shard."""
        for fd in self._open.values():
            os.close(fd)
        self._open = {}

    def names(self, key: str) -> list[str]:
        """Members of a sample, in the order of the archive."""
        return list(self._find(key))

    def read(self, key: str, name: str) -> bytes:
        """The bytes of one member.

        Raises:
            ConfigError: there is no such sample or member.
        """
        members = self._find(key)
        if name not in members:
            raise ConfigError(f"sample {key} has no member {name!r}; it has {', '.join(list(members)[:5])}, ...")
        shard, offset, size = members[name]
        remote = remote_path(self._folder)
        if remote is not None:
            return (remote / shard).read_range(offset, size)
        if shard not in self._open:
            self._open[shard] = os.open(self._folder / shard, os.O_RDONLY)
        return os.pread(self._open[shard], size, offset)

    def read_page(self, key: str, page: int) -> bytes:
        """The image file of a page, whatever its format; `page` is the document's page index.

        Raises:
            ConfigError: there is no such sample or page.
        """
        return self._read_any(key, [page_name(page, image_format) for image_format in SUFFIXES])

    def read_image(self, key: str, index: int) -> bytes:
        """The file of an image of a conversation, whatever its format; `index` counts from 0.

        Raises:
            ConfigError: there is no such sample or image.
        """
        return self._read_any(key, [image_name(index, image_format) for image_format in SUFFIXES])

    def read_json(self, key: str, name: str) -> Any:
        """One JSON member, decoded."""
        return json.loads(self.read(key, name))

    def _read_any(self, key: str, names: list[str]) -> bytes:
        members = self._find(key)
        return self.read(key, next((name for name in names if name in members), names[0]))

    def _find(self, key: str) -> dict[str, tuple[str, int, int]]:
        if key not in self._where:
            raise ConfigError(f"no sample {key!r} in {self._folder}")
        return self._where[key]
