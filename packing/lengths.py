"""Exact token counts of a sample: what the model's chat template and image processor give.

Image tokens are exact by arithmetic. Text is counted by the model's own tokenizer where one is given; without one,
by its UTF-8 bytes, an upper bound for any byte-level BPE, so that a row never overflows; such lengths are marked.
Special tokens cut the text into pieces that are tokenised on their own, so the length of a conversation is the sum
over its pieces. This spells the chat template out instead of rendering it, because windows are cut by the tokens that
one more page adds; `check_template` compares the two before a build begins.
"""

from __future__ import annotations

import functools
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from corpus.config import MessageSettings
from corpus.errors import ConfigError
from corpus.messages import Message, build_messages, page_label
from corpus.records import PageGrid, Question, Window, content_id
from corpus.vision_tokens import Family, num_image_tokens, num_patches

IMAGE_FRAME_TOKENS = 2  # <|vision_start|> and <|vision_end|>
HUB_TIMEOUT_S = 10.0


class TextCounter(Protocol):
    """Counts the tokens of a text without special tokens."""

    name: str  # changes whenever the counts may; part of the identity of windows and plan
    exact: bool

    def count(self, text: str) -> int:
        """Tokens of `text`."""
        ...


class Utf8Bound:
    """An upper bound: a byte-level BPE never makes more tokens than there are bytes."""

    name = "utf8-bound"
    exact = False

    def count(self, text: str) -> int:
        """UTF-8 bytes of `text`, in NFC where that is longer: tokenizers normalise, and NFC splits some letters."""
        return max(len(form.encode("utf-8", "replace")) for form in (text, unicodedata.normalize("NFC", text)))


