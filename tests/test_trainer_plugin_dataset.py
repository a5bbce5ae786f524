"""What a trainer reads is what the plan promised, measured by the model's own image processor."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from test_build import quick, write_document
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from corpus.errors import ConfigError
from corpus.inspection import plan_file
from corpus.pipeline import build
from corpus.vision_tokens import FAMILIES
from trainer_plugin.dataset import PlanDataset


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trainer")
    for seed in range(2):
        write_document(folder / f"{seed}.pdf", seed)
    build([str(folder)], folder / "run", quick("packing.rows_per_step=1", "mixture.tasks=null"), quiet=True)
    return folder / "run"


def test_rows_come_in_the_order_of_the_plan(run: Path) -> None:
    dataset = PlanDataset(run)
    plan = plan_file(run)
    assert plan is not None
    entries = pq.read_table(plan).to_pylist()
    promised = sorted((e["step"], e["row"], e["position"], e["sample_id"]) for e in entries)
    loaded = [s.sample.sample_id for row in dataset for s in row]
    assert loaded == [sample_id for *_, sample_id in promised] and len(loaded) >= 10


def test_the_image_processor_agrees_with_the_planned_patches(run: Path) -> None:
    family = FAMILIES["qwen2.5-vl"]
    processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": family.min_pixels, "longest_edge": family.max_pixels}, patch_size=family.patch
    )
    loaded = PlanDataset(run)[0][0]
    grids = processor(images=loaded.images, return_tensors="np")["image_grid_thw"]
    assert int(np.prod(grids, axis=1).sum()) == loaded.sample.num_patches > 0
    sizes = [(int(h) * family.patch, int(w) * family.patch) for _, h, w in grids]
    assert sizes == [(g.height, g.width) for g in loaded.sample.grids]  # no page is resized


def test_a_conversation_is_pages_then_question_then_answer(run: Path) -> None:
    user, assistant = PlanDataset(run)[0][0].messages
    kinds = [part["type"] for part in user["content"]]
    assert kinds == ["text", "image"] * (len(kinds) // 2) + ["text"]
    assert user["content"][0]["text"] == "Page 1\n"
    assert [part["type"] for part in assistant["content"]] == ["text"]


def test_a_copy_in_another_process_reads_the_same(run: Path) -> None:
    dataset = PlanDataset(run)
    first = dataset[0][0].images[0].tobytes()
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy[0][0].images[0].tobytes() == first


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="corpus build"):
        PlanDataset(tmp_path)
