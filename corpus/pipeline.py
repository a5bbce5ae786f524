"""The build: documents -> pages -> those that stay -> questions -> windows and shards -> mixture -> plan -> report.

Conversations of the user's (short data) join the samples beside those of the documents.

With `corpus.stages` and `corpus.cli`, the composition root: nothing else in `corpus` knows `synth` and `packing`. Each
stage asks which partitions are not done, lets workers do those, and marks each one last; a kill at any moment costs
what was in flight. What a partition contains depends on its documents and the settings of its stage, never on workers.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

import corpus
from corpus.benchmark_sets import read_benchmarks
from corpus.chat_chunks import labelled
from corpus.config import Config
from corpus.ingest import expand_inputs
from corpus.ledger import make_ledger
from corpus.ocr import engine_version
from corpus.progress import BuildProgress
from corpus.records import STAGES, LedgerEntry, Question, Rejected
from corpus.report import write_report
from corpus.rundir import RunDir
from corpus.sharding import renderer_version
from corpus.stages import ask, clean, ingest, mixture, parse, plan, shard, short, synthesise
from corpus.stages.state import Build
from corpus.storage import path_of
from corpus.store import read_records, read_table, schema_of, to_table, write_json, write_records, write_table
from corpus.vision_tokens import FAMILIES
from corpus.workers import WorkerPool
from packing.lengths import check_template, load_counter
from synth.question_files import read_question_files
from synth.usage import usage_of

PACKAGES = (
    "pymupdf", "pillow", "rapidocr", "onnxruntime", "pyarrow", "numpy", "datasketch", "imagehash", "py3langid", "scipy"
)  # fmt: skip


@dataclass(kw_only=True)
class BuildResult:
    """What a build came to."""

    run: Path
    until: str
    ledger: list[LedgerEntry]
    work: dict[str, int]  # units of work done now, by stage; 0 = everything was done before
    mixture: str  # what it came to, '' where there is none
    plan: str  # file name, '' where there is none
    num_samples: int
    num_tokens: int
    fill: float | None
    projected: str = ""  # what asking about all inputs would cost, where `limit` left some out


def build(
    inputs: Sequence[str],
    out: str | Path,
    config: Config,
    *,
    workers: int = 1,
    limit: int | None = None,
    until: str = STAGES[-1],
    password: str | None = None,
    quiet: bool = False,
) -> BuildResult:
    """Run every stage up to `until`; what an earlier run finished is kept.

    Args:
        inputs: PDF files, folders, globs, manifests; paths or URLs.
        out: run directory, a path or a URL.
        workers: processes; they change the time, never a byte.
        limit: take the first N inputs only.

    Raises:
        ConfigError: the user's to mend.
        EngineError: the outside failed; running again goes on from there.
    """
    sources = expand_inputs(inputs, limit, config.storage)
    check_template(load_counter(config.tokenizer), FAMILIES[config.model])  # a mistake shows now, not after an hour
    plan.model_dims(config)
    read_question_files(config.synth.files)
    labelled(config.mixture.short.files)
    ask.check(config.synth)
    benchmark = read_benchmarks(config.clean.decontaminate, config.storage)
    renderer_version(config.render.backend)
    engine_version(config.ocr)
    run = RunDir(path_of(out, config.storage))
    run.prepare()
    pool = WorkerPool(workers, config.workers.memory_mb, config.workers.recycle_after)
    with run.lock(), BuildProgress(quiet) as progress, pool:
        state = Build(run=run, config=config, pool=pool, progress=progress, password=password, benchmark=benchmark)
        steps: dict[str, Callable[[], str]] = {
            "ingest": lambda: ingest.run(state, sources),
            "parse": lambda: parse.run(state),
            "clean": lambda: clean.run(state),
            "synthesise": lambda: synthesise.run(state),
            "short": lambda: short.run(state),
            "shard": lambda: shard.run(state),
            "mixture": lambda: mixture.run(state),
            "plan": lambda: plan.run(state),
        }
        before = _recorded(run)
        state.usage_before, state.questions = usage_of(before["spent"]), before["questions"]
        _write_run_json(state, before, until, complete=False)
        try:
            for stage, step in steps.items():
                started = time.monotonic()
                if note := step():
                    progress.end(note)
                state.seconds[stage] = round(time.monotonic() - started, 3)
                if stage == until:
                    break
        finally:
            if state.usage.purposes or "synthesise" in state.seconds:  # what was paid is said, whatever happened
                _write_run_json(state, before, until, complete=False)
        result = _report(state, until)
        _write_run_json(state, before, until, complete=until == STAGES[-1])
        if limit and state.usage.purposes:
            result.projected = ask.projection(state, len(expand_inputs(inputs, None, config.storage)))
        return result


def _report(b: Build, until: str) -> BuildResult:
    """Ledger, rejections, run.json, and for a whole build the report and the dataset card."""
    reached = STAGES.index(until)
    ocr, accepted, cuts, tokens, mixed, note = {}, {}, None, [], "", {}
    if reached >= STAGES.index("parse"):
        ocr = {d: n for m in b.run.markers("pages").values() for d, n in m.facts["ocr_pages"].items()}
    if reached >= STAGES.index("synthesise"):
        accepted = {d: n for m in b.run.markers("questions").values() for d, n in m.facts["accepted"].items()}
    if reached >= STAGES.index("shard"):
        cuts = {d: f for m in b.run.markers("windows").values() for d, f in m.facts["cuts"].items()}
        tokens = read_table(b.run.path("samples.parquet"), columns=["num_tokens"])["num_tokens"].to_pylist()
    if reached >= STAGES.index("mixture"):
        mixed = b.marker("mixture", "all").facts["note"]
    if reached >= STAGES.index("plan"):
        note = b.marker("plan", "all").facts
    detected = {d.doc_id: d.language for d in b.documents if d.language_source == "detected"}
    ledger = make_ledger(b.inputs, b.rejected, until, cuts, accepted, ocr, detected)
    write_records(b.run.path("ledger.parquet"), LedgerEntry, ledger)
    _write_rejected(b, ledger, reached)
    if until == STAGES[-1]:
        write_report(b.run.root)
    return BuildResult(
        run=b.run.root,
        until=until,
        ledger=ledger,
        work=dict(b.work),
        mixture=mixed,
        plan=note.get("plan", ""),
        num_samples=len(tokens),
        num_tokens=sum(tokens),
        fill=note.get("fill"),
    )


def _write_rejected(b: Build, ledger: Iterable[LedgerEntry], reached: int) -> None:
    """Everything that was refused, at whatever stage, in one table."""
    rows = [
        Rejected(id=e.doc_id or e.uri, stage=e.stage, reason=e.reason, detail=e.detail)
        for e in ledger
        if e.status == "rejected"
    ]
    names = []
    if reached >= STAGES.index("clean"):
        names.append("clean")
    if reached >= STAGES.index("synthesise"):
        names += ["synthesise", *(f"synthesise-{name}" for name in b.partitions)]
        for name in b.partitions:
            questions = read_records(b.run.path("questions", f"{name}.parquet"), Question)
            rows += [
                Rejected(id=q.question_id, stage="synthesise", reason=q.reason, detail=q.detail)
                for q in questions
                if not q.accepted
            ]
    if reached >= STAGES.index("shard"):
        names += [f"shard-{name}" for name in b.partitions]
    files = [b.run.work("rejected", f"{name}.parquet") for name in names]
    if reached >= STAGES.index("short"):
        files += short.rejected_files(b)
    tables = [to_table(Rejected, rows), *(read_table(file, schema=schema_of(Rejected)) for file in files)]
    write_table(b.run.path("rejected.parquet"), pa.concat_tables(tables))


def _recorded(run: RunDir) -> dict[str, Any]:
    """What the last build of this run took and spent, by stage and purpose, and how its questions fared."""
    try:
        found = json.loads(run.path("run.json").read_text(encoding="utf-8"))
        return {"seconds": dict(found["seconds"]), **{k: dict(found.get(k, {})) for k in ("spent", "questions")}}
    except (OSError, ValueError, KeyError, TypeError):
        return {"seconds": {}, "spent": {}, "questions": {}}


def _write_run_json(b: Build, before: Mapping[str, Any], until: str, complete: bool) -> None:
    spent = b.spent
    write_json(
        b.run.path("run.json"),
        {
            "complete": complete,
            "until": until,
            "config": b.config.model_dump(mode="json"),
            "versions": {
                "longdoc": corpus.__version__,
                "python": platform.python_version(),
                **{p: importlib.metadata.version(p) for p in PACKAGES},
                "renderer": renderer_version(b.config.render.backend),
                "ocr": engine_version(b.config.ocr),
            },
            "num_partitions": b.num_partitions,
            "work": dict(b.work),
            "seconds": {**before["seconds"], **b.seconds},
            "spent": spent.to_dict(ask.prices_of(b.config.synth)) if spent.purposes else {},
            "questions": b.questions,
        },
    )
