"""Pages to pixels: the exact size that was asked for, and the ink where the page has it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reportlab.pdfgen.canvas import Canvas

from corpus.errors import DocumentError
from corpus.parse import read_layout
from corpus.records import PageGrid
from corpus.render import count_pages, encode, open_pdf, render
from corpus.vision_tokens import FAMILIES, natural_size, snap

MakePdf = Callable[..., Path]

ROTATIONS = (0, 90, 180, 270)
CROPS = {None: None, "cropped": (50, 60, 560, 770)}


def ink(image: Image.Image) -> np.ndarray:
    """`[H, W]`, True where something dark was drawn."""
    return np.asarray(image.convert("L")) < 128


@pytest.mark.parametrize(
    "size", [(612, 792), (595.276, 841.89), (100.01, 77.7), (1, 1), (2_000, 11), (3_370.4, 2_383.9)], ids=str
)
@pytest.mark.parametrize("rotation", [0, 90])
def test_a_page_of_any_size_is_rendered_at_exactly_the_snapped_size(
    make_pdf: MakePdf, size: tuple[float, float], rotation: int
) -> None:
    with open_pdf(make_pdf(size=size, pages=1, rotation=rotation)) as pdf:
        page = pdf[0]
        natural = natural_size(page.rect.width, page.rect.height, 144)
        assert (page.get_pixmap(dpi=144).height, page.get_pixmap(dpi=144).width) == natural
        for family in FAMILIES.values():
            grid = snap(*natural, family)
            image = render(page, grid)
            assert (image.size, image.mode) == ((grid.width, grid.height), "RGB")


def test_a_page_is_rendered_at_whatever_size_is_asked_for(make_pdf: MakePdf) -> None:
    with open_pdf(make_pdf(pages=1)) as pdf:
        for height, width in ((28, 5_600), (1, 1), (997, 1_009)):
            assert render(pdf[0], PageGrid(height=height, width=width)).size == (width, height)


def test_the_whole_page_is_shown(tmp_path: Path) -> None:
    """Nothing is cut off when the size is no multiple of the page's: ink in every corner stays in its corner."""
    path = tmp_path / "corners.pdf"
    canvas = Canvas(str(path), pagesize=(101.5, 203.3))
    for x in (0, 101.5 - 5):
        for y in (0, 203.3 - 5):
            canvas.rect(x, y, 5, 5, stroke=0, fill=1)
    canvas.save()
    with open_pdf(path) as pdf:
        shown = ink(render(pdf[0], PageGrid(height=420, width=196)))
    assert shown[0, 0] and shown[0, -1] and shown[-1, 0] and shown[-1, -1]
    assert not shown[210, 98]
    assert 4 * 9 * 10 < shown.sum() < 4 * 11 * 12


@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("use_model", [False, True], ids=["fonts", "model"])
def test_ink_is_where_parsing_says_the_words_are(
    make_pdf: MakePdf, rotation: int, crop: str | None, use_model: bool
) -> None:
    box = CROPS[crop]
    if box and rotation % 180:
        box = (box[1], box[0], box[3], box[2])
    text = "Operating income rose\nto 4,321 million"
    with open_pdf(make_pdf(text=text, pages=1, rotation=rotation, crop=box)) as pdf:
        page = pdf[0]
        layout = read_layout(page, use_model=use_model)
        assert page.rotation == rotation  # as it was before
        assert (layout.width, layout.height) == (page.rect.width, page.rect.height)
        shown = ink(render(page, PageGrid(height=round(2 * layout.height), width=round(2 * layout.width))))
    assert [w.text for w in layout.words] == text.split()
    assert [x.text for x in layout.lines] == text.splitlines()
    for boxes in ([w.box for w in layout.words], [x.box for x in layout.lines]):
        explained = np.zeros_like(shown)
        for x0, y0, x1, y1 in boxes:
            assert 0 <= x0 < x1 <= layout.width
            assert 0 <= y0 < y1 <= layout.height
            area = slice(int(2 * y0), int(2 * y1) + 1), slice(int(2 * x0), int(2 * x1) + 1)
            assert 0.03 < shown[area].mean() < 0.6  # letters, neither nothing nor a bar
            explained[area] = True
        assert shown.sum() > 500
        assert (shown & ~explained).sum() == 0
    for region in layout.regions:
        x0, y0, x1, y1 = region.box
        assert shown[int(2 * y0) : int(2 * y1) + 1, int(2 * x0) : int(2 * x1) + 1].any()
    assert bool(layout.regions) == use_model


FORMATS = ("jpeg", "webp", "png")


@pytest.mark.parametrize("image_format", FORMATS)
def test_rendering_is_deterministic(make_pdf: MakePdf, image_format: str) -> None:
    def once() -> bytes:
        with open_pdf(make_pdf(pages=1)) as pdf:
            return encode(render(pdf[0], PageGrid(height=448, width=364)), image_format, quality=90)

    assert once() == once()


@pytest.mark.parametrize("image_format", FORMATS)
def test_an_image_file_has_the_size_and_no_metadata(image_format: str) -> None:
    image = Image.effect_mandelbrot((112, 56), (-2, -1, 1, 1), 50).convert("RGB")
    data = encode(image, image_format, quality=90)
    back = Image.open(io.BytesIO(data))
    assert (back.format, back.mode, back.size) == (image_format.upper(), "RGB", (112, 56))
    assert set(back.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density", "loop", "background", "timestamp"}
    worse = encode(image, image_format, quality=30)
    if image_format == "png":
        assert np.array_equal(np.asarray(back), np.asarray(image))
        assert worse == data
    else:
        assert len(worse) < len(data)


def test_what_cannot_be_rendered_is_the_documents_fault(make_pdf: MakePdf) -> None:
    with open_pdf(make_pdf()) as pdf:
        page = pdf[1]
        with pytest.raises(DocumentError, match="render-failed: page 2: ") as e:
            render(page, PageGrid(height=2**20, width=2**20))
    assert len(str(e.value).splitlines()) == 1


def test_pages_are_counted(make_pdf: MakePdf) -> None:
    assert count_pages(make_pdf(pages=7)) == 7
