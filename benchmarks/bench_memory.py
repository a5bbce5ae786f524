"""Does a worker's memory grow with the length of a document? Peak memory of a build's largest process, by pages.

    python benchmarks/bench_memory.py PDF [--pages 50,100,200,400] [--ocr]

Copies of the first N pages of one document are built, each by a fresh process with one worker; the figure is the
operating system's own peak of the largest process (the worker: the parent holds no page). With --ocr every page is
rasterised into an image first, so that every page goes through OCR.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from corpus.render import open_pdf, pymupdf
from corpus.rundir import available_cores

PROBE = """
import resource, sys
from pathlib import Path
from corpus.config import load_config
from corpus.pipeline import build
if __name__ == "__main__":
    config = load_config(None, tuple(sys.argv[3:]))
    build([sys.argv[1]], Path(sys.argv[2]), config, workers=1, quiet=True)
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(worker // 1024, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def first_pages(source: Path, num_pages: int, out: Path, as_images: bool) -> None:
    """The first pages of a document; as images of them if wanted."""
    with open_pdf(source) as pdf, pymupdf.open() as copy:
        if as_images:
            for page in list(pdf)[:num_pages]:
                new = copy.new_page(width=page.rect.width, height=page.rect.height)
                new.insert_image(new.rect, pixmap=page.get_pixmap(dpi=100))
        else:
            copy.insert_pdf(pdf, to_page=num_pages - 1)
        copy.save(out, garbage=3)


def peak_mb(document: Path, settings: list[str]) -> tuple[int, int]:
    """Peak of the worker and of the parent, in MB."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "probe.py"
        script.write_text(PROBE)
        command = [sys.executable, str(script), str(document), f"{folder}/run", *settings]
        worker, parent = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return int(worker), int(parent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--pages", default="50,100,200,400")
    parser.add_argument("--ocr", action="store_true")
    args = parser.parse_args()
    versions = {name: importlib.metadata.version(name) for name in ("pymupdf", "onnxruntime", "rapidocr", "pyarrow")}
    about = {"document": args.file.name, "every_page_by_ocr": args.ocr, "versions": versions}
    print(json.dumps({**about, "machine": f"{platform.machine()}, {available_cores()} cores"}), flush=True)
    for num_pages in map(int, args.pages.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            document = Path(folder) / "document.pdf"
            first_pages(args.file, num_pages, document, as_images=args.ocr)
            worker, parent = peak_mb(document, [] if args.ocr else ["ocr.engine=none"])
        print(json.dumps({"pages": num_pages, "worker_mb": worker, "parent_mb": parent}), flush=True)


if __name__ == "__main__":
    main()
