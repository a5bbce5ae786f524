"""Worker processes that a bad document cannot take down with it.

Each task runs in a child process that is killed when it exceeds its time or memory, or stands still, and replaced when
it dies; the task then ends as a `Failure` and the run goes on. A death may have come from outside (the kernel short of
memory, an operator), so the task is tried again before anybody is blamed. Processes are spawned, not forked (ONNX and
MuPDF keep threads), live through the whole build, so that their imports are paid once, and die with their parent.

`concurrent.futures` offers neither: there, one crashed child breaks the pool and a hang cannot be ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Generic, TypeVar

from corpus.errors import DocumentError, EngineError, LongdocError

K = TypeVar("K")

RECYCLE_AFTER = 200  # tasks; what libraries leak is returned with the process
POLL_S = 0.1  # what a decompression bomb can take between two looks is a few hundred megabytes
IDLE_S = 0.01  # between two looks for a new task, while there is none
END: Any = object()
ATTEMPTS = 3  # of a task whose process died
TIMEOUT, OUT_OF_MEMORY, WORKER_DIED = "timeout", "out-of-memory", "worker-died"
LIMIT_REASONS = (TIMEOUT, OUT_OF_MEMORY)  # another limit may change them
STARTUP_S = 120.0  # for a new child to import PyMuPDF and ONNX, before its task's own clock starts


@dataclass(frozen=True, slots=True)
class Task(Generic[K]):
    """One call of `function(argument, progress)` in a child; both must be picklable.

    `stall_s`: seconds that may pass without a call of `progress`.
    """

    key: K
    function: Callable[[Any, Callable[[int], None]], Any]
    argument: Any
    timeout_s: float
    stall_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task has no result; `reason` is a slug, `pages_done` what it had reported: the fault lies after those."""

    reason: str
    detail: str
    pages_done: int = 0


@dataclass(frozen=True, slots=True)
class Outcome(Generic[K]):
    """What became of a task: its function's value, or a `Failure`."""

    key: K
    value: Any


class _Child:
    """One process and the pipe to it."""

    def __init__(self, context: Any) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, os.getpid()), daemon=True)
        on_interrupt = _ignore_interrupts()  # Ctrl-C is the parent's to handle, also while the child still imports
        self.process.start()
        _restore_interrupts(on_interrupt)
        theirs.close()
        self.task: Task[Any] | None = None
        self.attempt = 0
        self.deadline = self.stalled = 0.0  # moments at which the task is given up
        self.pages_done = 0  # of the task
        self.done = 0  # tasks

    def start(self, task: Task[Any], attempt: int) -> None:
        self.task, self.attempt, self.pages_done = task, attempt, 0
        self.deadline = self.stalled = time.monotonic() + STARTUP_S + task.timeout_s
        self.pipe.send((task.function, task.argument))

    def end(self) -> int | None:
        """Kill the process and say how it had ended, if it had."""
        code: int | None = self.process.exitcode
        self.process.kill()
        self.process.join()
        self.pipe.close()
        return code


