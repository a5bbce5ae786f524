"""Whatever happens to a worker, at whatever stage, costs its document alone; a death from outside costs only time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import fakes
import pytest

from corpus import parse, sharding
from corpus.config import Config, load_config
from corpus.errors import EngineError
from corpus.linting import lint_run
from corpus.pipeline import build
from corpus.records import LedgerEntry, Rejected
from corpus.store import read_records
from corpus.workers import ATTEMPTS, CRASHED, OUT_OF_MEMORY, TIMEOUT, Failure
from packing import samples
from synth import write

QUICK = ("parse.layout=fonts", "windows.min_tokens=1000", "synth.min_segment_pages=3", "synth.max_segment_pages=5")


def quick(*more: str) -> Config:
    return load_config(None, (*QUICK, *more))


def fault_in(function: Any, doc_ids: set[str], reason: str) -> Callable[[Any], Failure | None]:
    """A fault of every task of `function` that goes through one of these documents, reported at its second page."""

    def fault(task: Any) -> Failure | None:
        if task.function is not function:
            return None
        done = 0
        for doc_id, num_pages in work_of(task.argument):
            if doc_id in doc_ids:
                return Failure(reason, "it happened", done + min(1, num_pages - 1))
            done += num_pages
        return None

    return fault


def work_of(job: Any) -> list[tuple[str, int]]:
    if isinstance(job, sharding.ShardJob):
        return [(w.window.doc_id, w.window.num_pages) for w in job.windows]
    if isinstance(job, parse.ParseJob):
        return [(job.document.doc_id, job.document.num_pages)]
    refused = getattr(job, "rejected", frozenset())
    return [("" if d.doc_id in refused else d.doc_id, d.num_pages) for d in job.documents]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    for n in range(3):
        lines = "\n".join(f"{n}{{page}} The council of the harbour reads its report on copper." for _ in range(20))
        fakes.write_pdf(folder / f"{n}.pdf", pages=5 + n, text=lines)
    return folder


def ends(run: Path) -> dict[str, tuple[str, str, str]]:
    return {Path(e.uri).name: (e.status, e.stage, e.reason) for e in read_records(run / "ledger.parquet", LedgerEntry)}


def doc_id_of(inputs: Path, name: str) -> str:
    import hashlib

    return hashlib.sha256((inputs / name).read_bytes()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("function", "stage"),
    [
        (parse.parse_pages, "parse"),
        (parse.join_partition, "parse"),
        (write.synthesise_partition, "synthesise"),
        (samples.cut_partition, "shard"),
        (sharding.shard_partition, "shard"),
    ],
)
@pytest.mark.parametrize("partitions", [1, 16])
def test_a_fault_costs_its_document_at_every_stage(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: Any, stage: str, partitions: int
) -> None:
    monkeypatch.setattr("corpus.rundir.MIN_PARTITIONS", partitions)  # alone in its partition, or among others
    guilty = doc_id_of(inputs, "1.pdf")
    monkeypatch.setattr("corpus.pipeline.WorkerPool", fakes.InlinePool(fault_in(function, {guilty}, TIMEOUT)))
    out = tmp_path / "run"
    build([str(inputs)], out, quick(), quiet=True)
    assert ends(out) == {
        "0.pdf": ("kept", "shard", ""),
        "1.pdf": ("rejected", stage, TIMEOUT),
        "2.pdf": ("kept", "shard", ""),
    }
    refused = {r.id: r.detail for r in read_records(out / "rejected.parquet", Rejected)}
    assert refused[guilty] == "it happened"
    lint_run(out)
    # The next build tries again, with other limits where limits were the reason, and then nothing is missing.
    monkeypatch.setattr("corpus.pipeline.WorkerPool", fakes.InlinePool(lambda _: None))
    build([str(inputs)], out, quick("workers.timeout_s=130"), quiet=True)
    assert {status for status, _, _ in ends(out).values()} == {"kept"}
    lint_run(out)


def test_all_documents_may_fail(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = {doc_id_of(inputs, f"{n}.pdf") for n in range(3)}
    pool = fakes.InlinePool(fault_in(sharding.shard_partition, every, OUT_OF_MEMORY))
    monkeypatch.setattr("corpus.pipeline.WorkerPool", pool)
    out = tmp_path / "run"
    build([str(inputs)], out, quick(), quiet=True)
    assert set(ends(out).values()) == {("rejected", "shard", OUT_OF_MEMORY)}


def test_a_fault_of_no_document_stops_the_build(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(task: Any) -> Failure | None:
        after = sum(n for _, n in work_of(task.argument)) if task.function is sharding.shard_partition else 0
        return Failure("internal-error", "wrong", after) if after else None

    monkeypatch.setattr("corpus.pipeline.WorkerPool", fakes.InlinePool(fault))
    with pytest.raises(EngineError, match="shard: internal-error: wrong; then run the same command again"):
        build([str(inputs)], tmp_path / "run", quick(), quiet=True)


def test_the_rest_of_a_failed_document_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes.write_pdf(tmp_path / "in" / "long.pdf", pages=80)
    begun: list[int] = []

    def fault(task: Any) -> Failure | None:
        if task.function is parse.parse_pages:
            begun.append(task.argument.first_page)
            return Failure(TIMEOUT, "it happened")
        return None

    monkeypatch.setattr("corpus.pipeline.WorkerPool", fakes.InlinePool(fault))
    result = build([str(tmp_path / "in")], tmp_path / "run", quick(), quiet=True)
    assert begun == [0]
    assert result.work["parse"] == 1
    assert ends(tmp_path / "run") == {"long.pdf": ("rejected", "parse", TIMEOUT)}


def workers_of(pid: int) -> list[int]:
    """Worker processes of a build."""
    try:
        pids = [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return [p for p in pids if b"spawn_main" in Path(f"/proc/{p}/cmdline").read_bytes()]
    except OSError:
        return []


def start(source: Path, out: Path, workers: int) -> subprocess.Popen[bytes]:
    settings = [text for setting in QUICK for text in ("--set", setting)]
    command = [sys.executable, "-m", "corpus.cli", "build", str(source), "--out", str(out), *settings]
    return subprocess.Popen([*command, "--workers", str(workers), "--quiet"])


def disturb(process: subprocess.Popen[bytes], kills: int, pause_s: Callable[[], float]) -> int:
    """Kill workers of a build, each once, with pauses; waits for the build and returns how many it were."""
    hit: set[int] = set()
    try:
        while process.poll() is None:
            time.sleep(pause_s())
            workers = [pid for pid in workers_of(process.pid) if pid not in hit]
            if workers and len(hit) < kills:
                with suppress(ProcessLookupError):
                    os.kill(workers[-1], signal.SIGKILL)
                    hit.add(workers[-1])
    finally:
        process.kill()
        process.wait()
    return len(hit)


def assert_same_bytes(calm: Path, hit: Path) -> None:
    names = ["ledger.parquet", "samples.parquet", "rejected.parquet", "shards/index.parquet"]
    tars = sorted(f.relative_to(calm) for f in calm.glob("shards/*.tar"))
    assert tars == sorted(f.relative_to(hit) for f in hit.glob("shards/*.tar"))
    for name in (*names, *tars):
        assert (calm / name).read_bytes() == (hit / name).read_bytes(), name
    assert not list(hit.rglob("*.tmp"))


def test_killed_workers_change_no_byte(inputs: Path, tmp_path: Path) -> None:
    calm, hit = tmp_path / "calm", tmp_path / "hit"
    assert start(inputs, calm, workers=2).wait(timeout=120) == 0
    draw = random.Random(4)
    process = start(inputs, hit, workers=2)
    kills = disturb(process, 8, lambda: draw.uniform(0.7, 1.5))
    assert process.returncode == 0
    assert kills >= 1, "the build was over before anything could happen to it"
    assert_same_bytes(calm, hit)


def test_kills_beyond_the_attempts_of_one_task_change_no_byte(tmp_path: Path) -> None:
    """One document, one worker: the workers that are killed at first sight all began with the same task."""
    fakes.write_pdf(tmp_path / "in" / "a.pdf", pages=6, text="The council of the harbour reads its report.\n" * 20)
    calm, hit = tmp_path / "calm", tmp_path / "hit"
    assert start(tmp_path / "in", calm, workers=1).wait(timeout=120) == 0
    process = start(tmp_path / "in", hit, workers=1)
    kills = 2 * ATTEMPTS[CRASHED] + 1
    assert disturb(process, kills, lambda: 0.01) == kills
    assert process.returncode == 0
    assert ends(hit) == {"a.pdf": ("kept", "shard", "")}
    assert_same_bytes(calm, hit)
