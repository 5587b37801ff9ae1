"""Clauses 33 to 62: the sixteen error codes, each from its cause."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.conformance.test_clauses_result import BOTH_KINDS, parties, reject
from tests.conformance.world import (
    SHORT,
    Condition,
    Starter,
    Task,
    World,
    flow,
    inet,
    inet6,
    qos,
)

from joinleaf.core.wire.control import MAX_CONNECT_DATA
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.provider import Settings
from joinleaf.winsock.memory import Cell, Wsabuf
from joinleaf.winsock.types import INVALID_SOCKET, QOS

LISTED = frozenset(
    {
        codes.WSAEINTR,
        codes.WSAEFAULT,
        codes.WSAEINPROGRESS,
        codes.WSAEALREADY,
        codes.WSAENOTSOCK,
        codes.WSAEPROTONOSUPPORT,
        codes.WSAEOPNOTSUPP,
        codes.WSAEAFNOSUPPORT,
        codes.WSAEADDRINUSE,
        codes.WSAEADDRNOTAVAIL,
        codes.WSAENETDOWN,
        codes.WSAENETUNREACH,
        codes.WSAENOBUFS,
        codes.WSAEISCONN,
        codes.WSAETIMEDOUT,
        codes.WSAECONNREFUSED,
    }
)
IMPOSSIBLE = flow(1 << 31, c.SERVICETYPE_GUARANTEED)


def target(world: World) -> bytes:
    """A name that could be joined."""
    return world.local(world.root()) if world.rooted else world.session()


@pytest.mark.parametrize("blocking", [True, False])
def test_a_failed_network_is_10050_and_allocates_nothing(every: World, blocking: bool) -> None:
    sockets = [every.leaf(), *([every.root()] if every.rooted else [])]
    name = target(every)
    if not blocking:
        every.nonblocking(*sockets)
    every.upcalls.calls.clear()
    every.seam.down = True
    for s in sockets:
        assert every.refusal(s, name) == codes.WSAENETDOWN
    every.seam.down = False
    assert not every.upcalls.calls["WPUCreateSocketHandle"]
    assert not every.upcalls.calls["WPUModifyIFSHandle"]


@pytest.fixture
def held_port() -> Iterator[int]:
    """A UDP port that somebody else has, and does not share."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", 0))
        yield other.getsockname()[1]


@pytest.mark.parametrize("scheme", ["udp", "ssm"])
def test_a_join_that_must_take_a_port_in_use_is_10048(
    start: Starter, scheme: str, held_port: int
) -> None:
    world = start(scheme)
    s = world.leaf()
    name = world.session()[:2] + held_port.to_bytes(2, "big") + world.session()[4:]
    assert world.refusal(s, name) == codes.WSAEADDRINUSE
    # Nothing has changed: elsewhere the same socket gets in.
    assert world.join(s, world.session()) == s


@pytest.mark.parametrize("scheme", ["udp", "ssm"])
def test_a_port_marked_for_reuse_can_be_joined_by_several(start: Starter, scheme: str) -> None:
    world = start(scheme)
    name = world.session()
    port = int.from_bytes(name[2:4], "big")
    for _ in range(2):
        s = world.leaf()
        world.set_option(s, c.SO_REUSEADDR, 1)
        world.bind(s, inet("0.0.0.0", port))
        assert world.join(s, name) == s


def test_an_address_in_use_is_told_when_binding(every: World) -> None:
    first, second = every.leaf(), every.leaf()
    every.bind(first)
    name = every.local(first)
    assert every.code("WSPBind", second, name, len(name)) == codes.WSAEADDRINUSE


@BOTH_KINDS
def test_a_cancelled_blocking_join_is_10004(rooted: World, kind: str) -> None:
    s, silent = parties(rooted, kind)
    cancelled: list[int] = []

    def hook(_context: object) -> bool:
        cancelled.append(rooted.call("WSPCancelBlockingCall"))
        return True

    with rooted.hooked(hook):
        assert rooted.refusal(s, rooted.local(silent)) == codes.WSAEINTR
    assert cancelled == [0]


@BOTH_KINDS
def test_nothing_blocks_while_a_nonblocking_join_is_pending(rooted: World, kind: str) -> None:
    s, silent = parties(rooted, kind)
    watch = rooted.watch(s, c.FD_CONNECT)
    rooted.join(s, rooted.local(silent))
    assert rooted.code("WSPCancelBlockingCall") == codes.WSAEINVAL
    rooted.accept(silent)
    assert watch.wait(c.FD_CONNECT) == 0


