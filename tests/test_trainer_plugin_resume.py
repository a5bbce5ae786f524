"""A killed training goes on as if nothing had happened: the same batches, bit for bit, read from where it stopped.

The Trainer's own checkpoints are used; what a batch held is seen where the model receives it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Processes, shard_on_cpu
from test_trainer_plugin_parity import CLOSE, ROWS
from tiny_models import tiny_model
from trainers import TinyPlugin, arguments, weights
from transformers import Trainer, TrainerCallback

from corpus.errors import ConfigError
from trainer_plugin.callback import STATE

FAMILY = "qwen2.5-vl"
STEPS = tuple(ROWS[i % 4 :] + ROWS[: i % 4] for i in range(5))
KILLED_IN = 4  # the third step is the last that was saved


class Killed(Exception):
    """The process ends here."""


class KillIn(TrainerCallback):  # type: ignore[misc]
    """Ends the training in the middle of a step."""

    def __init__(self, step: int | None) -> None:
        self.step = step

    def on_substep_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        if state.global_step + 1 == self.step:
            raise Killed


def train(
    out: Path,
    size: int = 1,
    kill_in: int | None = None,
    resume: bool = False,
    fingerprint: str = "f1",
    sharded: str = "",
    **options: Any,
) -> dict[str, Any]:
    """Train STEPS, or as far as it gets: the hash of each batch by step and row, and the weights at the end.

    `sharded` is the form of FSDP2's checkpoints.
    """
    if sharded:
        options |= {"fsdp": True, "fsdp_config": {"version": 2, "state_dict_type": sharded}}
    plugin = TinyPlugin(FAMILY, STEPS, fingerprint=fingerprint, sequence_parallel_size=size)
    args = arguments(
        out, gradient_accumulation_steps=4 // plugin.mesh.data_size, save_strategy="steps", save_steps=1, **options
    )
    trainer = Trainer(model=tiny_model(FAMILY), args=args, callbacks=[KillIn(kill_in)])
    if sharded:
        shard_on_cpu(trainer)
    plugin.attach(trainer)
    seen: list[str] = []

    def remember(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        digest = hashlib.sha256()
        for name in ("input_ids", "position_ids", "shift_labels", "cu_seq_lens_q", "pixel_values"):
            digest.update(kwargs[name].contiguous().numpy().tobytes())
        seen.append(digest.hexdigest())

    handle = trainer.model.register_forward_pre_hook(remember, with_kwargs=True)
    first = 0
    try:
        trainer.train(resume_from_checkpoint=str(out / "checkpoint-3") if resume else None)
    except Killed:
        pass
    finally:
        handle.remove()
    if sharded and kill_in is None:  # as examples/train.py ends
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
        trainer.save_model(str(out / "last"))
    if resume:
        first = 3 * plugin.dataset().micro_steps_per_step
    places = [plugin.dataset().places(first + i) for i in range(len(seen))]
    return {
        "seen": {(*place, plugin.mesh.rank): digest for place, digest in zip(places, seen, strict=True)},
        "read": list(plugin.dataset().read),  # in this process: nothing where a worker reads
        "weights": weights(trainer.model),
        "logs": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
    }


@pytest.fixture(scope="module")
def worlds() -> Iterator[dict[int, Processes]]:
    with Processes(2) as two:
        yield {2: two}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return train(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, undisturbed: dict[str, Any]) -> Path:
    """A folder with the checkpoints of a training that was killed in its fourth step."""
    out = tmp_path_factory.mktemp("killed")
    result = train(out, kill_in=KILLED_IN)
    assert result["seen"].items() <= undisturbed["seen"].items()
    assert 12 < len(result["seen"]) < 16 and len(undisturbed["seen"]) == 20
    return out


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_the_rest_is_the_same_with_any_number_of_workers(
    killed: Path, undisturbed: dict[str, Any], workers: int
) -> None:
    result = train(killed, resume=True, dataloader_num_workers=workers)
    rest = {place: digest for place, digest in undisturbed["seen"].items() if place[0] >= 3}
    assert result["seen"] == rest and len(rest) == 8
    assert result["read"] == ([] if workers else list(range(12, 20)))  # rows that were trained on are not read again
    for name, value in undisturbed["weights"].items():
        np.testing.assert_array_equal(result["weights"][name], value, err_msg=name)
    assert result["logs"] == undisturbed["logs"]


@pytest.mark.parametrize("size", [1, 2])
def test_another_number_of_processes_goes_on_with_the_same_rows(
    worlds: dict[int, Processes], killed: Path, undisturbed: dict[str, Any], size: int
) -> None:
    results = worlds[2].run(train, killed, size, resume=True)
    rows = {place for result in results for place in result["seen"]}
    assert {place[:2] for place in rows} == {(step, row) for step in (3, 4) for row in range(4)}
    if size == 1:  # a rank then receives whole rows
        together = {place: digest for result in results for place, digest in result["seen"].items()}
        assert together == {place: digest for place, digest in undisturbed["seen"].items() if place[0] >= 3}
    for name, value in undisturbed["weights"].items():
        np.testing.assert_allclose(results[0]["weights"][name], value, atol=CLOSE, rtol=0, err_msg=name)


@pytest.mark.parametrize(
    ("size", "kind", "files"),
    [
        (1, "FULL_STATE_DICT", ("pytorch_model_fsdp.bin", "optimizer.bin")),
        (2, "SHARDED_STATE_DICT", ("pytorch_model_fsdp_0/*.distcp", "optimizer_0/*.distcp")),  # as in the recipe
    ],
)
def test_a_sharded_training_goes_on(
    worlds: dict[int, Processes], tmp_path: Path, size: int, kind: str, files: tuple[str, str]
) -> None:
    how: dict[str, Any] = {"sharded": kind, "optim": "adamw_torch", "timeout_s": 240}  # an optimizer that has states
    whole = worlds[2].run(train, tmp_path / "whole", size, **how)
    with Processes(2) as gone:  # accelerate keeps the state of a step that broke off for the next Trainer in a process
        killed = gone.run(train, tmp_path / "killed", size, kill_in=KILLED_IN, **how)
    for file in files:
        assert list((tmp_path / "killed" / "checkpoint-3").glob(file))
    resumed = worlds[2].run(train, tmp_path / "killed", size, resume=True, **how)
    for rank, result in enumerate(resumed):
        rest = {place: digest for place, digest in whole[rank]["seen"].items() if place[0] >= 3}
        assert result["seen"] == rest and result["logs"] == whole[rank]["logs"]
        for name, value in whole[rank]["weights"].items():
            np.testing.assert_array_equal(result["weights"][name], value, err_msg=name)
            assert (killed[rank]["weights"][name] != value).any(), name
    last = weights(type(tiny_model(FAMILY)).from_pretrained(tmp_path / "killed" / "last"))
    assert last.keys() == resumed[0]["weights"].keys()
    assert all((value == last[name]).all() for name, value in resumed[0]["weights"].items())


def test_another_plan_is_refused(killed: Path) -> None:
    with pytest.raises(ConfigError, match="step 3 was trained on plan f1, and the run has plan f2, whose rows are"):
        train(killed, resume=True, fingerprint="f2")


def test_a_checkpoint_without_the_plugin_is_refused(killed: Path, tmp_path: Path) -> None:
    for file in (killed / "checkpoint-3").iterdir():
        (tmp_path / "checkpoint-3").mkdir(exist_ok=True)
        (tmp_path / "checkpoint-3" / file.name).write_bytes(file.read_bytes())
    file = tmp_path / "checkpoint-3" / "trainer_state.json"
    state = json.loads(file.read_text())
    assert state["stateful_callbacks"].pop(STATE)["attributes"] == {"fingerprint": "f1"}
    file.write_text(json.dumps(state))
    with pytest.raises(ConfigError, match="step 3 was trained on other data"):
        train(tmp_path, resume=True)


def test_callbacks_that_restore_themselves_do_not_disturb(killed: Path, undisturbed: dict[str, Any]) -> None:
    result = train(killed, resume=True, restore_callback_states_from_checkpoint=True)
    assert result["logs"] == undisturbed["logs"]
