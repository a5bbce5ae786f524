"""The example trains a tiny model on a small corpus and goes on, and the recipe's files are what is read."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from test_build import quick, write_document
from transformers import HfArgumentParser, TrainingArguments
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl

from corpus.config import load_config
from corpus.pipeline import build

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "recipes" / "mmprolong-7b"


def small_run(folder: Path) -> Path:
    """A few rows of at most 2,500 tokens, and documents that are held out."""
    for seed in range(4):
        write_document(folder / f"{seed}.pdf", seed)
    settings = quick(
        "render.dpi=36",
        "windows.min_tokens=100",
        "windows.max_tokens=2500",
        "packing.capacity=2500",
        "packing.rows_per_step=2",
        "packing.validation_share=0.3",
        "mixture.tasks=null",
    )
    build([str(folder)], folder / "run", settings, quiet=True)
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("example"))


TINY = ("--tiny", "true", "--save_steps", "1", "--sequence_parallel_size", "1")


def start(run: Path, out: Path, *options: str, inside: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """The example in a process; `inside` is what runs it instead of Python itself."""
    command = [sys.executable, *inside, str(ROOT / "examples" / "train.py"), "--run", str(run)]
    fixed = ["--use_cpu", "--report_to", "none", "--logging_steps", "1", "--learning_rate", "1e-3"]
    paths = f"{ROOT}{os.pathsep}{ROOT / 'examples'}"
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [*command, "--output_dir", str(out), *fixed, *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def example(run: Path, out: Path, *options: str, **how: Any) -> tuple[int, str]:
    """Exit status and standard error of the example."""
    process = start(run, out, *options, **how)
    try:
        _, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    return process.returncode, errors


def test_a_tiny_model_learns_and_goes_on(run: Path, tmp_path: Path) -> None:
    for options in (("--max_steps", "1"), ("--dataloader_num_workers", "1")):
        status, errors = example(run, tmp_path, *TINY, *options)
        assert status == 0, errors
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    logs = {entry["step"]: entry for entry in state["log_history"] if "loss" in entry}
    assert sorted(logs) == list(range(1, state["max_steps"] + 1)) and len(logs) >= 2
    for entry in logs.values():
        assert entry["tokens_per_second"] > 0 and 0 < entry["fill"] <= 1 and entry["mfu"] > 0
        assert any(name.startswith("loss_") for name in entry)
    evaluations = [entry["eval_loss"] for entry in state["log_history"] if "eval_loss" in entry]
    assert evaluations and all(0 < loss < 7 for loss in evaluations)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["text_config"]["rope_parameters"]["rope_theta"] == 4e6
    assert (tmp_path / "model.safetensors").is_file() and (tmp_path / "tokenizer.json").is_file()


def test_the_last_whole_checkpoint_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    find = runpy.run_path(str(ROOT / "examples" / "train.py"))["last_checkpoint"]
    assert find(str(tmp_path / "none")) is find(str(tmp_path)) is None
    torch.save({}, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    for name, state, other in (
        ("checkpoint-2", "{}", whole),
        ("checkpoint-8", None, whole),
        ("checkpoint-9", "{}", whole[: len(whole) // 2]),
        ("checkpoint-10", '{"epoch": 1', whole),
        ("checkpoint-best", "{}", whole),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rng_state_1.pth").write_bytes(other)
        if state is not None:
            (tmp_path / name / "trainer_state.json").write_text(state)
    assert find(str(tmp_path)) == str(tmp_path / "checkpoint-2")


def test_a_mistake_is_one_line(run: Path, tmp_path: Path) -> None:
    status, errors = example(run, tmp_path, "--tiny", "true", "--num_train_epochs", "3")
    assert status == 1
    assert re.search(r"^error: num_train_epochs = 3.*set it to 1$", errors, re.MULTILINE)


def test_the_recipes_build_config_is_accepted() -> None:
    config = load_config(RECIPE / "build.yaml", ())
    assert config.packing.tokens_per_step == 32 * config.packing.capacity
    assert config.mixture.token_budget == 5 * 10**9


def test_the_recipes_launch_config_is_accepted() -> None:
    config = load_config_from_file(str(RECIPE / "fsdp2.yaml"))
    assert config.fsdp_config["fsdp_version"] == 2 and config.mixed_precision == "bf16"
    wrapped = config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"].split(",")
    assert all(hasattr(modeling_qwen2_5_vl, name) for name in wrapped)


def test_the_recipes_options_are_options(tmp_path: Path) -> None:
    script = (RECIPE / "train.sh").read_text()
    options = re.findall(r"(--[a-z_0-9]+)(?: ('[^']*'|[^\s\\\"]+|\"[^\"]*\"))?", script.partition("--run")[2])
    known = {
        action.option_strings[0] for action in HfArgumentParser(TrainingArguments)._actions if action.option_strings
    }
    ours = {"--model", "--sequence_parallel_size", "--rope_base"}
    assert {name for name, _ in options} <= known | ours and len(options) > 15
    given = {name.removeprefix("--"): yaml.safe_load(value.strip("'")) for name, value in options if value}
    kept = {name: value for name, value in given.items() if "--" + name not in ours and not str(value).startswith('"')}
    kept |= {"lr_scheduler_kwargs": json.loads(re.findall(r"'(\{.*\})'", script)[0]), "bf16": False}
    args = TrainingArguments(**{**kept, "output_dir": str(tmp_path), "use_cpu": True, "learning_rate": 1e-5})
    assert args.adam_beta2 == 0.95 and args.get_warmup_steps(1_000) == 100
