"""Trains that go straight into frames: only what is the next unit, whole, and nothing but data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.msgpack import encode

from joinleaf.core.reliability.receiver import StreamReceiver
from joinleaf.core.wire.data import messages_of, pack
from joinleaf.core.wire.frames import DATA, DIRECT, RAW, Kind, control_frame, data_header
from joinleaf.core.wire.landing import Landing, Landings
from joinleaf.core.wire.native import TRAINS
from joinleaf.core.wire.quick import QuickReader, quick_reader
from joinleaf.core.wire.reports import Timing
from joinleaf.core.wire.unit_frames import UnitFrame, UnitReader
from joinleaf.core.wire.units import DATA as FIRST
from joinleaf.core.wire.units import (
    HEADER,
    HEADER_SIZE,
    POLL,
    REPAIR,
    XOR,
    Layout,
    parity_header,
    write_unit,
)
from joinleaf.errors import RemoteProtocolError

pytestmark = pytest.mark.skipif(TRAINS is None, reason="the short way in C was not built")

TAG = 0x1234ABCD
LIMIT = 1 << 20
SEGMENTS = (64, 100, 1448, 60_000)


def reader() -> QuickReader:
    """A fresh one."""
    made = quick_reader(LIMIT, Landings())
    assert made is not None
    return made


def stream_of(sizes: Sequence[int]) -> tuple[bytes, list[bytes]]:
    """Batches of one message each, and the messages."""
    messages = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
    frames = b""
    for number, message in enumerate(messages):
        packed = pack([message], sender=0, sequence=number, flags=0, max_message=LIMIT)
        frames += b"".join(bytes(part) for part in packed.buffers)
    return frames, messages


def batches_of(sizes: Sequence[Sequence[int]]) -> tuple[bytes, list[bytes]]:
    """The same with several messages each."""
    frames, every, number = b"", [], 0
    for batch in sizes:
        messages = [bytes([(number + at) % 251]) * size for at, size in enumerate(batch)]
        packed = pack(messages, sender=7, sequence=number, flags=0, max_message=LIMIT)
        frames += b"".join(bytes(part) for part in packed.buffers)
        number += len(messages)
        every += messages
    return frames, every


def units_of(stream: bytes, layout: Layout) -> list[bytes]:
    """The wire images of a stream's units."""
    size = layout.unit_bytes
    parts = [stream[at : at + size] for at in range(0, len(stream), size)]
    return [write_unit(layout, TAG, 0, unit, part) for unit, part in enumerate(parts)]


def offer(to: QuickReader, image: bytes, layout: Layout, unit: int, segment: int = 0) -> int:
    """Give it a train as the socket does."""
    segment = segment or min(layout.segment, len(image))
    return to.take_train(memoryview(bytearray(image)), len(image), segment, TAG, unit)


def messages_in(frames: Sequence[UnitFrame]) -> list[bytes]:
    """All messages of some frames."""
    found = []
    for _, flags, _, _, payload, size in frames:
        messages = messages_of(flags, payload, LIMIT)
        assert size == (len(payload) if flags & RAW else len(encode(messages)))
        found += messages
    return found


@given(
    st.sampled_from(SEGMENTS),
    st.lists(st.sampled_from((0, 1, 500, 8_191, 8_192, 70_000, 200_000)), min_size=1, max_size=6),
    st.data(),
)
def test_a_stream_goes_straight_or_the_long_way_unit_by_unit(
    segment: int, sizes: list[int], data: st.DataObject
) -> None:
    layout = Layout(segment)
    stream, messages = stream_of(sizes)
    quick, found = reader(), []
    for unit, image in enumerate(units_of(stream, layout)):
        if data.draw(st.booleans()):
            assert offer(quick, image, layout, unit) == FIRST
            assert quick.next == unit + 1
            found += messages_in(quick.taken())
        else:
            landing = Landing()
            landing.fill(image, segment)
            found += messages_in(quick.take(landing))
    assert found == messages
    assert not quick.in_frame


@given(
    st.sampled_from(SEGMENTS),
    st.lists(
        st.lists(st.sampled_from((0, 1, 2, 30, 255, 256, 999, 5_000)), min_size=1, max_size=70),
        min_size=1, max_size=12,
    ),
)  # fmt: skip
def test_batches_are_taken_apart_wherever_symbols_and_units_end(
    segment: int, sizes: list[list[int]]
) -> None:
    layout, quick, plain = Layout(segment), reader(), UnitReader(LIMIT, Landings())
    stream, messages = batches_of(sizes)
    found: list[UnitFrame] = []
    expected: list[UnitFrame] = []
    for unit, image in enumerate(units_of(stream, layout)):
        assert offer(quick, image, layout, unit) == FIRST
        found += quick.taken()
        expected += plain.take(stream[unit * layout.unit_bytes : (unit + 1) * layout.unit_bytes])
    assert messages_in(found) == messages_in(expected) == messages
    assert [frame[:4] for frame in found] == [frame[:4] for frame in expected]
    assert not quick.in_frame


