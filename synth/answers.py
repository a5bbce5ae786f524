"""Do two answers say the same? One function for every check, in English and Chinese.

Precision before recall: an answer that is called equal and is not becomes a wrong training target, one that is called
different costs a question. Integers are compared exactly, floats to 1 %, lists without order, strings by their words.
Numbers are read with their scale and unit, dates in any notation; what turns a meaning round (not, more than, a
decrease) must be the same on both sides.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from corpus.records import ANSWER_FORMATS
from synth.quantities import Quantity, dates, folded, quantities

FLOAT_TOLERANCE = Decimal("0.01")  # of the larger of the two
MAX_COMPARED_CHARS = 20_000  # longer answers are compared letter by letter
MAX_NUMBER_CHARS = 200  # a longer text is not a number with a few words around it

NEGATION = re.compile(
    r"\b(?:not|no|non|never|neither|nor|none|without|cannot|\w+n't|un|except|excluding)\b|[不没未非无]|除外"
)
BOUND = re.compile(
    r"\b(?:(?:more|greater|higher|less|fewer|lower|other) than|over|above|under|below|beyond|at (?:least|most)|up to|"
    r"exceed(?:s|ing)?|nearly|almost|minimum|maximum|min|max)\b|[<>≤≥]|不到|不足|不少于|不超过|超过|至少|至多|最多|最少|"
    r"以上|以下|多于|少于|近|逾"
)
UP = re.compile(
    r"\b(?:increas(?:e[sd]?|ing)|rise[sn]?|rose|rising|grew|grow(?:s|th|n)?|gain(?:s|ed)?|up|higher|more|profits?)\b"
    r"|增[长加]|上升|上涨|提高|盈利|多"
)
DOWN = re.compile(
    r"\b(?:decreas(?:e[sd]?|ing)|declin(?:e[sd]?|ing)|fall(?:s|en)?|fell|drop(?:s|ped)?|loss(?:es)?|lost|down|lower|less|"
    r"fewer|reduc(?:ed|tions?))\b|减少|下降|下跌|降低|亏损|少"
)
YES_NO = {"yes": True, "true": True, "是": True, "是的": True, "有": True, "对": True} | {
    "no": False,
    "false": False,
    "否": False,
    "不是": False,
    "没有": False,
    "不": False,
}
PUNCTUATION = re.compile(r"(?<!\d)[.,]|[.,](?!\d)|['’‘`´]")
BREAKS = re.compile(r"[\s\-‐‑–—_/\\:;!?\"“”„«»()\[\]{}*~…、。；：！？（）【】《》「」『』·•|]+")
CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
LIST_BREAK = re.compile(
    r" ?(?:[;；、\n]|,(?!\d{3}(?!\d))|，) ?(?:and |以?及)?| and |(?<=[^\x00-\x7f])和(?=[^\x00-\x7f])"
)


def answers_match(answer_format: str, a: str, b: str) -> bool:
    """Whether two answers to one question say the same; symmetric in `a` and `b`.

    Args:
        answer_format: of `corpus.records.ANSWER_FORMATS`; a List is a JSON array of strings, or its items in a line.
        a: one answer.
        b: the other.
    """
    if not a.strip() or not b.strip():
        return False
    if max(len(a), len(b)) > MAX_COMPARED_CHARS:
        return a.split() == b.split()
    if answer_format == "List":
        return _same_items(list_items(a), list_items(b))
    if answer_format in ("Integer", "Float"):
        first, second = measured(a), measured(b)
        if first and second:
            return _same_number(first, second, FLOAT_TOLERANCE if answer_format == "Float" else Decimal(0))
    return _same_text(a, b)


def answer_fault(answer: str, answer_format: str) -> str:
    """What is wrong with an answer in itself, '' where it has its format."""
    if answer in ("", "[]"):
        return "has no answer"
    if answer_format not in ANSWER_FORMATS:
        return f"unknown answer_format {answer_format!r}; known: {', '.join(ANSWER_FORMATS)}"
    if answer_format == "List" and not _is_list(answer):
        return f"answer {answer!r} is no list of texts, but its answer_format is List"
    if answer_format in ("Integer", "Float") and not re.fullmatch(r"[-+]?[\d,]*\.?\d+(e[-+]?\d+)?%?", answer):
        return f"answer {answer!r} is no number, but its answer_format is {answer_format}"
    return ""


def _is_list(answer: str) -> bool:
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


# ------------------------------------------------------------------------------------------------------------- lists


def list_items(answer: str) -> list[str]:
    """The items of a list: of a JSON array, else of a line of text."""
    if _is_list(answer):
        return [item for item in json.loads(answer) if item.strip()]
    return [item for item in LIST_BREAK.split(answer.strip(" []")) if item.strip()]


def _same_items(a: Sequence[str], b: Sequence[str]) -> bool:
    if len(a) != len(b) or not a:
        return False
    left = list(b)
    for item in a:
        match = next((i for i, other in enumerate(left) if _same_text(item, other)), None)
        if match is None:
            return False
        del left[match]
    return True


# ----------------------------------------------------------------------------------------------------------- numbers


class Measured(NamedTuple):
    """A text that is one number and a few words. `words`: what stands around it, in normal form."""

    quantity: Quantity
    words: str
    negated: bool
    bounds: frozenset[str]
    direction: int  # 1 = an increase, -1 = a decrease, 0 = neither is said


def measured(text: str) -> Measured | None:
    """The text as one number with the words around it; None where it holds no number or several."""
    text = folded(text).strip("*`\"'“”")
    if len(text) > MAX_NUMBER_CHARS:
        return None
    text = re.sub(r"(?<=\d) (?=\d{3}\b)", ",", text) if re.fullmatch(r"\D*\d{1,3}(?: \d{3})+\D*", text) else text
    found = quantities(text)
    if len(found) != 1:
        return None
    (quantity,) = found
    words = (text[: quantity.start] + " " + text[quantity.end :]).casefold()
    if any(c.isdigit() for c in words):
        return None  # what cannot be read as a number may be a part of it: 3/4, 10^5, A4
    up, down = bool(UP.search(words)), bool(DOWN.search(words))
    bounds = frozenset(m[0] for m in BOUND.finditer(words))
    words = BOUND.sub(" ", words)
    return Measured(
        quantity=quantity,
        words=normal_text(words),
        negated=bool(NEGATION.search(words)),
        bounds=bounds,
        direction=0 if up == down or bounds else 1 if up else -1,
    )


def _same_number(a: Measured, b: Measured, tolerance: Decimal) -> bool:
    if a.negated != b.negated or a.bounds != b.bounds or not same_unit(a.quantity.unit, b.quantity.unit):
        return False
    first, second = _signed(a), _signed(b)
    if a.quantity.is_year and b.quantity.is_year:
        tolerance = Decimal(0)
    return abs(first - second) <= tolerance * max(abs(first), abs(second))


def _signed(number: Measured) -> Decimal:
    """The value, negative for a decrease however it is written."""
    value = number.quantity.value
    return -abs(value) if number.direction < 0 else value


def same_unit(a: str, b: str) -> bool:
    """Whether two canonical units are one, or one of them was left out."""
    return not a or not b or a == b


# -------------------------------------------------------------------------------------------------------------- texts


def _same_text(a: str, b: str) -> bool:
    first, second = normal_text(a), normal_text(b)
    if not first or not second:
        return folded(a).casefold() == folded(b).casefold()
    if first == second and _signs(a) == _signs(b):
        return True
    if _said(a, first) is not None and _said(a, first) == _said(b, second):
        return True
    one, other = _whole_date(a), _whole_date(b)
    if one or other:
        return one == other
    x, y = measured(a), measured(b)
    if not x or not y or (x.words and y.words and x.words != y.words):
        return False
    return _same_number(x, y, Decimal(0))


def normal_text(text: str) -> str:
    """Words in lower case without punctuation, articles and the spaces between Chinese characters."""
    text = folded(text).casefold().replace("&", " and ").replace("%", " percent ").replace("per cent", "percent")
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    text = BREAKS.sub(" ", PUNCTUATION.sub("", text)).strip()
    text = re.sub(rf"(?<=[{CJK}]) (?=[{CJK}])", "", text)
    text = re.sub(r"^an? (?=\S)", "", text)
    return re.sub(r"\bthe (?=\S)", "", text)


def _signs(text: str) -> list[str]:
    """Numbers of a text with their signs, which `normal_text` drops."""
    return [str(q.value.normalize()) for q in quantities(folded(text))]


def _said(text: str, normal: str) -> bool | None:
    """What a yes or no says, with or without an explanation after a comma; None for anything else."""
    head = re.match(r"\s*(yes|no|是的?|不是|否|没有)\s*[,，.。;；]", text, re.IGNORECASE)
    return YES_NO.get(head[1].lower() if head else normal)


def _whole_date(text: str) -> tuple[int, int, int] | None:
    """A text that is a date and nothing else."""
    text = folded(text).strip(" .*`\"'“”")
    if len(text) > 60:
        return None
    if re.fullmatch(r"(?:1[5-9]|20)\d\d", text):
        return int(text), 0, 0
    found = dates(text)
    if len(found) != 1:
        return None
    rest = text[: found[0].start] + text[found[0].end :]
    weekday = r"(?:(?:mon|tues|wednes|thurs|fri|satur|sun)day|星期[一二三四五六日天]|周[一二三四五六日])"
    return found[0].parts if re.fullmatch(rf"(?:on|in|the|at|于|在|{weekday}|[\s,.()])*", rest, re.IGNORECASE) else None
