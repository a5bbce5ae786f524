"""Recomputes the answer of a calculation from the numbers that its question quotes.

The wording says which operations may be meant, the quotes hold the operands. Where one operation is asked for and none
of its results over the operands is the answer, the answer is wrong. Where the wording asks for several steps, they are
tried one after another; where operands are missing nothing is said.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from synth.anchors import without_names
from synth.grounding import STOP_WORDS, contains, tokens
from synth.quantities import Quantity, folded, quantities

SIGNS = re.compile(r"\b(?:per ?cent(?:age)?|currency|%)[- ]signs?\b|百分号", re.IGNORECASE)  # how to write the answer
CODE = re.compile(r"(?<![\w.])[A-Za-z]{0,9}\d{1,9}(?:-[A-Za-z]{0,9}\d{1,9}){1,3}[A-Za-z]{0,9}(?![\w.]\d)")
MAX_OPERANDS = 60
MAX_CHOICES = 600  # of one number a quote
MAX_STEPS = 60  # results of a first step that a second one uses
QUOTED = re.compile(r"[\"“「《][^\"”」》]{1,300}[\"”」》]")  # names of rows and tables say nothing about the operation
NUMBERING = re.compile(r"^\d{1,2}(?:(?:\.\d{1,2})+[.)]?|[.)]) (?=\D)")
PAGE_COUNT = re.compile(r"\bhow many pages\b|多少页|几页", re.IGNORECASE)
YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")
UNIT_NOTE = re.compile(r"\([^()]*\)")
POINTS = re.compile(r"\bper ?cent(?:age)? points?\b|百分点", re.IGNORECASE)  # a difference, not a change in percent
COUNTABLE = 20  # a larger number is no count of what is quoted
REACH = 24  # characters from "more than" to its number
SMALL = Decimal("1e-9")

CHANGE = (
    r"(?:\b(?:increas|decreas|chang|grow|fall|drop|declin|reduc|gain)\w*|\b(?:grew|fell|rose|ris(?:es?|en|ing))\b"
    r"|增长|下降|提高|降低|减少|增加|上升|变化|降幅|增幅|同比)"
)
DIFFERENCE = r"\bdiffer\w*|\bminus\b|\bsubtract|\bgap\b|\bexceed|相差|差额|差距|之差"
SIZE = "[多少高低大小长短重轻快慢贵]"
INTENTS = {
    "change": re.compile(
        rf"(?:per ?cent\w*|%|rate)(?:\W+\w+){{0,12}}?\W+{CHANGE}"
        rf"|{CHANGE}(?:\W+\w+){{0,12}}?\W+(?:per ?cent\w*|%)"
        r"|增长率|增幅|降幅|同比|(?:增长|下降|提高|降低|减少|增加|上升)了?百分之",
        re.IGNORECASE,
    ),
    "share": re.compile(
        r"\b(?:share|proportion|fraction|percentage|per ?cent|margin)\b|%|占.{0,20}(?:百分|比例|比重)|占比|比重|利润率",
        re.IGNORECASE,
    ),
    "difference": re.compile(
        rf"{DIFFERENCE}|\bby how (?:much|many)\b|\bhow much did\b|{CHANGE}|\bby what\b|\bhow (?:far|long)\b"
        r"|\b(?:surplus|deficit|left over|remain\w*)\b"
        r"|\bhow (?:much|many)(?: \w+){0,6}? (?:more|less|fewer|higher|lower|larger|smaller|greater|longer|shorter|"
        r"heavier|lighter|older|newer|faster|slower|cheaper|wider|deeper|taller|above|below)\b"
        rf"|{SIZE}(?:多少|几|出)|(?<!百分)比(?![例率重值分]).{{1,60}}{SIZE}|(?:增加|减少|增长|下降)了?多少",
        re.IGNORECASE,
    ),
    "sum": re.compile(
        r"\b(?:sum|total|together|combined|altogether|overall|in all|add(?:ed|ing)?)\b"
        r"|合计|总共|一共|之和|总和|总计|总额|共计|共需|共有?(?:多少|几)",
        re.IGNORECASE,
    ),
    "mean": re.compile(r"\b(?:averages?|mean)\b|平均", re.IGNORECASE),
    "ratio": re.compile(r"\bratio\b|\btimes\b|\bdivided\b|倍|之比|比率", re.IGNORECASE),
    "per": re.compile(r"\bper (?!cent|year\b)|\bfor each\b|\beach\b|每", re.IGNORECASE),
    "product": re.compile(r"\bmultipl|\bproduct of\b|\bat a rate|乘|总价", re.IGNORECASE),
    "count": re.compile(r"\bhow many\b|\bnumber of\b|\bcount\b|多少[个项家种条座台]|几[个项家种条座台]", re.IGNORECASE),
}
THRESHOLD = re.compile(
    r"(?P<more>(?:more|greater|higher|larger|longer|heavier|better) than|over|above|exceed\w*|大于|超过|高于|多于|超出)"
    r"|(?P<less>(?:less|fewer|lower|smaller|shorter) than|under|below|小于|低于|少于|不足)"
    r"|(?P<least>at least|no (?:less|fewer) than|不少于|不低于|至少)|(?P<most>at most|no more than|up to|不超过|至多)"
    r"|(?P<same>exactly|equal to|(?:interval|value|score|price) of|等于|恰好|正好)",
    re.IGNORECASE,
)
LARGEST = re.compile(
    r"\b(?:largest|highest|most|biggest|greatest|longest|heaviest|best|maximum|top|latest|fastest|older|oldest|larger|higher|"
    r"greater|bigger|more|longer|heavier)\b|最[多高大长重快晚贵]|更[多高大长重快]",
    re.IGNORECASE,
)
SMALLEST = re.compile(
    r"\b(?:smallest|lowest|least|fewest|shortest|lightest|worst|minimum|earliest|slowest|cheapest|smaller|lower|fewer|less|"
    r"shorter|lighter)\b|最[少低小短轻慢早]|更[少低小短轻慢]",
    re.IGNORECASE,
)
FALL = re.compile(r"\b(?:decreas|declin|drop|fall|fell|reduc|los[st])\w*|下降|减少|降低|降幅", re.IGNORECASE)
CHOICE = re.compile(r"\b(?:which|who|whose|what|where|when|name the)\b|哪|谁|什么|何", re.IGNORECASE)
SPAN = re.compile(
    r"\bhow many years\b|\bhow long\b|\byears? (?:after|before|between|apart)\b|多少年|几年", re.IGNORECASE
)
ANY = ("difference", "sum", "mean", "ratio", "share", "change", "product")
FACTORS = range(2, 13)
FEW_OPERANDS = 4  # so few give few results: any operation is tried, for no list of words knows every wording
WEAK = ("sum", "count", "per")  # "total revenue", "how many", "per hour": asked for only where nothing else is


@dataclass(frozen=True, slots=True)
class Recomputed:
    """`matches`: True, False, or None where nothing can be said; `detail` shows how."""

    matches: bool | None
    detail: str


def recompute(
    question: str, answer: str, answer_format: str, quotes: Sequence[str], texts: Sequence[str]
) -> Recomputed:
    """Whether the quotes give the answer.

    Args:
        question: its wording says what to compute.
        answer: as in `Question`.
        answer_format: Integer and Float are recomputed; a String that names one of the quoted rows is compared.
        quotes: the operands.
        texts: of the evidence pages, one block a line; the headers of tables tell which number belongs to which year.
    """
    asked = SIGNS.sub(" ", without_names(folded(question)))
    spans = SPAN.search(asked) is not None
    rows = [_operands(q, with_years=spans) for q in quotes]
    if sum(map(len, rows)) < 2:
        return Recomputed(None, "the quotes hold fewer than two numbers")
    if sum(map(len, rows)) > MAX_OPERANDS:
        return Recomputed(None, f"the quotes hold more than {MAX_OPERANDS} numbers")
    if PAGE_COUNT.search(asked):
        return Recomputed(None, "a count of pages")
    years = sorted({int(q.value) for q in quantities(asked) if q.is_year})
    if len(years) == 1 and re.search(CHANGE, asked, re.IGNORECASE):
        years = [years[0] - 1, years[0]]  # "by how much did it fall in 2023?"
    intents = _intents(QUOTED.sub(" ", asked))
    named = "" if "per" in intents else asked  # hours and birds are two columns of "birds per hour"
    pairs = [(q, r) for q, r in zip(quotes, rows, strict=True) if r]
    chosen = [_columns(r, _header(q, len(r), texts), years, named) for q, r in pairs]
    operands = chosen if sum(map(len, chosen)) > 1 else [r for _, r in pairs]
    if answer_format == "String":
        return _compared(asked, answer, [q for q, _ in pairs], operands, years)
    wanted = quantities(folded(answer))
    if answer_format == "List" or len(wanted) != 1:
        return Recomputed(None, "the answer is no single number")
    return _calculated(asked, wanted[0], operands, intents, years)


def _calculated(
    asked: str, wanted: Quantity, operands: Sequence[Sequence[Quantity]], intents: Sequence[str], years: Sequence[int]
) -> Recomputed:
    """Whether an operation that the wording may mean gives the number; over few operands, whether any does."""
    given = [q for q in quantities(asked) if not q.is_year and any(c.isdigit() for c in asked[q.start : q.end])]
    strong = [i for i in intents if i not in WEAK]
    meant = [*strong, "difference"] if strong == ["mean"] else strong or list(intents)  # "on average, how many more"
    if "per" in intents and "per" not in meant and strong == ["mean"]:
        meant.append("per")
    steps = len(strong) > 1 or (len(strong) == 1 and "sum" in intents)
    few = not strong and sum(map(len, operands)) <= FEW_OPERANDS
    few = few and ("count" not in intents or wanted.value > COUNTABLE)
    tried = 0
    for plain in (False, True):  # in a table "in millions" the answer is 12.4, not 12400000
        values = [[_value(q, plain) for q in r] for r in operands]
        extra = [_value(q, plain) for q in given]
        goal = abs(_value(wanted, plain))
        for kinds in (meant, ANY) if few else (meant,):
            for how, result in _results(kinds, values, extra, years, asked):
                tried += 1
                if _equal(result, goal, wanted.decimals):
                    return Recomputed(True, how)
        if steps and any(_equal(r, goal, wanted.decimals) for r in _second_step(values, extra)):
            return Recomputed(True, "in two steps")
    if not tried:
        return Recomputed(None, "no operation is known that the question may ask for")
    shown = ", ".join(f"{_value(q, True):f}" for q in itertools.islice(itertools.chain(*operands), 8))
    return Recomputed(
        False, f"{wanted.value:f} follows from none of {', '.join(meant) or 'the operations'} over {shown}"
    )


def _intents(asked: str) -> list[str]:
    """The operations that the wording may mean: "how many times larger" is a ratio, "fell by 5 %" a change."""
    found = [name for name, pattern in INTENTS.items() if pattern.search(asked)]
    if (
        {"change", "ratio"} & set(found)
        and not POINTS.search(asked)
        and not re.search(DIFFERENCE, asked, re.IGNORECASE)
    ):
        found = [name for name in found if name != "difference"]
    if POINTS.search(asked):
        return [name for name in found if name not in ("change", "share")]
    return [name for name in found if name != "share" or not {"change", "mean"} & set(found)]


def _operands(quote: str, with_years: bool) -> list[Quantity]:
    text = CODE.sub(" ", NUMBERING.sub("", without_names(folded(quote))))
    return [q for q in quantities(text) if with_years or not q.is_year]


def _value(q: Quantity, plain: bool) -> Decimal:
    return q.value.scaleb(-q.power) if plain else q.value


def _equal(result: Decimal, goal: Decimal, decimals: int) -> bool:
    """Rounded to the decimals of the answer, or cut off there; whole numbers exactly where the result is one."""
    slack = Decimal(1).scaleb(-decimals)
    if not decimals:
        slack = Decimal("0.5") if result % 1 else Decimal(0)
    return abs(abs(result) - goal) <= slack - (SMALL if decimals else 0) or abs(abs(result) - goal) <= SMALL


# ---------------------------------------------------------------------------------------------------------- columns


def _header(quote: str, count: int, texts: Sequence[str]) -> list[str]:
    """Names of the columns that the `count` numbers of a quoted row stand in, [] where no table tells."""
    wanted = {w for w in tokens(quote) if w[0].isdecimal()}
    for lines in (block.split("\n") for text in texts for block in text.split("\n\n")):
        row = next((i for i, line in enumerate(lines) if i and wanted <= set(tokens(line))), 0)
        for line in lines[:row]:
            found = quantities(UNIT_NOTE.sub(" ", folded(line)))
            cells = [c for c in line.split("\t") if c.strip()]
            if not all(q.is_year for q in found):
                continue
            if len(found) == count > 1 and len({q.value for q in found}) == count and len(cells) < count:
                return [str(q.value) for q in found]
            if len(cells) in (count, count + 1):
                return cells[-count:]  # without the name of the rows
            if len(cells) > count and all(YEAR.search(c) for c in cells[-count:]):
                return cells[-count:]  # a cell before the first year is empty in this row
    return []


def _columns(row: list[Quantity], names: Sequence[str], years: Sequence[int], asked: str) -> list[Quantity]:
    """The numbers of a row in the columns that the question names by their words and years, in the order of years."""
    if len(row) != len(names):
        return row
    own = [set(tokens(UNIT_NOTE.sub(" ", folded(name)))) - STOP_WORDS for name in names]
    of_year = [next((int(m[0]) for m in YEAR.finditer(name)), 0) for name in names]
    words = set(tokens(asked)) | {str(y) for y in years}
    named = [i for i, name in enumerate(own) if name and name <= words]
    if not named and len(set(of_year)) == len(names):
        named = [i for i, year in enumerate(of_year) if year in years]
    if set(years) <= {of_year[i] for i in named}:
        named.sort(key=lambda i: of_year[i])
    return [row[i] for i in named] or row


# ------------------------------------------------------------------------------------------------------- operations

Result = tuple[str, Decimal]


def _results(
    intents: Sequence[str],
    rows: Sequence[Sequence[Decimal]],
    extra: Sequence[Decimal],
    years: Sequence[int],
    asked: str,
) -> Iterator[Result]:
    """Every result that the operations meant may have."""
    kinds = set(intents or ANY)
    sets = list(_sets(rows))
    pairs = list(_pairs(rows, extra))
    ordered = len(years) == 2 and all(len(r) == 2 for r in rows)
    if "difference" in kinds:
        yield from ((f"{a} - {b}", a - b) for a, b in pairs)
    if "change" in kinds:
        for a, b in [(r[1], r[0]) for r in rows] if ordered else pairs:
            if b:
                yield f"({a} - {b}) / {b}", 100 * (a - b) / b
    if "share" in kinds and not ("change" in kinds and ordered):
        yield from ((f"{a} / {b}", 100 * a / b) for a, b in pairs if b)
        for values in sets:
            total = sum(values)
            yield from ((f"{v} / {total}", 100 * v / total) for v in values if total)
    if kinds & {"ratio", "per"}:
        yield from ((f"{a} / {b}", a / b) for a, b in pairs if b)
    if "product" in kinds:
        yield from ((f"{a} * {b}", a * b) for a, b in pairs)
    if "sum" in kinds:
        yield from ((" + ".join(map(str, values)), sum(values, Decimal(0))) for values in sets)
        factors = [
            q.value for q in quantities(asked) if q.value in FACTORS and not q.value % 1
        ]  # "and two reservations"
        few = [values for values in sets if len(values) <= FEW_OPERANDS]
        yield from ((f"{f} times {v}, and", sum(vs, (f - 1) * v)) for vs in few for v in vs for f in factors)
    if "mean" in kinds:
        yield from ((f"mean of {len(values)}", sum(values, Decimal(0)) / len(values)) for values in sets if values)
    if "count" in kinds:
        yield from _counts(rows, asked)


def _sets(rows: Sequence[Sequence[Decimal]]) -> Iterator[Sequence[Decimal]]:
    """What may be added up: all numbers, a column, one number of every quote, the numbers of one quote."""
    yield [v for r in rows for v in r]
    if len(rows) > 1:
        if len({len(r) for r in rows}) == 1:
            yield from zip(*rows, strict=True)
        else:
            yield from itertools.islice(itertools.product(*rows), MAX_CHOICES)
    yield from (r for r in rows if len(r) > 1)
    yield from (p for r in rows if len(r) > 2 for p in itertools.combinations(r, 2))


def _pairs(rows: Sequence[Sequence[Decimal]], extra: Sequence[Decimal]) -> Iterator[tuple[Decimal, Decimal]]:
    """Two numbers of one quote, of one column, of two quotes of different shape, or one of the question's."""
    for row in rows:
        yield from itertools.permutations(row, 2)
    for one, other in itertools.permutations(rows, 2):
        same = len(one) == len(other) and len(one) > 1
        yield from zip(one, other, strict=True) if same else itertools.product(one, other)
    yield from itertools.chain.from_iterable(((v, e), (e, v)) for r in rows for v in r for e in extra)


