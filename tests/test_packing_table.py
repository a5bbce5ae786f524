"""Tables on disk: what is refused and how, and that the same input gives the same files."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus.config import PackingSettings
from corpus.errors import ConfigError
from corpus.records import PlanEntry, Rejected
from corpus.store import read_records, schema_of
from packing.cost import QWEN3_VL_8B
from packing.plan import plan
from packing.table import pack_table, read_samples

SMALL = PackingSettings(capacity=100, rows_per_step=2, balance_window=4)

ROWS: list[dict[str, Any]] = [
    {
        "sample_id": f"s{i:02d}",
        "num_tokens": 10 + 7 * (i % 12),
        "num_patches": 4 * i,
        "num_supervised": i,
        "task": ("reasoning", "extract-single")[i % 2],
    }
    for i in range(30)
]


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


def parquet(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_a_plan_on_disk(tmp_path: Path) -> None:
    rows = [*ROWS, {**ROWS[0], "sample_id": "huge", "num_tokens": 101}]
    report = pack_table(jsonl(tmp_path / "t.jsonl", rows), tmp_path / "plan", SMALL, 7)
    stem = f"plan-{report.fingerprint}"
    assert sorted(contents(tmp_path / "plan")) == [
        f"{stem}.json",
        f"{stem}.left_out.parquet",
        f"{stem}.parquet",
    ]
    assert pq.read_schema(tmp_path / "plan" / f"{stem}.parquet") == schema_of(PlanEntry)
    entries = read_records(tmp_path / "plan" / f"{stem}.parquet", PlanEntry)
    planned = {e.sample_id: (e.num_tokens, e.num_patches, e.num_supervised, e.task) for e in entries}
    assert planned == {
        r["sample_id"]: (r["num_tokens"], r["num_patches"], r["num_supervised"], r["task"]) for r in ROWS
    }
    (left,) = read_records(tmp_path / "plan" / f"{stem}.left_out.parquet", Rejected)
    assert (left.id, left.reason) == ("huge", "longer-than-capacity")
    written = json.loads((tmp_path / "plan" / f"{stem}.json").read_text())
    assert written["num_samples"] == report.num_samples == 30
    assert written["left_out"] == {"longer-than-capacity": 1}
    assert written["made_with"]["seed"] == 7


def test_the_same_samples_give_the_same_files(tmp_path: Path) -> None:
    shuffled = random.Random(0).sample(ROWS, len(ROWS))
    pack_table(jsonl(tmp_path / "a.jsonl", ROWS), tmp_path / "a", SMALL, 0)
    pack_table(jsonl(tmp_path / "b.jsonl", shuffled), tmp_path / "b", SMALL, 0)
    columns = {k: [r[k] for r in shuffled] for k in shuffled[0]}
    columns["task"] = pa.array(columns["task"]).dictionary_encode()
    columns["num_tokens"] = pa.array(columns["num_tokens"], pa.uint32())
    pack_table(parquet(tmp_path / "c.parquet", {**columns, "extra": [1.5] * 30}), tmp_path / "c", SMALL, 0)
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(tmp_path / "c")
    assert len(contents(tmp_path / "a")) == 2  # nothing was left out


def test_the_fingerprint_covers_all_that_decides(tmp_path: Path) -> None:
    table = jsonl(tmp_path / "t.jsonl", ROWS)
    other = jsonl(tmp_path / "u.jsonl", [{**ROWS[0], "num_supervised": 99}, *ROWS[1:]])
    out = tmp_path / "plan"
    prints = [
        pack_table(table, out, SMALL, 0).fingerprint,
        pack_table(table, out, SMALL, 1).fingerprint,
        pack_table(other, out, SMALL, 0).fingerprint,
        pack_table(table, out, SMALL.model_copy(update={"capacity": 101}), 0).fingerprint,
        pack_table(table, out, SMALL.model_copy(update={"balance_window": 8}), 0).fingerprint,
        pack_table(table, out, SMALL, 0, dims=QWEN3_VL_8B).fingerprint,
        pack_table(table, out, SMALL, 0, dims=replace(QWEN3_VL_8B, frozen=("vision",))).fingerprint,
        pack_table(table, out, SMALL, 0, dims=replace(QWEN3_VL_8B, recompute=True)).fingerprint,
        pack_table(table, out, SMALL, 0, identity={"tokenizer": "x"}).fingerprint,
    ]
    assert len(set(prints)) == len(prints)
    same = SMALL.model_copy(update={"validation_share": 0.5, "tokens_per_step": 5})  # decide nothing here
    assert pack_table(table, out, same, 0).fingerprint == prints[0]


def test_optional_columns_may_be_missing(tmp_path: Path) -> None:
    samples = read_samples(jsonl(tmp_path / "t.jsonl", [{"sample_id": "a", "num_tokens": 5}, "", " "]))
    assert (samples.num_patches.tolist(), samples.num_supervised.tolist()) == ([0], [0])
    assert (samples.task.tolist(), samples.split.tolist()) == ([""], ["train"])
    assert samples.patch_pairs.tolist() == [0]


def test_the_pages_of_a_sample_decide_its_cost_where_the_table_knows_them(tmp_path: Path) -> None:
    one_page = {"sample_id": "a", "num_tokens": 90, "num_patches": 300}

    def cost(**more: int) -> float:
        table = jsonl(tmp_path / "t.jsonl", [{**one_page, **more}])
        result = plan(read_samples(table), SMALL, seed=0, dims=QWEN3_VL_8B)
        return float(result.row_cost.sum())

    assert cost(patch_pairs=300**2) == cost()
    assert cost(patch_pairs=3 * 100**2) < cost()


def test_validation_samples_are_not_planned(tmp_path: Path) -> None:
    rows = [{**r, "split": "validation" if i < 3 else "train"} for i, r in enumerate(ROWS)]
    report = pack_table(jsonl(tmp_path / "t.jsonl", rows), tmp_path / "plan", SMALL, 0)
    assert (report.num_samples, report.left_out) == (27, {"validation-split": 3})


GOOD = {"sample_id": "a", "num_tokens": 5}


def test_a_table_made_by_hand(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('num_tokens,note,sample_id,task\n5,"a, b",007,x\n\n6,,"b ""c""",y\n')
    samples = read_samples(tmp_path / "t.csv")
    assert dict(zip(samples.sample_id.tolist(), samples.num_tokens.tolist(), strict=True)) == {"007": 5, 'b "c"': 6}
    (tmp_path / "t.tsv").write_text("\ufeffsample_id\tnum_tokens\nb\t6\na\t5\n")
    assert sorted(read_samples(tmp_path / "t.tsv").sample_id.tolist()) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,length\na,5\n", "names none of the columns; a table of samples needs 'sample_id' and 'num_tokens'"),
        ("sample_id,tokens\na,5\n", "no column 'num_tokens'"),
        ("sample_id,num_tokens,num_tokens\na,5,5\n", "2 columns are named 'num_tokens'; keep one"),
        ("sample_id,num_tokens\na,five\n", "not a readable CSV file: In CSV column #1: .*five"),
        ("sample_id,num_tokens\na,5\nb,\n", "row 2: num_tokens is null or missing; fill it"),
        ("sample_id,num_tokens\na,5\n,6\n", "row 2: sample_id = '' must not be empty"),
        ("sample_id,num_tokens\na,-5\n", "row 1: num_tokens = -5 must be at least 1"),
        ("sample_id,num_tokens\na,5\na,6\n", "row 2: sample_id = 'a' is also row 1"),
        ("sample_id,num_tokens\na,5,6\n", "not a readable CSV file: .*Expected 2 columns, got 3"),
        ("sample_id,num_tokens\n", "the table has no rows"),
        ("", "not a readable CSV file: Empty CSV file"),
    ],
)
def test_a_csv_table_at_fault(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    refuses(tmp_path / "t.csv", message)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], r"no rows"),
        (
            [{"num_tokens": 5}],
            r"no column 'sample_id'; a table of samples needs 'sample_id' and 'num_tokens'",
        ),
        ([{"sample_id": "a"}], r"no column 'num_tokens'"),
        ([GOOD, {"sample_id": "b", "num_tokens": None}], r"line 2: num_tokens is null or missing; fill it"),
        ([GOOD, {"num_tokens": 5}], r"line 2: sample_id is null or missing"),
        ([GOOD, {**GOOD, "sample_id": "b", "task": "x"}], r"line 1: task is null.*leave the column out"),
        (
            [GOOD, "", {**GOOD, "sample_id": "b", "num_tokens": 0}],
            r"line 3: num_tokens = 0 must be at least 1",
        ),
        ([{**GOOD, "num_tokens": -4}, {**GOOD, "num_tokens": -3}], r"line 1: num_tokens = -4 .*\(1 more\)"),
        ([{**GOOD, "num_patches": -1}], r"line 1: num_patches = -1 must be at least 0"),
        ([{**GOOD, "num_tokens": 5.0}], r"line 1: num_tokens = 5.0; write integers"),
        ([{**GOOD, "num_tokens": "5"}], r"line 1: num_tokens = '5'; write integers"),
        ([{**GOOD, "num_tokens": True}], r"line 1: num_tokens = True; write integers"),
        ([{**GOOD, "num_tokens": 2**63}], r"num_tokens = 9223372036854775808; write integers below 2\*\*63"),
        (['{"sample_id": "a", "num_tokens": NaN}'], r"num_tokens = nan; write integers"),
        ([{**GOOD, "sample_id": 7}], r"line 1: sample_id = 7; write text"),
        (['{"sample_id": "\\ud800", "num_tokens": 5}'], r"line 1: sample_id = .*ud800.*write text"),
        ([{**GOOD, "sample_id": ""}], r"line 1: sample_id = '' must not be empty"),
        ([GOOD, {**GOOD, "sample_id": "b"}, GOOD], r"line 3: sample_id = 'a' is also line 1"),
        ([{**GOOD, "split": "test"}], r"line 1: split = 'test' must be one of train, validation"),
        (["sample_id,num_tokens"], r"line 1 is not JSON .*'sample_id,num_tokens'; give Parquet"),
        (["[1, 2]"], r"line 1 is '\[1, 2\]'; write one JSON object a line"),
        (['{"sample_id": ' + "[" * 100_000], r"line 1 is not JSON"),
    ],
)
def test_a_jsonl_table_at_fault(tmp_path: Path, rows: list[Any], message: str) -> None:
    refuses(jsonl(tmp_path / "t.jsonl", rows), message)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"sample_id": pa.array([], pa.string()), "num_tokens": pa.array([], pa.int64())}, r"no rows"),
        ({"sample_id": ["a"]}, r"no column 'num_tokens'"),
        ({"sample_id": ["a", None], "num_tokens": [1, 2]}, r"row 2: sample_id is null"),
        (
            {"sample_id": ["a", "b"], "num_tokens": [1.5, 2.0]},
            r"'num_tokens' is of type double \(first value 1.5\)",
        ),
        (
            {"sample_id": [1, 2], "num_tokens": [1, 2]},
            r"'sample_id' is of type int64 \(first value 1\); write text",
        ),
        ({"sample_id": ["a", "b"], "num_tokens": [1, -2]}, r"row 2: num_tokens = -2 must be at least 1"),
        ({"sample_id": ["a", "a"], "num_tokens": [1, 2]}, r"row 2: sample_id = 'a' is also row 1"),
        (
            {"sample_id": ["a"], "num_tokens": pa.array([2**63], pa.uint64())},
            r"'num_tokens'.*9223372036854775808.*below 2\*\*63",
        ),
    ],
)
def test_a_parquet_table_at_fault(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    refuses(parquet(tmp_path / "t.parquet", columns), message)


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table([["a"], [1], [2]], names=["sample_id", "num_tokens", "num_tokens"]), path)
    refuses(path, r"2 columns are named 'num_tokens'; keep one")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    refuses(tmp_path / "missing.parquet", r"cannot read .*missing.parquet: No such file")
    refuses(tmp_path, r"cannot read .*: Is a directory; name a Parquet, CSV or JSONL file")
    (tmp_path / "text.parquet").write_text("sample_id\n")
    refuses(tmp_path / "text.parquet", r"text.parquet is not a readable Parquet file")
    good = parquet(tmp_path / "good.parquet", {"sample_id": ["a"], "num_tokens": [1]})
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(good.read_bytes()[:-20])
    refuses(cut, r"cut.parquet is not a readable Parquet file")
    (tmp_path / "latin.jsonl").write_bytes(b'{"sample_id": "\xe9", "num_tokens": 5}\n')
    refuses(tmp_path / "latin.jsonl", r"line 1 is not JSON")


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(b'\xef\xbb\xbf{"sample_id": "a", "num_tokens": 5}\r\n')
    assert read_samples(tmp_path / "t.jsonl").sample_id.tolist() == ["a"]


def refuses(path: Path, message: str) -> None:
    with pytest.raises(ConfigError) as e:
        read_samples(path)
    assert re.search(message, str(e.value)), str(e.value)
    assert str(path) in str(e.value)
    assert "\n" not in str(e.value)


def test_a_plan_without_samples_is_refused_with_the_reason(tmp_path: Path) -> None:
    table = jsonl(tmp_path / "t.jsonl", [{"sample_id": "a", "num_tokens": 101}])
    with pytest.raises(ConfigError, match=r"none of 1 samples fits the plan: a: 101 tokens; raise packing.capacity"):
        pack_table(table, tmp_path / "plan", SMALL, 0)
    assert not (tmp_path / "plan").exists()


def test_the_output_must_be_a_folder(tmp_path: Path) -> None:
    table = jsonl(tmp_path / "t.jsonl", ROWS)
    with pytest.raises(ConfigError, match=r"t.jsonl is a file; name a folder"):
        pack_table(table, table, SMALL, 0)
