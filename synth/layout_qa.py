"""Questions from document structure alone: no model, no network, the same questions on every machine.

The default backend, and the floor that a model has to beat. For each segment and task, patterns are tried
in an order drawn by seed until the wanted number of questions is found; what is asked, and how a place is
named, is decided in `synth.table_patterns`, `synth.text_patterns` and `synth.document_index`. Precision
before yield: a segment without a safe question yields none, and says so (`Written.gaps`).
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from corpus.config import SynthSettings
from corpus.records import Evidence, Page, Question, Rejected, Section, Segment, content_id, question_id
from synth import table_patterns, text_patterns
from synth.document_index import STRAY_ACCENT, DocumentIndex, verbatim
from synth.drafts import Draft, Pattern
from synth.phrasings import FIRST_IS_1, PHRASINGS, VERSIONS

# Weight of each pattern among those that still have something to ask.
PATTERNS: dict[str, tuple[tuple[Pattern, float], ...]] = {
    "extract-single": (
        (table_patterns.lookup, 5),
        (text_patterns.heading_page, 2),
        (text_patterns.caption_text, 3),
        (text_patterns.list_item, 3),
    ),
    "extract-multi": (
        (table_patterns.lookup_two, 4),
        (text_patterns.heading_pages, 1.5),
        (text_patterns.caption_pages, 2),
        (text_patterns.subsections, 4),
    ),
    "reasoning": (
        (table_patterns.difference_columns, 2),
        (table_patterns.difference_rows, 2),
        (table_patterns.sum_rows, 2),
        (table_patterns.percent_change, 2),
        (table_patterns.rows_above, 1.5),
        (table_patterns.rows_increased, 1.5),
        (table_patterns.range_column, 1.5),
        (text_patterns.subsection_count, 2),
        (text_patterns.list_count, 2),
        (text_patterns.heading_distance, 0.7),
    ),
}
# Where headings are all that a document offers, half of a corpus would ask where they stand.
MAX_PER_DOCUMENT = {"heading-page": 5, "heading-pages": 5, "heading-distance": 5}
MAX_QUESTION_CHARS = 1_200
NEEDLE_CHARS = range(200, 6_001)  # a shorter page is no test, a longer one is ocr-full
MAX_NEEDLES = 3
QUOTE_CHARS = 200
TRANSCRIPT = (
    'Begin each page with a line "Page N", N being its number, and leave an empty line between paragraphs and before '
    "each such line. Include headers and footers, and separate the cells of a table row by tabs."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What one document yields. A `gap` is a segment and task with fewer questions than wanted."""

    questions: tuple[Question, ...]
    gaps: tuple[Rejected, ...]


def write_questions(
    pages: Sequence[Page],
    sections: Sequence[Section],
    segments: Sequence[Segment],
    settings: SynthSettings,
    seed: int,
) -> Written:
    """Up to `settings.questions_per_segment` questions for each segment and task of one document."""
    if not pages:
        return Written(questions=(), gaps=())
    doc_id = pages[0].doc_id
    index = DocumentIndex(pages, sections)
    questions: list[Question] = []
    gaps: list[Rejected] = []
    used: set[str] = set()
    made: Counter[str] = Counter()
    for task in settings.tasks:
        asked: set[tuple[str, ...]] = set()
        for segment in segments:
            rng = random.Random(content_id("layout", doc_id, segment.first_page, segment.num_pages, task, seed))
            found = 0
            for draft in _drafts(index, segment, task, settings, rng):
                if found == settings.questions_per_segment:
                    break
                if draft.key in asked or not used.isdisjoint(draft.uses):
                    continue
                if made[draft.pattern] == MAX_PER_DOCUMENT.get(draft.pattern):
                    continue
                question = _question(draft, doc_id, task, segment, seed)
                if len(question.question) > MAX_QUESTION_CHARS:
                    continue
                asked.add(draft.key)
                used.update(draft.uses)
                made[draft.pattern] += 1
                questions.append(question)
                found += 1
            if found < settings.questions_per_segment:
                gaps.append(_gap(index, doc_id, segment, task, found, settings.questions_per_segment))
    return Written(questions=tuple(questions), gaps=tuple(gaps))


def _gap(index: DocumentIndex, doc_id: str, segment: Segment, task: str, found: int, wanted: int) -> Rejected:
    first, last = segment.first_page + 1, segment.first_page + segment.num_pages
    sound = sum(index.within(segment, page) for page in index.sound_pages)
    detail = (
        f"{found} of {wanted} questions; {sound} of {segment.num_pages} pages have a sound text layer; "
        f"{index.unnamed_tables} tables of the document have no unambiguous name; "
        "each heading is asked about once"
    )
    return Rejected(id=f"{doc_id}:{first}-{last}:{task}", stage="synthesise", reason="no-candidate", detail=detail)


