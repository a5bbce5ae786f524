"""One row for every input, whatever became of it; and the proof that no page was lost. Pure.

Page conservation: pages in = pages in windows + pages left out, each run of those with a reason. It is asserted for
every document, so a page that disappears stops the build instead of the corpus.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from corpus.ingest import Ingested
from corpus.records import LedgerEntry, LeftOut, Rejected


def make_ledger(
    inputs: Iterable[Ingested],
    rejected: Mapping[str, Rejected],
    until: str,
    cuts: Mapping[str, Mapping[str, Any]] | None,
    accepted: Mapping[str, int],
    ocr_pages: Mapping[str, int],
    detected: Mapping[str, str] | None = None,
) -> list[LedgerEntry]:
    """Entries in the order of the inputs.

    Args:
        rejected: documents refused after ingest, by id.
        until: the last stage that ran; a document that nothing refused is `kept` at that stage.
        cuts: windows and left-out pages by document id; None before the shard stage ran.
        accepted: accepted questions by document id.
        ocr_pages: pages read by OCR by document id.
        detected: languages by document id, where the manifest gave none.
    """
    entries = []
    for item in inputs:
        refusal = _refusal(item, rejected, cuts)
        cut = cuts.get(item.doc_id) if cuts and not item.reason else None
        left_out = _left_out(item, refusal, cut)
        windows = cut["windows"] if cut and not refusal else []
        language = (detected or {}).get(item.doc_id, "") if not item.reason else ""
        entry = LedgerEntry(
            uri=os.fsencode(item.source.uri).decode("utf-8", "backslashreplace"),
            doc_id=item.doc_id,
            status="rejected" if refusal else "kept",
            stage=refusal.stage if refusal else ("shard" if cuts is not None else until),
            reason=refusal.reason if refusal else "",
            detail=refusal.detail if refusal else "",
            num_pages=item.probe.num_pages,
            window_pages=sum(n for _, _, n in windows),
            left_out=left_out if cuts is not None or refusal else (),
            num_bytes=item.probe.num_bytes,
            num_windows=len(windows),
            num_questions=accepted.get(item.doc_id, 0) if not item.reason else 0,
            num_tokens=cut["tokens"] if cut and not refusal else 0,
            ocr_pages=ocr_pages.get(item.doc_id, 0) if not item.reason else 0,
            title=item.source.title,
            language=item.source.language or language,
            license=item.source.license,
            source=item.source.source,
            language_source="manifest" if item.source.language else "detected" if language else "",
        )
        if cuts is not None or refusal:
            assert_conserved(entry)
        entries.append(entry)
    return entries


def assert_conserved(entry: LedgerEntry) -> None:
    """Every page of the document is in a window or left out with a reason."""
    left_out = sum(x.num_pages for x in entry.left_out)
    assert entry.num_pages == entry.window_pages + left_out, (
        f"{entry.uri}: {entry.num_pages} pages in, {entry.window_pages} in windows, {left_out} left out"
    )
    assert all(x.reason for x in entry.left_out), f"{entry.uri}: pages left out without a reason"


def _refusal(
    item: Ingested, rejected: Mapping[str, Rejected], cuts: Mapping[str, Mapping[str, Any]] | None
) -> Rejected | None:
    if item.reason:
        return Rejected(id=item.doc_id, stage="ingest", reason=item.reason, detail=item.detail)
    if item.doc_id in rejected:
        return rejected[item.doc_id]
    if cuts is None or cuts[item.doc_id]["windows"]:
        return None
    pages: Counter[str] = Counter()
    for _, num_pages, reason in cuts[item.doc_id]["left_out"]:
        pages[reason] += num_pages
    most = max(sorted(pages), key=pages.__getitem__)
    reason, _, detail = most.partition(": ")
    return Rejected(id=item.doc_id, stage="shard", reason=reason, detail=detail or _explain(reason))


def _explain(reason: str) -> str:
    return {
        "too-short": "the document has fewer tokens than windows.min_tokens; lower that to keep it",
        "no-questions": "no question was found that a window holds; see rejected.parquet",
        "page-too-long": "a page alone exceeds windows.max_tokens; lower render.dpi to keep it",
        "no-window-fits": "no cut leaves windows within the range; lower windows.min_tokens or raise max_tokens",
    }.get(reason, "")


def _left_out(item: Ingested, refusal: Rejected | None, cut: Mapping[str, Any] | None) -> tuple[LeftOut, ...]:
    if refusal is None or (cut and not cut["windows"]):
        runs = cut["left_out"] if cut else []
        return tuple(LeftOut(first_page=first, num_pages=n, reason=reason) for first, n, reason in runs)
    if not item.probe.num_pages:
        return ()
    return (LeftOut(first_page=0, num_pages=item.probe.num_pages, reason=refusal.reason),)
