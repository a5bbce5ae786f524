"""The count of a conversation is the count of the model's own chat template, to the token."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import question
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLProcessor, Qwen3VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.video_processing_utils import BaseVideoProcessor

from corpus.chat_files import parse_line
from corpus.config import MessageSettings, load_config
from corpus.errors import ConfigError
from corpus.messages import Message, build_messages
from corpus.records import PageGrid, Question, Window
from corpus.vision_tokens import FAMILIES, Family, num_image_tokens, snap
from packing.cost import dims_of
from packing.lengths import (
    HfTokenizer,
    Utf8Bound,
    check_template,
    conversation_length,
    load_counter,
    page_tokens,
    turn_tokens,
)

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TRAINING_TEXT = [
    "system user assistant You are a helpful assistant. Page 1\n\nPage 2\n What is the answer of the page?"
]
TURNS = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
)
DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
)
TEMPLATES = {"qwen2.5-vl": DEFAULT_SYSTEM + TURNS, "qwen3-vl": TURNS}
PROCESSORS = {"qwen2.5-vl": Qwen2_5_VLProcessor, "qwen3-vl": Qwen3VLProcessor}

both_families = pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda f: f.name)
ANY_TEXT = st.text(
    st.one_of(
        st.characters(codec="utf-8"), st.sampled_from("<|im_end>Page 12\n .,'é\u0958\ufb2a\u00a0"), st.just("\u0301")
    ),
    max_size=30,
)


def write_tokenizer(folder: Path) -> str:
    """A tiny byte-level BPE that normalises and splits text as Qwen's does."""
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=SPECIAL,
        show_progress=False,
    )
    bpe.train_from_iterator(TRAINING_TEXT * 9, trainer)
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tokenizer(tmp_path_factory.mktemp("tiny-tokenizer"))


@pytest.fixture(scope="module")
def counter(folder: str) -> HfTokenizer:
    return HfTokenizer(folder)


@pytest.fixture(scope="module")
def tokenizer(folder: str) -> Any:
    return PreTrainedTokenizerFast.from_pretrained(folder)


def conversation(
    first_page: int, num_pages: int, questions: Sequence[Question], **options: Any
) -> tuple[list[Message], list[PageGrid]]:
    window = Window(doc_id="d", index=0, first_page=first_page, num_pages=num_pages)
    grids = [PageGrid(height=224 * (1 + i % 2), width=448) for i in range(num_pages)]  # on the grid of both families
    return build_messages(window, questions, MessageSettings(**options)), grids


def model_input(tokenizer: Any, messages: list[Message], grids: list[PageGrid], family: Family) -> list[str]:
    """Tokens as the model's processor makes them: template, tokenizer, image pads multiplied."""
    text = tokenizer.apply_chat_template(messages, chat_template=TEMPLATES[family.name], tokenize=False)
    images = iter(grids)
    tokens: list[str] = []
    for token in tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False)["input_ids"]):
        tokens += [token] * (num_image_tokens(next(images), family) if token == "<|image_pad|>" else 1)
    assert next(images, None) is None
    return tokens


def num_supervised(tokens: list[str], tokenizer: Any) -> int:
    """Tokens from after "assistant" and its line end to the end of the turn, of every turn."""
    opening = tokenizer.tokenize("assistant\n")
    count = 0
    for i, token in enumerate(tokens):
        begin = i + 1 + len(opening)
        if token == "<|im_start|>" and tokens[i + 1 : begin] == opening:
            count += tokens.index("<|im_end|>", begin) + 1 - begin
    return count


class NoVideos(BaseVideoProcessor):
    """Processors want one; the real ones need torchvision, and no test has a video."""


def processor(tokenizer: Any, family: Family, template: str) -> Any:
    """The family's own processor, as its published settings make it."""
    images = Qwen2VLImageProcessorPil(
        patch_size=family.patch,
        merge_size=family.merge,
        size={"shortest_edge": family.min_pixels, "longest_edge": family.max_pixels},
    )
    kind = PROCESSORS.get(family.name, Qwen3VLProcessor)
    unchecked = {"check_argument_for_proper_class": lambda *_: None}  # the check imports torchvision
    made = type(kind.__name__, (kind,), unchecked)
    return made(image_processor=images, tokenizer=tokenizer, video_processor=NoVideos(), chat_template=template)


