"""Hand-made inputs: small PDFs, records with sensible defaults, and what a worker process may be asked to do.

Imported by the worker processes of some tests, so nothing heavy is loaded at the top.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from corpus.errors import DocumentError, EngineError
from corpus.records import Block, Document, Evidence, Page, Question

DOC_ID = "0123456789abcdef"
LETTER = (612.0, 792.0)
MARGIN = 72
FONT_SIZE = 12
LEADING = 16

NO_POPPLER = "" if shutil.which("pdftoppm") else "Poppler is not installed (Debian: apt-get install poppler-utils)"

Progress = Callable[[int], None]

# ------------------------------------------------------------------------------------------------------- records


def block(text: str = "", kind: str = "text", **changes: Any) -> Block:
    """A block of text somewhere on the page."""
    return Block(**{"kind": kind, "box": (72.0, 72.0, 540.0, 90.0), "text": text, **changes})


def page(index: int = 0, *blocks: Block | str, **changes: Any) -> Page:
    """A Letter page with a sound text layer; a plain string stands for a block of text."""
    made = tuple(block(b) if isinstance(b, str) else b for b in blocks)
    values: dict[str, Any] = {
        "doc_id": DOC_ID,
        "index": index,
        "width": LETTER[0],
        "height": LETTER[1],
        "rotation": 0,
        "text_source": "layer",
        "blocks": made,
    }
    return Page(**{**values, **changes})


def question(**changes: Any) -> Question:
    """An accepted question about the first page of `document()`."""
    values: dict[str, Any] = {
        "question_id": "q0123456789abcde",
        "doc_id": DOC_ID,
        "task": "extract-single",
        "question": "What is the net income of 2023?",
        "answer": "1,234",
        "answer_format": "String",
        "evidence": (Evidence(page=0, kind="Table", quote="1,234", box=(300.0, 200.0, 330.0, 212.0)),),
        "segment_first": 0,
        "segment_pages": 1,
    }
    return Question(**{**values, **changes})


def document(**changes: Any) -> Document:
    """A document of ten pages that ingest accepted."""
    sha256 = changes.get("sha256", DOC_ID * 4)
    values: dict[str, Any] = {
        "doc_id": sha256[:16],
        "sha256": sha256,
        "uri": "/library/report.pdf",
        "num_bytes": 1_000,
        "num_pages": 10,
    }
    return Document(**{**values, **changes})


# ---------------------------------------------------------------------------------------------------------- PDFs


def write_pdf(
    path: Path,
    pages: int = 3,
    text: str | Sequence[str] = "This is page {page} of a small document.",
    images: bool = False,
    bookmarks: Sequence[tuple[int, str, int]] = (),
    rotation: int = 0,
    size: tuple[float, float] = LETTER,
    crop: tuple[float, float, float, float] | None = None,
    password: str | None = None,
) -> Path:
    """Write a small PDF with reportlab; the same arguments give the same bytes.

    Args:
        text: of every page ("{page}" becomes its number, lines are kept), or one text a page.
        images: a page is a picture of its text, without a text layer.
        bookmarks: (level from 1, title, page index).
        rotation: degrees clockwise by which a viewer turns what is drawn here.
        size: of the page in points, as displayed.
        crop: crop box in PDF coordinates, before rotation (origin bottom left).
        password: the document is encrypted with it.
    """
    from reportlab.pdfgen.canvas import Canvas

    texts = [text] * pages if isinstance(text, str) else list(text)
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size if rotation % 180 == 0 else size[::-1]  # reportlab swaps the sides of a page on its side
    canvas = Canvas(str(path), pagesize=size, invariant=1, encrypt=password)
    for index, template in enumerate(texts):
        lines = template.replace("{page}", str(index + 1)).splitlines()
        canvas.setPageRotation(rotation)
        if crop:
            canvas.setCropBox(crop)
        if images:
            from reportlab.lib.utils import ImageReader

            picture = picture_of(lines, (width, height))
            canvas.drawImage(ImageReader(picture), 0, 0, width, height)
        else:
            canvas.setFont("Helvetica", FONT_SIZE)
            for number, line in enumerate(lines):
                canvas.drawString(MARGIN, height - MARGIN - number * LEADING, line)
        for entry, (level, title, at) in enumerate(bookmarks):
            if at == index:
                canvas.bookmarkPage(f"bookmark-{entry}")
                canvas.addOutlineEntry(title, f"bookmark-{entry}", level - 1)
        canvas.showPage()
    canvas.save()
    return path


def picture_of(lines: Sequence[str], size: tuple[float, float]) -> Any:
    """Black text on white, at 144 pixels an inch."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("L", (round(size[0] * 2), round(size[1] * 2)), 255)
    font = ImageFont.load_default(size=2 * FONT_SIZE)
    for number, line in enumerate(lines):
        ImageDraw.Draw(image).text((2 * MARGIN, 2 * (MARGIN + number * LEADING)), line, fill=0, font=font)
    return image


