"""What the stages of one build share, and how they ask for upstream results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from corpus.benchmark_sets import BenchmarkSet
from corpus.chat_chunks import Chunk
from corpus.config import Config
from corpus.errors import EngineError
from corpus.fetch import transfer_s
from corpus.ingest import Ingested
from corpus.progress import BuildProgress
from corpus.records import Document, Rejected
from corpus.rundir import Marker, RunDir
from corpus.storage import is_url
from corpus.workers import Failure, WorkerPool
from synth.usage import Usage


@dataclass(kw_only=True)
class Build:
    """State of one build. `ingest` fills in the inputs and the partitions, later stages what they refuse."""

    run: RunDir
    config: Config
    pool: WorkerPool
    progress: BuildProgress
    password: str | None
    benchmark: BenchmarkSet = field(default_factory=BenchmarkSet)  # what must stay out
    num_partitions: int = 0
    inputs: list[Ingested] = field(default_factory=list)
    partitions: dict[str, list[Document]] = field(default_factory=dict)  # by name, documents by id
    short: dict[str, Chunk] = field(default_factory=dict)  # of the chat files, by name, in their order
    rejected: dict[str, Rejected] = field(default_factory=dict)  # after ingest, by document id
    work: Counter[str] = field(default_factory=Counter)  # units done now, by stage
    seconds: dict[str, float] = field(default_factory=dict)  # by stage
    usage: Usage = field(default_factory=Usage)  # what asking models cost now
    usage_before: Usage = field(default_factory=Usage)  # and in earlier attempts of this run
    num_asked: int = 0  # documents that a model was asked about now
    questions: dict[str, Any] = field(default_factory=dict)  # how many passed, for run.json

    @property
    def documents(self) -> list[Document]:
        """Every accepted document."""
        return [d for documents in self.partitions.values() for d in documents]

    @property
    def spent(self) -> Usage:
        """What asking models cost this run so far."""
        spent = Usage()
        spent.merge(self.usage_before)
        spent.merge(self.usage)
        return spent

    def kept(self, partition: str) -> list[Document]:
        """The documents of a partition that no stage has refused so far."""
        return [d for d in self.partitions[partition] if d.doc_id not in self.rejected]

    def marker(self, stage: str, partition: str) -> Marker:
        """The marker of a partition that must be done."""
        marker = self.run.marker(stage, partition)
        assert marker is not None, f"{stage} {partition} is not done"
        return marker


def blame(b: Build, stage: str, work: Sequence[tuple[str, int]], failure: Failure) -> str:
    """Reject the document that a worker was busy with when it failed, and return its id.

    Args:
        work: document ids and their numbers of pages, in the order of the task's progress.

    Raises:
        EngineError: the fault lies in none of them.
    """
    done = 0
    for doc_id, num_pages in work:
        done += num_pages
        if failure.pages_done < done:
            b.rejected[doc_id] = Rejected(id=doc_id, stage=stage, reason=failure.reason, detail=failure.detail)
            return doc_id
    raise EngineError(f"{stage}: {failure.reason}: {failure.detail}; then run the same command again")


def pages_of(documents: Sequence[Document]) -> list[tuple[str, int]]:
    """What `blame` needs of documents that are done whole, one after the other."""
    return [(d.doc_id, d.num_pages) for d in documents]


def time_limit(b: Build, documents: Sequence[Document]) -> float:
    """Seconds that a worker may take for these documents, if any."""
    limits = b.config.workers
    transfers = _upload_s(b) + sum(transfer_s(d.uri, d.num_bytes, b.config.storage) for d in documents)
    pages = sum(d.num_pages for d in documents)
    return transfers + limits.timeout_s * (1 + len(documents)) + limits.page_timeout_s * pages


def stall_limit(b: Build, documents: Sequence[Document]) -> float:
    """Seconds that a worker may take without finishing a page; nothing is told of a transfer while it lasts."""
    longest = max((transfer_s(d.uri, d.num_bytes, b.config.storage) for d in documents), default=0.0)
    return b.config.workers.timeout_s + longest + _upload_s(b)


def _upload_s(b: Build) -> float:
    """Seconds that the largest file of a remote run may take to be written; a local one is written on the way."""
    run = str(b.run.root)
    return transfer_s(run, b.config.shards.max_bytes, b.config.storage) if is_url(run) else 0.0
