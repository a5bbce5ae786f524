"""Does an answer belong to the part of its sentence that the question speaks of?

A sentence may list several numbers of one kind: "X (44 percent), followed by Y (17 percent) and Z (12 percent)". Each
belongs to the words of its clause, so that 17 is no answer to a question about Z. Precision before recall: only a
question that says the words of another clause, and not those of the answer's, shows that it is wrong.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from synth.answers import measured
from synth.grounding import CJK, says
from synth.operands import YEAR
from synth.quantities import Quantity, dates, folded, quantities
from synth.stems import pairs, words_of
from synth.wording import QUOTED

BREAK = re.compile(
    r"[;；。,，、:：!?！？](?!\d{3})|(?<!\d)\.|\.(?!\d)"
    r"| (?=(?:and|or|but|while|whereas|against|compared|versus|followed) )"
    r"|(?=其中|其次|以及|而|和|与|及)"
)
SENTENCE_END = re.compile(r"[。!?！？]|(?<!\d)\.(?= |$)")
LEAD_IN = re.compile(  # of a clause, which says nothing of its number
    r"^(?: |and\b|or\b|but\b|while\b|whereas\b|against\b|compared (?:with|to)\b|versus\b|followed by\b"
    r"|of wh(?:om|ich)\b"
    r"|其中|其次|以及|而|和|与|及|分别)+",
    re.IGNORECASE,
)
IN_ORDER = re.compile(r"\brespectively\b|分别|依次", re.IGNORECASE)
PART_OF = re.compile(r"^\W*of\b|^其中|\bof wh(?:om|ich)\b", re.IGNORECASE)
VERB = re.compile(
    r" ?(?:were|was|are|is|had|have|has|did|could|will|came|went|of (?:them|whom|which))\b", re.IGNORECASE
)
YEAR_BEFORE = re.compile(r"(?<!\d)((?:19|20)\d\d)年?末?(?:的|为|是|达)?[ :：(]*$")
YEAR_AFTER = re.compile(r"^ ?(?:\w+ )?\(?in ((?:19|20)\d\d)(?!\d)")
CODED = re.compile(  # names that tell the parts of a list from one another
    r"第[一二三四五六七八九十\d]{1,3}[\u4e00-\u9fff](?!季)|[一二三四五六七八九十][期号区组等级类](?![\u4e00-\u9fff]?[以之])"
    r"|[甲乙丙丁][\u4e00-\u9fff]?|(?<![\w-])[A-Z]{1,3}[- ]?\d{1,4}(?![\w-])"
    r"|\b(?:[Ll]ot|[Pp]hase|[Bb]atch|[Ss]tage|[Ll]ine) \d{1,3}\b"
)
ASKS_PART = re.compile(
    r"其中|在内|\bof (?:which|whom|them|these)\b|\binclud(?:ing|ed)\b|\bin total\b|\bout of\b", re.IGNORECASE
)
OF_THEM = re.compile(r"\bof (?:which|whom)\b|,? including\b", re.IGNORECASE)
THEIRS = re.compile(r"^ ?of (?:them|these)\b|^ ?(?:were|was|are|is)\b", re.IGNORECASE)
PART = re.compile(  # a number of a whole, and what is told of a part before its number
    r"其中,?(?P<what>[^,，。;；]{2,20}?)(?P<end>[的]?(?:[占有为是达约]|共[有计]?)*)$"
)
MOST, HALF = 0.6, 0.5  # of the words of a clause
MIN_WORDS = 2  # that must be said to tell a clause by a part of its words


@dataclass(frozen=True, slots=True)
class Clause:
    """A number with the words before and after it, and the year that stands beside it, '' where none does.

    `first` in its sentence: the words before it may be those of the whole sentence.
    """

    number: Quantity
    before: frozenset[str]
    after: frozenset[str]
    year: str
    first: bool
    part: bool  # of what the sentence began with: "of whom 20 ...", "20 were planned"


def clauses(text: str) -> list[Clause]:
    """The numbers of a text, each with the words of its clause; of several in one clause those of different units."""
    text = folded(text)
    days = dates(text)
    every = quantities(text)
    plain = [q for q in every if not q.is_year and not any(d.start <= q.start < d.end for d in days)]
    plain = [q for q in plain if text[q.start : q.end].casefold() != "one"]  # "one of 5 days"
    cuts = [0, *(m.end() for m in BREAK.finditer(text) if not any(q.start < m.end() < q.end for q in every)), len(text)]
    found = []
    seen_in = -1  # the sentence of the last number
    since = 0  # where the words before a number begin
    for start, end in itertools.pairwise(cuts):
        own = [q for q in plain if start <= q.start < end]
        if not own:
            since = start if SENTENCE_END.search(text[since:start]) else since
            continue
        begin = since if own[0].start - start < 2 or not _words(LEAD_IN.sub("", text[start : own[0].start])) else start
        since = end
        sentence = len(SENTENCE_END.findall(text[: own[0].start]))
        for i, q in enumerate(own):
            others = [o for o in own if o is not q and o.unit == q.unit]
            lead = text[begin if not i else own[i - 1].end : q.start]
            tail = text[q.end : own[i + 1].start if i + 1 < len(own) else end]
            m = YEAR_BEFORE.search(text[: q.start]) or YEAR_AFTER.search(text[q.end :])
            first = sentence != seen_in and not i
            if not others:
                words = _words(LEAD_IN.sub("", lead.strip()))
                found.append(Clause(q, words, _words(tail), m[1] if m else "", first, _is_part(lead, tail)))
            elif m:
                found.append(Clause(q, frozenset(), frozenset(), m[1], first, False))
        seen_in = sentence
    return found


def _is_part(lead: str, tail: str) -> bool:
    return PART_OF.search(lead.strip()) is not None or VERB.match(tail) is not None


def _words(text: str) -> frozenset[str]:
    chinese = re.search(f"[{CJK}]", text) is not None
    return pairs(text) if chinese else words_of(text)


def clause_problem(item: str, items: Sequence[str], question: str, anchor: str, quotes: Sequence[str]) -> str:
    """Why a number belongs to another clause than the one that the question speaks of; '' where it may be right.

    Args:
        item: the answer, or an item of one.
        items: all of them.
        question: whose words, without the titles that it names, tell the clause.
        anchor: the titles that it names.
        quotes: sentences; not rows of tables.
    """
    number = measured(item)
    if number is None:
        return ""
    answered = [q for i in items for q in quantities(folded(i))]
    asked = folded(question)
    for part in re.split("[;；]", folded(anchor)):
        asked = asked.replace(part.strip(), " ") if len(part.strip()) > 1 else asked
    asked = QUOTED.sub(lambda m: " " if m[0][1:-1] in folded(anchor) else m[0], asked)
    said = _words(asked) | words_of(asked)
    problem = ""
    for quote in quotes:
        if wrong := _coded_otherwise(number.quantity, asked, quote) or _is_whole(number.quantity, asked, quote):
            problem = f"{item!r} is said of something else: {wrong}"
            continue
        every = clauses(quote)
        if IN_ORDER.search(quote):  # the words stand elsewhere, but for years
            every = [c for c in every if c.year]
        for own in (c for c in every if _same(c.number, number.quantity)):
            rivals = [
                c for c in every if not any(_same(c.number, q) for q in answered) and _alike(c.number, own.number)
            ]
            better = next((c for c in rivals if _told_better(c, own, [*rivals, own], said, asked)), None)
            if better is None:
                return ""
            problem = f"{item!r} is said of something else than {better.number.value:f}, which is asked for"
    return problem


def _coded_otherwise(answer: Quantity, asked: str, quote: str) -> str:
    """The code that an answer belongs to in a list of coded numbers, where the question asks for another; else ''.

    Codes and numbers of one unit must take turns: "4.9 percent in M0 and 4.6 percent in M10".
    """
    wanted, listed = codes_of(asked), coded(quote)
    if len(wanted) != 1 or not wanted < {*listed}:
        return ""
    own = [code for code, q in listed.items() if _same(q, answer)]
    return own[0] if own and not wanted & {*own} else ""


def codes_of(text: str) -> set[str]:
    """The codes that a text names."""
    return {_code(m) for m in CODED.finditer(text)}


def coded(quote: str) -> dict[str, Quantity]:
    """The numbers of the first sentence that lists them by code; {} where none does, or where that is unclear."""
    for sentence in SENTENCE_END.split(folded(quote)):
        codes = list(CODED.finditer(sentence))
        known = [_code(m) for m in codes]
        numbers = [
            q
            for q in quantities(sentence)
            if not q.is_year and not any(m.start() <= q.start < m.end() or q.start <= m.start() < q.end for m in codes)
        ]
        if len(numbers) != len(codes) or len(codes) < MIN_WORDS or len({*known}) < len(known):
            continue
        order = sorted([(m.start(), 0) for m in codes] + [(q.start, 1) for q in numbers])
        alternate = all(a[1] != b[1] for a, b in itertools.pairwise(order))
        if alternate and len({q.unit for q in numbers} - {""}) < MIN_WORDS:
            return dict(zip(known, numbers, strict=True))
    return {}


def _code(m: re.Match[str]) -> str:
    return m[0].replace(" ", "").replace("-", "").casefold()


def _is_whole(answer: Quantity, asked: str, quote: str) -> str:
    """What an answer is the number of, where the question asks for the number of a part of it; else ''.

    "逾期贷款3,655百万元，其中逾期90天以上的2,470百万元": the words between are all said by a question about the part.
    """
    text = folded(quote)
    if ASKS_PART.search(asked):
        return ""
    every = [q for q in quantities(text) if not q.is_year]
    for whole, part in itertools.permutations(every, 2):
        between = text[whole.end : part.start]
        if whole.end > part.start or not _same(whole, answer) or _same(part, answer) or whole.unit != part.unit:
            continue
        if (m := PART.search(between)) and m["what"] in asked and between.count("其中") == 1:
            return f"the whole, not of {m['what']}"
        tail = BREAK.split(text[part.end :])[0]
        if SENTENCE_END.search(between) or not (OF_THEM.search(between) or re.match(" ?of (?:them|these)", tail)):
            continue
        what = words_of(THEIRS.sub(" ", THEIRS.sub(" ", tail)))
        if what and what <= words_of(asked) and not what <= words_of(text[: part.start]):
            return f"the whole, not of {tail.strip()}"
    return ""


def _same(shown: Quantity, answer: Quantity) -> bool:
    """Whether an answer is a number, with its scale or in it: 36.84 of "36.84 million"."""
    return abs(answer.value) in (abs(shown.value), abs(shown.value).scaleb(-shown.power))


def _alike(a: Quantity, b: Quantity) -> bool:
    """Whether two numbers may be of one kind: of one unit, which one of them may leave to the other."""
    return a.unit == b.unit or (
        not (a.unit and b.unit) and (a.unit or b.unit) != "%" and bool(a.power) == bool(b.power)
    )


def _told_better(other: Clause, own: Clause, every: Sequence[Clause], said: frozenset[str], asked: str) -> bool:
    """Whether the question speaks of another clause than the answer's."""
    years = set(YEAR.findall(asked))
    if other.year and own.year and len(years) == 1:
        return other.year in years and own.year not in years
    if other.year and years == {other.year} and other.after == {other.year}:
        return not own.first
    if other.first and (own.part or other.part):
        return False  # "of 40 operations, 20 were planned": the question may speak of the 20 in other words
    label, first = _labels(every)
    theirs, mine = (label(c).difference(*(label(o) for o in every if o is not c)) for c in (other, own))
    shared, own_share = len(theirs & said), len(mine & said) / max(1, len(mine))
    if not mine or not shared:
        return False
    if other.first and first:
        rest = [c for c in every if c is not other]
        unsaid = all(not label(c).difference(label(other)) & said for c in rest)
        return bool(own.before) and unsaid and shared >= max(MIN_WORDS, HALF * len(theirs))
    if shared == len(theirs):
        return own_share <= HALF
    return shared >= max(MIN_WORDS, MOST * len(theirs)) and own_share <= (HALF if own.first else 0)


