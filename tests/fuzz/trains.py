"""What a leaf makes of the stream's bytes, by every way there is: landings, bytes, and straight."""

from __future__ import annotations

from typing import Final

from joinleaf.core.wire.data import messages_of
from joinleaf.core.wire.frames import DATA
from joinleaf.core.wire.landing import Landing, Landings
from joinleaf.core.wire.quick import QuickReader, quick_reader
from joinleaf.core.wire.unit_frames import UnitFrame, UnitReader
from joinleaf.core.wire.units import Layout, write_unit
from joinleaf.errors import RemoteProtocolError

__all__ = ["trains"]

TAG: Final = 0x5EED5EED
LIMIT: Final = 1 << 12
SEGMENTS: Final = (64, 65, 100, 500)

Seen = list[object]


def looked_at(frames: list[UnitFrame]) -> Seen:
    """Frames as values, with what is wrong with them."""
    seen: Seen = []
    for kind, flags, sender, sequence, payload, size in frames:
        if kind != DATA:
            seen.append((kind, payload))
            continue
        try:
            body: object = messages_of(flags, payload, LIMIT)
        except RemoteProtocolError as error:
            body = str(error)
        seen.append((kind, flags, sender, sequence, body, size))
    return seen


def trains(data: bytes) -> None:
    """The same frames and the same complaint, whichever way units take; forged ones change nothing.

    The first byte says how units are cut, the next four which of them go straight, and which are
    changed on the way; then comes the stream.
    """
    if len(data) < 5:
        return
    layout, ways, stream = Layout(SEGMENTS[data[0] % 4]), data[1:5], data[5:]
    plain, other = UnitReader(LIMIT, Landings()), UnitReader(LIMIT, Landings())
    quick = quick_reader(LIMIT, Landings())
    for unit in range(-(-len(stream) // layout.unit_bytes)):
        payload = stream[unit * layout.unit_bytes : (unit + 1) * layout.unit_bytes]
        image = write_unit(layout, TAG, 0, unit, payload)
        way = ways[unit % 4]
        expected = taken(plain, payload)
        assert taken(other, landing_of(image, layout.segment)) == expected
        if quick is not None:
            if way & 1:
                forge(quick, image, layout.segment, unit, way)
            assert straight(quick, image, payload, layout.segment, unit, way) == expected
        if expected and isinstance(expected[-1], str):
            return


def taken(reader: UnitReader | QuickReader, unit: bytes | Landing) -> Seen:
    """What comes of a unit; an error ends it."""
    try:
        frames = list(reader.take(unit))
    except RemoteProtocolError as error:
        return [str(error)]
    return looked_at(frames)


def straight(
    quick: QuickReader, image: bytes, payload: bytes, segment: int, unit: int, way: int
) -> Seen:
    """The same for a train that may go straight, and else the long way."""
    view = memoryview(bytearray(image))
    if way & 2 and quick.take_train(view, len(view), min(segment, len(view)), TAG, unit):
        return looked_at(quick.taken())
    assert not quick.taken()
    return taken(quick, landing_of(image, segment) if way & 4 else payload)


def forge(quick: QuickReader, image: bytes, segment: int, unit: int, way: int) -> None:
    """Offer what is not the unit: another tag, unit or epoch, or cut short."""
    forged = bytearray(image)
    match way >> 3 & 3:
        case 0:
            forged[way >> 5 & 3] ^= 1
        case 1:
            forged[8 + (way >> 5 & 7)] ^= 0x10
        case 2:
            forged[5] = 1
        case _:
            del forged[min(16, len(forged)) :]
    in_frame = quick.in_frame
    assert not quick.take_train(
        memoryview(forged), len(forged), min(segment, len(forged)), TAG, unit
    )
    assert quick.in_frame == in_frame
    assert not quick.taken()


def landing_of(image: bytes, segment: int) -> Landing:
    """As it was received."""
    landing = Landing()
    landing.fill(image, segment)
    return landing
