"""Pages to questions that a model writes: one event loop asks, the workers render what it shows.

The loop runs in a thread of its own, because this one owns the worker processes. Documents of all partitions are asked
about at once, within bounds; a partition is finished when its last document is. Every answer is kept when it arrives
(`synth.cache`), so that a kill costs no more than the requests in flight. What no model needs to write (transcriptions,
the share of `synth.layout_share`) is written from the documents' structure first.

Questions that are missing for faults of a server or a worker are asked for by every later build until they are there.
If that cannot be done, the build goes on without them: a corpus can be planned anew when its server is long gone.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from corpus.config import SynthSettings
from corpus.decontamination import QuestionIndex
from corpus.errors import EngineError
from corpus.records import Document, Page, Question, Rejected, content_id
from corpus.rundir import Marker
from corpus.stages import structure_questions
from corpus.stages.parse import PASSING_REASONS
from corpus.stages.state import Build
from corpus.storage import cache_folder
from corpus.store import plain, read_records, schema_of, write_json, write_records
from corpus.workers import LIMIT_REASONS
from synth import openai_chat, vllm_server
from synth.ask import Asked, Questioner, ask_document
from synth.cache import AnswerCache, CachedChat
from synth.openai_chat import OpenAiChat, SettingNames, api_key_of, checked_base_url
from synth.prompt_pages import PromptImages
from synth.tasks import TaskSpec, load_tasks
from synth.usage import Prices, Spent, projected, recovered
from synth.write import without_known, without_repeats

CACHE_FILE = "answers.sqlite"
STAGE_VERSION = 3  # raise it when the same answers should be judged anew
NOT_ASKED = {  # how a model is reached, not what
    "backend", "files", "prompts", "tasks", "base_url", "client", "vllm", "judge", "judge_model"
}  # fmt: skip
JUDGE = SettingNames(base_url="synth.judge.base_url", model="synth.judge.model", api_key_env="synth.judge.api_key_env")
PASSING = {*openai_chat.PASSING_REASONS, *PASSING_REASONS, *LIMIT_REASONS}  # faults that may be gone at the next build


def check(s: SynthSettings) -> None:
    """Find a user's mistakes before the hours of parsing.

    Raises:
        ConfigError: a faulty task file, address, key, interpreter or model folder.
    """
    if s.backend in ("openai", "vllm"):
        load_tasks(s.tasks, s.prompts)
        checked_base_url(s.base_url or "http://127.0.0.1/v1")
        api_key_of(s.client.api_key_env or "")
        if s.judge:
            checked_base_url(s.judge.base_url, JUDGE.base_url)
            api_key_of(s.judge.api_key_env or "", JUDGE.api_key_env)
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
    todo, again = {}, {}
    for name in b.partitions:
        upstream = [b.marker(of, name).output for of in ("pages", "layout")]
        fingerprint = content_id(stage, upstream, [d.doc_id for d in b.kept(name)])
        if not b.run.is_done("questions", name, fingerprint):
            todo[name] = fingerprint
        elif missing(b.marker("questions", name)):
            again[name] = fingerprint
        else:
            b.progress.advance(units=len(b.partitions[name]))
    _ask(b, tasks, todo, again)
    spent = f" ({said(b.usage.total(), settings)})" if todo or again else ""
    lost: Counter[str] = Counter()
    for name in b.partitions:
        lost += missing(b.marker("questions", name))
    why = ", ".join(f"{n} {reason}" for reason, n in sorted(lost.items()))
    return spent + (f", some missing for faults that may pass ({why}): the same command asks again" if lost else "")


def missing(marker: Marker) -> Counter[str]:
    """Faults that left places without a question and may be gone by now: the places by reason."""
    return Counter({reason: n for reason, n in marker.facts.get("faults", {}).items() if reason in PASSING})


def replies_of(markers: Iterable[Marker]) -> dict[str, dict[str, int]]:
    """Of each task and check, how many replies of the model could be read, and how many not, by reason."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for marker in markers:
        for purpose, reasons in marker.facts.get("replies", {}).items():
            counts[purpose].update(reasons)
    return _plain(counts)


