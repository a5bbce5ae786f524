"""Near-duplicates: the best copy stays, and what merely looks alike stays too."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from fakes import document
from hypothesis import given
from hypothesis import strategies as st

from corpus.config import CleanSettings
from corpus.dedup import Duplicate, copy_rank, explain, find_duplicates, shared_pages
from corpus.sketches import PageSketch, Signature, minhash_of, run_hashes, word_hashes

SETTINGS = CleanSettings()


def words(seed: int, count: int = 200) -> list[str]:
    draw = random.Random(seed)
    return [f"w{draw.randrange(9_999)}" for _ in range(count)]


def image(seed: int, flipped: int = 0) -> str:
    """A random image hash; `flipped`: that many of its bits are others."""
    value = random.Random(seed).getrandbits(256)
    for bit in random.Random(f"{seed} {flipped}").sample(range(256), flipped):
        value ^= 1 << bit
    return f"{value:064x}"


class Corpus:
    """Documents made of pages: a list of words, an image hash, both, or nothing."""

    def __init__(self, **documents: Sequence[tuple[list[str], str]]) -> None:
        self.pages = {
            name: [
                PageSketch(doc_id=name, page=i, image=img, words=word_hashes(run_hashes(text)), text=" ".join(text))
                for i, (text, img) in enumerate(pages)
            ]
            for name, pages in documents.items()
        }
        self.signatures = {
            name: Signature(
                doc_id=name,
                num_layer_pages=len(pages),
                minhash=minhash_of(run_hashes(text) for text, _ in pages if text),
                images="".join(img for _, img in pages if img),
                language="",
            )
            for name, pages in documents.items()
        }

    def duplicates(self, *order: str) -> dict[str, str]:
        ranked = [self.signatures[name] for name in order or self.signatures]
        return {d.doc_id: d.kept for d in find_duplicates(ranked, self.pages.__getitem__, SETTINGS)}


def text(*seeds: int) -> list[tuple[list[str], str]]:
    return [(words(s), "") for s in seeds]


def scan(*seeds: int, flipped: int = 0) -> list[tuple[list[str], str]]:
    return [([], image(s, flipped)) for s in seeds]


def test_copies_by_words_and_by_picture() -> None:
    corpus = Corpus(a=text(1, 2, 3), b=scan(1, 2, 3), c=text(1, 2, 3), d=scan(1, 2, 3, flipped=8), e=text(4, 5, 6))
    assert corpus.duplicates() == {"c": "a", "d": "b"}
    assert corpus.duplicates("c", "d", "a", "b", "e") == {"a": "c", "b": "d"}


def test_another_report_with_the_same_standing_pages_is_no_copy() -> None:
    assert Corpus(a=text(*range(20)), b=text(*range(15), *range(100, 105))).duplicates() == {}


def test_a_version_with_one_new_page_of_many_is_a_copy_and_with_three_is_none() -> None:
    long = text(*range(40))
    assert Corpus(a=text(*range(40), 99), b=long).duplicates() == {"b": "a"}
    assert Corpus(a=text(*range(40), 97, 98, 99), b=long).duplicates() == {}


def test_a_form_filled_anew_is_no_copy() -> None:
    form = words(1, 120)
    filled = [w if i % 12 else f"{w}x" for i, w in enumerate(form)]
    alike = image(1, flipped=6)
    assert Corpus(a=[(form, image(1))], b=[(filled, alike)]).duplicates() == {}
    assert Corpus(a=[(form, image(1))], b=[(form, alike)]).duplicates() == {"b": "a"}


def test_a_certificate_for_somebody_else_is_no_copy() -> None:
    corpus = Corpus(
        a=[(["awarded", "to", "ada"], image(1))],
        b=[(["awarded", "to", "bob"], image(1))],
        c=[(["awarded", "to", "bob"], image(1, flipped=4))],
        d=[([], image(1))],
    )
    assert corpus.duplicates("a", "b", "c") == {"c": "b"}
    assert corpus.duplicates("a", "d") == {"d": "a"}  # nobody read it, so the picture decides


def test_a_picture_decides_only_where_it_is_nearly_the_same() -> None:
    assert Corpus(a=scan(1, 2), b=scan(1, 2, flipped=60)).duplicates() == {}


def test_documents_of_blank_pages_match_nothing() -> None:
    blank = [([], "")] * 5
    assert Corpus(a=blank, b=blank, c=[*text(1), *blank], d=[*text(2), *blank]).duplicates() == {}


def test_blank_pages_do_not_hide_a_copy() -> None:
    assert Corpus(a=[*text(1, 2), ([], "")], b=text(1, 2)).duplicates() == {"b": "a"}


def test_one_repeated_page_is_not_a_document() -> None:
    assert Corpus(a=text(1, 1, 1, 2), b=text(1, 3, 4, 5)).duplicates() == {}
    assert shared_pages(Corpus(a=text(1, 1, 1)).pages["a"], Corpus(b=text(1, 3, 4)).pages["b"], SETTINGS) == (1, 3)


def test_a_chain_of_small_changes_does_not_merge_its_ends() -> None:
    """b is like a, c is like b, but c is not like a: b goes, c stays."""
    corpus = Corpus(a=text(*range(21)), b=text(*range(1, 22)), c=text(*range(2, 23)))
    assert corpus.duplicates("b", "a", "c") == {"a": "b", "c": "b"}
    assert corpus.duplicates("a", "b", "c") == {"b": "a"}


@given(st.permutations(["a", "b", "c", "d", "e"]))
def test_the_choice_follows_the_ranks_alone(order: list[str]) -> None:
    corpus = Corpus(a=text(1, 2), b=text(1, 2), c=text(1, 2), d=text(3), e=scan(7))
    first = min(order.index(x) for x in "abc")
    assert corpus.duplicates(*order) == {x: order[first] for x in "abc" if x != order[first]}


def test_the_best_copy_has_most_pages_then_a_text_layer_then_most_bytes() -> None:
    def rank(name: str, pages: int, layer: int, size: int) -> tuple[int, int, int, str]:
        made = document(sha256=name * 64, num_pages=pages, num_bytes=size)
        signature = Signature(doc_id=made.doc_id, num_layer_pages=layer, minhash="", images="", language="")
        return copy_rank(made, signature)

    best_first = [rank("d", 9, 0, 1), rank("c", 8, 8, 1), rank("b", 8, 2, 7), rank("a", 8, 2, 5), rank("e", 8, 2, 5)]
    assert best_first == sorted(best_first)


def test_the_ledger_is_told_which_copy_stays() -> None:
    told = explain(Duplicate(doc_id="b", kept="a", shared_pages=39, of_pages=40), "/library/a.pdf")
    assert told == "39 of 40 recognisable pages are those of /library/a.pdf (a), which is kept"


@pytest.mark.parametrize("count", [0, 1])
def test_few_documents_are_no_error(count: int) -> None:
    assert Corpus(**dict.fromkeys("a"[:count], text(1))).duplicates() == {}
