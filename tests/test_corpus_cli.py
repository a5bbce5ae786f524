"""The command line: a mistake of the user is one line and exit code 2, never a traceback."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner, Result
from fakes import write_paddle_environment

from corpus import __version__
from corpus.cli import main
from corpus.config import Config, load_config
from corpus.errors import EngineError
from corpus.records import STAGES

MakePdf = Callable[..., Path]


def corpus(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], prog_name="corpus")


def refusal(*arguments: Any) -> str:
    """The one line with which a command refuses."""
    result = corpus(*arguments)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("corpus: ")
    return line


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def pdf(make_pdf: MakePdf) -> Path:
    return make_pdf("in/a.pdf")


# ------------------------------------------------------------------------------------------------------------ build


@pytest.mark.parametrize("name", ["missing.pdf", "missing folder/", "no*.pdf"])
def test_a_missing_input_is_refused(tmp_path: Path, name: str) -> None:
    assert repr(f"{tmp_path}/{name}") in refusal("build", f"{tmp_path}/{name}", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert "no PDF found in" in refusal("build", tmp_path / "in", "--out", tmp_path / "run")


def test_a_broken_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"uri": "a.pdf"}\n{"uri"\n')
    assert "line 2 is not JSON" in refusal("build", tmp_path / "m.jsonl", "--out", tmp_path / "run")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("render.dip=144", "did you mean render.dpi"),
        ("render.dpi=1", "render.dpi = 1"),
        ("nonsense", "--set 'nonsense': write key=value"),
        ("tokenizer=/no/such/tokenizer", "tokenizer '/no/such/tokenizer' is not a folder"),
        ("tokenizer=no/such-model", "tokenizer 'no/such-model' is no folder and not in the cache of the hub"),
        (
            "ocr={engine: paddleocr, python: /no/such/python}",
            "ocr.python = '/no/such/python' is not an executable file",
        ),
        ("ocr={engine: paddleocr, python: 'true'}", "PaddleOCR cannot start in ocr.python = "),
        ("packing.cost.model=/no/such/model", "cannot read /no/such/model: No such file"),
        ("packing.cost.freeze=[vision, merger, language]", "nothing is left to train"),
        ("ocr.language=Klingon", "rapidocr does not read 'Klingon'"),
        ("synth={backend: file, files: [/no/questions.jsonl]}", "cannot read question file /no/questions.jsonl"),
    ],
)
def test_a_faulty_setting_is_refused_before_any_work(tmp_path: Path, pdf: Path, setting: str, says: str) -> None:
    assert says in refusal("build", pdf, "--out", tmp_path / "run", "--set", setting)
    assert not (tmp_path / "run").exists()


def test_a_faulty_configuration_file_is_refused(tmp_path: Path, pdf: Path) -> None:
    (tmp_path / "build.yaml").write_text("windows:\n  max_token: 5\n")
    line = refusal("build", pdf, "--out", tmp_path / "run", "--config", tmp_path / "build.yaml")
    assert f"{tmp_path / 'build.yaml'}: unknown config key 'windows.max_token'" in line
    assert "cannot read config" in refusal("build", pdf, "--out", tmp_path / "run", "--config", tmp_path / "no.yaml")


def test_an_out_that_is_not_ours_is_left_alone(tmp_path: Path, pdf: Path) -> None:
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "holiday.jpg").write_bytes(b"mine")
    before = content(tmp_path)
    assert "is a file; name a folder" in refusal("build", pdf, "--out", pdf)
    assert "cannot be written to" in refusal("build", pdf, "--out", pdf / "run")
    assert "is not empty and not a run" in refusal("build", pdf, "--out", foreign)
    assert content(tmp_path) == before


def test_a_fault_of_the_outside_is_one_line_and_exit_code_1(
    tmp_path: Path, pdf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise EngineError("cannot write run.json: No space left on device; free some space")

    monkeypatch.setattr("corpus.pipeline.build", refuse)
    result = corpus("build", pdf, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert result.stderr == "corpus: cannot write run.json: No space left on device; free some space\n"


def test_an_interruption_says_how_to_go_on(tmp_path: Path, pdf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("corpus.pipeline.build", interrupt)
    result = corpus("build", pdf, "--out", tmp_path / "run")
    assert result.exit_code == 130
    assert result.stderr.strip() == "corpus: stopped; the same command goes on from here"


def test_options_reach_the_build(tmp_path: Path, pdf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def remember(inputs: Any, out: Path, config: Config, **options: Any) -> None:
        seen.update(inputs=inputs, out=out, config=config, **options)

    monkeypatch.setattr("corpus.pipeline.build", remember)
    arguments = ["--workers", 3, "--limit", 5, "--until", "parse", "--password", "x", "--quiet", "--set", "seed=4"]
    assert corpus("build", pdf, pdf.parent, "--out", tmp_path / "run", *arguments).exit_code == 0
    assert seen == {
        "inputs": (str(pdf), str(pdf.parent)),
        "out": tmp_path / "run",
        "config": load_config(None, ("seed=4",)),
        "workers": 3,
        "limit": 5,
        "until": "parse",
        "password": "x",
        "quiet": True,
    }


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["build"], "Missing argument 'INPUT...'; see `corpus build --help`"),
        (["build", "a.pdf"], "Missing option '--out'; see `corpus build --help`"),
        (["build", "a.pdf", "--out", "r", "--workers", "0"], "'--workers': 0 is not in the range"),
        (["build", "a.pdf", "--out", "r", "--until", "sleep"], "'sleep' is not one of 'ingest'"),
        (["nonsense"], "No such command 'nonsense'; see `corpus --help`"),
        (["lint"], "Missing argument 'RUN'; see `corpus lint --help`"),
        (["pack", "s.parquet", "--out", "r", "--capacity", "x"], "'x' is not a valid integer"),
    ],
)
def test_a_wrong_call_is_one_line_too(arguments: list[str], says: str) -> None:
    assert says in refusal(*arguments)


# ------------------------------------------------------------------------------------------- inspect, lint and pack


@pytest.mark.parametrize("command", ["inspect", "lint"])
def test_what_is_no_run_cannot_be_looked_at(tmp_path: Path, command: str) -> None:
    assert "has no run.json; make one with `corpus build`" in refusal(command, tmp_path)
    assert str(tmp_path / "none") in refusal(command, tmp_path / "none")


def test_what_is_neither_run_nor_shard_nor_plan_cannot_be_inspected(tmp_path: Path) -> None:
    for name in ("notes.txt", "noise.tar"):
        (tmp_path / name).write_bytes(b"nonsense" * 100)
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    assert "is neither a run directory, nor a shard (.tar), nor a plan (.parquet)" in refusal(
        "inspect", tmp_path / "notes.txt"
    )
    assert "noise.tar is not a readable tar" in refusal("inspect", tmp_path / "noise.tar")
    assert "other.parquet is not a plan: it has no column 'step'" in refusal("inspect", tmp_path / "other.parquet")
    assert "has no run.json" in refusal("inspect", tmp_path, "--sample", "s1")


def test_noise_cannot_be_inspected_as_a_plan(tmp_path: Path) -> None:
    (tmp_path / "noise.parquet").write_bytes(b"nonsense" * 100)
    assert "noise.parquet" in refusal("inspect", tmp_path / "noise.parquet")


@pytest.mark.parametrize("command", ["inspect", "lint"])
@pytest.mark.parametrize("text", ["nonsense", "{}", "[]"])
def test_a_broken_account_of_a_run_is_one_line(tmp_path: Path, command: str, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    result = corpus(command, tmp_path)
    assert isinstance(result.exception, SystemExit)
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["build", "{long}", "--out", "r"],
        ["build", "{pdf}", "--out", "{long}"],
        ["inspect", "{long}"],
        ["lint", "{long}"],
    ],
)
def test_a_name_that_is_too_long_is_refused(pdf: Path, arguments: list[str]) -> None:
    refusal(*(a.format(long=pdf.parent / ("x" * 300), pdf=pdf) for a in arguments))


def test_a_plan_below_a_file_is_refused(tmp_path: Path) -> None:
    samples = table(tmp_path / "s.parquet", sample_id=["a"], num_tokens=[5])
    result = corpus("pack", samples, "--out", samples / "plan")
    assert isinstance(result.exception, SystemExit)
    assert len(result.stderr.splitlines()) == 1


def test_a_run_that_is_not_complete_breaks_its_promise(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"complete": false}')
    result = corpus("lint", tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("broken: run.json says the build is not complete")
    found = json.loads(corpus("lint", tmp_path, "--json").stdout)
    assert (found["ok"], "not complete" in found["broken"]) == (False, True)


def table(file: Path, **columns: list[Any]) -> Path:
    pq.write_table(pa.table(columns), file)
    return file


def test_a_table_that_cannot_be_packed_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "plan"
    whole = table(tmp_path / "whole.parquet", sample_id=["a"], num_tokens=[5])
    (tmp_path / "noise.parquet").write_bytes(b"nonsense")
    (tmp_path / "noise.jsonl").write_text("{nonsense\n")
    assert "no column 'num_tokens'" in refusal("pack", table(tmp_path / "a.parquet", sample_id=["a"]), "--out", out)
    assert "no column 'sample_id'" in refusal("pack", table(tmp_path / "b.parquet", num_tokens=[1]), "--out", out)
    assert "cannot read" in refusal("pack", tmp_path / "none.parquet", "--out", out)
    assert "noise.parquet" in refusal("pack", tmp_path / "noise.parquet", "--out", out)
    assert "noise.jsonl" in refusal("pack", tmp_path / "noise.jsonl", "--out", out)
    assert "none of 1 samples fits the plan" in refusal("pack", whole, "--out", out, "--capacity", 4)
    assert "is a file; name a folder" in refusal("pack", whole, "--out", whole)
    assert not out.exists()


def test_a_table_is_packed_and_the_plan_can_be_inspected(tmp_path: Path) -> None:
    samples = table(tmp_path / "s.parquet", sample_id=list("abcd"), num_tokens=[60, 40, 70, 30])
    arguments = ["--out", tmp_path / "plan", "--capacity", 100, "--rows-per-step", 1]
    report = json.loads(corpus("pack", samples, *arguments, "--json").stdout)
    (plan,) = (tmp_path / "plan").glob("plan-*.parquet")
    assert (report["num_rows"], report["fill"], plan.stem) == (2, 1.0, f"plan-{report['fingerprint']}")
    assert f"written to {plan}" in corpus("pack", samples, *arguments).stdout
    found = json.loads(corpus("inspect", plan, "--json").stdout)
    assert (found["kind"], found["samples"], found["rows"], found["tokens"]) == ("plan", 4, 2, 200)
    assert "4 samples in 2 rows" in corpus("inspect", plan).stdout


def test_cost_follows_the_model_and_how_it_is_trained(tmp_path: Path) -> None:
    samples = table(tmp_path / "s.parquet", sample_id=["a"], num_tokens=[100_000], num_patches=[350_000])

    def petaflops(*options: str) -> float:
        arguments = ["--out", tmp_path / "plan", "--rows-per-step", 1, "--json", *options]
        return float(json.loads(corpus("pack", samples, *arguments).stdout)["petaflops"])

    frozen, trained, again = (
        petaflops("--set", "packing.cost.freeze=[vision, merger]"),
        petaflops(),
        petaflops("--set", "packing.cost.recompute=true"),
    )
    assert frozen < trained < again
    assert petaflops("--set", "model=qwen3-vl") > trained
    message = refusal("pack", samples, "--out", tmp_path / "other", "--set", f"packing.cost.model={tmp_path}")
    assert "cannot read" in message and "config.json" in message
    assert not (tmp_path / "other").exists()


def test_a_table_is_mixed_before_it_is_packed(tmp_path: Path) -> None:
    tasks = ["a"] * 30 + ["b"] * 30
    samples = table(tmp_path / "s.parquet", sample_id=[f"{i}" for i in range(60)], num_tokens=[50] * 60, task=tasks)
    arguments = ["pack", samples, "--out", tmp_path / "plan", "--capacity", 100]
    everything = json.loads(corpus(*arguments, "--json").stdout)
    assert everything["num_samples"] == 60 and "mixture" not in everything
    shares = ["--set", "mixture.tasks={a: 3, b: 1}", "--set", "mixture.token_budget=1K"]
    report = json.loads(corpus(*arguments, *shares, "--json").stdout)
    assert {t["name"]: t["num_samples"] for t in report["tasks"]} == {"a": 15, "b": 5}
    assert report["mixture"]["left_out"] == {"share-filled": 20, "budget-filled": 20}
    said = corpus(*arguments, "--set", "mixture.epochs=2", "--set", "mixture.token_budget=5M").stdout
    assert "  ! mixture.token_budget is 5,000,000 and 6,000 tokens are there" in said
    assert "120 samples" in said and "written to" in said
    assert "a table of lengths has none" in refusal(*arguments, "--set", "mixture.questions_per_window=2")
    assert "nothing is chosen" in refusal(*arguments, "--set", "mixture.tasks={c: 1}")


# ---------------------------------------------------------------------------------------------------- what is here


def test_the_configuration_is_printed_whole_and_loads_back(tmp_path: Path) -> None:
    result = corpus("config", "--set", "render.dpi=100")
    assert result.exit_code == 0
    (tmp_path / "c.yaml").write_text(result.stdout)
    assert load_config(tmp_path / "c.yaml") == load_config(None, ("render.dpi=100",))
    assert yaml.safe_load(corpus("config", "--config", tmp_path / "c.yaml").stdout)["render"]["dpi"] == 100
    assert "did you mean seed" in refusal("config", "--set", "sed=1")


def test_help_and_version_answer() -> None:
    listed = corpus("--help").stdout
    assert all(name in listed for name in ("build", "pack", "inspect", "lint", "doctor", "config"))
    assert corpus("--version").stdout == f"corpus, version {__version__}\n"
    assert all(stage in corpus("build", "-h").stdout for stage in STAGES)


def test_the_doctor_tries_every_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = {c["name"]: c for c in json.loads(corpus("doctor", "--json").stdout)}
    assert {"pymupdf", "rapidocr"} == {name for name, c in checks.items() if c["required"]}
    assert checks["pymupdf"]["usable"] and checks["pymupdf"]["install"] == ""
    assert all(c["usable"] or c["install"] for c in checks.values())


def test_the_doctor_tries_paddleocr_where_the_settings_say(tmp_path: Path) -> None:
    def found(*settings: str) -> dict[str, Any]:
        arguments = [x for s in settings for x in ("--set", s)]
        checks = json.loads(corpus("doctor", "--json", *arguments).stdout)
        return next(c for c in checks if c["name"] == "paddleocr")

    nowhere = found()
    assert (nowhere["usable"], nowhere["found"]) == (False, "no ocr.python given")
    assert "pip install paddleocr onnxruntime" in nowhere["install"]
    assert "'/no/python' is not an executable file" in found("ocr.python=/no/python")["found"]
    python = write_paddle_environment(tmp_path / "environment")
    assert found(f"ocr.python={python}")["found"] == f"3.0, onnxruntime, reads on cpu in {python}"


def test_the_doctor_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from corpus import doctor

    def missing() -> str:
        raise LookupError("[red]not installed")

    engine = doctor._Engine("rapidocr", "pages without a text layer", True, "pip install rapidocr", missing)
    monkeypatch.setattr(doctor, "ENGINES", (engine,))
    monkeypatch.setenv("COLUMNS", "200")  # no cell is wrapped
    shown = corpus("doctor")
    assert shown.exit_code == 0
    assert "MISSING" in shown.stdout
    assert "[red]not installed" in " ".join(shown.stdout.split())
    assert "pip install rapidocr" in " ".join(shown.stdout.split())


def test_nothing_here_reaches_the_network() -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
