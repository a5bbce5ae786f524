"""A training step for each number of ranks that share a row and each length of a row, and a run's loader, in one run.

    python benchmarks/bench_train.py [--model tiny|7b] [--family qwen2.5-vl] [--sequence-parallel 1 2]
        [--tokens 2048 4096 8192] [--rounds 3] [--steps 3] [--optimizer adamw|sgd] [--threads 1] [--peak-tflops X]
        [--run RUN [--processor MODEL] [--workers 2] [--loader-rows 32]] [--out FILE]

Rows are made up: documents of several pages, of a quarter of the row up to all of it, packed by `packing.plan`; the row
of median cost is taken. Pages are 1232 x 1596 pixels for `7b` and 224 x 280 for `tiny`. `tiny` is the random model of
examples/, `7b` has the sizes of Qwen2.5-VL-7B, made on the device with random weights, and needs CUDA.

Every configuration runs in processes of its own, all of them in turn, round after round, each round from another one
on. A process takes two steps to warm up and then `--steps`, all on the same row, which lies on the device already. A
step is forward pass, backward pass and optimizer (gradients clipped), with gradient checkpointing. Several ranks train
under FSDP2 as in the recipe (on CUDA weights in float32, computed in bfloat16); one rank has plain weights (on CUDA in
bfloat16, with optimizer states in bfloat16 too, so that more fits). Seconds are those of the slowest rank, medians of
the steps of all rounds, between the least and the most of whole steps.

- `shared`: pages are dealt to the ranks (`trainer_plugin.vision`). `replicated`: every rank encodes every page of the
  row and keeps the tokens of its slice.
- `mfu`: FLOPs of the model (`packing.cost`, recomputation not counted) / seconds / peak of the ranks. The peak is
  `--peak-tflops`, of one rank; left out, 989 on CUDA, and on the CPU what a product of two matrices of 1024 x 1024
  reached here in float32 on `--threads` threads.
- `peak_mb`: the most memory of one rank: of the allocator on CUDA, else of the process. `idle_mb`: before any step.

What does not fit into memory is named. With `--run`, rows of a real run are read by `RowDataset` in so many workers
and nothing is trained: pages/s and tokens/s, to be held against the tokens/s of training. `--tokens` without a number
trains nothing.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from transformers import AutoProcessor, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from corpus.config import DEFAULT_HARDWARE, PackingSettings
from corpus.records import PageGrid
from corpus.rundir import available_cores
from corpus.vision_tokens import FAMILIES, Family, num_image_tokens, num_patches
from packing.cost import QWEN2_5_VL_7B, dims_from
from packing.plan import Samples, plan
from trainer_plugin.attention import use_attention
from trainer_plugin.batch import RowSample, batch_of
from trainer_plugin.callback import row_flops
from trainer_plugin.dataset import RowDataset, collate
from trainer_plugin.loss import IGNORED, use_loss
from trainer_plugin.mesh import Mesh, join
from trainer_plugin.models import qwen_vl_of
from trainer_plugin.rope import extend_rope
from trainer_plugin.samples import RunSamples
from trainer_plugin.vision import deal_images, normalise, share_vision

EXAMPLES = Path(__file__).parent.parent / "examples"
PAGES = {"tiny": PageGrid(height=280, width=224), "7b": PageGrid(height=1596, width=1232)}
TOKENS = {"tiny": [2_048, 4_096, 8_192], "7b": [32_768, 65_536, 131_072]}
LABEL_TOKENS, QUESTION_TOKENS, ANSWER_TOKENS = 8, 40, 64
DOCUMENTS = 64
WARM_UP = 2
PHASES = ("forward", "backward", "optimizer")
OUT_OF_MEMORY = "out of memory"
TERA = 1e12


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One configuration."""

    size: int  # ranks, all of which share the row
    tokens: int  # of the row, at most
    vision: str  # "shared" or "replicated"
    model: str
    family: str
    steps: int
    optimizer: str
    threads: int

    def __str__(self) -> str:
        return f"{self.size} ranks, {self.tokens} tokens, vision {self.vision}"


