"""How often does the test of text layers cry wolf, and how much of what is broken does it find?

    python benchmarks/bench_text_layer.py [--drawn N] PDF...

Counts the verdicts of every page as it is, then breaks the words of each sound page of at least 40 words in the ways
that fonts without a proper Unicode map do, and counts the broken pages that are still taken for sound. Every N-th of
these pages is also drawn anew so that its layer and its picture disagree (white text, an image over the text, letters
as outlines, scans with a stamp or a footer), and the characters that are estimated from the picture are compared with
those that it shows.
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
from dataclasses import replace
from pathlib import Path
from typing import Any

from corpus.layout import PageLayout
from corpus.parse import PageView, read_layout
from corpus.records import PageGrid
from corpus.render import encode, open_pdf, pymupdf, render
from corpus.text_layer import SOUND, Verdict, examine, judge

CHINESE = "的一是不了在人有我他这中大来上国个到说们为子和你地"
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


def _in_script(first: int, last: int) -> Callable[[Sequence[str], random.Random], list[str]]:
    """Each letter as one of a script, always the same; the page's number decides which."""
    letters = [c for c in map(chr, range(first, last + 1)) if c.isalpha()]

    def change(words: Sequence[str], draw: random.Random) -> list[str]:
        table = {c: draw.choice(letters) for c in sorted({*"".join(words)}) if c.isalpha()}
        return ["".join(table.get(c, c) for c in w) for w in words]

    return change


def _at_random(first: int, last: int) -> Callable[[Sequence[str], random.Random], list[str]]:
    letters = [c for c in map(chr, range(first, last + 1)) if c.isalpha()]
    return lambda words, draw: ["".join(draw.choice(letters) if c.isalpha() else c for c in w) for w in words]


def _as_latin_1(words: Sequence[str], draw: random.Random) -> list[str]:
    chinese = ["".join(draw.choice(CHINESE) if c.isalpha() else c for c in w) for w in words]
    return [w.encode("gbk", "replace").decode("latin-1") for w in chinese]


SCRIPTS = {
    "chinese": (0x4E00, 0x9FFF),
    "korean": (0xAC00, 0xD7A3),
    "cyrillic": (0x410, 0x44F),
    "arabic": (0x621, 0x64A),
    "greek": (0x391, 0x3C9),
}
BREAKS: dict[str, Callable[[Sequence[str], random.Random], list[str]]] = {
    "private-use": _each(lambda c: chr(0xE000 + ord(c) % 0x1000)),
    "replacement": _each(lambda c: "\ufffd" if c.isalpha() else c),
    "cid": _as_codes,
    "shifted-by-3": _each(_shifted),
    "glyph-numbers": _each(lambda c: chr(0x21 + (ord(c) * 7) % 15)),
    "permuted-alphabet": _permuted,
    "bytes-swapped": _each(lambda c: chr(ord(c) * 256) if c.isascii() else c),
    "mixed-scripts": _half_greek,
    "gbk-as-latin-1": _as_latin_1,
    "digits": lambda words, draw: ["".join(str(draw.randrange(10)) if c.isalpha() else c for c in w) for w in words],
    **{f"permuted-into-{name}": _in_script(*span) for name, span in SCRIPTS.items()},
    **{f"random-{name}": _at_random(*span) for name, span in SCRIPTS.items()},
}
FOOTER = "Licensed to the University Library on 4 March 2021. Downloaded from the archive of the Society at 12:07. "


def _image(page: Any) -> bytes:
    size = PageGrid(height=round(page.rect.height * 2), width=round(page.rect.width * 2))
    return encode(render(page, size), "jpeg", 60)


def _white(page: Any, new: Any) -> None:
    for x0, _, _, y1, word, *_ in page.get_text("words"):
        new.insert_text((x0, y1), word, fontsize=8, color=(1, 1, 1))


def _covered(page: Any, new: Any) -> None:
    new.show_pdf_page(new.rect, page.parent, page.number)
    new.insert_image(new.rect, stream=_image(page))


