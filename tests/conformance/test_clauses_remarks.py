"""Clauses 63 to 86: binding, likeness to WSPConnect, nonblocking joins and their notification."""

from __future__ import annotations

import inspect

import pytest
from tests.conformance.test_clauses_result import BOTH_KINDS, parties, reject
from tests.conformance.world import (
    SHORT,
    Condition,
    RefusedError,
    Starter,
    Task,
    World,
    flow,
    qos,
)

from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.winsock.memory import Cell, Wsabuf

UNIQUE = {
    "udp": "udp://239.192.0.1:5000?bind=unique",
    "ssm": "ssm://127.0.0.1@232.1.1.1:5000?bind=unique",
}


def test_one_join_binds_exchanges_data_agrees_on_quality_and_arms_events(rooted: World) -> None:
    root, leaf = rooted.root(), rooted.leaf()
    watch = rooted.watch(leaf)
    callee, condition = Wsabuf(16), Condition(data=b"yo")
    rooted.join(leaf, rooted.local(root), caller=Wsabuf(b"hi"), callee=callee, sqos=qos(flow(9200)))
    assert rooted.local(leaf)
    rooted.accept(root, condition)
    assert watch.wait(c.FD_CONNECT) == 0
    assert (condition.data, callee.data) == (b"hi", b"yo")
    assert rooted.agreed(leaf).SendingFlowspec.TokenRate == 9200


@pytest.mark.parametrize("scheme", ["mem", "udp", "ssm", "jl"])
def test_unbound_sockets_are_given_unique_addresses(start: Starter, scheme: str) -> None:
    world = start(scheme, options=UNIQUE.get(scheme))
    name = world.local(world.root()) if world.rooted else world.session()
    seen = set()
    for _ in range(2):
        s = world.leaf()
        assert world.code("WSPGetSockName", s, bytearray(64), Cell(64)) == codes.WSAEINVAL
        world.nonblocking(s)
        world.join(s, name)
        seen.add(world.local(s))
    assert len(seen) == 2


def test_a_joined_socket_is_bound_already(every: World) -> None:
    s = every.pair().leaf if every.rooted else every.member(every.session())
    name = every.local(s)
    assert every.code("WSPBind", s, name, len(name)) == codes.WSAEINVAL


@BOTH_KINDS
def test_the_binding_is_in_force_from_the_return(rooted: World, kind: str) -> None:
    listener = rooted.listener() if kind == "root" else rooted.root()
    s = rooted.root(bound=False, listening=False) if kind == "root" else rooted.leaf()
    rooted.nonblocking(s)
    rooted.join(s, rooted.local(listener))
    assert rooted.local(s)
    assert rooted.code("WSPBind", s, rooted.local(s), len(rooted.local(s))) == codes.WSAEINVAL


def test_an_explicit_binding_is_kept(every: World) -> None:
    s = every.leaf()
    every.bind(s)
    name = every.local(s)
    if every.rooted:
        every.admit(every.root(), s)
    else:
        every.join(s, every.session())
    assert every.local(s) == name


def test_it_has_the_parameters_of_connect_and_the_flags(every: World) -> None:
    joining = list(inspect.signature(every.provider.WSPJoinLeaf).parameters)
    connecting = list(inspect.signature(every.provider.WSPConnect).parameters)
    joining.remove("dwFlags")
    assert joining == connecting


def test_it_refuses_what_connect_refuses(every: World) -> None:
    s = every.leaf()
    good = every.local(every.root()) if every.rooted else every.session()
    closed = every.leaf()
    every.close(closed)
    cases = [(s, None, 16), (s, good, 1), (s, good, len(good) + 1), (s, bytes(16), 16)]
    for socket, name, length in [*cases, (closed, good, len(good))]:
        joined = every.code("WSPJoinLeaf", socket, name, length, None, None, None, None, 4)
        connected = every.code("WSPConnect", socket, name, length, None, None, None, None)
        assert joined == connected != 0


def test_an_ordinary_socket_cannot_join(every: World) -> None:
    name = every.local(every.root()) if every.rooted else every.session()
    for flags in (0, c.WSA_FLAG_OVERLAPPED):
        assert every.refusal(every.socket(flags), name) == codes.WSAEINVAL


def pending_leg(world: World) -> tuple[int, int, int]:
    """A root, a leg in state N, and the leaf that has been asked."""
    root, listener = world.root(), world.listener()
    world.nonblocking(root)
    return root, world.join(root, world.local(listener)), listener


