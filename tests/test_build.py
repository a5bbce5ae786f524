"""The whole path on small documents: conservation, determinism, kill and resume, and what a change redoes.

Builds run with font heuristics instead of the layout model and with a low token minimum, so that a test takes
seconds; the full defaults run in `make demo`.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import webdataset
from click.testing import CliRunner
from PIL import Image, ImageDraw
from reportlab.lib.pagesizes import letter
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from corpus.cli import main
from corpus.config import Config, load_config
from corpus.inspection import BrokenPromise, describe_run
from corpus.linting import lint_run
from corpus.pipeline import BuildResult, build
from corpus.records import LedgerEntry, Page, Question, Rejected, Sample
from corpus.store import read_records
from corpus.vision_tokens import FAMILIES
from packing.lengths import Length, Utf8Bound, conversation_length
from trainer_plugin.dataset import PlanDataset

QUICK = ("parse.layout=fonts", "windows.min_tokens=1000", "synth.min_segment_pages=3", "synth.max_segment_pages=5")
WORDS = [
    "pump",
    "valve",
    "meter",
    "filter",
    "report",
    "council",
    "budget",
    "garden",
    "river",
    "bridge",
    "signal",
    "harbour",
    "winter",
    "summer",
    "copper",
]


def quick(*assignments: str) -> Config:
    return load_config(None, (*QUICK, *assignments))


def write_document(path: Path, seed: int, pages: int = 6, scanned: bool = False) -> Path:
    """A document of headings and paragraphs; scanned: its pages are images of text."""
    draw = random.Random(seed)
    canvas = Canvas(str(path), pagesize=letter, invariant=1)
    for page in range(pages):
        lines = [" ".join(draw.choices(WORDS, k=9)) for _ in range(12)]
        if scanned:
            image = Image.new("L", (1224, 1584), 255)
            pen = ImageDraw.Draw(image)
            for i, line in enumerate(lines):
                pen.text((120, 200 + 60 * i), line, fill=0, font_size=30)
            canvas.drawImage(ImageReader(image), 0, 0, 612, 792)
        else:
            canvas.setFont("Helvetica-Bold", 18)
            canvas.drawString(72, 700, f"Chapter {page + 1}: {draw.choice(WORDS)} {seed}")
            canvas.setFont("Helvetica", 11)
            for i, line in enumerate(lines):
                canvas.drawString(72, 660 - 14 * i, line)
        canvas.showPage()
    canvas.save()
    return path


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sound documents, a copy, a scan, and two that cannot be read."""
    folder = tmp_path_factory.mktemp("inputs")
    for seed in range(3):
        write_document(folder / f"sound-{seed}.pdf", seed, pages=6 + seed)
    shutil.copy(folder / "sound-0.pdf", folder / "twin.pdf")
    write_document(folder / "scan.pdf", seed=9, pages=2, scanned=True)
    (folder / "empty.pdf").write_bytes(b"")
    (folder / "text.pdf").write_text("no PDF at all")
    return folder


@pytest.fixture(scope="module")
def undisturbed(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BuildResult]:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    return out, build([str(inputs)], out, quick(), workers=2, quiet=True)


