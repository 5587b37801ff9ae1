"""Runs the transfer engine, which blocks, in a worker thread over a session of the event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from joinleaf.errors import SessionClosedError
from joinleaf.spi.provider import Batch, Buffer

if TYPE_CHECKING:
    from joinleaf.transfer.sender import Flag

__all__ = ["CallsTheLoop", "told_on_loop", "transferred"]

LAST_WORDS_S: Final = 1.0
"""What a cancelled transfer has to tell the other side, and to be told that it was heard."""

T = TypeVar("T")
P = TypeVar("P")


class CallsTheLoop:
    """A leaf as the engine wants it: calls that block the worker, and are awaited on the loop."""

    def __init__(
        self,
        send_many: Callable[..., Coroutine[Any, Any, None]],
        receive_many: Callable[..., Coroutine[Any, Any, Batch]],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._send_many = send_many
        self._receive_many = receive_many
        self._pending: concurrent.futures.Future[Any] | None = None
        self._cut = False

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Have it done on the loop, and wait for it."""
        if self._cut:
            work.close()
            raise _cut_short()
        pending: concurrent.futures.Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._pending = pending
        try:
            return pending.result()
        except concurrent.futures.CancelledError:
            raise _cut_short() from None

    def cut(self) -> None:
        """End the call under way, and all that follow, as if the session had ended."""
        self._cut = True
        if self._pending is not None:
            self._pending.cancel()

    def send_many(self, messages: Sequence[Buffer], *, timeout: float | None = None) -> None:
        """As the session's."""
        self.wait_for(self._send_many(messages, timeout=timeout))

    def receive_many(self, *, timeout: float | None = None) -> Batch:
        """As the session's."""
        return self.wait_for(self._receive_many(timeout=timeout))


def _cut_short() -> SessionClosedError:
    return SessionClosedError("the transfer was cancelled", reason="cancelled")


class _Cancelled:
    """Set by the user's own flag, or by the cancellation of the task that waits."""

    def __init__(self, other: Flag | None) -> None:
        self._other = other
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set() or (self._other is not None and self._other.is_set())


async def transferred(channel: CallsTheLoop, work: Callable[[Flag], T], cancel: Flag | None) -> T:
    """Run the engine in a worker; a cancelled task cuts it short, and waits until it has stopped.

    Args:
        channel: What the engine works on.
        work: The engine's call; it is given the flag to look at.
        cancel: The user's own flag.
    """
    flag = _Cancelled(cancel)
    worker = asyncio.ensure_future(asyncio.to_thread(work, flag))
    try:
        return await asyncio.shield(worker)
    except asyncio.CancelledError:
        flag.set()
        timer = asyncio.get_running_loop().call_later(LAST_WORDS_S, channel.cut)
        while not worker.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait((worker,))
        timer.cancel()
        if not worker.cancelled():
            worker.exception()  # it is cut short, whatever it says
        raise


def told_on_loop(callback: Callable[[P], object] | None) -> Callable[[P], None] | None:
    """Have progress told on the loop, where everything else of the program happens."""
    if callback is None:
        return None
    loop = asyncio.get_running_loop()

    def tell(progress: P) -> None:
        loop.call_soon_threadsafe(callback, progress)

    return tell