def _labels(every: Sequence[Clause]) -> tuple[Callable[[Clause], frozenset[str]], bool]:
    """The side of the numbers on which a list names what they are of, and whether the first may say more there."""
    later = [c for c in every if not c.first]
    if later and all(c.after and not c.before for c in later):
        return (lambda c: c.after), False
    if later and all(c.before and not c.after for c in later):
        return (lambda c: c.before), True
    return (lambda c: c.before | c.after), True


# ------------------------------------------------------------------------------------------------- parts and quotes


def parts_problem(items: Sequence[str], question: str, quotes: Sequence[str]) -> str:
    """Why a list of as many items as there are quotes leaves a quote without an item of its own.

    A quote that only leads to another one ("fault B2 asks for a float valve") supports no item and is right: the words
    that both share are then none of the question's.
    """
    if len(items) != len(quotes) or len(items) < MIN_WORDS:
        return ""
    supports = [[i for i, item in enumerate(items) if says(quote, item, "")] for quote in quotes]
    if _assigned(supports, frozenset()):
        return ""
    asked = _words(folded(question)) | words_of(question)
    for i, quote in enumerate(quotes):
        others = frozenset[str]().union(*(_words(q) for j, q in enumerate(quotes) if j != i))
        keys = {w for w in _words(folded(quote)) & others - asked if not w[0].isdecimal()}
        if not supports[i] and not keys:
            return f'"{quote[:80]}" holds no part of the answer'
    return ""


def _assigned(supports: Sequence[Sequence[int]], taken: frozenset[int]) -> bool:
    """Whether each quote can have an item of its own."""
    if not supports:
        return True
    return any(_assigned(supports[1:], taken | {i}) for i in supports[0] if i not in taken)
