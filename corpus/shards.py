"""WebDataset shards: plain ustar archives written deterministically, and read at random by one `pread`.

Members carry no time, owner or order of chance, so the same corpus has the same bytes on every machine. The headers
are written here rather than by `tarfile` because the offset of every member is known while writing, and because it
leaves the bytes where they are: headers, members and padding go to the system by one `writev` a few pages at a time,
uncopied. The checksum is XXH3-128, made on the way: SHA-256 runs at 1 GB/s and would bound the disk. The archives stay
plain tars that the stock `webdataset` reads. See `docs/design/0016-shards.md` for what was measured.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import xxhash

from corpus.errors import ConfigError, EngineError
from corpus.shard_index import Member, Shard, ShardFile, ShardIndex
from corpus.storage import BLOCK_BYTES, RemoteError, RemotePath, path_of, remote_path
from corpus.store import atomic_file

BLOCK = 512
MAX_NAME = 100
BUFFER_BYTES = 1 << 20  # held before they are written; see the design note
BUFFER_PIECES = 768  # a system takes 1,024 pieces at once
MAX_OPEN = 128  # archives that a reader keeps open; a process may often have no more than 1,024 files
SUFFIXES = {"jpeg": "jpg", "webp": "webp", "png": "png"}  # of page images, by format

_MODE_AND_OWNER = b"0000644\0" + 2 * b"0000000\0"
_TIME = b"\0" + b"00000000000\0"  # after the end of the size
_MAGIC = b"ustar\x0000"
_SUM_OF_THE_REST = sum(_TIME + 8 * b" " + b"0" + _MAGIC)


def tar_header(name: str, size: int) -> bytes:
    """A ustar header of a regular file: mode 0644, owner 0, time 0.

    Raises:
        ValueError: the name is longer than 100 bytes, not ASCII or has a NUL, or the file is 8 GiB or more.
    """
    encoded = name.encode("ascii")
    if len(encoded) > MAX_NAME or b"\0" in encoded or size >= 8**11:
        raise ValueError(f"cannot be a ustar member: {name!r}, {size} bytes")
    start = _header_start(encoded, size)
    checksum = b"%06o\0 " % (sum(start) + _SUM_OF_THE_REST)
    head = b"".join((start, _TIME, checksum, b"0")).ljust(257, b"\0")
    return (head + _MAGIC).ljust(BLOCK, b"\0")


def _header_start(name: bytes, size: int) -> bytes:
    """What tells a member's header from those of others."""
    return b"%b%b%011o" % (name.ljust(MAX_NAME, b"\0"), _MODE_AND_OWNER, size)


