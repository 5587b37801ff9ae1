"""The cells of the model's sections 6.1, 6.2 and 6.7: a c_root and its legs in each state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from tests.conformance.test_clauses_result import reject
from tests.conformance.test_clauses_root import accept_soon
from tests.conformance.world import (
    SHORT,
    Condition,
    Pair,
    RefusedError,
    Starter,
    Task,
    Watch,
    World,
)

from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.winsock.memory import Cell, Wsabuf

SENDING = ([Wsabuf(b"x")], 1, Cell(), 0, None, None, None)


# -- 6.1: blocking ----------------------------------------------------------------------------


def waiting_root(world: World, root: int | None = None) -> tuple[int, int, Task[int]]:
    """A root in state W, the leaf it waits for, and its call."""
    root = world.root(listening=False, bound=False) if root is None else root
    listener = world.listener()
    name = world.local(listener)
    asking = Task(lambda: world.join(root, name, callee=Wsabuf(64)))
    assert world.call("WSPSelect", 0, [listener], None, None, 10.0) == 1
    assert asking.lasts()
    return root, listener, asking


def test_r1_a_join_binds_sends_a_request_and_calls_the_hook(rooted: World) -> None:
    root, listener = rooted.root(listening=False, bound=False), rooted.listener()
    name = rooted.local(listener)
    calls: list[object] = []

    def hook(_context: object) -> bool:
        calls.append(rooted.provider.seam)
        return len(calls) < 3

    with rooted.hooked(hook):
        assert rooted.refusal(root, name) == codes.WSAEINTR
    assert len(calls) == 3
    assert rooted.local(root)


def test_r2_an_accepted_join_makes_an_active_leg(rooted: World) -> None:
    root, listener = rooted.root(), rooted.listener()
    callee, name = Wsabuf(64), rooted.local(listener)
    rooted.upcalls.calls.clear()
    asking = Task(lambda: rooted.join(root, name, callee=callee))
    rooted.accept(listener, Condition(data=b"yo"))
    leg = asking.result()
    assert rooted.upcalls.calls["WPUCreateSocketHandle"] == 2  # one for each side's new socket
    assert callee.data == b"yo"
    assert rooted.peer(leg) == name
    assert rooted.watch(root, c.FD_WRITE).wait(c.FD_WRITE) == 0


@pytest.mark.parametrize("why", ["rejected", "nobody listens", "backlog full"])
def test_r3_a_refused_join_leaves_nothing(rooted: World, why: str) -> None:
    root, listener = rooted.root(), rooted.listener(backlog=1)
    name = rooted.local(listener) if why != "nobody listens" else rooted.nobody()
    callee = Wsabuf(64)
    if why == "backlog full":
        first = rooted.leaf_asking_as_root(name)
        assert rooted.call("WSPSelect", 0, [listener], None, None, 10.0) == 1
        assert first not in (0, root)
    before = rooted.upcalls.open_sockets
    asking = Task(lambda: rooted.join(root, name, callee=callee))
    if why == "rejected":
        reject(rooted, listener)
    assert asking.code() == codes.WSAECONNREFUSED
    assert rooted.upcalls.open_sockets == before
    assert callee.len == 0
    assert rooted.code("WSPSend", root, *SENDING) == codes.WSAENOTCONN


def test_r4_no_route_leaves_the_root_idle(rooted: World) -> None:
    root = rooted.root()
    before = rooted.upcalls.open_sockets
    assert rooted.refusal(root, rooted.unreachable()) == codes.WSAENETUNREACH
    assert rooted.upcalls.open_sockets == before
    rooted.invite(root, rooted.listener())


def test_r5_at_the_deadline_the_request_is_withdrawn(rooted: World) -> None:
    root, listener = rooted.root(), rooted.listener()
    rooted.provider.join_timeout = SHORT
    assert rooted.refusal(root, rooted.local(listener)) == codes.WSAETIMEDOUT
    rooted.nonblocking(listener)
    assert rooted.code("WSPAccept", listener, None, None, None, 0) in (
        codes.WSAEACCES,
        codes.WSAECONNRESET,
        codes.WSAEWOULDBLOCK,
    )


def test_r6_a_cancelled_join_leaves_the_root_usable(rooted: World) -> None:
    root, listener = rooted.root(), rooted.listener()
    name = rooted.local(listener)
    before = rooted.upcalls.open_sockets
    with rooted.hooked(lambda _: False):
        assert rooted.refusal(root, name) == codes.WSAEINTR
    assert rooted.upcalls.open_sockets == before
    rooted.invite(root, rooted.listener())


@pytest.mark.parametrize("scheme", ["mem"])
def test_r6_a_late_acceptance_of_a_cancelled_join_is_reset(start: Starter, scheme: str) -> None:
    world = start(scheme)
    root, listener = world.root(), world.listener()
    name = world.local(listener)
    world.faults.answers = type(world.faults.answers).HOLD
    accepting = Task(lambda: world.accept(listener))

    def hook(_context: object) -> bool:
        return accepting.is_running

    with world.hooked(hook):
        assert world.refusal(root, name) == codes.WSAEINTR
    world.faults.release()
    member = accepting.result()
    assert world.watch(member, c.FD_CLOSE).wait(c.FD_CLOSE) in (0, codes.WSAECONNRESET)


def test_r7_another_thread_cannot_join_meanwhile(rooted: World) -> None:
    root, listener, asking = waiting_root(rooted)
    assert rooted.refusal(root, rooted.nobody()) == codes.WSAEALREADY
    rooted.accept(listener)
    asking.result()


def test_r8_data_of_other_legs_flow_meanwhile(rooted: World) -> None:
    pair = rooted.pair()
    _, listener, asking = waiting_root(rooted, pair.root)
    rooted.send(pair.root, b"down")
    assert rooted.receive(pair.leaf) == b"down"
    rooted.send(pair.leaf, b"up")
    assert rooted.receive(pair.root) == b"up"
    assert asking.is_running
    rooted.accept(listener)
    asking.result()


def test_r9_closing_the_root_from_another_thread_ends_the_join(rooted: World) -> None:
    pair = rooted.pair()
    on_leaf = rooted.watch(pair.leaf, c.FD_CLOSE)
    _, _, asking = waiting_root(rooted, pair.root)
    rooted.close(pair.root)
    assert asking.code() == codes.WSAEINTR
    assert on_leaf.wait(c.FD_CLOSE) == 0


def test_r10_a_root_with_legs_joins_another_leaf(rooted: World) -> None:
    pair = rooted.pair()
    rooted.invite(pair.root, rooted.listener())


def test_r11_a_listening_root_keeps_listening(rooted: World) -> None:
    root = rooted.root()
    _, listener, asking = waiting_root(rooted, root)
    rooted.admit(root, rooted.leaf())
    rooted.accept(listener)
    asking.result()
    rooted.admit(root, rooted.leaf())


def test_r12_accepting_makes_the_same_kind_of_leg(rooted: World) -> None:
    root = rooted.root()
    pair = rooted.admit(root, rooted.leaf())
    assert pair.leg != root
    assert rooted.local(pair.leg)[:2] == rooted.local(root)[:2]
    assert rooted.peer(pair.leg) == rooted.local(pair.leaf)


@pytest.mark.parametrize("how", [c.SD_SEND, c.SD_BOTH])
def test_r13_a_dissolved_root_joins_nobody(rooted: World, how: int) -> None:
    pair = rooted.pair()
    watches = [rooted.watch(s, c.FD_CLOSE) for s in (pair.leg, pair.leaf)]
    rooted.call("WSPShutdown", pair.root, how)
    assert [watch.wait(c.FD_CLOSE) for watch in watches] == [0, 0]
    assert rooted.refusal(pair.root, rooted.local(rooted.listener())) == codes.WSAEINVAL


@pytest.mark.parametrize("blocking", [True, False])
def test_a_root_that_is_shut_down_has_no_join_pending(rooted: World, blocking: bool) -> None:
    root, listener = rooted.root(), rooted.listener()
    name = rooted.local(listener)
    if blocking:
        _, _, asking = waiting_root(rooted, root)
        rooted.call("WSPShutdown", root, c.SD_SEND)
        assert asking.code() == codes.WSAEINTR
    else:
        rooted.nonblocking(root)
        leg = rooted.join(root, name)
        rooted.call("WSPShutdown", root, c.SD_SEND)
        assert rooted.receive_code(leg) == codes.WSAENOTCONN
    assert rooted.refusal(root, name) == codes.WSAEINVAL


# -- 6.2: nonblocking -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pending:
    """A root with a nonblocking join under way.

    Attributes:
        root: In state P.
        leg: In state N.
        listener: The leaf that has been asked.
        watch: Events of the root.
        callee: Where callee data go.
    """

    root: int
    leg: int
    listener: int
    watch: Watch
    callee: Wsabuf


def pending(world: World, room: int = 64) -> Pending:
    root, listener, callee = world.root(), world.listener(), Wsabuf(room)
    watch = world.watch(root)
    leg = world.join(root, world.local(listener), callee=callee)
    return Pending(root, leg, listener, watch, callee)


def test_n1_a_started_join_gives_a_descriptor_at_once(rooted: World) -> None:
    root, listener = rooted.root(bound=False, listening=False), rooted.listener()
    event = rooted.objects.create_event()
    rooted.call("WSPEventSelect", root, event, c.FD_ALL_EVENTS)
    leg = rooted.join(root, rooted.local(listener))
    assert leg != root
    assert rooted.local(root)
    assert Watch(rooted, leg, event).enumerate() == {}


def test_n2_acceptance_writes_data_then_tells_then_makes_writable(rooted: World) -> None:
    one = pending(rooted)
    rooted.accept(one.listener, Condition(data=b"yo"))
    assert one.watch.wait(c.FD_CONNECT) == 0
    assert one.callee.data == b"yo"
    assert rooted.peer(one.leg) == rooted.local(one.listener)
    assert one.watch.wait(c.FD_WRITE) == 0


@pytest.mark.parametrize("why", ["refused", "unreachable", "timed out", "too long"])
def test_n3_a_failed_join_makes_the_leg_useless(rooted: World, why: str) -> None:
    root, listener, callee = rooted.root(), rooted.listener(), Wsabuf(4)
    watch = rooted.watch(root)
    name = rooted.unreachable() if why == "unreachable" else rooted.local(listener)
    rooted.provider.join_timeout = SHORT if why == "timed out" else None
    leg = rooted.join(root, name, callee=callee)
    if why == "refused":
        reject(rooted, listener)
    elif why == "too long":
        rooted.accept(listener, Condition(data=b"longer than that"))
    expected = {
        "refused": codes.WSAECONNREFUSED,
        "unreachable": codes.WSAENETUNREACH,
        "timed out": codes.WSAETIMEDOUT,
        "too long": codes.WSAEFAULT,
    }[why]
    assert watch.wait(c.FD_CONNECT) == expected
    assert rooted.option(root, c.SO_ERROR) == expected
    assert rooted.option(root, c.SO_ERROR) == 0
    assert callee.len == 0
    assert rooted.receive_code(leg) == codes.WSAENOTCONN
    rooted.close(leg)


def test_n4_another_join_is_refused_and_disturbs_nothing(rooted: World) -> None:
    one = pending(rooted)
    assert rooted.refusal(one.root, rooted.nobody()) == codes.WSAEALREADY
    rooted.accept(one.listener)
    assert one.watch.wait(c.FD_CONNECT) == 0


def test_n5_closing_the_new_socket_cancels_in_silence(rooted: World) -> None:
    one = pending(rooted)
    rooted.close(one.leg)
    assert one.watch.silent(c.FD_CONNECT)
    assert rooted.code("WSPCloseSocket", one.leg) == codes.WSAENOTSOCK


def test_n6_closing_the_root_leaves_the_new_socket_failed(rooted: World) -> None:
    one = pending(rooted)
    event = one.watch.event
    rooted.close(one.root)
    assert rooted.receive_code(one.leg) == codes.WSAENOTCONN
    assert Watch(rooted, one.leg, event).silent(c.FD_CLOSE)
    rooted.close(one.leg)


def test_n8_a_new_registration_gets_the_coming_event(rooted: World) -> None:
    one = pending(rooted)
    again = rooted.watch(one.root, c.FD_CONNECT)
    rooted.accept(one.listener)
    assert again.wait(c.FD_CONNECT) == 0
    window = rooted.objects.create_window()
    two = pending(rooted)
    rooted.call("WSPAsyncSelect", two.root, window, 0x410, c.FD_CONNECT)
    rooted.accept(two.listener)
    message = rooted.objects.get_message(window, 10)
    assert message is not None
    assert (message.wparam, message.event) == (two.root, c.FD_CONNECT)
    assert not rooted.objects.is_set(two.watch.event)


def test_n9_select_says_nothing_of_the_join(rooted: World) -> None:
    one = pending(rooted)
    assert rooted.select(one.root, one.leg) == ([], [], [])
    reject(rooted, one.listener)
    assert one.watch.wait(c.FD_CONNECT) == codes.WSAECONNREFUSED
    _, writing, failing = rooted.select(one.root, one.leg)
    assert (one.root in writing, failing) == (False, [])


def test_n10_incoming_requests_are_served_meanwhile(rooted: World) -> None:
    one = pending(rooted)
    leaf = rooted.leaf()
    rooted.nonblocking(leaf)
    rooted.join(leaf, rooted.local(one.root))
    accept_soon(rooted, one.root)
    assert rooted.refusal(one.root, rooted.nobody()) == codes.WSAEALREADY
    rooted.accept(one.listener)
    assert one.watch.wait(c.FD_CONNECT) == 0


def test_n11_blocking_mode_does_not_make_the_join_wait(rooted: World) -> None:
    root, listener = rooted.root(), rooted.listener()
    rooted.nonblocking(root)
    rooted.join(root, rooted.local(listener))
    rooted.fionbio(root, 0)
    rooted.accept(listener)
    assert rooted.watch(root, c.FD_CONNECT).wait(c.FD_CONNECT) == 0


@pytest.mark.parametrize("before", ["accepted", "refused", "cancelled"])
def test_n12_fd_connect_is_armed_again(rooted: World, before: str) -> None:
    one = pending(rooted)
    if before == "cancelled":
        rooted.close(one.leg)
    else:
        rooted.accept(one.listener) if before == "accepted" else reject(rooted, one.listener)
        one.watch.wait(c.FD_CONNECT)
    other = rooted.listener()
    assert rooted.join(one.root, rooted.local(other)) not in (one.root, one.leg)
    rooted.accept(other)
    assert one.watch.wait(c.FD_CONNECT) == 0


def test_n13_an_unread_outcome_is_overwritten_by_the_next(rooted: World) -> None:
    one = pending(rooted)
    reject(rooted, one.listener)
    assert rooted.objects.wait(one.watch.event, 10)
    other = rooted.listener()
    rooted.join(one.root, rooted.local(other))
    rooted.accept(other)
    rooted.wait_for_leaves(one.root)
    assert one.watch.enumerate()[c.FD_CONNECT] == 0


@pytest.mark.parametrize("code", [0, codes.WSAECONNREFUSED])
def test_n14_a_late_registration_gets_the_unreported_outcome(rooted: World, code: int) -> None:
    root, listener = rooted.root(), rooted.listener()
    rooted.nonblocking(root)
    rooted.join(root, rooted.local(listener))
    reject(rooted, listener) if code else rooted.accept(listener)
    assert rooted.watch(root, c.FD_CONNECT).wait(c.FD_CONNECT) == code


# -- 6.7: the new socket ----------------------------------------------------------------------


def leg_in(world: World, state: str) -> tuple[int, int, int]:
    """A leg in a state, its root, and a socket of the leaf's side."""
    if state == "A":
        pair = world.invite(world.root(), world.listener())
        return pair.leg, pair.root, pair.leaf
    if state == "X":
        pair = world.invite(world.root(), world.listener())
        watch = world.watch(pair.leg, c.FD_CLOSE)
        world.close(pair.leaf)
        assert watch.wait(c.FD_CLOSE) == 0
        return pair.leg, pair.root, world.listener()
    one = pending(world)
    if state == "F":
        reject(world, one.listener)
        assert one.watch.wait(c.FD_CONNECT) == codes.WSAECONNREFUSED
    return one.leg, one.root, one.listener


