"""Root and leaves as a whole: joins, queues, relays, gaps, policies, limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from joinleaf.core.association import JoinFailed
from joinleaf.core.doorstep import (
    JOIN_BURST,
    MAX_HALF_OPEN,
    MAX_HALF_OPEN_PER_SOURCE,
    PARTIAL_BYTES,
)
from joinleaf.core.leaf_session import LeafSession
from joinleaf.core.leg import LegState
from joinleaf.core.root_session import RootSession
from joinleaf.core.session import (
    Arrived,
    Crowded,
    Drop,
    JoinEnded,
    LegEnded,
    LegJoined,
    QosChanged,
    RequestGone,
    RequestWaiting,
    RosterAsked,
    Session,
)
from joinleaf.core.wire.control import (
    MAX_CONNECT_DATA,
    Leave,
    Name,
    QosBody,
    Request,
    Roster,
    SessionFacts,
    encode,
)
from joinleaf.core.wire.data import RAW_FROM, pack
from joinleaf.core.wire.frames import HEADER, MAGIC, Flag, Kind, control_frame
from joinleaf.errors import SpiError
from joinleaf.spi.codes import (
    WSAECONNABORTED,
    WSAECONNREFUSED,
    WSAEFAULT,
    WSAEMSGSIZE,
    WSAENOTCONN,
    WSAEOPNOTSUPP,
)
from joinleaf.spi.constants import SERVICETYPE_GUARANTEED
from joinleaf.spi.provider import Accept, EndReason, JoinRole, Reject, Settings, SlowPolicy
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.values import Address

from .conftest import LEAF_ADDRESS, ROOT_ADDRESS, SECOND, WALL_NS, Hub, drain, feed, frames

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def data(messages: Sequence[bytes], sequence: int, *, sender: int = 0, flags: int = 0) -> bytes:
    batch = pack(messages, sender=sender, sequence=sequence, flags=flags, max_message=1 << 20)
    return b"".join(batch.buffers)


def kinds(found: bytes) -> list[int]:
    return [kind for kind, _, _ in frames(found)]


def guaranteed(rate: int) -> Qos:
    flow = FlowSpec(token_rate=rate, service_type=SERVICETYPE_GUARANTEED)
    return Qos(FlowSpec(), flow)


def gone(session: Session) -> list[Drop]:
    """The connections that it gives back; all its outputs are taken away."""
    found = [output for output in session.out if isinstance(output, Drop)]
    session.out.clear()
    return found


# Joining


def test_a_join_goes_through_the_queue_and_both_ends_are_told() -> None:
    hub = Hub(Settings(name="the root"))
    key = hub.ask(data=b"let me in")
    assert list(hub.root.out) == [RequestWaiting(key)]
    offered = hub.root.offer()
    assert offered is not None
    assert offered[1].data == b"let me in"
    assert offered[1].incarnation == b"L" * 16
    assert offered[1].peer == Address("10.0.1.1", key)
    hub.root.admit(key, Accept(b"welcome"))
    hub.pump()
    assert hub.root.out[-1] == LegJoined(key, None)
    [joined] = hub.leaves[key].out
    assert isinstance(joined, LegJoined)
    assert joined.answer is not None
    assert (joined.answer.data, joined.answer.name) == (b"welcome", "the root")
    facts = hub.leaves[key].facts
    assert facts is not None
    assert (facts.session, facts.leaf, facts.sequence) == (b"S" * 16, 1, 0)
    assert hub.root.members == [key]
    assert hub.root.view == 1
    assert hub.root.counters["joins_admitted"] == 1


def test_a_rejected_asker_gets_sentence_and_data_and_nothing_is_left() -> None:
    hub = Hub()
    key = hub.ask()
    hub.root.offer()
    hub.root.reject(key, Reject(b"data", "who are you?"))
    hub.pump()
    assert hub.leaves[key].out[0] == JoinEnded(
        1, JoinFailed(WSAECONNREFUSED, "who are you?", b"data")
    )
    assert hub.root.out[-1] == Drop(key, flush=True)
    assert not hub.root.queue
    assert hub.root.counters["joins_refused"] == 1


def test_a_deferred_request_stays_first() -> None:
    hub = Hub()
    first, second = hub.ask(), hub.ask()
    assert (hub.root.offer() or (0,))[0] == first
    hub.root.defer(first)
    assert (hub.root.offer() or (0,))[0] == first
    assert (hub.root.offer() or (0,))[0] == second
    assert hub.root.offer() is None


@pytest.mark.parametrize("offered", [False, True])
def test_a_request_that_is_withdrawn_is_told_and_cannot_be_admitted(offered: bool) -> None:
    hub = Hub()
    key = hub.ask()
    if offered:
        hub.root.offer()
    hub.leaves[key].close_leg(1, EndReason.CLOSED, b"", 0, SECOND)
    hub.pump()
    assert hub.taken()[1:] == [RequestGone(key, EndReason.WITHDRAWN), Drop(key, flush=False)]
    assert hub.root.counters["joins_withdrawn"] == 1
    assert hub.root.offer() is None
    hub.root.admit(key, Accept())
    hub.root.reject(key, Reject())
    assert hub.taken() == []
    assert hub.root.members == []


@pytest.mark.parametrize("backlog", [1, 3])
def test_the_backlog_is_full_at_its_bound_and_has_room_again_after_an_answer(backlog: int) -> None:
    hub = Hub(Settings(backlog=backlog))
    keys = [hub.ask() for _ in range(backlog)]
    refused = hub.ask()
    assert [type(event) for event in hub.leaves[refused].out] == [JoinEnded, Drop]
    assert "too many" in str(hub.leaves[refused].out[0])
    assert list(hub.root.queue) == keys
    assert hub.root.counters["backlog_full"] == 1
    hub.root.offer()
    hub.root.admit(keys[0], Accept())
    assert hub.ask() in hub.root.queue


def test_silent_connections_are_bounded_in_all_and_the_oldest_goes() -> None:
    root = Hub().root
    for key in range(MAX_HALF_OPEN):
        root.connection_opened(key, Address(f"10.0.{key // 200}.{key % 200}", 1), ROOT_ADDRESS, 0)
    assert not root.out
    root.connection_opened(MAX_HALF_OPEN, Address("10.9.9.9", 1), ROOT_ADDRESS, 0)
    assert gone(root) == [Drop(0, flush=False)]
    assert root.counters["half_open_evicted"] == 1


def test_silent_connections_of_one_host_push_out_only_their_own() -> None:
    root = Hub().root
    root.connection_opened(9999, Address("10.0.0.1", 1), ROOT_ADDRESS, 0)
    for key in range(MAX_HALF_OPEN_PER_SOURCE):
        root.connection_opened(key, Address("10.0.0.2", key), ROOT_ADDRESS, 0)
    assert not root.out
    root.connection_opened(5000, Address("10.0.0.2", 5000), ROOT_ADDRESS, 0)
    assert gone(root) == [Drop(0, flush=False)]


def test_silent_connections_of_one_ipv6_network_count_as_those_of_one_host() -> None:
    root = Hub().root
    for key in range(MAX_HALF_OPEN_PER_SOURCE + 1):
        root.connection_opened(key, Address(f"2001:db8:1:2::{key:x}", 1), ROOT_ADDRESS, 0)
    assert gone(root) == [Drop(0, flush=False)]


def test_who_connects_too_often_is_put_off_in_words_then_not_heard_and_later_heard_again() -> None:
    hub = Hub()
    for key in range(JOIN_BURST):
        hub.root.connection_opened(key, Address("10.0.1.1", key), ROOT_ADDRESS, 0)
        hub.root.removed(key)
    hub.taken()
    put_off = hub.ask()
    failure = hub.leaves[put_off].out[0]
    assert isinstance(failure, JoinEnded)
    assert "try again" in failure.failure.message
    assert hub.root.counters["joins_put_off"] == 1
    for key in range(5000, 5000 + JOIN_BURST - 1):
        hub.root.connection_opened(key, Address("10.0.1.1", key), ROOT_ADDRESS, 0)
        hub.root.removed(key)
    assert "connections_ignored" not in hub.root.counters
    [told] = [output for output in hub.taken() if isinstance(output, Crowded)]
    assert told.text == "10.0.1.1 connects too often, and is put off"
    ignored = Address("10.0.1.1", 9)
    hub.root.connection_opened(9, ignored, ROOT_ADDRESS, 0)
    assert hub.root.counters["connections_ignored"] == 1
    assert gone(hub.root) == [Drop(9, flush=False)]
    hub.root.connection_opened(10, Address("10.0.1.2", 9), ROOT_ADDRESS, 0)  # the neighbour
    assert gone(hub.root) == []
    hub.now_ns = 30 * SECOND
    assert hub.ask() in hub.root.queue


def test_unfinished_requests_take_no_more_than_their_budget_and_the_heaviest_asker_pays() -> None:
    root, body = Hub().root, bytes(150 << 10)
    header = HEADER.pack(190 << 10, Kind.JOIN, 0, MAGIC)
    honest = Address("10.7.7.7", 1)
    root.connection_opened(9999, honest, ROOT_ADDRESS, 0)
    feed(root, 9999, header + body)  # before all of them: it is the oldest
    for key in range(200):
        root.connection_opened(key, Address(f"10.0.0.{key % 4}", 1), ROOT_ADDRESS, 0)
        feed(root, key, header + body)
        held = sum(leg.association.reader.pending for leg in root.legs.values())
        for drop in gone(root):
            held -= root.legs[drop.key].association.reader.pending
            root.removed(drop.key)
        assert held == root.doorstep.bytes_partial <= PARTIAL_BYTES
    assert root.legs[9999].association.state is LegState.OPENED
    assert root.counters["half_open_evicted"] == 200 - (PARTIAL_BYTES // len(header + body) - 1)


def test_a_waiting_request_that_has_to_go_for_its_unfinished_frame_is_told_as_gone() -> None:
    hub = Hub()
    keys = [hub.ask() for _ in range(45)]
    hub.taken()
    half = HEADER.pack(190 << 10, Kind.LEAVE, 0, MAGIC) + bytes(189 << 10)
    for key in keys:
        feed(hub.root, key, half)
    stay = PARTIAL_BYTES // len(half)
    assert stay < len(keys)
    assert RequestGone(keys[0], EndReason.LOST) in hub.taken()
    assert list(hub.root.queue) == keys[-stay:]


def test_a_full_session_refuses_in_words_and_has_room_again_when_one_has_left() -> None:
    hub = Hub(Settings(max_leaves=2))
    first, _ = hub.join(), hub.join()
    refused = hub.ask()
    failure = hub.leaves[refused].out[0]
    assert isinstance(failure, JoinEnded)
    assert failure.failure.message == (
        "the session is full: it takes 2 leaves; try again when one has left"
    )
    assert hub.root.counters["joins_refused_full"] == 1
    with pytest.raises(SpiError, match="full") as caught:
        hub.root.check_capacity(None)
    assert caught.value.code == WSAECONNREFUSED
    hub.root.close_leg(first, EndReason.EXPELLED, b"", 0, SECOND)
    hub.join()


def test_of_two_requests_for_the_last_place_the_second_is_refused_when_it_is_answered() -> None:
    hub = Hub(Settings(max_leaves=1))
    first, second = hub.ask(), hub.ask()
    hub.root.offer()
    hub.root.offer()
    hub.root.admit(first, Accept())
    with pytest.raises(SpiError, match="full"):
        hub.root.admit(second, Accept())
    hub.pump()
    assert hub.root.members == [first]
    assert "full" in str(hub.leaves[second].out[0])


def test_who_has_said_a_valid_word_no_longer_counts_as_half_open() -> None:
    hub = Hub()
    keys = [hub.ask() for _ in range(3)]
    for key in range(5000, 5000 + MAX_HALF_OPEN):
        hub.root.connection_opened(key, Address(f"h{key}", 1), ROOT_ADDRESS, 0)
    assert "half_open_evicted" not in hub.root.counters
    assert list(hub.root.queue) == keys


def test_a_handshake_that_does_not_come_is_dropped_in_time_and_counted() -> None:
    hub = Hub(Settings(join_timeout=3))
    hub.root.connection_opened(1, LEAF_ADDRESS, ROOT_ADDRESS, 0)
    assert hub.root.next_deadline_ns() == 3 * SECOND
    hub.root.tick(3 * SECOND - 1)
    assert not hub.root.out
    hub.root.tick(3 * SECOND)
    assert list(hub.root.out) == [Drop(1, flush=False)]
    assert hub.root.counters["handshakes_failed"] == 1
    hub.root.removed(1)
    assert hub.root.next_deadline_ns() is None


def test_a_root_refuses_an_invitation_and_a_listening_leaf_a_join() -> None:
    plain = Request((1, 1), bytes(16), JoinRole.BOTH, 1000, 1000)
    facts = SessionFacts(bytes(16), 1, True, True, JoinRole.BOTH)
    invitation = msgspec.structs.replace(plain, facts=facts)
    leaf = LeafSession(Settings(), incarnation=b"L" * 16, d_root=False)
    for session, kind, request in (
        (Hub().root, Kind.INVITE, invitation),
        (leaf, Kind.JOIN, plain),
    ):
        session.connection_opened(1, LEAF_ADDRESS, ROOT_ADDRESS, 0)
        feed(session, 1, control_frame(kind, encode(request)))
        assert kinds(drain(session, 1)) == [Kind.REFUSE]
        assert list(session.out) == [Drop(1, flush=True)]
        assert session.offer() is None


def test_a_question_for_the_roster_is_answered_and_the_connection_given_back() -> None:
    root = Hub().root
    root.connection_opened(1, LEAF_ADDRESS, ROOT_ADDRESS, 0)
    feed(root, 1, control_frame(Kind.WHO))
    assert list(root.out) == [RosterAsked(1), Drop(1, flush=True)]
    root.answer_who(1, Roster(b"S" * 16, 1, [], []))
    assert kinds(drain(root, 1)) == [Kind.ROSTER]
    assert "handshakes_failed" not in root.counters


@pytest.mark.parametrize("extra", [0, 1])
def test_connect_data_over_the_bound_are_refused_and_nothing_has_changed(extra: int) -> None:
    hub = Hub()
    waiting, member = hub.ask(), 0
    hub.root.offer()
    too_long = bytes(MAX_CONNECT_DATA + extra)

    def join() -> None:
        leaf = LeafSession(Settings(), incarnation=b"L" * 16, d_root=False)
        leaf.join(
            1,
            ROOT_ADDRESS,
            LEAF_ADDRESS,
            0,
            data=too_long,
            qos=None,
            role=JoinRole.BOTH,
            deadline_ns=None,
        )
        leaf.connected(1, 0)

    def invite() -> None:
        hub.root.invite(
            77, LEAF_ADDRESS, ROOT_ADDRESS, 0, data=too_long, qos=None, deadline_ns=None
        )

    calls: list[Callable[[], None]] = [
        join,
        invite,
        lambda: hub.root.admit(waiting, Accept(too_long)),
    ]
    if extra:
        calls.append(lambda: hub.root.reject(waiting, Reject(too_long)))
    for call in calls:
        if not extra:
            call()
            continue
        with pytest.raises(SpiError, match="over the limit") as caught:
            call()
        assert caught.value.code == WSAEFAULT
    if extra:
        assert "joins_refused" not in hub.root.counters
        assert hub.root.legs[waiting].association.state is LegState.OFFERED
        hub.root.admit(waiting, Accept())
    hub.pump()
    member = waiting
    if extra:
        with pytest.raises(SpiError):
            hub.root.close_leg(member, EndReason.EXPELLED, too_long, 0, SECOND)
        assert hub.root.legs[member].association.active
    else:
        hub.root.close_leg(member, EndReason.EXPELLED, too_long, 0, SECOND)
        hub.pump()
        assert LegEnded(1, EndReason.EXPELLED, 0, too_long) in hub.leaves[member].out


# Reservations


def test_a_reservation_that_does_not_fit_is_refused_with_the_numbers() -> None:
    hub = Hub(Settings(capacity=1000))
    first = hub.join(qos=guaranteed(600))
    second = hub.ask(qos=guaranteed(401))
    hub.root.offer()
    with pytest.raises(SpiError, match="401 bytes/s asked, 600 of 1000") as caught:
        hub.root.admit(second, Accept())
    assert caught.value.code == WSAEOPNOTSUPP
    hub.pump()
    failed = hub.leaves[second].out[0]
    assert isinstance(failed, JoinEnded)
    assert failed.failure.code == WSAEOPNOTSUPP
    assert "401 bytes/s asked" in failed.failure.message
    hub.join(qos=guaranteed(400))
    hub.root.abort_leg(first)
    assert hub.root.admission.in_use == 400


def test_half_a_reservation_is_given_back_when_the_other_half_does_not_fit() -> None:
    hub = Hub(Settings(capacity=1000))
    flow = FlowSpec(token_rate=600, service_type=SERVICETYPE_GUARANTEED)
    key = hub.ask(qos=Qos(flow, flow))
    hub.root.offer()
    with pytest.raises(SpiError):
        hub.root.admit(key, Accept())
    assert hub.root.admission.in_use == 0


@pytest.mark.parametrize("how", ["leave", "lost", "close", "silence"])
def test_whoever_ends_a_leg_its_reservation_is_given_back(how: str) -> None:
    hub = Hub(Settings(capacity=1000))
    key = hub.join(qos=guaranteed(600))
    if how == "leave":
        hub.leaves[key].close_leg(1, EndReason.CLOSED, b"", 0, SECOND)
        hub.pump()
    elif how == "lost":
        hub.root.lost(key, 0)
    elif how == "close":
        hub.root.close_leg(key, EndReason.EXPELLED, b"", 0, SECOND)
    else:
        hub.root.tick(100 * SECOND)
    assert hub.root.admission.in_use == 0
    assert hub.root.members == []
    assert hub.root.view == 2


def test_a_leaf_is_told_of_a_new_agreement() -> None:
    hub = Hub()
    key = hub.join()
    hub.root.change_qos(key, guaranteed(5), 0)
    hub.pump()
    assert QosChanged(1, guaranteed(5)) in hub.leaves[key].out
    assert hub.root.legs[key].qos == hub.leaves[key].legs[1].qos == guaranteed(5)


def test_a_leaf_that_wishes_for_more_gets_it_or_hears_the_numbers() -> None:
    hub = Hub(settings=Settings(capacity=1000))
    key = hub.join(qos=guaranteed(600))
    leaf = hub.leaves[key]
    leaf.ask_qos(1, guaranteed(900))
    hub.pump()
    assert QosChanged(1, guaranteed(900)) in leaf.out
    assert QosChanged(key, guaranteed(900)) in hub.root.out
    leaf.ask_qos(1, guaranteed(1001))
    hub.pump()
    refused = leaf.out[-1]
    assert isinstance(refused, QosChanged)
    assert refused.qos == guaranteed(900)
    assert "1001 bytes/s asked, 0 of 1000 bytes/s in use" in refused.refused
    assert hub.root.admission.in_use == 900


def test_a_refused_wish_gives_back_neither_half_of_what_was_reserved() -> None:
    hub = Hub(settings=Settings(capacity=1000))
    both = Qos(guaranteed(300).receiving, guaranteed(300).receiving)
    key = hub.join(qos=both)
    with pytest.raises(SpiError):
        hub.root.change_qos(key, Qos(guaranteed(950).receiving, guaranteed(100).receiving), 0)
    assert hub.root.admission.in_use == 600
    assert hub.root.legs[key].qos == both


def test_a_wish_that_no_leaf_of_ours_makes_ends_the_leg() -> None:
    hub = Hub()
    key = hub.join()
    body = QosBody.of(guaranteed(5))
    assert body is not None
    told = msgspec.structs.replace(body, refused="no")
    feed(hub.root, key, control_frame(Kind.QOS, encode(told)))
    assert LegEnded(key, EndReason.PROTOCOL_ERROR, WSAECONNABORTED, b"") in hub.root.out


# The two roles of a data root


@pytest.mark.parametrize(
    ("rooted", "d_root", "already", "welcome"),
    [(True, True, False, False), (True, False, False, True), (True, False, True, False),
     (False, False, False, False)],
)  # fmt: skip
def test_a_session_has_one_data_root(
    rooted: bool, d_root: bool, already: bool, welcome: bool
) -> None:
    hub = Hub(rooted=rooted, d_root=d_root)
    if already:
        hub.join(d_root=True)
    key = hub.ask(d_root=True)
    hub.root.offer()
    if welcome:
        hub.root.admit(key, Accept())
        assert hub.root.members == [key]
        return
    with pytest.raises(SpiError, match="data root already") as caught:
        hub.root.admit(key, Accept())
    assert caught.value.code == WSAECONNREFUSED
    assert hub.root.members == [] or already


def invite(hub: Hub, leaf: LeafSession, key: int = 50) -> None:
    """Let the root ask; the invitation waits at the leaf."""
    hub.leaves[key] = leaf
    leaf.connection_opened(1, ROOT_ADDRESS, LEAF_ADDRESS, hub.now_ns)
    hub.root.invite(
        key, LEAF_ADDRESS, ROOT_ADDRESS, hub.now_ns, data=b"come", qos=None, deadline_ns=None
    )
    hub.root.connected(key, hub.now_ns)
    hub.pump()


def test_an_invited_leaf_hears_the_root_though_the_root_has_sent_meanwhile() -> None:
    hub = Hub()
    other = hub.join()
    listener = LeafSession(Settings(), incarnation=b"I" * 16, d_root=False)
    invite(hub, listener)
    hub.root.send([b"before"], 0)  # numbered, and not for who has not answered yet
    offered = listener.offer()
    assert offered is not None
    assert offered[1].data == b"come"
    listener.admit(1, Accept(b"gladly"))
    member = LeafSession(Settings(), incarnation=b"I" * 16, d_root=False)
    member.adopt(1, listener.legs[1])
    listener.removed(1)
    hub.leaves[50] = member
    hub.pump()
    hub.root.send([b"after"], 0)
    hub.pump()
    assert hub.heard(50) == [b"after"]
    assert hub.heard(other) == [b"before", b"after"]
    [joined] = [event for event in hub.root.out if isinstance(event, LegJoined)]
    assert joined.answer is not None
    assert joined.answer.data == b"gladly"
    member.send(1, [b"hello"])
    hub.pump()
    assert [e.batch.messages for e in hub.root.out if isinstance(e, Arrived)] == [[b"hello"]]


def test_an_invited_leaf_cannot_make_itself_a_second_data_root() -> None:
    hub = Hub()
    listener = LeafSession(Settings(), incarnation=b"I" * 16, d_root=True)
    invite(hub, listener)
    listener.offer()
    listener.admit(1, Accept())
    hub.pump()
    ended, dropped = hub.taken()
    assert isinstance(ended, JoinEnded)
    assert "data root already" in ended.failure.message
    assert dropped == Drop(50, flush=False)
    assert hub.root.members == []


def test_an_invited_leafs_reservation_is_added_up_like_any_other() -> None:
    for capacity, fits in ((600, True), (599, False)):
        hub = Hub(Settings(capacity=capacity))
        listener = LeafSession(Settings(), incarnation=b"I" * 16, d_root=False)
        invite(hub, listener)
        listener.offer()
        listener.admit(1, Accept(qos=guaranteed(600)))
        hub.pump()
        assert hub.root.members == ([50] if fits else [])
        assert hub.root.admission.in_use == (600 if fits else 0)


# Data


def test_what_the_root_sends_reaches_every_leaf_in_order_with_numbers() -> None:
    hub = Hub()
    keys = [hub.join() for _ in range(3)]
    for number in range(3):
        hub.root.send([bytes([number]), bytes([number + 10])], 0)
    hub.root.send([bytes(RAW_FROM)], 0)
    hub.pump()
    for key in keys:
        assert hub.heard(key) == [b"\0", b"\x0a", b"\1", b"\x0b", b"\2", b"\x0c", bytes(RAW_FROM)]
        batches = [e.batch for e in hub.leaves[key].out if isinstance(e, Arrived)]
        assert [batch.sequence for batch in batches] == [0, 2, 4, 6]
        assert {batch.sender for batch in batches} == {ROOT_ADDRESS}
        assert {batch.time_ns for batch in batches} == {WALL_NS}
    assert hub.root.counters["messages_sent"] == 7


def test_who_joins_later_starts_at_the_number_that_is_due() -> None:
    hub = Hub()
    hub.join()
    hub.root.send([b"early"] * 5, 0)
    late = hub.join()
    hub.root.send([b"late"], 0)
    hub.pump()
    assert hub.heard(late) == [b"late"]
    assert [e.batch.sequence for e in hub.leaves[late].out if isinstance(e, Arrived)] == [5]


def test_no_leaf_of_a_rooted_plane_hears_a_leaf() -> None:
    hub = Hub()
    first, second = hub.join(), hub.join()
    hub.leaves[first].send(1, [b"to the root"])
    hub.pump()
    assert [e.key for e in hub.root.out if isinstance(e, Arrived)] == [first]
    assert hub.heard(second) == []


def test_leaves_of_a_nonrooted_plane_hear_each_other_by_name() -> None:
    hub = Hub(rooted=False, d_root=False)
    first, second = hub.join(), hub.join()
    hub.leaves[first].send(1, [b"one"])
    hub.leaves[first].send(1, [b"two"])
    found = hub.leaves[first].legs[1]
    feed(hub.root, first, drain(hub.leaves[first], 1))
    relayed = drain(hub.root, second)
    assert kinds(relayed) == [Kind.NAME, Kind.DATA, Kind.DATA]  # the name once
    feed(hub.leaves[second], 1, relayed)
    assert hub.heard(second) == [b"one", b"two"]
    batches = [e.batch for e in hub.leaves[second].out if isinstance(e, Arrived)]
    assert {batch.sender for batch in batches} == {found.association.local}
    assert hub.heard(first) == []


def test_the_data_root_may_be_a_leaf_and_then_leafs_hear_it_and_not_the_root() -> None:
    hub = Hub(d_root=False)
    source, sink = hub.join(d_root=True), hub.join()
    hub.leaves[source].send(1, [b"from the data root"])
    hub.pump()
    assert hub.heard(sink) == [b"from the data root"]
    assert [e.batch.messages for e in hub.root.out if isinstance(e, Arrived)] == [
        [b"from the data root"]
    ]
    hub.root.send([b"from the c_root"], 0)
    hub.pump()
    assert hub.heard(sink) == [b"from the data root"]
    assert hub.heard(source) == [b"from the c_root"]


def test_roles_decide_who_is_sent_anything() -> None:
    hub = Hub()
    sender, receiver = hub.join(role=JoinRole.SENDER_ONLY), hub.join(role=JoinRole.RECEIVER_ONLY)
    hub.root.send([b"x"], 0)
    hub.pump()
    assert hub.heard(sender) == []
    assert hub.heard(receiver) == [b"x"]
    hub.leaves[receiver].send(1, [b"not allowed"])
    hub.pump()
    assert LegEnded(receiver, EndReason.PROTOCOL_ERROR, WSAECONNABORTED, b"") in hub.root.out
    assert hub.root.members == [sender]
    assert hub.root.counters["protocol_errors"] == 1


def test_direct_messages_are_outside_the_numbering_and_reach_only_those_named() -> None:
    hub = Hub()
    first, second = hub.join(), hub.join()
    hub.root.send([b"all"], 0)
    hub.root.send([b"only you"], 0, to=[first])
    hub.root.send([b"all again"], 0)
    hub.pump()
    assert hub.heard(first) == [b"all", b"only you", b"all again"]
    assert hub.heard(second) == [b"all", b"all again"]
    assert [e.batch.sequence for e in hub.leaves[first].out if isinstance(e, Arrived)] == [0, -1, 1]


@pytest.mark.parametrize("role", list(JoinRole))
def test_side_chat_is_marked_and_goes_both_ways_whatever_the_role(role: JoinRole) -> None:
    hub = Hub()
    key = hub.join(role=role)
    hub.root.send_side(key, [b"down"])
    hub.leaves[key].send_side(1, [b"up"])
    hub.pump()
    for session in (hub.leaves[key], hub.root):
        [arrived] = [event for event in session.out if isinstance(event, Arrived)]
        assert arrived.batch.side
        assert arrived.batch.sequence == -1
    assert hub.heard(key) == [b"down"]


def test_sending_to_who_is_no_member_is_refused_and_nobody_gets_any() -> None:
    hub = Hub()
    member, gone, waiting = hub.join(), hub.join(), hub.ask()
    hub.root.close_leg(gone, EndReason.EXPELLED, b"", 0, SECOND)
    drain(hub.root, gone)
    for stranger in (waiting, gone, 424242):
        with pytest.raises(SpiError) as caught:
            hub.root.send([b"x"], 0, to=[member, stranger])
        assert caught.value.code == WSAENOTCONN
        with pytest.raises(SpiError):
            hub.root.send_side(stranger, [b"x"])
    with pytest.raises(SpiError):
        hub.leaves[waiting].send(1, [b"too early"])
    assert not hub.root.legs[member].association.outbox


def test_a_leaf_is_sent_no_more_names_than_a_session_can_have_members() -> None:
    hub = Hub()
    leaf = hub.leaves[hub.join()]
    leaf._names = dict.fromkeys(range(2, (1 << 20) + 1), ROOT_ADDRESS)
    feed(leaf, 1, control_frame(Kind.NAME, encode(Name(1, "h", 1))))
    assert not leaf.out
    feed(leaf, 1, control_frame(Kind.NAME, encode(Name((1 << 20) + 1, "h", 1))))
    assert isinstance(leaf.out[0], LegEnded)


def test_a_message_over_the_limit_reaches_nobody_and_takes_no_number() -> None:
    hub = Hub(Settings(max_message=100))
    key = hub.join()
    with pytest.raises(SpiError) as caught:
        hub.root.send([b"x", bytes(101)], 0)
    assert caught.value.code == WSAEMSGSIZE
    hub.root.send([bytes(100)], 0)
    hub.pump()
    assert hub.heard(key) == [bytes(100)]
    with pytest.raises(SpiError):
        hub.leaves[key].send(1, [bytes(101)])


def test_an_empty_batch_wakes_nobody() -> None:
    hub = Hub(rooted=False, d_root=False)
    first, second = hub.join(), hub.join()
    hub.root.send([], 0)
    hub.leaves[first].send(1, [])
    hub.pump()
    assert not hub.root.out
    assert not hub.leaves[first].out
    assert not hub.leaves[second].out


def test_what_was_borrowed_is_copied_when_asked_for() -> None:
    hub = Hub()
    key = hub.join()
    memory = bytearray(RAW_FROM)
    assert hub.root.send([memory], 0).borrowed
    hub.root.own_outboxes([key])
    memory[:] = b"z" * RAW_FROM
    hub.pump()
    assert hub.heard(key) == [bytes(RAW_FROM)]


# Breaches


@pytest.mark.parametrize(
    "bad",
    [
        data([b"x"], 1),
        data([b"x"], 0, flags=Flag.DIRECT),
        control_frame(Kind.GAP, bytes(20)),
        control_frame(Kind.NAME, encode(Name(1, "h", 1))),
        control_frame(Kind.WHO),
        b"\0" * 8,
    ],
)
def test_a_breach_ends_its_leg_and_no_other(bad: bytes) -> None:
    hub = Hub()
    good, evil = hub.join(), hub.join()
    feed(hub.root, evil, data([b"first"], 0) if bad == data([b"x"], 1) else b"")
    feed(hub.root, evil, data([b"x"], 2) if bad == data([b"x"], 1) else bad)
    assert LegEnded(evil, EndReason.PROTOCOL_ERROR, WSAECONNABORTED, b"") in hub.root.out
    assert hub.dropped(hub.root) == [evil]
    assert hub.root.members == [good]
    hub.root.send([b"x"], 0)
    hub.leaves[good].send(1, [b"y"])
    hub.pump()
    assert hub.heard(good) == [b"x"]


@pytest.mark.parametrize(
    "bad",
    [
        data([b"x"], 1),
        data([b"x"], 0, sender=9),
        control_frame(Kind.GAP, (9).to_bytes(4, "big") + bytes(16)),
    ],
)
def test_a_leaf_takes_no_wrong_number_and_nobody_unnamed(bad: bytes) -> None:
    hub = Hub()
    key = hub.join()
    leaf = hub.leaves[key]
    feed(leaf, 1, bad)
    ended = leaf.out[0]
    assert isinstance(ended, LegEnded)
    assert ended.reason is EndReason.PROTOCOL_ERROR


def test_data_behind_the_leave_in_the_same_bytes_are_not_delivered() -> None:
    hub = Hub()
    key = hub.join()
    feed(
        hub.root,
        key,
        data([b"last"], 0) + control_frame(Kind.LEAVE, encode(Leave("closed"))) + data([b"x"], 1),
    )
    assert [type(event) for event in hub.root.out] == [Arrived, LegEnded, Drop]


# Slow leaves


def test_a_gap_is_told_with_first_and_count_before_the_next_message() -> None:
    hub = Hub(Settings(slow=SlowPolicy.DROP, queue_bytes=65536))
    key = hub.join()
    hub.root.send([bytes(60_000)], 0)  # 0, queued
    hub.root.send([bytes(6_000)], 0)  # 1, over
    hub.root.send([bytes(3_000), bytes(3_000)], 0)  # 2 and 3, over
    assert hub.root.counters["messages_dropped"] == 3
    assert hub.root.legs[key].dropped == 3
    hub.pump()
    hub.root.send([b"four"], 0)
    hub.pump()
    batches = [e.batch for e in hub.leaves[key].out if isinstance(e, Arrived)]
    assert [(b.sequence, b.gap, len(b.messages)) for b in batches] == [
        (0, 0, 1),
        (4, 3, 0),  # missing are the three before number 4
        (4, 0, 1),
    ]
    assert hub.leaves[key].counters["messages_missed"] == 3


def test_a_gap_is_told_when_the_queue_is_empty_even_if_nothing_follows() -> None:
    hub = Hub(Settings(slow=SlowPolicy.DROP, queue_bytes=65536))
    key = hub.join()
    hub.root.send([bytes(60_000)], 0)
    hub.root.send([bytes(6_000)], 0)
    hub.pump()
    hub.root.flushed(key)
    assert list(hub.root.dirty) == [key]
    hub.pump()
    assert hub.leaves[key].counters["messages_missed"] == 1
    hub.root.flushed(key)
    assert not hub.root.dirty


def test_a_leave_is_preceded_by_the_gap_it_leaves_behind() -> None:
    hub = Hub(Settings(slow=SlowPolicy.DROP, queue_bytes=65536))
    key = hub.join()
    hub.root.send([bytes(60_000)], 0)
    hub.root.send([bytes(6_000)], 0)
    hub.root.close_leg(key, EndReason.DISSOLVED, b"", 0, SECOND)
    assert kinds(drain(hub.root, key)) == [Kind.DATA, Kind.GAP, Kind.LEAVE]


@pytest.mark.parametrize("spare", [0, 1])
@pytest.mark.parametrize("policy", list(SlowPolicy))
def test_the_policy_acts_beyond_the_queue_bound_and_not_at_it(
    policy: SlowPolicy, spare: int
) -> None:
    hub = Hub(Settings(slow=policy, queue_bytes=65536))
    key = hub.join()
    hub.root.send([bytes(40_000 - 20)], 0)
    hub.root.send([bytes(25_536 - 20 + spare)], 0)
    over = spare == 1
    assert hub.root.over_limit([key]) == ([key] if over and policy is SlowPolicy.WAIT else [])
    assert hub.root.legs[key].dropped == (1 if over and policy is SlowPolicy.DROP else 0)
    expelled = over and policy is SlowPolicy.EXPEL
    assert hub.root.members == ([] if expelled else [key])
    if expelled:
        assert LegEnded(key, EndReason.SLOW, 0, b"") in hub.root.out
        assert hub.root.counters["leaves_expelled_slow"] == 1


def test_an_empty_queue_takes_one_batch_of_any_size() -> None:
    hub = Hub(Settings(slow=SlowPolicy.EXPEL, queue_bytes=65536))
    key = hub.join()
    hub.root.send([bytes(1 << 20)], 0)
    hub.pump()
    assert hub.heard(key) == [bytes(1 << 20)]


def test_an_expelled_leaf_that_wakes_up_reads_why_and_one_that_does_not_is_dropped() -> None:
    hub = Hub(Settings(slow=SlowPolicy.EXPEL, queue_bytes=65536, linger=2))
    awake, asleep, good = hub.join(), hub.join(), hub.join()
    hub.root.send([bytes(60_000)], SECOND)
    feed(hub.leaves[good], 1, drain(hub.root, good))
    hub.root.send([bytes(6_000)], SECOND)
    assert hub.root.members == [good]
    feed(hub.leaves[awake], 1, drain(hub.root, awake))
    assert [type(event) for event in hub.leaves[awake].out] == [Arrived, LegEnded, Drop]
    assert hub.leaves[awake].out[1] == LegEnded(1, EndReason.SLOW, WSAECONNABORTED, b"")
    hub.root.out.clear()
    hub.root.tick(3 * SECOND - 1)
    assert not hub.root.out
    hub.root.tick(3 * SECOND)
    assert hub.dropped(hub.root) == [awake, asleep]


def test_direct_messages_are_never_dropped_by_policy() -> None:
    hub = Hub(Settings(slow=SlowPolicy.DROP, queue_bytes=65536))
    key = hub.join()
    hub.root.send([bytes(60_000)], 0)
    hub.root.send([bytes(60_000)], 0, to=[key])
    assert hub.root.legs[key].dropped == 0
    hub.root.send([b"x" * 7000], 0)
    hub.root.send([b"y" * 7000], 0, to=[key])
    assert hub.root.legs[key].dropped == 1
    hub.pump()
    hub.root.send([b"z"], 0)
    hub.pump()
    gaps = [e.batch for e in hub.leaves[key].out if isinstance(e, Arrived) and e.batch.gap]
    assert [(batch.sequence, batch.gap) for batch in gaps] == [(2, 1)]


def test_gaps_are_told_sender_by_sender_behind_the_senders_name() -> None:
    hub = Hub(Settings(slow=SlowPolicy.DROP, queue_bytes=65536), rooted=False, d_root=False)
    talker, slow = hub.join(), hub.join()
    hub.root.send([bytes(65_000)], 0)
    drain(hub.root, talker)
    hub.leaves[talker].send(1, [bytes(600), bytes(600)])
    feed(hub.root, talker, drain(hub.leaves[talker], 1))
    hub.root.send([bytes(600)], 0)
    drain(hub.root, talker)
    hub.pump()
    hub.root.flushed(slow)
    hub.pump()
    gaps = [e.batch for e in hub.leaves[slow].out if isinstance(e, Arrived) and e.batch.gap]
    assert {(batch.sender, batch.sequence, batch.gap) for batch in gaps} == {
        (Address("10.0.1.1", talker), 2, 2),
        (ROOT_ADDRESS, 2, 1),
    }


def test_the_root_has_no_outputs_of_its_own_making_left_after_all_have_gone() -> None:
    hub = Hub()
    keys = [hub.join() for _ in range(3)]
    for key in keys:
        hub.leaves[key].close_leg(1, EndReason.CLOSED, b"bye", 0, SECOND)
    hub.pump()
    assert [e for e in hub.root.out if isinstance(e, LegEnded)] == [
        LegEnded(key, EndReason.CLOSED, 0, b"bye") for key in keys
    ]
    for key in keys:
        hub.root.removed(key)
    assert not hub.root.legs
    assert not hub.root.dirty
    assert isinstance(hub.root, RootSession)
    assert hub.root.listeners(hub.root.myself) == ()
