"""Three-dimensional rope positions (time, height, width) of a conversation with page images; arithmetic alone.

Text counts on along all three; an image of h x w tokens stands at one time, spreads over height and width, and counts
as max(h, w) for what follows (Qwen2-VL, arXiv 2409.12191). Both families agree on still images, and a test holds this
against the `get_rope_index` of both. It is repeated here so that workers of a data loader need no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

Grid = tuple[int, int]  # patches of an image: rows, columns


def rope_positions(input_ids: Any, grids: Sequence[Grid], image_token_id: int, merge: int) -> Any:
    """Positions of one sample, which starts at 0.

    Args:
        input_ids: `[n]`, each image a run of `rows * columns / merge**2` image tokens.
        grids: the sample's images in order.
        merge: patches a side of one token.

    Returns:
        `[3, n]` int64.

    Raises:
        ValueError: the image tokens are not those of the grids.
    """
    is_image = input_ids == image_token_id
    places = is_image.nonzero()[:, 0].tolist()
    sizes = [(rows // merge) * (columns // merge) for rows, columns in grids]
    if len(places) != sum(sizes):
        raise ValueError(f"{len(places)} image tokens in the sample, {sum(sizes)} in its {len(grids)} grids")
    steps = (~is_image).long()
    images, seen = [], 0
    for (rows, columns), size in zip(grids, sizes, strict=True):
        start = places[seen]
        seen += size
        if places[seen - 1] != start + size - 1:
            raise ValueError(f"the image tokens at {start} are fewer than the {size} of their grid")
        steps[start] = max(rows, columns) // merge
        images.append((start, size, columns // merge))
    before = steps.cumsum(0) - steps
    positions = before.repeat(3, 1)
    for start, size, width in images:
        cell = torch.arange(size)
        positions[0, start : start + size] = before[start]
        positions[1, start : start + size] = before[start] + cell // width
        positions[2, start : start + size] = before[start] + cell % width
    return positions
