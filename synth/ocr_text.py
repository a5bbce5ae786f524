"""Text of pages that OCR read, with the letters back that it takes for digits: "Tab1e 6", "c1inic", "a11".

Digits alone and codes ("A104", "B2") are left as they are: a number is what it is.
"""

from __future__ import annotations

import re
from dataclasses import replace

from rapidfuzz.distance import Levenshtein

from corpus.records import Page

WITHIN = re.compile(r"(?<=[A-Za-z])[10|]{1,2}(?=[a-z])|(?<![\w.,])(?:a|[a-z]{2,4})11(?![\w.,])")
LETTERS = str.maketrans("10|", "lol")
LABEL_WORDS = (
    "table",
    "figure",
    "chart",
    "exhibit",
    "section",
    "chapter",
    "appendix",
    "annex",
    "article",
    "note",
    "part",
)
LABEL_START = re.compile(
    r"(?P<word>[A-Za-z]{3,10}|[衰袁裹囹圈圆])(?P<gap> ?)"
    r"(?P<number>(?:[A-Z][.-]?)?[\dlIO|]{1,3}(?:[-.][\dlIO|]{1,3})*)(?!\w)"
)
CHINESE = {"衰": "表", "袁": "表", "裹": "表", "囹": "图", "圈": "图", "圆": "图"}
DIGITS = str.maketrans("lI|O", "1110")
MIN_LETTERS = 5  # of a word of which one letter may be wrong


def mended(page: Page) -> Page:
    """A page that OCR read with the lines of its blocks mended; any other as it is."""
    if page.text_source != "ocr":
        return page
    blocks = (replace(b, text="\n".join(repaired(line) for line in b.text.split("\n"))) for b in page.blocks)
    return replace(page, blocks=tuple(blocks))


def repaired(text: str) -> str:
    """A line with its words mended, and the word and number of a label that it begins with."""
    text = WITHIN.sub(lambda m: m[0].translate(LETTERS), text)
    m = LABEL_START.match(text)
    return _label(m) + text[m.end() :] if m else text


def _label(m: re.Match[str]) -> str:
    word = CHINESE.get(m["word"]) or _label_word(m["word"])
    if not word or not any(c.isdigit() for c in m["number"].translate(DIGITS)):
        return m[0]
    return f"{word}{m['gap']}{m['number'].translate(DIGITS)}"


def _label_word(text: str) -> str:
    """The word for tables, figures or sections that a text is, but for one letter; '' where it is none."""
    word = text.casefold()
    if word in LABEL_WORDS:
        return text
    near = (w for w in LABEL_WORDS if len(w) >= MIN_LETTERS and Levenshtein.distance(w, word) == 1)
    return next((w.capitalize() for w in near if len(w) == len(word)), "")