@BOTH_KINDS
def test_a_join_from_the_blocking_hook_is_10036(rooted: World, kind: str) -> None:
    s, silent = parties(rooted, kind)
    other = rooted.leaf()
    name = rooted.local(silent)
    seen: list[int] = []

    def hook(_context: object) -> bool:
        seen.append(rooted.refusal(other, name))
        return False

    with rooted.hooked(hook):
        assert rooted.refusal(s, name) == codes.WSAEINTR
    assert seen == [codes.WSAEINPROGRESS]


def test_a_join_from_a_condition_function_is_10036(rooted: World) -> None:
    root, other = rooted.root(), rooted.leaf()
    name = rooted.local(root)
    seen: list[int] = []
    condition = Condition(also=lambda _: seen.append(rooted.refusal(other, name)))
    rooted.admit(root, rooted.leaf(), condition)
    assert seen == [codes.WSAEINPROGRESS]


@BOTH_KINDS
def test_a_join_pending_on_another_socket_is_no_obstacle(rooted: World, kind: str) -> None:
    s, silent = parties(rooted, kind)
    other, listener = parties(rooted, kind)
    rooted.nonblocking(s)
    rooted.join(s, rooted.local(silent))
    assert rooted.refusal(s, rooted.local(silent)) == codes.WSAEALREADY
    name = rooted.local(listener)
    asking = Task(lambda: rooted.join(other, name))
    rooted.accept(listener)
    asking.result()


def test_the_wildcard_is_nobodys_address(every: World) -> None:
    assert every.refusal(every.leaf(), every.any_address()) == codes.WSAEADDRNOTAVAIL
    if every.rooted:
        assert every.refusal(every.root(), every.any_address()) == codes.WSAEADDRNOTAVAIL


def test_a_name_of_another_family_is_10047(every: World) -> None:
    s = every.leaf()
    others = [inet6("ff15::1", 5000), bytes(16), b"\xe7\x03" + bytes(14)]
    if every.scheme == "mem":
        others.append(inet("239.1.1.1", 5000))
    for name in others:
        assert every.refusal(s, name) == codes.WSAEAFNOSUPPORT


@BOTH_KINDS
def test_a_rejected_join_is_10061(rooted: World, kind: str) -> None:
    s, listener = parties(rooted, kind)
    name = rooted.local(listener)
    asking = Task(lambda: rooted.join(s, name))
    reject(rooted, listener)
    assert asking.code() == codes.WSAECONNREFUSED


@BOTH_KINDS
def test_a_join_where_nobody_listens_is_10061(rooted: World, kind: str) -> None:
    s, _ = parties(rooted, kind)
    nobody = rooted.nobody()
    assert rooted.refusal(s, nobody) == codes.WSAECONNREFUSED
    watch = rooted.watch(s, c.FD_CONNECT)
    rooted.join(s, nobody)
    assert watch.wait(c.FD_CONNECT) == codes.WSAECONNREFUSED


def test_a_join_into_a_full_backlog_is_10061(rooted: World) -> None:
    root, listener = rooted.root(), rooted.listener(backlog=1)
    first = rooted.watch(root, c.FD_CONNECT)
    waiting = rooted.watch(listener, c.FD_ACCEPT)
    rooted.join(root, rooted.local(listener))
    waiting.wait(c.FD_ACCEPT)
    assert rooted.refusal(rooted.root(), rooted.local(listener)) == codes.WSAECONNREFUSED
    rooted.accept(listener)
    assert first.wait(c.FD_CONNECT) == 0


def test_a_name_that_is_no_memory_is_10014(every: World) -> None:
    s = every.leaf()
    for name in (None, object(), 0, 1):
        assert every.refusal(s, name, namelen=16) == codes.WSAEFAULT


def test_a_length_beyond_the_memory_is_10014(every: World) -> None:
    s, name = every.leaf(), target(every)
    assert every.refusal(s, name, namelen=len(name) + 1) == codes.WSAEFAULT
    assert every.refusal(s, name, namelen=-1) == codes.WSAEFAULT


def test_a_name_too_short_for_its_family_is_10014(every: World) -> None:
    s, name = every.leaf(), target(every)
    minimum = 4 if every.scheme == "mem" else 16
    for length in (minimum - 1, 1, 0):
        assert every.refusal(s, name, namelen=length) == codes.WSAEFAULT
    assert every.provider.info.min_sockaddr == minimum


