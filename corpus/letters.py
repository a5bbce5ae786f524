"""Are these the letters that a language uses? By frequency, for the scripts that most documents are in. Pure.

A font whose codes are taken for characters gives words of the wrong script, or of the right one with the wrong
letters. Neither needs a dictionary: a few letters make up most of any language that is written with a script, and a
few hundred characters half of any text in Chinese, Japanese or Korean; of characters drawn at random they are 2 in 100.
The lists serve all the languages of a script together, and the limits leave room for names, terms and old spellings.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MIN_LETTERS = 200  # of an alphabet, before their frequencies say anything
MIN_CHARACTERS = 100  # of Chinese, Japanese or Korean: each says more than a letter
MAX_UPPER_LATIN = 0.3  # share of characters of Latin-1's upper half: French has 0.05, Icelandic and Vietnamese 0.15

IDEOGRAPHS = (  # of Chinese in both spellings, and of Japanese
    "的一是不了在人有我他中大上到子和地出道也年得就要下以生自之可小心多天而能好都日起成事只作想看文手十用主行方又如前所"
    "本面公同三已老知分外但身高意法此回二理美月明其全工己者向情部正名定女力等位因重被四第相次海口使教西再平世信北少加化由"
    "代入先山五太水市性通目立命活神件安表原白期常提感金何更反合放利受光果界及今京制解任至清物台共直林建南度色字交百元六"
    "这来国个说们为时会过学对里后么无没发当开经头动两长现将与进实点种声话问机给业间电门东关内产万体别处总场师书员华报难数车应统"
    "這來國個說們為時會過學對裡後麼無沒發當開經頭動兩長現將與進實點種聲話問機給業間電門東關產萬體處總場師書員華報難數車應統"
    "国会社見議連発対党選立米円決戦氏調田約首野協取家区領多県続設保改記院初指権支派済府共資予際査勝委告軍近考判認画参売組案策集"
    "在或用据文件系统可使行下名入出值设置安装程序包含版本新请该将从并且于不支持需要信息网络目录接口令命选项"
)
SYLLABLES = (  # of Korean
    "이다는의에을가고하지은로기를사한어대도서나자그해리있인시정아들수일여전보과부상제게주장것만라마구으와원스었적성문면동우니"
    "위세모경조무신소공비방화생관용선미유오진국실학계연말민할간안합당교분회물음했된중등내습개설데거되발작산금치재명없려러저"
    "영력요본식건파터트바표속결호행입단"
)


@dataclass(frozen=True, slots=True, eq=False)
class Script:
    """Characters of one script.

    In every text of `enough` of them, the share of common ones is above that of rare ones by at least `least`, 0..1.
    """

    name: str
    letters: str  # as a class of a regular expression
    common: frozenset[str]
    least: float
    enough: int = MIN_LETTERS
    rare: frozenset[str] = frozenset()
    run: int = 1  # letters in a row that count: fewer are symbols


ARABIC = "\u0620-\u064a\u066e-\u06d5\ufb50-\ufdff\ufe70-\ufefc"
SCRIPTS = (
    Script("Latin", "A-Za-z\u00c0-\u024f\u1e00-\u1eff", frozenset("eaintors"), 0.45, run=3),
    Script("Cyrillic", "\u0400-\u052f", frozenset("аеиностр"), 0.35, rare=frozenset("фщъцюшжч"), run=3),
    Script("Greek", "\u0370-\u03ff\u1f00-\u1fff", frozenset("αοιετσςν"), 0.42, rare=frozenset("ξψζφβχθ"), run=3),
    Script("Arabic", ARABIC, frozenset("اليمنورتهدبیکىے"), 0.45, rare=frozenset("ظغثذضطءصخ"), run=2),
    Script(
        "Chinese or Japanese",
        "\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff",
        frozenset(IDEOGRAPHS) | frozenset(map(chr, range(0x3041, 0x3100))),
        0.2,
        MIN_CHARACTERS,
    ),
    Script("Korean", "\uac00-\ud7a3", frozenset(SYLLABLES), 0.35, MIN_CHARACTERS),
)


def unlikely_letters(words: Sequence[str], chars: Mapping[str, int]) -> str:
    """Which script's letters are those of no language; '' where all may be.

    Args:
        words: of a page.
        chars: how often each character is in them.
    """
    total = sum(chars.values())
    upper = sum(count for char, count in chars.items() if "\u00a1" <= char <= "\u00ff")
    if total >= MIN_CHARACTERS and upper > MAX_UPPER_LATIN * total:
        return f"{upper} of {total} characters are of the upper half of Latin-1"
    for script, found in _by_script(chars).items():
        if script.run > 1 and found.total() >= script.enough:
            runs = re.findall(f"[{script.letters}]{{{script.run},}}", " ".join(words))
            found = _by_script(Counter("".join(runs))).get(script, Counter())
        common, rare = (sum(found[c] for c in some) for some in (script.common, script.rare))
        if found.total() >= script.enough and common - rare < script.least * found.total():
            return f"{common} of {found.total()} {script.name} letters are common ones"
    return ""


def _by_script(chars: Mapping[str, int]) -> dict[Script, Counter[str]]:
    """How often each letter of each script is among the characters."""
    found: dict[Script, Counter[str]] = {}
    for char, count in chars.items():
        script, letter = _letter(char)
        if script is not None:
            found.setdefault(script, Counter())[letter] += count
    return found


@functools.lru_cache(maxsize=8192)
def _letter(char: str) -> tuple[Script | None, str]:
    """The script of a letter, and the letter small and without its accents; of other scripts, in its isolated form."""
    script = next((s for s in SCRIPTS if re.match(f"[{s.letters}]", char)), None)
    plain = unicodedata.normalize("NFKC", char)[0]
    if "\u0600" <= plain < "\u1e00" or plain >= "\u2000":
        return script, plain
    return script, unicodedata.normalize("NFD", plain)[0].lower()
