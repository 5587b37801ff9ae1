"""How much of a stream may wait in this host's own queue: as little as keeps the wire busy.

Where the first link is the narrowest, what waits is not lost and not seen as congestion; it waits
in front of the interface, and everybody else's packets wait behind it. TCP keeps its share of that
queue to a millisecond or two of its rate (TCP small queues); a datagram socket fills its buffer.

So the buffer is halved, a sixteenth at a time, as long as something is left in it whenever there is
room for more, and doubled when it has run empty: then this process was late, and the wire idle.
"""

from __future__ import annotations

from typing import Final, Protocol

__all__ = ["LocalQueue"]

LEAST_BYTES: Final = 1 << 14
"""A train at the lowest rates, and one more."""


class QueuePort(Protocol):
    """What ``LocalQueue`` asks of a socket; ``GroupSender`` is one."""

    def limit_queue(self, size: int) -> None:
        """Hold so many bytes, and as many of the kernel's own."""
        ...


class LocalQueue:
    """Sizes the queue of one socket.

    Args:
        port: The socket.
        most: What it holds now, and at most, bytes.
    """

    __slots__ = ("_most", "_port", "size")

    def __init__(self, port: QueuePort, most: int) -> None:
        self._port = port
        self._most = self.size = most

    def had_room(self, queued: int, train: int) -> None:
        """There was room again after the queue had been full.

        Args:
            queued: Bytes that had still not been sent, the kernel's own included.
            train: Bytes of what was sent then: two such fit at least.
        """
        size = self.size
        if queued * 16 < size:
            size = min(self._most, 2 * size)
        elif queued * 2 > size:
            size = max(LEAST_BYTES, 2 * train, size - size // 16)
        if size != self.size and size <= self._most:
            self.size = size
            self._port.limit_queue(size)
