"""How much of a page's structure survives when the page is a picture: tables as cells, kinds of blocks, captions.

    python benchmarks/bench_ocr_layout.py PDF [PDF ...] [--pages 6] [--dpi 144] [--out FILE]

Pages with a sound text layer and a table that passes the strict tests are rasterised, once clean and once worn
(`bench_ocr.worn`), and read as a build reads a scan: RapidOCR, then the layout model on the lines set anew. The text
layer's own reading is what is compared with:

- `tables`: strict tables of the layer, and how many of them are strict tables of the picture (boxes overlap by half).
- `cells`: of tables that both have, cells whose row, column and text agree, over the cells of the layer's table.
- `kinds`: share of the layer's characters, outside pictures, whose block has the same kind in both readings, by place.
- `captions`: captions of the layer tied to a table or figure, and how many are tied to one of the same kind.

`seconds` are CPU seconds a page of the layout after OCR, and of OCR.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from bench_ocr import worn

from corpus.blocks import layer_blocks, ocr_blocks
from corpus.config import OcrSettings
from corpus.layout import PageLayout, area, center, contains
from corpus.ocr import load_engine
from corpus.parse import PageView, layout_of_reading, read_layout
from corpus.records import Block, Box, Page, PageGrid, Table
from corpus.render import VERSION, open_pdf, render
from corpus.rundir import available_cores
from corpus.structure import with_structure
from corpus.tables import strict_tables
from corpus.text_layer import SOUND, examine
from corpus.vision_tokens import natural_size


def overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    both = area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    return both / (area(a) + area(b) - both) if both else 0.0


def cells(table: Table) -> Counter[tuple[str, str, str]]:
    """(row, column, text) of every cell, white space and case aside."""
    found = (
        (row.label, column, cell.text)
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
        if cell.text
    )
    return Counter(tuple("".join(part.split()).casefold() for part in cell) for cell in found)


def structured(layout: PageLayout, blocks: tuple[Block, ...]) -> tuple[Block, ...]:
    """Blocks as a build has them, captions tied."""
    page = Page(
        doc_id="x", index=0, width=layout.width, height=layout.height, rotation=0, text_source="layer", blocks=blocks
    )
    return with_structure([page])[0].blocks


def kind_at(blocks: tuple[Block, ...], point: tuple[float, float]) -> str:
    """Kind of the smallest block around a point, '' where there is none."""
    holding = [(area(b.box), b.kind) for b in blocks if contains(b.box, point)]
    return min(holding)[1] if holding else ""


def targets(blocks: tuple[Block, ...]) -> Counter[tuple[str, str]]:
    """(first word of a caption, kind of what it is tied to)."""
    tied = [b for b in blocks if b.kind == "caption" and b.target >= 0]
    return Counter((" ".join(b.text.split()[:2]).casefold(), blocks[b.target].kind) for b in tied)


def compare(layer: PageLayout, read: PageLayout) -> dict[str, list[int]]:
    """`[in the layer, the same in the picture]` of everything."""
    wanted, found = strict_tables(layer), list(strict_tables(read))
    in_tables, same_cells, same_tables = 0, 0, 0
    for table in wanted:
        match = next((t for t in found if overlap(t.box, table.box) >= 0.5), None)
        if match is not None:
            found.remove(match)
            same_tables += 1
            in_tables += cells(table).total()
            same_cells += (cells(table) & cells(match)).total()
    a, b = structured(layer, layer_blocks(layer)), structured(read, ocr_blocks(read))
    letters, same_kind = 0, 0
    for word in layer.words:
        kind = kind_at(a, center(word.box))
        if kind not in ("", "picture"):
            letters += len(word.text)
            same_kind += len(word.text) * (kind == kind_at(b, center(word.box)))
    return {
        "tables": [len(wanted), same_tables],
        "cells": [in_tables, same_cells],
        "kinds": [letters, same_kind],
        "captions": [targets(a).total(), (targets(a) & targets(b)).total()],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--pages", type=int, default=6, help="of each document")
    parser.add_argument("--dpi", type=int, default=OcrSettings().dpi)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    engine = load_engine(OcrSettings())
    sums: dict[str, Counter[str]] = {"clean": Counter(), "worn": Counter()}
    pages: list[dict[str, Any]] = []
    for file in args.files:
        with open_pdf(file) as pdf:
            for index in pages_with_tables(pdf, args.pages):
                page = pdf[index]
                layer = read_layout(pdf[index])
                height, width = natural_size(layer.width, layer.height, args.dpi)
                image = np.asarray(render(page, PageGrid(height=height, width=width)))
                for kind, shown in (("clean", image), ("worn", worn(image))):
                    started = time.process_time()
                    lines = [n for n in engine.read(shown) if n.confidence >= OcrSettings().min_confidence]
                    between = time.process_time()
                    read = layout_of_reading(shown, lines, layer.width, layer.height)
                    done = time.process_time()
                    row = compare(layer, read)
                    for name, (all_of, same) in row.items():
                        sums[kind] += Counter({f"{name} of": all_of, f"{name} same": same})
                    sums[kind] += Counter({"pages": 1})
                    seconds = {"ocr_s": round(between - started, 2), "layout_s": round(done - between, 2)}
                    pages.append({"document": file.name, "page": index + 1, "kind": kind, **row, **seconds})
                    print(json.dumps(pages[-1]), flush=True)
    packages = ("rapidocr", "onnxruntime", "pymupdf-layout")
    result = {
        "machine": f"{platform.machine()}, {available_cores()} cores, Python {platform.python_version()}",
        "versions": {"pymupdf": VERSION, **{name: importlib.metadata.version(name) for name in packages}},
        "dpi": args.dpi,
        "summary": {
            kind: {
                "pages": sums[kind]["pages"],
                **{
                    n: [sums[kind][f"{n} of"], sums[kind][f"{n} same"]]
                    for n in ("tables", "cells", "kinds", "captions")
                },
            }
            for kind in sums
        },
        "pages": pages,
    }
    print(json.dumps(result["summary"], indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def pages_with_tables(pdf: Any, count: int) -> list[int]:
    """Up to `count` pages with a strict table, spread over the document."""
    suitable = []
    for index in range(pdf.page_count):
        layout, verdict = examine(read_layout(pdf[index]), PageView(pdf[index]))
        if verdict == SOUND and strict_tables(layout):
            suitable.append(index)
    return suitable[len(suitable) // (2 * count) :: max(1, len(suitable) // count)][:count]


if __name__ == "__main__":
    main()
