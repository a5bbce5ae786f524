"""The plan: every sample once, no row too full, the same bytes for the same input, and balanced steps."""

from __future__ import annotations

import math
from collections import Counter

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
    plan,
    step_rows,
)
from packing.report import LENGTH_BUCKETS, format_report, make_report, predict_idle

STEADY = settings(derandomize=True, deadline=None, max_examples=150)
LENGTHS = st.lists(st.integers(1, 130), max_size=60)


def planned(lengths: list[int], *, seed: int = 0, **values: object) -> Plan:
    chosen = PackingSettings.model_validate({"capacity": 100, "rows_per_step": 4, "balance_window": 8} | values)
    samples = Samples.of([f"s{i:05d}" for i in range(len(lengths))], lengths)
    return plan(samples, chosen, seed=seed, dims=QWEN2_5_VL_7B)


def natural_lengths(count: int, seed: int = 0) -> list[int]:
    """Like the recipe's documents: 85 K tokens on average."""
    drawn = np.random.default_rng(seed).normal(85_300, 25_000, count)
    return [int(n) for n in np.clip(drawn, 32_768, 131_072)]


def natural_plan(window: int, count: int = 6_000, seed: int = 0) -> Plan:
    return planned(natural_lengths(count), seed=seed, capacity=131_072, rows_per_step=32, balance_window=window)


def values(plan: Plan) -> dict[str, list[object]]:
    return {name: column.tolist() for name, column in plan.columns().items()}


@STEADY
@given(LENGTHS, st.integers(0, 3), st.integers(1, 5), st.integers(1, 20))
def test_every_sample_is_planned_once_or_left_out(
    lengths: list[int], seed: int, rows_per_step: int, window: int
) -> None:
    result = planned(lengths, seed=seed, rows_per_step=rows_per_step, balance_window=window)
    columns = result.columns()
    assert sorted([*columns["sample_id"].to_pylist(), *(r.id for r in result.left_out)]) == [
        f"s{i:05d}" for i in range(len(lengths))
    ]
    assert {r.id for r in result.left_out} == {f"s{i:05d}" for i, n in enumerate(lengths) if n > 100}
    assert [lengths[int(s[1:])] for s in columns["sample_id"].to_pylist()] == columns["num_tokens"].tolist()

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
    assert values(one) == values(other)
    assert one.row_cost.tobytes() == other.row_cost.tobytes()
    assert one.left_out == other.left_out


def test_another_seed_gives_another_plan() -> None:
    one, other = (planned([60] * 40, seed=seed).columns()["sample_id"].to_pylist() for seed in (0, 1))
    assert one != other
    assert sorted(one) == sorted(other)


def test_what_is_not_trained_on_is_left_out_with_its_reason() -> None:
    samples = Samples.of(["a", "b", "c"], [10, 101, 10], split=["train", "train", "validation"])
    result = plan(samples, PackingSettings(capacity=100), seed=0, dims=QWEN2_5_VL_7B)
    assert result.columns()["sample_id"].to_pylist() == ["a"]
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
        assert report.fewest_rows == 0
        assert {i.every_row for i in report.idle} == {0.0}


@pytest.mark.parametrize(
    ("values", "rows"),
    [({}, 32), ({"capacity": 262_144}, 16), ({"tokens_per_step": 1}, 1), ({"rows_per_step": 7}, 7)],
)
def test_rows_of_a_step(values: dict[str, int], rows: int) -> None:
    assert step_rows(PackingSettings.model_validate(values)) == rows


# -- kinds of rows, declared sizes, windows


@STEADY
@given(LENGTHS, st.sampled_from([(), (10,), (10, 50)]), st.integers(0, 3))
def test_every_step_has_rows_of_one_length(lengths: list[int], shorter: tuple[int, ...], seed: int) -> None:
    result = planned(lengths, seed=seed, row_lengths=shorter)
    kinds = (*shorter, 100)
    assert result.row_lengths == kinds
    assert Counter(result.columns()["sample_id"].to_pylist()).keys() == {
        f"s{i:05d}" for i, n in enumerate(lengths) if n <= 100
    }
    assert (result.row_tokens <= result.row_length).all()
    for step in range(result.num_steps):
        assert len(set(result.row_length[result.row_step == step].tolist())) == 1
    own = np.array(kinds)[np.searchsorted(kinds, result.samples.num_tokens)]  # the shortest row that holds it
    row = np.repeat(np.arange(result.num_rows), np.bincount(_row_numbers(result), minlength=result.num_rows))
    assert own.tolist() == result.row_length[row].tolist()


def _row_numbers(result: Plan) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    first = np.searchsorted(result.row_step, np.arange(result.num_steps))
    return first[result.step] + result.row if result.num_rows else result.row


def test_rows_of_a_step_for_each_length() -> None:
    settings = PackingSettings(row_lengths=(32_768, 65_536))
    result = plan(Samples.of([], []), settings, seed=0, dims=QWEN2_5_VL_7B)
    assert result.rows_per_step == (128, 64, 32)


