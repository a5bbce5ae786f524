"""What a trainer reads is what the plan promised, on every rank, in any worker, from anywhere in the plan."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rows import build_run, processor_of, tokenizer_of
from torch.utils.data import DataLoader
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from corpus.errors import ConfigError, EngineError
from corpus.inspection import plan_file
from corpus.records import PlanEntry
from corpus.storage import path_of
from corpus.store import read_records, write_records
from corpus.vision_tokens import FAMILIES
from trainer_plugin.dataset import PlanDataset, RowDataset, collate
from trainer_plugin.mesh import place
from trainer_plugin.vision import deal_images, normalise

ROWS_PER_STEP = 6


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_run(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the other family whose lengths are upper bounds."""
    return build_run(tmp_path_factory.mktemp("bounded"), "qwen3-vl", "tokenizer=null", "windows.max_tokens=30000",
                     "packing.capacity=30000", "mixture.epochs=1")  # fmt: skip


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    shutil.copytree(run.parent / "tokenizer", tmp_path / "tokenizer")
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


def plan_of(run: Path) -> Path:
    plan = plan_file(run)
    assert plan is not None
    return plan


def rows_of(run: Path) -> dict[tuple[int, int], list[PlanEntry]]:
    rows: dict[tuple[int, int], list[PlanEntry]] = {}
    for entry in sorted(read_records(plan_of(run), PlanEntry), key=lambda e: (e.step, e.row, e.position)):
        rows.setdefault((entry.step, entry.row), []).append(entry)
    return rows


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(v, b[k]) if isinstance(v, torch.Tensor) else v == b[k] for k, v in a.items()
    )


# -------------------------------------------------------------------------------------------- messages and images


def test_rows_come_in_the_order_of_the_plan(run: Path) -> None:
    loaded = [[s.sample.sample_id for s in row] for row in PlanDataset(run)]
    assert loaded == [[e.sample_id for e in row] for row in rows_of(run).values()]
    assert len(loaded) == 8 and max(map(len, loaded)) > 1


def test_the_image_processor_agrees_with_the_planned_patches(run: Path) -> None:
    family = FAMILIES["qwen2.5-vl"]
    processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": family.min_pixels, "longest_edge": family.max_pixels}, patch_size=family.patch
    )
    for loaded in PlanDataset(run)[0]:
        grids = processor(images=loaded.images, return_tensors="np")["image_grid_thw"]
        assert int(np.prod(grids, axis=1).sum()) == loaded.sample.num_patches > 0
        sizes = [(int(h) * family.patch, int(w) * family.patch) for _, h, w in grids]
        assert sizes == [(g.height, g.width) for g in loaded.sample.grids]  # no page is resized


def test_a_conversation_is_pages_then_question_then_answer(run: Path) -> None:
    loaded = next(s for row in PlanDataset(run) for s in row if len(s.sample.question_ids) == 2)
    kinds = [[part["type"] for part in m["content"]] for m in loaded.messages]
    pages = loaded.sample.num_pages
    assert kinds[:2] == [["text", "image"] * pages + ["text"], ["text"]] and len(kinds) == 4
    assert loaded.messages[0]["content"][0]["text"] == "Page 1\n"


def test_a_copy_in_another_process_reads_the_same(run: Path) -> None:
    dataset = PlanDataset(run)
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy[0][0].images[0].tobytes() == dataset[0][0].images[0].tobytes()
    assert copy[0][0].sample == dataset.load(dataset[0][0].sample.sample_id).sample


def test_what_is_not_there_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="corpus build"):
        PlanDataset(tmp_path)
    with pytest.raises(ConfigError, match="no sample 'nobody'"):
        PlanDataset(run).load("nobody")
    with pytest.raises(IndexError, match="row 8 of 8"):
        PlanDataset(run)[8]


# ------------------------------------------------------------------------------------------------- batches of a rank


def test_a_row_is_what_the_stock_processor_makes_of_its_samples(run: Path) -> None:
    processor = processor_of(run, "qwen2.5-vl")
    dataset, rows = RowDataset(run, processor), PlanDataset(run)
    shown = 0
    for index in (0, 1, 3):
        batch = dataset[index]
        row = rows[[*rows_of(run)].index(dataset.places(index))]
        ids, values, grids = [], [], []
        for sample in row:
            text = processor.apply_chat_template(sample.messages, tokenize=False)
            made = processor(text=[text], images=sample.images or None, return_tensors="pt")
            ids += made["input_ids"][0].tolist()
            values.append(made["pixel_values"])
            grids += made["image_grid_thw"].tolist()
        assert batch["input_ids"][0].tolist() == ids
        assert batch["image_grid_thw"].tolist() == grids
        images = processor.image_processor
        found = normalise(batch["pixel_values"], images.image_mean, images.image_std, images.temporal_patch_size)
        torch.testing.assert_close(found, torch.cat(values), rtol=0, atol=1e-6)
        shown += len(grids)
    assert shown >= 9