def _plain(counts: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    return {purpose: dict(sorted(counts[purpose].items())) for purpose in sorted(counts)}


def projection(b: Build, num_inputs: int) -> str:
    """What asking about so many inputs would cost, in words."""
    kept = sum(len(b.kept(name)) for name in b.partitions)
    asked = len(b.inputs) * b.num_asked / max(1, kept)  # an earlier attempt may have asked about the others
    all_of_them = projected(b.usage.total(), asked, num_inputs)
    return f"for all {num_inputs} inputs about {said(all_of_them, b.config.synth)} (from {len(b.inputs)} of them)"


def said(spent: Spent, settings: SynthSettings) -> str:
    """What was spent, in words."""
    prices = prices_of(settings)
    text = f"{spent.requests:,} requests"
    found = spent.cache_hits + spent.resumed
    text += f", {found:,} answers found again" if found else ""
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
    settings = {**s.model_dump(exclude=NOT_ASKED), "judge_model": s.judge.model if s.judge else s.judge_model}
    versions = sorted((t.name, t.version) for t in tasks)
    known = (plain(b.benchmark.questions), b.config.clean.benchmark_question)
    return content_id("ask", STAGE_VERSION, str(schema_of(Question)), settings, versions, b.config.seed, known)


def _ask(b: Build, tasks: tuple[TaskSpec, ...], todo: dict[str, str], again: dict[str, str]) -> None:
    """Ask about partitions, by name with their fingerprints.

    Args:
        todo: those that are not done.
        again: those that are, but for faults that may have passed.

    Raises:
        EngineError: the server cannot be started, or is gone, and something is not done.
    """
    s, limits = b.config.synth, b.config.workers
    folder = Path(s.client.cache_dir).expanduser() if s.client.cache_dir else cache_folder(b.config.storage)
    file = folder / CACHE_FILE
    try:
        if not todo and not again and not file.is_file():
            return
        with ExitStack() as stack:
            cache = stack.enter_context(closing(AnswerCache(file)))
            run = _identity(b)
            b.usage_before = recovered(b.usage_before, cache.paid(run))
            if not todo and not again:
                return
            images = PromptImages(
                password=b.password,
                storage=b.config.storage,
                timeout_s=limits.timeout_s,
                page_timeout_s=limits.page_timeout_s,
                max_bytes=s.client.image_mb << 20,
            )
            media = stack.enter_context(b.run.page_images())
            reach = stack.enter_context(_vllm(b, media)) if s.backend == "vllm" else _server(b, media)
            asking = _Asking(b, tasks, todo | again, images, cache, run, reach, must_answer=not todo)
            thread = stack.enter_context(LoopThread(asking.run))
            images.serve(b.pool, until=thread.is_done)
        thread.result()
    except EngineError as e:
        if not all(b.run.is_done("questions", *partition) for partition in (todo | again).items()):
            raise
        b.progress.say(f"nothing more is asked for: {e}")


def _identity(b: Build) -> str:
    """By what the answer cache knows this run, over all of its attempts."""
    file = b.run.work("asking.json")
    if not file.is_file():
        write_json(file, {"run": secrets.token_hex(8)})
    return str(json.loads(file.read_text(encoding="utf-8"))["run"])


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How a model is reached, in the words of `OpenAiChat`; `model` is its name there."""

    model: str
    options: dict[str, Any]


Reaches = tuple[Reach, Reach]  # writer, judge; the same one twice where they are one model


def _server(b: Build, media: Path) -> Reaches:
    """A server that somebody else runs; it may read images from a folder of this machine."""
    s = b.config.synth
    options = {
        "base_url": s.base_url or "",
        "api_key_env": s.client.api_key_env or "",
        "images": s.client.images,
        "image_folder": media,
    }
    writer = Reach(model=s.model or "", options=options)
    same = Reach(model=s.judge_model, options=options) if s.judge_model not in (None, s.model) else writer
    return writer, _judge(s) or same


def _judge(s: SynthSettings) -> Reach | None:
    """The judge's own server, if it has one."""
    if s.judge is None:
        return None
    options = {"base_url": s.judge.base_url, "api_key_env": s.judge.api_key_env or "", "names": JUDGE}
    return Reach(model=s.judge.model, options=options)


@contextmanager
def _vllm(b: Build, media: Path) -> Iterator[Reaches]:
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
        writer = Reach(model=server.model, options=options)
        yield writer, _judge(s) or writer


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
        run: str,
        reaches: Reaches,
        must_answer: bool,
    ) -> None:
        """
        Args:
            b: the build.
            tasks: those that a model writes.
            fingerprints: of the partitions to ask about, by name.
            images: of the pages.
            cache: where answers are kept.
            run: by what the cache knows this run.
            reaches: the writer and the judge.
            must_answer: do not wait for a server that is not there at the start.
        """
        self._b, self._tasks, self._fingerprints = b, tasks, fingerprints
        self._images, self._cache, self._run_id = images, cache, run
        self._reaches, self._must_answer = reaches, must_answer
        self._chats: list[OpenAiChat] = []

    async def run(self) -> None:
        s = self._b.config.synth
        room = asyncio.Semaphore(s.client.max_documents)
        async with AsyncExitStack() as stack:
            first, second = self._reaches
            writer = await self._connect(stack, first)
            judge = writer if second is first else await self._connect(stack, second)
            if self._must_answer:
                await asyncio.gather(*(chat.check() for chat in self._chats))
            questioner = Questioner(writer=writer, judge=judge, tasks=self._tasks, settings=s, seed=self._b.config.seed)
            async with asyncio.TaskGroup() as group:
                for chat in self._chats:
                    group.create_task(self._warn(chat))
                for name in self._fingerprints:
                    asked = []
                    for document in self._b.kept(name):
                        await room.acquire()
                        asked.append(group.create_task(self._ask(questioner, name, document, room)))
                        self._b.num_asked += 1
                    group.create_task(self._finish(name, asked))

    async def _connect(self, stack: AsyncExitStack, reach: Reach) -> CachedChat:
        """A model at its server, through the cache."""
        s = self._b.config.synth
        chat = OpenAiChat(
            model=reach.model,
            timeout_s=s.client.timeout_s,
            attempts=s.client.attempts,
            backoff_s=s.client.backoff_s,
            max_in_flight=s.client.max_in_flight,
            max_image_bytes=s.client.image_mb << 20,
            gone_after_s=s.client.give_up_s or 2 * s.client.timeout_s,
            usage=self._b.usage,
            **reach.options,
        )
        await stack.enter_async_context(chat)
        self._chats.append(chat)
        cached = CachedChat(chat, self._cache, self._b.usage, s.client.max_in_flight, self._run_id)
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
        b.run.reopen("questions", name)
        write_records(questions_file, Question, questions)
        write_records(gaps_file, Rejected, gaps)
        refused = [q for q in questions if not q.accepted]
        accepted = Counter(q.doc_id for q in questions if q.accepted)
        faults: Counter[str] = Counter()
        replies: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for document in found:
            for purpose, reasons in document.replies.items():
                replies[purpose].update(reasons)
            faults += document.faults
        facts = {
            "faults": dict(sorted(faults.items())),
            "replies": _plain(replies),
            "accepted": {d.doc_id: accepted[d.doc_id] for d in b.partitions[name]},
            "refused": [len(refused), f"{refused[0].reason}: {refused[0].detail}" if refused else ""],
        }
        b.run.finish("questions", name, self._fingerprints[name], [questions_file, gaps_file], facts)
