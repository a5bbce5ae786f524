"""A build whose questions a model writes: every segment ends once, every answer is paid for once.

The model is a server of the tests that reads the labels of the pages it is shown. It knows the documents: page N of
each says "The pump of hall N weighs X kilograms.", X being `weight(N)`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import fakes
import pytest
from click.testing import CliRunner
from fake_chat import Asked, FakeChat, Script, always, mixture

from corpus.cli import main
from corpus.config import Config, load_config
from corpus.errors import ConfigError, DocumentError, EngineError
from corpus.inspection import describe_run
from corpus.linting import lint_run
from corpus.pipeline import BuildResult
from corpus.pipeline import build as run_build
from corpus.records import CHECKS, Question, Rejected, Sample
from corpus.stages import ask
from corpus.store import read_records
from synth.prompt_pages import PromptImages

PAGES = 18
BY_MODEL = ("extract-single", "extract-multi", "reasoning")


def weight(number: int) -> int:
    return 1_000 + 137 * number


def fact(number: int) -> str:
    return f"The pump of hall {number} weighs {weight(number)} kilograms."


def answer(asked: Asked) -> str:
    """What an honest model says: a question about the pages it is shown, or the answer if they hold it."""
    shown = [int(label.removeprefix("Page ")) for label in asked.labels]
    named = re.search(r"Task: ([a-z-]+)\.", asked.text)
    if not named:
        return json.dumps({"answer": _looked_up(asked.text, shown)})
    task = named[1] if named[1] in BY_MODEL else "extract-single"
    draw = asked.body["seed"]
    first = shown[draw % (len(shown) - 1)]
    second = shown[-1] if shown[-1] != first else shown[0]
    numbers = [first] if task == "extract-single" else [first, second]
    questions = {
        "extract-single": f"According to page {first}, how many kilograms does the pump of hall {first} weigh?",
        "extract-multi": f"List the weights in kilograms of the pumps on page {first} and page {second}, in order.",
        "reasoning": f"By how many kilograms do the weights of the pumps on page {first} and page {second} differ?",
    }
    weights = [weight(n) for n in numbers]
    answers: dict[str, Any] = {
        "extract-single": weights[0],
        "extract-multi": [str(w) for w in weights],
        "reasoning": abs(weights[0] - weights[-1]),
    }
    return json.dumps(
        {
            "evidence_pages": sorted(numbers),
            "evidence_sources": ["Text"] * len(numbers),
            "evidence": [fact(n) for n in sorted(numbers)],
            "anchor": f"page {first}",
            "question": questions[task],
            "answer_format": "List" if task == "extract-multi" else "Integer",
            "answer": answers[task],
        }
    )


def _looked_up(text: str, shown: list[int]) -> Any:
    question = text.partition("\n")[0]
    wanted = [int(n) for n in re.findall(r"page (\d+)", question)]
    if not set(wanted) <= set(shown):
        return None
    weights = [weight(n) for n in wanted]
    if "List" in question:
        return [str(w) for w in weights]
    return abs(weights[0] - weights[1]) if "differ" in question else weights[0]


def wrong(asked: Asked) -> str:
    """A model that miscounts by one, in whatever it is asked for."""
    value = json.loads(answer(asked))
    right = value["answer"]
    value["answer"] = [str(int(x) + 1) for x in right] if isinstance(right, list) else (right or 0) + 1
    return json.dumps(value)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library")
    for number in range(3):
        more = "\n".join(f"Line {i} of the log book of team {number} has nothing to say." for i in range(6))
        text = [f"{fact(n)}\n{more}" for n in range(1, PAGES + 1)]
        fakes.write_pdf(folder / f"{number}.pdf", pages=PAGES, text=text)
    return folder


def settings(server: FakeChat, cache: Path, *assignments: str) -> Config:
    return load_config(
        None,
        [
            "parse.layout=fonts",
            "ocr.engine=none",
            "windows.min_tokens=1000",
            "clean.near_duplicates=false",
            "synth.backend=openai",
            f"synth.base_url={server.base_url}",
            f"synth.model={server.model}",
            f"synth.tasks=[{', '.join(BY_MODEL)}]",
            "synth.image_tokens=64",
            f"synth.client.cache_dir={cache}",
            "synth.client.backoff_s=0.01",
            "synth.client.timeout_s=5",
            *assignments,
        ],
    )


def build(library: Path, run: Path, config: Config, **options: Any) -> BuildResult:
    return run_build([str(library)], run, config, workers=1, quiet=True, **options)


def questions_of(run: Path) -> list[Question]:
    return [q for f in sorted(run.glob("questions/p*.parquet")) for q in read_records(f, Question)]


def gaps_of(run: Path) -> list[Rejected]:
    rows = read_records(run / "rejected.parquet", Rejected)
    return [r for r in rows if r.reason == "no-accepted-question"]


def spent_of(run: Path) -> dict[str, Any]:
    total: dict[str, Any] = json.loads((run / "run.json").read_text())["spent"]["total"]
    return total


def is_right(question: Question) -> bool:
    numbers = [int(n) for n in re.findall(r"page (\d+)", question.question)]
    weights = [weight(n) for n in numbers]
    expected = {
        "extract-single": str(weights[0]),
        "extract-multi": json.dumps([str(w) for w in weights]),
        "reasoning": str(abs(weights[0] - weights[-1])),
    }
    return question.answer == expected[question.task]


@pytest.fixture(scope="module")
def honest(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, FakeChat, Path]]:
    """A run with a server that answers right, its server (still there) and its cache."""
    folder = tmp_path_factory.mktemp("honest")
    with FakeChat(answer, wrong=wrong) as server:
        build(library, folder / "run", settings(server, folder / "cache"))
        yield folder / "run", server, folder / "cache"


def test_every_segment_and_task_has_a_right_question(honest: tuple[Path, FakeChat, Path]) -> None:
    run, server, _ = honest
    questions = questions_of(run)
    assert Counter(q.task for q in questions if q.accepted) == dict.fromkeys(BY_MODEL, 6)  # 3 documents, 2 segments
    assert gaps_of(run) == []
    assert all(is_right(q) for q in questions if q.accepted)
    assert server.answered_again == []
    for q in questions:
        assert q.generator == server.model and q.names_pages and q.prompt_version
        assert {e.quote for e in q.evidence} == {fact(e.page + 1) for e in q.evidence}
        assert all(e.box for e in q.evidence)
    lint_run(run)
    assert len(read_records(run / "samples.parquet", Sample)) == 18


def test_a_second_run_and_another_target_model_ask_nothing(
    honest: tuple[Path, FakeChat, Path], library: Path, tmp_path: Path
) -> None:
    run, server, cache = honest
    asked = len(server.requests)
    again = build(library, run, settings(server, cache))
    assert not any(again.work.values())
    other = build(library, tmp_path / "run", settings(server, cache, "model=qwen3-vl"))
    assert other.num_samples == 18
    assert questions_of(tmp_path / "run") == questions_of(run)
    assert len(server.requests) == asked
    before, now = (json.loads((r / "run.json").read_text())["spent"]["total"] for r in (run, tmp_path / "run"))
    assert (now["requests"], now["completion_tokens"]) == (0, 0)
    assert now["cache_hits"] == before["requests"] + before["cache_hits"]


def test_run_json_tells_what_was_spent_and_on_what(honest: tuple[Path, FakeChat, Path]) -> None:
    run, server, _ = honest
    spent = json.loads((run / "run.json").read_text())["spent"]
    asked = {name: s["requests"] + s["cache_hits"] for name, s in spent["purposes"].items()}
    assert asked == {
        **dict.fromkeys(BY_MODEL, 6),
        "closed-book": 18,
        "leakage": 12,
        "agreement": 18,
        "ambiguity": 36,  # the other 16 or 17 pages in two parts
    }
    assert spent["total"]["requests"] == len(server.requests)
    assert spent["total"]["image_tokens"] == 10 * sum(len(asked.images) for asked, _ in server.requests)


def test_a_server_that_misbehaves_and_dies_twice_costs_nothing_but_time(library: Path, tmp_path: Path) -> None:
    trouble = {
        "right": 120, "wrong": 4, "malformed-json": 6, "half-json": 6, "white-space": 6, "refusal": 6, "429": 10,
        "500": 10, "cut": 6, "half-body": 4, "broken-body": 4, "context-length": 2,
    }  # fmt: skip
    run = tmp_path / "run"
    with FakeChat(answer, wrong=wrong, script=mixture(3, trouble), dies_after=(25, 70)) as server:
        config = settings(server, tmp_path / "cache", "synth.client.give_up_s=3", "synth.attempts=3")
        for _ in range(2):
            with pytest.raises(EngineError, match="the same command goes on from here"):
                build(library, run, config)
            assert server.died.is_set()
            server.start()
        build(library, run, config)
        assert server.answered_again == []
        assert len({b for b in trouble if server.met[b]}) > 9  # what is met depends on the pixels
        spent = spent_of(run)
        assert spent["requests"] - sum(spent["failures"].values()) == sum(server.answered.values())
    questions, gaps = questions_of(run), gaps_of(run)
    accepted = [q for q in questions if q.accepted]
    slots = Counter((q.doc_id, q.segment_first, q.task) for q in accepted)
    assert len(accepted) + len(gaps) == 18  # a question relabelled as of another task would count there
    assert len(accepted) > 9 and max(slots.values()) == 1
    assert all(is_right(q) for q in accepted)
    assert all(q.reason and q.detail and q.verdicts for q in questions if not q.accepted)
    lint_run(run)


def test_a_kill_repeats_at_most_what_was_in_flight(
    honest: tuple[Path, FakeChat, Path], library: Path, tmp_path: Path
) -> None:
    in_flight, shown = 4, tmp_path / "run" / ".state" / "page-images"
    with FakeChat(answer, wrong=wrong, delay_s=0.02) as server:
        changes = [f"synth.client.max_in_flight={in_flight}", "synth.client.images=file"]
        config = settings(server, tmp_path / "cache", *changes)
        file = tmp_path / "config.yaml"
        file.write_text(json.dumps(config.model_dump(mode="json")))
        command = [sys.executable, "-m", "corpus.cli", "build", str(library), "--config", str(file), "--quiet"]
        process = subprocess.Popen([*command, "--out", str(tmp_path / "run"), "--workers", "2"])
        deadline = time.monotonic() + 120
        while sum(server.answered.values()) < 30 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()
        process.wait()
        before, answered = len(server.requests), len(server.answered)
        assert len(list(shown.iterdir())) == 1
        build(library, tmp_path / "run", config, until="ingest")
        assert not shown.exists()  # whatever the next build does
        build(library, tmp_path / "run", config)
        assert not shown.exists()
        assert 30 <= before < len(server.requests)
        assert len(server.answered_again) <= in_flight
        spent = spent_of(tmp_path / "run")
        assert spent["requests"] == len(server.answered)  # each once, whichever attempt paid for it
        assert spent["cache_hits"] <= spent_of(honest[0])["cache_hits"]  # documents with the same closed-book question
        assert 0 < spent["resumed"] <= answered
        tokens = sum(
            10 * len(a.images) + len(a.text.split()) for a in {a.content_id: a for a, _ in server.requests}.values()
        )
        assert spent["prompt_tokens"] == tokens
        build(library, tmp_path / "fresh", settings(server, tmp_path / "cache"))
    assert questions_of(tmp_path / "run") == questions_of(tmp_path / "fresh")


def during(outage: list[str], behaviour: str) -> Script:
    """The behaviour for requests that hold one of these texts, as long as they stand there."""
    return lambda asked: behaviour if any(text in asked.text for text in outage) else "right"


@pytest.mark.parametrize("failing", ["Task: reasoning.", "differ?\n"])  # what is to be written, what is to be judged
def test_questions_that_a_faulty_server_cost_are_asked_for_by_the_next_build(
    failing: str, honest: tuple[Path, FakeChat, Path], library: Path, tmp_path: Path
) -> None:
    outage = [failing]
    run, once = tmp_path / "run", ("synth.client.attempts=1", "synth.attempts=1")
    with FakeChat(answer, wrong=wrong, script=during(outage, "500")) as server:
        config = settings(server, tmp_path / "cache", *once)
        build(library, run, config)
        assert len(gaps_of(run)) == 6
        assert spent_of(run)["failures"]["server-error"] >= 6
        outage.clear()
        asked = len(server.requests)
        again = build(library, run, config)
        assert again.work["synthesise"] == 3  # three documents, three partitions
        assert gaps_of(run) == []
        assert server.answered_again == []
        spent = spent_of(run)
        assert spent["cache_hits"] <= 2 * spent_of(honest[0])["cache_hits"] < spent["resumed"]
        lint_run(run)
        assert asked < len(server.requests) < 2 * asked
        asked = len(server.requests)
        assert not any(build(library, run, config).work.values())
        assert len(server.requests) == asked
    assert questions_of(run) == questions_of(honest[0])


def test_questions_that_a_dying_worker_cost_are_asked_for_by_the_next_build(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> list[bytes]:
        raise DocumentError("worker-died", "killed by SIGKILL")

    with FakeChat(answer, wrong=wrong) as server:
        config = settings(server, tmp_path / "cache")
        with monkeypatch.context() as patched:
            patched.setattr(PromptImages, "load", broken)
            build(library, tmp_path / "run", config)
        assert len(gaps_of(tmp_path / "run")) == 18
        assert server.requests == []
        build(library, tmp_path / "run", config)
    assert gaps_of(tmp_path / "run") == []


def test_what_a_server_refuses_is_asked_for_once(library: Path, tmp_path: Path) -> None:
    with FakeChat(answer, wrong=wrong, script=during(["Task: reasoning."], "400")) as server:
        config = settings(server, tmp_path / "cache")
        build(library, tmp_path / "run", config)
        assert len(gaps_of(tmp_path / "run")) == 6
        asked = len(server.requests)
        assert not any(build(library, tmp_path / "run", config).work.values())
        assert len(server.requests) == asked


def test_a_corpus_with_missing_questions_is_planned_anew_without_its_server(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, once = tmp_path / "run", ("synth.client.attempts=1", "synth.attempts=1")
    with FakeChat(answer, wrong=wrong, script=during(["Task: reasoning."], "500")) as server:
        config = settings(server, tmp_path / "cache", *once)
        run_build([str(library)], run, config, workers=1)
        assert "some missing for faults that may pass (6 server-error)" in capsys.readouterr().err
    questions = questions_of(run)
    larger = settings(server, tmp_path / "cache", *once, "packing.capacity=200000")
    result = run_build([str(library)], run, larger, workers=1)
    assert f"nothing more is asked for: {server.base_url}" in capsys.readouterr().err
    assert result.num_samples == 12
    assert "synthesise" not in result.work
    assert questions_of(run) == questions
    lint_run(run)


def test_replies_that_are_no_questions_are_counted_by_task_and_fault(library: Path, tmp_path: Path) -> None:
    spoilt = {"Task: extract-single.": "malformed-json", "Task: reasoning.": "refusal", "List the": "white-space"}

    def script(asked: Asked) -> str:
        return next((spoilt[text] for text in spoilt if text in asked.text), "right")

    run = tmp_path / "run"
    with FakeChat(answer, wrong=wrong, script=script) as server:
        build(library, run, settings(server, tmp_path / "cache", "synth.attempts=1"))
    told = json.loads((run / "run.json").read_text())["questions"]
    assert told["replies"] == {
        "closed-book": {"empty": 6},
        "extract-multi": {"read": 6},
        "extract-single": {"no-json": 6},
        "reasoning": {"refused": 6},
    }
    assert told["checks"]["schema"] == {"passed": 6, "failed": 12}
    assert told["checks"]["closed-book"] == {"passed": 0, "failed": 6}
    assert describe_run(run)["questions"]["replies"] == told["replies"]
    shown = CliRunner().invoke(main, ["inspect", str(run)]).output
    assert re.search(r"schema +6 of 18 passed \(33%\)", shown)
    assert "replies to reasoning that are none: 6 refused, of 6" in shown
    report = (run / "report.html").read_text()
    assert "<td>schema</td><td>6</td><td>12</td>" in report
    assert "extract-single: 6 no-json" in report


def test_another_server_may_judge(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGDOC_JUDGE_KEY", "drawn")
    with FakeChat(answer) as writer, FakeChat(answer, model="judge-vl", api_key="drawn") as judge:
        where = f"synth.judge={{base_url: {judge.base_url}, model: judge-vl, api_key_env: LONGDOC_JUDGE_KEY}}"
        build(library, tmp_path / "run", settings(writer, tmp_path / "cache", where))
        assert Counter(q.task for q in questions_of(tmp_path / "run") if q.accepted) == dict.fromkeys(BY_MODEL, 6)
        assert len(writer.requests) == 18
        assert all("Task: " in asked.text for asked, _ in writer.requests)
        assert judge.requests
        assert not any("Task: " in asked.text for asked, _ in judge.requests)
        moved = where.replace(judge.base_url, "http://127.0.0.1:9/v1")  # where it is reached changes nothing
        assert not any(build(library, tmp_path / "run", settings(writer, tmp_path / "cache", moved)).work.values())


def test_another_server_may_judge_what_our_vllm_writes(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeChat(answer) as writer, FakeChat(answer, model="judge-vl") as judge:

        class Started(nullcontext[None]):
            base_url, api_key, model = writer.base_url, "", writer.model

            def __init__(self, *_: Any, **__: Any) -> None:
                super().__init__()

            def ensure_running(self) -> None:
                raise AssertionError("it is there")

            def note_answer(self) -> None:
                """Nothing waits for it."""

        monkeypatch.setattr(ask.vllm_server, "VllmServer", Started)
        where = f"synth.judge={{base_url: {judge.base_url}, model: judge-vl}}"
        build(library, tmp_path / "run", settings(writer, tmp_path / "cache", "synth.backend=vllm", where))
        assert gaps_of(tmp_path / "run") == []
        assert len(writer.requests) == 18
        assert judge.requests


def test_image_tokens_are_estimated_where_the_server_tells_none(library: Path, tmp_path: Path) -> None:
    with FakeChat(answer, counts_images=False) as server:
        build(library, tmp_path / "run", settings(server, tmp_path / "cache"))
        images = sum(len(asked.images) for asked, _ in server.requests)
    spent = spent_of(tmp_path / "run")
    assert spent["image_tokens"] == spent["estimated_image_tokens"]
    assert 50 * images <= spent["image_tokens"] <= 70 * images  # of at most 64 tokens by area
    assert "images (some of them estimated)" in CliRunner().invoke(main, ["inspect", str(tmp_path / "run")]).output


def test_a_model_that_always_errs_gives_no_question_and_says_why(library: Path, tmp_path: Path) -> None:
    with FakeChat(answer, wrong=wrong, script=always("wrong")) as server:
        build(library, tmp_path / "run", settings(server, tmp_path / "cache"))
    questions = questions_of(tmp_path / "run")
    assert Counter(q.accepted for q in questions) == {False: 36}  # two attempts each
    assert {q.reason for q in questions} <= {"grounded", "arithmetic"}
    gaps = gaps_of(tmp_path / "run")
    assert len({g.id for g in gaps}) == len(gaps) == 18
    assert all(g.detail.startswith("2 attempts; the last: ") for g in gaps)


def test_segments_left_to_layout_and_transcriptions_cost_no_request(library: Path, tmp_path: Path) -> None:
    with FakeChat(answer, wrong=wrong) as server:
        tasks = "synth.tasks=[extract-single, ocr-needle]"
        build(library, tmp_path / "all", settings(server, tmp_path / "cache", tasks, "synth.layout_share=1"))
        assert server.requests == []
        build(library, tmp_path / "none", settings(server, tmp_path / "cache", tasks))
    by = Counter((q.task, q.generator.partition("/")[0]) for q in questions_of(tmp_path / "none") if q.accepted)
    assert by["extract-single", server.model] == 6
    assert by["ocr-needle", "layout"] == 6


def test_a_limited_build_projects_what_the_rest_would_cost(library: Path, tmp_path: Path) -> None:
    prices = ("synth.client.prompt_price=2", "synth.client.completion_price=10")
    with FakeChat(answer, wrong=wrong) as server:
        result = build(library, tmp_path / "run", settings(server, tmp_path / "cache", *prices), limit=1)
        requests = len(server.requests)
    assert result.projected.startswith(f"for all 3 inputs about {3 * requests} requests, ")
    assert "price 0." in result.projected and result.projected.endswith("(from 1 of them)")


def test_a_server_that_is_not_there_is_said_at_once(library: Path, tmp_path: Path) -> None:
    with FakeChat(answer) as server:
        config = settings(server, tmp_path / "cache", "synth.client.give_up_s=0.1")
    with pytest.raises(EngineError, match=re.escape(server.base_url)):
        build(library, tmp_path / "run", config)


def test_inspect_and_the_report_tell_checks_places_and_cost(honest: tuple[Path, FakeChat, Path]) -> None:
    run, _, _ = honest
    facts = describe_run(run)
    assert facts["questions"]["places"] == {"beginning": 9, "middle": 0, "end": 9}  # two segments of nine pages
    assert list(facts["questions"]["checks"]) == ["schema", *(c for c in CHECKS if c in facts["questions"]["checks"])]
    assert facts["questions"]["checks"]["agreement"] == {"passed": 18, "failed": 0}
    shown = CliRunner().invoke(main, ["inspect", str(run)]).output
    assert re.search(r"ambiguity +18 of 18 passed \(100%\)", shown)
    assert "requests, " in shown
    assert "<td>ambiguity</td><td>18</td><td>0</td>" in (run / "report.html").read_text()


def test_a_cached_build_needs_no_server_and_says_so(
    honest: tuple[Path, FakeChat, Path], library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _, cache = honest
    with FakeChat(answer) as away:
        config = settings(away, cache)
    run_build([str(library)], tmp_path / "run", config, workers=1)
    assert questions_of(tmp_path / "run") == questions_of(run)
    assert f"not reached so far: {away.base_url}" in capsys.readouterr().err


def test_a_task_of_ones_own_is_one_file(library: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "lookup.yaml").write_text(
        """
