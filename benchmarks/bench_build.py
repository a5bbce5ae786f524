"""How fast one worker turns pages into shards, beside a bare PyMuPDF + Pillow loop over the same pages, in one run.

    python benchmarks/bench_build.py PDF [PDF ...] [--pages 120] [--repeats 5] [--out results.json]

Three ways run in this process, in turn, document by document, and the ratio is taken round by round, so that a machine
whose speed drifts does not decide the result:

- `bare` renders at 144 DPI, encodes JPEG quality 90 and reads the words of each page, and writes nothing.
- `shards` renders at the model's grid, encodes, extracts words and lines, makes blocks of them, and writes the tar with
  its index and checksum to disk.
- `checked` is `shards` with all else that a build does to a born-digital page before there are questions: the tests of
  its text layer, the hashes by which copies are found, the language.

The layout model and OCR are timed on their own lines. Peak memory is of the whole process.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import tempfile
import time
from collections import Counter
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
from corpus.parse import PageView, read_layout, thumbnail, wants_image
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


def shards(files: list[Path], limit: int) -> int:
    """Words, lines, blocks, page images and a tar on disk."""
    return _shards(files, limit, read=lambda page, _: layer_blocks(read_layout(page, use_model=False)), close=len)


def checked(files: list[Path], limit: int) -> int:
    """The same, with the tests of the text layer, what copies are found by, and the language."""
    return _shards(files, limit, read=_checked_page, close=_sketch)


def _shards(
    files: list[Path], limit: int, read: Callable[[Any, int], Any], close: Callable[[list[Any]], object]
) -> int:
    family = FAMILIES[MODEL]
    with tempfile.TemporaryDirectory() as folder:

        def members(file: Path):
            pages = []
            with open_pdf(file) as pdf:
                for index in range(min(limit, pdf.page_count)):
                    page = pdf[index]
                    pages.append(read(page, index))
                    grid = snap(*natural_size(page.rect.width, page.rect.height, 144), family)
                    yield page_name(index), encode(render(page, grid), "jpeg", RenderSettings().quality)
            close(pages)

        samples = ((f"{i:016x}-w00", members(file)) for i, file in enumerate(files))
        _, written = write_shards(Path(folder), "p0000", samples, max_bytes=10**9)
    return len(written)


def _checked_page(page: Any, index: int) -> Page:
    """A page with a text layer as `corpus.parse` reads it, without the layout model."""
    layout, verdict = examine(read_layout(page, use_model=False), PageView(page))
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


def _sketch(pages: list[Page]) -> None:
    words = [page_words(p) for p in pages]
    for page, of_page in zip(pages, words, strict=True):
        page_sketch(page, of_page)
    minhash_of(map(run_hashes, words))
    detect_language([p.text for p in pages])


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


def timed(work: Callable[[list[Path], int], int], files: list[Path], limit: int) -> tuple[int, float]:
    """Pages and seconds; CPU time would hide waiting for the disk, so this is wall time."""
    started = time.perf_counter()
    pages = work(files, limit)
    return pages, time.perf_counter() - started


def pages_per_second(work: Callable[[list[Path], int], int], files: list[Path], limit: int) -> float:
    pages, seconds = timed(work, files, limit)
    return round(pages / seconds, 2)


def one_round(files: list[Path], limit: int) -> dict[str, float]:
    """Pages a second by way; the ways take turns on each document."""
    pages, seconds = 0, Counter[str]()
    for file in files:
        for way in WAYS:
            done, took = timed(way, [file], limit)
            seconds[way.__name__] += took
        pages += done
    return {name: pages / took for name, took in seconds.items()}


WAYS = (bare, shards, checked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--pages", type=int, default=60, help="of each document, at most")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    one_round(args.files, 2)  # imports and caches
    rounds = [one_round(args.files, args.pages) for _ in range(args.repeats)]
    of_bare = {way.__name__: [r[way.__name__] / r["bare"] for r in rounds] for way in WAYS[1:]}
    result = {
        "documents": [f.name for f in args.files],
        "pages_of_each_at_most": args.pages,
        "repeats": args.repeats,
        "pages_per_s": {w.__name__: round(statistics.median(r[w.__name__] for r in rounds), 1) for w in WAYS},
        "of_bare": {
            name: {"median": round(statistics.median(r), 3), "min": round(min(r), 3), "max": round(max(r), 3)}
            for name, r in of_bare.items()
        },
        "layout_model_pages_per_s": pages_per_second(layout_model, args.files, 10),
        "ocr_pages_per_s": pages_per_second(ocr, args.files, OCR_PAGES),
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
