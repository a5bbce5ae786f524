"""Cost: what PyTorch's own counter counts while small random models of both families run, part by part."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from corpus.records import ModelPart
from packing.cost import ModelDims, Passes, attention_flops, dims_of, text_flops, vision_flops

TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 200,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
VISION = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 64}
IDS = {"image_token_id": 190, "video_token_id": 191, "vision_start_token_id": 192, "vision_end_token_id": 193}
CONFIGS = {
    "qwen2.5-vl": Qwen2_5_VLConfig(
        text_config={**TEXT, "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]}},
        vision_config={**VISION, "fullatt_block_indexes": [1]},
        **IDS,
    ),
    "qwen3-vl": Qwen3VLConfig(
        text_config={**TEXT, "head_dim": 32, "rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6]}},
        vision_config={**VISION, "deepstack_visual_indexes": [0], "num_position_embeddings": 64},
        **IDS,
    ),
}
CLASSES = {"qwen2.5-vl": Qwen2_5_VLForConditionalGeneration, "qwen3-vl": Qwen3VLForConditionalGeneration}
FREEZES: tuple[tuple[ModelPart, ...], ...] = (
    (),
    ("vision",),
    ("merger",),
    ("language",),
    ("vision", "merger"),
    ("vision", "language"),
    ("merger", "language"),
)
PAGES = ((16, 8), (8, 24))  # patches: rows and columns, whole windows of 8 x 8
RAGGED = ((12, 10), (4, 22))

both_families = pytest.mark.parametrize("family", CONFIGS)


def part_of(parameter: str) -> ModelPart:
    if not parameter.startswith("model.visual."):
        return "language"
    return "merger" if "merger" in parameter else "vision"


def make_model(family: str, dims: ModelDims) -> Any:
    model = CLASSES[family]._from_config(CONFIGS[family], attn_implementation="eager")  # a product is a product
    model.train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part_of(name) not in dims.frozen)
    if dims.recompute:
        model.activation_checkpointing_enable()
        model.disable_input_require_grads()  # else a frozen vision tower is run backwards in vain
    return model


def make_sample(family: str, pages: tuple[tuple[int, int], ...]) -> dict[str, Any]:
    patch = CONFIGS[family].vision_config.patch_size
    ids = [5]
    for rows, columns in pages:
        ids += [7, 192, *[190] * (rows * columns // 4), 193]
    tokens = torch.tensor([[*ids, *[9] * 11]])
    return {
        "input_ids": tokens,
        "mm_token_type_ids": (tokens == 190).int(),
        "pixel_values": torch.ones(sum(r * c for r, c in pages), 3 * 2 * patch * patch),
        "image_grid_thw": torch.tensor([[1, r, c] for r, c in pages]),
        "use_cache": False,
    }


@functools.cache
def counted(family: str, dims: ModelDims, pages: tuple[tuple[int, int], ...], backward: bool) -> Counter[str]:
    """Floating-point operations of one sample by kind: matrices, attention, patches."""
    model, sample = make_model(family, dims), make_sample(family, pages)
    with FlopCounterMode(display=False) as counter:
        logits = model(**sample).logits
        if backward:
            logits.square().mean().backward()
    kinds = {"mm": "matrices", "addmm": "matrices", "bmm": "attention"}
    found: Counter[str] = Counter()
    for op, flops in counter.get_flop_counts()["Global"].items():
        found[kinds.get(op.__name__, "patches" if "convolution" in op.__name__ else op.__name__)] += flops
    assert sum(found.values()) == counter.get_total_flops()
    return found


def predicted(family: str, dims: ModelDims, pages: tuple[tuple[int, int], ...]) -> dict[str, float]:
    """Our count by kind, with every logit and with the masked half of causal attention."""
    tokens = make_sample(family, pages)["input_ids"].numel()
    patches, pairs = sum(r * c for r, c in pages), sum((r * c) ** 2 for r, c in pages)
    text_attention = float(attention_flops(tokens, dims)) * 2 * tokens / (tokens + 1)
    again = dims.recompute and "vision" not in dims.frozen
    passes = Passes.of(dims.frozen)
    windowed = dims.vision_layers - dims.vision_full_layers
    seen = dims.vision_full_layers * pairs + windowed * dims.vision_window_patches * patches
    vision_attention = (passes.vision_attention + again) * 4 * dims.vision_hidden * seen
    conv = 2 * passes.patches * patches * dims.patch_weights
    vision = float(vision_flops(patches, dims, pairs))
    return {
        "matrices": float(text_flops(tokens, tokens, dims)) + vision - vision_attention - conv,
        "attention": text_attention + vision_attention,
        "patches": conv,
    }


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads only wait for each other at these sizes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The config of each model as transformers writes it."""
    made = {}
    for family, config in CONFIGS.items():
        made[family] = tmp_path_factory.mktemp(family)
        config.save_pretrained(made[family])
    return made


@both_families
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("freeze", FREEZES, ids="+".join)
def test_forward_and_backward_to_the_last_operation(
    family: str, freeze: tuple[ModelPart, ...], recompute: bool, folders: dict[str, Path]
) -> None:
    dims = dims_of(family, folders[family], freeze=freeze, recompute=recompute)
    assert counted(family, dims, PAGES, backward=True) == predicted(family, dims, PAGES)


@both_families
def test_the_forward_pass_is_a_third(family: str, folders: dict[str, Path]) -> None:
    dims = dims_of(family, folders[family])
    forward, both = (counted(family, dims, PAGES, backward) for backward in (False, True))
    assert {kind: flops * 3 for kind, flops in forward.items() if kind != "patches"} == {
        kind: flops for kind, flops in both.items() if kind != "patches"
    }
    assert both["patches"] == 2 * forward["patches"]  # pixels have no gradient


def test_windows_at_the_edge_are_counted_whole(folders: dict[str, Path]) -> None:
    dims = dims_of("qwen2.5-vl", folders["qwen2.5-vl"])
    ours, theirs = (predicted("qwen2.5-vl", dims, RAGGED), counted("qwen2.5-vl", dims, RAGGED, backward=True))
    assert ours["matrices"] == theirs["matrices"]
    assert theirs["attention"] < ours["attention"]
    dims = dims_of("qwen3-vl", folders["qwen3-vl"])  # no windows
    assert predicted("qwen3-vl", dims, RAGGED) == counted("qwen3-vl", dims, RAGGED, backward=True)
