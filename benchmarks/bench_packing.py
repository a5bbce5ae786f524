"""This project's packer beside the packers of other projects, on the same lengths in one run.

    python benchmarks/bench_packing.py [--peers PYTHON] [--samples 20000] [--sizes 10000,100000,1000000,10000000]
        [--budget-s 120] [--repeats 3] [--out FILE]

The peers live in an interpreter of their own, made by

    python -m venv PEERS && PEERS/bin/pip install torch==2.13.0
    PEERS/bin/pip install torch==2.13.0 trl==1.16.0 binpacking==2.0.1 megatron-energon==7.4.1
    PEERS/bin/pip install --no-deps llamafactory==0.9.5

`packing_peers.py` says what each contestant is and what its clock covers; a peer that is missing is named as not run.
Every measurement is a process of its own on one core. One whose clock has run for `--budget-s`, or that asks for more
than 12 GiB, is ended and named as over budget, at that size and at larger ones. Seconds and memory are medians of the
rounds, contestant after contestant in each round; what takes longer than 20 s is run once. The file has the seconds of
the processor too, which a busy machine changes less.

Part 1, `--samples` samples of five kinds, in no order:

- `pool-native` and `long-biased`: 32,768-131,072 tokens with the mean and the share at or above 100,000 that the
  paper gives: 85.3 K and 23.6 %, 114.3 K and 83.9 %. The rest of their shape is not published: the logarithm of the
  density is a parabola here.
- `uniform`: 1-131,072 tokens.
- `thirds`: 20,000-60,000 tokens, so that most rows hold three samples, which must be chosen to fill it.
- `documents`: the windows of real PDFs (`document_lengths.py`), drawn with replacement, each with a turn of 40-256
  tokens. There are 421 windows, so lengths gather at them.

Rows are compared with a lower bound (`packing_bound.py`). Idle is the share of rank-seconds spent waiting when rows
are dealt to data-parallel ranks in steps of 32 rows, by the cost of `packing.cost`: at every row (FSDP) or at the
optimizer step alone (DDP). Rows come in the order in which the contestant gives them out, and shuffled, as trainers do
by default; they are dealt by `packing.plan.assign_steps`, which helps every contestant, and in turn, as trainers do
(in the file alone). Beside it stands what betrays a curriculum in that order: the autocorrelation of the mean sample
length from step to step, its rank correlation with the step's place inside the batch that was packed on its own, the
tenth of the epoch that is farthest from the mean, and how much more the mean differs between steps than it does when
rows are shuffled. Ours comes in the order of its plan.

Part 2, `--sizes` samples of `pool-native`: seconds, memory and rows, and the whole command `corpus pack`, Parquet in
and plan out, its start included and with the peak of its process.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from packing_bound import counted_bound, row_bound
from packing_peers import CONTESTANTS, OUT_OF_MEMORY, PATCHES_PER_TOKEN, PEERS, ROWS_PER_STEP, id_bytes

from corpus.rundir import available_cores
from packing.cost import QWEN2_5_VL_7B, sample_flops
from packing.plan import assign_steps

CAPACITY = 131_072
SHORTEST, LONGEST = 32_768, 131_072
RANKS = (8, 16, 32)
ONCE_ABOVE_S = 20
DOCUMENTS = Path(__file__).with_name("results") / "document_lengths.json"

COMMAND = """
import os, subprocess, sys, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
began = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def pool_native(n: int, draw: np.random.Generator) -> np.ndarray:
    return parabola(n, draw, 12.143, -11.265, mean=85_300, share=0.236)


def long_biased(n: int, draw: np.random.Generator) -> np.ndarray:
    return parabola(n, draw, 2.941, 2.053, mean=114_300, share=0.839)


def parabola(n: int, draw: np.random.Generator, a: float, b: float, *, mean: float, share: float) -> np.ndarray:
    """Lengths of density exp(a z + b z^2), z = 0..1 between the shortest and the longest; one from each n-th part."""
    tokens = np.arange(SHORTEST, LONGEST + 1)
    z = (tokens - SHORTEST) / (LONGEST - SHORTEST)
    density = np.exp(a * z + b * z**2)
    lengths = tokens[np.searchsorted(np.cumsum(density) / density.sum(), (draw.permutation(n) + draw.random(n)) / n)]
    assert abs(lengths.mean() - mean) < 50, lengths.mean()  # published to 100 tokens
    assert abs((lengths >= 100_000).mean() - share) < 0.0005, (lengths >= 100_000).mean()  # published to 0.1 %
    return lengths


