"""What a training step did, in the Trainer's own logs, beside what the plan said it would do.

    tokens_per_second, supervised_tokens_per_second   of all ranks together, evaluation and saving left out
    mfu              model FLOPs (`packing.cost`, recomputation not counted) / time / peak of all devices
    fill             tokens of the rows / their capacity
    idle_predicted   share of rank-time spent waiting, if time were proportional to cost
    idle_measured    the same from the time that ranks spend in attention and MLPs of their layers
    waiting_for_data share of the time in which the loader kept this rank waiting
    loss_<task>      mean over the supervised tokens of a task
    memory_gib       the most that one device has held (without a device: one process)

Ranks wait inside collectives, so a step takes equally long on all of them. What differs is the time inside modules
that hold no collective of FSDP: these are timed, also where checkpointing runs them again. Under FSDP ranks wait for
each other after every row, else at the optimizer step; both figures of idle follow that. `loss` is replaced by the
exact one: under FSDP2 with bfloat16 the model returns 8 bits of it.

Ranks exchange one message for each log.
"""

from __future__ import annotations

import contextlib
import logging
import resource
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate.utils import gather_object
from transformers import TrainerCallback

from corpus.blocks import clean
from corpus.errors import ConfigError
from packing.cost import ModelDims, attention_flops, text_flops, vision_flops
from trainer_plugin.dataset import RowDataset
from trainer_plugin.mesh import Mesh
from trainer_plugin.models import Undo, qwen_vl_of

STATE = "longdoc plan"  # the key of the plan among the states that a checkpoint holds
TERA = 1e12

logger = logging.getLogger(__name__)

Tasks = Sequence[tuple[str, int]]  # of each sample of a row: its task and its supervised tokens
SampleSum = tuple[str, float, int]  # of a sample: its task, summed loss and supervised tokens


@dataclass(slots=True, kw_only=True)
class Measured:
    """What one rank knows of the micro-steps since the last log; lists have an entry for each."""

    leads: bool  # the first of the ranks that share a row, which counts what they have in common
    tokens: list[int] = field(default_factory=list)
    capacity: list[int] = field(default_factory=list)
    flops: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # inside attention and MLPs
    losses: list[float] = field(default_factory=list)  # summed over the slice
    supervised: list[int] = field(default_factory=list)  # tokens of the slice
    samples: list[SampleSum] = field(default_factory=list)
    memory: int = 0  # bytes


def summarise(
    ranks: Sequence[Measured], elapsed: float, steps: int, *, every_row: bool, peak_flops: float
) -> dict[str, float]:
    """The figures of `steps` optimizer steps that took `elapsed` seconds.

    Args:
        every_row: ranks wait for each other after every row, not only at the optimizer step.
        peak_flops: of all devices together, in a second.
    """
    leaders = [r for r in ranks if r.leads]
    tokens = sum(sum(r.tokens) for r in leaders)
    supervised = np.array([r.supervised for r in ranks]).sum(0).reshape(steps, -1).sum(1)
    losses = np.array([r.losses for r in ranks]).sum(0).reshape(steps, -1).sum(1)
    meets = len(leaders[0].flops) if every_row else steps
    return {
        **mean_losses(sample for r in ranks for sample in r.samples),
        "loss": float((losses / np.maximum(supervised, 1)).mean()),  # of steps, as the Trainer has it
        "tokens_per_second": tokens / elapsed,
        "supervised_tokens_per_second": float(supervised.sum()) / elapsed,
        "mfu": sum(sum(r.flops) for r in leaders) / elapsed / peak_flops,
        "fill": tokens / max(1, sum(sum(r.capacity) for r in leaders)),
        "idle_predicted": idle([r.flops for r in leaders], meets),
        "idle_measured": idle([r.seconds for r in ranks], meets),
        "memory_gib": max(r.memory for r in ranks) / 2**30,
    }


def idle(costs: Sequence[Sequence[float]], meets: int) -> float:
    """`[ranks, micro-steps]` times or costs -> the share that ranks wait which meet so often, equally far apart."""
    busy: npt.NDArray[np.float64] = np.array(costs).reshape(len(costs), meets, -1).sum(2)
    longest = float(busy.max(0).sum())
    return 1 - float(busy.mean(0).sum()) / longest if longest else 0.0


