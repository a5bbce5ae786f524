"""Numbers and dates in English and Chinese text, as values that can be compared.

One reader for answers, quotes and pages, so that "12.4 million", "12,400,000" and "1240万" are one number wherever they
stand. What can be read in two ways is not read: 03/04/2023 is no date, "1,5" are two numbers, a Chinese numeral counts
only beside a unit or in a shape that no word has.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal

_SUPERSCRIPT = re.compile("(?<=[0-9)])[⁰¹²³⁴⁵⁶⁷⁸⁹]+")

_TO_NINE = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS = {w: n for n, w in enumerate(_TO_NINE + _TEENS)} | {w: 10 * n for n, w in enumerate(_TENS, start=2)}
_SCALES = {
    "hundred": 2,
    "thousand": 3,
    "million": 6,
    "mn": 6,
    "billion": 9,
    "bn": 9,
    "trillion": 12,
    "tn": 12,
    "K": 3,
    "M": 6,
    "B": 9,
    "百": 2,
    "千": 3,
    "万": 4,
    "十万": 5,
    "百万": 6,
    "千万": 7,
    "亿": 8,
    "十亿": 9,
    "百亿": 10,
    "千亿": 11,
    "万亿": 12,
}
# Canonical unit: how it is written. Words in any case, symbols as they are; order within a line does not matter.
_UNITS = {
    "%": (r"percent(?:age points?)?|per cent|pct", r"%|pp(?![A-Za-z])|个?百分点"),
    "‰": ("per mille", "‰"),
    "USD": (r"(?:u\.?s\.? )?dollars?|usd", r"(?:US)?\$(?! ?[\d(])|美元"),
    "EUR": ("euros?|eur", r"€(?! ?[\d(])|欧元"),
    "GBP": ("pounds? sterling|gbp|pounds?", r"£(?! ?[\d(])|英镑"),
    "CNY": ("yuan|rmb|cny|renminbi", "元|人民币"),
    "JPY": ("yen|jpy", "日元"),
    "HKD": ("hkd", r"HK\$|港元|港币"),
    "year": ("years?|yrs?", "年"),
    "month": ("months?", "个?月"),
    "week": ("weeks?", "周|星期|个星期"),
    "day": ("days?", "天|日"),
    "hour": ("hours?|hrs?", "个?小时|h(?![A-Za-z])"),
    "minute": ("minutes?|mins?", "分钟"),
    "second": ("seconds?|secs?", "秒|s(?![A-Za-z])"),
    "ms": ("milliseconds?", "毫秒|ms(?![A-Za-z])"),
    "km": ("kilomet(?:er|re)s?", "公里|千米|km(?![A-Za-z0-9²])"),
    "m": ("met(?:er|re)s?", "米|m(?![A-Za-z0-9²³])"),
    "cm": ("centimet(?:er|re)s?", "厘米|cm(?![A-Za-z0-9])"),
    "mm": ("millimet(?:er|re)s?", "毫米|mm(?![A-Za-z0-9])"),
    "mile": ("miles?", "英里"),
    "foot": ("feet|foot|ft", "英尺"),
    "inch": ("inch(?:es)?", "英寸"),
    "kg": ("kilograms?|kilos?", "公斤|千克|kg(?![A-Za-z/])"),
    "g": ("grams?", "克|g(?![A-Za-z/])"),
    "mg": ("milligrams?", "毫克|mg(?![A-Za-z/])"),
    "t": ("tonnes?|tons?", "吨|t(?![A-Za-z])"),
    "ha": ("hectares?", "公顷|ha(?![A-Za-z])"),
    "m2": ("square met(?:er|re)s?", "平方米|m[2²]|sqm"),
    "km2": ("square kilomet(?:er|re)s?", "平方公里|km[2²]"),
    "m3": ("cubic met(?:er|re)s?", "立方米|m[3³]"),
    "l": ("lit(?:er|re)s?", "升|[lL](?![A-Za-z/])"),
    "ml": ("millilit(?:er|re)s?", "毫升|m[lL](?![A-Za-z/])"),
    "kWh": ("kilowatt[- ]hours?", "千瓦时|kWh"),
    "MWh": ("megawatt[- ]hours?", "兆瓦时|MWh"),
    "GWh": ("gigawatt[- ]hours?", "GWh"),
    "TWh": ("terawatt[- ]hours?", "TWh"),
    "W": ("watts?", "瓦|W(?![A-Za-z])"),
    "kW": ("kilowatts?", "千瓦(?!时)|kW(?![A-Za-z])"),
    "MW": ("megawatts?", "兆瓦(?!时)|MW(?![A-Za-z])"),
    "GW": ("gigawatts?", "GW(?![A-Za-z])"),
    "V": ("volts?", "伏特?|V(?![A-Za-z])"),
    "A": ("amperes?|amps?", "安培|A(?![A-Za-z])"),
    "degC": ("degrees? celsius", "°C|摄氏度"),
    "degF": ("degrees? fahrenheit", "°F|华氏度"),
    "bar": ("bars?", "巴(?!黎)"),
    "Pa": ("pascals?", "Pa(?![A-Za-z])|帕"),
    "kPa": ("kilopascals?", "kPa|千帕"),
    "MPa": ("megapascals?", "MPa|兆帕"),
    "Hz": ("hertz", "Hz|赫兹"),
    "kHz": ("kilohertz", "kHz|千赫"),
    "MHz": ("megahertz", "MHz|兆赫"),
    "GHz": ("gigahertz", "GHz"),
    "KB": ("kilobytes?", "[kK]B(?![A-Za-z])"),
    "MB": ("megabytes?", "MB(?![A-Za-z])"),
    "GB": ("gigabytes?", "GB(?![A-Za-z])"),
    "TB": ("terabytes?", "TB(?![A-Za-z])"),
    "times": ("times", "倍|[x×](?![A-Za-z0-9])"),
}
_UNIT = re.compile(
    r"[ -]?(?:"
    + "|".join(
        f"(?P<u{i}>(?i:(?:{words}))(?![A-Za-z])|(?:{symbols}))" for i, (words, symbols) in enumerate(_UNITS.values())
    )
    + ")"
)
_UNIT_NAMES = tuple(_UNITS)
_SCALE = re.compile(
    r" ?(?:(?P<word>(?i:hundred|thousand|million|billion|trillion|mn|bn|tn))s?(?![A-Za-z])"
    r"|(?P<chinese>万亿|[十百千]?[亿万]|千(?![米克瓦帕赫])|百(?!分))|(?P<letter>(?<=\d)[KMB](?![A-Za-z])))"
)
_CURRENCY = r"US\$|HK\$|[$€£¥]|(?:USD|EUR|GBP|RMB|CNY|JPY|HKD)(?![A-Za-z])"
_CURRENCIES = {"US$": "USD", "$": "USD", "HK$": "HKD", "€": "EUR", "£": "GBP", "¥": "", "RMB": "CNY"}
_ARABIC = re.compile(
    r"(?P<open>\( ?)?(?P<sign>(?<![\w.)%])[-\u2212\u2013] ?|(?i:(?<![A-Za-z])minus )|负)?"
    rf"(?:(?P<currency>{_CURRENCY}) ?(?P<inner>[-\u2212\u2013(])?)?"
    r"(?<![A-Za-z0-9_.])"
    r"(?:(?P<grouped>\d{1,3}(?:,\d{3}){1,9})(?!\d)(?P<decimals>\.\d{1,30})?|(?P<european>\d{1,3}(?:\.\d{3}){1,9},\d{1,2})"
    r"|(?P<dotted>\d{1,3}(?:\.\d{3}){2,9})|(?P<plain>\d{1,40}(?:\.\d{1,30})?))"
    r"(?![.]?\d)(?P<fraction>[/⁄^]\d)?"
)
_WORD = re.compile(
    rf"(?<![A-Za-z])(?:(?P<tens>{'|'.join(_TENS)})(?:[- ](?P<ones>{'|'.join(_TO_NINE[1:])}))?"
    rf"|(?P<small>{'|'.join(_TO_NINE + _TEENS)}))(?![A-Za-z])",
    re.IGNORECASE,
)
_CHINESE_DIGITS = {c: n for n, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_CHINESE = re.compile(
    r"百分之(?P<share>[零〇一二两三四五六七八九十百点]{1,12})|[零〇一二两三四五六七八九十百千万亿点]{1,24}"
)
_MEASURE = re.compile(
    r"[个人次项家名条章节台种岁位届期级类座所只辆艘份件步页栋门间处本张支批组]|用(?=[一二两三四五六七八九十]备)|(?<=用[一二两三四五六七八九十])备"
)
_SECTION_WORD = re.compile(r"第$")

_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "january jan",
            "february feb",
            "march mar",
            "april apr",
            "may",
            "june jun",
            "july jul",
            "august aug",
            "september sep sept",
            "october oct",
            "november nov",
            "december dec",
        ),
        start=1,
    )
    for name in names.split()
}
_MONTH = r"(?P<month>" + "|".join(sorted(_MONTHS, key=len, reverse=True)) + r")\.?(?![A-Za-z])"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?(?!\d)"
_YEAR = r"(?P<year>(?:1[5-9]|20)\d\d)(?!\d)"
_NUMERAL = "[0-9零〇一二三四五六七八九十]"
_CHINESE_MONTH = rf"(?P<month>{_NUMERAL}{{1,3}}) ?月"
_CHINESE_DAY = rf"(?P<day>{_NUMERAL}{{1,3}}) ?[日号]"
_DATES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?P<year>{_NUMERAL}{{4}}) ?年 ?(?:{_CHINESE_MONTH} ?(?:{_CHINESE_DAY})?)?",
        r"(?<!\d)(?P<year>(?:1[5-9]|20)\d\d)(?P<sep>[-/.])(?P<month>\d{1,2})(?:(?P=sep)(?P<day>\d{1,2}))?(?![\d.])",
        rf"(?<!\d){_DAY} (?:of )?{_MONTH},? {_YEAR}",
        rf"(?<![A-Za-z]){_MONTH} {_DAY},? {_YEAR}",
        rf"(?<![A-Za-z]){_MONTH},? {_YEAR}",
        r"(?<!\d)(?P<first>\d{1,2})(?P<sep>[/.])(?P<second>\d{1,2})(?P=sep)(?P<year>(?:19|20)\d\d)(?!\d)",
        rf"(?<!\d){_DAY} (?:of )?{_MONTH}",
        rf"(?<![A-Za-z]){_MONTH} {_DAY}",
        rf"{_CHINESE_MONTH} ?{_CHINESE_DAY}",
    )
)


_PREFIXED = {  # units of one kind, and the power of ten between them
    "Wh": {"kWh": 3, "MWh": 6, "GWh": 9, "TWh": 12},
    "W": {"W": 0, "kW": 3, "MW": 6, "GW": 9},
    "g": {"mg": -3, "g": 0, "kg": 3, "t": 6},
    "m": {"mm": -3, "cm": -2, "m": 0, "km": 3},
    "l": {"ml": -3, "l": 0, "m3": 3},
    "s": {"ms": -3, "second": 0},
    "Pa": {"Pa": 0, "kPa": 3, "bar": 5, "MPa": 6},
    "Hz": {"Hz": 0, "kHz": 3, "MHz": 6, "GHz": 9},
    "B": {"KB": 3, "MB": 6, "GB": 9, "TB": 12},
    "m2": {"m2": 0, "ha": 4, "km2": 6},
}
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_KIND_OF = {unit: (kind, power) for kind, units in _PREFIXED.items() for unit, power in units.items()}
_ANY_UNIT = re.compile(rf"(?<![A-Za-z]){_UNIT.pattern}")
_ANY_SCALE = re.compile(
    r"(?<![A-Za-z])(?:(?P<word>thousand|million|billion)s?(?![A-Za-z])|(?P<chinese>[十百千]?[亿万]))", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number in a text: `start` and `end` are the place of number, scale and unit in the text as `folded`."""

    value: Decimal
    unit: str  # canonical; '' where none of those that are known stands beside the number
    start: int
    end: int
    decimals: int  # as written
    plain: bool  # digits alone: 1998, as against 1,998 or 1998 km
    power: int = 0  # of ten, by the word beside it: 6 in "12.4 million"

    @property
    def is_year(self) -> bool:
        """Digits that are more likely a year than a count."""
        return self.plain and not self.decimals and 1900 <= self.value <= 2100 and self.unit in ("", "year")


