"""A PDF to its pages: text layer or OCR, blocks, tables, sections. With `render`, the only module on PyMuPDF.

Everything here reads; what the readings mean is decided in `corpus.tables`, `corpus.blocks` and
`corpus.sections`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from corpus.blocks import clean, layer_blocks, ocr_blocks
from corpus.config import DEFAULT_STORAGE, OcrSettings, ParseSettings, StorageSettings
from corpus.errors import DocumentError
from corpus.fetch import local_copy
from corpus.ink import LONG_SIDE, horizontal_rules
from corpus.layout import Line, PageLayout, Painting, Region, Word, words_of_line
from corpus.ocr import OcrLine, load_engine, mean_confidence
from corpus.page_images import LONG_SIDE as HASHED_SIDE
from corpus.page_images import image_hash, raster_size
from corpus.paint import painting
from corpus.records import Block, Box, Document, Page, PageGrid, Table, is_sound_layer
from corpus.render import first_line, open_pdf, pymupdf, render
from corpus.sections import Bookmark, with_sections
from corpus.store import read_records, write_records
from corpus.structure import with_structure
from corpus.tables import strict_tables
from corpus.text_layer import SOUND, Verdict, examine
from corpus.vision_tokens import MAX_ASPECT_RATIO, natural_size
from corpus.workers import return_freed_memory

STAGE_VERSION = 5  # raise it when the same input should be parsed anew
MIN_GAIN = 2  # times the text of a sparse layer that OCR must find to be taken instead
MAX_OCR_PIXELS = 12_845_056
SHORTEST_RULE, THICKEST_RULE = 12.0, 3.0  # points, of a stroke on a scan
PALE = 160  # lightness, 0..255, from which text may vanish on paper
MIN_IDENTIFYING_WORDS = 64  # a crop may cut some of them


@dataclass(frozen=True, slots=True, kw_only=True)
class ParseJob:
    """A run of pages of one document, to parse into a file of its own."""

    document: Document
    first_page: int
    num_pages: int
    parse: ParseSettings
    ocr: OcrSettings
    password: str | None
    out: Path
    storage: StorageSettings = DEFAULT_STORAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinJob:
    """A partition to write from the files of its documents' page runs, which lie in `pieces` in page order."""

    documents: tuple[Document, ...]
    pieces: dict[str, tuple[Path, ...]]
    password: str | None
    out: Path
    storage: StorageSettings = DEFAULT_STORAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """Pages of a partition by where their text came from, and those read by OCR by document."""

    text_sources: dict[str, int]
    ocr_pages: dict[str, int]
    failures: dict[str, tuple[str, str]]  # documents that could not be opened again: reason, detail


def parse_pages(job: ParseJob, progress: Callable[[int], None]) -> None:
    """Parse a run of pages and write them to `job.out`; runs in a worker.

    A page that cannot be read keeps its place, with its `problem`.

    Raises:
        DocumentError: the document cannot be opened any more, or its bytes changed since ingest.
    """
    pages = []
    with (
        local_copy(job.document.uri, job.document.sha256, job.storage) as copy,
        open_pdf(copy.path, job.password) as pdf,
    ):
        for index in range(job.first_page, job.first_page + job.num_pages):
            pages.append(_parse_page(pdf, index, job.document.doc_id, job.parse, job.ocr))
            pymupdf.TOOLS.store_shrink(100)
            if pages[-1].text_source == "ocr":  # hundreds of megabytes a page
                return_freed_memory()
            progress(1)
    write_records(job.out, Page, pages)


def join_partition(job: JoinJob, progress: Callable[[int], None]) -> Joined:
    """Write a partition's pages, by document in the order of ids, with the sections of each; runs in a worker."""
    pages: list[Page] = []
    failures = {}
    for document in job.documents:
        try:
            with (
                local_copy(document.uri, document.sha256, job.storage) as copy,
                open_pdf(copy.path, job.password) as pdf,
            ):
                bookmarks = _bookmarks(pdf)
        except DocumentError as e:
            failures[document.doc_id] = (e.reason, e.detail)
            progress(document.num_pages)
            continue
        read = [p for f in job.pieces[document.doc_id] for p in read_records(f, Page)]
        pages += with_sections(with_structure(read), bookmarks)
        progress(document.num_pages)
    write_records(job.out, Page, pages)
    return Joined(
        text_sources=dict(sorted(Counter(p.text_source for p in pages).items())),
        ocr_pages=dict(sorted(Counter(p.doc_id for p in pages if p.text_source == "ocr").items())),
        failures=failures,
    )


