"""Does a build that is killed at any moment end with the same bytes? Kills the build or one of its workers, and counts.

    python benchmarks/check_kills.py INPUT... [--kills 20] [--seed 0] [--set key=value]

One build runs undisturbed. A second one is hit by `kill -9` at random moments, the whole process or one of its workers
in turn, and is started again with the same command whenever it died, until all kills were spent and it finished; if it
finishes too soon, it begins anew in an empty folder. Every file that a build promises must be equal, and no process or
temporary file may be left.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROMISED = (
    "shards/*", "plan/*", "pages/*", "questions/*", "ledger.parquet", "samples.parquet", "mixture*", "rejected.parquet"
)  # fmt: skip


def start(inputs: list[str], out: Path, settings: list[str]) -> subprocess.Popen[bytes]:
    chosen = [text for setting in settings for text in ("--set", setting)]
    command = [sys.executable, "-m", "corpus.cli", "build", *inputs, "--out", str(out), "--workers", "2", "--quiet"]
    return subprocess.Popen([*command, *chosen])


def workers_of(pid: int) -> list[int]:
    try:
        found = [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return [p for p in found if b"spawn_main" in Path(f"/proc/{p}/cmdline").read_bytes()]
    except OSError:
        return []


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def bytes_of(run: Path) -> dict[str, str]:
    files = [f for pattern in PROMISED for f in run.glob(pattern)]
    return {str(f.relative_to(run)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def disturbed(inputs: list[str], out: Path, settings: list[str], seconds: float, kills: int, seed: int) -> list[str]:
    """Build under `kills` kills; returns what was hit, and the ids of every worker that was seen are checked."""
    draw, hit, seen = random.Random(seed), [], set[int]()
    while True:
        process = start(inputs, out, settings)
        moment = time.monotonic() + draw.uniform(0.3, max(0.6, 0.4 * seconds))
        while process.poll() is None:
            time.sleep(0.05)
            workers = workers_of(process.pid)
            seen.update(workers)
            of_worker = len(hit) % 2 == 1
            if len(hit) == kills or time.monotonic() < moment or (of_worker and not workers):
                continue
            victim = draw.choice(workers) if of_worker else process.pid
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue
            hit.append("build" if victim == process.pid else "worker")
            moment = time.monotonic() + draw.uniform(0.3, max(0.6, 0.4 * seconds))
        if process.returncode == 0 and len(hit) == kills:
            time.sleep(1)
            left = [pid for pid in seen if is_running(pid)]
            assert not left, f"processes {left} outlived their build"
            return hit
        assert process.returncode in (0, -signal.SIGKILL), f"exit code {process.returncode}"
        if process.returncode == 0:
            shutil.rmtree(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("inputs", nargs="+")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", dest="settings", action="append", default=[])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        calm, hit = Path(folder) / "calm", Path(folder) / "hit"
        began = time.monotonic()
        assert start(args.inputs, calm, args.settings).wait() == 0
        seconds = time.monotonic() - began
        print(f"undisturbed: {seconds:.1f} s, {len(bytes_of(calm))} files", flush=True)
        victims = disturbed(args.inputs, hit, args.settings, seconds, args.kills, args.seed)
        assert bytes_of(calm) == bytes_of(hit), "the killed build ended with other bytes"
        left = [str(f) for f in hit.rglob("*.tmp")]
        assert not left, f"temporary files are left: {left}"
        of_workers = victims.count("worker")
        print(f"{len(victims)} kills, {of_workers} of a worker and the others of the build: equal bytes, nothing left")


if __name__ == "__main__":
    main()
