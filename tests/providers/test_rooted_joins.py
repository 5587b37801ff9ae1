"""jl:// over real sockets: joining in both directions, and every way in which it does not work."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from tests.providers.rooted_world import (
    BOUND,
    Indications,
    World,
    cancelled,
    in_thread,
    receive,
    target,
    until,
)

from joinleaf.errors import SpiError
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.provider import DEFER, Accept, Defer, EndReason, JoinRequest, JoinRole, Reject
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.values import Address


@pytest.fixture(params=["jl", "jls"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with World(scheme=request.param) as made:
        yield made


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_leaf_joins_with_data_both_ways(world: World, host: str) -> None:
    root, leaf = world.root(host, name="the root"), world.leaf(name="a leaf")
    seen: list[JoinRequest] = []

    def admit(request: JoinRequest) -> Accept:
        seen.append(request)
        return Accept(b"welcome")

    joined = in_thread(
        lambda: leaf.join_leaf(target(root), caller_data=b"let me in", timeout=BOUND)
    )
    leg = root.accept(admit, timeout=BOUND)
    assert joined().data == b"welcome"
    assert joined().endpoint is leaf
    assert (seen[0].data, seen[0].name, seen[0].role) == (b"let me in", "a leaf", JoinRole.BOTH)
    assert seen[0].peer == leg.peer_address == leaf.local_address
    assert leaf.peer_address == root.local_address
    assert leaf.session_id == root.session_id == leg.session_id
    assert len(root.session_id) == 16


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_root_invites_a_leaf_with_data_both_ways(world: World, host: str) -> None:
    root, listener = world.root(host), world.listener(host)
    asked: list[JoinRequest] = []

    def decide(request: JoinRequest) -> Accept:
        asked.append(request)
        return Accept(b"gladly")

    joined = in_thread(lambda: root.join_leaf(target(listener), caller_data=b"come", timeout=BOUND))
    member = listener.accept(decide, timeout=BOUND)
    leg = joined().endpoint
    assert (joined().data, asked[0].data) == (b"gladly", b"come")
    assert leg.peer_address == listener.local_address
    assert member is not listener
    root.send_many([b"down"], timeout=BOUND)
    member.send_many([b"up"], timeout=BOUND)
    assert receive(member, 1) == [b"down"]
    assert receive(root, 1) == [b"up"]
    member.close()


def test_two_members_of_one_listener_do_not_mix_their_bytes(world: World) -> None:
    root, listener = world.root(), world.listener()
    members = []
    for _ in range(2):
        joined = in_thread(lambda: root.join_leaf(target(listener), timeout=BOUND))
        members.append(listener.accept(timeout=BOUND))
        joined()
    payload = [bytes([n % 251]) * 50_000 for n in range(40)]
    heard = [in_thread(receive, member, 40) for member in members]
    # Further invitations make the listener read at the same time as its members do.
    other = world.root()
    extra = in_thread(lambda: other.join_leaf(target(listener), timeout=BOUND))
    for message in payload:
        root.send_many([message], timeout=BOUND)
    members.append(listener.accept(timeout=BOUND))
    extra()
    assert heard[0]() == payload
    assert heard[1]() == payload
    for member in members:
        member.close(linger=0)


def test_a_rejected_leaf_gets_the_data_and_the_sentence(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    joined = in_thread(lambda: leaf.join_leaf(target(root), timeout=BOUND))
    with pytest.raises(SpiError) as at_root:
        root.accept(lambda request: Reject(b"data", "not you"), timeout=BOUND)
    with pytest.raises(SpiError, match="not you") as at_leaf:
        joined()
    assert at_root.value.code == at_leaf.value.code == codes.WSAECONNREFUSED
    assert at_leaf.value.data == b"data"
    assert root.statistics()["joins_refused"] == 1
    assert root.statistics()["legs"] == 0


def test_a_leaf_that_was_rejected_may_ask_again(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    joined = in_thread(lambda: leaf.join_leaf(target(root), timeout=BOUND))
    with pytest.raises(SpiError):
        root.accept(lambda request: Reject(), timeout=BOUND)
    with pytest.raises(SpiError):
        joined()
    world.join(root, leaf)
    root.send_many([b"in after all"], timeout=BOUND)
    assert receive(leaf, 1) == [b"in after all"]


def test_a_deferred_request_stays_first_and_is_admitted_later(world: World) -> None:
    root, first, second = world.root(), world.leaf(name="first"), world.leaf(name="second")
    joined = in_thread(lambda: first.join_leaf(target(root), timeout=BOUND))
    with pytest.raises(SpiError) as error:
        root.accept(lambda request: DEFER, timeout=BOUND)
    assert error.value.code == codes.WSATRY_AGAIN
    also = in_thread(lambda: second.join_leaf(target(root), timeout=BOUND))
    until(lambda: root.statistics()["requests_waiting"] == 2)
    names: list[str] = []

    def admit(request: JoinRequest) -> Accept:
        names.append(request.name)
        return Accept()

    root.accept(admit, timeout=BOUND)
    root.accept(admit, timeout=BOUND)
    joined()
    also()
    assert names == ["first", "second"]


def test_a_condition_that_raises_turns_the_asker_away(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    joined = in_thread(lambda: leaf.join_leaf(target(root), timeout=BOUND))

    def broken(request: JoinRequest) -> Accept:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        root.accept(broken, timeout=BOUND)
    with pytest.raises(SpiError, match="could not decide"):
        joined()


def test_accept_times_out_or_does_not_wait(world: World) -> None:
    root = world.root()
    with pytest.raises(SpiError) as error:
        root.accept(timeout=0)
    assert error.value.code == codes.WSAEWOULDBLOCK
    with pytest.raises(SpiError) as error:
        root.accept(timeout=0.02)
    assert error.value.code == codes.WSAETIMEDOUT


def test_a_request_withdrawn_while_queued_is_never_offered(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    leaf.start_join_leaf(target(root))
    until(lambda: root.statistics()["requests_waiting"] == 1)
    leaf.close(linger=0)
    until(lambda: root.statistics()["requests_waiting"] == 0)
    assert root.statistics()["joins_withdrawn"] == 1
    with pytest.raises(SpiError) as error:
        root.accept(timeout=0)
    assert error.value.code == codes.WSAEWOULDBLOCK


def test_a_request_that_times_out_while_queued_gives_10060_and_is_withdrawn(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    with pytest.raises(SpiError, match="did not answer in time") as error:
        leaf.join_leaf(target(root), timeout=0.1)
    assert error.value.code == codes.WSAETIMEDOUT == 10060
    until(lambda: root.statistics().get("joins_withdrawn") == 1)


def test_a_request_withdrawn_while_offered_gives_accept_the_reason(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    leaf.start_join_leaf(target(root))

    def slow(request: JoinRequest) -> Accept:
        leaf.close(linger=0)
        until(lambda: root.statistics().get("joins_withdrawn") == 1)
        return Accept()

    with pytest.raises(SpiError) as error:
        root.accept(slow, timeout=BOUND)
    assert error.value.code == codes.WSAEACCES
    assert error.value.reason == EndReason.WITHDRAWN
    assert root.statistics()["legs"] == 0


def test_a_session_dissolved_while_a_request_is_offered_is_told_by_accept(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    joined = in_thread(lambda: leaf.join_leaf(target(root), timeout=BOUND))

    def dissolving(request: JoinRequest) -> Accept:
        root.shutdown(c.SD_BOTH)
        until(lambda: root.statistics()["connections"] == 0)
        return Accept()

    with pytest.raises(SpiError) as error:
        root.accept(dissolving, timeout=BOUND)
    assert error.value.code == codes.WSAECONNRESET
    with pytest.raises(SpiError) as error:
        joined()
    assert error.value.code == codes.WSAECONNREFUSED


@pytest.mark.parametrize("invited", [False, True], ids=["leaf asks root", "root asks leaf"])
@pytest.mark.parametrize("first", [Accept(), Reject(), DEFER], ids=["yes", "no", "later"])
def test_a_request_that_has_been_answered_is_not_there_to_be_answered_again(
    world: World, invited: bool, first: Accept | Reject | Defer
) -> None:
    root = world.root()
    asked: Any = world.listener() if invited else root
    asker: Any = root if invited else world.leaf()
    asker.start_join_leaf(target(asked))
    taken = asked.take_request(timeout=BOUND)
    with contextlib.ExitStack() as made:
        if isinstance(first, Accept):
            made.callback(taken.answer(first).close, linger=0)
        else:
            with pytest.raises(SpiError):
                taken.answer(first)
        for again in (Accept(), Reject(), DEFER):
            with pytest.raises(SpiError) as error:
                taken.answer(again)
            assert error.value.code == codes.WSAECONNRESET
        waiting = asked.statistics()["requests_waiting"]
        assert waiting == (1 if isinstance(first, Defer) else 0)


def test_a_blocking_join_is_cancelled_from_another_thread(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    joined = in_thread(lambda: leaf.join_leaf(target(root)))
    until(lambda: root.statistics()["requests_waiting"] == 1)
    leaf.cancel()
    with pytest.raises(SpiError) as error:
        joined()
    assert error.value.code == codes.WSAEINTR
    until(lambda: root.statistics()["requests_waiting"] == 0)


def test_a_blocking_join_is_cancelled_before_it_waits(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The root has its request by then, if the thread that joins is not run for a while."""
    root, leaf = world.root(), world.leaf()
    start = leaf.start_join_leaf

    def start_and_be_cancelled(*args: Any, **options: Any) -> Any:
        started = start(*args, **options)
        leaf.cancel()
        return started

    monkeypatch.setattr(leaf, "start_join_leaf", start_and_be_cancelled)
    joined = in_thread(lambda: leaf.join_leaf(target(root)))
    with pytest.raises(SpiError) as error:
        joined()
    assert error.value.code == codes.WSAEINTR


