"""The plugin on the real Trainer: updates are those of one process that sees the whole step, whoever shares it.

Steps hold rows with 0 to 40 labels, rows without pages and ranks without either, so that a mean of means, a gradient
averaged over the wrong ranks or a row read twice would show. One process is held against a plain loop.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distributed import Processes, shard_on_cpu
from test_trainer_plugin_parity import CLOSE, FAMILIES, ROWS, labels_in, prepare
from tiny_models import tiny_batch, tiny_model
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from trainers import TinyPlugin, arguments, weights
from transformers import Trainer
from transformers.trainer_pt_utils import AcceleratorConfig

from corpus.errors import ConfigError
from trainer_plugin.mesh import place
from trainer_plugin.rope import extend_rope

STEPS = (ROWS, ROWS[::-1], (ROWS[3], ROWS[1], (), ()))  # the last step is a short one, filled with rows without samples
VALIDATION = ((ROWS[0], ROWS[1], ROWS[3], ROWS[2]), (ROWS[3], ROWS[0], (), ()))


@pytest.fixture(scope="module")
def worlds() -> Iterator[dict[int, Processes]]:
    with Processes(2) as two, Processes(4) as four:
        yield {2: two, 4: four}


@functools.cache
def by_hand(family: str) -> tuple[list[float], dict[str, Any], float]:
    """Losses of STEPS, weights after them, and the loss on VALIDATION then: plain gradient descent, one process."""
    model, _ = prepare(family, (7, 1), place(0, 1, 1))
    extend_rope(model, max_positions=100)
    losses = []
    for number, rows in enumerate(STEPS):
        model.zero_grad()
        outs = [loss_of(model, family, row, 10 * number + i, labels_in(rows)) for i, row in enumerate(rows) if row]
        torch.stack(outs).sum().backward()
        losses.append(float(torch.stack(outs).detach().sum()))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.05 * parameter.grad
    with torch.no_grad():
        labels = labels_in(VALIDATION[0]) + labels_in(VALIDATION[1])
        rows = [(10 * s + r, row) for s, step in enumerate(VALIDATION) for r, row in enumerate(step) if row]
        validation = sum(float(loss_of(model, family, row, seed, labels)) for seed, row in rows)
    return losses, weights(model), validation


def loss_of(model: Any, family: str, row: Any, seed: int, labels: int) -> Any:
    return model(**tiny_batch(row, family, seed=seed), num_items_in_batch=torch.tensor(labels)).loss


class MyTrainer(Trainer):
    """A subclass with a habit of its own."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **options: Any) -> Any:
        self.seen = [*getattr(self, "seen", []), options["num_items_in_batch"]]
        return super().compute_loss(model, inputs, return_outputs, **options)


