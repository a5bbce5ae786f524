"""First come, first served, within both bounds."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.errors import EngineError
from synth.gate import Gate


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=20), st.integers(1, 4), st.integers(1, 40))
def test_bounds_hold_and_everyone_gets_in_by_turn(sizes: list[int], max_requests: int, max_bytes: int) -> None:
    gate, inside, order = Gate(max_requests, max_bytes), [], []

    async def visit(i: int, size: int) -> None:
        await gate.enter(size)
        inside.append(size)
        order.append(i)
        assert len(inside) <= max_requests
        assert sum(inside) <= max_bytes or len([s for s in inside if s]) == 1
        assert gate.held_bytes >= sum(inside)
        await asyncio.sleep(0)
        inside.remove(size)
        gate.leave(size)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for i, size in enumerate(sizes):
                group.create_task(visit(i, size))

    asyncio.run(main())
    assert order == list(range(len(sizes)))
    assert gate.held_bytes == 0


def test_a_large_request_is_not_overtaken_and_goes_alone() -> None:
    async def main() -> None:
        gate = Gate(10, 100)
        await gate.enter(60)
        large = asyncio.create_task(gate.enter(500))
        await settle()
        small = asyncio.create_task(gate.enter(1))
        await settle()
        assert not large.done()
        assert not small.done()
        gate.leave(60)
        await settle()
        assert large.done()
        assert not small.done()
        gate.leave(500)
        await small

    asyncio.run(main())


def test_a_request_that_turns_out_small_makes_room() -> None:
    async def main() -> None:
        gate = Gate(10, 100)
        await gate.enter(80)
        second = asyncio.create_task(gate.enter(80))
        await settle()
        assert not second.done()
        gate.resize(80, 20)
        await second
        assert gate.held_bytes == 100

    asyncio.run(main())


def test_whoever_stops_waiting_holds_up_nobody() -> None:
    async def main() -> None:
        gate = Gate(2, 100)
        await gate.enter(60)
        large = asyncio.create_task(gate.enter(90))
        await settle()
        small = asyncio.create_task(gate.enter(30))
        await settle()
        large.cancel()
        await small
        gate.leave(60)
        gate.leave(30)
        await gate.enter(100)

    asyncio.run(main())


def test_a_turn_that_comes_together_with_a_cancellation_is_given_back() -> None:
    async def main() -> None:
        gate = Gate(1, 100)
        await gate.enter(1)
        second = asyncio.create_task(gate.enter(2))
        await settle()
        gate.leave(1)  # it is the second one's turn, but it has not woken up yet
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert gate.held_bytes == 0
        await gate.enter(3)

    asyncio.run(main())


def test_a_shut_gate_turns_everyone_away() -> None:
    async def main() -> None:
        gate = Gate(1, 100)
        await gate.enter(1)
        waiting = [asyncio.create_task(gate.enter(1)) for _ in range(3)]
        await settle()
        waiting[0].cancel()
        gate.shut("gone fishing")
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(f) for f in found] == [asyncio.CancelledError, EngineError, EngineError]
        gate.leave(1)
        with pytest.raises(EngineError, match="gone fishing"):
            await gate.enter(1)

    asyncio.run(main())
