"""Figures of a step, checked by arithmetic; where the real Trainer logs them, and against what cost and counts are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_trainer_plugin_parity import MIXED, ROWS, labels_in
from tiny_models import tiny_batch, tiny_model
from trainers import TinyPlugin, arguments
from transformers import Trainer, TrainerCallback

from packing.cost import QWEN2_5_VL_7B, sample_flops
from trainer_plugin.callback import Measured, idle, mean_losses, row_flops, summarise

STEPS = (ROWS, ROWS[::-1])


def measured(**changes: Any) -> Measured:
    fields: dict[str, Any] = {
        "leads": True,
        "tokens": [80, 100],
        "capacity": [100, 100],
        "flops": [4.0, 2.0],
        "seconds": [3.0, 1.0],
        "losses": [10.0, 2.0],
        "supervised": [5, 0],
        "samples": [("a", 10.0, 4), ("b", 2.0, 1)],
        "memory": 2**30,
    }
    return Measured(**(fields | changes))


def test_a_summary_in_full() -> None:
    ranks = [
        measured(),
        measured(leads=False, flops=[4.0, 2.0], seconds=[3.0, 1.0], supervised=[5, 3], losses=[6.0, 1.0], samples=[]),
        measured(flops=[2.0, 2.0], seconds=[1.0, 1.0], tokens=[50, 0], capacity=[100, 0], memory=3 * 2**30),
    ]
    found = summarise(ranks, 2.0, 2, every_row=True, peak_flops=10.0)
    assert found == {
        "loss": pytest.approx((26 / 15 + 5 / 3) / 2),
        "loss_a": 2.5,
        "loss_b": 2.0,
        "tokens_per_second": 115.0,
        "supervised_tokens_per_second": 9.0,
        "mfu": 0.5,
        "fill": pytest.approx(230 / 300),
        "idle_predicted": pytest.approx(1 - 5 / 6),
        "idle_measured": pytest.approx(1 - (7 / 3 + 1) / 4),
        "memory_gib": 3.0,
    }


def test_ranks_that_meet_seldom_wait_less() -> None:
    assert idle([[3.0, 1.0], [1.0, 3.0]], 2) == pytest.approx(1 / 3)
    assert idle([[3.0, 1.0], [1.0, 3.0]], 1) == 0.0
    assert idle([[0.0], [0.0]], 1) == 0.0


@given(st.lists(st.lists(st.floats(0, 1e6), min_size=6, max_size=6), min_size=1, max_size=5))
def test_idle_is_a_share(costs: list[list[float]]) -> None:
    for meets in (1, 2, 3, 6):
        assert -1e-9 <= idle(costs, meets) < 1


def test_losses_are_means_over_tokens() -> None:
    samples = [("a", 10.0, 4), ("b", 1.0, 0), ("a", 2.0, 2)]
    assert mean_losses(samples) == {"loss": 13 / 6, "loss_a": 2.0}
    assert mean_losses([]) == {"loss": 0.0}


def test_a_row_costs_what_its_samples_cost() -> None:
    tasks = [("x", int((s.labels[1:] != -100).sum())) for s in MIXED]
    patches = [[r * c for r, c in s.grids] for s in MIXED]
    expected = sample_flops(
        [len(s.input_ids) for s in MIXED],
        [sum(p) for p in patches],
        [count for _, count in tasks],
        QWEN2_5_VL_7B,
        [sum(n * n for n in p) for p in patches],
    ).sum()
    assert row_flops(tiny_batch(MIXED, "qwen2.5-vl"), tasks, QWEN2_5_VL_7B) == pytest.approx(expected)


class Watcher(TrainerCallback):  # type: ignore[misc]
    """What a reporting integration would be given; it stands before the plugin's callback."""

    def __init__(self) -> None:
        self.logs: list[dict[str, float]] = []

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        self.logs.append(dict(logs))


@pytest.mark.parametrize(("every", "number"), [({"logging_steps": 2}, 1), ({"logging_strategy": "epoch"}, 1)])
def test_every_reporter_sees_the_figures(tmp_path: Path, every: dict[str, Any], number: int) -> None:
    watcher = Watcher()
    options = {"gradient_accumulation_steps": 4, "eval_strategy": "epoch", **every}
    plugin = TinyPlugin("qwen3-vl", STEPS, (ROWS,), freeze=("vision",))
    trainer = Trainer(
        model=tiny_model("qwen3-vl"),
        args=arguments(tmp_path, gradient_checkpointing=True, **options),
        eval_dataset=plugin.dataset("validation"),
        callbacks=[watcher],
    )
    plugin.attach(trainer)
    trainer.train()
    logs = [entry for entry in watcher.logs if "loss" in entry]
    assert len(logs) == number and logs[0].items() <= trainer.state.log_history[0].items()
    assert {"tokens_per_second", "supervised_tokens_per_second", "mfu", "idle_measured", "loss_0"} <= set(logs[0])
    tokens = sum(len(s.input_ids) for row in ROWS for s in row)
    assert logs[0]["fill"] == pytest.approx(
        tokens / sum(50 if sum(len(s.input_ids) for s in r) <= 50 else 100 for r in ROWS)
    )
    ratio = logs[0]["tokens_per_second"] / logs[0]["supervised_tokens_per_second"]
    assert ratio == pytest.approx(tokens / labels_in(ROWS))
    evaluations = [entry for entry in watcher.logs if "eval_loss" in entry]
    assert len(evaluations) == 1 and "eval_loss_0" in evaluations[0]
    # A frozen tower is not run backwards: nothing in it asks for a gradient.
    assert not getattr(trainer.model, "_require_grads_hooks", None)
