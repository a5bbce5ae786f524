"""Pages per CPU-second of this project beside a bare loop, docling's way and pdf2image's, on the same pages in one run.

    python benchmarks/bench_documents.py PDF [PDF ...] [--pages 40] [--repeats 5] [--docling-python PYTHON] [--out FILE]

Every way is run in turn, round after round, so that a machine whose speed drifts does not decide the result; the
figures are medians of the rounds. CPU seconds are those of the process and of its children; imports are not counted.
The pages must have text layers: nobody runs OCR.

- `bare`: a PyMuPDF + Pillow loop: the page image at 144 DPI, JPEG quality 90, the words. It writes nothing.
- `ours`: what `corpus build` does to a page up to the shard, by the functions that its workers run: SHA-256 of the
  file, text, lines and blocks to Parquet (`parse.layout: fonts`), sections, page images on the model's grid, the tar
  with index and checksum.
- `ours, layout model`: the same with the default `parse.layout: model`, and tables.
- `ours, Poppler`: as `ours`, with `render.backend: pdf2image`.
- `pdf2image`: `convert_from_path` at the same sizes, a process a page, JPEG quality 90. No text is read.
- `docling`: see `docling_pages.py`: page image and text cells, without the models that follow.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pdf2image
import PIL
from PIL import Image

from corpus.config import OcrSettings, ParseSettings, RenderSettings
from corpus.parse import JoinJob, ParseJob, join_partition, parse_pages
from corpus.poppler import poppler_version
from corpus.records import Document, Page, PageGrid, Window
from corpus.render import VERSION, count_pages, open_pdf, pymupdf
from corpus.rundir import available_cores
from corpus.sharding import ShardJob, WindowJob, shard_partition
from corpus.store import file_sha256, read_records
from corpus.vision_tokens import FAMILIES, natural_size, snap

MODEL = "qwen2.5-vl"
QUALITY = RenderSettings().quality


@dataclass(frozen=True)
class Source:
    """A document and how many of its pages are used."""

    document: Document
    grids: tuple[PageGrid, ...]

    @property
    def num_pages(self) -> int:
        return len(self.grids)


def load(file: Path, limit: int) -> Source:
    sha256 = file_sha256(file)
    count = count_pages(file)
    with open_pdf(file) as pdf:
        sizes = [natural_size(pdf[i].rect.width, pdf[i].rect.height, 144) for i in range(min(limit, count))]
    document = Document(
        doc_id=sha256[:16], sha256=sha256, uri=str(file.resolve()), num_bytes=file.stat().st_size, num_pages=count
    )
    return Source(document, tuple(snap(*size, FAMILIES[MODEL]) for size in sizes))


def bare(sources: list[Source]) -> None:
    for source in sources:
        with pymupdf.open(source.document.uri) as pdf:
            for index in range(source.num_pages):
                pixels = pdf[index].get_pixmap(dpi=144)
                image = Image.frombytes("RGB", (pixels.width, pixels.height), pixels.samples)
                image.save(io.BytesIO(), "JPEG", quality=QUALITY)
                pdf[index].get_text("words")


def ours(sources: list[Source], parse: ParseSettings, render: RenderSettings) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pages_file = Path(folder) / "pages.parquet"
        pieces = {}
        for source in sources:
            piece = Path(folder) / f"{source.document.doc_id}.parquet"
            job = ParseJob(
                document=source.document,
                first_page=0,
                num_pages=source.num_pages,
                parse=parse,
                ocr=OcrSettings(engine="none"),
                password=None,
                out=piece,
            )
            parse_pages(job, lambda _: None)
            pieces[source.document.doc_id] = (piece,)
        documents = tuple(sorted((s.document for s in sources), key=lambda d: d.doc_id))
        join_partition(JoinJob(documents=documents, pieces=pieces, password=None, out=pages_file), lambda _: None)
        assert all(p.text_source == "layer" or not p.blocks for p in read_records(pages_file, Page))
        windows = [
            WindowJob(
                window=Window(doc_id=s.document.doc_id, index=0, first_page=0, num_pages=s.num_pages),
                grids=s.grids,
                questions=(),
            )
            for s in sorted(sources, key=lambda s: s.document.doc_id)
        ]
        job = ShardJob(
            documents={d.doc_id: d for d in documents},
            windows=tuple(windows),
            pages_file=pages_file,
            folder=Path(folder),
            prefix="p0000",
            model=MODEL,
            render=render,
            page_timeout_s=60,
            memory_mb=4_096,
            max_bytes=10**9,
            password=None,
        )
        assert not shard_partition(job, lambda _: None).faults


def a_process_a_page(sources: list[Source]) -> None:
    for source in sources:
        for number, grid in enumerate(source.grids, start=1):
            (image,) = pdf2image.convert_from_path(
                source.document.uri,
                first_page=number,
                last_page=number,
                size=(grid.width, grid.height),
                use_cropbox=True,
            )
            image.save(io.BytesIO(), "JPEG", quality=QUALITY)


class Docling:
    """Docling in an interpreter of its own."""

    def __init__(self, python: str) -> None:
        script = Path(__file__).with_name("docling_pages.py")
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.versions = self._read()

    def _read(self) -> dict[str, object]:
        assert self._process.stdout
        answer: dict[str, object] = json.loads(self._process.stdout.readline())
        return answer

    def cpu_s(self, sources: list[Source]) -> float:
        assert self._process.stdin
        limit = max(s.num_pages for s in sources)
        request = {"files": [s.document.uri for s in sources], "pages": limit}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        assert answer["pages"] == sum(s.num_pages for s in sources), answer
        return float(str(answer["cpu_s"]))

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def cpu_seconds(work: Callable[[list[Source]], None]) -> Callable[[list[Source]], float]:
    def measured(sources: list[Source]) -> float:
        before = os.times()
        work(sources)
        return sum(os.times()[:4]) - sum(before[:4])

    return measured


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--pages", type=int, default=40, help="of each document, at most")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--docling-python", help="an interpreter that has docling; without it, docling is left out")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    sources = [load(file, args.pages) for file in args.files]
    num_pages = sum(s.num_pages for s in sources)
    fonts, model = ParseSettings(layout="fonts"), ParseSettings(layout="model")
    pymupdf_, poppler = RenderSettings(), RenderSettings(backend="pdf2image")
    ways = {
        "bare": cpu_seconds(bare),
        "ours": cpu_seconds(lambda s: ours(s, fonts, pymupdf_)),
        "ours, layout model": cpu_seconds(lambda s: ours(s, model, pymupdf_)),
        "ours, Poppler": cpu_seconds(lambda s: ours(s, fonts, poppler)),
        "pdf2image": cpu_seconds(a_process_a_page),
    }
    versions = {
        "python": platform.python_version(),
        "pymupdf": VERSION,
        "pillow": PIL.__version__,
        "pdf2image": poppler_version(),
    }
    docling = Docling(args.docling_python) if args.docling_python else None
    if docling:
        ways["docling"] = docling.cpu_s
        versions["docling"] = ", ".join(f"{k} {v}" for k, v in docling.versions.items())
    for way in ways.values():  # caches and lazy imports
        way([Source(s.document, s.grids[:2]) for s in sources])
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.repeats):
        for name, way in ways.items():
            seconds[name].append(way(sources))
    if docling:
        docling.close()

    rates = {name: num_pages / statistics.median(values) for name, values in seconds.items()}
    ratios = {n: [b / v for b, v in zip(seconds["bare"], values, strict=True)] for n, values in seconds.items()}
    print(f"{'pages per CPU-second':22} {'median':>8} {'of bare (min-max)':>22}")
    for name, rate in rates.items():
        r = ratios[name]
        print(f"{name:22} {rate:8.1f} {statistics.median(r):8.2f} ({min(r):.2f}-{max(r):.2f})")
    result = {
        "documents": [f.name for f in args.files],
        "pages": num_pages,
        "repeats": args.repeats,
        "pages_per_cpu_s": {name: round(rate, 2) for name, rate in rates.items()},
        "of_bare": {n: [round(x, 3) for x in (statistics.median(r), min(r), max(r))] for n, r in ratios.items()},
        "versions": versions,
        "machine": f"{processor()}, {platform.machine()}, {available_cores()} cores",
    }
    print(json.dumps(result, indent=2))
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
