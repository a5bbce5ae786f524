"""Is every copy of a benchmark document caught, and nothing else? And are copies, and only copies, near-duplicates?

    python benchmarks/bench_decontamination.py BENCHMARK... [--unrelated FOLDER...] [--pages 40] [--ocr]

BENCHMARK are PDFs that have nothing to do with each other. Of each (its first N pages) copies are made: saved anew,
cropped by 5 %, 10 % and unevenly, cut to half its length, and as images of its pages (110 DPI, JPEG). Each copy must be
refused with the whole benchmark, each original must pass with the benchmark without itself, and so must every
unrelated PDF. Pages are parsed with font heuristics, without OCR unless asked for: words that OCR reads can only add
matches. Exit code 1 where one is judged wrongly.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corpus.benchmark_sets import BenchmarkPage, FingerprintJob, fingerprint_pdf
from corpus.config import DEFAULT_STORAGE, CleanSettings, OcrSettings, ParseSettings
from corpus.decontamination import Contamination, PageIndex, is_contaminated
from corpus.dedup import shared_pages
from corpus.errors import DocumentError
from corpus.ingest import Probe, ProbeJob, probe_file, stat_file
from corpus.parse import ParseJob, parse_pages
from corpus.records import Document, Page
from corpus.render import open_pdf, pymupdf
from corpus.rundir import available_cores
from corpus.sketches import PageSketch, page_sketch, page_words
from corpus.store import read_records

SETTINGS = CleanSettings()


def crop(left: float, top: float, right: float, bottom: float) -> Callable[[Any, Path], None]:
    """A copy whose crop box leaves out these shares of every page."""

    def write(pdf: Any, out: Path) -> None:
        for page in pdf:
            box = page.cropbox
            x, y = box.width, box.height
            page.set_cropbox(pymupdf.Rect(box.x0 + left * x, box.y0 + top * y, box.x1 - right * x, box.y1 - bottom * y))
        pdf.save(out)

    return write


def half(pdf: Any, out: Path) -> None:
    with pymupdf.open() as copy:
        copy.insert_pdf(pdf, to_page=(len(pdf) + 1) // 2 - 1)
        copy.save(out)


def as_images(pdf: Any, out: Path) -> None:
    with pymupdf.open() as copy:
        for page in pdf:
            picture = page.get_pixmap(dpi=110).tobytes("jpeg", jpg_quality=75)
            copy.new_page(width=page.rect.width, height=page.rect.height).insert_image(page.rect, stream=picture)
        copy.save(out)


COPIES: dict[str, Callable[[Any, Path], None]] = {
    "resaved": lambda pdf, out: pdf.save(out, garbage=4, deflate=True, clean=True),
    "cropped 5 %": crop(0.05, 0.05, 0.05, 0.05),
    "cropped 10 %": crop(0.1, 0.1, 0.1, 0.1),
    "cropped unevenly": crop(0.06, 0.1, 0.08, 0.05),
    "half": half,
    "images": as_images,
}


def sketch(file: Path, folder: Path, ocr: OcrSettings) -> list[PageSketch]:
    """The sketches of a document as a build makes them."""
    seen = stat_file(str(file))
    probe: Probe = probe_file(ProbeJob(seen=seen, password=None, storage=DEFAULT_STORAGE), lambda _: None)
    if probe.reason:
        raise DocumentError(probe.reason, probe.detail)
    document = Document(
        doc_id=probe.sha256[:16],
        sha256=probe.sha256,
        uri=str(file),
        num_bytes=probe.num_bytes,
        num_pages=probe.num_pages,
    )
    parse_pages(
        ParseJob(
            document=document,
            first_page=0,
            num_pages=document.num_pages,
            parse=ParseSettings(layout="fonts"),
            ocr=ocr,
            password=None,
            out=folder / "pages.parquet",
        ),
        lambda _: None,
    )
    return [page_sketch(p, page_words(p)) for p in read_records(folder / "pages.parquet", Page)]


def shown(found: Contamination | None) -> str:
    if found is None:
        return "-"
    return f"{found.document_pages}/{found.of_document} of ours, {found.benchmark_pages}/{found.of_benchmark} of theirs"


def fingerprint(files: list[Path], folder: Path, num_pages: int) -> dict[str, list[BenchmarkPage]]:
    """Copy the first pages of every benchmark document into the folder, and fingerprint the copies."""
    pages, seconds, total = {}, 0.0, 0
    for file in files:
        with open_pdf(file) as pdf, pymupdf.open() as first:
            first.insert_pdf(pdf, to_page=min(num_pages, len(pdf)) - 1)
            total += len(first)
            first.save(folder / file.name)
        started = time.process_time()
        job = FingerprintJob(uri=str(folder / file.name), name=file.name, storage=DEFAULT_STORAGE)
        pages[file.name] = list(fingerprint_pdf(job, lambda _: None).pages)
        seconds += time.process_time() - started
    hashes = sum(len(p.images) for of_document in pages.values() for p in of_document)
    print(
        f"{total} benchmark pages fingerprinted, {1000 * seconds / total:.0f} ms of CPU and "
        f"{hashes / total:.1f} image hashes each",
        flush=True,
    )
    return pages


def check_copies(originals: dict[str, list[PageSketch]], index: PageIndex, folder: Path, ocr: OcrSettings) -> int:
    """Make every copy of every document; returns how many were not caught."""
    missed = 0
    for kind, write in COPIES.items():
        shares, duplicates = {}, 0
        for name, original in originals.items():
            with open_pdf(folder / name) as pdf:
                write(pdf, folder / "copy.pdf")
            made = sketch(folder / "copy.pdf", folder, ocr)
            found = index.contamination(made, SETTINGS)
            if is_contaminated(found, SETTINGS) and found is not None and found.benchmark == name:
                shares[name] = found.share
            else:
                print(f"  NOT caught: {kind} {name}: {shown(found)}")
            shared, of = shared_pages(made, original, SETTINGS)
            duplicates += bool(of) and shared >= SETTINGS.duplicate_pages * of
        missed += len(originals) - len(shares)
        least = min(shares, key=lambda name: shares[name])
        print(
            f"{kind:17} {len(shares)} of {len(originals)} caught (least share {shares[least]:.2f}, {least}), "
            f"{duplicates} near-duplicates of their original",
            flush=True,
        )
    return missed


def check_unrelated(sketches: dict[str, list[PageSketch]], pages: dict[str, list[BenchmarkPage]]) -> int:
    """Compare every document with the benchmark without itself; returns how many were refused."""
    found = {
        name: PageIndex([p for n, own in pages.items() if n != name for p in own]).contamination(made, SETTINGS)
        for name, made in sketches.items()
    }
    wrong = [name for name, f in found.items() if is_contaminated(f, SETTINGS)]
    print(f"{len(found) - len(wrong)} of {len(found)} unrelated documents pass")
    for name, f in sorted(found.items(), key=lambda item: -(item[1].share if item[1] else 0))[:3]:
        print(f"  nearest: {name}: {shown(f)}")
    names = sorted(sketches)
    for i, a in enumerate(names):
        for b in names[:i]:
            shared, of = shared_pages(sketches[a], sketches[b], SETTINGS)
            if of and shared >= SETTINGS.duplicate_pages * of:
                print(f"  near-duplicates: {a} and {b}: {shared} of {of} pages")
                break
    return len(wrong)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("benchmark", nargs="+", type=Path)
    parser.add_argument("--unrelated", nargs="*", type=Path, default=[])
    parser.add_argument("--pages", type=int, default=40)
    parser.add_argument("--ocr", action="store_true")
    args = parser.parse_args()
    ocr = OcrSettings(engine="rapidocr" if args.ocr else "none")
    names = ("pymupdf", "imagehash", "datasketch", "numpy", "scipy")
    print(json.dumps({n: importlib.metadata.version(n) for n in names}), platform.machine(), available_cores(), "cores")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pages = fingerprint(args.benchmark, folder, args.pages)
        sketches = {f.name: sketch(folder / f.name, folder, ocr) for f in args.benchmark}
        index = PageIndex([p for of_document in pages.values() for p in of_document])
        wrong = check_copies(sketches, index, folder, ocr)
        unreadable = 0
        for file in [f for u in args.unrelated for f in (sorted(u.glob("*.pdf")) if u.is_dir() else [u])]:
            try:
                sketches[file.name] = sketch(file, folder, ocr)
            except DocumentError:
                unreadable += 1
        print(f"{unreadable} unrelated files cannot be read")
        wrong += check_unrelated(sketches, pages)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