@dataclass(frozen=True, slots=True)
class Date:
    """A date as far as it is given; 0 = not said."""

    year: int
    month: int
    day: int
    start: int
    end: int

    @property
    def parts(self) -> tuple[int, int, int]:
        return self.year, self.month, self.day


def folded(text: str) -> str:
    """NFKC on one line; a raised exponent stays apart from its base."""
    text = _SUPERSCRIPT.sub(lambda m: "^" + m[0], text)
    return " ".join(unicodedata.normalize("NFKC", text).split())


def quantities(text: str) -> list[Quantity]:
    """Every number of a `folded` text, in order; ordinals, fractions and numbers within names are left out."""
    found = [*_arabic(text), *_words(text), *_chinese(text)]
    found.sort(key=lambda q: q.start)
    kept: list[Quantity] = []
    for quantity in found:  # "3 million" and the "million" in it, "5.2亿" and "亿"
        if not kept or quantity.start >= kept[-1].end:
            kept.append(quantity)
    return kept


def scales(text: str) -> dict[str, set[int]]:
    """The powers of ten that units and words like "million" of a text stand for, by the kind of unit ("" = words)."""
    found: dict[str, set[int]] = {}
    for m in _ANY_UNIT.finditer(text):
        kind, power = _KIND_OF.get(_UNIT_NAMES[int((m.lastgroup or "u0")[1:])], ("", 0))
        if kind:
            found.setdefault(kind, set()).add(power)
    for m in _ANY_SCALE.finditer(text):
        found.setdefault("", set()).add(_SCALES[m["word"].lower() if m["word"] else m["chinese"]])
    return found


