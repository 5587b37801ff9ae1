"""The listening socket of a session, and what to do when no further connection can be taken."""

from __future__ import annotations

import errno
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Final

from joinleaf.drivers.connections import address_of, let_share, tune
from joinleaf.drivers.poller import READ, Poller
from joinleaf.drivers.reactor import Reactor
from joinleaf.drivers.seldom import Seldom
from joinleaf.values import Address

__all__ = ["Listener"]

_log: Final = logging.getLogger("joinleaf")

ACCEPT_BUDGET: Final = 64
"""Connections taken per turn, so that a flood of them does not starve the legs."""

PAUSE_S: Final = 0.2
"""Without descriptors for more, it is left alone this long: it would be ready all the time."""

_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Listener:
    """Takes connections from a bound socket. Everything under the driver's lock.

    Args:
        sock: Bound; listens from now on.
        backlog: Connections that the system keeps until they are taken, at least 1.
        lock: The driver's.
        poller: The driver's; watches the socket.
        reactor: Comes back to a listener that was left alone.
        count: Adds to a counter of the session.
    """

    def __init__(
        self,
        sock: socket.socket,
        backlog: int,
        lock: threading.RLock,
        poller: Poller,
        reactor: Reactor,
        count: Callable[[str], None],
    ) -> None:
        self._sock: socket.socket | None = sock
        self._fd = sock.fileno()
        self._lock = lock
        self._poller = poller
        self._reactor = reactor
        self._count = count
        self._warning = Seldom()
        let_share(sock)  # its connections inherit it
        self.set_backlog(backlog)
        poller.watch(self._fd, READ)

    def fileno(self) -> int:
        """Its descriptor."""
        return self._fd

    def set_backlog(self, backlog: int) -> None:
        """Change how many connections the system keeps."""
        if self._sock is not None:
            self._sock.listen(min(backlog, 65535))

    def accept(self) -> Iterator[tuple[socket.socket, Address]]:
        """Connections that wait, each with its peer, nonblocking; at most ACCEPT_BUDGET."""
        for _ in range(ACCEPT_BUDGET):
            if self._sock is None:
                return
            try:
                sock, place = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause(error)
                return  # or the connection was gone before it was taken
            sock.setblocking(False)
            tune(sock)
            yield sock, address_of(place)

    def _pause(self, error: OSError) -> None:
        self._count("accepts_failed")
        if self._warning.due():
            _log.warning(
                "cannot take further connections: %s. Raise the limit of open files (ulimit -n)",
                error.strerror,
            )
        self._poller.forget(self._fd)
        self._reactor.call_later(PAUSE_S, self._resume)

    def _resume(self) -> None:
        with self._lock:
            if self._sock is not None:
                self._poller.watch(self._fd, READ)

    def close(self) -> None:
        """Stop listening."""
        if self._sock is not None:
            self._poller.forget(self._fd)
            self.abandon()

    def abandon(self) -> None:
        """Close it only: the poller is another process's."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