def promised_bytes(run: Path) -> dict[str, str]:
    """SHA-256 of everything that must not differ from run to run."""
    files = [*run.glob("shards/*"), *run.glob("plan/*"), *run.glob("pages/*"), *run.glob("questions/*")]
    files += [run / name for name in ("ledger.parquet", "samples.parquet", "rejected.parquet")]
    files += run.glob("mixture*")
    return {str(f.relative_to(run)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def by_name(run: Path) -> dict[str, LedgerEntry]:
    return {Path(e.uri).name: e for e in read_records(run / "ledger.parquet", LedgerEntry)}


def test_every_input_ends_once_with_a_reason(undisturbed: tuple[Path, BuildResult]) -> None:
    ends = {name: (e.status, e.stage, e.reason) for name, e in by_name(undisturbed[0]).items()}
    assert ends == {
        "sound-0.pdf": ("kept", "shard", ""),
        "sound-1.pdf": ("kept", "shard", ""),
        "sound-2.pdf": ("kept", "shard", ""),
        "twin.pdf": ("rejected", "ingest", "duplicate"),
        "scan.pdf": ("kept", "shard", ""),
        "empty.pdf": ("rejected", "ingest", "empty-file"),
        "text.pdf": ("rejected", "ingest", "not-a-pdf"),
    }


def test_a_duplicate_names_the_copy_that_was_kept(undisturbed: tuple[Path, BuildResult]) -> None:
    assert by_name(undisturbed[0])["twin.pdf"].detail.endswith("sound-0.pdf")


def test_pages_are_conserved(undisturbed: tuple[Path, BuildResult]) -> None:
    entries = by_name(undisturbed[0])
    assert sum(e.num_pages for e in entries.values()) == 6 + 7 + 8 + 6 + 2
    for e in entries.values():
        assert e.num_pages == e.window_pages + sum(x.num_pages for x in e.left_out)


def test_the_scan_is_read_by_ocr(undisturbed: tuple[Path, BuildResult]) -> None:
    assert by_name(undisturbed[0])["scan.pdf"].ocr_pages == 2


def test_pages_read_with_low_confidence_are_counted_and_named(
    undisturbed: tuple[Path, BuildResult], inputs: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed[0], run)
    pages = [p for f in run.glob("pages/*.parquet") for p in read_records(f, Page) if p.text_source == "ocr"]
    low, high = sorted(p.ocr_confidence for p in pages)
    assert 0.9 < low < high < 1 and describe_run(run)["pages"]["low_confidence"] == 0
    again = build([str(inputs)], run, quick(f"ocr.low_confidence={high}"), workers=1, quiet=True)
    assert not again.work.get("parse")  # it is a way of looking, not of reading
    assert describe_run(run)["pages"]["low_confidence"] == 1
    said = CliRunner().invoke(main, ["inspect", str(run)]).stdout
    assert "2 read by OCR (1 of them with low confidence)" in said
    assert describe_run(run)["pages"]["text"]["ocr: text-layer"] == 2
    assert "2 text from ocr: text-layer\n" in said and " text from layer: sound\n" in said
    assert "ocr: text-layer" in (run / "report.html").read_text()
    assert "pages read by OCR, 1 of them with low confidence" in (run / "report.html").read_text()
    sample = next(s for s in read_records(run / "samples.parquet", Sample) if s.doc_id == pages[0].doc_id)
    said = CliRunner().invoke(main, ["inspect", str(run), "--sample", sample.sample_id]).stdout
    assert "text from ocr, text-layer-of-0-characters\n" in said
    assert said.count(f"was read with low confidence: {low:.2f}") == 1


def test_lint_passes_and_then_sees_a_flipped_byte(undisturbed: tuple[Path, BuildResult], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed[0], run)
    assert set(lint_run(run)) == {"markers", "ledger", "shards", "index", "samples", "short", "mixture", "plan"}
    shard = next(run.glob("shards/*.tar"))
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    with pytest.raises(BrokenPromise, match=shard.name):
        lint_run(run)


def test_the_stock_webdataset_reads_every_window(undisturbed: tuple[Path, BuildResult]) -> None:
    run = undisturbed[0]
    shards = sorted(map(str, run.glob("shards/*.tar")))
    read = list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False))
    samples = read_records(run / "samples.parquet", Sample)
    assert {s["__key__"] for s in read} == {f"{s.doc_id}-w{s.window:02d}" for s in samples}
    for sample in read:
        about = json.loads(sample["json"])
        for page in about["pages"]:
            assert sample[page["name"]].startswith(b"\xff\xd8"), page


def test_every_sample_has_an_accepted_question_inside_its_window(undisturbed: tuple[Path, BuildResult]) -> None:
    run = undisturbed[0]
    questions = {q.question_id: q for f in run.glob("questions/*.parquet") for q in read_records(f, Question)}
    samples = read_records(run / "samples.parquet", Sample)
    assert len(samples) >= 10
    for sample in samples:
        (question,) = (questions[i] for i in sample.question_ids)
        assert question.accepted and question.task == sample.task
        assert all(0 <= e.page - sample.first_page < sample.num_pages for e in question.evidence)


def test_running_again_does_nothing(inputs: Path, undisturbed: tuple[Path, BuildResult]) -> None:
    before = promised_bytes(undisturbed[0])
    again = build([str(inputs)], undisturbed[0], quick(), workers=1, quiet=True)
    assert {k: v for k, v in again.work.items() if k != "ingest"} == {}
    assert again.work.get("ingest", 0) == 2  # what could not be read is looked at again
    assert promised_bytes(undisturbed[0]) == before


def test_the_number_of_workers_changes_no_byte(
    inputs: Path, undisturbed: tuple[Path, BuildResult], tmp_path: Path
) -> None:
    build([str(inputs)], tmp_path / "run", quick(), workers=1, quiet=True)
    assert promised_bytes(tmp_path / "run") == promised_bytes(undisturbed[0])


