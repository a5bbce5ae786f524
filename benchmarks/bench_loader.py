"""Decoding pages to patches beside the stock image processor, and opening large plans, in one run.

    python benchmarks/bench_loader.py [--pdf PDF ...] [--pages 16] [--rounds 9] [--samples 1000000] [--out FILE]

Pages are rendered at 144 DPI at the size of the family, as `corpus build` does, and encoded as JPEG (quality 90). In
every round, all pages go through every way, one way after the other, each round from another one on; the figures are
medians over the rounds of pages per CPU-second of one thread, and ratios within a round.

- `ours`: file to uint8 patches in the order of the model, by simplejpeg, into memory that was used before, as in a
  worker of a loader (`trainer_plugin.buffers`).
- `ours, new memory`: the same into newly allocated memory for all pages, as in a process of its own.
- `ours, Pillow`: as `ours` without simplejpeg.
- `decode alone`: simplejpeg into one buffer, which no way can beat.
- `stock`: Pillow, then transformers' `Qwen2VLImageProcessorPil`, which resizes nothing here and gives float32 patches.
- `stock, torchvision`: the processor that `AutoProcessor` takes where torchvision is installed; else it is named.

With `--samples`, a run of so many samples is written as tables alone, a row a plan, and opened: seconds, memory, and
the time of finding the samples of a micro-step at the start and at the end.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import io
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import simplejpeg
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from corpus.records import PageGrid, PlanEntry, Sample
from corpus.render import encode, open_pdf, render
from corpus.rundir import available_cores
from corpus.shard_index import Member, ShardFile, index_table
from corpus.store import schema_of, write_json, write_table
from corpus.vision_tokens import FAMILIES, Family, natural_size, snap
from packing.cost import dims_of
from trainer_plugin import collate
from trainer_plugin.buffers import Buffers
from trainer_plugin.samples import RunSamples

DPI, QUALITY = 144, 90
EXAMPLES = Path(__file__).parent.parent / "examples" / "documents"


def pages_of(files: Sequence[Path], family: Family, most: int) -> tuple[list[bytes], list[PageGrid]]:
    """JPEG files of the first pages of each document, and their sizes."""
    data, grids = [], []
    for file in files:
        with open_pdf(file) as document:
            for page in list(document)[:most]:
                grid = snap(*natural_size(page.rect.width, page.rect.height, DPI), family)
                data.append(encode(render(page, grid), "jpeg", QUALITY))
                grids.append(grid)
    return data, grids


class KeptMemory(Buffers):
    """The same memory every time."""

    def empty(self, num_rows: int, width: int) -> Any:
        if not self._segments:
            self._segments = [super().empty(num_rows, width)]
        return self._segments[0][:num_rows]


def ways_of(data: Sequence[bytes], grids: Sequence[PageGrid], family: Family, notes: list[str]) -> dict[str, Any]:
    """What takes all pages through once, by name."""
    writer, fresh = collate.PatchWriter(family), collate.PatchWriter(family)
    writer._buffers = KeptMemory()
    size = {"shortest_edge": family.min_pixels, "longest_edge": family.max_pixels}
    options = {"patch_size": family.patch, "merge_size": family.merge, "size": size}
    buffer = np.empty(max(g.height * g.width for g in grids) * 3, dtype=np.uint8)

    def ours() -> None:
        writer(data, grids)

    def new_memory() -> None:
        fresh(data, grids)

    def without_simplejpeg() -> None:
        with_it, collate.simplejpeg = collate.simplejpeg, None
        try:
            writer(data, grids)
        finally:
            collate.simplejpeg = with_it

    def decode_alone() -> None:
        for file in data:
            simplejpeg.decode_jpeg(file, "RGB", buffer=buffer)

    def stock(processor: Any) -> Callable[[], None]:
        def run() -> None:
            for file in data:
                processor(images=[Image.open(io.BytesIO(file)).convert("RGB")], return_tensors="pt")

        return run

    ways = {
        "ours": ours,
        "ours, new memory": new_memory,
        "ours, Pillow": without_simplejpeg,
        "decode alone": decode_alone,
        "stock": stock(Qwen2VLImageProcessorPil(**options)),
    }
    try:
        from transformers import Qwen2VLImageProcessorFast

        ways["stock, torchvision"] = stock(Qwen2VLImageProcessorFast(**options))
    except ImportError as e:
        notes.append(f"stock, torchvision: {str(e).strip().splitlines()[0]}")
    return ways


def measure(ways: dict[str, Callable[[], None]], num_pages: int, rounds: int) -> dict[str, Any]:
    """Pages per CPU-second, and ratios to `stock`: median, least, most."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            gc.collect()
            begin = time.process_time()
            ways[name]()
            taken[name].append(time.process_time() - begin)
    figures: dict[str, Any] = {}
    for name, seconds in taken.items():
        ratios = [s / own for s, own in zip(taken["stock"][1:], seconds[1:], strict=True)]  # the first round warms up
        figures[name] = {
            "pages_per_cpu_s": round(num_pages / statistics.median(seconds[1:]), 1),
            "times_stock": [round(x, 2) for x in (statistics.median(ratios), min(ratios), max(ratios))],
        }
    return figures


