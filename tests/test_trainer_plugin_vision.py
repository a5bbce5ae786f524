"""Pages are dealt, encoded once and delivered to where they are needed; pixels are what the image processor makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_models import IMAGE, MEAN, STD, TINY, tiny_batch, tiny_document, tiny_model
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from corpus.vision_tokens import FAMILIES
from trainer_plugin.mesh import place
from trainer_plugin.models import freeze
from trainer_plugin.vision import deal, deal_images, normalise, route, share_vision

ONE = place(0, 1, 1)


@given(st.lists(st.floats(0.1, 100), max_size=60), st.integers(1, 9))
def test_images_are_dealt_once_and_evenly(costs: list[float], num_ranks: int) -> None:
    dealt = deal(costs, num_ranks)
    assert sorted(i for images in dealt for i in images) == list(range(len(costs)))
    assert all(images == sorted(images) for images in dealt) and len(dealt) == num_ranks
    loads = [sum(costs[i] for i in images) for images in dealt]
    best = max([sum(costs) / num_ranks, *costs]) if costs else 0
    assert max(loads) <= best + max(costs, default=0) * (1 - 1 / num_ranks) + 1e-9


def test_the_costliest_come_first_and_ties_go_to_the_lower() -> None:
    assert deal([1, 5, 4, 3, 3], 2) == [[1, 4], [0, 2, 3]]
    assert deal([1, 1, 1], 4) == [[0], [1], [2], []]


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_page_costs_more_than_its_patches_say(name: str) -> None:
    grids = [(112, 88), (56, 88), (56, 88)]  # attention makes the large page dearer than its halves
    assert deal_images(grids, FAMILIES[name], 2) == [[0], [1, 2]]
    assert deal_images([], FAMILIES[name], 2) == [[], []]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4)), max_size=12), st.data())
def test_every_token_reaches_its_place_once(images: list[tuple[int, int]], data: st.DataObject) -> None:
    num_ranks = data.draw(st.integers(1, 5))
    sizes = [size for size, _ in images]
    dealt = [[i for i, (_, owner) in enumerate(images) if owner % num_ranks == rank] for rank in range(num_ranks)]
    borders = sorted(data.draw(st.lists(st.integers(0, sum(sizes)), min_size=num_ranks - 1, max_size=num_ranks - 1)))
    needs = np.diff([0, *borders, sum(sizes)]).tolist()
    starts = np.cumsum([0, *sizes])
    ways = [route(sizes, dealt, needs, rank) for rank in range(num_ranks)]
    outgoing = [[t for i in dealt[rank] for t in range(starts[i], starts[i + 1])] for rank in range(num_ranks)]
    mail: dict[tuple[int, int], list[int]] = {}
    for rank, way in enumerate(ways):
        assert sum(way.send) == len(outgoing[rank])
        ends = np.cumsum([0, *way.send])
        mail |= {(rank, to): outgoing[rank][ends[to] : ends[to + 1]] for to in range(num_ranks)}
    got = []
    for rank, way in enumerate(ways):
        assert way.receive == tuple(len(mail[sender, rank]) for sender in range(num_ranks))
        arrived = [token for sender in range(num_ranks) for token in mail[sender, rank]]
        got.append([arrived[i] for i in way.order])
        assert len(got[-1]) == needs[rank]
    assert [token for tokens in got for token in tokens] == list(range(sum(sizes)))


@pytest.mark.parametrize(("name", "patch"), [("qwen2.5-vl", 14), ("qwen3-vl", 16)])
def test_normalised_pixels_are_those_of_the_image_processor(name: str, patch: int) -> None:
    height, width = 6 * patch, 8 * patch
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    mean, std = {"qwen2.5-vl": (None, None), "qwen3-vl": ([0.5] * 3, [0.5] * 3)}[name]
    options = {} if mean is None else {"image_mean": mean, "image_std": std}
    processor = Qwen2VLImageProcessorPil(patch_size=patch, do_resize=False, **options)
    expected = processor(images=[Image.fromarray(image)], return_tensors="pt")
    patches = image.reshape(3, 2, patch, 4, 2, patch, 3).transpose(0, 3, 1, 4, 2, 5, 6).reshape(48, -1)
    values = normalise(torch.from_numpy(patches), processor.image_mean, processor.image_std, frames=2)
    assert expected["image_grid_thw"].tolist() == [[1, 6, 8]] and values.dtype == torch.float32
    assert torch.equal(values, expected["pixel_values"])


@pytest.mark.parametrize("family", sorted(TINY))
def test_features_are_those_of_the_stock_model_and_other_batches_pass(family: str) -> None:
    model = tiny_model(family).eval()
    document = tiny_document(1, [3, 2, 4], [(4, 6), (8, 4)])
    batch = tiny_batch([document], family)
    stock = {
        "input_ids": batch["input_ids"],
        "mm_token_type_ids": (batch["input_ids"] == IMAGE).int(),
        "pixel_values": normalise(batch["pixel_values"], MEAN, STD, 2),
        "image_grid_thw": batch["image_grid_thw"],
    }
    before = model(**stock).logits
    undo = share_vision(model, ONE, MEAN, STD)
    keys = ("input_ids", "position_ids", "pixel_values", "image_grid_thw", "image_tokens_per_rank")
    torch.testing.assert_close(model(**{k: batch[k] for k in keys}).logits, before)
    assert torch.equal(model(**stock).logits, before)
    undo()
    assert not model.model._forward_pre_hooks


@pytest.mark.parametrize("family", sorted(TINY))
def test_a_row_without_pages_still_passes_the_tower(family: str) -> None:
    model = tiny_model(family)
    share_vision(model, ONE, MEAN, STD)
    encoded: list[Any] = []
    model.model.visual.register_forward_hook(lambda *hooked: encoded.append(hooked))
    batch = tiny_batch([tiny_document(1, [9])], family)
    keys = ("input_ids", "position_ids", "pixel_values", "image_grid_thw", "image_tokens_per_rank")
    model(**{k: batch[k] for k in keys}).logits.sum().backward()
    assert len(encoded) == 1
    gradients = [p.grad for p in model.model.visual.parameters()]
    assert len(gradients) > 20 and all(g is not None and not g.any() for g in gradients)


def test_a_frozen_tower_needs_no_gradient_and_its_merger_gets_one() -> None:
    model = tiny_model("qwen3-vl")
    freeze(model, ["vision", "language"])
    share_vision(model, ONE, MEAN, STD)
    batch = tiny_batch([tiny_document(1, [3, 5], [(4, 4)])], "qwen3-vl")
    keys = ("input_ids", "position_ids", "pixel_values", "image_grid_thw", "image_tokens_per_rank")
    model(**{k: batch[k] for k in keys}).logits.pow(2).sum().backward()
    learning = {name for name, p in model.named_parameters() if p.grad is not None}
    assert learning == {name for name, _ in model.named_parameters() if "merger" in name}


def test_pixels_of_other_pages_are_refused() -> None:
    model = tiny_model("qwen2.5-vl")
    share_vision(model, ONE, MEAN, STD)
    batch = tiny_batch([tiny_document(1, [3, 5], [(4, 4)])], "qwen2.5-vl")
    with pytest.raises(ValueError, match="sequence-parallel rank 0 got 15 patches; its images have 16"):
        model.model(**{**batch, "pixel_values": batch["pixel_values"][1:]})
