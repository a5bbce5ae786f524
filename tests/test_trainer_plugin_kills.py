"""The example is killed at any moment, also within a checkpoint, and ends with the same weights."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import time
from pathlib import Path

import pytest
from test_trainer_plugin_example import TINY, example, small_run, start
from transformers.trainer_utils import get_last_checkpoint

SAVE_AND_DIE = """
import os, runpy, signal, sys, torch

_, number, *sys.argv = sys.argv
left, whole = int(number), torch.save

def save(value, file, *args, **options):
    global left
    whole(value, file, *args, **options)
    left -= 1
    if not left:
        os.truncate(file, os.path.getsize(file) // 2)
        os.kill(os.getpid(), signal.SIGKILL)

torch.save = save
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def written(out: Path) -> set[tuple[Path, int]]:
    """The files of checkpoints and when they were written; a checkpoint has eleven."""
    found = set()
    for file in out.glob("checkpoint-*/*"):
        with contextlib.suppress(FileNotFoundError):  # a temporary one
            found.add((file, file.stat().st_mtime_ns))
    return found


def result_of(out: Path) -> tuple[bytes, list[float]]:
    """The weights at the end, and the losses on the way."""
    history = json.loads((out / "trainer_state.json").read_text())["log_history"]
    return (out / "model.safetensors").read_bytes(), [entry["loss"] for entry in history if "loss" in entry]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("kills"))


@pytest.fixture(scope="module")
def undisturbed(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[float]]:
    out = tmp_path_factory.mktemp("undisturbed")
    status, errors = example(run, out, *TINY)
    assert status == 0, errors
    weights, losses = result_of(out)
    assert len(losses) >= 3
    return weights, losses


def test_a_checkpoint_that_a_kill_left_half_written_is_passed_over(
    run: Path, undisturbed: tuple[bytes, list[float]], tmp_path: Path
) -> None:
    # A checkpoint has four files of torch.save: arguments, optimizer, scheduler, random state.
    status, errors = example(run, tmp_path, *TINY, inside=("-c", SAVE_AND_DIE, "6"))
    assert status == -signal.SIGKILL, errors
    half = get_last_checkpoint(str(tmp_path))
    assert half == str(tmp_path / "checkpoint-2")  # what the Trainer would take
    names = {file.name for file in Path(half).iterdir()}
    assert "optimizer.pt" in names and "trainer_state.json" not in names
    status, errors = example(run, tmp_path, *TINY)
    assert status == 0, errors
    assert result_of(tmp_path) == undisturbed


def test_killed_at_random_moments_it_ends_with_the_same_weights(
    run: Path, undisturbed: tuple[bytes, list[float]], tmp_path: Path
) -> None:
    draw = random.Random(0)
    for _ in range(2):
        number, delay_s = draw.randint(1, 10), draw.uniform(0, 0.3)
        before = written(tmp_path)
        process = start(run, tmp_path, *TINY)
        while process.poll() is None and len(written(tmp_path) - before) < number:
            time.sleep(0.001)
        time.sleep(delay_s)
        process.kill()
        _, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, errors
    status, errors = example(run, tmp_path, *TINY)
    assert status == 0, errors
    assert result_of(tmp_path) == undisturbed
