"""Pages and questions of a benchmark are recognised; one common page or a short question is not enough."""

from __future__ import annotations

import random

import pytest

from corpus.benchmark_sets import BenchmarkPage, BenchmarkQuestion
from corpus.config import CleanSettings
from corpus.decontamination import PageIndex, QuestionIndex, is_contaminated
from corpus.sketches import PageSketch, run_hashes, word_hashes

SETTINGS = CleanSettings()


def words(seed: int, count: int = 200) -> list[str]:
    draw = random.Random(seed)
    return [f"w{draw.randrange(9_999)}" for _ in range(count)]


def image(seed: int, flipped: int = 0) -> str:
    value = random.Random(seed).getrandbits(256)
    for bit in range(flipped):
        value ^= 1 << bit
    return f"{value:064x}"


def ours(*pages: tuple[list[str], str]) -> list[PageSketch]:
    return [
        PageSketch(doc_id="d", page=i, image=img, words=word_hashes(run_hashes(text)), text="")
        for i, (text, img) in enumerate(pages)
    ]


def benchmark(name: str, *pages: tuple[list[str], tuple[str, ...]]) -> list[BenchmarkPage]:
    return [
        BenchmarkPage(document=name, page=i + 1, images=images, words=word_hashes(run_hashes(text)))
        for i, (text, images) in enumerate(pages)
    ]


BY_WORDS = benchmark("report.pdf", *((words(i), ()) for i in range(12)))
BY_IMAGE = benchmark("slides.pdf", *(([], (image(i), image(1_000 + i))) for i in range(10)))
INDEX = PageIndex([*BY_WORDS, *BY_IMAGE])


def judged(pages: list[PageSketch], index: PageIndex = INDEX) -> tuple[bool, str]:
    found = index.contamination(pages, SETTINGS)
    return is_contaminated(found, SETTINGS), found.detail if found else ""


def test_an_excerpt_is_refused_and_says_of_what() -> None:
    refused, detail = judged(ours(*((words(i)[20:180], "") for i in range(3, 6))))
    assert refused
    assert detail == "3 of 3 recognisable pages show 3 of the 12 of benchmark document report.pdf"


def test_the_hash_of_any_crop_matches_also_with_some_bits_wrong() -> None:
    assert judged(ours(([], image(1_002, flipped=30)), ([], image(3))))[0]
    assert judged(ours(([], image(1_002, flipped=60)), ([], image(503)))) == (False, "")


def test_a_benchmark_document_inside_a_longer_file_is_refused() -> None:
    filler = [(words(i), "") for i in range(100, 190)]
    refused, detail = judged(ours(*filler, *((words(i), "") for i in range(10))))
    assert refused and detail.startswith("10 of 100 recognisable pages show 10 of the 12")


def test_one_page_of_many_is_not_enough() -> None:
    others = [(words(i), "") for i in range(100, 104)]
    assert not judged(ours((words(3), ""), *others[:3]))[0]
    assert not judged(ours((words(3), ""), (words(4), ""), *((words(i), "") for i in range(100, 120))))[0]
    assert judged(ours((words(3), "")))[0]


def test_pages_that_say_nothing_count_on_neither_side() -> None:
    blank = ([], "")
    assert judged(ours(*[blank] * 40)) == (False, "")
    assert judged(ours(*[blank] * 40, (words(1), ""), (words(2), "")))[0]


def test_an_unrelated_document_has_nothing_in_common() -> None:
    assert judged(ours(*((words(i), image(i + 5_000)) for i in range(200, 220)))) == (False, "")


@pytest.mark.parametrize("index", [PageIndex([]), PageIndex(BY_WORDS), PageIndex(BY_IMAGE)])
def test_a_benchmark_may_lack_words_or_images(index: PageIndex) -> None:
    assert not judged(ours((words(999), image(999)), ([], ""), ([], image(998))), index)[0]


QUESTION = "What is the percentage of people who are democrats and voted in the last election of 2018?"
QUESTIONS = QuestionIndex(
    [
        BenchmarkQuestion(where="bench.json:1", question=QUESTION, answer="18.29%"),
        BenchmarkQuestion(where="bench.json:2", question="What is the title?", answer="Annual Report"),
        BenchmarkQuestion(where="bench.json:3", question="Who wrote it?", answer=""),
    ]
)


@pytest.mark.parametrize(
    ("question", "answer", "found"),
    [
        (QUESTION.upper(), "7", "the same words as the question of bench.json:1"),
        (f"Look at page 3. {QUESTION} Write digits.", "7", "100% of the word runs of the question of bench.json:1"),
        (QUESTION.replace("2018", "2024"), "7", "93% of the word runs of the question of bench.json:1"),
        ("What is the percentage of people who rent a flat in 2018?", "18.29%", ""),
        ("What is the title?", "annual report", "the same words as the question of bench.json:2"),
        ("What is the title?", "Minutes", ""),
        ("What is the title of the second figure?", "Annual Report", ""),
        ("Who wrote it?", "Anybody", "the same words as the question of bench.json:3"),
        ("", "", ""),
    ],
)
def test_a_question_that_repeats_a_benchmark_is_found(question: str, answer: str, found: str) -> None:
    assert QUESTIONS.overlap(question, answer, 0.7) == found
