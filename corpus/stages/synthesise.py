"""Pages to questions, a partition at a time."""

from __future__ import annotations

from corpus.benchmark_sets import read_benchmarks
from corpus.records import Question, Rejected, content_id
from corpus.stages.state import Build, time_limit, value_of
from corpus.store import plain, schema_of, write_records
from corpus.workers import Task
from synth import question_files, write


def run(b: Build) -> str:
    settings = b.config.synth
    given: dict[str, tuple[question_files.GivenQuestion, ...]] = {}
    strays: list[Rejected] = []
    if settings.backend == "file":
        rows = question_files.read_question_files(settings.files)
        given, strays = question_files.assign(rows, b.documents)
        strays += [_orphan(g, b.rejected[d]) for d in sorted(given) if d in b.rejected for g in given[d]]
    benchmark = read_benchmarks(b.config.clean.decontaminate).questions
    write_records(b.run.work("rejected", "synthesise.parquet"), Rejected, strays)
    dump = settings.model_dump(exclude={"files"})
    stage = content_id("synthesise", write.STAGE_VERSION, str(schema_of(Question)), dump, b.config.seed)
    b.run.drop("questions", keep=b.partitions)
    known = [(plain(benchmark), b.config.clean.benchmark_question)] if benchmark else []
    b.progress.stage("synthesise", len(b.documents), "documents")
    tasks = []
    for name in b.partitions:
        documents = b.kept(name)
        own = {d.doc_id: given[d.doc_id] for d in documents if d.doc_id in given}
        mine = question_files.fingerprint(q for questions in own.values() for q in questions)
        upstream = b.marker("pages", name)
        fingerprint = content_id(stage, upstream.output, [d.doc_id for d in documents], mine, known)
        if b.run.is_done("questions", name, fingerprint):
            b.progress.advance(units=len(documents))
            continue
        b.run.reopen("questions", name)
        job = write.SynthJob(
            documents=tuple(documents),
            pages_file=b.run.path("pages", f"{name}.parquet"),
            settings=settings,
            seed=b.config.seed,
            out=b.run.path("questions", f"{name}.parquet"),
            given=own,
            benchmark=benchmark,
            benchmark_overlap=b.config.clean.benchmark_question,
        )
        tasks.append(Task((name, fingerprint), write.synthesise_partition, job, time_limit(b, documents)))
    for outcome in b.pool.run(tasks, lambda _: None):
        name, fingerprint = outcome.key
        result = value_of(outcome.value, f"questions of {name}")
        gaps = b.run.work("rejected", f"synthesise-{name}.parquet")
        write_records(gaps, Rejected, result.gaps)
        files = [b.run.path("questions", f"{name}.parquet"), gaps]
        b.run.finish(
            "questions",
            name,
            fingerprint,
            files,
            {"accepted": result.accepted, "refused": [result.refused, result.first_refusal]},
        )
        b.work["synthesise"] += 1
        b.progress.advance(units=len(b.partitions[name]), questions=sum(result.accepted.values()))
    markers = b.run.markers("questions").values()
    accepted = sum(sum(m.facts["accepted"].values()) for m in markers)
    refusals = [m.facts["refused"] for m in markers if m.facts["refused"][0]]
    refused = sum(n for n, _ in refusals) + len(strays)
    first = refusals[0][1] if refusals else f"{strays[0].reason}: {strays[0].detail}" if strays else ""
    return f"{accepted} questions accepted" + (
        f", {refused} refused (rejected.parquet), first {first}" if refused else ""
    )


def _orphan(given: question_files.GivenQuestion, document: Rejected) -> Rejected:
    """A question whose document was refused before it could be asked."""
    detail = f"document {document.id} was rejected at {document.stage}: {document.reason}"
    return Rejected(id=given.where, stage="synthesise", reason="document-rejected", detail=detail)
