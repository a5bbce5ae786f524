"""Chat files to samples and shards, a chunk of lines at a time.

Lines are measured first and written second, because a line may repeat one of any chunk before: what is known by then is
an id a line, some fifty bytes of memory each. A chunk is measured anew when its bytes, an image file's size or time, or
a setting changed, and written anew when what was measured did. A chunk at which a worker fails is done again line by
line, and then without the line at which it failed, which is rejected.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pyarrow as pa
import pyarrow.compute as pc

from corpus import short_shards
from corpus.chat_chunks import chunks_of, labelled
from corpus.chat_images import Seen, look
from corpus.errors import EngineError
from corpus.messages import message_fingerprint
from corpus.records import Rejected, Sample, ShortFile, content_id
from corpus.shard_index import index_table
from corpus.short_shards import MeasuredLine, ShortShards
from corpus.stages.state import Build, stall_limit, time_limit
from corpus.store import read_records, read_table, schema_of, write_json, write_records, write_table
from corpus.workers import WORKER_DIED, Failure, Task
from packing import short
from packing.lengths import load_counter

MEASURE, WRITE = "conversations", "short"  # the two stages, as their markers call them
Problems = dict[int, tuple[str, str]]  # lines of a chunk, counted from 0 -> reason and detail


def run(b: Build) -> str:
    """Measure and write what is not done; '' where there are no chat files and never were."""
    files = b.config.mixture.short.files
    b.progress.stage("short", len(files), "files")
    found = [c for file, label in labelled(files).items() for c in chunks_of(file, label)]
    b.short = {f"{i:06d}": chunk for i, chunk in enumerate(found)}
    for stage in (MEASURE, WRITE):
        b.run.drop(stage, keep=b.short)
    if not files:
        b.run.path("short.parquet").unlink(missing_ok=True)
        return ""
    for name in b.short:
        _forget_deaths(b, name)
    num_lines = sum(c.num_lines for c in found)
    b.progress.stage("short", 2 * num_lines, "lines")
    _measure(b)
    _write(b, _copies(b))
    table = _account(b)
    write_records(b.run.path("short.parquet"), ShortFile, table)
    kept, images = sum(f.num_kept for f in table), sum(f.num_images for f in table)
    return f"{kept} conversations with {images} images, {num_lines - kept} lines rejected"


def samples_table(b: Build) -> pa.Table:
    """The samples of every chunk, before they are split into training and validation."""
    schema = schema_of(Sample)
    tables = [read_table(_file(b, "samples", name), schema=schema) for name in b.short]
    return pa.concat_tables([schema.empty_table(), *tables])


def index_files(b: Build) -> list[Path]:
    """Where every chunk's members stand."""
    return [_file(b, "index", name) for name in b.short]


def rejected_files(b: Build) -> list[Path]:
    """The lines that were refused, by chunk."""
    kinds = ("rejected", "refused")
    return [_file(b, kind, name) for name in b.short for kind in kinds]


def output(b: Build) -> list[list[str]]:
    """What the samples are made of, for the fingerprints of what is made from them."""
    return [b.marker(WRITE, name).output for name in b.short]


def _file(b: Build, kind: str, name: str) -> Path:
    folder = MEASURE if kind in ("lines", "seen", "rejected") else WRITE
    return b.run.work(folder, f"{kind}-{name}.parquet")


def _measure(b: Build) -> None:
    c = b.config
    base = content_id(
        MEASURE, short.STAGE_VERSION, str(schema_of(MeasuredLine)), PIL.__version__, c.model, c.windows.max_tokens,
        load_counter(c.tokenizer).name, message_fingerprint(c.messages),
    )  # fmt: skip

    def fingerprint(name: str) -> str:
        chunk = b.short[name]
        place = [chunk.label, chunk.first_line, chunk.sha256]
        return content_id(base, place, _known_problems(b, MEASURE, name))

    def job(name: str) -> short.MeasureJob:
        return short.MeasureJob(chunk=b.short[name], problems=_known_problems(b, MEASURE, name), config=c)

    def finish(name: str, made: str, result: short.MeasuredChunk) -> None:
        write_records(_file(b, "lines", name), MeasuredLine, result.lines)
        write_records(_file(b, "rejected", name), Rejected, result.rejected)
        write_records(_file(b, "seen", name), Seen, result.seen)  # it changes with no content: no part of the marker
        files = [_file(b, "lines", name), _file(b, "rejected", name)]
        b.run.finish(MEASURE, name, made, files, {"rejected": len(result.rejected)})

    _run(b, MEASURE, fingerprint, lambda name: _is_unchanged(b, name), (short.measure_chunk, job), finish)


