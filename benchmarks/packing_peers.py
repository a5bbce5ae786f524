"""The packers that `bench_packing.py` compares, each in a process of its own; runs in an interpreter that has them.

    PYTHON benchmarks/packing_peers.py CONTESTANT LENGTHS.npy CAPACITY BUDGET_S OUT.npz

What is common to all: lengths in the order of the file in, rows in the order in which the packer gives them out. The
clock runs from lengths in the form that the packer takes (a list, a dataset) to rows in the form that it gives; imports
and conversions are outside of it. When it has run for BUDGET_S seconds, SIGALRM ends the process. Memory is the
process's own peak from there on, above what it held before; what asks for more than 12 GiB ends.

Only lengths are packed, no tokens. The peers' functions are their own, called with their defaults:

- `trl`: `trl.pack_dataset`, which cuts the dataset into batches of 1,000. Its token column holds nulls, and the three
  calls that would copy them one by one (`filter` of empty samples, `list_slice` to the capacity, `take`) are replaced
  by ones that copy lengths alone. No sample is empty or too long here, so no decision changes. `trl, one batch` is the
  same with `batch_size=None`.
- `ms-swift`: `binpacking.to_constant_volume` as `swift.dataset.packing` (4.6.0) calls it: batches of 1,000, each with
  the last row of the batch before. `ms-swift, one batch`: everything in one call.
- `greedy knapsack`: LLaMA-Factory's, over everything; `LLaMA-Factory`: in batches of 1,000, its default. The module is
  loaded by its path, because the package wants other versions of what trl needs.
- `energon`: `PackingDataset` of megatron-energon with a buffer of 1,000 samples. It has no packer of its own; the one
  of LLaMA-Factory, from which that of Megatron-LM's examples descends, is plugged in.
- `next-fit` and `first-fit` (at most 1,000 open rows; the oldest is given out when none fits) are written here.
- `ours, rows`: `packing.rows.pack`, its lower bound included. `ours, plan`: `packing.plan.plan`, which also orders rows
  into steps.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

MEMORY = 12 * 2**30  # bytes; one that asks for more ends with OUT_OF_MEMORY, before the machine does
OUT_OF_MEMORY = 99
BATCH = 1_000  # the default of datasets' map, ms-swift and LLaMA-Factory
OPEN_ROWS = 1_000
ROWS_PER_STEP = 32
PATCHES_PER_TOKEN = 4  # a visual token of Qwen2.5-VL is 2 x 2 patches


@dataclass(frozen=True)
class Rows:
    """The lengths of all rows, one row after the other, and the number of samples of each row."""

    lengths: np.ndarray
    sizes: np.ndarray
    batches: np.ndarray  # rows of each batch that was packed on its own

    @staticmethod
    def of(rows: list[list[int]], batches: list[int] | None = None) -> Rows:
        sizes = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        lengths = np.fromiter((n for row in rows for n in row), dtype=np.int64, count=int(sizes.sum()))
        return Rows(lengths, sizes, np.array(batches or [len(rows)]))


# A contestant prepares its input from lengths and capacity; what it gives back packs; what that gives back converts.
Finish = Callable[[], Rows]
Pack = Callable[[], Finish]
Contestant = Callable[[np.ndarray, int], Pack]


def batches_of(items: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def next_fit(lengths: np.ndarray, capacity: int) -> Pack:
    items = lengths.tolist()

    def pack() -> Finish:
        rows: list[list[int]] = []
        space = -1
        for length in items:
            if length > space:
                rows.append([])
                space = capacity
            rows[-1].append(length)
            space -= length
        return lambda: Rows.of(rows)

    return pack


def first_fit(lengths: np.ndarray, capacity: int) -> Pack:
    items = lengths.tolist()

    def pack() -> Finish:
        rows: list[list[int]] = []
        spaces = np.zeros(OPEN_ROWS, dtype=np.int64)  # of the newest rows, the oldest first
        for length in items:
            place = int((spaces >= length).argmax())
            if spaces[place] < length:
                spaces[:-1] = spaces[1:]
                place = OPEN_ROWS - 1
                spaces[place] = capacity
                rows.append([])
            spaces[place] -= length
            rows[place - OPEN_ROWS].append(length)
        return lambda: Rows.of(rows)

    return pack


def llama_factory() -> Callable[[list[int], int], list[list[int]]]:
    """Its `greedy_knapsack(lengths, capacity)`, which empties the list that it is given."""
    spec = importlib.util.find_spec("llamafactory")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'llamafactory'")
    file = Path(spec.submodule_search_locations[0]) / "data" / "processor" / "processor_utils.py"
    module = load("llamafactory_processor_utils", file)
    knapsack: Callable[[list[int], int], list[list[int]]] = module.greedy_knapsack
    return knapsack


def load(name: str, file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def greedy_knapsack(lengths: np.ndarray, capacity: int) -> Pack:
    knapsack, items = llama_factory(), lengths.tolist()

    def pack() -> Finish:
        rows = knapsack(items, capacity)
        return lambda: Rows.of(rows)

    return pack


def batched_knapsack(lengths: np.ndarray, capacity: int) -> Pack:
    knapsack, items = llama_factory(), lengths.tolist()

    def pack() -> Finish:
        batches = [knapsack(batch, capacity) for batch in batches_of(items)]
        return lambda: Rows.of([row for rows in batches for row in rows], [len(rows) for rows in batches])

    return pack


def energon(lengths: np.ndarray, capacity: int) -> Pack:
    from megatron.energon import WorkerConfig
    from megatron.energon.flavors.base_dataset import SavableDataset
    from megatron.energon.wrappers import PackingDataset

    knapsack = llama_factory()
    items = lengths.tolist()
    config = WorkerConfig(rank=0, world_size=1, num_workers=0)
    batches: list[int] = []

    class Lengths(SavableDataset[int]):
        """A dataset whose samples are their lengths."""

        def __init__(self) -> None:
            super().__init__(worker_config=config)

        def __iter__(self) -> Iterator[int]:
            return iter(items)

        def len_worker(self, _: int | None = None) -> int:
            return len(items)

        def reset_state_own(self) -> None:
            pass

        def worker_has_samples(self) -> bool:
            return True

        def config(self) -> dict[str, Any]:
            return {}

        def can_restore_sample(self) -> bool:
            return False

        def restore_sample(self, restore_key: Any) -> int:
            raise NotImplementedError

    def select(buffer: list[int]) -> list[list[int]]:
        rows = knapsack(buffer, capacity)
        batches.append(len(rows))
        return rows

    dataset = PackingDataset(Lengths(), BATCH, select, list, worker_config=config)
    config.worker_activate(0)

    def pack() -> Finish:
        rows = list(dataset)
        return lambda: Rows.of(rows, batches)

    return pack


class LengthsAlone:
    """`pyarrow.compute` for columns of nulls, of which only the lengths matter and none is empty or too long."""

    def __init__(self) -> None:
        import pyarrow.compute

        self._real = pyarrow.compute
        self.batches: list[int] = []  # rows of each call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def filter(self, column: Any, mask: Any) -> Any:
        assert self._real.all(mask).as_py()
        return column

    def list_slice(self, column: Any, *_: int) -> Any:
        return column

    def take(self, table: Any, index: list[int]) -> Any:
        import pyarrow as pa

        lengths = self._real.take(table["seq_lengths"].combine_chunks(), pa.array(index))
        return pa.table({"input_ids": null_lists(lengths.to_numpy()), "seq_lengths": lengths})


def null_lists(lengths: np.ndarray) -> Any:
    """A column of lists of so many nulls each: lengths without tokens."""
    import pyarrow as pa

    ends = np.concatenate([[0], np.cumsum(lengths)])
    return pa.LargeListArray.from_arrays(pa.array(ends, type=pa.int64()), pa.nulls(int(ends[-1])))


def trl(lengths: np.ndarray, capacity: int, **map_kwargs: Any) -> Pack:
    import datasets
    import pyarrow as pa
    import trl.data_utils

    datasets.disable_progress_bars()
    trl.data_utils.pc = LengthsAlone()
    dataset = datasets.Dataset(pa.table({"input_ids": null_lists(lengths)}))

    def pack() -> Finish:
        packed = trl.data_utils.pack_dataset(dataset, capacity, strategy="bfd", map_kwargs=map_kwargs)
        return lambda: rows_of(packed.with_format("arrow")[:]["seq_lengths"])

    def rows_of(column: Any) -> Rows:
        chunks = [c.value_lengths().to_numpy() for c in column.chunks]
        sizes = np.concatenate(chunks).astype(np.int64)
        flat = np.concatenate([c.flatten().to_numpy() for c in column.chunks])
        ends = np.searchsorted(np.cumsum(sizes), np.arange(BATCH, len(flat) + BATCH, BATCH))
        rows = np.diff(np.minimum(ends + 1, len(sizes)), prepend=0)
        return Rows(flat, sizes, np.array([len(sizes)]) if map_kwargs else rows)

    return pack


def trl_one_batch(lengths: np.ndarray, capacity: int) -> Pack:
    return trl(lengths, capacity, batch_size=None)


def ms_swift(lengths: np.ndarray, capacity: int) -> Pack:
    import binpacking

    items = list(enumerate(lengths.tolist()))

    def pack() -> Finish:
        rows: list[list[tuple[int, int]]] = []
        batches: list[int] = []
        left: list[tuple[int, int]] = []
        for batch in batches_of(items):
            found = binpacking.to_constant_volume(left + batch, capacity, weight_pos=1)
            left = found.pop()
            rows += found
            batches.append(len(found))
        rows.append(left)
        batches[-1] += 1
        return lambda: Rows.of([[length for _, length in row] for row in rows], batches)

    return pack


def ms_swift_one_batch(lengths: np.ndarray, capacity: int) -> Pack:
    import binpacking

    items = list(enumerate(lengths.tolist()))

    def pack() -> Finish:
        rows = binpacking.to_constant_volume(items, capacity, weight_pos=1)
        return lambda: Rows.of([[length for _, length in row] for row in rows])

    return pack


def our_rows(lengths: np.ndarray, capacity: int) -> Pack:
    import scipy.optimize  # which the packing loads when it needs a solver
    import scipy.sparse  # noqa: F401

    from packing.rows import pack as pack_rows

    def pack() -> Finish:
        row, _ = pack_rows(lengths, capacity)

        def finish() -> Rows:
            sizes = np.bincount(row)
            return Rows(lengths[np.argsort(row, kind="stable")], sizes, np.array([len(sizes)]))

        return finish

    return pack


def our_plan(lengths: np.ndarray, capacity: int) -> Pack:
    import scipy.optimize
    import scipy.sparse  # noqa: F401

    from corpus.config import PackingSettings
    from packing.cost import QWEN2_5_VL_7B
    from packing.plan import Samples, plan

    settings = PackingSettings(capacity=capacity, rows_per_step=ROWS_PER_STEP)
    samples = Samples.of(sample_ids(len(lengths)), lengths, PATCHES_PER_TOKEN * lengths)

    def pack() -> Finish:
        made = plan(samples, settings, seed=0, dims=QWEN2_5_VL_7B)

        def finish() -> Rows:
            starts = np.flatnonzero(made.position == 0)
            sizes = np.diff(starts, append=len(made.position))
            window = settings.balance_window
            batches = np.diff(np.arange(0, len(sizes) + window, window).clip(max=len(sizes)))
            return Rows(np.asarray(made.samples.num_tokens), sizes, batches)

        return finish

    return pack


def sample_ids(n: int) -> np.ndarray:
    """Ids of equal width, all different, in no order: `s` and ten digits."""
    return id_bytes(n).view("S11").ravel().astype("U11").astype(object)


def id_bytes(n: int) -> np.ndarray:
    """The characters of `sample_ids`, one id a line."""
    left = np.random.default_rng(1).permutation(n)
    text = np.full((n, 11), ord("s"), dtype=np.uint8)
    for place in range(10, 0, -1):
        left, digit = np.divmod(left, 10)
        text[:, place] = digit + ord("0")
    return text


CONTESTANTS: dict[str, Contestant] = {
    "next-fit": next_fit,
    "first-fit": first_fit,
    "greedy knapsack": greedy_knapsack,
    "LLaMA-Factory": batched_knapsack,
    "energon": energon,
    "trl": trl,
    "trl, one batch": trl_one_batch,
    "ms-swift": ms_swift,
    "ms-swift, one batch": ms_swift_one_batch,
    "ours, rows": our_rows,
    "ours, plan": our_plan,
}
PEERS = {
    "greedy knapsack": ("llamafactory",),
    "LLaMA-Factory": ("llamafactory",),
    "energon": ("megatron-energon", "llamafactory"),
    "trl": ("trl", "datasets", "pyarrow"),
    "trl, one batch": ("trl", "datasets", "pyarrow"),
    "ms-swift": ("binpacking",),
    "ms-swift, one batch": ("binpacking",),
}


def status_kb(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])


def measure(prepare: Contestant, lengths: np.ndarray, capacity: int, budget_s: int) -> tuple[dict[str, float], Rows]:
    """Seconds, and the peak of resident memory in MiB: of the process, and above what it held before the clock ran."""
    pack = prepare(lengths, capacity)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = status_kb("VmRSS")
    started, cpu = time.perf_counter(), time.process_time()
    signal.alarm(budget_s)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):  # progress bars
        finish = pack()
    signal.alarm(0)
    clock = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    peak = status_kb("VmHWM")
    return {**clock, "added_mib": (peak - before) / 1024, "process_mib": peak / 1024}, finish()


def versions(names: Iterable[str]) -> dict[str, str]:
    return {"python": platform.python_version(), "numpy": np.__version__, **{name: version(name) for name in names}}


def main() -> None:
    name, lengths_file, capacity, budget_s, out = sys.argv[1:]
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    lengths = np.load(lengths_file)
    try:
        figures, rows = measure(CONTESTANTS[name], lengths, int(capacity), int(budget_s))
    except MemoryError:  # Arrow's is one, too
        sys.exit(OUT_OF_MEMORY)
    assert np.array_equal(np.sort(rows.lengths), np.sort(lengths)), "samples lost or made up"
    ends = np.cumsum(rows.sizes)
    tokens = np.diff(np.concatenate([[0], np.cumsum(rows.lengths)])[ends], prepend=0)
    assert tokens.max() <= int(capacity), "a row is too long"
    assert rows.batches.sum() == len(rows.sizes)
    np.savez(out, lengths=rows.lengths, sizes=rows.sizes, batches=rows.batches)
    print(json.dumps({**figures, "versions": versions(PEERS.get(name, ()))}))


if __name__ == "__main__":
    main()
