"""Questions and pages to windows and samples. Cheap, so a partition is the unit also when one document changed."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from corpus.messages import message_fingerprint
from corpus.records import Rejected, Sample, content_id
from corpus.rundir import Marker
from corpus.sharding import Unrenderable, renderer_version
from corpus.stages.state import Build, blame, pages_of, stall_limit, time_limit
from corpus.store import read_records, schema_of, write_json, write_records
from corpus.workers import Failure, Task
from packing import samples
from packing.lengths import load_counter


def run(b: Build, names: Iterable[str]) -> dict[str, Marker]:
    """The windows of these partitions, cutting those that are not done."""
    names = waiting = list(names)
    while waiting:
        tasks = list(_tasks(b, waiting))
        waiting = []
        for outcome in b.pool.run(tasks, lambda _: None):
            name, fingerprint, documents = outcome.key
            if isinstance(outcome.value, Failure):
                blame(b, "shard", pages_of(documents), outcome.value)
                waiting.append(name)
            else:
                _finish(b, name, fingerprint, outcome.value)
    return {name: b.marker("windows", name) for name in names}


def _tasks(b: Build, names: Iterable[str]) -> Iterator[Task[Any]]:
    """The partitions that are not done; the key of a task is name, fingerprint, documents."""
    c = b.config
    lengths = [c.model, load_counter(c.tokenizer).name, c.render.dpi, message_fingerprint(c.messages)]
    stage = content_id("windows", samples.STAGE_VERSION, str(schema_of(Sample)), lengths, c.windows.model_dump())
    for name in names:
        documents = tuple(b.kept(name))
        problems = problems_of(b, name)
        upstream = [b.marker(s, name).output for s in ("pages", "questions")]
        known = sorted((doc_id, sorted(by_page.items())) for doc_id, by_page in problems.items())
        fingerprint = content_id(stage, upstream, [d.doc_id for d in documents], known)
        if b.run.is_done("windows", name, fingerprint):
            continue
        job = samples.CutJob(
            documents=documents,
            pages_file=b.run.path("pages", f"{name}.parquet"),
            questions_file=b.run.path("questions", f"{name}.parquet"),
            problems=problems,
            config=c,
        )
        limit, stall = time_limit(b, documents), stall_limit(b, documents)
        yield Task((name, fingerprint, documents), samples.cut_partition, job, limit, stall)


def _finish(b: Build, name: str, fingerprint: str, cuts: list[samples.DocumentCut]) -> None:
    b.run.reopen("windows", name)
    file, rejected = b.run.work("samples", f"{name}.parquet"), b.run.work("rejected", f"shard-{name}.parquet")
    write_records(file, Sample, [s for cut in cuts for s in cut.samples])
    write_records(rejected, Rejected, [r for cut in cuts for r in cut.rejected])
    facts = {
        "cuts": {
            cut.doc_id: {
                "windows": [[w.index, w.first_page, w.num_pages] for w in cut.windows],
                "tokens": cut.window_tokens,
                "questions": len({q for s in cut.samples for q in s.question_ids}),
                "left_out": [[x.first_page, x.num_pages, x.reason] for x in cut.left_out],
            }
            for cut in cuts
        }
    }
    b.run.finish("windows", name, fingerprint, [file, rejected], facts)
    b.work["windows"] += 1


def partition_samples(b: Build, name: str) -> list[Sample]:
    """The samples of a partition, before they are split into training and validation."""
    return read_records(b.run.work("samples", f"{name}.parquet"), Sample)


def _problem_file(b: Build, name: str) -> Path:
    """Render faults depend on the renderer, its settings and its limits, so they are kept by these."""
    c = b.config
    settings = [c.model, c.render.model_dump(), renderer_version(c.render.backend)]
    limits = [c.workers.page_timeout_s, c.workers.memory_mb] if c.render.backend == "pdf2image" else []
    key = content_id(settings, limits, [d.doc_id for d in b.partitions[name]])
    return b.run.work("problems", f"{name}-{key}.json")


def problems_of(b: Build, name: str) -> dict[str, dict[int, str]]:
    """Pages of a partition that turned out not to render: document -> page -> reason."""
    file = _problem_file(b, name)
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for doc_id, page, reason in json.loads(file.read_text(encoding="utf-8")) if file.is_file() else ():
        found[doc_id][page] = reason
    return dict(found)


def record_problem(b: Build, name: str, fault: Unrenderable) -> None:
    """Keep a page out of every window from now on, or a document out of this build."""
    if fault.page is None:
        b.rejected[fault.doc_id] = Rejected(id=fault.doc_id, stage="shard", reason=fault.reason, detail=fault.detail)
        return
    file = _problem_file(b, name)
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    write_json(file, [*known, [fault.doc_id, fault.page, f"{fault.reason}: {fault.detail}"]])
