"""The plan and the shards of a run as map-style datasets, in the order of training.

`RowDataset` is what a trainer reads: item i is what this process receives at its micro-step i. `PlanDataset` shows the
same rows as messages and images, to anybody; it needs no torch, nor does this module before a `RowDataset` is made.

Rows are found by their number alone, so a resumed run skips to any step at no cost. A window is one `pread`; where
several ranks share a row, each reads the heads of its samples and the pages that it will encode.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from corpus.errors import ConfigError
from corpus.messages import Message, message_fingerprint
from corpus.records import Sample
from corpus.vision_tokens import FAMILIES
from packing.cost import ModelDims, sample_flops
from packing.plan import assign_steps
from trainer_plugin.samples import IntArray, Plan, RunSamples, StoredSample

if TYPE_CHECKING:
    from trainer_plugin.batch import RowSample
    from trainer_plugin.mesh import Mesh


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSample:
    """One conversation of a row. Every image part of `messages` holds an RGB image of `[H, W]` as in `sample.grids`."""

    sample: Sample
    messages: list[Message]

    @property
    def images(self) -> list[Image.Image]:
        """The page images, or those of a conversation of the user's, in the order of the conversation."""
        parts = [part for message in self.messages for part in message["content"]]
        return [part["image"] for part in parts if part["type"] == "image"]


class PlanDataset:
    """Rows of a run's plan. Picklable; forked processes share the index of the shards."""

    def __init__(self, run: str | Path) -> None:
        """Open a finished run, by path or URL.

        Raises:
            ConfigError: no finished run, no plan, or a plan that names samples which the run does not have.
        """
        self.samples = RunSamples(run)
        self.plan = self.samples.read_plan()

    def __len__(self) -> int:
        return len(self.plan.step)

    def __getitem__(self, index: int) -> list[LoadedSample]:
        """The samples of row `index`, in their order in the row."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return [self._load(number) for number in self.plan.entries_of(index)]

    def __iter__(self) -> Iterator[list[LoadedSample]]:
        return (self[i] for i in range(len(self)))

    def load(self, sample_id: str) -> LoadedSample:
        """One sample of the run with its pages decoded.

        Raises:
            ConfigError: the run does not have it.
        """
        return self._load(self.samples.find(sample_id))

    def _load(self, number: int) -> LoadedSample:
        stored = self.samples.stored(number, whole=True)
        files = stored.images(self.samples.shards, range(len(stored.names)))
        images = iter([Image.open(io.BytesIO(data)).convert("RGB") for data in files])
        for message in stored.messages:
            for part in message["content"]:
                if part["type"] == "image":
                    part["image"] = next(images)
        return LoadedSample(sample=self.samples.sample(number, stored.grids), messages=stored.messages)


class RowDataset:
    """What one process receives, micro-step after micro-step. Map-style and picklable.

    Every step is dealt by `packing.plan.assign`, as the plan's report predicts. A short step is filled with rows of
    padding, so that every process has equally many.

    Attributes:
        plan_report: the plan's JSON file. `fingerprint`: its name.
        rows_per_step, num_steps, micro_steps_per_step: rows of a step, over all processes; steps; rows of a step that
            one process runs.
        family, pad_token_id, image_token_id: what the batches were made for.
    """

    def __init__(
        self,
        run: str | Path,
        processor: Any,
        *,
        mesh: Mesh | None = None,
        split: Literal["train", "validation"] = "train",
        plan: str | Path | None = None,
    ) -> None:
        """Open a finished run, by path or URL.

        Args:
            processor: the model's `AutoProcessor`, or its tokenizer alone.
            mesh: the place of this process; by default it is alone.
            split: validation samples stand one in a row and are dealt in turn.
            plan: a plan of the run's samples, by default the run's own.

        Raises:
            ConfigError: what `PlanDataset` raises; a plan that was counted otherwise than this processor does; steps
                of different numbers of rows, or that do not divide by the data-parallel size.
        """
        from trainer_plugin.collate import PatchWriter, Tokeniser, check_identity
        from trainer_plugin.mesh import place

        self.mesh = mesh or place(0, 1, 1)
        self.samples = RunSamples(run)
        found = self.samples.read_plan(plan)
        self.plan_report = found.report
        self.fingerprint: str = found.report["fingerprint"]
        config = self.samples.config
        self.family = FAMILIES[config["model"]]
        self._tokeniser = Tokeniser(processor, self.family)
        identity = {
            "model": self.family.name,
            "messages": message_fingerprint(self.samples.settings),
            "dpi": config["render"]["dpi"],
        }
        check_identity(found.report["made_with"]["identity"], identity, self._tokeniser.names)
        self.pad_token_id, self.image_token_id = self._tokeniser.pad_token_id, self._tokeniser.image_token_id
        self._patches = PatchWriter(self.family)
        if split == "train":
            self._plan = found
            self.rows_per_step = _rows_per_step(found, self.mesh)
            costs = _step_costs(found, self.samples, self.rows_per_step)
            ranks, rounds = assign_steps(costs, self.mesh.data_size)
            self._rows = _dealt(ranks, rounds, self.mesh.data_rank)
        else:
            self._plan = _one_each(found, self.samples.of_split(split), self.mesh.data_size)
            self.rows_per_step = self.mesh.data_size
            num_steps = -(-len(self._plan.step) // self.rows_per_step)
            self._rows = np.full(num_steps, self.mesh.data_rank)
        self.micro_steps_per_step = self.rows_per_step // self.mesh.data_size
        self.num_steps = len(self._rows) // self.micro_steps_per_step

    def __len__(self) -> int:
        return len(self._rows)

    def places(self, index: int) -> tuple[int, int]:
        """Step and row of a micro-step; the row may be one of padding, beyond those of the plan."""
        if not 0 <= index < len(self):
            raise IndexError(f"micro-step {index} of {len(self)}")
        return index // self.micro_steps_per_step, int(self._rows[index])

    def tasks(self, index: int) -> list[tuple[str, int]]:
        """Task and supervised tokens of each sample of a micro-step, in the order of its labels."""
        found = []
        for number in self._numbers_of(index):
            sample = self.samples.sample(number)
            supervised = sample.num_supervised
            if not sample.tokens_exact:
                row_sample, _ = self._encoded(number, whole=False)
                supervised = _num_supervised(row_sample)
            found.append((sample.task, supervised))
        return found

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The batch of micro-step `index`, as `trainer_plugin.batch` describes it.

        Raises:
            ConfigError: a sample has another length than the plan says.
            EngineError: a shard is missing or damaged.
        """
        from trainer_plugin.batch import batch_of, empty_row
        from trainer_plugin.vision import deal_images

        encoded = [self._encoded(number, whole=self.mesh.size == 1) for number in self._numbers_of(index)]
        row = [row_sample for row_sample, _ in encoded] or [empty_row(self.mesh, self.pad_token_id)]
        mine = deal_images([g for s in row for g in s.grids], self.family, self.mesh.size)[self.mesh.rank]
        files, grids, first = [], [], 0
        for _, stored in encoded:
            places = [i - first for i in mine if first <= i < first + len(stored.names)]
            files += stored.images(self.samples.shards, places)
            grids += [stored.grids[i] for i in places]
            first += len(stored.names)
        return batch_of(
            row,
            self._patches(files, grids),
            self.mesh,
            self.family,
            image_token_id=self.image_token_id,
            pad_token_id=self.pad_token_id,
        )

    def _numbers_of(self, index: int) -> list[int]:
        step, row = self.places(index)
        number = int(np.searchsorted(self._plan.step, step)) + row
        in_step = number < len(self._plan.step) and self._plan.step[number] == step
        return self._plan.entries_of(number) if in_step else []

    def _encoded(self, number: int, whole: bool) -> tuple[RowSample, StoredSample]:
        stored = self.samples.stored(number, whole)
        row_sample = self._tokeniser.encode(stored.messages, stored.grids)
        _check_lengths(self.samples.sample(number), row_sample)
        return row_sample, stored


