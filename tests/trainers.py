"""Trainers of tiny models on rows that were made up, for tests of the plugin with the real `transformers.Trainer`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from tiny_models import IMAGE, MEAN, STD, TINY, tiny_batch, tiny_document
from transformers import TrainingArguments

from packing.plan import assign
from trainer_plugin.attach import LongContextPlugin
from trainer_plugin.batch import RowSample
from trainer_plugin.dataset import RowDataset
from trainer_plugin.mesh import Mesh

Row = tuple[RowSample, ...]


class MadeUpRows(RowDataset):
    """Steps of rows as a plan would give them; a sample's task is its number in the row. Knows what was read."""

    def __init__(self, family: str, steps: Sequence[Sequence[Row]], mesh: Mesh, fingerprint: str = "f1") -> None:
        self.family, self.image_token_id = TINY[family], IMAGE
        self.steps, self.mesh, self.fingerprint = steps, mesh, fingerprint
        self.rows_per_step, self.num_steps = len(steps[0]), len(steps)
        self.micro_steps_per_step = self.rows_per_step // mesh.data_size
        self.plan_report = {"capacity": 100, "row_lengths": [50, 100]}
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.num_steps * self.micro_steps_per_step

    def places(self, i: int) -> tuple[int, int]:
        step, number = divmod(i, self.micro_steps_per_step)
        costs = [float(sum(len(s.input_ids) for s in row)) for row in self.steps[step]]
        return step, assign(costs, self.mesh.data_size)[self.mesh.data_rank][number]

    def tasks(self, i: int) -> list[tuple[str, int]]:
        step, row = self.places(i)
        return [(str(n), int((s.labels[1:] != -100).sum())) for n, s in enumerate(self.steps[step][row])]

    def __getitem__(self, i: int) -> dict[str, Any]:
        self.read.append(i)
        step, row = self.places(i)
        samples = self.steps[step][row] or (tiny_document(0, [self.mesh.size]),)
        return tiny_batch(samples, self.family.name, self.mesh, seed=10 * step + row)


class TinyPlugin(LongContextPlugin):
    """The plugin on made-up rows."""

    def __init__(self, family: str, steps: Any, validation: Any = (), fingerprint: str = "f1", **options: Any) -> None:
        colours = SimpleNamespace(image_processor=SimpleNamespace(image_mean=MEAN, image_std=STD))
        super().__init__(run="made up", processor=colours, **options)
        self.family, self.splits, self.fingerprint = family, {"train": steps, "validation": validation}, fingerprint

    def dataset(self, split: str = "train") -> RowDataset:
        if split not in self._datasets and self.splits[split]:
            self._datasets[split] = MadeUpRows(self.family, self.splits[split], self.mesh, self.fingerprint)
        return self._datasets.get(split, [])


def arguments(out: Path, **options: Any) -> TrainingArguments:
    """Settings for a test: one epoch of plain gradient descent, no reports."""
    return TrainingArguments(
        **{
            "output_dir": str(out),
            "use_cpu": True,
            "per_device_train_batch_size": 1,
            "num_train_epochs": 1,
            "optim": "sgd",
            "learning_rate": 0.05,
            "lr_scheduler_type": "constant",
            "max_grad_norm": 0.0,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            **options,
        }
    )


def weights(model: Any) -> dict[str, Any]:
    """Copies of all parameters, gathered where they are sharded."""
    full = {
        name: p.full_tensor() if hasattr(p, "full_tensor") else p
        for name, p in model.state_dict().items()
        if torch.is_floating_point(p)
    }
    return {name.removeprefix("module."): np.array(p.detach().float().numpy()) for name, p in full.items()}
