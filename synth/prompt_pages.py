"""Pages as a question writer sees them: how large, and rendered by workers when a request needs them.

The size depends on the question writer's budget alone, never on the model that will be trained, so that a paid answer
serves every corpus. Requests about one segment are asked together and share its pages: a page is rendered once and kept
as long as there is room.
"""

from __future__ import annotations

import asyncio
import math
import queue
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from corpus.config import StorageSettings
from corpus.errors import DocumentError
from corpus.fetch import local_copy, transfer_s
from corpus.records import Document, Page, PageGrid
from corpus.vision_tokens import natural_size
from corpus.workers import Failure, Task, WorkerPool
from synth.chat import PromptPage

QUALITY = 90
MAX_DPI = 144  # the recipe's; more shows nothing new
TOKEN_PIXELS = 28 * 28
RENDER = f"jpeg-{QUALITY}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PagesJob:
    """Pages of one document to render; sizes in pixels."""

    document: Document
    pages: tuple[tuple[int, PageGrid], ...]
    password: str | None
    storage: StorageSettings


def prompt_page(page: Page, image_tokens: int) -> PromptPage:
    """A page at 144 DPI, or smaller where it would cost more than `image_tokens` of 28 x 28 pixels."""
    height, width = natural_size(page.width, page.height, MAX_DPI)
    shrink = min(1.0, math.sqrt(image_tokens * TOKEN_PIXELS / (height * width)))
    return PromptPage(
        doc_id=page.doc_id,
        page=page.index,
        height=max(1, int(height * shrink)),
        width=max(1, int(width * shrink)),
        render=RENDER,
    )


def render_pages(job: PagesJob, progress: Callable[[int], None]) -> list[bytes]:
    """JPEG files of the pages; runs in a worker.

    Raises:
        DocumentError: a page cannot be rendered.
    """
    from corpus.render import encode, open_pdf, render

    found = []
    document = job.document
    with local_copy(document.uri, document.sha256, job.storage) as copy, open_pdf(copy.path, job.password) as pdf:
        for index, size in job.pages:
            found.append(encode(render(pdf[index], size), "jpeg", QUALITY))
            progress(1)
    return found


class PromptImages:
    """Loads pages for requests, in an event loop; `serve` renders them in the thread that owns the workers."""

    def __init__(
        self, *, password: str | None, storage: StorageSettings, timeout_s: float, page_timeout_s: float, max_bytes: int
    ) -> None:
        self._password, self._storage = password, storage
        self._timeout_s, self._page_timeout_s = timeout_s, page_timeout_s
        self._max_bytes = max_bytes
        self._waiting: queue.SimpleQueue[Task[Any]] = queue.SimpleQueue()
        self._kept: OrderedDict[PromptPage, asyncio.Future[bytes]] = OrderedDict()  # the latest used last
        self._bytes = 0

    async def load(self, document: Document, pages: Sequence[PromptPage]) -> list[bytes]:
        """The images of these pages of a document.

        Raises:
            DocumentError: one of them cannot be rendered.
        """
        missing = [p for p in pages if p not in self._kept]
        for page in missing:
            self._kept[page] = asyncio.get_running_loop().create_future()
        futures = []
        for page in pages:
            self._kept.move_to_end(page)
            futures.append(self._kept[page])
        if missing:
            self._waiting.put(self._task(document, missing, asyncio.get_running_loop()))
        return [await asyncio.shield(f) for f in futures]

    def _task(self, document: Document, pages: Sequence[PromptPage], loop: asyncio.AbstractEventLoop) -> Task[Any]:
        job = PagesJob(
            document=document,
            pages=tuple((p.page, PageGrid(height=p.height, width=p.width)) for p in pages),
            password=self._password,
            storage=self._storage,
        )
        limit = transfer_s(document.uri, document.num_bytes, self._storage) + self._timeout_s
        return Task((tuple(pages), loop), render_pages, job, limit + self._page_timeout_s * len(pages))

    def serve(self, pool: WorkerPool, until: Callable[[], bool]) -> None:
        """Render what is asked for until `until()`; blocks."""
        for outcome in pool.run(self._tasks(until), lambda _: None):
            pages, loop = outcome.key
            with suppress(RuntimeError):  # the loop was given up meanwhile
                loop.call_soon_threadsafe(self._deliver, pages, outcome.value)

    def _tasks(self, until: Callable[[], bool]) -> Iterator[Task[Any] | None]:
        while not until():
            try:
                yield self._waiting.get_nowait()
            except queue.Empty:
                yield None

    def _deliver(self, pages: Sequence[PromptPage], value: list[bytes] | Failure) -> None:
        for i, page in enumerate(pages):
            future = self._kept[page]
            if isinstance(value, Failure):
                del self._kept[page]  # whoever asks again may have more luck
                future.set_exception(DocumentError(value.reason, value.detail))
                future.exception()  # read here, for nobody may be waiting any more
            else:
                future.set_result(value[i])
                self._bytes += len(value[i])
        for page in [p for p, f in self._kept.items() if f.done()]:
            if self._bytes <= self._max_bytes:
                break
            self._bytes -= len(self._kept.pop(page).result())
