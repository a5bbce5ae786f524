"""The ledger: one row an input, and every page accounted for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.ingest import Ingested, Probe, Source
from corpus.ledger import assert_conserved, make_ledger
from corpus.records import LedgerEntry, LeftOut, Rejected


def item(name: str, pages: int = 10, reason: str = "", detail: str = "") -> Ingested:
    sha256 = (name.encode().hex() * 64)[:64] if pages or not reason else ""
    probe = Probe(uri=f"/{name}.pdf", num_bytes=100, mtime_ns=0, sha256=sha256, num_pages=pages)
    source = Source(uri=f"/{name}.pdf", title=name.upper(), license="MIT")
    return Ingested(source=source, probe=probe, reason=reason, detail=detail)


def cut(windows: list[tuple[int, int]], left_out: list[tuple[int, int, str]] = [], tokens: int = 0) -> dict[str, Any]:  # noqa: B006
    """`windows`: (first page, pages); `left_out`: (first page, pages, reason)."""
    return {"windows": [(i, *w) for i, w in enumerate(windows)], "left_out": left_out, "tokens": tokens}


def entry_of(one: Ingested, cuts: dict[str, Any] | None, **options: Any) -> LedgerEntry:
    values = {"rejected": {}, "until": "report", "accepted": {}, "ocr_pages": {}, **options}
    (entry,) = make_ledger([one], cuts=cuts, **values)
    return entry


def test_a_kept_document_has_its_windows_and_what_was_left_out() -> None:
    a = item("a")
    facts = cut([(0, 4), (5, 5)], [(4, 1, "render-failed: x")], tokens=900)
    entry = entry_of(a, {a.doc_id: facts}, accepted={a.doc_id: 7}, ocr_pages={a.doc_id: 2})
    assert (entry.status, entry.stage, entry.reason) == ("kept", "shard", "")
    assert (entry.num_pages, entry.window_pages, entry.num_windows, entry.num_tokens) == (10, 9, 2, 900)
    assert entry.left_out == (LeftOut(first_page=4, num_pages=1, reason="render-failed: x"),)
    assert (entry.num_questions, entry.ocr_pages, entry.title, entry.license) == (7, 2, "A", "MIT")


def test_a_document_refused_at_ingest_keeps_its_pages_in_the_count() -> None:
    entry = entry_of(item("a", 10, "duplicate", "same bytes as /b.pdf"), {})
    assert (entry.status, entry.stage, entry.reason) == ("rejected", "ingest", "duplicate")
    assert entry.detail == "same bytes as /b.pdf"
    assert entry.left_out == (LeftOut(first_page=0, num_pages=10, reason="duplicate"),)
    assert (entry.num_windows, entry.num_tokens, entry.num_questions) == (0, 0, 0)


def test_a_file_that_could_not_be_read_has_no_pages_and_no_id() -> None:
    entry = entry_of(item("a", 0, "unreadable"), {})
    assert (entry.doc_id, entry.num_pages, entry.left_out) == ("", 0, ())


def test_a_duplicate_does_not_borrow_the_facts_of_its_twin() -> None:
    a = item("a")
    twin = Ingested(source=Source(uri="/b.pdf"), probe=a.probe, reason="duplicate")
    facts = {"cuts": {a.doc_id: cut([(0, 10)], tokens=5)}, "accepted": {a.doc_id: 3}, "ocr_pages": {a.doc_id: 1}}
    first, second = make_ledger([a, twin], rejected={}, until="report", **facts)
    assert (first.status, first.num_tokens, first.num_questions, first.ocr_pages) == ("kept", 5, 3, 1)
    assert (second.status, second.num_tokens, second.num_questions, second.ocr_pages) == ("rejected", 0, 0, 0)
    assert second.window_pages == 0


def test_a_duplicate_of_a_document_without_windows_is_still_a_duplicate() -> None:
    a = item("a")
    twin = Ingested(source=Source(uri="/b.pdf"), probe=a.probe, reason="duplicate")
    facts = {a.doc_id: cut([], [(0, 10, "too-short")])}
    first, second = make_ledger([a, twin], {}, "report", facts, {}, {})
    assert [(x.reason, x.left_out[0].reason) for x in (first, second)] == [("too-short",) * 2, ("duplicate",) * 2]


def test_a_document_refused_by_a_later_stage_says_which() -> None:
    a = item("a")
    refused = {a.doc_id: Rejected(id=a.doc_id, stage="parse", reason="timeout", detail="120 s")}
    entry = entry_of(a, {}, rejected=refused)
    assert (entry.stage, entry.reason, entry.detail) == ("parse", "timeout", "120 s")
    assert entry.left_out == (LeftOut(first_page=0, num_pages=10, reason="timeout"),)


@pytest.mark.parametrize(
    ("left_out", "reason", "detail"),
    [
        ([(0, 10, "too-short")], "too-short", "windows.min_tokens"),
        ([(0, 10, "no-questions")], "no-questions", "rejected.parquet"),
        ([(0, 9, "page-too-long"), (9, 1, "page-too-long")], "page-too-long", "render.dpi"),
        ([(0, 1, "x: y"), (1, 8, "no-window-fits"), (9, 1, "x: y")], "no-window-fits", "windows.min_tokens or raise"),
        ([(0, 1, "render-failed: page 1: x"), (1, 1, "too-short"), (2, 8, "too-short")], "too-short", "min_tokens"),
        ([(0, 10, "render-failed: page 1: broken")], "render-failed", "page 1: broken"),
    ],
)
def test_a_document_without_windows_is_rejected_for_what_befell_most_of_its_pages(
    left_out: list[tuple[int, int, str]], reason: str, detail: str
) -> None:
    a = item("a")
    entry = entry_of(a, {a.doc_id: cut([], left_out)})
    assert (entry.status, entry.stage, entry.reason) == ("rejected", "shard", reason)
    assert detail in entry.detail
    assert sum(x.num_pages for x in entry.left_out) == 10


def test_before_the_shard_stage_a_document_is_kept_where_the_build_stopped() -> None:
    entry = entry_of(item("a"), None, until="parse")
    assert (entry.status, entry.stage, entry.window_pages, entry.left_out) == ("kept", "parse", 0, ())


@pytest.mark.parametrize(
    "facts",
    [cut([(0, 9)]), cut([(0, 10)], [(9, 1, "x")]), cut([(0, 9)], [(9, 1, "")])],
    ids=["lost", "counted twice", "without a reason"],
)
def test_a_page_that_is_not_accounted_for_stops_the_build(facts: dict[str, Any]) -> None:
    a = item("a")
    with pytest.raises(AssertionError, match=r"/a\.pdf: "):
        entry_of(a, {a.doc_id: facts})


@given(st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["", "too-short", "render-failed: x"])), min_size=1))
def test_pages_are_conserved_however_a_document_is_cut(runs: list[tuple[int, str]]) -> None:
    windows, left_out, first = [], [], 0
    for pages, reason in runs:
        if reason:
            left_out.append((first, pages, reason))
        else:
            windows.append((first, pages))
        first += pages
    a = item("a", first)
    entry = entry_of(a, {a.doc_id: cut(windows, left_out)})
    assert_conserved(entry)
    assert entry.window_pages == sum(n for _, n in windows)
    assert (entry.status == "kept") == bool(windows)


def test_rows_stand_in_the_order_of_the_inputs() -> None:
    items = [item(name, 0, "unreadable") for name in "cab"]
    ledger = make_ledger(items, {}, "ingest", None, {}, {})
    assert [e.uri for e in ledger] == ["/c.pdf", "/a.pdf", "/b.pdf"]
