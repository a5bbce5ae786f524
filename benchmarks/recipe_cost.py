"""What the recipe of `recipes/mmprolong-7b` will take: a plan of 5 B tokens as long as the paper's samples are.

    python benchmarks/recipe_cost.py [--tokens 5e9] [--peak-tflops 989] [--utilisation 0.4]

Lengths are those of `bench_packing.py` (`pool-native`), pages US Letter at 144 dpi (2,508 tokens, 10,032 patches), 100
supervised tokens a sample; steps of 32 rows, for 64 GPUs of which 2 share a row. The cost is that of `packing.cost`;
what gradient checkpointing, communication and idle ranks add is in the utilisation.
"""

from __future__ import annotations

import argparse
from types import SimpleNamespace

import numpy as np
from bench_packing import pool_native

from corpus.config import PackingSettings
from packing.cost import dims_of
from packing.plan import Samples, plan
from packing.report import format_report, make_report

MEAN_TOKENS = 85_300
PAGE_TOKENS, PAGE_PATCHES = 2_508, 10_032
SUPERVISED = 100


def main() -> None:
    """Print the report of the plan."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=float, default=5e9)
    parser.add_argument("--peak-tflops", type=float, default=989)
    parser.add_argument("--utilisation", type=float, default=0.4)
    given = parser.parse_args()
    lengths = pool_native(round(given.tokens / MEAN_TOKENS), np.random.default_rng(0))
    pages = lengths // (PAGE_TOKENS + 20)
    samples = Samples.of(
        [f"{i:08d}" for i in range(len(lengths))], lengths, pages * PAGE_PATCHES, np.full(len(lengths), SUPERVISED)
    )
    made = plan(samples, PackingSettings(data_parallel_sizes=(32,)), seed=0, dims=dims_of("qwen2.5-vl"))
    hardware = SimpleNamespace(peak_tflops=given.peak_tflops, utilisation=given.utilisation)
    print(format_report(make_report(made, hardware=hardware)))


if __name__ == "__main__":
    main()
