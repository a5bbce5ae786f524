"""Short data through a whole build: what is stored, counted and trained on, and what a change or a kill costs."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
import webdataset
from chat_data import chat, image_part, text_part, turn, write_lines, write_picture
from click.testing import CliRunner
from fakes import InlinePool
from PIL import Image
from test_build import QUICK, promised_bytes, quick, write_document

from corpus import chat_chunks, short_shards
from corpus.cli import main
from corpus.config import Config
from corpus.errors import ConfigError, EngineError
from corpus.inspection import BrokenPromise, describe_run, describe_sample
from corpus.linting import lint_run
from corpus.pipeline import BuildResult, build
from corpus.records import Rejected, Sample, ShortFile
from corpus.shards import ShardReader
from corpus.store import read_records, write_records
from corpus.vision_tokens import FAMILIES
from corpus.workers import TIMEOUT, WORKER_DIED, Failure
from packing import short
from packing.lengths import Utf8Bound, conversation_length
from trainer_plugin.dataset import PlanDataset

CHUNK_LINES = 3
TURNS = [turn("system", "Be brief."), turn("user", "<image>\nWhich colour?"), turn("assistant", "Red."),
         turn("user", "And <image>?"), turn("assistant", "Blue <|im_end|>.")]  # fmt: skip
FIRST = [
    chat("What is a harbour?", "A place for ships."),
    {"messages": TURNS, "images": ["pictures/red.jpg", "pictures/blue.png"], "license": "CC0", "source": "a set"},
    "",
    "{broken",
    chat([image_part("pictures/turned.jpg"), text_part("Which way?")], "Up."),
    chat("<image>?", images=["pictures/none.png"]),
    chat("<image>?", images=["pictures/broken.png"]),
]
SECOND = [
    chat("Say it again."),
    chat("What is a harbour?", "A place for ships.", id="the same"),
    chat("<image>?", images=["copy-of-red.jpg"]),
    chat("<image>?", images=["pictures/red.jpg"]),
]


@pytest.fixture(scope="module", autouse=True)
def small_chunks() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chat_chunks, "CHUNK_LINES", CHUNK_LINES)
        yield


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One document, two chat files, and their pictures."""
    folder = tmp_path_factory.mktemp("short-inputs")
    (folder / "documents").mkdir()
    write_document(folder / "documents" / "0.pdf", seed=0)
    write_picture(folder / "pictures" / "red.jpg", 640, 480)
    write_picture(folder / "pictures" / "blue.png", 200, 300, color=(0, 0, 200))
    write_picture(folder / "pictures" / "turned.jpg", 640, 480, orientation=6)
    whole = write_picture(folder / "pictures" / "whole.png", 560, 560)
    (folder / "pictures" / "broken.png").write_bytes(whole.read_bytes()[:150])
    shutil.copy(folder / "pictures" / "red.jpg", folder / "copy-of-red.jpg")
    write_lines(folder / "first.jsonl", FIRST)
    write_lines(folder / "second.jsonl", SECOND)
    return folder


def chats(folder: Path, *assignments: str) -> Config:
    files = f"mixture.short.files=[{folder / 'first.jsonl'}, {folder / 'second.jsonl'}]"
    return quick(files, "mixture.short.share=0.9", "mixture.shortage=fill", *assignments)


def build_in(folder: Path, out: Path, *assignments: str, workers: int = 1) -> BuildResult:
    return build([str((folder / "documents").resolve())], out, chats(folder, *assignments), workers=workers, quiet=True)