def _parse_page(pdf: Any, index: int, doc_id: str, parse: ParseSettings, ocr: OcrSettings) -> Page:
    try:
        page = pdf[index]
        width, height = float(page.rect.width), float(page.rect.height)
    except Exception as e:  # PyMuPDF raises plain RuntimeError and its own classes alike
        return _unreadable(doc_id, index, f"damaged-page: {first_line(e)}")
    if not (0 < width < 1e6 and 0 < height < 1e6):
        return _unreadable(doc_id, index, f"page-size: {width:g} x {height:g} pt")
    problem = ""
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        problem = f"aspect-ratio: {width:g} x {height:g} pt exceeds {MAX_ASPECT_RATIO}:1"
    try:
        layout, verdict = examine(read_layout(page, use_model=parse.layout == "model"), PageView(pdf[index]))
    except Exception as e:  # a fault of this page's content must not cost the document
        layout = PageLayout(width, height, (), (), (), ())
        verdict = Verdict("ocr", f"unreadable-text-layer: {first_line(e)}")
    text = layer = Text(verdict.source, verdict.reason, layer_blocks(layout))
    if verdict.source != "layer" and (problem or ocr.engine == "none"):
        text = _unread(verdict, layer.blocks, problem or "ocr.engine is none")
    elif verdict.source != "layer":
        text = _choose(verdict, layer.blocks, _read_by_ocr(pdf[index], ocr, parse, verdict.reason))
    sound = is_sound_layer(text.source, text.reason)
    return Page(
        doc_id=doc_id,
        index=index,
        width=width,
        height=height,
        rotation=int(page.rotation),
        text_source=text.source,
        text_reason=text.reason,
        ocr_confidence=text.confidence,
        blocks=text.blocks,
        tables=strict_tables(layout) if sound else text.tables,
        problem=problem,
        image_hash=image_hash(thumbnail(pdf[index])) if wants_image(parse, sound, layout, problem) else "",
    )


def wants_image(parse: ParseSettings, sound: bool, layout: PageLayout, problem: str) -> bool:
    """Few or doubtful words do not identify a page; the picture of the others would cost half as much as rendering."""
    return not problem and (parse.image_hashes == "all" or not sound or len(layout.words) < MIN_IDENTIFYING_WORDS)


def thumbnail(page: Any, long_side: int = HASHED_SIDE) -> Image.Image:
    """The page in grey and small, by default as its picture is hashed; a white one where it cannot be rendered."""
    width, height = raster_size(page.rect.width, page.rect.height, long_side)
    try:
        return render(page, PageGrid(height=height, width=width)).convert("L")
    except DocumentError:  # said where the page is rendered for a shard
        return Image.new("L", (width, height), 255)


class Text(NamedTuple):
    """What a page says, by its layer or by OCR."""

    source: str  # "layer", "ocr" or "none"
    reason: str
    blocks: tuple[Block, ...] = ()
    tables: tuple[Table, ...] = ()  # of OCR
    confidence: float = 1.0  # of OCR


def _unread(verdict: Verdict, layer: tuple[Block, ...], why: str) -> Text:
    """The text of a page that OCR should have read and cannot: its layer, if that is only incomplete or unproven."""
    if verdict.source == "better" or verdict.reason.startswith("invisible"):
        return Text("layer", verdict.reason, layer)
    return Text("none", f"{verdict.reason}, and {why}")


def _choose(verdict: Verdict, layer: tuple[Block, ...], read: Text) -> Text:
    """What OCR read, unless the layer might do and OCR found little more (a photo with a caption)."""
    found, shown = ("".join(b.text for b in blocks) for blocks in (read.blocks, layer))
    if verdict.source == "better" and not _says_more(found, shown):
        return Text("layer", f"{SOUND.reason}: OCR read no more ({verdict.reason})", layer)
    return read


def _says_more(read: str, layer: str) -> bool:
    """True for `MIN_GAIN` times the text, or for letters where the layer has something else."""
    letters = [sum(map(str.isalpha, text)) for text in (read, layer)]
    return len(read) >= MIN_GAIN * len(layer) or letters[0] > letters[1] + len(layer) / 2


