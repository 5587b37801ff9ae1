"""The sealed multicast stream through real sockets, with an attacker on the same group.

Root and members are the socket ends, the stream and the keys; the legs between them are queues, as
reliable and as private as TLS makes them. The attacker hears every datagram of the group and sends
from the root's own address. What simulations show with seeds, a few hundred datagrams show here
with the kernel's trains in between.
"""

from __future__ import annotations

import itertools
import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from joinleaf.core.keys.group import GroupKeys, KeyFact, LeafKeys, epoch_byte
from joinleaf.core.reliability.receiver import StreamReceiver
from joinleaf.core.reliability.sender import StreamSender
from joinleaf.core.wire.frames import HEADER as FRAME
from joinleaf.core.wire.landing import Landing
from joinleaf.core.wire.reports import Timing, decode_start, sync_body
from joinleaf.core.wire.units import (
    DATA,
    HEADER,
    HEADER_SIZE,
    PROBE,
    REPAIR,
    SYNC,
    Layout,
    write_unit,
)
from joinleaf.drivers.group_port import GroupReceiver, GroupSender
from joinleaf.values import Address

LOOPBACK = "127.0.0.1"
BOUND = 10.0  # seconds; no wait comes near it unless it fails
SEGMENT = 1452  # as on Ethernet, so that a unit is many datagrams
TAG = 0x7A9
NONCE = b"nonce of probes!"
WINDOW = 1 << 20

GROUP = f"239.203.{os.getpid() // 250 % 250}.{os.getpid() % 250 + 1}"  # of this run alone

_ports = itertools.count(37000)
SEED = 7
_random = random.Random(SEED)


class Member:
    """A leaf's ends of the group and of its leg, and what it was given."""

    def __init__(self, group: Address, fact: KeyFact) -> None:
        self.port = GroupReceiver(group, LOOPBACK, source=LOOPBACK)
        self.keys = LeafKeys(KeyFact.parse(fact.body()), TAG)
        self.receiver = StreamReceiver(
            tag=TAG, window_bytes=WINDOW, opener=self.keys, probe=NONCE, backoff_seed=1
        )
        self.got: list[bytes] = []

    def learn(self, fact: KeyFact) -> None:
        self.keys.learn(KeyFact.parse(fact.body()))
        self.receiver.keys_changed(time.monotonic_ns())

    def hear(self) -> None:
        now = time.monotonic_ns()
        landing = Landing()
        while self.port.receive(landing):
            assert not self.receiver.handle_landing(
                landing, now
            )  # what is sealed is opened at once
        self.receiver.tick(now)
        self.got += [unit for unit in self.receiver.take() if isinstance(unit, bytes)]


class Session:
    """A root and its members, moved along by hand."""

    def __init__(self, members: int) -> None:
        self.group = Address(GROUP, next(_ports))
        self.port = GroupSender(self.group, LOOPBACK)
        self.keys = GroupKeys(_random.randbytes(32), TAG)
        self.sender = StreamSender(Layout(SEGMENT), tag=TAG, window_bytes=WINDOW, sealer=self.keys)
        self.members = [Member(self.group, self.keys.fact()) for _ in range(members)]
        for key, member in enumerate(self.members):
            unit = self.sender.add_leaf(key, WINDOW, time.monotonic_ns())
            frame = self.sender.start(unit)
            member.receiver.start(*decode_start(memoryview(frame)[FRAME.size :]))
        self.expected: list[bytes] = []

    def send(self, *payloads: bytes) -> None:
        """A batch for each; what arrives is compared by ``settle``."""
        for payload in payloads:
            self.sender.begin([payload], len(payload))
            self.sender.own()
            self.expected.append(payload)
        self.move()

    def move(self) -> None:
        now = time.monotonic_ns()
        self.sender.tick(now)
        while (train := self.sender.poll_transmit(now)) is not None:
            assert self.port.send(train.buffer, train.segment)
        for key, member in enumerate(self.members):
            member.hear()
            frame = member.receiver.poll_report(time.monotonic_ns())
            if frame is not None:
                body = memoryview(frame)[FRAME.size :]
                self.sender.handle_report(key, body, time.monotonic_ns())
        while (item := self.sender.poll_leg()) is not None:
            body = memoryview(item[1])[FRAME.size :]
            self.members[item[0]].receiver.handle_unit_repair(body, time.monotonic_ns())

    def settle(self) -> None:
        """Until all members have everything; it must be what was sent, in order, once."""
        deadline, whole = time.monotonic() + BOUND, b"".join(self.expected)
        while any(sum(map(len, member.got)) < len(whole) for member in self.members):
            assert time.monotonic() < deadline, [m.receiver.counters for m in self.members]
            self.move()
        assert all(b"".join(member.got) == whole for member in self.members)

    def close(self) -> None:
        self.port.close()
        for member in self.members:
            member.port.close()