def write_raw_pdf(
    path: Path, pages: Sequence[tuple[str, str]], catalog: str = "", objects: Sequence[bytes] = (), trailer: str = ""
) -> Path:
    """Write a PDF by hand, for what no library would write.

    Args:
        pages: (entries of the page, content stream). Unless the entries say otherwise, `/F1` is Helvetica.
        catalog: entries of the catalog.
        objects: further objects, which the entries may name as `4 0 R`, `5 0 R` and so on.
        trailer: entries of the trailer.
    """
    first = 4 + len(objects)
    kids = " ".join(f"{first + 2 * i} 0 R" for i in range(len(pages)))
    written = [
        f"<</Type/Catalog/Pages 2 0 R{catalog}>>".encode(),
        f"<</Type/Pages/Count {len(pages)}/Kids[{kids}]>>".encode(),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
        *objects,
    ]
    for i, (entries, content) in enumerate(pages):
        if "/Resources" not in entries:
            entries += "/Resources<</Font<</F1 3 0 R>>>>"
        if "/Contents" not in entries:
            entries += f"/Contents {first + 2 * i + 1} 0 R"
        written.append(f"<</Type/Page/Parent 2 0 R{entries}>>".encode("latin-1"))
        stream = content.encode("latin-1")
        written.append(b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream))
    data, table = b"%PDF-1.6\n", b"0000000000 65535 f \n"
    for number, body in enumerate(written, start=1):
        table += b"%010d 00000 n \n" % len(data)
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    size = len(written) + 1
    end = f"trailer\n<</Root 1 0 R/Size {size}{trailer}>>\nstartxref\n{len(data)}\n%%EOF\n"
    path.write_bytes(data + b"xref\n0 %d\n%s" % (size, table) + end.encode())
    return path


def poppler_in_the_way(folder: Path, script: str, tool: str = "pdftoppm") -> Path:
    """A folder for PATH in which a tool of Poppler's is a shell script; it may end with `exec "$REAL" "$@"`."""
    real = shutil.which(tool)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / tool).write_text(f"#!/bin/sh\nREAL={real}\nHERE={folder}\n{script}\n")
    (folder / tool).chmod(0o755)
    return folder


PDF_WITHOUT_PAGES = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Count 0/Kids[]>>endobj\ntrailer<</Root 1 0 R/Size 3>>\n%%EOF\n"
)

# ----------------------------------------------------------------------------------------- tasks of worker processes


def double(argument: int, progress: Progress) -> int:
    """A task that succeeds and reports that it did one page."""
    progress(1)
    return 2 * argument


def say_pid(argument: Any, progress: Progress) -> int:
    """Which process ran the task."""
    return os.getpid()


def crash(argument: Any, progress: Progress) -> None:
    """A segmentation fault, as a broken C library has it."""
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)


