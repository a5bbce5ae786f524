"""Is a small number that a calculation gives printed as its result, or does it stand on the page by chance?

It is the result where a sentence of the text says so: in the unit that is asked for, with most words that tell the
question from others, and with its direction; or where a column of changes, shares or totals has it in a row that is
quoted. Everywhere else it is taken for chance.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from synth.cells import PERCENT, TOTAL_LABEL, Grid, quoted_rows
from synth.clauses import SENTENCE_END
from synth.grounding import CJK, PageText
from synth.labels import without_names
from synth.quantities import Quantity, folded, quantities, units
from synth.stems import pairs, words_of
from synth.wording import CHANGE, FALL, INTENTS, LESS, MORE, POINTS, QUOTED, RISE

RESULTS = re.compile(  # headers of columns that hold what is worked out from others
    r"\b(?:change|difference|increase|decrease|growth|gain|loss|total|sum|average|mean|ratio|balance)\b"
    r"|增减|增长|增幅|降幅|变化|变动|差额|差值|合计|小计|总计|平均|人均|占比|同比|结余",
    re.IGNORECASE,
)
SHORT_OF = re.compile(r"\b(?:falls?|fell|falling) short\b|不足|差距", re.IGNORECASE)  # no change, though it says fall
MIN_SHARED = 2  # words of a sentence that the question says too
MIN_SHARED_PAIRS = 4  # of Chinese characters
_GENERAL = (
    "percent percentage point number year much many what which how round decimal place one two answer give table "
    "section figure according"
)
GENERAL = words_of(_GENERAL)


def same_amount(shown: Quantity, answer: Quantity) -> bool:
    """Whether a number is an answer, with its scale or in it, and whatever its sign."""
    value = abs(answer.value)
    return value in (abs(shown.value), abs(shown.value).scaleb(-shown.power))


def stated(answer: Quantity, asked: str, quotes: Sequence[str], page: PageText, tables: Sequence[Grid]) -> bool:
    """Whether the page states a small number as what the question asks for.

    Args:
        answer: the number.
        asked: the question, folded.
        quotes: the numbers that it is worked out from.
        page: of the evidence.
        tables: of this page.
    """
    return _in_sentence(answer, asked, quotes, page) or any(_in_results(answer, asked, quotes, g) for g in tables)


def _in_sentence(answer: Quantity, asked: str, quotes: Sequence[str], page: PageText) -> bool:
    """Whether a sentence that is not quoted says the number and what it is."""
    if not answer.decimals or answer.value == 0:
        return False
    said = _telling(without_names(QUOTED.sub(" ", asked)))
    rises, falls = _directions(asked)
    for block in page.blocks:
        if "\t" in block.text or block.kind in ("table", "caption"):
            continue
        before = ""
        for sentence in SENTENCE_END.split(folded(block.text)):
            own = [q for q in quantities(sentence) if same_amount(q, answer)]
            told = _telling(f"{before} {sentence}")
            least = MIN_SHARED_PAIRS if re.search(f"[{CJK}]", sentence) else MIN_SHARED
            up, down = _directions(sentence)
            agree = (rises and up) or (falls and down) or not (rises or falls)
            if agree and len(told & said) >= least and any(_in_unit(q, asked) for q in own) and sentence not in quotes:
                return True
            before = sentence
    return False


def _telling(text: str) -> frozenset[str]:
    """Words that tell a sentence from others, and Chinese characters two by two; years among them, numbers not."""
    found = pairs(text) | words_of(text)
    return frozenset(w for w in found - GENERAL if not (w[0].isdecimal() and len(w) != 4) and len(w) > 1)


def _directions(text: str) -> tuple[bool, bool]:
    text = SHORT_OF.sub(" ", text)
    rises = RISE.search(text) or re.search(rf"\b(?:{MORE})\b|[高多]", text, re.IGNORECASE)
    falls = FALL.search(text) or re.search(rf"\b(?:{LESS})\b|[低少]|压减", text, re.IGNORECASE)
    return bool(rises), bool(falls)


def _in_unit(shown: Quantity, asked: str) -> bool:
    """Whether a number has the unit that is asked for; points are percent here, and no unit is none."""
    wanted = units(asked) | ({"%"} if PERCENT.search(asked) or POINTS.search(asked) or "百分" in asked else set())
    return shown.unit in wanted if shown.unit else not wanted


def _in_results(answer: Quantity, asked: str, quotes: Sequence[str], grid: Grid) -> bool:
    """Whether a quoted row has the number in a column of results, or the row of totals has it."""
    works_out = any(INTENTS[name].search(asked) for name in ("difference", "change", "share", "sum", "mean"))
    taken = quoted_rows(grid, quotes)
    if not taken or not works_out:
        return False
    for row in grid.rows:
        total = len(taken) > 1 and row not in taken and TOTAL_LABEL.search(row.label) and INTENTS["sum"].search(asked)
        for cell, header in grid.placed(row):
            same = [q for q in quantities(folded(cell)) if same_amount(q, answer)]
            if same and (total or (row in taken and len(taken) == 1 and _is_result(header, asked))):
                return True
    return False


def _is_result(header: str, asked: str) -> bool:
    """Whether a column is of results of the kind that is asked for."""
    m = RESULTS.search(folded(header))
    if m is None:
        return False
    changes = re.search(CHANGE, header, re.IGNORECASE) or "增减" in header or "变" in header
    return not changes or re.search(CHANGE, asked, re.IGNORECASE) is not None or any(_directions(asked))
