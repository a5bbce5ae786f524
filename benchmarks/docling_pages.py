"""Docling's first stage over some PDFs, for `bench_documents.py`; runs in an interpreter that has docling.

What runs is docling's own code: its default PDF backend (docling-parse) and the page preprocessing stage of its
standard pipeline, which makes the page image and the text cells and rates their quality. The stages after it (layout,
tables, OCR, reading order) need weights from a hub and do not run.

Reads a request a line, `{"files": [...], "pages": N}`, and answers with the pages done and the CPU seconds of it.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

from docling.backend.docling_parse_backend import ThreadedDoclingParseDocumentBackend
from docling.datamodel.backend_options import ThreadedDoclingParseBackendOptions
from docling.datamodel.base_models import InputFormat, Page
from docling.datamodel.document import ConversionResult, InputDocument
from docling.datamodel.settings import DocumentLimits
from docling.models.stages.page_preprocessing.page_preprocessing_model import (
    PagePreprocessingModel,
    PagePreprocessingOptions,
)

SCALE = 2.0  # 144 DPI


def pages_of(files: list[str], limit: int) -> int:
    """Page images as JPEG and text cells of the first pages of each file."""
    stage = PagePreprocessingModel(
        options=PagePreprocessingOptions(images_scale=SCALE, capture_reading_order_separators=True)
    )
    done = 0
    for file in files:
        document = InputDocument(
            path_or_stream=Path(file),
            format=InputFormat.PDF,
            backend=ThreadedDoclingParseDocumentBackend,
            backend_options=ThreadedDoclingParseBackendOptions(render_scale=SCALE, parser_threads=1),
            limits=DocumentLimits(page_range=(1, limit)),
        )
        result = ConversionResult(input=document)
        for backend in document._backend.iter_pages():
            page = Page(page_no=backend.page_no)
            page._backend = backend
            page.size = backend.get_size()
            (page,) = stage(result, [page])
            assert page.parsed_page is not None
            page.get_image(scale=SCALE).save(io.BytesIO(), "JPEG", quality=90)
            done += 1
        document._backend.unload()
    return done


def main() -> None:
    names = ("docling", "docling-parse", "pillow")
    print(json.dumps({name: version(name) for name in names}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        started, before = time.perf_counter(), os.times()
        done = pages_of(request["files"], request["pages"])
        after = os.times()
        cpu_s = sum(after[:4]) - sum(before[:4])
        print(json.dumps({"pages": done, "cpu_s": cpu_s, "wall_s": time.perf_counter() - started}), flush=True)


if __name__ == "__main__":
    main()
