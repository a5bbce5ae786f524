"""Does an answer belong to the part of its sentence that the question speaks of?

A sentence may list several numbers of one kind: "X (44 percent), followed by Y (17 percent) and Z (12 percent)". Each
belongs to the words of its clause, so that 17 is no answer to a question about Z. Precision before recall: only a
question that says the words of another clause, and not those of the answer's, shows that it is wrong.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from synth.answers import measured
from synth.grounding import CJK, says
from synth.quantities import Quantity, dates, folded, quantities
from synth.stems import pairs, words_of
from synth.wording import QUOTED

BREAK = re.compile(
    r"[;；。,，、:：!?！？](?!\d{3})|(?<!\d)\.|\.(?!\d)"
    r"| (?=(?:and|or|but|while|whereas|against|than|compared|versus|followed) )"
    r"|(?=其中|其次|以及|而|和|与|及)"
)
SENTENCE_END = re.compile(r"[。!?！？]|(?<!\d)\.(?= |$)|;|；")
NOUN = re.compile(rf"([{CJK}]{{2,8}}?)(?:为|是|达到?|有|共|约|增至|降至|仅|占)?[约近]?\W?$")
LEAD = re.compile("^.*[年月日]|^其中")
MOST, HALF = 0.75, 0.5  # of the words of a clause
MIN_WORDS = 2  # that must be said to tell a clause


@dataclass(frozen=True, slots=True)
class Clause:
    """A number with the words around it; `first` in its sentence, where the words of the whole sentence may stand."""

    number: Quantity
    words: frozenset[str]
    noun: str  # Chinese characters right before the number
    first: bool


def clauses(text: str) -> list[Clause]:
    """The numbers of a text, each with the words of its clause; [] for those of a clause that holds several."""
    text = folded(text)
    days = dates(text)
    every = quantities(text)
    plain = [q for q in every if not q.is_year and not any(d.start <= q.start < d.end for d in days)]
    cuts = [0, *(m.end() for m in BREAK.finditer(text) if not any(q.start < m.end() < q.end for q in every)), len(text)]
    found = []
    seen_in = -1  # the sentence of the last number
    for start, end in itertools.pairwise(cuts):
        own = [q for q in plain if start <= q.start < end]
        if not own:
            continue
        sentence = len(SENTENCE_END.findall(text[:start]))
        first, seen_in = sentence != seen_in, sentence
        if len(own) > 1:
            continue
        (number,) = own
        around = text[start : number.start] + " " + text[number.end : end]
        noun = NOUN.search(text[start : number.start])
        found.append(Clause(number, _words(around), LEAD.sub("", noun[1]) if noun else "", first))
    return found


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
    said = _words(QUOTED.sub(lambda m: " " if m[0][1:-1] in folded(anchor) else m[0], asked)) | words_of(asked)
    problem = ""
    for quote in quotes:
        every = clauses(quote)
        own = [c for c in every if _same(c.number, number.quantity)]
        rivals = [c for c in every if not any(_same(c.number, q) for q in answered)]
        for clause in own:
            others = [c for c in rivals if c.number.unit == clause.number.unit]
            better = next((c for c in others if _told_better(c, clause, every, said, asked)), None)
            if better is None:
                return ""
            problem = f"{item!r} is said of something else than {better.number.value:f}, which is asked for"
    return problem


def _same(shown: Quantity, answer: Quantity) -> bool:
    """Whether an answer is a number, with its scale or in it: 36.84 of "36.84 million"."""
    return abs(answer.value) in (abs(shown.value), abs(shown.value).scaleb(-shown.power))


def _told_better(other: Clause, own: Clause, every: Sequence[Clause], said: frozenset[str], asked: str) -> bool:
    """Whether the question speaks of another clause than the answer's."""
    if other.noun and own.noun and other.noun != own.noun and other.noun in asked and own.noun not in asked:
        return not any(not w[0].isdecimal() for w in (own.words - other.words) & said)
    if other.first:
        return False
    theirs = _distinct(other, every)
    mine = _distinct(own, every)
    shared = len(theirs & said)
    if shared < MIN_WORDS or not mine:
        return False
    share = len(mine & said) / len(mine)
    return (shared >= HALF * len(theirs) and not share) or (shared >= MOST * len(theirs) and share <= HALF)


def _distinct(clause: Clause, every: Sequence[Clause]) -> frozenset[str]:
    """The words that stand in no other clause."""
    return clause.words.difference(*(c.words for c in every if c is not clause))


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
