"""More positions are effective at once and after reloading; parts of the model can be frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import TINY, tiny_model

from corpus.errors import ConfigError
from trainer_plugin.attention import use_attention
from trainer_plugin.mesh import place
from trainer_plugin.models import family_of, freeze, qwen_vl_of
from trainer_plugin.rope import extend_rope, ntk_base

FAMILIES = sorted(TINY)


def frequencies(model: Any) -> Any:
    return model.model.language_model.rotary_emb.inv_freq.clone()


def angles(model: Any) -> Any:
    """Cosines at three positions, as the text model computes them."""
    positions = torch.tensor([0, 1, 40_000]).expand(3, 1, 3)
    return model.model.language_model.rotary_emb(torch.zeros(1), positions)[0].clone()


def base_and_positions(model: Any) -> tuple[float, int]:
    """As both places of the config have them."""
    texts = model.config.text_config, model.model.language_model.config
    found = {(text.rope_parameters["rope_theta"], text.max_position_embeddings) for text in texts}
    assert len(found) == 1
    return found.pop()


def expected(base: float) -> Any:
    return 1 / base ** (torch.arange(0, 8, 2).float() / 8)


def test_the_formula_gives_the_recipes_base() -> None:
    assert ntk_base(1e6, 4, 128) == pytest.approx(4.09e6, rel=1e-3)
    assert ntk_base(5e6, 1, 128) == 5e6


def test_qwen25_gets_its_default_at_once_and_after_reloading(tmp_path: Path) -> None:
    model = tiny_model("qwen2.5-vl")
    torch.testing.assert_close(frequencies(model), expected(1e6))
    before = angles(model)
    assert base_and_positions(model) == (1e6, 32_768)
    extend_rope(model, max_positions=131_072)
    assert base_and_positions(model) == (4e6, 131_072)
    torch.testing.assert_close(frequencies(model), expected(4e6))
    assert torch.equal(angles(model)[:, 0], before[:, 0]) and not torch.allclose(angles(model)[:, 2], before[:, 2])
    use_attention(model, place(0, 1, 1))
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert torch.equal(frequencies(loaded), frequencies(model)) and torch.equal(angles(loaded), angles(model))
    assert base_and_positions(loaded) == (4e6, 131_072)
    text = loaded.config.text_config
    assert text.rope_parameters["mrope_section"] == [2, 1, 1]
    assert text._attn_implementation == "sdpa" and "longdoc" not in (tmp_path / "config.json").read_text()


def test_qwen3_keeps_what_its_checkpoint_says() -> None:
    model = tiny_model("qwen3-vl")
    before = frequencies(model)
    extend_rope(model, max_positions=262_144)
    assert base_and_positions(model) == (1e6, 262_144)
    assert torch.equal(frequencies(model), before)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_base_can_be_named_and_is_lowered_by_force_alone(family: str) -> None:
    model = tiny_model(family)
    extend_rope(model, max_positions=1000, base=8e6)
    assert base_and_positions(model) == (8e6, 32_768)  # never fewer
    with pytest.raises(ConfigError, match=r"a RoPE base of 1e\+06 is below the model's 8e\+06; say force"):
        extend_rope(model, max_positions=1000, base=1e6)
    extend_rope(model, max_positions=1000)
    assert base_and_positions(model)[0] == 8e6
    extend_rope(model, max_positions=1000, base=1e6, force=True)
    assert base_and_positions(model)[0] == 1e6
    torch.testing.assert_close(frequencies(model), expected(1e6))


def test_another_scheme_is_refused() -> None:
    model = tiny_model("qwen2.5-vl")
    model.config.text_config.rope_parameters["rope_type"] = "yarn"
    with pytest.raises(ConfigError, match="rope_type is 'yarn'"):
        extend_rope(model, max_positions=131_072)


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_are_frozen_and_thawed(family: str) -> None:
    model = tiny_model(family)

    def learning() -> set[str]:
        names = {name.removeprefix("model.") for name, p in model.named_parameters() if p.requires_grad}
        return {"merger" if "merger" in name else name.partition(".")[0] for name in names}

    undo = freeze(model, ["vision"])
    assert learning() == {"merger", "language_model", "lm_head"}
    also = freeze(model, ["merger"])
    assert learning() == {"language_model", "lm_head"}
    with pytest.raises(ConfigError, match=r"freeze: \[language\] leaves nothing to train"):
        freeze(model, ["language"])
    also()
    freeze(model, ["language"])
    assert learning() == {"merger"}
    undo()
    assert learning() == {"merger", "visual"}
    with pytest.raises(ConfigError, match="cannot freeze head; the parts are vision, merger, language"):
        freeze(model, ["head"])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_is_found_inside_a_wrapper(family: str) -> None:
    model = tiny_model(family)
    assert qwen_vl_of(torch.nn.ModuleDict({"wrapped": model})) is model
    assert family_of(model).name == family
    with pytest.raises(ConfigError, match="Linear holds no model that the plugin can train; it knows Qwen2_5_VL"):
        qwen_vl_of(torch.nn.Linear(1, 1))


def test_an_old_transformers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("qwen3-vl")
    monkeypatch.setattr(type(model.model), "forward", torch.nn.Linear.forward)
    with pytest.raises(ConfigError, match=r"has no mm_encoder_outputs; install transformers>=5.18"):
        qwen_vl_of(model)