def train(family: str, size: int = 1, how: str = "", kind: type[Trainer] = Trainer, **options: Any) -> dict[str, Any]:
    """Train STEPS and evaluate; what came of it."""
    if how == "fsdp2":
        options |= {"fsdp": True, "fsdp_config": {"version": 2}}
    plugin = TinyPlugin(family, STEPS, VALIDATION, sequence_parallel_size=size)
    with tempfile.TemporaryDirectory() as out:
        args = arguments(Path(out), gradient_accumulation_steps=4 // plugin.mesh.data_size, **options)
        trainer = kind(model=tiny_model(family), args=args)
        if how == "fsdp2":
            shard_on_cpu(trainer)
        plugin.attach(trainer)
        trainer.train()
        sharded = isinstance(next(trainer.model.parameters()), DTensor)
        metrics = trainer.evaluate()
    assert sharded == (how == "fsdp2")
    assert isinstance(trainer.model_wrapped, DistributedDataParallel) == (how == "ddp")
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    return {"weights": weights(trainer.model), "logs": logs, "metrics": metrics, "seen": getattr(trainer, "seen", None)}


def assert_as_by_hand(family: str, result: dict[str, Any]) -> None:
    losses, expected, validation = by_hand(family)
    before = weights(tiny_model(family))
    assert result["weights"].keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(result["weights"][name], value, atol=CLOSE, rtol=0, err_msg=name)
        assert np.abs(value - before[name]).max() > 10 * CLOSE, name
    assert [entry["loss"] for entry in result["logs"]] == pytest.approx(losses, abs=CLOSE)
    assert result["metrics"]["eval_loss"] == pytest.approx(validation, abs=CLOSE)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_process_trains_what_a_plain_loop_trains(family: str) -> None:
    result = train(family, kind=MyTrainer)
    assert_as_by_hand(family, result)
    counts = [labels_in(rows) for rows in STEPS for _ in range(4)]
    assert [int(n) for n in result["seen"][:12]] == counts
    assert not any(torch.is_floating_point(n) for n in result["seen"])


@pytest.mark.parametrize(
    ("number", "size", "how", "checkpointing"),
    [(2, 2, "ddp", True), (4, 2, "ddp", False), (4, 2, "fsdp2", True), (4, 4, "fsdp2", False)],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_processes_train_what_one_trains(
    worlds: dict[int, Processes], family: str, number: int, size: int, how: str, checkpointing: bool
) -> None:
    for result in worlds[number].run(train, family, size, how, gradient_checkpointing=checkpointing):
        assert_as_by_hand(family, result)


def trainer_for(out: Path, family: str = "qwen2.5-vl", **options: Any) -> Trainer:
    return Trainer(model=tiny_model(family), args=arguments(out, gradient_accumulation_steps=4, **options))


@pytest.mark.parametrize("family", FAMILIES)
def test_detaching_restores_trainer_and_model(tmp_path: Path, family: str) -> None:
    trainer = trainer_for(tmp_path, family)
    plugin = TinyPlugin(family, STEPS, VALIDATION, freeze=("vision",), rope_base=1e6, force_rope=True)
    batch = tiny_batch(ROWS[0][1:2], family)
    stock = {k: v for k, v in batch.items() if k in ("input_ids", "position_ids")}
    before = dict(trainer.__dict__), list(trainer.callback_handler.callbacks), trainer.model(**stock).logits
    names = set(trainer.model.__dict__) | set(trainer.model.lm_head.__dict__)
    plugin.attach(trainer)
    assert trainer.__dict__.keys() > before[0].keys() and trainer.train_dataset is plugin.dataset()
    assert not next(trainer.model.model.visual.parameters()).requires_grad
    with pytest.raises(ConfigError, match=r"attached already; detach\(\) it first"):
        plugin.attach(trainer)
    plugin.detach()
    assert trainer.__dict__ == before[0] and trainer.callback_handler.callbacks == before[1]
    assert set(trainer.model.__dict__) | set(trainer.model.lm_head.__dict__) == names
    assert all(parameter.requires_grad for parameter in trainer.model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in trainer.model.modules())
    assert torch.equal(trainer.model(**stock).logits, before[2])
    plugin.attach(trainer)
    plugin.detach()
    plugin.detach()


def test_an_attempt_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    trainer = trainer_for(tmp_path)
    before = dict(trainer.__dict__)
    plugin = TinyPlugin("qwen2.5-vl", STEPS, freeze=("vision",), rope_base=5e5)
    with pytest.raises(ConfigError, match="below the model's 1e\\+06"):
        plugin.attach(trainer)
    assert trainer.__dict__ == before
    assert all(parameter.requires_grad for parameter in trainer.model.parameters())
    TinyPlugin("qwen2.5-vl", STEPS).attach(trainer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_device_train_batch_size": 2}, "per_device_train_batch_size = 2, but a row is a batch; set it to 1"),
        ({"gradient_accumulation_steps": 8}, "4 rows a step on 1 data-parallel ranks; set it to 4"),
        ({"max_steps": 9}, "the plan has 3 steps, .*; set it to at most 3"),
        ({"num_train_epochs": 2}, "num_train_epochs = 2, but the plan has 3 steps, .*; set it to 1"),
        ({"average_tokens_across_devices": False}, "average_tokens_across_devices = False.*; set it to True"),
        ({"train_sampling_strategy": "group_by_length"}, "the plan has grouped the rows; set it to sequential"),
        (
            {"accelerator_config": AcceleratorConfig(dispatch_batches=True)},
            "dispatch_batches and split_batches have no place here",
        ),
        ({"ignore_data_skip": True}, "resuming would repeat rows; set it to False"),
        ({"auto_find_batch_size": True}, "a batch is one row; set it to False"),
        ({"label_smoothing_factor": 0.1}, "the plugin computes the loss; set it to 0"),
        ({"use_liger_kernel": True}, "the plugin computes the loss; set it to False"),
        ({"torch_compile": True}, "rows of ever new lengths would be compiled anew; set it to False"),
        ({"compute_metrics": len}, "compute_metrics and preprocess_logits_for_metrics need logits"),
        ({"model_init": functools.partial(tiny_model, "qwen3-vl")}, "model_init makes another model"),
    ],
)
def test_what_would_train_something_else_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    trainer = trainer_for(tmp_path)
    for name, value in options.items():
        setattr(trainer if name in ("compute_metrics", "model_init") else trainer.args, name, value)
    before = dict(trainer.__dict__)
    with pytest.raises(ConfigError, match=message):
        TinyPlugin("qwen2.5-vl", STEPS).attach(trainer)
    assert trainer.__dict__ == before


def test_a_process_that_is_alone_among_several_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_for(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match="4 processes were launched, but this one is alone"):
        TinyPlugin("qwen2.5-vl", STEPS).attach(trainer)


def test_a_size_that_does_not_divide_the_processes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sequence_parallel_size = 2 does not divide 1 processes; use one of 1"):
        TinyPlugin("qwen2.5-vl", STEPS, sequence_parallel_size=2).attach(trainer_for(tmp_path))


def refusal_of_fsdp(by_hand: bool, version: int) -> str:
    with tempfile.TemporaryDirectory() as out:
        trainer = trainer_for(Path(out), fsdp=True, fsdp_config={"version": 2})
        if by_hand:
            shard_on_cpu(trainer)
            trainer.accelerator.state.fsdp_plugin.fsdp_version = version
        with pytest.raises(ConfigError) as refused:
            TinyPlugin("qwen2.5-vl", STEPS).attach(trainer)
    return str(refused.value)


def test_sharding_that_would_not_work_is_refused(worlds: dict[int, Processes]) -> None:
    for message in worlds[2].run(refusal_of_fsdp, False, 2):
        assert "every process would train alone" in message
    for message in worlds[2].run(refusal_of_fsdp, True, 1):
        assert "FSDP1 is not supported; set fsdp_version: 2" in message


def test_predictions_are_refused(tmp_path: Path) -> None:
    trainer = trainer_for(tmp_path)
    plugin = TinyPlugin("qwen2.5-vl", STEPS, VALIDATION)
    plugin.attach(trainer)
    trainer.compute_metrics = len
    with pytest.raises(ConfigError, match="logits exist only in pieces"):
        trainer.evaluate()
