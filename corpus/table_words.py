"""The words of a table region as rows of phrases: a number with its signs, or text without a wide gap.

The parts that the tests of `corpus.tables`, `corpus.table_headers` and `corpus.table_labels` share.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from corpus.layout import Word, center, union
from corpus.records import Box

PARENT = " > "  # between the name of a group and the name of a row or column in it

NUMBER = re.compile(r"[-\u2013\u2212+]?\(?[$€£¥]?[-\u2013\u2212]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?%?\)?%?")
PLACEHOLDER = re.compile(r"[$€£¥]?\(?(?:[-\u2013\u2014\u2015]{1,3}|N/A|n/a|NM|nm|N\.M\.|n\.m\.)\)?%?")
OPENING = re.compile(r"[$€£¥(]{1,2}")
CLOSING = re.compile(r"[)%]{1,2}")
YEAR = re.compile(r"(?:FY ?)?(?:19|20)\d\d")
FOOTNOTE = re.compile(r"(?:\s*\([0-9a-z*]{1,2}\))+$|\s*[*†‡]+$")


class Doubt(Exception):
    """A test failed: the region yields no table."""


def require(condition: bool) -> None:
    if not condition:
        raise Doubt


@dataclass(slots=True)
class Token:
    """Words of one visual row that belong together. `core` leaves out currency and percent signs."""

    words: list[Word]
    core: Box
    value: bool  # a number or a dash, as against text

    @property
    def box(self) -> Box:
        return union([w.box for w in self.words])

    @property
    def text(self) -> str:
        joined = " ".join(w.text for w in self.words)
        return re.sub(r"(?<=[$€£¥(]) +| +(?=[)%])", "", joined) if self.value else joined


@dataclass(slots=True)
class TextRow:
    """One visual row of the region, left to right."""

    y: float
    tokens: list[Token]
    label: str = ""
    label_box: Box | None = None
    cells: dict[int, Token] = field(default_factory=dict)

    @property
    def numeric(self) -> bool:
        return bool(self.cells)


def text_rows(words: Sequence[Word], em: float) -> list[TextRow]:
    """Words by line, then by phrase; a phrase is a number with its signs, or text without a wide gap."""
    groups: list[list[Word]] = []
    for word in sorted(words, key=lambda w: center(w.box)[1]):
        if groups and abs(center(word.box)[1] - statistics.fmean(center(w.box)[1] for w in groups[-1])) < 0.4 * em:
            groups[-1].append(word)
        else:
            groups.append([word])
    return [
        TextRow(statistics.fmean(center(w.box)[1] for w in g), _tokens(sorted(g, key=lambda w: w.box[0]), em))
        for g in groups
    ]


def _is_value(text: str) -> bool:
    return bool(PLACEHOLDER.fullmatch(text) or (NUMBER.fullmatch(text) and any(c.isdigit() for c in text)))


def _tokens(words: list[Word], em: float) -> list[Token]:
    tokens: list[Token] = []
    pending: list[Word] = []  # "$" or "(" waiting for its number
    for word in words:
        previous = tokens[-1] if tokens else None
        gap = word.box[0] - (pending[-1] if pending else previous.words[-1] if previous else word).box[2]
        in_text = previous is not None and not previous.value and not pending and gap < 0.7 * em
        if in_text:
            assert previous is not None
            previous.words.append(word)
        elif OPENING.fullmatch(word.text):
            require(all(p.text != word.text for p in pending))  # a "$" of a cell whose dash was not read
            pending.append(word)
        elif CLOSING.fullmatch(word.text) and previous is not None and previous.value and not pending:
            previous.words.append(word)
            if ")" in word.text:
                previous.core = union([previous.core, word.box])
        elif _is_value(word.text):
            tokens.append(Token([*pending, word], word.box, True))
            pending = []
        else:
            follows = previous is not None and previous.value and gap < 0.35 * em
            if follows and previous is not None:  # "12 months" is text, not a number
                tokens[-1] = Token([*previous.words, word], word.box, False)
            else:
                tokens.append(Token([*pending, word], word.box, False))
            pending = []
    require(not pending)
    return tokens
