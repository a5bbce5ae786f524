"""Tokens are those of the model's template, patches those of its image processor, and memory is never written twice."""

from __future__ import annotations

import io
import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fakes import question
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_packing_lengths import ANY_TEXT, TEMPLATES, both_families, conversation, processor, write_tokenizer
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from corpus.errors import ConfigError, EngineError
from corpus.records import PageGrid
from corpus.vision_tokens import FAMILIES, Family
from packing.lengths import HfTokenizer, conversation_length
from trainer_plugin import collate
from trainer_plugin.collate import PatchWriter, Tokeniser
from trainer_plugin.vision import normalise

QWEN = FAMILIES["qwen2.5-vl"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def tokenizer(folder: str) -> Any:
    return PreTrainedTokenizerFast.from_pretrained(folder)


def page(grid: PageGrid, seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (grid.height // 8, grid.width // 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((grid.width, grid.height))


def file_of(image: Image.Image, image_format: str = "JPEG") -> bytes:
    out = io.BytesIO()
    image.save(out, image_format)
    return out.getvalue()


def spelled(tokenizer: Any, ids: Any) -> str:
    """The text of tokens; the tiny tokenizer has no decoder."""
    return "".join(tokenizer.convert_ids_to_tokens(ids.tolist())).replace("Ġ", " ").replace("Ċ", "\n")


# ----------------------------------------------------------------------------------------------------------- tokens


@both_families
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=st.lists(st.tuples(ANY_TEXT, ANY_TEXT), min_size=1, max_size=3), first_page=st.integers(0, 1_200))
def test_any_conversation_has_the_tokens_of_its_template(
    family: Family, turns: list[tuple[str, str]], first_page: int, tokenizer: Any, folder: str
) -> None:
    messages, grids = conversation(first_page, 2, [question(question=q, answer=a) for q, a in turns])
    whole = processor(tokenizer, family, TEMPLATES[family.name])
    text = whole.apply_chat_template(messages, tokenize=False)
    pages = [np.zeros((g.height, g.width, 3), dtype=np.uint8) for g in grids]
    expected = whole(text=[text], images=pages, return_tensors="np")["input_ids"][0]
    made = Tokeniser(whole, family).encode(messages, grids)
    assert made.input_ids.tolist() == expected.tolist()
    assert list(made.grids) == [(g.height // family.patch, g.width // family.patch) for g in grids]
    labelled = made.labels != -100
    assert torch.equal(made.labels[labelled], made.input_ids[labelled])
    assert int(labelled.sum()) == conversation_length(messages, grids, family, HfTokenizer(folder)).num_supervised
    answers = spelled(tokenizer, made.input_ids[labelled])
    assert answers.count("<|im_end|>") == len(turns)


def test_labels_are_the_answers_and_their_ends(tokenizer: Any) -> None:
    asked = [question(question="What?", answer="Twelve pumps."), question(question="assistant", answer="1,234")]
    messages, grids = conversation(3, 1, asked)
    made = Tokeniser(tokenizer, QWEN).encode([{"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
                                              *messages], grids)  # fmt: skip
    assert spelled(tokenizer, made.labels[made.labels != -100]) == "Twelve pumps.<|im_end|>1,234<|im_end|>"
    text = spelled(tokenizer, made.input_ids)
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nPage 4\n<|vision_start|>")
    assert text.count("<|im_start|>system") == 1 and text.count("<|image_pad|>") == 8 * 16


def test_the_callers_tokenizer_is_left_as_it_was(tokenizer: Any) -> None:
    before = tokenizer.backend_tokenizer.to_str()
    pickle.loads(pickle.dumps(Tokeniser(tokenizer, QWEN))).encode(*conversation(0, 1, [question()]))
    assert tokenizer.backend_tokenizer.to_str() == before
    assert tokenizer("<|im_end|>")["input_ids"] == [tokenizer.convert_tokens_to_ids("<|im_end|>")]


def test_a_name_does_not_depend_on_what_was_asked_of_the_tokenizer(folder: str) -> None:
    used = PreTrainedTokenizerFast.from_pretrained(folder)
    used.backend_tokenizer.enable_truncation(7)
    assert HfTokenizer(folder).name in Tokeniser(used, QWEN).names


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda _: SimpleNamespace(), "has no fast tokenizer; pass the model's AutoProcessor"),
        (lambda t: processor(t, FAMILIES["qwen3-vl"], TEMPLATES["qwen3-vl"]), "has patch_size = 16.*with 14"),
        (lambda t: processor(t, QWEN, TEMPLATES["qwen3-vl"]), "another conversation than that of qwen2.5-vl"),
        (lambda t: processor(t, QWEN, "{{ messages.absent.absent }}"), "chat template fails"),
    ],
)
def test_another_processor_is_refused(tokenizer: Any, made: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Tokeniser(made(tokenizer), QWEN)


# ---------------------------------------------------------------------------------------------------------- patches


@both_families
@pytest.mark.parametrize("image_format", ["JPEG", "WEBP", "PNG"])
@pytest.mark.parametrize("fast", [True, False])
def test_patches_are_those_of_the_image_processor(
    family: Family, image_format: str, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fast:
        monkeypatch.setattr(collate, "simplejpeg", None)
    grids = [PageGrid(height=family.grid * h, width=family.grid * w) for h, w in ((7, 10), (13, 6), (6, 11))]
    pages = [page(grid, seed) for seed, grid in enumerate(grids)]
    pages[1] = pages[1].convert("L")
    files = [file_of(image, image_format) for image in pages]
    stock = Qwen2VLImageProcessorPil(patch_size=family.patch, min_pixels=1, max_pixels=1 << 24)
    images = [Image.open(io.BytesIO(data)).convert("RGB") for data in files]
    expected = stock(images=images, return_tensors="pt", do_resize=False)["pixel_values"]
    pixels = PatchWriter(family)([memoryview(data) for data in files], grids)
    assert pixels.dtype == torch.uint8 and pixels.shape == (len(expected), 3 * family.patch**2)
    assert torch.equal(normalise(pixels, stock.image_mean, stock.image_std, stock.temporal_patch_size), expected)


def test_a_file_of_another_size_or_of_none_is_refused() -> None:
    grid = PageGrid(height=56, width=84)
    for data in (file_of(page(PageGrid(height=84, width=56))), file_of(page(PageGrid(height=84, width=56)), "PNG")):
        with pytest.raises(EngineError, match="is 56 x 84 pixels, its shard says 84 x 56"):
            PatchWriter(QWEN)([data], [grid])
    for data in (b"", b"\xff\xd8 no image", file_of(page(grid), "PNG")[:60]):
        with pytest.raises(EngineError, match="a page image cannot be decoded"):
            PatchWriter(QWEN)([data], [grid])


class Pages(torch.utils.data.Dataset):  # type: ignore[misc]
    """Item i is a page of colour i, and how many segments the worker has."""

    def __init__(self) -> None:
        self.writer = PatchWriter(QWEN)

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Any, int]:
        grid = PageGrid(height=28 * (1 + index % 3), width=56)
        image = Image.new("RGB", (grid.width, grid.height), (index, 0, 0))
        return self.writer([file_of(image, "PNG")], [grid]), len(self.writer._buffers._segments)


def only(batch: list[Any]) -> Any:
    return batch[0]


def test_what_a_worker_hands_over_stays_as_it_is_while_it_is_held() -> None:
    loader = DataLoader(Pages(), collate_fn=only, num_workers=1)
    held = [pixels for pixels, _ in loader]
    views = [pixels[1:, :3] for pixels in held]
    del held
    assert [view.unique().tolist() for view in views] == [[0], *([0, i] for i in range(1, 12))]
    assert all(type(view) is torch.Tensor for view in views)


def test_a_worker_writes_into_what_was_given_back() -> None:
    loader = iter(DataLoader(Pages(), collate_fn=only, num_workers=1, prefetch_factor=1))
    segments = [next(loader)[1] for _ in range(12)]  # each item is gone before the next is asked for
    assert 1 <= segments[-1] <= 5