def agrees_with_processor(
    tokenizer: Any,
    counter: HfTokenizer,
    family: Family,
    template: str,
    sizes: Sequence[tuple[int, int]],
    asked: Sequence[Question],
    first_page: int,
    page_labels: bool,
) -> None:
    """Count a conversation about pages of these natural sizes; the processor reads the same pages."""
    window = Window(doc_id="d", index=0, first_page=first_page, num_pages=len(sizes))
    grids = [snap(*size, family) for size in sizes]
    pages = [np.zeros((g.height, g.width, 3), dtype=np.uint8) for g in grids]
    settings = MessageSettings(page_labels=page_labels)
    whole = processor(tokenizer, family, template)
    text = whole.apply_chat_template(build_messages(window, asked, settings), tokenize=False)
    made = whole(text=[text], images=pages, return_tensors="np")
    length = conversation_length(build_messages(window, asked, settings), grids, family, counter)
    tokens = tokenizer.convert_ids_to_tokens(made["input_ids"][0])
    bound = conversation_length(build_messages(window, asked, settings), grids, family, Utf8Bound())
    assert bound.num_tokens >= length.num_tokens == len(tokens)
    assert bound.num_supervised >= length.num_supervised
    assert length.num_supervised == num_supervised(tokens, tokenizer)
    assert length.num_patches == len(made["pixel_values"])
    assert made["image_grid_thw"].tolist() == [[1, g.height // family.patch, g.width // family.patch] for g in grids]
    assert length.patch_pairs == sum(int(h * w) ** 2 for _, h, w in made["image_grid_thw"])


TURNS_OF_TEXT = st.lists(
    st.tuples(ANY_TEXT, st.one_of(st.just(""), ANY_TEXT, st.just("<|im_end|>\n<|im_start|>user\n"))),
    min_size=1,
    max_size=4,
)
SMALL_SIDES = st.integers(1, 700)


@both_families
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    turns=TURNS_OF_TEXT,
    sizes=st.lists(st.tuples(SMALL_SIDES, SMALL_SIDES).filter(lambda s: max(s) < 150 * min(s)), max_size=3),
    first_page=st.integers(0, 2_000),
    page_labels=st.booleans(),
)
def test_a_conversation_has_the_length_that_the_models_processor_gives(
    family: Family,
    turns: list[tuple[str, str]],
    sizes: list[tuple[int, int]],
    first_page: int,
    page_labels: bool,
    counter: HfTokenizer,
    tokenizer: Any,
) -> None:
    asked = [question(question=q, answer=a) for q, a in turns]
    sizes = [*sizes, (60, 90)]  # the processor refuses a conversation without images beside a list of none
    template = TEMPLATES[family.name]
    agrees_with_processor(tokenizer, counter, family, template, sizes, asked, first_page, page_labels)


def test_a_new_family_is_one_entry(counter: HfTokenizer, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    family = Family(
        name="qwen9-vl",
        model_type="qwen9_vl",
        patch=18,
        merge=3,
        min_pixels=50_000,
        max_pixels=300_000,
        default_system="Be brief.",
    )
    monkeypatch.setitem(FAMILIES, family.name, family)
    system = "{{ '<|im_start|>system\nBe brief.<|im_end|>\n' }}"
    asked = [question(question="What?", answer="That."), question(question="When?", answer="")]
    sizes = [(1584, 1224), (30, 40), (700, 90)]
    agrees_with_processor(tokenizer, counter, family, system + TURNS, sizes, asked, 11, page_labels=True)
    assert load_config(None, ("model=qwen9-vl",)).model == "qwen9-vl"
    with pytest.raises(ConfigError, match=r"no model sizes for family 'qwen9-vl'.*packing.cost.model"):
        dims_of(family.name)


@both_families
@pytest.mark.parametrize("page_labels", [True, False])
@pytest.mark.parametrize("num_questions", [1, 3])
def test_a_conversation_has_the_length_of_its_chat_template(
    family: Family, page_labels: bool, num_questions: int, counter: HfTokenizer, tokenizer: Any
) -> None:
    answers = ['["Oslo", "Bergen"]', "1,234.5", "On page 12."]
    asked = [
        question(question=f"What is the answer, number {i}?", answer=a, answer_format="List" if i == 0 else "String")
        for i, a in enumerate(answers[:num_questions])
    ]
    messages, grids = conversation(97, 5, asked, page_labels=page_labels)
    tokens = model_input(tokenizer, messages, grids, family)
    length = conversation_length(messages, grids, family, counter)
    assert length.num_tokens == len(tokens)
    assert length.num_supervised == num_supervised(tokens, tokenizer)
    assert length.num_patches == 4 * tokens.count("<|image_pad|>")
    assert tokens.count("<|im_start|>") == 2 * num_questions + (family.name == "qwen2.5-vl")


@both_families
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=ANY_TEXT, answer=ANY_TEXT, first_page=st.integers(0, 1_200))
def test_any_words_are_counted_exactly_and_the_bound_holds(
    family: Family, asked: str, answer: str, first_page: int, counter: HfTokenizer, tokenizer: Any
) -> None:
    messages, grids = conversation(first_page, 2, [question(question=asked, answer=answer)])
    tokens = model_input(tokenizer, messages, grids, family)
    exact = conversation_length(messages, grids, family, counter)
    assert (exact.num_tokens, exact.num_supervised) == (len(tokens), num_supervised(tokens, tokenizer))
    bound = conversation_length(messages, grids, family, Utf8Bound())
    assert bound.num_tokens >= exact.num_tokens
    assert bound.num_supervised >= exact.num_supervised
    assert bound.num_patches == exact.num_patches


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ANY_TEXT)
def test_a_tokenizer_never_makes_more_tokens_than_the_bound(counter: HfTokenizer, text: str) -> None:
    assert counter.count(text) <= Utf8Bound().count(text)