def _unreadable(doc_id: str, index: int, problem: str) -> Page:
    return Page(
        doc_id=doc_id,
        index=index,
        width=0.0,
        height=0.0,
        rotation=0,
        text_source="none",
        text_reason=problem,
        problem=problem,
    )


class PageView:
    """A page for `corpus.text_layer.examine` to look at."""

    def __init__(self, page: Any) -> None:
        self._page = page

    def has_images(self) -> bool:
        return bool(self._page.get_images())

    def painting(self) -> Painting:
        return painting(self._page)

    def grey(self) -> NDArray[np.uint8]:
        return np.asarray(thumbnail(self._page, LONG_SIDE))


def _read_by_ocr(page: Any, ocr: OcrSettings, parse: ParseSettings, reason: str) -> Text:
    height, width = natural_size(page.rect.width, page.rect.height, ocr.dpi)
    shrink = min(1.0, math.sqrt(MAX_OCR_PIXELS / (height * width)))
    size = PageGrid(height=max(1, int(height * shrink)), width=max(1, int(width * shrink)))
    try:
        image = np.asarray(render(page, size))
        if image.min() == image.max():
            return Text("none", "blank-page")
        found = load_engine(ocr).read(image)
    except DocumentError as e:
        return Text("none", f"{e.reason}: {e.detail}")
    lines = [line for line in found if line.confidence >= ocr.min_confidence]
    if not lines:
        return Text("none", f"{reason}, and OCR found no text")
    layout = layout_of_reading(image, lines, page.rect.width, page.rect.height, use_model=parse.layout == "model")
    return Text("ocr", reason, ocr_blocks(layout), strict_tables(layout), round(mean_confidence(found), 4))


def _bookmarks(pdf: Any) -> list[Bookmark]:
    try:
        return [Bookmark(int(level), str(title), int(page) - 1) for level, title, page in pdf.get_toc(simple=True)]
    except Exception:  # an outline is optional: a broken one is no outline
        return []


def read_layout(page: Any, use_model: bool = True) -> PageLayout:
    """Words, lines, regions and rules of a page in the page's displayed (rotated) space.

    A rotated page is read unrotated, because PyMuPDF's words stay there and its layout model expects it; the
    boxes are rotated afterwards. PyMuPDF's own `rotation_matrix` leaves user units out of account, and crop boxes
    that reach beyond the page.
    """
    rotation = page.rotation
    displayed = page.rect
    turn = None
    if rotation:
        page.set_rotation(0)
        turn = _turn(rotation, page.rect.width, page.rect.height)
    try:
        regions = _regions(page) if use_model else ()
        text = page.get_textpage(flags=pymupdf.TEXTFLAGS_WORDS)  # once for both: extracting it is most of the work
        words = tuple(Word(tuple(w[:4]), w[4]) for w in page.get_text("words", textpage=text))
        lines = _lines(text)
        rules = _rules(page) if any(r.label == "table" for r in regions) else ()
    finally:
        if rotation:
            page.set_rotation(rotation)
    if turn is not None:
        words = tuple(Word(_turned(w.box, turn), w.text) for w in words)
        lines = tuple(replace(x, box=_turned(x.box, turn)) for x in lines)
        regions = tuple(Region(r.label, _turned(r.box, turn)) for r in regions)
        rules = ()
    return PageLayout(displayed.width, displayed.height, words, lines, regions, rules)


def layout_of_reading(
    image: NDArray[np.uint8], found: Sequence[OcrLine], width: float, height: float, use_model: bool = True
) -> PageLayout:
    """Words, lines, regions and rules of a page that OCR read.

    The layout model looks at text in boxes, not at pixels, so it is shown a page on which the lines are set anew.

    Args:
        image: the picture that was read, [height, width, 3].
        found: what was read, in pixels.
        width: of the page as displayed, in points, as its height and all boxes that are returned.
    """
    x, y = width / image.shape[1], height / image.shape[0]
    lines = tuple(
        Line((b[0] * x, b[1] * y, b[2] * x, b[3] * y), text, (b[3] - b[1]) * y, False, confidence=line.confidence)
        for line in found
        for b, text in ((line.box, clean(line.text)),)
        if text
    )
    words = tuple(word for line in lines for word in words_of_line(line))
    if not use_model:
        return PageLayout(width, height, words, lines, (), ())
    grey = np.asarray(Image.fromarray(image).convert("L"))
    strokes = horizontal_rules(grey, shortest=round(SHORTEST_RULE / x), thickest=round(THICKEST_RULE / y))
    rules = tuple((b[0] * x, b[1] * y, b[2] * x, b[3] * y) for b in strokes)
    try:
        with pymupdf.open() as pdf:
            page = pdf.new_page(width=width, height=height)
            _set(page, lines, rules)
            regions = _regions(page)
    except Exception:  # lines without regions are still text
        regions = ()
    return PageLayout(width, height, words, lines, regions, rules)


