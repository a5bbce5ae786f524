"""Documents to pages: runs of pages in parallel, so that a long document does not hold up the run; then partitions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc

from corpus import page_images, parse, render
from corpus.fetch import FETCH_FAILED
from corpus.ocr import identity
from corpus.records import Document, Page, Rejected, content_id
from corpus.stages.state import Build, blame, pages_of, stall_limit, time_limit
from corpus.store import read_table, schema_of, write_json, write_table
from corpus.workers import LIMIT_REASONS, WORKER_DIED, Failure, Task

PAGES_PER_TASK = 16
PASSING_REASONS = ("encrypted", "wrong-password", "unreadable", FETCH_FAILED, "source-changed", WORKER_DIED)


def run(b: Build) -> str:
    """Parse what no finished partition holds."""
    stage = content_id(
        "parse", parse.STAGE_VERSION, str(schema_of(Page)), b.config.parse.model_dump(),
        render.VERSION, identity(b.config.ocr), page_images.ENGINE,
    )  # fmt: skip
    b.run.drop("pages", keep=b.partitions)
    todo = {}
    for name, documents in b.partitions.items():
        fingerprint = content_id(stage, [d.doc_id for d in documents])
        if not b.run.is_done("pages", name, fingerprint) or _worth_retrying(b, name):
            todo[name] = fingerprint
    total = sum(d.num_pages for d in b.documents)
    b.progress.stage("parse", total, "pages", documents=len(b.documents))
    done = [d for name, documents in b.partitions.items() if name not in todo for d in documents]
    b.progress.advance(units=sum(d.num_pages for d in done), documents=len(done))
    _remove_stale_pieces(b, {f"{d.doc_id}-{stage}" for name in todo for d in b.partitions[name]})
    for name in todo:
        _reuse_pages(b, name, stage)
    _parse_documents(b, [d for name in todo for d in b.partitions[name]], stage)
    _join_partitions(b, todo, stage)
    sources: Counter[str] = Counter()
    for marker in b.run.markers("pages").values():
        sources.update(marker.facts["text_sources"])
        for doc_id, failure in marker.facts["failures"].items():
            b.rejected[doc_id] = Rejected(id=doc_id, stage="parse", **failure)
    by_source = ", ".join(f"{n} {source}" for source, n in sorted(sources.items()))
    return f"{total} pages ({by_source or 'none'})"


def _remove_stale_pieces(b: Build, wanted: set[str]) -> None:
    """Delete what a killed run left of other documents or settings, and its failures: limits may be others now."""
    for file in b.run.scratch("parse").glob("*"):
        doc_id, stage, what = file.name.split("-", 2)
        if f"{doc_id}-{stage}" not in wanted or what == "failed.json":
            file.unlink()


def _parse_documents(b: Build, documents: list[Document], stage: str) -> None:
    """Parse the page runs that have no file yet; a failure of one is the failure of its document."""
    runs: list[parse.ParseJob] = []
    missing: Counter[str] = Counter()
    for document in documents:
        pieces = _pieces(b, document, stage)
        absent = [] if _failed(b, document, stage).is_file() else [f for f in pieces if not pieces[f].is_file()]
        present = document.num_pages - sum(_run_length(document, first) for first in absent)
        b.progress.advance(units=present, documents=not absent)
        missing[document.doc_id] = len(absent)
        for first in absent:
            runs.append(
                parse.ParseJob(
                    document=document,
                    first_page=first,
                    num_pages=_run_length(document, first),
                    parse=b.config.parse,
                    ocr=b.config.ocr,
                    password=b.password,
                    out=pieces[first],
                    storage=b.config.storage,
                )
            )
    failed: set[str] = set()

    def tasks() -> Iterator[Task[Document]]:
        for job in runs:
            if job.document.doc_id not in failed:
                stall = stall_limit(b, [job.document])
                limit = stall + b.config.workers.page_timeout_s * job.num_pages
                yield Task(job.document, parse.parse_pages, job, limit, stall)

    for outcome in b.pool.run(tasks(), lambda pages: b.progress.advance(units=pages, pages=pages)):
        document = outcome.key
        missing[document.doc_id] -= 1
        if isinstance(outcome.value, Failure):
            _record_failure(b, document, stage, outcome.value)
        if isinstance(outcome.value, Failure) or not missing[document.doc_id]:
            b.work["parse"] += document.doc_id not in failed
            b.progress.advance(documents=document.doc_id not in failed)
        if isinstance(outcome.value, Failure):
            failed.add(document.doc_id)


def _join_partitions(b: Build, todo: dict[str, str], stage: str) -> None:
    waiting = set(todo)
    while waiting:
        tasks = []
        for name in sorted(waiting):
            sound = [d for d in b.partitions[name] if not _failed(b, d, stage).is_file()]
            b.run.reopen("pages", name)
            job = parse.JoinJob(
                documents=tuple(sound),
                pieces={d.doc_id: tuple(_pieces(b, d, stage).values()) for d in sound},
                password=b.password,
                out=b.run.path("pages", f"{name}.parquet"),
                storage=b.config.storage,
            )
            tasks.append(Task((name, sound), parse.join_partition, job, time_limit(b, sound), stall_limit(b, sound)))
        for outcome in b.pool.run(tasks, lambda _: None):
            name, sound = outcome.key
            if isinstance(outcome.value, Failure):
                doc_id = blame(b, "parse", pages_of(sound), outcome.value)
                _record_failure(b, next(d for d in sound if d.doc_id == doc_id), stage, outcome.value)
            else:
                _finish(b, name, todo[name], stage, outcome.value)
                waiting.remove(name)


def _record_failure(b: Build, document: Document, stage: str, failure: Failure) -> None:
    write_json(_failed(b, document, stage), {"reason": failure.reason, "detail": failure.detail})


def _finish(b: Build, name: str, fingerprint: str, stage: str, joined: parse.Joined) -> None:
    failures = {d: {"reason": r, "detail": detail} for d, (r, detail) in joined.failures.items()}
    for document in b.partitions[name]:
        file = _failed(b, document, stage)
        if file.is_file():
            failures[document.doc_id] = json.loads(file.read_text(encoding="utf-8"))
    facts = {
        "stage": stage,
        "documents": [d.doc_id for d in b.partitions[name] if d.doc_id not in failures],
        "failures": failures,
        "limits": b.config.workers.model_dump(),
        "ocr_pages": joined.ocr_pages,
        "text_sources": joined.text_sources,
    }
    b.run.finish("pages", name, fingerprint, [b.run.path("pages", f"{name}.parquet")], facts)
    for document in b.partitions[name]:
        for file in (*_pieces(b, document, stage).values(), _failed(b, document, stage)):
            file.unlink(missing_ok=True)


def _worth_retrying(b: Build, name: str) -> bool:
    """True where a document failed for a reason that lies outside its bytes and may be gone."""
    facts = b.marker("pages", name).facts
    reasons = {f["reason"] for f in facts["failures"].values()}
    other_limits = facts["limits"] != b.config.workers.model_dump()
    return not reasons.isdisjoint(PASSING_REASONS) or (other_limits and not reasons.isdisjoint(LIMIT_REASONS))


def _pieces(b: Build, document: Document, stage: str) -> dict[int, Path]:
    """Files of a document's page runs by their first page; one file where its pages were taken over whole."""
    whole = b.run.scratch("parse", f"{document.doc_id}-{stage}-whole.parquet")
    if whole.is_file():
        return {0: whole}
    firsts = range(0, document.num_pages, PAGES_PER_TASK)
    return {first: b.run.scratch("parse", f"{document.doc_id}-{stage}-{first:06d}.parquet") for first in firsts}


def _run_length(document: Document, first: int) -> int:
    return min(PAGES_PER_TASK, document.num_pages - first)


def _failed(b: Build, document: Document, stage: str) -> Path:
    return b.run.scratch("parse", f"{document.doc_id}-{stage}-failed.json")


def _reuse_pages(b: Build, name: str, stage: str) -> None:
    """Take the pages of unchanged documents out of a partition that has to be written anew."""
    marker = b.run.marker("pages", name)
    if marker is None or marker.facts["stage"] != stage:
        return
    table = read_table(b.run.path("pages", f"{name}.parquet"), schema=schema_of(Page))
    for document in b.partitions[name]:
        if document.doc_id in marker.facts["documents"]:
            whole = b.run.scratch("parse", f"{document.doc_id}-{stage}-whole.parquet")
            write_table(whole, table.filter(pc.equal(table["doc_id"], document.doc_id)))
