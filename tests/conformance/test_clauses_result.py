"""Clauses 18 to 32: the result, FD_CONNECT, and when a socket can join again."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conformance.world import SHORT, Condition, Starter, Task, World, qos

from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.winsock.types import INVALID_SOCKET


def parties(world: World, kind: str) -> tuple[int, int]:
    """A socket that joins, and the listening socket it asks: the "lossy link"."""
    if kind == "root":
        return world.root(), world.listener()
    return world.leaf(), world.root()


def reject(world: World, listener: int) -> None:
    assert world.code("WSPAccept", listener, None, None, Condition(c.CF_REJECT), 0) == (
        codes.WSAECONNREFUSED
    )


BOTH_KINDS = pytest.mark.parametrize("kind", ["root", "leaf"])


def test_success_is_the_descriptor_of_a_new_socket(rooted: World) -> None:
    root, listener = rooted.root(), rooted.listener()
    pair = rooted.invite(root, listener)
    assert pair.leg not in (root, INVALID_SOCKET)
    assert rooted.peer(pair.leg) == rooted.local(listener)
    rooted.close(pair.leg)


def test_failure_is_invalid_socket_with_the_specific_number(every: World) -> None:
    s = every.leaf()
    name = every.any_address()
    # ``call`` compares with INVALID_SOCKET and the sentinel.
    assert every.refusal(s, name) == codes.WSAEADDRNOTAVAIL
    assert every.refusal(INVALID_SOCKET, name) == codes.WSAENOTSOCK


@BOTH_KINDS
def test_a_blocking_join_returns_with_the_outcome_and_not_before(rooted: World, kind: str) -> None:
    s, listener = parties(rooted, kind)
    name = rooted.local(listener)
    asking = Task(lambda: rooted.join(s, name))
    assert asking.lasts(4 * SHORT), "returned before the answer"
    rooted.accept(listener)
    assert asking.result() != INVALID_SOCKET


@BOTH_KINDS
def test_a_blocking_join_that_is_refused_fails_by_its_result(rooted: World, kind: str) -> None:
    s, listener = parties(rooted, kind)
    name = rooted.local(listener)
    asking = Task(lambda: rooted.join(s, name))
    reject(rooted, listener)
    assert asking.code() == codes.WSAECONNREFUSED


@BOTH_KINDS
def test_a_nonblocking_join_is_started_and_returns_at_once(rooted: World, kind: str) -> None:
    s, listener = parties(rooted, kind)
    rooted.nonblocking(s)
    made = rooted.join(s, rooted.local(listener))  # nobody answers: it cannot have waited
    assert (made == s) == (kind == "leaf")


@BOTH_KINDS
def test_fd_connect_tells_of_success(rooted: World, kind: str) -> None:
    s, listener = parties(rooted, kind)
    watch = rooted.watch(s, c.FD_CONNECT)
    rooted.join(s, rooted.local(listener))
    assert watch.silent(c.FD_CONNECT)
    rooted.accept(listener)
    assert watch.wait(c.FD_CONNECT) == 0


def test_fd_connect_tells_of_success_in_a_nonrooted_session(group: World) -> None:
    s = group.leaf()
    watch = group.watch(s, c.FD_CONNECT)
    assert group.join(s, group.session()) == s
    assert watch.wait(c.FD_CONNECT) == 0


@BOTH_KINDS
def test_fd_connect_tells_of_failure(rooted: World, kind: str) -> None:
    s, listener = parties(rooted, kind)
    watch = rooted.watch(s, c.FD_CONNECT)
    rooted.join(s, rooted.local(listener))
    reject(rooted, listener)
    assert watch.wait(c.FD_CONNECT) == codes.WSAECONNREFUSED


@BOTH_KINDS
def test_the_code_of_fd_connect_is_the_reason(rooted: World, kind: str) -> None:
    s, listener = parties(rooted, kind)
    watch = rooted.watch(s, c.FD_CONNECT)
    rooted.provider.join_timeout = SHORT
    rooted.join(s, rooted.local(listener))
    assert watch.wait(c.FD_CONNECT) == codes.WSAETIMEDOUT
    rooted.provider.join_timeout = None
    rooted.join(s, rooted.unreachable())
    assert watch.wait(c.FD_CONNECT) == codes.WSAENETUNREACH
    rooted.join(s, rooted.nobody())
    assert watch.wait(c.FD_CONNECT) == codes.WSAECONNREFUSED


@BOTH_KINDS
def test_the_high_word_of_a_message_is_the_reason(rooted: World, kind: str) -> None:
    s, _ = parties(rooted, kind)
    window = rooted.objects.create_window()
    rooted.call("WSPAsyncSelect", s, window, 0x400, c.FD_CONNECT)
    rooted.join(s, rooted.nobody())
    message = rooted.objects.get_message(window, 10)
    assert message is not None
    assert (message.msg, message.wparam) == (0x400, s)
    assert (message.event, message.error) == (c.FD_CONNECT, codes.WSAECONNREFUSED)


@BOTH_KINDS
def test_while_a_join_is_pending_every_other_is_refused(rooted: World, kind: str) -> None:
    s, listener = parties(rooted, kind)
    name = rooted.local(listener)
    watch = rooted.watch(s, c.FD_CONNECT)
    rooted.join(s, name)
    others: list[tuple[Any, dict[str, Any]]] = [
        (name, {}),
        (rooted.nobody(), {}),
        (None, {"namelen": 0}),
        (name, {"flags": 77}),
        (name, {"namelen": 1, "sqos": qos()}),
    ]
    for other, how in others:
        assert rooted.refusal(s, other, **how) == codes.WSAEALREADY
    rooted.accept(listener)
    assert watch.wait(c.FD_CONNECT) == 0


def test_a_member_that_joins_again_is_connected_already(rooted: World) -> None:
    pair = rooted.pair()
    for name in (rooted.local(pair.root), rooted.nobody()):
        assert rooted.refusal(pair.leaf, name) == codes.WSAEISCONN


def test_a_member_of_a_nonrooted_session_cannot_join_again(group: World) -> None:
    name = group.session()
    s = group.member(name)
    assert group.refusal(s, name) == codes.WSAEISCONN
    assert group.refusal(s, group.session()) == codes.WSAEISCONN


def test_a_root_may_join_one_leaf_after_the_other(rooted: World) -> None:
    root = rooted.root()
    first = rooted.invite(root, rooted.listener())
    second = rooted.invite(root, rooted.listener())
    assert len({root, first.leg, second.leg}) == 3
    rooted.send(root, b"both")
    assert rooted.receive(first.leaf) == rooted.receive(second.leaf) == b"both"


def test_a_root_may_start_the_next_join_once_the_prior_one_is_complete(rooted: World) -> None:
    root, first, second = rooted.root(), rooted.listener(), rooted.listener()
    watch = rooted.watch(root, c.FD_CONNECT)
    rooted.join(root, rooted.local(first))
    assert rooted.refusal(root, rooted.local(second)) == codes.WSAEALREADY
    rooted.accept(first)
    assert watch.wait(c.FD_CONNECT) == 0
    rooted.join(root, rooted.local(second))
    rooted.accept(second)
    assert watch.wait(c.FD_CONNECT) == 0


@BOTH_KINDS
@pytest.mark.parametrize("blocking", [True, False])
def test_after_a_refusal_the_same_socket_may_join_again(
    rooted: World, kind: str, blocking: bool
) -> None:
    s, listener = parties(rooted, kind)
    again(rooted, s, listener, rooted.nobody(), codes.WSAECONNREFUSED, blocking=blocking)


@BOTH_KINDS
@pytest.mark.parametrize("blocking", [True, False])
def test_after_an_unreachable_network_the_same_socket_may_join_again(
    rooted: World, kind: str, blocking: bool
) -> None:
    s, listener = parties(rooted, kind)
    again(rooted, s, listener, rooted.unreachable(), codes.WSAENETUNREACH, blocking=blocking)


@BOTH_KINDS
@pytest.mark.parametrize("blocking", [True, False])
def test_after_a_time_out_the_same_socket_may_join_again(
    scheme: str, start: Starter, kind: str, blocking: bool
) -> None:
    world = start(scheme)
    s, listener = parties(world, kind)
    silent = world.listener() if kind == "root" else world.root()
    world.provider.join_timeout = SHORT
    again(world, s, listener, world.local(silent), codes.WSAETIMEDOUT, blocking=blocking)


def again(world: World, s: int, listener: int, bad: bytes, code: int, *, blocking: bool) -> None:
    """Fail once, then get in."""
    name = world.local(listener)
    if blocking:
        assert world.refusal(s, bad) == code
        world.provider.join_timeout = None
        asking = Task(lambda: world.join(s, name))
        world.accept(listener)
        asking.result()
        return
    watch = world.watch(s, c.FD_CONNECT)
    world.join(s, bad)
    assert watch.wait(c.FD_CONNECT) == code
    world.provider.join_timeout = None
    world.join(s, name)
    world.accept(listener)
    assert watch.wait(c.FD_CONNECT) == 0
