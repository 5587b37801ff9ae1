"""The receiving half of a multicast endpoint: waiting for datagrams, readiness, what is queued."""

from __future__ import annotations

import math
import socket
import threading
import time

from joinleaf.drivers.datagrams import DatagramReader
from joinleaf.drivers.readiness import ReadySignal
from joinleaf.drivers.waiting import Waiter
from joinleaf.errors import SpiError
from joinleaf.providers import ip_membership
from joinleaf.providers.ip_membership import Membership
from joinleaf.spi.codes import (
    WSAEINTR,
    WSAETIMEDOUT,
    WSAEWOULDBLOCK,
    spi_error_from_os,
)
from joinleaf.spi.provider import Batch

__all__ = ["Incoming"]


class Incoming:
    """What has arrived at one endpoint. ``lock`` is held by whoever receives.

    Args:
        sock: The socket.
        reader: Reads it.
        waiter: Waits for it.
        membership: Looked after while nothing arrives.

    Attributes:
        lock: Admits one receiver at a time.
    """

    __slots__ = ("_membership", "_one_by_one", "_ready", "_sock", "_waiter", "lock", "reader")

    def __init__(
        self, sock: socket.socket, reader: DatagramReader, waiter: Waiter, membership: Membership
    ) -> None:
        self._sock = sock
        self.reader = reader
        self._waiter = waiter
        self._membership = membership
        self.lock = threading.Lock()
        self._ready: ReadySignal | None = None
        self._one_by_one = False

    @property
    def is_waiting(self) -> bool:
        """Whether something has been read and not fetched."""
        return bool(self.reader.pending)

    def next_batch(self, timeout: float | None, mark: int) -> Batch:
        """The oldest batch, waited for; see ``Endpoint.receive_many`` for the errors."""
        pending = self.reader.pending
        if pending:
            return pending.popleft()
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            self._drain()
            if pending:
                return pending.popleft()
            now = time.monotonic()
            self._membership.look_after(now)
            left = min(ip_membership.LOOK_INTERVAL, deadline - now)
            if left <= 0:
                raise _nothing(timeout)
            self._waiter.wait_readable(self._sock.fileno(), left, mark=mark)

    def bytes_waiting(self, can_hear: bool) -> int:
        """FIONREAD for messages: all that is queued, as far as one drain reaches."""
        if can_hear and self.lock.acquire(blocking=False):
            try:
                if not self.reader.pending:
                    self._drain()
            finally:
                self.tell_readiness()
                self.lock.release()
        return sum(
            len(message) for batch in tuple(self.reader.pending) for message in batch.messages
        )

    def fileno(self) -> int:
        """A descriptor that is readable while something can be received."""
        if not ReadySignal.available:
            self._one_by_one = True  # so that nothing read is ever left undelivered
            return self._sock.fileno()
        if self._ready is None:
            self._ready = ReadySignal(self._sock.fileno())
            self.tell_readiness()
        return self._ready.fileno()

    def tell_readiness(self) -> None:
        """Have the descriptor say whether something is left; after every read."""
        if self._ready is not None:
            self._ready.set(bool(self.reader.pending))

    def close(self) -> None:
        """Give the descriptor back."""
        if self._ready is not None:
            self._ready.close()

    def _drain(self) -> None:
        try:
            if self._one_by_one:
                self.reader.drain(1)
            else:
                self.reader.drain()
        except OSError as error:
            if self._membership.is_closed:
                raise SpiError(WSAEINTR, "closed by another thread", call="receive") from error
            if not self.reader.pending:
                raise spi_error_from_os(error, call="receive") from error


def _nothing(timeout: float | None) -> SpiError:
    if timeout is not None and timeout <= 0:
        return SpiError(WSAEWOULDBLOCK, "nothing has arrived", call="receive")
    return SpiError(WSAETIMEDOUT, f"nothing arrived within {timeout} s", call="receive")
