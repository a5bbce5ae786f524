"""Who may go to the server next: so many requests at once, holding so many bytes of images at once.

First come, first served: a request with many pages is not overtaken by small ones until it starves. A request larger
than the whole bound goes alone. When the server is given up, everyone who waits is told so.
"""

from __future__ import annotations

import asyncio
from collections import deque

from corpus.errors import EngineError


class Gate:
    """Lets `max_requests` in at once, as long as they hold no more than `max_bytes`. For one event loop."""

    def __init__(self, max_requests: int, max_bytes: int) -> None:
        self._max_requests, self._max_bytes = max_requests, max_bytes
        self._requests = self._bytes = 0
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._shut = ""

    @property
    def held_bytes(self) -> int:
        """What those inside hold."""
        return self._bytes

    async def enter(self, num_bytes: int) -> None:
        """Wait for a place, and for room for so many bytes. Whoever entered must `leave`.

        Raises:
            EngineError: the gate was shut, before or while waiting.
        """
        if self._shut:
            raise EngineError(self._shut)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((num_bytes, turn))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.exception() is None:  # it was this one's turn at the same moment
                self.leave(num_bytes)
            else:
                self._admit()
            raise

    def leave(self, num_bytes: int) -> None:
        """Give back a place, and the bytes that are held at last."""
        self._requests -= 1
        self._bytes -= num_bytes
        self._admit()

    def resize(self, before: int, after: int) -> None:
        """Hold `after` bytes instead of `before`. It never waits: what was loaded is in memory already."""
        self._bytes += after - before
        self._admit()

    def shut(self, why: str) -> None:
        """Turn away everyone who waits, and everyone who comes."""
        self._shut = why
        while self._queue:
            _, turn = self._queue.popleft()
            if not turn.done():
                turn.set_exception(EngineError(why))

    def _admit(self) -> None:
        while self._queue:
            num_bytes, turn = self._queue[0]
            if not turn.done():  # else it was cancelled
                if self._requests >= self._max_requests:
                    return
                if self._bytes and self._bytes + num_bytes > self._max_bytes:
                    return
                self._requests += 1
                self._bytes += num_bytes
                turn.set_result(None)
            self._queue.popleft()
