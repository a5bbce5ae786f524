"""Pages to pixels by Poppler, through pdf2image (`render.backend: pdf2image`).

Starting Poppler costs as much as rendering a page, so a run of pages of one size is one process, which halves the CPU
time. What goes wrong in a run is tried again page by page, so that a fault is the fault of its page. Poppler's
processes die with this one, and keep to its limits of time and memory; one that is killed from outside is started
again (`corpus.kills`), since half of what it would have sent looks like a fault of the page.

`pdftoppm` fits only upright pages to a width and a height: of a page on its side it applies each scale to the other
side. Such a page is rendered at one resolution for both sides, never below the wanted one, and resized.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import itertools
import os
import resource
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from PIL import Image

from corpus.errors import ConfigError, DocumentError
from corpus.kills import Killed, how_it_ended, is_outside_kill, undisturbed
from corpus.records import PageGrid

INSTALL = "pip install 'longdoc[pdf2image]', and Poppler (Debian: apt-get install poppler-utils)"
MAX_RUN_PAGES = 8
MAX_RUN_PIXELS = 16_777_216  # 8 pages of A4 at 144 DPI: 50 MB as Poppler sends them
SAME_SIZE = 0.002  # Poppler prints sizes with six digits
_LIBC = ctypes.CDLL(None)  # loaded here, because between fork and exec little may be done
_SET_PARENT_DEATH_SIGNAL = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one process of Poppler may take."""

    timeout_s: float
    memory_mb: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A page to render, with its size in points as PyMuPDF shows it, after rotation and in its user unit."""

    index: int  # 0-based
    width: float
    height: float
    user_unit: float  # of 1/72 inch; Poppler leaves it out of account
    grid: PageGrid


@dataclass(frozen=True, slots=True)
class _Shape:
    """A page as Poppler shows it, in points before rotation."""

    width: float
    height: float
    rotation: int

    @property
    def shown(self) -> tuple[float, float]:
        """Width and height after rotation."""
        return (self.height, self.width) if self.rotation % 180 else (self.width, self.height)


@functools.cache
def poppler_version() -> str:
    """Versions of Poppler and of pdf2image, for fingerprints.

    Raises:
        ConfigError: either is not there.
    """
    try:
        package = importlib.metadata.version("pdf2image")
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(f"render.backend = 'pdf2image', but pdf2image is not installed: {INSTALL}") from None
    versions = []
    for tool in ("pdftoppm", "pdfinfo"):
        try:
            said = undisturbed(functools.partial(_asked_for_its_version, tool))
        except (OSError, subprocess.SubprocessError, Killed):
            raise ConfigError(f"render.backend = 'pdf2image', but Poppler's {tool} does not run: {INSTALL}") from None
        versions.append(said.decode("utf-8", "replace").partition("\n")[0].rpartition(" ")[2])
    if versions[0] != versions[1]:
        raise ConfigError(f"pdftoppm {versions[0]} and pdfinfo {versions[1]} are of two versions of Poppler: {INSTALL}")
    return f"poppler {versions[0]}, pdf2image {package}"


def _asked_for_its_version(tool: str) -> bytes:
    done = subprocess.run([tool, "-v"], capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    if is_outside_kill(done.returncode):
        raise Killed(how_it_ended(done.returncode))
    done.check_returncode()
    return done.stderr


def render_with_poppler(
    path: str, num_pages: int, pages: Sequence[Wanted], limits: Limits
) -> Iterator[Image.Image | DocumentError]:
    """Consecutive pages of one file as RGB images of exactly the wanted sizes; an error in the place of a page's image.

    Args:
        path: a file that opens without a password.
        num_pages: of the file, as PyMuPDF counts them.

    Raises:
        DocumentError: Poppler does not open the file, or counts other pages.
    """
    shapes = _shapes(path, num_pages, pages[0].index, len(pages), limits)
    for (shape, grid), same in itertools.groupby(zip(pages, shapes, strict=True), lambda p: (p[1], p[0].grid)):
        alike = [page for page, _ in same]
        size = max(1, min(MAX_RUN_PAGES, MAX_RUN_PIXELS // (grid.height * grid.width)))
        for start in range(0, len(alike), size):
            yield from _render_run(path, alike[start : start + size], shape, limits)


def _render_run(path: str, run: list[Wanted], shape: _Shape, limits: Limits) -> Iterator[Image.Image | DocumentError]:
    if len(run) > 1:
        together = _attempt(path, run, shape, limits)
        if not isinstance(together, DocumentError):
            yield from together
            return
    for page in run:
        alone = _attempt(path, [page], shape, limits)
        yield alone if isinstance(alone, DocumentError) else alone[0]


def _disagreement(page: Wanted, shape: _Shape) -> str:
    """Why Poppler's image would not show what the text was read from; '' where it would."""
    if shape.rotation % 90 == 0:
        shown = [side * page.user_unit for side in shape.shown]
        if all(abs(a - b) <= SAME_SIZE * b for a, b in zip(shown, (page.width, page.height), strict=True)):
            return ""
    return (
        f"page {page.index + 1}: Poppler shows {shape.width:g} x {shape.height:g} pt turned by {shape.rotation}, "
        f"PyMuPDF shows {page.width:g} x {page.height:g} pt"
    )


