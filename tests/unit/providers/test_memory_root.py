"""The c_root in mem: tables 6.1 (R), 6.2 (N) and 6.7 of the model, row by row."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from joinleaf.errors import SpiError
from joinleaf.providers.memory import Link
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.provider import Accept, Endpoint, EndReason, Reject, Roles, Settings
from joinleaf.values import Address

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.providers.conftest import World

PATIENCE = 10.0


def code_of(call: Callable[[], object]) -> int:
    """The number a call is refused with."""
    with pytest.raises(SpiError) as refusal:
        call()
    return refusal.value.code


def calling_root(world: World) -> Endpoint:
    """A c_root that does not listen."""
    return world.open(Roles(c_root=True, d_root=True))


# 6.1, blocking


def test_r1_r2_an_invitation_binds_carries_data_and_yields_a_leg(world: World) -> None:
    root, listener = calling_root(world), world.listener()
    inviting = world.run(
        lambda: root.join_leaf(listener.local_address, caller_data=b"hi", timeout=PATIENCE)
    )
    member = listener.accept(lambda asked: Accept(b"yo " + asked.data), timeout=PATIENCE)
    joined = inviting.result()
    world.opened += [member, joined.endpoint]
    assert joined.data == b"yo hi"
    assert joined.endpoint not in (root, listener, member)
    assert joined.endpoint.peer_address == listener.local_address
    assert root.local_address == joined.endpoint.local_address == member.peer_address
    root.send_many([b"x"])
    assert member.receive_many(timeout=0).messages == [b"x"]


def test_r3_a_refused_invitation_leaves_nothing_and_may_be_repeated(world: World) -> None:
    root, listener = calling_root(world), world.listener()
    inviting = world.run(lambda: root.join_leaf(listener.local_address, timeout=PATIENCE))
    reject = Reject(b"no", "go away")
    assert code_of(lambda: listener.accept(lambda _: reject, timeout=PATIENCE)) == 10061
    with pytest.raises(SpiError, match="go away") as refusal:
        inviting.result()
    assert (refusal.value.code, refusal.value.data) == (10061, b"no")
    assert root.statistics()["leaves"] == 0
    world.invite(root, listener)
    assert root.statistics()["leaves"] == 1


def test_r3_nobody_listening_refuses(world: World) -> None:
    root = calling_root(world)
    assert code_of(lambda: root.join_leaf(Address("nowhere"))) == codes.WSAECONNREFUSED


def test_r3_a_full_backlog_refuses(world: World) -> None:
    listener = world.listener()
    listener.listen(1)
    first, second = calling_root(world), calling_root(world)
    first.start_join_leaf(listener.local_address)
    assert code_of(lambda: second.join_leaf(listener.local_address)) == codes.WSAECONNREFUSED
    assert listener.statistics()["backlog_full"] == 1


def test_r4_no_route_is_told_and_can_pass(world: World) -> None:
    root, listener = calling_root(world), world.listener()
    world.faults.set_route(listener.local_address, exists=False)
    assert code_of(lambda: root.join_leaf(listener.local_address)) == codes.WSAENETUNREACH
    world.faults.set_route(listener.local_address, exists=True)
    world.invite(root, listener)


def test_r5_a_deadline_withdraws_and_the_late_accept_is_told(world: World) -> None:
    root, listener = calling_root(world), world.listener()
    start = time.monotonic()
    assert code_of(lambda: root.join_leaf(listener.local_address, timeout=0.02)) == 10060
    assert time.monotonic() - start >= 0.02
    assert code_of(lambda: listener.accept(timeout=0)) == codes.WSAEACCES
    assert code_of(lambda: listener.accept(timeout=0)) == codes.WSAEWOULDBLOCK
    world.invite(root, listener)


def test_r6_a_cancelled_invitation_leaves_the_root_usable(world: World) -> None:
    root, listener = calling_root(world), world.listener()
    inviting = world.run(lambda: root.join_leaf(listener.local_address))
    while inviting.is_running:
        root.cancel()
    assert code_of(inviting.result) == codes.WSAEINTR
    # It was cancelled before or after it reached the listener.
    assert code_of(lambda: listener.accept(timeout=0)) in (codes.WSAEACCES, codes.WSAEWOULDBLOCK)
    assert code_of(lambda: listener.accept(timeout=0)) == codes.WSAEWOULDBLOCK
    world.invite(root, listener)


def test_r6_an_acceptance_that_comes_too_late_is_ended(world: World) -> None:
    root, listener = calling_root(world), world.listener()
    world.faults.answers = Link.HOLD
    inviting = world.run(lambda: root.join_leaf(listener.local_address))
    member = listener.accept(timeout=PATIENCE)
    world.opened.append(member)
    while inviting.is_running:
        root.cancel()
    assert code_of(inviting.result) == codes.WSAEINTR
    (event,) = world.of(member, c.FD_CLOSE)
    assert event.reason is EndReason.WITHDRAWN
    assert world.faults.release() == 1
    assert root.statistics()["leaves"] == 0


def test_r7_r8_while_inviting_others_may_not_but_data_go_on(world: World) -> None:
    root, listener = world.root(), world.listener()
    leaf = world.leaf()
    world.admit(root, leaf)
    inviting = world.run(lambda: root.join_leaf(listener.local_address, timeout=PATIENCE))
    wait_for(lambda: world.of(listener, c.FD_ACCEPT))
    assert code_of(lambda: root.join_leaf(Address("other"))) == codes.WSAEALREADY
    root.send_many([b"down"])
    leaf.send_many([b"up"])
    assert leaf.receive_many(timeout=0).messages == [b"down"]
    assert root.receive_many(timeout=0).messages == [b"up"]
    world.opened.append(listener.accept(timeout=0))
    world.opened.append(inviting.result().endpoint)


def wait_for(condition: Callable[[], object]) -> None:
    """Wait for what another thread does."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_r9_closing_ends_a_blocked_invitation_and_the_session(world: World) -> None:
    root, listener, leaf = world.root(), world.listener(), world.leaf()
    world.admit(root, leaf)
    inviting = world.run(lambda: root.join_leaf(listener.local_address))
    wait_for(lambda: world.of(listener, c.FD_ACCEPT))
    root.close()
    assert code_of(inviting.result) == codes.WSAEINTR
    assert world.of(leaf, c.FD_CLOSE)[0].reason is EndReason.DISSOLVED


