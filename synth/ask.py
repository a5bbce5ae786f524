"""A document's segments to its questions, by asking a model: write, check the text, let a model check.

For each segment and task, questions are drawn until one is accepted or the attempts are spent. Cheap checks come first,
and a question that fails one costs no further request. The order in which answers arrive changes nothing: what depends
on other questions (near-duplicates) is decided in the order of the segments, after all of an attempt were written.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from corpus.config import SynthSettings
from corpus.errors import DocumentError
from corpus.records import (
    MODEL_CHECKS,
    READ,
    Document,
    Page,
    Question,
    Rejected,
    Segment,
    Verdict,
    content_id,
    question_id,
)
from corpus.sections import sections_of
from synth import verify
from synth.anchors import DocumentText
from synth.chat import ChatModel, ChatRequest, LoadImages, RequestFailed, Sampling
from synth.grounding import find_evidence
from synth.labels import named_pages
from synth.prompt_pages import prompt_page
from synth.replies import Fault, Reply, parse_reply, reply_schema
from synth.segments import draw_segments, is_left_to_layout
from synth.tasks import TaskSpec, build_prompt

NOT_ASKED = Fault(reason="not-asked", detail="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One question that is wanted: the `number`-th of a task about a segment."""

    segment: Segment
    task: TaskSpec
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What one document yields: every question with its verdicts, and the slots that stayed empty.

    `faults`: why requests for the empty slots got no reply, by the number of slots. `replies`: of a task or a check,
    how many could be read, and how many could not, by reason.
    """

    questions: tuple[Question, ...]
    gaps: tuple[Rejected, ...]
    faults: Counter[str]
    replies: Mapping[str, Counter[str]]


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
    ends: dict[Slot, Question | Fault] = dict.fromkeys(about.slots(), NOT_ASKED)
    for attempt in range(q.settings.attempts):
        waiting = [slot for slot, end in ends.items() if isinstance(end, Fault)]
        written = await asyncio.gather(*(about.write(slot, attempt) for slot in waiting))
        checked = about.check_texts(waiting, written, [x for x in questions if x.accepted])
        judged = await asyncio.gather(*map(about.judge, waiting, checked))
        for slot, end in zip(waiting, judged, strict=True):
            if isinstance(end, Question):
                questions.append(end)
                end = end if end.accepted else Fault(reason=end.reason, detail=end.detail)
            ends[slot] = end
    empty = [(slot, end) for slot, end in ends.items() if isinstance(end, Fault)]
    return Asked(
        questions=tuple(questions),
        gaps=tuple(about.gap(slot, end) for slot, end in empty),
        faults=Counter(reason for slot, _ in empty for reason in about.faults[slot]),
        replies=about.replies,
    )


class _Document:
    """Requests about one document, and what is made of their answers."""

    def __init__(self, q: Questioner, document: Document, pages: Sequence[Page], load: LoadImages) -> None:
        self._q, self._document, self._pages, self._load = q, document, pages, load
        self._sections = sections_of(pages)
        self._text = DocumentText(pages, self._sections)
        self.faults: defaultdict[Slot, set[str]] = defaultdict(set)  # what kept a slot's requests from a reply
        self.replies: defaultdict[str, Counter[str]] = defaultdict(Counter)  # by task or check, then by reason

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
        s, task, segment = self._q.settings, slot.task, slot.segment
        first, end = segment.first_page, segment.first_page + segment.num_pages
        titles = [x.title for x in self._sections if first < x.first_page + x.num_pages and x.first_page < end]
        seed = _seed(self._q.seed, self._document.doc_id, task.name, first, slot.number, attempt)
        answer = await self._ask(
            self._q.writer,
            task.name,
            range(first, end),
            build_prompt(task, segment, titles, seed),
            reply_schema(task, segment),
            Sampling(temperature=s.temperature, top_p=s.top_p, max_tokens=s.max_answer_tokens, seed=seed),
        )
        if isinstance(answer, Fault):
            self.faults[slot].add(answer.reason)
            return answer
        reply = parse_reply(answer, task, segment, s.structured)
        self.replies[task.name][reply.reason if isinstance(reply, Fault) else READ] += 1
        return reply if isinstance(reply, Fault) else self._question(slot, reply, seed)

    def _question(self, slot: Slot, reply: Reply, seed: int) -> Question:
        generator = self._q.writer.name
        evidence = find_evidence(
            reply.evidence_pages, reply.evidence_sources, reply.quotes, reply.answer, reply.answer_format, self._pages
        )
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
            evidence=evidence,
            segment_first=slot.segment.first_page,
            segment_pages=slot.segment.num_pages,
            anchor=reply.anchor,
            names_pages=bool(named_pages(reply.question)),
            generator=generator,
            prompt_version=slot.task.version,
            seed=seed,
        )

    def check_texts(
        self, slots: Sequence[Slot], written: Sequence[Question | Fault], earlier: Sequence[Question]
    ) -> list[Question | Fault]:
        """The questions with the verdicts of every check that needs no model, in order: the earlier of two stays."""
        checked: list[Question | Fault] = []
        seen = list(earlier)
        for slot, item in zip(slots, written, strict=True):
            if isinstance(item, Question):
                item = verify.judged(item, verify.text_checks(item, self._text, seen, self._checks(slot)))
                if item.accepted:
                    seen.append(item)
            checked.append(item)
        return checked

    def _checks(self, slot: Slot) -> list[str]:
        return [c for c in slot.task.checks if c in self._q.settings.checks]

    async def judge(self, slot: Slot, item: Question | Fault) -> Question | Fault:
        """The question with the verdicts of the checks that ask a model, until one fails."""
        if isinstance(item, Fault):
            return item
        for check in MODEL_CHECKS:
            if item.accepted and check in self._checks(slot):
                item = await self._judged_by(check, slot, item)
        return item

    async def _judged_by(self, check: str, slot: Slot, question: Question) -> Question:
        evidence = sorted({e.page for e in question.evidence})
        if check == "closed-book":
            verdict = verify.judge_closed_book(question, await self._answers(check, slot, question, [()]))
        elif check == "agreement":
            verdict = verify.judge_agreement(question, await self._answers(check, slot, question, [evidence]))
        elif check == "ambiguity":
            rest = [p.index for p in self._pages if p.index not in evidence and not p.problem]
            size = self._q.settings.max_segment_pages
            parts = [rest[i : i + size] for i in range(0, len(rest), size)]
            if not parts:
                return verify.judged(question, [Verdict(check=check, passed=True, detail="there are no other pages")])
            verdict = verify.judge_ambiguity(question, await self._answers(check, slot, question, parts))
        else:
            alone = [[page] for page in evidence] if len(evidence) > 1 else []
            answers = dict(zip(evidence, await self._answers(check, slot, question, alone), strict=False))
            page = verify.sufficient_page(question, answers)
            if page is not None:  # a question all the same, but one about a single page
                verdict = Verdict(check=check, passed=True, detail=f"page {page + 1} is enough: now extract-single")
                return verify.judged(verify.relabelled(question, page), [verdict])
            verdict = verify.judge_leakage(question, answers)
        return verify.judged(question, [verdict])

    async def _answers(
        self, check: str, slot: Slot, question: Question, shown: Sequence[Sequence[int]]
    ) -> list[str | None]:
        """What the judge answers from each of these runs of pages; None where that cannot be read, or had."""
        return await asyncio.gather(*(self._answer(check, slot, question, pages) for pages in shown))

    async def _answer(self, check: str, slot: Slot, question: Question, pages: Sequence[int]) -> str | None:
        s = self._q.settings
        prompt = verify.answer_prompt(question, bool(pages))
        faults = set()
        for attempt in range(s.attempts):
            seed = _seed(self._q.seed, check, attempt)
            sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=s.max_answer_tokens, seed=seed)
            text = await self._ask(self._q.judge, check, pages, prompt, verify.ANSWER_SCHEMA, sampling)
            if isinstance(text, Fault):
                faults.add(text.reason)
                continue
            answer = verify.parse_answer(text, s.structured)
            self.replies[check][answer.reason if isinstance(answer, Fault) else READ] += 1
            if not isinstance(answer, Fault):
                return answer
        self.faults[slot] |= faults
        return None

    async def _ask(
        self,
        model: ChatModel,
        purpose: str,
        pages: Sequence[int],
        prompt: tuple[str, str],
        schema: str,
        sampling: Sampling,
    ) -> str | Fault:
        """The model's answer, or why there is none."""
        broken = next((self._pages[i] for i in pages if self._pages[i].problem), None)
        if broken:
            return Fault(reason="unrenderable-page", detail=f"page {broken.index + 1}: {broken.problem}")
        request = ChatRequest(
            purpose=purpose,
            system=prompt[0],
            pages=tuple(prompt_page(self._pages[i], self._q.settings.image_tokens) for i in pages),
            text=prompt[1],
            schema=schema if self._q.settings.structured else "",
            sampling=sampling,
        )
        try:
            return (await model.ask(request, self._load)).text
        except (RequestFailed, DocumentError) as e:
            return Fault(reason=e.reason, detail=e.detail)

    def gap(self, slot: Slot, fault: Fault) -> Rejected:
        """A slot that stayed empty, with what became of its last attempt."""
        first, last = slot.segment.first_page + 1, slot.segment.first_page + slot.segment.num_pages
        place = f"{self._document.doc_id}:{first}-{last}:{slot.task.name}"
        why = f"{self._q.settings.attempts} attempts; the last: {fault.reason}: {fault.detail}"
        return Rejected(id=place, stage="synthesise", reason="no-accepted-question", detail=why)


def _seed(*parts: object) -> int:
    """A seed that servers take, from what is asked for."""
    return int(content_id(*parts, length=7), 16)
