"""A document's segments to its questions, by asking a model: write, check the text, let a model check.

For each segment and task, questions are drawn until one is accepted or the attempts are spent. Cheap checks come first,
and a question that fails one costs no further request. The order in which answers arrive changes nothing: what depends
on other questions (near-duplicates) is decided in the order of the segments, after all of an attempt were written.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from corpus.config import SynthSettings
from corpus.errors import DocumentError
from corpus.records import Document, Page, Question, Rejected, Segment, Verdict, content_id, question_id
from corpus.sections import sections_of
from synth import verify
from synth.chat import ChatModel, ChatRequest, LoadImages, RequestFailed, Sampling
from synth.grounding import locate
from synth.prompt_pages import prompt_page
from synth.replies import Fault, Reply, parse_reply
from synth.segments import draw_segments, is_left_to_layout
from synth.tasks import TaskSpec, build_prompt, reply_schema

NAMES_PAGES = re.compile(r"\bpages?\s+\d|第\s*\d+\s*[页頁]", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One question that is wanted: the `number`-th of a task about a segment."""

    segment: Segment
    task: TaskSpec
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What one document yields: every question with its verdicts, and the slots that stayed empty."""

    questions: tuple[Question, ...]
    gaps: tuple[Rejected, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Questioner:
    """Who writes, who judges, and how."""

    writer: ChatModel
    judge: ChatModel
    tasks: tuple[TaskSpec, ...]  # those that a model writes
    settings: SynthSettings
    seed: int


async def ask_document(q: Questioner, document: Document, pages: Sequence[Page], load: LoadImages) -> Asked:
    """Questions about one document; `pages` are all of it.

    Raises:
        EngineError: the server is gone.
    """
    about = _Document(q, document, pages, load)
    questions: list[Question] = []
    ends: dict[Slot, Question | Fault] = {}
    slots = about.slots()
    for attempt in range(q.settings.attempts):
        waiting = [s for s in slots if isinstance(ends.get(s, NOTHING), Fault)]
        written = await asyncio.gather(*(about.write(slot, attempt) for slot in waiting))
        checked = about.check_texts(written, [x for x in questions if x.accepted])
        for slot, end in zip(waiting, await asyncio.gather(*map(about.judge, checked)), strict=True):
            if isinstance(end, Question):
                questions.append(end)
            ends[slot] = end if isinstance(end, Fault) or end.accepted else Fault(end.reason, end.detail)
    gaps = [about.gap(slot, end) for slot, end in ends.items() if isinstance(end, Fault)]
    return Asked(questions=tuple(questions), gaps=tuple(gaps))


NOTHING = Fault("not-asked", "")


class _Document:
    """Requests about one document, and what is made of their answers."""

    def __init__(self, q: Questioner, document: Document, pages: Sequence[Page], load: LoadImages) -> None:
        self._q, self._document, self._pages, self._load = q, document, pages, load
        self._sections = sections_of(pages)

    def slots(self) -> list[Slot]:
        """What is wanted, in the order of the segments."""
        s = self._q.settings
        segments = draw_segments(
            self._document.doc_id,
            self._sections,
            len(self._pages),
            min_pages=s.min_segment_pages,
            max_pages=s.max_segment_pages,
            seed=self._q.seed,
        )
        return [
            Slot(segment=segment, task=task, number=number)
            for segment in segments
            if not is_left_to_layout(self._document.doc_id, segment, s.layout_share, self._q.seed)
            for task in self._q.tasks
            for number in range(s.questions_per_segment)
        ]

    async def write(self, slot: Slot, attempt: int) -> Question | Fault:
        """One question as the model puts it, unchecked."""
        segment, task = slot.segment, slot.task
        first, end = segment.first_page, segment.first_page + segment.num_pages
        titles = [s.title for s in self._sections if s.title and first < s.first_page + s.num_pages and s.first_page < end]
        seed = _seed(self._q.seed, self._document.doc_id, task.name, first, slot.number, attempt)
        system, text = build_prompt(task, segment, titles, seed)
        s = self._q.settings
        answer = await self._ask(
            self._q.writer,
            task.name,
            range(first, end),
            (system, text, reply_schema(task, segment) if s.structured else ""),
            Sampling(temperature=s.temperature, top_p=s.top_p, max_tokens=s.max_answer_tokens, seed=seed),
        )
        if isinstance(answer, Fault):
            return answer
        reply = parse_reply(answer, task, segment, s.structured)
        return reply if isinstance(reply, Fault) else self._question(slot, reply, seed)

    def _question(self, slot: Slot, reply: Reply, seed: int) -> Question:
        generator = self._q.writer.name
        return Question(
            question_id=question_id(
                doc_id=self._document.doc_id,
                task=slot.task.name,
                segment=slot.segment,
                generator=generator,
                prompt_version=slot.task.version,
                seed=seed,
                question=reply.question,
            ),
            doc_id=self._document.doc_id,
            task=slot.task.name,
            question=reply.question,
            answer=reply.answer,
            answer_format=reply.answer_format,
            evidence=locate(reply, self._pages),
            segment_first=slot.segment.first_page,
            segment_pages=slot.segment.num_pages,
            anchor=reply.anchor,
            names_pages=bool(NAMES_PAGES.search(reply.question)),
            generator=generator,
            prompt_version=slot.task.version,
            seed=seed,
        )

    def check_texts(
        self, written: Sequence[Question | Fault], earlier: Sequence[Question]
    ) -> list[Question | Fault]:
        """The questions with the verdicts of every check that needs no model; one that repeats an earlier one fails."""
        checked: list[Question | Fault] = []
        seen = list(earlier)
        for item in written:
            if isinstance(item, Question):
                verdicts = verify.text_checks(item, self._pages, self._sections, seen, self._q.settings.checks)
                item = _with(item, *verdicts)
                if item.accepted:
                    seen.append(item)
            checked.append(item)
        return checked

    async def judge(self, item: Question | Fault) -> Question | Fault:
        """The question with the verdicts of the checks that ask a model, until one fails."""
        if isinstance(item, Fault) or not item.accepted:
            return item
        for check in MODEL_CHECKS:
            if check in self._q.settings.checks:
                item = await self._judge_by(check, item)
            if not item.accepted:
                break
        return item

    async def _judge_by(self, check: str, question: Question) -> Question:
        shown = self._shown(check, question)
        replies = await asyncio.gather(*(self._answer(check, question, pages) for pages in shown))
        failed = next((r for r in replies if isinstance(r, Fault)), None)
        if failed:
            detail = f"the check had no answer: {failed.reason}: {failed.detail}"
            return _with(question, Verdict(check=check, passed=False, detail=detail))
        verdict = JUDGES[check](question, [r for r in replies if not isinstance(r, Fault)])
        return _with(question, verdict)

    def _shown(self, check: str, question: Question) -> list[tuple[int, ...]]:
        """The pages of each request that a check makes; () is a request without pages."""
        evidence = tuple(sorted({e.page for e in question.evidence}))
        if check == "closed-book":
            return [()]
        if check == "agreement":
            return [evidence]
        if check == "leakage":
            return [(page,) for page in evidence] if question.task == "extract-multi" and len(evidence) > 1 else []
        rest = [p.index for p in self._pages if p.index not in evidence and not p.problem]
        size = self._q.settings.max_segment_pages
        return [tuple(rest[i : i + size]) for i in range(0, len(rest), size)]

    async def _answer(self, check: str, question: Question, pages: Sequence[int]) -> str | Fault:
        s = self._q.settings
        sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=s.max_answer_tokens, seed=self._q.seed)
        prompt = (*verify.answer_prompt(question, pages), verify.ANSWER_SCHEMA if s.structured else "")
        answer = await self._ask(self._q.judge, check, pages, prompt, sampling)
        return answer if isinstance(answer, Fault) else verify.parse_answer(answer, s.structured)

    async def _ask(
        self, model: ChatModel, purpose: str, pages: Sequence[int], prompt: tuple[str, str, str], sampling: Sampling
    ) -> str | Fault:
        """The model's answer, or why there is none."""
        system, text, schema = prompt
        broken = [self._pages[i] for i in pages if self._pages[i].problem]
        if broken:
            return Fault("unrenderable-page", f"page {broken[0].index + 1}: {broken[0].problem}")
        shown = tuple(prompt_page(self._pages[i], self._q.settings.image_tokens) for i in pages)
        request = ChatRequest(purpose=purpose, system=system, pages=shown, text=text, schema=schema, sampling=sampling)
        try:
            return (await model.ask(request, self._load)).text
        except (RequestFailed, DocumentError) as e:
            return Fault(e.reason, e.detail)

    def gap(self, slot: Slot, fault: Fault) -> Rejected:
        first, last = slot.segment.first_page + 1, slot.segment.first_page + slot.segment.num_pages
        place = f"{self._document.doc_id}:{first}-{last}:{slot.task.name}"
        return Rejected(id=place, stage="synthesise", reason="no-accepted-question", detail=f"{fault.reason}: {fault.detail}")


def _with(question: Question, *verdicts: Verdict) -> Question:
    """The question with more verdicts; the first that fails is the reason of its rejection."""
    failed = next((v for v in verdicts if not v.passed), None)
    verdicts = (*question.verdicts, *verdicts)
    if failed is None:
        return replace(question, verdicts=verdicts)
    return replace(question, verdicts=verdicts, reason=failed.check, detail=failed.detail)


def _seed(*parts: object) -> int:
    """A seed that servers take, from what is asked for."""
    return int(content_id(*parts, length=7), 16)
