"""Room for more positions: a larger base of the rotary embedding, effective at once and after reloading.

Qwen2.5-VL was trained with base 1e6 for 32,768 positions and the recipe uses 4e6 for 131,072; Qwen3-VL comes with
262,144 and needs nothing. Editing the config alone changes nothing, because the frequencies were computed when the
model was built; so both are written. The change belongs to the trained weights: it stays when the plugin is detached.
"""

from __future__ import annotations

import logging
from typing import Any

from corpus.errors import ConfigError
from trainer_plugin.models import family_of, qwen_vl_of

DEFAULT_BASES = {"qwen2.5-vl": 4e6}  # a family without one keeps what its checkpoint says

logger = logging.getLogger(__name__)


def ntk_base(base: float, factor: float, head_dim: int) -> float:
    """For `rope_base`: what stretches the slowest rotation by `factor` and leaves the fastest, b * f ** (d / (d - 2)).

    1e6 for 4 times the positions with heads of 128 is 4.09e6.
    """
    return float(base * factor ** (head_dim / (head_dim - 2)))


def extend_rope(model: Any, *, max_positions: int, base: float | None = None, force: bool = False) -> None:
    """Make room for `max_positions` and set the base: by default the family's, never lower than it is.

    Raises:
        ConfigError: a base below the model's without `force`, or a model with another scheme (yarn, linear).
    """
    core = qwen_vl_of(model)
    text, rotary = core.model.language_model.config, core.model.language_model.rotary_emb
    kind = text.rope_parameters["rope_type"]
    if kind != "default":
        raise ConfigError(f"the model's rope_type is {kind!r}, whose base cannot be extended; start from 'default'")
    current = float(text.rope_parameters["rope_theta"])
    if base is None:
        base = max(current, DEFAULT_BASES.get(family_of(core).name, current))
    if base < current and not force:
        raise ConfigError(f"a RoPE base of {base:g} is below the model's {current:g}; say force to lower it")
    before = text.max_position_embeddings
    for config in (text, core.config.text_config):
        config.rope_parameters = {**config.rope_parameters, "rope_theta": base}
        config.max_position_embeddings = max(before, max_positions)
    frequencies, _ = rotary.compute_default_rope_parameters(text)
    rotary.inv_freq.copy_(frequencies)
    rotary.original_inv_freq.copy_(frequencies)
    rotary.max_seq_len_cached = rotary.original_max_seq_len = text.max_position_embeddings
    logger.info("RoPE base %g -> %g, at most %d -> %d positions", current, base, before, text.max_position_embeddings)
