"""Pages to questions, a partition at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from corpus.records import Question, Rejected, content_id
from corpus.stages.state import Build, blame, pages_of, stall_limit, time_limit
from corpus.store import plain, schema_of, write_records
from corpus.workers import Failure, Task
from synth import question_files, write


def run(b: Build) -> str:
    settings = b.config.synth
    given: dict[str, tuple[question_files.GivenQuestion, ...]] = {}
    strays: list[Rejected] = []
    if settings.backend == "file":
        rows = question_files.read_question_files(settings.files)
        given, strays = question_files.assign(rows, b.documents)
    write_records(b.run.work("rejected", "synthesise.parquet"), Rejected, strays)
    dump = settings.model_dump(exclude={"files"})
    stage = content_id("synthesise", write.STAGE_VERSION, str(schema_of(Question)), dump, b.config.seed)
    b.run.drop("questions", keep=b.partitions)
    known = [(plain(b.benchmark.questions), b.config.clean.benchmark_question)] if b.benchmark.questions else []
    stage = content_id(stage, known)
    b.progress.stage("synthesise", len(b.documents), "documents")
    waiting = list(b.partitions)
    while waiting:
        tasks = list(_tasks(b, waiting, stage, given))
        waiting = []
        for outcome in b.pool.run(tasks, lambda _: None):
            name, fingerprint = outcome.key
            if isinstance(outcome.value, Failure):
                blame(b, "synthesise", pages_of(b.partitions[name]), outcome.value)
                waiting.append(name)
            else:
                _finish(b, name, fingerprint, outcome.value)
    markers = b.run.markers("questions").values()
    accepted = sum(sum(m.facts["accepted"].values()) for m in markers)
    refusals = [m.facts["refused"] for m in markers if m.facts["refused"][0]]
    refused = sum(n for n, _ in refusals) + len(strays)
    first = refusals[0][1] if refusals else f"{strays[0].reason}: {strays[0].detail}" if strays else ""
    return f"{accepted} questions accepted" + (
        f", {refused} refused (rejected.parquet), first {first}" if refused else ""
    )


def _tasks(
    b: Build, names: Iterable[str], stage: str, given: Mapping[str, tuple[question_files.GivenQuestion, ...]]
) -> Iterator[Task[Any]]:
    """The partitions that are not done."""
    for name in names:
        documents = b.partitions[name]
        own = {d.doc_id: given[d.doc_id] for d in documents if d.doc_id in given}
        mine = question_files.fingerprint(q for questions in own.values() for q in questions)
        refused = sorted(d.doc_id for d in documents if d.doc_id in b.rejected)
        fingerprint = content_id(stage, b.marker("pages", name).output, mine, refused)
        if b.run.is_done("questions", name, fingerprint):
            b.progress.advance(units=len(documents))
            continue
        b.run.reopen("questions", name)
        job = write.SynthJob(
            documents=tuple(documents),
            rejected=frozenset(refused),
            pages_file=b.run.path("pages", f"{name}.parquet"),
            settings=b.config.synth,
            seed=b.config.seed,
            out=b.run.path("questions", f"{name}.parquet"),
            given=own,
            benchmark=b.benchmark.questions,
            benchmark_overlap=b.config.clean.benchmark_question,
        )
        limit, stall = time_limit(b, documents), stall_limit(b, documents)
        yield Task((name, fingerprint), write.synthesise_partition, job, limit, stall)


def _finish(b: Build, name: str, fingerprint: str, result: write.Synthesised) -> None:
    gaps = b.run.work("rejected", f"synthesise-{name}.parquet")
    write_records(gaps, Rejected, result.gaps)
    files = [b.run.path("questions", f"{name}.parquet"), gaps]
    facts = {"accepted": result.accepted, "refused": [result.refused, result.first_refusal]}
    b.run.finish("questions", name, fingerprint, files, facts)
    b.work["synthesise"] += 1
    b.progress.advance(units=len(b.partitions[name]), questions=sum(result.accepted.values()))