@pytest.mark.parametrize("letter", ["\u0958", "\u09df", "\ufb2a", "\U0001d160"])
def test_letters_that_normalisation_splits_stay_within_the_bound(counter: HfTokenizer, letter: str) -> None:
    assert len(unicodedata.normalize("NFC", letter).encode()) > len(letter.encode())
    assert len(letter.encode()) < counter.count(letter) <= Utf8Bound().count(letter)


def test_a_special_token_in_a_text_is_counted_as_its_letters(counter: HfTokenizer) -> None:
    assert counter.count("<|im_end|>") > 1


@both_families
def test_one_more_page_adds_its_label_its_image_and_its_frame(family: Family, counter: HfTokenizer) -> None:
    for labels in (True, False):
        lengths = []
        for num_pages in (1, 2):
            messages, grids = conversation(8, num_pages, [question()], page_labels=labels)
            lengths.append(conversation_length(messages, grids, family, counter).num_tokens)
        added = page_tokens(9, PageGrid(height=448, width=448), family, counter, labels)
        assert lengths[1] - lengths[0] == added


def test_a_given_system_turn_replaces_the_default_one(counter: HfTokenizer) -> None:
    messages, grids = conversation(0, 1, [question()])
    family = FAMILIES["qwen2.5-vl"]
    own = [{"role": "system", "content": "You are a helpful assistant."}, *messages]
    assert conversation_length(own, grids, family, counter) == conversation_length(messages, grids, family, counter)


@both_families
def test_a_conversation_of_the_users_has_the_length_of_its_chat_template(
    family: Family, counter: HfTokenizer, tokenizer: Any
) -> None:
    turns = [
        {"role": "system", "content": "Be brief. "},
        {"role": "user", "content": "<image>\nWhich <image> colour?<|im_end|>"},
        {"role": "assistant", "content": " Red <|im_start|>assistant\n."},
        {"role": "user", "content": [{"type": "text", "text": "And "}, {"type": "text", "text": "now?"}]},
        {"role": "assistant", "content": "12 1,234.5\n\n"},
    ]
    grids = [PageGrid(height=224, width=448), PageGrid(height=448, width=448)]
    for given_turns in (turns, turns[1:]):
        record = {"messages": given_turns, "images": ["a.png", "b.png"]}
        messages = parse_line(json.dumps(record).encode()).messages
        tokens = model_input(tokenizer, messages, grids, family)
        length = conversation_length(messages, grids, family, counter)
        assert length.num_tokens == len(tokens)
        assert length.num_supervised == num_supervised(tokens, tokenizer)
        assert tokens.count("<|im_end|>") == 4 + (family.name == "qwen2.5-vl" or len(given_turns) == 5)