def die_at_first(argument: tuple[Path, int, signal.Signals], progress: Progress) -> int:
    """A task whose process is ended by a signal the first so many times, after one page; then how often it ran.

    Every run adds its process id to the file.
    """
    file, times, number = argument
    progress(1)
    with open(file, "a") as notes:
        notes.write(f"{os.getpid()}\n")
    runs = len(file.read_text().splitlines())
    if runs > times:
        return runs
    time.sleep(0.05)  # for the parent to hear of the page
    os.kill(os.getpid(), number)
    time.sleep(60)
    raise AssertionError("unreachable")


def run_beside(argument: tuple[Path, str, int], progress: Progress) -> list[str]:
    """A task that is killed the first so many times; then the names of those that run at the same time.

    Each has a file of its name in the folder while it runs.
    """
    folder, name, times = argument
    kills = folder / f"{name}.kills"
    count = len(kills.read_text()) if kills.exists() else 0
    mark = folder / f"{name}.runs"
    mark.touch()
    time.sleep(0.2)
    beside = sorted(f.stem for f in folder.glob("*.runs") if f != mark)
    mark.unlink()
    if count < times:
        kills.write_text("x" * (count + 1))
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
    return beside


def stand_still(argument: int, progress: Progress) -> None:
    """A task that reports a number of pages and then hangs."""
    for _ in range(argument):
        progress(1)
    time.sleep(600)


def leave(argument: int, progress: Progress) -> None:
    """A library that ends the process."""
    os._exit(argument)


def hang(argument: Any, progress: Progress) -> None:
    """A task that never ends; writes its process id to `argument`, if that is a file."""
    if argument:
        Path(argument).write_text(str(os.getpid()))
    time.sleep(600)


def eat_memory(argument: int, progress: Progress) -> None:
    """Hold `argument` MB until somebody ends it."""
    held = b"x" * (argument << 20)
    time.sleep(600 if held else 0)


def raise_memory_error(argument: Any, progress: Progress) -> None:
    """What a failed allocation looks like."""
    raise MemoryError


def raise_value_error(argument: str, progress: Progress) -> None:
    """A bug."""
    raise ValueError(argument)


def refuse(argument: tuple[str, str], progress: Progress) -> None:
    """A fault of one document."""
    raise DocumentError(*argument)


class InlinePool:
    """Runs tasks in this process; `fault(task)` may give a `Failure` instead. Stands in for `WorkerPool`."""

    def __init__(self, fault: Callable[[Any], Any]) -> None:
        self._fault = fault

    def __call__(self, *_: int) -> InlinePool:
        return self

    def __enter__(self) -> InlinePool:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, tasks: Iterable[Any], progress: Progress) -> Iterator[Any]:
        from corpus.workers import Outcome

        for task in tasks:
            yield Outcome(task.key, self._fault(task) or task.function(task.argument, progress))


def engine_fault(argument: str, progress: Progress) -> None:
    """The outside failed."""
    raise EngineError(argument)


def render_a_page(argument: str, progress: Progress) -> None:
    """Render the first page of a file of one Letter page with Poppler, without a limit of its own."""
    from corpus.poppler import Limits, Wanted, render_with_poppler
    from corpus.records import PageGrid

    wanted = Wanted(index=0, width=612, height=792, user_unit=1, grid=PageGrid(height=28, width=28))
    list(render_with_poppler(argument, 1, [wanted], Limits(timeout_s=600, memory_mb=2_048)))


# ------------------------------------------------------------------------------------------ PaddleOCR, without models