def _second_step(rows: Sequence[Sequence[Decimal]], extra: Sequence[Decimal]) -> Iterator[Decimal]:
    values = [v for r in rows for v in r]
    steps: Iterable[Decimal] = [*values, *extra]
    firsts = [sum(s, Decimal(0)) for s in _sets(rows)]
    firsts += [sum(s, Decimal(0)) / len(s) for s in _sets(rows) if s]
    firsts += [a - b for a, b in _pairs(rows, extra)]
    known = list(dict.fromkeys([*steps, *firsts]))[:MAX_STEPS]
    for a, b in itertools.permutations(known, 2):
        yield a - b
        if b:
            yield a / b
            yield 100 * a / b
            yield 100 * (a - b) / b


def _counts(rows: Sequence[Sequence[Decimal]], asked: str) -> Iterator[Result]:
    """How many quotes of one number are beyond the one that the question names."""
    named = ((m, q) for m in THRESHOLD.finditer(asked) for q in quantities(asked[m.end() : m.end() + REACH])[:1])
    m, quantity = next(named, (None, None))
    if not m or not quantity or {len(r) for r in rows} != {1}:
        return
    limit, column = quantity.value, [r[0] for r in rows]
    hits = {
        "more": sum(v > limit for v in column),
        "less": sum(v < limit for v in column),
        "least": sum(v >= limit for v in column),
        "most": sum(v <= limit for v in column),
        "same": sum(v == limit for v in column),
    }
    yield f"{m[0]} {limit}", Decimal(hits[str(m.lastgroup)])


