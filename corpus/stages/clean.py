"""Pages to the documents that stay: benchmarks, unwanted languages and near-duplicates leave, each with its reason.

Workers sketch a partition's pages and compare them with the benchmarks. What is decided over the whole corpus, which
copy of a document stays, is decided here from the sketches. A refused document keeps its pages, so that it is
back at once when the reason is gone.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from corpus import benchmark_sets, dedup, render, sketches
from corpus.benchmark_sets import BenchmarkFile, BenchmarkPage, BenchmarkSet
from corpus.config import CleanSettings
from corpus.decontamination import PageIndex, is_contaminated
from corpus.errors import DocumentError, EngineError
from corpus.fetch import local_copy
from corpus.ingest import unwanted_language
from corpus.page_images import ENGINE
from corpus.records import Document, Page, Rejected, content_id
from corpus.rundir import partition_of
from corpus.sketches import PageSketch, Signature
from corpus.stages.state import Build, blame, pages_of, stall_limit, time_limit
from corpus.storage import RemotePath, is_url
from corpus.store import file_sha256, read_records, schema_of, write_records
from corpus.workers import Failure, Task

STAGE_VERSION = 1  # raise it when the same sketches should be judged anew


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchJob:
    """A partition to compare with the benchmarks."""

    doc_ids: tuple[str, ...]
    sketches: Path
    benchmark: Path
    identity: str  # of the benchmark's content
    settings: CleanSettings


def run(b: Build) -> str:
    """Refuse documents; give those that stay the language that was detected."""
    b.progress.stage("clean", len(b.documents), "documents")
    b.run.drop("matches", keep=b.partitions)
    _sketch(b)
    files = [b.run.work("signatures", f"{name}.parquet") for name in b.partitions]
    signatures = {s.doc_id: s for file in files for s in read_records(file, Signature)}
    for name, documents in b.partitions.items():
        b.partitions[name] = [_with_language(d, signatures.get(d.doc_id)) for d in documents]
    benchmark, unreadable = _fingerprint_benchmark(b)
    write_records(b.run.work("rejected", "clean.parquet"), Rejected, unreadable)
    refused = _contaminated(b, benchmark) if b.config.clean.decontaminate else []
    refused += _unwanted(b, {r.id for r in refused})
    b.rejected |= {r.id: r for r in refused}
    if b.config.clean.near_duplicates:
        duplicates = _near_duplicates(b, signatures)
        b.rejected |= {r.id: r for r in duplicates}
        refused += duplicates
    counts = Counter(r.reason for r in refused)
    said = [f"{n} {reason}" for reason, n in sorted(counts.items())]
    if unreadable:
        said.append(f"{len(unreadable)} benchmark PDFs recognised by their bytes alone (rejected.parquet)")
    return f"{sum(len(b.kept(name)) for name in b.partitions)} documents stay" + "".join(f", {s}" for s in said)


def _with_language(document: Document, signature: Signature | None) -> Document:
    if document.language or signature is None or not signature.language:
        return document
    return replace(document, language=signature.language, language_source="detected")


def _sketch(b: Build) -> None:
    b.run.drop("sketches", keep=b.partitions)
    waiting = list(b.partitions)
    while waiting:
        tasks = list(_sketch_tasks(b, waiting))
        waiting = []
        for outcome in b.pool.run(tasks, lambda _: None):
            name, fingerprint, documents = outcome.key
            if isinstance(outcome.value, Failure):
                blame(b, "clean", pages_of(documents), outcome.value)
                waiting.append(name)
                continue
            files = [b.run.work(kind, f"{name}.parquet") for kind in ("sketches", "signatures")]
            b.run.finish("sketches", name, fingerprint, files)
            b.work["clean"] += 1
            b.progress.advance(units=len(b.partitions[name]))


def _sketch_tasks(b: Build, names: list[str]) -> Iterator[Task[Any]]:
    """The partitions that are not done; the key of a task is name, fingerprint, documents."""
    stage = content_id("sketches", sketches.STAGE_VERSION, sketches.ENGINES, str(schema_of(Page)))
    for name in names:
        documents = b.kept(name)
        fingerprint = content_id(stage, b.marker("pages", name).output, [d.doc_id for d in documents])
        if b.run.is_done("sketches", name, fingerprint):
            b.progress.advance(units=len(b.partitions[name]))
            continue
        b.run.reopen("sketches", name)
        job = sketches.SketchJob(
            doc_ids=tuple(d.doc_id for d in documents),
            pages_file=b.run.path("pages", f"{name}.parquet"),
            sketches=b.run.work("sketches", f"{name}.parquet"),
            signatures=b.run.work("signatures", f"{name}.parquet"),
        )
        key = (name, fingerprint, documents)
        yield Task(key, sketches.sketch_partition, job, time_limit(b, documents), stall_limit(b, documents))


def _fingerprint_benchmark(b: Build) -> tuple[BenchmarkSet, list[Rejected]]:
    """The benchmarks with every page of their PDFs; and the PDFs of which only the bytes can be recognised.

    Raises:
        EngineError: a PDF cannot be had: what is in it would be let through.
    """
    given, storage = b.benchmark, b.config.storage
    cached = {uri: _cache_file(b, uri, name) for uri, name in given.pdfs.items()}
    for stale in set(b.run.work("benchmark").glob("*.pdf.parquet")) - set(cached.values()):
        stale.unlink()
    missing = {uri: name for uri, name in given.pdfs.items() if not cached[uri].is_file()}
    failed = []
    limit = benchmark_sets.LIMIT_FACTOR * b.config.workers.timeout_s
    for uri, file in benchmark_sets.fingerprint_pdfs(b.pool, missing, limit, storage):
        if isinstance(file, BenchmarkFile):
            write_records(cached[uri], BenchmarkFile, [file])
        else:
            problem = f"{file.reason}: {file.detail}"
            failed.append(BenchmarkFile(name=given.pdfs[uri], sha256=_digest(b, uri), pages=(), problem=problem))
    files = [*(read_records(f, BenchmarkFile)[0] for f in cached.values() if f.is_file()), *failed]
    digests = given.digests | {f.sha256: f.name for f in files}
    pages = [*given.pages, *(p for f in files for p in f.pages)]
    problems = [
        Rejected(id=f.name, stage="clean", reason="benchmark-unreadable", detail=f.problem) for f in files if f.problem
    ]
    return replace(given, digests=digests, pages=tuple(pages)), sorted(problems, key=attrgetter("id"))


def _cache_file(b: Build, uri: str, name: str) -> Path:
    key = content_id(_version(b, uri), name, benchmark_sets.VERSION, ENGINE, render.VERSION)
    return b.run.work("benchmark", f"{key}.pdf.parquet")


def _version(b: Build, uri: str) -> str:
    """What changes with a benchmark PDF's content; of a remote one what its server says, so that it is read once."""
    if not is_url(uri):
        return _digest(b, uri)
    try:
        return RemotePath(uri, b.config.storage).remote_stat().version or _digest(b, uri)
    except FileNotFoundError:
        raise EngineError(f"clean.decontaminate: there is no {uri} any more; run the same command again") from None


