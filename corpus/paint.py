"""In which order a page paints its text and images. With `parse` and `render`, on PyMuPDF.

A text layer says what stands where, not what is painted over it. MuPDF hands a page's drawing operations, in order, to
a device; this one keeps their places only and renders nothing, which takes about as long as reading the words.
"""

from __future__ import annotations

from typing import Any

from corpus.layout import PaintedImage, Painting
from corpus.records import Box
from corpus.render import pymupdf

mupdf: Any = pymupdf.mupdf
NOWHERE: Box = (0.0, 0.0, 0.0, 0.0)


def painting(page: Any) -> Painting:
    """What the page paints, in points of the page as displayed; raises what PyMuPDF raises."""
    device = _Device(tuple(page.rect))
    mupdf.fz_run_page(page.this, device, mupdf.FzMatrix(), mupdf.FzCookie())
    mupdf.fz_close_device(device)
    return Painting(tuple(device.texts), tuple(device.images), device.num_shapes)


class _Device(mupdf.FzDevice2):  # type: ignore[misc]
    """Called by MuPDF for each operation. A clip narrows images; one of another form than a path hides their extent."""

    def __init__(self, page: Box) -> None:
        super().__init__()
        for name in ("fill_text", "stroke_text", "fill_path", "stroke_path", "fill_image", "fill_image_mask"):
            getattr(self, f"use_virtual_{name}")()
        for name in ("clip_path", "clip_stroke_path", "clip_text", "clip_stroke_text", "clip_image_mask", "pop_clip"):
            getattr(self, f"use_virtual_{name}")()
        for name in ("begin_mask", "begin_group", "end_group"):
            getattr(self, f"use_virtual_{name}")()
        self.texts: list[tuple[int, Box]] = []
        self.images: list[PaintedImage] = []
        self.num_shapes = self._order = 0
        self._clips = [page]
        self._groups = [True]  # whether what is painted in it covers

    def fill_text(self, _: Any, text: Any, ctm: Any, *__: Any) -> None:
        self._order += 1
        self.texts.append((self._order, _box(mupdf.ll_fz_bound_text(text, None, ctm))))

    def stroke_text(self, _: Any, text: Any, stroke: Any, ctm: Any, *__: Any) -> None:
        self._order += 1
        self.texts.append((self._order, _box(mupdf.ll_fz_bound_text(text, stroke, ctm))))

    def fill_path(self, *_: Any) -> None:
        self.num_shapes += 1

    def stroke_path(self, *_: Any) -> None:
        self.num_shapes += 1

    def fill_image(self, _: Any, image: Any, ctm: Any, alpha: float, *__: Any) -> None:
        self._add_image(ctm, all(self._groups) and alpha >= 1 and not image.mask and not image.use_colorkey)

    def fill_image_mask(self, _: Any, __: Any, ctm: Any, *___: Any) -> None:
        self._add_image(ctm, False)

    def _add_image(self, ctm: Any, covers: bool) -> None:
        self._order += 1
        x0, x1 = (ctm.e + min(0, ctm.a) + min(0, ctm.c), ctm.e + max(0, ctm.a) + max(0, ctm.c))
        y0, y1 = (ctm.f + min(0, ctm.b) + min(0, ctm.d), ctm.f + max(0, ctm.b) + max(0, ctm.d))
        self.images.append(PaintedImage(self._order, _overlap((x0, y0, x1, y1), self._clips[-1]), covers))

    def _clip(self, box: Box) -> None:
        self._clips.append(_overlap(box, self._clips[-1]))

    def clip_path(self, _: Any, path: Any, __: Any, ctm: Any, *___: Any) -> None:
        self._clip(_box(mupdf.ll_fz_bound_path(path, None, ctm)))

    def clip_stroke_path(self, *_: Any) -> None:
        self._clip(NOWHERE)

    def clip_text(self, *_: Any) -> None:
        self._clip(NOWHERE)

    def clip_stroke_text(self, *_: Any) -> None:
        self._clip(NOWHERE)

    def clip_image_mask(self, *_: Any) -> None:
        self._clip(NOWHERE)

    def begin_mask(self, *_: Any) -> None:
        self._clip(NOWHERE)

    def pop_clip(self, *_: Any) -> None:
        self._clips.pop()

    def begin_group(self, _: Any, __: Any, ___: Any, ____: Any, _____: Any, blendmode: int, alpha: float) -> None:
        self._groups.append(alpha >= 1 and blendmode == 0)

    def end_group(self, *_: Any) -> None:
        self._groups.pop()


def _overlap(a: Box, b: Box) -> Box:
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])


def _box(rect: Any) -> Box:
    return float(rect.x0), float(rect.y0), float(rect.x1), float(rect.y1)
