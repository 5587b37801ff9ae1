"""The targets: what each promises about any bytes, as a function that raises if it is broken."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from joinleaf.core.keys.group import GroupKeys, KeyFact, LeafKeys
from joinleaf.core.reliability.seams import SpoiledError
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
from joinleaf.core.wire.sealed import DatagramOpener, DatagramSealer, SharedKey
from joinleaf.errors import RemoteProtocolError
from joinleaf.spi.qos import parse_rate, parse_size
from joinleaf.values import Address, SessionAddress

from .conversation import LeafConversation, RootConversation
from .stream import stream, stream_bodies
from .trains import trains

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
    frames = reader.feed(b"".join(packed.buffers))
    again = [m for frame in frames for m in unpack(frame.flags, frame.body, LIMIT)[2]]
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


SEALED_AT_NS: Final = 1_700_000_000_000_000_000
SEALED_MESSAGES: Final = [b"message %d" % number for number in range(4)]


def sealed_datagrams() -> list[bytes]:
    """The only datagrams that are authentic for ``sealed``; the corpus is made of them."""
    sealer = DatagramSealer(SharedKey(bytes(32), b"fuzz"), lambda: bytes(range(16)))
    sealer.begin(SEALED_AT_NS)
    return [sealer.seal(message) for message in SEALED_MESSAGES]


def sealed(data: bytes) -> None:
    """Of any datagrams only authentic ones come through, each once, and each one is counted.

    A datagram is as long as the two bytes in front of it say.
    """
    datagrams, at = list[bytes](), 0
    while at + 2 <= len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        datagrams.append(data[at + 2 : end])
        at = end
    opener = DatagramOpener(SharedKey(bytes(32), b"fuzz"), senders_kept=2)
    messages = opener.open_run(datagrams, SEALED_AT_NS)
    assert set(messages) <= set(SEALED_MESSAGES)
    assert len(set(messages)) == len(messages) == opener.opened
    refused = opener.plain + opener.other_key + opener.forged
    refused += opener.replayed + opener.stale + opener.crowded
    assert refused + opener.opened == len(datagrams)
    assert len(opener._senders) <= 1


def group_keys(data: bytes) -> None:
    """A KEY body or RemoteProtocolError; a sealed body is authentic, waits for its key or spoiled.

    The first bytes are kind (or count), epoch and unit.
    """
    root = GroupKeys(bytes(32), 7)
    authentic = (root.seal(1, 2, b"unit"), root.seal_control(4, 9, 1, b"sync"))
    leaf = LeafKeys(root.fact(), 7)
    if len(data) > 3:
        kind, epoch, unit, body = data[0], data[1], data[2], memoryview(data)[3:]
        attempts: list[Callable[[], bytes | None]] = [
            lambda: leaf.open(epoch, unit, kind, body),
            lambda: leaf.open_control(kind, epoch, 9, unit, body),
        ]
        for attempt in attempts:
            with suppress(SpoiledError):
                assert body in authentic if attempt() is not None else 2 <= epoch <= 128
    try:
        fact = KeyFact.parse(data)
    except RemoteProtocolError:
        return
    assert fact.body() == data
    assert leaf.learn(fact) == (fact.epoch != 1)


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
    "sealed": sealed,
    "group_keys": group_keys,
    "stream": stream,
    "stream_bodies": stream_bodies,
    "trains": trains,
    **({"transfer": transfer} if find_spec("joinleaf.transfer.wire") else {}),
}