@given(
    st.sampled_from(SEGMENTS),
    st.one_of(
        st.binary(max_size=300),
        st.lists(st.one_of(st.binary(), st.text(), st.integers(-9, 300), st.lists(st.none())),
                 max_size=20).map(encode),
    ),
    st.binary(max_size=3),
    st.integers(0, 3),
)  # fmt: skip
@example(64, b"\x91", b"", 0)
@example(64, b"\xdd\xff\xff\xff\xff", b"", 0)
@example(64, b"\xdc\x00", b"", 0)
@example(64, b"\x91\xc6\xff\xff\xff\xff", b"", 0)
@example(64, b"\x91\xc5\x00", b"", 0)
@example(64, b"\x92\xc4\x01a", b"", 0)
@example(64, b"", b"", 0)
def test_what_is_no_batch_is_left_to_python_to_complain_of(
    segment: int, body: bytes, more: bytes, less: int
) -> None:
    layout, quick = Layout(segment), reader()
    body = body[: max(0, len(body) - less)] + more
    try:
        expected = messages_of(0, body, LIMIT)
    except RemoteProtocolError as error:
        expected = [str(error).encode()]
    frame = data_header(len(body), 0, 3, 9) + body
    for unit, image in enumerate(units_of(frame, layout)):
        assert offer(quick, image, layout, unit)
    [(kind, flags, sender, sequence, payload, size)] = quick.taken()
    assert (kind, flags, sender, sequence, size) == (DATA, 0, 3, 9, len(body))
    try:
        found = messages_of(0, payload, LIMIT)
    except RemoteProtocolError as error:
        found = [str(error).encode()]
    assert found == expected


def test_a_message_over_the_limit_is_an_error_though_it_was_taken_apart() -> None:
    layout, quick = Layout(1448), reader()
    stream, _ = batches_of([[1, 600, 20]])
    assert offer(quick, write_unit(layout, TAG, 0, 0, stream), layout, 0)
    [(*_, payload, _)] = quick.taken()
    assert isinstance(payload, list)
    assert len(messages_of(0, payload, 600)) == 3
    with pytest.raises(RemoteProtocolError, match="a message of 600 bytes"):
        messages_of(0, payload, 599)


def receiver() -> StreamReceiver:
    """One that waits for unit 0."""
    made = StreamReceiver(tag=TAG, window_bytes=1 << 22)
    made.start(0, Timing(0, 0, 10_000, 1))
    return made


@given(st.sampled_from(SEGMENTS), st.integers(1, 70_000), st.data())
def test_what_is_taken_is_what_the_receiver_would_deliver_at_once(
    segment: int, size: int, data: st.DataObject
) -> None:
    """Whatever came of a train: cut, with something behind it, a byte of a header changed."""
    layout = Layout(segment)
    stream, _ = stream_of([size])
    image = bytearray(units_of(stream, layout)[0])
    count = layout.count(min(len(stream), layout.unit_bytes))
    what = data.draw(st.sampled_from(("as it is", "cut", "parity", "garbage", "changed")))
    match what:
        case "cut":
            image = image[: data.draw(st.integers(1, len(image)))]
        case "parity" if count > 1 and len(image) == count * segment:
            header = parity_header(TAG, 0, count, 0, 3)
            image += header + bytes(segment - HEADER_SIZE)
        case "garbage":
            image += bytes(data.draw(st.integers(1, 40)))
        case "changed":
            at = data.draw(st.integers(0, count - 1)) * segment
            at += data.draw(st.sampled_from((0, 4, 5, 6, 7, 8, 15)))
            image[at] ^= data.draw(st.integers(1, 255))
        case _:
            pass
    del image[65_536:]
    landing, plain = Landing(), receiver()
    landing.fill(image, segment)
    quick = reader()
    kind = quick.take_train(landing.view, landing.size, landing.segment, TAG, 0)
    plain.handle_landing(landing, 0)
    delivered = plain.take()
    if kind:
        assert kind in (FIRST, POLL)
        frames: list[Any] = []
        for one in delivered:
            frames += UnitReader(LIMIT, Landings()).take(one)
        assert messages_in(quick.taken()) == messages_in(frames)
        assert len(delivered) == 1
        assert quick.next == 1
    else:
        assert what != "as it is"
        assert not quick.taken()
        assert not quick.in_frame
        assert quick.next == 0


