"""The pool of samples to those that are trained on."""

from __future__ import annotations

import re

from corpus.records import content_id
from corpus.stages.state import Build
from corpus.store import file_sha256, read_table
from packing.mixture import MIXTURE_VERSION
from packing.mixture_report import format_mixture
from packing.mixture_table import mix_table, write_mixture


def run(b: Build) -> str:
    c = b.config
    pool = b.run.path("samples.parquet")
    b.progress.stage("mixture", 1, "mixture")
    longest = c.windows.max_tokens if c.mixture.questions_per_window > 1 else 0
    settings = c.mixture.model_dump(exclude={"short": {"files"}})
    fingerprint = content_id("mixture", MIXTURE_VERSION, file_sha256(pool), settings, c.seed, longest)
    if b.run.is_done("mixture", "all", fingerprint):
        return str(b.marker("mixture", "all").facts["note"])
    mixed = mix_table(read_table(pool), c.mixture, seed=c.seed, max_tokens=c.windows.max_tokens)
    report = mixed.mixture.report
    if report.num_pool:
        b.progress.show(format_mixture(report))
    b.run.reopen("mixture", "all")
    files = write_mixture(b.run.root, mixed)
    b.work["mixture"] += 1
    note = f"{report.num_samples} samples of {report.num_pool} questions, {report.num_tokens:,} tokens"
    for shortfall in report.shortfalls:
        note += f"; {re.split('[;:]', shortfall)[0]}"
    b.run.finish("mixture", "all", fingerprint, files, {"note": note})
    return note
