"""Frames: the header, its bounds, and cutting a stream anywhere."""

from __future__ import annotations

import sys
from itertools import chain

import pytest

from joinleaf.core.wire.frames import (
    BEFORE_JOIN_BODY,
    DATA_HEADER_SIZE,
    HEADER,
    MAGIC,
    MAX_CONTROL_BODY,
    Flag,
    FrameReader,
    Kind,
    control_frame,
    data_header,
)
from joinleaf.errors import RemoteProtocolError


def read(data: bytes, *, max_body: int = BEFORE_JOIN_BODY) -> list[tuple[int, int, bytes]]:
    reader = FrameReader(memoryview(bytearray(4096)), max_body)
    return [(f.kind, f.flags, bytes(f.body)) for f in reader.feed(data)]


def header(size: int, kind: int, flags: int = 0, magic: int = MAGIC) -> bytes:
    return HEADER.pack(size, kind, flags, magic)


@pytest.mark.parametrize("kind", sorted(set(Kind) - {Kind.DATA}))
def test_a_control_frame_of_each_kind_comes_out_as_it_went_in(kind: Kind) -> None:
    assert read(control_frame(kind, b"body")) == [(kind, 0, b"body")]
    assert read(control_frame(kind)) == [(kind, 0, b"")]


def test_the_header_is_eight_bytes_in_network_order() -> None:
    assert control_frame(Kind.BEAT, b"x") == bytes.fromhex("00000001 08 00 4a4c") + b"x"


def test_a_data_frame_keeps_flags_sender_and_number() -> None:
    frame = data_header(3, Flag.RAW | Flag.SIDE, 7, 1 << 40) + b"abc"
    assert len(frame) == DATA_HEADER_SIZE + 3
    body = (7).to_bytes(4, "big") + (1 << 40).to_bytes(8, "big") + b"abc"
    assert read(frame) == [(Kind.DATA, Flag.RAW | Flag.SIDE, body)]


def test_a_control_body_at_the_bound_passes_and_one_byte_more_is_refused() -> None:
    assert len(read(control_frame(Kind.JOIN, bytes(MAX_CONTROL_BODY)))[0][2]) == MAX_CONTROL_BODY
    with pytest.raises(ValueError, match="JOIN body of 196609"):
        control_frame(Kind.JOIN, bytes(MAX_CONTROL_BODY + 1))
    with pytest.raises(RemoteProtocolError, match="control body"):
        read(header(MAX_CONTROL_BODY + 1, Kind.JOIN))


def test_the_control_bound_stays_when_data_may_be_longer() -> None:
    with pytest.raises(RemoteProtocolError, match="control body"):
        read(header(MAX_CONTROL_BODY + 1, Kind.LEAVE), max_body=1 << 30)


@pytest.mark.parametrize("bound", [100, 70_000])
def test_a_data_body_at_the_bound_passes_and_one_byte_more_is_refused(bound: int) -> None:
    fits = data_header(bound - 12, 0, 0, 0) + bytes(bound - 12)
    assert len(read(fits, max_body=bound)[0][2]) == bound
    with pytest.raises(RemoteProtocolError, match="data body"):
        read(data_header(bound - 11, 0, 0, 0), max_body=bound)


def test_a_data_body_shorter_than_its_prefix_is_refused() -> None:
    assert read(header(12, Kind.DATA) + bytes(12)) == [(Kind.DATA, 0, bytes(12))]
    with pytest.raises(RemoteProtocolError, match="data body of 11"):
        read(header(11, Kind.DATA) + bytes(11))


