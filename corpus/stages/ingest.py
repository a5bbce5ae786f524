"""Inputs to documents and their partitions."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from corpus.ingest import Probe, Source, judge, probe_file, reusable, stat_file
from corpus.rundir import partition_of
from corpus.stages.state import Build
from corpus.store import read_records, write_records
from corpus.workers import Failure, Task

CACHE_EVERY = 1_000  # files; what a kill may cost


def run(b: Build, sources: list[Source]) -> str:
    b.progress.stage("ingest", len(sources), "files")
    cache_file = b.run.work("ingest.parquet")
    try:
        cached = {p.uri: p for p in read_records(cache_file, Probe)}
    except (OSError, pa.ArrowException):
        cached = {}  # no cache, or a damaged one: every file is opened anew
    probes = {}
    tasks = []
    for source in sources:
        now = stat_file(source.uri)
        if source.uri in cached and reusable(cached[source.uri], now):
            probes[source.uri] = cached[source.uri]
        else:
            limit = b.config.workers.timeout_s + now.num_bytes / 50e6  # a slow disk reads 50 MB/s
            tasks.append(Task(source.uri, probe_file, (source.uri, b.password), limit))
    b.progress.advance(units=len(probes))
    for outcome in b.pool.run(tasks, lambda _: None):
        probe = outcome.value
        if isinstance(probe, Failure):
            probe = replace(stat_file(outcome.key), reason=probe.reason, detail=probe.detail)
        probes[outcome.key] = probe
        b.work["ingest"] += 1
        b.progress.advance(units=1)
        if b.work["ingest"] % CACHE_EVERY == 0:
            write_records(cache_file, Probe, (cached | probes).values())
    if tasks:
        write_records(cache_file, Probe, (cached | probes).values())
    b.inputs = judge(sources, probes, b.config.ingest)
    accepted = sorted((i.document for i in b.inputs if not i.reason), key=lambda d: d.doc_id)
    b.num_partitions = b.run.num_partitions(len(accepted))
    for document in accepted:
        name = partition_of(document.doc_id, b.num_partitions)
        b.partitions.setdefault(name, []).append(document)
    rejected = len(sources) - len(accepted)
    return f"{len(accepted)} documents, {sum(d.num_pages for d in accepted)} pages, {rejected} inputs rejected"
