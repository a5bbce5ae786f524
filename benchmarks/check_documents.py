"""Does a build account for every file of some folders, in bounded memory and time, and leave nothing behind?

    python benchmarks/check_documents.py FOLDER... [--set key=value]

Builds a corpus from every PDF of the folders and watches it: the exit code must be 0, every path must be in the ledger
exactly once, `corpus lint` must pass, and no process or temporary file of the build may be left. Prints the
ends by reason, seconds, and the largest memory that one process and all of them together had (resident, sampled five
times a second).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from corpus.ingest import expand_inputs
from corpus.records import LedgerEntry
from corpus.render import VERSION
from corpus.rundir import available_cores
from corpus.store import read_records

CORPUS = (sys.executable, "-m", "corpus.cli")


def session_of(leader: int) -> dict[int, int]:
    """Resident bytes of the running processes of a session, by process id."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found[int(stat.parent.name)] = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    return found


def watch(command: list[str], environment: dict[str, str]) -> tuple[int, int, int, set[int]]:
    """Exit code, largest memory of one process and of all (bytes), and the processes left after two seconds."""
    process = subprocess.Popen(command, start_new_session=True, env=environment)
    one = together = 0
    while process.poll() is None:
        memory = session_of(process.pid)
        one, together = max(one, *memory.values(), 0), max(together, sum(memory.values()))
        time.sleep(0.2)
    time.sleep(2)
    return process.returncode, one, together, set(session_of(process.pid))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    args = parser.parse_args()
    inputs = [s.uri for s in expand_inputs(args.folders)]
    chosen = [text for setting in args.settings for text in ("--set", setting)]
    with tempfile.TemporaryDirectory() as folder:
        run, scratch = Path(folder) / "run", Path(folder) / "tmp"
        scratch.mkdir()
        build = [*CORPUS, "build", *args.folders, "--out", str(run), "--quiet", *chosen]
        began = time.monotonic()
        code, one, together, left = watch(build, os.environ | {"TMPDIR": str(scratch)})
        seconds = time.monotonic() - began
        entries = read_records(run / "ledger.parquet", LedgerEntry)
        ends = Counter(e.reason.partition(":")[0] or "kept" for e in entries)
        result = {
            "settings": args.settings,
            "files": len(inputs),
            "pages": sum(e.num_pages for e in entries),
            "ends": dict(ends.most_common()),
            "seconds": round(seconds),
            "largest_process_mb": one >> 20,
            "all_processes_mb": together >> 20,
            "versions": {"pymupdf": VERSION, "python": platform.python_version()},
            "machine": f"{platform.machine()}, {available_cores()} cores",
        }
        print(json.dumps(result, indent=2))
        faults = [f"exit code {code}"] if code else []
        if sorted(e.uri for e in entries) != sorted(os.fsencode(i).decode("utf-8", "backslashreplace") for i in inputs):
            faults.append("the ledger does not hold every input exactly once")
        faults += [f"process {pid} is left" for pid in sorted(left)]
        faults += [f"{f} is left" for f in (*scratch.iterdir(), *run.rglob("*.tmp"))]
        if subprocess.run([*CORPUS, "lint", str(run)], stdout=subprocess.DEVNULL).returncode:
            faults.append("corpus lint fails")
    sys.exit("\n".join(faults) if faults else 0)


if __name__ == "__main__":
    main()
