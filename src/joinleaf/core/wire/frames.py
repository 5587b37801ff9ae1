"""Frames of the rooted protocol: a fixed header, then a body of a bounded length.

    0               4       5       6               8
    | body length   | kind  | flags | 0x4A4C ("JL") |

Big-endian. A DATA or GAP body starts with the sender's leaf id (0: the root; 4 bytes) and the
number of its first message among those of that sender (8 bytes). The payload of DATA is one
MessagePack array of byte strings or, with RAW, one message as it is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from enum import IntEnum, IntFlag
from typing import Final, NamedTuple

from joinleaf.errors import RemoteProtocolError

__all__ = [
    "DATA",
    "DATA_HEADER",
    "DATA_HEADER_SIZE",
    "DATA_PREFIX",
    "DIRECT",
    "GROUP_KINDS",
    "HEADER",
    "KIND_AT",
    "MAGIC",
    "MAX_CONTROL_BODY",
    "RAW",
    "SIDE",
    "Flag",
    "Frame",
    "FrameReader",
    "Kind",
    "control_frame",
    "data_header",
    "parse_header",
]

MAGIC: Final = 0x4A4C
HEADER: Final = struct.Struct(">IBBH")
KIND_AT: Final = 4
DATA_HEADER: Final = struct.Struct(">IBBHIQ")
DATA_PREFIX: Final = struct.Struct(">IQ")

MAX_CONTROL_BODY: Final = 192 << 10
"""Longest control body: connect data of 64 KiB and provider-specific QoS of 64 KiB with room."""

BEFORE_JOIN_BODY: Final = MAX_CONTROL_BODY
"""Bound for a peer that is no member yet: it may cost this much memory and no more."""


class Kind(IntEnum):
    """What a frame is."""

    JOIN = 1  # leaf to root: first frame of a leg
    INVITE = 2  # root to leaf: first frame of a leg
    ACCEPT = 3
    REFUSE = 4
    DATA = 5
    GAP = 6  # messages of a sender that this leg will not get
    LEAVE = 7  # last frame of a direction
    BEAT = 8  # empty: the sender lives
    NAME = 9  # root to leaf: which address a leaf id stands for
    WHO = 10  # first frame of a query for the roster
    ROSTER = 11
    QOS = 12  # the agreed flow specifications changed
    REPORT = 13  # leaf to root: how far the leaf is in the multicast stream, and what it lacks
    START = 14  # root to leaf: the group serves it from this unit on
    STOP = 15  # root to leaf: its leg serves it again
    SKIP = 16  # root to leaf: units it will not get
    KEY = 17  # root to leaf: the group key of an epoch
    UNIT_REPAIR = 18  # root to leaf: symbols of a unit
    GATE = 19  # how messages for some leaves only stand to the multicast stream
    CHALLENGE = 20  # over TLS with a session key: first frame of who was connected to
    PROOF = 21  # the answer to it, and the answer to that


class Flag(IntFlag):
    """Bits of the flags byte; only DATA has any."""

    RAW = 1  # the payload is one message, not an array
    SIDE = 2  # side chat on this leg
    DIRECT = 4  # session data for some legs only, outside the sender's numbering


# As plain numbers for the data path: & of an IntFlag runs a microsecond of Python.
DATA: Final = int(Kind.DATA)
RAW: Final = int(Flag.RAW)
SIDE: Final = int(Flag.SIDE)
DIRECT: Final = int(Flag.DIRECT)

_KINDS: Final = frozenset(int(kind) for kind in Kind)
GROUP_KINDS: Final = frozenset(range(Kind.REPORT, Kind.GATE + 1))
"""Frames about the multicast stream."""

_BOUNDS: Final = {
    **dict.fromkeys(_KINDS, MAX_CONTROL_BODY),
    int(Kind.REPORT): 1024,  # 64 entries
    int(Kind.START): 64,
    int(Kind.STOP): 64,
    int(Kind.SKIP): 64,
    int(Kind.KEY): 256,
    int(Kind.UNIT_REPAIR): 66_000,  # one unit
    int(Kind.GATE): 66_000,  # 5,000 leaves
    int(Kind.CHALLENGE): 64,
    int(Kind.PROOF): 64,
}
"""Longest body of each kind but DATA that a reader takes."""

_KNOWN_FLAGS: Final = 7


View = memoryview


class Frame(NamedTuple):
    """A whole frame; ``body`` is valid until the reader is asked for a buffer again."""

    kind: int
    flags: int
    body: View


def control_frame(kind: Kind, body: bytes = b"") -> bytes:
    """One control frame; ValueError if the body is over its bound."""
    if len(body) > MAX_CONTROL_BODY:
        raise ValueError(f"a {kind.name} body of {len(body)} bytes is over {MAX_CONTROL_BODY}")
    return HEADER.pack(len(body), kind, 0, MAGIC) + body


def data_header(size: int, flags: int, sender: int, sequence: int) -> bytes:
    """The 20 bytes in front of a DATA payload of ``size`` bytes."""
    return DATA_HEADER.pack(size + DATA_PREFIX.size, DATA, flags, MAGIC, sender, sequence)


def write_data_header(buffer: bytearray, flags: int, sender: int, sequence: int) -> None:
    """Fill in the first 20 bytes of a buffer whose payload is already behind them."""
    size = len(buffer) - HEADER.size
    DATA_HEADER.pack_into(buffer, 0, size, DATA, flags, MAGIC, sender, sequence)


DATA_HEADER_SIZE: Final = DATA_HEADER.size


def parse_header(
    view: memoryview | bytearray, position: int, max_body: int
) -> tuple[int, int, int]:
    """Length of the body, kind and flags of the frame that begins at ``position``.

    Raises:
        RemoteProtocolError: No header, an unknown kind or flag, or a length over the bound.
    """
    size, kind, flags, magic = HEADER.unpack_from(view, position)
    if magic != MAGIC or kind not in _KINDS:
        raise RemoteProtocolError("not a frame of this protocol")
    if kind == DATA:
        if flags & ~_KNOWN_FLAGS or not DATA_PREFIX.size <= size <= max_body:
            raise RemoteProtocolError(f"a data body of {size} bytes, flags {flags:#x}")
    elif flags or size > _BOUNDS[kind]:
        raise RemoteProtocolError(f"a control body of {size} bytes, flags {flags:#x}")
    return size, kind, flags


_NOTHING: Final = bytearray()  # never written to


class FrameReader:
    """Cuts a byte stream into frames.

    Ask for ``buffer()``, read into it, tell ``received(n)``. Bytes go into a scratch buffer that
    many readers of one thread may share, and frames are cut where they lie; only one that is cut
    off is gathered in a buffer of its own, which grows with what has really arrived. Memory per
    reader is thereby bounded by what the peer sent of one frame and an eighth more, and by
    ``max_body``: a declared length costs nothing by itself.

    Args:
        scratch: Where bytes are received.
        max_body: See the attribute.
        keep: Largest gathering buffer, in bytes, that is used again instead of given back. Two of
            them take turns. Fresh memory for each message of a megabyte costs more in page faults
            than the message does; where there are many readers, 0 is right.

    Attributes:
        max_body: Bound on the body of the next frames; raised once the peer is a member.
    """

    __slots__ = ("_filled", "_keep", "_lent", "_own", "_scratch", "_spare", "_total", "max_body")

    def __init__(
        self, scratch: memoryview, max_body: int = BEFORE_JOIN_BODY, keep: int = 0
    ) -> None:
        self._scratch = scratch
        self._keep = keep
        self._own = _NOTHING
        self._filled = 0  # bytes of _own that count
        self._lent = _NOTHING  # behind the body of the last frame
        self._spare = _NOTHING
        self._total = 0  # length of the frame in _own, 0 while its header is incomplete
        self.max_body = max_body

    def move_to(self, scratch: memoryview) -> None:
        """Use another scratch buffer from now on: the connection goes to another thread's care."""
        self._scratch = scratch

    @property
    def pending(self) -> int:
        """Bytes of an incomplete frame that are held."""
        return self._filled

    def buffer(self) -> memoryview:
        """Where to put the next bytes; never empty."""
        return self._scratch

    def received(self, count: int) -> Iterator[Frame]:
        """Yield the frames that are complete now that ``count`` more bytes are in the buffer.

        Exhaust it before asking for the next buffer.

        Raises:
            RemoteProtocolError: No header, an unknown kind or flag, or a length over the bound.
        """
        return self.take(self._scratch[:count])

    def take(self, view: memoryview) -> Iterator[Frame]:
        """The same for bytes that are somewhere else; they are not copied but where a frame is cut.

        Raises:
            RemoteProtocolError: As ``received``.
        """
        if self._lent:
            self._take_back()
        if self._filled:
            used = self._gather(view)
            view = view[used:]
            if self._filled != self._total:
                return
            yield self._take_own()
        yield from self._cut(view)

    def feed(self, data: bytes | memoryview) -> Iterator[Frame]:
        """The same for bytes that are somewhere else: copies them in, piece by piece."""
        rest = memoryview(data)
        while rest:
            place = self.buffer()
            count = min(len(place), len(rest))
            place[:count] = rest[:count]
            yield from self.received(count)
            rest = rest[count:]

    def _gather(self, view: memoryview) -> int:
        """Complete the frame that was cut off, as far as ``view`` goes; how much of it was used."""
        used = 0
        if not self._total:
            used = min(HEADER.size - self._filled, len(view))
            self._append(view[:used])
            if self._filled < HEADER.size:
                return used
            self._total = HEADER.size + parse_header(self._own, 0, self.max_body)[0]
        more = min(self._total - self._filled, len(view) - used)
        self._append(view[used : used + more])
        return used + more

    def _append(self, view: memoryview) -> None:
        end = self._filled + len(view)
        self._own[self._filled : end] = view  # longer than before if that is what it takes
        self._filled = end

    def _cut(self, view: memoryview) -> Iterator[Frame]:
        position, end = 0, len(view)
        while end - position >= HEADER.size:
            size, kind, flags = parse_header(view, position, self.max_body)
            stop = position + HEADER.size + size
            if stop > end:
                break
            yield Frame(kind, flags, view[position + HEADER.size : stop])
            position = stop
        if position < end:
            self._begin(view[position:])

    def _take_back(self) -> None:
        lent, self._lent = self._lent, _NOTHING
        with suppress(BufferError):  # somebody, if only a traceback, still looks at the body
            del lent[-1:]
            self._spare = lent

    def _begin(self, rest: memoryview) -> None:
        """Hold the beginning of a frame in a buffer of its own."""
        self._total = 0
        if len(rest) >= HEADER.size:
            self._total = HEADER.size + parse_header(rest, 0, self.max_body)[0]
        if self._spare and self._total > HEADER.size:
            self._own, self._spare = self._spare, _NOTHING
        else:
            self._own = bytearray()
        self._append(rest)

    def _take_own(self) -> Frame:
        own, total = self._own, self._total
        self._own, self._filled, self._total = _NOTHING, 0, 0
        if len(own) <= self._keep:
            self._lent = own
        _, kind, flags, _ = HEADER.unpack_from(own)
        return Frame(kind, flags, memoryview(own)[HEADER.size : total])
