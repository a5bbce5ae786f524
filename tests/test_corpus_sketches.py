"""Word hashes and signatures: what two pages share is what their samples share."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from fakes import page

from corpus.language import detect_language, primary
from corpus.records import Page
from corpus.sketches import (
    MIN_RUNS,
    PageSketch,
    Signature,
    SketchJob,
    minhash_of,
    page_words,
    resemblance,
    run_hashes,
    sketch_partition,
    unpack,
    word_hashes,
    words_of,
)
from corpus.store import read_records, write_records

ENGLISH = "The pump must be switched off before the filter is cleaned, and the valve has to be closed by hand. "
GERMAN = "Die Pumpe muss vor der Reinigung des Filters abgeschaltet und das Ventil von Hand geschlossen werden. "


def some_words(seed: int, count: int) -> list[str]:
    draw = random.Random(seed)
    return [f"word{draw.randrange(5_000)}" for _ in range(count)]


def hashes_of(words: list[str]) -> np.ndarray:
    return unpack(word_hashes(run_hashes(words)))


def test_words_are_compared_without_case_punctuation_and_line_breaks() -> None:
    assert words_of("Net In-\ncome,  of 1,234.5 (\ufb01nal)") == ["net", "income", "of", "1,234.5", "final"]
    assert words_of("第1章 概要") == ["第", "1", "章", "概", "要"]
    assert words_of("-- ... !") == []


def test_runs_are_counted_once_and_depend_on_order() -> None:
    assert len(run_hashes(list("abcde"))) == 1 and len(run_hashes(list("abcd"))) == 0
    assert len(run_hashes(list("abcde") * 4)) == 5
    assert run_hashes(list("abcde"))[0] != run_hashes(list("abced"))[0]


def test_a_cropped_page_resembles_the_whole_one_as_far_as_it_goes() -> None:
    whole = some_words(1, 600)
    assert resemblance(hashes_of(whole), hashes_of(whole)) == 1
    assert 0.7 < resemblance(hashes_of(whole), hashes_of(whole[50:550])) < 0.95
    assert resemblance(hashes_of(whole), hashes_of(some_words(2, 600))) < 0.05


def test_a_page_of_few_words_has_no_hashes() -> None:
    assert word_hashes(run_hashes(some_words(1, MIN_RUNS + 3))) == ""
    assert len(word_hashes(run_hashes(some_words(1, MIN_RUNS + 4)))) == 8 * MIN_RUNS


def test_a_minhash_estimates_what_two_documents_share() -> None:
    words = some_words(3, 4_000)
    a, b = (unpack(minhash_of([run_hashes(w)])) for w in (words, words[:3_600]))
    assert (a == b).mean() == pytest.approx(0.9, abs=0.08)
    assert minhash_of([]) == ""


def test_a_partition_is_sketched_by_page_and_document(tmp_path: Path) -> None:
    pages = [
        page(0, " ".join(some_words(1, 100)), doc_id="a" * 16),
        page(1, "short", doc_id="a" * 16, text_source="ocr", text_reason="no text layer", image_hash="0f" * 32),
        page(0, doc_id="b" * 16, text_source="none"),
        page(0, "refused before", doc_id="c" * 16),
    ]
    write_records(tmp_path / "pages.parquet", Page, pages)
    job = SketchJob(
        doc_ids=("a" * 16, "b" * 16),
        pages_file=tmp_path / "pages.parquet",
        sketches=tmp_path / "s.parquet",
        signatures=tmp_path / "d.parquet",
    )
    sketch_partition(job, lambda _: None)
    sketches = read_records(tmp_path / "s.parquet", PageSketch)
    assert [(s.page, s.image, bool(s.words), bool(s.text), s.informative) for s in sketches] == [
        (0, "", True, True, True),
        (1, "0f" * 32, False, True, True),
        (0, "", False, False, False),
    ]
    first, second = read_records(tmp_path / "d.parquet", Signature)
    assert (first.num_layer_pages, first.images) == (1, "0f" * 32)
    assert first.minhash == minhash_of([run_hashes(page_words(pages[0]))])
    assert (second.num_layer_pages, second.images, second.minhash, second.language) == (0, "", "", "")


@pytest.mark.parametrize(("text", "language"), [(ENGLISH, "en"), (GERMAN, "de")])
def test_the_language_is_that_of_the_text(text: str, language: str) -> None:
    assert detect_language(["", text * 3, "12,345 678"]) == language


def test_no_language_is_guessed_from_little_text() -> None:
    assert detect_language(["Total 12,345", "", "Page 7"]) == detect_language([]) == ""
    assert detect_language(["0123 4567 89 " * 200]) == ""


def test_variants_of_a_language_are_that_language() -> None:
    assert [primary(x) for x in ("en-US", "EN_gb", " de ", "")] == ["en", "en", "de", ""]