def units(text: str) -> set[str]:
    """The units that a text names."""
    return {_UNIT_NAMES[int(m.lastgroup[1:])] for m in _ANY_UNIT.finditer(text) if m.lastgroup}


def in_unit(q: Quantity, wanted: set[str]) -> Quantity:
    """A quantity in the one of the wanted units that measures the same; as it is where there is none."""
    kind, power = _KIND_OF.get(q.unit, ("", 0))
    for unit in sorted(wanted - {q.unit}):
        if kind and _KIND_OF.get(unit, ("", 0))[0] == kind:
            return replace(q, value=q.value.scaleb(power - _KIND_OF[unit][1]), unit=unit)
        if q.unit in _SECONDS and unit in _SECONDS:
            return replace(q, value=q.value * _SECONDS[q.unit] / _SECONDS[unit], unit=unit)
    return q


def _arabic(text: str) -> Iterator[Quantity]:
    for m in _ARABIC.finditer(text):
        if m["fraction"]:
            continue
        if m["european"]:
            digits = m["european"].replace(".", "").replace(",", ".")
        else:
            digits = (m["grouped"] or m["plain"] or m["dotted"].replace(".", "")).replace(",", "") + (
                m["decimals"] or ""
            )
        end, closed = m.end(), False
        opened = bool(m["open"]) or m["inner"] == "("
        end, power = _scaled(text, end)
        end, unit = _with_unit(text, end)
        if opened and (close := re.compile(r" ?\) ?(%)?").match(text, end)):
            closed, end = True, close.end()
            unit = unit or ("%" if close[1] else "")
        currency = m["currency"] or ""
        unit = unit if unit else _CURRENCIES.get(currency, currency)
        negative = closed or bool(m["sign"]) or (m["inner"] or "(") != "("
        value = Decimal(digits).scaleb(power)
        start = m.start() if closed or not m["open"] else m.end("open")
        yield Quantity(
            value=-value if negative else value,
            unit=unit,
            start=start,
            end=end,
            decimals=len(digits.partition(".")[2]),
            plain=bool(m["plain"]) and not power and not currency and not negative,
            power=power,
        )