def write_shards(
    folder: Path, prefix: str, samples: Iterable[tuple[str, Iterable[tuple[str, bytes]]]], max_bytes: int
) -> tuple[list[ShardFile], list[Member]]:
    """Write samples `(key, members (name, bytes))` as `<prefix>-000000.tar` and so on.

    A shard is closed after the sample that takes it past `max_bytes`; every shard appears whole or not at all. In
    memory are `BUFFER_BYTES` and one member.
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
            out.flush()
        files.append(ShardFile(shard=shard, num_bytes=out.offset, xxh128=out.checksum.hexdigest()))
    return files, members


class _HashingFile:
    """Counts and hashes what is written, and writes it past the buffer of `file`, many pieces at once."""

    def __init__(self, file: IO[bytes]) -> None:
        self._fd = file.fileno()
        self._pieces: list[bytes | memoryview] = []
        self._written = 0
        self.offset = 0
        self.checksum = xxhash.xxh3_128()

    def write(self, data: bytes) -> None:
        self._pieces.append(data)
        self.offset += len(data)
        if self.offset - self._written >= BUFFER_BYTES or len(self._pieces) >= BUFFER_PIECES:
            self.flush()

    def flush(self) -> None:
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            self.checksum.update(piece)
        while self._written < self.offset:
            count = os.writev(self._fd, pieces)
            self._written += count
            pieces = _after(pieces, count)


def _after(pieces: Sequence[bytes | memoryview], count: int) -> list[bytes | memoryview]:
    """What is left of `pieces` after their first `count` bytes; a system may take less than it was given."""
    left: list[bytes | memoryview] = []
    for piece in pieces:
        if count < len(piece):
            left.append(memoryview(piece)[count:] if count else piece)
        count = max(0, count - len(piece))
    return left


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


def find_page(names: Container[str], page: int) -> str:
    """The name among `names` of a page image, whatever its format; that of a JPEG where there is none."""
    wanted = [page_name(page, image_format) for image_format in SUFFIXES]
    return next((name for name in wanted if name in names), wanted[0])


class ShardReader:
    """Reads members of a run's shards at random: one `pread` or ranged request each, or for many that are neighbours.

    Every read checks that the archive holds what the index says: its size when it is opened, each member's header,
    and the number of bytes that came. What was read is not hashed; `corpus lint` does that.

    Threads may share it, since no read moves a position. A forked process shares its index and descriptors; a pickled
    copy opens the run for itself. At most `MAX_OPEN` archives are open, those used last. Close it, or use it as a
    context manager.
    """

    def __init__(self, run: str | Path) -> None:
        """Open a run, by path or URL.

        Raises:
            ConfigError: it has no index of shards.
            EngineError: the index is damaged.
        """
        self._run = run
        self._folder = path_of(run) / "shards"
        index = self._folder / "index.parquet"
        if not index.is_file():
            raise ConfigError(f"{run} has no shards/index.parquet; finish its build first")
        self._index = ShardIndex(index)
        self._open = functools.lru_cache(MAX_OPEN)(functools.partial(_open, self._folder))

    def __reduce__(self) -> tuple[type[ShardReader], tuple[str | Path]]:
        return ShardReader, (self._run,)

    def __enter__(self) -> ShardReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def close(self) -> None:
        """Close every open shard, once nobody reads it; a later read opens it again."""
        self._open.cache_clear()

    def names(self, key: str) -> list[str]:
        """Members of a sample, in the order of the archive."""
        return [name for name, _, _ in self._index.members(self._find(key))]

    def read(self, key: str, name: str) -> bytes:
        """The bytes of one member.

        Raises:
            ConfigError: there is no such sample or member.
            EngineError: the shard is missing, cut off, or not the one that was indexed.
        """
        sample = self._find(key)
        place = self._index.member(sample, name)
        if place is None:
            raise self._no_member(key, name)
        return self._read_one(sample, key, name, *place)

    def read_page(self, key: str, page: int) -> bytes:
        """The image file of a page, whatever its format; `page` is the document's page index.

        Raises:
            ConfigError: there is no such sample or page.
            EngineError: as `read`.
        """
        return self._read_any(key, (page_name(page, image_format) for image_format in SUFFIXES))

    def read_image(self, key: str, index: int) -> bytes:
        """The file of an image of a conversation, whatever its format; `index` counts from 0.

        Raises:
            ConfigError: there is no such sample or image.
            EngineError: as `read`.
        """
        return self._read_any(key, (image_name(index, image_format) for image_format in SUFFIXES))

    def read_pages(self, key: str, pages: Iterable[int]) -> list[memoryview]:
        """The image files of pages, in the order asked for; as `read_members`.

        Raises:
            ConfigError, EngineError: as `read_page`.
        """
        present = frozenset(self.names(key))
        return self.read_members(key, [find_page(present, page) for page in pages])

    def read_members(self, key: str, names: Sequence[str]) -> list[memoryview]:
        """Some members of a sample, in the order asked for; neighbours in the archive are read at once.

        A view keeps the bytes of all that were read with it.

        Raises:
            ConfigError, EngineError: as `read`.
        """
        sample = self._find(key)
        members = self._index.members(sample)
        rows = {name: row for row, (name, _, _) in enumerate(members)}
        missing = [name for name in names if name not in rows]
        if missing:
            raise self._no_member(key, missing[0])
        wanted = sorted({rows[name] for name in names})
        borders = [0, *(i for i in range(1, len(wanted)) if wanted[i] != wanted[i - 1] + 1), len(wanted)]
        found: dict[str, memoryview] = {}
        for begin, end in zip(borders, borders[1:], strict=False):
            if begin < end:
                found |= self._read_range(sample, key, members[wanted[begin] : wanted[end - 1] + 1])
        return [found[name] for name in names]

    def read_window(self, key: str) -> dict[str, memoryview]:
        """Every member of a sample by name, in the order of the archive, by one read. A view keeps them all.

        Raises:
            ConfigError, EngineError: as `read`.
        """
        sample = self._find(key)
        return self._read_range(sample, key, self._index.members(sample))

    def read_json(self, key: str, name: str) -> Any:
        """One JSON member, decoded."""
        return json.loads(self.read(key, name))

    def _find(self, key: str) -> int:
        try:
            return self._index.sample(key)
        except KeyError:
            raise ConfigError(f"no sample {key!r} in {self._folder}") from None

    def _read_any(self, key: str, names: Iterable[str]) -> bytes:
        """The first of these members that is there."""
        sample = self._find(key)
        tried = []
        for name in names:
            place = self._index.member(sample, name)
            if place is not None:
                return self._read_one(sample, key, name, *place)
            tried.append(name)
        raise self._no_member(key, tried[0])

    def _no_member(self, key: str, name: str) -> ConfigError:
        return ConfigError(f"sample {key} has no member {name!r}; it has {', '.join(self.names(key)[:5])}, ...")

    def _read_one(self, sample: int, key: str, name: str, offset: int, size: int) -> bytes:
        file = self._index.shard(sample)
        archive = self._open(file)
        header, data = archive.read_member(offset, size, f"{key}.{name}")
        self._check(file, key, name, header, size)
        return data

    def _read_range(self, sample: int, key: str, members: Sequence[tuple[str, int, int]]) -> dict[str, memoryview]:
        """Members that stand side by side."""
        file = self._index.shard(sample)
        begin = members[0][1] - BLOCK
        _, offset, size = members[-1]
        view = memoryview(self._open(file).read(begin, offset + size - begin, key))
        for name, offset, size in members:
            self._check(file, key, name, view[offset - BLOCK - begin : offset - begin], size)
        return {name: view[offset - begin : offset - begin + size] for name, offset, size in members}

    def _check(self, file: Shard, key: str, name: str, header: bytes | memoryview, size: int) -> None:
        """Raises `EngineError` where this is not the header of that member."""
        start = _header_start(f"{key}.{name}".encode(), size)
        if header[: len(start)] != start:
            raise _damaged(self._folder / file.name, f"it does not hold {key}.{name} where the index says")


def _damaged(file: Path | RemotePath, why: str) -> EngineError:
    """An archive that is not the one that was indexed."""
    return EngineError(
        f"{file} is damaged or was replaced: {why}; copy the run anew, or delete this file and run the same "
        "`corpus build` again"
    )


class _Archive(Protocol):
    """An open archive. `what` is named in errors."""

    def read(self, offset: int, size: int, what: str) -> bytes:
        """`size` bytes from `offset`."""

    def read_member(self, offset: int, size: int, what: str) -> tuple[bytes, bytes]:
        """The header of the member that begins at `offset`, and its bytes."""


def _open(folder: Path, shard: Shard) -> _Archive:
    remote = remote_path(folder)
    return _RemoteArchive(remote / shard.name) if remote else _LocalArchive(folder / shard.name, shard.num_bytes)


class _LocalArchive:
    """A descriptor that is closed when nobody reads it any more, not when another thread needs the place."""

    def __init__(self, file: Path, num_bytes: int) -> None:
        self._file = file
        try:
            self._fd = os.open(file, os.O_RDONLY)
        except OSError as e:
            raise _damaged(file, e.strerror or str(e)) from None
        found = os.fstat(self._fd).st_size
        if found != num_bytes:
            raise _damaged(file, f"it has {found} bytes, the index says {num_bytes}")

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            os.close(self._fd)

    def read(self, offset: int, size: int, what: str) -> bytes:
        data = os.pread(self._fd, size, offset)
        while len(data) < size:  # a system reads 2 GiB at most
            more = os.pread(self._fd, size - len(data), offset + len(data))
            if not more:
                raise _damaged(self._file, f"it ends within {what}")
            data += more
        return data

    def read_member(self, offset: int, size: int, what: str) -> tuple[bytes, bytes]:
        return self.read(offset - BLOCK, BLOCK, what), self.read(offset, size, what)


class _RemoteArchive:
    """An archive behind a URL; a ranged request for at most `BLOCK_BYTES`."""

    def __init__(self, file: RemotePath) -> None:
        self._file = file

    def read(self, offset: int, size: int, what: str) -> bytes:
        begins = range(offset, offset + size, BLOCK_BYTES)
        try:
            return b"".join(self._file.read_range(b, min(BLOCK_BYTES, offset + size - b)) for b in begins)
        except FileNotFoundError as e:
            raise _damaged(self._file, str(e.strerror)) from None
        except RemoteError as e:
            raise RemoteError(f"{what}: {e}", e.why) from None

    def read_member(self, offset: int, size: int, what: str) -> tuple[bytes, bytes]:
        data = self.read(offset - BLOCK, BLOCK + size, what)
        return data[:BLOCK], data[BLOCK:]