def test_lengths_and_supervised_tokens_are_the_planned_ones(run: Path) -> None:
    dataset, rows = RowDataset(run, tokenizer_of(run)), rows_of(run)
    assert dataset.fingerprint == plan_of(run).stem.removeprefix("plan-")
    assert (dataset.rows_per_step, dataset.num_steps, dataset.micro_steps_per_step) == (ROWS_PER_STEP, 2, ROWS_PER_STEP)
    tokenizer = tokenizer_of(run)
    for index in range(len(dataset)):
        batch, row = dataset[index], rows.get(dataset.places(index), [])
        if row:
            assert batch["cu_seq_lens_q"].diff().tolist() == [e.num_tokens for e in row]
        supervised = batch["input_ids"][0].roll(-1)[batch["shift_labels"][0] != -100]
        assert torch.equal(supervised, batch["shift_labels"][batch["shift_labels"] != -100])
        assert len(supervised) == sum(e.num_supervised for e in row)
        assert dataset.tasks(index) == [(e.task, e.num_supervised) for e in row]
        ends = supervised == tokenizer.convert_tokens_to_ids("<|im_end|>")
        assert int(ends.sum()) == sum({"mixed": 2, "short": 2}.get(e.task, 1) for e in row)  # every turn


def test_a_short_step_is_filled_with_rows_of_padding(run: Path) -> None:
    for size in (1, 2):
        dataset = RowDataset(run, tokenizer_of(run), mesh=place(0, size, size))
        empty = [i for i in range(len(dataset)) if dataset.places(i) not in rows_of(run)]
        assert len(dataset) == 12 and empty == [8, 9, 10, 11]
        batch = dataset[8]
        assert batch["input_ids"].shape == (1, 1) and batch["cu_seq_lens_q"].tolist() == [0, size]
        assert (batch["shift_labels"] == -100).all() and batch["pixel_values"].shape == (0, 588)
        assert dataset.tasks(8) == []


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_of_a_row_share_its_tokens_and_its_pages(run: Path, size: int) -> None:
    one = RowDataset(run, tokenizer_of(run))
    ranks = [RowDataset(run, tokenizer_of(run), mesh=place(rank, size, size)) for rank in range(size)]
    for index in (0, 1):
        whole, parts = one[index], [rank[index] for rank in ranks]
        length = whole["input_ids"].shape[1]
        assert torch.equal(torch.cat([p["input_ids"] for p in parts], dim=1)[:, :length], whole["input_ids"])
        grids = [tuple(g) for g in whole["image_grid_thw"][:, 1:].tolist()]
        pages = whole["pixel_values"].split([rows * columns for rows, columns in grids])
        for part, mine in zip(parts, deal_images(grids, one.family, size), strict=True):
            assert torch.equal(part["pixel_values"], torch.cat([pages[i] for i in mine]))
            assert torch.equal(part["image_grid_thw"], whole["image_grid_thw"])


