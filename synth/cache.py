"""Every answer that was paid for, kept in one SQLite file, so that no request is paid for twice.

The key is what was asked: model, instruction, text, schema, sampling, and the pages by document, number, size and
renderer. The bytes of the images are not part of it, because another version of an encoder writes other bytes of the
same page, and neither is the purpose. Answers that were cut at their length limit are kept too: they were paid for, and
the same request would be cut again. Failures are not kept.

An answer is on the disk (`synchronous=FULL`) before anyone sees it. A thread of its own reads and writes: a disk that
stands still for a while must not make the requests of others run out of time. It writes all answers that came while it
wrote the last ones in one transaction. Several processes may share a file, on a local disk: SQLite's write-ahead log
does not work over a network. The first answer that is stored stays, and is what everyone gets.

With an answer goes, in the same transaction, which run paid for it and for what purpose: a run that is killed knows
afterwards what it had spent, except for the requests that were in flight.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import sqlite3
import tempfile
import threading
import time
import zlib
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from corpus.errors import EngineError
from synth.chat import ChatAnswer, ChatModel, ChatRequest, LoadImages, RequestFailed
from synth.usage import Spent, Usage, estimated_image_tokens

KEY_VERSION = 1  # raise it when the same request should be sent otherwise, and so be paid for again
APPLICATION_ID = 0x6C647163  # "ldqc", in the file's header
FORMAT_VERSION = 1
BUSY_S = 60.0  # how long to wait for another process that writes

# Beside the answers, so that versions that know nothing of it can use the file.
PAID = """
CREATE TABLE IF NOT EXISTS paid (
    run TEXT NOT NULL,
    key BLOB NOT NULL,  -- of answers
    purpose TEXT NOT NULL,
    seconds REAL NOT NULL,  -- from asking to the answer
    estimated_image_tokens INTEGER NOT NULL,  -- 0 where the server counted them
    paid_at REAL NOT NULL,  -- seconds since 1970
    PRIMARY KEY (run, key)
) WITHOUT ROWID;
"""
SCHEMA = f"""
CREATE TABLE answers (
    key BLOB PRIMARY KEY,  -- SHA-256 of the request
    model TEXT NOT NULL,
    text BLOB NOT NULL,  -- zlib, UTF-8
    finish_reason TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    image_tokens INTEGER NOT NULL,
    stored_at REAL NOT NULL  -- seconds since 1970
);
{PAID}
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT_VERSION};
"""


def key_of(request: ChatRequest, model_name: str) -> bytes:
    """What an answer is kept by: 32 bytes of SHA-256."""
    sampling = request.sampling
    asked = {
        "version": KEY_VERSION,
        "model": model_name,
        "system": request.system,
        "text": request.text,
        "schema": request.schema,
        "sampling": [float(sampling.temperature), float(sampling.top_p), sampling.max_tokens, sampling.seed],
        "pages": [[p.doc_id, p.page, p.height, p.width, p.render] for p in request.pages],
    }
    canonical = json.dumps(asked, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """Who paid for an answer: `run` is the identity of a run, '' where no account is kept."""

    run: str
    purpose: str
    seconds: float
    estimated_image_tokens: int


class AnswerCache:
    """The answers in a file. Threads may share one; processes open one each, and none before they fork."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it and its folders.

        Raises:
            EngineError: it cannot be opened, is damaged, or is not a file of answers.
        """
        self.path = path
        self._lock = threading.Lock()
        self._opened_at = time.time()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                self._refuse_orphans()
                _create(path)
            self._connection = _connect(path)
        except OSError as e:
            raise EngineError(f"cannot open the answer cache {path}: {e.strerror}") from e
        except sqlite3.Error as e:
            raise self._broken(e) from e
        try:
            (application,) = self._connection.execute("PRAGMA application_id").fetchone()
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            self._connection.execute("SELECT key FROM answers LIMIT 1").fetchone()
        except sqlite3.Error as e:
            self.close()
            raise self._broken(e) from e
        if application != APPLICATION_ID or version != FORMAT_VERSION:
            self.close()
            raise EngineError(
                f"{path} is not an answer cache of this version (application {application:#x}, format {version}); "
                "name another file, or use the version of longdoc that wrote it"
            )
        try:
            self._connection.execute(PAID)
        except sqlite3.Error as e:
            self.close()
            raise self._broken(e) from e

    def get(self, key: bytes) -> ChatAnswer | None:
        """The answer that is kept by a key.

        Raises:
            EngineError: the file is damaged or cannot be read.
        """
        columns = "text, finish_reason, prompt_tokens, completion_tokens, image_tokens"
        try:
            with self._lock:
                row = self._connection.execute(f"SELECT {columns} FROM answers WHERE key = ?", (key,)).fetchone()
            if row is None:
                return None
            text = zlib.decompress(row[0]).decode("utf-8", "surrogatepass")
        except (sqlite3.Error, zlib.error, UnicodeDecodeError, TypeError) as e:
            raise self._broken(e) from e
        return ChatAnswer(
            text=text, finish_reason=row[1], prompt_tokens=row[2], completion_tokens=row[3], image_tokens=row[4]
        )

    def put(self, key: bytes, model_name: str, answer: ChatAnswer) -> ChatAnswer:
        """Keep an answer; see `put_all`."""
        return self.put_all(model_name, [(key, answer)])[0]

    def put_all(
        self, model_name: str, answers: Sequence[tuple[bytes, ChatAnswer]], payments: Sequence[Payment] = ()
    ) -> list[ChatAnswer]:
        """Keep answers, all of them on the disk when this returns. Returns those that are kept: the first of each key.

        Args:
            model_name: whose answers they are.
            answers: with their keys.
            payments: one for each answer, or none.

        Raises:
            EngineError: they cannot be written, and none of them was.
        """
        insert = "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING"
        pay = "INSERT INTO paid VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (run, key) DO NOTHING"
        now = time.time()
        rows = [
            (
                key,
                model_name,
                zlib.compress(answer.text.encode("utf-8", "surrogatepass")),
                answer.finish_reason,
                answer.prompt_tokens,
                answer.completion_tokens,
                answer.image_tokens,
                now,
            )
            for key, answer in answers
        ]
        paid = [
            (p.run, key, p.purpose, p.seconds, p.estimated_image_tokens, now)
            for (key, _), p in zip(answers, payments, strict=False)
            if p.run
        ]
        try:
            with self._lock, self._connection:  # which commits, or rolls back
                self._connection.execute("BEGIN IMMEDIATE")
                added = [self._connection.execute(insert, row).rowcount for row in rows]
                self._connection.executemany(pay, paid)
        except sqlite3.Error as e:
            raise self._broken(e) from e
        return [answer if new else self._kept(key) for new, (key, answer) in zip(added, answers, strict=True)]

    def _kept(self, key: bytes) -> ChatAnswer:
        answer = self.get(key)
        assert answer is not None, "another answer to this key was there"
        return answer

    def paid(self, run: str) -> Usage:
        """What the kept answers cost that a run paid for, by purpose.

        Raises:
            EngineError: the file is damaged or cannot be read.
        """
        query = """
            SELECT purpose, count(*), sum(prompt_tokens), sum(completion_tokens),
                sum(image_tokens + estimated_image_tokens), sum(estimated_image_tokens), sum(seconds)
            FROM paid JOIN answers USING (key) WHERE run = ? GROUP BY purpose
        """
        try:
            with self._lock:
                rows = self._connection.execute(query, (run,)).fetchall()
        except sqlite3.Error as e:
            raise self._broken(e) from e
        return Usage(
            {
                purpose: Spent(
                    requests=requests,
                    prompt_tokens=prompt,
                    completion_tokens=completion,
                    image_tokens=image,
                    estimated_image_tokens=estimated,
                    seconds=seconds,
                )
                for purpose, requests, prompt, completion, image, estimated, seconds in rows
            }
        )

    def was_paid_before(self, run: str, key: bytes) -> bool:
        """Whether a run paid for an answer before this file was opened here, that is, in an earlier attempt.

        Raises:
            EngineError: the file is damaged or cannot be read.
        """
        query = "SELECT 1 FROM paid WHERE run = ? AND key = ? AND paid_at < ?"
        try:
            with self._lock:
                return self._connection.execute(query, (run, key, self._opened_at)).fetchone() is not None
        except sqlite3.Error as e:
            raise self._broken(e) from e

    def __len__(self) -> int:
        try:
            with self._lock:
                return int(self._connection.execute("SELECT count(*) FROM answers").fetchone()[0])
        except sqlite3.Error as e:
            raise self._broken(e) from e

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _refuse_orphans(self) -> None:
        """A log without its file holds answers, and would spoil a new file."""
        log = self.path.with_name(f"{self.path.name}-wal")
        if log.exists() and log.stat().st_size:
            raise EngineError(
                f"the answer cache {self.path} is missing, but its log {log.name} is there: bring the file back, or "
                "move the log away, and what it holds will be paid for again"
            )

    def _broken(self, error: Exception) -> EngineError:
        code = getattr(error, "sqlite_errorname", "") or ""
        what = f"{self.path}: {error}{f' ({code})' if code else ''}"
        if code.startswith("SQLITE_FULL"):
            return EngineError(f"the answer cache {what}; make room on the disk, what is kept is sound")
        if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return EngineError(f"the answer cache {what}: another process has been writing for {BUSY_S:g} s")
        if code.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_IOERR", "SQLITE_PROTOCOL")):
            return EngineError(f"cannot use the answer cache {what}; it must be a writable file on a local disk")
        return EngineError(
            f"the answer cache is damaged: {what}; save what can be saved with `sqlite3 {self.path} .recover`, or move "
            f"it and the files beside it (-wal, -shm) away, and its answers will be paid for again"
        )


def _connect(path: Path) -> sqlite3.Connection:
    """An existing file, never a new one; one statement is one transaction."""
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _create(path: Path) -> None:
    """Make an empty cache under another name first, so that nobody ever finds half a file.

    An empty file at `path` is thus always a damaged one.
    """
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        new = Path(folder) / path.name
        connection = sqlite3.connect(new, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(SCHEMA)
        finally:
            connection.close()
        with contextlib.suppress(FileExistsError):  # another process was faster
            os.link(new, path)


@dataclass(slots=True)
class _Stored:
    """An answer on its way to the disk, and what became of it."""

    key: bytes
    answer: ChatAnswer
    payment: Payment
    kept: ChatAnswer | None = None
    error: EngineError | None = None


class CachedChat:
    """A chat model whose answers are kept, and found again. For one event loop.

    Requests that are the same at the same time are one: the others wait for it, and share its answer or its failure.
    """

    def __init__(
        self, model: ChatModel, cache: AnswerCache, usage: Usage, max_in_flight: int = 64, run: str = ""
    ) -> None:
        """
        Args:
            model: whose answers are kept.
            cache: where.
            usage: where hits, answers and failures are counted.
            max_in_flight: requests that are asked and not stored yet, and so all that a kill can repeat.
            run: identity of the run that pays, over all of its attempts; '' keeps no account.
        """
        self._model, self._cache, self._usage, self._run = model, cache, usage, run
        self._room = asyncio.Semaphore(max_in_flight)
        self._asked: dict[bytes, asyncio.Future[ChatAnswer]] = {}
        self._unstored: deque[_Stored] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="answer-cache")

    @property
    def name(self) -> str:
        """The model's."""
        return self._model.name

    async def ask(self, request: ChatRequest, load: LoadImages) -> ChatAnswer:
        """Answer from the cache, else ask the model and keep what it says.

        Raises:
            RequestFailed: see `ChatModel`.
            EngineError: see `ChatModel`; or the cache cannot be read or written.
        """
        key = key_of(request, self.name)
        while (first := self._asked.get(key)) is not None:
            await asyncio.wait([first])
            if not first.cancelled():  # else this one asks instead
                answer = first.result()
                self._usage.hit(request.purpose)
                return answer
        mine: asyncio.Future[ChatAnswer] = asyncio.get_running_loop().create_future()
        self._asked[key] = mine
        try:
            answer = await self._find_or_ask(key, request, load)
        except Exception as e:
            mine.set_exception(e)
            mine.exception()  # nobody may be waiting for it
            raise
        except BaseException:
            mine.cancel()
            raise
        else:
            mine.set_result(answer)
            return answer
        finally:
            del self._asked[key]

    async def _find_or_ask(self, key: bytes, request: ChatRequest, load: LoadImages) -> ChatAnswer:
        known, resumed = await asyncio.get_running_loop().run_in_executor(self._thread, self._find, key)
        if known is not None:
            self._usage.hit(request.purpose, resumed)
            return known
        async with self._room:
            return await self._ask_and_store(key, request, load)

    def _find(self, key: bytes) -> tuple[ChatAnswer | None, bool]:
        """The answer that is kept, if any, and whether an earlier attempt of the run paid for it. In the thread."""
        known = self._cache.get(key)
        return known, known is not None and bool(self._run) and self._cache.was_paid_before(self._run, key)

    async def _ask_and_store(self, key: bytes, request: ChatRequest, load: LoadImages) -> ChatAnswer:
        began = time.monotonic()
        try:
            answer = await self._model.ask(request, load)
        except RequestFailed as e:
            self._usage.failed(request.purpose, e.reason, time.monotonic() - began)
            raise
        seconds, estimated = time.monotonic() - began, estimated_image_tokens(answer, request.pages)
        self._usage.answered(request.purpose, answer, seconds, estimated)
        payment = Payment(run=self._run, purpose=request.purpose, seconds=seconds, estimated_image_tokens=estimated)
        stored = _Stored(key, answer, payment)
        self._unstored.append(stored)
        storing = asyncio.get_running_loop().run_in_executor(self._thread, self._store, stored)
        return await asyncio.shield(storing)  # it is stored even if nobody waits any more

    def _store(self, stored: _Stored) -> ChatAnswer:
        """Store an answer and all that wait with it, unless it was stored together with another one. In the thread."""
        if not stored.kept and not stored.error:
            batch = [self._unstored.popleft() for _ in range(len(self._unstored))]
            try:
                kept = self._cache.put_all(self.name, [(s.key, s.answer) for s in batch], [s.payment for s in batch])
            except EngineError as e:
                for one in batch:
                    one.error = e
            else:
                for one, answer in zip(batch, kept, strict=True):
                    one.kept = answer
        if stored.error:
            raise stored.error
        assert stored.kept, "it is in the batch, or was in an earlier one"
        return stored.kept

    def close(self) -> None:
        """Wait until everything is stored. The cache itself stays open."""
        self._thread.shutdown()