def uniform(n: int, draw: np.random.Generator) -> np.ndarray:
    return draw.integers(1, CAPACITY + 1, n)


def thirds(n: int, draw: np.random.Generator) -> np.ndarray:
    return draw.integers(20_000, 60_001, n)


def documents(n: int, draw: np.random.Generator) -> np.ndarray:
    windows = np.array(json.loads(DOCUMENTS.read_text())["window_tokens"])
    return draw.choice(windows, n) + draw.integers(40, 257, n)


DISTRIBUTIONS: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "pool-native": pool_native,
    "long-biased": long_biased,
    "uniform": uniform,
    "thirds": thirds,
    "documents": documents,
}


class Contest:
    """Runs contestants, each in a process of its own, and remembers who went over the budget."""

    def __init__(self, folder: Path, peers: str | None, budget_s: int, repeats: int) -> None:
        self._folder = folder
        self._peers = peers
        self._budget_s = budget_s
        self._repeats = repeats
        self._over: set[tuple[str, str]] = set()
        self.versions: dict[str, str] = {}

    def run(self, distribution: str, lengths: np.ndarray) -> dict[str, dict[str, Any]]:
        """Figures of every contestant, or why there are none; its rows of the last round are in `rows_of`."""
        lengths_file = self._folder / "lengths.npy"
        np.save(lengths_file, lengths)
        rounds: dict[str, list[dict[str, float]]] = defaultdict(list)
        refused: dict[str, str] = {}
        for _ in range(self._repeats):
            for name in CONTESTANTS:
                if name in refused or (rounds[name] and rounds[name][0]["seconds"] > ONCE_ABOVE_S):
                    continue
                found = self._measure(name, distribution, lengths_file)
                if isinstance(found, str):
                    refused[name] = found
                else:
                    rounds[name].append(found)
        return {name: {"refused": refused[name]} if name in refused else medians(rounds[name]) for name in CONTESTANTS}

    def _measure(self, name: str, distribution: str, lengths_file: Path) -> dict[str, float] | str:
        python = self._peers if name in PEERS else sys.executable
        if python is None:
            return "not run: no --peers"
        if (name, distribution) in self._over:
            return "over budget"
        script = Path(__file__).with_name("packing_peers.py")
        rows_file = self._folder / f"{name}.npz"
        command = [python, str(script), name, str(lengths_file), str(CAPACITY), str(self._budget_s), str(rows_file)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode in (-signal.SIGALRM, OUT_OF_MEMORY):
            self._over.add((name, distribution))
            return "over budget"
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["?"])[-1]
            if last.startswith("ModuleNotFoundError"):
                return f"not run: {last}"
            raise SystemExit(f"{name}: {done.stderr}")
        figures = json.loads(done.stdout)
        versions = figures.pop("versions")
        if name in PEERS:
            self.versions |= versions
        return dict(figures)

    def rows_of(self, name: str) -> dict[str, np.ndarray]:
        with np.load(self._folder / f"{name}.npz") as held:
            return {key: held[key] for key in held.files}

    def command(self, lengths: np.ndarray) -> dict[str, Any]:
        """Seconds and peak memory of `corpus pack` from Parquet to a plan on disk."""
        table = self._folder / "samples.parquet"
        write_samples(lengths, table)
        rounds: list[dict[str, float]] = []
        for _ in range(self._repeats):
            with tempfile.TemporaryDirectory(dir=self._folder) as out:
                pack = [sys.executable, "-m", "corpus.cli", "pack", str(table), "--out", out]
                environment = {**os.environ, "OMP_NUM_THREADS": "1"}
                command = [sys.executable, "-c", COMMAND, *pack]
                done = subprocess.run(command, capture_output=True, text=True, env=environment)
            if done.returncode:
                raise SystemExit(f"corpus pack: {done.stderr}")
            seconds, cpu_seconds, process_mib = map(float, done.stdout.split())
            rounds.append({"seconds": seconds, "cpu_seconds": cpu_seconds, "process_mib": process_mib})
            if seconds > ONCE_ABOVE_S:
                break
        return medians(rounds)


