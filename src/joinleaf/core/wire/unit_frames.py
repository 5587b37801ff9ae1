"""Frames out of the units of the multicast stream.

A connection's bytes lie in a buffer that is used again, so what a read cuts off has to be copied
out of it (``frames.FrameReader``). Units stay where they are until their turn; then the parts of a
long message are copied once, to where they belong in it, and the landing is free for the next
train. So it is still in the cache, which a message of a megabyte that lies in its landings is not.

A ``BytesIO`` is what can be filled and then handed out as ``bytes`` without another copy; it has to
be written full of zeros first. ``_trains.c`` does neither, and has the same reader in C.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Final

from joinleaf.core.wire.frames import (
    DATA,
    DATA_HEADER_SIZE,
    DATA_PREFIX,
    HEADER,
    parse_header,
)
from joinleaf.core.wire.landing import Landing, Landings, Scattered

__all__ = ["UnitFrame", "UnitReader"]


MADE_AT_ONCE: Final = 2 << 20
"""Bytes that a header alone makes a leaf set aside; what is longer grows as it comes."""


UnitFrame = tuple[int, int, int, int, bytes | memoryview | list[bytes], int]
"""A whole frame of the stream.

Its kind, as ``frames.Kind``; of DATA flags, who sent it and the number of its first message, else
zeros; what follows, or the messages of a batch if they have been taken apart already; and how many
bytes that is on the wire.
"""


class UnitReader:
    """Cuts units into frames.

    Args:
        max_body: Longest body of DATA, in bytes; bounds what is held of a frame.
        landings: Where landings go that are done with.
    """

    __slots__ = ("_begun", "_head", "_landings", "_max_body", "_missing", "_room")

    def __init__(self, max_body: int, landings: Landings) -> None:
        self._max_body = max_body
        self._landings = landings
        self._head = b""  # a header that a unit's end has cut
        self._begun = (0, 0, 0, 0)  # the frame that has begun to come, but for its payload
        self._room = BytesIO()  # what has come of it
        self._missing = 0

    @property
    def in_frame(self) -> bool:
        """Whether a part of a frame is held."""
        return self._missing > 0

    def take(self, unit: bytes | Landing | Scattered) -> Iterable[UnitFrame]:
        """The frames that this unit completes; each is valid until the next is asked for.

        Raises:
            RemoteProtocolError: While they are fetched: it is none, or over a bound.
        """
        if isinstance(unit, bytes):
            if len(unit) >= self._missing:
                return self._frames(unit, None)
            self._room.write(unit)
            self._missing -= len(unit)
            return ()
        size = unit.payload_bytes
        if size > self._missing or not self._missing:
            return self._frames(unit.joined(), unit)
        self._room.writelines(unit.payloads())
        self._landings.free(unit)
        self._missing -= size
        return () if self._missing else (self._complete(),)

    def _frames(
        self, payload: bytes | memoryview, landing: Landing | Scattered | None
    ) -> Iterator[UnitFrame]:
        position = 0
        if self._missing:
            position, self._missing = self._missing, 0
            self._room.write(memoryview(payload)[:position])
            yield self._complete()
        elif self._head:
            payload, self._head = b"".join((self._head, payload)), b""
        view, end = memoryview(payload), len(payload)
        while end - position >= HEADER.size:
            size, kind, flags = parse_header(view, position, self._max_body)
            sender = sequence = 0
            start, stop = position + HEADER.size, position + HEADER.size + size
            if kind == DATA:
                if end - position < DATA_HEADER_SIZE:
                    break
                sender, sequence = DATA_PREFIX.unpack_from(view, start)
                start = position + DATA_HEADER_SIZE
            if stop > end:
                self._begun = (kind, flags, sender, sequence)
                self._missing = stop - end
                self._make_room(stop - start)
                self._room.write(view[start:])
                if landing is not None:
                    self._landings.free(landing)
                return
            yield kind, flags, sender, sequence, view[start:stop], stop - start
            position = stop
        self._head = bytes(payload[position:])
        if landing is not None:
            self._landings.free(landing)

    def _make_room(self, size: int) -> None:
        """For a frame of ``size`` bytes that has begun to come, in one piece unless it is long."""
        self._room = room = BytesIO()
        room.seek(min(size, MADE_AT_ONCE) - 1)
        room.write(b"\0")
        room.seek(0)

    def _complete(self) -> UnitFrame:
        """The frame whose last part has come."""
        whole = self._room.getvalue()
        self._room = BytesIO()
        return *self._begun, whole, len(whole)
