from __future__ import annotations

import msgspec
import pytest

from joinleaf.errors import RemoteProtocolError
from joinleaf.transfer import wire

ID = bytes(range(16))


def chunk(index: int, offset: int, payload: bytes) -> bytes:
    buffer = bytearray(wire.CHUNK_HEADER.size)
    wire.put_chunk_header(buffer, 0, ID, index, offset)
    return bytes(buffer) + payload


def test_a_chunk_is_read_without_copying_its_payload() -> None:
    data = chunk(7, 1 << 40, b"payload")
    read = wire.decode(data)
    assert isinstance(read, wire.Chunk)
    assert (read.object_id, read.index, read.offset, bytes(read.payload)) == (
        ID,
        7,
        1 << 40,
        b"payload",
    )
    assert read.payload.obj is data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        chunk(0, 0, b""),
        chunk(wire.MAX_ENTRIES, 0, b"x"),
        chunk(0, wire.MAX_POSITION, b"x"),
        chunk(0, 0, bytes(wire.MAX_CHUNK + 1)),
        bytes(wire.MAX_MESSAGE + 1),
        b"\x93\xa7unknown\x00\x00",
        b"\x91" * 100_000,
        msgspec.msgpack.encode(["offer", b"short", "file", "x", 1]),
        msgspec.msgpack.encode(["offer", ID, "device", "x", 1]),
        msgspec.msgpack.encode(["offer", ID, "file", "x", wire.MAX_ENTRIES + 1]),
        msgspec.msgpack.encode(["status", ID, -1, 0, False]),
        msgspec.msgpack.encode(["missing", ID, [[0, 1 << 63]]]),
    ],
    ids=lambda data: data[:12].hex() or "empty",
)
def test_what_breaks_a_bound_is_a_remote_protocol_error(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        wire.decode(data)


def test_fields_added_by_a_later_version_are_ignored() -> None:
    later = msgspec.msgpack.encode(["abort", ID, "why", "a field of tomorrow"])
    assert wire.decode(later) == wire.Abort(ID, "why")


def test_reasons_are_made_fit_for_the_wire() -> None:
    said = wire.clip_reason("line\nbreak \x1b[31m \udc80 " + "x" * 5000)
    assert len(said) == wire.MAX_REASON
    assert said.isprintable()
    assert wire.decode(wire.encode(wire.Abort(ID, said))) == wire.Abort(ID, said)
