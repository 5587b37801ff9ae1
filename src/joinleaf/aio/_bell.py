"""Waiting for something that a callback tells of."""

from __future__ import annotations

import asyncio

__all__ = ["Bell"]


class Bell:
    """Rung by a callback, heard by tasks.

    Clear it, look, and wait if there was nothing: what rings between looking and waiting is heard.
    """

    __slots__ = ("_loop", "_rung", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._rung = False
        self._waiting: list[asyncio.Future[bool]] = []

    def clear(self) -> None:
        """Whatever rang so far has been seen to."""
        self._rung = False

    def ring(self) -> None:
        """Wake all that wait, and whoever waits next."""
        self._rung = True
        for future in self._waiting:
            if not future.done():
                future.set_result(True)

    async def wait(self, longest: float | None) -> bool:
        """Wait until it has rung since it was cleared; False after so many seconds."""
        if self._rung:
            return True
        future: asyncio.Future[bool] = self._loop.create_future()
        self._waiting.append(future)
        timer = None if longest is None else self._loop.call_later(longest, _expire, future)
        try:
            return await future
        finally:
            self._waiting.remove(future)
            if timer is not None:
                timer.cancel()


def _expire(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(False)
