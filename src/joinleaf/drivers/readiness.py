"""One descriptor that is readable while a socket is, or while something read is still undelivered.

A program with a loop of its own (select, trio, a GUI) takes ``fileno()`` and calls receive once it
is readable. Datagrams of a second sender that were drained along with the first one's would then
lie there unseen until the next one arrives; so they have to make the descriptor readable too.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys

__all__ = ["ReadySignal"]


class ReadySignal:
    """An epoll over the socket and an eventfd. Linux only: see ``available``.

    Args:
        fd: The socket's descriptor; it must outlive this object or be closed right before it.
    """

    available = sys.platform == "linux"

    __slots__ = ("_epoll", "_event", "_raised")

    def __init__(self, fd: int) -> None:
        assert sys.platform == "linux", "ask for ReadySignal.available first"
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(fd, select.EPOLLIN)
        self._epoll.register(self._event, select.EPOLLIN)
        self._raised = False

    def fileno(self) -> int:
        """The descriptor to watch; -1 once closed. Nothing can be read from it."""
        return -1 if self._epoll.closed else self._epoll.fileno()

    def set(self, undelivered: bool) -> None:
        """Say whether something read is still undelivered; costs a call only on change."""
        if undelivered == self._raised or self._epoll.closed or sys.platform != "linux":
            return
        self._raised = undelivered
        with contextlib.suppress(BlockingIOError):  # another thread said the same
            if undelivered:
                os.eventfd_write(self._event, 1)
            else:
                os.eventfd_read(self._event)

    def close(self) -> None:
        """Give the descriptors back. Twice is allowed."""
        if not self._epoll.closed:
            self._epoll.close()
            os.close(self._event)
