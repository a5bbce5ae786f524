"""How many right questions do the text checks keep, how many wrong ones do they stop?

    python benchmarks/bench_verify.py [--show PART] [--run RUN]

Reads the questions of known quality in tests/data/verify: English and Chinese, about reports, manuals, papers, a scan,
statements, statutes and a catalogue. With the folder of a run whose questions the layout backend wrote (right by
construction), those about tables are judged too: as they are, and with one digit of the answer changed; with a run over
examples/documents, so are the questions of examples.jsonl.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from corpus.records import Page, Question
from corpus.sections import sections_of
from corpus.store import read_records
from synth.anchors import DocumentText
from synth.tasks import load_tasks
from synth.verify import text_checks

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from verify_set import PARTS, as_question, checked, known_questions, read_rows

TABLE_PATTERNS = re.compile(r"layout/(?:table|difference|sum|percent|rows|range)-")
TASKS = ("extract-single", "extract-multi", "reasoning")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--show", choices=PARTS, help="print the questions of this part that are misjudged")
    parser.add_argument("--run", type=Path, help="folder of a run with questions of the layout backend")
    args = parser.parse_args()
    known_questions()
    began = time.perf_counter()
    results = checked()
    seconds = time.perf_counter() - began
    counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for known, question in results:
        for part in (known.part, "all"):
            counts[known.kind, part][0] += 1
            counts[known.kind, part][1] += question.accepted
        if known.part == args.show and question.accepted != (known.kind == "right"):
            print(f"{known.kind}: {question.question} -> {question.answer} [{question.reason}: {question.detail}]")
    for part in (*PARTS, "all"):
        rows = {kind: counts[kind, part] for kind, p in counts if p == part}
        wrong = [sum(row[i] for kind, row in rows.items() if kind != "right") for i in (0, 1)]
        print(f"\n{part}")
        for kind, (asked, kept) in rows.items():
            print(f"  {kind:<20} {asked:>4} questions, {kept:>4} kept, {asked - kept:>4} stopped")
        right, kept = rows["right"]
        print(f"  right ones kept {kept / right:.1%}, wrong ones stopped {1 - wrong[1] / wrong[0]:.1%}")
    print(
        json.dumps(
            {"python": sys.version.split()[0], "milliseconds_a_question": round(1e3 * seconds / len(results), 2)}
        )
    )
    if args.run:
        judge_run(args.run)


def judge_run(run: Path) -> None:
    """Print how many questions about a run's documents are kept, as they are and with a digit of the answer changed."""
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
    for name, questions in (("layout questions about tables", layout), ("questions of examples.jsonl", written)):
        asked: Counter[bool] = Counter()
        kept: Counter[bool] = Counter()
        for question in questions:
            for changed, variant in enumerate((question, *with_a_digit_changed(question))):
                verdicts = text_checks(variant, documents[question.doc_id], (), checks[question.task])
                asked[bool(changed)] += 1
                kept[bool(changed)] += verdicts[-1].passed
        print(
            f"\n{name}, {len({q.doc_id for q in questions})} documents: {kept[False]} of {asked[False]} kept, "
            f"with a digit changed {asked[True] - kept[True]} of {asked[True]} stopped"
        )


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
