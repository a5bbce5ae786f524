"""A build whose questions are asked of the real vLLM, on the CPU, with a tiny random model.

A random model says nothing sensible. What counts is that the whole way holds: the server is started, sees the pages,
answers under the schema, every segment ends once, and nothing is left. Needs what `make test-engines` sets up.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import write_pdf
from test_corpus_workers import eventually, is_running
from test_synth_vllm_engine import ENVIRONMENT, LONG_S

from corpus.config import load_config
from corpus.linting import lint_run
from corpus.pipeline import build
from corpus.records import Question, Rejected
from corpus.store import read_records

MAX_TOKENS = 16_384

pytestmark = pytest.mark.skipif(
    not (ENVIRONMENT / "installed").is_file(), reason="vLLM is not set up: run `make test-engines`"
)


def test_a_build_asks_vllm_and_every_segment_ends_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")  # GB
    write_pdf(tmp_path / "in" / "a.pdf", pages=16, text="The pump of hall {page} weighs {page}00 kilograms.")
    arguments = ["--dtype", "bfloat16", "--enforce-eager", "--no-enable-chunked-prefill"]
    settings = {
        "parse": {"layout": "fonts"},
        "ocr": {"engine": "none"},
        "windows": {"min_tokens": 1_000},
        "synth": {
            "backend": "vllm",
            "model": str(ENVIRONMENT / "model"),
            "tasks": ["extract-single", "reasoning"],
            "image_tokens": 64,
            "max_answer_tokens": 400,
            "client": {"cache_dir": str(tmp_path / "cache"), "timeout_s": LONG_S},
            "vllm": {
                "python": str(ENVIRONMENT / "bin" / "python"),
                "max_model_len": MAX_TOKENS,
                "extra_args": [*arguments, "--max-num-batched-tokens", str(MAX_TOKENS)],
                "start_timeout_s": LONG_S,
            },
        },
    }
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(settings))
    run = tmp_path / "run"
    build([str(tmp_path / "in")], run, load_config(file, []), workers=2, quiet=True)

    spent = json.loads((run / "run.json").read_text())["spent"]["purposes"]
    slots = 4  # two segments of eight pages, two tasks
    assert spent["extract-single"]["requests"] + spent["reasoning"]["requests"] >= slots
    assert not any(s["failures"] for s in spent.values())
    assert all(spent[task]["prompt_tokens"] > 8 * 64 for task in ("extract-single", "reasoning"))
    questions = [q for f in run.glob("questions/p*.parquet") for q in read_records(f, Question)]
    gaps = [r for r in read_records(run / "rejected.parquet", Rejected) if r.reason == "no-accepted-question"]
    assert sum(q.accepted for q in questions) + len(gaps) == slots
    lint_run(run)
    log = (run / ".state" / "vllm.log").read_text()
    assert "longdoc starts: " in log
    servers = [p for p in Path("/proc").glob("[0-9]*") if str(ENVIRONMENT) in _command(p)]
    assert eventually(lambda: not any(is_running(int(p.name)) for p in servers))


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""
