"""A row of documents to what one rank's model receives. Every key of a batch is made here, and explained here.

The collator fills a `Row` from tokenizer and shards; attention, vision and loss read the batch. A batch of T tokens on
SP ranks:

    input_ids              [1, T/SP]     this rank's slice
    position_ids           [3, 1, T/SP]  rope positions, counted within each document
    shift_labels           [1, T/SP]     the label of the next token; -100 = none
    labels                               the same tensor: the Trainer counts tokens only where it finds this key
    cu_seq_lens_q          [D + 1] int32 starts of the documents of the whole row, and T
    max_length_q           int           tokens of the longest document
    image_grid_thw         [N, 3]        all images of the row, in patches
    image_tokens_per_rank  tuple of SP   image tokens in each rank's slice
    pixel_values           [P, p * p * C] uint8: patches of the images that this rank was dealt, colours innermost
    use_cache              False

Padding, up to the next multiple of SP, is a document of its own without labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch

from corpus.vision_tokens import Family
from trainer_plugin.loss import IGNORED, shifted
from trainer_plugin.mesh import Mesh, padded
from trainer_plugin.positions import Grid, rope_positions


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSample:
    """One sample of a row, tokenised. Text only where `grids` is empty."""

    input_ids: Any  # [n] int64
    labels: Any  # [n] int64: the token where it is supervised, else -100
    grids: Sequence[Grid]  # patches of its images, rows and columns, in order


def empty_row(mesh: Mesh, pad_token_id: int) -> RowSample:
    """A row of padding: a token for every rank, no label. It fills a step that is short of rows."""
    ids = torch.full((mesh.size,), pad_token_id)
    return RowSample(input_ids=ids, labels=torch.full_like(ids, IGNORED), grids=())


def batch_of(
    row: Sequence[RowSample], pixels: Any, mesh: Mesh, family: Family, *, image_token_id: int, pad_token_id: int
) -> dict[str, Any]:
    """The batch of one rank.

    Args:
        row: the samples of the row, in order; all of them, on every rank.
        pixels: `[P, p * p * C]` uint8: patches of `deal_images(grids, family, mesh.size)[mesh.rank]`, in order.

    Raises:
        ValueError: image tokens of a sample that do not fit its grids.
    """
    lengths = [len(d.input_ids) for d in row]
    padding = padded(sum(lengths), mesh.size) - sum(lengths)
    pad = RowSample(input_ids=torch.full((padding,), pad_token_id), labels=torch.full((padding,), IGNORED), grids=())
    documents = [*row, pad] if padding else list(row)
    cu = torch.tensor([0, *accumulate(len(d.input_ids) for d in documents)], dtype=torch.int32)
    ids = torch.cat([d.input_ids for d in documents])
    positions = [rope_positions(d.input_ids, d.grids, image_token_id, family.merge) for d in documents]
    part = mesh.part(len(ids))
    labels = shifted(torch.cat([d.labels for d in documents]), cu)[None, part]
    is_image = (ids == image_token_id).view(mesh.size, -1)
    grids = [(1, *grid) for d in row for grid in d.grids]
    return {
        "input_ids": ids[None, part],
        "position_ids": torch.cat(positions, dim=1)[:, None, part],
        "shift_labels": labels,
        "labels": labels,
        "cu_seq_lens_q": cu,
        "max_length_q": max(len(d.input_ids) for d in documents),
        "image_grid_thw": torch.tensor(grids, dtype=torch.long).view(-1, 3),
        "image_tokens_per_rank": tuple(is_image.sum(1).tolist()),
        "pixel_values": pixels,
        "use_cache": False,
    }