name: lookup
definition: Ask for one number that a page states.
restrictions: [The number stands on one page.]
evidence_pages: [1, 1]
answer_formats: [Integer]
checks: [format, evidence-pages, anchor, grounded, closed-book, agreement]
examples:
  - pages: [3, 12]
    reply:
      evidence_pages: [5]
      evidence_sources: [Text]
      evidence: ["The mill has 12 sails."]
      anchor: page 5
      question: How many sails does the mill on page 5 have?
      answer_format: Integer
      answer: 12
  - pages: [20, 29]
    reply:
      evidence_pages: [21]
      evidence_sources: [Text]
      evidence: ["Its wheel was replaced in 1871."]
      anchor: page 21
      question: In which year was the wheel of the mill on page 21 replaced?
      answer_format: Integer
      answer: 1871
"""
    )
    with FakeChat(answer, wrong=wrong) as server:
        own = ("synth.tasks=[lookup]", f"synth.prompts={tmp_path / 'prompts'}")
        build(library, tmp_path / "run", settings(server, tmp_path / "cache", *own))
    assert Counter(s.task for s in read_records(tmp_path / "run" / "samples.parquet", Sample)) == {"lookup": 6}
    assert {v.check for q in questions_of(tmp_path / "run") for v in q.verdicts} == {
        "format", "evidence-pages", "anchor", "grounded", "closed-book", "agreement"
    }  # fmt: skip
    lint_run(tmp_path / "run")


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("synth.base_url=ftp://host/v1", "ftp://host/v1"),
        ("synth.client.api_key_env=LONGDOC_NO_SUCH_KEY", "LONGDOC_NO_SUCH_KEY"),
        ("synth.prompts=/no/such/folder", "/no/such/folder"),
        ("synth={backend: vllm, model: /no/such/model}", "synth.model = '/no/such/model' is not a folder"),
        ("synth.judge={base_url: ftp://host, model: m}", "synth.judge.base_url = 'ftp://host'"),
        (
            "synth.judge={base_url: http://127.0.0.1:9, model: m, api_key_env: LONGDOC_NO_SUCH_KEY}",
            "LONGDOC_NO_SUCH_KEY (synth.judge.api_key_env)",
        ),
    ],
)
def test_a_mistake_shows_before_a_document_is_opened(assignment: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_text("not opened")
    basis = ("synth.backend=openai", "synth.model=m", "synth.base_url=http://127.0.0.1:9/v1")
    with pytest.raises(ConfigError, match=re.escape(message)):
        build(tmp_path, tmp_path / "run", load_config(None, [*basis, assignment]))
    assert not (tmp_path / "run").exists()


def test_a_model_that_thinks_aloud_is_read_without_a_schema(library: Path, tmp_path: Path) -> None:
    def thinking(asked: Asked) -> str:
        assert asked.schema is None
        return f'<think>Is it {{"answer": 7}}? No.</think>\nHere it is:\n```json\n{answer(asked)}\n```'

    with FakeChat(thinking) as server:
        build(library, tmp_path / "run", settings(server, tmp_path / "cache", "synth.structured=false"))
    questions = questions_of(tmp_path / "run")
    assert Counter(q.task for q in questions if q.accepted) == dict.fromkeys(BY_MODEL, 6)
    assert all(is_right(q) for q in questions)


def test_a_question_about_several_pages_that_one_answers_is_relabelled(library: Path, tmp_path: Path) -> None:
    def leaking(asked: Asked) -> str:
        """Asks about one page of the two that it names; a judge who sees that page knows the answer."""
        if "Task: " not in asked.text:
            return json.dumps({"answer": _looked_up(asked.text, [int(x.removeprefix("Page ")) for x in asked.labels])})
        first = int(asked.labels[0].removeprefix("Page "))
        value = json.loads(answer(asked))
        return json.dumps(
            value
            | {
                "evidence_pages": [first, first + 1],
                "evidence_sources": ["Text", "Text"],
                "evidence": [fact(first), fact(first + 1)],
                "anchor": f"page {first}",
                "question": f"According to page {first}, how many kilograms does the pump of hall {first} weigh?",
                "answer_format": "Integer",
                "answer": weight(first),
            }
        )

    with FakeChat(leaking) as server:
        only = "synth.tasks=[extract-multi]"
        build(library, tmp_path / "run", settings(server, tmp_path / "cache", only))
    questions = questions_of(tmp_path / "run")
    assert Counter((q.task, q.accepted) for q in questions) == {("extract-single", True): 6}
    assert all(len({e.page for e in q.evidence}) == 1 for q in questions)
    assert describe_run(tmp_path / "run")["questions"]["relabelled"] == 6
    shown = CliRunner().invoke(main, ["inspect", str(tmp_path / "run")]).output
    assert "6 of extract-multi need one page only" in shown
