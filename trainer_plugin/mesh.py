"""Which ranks share a row, and the one collective that moves its parts between them.

The world is cut into sequence-parallel groups of contiguous ranks (inside a node, where links are fast):
data-parallel rank = rank // size, place in the row = rank % size. Every rank of a group holds a slice of the same
length of the same row. Without a process group this is a world of one, so the same code runs on a laptop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist

from corpus.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """The place of one process. `group` is None where nobody shares the row.

    Pickled, for a worker of a data loader, it keeps the place and loses the group, which belongs to its process.
    """

    size: int  # processes that share a row
    rank: int  # 0-based place in the row
    data_size: int  # rows that are computed at once
    data_rank: int
    group: Any = None

    def part(self, length: int) -> slice:
        """This rank's part of a row, whose length is a multiple of `size`."""
        assert length % self.size == 0, f"a row of {length} is no multiple of {self.size}"
        share = length // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def __reduce__(self) -> tuple[Callable[..., Mesh], tuple[int, int, int]]:
        return place, (self.data_rank * self.size + self.rank, self.size * self.data_size, self.size)


def place(rank: int, world_size: int, sequence_parallel_size: int) -> Mesh:
    """The place of `rank` in a world; arithmetic alone.

    Raises:
        ConfigError: a size that does not divide the world.
    """
    if sequence_parallel_size < 1 or world_size % sequence_parallel_size:
        sizes = [n for n in range(1, world_size + 1) if world_size % n == 0]
        raise ConfigError(
            f"sequence_parallel_size = {sequence_parallel_size} does not divide {world_size} processes; "
            f"use one of {', '.join(map(str, sizes))}"
        )
    return Mesh(
        size=sequence_parallel_size,
        rank=rank % sequence_parallel_size,
        data_size=world_size // sequence_parallel_size,
        data_rank=rank // sequence_parallel_size,
    )


def join(sequence_parallel_size: int) -> Mesh:
    """The place of this process. Every process of the world must call it: it makes the groups together.

    Raises:
        ConfigError: a size that does not divide the world.
    """
    if not dist.is_initialized():
        return place(0, 1, sequence_parallel_size)
    mesh = place(dist.get_rank(), dist.get_world_size(), sequence_parallel_size)
    if mesh.size == 1:
        return mesh
    ranks = range(dist.get_world_size())
    groups = [dist.new_group(ranks[i : i + mesh.size]) for i in ranks[:: mesh.size]]
    return replace(mesh, group=groups[mesh.data_rank])


def padded(length: int, size: int) -> int:
    """The least multiple of `size` that holds `length` tokens."""
    return -(-length // size) * size


def exchange(x: Any, send: Sequence[int], receive: Sequence[int], mesh: Mesh) -> Any:
    """Send rows of `x` to every rank of the group and receive theirs; gradients take the same way back.

    Args:
        x: `[sum(send), ...]`, in order of the receiving rank.
        send: rows for each rank. `receive`: rows from each rank.

    Returns:
        `[sum(receive), ...]`, in order of the sending rank.
    """
    if mesh.size == 1:
        return x
    assert mesh.group is not None, "only the process that joined can exchange"
    return _Exchange.apply(x, list(send), list(receive), mesh.group)


class _Exchange(torch.autograd.Function):  # type: ignore[misc] # torch has no types here
    @staticmethod
    def forward(ctx: Any, x: Any, send: list[int], receive: list[int], group: Any) -> Any:
        ctx.way_back = receive, send, group
        received = x.new_empty((sum(receive), *x.shape[1:]))
        dist.all_to_all_single(received, x.contiguous(), receive, send, group=group)
        return received

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, None, None, None]:
        return _Exchange.apply(gradient, *ctx.way_back), None, None, None
