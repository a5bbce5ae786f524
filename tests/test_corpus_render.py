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
from corpus.render import count_pages, encode_jpeg, open_pdf, render
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


def test_a_page_in_user_units_has_its_words_where_its_ink_is(tmp_path: Path) -> None:
    content = b"BT /F1 12 Tf 20 100 Td (Hello world) Tj ET"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count 1/Kids[3 0 R]>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 100 200]/UserUnit 2.5/Contents 4 0 R"
        b"/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(content), content),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    body = b"".join(b"%d 0 obj%sendobj\n" % (i, o) for i, o in enumerate(objects, start=1))
    (tmp_path / "units.pdf").write_bytes(b"%PDF-1.6\n" + body + b"trailer<</Root 1 0 R/Size 6>>\n%%EOF\n")
    with open_pdf(tmp_path / "units.pdf") as pdf:
        layout = read_layout(pdf[0], use_model=False)
        shown = ink(render(pdf[0], PageGrid(height=500, width=250)))
    assert (layout.width, layout.height) == (250, 500)
    rows, columns = np.nonzero(shown)
    x0, y0, x1, y1 = layout.lines[0].box
    assert x0 - 1 <= columns.min() < columns.max() <= x1 + 1
    assert y0 - 1 <= rows.min() < rows.max() <= y1 + 1


def test_rendering_is_deterministic(make_pdf: MakePdf) -> None:
    def once() -> bytes:
        with open_pdf(make_pdf(pages=1)) as pdf:
            return encode_jpeg(render(pdf[0], PageGrid(height=448, width=364)), quality=90)

    assert once() == once()


def test_a_jpeg_has_the_size_and_no_metadata() -> None:
    image = Image.effect_mandelbrot((112, 56), (-2, -1, 1, 1), 50).convert("RGB")
    data = encode_jpeg(image, quality=90)
    back = Image.open(io.BytesIO(data))
    assert (back.format, back.mode, back.size) == ("JPEG", "RGB", (112, 56))
    assert set(back.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert len(encode_jpeg(image, quality=30)) < len(data)


def test_what_cannot_be_rendered_is_the_documents_fault(make_pdf: MakePdf) -> None:
    with open_pdf(make_pdf()) as pdf:
        page = pdf[1]
        with pytest.raises(DocumentError, match="render-failed: page 2: ") as e:
            render(page, PageGrid(height=2**20, width=2**20))
    assert len(str(e.value).splitlines()) == 1


def test_pages_are_counted(make_pdf: MakePdf) -> None:
    assert count_pages(make_pdf(pages=7)) == 7
