"""The cells of the model's sections 6.3 to 6.6, and the timing rules of 6.8: a c_leaf."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from tests.conformance.test_clauses_result import reject
from tests.conformance.world import (
    GUARD,
    SHORT,
    Condition,
    RefusedError,
    Starter,
    Task,
    Watch,
    World,
    flow,
    inet,
    memberships,
    qos,
)

from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.provider import Settings
from joinleaf.winsock.memory import Cell, Wsabuf

T = TypeVar("T")
SENDING = ([Wsabuf(b"x")], 1, Cell(), 0, None, None, None)


# -- 6.3: rooted, blocking --------------------------------------------------------------------


def test_l1_a_join_binds_and_waits_for_the_root(rooted: World) -> None:
    root, leaf = rooted.root(), rooted.leaf()
    name = rooted.local(root)
    asking = Task(lambda: rooted.join(leaf, name))
    assert rooted.call("WSPSelect", 0, [root], None, None, 10.0) == 1
    assert asking.lasts()
    assert rooted.local(leaf)
    rooted.accept(root)
    asking.result()


def test_l2_an_accepted_leaf_has_its_handle_the_data_and_a_peer(rooted: World) -> None:
    root, leaf, callee = rooted.root(), rooted.leaf(), Wsabuf(16)
    rooted.upcalls.calls.clear()
    rooted.admit(root, leaf, Condition(data=b"yo"), callee=callee)
    assert rooted.upcalls.calls["WPUCreateSocketHandle"] == 1  # the root's leg
    assert callee.data == b"yo"
    assert rooted.peer(leaf) == rooted.local(root)


@pytest.mark.parametrize(
    "why", ["refused", "unreachable", "timed out", "quality refused", "too long"]
)
@pytest.mark.parametrize("blocking", [True, False])
def test_l3_m3_a_leaf_may_call_again_after_a_failure(
    scheme: str, start: Starter, why: str, blocking: bool
) -> None:
    world = start(scheme, settings=Settings(capacity=1000))
    root, leaf, callee = world.root(), world.leaf(), Wsabuf(4)
    name = world.unreachable() if why == "unreachable" else world.local(root)
    wanted = qos(flow(2000, c.SERVICETYPE_GUARANTEED)) if why == "quality refused" else None
    world.provider.join_timeout = SHORT if why == "timed out" else None
    expected = {
        "refused": codes.WSAECONNREFUSED,
        "unreachable": codes.WSAENETUNREACH,
        "timed out": codes.WSAETIMEDOUT,
        "quality refused": codes.WSAEOPNOTSUPP,
        "too long": codes.WSAEFAULT,
    }[why]
    if blocking:
        asking = Task(lambda: world.join(leaf, name, callee=callee, sqos=wanted))
        answer(world, root, why)
        assert asking.code() == expected
    else:
        watch = world.watch(leaf)
        world.join(leaf, name, callee=callee, sqos=wanted)
        answer(world, root, why)
        assert watch.wait(c.FD_CONNECT) == expected
        assert world.option(leaf, c.SO_ERROR) == expected
        world.call("WSPEventSelect", leaf, None, 0)
        world.fionbio(leaf, 0)
    world.provider.join_timeout = None
    assert callee.len == 0
    if why == "timed out":  # what it has withdrawn is still first in the queue
        world.nonblocking(root)
        world.code("WSPAccept", root, None, None, None, 0)
        world.fionbio(root, 0)
    world.admit(root, leaf)


def answer(world: World, root: int, why: str) -> None:
    """What the root does about a request."""
    if why == "refused":
        reject(world, root)
    elif why == "too long":
        world.accept(root, Condition(data=b"longer than that"))
    elif why == "quality refused":
        assert world.code("WSPAccept", root, None, None, None, 0) == codes.WSAEOPNOTSUPP


def test_too_long_an_answer_is_told_to_the_acceptor_as_a_reset(rooted: World) -> None:
    root, leaf = rooted.root(), rooted.leaf()
    name = rooted.local(root)
    asking = Task(lambda: rooted.join(leaf, name, callee=Wsabuf(4)))
    leg = rooted.accept(root, Condition(data=b"longer than that"))
    assert asking.code() == codes.WSAEFAULT
    assert rooted.watch(leg, c.FD_CLOSE).wait(c.FD_CLOSE) == codes.WSAECONNRESET


def test_l4_a_cancelled_leaf_is_good_for_closing_only(rooted: World) -> None:
    root, leaf = rooted.root(), rooted.leaf()
    with rooted.hooked(lambda _: False):
        assert rooted.refusal(leaf, rooted.local(root)) == codes.WSAEINTR
    assert rooted.refusal(leaf, rooted.local(root)) == codes.WSAEINVAL
    assert rooted.receive_code(leaf) == codes.WSAENOTCONN
    rooted.close(leaf)


def test_l5_m10_a_member_is_connected_already(rooted: World) -> None:
    pair = rooted.pair()
    assert rooted.refusal(pair.leaf, rooted.local(pair.root)) == codes.WSAEISCONN
    rooted.nonblocking(pair.leaf)
    assert rooted.refusal(pair.leaf, None, namelen=0) == codes.WSAEISCONN


def test_l6_a_listening_leaf_joins_nobody(rooted: World) -> None:
    listener = rooted.listener()
    assert rooted.refusal(listener, rooted.local(rooted.root())) == codes.WSAEINVAL
    rooted.invite(rooted.root(), listener)


@pytest.mark.parametrize("how", ["root closes", "leg closes", "root shuts down", "root aborts"])
def test_l7_a_member_is_told_of_the_end_once_data_are_read(rooted: World, how: str) -> None:
    pair = rooted.pair()
    watch = rooted.watch(pair.leaf)
    rooted.send(pair.root, b"last words")
    assert watch.wait(c.FD_READ) == 0
    if how == "root aborts":
        rooted.set_option(pair.root, c.SO_LINGER, 1)
    if how == "root shuts down":
        rooted.call("WSPShutdown", pair.root, c.SD_SEND)
    else:
        rooted.close(pair.leg if how == "leg closes" else pair.root)
    if how != "root aborts":
        assert watch.silent(c.FD_CLOSE)
        assert rooted.receive(pair.leaf) == b"last words"
    else:
        rooted.code("WSPRecv", pair.leaf, [Wsabuf(16)], 1, Cell(), Cell(0), None, None, None)
    expected = codes.WSAECONNRESET if how == "root aborts" else 0
    assert watch.wait(c.FD_CLOSE) == expected
    assert rooted.receive_code(pair.leaf) == (expected or codes.WSAEDISCON)


def test_l8_a_broken_leaf_joins_nobody(rooted: World) -> None:
    pair = rooted.pair()
    watch = rooted.watch(pair.leaf, c.FD_CLOSE)
    rooted.close(pair.leg)
    watch.wait(c.FD_CLOSE)
    assert rooted.refusal(pair.leaf, rooted.local(pair.root)) == codes.WSAEINVAL


def test_l9_the_member_of_an_invited_leaf_is_the_accepted_socket(rooted: World) -> None:
    listener = rooted.listener()
    first = rooted.invite(rooted.root(), listener)
    assert first.leaf != listener
    assert rooted.peer(first.leaf)
    assert rooted.option(listener, c.SO_ACCEPTCONN) == 1
    second = rooted.invite(rooted.root(), listener)
    rooted.send(second.root, b"news")
    assert rooted.receive(second.leaf) == b"news"


def test_l10_a_leaf_that_closes_is_told_to_the_leg(rooted: World) -> None:
    pair = rooted.pair()
    watch = rooted.watch(pair.leg, c.FD_CLOSE)
    rooted.close(pair.leaf)
    assert watch.wait(c.FD_CLOSE) == 0


def test_l11_a_member_does_not_listen(rooted: World) -> None:
    pair = rooted.pair()
    assert rooted.code("WSPListen", pair.leaf, 5) == codes.WSAEISCONN


# -- 6.4: rooted, nonblocking -----------------------------------------------------------------


def asking_leaf(world: World) -> tuple[int, int, Watch, Wsabuf]:
    """A leaf in state P, the root it asks, its events and its place for callee data."""
    root, leaf, callee = world.root(), world.leaf(), Wsabuf(64)
    watch = world.watch(leaf)
    assert world.join(leaf, world.local(root), callee=callee) == leaf
    return leaf, root, watch, callee


def test_m1_a_leaf_that_asks_keeps_its_handle_and_event_calls(rooted: World) -> None:
    leaf, _, watch, _ = asking_leaf(rooted)
    assert watch.enumerate() == {}
    assert rooted.option(leaf, c.SO_ERROR) == 0
    rooted.watch(leaf)


def test_m2_an_accepted_leaf_is_told_connect_then_write(rooted: World) -> None:
    leaf, root, watch, callee = asking_leaf(rooted)
    rooted.accept(root, Condition(data=b"yo"))
    assert watch.wait(c.FD_CONNECT) == 0
    assert callee.data == b"yo"
    assert watch.wait(c.FD_WRITE) == 0
    assert rooted.peer(leaf) == rooted.local(root)


def test_m4_a_leaf_that_asks_cannot_ask_again(rooted: World) -> None:
    leaf, root, watch, _ = asking_leaf(rooted)
    assert rooted.refusal(leaf, rooted.nobody()) == codes.WSAEALREADY
    rooted.accept(root)
    assert watch.wait(c.FD_CONNECT) == 0


def test_m5_closing_a_leaf_that_asks_withdraws_its_request(rooted: World) -> None:
    leaf, root, _, _ = asking_leaf(rooted)
    assert rooted.call("WSPSelect", 0, [root], None, None, 10.0) == 1
    rooted.close(leaf)
    rooted.nonblocking(root)
    ends = {0, codes.WSAECONNRESET, codes.WSAEACCES, codes.WSAEWOULDBLOCK}
    try:
        late = rooted.accept(root)
    except RefusedError as error:
        end = error.code
    else:  # it was accepted before the word came: then the leg ends
        end = rooted.watch(late, c.FD_CLOSE).wait(c.FD_CLOSE)
    assert end in ends


def test_m6_a_leaf_that_asks_is_not_connected(rooted: World) -> None:
    leaf, _, _, _ = asking_leaf(rooted)
    assert rooted.code("WSPSend", leaf, *SENDING) == codes.WSAENOTCONN
    assert rooted.receive_code(leaf) == codes.WSAENOTCONN
    assert rooted.code("WSPShutdown", leaf, c.SD_SEND) == codes.WSAENOTCONN
    assert rooted.code("WSPGetPeerName", leaf, bytearray(64), Cell(64)) == codes.WSAENOTCONN


def test_m7_a_leaf_that_asks_neither_listens_accepts_nor_binds(rooted: World) -> None:
    leaf, _, _, _ = asking_leaf(rooted)
    name = rooted.nobody()
    assert rooted.code("WSPListen", leaf, 5) == codes.WSAEINVAL
    assert rooted.code("WSPAccept", leaf, None, None, None, 0) == codes.WSAEINVAL
    assert rooted.code("WSPBind", leaf, name, len(name)) == codes.WSAEINVAL


def test_m8_a_leaf_that_asks_does_not_connect(rooted: World) -> None:
    leaf, _, _, _ = asking_leaf(rooted)
    name = rooted.nobody()
    arguments = (leaf, name, len(name), None, None, None, None)
    assert rooted.code("WSPConnect", *arguments) == codes.WSAEALREADY


def test_m9_select_says_nothing_of_a_leaf_that_asks(rooted: World) -> None:
    leaf, root, watch, _ = asking_leaf(rooted)
    assert rooted.select(leaf) == ([], [], [])
    reject(rooted, root)
    assert watch.wait(c.FD_CONNECT) == codes.WSAECONNREFUSED
    assert rooted.select(leaf) == ([], [], [])


# -- 6.5: nonrooted, blocking -----------------------------------------------------------------


@pytest.mark.parametrize("role", [c.JL_RECEIVER_ONLY, c.JL_BOTH])
def test_g1_a_receiver_has_a_membership(group: World, role: int) -> None:
    name = group.session()
    assert memberships(name) == 0
    s = group.member(name, flags=role)
    assert group.peer(s)[:8] == name[:8]
    if group.scheme != "mem":
        assert memberships(name) == 1
    speaker = group.member(name, speaks=True)
    group.send(speaker, b"news")
    assert group.receive(s) == b"news"


@pytest.mark.parametrize("blocking", [True, False])
def test_g2_h2_a_sender_has_none_and_is_told_all_the_same(group: World, blocking: bool) -> None:
    name, s = group.session(), group.speaker()
    watch = None if blocking else group.watch(s)
    assert group.join(s, name, flags=c.JL_SENDER_ONLY) == s
    assert memberships(name) == 0
    if watch is not None:
        assert watch.wait(c.FD_CONNECT) == 0
        assert watch.wait(c.FD_WRITE) == 0
    group.send(s, b"to nobody")


def test_g3_what_is_no_session_changes_nothing(group: World) -> None:
    s = group.leaf()
    bad = group.any_address() if group.scheme == "mem" else inet("127.0.0.1", 5000)
    assert group.refusal(s, bad) == codes.WSAEADDRNOTAVAIL
    assert group.code("WSPGetSockName", s, bytearray(64), Cell(64)) == codes.WSAEINVAL
    assert group.join(s, group.session()) == s


def in_a_host_without_network(action: Callable[[], T]) -> T:
    """Run something on a thread in a network namespace of its own, in which nothing is up."""
    unshare = ctypes.CDLL(None, use_errno=True).unshare

    def run() -> T:
        if unshare(0x40000000):
            raise OSError(ctypes.get_errno(), "unshare")
        return action()

    try:
        return Task(run).result()
    except OSError as error:
        pytest.skip(f"no network namespaces here: {error}")


@pytest.mark.netns
@pytest.mark.parametrize("scheme", ["udp", "ssm"])
@pytest.mark.parametrize("blocking", [True, False])
def test_g4_h3_without_a_network_a_join_is_unreachable(
    start: Starter, scheme: str, blocking: bool
) -> None:
    world = start(scheme, settings=Settings())

    def join() -> int:
        s = world.leaf()
        if blocking:
            return world.refusal(s, world.session())
        watch = world.watch(s)
        assert world.join(s, world.session()) == s
        code = watch.wait(c.FD_CONNECT)
        assert world.option(s, c.SO_ERROR) == code
        return code

    assert in_a_host_without_network(join) == codes.WSAENETUNREACH


def test_g5_h5_one_session_per_socket(group: World) -> None:
    name = group.session()
    s = group.member(name)
    group.nonblocking(s)
    for other in (name, group.session()):
        assert group.refusal(s, other) == codes.WSAEISCONN


def test_g6_closing_drops_the_membership(group: World) -> None:
    name = group.session()
    s = group.member(name)
    assert memberships(name) == (group.scheme != "mem")
    group.close(s)
    assert memberships(name) == 0
    again = group.member(name)
    group.close(again)


def test_g7_caller_data_change_nothing(group: World) -> None:
    s = group.leaf()
    assert group.refusal(s, group.session(), caller=Wsabuf(b"x")) == codes.WSAEPROTONOSUPPORT
    assert group.code("WSPGetSockName", s, bytearray(64), Cell(64)) == codes.WSAEINVAL
    assert group.join(s, group.session(), caller=Wsabuf(b"")) == s


def test_g8_there_are_no_callee_data(group: World) -> None:
    memory = bytearray(GUARD * 16)
    callee = Wsabuf(memory)
    group.join(group.leaf(), group.session(), callee=callee)
    assert callee.len == 0
    assert memory == GUARD * 16


@pytest.mark.parametrize("scheme", ["udp"])
def test_the_interface_can_be_an_option_of_the_system(start: Starter, scheme: str) -> None:
    world = start(scheme, settings=Settings())
    name = world.session()
    sockets = [world.leaf(), world.leaf()]
    for s in sockets:
        world.call("WSPSetSockOpt", s, 0, c.IP_MULTICAST_IF, bytes((127, 0, 0, 1)), 4)
        world.join(s, name)
    world.send(sockets[0], b"over lo")
    assert world.receive(sockets[1]) == b"over lo"


# -- 6.6: nonrooted, nonblocking --------------------------------------------------------------


@pytest.mark.parametrize("role", [c.JL_RECEIVER_ONLY, c.JL_BOTH])
def test_h1_h2_a_started_join_is_told(group: World, role: int) -> None:
    s = group.leaf()
    watch = group.watch(s)
    assert group.join(s, group.session(), flags=role) == s
    assert watch.wait(c.FD_CONNECT) == 0
    if role == c.JL_BOTH and group.scheme != "ssm":
        assert watch.wait(c.FD_WRITE) == 0


@pytest.mark.parametrize("scheme", ["mem"])
def test_h4_a_join_on_the_way_is_in_the_way_of_another(start: Starter, scheme: str) -> None:
    world = start(scheme, rooted=False)
    name, s = world.session(), world.leaf()
    world.faults.requests = type(world.faults.requests).HOLD
    watch = world.watch(s)
    world.join(s, name)
    if world.faults.held:
        assert world.refusal(s, name) == codes.WSAEALREADY
        world.faults.release()
    assert watch.wait(c.FD_CONNECT) == 0


def test_h6_a_program_that_asks_for_data_only_works(group: World) -> None:
    name, s = group.session(), group.leaf()
    watch = group.watch(s, c.FD_READ)
    group.join(s, name)
    speaker = group.member(name, speaks=True)
    group.send(speaker, b"news")
    assert watch.wait(c.FD_READ) == 0
    assert group.receive(s) == b"news"


# -- 6.8: timing ------------------------------------------------------------------------------


def test_tr1_a_nonblocking_join_never_waits(rooted: World) -> None:
    # Nobody answers, on this very thread: a call that waited would wait for ever.
    rooted.provider.join_timeout = None
    asking_leaf(rooted)


def test_tr2_who_is_woken_finds_the_descriptor_valid(rooted: World) -> None:
    root = rooted.root()
    watch = rooted.watch(root, c.FD_CONNECT)
    rooted.join(root, rooted.nobody())
    for _ in range(20):
        watch.wait(c.FD_CONNECT)
        leg = rooted.join(root, rooted.nobody())
        assert rooted.local(leg)


def test_tr3_every_join_not_cancelled_has_one_fd_connect(rooted: World) -> None:
    root = rooted.root()
    window = rooted.objects.create_window()
    rooted.call("WSPAsyncSelect", root, window, 0x400, c.FD_CONNECT)
    for _ in range(10):
        rooted.join(root, rooted.nobody())
        message = rooted.objects.get_message(window, 10)
        assert message is not None
        assert message.error == codes.WSAECONNREFUSED
    assert rooted.objects.get_message(window, SHORT) is None


def test_tr4_callee_data_are_final_before_the_event_is_set(rooted: World) -> None:
    leaf, root, watch, callee = asking_leaf(rooted)
    lengths: list[int] = []
    set_event = type(rooted.upcalls).WPUSetEvent

    def look(event: int, error: Any) -> int:
        lengths.append(callee.len)
        rooted.upcalls.replace("WPUSetEvent", None)
        return set_event(rooted.upcalls, event, error)

    rooted.upcalls.replace("WPUSetEvent", look)
    rooted.accept(root, Condition(data=b"yo"))
    assert watch.wait(c.FD_CONNECT) == 0
    assert lengths == [2]
    assert rooted.peer(leaf)


def test_tr5_fd_connect_comes_first(rooted: World) -> None:
    for _ in range(10):
        root, leaf = rooted.root(), rooted.leaf()
        window = rooted.objects.create_window()
        rooted.call("WSPAsyncSelect", leaf, window, 0x400, c.FD_ALL_EVENTS)
        rooted.join(leaf, rooted.local(root))
        leg = rooted.accept(root)
        rooted.send(root, b"at once")
        rooted.close(leg)
        first = rooted.objects.get_message(window, 10)
        assert first is not None
        assert first.event == c.FD_CONNECT


def test_tr6_fd_connect_keeps_its_code_when_the_leg_ends_at_once(rooted: World) -> None:
    leaf, root, watch, _ = asking_leaf(rooted)
    rooted.close(rooted.accept(root))
    record: dict[int, int] = {}
    while c.FD_CLOSE not in record:
        assert rooted.objects.wait(watch.event, 10)
        record |= watch.enumerate()
    assert record[c.FD_CONNECT] == record[c.FD_CLOSE] == 0
    assert rooted.refusal(leaf, rooted.nobody()) == codes.WSAEINVAL


def test_tr7_success_is_never_earlier_than_the_admission(rooted: World) -> None:
    root, leaf = rooted.root(), rooted.leaf()
    name = rooted.local(root)
    admitting = threading.Event()
    early: list[bool] = []
    asking = Task(lambda: rooted.join(leaf, name))

    def decide(_qos: object) -> None:
        early.append(not asking.lasts())
        admitting.set()

    rooted.accept(root, Condition(also=decide))
    assert asking.result() == leaf
    assert admitting.is_set()
    assert early == [False]
