"""Image size to visual tokens, per model family: pure arithmetic, so that a plan never has to open an image.

A page is rendered directly at the size to which the model's processor would resize it, so that the count is
exact by construction and training needs no resize. Sources: `smart_resize` of the Qwen2-VL and Qwen3-VL image
processors in transformers (rounding to a multiple of the grid, then scaling into the pixel range), and the
`preprocessor_config.json` of the published models for the pixel ranges.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from corpus.errors import DocumentError
from corpus.records import PageGrid

MAX_ASPECT_RATIO = 200  # beyond it the processors raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What a model family does to an image and to a conversation. A new family is one more entry of `FAMILIES`.

    The conversation is that of `packing.lengths.conversation_length`; the vision tower's kind is for `packing.cost`.
    """

    name: str
    model_type: str  # of its config.json
    patch: int  # pixels a side of one vision patch
    merge: int  # patches a side that become one token
    min_pixels: int
    max_pixels: int
    default_system: str  # the system message its chat template adds when there is none; '' = none
    windowed_vision: bool = False  # most vision layers see windows, `fullatt_block_indexes` whole images
    gated_vision: bool = False  # the vision tower's MLP has three matrices, else two
    deepstack: bool = False  # vision layers of `deepstack_visual_indexes` have mergers of their own

    @property
    def grid(self) -> int:
        """Pixels a side of one visual token."""
        return self.patch * self.merge


FAMILIES = {
    "qwen2.5-vl": Family(
        name="qwen2.5-vl",
        model_type="qwen2_5_vl",
        patch=14,
        merge=2,
        min_pixels=3_136,
        max_pixels=12_845_056,
        default_system="You are a helpful assistant.",
        windowed_vision=True,
        gated_vision=True,
    ),
    "qwen3-vl": Family(
        name="qwen3-vl",
        model_type="qwen3_vl",
        patch=16,
        merge=2,
        min_pixels=65_536,
        max_pixels=16_777_216,
        default_system="",
        deepstack=True,
    ),
}


def natural_size(width_pt: float, height_pt: float, dpi: int) -> tuple[int, int]:
    """Pixels `(height, width)` that `get_pixmap(dpi=dpi)` gives a page of this size in points.

    MuPDF rounds a rectangle outwards with a tolerance of 0.001 px; 530 of 530 renderings agree.
    """
    zoom = dpi / 72
    return max(1, math.ceil(height_pt * zoom - 0.001)), max(1, math.ceil(width_pt * zoom - 0.001))


def snap(height: int, width: int, family: Family) -> PageGrid:
    """The size to which the family's processor resizes an image of `height` x `width` pixels.

    Raises:
        DocumentError: the aspect ratio exceeds 200, before or after snapping.
    """
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise DocumentError("aspect-ratio", f"{width} x {height} px exceeds {MAX_ASPECT_RATIO}:1")
    grid = family.grid
    rows, columns = round(height / grid) * grid, round(width / grid) * grid
    if rows * columns > family.max_pixels:
        scale = math.sqrt(height * width / family.max_pixels)
        rows = max(grid, math.floor(height / scale / grid) * grid)
        columns = max(grid, math.floor(width / scale / grid) * grid)
    elif rows * columns < family.min_pixels:
        scale = math.sqrt(family.min_pixels / (height * width))
        rows, columns = math.ceil(height * scale / grid) * grid, math.ceil(width * scale / grid) * grid
    if max(rows, columns) > MAX_ASPECT_RATIO * min(rows, columns):
        raise DocumentError("aspect-ratio", f"{columns} x {rows} px exceeds {MAX_ASPECT_RATIO}:1")
    return PageGrid(height=rows, width=columns)


def num_patches(page: PageGrid, family: Family) -> int:
    """Vision patches of an image that is already on the grid."""
    return (page.height // family.patch) * (page.width // family.patch)


def num_image_tokens(page: PageGrid, family: Family) -> int:
    """Visual tokens of an image that is already on the grid."""
    return (page.height // family.grid) * (page.width // family.grid)