class HfTokenizer:
    """The tokenizer of a model, from a folder or its hub name."""

    exact = True

    def __init__(self, name: str) -> None:
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # no torch is no news to who only counts
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # the hub is asked for a tokenizer, and told nothing
        try:
            from transformers import AutoTokenizer
        except ImportError:
            raise ConfigError("tokenizer needs transformers; pip install transformers") from None
        self.source = name
        here = os.path.isdir(name)
        if os.path.sep in name and not here and (os.path.isabs(name) or name.startswith(".")):
            raise ConfigError(
                f"tokenizer {name!r} is not a folder; name a folder with a tokenizer, or a model of the hub"
            )
        absent = "" if here else _hub_absent()
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(name, local_files_only=here or bool(absent))
            self.name = "tokenizer-" + content_id(self._tokenizer.backend_tokenizer.to_str())
        except Exception as e:  # a damaged tokenizer raises whatever its parser does
            if absent:
                raise ConfigError(
                    f"tokenizer {name!r} is no folder and not in the cache of the hub, and {absent}; "
                    "name a folder with a tokenizer, or let the hub be asked"
                ) from None
            first = (str(e).splitlines() or ["?"])[0]
            raise ConfigError(f"tokenizer {name!r} cannot be loaded: {first}") from None

    def count(self, text: str) -> int:
        """Tokens of `text`, which is treated as plain text even where it looks like a special token."""
        return len(self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def template_length(self, messages: Sequence[Message]) -> int | None:
        """Tokens of a conversation under the tokenizer's own chat template, each image as one; None without a template.

        Raises:
            Exception: whatever a template raises that does not know images.
        """
        if not self._tokenizer.chat_template:
            return None
        text = self._tokenizer.apply_chat_template(messages, tokenize=False)
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def _hub_absent() -> str:
    """Why the hub is out of reach, or ''. Asked once, because its client repeats every request for a minute."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE forbids to ask the hub"
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT_S)
    except Exception as e:  # of the HTTP library, whichever it is
        return f"the hub at {constants.ENDPOINT} cannot be reached ({(str(e).splitlines() or ['?'])[0]})"
    return ""


@functools.cache
def load_counter(tokenizer: str | None) -> TextCounter:
    """The counter for the config's `tokenizer`.

    Raises:
        ConfigError: the tokenizer cannot be loaded.
    """
    return Utf8Bound() if tokenizer is None else HfTokenizer(tokenizer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """Tokens of a conversation, and what its images cost."""

    num_tokens: int
    num_patches: int
    num_supervised: int  # tokens of the answers and their end tokens
    patch_pairs: int  # sum over the images of their squared patches


def conversation_length(
    messages: Sequence[Message], grids: Sequence[PageGrid], family: Family, counter: TextCounter
) -> Length:
    """Length of a whole conversation under the chat template of the Qwen-VL families.

    Every turn is `<|im_start|>role\\n ... <|im_end|>\\n`; an image is `<|vision_start|>`, its tokens,
    `<|vision_end|>`; a family may put a default system turn first.
    """
    total = supervised = 0
    images = iter(grids)
    turns = list(messages)
    if family.default_system and (not turns or turns[0]["role"] != "system"):
        turns.insert(0, {"role": "system", "content": family.default_system})
    for turn in turns:
        content = turn["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        total += 2  # <|im_start|>, <|im_end|>
        total += counter.count("\n")  # after <|im_end|>
        text = turn["role"] + "\n"
        for part in parts:
            if part["type"] == "image":
                total += counter.count(text) if text else 0
                total += IMAGE_FRAME_TOKENS + num_image_tokens(next(images), family)
                text = ""
            else:
                text += part["text"]
        total += counter.count(text) if text else 0
        if turn["role"] == "assistant":
            answer = text.removeprefix("assistant\n")
            supervised += counter.count(answer) + 1  # and <|im_end|>
    patches = [num_patches(g, family) for g in grids]
    return Length(
        num_tokens=total,
        num_patches=sum(patches),
        num_supervised=supervised,
        patch_pairs=sum(n * n for n in patches),
    )


_PROBE = (
    {"role": "user", "content": [{"type": "text", "text": "A\n"}, {"type": "image"}, {"type": "text", "text": "\nA?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "B"}]},
    {"role": "user", "content": [{"type": "text", "text": "C?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "D"}]},
)


def check_template(counter: TextCounter, family: Family) -> None:
    """Refuse a tokenizer whose chat template counts otherwise than `conversation_length`: that of another family, or
    of a model that thinks aloud.

    A tokenizer without a template, or with one that knows no images, is taken at its word.

    Raises:
        ConfigError: a short conversation has another length under its template.
    """
    if not isinstance(counter, HfTokenizer):
        return
    try:
        theirs = counter.template_length(_PROBE)
    except Exception:  # the template of a text model; the processor's own stands in a file that tokenizers do not read
        return
    ours = conversation_length(_PROBE, [PageGrid(height=family.grid, width=family.grid)], family, counter).num_tokens
    if theirs is not None and theirs != ours:
        raise ConfigError(
            f"tokenizer {counter.source!r}: its chat template makes {theirs} tokens of a short conversation, that of "
            f"{family.name} {ours}; name the tokenizer of the model that will be trained, or set `model` to its family"
        )


def turn_tokens(question: Question, settings: MessageSettings, family: Family, counter: TextCounter) -> int:
    """What a question and its answer add to a conversation as further turns.

    Exact, whatever stands before: special tokens cut a text, and what they part is tokenised on its own.
    """
    nowhere = Window(doc_id=question.doc_id, index=0, first_page=0, num_pages=0)
    once, twice = (
        conversation_length(build_messages(nowhere, [question] * n, settings), [], family, counter).num_tokens
        for n in (1, 2)
    )
    return twice - once


def page_tokens(page: int, grid: PageGrid, family: Family, counter: TextCounter, page_labels: bool) -> int:
    """What one more page adds to a conversation: its label, its image and the frame around it."""
    label = counter.count(page_label(page, first=False)) if page_labels else 0
    return label + IMAGE_FRAME_TOKENS + num_image_tokens(grid, family)
