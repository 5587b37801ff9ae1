"""The one primitive every blocking wait goes through: a socket, a cancellation, or a deadline.

A ``Waiter`` belongs to one endpoint. Several threads may wait in it at once (one that sends and
one that receives, say); ``interrupt`` ends the waits of all of them with WSAEINTR, ``close`` does
so for good. Nothing polls: a waiting thread sits in one system call that watches the socket and a
wake-up descriptor of its own.

The fast path does not come here: a caller tries the non-blocking call first and waits only after
WSAEWOULDBLOCK::

    mark = waiter.mark()                      # before anything else in the blocking call
    while not (done := attempt()):
        if not waiter.wait_readable(fd, left(), mark=mark):
            raise SpiError(WSAETIMEDOUT, ...)

Each waiting thread borrows a slot: a poll object and a wake-up descriptor, kept for the next wait.
One descriptor shared by all would need somebody to decide who may drain it; two threads that wake
at different times would then either spin or lose a wake-up.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import socket
import sys
import threading
from typing import Final, Protocol

from joinleaf.errors import SpiError
from joinleaf.spi.codes import WSAEINTR

__all__ = ["Waiter"]

_READABLE: Final = 1
_WRITABLE: Final = 2
_FOREVER: Final = 2_000_000.0  # seconds; poll(2) counts milliseconds in 31 bits


class Waiter:
    """Waits for sockets in the caller's thread, until ready, interrupted or out of time.

    Making one costs nothing in the kernel: descriptors appear with the first wait. All methods
    may be called from any thread.
    """

    __slots__ = ("_busy", "_closed", "_free", "_generation", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[_Slot] = []
        self._busy: list[_Slot] = []  # one for each thread inside a wait: two or three
        self._generation = 0
        self._closed = False

    def mark(self) -> int:
        """The number of interruptions so far.

        A blocking call takes it when it starts and hands it to each of its waits; an interruption
        that comes between two of them, or just before the first, then still ends the call.
        """
        return self._generation

    @property
    def closed(self) -> bool:
        """Whether every further wait is refused with WSAEINTR."""
        return self._closed

    def wait_readable(
        self, fd: int, timeout: float | None = None, *, mark: int | None = None
    ) -> bool:
        """Wait until ``fd`` is readable, or has ended or failed, which the next read will tell.

        Args:
            fd: A descriptor of a socket (on POSIX, of anything that can be polled).
            timeout: Seconds; None waits for ever, 0 or less asks and does not wait.
            mark: What ``mark()`` said at the start of the blocking call; None: now.

        Returns:
            False if the time is over and it is not readable.

        Raises:
            SpiError: WSAEINTR, interrupted or closed; also if ``fd`` is no open descriptor, which
                is what a close by another thread looks like.
        """
        return self._wait(fd, _READABLE, timeout, mark)

    def wait_writable(
        self, fd: int, timeout: float | None = None, *, mark: int | None = None
    ) -> bool:
        """Wait until ``fd`` takes data, or has failed; otherwise like ``wait_readable``."""
        return self._wait(fd, _WRITABLE, timeout, mark)

    def interrupt(self) -> int:
        """End every wait of this moment with WSAEINTR; later calls are not affected.

        Returns:
            How many threads were waiting.
        """
        with self._lock:
            self._generation += 1
            for slot in self._busy:
                slot.wake()
            return len(self._busy)

    def close(self) -> None:
        """End every wait, now and later, with WSAEINTR, and give the descriptors back.

        Close it before the socket it waits for, so that no thread polls a descriptor number that
        the system has already given to somebody else. Twice is allowed.
        """
        with self._lock:
            self._closed = True
            self._generation += 1
            for slot in self._busy:  # each is closed by its own thread, on the way out
                slot.wake()
            while self._free:
                self._free.pop().close()

    def _wait(self, fd: int, what: int, timeout: float | None, mark: int | None) -> bool:
        if fd < 0:
            raise _interrupted()
        if timeout is not None:
            timeout = max(0.0, timeout) if timeout < _FOREVER else None
        # In one piece: between a message and its answer there are two of these.
        lock, busy = self._lock, self._busy
        with lock:
            generation = self._generation
            if self._closed or (mark is not None and mark != generation):
                raise _interrupted()
            slot = self._free.pop() if self._free else _new_slot()
            busy.append(slot)
        try:
            ready = slot.wait(fd, what, timeout)
        finally:
            with lock:
                busy.remove(slot)
                if self._closed:
                    slot.close()
                else:
                    if generation != self._generation:
                        slot.drain()
                    self._free.append(slot)
        if self._generation != generation or ready is None:
            raise _interrupted()
        return ready


def _interrupted() -> SpiError:
    return SpiError(WSAEINTR, "the blocking call was cancelled, or its endpoint closed")


class _Slot(Protocol):
    """What one waiting thread needs. ``wait`` gives None if the descriptor is not open."""

    def wait(self, fd: int, what: int, timeout: float | None) -> bool | None: ...

    def wake(self) -> None: ...

    def drain(self) -> None: ...

    def close(self) -> None: ...


class _Wake:
    """A descriptor that another thread can make readable: an eventfd, or half a socket pair."""

    __slots__ = ("_receiver", "_sender", "fd")

    def __init__(self) -> None:
        self._receiver: socket.socket | None = None
        self._sender: socket.socket | None = None
        if sys.platform == "linux":
            self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._receiver, self._sender = socket.socketpair()
            self._receiver.setblocking(False)
            self._sender.setblocking(False)
            self.fd = self._receiver.fileno()

    def set(self) -> None:
        # A full buffer or counter means that it is readable already.
        with contextlib.suppress(BlockingIOError):
            if self._sender is not None:
                self._sender.send(b"\0")
            elif sys.platform == "linux":
                os.eventfd_write(self.fd, 1)

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            if self._receiver is not None:
                while self._receiver.recv(4096):
                    pass
            elif sys.platform == "linux":
                os.eventfd_read(self.fd)

    def close(self) -> None:
        if self._receiver is not None and self._sender is not None:
            self._receiver.close()
            self._sender.close()
        else:
            os.close(self.fd)


class _PollSlot:
    """A slot around ``select.poll``: no kernel state, so a closed descriptor shows at once."""

    __slots__ = ("_fd", "_mask", "_poll", "_wake")

    def __init__(self) -> None:
        self._wake = _Wake()
        self._poll = select.poll()
        self._poll.register(self._wake.fd, select.POLLIN)
        self._fd = -1
        self._mask = 0

    def wait(self, fd: int, what: int, timeout: float | None) -> bool | None:
        if fd == self._wake.fd:  # closed meanwhile, and the number went to this slot
            return None
        mask = select.POLLIN if what == _READABLE else select.POLLOUT
        if fd != self._fd or mask != self._mask:
            if self._fd not in (-1, fd):
                self._poll.unregister(self._fd)
            self._poll.register(fd, mask)
            self._fd, self._mask = fd, mask
        # Python takes milliseconds, rounds up, and restarts after a signal with what is left.
        for number, events in self._poll.poll(None if timeout is None else timeout * 1000):
            if number == fd:
                return None if events & select.POLLNVAL else True
        return False

    def wake(self) -> None:
        self._wake.set()

    def drain(self) -> None:
        self._wake.clear()

    def close(self) -> None:
        self._wake.close()


class _SelectorSlot:
    """A slot around the best selector there is, for systems without poll (Windows).

    Untested there by us; on Linux the tests run it in place of the other.
    """

    __slots__ = ("_wake",)

    def __init__(self) -> None:
        self._wake = _Wake()

    def wait(self, fd: int, what: int, timeout: float | None) -> bool | None:
        if fd == self._wake.fd:  # closed meanwhile, and the number went to this slot
            return None
        # Made anew for each wait: a kept one would watch whatever took over a closed number.
        with selectors.SelectSelector() as selector:
            selector.register(self._wake.fd, selectors.EVENT_READ)
            mask = selectors.EVENT_READ if what == _READABLE else selectors.EVENT_WRITE
            selector.register(fd, mask)
            try:
                ready = selector.select(timeout)
            except (OSError, ValueError):
                return None
        return any(key.fd == fd for key, _ in ready)

    def wake(self) -> None:
        self._wake.set()

    def drain(self) -> None:
        self._wake.clear()

    def close(self) -> None:
        self._wake.close()


def _new_slot() -> _Slot:
    return _PollSlot() if hasattr(select, "poll") else _SelectorSlot()
