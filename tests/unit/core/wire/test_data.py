"""Batches to frames and back."""

from __future__ import annotations

import array
import struct
from collections.abc import Sequence

import msgspec
import pytest

from joinleaf.core.wire.data import (
    FRAME_TARGET,
    MAX_ARRAY,
    MAX_FRAME_OVERHEAD,
    RAW_FROM,
    PackedBatch,
    pack,
    unpack,
)
from joinleaf.core.wire.frames import DATA_PREFIX, MAX_CONTROL_BODY, Flag, FrameReader, Kind
from joinleaf.errors import RemoteProtocolError, SpiError
from joinleaf.spi.codes import WSAEFAULT, WSAEMSGSIZE
from joinleaf.spi.provider import Buffer

LIMIT = 64 << 20


def make(messages: Sequence[Buffer], max_message: int = LIMIT, flags: int = 0) -> PackedBatch:
    return pack(messages, sender=3, sequence=1000, flags=flags, max_message=max_message)


def split(batch: PackedBatch, max_message: int = LIMIT) -> list[tuple[int, list[bytes]]]:
    """Flags and messages of each frame, read with the bound that a member has."""
    bound = max(MAX_CONTROL_BODY, max_message + MAX_FRAME_OVERHEAD)
    reader = FrameReader(memoryview(bytearray(1 << 16)), bound)
    found = []
    number = 1000
    for frame in reader.feed(b"".join(batch.buffers)):
        assert frame.kind == Kind.DATA
        sender, sequence, messages = unpack(frame.flags, frame.body, max_message)
        assert (sender, sequence) == (3, number)
        number += len(messages)
        found.append((frame.flags, messages))
    assert reader.pending == 0
    assert batch.size == sum(map(len, batch.buffers))
    assert batch.count == number - 1000
    return found


def test_small_messages_travel_as_one_array_in_one_buffer() -> None:
    batch = make([b"a", bytearray(b"b"), memoryview(b"c"), b""])
    assert split(batch) == [(0, [b"a", b"b", b"c", b""])]
    assert len(batch.buffers) == 1
    assert not batch.borrowed


def test_an_empty_batch_is_one_empty_frame_whatever_its_type() -> None:
    assert split(make([])) == split(make(())) == [(0, [])]
    assert split(make(b"")) == [(0, [])]  # type: ignore[arg-type]  # what is tested


@pytest.mark.parametrize(("size", "raw"), [(RAW_FROM - 1, False), (RAW_FROM, True)])
def test_messages_go_raw_from_the_bound_on(size: int, raw: bool) -> None:
    batch = make([bytes(size), bytes(size)])
    expected = [(Flag.RAW, [bytes(size)])] * 2 if raw else [(0, [bytes(size)] * 2)]
    assert split(batch) == expected
    assert batch.borrowed is raw


@pytest.mark.parametrize("size", [0, 1, RAW_FROM - 1])
def test_a_small_message_alone_is_a_frame_of_its_own_and_nobodys_memory(size: int) -> None:
    batch = make([bytes(size)])
    assert split(batch) == [(Flag.RAW if size else 0, [bytes(size)])]
    assert not batch.borrowed
    assert len(batch.buffers) == 1
    with pytest.raises(SpiError) as error:
        make([bytes(9)], max_message=8)
    assert error.value.code == WSAEMSGSIZE


def test_a_long_message_is_not_copied_on_its_way_out() -> None:
    message = bytearray(RAW_FROM)
    batch = make([message])
    message[0] = 255
    assert bytes(batch.buffers[1])[0] == 255


@pytest.mark.parametrize("flags", [0, Flag.SIDE, Flag.DIRECT])
def test_other_flags_are_kept_beside_raw(flags: int) -> None:
    assert split(make([b"x", b"y"], flags=flags))[0][0] == flags
    assert split(make([b"x"], flags=flags))[0][0] == flags | Flag.RAW
    assert split(make([bytes(RAW_FROM)], flags=flags))[0][0] == flags | Flag.RAW


def test_a_batch_over_the_target_is_cut_and_keeps_order_and_numbers() -> None:
    messages = [struct.pack(">I", number) * 50 for number in range(5000)]
    found = split(make(messages))
    assert [m for _, part in found for m in part] == messages
    assert len(found) >= 8


@pytest.mark.parametrize("spare", [0, 1])
def test_the_target_decides_between_one_frame_and_several(spare: int) -> None:
    # Header 20, array header 1; each message has a header of 3 bytes: 21 + 15 * (3 + n).
    sizes = [8000] * 14
    last = FRAME_TARGET - 21 - 14 * 8003 - 3
    batch = make([bytes(n) for n in (*sizes, last + spare)])
    assert (len(batch.buffers) == 1) is (spare == 0)
    split(batch)