def write_samples(lengths: np.ndarray, out: Path) -> None:
    """A table of samples as `corpus pack` reads it."""
    text = id_bytes(len(lengths))
    ends = np.arange(len(lengths) + 1, dtype=np.int32) * text.shape[1]
    ids = pa.StringArray.from_buffers(len(lengths), pa.py_buffer(ends), pa.py_buffer(text))
    pq.write_table(pa.table({"sample_id": ids, "num_tokens": lengths, "num_patches": PATCHES_PER_TOKEN * lengths}), out)


def medians(rounds: Sequence[dict[str, float]]) -> dict[str, Any]:
    found: dict[str, Any] = {key: round(statistics.median(r[key] for r in rounds), 4) for key in rounds[0]}
    return {**found, "rounds": len(rounds)}


def judge(rows: dict[str, np.ndarray], bound: int) -> dict[str, Any]:
    """How full rows are; how long ranks wait for each other, and whether their order is a curriculum."""
    lengths, sizes = rows["lengths"], rows["sizes"]
    starts = np.cumsum(sizes) - sizes
    costs = np.add.reduceat(sample_flops(lengths, PATCHES_PER_TOKEN * lengths, 0, QWEN2_5_VL_7B), starts)
    tokens = np.add.reduceat(lengths, starts)
    emitted, shuffled = np.arange(len(sizes)), np.random.default_rng(0).permutation(len(sizes))
    spread = step_means(tokens[shuffled], sizes[shuffled]).std()
    return {
        **filling(rows, bound),
        **{
            name: {
                "idle": {
                    way: {str(n): idle(costs[order], n, by_cost) for n in RANKS}
                    for way, by_cost in (("by_cost", True), ("in_turn", False))
                },
                **curriculum(step_means(tokens[order], sizes[order]), rows["batches"], spread),
            }
            for name, order in (("emitted", emitted), ("shuffled", shuffled))
        },
    }


def filling(rows: dict[str, np.ndarray], bound: int) -> dict[str, Any]:
    num_rows, tokens = len(rows["sizes"]), int(rows["lengths"].sum())
    return {"rows": num_rows, "fill": round(tokens / (num_rows * CAPACITY), 4), "of_bound": round(num_rows / bound, 5)}


