"""Frames out of units and landings: whatever the cuts are, and nothing is looked at too late."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joinleaf.core.wire.data import messages_of, pack
from joinleaf.core.wire.frames import DATA, Kind, control_frame
from joinleaf.core.wire.landing import KEPT, LANDING_BYTES, Landing, Landings
from joinleaf.core.wire.native import TRAINS
from joinleaf.core.wire.quick import QuickReader
from joinleaf.core.wire.unit_frames import MADE_AT_ONCE, UnitFrame, UnitReader
from joinleaf.core.wire.units import Layout, write_unit
from joinleaf.errors import RemoteProtocolError

Reader = UnitReader | QuickReader

READERS: list[Callable[[int, Landings], Reader]] = [UnitReader]
if TRAINS is not None:
    READERS.append(TRAINS.UnitReader)
either = pytest.mark.parametrize("new_reader", READERS)

Frames = list[tuple[int, Any]]
LIMIT = 1 << 20
SEGMENTS = (100, 1448, 60_000)


def land(landings: Landings, image: bytes, segment: int) -> Landing:
    """What receiving does."""
    landing = landings.take()
    landing.fill(image, segment)
    return landing


def read(reader: Reader, units: Sequence[bytes | Landing]) -> Frames:
    """All frames: control bodies, and batches as sender, first number and messages."""
    found: Frames = []
    for unit in units:
        found += looked_at(reader.take(unit))
    return found


def looked_at(frames: Iterable[UnitFrame]) -> Frames:
    """Control bodies, and batches as sender, first number and messages."""
    found: Frames = []
    for kind, flags, sender, first, payload, _ in frames:
        if kind == DATA:
            found.append((DATA, (sender, first, messages_of(flags, payload, LIMIT))))
        else:
            assert not isinstance(payload, list)
            found.append((kind, bytes(payload)))
    return found


@st.composite
def streams(draw: st.DrawFn) -> tuple[int, bytes, list[int], Frames]:
    """A segment size, a stream, where it is cut into units, and the frames it is made of."""
    segment = draw(st.sampled_from(SEGMENTS))
    stream, number = b"", 0
    expected: Frames = []
    sizes = st.sampled_from((0, 1, 63, 900, 8191, 8192, 30_000, 70_000, 200_000))
    for _ in range(draw(st.integers(1, 8))):
        if draw(st.booleans()):
            body = bytes(draw(st.integers(0, 40)))
            stream += control_frame(Kind.NAME, body)
            expected.append((int(Kind.NAME), body))
            continue
        messages = [bytes([number % 251]) * draw(sizes) for _ in range(draw(st.integers(1, 3)))]
        packed = pack(messages, sender=7, sequence=number, flags=0, max_message=LIMIT)
        stream += b"".join(packed.buffers)
        expected.append((DATA, (7, number, messages)))
        number += len(messages)
    full = Layout(segment).unit_bytes
    cuts = []
    left = len(stream)
    while left:
        cuts.append(min(left, draw(st.one_of(st.just(full), st.integers(1, full)))))
        left -= cuts[-1]
    return segment, stream, cuts, expected


def merged(frames: Frames) -> Frames:
    """Consecutive batches as one, however they were cut."""
    result: Frames = []
    for kind, what in frames:
        if kind == DATA and result and result[-1][0] == DATA:
            sender, first, messages = result[-1][1]
            assert what[0] == sender
            assert what[1] == first + len(messages)
            result[-1] = (DATA, (sender, first, messages + what[2]))
        else:
            result.append((kind, what))
    return result


@either
@given(streams(), st.data())
def test_frames_survive_any_cuts_and_landings_that_are_used_again(
    new_reader: Callable[[int, Landings], Reader],
    made: tuple[int, bytes, list[int], Frames],
    data: st.DataObject,
) -> None:
    segment, stream, cuts, expected = made
    landings = Landings()
    reader = new_reader(LIMIT, landings)
    layout, at, found = Layout(segment), 0, []
    for number, size in enumerate(cuts):
        payload = stream[at : at + size]
        at += size
        image = write_unit(layout, 1, 0, number, payload)
        kept = data.draw(st.booleans())
        unit = land(landings, image, segment) if kept else payload
        found += read(reader, [unit])
    assert merged(found) == merged(expected)


@either
def test_a_long_message_is_copied_as_it_comes_and_its_landing_is_free_again(
    new_reader: Callable[[int, Landings], Reader],
) -> None:
    layout, landings = Layout(1448), Landings()
    reader = new_reader(LIMIT, landings)
    message = bytes(range(256)) * 1200
    stream = b"".join(pack([message], sender=0, sequence=0, flags=0, max_message=LIMIT).buffers)
    parts = [stream[at : at + layout.unit_bytes] for at in range(0, len(stream), layout.unit_bytes)]
    used = []
    for number, part in enumerate(parts):
        used.append(land(landings, write_unit(layout, 1, 0, number, part), 1448))
        found = read(reader, [used[-1]])
        used[-1].view[:] = bytes(LANDING_BYTES)
    assert found == [(DATA, (0, 0, [message]))]
    assert len(parts) > 4
    assert len(set(map(id, used))) == 1


@either
def test_a_message_longer_than_room_is_made_for_at_once_arrives(
    new_reader: Callable[[int, Landings], Reader],
) -> None:
    layout, landings = Layout(60_000), Landings()
    reader = new_reader(16 << 20, landings)
    message = bytes(range(256)) * (MADE_AT_ONCE // 256 * 2 + 99)
    stream = b"".join(pack([message], sender=0, sequence=0, flags=0, max_message=16 << 20).buffers)
    found = []
    for at in range(0, len(stream), layout.unit_bytes):
        part = stream[at : at + layout.unit_bytes]
        unit = land(landings, write_unit(layout, 1, 0, 0, part), 60_000)
        found += [bytes(frame[4]) for frame in reader.take(unit) if not isinstance(frame[4], list)]
    assert found == [message]


def test_few_free_landings_are_kept() -> None:
    landings = Landings()
    for landing in [landings.take() for _ in range(KEPT + 9)]:
        landings.free(landing)
    assert len({id(landings.take()) for _ in range(KEPT)}) == KEPT
    assert landings.take().view.nbytes == LANDING_BYTES


@either
@pytest.mark.parametrize("kept", [False, True])
def test_what_is_no_frame_is_said(
    new_reader: Callable[[int, Landings], Reader], kept: bool
) -> None:
    landings = Landings()
    garbage = b"\0" * 40
    image = write_unit(Layout(1448), 1, 0, 0, garbage)
    unit = land(landings, image, 1448) if kept else garbage
    with pytest.raises(RemoteProtocolError, match="not a frame"):
        read(new_reader(LIMIT, landings), [unit])


@either
def test_a_length_over_the_bound_is_refused_before_anything_is_held(
    new_reader: Callable[[int, Landings], Reader],
) -> None:
    stream = pack([bytes(LIMIT)], sender=0, sequence=0, flags=0, max_message=LIMIT).buffers
    with pytest.raises(RemoteProtocolError, match="data body"):
        read(new_reader(LIMIT // 2, Landings()), [bytes(stream[0])])