def test_without_a_tokenizer_lengths_are_marked_as_a_bound(folder: str) -> None:
    assert (load_counter(None).exact, load_counter(None).name) == (False, "utf8-bound")
    assert load_counter(folder).exact and load_counter(folder).name.startswith("tokenizer-")
    assert Utf8Bound().count("aé數\ud800") == 1 + 2 + 3 + 1


@pytest.mark.parametrize(("name", "says"), [("nothing", "is not a folder"), ("", "cannot be loaded")])
def test_a_tokenizer_that_is_not_there_is_refused_in_one_line(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as e:
        load_counter(str(tmp_path / name))
    assert repr(str(tmp_path / name)) in str(e.value)
    assert len(str(e.value).splitlines()) == 1


def with_template(folder: str, tmp_path: Path, template: str) -> HfTokenizer:
    own = PreTrainedTokenizerFast.from_pretrained(folder)
    own.chat_template = template
    own.save_pretrained(tmp_path)
    return HfTokenizer(str(tmp_path))


THINKING = TURNS.replace(
    "message.role + '\n' }}", "message.role + '\n' + ('<think>' if message.role != 'user' else '') }}"
)


@both_families
def test_the_template_of_another_model_is_refused(family: Family, folder: str, tmp_path: Path) -> None:
    other = next(t for name, t in TEMPLATES.items() if name != family.name)
    check_template(with_template(folder, tmp_path / "own", TEMPLATES[family.name]), family)
    for name, template in (("other", other), ("thinking", THINKING)):
        with pytest.raises(
            ConfigError, match=rf"its chat template makes \d+ tokens .* that of {family.name} \d+;"
        ) as e:
            check_template(with_template(folder, tmp_path / name, template), family)
        assert repr(str(tmp_path / name)) in str(e.value)
        assert len(str(e.value).splitlines()) == 1


@both_families
def test_a_tokenizer_without_a_template_for_images_is_taken_at_its_word(
    family: Family, folder: str, counter: HfTokenizer, tmp_path: Path
) -> None:
    assert counter.template_length([]) is None
    for check in (Utf8Bound(), counter, with_template(folder, tmp_path, "{{ 'a' + messages[0].content }}")):
        check_template(check, family)


LOAD = "from packing.lengths import load_counter; load_counter({name!r})"


def test_a_hub_out_of_reach_is_asked_once() -> None:
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                asked.append(connection.recv(200))
                connection.close()

        thread = threading.Thread(target=refuse, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address, "HF_HOME": "/nonexistent"}
        done = subprocess.run(
            [sys.executable, "-c", LOAD.format(name="some/model")],
            env=environment, cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)
    last = done.stderr.splitlines()[-1]
    assert "tokenizer 'some/model' is no folder and not in the cache of the hub, and the hub at " + address in last
    assert last.endswith("name a folder with a tokenizer, or let the hub be asked")
    assert len(asked) == 1, asked
    assert asked[0].startswith(b"HEAD / ")


@both_families
@pytest.mark.parametrize("exact", [True, False])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.tuples(ANY_TEXT, ANY_TEXT), min_size=2, max_size=5), pages=st.integers(1, 3))
def test_a_further_question_adds_its_turn_exactly(
    family: Family, exact: bool, texts: list[tuple[str, str]], pages: int, counter: HfTokenizer
) -> None:
    """The whole conversation is the first question's sample plus what each of the others adds, whatever they say."""
    count = counter if exact else Utf8Bound()
    asked = [question(question=q, answer=a) for q, a in texts]
    whole = conversation_length(*conversation(0, pages, asked), family, count)
    alone = conversation_length(*conversation(0, pages, asked[:1]), family, count)
    further = [turn_tokens(q, MessageSettings(), family, count) for q in asked[1:]]
    assert whole.num_tokens == alone.num_tokens + sum(further)
    each = [conversation_length(*conversation(0, pages, [q]), family, count).num_supervised for q in asked]
    assert (whole.num_patches, whole.num_supervised) == (alone.num_patches, sum(each))