@pytest.mark.parametrize("max_message", [RAW_FROM, LIMIT])
def test_unequal_messages_make_no_frame_that_a_member_refuses(max_message: int) -> None:
    messages = [b""] * 20_000 + [bytes(RAW_FROM - 1)] * 400
    batch = make(messages, max_message)
    found = split(batch, max_message)
    assert [m for _, part in found for m in part] == messages
    assert max(map(len, batch.buffers)) <= MAX_ARRAY


def test_long_messages_behind_short_ones_go_raw() -> None:
    messages = [b"short", bytes(300_000), b"short again", bytes(300_000)]
    found = split(make(messages))
    assert [m for _, part in found for m in part] == messages
    assert all(flags & Flag.RAW for flags, part in found if len(part[0]) >= RAW_FROM)


@pytest.mark.parametrize("limit", [1, 100, RAW_FROM - 1, RAW_FROM, 200_000])
def test_a_message_at_the_limit_passes_and_one_byte_more_is_refused(limit: int) -> None:
    for others in ([], [b"x"]):
        messages: list[Buffer] = [*others, bytes(limit)]
        assert [m for _, part in split(make(messages, limit), limit) for m in part] == messages
        with pytest.raises(SpiError, match=f"message of {limit + 1} bytes") as caught:
            make([*others, bytes(limit + 1)], limit)
        assert caught.value.code == WSAEMSGSIZE


@pytest.mark.parametrize("size", [0, 4, RAW_FROM])
def test_text_is_refused_with_the_way_out(size: int) -> None:
    for messages in (["t" * size], [b"x", "t" * size], [bytes(RAW_FROM), "t" * size]):
        with pytest.raises(TypeError, match="encode"):
            make(messages)  # type: ignore[arg-type]  # what is tested


def test_numbers_and_a_bare_byte_string_are_refused() -> None:
    with pytest.raises(TypeError, match="not int"):
        make([5])  # type: ignore[list-item]  # what is tested
    with pytest.raises(TypeError, match="not int"):
        make(b"not a list")  # type: ignore[arg-type]  # what is tested


def test_a_subclass_of_bytes_is_a_message() -> None:
    class Tagged(bytes):
        pass

    assert split(make([b"x", Tagged(b"y")])) == [(0, [b"x", b"y"])]
    assert split(make([Tagged(bytes(RAW_FROM))])) == [(Flag.RAW, [bytes(RAW_FROM)])]


@pytest.mark.parametrize("size", [4, RAW_FROM, FRAME_TARGET])
def test_memory_that_is_not_contiguous_is_refused_wherever_it_stands(size: int) -> None:
    view = memoryview(bytes(2 * size))[::2]
    batches: list[list[Buffer]] = [[view], [b"x", view], [bytes(RAW_FROM), view]]
    for messages in batches:
        with pytest.raises(SpiError, match="contiguous") as caught:
            make(messages)
        assert caught.value.code == WSAEFAULT


def test_views_of_other_formats_count_in_bytes() -> None:
    numbers = array.array("I", range(4096))
    short = array.array("I", [1, 2])
    found = split(make([memoryview(numbers), memoryview(short), memoryview(array.array("I"))]))
    expected = [numbers.tobytes(), short.tobytes(), b""]
    assert [m for _, part in found for m in part] == expected
    assert split(make([memoryview(short)])) == [(0, [short.tobytes()])]


def body(payload: bytes) -> memoryview:
    return memoryview(DATA_PREFIX.pack(0, 0) + payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc0",
        b"\x91",
        b"\x91\xa1a",
        b"\x90\x00",
        b"\xdd\xff\xff\xff\xff",
        b"\x91\xc6\xff\xff\xff\xff",
        b"\x91" * 5000,
    ],
)
def test_what_is_no_array_of_byte_strings_is_refused(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="not a batch"):
        unpack(0, body(payload), LIMIT)


def test_a_received_message_at_the_limit_passes_and_one_byte_more_is_refused() -> None:
    for limit in (10, 1000):
        for flags, wrap in ((Flag.RAW, bytes), (0, lambda m: msgspec.msgpack.encode([b"", m]))):
            assert unpack(flags, body(wrap(bytes(limit))), limit)[2][-1] == bytes(limit)
            with pytest.raises(RemoteProtocolError, match=f"message of {limit + 1} bytes"):
                unpack(flags, body(wrap(bytes(limit + 1))), limit)


def test_messages_outlive_the_buffer_they_came_in() -> None:
    buffer = bytearray(DATA_PREFIX.pack(0, 0) + b"\x91\xc4\x01a")
    raw = bytearray(DATA_PREFIX.pack(0, 0) + b"a")
    kept = unpack(0, memoryview(buffer), LIMIT)[2] + unpack(Flag.RAW, memoryview(raw), LIMIT)[2]
    buffer[-1] = raw[-1] = ord("z")
    assert kept == [b"a", b"a"]
