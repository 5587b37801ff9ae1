"""udp:// and ssm:// on loopback: every refusal, both directions, waiting, events, options."""

from __future__ import annotations

import itertools
import logging
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from joinleaf.drivers import multicast
from joinleaf.drivers.interfaces import find_interface
from joinleaf.drivers.waiting import Waiter
from joinleaf.errors import SpiError
from joinleaf.providers import ip_membership
from joinleaf.providers.ip_endpoint import IpMulticastEndpoint
from joinleaf.providers.ip_multicast import IpMulticastProvider
from joinleaf.providers.source_specific import SourceSpecificEndpoint, SourceSpecificProvider
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.provider import (
    Buffer,
    Endpoint,
    EndpointEvent,
    JoinRole,
    Provider,
    Roles,
    Settings,
)
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.values import Address, SessionAddress

BOUND = 10.0  # seconds; no wait comes near it unless it fails
SETTINGS = Settings(interface="127.0.0.1")
D_ROOT = Roles(d_root=True)

_ports = itertools.count(31000)
Open = Callable[..., IpMulticastEndpoint]


@pytest.fixture
def session() -> Address:
    return Address("239.255.66.1", next(_ports))


@pytest.fixture
def open_udp() -> Iterator[Open]:
    made: list[Endpoint] = []

    def make(settings: Settings = SETTINGS, *, url: str = "", version: int = 4) -> Any:
        provider = IpMulticastProvider()
        address = SessionAddress.parse(url) if url else None
        info = provider.protocols()[0 if version == 4 else 1]
        made.append(provider.open(info, Roles(), settings, address=address))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def open_ssm() -> Iterator[Callable[..., SourceSpecificEndpoint]]:
    made: list[Endpoint] = []

    def make(url: str, roles: Roles = Roles(), settings: Settings = SETTINGS) -> Any:  # noqa: B008  # frozen
        provider = SourceSpecificProvider()
        address = SessionAddress.parse(url)
        made.append(provider.open(provider.select(address), roles, settings, address=address))
        return made[-1]

    yield make
    for one in made:
        one.close()


def refusal(action: Callable[..., Any], *arguments: Any, **named: Any) -> int:
    with pytest.raises(SpiError) as caught:
        action(*arguments, **named)
    return caught.value.code