def test_r10_r11_r12_a_listening_root_invites_and_admits_again_and_again(world: World) -> None:
    root = world.root()
    leaves = [world.leaf() for _ in range(2)]
    world.admit(root, leaves[0])
    members = [world.invite(root, world.listener())[1] for _ in range(2)]
    world.admit(root, leaves[1])
    root.send_many([b"all"])
    for leaf in (*leaves, *members):
        assert leaf.receive_many(timeout=0).messages == [b"all"]
    assert root.statistics()["leaves"] == 4


def test_r13_a_dissolved_root_neither_invites_nor_listens(world: World) -> None:
    root, listener = world.root(), world.listener()
    root.shutdown(c.SD_SEND)
    assert code_of(lambda: root.join_leaf(listener.local_address)) == codes.WSAEINVAL
    assert code_of(root.listen) == codes.WSAEINVAL


# 6.2, nonblocking


def test_n1_n2_a_started_invitation_is_reported_on_the_root_only(world: World) -> None:
    root, listener = calling_root(world), world.listener()
    leg = root.start_join_leaf(listener.local_address)
    assert root.local_address == leg.local_address
    member = listener.accept(lambda _: Accept(b"callee"), timeout=0)
    world.opened += [leg, member]
    assert [event.kind for event in world.of(root)] == [c.FD_CONNECT, c.FD_WRITE]
    assert world.of(root, c.FD_CONNECT)[0].code == 0
    assert world.of(leg) == []
    assert root.join_result().endpoint is leg
    assert root.join_result().data == b"callee"


@pytest.mark.parametrize(
    ("link", "code"), [(Link.REFUSE, codes.WSAECONNREFUSED), (Link.DROP, codes.WSAETIMEDOUT)]
)
def test_n3_a_failed_invitation_is_reported_and_its_leg_is_only_closed(
    world: World, link: Link, code: int
) -> None:
    root, listener = calling_root(world), world.listener()
    world.faults.requests = link
    leg = root.start_join_leaf(listener.local_address, timeout=0.01)
    wait_for(lambda: world.of(root, c.FD_CONNECT))
    assert [event.code for event in world.of(root)] == [code]
    assert root.get_option(c.SO_ERROR) == code
    assert root.get_option(c.SO_ERROR) == 0
    assert code_of(root.join_result) == code
    assert code_of(lambda: leg.send_many([b"x"])) == codes.WSAENOTCONN
    assert code_of(lambda: leg.join_leaf(Address("x"))) == codes.WSAEINVAL
    leg.close()
    world.faults.requests = Link.PASS
    world.invite(root, listener)