def resident_mb() -> float:
    """Memory of this process that no file backs."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def write_run(folder: Path, num_samples: int, family: str) -> None:
    """The tables of a run: three samples a window of 36 pages, a sample a row, 64 rows a step."""
    numbers = np.arange(num_samples)
    ids, windows = [f"s{i:015x}" for i in numbers.tolist()], (numbers // 3).tolist()
    draw = np.random.default_rng(0)
    constant = {"window": 0, "first_page": 0, "num_pages": 36, "num_supervised": 20, "turn_tokens": 50}
    columns: dict[str, Any] = {name: np.full(num_samples, value) for name, value in constant.items()}
    columns |= {
        "sample_id": ids,
        "doc_id": [f"{w:016x}" for w in windows],
        "question_ids": [[f"q{i:015x}"] for i in numbers.tolist()],
        "task": pa.array(["reasoning", "ocr-full", "ocr-needle"]).take(pa.array(numbers % 3)),
        "split": pa.repeat("train", num_samples),
        "num_tokens": draw.integers(32_768, 131_073, num_samples),
        "num_patches": np.full(num_samples, 36 * 9_856),
        "patch_pairs": np.full(num_samples, 36 * 9_856**2),
        "tokens_exact": np.full(num_samples, True),
    }
    grid = pa.array([{"height": 1596, "width": 1232}], schema_of(Sample).field("grids").type.value_type)
    offsets = pa.array(np.arange(num_samples + 1) * 36, pa.int32())
    columns["grids"] = pa.ListArray.from_arrays(offsets, grid.take(pa.array(np.zeros(num_samples * 36, np.int8))))
    schema = schema_of(Sample)
    write_table(folder / "mixture.parquet", pa.table([columns[n] for n in schema.names], schema=schema))
    order = draw.permutation(num_samples)
    plan = {"step": numbers // 64, "row": numbers % 64, "position": np.zeros(num_samples, np.int64)}
    plan |= {name: pa.array(columns[name]).take(pa.array(order)) for name in ("sample_id", "task")}
    plan |= {name: columns[name][order] for name in ("num_tokens", "num_patches", "num_supervised")}
    schema = schema_of(PlanEntry)
    write_table(folder / "plan" / "plan-0.parquet", pa.table([plan[n] for n in schema.names], schema=schema), ["task"])
    write_json(folder / "plan" / "plan-0.json", {})
    config = {"messages": {}, "model": family}
    write_json(folder / "run.json", {"complete": True, "config": config})
    member = Member(shard="p0000-000000.tar", key=f"{0:016x}-w00", name="json", offset=512, size=1)
    files = [ShardFile(shard=member.shard, num_bytes=1 << 20, xxh128="")]
    write_table(folder / "shards" / "index.parquet", index_table(files, [member]))


def opening(num_samples: int, family: str) -> dict[str, Any]:
    """Seconds and memory of opening tables and plan, and microseconds to find a row's samples."""
    dims_of(family)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_run(folder, num_samples, family)
        before = resident_mb()
        begin = time.perf_counter()
        samples = RunSamples(folder)
        plan = samples.read_plan()
        seconds = time.perf_counter() - begin
        memory = resident_mb() - before
        found = {}
        for place, first in (("start", 0), ("end", num_samples - 1_000)):
            begin = time.perf_counter()
            for row in range(first, first + 1_000):
                samples.sample(plan.entries_of(row)[0])
            found[f"find_us_at_{place}"] = round((time.perf_counter() - begin) * 1e3, 1)
    return {"samples": num_samples, "seconds": round(seconds, 2), "mb": round(memory), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pdf", type=Path, action="append", help="by default those of examples/documents")
    parser.add_argument("--pages", type=int, default=16, help="of each document, at most")
    parser.add_argument("--rounds", type=int, default=9, help="besides one to warm up")
    parser.add_argument("--samples", type=int, action="append", default=[], help="also open a run of so many")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    torch.set_num_threads(1)
    notes: list[str] = []
    result: dict[str, Any] = {"families": {}}
    for family in FAMILIES.values():
        data, grids = pages_of(args.pdf or sorted(EXAMPLES.glob("*.pdf")), family, args.pages)
        figures = measure(ways_of(data, grids, family, notes), len(data), args.rounds)
        megapixels = statistics.mean(g.height * g.width for g in grids) / 1e6
        about = {
            "pages": len(data),
            "megapixels": round(megapixels, 2),
            "kb": round(sum(map(len, data)) / 1e3 / len(data)),
        }
        result["families"][family.name] = {**about, "ways": figures}
        print(f"{family.name}: {about}")
        for name, figure in figures.items():
            ratio, least, most = figure["times_stock"]
            print(f"  {name:20} {figure['pages_per_cpu_s']:8.1f} pages/s  {ratio:.2f} x stock ({least:.2f}-{most:.2f})")
    result["opening"] = [opening(n, next(iter(FAMILIES))) for n in args.samples]
    for about in result["opening"]:
        print(about)
    result["not_run"] = sorted(set(notes))
    for note in result["not_run"]:
        print(f"not run: {note}", file=sys.stderr)
    packages = ("pillow", "simplejpeg", "transformers", "torch", "numpy", "pyarrow")
    result["rounds"] = args.rounds
    result["versions"] = {"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in packages}}
    result["machine"] = f"{platform.machine()}, {available_cores()} cores"
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