@pytest.mark.parametrize(
    "frame",
    [
        control_frame(Kind.GATE, bytes(12)),
        data_header(3, DIRECT, 0, 0) + b"abc",
        data_header(LIMIT + 1, 0, 0, 0) + b"abc",
        b"\0" * 40,
    ],
)
@pytest.mark.parametrize("before", [0, 5, 90_000])
@pytest.mark.parametrize("segment", SEGMENTS)
def test_a_unit_with_anything_but_data_in_it_is_left_to_the_long_way(
    frame: bytes, before: int, segment: int
) -> None:
    """And nothing of it has been taken: what the reader holds of a frame is as it was."""
    layout, quick = Layout(segment), reader()
    stream, messages = stream_of([before])
    images = units_of(stream + frame, layout)
    taken = [offer(quick, image, layout, unit) for unit, image in enumerate(images)]
    assert 0 in taken
    refused = taken.index(0)
    assert taken[:refused] == [FIRST] * refused
    found = messages_in(quick.taken())
    if before and refused:
        assert quick.in_frame or found == messages
    rest = stream[refused * layout.unit_bytes :]
    if rest:
        assert offer(quick, write_unit(layout, TAG, 0, refused, rest[: layout.unit_bytes]),
                     layout, refused)  # fmt: skip
        found += messages_in(quick.taken())
        if len(rest) <= layout.unit_bytes:
            assert found == messages


def test_a_header_that_a_unit_cuts_is_looked_at_when_the_rest_has_come() -> None:
    layout = Layout(100)
    stream, messages = stream_of([1000, 20])
    gate = control_frame(Kind.GATE, bytes(12))
    for cut in range(1, 20):
        first = write_unit(layout, TAG, 0, 0, (stream + stream[1000 + 20 :])[: 1020 + cut])
        quick = reader()
        assert offer(quick, first, layout, 0)
        second = write_unit(layout, TAG, 0, 1, stream[1020 + cut :])
        assert offer(quick, second, layout, 1)
        assert messages_in(quick.taken()) == messages
    for cut in range(1, 8):
        quick = reader()
        assert offer(quick, write_unit(layout, TAG, 0, 0, stream[:1020] + gate[:cut]), layout, 0)
        assert not offer(quick, write_unit(layout, TAG, 0, 1, gate[cut:]), layout, 1)
        kinds = [kind for kind, *_ in quick.take(gate[cut:])]
        assert kinds == [Kind.GATE]


def test_a_control_frame_that_began_the_long_way_does_not_end_straight() -> None:
    """A GATE of many leaves is longer than a unit where the rate is low."""
    layout, quick = Layout(100), reader()
    gate = control_frame(Kind.GATE, bytes(1200 * 12))
    first, rest = gate[: layout.unit_bytes], gate[layout.unit_bytes :]
    assert quick.take(first) == []
    stream, messages = stream_of([20])
    for tail in (rest[: layout.unit_bytes], rest[: layout.unit_bytes - 60]):
        assert not offer(quick, write_unit(layout, TAG, 0, 1, tail), layout, 1)
    assert not quick.taken()
    found = []
    for at in range(0, len(rest), layout.unit_bytes):
        found += quick.take(rest[at : at + layout.unit_bytes])
    assert [kind for kind, *_ in found] == [Kind.GATE]
    assert offer(quick, write_unit(layout, TAG, 0, 9, stream), layout, 9)
    assert messages_in(quick.taken()) == messages


def test_a_poll_is_told() -> None:
    layout, quick = Layout(1448), reader()
    stream, _ = stream_of([100])
    assert offer(quick, write_unit(layout, TAG, 0, 0, stream, POLL), layout, 0) == POLL


@pytest.mark.parametrize(
    ("tag", "epoch", "unit", "kind"),
    [(1, 0, 0, FIRST), (TAG, 1, 0, FIRST), (TAG, 0, 1, FIRST), (TAG, 0, 1 << 32, FIRST),
     (TAG, 0, 0, REPAIR), (TAG, 0, 0, XOR)],
)  # fmt: skip
def test_others_are_left(tag: int, epoch: int, unit: int, kind: int) -> None:
    layout, quick = Layout(1448), reader()
    stream, _ = stream_of([5000])
    assert not offer(quick, write_unit(layout, tag, epoch, unit, stream, kind), layout, 0)


def test_more_than_the_view_has_is_an_error() -> None:
    with pytest.raises(ValueError, match="more than"):
        reader().take_train(memoryview(bytearray(10)), 11, 11, TAG, 0)


def test_what_is_no_landing_is_an_error() -> None:
    with pytest.raises(AttributeError):
        reader().take(object())  # type: ignore[arg-type]  # that is tested


def test_the_header_of_a_symbol_is_as_long_as_the_c_code_thinks() -> None:
    assert HEADER.size == HEADER_SIZE == 16
    assert data_header(0, 0, 0, 0)[4] == DATA == 5
