"""Samples to the packing plan."""

from __future__ import annotations

from corpus.config import Config
from corpus.messages import message_fingerprint
from corpus.records import content_id
from corpus.stages import short
from corpus.stages.state import Build
from corpus.store import read_table
from packing.cost import dims_of
from packing.lengths import load_counter
from packing.table import pack_table


def run(b: Build) -> str:
    c = b.config
    b.progress.stage("plan", 1, "plan")
    samples_file = b.run.path("samples.parquet")
    upstream = [*(b.marker("windows", name).output for name in b.partitions), *short.output(b)]
    fingerprint = content_id("plan", upstream, c.packing.model_dump(), c.seed, c.model, plan_identity(c))
    if b.run.is_done("plan", "all", fingerprint):
        return str(b.marker("plan", "all").facts["note"])
    b.run.reopen("plan", "all")
    folder = b.run.path("plan")
    folder.mkdir(exist_ok=True)
    for stale in folder.glob("plan-*"):
        stale.unlink()
    splits = read_table(samples_file, columns=["split"])["split"].to_pylist()
    if "train" not in splits:
        note = "no plan: there is no training sample"
        b.run.finish("plan", "all", fingerprint, [], {"note": note})
        return note
    report = pack_table(samples_file, folder, c.packing, c.seed, dims=dims_of(c.model), identity=plan_identity(c))
    b.work["plan"] += 1
    note = f"{report.num_samples} samples in {report.num_rows} rows, {report.num_steps} steps, fill {report.fill:.3f}"
    facts = {"note": note, "fill": report.fill, "plan": f"plan-{report.fingerprint}.parquet"}
    b.run.finish("plan", "all", fingerprint, sorted(folder.glob("plan-*")), facts)
    return note


def plan_identity(config: Config) -> dict[str, object]:
    """How the lengths were counted; a trainer whose own settings differ must refuse the plan."""
    return {
        "model": config.model,
        "tokenizer": load_counter(config.tokenizer).name,
        "messages": message_fingerprint(config.messages),
        "dpi": config.render.dpi,
    }