# ------------------------------------------------------------------------------------------------------ comparisons


def _compared(
    asked: str, answer: str, quotes: Sequence[str], operands: Sequence[Sequence[Quantity]], years: Sequence[int]
) -> Recomputed:
    """Whether the quoted row that the answer names is the largest or smallest in anything that may be meant."""
    largest, smallest = bool(LARGEST.search(asked)), bool(SMALLEST.search(asked))
    if not CHOICE.search(asked) or largest == smallest:
        return Recomputed(None, "the question asks for no largest or smallest")
    rows = [[q.value for q in r] for r in operands]
    widths = {len(r) for r in rows}
    named = [i for i, quote in enumerate(quotes) if contains(quote, answer)]
    if len(rows) < 2 or len(widths) != 1 or 0 in widths or len(named) != 1:
        return Recomputed(None, "the quotes are not one row for each that is compared")
    scores = _scores(list(zip(*rows, strict=True)), asked, in_time=len(years) == 2)
    best = max if largest else min
    if any(score[named[0]] == best(score) for score in scores):
        return Recomputed(True, "compared")
    return Recomputed(
        False, f"{answer} is not the {'largest' if largest else 'smallest'} of the quoted rows in anything"
    )


def _scores(columns: Sequence[Sequence[Decimal]], asked: str, in_time: bool) -> list[list[Decimal]]:
    """What the rows may be compared by: a column, or how two columns differ; `in_time`: they are two years in order."""
    between = any(INTENTS[name].search(asked) for name in ("difference", "change", "ratio", "share", "per"))
    if len(columns) == 1 or not between:
        return [list(c) for c in columns]
    pairs = list(itertools.permutations(columns, 2))
    if in_time and len(columns) == 2 and not re.search(DIFFERENCE, asked, re.IGNORECASE):
        earlier, later = columns
        pairs = [(earlier, later)] if FALL.search(asked) else [(later, earlier)]
    scores = []
    for a, b in pairs:
        scores.append([x - y for x, y in zip(a, b, strict=True)])
        if len(pairs) > 1:
            scores.append([abs(x - y) for x, y in zip(a, b, strict=True)])
        if all(b):
            scores.append([x / y for x, y in zip(a, b, strict=True)])
    return scores