def test_n3_no_route_is_reported_not_raised(world: World) -> None:
    root = calling_root(world)
    world.faults.set_route(Address("far"), exists=False)
    world.opened.append(root.start_join_leaf(Address("far")))
    assert [event.code for event in world.of(root)] == [codes.WSAENETUNREACH]


def test_n4_n5_a_second_start_is_refused_until_the_leg_is_closed(world: World) -> None:
    root, listener = calling_root(world), world.listener()
    leg = root.start_join_leaf(listener.local_address)
    for address in (listener.local_address, Address("other"), Address("")):
        assert code_of(lambda a=address: root.start_join_leaf(a)) == 10037  # type: ignore[misc]  # bound now
    leg.close()
    assert code_of(lambda: listener.accept(timeout=0)) == codes.WSAECONNRESET
    _, member = world.invite(root, listener)
    assert [event.code for event in world.of(root, c.FD_CONNECT)] == [0]
    assert member.session_id == root.session_id


def test_n5_an_answer_under_way_when_the_leg_is_closed_makes_no_member(world: World) -> None:
    root, listener = calling_root(world), world.listener()
    world.faults.answers = Link.HOLD
    leg = root.start_join_leaf(listener.local_address)
    member = listener.accept(timeout=0)
    world.opened.append(member)
    leg.close()
    world.faults.release()
    assert world.of(root, c.FD_CONNECT) == []
    assert world.of(member, c.FD_CLOSE)[0].reason is EndReason.WITHDRAWN
    assert code_of(lambda: root.send_many([b"x"])) == codes.WSAENOTCONN


def test_n6_closing_the_root_cancels_and_fails_the_pending_leg_silently(world: World) -> None:
    root, listener = calling_root(world), world.listener()
    leg = root.start_join_leaf(listener.local_address)
    world.opened.append(leg)
    root.close()
    assert world.of(leg) == []
    assert code_of(lambda: leg.receive_many(timeout=0)) == codes.WSAENOTCONN
    assert code_of(lambda: listener.accept(timeout=0)) == codes.WSAECONNRESET


def test_n7_a_pending_leg_does_nothing_but_close(world: World) -> None:
    root, listener = calling_root(world), world.listener()
    leg = root.start_join_leaf(listener.local_address)
    world.opened.append(leg)
    refusals: dict[int, list[Callable[[], object]]] = {
        codes.WSAENOTCONN: [
            lambda: leg.send_many([b"x"]),
            lambda: leg.receive_many(timeout=0),
            lambda: leg.shutdown(c.SD_SEND),
            lambda: leg.peer_address,
        ],
        codes.WSAEALREADY: [lambda: leg.join_leaf(Address("x"))],
        codes.WSAEINVAL: [
            leg.listen,
            leg.accept,
            lambda: leg.bind(Address("x")),
            lambda: leg.get_option(c.SO_REUSEADDR),
            lambda: leg.set_option(c.SO_REUSEADDR, True),
            lambda: leg.ioctl(c.FIONREAD),
        ],
    }
    for code, calls in refusals.items():
        assert [code_of(call) for call in calls] == [code] * len(calls)
    assert leg.local_address == root.local_address


def test_n8_the_outcome_goes_to_whoever_subscribed_last(world: World) -> None:
    root, listener = calling_root(world), world.listener()
    world.opened.append(root.start_join_leaf(listener.local_address))
    later: list[int] = []
    root.subscribe(lambda _, event: later.append(event.kind))
    world.opened.append(listener.accept(timeout=0))
    assert later[0] == c.FD_CONNECT
    assert world.of(root) == []


def test_n10_a_root_with_a_pending_invitation_admits_leaves(world: World) -> None:
    root, listener, leaf = world.root(), world.listener(), world.leaf()
    world.opened.append(root.start_join_leaf(listener.local_address))
    world.admit(root, leaf)
    assert code_of(root.join_result) == codes.WSAEALREADY
    root.send_many([b"x"])
    assert leaf.receive_many(timeout=0).messages == [b"x"]


def test_n12_n13_each_start_arms_the_report_again(world: World) -> None:
    root = calling_root(world)
    for _ in range(3):
        world.invite(root, world.listener())
    assert [event.code for event in world.of(root, c.FD_CONNECT)] == [0, 0, 0]


def test_n14_an_outcome_nobody_was_told_of_is_told_to_a_late_subscriber(world: World) -> None:
    root, listener = calling_root(world), world.listener()
    root.subscribe(None)
    world.invite(root, listener)
    kinds: list[int] = []
    root.subscribe(lambda _, event: kinds.append(event.kind))
    assert kinds == [c.FD_CONNECT, c.FD_WRITE]
    root.subscribe(lambda _, event: kinds.append(event.kind))
    assert kinds == [c.FD_CONNECT, c.FD_WRITE, c.FD_WRITE]


