"""What the stages of one build share, and how they ask for upstream results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from corpus.config import Config
from corpus.errors import EngineError
from corpus.fetch import transfer_s
from corpus.ingest import Ingested
from corpus.progress import BuildProgress
from corpus.records import Document, Rejected
from corpus.rundir import Marker, RunDir
from corpus.workers import Failure, WorkerPool


@dataclass(kw_only=True)
class Build:
    """State of one build. `ingest` fills in the inputs and the partitions, later stages what they refuse."""

    run: RunDir
    config: Config
    pool: WorkerPool
    progress: BuildProgress
    password: str | None
    num_partitions: int = 0
    inputs: list[Ingested] = field(default_factory=list)
    partitions: dict[str, list[Document]] = field(default_factory=dict)  # by name, documents by id
    rejected: dict[str, Rejected] = field(default_factory=dict)  # after ingest, by document id
    work: Counter[str] = field(default_factory=Counter)  # units done now, by stage
    seconds: dict[str, float] = field(default_factory=dict)  # by stage

    @property
    def documents(self) -> list[Document]:
        """Every accepted document."""
        return [d for documents in self.partitions.values() for d in documents]

    def marker(self, stage: str, partition: str) -> Marker:
        """The marker of a partition that must be done."""
        marker = self.run.marker(stage, partition)
        assert marker is not None, f"{stage} {partition} is not done"
        return marker


def value_of(result: Any, what: str) -> Any:
    """A partition's result.

    Raises:
        EngineError: it could not be computed; since whole partitions hold many documents, no document is blamed.
    """
    if isinstance(result, Failure):
        raise EngineError(f"{what}: {result.reason}: {result.detail}; then run the same command again")
    return result


def time_limit(b: Build, documents: Sequence[Document]) -> float:
    """Seconds that a worker may take for these documents, if any."""
    limits = b.config.workers
    transfers = sum(transfer_s(d.uri, d.num_bytes, b.config.storage) for d in documents)
    pages = sum(d.num_pages for d in documents)
    return transfers + limits.timeout_s * (1 + len(documents)) + limits.page_timeout_s * pages
