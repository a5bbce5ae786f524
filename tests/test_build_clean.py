"""Clean corpora over whole builds: what is refused, why, what follows from it, and that nothing else is redone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import webdataset
from reportlab.lib.pagesizes import letter
from reportlab.pdfgen.canvas import Canvas
from test_build import QUICK, by_name, promised_bytes, quick, started, write_document

from corpus.inspection import describe_run
from corpus.linting import lint_run
from corpus.pipeline import build
from corpus.records import Question, Sample
from corpus.render import open_pdf, pymupdf
from corpus.store import file_sha256, read_records

NO_OCR = "ocr.engine=none"
ENGLISH = "The pump must be switched off before the filter is cleaned and the valve is closed by hand in step {i}."
GERMAN = "Die Pumpe muss vor der Reinigung des Filters in Schritt {i} abgeschaltet und das Ventil geschlossen werden."


def resaved(source: Path, out: Path, pages: int | None = None, crop: float = 0.0) -> Path:
    """A copy with other bytes: the first pages, cut by a share of every side."""
    with open_pdf(source) as pdf, pymupdf.open() as copy:
        copy.insert_pdf(pdf, to_page=(pages or len(pdf)) - 1)
        for page in copy:
            x, y = crop * page.rect.width, crop * page.rect.height
            page.set_cropbox(pymupdf.Rect(x, y, page.rect.width - x, page.rect.height - y))
        copy.save(out, garbage=4, deflate=True, no_new_id=True)
    return out


def reasons(run: Path) -> dict[str, str]:
    return {name: f"{e.stage}: {e.reason}" if e.reason else "" for name, e in by_name(run).items()}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two documents, a copy of the one, and a scan with its copy."""
    folder = tmp_path_factory.mktemp("library")
    write_document(folder / "a.pdf", seed=1, pages=6)
    write_document(folder / "b.pdf", seed=2, pages=6)
    resaved(folder / "a.pdf", folder / "a-copy.pdf")
    write_document(folder / "scan.pdf", seed=9, pages=3, scanned=True)
    resaved(folder / "scan.pdf", folder / "scan-copy.pdf", crop=0.02)
    return folder