def build(model: str, family: str) -> Any:
    """A model with random weights, on the default device and in the default type."""
    if model == "tiny":
        return tiny(family)[0]
    dims = QWEN2_5_VL_7B
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": dims.vocab,
            "hidden_size": dims.hidden,
            "intermediate_size": dims.intermediate,
            "num_hidden_layers": dims.layers,
            "num_attention_heads": dims.heads,
            "num_key_value_heads": dims.kv_heads,
            "max_position_embeddings": 128_000,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        },
        vision_config={
            "depth": dims.vision_layers,
            "hidden_size": dims.vision_hidden,
            "intermediate_size": dims.vision_intermediate,
            "num_heads": 16,
            "out_hidden_size": dims.hidden,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
    )
    found = dims_from(config.to_dict(), FAMILIES[family])
    assert replace(found, name=dims.name) == dims, found
    return Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=torch.get_default_dtype())


def tiny(family: str) -> tuple[Any, Any]:
    """The model of examples/ and what stands for its processor."""
    sys.path.append(str(EXAMPLES))
    from _tiny_model import tiny_model

    model, processor = tiny_model(family)
    return model, processor


def row_of(tokens: int, page: PageGrid, family: Family, image_token_id: int) -> list[RowSample]:
    """The documents of one row: text around images, an answer at the end of each."""
    draw = np.random.default_rng(0)
    size = num_image_tokens(page, family)
    fixed, per_page = QUESTION_TOKENS + ANSWER_TOKENS, LABEL_TOKENS + size
    fewest, most = max(1, tokens // 4 // per_page), (tokens - fixed) // per_page
    if most < 1:
        raise SystemExit(f"error: a row of {tokens} tokens holds no page of {size}; ask for longer rows")
    pages = draw.integers(fewest, most + 1, DOCUMENTS)
    samples = Samples.of(
        [f"{n:02}" for n in range(DOCUMENTS)],
        num_tokens=pages * per_page + fixed,
        num_patches=pages * num_patches(page, family),
        num_supervised=[ANSWER_TOKENS] * DOCUMENTS,
        patch_pairs=pages * num_patches(page, family) ** 2,
    )
    made = plan(samples, PackingSettings(capacity=tokens, rows_per_step=1), seed=0, dims=QWEN2_5_VL_7B)
    middle = np.argsort(made.row_cost)[made.num_rows // 2]
    names = made.samples.sample_id.to_pylist()
    row = []
    for number in (int(names[i]) for i in np.flatnonzero(made.step == middle)):
        parts = []
        for _ in range(pages[number]):
            parts += [draw.integers(0, 200, LABEL_TOKENS), np.full(size, image_token_id)]
        ids = torch.from_numpy(np.concatenate([*parts, draw.integers(0, 200, fixed)]))
        labels = torch.where(torch.arange(len(ids)) < len(ids) - ANSWER_TOKENS, IGNORED, ids)
        grids = [(page.height // family.patch, page.width // family.patch)] * pages[number]
        row.append(RowSample(input_ids=ids, labels=labels, grids=grids))
    return row


def batch_for(row: Sequence[RowSample], mesh: Mesh, family: Family, image_token_id: int, vision: str) -> dict[str, Any]:
    """What one rank receives; the pixels mean nothing."""
    grids = [grid for sample in row for grid in sample.grids]
    mine = range(len(grids)) if vision == "replicated" else deal_images(grids, family, mesh.size)[mesh.rank]
    patches = sum(grids[i][0] * grids[i][1] for i in mine)
    pixels = torch.randint(0, 256, (patches, 3 * family.patch**2), dtype=torch.uint8)
    return batch_of(row, pixels, mesh, family, image_token_id=image_token_id, pad_token_id=0)


def replicate_vision(model: Any, mesh: Mesh, mean: Sequence[float], std: Sequence[float]) -> None:
    """Let every rank encode every page of the row and keep the tokens of its slice."""
    core = qwen_vl_of(model)
    frames = core.config.vision_config.temporal_patch_size

    def encode(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        needs = kwargs.pop("image_tokens_per_rank")
        values = normalise(kwargs.pop("pixel_values"), mean, std, frames)
        out = module.get_image_features(values, kwargs.pop("image_grid_thw"), return_dict=True)
        features, *deep = (
            torch.cat(tuple(layer)).split(needs)[mesh.rank]
            for layer in (out.pooler_output, *(getattr(out, "deepstack_features", None) or []))
        )
        more = {"deepstack_features": [[x] for x in deep]} if deep else {}
        return args, {**kwargs, "mm_encoder_outputs": {"image": type(out)(pooler_output=[features], **more)}}

    core.model.register_forward_pre_hook(encode, with_kwargs=True)


def shard(model: Any, device: torch.device, size: int) -> None:
    """FSDP2 as the recipe has it: a unit for every layer."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    half = torch.bfloat16 if device.type == "cuda" else None
    mesh = init_device_mesh(device.type, (size,))
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=half, output_dtype=half)
    for layer in (*model.model.language_model.layers, *model.model.visual.blocks):
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


def train(setup: Setup, rank: int, store: str) -> dict[str, Any]:
    """Train in one process: seconds of each phase of each step, memory, and what the row holds."""
    device = torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
    torch.set_num_threads(setup.threads)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if setup.size > 1:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=f"file://{store}", rank=rank, world_size=setup.size)
    mesh = join(setup.size)
    torch.set_default_dtype(torch.bfloat16 if device.type == "cuda" and setup.size == 1 else torch.float32)
    with device:
        model = build(setup.model, setup.family).to(device, torch.get_default_dtype()).train()
    torch.set_default_dtype(torch.float32)
    checkpointing = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    checkpointing({"use_reentrant": False})
    use_attention(model, mesh)
    share = share_vision if setup.vision == "shared" else replicate_vision
    share(model, mesh, [0.5] * 3, [0.5] * 3)
    use_loss(model)
    extend_rope(model, max_positions=setup.tokens)
    if setup.size > 1:
        shard(model, device, setup.size)
    kind = torch.optim.AdamW if setup.optimizer == "adamw" else torch.optim.SGD
    optimizer = kind(model.parameters(), lr=1e-5)
    family, image = FAMILIES[setup.family], model.config.image_token_id
    row = row_of(setup.tokens, PAGES[setup.model], family, image)
    batch = batch_for(row, mesh, family, image, setup.vision)
    supervised = [("", ANSWER_TOKENS)] * len(row)
    about = {
        "documents": len(row),
        "pages": sum(len(sample.grids) for sample in row),
        "row_tokens": sum(len(sample.input_ids) for sample in row),
        "supervised": ANSWER_TOKENS * len(row),
        "tflop": row_flops(batch, supervised, dims_from(model.config.to_dict(), family)) / TERA,
    }
    batch = {name: x.to(device) if torch.is_tensor(x) else x for name, x in batch.items()}
    count = torch.tensor(about["supervised"], device=device)
    idle = memory_mb(device)

    def forward() -> None:
        nonlocal loss
        loss = model(**batch, num_items_in_batch=count).loss

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    loss: Any = None
    steps = []
    for _ in range(WARM_UP + setup.steps):
        if setup.size > 1:
            dist.barrier()
        steps.append([seconds(phase, device) for phase in (forward, lambda: loss.backward(), update)])
    if not torch.isfinite(loss):
        raise RuntimeError(f"the loss is {float(loss)}")
    if setup.size > 1:
        dist.destroy_process_group()
    return {"steps": steps[WARM_UP:], "idle_mb": idle, "peak_mb": memory_mb(device, peak=True), "about": about}


def seconds(work: Callable[[], None], device: torch.device) -> float:
    begin = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def memory_mb(device: torch.device, peak: bool = False) -> float:
    """Memory of the device's allocator, else of the process; the most that it ever was, or what it is."""
    if device.type == "cuda":
        held = torch.cuda.max_memory_allocated(device) if peak else torch.cuda.memory_allocated(device)
        return held / 2**20
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:" if peak else "VmRSS:")[1].split()[0]) / 2**10


def read(run: str, processor: str | None, workers: int, rows: int) -> dict[str, Any]:
    """Rows of a run by a loader alone, from the start again where the run has fewer."""
    torch.set_num_threads(1)
    if processor is None:
        known: Any = tiny(RunSamples(run).config["model"])[1]
    else:
        known = AutoProcessor.from_pretrained(processor)
    dataset = RowDataset(run, known)
    warm = max(1, 2 * workers)  # what workers have read ahead when the first row arrives
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=1,
        sampler=[i % len(dataset) for i in range(warm + rows)],
        collate_fn=collate,
        num_workers=workers,
    )
    pages, tokens, begin = 0, 0, 0.0
    for number, batch in enumerate(loader):
        if number >= warm:
            pages += len(batch["image_grid_thw"])
            tokens += int(batch["cu_seq_lens_q"][-1])
        elif number == warm - 1:
            begin = time.perf_counter()
    elapsed = time.perf_counter() - begin
    return {
        "workers": workers,
        "rows": rows,
        "rows_of_run": len(dataset),
        "pages": pages,
        "tokens": tokens,
        "seconds": round(elapsed, 2),
        "pages_per_s": round(pages / elapsed, 1),
        "tokens_per_s": round(tokens / elapsed),
    }


def matmul_tflops(threads: int) -> float:
    """What a product of two matrices reaches on the CPU; the best of many."""
    torch.set_num_threads(threads)
    a, b = torch.rand(2, 1024, 1024)
    best = min(seconds(lambda: torch.mm(a, b), torch.device("cpu")) for _ in range(50))
    return float(2 * 1024**3 / best / TERA)


def answer(work: Callable[[], Any], pipe: Connection) -> None:
    """In a process of its own: send what comes of it."""
    try:
        pipe.send((True, work()))
    except (MemoryError, torch.OutOfMemoryError):
        pipe.send((False, OUT_OF_MEMORY))
    except RuntimeError as e:
        if "can't allocate memory" not in str(e):
            raise
        pipe.send((False, OUT_OF_MEMORY))


def run_processes(works: Sequence[Callable[[], Any]]) -> list[Any] | str:
    """Results of functions, each in a new process, all at the same time; or what stopped the first that failed."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for work in works:
        ours, theirs = context.Pipe()
        process = context.Process(target=answer, args=(work, theirs), daemon=False)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    results: dict[int, Any] = {}
    failure = ""
    while len(results) < len(pipes) and not failure:
        for pipe in wait([pipe for i, pipe in enumerate(pipes) if i not in results]):
            number = pipes.index(pipe)
            try:
                good, results[number] = pipe.recv()
            except EOFError:
                processes[number].join()
                code = processes[number].exitcode
                if code != -9:
                    failure = f"a process ended with {code}"
                good, results[number] = False, f"{OUT_OF_MEMORY}: killed by the system"
            if not good:
                failure = failure or results[number]
    for process in processes:
        if failure:
            process.kill()  # it may wait for the one that failed
        process.join()
    if failure and not failure.startswith(OUT_OF_MEMORY):
        raise SystemExit(f"error: {failure}; see above")
    return failure or [results[i] for i in range(len(pipes))]


def measure(setups: Sequence[Setup], rounds: int) -> dict[Setup, Any]:
    """For each configuration the results of its ranks in every round, or why there are none."""
    found: dict[Setup, Any] = {setup: [] for setup in setups}
    for number in range(rounds):
        first = number * len(setups) // rounds
        for setup in (*setups[first:], *setups[:first]):
            if isinstance(found[setup], str):
                continue
            with tempfile.TemporaryDirectory() as folder:
                ranks = run_processes(
                    [functools.partial(train, setup, rank, f"{folder}/store") for rank in range(setup.size)]
                )
            if isinstance(ranks, str):
                found[setup] = ranks
            else:
                found[setup].append(ranks)
            print(f"round {number + 1} of {rounds}: {setup}", file=sys.stderr)
    return found


def figures(setup: Setup, rounds: Sequence[Sequence[dict[str, Any]]], peak_tflops: float) -> dict[str, Any]:
    """Medians over the steps of all rounds, of the slowest rank."""
    steps = np.concatenate([np.max([rank["steps"] for rank in ranks], axis=0) for ranks in rounds])
    whole = np.concatenate([np.max([np.sum(rank["steps"], axis=1) for rank in ranks], axis=0) for ranks in rounds])
    about = rounds[0][0]["about"]
    step = statistics.median(whole)
    return {
        "sequence_parallel": setup.size,
        "tokens": setup.tokens,
        "vision": setup.vision,
        **{f"{name}_s": round(float(np.median(steps[:, i])), 4) for i, name in enumerate(PHASES)},
        "step_s": [round(float(x), 4) for x in (step, whole.min(), whole.max())],
        "tokens_per_s": round(about["row_tokens"] / step, 1),
        "mfu": round(about["tflop"] / step / peak_tflops / setup.size, 4),
        "idle_mb": round(max(rank["idle_mb"] for ranks in rounds for rank in ranks)),
        "peak_mb": round(max(rank["peak_mb"] for ranks in rounds for rank in ranks)),
    }


def hardware() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.is_file() else []
    name = names[0].partition(":")[2].strip() if names else platform.machine()
    return f"{name}, {available_cores()} cores, {torch.backends.cpu.get_cpu_capability()}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=sorted(PAGES), default="tiny")
    parser.add_argument("--family", choices=sorted(FAMILIES), default="qwen2.5-vl", help="of the tiny model")
    parser.add_argument("--sequence-parallel", type=int, nargs="+", default=[1], metavar="RANKS")
    parser.add_argument("--tokens", type=int, nargs="*", help="of a row; by default those of the model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help=f"of a process, after {WARM_UP} to warm up")
    parser.add_argument("--optimizer", choices=("adamw", "sgd"), default="adamw")
    parser.add_argument("--threads", type=int, default=1, help="of a rank, for what runs on the CPU")
    parser.add_argument("--peak-tflops", type=float, help="of one rank")
    parser.add_argument("--run", help="a finished run, to read its rows")
    parser.add_argument("--processor", help="its model's folder; by default one that counts bytes")
    parser.add_argument("--workers", type=int, nargs="+", default=[2])
    parser.add_argument("--loader-rows", type=int, default=32)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.model == "7b" and not torch.cuda.is_available():
        parser.error("--model 7b needs CUDA, which is not available here; take --model tiny")
    if args.model == "7b" and args.family != "qwen2.5-vl":
        parser.error("--model 7b is a Qwen2.5-VL; leave --family out")
    if torch.cuda.is_available() and max(args.sequence_parallel) > torch.cuda.device_count():
        parser.error(f"--sequence-parallel {max(args.sequence_parallel)}: {torch.cuda.device_count()} GPUs are here")
    return args


def main() -> None:
    args = parse()
    peak = args.peak_tflops
    if peak is None:
        peak = DEFAULT_HARDWARE.peak_tflops if torch.cuda.is_available() else matmul_tflops(args.threads)
    known = ("family", "model", "steps", "optimizer", "threads")
    setups = [
        Setup(size=size, tokens=tokens, vision=vision, **{name: getattr(args, name) for name in known})
        for tokens in (TOKENS[args.model] if args.tokens is None else args.tokens)
        for size in args.sequence_parallel
        for vision in (("shared",) if size == 1 else ("shared", "replicated"))
    ]
    found = measure(setups, args.rounds)
    print(f"{args.model} {args.family} on {hardware()}, peak {peak:.4g} TFLOPS a rank")
    measured, rows, not_run = [], {}, []
    for setup, rounds in found.items():
        if isinstance(rounds, str):
            not_run.append(f"{setup}: {rounds}")
            continue
        measured.append(figure := figures(setup, rounds, peak))
        about = rounds[0][0]["about"]
        rows[setup.tokens] = {**about, "tflop": round(about["tflop"], 4)}
        phases = ", ".join(f"{name} {figure[f'{name}_s']:.3f}" for name in PHASES)
        print(
            f"  {setup!s:40} {figure['tokens_per_s']:9.1f} tokens/s  step {figure['step_s'][0]:8.3f} s "
            f"({phases})  "
            f"mfu {figure['mfu']:.3f}  {figure['peak_mb']} MB"
        )
    loader = []
    for workers in args.workers if args.run else ():
        (result,) = run_processes([functools.partial(read, args.run, args.processor, workers, args.loader_rows)])
        print(f"  loader, {workers} workers: {result['pages_per_s']} pages/s, {result['tokens_per_s']} tokens/s")
        loader.append(result)
    for note in not_run:
        print(f"not run: {note}", file=sys.stderr)
    packages = ("torch", "transformers", "numpy", "simplejpeg", "pillow")
    result = {
        "model": args.model,
        "family": args.family,
        "page": f"{PAGES[args.model].width} x {PAGES[args.model].height}",
        "optimizer": args.optimizer,
        "rounds": args.rounds,
        "steps": args.steps,
        "peak_tflops": round(peak, 4),
        "peak": "given" if args.peak_tflops else "default" if torch.cuda.is_available() else "a product of matrices",
        "rows": rows,
        "training": measured,
        "loader": loader,
        "not_run": not_run,
        "threads": args.threads,
        "versions": {"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in packages}},
        "hardware": hardware(),
    }
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
