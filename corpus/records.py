"""Every record that flows from a PDF to a training step.

The most upstream module: it imports the standard library alone, so that any other part (a trainer, a viewer, a
notebook) can read a run without loading a PDF or a tensor library.

Conventions: boxes are PDF points, origin top left of the page as displayed, `(x0, y0, x1, y1)`, rounded to
0.01 pt. Page indices are 0-based; the *N* of "Page N" that a model or a person reads is index + 1. Identity is
content: ids are prefixes of SHA-256 digests, so the same input has the same id on every machine.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

Box = tuple[float, float, float, float]

TASKS = ("extract-single", "extract-multi", "reasoning", "ocr-full", "ocr-needle")
ANSWER_FORMATS = ("String", "Integer", "Float", "List")
EVIDENCE_KINDS = ("Text", "Layout", "Figure", "Table")
TEXT_CHECKS = (  # of a model's question, the cheap ones first
    "format",  # an answer of its format, a question that stands alone
    "evidence-pages",  # inside the segment
    "anchor",  # a section, table or page that the question names, that exists once and holds the evidence
    "answer-in-question",
    "quoted",  # the quotes stand on the evidence pages
    "grounded",  # the answer does
    "arithmetic",  # recomputed from the quotes
    "verbatim",  # the answer of a calculation is not printed
    "duplicate",  # of an earlier question of the document
)
MODEL_CHECKS = ("closed-book", "leakage", "agreement", "ambiguity")  # these need answers of a model
CHECKS = TEXT_CHECKS + MODEL_CHECKS
READ, NOTHING_TO_ASK = "read", "nothing-to-ask"  # among the reasons by which a model's replies are counted
SOUND_REPLIES = (READ, NOTHING_TO_ASK)  # those of replies that are as they should be
STAGES = ("ingest", "parse", "clean", "synthesise", "short", "shard", "mixture", "plan", "report")
SHORT_TASK = "short"  # the task of a conversation that is the user's own

Status = Literal["kept", "rejected"]
Split = Literal["train", "validation"]
ModelPart = Literal["vision", "merger", "language"]
MODEL_PARTS: tuple[ModelPart, ...] = ("vision", "merger", "language")


def content_id(*parts: object, length: int = 16) -> str:
    """The first `length` hex digits of the SHA-256 of the parts as canonical JSON."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:length]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One PDF that passed ingest. `doc_id` is the first 16 hex digits of `sha256`, the digest of its bytes."""

    doc_id: str
    sha256: str
    uri: str  # where to read it: an absolute path
    num_bytes: int
    num_pages: int  # >= 1
    title: str = ""
    language: str = ""
    license: str = ""
    source: str = ""
    language_source: str = ""  # manifest or detected; '' where the language is not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """What was refused, and why. `reason` is a slug to count by; `detail` shows the value and the way out."""

    id: str  # of the document, page run or question that was refused
    stage: str  # one of STAGES
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A run of text, or a region, that the page shows as one thing.

    `kind`: title, heading, text, list-item, table, caption, header, footer, picture, formula or footnote.
    """

    kind: str
    box: Box
    text: str = ""
    confidence: float = 1.0  # 0..1; 1 for a text layer, the lowest line's for OCR
    size: float = 0.0  # points, of its largest type; 0 where that is not known
    level: int = 0  # of a title or heading, 1 = outermost; 0 for everything else
    target: int = -1  # of a caption: index, in the page's blocks, of the picture or table it belongs to; -1 = none
    emphasised: bool = False  # every line is set apart from the page's body text: bolder, larger or in capitals
    line_confidences: tuple[float, ...] = ()  # of the lines that OCR read, in the order of the text; () for a layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A number (or other text) exactly as the page prints it. `box` surrounds its words."""

    text: str
    box: Box


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """`cells` has one entry a column of the table; an empty cell has the text ''."""

    label: str
    box: Box  # of the label
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table that passed the strict tests of `corpus.tables`: each number in exactly one row and column."""

    box: Box
    columns: tuple[str, ...]  # full header of each numeric column; unique, none empty
    column_boxes: tuple[Box, ...]
    rows: tuple[TableRow, ...]
    unit: str = ""  # as printed: "in millions of dollars"; '' where none is printed
    anchor: str = ""  # caption, heading or lead-in sentence that names the table; '' where there is none
    anchor_box: Box | None = None
    whole: bool = True  # False where a row was left out because its label was in doubt


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionStart:
    """A heading on a page. `source`: bookmarks, headings or pages (a fixed group of pages)."""

    title: str
    level: int  # 1 = outermost
    source: str


def is_sound_layer(source: str, reason: str) -> bool:
    """True for a text layer that may be believed. Runs made before sound pages said so have '' for a reason."""
    return source == "layer" and reason.partition(":")[0] in ("", "sound")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One parsed page. `text_source`: layer, ocr or none; `text_reason` says why, as "sound" or "slug: detail"."""

    doc_id: str
    index: int  # 0-based
    width: float  # points, as displayed (after rotation), unrounded: pixel sizes are computed from it
    height: float
    rotation: int  # degrees, 0, 90, 180 or 270
    text_source: str
    text_reason: str = ""
    ocr_confidence: float = 1.0  # 0..1, mean over all lines that OCR read, weighted by length; 1 for a text layer
    blocks: tuple[Block, ...] = ()  # in reading order
    tables: tuple[Table, ...] = ()
    sections: tuple[SectionStart, ...] = ()  # those that start on this page
    problem: str = ""  # why this page cannot be rendered; '' where it can
    image_hash: str = ""  # of `corpus.page_images`; '' where the page is recognised by its words, or nearly blank

    @property
    def has_sound_layer(self) -> bool:
        """True where the text is the page's own and was found sound."""
        return is_sound_layer(self.text_source, self.text_reason)

    @property
    def text(self) -> str:
        """The page's text in reading order, one block a paragraph."""
        return "\n\n".join(b.text for b in self.blocks if b.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Pages from one section start to the next. Two sections may share a page; each page index is 0-based."""

    title: str
    level: int
    first_page: int
    num_pages: int  # >= 1
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """The run of pages that the question writer sees: consecutive sections, 8-15 pages where possible."""

    first_page: int
    num_pages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Where the answer stands. `quote` is text of the page; `box` surrounds it where that is known."""

    page: int  # 0-based index in the document
    kind: str  # one of EVIDENCE_KINDS
    quote: str
    box: Box | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one check found about a question; `detail` says why, '' where there is nothing to say."""

    check: str  # e.g. "grounded"
    passed: bool
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question about one segment of a document, accepted or rejected with the reason."""

    question_id: str
    doc_id: str
    task: str  # one of TASKS
    question: str
    answer: str  # a List is a JSON array of strings
    answer_format: str  # one of ANSWER_FORMATS
    evidence: tuple[Evidence, ...]
    segment_first: int  # 0-based page index
    segment_pages: int
    anchor: str = ""  # the section, caption or page that makes the question unambiguous in the document
    names_pages: bool = False  # True where the wording relies on "page N"
    generator: str = ""  # backend and pattern, e.g. "layout/table-lookup"
    prompt_version: str = ""
    seed: int = 0
    verdicts: tuple[Verdict, ...] = ()  # of every check that ran, in order
    reason: str = ""  # '' = accepted; else why it was rejected
    detail: str = ""

    @property
    def accepted(self) -> bool:
        return not self.reason


def question_id(
    *, doc_id: str, task: str, segment: Segment, generator: str, prompt_version: str, seed: int, question: str
) -> str:
    """The id of a question: the same question of the same document has the same id in every run."""
    first, pages = segment.first_page, segment.num_pages
    return "q" + content_id(doc_id, task, first, pages, generator, prompt_version, seed, question, length=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The run of consecutive pages that becomes one training context."""

    doc_id: str
    index: int  # 0-based among the windows of the document
    first_page: int
    num_pages: int

    @property
    def key(self) -> str:
        """Name of the window's sample in the tar."""
        return f"{self.doc_id}-w{self.index:02d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PageGrid:
    """Pixels of one page image as it stands in the shard: `height` and `width` are multiples of the grid."""

    height: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One training instance: a window and the questions asked of it."""

    sample_id: str
    doc_id: str
    window: int
    first_page: int
    num_pages: int
    question_ids: tuple[str, ...]
    task: str  # of its questions; 'mixed' where they differ
    split: Split
    num_tokens: int  # of the whole conversation, image tokens included
    num_patches: int  # vision patches before merging
    num_supervised: int  # tokens of the answers and their end tokens
    patch_pairs: int  # sum over the pages of their squared patches: who sees whom inside pages
    tokens_exact: bool  # False where num_tokens is an upper bound, because no tokenizer was given
    grids: tuple[PageGrid, ...]  # one a page of the window
    turn_tokens: int = 0  # what its one question adds as a further turn of another sample; 0 of several questions

    @property
    def key(self) -> str:
        """Name of its window's sample, or of its conversation's, in the tar."""
        return f"{self.doc_id}-w{self.window:02d}"

    @property
    def is_short(self) -> bool:
        """A conversation of the user's: `doc_id` is its id, and its images count as pages."""
        return not self.question_ids


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortFile:
    """What became of a chat file: `num_lines` = `num_kept` + `num_rejected`, blank lines not counted."""

    file: str  # its name; more of its path where another one has the same
    num_bytes: int
    num_lines: int
    num_kept: int
    num_rejected: int
    num_images: int  # of the conversations that were kept
    num_tokens: int  # of the conversations that were kept
    licenses: tuple[str, ...]  # that the kept lines state, '' among them where one states none; at most 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanEntry:
    """One sample in its place: rows of a step are whole sequences, positions count samples in a row."""

    step: int
    row: int  # 0-based in the step
    position: int  # 0-based in the row
    sample_id: str
    num_tokens: int
    num_patches: int
    num_supervised: int
    task: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A run of pages that no window holds."""

    first_page: int
    num_pages: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """What became of one input. Pages in = `window_pages` + the pages of `left_out`."""

    uri: str
    doc_id: str  # '' where the bytes could not be read
    status: Status
    stage: str  # where it was rejected; 'shard' for a kept document
    reason: str  # '' for a kept document
    detail: str
    num_pages: int  # 0 where unknown
    window_pages: int
    left_out: tuple[LeftOut, ...]
    num_bytes: int
    num_windows: int
    num_questions: int  # accepted
    num_tokens: int  # of the windows' images and labels
    ocr_pages: int
    title: str
    language: str
    license: str
    source: str
    language_source: str  # manifest or detected; '' where the language is not known