def _scaled(text: str, end: int) -> tuple[int, int]:
    """Where the word "million" ends, if it stands here, and its power of ten."""
    m = _SCALE.match(text, end)
    if not m:
        return end, 0
    name = m["word"].lower() if m["word"] else m["chinese"] or m["letter"]
    return m.end(), _SCALES[name]


def _with_unit(text: str, end: int) -> tuple[int, str]:
    m = _UNIT.match(text, end)
    return (m.end(), _UNIT_NAMES[int(m.lastgroup[1:])]) if m and m.lastgroup else (end, "")


def _words(text: str) -> Iterator[Quantity]:
    for m in _WORD.finditer(text):
        value = _WORDS[(m["tens"] or m["small"]).lower()] + (_WORDS[m["ones"].lower()] if m["ones"] else 0)
        end, power = _scaled(text, m.end())
        end, unit = _with_unit(text, end)
        yield Quantity(Decimal(value).scaleb(power), unit, m.start(), end, 0, False, power)


def _chinese(text: str) -> Iterator[Quantity]:
    for m in _CHINESE.finditer(text):
        value = chinese_number(m["share"] or m[0])
        if value is None or _SECTION_WORD.search(text, 0, m.start()):
            continue
        end, unit = (m.end(), "%") if m["share"] else _with_unit(text, m.end())
        counted = bool(unit) or bool(_MEASURE.match(text, m.end()))
        lone = (m.start() == 0 or not text[m.start() - 1].isalpha()) and (end == len(text) or not text[end].isalpha())
        if counted or lone or (len(m[0]) > 1 and any(c in "十百千" for c in m[0])):
            decimals = len(m[0].partition("点")[2])
            yield Quantity(value, unit, m.start(), end, decimals, False)


