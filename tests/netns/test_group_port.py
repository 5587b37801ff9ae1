"""The two ends of a multicast stream between hosts: MTU-sized packets, IPv6, losses, trouble."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from bench.lan import BenchLan, Wire, call_in, lan
from tests.netns.lan import Host, why_not

from joinleaf.core.wire.landing import Landing
from joinleaf.drivers.group_port import GroupReceiver, GroupSender
from joinleaf.values import Address

GROUPS = {4: Address("239.255.20.1", 5700), 6: Address("ff15::20:1", 5700)}
SEGMENT = 1452  # 1,500 less what IPv6 and UDP put in front
UNIT = 42 * SEGMENT
BOUND = 15.0  # seconds; nothing here takes a tenth of one


@pytest.fixture(autouse=True)
def _network() -> None:
    if reason := why_not():
        pytest.skip(reason)


def sender_on(host: Host, group: Address) -> GroupSender:
    return call_in(host, lambda: GroupSender(group, "eth0"))


def receiver_on(host: Host, group: Address, source: str) -> GroupReceiver:
    return call_in(host, lambda: GroupReceiver(group, "eth0", source=source))


@contextmanager
def stream(
    version: int, *, leaves: int = 2, wire: Wire = "veth"
) -> Iterator[tuple[BenchLan, GroupSender, list[GroupReceiver]]]:
    """A root's socket and a leaf's on each other host, and the switch knows who is a member."""
    group = GROUPS[version]
    with lan(leaves, wire=wire) as net, ExitStack() as stack:
        sender = stack.enter_context(sender_on(net.root, group))
        receivers = [
            stack.enter_context(receiver_on(leaf, group, sender.local.host)) for leaf in net.leaves
        ]
        for leaf in net.leaves:
            leaf.lan.wait_for_member(leaf, group.host)
        yield net, sender, receivers


def hear(receiver: GroupReceiver, total: int) -> list[tuple[bytes, int]]:
    """What arrives until it is ``total`` bytes."""
    heard: list[tuple[bytes, int]] = []
    deadline = time.monotonic() + BOUND
    while sum(len(data) for data, _ in heard) < total:
        landing = Landing()
        if receiver.receive(landing):
            heard.append((bytes(landing.view[: landing.size]), landing.segment))
        assert time.monotonic() < deadline, f"{[(len(d), s) for d, s in heard]} of {total} bytes"
    return heard


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("wire", ["veth", "mtu"])
def test_trains_arrive_in_order_at_every_leaf(version: int, wire: Wire) -> None:
    with stream(version, wire=wire) as (_, sender, receivers):
        assert sender.segment == SEGMENT
        assert sender.trains
        data = os.urandom(UNIT - 100)
        for _ in range(5):
            assert sender.send(data, SEGMENT)
        for receiver in receivers:
            heard = hear(receiver, 5 * len(data))
            assert b"".join(part for part, _ in heard) == 5 * data
            assert {size for part, size in heard if len(part) > SEGMENT} <= {SEGMENT}
            assert receiver.dropped_by_kernel == 0


def test_losses_take_single_packets_and_leave_the_others_in_place() -> None:
    with stream(4, leaves=1, wire="mtu") as (net, sender, [receiver]):
        net.lose(0.05)
        symbols = [number.to_bytes(4, "big").ljust(SEGMENT, b".") for number in range(42)]
        trains = 20
        for _ in range(trains):
            assert sender.send(b"".join(symbols), SEGMENT)
        net.lose(0)
        assert sender.send(b"end", SEGMENT)
        heard: list[bytes] = []
        deadline = time.monotonic() + BOUND
        while heard[-1:] != [b"end"]:
            assert time.monotonic() < deadline
            landing = Landing()
            if receiver.receive(landing):
                data, size = bytes(landing.view[: landing.size]), landing.segment
                heard += [data[at : at + size] for at in range(0, len(data), size)]
        assert set(heard[:-1]) <= set(symbols)
        # 840 packets at 5 %: outside of these with a probability below one in a billion.
        assert 1 <= trains * len(symbols) - len(heard[:-1]) <= 100


def test_a_full_wire_is_told_and_not_lost() -> None:
    with stream(4, leaves=1) as (net, sender, [receiver]):
        net.limit(100_000_000)
        sent = 0
        while sender.send(bytes(UNIT), SEGMENT):
            sent += 1
            assert sent < 1000, "the buffer never gets full"
        deadline = time.monotonic() + BOUND
        while not sender.send(b"end", SEGMENT):
            assert time.monotonic() < deadline
        heard = hear(receiver, sent * UNIT + 3)
        assert heard[-1] == (b"end", 3)


def test_an_interface_that_goes_and_comes_back_is_survived() -> None:
    with stream(4, leaves=1) as (net, sender, [receiver]):
        net.root.ip("link set eth0 down")
        assert call_in(net.root, sender.trouble) is not None
        assert sender.send(b"x", SEGMENT)
        assert sender.refused == 1
        net.root.ip("link set eth0 up")
        assert call_in(net.root, sender.trouble) is None
        call_in(net.root, sender.renew)
        leaf = net.leaves[0]
        leaf.ip("link set eth0 mtu 1000", "link set eth0 mtu 1500")
        if call_in(leaf, receiver.trouble) is not None:
            call_in(leaf, receiver.renew)
        leaf.lan.wait_for_member(leaf, sender.group.host)
        deadline = time.monotonic() + BOUND
        while not receiver.receive(Landing()):
            assert sender.send(b"again", SEGMENT)
            assert time.monotonic() < deadline