class Blocked:
    """A call in a thread of its own, and what became of it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.outcome: Any = None
        self._call = call
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.outcome = self._call()
        except SpiError as error:
            self.outcome = error.code

    def finish(self) -> Any:
        self._thread.join(BOUND)
        assert not self._thread.is_alive()
        return self.outcome


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# ---- the catalogue


@pytest.mark.parametrize(
    ("provider", "flags"), [(IpMulticastProvider(), 0x20609), (SourceSpecificProvider(), 0x21609)]
)
def test_entries_have_the_bits_of_windows_udp(provider: Provider, flags: int) -> None:
    four, six = provider.protocols()
    assert (four.service_flags, six.service_flags) == (flags, flags)
    assert (four.address_family, six.address_family) == (c.AF_INET, c.AF_INET6)
    assert (four.message_size, six.message_size) == (65507, 65527)
    assert (four.min_sockaddr, six.min_sockaddr) == (16, 28)
    assert not four.control_plane_rooted


@pytest.mark.parametrize(
    ("provider", "roles", "accepted"),
    [
        (IpMulticastProvider(), Roles(), True),
        (IpMulticastProvider(), Roles(c_root=True), False),
        (IpMulticastProvider(), D_ROOT, False),
        (SourceSpecificProvider(), D_ROOT, True),
        (SourceSpecificProvider(), Roles(c_root=True, d_root=True), False),
    ],
)
def test_roles_are_those_of_the_planes(provider: Provider, roles: Roles, accepted: bool) -> None:
    info = provider.protocols()[0]
    if accepted:
        provider.open(info, roles, SETTINGS).close()
    else:
        assert refusal(provider.open, info, roles, SETTINGS) == codes.WSAEINVAL


@pytest.mark.parametrize(
    "text",
    [
        "udp://group.example:5000",
        "udp://239.255.1.1:5000?color=red",
        "udp://239.255.1.1:5000?hops=256",
        "udp://239.255.1.1:5000?loopback=maybe",
    ],
)
def test_addresses_that_make_no_sense_are_value_errors(text: str) -> None:
    with pytest.raises(ValueError, match="udp://"):
        IpMulticastProvider().select(SessionAddress.parse(text))


@pytest.mark.parametrize(
    "text", ["ssm://232.1.1.1:5000", "ssm://[::1]@232.1.1.1:5000", "ssm://host@232.1.1.1:5000"]
)
def test_a_source_specific_address_needs_a_source_of_its_family(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        SourceSpecificProvider().select(SessionAddress.parse(text))


def test_options_of_the_address_win_over_settings(open_udp: Open, session: Address) -> None:
    url = f"udp://{session}?interface=lo&hops=7&loopback=off&bind=unique"
    one = open_udp(Settings(interface="nope0"), url=url)
    one.join_leaf(session)
    assert one.local_address.port != session.port
    level, option = socket.IPPROTO_IP, socket.IP_MULTICAST_TTL
    assert one._sock.getsockopt(level, option) == 7
    assert not one._loopback


# ---- joining


def test_join_returns_the_endpoint_itself_and_binds_it(open_udp: Open, session: Address) -> None:
    one = open_udp()
    assert refusal(lambda: one.local_address) == codes.WSAEINVAL
    assert refusal(lambda: one.peer_address) == codes.WSAENOTCONN
    joined = one.join_leaf(session)
    assert joined.endpoint is one
    assert (joined.data, joined.qos) == (b"", None)
    assert one.local_address.port == session.port
    assert one.peer_address == session
    assert one.session_id == b""
    assert refusal(one.bind, Address("", 0)) == codes.WSAEINVAL


def test_an_explicit_bind_is_kept(open_udp: Open, session: Address) -> None:
    one = open_udp()
    one.bind(Address("", 0))
    port = one.local_address.port
    one.join_leaf(session)
    assert one.local_address.port == port


def test_joining_a_port_one_is_not_bound_to_is_warned_of(
    open_udp: Open, session: Address, caplog: pytest.LogCaptureFixture
) -> None:
    one = open_udp()
    one.bind(Address("", 0))
    with caplog.at_level(logging.WARNING, logger="joinleaf"):
        one.join_leaf(session, role=JoinRole.RECEIVER_ONLY)
    assert "is not heard" in caplog.text


def test_senders_get_unique_ports(open_udp: Open, session: Address) -> None:
    one, two = open_udp(), open_udp()
    for sender in (one, two):
        sender.join_leaf(session, role=JoinRole.SENDER_ONLY)
    ports = {one.local_address.port, two.local_address.port, session.port}
    assert len(ports) == 3


def test_a_bind_chooses_the_interface_and_still_hears_the_group(
    open_udp: Open, session: Address
) -> None:
    one = open_udp(Settings())
    one.bind(Address("127.0.0.1", session.port))
    one.join_leaf(session)
    assert one.local_address == Address("127.0.0.1", session.port)
    one.send_many([b"x"])
    batch = one.receive_many(timeout=BOUND)
    assert (batch.sender.host, batch.messages) == ("127.0.0.1", [b"x"])


def test_two_exclusive_binds_to_one_port_collide_unless_both_share(
    open_udp: Open, session: Address
) -> None:
    open_udp().bind(session_port := Address("", session.port))
    assert refusal(open_udp().bind, session_port) == codes.WSAEADDRINUSE
    assert refusal(open_udp().join_leaf, session) == codes.WSAEADDRINUSE
    other = Address("", next(_ports))
    for _ in range(2):
        sharing = open_udp()
        sharing.set_option(c.SO_REUSEADDR, True)
        sharing.bind(other)


@pytest.mark.parametrize(
    ("address", "code"),
    [
        (Address("::1", 0), codes.WSAEFAULT),
        (Address("host.example", 0), codes.WSAEFAULT),
        (Address("192.0.2.77", 0), codes.WSAEADDRNOTAVAIL),
    ],
)
def test_binds_to_what_is_not_ours_are_refused(open_udp: Open, address: Address, code: int) -> None:
    assert refusal(open_udp().bind, address) == code


@pytest.mark.parametrize(
    ("address", "code"),
    [
        (Address("0.0.0.0", 5000), codes.WSAEADDRNOTAVAIL),
        (Address("", 5000), codes.WSAEADDRNOTAVAIL),
        (Address("10.1.2.3", 5000), codes.WSAEADDRNOTAVAIL),
        (Address("group.example", 5000), codes.WSAEADDRNOTAVAIL),
        (Address("239.255.66.1", 0), codes.WSAEADDRNOTAVAIL),
        (Address("ff15::1", 5000), codes.WSAEAFNOSUPPORT),
        (Address("::", 5000), codes.WSAEAFNOSUPPORT),
    ],
)
def test_addresses_that_are_no_session_are_refused(
    open_udp: Open, session: Address, address: Address, code: int
) -> None:
    one = open_udp()
    assert refusal(one.join_leaf, address) == code
    assert refusal(one.start_join_leaf, address) == code
    one.join_leaf(session)  # nothing has changed


def test_a_receiver_may_leave_the_port_out(open_udp: Open, session: Address) -> None:
    one = open_udp()
    one.join_leaf(Address(session.host, 0), role=JoinRole.RECEIVER_ONLY)
    assert one.local_address.port != 0


def test_caller_data_unknown_roles_and_reservations_are_refused(
    open_udp: Open, session: Address
) -> None:
    one = open_udp()
    asking = Qos(sending=FlowSpec(token_rate=1000))
    wrong_role: Any = 3
    assert refusal(one.join_leaf, session, caller_data=b"x") == codes.WSAEPROTONOSUPPORT
    assert refusal(one.join_leaf, session, role=wrong_role) == codes.WSAEINVAL
    assert refusal(one.join_leaf, session, qos=asking) == codes.WSAEOPNOTSUPP
    one.join_leaf(session, qos=asking, role=JoinRole.RECEIVER_ONLY)  # that direction is ignored


def test_a_specification_that_asks_for_nothing_is_accepted(
    open_udp: Open, session: Address
) -> None:
    assert open_udp().join_leaf(session, qos=Qos()).qos == Qos()


def test_the_state_is_looked_at_before_the_parameters(open_udp: Open, session: Address) -> None:
    one = open_udp()
    one.join_leaf(session)
    assert refusal(one.join_leaf, Address("", 0), caller_data=b"x") == codes.WSAEISCONN
    one.close()
    assert refusal(one.join_leaf, session) == codes.WSAENOTSOCK


def test_there_is_nothing_to_listen_for(open_udp: Open) -> None:
    assert refusal(open_udp().listen) == codes.WSAEOPNOTSUPP
    assert refusal(open_udp().accept, timeout=0) == codes.WSAEOPNOTSUPP


def test_a_missing_interface_is_told_at_once_even_by_a_started_join(
    open_udp: Open, session: Address
) -> None:
    one = open_udp(Settings(interface="nope0"))
    assert refusal(one.start_join_leaf, session) == codes.WSAEADDRNOTAVAIL


def test_a_started_join_reports_the_network_by_event(open_udp: Open) -> None:
    # Linux has no IPv6 multicast on loopback, which is as good as no route.
    if not socket.has_ipv6 or not find_interface("lo").has_family(6):
        pytest.skip("this host has no IPv6")
    one = open_udp(Settings(interface="lo"), version=6)
    events: list[EndpointEvent] = []
    one.subscribe(lambda _one, event: events.append(event))
    session = Address("ff15::66:1", next(_ports))
    assert one.start_join_leaf(session) is one
    assert events == [EndpointEvent(c.FD_CONNECT, codes.WSAENETUNREACH)]
    assert refusal(one.join_result) == codes.WSAENETUNREACH
    assert one.get_option(c.SO_ERROR) == codes.WSAENETUNREACH
    assert one.get_option(c.SO_ERROR) == 0
    assert refusal(one.join_leaf, session) == codes.WSAENETUNREACH  # tried again, not 10056


# ---- events


def test_a_started_join_is_indicated_then_writing(open_udp: Open, session: Address) -> None:
    one = open_udp()
    events: list[EndpointEvent] = []
    one.subscribe(lambda _one, event: events.append(event))
    one.start_join_leaf(session)
    assert [(event.kind, event.code) for event in events] == [(c.FD_CONNECT, 0), (c.FD_WRITE, 0)]
    assert one.join_result().endpoint is one


def test_an_outcome_nobody_heard_of_is_indicated_to_the_first_who_asks(
    open_udp: Open, session: Address
) -> None:
    one = open_udp()
    one.start_join_leaf(session, role=JoinRole.RECEIVER_ONLY)
    for expected in ([c.FD_CONNECT], []):
        events: list[int] = []
        one.subscribe(lambda _one, event, events=events: events.append(event.kind))  # type: ignore[misc]  # default argument
        assert events == expected


def test_data_are_indicated_once_until_a_receive_that_does_not_wait(
    open_udp: Open, session: Address
) -> None:
    sender, one = open_udp(), open_udp()
    sender.join_leaf(session, role=JoinRole.SENDER_ONLY)
    reads: list[int] = []
    one.join_leaf(session, role=JoinRole.RECEIVER_ONLY)
    one.subscribe(lambda _one, event: reads.append(event.kind))
    sender.send_many([b"a"])
    until(lambda: reads == [c.FD_READ])
    sender.send_many([b"b"])
    assert one.receive_many(timeout=0).messages == [b"a", b"b"]
    assert refusal(one.receive_many, timeout=0) == codes.WSAEWOULDBLOCK
    sender.send_many([b"c"])
    until(lambda: len(reads) == 2)
    one.subscribe(None)
    one.receive_many(timeout=0)
    sender.send_many([b"d"])
    one.receive_many(timeout=BOUND)
    assert reads == [c.FD_READ, c.FD_READ]


def test_closing_is_never_indicated(open_udp: Open, session: Address) -> None:
    one = open_udp()
    kinds: list[int] = []
    one.subscribe(lambda _one, event: kinds.append(event.kind))
    one.start_join_leaf(session)
    one.close()
    assert c.FD_CLOSE not in kinds


# ---- data


def test_a_message_is_a_datagram_and_reaches_all_members_of_the_host(
    open_udp: Open, session: Address
) -> None:
    members = [open_udp() for _ in range(3)]
    for one in members:
        one.join_leaf(session)
    sent: list[Buffer] = [b"", b"one", bytearray(b"two"), memoryview(b"three")]
    members[0].send_many(sent)
    for one in members:
        batch = one.receive_many(timeout=BOUND)
        assert batch.messages == [b"", b"one", b"two", b"three"]
        assert batch.sequence == -1
        assert batch.sender == Address("127.0.0.1", session.port)
    counts = members[0].statistics()
    assert (counts["messages_sent"], counts["bytes_received"]) == (4, 11)


def test_messages_of_several_senders_keep_apart(open_udp: Open, session: Address) -> None:
    one, first, second = open_udp(), open_udp(), open_udp()
    one.join_leaf(session, role=JoinRole.RECEIVER_ONLY)
    for sender in (first, second):
        sender.join_leaf(session, role=JoinRole.SENDER_ONLY)
    first.send_many([b"1", b"2"])
    second.send_many([b"3"])
    batches = [one.receive_many(timeout=BOUND), one.receive_many(timeout=0)]
    assert [batch.messages for batch in batches] == [[b"1", b"2"], [b"3"]]
    assert [batch.sender.port for batch in batches] == [
        first.local_address.port,
        second.local_address.port,
    ]


def test_the_descriptor_is_readable_as_long_as_a_batch_is_left(
    open_udp: Open, session: Address
) -> None:
    one, first, second = open_udp(), open_udp(), open_udp()
    one.join_leaf(session, role=JoinRole.RECEIVER_ONLY)

    def readable() -> bool:
        return bool(select.select([one.fileno()], [], [], 0)[0])

    assert not readable()
    for sender in (first, second):
        sender.join_leaf(session, role=JoinRole.SENDER_ONLY)
        sender.send_many([b"x"])
    until(readable)
    one.receive_many(timeout=0)
    assert readable()
    one.receive_many(timeout=0)
    assert not readable()
    one.close()
    assert one.fileno() == -1


def test_the_longest_message_goes_and_a_longer_one_stops_the_batch(
    open_udp: Open, session: Address
) -> None:
    one = open_udp()
    one.join_leaf(session)
    assert refusal(one.send_many, [b"first", bytes(65508)]) == codes.WSAEMSGSIZE
    wide = memoryview(bytearray(65512)).cast("Q")  # few items, many bytes
    assert refusal(one.send_many, [wide]) == codes.WSAEMSGSIZE
    assert refusal(one.receive_many, timeout=0) == codes.WSAEWOULDBLOCK
    one.send_many([bytes(65507)])
    assert one.receive_many(timeout=BOUND).messages == [bytes(65507)]
    limited = open_udp(Settings(interface="lo", max_message=10))
    limited.join_leaf(session, role=JoinRole.SENDER_ONLY)
    assert refusal(limited.send_many, [bytes(11)]) == codes.WSAEMSGSIZE


def test_receive_side_loopback_can_be_switched_while_joined(
    open_udp: Open, session: Address
) -> None:
    on, off = open_udp(), open_udp()
    for one in (on, off):
        one.join_leaf(session)
    off.ioctl(c.SIO_MULTIPOINT_LOOPBACK, False)
    off.send_many([b"from off"])
    on.send_many([b"from on"])
    heard = [on.receive_many(timeout=BOUND).messages]
    assert heard == [[b"from off", b"from on"]]
    assert refusal(off.receive_many, timeout=0.05) == codes.WSAETIMEDOUT
    off.ioctl(c.SIO_MULTIPOINT_LOOPBACK, True)
    on.send_many([b"again"])
    assert off.receive_many(timeout=BOUND).messages == [b"again"]
    assert off.statistics()["messages_filtered"] == 2


def test_roles_decide_who_sends_and_who_hears(open_udp: Open, session: Address) -> None:
    receiver, sender = open_udp(), open_udp()
    receiver.join_leaf(session, role=JoinRole.RECEIVER_ONLY)
    sender.join_leaf(session, role=JoinRole.SENDER_ONLY)
    assert refusal(receiver.send_many, [b"x"]) == codes.WSAENOTCONN
    sender.send_many([b"x"])
    assert receiver.receive_many(timeout=BOUND).messages == [b"x"]
    assert refusal(sender.receive_many, timeout=0.05) == codes.WSAETIMEDOUT


def test_nothing_moves_before_the_join_nor_after_the_close(
    open_udp: Open, session: Address
) -> None:
    one = open_udp()
    assert refusal(one.send_many, [b"x"]) == codes.WSAENOTCONN
    assert refusal(one.receive_many, timeout=0) == codes.WSAENOTCONN
    assert refusal(one.shutdown, c.SD_BOTH) == codes.WSAENOTCONN
    one.join_leaf(session)
    assert refusal(one.send_many, [b"x"], to=[]) == codes.WSAEOPNOTSUPP
    one.close()
    one.close()
    for call in (lambda: one.send_many([b"x"]), one.receive_many, lambda: one.ioctl(c.FIONREAD)):
        assert refusal(call) == codes.WSAENOTSOCK


def test_shutdown_is_local_by_direction_and_takes_no_data(open_udp: Open, session: Address) -> None:
    one = open_udp()
    one.join_leaf(session)
    assert refusal(one.shutdown, 9) == codes.WSAEINVAL
    assert refusal(one.shutdown, c.SD_SEND, data=b"x") == codes.WSAENOPROTOOPT
    one.send_many([b"x"])
    one.shutdown(c.SD_SEND)
    assert refusal(one.send_many, [b"x"]) == codes.WSAESHUTDOWN
    assert one.receive_many(timeout=BOUND).messages == [b"x"]
    one.shutdown(c.SD_RECEIVE)
    assert refusal(one.receive_many, timeout=0) == codes.WSAESHUTDOWN
    assert one.peer_address == session


# ---- waiting


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_another_thread_ends_a_blocked_receive(open_udp: Open, session: Address, end: str) -> None:
    one = open_udp()
    one.join_leaf(session)
    blocked = Blocked(one.receive_many)
    until(lambda: bool(one._waiter._busy))
    getattr(one, end)()
    assert blocked.finish() == codes.WSAEINTR
    if end == "cancel":
        one.send_many([b"x"])
        assert one.receive_many(timeout=BOUND).messages == [b"x"]


def test_a_second_receiver_is_told_to_keep_out(open_udp: Open, session: Address) -> None:
    one = open_udp()
    one.join_leaf(session)
    blocked = Blocked(one.receive_many)
    until(lambda: bool(one._waiter._busy))
    assert refusal(one.receive_many, timeout=0) == codes.WSAEINPROGRESS
    one.send_many([b"x"])  # the other direction is free
    assert blocked.finish().messages == [b"x"]


class Full:
    """A socket without room, until somebody makes some."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.room = 0

    def sendto(self, data: Any, address: Any) -> int:
        if self.room == 0:
            raise BlockingIOError
        self.room -= 1
        return self._sock.sendto(data, address)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def test_a_send_without_room_says_how_much_has_left(
    open_udp: Open, session: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = open_udp()
    one.join_leaf(session)
    full = Full(one._sock)
    full.room = 2
    monkeypatch.setattr(one._writer, "_sock", full)
    with pytest.raises(SpiError, match="2 messages") as caught:
        one.send_many([b"1", b"2", b"3"], timeout=0)
    assert caught.value.code == codes.WSAEWOULDBLOCK
    assert one.receive_many(timeout=BOUND).messages == [b"1", b"2"]


@pytest.mark.patches
def test_a_send_waits_for_room(
    open_udp: Open, session: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = open_udp()
    one.join_leaf(session)
    full = Full(one._sock)
    monkeypatch.setattr(one._writer, "_sock", full)

    waits: list[int] = []

    def make_room(_waiter: Waiter, _fd: int, _timeout: float | None, *, mark: int | None) -> bool:
        full.room = 1
        waits.append(1)
        return mark is not None

    monkeypatch.setattr(Waiter, "wait_writable", make_room)
    one.send_many([b"x", b"y"], timeout=BOUND)
    assert one.receive_many(timeout=BOUND).messages == [b"x", b"y"]
    assert len(waits) == 2


@pytest.mark.patches
def test_a_send_that_waited_in_vain_has_timed_out(
    open_udp: Open, session: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = open_udp()
    one.join_leaf(session)
    monkeypatch.setattr(one._writer, "_sock", Full(one._sock))
    monkeypatch.setattr(Waiter, "wait_writable", lambda *_, mark: mark is None)
    assert refusal(one.send_many, [b"x"], timeout=0.01) == codes.WSAETIMEDOUT


def test_room_is_indicated_after_a_send_that_found_none(
    open_udp: Open, session: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = open_udp()
    one.join_leaf(session)
    kinds: list[int] = []
    one.subscribe(lambda _one, event: kinds.append(event.kind))
    assert kinds == [c.FD_WRITE]
    monkeypatch.setattr(one._writer, "_sock", Full(one._sock))
    assert refusal(one.send_many, [b"x"], timeout=0) == codes.WSAEWOULDBLOCK
    until(lambda: kinds == [c.FD_WRITE, c.FD_WRITE])


def test_what_the_system_refuses_is_told_with_its_code(open_udp: Open, session: Address) -> None:
    one = open_udp()
    one.join_leaf(session)
    one._writer.destination = ("255.255.255.255", session.port)  # without SO_BROADCAST
    assert refusal(one.send_many, [b"x"]) == codes.WSAEACCES


# ---- controls and options


def test_controls_have_their_ranges_and_refusals(open_udp: Open, session: Address) -> None:
    one = open_udp()
    one.join_leaf(session)
    one.ioctl(c.SIO_MULTICAST_SCOPE, 255)
    for value in (-1, 256, "1", None):
        assert refusal(one.ioctl, c.SIO_MULTICAST_SCOPE, value) == codes.WSAEINVAL
    assert refusal(one.ioctl, c.SIO_MULTIPOINT_LOOPBACK, None) == codes.WSAEFAULT
    assert refusal(one.ioctl, c.SIO_GET_QOS) == codes.WSAENOPROTOOPT
    assert refusal(one.ioctl, c.SIO_SET_QOS, Qos()) == codes.WSAENOPROTOOPT
    assert refusal(one.ioctl, 0x12345) == codes.WSAEINVAL
    assert Address("127.0.0.1") in one.ioctl(c.SIO_ADDRESS_LIST_QUERY)
    assert one.ioctl(c.SIO_ROUTING_INTERFACE_QUERY, Address("127.0.0.9")) == Address("127.0.0.1")
    assert refusal(one.ioctl, c.SIO_ROUTING_INTERFACE_QUERY, "x") == codes.WSAEFAULT


def test_the_bytes_waiting_are_all_that_is_queued_and_stay_queued(
    open_udp: Open, session: Address
) -> None:
    one = open_udp()
    one.join_leaf(session)
    assert one.ioctl(c.FIONREAD) == 0
    one.send_many([b"four", b"five5"])
    until(lambda: one.ioctl(c.FIONREAD) == 9)
    assert select.select([one.fileno()], [], [], 0)[0]
    assert one.receive_many(timeout=0).messages == [b"four", b"five5"]


def test_options_are_those_of_a_datagram_socket(open_udp: Open) -> None:
    one = open_udp()
    assert one.get_option(c.SO_TYPE) == c.SOCK_DGRAM
    assert one.get_option(c.SO_ACCEPTCONN) is False
    assert one.get_option(c.SO_MAX_MSG_SIZE) == 65507
    assert one.get_option(c.SO_PROTOCOL_INFOW) is one.info
    assert one.get_option(c.SO_ERROR) == 0
    one.set_option(c.SO_RCVBUF, 100_000)
    assert one.get_option(c.SO_RCVBUF) == 100_000
    one.set_option(c.SO_BROADCAST, True)
    assert one.get_option(c.SO_BROADCAST) is True
    assert refusal(one.set_option, c.SO_RCVBUF, -1) == codes.WSAEINVAL
    for option in (c.SO_LINGER, c.SO_KEEPALIVE, 0x7777):
        assert refusal(one.get_option, option) == codes.WSAENOPROTOOPT
        assert refusal(one.set_option, option, 1) == codes.WSAENOPROTOOPT
    assert refusal(one.set_option, c.SO_TYPE, 1) == codes.WSAENOPROTOOPT


# ---- membership


def test_a_forgotten_membership_is_renewed_by_a_waiting_receiver(
    open_udp: Open, session: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ip_membership, "LOOK_INTERVAL", 0.01)
    one, sender = open_udp(), open_udp()
    one.join_leaf(session)
    sender.join_leaf(session, role=JoinRole.SENDER_ONLY)
    assert one._membership.attachment is not None
    group = session.ip
    assert group is not None
    multicast.leave_group(
        one._sock, group, one._membership.attachment.interface
    )  # as the kernel does
    blocked = Blocked(lambda: one.receive_many(timeout=BOUND))
    until(lambda: one.statistics()["memberships_renewed"] == 1)
    sender.send_many([b"x"])
    assert blocked.finish().messages == [b"x"]
    assert one.statistics()["memberships_lost"] == 1


# ---- source-specific


def test_the_source_speaks_and_the_leaf_hears(
    open_ssm: Callable[..., SourceSpecificEndpoint],
) -> None:
    port = next(_ports)
    url = f"ssm://127.0.0.1@232.6.6.6:{port}"
    leaf, root = open_ssm(url), open_ssm(url, D_ROOT)
    session = Address("232.6.6.6", port)
    leaf.join_leaf(session)
    root.join_leaf(session)
    root.send_many([b"x"])
    assert leaf.receive_many(timeout=BOUND).messages == [b"x"]
    assert refusal(leaf.send_many, [b"y"]) == codes.WSAEOPNOTSUPP
    assert refusal(root.receive_many, timeout=0) == codes.WSAEOPNOTSUPP


def test_other_senders_are_not_heard_whether_to_the_group_or_to_the_port(
    open_ssm: Callable[..., SourceSpecificEndpoint], open_udp: Open
) -> None:
    port = next(_ports)
    url = f"ssm://127.0.0.1@232.6.6.7:{port}"
    session = Address("232.6.6.7", port)
    leaf, root = open_ssm(url), open_ssm(url, D_ROOT)
    leaf.join_leaf(session)
    root.join_leaf(session)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.2", 0))
        stranger.setsockopt(
            socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1")
        )
        stranger.sendto(b"to the group", ("232.6.6.7", port))
        stranger.sendto(b"to the port", ("127.0.0.1", port))
    root.send_many([b"x"])
    assert leaf.receive_many(timeout=BOUND).messages == [b"x"]
    assert leaf.statistics()["messages_filtered"] == 1  # the kernel kept the other one out


@pytest.mark.parametrize(
    ("roles", "role"), [(Roles(), JoinRole.SENDER_ONLY), (D_ROOT, JoinRole.RECEIVER_ONLY)]
)
def test_roles_against_the_data_plane_are_refused(
    open_ssm: Callable[..., SourceSpecificEndpoint], roles: Roles, role: JoinRole
) -> None:
    one = open_ssm("ssm://127.0.0.1@232.6.6.8:5000", roles)
    code = refusal(one.join_leaf, Address("232.6.6.8", 5000), role=role)
    assert code == codes.WSAEOPNOTSUPP


def test_nobody_speaks_in_the_name_of_an_address_that_is_not_theirs(
    open_ssm: Callable[..., SourceSpecificEndpoint],
) -> None:
    one = open_ssm("ssm://192.0.2.77@232.6.6.9:5000", D_ROOT)
    assert refusal(one.join_leaf, Address("232.6.6.9", 5000)) == codes.WSAEADDRNOTAVAIL


def test_a_leaf_that_knows_no_source_has_nobody_to_hear() -> None:
    provider = SourceSpecificProvider()
    one = provider.open(provider.protocols()[0], Roles(), SETTINGS)
    assert refusal(one.join_leaf, Address("232.6.6.9", 5000)) == codes.WSAEADDRNOTAVAIL
    one.close()
