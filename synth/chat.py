"""What a question writer is asked and what it answers, whoever serves it.

A request names its pages instead of holding their images: what is asked is known before a page is rendered, so that an
answer that was paid for is found again without rendering, whatever the encoded bytes would be on this machine. The
images are loaded when the request has to be sent, and let go when it is answered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from corpus.errors import LongdocError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a model draws its answer. `seed` is sent to the server; servers that ignore it answer anew each time."""

    temperature: float
    top_p: float
    max_tokens: int  # of the answer
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptPage:
    """A page as the question writer sees it: `height` x `width` pixels, encoded by `render` (format and quality)."""

    doc_id: str
    page: int  # 0-based
    height: int
    width: int
    render: str  # renderer, format and quality, e.g. "pymupdf-jpeg-90"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One turn of a user: an instruction, page images, each after its "Page N" line, and a text.

    `purpose` is for accounting and never sent: a task, or a check such as "closed-book". `schema`: a JSON schema as
    canonical JSON that the answer must follow, '' for free text.
    """

    purpose: str
    system: str
    pages: tuple[PromptPage, ...]
    text: str
    schema: str
    sampling: Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatAnswer:
    """What a model answered, with the tokens that its server counted (0 where it did not say)."""

    text: str
    finish_reason: str  # stop, length, content_filter; refusal: the text is what the model said instead
    prompt_tokens: int
    completion_tokens: int
    image_tokens: int = 0  # of the prompt's


LoadImages = Callable[[Sequence[PromptPage]], Awaitable[Sequence[bytes]]]  # encoded images, in the order of the pages


class RequestFailed(LongdocError):
    """This request cannot be answered, another may be: refused by the server, or out of attempts.

    `reason` is a slug to count by, `detail` shows what the server said.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class ChatModel(Protocol):
    """A model behind a server. `name` is part of what a paid answer is kept by."""

    @property
    def name(self) -> str: ...

    async def ask(self, request: ChatRequest, load: LoadImages) -> ChatAnswer:
        """Answer a request.

        Raises:
            RequestFailed: this request has no answer.
            EngineError: the server is gone; the run must stop.
        """
        ...
