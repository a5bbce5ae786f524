"""Pages to questions without a model, by workers, a partition at a time: from documents' structure or users' files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from corpus.records import Question, Rejected, content_id
from corpus.stages.state import Build, blame, pages_of, stall_limit, time_limit
from corpus.store import plain, schema_of, write_records
from corpus.workers import Failure, Task
from synth import question_files, write

Given = Mapping[str, tuple[question_files.GivenQuestion, ...]]  # by document id
SETTINGS = {
    "backend", "tasks", "questions_per_segment", "min_segment_pages", "max_segment_pages", "layout_share",
    "ocr_full_max_bytes", "ocr_min_confidence",
}  # fmt: skip  # what these questions depend on


def write_questions(b: Build, stage: str, given: Given, model_tasks: frozenset[str]) -> None:
    """Write `<stage>` files of every partition that is not done.

    Args:
        stage: "questions", or "layout" for what a model's questions are added to.
        given: the user's own questions.
        model_tasks: tasks that a model writes, except for the segments left to documents' structure.
    """
    dump = b.config.synth.model_dump(include=SETTINGS)
    known = [(plain(b.benchmark.questions), b.config.clean.benchmark_question)] if b.benchmark.questions else []
    schema = str(schema_of(Question))
    base = content_id("synthesise", write.STAGE_VERSION, schema, dump, b.config.seed, sorted(model_tasks), known)
    b.run.drop(stage, keep=b.partitions)
    b.progress.stage("synthesise", len(b.documents), "documents")
    waiting = list(b.partitions)
    while waiting:
        tasks = list(_tasks(b, stage, waiting, base, given, model_tasks))
        waiting = []
        for outcome in b.pool.run(tasks, lambda _: None):
            name, fingerprint = outcome.key
            if isinstance(outcome.value, Failure):
                blame(b, "synthesise", pages_of(b.partitions[name]), outcome.value)
                waiting.append(name)
            else:
                _finish(b, stage, name, fingerprint, outcome.value)


def files_of(b: Build, stage: str, name: str) -> tuple[Path, Path]:
    """Where a partition's questions are, and what was found for no task of a segment."""
    if stage == "questions":
        return b.run.path("questions", f"{name}.parquet"), b.run.work("rejected", f"synthesise-{name}.parquet")
    return b.run.work(stage, f"{name}.parquet"), b.run.work(stage, f"gaps-{name}.parquet")


def _tasks(
    b: Build, stage: str, names: Iterable[str], base: str, given: Given, model_tasks: frozenset[str]
) -> Iterator[Task[Any]]:
    """The partitions that are not done."""
    for name in names:
        documents = b.partitions[name]
        own = {d.doc_id: given[d.doc_id] for d in documents if d.doc_id in given}
        mine = question_files.fingerprint(q for questions in own.values() for q in questions)
        refused = sorted(d.doc_id for d in documents if d.doc_id in b.rejected)
        fingerprint = content_id(base, b.marker("pages", name).output, mine, refused)
        if b.run.is_done(stage, name, fingerprint):
            b.progress.advance(units=len(documents))
            continue
        b.run.reopen(stage, name)
        job = write.SynthJob(
            documents=tuple(documents),
            rejected=frozenset(refused),
            pages_file=b.run.path("pages", f"{name}.parquet"),
            settings=b.config.synth,
            seed=b.config.seed,
            out=files_of(b, stage, name)[0],
            given=own,
            model_tasks=model_tasks,
            benchmark=b.benchmark.questions,
            benchmark_overlap=b.config.clean.benchmark_question,
        )
        limit, stall = time_limit(b, documents), stall_limit(b, documents)
        yield Task((name, fingerprint), write.synthesise_partition, job, limit, stall)


def _finish(b: Build, stage: str, name: str, fingerprint: str, result: write.Synthesised) -> None:
    questions, gaps = files_of(b, stage, name)
    write_records(gaps, Rejected, result.gaps)
    facts = {"accepted": result.accepted, "refused": [result.refused, result.first_refusal]}
    b.run.finish(stage, name, fingerprint, [questions, gaps], facts)
    b.work["synthesise"] += 1
    b.progress.advance(units=len(b.partitions[name]), questions=sum(result.accepted.values()))
