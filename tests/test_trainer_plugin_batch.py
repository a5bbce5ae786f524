"""Rows become batches whose slices fit together, with the positions that the models themselves would count."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import IMAGE, PAD, TINY, tiny_batch, tiny_document, tiny_model

from trainer_plugin.mesh import padded, place
from trainer_plugin.positions import rope_positions

GRIDS = [(4, 6), (10, 2), (4, 4), (2, 2)]


@pytest.fixture(scope="module", params=sorted(TINY))
def model(request: pytest.FixtureRequest) -> object:
    return tiny_model(request.param)


@pytest.mark.parametrize("texts", [[3, 2, 1, 5, 4], [0, 0, 0, 0, 1], [1, 9, 9, 9, 0], [7]])
def test_positions_are_those_that_the_model_counts(model: object, texts: list[int]) -> None:
    document = tiny_document(1, texts, GRIDS[: len(texts) - 1])
    ids = document.input_ids[None]
    grids = torch.tensor([(1, *grid) for grid in document.grids]) if document.grids else None
    types = (ids == IMAGE).int()
    expected, _ = model.model.get_rope_index(input_ids=ids, mm_token_type_ids=types, image_grid_thw=grids)  # type: ignore[attr-defined]
    positions = rope_positions(document.input_ids, document.grids, IMAGE, 2)
    assert torch.equal(positions, expected[:, 0]) and positions.dtype == torch.int64


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([1, IMAGE, IMAGE], "2 image tokens in the sample, 4 in its 1 grids"),
        ([IMAGE] * 3 + [1, IMAGE], "the image tokens at 0 are fewer than the 4 of their grid"),
    ],
)
def test_image_tokens_that_do_not_fit_their_grids_are_refused(tokens: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rope_positions(torch.tensor(tokens), [(4, 4)], IMAGE, 2)


def test_a_batch_in_full() -> None:
    row = (tiny_document(1, [2, 1], [(4, 4)], supervised=2), tiny_document(2, [3], supervised=3))
    whole, second = tiny_batch(row, "qwen2.5-vl"), tiny_batch(row, "qwen2.5-vl", place(1, 4, 4))
    a, b = (document.input_ids.tolist() for document in row)
    assert whole["input_ids"].tolist() == [a + b]
    assert whole["position_ids"][:, 0].tolist() == [
        [0, 1, 2, 3, 3, 3, 3, 5, 6, 0, 1, 2],
        [0, 1, 2, 3, 3, 4, 4, 5, 6, 0, 1, 2],
        [0, 1, 2, 3, 4, 3, 4, 5, 6, 0, 1, 2],
    ]
    assert whole["shift_labels"].tolist() == [[-100] * 6 + a[7:] + [-100] + b[1:] + [-100]]
    assert whole["labels"] is whole["shift_labels"]
    assert whole["cu_seq_lens_q"].tolist() == [0, 9, 12] and whole["cu_seq_lens_q"].dtype == torch.int32
    assert (whole["max_length_q"], whole["use_cache"]) == (9, False)
    assert whole["image_grid_thw"].tolist() == [[1, 4, 4]] and whole["image_tokens_per_rank"] == (4,)
    assert whole["pixel_values"].shape == (16, 12) and whole["pixel_values"].dtype == torch.uint8

    assert second["input_ids"].tolist() == [a[3:6]] and second["image_tokens_per_rank"] == (0, 3, 1, 0)
    assert second["cu_seq_lens_q"].tolist() == [0, 9, 12] and second["image_grid_thw"].tolist() == [[1, 4, 4]]
    assert second["pixel_values"].shape == (0, 12)  # the first rank has the image


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 5))
def test_slices_make_the_row_and_padding_is_a_document(lengths: list[int], size: int) -> None:
    row = [tiny_document(i, [n], supervised=n // 2) for i, n in enumerate(lengths)]
    whole = tiny_batch(row, "qwen3-vl")
    parts = [tiny_batch(row, "qwen3-vl", place(rank, size, size)) for rank in range(size)]
    length, total = sum(lengths), padded(sum(lengths), size)
    for key, padding in (("input_ids", PAD), ("shift_labels", -100)):
        joined = torch.cat([part[key] for part in parts], dim=1)[0].tolist()
        assert joined == whole[key][0].tolist() + [padding] * (total - length)
    for part in parts:
        assert part["cu_seq_lens_q"].tolist() == whole["cu_seq_lens_q"].tolist() + [total] * (total > length)
        assert part["max_length_q"] == max(*lengths, total - length)
        assert part["image_grid_thw"].shape == (0, 3) and part["image_tokens_per_rank"] == (0,) * size
    supervised = sum(max(0, min(n // 2, n - 1)) for n in lengths)
    assert sum(int((part["shift_labels"] != -100).sum()) for part in parts) == supervised
