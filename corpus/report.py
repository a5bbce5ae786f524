"""report.html and README.md of a run: what is in this corpus, for a person. Made from the run's files alone.

The page is one file without scripts or outside references. Everything in it that comes from a document or a file
name is escaped by the template engine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from corpus.blocks import clean
from corpus.inspection import describe_run, read_run_json
from corpus.messages import spoken_answer
from corpus.records import LedgerEntry, LeftOut, Question
from corpus.shards import SUFFIXES
from corpus.store import read_records, write_text

EXAMPLES_PER_TASK = 3
MAX_SHOWN_CHARS = 600
MAX_LEDGER_ROWS = 500
MAX_RUNS_LEFT_OUT = 4  # of a document, in its row


def write_report(run: Path) -> None:
    """Write `report.html` and `README.md` into the run."""
    facts = _facts(run)
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",)),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    for name in ("report.html", "README.md"):
        write_text(run / name, templates.get_template(f"{name}.j2").render(facts))


def _facts(run: Path) -> dict[str, Any]:
    about = read_run_json(run)
    ledger = read_records(run / "ledger.parquet", LedgerEntry)
    kept = [e for e in ledger if e.status == "kept"]
    rows = [
        {
            "name": clean(Path(e.uri).name),
            "doc_id": e.doc_id,
            "status": e.status,
            "reason": e.reason,
            "detail": clean(e.detail) or (_left_out(e.left_out) if e.status == "kept" else ""),
            "num_pages": e.num_pages,
            "window_pages": e.window_pages,
            "num_windows": e.num_windows,
            "num_questions": e.num_questions,
            "num_tokens": e.num_tokens,
            "ocr_pages": e.ocr_pages,
        }
        for e in ledger
    ]
    described = describe_run(run)
    return {
        "run": described,
        "about": about,
        "suffix": SUFFIXES[about["config"]["render"]["format"]],
        "ledger": rows[:MAX_LEDGER_ROWS],
        "ledger_cut": max(0, len(rows) - MAX_LEDGER_ROWS),
        "shares": _by_name,
        "matched": [{k: clean(v) for k, v in r.items()} for r in described["matched"]],
        "licenses": dict(Counter(clean(e.license) or "not stated" for e in kept).most_common()),
        "languages": dict(Counter(clean(e.language) or "not stated" for e in kept).most_common()),
        "short": [
            {**f, "file": clean(f["file"]), "licenses": [clean(name) or "not stated" for name in f["licenses"]]}
            for f in described["short"]
        ],
        "examples": _examples(run, {e.doc_id: clean(Path(e.uri).name) for e in kept}),
    }


def _by_name(shares: list[dict[str, Any]]) -> dict[str, int]:
    """Tokens of the plan's tasks or length buckets, by name."""
    return {clean(s["name"]) or "(no name)": s["num_tokens"] for s in shares}


def _left_out(runs: Sequence[LeftOut]) -> str:
    """Which pages of a kept document no window holds, and why: "pages 3-5 too-short; page 9 render-failed"."""
    shown = []
    for run in runs[:MAX_RUNS_LEFT_OUT]:
        first, last = run.first_page + 1, run.first_page + run.num_pages
        where = f"page {first}" if first == last else f"pages {first}-{last}"
        shown.append(f"{where} {clean(run.reason.partition(':')[0])}")
    if len(runs) > MAX_RUNS_LEFT_OUT:
        shown.append(f"{len(runs) - MAX_RUNS_LEFT_OUT} more in ledger.parquet")
    return "; ".join(shown)


def _examples(run: Path, names: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    """A few accepted questions of each task, spread over the documents."""
    by_task: dict[str, list[Question]] = {}
    for file in sorted(run.glob("questions/p*.parquet")):
        for q in read_records(file, Question):
            if q.accepted:
                by_task.setdefault(q.task, []).append(q)
    return {
        task: [_shown(q, names) for q in questions[:: max(1, len(questions) // EXAMPLES_PER_TASK)][:EXAMPLES_PER_TASK]]
        for task, questions in sorted(by_task.items())
    }


def _shown(q: Question, names: dict[str, str]) -> dict[str, Any]:
    answer = "\n".join(clean(line) for line in spoken_answer(q).splitlines())
    if len(answer) > MAX_SHOWN_CHARS:
        answer = f"{answer[:MAX_SHOWN_CHARS]} [... {len(answer)} characters]"
    return {
        "question": clean(q.question),
        "answer": answer,
        "document": names.get(q.doc_id, q.doc_id),
        "pages": ", ".join(str(p + 1) for p in sorted({e.page for e in q.evidence})),
        "generator": q.generator,
    }
