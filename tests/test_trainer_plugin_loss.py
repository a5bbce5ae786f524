"""The loss is the token mean of the global batch, takes few logits at a time, and leaves the model as it was."""

from __future__ import annotations

import inspect
from copy import deepcopy
from typing import Any

import pytest
import torch
from accelerate.utils import convert_outputs_to_fp32, extract_model_from_parallel
from tiny_models import MEAN, STD, TINY, VOCABULARY, tiny_batch, tiny_document, tiny_model
from torch.nn.functional import cross_entropy

from trainer_plugin.attention import use_attention
from trainer_plugin.loss import shifted, use_loss
from trainer_plugin.mesh import place
from trainer_plugin.models import Undo
from trainer_plugin.vision import share_vision

ONE = place(0, 1, 1)
FAMILIES = sorted(TINY)
ROW = (tiny_document(1, [4, 9], [(4, 4)], supervised=7), tiny_document(2, [20], supervised=12))


def prepared(family: str, **options: Any) -> tuple[Any, list[Undo]]:
    model = tiny_model(family).train()
    undo = [use_attention(model, ONE), share_vision(model, ONE, MEAN, STD), use_loss(model, **options)]
    return model, undo


def test_labels_move_to_the_token_before_and_not_into_another_document() -> None:
    labels = torch.tensor([10, 11, 12, 20, 30, 31])
    assert shifted(labels, torch.tensor([0, 3, 4, 6])).tolist() == [11, 12, -100, -100, 31, -100]
    assert labels.tolist() == [10, 11, 12, 20, 30, 31]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("chunk_tokens", [1, 5, 1024])
def test_in_pieces_it_is_the_loss_of_all_logits(family: str, chunk_tokens: int) -> None:
    model, _ = prepared(family, chunk_tokens=chunk_tokens)
    batch = tiny_batch(ROW, family)
    logits = model(**{k: v for k, v in batch.items() if "labels" not in k}).logits
    expected = cross_entropy(logits[0], batch["shift_labels"][0])
    expected.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    out = model(**batch)
    out.loss.backward()
    torch.testing.assert_close(out.loss, expected)
    assert out.logits is None
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], atol=1e-6, rtol=1e-4)


def test_the_number_of_tokens_comes_from_the_global_batch() -> None:
    model, _ = prepared("qwen3-vl")
    batch = tiny_batch(ROW, "qwen3-vl")
    mean = model(**batch).loss
    for number in (40, torch.tensor(40), torch.tensor(40.0)):
        torch.testing.assert_close(model(**batch, num_items_in_batch=number).loss, mean * 19 / 40)


def test_few_logits_exist_at_once_and_the_head_is_called_once() -> None:
    model, _ = prepared("qwen2.5-vl", chunk_tokens=5)
    calls, sizes = [], []
    model.lm_head.register_forward_hook(lambda *hooked: calls.append(len(hooked[1][0])))
    head = model.lm_head.weight
    linear = torch.nn.functional.linear

    def counted(x: Any, weight: Any, bias: Any = None) -> Any:
        if weight is head:
            sizes.append(x.shape[0])
        return linear(x, weight, bias)

    torch.nn.functional.linear = counted
    try:
        model(**tiny_batch(ROW, "qwen2.5-vl")).loss.backward()
    finally:
        torch.nn.functional.linear = linear
    assert calls == [19]
    assert sorted(sizes) == [4, 4, *[5] * 6]  # once forward, once for the backward pass


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_without_labels_has_a_loss_of_zero_and_all_gradients(family: str) -> None:
    model, _ = prepared(family)
    batch = tiny_batch([tiny_document(1, [4, 9], [(4, 4)])], family)
    out = model(**batch, num_items_in_batch=10)
    assert out.loss.item() == 0 == model(**batch).loss.item()
    out.loss.backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_autocast_changes_little(family: str) -> None:
    model, _ = prepared(family)
    batch = tiny_batch(ROW, family)
    expected = model(**batch).loss
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**batch).loss
    assert loss.dtype == torch.float32 and loss != expected
    torch.testing.assert_close(loss, expected, rtol=0.02, atol=0)


def test_losses_of_tokens_can_be_watched() -> None:
    seen: list[tuple[Any, Any]] = []
    model, _ = prepared("qwen3-vl", chunk_tokens=5, observe=lambda places, losses: seen.append((places, losses)))
    batch = tiny_batch(ROW, "qwen3-vl")
    loss = model(**batch).loss
    loss.backward()
    [(places, losses)] = seen
    assert (batch["shift_labels"][0, places] != -100).all() and len(places) == 19
    assert not losses.requires_grad
    torch.testing.assert_close(losses.mean(), loss.detach())


def test_a_rounded_number_of_tokens_is_refused() -> None:
    model, _ = prepared("qwen3-vl")
    with pytest.raises(ValueError, match=r"arrived as torch\.bfloat16, so rounded"):
        model(**tiny_batch(ROW, "qwen3-vl"), num_items_in_batch=torch.tensor(19).bfloat16())


def test_documents_must_be_told_apart() -> None:
    model, _ = prepared("qwen2.5-vl")
    batch = tiny_batch(ROW, "qwen2.5-vl")
    del batch["cu_seq_lens_q"]
    with pytest.raises(ValueError, match="needs cu_seq_lens_q"):
        model(**batch)


@pytest.mark.parametrize("family", FAMILIES)
def test_undone_the_model_computes_what_it_computed(family: str) -> None:
    stock = tiny_model(family).train()
    model, undo = prepared(family)
    batch = tiny_batch([tiny_document(2, [20])], family)
    plain = {"input_ids": batch["input_ids"], "labels": batch["input_ids"]}
    assert torch.equal(model(**plain).loss, stock(**plain).loss)  # a stock batch, while in use
    model(**tiny_batch(ROW, family)).loss.backward()
    for each in reversed(undo):
        each()
    model.zero_grad()
    for each in (stock, model):
        each(**plain).loss.backward()
    for (name, p), (_, q) in zip(model.named_parameters(), stock.named_parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None) and (p.grad is None or torch.equal(p.grad, q.grad)), name
    assert "forward" not in {**model.__dict__, **model.lm_head.__dict__}
    assert model.config.to_dict() == stock.config.to_dict()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_copy_computes_with_its_own_weights(family: str) -> None:
    model, undo = prepared(family)
    batch = tiny_batch(ROW, family)
    loss = model(**batch).loss
    copy = deepcopy(model)
    for parameter in model.parameters():
        parameter.data.zero_()
    assert torch.equal(copy(**batch).loss, loss) and model(**batch).loss != loss
    for each in undo:
        each()
    assert torch.isfinite(copy(input_ids=batch["input_ids"]).logits).all()


def test_it_lives_with_accelerates_mixed_precision() -> None:
    model, undo = prepared("qwen3-vl")
    names = list(inspect.signature(model.forward).parameters)
    assert names == list(inspect.signature(tiny_model("qwen3-vl").forward).parameters)  # the Trainer reads them
    batch = tiny_batch(ROW, "qwen3-vl")
    loss = model(**batch).loss
    model._original_forward = model.forward
    model.forward = type(model.forward)(convert_outputs_to_fp32(model.forward.__func__), model)
    assert torch.equal(model(**batch).loss, loss)
    unwrapped = extract_model_from_parallel(model, keep_fp32_wrapper=False)
    assert torch.equal(unwrapped(**batch).loss, loss)
    for each in reversed(undo):
        each()
    assert model(input_ids=batch["input_ids"]).logits.shape == (1, 39, VOCABULARY)
