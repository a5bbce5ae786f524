"""How fast and how right each OCR engine reads, against the text layer of born-digital pages, in one run.

    python benchmarks/bench_ocr.py PDF [PDF ...] [--pages 4] [--dpi 144]
        [--paddle-python PYTHON --paddle-models DIR] [--out results.json]

Pages with a sound text layer and next to no pictures are rasterised as a build does it and read by every engine in
turn, page by page, once as they are and once worn: shrunk to two fifths and back, with noise, as a hard JPEG. One
thread each; loading the engine and a blank page to warm it up are not timed. PaddleOCR is timed through its pipe. CPU
seconds are those of this process and of PaddleOCR's; on a shared machine they travel, seconds do not.

The character error rate is the Levenshtein distance (rapidfuzz) over the characters of the text layer, both sides in
Unicode NFKC with runs of white space as one space, case and punctuation kept. **Reading order is left out of it**: each
word of the text layer belongs to the line of OCR whose box holds its middle, and a line is compared with its own words
from left to right. Words that no line holds count whole (missed), and so do lines that hold no word (extra).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import json
import os
import platform
import statistics
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rapidfuzz.distance import Levenshtein

from corpus.config import OcrSettings
from corpus.layout import image_share
from corpus.ocr import OcrLine, load_engine, mean_confidence
from corpus.parse import PageView, read_layout
from corpus.records import Box, PageGrid
from corpus.render import VERSION, open_pdf, render
from corpus.rundir import available_cores
from corpus.text_layer import SOUND, examine
from corpus.vision_tokens import natural_size

MIN_CHARS = 500  # of a page's text layer
MAX_PICTURES = 0.05  # of a page's area: letters in a picture are in no text layer


@dataclass(frozen=True, slots=True)
class Sheet:
    """A rasterised page. `words`: box in pixels, text, of its text layer."""

    document: str
    page: int
    image: np.ndarray
    words: tuple[tuple[Box, str], ...]


@dataclass(frozen=True, slots=True)
class Score:
    """Characters: of the text layer, and wrong in lines, missed whole, read where the layer has nothing."""

    letters: int
    wrong: int
    missed: int
    extra: int


def plain(text: str) -> str:
    """NFKC, white space collapsed."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def compare(words: tuple[tuple[Box, str], ...], lines: list[OcrLine]) -> Score:
    """What OCR made of a page, line by line, whatever the order of the lines."""
    held: list[list[tuple[float, str]]] = [[] for _ in lines]
    missed = 0
    for (x0, y0, x1, y1), text in words:
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        boxes = [line.box for line in lines]
        holding = [i for i, b in enumerate(boxes) if b[0] <= x <= b[2] and b[1] <= y <= b[3]]
        if holding:
            nearest = min(holding, key=lambda i: abs((boxes[i][1] + boxes[i][3]) / 2 - y))
            held[nearest].append((x0, text))
        else:
            missed += len(plain(text))
    letters, wrong, extra = missed, 0, 0
    for line, own in zip(lines, held, strict=True):
        printed = plain(" ".join(text for _, text in sorted(own)))
        letters += len(printed)
        if printed:
            wrong += Levenshtein.distance(printed, plain(line.text))
        else:
            extra += len(plain(line.text))
    return Score(letters, wrong, missed, extra)