@pytest.fixture(scope="module")
def undisturbed(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("short") / "run"
    build_in(inputs, out, "packing.validation_share=0", workers=2)
    return out


@pytest.fixture
def copied(inputs: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The chat files and the finished run in a folder of their own, file times kept; builds start no process."""
    monkeypatch.setattr("corpus.pipeline.WorkerPool", InlinePool(lambda _: None))
    shutil.copytree(inputs, tmp_path / "in", ignore=shutil.ignore_patterns("documents"))
    (tmp_path / "in" / "documents").symlink_to(inputs / "documents")
    shutil.copytree(undisturbed, tmp_path / "run")
    return tmp_path


def again(copied: Path, *assignments: str) -> BuildResult:
    return build_in(copied / "in", copied / "run", "packing.validation_share=0", *assignments)


def all_bytes(run: Path) -> dict[str, Any]:
    return promised_bytes(run) | {"short.parquet": (run / "short.parquet").read_bytes()}


def done(result: BuildResult) -> dict[str, int]:
    """Units of work done now, by stage."""
    return {stage: n for stage, n in result.work.items() if n}


def short_samples(run: Path) -> list[Sample]:
    return [s for s in read_records(run / "samples.parquet", Sample) if s.is_short]


def refused(run: Path) -> dict[str, str]:
    return {r.id: r.reason for r in read_records(run / "rejected.parquet", Rejected) if r.stage == "short"}


# ------------------------------------------------------------------------------------------------- what comes of it


def test_every_line_ends_kept_or_rejected_with_a_reason(undisturbed: Path) -> None:
    assert refused(undisturbed) == {
        "first.jsonl:4": "not-json",
        "first.jsonl:6": "image-missing",
        "first.jsonl:7": "image-unreadable",
        "second.jsonl:2": "duplicate",
        "second.jsonl:4": "duplicate",  # another path, the same bytes
    }
    facts = [(f.file, f.num_lines, f.num_kept, f.num_rejected, f.num_images)
             for f in read_records(undisturbed / "short.parquet", ShortFile)]  # fmt: skip
    assert facts == [("first.jsonl", 6, 3, 3, 3), ("second.jsonl", 4, 2, 2, 1)]
    assert [f.licenses for f in read_records(undisturbed / "short.parquet", ShortFile)] == [("", "CC0"), ("",)]
    details = {r.id: r.detail for r in read_records(undisturbed / "rejected.parquet", Rejected)}
    assert details["second.jsonl:2"] == "says the same as first.jsonl:1"
    assert details["second.jsonl:4"] == "says the same as second.jsonl:3"


def test_samples_have_the_length_of_their_conversation(undisturbed: Path) -> None:
    samples = short_samples(undisturbed)
    assert len(samples) == len({s.sample_id for s in samples}) == 5
    assert all(
        (s.task, s.split, s.window, s.first_page, s.question_ids) == ("short", "train", 0, 0, ()) for s in samples
    )
    dataset = PlanDataset(undisturbed)
    for sample in samples:
        messages = dataset.load(sample.sample_id).messages
        length = conversation_length(messages, sample.grids, FAMILIES["qwen2.5-vl"], Utf8Bound())
        told = (sample.num_tokens, sample.num_patches, sample.num_supervised)
        assert told == (length.num_tokens, length.num_patches, length.num_supervised)
    several = samples[1]
    assert several.num_supervised == len("Red.") + 1 + len("Blue < |im_end|>.") + 1
    assert several.num_patches == (476 // 14) * (644 // 14) + (308 // 14) * (196 // 14)


def test_the_trainer_reads_what_was_written(undisturbed: Path) -> None:
    dataset = PlanDataset(undisturbed)
    loaded = {s.sample.sample_id: s for row in dataset for s in row if s.sample.is_short}
    assert set(loaded) == {s.sample_id for s in short_samples(undisturbed)}
    told = [loaded[s.sample_id] for s in short_samples(undisturbed)]
    assert [m["role"] for m in told[1].messages] == ["system", "user", "assistant", "user", "assistant"]
    kinds = [[p["type"] for p in m["content"]] for m in told[1].messages]
    assert kinds == [["text"], ["image", "text"], ["text"], ["text", "image", "text"], ["text"]]
    assert told[1].messages[1]["content"][1]["text"] == "\nWhich colour?"
    assert told[1].messages[4]["content"][0]["text"] == "Blue < |im_end|>."
    for s in told:
        assert [i.size for i in s.images] == [(g.width, g.height) for g in s.sample.grids]
    assert [i.size for i in told[2].images] == [(476, 644)]  # stands upright
    assert told[2].images[0].getpixel((200, 60))[1] < 128 < told[2].images[0].getpixel((200, 600))[1]


def test_shards_are_plain_and_name_no_path(undisturbed: Path, inputs: Path) -> None:
    shards = sorted(undisturbed.glob("shards/short-*.tar"))
    assert [s.name for s in shards] == [f"short-{i:06d}-000000.tar" for i in (0, 1, 2)]
    read = [s for shard in shards for s in webdataset.WebDataset(str(shard), shardshuffle=False)]
    assert [s["__key__"] for s in read] == [s.key for s in short_samples(undisturbed)]
    about = json.loads(read[1]["json"])
    assert (about["file"], about["line"], about["license"], about["source"]) == ("first.jsonl", 2, "CC0", "a set")
    assert [Image.open(io.BytesIO(read[1][i["name"]])).size for i in about["images"]] == [(644, 476), (196, 308)]
    for shard in shards:
        assert os.fsencode(str(inputs)) not in shard.read_bytes()
        with tarfile.open(shard) as tar:
            assert {(m.mtime, m.uid, m.mode) for m in tar} <= {(0, 0, 0o644)}


def test_the_split_is_drawn_by_conversation(copied: Path) -> None:
    result = build_in(copied / "in", copied / "run", "packing.validation_share=0.5")
    splits = {s.doc_id: s.split for s in short_samples(copied / "run")}
    assert splits == {d: "validation" if int(d[8:16], 16) < 2**31 else "train" for d in splits}
    assert set(splits.values()) == {"train", "validation"}
    assert done(result) == {"mixture": 1, "plan": 1}
    lint_run(copied / "run")


# ------------------------------------------------------------------------------------------------ what a change redoes


def test_running_again_does_nothing(copied: Path) -> None:
    before = all_bytes(copied / "run")
    assert done(again(copied)) == {}
    assert all_bytes(copied / "run") == before


def test_a_changed_line_redoes_its_chunk_and_what_follows(copied: Path) -> None:
    write_lines(copied / "in" / "second.jsonl", [chat("Say it once more."), *SECOND[1:]])
    result = again(copied)
    assert done(result) == {"short": 2, "mixture": 1, "plan": 1}  # measured and written
    build_in(copied / "in", copied / "fresh", "packing.validation_share=0")
    assert all_bytes(copied / "run") == all_bytes(copied / "fresh")


def test_a_changed_picture_is_seen(copied: Path) -> None:
    write_picture(copied / "in" / "pictures" / "none.png", 56, 56)
    write_picture(copied / "in" / "pictures" / "red.jpg", 480, 640)
    result = again(copied)
    assert result.work["plan"] == 1
    assert refused(copied / "run") == {
        "first.jsonl:4": "not-json",
        "first.jsonl:7": "image-unreadable",
        "second.jsonl:2": "duplicate",
    }
    build_in(copied / "in", copied / "fresh", "packing.validation_share=0")
    assert all_bytes(copied / "run") == all_bytes(copied / "fresh")


def test_a_touched_picture_changes_no_byte(copied: Path) -> None:
    before = all_bytes(copied / "run")
    os.utime(copied / "in" / "pictures" / "turned.jpg")
    assert done(again(copied)) == {"short": 1}  # measured
    assert all_bytes(copied / "run") == before


@pytest.mark.parametrize(
    ("assignment", "redone"),
    [
        ("packing.rows_per_step=2", 0),
        ("windows.max_tokens=120000", 4),  # measured; the same comes out
        ("render.quality=70", 4),  # written
        ("model=qwen3-vl", 8),
    ],
)
def test_a_changed_setting_redoes_what_depends_on_it(copied: Path, assignment: str, redone: int) -> None:
    assert done(again(copied, assignment)).get("short", 0) == redone
    lint_run(copied / "run")


def test_files_that_are_no_longer_named_leave_no_trace(copied: Path, tmp_path: Path) -> None:
    documents, config = [str(copied / "in" / "documents")], quick("packing.validation_share=0")
    build(documents, copied / "run", config, quiet=True)
    build(documents, tmp_path / "fresh", config, quiet=True)
    assert promised_bytes(copied / "run") == promised_bytes(tmp_path / "fresh")
    assert not [p for p in (copied / "run").rglob("*short*") if p.is_file()]
    assert describe_run(copied / "run")["short"] == []
    lint_run(copied / "run")


# ------------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize("function", [short.measure_chunk, short_shards.write_chunk])
@pytest.mark.parametrize("why", [TIMEOUT, WORKER_DIED])
def test_a_line_at_which_a_worker_fails_costs_that_line(
    copied: Path, monkeypatch: pytest.MonkeyPatch, function: Any, why: str
) -> None:
    before = all_bytes(copied / "run")
    shutil.rmtree(copied / "run")
    tried: list[int] = []

    def fault(task: Any) -> Failure | None:
        """The second line of the first chunk."""
        if task.function is not function or task.argument.chunk.offset or "first" not in task.argument.chunk.label:
            return None
        tried.append(1)
        return Failure(why, "it happened", 1) if 1 not in task.argument.problems else None

    monkeypatch.setattr("corpus.pipeline.WorkerPool", InlinePool(fault))
    again(copied)
    assert refused(copied / "run")["first.jsonl:2"] == why and len(refused(copied / "run")) == 6
    assert len(tried) == 3  # at once, line by line, and without it
    lint_run(copied / "run")
    monkeypatch.setattr("corpus.pipeline.WorkerPool", InlinePool(lambda _: None))
    # a limit is remembered until another is set, a death is not
    redone = 1 if function is short_shards.write_chunk else 2
    assert done(again(copied)) == ({} if why == TIMEOUT else {"short": redone, "mixture": 1, "plan": 1})
    again(copied, "workers.timeout_s=130")
    assert all_bytes(copied / "run") == before


def test_a_fault_of_no_line_stops_the_build(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(copied / "run")
    pool = InlinePool(
        lambda task: Failure("internal-error", "wrong", 3) if task.function is short.measure_chunk else None
    )
    monkeypatch.setattr("corpus.pipeline.WorkerPool", pool)
    with pytest.raises(EngineError, match="internal-error: wrong"):
        again(copied)


@pytest.mark.parametrize("moment", [".state/markers/conversations-*.json", "shards/.short*"])
def test_a_killed_build_finishes_with_the_same_bytes(
    moment: str, inputs: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    program = f"from corpus import chat_chunks, cli; chat_chunks.CHUNK_LINES = {CHUNK_LINES}; cli.main()"
    command = [sys.executable, "-c", program, "build", str(inputs / "documents"), "--out", str(run), "--workers", "1"]
    files = f"mixture.short.files=[{inputs / 'first.jsonl'}, {inputs / 'second.jsonl'}]"
    for assignment in (*QUICK, files, "packing.validation_share=0"):
        command += ["--set", assignment]
    process = subprocess.Popen([*command, "--quiet"], start_new_session=True)
    deadline = time.monotonic() + 60
    while not any(run.glob(moment)) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    build_in(inputs, run, "packing.validation_share=0")
    assert all_bytes(run) == all_bytes(undisturbed)
    assert not list(run.rglob("*.tmp"))
    lint_run(run)


def test_a_file_that_is_not_there_is_said_before_any_work(inputs: Path, tmp_path: Path) -> None:
    config = quick(f"mixture.short.files={inputs / 'none.jsonl'}")
    with pytest.raises(ConfigError, match=r"mixture\.short\.files: cannot read .*none\.jsonl"):
        build([str(inputs / "documents")], tmp_path / "run", config, quiet=True)
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------------- lint, inspect and report


def test_a_sound_run_passes_lint(undisturbed: Path) -> None:
    seen = lint_run(undisturbed)
    assert seen["samples"].endswith("5 conversations")
    assert seen["short"] == "10 lines of 2 chat files accounted for"


def test_lint_finds_lines_that_are_not_accounted_for(copied: Path) -> None:
    run = copied / "run"
    rows = read_records(run / "rejected.parquet", Rejected)
    write_records(run / "rejected.parquet", Rejected, [r for r in rows if r.reason != "not-json"])
    with pytest.raises(BrokenPromise, match="short: 4 rejections"):
        lint_run(run)


def test_lint_finds_images_of_another_size(copied: Path) -> None:
    run = copied / "run"
    samples = read_records(run / "samples.parquet", Sample)
    wrong = next(s for s in samples if s.is_short and s.num_pages == 2)
    swapped = Sample(**{**{f: getattr(wrong, f) for f in wrong.__dataclass_fields__}, "grids": wrong.grids[::-1]})
    write_records(run / "samples.parquet", Sample, [swapped if s is wrong else s for s in samples])
    with pytest.raises(BrokenPromise, match=f"{wrong.key}: image 1 is"):
        lint_run(run)


def test_inspect_tells_of_files_and_shows_a_conversation(undisturbed: Path) -> None:
    facts = describe_run(undisturbed)
    assert facts["windows"]["count"] == 1 and facts["samples"]["by_task"]["short"] == 5
    assert facts["rejected"]["short: duplicate"] == 2
    sample = short_samples(undisturbed)[1]
    found = describe_sample(undisturbed, sample.sample_id)
    assert (found["file"], found["line"]) == ("first.jsonl", 2)
    assert [t["said"] for t in found["turns"]][1:4] == ["[image 1]\nWhich colour?", "Red.", "And [image 2]?"]
    for arguments in (["inspect", str(undisturbed)], ["inspect", str(undisturbed), "--sample", sample.sample_id]):
        shown = CliRunner().invoke(main, arguments)
        assert shown.exit_code == 0 and "first.jsonl" in shown.stdout


def test_the_report_and_the_card_count_lines(undisturbed: Path) -> None:
    html, card = ((undisturbed / name).read_text() for name in ("report.html", "README.md"))
    assert "Short data" in html and "short: duplicate" in html
    assert "| lines kept of `first.jsonl` | 3 of 6 |" in card and "short.parquet" in card
    assert "`not stated, CC0`" in card


def test_a_hostile_conversation_is_shown_as_text(copied: Path) -> None:
    hostile = "\x1b[2J[bold]<script>alert(1)</script>"
    name = "\x1b[2J<script>.jsonl"
    write_lines(copied / "in" / name, [chat(hostile, hostile)])
    config = quick(f"mixture.short.files={json.dumps(str(copied / 'in' / name))}", "packing.validation_share=0")
    build([str(copied / "in" / "documents")], copied / "run", config, quiet=True)
    sample = short_samples(copied / "run")[0]
    for arguments in ([], ["--sample", sample.sample_id], ["--json"]):
        shown = CliRunner().invoke(main, ["inspect", str(copied / "run"), *arguments])
        assert shown.exit_code == 0 and "\x1b" not in shown.stdout
    assert "<script>" not in (copied / "run" / "report.html").read_text()
    with ShardReader(copied / "run") as shards:
        assert shards.read_json(sample.key, "messages.json")[0]["content"][0]["text"] == hostile
    lint_run(copied / "run")
