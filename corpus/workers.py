"""Worker processes that a bad document cannot take down with it.

Each task runs in a child process that is killed when it exceeds its time or memory, and replaced when it dies; the
task then ends as a `Failure` and the run goes on. Processes are spawned, not forked (ONNX and MuPDF keep threads),
live through the whole build, so that their imports are paid once, and die with their parent.

`concurrent.futures` offers neither: there, one crashed child breaks the pool and a hang cannot be ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Generic, TypeVar

from corpus.errors import DocumentError, EngineError, LongdocError

K = TypeVar("K")

RECYCLE_AFTER = 200  # tasks; what libraries leak is returned with the process
POLL_S = 0.5
TIMEOUT, OUT_OF_MEMORY, WORKER_DIED = "timeout", "out-of-memory", "worker-died"
LIMIT_REASONS = (TIMEOUT, OUT_OF_MEMORY)  # another limit may change them
STARTUP_S = 120.0  # for a new child to import PyMuPDF and ONNX, before its task's own clock starts


@dataclass(frozen=True, slots=True)
class Task(Generic[K]):
    """One call of `function(argument, progress)` in a child; both must be picklable."""

    key: K
    function: Callable[[Any, Callable[[int], None]], Any]
    argument: Any
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task has no result; `reason` is a slug."""

    reason: str
    detail: str


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
        self.deadline = 0.0
        self.done = 0

    def start(self, task: Task[Any]) -> None:
        self.task = task
        self.deadline = time.monotonic() + STARTUP_S + task.timeout_s
        self.pipe.send((task.function, task.argument))

    def rss_bytes(self) -> int:
        """Resident memory now, 0 where the system does not tell."""
        try:
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

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

    def run(self, tasks: Iterable[Task[K]], progress: Callable[[int], None]) -> Iterator[Outcome[K]]:
        """Outcomes in the order of completion. `progress` receives what tasks report while they run.

        Raises:
            EngineError: a task met a fault that is not its document's (a full disk).
        """
        waiting = deque(tasks)
        while waiting or self._busy:
            while waiting and len(self._busy) < self._num_workers:
                child = self._idle.pop() if self._idle else _Child(self._context)
                try:
                    child.start(waiting[0])
                except OSError:  # it died while it had nothing to do
                    child.end()
                    continue
                waiting.popleft()
                self._busy.append(child)
            pipes = {child.pipe: child for child in self._busy}
            for pipe in wait(list(pipes), timeout=POLL_S):
                outcome = self._receive(pipes[pipe], progress)
                if outcome:
                    yield outcome
            for child in list(self._busy):
                failure = self._limit(child)
                if failure:
                    yield self._fail(child, failure)

    def _receive(self, child: _Child, progress: Callable[[int], None]) -> Outcome[Any] | None:
        assert child.task is not None
        try:
            kind, value = child.pipe.recv()
        except (EOFError, OSError):
            child.process.join(timeout=5)
            return self._fail(child, Failure(WORKER_DIED, _death(child.process.exitcode)))
        if kind == "started":
            child.deadline = time.monotonic() + child.task.timeout_s
            return None
        if kind == "progress":
            progress(value)
            return None
        if kind == "engine-error":
            raise EngineError(value)
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
        if time.monotonic() > child.deadline:
            return Failure(TIMEOUT, f"gave up after {child.task.timeout_s:.0f} s; raise workers.timeout_s")
        rss = child.rss_bytes()
        if rss > self._memory_bytes:
            limit = self._memory_bytes >> 20
            return Failure(OUT_OF_MEMORY, f"{rss >> 20} MB exceeds workers.memory_mb = {limit}")
        return None

    def _fail(self, child: _Child, failure: Failure) -> Outcome[Any]:
        assert child.task is not None
        child.end()
        self._busy.remove(child)
        return Outcome(child.task.key, failure)


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
