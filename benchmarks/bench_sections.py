"""How well do headings alone find the sections that good bookmarks name?

    python benchmarks/bench_sections.py RUN

RUN is a run directory built past the parse stage. For each of its documents whose bookmarks are trusted
(`corpus.sections`), section starts are found from headings as if there were no bookmarks. A start is right when a
bookmark has the same page and title; numbers before titles do not count, because many outlines leave them out.
Precision is a lower bound: bookmarks leave small headings out.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from corpus.records import LedgerEntry, Page
from corpus.sections import normalised_title, with_sections
from corpus.store import read_records
from corpus.structure import with_structure

Start = tuple[int, str]
NUMBER = re.compile(
    r"^(?:(?:chapter|section|part|appendix|item)\s+)?(?:\d+[A-Z]?|[A-Z]|[IVX]+)(?:\.\d+)*[.:)]?\s+(?=\S)", re.I
)


def starts_of(pages: list[Page]) -> Counter[Start]:
    return Counter(
        (p.index, normalised_title(NUMBER.sub("", s.title, count=1)))
        for p in pages
        for s in p.sections
        if s.source in ("bookmarks", "headings")
    )


def scores(found: Counter[Start], wanted: Counter[Start]) -> dict[str, float]:
    right = (found & wanted).total()
    precision, recall = right / max(1, found.total()), right / max(1, wanted.total())
    f1 = 2 * precision * recall / max(1e-9, precision + recall)
    return {"precision": round(precision, 3), "recall": round(recall, 3), "f1": round(f1, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    args = parser.parse_args()
    print(json.dumps({"pymupdf": importlib.metadata.version("pymupdf")}))
    names = {e.doc_id: Path(e.uri).name for e in read_records(args.run / "ledger.parquet", LedgerEntry)}
    documents: dict[str, list[Page]] = {}
    for file in sorted(args.run.glob("pages/p*.parquet")):
        for page in read_records(file, Page):
            documents.setdefault(page.doc_id, []).append(page)
    found, wanted = Counter[Start](), Counter[Start]()
    pages_found, pages_wanted = Counter[Start](), Counter[Start]()
    for doc_id, pages in documents.items():
        if not any(s.source == "bookmarks" for p in pages for s in p.sections):
            continue
        bare = with_sections(with_structure([replace(p, sections=()) for p in pages]), [])
        own, reference = starts_of(bare), starts_of(pages)
        print(json.dumps({"document": names[doc_id], "bookmarks": reference.total(), **scores(own, reference)}))
        found += Counter({(page, doc_id + title): n for (page, title), n in own.items()})
        wanted += Counter({(page, doc_id + title): n for (page, title), n in reference.items()})
        pages_found += Counter({(page, doc_id): 1 for page, _ in own})
        pages_wanted += Counter({(page, doc_id): 1 for page, _ in reference})
    print(json.dumps({"all, by page and title": scores(found, wanted)}))
    print(json.dumps({"all, pages on which a section starts": scores(pages_found, pages_wanted)}))


if __name__ == "__main__":
    main()
