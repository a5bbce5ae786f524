"""One build at a time in a run directory on an object store, which knows no file locks.

The holder creates the lock file by a write that fails where there is one (S3 and GCS decide that atomically), rewrites
it with a growing number while it lives, and deletes it at the end. Who finds one that does not change for
`PATIENCE_S` takes it over, so a killed build blocks nobody; at once where the holder was a process of this machine
that is gone. No clocks are compared.

That is weaker than a file lock in one case: a holder that stood still, or could not reach the store, for longer than
`PATIENCE_S` may find its lock taken. It notices at its next beat and stops; what it wrote until then are whole files,
and what a partition contains depends on the inputs and settings alone, so the other build finds sound files or
overwrites them.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from corpus.errors import ConfigError, EngineError
from corpus.storage import RemoteError, RemotePath

BEAT_S = 10.0
PATIENCE_S = 45.0
SETTLE_S = 2.0  # for two that take over at the same time to see each other


class Lease:
    """A held lock. `check` says whether it still is."""

    def __init__(self, file: RemotePath, beat_s: float) -> None:
        self._file = file
        self._run = file.parent.parent
        self._beat_s = beat_s
        self._claim: dict[str, Any] = {"token": uuid.uuid4().hex, **_this_process()}
        self._ended = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def check(self) -> None:
        """Raises `EngineError` when another build has taken the lock."""
        if self._lost:
            raise EngineError(
                f"another build has taken over {self._run}, because this one did not reach it for a "
                "while; nothing is lost: let that one finish"
            )

    def take(self, patience_s: float) -> None:
        """Create the lock, or take over that of a dead build.

        Raises:
            ConfigError: a living build holds it.
        """
        while not self._is_mine(found := self._read()):
            if found is None:
                with suppress(FileExistsError):  # somebody was faster
                    self._file.write_bytes(self._content(0), create=True)
            elif _is_alive_here(found) or (not _is_gone(found) and self._changes(found, patience_s)):
                where = f"on {found['host']}, process {found['pid']}"
                raise ConfigError(
                    f"another build is running in {self._run} ({where}); wait for it or name another --out"
                )
            else:
                self._file.write_bytes(self._content(0))
                time.sleep(min(SETTLE_S, patience_s))
        self._thread.start()

    def release(self) -> None:
        """Delete the lock, if it is still ours."""
        self._ended.set()
        self._thread.join()
        with suppress(RemoteError):
            if not self._lost and self._is_mine(self._read()):
                self._file.unlink(missing_ok=True)

    def _changes(self, found: dict[str, Any], patience_s: float) -> bool:
        """True as soon as the lock is rewritten; False where it is not for so long, or is gone."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            time.sleep(min(1.0, patience_s / 4))
            now = self._read()
            if now != found:
                return now is not None
        return False

    def _keep(self) -> None:
        beat = 0
        while not self._ended.wait(self._beat_s):
            beat += 1
            with suppress(RemoteError):  # the store may answer at the next beat
                if not self._is_mine(self._read()):
                    self._lost = True
                    return
                self._file.write_bytes(self._content(beat))

    def _is_mine(self, found: dict[str, Any] | None) -> bool:
        return found is not None and found["token"] == self._claim["token"]

    def _content(self, beat: int) -> bytes:
        return json.dumps({**self._claim, "beat": beat}).encode()

    def _read(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self._file.read_bytes())
            return {"token": found["token"], **found, "host": str(found["host"]), "pid": int(found["pid"])}
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return {"token": "", "host": "an unknown machine", "pid": 0}


@contextmanager
def lease(file: RemotePath, beat_s: float = BEAT_S, patience_s: float = PATIENCE_S) -> Iterator[Lease]:
    """Hold the lock `file` while the context lasts.

    Raises:
        ConfigError: another build holds it.
    """
    held = Lease(file, beat_s)
    held.take(patience_s)
    try:
        yield held
    finally:
        held.release()


def _this_process() -> dict[str, Any]:
    """Who we are: `machine` tells apart containers too, `started` a process from a later one of the same number."""
    machine = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        machine = f"{boot} {os.readlink('/proc/self/ns/pid')}"
    pid = os.getpid()
    return {"host": os.uname().nodename, "machine": machine, "pid": pid, "started": _started(pid)}


def _started(pid: int) -> str:
    """When a process of this machine started, '' where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _is_here(other: dict[str, Any]) -> bool:
    machine = _this_process()["machine"]
    return bool(machine) and other.get("machine") == machine


def _is_alive_here(other: dict[str, Any]) -> bool:
    return _is_here(other) and _started(other["pid"]) == other.get("started") != ""


def _is_gone(other: dict[str, Any]) -> bool:
    return _is_here(other) and not _is_alive_here(other)