def _digest(b: Build, uri: str) -> str:
    try:
        with local_copy(uri, None, b.config.storage) as copy:
            return copy.sha256
    except DocumentError as e:
        message = f"clean.decontaminate: {e.reason}: {e.detail}; make it readable and run the same command again"
        raise EngineError(message) from None


def _contaminated(b: Build, benchmark: BenchmarkSet) -> list[Rejected]:
    """Documents that are a benchmark's file, or show enough of its pages."""
    by_bytes = {d.doc_id: benchmark.digests[d.sha256] for d in b.documents if d.sha256 in benchmark.digests}
    details = {doc_id: f"same bytes as benchmark document {name}" for doc_id, name in by_bytes.items()}
    details = (_page_matches(b, benchmark) if benchmark.pages else {}) | details
    return [
        Rejected(id=d.doc_id, stage="clean", reason="contaminated", detail=details[d.doc_id])
        for d in b.documents
        if d.doc_id in details and d.doc_id not in b.rejected
    ]


def _page_matches(b: Build, benchmark: BenchmarkSet) -> dict[str, str]:
    """Details by document that shows pages of the benchmark."""
    file = b.run.work("benchmark", "pages.parquet")
    write_records(file, BenchmarkPage, benchmark.pages)
    c = b.config.clean
    limits = [c.benchmark_pages, c.benchmark_words, c.benchmark_image]
    identity = content_id("matches", STAGE_VERSION, file_sha256(file), limits)
    waiting = list(b.partitions)
    while waiting:
        tasks = []
        for name in waiting:
            documents = b.kept(name)
            fingerprint = content_id(identity, b.marker("sketches", name).output, [d.doc_id for d in documents])
            if not b.run.is_done("matches", name, fingerprint):
                job = MatchJob(
                    doc_ids=tuple(d.doc_id for d in documents),
                    sketches=b.run.work("sketches", f"{name}.parquet"),
                    benchmark=file,
                    identity=identity,
                    settings=c,
                )
                key = (name, fingerprint, documents)
                tasks.append(Task(key, match_partition, job, time_limit(b, documents), stall_limit(b, documents)))
        waiting = []
        for outcome in b.pool.run(tasks, lambda _: None):
            name, fingerprint, documents = outcome.key
            if isinstance(outcome.value, Failure):
                blame(b, "clean", pages_of(documents), outcome.value)
                waiting.append(name)
            else:
                b.run.finish("matches", name, fingerprint, [], {"details": outcome.value})
                b.work["clean"] += 1
    return {k: v for name in b.partitions for k, v in b.marker("matches", name).facts["details"].items()}