def calls_for(world: World, group: str, leg: int) -> list[tuple[Any, ...]]:
    """The calls of one row of the table."""
    name = world.nobody()
    place = (bytearray(300), Cell(300))
    buffers: tuple[Any, ...] = ([Wsabuf(16)], 1, Cell(), Cell(0))
    event = world.objects.create_event()
    rows: dict[str, list[tuple[Any, ...]]] = {
        "close": [("WSPCloseSocket", leg)],
        "send": [
            ("WSPSend", leg, *SENDING),
            ("WSPSendTo", leg, *SENDING[:4], None, 0, None, None, None),
        ],
        "receive": [
            ("WSPRecv", leg, *buffers, None, None, None),
            ("WSPRecvFrom", leg, *buffers, None, None, None, None, None),
        ],
        "shutdown": [
            ("WSPShutdown", leg, c.SD_RECEIVE),
            ("WSPSendDisconnect", leg, None),
        ],
        "fetch": [("WSPRecvDisconnect", leg, None)],
        "peer": [("WSPGetPeerName", leg, *place)],
        "name": [("WSPGetSockName", leg, *place)],
        "join": [("WSPJoinLeaf", leg, name, len(name), None, None, None, None, c.JL_BOTH)],
        "connect": [("WSPConnect", leg, name, len(name), None, None, None, None)],
        "listen": [
            ("WSPListen", leg, 5),
            ("WSPAccept", leg, None, None, None, 0),
            ("WSPBind", leg, name, len(name)),
        ],
        "register": [
            ("WSPEventSelect", leg, event, c.FD_CLOSE),
            ("WSPAsyncSelect", leg, world.objects.create_window(), 0x400, c.FD_CLOSE),
        ],
        "enumerate": [("WSPEnumNetworkEvents", leg, None, Cell())],
        "options": [
            ("WSPGetSockOpt", leg, c.SOL_SOCKET, c.SO_LINGER, bytearray(4), Cell(4)),
            ("WSPSetSockOpt", leg, c.SOL_SOCKET, c.SO_LINGER, bytes(4), 4),
            ("WSPIoctl", leg, c.FIONBIO, b"\1\0\0\0", 4, None, 0, Cell(), None, None, None),
        ],
        "error": [("WSPGetSockOpt", leg, c.SOL_SOCKET, c.SO_ERROR, bytearray(4), Cell(4))],
    }
    return rows[group]


