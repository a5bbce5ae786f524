"""How a text names pages, tables, figures and sections: "pages 3-5", "Table 2-1", "第三章", "5.1 Modes"."""

from __future__ import annotations

import re

from synth.document_index import CONTENTS_LINE
from synth.quantities import chinese_number, folded

NUMBER = r"\d{1,5}"
PAGES = re.compile(
    rf"\bpages? ({NUMBER}(?:(?:,? ?(?:and|or|to|through|&|-|–|—) ?|, ?| )(?:pages? )?{NUMBER})*)(?!\.?\d)"
    rf"|第 ?({NUMBER}(?: ?(?:[、，,和与及至到-]|—) ?第? ?{NUMBER})*) ?页",
    re.IGNORECASE,
)
COUNTED_FROM = re.compile(  # how pages are counted
    r"\b(?:as|being) page 1\b|\b(?:count|start|begin|number)\w*\b[^.?]{0,40} (?:at|from|with) page 1\b", re.IGNORECASE
)
ANCHOR_BREAK = re.compile(r"[;；]")
PAGE_RANGE = re.compile(rf"({NUMBER}) ?(?:to|through|-|–|—|至|到) ?(?:pages? |第)?({NUMBER})")
LABEL = re.compile(
    r"(?<![A-Za-z])(?P<kind>table|tab\.|figure|fig\.|chart|exhibit|box|scheme) ?"
    r"(?P<number>(?:[A-Z][.-]?)?\d{1,3}(?:[-.]\d{1,3})*)(?!\d)"
    r"|(?<![代发列地])(?P<chinese>[表图]) ?(?P<number2>\d{1,3}(?:[-.]\d{1,3})*)(?!\d)",
    re.IGNORECASE,
)
NUMBERED_SECTION = re.compile(
    r"\b(?P<word>section|chapter|sec\.|part|appendix|annex|clause|article|note)s? "
    r"(?P<number>[A-Z]?\d{1,2}(?:\.\d{1,2})*|[A-Z](?![a-z]))(?![\d-])"
    r"|(?P<dotted>\d{1,2}(?:\.\d{1,2})+) ?节|第(?P<chinese>[一二三四五六七八九十百\d]{1,5})(?P<unit>[章节部])",
    re.IGNORECASE,
)
TITLE_NUMBER = re.compile(
    r"(?:(?P<word>section|chapter|part|appendix|annex|clause|article|note) )?"
    r"(?P<number>[A-Z]?\d{1,2}(?:\.\d{1,2})*|[A-Z])(?P<end>[.:)]?)(?= |$)"
    r"|第(?P<chinese>[一二三四五六七八九十百\d]{1,5})(?P<unit>[章节部])",
    re.IGNORECASE,
)
SENTENCE = re.compile(
    r"\S{1,10} ?\S{1,10} (?:shows?|lists?|gives?|presents?|summari[sz]es|contains|and)\b"
    r"|[表图] ?[\d.-]{1,10}(?:显示|列出|给出|所示|中|为|反映)",
    re.IGNORECASE,
)


def named_pages(text: str) -> list[tuple[int, int]]:
    """Runs of 0-based pages that a text names: "pages 3 and 5-7" is (2, 2), (4, 6)."""
    runs = []
    for m in PAGES.finditer(COUNTED_FROM.sub(" ", folded(text))):
        listed = m[1] or m[2]
        for r in PAGE_RANGE.finditer(listed):
            runs.append((int(r[1]) - 1, int(r[2]) - 1))
        runs += [(int(n) - 1, int(n) - 1) for n in re.findall(r"\d+", PAGE_RANGE.sub(" ", listed))]
    return [(a, b) for a, b in runs if 0 <= a <= b]


def without_names(text: str) -> str:
    """A folded text without the numbers of pages, labels and sections that it names."""
    for pattern in (PAGES, LABEL, NUMBERED_SECTION):
        text = pattern.sub(" ", text)
    return text


def label_key(m: re.Match[str]) -> tuple[str, str]:
    kind = (m["kind"] or m["chinese"]).casefold()
    kind = {"tab.": "table", "表": "table", "fig.": "figure", "图": "figure"}.get(kind, kind)
    return kind, (m["number"] or m["number2"]).casefold()


def worded_number(text: str) -> str:
    value = chinese_number(text)
    return text if value is None else str(value)


def parted(title: str) -> tuple[str, str, str]:
    """The word, the number and the rest of a title: "Note 5: Staff" is note, 5, Staff; a bare "A" is an article."""
    title = folded(title)
    m = TITLE_NUMBER.match(title)
    if not m or (m["number"] and m["number"].isalpha() and not m["word"] and not m["end"]):
        return "", "", title
    number = m["number"] or worded_number(m["chinese"]) + m["unit"]
    return (m["word"] or "").casefold(), number.casefold(), title[m.end() :].strip(" .:-")


def is_caption(text: str) -> bool:
    """A short block, not an entry of a list of tables and not a sentence about a table: "Table 3 shows that ..."."""
    return len(text) <= 160 and not SENTENCE.match(text) and not CONTENTS_LINE.search(text)
