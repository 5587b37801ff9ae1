"""The short way of a batch to all that hear this end: one call of the kernel for each leg.

It holds for legs of which nothing is special: plain TCP, nothing queued, no rate. The driver makes
a lane after a batch has gone the long way without remainder, and gives it up as soon as anything
but data happens in the session; so that whoever has a lane need not look whether anything did.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Sequence
from itertools import repeat
from typing import Final

from joinleaf.core.outbox import MAX_VECTOR
from joinleaf.core.session import Leg, Session
from joinleaf.core.wire.data import PackedBatch
from joinleaf.drivers.connections import NO_SIGNAL, Connection
from joinleaf.spi.provider import Buffer

__all__ = ["Lane"]

_send: Final = socket.socket.send
_sendmsg: Final = socket.socket.sendmsg


class Lane:
    """See the module. Everything is called under the driver's lock.

    Attributes:
        keys: The legs.
    """

    __slots__ = ("_connections", "_legs", "_session", "_socks", "keys")

    def __init__(
        self,
        session: Session,
        keys: Sequence[int],
        legs: Sequence[Leg],
        connections: Sequence[Connection],
    ) -> None:
        self.keys = keys
        self._session = session
        self._legs = legs
        self._connections = connections
        self._socks = [connection.sock for connection in connections]

    @staticmethod
    def is_open(leg: Leg, connection: Connection) -> bool:
        """Whether a leg can be one of a lane just now."""
        return (
            type(connection) is Connection
            and not (connection.establishing or connection.broken or connection.closing)
            and not connection.half_closed
            and leg.association.active
            and not leg.association.outbox.size
            and leg.flow is None
            and not connection.dscp
            and not leg.missed
        )

    def send(self, messages: Sequence[Buffer]) -> PackedBatch | None:
        """Send a batch; None if the kernels of all legs have taken all of it.

        Otherwise what they have not taken is queued, as if the batch had gone the long way so far.

        Raises:
            TypeError, SpiError: As ``pack``; nothing has been sent.
        """
        session = self._session
        packed = session.pack(messages, self.keys)
        buffers, size = packed.buffers, packed.size
        first = session.sequence
        # Ctrl-C raises between any two steps of Python, and most likely right after a system call;
        # so the answers of the kernel are put into a list by the very call that asks it.
        counts: list[int] = []
        queueing = False
        try:
            with contextlib.suppress(OSError):  # the long way meets it again, whatever it is
                if len(buffers) == 1:
                    counts += map(_send, self._socks, repeat(buffers[0]), repeat(NO_SIGNAL))
                elif len(buffers) <= MAX_VECTOR:
                    flags = repeat(NO_SIGNAL)
                    counts += map(_sendmsg, self._socks, repeat(buffers), repeat(()), flags)
            if counts.count(size) == len(self._socks):
                for leg in self._legs:
                    leg.association.outbox.sent_bytes += size
                session.packed_sent(packed)
                return None
            queueing = True
            self._queue(packed, counts)
        except KeyboardInterrupt:
            if session.sequence == first and queueing:
                self._break_off()
            elif session.sequence == first and counts:
                self._queue(packed, counts)
            raise
        return packed

    def _break_off(self) -> None:
        """Nobody can tell what has been queued: nothing may follow what has been sent."""
        for leg, connection in zip(self._legs, self._connections, strict=True):
            leg.association.outbox.clear()
            connection.broken = errno.ECONNABORTED
            connection.end_sending()

    def _queue(self, packed: PackedBatch, counts: Sequence[int]) -> None:
        begun = len(counts)
        for number, (key, leg) in enumerate(zip(self.keys, self._legs, strict=True)):
            outbox = leg.association.outbox
            outbox.extend(packed.buffers, packed.size)
            if number < begun:
                outbox.sent(counts[number])
            if outbox.size:
                self._session.dirty[key] = None
        self._session.packed_sent(packed)