NOTCONN, INVAL = {codes.WSAENOTCONN}, {codes.WSAEINVAL}
OK: set[int] = {0}
ENDED = {codes.WSAEDISCON, codes.WSAENOTCONN}
GONE = {codes.WSAESHUTDOWN, codes.WSAECONNRESET, codes.WSAENOTCONN}
TABLE = {
    "close": {"N": OK, "A": OK, "F": OK, "X": OK},
    "send": {"N": NOTCONN, "A": OK, "F": NOTCONN, "X": GONE - NOTCONN},
    "receive": {"N": NOTCONN, "A": {codes.WSAEWOULDBLOCK}, "F": NOTCONN, "X": ENDED - NOTCONN},
    "shutdown": {"N": NOTCONN, "A": OK, "F": NOTCONN, "X": NOTCONN},
    # After an end too: how else would a client fetch what came with it (5.9)?
    "fetch": {"N": NOTCONN, "A": OK, "F": NOTCONN, "X": OK},
    "peer": {"N": NOTCONN, "A": OK, "F": NOTCONN, "X": OK},
    "name": {"N": OK, "A": OK, "F": OK, "X": OK},
    "join": {"N": {codes.WSAEALREADY}, "A": {codes.WSAEISCONN}, "F": INVAL, "X": INVAL},
    "connect": {"N": {codes.WSAEALREADY}, "A": {codes.WSAEISCONN}, "F": INVAL, "X": INVAL},
    "listen": {"N": INVAL, "A": INVAL, "F": INVAL, "X": INVAL},
    "register": {"N": INVAL, "A": OK, "F": OK, "X": OK},
    "enumerate": {"N": OK, "A": OK, "F": OK, "X": OK},
    "options": {"N": INVAL, "A": OK, "F": INVAL, "X": INVAL},
    "error": {"N": INVAL, "A": OK, "F": OK, "X": OK},
}