def _write(b: Build, copies: Mapping[str, dict[int, str]]) -> None:
    c = b.config
    made_by = [c.model, c.render.format, c.render.quality, c.shards.model_dump(), PIL.__version__]
    base = content_id(WRITE, short_shards.STAGE_VERSION, str(schema_of(Sample)), made_by)

    def fingerprint(name: str) -> str:
        repeated = sorted(copies.get(name, {}).items())
        return content_id(base, b.marker(MEASURE, name).output, repeated, _known_problems(b, WRITE, name))

    def job(name: str) -> short_shards.ShortJob:
        return short_shards.ShortJob(
            chunk=b.short[name],
            lines_file=_file(b, "lines", name),
            copies=copies.get(name, {}),
            problems=_known_problems(b, WRITE, name),
            folder=b.run.path("shards"),
            prefix=f"short-{name}",
            model=c.model,
            render=c.render,
            max_bytes=c.shards.max_bytes,
        )

    _run(b, WRITE, fingerprint, lambda _: True, (short_shards.write_chunk, job), lambda *done: _finish(b, *done))


def _finish(b: Build, name: str, made: str, result: ShortShards) -> None:
    write_table(_file(b, "index", name), index_table(result.files, result.members))
    write_records(_file(b, "samples", name), Sample, result.samples)
    write_records(_file(b, "refused", name), Rejected, result.rejected)
    archives = [b.run.path("shards", f.shard) for f in result.files]
    for stale in set(b.run.path("shards").glob(f"short-{name}-*.tar")) - set(archives):
        stale.unlink()
    kinds = ("index", "samples", "refused")
    facts = {
        "kept": len(result.samples),
        "rejected": len(result.rejected),
        "images": sum(s.num_pages for s in result.samples),
        "tokens": sum(s.num_tokens for s in result.samples),
        "licenses": result.licenses,
    }
    known = {f"shards/{f.shard}": f"xxh128:{f.xxh128}" for f in result.files}
    b.run.finish(WRITE, name, made, [*archives, *(_file(b, kind, name) for kind in kinds)], facts, known)


def _run(
    b: Build,
    stage: str,
    fingerprint: Callable[[str], str],
    is_current: Callable[[str], bool],
    work: tuple[Callable[..., Any], Callable[[str], Any]],
    finish: Callable[[str, str, Any], None],
) -> None:
    """Let workers do the chunks that are not done, and those again in which a line was found at fault."""
    waiting = []
    for name, chunk in b.short.items():
        if b.run.is_done(stage, name, fingerprint(name)) and is_current(name):
            b.progress.advance(units=chunk.num_lines)
        else:
            waiting.append(name)
    function, job = work
    searched: set[str] = set()  # chunks whose line at fault is looked for
    while waiting:
        tasks = (
            _task(b, stage, name, fingerprint(name), function, replace(job(name), one_by_one=name in searched))
            for name in waiting
        )
        again = []
        for outcome in b.pool.run(tasks, lambda lines: b.progress.advance(units=lines)):
            name, made = outcome.key
            if isinstance(outcome.value, Failure):
                b.progress.advance(units=-outcome.value.pages_done)
                if name in searched:
                    _blame(b, stage, name, outcome.value)
                searched.add(name)
                again.append(name)
            else:
                finish(name, made, outcome.value)
                b.work["short"] += 1
        waiting = again


def _task(b: Build, stage: str, name: str, made: str, function: Callable[..., Any], job: Any) -> Task[Any]:
    b.run.reopen(stage, name)
    limit = time_limit(b, []) + b.config.workers.timeout_s * b.short[name].num_lines
    return Task((name, made), function, job, limit, stall_limit(b, []))


