"""Pages to questions that a model writes: one event loop asks, the workers render what it shows.

The loop runs in a thread of its own, because this one owns the worker processes. Documents of all partitions are asked
about at once, within bounds; a partition is finished when its last document is. Every answer is kept when it arrives
(`synth.cache`), so that a kill costs no more than the requests in flight. What no model needs to write (transcriptions,
the share of `synth.layout_share`) is written from the documents' structure first.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from corpus.config import SynthSettings
from corpus.decontamination import QuestionIndex
from corpus.errors import EngineError
from corpus.records import Document, Page, Question, Rejected, content_id
from corpus.stages import structure_questions
from corpus.stages.state import Build
from corpus.storage import cache_folder
from corpus.store import plain, read_records, schema_of, write_records
from synth import vllm_server
from synth.ask import Asked, Questioner, ask_document
from synth.cache import AnswerCache, CachedChat
from synth.openai_chat import OpenAiChat, api_key_of, checked_base_url
from synth.prompt_pages import PromptImages
from synth.tasks import TaskSpec, load_tasks
from synth.usage import Prices, Spent, projected
from synth.write import without_known, without_repeats

CACHE_FILE = "answers.sqlite"
STAGE_VERSION = 1  # raise it when the same answers should be judged anew
NOT_ASKED = {"backend", "files", "prompts", "tasks", "base_url", "client", "vllm"}  # how a model is reached, not what


def check(s: SynthSettings) -> None:
    """Find a user's mistakes before the hours of parsing.

    Raises:
        ConfigError: a faulty task file, address, key, interpreter or model folder.
    """
    if s.backend in ("openai", "vllm"):
        load_tasks(s.tasks, s.prompts)
        checked_base_url(s.base_url or "http://127.0.0.1/v1")
        api_key_of(s.client.api_key_env or "")
    if s.backend == "vllm":
        vllm_server.checked(s.vllm, s.model or "")


def run(b: Build) -> str:
    """Ask what no finished partition holds; returns what was spent, for the stage's closing line."""
    settings = b.config.synth
    tasks = tuple(t for t in load_tasks(settings.tasks, settings.prompts) if t.writer == "model")
    structure_questions.write_questions(b, "layout", {}, frozenset(t.name for t in tasks))
    b.run.drop("questions", keep=b.partitions)
    stage = _stage(b, tasks)
    b.progress.stage("synthesise", len(b.documents), "documents", also=lambda: said(b.usage.total(), settings))
    todo = {}
    for name in b.partitions:
        upstream = [b.marker(of, name).output for of in ("pages", "layout")]
        fingerprint = content_id(stage, upstream, [d.doc_id for d in b.kept(name)])
        if b.run.is_done("questions", name, fingerprint):
            b.progress.advance(units=len(b.partitions[name]))
        else:
            b.run.reopen("questions", name)
            todo[name] = fingerprint
    if todo:
        _ask(b, tasks, todo)
    return f" ({said(b.usage.total(), settings)})" if todo else ""


def projection(b: Build, num_inputs: int) -> str:
    """What asking about so many inputs would cost, in words."""
    all_of_them = projected(b.usage.total(), len(b.inputs), num_inputs)
    return f"for all {num_inputs} inputs about {said(all_of_them, b.config.synth)} (from {len(b.inputs)} of them)"


def said(spent: Spent, settings: SynthSettings) -> str:
    """What was spent, in words."""
    prices = prices_of(settings)
    text = f"{spent.requests:,} requests"
    text += f", {spent.cache_hits:,} answers found again" if spent.cache_hits else ""
    text += f", {spent.prompt_tokens:,} + {spent.completion_tokens:,} tokens"
    return f"{text}, price {spent.money(prices):,.2f}" if prices else text


def prices_of(settings: SynthSettings) -> Prices | None:
    """The prices that were given, if any."""
    c = settings.client
    priced = c.prompt_price or c.completion_price
    return Prices(prompt=c.prompt_price, completion=c.completion_price) if priced else None