def _question(draft: Draft, doc_id: str, task: str, segment: Segment, seed: int) -> Question:
    phrasings = PHRASINGS[draft.pattern]
    choice = random.Random(content_id("phrasing", doc_id, task, draft.key, seed)).randrange(len(phrasings))
    text = verbatim(phrasings[choice].format(**draft.fields))
    text = _said_once(text[0].upper() + text[1:], f" ({FIRST_IS_1})")
    generator, version = f"layout/{draft.pattern}", VERSIONS[draft.pattern]
    return Question(
        question_id=question_id(
            doc_id=doc_id,
            task=task,
            segment=segment,
            generator=generator,
            prompt_version=version,
            seed=seed,
            question=text,
        ),
        doc_id=doc_id,
        task=task,
        question=text,
        answer=draft.answer,
        answer_format=draft.answer_format,
        evidence=draft.evidence,
        segment_first=segment.first_page,
        segment_pages=segment.num_pages,
        anchor=draft.anchor,
        names_pages=draft.names_pages,
        generator=generator,
        prompt_version=version,
        seed=seed,
    )


def _said_once(text: str, phrase: str) -> str:
    """The text with the phrase only where it stands first."""
    before, found, after = text.partition(phrase)
    return before + found + after.replace(phrase, "")


def _drafts(
    index: DocumentIndex, segment: Segment, task: str, settings: SynthSettings, rng: random.Random
) -> Iterator[Draft]:
    """Drafts of a task, the pattern of each drawn by weight among those that have one left."""
    if task == "ocr-full":
        yield from _full_transcriptions(index, segment, settings, rng)
        return
    if task == "ocr-needle":
        yield from _needles(index, segment, settings, rng)
        return
    sources = [(pattern(index, segment, rng), weight) for pattern, weight in PATTERNS[task]]
    while sources:
        at = rng.choices(range(len(sources)), [weight for _, weight in sources])[0]
        draft = next(sources[at][0], None)
        if draft is None:
            del sources[at]
        else:
            yield draft


def _transcribable(page: Page | None, settings: SynthSettings) -> bool:
    """A page whose text can be trusted to the letter."""
    if page is None or not page.text.strip() or page.problem:
        return False
    if page.text_source == "ocr":
        return all(b.confidence >= settings.ocr_min_confidence for b in page.blocks if b.text)
    return page.has_sound_layer and not STRAY_ACCENT.search(page.text)


def _transcript(page: Page) -> str:
    """Headers first and footers last: text layers often hold the page number before everything else."""
    rank = {"header": 0, "footer": 2}
    ordered = sorted(page.blocks, key=lambda b: rank.get(b.kind, 1))
    return "\n\n".join([f"Page {page.index + 1}", *(b.text for b in ordered if b.text)])


def _full_transcriptions(
    index: DocumentIndex, segment: Segment, settings: SynthSettings, rng: random.Random
) -> Iterator[Draft]:
    """Runs of consecutive pages, each as long as the byte limit allows, from starts drawn by seed."""
    last = segment.first_page + segment.num_pages
    shortest = min(2, segment.num_pages)
    used: set[int] = set()
    starts = rng.sample(range(segment.first_page, last), segment.num_pages)
    for start in starts:
        run: list[Page] = []
        size = 0
        for number in range(start, last):
            page = index.pages.get(number)
            if page is None or not _transcribable(page, settings) or number in used:
                break
            size += len(_transcript(page).encode()) + 2
            if size > settings.ocr_full_max_bytes + 2:
                break
            run.append(page)
        if len(run) >= shortest:
            used |= {p.index for p in run}
            first, end = run[0].index + 1, run[-1].index + 1
            pages = f"pages {first} to {end} of the document" if end > first else f"page {first} of the document"
            yield _transcription("ocr-full", run, pages)


def _needles(index: DocumentIndex, segment: Segment, settings: SynthSettings, rng: random.Random) -> Iterator[Draft]:
    """One to three pages of the segment, in page order."""
    numbers = range(segment.first_page, segment.first_page + segment.num_pages)
    usable = [
        page
        for number in numbers
        if (page := index.pages.get(number)) is not None
        and _transcribable(page, settings)
        and len(page.text) in NEEDLE_CHARS
    ]
    usable = rng.sample(usable, len(usable))
    while usable:
        wanted = rng.randint(1, MAX_NEEDLES)
        sizes = itertools.accumulate(len(_transcript(p).encode()) + 2 for p in usable[:wanted])
        count = max(1, sum(size <= settings.ocr_full_max_bytes + 2 for size in sizes))
        chosen = sorted(usable[:count], key=lambda p: p.index)
        usable = usable[count:]
        if len(_transcript(chosen[0]).encode()) <= settings.ocr_full_max_bytes:
            yield _transcription("ocr-needle", chosen, _page_list([p.index + 1 for p in chosen]))


def _page_list(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return f"page {numbers[0]} of the document"
    return f"pages {', '.join(map(str, numbers[:-1]))} and {numbers[-1]} of the document"


def _transcription(pattern: str, run: Sequence[Page], pages: str) -> Draft:
    return Draft(
        pattern=pattern,
        fields={"pages": pages, "first_is_1": FIRST_IS_1, "layout": TRANSCRIPT},
        answer="\n\n".join(_transcript(p) for p in run),
        answer_format="String",
        evidence=tuple(Evidence(page=p.index, kind="Text", quote=verbatim(p.text)[:QUOTE_CHARS]) for p in run),
        anchor=pages,
        names_pages=True,
        key=(pattern, pages),
    )
