"""Pages for prompts: their size depends on the budget alone, each is rendered once and let go when there is no room."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakes
import pytest
from PIL import Image

from corpus.config import DEFAULT_STORAGE
from corpus.errors import DocumentError
from corpus.records import Document
from corpus.store import file_sha256
from corpus.workers import WorkerPool
from synth.chat import PromptPage
from synth.prompt_pages import PromptImages, prompt_page


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(2, memory_mb=2_000) as shared:
        yield shared


@pytest.fixture
def document(tmp_path: Path) -> Document:
    file = fakes.write_pdf(tmp_path / "a.pdf", pages=3)
    return fakes.document(uri=str(file), sha256=file_sha256(file), num_pages=3)


def images(max_bytes: int = 1 << 30) -> PromptImages:
    return PromptImages(password=None, storage=DEFAULT_STORAGE, timeout_s=60, page_timeout_s=20, max_bytes=max_bytes)


def loaded(pool: WorkerPool, shown: PromptImages, work: Any) -> Any:
    """What `work`, a coroutine in a loop of another thread, returns while this thread serves it."""
    done = threading.Event()
    ends: list[Any] = []

    def run() -> None:
        try:
            ends.append(asyncio.run(work()))
        except Exception as e:
            ends.append(e)
        finally:
            done.set()

    thread = threading.Thread(target=run)
    thread.start()
    shown.serve(pool, until=done.is_set)
    thread.join()
    if isinstance(ends[0], Exception):
        raise ends[0]
    return ends[0]


def pages_of(*indices: int) -> list[PromptPage]:
    return [prompt_page(fakes.page(i), image_tokens=300) for i in indices]


def test_a_page_is_shown_at_144_dpi_or_at_what_its_tokens_allow() -> None:
    whole, small = prompt_page(fakes.page(), image_tokens=5_000), prompt_page(fakes.page(), image_tokens=300)
    assert (whole.height, whole.width) == (1584, 1224)
    assert (small.height, small.width) == (551, 426)
    assert small.height * small.width <= 300 * 28 * 28


def test_images_have_the_size_that_was_asked_for(pool: WorkerPool, document: Document) -> None:
    shown = images()
    asked = pages_of(2, 0)
    found = loaded(pool, shown, lambda: shown.load(document, asked))
    assert [Image.open(io.BytesIO(data)).size for data in found] == [(p.width, p.height) for p in asked]
    assert found[0] != found[1]


def test_a_page_is_rendered_once_while_there_is_room(pool: WorkerPool, document: Document) -> None:
    async def twice() -> list[list[bytes]]:
        together = await asyncio.gather(shown.load(document, pages_of(0, 1)), shown.load(document, pages_of(1, 0)))
        Path(document.uri).unlink()
        return [*together, await shown.load(document, pages_of(0, 1))]

    shown = images()
    first, turned, again = loaded(pool, shown, twice)
    assert first == again == turned[::-1]


def test_pages_are_let_go_when_there_is_no_room(pool: WorkerPool, document: Document) -> None:
    async def twice() -> None:
        assert len(await shown.load(document, pages_of(0, 1, 2))) == 3
        Path(document.uri).unlink()
        await shown.load(document, pages_of(0))

    shown = images(max_bytes=0)
    with pytest.raises(DocumentError, match="unreadable"):
        loaded(pool, shown, twice)


def test_a_document_that_cannot_be_rendered_costs_the_request_alone(pool: WorkerPool, document: Document) -> None:
    async def both() -> list[Any]:
        bad = fakes.document(uri=document.uri, sha256="0" * 64)
        return await asyncio.gather(
            shown.load(bad, pages_of(0)), shown.load(document, pages_of(1)), return_exceptions=True
        )

    shown = images()
    failed, found = loaded(pool, shown, both)
    assert isinstance(failed, DocumentError)
    assert len(found) == 1