def _stage(b: Build, tasks: Sequence[TaskSpec]) -> str:
    """What the questions of every partition depend on: nothing of how the server is reached."""
    s = b.config.synth
    settings = s.model_dump(exclude=NOT_ASKED)
    versions = sorted((t.name, t.version) for t in tasks)
    known = (plain(b.benchmark.questions), b.config.clean.benchmark_question)
    return content_id("ask", STAGE_VERSION, str(schema_of(Question)), settings, versions, b.config.seed, known)


def _ask(b: Build, tasks: tuple[TaskSpec, ...], fingerprints: dict[str, str]) -> None:
    """Ask about the partitions that are not done.

    Raises:
        EngineError: the server cannot be started, or is gone.
    """
    s, limits = b.config.synth, b.config.workers
    images = PromptImages(
        password=b.password,
        storage=b.config.storage,
        timeout_s=limits.timeout_s,
        page_timeout_s=limits.page_timeout_s,
        max_bytes=s.client.image_mb << 20,
    )
    folder = Path(s.client.cache_dir).expanduser() if s.client.cache_dir else cache_folder(b.config.storage)
    with ExitStack() as stack:
        cache = stack.enter_context(closing(AnswerCache(folder / CACHE_FILE)))
        media = stack.enter_context(b.run.page_images())
        reach = stack.enter_context(_vllm(b, media)) if s.backend == "vllm" else _server(b, media)
        asking = _Asking(b, tasks, fingerprints, images, cache, reach)
        thread = stack.enter_context(LoopThread(asking.run))
        images.serve(b.pool, until=thread.is_done)
    thread.result()


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How a server is reached, in the words of `OpenAiChat`; `writer` and `judge` are its names of the models."""

    writer: str
    judge: str
    options: dict[str, Any]


def _server(b: Build, media: Path) -> Reach:
    """A server that somebody else runs; it may read images from a folder of this machine."""
    s = b.config.synth
    options = {
        "base_url": s.base_url or "",
        "api_key_env": s.client.api_key_env or "",
        "images": s.client.images,
        "image_folder": media,
    }
    return Reach(writer=s.model or "", judge=s.judge_model or s.model or "", options=options)


@contextmanager
def _vllm(b: Build, media: Path) -> Iterator[Reach]:
    """A server that is started here, and again when it dies; it reads the images from a folder of this machine."""
    s = b.config.synth
    log = b.run.scratch("vllm.log")
    server = vllm_server.VllmServer(s.vllm, s.model or "", log=log, max_images=s.max_segment_pages, media=media)
    b.progress.say(f"starting vLLM with {s.model}; its log is {log}")
    with server:
        options = {
            "base_url": server.base_url,
            "api_key": server.api_key,
            "revive": server.ensure_running,
            "on_answer": server.note_answer,
            "images": "file",
            "image_folder": media,
        }
        yield Reach(writer=server.model, judge=server.model, options=options)


class LoopThread:
    """A coroutine in an event loop of a thread of its own, cancelled when the block is left before it is done."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._task: asyncio.Task[Any] | None = None
        self._started, self._done = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="questions")

    def __enter__(self) -> LoopThread:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)
        self._thread.join()

    def is_done(self) -> bool:
        return self._done.is_set()

    def result(self) -> None:
        """Raise what the coroutine raised; of a group of errors the first."""
        error = self._error
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if error is not None:
            raise error

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as e:  # re-raised in the thread that waits for it
            self._error = e
        finally:
            self._done.set()
            self._started.set()

    async def _main(self) -> None:
        self._task = asyncio.current_task()
        self._started.set()
        await self._work()