def _set(page: Any, lines: Sequence[Line], rules: Sequence[Box]) -> None:
    """Print lines into their boxes, each stretched to its width, and rules."""
    font = pymupdf.Font("cjk")  # with Latin, Greek and Cyrillic
    for line in lines:
        x0, y0, x1, y1 = line.box
        size = max(1.0, (y1 - y0) / (font.ascender - font.descender))
        origin = pymupdf.Point(x0, y1 + font.descender * size)
        writer = pymupdf.TextWriter(page.rect)
        writer.append(origin, line.text, font=font, fontsize=size)
        stretch = (x1 - x0) / max(1.0, font.text_length(line.text, fontsize=size))
        writer.write_text(page, morph=(origin, pymupdf.Matrix(max(stretch, 0.01), 1)))
    for rule in rules:
        page.draw_rect(rule, color=None, fill=0)


def _turn(rotation: int, width: float, height: float) -> Any:
    """The matrix that turns an upright page of this size clockwise by `rotation` degrees, its corner back at (0, 0)."""
    return {
        90: pymupdf.Matrix(0, 1, -1, 0, height, 0),
        180: pymupdf.Matrix(-1, 0, 0, -1, width, height),
        270: pymupdf.Matrix(0, -1, 1, 0, 0, width),
    }[rotation]


def _turned(box: Box, turn: Any) -> Box:
    r = pymupdf.Rect(box) * turn
    return r.x0, r.y0, r.x1, r.y1


def _regions(page: Any) -> tuple[Region, ...]:
    """Regions of PyMuPDF's layout model; () on a page that is only an image."""
    page.get_layout(return_raw=True)
    found = []
    for raw in page.layout_information or ():
        x0, y0, x1, y1 = raw["group_bbox"]
        grid = raw.get("table_grid")
        rows = tuple(y0 + y for y in grid.h_lines) if grid is not None else ()
        columns = tuple(x0 + x for x in grid.v_lines) if grid is not None else ()
        found.append(Region(raw["class_name"], (x0, y0, x1, y1), rows, columns))
    return tuple(found)


def _lines(text: Any) -> tuple[Line, ...]:
    found = []
    for block in text.extractDICT()["blocks"]:
        for line in block.get("lines", ()):
            spans = [s for s in line["spans"] if s["text"].strip()]
            text = "".join(s["text"] for s in line["spans"]).strip()
            if not spans or not text:
                continue
            bold = all(s["flags"] & pymupdf.TEXT_FONT_BOLD or "bold" in s["font"].lower() for s in spans)
            size, pale = max(s["size"] for s in spans), all(_lightness(s["color"]) > PALE for s in spans)
            found.append(Line(tuple(line["bbox"]), text, size, bold, _is_hidden(spans), pale))
    return tuple(found)


def _is_hidden(spans: list[dict[str, Any]]) -> bool:
    """No span leaves a mark: text render mode 3, or no opacity."""
    painted = pymupdf.mupdf.FZ_STEXT_FILLED | pymupdf.mupdf.FZ_STEXT_STROKED
    return all(not s["char_flags"] & painted or s["alpha"] == 0 for s in spans)


def _lightness(rgb: int) -> float:
    """0 for black to 255 for white, by what the eye makes of red, green and blue."""
    return 0.299 * (rgb >> 16 & 255) + 0.587 * (rgb >> 8 & 255) + 0.114 * (rgb & 255)


def _rules(page: Any) -> tuple[Box, ...]:
    """Horizontal strokes and bars at most 3 pt high and at least 5 pt long."""
    found = []
    for drawing in page.get_cdrawings():
        for item in drawing["items"]:
            if item[0] == "l":
                (x0, y0), (x1, y1) = item[1], item[2]
            elif item[0] == "re":
                x0, y0, x1, y1 = item[1]
            else:
                continue
            if abs(y1 - y0) <= 3 and abs(x1 - x0) >= 5 and all(map(math.isfinite, (x0, y0, x1, y1))):
                found.append((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)))
    return tuple(found)
