"""Inputs to documents and their partitions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from corpus.fetch import transfer_s
from corpus.ingest import Probe, ProbeJob, Source, judge, probe_file, reusable, stat_file
from corpus.rundir import partition_of
from corpus.stages.state import Build
from corpus.storage import is_url
from corpus.store import read_records, write_records
from corpus.workers import Failure, Task

CACHE_EVERY = 1_000  # files; what a kill may cost
CACHE_EVERY_S = 60.0  # or this, because remote files take longer
REQUESTS = 16  # questions to a server at a time


def run(b: Build, sources: list[Source]) -> str:
    b.progress.stage("ingest", len(sources), "files")
    cache_file = b.run.work("ingest.parquet")
    try:
        cached = {p.uri: p for p in read_records(cache_file, Probe)}
    except (OSError, pa.ArrowException):
        cached = {}  # no cache, or a damaged one: every file is opened anew
    probes = {}
    tasks = []
    for now in _seen(b, sources):
        if now.uri in cached and reusable(cached[now.uri], now):
            probes[now.uri] = cached[now.uri]
        elif now.reason:
            probes[now.uri] = now
            b.work["ingest"] += 1
        else:
            job = ProbeJob(seen=now, password=b.password, storage=b.config.storage)
            limit = b.config.workers.timeout_s + transfer_s(now.uri, now.num_bytes, b.config.storage)
            tasks.append(Task(now, probe_file, job, limit))
    b.progress.advance(units=len(probes))
    written, written_at = len(probes), time.monotonic()
    for outcome in b.pool.run(tasks, lambda _: None):
        probe = outcome.value
        if isinstance(probe, Failure):
            probe = replace(outcome.key, reason=probe.reason, detail=probe.detail)
        probes[probe.uri] = probe
        b.work["ingest"] += 1
        b.progress.advance(units=1)
        if len(probes) >= written + CACHE_EVERY or time.monotonic() > written_at + CACHE_EVERY_S:
            _keep(cache_file, cached | probes)
            written, written_at = len(probes), time.monotonic()
    if tasks:
        _keep(cache_file, cached | probes)
    b.inputs = judge(sources, probes, b.config.ingest)
    accepted = sorted((i.document for i in b.inputs if not i.reason), key=lambda d: d.doc_id)
    b.num_partitions = b.run.num_partitions(len(accepted))
    for document in accepted:
        name = partition_of(document.doc_id, b.num_partitions)
        b.partitions.setdefault(name, []).append(document)
    rejected = len(sources) - len(accepted)
    return f"{len(accepted)} documents, {sum(d.num_pages for d in accepted)} pages, {rejected} inputs rejected"


def _seen(b: Build, sources: list[Source]) -> Iterator[Probe]:
    """What every source looks like from outside; servers are asked about several at a time."""
    remote = [s.uri for s in sources if is_url(s.uri)]
    with ThreadPoolExecutor(REQUESTS) as threads:
        answers = dict(zip(remote, threads.map(lambda uri: stat_file(uri, b.config.storage), remote), strict=True))
    return (answers[s.uri] if s.uri in answers else stat_file(s.uri, b.config.storage) for s in sources)


def _keep(file: Path, probes: dict[str, Probe]) -> None:
    """Write the cache; the order in which files were opened leaves no trace."""
    write_records(file, Probe, [probes[uri] for uri in sorted(probes)])
