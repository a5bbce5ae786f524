"""Tiny random Qwen-VL models with tokenizers, made on the spot, to try training where there is no GPU.

Same classes, special tokens, chat template and patches as the real ones, but two layers of width 64 and a token for
every byte: their lengths are the upper bounds that a run without a tokenizer was planned with. What they learn means
nothing. Nothing comes from a hub.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

FAMILIES = ("qwen2.5-vl", "qwen3-vl")
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
SYSTEM = "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}"
    "{% if part.type == 'text' %}{{ part.text }}{% else %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_model(family: str) -> tuple[Any, Any]:
    """Model of a family, the same weights each time, and what the plugin needs of its processor.

    A real processor would need torchvision, for videos.
    """
    template = SYSTEM + TEMPLATE if family == "qwen2.5-vl" else TEMPLATE
    tokens = _tokenizer(template)
    ids = {name: tokens.convert_tokens_to_ids(name) for name in SPECIAL}
    special = {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }
    text: dict[str, Any] = {
        "vocab_size": len(tokens),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 32_768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    vision: dict[str, Any] = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 64,
    }
    torch.manual_seed(0)
    if family == "qwen2.5-vl":
        config: Any = Qwen2_5_VLConfig(
            text_config=text,
            vision_config=vision | {"fullatt_block_indexes": [1]},
            tie_word_embeddings=False,
            **special,
        )
        model = Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=torch.float32)
    else:
        text["rope_parameters"]["mrope_interleaved"] = True
        vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 256}
        config = Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False, **special)
        model = Qwen3VLForConditionalGeneration._from_config(config, dtype=torch.float32)
    images = SimpleNamespace(image_mean=[0.5] * 3, image_std=[0.5] * 3, patch_size=config.vision_config.patch_size)
    return model, SimpleNamespace(tokenizer=tokens, image_processor=images)


def _tokenizer(template: str) -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(list(SPECIAL))
    tokens = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokens.chat_template = template
    return tokens
