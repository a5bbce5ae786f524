"""Recomputes the answer of a calculation from the numbers that its question quotes.

The wording says which operations may be meant, in which direction, and of what a share or ratio is taken; the quotes
hold the operands. Where one operation is asked for and none of its results over the operands is the answer, the answer
is wrong. Where the wording asks for several steps, they are tried one after another; where it is unknown, any operation
will do; where operands are missing nothing is said.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from statistics import median

from synth.cells import PERCENT, UNIT_NOTE, Grid, is_quoted, quoted_rows
from synth.clauses import coded, codes_of
from synth.comparisons import Recomputed, compared, in_time, move, moves
from synth.counts import count_rows
from synth.grounding import CJK, STOP_WORDS, contains, tokens
from synth.labels import without_names
from synth.operands import CODE, YEAR, Operand, in_columns, operands, with_headers
from synth.quantities import Quantity, folded, in_unit, quantities, scales, units
from synth.time_spans import span_matches
from synth.wording import (
    CHANGE,
    CHANGED_BY,
    COMPARED_YEARS,
    COUNTED_ROWS,
    EXTREMES,
    FALL,
    HOW_TO_WRITE,
    LARGEST,
    QUOTED,
    RANK,
    RATE,
    REMOVAL,
    RISE,
    SMALLEST,
    STEADILY,
    THRESHOLD,
    TIMES,
    TOTAL,
    WEAK,
    WHICH_YEAR,
    YEAR_RANGE,
    base_phrases,
    direction,
    intents,
)

MAX_OPERANDS = 60
MAX_CHOICES = 600  # of one number a quote
MAX_CHARS = 10_000  # of quotes and pages, in which units are looked for
MAX_STEPS = 60  # results of a first step that a second one uses
PAGE_COUNT = re.compile(r"\bhow many pages\b(?! (?:more|fewer|less|longer))|(?<![多少])多少页|几页", re.IGNORECASE)
COUNTABLE = 20  # a larger number is no count of what is quoted
REACH = 24  # characters from "more than" to its number
YEAR_AND_NUMBER = re.compile(
    r"(?<!\d)(?P<year>(?:19|20)\d\d) ?年? ?(?:[:：,(为是]|was|were)? ?(?P<number>\d[\d,]*(?:\.\d+)?)"
)
SINCE = re.compile(  # one number is so much more or less than it was
    r"(?:(?P<up>\d\S* (?:\w+ )?(?:more|higher|longer))|\d\S* (?:\w+ )?(?:less|fewer|lower|shorter)) than (?:in )?"
    r"(?:(?:19|20)\d\d|the (?:year before|previous year))"
    r"|[比较](?:上年|去年|前一?年|(?:19|20)\d\d年)(?:同期)?(?:(?P<up2>增[长加]?|多|上升|提高|上涨)|减少?|少|下降|降低|下跌)了?"
)
AMOUNT = re.compile(r"\bhow (?:many|much)\b(?! (?:times|per ?cent)\b)|多少(?!倍|个?百分)", re.IGNORECASE)
RATE_UNIT = re.compile(
    r"(?:\bper|\ban?) (?P<unit>hour|day|week|month|minute|second|night|square met(?:er|re)|cubic met(?:er|re)|hectare"
    r"|lit(?:er|re)|kilogram|tonne|ton|kilomet(?:er|re))s?\b"
    r"|每(?P<unit2>小时|天|日|周|月|分钟|秒|晚|平方米|立方米|公顷|升|公斤|千克|吨|公里)",
    re.IGNORECASE,
)
PERCENT_WORD = re.compile(r"\b(?:per ?cent\w*|proportion|fraction|ratio)\b|%|百分|比例|比重|占比", re.IGNORECASE)
ALL_OF_THEM = re.compile(r"\b(?:all|total|average|mean|every|to M?\d)\b|总|平均|各|[至到]第", re.IGNORECASE)
FEW_ROWS = 3
MAX_LIMIT = 10  # times the largest number of a column; a larger limit is in another unit
SMALL = Decimal("1e-9")
ROUNDED = Decimal("0.05")  # of an answer in another unit
SPAN = re.compile(
    r"\bhow many years\b|\bhow long\b|\byears? (?:after|before|between|apart)\b|多少年|几年", re.IGNORECASE
)
ANY = ("difference", "sum", "mean", "ratio", "share", "change", "product", "portion", "rest")
FACTORS = range(2, 13)
MIN_CHINESE = 3  # characters of a name that is more than a word
FEW_OPERANDS = 4  # so few give few results: any operation is tried, for no list of words knows every wording


@dataclass(frozen=True, slots=True)
class Meant:
    """What the wording asks for."""

    kinds: tuple[str, ...]  # operations; of several, one may be applied to the result of another
    two_steps: bool
    any_kind: bool  # whether the wording is unknown, so that any operation may be meant
    over_time: bool  # asks for a change, so that the earlier number comes first
    direction: int  # 1 = of a rise, or of a larger number; -1 = of a fall, or of a smaller one; 0 = not told
    powers: tuple[int, ...]  # of ten, between a result in the units of the quotes and the answer


@dataclass(frozen=True, slots=True)
class Numbers:
    """The operands as plain numbers, in one of two readings of "in millions"."""

    rows: tuple[tuple[Decimal, ...], ...]
    extra: tuple[Decimal, ...]  # those that stand in the question
    bases: frozenset[Decimal]  # what a share or ratio is taken of; empty where that is not told
    totals: bool  # whether a share may be one of a sum
    percents: frozenset[Decimal]
    timed: tuple[bool, ...]  # for each row whether it is an earlier and a later number
    a_year_each: tuple[tuple[Decimal, ...], ...]  # of a row with two numbers for a year, a budget and a result
    changed: bool  # whether the quotes give a change beside what it led to


def recompute(
    question: str,
    answer: str,
    answer_format: str,
    quotes: Sequence[str],
    texts: Sequence[str],
    tables: Sequence[Grid] = (),
) -> Recomputed:
    """Whether the quotes give the answer.

    Args:
        question: its wording says what to compute.
        answer: as in `Question`.
        answer_format: numbers are recomputed; a String or List that names rows is compared.
        quotes: the operands.
        texts: of the evidence pages, one block a line; the headers of tables tell which number belongs to which year.
        tables: of these pages; they tell the cells of a quoted row.
    """
    asked = HOW_TO_WRITE.sub(" ", without_names(folded(question)))
    spans = SPAN.search(asked) is not None
    rows = [with_headers(operands(q, tables, with_years=spans), q, texts) for q in quotes]
    rows = [_of_codes(r, q, asked) for r, q in zip(rows, quotes, strict=True)]
    if sum(map(len, rows)) > MAX_OPERANDS:
        return Recomputed(None, f"the quotes hold more than {MAX_OPERANDS} numbers")
    if PAGE_COUNT.search(asked):
        return Recomputed(None, "a count of pages")
    years = sorted({int(q.value) for q in quantities(asked) if q.is_year})
    if len(years) == 1 and re.search(CHANGE, asked, re.IGNORECASE):
        years = [years[0] - 1, years[0]]  # "by how much did it fall in 2023?"
    asked = _without_titles(asked, tables)
    bare = QUOTED.sub(" ", asked)
    if WHICH_YEAR.search(bare) and (year := _year_of(answer)):
        return _extreme_year(bare, year, quotes, rows)
    wanted = quantities(folded(answer))
    labels = [tokens(r.label) for g in tables for r in g.rows if any(is_quoted(r, q) for q in quotes)]
    if answer_format in ("String", "List") and (not _is_number(answer, wanted) or tokens(answer) in labels):
        held = [(q, r) for q, r in zip(quotes, rows, strict=True) if r]
        return compared(bare, answer, answer_format, [q for q, _ in held], [r for _, r in held], years, tables)
    if answer_format == "List" or len(wanted) != 1:
        return Recomputed(None, "the answer is no single number")
    bare = _without_labels(bare, quotes, tables)
    if (span := span_matches(asked, wanted[0], quotes)) is not None:
        return Recomputed(span, "the time between two dates" if span else "no two dates are so far apart")
    if (hits := count_rows(QUOTED.sub(" ", asked), quotes, tables)) is not None and wanted[0].value <= COUNTABLE:
        return Recomputed(wanted[0].value in hits, f"{' or '.join(map(str, sorted(hits)))} of the rows are")
    if sum(map(len, rows)) < 2:
        return Recomputed(None, "the quotes hold fewer than two numbers")
    if (before := _before_change(bare, quotes, rows, wanted[0])) is not None:
        return Recomputed(before, "the number before a change")
    if YEAR_RANGE.search(bare) and len(years) == 2 and {*intents(bare)} & {"mean", "sum"} and not move(bare):
        years = list(range(years[0], years[1] + 1))
    bare = _without_rates(bare, quotes, tables)
    named = "" if "per" in intents(bare) else asked  # hours and birds are two columns of "birds per hour"
    if (counted := _counted_rows(bare, asked, rows, years)) is not None:
        return Recomputed(counted == wanted[0].value, f"{counted} of the quoted rows are")
    chosen = [in_columns(r, years, named) for r in rows if r]
    chosen = chosen if sum(map(len, chosen)) > 1 else [r for r in rows if r]
    if len(rows) > 1 and _counts_moves(bare):
        moved = _moved(bare, rows, years)
        moved = _moved(bare, [in_columns(r, years, asked) for r in rows], years) if moved is None else moved
        if moved is None:
            return Recomputed(None, "no header tells which of the numbers of a row is the earlier one")
        return Recomputed(moved == wanted[0].value, f"{moved} of the quoted rows do")
    meant = _meant(bare, asked, wanted[0], chosen, quotes, texts)
    changed = any(CHANGED_BY.search(q) for q in quotes)
    others = _in_asked_unit(chosen, asked)
    mixed = len({o.number.unit for r in chosen for o in r}) > len({o.number.unit for r in others for o in r}) > 0
    found = None if mixed else _calculated(asked, wanted[0], meant, chosen, changed)
    if others and not (found and found.matches):
        scaled = _calculated(asked, wanted[0], replace(meant, powers=(0,)), others, changed)
        return scaled if scaled.matches or not found else found
    return found or Recomputed(None, "units that cannot be compared")


def _of_codes(row: Sequence[Operand], quote: str, asked: str) -> list[Operand]:
    """Of a list of coded numbers ("148 euros for M0, 143 for M20") those of the codes that the question names."""
    listed = {} if any(o.header for o in row) or ALL_OF_THEM.search(asked) else coded(quote)
    wanted = codes_of(QUOTED.sub(" ", asked))
    if len(wanted) < 2 or not wanted <= {*listed}:
        return list(row)
    values = {listed[code].value for code in wanted}
    return [o for o in row if o.number.value in values]


def _in_asked_unit(rows: Sequence[Sequence[Operand]], asked: str) -> list[list[Operand]]:
    """The operands in the unit that the question asks for; [] where all are in it, or in none that is known."""
    wanted = units(asked)
    made = []
    for row in rows:
        own = [replace(o.number, unit=o.number.unit or next(iter(units(o.header)), "")) for o in row]
        made.append([replace(o, number=in_unit(n, wanted)) for o, n in zip(row, own, strict=True)])
    changed = any(
        a.number.value != b.number.value
        for old, new in zip(rows, made, strict=True)
        for a, b in zip(old, new, strict=True)
    )
    return made if changed else []


def _without_titles(text: str, tables: Sequence[Grid]) -> str:
    """A question without the titles of tables that it has in quotation marks: their words are not those of a column."""
    return QUOTED.sub(lambda m: " " if any(contains(g.name, m[0]) for g in tables) else m[0], text)


def _year_of(answer: str) -> int:
    """The year that an answer is; 0 where it is none."""
    m = re.fullmatch(r"((?:19|20)\d\d) ?年?", folded(answer))
    return int(m[1]) if m else 0


def _extreme_year(bare: str, year: int, quotes: Sequence[str], rows: Sequence[Sequence[Operand]]) -> Recomputed:
    """Whether the number of a year is the largest or smallest of the one row that is quoted."""
    largest, smallest = bool(LARGEST.search(bare)), bool(SMALLEST.search(bare))
    values: dict[int, Decimal] = {}
    if len(rows) == 1 and len({o.year for o in rows[0]} - {0}) == len(rows[0]):
        values = {o.year: o.number.value for o in rows[0]}
    elif pairs := [m for q in quotes for m in YEAR_AND_NUMBER.finditer(folded(q))]:
        values = {int(m["year"]): Decimal(m["number"].replace(",", "")) for m in pairs}
    if largest == smallest or len(values) < 2 or year not in values or move(bare) or RANK.search(bare):
        return Recomputed(None, "no row tells what belongs to which year")
    best = max(values.values()) if largest else min(values.values())
    return Recomputed(values[year] == best, f"{best} is the {'largest' if largest else 'smallest'}")


def _before_change(
    bare: str, quotes: Sequence[str], rows: Sequence[Sequence[Operand]], wanted: Quantity
) -> bool | None:
    """Whether the answer is the number that a quoted change began with; None where that is not asked for.

    "19 accidents, 6 fewer than in 2022": there were 25 in 2022.
    """
    if len(quotes) != 1 or len(rows[0]) != 2 or re.search(CHANGE, bare, re.IGNORECASE) or move(bare):
        return None
    now, change = (o.number for o in rows[0])
    between = folded(quotes[0])
    told = SINCE.search(between)
    asked_years, said_years = set(YEAR.findall(bare)), set(YEAR.findall(between))
    if not told or now.decimals > 6 or not asked_years or not (asked_years - said_years or len(said_years) == 1):
        return None
    if {*intents(bare)} & {"difference", "change", "sum", "share", "ratio"} or not _earlier(
        asked_years, told, said_years
    ):
        return None
    sign = 1 if told["up"] or told["up2"] else -1
    a, b = now.value.scaleb(-now.power), change.value.scaleb(-change.power)
    before = a / (1 + sign * b / 100) if change.unit == "%" and now.unit != "%" else a - sign * b
    return _equal(before, wanted.value, wanted.decimals) or _equal(
        before.scaleb(now.power), wanted.value, wanted.decimals
    )


def _earlier(asked: set[str], told: re.Match[str], said: set[str]) -> bool:
    """Whether the year that is asked for is the one that a change is counted from."""
    than = YEAR.search(told[0])
    if than:
        return asked == {than[0]}
    return len(asked) == 1 and (not said or max(asked) < max(said))


def _without_labels(text: str, quotes: Sequence[str], tables: Sequence[Grid]) -> str:
    """A question without the names of quoted rows and of their columns: the total of "total assets" adds nothing up."""
    names = {n for g in tables for r in quoted_rows(g, quotes) for n in (r.label, *g.columns)}
    for name in sorted(names, key=len, reverse=True):
        if UNIT_NOTE.search(folded(name)):
            text = text.replace(folded(name), " ")
        bare = UNIT_NOTE.sub(" ", folded(name)).strip()
        words = tokens(bare)
        if len(words) > (MIN_CHINESE if re.search(f"[{CJK}]", bare) else 1):
            told = rf"(?<!\w){re.escape(bare)}(?!\w)" if bare.isascii() else re.escape(bare)
            text = re.sub(rf"{told}(?: ?\([^()]*\))?", " ", text)
    return text


def _without_rates(text: str, quotes: Sequence[str], tables: Sequence[Grid]) -> str:
    """A question without a rate that is a unit of the quotes or of their rows: nothing is divided by "per hour"."""
    rows = [r for g in tables for r in quoted_rows(g, quotes)]
    shown = folded(" ; ".join([*quotes, *(r.label for r in rows)])).casefold()

    def known(m: re.Match[str]) -> str:
        unit = (m["unit"] or m["unit2"]).casefold()
        return " " if re.search(rf"(?:/|per |an? |每|each |every ){re.escape(unit)}(?![a-z])", shown) else m[0]

    return RATE_UNIT.sub(known, text)


def _is_number(answer: str, wanted: Sequence[Quantity]) -> bool:
    text = folded(answer)
    return len(wanted) == 1 and not any(c.isalnum() for c in text[: wanted[0].start] + text[wanted[0].end :])


def _meant(
    bare: str,
    asked: str,
    wanted: Quantity,
    rows: Sequence[Sequence[Operand]],
    quotes: Sequence[str],
    texts: Sequence[str],
) -> Meant:
    """What the wording asks for; `bare` is without what stands in quotation marks."""
    found = intents(bare)
    percents = [o.number.unit == "%" or PERCENT.search(o.header) is not None for r in rows for o in r]
    removal = REMOVAL.search(bare) is not None and not any(percents) and "difference" not in found
    if removal:
        found = [i for i in found if i not in ("share", "ratio", "change")] + ["change"]
    elif "share" in found and AMOUNT.search(bare) and not any(percents) and not PERCENT_WORD.search(bare):
        found.remove("share")  # "without the share of the activator, how many kilograms"
    strong = [i for i in found if i not in WEAK]
    kinds = list(strong or found)
    few = sum(map(len, rows)) <= FEW_OPERANDS
    rate = bool(_given(QUOTED.sub(" ", asked))) or any(RATE.search(q) for q in quotes)  # "8 euros each"
    if "per" in found and "per" not in kinds and set(strong) <= {"mean"}:
        kinds.append("per")
    if strong == ["mean"] and "per" not in kinds and sum(map(len, rows)) == 2:
        kinds.append("per")  # of a total and a number
    if strong == ["share"] and all(percents):
        kinds += ["sum"] if "total" in found else ["sum", "difference"]  # of percentages
    if strong == ["sum"] and rate:
        kinds = ["product"] if [len(r) for r in rows] == [2] else [*kinds, "product"]
    unknown = not strong and few and (rate or "per" not in found) and ("count" not in found or wanted.value > COUNTABLE)
    if "rest" in strong or (not strong and wanted.value > COUNTABLE):
        kinds.append("portion")
    over_time = re.search(CHANGE, bare, re.IGNORECASE) is not None and not removal
    return Meant(
        kinds=tuple(kinds),
        two_steps=len({*strong} - {"rest"}) > 1
        or (len(strong) == 1 and "total" in found)
        or (strong == ["share"] and len(rows) > 2),  # of several rows together
        any_kind=unknown,
        over_time=over_time,
        direction=-1 if removal else move(bare) if over_time else direction(bare),
        powers=_powers(asked, [*quotes, *texts]),
    )


def _given(asked: str) -> list[Quantity]:
    """The numbers that the question itself gives."""
    return [q for q in quantities(asked) if not q.is_year and any(c.isdigit() for c in asked[q.start : q.end])]


def _powers(asked: str, texts: Sequence[str]) -> tuple[int, ...]:
    """Powers of ten by which the answer may differ from a result: the quotes are in GWh, the answer is asked in MWh."""
    shown, wanted = scales(folded("\n".join(texts)[:MAX_CHARS])), scales(asked)
    words = {a - b for a in {0, *shown.get("", ())} for b in wanted.get("", {0})} | {0}
    units = {a - b for kind in {*wanted, *shown} - {""} for a in shown.get(kind, ()) for b in wanted.get(kind, ())}
    return tuple(sorted({w + u for w in words for u in {0, *units}}, key=abs))


def _counted_rows(bare: str, asked: str, rows: Sequence[Sequence[Operand]], years: Sequence[int]) -> int | None:
    """How many of the rows of a table are beyond the one limit of a question; None where no column can be told."""
    limits = _given(CODE.sub(" ", bare))
    if len(limits) != 1 or len(rows) < FEW_ROWS or "count" not in intents(bare) or not THRESHOLD.search(bare):
        return None
    if not all(r and all(o.header for o in r) for r in rows) or len({len(r) for r in rows}) != 1:
        return None
    columns = [
        [o.number.value for o in column] for column in zip(*(in_columns(r, years, asked) for r in rows), strict=False)
    ]
    for limit in (limits[0].value, limits[0].value.scaleb(-limits[0].power)):
        if len(columns) > 1:
            columns = [c for c in columns if min(c) <= limit <= max(c)] or columns
        if len(columns) == 1 and max(columns[0]) * MAX_LIMIT >= limit:
            hits = [int(n) for _, n in _counts([[v] for v in columns[0]], bare, limit)]
            return hits[0] if hits else None
    return None


def _counts_moves(bare: str) -> bool:
    """Whether a question asks how many rows rose or fell: "in how many towns did it fall?"."""
    asks = RISE.search(bare) or FALL.search(bare) or COMPARED_YEARS.search(bare)
    return bool(move(bare) and asks and COUNTED_ROWS.search(bare))


def _moved(bare: str, rows: Sequence[Sequence[Operand]], years: Sequence[int]) -> int | None:
    """How many rows rose or fell; None where that cannot be told."""
    values = [in_time(r, years) for r in rows]
    if len(values) < 2 or not all(values):
        return None
    return sum(moves(v, move(bare), bool(STEADILY.search(bare))) for v in values)


def _calculated(
    asked: str, wanted: Quantity, meant: Meant, rows: Sequence[Sequence[Operand]], changed: bool
) -> Recomputed:
    """Whether an operation that is meant gives the number."""
    tried = 0
    for plain in _readings(asked, rows):
        numbers = _numbers(asked, rows, changed, plain)
        goal = _value(wanted, plain)
        counted = len(rows) > 2 and "count" in meant.kinds and any(_counts(numbers.rows, QUOTED.sub(" ", asked)))
        for kinds in (meant.kinds, ANY) if meant.any_kind and not counted else (meant.kinds,):
            for how, result in _results(kinds, meant, numbers, goal, asked):
                tried += 1
                if _is_goal(result, goal, wanted.decimals, meant.powers):
                    return Recomputed(True, how)
        steps = _second_step(meant, numbers) if meant.two_steps else ()
        if any(_is_goal(result, goal, wanted.decimals, meant.powers) for result in steps):
            return Recomputed(True, "in two steps")
    if meant.any_kind and _given(CODE.sub(" ", QUOTED.sub(" ", asked))):
        return Recomputed(None, "the wording is unknown, and the question gives numbers of its own")
    if not tried and {*meant.kinds} <= {*WEAK, "portion"}:
        return Recomputed(None, "no operation is known that the question may ask for")
    shown = ", ".join(f"{_value(o.number, True):f}" for o in itertools.islice(itertools.chain(*rows), 8))
    return Recomputed(
        False, f"{wanted.value:f} follows from none of {', '.join(meant.kinds) or 'the operations'} over {shown}"
    )


def _readings(asked: str, rows: Sequence[Sequence[Operand]]) -> tuple[bool, ...]:
    """Whether 12.4 million is 12.4 (True) or 12400000 (False): either, if the question does not ask for millions."""
    powers = {o.number.power for r in rows for o in r}
    return (True,) if powers - {0} and powers == scales(asked).get("") else (False, True)


def _numbers(asked: str, rows: Sequence[Sequence[Operand]], changed: bool, plain: bool) -> Numbers:
    ordered = [sorted(r, key=lambda o: o.year) if in_time(r) else list(r) for r in rows]
    every = [o for r in ordered for o in r]
    bases, totals = _bases(asked, every, plain)
    return Numbers(
        rows=tuple(tuple(_value(o.number, plain) for o in r) for r in ordered),
        extra=tuple(_value(q, plain) for q in _given(QUOTED.sub(" ", asked))),
        bases=bases,
        totals=totals,
        percents=frozenset(_value(o.number, plain) for o in every if o.number.unit == "%" or PERCENT.search(o.header)),
        a_year_each=tuple(
            tuple(_value(o.number, plain) for o in choice) for r in ordered for choice in _a_year_each(r)
        ),
        timed=tuple(len(r) == 2 and bool(in_time(r)) for r in ordered),
        changed=changed,
    )


def _a_year_each(row: Sequence[Operand]) -> list[tuple[Operand, ...]]:
    """The ways to take one number for each year of a row, where a year has several; [] where none has."""
    years = [list(own) for _, own in itertools.groupby(row, lambda o: o.year)]
    if not all(o.year for o in row) or len(years) < 2 or len(years) == len(row):
        return []
    return list(itertools.islice(itertools.product(*years), MAX_STEPS))


def _bases(asked: str, every: Sequence[Operand], plain: bool) -> tuple[frozenset[Decimal], bool]:
    """The values that the wording says a share or ratio is of, and whether it may be of a sum of them."""
    for phrase, part in base_phrases(asked):
        if named := _of_named_row(phrase, every):
            return frozenset(_value(o.number, plain) for o in named), False
        if given := _given(CODE.sub(" ", phrase)):
            numbers = {w for w in tokens(YEAR.sub(" ", phrase)) if w[0].isdecimal()}
            headed = [o for o in every if numbers & {*tokens(UNIT_NOTE.sub(" ", o.header))}]
            if 0 < len(headed) < len(every):  # its 90-day strength
                return frozenset(_value(o.number, plain) for o in headed), False
            return frozenset(_value(q, plain) for q in given), False
        scores = [(o.likeness(phrase), o) for o in every]
        best = max((s for s, o in scores if s >= o.likeness(part)), default=0)
        found = [o for s, o in scores if s == best and s >= o.likeness(part)]
        if best and len(found) < len(every):
            found += [o for o in every if o not in found and not o.near.strip()]  # of a row with empty cells
            return frozenset(_value(o.number, plain) for o in found), len(found) > 1 or bool(TOTAL.search(phrase))
    return frozenset(), True


def _of_named_row(phrase: str, every: Sequence[Operand]) -> list[Operand]:
    """The numbers of the one row whose whole name begins a phrase; [] where none does, or that of all numbers."""
    words = tokens(phrase)
    while words and words[0] in STOP_WORDS:
        words = words[1:]
    rows = {o.far for o in every if o.header and o.far}
    named = [r for r in rows if tokens(r) and words[: len(tokens(r))] == tokens(r)]
    longest = max(named, key=len, default="")
    return [o for o in every if o.header and o.far == longest] if longest and len(rows) > 1 else []


def _value(q: Quantity, plain: bool) -> Decimal:
    return q.value.scaleb(-q.power) if plain else q.value


def _is_goal(result: Decimal, goal: Decimal, decimals: int, powers: Sequence[int]) -> bool:
    """Whether a result is the answer, in its unit or in another one, in which rounding leaves more than a digit."""
    if _equal(result, goal, decimals):
        return True
    scaled = [result.scaleb(p) for p in powers if p]
    return any(_equal(r, goal, decimals) and abs(abs(r) - abs(goal)) <= ROUNDED * abs(goal) for r in scaled)


def _equal(result: Decimal, goal: Decimal, decimals: int) -> bool:
    """Rounded to the decimals of the answer, or cut off there; a whole number is rounded, or exact where it can be."""
    last = Decimal(1).scaleb(-decimals)
    over = abs(result) - abs(goal)
    if not decimals:
        return abs(over) <= (Decimal("0.5") if result % 1 else SMALL)
    return abs(over) <= last / 2 + SMALL or 0 <= over < last


# ------------------------------------------------------------------------------------------------------- operations

Result = tuple[str, Decimal]


def _results(kinds: Sequence[str], meant: Meant, numbers: Numbers, goal: Decimal, asked: str) -> Iterator[Result]:
    """Every result that the operations may have."""
    wanted = set(kinds or ANY)
    sets = [*_sets(numbers.rows), *numbers.a_year_each]
    pairs = list(_pairs(numbers.rows, numbers.extra))
    if "difference" in wanted or "rest" in wanted:
        alone = meant.over_time and len(numbers.rows) == 1 and numbers.timed[0]
        extremes = _extremes(numbers.rows) if EXTREMES.search(asked) else None
        for a, b in [extremes] if extremes else [numbers.rows[0][::-1]] if alone else pairs:
            if not alone or "rest" in wanted or _agrees(a - b, meant.direction, goal, (a, b)):
                yield f"{a} - {b}", a - b
    if "rest" in wanted:
        yield from ((f"all without {p} %", 100 - p) for p in numbers.percents)
        yield from ((f"{max(vs)} without the others", 2 * max(vs) - sum(vs)) for vs in sets if len(vs) > 2)
    if "change" in wanted:
        for a, b in _changes(numbers, pairs, meant):
            if b and _agrees(a - b, meant.direction, goal, (a, b)):
                yield f"({a} - {b}) / {b}", 100 * (a - b) / b
        for a, b in pairs if numbers.changed else ():
            for before in (a - b, a + b):
                if before and (before < a) == (meant.direction > 0):
                    yield f"{b} / {before}", 100 * b / before
    if "share" in wanted and not ("change" in wanted and all(numbers.timed)):
        for how, share in _shares(numbers, sets, pairs, at_most_all="share" in meant.kinds):
            yield how, share
            if "rest" in wanted:
                yield f"all without {how}", 100 - share
    if wanted & {"ratio", "per"}:
        larger = TIMES.search(asked) and not numbers.bases
        for a, b in pairs:
            if b and (not numbers.bases or b in numbers.bases) and not (larger and abs(a) < abs(b)):
                yield f"{a} / {b}", a / b
    if "product" in wanted:
        yield from ((f"{a} * {b}", a * b) for a, b in pairs)
    if "portion" in wanted:
        for a, b in pairs:
            if a in numbers.percents:
                yield f"{a} % of {b}", a * b / 100
                yield f"{b} without {a} %", (100 - a) * b / 100
    if "sum" in wanted or "total" in wanted:
        yield from _sums(sets, asked)
    if "median" in wanted:
        yield from (("median", Decimal(median(values))) for values in sets if len(values) > 1)
    if wanted & {"mean", "product"}:
        counts = [q.value for q in quantities(asked) if q.value in FACTORS and not q.value % 1]  # "the six projects"
        every = [v for r in numbers.rows for v in r]
        if "mean" in wanted:
            yield from ((f"{v} / {n}", v / n) for v in every for n in counts)
        if "product" in wanted:
            yield from ((f"{v} * {n}", v * n) for v in every for n in counts)
    if "mean" in wanted and not ("per" in wanted and numbers.bases):
        yield from ((f"mean of {len(values)}", sum(values, Decimal(0)) / len(values)) for values in sets if values)
    if "count" in wanted:
        yield from _counts(numbers.rows, QUOTED.sub(" ", asked))


def _extremes(rows: Sequence[Sequence[Decimal]]) -> tuple[Decimal, Decimal] | None:
    """The largest and the smallest number of a row or column; None where there are several of both."""
    if len(rows) == 1 and len(rows[0]) > 1:
        return max(rows[0]), min(rows[0])
    if len(rows) > 1 and {len(r) for r in rows} == {1}:
        return max(r[0] for r in rows), min(r[0] for r in rows)
    return None


def _agrees(difference: Decimal, sign: int, goal: Decimal, values: Sequence[Decimal]) -> bool:
    """Whether a change has the direction that the question or the sign of the answer says; losses have any."""
    if min(values) < 0:
        return True
    return difference < 0 if goal < 0 else not (sign and difference * sign < 0)


def _changes(numbers: Numbers, pairs: Sequence[tuple[Decimal, Decimal]], meant: Meant) -> list[tuple[Decimal, Decimal]]:
    """The later and the earlier number of each change: by the headers, else what is said to rise begins smaller."""
    if meant.over_time and all(numbers.timed):
        return [(r[1], r[0]) for r in numbers.rows]
    return [(a, b) for a, b in pairs if not meant.direction or (a - b) * meant.direction >= 0]


def _shares(
    numbers: Numbers, sets: Sequence[Sequence[Decimal]], pairs: Iterable[tuple[Decimal, Decimal]], at_most_all: bool
) -> Iterator[Result]:
    """In percent; of a base that is told, else of any number, or of a sum."""
    for a, b in pairs:
        if b and (not numbers.bases or b in numbers.bases) and not (at_most_all and abs(a) >= abs(b)):
            yield f"{a} / {b}", 100 * a / b
    column = [r[0] for r in numbers.rows if len(r) == 1]
    for base in column if len(column) == len(numbers.rows) > 2 else ():  # all the others together
        if base and (not numbers.bases or base in numbers.bases):
            yield f"the others / {base}", 100 * (sum(column) - base) / base
    for values in sets if numbers.totals else ():
        if total := sum(values):
            yield from ((f"{v} / {total}", 100 * v / total) for v in values)


def _sums(sets: Sequence[Sequence[Decimal]], asked: str) -> Iterator[Result]:
    yield from ((" + ".join(map(str, values)), sum(values, Decimal(0))) for values in sets)
    factors = [q.value for q in quantities(asked) if q.value in FACTORS and not q.value % 1]  # "two reservations"
    few = [values for values in sets if len(values) <= FEW_OPERANDS]
    yield from ((f"{f} times {v}, and", sum(vs, (f - 1) * v)) for vs in few for v in vs for f in factors)


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


def _second_step(meant: Meant, numbers: Numbers) -> Iterator[Decimal]:
    """An operation that is meant, over the numbers and their sums, means and differences."""
    kinds = set(meant.kinds)
    sets = list(_sets(numbers.rows))
    given = [*(v for r in numbers.rows for v in r), *numbers.extra]
    sums = [sum(s, Decimal(0)) for s in sets]
    firsts = list(sums)
    if "mean" in kinds:
        firsts += [total / len(s) for total, s in zip(sums, sets, strict=True) if s]
    if kinds & {"difference", "change", "rest", "mean"}:
        firsts += [a - b for a, b in _pairs(numbers.rows, numbers.extra)]
    bases = {*numbers.bases, *(sums if numbers.totals else ())} if numbers.bases else None
    known = list(dict.fromkeys([*given, *firsts]))[:MAX_STEPS]
    for a, b in itertools.permutations(known, 2):
        if "difference" in kinds:
            yield a - b
        if kinds & {"sum", "total"}:
            yield a + b
        if "mean" in kinds:
            yield (a + b) / 2
        if not b:
            continue
        if kinds & {"ratio", "per", "mean"}:
            yield a / b
        if "share" in kinds and abs(a) <= abs(b) and (bases is None or b in bases):
            yield 100 * a / b
        if "change" in kinds and not (meant.direction and (a - b) * meant.direction < 0):
            yield 100 * (a - b) / b


def _counts(rows: Sequence[Sequence[Decimal]], asked: str, limit: Decimal | None = None) -> Iterator[Result]:
    """How many quotes of one number are beyond the one that the question names."""
    named = ((m, q) for m in THRESHOLD.finditer(asked) for q in quantities(asked[m.end() : m.end() + REACH])[:1])
    m, quantity = next(named, (None, None))
    if not m or not quantity or {len(r) for r in rows} != {1}:
        return
    column = [r[0] for r in rows]
    limit = quantity.value if limit is None else limit
    if quantity.power and max(map(abs, column)) < limit.scaleb(-1):
        limit = limit.scaleb(-quantity.power)  # the column is in the words' scale
    hits = {
        "more": sum(v > limit for v in column),
        "less": sum(v < limit for v in column),
        "least": sum(v >= limit for v in column),
        "most": sum(v <= limit for v in column),
        "same": sum(v == limit for v in column),
    }
    yield f"{m[0]} {limit}", Decimal(hits[str(m.lastgroup)])
