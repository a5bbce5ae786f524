"""How many right questions do the text checks keep, how many wrong ones do they stop?

    python benchmarks/bench_verify.py [--show PART]

Reads the questions of known quality in tests/data/verify: English and Chinese, about a report, a manual, a paper and a
scan. One half was used to tune the checks, the other was not looked at until they were done.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from verify_set import PARTS, checked, known_questions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--show", choices=PARTS, help="print the questions of this part that are misjudged")
    args = parser.parse_args()
    known_questions()
    began = time.perf_counter()
    results = checked()
    seconds = time.perf_counter() - began
    counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for known, question in results:
        for part in (known.part, "all"):
            counts[known.kind, part][0] += 1
            counts[known.kind, part][1] += question.accepted
        if known.part == args.show and question.accepted != (known.kind == "right"):
            print(f"{known.kind}: {question.question} -> {question.answer} [{question.reason}: {question.detail}]")
    for part in (*PARTS, "all"):
        rows = {kind: counts[kind, part] for kind, p in counts if p == part}
        wrong = [sum(row[i] for kind, row in rows.items() if kind != "right") for i in (0, 1)]
        print(f"\n{part}")
        for kind, (asked, kept) in rows.items():
            print(f"  {kind:<20} {asked:>4} questions, {kept:>4} kept, {asked - kept:>4} stopped")
        right, kept = rows["right"]
        print(f"  right ones kept {kept / right:.1%}, wrong ones stopped {1 - wrong[1] / wrong[0]:.1%}")
    print(
        json.dumps(
            {"python": sys.version.split()[0], "milliseconds_a_question": round(1e3 * seconds / len(results), 2)}
        )
    )


if __name__ == "__main__":
    main()
