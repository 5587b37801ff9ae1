"""WSPJoinLeaf and WSPAccept: the main paths, and the rows of the state tables."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

from joinleaf.providers.memory import Link
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.winsock import Cell, Wsabuf

BOUND = 5.0


def answering(data: bytes, verdict: int = c.CF_ACCEPT) -> Any:
    """A condition function that returns callee data."""

    def condition(*arguments: Any) -> int:
        answer = arguments[5]
        ctypes.memmove(answer.buf, data, len(data))
        answer.len = len(data)
        return verdict

    return condition


def test_a_blocking_join_moves_data_both_ways_and_gives_back_the_leaf(desk: Any) -> None:
    root, leaf = desk.root(), desk.leaf()
    seen: list[bytes] = []

    def condition(caller: Any, data: Any, *rest: Any) -> int:
        seen.append(data.data)
        answer = rest[3]
        ctypes.memmove(answer.buf, b"yo", 2)
        answer.len = 2
        return c.CF_ACCEPT

    thread = threading.Thread(target=lambda: desk.accept(root, condition))
    thread.start()
    name, callee = desk.name(root), Wsabuf(64)
    got = desk.call("WSPJoinLeaf", leaf, name, len(name), Wsabuf(b"hi"), callee, None, None, 4)
    thread.join(BOUND)
    assert (got, callee.data, seen) == (leaf, b"yo", [b"hi"])


def test_a_pending_join_refuses_every_other_whatever_its_parameters(desk: Any) -> None:
    root, leaf = desk.root(), desk.leaf()
    desk.nonblocking(leaf)
    name = desk.name(root)
    assert desk.join(leaf, name) == leaf
    assert desk.refused(leaf, name) == codes.WSAEALREADY
    assert desk.code("WSPJoinLeaf", leaf, None, -1, None, None, None, None, 9) == codes.WSAEALREADY
    assert desk.code("WSPConnect", leaf, name, len(name), None, None, None, None) == (
        codes.WSAEALREADY
    )
    assert desk.receive_code(leaf) == codes.WSAENOTCONN
    assert desk.code("WSPListen", leaf, 1) == codes.WSAEINVAL


def test_the_outcome_comes_after_the_callee_data_and_before_write(desk: Any) -> None:
    root, leaf = desk.root(), desk.leaf()
    event = desk.watch(leaf)
    callee = Wsabuf(8)
    name = desk.name(root)
    desk.join(leaf, name, callee)
    assert (callee.len, desk.record(leaf)) == (8, {})
    leg = desk.accept(root, answering(b"yes"))
    assert desk.await_event(leaf, event, c.FD_CONNECT) == 0
    assert callee.data == b"yes"
    assert leg != root
    assert desk.refused(leaf, name) == codes.WSAEISCONN


def test_an_answer_that_does_not_fit_fails_the_join_and_resets_the_leg(desk: Any) -> None:
    root, leaf = desk.root(), desk.leaf()
    event, at_root = desk.watch(leaf), desk.watch(root)
    callee = Wsabuf(2)
    name = desk.name(root)
    desk.join(leaf, name, callee)
    desk.await_event(root, at_root, c.FD_ACCEPT)
    leg = desk.accept(root, answering(b"long"))
    assert desk.await_event(leaf, event, c.FD_CONNECT) == codes.WSAEFAULT
    assert callee.len == 0
    assert desk.await_event(leg, at_root, c.FD_CLOSE) == codes.WSAECONNRESET
    desk.join(leaf, name)  # the leaf may try again
    desk.await_event(root, at_root, c.FD_ACCEPT)
    desk.accept(root)
    assert desk.await_event(leaf, event, c.FD_CONNECT) == 0


def test_an_invited_leaf_is_a_member_by_the_accepted_socket(desk: Any) -> None:
    root, listener = desk.root(), desk.listener()
    event = desk.watch(root, c.FD_CONNECT | c.FD_CLOSE)
    name = desk.name(listener)
    leg = desk.join(root, name)
    assert desk.refused(root, name) == codes.WSAEALREADY
    assert desk.code("WSPGetSockOpt", leg, c.SOL_SOCKET, c.SO_TYPE, Cell(), None) == codes.WSAEINVAL
    member = desk.accept(listener)
    assert desk.await_event(root, event, c.FD_CONNECT) == 0
    assert desk.record(leg) == {}
    assert desk.refused(leg, name) == codes.WSAEISCONN
    desk.send(root, b"to all")
    assert desk.receive(member) == b"to all"
    desk.call("WSPCloseSocket", member)
    assert desk.await_event(leg, event, c.FD_CLOSE) == 0


def test_closing_the_pending_leg_cancels_and_frees_the_root_for_the_next(desk: Any) -> None:
    root, listener = desk.root(), desk.listener()
    event = desk.watch(root, c.FD_CONNECT)
    name = desk.name(listener)
    desk.call("WSPCloseSocket", desk.join(root, name))
    assert desk.join(root, name) != root
    assert desk.record(root) == {}
    while True:  # the first request is gone, and says so
        error = Cell(0)
        if desk.provider.WSPAccept(listener, None, None, None, 0, error) < 1 << 40:
            break
        assert error.value in (codes.WSAECONNRESET, codes.WSAEACCES)
    assert desk.await_event(root, event, c.FD_CONNECT) == 0


def test_a_refusal_is_told_and_the_next_join_may_succeed(desk: Any) -> None:
    root, leaf = desk.root(), desk.leaf()
    event, at_root = desk.watch(leaf), desk.watch(root)
    name = desk.name(root)
    desk.join(leaf, name)
    desk.await_event(root, at_root, c.FD_ACCEPT)
    refuse = answering(b"no", c.CF_REJECT)
    assert desk.code("WSPAccept", root, None, None, refuse, 0) == codes.WSAECONNREFUSED
    assert desk.await_event(leaf, event, c.FD_CONNECT) == codes.WSAECONNREFUSED
    value = Cell()
    desk.call("WSPGetSockOpt", leaf, c.SOL_SOCKET, c.SO_ERROR, value, None)
    assert value.value == codes.WSAECONNREFUSED
    desk.join(leaf, name)
    desk.await_event(root, at_root, c.FD_ACCEPT)
    desk.accept(root)
    assert desk.await_event(leaf, event, c.FD_CONNECT) == 0


def test_a_deferred_request_stays_first_and_silences_accept(desk: Any) -> None:
    root, leaf = desk.root(), desk.leaf()
    event, at_root = desk.watch(leaf), desk.watch(root, c.FD_ACCEPT)
    desk.join(leaf, desk.name(root))
    desk.await_event(root, at_root, c.FD_ACCEPT)
    defer = answering(b"", c.CF_DEFER)
    place, length = bytearray(300), Cell(300)
    assert desk.code("WSPAccept", root, place, length, defer, 0) == codes.WSATRY_AGAIN
    assert length.value < 300, "the caller's address is told even so"
    assert desk.record(root) == {}
    desk.accept(root)
    assert desk.await_event(leaf, event, c.FD_CONNECT) == 0


def test_a_condition_function_may_answer_nothing_else_and_keeps_the_request(desk: Any) -> None:
    root, leaf = desk.root(), desk.leaf()
    at_root = desk.watch(root, c.FD_ACCEPT)
    desk.nonblocking(leaf)
    desk.join(leaf, desk.name(root))
    desk.await_event(root, at_root, c.FD_ACCEPT)
    assert desk.code("WSPAccept", root, None, None, lambda *_: 7, 0) == codes.WSAEINVAL
    assert desk.await_event(root, at_root, c.FD_ACCEPT) == 0
    desk.accept(root)


def test_nothing_may_be_called_from_a_condition_function(desk: Any) -> None:
    root, leaf = desk.root(), desk.leaf()
    at_root = desk.watch(root, c.FD_ACCEPT)
    desk.nonblocking(leaf)
    desk.join(leaf, desk.name(root))
    desk.await_event(root, at_root, c.FD_ACCEPT)
    found: list[int] = []

    def condition(*_: Any) -> int:
        found.append(desk.refused(leaf, b"xx"))
        found.append(desk.code("WSPCloseSocket", root))
        return c.CF_ACCEPT

    desk.accept(root, condition)
    assert found == [codes.WSAEINPROGRESS] * 2


def test_a_hook_runs_on_the_waiting_thread_and_may_cancel_a_join(desk: Any) -> None:
    root, listener = desk.root(), desk.listener()
    threads: list[int] = []

    def hook(_context: int) -> bool:
        threads.append(threading.get_ident())
        assert desk.code("WSPListen", root, 1) == codes.WSAEINPROGRESS
        desk.call("WSPCancelBlockingCall")
        return True

    desk.objects.thread().hook = hook
    try:
        assert desk.refused(root, desk.name(listener)) == codes.WSAEINTR
    finally:
        desk.objects.thread().hook = None
    assert threads == [threading.get_ident()]
    assert desk.code("WSPCancelBlockingCall") == codes.WSAEINVAL


def test_a_cancelled_leaf_is_broken_and_a_cancelled_root_is_not(desk: Any) -> None:
    root, listener, leaf = desk.root(), desk.listener(), desk.leaf()
    desk.objects.thread().hook = lambda _: False
    try:
        assert desk.refused(leaf, desk.name(root)) == codes.WSAEINTR
        assert desk.refused(root, desk.name(listener)) == codes.WSAEINTR
    finally:
        desk.objects.thread().hook = None
    assert desk.refused(leaf, desk.name(root)) == codes.WSAEINVAL
    desk.nonblocking(root)
    assert desk.join(root, desk.name(listener)) != root


def test_closing_from_another_thread_ends_a_blocked_join(desk: Any) -> None:
    root, leaf = desk.root(), desk.leaf()
    name = desk.name(root)
    found: list[int] = []
    event = desk.watch(root, c.FD_ACCEPT)
    thread = threading.Thread(target=lambda: found.append(desk.refused(leaf, name)))
    thread.start()
    desk.await_event(root, event, c.FD_ACCEPT)
    desk.call("WSPCloseSocket", leaf)
    thread.join(BOUND)
    assert found == [codes.WSAEINTR]


def test_a_silent_peer_lets_the_join_time_out(desk: Any) -> None:
    root, leaf = desk.root(), desk.leaf()
    desk.provider.join_timeout = 0.05
    assert desk.refused(leaf, desk.name(root)) == codes.WSAETIMEDOUT
    event = desk.watch(leaf)
    desk.join(leaf, desk.name(root))
    assert desk.await_event(leaf, event, c.FD_CONNECT) == codes.WSAETIMEDOUT


def test_a_failed_handle_undoes_the_join(desk: Any) -> None:
    root, listener = desk.root(), desk.listener()
    desk.upcalls.fail("WPUCreateSocketHandle", codes.WSAENOBUFS)
    desk.nonblocking(root)
    assert desk.refused(root, desk.name(listener)) == codes.WSAENOBUFS
    desk.upcalls.replace("WPUCreateSocketHandle", None)
    assert desk.join(root, desk.name(listener)) != root


def test_a_network_that_is_down_makes_no_handle(mem: Any) -> None:
    root, listener = mem.root(), mem.listener()
    name = mem.name(listener)
    before = mem.upcalls.calls["WPUCreateSocketHandle"]
    mem.seam.faults.network_down = True
    assert mem.refused(root, name) == codes.WSAENETDOWN
    mem.seam.faults.network_down = False
    assert mem.upcalls.calls["WPUCreateSocketHandle"] == before


def test_an_instant_refusal_still_comes_as_an_event(mem: Any) -> None:
    root, leaf = mem.root(), mem.leaf()
    event = mem.watch(leaf)
    mem.seam.faults.requests = Link.REFUSE
    assert mem.join(leaf, mem.name(root)) == leaf
    assert mem.await_event(leaf, event, c.FD_CONNECT) == codes.WSAECONNREFUSED
    mem.seam.faults.requests = Link.PASS


def test_an_outcome_nobody_heard_of_is_told_to_who_registers_later(desk: Any) -> None:
    root, listener = desk.root(), desk.listener()
    desk.nonblocking(root)
    desk.join(root, desk.name(listener))
    desk.accept(listener)
    event = desk.watch(root, c.FD_CONNECT)
    assert desk.await_event(root, event, c.FD_CONNECT) == 0


def test_select_says_nothing_of_a_join(desk: Any) -> None:
    root, leaf = desk.root(), desk.leaf()
    desk.nonblocking(leaf)
    desk.join(leaf, desk.name(root))
    sets = [leaf], [leaf], [leaf]
    assert desk.call("WSPSelect", 0, *sets, 0.0) == 0
    desk.provider.join_timeout = None
    sets = [root], [], []
    assert desk.call("WSPSelect", 0, *sets, BOUND) == 1
    assert sets[0] == [root]


def test_an_ordinary_socket_and_a_listening_leaf_join_nothing(desk: Any) -> None:
    root = desk.root()
    name = desk.name(root)
    assert desk.refused(desk.socket(0), name) == codes.WSAEINVAL
    assert desk.refused(desk.listener(), name) == codes.WSAEINVAL
    assert desk.code("WSPConnect", desk.leaf(), name, len(name), None, None, None, None) == (
        codes.WSAEOPNOTSUPP
    )