class Attacker:
    """On the group without a key, or with one that is no longer good."""

    def __init__(self, session: Session) -> None:
        self._group = (session.group.host, session.group.port)
        self._ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._ear.bind(self._group)
        membership = struct.pack("4s4s", *map(socket.inet_aton, (self._group[0], LOOPBACK)))
        self._ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        self._ear.setblocking(False)
        self._mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._mouth.bind((LOOPBACK, 0))
        self._mouth.setsockopt(
            socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(LOOPBACK)
        )

    def hear(self) -> list[bytes]:
        """Every datagram there has been since; without GRO the kernel gives them one by one."""
        heard = []
        while True:
            try:
                heard.append(self._ear.recv(65535))
            except BlockingIOError:
                return heard

    def say(self, datagrams: Sequence[bytes]) -> None:
        for datagram in datagrams:
            self._mouth.sendto(datagram, self._group)

    def close(self) -> None:
        self._ear.close()
        self._mouth.close()


@pytest.fixture
def session() -> Iterator[Session]:
    _random.seed(SEED)  # so that a test does the same alone and among others
    made = Session(members=2)
    yield made
    made.close()


@pytest.fixture
def attacker(session: Session) -> Iterator[Attacker]:
    made = Attacker(session)
    yield made
    made.close()


def some(count: int) -> list[bytes]:
    return [_random.randbytes(_random.choice((20, 1400, 9000))) for _ in range(count)]


def attack_and_go_on(
    session: Session, attacker: Attacker, attack: Callable[[list[bytes]], list[bytes]]
) -> None:
    """Send, record, and go on sending while the attack is on; everything must arrive."""
    session.send(*some(5))
    session.settle()
    heard = attacker.hear()
    for _ in range(5):
        attacker.say(attack(heard))
        session.send(*some(5))
        heard += attacker.hear()
    session.settle()


def counted(session: Session, *names: str) -> int:
    return sum(member.receiver.counters[name] for member in session.members for name in names)


def test_who_listens_on_the_group_learns_lengths_only(session: Session, attacker: Attacker) -> None:
    session.send(b"attack at dawn" * 100, b"attack at dawn" * 100)
    session.settle()
    heard = attacker.hear()
    assert heard
    assert not any(b"attack" in datagram for datagram in heard)
    bodies = [d[HEADER_SIZE:] for d in heard if HEADER.unpack_from(d)[1] & 0x7F == DATA]
    assert len(set(bodies)) == len(bodies)


def test_injected_symbols_are_mended_over_the_legs(session: Session, attacker: Attacker) -> None:
    def attack(_: list[bytes]) -> list[bytes]:
        unit, epoch = session.sender.next_unit, session.keys.epoch
        heads = [
            HEADER.pack(TAG, kind, epoch, index, 7, unit + ahead)
            for kind in (DATA, REPAIR)
            for index in (0, 3)
            for ahead in (0, 2, 4)
        ]
        return [head + bytes(SEGMENT - HEADER_SIZE) for head in heads]

    attack_and_go_on(session, attacker, attack)
    assert counted(session, "conflicts", "spoiled") > 0
    assert session.sender.counters["leg_repairs"] > 0


def test_replayed_datagrams_are_duplicates_and_nothing_more(
    session: Session, attacker: Attacker
) -> None:
    attack_and_go_on(session, attacker, lambda heard: heard[-60:])
    assert counted(session, "duplicates") > 0
    assert counted(session, "spoiled", "conflicts") == 0


def test_truncated_datagrams_do_no_harm(session: Session, attacker: Attacker) -> None:
    attack_and_go_on(
        session,
        attacker,
        lambda heard: [d[: _random.randrange(len(d) + 1)] for d in _random.choices(heard, k=20)],
    )