PADDLE_LIBRARY = '''
"""Stands in for PaddleOCR: reads nothing, but does what the red of a page's first pixel says."""
import os, signal, sys, time
from pathlib import Path

HERE = Path(__file__).parent
print("a greeting on standard output")
os.write(1, b"\\x00\\x00\\x00\\x02{}")  # to whoever believes that it may speak there
START, RAISE, LEAVE, CRASH, KILLED_ONCE, HANG, EAT, UPSIDE_DOWN, KILLED_SO_OFTEN = range(9)


def killed(name, times):
    """Whether this process is to be killed now, as it was less than so often by this name."""
    with open(HERE / name, "a") as f:
        f.write("x")
    return (HERE / name).stat().st_size <= times


class HalfOf:
    """A pipe whose process is killed when half of the first reply to a page is out."""

    def __init__(self, pipe):
        self.pipe, self.frames = pipe, 0

    def write(self, data):
        self.frames += data[:4] != b"" and data[4:5] == b"{"
        if self.frames == 2 and killed("killed-in-reply", 1):
            self.pipe.write(data[: len(data) // 2])
            self.pipe.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.pipe.write(data)

    def flush(self):
        self.pipe.flush()


if (HERE / "killed-in-reply").exists():
    server = sys.modules["__main__"]
    write_frame = server.write_frame
    halved = {}
    server.write_frame = lambda pipe, *frame: write_frame(halved.setdefault(pipe, HalfOf(pipe)), *frame)


class PaddleOCR:
    def __init__(self, **options):
        (HERE / "options.txt").write_text(repr(options))
        with open(HERE / "starts.txt", "a") as f:
            f.write(f"{os.getpid()}\\n")
        at_start = HERE / "killed-at-start"
        if at_start.exists() and int(at_start.read_text()) > 0:
            at_start.write_text(str(int(at_start.read_text()) - 1))
            os.kill(os.getpid(), signal.SIGKILL)
        if (HERE / "broken").exists():
            raise RuntimeError((HERE / "broken").read_text())

    def predict(self, page):
        print("reading", page.shape)
        sys.stdout.flush()
        (HERE / "reading.txt").touch()
        what, argument = int(page[0, 0, 2]), int(page[0, 0, 1])
        if what == RAISE:
            raise ValueError("cannot read this\\nin many words")
        if what == LEAVE:
            print("last words of the library", file=sys.stderr, flush=True)
            os._exit(argument)
        if what == CRASH:
            os.kill(os.getpid(), signal.SIGSEGV)
        if what == KILLED_ONCE and killed("killed-once", 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if what == KILLED_SO_OFTEN and killed("kills", argument):
            os.kill(os.getpid(), signal.SIGKILL)
        if what == HANG:
            time.sleep(600)
        if what == EAT:
            held = b"x" * (argument << 24)
            time.sleep(600)
        on_its_head = int(page[-1, -1, 2]) == UPSIDE_DOWN
        sure = 0.4 if what == UPSIDE_DOWN else 0.99
        height, width = page.shape[:2]
        return [
            {
                "rec_polys": [[[1, 2], [width - 3, 2], [width - 3, 12], [1, 12]], [[1, 20], [9, 20], [9, 30], [1, 30]]],
                "rec_texts": [" Words on the page ", " "],
                "rec_scores": [sure, 0.5],
            }
        ]
'''
RAISE, LEAVE, CRASH, KILLED_ONCE, HANG, EAT, UPSIDE_DOWN, KILLED_SO_OFTEN = range(1, 9)  # what its pages may ask of it


def write_paddle_environment(folder: Path) -> Path:
    """An environment of its own whose PaddleOCR is the library above; its interpreter. Its files lie in `library`."""
    import sysconfig
    import venv

    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    (site / "paddleocr.py").write_text(PADDLE_LIBRARY)
    (site / "paddleocr-3.0.dist-info").mkdir()
    (site / "paddleocr-3.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: paddleocr\nVersion: 3.0\n")
    (site / "numpy.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (folder / "library").symlink_to(site)
    return folder / "bin" / "python"


def page_that_asks(what: int, argument: int = 0) -> Any:
    """A page of 40 by 60 pixels for the library above."""
    import numpy as np

    page = np.full((40, 60, 3), 255, np.uint8)
    page[0, 0] = (what, argument, 0)
    return page


def ask_paddle(argument: tuple[str, int, int], progress: Progress) -> None:
    """Have PaddleOCR in an interpreter read a page, in a worker."""
    from corpus.config import OcrSettings
    from corpus.ocr import load_engine

    python, what, extent = argument
    load_engine(OcrSettings(engine="paddleocr", python=python)).read(page_that_asks(what, extent))