def test_a_blocking_accept_is_cancelled_from_another_thread(world: World) -> None:
    root = world.root()
    accepted = in_thread(root.accept)
    cancelled(accepted, root.cancel)
    with pytest.raises(SpiError) as error:
        accepted()
    assert error.value.code == codes.WSAEINTR


def test_a_started_join_reports_by_fd_connect(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    news = Indications(leaf)
    assert leaf.start_join_leaf(target(root)) is leaf
    with pytest.raises(SpiError) as error:
        leaf.join_result()
    assert error.value.code == codes.WSAEALREADY
    with pytest.raises(SpiError) as error:
        leaf.start_join_leaf(target(root))
    assert error.value.code == codes.WSAEALREADY
    at_root = Indications(root)
    at_root.wait(c.FD_ACCEPT)
    root.accept(lambda request: Accept(b"hi"), timeout=BOUND)
    assert news.wait(c.FD_CONNECT).code == 0
    assert leaf.join_result().data == b"hi"
    with pytest.raises(SpiError) as error:
        leaf.start_join_leaf(target(root))
    assert error.value.code == codes.WSAEISCONN


def test_subscribing_late_still_tells_of_a_waiting_request(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    leaf.start_join_leaf(target(root))
    until(lambda: root.statistics()["requests_waiting"] == 1)
    assert Indications(root).seen[0][1].kind == c.FD_ACCEPT


def test_closing_the_pending_leg_cancels_the_invitation(world: World) -> None:
    """Clause 74."""
    root, listener = world.root(), world.listener()
    leg = root.start_join_leaf(target(listener))
    with pytest.raises(SpiError) as error:
        root.start_join_leaf(target(listener))
    assert error.value.code == codes.WSAEALREADY
    until(lambda: listener.statistics().get("connections_opened"))
    leg.close()
    until(lambda: root.statistics()["connections"] == 0)
    second = in_thread(lambda: root.join_leaf(target(listener), timeout=BOUND))
    members = []

    def accept_one() -> object:
        try:
            members.append(listener.accept(timeout=BOUND))
        except SpiError:
            return None  # the one that was withdrawn
        return members

    until(accept_one)
    second()
    assert root.statistics()["legs"] == 1
    members[0].close(linger=0)


def test_an_invitation_that_is_turned_down_says_so(world: World) -> None:
    root, listener = world.root(), world.listener()
    news = Indications(root)
    joined = in_thread(lambda: root.join_leaf(target(listener), timeout=BOUND))
    with pytest.raises(SpiError):
        listener.accept(lambda request: Reject(b"busy", "no time"), timeout=BOUND)
    with pytest.raises(SpiError, match="no time") as error:
        joined()
    assert (error.value.code, error.value.data) == (codes.WSAECONNREFUSED, b"busy")
    assert news.wait(c.FD_CONNECT).code == codes.WSAECONNREFUSED


def test_an_invitation_that_nobody_answers_times_out(world: World) -> None:
    root, listener = world.root(), world.listener()
    with pytest.raises(SpiError) as error:
        root.join_leaf(target(listener), timeout=0.1)
    assert error.value.code == codes.WSAETIMEDOUT


def test_a_full_backlog_refuses_the_next(world: World) -> None:
    root = world.root(backlog=2)
    for _ in range(2):
        world.leaf().start_join_leaf(target(root))
    until(lambda: root.statistics()["requests_waiting"] == 2)
    with pytest.raises(SpiError, match="too many requests") as error:
        world.leaf().join_leaf(target(root), timeout=BOUND)
    assert error.value.code == codes.WSAECONNREFUSED
    assert root.statistics()["backlog_full"] == 1


def test_nobody_listening_is_a_refusal_at_once(world: World) -> None:
    where = Address("127.0.0.1", closed_port())
    with pytest.raises(SpiError, match="cannot reach") as error:
        world.leaf().join_leaf(where, timeout=BOUND)
    assert error.value.code == codes.WSAECONNREFUSED
    with pytest.raises(SpiError) as error:
        world.root().join_leaf(where, timeout=BOUND)
    assert error.value.code == codes.WSAECONNREFUSED


def test_a_root_cannot_be_invited_nor_a_listener_joined(world: World) -> None:
    with pytest.raises(SpiError, match="cannot be invited"):
        world.root().join_leaf(target(world.root()), timeout=BOUND)
    with pytest.raises(SpiError, match="waits for invitations"):
        world.leaf().join_leaf(target(world.listener()), timeout=BOUND)


def test_a_leaf_may_be_the_data_root_of_a_c_root_that_is_not(world: World) -> None:
    root, source = world.root(d_root=False), world.leaf(d_root=True)
    world.join(root, source)
    sink, _ = world.join(root)
    source.send_many([b"from the data root"], timeout=BOUND)
    assert receive(sink, 1) == receive(root, 1) == [b"from the data root"]
    sink.send_many([b"to the data root"], timeout=BOUND)
    assert receive(source, 1) == [b"to the data root"]
    with pytest.raises(SpiError):
        root.receive_many(timeout=0)
    second = world.leaf(d_root=True)
    joined = in_thread(lambda: second.join_leaf(target(root), timeout=BOUND))
    with pytest.raises(SpiError, match="data root already"):
        root.accept(timeout=BOUND)
    with pytest.raises(SpiError, match="data root already") as error:
        joined()
    assert error.value.code == codes.WSAECONNREFUSED


def test_flow_specifications_are_agreed_at_the_join(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    asked = Qos(FlowSpec(token_rate=1_000_000), FlowSpec(token_rate=2_000_000))
    granted = Qos(FlowSpec(token_rate=500_000), FlowSpec(token_rate=600_000))
    seen: list[Qos | None] = []

    def admit(request: JoinRequest) -> Accept:
        seen.append(request.qos)
        return Accept(qos=granted)

    _, leg = world.join(root, leaf, admit, qos=asked)
    assert seen == [asked]
    assert leaf.qos == leg.qos == granted
    assert leaf.join_result().qos == granted


def test_the_second_sixty_percent_reservation_is_refused_with_the_numbers(world: World) -> None:
    root = world.root(capacity=1_000_000)
    flow = FlowSpec(token_rate=600_000, service_type=c.SERVICETYPE_GUARANTEED)
    qos = Qos(flow, FlowSpec())
    first, _ = world.join(root, qos=qos)
    leaf = world.leaf()
    joined = in_thread(lambda: leaf.join_leaf(target(root), qos=qos, timeout=BOUND))
    with pytest.raises(SpiError):
        root.accept(timeout=BOUND)
    with pytest.raises(SpiError, match=r"600000.*600000 of 1000000") as error:
        joined()
    assert error.value.code == codes.WSAEOPNOTSUPP == 10045
    first.close(linger=0)
    until(lambda: root.statistics()["legs"] == 0)
    world.join(root, leaf, qos=qos)


def test_connect_data_over_the_limit_are_refused_before_anything_happens(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    with pytest.raises(SpiError) as error:
        leaf.join_leaf(target(root), caller_data=bytes(65537))
    assert error.value.code == codes.WSAEFAULT
    world.join(root, leaf, lambda r: Accept(r.data), caller_data=bytes(65536))
    assert len(leaf.join_result().data) == 65536


def test_a_leaf_bound_to_an_address_joins_from_there(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    leaf.bind(Address("127.0.0.1", 0))
    bound = leaf.local_address
    _, leg = world.join(root, leaf)
    assert leg.peer_address == bound == leaf.local_address
