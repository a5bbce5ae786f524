"""Who shares a row, and the exchange between them; also what the helper for such tests promises."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from distributed import Processes, ProcessFailed
from hypothesis import given
from hypothesis import strategies as st

from corpus.errors import ConfigError
from trainer_plugin.mesh import exchange, join, padded, place


@pytest.fixture(scope="module")
def four() -> Iterator[Processes]:
    with Processes(4) as processes:
        yield processes


def test_ranks_of_a_group_are_neighbours() -> None:
    places = [place(rank, 8, 4) for rank in range(8)]
    assert [(m.data_rank, m.rank) for m in places] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3)]
    assert {(m.size, m.data_size) for m in places} == {(4, 2)}


@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 50))
def test_parts_cover_a_row_once(size: int, data_size: int, length: int) -> None:
    length = padded(length, size)
    parts = [place(rank, size * data_size, size).part(length) for rank in range(size)]
    assert [t for part in parts for t in range(length)[part]] == list(range(length))
    assert len({part.stop - part.start for part in parts}) == 1


@given(st.integers(0, 1000), st.integers(1, 64))
def test_padding_is_the_least(length: int, size: int) -> None:
    assert padded(length, size) % size == 0 and 0 <= padded(length, size) - length < size


@pytest.mark.parametrize("size", [0, 3, 16])
def test_a_size_that_does_not_divide_the_world_is_refused_with_those_that_do(size: int) -> None:
    with pytest.raises(
        ConfigError, match=f"sequence_parallel_size = {size} does not divide 8 processes; use one of 1, 2, 4, 8"
    ):
        place(0, 8, size)


def test_without_a_process_group_there_is_a_world_of_one() -> None:
    mesh = join(1)
    assert (mesh.size, mesh.data_size, mesh.group) == (1, 1, None)
    x = torch.ones(3)
    assert exchange(x, [3], [3], mesh) is x
    with pytest.raises(ConfigError, match="does not divide 1 processes; use one of 1"):
        join(2)


def test_workers_of_a_loader_get_the_place_alone() -> None:
    mesh = replace(place(5, 8, 4), group=object())
    assert pickle.loads(pickle.dumps(mesh)) == place(5, 8, 4)
    with pytest.raises(AssertionError, match="only the process that joined can exchange"):
        exchange(torch.ones(4), [1] * 4, [1] * 4, place(5, 8, 4))


def trade(size: int) -> tuple[Any, ...]:
    """Rank r sends r + 2 * s + 1 rows to rank s, each row the pair (r, s)."""
    mesh = join(size)
    send = [mesh.rank + 2 * s + 1 for s in range(size)]
    receive = [r + 2 * mesh.rank + 1 for r in range(size)]
    rows = [[float(mesh.rank), float(s)] for s in range(size) for _ in range(send[s])]
    x = torch.tensor(rows, requires_grad=True)
    got = exchange(x, send, receive, mesh)
    (got * (got.detach().sum(1, keepdim=True) + 10 * mesh.rank)).sum().backward()
    assert x.grad is not None
    return mesh.data_rank, mesh.rank, got.tolist(), x.grad.tolist()


@pytest.mark.parametrize("size", [2, 4])
def test_rows_reach_their_rank_and_gradients_come_back(four: Processes, size: int) -> None:
    for world_rank, (data_rank, rank, got, gradient) in enumerate(four.run(trade, size)):
        assert (data_rank, rank) == (world_rank // size, world_rank % size)
        assert got == [[r, rank] for r in range(size) for _ in range(r + 2 * rank + 1)]
        # The reader s weighs a row (r, s) with r + s + 10 s.
        assert gradient == [[rank + 11 * s] * 2 for s in range(size) for _ in range(rank + 2 * s + 1)]


def fail(how: str) -> None:
    if int(os.environ["RANK"]) == 1:
        if how == "raises":
            raise KeyError("the reason")
        if how == "dies":
            os._exit(3)
        time.sleep(600)
    torch.distributed.barrier()  # the other waits


@pytest.mark.parametrize(
    ("how", "message"),
    [("raises", "KeyError: 'the reason'"), ("dies", "rank 1 died"), ("hangs", r"ranks \[0, 1\] took")],
)
def test_a_process_that_fails_is_reported_and_none_is_left(how: str, message: str) -> None:
    with Processes(2) as processes:
        with pytest.raises(ProcessFailed, match=message):
            processes.run(fail, how, timeout_s=2 if how == "hangs" else 60)
        assert not any(p.is_alive() for p in processes.processes)
