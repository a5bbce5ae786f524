"""Real documents to a table of window lengths, for `bench_packing.py`: page sizes in, tokens out, no text.

    python benchmarks/document_lengths.py PDF_OR_FOLDER... --out benchmarks/results/document_lengths.json

Every page of every PDF is measured as a build measures it (144 DPI, snapped to the grid of Qwen2.5-VL, "Page N" labels)
and the document is cut into windows of 32,768-131,072 tokens with room for the turn. What is kept is one number a
window: the tokens of its pages and of the chat frame. No question is counted; `bench_packing.py` adds a turn.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from corpus.config import Config
from corpus.errors import DocumentError
from corpus.render import VERSION, open_pdf
from corpus.vision_tokens import FAMILIES, natural_size, snap
from packing.lengths import load_counter, page_tokens
from packing.samples import frame_tokens
from packing.windows import cut_windows

TURN = 256  # tokens of a question and its answer, at most


def pages_of(file: Path, config: Config) -> tuple[list[int | None], dict[int, str]]:
    """Tokens of every page, None where it cannot be rendered, and the reasons for those."""
    family, counter = FAMILIES[config.model], load_counter(None)
    lengths: list[int | None] = []
    problems: dict[int, str] = {}
    with open_pdf(file) as pdf:
        for index in range(len(pdf)):
            size = pdf[index].rect
            try:
                grid = snap(*natural_size(size.width, size.height, config.render.dpi), family)
            except DocumentError as e:
                lengths.append(None)
                problems[index] = e.reason
            else:
                lengths.append(page_tokens(index, grid, family, counter, config.messages.page_labels))
    return lengths, problems


def windows_of(file: Path, config: Config) -> list[int]:
    """Tokens of each window of a document, without the turn."""
    pages, problems = pages_of(file, config)
    overhead = frame_tokens("0" * 16, config, FAMILIES[config.model], load_counter(None))
    cut = cut_windows(
        "0" * 16,
        pages,
        sections=(),
        segments=(),
        min_tokens=config.windows.min_tokens,
        max_tokens=config.windows.max_tokens,
        reserve=TURN,
        overhead=overhead,
        page_problems=problems,
    )
    return [overhead + sum(n or 0 for n in pages[w.first_page : w.first_page + w.num_pages]) for w in cut.windows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("places", nargs="+", type=Path, help="PDF files, or folders that are searched for them")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    config = Config()
    files = [f for place in args.places for f in (sorted(place.rglob("*.pdf")) if place.is_dir() else [place])]
    windows: list[int] = []
    documents: Counter[str] = Counter()
    for file in files:
        try:
            found = windows_of(file, config)
        except DocumentError as e:
            documents[f"refused: {e.reason}"] += 1
            continue
        documents["with windows" if found else "shorter than a window"] += 1
        windows += found
    result = {
        "files": len(files),
        "documents": dict(sorted(documents.items())),
        "model": config.model,
        "room_for_turn": TURN,
        "pymupdf": VERSION,
        "window_tokens": sorted(windows),
    }
    args.out.write_text(json.dumps(result) + "\n")
    print(f"{len(windows)} windows, {dict(documents)}")


if __name__ == "__main__":
    main()
