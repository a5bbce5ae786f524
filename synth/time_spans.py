"""How long it is from one date to another, where a question asks for days, weeks or months.

The dates are those of the quotes. Whether the last day counts is told by few wordings; where it is left open, with it
and without it are both right. Where there are not two whole dates, or durations beside them, nothing is said.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from datetime import date
from decimal import Decimal

from synth.quantities import Quantity, dates, folded, quantities

LEAP_YEAR = 2024  # of dates without a year, as is the one after it
Day = tuple[int, int, int]  # year, month, day; 0 = not said
MAX_DATES = 12
DAYS_A_WEEK = 7
ASKED = (
    (
        "day",
        re.compile(
            r"\bhow many (?:\w+ )?days\b|\bnumber of days\b|(?:多少|几|的)个?(?:天|日)(?!期)|天数", re.IGNORECASE
        ),
    ),
    ("week", re.compile(r"\bhow many (?:\w+ )?weeks\b|\bnumber of weeks\b|(?:多少|几)个?(?:周|星期)", re.IGNORECASE)),
    ("month", re.compile(r"\bhow many (?:\w+ )?months\b|\bnumber of months\b|(?:多少|几)个?月(?!份)", re.IGNORECASE)),
)
WITH_LAST = re.compile(
    r"\binclu(?:sive|ding|ded)\b|\bcounting both\b|\bboth days\b|含首尾|首尾(?:都|均|两)|包[括含]|[算计]入",
    re.IGNORECASE,
)
WITHOUT_LAST = re.compile(
    r"\b(?:pass(?:ed)?|elapsed?|after|later|before|earlier|until|ahead|apart|exclu\w+|differ\w*|sooner)\b"
    r"|相[隔差距]|间隔|之?[前后](?!续)|经过|过了|早|晚|提前|推迟|距|不[算计含]",
    re.IGNORECASE,
)
SHORT_DAYS = re.compile(
    r"(?<![\d.,])(?P<first>\d{1,2}) ?(?P<between>and|to|until|through|-|–|—) ?(?P<last>\d{1,2}) "
    r"(?P<rest>(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?(?: (?:1[5-9]|20)\d\d)?)(?![\w])",
    re.IGNORECASE,
)
SHORT_CHINESE_DAYS = re.compile(
    r"(?P<month>(?:\d{4}年)?\d{1,2}月)(?P<first>\d{1,2}日)(?P<between>[至到~—–-])(?=\d{1,2}日)"
)


def span_matches(asked: str, wanted: Quantity, quotes: Sequence[str]) -> bool | None:
    """Whether a number of days, weeks or months is the time between two dates of the quotes; None = not to be said.

    Args:
        asked: the question, folded, without the names in it.
        wanted: the answer.
        quotes: of which two dates are taken; with more than two, any two.
    """
    unit = next((name for name, pattern in ASKED if pattern.search(asked)), "")
    texts = [_written_out(folded(q)) for q in quotes]
    found = [(d.year, d.month, d.day) for t in texts for d in dates(t) if d.month and (d.day or unit == "month")]
    pairs = list(itertools.combinations(dict.fromkeys(found[:MAX_DATES]), 2))
    if not unit or not pairs:
        return None
    results = [r for a, b in pairs for r in _spans(a, b, unit, _last_day(asked))]
    if any(abs(r - wanted.value) <= Decimal(1).scaleb(-wanted.decimals) / 2 for r in results):
        return True
    durations = any(q.unit in ("day", "week", "month") for t in texts for q in _beside_dates(t))
    return None if durations or not results else False


def _written_out(text: str) -> str:
    """Both dates of "6 to 17 November 2023" and of "3月5日至20日" in full."""
    text = SHORT_DAYS.sub(r"\g<first> \g<rest> \g<between> \g<last> \g<rest>", text)
    return SHORT_CHINESE_DAYS.sub(r"\g<month>\g<first>\g<between>\g<month>", text)


def _beside_dates(text: str) -> Iterator[Quantity]:
    """The numbers of a text that are no parts of its dates."""
    days = dates(text)
    return (q for q in quantities(text) if not any(d.start <= q.start < d.end for d in days))


def _last_day(asked: str) -> tuple[int, ...]:
    """What is added for the last day."""
    if WITH_LAST.search(asked):
        return (1,)
    return (0,) if WITHOUT_LAST.search(asked) else (0, 1)


def _spans(a: Day, b: Day, unit: str, last_day: Sequence[int]) -> Iterator[Decimal]:
    """The time between two dates in a unit; where one of them has no year, in any that it may have."""
    for first_year, last_year in _years(a[0], b[0]):
        try:
            first, last = sorted([date(first_year, a[1], a[2] or 1), date(last_year, b[1], b[2] or 1)])
        except ValueError:
            continue
        months = 12 * (last.year - first.year) + last.month - first.month
        for n in last_day:
            days = (last - first).days + n
            if unit == "day":
                yield Decimal(days)
            elif unit == "week" and n == last_day[0]:
                yield from (Decimal(days) / DAYS_A_WEEK, Decimal(days // DAYS_A_WEEK), Decimal(-(-days // DAYS_A_WEEK)))
            elif unit == "month" and a[2] and b[2]:
                yield from (Decimal(months), Decimal(months - (last.day < first.day)))
            elif unit == "month":
                yield Decimal(months + n)


def _years(a: int, b: int) -> list[tuple[int, int]]:
    if a and b:
        return [(a, b)]
    if a or b:
        return [(a or b + n, b or a + n) for n in (0, 1, -1)]
    return [(LEAP_YEAR, LEAP_YEAR), (LEAP_YEAR + 1, LEAP_YEAR + 1)]
