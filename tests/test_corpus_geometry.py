"""Boxes and pixels agree: both renderers show a page's text where parsing says, however it is boxed and turned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fakes import NO_POPPLER, write_raw_pdf
from PIL import Image

from corpus.errors import DocumentError
from corpus.parse import read_layout
from corpus.poppler import Limits, Wanted, render_with_poppler
from corpus.records import PageGrid
from corpus.render import open_pdf, render, user_unit
from corpus.vision_tokens import FAMILIES, natural_size, snap

BACKENDS = ["pymupdf", pytest.param("pdf2image", marks=pytest.mark.skipif(bool(NO_POPPLER), reason=NO_POPPLER))]
ROTATIONS = (0, 90, 180, 270)
LIMITS = Limits(timeout_s=60, memory_mb=2_048)
TEXT = "BT /F1 14 Tf 1 0 0 1 120 300 Tm (Hello upright world) Tj ET"
BOXES = {
    "plain": "/MediaBox[0 0 400 500]",
    "odd size": "/MediaBox[0 0 377.77 411.3]",
    "origin elsewhere": "/MediaBox[50 -70 450 430]",
    "cropped": "/MediaBox[0 0 400 500]/CropBox[60.5 100.25 390 470.7]",
    "cropped, origin elsewhere": "/MediaBox[50 -70 450 430]/CropBox[60 10 445 420]",
    "cropped beyond the page": "/MediaBox[0 0 400 500]/CropBox[-50 -50 900 900]",
    "corners swapped": "/MediaBox[400 500 0 0]/CropBox[390 470 60 100]",
    "user unit": "/MediaBox[0 0 400 500]/UserUnit 1.5",
    "user unit, cropped": "/MediaBox[0 0 400 500]/CropBox[60 100 390 470]/UserUnit 1.5",
    "other boxes": "/MediaBox[0 0 400 500]/TrimBox[60 100 390 470]/BleedBox[50 50 399 499]/ArtBox[50 50 100 400]",
}


def ink(image: Image.Image) -> tuple[int, int, int, int]:
    """The box of everything dark, in pixels."""
    rows, columns = np.nonzero(np.asarray(image.convert("L")) < 128)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def rendered(path: Path, family: str, backend: str) -> tuple[Image.Image | DocumentError, PageGrid]:
    with open_pdf(path) as pdf:
        rect = pdf[0].rect
        grid = snap(*natural_size(rect.width, rect.height, 144), FAMILIES[family])
        if backend == "pymupdf":
            return render(pdf[0], grid), grid
        wanted = Wanted(index=0, width=rect.width, height=rect.height, user_unit=user_unit(pdf, 0), grid=grid)
    (image,) = render_with_poppler(str(path), 1, [wanted], LIMITS)
    return image, grid


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize("boxes", BOXES)
def test_the_box_of_the_text_surrounds_its_ink(tmp_path: Path, boxes: str, rotation: int, backend: str) -> None:
    path = write_raw_pdf(tmp_path / "a.pdf", [(f"{BOXES[boxes]}/Rotate {rotation}", TEXT)])
    image, grid = rendered(path, "qwen2.5-vl", backend)
    assert isinstance(image, Image.Image)
    assert image.size == (grid.width, grid.height)
    with open_pdf(path) as pdf:
        layout = read_layout(pdf[0], use_model=False)
    x, y = grid.width / layout.width, grid.height / layout.height
    (line,) = layout.lines
    box = np.array(line.box) * (x, y, x, y)
    dark = np.array(ink(image))
    assert (box[:2] - 3 <= dark[:2]).all() and (dark[2:] <= box[2:] + 3).all(), (box, dark)  # none outside
    along, across = (1, 0) if rotation % 180 else (0, 1)
    assert dark[along + 2] - dark[along] > 0.95 * (box[along + 2] - box[along])  # and the box is no larger
    assert dark[across + 2] - dark[across] > 0.5 * (box[across + 2] - box[across])
    words = np.array([word.box for word in layout.words]) * (x, y, x, y)
    assert np.abs(np.array([*words.min(axis=0)[:2], *words.max(axis=0)[2:]]) - box).max() < 3


@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize("boxes", BOXES)
def test_the_layout_model_finds_the_text_where_it_is(tmp_path: Path, boxes: str, rotation: int) -> None:
    path = write_raw_pdf(tmp_path / "a.pdf", [(f"{BOXES[boxes]}/Rotate {rotation}", TEXT)])
    with open_pdf(path) as pdf:
        layout = read_layout(pdf[0])
    (line,) = layout.lines
    x, y = (line.box[0] + line.box[2]) / 2, (line.box[1] + line.box[3]) / 2
    assert any(r.box[0] < x < r.box[2] and r.box[1] < y < r.box[3] for r in layout.regions)


@pytest.mark.skipif(bool(NO_POPPLER), reason=NO_POPPLER)
@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize("boxes", BOXES)
def test_both_renderers_show_the_same(tmp_path: Path, boxes: str, rotation: int) -> None:
    path = write_raw_pdf(tmp_path / "a.pdf", [(f"{BOXES[boxes]}/Rotate {rotation}", TEXT)])
    one, other = (rendered(path, "qwen3-vl", backend)[0] for backend in ("pymupdf", "pdf2image"))
    assert isinstance(one, Image.Image) and isinstance(other, Image.Image)
    assert one.size == other.size
    assert np.abs(np.subtract(ink(one), ink(other))).max() <= 3
    blurred = [np.asarray(i.convert("L").reduce(8), dtype=float) for i in (one, other)]
    assert np.corrcoef(blurred[0].ravel(), blurred[1].ravel())[0, 1] > 0.9  # upright in both


@pytest.mark.skipif(bool(NO_POPPLER), reason=NO_POPPLER)
@pytest.mark.parametrize(
    ("entries", "shown"),
    [
        ("/MediaBox[0 0 400 500]/CropBox[-20 100 390 900]", "Poppler shows 400 x 500 pt"),
        ("/MediaBox[0 0 400 500]/CropBox[600 600 900 900]", "Poppler shows 0 x 0 pt"),
        ("/MediaBox[0 0 400 500]/Rotate 45", "turned by 45"),
    ],
)
def test_a_page_that_poppler_takes_for_another_is_a_fault(tmp_path: Path, entries: str, shown: str) -> None:
    path = write_raw_pdf(tmp_path / "a.pdf", [(entries, TEXT)])
    fault, _ = rendered(path, "qwen2.5-vl", "pdf2image")
    assert isinstance(fault, DocumentError)
    assert fault.reason == "render-failed"
    assert fault.detail.startswith("page 1: ") and shown in fault.detail
    image, grid = rendered(path, "qwen2.5-vl", "pymupdf")
    assert isinstance(image, Image.Image) and image.size == (grid.width, grid.height)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize("crop", ["", "/CropBox[3.3 2.2 91.7 60]"])
@pytest.mark.parametrize("size", [(612, 792), (100.01, 77.7), (2_000, 91), (3_370.4, 2_383.9)], ids=str)
def test_every_page_has_the_size_that_was_asked_for(
    tmp_path: Path, size: tuple[float, float], crop: str, rotation: int, family: str, backend: str
) -> None:
    entries = f"/MediaBox[0 0 {size[0]} {size[1]}]{crop}/Rotate {rotation}"
    image, grid = rendered(write_raw_pdf(tmp_path / "a.pdf", [(entries, TEXT)]), family, backend)
    assert isinstance(image, Image.Image), image
    assert (image.size, image.mode) == ((grid.width, grid.height), "RGB")
