"""Worker processes that a bad document cannot take down with it.

Each task runs in a child process that is killed when it exceeds its time or memory, or stands still, and replaced when
it dies; the task then ends as a `Failure` and the run goes on. A crash is tried again before anybody is blamed, and a
kill from outside, which says nothing about the task, many times (`corpus.kills`). Where the kernel kills because memory
is short, or somebody does again and again, the task is run alone. Processes are spawned, not forked (ONNX and MuPDF
keep threads), live through the whole build, so that their imports are paid once, and die with their parent.

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
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Generic, TypeVar

from corpus.errors import DocumentError, EngineError, LongdocError
from corpus.kills import OUTSIDE_KILLS, MemoryWatch, how_it_ended, is_outside_kill, pause_s

K = TypeVar("K")

POLL_S = 0.1  # what a decompression bomb can take between two looks is a few hundred megabytes
IDLE_S = 0.01  # between two looks for a new task, while there is none
END: Any = object()
CRASHED, KILLED, KILLED_FOR_MEMORY = "crashed", "killed", "killed-for-memory"
ATTEMPTS = {CRASHED: 3, KILLED: OUTSIDE_KILLS, KILLED_FOR_MEMORY: 10}  # of a task, by how its process died
ALONE_AFTER = 3  # kills; not everybody who kills for want of memory is the kernel, which says so
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


@dataclass(frozen=True, slots=True, eq=False)
class _Attempt(Generic[K]):
    """A task to run, how often its process died, and when it may begin (`time.monotonic()`)."""

    task: Task[K]
    deaths: Counter[str] = field(default_factory=Counter)
    not_before: float = 0.0

    @property
    def alone(self) -> bool:
        """Whether nothing should run beside it."""
        return self.deaths[KILLED_FOR_MEMORY] > 0 or self.deaths[KILLED] >= ALONE_AFTER


class _Child:
    """One process and the pipe to it."""

    def __init__(self, context: Any) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, os.getpid()), daemon=True)
        on_interrupt = _ignore_interrupts()  # Ctrl-C is the parent's to handle, also while the child still imports
        self.process.start()
        _restore_interrupts(on_interrupt)
        theirs.close()
        self.attempt: _Attempt[Any]
        self.deadline = self.stalled = 0.0  # moments at which the task is given up
        self.pages_done = 0  # of the task
        self.done = 0  # tasks

    @property
    def task(self) -> Task[Any]:
        return self.attempt.task

    def start(self, attempt: _Attempt[Any]) -> None:
        self.attempt, self.pages_done = attempt, 0
        self.deadline = self.stalled = time.monotonic() + STARTUP_S + self.task.timeout_s
        self.pipe.send((self.task.function, self.task.argument))

    def end(self) -> None:
        """Kill the process, if it runs."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


class WorkerPool:
    """`num_workers` child processes, replaced after `recycle_after` tasks. A context manager: leaving it ends them."""

    def __init__(self, num_workers: int, memory_mb: int, recycle_after: int = 200) -> None:
        self._memory_bytes = memory_mb * 2**20
        self._num_workers = num_workers
        self._recycle_after = recycle_after
        self._memory = MemoryWatch()
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
        fresh, again, more = iter(tasks), list[_Attempt[K]](), True
        while True:
            while self._has_room():
                attempt = _first_ready(again, time.monotonic())
                if attempt is not None:
                    if attempt.alone and self._busy:
                        break
                    again.remove(attempt)
                elif more and (taken := next(fresh, END)) is not None:
                    if taken is END:
                        more = False
                        continue
                    attempt = _Attempt(taken)
                else:
                    break
                self._busy.append(self._started(attempt))
            self._memory.is_short()  # it has to look often
            if not self._busy:
                if not more and not again:
                    return
                time.sleep(IDLE_S)
                continue
            pipes = {child.pipe: child for child in self._busy}
            for pipe in wait(list(pipes), timeout=POLL_S):
                child = pipes[pipe]
                try:
                    message = child.pipe.recv()
                except (EOFError, OSError):
                    verdict = self._bury(child)
                    if isinstance(verdict, Failure):
                        yield Outcome(child.task.key, replace(verdict, pages_done=child.pages_done))
                    else:
                        progress(-child.pages_done)
                        again.append(verdict)
                    continue
                outcome = self._receive(child, message, progress)
                if outcome:
                    yield outcome
            for child in list(self._busy):
                failure = self._limit(child)
                if failure:
                    yield self._fail(child, failure)

    def _has_room(self) -> bool:
        return len(self._busy) < self._num_workers and not any(child.attempt.alone for child in self._busy)

    def _started(self, attempt: _Attempt[K]) -> _Child:
        """A child that has begun with the task."""
        while True:
            child = self._idle.pop() if self._idle else _Child(self._context)
            try:
                child.start(attempt)
                return child
            except OSError:  # it died while it had nothing to do
                child.end()

    def _bury(self, child: _Child) -> _Attempt[Any] | Failure:
        """Remove a dead child; what becomes of its task."""
        child.process.join(timeout=5)
        verdict = _verdict(child.attempt, child.process.exitcode, self._memory.is_short(), time.monotonic())
        child.end()
        self._busy.remove(child)
        return verdict

    def _receive(self, child: _Child, message: tuple[str, Any], progress: Callable[[int], None]) -> Outcome[Any] | None:
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
        child.done += 1
        self._busy.remove(child)
        if child.done >= self._recycle_after:
            child.end()
        else:
            self._idle.append(child)
        return Outcome(child.task.key, value)

    def _limit(self, child: _Child) -> Failure | None:
        """The limit that a busy child exceeds, if any."""
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
        child.end()
        self._busy.remove(child)
        return Outcome(child.task.key, failure)


def _first_ready(again: Sequence[_Attempt[K]], now: float) -> _Attempt[K] | None:
    """The attempt to begin next; one that runs alone first, or it would wait until there is nothing else."""
    ready = [attempt for attempt in again if attempt.not_before <= now]
    return min(ready, key=lambda attempt: not attempt.alone, default=None)


def _verdict(attempt: _Attempt[K], exit_code: int | None, memory_is_short: bool, now: float) -> _Attempt[K] | Failure:
    """What becomes of a task whose process died: another attempt, or its end."""
    kind = KILLED if is_outside_kill(exit_code) else CRASHED
    if exit_code == -signal.SIGKILL and memory_is_short:
        kind = KILLED_FOR_MEMORY
    deaths = attempt.deaths + Counter([kind])
    if deaths[kind] < ATTEMPTS[kind]:
        pause = 0.0 if kind == CRASHED else pause_s(deaths[KILLED] + deaths[KILLED_FOR_MEMORY])
        return _Attempt(attempt.task, deaths, now + pause)
    how = f"{how_it_ended(exit_code)} while it handled the document"
    if kind == KILLED:
        how += f", from outside, {deaths[kind]} times"
    if kind == KILLED_FOR_MEMORY:
        how += f", {deaths[kind]} times, by the kernel: the machine has too little memory for one worker"
    return Failure(WORKER_DIED, how)


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
