"""Windows to shards: every page of a window rendered once, with the questions, text and metadata that belong to it.

Runs in a worker, a partition at a time. Pages are rendered while the archive is written, so memory holds one page,
whatever the document's length.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus.config import DEFAULT_STORAGE, RenderSettings, StorageSettings
from corpus.errors import DocumentError
from corpus.fetch import local_copy
from corpus.records import Document, Page, PageGrid, Question, Section, Window
from corpus.render import encode_jpeg, first_line, open_pdf, render
from corpus.sections import sections_of
from corpus.shards import Member, ShardFile, dump_json, page_name, write_shards
from corpus.store import plain, read_records

STAGE_VERSION = 1  # raise it when the same windows should be written anew


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowJob:
    """One window to write. `grids` has one entry a page of the window."""

    window: Window
    grids: tuple[PageGrid, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardJob:
    """One partition to write; `windows` in the order of the archive."""

    documents: dict[str, Document]
    windows: tuple[WindowJob, ...]
    pages_file: Path
    folder: Path
    prefix: str
    model: str
    render: RenderSettings
    max_bytes: int
    password: str | None
    storage: StorageSettings = DEFAULT_STORAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrenderable:
    """A fault found while rendering: of one page, or of the whole document where `page` is None."""

    doc_id: str
    page: int | None
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharded:
    """What a partition became. With a fault, no archive of the partition is complete and none may be used."""

    files: tuple[ShardFile, ...] = ()
    members: tuple[Member, ...] = ()
    fault: Unrenderable | None = None


class _Fault(Exception):
    def __init__(self, fault: Unrenderable) -> None:
        super().__init__(fault)
        self.fault = fault


def shard_partition(job: ShardJob, progress: Callable[[int], None]) -> Sharded:
    """Render and write every window of a partition."""
    try:
        files, members = write_shards(job.folder, job.prefix, _samples(job, progress), job.max_bytes)
    except _Fault as e:
        return Sharded(fault=e.fault)
    return Sharded(files=tuple(files), members=tuple(members))


def _samples(job: ShardJob, progress: Callable[[int], None]) -> Iterator[tuple[str, Iterator[tuple[str, bytes]]]]:
    pages: dict[str, list[Page]] = {}
    for page in read_records(job.pages_file, Page):
        pages.setdefault(page.doc_id, []).append(page)
    for doc_id, windows in itertools.groupby(job.windows, key=lambda w: w.window.doc_id):
        document = job.documents[doc_id]
        with ExitStack() as stack:
            try:
                copy = stack.enter_context(local_copy(document.uri, document.sha256, job.storage))
                pdf = stack.enter_context(open_pdf(copy.path, job.password))
            except DocumentError as e:
                raise _Fault(Unrenderable(doc_id=doc_id, page=None, reason=e.reason, detail=e.detail)) from None
            sections = sections_of(pages[doc_id])
            for window in windows:
                yield window.window.key, _members(job, document, window, pages[doc_id], sections, pdf, progress)


def _members(
    job: ShardJob,
    document: Document,
    job_window: WindowJob,
    pages: list[Page],
    sections: tuple[Section, ...],
    pdf: Any,
    progress: Callable[[int], None],
) -> Iterator[tuple[str, bytes]]:
    window = job_window.window
    shown = pages[window.first_page : window.first_page + window.num_pages]
    yield "json", dump_json(_metadata(job, document, job_window, sections))
    yield "questions.json", dump_json([plain(q) for q in job_window.questions])
    text = [{"page": p.index, "text_source": p.text_source, "blocks": plain(p.blocks)} for p in shown]
    yield "text.json", dump_json(text)
    for page, grid in zip(shown, job_window.grids, strict=True):
        try:
            data = encode_jpeg(render(pdf[page.index], grid), job.render.jpeg_quality)
        except MemoryError:
            raise  # says something about the machine, not about the page
        except Exception as e:  # PyMuPDF and Pillow raise what they like; the page is left out, not the build
            reason, detail = (e.reason, e.detail) if isinstance(e, DocumentError) else ("render-failed", first_line(e))
            fault = Unrenderable(doc_id=page.doc_id, page=page.index, reason=reason, detail=detail)
            raise _Fault(fault) from None
        yield page_name(page.index), data
        progress(1)


def _metadata(
    job: ShardJob, document: Document, job_window: WindowJob, sections: tuple[Section, ...]
) -> dict[str, Any]:
    """What a reader of the shard alone must know. Paths of the building machine stay out."""
    window = job_window.window
    last = window.first_page + window.num_pages
    return {
        "doc_id": document.doc_id,
        "sha256": document.sha256,
        "title": document.title,
        "language": document.language,
        "license": document.license,
        "source": document.source,
        "num_pages_of_document": document.num_pages,
        "window": window.index,
        "first_page": window.first_page,
        "num_pages": window.num_pages,
        "model": job.model,
        "dpi": job.render.dpi,
        "pages": [
            {"name": page_name(window.first_page + i), "height": g.height, "width": g.width}
            for i, g in enumerate(job_window.grids)
        ],
        "sections": [
            plain(s) for s in sections if s.first_page < last and s.first_page + s.num_pages > window.first_page
        ],
    }
