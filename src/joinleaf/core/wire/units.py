"""Units and symbols: what the multicast stream of a rooted session puts on the wire.

The stream is cut into *units* of about 62 KB, numbered from 0; a unit is cut into at most 64
*symbols*, one datagram each, all of one size but the last, which may be shorter:

    | tag 4 | kind 1 | epoch 1 | index 1 | count 1 | unit 8 | payload |

Big-endian. One kernel call sends a unit (UDP_SEGMENT), and a receiver mostly gets it back in one
piece (UDP_GRO), so that Python looks at units. ``write_unit`` and ``strip`` are one ``join`` over
slices that are cached per shape: 5.0 and 4.2 us for 44 symbols, where the bare copy of 62 KB is
1.5 us. Measured against them: a cached ``Struct`` of all symbols (7.0 and 4.6), a loop over
symbols (about 20 each), numpy's strided copy (4.1 and 2.7, but not in the base install).

A parity symbol (XOR) is the exclusive or of the payloads of 2 to ``MAX_PARTS`` symbols of one unit
that are all of full length. It is as long as they are, so that it travels in one train with plain
repairs; which they are is told by two fields that differ:

    index 1       128 and the lowest part: no column of indices takes it for data
    unit 3        the unit, modulo 2**24: a leaf looks 8,192 units ahead of where it is
    parts 5       bitmap of the parts behind the lowest, the nearest in the last bit

Reports and the other bodies that travel on the legs are in ``core/wire/reports.py``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final

from joinleaf.core.wire.native import IMAGES
from joinleaf.spi.provider import Buffer

__all__ = [
    "ALL",
    "DATA",
    "HEADER",
    "HEADER_SIZE",
    "INDICES",
    "MAX_PARTS",
    "MAX_SPAN",
    "MAX_SYMBOLS",
    "POLL",
    "PROBE",
    "REPAIR",
    "SYNC",
    "UNIT_OVERHEAD",
    "XOR",
    "Layout",
    "as_repair",
    "cut",
    "exclusive_or",
    "guarded",
    "parity_header",
    "parity_parts",
    "parity_unit",
    "strip",
    "with_parity",
    "write_unit",
]

HEADER: Final = struct.Struct(">IBBBBQ")
HEADER_SIZE: Final = HEADER.size
_PREFIX: Final = struct.Struct(">IBBBB")
_UNIT: Final = struct.Struct(">Q")

# Kinds of symbols. Plain numbers: the data path compares them once per unit.
DATA: Final = 1  # the first transmission of a symbol
REPAIR: Final = 2  # a DATA symbol sent again
XOR: Final = 3  # several of them combined: a parity symbol
SYNC: Final = 4  # "``unit`` is the next": tail loss, heartbeat; ``index`` is a serial number
PROBE: Final = 5  # does multicast reach you?
POLL: Final = DATA | 0x80  # DATA, and whoever gets the unit shall report at once

MAX_SYMBOLS: Final = 64
"""Segments Linux takes in one UDP_SEGMENT call (UDP_MAX_SEGMENTS until 6.9, twice that since)."""

MAX_UNIT_WIRE: Final = 65_000
"""Headers included: what one datagram may be before it is cut, 65,507, and some room."""

MIN_SEGMENT: Final = 64
MAX_SEGMENT: Final = 65_000

UNIT_OVERHEAD: Final = 1024
"""Bytes a unit counts for besides its symbols, at both ends: a record per unit costs memory too,
so that a window of units of one byte is bounded as well."""

ALL: Final = (1 << MAX_SYMBOLS) - 1
"""The bitmap of a unit of which nothing has come, however many symbols it has."""

INDICES: Final = bytes(range(MAX_SYMBOLS))

MAX_PARTS: Final = 16
"""Parts of a parity symbol: what one datagram, which anybody may have sent, costs a leaf at most,
30 us. With 100 leaves at one per cent, twice as many would save nothing that can be measured."""

MAX_SPAN: Final = 41
"""The lowest part and those a header has bits for: of a unit of 44 symbols all but few pairs."""

_REPAIRS: Final = bytes([REPAIR]) * MAX_SYMBOLS
_PARITY: Final = 0x80  # the index of a parity symbol is not below
_BEHIND: Final = MAX_SPAN - 1
_UNITS: Final = (1 << 64 - _BEHIND) - 1


@dataclass(frozen=True, slots=True)
class Layout:
    """How units are cut for one segment size (the interface's MTU less 48: IPv6 and UDP).

    Attributes:
        segment: Bytes of one symbol, header included, 64 to 65,000.
        payload: Bytes of the stream in one symbol.
        symbols: Symbols of a full unit, 1 to 64.
        unit_bytes: Bytes of the stream in a full unit.

    Raises:
        ValueError: The segment size is out of range.
    """

    segment: int
    payload: int = field(init=False)
    symbols: int = field(init=False)
    unit_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        if not MIN_SEGMENT <= self.segment <= MAX_SEGMENT:
            raise ValueError(f"segment {self.segment} is not in {MIN_SEGMENT}..{MAX_SEGMENT}")
        payload = self.segment - HEADER_SIZE
        symbols = min(MAX_SYMBOLS, MAX_UNIT_WIRE // self.segment)
        object.__setattr__(self, "payload", payload)
        object.__setattr__(self, "symbols", symbols)
        object.__setattr__(self, "unit_bytes", payload * symbols)

    def count(self, size: int) -> int:
        """Symbols of a unit with ``size`` bytes of the stream."""
        return -(-size // self.payload)


def write_unit(
    layout: Layout,
    tag: int,
    epoch: int,
    unit: int,
    payload: Buffer | list[Buffer],
    kind: int = DATA,
) -> bytes:
    """The wire image of a unit: all its symbols, headers included, back to back.

    Args:
        layout: How it is cut.
        tag: The session's.
        epoch: Key epoch modulo 256, 0 for cleartext.
        unit: Its number.
        payload: 1 to ``layout.unit_bytes`` bytes, or the parts of it.
        kind: DATA, POLL or REPAIR.

    Raises:
        ValueError: The payload is empty or too long.
    """
    given = payload if isinstance(payload, list) else [payload]
    size = sum(map(len, given))
    if not 0 < size <= layout.unit_bytes:
        raise ValueError(f"a unit of {size} bytes is not in 1..{layout.unit_bytes}")
    if IMAGES is not None:
        image: bytes = IMAGES.write_unit(given, size, layout.payload, tag, epoch, unit, kind)
        return image
    count = -(-size // layout.payload)
    prefixes = _prefixes(tag, kind, epoch, count)
    number = _UNIT.pack(unit)
    if count == 1:
        return b"".join((prefixes[0], number, *given))
    parts: list[Any] = [number] * (3 * count)
    parts[0::3] = prefixes
    whole = given[0] if len(given) == 1 else b"".join(given)
    parts[2::3] = _cutter(0, layout.payload, count)(memoryview(whole))
    return b"".join(parts)


def with_parity(image: bytes, segment: int, guard: int, tag: int, epoch: int, unit: int) -> bytes:
    """A unit's wire image with parity symbols behind it, each of every ``guard``-th symbol.

    Of neighbours none is in two, for losses come in bursts.

    Args:
        image: From ``write_unit``: full symbols, at most ``guarded`` and twice ``guard`` at least.
        segment: Bytes of one.
        guard: Parity symbols.
        tag: As they say.
        epoch: The same.
        unit: The same.
    """
    if IMAGES is not None:
        train: bytes = IMAGES.with_parity(image, segment, guard, tag, epoch, unit)
        return train
    view, parts = memoryview(image), [image]
    payloads = [view[at + HEADER_SIZE : at + segment] for at in range(0, len(image), segment)]
    for first in range(guard):
        bitmap = sum(1 << index for index in range(first, len(payloads), guard))
        parts.append(parity_header(tag, epoch, len(payloads), unit, bitmap))
        parts.append(exclusive_or(payloads[first::guard], segment - HEADER_SIZE))
    return b"".join(parts)


def as_repair(image: bytes, segment: int) -> bytes:
    """A unit's wire image once more, as what is sent again."""
    if IMAGES is not None:
        again: bytes = IMAGES.as_repair(image, segment)
        return again
    repair = bytearray(image)
    repair[4::segment] = _REPAIRS[: -(-len(image) // segment)]
    return bytes(repair)


def strip(view: memoryview, segment: int, count: int) -> bytes:
    """The payload of ``count`` symbols that lie back to back in ``view``, ``segment`` apart.

    Nothing is checked: the caller has compared the headers.
    """
    if count == 1:
        return bytes(view[HEADER_SIZE:segment])
    return b"".join(_cutter(HEADER_SIZE, segment, count)(view))


def cut(view: memoryview, segment: int, count: int) -> tuple[bytes | memoryview, ...]:
    """A copy of the same, symbol by symbol."""
    if count == 1:
        return (bytes(view[HEADER_SIZE:segment]),)
    copy: tuple[memoryview, ...] = _cutter(HEADER_SIZE, segment, count)(memoryview(bytes(view)))
    return copy


def parity_header(tag: int, epoch: int, count: int, unit: int, parts: int) -> bytes:
    """The header of a parity symbol; ``parts`` is the bitmap of what it combines."""
    first = (parts & -parts).bit_length() - 1
    packed = (unit & _UNITS) << _BEHIND | parts >> first + 1
    return HEADER.pack(tag, XOR, epoch, _PARITY | first, count, packed)


def guarded(symbols: int, guard: int) -> int:
    """Symbols that a unit may have so that ``guard`` parity symbols, sent along, cover them all.

    Args:
        symbols: That a train may have.
        guard: Parity symbols; each combines every ``guard``-th symbol.
    """
    return min(symbols - guard, guard * MAX_PARTS, MAX_SPAN)


def parity_parts(index: int, count: int, packed: int) -> int:
    """What a parity symbol combines, by the fields of its header; 0: it is none."""
    parts = (1 | (packed & (1 << _BEHIND) - 1) << 1) << (index & 63)
    if not _PARITY <= index < _PARITY + MAX_SYMBOLS or count > MAX_SYMBOLS or parts >> count:
        return 0
    return parts if 2 <= parts.bit_count() <= MAX_PARTS else 0


def parity_unit(packed: int, after: int) -> int:
    """The first unit from ``after`` on that a parity symbol can mean."""
    return after + ((packed >> _BEHIND) - after & _UNITS)


def exclusive_or(payloads: Iterable[Buffer], size: int) -> bytes:
    """Payloads of at most ``size`` bytes combined.

    In the standard library nothing is faster than this; ``_images.c`` is ten times.
    """
    if IMAGES is not None:
        symbol: bytes = IMAGES.exclusive_or(payloads, size)
        return symbol
    combined = 0
    for payload in payloads:
        combined ^= int.from_bytes(payload, "little")
    return combined.to_bytes(size, "little")


@lru_cache(maxsize=256)  # kinds, epochs and counts in use at a time; an old epoch just falls out
def _prefixes(tag: int, kind: int, epoch: int, count: int) -> tuple[bytes, ...]:
    """The first half of each symbol's header."""
    return tuple(_PREFIX.pack(tag, kind, epoch, index, count) for index in range(count))


@lru_cache(maxsize=512)  # counts times the few segment sizes one process sees
def _cutter(skip: int, step: int, count: int) -> itemgetter[Any]:
    """Gives the ``count`` slices of a buffer, each ``step`` apart and without its first bytes."""
    return itemgetter(*(slice(i * step + skip, (i + 1) * step) for i in range(count)))