def match_partition(job: MatchJob, progress: Callable[[int], None]) -> dict[str, str]:
    """What is contaminated in a partition, by document, in words; runs in a worker."""
    index = _load_index(job.benchmark, job.identity)
    details = {}
    pages = {d: list(g) for d, g in itertools.groupby(read_records(job.sketches, PageSketch), attrgetter("doc_id"))}
    for doc_id in job.doc_ids:
        found = index.contamination(pages[doc_id], job.settings)
        if found and is_contaminated(found, job.settings):
            details[doc_id] = found.detail
        progress(len(pages[doc_id]))
    return details


@functools.lru_cache(maxsize=1)
def _load_index(file: Path, identity: str) -> PageIndex:
    """A worker compares many partitions with one benchmark; `identity` says when it is another."""
    return PageIndex(read_records(file, BenchmarkPage))


def _unwanted(b: Build, gone: set[str]) -> list[Rejected]:
    """Documents whose language the filter does not name."""
    refused = []
    for document in (d for name in b.partitions for d in b.kept(name)):
        reason, detail = unwanted_language(document.language, b.config.ingest)
        if reason and document.doc_id not in gone:
            refused.append(Rejected(id=document.doc_id, stage="clean", reason=reason, detail=detail))
    return refused


def _near_duplicates(b: Build, signatures: dict[str, Signature]) -> list[Rejected]:
    """Documents of which a better copy stays. Decided anew only when a sketch, a setting or the choice changed."""
    documents = {d.doc_id: d for name in b.partitions for d in b.kept(name)}
    c = b.config.clean
    sketched = [b.marker("sketches", name).output for name in b.partitions]
    chosen = sorted((d.doc_id, d.uri) for d in documents.values())
    settings = [c.duplicate_pages, c.duplicate_words, c.duplicate_image]
    fingerprint = content_id("duplicates", STAGE_VERSION, sketched, chosen, settings)
    file = b.run.work("duplicates.parquet")
    if not b.run.is_done("duplicates", "all", fingerprint):
        ranked = sorted(documents.values(), key=lambda d: dedup.copy_rank(d, signatures[d.doc_id]))
        found = dedup.find_duplicates([signatures[d.doc_id] for d in ranked], _sketch_reader(b), c)
        rows = [
            Rejected(
                id=f.doc_id, stage="clean", reason="near-duplicate", detail=dedup.explain(f, documents[f.kept].uri)
            )
            for f in found
        ]
        b.run.reopen("duplicates", "all")
        write_records(file, Rejected, rows)
        b.run.finish("duplicates", "all", fingerprint, [file])
        b.work["clean"] += 1
    return read_records(file, Rejected)


def _sketch_reader(b: Build) -> Callable[[str], list[PageSketch]]:
    """A document's sketches, the last documents kept."""

    @functools.lru_cache(maxsize=1_024)
    def read(doc_id: str) -> list[PageSketch]:
        file = b.run.work("sketches", f"{partition_of(doc_id, b.num_partitions)}.parquet")
        return read_records(file, PageSketch, filters=[("doc_id", "=", doc_id)])

    return read
