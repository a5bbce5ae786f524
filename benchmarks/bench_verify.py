"""How many right questions do the text checks keep, how many wrong ones do they stop?

    python benchmarks/bench_verify.py [--show PART] [--run RUN] [--out FILE]

Reads the questions of known quality in tests/data/verify: English and Chinese, about reports, manuals, papers, a scan,
statements, statutes and a catalogue. From the right ones it makes wrong ones that a writer may make: the number of
another cell of the table that is quoted, and what another operation gives over the numbers that are quoted. With the
folder of a run whose questions the layout backend wrote (right by
construction), those about tables are judged too: as they are, and with one digit of the answer changed; with a run over
examples/documents, so are the questions of examples.jsonl.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import platform
import random
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from corpus.records import Page, Question
from corpus.rundir import available_cores
from corpus.sections import sections_of
from corpus.store import read_records
from synth.anchors import DocumentText
from synth.cells import grids, quoted_rows
from synth.quantities import folded, quantities
from synth.tasks import load_tasks
from synth.verify import text_checks

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from verify_set import PARTS, Known, as_question, checked, known_questions, read_rows
from verify_set import documents as known_documents

TABLE_PATTERNS = re.compile(r"layout/(?:table|difference|sum|percent|rows|range)-")
MAX_NUMBERS = 6  # of the quotes of a calculation that variants are made of
NEARLY = Decimal("0.003")  # so close to the right answer, another result may be it, rounded otherwise
TASKS = ("extract-single", "extract-multi", "reasoning")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--show", choices=PARTS, help="print the questions of this part that are misjudged")
    parser.add_argument("--run", type=Path, help="folder of a run with questions of the layout backend")
    parser.add_argument("--out", type=Path, help="write the counts to this file, as JSON")
    args = parser.parse_args()
    known_questions()
    began = time.perf_counter()
    results = checked()
    seconds = time.perf_counter() - began
    counts: dict[str, dict[str, list[int]]] = {part: defaultdict(lambda: [0, 0]) for part in (*PARTS, "all")}
    for known, question in results:
        for part in (known.part, "all"):
            counts[part][known.kind][0] += 1
            counts[part][known.kind][1] += question.accepted
        if known.part == args.show and question.accepted != (known.kind == "right"):
            print(f"{known.kind}: {question.question} -> {question.answer} [{question.reason}: {question.detail}]")
    for part, rows in counts.items():
        wrong = [sum(row[i] for kind, row in rows.items() if kind != "right") for i in (0, 1)]
        print(f"\n{part}")
        for kind, (asked, kept) in rows.items():
            print(f"  {kind:<20} {asked:>4} questions, {kept:>4} kept, {asked - kept:>4} stopped")
        right, kept = rows["right"]
        print(f"  right ones kept {kept / right:.1%}, wrong ones stopped {1 - wrong[1] / wrong[0]:.1%}")
    result: dict[str, object] = {
        "python": sys.version.split()[0],
        "rapidfuzz": importlib.metadata.version("rapidfuzz"),
        "machine": f"{platform.machine()}, {available_cores()} cores",
        "milliseconds_a_question": round(1e3 * seconds / len(results), 2),
        "asked_and_kept": counts,
        "made_wrong_and_stopped": {"another cell": stopped(other_cells), "another operation": stopped(other_results)},
    }
    if args.run:
        result["run"] = judge_run(args.run)
    print(json.dumps({k: v for k, v in result.items() if k != "asked_and_kept"}))
    if args.out:
        args.out.write_text(json.dumps(result) + "\n", encoding="utf-8")


def stopped(variants: Callable[[Known], Iterator[Question]]) -> list[int]:
    """How many wrong variants of the right questions there are, and how many of them are stopped."""
    checks = {t.name: t.checks for t in load_tasks(TASKS)}
    texts = {name: DocumentText(pages, sections_of(pages)) for name, pages in known_documents().items()}
    made = caught = 0
    for known in known_questions():
        for variant in variants(known) if known.kind == "right" else ():
            made += 1
            verdicts = text_checks(variant, texts[known.document], (), checks[variant.task])
            caught += not verdicts[-1].passed
    return [made, caught]


def other_cells(known: Known) -> Iterator[Question]:
    """A question about one cell, with the number of each other cell of its table as the answer."""
    question = known.question
    if question.task != "extract-single" or question.answer_format not in ("Integer", "Float"):
        return
    (page,) = {e.page for e in question.evidence}
    quotes = [e.quote for e in question.evidence]
    for grid in grids(known_documents()[known.document][page]):
        if quoted_rows(grid, quotes):
            cells = {cell.replace(",", "") for row in grid.rows for cell in row.cells}
            numbers = {c for c in cells if re.fullmatch(r"\d+(?:\.\d+)?", c) and Decimal(c) != Decimal(question.answer)}
            yield from (replace(question, answer=number) for number in sorted(numbers))


def other_results(known: Known) -> Iterator[Question]:
    """A calculation, with what each other operation over two of the quoted numbers gives as the answer."""
    question = known.question
    values = [q.value for e in question.evidence for q in quantities(folded(e.quote)) if not q.is_year]
    if question.task != "reasoning" or question.answer_format not in ("Integer", "Float") or len(values) > MAX_NUMBERS:
        return
    decimals = len(question.answer.partition(".")[2])
    right = abs(Decimal(question.answer))
    answers = set()
    for a, b in itertools.permutations(values, 2):
        results = [a + b, abs(a - b), a * b, (a + b) / 2]
        results += [a / b, 100 * a / b, 100 * abs(a - b) / b] if b else []
        for result in results:
            close = abs(result - right) <= max(Decimal(1).scaleb(-decimals), right * NEARLY)
            if not close and (answer := f"{result:.{decimals}f}").strip("0."):
                answers.add(answer)
    yield from (replace(question, answer=answer) for answer in sorted(answers))


def judge_run(run: Path) -> dict[str, dict[str, list[int]]]:
    """How many questions about a run's documents are kept, as they are and with a digit of the answer changed."""
    checks = {t.name: t.checks for t in load_tasks(TASKS)}
    pages: dict[str, list[Page]] = defaultdict(list)
    for file in sorted(run.glob("pages/*.parquet")):
        for page in read_records(file, Page):
            pages[page.doc_id].append(page)
    documents = {doc_id: DocumentText(own, sections_of(own)) for doc_id, own in pages.items()}
    layout = [
        question
        for file in sorted(run.glob("questions/*.parquet"))
        for question in read_records(file, Question)
        if question.accepted and TABLE_PATTERNS.match(question.generator)
    ]
    rows = enumerate(read_rows("examples.jsonl"))
    written = [as_question(row, pages[row["document"]], n) for n, row in rows if row["document"] in pages]
    found = {}
    for name, questions in (("layout questions about tables", layout), ("questions of examples.jsonl", written)):
        asked: Counter[bool] = Counter()
        kept: Counter[bool] = Counter()
        for question in questions:
            for changed, variant in enumerate((question, *with_a_digit_changed(question))):
                verdicts = text_checks(variant, documents[question.doc_id], (), checks[question.task])
                asked[bool(changed)] += 1
                kept[bool(changed)] += verdicts[-1].passed
        found[name] = {
            "asked and kept": [asked[False], kept[False]],
            "a digit changed and stopped": [asked[True], asked[True] - kept[True]],
        }
    return found


def with_a_digit_changed(question: Question) -> Iterator[Question]:
    """The question with another digit somewhere in its answer; none where the answer holds no digit."""
    digits = [m.start() for m in re.finditer(r"\d", question.answer)]
    if digits:
        draw = random.Random(question.question_id)
        at = draw.choice(digits)
        new = draw.choice([d for d in "123456789" if d != question.answer[at]])
        yield replace(question, answer=question.answer[:at] + new + question.answer[at + 1 :])


if __name__ == "__main__":
    main()
