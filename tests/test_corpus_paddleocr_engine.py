"""The real PaddleOCR, offline: it reads a page right, and a whole build of a scan goes through it.

Needs an environment that `make test-engines` sets up; without it everything here is skipped.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from rapidfuzz.distance import Levenshtein
from test_build import quick

from corpus.cli import main
from corpus.config import OcrSettings
from corpus.linting import lint_run
from corpus.ocr import mean_confidence
from corpus.ocr_languages import LANGUAGES
from corpus.paddle import PaddleOcr
from corpus.pipeline import build
from corpus.records import Page, PageGrid
from corpus.render import open_pdf, pymupdf, render
from corpus.store import read_records

ROOT = Path(__file__).parent.parent
ENVIRONMENT = ROOT / ".venv-paddle"
PYTHON, MODELS = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "models"
SCAN = ROOT / "examples" / "documents" / "scanned-minutes.pdf"
PRINTED = """TOWN COUNCIL OF HARLOW FERRY
Minutes of the Regular Meeting of February 13, 2024
PRESENT: Mayor Eleanor Whitcombe; Members Samuel Ortega, Judith Kessel,
Martin Boyle, Priya Raman, Douglas Finch, Alma Tucker; Town Clerk Rosalind
Peake; Town Attorney Theodore Lunt; Treasurer Howard Amsel.
1. Call to Order
The meeting was called to order at 7:03 p.m. by Mayor Whitcombe. The Clerk called
the roll and found that 7 of seven voting members were present.
2. Approval of Minutes
Members had received the minutes of the previous meeting by mail. There were no
objections and, moved by Member Kessel and seconded by Member Tucker, they
were approved.""".splitlines()  # the upper part of the third page

pytestmark = pytest.mark.skipif(
    not (ENVIRONMENT / "installed").is_file(), reason="PaddleOCR is not set up: run `make test-engines`"
)


@pytest.fixture(scope="module")
def engine() -> Iterator[PaddleOcr]:
    made = PaddleOcr(OcrSettings(engine="paddleocr", python=str(PYTHON), models=str(MODELS)))
    yield made
    made.close()


@pytest.fixture(scope="module")
def page() -> np.ndarray:
    with open_pdf(SCAN) as pdf:
        rect = pdf[2].rect
        return np.asarray(render(pdf[2], PageGrid(height=round(rect.height * 2), width=round(rect.width * 2))))


def test_a_scanned_page_is_read_right(engine: PaddleOcr, page: np.ndarray) -> None:
    lines = engine.read(page)
    wrong = sum(Levenshtein.distance(a, b.text) for a, b in zip(PRINTED, lines, strict=False))
    assert wrong <= 3  # of 674 characters
    assert mean_confidence(lines) > 0.95
    for above, below in zip(lines[:8], lines[1:9], strict=True):
        assert 0 <= above.box[0] < above.box[2] <= page.shape[1]
        assert above.box[1] < below.box[1] and above.box[3] < below.box[3]
    dark = [page[int(y0) : int(y1), int(x0) : int(x1)].min() for x0, y0, x1, y1 in (line.box for line in lines)]
    assert max(dark) < 160  # every box holds ink


def test_a_page_on_its_head_is_read_right(engine: PaddleOcr, page: np.ndarray) -> None:
    upper = page[: page.shape[0] // 3]
    lines = engine.read(np.ascontiguousarray(upper[::-1, ::-1]))
    assert lines[0].text == PRINTED[0]
    assert lines[0].box[1] > upper.shape[0] / 2  # where it stands on the page


def test_a_blank_page_has_no_lines(engine: PaddleOcr) -> None:
    assert engine.read(np.full((200, 300, 3), 255, np.uint8)) == []


def test_a_scan_becomes_a_corpus(tmp_path: Path) -> None:
    with open_pdf(SCAN) as pdf, pymupdf.open() as few:
        few.insert_pdf(pdf, from_page=2, to_page=5)
        few.save(tmp_path / "few.pdf")
    config = quick("ocr.engine=paddleocr", f"ocr.python={PYTHON}", f"ocr.models={MODELS}")
    run = tmp_path / "run"
    result = build([str(tmp_path / "few.pdf")], run, config, workers=2, quiet=True)
    lint_run(run)
    assert [(e.status, e.ocr_pages) for e in result.ledger] == [("kept", 4)]
    pages = [p for f in run.glob("pages/*.parquet") for p in read_records(f, Page)]
    assert [p.text_source for p in pages] == ["ocr"] * 4
    assert PRINTED[1] in pages[0].text.splitlines()
    assert all(p.ocr_confidence > 0.9 for p in pages)
    assert all(b.line_confidences for p in pages for b in p.blocks)
    assert json.loads((run / "run.json").read_text())["versions"]["ocr"].startswith("paddleocr 3.")
    again = build([str(tmp_path / "few.pdf")], run, config, workers=2, quiet=True)
    assert not any(again.work.values())


def test_the_doctor_finds_it() -> None:
    arguments = ["doctor", "--json", "--set", f"ocr.python={PYTHON}", "--set", f"ocr.models={MODELS}"]
    checks = {c["name"]: c for c in json.loads(CliRunner().invoke(main, arguments).stdout)}
    assert checks["paddleocr"]["usable"], checks["paddleocr"]["found"]


def test_every_language_is_one_of_paddleocr() -> None:
    code = (
        "import json, sys\nfrom paddleocr import PaddleOCR\n"
        "print(json.dumps([PaddleOCR._get_ocr_model_names(None, name, None)[1] for name in json.loads(sys.argv[1])]))"
    )
    names = list(LANGUAGES["paddleocr"].values())
    found = subprocess.run([PYTHON, "-I", "-c", code, json.dumps(names)], capture_output=True, text=True, check=True)
    models = json.loads(found.stdout.splitlines()[-1])
    assert len(models) == len(names) > 60
    assert all(models), dict(zip(names, models, strict=True))