@pytest.mark.parametrize(
    "bad",
    [
        header(0, 0),
        header(0, max(Kind) + 1),
        header(0, Kind.BEAT, magic=MAGIC ^ 1),
        header(0, Kind.BEAT, flags=1),
        header(12, Kind.DATA, flags=8),
        b"GET / HTTP/1.1\r\n",
    ],
)
def test_what_is_no_header_is_refused(bad: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read(bad)
    reader = FrameReader(memoryview(bytearray(4096)))
    with pytest.raises(RemoteProtocolError):
        list(chain.from_iterable(reader.feed(bytes([byte])) for byte in bad))


def test_every_known_flag_passes() -> None:
    frame = data_header(0, Flag.RAW | Flag.SIDE | Flag.DIRECT, 0, 0)
    assert read(frame)[0][1] == 7


def test_frames_cut_at_every_byte_are_the_same_frames() -> None:
    stream = (
        control_frame(Kind.BEAT)
        + control_frame(Kind.LEAVE, b"bye")
        + data_header(5, Flag.RAW, 1, 2)
        + b"hello"
        + control_frame(Kind.WHO)
    )
    whole = read(stream)
    assert len(whole) == 4
    for cut in range(len(stream) + 1):
        reader = FrameReader(memoryview(bytearray(4096)))
        found = [(f.kind, f.flags, bytes(f.body)) for f in reader.feed(stream[:cut])]
        assert reader.pending <= cut
        found += [(f.kind, f.flags, bytes(f.body)) for f in reader.feed(stream[cut:])]
        assert found == whole
        assert reader.pending == 0


def test_a_declared_length_costs_nothing_by_itself() -> None:
    reader = FrameReader(memoryview(bytearray(4096)), 1 << 30)
    list(reader.feed(header(1 << 30, Kind.DATA)))
    assert reader.pending == HEADER.size
    assert sys.getsizeof(reader._own) < 200


def test_the_buffer_grows_to_an_eighth_more_than_what_came() -> None:
    reader = FrameReader(memoryview(bytearray(4096)), 1 << 30)
    size = 1 << 20
    stream = data_header(size, Flag.RAW, 0, 0) + bytes(size)
    for start in range(0, len(stream) - 4096, 4096):
        assert not list(reader.feed(stream[start : start + 4096]))
        assert sys.getsizeof(reader._own) <= (start + 4096) * 9 // 8 + 200


def test_the_buffer_offered_is_never_empty_and_never_beyond_the_frame() -> None:
    stream = control_frame(Kind.LEAVE, bytes(200_000 - 8192))
    reader = FrameReader(memoryview(bytearray(100)))
    sent = 0
    found = []
    while sent < len(stream):
        place = reader.buffer()
        assert len(place) > 0
        count = min(len(place), len(stream) - sent)
        place[:count] = stream[sent : sent + count]
        sent += count
        found += [len(f.body) for f in reader.received(count)]
    assert found == [200_000 - 8192]


def test_readers_that_share_a_scratch_buffer_do_not_mix_their_streams() -> None:
    scratch = memoryview(bytearray(64))
    first, second = FrameReader(scratch), FrameReader(scratch)
    a, b = control_frame(Kind.LEAVE, b"a" * 30), control_frame(Kind.LEAVE, b"b" * 30)
    found: list[bytes] = []
    for start in range(0, len(a), 5):
        for reader, stream in ((first, a), (second, b)):
            found += [bytes(f.body) for f in reader.feed(stream[start : start + 5])]
    assert found == [b"a" * 30, b"b" * 30]


def test_memory_that_is_kept_shows_every_frame_as_it_came() -> None:
    sizes = [300, 5, 900, 40, 1000, 999, 3, 700, 700, 700]
    bodies = [bytes([number]) * size for number, size in enumerate(sizes, 1)]
    stream = b"".join(control_frame(Kind.LEAVE, body) for body in bodies)
    for scratch in (7, 64, 500):
        reader = FrameReader(memoryview(bytearray(scratch)), keep=950)
        found: list[bytes] = []
        for start in range(0, len(stream), scratch):
            for frame in reader.feed(stream[start : start + scratch]):
                found.append(bytes(frame.body))
                del frame
        assert found == bodies
        assert len(reader._spare) <= 950


def test_a_body_that_somebody_still_looks_at_is_not_written_over() -> None:
    first, second = (control_frame(Kind.LEAVE, mark * 500) for mark in (b"a", b"b"))
    reader = FrameReader(memoryview(bytearray(64)), keep=1 << 20)
    held = list(reader.feed(first))
    assert [bytes(frame.body) for frame in reader.feed(second)] == [b"b" * 500]
    assert [bytes(frame.body) for frame in reader.feed(first)] == [b"a" * 500]
    assert bytes(held[0].body) == b"a" * 500
