"""How often does the test of text layers cry wolf, and how much of what is broken does it find?

    python benchmarks/bench_text_layer.py PDF...

Counts the verdicts of every page as it is, then breaks the words of each sound page of at least 40 words in the ways
that fonts without a proper Unicode map do, and counts the broken pages that are still taken for sound.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import random
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from corpus.parse import image_share, read_layout
from corpus.render import open_pdf
from corpus.text_layer import examine, garbled

GREEK = "αβγδεζηθικλμνξοπρστυφχψω"
MIN_WORDS = 40


def _each(change: Callable[[str], str]) -> Callable[[Sequence[str], random.Random], list[str]]:
    return lambda words, _: ["".join(map(change, w)) for w in words]


def _shifted(char: str) -> str:
    if not (char.isascii() and char.isalpha()):
        return char
    first = ord("a") if char.islower() else ord("A")
    return chr(first + (ord(char) - first + 3) % 26)


def _permuted(words: Sequence[str], draw: random.Random) -> list[str]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    table = str.maketrans(dict(zip(letters, draw.sample(letters, 26), strict=True)))
    return [w.lower().translate(table) for w in words]


def _half_greek(words: Sequence[str], draw: random.Random) -> list[str]:
    return ["".join(draw.choice(GREEK) if c.isalpha() and draw.random() < 0.3 else c for c in w) for w in words]


def _as_codes(words: Sequence[str], _: random.Random) -> list[str]:
    return ["".join(f"(cid:{ord(c) % 256})" for c in w) for w in words]


BREAKS: dict[str, Callable[[Sequence[str], random.Random], list[str]]] = {
    "private-use": _each(lambda c: chr(0xE000 + ord(c) % 0x1000)),
    "replacement": _each(lambda c: "\ufffd" if c.isalpha() else c),
    "cid": _as_codes,
    "shifted-by-3": _each(_shifted),
    "glyph-numbers": _each(lambda c: chr(0x21 + (ord(c) * 7) % 15)),
    "permuted-alphabet": _permuted,
    "bytes-swapped": _each(lambda c: chr(ord(c) * 256) if c.isascii() else c),
    "mixed-scripts": _half_greek,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+")
    args = parser.parse_args()
    print(json.dumps({"pymupdf": importlib.metadata.version("pymupdf"), "python": sys.version.split()[0]}))
    verdicts: Counter[str] = Counter()
    alarms: list[str] = []
    seconds: list[float] = []
    broken: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    for file in args.files:
        with open_pdf(file) as pdf:
            for index in range(pdf.page_count):
                whole = read_layout(pdf[index], use_model=False)
                began = time.process_time()
                layout, verdict = examine(whole, partial(image_share, pdf[index]))
                seconds.append(time.process_time() - began)
                slug = (
                    "sound"
                    if not verdict.reason
                    else re.sub(r"-of-\d+-characters", "", verdict.reason.partition(":")[0])
                )
                verdicts[slug] += 1
                if verdict.reason and not verdict.reason.startswith("text-layer-of"):
                    alarms.append(f"{file.name} page {index + 1}: {verdict.reason}")
                words = [w.text for w in layout.words]
                if not verdict.reason and len(words) >= MIN_WORDS:
                    for name, change in BREAKS.items():
                        broken[name] += 1
                        missed[name] += not garbled(change(words, random.Random(index)))
    print(json.dumps({"verdicts": dict(verdicts.most_common())}))
    print(json.dumps({"pages": len(seconds), "milliseconds_a_page": round(1_000 * statistics.median(seconds), 2)}))
    for alarm in alarms:
        print(alarm)
    for name, count in broken.items():
        print(json.dumps({"broken": name, "pages": count, "taken_for_sound": missed[name]}))


if __name__ == "__main__":
    main()
