"""Real small PDFs to pages: whichever way a page can be read, it keeps its place and says how it was read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import document, picture_of
from reportlab.pdfgen.canvas import Canvas

from corpus import parse
from corpus.blocks import layer_blocks
from corpus.config import OcrSettings, ParseSettings
from corpus.errors import DocumentError
from corpus.layout import PageLayout
from corpus.ocr import OcrLine
from corpus.parse import JoinJob, ParseJob, join_partition, parse_pages, read_layout
from corpus.records import Document, Page, PageGrid
from corpus.render import count_pages, open_pdf, render
from corpus.store import file_sha256, read_records
from corpus.tables import strict_tables
from corpus.text_layer import Verdict

MakePdf = Callable[..., Path]

FONTS = ParseSettings(layout="fonts")
NO_OCR = OcrSettings(engine="none")
REPORT = Path(__file__).parent.parent / "examples" / "documents" / "annual-report.pdf"
TABLE_PAGE = 15  # one table and one figure, with captions


def of_file(path: Path) -> Document:
    return document(sha256=file_sha256(path), uri=str(path), num_pages=count_pages(path), num_bytes=path.stat().st_size)


def piece(source: Document, first: int, count: int, settings: ParseSettings, ocr: OcrSettings, **more: Any) -> Path:
    """A run of pages, parsed into a file beside the document."""
    out = Path(source.uri).with_suffix(f".{first}.parquet")
    progress = more.pop("progress", lambda _: None)
    password = more.pop("password", None)
    job = ParseJob(
        document=source, first_page=first, num_pages=count, parse=settings, ocr=ocr, password=password, out=out
    )
    parse_pages(job, progress)
    return out


def joined(*sources: Document, pieces: dict[str, tuple[Path, ...]], password: str | None = None) -> Any:
    """(what joining says, the pages of the partition)"""
    out = Path(sources[0].uri).with_suffix(".joined.parquet")
    said = join_partition(JoinJob(documents=sources, pieces=pieces, password=password, out=out), lambda _: None)
    return said, read_records(out, Page)


def parsed(path: Path, settings: ParseSettings = FONTS, ocr: OcrSettings = NO_OCR) -> list[Page]:
    """Every page of a document, as a build has it."""
    source = of_file(path)
    whole = piece(source, 0, source.num_pages, settings, ocr)
    pages: list[Page] = joined(source, pieces={source.doc_id: (whole,)})[1]
    return pages


class FakeEngine:
    """Reads one line in the upper left quarter of whatever it is shown, and a doubtful one."""

    version = "1"

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.text = "Read from the picture"

    def read(self, image: np.ndarray) -> list[OcrLine]:
        self.shapes.append(image.shape)
        height, width = image.shape[:2]
        return [
            OcrLine((0, 0, width / 2, height / 2), self.text, 0.97),
            OcrLine((0, height / 2, width, height), "dirt", 0.3),
        ]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = FakeEngine()
    monkeypatch.setattr(parse, "load_engine", lambda _: fake)
    return fake


# ------------------------------------------------------------------------------------------------------ real pages


def test_pages_with_a_text_layer_are_read_from_it(make_pdf: MakePdf) -> None:
    file = make_pdf(pages=3, text="The first line of page {page}.\nIts second line.")
    pages = parsed(file)
    assert [p.index for p in pages] == [0, 1, 2]
    assert [(p.text_source, p.text_reason, p.problem) for p in pages] == [("layer", "sound", "")] * 3
    assert pages[1].text == "The first line of page 2.\nIts second line."
    assert {p.doc_id for p in pages} == {file_sha256(file)[:16]}
    assert (pages[0].width, pages[0].height, pages[0].rotation) == (612.0, 792.0, 0)


def test_the_layout_model_reads_the_same_words(make_pdf: MakePdf) -> None:
    file = make_pdf(pages=1, text="Chapter 1\n\n\nThe first line of the page.\nIts second line.")
    (by_model,), (by_fonts,) = parsed(file, ParseSettings(layout="model")), parsed(file)
    assert by_model.text.split() == by_fonts.text.split()
    assert by_model.text_source == "layer"


def test_a_page_that_is_an_image_is_read_by_ocr(make_pdf: MakePdf) -> None:
    file = make_pdf(pages=1, images=True, text="Invoice number 48213\nTotal amount due: 950 dollars")
    (page,) = parsed(file, FONTS, OcrSettings())
    assert (page.text_source, page.text_reason) == ("ocr", "text-layer-of-0-characters")
    assert "48213" in page.text
    assert "950" in page.text
    (block,) = page.blocks
    assert 0.9 < block.confidence < 1
    x0, y0, x1, y1 = block.box  # drawn at (72, 72), two lines of 12 points
    assert abs(x0 - 72) < 6 and abs(y0 - 72) < 6
    assert 150 < x1 < 350 and 90 < y1 < 110


def test_a_scanned_page_has_the_structure_of_its_original(tmp_path: Path) -> None:
    """A page with a table, as a picture: the same cells under the same headers, and blocks of the same kinds."""
    with open_pdf(REPORT) as pdf:
        original = pdf[TABLE_PAGE]
        width, height = original.rect.width, original.rect.height
        picture = render(original, PageGrid(height=round(2 * height), width=round(2 * width)))
        layout = read_layout(pdf[TABLE_PAGE])
    picture.save(tmp_path / "scan.pdf", resolution=144)
    (page,) = parsed(tmp_path / "scan.pdf", ParseSettings(layout="model"), OcrSettings())
    assert page.text_source == "ocr"
    (expected,), (found,) = strict_tables(layout), page.tables
    assert (found.columns, found.whole) == (expected.columns, expected.whole)
    assert [(r.label, [c.text for c in r.cells]) for r in found.rows] == [
        (r.label, [c.text for c in r.cells]) for r in expected.rows
    ]
    kinds = Counter(b.kind for b in layer_blocks(layout))
    assert Counter(b.kind for b in page.blocks) == kinds
    targets = {page.blocks[b.target].kind: b.text for b in page.blocks if b.kind == "caption"}
    assert sorted(targets) == ["picture", "table"]
    assert targets["table"].startswith("Table")


def test_a_rotated_page_is_as_a_reader_sees_it(make_pdf: MakePdf) -> None:
    (page,) = parsed(make_pdf(pages=1, rotation=90, size=(500, 700), text="Turned by a quarter."))
    assert (page.width, page.height, page.rotation) == (500, 700, 90)
    x0, y0, x1, y1 = page.blocks[0].box
    assert y1 - y0 > x1 - x0  # the line runs down the page
    assert x0 > 250


def test_bookmarks_and_headings_become_sections(make_pdf: MakePdf) -> None:
    titles = [f"Part {letter}" for letter in "ABCDEFGHI"]
    bookmarks = [(1, title, i) for i, title in enumerate(titles)]
    file = make_pdf(text=[f"{title}\nand its words" for title in titles], bookmarks=bookmarks)
    assert [(s.title, s.source) for p in parsed(file) for s in p.sections] == [(t, "bookmarks") for t in titles]


def test_a_blank_page_is_no_mystery(make_pdf: MakePdf, engine: FakeEngine) -> None:
    pages = parsed(make_pdf(text=["Some words on the first page", ""]), FONTS, OcrSettings())
    assert [(p.text_source, p.text_reason) for p in pages] == [("layer", "sound"), ("none", "blank-page")]
    assert pages[1].blocks == ()
    assert engine.shapes == []


def test_a_page_beyond_the_aspect_ratio_keeps_its_place(make_pdf: MakePdf, engine: FakeEngine) -> None:
    (page,) = parsed(make_pdf(pages=1, size=(14_400, 71), text=""), FONTS, OcrSettings())
    assert page.problem == "aspect-ratio: 14400 x 71 pt exceeds 200:1"
    assert (page.text_source, page.width, page.height) == ("none", 14_400, 71)
    assert engine.shapes == []


def test_a_page_of_200_inches_is_read_in_bounded_memory(tmp_path: Path, engine: FakeEngine) -> None:
    file = tmp_path / "poster.pdf"
    canvas = Canvas(str(file), pagesize=(14_400, 7_200))
    canvas.circle(7_200, 3_600, 500, fill=1)
    canvas.save()
    (page,) = parsed(file, FONTS, OcrSettings())
    ((height, width, _),) = engine.shapes
    assert height * width <= parse.MAX_OCR_PIXELS
    assert 0.99 < (width / height) / 2 < 1.01
    assert (page.problem, page.text_source) == ("", "ocr")


def test_lines_of_ocr_are_in_points_and_doubtful_ones_are_dropped(make_pdf: MakePdf, engine: FakeEngine) -> None:
    (page,) = parsed(make_pdf(pages=1, images=True, text="picture"), FONTS, OcrSettings(dpi=100, min_confidence=0.5))
    assert engine.shapes == [(1100, 850, 3)]
    assert [(b.text, b.box, b.confidence) for b in page.blocks] == [("Read from the picture", (0, 0, 306, 396), 0.97)]
    assert page.blocks[0].line_confidences == (0.97,)
    assert page.ocr_confidence == round((21 * 0.97 + 4 * 0.3) / 25, 4)  # by length, dropped lines too
    (page,) = parsed(make_pdf(pages=1, images=True, text="picture"), FONTS, OcrSettings(min_confidence=0.99))
    assert (page.text_source, page.text_reason) == ("none", "text-layer-of-0-characters, and OCR found no text")


def test_a_page_that_the_engine_cannot_read_costs_no_other_page(
    make_pdf: MakePdf, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = engine.read

    def fail_once(image: np.ndarray) -> list[OcrLine]:
        lines = read(image)
        if len(engine.shapes) == 1:
            raise DocumentError("ocr-failed", "PaddleOCR died 2 times of this page: killed by SIGKILL")
        return lines

    monkeypatch.setattr(engine, "read", fail_once)
    pages = parsed(make_pdf(pages=2, images=True, text="picture"), FONTS, OcrSettings())
    assert [(p.text_source, p.ocr_confidence) for p in pages] == [("none", 1.0), ("ocr", 0.8628)]
    assert pages[0].text_reason == "ocr-failed: PaddleOCR died 2 times of this page: killed by SIGKILL"


def test_a_text_layer_is_no_ocr_with_confidence(make_pdf: MakePdf) -> None:
    (page,) = parsed(make_pdf(pages=1, text="Some words on a page with a text layer"))
    assert (page.ocr_confidence, {b.line_confidences for b in page.blocks}) == (1.0, {()})


def test_without_an_engine_a_page_stays_without_text_and_says_so(make_pdf: MakePdf) -> None:
    (page,) = parsed(make_pdf(pages=1, images=True, text="Unread"))
    assert (page.text_source, page.blocks) == ("none", ())
    assert page.text_reason == "text-layer-of-0-characters, and ocr.engine is none"


def test_a_page_whose_text_layer_cannot_be_read_costs_no_other_page(
    make_pdf: MakePdf, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = parse.read_layout

    def broken(page: Any, use_model: bool) -> PageLayout:
        if page.number == 1:
            raise RuntimeError("syntax error\nin content stream")
        return read(page, use_model=use_model)

    monkeypatch.setattr(parse, "read_layout", broken)
    pages = parsed(make_pdf(pages=3))
    assert [p.text_source for p in pages] == ["layer", "none", "layer"]
    assert pages[1].text_reason == "unreadable-text-layer: syntax error, and ocr.engine is none"


def test_a_document_in_runs_is_the_document_as_a_whole(make_pdf: MakePdf) -> None:
    titles = [f"Part {letter}" for letter in "ABCDEFGHIJ"]
    file = make_pdf(text=[f"{t}\nand its words" for t in titles], bookmarks=[(1, t, i) for i, t in enumerate(titles)])
    source = of_file(file)
    seen: list[int] = []
    runs = [piece(source, first, n, FONTS, NO_OCR, progress=seen.append) for first, n in ((0, 4), (4, 5), (9, 1))]
    _, pages = joined(source, pieces={source.doc_id: tuple(runs)})
    assert pages == parsed(file)
    assert [p.index for p in pages] == list(range(10))
    assert [s.title for p in pages for s in p.sections] == titles
    assert sum(seen) == 10


def test_a_partition_is_joined_and_a_document_that_is_gone_costs_no_other(make_pdf: MakePdf) -> None:
    first, gone = (
        of_file(make_pdf("a.pdf", text=["Some words that can be read", ""])),
        of_file(make_pdf("b.pdf", pages=1)),
    )
    pieces = {d.doc_id: (piece(d, 0, d.num_pages, FONTS, NO_OCR),) for d in (first, gone)}
    said, pages = joined(first, gone, pieces=pieces)
    assert [(p.doc_id, p.index) for p in pages] == [(first.doc_id, 0), (first.doc_id, 1), (gone.doc_id, 0)]
    assert (said.text_sources, said.ocr_pages, said.failures) == ({"layer": 2, "none": 1}, {}, {})
    Path(gone.uri).unlink()
    said, pages = joined(first, gone, pieces=pieces)
    assert {p.doc_id for p in pages} == {first.doc_id}
    assert {d: reason for d, (reason, _) in said.failures.items()} == {gone.doc_id: "unreadable"}


def test_pages_read_by_ocr_are_counted_by_document(make_pdf: MakePdf, engine: FakeEngine) -> None:
    source = of_file(make_pdf(pages=2, images=True, text="picture"))
    said, _ = joined(source, pieces={source.doc_id: (piece(source, 0, 2, FONTS, OcrSettings()),)})
    assert (said.ocr_pages, said.text_sources) == ({source.doc_id: 2}, {"ocr": 2})


def test_an_encrypted_document_is_read_with_its_password(make_pdf: MakePdf) -> None:
    file = make_pdf(password="secret", pages=1)
    source = document(sha256=file_sha256(file), uri=str(file), num_pages=1)
    run = piece(source, 0, 1, FONTS, NO_OCR, password="secret")
    _, pages = joined(source, pieces={source.doc_id: (run,)}, password="secret")
    assert [p.text for p in pages] == ["This is page 1 of a small document."]
    with pytest.raises(DocumentError, match="encrypted"):
        piece(source, 0, 1, FONTS, NO_OCR)


def test_a_source_that_changed_is_refused(make_pdf: MakePdf) -> None:
    file = make_pdf()
    before = of_file(file)
    piece(before, 0, 3, FONTS, NO_OCR)
    file.write_bytes(file.read_bytes() + b"\n")
    with pytest.raises(DocumentError, match="source-changed") as e:
        piece(before, 0, 3, FONTS, NO_OCR)
    assert str(file) in str(e.value)
    file.unlink()
    with pytest.raises(DocumentError, match="unreadable"):
        piece(before, 0, 3, FONTS, NO_OCR)


# --------------------------------------------------------------------------------------------- which text to trust

LINE = "The council of the harbour reads its report on copper"


def drawn(path: Path, draw: Callable[[Canvas], None]) -> Path:
    """A Letter page with a sound paragraph, and what `draw` adds to it."""
    canvas = Canvas(str(path), pagesize=(612, 792), invariant=1)
    canvas.setFont("Helvetica", 11)
    for i in range(6):
        canvas.drawString(72, 700 - 14 * i, f"{LINE} {i}")
    draw(canvas)
    canvas.showPage()
    canvas.save()
    return path


def invisible(canvas: Canvas, text: str, y: float) -> None:
    line = canvas.beginText(72, y)
    line.setTextRenderMode(3)
    line.textOut(text)
    canvas.drawText(line)


def whole_page_image(canvas: Canvas) -> None:
    from reportlab.lib.utils import ImageReader

    canvas.drawImage(ImageReader(picture_of(["The scanned text"], (612, 792))), 0, 0, 612, 792)


def test_text_that_is_not_shown_is_left_out(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        invisible(canvas, "Nobody sees this", 300)
        canvas.drawString(72, 2_000, "This stands outside the page")
        canvas.drawString(72.3, 700, f"{LINE} 0")  # bold by printing twice

    (page,) = parsed(drawn(tmp_path / "page.pdf", draw))
    assert (page.text_source, page.text_reason) == ("layer", "sound")
    assert page.text.split("\n") == [f"{LINE} {i}" for i in range(6)]


def test_an_invisible_layer_is_read_anew_and_serves_where_nothing_can_read(tmp_path: Path, engine: FakeEngine) -> None:
    def draw(canvas: Canvas) -> None:
        for i in range(20):
            invisible(canvas, f"{LINE} as somebody recognised it {i}", 500 - 14 * i)

    file = drawn(tmp_path / "page.pdf", draw)
    (page,) = parsed(file, FONTS, OcrSettings())
    assert (page.text_source, page.text) == ("ocr", "Read from the picture")
    assert page.text_reason.startswith("invisible-text-layer: ")
    (page,) = parsed(file)
    assert page.text_source == "layer"
    assert "as somebody recognised it 19" in page.text
    assert page.text_reason.startswith("invisible-text-layer: ")


def test_a_stamp_on_a_scan_is_not_taken_for_its_text(tmp_path: Path, engine: FakeEngine) -> None:
    canvas = Canvas(str(tmp_path / "page.pdf"), pagesize=(612, 792), invariant=1)
    whole_page_image(canvas)
    canvas.drawString(72, 30, "Exhibit 12, page 3 of 50")
    canvas.showPage()
    canvas.save()
    (page,) = parsed(tmp_path / "page.pdf", FONTS, OcrSettings())
    assert (page.text_source, page.text, page.has_sound_layer) == ("layer", "Exhibit 12, page 3 of 50", True)
    assert page.text_reason == "sound: OCR read no more (sparse-text-over-image: 19 characters)"
    engine.text = "Read from the picture, which says much more than its stamp"
    (page,) = parsed(tmp_path / "page.pdf", FONTS, OcrSettings())
    assert (page.text_source, page.text) == ("ocr", engine.text)
    assert page.text_reason == "sparse-text-over-image: 19 characters"


def test_a_layer_that_makes_no_sense_is_read_anew(
    make_pdf: MakePdf, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parse, "examine", lambda layout, _: (layout, Verdict("ocr", "garbled-text-layer: all of it")))
    (page,) = parsed(make_pdf(pages=1), FONTS, OcrSettings())
    assert (page.text_source, page.text_reason) == ("ocr", "garbled-text-layer: all of it")
    (page,) = parsed(make_pdf(pages=1))
    assert (page.text_source, page.text_reason) == ("none", "garbled-text-layer: all of it, and ocr.engine is none")
