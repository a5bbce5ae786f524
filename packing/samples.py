"""Parsed pages and questions of a partition to windows and samples, with exact lengths. Runs in a worker.

Cut after the questions exist: a window is kept away from the segments they were asked about, and the longest turn
is part of the window's budget. Transcriptions (ocr-full, ocr-needle) are as long as pages: they count towards that
reserve only where they cost no further cut and no page; elsewhere they are admitted where the pages leave room.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from corpus.config import Config
from corpus.errors import DocumentError
from corpus.messages import build_messages, message_fingerprint, spoken_answer, spoken_question
from corpus.records import (
    Document,
    LeftOut,
    Page,
    PageGrid,
    Question,
    Rejected,
    Sample,
    Segment,
    Window,
    content_id,
)
from corpus.sections import sections_of
from corpus.store import read_records
from corpus.vision_tokens import FAMILIES, Family, natural_size, snap
from packing.lengths import TextCounter, conversation_length, load_counter, page_tokens, turn_tokens
from packing.windows import WindowCut, cut_windows

STAGE_VERSION = 1  # raise it when the same questions should be cut anew
TRANSCRIPTION_TASKS = ("ocr-full", "ocr-needle")
NO_QUESTIONS = "no-questions"


@dataclass(frozen=True, slots=True, kw_only=True)
class CutJob:
    """One partition to cut. `problems`: document -> page -> why rendering it failed."""

    documents: tuple[Document, ...]
    pages_file: Path
    questions_file: Path
    problems: dict[str, dict[int, str]]
    config: Config


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentCut:
    """What a document became. Its pages are all in `windows` or in `left_out`, each page once."""

    doc_id: str
    windows: tuple[Window, ...]  # those with at least one sample
    window_tokens: int  # of their images and labels
    left_out: tuple[LeftOut, ...]
    samples: tuple[Sample, ...]
    rejected: tuple[Rejected, ...]  # accepted questions that no window holds


def cut_partition(job: CutJob, progress: Callable[[int], None]) -> list[DocumentCut]:
    """Windows and samples of every document of a partition, in the order of the job."""
    pages: dict[str, list[Page]] = defaultdict(list)
    for page in read_records(job.pages_file, Page):
        pages[page.doc_id].append(page)
    questions: dict[str, list[Question]] = defaultdict(list)
    for question in read_records(job.questions_file, Question):
        if question.accepted:
            questions[question.doc_id].append(question)
    counter = load_counter(job.config.tokenizer)
    cuts = []
    for document in job.documents:
        doc_id = document.doc_id
        if doc_id in pages:
            problems = job.problems.get(doc_id, {})
            cuts.append(cut_document(doc_id, pages[doc_id], questions[doc_id], problems, job.config, counter))
        progress(document.num_pages)
    return cuts


def cut_document(
    doc_id: str,
    pages: Sequence[Page],
    questions: Sequence[Question],
    problems: dict[int, str],
    config: Config,
    counter: TextCounter,
) -> DocumentCut:
    """Cut one document and give each accepted question a window; pure."""
    family = FAMILIES[config.model]
    grids, reasons = page_grids(pages, family, config.render.dpi, problems)
    labels = config.messages.page_labels
    lengths = [None if g is None else page_tokens(i, g, family, counter, labels) for i, g in enumerate(grids)]
    cut = _cut(doc_id, pages, questions, lengths, reasons, config, family, counter)
    windows, left_out, samples = [], list(cut.left_out), []
    placed: set[str] = set()
    misfits: dict[str, Rejected] = {}
    for window in cut.windows:
        held = [_grid(grids[i]) for i in range(window.first_page, window.first_page + window.num_pages)]
        made = []
        for question in questions:
            outcome = _sample(window, held, question, config, family, counter)
            if isinstance(outcome, Sample):
                made.append(outcome)
                placed.add(question.question_id)
            elif outcome:
                misfits[question.question_id] = outcome
        samples += made
        if made:
            windows.append(window)
        else:
            left_out.append(LeftOut(first_page=window.first_page, num_pages=window.num_pages, reason=NO_QUESTIONS))
    rejected = tuple(
        misfits.get(q.question_id, _refuse(q, "no-window-holds-segment", _pages_named(q)))
        for q in questions
        if q.question_id not in placed
    )
    tokens = sum(lengths[i] or 0 for w in windows for i in range(w.first_page, w.first_page + w.num_pages))
    left_out.sort(key=lambda x: x.first_page)
    return DocumentCut(
        doc_id=doc_id,
        windows=tuple(windows),
        window_tokens=tokens,
        left_out=tuple(left_out),
        samples=tuple(samples),
        rejected=rejected,
    )


def _cut(
    doc_id: str,
    pages: Sequence[Page],
    questions: Sequence[Question],
    lengths: Sequence[int | None],
    reasons: dict[int, str],
    config: Config,
    family: Family,
    counter: TextCounter,
) -> WindowCut:
    """Windows with room for every turn, unless room for transcriptions alone costs a cut or a page."""
    segments = {Segment(first_page=q.segment_first, num_pages=q.segment_pages) for q in questions}
    overhead = frame_tokens(doc_id, config, family, counter)

    def spoken_tokens(q: Question) -> int:
        return counter.count(spoken_question(q, config.messages)) + counter.count(spoken_answer(q))

    def cut(turns: Sequence[Question]) -> WindowCut:
        return cut_windows(
            doc_id,
            lengths,
            sections_of(pages),
            sorted(segments, key=lambda s: (s.first_page, s.num_pages)),
            min_tokens=config.windows.min_tokens,
            max_tokens=config.windows.max_tokens,
            reserve=max(map(spoken_tokens, turns), default=0),
            overhead=overhead,
            page_problems=reasons,
        )

    roomy, plain = cut(questions), cut([q for q in questions if q.task not in TRANSCRIPTION_TASKS])
    same_pages = _num_pages(roomy) == _num_pages(plain)
    return roomy if same_pages and len(roomy.windows) == len(plain.windows) else plain


def _num_pages(cut: WindowCut) -> int:
    return sum(w.num_pages for w in cut.windows)


def page_grids(
    pages: Sequence[Page], family: Family, dpi: int, problems: dict[int, str]
) -> tuple[list[PageGrid | None], dict[int, str]]:
    """Pixel size of every page, None where it cannot be rendered, and the reasons for those."""
    grids: list[PageGrid | None] = []
    reasons: dict[int, str] = {}
    for page in pages:
        reason = page.problem or problems.get(page.index, "")
        grid = None
        if not reason:
            try:
                grid = snap(*natural_size(page.width, page.height, dpi), family)
            except DocumentError as e:
                reason = str(e)
        grids.append(grid)
        if reason:
            reasons[page.index] = reason
    return grids, reasons


def frame_tokens(doc_id: str, config: Config, family: Family, counter: TextCounter) -> int:
    """Tokens of a conversation besides its pages, its question and its answer."""
    empty = Question(
        question_id="", doc_id=doc_id, task="", question="", answer="", answer_format="String", evidence=(),
        segment_first=0, segment_pages=0,
    )  # fmt: skip
    window = Window(doc_id=doc_id, index=0, first_page=0, num_pages=0)
    messages = build_messages(window, [empty], config.messages)
    return conversation_length(messages, [], family, counter).num_tokens


def _sample(
    window: Window,
    grids: Sequence[PageGrid],
    question: Question,
    config: Config,
    family: Family,
    counter: TextCounter,
) -> Sample | Rejected | None:
    """The sample of a question in a window; None where the window does not hold its segment."""
    last, needed = window.first_page + window.num_pages, question.segment_first + question.segment_pages
    if question.segment_first < window.first_page or needed > last:
        return None
    if question.names_pages and not config.messages.page_labels and window.first_page > 0:
        return _refuse(question, "page-number-without-labels", "turn messages.page_labels on to keep it")
    messages = build_messages(window, [question], config.messages)
    length = conversation_length(messages, grids, family, counter)
    if length.num_tokens > config.windows.max_tokens:
        detail = f"{length.num_tokens} tokens exceed windows.max_tokens = {config.windows.max_tokens}"
        return _refuse(question, "turn-too-long", detail)
    ids = (question.question_id,)
    identity = (window.doc_id, window.first_page, window.num_pages, ids, message_fingerprint(config.messages))
    return Sample(
        sample_id="s" + content_id(*identity, length=15),
        doc_id=window.doc_id,
        window=window.index,
        first_page=window.first_page,
        num_pages=window.num_pages,
        question_ids=ids,
        task=question.task,
        split="train",
        num_tokens=length.num_tokens,
        num_patches=length.num_patches,
        num_supervised=length.num_supervised,
        patch_pairs=length.patch_pairs,
        tokens_exact=counter.exact,
        grids=tuple(grids),
        turn_tokens=turn_tokens(question, config.messages, family, counter),
    )


def _refuse(question: Question, reason: str, detail: str) -> Rejected:
    return Rejected(id=question.question_id, stage="shard", reason=reason, detail=detail)


def _pages_named(question: Question) -> str:
    first, last = question.segment_first + 1, question.segment_first + question.segment_pages
    return f"asked about pages {first}-{last} of {question.doc_id}"


def _grid(grid: PageGrid | None) -> PageGrid:
    assert grid is not None, "a window spans a page that cannot be rendered"
    return grid
