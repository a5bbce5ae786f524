"""Worker processes: whatever a task does to its process, the others are done and the run goes on."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakes
import pytest

from corpus.errors import DocumentError, EngineError
from corpus.kills import OUTSIDE_KILLS, MemoryWatch, pause_s
from corpus.workers import (
    ALONE_AFTER,
    ATTEMPTS,
    CRASHED,
    KILLED,
    KILLED_FOR_MEMORY,
    OUT_OF_MEMORY,
    TIMEOUT,
    WORKER_DIED,
    Failure,
    Task,
    WorkerPool,
)

MEMORY_MB = 400
LONG_S = 60.0


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    """One pool for the tests that leave it usable; a spawned process costs a quarter of a second."""
    with WorkerPool(2, memory_mb=MEMORY_MB) as shared:
        yield shared


def run(pool: WorkerPool, *tasks: Task[Any], pages: list[int] | None = None) -> dict[Any, Any]:
    progress = (lambda _: None) if pages is None else pages.append
    return {outcome.key: outcome.value for outcome in pool.run(tasks, progress)}


def task(key: Any, function: Any, argument: Any = None, timeout_s: float = LONG_S) -> Task[Any]:
    return Task(key, function, argument, timeout_s)


def is_running(pid: int) -> bool:
    """False for a process that is gone, and for one that is dead but was not yet reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def eventually(condition: Any, within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_every_task_gives_its_value_and_its_progress(pool: WorkerPool) -> None:
    pages: list[int] = []
    assert run(pool, *(task(i, fakes.double, i) for i in range(7)), pages=pages) == {i: 2 * i for i in range(7)}
    assert pages == [1] * 7


def test_no_task_is_no_work(pool: WorkerPool) -> None:
    assert run(pool) == {}


def test_processes_live_through_the_build(pool: WorkerPool) -> None:
    first = set(run(pool, *(task(i, fakes.say_pid) for i in range(6))).values())
    second = set(run(pool, *(task(i, fakes.say_pid) for i in range(6))).values())
    assert len(first | second) <= 2
    assert os.getpid() not in first


def test_a_task_that_fails_costs_itself_alone(pool: WorkerPool) -> None:
    failing = {
        "crash": task("crash", fakes.crash),
        "leave": task("leave", fakes.leave, 3),
        "hang": task("hang", fakes.hang, "", timeout_s=1.5),
        "eat": task("eat", fakes.eat_memory, 2 * MEMORY_MB),
        "allocation": task("allocation", fakes.raise_memory_error),
        "bug": task("bug", fakes.raise_value_error, "wrong"),
        "document": task("document", fakes.refuse, ("encrypted", "needs a password")),
    }
    good = [task(i, fakes.double, i) for i in range(len(failing))]
    mixed = [t for pair in zip(failing.values(), good, strict=True) for t in pair]
    done = run(pool, *mixed)
    assert {k: done.pop(k) for k in range(len(good))} == {i: 2 * i for i in range(len(good))}
    assert {k: v.reason for k, v in done.items()} == {
        "crash": WORKER_DIED,
        "leave": WORKER_DIED,
        "hang": TIMEOUT,
        "eat": OUT_OF_MEMORY,
        "allocation": OUT_OF_MEMORY,
        "bug": "internal-error",
        "document": "encrypted",
    }
    assert done["crash"].detail == "killed by SIGSEGV while it handled the document"
    assert done["leave"].detail == "exited with code 3 while it handled the document"
    assert done["hang"].detail == "gave up after 2 s; raise workers.timeout_s"
    assert f"exceeds workers.memory_mb = {MEMORY_MB}" in done["eat"].detail
    assert done["bug"].detail == "ValueError: wrong"
    assert done["document"] == Failure("encrypted", "needs a password")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_kills_from_outside_cost_nothing_but_time(pool: WorkerPool, tmp_path: Path, number: signal.Signals) -> None:
    pages: list[int] = []
    kills = 2 * ATTEMPTS[CRASHED]
    killed = task(0, fakes.die_at_first, (tmp_path / "runs", kills, number))
    assert run(pool, killed, pages=pages) == {0: kills + 1}
    assert pages == [1, -1] * kills + [1]  # what the dead process had reported is taken back


def test_kills_do_not_use_up_the_attempts_of_a_crash(pool: WorkerPool, tmp_path: Path) -> None:
    """And the other way round: one crash and many kills end well."""
    file, crashes = tmp_path / "runs", ATTEMPTS[CRASHED] - 1
    assert run(pool, task(0, fakes.die_at_first, (file, crashes, signal.SIGSEGV))) == {0: crashes + 1}
    failure = run(pool, task(0, fakes.die_at_first, (tmp_path / "more", crashes + 1, signal.SIGSEGV)))[0]
    assert failure == Failure(WORKER_DIED, "killed by SIGSEGV while it handled the document", pages_done=1)


def test_who_is_killed_without_end_is_given_up(
    pool: WorkerPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ATTEMPTS, KILLED, 4)
    failure = run(pool, task(0, fakes.die_at_first, (tmp_path / "runs", 99, signal.SIGKILL)))[0]
    how = "killed by SIGKILL while it handled the document, from outside, 4 times"
    assert failure == Failure(WORKER_DIED, how, pages_done=1)
    assert len((tmp_path / "runs").read_text().splitlines()) == 4
    assert sum(map(pause_s, range(1, OUTSIDE_KILLS))) < 60


def test_a_task_that_is_killed_again_and_again_runs_alone(tmp_path: Path) -> None:
    others = [task(i, fakes.run_beside, (tmp_path, f"other-{i}", 0)) for i in range(12)]
    with WorkerPool(3, memory_mb=MEMORY_MB) as own:
        done = run(own, task("killed", fakes.run_beside, (tmp_path, "killed", ALONE_AFTER)), *others)
    assert done.pop("killed") == []
    assert len(done) == len(others) and any(done.values())  # the others ran together


def test_a_machine_without_memory_is_not_asked_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryWatch, "is_short", lambda _: True)
    monkeypatch.setitem(ATTEMPTS, KILLED_FOR_MEMORY, 2)
    killed = task("killed", fakes.run_beside, (tmp_path, "killed", 99))
    with WorkerPool(2, memory_mb=MEMORY_MB) as own:
        done = run(own, killed, *(task(i, fakes.run_beside, (tmp_path, f"other-{i}", 0)) for i in range(4)))
        once = run(own, task("once", fakes.run_beside, (tmp_path, "once", 1)), task(0, fakes.double, 1))
    assert done["killed"].reason == WORKER_DIED
    assert done["killed"].detail.endswith("2 times, by the kernel: the machine has too little memory for one worker")
    assert once == {"once": [], 0: 2}


