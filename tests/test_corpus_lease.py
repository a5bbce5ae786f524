"""The lock of a run directory behind a URL: one build at a time, and none that is dead."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

import pytest

from corpus.config import StorageSettings
from corpus.errors import ConfigError, EngineError
from corpus.lease import Lease, lease
from corpus.storage import RemotePath

SETTINGS = StorageSettings(timeout_s=2, attempts=3, backoff_s=0.01)


@pytest.fixture
def lock(bucket: str) -> RemotePath:
    return RemotePath(f"{bucket}/run/.state/lock", SETTINGS)


def foreign(**changes: Any) -> bytes:
    """The lock of a build on another machine."""
    claim = {"token": "another", "host": "elsewhere", "machine": "another boot", "pid": 7, "started": "1", "beat": 0}
    return json.dumps({**claim, **changes}).encode()


def test_it_is_held_and_given_back(lock: RemotePath) -> None:
    with lease(lock) as held:
        held.check()
        assert json.loads(lock.read_bytes())["pid"] == os.getpid()
    assert not lock.is_file()


def test_a_living_build_of_this_machine_is_named_at_once(lock: RemotePath) -> None:
    started = time.monotonic()
    says = rf"is running in .*/run \(on .*, process {os.getpid()}\)"
    with lease(lock), pytest.raises(ConfigError, match=says), lease(lock, patience_s=60):
        pass
    assert time.monotonic() - started < 30


def test_a_dead_build_of_this_machine_is_replaced_at_once(lock: RemotePath) -> None:
    program = (
        "import os\nfrom corpus.lease import lease\nfrom corpus.storage import RemotePath\n"
        "from corpus.config import StorageSettings\n"
        f"with lease(RemotePath('{lock}', StorageSettings())): os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 9
    assert lock.is_file()
    started = time.monotonic()
    with lease(lock, patience_s=60):
        assert json.loads(lock.read_bytes())["pid"] == os.getpid()
    assert time.monotonic() - started < 30


def test_a_build_elsewhere_is_dead_when_its_lock_stands_still(lock: RemotePath) -> None:
    lock.write_bytes(foreign())
    with lease(lock, patience_s=0.2):
        assert json.loads(lock.read_bytes())["pid"] == os.getpid()


def test_a_build_elsewhere_lives_while_its_lock_changes(lock: RemotePath, monkeypatch: pytest.MonkeyPatch) -> None:
    lock.write_bytes(foreign())
    read = Lease._read
    beats = iter(range(1, 100))

    def read_as_it_beats(self: Lease) -> dict[str, Any] | None:
        lock.write_bytes(foreign(beat=next(beats)))
        return read(self)

    monkeypatch.setattr(Lease, "_read", read_as_it_beats)
    with pytest.raises(ConfigError, match="on elsewhere, process 7"), lease(lock, patience_s=60):
        pass


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"token": 1, "host": 2, "pid": "x"}'])
def test_a_damaged_lock_is_replaced(lock: RemotePath, content: bytes) -> None:
    lock.write_bytes(content)
    with lease(lock, patience_s=0.1) as held:
        held.check()


def test_who_lost_the_lock_stops_and_leaves_it(lock: RemotePath) -> None:
    with lease(lock, beat_s=0.05) as held:
        lock.write_bytes(foreign())
        deadline = time.monotonic() + 20
        with pytest.raises(EngineError, match="another build has taken over"):
            while time.monotonic() < deadline:
                held.check()
                time.sleep(0.02)
    assert json.loads(lock.read_bytes())["token"] == "another"


def test_a_living_lock_changes(lock: RemotePath) -> None:
    with lease(lock, beat_s=0.05):
        first = lock.read_bytes()
        deadline = time.monotonic() + 20
        while lock.read_bytes() == first and time.monotonic() < deadline:
            time.sleep(0.02)
        assert lock.read_bytes() != first