def mean_losses(samples: Iterable[SampleSum]) -> dict[str, float]:
    """Means over supervised tokens: "loss", and "loss_<task>" for each task."""
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for task, loss, count in samples:
        sums[task] += loss
        counts[task] += count
    tasks = {f"loss_{task}": sums[task] / counts[task] for task in sorted(counts) if counts[task]}
    return {"loss": sum(sums.values()) / max(1, sum(counts.values())), **tasks}


def row_flops(batch: dict[str, Any], tasks: Tasks, dims: ModelDims) -> float:
    """Model FLOPs of a row, forward and backward."""
    lengths = batch["cu_seq_lens_q"].diff()[: len(tasks)].numpy()
    patches = batch["image_grid_thw"].prod(1).numpy()
    supervised = sum(count for _, count in tasks)
    vision = vision_flops(patches.sum(), dims, (patches**2).sum())
    return float(text_flops(lengths.sum(), supervised, dims) + attention_flops(lengths, dims).sum() + vision)


@dataclass(slots=True)
class Seen:
    """What a probe saw; an entry for each forward pass."""

    losses: list[Any] = field(default_factory=list)  # [2, documents]: summed losses, supervised tokens
    seconds: list[float] = field(default_factory=list)  # inside attention and MLPs

    def by_sample(self, tasks: Iterable[Tasks]) -> list[SampleSum]:
        """What was seen of each sample, given those of each row."""
        return [
            (task, loss, int(count))
            for row, samples in zip(self.losses, tasks, strict=True)
            for (task, _), loss, count in zip(samples, *row.tolist(), strict=False)  # padding has no task
        ]


