"""The plan: every sample once, no row too full, the same bytes for the same input, and balanced steps."""

from __future__ import annotations

import math
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.config import PackingSettings
from corpus.records import Rejected
from packing.cost import QWEN2_5_VL_7B
from packing.plan import (
    TOO_LONG,
    VALIDATION,
    Plan,
    Samples,
    assign,
    assign_steps,
    pack,
    plan,
    step_rows,
)
from packing.report import LENGTH_BUCKETS, format_report, make_report, predict_idle

STEADY = settings(derandomize=True, deadline=None, max_examples=150)
LENGTHS = st.lists(st.integers(1, 130), max_size=60)


def planned(lengths: list[int], *, seed: int = 0, **values: int) -> Plan:
    chosen = PackingSettings.model_validate({"capacity": 100, "rows_per_step": 4, "balance_window": 8} | values)
    samples = Samples.of([f"s{i:05d}" for i in range(len(lengths))], lengths)
    return plan(samples, chosen, seed=seed, dims=QWEN2_5_VL_7B)


def natural_lengths(count: int, seed: int = 0) -> list[int]:
    """Like the recipe's documents: 85 K tokens on average."""
    drawn = np.random.default_rng(seed).normal(85_300, 25_000, count)
    return [int(n) for n in np.clip(drawn, 32_768, 131_072)]


def natural_plan(window: int, count: int = 6_000, seed: int = 0) -> Plan:
    return planned(natural_lengths(count), seed=seed, capacity=131_072, rows_per_step=32, balance_window=window)


@STEADY
@given(LENGTHS, st.integers(0, 3), st.integers(1, 5), st.integers(1, 20))
def test_every_sample_is_planned_once_or_left_out(
    lengths: list[int], seed: int, rows_per_step: int, window: int
) -> None:
    result = planned(lengths, seed=seed, rows_per_step=rows_per_step, balance_window=window)
    columns = result.columns()
    assert sorted([*columns["sample_id"], *(r.id for r in result.left_out)]) == [
        f"s{i:05d}" for i in range(len(lengths))
    ]
    assert {r.id for r in result.left_out} == {f"s{i:05d}" for i, n in enumerate(lengths) if n > 100}
    assert [lengths[int(s[1:])] for s in columns["sample_id"]] == columns["num_tokens"].tolist()

    places = list(zip(*(columns[c].tolist() for c in ("step", "row", "position")), strict=True))
    assert places == sorted(set(places))
    rows: Counter[tuple[int, int]] = Counter()
    samples: Counter[tuple[int, int]] = Counter()
    for (step, row, position), tokens in zip(places, columns["num_tokens"].tolist(), strict=True):
        assert position == samples[step, row]
        samples[step, row] += 1
        rows[step, row] += tokens
    assert all(n <= 100 for n in rows.values())
    assert [rows[key] for key in sorted(rows)] == result.row_tokens.tolist()

    per_step = Counter(step for step, _ in rows)
    assert sorted(per_step) == list(range(result.num_steps))
    assert all(per_step[step] == rows_per_step for step in range(result.num_steps - 1))
    assert result.num_rows == len(rows)
    assert result.last_step_rows == per_step[result.num_steps - 1]


@STEADY
@given(st.lists(st.integers(1, 130), max_size=30), st.randoms(use_true_random=False), st.integers(0, 9))
def test_the_order_of_the_input_changes_nothing(lengths: list[int], random: object, seed: int) -> None:
    ids = [f"s{i}" for i in range(len(lengths))]
    order = list(range(len(lengths)))
    random.shuffle(order)  # type: ignore[attr-defined]
    chosen = PackingSettings(capacity=100, rows_per_step=2, balance_window=4)
    one = plan(Samples.of(ids, lengths), chosen, seed=seed, dims=QWEN2_5_VL_7B)
    other = plan(
        Samples.of([ids[i] for i in order], [lengths[i] for i in order]),
        chosen,
        seed=seed,
        dims=QWEN2_5_VL_7B,
    )
    assert {k: v.tolist() for k, v in one.columns().items()} == {k: v.tolist() for k, v in other.columns().items()}
    assert one.row_cost.tobytes() == other.row_cost.tobytes()
    assert one.left_out == other.left_out


def test_another_seed_gives_another_plan() -> None:
    one, other = (planned([60] * 40, seed=seed).columns()["sample_id"].tolist() for seed in (0, 1))
    assert one != other
    assert sorted(one) == sorted(other)


def test_what_is_not_trained_on_is_left_out_with_its_reason() -> None:
    samples = Samples.of(["a", "b", "c"], [10, 101, 10], split=["train", "train", "validation"])
    result = plan(samples, PackingSettings(capacity=100), seed=0, dims=QWEN2_5_VL_7B)
    assert result.columns()["sample_id"].tolist() == ["a"]
    assert [(r.id, r.stage, r.reason) for r in result.left_out] == [
        ("b", "plan", TOO_LONG),
        ("c", "plan", VALIDATION),
    ]
    assert isinstance(result.left_out[0], Rejected)
    assert "101 tokens" in result.left_out[0].detail
    assert "packing.capacity, now 100" in result.left_out[0].detail


