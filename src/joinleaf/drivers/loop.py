"""A reactor on asyncio's event loop: background work without a thread of ours.

Works with every loop that has ``add_reader``: asyncio's own, uvloop; not Windows' proactor loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from joinleaf.drivers.names import Answers, look_up
from joinleaf.drivers.reactor import Callback, Cancellable, use_reactor
from joinleaf.values import Address

__all__ = ["LoopReactor", "look_up_soon"]

_log: Final = logging.getLogger("joinleaf")


class LoopReactor:
    """One for each endpoint, so that it can say when that endpoint has nothing left to do.

    Once the loop is closed nothing is watched or called any more, and nothing is refused: what is
    closed after its loop was, at the end of the interpreter say, must not fail.

    Args:
        loop: The running loop; its thread is the one that makes this.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._thread = threading.get_ident()
        self._watched: set[int] = set()
        self._waiting: list[asyncio.Future[None]] = []

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """What is opened and started in this block works on the loop."""
        with use_reactor(self):
            yield

    def watch(self, fd: int, callback: Callback) -> None:
        """Call back whenever ``fd`` is readable, until ``unwatch``."""
        self._on_loop(self._watch, fd, callback)

    def _watch(self, fd: int, callback: Callback) -> None:
        self._watched.add(fd)
        self.loop.add_reader(fd, _call, callback)

    def unwatch(self, fd: int) -> None:
        """Stop."""
        self._on_loop(self._unwatch, fd)

    def _unwatch(self, fd: int) -> None:
        if fd in self._watched:
            self._watched.remove(fd)
            self.loop.remove_reader(fd)
        if not self._watched:
            for future in self._waiting:
                if not future.done():
                    future.set_result(None)

    def call_later(self, seconds: float, callback: Callback) -> Cancellable:
        """Call back once, not before ``seconds`` have passed."""
        if self.loop.is_closed():
            return _Never()
        if threading.get_ident() == self._thread:
            return self.loop.call_later(seconds, _call, callback)
        call = _Call(callback)
        self._on_loop(self.loop.call_later, seconds, call)
        return call

    @property
    def is_current_thread(self) -> bool:
        """Whether this is the loop's thread; or no thread, where there is nobody to wait for."""
        return threading.get_ident() == self._thread or self.loop.is_closed()

    async def idle(self, longest: float) -> bool:
        """Wait until nothing is watched; False if that took longer than so many seconds."""
        if not self._watched or longest <= 0:
            return not self._watched
        future = self.loop.create_future()
        self._waiting.append(future)
        timer = self.loop.call_later(longest, future.cancel)
        try:
            await asyncio.wait((future,))
        finally:
            timer.cancel()
            self._waiting.remove(future)
        return not self._watched

    def _on_loop(self, action: Callable[..., Any], *arguments: Any) -> None:
        if self.loop.is_closed():
            return
        if threading.get_ident() == self._thread:
            action(*arguments)
        else:
            self.loop.call_soon_threadsafe(action, *arguments)


class _Never:
    def cancel(self) -> None:
        """It will not come."""


class _Call:
    """A call that another thread has asked for."""

    __slots__ = ("_callback",)

    def __init__(self, callback: Callback) -> None:
        self._callback: Callback | None = callback

    def cancel(self) -> None:
        self._callback = None

    def __call__(self) -> None:
        if self._callback is not None:
            _call(self._callback)


def _call(callback: Callback) -> None:
    try:
        callback()
    except Exception:
        # As in the background thread: a defect must not stop the sessions of all others.
        _log.exception("a callback on the event loop failed")


async def look_up_soon(address: Address, *, passive: bool = False) -> Answers:
    """Look a name up in a thread of the loop's executor; numbers and no host cost nothing."""
    if not address.host or address.ip is not None:
        return {}
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(None, partial(look_up, address, passive=passive))
