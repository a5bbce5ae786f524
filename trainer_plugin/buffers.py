"""Memory for a row's pixels that a worker of a data loader hands over without a copy, and gets back.

Shared memory that is touched for the first time costs the system about as much as decoding the page it will hold. A
loader's worker allocates anew for every item, because it cannot know when an item was used. Here it can: the last
byte of a shared segment says that it is lent; the process that receives it clears the byte when the tensor, and every
view of it, is gone. A segment is written again only then, so a trainer may hold as many rows as it likes; a worker has
one more than were held at once. In a process of its own, memory is new for every row, in huge pages where there are.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

ROUND_TO = 1 << 24  # bytes of a segment: rows of similar size fit into each other's


class Buffers:
    """Allocates pixels. Picklable while it has lent nothing."""

    def __init__(self) -> None:
        self._segments: list[Any] = []  # 1-D uint8, shared; the last byte is 1 while it is lent

    def empty(self, num_rows: int, width: int) -> Any:
        """`[num_rows, width]` uint8, of any content."""
        if not num_rows or torch.utils.data.get_worker_info() is None:
            return torch.from_numpy(np.empty((num_rows, width), dtype=np.uint8))
        segment = self._segment(num_rows * width)
        segment[-1] = 1
        lent = segment[: num_rows * width].view(num_rows, width).as_subclass(_Lent)
        lent.segment = segment
        return lent

    def _segment(self, size: int) -> Any:
        """A segment that nobody has; where all that are free are too small, one of them makes room."""
        free = [i for i, segment in enumerate(self._segments) if not segment[-1]]
        fitting = [i for i in free if len(self._segments[i]) > size]
        if fitting:
            return self._segments[min(fitting, key=lambda i: len(self._segments[i]))]
        for i in free[:1]:
            del self._segments[i]
        rounded = -(-(size + 1) // ROUND_TO) * ROUND_TO
        storage = torch.UntypedStorage._new_shared(rounded)  # as torch's own collate function does
        segment = torch.empty(0, dtype=torch.uint8).set_(storage)
        self._segments.append(segment)
        return segment


class _Lent(torch.Tensor):  # type: ignore[misc] # torch has no types here
    """A part of a segment, until it is pickled: what arrives is a plain tensor that gives the segment back.

    What is made of it here is a plain tensor too, and its segment then stays lent for good.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl
    segment: Any

    def __reduce_ex__(self, protocol: Any) -> tuple[Callable[..., Any], tuple[Any, int, int]]:
        return _received, (self.segment, *self.shape)


def _received(segment: Any, num_rows: int, width: int) -> Any:
    whole = segment.numpy()
    part = whole[: num_rows * width].reshape(num_rows, width)
    weakref.finalize(part, _give_back, whole).atexit = False
    return torch.from_numpy(part)  # its memory belongs to `part`, which goes when the last view of it goes


def _give_back(whole: Any) -> None:
    whole[-1] = 0
