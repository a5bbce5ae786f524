"""Questions from structure: answers recomputed, names unambiguous, doubts refused, everything repeatable."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.config import SynthSettings
from corpus.records import TASKS, Block, Box, Cell, Page, Question, Section, Segment, Table, TableRow
from synth import table_patterns, text_patterns
from synth.document_index import DocumentIndex, number_of, plain, quoted
from synth.drafts import Draft, Pattern
from synth.layout_qa import PATTERNS, Written, _said_once, write_questions
from synth.phrasings import PHRASINGS

DOC = "0123456789abcdef"
WHOLE = Segment(first_page=0, num_pages=8)


def block(kind: str, text: str, y: float, x: float = 50.0, width: float = 400.0) -> Block:
    box = (x, y, x + width, y + 12 * (text.count("\n") + 1))
    return Block(kind=kind, box=box, text=text, emphasised=kind in ("title", "heading"))


def page(index: int, *blocks: Block, tables: Sequence[Table] = (), **changes: object) -> Page:
    plain_page = Page(
        doc_id=DOC,
        index=index,
        width=600,
        height=800,
        rotation=0,
        text_source="layer",
        blocks=blocks,
        tables=tuple(tables),
    )
    return replace(plain_page, **changes)  # type: ignore[arg-type]


def table(rows: dict[str, Sequence[str]], columns: Sequence[str] = ("2018", "2017"), **changes: object) -> Table:
    def box(row: int, column: int) -> Box:
        return (50 + 100 * column, 100 + 20 * row, 140 + 100 * column, 110 + 20 * row)

    made = Table(
        box=(45, 80, 600, 100 + 20 * len(rows)),
        columns=tuple(columns),
        column_boxes=tuple(box(-1, c + 1) for c in range(len(columns))),
        rows=tuple(
            TableRow(
                label=label,
                box=box(r, 0),
                cells=tuple(Cell(text=t, box=box(r, c + 1)) for c, t in enumerate(cells)),
            )
            for r, (label, cells) in enumerate(rows.items())
        ),
        unit="Millions",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def table_block(found: Table) -> Block:
    lines = ["\t".join(found.columns)]
    lines += ["\t".join([r.label.split(" > ")[-1], *(c.text for c in r.cells)]) for r in found.rows]
    return Block(kind="table", box=found.box, text="\n".join(lines))


def table_page(index: int, *tables: Table, anchors: bool = True) -> Page:
    heads = [block("heading", t.anchor, 60) for t in tables if t.anchor and anchors]
    return page(index, *heads, *(table_block(t) for t in tables), tables=tables)


SALES = table(
    {
        "Net sales": ("$32,765", "$31,657"),
        "Cost of sales": ("16,682", "16,055"),
        "Operating expenses > Selling": ("7,602", "6,626"),
        "Operating expenses > Research": ("1,821", "1,870"),
        "Gain on sale": ("(547)", "(586)"),
    },
    anchor="Results by segment",
)
LEASES = table(
    {"Operating leases": ("1,397", "2,863"), "Long-term debt": ("357", "251"), "Purchase duties": ("96", "726")},
    anchor="Contractual duties",
)
PAGES = (
    table_page(0, SALES),
    *(page(i, block("text", f"Nothing here {i}", 100)) for i in range(1, 5)),
    table_page(5, LEASES),
)


def index_of(*pages: Page, sections: Sequence[Section] = ()) -> DocumentIndex:
    return DocumentIndex(pages, sections)


def drafts(pattern: Pattern, index: DocumentIndex, segment: Segment = WHOLE) -> list[Draft]:
    return list(pattern(index, segment, random.Random(0)))


def write(
    pages: Sequence[Page] = PAGES,
    seed: int = 0,
    sections: Sequence[Section] = (),
    segments: Sequence[Segment] = (WHOLE,),
    **settings: object,
) -> Written:
    return write_questions(pages, sections, segments, SynthSettings.model_validate(settings), seed)


def value_at(found: Table, quoted_row: str, quoted_column: str) -> Decimal:
    """The oracle: look a cell up by the words of the question."""
    row = next(r for r in found.rows if quoted(r.label) == quoted_row)
    column = next(i for i, c in enumerate(found.columns) if quoted(c) == quoted_column)
    text = row.cells[column].text.replace(",", "").replace("$", "").replace("%", "")
    return -Decimal(text.strip("()")) if text.startswith("(") else Decimal(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$32,765", "32765"),
        ("$(1,577)", "-1577"),
        ("(0.3)%", "-0.3"),
        ("-1.1%", "-1.1"),
        ("\u22124.5", "-4.5"),
        (".5", "0.5"),
        ("9.10", "9.10"),
        ("\u2014", None),
        ("$\u2014", None),
        ("N/A", None),
        ("", None),
    ],
)
def test_number_of(text: str, value: str | None) -> None:
    assert number_of(text) == (Decimal(value) if value else None)


@given(st.decimals(min_value=-(10**9), max_value=10**9, places=2))
def test_number_survives_printing(value: Decimal) -> None:
    printed = f"$({-value:,})" if value < 0 else f"${value:,}"
    found = number_of(printed)
    assert found == value
    assert found is not None and Decimal(plain(found)) == value
    assert plain(Decimal("-0.00")) == "0.00"


def test_lookup_answers_are_the_cells() -> None:
    found = drafts(table_patterns.lookup, index_of(*PAGES))
    assert len(found) == 16  # 5 x 2 + 3 x 2
    for draft in found:
        source = SALES if "Results" in draft.fields["table"] else LEASES
        assert Decimal(draft.answer) == value_at(source, draft.fields["row"], draft.fields["column"])
        assert draft.answer_format == "Integer"
        assert not draft.names_pages
    gain = next(d for d in found if d.fields["row"] == '"Gain on sale"' and d.fields["column"] == '"2018"')
    assert gain.answer == "-547"
    assert "parentheses" in gain.fields["digits"]
    assert "Millions" in gain.fields["unit"]


def test_lookup_evidence_is_the_line_of_the_page() -> None:
    draft = next(d for d in drafts(table_patterns.lookup, index_of(*PAGES)) if "Research" in d.fields["row"])
    (evidence,) = draft.evidence
    assert (evidence.page, evidence.kind, evidence.quote) == (0, "Table", "Research 1,821 1,870")
    assert evidence.box is not None
    assert evidence.box[0] == 50  # from the row's label
    assert draft.fields["row"] == '"Research" (under "Operating expenses")'


def test_arithmetic_is_exact_and_computed() -> None:
    index = index_of(*PAGES)
    tables = {"Results": SALES, "Contractual": LEASES}
    checked = 0
    for pattern in (
        table_patterns.difference_columns,
        table_patterns.difference_rows,
        table_patterns.sum_rows,
        table_patterns.percent_change,
    ):
        found = drafts(pattern, index)
        assert found, pattern
        for draft in found:
            source = next(t for name, t in tables.items() if name in draft.fields["table"])
            f = draft.fields
            first = value_at(source, f["row"], f["column"])
            second = value_at(source, f.get("row2", f["row"]), f.get("column2", f["column"]))
            expected = {
                "difference-columns": lambda a, b: a - b,
                "difference-rows": lambda a, b: a - b,
                "sum-rows": lambda a, b: a + b,
                "percent-change": lambda a, b: round((a - b) / b * 100, 1),
            }[draft.pattern](first, second)
            assert Decimal(draft.answer) == expected
            printed = {abs(v) for r in source.rows for c in r.cells if (v := number_of(c.text)) is not None}
            assert abs(Decimal(draft.answer)) not in printed
            assert len(draft.evidence) == 2
            checked += 1
    assert checked > 20


def test_rows_of_other_units_are_not_added() -> None:
    mixed = table(
        {"Net income": ("500", "400"), "Earnings per share": ("9.10", "8.20"), "Average shares": ("588", "597")},
        unit="Millions, except per share amounts",
        anchor="Income of the group",
    )
    index = index_of(table_page(0, mixed))
    assert drafts(table_patterns.difference_rows, index) == []
    assert drafts(table_patterns.sum_rows, index) == []
    no_unit = replace(SALES, unit="")
    assert drafts(table_patterns.sum_rows, index_of(table_page(0, no_unit))) == []


def test_totals_are_not_added() -> None:
    found = drafts(
        table_patterns.sum_rows,
        index_of(
            table_page(
                0, table({"Total debt": ("10", "20"), "Cash": ("7", "9"), "Bonds": ("4", "6")}, anchor="Debt by kind")
            )
        ),
    )
    assert {frozenset((d.fields["row"], d.fields["row2"])) for d in found} == {frozenset(('"Cash"', '"Bonds"'))}


def test_only_years_are_subtracted() -> None:
    columns = ("Fair value", "Cost")
    found = table({"Bonds": ("12", "10"), "Notes": ("9", "4")}, columns, anchor="Securities held")
    assert drafts(table_patterns.difference_columns, index_of(table_page(0, found))) == []


def test_counts_need_a_whole_table() -> None:
    counted = table(
        {"Abrasives": ("1,804", "1,746"), "Tapes": ("4,607", "4,468"), "Films": ("913", "986"), "Foams": ("(1)", "3")},
        anchor="Sales by product",
    )
    index = index_of(table_page(0, counted))
    (increased,) = drafts(table_patterns.rows_increased, index)
    assert increased.answer == "2"
    above = drafts(table_patterns.rows_above, index)
    assert len(above) == 2
    for draft in above:
        threshold = Decimal(draft.fields["threshold"].replace(",", ""))
        column = counted.columns.index(draft.fields["column"].strip('"'))
        numbers = [number_of(r.cells[column].text) for r in counted.rows]
        assert int(draft.answer) == sum(n > threshold for n in numbers if n is not None)
        assert threshold not in numbers
    (spread,) = (d for d in drafts(table_patterns.range_column, index) if d.fields["column"] == '"2018"')
    assert spread.answer == "4608"
    partial = index_of(table_page(0, replace(counted, whole=False)))
    for pattern in (table_patterns.rows_increased, table_patterns.rows_above, table_patterns.range_column):
        assert drafts(pattern, partial) == []


def test_unexplained_percent_signs_spoil_a_column() -> None:
    mixed = table(
        {"Industrial": ("37.4%", "12.0"), "Consumer": ("15.2", "13.0"), "Health": ("$19.1", "14.0")},
        anchor="Share of sales",
    )
    cells = {
        (d.fields["row"], d.fields["column"]) for d in drafts(table_patterns.lookup, index_of(table_page(0, mixed)))
    }
    assert ('"Consumer"', '"2018"') not in cells  # may be a percentage too
    assert {('"Industrial"', '"2018"'), ('"Health"', '"2018"'), ('"Consumer"', '"2017"')} <= cells
    rated = table({"Income": ("37", "12"), "Effective tax rate": ("15.2%", "13.0%")}, anchor="Tax of the group")
    assert len(drafts(table_patterns.lookup, index_of(table_page(0, rated)))) == 4


def test_percentages_are_subtracted_in_points() -> None:
    rates = table({"Tax rate": ("22.4%", "24.3%"), "Discount rate": ("3.1%", "2.9%")}, anchor="Rates used")
    found = drafts(table_patterns.difference_columns, index_of(table_page(0, rates)))
    tax = next(d for d in found if "Tax" in d.fields["row"])
    assert tax.answer == "-1.9"
    assert "percentage points" in tax.fields["unit"]
    assert drafts(table_patterns.percent_change, index_of(table_page(0, rates))) == []


def test_suspicious_numbers_are_not_asked() -> None:
    marked = table({"Bonds": ("1.52", "1.4"), "Notes": ("9.1", "4.4")}, anchor="Securities held")
    cells = {
        (d.fields["row"], d.fields["column"]) for d in drafts(table_patterns.lookup, index_of(table_page(0, marked)))
    }
    assert ('"Bonds"', '"2018"') not in cells  # the last digit may be a footnote mark
    assert len(cells) == 3
    dotted = table({"Bonds": ("1.521", "1.411"), "Notes": ("9.123", "4.456")}, anchor="Securities held")
    assert index_of(table_page(0, dotted)).tables == []  # thousands or thousandths


def test_table_is_named_by_what_is_unique() -> None:
    other = table({"Services": ("11", "12"), "Goods": ("13", "15")}, anchor="Results by segment")
    repeated = index_of(table_page(0, SALES), table_page(3, other))
    names = [t.name for t in repeated.tables]
    assert all(t.names_page for t in repeated.tables)
    assert names[0].startswith('the table directly below the heading "Results by segment" on page 1 of the document')
    assert "page 4" in names[1]
    caption = replace(SALES, anchor="Table 3: Results")
    assert index_of(table_page(0, caption)).tables[0].name == 'Table 3 ("Results")'
    lead_in = replace(SALES, anchor="The results were as follows:")
    assert "introduced by the words" in index_of(table_page(0, lead_in)).tables[0].name


def test_several_tables_on_a_page_need_a_landmark() -> None:
    bare = replace(SALES, anchor="")
    twin = table({"Net sales": ("1", "2"), "Cost of sales": ("3", "4")})
    index = index_of(table_page(0, bare, twin))
    (named,) = index.tables  # only `bare` has a row that no other text of the page repeats
    assert named.table is bare
    assert 'the table with the row "Selling" on page 1' in named.name
    assert index.unnamed_tables == 1
    alone = index_of(table_page(0, bare))
    assert alone.tables[0].name.startswith("the table on page 1 of the document")


def test_row_inside_a_group_does_not_share_its_name() -> None:
    found = table({"Net income": ("7", "8"), "Diluted > Net income": ("5", "6")}, anchor="Income of the group")
    rows = {d.fields["row"] for d in drafts(table_patterns.lookup, index_of(table_page(0, found)))}
    assert rows == {'"Net income" (under "Diluted")'}


def test_lookup_two_takes_two_pages() -> None:
    found = drafts(table_patterns.lookup_two, index_of(*PAGES))
    assert found
    for draft in found:
        assert [e.page for e in draft.evidence] == [0, 5]
        f = draft.fields
        expected = [value_at(SALES, f["row"], f["column"]), value_at(LEASES, f["row2"], f["column2"])]
        assert [Decimal(a) for a in json.loads(draft.answer)] == expected
    assert drafts(table_patterns.lookup_two, index_of(*PAGES), Segment(first_page=0, num_pages=5)) == []


HEADINGS = (
    page(0, block("heading", "Overview of results", 50), block("text", "Sales grew.", 80)),
    page(
        1, block("heading", "2.1 Data collection", 50), block("heading", "Closing remarks", 300), block("text", "x", 80)
    ),
    page(2, block("heading", "Closing\nremarks", 50), block("text", "Sales grew again.", 80)),
)


def test_heading_must_stand_once() -> None:
    index = index_of(*HEADINGS)
    assert [(h.title, h.page) for h in index.headings] == [("Overview of results", 0), ("2.1 Data collection", 1)]
    numbered = page(3, block("heading", "7.2 Overview of results", 50))
    assert [h.title for h in index_of(*HEADINGS, numbered).headings] == [
        "2.1 Data collection",
        "7.2 Overview of results",
    ]
    (draft, *_) = drafts(text_patterns.heading_page, index)
    assert draft.names_pages
    assert draft.answer == str(draft.evidence[0].page + 1)
    (pages,) = drafts(text_patterns.heading_pages, index)
    assert sorted(json.loads(pages.answer)) == ["1", "2"]
    assert drafts(text_patterns.heading_distance, index) == []  # neighbours: nothing to calculate
    third = page(3, block("heading", "Further work", 50), block("text", "y", 80))
    answers = {d.anchor: d.answer for d in drafts(text_patterns.heading_distance, index_of(*HEADINGS, third))}
    assert answers == {"Overview of results; Further work": "3", "2.1 Data collection; Further work": "2"}


@pytest.mark.parametrize("other", ["Item 4. Mine  Safety Disclosures", "Note 12: MINE SAFETY DISCLOSURES"])
def test_a_heading_that_stands_elsewhere_with_a_label_is_ambiguous(other: str) -> None:
    own = page(0, block("heading", "MINE SAFETY DISCLOSURES", 50), block("text", "Body.", 80))
    labelled = page(1, block("text", other, 50), block("text", "Body.", 80))
    assert len(index_of(own).headings) == 1
    assert index_of(own, labelled).headings == []


def test_a_heading_inside_another_heading_is_ambiguous() -> None:
    own = page(0, block("heading", "FORM 10-K", 50), block("text", "Body.", 80))
    longer = page(1, block("title", "ANNUAL REPORT ON FORM 10-K", 50), block("text", "Body.", 80))
    titles = [h.title for h in index_of(own, longer).headings]
    assert "FORM 10-K" not in titles


@pytest.mark.parametrize(
    ("picture", "names_it"),
    [
        (block("picture", "", 70, width=100), True),
        (block("picture", "", 110, width=100), False),  # text would fit between
        (block("picture", "", 70, x=400, width=100), False),  # beside it
        (block("picture", "\n\n\n", 40), True),  # around it
    ],
)
def test_the_title_of_a_chart_is_no_heading(picture: Block, names_it: bool) -> None:
    index = index_of(page(0, block("heading", "Views of the parties", 50, width=200), picture, block("text", "B", 400)))
    assert [h.title for h in index.headings] == ([] if names_it else ["Views of the parties"])


def test_a_heading_in_body_type_is_none() -> None:
    plain_type = replace(block("heading", "Carrying case (1)", 50), emphasised=False)
    assert index_of(page(0, plain_type, block("text", "Body.", 80))).headings == []


def test_each_heading_is_asked_about_once_and_few_of_a_kind() -> None:
    words = [
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "zeta",
        "eta",
        "theta",
        "iota",
        "kappa",
        "lambda",
        "mu",
        "nu",
        "xi",
        "omicron",
        "pi",
        "rho",
        "sigma",
        "tau",
    ]
    many = [
        page(
            i, block("heading", f"About {words[i % 19]} {words[i // 19]} matters", 50), block("text", f"Text {i}.", 80)
        )
        for i in range(80)
    ]
    segments = [Segment(first_page=first, num_pages=8) for first in range(0, 80, 8)]
    settings = SynthSettings(tasks=("extract-single", "extract-multi", "reasoning"))
    found = write_questions(many, (), segments, settings, 0).questions
    assert set(Counter(q.generator for q in found).values()) == {5}
    asked = [e.quote for q in found for e in q.evidence]
    assert len(asked) == len(set(asked)) > 20


def test_a_phrase_that_explains_is_said_once() -> None:
    assert _said_once("a (x) b (x) c (x)", " (x)") == "a (x) b c"


@pytest.mark.parametrize(
    "title",
    ["Type", "statement of income", "A: Touch panel", "Ends with a stop.", "Statement of Incom e", "Make a call. 2",
     "As of December 31, 2018", "12345 678 9", "TABLE 1A", "Figure 3: Results", 'The "best" title',
     "Annotator three:", "Xinyuan Lu\u22171,2 and Qian Liu", "Liangming Pan3 Qian Liu4", "List of subsidiaries*",
     "CHAPTER THIRTYEIGHT", "Appendix B", "SIGNATURE S"],
)  # fmt: skip
def test_doubtful_headings(title: str) -> None:
    body = block("text", "Body.", 80)
    assert index_of(page(0, block("heading", title, 50), body)).headings == []
    assert len(index_of(page(0, block("heading", "Statement of income", 50), body)).headings) == 1


def test_heading_deep_in_the_text_is_none() -> None:
    body = [block("text", "Some text that goes on.", y) for y in (80, 120)]
    assert index_of(page(0, block("heading", "Type LongTensor", 160, x=120, width=60), *body)).headings == []
    assert len(index_of(page(0, block("heading", "Type LongTensor", 160, width=60), *body)).headings) == 1


def test_contents_page_has_no_headings() -> None:
    entries = [block("heading", f"Chapter on part {i}", 50 + 20 * i) for i in range(8)]
    text = block("text", "\n".join(f"Part {i} ........ {i + 3}" for i in range(8)), 300)
    index = index_of(page(0, block("heading", "All parts of this", 30), *entries, text))
    assert index.headings == []


def test_caption_must_be_short_whole_and_unique() -> None:
    first = page(
        0, block("caption", "Figure 1: A pipe-\nline of steps.", 50), block("caption", "Figure 2 Objects", 300)
    )
    second = page(1, block("caption", "Table 1: Counts", 50), block("text", "that go on", 63))
    twice = page(2, block("caption", "Figure 3: One.", 50), block("text", "Figure 3: Another one.", 300))
    quoted_elsewhere = page(3, block("text", "Caption: Table 9: Counts of another study", 50))
    own = page(4, block("caption", "Table 9: Counts of this study.", 50))
    index = index_of(first, second, twice, quoted_elsewhere, own)
    assert [c.label for c in index.captions] == ["Figure 1", "Figure 2", "Table 1"]
    assert index.caption_name(index.captions[0]) == 'Figure 1 ("A pipeline of steps.")'
    found = {d.anchor: d.answer for d in drafts(text_patterns.caption_text, index)}
    assert found == {"Figure 1": "A pipeline of steps.", "Figure 2": "Objects"}  # Table 1 goes on below
    (pages,) = drafts(text_patterns.caption_pages, index)
    assert sorted(json.loads(pages.answer)) == ["1", "2"]


def numbered_list(after: str = "heading", first: int = 1) -> Page:
    items = [block("list-item", f"{first + i}. Step of kind {'abc'[i]}", 80 + 20 * i) for i in range(3)]
    return page(0, block("heading", "How to proceed", 50), *items, block(after, "What follows then", 150))


def test_numbered_list() -> None:
    index = index_of(numbered_list())
    items = {d.fields["number"]: d.answer for d in drafts(text_patterns.list_item, index)}
    assert items == {"1": "Step of kind a", "2": "Step of kind b"}  # never the last, whose end nothing marks
    (count,) = drafts(text_patterns.list_count, index)
    assert count.answer == "3"
    assert drafts(text_patterns.list_count, index_of(numbered_list(after="text"))) == []
    assert drafts(text_patterns.list_item, index_of(numbered_list(first=2))) == []
    more = page(1, block("list-item", "4. Step on the next page", 50))
    assert drafts(text_patterns.list_count, index_of(numbered_list(), more)) == []


def sections(source: str = "bookmarks") -> tuple[Section, ...]:
    titles = (("Methods", 1, 0), ("First way", 2, 0), ("Detail", 3, 0), ("Second way", 2, 1), ("Results", 1, 2))
    return tuple(Section(title=t, level=v, first_page=p, num_pages=1, source=source) for t, v, p in titles)


def test_subsections_come_from_bookmarks_alone() -> None:
    pages = (
        page(0, block("heading", "Methods", 50), block("heading", "1 First way", 80), block("heading", "Detail", 110)),
        page(1, block("heading", "2 Second way", 50)),
        page(2, block("heading", "Results", 50)),
    )
    index = index_of(*pages, sections=sections())
    (draft,) = drafts(text_patterns.subsections, index)
    assert json.loads(draft.answer) == ["First way", "Second way"]
    assert [e.quote for e in draft.evidence] == ["1 First way", "2 Second way"]
    (count,) = drafts(text_patterns.subsection_count, index)
    assert count.answer == "2"
    assert drafts(text_patterns.subsections, index_of(*pages, sections=sections("headings"))) == []
    assert drafts(text_patterns.subsections, index, Segment(first_page=1, num_pages=2)) == []


def questions(written: Written, task: str) -> list[Question]:
    return [q for q in written.questions if q.task == task]


def test_questions_are_complete_and_repeatable() -> None:
    written = write(questions_per_segment=5)
    assert written == write(questions_per_segment=5)
    assert {q.task for q in written.questions} >= {"extract-single", "extract-multi", "reasoning", "ocr-full"}
    assert len({q.question_id for q in written.questions}) == len(written.questions)
    assert len({q.question for q in written.questions}) == len(written.questions)
    for q in written.questions:
        assert q.accepted
        assert "{" not in q.question and "}" not in q.question
        assert q.generator.removeprefix("layout/") in PHRASINGS
        assert q.prompt_version
        assert all(WHOLE.first_page <= e.page < WHOLE.num_pages for e in q.evidence)
        assert q.names_pages == ("counting the first page of the document as page 1" in q.question)


def test_seed_changes_the_draw_and_tasks_do_not_disturb_each_other() -> None:
    assert {q.question for q in write(seed=1).questions} != {q.question for q in write(seed=2).questions}
    alone = write(tasks=("reasoning",), questions_per_segment=4)
    assert list(alone.questions) == questions(write(questions_per_segment=4), "reasoning")


def test_every_pattern_has_three_phrasings() -> None:
    assert all(len(set(p)) >= 3 for p in PHRASINGS.values())
    assert set(PATTERNS) == set(TASKS) - {"ocr-full", "ocr-needle"}


def test_nothing_is_asked_twice_of_one_document() -> None:
    segments = (Segment(first_page=0, num_pages=3), Segment(first_page=3, num_pages=5))
    copies = (table_page(0, SALES), *PAGES[1:5], table_page(5, replace(SALES, anchor="Results once more")))
    asked = questions(write(copies, segments=segments, questions_per_segment=50), "extract-single")
    lookups = [q for q in asked if q.generator == "layout/table-lookup"]
    assert len(lookups) == 10  # the same ten cells stand on both pages
    assert {e.page for q in lookups for e in q.evidence} == {0}


def test_a_segment_without_a_question_says_so() -> None:
    written = write([page(i, block("text", "Plain text.", 50)) for i in range(8)], tasks=("reasoning", "ocr-needle"))
    assert written.questions == ()
    assert [(g.id, g.stage, g.reason) for g in written.gaps] == [
        (f"{DOC}:1-8:reasoning", "synthesise", "no-candidate"),
        (f"{DOC}:1-8:ocr-needle", "synthesise", "no-candidate"),
    ]
    assert write([]) == Written(questions=(), gaps=())


@pytest.mark.parametrize("change", [{"text_source": "ocr"}, {"text_reason": "invisible-text"}])
def test_unsound_text_is_never_asked_about(change: dict[str, str]) -> None:
    pages = [replace(p, **change) for p in (*PAGES, *(replace(h, index=h.index + 6) for h in HEADINGS))]
    written = write(pages, tasks=("extract-single", "extract-multi", "reasoning"))
    assert written.questions == ()
    assert len(written.gaps) == 3


LONG = "Some words of this page stand here. " * 20


def text_page(index: int, **changes: object) -> Page:
    return page(index, block("text", f"{index}: {LONG}", 50), block("footer", "The end", 780), **changes)


def test_ocr_full_fills_the_limit_with_consecutive_pages() -> None:
    pages = [text_page(i) for i in range(8)]
    (q,) = write(pages, tasks=("ocr-full",), ocr_full_max_bytes=3_000).questions
    numbers = [e.page for e in q.evidence]
    assert len(numbers) >= 2
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert len(q.answer.encode()) <= 3_000
    assert q.answer == "\n\n".join(f"Page {n + 1}\n\n{pages[n].text}" for n in numbers)
    assert f"pages {numbers[0] + 1} to {numbers[-1] + 1} of the document" in q.question
    last = numbers[-1] + 1
    if last < 8:
        assert len(q.answer.encode()) + len(pages[last].text.encode()) > 3_000 - len("\n\nPage 9\n\n")


def test_ocr_needle_names_one_to_three_pages() -> None:
    pages = [text_page(i) for i in range(7)] + [page(7, block("text", "Too short.", 50))]
    found = write(pages, tasks=("ocr-needle",), questions_per_segment=9).questions
    asked = [e.page for q in found for e in q.evidence]
    assert sorted(asked) == list(range(7))  # every usable page once, the short one never
    for q in found:
        assert 1 <= len(q.evidence) <= 3
        assert all(f"Page {e.page + 1}\n\n{pages[e.page].text}" in q.answer for e in q.evidence)


def test_transcription_puts_footers_last() -> None:
    blocks = (block("footer", "7", 780), block("text", LONG.strip(), 50), block("header", "Report", 20))
    (q,) = write([page(0, *blocks)], tasks=("ocr-needle",), segments=(Segment(first_page=0, num_pages=1),)).questions
    assert q.answer == f"Page 1\n\nReport\n\n{LONG.strip()}\n\n7"


def test_transcriptions_need_sound_text() -> None:
    doubtful = [
        text_page(0, text_reason="garbled"),
        text_page(1, text_source="none"),
        text_page(2, problem="too large"),
    ]
    read = text_page(3, text_source="ocr")
    poor = replace(read, index=4, blocks=tuple(replace(b, confidence=0.5) for b in read.blocks))
    found = write([*doubtful, read, poor], tasks=("ocr-needle",), segments=(Segment(first_page=0, num_pages=5),))
    assert [e.page for q in found.questions for e in q.evidence] == [3]
    assert write([*doubtful, read, poor], tasks=("ocr-full",)).questions == ()


def test_dashes_are_no_numbers() -> None:
    dashed = table({"Bonds": ("—", "14"), "Notes": ("9", "")}, anchor="Securities held")
    cells = {
        (d.fields["row"], d.fields["column"]) for d in drafts(table_patterns.lookup, index_of(table_page(0, dashed)))
    }
    assert cells == {('"Bonds"', '"2017"'), ('"Notes"', '"2018"')}


def test_unit_is_named_only_where_it_is_the_cells() -> None:
    stock = table(
        {"Granted": ("467", "233.61"), "Vested": ("640", "164.83")},
        ("Number of shares", "Fair value"),
        unit="Shares in thousands",
        anchor="Restricted stock of the group",
    )
    units = {
        d.fields["column"]: d.fields["unit"] for d in drafts(table_patterns.lookup, index_of(table_page(0, stock)))
    }
    assert "Shares in thousands" in units['"Number of shares"']
    assert units['"Fair value"'] == ""
    mixed = table({"Income": ("37", "12"), "Effective tax rate": ("15.2%", "13.0%")}, anchor="Tax of the group")
    units = {d.fields["row"]: d.fields["unit"] for d in drafts(table_patterns.lookup, index_of(table_page(0, mixed)))}
    assert "percentage" in units['"Effective tax rate"'] and "Millions" not in units['"Effective tax rate"']
    pair = drafts(table_patterns.lookup_two, index_of(table_page(0, mixed), table_page(1, LEASES)))
    for draft in pair:
        assert draft.fields["unit"] == (
            " (a percentage)" if "rate" in draft.fields["row"] else ' (unit as printed: "Millions")'
        )
    assert {"rate" in d.fields["row"] for d in pair} == {True, False}


def test_counts_leave_out_tables_of_several_units() -> None:
    several = table(
        {"Income": ("37", "12"), "Shares issued": ("16", "13"), "Costs": ("5", "8"), "Tax": ("2", "3")},
        anchor="All figures",
    )
    assert drafts(table_patterns.rows_increased, index_of(table_page(0, several))) == []


def test_no_threshold_between_equal_values() -> None:
    flat = table(
        {"A one": ("7", "1"), "B two": ("7", "1"), "C three": ("7", "1"), "D four": ("7", "1")}, anchor="Flat table"
    )
    assert drafts(table_patterns.rows_above, index_of(table_page(0, flat))) == []


def test_list_of_figures_holds_no_captions() -> None:
    entries = [block("caption", f"Figure {i} Diagram of a part {i + 10}", 50 + 20 * i) for i in range(1, 9)]
    assert index_of(page(0, *entries)).captions == []


def test_captions_that_are_long_or_broken_are_not_quoted() -> None:
    captions = [
        block("caption", f"Figure 1: {'Long words ' * 30}.", 50),
        block("caption", "Figure 2: Statement of Incom e", 200),
        block("caption", "Figure 3: Ends with a stop.", 300),
        block("text", "A paragraph close beneath it.", 313),
    ]
    assert [d.anchor for d in drafts(text_patterns.caption_text, index_of(page(0, *captions)))] == ["Figure 3"]


def steps(*before: Block, texts: Sequence[str] = ("1. First step", "2. Second step", "3. Third step")) -> Page:
    items = [block("list-item", text, 80 + 40 * i) for i, text in enumerate(texts)]
    return page(0, *before, *items, block("heading", "What follows then", 300))


def test_lists_stand_under_their_own_heading() -> None:
    heading = block("heading", "How to proceed", 30)
    lead_in = block("text", "Proceed like this:", 55)
    assert len(index_of(steps(heading, lead_in)).lists) == 1
    assert index_of(steps(heading, block("text", "Some prose.", 55))).lists == []
    assert index_of(steps(block("heading", "List of references", 30))).lists == []
    assert index_of(steps(heading, texts=("1. First step", "2. Second step"))).lists == []
    assert index_of(steps(heading, texts=("1. First step\n2. Second step", "2. Again", "3. Third step"))).lists == []


def test_long_items_are_not_quoted() -> None:
    texts = (
        "1. First step",
        f"2. {'Long words ' * 30}",
        "3. On three\nlines of\ntext",
        '4. Press "on"',
        "5. Fifth step",
    )
    found = drafts(text_patterns.list_item, index_of(steps(block("heading", "How to proceed", 30), texts=texts)))
    assert [d.fields["number"] for d in found] == ["1"]


def test_one_needle_is_named_in_the_singular() -> None:
    (q,) = write([text_page(0)], tasks=("ocr-needle",), segments=(Segment(first_page=0, num_pages=1),)).questions
    assert "page 1 of the document" in q.question
    assert "pages" not in q.question.split(",")[0].replace("Page", "")


def test_overlong_questions_are_skipped() -> None:
    rows = {f"{'Group ' * 22}> {'Row ' * 30}{letter}": ("11", "12") for letter in "abc"}
    first = table(rows, (f"{'C' * 110} 2018", f"{'C' * 110} 2017"), anchor=f"First {'words ' * 33}:")
    second = replace(first, anchor=f"Second {'words ' * 33}:")
    pages = [table_page(0, first), table_page(1, second)]
    assert drafts(table_patterns.lookup_two, index_of(*pages))
    assert write(pages, tasks=("extract-multi",), questions_per_segment=50).questions == ()


def test_a_page_whose_text_layer_lost_a_letter_is_not_transcribed() -> None:
    good = page(0, block("text", "Prose that goes on. " * 20, 50))
    broken = page(1, block("text", "Prose by Aky\u00a8urek that goes on. " * 20, 50))
    found = write([good, broken], segments=[Segment(first_page=0, num_pages=2)], tasks=("ocr-needle",)).questions
    assert [[e.page for e in q.evidence] for q in found] == [[0]]
