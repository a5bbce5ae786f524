"""The report and `corpus inspect` say which pages no window holds, and why."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from corpus.cli import main
from corpus.config import Config
from corpus.inspection import describe_run
from corpus.records import LedgerEntry, LeftOut
from corpus.report import write_report
from corpus.store import write_json, write_records


def entry(left_out: tuple[LeftOut, ...]) -> LedgerEntry:
    pages = 40 + sum(x.num_pages for x in left_out)
    return LedgerEntry(
        uri="/docs/a.pdf",
        doc_id="0123456789abcdef",
        status="kept",
        stage="shard",
        reason="",
        detail="",
        num_pages=pages,
        window_pages=40,
        left_out=left_out,
        num_bytes=1,
        num_windows=1,
        num_questions=1,
        num_tokens=100_000,
        ocr_pages=0,
        title="",
        language="",
        license="",
        source="",
        language_source="",
    )


def make_run(folder: Path, left_out: tuple[LeftOut, ...]) -> Path:
    """As much of a run as its report needs."""
    folder.mkdir()
    about = {
        "complete": True,
        "until": "report",
        "config": Config().model_dump(mode="json"),
        "versions": {"longdoc": "1"},
    }
    write_json(folder / "run.json", {**about, "seconds": {}, "num_partitions": 1, "work": {}, "spent": {}})
    write_records(folder / "ledger.parquet", LedgerEntry, [entry(left_out)])
    return folder


LEFT_OUT = (
    LeftOut(first_page=0, num_pages=3, reason="too-short"),
    LeftOut(first_page=20, num_pages=1, reason="render-failed: page 21: <b>broken</b>"),
    LeftOut(first_page=30, num_pages=2, reason="too-short"),
    LeftOut(first_page=40, num_pages=1, reason="page-too-long"),
)


def test_pages_left_out_are_counted_by_reason_and_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", LEFT_OUT)
    assert describe_run(run)["pages"]["left_out"] == {"too-short": 5, "render-failed": 1, "page-too-long": 1}
    shown = CliRunner().invoke(main, ["inspect", str(run)]).stdout.splitlines()
    assert [line.split() for line in shown if "left out" in line] == [
        ["5", "left", "out", "too-short"],
        ["1", "left", "out", "render-failed"],
        ["1", "left", "out", "page-too-long"],
    ]
    write_report(run)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "pages 1-3 too-short; page 21 render-failed; pages 31-32 too-short; page 41 page-too-long<" in page


@pytest.mark.parametrize(("num", "more"), [(4, ""), (5, "; 1 more in ledger.parquet")])
def test_a_long_list_of_pages_is_cut_short(tmp_path: Path, num: int, more: str) -> None:
    runs = tuple(LeftOut(first_page=2 * i, num_pages=1, reason="too-short") for i in range(num))
    run = make_run(tmp_path / "run", runs)
    write_report(run)
    assert f"page 7 too-short{more}<" in (run / "report.html").read_text(encoding="utf-8")