def test_a_rank_reads_its_own_pages_alone(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = RowDataset(run, tokenizer_of(run), mesh=place(1, 2, 2))
    asked: list[str] = []
    read = dataset.samples.shards.read_members
    monkeypatch.setattr(dataset.samples.shards, "read_members", lambda k, n: asked.extend(n) or read(k, n))
    monkeypatch.setattr(dataset.samples.shards, "read_window", lambda _: pytest.fail("the whole window"))
    batch = dataset[next(i for i in range(8) if [t for t, _ in dataset.tasks(i)] == ["mixed"])]
    shapes = [tuple(g) for g in batch["image_grid_thw"][:, 1:].tolist()]
    mine = deal_images(shapes, dataset.family, 2)[1]
    assert asked == ["json", "questions.json", *(f"p{i:04d}.jpg" for i in mine)] and 0 < len(mine) < len(shapes)


def test_data_parallel_ranks_share_each_step_as_the_plan_predicts(run: Path) -> None:
    alone = RowDataset(run, tokenizer_of(run))
    for data_size in (2, 3, 6):
        ranks = [RowDataset(run, tokenizer_of(run), mesh=place(r, data_size, 1)) for r in range(data_size)]
        assert {len(rank) for rank in ranks} == {12 // data_size}
        for step in range(2):
            share = ROWS_PER_STEP // data_size
            dealt = [rank.places(i) for rank in ranks for i in range(step * share, (step + 1) * share)]
            assert sorted(dealt) == [(step, row) for row in range(ROWS_PER_STEP)]
        found = next(i for i in range(12) if alone.places(i) == ranks[-1].places(0))
        assert same(ranks[-1][0], alone[found])


def test_validation_samples_are_dealt_in_turn(run: Path) -> None:
    ranks = [RowDataset(run, tokenizer_of(run), mesh=place(r, 2, 1), split="validation") for r in range(2)]
    assert [len(rank) for rank in ranks] == [1, 1]
    assert [rank.tasks(0) for rank in ranks] == [[("short", 19)], []]
    assert ranks[0][0]["pixel_values"].shape == (0, 588)  # a text alone
    assert (ranks[1][0]["shift_labels"] == -100).all()


def test_plans_of_upper_bounds_hold_their_rows(bounded: Path) -> None:
    dataset, rows = RowDataset(bounded, processor_of(bounded, "qwen3-vl")), rows_of(bounded)
    for index in range(len(dataset)):
        batch, row = dataset[index], rows.get(dataset.places(index), [])
        lengths = batch["cu_seq_lens_q"].diff().tolist()
        assert not row or all(a <= e.num_tokens for a, e in zip(lengths, row, strict=True))
        supervised = sum(n for _, n in dataset.tasks(index))
        assert supervised == int((batch["shift_labels"] != -100).sum())
        assert not row or 0 < supervised <= sum(e.num_supervised for e in row)


# ------------------------------------------------------------------------------------------------ loaders and workers


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_hand_over_the_same_batches(run: Path, context: str) -> None:
    dataset = RowDataset(run, tokenizer_of(run), mesh=place(1, 2, 2))
    loader = DataLoader(dataset, collate_fn=collate, num_workers=2, multiprocessing_context=context)
    batches = list(loader)  # all held at once
    assert len(batches) == len(dataset)
    assert all(same(batch, dataset[i]) for i, batch in enumerate(batches))


def test_workers_read_a_run_behind_a_url(run: Path, bucket: str) -> None:
    pytest.importorskip("s3fs")
    far = path_of(f"{bucket}/run")
    for file in run.rglob("*"):
        if file.is_file() and ".state" not in file.parts:
            (far / str(file.relative_to(run))).write_bytes(file.read_bytes())
    near = RowDataset(run, tokenizer_of(run))
    dataset = RowDataset(f"{bucket}/run", tokenizer_of(run))
    loader = DataLoader(dataset, collate_fn=collate, num_workers=2, sampler=range(3), multiprocessing_context="fork")
    assert all(same(batch, near[i]) for i, batch in enumerate(loader))


def test_damage_in_a_worker_is_told(copied: Path) -> None:
    dataset = RowDataset(copied, tokenizer_of(copied))
    for shard in copied.glob("shards/*.tar"):
        shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(EngineError, match="is damaged or was replaced"):
        next(iter(DataLoader(dataset, collate_fn=collate, num_workers=1)))


# ---------------------------------------------------------------------------------------------------- what is refused


def change_report(run: Path, **changed: Any) -> None:
    file = plan_of(run).with_suffix(".json")
    report = json.loads(file.read_text())
    report["made_with"]["identity"] |= {k: v for k, v in changed.items() if k in report["made_with"]["identity"]}
    report |= {k: v for k, v in changed.items() if k in report}
    file.write_text(json.dumps(report))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tokenizer": "tokenizer-other"}, "the plan was counted by tokenizer-other, the processor has tokenizer-"),
        ({"messages": "0"}, "the plan was made for messages = '0', here it is"),
        ({"dpi": 100}, "the plan was made for dpi = 100, here it is 144"),
        ({"model": "qwen3-vl"}, "the plan was made for model = 'qwen3-vl', here it is 'qwen2.5-vl'"),
        ({"rows_per_step": [6, 4]}, "steps of 6 and 4 rows.*set packing.rows_per_step"),
    ],
)
def test_a_plan_that_was_made_otherwise_is_refused(copied: Path, changed: dict[str, Any], message: str) -> None:
    change_report(copied, **changed)
    with pytest.raises(ConfigError, match=message):
        RowDataset(copied, tokenizer_of(copied))


def test_ranks_that_do_not_divide_a_step_are_refused(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"4 data-parallel ranks do not divide the 6 rows.* use one of 1, 2, 3, 6,"):
        RowDataset(run, tokenizer_of(run), mesh=place(0, 4, 1))


def test_a_sample_of_another_length_is_refused(copied: Path) -> None:
    file = copied / "mixture.parquet"
    table = pq.read_table(file)
    longer = table["num_tokens"].to_numpy() + 1
    at = table.schema.get_field_index("num_tokens")
    pq.write_table(table.set_column(at, table.schema.field(at), [longer]), file)
    with pytest.raises(ConfigError, match=r"has \d+ tokens \(\d+ supervised\), planned were \d+ .*plan again"):
        RowDataset(copied, tokenizer_of(copied))[0]


def test_a_plan_of_other_samples_or_with_gaps_is_refused(copied: Path) -> None:
    with pytest.raises(ConfigError, match="there is no plan"):
        RowDataset(copied, tokenizer_of(copied), plan=copied / "none.parquet")
    file = plan_of(copied)
    entries = read_records(file, PlanEntry)
    write_records(file, PlanEntry, [e for e in entries if e.step != 0])
    with pytest.raises(ConfigError, match="skips a step or a row"):
        RowDataset(copied, tokenizer_of(copied))
    write_records(file, PlanEntry, [replace(entries[0], sample_id="another")])
    with pytest.raises(ConfigError, match=r"names another, which .* does not have; plan the run again"):
        RowDataset(copied, tokenizer_of(copied))