def test_the_kernel_says_when_it_kills_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = tmp_path / "vmstat"
    monkeypatch.setattr("corpus.kills.VMSTAT", counter)
    counter.write_text("nr_free_pages 7\noom_kill 3\nballoon_inflate 0\n")
    watch = MemoryWatch()
    assert not watch.is_short()
    counter.write_text("nr_free_pages 7\noom_kill 4\nballoon_inflate 0\n")
    assert watch.is_short() and watch.is_short()
    monkeypatch.setattr("corpus.kills.MEMORY_RECENT_S", 0.0)
    assert not watch.is_short()
    counter.unlink()  # another system
    assert not MemoryWatch().is_short()


def test_a_task_that_stands_still_is_given_up_before_its_time(pool: WorkerPool) -> None:
    still = Task("still", fakes.stand_still, 3, LONG_S, stall_s=1.0)
    failure = run(pool, still)["still"]
    assert failure == Failure(TIMEOUT, "gave up after 1 s; raise workers.timeout_s", pages_done=3)


def test_tasks_are_taken_when_there_is_a_worker_for_them(pool: WorkerPool) -> None:
    taken: list[int] = []

    def tasks() -> Iterator[Task[Any]]:
        for i in range(8):
            taken.append(i)
            yield task(i, fakes.double, i)

    outcomes = pool.run(tasks(), lambda _: None)
    next(outcomes)
    assert len(taken) <= 4  # a failure can still keep the rest from being begun
    assert len(list(outcomes)) == 7


def test_work_may_come_late_and_in_between(pool: WorkerPool) -> None:
    waiting: deque[Task[Any]] = deque()
    found: list[tuple[str, int]] = []

    def tasks() -> Iterator[Task[Any] | None]:
        yield None
        yield task("first", fakes.double, 1)
        while len(found) < 2:
            yield waiting.popleft() if waiting else None

    for outcome in pool.run(tasks(), lambda _: None):
        found.append((outcome.key, outcome.value))
        if outcome.key == "first":  # the answer to one task brings the next
            waiting.append(task("second", fakes.double, 2))
    assert found == [("first", 2), ("second", 4)]


def test_the_pool_is_as_good_as_new_after_failures(pool: WorkerPool) -> None:
    run(pool, *(task(i, fakes.crash) for i in range(2)))
    assert run(pool, *(task(i, fakes.double, i) for i in range(4))) == {i: 2 * i for i in range(4)}


def test_a_fault_of_the_outside_ends_the_run(tmp_path: Path) -> None:
    with WorkerPool(2, memory_mb=MEMORY_MB) as own:
        pid_file = tmp_path / "pid"
        with pytest.raises(EngineError, match="the disk is full"):
            run(own, task(0, fakes.hang, pid_file), task(1, fakes.engine_fault, "the disk is full"))
        assert eventually(lambda: pid_file.is_file() and pid_file.read_text())
        pid = int(pid_file.read_text())
        assert is_running(pid)
    assert not is_running(pid)  # leaving the pool ends its processes


def test_a_process_is_replaced_after_a_number_of_tasks() -> None:
    with WorkerPool(1, memory_mb=MEMORY_MB, recycle_after=2) as own:
        pids = list(run(own, *(task(i, fakes.say_pid) for i in range(4))).values())
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_workers_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = (
        "import sys\nimport fakes\nfrom corpus.workers import Task, WorkerPool\n"
        "with WorkerPool(2, memory_mb=400) as pool:\n"
        "    list(pool.run([Task(i, fakes.hang, f'{sys.argv[1]}/{i}', 600.0) for i in range(2)], print))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen([sys.executable, "-c", parent, str(tmp_path)], env=environment)
    try:
        files = [tmp_path / "0", tmp_path / "1"]
        assert eventually(lambda: all(f.is_file() and f.read_text() for f in files), within_s=30)
        pids = [int(f.read_text()) for f in files]
        assert all(map(is_running, pids))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert eventually(lambda: not any(map(is_running, pids)))
    finally:
        process.kill()
        process.wait()


def test_an_error_of_a_document_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(DocumentError("encrypted", "needs a password")))
    assert (error.reason, error.detail, str(error)) == ("encrypted", "needs a password", "encrypted: needs a password")
    assert str(DocumentError("encrypted")) == "encrypted"