def _attempt(path: str, run: list[Wanted], shape: _Shape, limits: Limits) -> list[Image.Image] | DocumentError:
    """All images of a run, or why there are none."""
    import pdf2image

    first, last, grid = run[0].index + 1, run[-1].index + 1, run[0].grid
    size, sideways = (grid.width, grid.height), shape.rotation % 180 != 0
    what = f"page {first}" if first == last else f"pages {first}-{last}"
    different = next(filter(None, (_disagreement(page, shape) for page in run)), "")
    if different:
        return DocumentError("render-failed", different)
    how: dict[str, Any] = {"size": size}
    if sideways:
        how = {"dpi": 72 * max(a / b for a, b in zip(size, shape.shown, strict=True))}
    try:
        convert = functools.partial(
            pdf2image.convert_from_path, path, first_page=first, last_page=last, use_cropbox=True, **how
        )
        with _confined(limits):
            found = undisturbed(convert)
        images = [image.convert("RGB") for image in found]
        if sideways:
            images = [image.resize(size, Image.Resampling.LANCZOS) for image in images]
    except MemoryError:
        raise
    except pdf2image.exceptions.PDFPopplerTimeoutError:
        detail = f"{what}: Poppler took more than {limits.timeout_s:g} s; raise workers.page_timeout_s"
        return DocumentError("render-timeout", detail)
    except Exception as e:  # pdf2image and Pillow raise what they like on what Poppler left unfinished
        return DocumentError("render-failed", f"{what}: {_last_line(e)}")
    if [image.size for image in images] != [size] * len(run):
        got = ", ".join(f"{image.width} x {image.height} px" for image in images) or "no image"
        return DocumentError("render-failed", f"{what}: Poppler gives {got}, not {grid.width} x {grid.height} px each")
    return images


def _shapes(path: str, num_pages: int, first_page: int, count: int, limits: Limits) -> list[_Shape]:
    """What Poppler says of each page."""
    import pdf2image

    try:
        ask = functools.partial(
            pdf2image.pdfinfo_from_path, path, first_page=first_page + 1, last_page=first_page + count
        )
        with _confined(limits):
            said = undisturbed(ask)
    except MemoryError:
        raise
    except Exception as e:  # what pdf2image makes of a tool that fails
        raise DocumentError("render-failed", f"Poppler does not open it: {_last_line(e)}") from None
    if said["Pages"] != num_pages:
        detail = f"Poppler counts {said['Pages']} pages, PyMuPDF {num_pages}; use render.backend=pymupdf"
        raise DocumentError("render-failed", detail)
    by_number = {}
    for key, value in said.items():
        words = key.split()  # "Page    3 size", "Page    3 rot"
        if len(words) == 3 and words[0] == "Page":
            by_number[words[1], words[2]] = value
    shapes = []
    for number in range(first_page + 1, first_page + count + 1):
        try:
            width, _, height = by_number[str(number), "size"].split()[:3]
            shapes.append(_Shape(float(width), float(height), int(by_number[str(number), "rot"])))
        except (KeyError, ValueError):
            shapes.append(_Shape(0.0, 0.0, 0))  # agrees with no page
    return shapes


def _last_line(error: BaseException) -> str:
    """Where pdf2image quotes what Poppler said last, short enough for a ledger."""
    return (str(error).splitlines() or [type(error).__name__])[-1][:200]


@contextmanager
def _confined(limits: Limits) -> Iterator[None]:
    """Let pdf2image start its processes within the limits, and so that they end with this one.

    It offers neither: it starts `pdfinfo` without a limit, and when a worker is killed, a hanging `pdftoppm` stays.
    """
    from pdf2image import pdf2image as internals

    original = internals.Popen
    internals.Popen = functools.partial(_Confined, limits)
    try:
        yield
    finally:
        internals.Popen = original


class _Confined(subprocess.Popen[bytes]):
    """A process with limits, and without standard input."""

    def __init__(self, limits: Limits, *args: Any, **options: Any) -> None:
        self._limits = limits
        self._ended_by_us = False
        confine = functools.partial(_confine, os.getpid(), limits.memory_mb << 20)
        super().__init__(*args, **{**options, "stdin": subprocess.DEVNULL, "preexec_fn": confine})

    def communicate(self, input: bytes | None = None, timeout: float | None = None) -> tuple[bytes, bytes]:
        """As always, but with a limit where the caller sets none.

        Raises:
            Killed: the process was killed from outside.
        """
        said = super().communicate(input, self._limits.timeout_s if timeout is None else timeout)
        if is_outside_kill(self.returncode) and not self._ended_by_us:
            raise Killed(f"Poppler was {how_it_ended(self.returncode)}")
        return said

    def kill(self) -> None:
        self._ended_by_us = True
        super().kill()


def _confine(parent: int, memory_bytes: int) -> None:
    """In the new process, before Poppler: end when the parent ends, take no more memory, leave no core file."""
    _LIBC.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
