"""Questions of known quality about small documents, for the test and the benchmark of the checks.

`data/verify/*.txt` are documents: `===` begins a page (`=== ocr` one that OCR read, `=== none` a picture), `#` a
heading of level 1, `##` of level 2, `!` a caption, `|` a row of a table, whose empty cells leave no trace.
`questions.jsonl` holds questions with their kind: right, or what is wrong with them. Every other question of a kind
about the first six documents was held out while the checks were tuned on the rest; those about the other six were
counted when they were new, then tuned on as well.
`blind*.jsonl` came later, one after the other, all but the second by authors who had not seen the checks. What the
first four lost when they were new (docs/design/0012) has been read since. Of the fifth nothing has been read but the
counts: 77 of 80 right questions kept, 72 of 80 wrong ones stopped.
`examples.jsonl` are right questions about examples/documents, which the benchmark judges on pages that a build parsed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from corpus.records import Block, Page, Question
from corpus.sections import sections_of, with_sections
from synth.anchors import DocumentText
from synth.grounding import find_evidence
from synth.tasks import load_tasks
from synth.verify import judged, text_checks

DATA = Path(__file__).parent / "data" / "verify"
BLIND = ("blind", "second blind", "third blind", "fourth blind", "fifth blind")
PARTS = ("tuned on", "held out", *BLIND)
LINE = 20.0  # points


@dataclass(frozen=True)
class Known:
    """A question with what is known of it; `part` is one of PARTS."""

    kind: str
    part: str
    document: str
    question: Question


def read_pages(text: str, doc_id: str) -> list[Page]:
    """The pages of a document in the notation above, with sections."""
    pages = []
    for index, part in enumerate(text.split("===")[1:]):
        source, _, body = part.partition("\n")
        blocks: list[Block] = []
        for paragraph in filter(None, (p.strip() for p in body.split("\n\n"))):
            top = 72 + LINE * len(blocks)
            box = (72.0, top, 540.0, top + LINE)
            mark, _, rest = paragraph.partition(" ")
            if mark in ("#", "##"):
                blocks.append(Block(kind="heading", box=box, text=rest, level=len(mark), emphasised=True))
            elif mark == "!":
                blocks.append(Block(kind="caption", box=box, text=rest))
            elif mark == "|":
                rows = [re.sub(r" (?:\| )+", "\t", line.strip("| ")) for line in paragraph.split("\n")]
                blocks.append(Block(kind="table", box=box, text="\n".join(rows)))
            else:
                blocks.append(Block(kind="text", box=box, text=paragraph))
        pages.append(
            Page(
                doc_id=doc_id,
                index=index,
                width=612.0,
                height=792.0,
                rotation=0,
                text_source=source.strip() or "layer",
                blocks=tuple(blocks),
            )
        )
    return with_sections(pages, [])


@cache
def documents() -> dict[str, tuple[Page, ...]]:
    """Every document by its name."""
    return {f.stem: tuple(read_pages(f.read_text(encoding="utf-8"), f.stem)) for f in sorted(DATA.glob("*.txt"))}


def read_rows(name: str) -> list[dict[str, Any]]:
    """The rows of a file of questions."""
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def as_question(row: dict[str, Any], pages: Sequence[Page], number: int) -> Question:
    """A row as a question, its evidence found in the pages as it is for a model's reply."""
    named = sorted(p - 1 for p in row["pages"])
    kinds = [row["source"]] * len(named)
    return Question(
        question_id=f"q{number:015d}",
        doc_id=row["document"],
        task=row["task"],
        question=row["question"],
        answer=row["answer"],
        answer_format=row["answer_format"],
        evidence=find_evidence(named, kinds, row["quotes"], row["answer"], row["answer_format"], pages),
        segment_first=0,
        segment_pages=len(pages),
        anchor=row["anchor"],
    )


@cache
def known_questions() -> tuple[Known, ...]:
    """Every question about the documents beside it."""
    seen: Counter[str] = Counter()
    found = []
    rows = read_rows("questions.jsonl")
    for number, part in enumerate(BLIND, start=1):
        rows += [{**row, "part": part} for row in read_rows(f"blind{number if number > 1 else ''}.jsonl")]
    for number, row in enumerate(rows, start=1):
        part = row.get("part") or PARTS[seen[row["kind"]] % 2]
        seen[row["kind"]] += 1
        question = as_question(row, documents()[row["document"]], number)
        found.append(Known(row["kind"], part, row["document"], question))
    return tuple(found)


def checked() -> list[tuple[Known, Question]]:
    """Every question with its verdicts; a duplicate comes after all right questions, the others after those before."""
    checks = {t.name: t.checks for t in load_tasks(["extract-single", "extract-multi", "reasoning"])}
    texts = {name: DocumentText(pages, sections_of(pages)) for name, pages in documents().items()}
    right = [k for k in known_questions() if k.kind == "right"]
    results = []
    for known in known_questions():
        same = [k.question for k in right if k.document == known.document]
        if known.kind == "right":
            same = same[: same.index(known.question)]
        earlier: Sequence[Question] = same if known.kind in ("right", "duplicate") else ()
        verdicts = text_checks(known.question, texts[known.document], earlier, checks[known.question.task])
        results.append((known, judged(known.question, verdicts)))
    return results
