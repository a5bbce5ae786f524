"""Pages to questions: from documents' structure or users' files (`structure_questions`), or from a model (`ask`)."""

from __future__ import annotations

from corpus.inspection import question_facts
from corpus.records import Rejected
from corpus.stages import ask, structure_questions
from corpus.stages.state import Build
from corpus.store import write_records
from synth import question_files


def run(b: Build) -> str:
    settings = b.config.synth
    given: structure_questions.Given = {}
    strays: list[Rejected] = []
    if settings.backend == "file":
        rows = question_files.read_question_files(settings.files)
        given, strays = question_files.assign(rows, b.documents)
    write_records(b.run.work("rejected", "synthesise.parquet"), Rejected, strays)
    spent = ""
    if settings.backend in ("openai", "vllm"):
        spent = ask.run(b)
    else:
        structure_questions.write_questions(b, "questions", given, frozenset())
    markers = b.run.markers("questions").values()
    facts = question_facts(b.run.root, ask.replies_of(markers))
    b.questions = {name: facts[name] for name in ("checks", "replies", "relabelled")}
    accepted = sum(sum(m.facts["accepted"].values()) for m in markers)
    refusals = [m.facts["refused"] for m in markers if m.facts["refused"][0]]
    refused = sum(n for n, _ in refusals) + len(strays)
    first = refusals[0][1] if refusals else f"{strays[0].reason}: {strays[0].detail}" if strays else ""
    return f"{accepted} questions accepted{spent}" + (
        f", {refused} refused (rejected.parquet), first {first}" if refused else ""
    )