def idle(costs: np.ndarray, num_ranks: int, by_cost: bool) -> list[float]:
    """Share of time spent waiting: when ranks meet after every row, and only at the step. The last step counts."""
    steps = np.zeros(-(-len(costs) // ROWS_PER_STEP) * ROWS_PER_STEP)
    steps[: len(costs)] = costs
    steps = steps.reshape(-1, ROWS_PER_STEP)
    place = np.broadcast_to(np.arange(ROWS_PER_STEP), steps.shape)
    rank, turn = assign_steps(steps, num_ranks) if by_cost else (place % num_ranks, place // num_ranks)
    busy = np.zeros((len(steps), num_ranks, ROWS_PER_STEP // num_ranks))
    busy[np.arange(len(steps))[:, None], rank, turn] = steps
    every_row, every_step = busy.max(axis=1).sum(), busy.sum(axis=2).max(axis=1).sum()
    return [round(1 - float(busy.sum() / (num_ranks * took)), 5) for took in (every_row, every_step)]


def step_means(tokens: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Mean length of the samples of each whole step."""
    whole = len(sizes) // ROWS_PER_STEP * ROWS_PER_STEP
    means: np.ndarray = tokens[:whole].reshape(-1, ROWS_PER_STEP).sum(axis=1) / sizes[:whole].reshape(
        -1, ROWS_PER_STEP
    ).sum(axis=1)
    return means


def curriculum(means: np.ndarray, batches: np.ndarray, shuffled_spread: float) -> dict[str, float]:
    """What betrays an order. `noise`: two standard errors of the first two figures where there is none."""
    batch = np.searchsorted(np.cumsum(batches), np.arange(len(means)) * ROWS_PER_STEP, side="right")
    groups = [g for g in np.split(means, np.flatnonzero(np.diff(batch)) + 1) if len(g) > 2]
    weights = [len(g) - 1 for g in groups]
    ranks = [np.corrcoef(np.argsort(np.argsort(g)), np.arange(len(g)))[0, 1] for g in groups]
    tenths = [abs(t.mean() / means.mean() - 1) for t in np.array_split(means, 10)]
    return {
        "autocorrelation": round(float(np.corrcoef(means[:-1], means[1:])[0, 1]), 3),
        "in_batch": round(float(np.average(ranks, weights=weights)), 3) if groups else 0.0,
        "farthest_tenth": round(float(max(tenths)), 4),
        "spread": round(float(means.std() / shuffled_spread), 2),
        "noise": round(2 / len(means) ** 0.5, 3),
    }


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def print_quality(distribution: str, about: dict[str, Any], found: dict[str, dict[str, Any]]) -> None:
    print(f"\n{distribution}: {about['samples']:,} samples, mean {about['mean']:,}, at most {about['bound']:,} needed")
    print(
        f"{'':20} {'s':>8} {'MiB':>6} {'rows':>7} {'fill':>6} {'of bound':>8}   idle %, FSDP / DDP, at"
        f" {' '.join(f'{n:>11}' for n in RANKS)}  {'autocorr':>8} {'in batch':>8} {'tenth':>6} {'spread':>6}"
    )
    for name, figures in found.items():
        if "refused" in figures:
            print(f"{name:20} {figures['refused']}")
            continue
        head = (
            f"{name:20} {figures['seconds']:8.3f} {figures['added_mib']:6.0f} {figures['rows']:7,}"
            f" {figures['fill']:6.3f} {figures['of_bound']:8.4f}"
        )
        for order in ("emitted", "shuffled"):
            o = figures[order]
            waits = " ".join(f"{100 * a:5.2f}/{100 * b:5.2f}" for a, b in o["idle"]["by_cost"].values())
            print(
                f"{head if order == 'emitted' else '':60}  {order:>22} {waits}  {o['autocorrelation']:8.3f}"
                f" {o['in_batch']:8.3f} {o['farthest_tenth']:6.3f} {o['spread']:6.2f}"
            )


def print_scale(scale: dict[str, dict[str, dict[str, Any]]]) -> None:
    sizes = list(scale)
    print(f"\n{'seconds, MiB added':20}" + "".join(f"{int(n):>20,}" for n in sizes))
    for name in next(iter(scale.values())):
        cells = [scale[n][name] for n in sizes]
        shown = [c.get("refused") or f"{c['seconds']:.2f} s {c.get('added_mib', c['process_mib']):,.0f}" for c in cells]
        print(f"{name:20}" + "".join(f"{cell:>20.19}" for cell in shown))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", help="an interpreter that has the peers; without it, they are not run")
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--sizes", default="10000,100000,1000000,10000000")
    parser.add_argument("--budget-s", type=int, default=120)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]

    names = ("numpy", "pyarrow", "scipy")
    result: dict[str, Any] = {
        "capacity": CAPACITY,
        "rows_per_step": ROWS_PER_STEP,
        "budget_s": args.budget_s,
        "versions": {"python": platform.python_version(), **{n: importlib.metadata.version(n) for n in names}},
        "machine": f"{processor()}, {platform.machine()}, {available_cores()} cores, one used",
    }
    with tempfile.TemporaryDirectory() as folder:
        contest = Contest(Path(folder), args.peers, args.budget_s, args.repeats)
        for distribution, lengths_of in DISTRIBUTIONS.items():
            lengths = lengths_of(args.samples, np.random.default_rng(0))
            bound = row_bound(lengths, CAPACITY)
            about = {"samples": len(lengths), "mean": round(float(lengths.mean())), "bound": bound}
            found = contest.run(distribution, lengths)
            for name, figures in found.items():
                if "refused" not in figures:
                    figures |= judge(contest.rows_of(name), bound)
            print_quality(distribution, about, found)
            result[distribution] = {**about, "contestants": found}
            save(args.out, result, contest)

        scale: dict[str, dict[str, dict[str, Any]]] = {}
        for n in map(int, args.sizes.split(",")):
            lengths = pool_native(n, np.random.default_rng(0))
            bound = counted_bound(lengths, CAPACITY)
            found = contest.run("scale", lengths)
            for name, figures in found.items():
                if "refused" not in figures:
                    figures |= filling(contest.rows_of(name), bound)
            scale[str(n)] = {**found, "corpus pack, whole": contest.command(lengths)}
            print_scale(scale)
            save(args.out, {**result, "scale": scale}, contest)


def save(out: Path | None, result: dict[str, Any], contest: Contest) -> None:
    """Write what is known so far: it takes half an hour."""
    if out:
        out.write_text(json.dumps({**result, "peers": contest.versions}, indent=1) + "\n")


if __name__ == "__main__":
    main()