@pytest.fixture(scope="module")
def cleaned(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("cleaned") / "run"
    build([str(library)], run, quick(NO_OCR), workers=2, quiet=True)
    return run


def test_of_copies_one_stays_and_the_other_names_it(cleaned: Path, library: Path) -> None:
    ends = by_name(cleaned)
    kept = {name for name, e in ends.items() if not e.reason.startswith("near")}
    assert len(kept) == 3 and "b.pdf" in kept
    for pair in ({"a.pdf", "a-copy.pdf"}, {"scan.pdf", "scan-copy.pdf"}):
        (gone,), (stays,) = pair - kept, pair & kept
        entry = ends[gone]
        assert (entry.stage, entry.reason) == ("clean", "near-duplicate")
        assert entry.detail == (
            f"{entry.num_pages} of {entry.num_pages} recognisable pages are those of {library / stays} "
            f"({ends[stays].doc_id}), which is kept"
        )
        assert ends[stays].num_bytes >= entry.num_bytes
        assert sum(x.num_pages for x in entry.left_out) == entry.num_pages


def test_later_stages_do_not_see_what_was_refused(cleaned: Path) -> None:
    gone = {e.doc_id for e in by_name(cleaned).values() if e.reason == "near-duplicate"}
    asked = {q.doc_id for f in cleaned.glob("questions/*.parquet") for q in read_records(f, Question)}
    sampled = {s.doc_id for s in read_records(cleaned / "samples.parquet", Sample)}
    assert len(gone) == 2 and asked and sampled
    assert gone.isdisjoint(asked | sampled)
    lint_run(cleaned)


def test_the_report_and_inspect_say_what_matched_what(cleaned: Path) -> None:
    assert {m["reason"] for m in describe_run(cleaned)["matched"]} == {"near-duplicate"}
    report = (cleaned / "report.html").read_text()
    assert "Kept out for what they match" in report and "which is kept" in report


def test_neither_workers_nor_the_order_of_inputs_change_the_choice(
    cleaned: Path, library: Path, tmp_path: Path
) -> None:
    inputs = sorted(map(str, library.glob("*.pdf")), reverse=True)
    build(inputs, tmp_path / "run", quick(NO_OCR), workers=1, quiet=True)
    assert promised_bytes(tmp_path / "run") == promised_bytes(cleaned)


def test_running_again_does_nothing(cleaned: Path, library: Path) -> None:
    result = build([str(library)], cleaned, quick(NO_OCR), quiet=True)
    assert not any(result.work.values())


def test_a_copy_comes_back_when_the_better_one_goes(cleaned: Path, library: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(cleaned, run)
    better = next(n for n in ("a.pdf", "a-copy.pdf") if not by_name(run)[n].reason)
    left = sorted(str(f) for f in library.glob("*.pdf") if f.name != better)
    result = build(left, run, quick(NO_OCR), quiet=True)
    assert not result.work.get("parse")
    assert len(left) == 4 and list(reasons(run).values()).count("clean: near-duplicate") == 1
    build(left, tmp_path / "fresh", quick(NO_OCR), quiet=True)
    assert promised_bytes(run) == promised_bytes(tmp_path / "fresh")


def test_an_added_better_copy_takes_the_place_of_the_old_one(cleaned: Path, library: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(cleaned, run)
    with open_pdf(library / "b.pdf") as pdf:
        pdf.new_page()  # blank, and one page more than the copy has
        pdf.save(tmp_path / "longer.pdf", no_new_id=True)
    inputs = [str(library), str(tmp_path / "longer.pdf")]
    result = build(inputs, run, quick(NO_OCR), quiet=True)
    assert result.work["parse"] == 1
    assert (reasons(run)["longer.pdf"], reasons(run)["b.pdf"]) == ("", "clean: near-duplicate")
    build(inputs, tmp_path / "fresh", quick(NO_OCR), quiet=True)
    assert promised_bytes(run) == promised_bytes(tmp_path / "fresh")


def test_near_duplicates_may_stay(cleaned: Path, library: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(cleaned, run)
    result = build([str(library)], run, quick(NO_OCR, "clean.near_duplicates=false"), quiet=True)
    assert "clean: near-duplicate" not in reasons(run).values() and not result.work.get("parse")


CLEAN_MOMENTS = {
    "while sketching": ".state/markers/sketches-*.json",
    "while matching": ".state/markers/matches-*.json",
    "after the choice": ".state/markers/duplicates-all.json",
}


@pytest.mark.parametrize("moment", CLEAN_MOMENTS)
def test_a_build_killed_here_finishes_with_the_same_bytes(moment: str, library: Path, tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    resaved(library / "b.pdf", tmp_path / "bench" / "b.pdf", pages=3)
    settings = (NO_OCR, f"clean.decontaminate={tmp_path / 'bench'}")
    run = tmp_path / "run"
    command = [sys.executable, "-m", "corpus.cli", "build", str(library), "--out", str(run), "--quiet"]
    for assignment in (*QUICK, *settings):
        command += ["--set", assignment]
    process = subprocess.Popen(command, start_new_session=True)
    reached = started(run, CLEAN_MOMENTS[moment])
    deadline = time.monotonic() + 120
    while not reached() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    build([str(library)], run, quick(*settings), quiet=True)
    build([str(library)], tmp_path / "fresh", quick(*settings), quiet=True)
    assert promised_bytes(run) == promised_bytes(tmp_path / "fresh")
    assert reasons(run)["b.pdf"] == "clean: contaminated"
    lint_run(run)


def benchmark_of(library: Path, folder: Path) -> Path:
    folder.mkdir()
    for name in ("a", "scan"):
        shutil.copy(library / f"{name}.pdf", folder)
    return folder


@pytest.mark.parametrize("shared_as", ["folder", "list"])
def test_copies_of_a_benchmark_are_kept_out(
    shared_as: str, library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark = benchmark_of(library, tmp_path / "benchmark")
    if shared_as == "list":
        listed = subprocess.run(
            [sys.executable, "-m", "corpus.cli", "fingerprint", str(benchmark)],
            capture_output=True,
            text=True,
            check=True,
        )
        benchmark = tmp_path / "hashes.txt"
        benchmark.write_text(listed.stdout)
    inputs = tmp_path / "in"
    inputs.mkdir()
    shutil.copy(library / "a.pdf", inputs / "same.pdf")
    resaved(library / "a.pdf", inputs / "half.pdf", pages=3)
    resaved(library / "a.pdf", inputs / "cropped.pdf", crop=0.08)
    resaved(library / "scan.pdf", inputs / "scan-cropped.pdf", crop=0.1)
    shutil.copy(library / "b.pdf", inputs / "unrelated.pdf")
    run = tmp_path / "run"
    result = build([str(inputs)], run, quick(NO_OCR, f"clean.decontaminate={benchmark}"), quiet=True)
    assert reasons(run) == {
        **dict.fromkeys(["same.pdf", "half.pdf", "cropped.pdf", "scan-cropped.pdf"], "clean: contaminated"),
        "unrelated.pdf": "",
    }
    details = {name: e.detail for name, e in by_name(run).items()}
    assert details["same.pdf"] == "same bytes as benchmark document a.pdf"
    assert details["half.pdf"] == "3 of 3 recognisable pages show 3 of the 6 of benchmark document a.pdf"
    assert details["scan-cropped.pdf"].endswith("benchmark document scan.pdf")
    assert result.work["clean"] > 0
    again = build([str(inputs)], run, quick(NO_OCR, f"clean.decontaminate={benchmark}"), quiet=True)
    assert not any(again.work.values())
    build([str(inputs)], run, quick(NO_OCR), quiet=True)
    assert [r for r in reasons(run).values() if "contaminated" in r] == []


def test_a_benchmark_that_cannot_be_read_is_said(library: Path, tmp_path: Path) -> None:
    bench = tmp_path / "bench"
    bench.mkdir()
    (bench / "broken.pdf").write_text("no PDF at all")
    settings = quick(NO_OCR, f"clean.decontaminate={bench}")
    build([str(library / "b.pdf")], tmp_path / "run", settings, until="clean", quiet=True)
    (row,) = pq.read_table(tmp_path / "run" / "rejected.parquet").to_pylist()
    assert (row["id"], row["stage"], row["reason"]) == ("broken.pdf", "clean", "benchmark-unreadable")
    assert row["detail"].startswith("not-a-pdf")


def test_questions_of_a_benchmark_are_refused_and_their_document_stays(library: Path, tmp_path: Path) -> None:
    asked = "What is the total of all pumps that were repaired in the garden in winter?"
    own, bench = tmp_path / "own.jsonl", tmp_path / "bench.json"
    rows = [
        {"uri": "b.pdf", "question": f"{asked} Write digits.", "answer": 7, "pages": [2]},
        {"uri": "b.pdf", "question": "Which words stand at the top?", "answer": "these", "pages": [3]},
        {"uri": "a.pdf", "question": "Gone?", "answer": "x", "pages": [1]},
    ]
    own.write_text("".join(json.dumps(r) + "\n" for r in rows))
    bench.write_text(json.dumps([{"question": asked, "answer": "12"}]))
    digest = file_sha256(library / "a.pdf")
    config = quick(NO_OCR, "synth.backend=file", f"synth.files={own}", f"clean.decontaminate=['{bench}', {digest}]")
    result = build([str(library / "a.pdf"), str(library / "b.pdf")], tmp_path / "run", config, quiet=True)
    assert result.num_samples == 1
    refused = {r["reason"]: r for r in pq.read_table(tmp_path / "run" / "rejected.parquet").to_pylist()}
    assert set(refused) == {"contaminated", "benchmark-question", "document-rejected"}
    assert refused["benchmark-question"]["detail"] == "100% of the word runs of the question of bench.json:1"
    assert refused["document-rejected"]["detail"].endswith("was rejected; see ledger.parquet")
    assert "bench.json:1" in (tmp_path / "run" / "report.html").read_text()


def written(path: Path, sentence: str) -> Path:
    canvas = Canvas(str(path), pagesize=letter, invariant=1)
    for page in range(6):
        canvas.setFont("Helvetica-Bold", 18)
        canvas.drawString(72, 720, f"Part {page + 1} of {path.stem}")
        canvas.setFont("Helvetica", 10)
        for line in range(20):
            canvas.drawString(72, 690 - 14 * line, sentence.replace("{i}", str(100 * page + line)))
        canvas.showPage()
    canvas.save()
    return path


@pytest.fixture(scope="module")
def languages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("languages")
    written(folder / "english.pdf", ENGLISH)
    written(folder / "german.pdf", GERMAN)
    written(folder / "stated.pdf", GERMAN + " Ende.")
    rows = [
        {"uri": "english.pdf", "license": "CC-BY-4.0", "source": "archive"},
        {"uri": "german.pdf"},
        {"uri": "stated.pdf", "license": "MIT", "language": "en-GB"},
    ]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def test_a_language_that_nobody_stated_is_detected_and_carried_into_the_shards(languages: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    build([str(languages / "manifest.jsonl")], run, quick(NO_OCR), quiet=True)
    said = {name: (e.language, e.language_source) for name, e in by_name(run).items()}
    expected = {
        "english.pdf": ("en", "detected"),
        "german.pdf": ("de", "detected"),
        "stated.pdf": ("en-GB", "manifest"),
    }
    assert said == expected
    about = [
        json.loads(s["json"])
        for shard in sorted(run.glob("shards/*.tar"))
        for s in webdataset.WebDataset(str(shard), shardshuffle=False)
    ]
    assert sorted((a["language"], a["language_source"], a["license"], a["source"]) for a in about) == [
        ("de", "detected", "", ""),
        ("en", "detected", "CC-BY-4.0", "archive"),
        ("en-GB", "manifest", "MIT", ""),
    ]


@pytest.mark.parametrize(
    ("setting", "ends"),
    [
        ("ingest.languages=[EN]", {"german.pdf": ("clean", "language", "'de', ingest.languages = ['EN']")}),
        (
            "ingest.languages=de",
            {
                "english.pdf": ("clean", "language", "'en', ingest.languages = ['de']"),
                "stated.pdf": ("ingest", "language", "'en-GB', ingest.languages = ['de']"),
            },
        ),
        (
            "ingest.licenses=[cc-by-*]",
            {
                "german.pdf": ("ingest", "license", "no licence stated, ingest.licenses = ['cc-by-*']"),
                "stated.pdf": ("ingest", "license", "'MIT', ingest.licenses = ['cc-by-*']"),
            },
        ),
    ],
)
def test_filters_name_the_value_and_the_setting(
    setting: str, ends: dict[str, tuple[str, str, str]], languages: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    build([str(languages / "manifest.jsonl")], run, quick(NO_OCR, setting), until="clean", quiet=True)
    assert {n: (e.stage, e.reason, e.detail) for n, e in by_name(run).items() if e.reason} == ends


def test_a_document_without_text_has_no_language_and_passes_no_filter(library: Path, tmp_path: Path) -> None:
    for setting, expected in (("ingest.languages=[]", ""), ("ingest.languages=en", "clean: language")):
        inputs = [str(library / "scan.pdf")]
        build(inputs, tmp_path / "run", quick(NO_OCR, setting), until="clean", quiet=True)
        assert reasons(tmp_path / "run") == {"scan.pdf": expected}
    assert by_name(tmp_path / "run")["scan.pdf"].detail == "unknown, ingest.languages = ['en']"
