"""Tiny random Qwen-VL models and rows for them, in float32; nothing comes from a hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from corpus.vision_tokens import FAMILIES, Family
from trainer_plugin.batch import RowSample, batch_of
from trainer_plugin.mesh import Mesh, place
from trainer_plugin.vision import deal_images

torch.set_num_threads(1)  # tests share their cores, and threads that wait for one spin

VOCABULARY = 160
IMAGE, VIDEO, VISION_START, VISION_END, PAD = 151, 152, 153, 154, 155
MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
# Two pixels a side instead of 14 or 16, so that pages of many patches cost little.
TINY = {name: replace(family, patch=2) for name, family in FAMILIES.items()}


def tiny_model(family: str, heads: int = 7, kv_heads: int = 1) -> Any:
    """Three layers of text and of vision, weights large enough for every part to matter; the same each time."""
    ids: dict[str, Any] = {
        "image_token_id": IMAGE,
        "video_token_id": VIDEO,
        "vision_start_token_id": VISION_START,
        "vision_end_token_id": VISION_END,
    }
    text = {
        "vocab_size": VOCABULARY,
        "bos_token_id": PAD,
        "eos_token_id": PAD,
        "hidden_size": 8 * heads,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 32_768,
        "initializer_range": 0.2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 1, 1]},
    }
    vision = {
        "depth": 3,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_heads": 2,
        "patch_size": 2,
        "out_hidden_size": 8 * heads,
        "initializer_range": 0.2,
    }
    torch.manual_seed(0)
    if family == "qwen2.5-vl":
        vision |= {"fullatt_block_indexes": [1], "window_size": 8}
        config: Any = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
        return Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=torch.float32)
    text |= {"head_dim": 8}
    text["rope_parameters"] = {**text["rope_parameters"], "mrope_interleaved": True}
    vision |= {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 16}
    config = Qwen3VLConfig(text_config=text, vision_config=vision, **ids)
    return Qwen3VLForConditionalGeneration._from_config(config, dtype=torch.float32)


def tiny_document(
    seed: int, texts: Sequence[int], grids: Sequence[tuple[int, int]] = (), supervised: int = 0
) -> RowSample:
    """`texts[0]` tokens, an image, `texts[1]` tokens, an image, ...; the last `supervised` tokens have labels."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for i, number in enumerate(texts):
        parts.append(torch.randint(0, 150, (number,), generator=generator))
        if i < len(grids):
            size = grids[i][0] * grids[i][1] // 4
            parts.append(torch.tensor([VISION_START, *[IMAGE] * size, VISION_END]))
    ids = torch.cat(parts)
    labels = ids.clone()
    labels[: len(ids) - supervised] = -100
    return RowSample(input_ids=ids, labels=labels, grids=tuple(grids))


def tiny_pixels(seed: int, grids: Sequence[tuple[int, int]]) -> list[torch.Tensor]:
    """uint8 patches `[rows * columns, 3 * 2 * 2]` of each image."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (r * c, 12), generator=generator, dtype=torch.uint8) for r, c in grids]


def tiny_batch(row: Sequence[RowSample], family: str, mesh: Mesh | None = None, seed: int = 1) -> dict[str, Any]:
    """What one rank's model receives for a row."""
    mesh = mesh or place(0, 1, 1)
    grids = [grid for document in row for grid in document.grids]
    images = tiny_pixels(seed, grids)
    mine = [images[i] for i in deal_images(grids, family_of(family), mesh.size)[mesh.rank]]
    pixels = torch.cat(mine) if mine else torch.empty((0, 12), dtype=torch.uint8)
    return batch_of(row, pixels, mesh, family_of(family), image_token_id=IMAGE, pad_token_id=PAD)


def family_of(name: str) -> Family:
    return TINY[name]