@STEADY
@given(LENGTHS, st.integers(0, 3), st.sampled_from([(2,), (4,), (2, 3)]))
def test_rows_are_a_multiple_of_the_declared_sizes_where_rows_can_be_split(
    lengths: list[int], seed: int, sizes: tuple[int, ...]
) -> None:
    result = planned(lengths, seed=seed, rows_per_step=12, data_parallel_sizes=sizes)
    multiple = math.lcm(*sizes)
    if result.num_rows % multiple:
        assert result.num_rows == len(result.samples)  # nothing is left to split
    assert sorted(result.columns()["sample_id"].to_pylist()) == [f"s{i:05d}" for i, n in enumerate(lengths) if n <= 100]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rows_per_step": 30, "data_parallel_sizes": [8]}, "take 32"),
        ({"data_parallel_sizes": [0]}, "must be positive"),
        ({"row_lengths": [131_072]}, "below capacity"),
    ],
)
def test_settings_that_contradict_each_other(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PackingSettings.model_validate(values)


def test_declared_sizes_round_the_rows_of_a_step() -> None:
    assert step_rows(PackingSettings(data_parallel_sizes=(24,))) == 24
    assert step_rows(PackingSettings(data_parallel_sizes=(16, 24))) == 48


def test_with_declared_sizes_a_step_mixes_costs_but_ranks_still_wait_little() -> None:
    lengths = natural_lengths(6_000)
    values = {"capacity": 131_072, "rows_per_step": 32, "balance_window": 1_024}
    one, mixed = planned(lengths, **values), planned(lengths, **values, data_parallel_sizes=(8,))
    assert predict_idle(mixed, 8).every_row <= predict_idle(one, 8).every_row + 0.001
    spread = [
        costs.std() for p in (one, mixed) for costs in [p.row_cost[: p.num_rows // 32 * 32].reshape(-1, 32).mean(1)]
    ]
    assert spread[1] < 0.7 * spread[0]  # the steps are more alike


def test_packing_in_windows_takes_a_few_more_rows() -> None:
    lengths = natural_lengths(4_000)
    whole, windows = (planned(lengths, capacity=131_072, pack_window=w) for w in (None, 500))
    assert whole.num_rows < windows.num_rows < 1.03 * whole.num_rows
    assert sorted(windows.samples.num_tokens.tolist()) == sorted(lengths)


def test_a_largest_sample_below_the_capacity() -> None:
    result = planned([60, 90], largest_sample=80)
    assert result.samples.num_tokens.tolist() == [60]
    assert "raise packing.largest_sample, now 80" in result.left_out[0].detail


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


def test_nothing_drifts_over_an_epoch() -> None:
    """Rank correlations with the place in the epoch, and between neighbours, stay within chance (4 sigma)."""
    count = 20_000
    lengths = natural_lengths(count)
    task = [("x", "y", "z")[i % 3] for i in range(count)]
    settings = PackingSettings(rows_per_step=32)
    result = plan(
        Samples.of([f"s{i:05d}" for i in range(count)], lengths, task=task), settings, seed=1, dims=QWEN2_5_VL_7B
    )
    steps = result.num_steps - 1  # whole ones
    in_step = np.bincount(result.step, minlength=steps + 1)[:steps]
    tokens = np.bincount(result.step, weights=result.samples.num_tokens, minlength=steps + 1)[:steps]
    of_x = np.bincount(
        result.step, weights=result.samples.task.to_numpy(zero_copy_only=False) == "x", minlength=steps + 1
    )
    chance = 4 / math.sqrt(steps)
    for figure in (tokens / in_step, in_step, tokens, of_x[:steps] / in_step):
        ranks = np.argsort(np.argsort(figure))
        assert abs(np.corrcoef(ranks, np.arange(steps))[0, 1]) < chance
        for lag in (1, 2, 32):
            assert abs(np.corrcoef(ranks[:-lag], ranks[lag:])[0, 1]) < chance
    assert steps > 400


def test_idle_of_natural_lengths_at_every_size() -> None:
    result = natural_plan(window=1_024, count=20_000)
    idle = {n: predict_idle(result, n) for n in (8, 16, 32)}
    assert idle[8].every_row < 0.005
    assert idle[16].every_row < 0.01
    assert idle[32].every_row < 0.02
    assert idle[8].every_step < 0.001
    assert result.num_rows < 1.004 * result.fewest_rows


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
    assert report.fewest_rows == 3
    for line in (
        "2 steps of 2 rows, the last of 1",
        "75.0% full; no packing has fewer than 3\n",
        "longer-than-capacity",
        "plan f",
    ):
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
    assert sorted(result.samples.sample_id.to_pylist()) == ids
    row, epoch = result.step * rows_per_step + result.row, result.samples.epoch
    assert all(len(set(epoch[row == r].tolist())) == 1 for r in range(result.num_rows))
    steps = [set(epoch[result.step == s].tolist()) for s in range(result.num_steps)]
    assert all(max(a) <= min(b) for a, b in zip(steps, steps[1:], strict=False))
