"""An order of ids that the ids alone decide, for millions of them: by a 64-bit hash, then by their text.

Any such order will do: it makes a plan the same whatever order its table came in. Sorting hashes takes a quarter of the
time of sorting texts, and finds ids that occur twice on the way. The hash is Fibonacci's multiplication over words of
eight bytes, with a shift between; it need not withstand anybody, because ties are told apart by their text.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

IntArray = npt.NDArray[np.int64]
HashArray = npt.NDArray[np.uint64]

WORD = 8  # bytes
CHUNK_BYTES = 32 << 20  # of padded ids held at once

_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, odd


class RepeatedId(ValueError):
    """An id that occurs twice: the places of its first two occurrences are `first` and `second`."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"entries {first} and {second} are the same id")
        self.first, self.second = first, second


def order_of_ids(ids: pa.Array) -> IntArray:
    """The places of `ids` (strings) in their order.

    Raises:
        RepeatedId: an id occurs twice.
    """
    hashes = hash_ids(ids)
    if (hashes[1:] > hashes[:-1]).all():
        return np.arange(len(hashes))
    order = np.argsort(hashes, kind="stable").astype(np.int64)
    ordered = hashes[order]
    tied = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(tied):
        _order_ties(ids, order, tied)
    return order


def _order_ties(ids: pa.Array, order: IntArray, tied: IntArray) -> None:
    """Put entries of equal hash in the order of their texts; `tied` are the places whose next entry has the same."""
    for run in np.split(tied, np.flatnonzero(np.diff(tied) > 1) + 1):
        start, stop = int(run[0]), int(run[-1]) + 2
        texts = sorted((ids[i].as_py(), i) for i in order[start:stop].tolist())
        for (text, place), (following, next_place) in pairwise(texts):
            if text == following:
                raise RepeatedId(place, next_place)
        order[start:stop] = [place for _, place in texts]


def hash_ids(ids: pa.Array, seed: int = 0) -> HashArray:
    """A 64-bit hash of each string, the same on every machine."""
    array = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    array = array.cast(pa.large_string())
    _, offset_buffer, data = array.buffers()
    offsets = np.frombuffer(offset_buffer, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    content = np.frombuffer(data, dtype=np.uint8) if data is not None else np.empty(0, dtype=np.uint8)
    lengths = np.diff(offsets)
    hashes = np.empty(len(array), dtype=np.uint64)
    start = 0
    while start < len(array):
        width = -(-max(int(lengths[start : start + CHUNK_BYTES // WORD].max()), 1) // WORD) * WORD
        stop = min(start + max(CHUNK_BYTES // width, 1), len(array))
        padded = np.zeros((stop - start, width), dtype=np.uint8)
        each, part = lengths[start:stop], content[offsets[start] : offsets[stop]]
        if (each == each[0]).all():  # the same as below, four times as fast
            padded[:, : each[0]] = part.reshape(len(each), -1)
        else:
            padded[np.arange(width) < each[:, None]] = part
        hashes[start:stop] = _mix(padded.view("<u8"), each, seed)
        start = stop
    return hashes


def _mix(words: npt.NDArray[np.uint64], lengths: IntArray, seed: int) -> HashArray:
    hashes = (lengths.astype(np.uint64) + np.uint64(seed) * _FACTOR + np.uint64(1)) * _FACTOR
    for i, column in enumerate(words.T):
        mixed = (hashes ^ (hashes >> np.uint64(32)) ^ column) * _FACTOR
        held = lengths > i * WORD  # padding is no part of an id
        hashes = mixed if held.all() else np.where(held, mixed, hashes)
    hashes ^= hashes >> np.uint64(29)
    hashes *= _FACTOR
    return hashes ^ (hashes >> np.uint64(32))