def chinese_number(text: str) -> Decimal | None:
    """The value of a Chinese numeral (三十二, 一亿二千万, 二〇二三, 三点五); None where it is none."""
    whole, point, rest = text.partition("点")
    if point:
        value = chinese_number(whole)
        if value is None or not rest or not all(c in _CHINESE_DIGITS for c in rest):
            return None
        return value + Decimal("0." + "".join(str(_CHINESE_DIGITS[c]) for c in rest))
    if whole and all(c in _CHINESE_DIGITS for c in whole):  # 二〇二三 is a year; 三四 is "three or four", 一一三 a name
        return Decimal("".join(str(_CHINESE_DIGITS[c]) for c in whole)) if len(whole) in (1, 4) else None
    total = section = digit = 0
    fresh = False  # a digit waits for its unit
    for c in whole:
        if c in _CHINESE_DIGITS:
            if fresh and digit:
                return None
            digit, fresh = _CHINESE_DIGITS[c], True
        elif c in "十百千":
            power = {"十": 10, "百": 100, "千": 1000}[c]
            if not fresh and c != "十":
                return None
            section, digit, fresh = section + (digit if fresh else 1) * power, 0, False
        else:
            section += digit
            if not section and not total:
                return None
            power = 10**4 if c == "万" else 10**8
            total = (total + section) * power if power > total else total + section * power
            section = digit = 0
            fresh = False
    return Decimal(total + section + digit) if whole else None


def dates(text: str) -> list[Date]:
    """Every date of a `folded` text, the fullest reading of each; a bare year is none."""
    found: list[Date] = []
    for pattern in _DATES:
        for m in pattern.finditer(text):
            date = _date(m)
            if date and all(m.end() <= d.start or m.start() >= d.end for d in found):
                found.append(date)
    return sorted(found, key=lambda d: d.start)


def _date(m: re.Match[str]) -> Date | None:
    given = m.groupdict()
    if given.get("first"):  # 13/04/2023 is a date, 03/04/2023 is one of two
        first, second = int(given["first"]), int(given["second"])
        if first > 12 >= second or first == second:
            day, month = first, second
        elif second > 12 >= first:
            day, month = second, first
        else:
            return None
        year = int(given["year"])
    else:
        year, month, day = (_part(given.get(key)) for key in ("year", "month", "day"))
    if month > 12 or day > 31 or (year and not 1500 <= year <= 2100) or (day and not month):
        return None
    return Date(year, month, day, m.start(), m.end())


def _part(text: str | None) -> int:
    if not text:
        return 0
    if text.lower() in _MONTHS:
        return _MONTHS[text.lower()]
    if text.isascii() and text.isdigit():
        return int(text)
    value = chinese_number(text)
    return 99_999 if value is None else int(value)
