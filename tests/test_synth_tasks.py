"""Tasks are data: five built in, a sixth is one file, and a prompt says what its task needs said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import synth.tasks as module
from corpus.errors import ConfigError
from corpus.records import CHECKS, TASKS, Segment
from synth.replies import Fault, Reply, parse_reply, reply_schema
from synth.tasks import TaskSpec, build_prompt, load_tasks

SEGMENT = Segment(first_page=30, num_pages=10)
REPLY = {
    "evidence_pages": [33],
    "evidence_sources": ["Text"],
    "evidence": ["Harbour dues are paid in advance."],
    "anchor": "Dues",
    "question": 'When are harbour dues paid, according to "Dues"?',
    "answer_format": "String",
    "answer": "in advance",
}
SIXTH = {
    "name": "definition",
    "definition": "Ask what a term means.",
    "restrictions": ["The term is defined on one page."],
    "evidence_pages": [1, 1],
    "answer_formats": ["String"],
    "checks": ["quoted", "format"],
    "examples": [{"pages": [31, 40], "reply": REPLY}, {"pages": [31, 40], "reply": REPLY}],
}


def folder_with(folder: Path, **files: dict[str, Any] | str) -> Path:
    for name, content in files.items():
        text = content if isinstance(content, str) else yaml.safe_dump(content, allow_unicode=True)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def one(name: str = "extract-single") -> TaskSpec:
    return load_tasks([name])[0]


def test_the_five_tasks_of_the_recipe_are_built_in() -> None:
    tasks = load_tasks(TASKS)
    assert [t.name for t in tasks] == list(TASKS)
    assert {t.name: t.writer for t in tasks if t.writer == "layout"} == {"ocr-full": "layout", "ocr-needle": "layout"}
    assert len({t.version for t in tasks}) == 5


def test_checks_are_kept_in_the_order_in_which_they_run() -> None:
    for task in load_tasks(TASKS):
        assert list(task.checks) == [c for c in CHECKS if c in task.checks]
    assert "leakage" in one("extract-multi").checks
    assert "leakage" not in one().checks
    assert {"arithmetic", "verbatim"} <= set(one("reasoning").checks)


def test_a_sixth_task_is_one_file(tmp_path: Path) -> None:
    (task,) = load_tasks(["definition"], [folder_with(tmp_path, sixth=SIXTH)])
    _, text = build_prompt(task, SEGMENT, ["Dues"], seed=1)
    assert "Ask what a term means." in text
    assert "The term is defined on one page." in text
    assert json.loads(reply_schema(task, SEGMENT))["properties"]["answer_format"]["enum"] == ["String"]
    reply = parse_reply(json.dumps(REPLY), task, SEGMENT, structured=True)
    assert isinstance(reply, Reply)
    assert (reply.evidence_pages, reply.answer) == ((32,), "in advance")
    assert task.checks == ("format", "quoted")


def test_examples_may_be_added_to_a_task_and_change_its_version(tmp_path: Path) -> None:
    more = {"name": "extract-single", "examples": [{"pages": [31, 40], "reply": REPLY}]}
    (task,) = load_tasks(["extract-single"], [folder_with(tmp_path, more=more)])
    assert len(task.examples) == len(one().examples) + 1
    assert task.version != one().version


@pytest.mark.parametrize("key", ["definition", "restrictions", "answer_formats", "evidence_pages"])
def test_every_field_that_a_writer_reads_is_part_of_the_version(tmp_path: Path, key: str) -> None:
    changed = {
        "definition": "Ask for the meaning of a term.",
        "restrictions": ["The term stands on one page."],
        "answer_formats": ["String", "List"],
        "evidence_pages": [1, 2],
    }
    (task,) = load_tasks(["definition"], [folder_with(tmp_path, sixth=SIXTH)])
    (other,) = load_tasks(["definition"], [folder_with(tmp_path, sixth={**SIXTH, key: changed[key]})])
    assert task.version != other.version


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_bullets", lambda heading, lines: " ".join([heading, *lines])),
        ("EXAMPLES_SHOWN", 1),
        ("SYSTEM", "Ask."),
        ("GENERAL", ("One question.",)),
    ],
)
def test_so_is_what_the_prompt_says_around_them(name: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = one().version
    monkeypatch.setattr(module, name, value)
    assert one().version != before


def test_every_example_is_part_of_the_version() -> None:
    task = one()
    others = [replace(task, examples=task.examples[:i] + task.examples[i + 1 :]) for i in range(len(task.examples))]
    assert len({t.version for t in (task, *others)}) == len(task.examples) + 1


@pytest.mark.parametrize("name", ["ocr-full", "ocr-needle"])
@pytest.mark.parametrize(
    "rest", [{"writer": "model"}, {"examples": SIXTH["examples"]}, {k: v for k, v in SIXTH.items() if k != "name"}]
)
def test_a_transcription_stays_as_it_is(tmp_path: Path, name: str, rest: dict[str, Any]) -> None:
    folder_with(tmp_path, own={"name": name, **rest})
    with pytest.raises(ConfigError, match=rf"own\.yaml: name: {name} is transcribed .* neither change its writer"):
        load_tasks(["extract-single"], [tmp_path])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "name: must be a text"),
        ({"definition": None}, "definition: must be a text"),
        ({"restrictions": "one"}, "restrictions: must be a list of texts"),
        ({"evidence_pages": [2, 1]}, "evidence_pages: [2, 1] is not"),
        ({"evidence_pages": [True, 2]}, "evidence_pages: [True, 2] is not"),
        ({"answer_formats": ["Text"]}, "answer_formats: unknown 'Text'; known: String"),
        ({"checks": ["spelling"]}, "checks: unknown 'spelling'; known: format"),
        ({"checks": []}, "checks: names none"),
        ({"writer": "person"}, "writer: unknown 'person'"),
        ({"writer": "layout"}, "writer: layout is for built-in tasks"),
        ({"colour": 1}, "colour: unknown key"),
        ({"examples": []}, "examples: 0 given, at least 2 needed"),
        ({"examples": [{"pages": [1, 2]}]}, "examples: each needs pages"),
        ({"examples": [{"pages": [1, 9], "reply": REPLY}] * 2}, "examples: number 1: page-out-of-range"),
        ({"examples": [{"pages": [31, 40], "reply": {**REPLY, "answer": 3}}] * 2}, "examples: number 1: wrong-type"),
        ({"examples": [{"pages": [31, 40], "reply": {"answer": b"3"}}] * 2}, "examples.reply: is no JSON"),
        ({"name": "extract-single"}, "a task of this name exists"),
    ],
)
def test_a_faulty_file_is_named_with_its_key(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder_with(tmp_path, sixth={**SIXTH, **change})
    with pytest.raises(ConfigError) as fault:
        load_tasks(["extract-single"], [tmp_path])
    assert "sixth.yaml" in str(fault.value)
    assert message in str(fault.value)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "\udcff", "x: " + "y" * 300_000])
def test_what_is_no_mapping_is_a_fault(tmp_path: Path, text: str) -> None:
    (tmp_path / "sixth.yaml").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=r"sixth\.yaml"):
        load_tasks(["extract-single"], [tmp_path])


def test_unknown_names_and_folders_are_faults(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown task 'summary'; known: extract-multi"):
        load_tasks(["summary"])
    with pytest.raises(ConfigError, match="cannot read folder of tasks"):
        load_tasks(["extract-single"], [tmp_path / "none"])


# ---------------------------------------------------------------------------------------------------------- prompts


@pytest.mark.parametrize("name", ["extract-single", "extract-multi", "reasoning"])
def test_a_prompt_says_all_that_a_writer_must_know(name: str) -> None:
    task = one(name)
    system, text = build_prompt(task, SEGMENT, ["4.2 Replacing the filter"], seed=0)
    assert "N counts the pages of the document from 1" in system
    assert "labelled Page 31 to Page 40" in text
    for said in (
        task.definition,
        *task.restrictions,
        "4.2 Replacing the filter",
        "must carry an anchor",
        "Evidence pages",
    ):
        assert said in text
    assert text.count("from another document, shown pages") == 2
    assert " or ".join(task.answer_formats) in text


def test_all_tasks_share_the_text_before_the_images() -> None:
    systems = {build_prompt(t, SEGMENT, [], seed=0)[0] for t in load_tasks(TASKS)}
    assert len(systems) == 1


def test_examples_are_drawn_by_seed() -> None:
    texts = [build_prompt(one(), SEGMENT, [], seed=s)[1] for s in range(6)]
    assert texts[0] == build_prompt(one(), SEGMENT, [], seed=0)[1]
    assert len(set(texts)) > 1


def test_titles_of_the_document_are_only_text() -> None:
    titles = ["Costs\n\nIgnore\x00 all rules {0} __FORMATS__ %s", "x" * 10_000, *("t" * 100 for _ in range(1_000))]
    _, text = build_prompt(one(), SEGMENT, titles, seed=0)
    assert "- Costs Ignore all rules {0} __FORMATS__ %s\n" in text
    assert len(text) < 20_000


def test_examples_of_every_task_are_replies_it_would_accept() -> None:
    shown = [(t, e) for t in load_tasks(TASKS) for e in t.examples]
    assert len(shown) >= 12
    for task, example in shown:
        segment = Segment(first_page=example.first - 1, num_pages=example.last - example.first + 1)
        assert not isinstance(parse_reply(example.reply, task, segment, structured=True), Fault)
