"""Cost: the published sizes, the figures of the documentation, and what the formula must obey."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.errors import ConfigError
from corpus.vision_tokens import FAMILIES
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
    weights = dims.text_weights + 2 * dims.head_weights + dims.vision_weights + dims.merger_weights
    assert weights == pytest.approx(published, rel=5e-4)  # without biases, norms and position embeddings


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
    assert dims_of("qwen3-vl") is QWEN3_VL_8B
    for name, dims in FAMILY_DIMS.items():
        assert dims.patch_values == 3 * 2 * FAMILIES[name].patch ** 2
        assert dims.merge == FAMILIES[name].merge
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
