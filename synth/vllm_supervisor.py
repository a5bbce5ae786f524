"""Runs a command with all that it starts, and leaves none of it behind, however the process that asked for it ends.

    python -I vllm_supervisor.py PARENT_PID GRACE_S COMMAND...

vLLM starts engine processes, which may outlive it and keep a GPU's memory. This process leads a process group of its
own that holds them all, adopts those whose parents die, and ends them when its standard input ends (the parent is
gone, even by kill -9), when it is told to by a signal, or when the command itself ends: first SIGTERM, then SIGKILL
after the grace time. It exits when nothing is left, with the command's exit code, or 128 + N for signal N, as a shell,
whether the command got it or this process. Temporary files are in a folder that ends with it: vLLM leaves its sockets
there, some at every start. The folder is locked as long as this process lives, so that the next start can tell what a
killed one left.

Standard library only, because it must start fast and never fail.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

POLL_S = 0.1
SCRATCH = "longdoc-vllm-"
CANNOT_RUN = 126  # exit code, as a shell's
_LIBC = ctypes.CDLL(None)  # loaded here, because between fork and exec little may be done
_SET_PARENT_DEATH_SIGNAL, _SET_CHILD_SUBREAPER = 1, 36


def supervise(parent: int, grace_s: float, command: list[str]) -> int:
    """Run the command until it ends or nobody wants it any more; the exit code, 0 when its input ended."""
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: told.append(number))
    if sys.platform == "linux":
        _LIBC.prctl(_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != parent:
        return 0
    die = functools.partial(_die_with, os.getpid())
    with _scratch_folder() as scratch:
        environment = {**os.environ, "TMPDIR": scratch}
        try:
            server = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, preexec_fn=die)
        except OSError as e:
            print(f"cannot run {command[0]}: {e.strerror}", file=sys.stderr)  # noqa: T201 (the log is where it goes)
            return CANNOT_RUN
        code = None
        while code is None and not told and os.getppid() == parent and not _input_ended():
            code = (_reap() or {}).get(server.pid)
        _end_all(grace_s)
    if code is None:
        return 128 + told[0] if told else 0
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _scratch_folder() -> Iterator[str]:
    """A new folder for temporary files; those of supervisors that were killed are removed.

    It lies in the system's folder because a socket's path may have 107 bytes.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*"):
        if (lock := _locked(left)) is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(lock)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=SCRATCH))
        if (lock := _locked(folder)) is not None and folder.exists():
            break  # else another start took it for a leftover
    try:
        yield str(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked(folder: Path) -> int | None:
    """A descriptor that locks a folder of ours while it is open, None where another process holds it, or it is gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # another user's, or no folder
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _input_ended() -> bool:
    """Whether the parent closed the pipe, into which it never writes; waits a moment to see."""
    return bool(select.select([sys.stdin], [], [], POLL_S)[0])


def _reap() -> dict[int, int] | None:
    """Exit codes of the processes that ended since the last call; None when there is none left, running or ended."""
    ended = {}
    try:
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = os.waitstatus_to_exitcode(found[1])
    except ChildProcessError:
        return ended or None
    return ended


def _end_all(grace_s: float) -> None:
    """End every process that the command left, and wait until none is there."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the group holds this process too
    os.killpg(0, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while _reap() is not None:
        if time.monotonic() >= deadline:
            _kill_children()
        time.sleep(POLL_S / 5)


def _kill_children() -> None:
    """Kill the processes whose parent this one is; theirs become its own when they are dead."""
    try:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    except OSError:  # not Linux: the group as a whole, this process with it
        os.killpg(0, signal.SIGKILL)
        return
    for child in children:
        os.kill(int(child), signal.SIGKILL)  # it cannot be gone: only this process reaps it


def _die_with(parent: int) -> None:
    """In the new process: be killed when this one is."""
    if sys.platform == "linux":
        _LIBC.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


if __name__ == "__main__":
    sys.exit(supervise(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