def test_an_empty_plan_has_no_rows() -> None:
    for result in (planned([]), planned([101])):
        assert (result.num_rows, result.num_steps, result.last_step_rows) == (0, 0, 0)
        report = make_report(result)
        assert (report.fill, report.num_tokens, report.row_cost_variation) == (0.0, 0, 0.0)
        assert {i.every_row for i in report.idle} == {0.0}


@pytest.mark.parametrize(
    ("values", "rows"),
    [({}, 32), ({"capacity": 262_144}, 16), ({"tokens_per_step": 1}, 1), ({"rows_per_step": 7}, 7)],
)
def test_rows_of_a_step(values: dict[str, int], rows: int) -> None:
    assert step_rows(PackingSettings.model_validate(values)) == rows


# -- rows


def falling(lengths: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(sorted(lengths, reverse=True), dtype=np.int64)


@pytest.mark.parametrize(
    ("lengths", "capacity", "rows"),
    [
        ([100, 60, 40], 100, [0, 1, 1]),
        ([60, 60, 40, 40], 100, [0, 1, 0, 1]),
        ([70, 60, 30], 100, [0, 1, 0]),  # 30 goes where it leaves nothing, not to the first row that takes it
        ([50] * 5, 100, [0, 0, 1, 1, 2]),
        ([3] * 7, 10, [0, 0, 0, 1, 1, 1, 2]),
        ([1], 10**15, [0]),
        ([], 100, []),
    ],
)
def test_rows_by_hand(lengths: list[int], capacity: int, rows: list[int]) -> None:
    assert pack(falling(lengths), capacity).tolist() == rows


def one_by_one(lengths: list[int], capacity: int) -> list[int]:
    """Best-fit decreasing as the textbook has it: the free space of every row."""
    free: list[int] = []
    for length in sorted(lengths, reverse=True):
        fits = [(space, row) for row, space in enumerate(free) if space >= length]
        if fits:
            free[min(fits)[1]] -= length
        else:
            free.append(capacity - length)
    return sorted(free)


@STEADY
@given(st.lists(st.integers(1, 1200), max_size=120), st.integers(1200, 2000))
def test_classes_give_the_rows_of_the_textbook(lengths: list[int], capacity: int) -> None:
    rows = pack(falling(lengths), capacity)
    used = np.bincount(rows, weights=falling(lengths))
    assert sorted(capacity - int(n) for n in used) == one_by_one(lengths, capacity)


def fewest_rows(lengths: list[int], capacity: int) -> int:
    """The optimum: next-fit over every order (an optimal packing, read row by row, is such an order)."""
    best = len(lengths)
    for order in permutations(lengths):
        rows, free = 0, 0
        for length in order:
            if length > free:
                rows, free = rows + 1, capacity
            free -= length
        best = min(best, rows)
    return best


@settings(STEADY, max_examples=60)
@given(st.lists(st.integers(1, 100), min_size=1, max_size=6))
def test_rows_are_near_the_optimum(lengths: list[int]) -> None:
    rows = int(pack(falling(lengths), 100).max()) + 1
    assert rows <= 11 / 9 * fewest_rows(lengths, 100) + 6 / 9  # the bound of best-fit decreasing


def test_small_samples_fill_rows() -> None:
    lengths = np.random.default_rng(0).integers(1, 20_000, 20_000).tolist()
    rows = int(pack(falling(lengths), 131_072).max()) + 1
    assert rows == math.ceil(sum(lengths) / 131_072)


# -- steps and ranks


def test_steps_hold_rows_of_similar_cost_in_no_order() -> None:
    result = natural_plan(window=1_024)
    whole = result.num_rows // 32 * 32
    costs = result.row_cost[:whole].reshape(-1, 32)
    assert costs.std(axis=1).mean() < 0.1 * result.row_cost.std()
    means = costs.mean(axis=1)
    steps = np.arange(len(means))
    assert abs(float(np.corrcoef(steps, means)[0, 1])) < 0.25
    rising = np.diff(means) > 0
    assert 0.35 < rising.mean() < 0.65


def test_the_last_step_is_no_tail_of_the_costs() -> None:
    plans = [natural_plan(32, count=360, seed=seed) for seed in range(30)]
    assert all(8 <= p.last_step_rows < 32 for p in plans)
    last = np.mean([p.row_cost[-p.last_step_rows :].mean() for p in plans])
    assert last == pytest.approx(np.mean([p.row_cost.mean() for p in plans]), rel=0.05)


def test_larger_windows_wait_less() -> None:
    idle = [predict_idle(natural_plan(window, count=20_000), 8) for window in (32, 256, 1_024)]
    assert idle[0].every_row > 3 * idle[1].every_row > 9 * idle[2].every_row
    assert idle[2].every_row < 0.01
    assert all(i.every_step < i.every_row for i in idle)


def test_rows_for_ranks_by_hand() -> None:
    assert assign([5, 4, 3, 2], 2) == [[0, 3], [1, 2]]
    assert assign([2, 5, 3, 4], 2) == [[1, 0], [3, 2]]
    assert assign([1, 1, 1, 1], 4) == [[0], [1], [2], [3]]
    assert assign([3, 2, 1], 2) == [[0], [1, 2]]
    assert assign([1.0], 3) == [[0], [], []]
    assert assign([], 2) == [[], []]


@STEADY
@given(st.lists(st.floats(0, 1e18), max_size=24), st.integers(1, 8))
def test_ranks_get_every_row_once_and_equal_counts(costs: list[float], num_ranks: int) -> None:
    ranks = assign(costs, num_ranks)
    assert sorted(row for rows in ranks for row in rows) == list(range(len(costs)))
    counts = [len(rows) for rows in ranks]
    assert max(counts) - min(counts) <= 1
    if costs:
        sums = [sum(costs[row] for row in rows) for rows in ranks]
        assert max(sums) - min(sums) <= max(costs) * (1 + 1e-9)


def test_many_steps_are_dealt_like_one() -> None:
    costs = np.random.default_rng(0).random((5, 12))
    ranks, rounds = assign_steps(costs, 4)
    for step in range(5):
        for rank, rows in enumerate(assign(costs[step], 4)):
            assert [(ranks[step, r], rounds[step, r]) for r in rows] == [(rank, i) for i in range(3)]


# -- report


def test_the_figures_of_a_plan_by_hand() -> None:
    samples = Samples.of(
        ["a", "b", "c", "d", "e"],
        [131_072, 98_304, 32_768, 32_767, 131_073],
        num_supervised=[1, 2, 3, 4, 5],
        task=["x", "y", "x", "x", "y"],
    )
    chosen = PackingSettings(rows_per_step=2)
    report = make_report(plan(samples, chosen, seed=0, dims=QWEN2_5_VL_7B), fingerprint="f")
    assert (report.num_samples, report.num_rows, report.num_steps, report.last_step_rows) == (4, 3, 2, 1)
    assert report.num_supervised == 10
    assert report.fill == round((131_072 + 98_304 + 32_768 + 32_767) / (3 * 131_072), 6)
    assert [(t.name, t.num_samples, t.num_tokens) for t in report.tasks] == [
        ("x", 3, 196_607),
        ("y", 1, 98_304),
    ]
    assert {s.name: s.num_samples for s in report.lengths} == dict(zip(LENGTH_BUCKETS, (1, 1, 0, 2, 0), strict=True))
    assert [i.data_parallel_size for i in report.idle] == [1, 2]
    assert report.idle[0].every_row == 0.0
    assert report.left_out == {TOO_LONG: 1}
    text = format_report(report)
    for line in ("2 steps of 2 rows, the last of 1", "75.0% full", "longer-than-capacity", "plan f"):
        assert line in text
    assert report.as_dict()["tasks"][0] == {"name": "x", "num_samples": 3, "num_tokens": 196_607}


def test_idle_by_hand() -> None:
    result = planned([100] * 4)  # four rows of one cost
    assert predict_idle(result, 2).every_row == 0.0
    assert predict_idle(result, 4).every_step == 0.0
    lone = planned([100] * 5, rows_per_step=4)  # the second step has one row: three of four ranks wait
    assert predict_idle(lone, 4).every_row == pytest.approx(1 - 5 / 8)
    assert predict_idle(lone, 2).every_step == pytest.approx(1 - 5 / 6, abs=1e-6)


@STEADY
@given(st.lists(st.tuples(st.integers(1, 100), st.integers(0, 3)), max_size=60), st.integers(1, 5), st.integers(1, 20))
def test_epochs_follow_each_other_and_meet_in_one_step(
    uses: list[tuple[int, int]], rows_per_step: int, window: int
) -> None:
    chosen = PackingSettings(capacity=100, rows_per_step=rows_per_step, balance_window=window)
    ids = [f"s{i:05d}" for i in range(len(uses))]
    samples = Samples.of(ids, [n for n, _ in uses], epoch=[e for _, e in uses])
    result = plan(samples, chosen, seed=0, dims=QWEN2_5_VL_7B)
    assert sorted(result.samples.sample_id.tolist()) == ids
    row, epoch = result.step * rows_per_step + result.row, result.samples.epoch
    assert all(len(set(epoch[row == r].tolist())) == 1 for r in range(result.num_rows))
    steps = [set(epoch[result.step == s].tolist()) for s in range(result.num_steps)]
    assert all(max(a) <= min(b) for a, b in zip(steps, steps[1:], strict=False))
