"""Windows to shards: every page of a window rendered once, with the questions, text and metadata that belong to it.

Runs in a worker, a partition at a time. Pages are rendered while the archive is written, so memory holds a few pages,
or one run of Poppler's, whatever the document's length. A fault does not end the pass: all faults of a partition are
found in one, and the partition is then written anew without those pages.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from corpus.config import DEFAULT_STORAGE, RenderSettings, StorageSettings
from corpus.errors import DocumentError
from corpus.fetch import local_copy
from corpus.poppler import Limits, Wanted, poppler_version, render_with_poppler
from corpus.records import Document, Page, PageGrid, Question, Section, Window
from corpus.render import VERSION, encode, first_line, open_pdf, path_without_password, render, user_unit
from corpus.sections import sections_of
from corpus.shard_index import Member, ShardFile
from corpus.shards import dump_json, page_name, write_shards
from corpus.store import plain, read_records

STAGE_VERSION = 3  # raise it when the same windows should be written anew


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
    page_timeout_s: float
    memory_mb: int
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
    """What a partition became. With a fault, its archives lack something and none may be used."""

    files: tuple[ShardFile, ...] = ()
    members: tuple[Member, ...] = ()
    faults: tuple[Unrenderable, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """An open document."""

    document: Document
    pdf: Any
    path: str  # where another program reads it without its password
    pages: list[Page]
    sections: tuple[Section, ...]


def renderer_version(backend: str) -> str:
    """Name and version of what makes pixels, for fingerprints.

    Raises:
        ConfigError: it is not installed.
    """
    return poppler_version() if backend == "pdf2image" else f"pymupdf {VERSION}"


def shard_partition(job: ShardJob, progress: Callable[[int], None]) -> Sharded:
    """Render and write every window of a partition."""
    faults: list[Unrenderable] = []
    files, members = write_shards(job.folder, job.prefix, _samples(job, faults, progress), job.max_bytes)
    return Sharded(faults=tuple(faults)) if faults else Sharded(files=tuple(files), members=tuple(members))


def _samples(
    job: ShardJob, faults: list[Unrenderable], progress: Callable[[int], None]
) -> Iterator[tuple[str, Iterator[tuple[str, bytes]]]]:
    pages: dict[str, list[Page]] = {}
    for page in read_records(job.pages_file, Page):
        pages.setdefault(page.doc_id, []).append(page)
    for doc_id, group in itertools.groupby(job.windows, key=lambda w: w.window.doc_id):
        document, windows = job.documents[doc_id], list(group)
        with ExitStack() as stack:
            try:
                copy = stack.enter_context(local_copy(document.uri, document.sha256, job.storage))
                pdf = stack.enter_context(open_pdf(copy.path, job.password))
                path = stack.enter_context(path_without_password(pdf, str(copy.path), job.password))
            except DocumentError as e:
                faults.append(_fault(doc_id, None, e))
                progress(sum(w.window.num_pages for w in windows))  # who fails next is told by the pages done
                continue
            sections = sections_of(pages[doc_id])
            source = _Source(document=document, pdf=pdf, path=path, pages=pages[doc_id], sections=sections)
            for window in windows:
                yield window.window.key, _members(job, source, window, faults, progress)


def _members(
    job: ShardJob,
    source: _Source,
    job_window: WindowJob,
    faults: list[Unrenderable],
    progress: Callable[[int], None],
) -> Iterator[tuple[str, bytes]]:
    window = job_window.window
    shown = source.pages[window.first_page : window.first_page + window.num_pages]
    yield "json", dump_json(_metadata(job, source.document, job_window, source.sections))
    yield "questions.json", dump_json([plain(q) for q in job_window.questions])
    text = [{"page": p.index, "text_source": p.text_source, "blocks": plain(p.blocks)} for p in shown]
    yield "text.json", dump_json(text)
    done = 0
    try:
        for page, image in zip(shown, _images(job, source, shown, job_window.grids), strict=True):
            data = image if isinstance(image, DocumentError) else _encoded(image, job.render, page.index)
            if isinstance(data, DocumentError):
                faults.append(_fault(page.doc_id, page.index, data))
            else:
                yield page_name(page.index, job.render.format), data
            progress(1)
            done += 1
    except DocumentError as e:
        faults.append(_fault(window.doc_id, None, e))
        progress(len(shown) - done)


def _images(
    job: ShardJob, source: _Source, shown: list[Page], grids: tuple[PageGrid, ...]
) -> Iterator[Image.Image | DocumentError]:
    """The image of each page, or why there is none; raises `DocumentError` for a fault of the whole document."""
    if job.render.backend == "pdf2image":
        wanted = [
            Wanted(index=p.index, width=p.width, height=p.height, user_unit=user_unit(source.pdf, p.index), grid=g)
            for p, g in zip(shown, grids, strict=True)
        ]
        # a page may be tried in a run and alone: half its time for each
        limits = Limits(timeout_s=job.page_timeout_s / 2, memory_mb=job.memory_mb)
        yield from render_with_poppler(source.path, source.document.num_pages, wanted, limits)
        return
    for page, grid in zip(shown, grids, strict=True):
        try:
            image: Image.Image | DocumentError = render(source.pdf[page.index], grid)
        except MemoryError:
            raise  # says something about the machine, not about the page
        except DocumentError as e:
            image = e
        except Exception as e:  # PyMuPDF raises what it likes; the page is left out, not the build
            image = DocumentError("render-failed", f"page {page.index + 1}: {first_line(e)}")
        yield image


def _encoded(image: Image.Image, settings: RenderSettings, page: int) -> bytes | DocumentError:
    try:
        return encode(image, settings.format, settings.quality)
    except MemoryError:
        raise
    except Exception as e:  # Pillow raises what it likes: WebP, for one, ends at 16,383 pixels a side
        return DocumentError("render-failed", f"page {page + 1}: no {settings.format} of it: {first_line(e)}")


def _fault(doc_id: str, page: int | None, error: DocumentError) -> Unrenderable:
    return Unrenderable(doc_id=doc_id, page=page, reason=error.reason, detail=error.detail)


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
        "language_source": document.language_source,
        "license": document.license,
        "source": document.source,
        "num_pages_of_document": document.num_pages,
        "window": window.index,
        "first_page": window.first_page,
        "num_pages": window.num_pages,
        "model": job.model,
        "dpi": job.render.dpi,
        "pages": [
            {"name": page_name(window.first_page + i, job.render.format), "height": g.height, "width": g.width}
            for i, g in enumerate(job_window.grids)
        ],
        "sections": [
            plain(s) for s in sections if s.first_page < last and s.first_page + s.num_pages > window.first_page
        ],
    }
