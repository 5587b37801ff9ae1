"""Sealed udp:// and ssm:// against somebody on the same network who has no key.

The attacker is on loopback, the best place there is: it hears every datagram, sends from the very
address that members send from, and can keep, change and repeat what it likes. Only the running
session's own messages may come through, each once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import random
import secrets
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import joinleaf
import joinleaf.aio
from joinleaf.core.wire.sealed import FRESH_S, OVERHEAD
from joinleaf.drivers import multicast
from joinleaf.errors import SpiError
from joinleaf.providers import ip_sealing
from joinleaf.providers.ip_multicast import IpMulticastProvider
from joinleaf.providers.source_specific import SourceSpecificProvider
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.provider import Endpoint, JoinRole, Roles, Settings
from joinleaf.values import Address, SessionAddress

BOUND = 10.0  # seconds; no wait comes near it unless it fails
SETTINGS = Settings(interface="127.0.0.1")
KEY, OTHER_KEY = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
SECRETS = [b"attack at dawn", b"", b"the second message", random.Random(1).randbytes(5000)]

_ports = itertools.count(33000)
_MINE = f"{os.getpid() // 250 % 250}.{os.getpid() % 250 + 1}"  # groups of this run alone
UDP_GROUP, SSM_GROUP, ELSEWHERE = f"239.201.{_MINE}", f"232.201.{_MINE}", f"239.202.{_MINE}"


class Attacker:
    """Sits on the segment without a key: records what a group gets, sends what it likes."""

    def __init__(self, group: str, port: int) -> None:
        self._group = (group, port)
        self._ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._ear.bind((group, port))  # not the wildcard, which hears other groups as well
        membership = struct.pack("4s4s", socket.inet_aton(group), socket.inet_aton("127.0.0.1"))
        self._ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        self._ear.settimeout(BOUND)
        self._mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._mouth.bind(("127.0.0.1", 0))
        self._mouth.setsockopt(
            socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1")
        )

    def hear(self, count: int) -> list[bytes]:
        return [self._ear.recv(65535) for _ in range(count)]

    def say(self, *datagrams: bytes) -> None:
        for datagram in datagrams:
            self._mouth.sendto(datagram, self._group)

    def close(self) -> None:
        self._ear.close()
        self._mouth.close()


@dataclass
class World:
    scheme: str
    group: str
    port: int
    attacker: Attacker
    made: list[Endpoint]

    @property
    def address(self) -> str:
        source = "127.0.0.1@" if self.scheme == "ssm" else ""
        return f"{self.scheme}://{source}{self.group}:{self.port}"

    def open(self, fragment: str, role: JoinRole = JoinRole.BOTH) -> Any:
        where = SessionAddress.parse(self.address + fragment)
        provider = IpMulticastProvider() if self.scheme == "udp" else SourceSpecificProvider()
        sends = role is JoinRole.SENDER_ONLY
        roles = Roles(d_root=sends and self.scheme == "ssm")
        endpoint = provider.open(provider.select(where), roles, SETTINGS, address=where)
        self.made.append(endpoint)
        return endpoint

    def member(self, fragment: str = f"#{KEY}", role: JoinRole = JoinRole.RECEIVER_ONLY) -> Any:
        endpoint = self.open(fragment, role)
        endpoint.join_leaf(Address(self.group, self.port), role=role)
        return endpoint

    def sender(self, fragment: str = f"#{KEY}") -> Any:
        return self.member(fragment, JoinRole.SENDER_ONLY)


@pytest.fixture(params=["udp", "ssm"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    port = next(_ports)
    group = UDP_GROUP if request.param == "udp" else SSM_GROUP
    made = World(request.param, group, port, Attacker(group, port), [])
    yield made
    for endpoint in made.made:
        endpoint.close()
    made.attacker.close()


def receive(endpoint: Any, count: int) -> list[bytes]:
    received: list[bytes] = []
    while len(received) < count:
        received += endpoint.receive_many(timeout=BOUND).messages
    return received


def refusals(endpoint: Any) -> dict[str, int]:
    counts = endpoint.statistics().items()
    return {name: count for name, count in counts if name.startswith("refused") and count}


def attack_and_go_on(world: World, attack: Callable[[list[bytes]], list[bytes]]) -> dict[str, int]:
    """Send, record, attack, send on; the receiver must get the session's messages alone.

    Returns:
        What the receiver has refused.
    """
    receiver, sender = world.member(), world.sender()
    sender.send_many(SECRETS)
    assert receive(receiver, len(SECRETS)) == SECRETS
    world.attacker.say(*attack(world.attacker.hear(len(SECRETS))))
    sender.send_many([b"undisturbed", b"still"])
    assert receive(receiver, 2) == [b"undisturbed", b"still"]
    assert receiver.statistics()["messages_received"] == len(SECRETS) + 2
    return refusals(receiver)


# ---- what an attacker tries


def test_an_eavesdropper_learns_lengths_and_nothing_else(world: World) -> None:
    receiver, sender = world.member(), world.sender()
    sender.send_many(SECRETS)
    assert receive(receiver, len(SECRETS)) == SECRETS
    heard = world.attacker.hear(len(SECRETS))
    assert [len(datagram) - OVERHEAD for datagram in heard] == [len(m) for m in SECRETS]
    for message in filter(None, SECRETS):
        assert all(message[:8] not in datagram for datagram in heard)
    sender.send_many(SECRETS)  # the same again looks different
    assert not {d[36:] for d in world.attacker.hear(len(SECRETS))} & {d[36:] for d in heard}


def test_injected_datagrams_are_dropped_and_counted(world: World) -> None:
    def attack(heard: list[bytes]) -> list[bytes]:
        prefix, known = heard[0][:8], heard[0][:28]
        now = int(time.time()).to_bytes(4, "big")
        return [
            b"plain",
            b"",
            secrets.token_bytes(1000),
            b"JLS\x01" + secrets.token_bytes(100),
            prefix + secrets.token_bytes(16) + now + secrets.token_bytes(100),  # a new sender
            known + (1 << 40).to_bytes(8, "big") + secrets.token_bytes(100),  # the known one
        ]

    assert attack_and_go_on(world, attack) == {
        "refused_plain": 3,
        "refused_other_key": 1,
        "refused_forged": 2,
    }


def test_replayed_datagrams_are_dropped_and_counted(world: World) -> None:
    refused = attack_and_go_on(world, lambda heard: heard * 3)
    assert refused == {"refused_replayed": 3 * len(SECRETS)}


def test_truncated_datagrams_are_dropped_and_counted(world: World) -> None:
    refused = attack_and_go_on(world, lambda heard: [heard[2][:n] for n in range(OVERHEAD + 18)])
    assert sum(refused.values()) == OVERHEAD + 18


def test_changed_and_spliced_datagrams_are_dropped_and_counted(world: World) -> None:
    def attack(heard: list[bytes]) -> list[bytes]:
        rng = random.Random(1)
        changed = []
        for bit in rng.sample(range(8 * len(heard[0])), 200):
            datagram = bytearray(heard[0])
            datagram[bit // 8] ^= 1 << bit % 8
            changed.append(bytes(datagram))
        return [*changed, heard[0][:36] + heard[2][36:], heard[2][:36] + heard[0][36:]]

    assert sum(attack_and_go_on(world, attack).values()) == 202


def test_a_member_with_another_key_neither_reads_nor_is_heard(world: World) -> None:
    receiver, sender = world.member(), world.sender()
    wrong_receiver, wrong_sender = world.member(f"#{OTHER_KEY}"), world.sender(f"#{OTHER_KEY}")
    wrong_sender.send_many([b"let me in"])
    sender.send_many([b"to those who know"])
    wrong_sender.send_many([b"to the others"])
    assert receive(receiver, 1) == [b"to those who know"]
    assert receive(wrong_receiver, 2) == [b"let me in", b"to the others"]
    assert refusals(receiver)["refused_other_key"] >= 1
    assert refusals(wrong_receiver) == {"refused_other_key": 1}


def test_plain_programs_and_sealed_ones_do_not_hear_each_other(world: World) -> None:
    sealed, plain = world.member(), world.member("")
    world.sender("").send_many([b"in the clear"])
    world.sender().send_many([b"sealed"])
    assert receive(sealed, 1) == [b"sealed"]
    heard = receive(plain, 2)
    assert heard[0] == b"in the clear"
    assert heard[1].startswith(b"JLS\x01")
    assert b"sealed" not in heard[1]
    assert refusals(sealed) == {"refused_plain": 1}
    assert refusals(plain) == {}


def test_what_was_recorded_in_one_session_opens_in_no_other(world: World) -> None:
    other_port = next(_ports)
    world.member()
    sender = world.sender()
    sender.send_many([b"for this session only"])
    recorded = world.attacker.hear(1)
    world.attacker.close()
    world.port, world.attacker = other_port, Attacker(world.group, other_port)
    elsewhere, its_sender = world.member(), world.sender()
    world.attacker.say(*recorded)
    its_sender.send_many([b"its own"])
    assert receive(elsewhere, 1) == [b"its own"]
    assert refusals(elsewhere) == {"refused_other_key": 1}


def test_a_receiver_that_starts_again_takes_no_old_recording(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.sender().send_many([b"recorded"])
    recorded = world.attacker.hear(1)
    real = time.time_ns
    later = lambda: real() + (FRESH_S + 1) * 1_000_000_000  # noqa: E731  # a clock
    monkeypatch.setattr(time, "time_ns", later)
    restarted = world.member()
    world.attacker.say(*recorded)
    world.sender().send_many([b"of today"])
    assert receive(restarted, 1) == [b"of today"]
    assert refusals(restarted) == {"refused_stale": 1}


def test_a_sender_that_starts_again_is_heard_at_once_and_its_past_stays_past(world: World) -> None:
    receiver = world.member()
    for start in range(3):
        sender = world.sender()
        sender.send_many([b"start %d" % start])
        assert receive(receiver, 1) == [b"start %d" % start]
        sender.close()
    world.attacker.say(*world.attacker.hear(3))
    world.sender().send_many([b"now"])
    assert receive(receiver, 1) == [b"now"]
    assert refusals(receiver) == {"refused_replayed": 3}


def test_a_flood_of_strangers_costs_no_memory(world: World) -> None:
    receiver, sender = world.member(), world.sender()
    sender.send_many([b"first"])
    assert receive(receiver, 1) == [b"first"]
    prefix = world.attacker.hear(1)[0][:8]
    now = int(time.time()).to_bytes(4, "big")
    for number in range(20):
        for _ in range(50):
            world.attacker.say(prefix + secrets.token_bytes(16) + now + bytes(24))
        sender.send_many([b"%d" % number])
        assert receive(receiver, 1) == [b"%d" % number]
    assert refusals(receiver) == {"refused_forged": 1000}
    assert len(receiver._sealing._opener._senders) == 1


# ---- what a member notices of the seal


def test_a_forked_process_goes_on_under_an_id_of_its_own(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, sender = world.member(), world.sender()
    sender.send_many([b"parent"])
    monkeypatch.setattr(os, "getpid", lambda: -1)  # what the sender sees in a child
    sender.send_many([b"child"])
    assert receive(receiver, 2) == [b"parent", b"child"]
    parent, child = (datagram[8:24] for datagram in world.attacker.hear(2))
    assert parent != child


def test_messages_are_as_long_as_a_datagram_has_room_for(world: World) -> None:
    receiver, sender = world.member(), world.sender()
    limit = sender.get_option(c.SO_MAX_MSG_SIZE)
    assert limit == multicast.MAX_DATAGRAM[4] - OVERHEAD == sender.info.message_size
    sender.send_many([bytes(limit)])
    assert receive(receiver, 1) == [bytes(limit)]
    with pytest.raises(SpiError) as refused:
        sender.send_many([b"not sent either", bytes(limit + 1)])
    assert refused.value.code == codes.WSAEMSGSIZE
    assert sender.statistics()["messages_sent"] == 1


def test_a_key_is_for_the_session_it_was_given_with(world: World) -> None:
    endpoint = world.open(f"#{KEY}")
    for address in (Address(world.group, world.port + 1), Address(ELSEWHERE, world.port)):
        with pytest.raises(SpiError) as refused:
            endpoint.join_leaf(address, role=JoinRole.RECEIVER_ONLY)
        assert refused.value.code == codes.WSAEINVAL
    endpoint.join_leaf(Address(world.group, world.port), role=JoinRole.RECEIVER_ONLY)


@pytest.mark.parametrize(
    "fragment",
    ["#password", f"#{'ab' * 30}", "?fresh=5", pytest.param("?fresh=0#" + KEY, id="fresh=0")],
)
def test_weak_keys_and_senseless_options_are_refused_at_the_opening(
    world: World, fragment: str
) -> None:
    with pytest.raises(ValueError, match="key") as refused:
        world.open(fragment)
    key = fragment.partition("#")[2]
    assert not key or key not in str(refused.value)


def test_a_sealed_session_needs_its_port(world: World) -> None:
    world.port = 0
    with pytest.raises(ValueError, match="port"):
        world.open(f"#{KEY}")


def test_fresh_allows_clocks_that_differ(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.sender().send_many([b"an hour ago"])
    recorded = world.attacker.hear(1)
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 3600 * 10**9)
    tolerant = world.member(f"?fresh=4000#{KEY}")
    world.attacker.say(*recorded)
    assert receive(tolerant, 1) == [b"an hour ago"]


def test_no_text_shows_the_key_and_every_refusal_is_told_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="joinleaf"):
        receiver, sender = world.member(), world.sender()
        for _ in range(3):
            world.attacker.say(b"plain", b"JLS\x01" + bytes(100))
            sender.send_many([b"x"])
            receive(receiver, 1)
    texts = [record.getMessage() for record in caplog.records]
    assert sum("not sealed" in text for text in texts) == 1
    assert sum("another key" in text for text in texts) == 1
    where = SessionAddress.parse(f"{world.address}#{KEY}")
    texts += [repr(receiver), repr(receiver._sealing), str(where), repr(where)]
    assert not any(KEY in text for text in texts)


def test_a_mistyped_address_is_refused_without_its_key() -> None:
    for wrong in ("udp:/239.1.1.1:5000", "udp://239.1.1.1:5000/x", "udp://[239", "u://a?b=1&b=2"):
        with pytest.raises(ValueError, match=r"address|nothing|twice") as refused:
            SessionAddress.parse(f"{wrong}#{KEY}")
        assert KEY not in str(refused.value)


def test_readiness_and_select_work_while_strangers_talk(world: World) -> None:
    receiver, sender = world.member(), world.sender()
    sender.send_many([b"warm-up"])
    receive(receiver, 1)
    world.attacker.say(b"plain")
    sender.send_many([b"one", b"two"])
    deadline, received = time.monotonic() + BOUND, list[bytes]()
    while len(received) < 2 and time.monotonic() < deadline:
        select.select([receiver.fileno()], [], [], BOUND)
        with contextlib.suppress(SpiError):  # what had arrived was the stranger's
            received += receiver.receive_many(timeout=0).messages
    assert received == [b"one", b"two"]
    with pytest.raises(SpiError) as nothing:
        receiver.receive_many(timeout=0)
    assert nothing.value.code == codes.WSAEWOULDBLOCK
    assert not select.select([receiver.fileno()], [], [], 0)[0]


# ---- through the fronts, by the address alone


def test_members_hear_themselves_or_not_as_without_a_seal() -> None:
    where = f"udp://{ELSEWHERE}:{next(_ports)}#{KEY}"
    with (
        joinleaf.join(where, interface="lo") as one,
        joinleaf.join(where, interface="lo", loopback=False) as other,
    ):
        one.send(b"to all")
        assert one.receive(timeout=BOUND).data == b"to all"
        with pytest.raises(joinleaf.SessionTimeoutError):
            other.receive(timeout=0.05)
        assert other.stats()["messages_filtered"] == 1


def test_asyncio_sessions_are_sealed_by_the_same_address() -> None:
    where = f"udp://{ELSEWHERE}:{next(_ports)}#{KEY}"

    async def talk() -> bytes:
        async with joinleaf.aio.join(where, interface="lo") as asynchronous:
            with joinleaf.join(where, interface="lo") as blocking:
                await asynchronous.send(b"sealed")
                assert blocking.receive(timeout=BOUND).data == b"sealed"
            message = await asynchronous.receive(timeout=BOUND)
            return bytes(message.data)

    assert asyncio.run(talk()) == b"sealed"


def test_a_phrase_is_a_key_too() -> None:
    where = f"udp://{ELSEWHERE}:{next(_ports)}#correct horse battery"
    with joinleaf.join(where, interface="lo") as session:
        session.send(b"x")
        assert session.receive(timeout=BOUND).data == b"x"


def test_whoever_has_the_key_can_speak_as_anybody(world: World) -> None:
    """What a shared key does not prove; see docs/explanation/threat-model.md."""
    receiver = world.member()
    where = SessionAddress.parse(f"{world.address}#{KEY}")
    world.attacker.say(*ip_sealing.Sealing(where).seal([b"as if from ann"], time.time_ns()))
    assert receive(receiver, 1) == [b"as if from ann"]
