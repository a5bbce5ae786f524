"""Samples to what one rank's model receives: messages to tokens and labels, page files to patches.

The chat template is spelled out piece by piece, as `packing.lengths` counts it, because special tokens part a text and
labels must know where an answer begins; the processor's own template is rendered once, on a short conversation, and
must give the same tokens. Lengths are held against the plan's at every sample.

A page is decoded into a buffer that the process keeps, and copied once, in runs of a patch's width, to its place in
the row's pixels (`trainer_plugin.buffers`); colours stay innermost, because parting them here takes as long as
decoding, and the device does it for nothing. simplejpeg, where it is installed, decodes to the same bits as Pillow in
less time; both carry libjpeg-turbo.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from corpus.errors import ConfigError, EngineError
from corpus.messages import Message
from corpus.records import PageGrid, content_id
from corpus.vision_tokens import Family, num_image_tokens, num_patches
from trainer_plugin.batch import RowSample
from trainer_plugin.buffers import Buffers
from trainer_plugin.loss import IGNORED

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

Pixels = npt.NDArray[np.uint8]

COLOURS = 3
JPEG = b"\xff\xd8"
_SPECIAL = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
_OPENING = "assistant\n"
_PROBE: tuple[Message, ...] = (
    {"role": "user", "content": [{"type": "text", "text": "A\n"}, {"type": "image"}, {"type": "text", "text": "\nA?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "B 1."}]},
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "C?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "D"}]},
)


class Tokeniser:
    """Conversations to tokens and labels, as the model's processor makes them. Picklable."""

    def __init__(self, processor: Any, family: Family) -> None:
        """Take the tokenizer of a processor, or a tokenizer itself.

        Raises:
            ConfigError: it is no fast tokenizer, lacks a special token of the family, cuts pages otherwise, or its
                chat template makes another conversation.
        """
        tokenizer = getattr(processor, "tokenizer", processor)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ConfigError(f"{type(processor).__name__} has no fast tokenizer; pass the model's AutoProcessor")
        self.family = family
        self._text = copy.deepcopy(backend)  # the caller's own keeps its settings
        self.names = {"tokenizer-" + content_id(self._text.to_str())}
        self._text.no_truncation()
        self._text.no_padding()
        self.names.add("tokenizer-" + content_id(self._text.to_str()))
        ids = [self._text.token_to_id(token) for token in _SPECIAL]
        if None in ids:
            raise ConfigError(f"the tokenizer has no {_SPECIAL[ids.index(None)]}; pass the processor of {family.name}")
        self._start, self._end, self._image_start, self._image_end, self.image_token_id = ids
        self.pad_token_id: int = self._end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        _check_patches(processor, family)
        self._check_template(processor, tokenizer)
        self._text.encode_special_tokens = True  # a text that spells a special token is letters

    def encode(self, messages: Sequence[Message], grids: Sequence[PageGrid]) -> RowSample:
        """Tokens of a conversation, labels on its answers and their end tokens."""
        sizes = [num_image_tokens(grid, self.family) for grid in grids]
        ids, supervised = self._encode(messages, sizes)
        input_ids = torch.from_numpy(ids)
        patch = self.family.patch
        return RowSample(
            input_ids=input_ids,
            labels=torch.where(torch.from_numpy(supervised), input_ids, IGNORED),
            grids=tuple((g.height // patch, g.width // patch) for g in grids),
        )

    def _encode(
        self, messages: Sequence[Message], sizes: Sequence[int]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Token ids, and which of them are supervised; `sizes` are the tokens of each image."""
        pieces: list[tuple[list[int] | npt.NDArray[np.int64], int]] = []  # and how many are supervised, from its end
        images = iter(sizes)
        turns = list(messages)
        if self.family.default_system and turns[0]["role"] != "system":
            turns.insert(0, {"role": "system", "content": [{"type": "text", "text": self.family.default_system}]})
        opening, line_end = self._ids(_OPENING), self._ids("\n")
        for turn in turns:
            text = turn["role"] + "\n"
            pieces.append(([self._start], 0))
            for part in turn["content"]:
                if part["type"] == "image":
                    image = np.full(next(images), self.image_token_id)
                    pieces += [([*self._ids(text), self._image_start], 0), (image, 0), ([self._image_end], 0)]
                    text = ""
                else:
                    text += part["text"]
            last = self._ids(text)
            answer = 0
            if turn["role"] == "assistant":
                answer = len(last) - len(opening) * text.startswith(_OPENING) + 1
            pieces += [([*last, self._end], answer), (line_end, 0)]
        ids = np.concatenate([np.asarray(piece, dtype=np.int64) for piece, _ in pieces])
        supervised = np.zeros(len(ids), dtype=np.bool_)
        ends = np.cumsum([len(piece) for piece, _ in pieces])
        for end, (_, answer) in zip(ends.tolist(), pieces, strict=True):
            supervised[end - answer : end] = True
        return ids, supervised

    def _ids(self, text: str) -> list[int]:
        found: list[int] = self._text.encode(text, add_special_tokens=False).ids if text else []
        return found

    def _check_template(self, processor: Any, tokenizer: Any) -> None:
        """A tokenizer whose template is missing or knows no images is taken at its word."""
        source = processor if getattr(processor, "chat_template", None) else tokenizer
        if not source.chat_template:
            return
        try:
            text = source.apply_chat_template(list(_PROBE), tokenize=False)
        except Exception as e:  # of a template, whatever it raises
            if source is tokenizer:
                return
            raise ConfigError(f"the processor's chat template fails: {(str(e).splitlines() or ['?'])[0]}") from None
        if self._ids(text) != self._encode(_PROBE, [1, 1])[0].tolist():
            raise ConfigError(
                f"the processor's chat template makes another conversation than that of {self.family.name}: "
                f"{text[:120]!r}; pass the processor of the model that the run was built for"
            )


def _check_patches(processor: Any, family: Family) -> None:
    images = getattr(processor, "image_processor", None)
    for name, wanted in (("patch_size", family.patch), ("merge_size", family.merge)):
        found = getattr(images, name, wanted)
        if found != wanted:
            raise ConfigError(
                f"the image processor has {name} = {found}, the run was built for {family.name} with {wanted}; pass "
                "the processor of that model, or build the run with `model` set to this one's family"
            )


def check_identity(planned: Mapping[str, Any], found: Mapping[str, Any], tokenizer_names: set[str]) -> None:
    """Refuse a plan whose lengths were counted otherwise than this trainer will make them.

    Args:
        planned: `made_with.identity` of the plan: model, tokenizer, messages, dpi. What it lacks is not compared.
        found: the same of the run and its trainer, but for the tokenizer.
        tokenizer_names: of the trainer's tokenizer, any of which will do.

    Raises:
        ConfigError: they differ; the setting and both values are named.
    """
    for name, value in found.items():
        if planned.get(name, value) != value:
            raise ConfigError(
                f"the plan was made for {name} = {planned[name]!r}, here it is {value!r}; plan again with "
                "`corpus build`"
            )
    counted = planned.get("tokenizer")
    if counted is not None and counted not in {*tokenizer_names, "utf8-bound"}:
        raise ConfigError(
            f"the plan was counted by {counted}, the processor has {min(tokenizer_names)}; pass the processor of the "
            "model that `tokenizer` names in the build's config, or name this one there and run `corpus build` again"
        )


class PatchWriter:
    """Page files to patches. It keeps one decoded page, so that pages are not taken from the system anew each time."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._page: Pixels = np.empty(0, dtype=np.uint8)
        self._buffers = Buffers()

    def __call__(self, files: Sequence[bytes | memoryview], grids: Sequence[PageGrid]) -> Any:
        """Decode images of these sizes.

        Returns:
            `[P, p * p * C]` uint8: patches in the order of the image processor, colours innermost.

        Raises:
            EngineError: a file that is no image of its size.
        """
        counts = [num_patches(grid, self._family) for grid in grids]
        pixels = self._buffers.empty(sum(counts), self._family.patch**2 * COLOURS)
        out, places = pixels.numpy(), np.cumsum([0, *counts])
        for data, grid, begin, end in zip(files, grids, places, places[1:], strict=False):
            write_patches(self._decode(data, grid), self._family, out[begin:end])
        return pixels

    def _decode(self, data: bytes | memoryview, grid: PageGrid) -> Pixels:
        """`[H, W, C]`, valid until the next call."""
        size = grid.height * grid.width * COLOURS
        if len(self._page) < size:
            self._page = np.empty(size, dtype=np.uint8)
        try:
            if simplejpeg is not None and data[:2] == JPEG:
                found = simplejpeg.decode_jpeg_header(data)[:2]
                if found == (grid.height, grid.width):
                    decoded: Pixels = simplejpeg.decode_jpeg(data, "RGB", buffer=self._page[:size])
                    return decoded
            else:
                image = Image.open(io.BytesIO(data))
                found = (image.height, image.width)
                if found == (grid.height, grid.width):
                    return np.asarray(image.convert("RGB"))
        except MemoryError:
            raise
        except Exception as e:  # decoders raise what they like
            reason = (str(e).splitlines() or [type(e).__name__])[0]
            raise EngineError(f"a page image cannot be decoded: {reason}; run the same `corpus build` again") from None
        raise EngineError(
            f"a page image is {found[1]} x {found[0]} pixels, its shard says {grid.width} x {grid.height}; "
            "run the same `corpus build` again"
        )


def write_patches(image: Pixels, family: Family, out: Pixels) -> None:
    """Cut an image into patches, blocks of `merge` x `merge` of them together.

    Args:
        image: `[H, W, C]`, on the family's grid. `out`: `[P, p * p * C]`.
    """
    merge, patch = family.merge, family.patch
    rows, columns = image.shape[0] // family.grid, image.shape[1] // family.grid
    run = np.dtype((np.void, patch * COLOURS))  # one line of a patch, moved at once
    lines = np.ascontiguousarray(image).reshape(image.shape[0], -1).view(run)
    blocks = lines.reshape(rows, merge, patch, columns, merge).transpose(0, 3, 1, 4, 2)
    out.view(run).reshape(blocks.shape)[...] = blocks