class _Asking:
    """Asks about every document of some partitions and writes each partition when its last document is done."""

    def __init__(
        self,
        b: Build,
        tasks: tuple[TaskSpec, ...],
        fingerprints: dict[str, str],
        images: PromptImages,
        cache: AnswerCache,
        reach: Reach,
    ) -> None:
        self._b, self._tasks, self._fingerprints = b, tasks, fingerprints
        self._images, self._cache, self._reach = images, cache, reach
        self._chats: list[OpenAiChat] = []

    async def run(self) -> None:
        s = self._b.config.synth
        room = asyncio.Semaphore(s.client.max_documents)
        async with AsyncExitStack() as stack:
            names = (self._reach.writer, self._reach.judge)
            models = {name: await self._connect(stack, name) for name in dict.fromkeys(names)}
            writer, judge = (models[name] for name in names)
            questioner = Questioner(writer=writer, judge=judge, tasks=self._tasks, settings=s, seed=self._b.config.seed)
            async with asyncio.TaskGroup() as group:
                for chat in self._chats:
                    group.create_task(self._warn(chat))
                for name in self._fingerprints:
                    asked = []
                    for document in self._b.kept(name):
                        await room.acquire()
                        asked.append(group.create_task(self._ask(questioner, name, document, room)))
                    group.create_task(self._finish(name, asked))

    async def _connect(self, stack: AsyncExitStack, model: str) -> CachedChat:
        """A model at the server, through the cache."""
        s = self._b.config.synth
        chat = OpenAiChat(
            model=model,
            timeout_s=s.client.timeout_s,
            attempts=s.client.attempts,
            backoff_s=s.client.backoff_s,
            max_in_flight=s.client.max_in_flight,
            max_image_bytes=s.client.image_mb << 20,
            gone_after_s=s.client.give_up_s,
            usage=self._b.usage,
            **self._reach.options,
        )
        await stack.enter_async_context(chat)
        self._chats.append(chat)
        cached = CachedChat(chat, self._cache, self._b.usage, s.client.max_in_flight)
        stack.callback(cached.close)
        return cached

    async def _warn(self, chat: OpenAiChat) -> None:
        """Say at once that a server is away; it may come, and what is asked may be in the cache."""
        try:
            await chat.check()
        except EngineError as e:
            self._b.progress.say(f"not reached so far: {e}")

    async def _ask(self, questioner: Questioner, name: str, document: Document, room: asyncio.Semaphore) -> Asked:
        try:
            of_document = [("doc_id", "=", document.doc_id)]
            file = self._b.run.path("pages", f"{name}.parquet")
            pages = await asyncio.to_thread(read_records, file, Page, of_document)
            asked = await ask_document(questioner, document, pages, partial(self._images.load, document))
            self._b.progress.advance(units=1, questions=sum(q.accepted for q in asked.questions))
            return asked
        finally:
            room.release()

    async def _finish(self, name: str, asked: Sequence[asyncio.Task[Asked]]) -> None:
        """Write a partition: what the documents' structure gave and what the model wrote."""
        found = [await task for task in asked]
        await asyncio.to_thread(self._write, name, found)
        self._b.work["synthesise"] += 1

    def _write(self, name: str, found: Sequence[Asked]) -> None:
        b = self._b
        of_layout, layout_gaps = structure_questions.files_of(b, "layout", name)
        questions = [*read_records(of_layout, Question), *(q for a in found for q in a.questions)]
        questions.sort(key=lambda q: q.doc_id)  # stable: in a document, structure first
        overlap = b.config.clean.benchmark_question
        questions = without_known(without_repeats(questions), QuestionIndex(b.benchmark.questions), overlap)
        gaps = [*read_records(layout_gaps, Rejected), *(g for a in found for g in a.gaps)]
        questions_file, gaps_file = structure_questions.files_of(b, "questions", name)
        write_records(questions_file, Question, questions)
        write_records(gaps_file, Rejected, gaps)
        refused = [q for q in questions if not q.accepted]
        accepted = Counter(q.doc_id for q in questions if q.accepted)
        facts = {
            "accepted": {d.doc_id: accepted[d.doc_id] for d in b.partitions[name]},
            "refused": [len(refused), f"{refused[0].reason}: {refused[0].detail}" if refused else ""],
        }
        b.run.finish("questions", name, self._fingerprints[name], [questions_file, gaps_file], facts)