def _blame(b: Build, stage: str, name: str, failure: Failure) -> None:
    """Keep the line that a worker was busy with out of every later attempt.

    Raises:
        EngineError: the fault lies in none of them.
    """
    known = _known_problems(b, stage, name)
    if failure.pages_done >= b.short[name].num_lines or failure.pages_done in known:
        raise EngineError(f"{stage}: {failure.reason}: {failure.detail}; then run the same command again")
    known[failure.pages_done] = (failure.reason, failure.detail)
    _record_problems(b, stage, name, known)


def _known_problems(b: Build, stage: str, name: str) -> Problems:
    file = _problem_file(b, stage, name)
    rows = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    return {i: (reason, detail) for i, reason, detail in rows}


def _forget_deaths(b: Build, name: str) -> None:
    """A worker may have died for a reason outside of its line, so another build tries again."""
    for stage in (MEASURE, WRITE):
        known = _known_problems(b, stage, name)
        lasting = {i: why for i, why in known.items() if why[0] != WORKER_DIED}
        if lasting != known:
            _record_problems(b, stage, name, lasting)


def _record_problems(b: Build, stage: str, name: str, known: Problems) -> None:
    write_json(_problem_file(b, stage, name), sorted([i, *why] for i, why in known.items()))


def _problem_file(b: Build, stage: str, name: str) -> Path:
    """Faults depend on the lines and on a worker's limits, so they are kept by these."""
    limits = b.config.workers
    key = content_id(stage, b.short[name].sha256, limits.timeout_s, limits.memory_mb, PIL.__version__, b.config.model)
    return b.run.work("problems", f"{stage}-{name}-{key}.json")


def _is_unchanged(b: Build, name: str) -> bool:
    """Whether the image files that a chunk names look as they did when it was measured."""
    file = _file(b, "seen", name)
    if not file.is_file():
        return False
    folder = b.short[name].folder
    return all(look(folder, seen.path) == seen for seen in read_records(file, Seen))


def _copies(b: Build) -> dict[str, dict[int, str]]:
    """Lines that say the same as an earlier one, by chunk: line -> where the first stands."""
    ids, lines, chunks = [], [], []
    names = list(b.short)
    for i, name in enumerate(names):
        table = read_table(_file(b, "lines", name), columns=["line", "sample"])
        column = pc.struct_field(table["sample"], "doc_id").to_pylist()
        ids.append(np.array([int(doc_id[1:], 16) for doc_id in column], dtype=np.uint64))
        lines.append(table["line"].to_numpy())
        chunks.append(np.full(len(column), i))
    if not ids:
        return {}
    all_lines, all_chunks = np.concatenate(lines), np.concatenate(chunks)
    _, first, group = np.unique(np.concatenate(ids), return_index=True, return_inverse=True)
    found: dict[str, dict[int, str]] = {}
    for at in np.flatnonzero(first[group] != np.arange(len(group))).tolist():
        original = first[group[at]]
        place = f"{b.short[names[all_chunks[original]]].label}:{all_lines[original]}"
        found.setdefault(names[all_chunks[at]], {})[int(all_lines[at])] = place
    return found


def _account(b: Build) -> list[ShortFile]:
    """One row a chat file; and the proof that no line was lost."""
    rows = {label: dict.fromkeys(("num_bytes", "num_lines", "num_kept", "num_rejected", "num_images", "num_tokens"), 0)
            for label in labelled(b.config.mixture.short.files).values()}  # fmt: skip
    licenses: dict[str, set[str]] = {label: set() for label in rows}
    for name, chunk in b.short.items():
        measured, written = b.marker(MEASURE, name).facts, b.marker(WRITE, name).facts
        rejected = measured["rejected"] + written["rejected"]
        assert chunk.num_lines == written["kept"] + rejected, f"{chunk.label}: a line of chunk {name} is lost"
        row = rows[chunk.label]
        row["num_bytes"] += chunk.num_bytes
        row["num_lines"] += chunk.num_lines
        row["num_kept"] += written["kept"]
        row["num_rejected"] += rejected
        row["num_images"] += written["images"]
        row["num_tokens"] += written["tokens"]
        licenses[chunk.label] |= set(written["licenses"])
    return [
        ShortFile(file=label, licenses=tuple(sorted(licenses[label])[: short_shards.MAX_LICENSES]), **row)
        for label, row in rows.items()
    ]
