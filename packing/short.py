"""Lines of a chat file to samples of exact length, before any image is decoded. Runs in a worker, a chunk at a time.

Image files are read here for their digest and the size in their header, and again when they are decoded: a
conversation must be known by its content before it is stored, for the same one may stand in another chunk. Reading
twice costs a tenth of decoding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from corpus.chat_chunks import MAX_LINE_BYTES, Chunk, read_chunk
from corpus.chat_files import conversation_id, parse_line
from corpus.chat_images import ChatImage, Seen, look, measure, read_image
from corpus.config import Config
from corpus.errors import DocumentError
from corpus.messages import message_fingerprint
from corpus.records import SHORT_TASK, PageGrid, Rejected, Sample, content_id
from corpus.short_shards import LineProgress, MeasuredLine, reject
from corpus.vision_tokens import FAMILIES, num_image_tokens
from packing.lengths import IMAGE_FRAME_TOKENS, TextCounter, conversation_length, load_counter

STAGE_VERSION = 1  # raise it when the same line should be read otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureJob:
    """One chunk to measure.

    `problems`: lines that a worker failed at, counted from 0 in the chunk -> why. `one_by_one`: as `LineProgress` has
    it.
    """

    chunk: Chunk
    problems: dict[int, tuple[str, str]]
    config: Config
    one_by_one: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredChunk:
    """Every line of a chunk, in one of two ways; and what its image files looked like."""

    lines: tuple[MeasuredLine, ...]
    rejected: tuple[Rejected, ...]
    seen: tuple[Seen, ...]


def measure_chunk(job: MeasureJob, progress: Callable[[int], None]) -> MeasuredChunk:
    """Measure every line; each counts as one unit of progress."""
    counter = load_counter(job.config.tokenizer)
    told = LineProgress(progress, job.one_by_one)
    lines, rejected = [], []
    seen: dict[str, Seen] = {}
    for i, (number, line) in enumerate(read_chunk(job.chunk)):
        try:
            if i in job.problems:
                raise DocumentError(*job.problems[i])
            if line is None:
                raise DocumentError("line-too-long", f"more than {MAX_LINE_BYTES >> 20} MiB; split the conversation")
            lines.append(measure_line(line, number, job.chunk.folder, job.config, counter, seen))
        except DocumentError as e:
            rejected.append(reject(job.chunk, number, e))
        told.advance()
    told.tell()
    return MeasuredChunk(lines=tuple(lines), rejected=tuple(rejected), seen=tuple(seen[path] for path in sorted(seen)))


def measure_line(
    line: bytes, number: int, folder: str, config: Config, counter: TextCounter, seen: dict[str, Seen]
) -> MeasuredLine:
    """One line as a sample.

    Args:
        number: of the line in its file, from 1.
        seen: gains what every image file that was looked for looked like.

    Raises:
        DocumentError: as `parse_line`, `read_image` and `measure`, and `too-long`.
    """
    family, limit = FAMILIES[config.model], config.windows.max_tokens
    conversation = parse_line(line)
    known: dict[str, tuple[ChatImage, PageGrid]] = {}
    images: list[ChatImage] = []
    grids: list[PageGrid] = []
    tokens = 0
    for path in conversation.images:
        if path not in known:
            seen.setdefault(path, look(folder, path))
            known[path] = measure(read_image(folder, path), path, family)
        image, grid = known[path]
        tokens += IMAGE_FRAME_TOKENS + num_image_tokens(grid, family)
        if tokens > limit:
            raise DocumentError("too-long", f"its images alone exceed windows.max_tokens = {limit}")
        images.append(image)
        grids.append(grid)
    length = conversation_length(conversation.messages, grids, family, counter)
    if length.num_tokens > limit:
        raise DocumentError("too-long", f"{length.num_tokens} tokens exceed windows.max_tokens = {limit}")
    doc_id = conversation_id(conversation.messages, [image.sha256 for image in images])
    sample = Sample(
        sample_id="s" + content_id(doc_id, message_fingerprint(config.messages), length=15),
        doc_id=doc_id,
        window=0,
        first_page=0,
        num_pages=len(grids),
        question_ids=(),
        task=SHORT_TASK,
        split="train",
        num_tokens=length.num_tokens,
        num_patches=length.num_patches,
        num_supervised=length.num_supervised,
        patch_pairs=length.patch_pairs,
        tokens_exact=counter.exact,
        grids=tuple(grids),
    )
    return MeasuredLine(line=number, sample=sample, images=tuple(images))
