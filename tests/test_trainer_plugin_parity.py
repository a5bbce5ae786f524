"""Several processes compute what one computes, and one computes what the stock model does on each document alone.

The rows are those that go wrong first: pages of several sizes, texts between them, more ranks than key/value heads,
heads that do not divide by the ranks, ranks without an image token or without a label, a row without pages, a row
without labels, and 1 to 40 labels a row.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from distributed import Processes
from tiny_models import IMAGE, MEAN, STD, TINY, tiny_batch, tiny_document, tiny_model, tiny_pixels

from trainer_plugin.attention import use_attention
from trainer_plugin.batch import RowSample
from trainer_plugin.loss import use_loss
from trainer_plugin.mesh import Mesh, join, place
from trainer_plugin.models import Undo
from trainer_plugin.vision import normalise, share_vision

CLOSE = 1e-5
FAMILIES = sorted(TINY)
HEADS = [(7, 1), (14, 2)]
MIXED = (
    tiny_document(1, [3, 2, 1, 9], [(4, 6), (8, 10), (4, 4)], supervised=1),
    tiny_document(2, [31]),
    tiny_document(3, [2, 7], [(6, 4)], supervised=3),
)
# With 2 data-parallel ranks, each accumulates over two rows.
ROWS = (
    MIXED,
    (tiny_document(4, [30], supervised=20), tiny_document(5, [25], supervised=20)),
    (tiny_document(6, [2, 40], [(8, 8)]), tiny_document(7, [17])),
    (tiny_document(8, [5, 2], [(12, 4)], supervised=1),),
)


@pytest.fixture(scope="module")
def worlds() -> Iterator[dict[int, Processes]]:
    with Processes(2) as two, Processes(4) as four:
        yield {2: two, 4: four}


@functools.cache
def mesh_of(size: int) -> Mesh:
    return join(size)


def prepare(family: str, heads: tuple[int, int], mesh: Mesh, **options: Any) -> tuple[Any, list[Undo]]:
    model = tiny_model(family, *heads).train()
    undo = [
        use_attention(model, mesh),
        share_vision(model, mesh, MEAN, STD),
        use_loss(model, chunk_tokens=8, **options),
    ]
    return model, undo


def labels_in(rows: tuple[tuple[RowSample, ...], ...]) -> int:
    return sum(int((d.labels[1:] != -100).sum()) for row in rows for d in row)


def logits_of(model: Any, batch: dict[str, Any]) -> Any:
    with torch.no_grad():
        return model(**{k: v for k, v in batch.items() if "labels" not in k}).logits[0]


def train_step(family: str, heads: tuple[int, int], size: int | None, checkpointing: bool) -> dict[str, Any]:
    """Logits, loss and gradients of ROWS in this process; gradients and losses are summed over the world."""
    mesh = place(0, 1, 1) if size is None else mesh_of(size)
    model, _ = prepare(family, heads, mesh)
    if checkpointing:
        model.gradient_checkpointing_enable()
    batches = [tiny_batch(row, family, mesh) for row in ROWS[mesh.data_rank :: mesh.data_size]]
    logits = [logits_of(model, batch).numpy() for batch in batches]
    loss = torch.zeros(())
    for batch in batches:
        here = model(**batch, num_items_in_batch=torch.tensor(labels_in(ROWS))).loss
        here.backward()
        loss += here.detach()
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert not missing, missing  # DDP waits for every parameter
    summed = {"loss": loss, **{name: p.grad for name, p in model.named_parameters()}}
    if size is not None:
        for value in summed.values():
            torch.distributed.all_reduce(value)
    return {"logits": logits, "place": (mesh.data_rank, mesh.rank), **{k: v.numpy() for k, v in summed.items()}}


@functools.cache
def reference(family: str, heads: tuple[int, int]) -> dict[str, Any]:
    return train_step(family, heads, None, False)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("heads", HEADS)
def test_one_process_agrees_with_the_stock_model_on_each_document_alone(family: str, heads: tuple[int, int]) -> None:
    model, undo = prepare(family, heads, place(0, 1, 1))
    ours = [logits_of(model, tiny_batch(row, family)) for row in ROWS]
    for each in undo:
        each()
    for row, logits in zip(ROWS, ours, strict=True):
        grids = [grid for document in row for grid in document.grids]
        pixels = iter(tiny_pixels(1, grids))
        alone = []
        for document in row:
            is_image = document.input_ids == IMAGE
            batch: dict[str, Any] = {"input_ids": document.input_ids[None], "mm_token_type_ids": is_image[None].int()}
            if document.grids:
                patches = torch.cat([next(pixels) for _ in document.grids])
                batch["pixel_values"] = normalise(patches, MEAN, STD, frames=2)
                batch["image_grid_thw"] = torch.tensor([(1, *grid) for grid in document.grids])
            alone.append(logits_of(model, batch))
        assert torch.cat(alone).std() > 0.5
        torch.testing.assert_close(logits, torch.cat(alone), atol=CLOSE, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_changing_one_document_changes_no_logit_of_another(family: str) -> None:
    model, _ = prepare(family, (7, 1), place(0, 1, 1))
    before = logits_of(model, tiny_batch(MIXED, family))
    ends = np.cumsum([len(d.input_ids) for d in MIXED])
    other = tiny_document(9, [31])
    after = logits_of(model, tiny_batch((MIXED[0], other, MIXED[2]), family))
    assert torch.equal(before[: ends[0]], after[: ends[0]]) and torch.equal(before[ends[1] :], after[ends[1] :])
    assert (before[ends[0] : ends[1]] - after[ends[0] : ends[1]]).abs().amax(1).min() > 0.1
    first = tiny_document(10, [3, 2, 1, 9], MIXED[0].grids)
    after = logits_of(model, tiny_batch((first, *MIXED[1:]), family))
    assert torch.equal(before[ends[0] :], after[ends[0] :])
    assert not torch.equal(before[: ends[0]], after[: ends[0]])
    batch = tiny_batch(MIXED, family)
    patches = sum(r * c for r, c in MIXED[0].grids)
    batch["pixel_values"][:patches] = 255 - batch["pixel_values"][:patches]
    after = logits_of(model, batch)
    assert torch.equal(before[ends[0] :], after[ends[0] :])
    assert not torch.equal(before[: ends[0]], after[: ends[0]])


def test_the_rows_hold_what_they_promise() -> None:
    batches = {(i, rank): tiny_batch(ROWS[i], "qwen3-vl", place(rank, 4, 4)) for i in range(4) for rank in range(4)}
    assert {i for (i, _), b in batches.items() if sum(b["image_tokens_per_rank"])} == {0, 2, 3}
    assert any(not b["image_tokens_per_rank"][rank] for (i, rank), b in batches.items() if i == 0)
    assert any(not len(b["pixel_values"]) for (i, _), b in batches.items() if i == 2)
    assert any(not (b["shift_labels"] != -100).any() for (i, _), b in batches.items() if i == 0)
    assert [labels_in((row,)) for row in ROWS] == [4, 40, 0, 1]
    assert any(sum(len(d.input_ids) for d in row) % 4 for row in ROWS)  # padded


@pytest.mark.parametrize(
    ("heads", "number", "size", "checkpointing"),
    [((7, 1), 2, 2, True), ((14, 2), 2, 2, False), ((7, 1), 4, 4, False), ((14, 2), 4, 4, True), ((7, 1), 4, 2, True)],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_processes_compute_what_one_computes(
    worlds: dict[int, Processes], family: str, heads: tuple[int, int], number: int, size: int, checkpointing: bool
) -> None:
    expected = reference(family, heads)
    results = worlds[number].run(train_step, family, heads, size, checkpointing)
    data_size = number // size
    for data_rank in range(data_size):
        group = sorted((r for r in results if r["place"][0] == data_rank), key=lambda r: r["place"][1])
        assert len(group) == size
        for i, row in enumerate(expected["logits"][data_rank::data_size]):
            whole = np.concatenate([r["logits"][i] for r in group])
            assert len(whole) - len(row) < size
            np.testing.assert_allclose(whole[: len(row)], row, atol=CLOSE, rtol=0)
    for name, value in expected.items():
        if name not in {"logits", "place"}:
            np.testing.assert_allclose(results[0][name], value, atol=CLOSE, rtol=0, err_msg=name)
            assert np.abs(value).max() > 100 * CLOSE, name
