"""Bodies of the frames about the multicast stream that travel on the legs. Fixed binary layouts.

    REPORT       ack 8 | seen 8 | echo 8 | delay_us 4 | window 4 | flags 1 | serial 1 | entries 2
                 recovered 2
                 then per entry: offset 4 | run 2 | flags 1 | bitmap 8
    START        unit 8 | timing 16
    STOP, SKIP   unit 8
    UNIT_REPAIR  unit 8 | epoch 1 | count 1 | symbol size 4 | bitmap 8 | payload of those symbols

All are bounded, and everything that breaks a bound is a ``RemoteProtocolError``: the peer on a leg
is a member, known and answerable, unlike whoever sends to the group.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from joinleaf.core.wire.frames import Kind, View, control_frame
from joinleaf.core.wire.units import ALL, MAX_SEGMENT, MAX_SYMBOLS
from joinleaf.errors import RemoteProtocolError

__all__ = [
    "MAX_ENTRIES",
    "NO_UNIT",
    "Entry",
    "Report",
    "Timing",
    "UnitRepair",
    "decode_report",
    "decode_start",
    "decode_sync",
    "decode_unit",
    "decode_unit_repair",
    "report_frame",
    "skip_frame",
    "start_frame",
    "stop_frame",
    "sync_body",
    "unit_repair_frame",
]

NO_UNIT: Final = (1 << 64) - 1
"""Stands for "none" where a unit is named; no stream gets there."""

MAX_ENTRIES: Final = 64
"""Entries of a report: more losses than that are told in the next one, when these are mended."""

MAX_RECOVERED: Final = 0xFFFF

HEARD: Final = 1
SYNCED: Final = 2
_REPORT_FLAGS: Final = HEARD | SYNCED

BY_LEG: Final = 1
"""Flag of an entry: send it over the leg, for what came by the group was spoiled."""

_REPORT: Final = struct.Struct(">QQQIIBBHH")
_ENTRY: Final = struct.Struct(">IHBQ")
_TIMING: Final = struct.Struct(">IIII")
_UNIT: Final = struct.Struct(">Q")
_REPAIR: Final = struct.Struct(">QBBIQ")


class Entry(NamedTuple):
    """What is missing: ``run`` units from ``ack + offset`` on, of each the symbols in ``bitmap``.

    Bits beyond a unit's last symbol count for nothing, so ALL is a whole unit; a run of more than
    one is always of whole units.
    """

    offset: int
    run: int
    flags: int
    bitmap: int


class Report(NamedTuple):
    """How far one leaf is.

    Attributes:
        ack: Every unit before this one has arrived; of a leaf that only listens, how often it was
            told to STOP.
        seen: The unit after the last of which the leaf knows; NO_UNIT: it only listens, for START
            has not come yet, or STOP has.
        echo: The unit whose first arrival is ``delay_us`` ago; with ``synced``, the SYNC
            ``serial`` is meant instead; NO_UNIT: neither.
        delay_us: Microseconds.
        window: Bytes (UNIT_OVERHEAD for each unit included) the leaf can take from ``ack`` on.
        heard: A PROBE has been heard.
        synced: See ``echo``.
        serial: See ``echo``.
        entries: What is missing, oldest first.
        recovered: Symbols that were lost since the report before, of which none tells, because
            parity symbols brought them back; no more are counted than fit.
    """

    ack: int
    seen: int
    echo: int
    delay_us: int
    window: int
    heard: bool
    synced: bool
    serial: int
    entries: Sequence[tuple[int, int, int, int]]
    recovered: int = 0


class Timing(NamedTuple):
    """When leaves report, as the root sets it for the number of leaves it has.

    Attributes:
        interval_us: Least time between two reports of a leaf.
        backoff_us: A gap is reported after a random time of up to this, so that the repair of
            what one leaf reported first spares the others their reports.
        repeat_us: A gap that was reported is reported again after this time.
        leaves: How many there are, at least 1.
    """

    interval_us: int
    backoff_us: int
    repeat_us: int
    leaves: int


class UnitRepair(NamedTuple):
    """Symbols of one unit; ``payload`` holds those in ``bitmap`` one after the other."""

    unit: int
    epoch: int
    symbols: int
    symbol: int
    bitmap: int
    payload: View


def report_frame(report: Report) -> bytes:
    """The whole REPORT frame; at most MAX_ENTRIES entries."""
    entries = report.entries
    if len(entries) > MAX_ENTRIES:
        raise ValueError(f"{len(entries)} entries are more than {MAX_ENTRIES}")
    flags = HEARD * report.heard | SYNCED * report.synced
    recovered = min(report.recovered, MAX_RECOVERED)
    body = _REPORT.pack(*report[:5], flags, report.serial, len(entries), recovered)
    if entries:
        body += b"".join([_ENTRY.pack(*entry) for entry in entries])
    return control_frame(Kind.REPORT, body)


def decode_report(body: memoryview) -> Report:
    """Read a REPORT body.

    Raises:
        RemoteProtocolError: Its length, a flag or an entry is impossible.
    """
    if len(body) < _REPORT.size:
        raise RemoteProtocolError(f"a report of {len(body)} bytes")
    ack, seen, echo, delay, window, flags, serial, count, recovered = _REPORT.unpack_from(body)
    if count > MAX_ENTRIES or len(body) != _REPORT.size + count * _ENTRY.size:
        raise RemoteProtocolError(f"a report of {len(body)} bytes with {count} entries")
    if flags & ~_REPORT_FLAGS:
        raise RemoteProtocolError(f"a report with flags {flags:#x}")
    entries = list(_ENTRY.iter_unpack(body[_REPORT.size :])) if count else ()
    for _, run, entry_flags, bitmap in entries:
        if not bitmap or not run or entry_flags & ~BY_LEG or (run > 1 and bitmap != ALL):
            raise RemoteProtocolError("a report with an impossible entry")
    heard, synced = bool(flags & HEARD), bool(flags & SYNCED)
    return Report(ack, seen, echo, delay, window, heard, synced, serial, entries, recovered)


def sync_body(timing: Timing) -> bytes:
    """What a SYNC says besides the next unit."""
    return _TIMING.pack(*timing)


def decode_sync(body: bytes | memoryview) -> Timing | None:
    """The same read; None if it is not one."""
    if len(body) != _TIMING.size:
        return None
    timing = Timing(*_TIMING.unpack(body))
    return timing if timing.leaves else None


def start_frame(unit: int, timing: Timing) -> bytes:
    """START: from ``unit`` on the leaf is served by the group."""
    return control_frame(Kind.START, _UNIT.pack(unit) + _TIMING.pack(*timing))


def decode_start(body: memoryview) -> tuple[int, Timing]:
    """Read a START body.

    Raises:
        RemoteProtocolError: It has another length, or there are no leaves.
    """
    timing = decode_sync(body[_UNIT.size :])
    if timing is None:
        raise RemoteProtocolError(f"a START of {len(body)} bytes")
    return _UNIT.unpack_from(body)[0], timing


def stop_frame(unit: int) -> bytes:
    """STOP: from ``unit`` on the leaf is served by its leg; all before has been sent."""
    return control_frame(Kind.STOP, _UNIT.pack(unit))


def skip_frame(unit: int) -> bytes:
    """SKIP: the leaf goes on with ``unit``; what it lacks of those before, it will not get."""
    return control_frame(Kind.SKIP, _UNIT.pack(unit))


def decode_unit(body: memoryview) -> int:
    """Read the body of STOP or SKIP.

    Raises:
        RemoteProtocolError: It has another length.
    """
    if len(body) != _UNIT.size:
        raise RemoteProtocolError(f"a unit's number of {len(body)} bytes")
    number: int = _UNIT.unpack(body)[0]
    return number


def unit_repair_frame(
    unit: int, epoch: int, count: int, symbol: int, bitmap: int, payload: bytes
) -> bytes:
    """UNIT_REPAIR: see ``UnitRepair``; ``symbol`` is the payload of all symbols but the last."""
    header = _REPAIR.pack(unit, epoch, count, symbol, bitmap)
    return control_frame(Kind.UNIT_REPAIR, header + payload)


def decode_unit_repair(body: memoryview) -> UnitRepair:
    """Read a UNIT_REPAIR body.

    Raises:
        RemoteProtocolError: The symbols it says do not add up to its length.
    """
    if len(body) <= _REPAIR.size:
        raise RemoteProtocolError(f"a repair of {len(body)} bytes")
    unit, epoch, count, symbol, bitmap = _REPAIR.unpack_from(body)
    payload = body[_REPAIR.size :]
    if not 1 <= count <= MAX_SYMBOLS or not 1 <= symbol <= MAX_SEGMENT or not bitmap:
        raise RemoteProtocolError(f"a repair of {count} symbols of {symbol} bytes")
    if bitmap >> count:
        raise RemoteProtocolError("a repair with symbols that the unit does not have")
    most = bitmap.bit_count() * symbol
    least = most - symbol + 1 if bitmap >> (count - 1) else most  # only the last may be shorter
    if not least <= len(payload) <= most:
        raise RemoteProtocolError(f"a repair of {len(payload)} bytes instead of {least}..{most}")
    return UnitRepair(unit, epoch, count, symbol, bitmap, payload)