def check_cell(world: World, row: str, state: str) -> None:
    """Every call of a row in a state."""
    leg, root, _ = leg_in(world, state)
    if state == "A":
        world.nonblocking(leg)
    for call in calls_for(world, row, leg):
        code = world.code(*call)
        assert code in TABLE[row][state], f"{call[0]} in state {state}: {code}"
        if row == "shutdown" and state == "A":  # each leaves the leg in another state
            leg, root, _ = leg_in(world, state)
    if row == "name":
        assert world.local(leg)[:2] == world.local(root)[:2]


def cell(row: str) -> Any:
    """The test of one row, in each of its four states."""

    @pytest.mark.parametrize("state", ["N", "A", "F", "X"])
    def test(rooted: World, state: str) -> None:
        check_cell(rooted, row, state)

    return test


test_closing_the_new_socket_always_works = cell("close")
test_sending_on_the_new_socket_is_for_its_leaf_alone = cell("send")
test_receiving_on_the_new_socket_is_from_its_leaf_alone = cell("receive")
test_shutting_the_new_socket_down_takes_a_leg = cell("shutdown")
test_disconnect_data_can_be_fetched_from_a_leg = cell("fetch")
test_the_new_socket_has_a_peer_once_it_is_a_leg = cell("peer")
test_the_new_socket_has_the_name_of_the_root = cell("name")
test_the_new_socket_joins_nobody = cell("join")
test_the_new_socket_connects_to_nobody = cell("connect")
test_the_new_socket_neither_listens_accepts_nor_binds = cell("listen")
test_the_new_socket_is_registered_once_usable = cell("register")
test_the_new_socket_always_has_an_event_record = cell("enumerate")
test_the_new_socket_has_options_while_a_leg = cell("options")
test_the_new_socket_tells_its_error = cell("error")


def test_closing_a_leg_that_is_active_tells_its_leaf(rooted: World) -> None:
    leg, _, leaf = leg_in(rooted, "A")
    watch = rooted.watch(leaf, c.FD_CLOSE)
    rooted.close(leg)
    assert watch.wait(c.FD_CLOSE) == 0


def test_legs_of_one_root_share_its_name(rooted: World) -> None:
    root = rooted.root()
    legs = [rooted.invite(root, rooted.listener()).leg for _ in range(2)]
    assert {rooted.local(leg) for leg in legs} == {rooted.local(root)}
    with pytest.raises(RefusedError):
        rooted.peer(root)


def test_a_pair_is_what_it_says(rooted: World) -> None:
    pair = rooted.pair()
    assert isinstance(pair, Pair)
    assert rooted.peer(pair.leaf) == rooted.local(pair.root)