def test_the_new_descriptor_is_not_usable_before_fd_connect(rooted: World) -> None:
    root, leg, listener = pending_leg(rooted)
    data = ([Wsabuf(b"x")], 1, Cell(), 0, None, None, None)
    assert rooted.code("WSPSend", leg, *data) == codes.WSAENOTCONN
    assert rooted.receive_code(leg) == codes.WSAENOTCONN
    assert rooted.code("WSPGetPeerName", leg, bytearray(64), Cell(64)) == codes.WSAENOTCONN
    assert rooted.code("WSPShutdown", leg, c.SD_SEND) == codes.WSAENOTCONN
    watch = rooted.watch(root, c.FD_CONNECT)
    member = rooted.accept(listener)
    assert watch.wait(c.FD_CONNECT) == 0
    assert rooted.peer(leg) == rooted.local(listener)
    rooted.send(leg, b"to you alone")
    assert rooted.receive(member) == b"to you alone"
    rooted.call("WSPShutdown", leg, c.SD_SEND)


def test_fd_connect_is_indicated_on_the_original_socket_only(rooted: World) -> None:
    root, leg, listener = pending_leg(rooted)
    on_root = rooted.watch(root)
    assert rooted.code("WSPEventSelect", leg, on_root.event, c.FD_CONNECT) == codes.WSAEINVAL
    rooted.accept(listener)
    assert on_root.wait(c.FD_CONNECT) == 0
    on_leg = rooted.watch(leg)
    assert on_leg.silent(c.FD_CONNECT)


def test_closing_the_new_descriptor_cancels_the_join(rooted: World) -> None:
    root, leg, listener = pending_leg(rooted)
    watch = rooted.watch(root, c.FD_CONNECT)
    asked = rooted.watch(listener, c.FD_ACCEPT)
    asked.wait(c.FD_ACCEPT)
    rooted.close(leg)
    # Withdrawn before it was accepted, or accepted too late: no membership comes of it.
    ends = {0, codes.WSAECONNRESET, codes.WSAEACCES, codes.WSAEWOULDBLOCK}
    try:
        late = rooted.accept(listener)
    except RefusedError as error:
        end = error.code
    else:
        end = rooted.watch(late, c.FD_CLOSE).wait(c.FD_CLOSE)
    assert end in ends
    assert watch.silent(c.FD_CONNECT)
    sending = ([Wsabuf(b"x")], 1, Cell(), 0, None, None, None)
    assert rooted.code("WSPSend", root, *sending) == codes.WSAENOTCONN


@pytest.mark.parametrize("scheme", ["mem"])
def test_a_late_acceptance_of_a_cancelled_join_is_reset(start: Starter, scheme: str) -> None:
    world = start(scheme)
    root, listener = world.root(), world.listener()
    watch = world.watch(root, c.FD_CONNECT)
    world.faults.answers = type(world.faults.answers).HOLD
    leg = world.join(root, world.local(listener))
    member = world.accept(listener)
    world.close(leg)
    world.faults.release()
    assert world.watch(member, c.FD_CLOSE).wait(c.FD_CLOSE) in (0, codes.WSAECONNRESET)
    assert watch.silent(c.FD_CONNECT)


def test_after_a_cancelled_join_the_root_starts_another(rooted: World) -> None:
    root, leg, _ = pending_leg(rooted)
    other = rooted.listener()
    rooted.close(leg)
    watch = rooted.watch(root, c.FD_CONNECT)
    assert rooted.join(root, rooted.local(other)) not in (root, leg)
    rooted.accept(other)
    assert watch.wait(c.FD_CONNECT) == 0


@pytest.mark.parametrize("count", [1, 2, 50])
def test_a_root_adds_many_leaves(rooted: World, count: int) -> None:
    root = rooted.root()
    members = [rooted.invite(root, rooted.listener()).leaf for _ in range(count)]
    rooted.send(root, b"to all")
    assert [rooted.receive(member) for member in members] == [b"to all"] * count


def test_each_root_may_have_one_request_outstanding(rooted: World) -> None:
    first, _, listener = pending_leg(rooted)
    second, _, _ = pending_leg(rooted)
    for root in (first, second):
        assert rooted.refusal(root, rooted.local(listener)) == codes.WSAEALREADY


@BOTH_KINDS
def test_a_started_join_goes_on_by_itself(rooted: World, kind: str) -> None:
    s, listener = parties(rooted, kind)
    watch = rooted.watch(s, c.FD_CONNECT)
    rooted.join(s, rooted.local(listener))
    assert watch.silent(c.FD_CONNECT)
    rooted.accept(listener)
    assert watch.wait(c.FD_CONNECT) == 0