def started(run: Path, pattern: str) -> Callable[[], bool]:
    return lambda: any(run.glob(pattern))


KILL_MOMENTS = {
    "after ingest": ".state/ingest.parquet",
    "while parsing": ".state/parse/*.parquet",
    "after some questions": ".state/markers/questions-*.json",
    "while sharding": "shards/.*.tmp",
    "after some shards": ".state/markers/shards-*.json",
}


@pytest.mark.parametrize("moment", KILL_MOMENTS)
def test_a_killed_build_finishes_with_the_same_bytes(
    moment: str, inputs: Path, undisturbed: tuple[Path, BuildResult], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "corpus.cli", "build", str(inputs), "--out", str(run), "--workers", "2", "--quiet"]
    for assignment in QUICK:
        command += ["--set", assignment]
    process = subprocess.Popen(command, start_new_session=True)
    reached = started(run, KILL_MOMENTS[moment])
    deadline = time.monotonic() + 60
    while not reached() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    build([str(inputs)], run, quick(), workers=1, quiet=True)
    assert promised_bytes(run) == promised_bytes(undisturbed[0])
    assert not list(run.rglob("*.tmp"))
    lint_run(run)


def copy_of(undisturbed: tuple[Path, BuildResult], tmp_path: Path) -> Path:
    run = tmp_path / "run"
    shutil.copytree(undisturbed[0], run)
    return run


@pytest.mark.parametrize(
    ("assignment", "redone"),
    [
        ("packing.rows_per_step=2", {"plan"}),
        ("packing.cost.freeze=vision", {"plan"}),
        ("mixture.token_budget=60K", {"mixture", "plan"}),
        ("mixture.questions_per_window=3", {"mixture", "plan"}),
        ("packing.validation_share=0.9", {"mixture"}),  # every document is held out: nothing to plan
        ("mixture.samples_per_window=99", {"mixture"}),  # the same mixture comes out, so no plan follows
        ("workers.timeout_s=500", set()),
        ("windows.max_tokens=120000", {"windows"}),  # the same windows come out, so nothing follows
        ("windows.max_tokens=12000", {"windows", "shard", "mixture", "plan"}),
        ("messages.page_labels=false", {"windows", "mixture", "plan"}),
        ("render.quality=80", {"shard"}),
        ("model=qwen3-vl", {"windows", "shard", "mixture", "plan"}),
        ("synth.questions_per_segment=2", {"synthesise", "windows", "shard", "mixture", "plan"}),
    ],
)
def test_a_changed_setting_redoes_only_what_depends_on_it(
    assignment: str, redone: set[str], inputs: Path, undisturbed: tuple[Path, BuildResult], tmp_path: Path
) -> None:
    run = copy_of(undisturbed, tmp_path)
    result = build([str(inputs)], run, quick(assignment), workers=1, quiet=True)
    assert {stage for stage, n in result.work.items() if n and stage != "ingest"} == redone
    lint_run(run)


def test_an_added_document_is_the_only_one_parsed(
    inputs: Path, undisturbed: tuple[Path, BuildResult], tmp_path: Path
) -> None:
    run = copy_of(undisturbed, tmp_path)
    more = tmp_path / "more"
    more.mkdir()
    write_document(more / "new.pdf", seed=77)
    result = build([str(inputs), str(more)], run, quick(), workers=1, quiet=True)
    assert (result.work["parse"], result.work["synthesise"], result.work["shard"]) == (1, 1, 1)
    assert by_name(run)["new.pdf"].status == "kept"
    fresh = tmp_path / "fresh"
    build([str(inputs), str(more)], fresh, quick(), workers=1, quiet=True)
    assert promised_bytes(run) == promised_bytes(fresh)


def test_a_removed_document_leaves_no_trace(
    inputs: Path, undisturbed: tuple[Path, BuildResult], tmp_path: Path
) -> None:
    run = copy_of(undisturbed, tmp_path)
    only = [str(inputs / "sound-1.pdf")]
    build(only, run, quick(), workers=1, quiet=True)
    assert list(by_name(run)) == ["sound-1.pdf"]
    build(only, tmp_path / "fresh", quick(), workers=1, quiet=True)
    assert promised_bytes(run) == promised_bytes(tmp_path / "fresh")
    lint_run(run)


