"""How fast one worker turns pages into shards, beside a bare PyMuPDF + Pillow loop over the same pages, in one run.

    python benchmarks/bench_build.py PDF [PDF ...] [--pages 120] [--repeats 5] [--out results.json]

Both sides run in this process, in turn, on the same pages: A B A B ..., and the ratio is taken pair by pair, so that
a machine whose speed drifts does not decide the result. The bare loop renders at 144 DPI, encodes JPEG quality 90 and
reads the words of each page, and writes nothing. Ours renders at the model's grid, encodes, extracts words and lines,
examines them and makes blocks of them, makes the hashes by which copies are found, detects the language, and writes
the tar with its index and checksum to disk. The layout model and OCR are timed
on their own lines. Peak memory is of the whole process.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image

from corpus.blocks import layer_blocks
from corpus.config import ParseSettings, RenderSettings
from corpus.language import detect_language
from corpus.ocr import RapidOcr
from corpus.page_images import image_hash
from corpus.parse import image_share, read_layout, thumbnail, wants_image
from corpus.records import Page, PageGrid
from corpus.render import VERSION, encode, open_pdf, pymupdf, render
from corpus.rundir import available_cores
from corpus.shards import page_name, write_shards
from corpus.sketches import minhash_of, page_sketch, page_words, run_hashes
from corpus.tables import strict_tables
from corpus.text_layer import SOUND, examine
from corpus.vision_tokens import FAMILIES, natural_size, snap

MODEL = "qwen2.5-vl"
OCR_PAGES = 3


def bare(files: list[Path], limit: int) -> int:
    """The least that any such tool must do."""
    done = 0
    for file in files:
        with pymupdf.open(file) as pdf:
            for page in list(pdf)[:limit]:
                pixels = page.get_pixmap(dpi=144)
                image = Image.frombytes("RGB", (pixels.width, pixels.height), pixels.samples)
                encode(image, "jpeg", RenderSettings().quality)
                page.get_text("words")
                done += 1
    return done


def read(page: Any, index: int) -> Page:
    """A page with a text layer as `corpus.parse` reads it, without the layout model."""
    layout, verdict = examine(read_layout(page, use_model=False), image_share(page))
    wanted = wants_image(ParseSettings(), verdict == SOUND, layout, "")
    return Page(
        doc_id="",
        index=index,
        width=page.rect.width,
        height=page.rect.height,
        rotation=page.rotation,
        text_source="layer",
        blocks=layer_blocks(layout),
        image_hash=image_hash(thumbnail(page)) if wanted else "",
    )


def ours(files: list[Path], limit: int) -> int:
    """Words, lines, blocks, what copies are found by, page images and a tar on disk."""
    family = FAMILIES[MODEL]
    with tempfile.TemporaryDirectory() as folder:

        def members(file: Path):
            pages: list[Page] = []
            with open_pdf(file) as pdf:
                for index in range(min(limit, pdf.page_count)):
                    page = pdf[index]
                    pages.append(read(page, index))
                    grid = snap(*natural_size(page.rect.width, page.rect.height, 144), family)
                    yield page_name(index), encode(render(page, grid), "jpeg", RenderSettings().quality)
            words = [page_words(p) for p in pages]
            for page, of_page in zip(pages, words, strict=True):
                page_sketch(page, of_page)
            minhash_of(map(run_hashes, words))
            detect_language([p.text for p in pages])

        samples = ((f"{i:016x}-w00", members(file)) for i, file in enumerate(files))
        _, written = write_shards(Path(folder), "p0000", samples, max_bytes=10**9)
    return len(written)


def layout_model(files: list[Path], limit: int) -> int:
    """The layout model and what is decided from it, without rendering."""
    done = 0
    for file in files:
        with open_pdf(file) as pdf:
            for index in range(min(limit, pdf.page_count)):
                layout = read_layout(pdf[index])
                layer_blocks(layout)
                strict_tables(layout)
                done += 1
    return done


def ocr(files: list[Path], limit: int) -> int:
    """RapidOCR on rendered pages."""
    engine = RapidOcr()
    done = 0
    for file in files[:1]:
        with open_pdf(file) as pdf:
            for index in range(min(limit, pdf.page_count)):
                height, width = natural_size(pdf[index].rect.width, pdf[index].rect.height, 144)
                engine.read(np.asarray(render(pdf[index], PageGrid(height=height, width=width))))
                done += 1
    return done


def pages_per_second(work: Callable[[list[Path], int], int], files: list[Path], limit: int) -> float:
    """Pages a second of CPU time would hide waiting for the disk, so this is wall time."""
    started = time.perf_counter()
    return work(files, limit) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--pages", type=int, default=60, help="of each document, at most")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    bare(args.files, 2)
    ours(args.files, 2)
    pairs = []
    for _ in range(args.repeats):
        pairs.append((pages_per_second(ours, args.files, args.pages), pages_per_second(bare, args.files, args.pages)))
    result = {
        "documents": [f.name for f in args.files],
        "pages_of_each_at_most": args.pages,
        "repeats": args.repeats,
        "ours_pages_per_s": round(statistics.median(a for a, _ in pairs), 1),
        "bare_pages_per_s": round(statistics.median(b for _, b in pairs), 1),
        "ratio_median": round(statistics.median(a / b for a, b in pairs), 3),
        "ratio_min": round(min(a / b for a, b in pairs), 3),
        "ratio_max": round(max(a / b for a, b in pairs), 3),
        "layout_model_pages_per_s": round(pages_per_second(layout_model, args.files, 10), 2),
        "ocr_pages_per_s": round(pages_per_second(ocr, args.files, OCR_PAGES), 2),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "versions": {"pymupdf": VERSION, "pillow": PIL.__version__, "python": platform.python_version()},
        "machine": f"{platform.machine()}, {available_cores()} cores",
    }
    text = json.dumps(result, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
