"""Does a build whose processes are killed at any moment end with the same bytes? Kills, starts again, and compares.

    python benchmarks/check_kills.py INPUT... [--only-workers] [--kills 20] [--seed 0] [--set key=value]

One build runs undisturbed. A second one is hit by `kill -9` at random moments: in turn the build itself and any other
process of its tree (workers, Poppler, an OCR server, Python's resource tracker), or with `--only-workers` never the
build itself. It is started again with the same command when it died, which with `--only-workers` it must not; if it
finishes before all kills were spent, it begins anew in an empty folder, and every finished run is compared. All files
that a build promises must be equal, every exit code 0 or that of our kill, and no process and no temporary file may be
left. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from corpus.ingest import expand_inputs
from corpus.render import VERSION
from corpus.rundir import available_cores

PROMISED = (
    "shards/*", "plan/*", "pages/*", "questions/*", "ledger.parquet", "samples.parquet", "mixture*", "rejected.parquet"
)  # fmt: skip
BUILD = "build"
PYTHON_PROCESSES = {b"spawn_main": "worker", b"resource_tracker": "resource tracker", b"paddle_server": "PaddleOCR"}


class Builds:
    """The same build, as often as it takes."""

    def __init__(self, inputs: list[str], settings: list[str], scratch: Path) -> None:
        self._inputs, self._settings = inputs, [text for setting in settings for text in ("--set", setting)]
        self.scratch = scratch
        self.started = 0

    def start(self, out: Path) -> subprocess.Popen[bytes]:
        self.started += 1
        command = [sys.executable, "-m", "corpus.cli", "build", *self._inputs, "--out", str(out), "--workers", "2"]
        return subprocess.Popen([*command, "--quiet", *self._settings], env=os.environ | {"TMPDIR": str(self.scratch)})


def tree_of(pid: int) -> list[int]:
    """Every living descendant of a process."""
    found = []
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            children = [int(child) for child in (thread / "children").read_text().split()]
            found += [p for child in children for p in (child, *tree_of(child))]
    except OSError:  # it ended meanwhile
        pass
    return found


def kind_of(pid: int) -> str:
    """What a process of the tree is; '' where it is gone."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    known = (kind for mark, kind in PYTHON_PROCESSES.items() if mark in command)
    return next(known, Path(os.fsdecode(command.split(b"\0")[0])).name)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def bytes_of(run: Path) -> dict[str, str]:
    files = [f for pattern in PROMISED for f in run.glob(pattern)]
    return {str(f.relative_to(run)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def disturb(
    builds: Builds, out: Path, expected: dict[str, str], pause_s: float, kills: int, seed: int, only_workers: bool
) -> Counter[str]:
    """Build under `kills` kills; returns what was hit. Every finished run has the expected bytes, or this fails."""
    draw, hit, seen = random.Random(seed), Counter[str](), set[int]()
    while True:
        process = builds.start(out)
        moment = time.monotonic() + draw.uniform(0.3, pause_s)
        while process.poll() is None:
            time.sleep(0.02)
            tree = tree_of(process.pid)
            seen.update(tree)
            if hit.total() == kills or time.monotonic() < moment:
                continue
            of_tree = only_workers or hit.total() % 2 == 1
            victim = draw.choice(tree or [0]) if of_tree else process.pid
            kind = BUILD if victim == process.pid else kind_of(victim)
            if not victim or not kind or not is_running(victim):
                continue
            os.kill(victim, signal.SIGKILL)
            hit[kind] += 1
            moment = time.monotonic() + draw.uniform(0.3, pause_s)
        allowed = (0,) if only_workers else (0, -signal.SIGKILL)
        assert process.returncode in allowed, f"exit code {process.returncode} after {dict(hit)}"
        if process.returncode == 0:
            found = bytes_of(out)
            different = sorted(name for name, _ in expected.items() ^ found.items())
            assert not different, f"other bytes after {dict(hit)}: {different}"
            if hit.total() == kills:
                break
            shutil.rmtree(out)
    time.sleep(1)
    left = [pid for pid in seen if is_running(pid)]
    assert not left, f"processes {left} outlived their build"
    return hit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("inputs", nargs="+")
    parser.add_argument("--only-workers", action="store_true")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", dest="settings", action="append", default=[])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        calm, hit, scratch = (Path(folder) / name for name in ("calm", "hit", "tmp"))
        scratch.mkdir()
        builds = Builds(args.inputs, args.settings, scratch)
        began = time.monotonic()
        assert builds.start(calm).wait() == 0
        calm_s = time.monotonic() - began
        expected = bytes_of(calm)
        builds.started = 0
        began = time.monotonic()
        pause_s = max(0.6, calm_s / 10)
        victims = disturb(builds, hit, expected, pause_s, args.kills, args.seed, args.only_workers)
        hit_s = time.monotonic() - began
        left = [str(f) for f in (*hit.rglob("*.tmp"), *scratch.iterdir())]
        assert not left, f"temporary files are left: {left}"
    result = {
        "settings": args.settings,
        "only_workers": args.only_workers,
        "files": len(expand_inputs(args.inputs)),
        "kills": dict(victims.most_common()),
        "starts": builds.started,
        "equal_files": len(expected),
        "seconds": round(hit_s),
        "undisturbed_seconds": round(calm_s),
        "versions": {"pymupdf": VERSION, "python": platform.python_version()},
        "machine": f"{platform.machine()}, {available_cores()} cores",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