def test_until_stops_there_and_a_later_build_goes_on(inputs: Path, tmp_path: Path) -> None:
    source = [str(inputs / "sound-0.pdf")]
    first = build(source, tmp_path / "run", quick(), until="parse", quiet=True)
    assert [e.stage for e in first.ledger] == ["parse"] and not (tmp_path / "run" / "shards").exists()
    second = build(source, tmp_path / "run", quick(), quiet=True)
    assert second.work.get("parse", 0) == 0 and second.num_samples > 0


def test_limit_takes_the_first_inputs(inputs: Path, tmp_path: Path) -> None:
    result = build([str(inputs)], tmp_path / "run", quick(), limit=2, until="ingest", quiet=True)
    assert [Path(e.uri).name for e in result.ledger] == ["empty.pdf", "scan.pdf"]


def test_a_manifest_carries_its_fields_into_ledger_and_shards(inputs: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.jsonl"
    row = {"uri": os.path.relpath(inputs / "sound-0.pdf", tmp_path), "license": "CC0-1.0", "title": "A title"}
    manifest.write_text(json.dumps({**row, "language": "en", "source": "archive"}) + "\n")
    build([str(manifest)], tmp_path / "run", quick(), quiet=True)
    (entry,) = by_name(tmp_path / "run").values()
    assert (entry.license, entry.title, entry.language, entry.source) == ("CC0-1.0", "A title", "en", "archive")
    (sample,) = webdataset.WebDataset(str(next((tmp_path / "run").glob("shards/*.tar"))), shardshuffle=False)
    assert json.loads(sample["json"])["license"] == "CC0-1.0"
    assert str(inputs).encode() not in sample["json"]  # no path of the building machine


def test_own_questions_replace_the_written_ones(inputs: Path, tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    rows = [
        {"uri": "sound-0.pdf", "question": "Which words?", "answer": "these", "pages": [2]},
        {"uri": "sound-0.pdf", "question": "How many?", "answer": 7, "pages": [2, 4], "task": "reasoning"},
        {"uri": "sound-0.pdf", "question": "Nowhere?", "answer": "Not answerable", "pages": []},
        {"uri": "sound-0.pdf", "question": "Too far?", "answer": "x", "pages": [99]},
        {"uri": "elsewhere.pdf", "question": "Who?", "answer": "x", "pages": [1]},
    ]
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    config = quick("synth.backend=file", f"synth.files=['{file}']")
    result = build([str(inputs / "sound-0.pdf")], tmp_path / "run", config, quiet=True)
    assert result.num_samples == 3
    reasons = pq.read_table(tmp_path / "run" / "rejected.parquet")["reason"].to_pylist()
    assert sorted(reasons) == ["page-outside-document", "unknown-document"]


def test_a_document_that_changes_during_the_build_is_rejected(inputs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(inputs / "sound-0.pdf", folder)
    shutil.copy(inputs / "sound-1.pdf", folder)
    run = tmp_path / "run"
    build([str(folder)], run, quick(), until="synthesise", quiet=True)
    changed = folder / "sound-1.pdf"
    stat = changed.stat()
    data = bytearray(changed.read_bytes())
    data[-20] ^= 1
    changed.write_bytes(data)
    os.utime(changed, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # the cache cannot see it; the digest does
    build([str(folder)], run, quick(), quiet=True)
    entries = by_name(run)
    assert (entries["sound-0.pdf"].status, entries["sound-1.pdf"].reason) == ("kept", "source-changed")
    lint_run(run)


def test_documents_that_fail_after_ingest_are_rejected_and_tried_again(inputs: Path, tmp_path: Path) -> None:
    """One such document may be all of its partition; a password that comes later opens it."""
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(inputs / "sound-0.pdf", folder)
    for i in range(4):
        canvas = Canvas(str(folder / f"locked-{i}.pdf"), pagesize=letter, encrypt="secret", invariant=1)
        for page in range(4):
            for line in range(30):
                canvas.drawString(72, 700 - 14 * line, f"document {i}, page {page}, line {line} of the minutes")
            canvas.showPage()
        canvas.save()
    run = tmp_path / "run"
    build([str(folder)], run, quick(), until="ingest", password="secret", quiet=True)
    build([str(folder)], run, quick(), workers=1, quiet=True)
    assert Counter(e.reason for e in by_name(run).values()) == {"": 1, "encrypted": 4}
    lint_run(run)
    build([str(folder)], run, quick(), workers=1, password="secret", quiet=True)
    assert Counter(e.reason for e in by_name(run).values()) == {"": 5}
    assert "secret" not in (run / "run.json").read_text()
    lint_run(run)


def test_what_a_killed_build_left_of_documents_now_gone_is_removed(
    inputs: Path, undisturbed: tuple[Path, BuildResult], tmp_path: Path
) -> None:
    run = copy_of(undisturbed, tmp_path)
    for marker in run.glob(".state/markers/shards-*.json"):  # as a kill in the shard stage leaves them
        marker.unlink()
    only = [str(inputs / "sound-1.pdf")]
    build(only, run, quick(), quiet=True)
    lint_run(run)
    build(only, tmp_path / "fresh", quick(), quiet=True)
    assert promised_bytes(run) == promised_bytes(tmp_path / "fresh")


def test_what_a_manifest_says_wins_over_the_bare_path(inputs: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(json.dumps({"uri": str(inputs / "sound-0.pdf"), "license": "MIT"}) + "\n")
    result = build([str(inputs / "sound-0.pdf"), str(manifest)], tmp_path / "run", quick(), until="ingest", quiet=True)
    assert [e.license for e in result.ledger] == ["MIT"]


def test_nothing_kept_is_still_a_complete_run(inputs: Path, tmp_path: Path) -> None:
    result = build([str(inputs / "empty.pdf")], tmp_path / "run", quick(), quiet=True)
    assert result.plan == "" and result.num_samples == 0
    lint_run(tmp_path / "run")
    assert (tmp_path / "run" / "report.html").is_file()


def test_questions_of_a_window_become_turns_that_a_trainer_reads(
    inputs: Path, undisturbed: tuple[Path, BuildResult], tmp_path: Path
) -> None:
    run = copy_of(undisturbed, tmp_path)
    config = quick("mixture.questions_per_window=2", "mixture.epochs=2", "mixture.tasks=null")
    build([str(inputs)], run, config, workers=1, quiet=True)
    dataset = PlanDataset(run)
    loaded = [sample for row in dataset for sample in row]
    pool = [s for s in read_records(run / "samples.parquet", Sample) if s.split == "train"]
    asked = Counter(q for s in loaded for q in s.sample.question_ids)
    assert asked == {s.question_ids[0]: 2 for s in pool}
    several = [s for s in loaded if len(s.sample.question_ids) == 2]
    assert len(several) >= 10
    for sample in loaded:
        assert [m["role"] for m in sample.messages] == ["user", "assistant"] * len(sample.sample.question_ids)
        whole = conversation_length(sample.messages, sample.sample.grids, FAMILIES["qwen2.5-vl"], Utf8Bound())
        facts = sample.sample
        promised = Length(
            num_tokens=facts.num_tokens,
            num_patches=facts.num_patches,
            num_supervised=facts.num_supervised,
            patch_pairs=facts.patch_pairs,
        )
        assert whole == promised
    said = CliRunner().invoke(main, ["inspect", str(run), "--sample", several[0].sample.sample_id]).stdout
    assert said.count("\nQ ") == 2
    lint_run(run)


def test_a_mixture_says_what_it_lacks_before_it_is_written(
    inputs: Path, undisturbed: tuple[Path, BuildResult], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(undisturbed, tmp_path)
    result = build([str(inputs)], run, quick("mixture.token_budget=5B", "mixture.tasks={ocr-full: 1, no-such: 1}"))
    assert "50.0 % should be no-such and there is no such question" in result.mixture
    said = capfd.readouterr().err
    assert "  ! mixture.token_budget is 5,000,000,000 and " in said and "ocr-full" in said
    report = json.loads((run / "mixture.json").read_text())
    assert report["shortfalls"][0].startswith("50.0 % should be no-such") and report["epochs"] == 1
    assert all(s in (run / "report.html").read_text() for s in report["shortfalls"])
    shown = CliRunner().invoke(main, ["inspect", str(run)]).stdout
    assert all(s in shown for s in report["shortfalls"])
    left_out = read_records(run / "mixture.left_out.parquet", Rejected)
    assert {r.reason for r in left_out} == {"task-not-asked"} and {r.stage for r in left_out} == {"mixture"}
    planned = {s.sample.task for row in PlanDataset(run) for s in row}
    assert planned == {"ocr-full"}
    refused = quick("mixture.lengths={1K: 1, 128K: 1}", "mixture.token_budget=1")
    assert build([str(inputs)], run, refused, quiet=True).plan == ""  # too small a budget: no sample, no plan
    lint_run(run)