def collate(batch: list[dict[str, Any]]) -> dict[str, Any]:
    """The only item of a batch: a row is a batch already."""
    (item,) = batch
    return item


def _num_supervised(sample: RowSample) -> int:
    from trainer_plugin.loss import IGNORED

    return int((sample.labels != IGNORED).sum())


def _check_lengths(sample: Sample, made: RowSample) -> None:
    planned = (sample.num_tokens, sample.num_supervised)
    found = (len(made.input_ids), _num_supervised(made))
    if found == planned or (not sample.tokens_exact and found[0] <= planned[0]):
        return
    raise ConfigError(
        f"sample {sample.sample_id} has {found[0]} tokens ({found[1]} supervised), planned were {planned[0]} "
        f"({planned[1]}): the plan was made with another tokenizer or chat template; plan again with `corpus build`"
    )


def _rows_per_step(plan: Plan, mesh: Mesh) -> int:
    """Rows of every step.

    Raises:
        ConfigError: they differ, or do not divide by the data-parallel size.
    """
    sizes = plan.report["rows_per_step"]
    if len(set(sizes)) > 1:
        raise ConfigError(
            f"{plan.file} has steps of {' and '.join(map(str, sizes))} rows, one number for each of "
            "packing.row_lengths; set packing.rows_per_step, so that every step has as many, and plan again"
        )
    rows = int(sizes[-1])
    if rows % mesh.data_size:
        fitting = [n for n in range(1, rows + 1) if rows % n == 0]
        raise ConfigError(
            f"{mesh.data_size} data-parallel ranks do not divide the {rows} rows of a step; use one of "
            f"{', '.join(map(str, fitting))}, or plan again with packing.rows_per_step a multiple of {mesh.data_size}"
        )
    return rows


def _step_costs(plan: Plan, samples: RunSamples, rows_per_step: int) -> npt.NDArray[np.float64]:
    """`[steps, rows]` predicted costs, as the plan's report has them; the rows that a step lacks cost nothing."""
    model = plan.report["made_with"]["model"]
    dims = ModelDims(**model | {"frozen": tuple(model["frozen"])})
    row_of = np.repeat(np.arange(len(plan.step)), np.diff(plan.starts))
    flops = sample_flops(**samples.columns(plan.entries), dims=dims)
    costs = np.zeros((int(plan.step[-1]) + 1, rows_per_step))
    costs[plan.step, plan.row] = np.bincount(row_of, weights=flops)
    return costs


def _dealt(ranks: IntArray, rounds: IntArray, rank: int) -> IntArray:
    """The rows of one rank, step after step, each in the order of its rounds."""
    rounds_of_mine = np.where(ranks == rank, rounds, rounds.shape[1])
    share = int((ranks[:1] == rank).sum())
    rows: IntArray = np.argsort(rounds_of_mine, axis=1, kind="stable")[:, :share].reshape(-1)
    return rows


def _one_each(plan: Plan, entries: IntArray, rows_per_step: int) -> Plan:
    """Samples one in a row, in their order."""
    places = np.arange(len(entries))
    return Plan(
        file=plan.file,
        report=plan.report,
        entries=entries,
        starts=np.arange(len(entries) + 1),
        step=places // rows_per_step,
        row=places % rows_per_step,
    )
