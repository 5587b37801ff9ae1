"""``jls://…?data=``: the sealed multicast stream of a session, and who attacks it on the group."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from tests.providers.rooted_world import World, in_thread, receive, target, until

from joinleaf.core.keys.group import GroupKeys, KeyFact, LeafKeys, epoch_byte
from joinleaf.core.reliability.receiver import StreamReceiver
from joinleaf.core.reliability.seams import SpoiledError
from joinleaf.core.wire.landing import Landing
from joinleaf.core.wire.units import DATA, HEADER, HEADER_SIZE, SYNC, strip
from joinleaf.drivers.group_port import GroupReceiver
from joinleaf.spi.provider import Accept, EndReason, JoinRole
from joinleaf.values import Address

GROUP = Address("239.255.83.22", 48322)
SECRET = b"nobody but members may see this sentence" * 40


@pytest.fixture
def world() -> Iterator[World]:
    with World(str(GROUP), "jls") as made:
        yield made


@pytest.fixture
def ear() -> Iterator[GroupReceiver]:
    """An outsider who hears the group."""
    with GroupReceiver(GROUP, "127.0.0.1") as made:
        yield made


def overheard(ear: GroupReceiver) -> list[tuple[bytes, int]]:
    """What has come to the group, train by train, with the length of its datagrams."""
    found = []
    landing = Landing()
    while ear.receive(landing):
        found.append((bytes(landing.view[: landing.size]), landing.segment))
    return found


def stream_of(member: Any) -> Any:
    return member._session.stream


def key_of(member: Any) -> LeafKeys:
    """The keys that a member has, as somebody who takes them with him."""
    fact = KeyFact.parse(member._session.facts.group.key)
    return LeafKeys(fact, member._session.facts.group.tag)


def has_keys(root: Any, count: int) -> bool:
    """Whether so many epochs have begun after the first."""
    return bool(root.statistics().get("group_keys", 0) >= count)


def say(group: Address, *datagrams: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        for datagram in datagrams:
            sock.sendto(datagram, (group.host, group.port))


def test_who_hears_the_group_learns_lengths_only(world: World, ear: GroupReceiver) -> None:
    root = world.root()
    leaf, _ = world.join(root)
    root.send_many([SECRET])
    assert receive(leaf, 1) == [SECRET]
    heard = overheard(ear)
    units = [data for data, _ in heard if HEADER.unpack_from(data)[1] & 0x7F == DATA]
    assert units
    assert all(HEADER.unpack_from(data)[2] == epoch_byte(1) for data in units)
    assert not any(SECRET[:16] in data for data, _ in heard)


def test_what_is_injected_repeated_or_cut_changes_nothing(world: World, ear: GroupReceiver) -> None:
    """The outsider knows everything that is not sealed: tag, epoch, numbers."""
    root = world.root()
    leaves = [world.join(root)[0] for _ in range(2)]
    root.send_many([SECRET])
    for leaf in leaves:
        assert receive(leaf, 1) == [SECRET]
    recorded = [data for data, _ in overheard(ear)]
    tag, _, epoch, _, _, unit = HEADER.unpack_from(recorded[-1])
    expected = [b"%d" % number * 100 for number in range(50)]
    for number, message in enumerate(expected):
        at = unit + number
        say(
            GROUP,
            HEADER.pack(tag, DATA, epoch, 0, 1, at + 1) + os.urandom(120),
            HEADER.pack(tag, DATA, 0, 0, 1, at + 1) + SECRET,
            HEADER.pack(tag, SYNC, epoch, 7, 1, at + 500) + os.urandom(40),
            recorded[-1],
            recorded[0][:-1],
            os.urandom(300),
        )
        root.send_many([message])
    for leaf in leaves:
        assert receive(leaf, len(expected)) == expected
        counters = stream_of(leaf).receiver.counters
        assert sum(counters[name] for name in ("spoiled", "malformed", "strangers", "duplicates"))
    assert len(root._session.legs) == 2


def test_who_was_expelled_reads_nothing_more_and_the_others_lose_nothing(
    world: World, ear: GroupReceiver
) -> None:
    root = world.root()
    stays, _ = world.join(root)
    goes, leg = world.join(root)
    root.send_many([b"for both"])
    assert (receive(stays, 1), receive(goes, 1)) == ([b"for both"], [b"for both"])
    taken = key_of(goes)
    overheard(ear)
    leg.close(reason=EndReason.EXPELLED)
    root.send_many([SECRET])
    assert receive(stays, 1) == [SECRET]
    assert root.statistics()["group_keys"] == 1
    assert stream_of(stays).started
    heard = [one for one in overheard(ear) if HEADER.unpack_from(one[0])[1] & 0x7F == DATA]
    assert heard
    for data, segment in heard:
        _, _, epoch, _, count, unit = HEADER.unpack_from(data)
        assert epoch == epoch_byte(2)
        sealed = strip(memoryview(data), segment, count)
        assert taken.open(epoch, unit, count, sealed) is None  # he has no such key
        with pytest.raises(SpoiledError):
            taken.open(epoch_byte(1), unit, count, sealed)  # and his own opens nothing of it


def test_what_the_expelled_seals_with_the_old_key_is_not_taken(
    world: World, ear: GroupReceiver
) -> None:
    root = world.root()
    stays, _ = world.join(root)
    goes: Any
    goes, leg = world.join(root)
    facts = goes._session.facts.group
    fact = KeyFact.parse(facts.key)
    leg.close(reason=EndReason.EXPELLED)
    root.send_many([b"after"])
    assert receive(stays, 1) == [b"after"]
    tag, _, _, _, _, unit = HEADER.unpack_from(overheard(ear)[-1][0])
    forger = GroupKeys(fact.key, facts.tag)
    lie = forger.seal(unit + 1, 1, b"a lie, well sealed")
    say(GROUP, HEADER.pack(tag, DATA, epoch_byte(1), 0, 1, unit + 1) + lie)
    root.send_many([b"the truth"])
    assert receive(stays, 1) == [b"the truth"]


def test_every_leave_and_every_crash_brings_a_new_key(world: World) -> None:
    root = world.root()
    stays, _ = world.join(root)
    for number in range(1, 5):
        goes, leg = world.join(root)
        if number % 2:
            goes.close()
        else:
            goes.abandon()  # as after a crash
            leg.close(abort=True)
        until(partial(has_keys, root, number))
        root.send_many([b"%d" % number])
        assert receive(stays, 1) == [b"%d" % number]
    assert stream_of(stays).receiver.probe_heard


def test_who_is_invited_or_only_sends_is_never_given_the_key(world: World) -> None:
    root = world.root()
    listener = world.listener()
    joined = in_thread(lambda: root.join_leaf(target(listener), timeout=10))
    invited: Any = listener.accept(lambda request: Accept(), timeout=10)
    joined()
    assert invited._session.facts.group is None
    sender: Any = world.join(root, role=JoinRole.SENDER_ONLY)[0]
    assert sender._session.facts.group is None
    root.send_many([SECRET])
    assert receive(invited, 1) == [SECRET]


def test_garbage_on_the_group_is_dropped_by_its_first_bytes(world: World) -> None:
    root = world.root()
    leaf: Any = world.join(root)[0]
    receiver: StreamReceiver = stream_of(leaf).receiver
    say(GROUP, *(os.urandom(HEADER_SIZE + 100) for _ in range(500)))
    root.send_many([SECRET])
    assert receive(leaf, 1) == [SECRET]
    until(lambda: receiver.counters["strangers"] + leaf._driver._link._port.foreign >= 400)
    assert receiver._held_bytes == 0


def test_no_text_shows_the_group_key(world: World) -> None:
    root = world.root()
    leaf: Any = world.join(root)[0]
    facts = leaf._session.facts
    assert facts.group.key
    assert repr(facts.group.key)[2:10] not in repr(facts)