def test_changed_datagrams_do_no_harm(session: Session, attacker: Attacker) -> None:
    def attack(heard: list[bytes]) -> list[bytes]:
        changed = []
        for datagram in _random.choices(heard, k=20):
            copy = bytearray(datagram)
            copy[_random.randrange(len(copy))] ^= 1 << _random.randrange(8)
            struct.pack_into(">Q", copy, 8, session.sender.next_unit + _random.randrange(3))
            changed.append(bytes(copy))
        return changed

    attack_and_go_on(session, attacker, attack)


def test_datagrams_without_the_tag_are_dropped_first(session: Session, attacker: Attacker) -> None:
    attack_and_go_on(
        session, attacker, lambda heard: [struct.pack(">I", TAG + 1) + d[4:] for d in heard[-20:]]
    )
    assert counted(session, "strangers") > 0
    assert counted(session, "spoiled", "conflicts", "duplicates") == 0


def test_a_made_up_sync_or_probe_moves_nobody(session: Session, attacker: Attacker) -> None:
    """It could hurry every leaf to report, or make it ask for what was never sent."""

    def attack(heard: list[bytes]) -> list[bytes]:
        unit, body = session.sender.next_unit + 1000, sync_body(Timing(0, 0, 1, 1))
        true = [d for d in heard if HEADER.unpack_from(d)[1] == SYNC][:3]
        return [
            HEADER.pack(TAG, SYNC, 0, 255, 1, unit) + body,
            HEADER.pack(TAG, SYNC, session.keys.epoch, 255, 1, unit) + bytes(24) + body,
            HEADER.pack(TAG, PROBE, 0, 255, 0, unit) + NONCE,
            *(HEADER.pack(TAG, SYNC, d[5], 255, d[7], unit) + d[HEADER_SIZE:] for d in true),
            *true,
        ]

    attack_and_go_on(session, attacker, attack)
    assert counted(session, "malformed") >= 15
    assert not any(member.receiver.probe_heard for member in session.members)
    assert session.sender.counters["leg_repairs"] == 0


def test_a_true_probe_is_heard(session: Session) -> None:
    train = session.sender.probe(NONCE, time.monotonic_ns())
    session.port.send(train.buffer, train.segment)
    session.send(b"and so is the rest")
    session.settle()
    assert all(member.receiver.probe_heard for member in session.members)


def test_members_that_lag_behind_a_change_of_keys_lose_nothing(session: Session) -> None:
    session.send(*some(3))
    late, prompt = session.members
    facts = []
    for _ in range(3):
        facts.append(session.keys.rotate(_random.randbytes(32)))
        prompt.learn(facts[-1])
        session.send(*some(3))
    for _ in range(3):
        session.move()
    assert sum(map(len, prompt.got)) == sum(map(len, session.expected))
    assert sum(map(len, late.got)) == sum(map(len, session.expected[:3]))
    for fact in facts:
        late.learn(fact)
    session.settle()
    assert counted(session, "spoiled") == 0


def test_an_expelled_member_reads_nothing_more_and_stops_nobody(
    session: Session, attacker: Attacker
) -> None:
    session.send(*some(3))
    session.settle()
    expelled = session.members.pop()
    old = session.keys.fact()
    session.members[0].learn(session.keys.rotate(_random.randbytes(32)))
    session.sender.remove_leaf(1)
    before = list(expelled.got)
    forger, layout = GroupKeys(old.key, TAG), Layout(SEGMENT)
    unit = session.sender.next_unit
    for _ in range(10):
        lie = forger.seal(unit, 1, b"lies")
        sync = forger.seal_control(SYNC, 1, unit + 500, sync_body(Timing(0, 0, 1, 1)))
        attacker.say(
            [
                write_unit(layout, TAG, epoch_byte(1), unit, lie),
                HEADER.pack(TAG, SYNC, epoch_byte(1), 255, 1, unit + 500) + sync,
            ]
        )
        session.send(*some(2))
        unit = session.sender.next_unit
    session.settle()
    landing = Landing()
    while expelled.port.receive(landing):
        view, segment = landing.view[: landing.size], landing.segment
        if HEADER.unpack_from(view)[2] == epoch_byte(1):
            continue  # its own lies, which it can read
        expelled.receiver.handle_train(view, segment, time.monotonic_ns())
    assert expelled.got + expelled.receiver.take() == before
    expelled.port.close()
