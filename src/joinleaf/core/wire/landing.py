"""Where trains land: memory that is received into, and the payloads in it as views made once.

Slicing the payloads out of a train of 43 symbols takes as long as copying them. A landing does not
move, so its slices can be kept: joining kept ones takes 1.7 us for 61 KB, cutting them first 4.0
(numpy's strided copy: 2.0; receiving into 86 pieces: 4.2).

A long message is joined once, from all the landings that hold its parts. Each of them therefore has
one owner: whoever receives takes a fresh one if what it received was kept, and ``Landings.free``
is called where the last byte has been copied, and nowhere else. A landing that is forgotten is
merely collected; one that was used again too soon would be silent corruption.

A unit of which something was lost lies in several places: in landings, and in copies of what came
in trains too short to keep (``Scattered``).
"""

from __future__ import annotations

from typing import Final

from joinleaf.core.wire.units import HEADER_SIZE, MAX_SYMBOLS
from joinleaf.spi.provider import Buffer

__all__ = ["LANDING_BYTES", "Landing", "Landings", "Scattered"]

LANDING_BYTES: Final = 1 << 16
"""No train is longer than a datagram may be, 65,535 bytes."""

KEPT: Final = 64
"""Landings that wait to be used again: 4 MiB, as much as the stream may have under way."""


class Landing:
    """Room for one train.

    Attributes:
        view: All of it, to receive into.
        size: Bytes that were received.
        segment: Bytes from one symbol to the next; the last may be shorter.
    """

    __slots__ = ("_cut", "_payloads", "segment", "size", "view")

    def __init__(self) -> None:
        self.view: Final = memoryview(bytearray(LANDING_BYTES))
        self.size = 0
        self.segment = 1
        self._cut = 0
        self._payloads: list[memoryview] = []  # for the segment size ``_cut``

    def fill(self, train: Buffer, segment: int) -> None:
        """Take in a train that was not received from a socket: a simulated one.

        Args:
            train: At most LANDING_BYTES.
            segment: Bytes of each datagram in it but the last, which may be shorter.
        """
        self.size = len(train)
        self.segment = min(segment, self.size)
        self.view[: self.size] = train

    @property
    def count(self) -> int:
        """Symbols in it."""
        return -(-self.size // self.segment)

    @property
    def payload_bytes(self) -> int:
        """Bytes of the stream in it."""
        return self.size - self.count * HEADER_SIZE

    def payloads(self) -> list[memoryview]:
        """The payload of each symbol, in their order."""
        segment, size = self.segment, self.size
        if size <= segment:
            return [self.view[HEADER_SIZE:size]]
        if segment != self._cut:
            self._keep(segment)
        count = -(-size // segment)
        if size == count * segment:
            return self._payloads[:count]
        parts = self._payloads[: count - 1]
        parts.append(self.view[(count - 1) * segment + HEADER_SIZE : size])
        return parts

    def joined(self) -> bytes | memoryview:
        """The payloads as one: a view if there is one symbol, else a copy."""
        parts = self.payloads()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @property
    def landings(self) -> tuple[Landing]:
        """Where it lies."""
        return (self,)

    def _keep(self, segment: int) -> None:
        end = min(LANDING_BYTES, segment * MAX_SYMBOLS)
        self._payloads = [
            self.view[at + HEADER_SIZE : at + segment] for at in range(0, end, segment)
        ]
        self._cut = segment


class Scattered:
    """A whole unit that lies in several places.

    Args:
        parts: The payload of each symbol, in their order.
        landings: Those that some of them lie in, and nothing else that is of use.
        payload_bytes: Bytes of all parts.
    """

    __slots__ = ("_parts", "landings", "payload_bytes")

    def __init__(
        self, parts: list[bytes | memoryview], landings: list[Landing], payload_bytes: int
    ) -> None:
        self._parts = parts
        self.landings = landings
        self.payload_bytes = payload_bytes

    def payloads(self) -> list[bytes | memoryview]:
        """The payload of each symbol, in their order."""
        return self._parts

    def joined(self) -> bytes | memoryview:
        """The payloads as one."""
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)


class Landings:
    """Landings that are not in use."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: list[Landing] = []

    def take(self) -> Landing:
        """One that nobody looks at; the last that was freed, as it is still in the cache."""
        return self._kept.pop() if self._kept else Landing()

    def free(self, unit: Landing | Scattered) -> None:
        """Nobody looks at what it lies in any more."""
        if len(self._kept) < KEPT:
            self._kept += unit.landings