def test_a_join_that_is_complete_at_once_is_told_all_the_same(group: World) -> None:
    s = group.leaf()
    watch = group.watch(s, c.FD_CONNECT)
    assert group.join(s, group.session()) == s
    assert watch.wait(c.FD_CONNECT) == 0


def test_nothing_is_said_of_blocking(every: World) -> None:
    # ``call`` proves that a started join writes no error at all.
    s = every.leaf()
    every.nonblocking(s)
    name = every.local(every.root()) if every.rooted else every.session()
    assert every.join(s, name) == s


@BOTH_KINDS
def test_a_window_gets_exactly_one_message(rooted: World, kind: str) -> None:
    s, listener = parties(rooted, kind)
    window = rooted.objects.create_window()
    rooted.call("WSPAsyncSelect", s, window, 0x401, c.FD_CONNECT)
    rooted.join(s, rooted.local(listener))
    rooted.accept(listener)
    message = rooted.objects.get_message(window, 10)
    assert message is not None
    assert (message.hwnd, message.msg, message.wparam) == (window, 0x401, s)
    assert (message.event, message.error) == (c.FD_CONNECT, 0)
    assert rooted.objects.get_message(window, SHORT) is None


def test_a_window_is_told_of_a_nonrooted_join(group: World) -> None:
    s = group.leaf()
    window = group.objects.create_window()
    group.call("WSPAsyncSelect", s, window, 0x401, c.FD_CONNECT)
    group.join(s, group.session())
    message = group.objects.get_message(window, 10)
    assert message is not None
    assert (message.wparam, message.event, message.error) == (s, c.FD_CONNECT, 0)
    assert group.objects.get_message(window, SHORT) is None


@BOTH_KINDS
@pytest.mark.parametrize("last", ["window", "event"])
def test_the_last_registration_counts(rooted: World, kind: str, last: str) -> None:
    s, listener = parties(rooted, kind)
    window = rooted.objects.create_window()
    event = rooted.objects.create_event()
    if last == "window":
        rooted.call("WSPEventSelect", s, event, c.FD_CONNECT)
        rooted.call("WSPAsyncSelect", s, window, 0x401, c.FD_CONNECT)
    else:
        rooted.call("WSPAsyncSelect", s, window, 0x401, c.FD_CONNECT)
        rooted.call("WSPEventSelect", s, event, c.FD_CONNECT)
    rooted.join(s, rooted.local(listener))
    rooted.accept(listener)
    if last == "window":
        assert rooted.objects.get_message(window, 10) is not None
        assert not rooted.objects.is_set(event)
    else:
        assert rooted.objects.wait(event, 10)
        assert rooted.objects.get_message(window, 0) is None


@BOTH_KINDS
@pytest.mark.parametrize("how", ["event", "window"])
@pytest.mark.parametrize("code", [0, codes.WSAECONNREFUSED])
def test_either_way_the_notification_is_fd_connect_with_the_code(
    rooted: World, kind: str, how: str, code: int
) -> None:
    s, listener = parties(rooted, kind)
    window = rooted.objects.create_window()
    watch = None
    if how == "event":
        watch = rooted.watch(s, c.FD_CONNECT)
    else:
        rooted.call("WSPAsyncSelect", s, window, 0x401, c.FD_CONNECT)
    rooted.join(s, rooted.local(listener))
    if code:
        reject(rooted, listener)
    else:
        rooted.accept(listener)
    if watch is not None:
        assert watch.wait(c.FD_CONNECT) == code
    else:
        message = rooted.objects.get_message(window, 10)
        assert message is not None
        assert (message.event, message.error) == (c.FD_CONNECT, code)


@BOTH_KINDS
def test_select_says_nothing_of_a_join(rooted: World, kind: str) -> None:
    s, listener = parties(rooted, kind)
    watch = rooted.watch(s, c.FD_CONNECT)
    made = rooted.join(s, rooted.local(listener))
    assert rooted.select(s, made) == ([], [], [])
    reject(rooted, listener)
    assert watch.wait(c.FD_CONNECT) == codes.WSAECONNREFUSED
    reading, writing, failing = rooted.select(s, made)
    assert failing == []
    assert s not in writing
    assert s not in reading


def test_connect_joins_no_rooted_session(rooted: World) -> None:
    name = rooted.local(rooted.root())
    arguments = (name, len(name), None, None, None, None)
    assert rooted.code("WSPConnect", rooted.leaf(), *arguments) == codes.WSAEOPNOTSUPP


def test_a_blocked_join_returns_the_new_descriptor(rooted: World) -> None:
    root, listener = rooted.root(), rooted.listener()
    name = rooted.local(listener)
    asking = Task(lambda: rooted.join(root, name))
    rooted.accept(listener)
    assert asking.result() != root
