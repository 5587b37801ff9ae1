"""The targets: what each promises about any bytes, as a function that raises if it is broken."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from joinleaf.core.wire.control import (
    Answer,
    Leave,
    Name,
    QosBody,
    Refusal,
    Request,
    Roster,
    decode,
    encode,
    unknown_critical,
)
from joinleaf.core.wire.data import pack, unpack
from joinleaf.core.wire.frames import DATA_PREFIX, FrameReader
from joinleaf.errors import RemoteProtocolError
from joinleaf.spi.qos import parse_rate, parse_size
from joinleaf.values import Address, SessionAddress

from .conversation import LeafConversation, RootConversation

__all__ = ["TARGETS", "Target"]

Target = Callable[[bytes], None]

LIMIT: Final = 40
"""Longest message in ``batches``: short, so that few changes make one too long."""


def read_frames(data: bytes, pieces: list[bytes]) -> tuple[list[tuple[int, int, bytes]], bool]:
    """Frames as values, and whether the stream was refused."""
    reader = FrameReader(memoryview(bytearray(512)), 1 << 18)
    found: list[tuple[int, int, bytes]] = []
    fed = 0
    try:
        for piece in pieces:
            fed += len(piece)
            found.extend((f.kind, f.flags, bytes(f.body)) for f in reader.feed(piece))
            assert reader.pending <= fed
            assert sys.getsizeof(reader._own) <= fed * 9 // 8 + 200
    except RemoteProtocolError:
        return found, True
    return found, False


def frames(data: bytes) -> None:
    """Frames or RemoteProtocolError, the same however the stream is cut."""
    whole = read_frames(data, [data])
    assert read_frames(data, [data[i : i + 1] for i in range(len(data))]) == whole
    cut = len(data) // 2
    assert read_frames(data, [data[:cut], data[cut:]]) == whole


_BODIES: Final[tuple[type[Any], ...]] = (Request, Answer, Refusal, Leave, Name, Roster, QosBody)


def control(data: bytes) -> None:
    """A body or RemoteProtocolError; a body encodes to what decodes to the same."""
    for kind in _BODIES:
        try:
            body = decode(kind, data)
        except RemoteProtocolError:
            continue
        assert decode(kind, encode(body)) == body
        if isinstance(body, Request | Answer):
            unknown_critical(body)
        if isinstance(body, Name):
            str(body.address())
        qos = body if isinstance(body, QosBody) else getattr(body, "qos", None)
        if qos is not None:
            try:
                assert QosBody.of(qos.qos()) == qos
            except RemoteProtocolError:
                continue


def batches(data: bytes) -> None:
    """Messages within the limit or RemoteProtocolError; they come back through ``pack``."""
    if len(data) < 1 + DATA_PREFIX.size:
        return
    try:
        sender, sequence, messages = unpack(data[0], memoryview(data)[1:], LIMIT)
    except RemoteProtocolError:
        return
    assert all(len(message) <= LIMIT for message in messages)
    packed = pack(messages, sender=sender, sequence=sequence, flags=0, max_message=LIMIT)
    reader = FrameReader(memoryview(bytearray(512)), 1 << 18)
    again = [m for f in reader.feed(b"".join(packed.buffers)) for m in unpack(0, f.body, LIMIT)[2]]
    assert again == messages


def root(data: bytes) -> None:
    """A root's honest members never notice what a stranger says."""
    if data:
        for bytewise in (False, True):
            start = RootConversation(
                bytewise=bytewise, rooted=bool(data[0] & 8), stage=data[0] % 8 % 6
            )
            start.run(data[1:])


def leaf(data: bytes) -> None:
    """A leaf survives any root."""
    if data:
        for bytewise in (False, True):
            LeafConversation(bytewise=bytewise, invited=False, stage=data[0] % 3).run(data[1:])


def invited(data: bytes) -> None:
    """A listening leaf survives anybody who invites it."""
    if data:
        for bytewise in (False, True):
            LeafConversation(bytewise=bytewise, invited=True, stage=data[0] % 4).run(data[1:])


def address(data: bytes) -> None:
    """An address or ValueError; its text reads as the same address."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        plain = Address.parse(text, default_port=1)
    except ValueError:
        pass
    else:
        _ = (plain.ip, plain.is_any, plain.is_loopback, plain.is_multicast, str(plain))
    try:
        session = SessionAddress.parse(text)
    except ValueError:
        return
    assert 0 <= session.address.port <= 65535
    shown = str(session)
    assert not session.key or f"#{session.key}" not in shown


def rate(data: bytes) -> None:
    """A rate or ValueError, in its range."""
    text = data.decode("utf-8", "surrogateescape")
    for parse, least in ((parse_rate, 1), (parse_size, 0)):
        try:
            value = parse(text)
        except ValueError:
            continue
        assert isinstance(value, int)
        assert value >= least


def transfer(data: bytes) -> None:
    """A transfer message or RemoteProtocolError; a control message encodes to itself."""
    wire = import_module("joinleaf.transfer.wire")
    try:
        message = wire.decode(data)
    except RemoteProtocolError:
        return
    if not isinstance(message, wire.Chunk):
        assert wire.decode(wire.encode(message)) == message


TARGETS: Final[dict[str, Target]] = {
    "frames": frames,
    "control": control,
    "batches": batches,
    "root": root,
    "leaf": leaf,
    "invited": invited,
    "address": address,
    "rate": rate,
    **({"transfer": transfer} if find_spec("joinleaf.transfer.wire") else {}),
}
