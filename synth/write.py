"""Parsed pages of a partition to its question file. Runs in a worker."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from corpus.benchmark_sets import BenchmarkQuestion
from corpus.config import SynthSettings
from corpus.decontamination import QuestionIndex
from corpus.records import TASKS, Document, Page, Question, Rejected
from corpus.sections import sections_of
from corpus.store import read_records, write_records
from synth.layout_qa import write_questions
from synth.question_files import GivenQuestion, admit
from synth.segments import draw_segments, is_left_to_layout

STAGE_VERSION = 1  # raise it when the same pages should be asked about anew


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthJob:
    """One partition to ask about. `given`: the user's own questions by document, for backend `file`."""

    documents: tuple[Document, ...]  # by id
    rejected: frozenset[str]  # ids of those that an earlier stage or an earlier attempt refused
    pages_file: Path
    settings: SynthSettings
    seed: int
    out: Path
    given: dict[str, tuple[GivenQuestion, ...]] = field(default_factory=dict)
    model_tasks: frozenset[str] = frozenset()  # those that a model writes, but for `settings.layout_share`
    benchmark: tuple[BenchmarkQuestion, ...] = ()  # questions that must not be asked
    benchmark_overlap: float = 1.0  # share of their word runs from which a question repeats one


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthesised:
    """Accepted questions by document, and the segments for which a task found nothing to ask."""

    accepted: dict[str, int]
    refused: int  # questions that stand in the file with a reason
    first_refusal: str  # '' where there is none
    gaps: tuple[Rejected, ...]


def synthesise_partition(job: SynthJob, progress: Callable[[int], None]) -> Synthesised:
    """Write every question of a partition, accepted or rejected, to `job.out`."""
    pages: dict[str, list[Page]] = defaultdict(list)
    for page in read_records(job.pages_file, Page):
        pages[page.doc_id].append(page)
    questions: list[Question] = []
    gaps: list[Rejected] = []
    for document in job.documents:
        if document.doc_id in job.rejected:
            detail = f"document {document.doc_id} was rejected; see ledger.parquet"
            gaps += [
                Rejected(id=g.where, stage="synthesise", reason="document-rejected", detail=detail)
                for g in job.given.get(document.doc_id, ())
            ]
        elif job.settings.backend == "file":
            questions += [admit(given, document) for given in job.given.get(document.doc_id, ())]
        else:
            written, missing = _from_layout(document, pages[document.doc_id], job)
            questions += written
            gaps += missing
        progress(document.num_pages)
    questions = without_known(without_repeats(questions), QuestionIndex(job.benchmark), job.benchmark_overlap)
    write_records(job.out, Question, questions)
    accepted = {d.doc_id: 0 for d in job.documents}
    for question in questions:
        accepted[question.doc_id] += question.accepted
    refused = [q for q in questions if not q.accepted]
    first = f"{refused[0].reason}: {refused[0].detail}" if refused else ""
    return Synthesised(accepted=accepted, refused=len(refused), first_refusal=first, gaps=tuple(gaps))


def without_repeats(questions: Sequence[Question]) -> list[Question]:
    """The questions, a repeated one marked as rejected."""
    seen: set[str] = set()
    kept = []
    for question in questions:
        if question.accepted and question.question_id in seen:
            question = replace(question, reason="duplicate-question", detail="the same question stands above")
        if question.accepted:
            seen.add(question.question_id)
        kept.append(question)
    return kept


def without_known(questions: Sequence[Question], benchmark: QuestionIndex, overlap: float) -> list[Question]:
    """The questions, those that repeat a benchmark's marked as rejected."""
    kept = []
    for question in questions:
        found = benchmark.overlap(question.question, question.answer, overlap) if question.accepted else ""
        kept.append(replace(question, reason="benchmark-question", detail=found) if found else question)
    return kept


def _from_layout(
    document: Document, pages: Sequence[Page], job: SynthJob
) -> tuple[Sequence[Question], Sequence[Rejected]]:
    s = job.settings
    sections = sections_of(pages)
    segments = draw_segments(
        document.doc_id,
        sections,
        len(pages),
        min_pages=s.min_segment_pages,
        max_pages=s.max_segment_pages,
        seed=job.seed,
    )
    ours = tuple(t for t in s.tasks if t in TASKS and t not in job.model_tasks)
    shared = tuple(t for t in s.tasks if t in TASKS and t in job.model_tasks)
    left = [x for x in segments if is_left_to_layout(document.doc_id, x, s.layout_share, job.seed)]
    written = [
        write_questions(pages, sections, where, s.model_copy(update={"tasks": tasks}), job.seed)
        for tasks, where in ((ours, segments), (shared, left))
        if tasks
    ]
    return [q for w in written for q in w.questions], [g for w in written for g in w.gaps]
