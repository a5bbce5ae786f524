"""The mixture holds the shares that were asked for or says by how much it does not, is stable, and loses nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.config import MixtureSettings
from corpus.errors import ConfigError
from corpus.records import Sample, content_id
from corpus.store import read_records, to_table
from packing.ids import hash_ids
from packing.mixture import Mixture, Pool, mix
from packing.mixture_report import REASONS, format_mixture
from packing.mixture_table import mix_file, mix_table, mixture_table, write_mixture

STEADY = settings(derandomize=True, deadline=None, max_examples=120)
TASKS = ("extract-multi", "extract-single", "ocr-full", "reasoning", "short")
MULTI, SINGLE, OCR, REASONING, SHORT = range(5)
BUCKETS = (0, 32_768, 65_536, 98_304)

# A question: its number (which makes its id), task, window; the window decides how long the sample is.
Questions = list[tuple[int, int, int]]
POOLS = st.lists(
    st.tuples(st.integers(0, 9_999), st.integers(0, 4), st.integers(0, 15)), max_size=80, unique_by=lambda q: q[0]
)


def sample_id(number: int) -> str:
    return "s" + content_id(number, length=15)


def pool_of(questions: Questions, seed: int = 0) -> Pool:
    ids = pa.chunked_array([pa.array([sample_id(n) for n, _, _ in questions], pa.string())])
    task = np.array([t for _, t, _ in questions], dtype=np.int64)
    window = np.array([w for *_, w in questions], dtype=np.int64)
    said = np.array([50 + n % 7 for n, _, _ in questions], dtype=np.int64)
    return Pool(
        key=hash_ids(ids, seed),
        task=task,
        task_names=TASKS,
        window=window,
        num_tokens=np.where(task == SHORT, said, 30_000 + 6_000 * window + said),
        turn_tokens=said + 5,
    )


def many(**counts: int) -> Questions:
    """So many questions of each task, spread over 16 windows."""
    tasks = [t for name, n in counts.items() for t in [TASKS.index(name.replace("_", "-"))] * n]
    return [(i, task, i * 7 % 16) for i, task in enumerate(tasks)]


def mixed(questions: Questions, seed: int = 0, max_tokens: int = 131_072, **values: Any) -> Mixture:
    return mix(pool_of(questions, seed), MixtureSettings.model_validate(values), max_tokens=max_tokens)


def counts(mixture: Mixture) -> dict[str, int]:
    return {p.name: p.chosen for p in mixture.report.tasks if p.chosen}


def chosen(questions: Questions, mixture: Mixture) -> set[int]:
    return {questions[i][0] for i in mixture.question.tolist()}


def tokens_of(questions: Questions, mixture: Mixture) -> list[int]:
    """Of each sample, from the questions that it asks."""
    pool, tokens = pool_of(questions), Counter[int]()
    for i, sample in zip(mixture.question.tolist(), mixture.sample.tolist(), strict=True):
        tokens[sample] += int(pool.turn_tokens[i] if sample in tokens else pool.num_tokens[i])
    return list(tokens.values())


# ------------------------------------------------------------------------------------------------------ task shares


def test_the_scarcest_task_decides_the_size() -> None:
    mixture = mixed(many(extract_single=30, extract_multi=30, reasoning=10, ocr_full=5))
    assert counts(mixture) == {"extract-single": 20, "extract-multi": 20, "reasoning": 10}
    assert mixture.report.left_out == {"task-not-asked": 5, "share-filled": 20}
    (said,) = mixture.report.shortfalls
    assert said.startswith("reasoning limits an epoch: there are 10, for 20.0 %; 20 questions")
    assert "mixture.shortage=fill" in said


def test_filling_takes_everything_and_says_how_the_shares_deviate() -> None:
    mixture = mixed(many(extract_single=30, extract_multi=30, reasoning=10, ocr_full=5), shortage="fill")
    assert counts(mixture) == {"extract-single": 30, "extract-multi": 30, "reasoning": 10}
    assert "reasoning: 20.0 % asked, 14.3 % got" in mixture.report.shortfalls
    budget = mixed(many(extract_single=30, extract_multi=30, reasoning=10), shortage="fill", token_budget="2M")
    assert counts(budget)["reasoning"] * 4 <= sum(counts(budget).values()) + 4  # the shares hold as long as they can


def test_a_task_that_the_pool_lacks_leaves_its_share_to_the_others() -> None:
    mixture = mixed(many(extract_single=30, extract_multi=10))
    assert counts(mixture) == {"extract-single": 10, "extract-multi": 10}
    assert mixture.report.shortfalls[0].startswith("20.0 % should be reasoning and there is no such question")


def test_without_shares_everything_is_taken() -> None:
    mixture = mixed(many(extract_single=3, ocr_full=4, reasoning=1), tasks=None)
    assert counts(mixture) == {"extract-single": 3, "ocr-full": 4, "reasoning": 1}
    assert (mixture.report.left_out, mixture.report.shortfalls) == ({}, ())


def test_nothing_that_was_asked_for_is_said() -> None:
    mixture = mixed(many(ocr_full=4))
    assert len(mixture.question) == 0 and mixture.report.left_out == {"task-not-asked": 4}
    assert mixture.report.shortfalls[0].startswith("no question is chosen; the pool has ocr-full 4")
    assert mixed([]).report.shortfalls == ()


@STEADY
@given(POOLS, st.integers(0, 3), st.sampled_from(["shrink", "fill"]), st.integers(1, 3), st.integers(1, 3))
def test_every_question_is_used_or_left_out_with_a_reason(
    questions: Questions, seed: int, shortage: str, epochs: int, turns: int
) -> None:
    mixture = mixed(questions, seed, shortage=shortage, epochs=epochs, questions_per_window=turns)
    used, left = set(mixture.question.tolist()), mixture.left_out.tolist()
    assert used.isdisjoint(left) and used | set(left) == set(range(len(questions))) and len(left) == len(set(left))
    reasons = Counter(list(REASONS)[r] for r in mixture.reason.tolist())
    assert reasons == mixture.report.left_out
    assert not used & {i for i, (_, task, _) in enumerate(questions) if task in (OCR, SHORT)}
    assert sum(tokens_of(questions, mixture)) == mixture.report.num_tokens
    assert format_mixture(mixture.report).count("\n") >= 2


@STEADY
@given(POOLS, st.integers(0, 3), st.integers(1, 4))
def test_shares_hold_to_within_a_question(questions: Questions, seed: int, epochs: int) -> None:
    mixture = mixed(questions, seed, epochs=epochs)
    got, total = counts(mixture), mixture.report.num_questions - mixture.report.short.chosen
    there = {TASKS[t] for _, t, _ in questions} & {"extract-single", "extract-multi", "reasoning"}
    shares = {t: s for t, s in {"extract-single": 0.4, "extract-multi": 0.4, "reasoning": 0.2}.items() if t in there}
    for task, share in shares.items():
        assert abs(got.get(task, 0) - total * share / sum(shares.values())) < 1.5
    pool = Counter(TASKS[t] for _, t, _ in questions)
    if there:  # and one more epoch of all tasks would not fit: some task is used up
        assert any(got[t] >= epochs * pool[t] for t in there)


@STEADY
@given(POOLS, st.integers(1, 4), st.sampled_from(["shrink", "fill"]), st.sampled_from([None, "1M", "4M"]))
def test_an_epoch_repeats_no_question_and_none_is_used_too_often(
    questions: Questions, epochs: int, shortage: str, budget: str | None
) -> None:
    mixture = mixed(questions, epochs=epochs, shortage=shortage, token_budget=budget, short={"share": 0.3})
    uses = list(zip(mixture.question.tolist(), mixture.epoch.tolist(), strict=True))
    assert len(uses) == len(set(uses)) and max(mixture.epoch.tolist(), default=0) < epochs
    assert mixture.epoch.tolist() == sorted(mixture.epoch.tolist())


def test_a_later_epoch_shows_new_questions_where_there_are_more() -> None:
    questions = many(extract_single=40, extract_multi=80, reasoning=10)
    mixture = mixed(questions, epochs=2)
    assert counts(mixture) == {"extract-single": 40, "extract-multi": 40, "reasoning": 20}
    first, second = (set(mixture.question[mixture.epoch == e].tolist()) for e in (0, 1))
    assert {TASKS[questions[i][1]] for i in first & second} == {"reasoning"}
    assert [len(first), len(second)] == [50, 50]


# ------------------------------------------------------------------------------------------------------- stability


@STEADY
@given(POOLS, st.randoms(use_true_random=False), st.integers(0, 5))
def test_the_order_of_the_pool_decides_nothing(questions: Questions, draw: Any, seed: int) -> None:
    shuffled = draw.sample(questions, len(questions))
    for values in ({}, {"token_budget": "2M", "epochs": 2}, {"lengths": "uniform", "shortage": "fill"}):
        assert chosen(questions, mixed(questions, seed, **values)) == chosen(shuffled, mixed(shuffled, seed, **values))


@STEADY
@given(POOLS, POOLS, st.sampled_from(["pool-native", "uniform"]), st.sampled_from([None, "1500K"]))
def test_added_questions_take_places_by_smaller_keys_alone(
    old: Questions, more: Questions, lengths: str, budget: str | None
) -> None:
    """In every cell the smallest keys are chosen, before and after; so nobody leaves but for them or a lower target."""
    known = {n for n, _, _ in old}
    new = old + [q for q in more if q[0] not in known]
    values = {"lengths": lengths, "token_budget": budget, "shortage": "fill"}
    for questions in (old, new):
        mixture, pool = mixed(questions, **values), pool_of(questions)
        cells: dict[tuple[int, int], list[int]] = {}
        for i, (_, task, _) in enumerate(questions):
            bucket = int(np.searchsorted(BUCKETS, pool.num_tokens[i], side="right")) if lengths == "uniform" else 0
            cells.setdefault((task, bucket), []).append(i)
        used = set(mixture.question.tolist())
        for cell in cells.values():
            in_order = sorted(cell, key=lambda i: int(pool.key[i]))
            taken = [i in used for i in in_order]
            assert taken == sorted(taken, reverse=True)


@STEADY
@given(POOLS, st.integers(0, 3_000_000), st.integers(0, 3_000_000), st.integers(1, 2))
def test_a_larger_budget_only_adds(questions: Questions, one: int, other: int, epochs: int) -> None:
    small, large = sorted((one + 1, other + 1))
    less = mixed(questions, token_budget=small, epochs=epochs)
    more = mixed(questions, token_budget=large, epochs=epochs)
    assert chosen(questions, less) <= chosen(questions, more)


def test_another_seed_chooses_others() -> None:
    questions = many(extract_single=40, extract_multi=40, reasoning=20)
    values: dict[str, Any] = {"token_budget": "1M"}
    assert chosen(questions, mixed(questions, 0, **values)) != chosen(questions, mixed(questions, 1, **values))


def test_keys_depend_on_text_and_seed_alone() -> None:
    texts = ["", "a", "a\0", "s0159abcdef012345", "12345678", "123456789", "Größe 東京", "x" * 300, "x" * 301]
    keys = hash_ids(pa.chunked_array([pa.array(texts)]), 7)
    assert len(set(keys.tolist())) == len(texts)
    cut = pa.chunked_array([pa.array(["zz", *texts[:4]]).slice(1), pa.array([], pa.string()), pa.array(texts[4:])])
    assert hash_ids(cut, 7).tolist() == keys.tolist() == [hash_ids(pa.chunked_array([[t]]), 7)[0] for t in texts]
    assert not set(hash_ids(pa.chunked_array([pa.array(texts)]), 8).tolist()) & set(keys.tolist())
    spread = hash_ids(pa.chunked_array([[sample_id(i) for i in range(4_000)]]), 0) / 2.0**64
    assert np.histogram(spread, bins=8, range=(0, 1))[0].min() > 400


# ---------------------------------------------------------------------------------------------------------- lengths


def test_uniform_lengths_and_task_shares_hold_at_once() -> None:
    questions = [(i, (SINGLE, MULTI, REASONING)[i % 3], (1, 7, 13, 13)[i % 4]) for i in range(1_200)]
    report = mixed(questions, lengths="uniform").report
    assert [(p.name, round(p.got, 2)) for p in report.lengths] == [
        ("32-64K", 0.33),
        ("64-96K", 0.33),
        ("from 96K", 0.33),
    ]
    assert [round(p.got, 2) for p in report.tasks] == [0.4, 0.4, 0.2]
    # of 32-64K and 64-96K there are 400 besides reasoning, which has 20 %: 2/3 n <= 400 + n/5
    assert report.num_questions == pytest.approx(857, abs=2)


def test_tasks_and_lengths_stay_independent_where_they_can() -> None:
    questions = [(i, (SINGLE, MULTI, REASONING)[i % 3], (1, 7, 13)[i // 3 % 3]) for i in range(900)]
    mixture = mixed(questions, lengths="uniform")
    cells = Counter((questions[i][1], questions[i][2]) for i in mixture.question.tolist())
    assert {cells[REASONING, w] for w in (1, 7, 13)} == {50} and {cells[SINGLE, w] for w in (1, 7, 13)} == {100}


def test_a_program_finds_what_independence_does_not_allow() -> None:
    """Short samples ask for facts, long ones for reasoning: the product of the shares would be a fraction of this."""
    questions = [(i, SINGLE, 1) for i in range(90)] + [(100 + i, REASONING, 13) for i in range(90)]
    questions += [(200 + i, SINGLE, 13) for i in range(10)] + [(300 + i, REASONING, 1) for i in range(10)]
    mixture = mixed(questions, tasks={"extract-single": 1, "reasoning": 1}, lengths={"32K": 1, "96K": 1})
    assert (counts(mixture), mixture.report.num_questions) == ({"extract-single": 100, "reasoning": 100}, 200)


def test_shares_that_exclude_each_other_are_refused_before_anything_is_written() -> None:
    questions = [(i, SINGLE, 1) for i in range(9)] + [(10 + i, REASONING, 13) for i in range(9)]
    shares = {"tasks": {"extract-single": 4, "reasoning": 1}, "lengths": {"32K": 1, "96K": 1}}
    with pytest.raises(ConfigError, match=r"cannot hold together.*mixture\.shortage=fill"):
        mixed(questions, **shares)
    assert mixed(questions, shortage="fill", **shares).report.num_questions == 18


def test_the_long_biased_policy_is_the_papers() -> None:
    questions = [(i, SINGLE, i % 16) for i in range(1_600)]
    report = mixed(questions, tasks=None, lengths="long-biased").report
    assert [(p.name, p.asked, round(p.got, 2)) for p in report.lengths] == [
        ("<100K", 0.161, 0.16),
        ("from 100K", 0.839, 0.84),
    ]


def test_a_histogram_ends_where_a_share_of_zero_begins() -> None:
    questions = [(i, SINGLE, i % 16) for i in range(160)]
    mixture = mixed(questions, tasks=None, lengths={"32K": 3, "64K": 1, "96K": 0})
    asked = {p.name: (p.asked, p.chosen) for p in mixture.report.lengths}
    assert asked == {"<32K": (0.0, 0), "32-64K": (0.75, 50), "64-96K": (0.25, 17), "from 96K": (0.0, 0)}
    assert mixture.report.left_out["length-not-asked"] == 40 + 10  # and those below 32K
    assert "10.0 % should be 1K-1,500" in " ".join(
        mixed(questions, tasks=None, lengths={"1K": 1, 1_500: 0, "64K": 9}).report.shortfalls
    )


# ------------------------------------------------------------------------------------------------- budget and epochs


@STEADY
@given(POOLS, st.integers(1, 4_000_000), st.integers(1, 3), st.sampled_from(["shrink", "fill"]), st.integers(1, 3))
def test_a_budget_is_met_from_below_to_within_a_sample(
    questions: Questions, budget: int, turns: int, shortage: str, epochs: int
) -> None:
    values: dict[str, Any] = {"questions_per_window": turns, "shortage": shortage, "epochs": epochs}
    everything = mixed(questions, **values).report.num_tokens
    report = mixed(questions, token_budget=budget, **values).report
    assert report.num_tokens <= budget
    if everything > budget:
        assert report.num_tokens > budget - 131_072
    else:
        assert report.num_tokens == everything
    unmet = any(s.startswith("mixture.token_budget") for s in report.shortfalls)
    assert unmet == (0 < everything <= budget)


def test_an_unmet_budget_says_how_many_epochs_it_needs() -> None:
    questions = many(extract_single=40, extract_multi=40, reasoning=20)
    tokens = mixed(questions).report.num_tokens
    (said,) = mixed(questions, token_budget=tokens * 5).report.shortfalls
    assert f"({20.0} %): mixture.epochs=5 would reach it, now 1" in said
    reached = mixed(questions, token_budget=tokens * 5, epochs=7).report
    assert (reached.num_epochs, reached.shortfalls, reached.num_tokens) == (5, (), tokens * 5)


# ------------------------------------------------------------------------------------------------------------ turns


@STEADY
@given(POOLS, st.integers(1, 4), st.none() | st.integers(1, 3), st.sampled_from([121_000, 131_072]), st.integers(1, 2))
def test_turns_stay_within_their_window_their_number_and_the_longest_sample(
    questions: Questions, turns: int, samples: int | None, longest: int, epochs: int
) -> None:
    mixture = mixed(
        questions, max_tokens=longest, questions_per_window=turns, samples_per_window=samples, epochs=epochs
    )
    held: dict[int, list[int]] = {}
    for i, sample in zip(mixture.question.tolist(), mixture.sample.tolist(), strict=True):
        held.setdefault(sample, []).append(i)
    assert list(held) == list(range(mixture.report.num_samples))
    assert max(map(len, held.values()), default=0) <= turns
    windows = Counter[tuple[int, int]]()
    for (sample, asked), tokens in zip(held.items(), tokens_of(questions, mixture), strict=True):
        (window,) = {questions[i][2] for i in asked}
        epoch = int(mixture.epoch[np.flatnonzero(mixture.sample == sample)[0]])
        windows[window, epoch] += 1
        assert len(asked) == 1 or tokens <= longest
    assert samples is None or max(windows.values(), default=0) <= samples


def test_a_window_with_more_questions_than_turns_gives_several_samples() -> None:
    questions = [(i, SINGLE, 3) for i in range(7)]
    report = mixed(questions, questions_per_window=3, tasks=None).report
    assert (report.num_questions, report.num_samples) == (7, 3)
    limited = mixed(questions, questions_per_window=3, samples_per_window=2, tasks=None).report
    assert (limited.num_questions, limited.left_out) == (6, {"samples-per-window": 1})


# ------------------------------------------------------------------------------------------------------- short data


@STEADY
@given(
    POOLS, st.sampled_from([0.1, 0.4]), st.sampled_from(["shrink", "fill"]), st.integers(1, 3),
    st.sampled_from([None, "900K"]),
)  # fmt: skip
def test_short_data_has_its_share_of_the_tokens_at_most(
    questions: Questions, share: float, shortage: str, epochs: int, budget: str | None
) -> None:
    report = mixed(questions, shortage=shortage, epochs=epochs, token_budget=budget, short={"share": share}).report
    assert report.short.num_tokens <= share * report.num_tokens + 1
    assert report.num_tokens <= (report.token_budget or report.num_tokens)


def test_enough_short_data_has_its_share() -> None:
    questions = many(extract_single=8, extract_multi=8, reasoning=4) + [(1_000 + i, SHORT, 0) for i in range(40_000)]
    report = mixed(questions, short={"share": 0.4}).report
    assert (round(report.short.got, 4), report.num_questions - report.short.chosen) == (0.4, 20)
    assert report.shortfalls == ()
    unused = mixed(questions).report
    assert unused.short.chosen == 0 and unused.left_out == {"short-share": 40_000}


def test_scarce_short_data_shrinks_the_mixture_or_its_own_share() -> None:
    questions = many(extract_single=8, extract_multi=8, reasoning=4) + [(1_000 + i, SHORT, 0) for i in range(8_000)]
    shrunk = mixed(questions, short={"share": 0.4}).report
    assert shrunk.short.got == pytest.approx(0.4, abs=0.04) and shrunk.num_questions - shrunk.short.chosen < 20
    assert shrunk.shortfalls[0].startswith("short data limits an epoch: there are 42")
    filled = mixed(questions, short={"share": 0.4}, shortage="fill").report
    assert filled.num_questions == 8_020
    assert any(s.startswith("short data: 40.0 % of the tokens asked, 2") for s in filled.shortfalls)
    none = mixed(questions[:20], short={"share": 0.4}).report
    assert none.num_questions == 20 and "mixture.short.files" in none.shortfalls[0]


# ------------------------------------------------------------------------------------------------------------ tables


def samples() -> list[Sample]:
    """Two windows with four questions each, of which one is for validation."""
    made = []
    for i in range(9):
        split: Any = "validation" if i == 8 else "train"
        values: dict[str, Any] = {"doc_id": f"d{i // 4}", "window": 0, "first_page": 0, "num_pages": 2, "grids": ()}
        values |= {"num_patches": 8, "patch_pairs": 32, "num_supervised": 3 + i, "tokens_exact": True, "split": split}
        task = ("extract-single", "reasoning")[i % 4 == 3]
        made.append(
            Sample(
                sample_id=sample_id(i), question_ids=(f"q{i}",), task=task, num_tokens=1_000 + i, turn_tokens=20 + i,
                **values,
            )
        )  # fmt: skip
    return made


def test_a_sample_of_several_questions_is_one_row(tmp_path: Path) -> None:
    pool = {s.question_ids[0]: s for s in samples()}
    settings = MixtureSettings(tasks=None, questions_per_window=3, epochs=2)
    result = mix_table(to_table(Sample, samples()), settings, seed=0, max_tokens=131_072)
    write_mixture(tmp_path, result)
    made = read_records(tmp_path / "mixture.parquet", Sample)
    epochs = pq.read_table(tmp_path / "mixture.parquet")["epoch"].to_pylist()
    assert epochs == [0] * 4 + [1] * 4 + [0] and made[-1] == samples()[-1]
    assert made[:4] == made[4:8] and sorted(len(s.question_ids) for s in made[:4]) == [1, 1, 3, 3]
    assert sorted(q for s in made[:4] for q in s.question_ids) == [f"q{i}" for i in range(8)]
    for sample in made[:4]:
        turns = [pool[q] for q in sample.question_ids]
        assert sample.num_tokens == turns[0].num_tokens + sum(t.turn_tokens for t in turns[1:])
        assert sample.num_supervised == sum(t.num_supervised for t in turns)
        assert sample.doc_id == turns[0].doc_id
        if len(turns) == 1:
            assert sample == turns[0]
        else:
            assert sample.sample_id == "s" + content_id([t.sample_id for t in turns], length=15)
            assert sample.task == ("mixed" if len({t.task for t in turns}) > 1 else turns[0].task)
    assert pq.read_table(tmp_path / "mixture.left_out.parquet").num_rows == 0


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        write_mixture(folder, mix_table(to_table(Sample, samples()), MixtureSettings(), seed=3, max_tokens=9_999))
    contents = [
        {f.name: f.read_bytes() for f in sorted(folder.iterdir())} for folder in (tmp_path / "a", tmp_path / "b")
    ]
    assert contents[0] == contents[1] and len(contents[0]) == 3


def test_a_table_by_hand_has_tasks_but_no_windows(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    rows = {"sample_id": [f"Ä{i}" for i in range(40)], "num_tokens": [100] * 40, "task": ["a", "b"] * 20}
    pq.write_table(pa.table(rows), file)
    settings = MixtureSettings.model_validate({"tasks": {"a": 3, "b": 1}, "token_budget": 2_050})
    table = mixture_table(mix_file(file, tmp_path, settings, seed=0))
    assert Counter(table["task"].to_pylist()) == {"a": 15, "b": 5}
    with pytest.raises(ConfigError, match=r"questions_per_window.*a table of lengths has none"):
        mix_file(file, tmp_path, MixtureSettings(questions_per_window=2), seed=0)
    with pytest.raises(
        ConfigError, match="nothing is chosen for the mixture: no question is chosen; the pool has a 20"
    ):
        mix_file(file, tmp_path, MixtureSettings(), seed=0)
    pq.write_table(table, tmp_path / "m.parquet")
    assert mix_file(tmp_path / "m.parquet", tmp_path, settings, seed=0).mixture.report.num_samples == 20