def sheets(file: Path, count: int, dpi: int) -> Iterator[Sheet]:
    """Up to `count` suitable pages, spread over the document."""
    with open_pdf(file) as pdf:
        suitable = []
        for index in range(pdf.page_count):
            page = pdf[index]
            layout, verdict = examine(read_layout(page, use_model=False), PageView(page))
            pictures = image_share(PageView(page).painting(), layout)
            enough = sum(len(w.text) for w in layout.words) >= MIN_CHARS and pictures <= MAX_PICTURES
            if enough and verdict == SOUND:
                suitable.append(index)
        for index in suitable[len(suitable) // (2 * count) :: max(1, len(suitable) // count)][:count]:
            page = pdf[index]
            height, width = natural_size(page.rect.width, page.rect.height, dpi)
            x, y = width / page.rect.width, height / page.rect.height
            words = tuple(
                ((w.box[0] * x, w.box[1] * y, w.box[2] * x, w.box[3] * y), w.text)
                for w in read_layout(page, use_model=False).words
            )
            image = np.asarray(render(page, PageGrid(height=height, width=width)))
            yield Sheet(file.name, index + 1, image, words)


def worn(image: np.ndarray) -> np.ndarray:
    """The page as a bad copy of itself."""
    page = Image.fromarray(image)
    small = page.resize((page.width * 2 // 5, page.height * 2 // 5), Image.Resampling.BILINEAR).resize(page.size)
    noise = np.random.default_rng(0).normal(0, 20, (page.height, page.width, 1))
    noisy = Image.fromarray(np.clip(np.asarray(small) + noise, 0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    noisy.save(buffer, "JPEG", quality=30)
    return np.asarray(Image.open(buffer))


def cpu_seconds() -> float:
    """Of this process and its children: PaddleOCR's server."""
    ticks = 0
    for thread in Path("/proc/self/task").iterdir():
        for child in (thread / "children").read_text().split():
            user, system = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11:13]
            ticks += int(user) + int(system)
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Pages/s and error rates of one engine on one kind of page."""
    letters = sum(r["letters"] for r in rows)
    return {
        "pages": len(rows),
        "pages_per_s": round(len(rows) / sum(r["seconds"] for r in rows), 3),
        "pages_per_cpu_s": round(len(rows) / sum(r["cpu_seconds"] for r in rows), 3),
        "cer": round(sum(r["wrong"] + r["missed"] + r["extra"] for r in rows) / letters, 5),
        "cer_in_lines": round(sum(r["wrong"] for r in rows) / letters, 5),
        "missed": round(sum(r["missed"] for r in rows) / letters, 5),
        "extra": round(sum(r["extra"] for r in rows) / letters, 5),
        "mean_confidence": round(statistics.mean(r["confidence"] for r in rows), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--pages", type=int, default=4, help="of each document")
    parser.add_argument("--dpi", type=int, default=OcrSettings().dpi)
    parser.add_argument("--paddle-python", help="interpreter with PaddleOCR; without it RapidOCR is measured alone")
    parser.add_argument("--paddle-models", help="folder for ocr.models; see benchmarks/paddle_models.py")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    settings = {"rapidocr": OcrSettings()}
    if args.paddle_python:
        settings["paddleocr"] = OcrSettings(engine="paddleocr", python=args.paddle_python, models=args.paddle_models)
    engines = {name: load_engine(s) for name, s in settings.items()}
    for engine in engines.values():
        engine.read(np.full((64, 256, 3), 255, np.uint8))
    rows = []
    for sheet in (s for file in args.files for s in sheets(file, args.pages, args.dpi)):
        for kind, image in (("clean", sheet.image), ("worn", worn(sheet.image))):
            for name, engine in engines.items():
                started, cpu_before = time.perf_counter(), cpu_seconds()
                lines = engine.read(image)
                seconds, cpu = time.perf_counter() - started, cpu_seconds() - cpu_before
                score = compare(sheet.words, lines)
                rows.append(
                    {
                        "document": sheet.document,
                        "page": sheet.page,
                        "kind": kind,
                        "engine": name,
                        "seconds": round(seconds, 2),
                        "cpu_seconds": round(cpu, 2),
                        "letters": score.letters,
                        "wrong": score.wrong,
                        "missed": score.missed,
                        "extra": score.extra,
                        "confidence": round(mean_confidence(lines), 4),
                    }
                )
                print(json.dumps(rows[-1]), flush=True)
    packages = ("rapidocr", "onnxruntime", "rapidfuzz", "pillow", "numpy")
    result = {
        "machine": f"{platform.machine()}, {available_cores()} cores, Python {platform.python_version()}",
        "versions": {p: importlib.metadata.version(p) for p in packages}
        | {"pymupdf": VERSION}
        | {name: engine.version for name, engine in engines.items()},
        "dpi": args.dpi,
        "summary": {
            f"{name}, {kind}": summary([r for r in rows if (r["engine"], r["kind"]) == (name, kind)])
            for name in engines
            for kind in ("clean", "worn")
        },
        "pages": rows,
    }
    print(json.dumps(result["summary"], indent=2))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
