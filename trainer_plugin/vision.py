"""The vision tower of a row, shared: each rank encodes some of the pages, and gets the tokens of its own slice.

Pages are dealt by cost, wherever in the row they stand; then one all-to-all sends each visual token to the one rank
that holds its place in the row (deepstack features travel in the same message). Gathering everything on every rank
would be simpler and take `size` times the memory and traffic: 0.9 GiB a rank for 131,072 tokens of width 3,584 in
bfloat16.
Encoding every page on every rank, as others do, makes a step on 4 ranks 1.32 times as long at 131,072 tokens.

A rank without a page encodes one black token and sends none of it: under FSDP every rank must enter every layer, and
under DDP every parameter must take part in the backward pass. Features enter the model as `mm_encoder_outputs`.

Pixels travel as uint8 patches without the second frame (0.29 GiB a row of 131,072 tokens instead of 2.30) and become
what the image processor would have made of them on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from corpus.vision_tokens import Family
from packing.cost import dims_of, vision_flops
from trainer_plugin.mesh import Mesh, exchange
from trainer_plugin.models import Undo, family_of, qwen_vl_of
from trainer_plugin.positions import Grid

IntArray = npt.NDArray[np.int64]


def deal(costs: Sequence[float], num_ranks: int) -> list[list[int]]:
    """Images to ranks: the costliest first, each to the rank with the least so far. Ascending indices for each rank.

    The longest rank exceeds the best possible one by a third at most (Graham 1969). Ties go to the lower index.
    """
    loads = [0.0] * num_ranks
    dealt: list[list[int]] = [[] for _ in range(num_ranks)]
    for image in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        rank = min(range(num_ranks), key=loads.__getitem__)
        loads[rank] += costs[image]
        dealt[rank].append(image)
    return [sorted(images) for images in dealt]


def deal_images(grids: Sequence[Grid], family: Family, num_ranks: int) -> list[list[int]]:
    """The images of a row that each sequence-parallel rank reads and encodes."""
    costs = vision_flops([rows * columns for rows, columns in grids], dims_of(family.name))
    return deal(costs.tolist(), num_ranks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """How the visual tokens that a rank encoded reach the ranks that need them."""

    send: tuple[int, ...]  # tokens for each rank; a rank's tokens leave in order of the row
    receive: tuple[int, ...]  # tokens from each rank
    order: IntArray  # for each image token of this rank's slice, which of the received ones it is


def route(sizes: Sequence[int], dealt: Sequence[Sequence[int]], needs: Sequence[int], rank: int) -> Route:
    """The way of the visual tokens of a row.

    Args:
        sizes: tokens of each image, in order of the row.
        dealt: the images that each rank encodes, ascending.
        needs: image tokens in each rank's slice of the row; slices follow each other.
    """
    assert sum(sizes) == sum(needs), f"{sum(sizes)} visual tokens for {sum(needs)} places"
    starts = np.cumsum([0, *sizes])
    borders = np.cumsum([0, *needs])
    encoded = [
        np.concatenate([np.arange(starts[i], starts[i + 1]) for i in images] or [np.arange(0)]) for images in dealt
    ]
    cuts = [np.searchsorted(tokens, borders) for tokens in encoded]
    received = [tokens[cut[rank] : cut[rank + 1]] for tokens, cut in zip(encoded, cuts, strict=True)]
    return Route(
        send=tuple(np.diff(cuts[rank]).tolist()),
        receive=tuple(map(len, received)),
        order=np.argsort(np.concatenate(received)),
    )


def normalise(pixels: Any, mean: Sequence[float], std: Sequence[float], frames: int) -> Any:
    """uint8 patches `[P, p * p * C]` -> what the image processor gives, float32 `[P, C * frames * p * p]`."""
    values = pixels.view(len(pixels), -1, len(mean)).mT[:, :, None].float() / 255
    shift, scale = (values.new_tensor(x).view(1, -1, 1, 1) for x in (mean, std))
    return ((values - shift) / scale).expand(-1, -1, frames, -1).reshape(len(pixels), -1)


def share_vision(model: Any, mesh: Mesh, mean: Sequence[float], std: Sequence[float]) -> Undo:
    """Let the model take a row's pages as `trainer_plugin.batch` gives them; other batches pass as before.

    Args:
        mean: of each colour channel, as the image processor's `image_mean`. `std`: as its `image_std`.
    """
    core = qwen_vl_of(model)
    family = family_of(core)

    def encode(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        if kwargs.get("image_tokens_per_rank") is None:
            return None
        needs = kwargs.pop("image_tokens_per_rank")
        pixels, grids = kwargs.pop("pixel_values"), kwargs.pop("image_grid_thw")
        values = _encode(module, family, mesh, (mean, std), pixels, grids, needs)
        return args, {**kwargs, "mm_encoder_outputs": {"image": values}}

    # On the inner model, because FSDP gathers the parameters of the outer one before this runs.
    handle = core.model.register_forward_pre_hook(encode, with_kwargs=True)
    undo: Undo = handle.remove
    return undo


def _encode(
    model: Any,
    family: Family,
    mesh: Mesh,
    colours: tuple[Sequence[float], Sequence[float]],
    pixels: Any,  # [P, p * p * C] uint8: this rank's images
    grids: Any,  # [images, 3]: all images of the row
    needs: Sequence[int],
) -> Any:
    """Features of the image tokens of this rank's slice, in the model's own output type."""
    vision = model.config.vision_config
    token = vision.spatial_merge_size**2  # patches
    shapes = [(int(rows), int(columns)) for _, rows, columns in grids.tolist()]
    dealt = deal_images(shapes, family, mesh.size)
    mine = dealt[mesh.rank]
    patches = sum(shapes[image][0] * shapes[image][1] for image in mine)
    if len(pixels) != patches:
        raise ValueError(f"sequence-parallel rank {mesh.rank} got {len(pixels)} patches; its images have {patches}")
    own = grids[mine]
    if not mine:
        pixels = pixels.new_zeros((token, pixels.shape[1]))
        own = grids.new_tensor([[1, vision.spatial_merge_size, vision.spatial_merge_size]])
    values = normalise(pixels, *colours, vision.temporal_patch_size)
    out = model.get_image_features(values, own, return_dict=True)
    layers = [out.pooler_output, *(getattr(out, "deepstack_features", None) or [])]
    features = torch.cat([torch.cat(tuple(layer)) for layer in layers], dim=-1)  # [tokens, layers * h]
    way = route([r * c // token for r, c in shapes], dealt, needs, mesh.rank)
    received = exchange(features[: sum(way.send)], way.send, way.receive, mesh)
    if mesh.size > 1:
        received = received.index_select(0, torch.from_numpy(way.order).to(received.device))
    first, *deep = received.chunk(len(layers), -1)  # [tokens of the slice, h] each
    return type(out)(pooler_output=[first], **({"deepstack_features": [[x] for x in deep]} if deep else {}))
