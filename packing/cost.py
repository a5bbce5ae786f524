"""What a sample costs: tokens and patches to floating-point operations of one forward and backward pass.

Why: two full rows of 131,072 tokens differ by a factor of two in cost, depending on whether they hold one
document or four, and every rank waits for the slowest. The plan therefore balances this number, not tokens.

For a sample of T tokens, of which S are supervised, with P vision patches on pages of G patches, forward:

    text      2 T L (2 h H d + 2 h K d + 3 h f)     query and output, key and value, gated MLP
    attention 2 T (T + 1) L H d                     causal: token t sees t tokens; scores and weighted sum
    head      2 S h V                               logits only where a label exists
    patches   2 P c p^2 h_v                         pixels to the width of the vision tower
    vision    2 P L_v (4 h_v^2 + m h_v f_v) + 4 P h_v (W L_w + G L_g)
    merger    2 (P / 4) M (4 h_v) (4 h_v + h)       once, and once more for each deepstack layer

with two operations a multiply-add (Kaplan et al. 2020, section 2.1; PaLM, appendix B, for the attention term,
here halved because it is causal). The backward pass multiplies once more for the gradient of a matrix, if it is
trained, and once more for the gradient of its input, if something before it is trained: a trained matrix costs
3 forward passes, a frozen one 2 where gradients pass through it and 1 elsewhere, and pixels have no gradient, so the
patches cost 2. Attention has two inputs a product and no weights: 3, or 1. Gradient checkpointing runs the layers of
text and vision once more, all but their last matrix, whose result nothing needs; PyTorch stops there.

Norms, softmax, rotations and the optimizer are not counted, nor that fused attention computes its scores again
in the backward pass. Without `recompute` this is "model FLOPs", the numerator of a model-FLOPs utilisation.
`torch.utils.flop_counter` counts the same on both families, to the last operation, frozen or checkpointed, but for
what is masked: it counts T^2 pairs of causal attention instead of T (T + 1) / 2. A test compares them. (transformers
5.23 makes the patches of Qwen2.5-VL require a gradient when checkpointing is switched on, so that a frozen tower is
run backwards in vain, until `model.disable_input_require_grads()`; that is not counted.)

Check: one document of 131,072 tokens and 52 US Letter pages at 144 DPI on Qwen2.5-VL-7B is 17.8 PFLOP, of
which 58 % text attention and 13 % vision tower (11 % without the attention inside pages). Attention is summed
over samples, never over the row: four documents of 32,768 tokens cost 56 % of one of 131,072.

Windows at the edge of a page hold fewer patches than W; counting them whole overstates a sample by less than 0.01 %.
A table that has the column `patch_pairs`, the sum over pages of their squared patches, gives P G exactly. Without it
the patches of a US Letter page stand for G, which overstates a row of 131,072 tokens by 1 % (Qwen2.5-VL) or 3 %
(Qwen3-VL) where every page is half that size, and understates one of A3 pages by 2 % or 6 %, of A1 by 9 % or 31 %
(`benchmarks/check_cost.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from corpus.errors import ConfigError
from corpus.records import MODEL_PARTS, ModelPart
from corpus.vision_tokens import FAMILIES, Family, snap
from corpus.vision_tokens import num_patches as patches_of

LETTER_PIXELS = (1584, 1224)  # height and width of US Letter at 144 DPI
MAX_CONFIG_BYTES = 1 << 20
MAX_SIZE = 1 << 24  # of any one dimension: keeps every product within a float
_WAY_OUT = "packing.cost.model (--model) names a model's folder or its config.json"

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDims:
    """What decides a model's cost: its sizes, under the names of its `config.json`, and how it is trained."""

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
    frozen: tuple[ModelPart, ...] = ()  # parts that are not trained, in the order of `MODEL_PARTS`
    recompute: bool = False  # the layers of text and vision run again in the backward pass

    @property
    def text_weights(self) -> int:
        """Weights of the text layers' matrices, embeddings and head left out."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def text_last_weights(self) -> int:
        """Weights of the last matrix of each text layer, from the MLP down to the hidden state."""
        return self.layers * self.hidden * self.intermediate

    @property
    def head_weights(self) -> int:
        """Weights of the matrix from hidden states to logits."""
        return self.hidden * self.vocab

    @property
    def patch_weights(self) -> int:
        """Weights from the pixels of a patch to the vision tower."""
        return self.patch_values * self.vision_hidden

    @property
    def vision_weights(self) -> int:
        """Weights of the vision layers, which every patch passes."""
        h = self.vision_hidden
        return self.vision_layers * (4 * h * h + self.vision_mlp_matrices * h * self.vision_intermediate)

    @property
    def vision_last_weights(self) -> int:
        """Weights of the last matrix of each vision layer."""
        return self.vision_layers * self.vision_hidden * self.vision_intermediate

    @property
    def merger_weights(self) -> int:
        """Weights that every merged token passes, over all mergers."""
        merged = self.merge**2 * self.vision_hidden
        return self.num_mergers * merged * (merged + self.hidden)

    @property
    def matrix_weights(self) -> int:
        """Weights of every matrix that is multiplied with; an untied embedding has `head_weights` more."""
        text = self.text_weights + self.head_weights
        return text + self.patch_weights + self.vision_weights + self.merger_weights


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


def dims_of(
    family: str, model: str | Path | None = None, *, freeze: Iterable[ModelPart] = (), recompute: bool = False
) -> ModelDims:
    """The sizes of a model of a family of `corpus.vision_tokens`, and how it is trained.

    Args:
        model: folder of the model or its `config.json`; None = the size of `FAMILY_DIMS`.
        freeze: parts that are not trained.
        recompute: whether layers run again in the backward pass (gradient checkpointing).

    Raises:
        ConfigError: a family without sizes; a config that cannot be read, lacks a size or is of another family;
            everything frozen.
    """
    if family not in FAMILIES:
        raise ConfigError(f"unknown model family {family!r}; known: {', '.join(FAMILIES)}")
    frozen = set(freeze)
    if frozen >= set(MODEL_PARTS):
        raise ConfigError(f"{', '.join(MODEL_PARTS)} are frozen: nothing is left to train; leave one out of freeze")
    if model is not None:
        dims = read_dims(Path(model), FAMILIES[family])
    elif family in FAMILY_DIMS:
        dims = FAMILY_DIMS[family]
    else:
        raise ConfigError(f"no model sizes for family {family!r}, only for {', '.join(FAMILY_DIMS)}; {_WAY_OUT}")
    return replace(dims, frozen=tuple(p for p in MODEL_PARTS if p in frozen), recompute=recompute)


def read_dims(model: Path, family: Family) -> ModelDims:
    """The sizes in the `config.json` of a model, of any layout that transformers wrote.

    Text sizes stand under `text_config`, or in older files beside it; the newer place decides.

    Raises:
        ConfigError: see `dims_of`.
    """
    model = model.expanduser()
    file = model / "config.json" if model.is_dir() else model
    return dims_from(_read_config(file), family, file)


def dims_from(config: Mapping[str, Any], family: Family, file: Path = Path("config.json")) -> ModelDims:
    """The sizes in the content of a model's `config.json`; `file` is what errors name.

    Raises:
        ConfigError: see `dims_of`.
    """
    kind = config.get("model_type")
    if kind != family.model_type:
        raise ConfigError(
            f"{file}: model_type = {str(kind)[:40]!r}, but a {family.name} model has {family.model_type!r}; "
            f"name its own family, or another model: {_WAY_OUT}"
        )
    nested = _Sizes(file, "vision_config", _section(file, config, "vision_config"))
    text = _Sizes(file, "text_config", {**config, **_section(file, config, "text_config")})
    vision_layers = nested.size("depth")
    patch, merge = nested.size("patch_size"), nested.size("spatial_merge_size")
    if (patch, merge) != (family.patch, family.merge):
        raise ConfigError(
            f"{file}: patches of {patch} pixels merged {merge} x {merge}, but {family.name} lengths are counted with "
            f"{family.patch} and {family.merge} x {family.merge}; {_WAY_OUT}"
        )
    full, window = vision_layers, 0
    if family.windowed_vision:
        full = len({i for i in nested.indices("fullatt_block_indexes") if i < vision_layers})
        window = (nested.size("window_size") // patch // merge * merge) ** 2
    heads = text.size("num_attention_heads")
    hidden = text.size("hidden_size")
    dims = ModelDims(
        name="",
        hidden=hidden,
        layers=text.size("num_hidden_layers"),
        heads=heads,
        kv_heads=text.size("num_key_value_heads"),
        head_dim=text.size("head_dim", otherwise=hidden // heads),
        intermediate=text.size("intermediate_size"),
        vocab=text.size("vocab_size"),
        vision_hidden=nested.size("hidden_size"),
        vision_layers=vision_layers,
        vision_intermediate=nested.size("intermediate_size"),
        vision_mlp_matrices=3 if family.gated_vision else 2,
        vision_full_layers=full,
        vision_window_patches=window,
        patch_values=nested.size("in_channels", "in_chans") * nested.size("temporal_patch_size") * patch**2,
        merge=merge,
        num_mergers=1 + len(nested.indices("deepstack_visual_indexes") if family.deepstack else ()),
        page_patches=patches_of(snap(*LETTER_PIXELS, family), family),
    )
    return replace(dims, name=f"{family.name}, {dims.matrix_weights / 1e9:.1f}B")  # the same wherever it lies


def _read_config(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as f:
            content = f.read(MAX_CONFIG_BYTES + 1)
    except OSError as e:
        raise ConfigError(f"cannot read {file}: {e.strerror}; {_WAY_OUT}") from None
    try:
        config = json.loads(content)
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict) or len(content) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{file} is no config.json of a model; {_WAY_OUT}")
    return config


def _section(file: Path, config: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = config.get(name) or {}
    if not isinstance(section, dict):
        raise ConfigError(f"{file}: {name} = {str(section)[:40]!r} is no section; {_WAY_OUT}")
    return section


@dataclass(frozen=True, slots=True)
class _Sizes:
    """A section of a model's config, read with errors that name file and key."""

    file: Path
    section: str
    values: Mapping[str, Any]

    def size(self, *names: str, otherwise: int | None = None) -> int:
        """A positive integer under the first of these names that is there."""
        value = next((self.values[n] for n in names if self.values.get(n) is not None), otherwise)
        if value is None:
            raise self._fault(names[0], "is missing")
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_SIZE:
            raise self._fault(names[0], f"= {str(value)[:40]!r} is no size")
        return value

    def indices(self, name: str) -> tuple[int, ...]:
        """A list of layer numbers."""
        value = self.values.get(name)
        if value is None:
            raise self._fault(name, "is missing")
        if not isinstance(value, list) or not all(isinstance(i, int) and 0 <= i <= MAX_SIZE for i in value):
            raise self._fault(name, f"= {str(value)[:40]!r} is no list of layers")
        return tuple(value)

    def _fault(self, name: str, what: str) -> ConfigError:
        return ConfigError(f"{self.file}: {self.section}.{name} {what}; {_WAY_OUT}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """How often each part runs, in units of its forward pass, recomputation left out."""

    patches: int
    vision: int
    vision_attention: int
    merger: int
    language: int
    language_attention: int

    @staticmethod
    def of(frozen: Iterable[ModelPart]) -> Passes:
        """One forward pass, one more where weights are trained, one more where the input has a gradient."""
        vision, merger, language = (part not in frozen for part in MODEL_PARTS)
        into_merger = vision or merger  # its own norm, before its first matrix, is trained with it
        into_language = into_merger or language  # so are the embeddings with the language model
        return Passes(
            patches=1 + vision,
            vision=1 + 2 * vision,
            vision_attention=1 + 2 * vision,
            merger=1 + merger + into_merger,
            language=1 + language + into_language,
            language_attention=1 + 2 * into_language,
        )


def text_flops(num_tokens: npt.ArrayLike, num_supervised: npt.ArrayLike, dims: ModelDims) -> FloatArray:
    """Matrices of the text layers and of the head."""
    tokens, supervised = _floats(num_tokens), _floats(num_supervised)
    passes = Passes.of(dims.frozen).language
    again = dims.text_weights - dims.text_last_weights if dims.recompute else 0
    return 2 * (tokens * (passes * dims.text_weights + again) + passes * supervised * dims.head_weights)


def attention_flops(num_tokens: npt.ArrayLike, dims: ModelDims) -> FloatArray:
    """Causal attention of the text layers inside one sample."""
    tokens = _floats(num_tokens)
    pairs = tokens * (tokens + 1) / 2
    passes = Passes.of(dims.frozen).language_attention + dims.recompute
    return passes * 4 * pairs * dims.layers * dims.heads * dims.head_dim


def vision_flops(num_patches: npt.ArrayLike, dims: ModelDims, patch_pairs: npt.ArrayLike | None = None) -> FloatArray:
    """Vision tower and mergers.

    Args:
        num_patches: of all pages of a sample.
        patch_pairs: sum over its pages of their squared patches; None, or 0 for a sample, takes typical pages.
    """
    patches = _floats(num_patches)
    passes = Passes.of(dims.frozen)
    again = dims.recompute and "vision" not in dims.frozen  # a frozen tower has no backward pass to run again in
    pairs: FloatArray = patches * np.minimum(patches, dims.page_patches)
    if patch_pairs is not None:
        pairs = np.where(_floats(patch_pairs) > 0, _floats(patch_pairs), pairs)
    windowed = dims.vision_layers - dims.vision_full_layers
    seen = dims.vision_full_layers * pairs + windowed * dims.vision_window_patches * patches
    attention: FloatArray = (passes.vision_attention + again) * 4 * dims.vision_hidden * seen
    weights = (
        passes.patches * dims.patch_weights
        + passes.vision * dims.vision_weights
        + again * (dims.vision_weights - dims.vision_last_weights)
        + passes.merger * dims.merger_weights / dims.merge**2
    )
    return 2 * patches * weights + attention


def sample_flops(
    num_tokens: npt.ArrayLike,
    num_patches: npt.ArrayLike,
    num_supervised: npt.ArrayLike,
    dims: ModelDims,
    patch_pairs: npt.ArrayLike | None = None,
) -> FloatArray:
    """Floating-point operations of each sample, forward and backward. A row costs the sum of its samples."""
    return (
        text_flops(num_tokens, num_supervised, dims)
        + attention_flops(num_tokens, dims)
        + vision_flops(num_patches, dims, patch_pairs)
    )


def _floats(values: npt.ArrayLike) -> FloatArray:
    return np.asarray(values, dtype=np.float64)