@BOTH_KINDS
@pytest.mark.parametrize("blocking", [True, False])
def test_callee_data_that_do_not_fit_are_10014(rooted: World, kind: str, blocking: bool) -> None:
    s, listener = parties(rooted, kind)
    name = rooted.local(listener)
    condition = Condition(data=b"0123456789")
    short = Wsabuf(9)
    if blocking:
        asking = Task(lambda: rooted.join(s, name, callee=short))
        rooted.accept(listener, condition)
        assert asking.code() == codes.WSAEFAULT
    else:
        watch = rooted.watch(s, c.FD_CONNECT)
        rooted.join(s, name, callee=short)
        rooted.accept(listener, condition)
        assert watch.wait(c.FD_CONNECT) == codes.WSAEFAULT
    assert short.len == 0


def test_callee_data_that_just_fit_are_taken(rooted: World) -> None:
    exact = Wsabuf(10)
    rooted.admit(rooted.root(), rooted.leaf(), Condition(data=b"0123456789"), callee=exact)
    assert exact.data == b"0123456789"


def test_a_specification_shorter_than_the_structure_is_10014(every: World) -> None:
    s, name = every.leaf(), target(every)
    whole = bytes(qos())
    assert every.refusal(s, name, sqos=whole[:-1]) == codes.WSAEFAULT
    lacking = qos()
    lacking.ProviderSpecific.len = 4
    assert every.refusal(s, name, sqos=lacking) == codes.WSAEFAULT


