"""A leaf written from docs/reference/protocol.md, with nothing of ours, takes part in a session."""

from __future__ import annotations

import base64
import hashlib
import hmac
import select
import socket
import ssl
import struct
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

import joinleaf

GROUP = "239.255.70.9:7409"
NO_UNIT = (1 << 64) - 1
JOIN, ACCEPT, DATA, BEAT, LEAVE = 1, 3, 5, 8, 7
REPORT, START, STOP, UNIT_REPAIR = 13, 14, 15, 18
CHALLENGE, PROOF = 20, 21
WAIT_S = 20.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="socket options of Linux")


class Leaf:
    """Knows the page, sockets and MessagePack."""

    def __init__(self, root: joinleaf.Root) -> None:
        where = root.address.address
        self.tcp = socket.create_connection((where.host, where.port), timeout=WAIT_S)
        self.inbox = bytearray()
        if key := root.join_line.partition("#")[2]:
            self.prove(base64.urlsafe_b64decode(key))
        request = {
            "versions": [1, 1],
            "incarnation": b"i" * 16,
            "role": 4,
            "dead_after_ms": 10_000,
            "max_message": 64 << 20,
        }
        self.say(JOIN, msgspec.msgpack.encode(request))
        kind, body = next(self.frames())
        if key:
            assert (kind, body) == (PROOF, self.expected)
            kind, body = next(self.frames())
        assert kind == ACCEPT
        self.facts: dict[str, Any] = msgspec.msgpack.decode(body)["facts"]
        self.group: dict[str, Any] = self.facts["group"]
        assert len(self.group.get("key", b"")) == (44 if key else 0)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.udp.bind((self.group["host"], self.group["port"]))
        addresses = (self.group["host"], where.host, self.group["source"])
        source_membership = 39  # IP_ADD_SOURCE_MEMBERSHIP of Linux: group, interface, source
        self.udp.setsockopt(
            socket.IPPROTO_IP, source_membership, b"".join(map(socket.inet_aton, addresses))
        )
        self.stops = 0

    def prove(self, key: bytes) -> None:
        """Encrypt, and show that the session key is known."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the fingerprint decides
        encrypted = context.wrap_socket(self.tcp)
        self.tcp = encrypted
        digest = hashlib.sha256(encrypted.getpeercert(binary_form=True) or b"").digest()
        version, fingerprint, secret, check = key[0], key[1:17], key[17:33], key[33:]
        sum_of = hashlib.sha256(b"joinleaf session key checksum" + key[:33]).digest()
        assert (version, fingerprint, check) == (1, digest[:16], sum_of[:3])
        kind, body = next(self.frames())
        assert (kind, len(body), body[0]) == (CHALLENGE, 33, 1)
        nonce = b"n" * 32

        def code(role: bytes) -> bytes:
            label = b"joinleaf session key 1: " + role + b"\0"
            return hmac.digest(secret, label + digest + body[1:] + nonce, "sha256")

        self.say(PROOF, nonce + code(b"asker"))
        self.expected = code(b"answerer")

    def say(self, kind: int, body: bytes) -> None:
        self.tcp.sendall(struct.pack(">IBBH", len(body), kind, 0, 0x4A4C) + body)

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """What the leg brings, without signs of life."""
        while True:
            while len(self.inbox) >= 8:
                size, kind, _flags, magic = struct.unpack_from(">IBBH", self.inbox)
                assert magic == 0x4A4C
                if len(self.inbox) < 8 + size:
                    break
                body = bytes(self.inbox[8 : 8 + size])
                del self.inbox[: 8 + size]
                if kind != BEAT:
                    yield kind, body
            more = self.tcp.recv(1 << 16)
            assert more
            self.inbox += more

    def symbols(self) -> Iterator[tuple[int, int, int, int, bytes]]:
        """Kind, index, count, unit and payload of what the group brings."""
        while True:
            assert select.select([self.udp], [], [], WAIT_S)[0]
            datagram, (host, _) = self.udp.recvfrom(1 << 16)
            assert host == self.group["source"]
            tag, kind, epoch, index, count, unit = struct.unpack_from(">IBBBBQ", datagram)
            if tag == self.group["tag"]:
                assert epoch == 0
                yield kind, index, count, unit, datagram[16:]

    def listen(self) -> None:
        """Hear a probe and say so."""
        for kind, index, _, _, payload in self.symbols():
            if kind == 5:
                assert (index, payload) == (255, self.group["nonce"])
                break
        self.report(self.stops, NO_UNIT, heard=True)

    def report(
        self, ack: int, seen: int, *, heard: bool = True, missing: tuple[int, ...] = ()
    ) -> None:
        window = self.group["window"]
        fixed = (ack, seen, NO_UNIT, 0, window, heard, 0, len(missing), 0)
        body = struct.pack(">QQQIIBBHH", *fixed)
        for unit in missing:
            body += struct.pack(">IHBQ", unit - ack, 1, 0, NO_UNIT)
        self.say(REPORT, body)

    def leave(self) -> None:
        self.say(LEAVE, msgspec.msgpack.encode({"reason": "closed"}))

    def close(self) -> None:
        self.tcp.close()
        self.udp.close()


def messages_of(stream: bytes) -> list[tuple[int, bytes]]:
    """Number and content of all messages in whole frames."""
    messages: list[tuple[int, bytes]] = []
    while stream:
        size, kind, flags, magic = struct.unpack_from(">IBBH", stream)
        assert (kind, flags & ~1, magic) == (DATA, 0, 0x4A4C)
        sender, number = struct.unpack_from(">IQ", stream, 8)
        assert sender == 0
        payload = stream[20 : 8 + size]
        part = [payload] if flags else msgspec.msgpack.decode(payload)
        messages += enumerate(part, number)
        stream = stream[8 + size :]
    return messages


@pytest.fixture
def root() -> Iterator[joinleaf.Root]:
    with joinleaf.open_root(f"jl://127.0.0.1:0?data={GROUP}", linger=0.5) as opened:
        yield opened


@pytest.fixture
def leaf(root: joinleaf.Root) -> Iterator[Leaf]:
    joined = Leaf(root)
    yield joined
    joined.close()


def test_a_leaf_made_by_the_page_is_served_by_the_group_and_has_a_loss_repaired(
    root: joinleaf.Root, leaf: Leaf
) -> None:
    leaf.listen()
    words = leaf.frames()
    kind, body = next(words)
    assert kind == START
    first, _interval, _backoff, _repeat, leaves = struct.unpack(">QIIII", body)
    assert leaves == 1
    assert root.leaves[0].carrier == "group"

    sent = [b"%d" % number for number in range(3000)]
    for start in range(0, 3000, 1000):  # a unit each
        root.send_many(sent[start : start + 1000])
    lost, units, end = first + 1, dict[int, bytes](), first + 3
    deadline = time.monotonic() + WAIT_S
    for kind, index, count, unit, payload in leaf.symbols():
        assert time.monotonic() < deadline
        if kind in (1, 129):
            assert (index, count) == (0, 1)  # loopback's datagrams hold a unit
            if unit != lost:
                units[unit] = payload
        elif kind == 2:
            assert unit == lost
            units[unit] = payload
        if len(units) == end - first:
            break
        if unit == end - 1 and lost not in units:
            leaf.report(lost, end, missing=(lost,))
    leaf.report(end, end)

    stream = b"".join(units[unit] for unit in range(first, end))
    assert messages_of(stream) == list(enumerate(sent, leaf.facts.get("sequence", 0)))
    assert root.stats()["group_repaired"] >= 1
    leaf.leave()


def test_a_leaf_made_by_the_page_that_acknowledges_nothing_goes_back_to_its_leg(
    root: joinleaf.Root, leaf: Leaf
) -> None:
    leaf.listen()
    words = leaf.frames()
    kind, body = next(words)
    assert kind == START
    first = struct.unpack_from(">Q", body)[0]
    root.send(b"by the group, and unheard")

    kind, body = next(words)
    assert kind == UNIT_REPAIR
    unit, epoch, count, _length, bitmap = struct.unpack_from(">QBBIQ", body)
    assert (unit, epoch, count, bitmap) == (first, 0, 1, 1)
    assert messages_of(body[22:]) == [(0, b"by the group, and unheard")]
    kind, body = next(words)
    assert (kind, struct.unpack(">Q", body)[0]) == (STOP, first + 1)

    root.send(b"by the leg")
    kind, body = next(words)
    assert kind == DATA
    assert body[12:] == b"by the leg"
    assert root.leaves[0].carrier == "leg"

    leaf.stops = 1
    leaf.listen()
    kind, body = next(words)
    assert kind == START
    assert root.leaves[0].carrier == "group"
    leaf.leave()


def test_a_leaf_made_by_the_page_proves_the_session_key() -> None:
    with joinleaf.open_root(f"jls://127.0.0.1:0?data={GROUP}", linger=0.5) as root:
        leaf = Leaf(root)
        try:
            assert root.wait_for_leaves(1, timeout=WAIT_S)
            assert root.leaves[0].identity == "session key"
            leaf.leave()
        finally:
            leaf.close()
