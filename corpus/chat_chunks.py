"""Chat files to chunks of lines, the unit of work of short data.

A chunk ends after 1,000 lines or 16 MiB, so that several workers share a large file and a kill costs one chunk. It is
known by its bytes: a changed line redoes its chunk, and lines added at the end redo the last one. A line added in the
middle moves every later line to another number, which shards and rejections name, so everything after it is redone.
Files are read in pieces of bounded size, whatever they hold.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from corpus.errors import ConfigError, EngineError
from corpus.storage import is_url

CHUNK_LINES = 1_000
CHUNK_BYTES = 16 * 2**20
MAX_LINE_BYTES = 16 * 2**20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A run of lines of a chat file. Blank lines are none."""

    file: str  # where to read it
    label: str  # what it is called in everything that is written: no path of this machine
    offset: int  # bytes
    num_bytes: int
    first_line: int  # from 1, blank ones counted
    num_lines: int  # blank ones not counted
    sha256: str

    @property
    def folder(self) -> str:
        """What image paths are relative to."""
        return os.path.dirname(os.path.abspath(self.file))


def labelled(files: Sequence[str]) -> dict[str, str]:
    """The label of every file: its name, or as much of the end of its path as no other has.

    Raises:
        ConfigError: a file is a URL, is missing, cannot be read, or is named twice.
    """
    for file in files:
        _check(file)
    paths = {file: Path(os.path.abspath(file)).parts for file in files}
    twice = [file for file, n in Counter(os.path.realpath(f) for f in files).items() if n > 1]
    if twice:
        raise ConfigError(f"mixture.short.files names {twice[0]} twice; name it once")
    labels = {}
    for file, parts in paths.items():
        length = 1
        while sum(p[-length:] == parts[-length:] for p in paths.values()) > 1:
            length += 1
        labels[file] = os.fsencode("/".join(parts[-length:])).decode("utf-8", "backslashreplace")
    return labels


def _check(file: str) -> None:
    if is_url(file):
        raise ConfigError(f"mixture.short.files: {file} is a URL; short data is read from local files")
    try:
        with open(file, "rb", opener=_without_waiting) as f:
            regular = stat.S_ISREG(os.fstat(f.fileno()).st_mode)
    except (OSError, ValueError) as e:
        why = (e.strerror if isinstance(e, OSError) else "") or str(e)
        raise ConfigError(f"mixture.short.files: cannot read {file}: {why}; correct the path") from None
    if not regular:
        raise ConfigError(f"mixture.short.files: {file} is not a regular file; name a JSONL file")


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a named pipe would wait for somebody to write


def chunks_of(file: str, label: str) -> Iterator[Chunk]:
    """The chunks of a chat file, in order; together they are the file."""
    with open(file, "rb") as f:
        source = _HashedFile(f)
        offset, size, first_line, lines, line_number = 0, 0, 1, 0, 1

        def chunk() -> Chunk:
            return Chunk(
                file=file,
                label=label,
                offset=offset,
                num_bytes=size,
                first_line=first_line,
                num_lines=lines,
                sha256=source.take_digest(),
            )

        for line, num_bytes in _lines(source):
            size += num_bytes
            lines += not _is_blank(line, line_number)
            line_number += 1
            if lines == CHUNK_LINES or size >= CHUNK_BYTES:
                yield chunk()
                offset, size, first_line, lines = offset + size, 0, line_number, 0
        if size:
            yield chunk()


def read_chunk(chunk: Chunk) -> Iterator[tuple[int, bytes | None]]:
    """The lines of a chunk with their numbers; None for one of more than 16 MiB.

    Raises:
        EngineError: the file has changed since it was cut, or is gone.
    """
    changed = f"{chunk.label} changed while it was read; leave it alone and run the same command again"
    try:
        with open(chunk.file, "rb") as f:
            f.seek(chunk.offset)
            source, done, number = _HashedFile(f), 0, chunk.first_line
            for line, num_bytes in _lines(source) if chunk.num_bytes else ():
                done += num_bytes
                if not _is_blank(line, number):
                    yield number, line.removeprefix(BYTE_ORDER_MARK) if line and number == 1 else line
                number += 1
                if done >= chunk.num_bytes:
                    break
    except OSError as e:
        raise EngineError(f"cannot read {chunk.label}: {e.strerror}; then run the same command again") from None
    if source.take_digest() != chunk.sha256:
        raise EngineError(changed)


class _HashedFile:
    """Reads lines and hashes them."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()

    def readline(self, size: int) -> bytes:
        piece = self._file.readline(size)
        self._sha256.update(piece)
        return piece

    def take_digest(self) -> str:
        """Of what was read since the last time."""
        digest, self._sha256 = self._sha256.hexdigest(), hashlib.sha256()
        return digest


def _lines(source: _HashedFile) -> Iterator[tuple[bytes | None, int]]:
    """Every line, None for one that is too long, and its bytes in the file."""
    while piece := source.readline(MAX_LINE_BYTES + 1):
        line: bytes | None = piece
        num_bytes = len(piece)
        while not piece.endswith(b"\n") and (piece := source.readline(MAX_LINE_BYTES)):
            line = None
            num_bytes += len(piece)
        yield line, num_bytes


def _is_blank(line: bytes | None, number: int) -> bool:
    if line is None:
        return False
    return not (line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line).strip()
