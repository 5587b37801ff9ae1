"""c_leafs in mem: tables 6.3 (L), 6.4 (M), 6.5 (G) and 6.6 (H) of the model, row by row."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from joinleaf.errors import SpiError
from joinleaf.providers.memory import Link
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.provider import (
    DEFER,
    Accept,
    Condition,
    Endpoint,
    EndReason,
    JoinRequest,
    JoinRole,
    Reject,
    Roles,
    Settings,
)
from joinleaf.spi.qos import FlowSpec, Qos
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


def noting(seen: list[JoinRequest]) -> Condition:
    """A condition function that admits everybody and notes what it was shown."""

    def condition(request: JoinRequest) -> Accept:
        seen.append(request)
        return Accept()

    return condition


def wait_for(condition: Callable[[], object]) -> None:
    """Wait for what another thread does."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


# 6.3, rooted, blocking


def test_l1_l2_a_leaf_joins_as_itself_and_carries_data(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    assert code_of(lambda: leaf.local_address) == codes.WSAEINVAL
    joining = world.run(
        lambda: leaf.join_leaf(root.local_address, caller_data=b"hi", timeout=PATIENCE)
    )
    world.opened.append(root.accept(lambda asked: Accept(asked.data[::-1]), timeout=PATIENCE))
    joined = joining.result()
    assert joined.endpoint is leaf
    assert joined.data == b"ih"
    assert leaf.peer_address == root.local_address
    assert leaf.session_id == root.session_id
    assert len(leaf.session_id) == 16
    assert code_of(lambda: leaf.bind(Address("late"))) == codes.WSAEINVAL


def test_l1_an_explicit_name_is_kept_and_shown_to_the_root(world: World) -> None:
    root, leaf = world.root(), world.leaf(Settings(name="Ann", incarnation=bytes(16)))
    leaf.bind(Address("ann"))
    shown: list[JoinRequest] = []
    leg, _ = world.admit(root, leaf, noting(shown))
    (request,) = shown
    assert (request.peer, request.local) == (Address("ann"), root.local_address)
    assert (request.name, request.incarnation) == ("Ann", bytes(16))
    assert leg.peer_address == leaf.local_address == Address("ann")


def test_l3_after_a_refusal_the_leaf_may_ask_again(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    leaf.start_join_leaf(root.local_address)
    assert code_of(lambda: root.accept(lambda _: Reject(b"no"), timeout=0)) == 10061
    with pytest.raises(SpiError) as refusal:
        leaf.join_result()
    assert (refusal.value.code, refusal.value.data, refusal.value.reason) == (
        codes.WSAECONNREFUSED,
        b"no",
        "refused",
    )
    world.admit(root, leaf)


def test_l3_after_a_time_out_the_leaf_may_ask_again(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    world.faults.requests = Link.DROP
    assert code_of(lambda: leaf.join_leaf(root.local_address, timeout=0.01)) == 10060
    world.faults.requests = Link.PASS
    assert code_of(lambda: leaf.join_leaf(root.local_address, timeout=0)) == 10060
    assert code_of(lambda: root.accept(timeout=0)) == codes.WSAEACCES
    world.admit(root, leaf)


def test_l4_a_cancelled_join_leaves_the_leaf_broken(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    joining = world.run(lambda: leaf.join_leaf(root.local_address))
    wait_for(lambda: world.of(root, c.FD_ACCEPT))
    leaf.cancel()
    assert code_of(joining.result) == codes.WSAEINTR
    assert code_of(lambda: leaf.join_leaf(root.local_address)) == codes.WSAEINVAL
    assert code_of(lambda: root.accept(timeout=0)) == codes.WSAEACCES


def test_l5_l11_a_member_neither_joins_nor_listens(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    world.admit(root, leaf)
    for name in (root.local_address, Address("other")):
        assert code_of(lambda a=name: leaf.join_leaf(a)) == 10056  # type: ignore[misc]  # bound now
    assert code_of(leaf.listen) == codes.WSAEISCONN


def test_l6_a_listening_leaf_does_not_join(world: World) -> None:
    root, listener = world.root(), world.listener()
    assert code_of(lambda: listener.join_leaf(root.local_address)) == codes.WSAEINVAL


def test_l7_l8_an_expelled_leaf_reads_what_came_and_is_broken(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    leg, _ = world.admit(root, leaf)
    root.send_many([b"last"])
    leg.close(data=b"out")
    assert world.of(leaf, c.FD_CLOSE) == []
    assert leaf.receive_many().messages == [b"last"]
    (event,) = world.of(leaf, c.FD_CLOSE)
    assert (event.code, event.reason, event.data) == (0, EndReason.EXPELLED, b"out")
    with pytest.raises(SpiError) as end:
        leaf.receive_many()
    assert (end.value.code, end.value.reason, end.value.data) == (10101, "expelled", b"out")
    assert code_of(lambda: leaf.send_many([b"x"])) == codes.WSAEDISCON
    assert code_of(lambda: leaf.join_leaf(root.local_address)) == codes.WSAEINVAL
    assert code_of(leaf.listen) == codes.WSAEINVAL


@pytest.mark.parametrize(
    ("silently", "code", "reason"),
    [(False, 10054, EndReason.LOST), (True, 10053, EndReason.TIMED_OUT)],
)
def test_l7_a_root_that_dies_breaks_its_leaves(
    world: World, silently: bool, code: int, reason: EndReason
) -> None:
    root, leaf = world.root(), world.leaf()
    leg, _ = world.admit(root, leaf)
    world.faults.kill(root, silently=silently)
    for endpoint in (leaf, leg):
        (event,) = world.of(endpoint, c.FD_CLOSE)
        assert (event.code, event.reason) == (code, reason)
    assert code_of(lambda: leaf.receive_many()) == code
    assert code_of(lambda: leaf.send_many([b"x"])) == code
    assert code_of(lambda: root.send_many([b"x"])) == codes.WSAENOTSOCK


def test_a_leaf_that_dies_breaks_its_leg_only(world: World) -> None:
    root, leaf, other = world.root(), world.leaf(), world.leaf()
    leg, _ = world.admit(root, leaf)
    world.admit(root, other)
    world.faults.kill(leaf, silently=True)
    (event,) = world.of(leg, c.FD_CLOSE)
    assert (event.code, event.reason) == (10053, EndReason.TIMED_OUT)
    root.send_many([b"on"])
    assert other.receive_many(timeout=0).messages == [b"on"]


def test_faults_kill_only_what_is_theirs(world: World) -> None:
    with pytest.raises(TypeError, match="memory provider"):
        world.faults.kill(object())


def test_l9_an_invited_leaf_is_the_accepted_endpoint_and_the_listener_goes_on(
    world: World,
) -> None:
    roots = [world.open(Roles(c_root=True, d_root=True)) for _ in range(2)]
    listener = world.listener()
    listener.set_option(c.SO_KEEPALIVE, True)
    members = [world.invite(root, listener, caller_data=b"come")[1] for root in roots]
    assert [member.session_id for member in members] == [root.session_id for root in roots]
    for member in members:
        assert member.local_address == listener.local_address
        assert member.get_option(c.SO_KEEPALIVE) is True
        assert code_of(member.accept) == codes.WSAEINVAL
        assert code_of(lambda one=member: one.join_leaf(Address("x"))) == 10056  # type: ignore[misc]
    assert listener.get_option(c.SO_ACCEPTCONN) is True
    listener.close()
    roots[0].send_many([b"x"])
    assert members[0].receive_many(timeout=0).messages == [b"x"]


def test_l9_an_invitation_is_shown_with_the_roots_name(world: World) -> None:
    root, listener = world.root(), world.listener()
    shown: list[JoinRequest] = []
    world.invite(root, listener, noting(shown))
    assert shown[0].peer == root.local_address
    assert shown[0].local == listener.local_address


def test_l10_a_leaf_that_closes_is_told_on_its_leg(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    leg, _ = world.admit(root, leaf)
    leaf.send_many([b"last"])
    leaf.close(data=b"bye")
    (event,) = world.of(leg, c.FD_CLOSE)
    assert (event.code, event.reason, event.data) == (0, EndReason.CLOSED, b"bye")
    assert root.receive_many(timeout=0).messages == [b"last"]
    assert code_of(lambda: root.send_many([b"x"])) == codes.WSAENOTCONN


def test_leaves_join_roots_and_roots_invite_leaves_only(world: World) -> None:
    root, listener, leaf = world.root(), world.listener(), world.leaf()
    assert code_of(lambda: leaf.join_leaf(listener.local_address)) == codes.WSAECONNREFUSED
    other = world.open(Roles(c_root=True, d_root=True))
    assert code_of(lambda: other.join_leaf(root.local_address)) == codes.WSAECONNREFUSED
    foreign = world.leaf(plane="nonrooted")
    assert code_of(lambda: foreign.join_leaf(root.local_address)) == codes.WSAECONNREFUSED


# 6.4, rooted, nonblocking


def test_m1_m2_the_outcome_comes_before_anything_else(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    world.faults.answers = Link.HOLD
    assert leaf.start_join_leaf(root.local_address) is leaf
    world.opened.append(root.accept(timeout=0))
    root.send_many([b"early"])
    assert world.of(leaf) == []
    assert code_of(lambda: leaf.receive_many(timeout=0)) == codes.WSAENOTCONN
    world.faults.release()
    assert [event.kind for event in world.of(leaf)] == [c.FD_CONNECT, c.FD_WRITE, c.FD_READ]
    assert leaf.receive_many(timeout=0).messages == [b"early"]


def test_m3_a_leg_that_ends_before_its_answer_arrives_is_a_failed_join(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    world.faults.answers = Link.HOLD
    leaf.start_join_leaf(root.local_address)
    root.accept(timeout=0).close()
    assert [event.code for event in world.of(leaf)] == [codes.WSAECONNREFUSED]
    world.faults.drop_held()
    world.faults.answers = Link.PASS
    world.admit(root, leaf)


def test_m3_a_started_join_times_out(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    leaf.start_join_leaf(root.local_address, timeout=0.01)
    wait_for(lambda: world.of(leaf, c.FD_CONNECT))
    assert [event.code for event in world.of(leaf)] == [codes.WSAETIMEDOUT]
    assert leaf.get_option(c.SO_ERROR) == codes.WSAETIMEDOUT
    assert code_of(lambda: root.accept(timeout=0)) == codes.WSAEACCES


def test_m4_to_m9_a_pending_leaf_refuses_by_the_table(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    leaf.start_join_leaf(root.local_address)
    refusals: dict[int, list[Callable[[], object]]] = {
        codes.WSAEALREADY: [lambda: leaf.join_leaf(Address("")), leaf.join_result],
        codes.WSAENOTCONN: [
            lambda: leaf.send_many([b"x"]),
            lambda: leaf.receive_many(timeout=0),
            lambda: leaf.shutdown(c.SD_SEND),
            lambda: leaf.peer_address,
        ],
        codes.WSAEINVAL: [leaf.listen, leaf.accept, lambda: leaf.bind(Address("x"))],
    }
    for code, calls in refusals.items():
        assert [code_of(call) for call in calls] == [code] * len(calls)
    assert leaf.get_option(c.SO_ERROR) == 0
    assert leaf.local_address.host
    world.opened.append(root.accept(timeout=0))
    assert world.of(leaf, c.FD_CONNECT)[0].code == 0


def test_m5_closing_a_pending_leaf_withdraws_silently(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    leaf.start_join_leaf(root.local_address, timeout=0.02)
    leaf.close()
    assert code_of(lambda: root.accept(timeout=0)) == codes.WSAECONNRESET
    assert world.of(leaf) == []


def test_m5_a_pending_leaf_closed_while_it_is_offered_does_not_join(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    leaf.start_join_leaf(root.local_address)

    def condition(_: object) -> Accept:
        leaf.close()
        return Accept()

    assert code_of(lambda: root.accept(condition, timeout=0)) == codes.WSAECONNRESET
    assert root.statistics()["leaves"] == 0


def test_requests_held_on_the_way_go_on_when_released(world: World) -> None:
    root, leaves = world.root(), [world.leaf() for _ in range(3)]
    world.faults.requests = Link.HOLD
    for leaf in leaves:
        leaf.start_join_leaf(root.local_address)
    leaves[0].close()
    assert world.of(root, c.FD_ACCEPT) == []
    assert world.faults.held == 3
    assert world.faults.release(2) == 2
    world.opened.append(root.accept(timeout=0))
    assert code_of(lambda: root.accept(timeout=0)) == codes.WSAEWOULDBLOCK
    assert world.faults.drop_held() == 1
    assert code_of(leaves[2].join_result) == codes.WSAEALREADY


# 3.4, the queue of requests


def test_a_deferred_request_stays_first_and_is_not_announced_again(world: World) -> None:
    root, first, second = world.root(), world.leaf(), world.leaf()
    first.start_join_leaf(root.local_address, caller_data=b"1")
    second.start_join_leaf(root.local_address, caller_data=b"2")
    assert len(world.of(root, c.FD_ACCEPT)) == 1
    assert code_of(lambda: root.accept(lambda _: DEFER, timeout=0)) == codes.WSATRY_AGAIN
    assert len(world.of(root, c.FD_ACCEPT)) == 1
    seen: list[JoinRequest] = []
    for _ in range(2):
        world.opened.append(root.accept(noting(seen), timeout=0))
    assert [request.data for request in seen] == [b"1", b"2"]
    assert len(world.of(root, c.FD_ACCEPT)) == 2


def test_a_condition_that_raises_or_talks_nonsense_leaves_the_request(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    leaf.start_join_leaf(root.local_address)

    def breaks(_: object) -> Accept:
        raise ZeroDivisionError

    def babbles(_: object) -> Accept:
        return True  # type: ignore[return-value]  # wrong on purpose

    with pytest.raises(ZeroDivisionError):
        root.accept(breaks, timeout=0)
    assert code_of(lambda: root.accept(babbles, timeout=0)) == codes.WSAEINVAL
    too_long = Accept(bytes(65537))
    assert code_of(lambda: root.accept(lambda _: too_long, timeout=0)) == codes.WSAEFAULT
    world.opened.append(root.accept(timeout=0))
    assert leaf.join_result().endpoint is leaf


def test_closing_or_shortening_the_queue_refuses_who_waits(world: World) -> None:
    root, leaves = world.root(), [world.leaf() for _ in range(3)]
    for leaf in leaves:
        leaf.start_join_leaf(root.local_address)
    root.listen(1)
    assert [code_of(leaf.join_result) for leaf in leaves] == [10037, 10061, 10061]
    root.close()
    assert code_of(leaves[0].join_result) == codes.WSAECONNREFUSED


def test_withdrawn_requests_do_not_fill_the_queue(world: World) -> None:
    root = world.root()
    root.listen(2)
    for _ in range(10):
        leaf = world.leaf()
        leaf.start_join_leaf(root.local_address)
        leaf.close()
    told = 0
    while code_of(lambda: root.accept(timeout=0)) == codes.WSAECONNRESET:
        told += 1
    assert told == 2


# Quality of service at joining


GUARANTEED = c.SERVICETYPE_GUARANTEED


def reservation(rate: int) -> Qos:
    return Qos(FlowSpec(token_rate=rate, service_type=GUARANTEED))


def test_the_capacity_is_kept_given_back_and_told_with_numbers(world: World) -> None:
    root = world.root(Settings(capacity=1000))
    first, second = world.leaf(), world.leaf()
    world.admit(root, first, qos=reservation(700))
    second.start_join_leaf(root.local_address, qos=reservation(400))
    assert code_of(lambda: root.accept(timeout=0)) == codes.WSAEOPNOTSUPP
    with pytest.raises(SpiError, match="700 of 1000 bytes/s") as refusal:
        second.join_result()
    assert refusal.value.code == codes.WSAEOPNOTSUPP
    first.close()
    world.admit(root, second, qos=reservation(400))


def test_the_acceptors_word_on_qos_is_what_counts(world: World) -> None:
    root, leaf = world.root(Settings(capacity=1000)), world.leaf()
    leg, joined = world.admit(
        root, leaf, lambda _: Accept(qos=reservation(900)), qos=reservation(5000)
    )
    assert joined.qos == leaf.qos == leg.qos == reservation(900)
    assert leaf.ioctl(c.SIO_GET_QOS) == reservation(900)
    assert world.of(leaf, c.FD_QOS) == []


def test_a_preset_is_used_unless_the_join_overrides_it(world: World) -> None:
    root = world.root()
    seen: list[JoinRequest] = []
    for given in (None, reservation(2)):
        leaf = world.leaf()
        leaf.ioctl(c.SIO_SET_QOS, reservation(1))
        world.admit(root, leaf, noting(seen), qos=given)
    assert [request.qos for request in seen] == [reservation(1), reservation(2)]


def test_an_invitation_beyond_the_capacity_is_refused_before_it_is_sent(world: World) -> None:
    root = world.open(Roles(c_root=True, d_root=True), Settings(capacity=10))
    listener = world.listener()
    call = lambda: root.start_join_leaf(listener.local_address, qos=reservation(11))  # noqa: E731
    assert code_of(call) == codes.WSAEOPNOTSUPP
    assert world.of(listener) == []
    world.invite(root, listener, qos=reservation(10))


def test_directions_that_a_role_lacks_reserve_nothing(world: World) -> None:
    root, leaf = world.root(Settings(capacity=10)), world.leaf()
    world.admit(root, leaf, qos=reservation(1000), role=JoinRole.RECEIVER_ONLY)
    assert leaf.qos == reservation(1000)


def test_a_change_of_qos_is_indicated_to_the_other_side(world: World) -> None:
    root, leaf = world.root(Settings(capacity=1000)), world.leaf()
    leg, _ = world.admit(root, leaf, qos=reservation(700))
    assert code_of(lambda: leaf.ioctl(c.SIO_SET_QOS, reservation(2000))) == codes.WSAEOPNOTSUPP
    assert leaf.qos == reservation(700)
    leaf.ioctl(c.SIO_SET_QOS, reservation(1000))
    assert len(world.of(leg, c.FD_QOS)) == len(world.of(root, c.FD_QOS)) == 1
    leg.ioctl(c.SIO_SET_QOS, reservation(10))
    assert len(world.of(leaf, c.FD_QOS)) == 1
    assert leaf.qos == leg.qos == reservation(10)


# 6.5 and 6.6, nonrooted


@pytest.mark.parametrize("role", list(JoinRole))
def test_g1_g2_a_session_is_joined_by_naming_it(world: World, role: JoinRole) -> None:
    member = world.member(role=role)
    assert member.peer_address == Address("session")
    assert member.local_address.host
    other = world.member()
    assert other.session_id == member.session_id
    if role.sends:
        member.send_many([b"x"])
        assert other.receive_many(timeout=0).messages == [b"x"]
    else:
        assert code_of(lambda: member.send_many([b"x"])) == codes.WSAEOPNOTSUPP
    if not role.receives:
        assert code_of(lambda: member.receive_many(timeout=0)) == codes.WSAEOPNOTSUPP


def nonrooted(world: World, plane: str = "nonrooted", *, d_root: bool = False) -> Endpoint:
    return world.open(Roles(d_root=d_root), control="nonrooted", plane=plane)


def test_g3_the_name_of_an_endpoint_is_no_session(world: World) -> None:
    member, leaf = world.member(), nonrooted(world)
    assert code_of(lambda: leaf.join_leaf(member.local_address)) == codes.WSAEADDRNOTAVAIL
    assert code_of(lambda: leaf.join_leaf(Address(""))) == codes.WSAEADDRNOTAVAIL


def test_g4_h3_no_route_is_told_and_passes(world: World) -> None:
    leaf = nonrooted(world)
    world.faults.set_route(Address("session"), exists=False)
    assert code_of(lambda: leaf.join_leaf(Address("session"))) == codes.WSAENETUNREACH
    leaf.start_join_leaf(Address("session"))
    assert [event.code for event in world.of(leaf)] == [codes.WSAENETUNREACH]
    world.faults.set_route(Address("session"), exists=True)
    leaf.join_leaf(Address("session"))


def test_g5_one_session_for_each_endpoint(world: World) -> None:
    member = world.member()
    for name in ("session", "other"):
        assert code_of(lambda n=name: member.join_leaf(Address(n))) == 10056  # type: ignore[misc]


def test_g6_a_member_leaves_by_closing_and_nobody_is_told(world: World) -> None:
    leaving, staying = world.member(), world.member(Settings(loopback=False))
    leaving.close(data=b"bye")
    assert world.of(staying, c.FD_CLOSE) == []
    staying.send_many([b"alone"])
    assert code_of(lambda: staying.receive_many(timeout=0)) == codes.WSAEWOULDBLOCK


def test_g7_g8_no_connect_data_and_no_reservations(world: World) -> None:
    leaf = nonrooted(world)

    def call(data: bytes = b"", qos: Qos | None = None) -> bytes:
        return leaf.join_leaf(Address("session"), caller_data=data, qos=qos).data

    assert code_of(lambda: call(b"x")) == codes.WSAEPROTONOSUPPORT
    assert code_of(lambda: call(qos=reservation(1))) == codes.WSAEOPNOTSUPP
    assert call(qos=Qos()) == b""
    assert code_of(lambda: leaf.ioctl(c.SIO_GET_QOS)) == codes.WSAENOPROTOOPT


def test_h1_h2_a_started_join_is_reported_however_fast_it_was(world: World) -> None:
    leaf = nonrooted(world)
    assert leaf.start_join_leaf(Address("session"), role=JoinRole.SENDER_ONLY) is leaf
    assert [event.kind for event in world.of(leaf)] == [c.FD_CONNECT, c.FD_WRITE]


def test_h4_while_the_network_is_silent_a_second_join_is_refused(world: World) -> None:
    leaf = nonrooted(world)
    world.faults.requests = Link.HOLD
    leaf.start_join_leaf(Address("session"))
    assert code_of(lambda: leaf.join_leaf(Address("session"))) == codes.WSAEALREADY
    assert code_of(lambda: leaf.send_many([b"x"])) == codes.WSAENOTCONN
    world.faults.release()
    assert leaf.join_result().endpoint is leaf


def test_a_silent_network_times_a_nonrooted_join_out(world: World) -> None:
    leaf = nonrooted(world)
    world.faults.requests = Link.DROP
    assert code_of(lambda: leaf.join_leaf(Address("session"), timeout=0.01)) == 10060
    world.faults.requests = Link.PASS
    leaf.join_leaf(Address("session"))


def test_nonrooted_members_do_not_listen_or_accept(world: World) -> None:
    leaf = nonrooted(world)
    leaf.bind(Address("here"))
    assert code_of(leaf.listen) == codes.WSAEOPNOTSUPP
    assert code_of(leaf.accept) == codes.WSAEOPNOTSUPP


def test_a_rooted_data_plane_has_one_root_whoever_controls_it(world: World) -> None:
    world.member(plane="rooted", d_root=True)
    second = nonrooted(world, "rooted", d_root=True)
    assert code_of(lambda: second.join_leaf(Address("session"))) == codes.WSAECONNREFUSED
    root = world.root()
    asking = world.leaf(d_root=True)
    asking.start_join_leaf(root.local_address)
    assert code_of(lambda: root.accept(timeout=0)) == codes.WSAECONNREFUSED
    assert code_of(asking.join_result) == codes.WSAECONNREFUSED


# Names


def test_names_are_taken_once_unless_shared_knowingly(world: World) -> None:
    first, second = world.leaf(), world.leaf()
    first.bind(Address("name"))
    assert code_of(lambda: first.bind(Address("other"))) == codes.WSAEINVAL
    assert code_of(lambda: second.bind(Address("name"))) == codes.WSAEADDRINUSE
    assert code_of(lambda: second.bind(Address("127.0.0.1", 80))) == codes.WSAEFAULT
    sharing = [world.leaf(Settings(reuse_address=True)) for _ in range(2)]
    for leaf in sharing:
        leaf.bind(Address("shared"))
    sharing[0].listen()
    assert code_of(sharing[1].listen) == codes.WSAEADDRINUSE
    first.close()
    second.bind(Address("name"))


def test_an_unbound_endpoint_cannot_listen(world: World) -> None:
    assert code_of(world.leaf().listen) == codes.WSAEINVAL