def _outlines(page: Any, new: Any) -> None:
    with pymupdf.open("svg", page.get_svg_image(text_as_path=True).encode()) as svg:
        new.show_pdf_page(new.rect, pymupdf.open("pdf", svg.convert_to_pdf()), 0)
    new.insert_text((40, 20), "Annual report of the harbour council 2020", fontsize=8)


def _scan_of_part(page: Any, new: Any) -> None:
    width, height = new.rect.width, new.rect.height
    new.insert_image(pymupdf.Rect(width * 0.11, height * 0.11, width * 0.89, height * 0.89), stream=_image(page))
    new.insert_text((40, height - 20), "Exhibit 12, page 3 of 50", fontsize=8)


def _scan_with_footer(page: Any, new: Any) -> None:
    new.insert_image(new.rect, stream=_image(page))
    new.insert_textbox(
        pymupdf.Rect(30, new.rect.height - 45, new.rect.width - 30, new.rect.height), FOOTER * 4, fontsize=6
    )


DRAWN: dict[str, Callable[[Any, Any], None]] = {
    "white": _white,
    "covered": _covered,
    "outlines": _outlines,
    "scan-of-61-percent": _scan_of_part,
    "scan-with-footer": _scan_with_footer,
}


def _drawn(page: Any, draw: Callable[[Any, Any], None]) -> Verdict:
    with pymupdf.open() as pdf:
        draw(page, pdf.new_page(width=page.rect.width, height=page.rect.height))
        data = pdf.tobytes()
    with pymupdf.open("pdf", data) as pdf:
        return examine(read_layout(pdf[0], use_model=False), PageView(pdf[0]))[1]


def _is_found(layout: PageLayout, broken: Sequence[str]) -> bool:
    words = tuple(replace(w, text=text) for w, text in zip(layout.words, broken, strict=True))
    return judge(replace(layout, words=words)) != SOUND


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--drawn", type=int, default=0, metavar="N", help="draw every N-th page anew (default: none)")
    parser.add_argument("files", type=Path, nargs="+")
    args = parser.parse_args()
    print(json.dumps({"pymupdf": importlib.metadata.version("pymupdf"), "python": sys.version.split()[0]}))
    verdicts: Counter[str] = Counter()
    alarms: list[str] = []
    seconds: list[float] = []
    broken: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    estimates: list[float] = []
    for file in args.files:
        with open_pdf(file) as pdf:
            for index in range(pdf.page_count):
                whole = read_layout(pdf[index], use_model=False)
                began = time.process_time()
                layout, verdict = examine(whole, PageView(pdf[index]))
                seconds.append(time.process_time() - began)
                verdicts[re.sub(r"-of-\d+-characters", "", verdict.reason.partition(":")[0])] += 1
                if verdict != SOUND and not verdict.reason.startswith("text-layer-of"):
                    alarms.append(f"{file.name} page {index + 1}: {verdict.reason}")
                words = [w.text for w in layout.words]
                if verdict != SOUND or len(words) < MIN_WORDS:
                    continue
                for name, change in BREAKS.items():
                    broken[name] += 1
                    missed[name] += not _is_found(layout, change(words, random.Random(index)))
                if args.drawn and len(seconds) % args.drawn == 0:
                    for name, draw in DRAWN.items():
                        said = _drawn(pdf[index], draw)
                        broken[name] += 1
                        missed[name] += said == SOUND
                        if estimate := re.search(r"about (\d+) characters", said.reason):
                            estimates.append(int(estimate[1]) / len("".join(words)))
    print(json.dumps({"verdicts": dict(verdicts.most_common())}))
    print(json.dumps({"pages": len(seconds), "milliseconds_a_page": round(1_000 * statistics.median(seconds), 2)}))
    print(json.dumps({"mean_milliseconds_a_page": round(1_000 * statistics.fmean(seconds), 2)}))
    if estimates:
        tenths = statistics.quantiles(estimates, n=10)
        print(json.dumps({"estimated_by_true_characters": [round(tenths[i], 2) for i in (0, 4, 8)]}))
    for alarm in alarms:
        print(alarm)
    for name, count in broken.items():
        print(json.dumps({"broken": name, "pages": count, "taken_for_sound": missed[name]}))


if __name__ == "__main__":
    main()
