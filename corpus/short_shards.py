"""Measured lines of a chat file to shards: images decoded, resized and encoded, beside the conversation.

Runs in a worker, a chunk at a time; memory holds one conversation. An image that cannot be decoded after all costs its
line. Members of a conversation: `<key>.json`, `<key>.messages.json` (turns as `corpus.messages.short_messages` reads
them, an image by its index), `<key>.i0000.jpg` and so on. The key is the conversation's id: no name of a file is part
of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus.chat_chunks import Chunk, read_chunk
from corpus.chat_files import Conversation, parse_line
from corpus.chat_images import ChatImage, picture, read_image
from corpus.config import RenderSettings
from corpus.errors import DocumentError
from corpus.records import Rejected, Sample
from corpus.render import encode, first_line
from corpus.shard_index import Member, ShardFile
from corpus.shards import dump_json, image_name, write_shards
from corpus.store import plain, read_records

STAGE_VERSION = 1  # raise it when the same lines should be written anew
MAX_DETAIL_CHARS = 300
TELL_EVERY_S = 0.2
MAX_LICENSES = 20  # that are told of a file


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredLine:
    """A sound line of a chat file and the sample that it makes. `line` counts from 1."""

    line: int
    sample: Sample
    images: tuple[ChatImage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortJob:
    """One chunk to write.

    `lines_file`: its `MeasuredLine` records. `copies`: lines that repeat another one -> which. `problems`: lines that a
    worker failed at, counted from 0 in the chunk -> why. `one_by_one`: as `LineProgress` has it.
    """

    chunk: Chunk
    lines_file: Path
    copies: dict[int, str]
    problems: dict[int, tuple[str, str]]
    folder: Path
    prefix: str
    model: str
    render: RenderSettings
    max_bytes: int
    one_by_one: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortShards:
    """What the measured lines of a chunk became."""

    files: tuple[ShardFile, ...]
    members: tuple[Member, ...]
    samples: tuple[Sample, ...]
    rejected: tuple[Rejected, ...]
    licenses: tuple[str, ...]  # of the samples, the first few


def reject(chunk: Chunk, line: int, error: DocumentError) -> Rejected:
    """A line that is refused; it has no other name than its place."""
    detail = plain(error.detail)[:MAX_DETAIL_CHARS]
    return Rejected(id=f"{chunk.label}:{line}", stage="short", reason=error.reason, detail=detail)


class LineProgress:
    """Tells of lines that are done, many at a time: each message makes the parent look at all its workers.

    `one_by_one`: tell of each, so that the line at which a worker fails is known.
    """

    def __init__(self, progress: Callable[[int], None], one_by_one: bool) -> None:
        self._progress = progress
        self._every_s = 0.0 if one_by_one else TELL_EVERY_S
        self._lines = 0
        self._told = time.monotonic()

    def advance(self) -> None:
        """One more line is done."""
        self._lines += 1
        if time.monotonic() >= self._told + self._every_s:
            self.tell()

    def tell(self) -> None:
        """Tell of what was not told yet."""
        self._progress(self._lines)
        self._lines, self._told = 0, time.monotonic()


def write_chunk(job: ShortJob, progress: Callable[[int], None]) -> ShortShards:
    """Write every measured line of a chunk; each line of the chunk counts as one unit of progress."""
    told = LineProgress(progress, job.one_by_one)
    samples: list[Sample] = []
    licenses: set[str] = set()
    rejected: list[Rejected] = []
    content = _conversations(job, samples, licenses, rejected, told)
    files, members = write_shards(job.folder, job.prefix, content, job.max_bytes)
    told.tell()
    return ShortShards(
        files=tuple(files),
        members=tuple(members),
        samples=tuple(samples),
        rejected=tuple(rejected),
        licenses=tuple(sorted(licenses)[:MAX_LICENSES]),
    )


def _conversations(
    job: ShortJob, samples: list[Sample], licenses: set[str], rejected: list[Rejected], told: LineProgress
) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    measured = {m.line: m for m in read_records(job.lines_file, MeasuredLine)}
    for i, (number, line) in enumerate(read_chunk(job.chunk)):
        if number in measured and line is not None:
            try:
                if number in job.copies:
                    raise DocumentError("duplicate", f"says the same as {job.copies[number]}")
                if i in job.problems:
                    raise DocumentError(*job.problems[i])
                conversation = parse_line(line)
                members = _members(job, measured[number], conversation)
            except DocumentError as e:
                rejected.append(reject(job.chunk, number, e))
            else:
                samples.append(measured[number].sample)
                licenses.add(conversation.license)
                yield measured[number].sample.key, members
        told.advance()


def _members(job: ShortJob, measured: MeasuredLine, conversation: Conversation) -> list[tuple[str, bytes]]:
    """Everything that the archive holds of a conversation, at most one context full of images."""
    sample, pictures = measured.sample, []
    for i, (image, grid) in enumerate(zip(measured.images, sample.grids, strict=True)):
        upright = picture(read_image(job.chunk.folder, image.path), image, grid)
        try:
            data = encode(upright, job.render.format, job.render.quality)
        except MemoryError:
            raise
        except Exception as e:  # Pillow raises what it likes: WebP, for one, ends at 16,383 pixels a side
            raise DocumentError("image-not-encoded", f"no {job.render.format} of it: {first_line(e)}") from None
        pictures.append((image_name(i, job.render.format), data))
    return [
        ("json", dump_json(_metadata(job, measured, conversation, [name for name, _ in pictures]))),
        ("messages.json", dump_json(conversation.messages)),
        *pictures,
    ]


def _metadata(job: ShortJob, measured: MeasuredLine, conversation: Conversation, names: list[str]) -> dict[str, Any]:
    """What a reader of the shard alone must know. Paths of the building machine stay out."""
    return {
        "doc_id": measured.sample.doc_id,
        "file": job.chunk.label,
        "line": measured.line,
        "id": conversation.given_id,
        "license": conversation.license,
        "source": conversation.source,
        "model": job.model,
        "images": [
            {"name": name, "height": g.height, "width": g.width, "sha256": image.sha256}
            for name, g, image in zip(names, measured.sample.grids, measured.images, strict=True)
        ],
    }
