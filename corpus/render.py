"""PDFs opened, pages to pixels by PyMuPDF. With `parse`, the only module that works on PyMuPDF objects.

A page is rasterised directly at the size that the model's processor would resize it to, by an anisotropic matrix:
20.9 ms a page against 22.4 + 26.5 ms for 144 DPI followed by a bicubic resize, equally legible, and the token
count is exact by construction. PyMuPDF rasterises, Pillow encodes (5 ms a page; PyMuPDF's own JPEG writer 80 ms).
`corpus.poppler` is the other renderer.

PyMuPDF loads its layout model on import. It gets one thread a worker: two threads take 0.63 CPU-seconds for a page
that one thread reads in 0.30, and the last digits of its answers would depend on the machine.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnxruntime
from PIL import Image

from corpus.errors import DocumentError
from corpus.records import PageGrid


class _SingleThreaded(onnxruntime.InferenceSession):  # type: ignore[misc]
    """An ONNX session with one thread, whatever its caller asked for."""

    def __init__(self, path: Any, sess_options: Any = None, **options: Any) -> None:
        sess_options = sess_options or onnxruntime.SessionOptions()
        sess_options.intra_op_num_threads = sess_options.inter_op_num_threads = 1
        super().__init__(path, sess_options=sess_options, **options)


def _import_pymupdf() -> Any:
    """Import PyMuPDF, which loads its layout model on import, without letting that model take every core."""
    session = onnxruntime.InferenceSession
    onnxruntime.InferenceSession = _SingleThreaded
    try:
        import pymupdf
        import pymupdf.layout
    finally:
        onnxruntime.InferenceSession = session
    pymupdf.TOOLS.mupdf_display_errors(False)
    pymupdf.TOOLS.mupdf_display_warnings(False)
    return pymupdf


pymupdf = _import_pymupdf()

VERSION: str = pymupdf.VersionBind if hasattr(pymupdf, "VersionBind") else pymupdf.__version__


@contextmanager
def open_pdf(path: str | Path, password: str | None = None) -> Iterator[Any]:
    """Open a PDF for reading; yields a `pymupdf.Document`.

    Raises:
        DocumentError: `empty-file`, `unreadable`, `not-a-pdf`, `damaged`, `encrypted`, `wrong-password`.
    """
    document = _open(Path(path), password)
    try:
        yield document
    finally:
        document.close()


def _open(path: Path, password: str | None) -> Any:
    try:
        with open(path, "rb") as f:
            head = f.read(1_024)
    except OSError as e:
        raise DocumentError("unreadable", f"{path}: {e.strerror}") from None
    if not head:
        raise DocumentError("empty-file", f"{path} has 0 bytes")
    if b"%PDF-" not in head:
        raise DocumentError("not-a-pdf", f"{path} does not begin with %PDF-")
    try:
        document = _open_file(path)
    except Exception as e:  # PyMuPDF raises plain RuntimeError and its own classes alike
        raise DocumentError("damaged", first_line(e)) from None
    if document.needs_pass:
        if password is None:
            document.close()
            raise DocumentError("encrypted", f"{path} needs a password; give it with --password")
        if not document.authenticate(password):
            document.close()
            raise DocumentError("wrong-password", f"the given password does not open {path}")
    return document


def _open_file(path: Path) -> Any:
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:  # MuPDF takes names in UTF-8 only
        return pymupdf.open(stream=path.read_bytes(), filetype="pdf")
    return pymupdf.open(path, filetype="pdf")


def first_line(error: BaseException) -> str:
    """The first line of an error's message, short enough for a ledger."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def count_pages(path: str | Path, password: str | None = None) -> int:
    """Pages of a PDF, at least 1.

    Raises:
        DocumentError: as `open_pdf`, or `no-pages`.
    """
    with open_pdf(path, password) as document:
        try:
            num_pages = int(document.page_count)
        except Exception as e:
            raise DocumentError("damaged", first_line(e)) from None
    if num_pages < 1:
        raise DocumentError("no-pages", f"{path} has no page that can be found: it is empty, truncated or damaged")
    return num_pages


def render(page: Any, size: PageGrid) -> Image.Image:
    """The page as displayed, as an RGB image of exactly `size.width` x `size.height` pixels.

    Raises:
        DocumentError: `render-failed`, where MuPDF gives up or returns another size.
    """
    try:
        rect = page.rect
        matrix = pymupdf.Matrix(size.width / rect.width, size.height / rect.height)
        pixels = page.get_pixmap(matrix=matrix, colorspace=pymupdf.csRGB, alpha=False)
    except MemoryError:
        raise
    except Exception as e:  # PyMuPDF raises plain RuntimeError and its own classes alike
        raise DocumentError("render-failed", f"page {page.number + 1}: {first_line(e)}") from None
    if (pixels.width, pixels.height) != (size.width, size.height):
        got = f"{pixels.width} x {pixels.height}"
        raise DocumentError("render-failed", f"page {page.number + 1}: {got} px, not {size.width} x {size.height}")
    return Image.frombuffer("RGB", (size.width, size.height), pixels.samples_mv, "raw", "RGB", 0, 1)


def encode(image: Image.Image, image_format: str, quality: int) -> bytes:
    """The image as a file without metadata: `jpeg` (4:2:0) or `webp` at this quality (1-100), or `png`, lossless."""
    out = io.BytesIO()
    options = {} if image_format == "png" else {"quality": quality}
    image.save(out, image_format.upper(), **options)
    return out.getvalue()


@contextmanager
def path_without_password(pdf: Any, path: str, password: str | None) -> Iterator[str]:
    """A path at which another program on this machine reads an open document without its password.

    It is `path` itself, or that of a decrypted copy in memory, which ends with this process: a password among the
    arguments of a program is there for everyone to see, and a copy on disk would stay after a kill.

    Raises:
        DocumentError: `damaged`, where MuPDF cannot write what it reads.
    """
    if password is None or not pdf.metadata["encryption"]:  # `needs_pass` would try '' and lose the right password
        yield path
        return
    try:
        copy = pdf.tobytes(encryption=pymupdf.PDF_ENCRYPT_NONE)
    except Exception as e:  # PyMuPDF raises plain RuntimeError and its own classes alike
        raise DocumentError("damaged", first_line(e)) from None
    with open(os.memfd_create("document"), "wb") as f:
        f.write(copy)
        f.flush()
        yield f"/proc/{os.getpid()}/fd/{f.fileno()}"


def user_unit(pdf: Any, page: int) -> float:
    """The page's user unit in 1/72 inch, 1 for nearly every page."""
    try:
        kind, value = pdf.xref_get_key(pdf.page_xref(page), "UserUnit")
        return float(value) if kind in ("int", "real", "float") else 1.0
    except Exception:  # whatever PyMuPDF makes of a damaged page object; a page without it has unit 1
        return 1.0
