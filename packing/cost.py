"""What a sample costs: tokens and patches to floating-point operations of one forward and backward pass.

Why: two full rows of 131,072 tokens differ by a factor of two in cost, depending on whether they hold one
document or four, and every rank waits for the slowest. The plan therefore balances this number, not tokens.

For a sample of T tokens, of which S are supervised, with P vision patches on pages of G patches:

    text      2 T L (2 h H d + 2 h K d + 3 h f)     query and output, key and value, gated MLP
    attention 2 T (T + 1) L H d                     causal: token t sees t tokens; scores and weighted sum
    head      2 S h V                               logits only where a label exists
    vision    2 P (c p^2 h_v + L_v (4 h_v^2 + m h_v f_v)) + 4 P h_v (W L_w + G L_g)
    merger    2 (P / 4) M (4 h_v) (4 h_v + h)       once, and once more for each deepstack layer

with two operations a multiply-add and the backward pass twice the forward one (Kaplan et al. 2020, section
2.1; PaLM, appendix B, for the attention term, here halved because it is causal). Recomputed activations,
norms, softmax and the optimizer are not counted: this is "model FLOPs", the numerator of a model-FLOPs
utilisation.

Check: one document of 131,072 tokens and 52 US Letter pages at 144 DPI on Qwen2.5-VL-7B is 17.8 PFLOP, of
which 58 % text attention and 13 % vision tower (11 % without the attention inside pages). Attention is summed
over samples, never over the row: four documents of 32,768 tokens cost 56 % of one of 131,072.

A plan knows the patches of a sample, not of each page, so the vision tower's full-attention layers take the
patches of a US Letter page for G. Where every page is half that size, this overstates a row of 131,072 tokens
by 1 % (Qwen2.5-VL) or 3 % (Qwen3-VL).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corpus.errors import ConfigError

FORWARD_AND_BACKWARD = 3  # in units of the forward pass

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDims:
    """The sizes of a vision-language model that decide its cost, under the names of its `config.json`."""

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int  # of the gated MLP: three matrices
    vocab: int
    vision_hidden: int
    vision_layers: int
    vision_intermediate: int
    vision_mlp_matrices: int  # 3 for a gated MLP, 2 for a plain one
    vision_full_layers: int  # layers in which a patch sees its whole page
    vision_window_patches: int  # patches that see each other in the other layers
    patch_values: int  # pixels x channels x frames of one patch
    merge: int  # patches a side that become one token
    num_mergers: int  # 1, and 1 more for each deepstack layer
    page_patches: int  # of a typical page: US Letter at 144 DPI

    @property
    def text_weights(self) -> int:
        """Weights of the text layers' matrices, embeddings and head left out."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def head_weights(self) -> int:
        """Weights of the matrix from hidden states to logits."""
        return self.hidden * self.vocab

    @property
    def vision_weights(self) -> int:
        """Weights that every patch passes: patch embedding and vision layers."""
        h = self.vision_hidden
        layer = 4 * h * h + self.vision_mlp_matrices * h * self.vision_intermediate
        return self.patch_values * h + self.vision_layers * layer

    @property
    def merger_weights(self) -> int:
        """Weights that every merged token passes, over all mergers."""
        merged = self.merge**2 * self.vision_hidden
        return self.num_mergers * merged * (merged + self.hidden)


QWEN2_5_VL_7B = ModelDims(
    name="Qwen2.5-VL-7B",
    hidden=3584,
    layers=28,
    heads=28,
    kv_heads=4,
    head_dim=128,
    intermediate=18_944,
    vocab=152_064,
    vision_hidden=1280,
    vision_layers=32,
    vision_intermediate=3420,
    vision_mlp_matrices=3,
    vision_full_layers=4,
    vision_window_patches=64,  # 112 x 112 px
    patch_values=3 * 2 * 14 * 14,
    merge=2,
    num_mergers=1,
    page_patches=10_032,
)

QWEN3_VL_8B = ModelDims(
    name="Qwen3-VL-8B",
    hidden=4096,
    layers=36,
    heads=32,
    kv_heads=8,
    head_dim=128,
    intermediate=12_288,
    vocab=151_936,
    vision_hidden=1152,
    vision_layers=27,
    vision_intermediate=4304,
    vision_mlp_matrices=2,
    vision_full_layers=27,
    vision_window_patches=0,
    patch_values=3 * 2 * 16 * 16,
    merge=2,
    num_mergers=4,
    page_patches=7_600,
)

# One size a family: relative costs, which is all that balancing needs, hardly depend on it.
FAMILY_DIMS = {"qwen2.5-vl": QWEN2_5_VL_7B, "qwen3-vl": QWEN3_VL_8B}


def dims_of(family: str) -> ModelDims:
    """The sizes of a family of `corpus.vision_tokens`.

    Raises:
        ConfigError: a family without sizes.
    """
    if family not in FAMILY_DIMS:
        raise ConfigError(f"no model sizes for family {family!r}; known: {', '.join(FAMILY_DIMS)}")
    return FAMILY_DIMS[family]


def text_flops(num_tokens: npt.ArrayLike, num_supervised: npt.ArrayLike, dims: ModelDims) -> FloatArray:
    """Matrices of the text layers and of the head, forward and backward."""
    tokens, supervised = _floats(num_tokens), _floats(num_supervised)
    return FORWARD_AND_BACKWARD * 2 * (tokens * dims.text_weights + supervised * dims.head_weights)


def attention_flops(num_tokens: npt.ArrayLike, dims: ModelDims) -> FloatArray:
    """Causal attention of the text layers inside one sample, forward and backward."""
    tokens = _floats(num_tokens)
    pairs = tokens * (tokens + 1) / 2
    return FORWARD_AND_BACKWARD * 4 * pairs * dims.layers * dims.heads * dims.head_dim


def vision_flops(num_patches: npt.ArrayLike, dims: ModelDims) -> FloatArray:
    """Vision tower and mergers, forward and backward."""
    patches = _floats(num_patches)
    windowed = dims.vision_layers - dims.vision_full_layers
    page = np.minimum(patches, dims.page_patches)
    seen = dims.vision_full_layers * page + windowed * dims.vision_window_patches
    attention: FloatArray = 4 * patches * dims.vision_hidden * seen
    matrices: FloatArray = 2 * patches * (dims.vision_weights + dims.merger_weights / dims.merge**2)
    return FORWARD_AND_BACKWARD * (matrices + attention)


def sample_flops(
    num_tokens: npt.ArrayLike, num_patches: npt.ArrayLike, num_supervised: npt.ArrayLike, dims: ModelDims
) -> FloatArray:
    """Floating-point operations of each sample, forward and backward. A row costs the sum of its samples."""
    return (
        text_flops(num_tokens, num_supervised, dims)
        + attention_flops(num_tokens, dims)
        + vision_flops(num_patches, dims)
    )


def _floats(values: npt.ArrayLike) -> FloatArray:
    return np.asarray(values, dtype=np.float64)
