"""What a unit looks like on the wire, against the format spelt out; in C where it was built."""

from __future__ import annotations

import struct
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joinleaf.core.wire.native import IMAGES
from joinleaf.core.wire.units import (
    HEADER_SIZE,
    POLL,
    REPAIR,
    XOR,
    Layout,
    as_repair,
    exclusive_or,
    guarded,
    parity_header,
    parity_parts,
    with_parity,
    write_unit,
)

TAG, EPOCH = 0xFEDCBA98, 200
SEGMENTS = st.sampled_from((64, 100, 1452, 8000, 65_000))
UNITS = st.integers(0, (1 << 64) - 1)


def symbols_of(image: bytes, segment: int) -> list[bytes]:
    """Each with its header."""
    return [image[at : at + segment] for at in range(0, len(image), segment)]


def combined(payloads: list[bytes]) -> bytes:
    """Byte by byte."""
    return bytes(reduce(int.__xor__, column) for column in zip(*payloads, strict=True))


@given(SEGMENTS, UNITS, st.data())
def test_a_unit_is_headers_and_payloads_in_turn(
    segment: int, unit: int, data: st.DataObject
) -> None:
    layout = Layout(segment)
    size = data.draw(st.integers(1, layout.unit_bytes))
    stream = bytes(number * 7 % 251 for number in range(size))
    cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=5)))
    parts = [memoryview(stream)[a:b] for a, b in zip([0, *cuts], [*cuts, size], strict=True)]
    image = write_unit(layout, TAG, EPOCH, unit, list(parts), POLL)
    assert image == write_unit(layout, TAG, EPOCH, unit, stream, POLL)
    symbols = symbols_of(image, segment)
    assert b"".join(symbol[HEADER_SIZE:] for symbol in symbols) == stream
    for index, symbol in enumerate(symbols):
        header = struct.pack(">IBBBBQ", TAG, POLL, EPOCH, index, len(symbols), unit)
        assert symbol[:HEADER_SIZE] == header
        assert len(symbol) == segment or index == len(symbols) - 1


@given(SEGMENTS, st.data())
def test_what_is_sent_again_differs_in_its_kind_alone(segment: int, data: st.DataObject) -> None:
    layout = Layout(segment)
    stream = bytes(data.draw(st.integers(1, layout.unit_bytes)))
    image = write_unit(layout, TAG, EPOCH, 5, stream)
    assert as_repair(image, segment) == write_unit(layout, TAG, EPOCH, 5, stream, REPAIR)


@given(st.integers(1, 6), st.data())
def test_parity_in_advance_covers_every_symbol_once(guard: int, data: st.DataObject) -> None:
    layout = Layout(1000)
    count = data.draw(st.integers(2 * guard, guarded(layout.symbols, guard)))
    stream = bytes(number * number % 253 for number in range(count * layout.payload))
    image = write_unit(layout, TAG, EPOCH, 1 << 30, stream)
    train = with_parity(image, 1000, guard, TAG, EPOCH, 1 << 30)
    assert train[: len(image)] == image
    payloads = [symbol[HEADER_SIZE:] for symbol in symbols_of(image, 1000)]
    covered = []
    for symbol in symbols_of(train[len(image) :], 1000):
        tag, kind, epoch, index, total, packed = struct.unpack(">IBBBBQ", symbol[:HEADER_SIZE])
        assert (tag, kind, epoch, total) == (TAG, XOR, EPOCH, count)
        bitmap = parity_parts(index, total, packed)
        assert symbol[:HEADER_SIZE] == parity_header(TAG, EPOCH, count, 1 << 30, bitmap)
        parts = [at for at in range(count) if bitmap >> at & 1]
        covered += parts
        assert symbol[HEADER_SIZE:] == combined([payloads[at] for at in parts])
    assert sorted(covered) == list(range(count))


@given(st.integers(0, 40), st.integers(1, 5), st.data())
def test_payloads_are_combined_byte_by_byte(size: int, count: int, data: st.DataObject) -> None:
    payloads = [data.draw(st.binary(min_size=size, max_size=size)) for _ in range(count)]
    assert exclusive_or(payloads, size) == combined(payloads)
    assert exclusive_or(map(memoryview, payloads), size) == combined(payloads)
    assert exclusive_or(payloads, size + 3) == combined(payloads) + bytes(3)


def test_a_payload_longer_than_was_said_is_an_error() -> None:
    with pytest.raises(OverflowError):
        exclusive_or([b"\1\2\3"], 2)


@pytest.mark.parametrize("size", [0, 64 * 48 + 1])
def test_a_unit_that_is_none_is_an_error(size: int) -> None:
    with pytest.raises(ValueError, match="unit"):
        write_unit(Layout(64), TAG, 0, 0, bytes(size))


@pytest.mark.skipif(IMAGES is None, reason="these functions were not built in C")
def test_what_does_not_fit_is_an_error_in_c_too() -> None:
    assert IMAGES is not None
    for parts, size in (([b"abc"], 4), ([b"abc"], 2), ([], 1), ([b"ab", b"cd"], 3)):
        with pytest.raises(ValueError, match="as long as"):
            IMAGES.write_unit(parts, size, 48, TAG, 0, 0, 1)
    for size, each in ((0, 48), (65 * 48, 48), (10, 0), (10, -1)):
        with pytest.raises(ValueError, match="symbols"):
            IMAGES.write_unit([bytes(size)], size, each, TAG, 0, 0, 1)
    with pytest.raises(TypeError):
        IMAGES.write_unit(["text"], 4, 48, TAG, 0, 0, 1)
    for size, segment, guard in ((300, 100, 0), (300, 100, 2), (250, 100, 1), (0, 100, 1),
                                 (100, 10, 1), (42 * 100, 100, 3)):  # fmt: skip
        with pytest.raises(ValueError, match="symbols"):
            IMAGES.with_parity(bytes(size), segment, guard, TAG, 0, 0)
    with pytest.raises(ValueError, match="header"):
        IMAGES.as_repair(bytes(100), 16)
    with pytest.raises(TypeError):
        IMAGES.exclusive_or([b"ab", "text"], 2)
    with pytest.raises(TypeError):
        IMAGES.exclusive_or(5, 2)
    with pytest.raises((ValueError, SystemError)):
        IMAGES.exclusive_or([b"ab"], -1)
