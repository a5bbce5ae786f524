"""What the plugin touches of a transformers model, found and checked in one place.

Qwen2.5-VL and Qwen3-VL stay as transformers ships them: their `forward` is replaced on the instance, hooks are added,
an attention function is chosen by name. Each of these returns an `Undo`, after which the model computes bit for bit
what it computed before. The alternative, model classes of our own, would have to follow every release.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any

import transformers
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen3VLForConditionalGeneration

from corpus.errors import ConfigError
from corpus.records import MODEL_PARTS
from corpus.vision_tokens import FAMILIES, Family

Undo = Callable[[], None]
Forward = Callable[..., Any]

CLASSES: dict[Any, str] = {
    Qwen2_5_VLForConditionalGeneration: "qwen2.5-vl",
    Qwen3VLForConditionalGeneration: "qwen3-vl",
}


def qwen_vl_of(model: Any) -> Any:
    """The `Qwen...ForConditionalGeneration` inside a model, which PEFT, DDP or FSDP may have wrapped.

    Raises:
        ConfigError: there is none, or this transformers cannot take image features that were computed elsewhere.
    """
    found: list[Any] = [m for m in model.modules() if isinstance(m, tuple(CLASSES))]
    if not found:
        known = ", ".join(c.__name__ for c in CLASSES)
        raise ConfigError(f"{type(model).__name__} holds no model that the plugin can train; it knows {known}")
    if "mm_encoder_outputs" not in inspect.signature(type(found[0].model).forward).parameters:
        raise ConfigError(
            f"transformers {transformers.__version__} has no mm_encoder_outputs; install transformers>=5.18"
        )
    return found[0]


def family_of(core: Any) -> Family:
    """The model's family, under the name that the corpus knows it by."""
    return next(FAMILIES[name] for known, name in CLASSES.items() if isinstance(core, known))


def freeze(model: Any, parts: Sequence[str]) -> Undo:
    """Exclude parts from training: "vision" (the tower), "merger" (deepstack mergers too), "language" (head too).

    Call it before DDP or an optimizer sees the parameters.

    Raises:
        ConfigError: a part that does not exist, or nothing left to train.
    """
    core = qwen_vl_of(model)
    if unknown := set(parts) - set(MODEL_PARTS):
        raise ConfigError(f"cannot freeze {', '.join(sorted(unknown))}; the parts are {', '.join(MODEL_PARTS)}")

    def part_of(name: str) -> str:
        return "language" if "visual." not in name else "merger" if "merger" in name else "vision"

    trained = [(name, parameter) for name, parameter in core.named_parameters() if parameter.requires_grad]
    frozen = [parameter for name, parameter in trained if part_of(name) in parts]
    if len(frozen) == len(trained):
        raise ConfigError(f"freeze: [{', '.join(parts)}] leaves nothing to train; name fewer parts")
    for parameter in frozen:
        parameter.requires_grad_(False)

    def undo() -> None:
        for parameter in frozen:
            parameter.requires_grad_(True)

    return undo


def set_attribute(thing: Any, name: str, value: Any) -> Undo:
    """Set an attribute of an instance; undoing it leaves what the instance had, or what its class has.

    What somebody else has set since stays.
    """
    had, before = name in thing.__dict__, thing.__dict__.get(name)
    setattr(thing, name, value)

    def undo() -> None:
        if thing.__dict__.get(name) is not value:
            return
        if had:
            setattr(thing, name, before)
        else:
            delattr(thing, name)

    return undo


def replace_forward(module: Any, replacement: Forward) -> Undo:
    """Let one module compute `replacement(module, stock, *args, **kwargs)`, where `stock` is what it computed before.

    Its `__call__`, hooks and signature stay. Others (accelerate's autocast) may wrap the new forward later, and unwrap
    it by binding it to the module again, so it is a method; undoing it under such a wrapper makes it pass everything
    to `stock`. A deep copy of the module computes with its own weights.
    """
    original = module.forward
    active = True

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        stock = MethodType(original.__func__, self) if hasattr(original, "__func__") else original
        return replacement(self, stock, *args, **kwargs) if active else stock(*args, **kwargs)

    signature = inspect.signature(original)
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    forward.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[itself, *signature.parameters.values()]
    )
    restore = set_attribute(module, "forward", MethodType(forward, module))

    def undo() -> None:
        nonlocal active
        active = False
        restore()

    return undo