def test_caller_data_longer_than_the_provider_takes_are_10014(rooted: World) -> None:
    leaf, root = rooted.leaf(), rooted.root()
    too_many = Wsabuf(bytes(MAX_CONNECT_DATA + 1))
    assert rooted.refusal(leaf, rooted.local(root), caller=too_many) == codes.WSAEFAULT
    rooted.nonblocking(root)
    assert rooted.code("WSPAccept", root, None, None, None, 0) == codes.WSAEWOULDBLOCK
    rooted.fionbio(root, 0)
    condition = Condition()
    most = bytes(range(256)) * (MAX_CONNECT_DATA // 256)
    rooted.admit(root, leaf, condition, caller=Wsabuf(most.ljust(MAX_CONNECT_DATA, b"x")))
    assert condition.data is not None
    assert len(condition.data) == MAX_CONNECT_DATA


@BOTH_KINDS
def test_no_route_is_10051(rooted: World, kind: str) -> None:
    s, _ = parties(rooted, kind)
    name = rooted.unreachable()
    assert rooted.refusal(s, name) == codes.WSAENETUNREACH
    watch = rooted.watch(s, c.FD_CONNECT)
    rooted.join(s, name)
    assert watch.wait(c.FD_CONNECT) == codes.WSAENETUNREACH


@pytest.mark.parametrize("scheme", ["mem"])
def test_a_missing_route_can_come_back(start: Starter, scheme: str) -> None:
    world = start(scheme)
    root, leaf = world.root(), world.leaf()
    name = world.local(root)
    where = type("Where", (), {"host": name[2:].rstrip(b"\0").decode()})()
    world.faults.set_route(where, exists=False)
    assert world.refusal(leaf, name) == codes.WSAENETUNREACH
    world.faults.set_route(where, exists=True)
    world.admit(root, leaf)


def test_a_failing_handle_upcall_is_10055_and_leaks_nothing(rooted: World) -> None:
    root, listener = rooted.root(), rooted.listener()
    before = rooted.upcalls.open_sockets
    rooted.upcalls.fail("WPUCreateSocketHandle", codes.WSAENOBUFS)
    assert rooted.refusal(root, rooted.local(listener)) == codes.WSAENOBUFS
    rooted.upcalls.replace("WPUCreateSocketHandle", None)
    assert rooted.upcalls.open_sockets == before
    rooted.invite(root, listener)


@pytest.mark.parametrize("scheme", ["mem"])
def test_a_provider_without_memory_is_10055(start: Starter, scheme: str) -> None:
    for is_rooted in (True, False):
        world = start(scheme, rooted=is_rooted)
        name, s = target(world), world.leaf()
        world.faults.no_buffers = True
        before = world.upcalls.open_sockets
        assert world.refusal(s, name) == codes.WSAENOBUFS
        assert world.upcalls.open_sockets == before
        world.faults.no_buffers = False


def test_what_is_no_socket_is_10038(every: World) -> None:
    name = target(every)
    closed = every.leaf()
    every.close(closed)
    event = every.objects.create_event()
    for s in (closed, INVALID_SOCKET, 0x7FFFFFF0, event, 0):
        assert every.refusal(s, name) == codes.WSAENOTSOCK


def test_a_specification_beyond_the_capacity_is_10045(scheme: str, start: Starter) -> None:
    world = start(scheme, settings=Settings(capacity=10_000))
    root, leaf = world.root(), world.leaf()
    name = world.local(root)
    wanted = qos(flow(20_000, c.SERVICETYPE_GUARANTEED), flow(20_000, c.SERVICETYPE_GUARANTEED))
    asking = Task(lambda: world.join(leaf, name, sqos=wanted))
    refusing = Task(lambda: world.accept(root))
    assert asking.code() == codes.WSAEOPNOTSUPP
    # The peer has seen no leaf come in, and the socket is no member.
    assert refusing.code() == codes.WSAEOPNOTSUPP
    assert world.code("WSPGetPeerName", leaf, bytearray(64), Cell(64)) == codes.WSAENOTCONN
    world.admit(root, leaf)


def test_a_root_cannot_invite_beyond_its_capacity(scheme: str, start: Starter) -> None:
    world = start(scheme, settings=Settings(capacity=10_000))
    root, listener = world.root(), world.listener()
    wanted = qos(flow(20_000, c.SERVICETYPE_GUARANTEED))
    name = world.local(listener)
    assert world.refusal(root, name, sqos=wanted) == codes.WSAEOPNOTSUPP
    world.invite(root, listener)


def test_a_guarantee_from_a_provider_that_knows_none_is_10045(group: World) -> None:
    s, name = group.leaf(), group.session()
    wanted = qos(flow(9200, c.SERVICETYPE_GUARANTEED), flow(9200, c.SERVICETYPE_GUARANTEED))
    assert group.refusal(s, name, sqos=wanted) == codes.WSAEOPNOTSUPP
    assert group.code("WSPGetPeerName", s, bytearray(64), Cell(64)) == codes.WSAENOTCONN
    assert group.join(s, name) == s


def test_caller_data_where_none_can_travel_are_10043(group: World) -> None:
    s, name = group.leaf(), group.session()
    assert group.refusal(s, name, caller=Wsabuf(b"x")) == codes.WSAEPROTONOSUPPORT
    assert group.join(s, name) == s


@BOTH_KINDS
def test_a_join_nobody_answers_is_10060_after_the_time_out(rooted: World, kind: str) -> None:
    s, silent = parties(rooted, kind)
    rooted.provider.join_timeout = 4 * SHORT
    begun = time.monotonic()
    assert rooted.refusal(s, rooted.local(silent)) == codes.WSAETIMEDOUT
    assert time.monotonic() - begun >= 4 * SHORT
    watch = rooted.watch(s, c.FD_CONNECT)
    rooted.join(s, rooted.local(silent))
    assert watch.wait(c.FD_CONNECT) == codes.WSAETIMEDOUT


@pytest.mark.parametrize("answer", ["never", "refuses"])
@pytest.mark.parametrize("scheme", ["jl"])
def test_a_foreign_listener_is_no_session(start: Starter, scheme: str, answer: str) -> None:
    world = start(scheme)
    with socket.create_server(("127.0.0.1", 0)) as server:
        name = inet("127.0.0.1", server.getsockname()[1])
        leaf = world.leaf()
        world.provider.join_timeout = SHORT if answer == "never" else None
        asking = Task(lambda: world.join(leaf, name))
        connection, _ = server.accept()
        with connection:
            if answer == "refuses":
                connection.close()
            expected = codes.WSAETIMEDOUT if answer == "never" else codes.WSAECONNREFUSED
            assert asking.code() == expected


def test_no_other_code_comes_from_any_mixture_of_parameters(every: World) -> None:
    good = target(every)
    names = [None, b"", b"\x02", good, bytes(16), inet6("::", 0), every.any_address(), object()]
    lengths = [None, -1, 0, 3, 16, 1000]
    callers: list[Any] = [
        None,
        Wsabuf(b"x"),
        Wsabuf(None, 5),
        Wsabuf(bytes(MAX_CONNECT_DATA + 1)),
        17,
    ]
    specifications: list[Any] = [None, b"short", qos(IMPOSSIBLE, IMPOSSIBLE), QOS(flow(1, 99)), 3]
    flags = [0, 1, 2, 3, 4, 5, 8, -1]
    every.provider.join_timeout = SHORT
    seen = set()
    mixtures = itertools.product(names, lengths)
    for (name, length), caller, sqos, flag in zip(
        mixtures,
        itertools.cycle(callers),
        itertools.cycle(specifications + callers),
        itertools.cycle(flags),
        strict=False,
    ):
        s = every.leaf()
        every.nonblocking(s)
        size = length if length is not None else len(name) if isinstance(name, bytes) else 16
        arguments = (s, name, size, caller, caller, sqos, None, flag)
        seen.add(every.code("WSPJoinLeaf", *arguments))
        every.close(s)
    assert codes.WSAEWOULDBLOCK not in seen
    assert seen - {0} <= LISTED | {codes.WSAEINVAL}
