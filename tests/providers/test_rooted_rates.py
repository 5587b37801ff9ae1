"""Flow specifications of rooted sessions at work: rates, marks, sizes, changes while they run."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.providers.rooted_world import BOUND, World, in_thread, receive, until

from joinleaf.errors import SpiError
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.provider import EndpointEvent, SlowPolicy
from joinleaf.spi.qos import FlowSpec, Qos

MB = 1_000_000
GROUP = "239.255.83.23:48323"


@pytest.fixture(params=[None, GROUP], ids=["legs", "group"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with World(request.param) as made:
        yield made


def sending(**numbers: Any) -> Qos:
    """What a root, or whoever asks, wants to send."""
    return Qos(FlowSpec(**numbers), FlowSpec())


def receiving(**numbers: Any) -> Qos:
    """What a leaf wants to receive."""
    return Qos(FlowSpec(), FlowSpec(**numbers))


def guaranteed(rate: int) -> Qos:
    return receiving(token_rate=rate, service_type=c.SERVICETYPE_GUARANTEED)


def seconds_for(root: Any, leaf: Any, total: int) -> float:
    """How long it takes until a leaf has so many bytes from the root, in messages of 20 kB."""
    count = total // 20_000
    began = time.monotonic()
    heard = in_thread(lambda: receive(leaf, count))
    root.send_many([bytes(20_000)] * count)
    heard()
    return time.monotonic() - began


def test_one_long_batch_leaves_at_the_roots_rate(world: World) -> None:
    root = world.root()
    root.ioctl(c.SIO_SET_QOS, sending(token_rate=5 * MB, token_bucket_size=100_000))
    leaf, _ = world.join(root)
    took = seconds_for(root, leaf, 3 * MB)
    assert took > (3 * MB - 100_000) / (5 * MB) * 0.98
    assert took < 3 * MB / (5 * MB) + 1.0


def test_a_leaf_gets_no_more_than_it_asked_to_receive(world: World) -> None:
    root = world.root()
    leaf, _ = world.join(root, qos=receiving(token_rate=5 * MB, token_bucket_size=100_000))
    assert seconds_for(root, leaf, 3 * MB) > (3 * MB - 100_000) / (5 * MB) * 0.98


def test_a_change_while_the_session_runs_is_told_at_both_ends_and_holds(world: World) -> None:
    root = world.root(capacity=100 * MB)
    leaf, leg = world.join(root, qos=guaranteed(MB))
    heard: list[tuple[str, EndpointEvent]] = []
    leg.subscribe(lambda _, event: heard.append(("root", event)))
    leaf.subscribe(lambda _, event: heard.append(("leaf", event)))
    leaf.ioctl(c.SIO_SET_QOS, guaranteed(50 * MB))
    assert leaf.qos == leg.qos == guaranteed(50 * MB)
    told = EndpointEvent(c.FD_QOS)
    until(lambda: ("root", told) in heard and ("leaf", told) in heard)
    assert seconds_for(root, leaf, MB) < 1.0, "at the former rate it were a second"
    heard.clear()
    leg.ioctl(c.SIO_SET_QOS, guaranteed(5 * MB))
    until(lambda: ("leaf", told) in heard)
    assert leaf.ioctl(c.SIO_GET_QOS) == leg.ioctl(c.SIO_GET_QOS) == guaranteed(5 * MB)


def test_a_wish_beyond_the_capacity_is_refused_with_the_numbers(world: World) -> None:
    root = world.root(capacity=100 * MB)
    world.join(root, qos=guaranteed(60 * MB))
    with pytest.raises(SpiError, match="60000000 of 100000000 bytes/s in use") as refused:
        world.join(root, qos=guaranteed(60 * MB))
    assert refused.value.code == codes.WSAEOPNOTSUPP
    leaf, leg = world.join(root, qos=guaranteed(10 * MB))
    with pytest.raises(SpiError, match="50000000 bytes/s asked, 60000000 of 100000000") as refused:
        leaf.ioctl(c.SIO_SET_QOS, guaranteed(50 * MB))
    assert refused.value.code == codes.WSAEOPNOTSUPP
    assert leaf.qos == leg.qos == guaranteed(10 * MB)


def test_messages_longer_than_was_agreed_are_refused(world: World) -> None:
    root = world.root()
    root.ioctl(c.SIO_SET_QOS, sending(max_sdu_size=1000))
    leaf, _ = world.join(root, qos=sending(max_sdu_size=10))
    for end, limit in ((root, 1000), (leaf, 10)):
        with pytest.raises(SpiError) as refused:
            end.send_many([bytes(limit + 1)])
        assert refused.value.code == codes.WSAEMSGSIZE
    heard = in_thread(lambda: receive(leaf, 1))
    root.send_many([bytes(1000)])
    assert heard() == [bytes(1000)]


@pytest.mark.skipif(not hasattr(socket, "IP_TOS"), reason="no marks here")
def test_packets_are_marked_as_the_service_type_says(world: World) -> None:
    root = world.root()
    leaf, _ = world.join(root)
    for service, dscp in (
        (c.SERVICETYPE_GUARANTEED, 40),
        (c.SERVICETYPE_CONTROLLEDLOAD, 24),
        (c.SERVICETYPE_BESTEFFORT, 0),
    ):
        root.ioctl(c.SIO_SET_QOS, sending(token_rate=100 * MB, service_type=service))
        heard = in_thread(lambda: receive(leaf, 1))
        root.send_many([b"marked"])
        heard()
        assert {tos >> 2 for tos in marks(root)} == {dscp}


def marks(root: Any) -> set[int]:
    """The marks of all sockets by which a root sends data to its leaves."""
    driver = root._driver
    with driver.lock:
        if driver._link is not None and root._session.carriage.on_group:
            return {driver._link._port._sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS)}
        return {
            connection.sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS)
            for connection in driver._connections.values()
        }


def test_where_nobody_is_waited_for_a_slower_leaf_is_served_by_its_leg() -> None:
    with World(GROUP) as world:
        root = world.root(slow=SlowPolicy.DROP, queue_bytes=100_000)
        root.ioctl(c.SIO_SET_QOS, sending(token_rate=20 * MB))
        quick, _ = world.join(root)
        world.group = None  # nobody waits until the next one hears it, for it must not
        _, leg = world.join(root, qos=receiving(token_rate=MB, token_bucket_size=50_000))
        heard = in_thread(lambda: receive(quick, 100))
        for _ in range(100):
            root.send_many([bytes(20_000)], timeout=BOUND)
        heard()
        assert leg.statistics()["on_group"] == 0
        assert leg.statistics()["messages_dropped"] > 0
