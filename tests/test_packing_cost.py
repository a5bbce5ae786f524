"""Cost: the published sizes, the figures of the documentation, and what the formula must obey."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.errors import ConfigError
from corpus.vision_tokens import FAMILIES, num_patches, snap
from packing.cost import (
    FAMILY_DIMS,
    QWEN2_5_VL_7B,
    QWEN3_VL_8B,
    ModelDims,
    attention_flops,
    dims_of,
    sample_flops,
    text_flops,
    vision_flops,
)

LETTER_PATCHES = 4 * 2_508


@pytest.mark.parametrize(("dims", "published"), [(QWEN2_5_VL_7B, 8_292_166_656), (QWEN3_VL_8B, 8_767_123_696)])
def test_the_sizes_add_up_to_the_published_model(dims: ModelDims, published: int) -> None:
    assert dims.matrix_weights + dims.head_weights == pytest.approx(
        published, rel=5e-4
    )  # without biases, norms and position embeddings


@pytest.mark.parametrize(
    ("family", "text", "vision", "shown"),
    [
        ("qwen2.5-vl", (2048, 36, 16, 2, 11_008, 151_936), (32, 1280, 3420), 3.75),
        ("qwen2.5-vl", (5120, 64, 40, 8, 27_648, 152_064), (32, 1280, 3456), 33.5),
        ("qwen2.5-vl", (8192, 80, 64, 8, 29_568, 152_064), (32, 1280, 3456), 73.4),
        ("qwen3-vl", (2048, 28, 16, 8, 6144, 151_936), (24, 1024, 4096), 2.13),
        ("qwen3-vl", (2560, 36, 32, 8, 9728, 151_936), (24, 1024, 4096), 4.44),
        ("qwen3-vl", (5120, 64, 64, 8, 25_600, 151_936), (27, 1152, 4304), 33.4),
    ],
    ids=["3B", "32B", "72B", "2B", "4B", "32B-3"],
)
def test_other_sizes_add_up_to_the_published_model(
    tmp_path: Path, family: str, text: tuple[int, ...], vision: tuple[int, ...], shown: float
) -> None:
    base = NESTED_7B if family == "qwen2.5-vl" else NESTED_8B
    sizes = dict(zip(("depth", "hidden_size", "intermediate_size"), vision, strict=True))
    config = {
        **base,
        "text_config": {**base["text_config"], **dict(zip(TEXT_7B, text, strict=False))},
        "vision_config": {**base["vision_config"], **sizes},
    }
    dims = dims_of(family, write_config(tmp_path, config))
    tied = text[0] < 3000  # the small ones share embedding and head
    weights = dims.matrix_weights + (0 if tied else dims.head_weights)
    assert weights / 1e9 == pytest.approx(shown, rel=4e-3)  # billions, as the model hub shows them


def test_one_document_of_128k_on_qwen2_5_vl() -> None:
    patches = 52 * LETTER_PATCHES
    total = sample_flops(131_072, patches, 50, QWEN2_5_VL_7B)
    assert total / 1e15 == pytest.approx(17.8, abs=0.05)
    assert attention_flops(131_072, QWEN2_5_VL_7B) / total == pytest.approx(0.58, abs=0.005)
    assert vision_flops(patches, QWEN2_5_VL_7B) / total == pytest.approx(0.13, abs=0.005)


def test_a_text_layer_by_hand() -> None:
    # 512 tokens, forward: 2 x 6,525,288,448 weights, and the head for every token
    assert text_flops(512, 0, QWEN2_5_VL_7B) == 3 * 2 * 512 * 6_525_288_448
    assert text_flops(0, 512, QWEN2_5_VL_7B) == 3 * 2 * 512 * 3584 * 152_064
    # 2 tokens: 1 + 2 pairs, scores and weighted sum, 28 layers of 28 heads of 128
    assert attention_flops(2, QWEN2_5_VL_7B) == 3 * 3 * 4 * 28 * 28 * 128


def test_attention_is_summed_over_samples_not_over_the_row() -> None:
    whole = sample_flops(131_072, 52 * LETTER_PATCHES, 50, QWEN2_5_VL_7B)
    quarters = sample_flops([32_768] * 4, [13 * LETTER_PATCHES] * 4, [50] * 4, QWEN2_5_VL_7B)
    assert quarters.shape == (4,)
    assert quarters.sum() / whole == pytest.approx(0.565, abs=0.005)


def test_every_family_has_sizes() -> None:
    assert set(FAMILY_DIMS) == set(FAMILIES)
    assert dims_of("qwen3-vl") == QWEN3_VL_8B
    for name, dims in FAMILY_DIMS.items():
        assert dims.patch_values == 3 * 2 * FAMILIES[name].patch ** 2
        assert dims.merge == FAMILIES[name].merge
        assert dims.page_patches == num_patches(snap(1584, 1224, FAMILIES[name]), FAMILIES[name])
    with pytest.raises(ConfigError, match="qwen9"):
        dims_of("qwen9")


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    st.sampled_from(list(FAMILY_DIMS.values())),
    st.integers(1, 10**6),
    st.integers(0, 4 * 10**6),
    st.integers(0, 10**5),
    st.integers(1, 1000),
)
def test_more_of_anything_costs_more(dims: ModelDims, t: int, p: int, s: int, more: int) -> None:
    cost = sample_flops(t, p, s, dims)
    assert np.isfinite(cost)
    assert cost > 0
    for bigger in ((t + more, p, s), (t, p + more, s), (t, p, s + more)):
        assert sample_flops(*bigger, dims) > cost


def test_pages_of_known_size_cost_what_they_hold() -> None:
    letters, posters = 50 * LETTER_PATCHES, 50 * LETTER_PATCHES
    for dims in FAMILY_DIMS.values():
        of_letters = vision_flops(50 * dims.page_patches, dims, 50 * dims.page_patches**2)
        assert of_letters == vision_flops(50 * dims.page_patches, dims)
        assert vision_flops(posters, dims, 10 * (5 * LETTER_PATCHES) ** 2) > vision_flops(letters, dims)
        mixed = vision_flops([100, 100], dims, [0, 100 * 10])  # 0: not known
        assert mixed[0] == vision_flops(100, dims)
        assert mixed[1] < mixed[0]


def test_what_is_frozen_costs_less_and_recomputation_more() -> None:
    sample = (131_072, 52 * LETTER_PATCHES, 50)
    for dims in FAMILY_DIMS.values():
        trained = sample_flops(*sample, dims)
        for part in ("vision", "merger", "language"):
            assert sample_flops(*sample, replace(dims, frozen=(part,))) < trained
        assert 1.28 < sample_flops(*sample, replace(dims, recompute=True)) / trained < 4 / 3
        only_language = replace(dims, frozen=("vision", "merger"))
        assert vision_flops(4, only_language) == vision_flops(4, replace(only_language, recompute=True))
        assert text_flops(5, 2, only_language) == text_flops(5, 2, dims)
        adapter = replace(dims, frozen=("vision", "language"))  # gradients pass the language model to the merger
        assert text_flops(5, 2, adapter) == 2 / 3 * text_flops(5, 2, dims)
        assert attention_flops(5, adapter) == attention_flops(5, dims)


TEXT_7B = {
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "intermediate_size": 18_944,
    "vocab_size": 152_064,
}
VISION_7B = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "in_chans": 3,
    "out_hidden_size": 3584,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
TEXT_8B = {
    "hidden_size": 4096,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 12_288,
    "vocab_size": 151_936,
}
VISION_8B = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_heads": 16,
    "in_channels": 3,
    "out_hidden_size": 4096,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "deepstack_visual_indexes": [8, 16, 24],
}
FLAT_7B = {"model_type": "qwen2_5_vl", **TEXT_7B, "vision_config": VISION_7B}
NESTED_7B = {"model_type": "qwen2_5_vl", "text_config": TEXT_7B, "vision_config": VISION_7B}
NESTED_8B = {"model_type": "qwen3_vl", "text_config": TEXT_8B, "vision_config": VISION_8B}


def write_config(folder: Path, config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("family", "config", "known"),
    [
        ("qwen2.5-vl", FLAT_7B, QWEN2_5_VL_7B),
        ("qwen2.5-vl", NESTED_7B, QWEN2_5_VL_7B),
        ("qwen2.5-vl", {**NESTED_7B, "hidden_size": 1, "head_dim": None}, QWEN2_5_VL_7B),  # the newer place decides
        ("qwen3-vl", NESTED_8B, QWEN3_VL_8B),
    ],
    ids=["flat", "nested", "both", "qwen3-vl"],
)
def test_sizes_come_from_the_models_own_config(
    tmp_path: Path, family: str, config: dict[str, Any], known: ModelDims
) -> None:
    folder = write_config(tmp_path / "my-model", config)
    name = {"qwen2.5-vl": "qwen2.5-vl, 7.7B", "qwen3-vl": "qwen3-vl, 8.1B"}[family]
    assert dims_of(family, folder) == replace(known, name=name)
    assert dims_of(family, str(folder / "config.json")) == replace(known, name=name)
    assert dims_of(family, folder, freeze=["language", "vision"], recompute=True) == replace(
        known, name=name, frozen=("vision", "language"), recompute=True
    )


def without(config: dict[str, Any], section: str, key: str) -> dict[str, Any]:
    return {**config, section: {k: v for k, v in config[section].items() if k != key}}


@pytest.mark.parametrize(
    ("family", "config", "message"),
    [
        *[("qwen2.5-vl", without(NESTED_7B, "text_config", key), rf"text_config.{key} is missing") for key in TEXT_7B],
        *[
            ("qwen3-vl", without(NESTED_8B, "vision_config", key), rf"vision_config.{key} is missing")
            for key in VISION_8B
            if key not in ("num_heads", "out_hidden_size")
        ],
        ("qwen2.5-vl", without(NESTED_7B, "vision_config", "window_size"), r"vision_config.window_size is missing"),
        ("qwen2.5-vl", {**FLAT_7B, "hidden_size": 0}, r"text_config.hidden_size = '0' is no size"),
        ("qwen2.5-vl", {**FLAT_7B, "hidden_size": True}, r"hidden_size = 'True' is no size"),
        ("qwen2.5-vl", {**FLAT_7B, "vocab_size": 10**30}, r"vocab_size = '1000.*' is no size"),
        ("qwen2.5-vl", {**FLAT_7B, "vision_config": 5}, r"vision_config = '5' is no section"),
        (
            "qwen3-vl",
            {**NESTED_8B, "vision_config": {**VISION_8B, "deepstack_visual_indexes": "8"}},
            r"deepstack_visual_indexes = '8' is no list of layers",
        ),
        ("qwen3-vl", FLAT_7B, r"model_type = 'qwen2_5_vl', but a qwen3-vl model has 'qwen3_vl'"),
        ("qwen3-vl", {**NESTED_8B, "model_type": "qwen3_vl_moe"}, r"model_type = 'qwen3_vl_moe'"),
        (
            "qwen3-vl",
            {**NESTED_8B, "vision_config": {**VISION_8B, "patch_size": 14}},
            r"patches of 14 pixels merged 2 x 2, but qwen3-vl lengths are counted with 16",
        ),
        ("qwen3-vl", [1], r"is no config.json of a model"),
    ],
)
def test_a_config_at_fault_is_refused_in_one_line(tmp_path: Path, family: str, config: Any, message: str) -> None:
    folder = write_config(tmp_path, config)
    with pytest.raises(ConfigError, match=message) as e:
        dims_of(family, folder)
    assert str(folder / "config.json") in str(e.value)
    assert "packing.cost.model (--model) names a model's folder" in str(e.value)
    assert len(str(e.value).splitlines()) == 1


def test_files_that_are_no_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*config.json: No such file.*packing.cost.model"):
        dims_of("qwen3-vl", tmp_path)
    with pytest.raises(ConfigError, match=r"cannot read .*nothing: No such file"):
        dims_of("qwen3-vl", tmp_path / "nothing")
    for content in (b"{", b"[" * 100_000, b"\xff", b'{"a": "' + b"x" * (1 << 20) + b'"}'):
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(ConfigError, match=r"is no config.json of a model"):
            dims_of("qwen3-vl", tmp_path)


def test_something_must_be_trained() -> None:
    with pytest.raises(ConfigError, match=r"vision, merger, language are frozen: nothing is left to train"):
        dims_of("qwen3-vl", freeze=("vision", "merger", "language"))
