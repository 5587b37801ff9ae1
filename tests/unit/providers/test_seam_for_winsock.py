"""What the Winsock front asks of providers beside the session API."""

from __future__ import annotations

import socket
import threading

import pytest

from joinleaf.errors import SpiError
from joinleaf.providers.ip_multicast import IpMulticastProvider
from joinleaf.providers.memory import MemoryProvider
from joinleaf.providers.rooted import RootedProvider
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.provider import CheckedProvider, Roles, Settings
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.values import Address

BOUND = 5.0


def test_a_memory_listener_says_how_many_requests_wait() -> None:
    provider = MemoryProvider()
    info = provider.protocols()[0]
    root, leaf = provider.open(info, Roles(True, True)), provider.open(info, Roles())
    root.bind(Address("root"))
    root.listen()
    assert root.statistics()["requests_waiting"] == 0
    leaf.start_join_leaf(Address("root"))
    assert root.statistics()["requests_waiting"] == 1
    root.accept(timeout=0)
    assert root.statistics()["requests_waiting"] == 0
    root.close()
    leaf.close()


def test_an_idle_leaf_over_tcp_has_no_requests_waiting() -> None:
    provider = RootedProvider()
    leaf = provider.open(provider.protocols()[0], Roles())
    assert leaf.statistics()["requests_waiting"] == 0
    leaf.close()


def test_a_memory_provider_says_beforehand_that_its_network_is_down() -> None:
    provider = MemoryProvider()
    assert isinstance(provider, CheckedProvider)
    provider.check_up()
    provider.faults.network_down = True
    with pytest.raises(SpiError) as caught:
        provider.check_up()
    assert caught.value.code == codes.WSAENETDOWN


def test_an_ordinary_datagram_endpoint_talks_to_any_socket_of_the_system() -> None:
    provider = IpMulticastProvider()
    one = provider.open(provider.protocols()[0], Roles())
    one.open_to_all()  # type: ignore[attr-defined]  # of DatagramEndpoint
    one.bind(Address("127.0.0.1"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.settimeout(BOUND)
        other.bind(("127.0.0.1", 0))
        one.send_to(Address(*other.getsockname()), [b"there"])  # type: ignore[attr-defined]
        data, origin = other.recvfrom(100)
        assert data == b"there"
        other.sendto(b"back", ("127.0.0.1", origin[1]))
        assert one.receive_many(timeout=BOUND).messages == [b"back"]
    one.close()


def test_a_datagram_endpoint_that_is_not_open_to_all_hears_only_its_session() -> None:
    provider = IpMulticastProvider()
    one = provider.open(provider.protocols()[0], Roles())
    one.bind(Address("127.0.0.1"))
    with pytest.raises(SpiError) as caught:
        one.receive_many(timeout=0)
    assert caught.value.code == codes.WSAENOTCONN
    one.close()


def test_a_datagram_endpoint_sends_to_no_port_0_and_to_no_other_family() -> None:
    provider = IpMulticastProvider()
    one = provider.open(provider.protocols()[0], Roles())
    for address, code in (
        (Address("127.0.0.1"), codes.WSAEADDRNOTAVAIL),
        (Address("::1", 9), codes.WSAEAFNOSUPPORT),
    ):
        with pytest.raises(SpiError) as caught:
            one.send_to(address, [b"x"])  # type: ignore[attr-defined]
        assert caught.value.code == code
    one.close()


def test_a_datagram_endpoint_tells_the_descriptor_of_its_socket() -> None:
    provider = IpMulticastProvider()
    one = provider.open(provider.protocols()[0], Roles())
    one.bind(Address("127.0.0.1"))
    with socket.socket(fileno=one.ioctl(c.SIO_QUERY_TARGET_PNP_HANDLE)) as same:
        try:
            assert same.type == socket.SOCK_DGRAM
            assert same.getsockname()[1] == one.local_address.port
        finally:
            same.detach()
    one.close()


def test_a_leg_over_tcp_can_be_asked_for_its_end_after_its_root_was_closed() -> None:
    provider = RootedProvider()
    info = provider.protocols()[0]
    root, leaf = provider.open(info, Roles(True, True)), provider.open(info, Roles())
    root.bind(Address("127.0.0.1"))
    root.listen()
    leaf.start_join_leaf(root.local_address)
    leg = root.accept(timeout=BOUND)
    leaf.close()
    root.close()
    with pytest.raises(SpiError) as caught:
        leg.receive_many(timeout=0)
    assert caught.value.code == codes.WSAEDISCON


def test_a_port_is_taken_from_nobody_who_is_bound_to_it_over_tcp() -> None:
    provider = RootedProvider()
    info = provider.protocols()[0]
    first, second = provider.open(info, Roles()), provider.open(info, Roles())
    first.bind(Address("127.0.0.1"))
    with pytest.raises(SpiError) as caught:
        second.bind(first.local_address)
    assert caught.value.code == codes.WSAEADDRINUSE
    first.close()
    second.close()


def test_a_listener_over_tcp_can_be_started_again_on_the_port_of_its_last_session() -> None:
    provider = RootedProvider()
    info = provider.protocols()[0]
    root, leaf = provider.open(info, Roles(True, True)), provider.open(info, Roles())
    root.bind(Address("127.0.0.1"))
    root.listen()
    place = root.local_address
    leaf.start_join_leaf(place)
    root.accept(timeout=BOUND)
    root.close()  # this end closes first, and has the connection that lingers
    leaf.close()
    again = provider.open(info, Roles(True, True))
    again.bind(place)
    again.listen()
    again.close()


def test_a_root_over_tcp_starts_no_invitation_beyond_its_capacity() -> None:
    provider = RootedProvider()
    info = provider.protocols()[0]
    root = provider.open(info, Roles(True, True), Settings(capacity=10_000))
    wanted = Qos(FlowSpec(token_rate=20_000, service_type=c.SERVICETYPE_GUARANTEED))
    with pytest.raises(SpiError) as caught:
        root.start_join_leaf(Address("127.0.0.1", 9), qos=wanted)
    assert caught.value.code == codes.WSAEOPNOTSUPP
    root.close()


def test_a_shorter_queue_over_tcp_refuses_the_requests_beyond_it() -> None:
    provider = RootedProvider()
    info = provider.protocols()[0]
    root = provider.open(info, Roles(True, True))
    leaves = [provider.open(info, Roles()) for _ in range(3)]
    root.bind(Address("127.0.0.1"))
    root.listen(3)
    arrived, outcomes = threading.Semaphore(0), threading.Semaphore(0)
    root.subscribe(lambda _, event: arrived.release() if event.kind == c.FD_ACCEPT else None)
    for leaf in leaves:
        leaf.subscribe(lambda _, event: outcomes.release() if event.kind == c.FD_CONNECT else None)
        leaf.start_join_leaf(root.local_address)
        assert arrived.acquire(timeout=BOUND)
    root.listen(1)
    assert outcomes.acquire(timeout=BOUND)
    assert outcomes.acquire(timeout=BOUND)
    assert root.statistics()["requests_waiting"] == 1
    for leaf in leaves[1:]:
        with pytest.raises(SpiError) as caught:
            leaf.join_result()
        assert caught.value.code == codes.WSAECONNREFUSED
    for endpoint in (root, *leaves):
        endpoint.close()
