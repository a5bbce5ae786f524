"""Anchors: what a question names, where that is, and whether its evidence stands there."""

from __future__ import annotations

import pytest
from fakes import block, page
from verify_set import read_pages

from corpus.sections import sections_of
from synth.anchors import DocumentText, anchor_problem
from synth.labels import named_pages, without_names

TEXT = """
===
# Yearly report

A document about ships.

===
# 1 Harbour

! Table 1: Ships by flag

| Norway | 12

===
## 1.1 Dues

Dues are 5 pounds.

===
More about dues, and the words lighthouse keeper.

===
# 2 Works

Table 2 shows the cost.

===
# Summary

One.

===
# 3 Outlook

! Table 2: Costs

===
# Summary

Two.
"""
PAGES = read_pages(TEXT, "d")
DOCUMENT = DocumentText(PAGES, sections_of(PAGES))


def problem(question: str, anchor: str, *pages: int) -> str:
    return anchor_problem(question, anchor, [p - 1 for p in pages], DOCUMENT)


@pytest.mark.parametrize(
    ("question", "anchor", "pages"),
    [
        ("What are the dues on page 3?", "page 3", [3]),
        ("What do pages 2 and 3 say of ships?", "pages 2 and 3", [2, 3]),
        ("What do pages 2-4 say of dues?", "pages 2-4", [3]),
        ("第3页的费用是多少？", "第3页", [3]),
        ("How many ships of Norway are in Table 1?", "Table 1", [2]),
        ("How many ships are listed in table 1 of the report?", "Table 1: Ships by flag", [2]),
        ("What are the dues in section 1.1?", "1.1 Dues", [4]),
        ('What are the charges, according to "Dues"?', "Dues", [3]),
        ("What are the charges in 1.1?", "1.1 Dues", [3]),
        ("What do the dues cost, by chapter 1?", "1 Harbour", [3]),
        ("Who tends it, according to the words lighthouse keeper?", "lighthouse keeper", [4]),
        ("What is the cost in Table 2?", "Table 2", [7]),
        ("What is One in the Summary on page 6?", "Summary, page 6", [6]),
        ("On which page is Works, counting the first page as page 1?", "2 Works", [5]),
        ("What does Norway have in Table 1, as against the Works?", "Table 1", [2]),
    ],
)
def test_these_lead_to_their_evidence(question: str, anchor: str, pages: list[int]) -> None:
    assert problem(question, anchor, *pages) == ""


@pytest.mark.parametrize(
    ("question", "anchor", "pages", "found"),
    [
        ("What are the dues on page 4?", "page 4", [3], "page 4 holds none of the evidence pages 3"),
        ('What are the dues, by "4.1 Lights and buoys" on page 3?', "4.1 Lights and buoys", [3], "has no"),
        ("What are the dues on page 3 and page 7?", "page 3", [3], "page 7 holds none"),
        ("How many ships are in Table 1?", "Table 1", [3], "Table 1 holds none"),
        ("How many ships are in Table 9?", "Table 9", [2], "the document has no Table 9"),
        ("What are the dues in section 1.1?", "1.1 Dues", [5], "section 1.1 holds none"),
        ('What are the charges, according to "Works"?', "Works", [3], "Works holds none"),
        ("What are the charges?", "Dues", [3], "names no section"),
        ("What is the price, by 'Prospects for 2030'?", "Prospects for 2030", [3], "names no section"),
        ("What is One in the Summary?", "Summary", [6], "Summary is the name of several places"),
        ("What do the provided pages say on page 3?", "page 3", [3], 'speaks of "provided pages"'),
        ("What is in the table above on page 2?", "page 2", [2], 'speaks of "table above"'),
        ("上表中第2页有多少船？", "第2页", [2], 'speaks of "上表"'),
    ],
)
def test_these_do_not(question: str, anchor: str, pages: list[int], found: str) -> None:
    assert found in problem(question, anchor, *pages)


def test_the_title_of_the_whole_document_leads_nowhere() -> None:
    pages = read_pages("===\n# Yearly report\n===\n## Harbour\n\nDues are paid.\n===\n## Works", "d")
    document = DocumentText(pages, sections_of(pages))
    assert "names no section" in anchor_problem("What is paid, by the Yearly report?", "Yearly report", [1], document)
    assert anchor_problem("What is paid, by the Harbour section?", "Harbour", [1], document) == ""


def test_on_pages_without_text_a_label_cannot_be_shown_to_be_missing() -> None:
    document = DocumentText([page(0, "Ships"), page(1, block(kind="picture"), text_source="none")], ())
    assert anchor_problem("What does Figure 7 show?", "Figure 7", [1], document) == ""
    assert anchor_problem("What does Figure 7 show?", "Figure 7", [0], document) == "the document has no Figure 7"
    assert anchor_problem("What colour is it?", "Figure 7", [1], document) != ""


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("page 3", [(2, 2)]),
        ("pages 3, 5 and 7-9", [(6, 8), (2, 2), (4, 4)]),
        ("第3至5页和第8页", [(2, 4), (7, 7)]),
        ("homepage 3", []),
        ("page 3.5", []),
        ("page 0", []),
        ("counting the first page as page 1", []),
        ("page " + "9" * 50, []),
    ],
)
def test_pages_that_a_text_names(text: str, runs: list[tuple[int, int]]) -> None:
    assert named_pages(text) == runs


def test_a_text_without_its_names_keeps_its_other_numbers() -> None:
    assert without_names("In Table 3 on page 12, section 4.2, 17 ships").split() == [
        "In",
        "on",
        ",",
        ",",
        "17",
        "ships",
    ]


TWICE = """
===
# Report

A document about mortar.

===
# 3 Strength

## Curing

At a humidity of 95 percent.

# 4 Shrinkage

## Curing

At a humidity of 55 percent.

! Table 5: Shrinkage

| M0 | 12

===
# 5 二期

## （一）进展

一。

# 6 三期

## （二）进展

二。
"""


@pytest.mark.parametrize(
    ("question", "anchor", "page", "told"),
    [
        ('What humidity was kept, according to the section "Curing"?', "Curing", 2, False),
        ('What humidity was kept, according to "Curing" on page 2?', "Curing", 2, False),
        ('What humidity was kept under "Curing" in chapter 4?', "4 Shrinkage; Curing", 2, True),
        ('Under "Curing" of "4 Shrinkage", what humidity was kept?', "4 Shrinkage; Curing", 2, True),
        ('What is said of M0 in Table 5 under "Curing"?', "Table 5; Curing", 2, True),
        ("根据“（一）进展”，数量是多少？", "（一）进展", 3, True),
    ],
)
def test_a_title_that_a_page_has_twice_needs_more_to_be_told(question: str, anchor: str, page: int, told: bool) -> None:
    pages = read_pages(TWICE, "d")
    found = anchor_problem(question, anchor, [page - 1], DocumentText(pages, sections_of(pages)))
    assert (found == "") is told
