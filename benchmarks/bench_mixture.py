"""Seconds and peak memory of the mixture: choosing from a pool, and putting its table together.

    python benchmarks/bench_mixture.py [QUESTIONS] [--pages 10]

The pool is drawn: six questions a window, the recipe's lengths (85.3 K tokens on average), five tasks. Columns are in
memory; reading and writing Parquet is not counted. Seconds are of CPU time.
"""

from __future__ import annotations

import argparse
import resource
import time
from typing import Any

import numpy as np
import pyarrow as pa

from corpus.config import MixtureSettings
from corpus.records import Sample
from corpus.store import schema_of
from packing.mixture_table import left_out_table, mix_table, mixture_table

CASES: tuple[dict[str, Any], ...] = (
    {},
    {"token_budget": "5B"},
    {"lengths": "uniform"},
    {"questions_per_window": 4, "token_budget": "20B", "epochs": 2},
)


def draw_pool(size: int, pages: int) -> pa.Table:
    """A pool with the columns of `Sample`."""
    draw = np.random.default_rng(0)
    window = np.sort(draw.integers(0, size // 6 + 1, size))
    tokens = np.clip(draw.normal(85_300, 25_000, int(window.max()) + 1), 32_768, 131_072).astype(np.int64)[window]
    turn = draw.integers(20, 200, size)
    ids = pa.array([f"s{n:015x}" for n in draw.integers(0, 2**60, size)])
    tasks = pa.array(["extract-single", "extract-multi", "reasoning", "ocr-full", "ocr-needle"])
    side = pa.array(np.full(size * pages, 1_232))
    columns = {
        "sample_id": ids,
        "doc_id": pa.array([f"{n:016x}" for n in window]),
        "window": pa.array(np.zeros(size, np.int64)),
        "first_page": pa.array(np.zeros(size, np.int64)),
        "num_pages": pa.array(np.full(size, pages)),
        "question_ids": pa.ListArray.from_arrays(pa.array(np.arange(size + 1), pa.int32()), ids),
        "task": tasks.take(pa.array(draw.choice(5, size, p=(0.3, 0.3, 0.2, 0.1, 0.1)))),
        "split": pa.array(["train", "validation"]).take(pa.array((draw.random(size) < 0.01).astype(np.int64))),
        "num_tokens": pa.array(np.minimum(tokens + turn, 131_072)),
        "num_patches": pa.array(4 * tokens),
        "num_supervised": pa.array(turn // 2),
        "tokens_exact": pa.array(np.ones(size, np.bool_)),
        "grids": pa.ListArray.from_arrays(
            pa.array(np.arange(size + 1) * pages, pa.int32()),
            pa.StructArray.from_arrays([side, side], ["height", "width"]),
        ),
        "turn_tokens": pa.array(turn + 5),
    }
    schema = schema_of(Sample)
    return pa.table([columns[name] for name in schema.names], schema=schema)


def peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1_024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--pages", type=int, default=10, help="of a window; each is a pair of numbers in the table")
    options = parser.parse_args()
    pool = draw_pool(options.questions, options.pages)
    print(f"{options.questions:,} questions, {pool.nbytes / 2**20:,.0f} MiB of columns, {peak_mib():,} MiB before")
    for case in CASES:
        started = time.process_time()
        mixed = mix_table(pool, MixtureSettings.model_validate(case), seed=0, max_tokens=131_072)
        chosen = time.process_time()
        rows, left_out = mixture_table(mixed).num_rows, left_out_table(mixed).num_rows
        ended = time.process_time()
        print(
            f"choose {chosen - started:.2f} s, table {ended - chosen:.2f} s, {rows:,} samples, {left_out:,} left out, "
            f"peak {peak_mib():,} MiB: {case or 'defaults'}"
        )


if __name__ == "__main__":
    main()
