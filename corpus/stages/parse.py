"""Documents to pages, document by document; a partition is written when the last of its documents is done."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpus import parse, render
from corpus.ocr import engine_version
from corpus.records import Document, Page, Rejected, content_id
from corpus.stages.state import Build
from corpus.store import schema_of, write_json, write_table
from corpus.workers import LIMIT_REASONS, Failure, Task


def run(b: Build) -> str:
    stage = content_id(
        "parse", parse.STAGE_VERSION, b.config.parse.model_dump(), b.config.ocr.model_dump(), render.VERSION,
        engine_version(b.config.ocr.engine),
    )  # fmt: skip
    b.run.drop("pages", keep=b.partitions)
    done: dict[str, str] = {}
    todo: dict[str, str] = {}
    for name, documents in b.partitions.items():
        fingerprint = content_id(stage, [d.doc_id for d in documents])
        is_done = b.run.is_done("pages", name, fingerprint) and not _worth_retrying(b, name)
        (done if is_done else todo)[name] = fingerprint
    total = sum(d.num_pages for d in b.documents)
    b.progress.stage("parse", len(b.documents), "documents")
    b.progress.advance(units=sum(len(b.partitions[name]) for name in done))

    waiting: dict[str, set[str]] = {}
    tasks = []
    for name in todo:
        _reuse_pages(b, name, stage)
        missing = [d for d in b.partitions[name] if not _parsed(b, d, stage)]
        b.progress.advance(units=len(b.partitions[name]) - len(missing))
        waiting[name] = {d.doc_id for d in missing}
        for d in missing:
            job = parse.ParseJob(
                document=d,
                parse=b.config.parse,
                ocr=b.config.ocr,
                password=b.password,
                out=_work_file(b, d, stage),
            )
            limit = b.config.workers.timeout_s + b.config.workers.page_timeout_s * d.num_pages
            tasks.append(Task((name, d.doc_id, d.num_pages), parse.parse_to_file, job, limit))
    tasks.sort(key=lambda t: -t.key[2])  # the longest first, so that none holds up the end
    for name in [n for n, missing in waiting.items() if not missing]:
        _merge_pages(b, name, todo[name], stage)
    for outcome in b.pool.run(tasks, lambda pages: b.progress.advance(pages=pages)):
        name, doc_id, _ = outcome.key
        if isinstance(outcome.value, Failure):
            failure = {"reason": outcome.value.reason, "detail": outcome.value.detail}
            write_json(b.run.work("parse", f"{doc_id}-{stage}.json"), failure)
        b.work["parse"] += 1
        b.progress.advance(units=1)
        waiting[name].discard(doc_id)
        if not waiting[name]:
            _merge_pages(b, name, todo[name], stage)
    sources: Counter[str] = Counter()
    for marker in b.run.markers("pages").values():
        sources.update(marker.facts["text_sources"])
        for doc_id, failure in marker.facts["failures"].items():
            b.rejected[doc_id] = Rejected(id=doc_id, stage="parse", **failure)
    by_source = ", ".join(f"{n} {source}" for source, n in sorted(sources.items()))
    return f"{total} pages ({by_source or 'none'})"


def _worth_retrying(b: Build, name: str) -> bool:
    """True where a document hit a limit of its worker and the limits are others now."""
    facts = b.marker("pages", name).facts
    hit = any(f["reason"] in LIMIT_REASONS for f in facts["failures"].values())
    return hit and facts["limits"] != b.config.workers.model_dump()


def _work_file(b: Build, document: Document, stage: str) -> Path:
    return b.run.work("parse", f"{document.doc_id}-{stage}.parquet")


def _parsed(b: Build, document: Document, stage: str) -> bool:
    file = _work_file(b, document, stage)
    return file.is_file() or file.with_suffix(".json").is_file()


def _reuse_pages(b: Build, name: str, stage: str) -> None:
    """Take the pages of unchanged documents out of a partition that has to be written anew."""
    marker = b.run.marker("pages", name)
    if marker is None or marker.facts["stage"] != stage:
        return
    table = pq.read_table(b.run.path("pages", f"{name}.parquet"), schema=schema_of(Page))
    for document in b.partitions[name]:
        if document.doc_id in marker.facts["documents"] and not _parsed(b, document, stage):
            write_table(_work_file(b, document, stage), table.filter(pc.equal(table["doc_id"], document.doc_id)))


def _merge_pages(b: Build, name: str, fingerprint: str, stage: str) -> None:
    """One file for a partition from the files of its documents, in the order of their ids."""
    tables, failures, used = [schema_of(Page).empty_table()], {}, []
    for document in b.partitions[name]:
        file = _work_file(b, document, stage)
        if file.is_file():
            tables.append(pq.read_table(file, schema=schema_of(Page)))
            used.append(file)
        else:
            failures[document.doc_id] = json.loads(file.with_suffix(".json").read_text())
            used.append(file.with_suffix(".json"))
    pages = pa.concat_tables(tables)
    out = b.run.path("pages", f"{name}.parquet")
    b.run.reopen("pages", name)
    write_table(out, pages)
    read = [d.doc_id for d in b.partitions[name] if d.doc_id not in failures]
    ocr = Counter(pages.filter(pc.equal(pages["text_source"], "ocr"))["doc_id"].to_pylist())
    facts = {
        "stage": stage,
        "documents": read,
        "failures": failures,
        "limits": b.config.workers.model_dump(),
        "ocr_pages": dict(sorted(ocr.items())),
        "text_sources": dict(sorted(Counter(pages["text_source"].to_pylist()).items())),
    }
    b.run.finish("pages", name, fingerprint, [out], facts)
    for file in used:
        file.unlink()
