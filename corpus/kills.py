"""Processes that somebody else killed: an operator, a scheduler, or the kernel when memory runs out.

A process that dies by itself says something about what it was doing, and is soon given up. One that is killed from
outside says nothing: its work is done again, after a pause that doubles, and only after `OUTSIDE_KILLS` times is it
given up, because then whatever kills will not stop. We know which processes we killed ourselves, so any other death by
`OUTSIDE_SIGNALS` came from outside; no library ends its process by these.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

OUTSIDE_SIGNALS = (signal.SIGKILL, signal.SIGTERM)
OUTSIDE_KILLS = 50  # at one piece of work
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0  # in all less than a worker may stand still
MEMORY_RECENT_S = 10.0  # a process of many gigabytes needs seconds to end
VMSTAT = Path("/proc/vmstat")


class Killed(Exception):
    """A process was killed from outside; says how."""


def is_outside_kill(exit_code: int | None) -> bool:
    """Whether a process that we did not kill was killed from outside, by its exit code (-N = by signal N)."""
    return exit_code is not None and -exit_code in OUTSIDE_SIGNALS


def how_it_ended(exit_code: int | None) -> str:
    """An exit code in words."""
    if exit_code is not None and exit_code < 0:
        known = {s.value: s.name for s in signal.Signals}
        return f"killed by {known.get(-exit_code, f'signal {-exit_code}')}"
    return f"exited with code {exit_code}"


def pause_s(kills: int) -> float:
    """Seconds to wait after the first, second, ... kill."""
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(kills - 1, 16))


def undisturbed(call: Callable[[], T]) -> T:
    """What `call` returns; it is called again when it raises `Killed`.

    Raises:
        Killed: it did so `OUTSIDE_KILLS` times.
    """
    kills = 0
    while True:
        try:
            return call()
        except Killed as e:
            kills += 1
            if kills >= OUTSIDE_KILLS:
                raise Killed(f"{e} {kills} times, from outside") from None
        time.sleep(pause_s(kills))


class MemoryWatch:
    """Whether the kernel has killed processes of late because memory ran out; on the whole machine, as it counts."""

    def __init__(self) -> None:
        self._kills = _kernel_kills()
        self._moment = -math.inf  # of the last look that found more, time.monotonic()

    def is_short(self) -> bool:
        """Look; to be called several times in `MEMORY_RECENT_S`."""
        kills, now = _kernel_kills(), time.monotonic()
        if kills != self._kills:
            self._kills, self._moment = kills, now
        return now - self._moment < MEMORY_RECENT_S


def _kernel_kills() -> int:
    """Processes killed for want of memory since the machine started; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in VMSTAT.read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