# 6.7, the active and the ended leg


def test_an_active_leg_is_joined_already_and_cannot_listen(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    leg, _ = world.admit(root, leaf)
    assert code_of(lambda: leg.join_leaf(Address("x"))) == codes.WSAEISCONN
    for call in (leg.listen, leg.accept, lambda: leg.bind(Address("x"))):
        assert code_of(call) == codes.WSAEINVAL
    assert leg.peer_address == leaf.local_address
    assert leg.get_option(c.SO_TYPE) == c.SOCK_SEQPACKET


def test_an_ended_leg_keeps_its_peer_and_says_why(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    leg, _ = world.admit(root, leaf)
    was = leaf.local_address
    leaf.close(data=b"bye")
    assert leg.peer_address == was
    with pytest.raises(SpiError) as end:
        leg.receive_many(timeout=0)
    assert (end.value.code, end.value.reason, end.value.data) == (10101, "closed", b"bye")
    assert code_of(lambda: leg.send_many([b"x"])) == codes.WSAEDISCON
    assert code_of(lambda: leg.join_leaf(Address("x"))) == codes.WSAEINVAL


def test_a_leg_inherits_options_and_subscriber(world: World) -> None:
    root = world.root()
    root.set_option(c.SO_LINGER, (1, 5))
    leaf = world.leaf()
    leg, _ = world.admit(root, leaf)
    assert leg.get_option(c.SO_LINGER) == (1, 5)
    leaf.close()
    assert [event.kind for event in world.of(leg, c.FD_CLOSE)] == [c.FD_CLOSE]
    assert world.of(root, c.FD_CLOSE) == []


# Errors that come before anything else (5.6, steps 1 to 19)


def test_local_errors_are_raised_in_both_modes_and_change_nothing(world: World) -> None:
    root, listener = calling_root(world), world.listener()
    address = listener.local_address
    cases: list[tuple[Address, dict[str, Any], int]] = [
        (Address("192.0.2.1"), {}, codes.WSAEAFNOSUPPORT),
        (Address("x", 80), {}, codes.WSAEAFNOSUPPORT),
        (Address(""), {}, codes.WSAEADDRNOTAVAIL),
        (address, {"role": 3}, codes.WSAEINVAL),
        (address, {"role": 0}, codes.WSAEINVAL),
        (address, {"caller_data": bytes(65537)}, codes.WSAEFAULT),
    ]
    for join in (root.join_leaf, root.start_join_leaf):
        for name, options, code in cases:
            with pytest.raises(SpiError) as refusal:
                join(name, **options)
            assert refusal.value.code == code
    assert world.of(root) == []
    assert code_of(lambda: root.local_address) == codes.WSAEINVAL
    world.invite(root, listener, caller_data=bytes(65536))


def test_no_buffers_and_no_network_are_told_at_once(world: World) -> None:
    root, listener = calling_root(world), world.listener()
    world.faults.no_buffers = True
    assert code_of(lambda: root.start_join_leaf(listener.local_address)) == codes.WSAENOBUFS
    world.faults.network_down = True
    assert code_of(lambda: root.join_leaf(listener.local_address)) == codes.WSAENETDOWN
    assert code_of(lambda: listener.accept(timeout=0)) == codes.WSAENETDOWN
    world.faults.no_buffers = world.faults.network_down = False
    world.invite(root, listener)


def test_joining_from_inside_a_condition_function_is_refused(world: World) -> None:
    root, leaf, listener = world.root(), world.leaf(), world.listener()
    seen: list[int] = []

    def condition(_: object) -> Accept:
        seen.append(code_of(lambda: root.start_join_leaf(listener.local_address)))
        seen.append(code_of(lambda: root.accept(timeout=0)))
        return Accept()

    world.admit(root, leaf, condition)
    assert seen == [codes.WSAEINPROGRESS, codes.WSAEINPROGRESS]


def test_a_root_closed_while_deciding_refuses_the_asker(world: World) -> None:
    root, leaf = world.root(Settings()), world.leaf()
    leaf.start_join_leaf(root.local_address)

    def condition(_: object) -> Accept:
        root.close()
        return Accept()

    assert code_of(lambda: root.accept(condition, timeout=0)) == codes.WSAEINTR
    assert code_of(leaf.join_result) == codes.WSAECONNREFUSED