class Probe:
    """Losses of each document, and time in the layers, seen from inside the model."""

    def __init__(self, model: Any, mesh: Mesh) -> None:
        self.core, self.mesh = qwen_vl_of(model), mesh
        self.seen = Seen()
        self.cuda = False
        self._begun: dict[Any, Any] = {}
        self._spans: list[tuple[Any, Any]] = []  # of the pass that runs

    def attach(self) -> Undo:
        """Watch every forward pass that has packed documents."""
        text, vision = self.core.model.language_model.layers, self.core.model.visual.blocks
        timed = [m for layer in text for m in (layer.self_attn, layer.mlp)]
        timed += [m for block in vision for m in (block.attn, block.mlp)]
        handles = [self.core.register_forward_pre_hook(self._begin_pass, with_kwargs=True)]
        handles += [module.register_forward_pre_hook(self._enter) for module in timed]
        handles += [module.register_forward_hook(self._leave) for module in timed]

        def undo() -> None:
            for handle in handles:
                handle.remove()

        return undo

    @contextlib.contextmanager
    def aside(self) -> Iterator[Seen]:
        """What is seen in here is kept apart."""
        self.settle()
        before, self.seen = self.seen, Seen()
        try:
            yield self.seen
        finally:
            self._spans.clear()
            self.seen = before

    def observe(self, places: Any, losses: Any) -> None:
        """For `use_loss`: places in the slice `[S]`, losses there `[S]`."""
        documents = torch.searchsorted(self._ends, places + self._offset, right=True)
        both = torch.stack([losses.float(), torch.ones_like(losses, dtype=torch.float)])
        self.seen.losses.append(both.new_zeros((2, len(self._ends))).index_add(1, documents, both))

    def settle(self) -> None:
        """Add up what was timed since; waits for the device."""
        if self.cuda:
            torch.cuda.synchronize()
        if self.seen.seconds:
            self.seen.seconds[-1] += sum(a.elapsed_time(b) / 1e3 if self.cuda else b - a for a, b in self._spans)
        self._spans.clear()

    def _begin_pass(self, _module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        if (cu := kwargs.get("cu_seq_lens_q")) is not None:
            self.settle()
            self.cuda = cu.is_cuda
            self._ends, self._offset = cu[1:], self.mesh.rank * kwargs["input_ids"].shape[1]
            self.seen.seconds.append(0.0)

    def _enter(self, module: Any, _args: Any) -> None:
        self._begun[module] = self._now()

    def _leave(self, module: Any, _args: Any, _output: Any) -> None:
        self._spans.append((self._begun[module], self._now()))

    def _now(self) -> Any:
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


class LongContextCallback(TrainerCallback):  # type: ignore[misc] # transformers has no types here
    """Collects the figures, and refuses a checkpoint of another plan. `attach` feeds it and passes its logs on."""

    def __init__(
        self, probe: Probe, dataset: RowDataset, mesh: Mesh, dims: ModelDims, *, every_row: bool, peak_tflops: float
    ) -> None:
        self.probe, self.dataset, self.mesh, self.dims = probe, dataset, mesh, dims
        self.every_row = every_row
        self.peak_flops = peak_tflops * TERA * mesh.size * mesh.data_size
        self.row_lengths = sorted(dataset.plan_report["row_lengths"])
        self.logs: dict[str, float] = {}  # of the step that is about to be logged
        self._begin()

    def _begin(self) -> None:
        self.probe.seen = Seen()
        self.tasks: list[Tasks] = []
        self.measured = Measured(leads=self.mesh.rank == 0)
        self.steps, self.waited = 0, 0.0
        self.start = self.stop = time.perf_counter()

    def add_batches(self, first: int, batches: Sequence[dict[str, Any]], waited: float) -> None:
        """The micro-steps that come next, the first of which is item `first` of the dataset."""
        self.waited += waited
        for number, batch in enumerate(batches):
            tasks = self.dataset.tasks(first + number)
            tokens = int(batch["cu_seq_lens_q"][len(tasks)])
            self.tasks.append(tasks)
            self.measured.tokens.append(tokens)
            self.measured.capacity.append(next(n for n in (0, *self.row_lengths, tokens) if n >= tokens))
            self.measured.flops.append(row_flops(batch, tasks, self.dims))

    def take_logs(self) -> dict[str, float]:
        """The figures that belong to the loss that is logged now, if there are any; once."""
        logs, self.logs = self.logs, {}
        return logs

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Refuse to go on with another plan; begin to count."""
        saved = state.stateful_callbacks.get(STATE, {}).get("attributes", {}).get("fingerprint")
        if state.global_step and saved != self.dataset.fingerprint:
            trained = f"plan {clean(str(saved))}" if saved else "other data"
            raise ConfigError(
                f"the checkpoint of step {state.global_step} was trained on {trained}, and the run has plan "
                f"{self.dataset.fingerprint}, whose rows are others; plan the run with the settings of before, or "
                "start from the checkpoint's weights without resume_from_checkpoint"
            )
        state.stateful_callbacks[STATE] = {"args": {}, "attributes": {"fingerprint": self.dataset.fingerprint}}
        if "vision" in self.dims.frozen:
            # Checkpointing makes the embeddings ask for gradients, and with them a tower that has none to compute.
            self.probe.core.disable_input_require_grads()
        self._begin()

    def on_step_end(self, _args: Any, _state: Any, control: Any, **_: Any) -> None:
        """Count the step; if it will be logged, put together what all ranks saw."""
        self.steps += 1
        self.probe.settle()
        if control.should_log:
            self._collect()
        self.stop = time.perf_counter()

    def on_epoch_end(self, _args: Any, _state: Any, control: Any, **_: Any) -> None:
        """The same for logging_strategy="epoch"."""
        if control.should_log and self.steps:
            self._collect()

    def on_save(self, *_: Any, **__: Any) -> None:
        """Leave out the time since the step."""
        now = time.perf_counter()
        self.start, self.stop = self.start + now - self.stop, now

    on_evaluate = on_save

    def _collect(self) -> None:
        seen, measured = self.probe.seen, self.measured
        if len(seen.losses) != len(self.tasks):
            logger.warning("%d forward passes for %d rows: no figures", len(seen.losses), len(self.tasks))
            self._begin()
            return
        for row in seen.losses:
            loss, count = row.sum(1).tolist()
            measured.losses.append(loss)
            measured.supervised.append(int(count))
        measured.seconds, measured.samples = seen.seconds, seen.by_sample(self.tasks)
        measured.memory = _memory(self.probe.cuda)
        elapsed = time.perf_counter() - self.start
        self.logs = summarise(
            gather_object([measured]), elapsed, self.steps, every_row=self.every_row, peak_flops=self.peak_flops
        )
        self.logs["waiting_for_data"] = self.waited / elapsed
        self._begin()


def _memory(cuda: bool) -> int:
    return torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
