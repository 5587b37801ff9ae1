"""One end of a leg: every frame in every state, its clocks, and the ways it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from joinleaf.core.association import (
    Asked,
    Association,
    Closed,
    Data,
    Dropped,
    Event,
    Gap,
    GroupWord,
    JoinFailed,
    JoinSucceeded,
    Named,
    QosAgreed,
    Requested,
    Withdrawn,
    WrongKey,
)
from joinleaf.core.keys.gates import AnswererGate, AskerGate
from joinleaf.core.keys.session_key import digest_of
from joinleaf.core.leg import LegState
from joinleaf.core.wire.control import (
    MAX_CONNECT_DATA,
    Answer,
    Leave,
    Name,
    QosBody,
    Refusal,
    Request,
    SessionFacts,
    decode,
    encode,
)
from joinleaf.core.wire.data import MAX_FRAME_OVERHEAD
from joinleaf.core.wire.frames import (
    DATA_PREFIX,
    GROUP_KINDS,
    MAX_CONTROL_BODY,
    FrameReader,
    Kind,
    control_frame,
    data_header,
)
from joinleaf.spi.codes import (
    WSAEACCES,
    WSAECONNABORTED,
    WSAECONNREFUSED,
    WSAECONNRESET,
    WSAEOPNOTSUPP,
    WSAETIMEDOUT,
)
from joinleaf.spi.provider import EndReason, JoinRole
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.values import Address

SECOND = 1_000_000_000
MS = 1_000_000
FACTS = SessionFacts(b"S" * 16, 5, True, True, JoinRole.BOTH)
JOIN = Request((1, 1), b"L" * 16, JoinRole.BOTH, 1000, 1 << 20)
INVITE = msgspec.structs.replace(JOIN, facts=FACTS)
ANSWER = Answer(1, b"R" * 16, 1000, 1 << 20, facts=FACTS)
GAP_BODY = DATA_PREFIX.pack(0, 7) + (3).to_bytes(8, "big")
QOS = Qos(FlowSpec(token_rate=1000), FlowSpec())

BODIES: dict[Kind, bytes] = {
    Kind.JOIN: encode(JOIN),
    Kind.INVITE: encode(INVITE),
    Kind.ACCEPT: encode(ANSWER),
    Kind.REFUSE: encode(Refusal(WSAECONNREFUSED, "no", b"why")),
    Kind.GAP: GAP_BODY,
    Kind.LEAVE: encode(Leave("closed", b"bye")),
    Kind.BEAT: b"",
    Kind.NAME: encode(Name(9, "10.0.0.9", 99)),
    Kind.WHO: b"",
    Kind.ROSTER: b"",
    Kind.QOS: encode(QosBody.of(QOS) or Leave("none")),
    Kind.REPORT: bytes(36),
    Kind.START: bytes(24),
    Kind.STOP: bytes(8),
    Kind.SKIP: bytes(8),
    Kind.KEY: bytes(64),
    Kind.UNIT_REPAIR: bytes(64),
    Kind.GATE: bytes(8),
    Kind.CHALLENGE: b"\1" + bytes(32),
    Kind.PROOF: bytes(64),
}


def frame(kind: Kind) -> bytes:
    if kind is Kind.DATA:
        return data_header(2, 0, 0, 0) + b"\x91\xc0"
    return control_frame(kind, BODIES[kind])


def end(*, asker: bool, request: Request | None = None, **settings: Any) -> Association:
    options: dict[str, Any] = {
        "peer": Address("10.0.0.9", 1),
        "local": Address("10.0.0.1", 2),
        "reader": FrameReader(memoryview(bytearray(1 << 16))),
        "now_ns": 0,
        "deadline_ns": None,
        "dead_after_ns": 2 * SECOND,
        "max_message": 1 << 20,
        **settings,
    }
    return Association(asker=asker, request=request, **options)


def feed(leg: Association, data: bytes, now_ns: int = 0) -> list[Event]:
    events: list[Event] = []
    rest = memoryview(data)
    while rest:
        place = leg.reader.buffer()
        count = min(len(place), len(rest))
        place[:count] = rest[:count]
        events += leg.received(count, now_ns)
        rest = rest[count:]
    return events


def sent(leg: Association) -> list[tuple[int, bytes]]:
    """Kind and body of what waits, taken away."""
    reader = FrameReader(memoryview(bytearray(1 << 16)), 1 << 30)
    found = []
    while leg.outbox:
        data = b"".join(leg.outbox.head())
        found += [(f.kind, bytes(f.body)) for f in reader.feed(data)]
        leg.outbox.sent(len(data))
    return found


def in_state(state: LegState) -> Association:
    """A leg that has come to the state by the shortest way; nothing left to send."""
    asker = state in (LegState.CONNECTING, LegState.SECURING, LegState.ASKED)
    leg = end(asker=asker, request=JOIN if asker else None)
    if state is LegState.SECURING:
        leg.reached(0)
    elif state is LegState.ASKED:
        leg.connected(0)
    elif not asker and state is not LegState.OPENED:
        feed(leg, frame(Kind.JOIN))
        if state is not LegState.QUEUED:
            leg.offer()
        if state in (LegState.ACTIVE, LegState.ENDING, LegState.ENDED):
            leg.admit(ANSWER)
        if state is LegState.ENDING:
            leg.close(EndReason.CLOSED, b"", 5 * SECOND)
        if state is LegState.ENDED:
            leg.lost(0)
    assert leg.state is state
    sent(leg)
    return leg


S = LegState
# What a valid frame leads to: the state, and the kinds of events. What is not here is a breach.
OUTCOMES: dict[tuple[LegState, Kind], tuple[LegState, tuple[type, ...]]] = {
    **{(state, Kind.BEAT): (state, ()) for state in LegState},
    **{(S.ENDING, kind): (S.ENDING, ()) for kind in Kind},
    (S.ENDING, Kind.LEAVE): (S.ENDED, (Dropped,)),
    **{(S.ENDED, kind): (S.ENDED, ()) for kind in Kind},
    (S.OPENED, Kind.JOIN): (S.QUEUED, (Requested,)),
    (S.OPENED, Kind.INVITE): (S.QUEUED, (Requested,)),
    (S.OPENED, Kind.WHO): (S.ENDED, (Asked, Dropped)),
    (S.SECURING, Kind.REFUSE): (S.ENDED, (JoinFailed, Dropped)),
    (S.ASKED, Kind.ACCEPT): (S.ACTIVE, (JoinSucceeded,)),
    (S.ASKED, Kind.REFUSE): (S.ENDED, (JoinFailed, Dropped)),
    (S.QUEUED, Kind.LEAVE): (S.ENDED, (Withdrawn, Dropped)),
    (S.OFFERED, Kind.LEAVE): (S.ENDED, (Withdrawn, Dropped)),
    (S.ACTIVE, Kind.DATA): (S.ACTIVE, (Data,)),
    (S.ACTIVE, Kind.GAP): (S.ACTIVE, (Gap,)),
    (S.ACTIVE, Kind.NAME): (S.ACTIVE, (Named,)),
    (S.ACTIVE, Kind.QOS): (S.ACTIVE, (QosAgreed,)),
    (S.ACTIVE, Kind.LEAVE): (S.ENDED, (Closed, Dropped)),
    **{(S.ACTIVE, Kind(kind)): (S.ACTIVE, (GroupWord,)) for kind in GROUP_KINDS},
}
BREACHES: dict[LegState, tuple[type, ...]] = {
    S.OPENED: (Dropped,),
    S.SECURING: (JoinFailed, Dropped),
    S.ASKED: (JoinFailed, Dropped),
    S.QUEUED: (Withdrawn, Dropped),
    S.OFFERED: (Withdrawn, Dropped),
    S.ACTIVE: (Closed, Dropped),
}


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name)
@pytest.mark.parametrize("state", list(LegState)[1:], ids=lambda state: state.name)
def test_every_valid_frame_in_every_state(state: LegState, kind: Kind) -> None:
    leg = in_state(state)
    events = feed(leg, frame(kind))
    if (state, kind) in OUTCOMES:
        expected, kinds = OUTCOMES[state, kind]
    else:
        expected, kinds = S.ENDED, BREACHES[state]
        assert leg.reason is EndReason.PROTOCOL_ERROR
    assert leg.state is expected
    assert tuple(type(event) for event in events) == kinds


@pytest.mark.parametrize("kind", [*(set(Kind) - {Kind.DATA, Kind.BEAT, Kind.WHO} - GROUP_KINDS)])
@pytest.mark.parametrize("body", [b"\xc1", b"\x80", b"\x81\xa1", b"\xff" * 40, b"\x91" * 3000])
def test_a_malformed_body_is_a_breach_and_never_raises(kind: Kind, body: bytes) -> None:
    for state in (S.OPENED, S.ASKED, S.QUEUED, S.OFFERED, S.ACTIVE):
        if kind is Kind.LEAVE and state in (S.QUEUED, S.OFFERED):
            continue  # a withdrawal needs no words, and none are read
        leg = in_state(state)
        events = feed(leg, control_frame(kind, body))
        assert leg.state is S.ENDED
        assert leg.reason is EndReason.PROTOCOL_ERROR
        assert tuple(type(event) for event in events) == BREACHES[state]


def test_frames_behind_the_end_in_the_same_bytes_are_not_looked_at() -> None:
    leg = in_state(S.ACTIVE)
    events = feed(leg, frame(Kind.LEAVE) + frame(Kind.GAP) + b"garbage garbage")
    assert [type(event) for event in events] == [Closed, Dropped]


# The join


def test_the_asker_sends_join_or_invite_once_connected() -> None:
    for request, kind in ((JOIN, Kind.JOIN), (INVITE, Kind.INVITE)):
        leg = end(asker=True, request=request)
        assert sent(leg) == []
        leg.connected(0)
        assert sent(leg) == [(kind, encode(request))]


@pytest.mark.parametrize(
    ("versions", "welcome"), [((1, 1), True), ((0, 9), True), ((2, 3), False), ((0, 0), False)]
)
def test_a_request_is_refused_with_a_reason_when_no_version_is_common(
    versions: tuple[int, int], welcome: bool
) -> None:
    leg = in_state(S.OPENED)
    feed(leg, control_frame(Kind.JOIN, encode(msgspec.structs.replace(JOIN, versions=versions))))
    if welcome:
        assert leg.state is S.QUEUED
        return
    [(kind, body)] = sent(leg)
    refusal = decode(Refusal, body)
    assert (kind, refusal.code) == (Kind.REFUSE, WSAEOPNOTSUPP)
    assert f"versions {versions[0]} to {versions[1]}" in refusal.message
    assert "speaks version 1" in refusal.message


def test_a_critical_field_that_is_not_known_is_refused_by_name_and_a_known_one_is_not() -> None:
    for critical, welcome in ((["qos"], True), (["qos", "keys"], False)):
        leg = in_state(S.OPENED)
        body = encode(msgspec.structs.replace(JOIN, critical=critical))
        events = feed(leg, control_frame(Kind.JOIN, body))
        assert (leg.state is S.QUEUED) is welcome
        if not welcome:
            assert "['keys']" in decode(Refusal, sent(leg)[0][1]).message
            assert events == [Dropped(flush=True)]


def test_unknown_fields_that_are_not_critical_are_ignored() -> None:
    leg = in_state(S.OPENED)
    fields = msgspec.msgpack.decode(encode(JOIN)) | {"colour": "blue"}
    feed(leg, control_frame(Kind.JOIN, msgspec.msgpack.encode(fields)))
    assert leg.state is S.QUEUED


@pytest.mark.parametrize(
    "answer",
    [
        msgspec.structs.replace(ANSWER, version=2),
        msgspec.structs.replace(ANSWER, critical=["keys"]),
        msgspec.structs.replace(ANSWER, facts=None),
        msgspec.structs.replace(ANSWER, qos=QosBody((9, 0, 1, 0, 0, 0, 0, 0), (0,) * 8)),
    ],
)
def test_an_answer_that_was_not_asked_for_fails_the_join(answer: Answer) -> None:
    leg = in_state(S.ASKED)
    failed, dropped = feed(leg, control_frame(Kind.ACCEPT, encode(answer)))
    assert isinstance(failed, JoinFailed)
    assert "broke the protocol" in failed.message
    assert dropped == Dropped(flush=False)


def test_a_root_that_invites_takes_no_facts_and_a_leaf_needs_them() -> None:
    plain = msgspec.structs.replace(ANSWER, facts=None)
    for request, answer, ok in (
        (INVITE, plain, True),
        (INVITE, ANSWER, False),
        (JOIN, ANSWER, True),
        (JOIN, plain, False),
    ):
        leg = end(asker=True, request=request)
        leg.connected(0)
        feed(leg, control_frame(Kind.ACCEPT, encode(answer)))
        assert leg.active is ok


@pytest.mark.parametrize("role", [0, 3, 5])
def test_a_role_that_is_none_is_a_breach_wherever_it_stands(role: int) -> None:
    fields = msgspec.msgpack.decode(encode(INVITE))
    for bad in ({**fields, "role": role}, {**fields, "facts": {**fields["facts"], "role": role}}):
        leg = in_state(S.OPENED)
        feed(leg, control_frame(Kind.INVITE, msgspec.msgpack.encode(bad)))
        assert leg.reason is EndReason.PROTOCOL_ERROR
    fields = msgspec.msgpack.decode(encode(ANSWER))
    for bad in ({**fields, "role": role}, {**fields, "facts": {**fields["facts"], "role": role}}):
        leg = in_state(S.ASKED)
        feed(leg, control_frame(Kind.ACCEPT, msgspec.msgpack.encode(bad)))
        assert leg.reason is EndReason.PROTOCOL_ERROR


@pytest.mark.parametrize("extra", [0, 1])
def test_connect_data_at_the_bound_pass_and_one_byte_more_is_a_breach(extra: int) -> None:
    data = bytes(MAX_CONNECT_DATA + extra)
    for state, kind, body in (
        (S.OPENED, Kind.JOIN, msgspec.structs.replace(JOIN, data=data)),
        (S.ASKED, Kind.ACCEPT, msgspec.structs.replace(ANSWER, data=data)),
        (S.ASKED, Kind.REFUSE, Refusal(WSAECONNREFUSED, "no", data)),
        (S.ACTIVE, Kind.LEAVE, Leave("closed", data)),
    ):
        leg = in_state(state)
        feed(leg, control_frame(kind, encode(body)))
        assert (leg.reason is EndReason.PROTOCOL_ERROR) is bool(extra)


def test_a_refusal_carries_code_sentence_and_data() -> None:
    leg = in_state(S.ASKED)
    events = feed(leg, frame(Kind.REFUSE))
    assert events == [JoinFailed(WSAECONNREFUSED, "no", b"why"), Dropped(flush=False)]
    leg = in_state(S.ASKED)
    failed = feed(leg, control_frame(Kind.REFUSE, encode(Refusal(0))))[0]
    assert failed == JoinFailed(WSAECONNREFUSED, "the join was refused")


def test_a_member_may_send_longer_bodies_than_a_stranger() -> None:
    long = data_header(MAX_CONTROL_BODY, 1, 0, 0) + bytes(MAX_CONTROL_BODY)
    stranger = in_state(S.QUEUED)
    feed(stranger, long)
    assert stranger.reason is EndReason.PROTOCOL_ERROR
    member = in_state(S.ACTIVE)
    assert [type(event) for event in feed(member, long)] == [Data]
    assert member.reader.max_body == (1 << 20) + MAX_FRAME_OVERHEAD


def test_what_the_peer_takes_is_learnt_and_never_more_than_this_end_takes() -> None:
    leg = in_state(S.OPENED)
    feed(leg, control_frame(Kind.JOIN, encode(msgspec.structs.replace(JOIN, max_message=1 << 30))))
    assert leg.peer_max_message == 1 << 20
    leaf = in_state(S.ASKED)
    feed(
        leaf,
        control_frame(Kind.ACCEPT, encode(msgspec.structs.replace(ANSWER, max_message=1 << 10))),
    )
    assert leaf.peer_max_message == 1 << 10


def test_a_leaf_that_takes_shorter_messages_than_the_session_has_is_refused_with_the_numbers() -> (
    None
):
    leg = in_state(S.OPENED)
    events = feed(
        leg, control_frame(Kind.JOIN, encode(msgspec.structs.replace(JOIN, max_message=1 << 10)))
    )
    assert events == [Dropped(flush=True)]
    kind, body = sent(leg)[0]
    refusal = decode(Refusal, body)
    assert (kind, refusal.code) == (Kind.REFUSE, WSAEOPNOTSUPP)
    assert "1048576" in refusal.message
    assert "1024" in refusal.message


@pytest.mark.parametrize(
    ("call", "state", "events", "word"),
    [
        (lambda leg: leg.lost(0), S.ASKED, [JoinFailed, Dropped], None),
        (lambda leg: leg.lost(0), S.OPENED, [Dropped], None),
        (lambda leg: leg.lost(0), S.ACTIVE, [Closed, Dropped], None),
        (lambda leg: leg.abort(), S.ACTIVE, [Dropped], None),
        (lambda leg: leg.close(EndReason.EXPELLED, b"x", 9), S.ACTIVE, [], "expelled"),
        (lambda leg: leg.close(EndReason.CLOSED, b"", 9), S.ASKED, [Dropped], "withdrawn"),
        (lambda leg: leg.close(EndReason.CLOSED, b"", 9), S.CONNECTING, [Dropped], None),
        (lambda leg: leg.close(EndReason.CLOSED, b"", 9), S.OPENED, [Dropped], None),
    ],
)
def test_ways_to_end(
    call: Callable[[Association], list[Event]], state: LegState, events: list[type], word: str
) -> None:
    leg = in_state(state)
    assert [type(event) for event in call(leg)] == events
    frames = sent(leg)
    assert [decode(Leave, body).reason for kind, body in frames if kind == Kind.LEAVE] == (
        [word] if word else []
    )
    assert call(leg) == []  # a second time changes nothing


@pytest.mark.parametrize("state", [S.QUEUED, S.OFFERED])
def test_closing_refuses_a_request_that_waits(state: LegState) -> None:
    leg = in_state(state)
    assert leg.close(EndReason.CLOSED, b"", 9) == [Dropped(flush=True)]
    [(kind, body)] = sent(leg)
    assert kind == Kind.REFUSE
    assert "closed" in decode(Refusal, body).message


def test_what_the_system_said_is_why_the_join_failed() -> None:
    leg = in_state(S.CONNECTING)
    assert leg.lost(0, code=WSAETIMEDOUT, message="no route")[0] == JoinFailed(
        WSAETIMEDOUT, "no route"
    )


@pytest.mark.parametrize("word", [*EndReason, "a word of next year", ""])
def test_leave_tells_its_reason_and_an_unknown_word_counts_as_closed(word: str) -> None:
    leg = in_state(S.ACTIVE)
    closed = feed(leg, control_frame(Kind.LEAVE, encode(Leave(word, b"bye"))))[0]
    assert isinstance(closed, Closed)
    assert closed.reason == (word if word in list(EndReason) else "closed")
    assert closed.data == b"bye"
    assert (closed.code == 0) is closed.reason.orderly


def test_a_broken_end_has_a_number_of_its_own() -> None:
    lost = in_state(S.ACTIVE).lost(0)[0]
    assert lost == Closed(EndReason.LOST, WSAECONNRESET)
    breach = feed(in_state(S.ACTIVE), frame(Kind.WHO))[0]
    assert breach == Closed(EndReason.PROTOCOL_ERROR, WSAECONNABORTED)


@pytest.mark.parametrize("size", [19, 21])
def test_a_gap_of_another_length_is_a_breach(size: int) -> None:
    assert feed(in_state(S.ACTIVE), frame(Kind.GAP)) == [Gap(0, 7, 3)]
    leg = in_state(S.ACTIVE)
    feed(leg, control_frame(Kind.GAP, (GAP_BODY + b"x")[:size]))
    assert leg.reason is EndReason.PROTOCOL_ERROR


# Clocks


def test_the_handshake_deadline_is_exact() -> None:
    leg = end(asker=False, deadline_ns=10 * SECOND)
    assert leg.next_deadline_ns() == 10 * SECOND
    assert leg.tick(10 * SECOND - 1) == []
    assert leg.tick(10 * SECOND) == [Dropped(flush=False)]
    assert leg.next_deadline_ns() is None


def test_a_request_in_time_stops_the_handshake_deadline() -> None:
    leg = end(asker=False, deadline_ns=SECOND)
    feed(leg, frame(Kind.JOIN), SECOND - 1)
    assert leg.tick(SECOND) == []
    assert leg.state is S.QUEUED


def test_an_asker_out_of_time_withdraws() -> None:
    leg = end(asker=True, request=JOIN, deadline_ns=SECOND)
    leg.connected(0)
    sent(leg)
    failed, dropped = leg.tick(SECOND)
    assert isinstance(failed, JoinFailed)
    assert failed.code == WSAETIMEDOUT
    assert dropped == Dropped(flush=True)
    assert [decode(Leave, body).reason for _, body in sent(leg)] == ["withdrawn"]


def test_signs_of_life_come_four_times_within_the_peers_bound() -> None:
    leg = in_state(S.ACTIVE)  # the peer's bound is 1 s
    beats, now = 0, 0
    while (now := leg.next_deadline_ns() or 0) < SECOND:
        leg.tick(now)
        leg.heard_ns = now
        beats += len(sent(leg))
    assert beats == 3
    leg.tick(SECOND)
    assert sent(leg) == [(Kind.BEAT, b"")]


def test_a_tiny_bound_of_the_peer_does_not_make_this_end_flood() -> None:
    leg = in_state(S.OPENED)
    feed(leg, control_frame(Kind.JOIN, encode(msgspec.structs.replace(JOIN, dead_after_ms=1))))
    assert leg.beat_every_ns == 50 * MS


def test_no_sign_of_life_is_added_to_what_already_waits() -> None:
    leg = in_state(S.ACTIVE)
    leg.outbox.push(b"something")
    size = leg.outbox.size
    leg.tick(SECOND)
    assert leg.outbox.size == size


@pytest.mark.parametrize("state", [S.ASKED, S.QUEUED, S.OFFERED, S.ACTIVE, S.ENDING])
def test_silence_ends_a_leg_at_the_bound_and_not_before(state: LegState) -> None:
    leg = in_state(state)
    leg.deadline_ns = None
    leg.tick(2 * SECOND - 1)
    assert leg.state is state
    leg.tick(2 * SECOND)
    assert leg.state is S.ENDED


def test_any_byte_is_a_sign_of_life() -> None:
    leg = in_state(S.ACTIVE)
    feed(leg, frame(Kind.GAP)[:3], SECOND)
    leg.tick(3 * SECOND - 1)
    assert leg.active
    events = leg.tick(3 * SECOND)
    assert events[0] == Closed(EndReason.TIMED_OUT, WSAECONNABORTED)


def test_silence_does_not_count_while_this_end_is_not_reading() -> None:
    leg = in_state(S.ACTIVE)
    leg.reading_ns = None
    leg.tick(100 * SECOND)
    assert leg.active
    leg.reading_ns = 100 * SECOND
    leg.tick(102 * SECOND - 1)
    assert leg.active
    leg.tick(102 * SECOND)
    assert leg.state is S.ENDED


def test_an_asker_with_a_longer_bound_is_not_taken_for_dead_as_soon_as_it_is_admitted() -> None:
    leg = in_state(S.OPENED)  # our bound is 2 s; the asker beats by its own of 60 s
    slow = msgspec.structs.replace(JOIN, dead_after_ms=60_000)
    feed(leg, control_frame(Kind.JOIN, encode(slow)))
    leg.offer()
    leg.tick(14 * SECOND)
    leg.admit(ANSWER)
    assert leg.tick(14 * SECOND + 1) == []
    feed(leg, frame(Kind.BEAT), 15 * SECOND)  # the answer has come, and with it our bound
    leg.tick(17 * SECOND - 1)
    assert leg.active
    leg.tick(17 * SECOND)
    assert leg.state is S.ENDED
    leg = in_state(S.OPENED)
    feed(leg, control_frame(Kind.JOIN, encode(slow)))
    leg.offer()
    leg.admit(ANSWER)
    leg.tick(60 * SECOND)
    assert leg.state is S.ENDED  # one that never says a word is dead by its own bound


def test_an_asker_cannot_hold_its_place_by_claiming_a_bound_of_weeks() -> None:
    leg = in_state(S.OPENED)
    weeks = msgspec.structs.replace(JOIN, dead_after_ms=1 << 32)
    feed(leg, control_frame(Kind.JOIN, encode(weeks)))
    assert leg.tick(60 * SECOND - 1) == []
    assert leg.tick(60 * SECOND) == [Withdrawn(EndReason.TIMED_OUT), Dropped(flush=False)]


def test_leave_that_is_not_answered_ends_at_the_deadline() -> None:
    leg = in_state(S.ENDING)
    leg.heard_ns = 4 * SECOND
    leg.tick(5 * SECOND - 1)
    assert leg.state is S.ENDING
    assert leg.tick(5 * SECOND) == [Dropped(flush=False)]


# Session keys

SECRET = b"s" * 16
CERTIFICATE = digest_of(b"certificate")


def secured(asker: bool, secret: bytes = SECRET) -> Association:
    """An end whose connection is encrypted, with the key still to be proved."""
    leg = end(asker=asker, request=JOIN if asker else None)
    if asker:
        leg.reached(0)
        assert leg.secured("", AskerGate(secret, CERTIFICATE, b"n" * 32), 0) == []
    else:
        assert leg.secured("", AnswererGate(secret, CERTIFICATE, b"c" * 32), 0) == []
    return leg


def outgoing(leg: Association) -> bytes:
    data = b"".join(bytes(part) for part in leg.outbox.head())
    leg.outbox.sent(len(data))
    return data


def test_the_asker_asks_only_once_it_has_been_challenged_and_is_heard_once_it_has_proved() -> None:
    asker, answerer = secured(True), secured(False)
    assert outgoing(asker) == b"", "connect data are not shown to whoever takes the connection"
    assert feed(asker, outgoing(answerer)) == []
    assert asker.state is S.ASKED
    [requested] = feed(answerer, outgoing(asker))
    assert isinstance(requested, Requested)
    assert answerer.identity == "session key"
    answerer.offer()
    answerer.admit(ANSWER)
    [joined] = feed(asker, outgoing(answerer))
    assert isinstance(joined, JoinSucceeded)
    assert asker.identity == "session key"


def test_a_wrong_secret_is_refused_and_told_to_the_owner_before_any_request_is_seen() -> None:
    asker, answerer = secured(True, b"x" * 16), secured(False)
    feed(asker, outgoing(answerer))
    events = feed(answerer, outgoing(asker))  # the request is right behind the proof
    assert [type(event) for event in events] == [WrongKey, Dropped]
    assert answerer.request is None
    assert answerer.identity == ""
    [failed, _] = feed(asker, outgoing(answerer))
    assert isinstance(failed, JoinFailed)
    assert (failed.code, failed.refused) == (WSAEACCES, True)
    assert "secret" in failed.message
    assert "join line" in failed.hint


@pytest.mark.parametrize("kind", sorted(set(Kind) - {Kind.BEAT, Kind.WHO}))
def test_nothing_else_is_heard_before_the_proof(kind: Kind) -> None:
    answerer = secured(False)
    events = feed(answerer, frame(kind) + frame(Kind.JOIN))
    assert answerer.state is S.ENDED
    assert answerer.request is None
    assert type(events[-1]) is Dropped


def test_the_roster_may_be_asked_for_without_the_key() -> None:
    assert feed(secured(False), frame(Kind.WHO)) == [Asked(), Dropped(flush=True)]


@pytest.mark.parametrize("kind", [Kind.ACCEPT, Kind.DATA, Kind.LEAVE])
def test_an_answer_without_the_proof_is_not_believed(kind: Kind) -> None:
    asker, answerer = secured(True), secured(False)
    feed(asker, outgoing(answerer))
    events = feed(asker, frame(kind))
    assert [type(event) for event in events] == [JoinFailed, Dropped]
    assert asker.reason is EndReason.PROTOCOL_ERROR


def test_an_answerer_that_proves_something_else_is_not_believed() -> None:
    asker, answerer = secured(True), secured(False)
    feed(asker, outgoing(answerer))
    [failed, _] = feed(asker, control_frame(Kind.PROOF, bytes(32)) + frame(Kind.ACCEPT))
    assert isinstance(failed, JoinFailed)
    assert "does not know the secret" in failed.message


def test_with_certificates_the_asker_asks_at_once_and_the_name_is_kept() -> None:
    leg = end(asker=True, request=JOIN)
    leg.reached(0)
    leg.secured("root.example", None, 0)
    assert (leg.state, leg.identity) == (S.ASKED, "root.example")
    assert [kind for kind, _ in sent(leg)] == [Kind.JOIN]


def test_who_goes_silent_while_the_connection_is_made_safe_is_not_waited_for_for_ever() -> None:
    leg = end(asker=True, request=JOIN)
    leg.reached(1 * SECOND)
    assert leg.next_deadline_ns() == 3 * SECOND
    [failed, _] = leg.tick(3 * SECOND)
    assert isinstance(failed, JoinFailed)
    assert failed.code == WSAETIMEDOUT


def test_a_join_may_be_given_up_while_the_connection_is_made_safe() -> None:
    leg = end(asker=True, request=JOIN)
    leg.reached(0)
    assert leg.close(EndReason.CANCELLED, b"", 0) == [Dropped(flush=False)]
    assert sent(leg) == []