class WorkerPool:
    """`num_workers` child processes. A context manager: leaving it ends them."""

    def __init__(self, num_workers: int, memory_mb: int) -> None:
        self._memory_bytes = memory_mb * 2**20
        self._num_workers = num_workers
        self._context = multiprocessing.get_context("spawn")
        self._idle: list[_Child] = []
        self._busy: list[_Child] = []

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        for child in (*self._idle, *self._busy):
            child.end()
        self._idle, self._busy = [], []

    def run(self, tasks: Iterable[Task[K] | None], progress: Callable[[int], None]) -> Iterator[Outcome[K]]:
        """Outcomes in the order of completion. `progress` receives what tasks report while they run.

        Args:
            tasks: what to do; None says that there is nothing at the moment, and that more may come.

        Raises:
            EngineError: a task met a fault that is not its document's (a full disk).
        """
        fresh, again, more = iter(tasks), deque[tuple[Task[K], int]](), True
        while True:
            while len(self._busy) < self._num_workers:
                if again:
                    task, attempt = again.popleft()
                elif more and (taken := next(fresh, END)) is not None:
                    if taken is END:
                        more = False
                        continue
                    task, attempt = taken, 1
                else:
                    break
                self._busy.append(self._started(task, attempt))
            if not self._busy:
                if not more:
                    return
                time.sleep(IDLE_S)
                continue
            pipes = {child.pipe: child for child in self._busy}
            for pipe in wait(list(pipes), timeout=POLL_S):
                child = pipes[pipe]
                try:
                    message = child.pipe.recv()
                except (EOFError, OSError):
                    dead = self._buried(child)
                    if child.attempt < ATTEMPTS and child.task is not None:
                        progress(-child.pages_done)
                        again.append((child.task, child.attempt + 1))
                    else:
                        yield dead
                    continue
                outcome = self._receive(child, message, progress)
                if outcome:
                    yield outcome
            for child in list(self._busy):
                failure = self._limit(child)
                if failure:
                    yield self._fail(child, failure)

    def _started(self, task: Task[K], attempt: int) -> _Child:
        """A child that has begun with the task."""
        while True:
            child = self._idle.pop() if self._idle else _Child(self._context)
            try:
                child.start(task, attempt)
                return child
            except OSError:  # it died while it had nothing to do
                child.end()

    def _buried(self, child: _Child) -> Outcome[Any]:
        """A dead child's task as a failure."""
        child.process.join(timeout=5)
        return self._fail(child, Failure(WORKER_DIED, _death(child.process.exitcode), child.pages_done))

    def _receive(self, child: _Child, message: tuple[str, Any], progress: Callable[[int], None]) -> Outcome[Any] | None:
        assert child.task is not None
        kind, value = message
        now = time.monotonic()
        if kind == "started":
            child.deadline, child.stalled = now + child.task.timeout_s, now + child.task.stall_s
            return None
        if kind == "progress":
            child.stalled = now + child.task.stall_s
            child.pages_done += value
            progress(value)
            return None
        if kind == "engine-error":
            raise EngineError(value)
        if isinstance(value, Failure):
            value = replace(value, pages_done=child.pages_done)
        key, child.task = child.task.key, None
        child.done += 1
        self._busy.remove(child)
        if child.done >= RECYCLE_AFTER:
            child.end()
        else:
            self._idle.append(child)
        return Outcome(key, value)

    def _limit(self, child: _Child) -> Failure | None:
        """The limit that a busy child exceeds, if any."""
        assert child.task is not None
        if child.pipe.poll():
            return None  # it has something to say, perhaps its result
        now = time.monotonic()
        if now > min(child.deadline, child.stalled):
            limit = child.task.timeout_s if now > child.deadline else child.task.stall_s
            return Failure(TIMEOUT, f"gave up after {limit:.0f} s; raise workers.timeout_s", child.pages_done)
        rss = resident_bytes(child.process.pid)
        if rss > self._memory_bytes:
            detail = f"{rss >> 20} MB exceeds workers.memory_mb = {self._memory_bytes >> 20}"
            return Failure(OUT_OF_MEMORY, detail, child.pages_done)
        return None

    def _fail(self, child: _Child, failure: Failure) -> Outcome[Any]:
        assert child.task is not None
        child.end()
        self._busy.remove(child)
        return Outcome(child.task.key, failure)


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants (an OCR server), 0 where the system does not tell."""
    pages, pids = 0, [pid]
    while pids:
        process = Path(f"/proc/{pids.pop()}")
        with contextlib.suppress(OSError, IndexError):  # it ended, or there is no /proc
            pages += int((process / "statm").read_text().split()[1])
            for thread in (process / "task").iterdir():
                pids += map(int, (thread / "children").read_text().split())
    return pages * os.sysconf("SC_PAGE_SIZE")


def _ignore_interrupts() -> Any:
    """Ignore Ctrl-C here and in children started now; only a main thread may, and only it gets Ctrl-C."""
    return (
        signal.signal(signal.SIGINT, signal.SIG_IGN) if threading.current_thread() is threading.main_thread() else None
    )


def _restore_interrupts(handler: Any) -> None:
    if handler is not None:
        signal.signal(signal.SIGINT, handler)


def _death(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        known = {s.value: s.name for s in signal.Signals}
        return f"killed by {known.get(-exit_code, f'signal {-exit_code}')} while it handled the document"
    return f"exited with code {exit_code} while it handled the document"


def _serve(pipe: Connection, parent: int) -> None:
    """Child's loop: receive a call, send its progress and its outcome, until the parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _die_with(parent)

    def progress(num_pages: int) -> None:
        pipe.send(("progress", num_pages))

    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            function, argument = pipe.recv()  # imports what the function needs
            pipe.send(("started", None))
            outcome = _call(function, argument, progress)
            return_freed_memory()
            pipe.send(outcome)


def return_freed_memory() -> None:
    """Give memory that was freed back to the system.

    glibc keeps it, in pieces that the layout and OCR models do not fit into again: a worker grew by 0.6 MB a page, to
    740 MB after 468 pages; returning it after every 16 pages, it stays level.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _call(function: Any, argument: Any, progress: Callable[[int], None]) -> tuple[str, Any]:
    try:
        return "value", function(argument, progress)
    except DocumentError as e:
        return "value", Failure(e.reason, e.detail)
    except LongdocError as e:
        return "engine-error", str(e)
    except MemoryError:
        return "value", Failure(OUT_OF_MEMORY, "the worker could not allocate memory")
    except (BrokenPipeError, ConnectionResetError):
        raise
    except Exception as e:  # an unforeseen fault costs one document, not the run
        return "value", Failure("internal-error", f"{type(e).__name__}: {e}"[:500])


def _die_with(parent: int) -> None:
    """Ask Linux to kill this process when its parent dies, however the parent dies."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
