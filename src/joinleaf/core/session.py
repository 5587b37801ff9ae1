"""What both sides of a rooted session have in common: legs by key, requests, outputs.

The coordinator routes: what a leg says happened becomes an output for the owner, and what a member
sends goes to whoever hears it. It owns no rule of its own: legs decide in ``leg.py``, who hears
whom in ``data_plane.py``, reservations in ``qos/admission.py``. What is the root's alone, many legs
and a membership, is in ``root_session.py``; what is the leaf's, in ``leaf_session.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

from joinleaf.core.arrivals import Arrived, Data, GroupWord
from joinleaf.core.association import (
    Asked,
    Association,
    Closed,
    Dropped,
    Event,
    Gap,
    JoinFailed,
    JoinSucceeded,
    Named,
    QosAgreed,
    Requested,
    Withdrawn,
    WrongKey,
)
from joinleaf.core.data_plane import Member
from joinleaf.core.doorstep import Doorstep, Knock
from joinleaf.core.keys.gates import Gate
from joinleaf.core.keys.guesses import GuessLimiter
from joinleaf.core.leg import LegState
from joinleaf.core.qos.shaper import Shaper, shaper_of
from joinleaf.core.wire.control import (
    MAX_CONNECT_DATA,
    Answer,
    GroupFacts,
    Refusal,
    Request,
)
from joinleaf.core.wire.data import PackedBatch, pack, read_run
from joinleaf.core.wire.frames import (
    DATA_PREFIX,
    SIDE,
    FrameReader,
    Kind,
    control_frame,
)
from joinleaf.errors import RemoteProtocolError, SpiError
from joinleaf.spi.codes import WSAECONNREFUSED, WSAEFAULT, WSAENOTCONN
from joinleaf.spi.provider import (
    Batch,
    Buffer,
    EndReason,
    JoinRequest,
    JoinRole,
    Reject,
    Settings,
)
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.values import Address

__all__ = [
    "ROOT_ID",
    "SECOND",
    "Arrived",
    "Crowded",
    "Drop",
    "GroupOffered",
    "JoinEnded",
    "Leg",
    "LegEnded",
    "LegJoined",
    "Output",
    "QosChanged",
    "RequestGone",
    "RequestWaiting",
    "RosterAsked",
    "Session",
    "bounded",
    "gap_frame",
    "longest",
]

SECOND: Final = 1_000_000_000
ROOT_ID: Final = 0

COMPLAIN_EVERY_NS: Final = 10 * SECOND
"""Floods are told of this often at most, for somebody's log."""

REQUEST_OVERHEAD: Final = 1024
"""Bytes that a waiting request takes beside what its sender chose to put into it."""


@dataclass(frozen=True, slots=True)
class RequestWaiting:
    """A request is in the queue (FD_ACCEPT)."""

    key: int


@dataclass(frozen=True, slots=True)
class RosterAsked:
    """Somebody wants to know who is in the session; answer with ``answer_who`` or not at all."""

    key: int


@dataclass(frozen=True, slots=True)
class Crowded:
    """Somebody asks more of this end than is its share; ``text`` says who and what, for a log.

    The leg is one of those concerned, and may be gone already.
    """

    key: int
    text: str


@dataclass(frozen=True, slots=True)
class RequestGone:
    """A queued or offered request has been withdrawn."""

    key: int
    reason: EndReason


@dataclass(frozen=True, slots=True)
class LegJoined:
    """The leg is a member now; ``answer`` is the callee's where this end asked."""

    key: int
    answer: Answer | None


@dataclass(frozen=True, slots=True)
class JoinEnded:
    """This end asked and did not get in."""

    key: int
    failure: JoinFailed


@dataclass(frozen=True, slots=True)
class LegEnded:
    """A membership ended (FD_CLOSE). ``message``: how the other side broke the protocol."""

    key: int
    reason: EndReason
    code: int
    data: bytes
    message: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class GroupOffered:
    """The root has a multicast stream: hear it if you can (``LeafSession.hear_group``)."""

    key: int
    facts: GroupFacts


@dataclass(frozen=True, slots=True)
class QosChanged:
    """The agreed flow specifications of a leg changed, or this end's wish was refused (FD_QOS).

    Attributes:
        key: The leg.
        qos: What holds now; None: nothing was agreed.
        refused: Why a wish was refused; ``""``: it was not.
    """

    key: int
    qos: Qos | None
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Drop:
    """Give the connection back, at once or when all is flushed."""

    key: int
    flush: bool


Output = (
    RequestWaiting
    | RosterAsked
    | Crowded
    | RequestGone
    | LegJoined
    | JoinEnded
    | LegEnded
    | Arrived
    | GroupOffered
    | QosChanged
    | Drop
)


@dataclass(slots=True)
class Leg:
    """What a session keeps of one association beyond its machine.

    Attributes:
        member: The peer in the data plane, once it is a member.
        expected: By sender, the number of its next message on this leg.
        missed: By sender, first number and count of messages dropped and not yet told.
        named: Leaf ids whose address the peer knows.
        dropped: Messages dropped so far by the slow policy.
        directs: Messages for this leaf only, so far.
        qos: Agreed flow specifications.
        flow: What this end keeps to when it sends by this leg; None: nothing was agreed.
        shaper: Holds it to that; None: it limits no rate.
        answer: What the end that was asked has answered.
        put_off: It comes from where too many come from; its request is refused.
    """

    association: Association
    member: Member | None = None
    expected: dict[int, int] = field(default_factory=dict)
    missed: dict[int, tuple[int, int]] = field(default_factory=dict)
    named: set[int] = field(default_factory=set)
    dropped: int = 0
    directs: int = 0
    qos: Qos | None = None
    flow: FlowSpec | None = None
    shaper: Shaper | None = None
    answer: Answer | None = None
    put_off: bool = False

    @property
    def outgoing(self) -> FlowSpec | None:
        """What was agreed for what this end sends; it is stated as the asker sees it."""
        if self.qos is None:
            return None
        return self.qos.sending if self.association.asker else self.qos.receiving

    def shape(self, flow: FlowSpec | None, now_ns: int) -> None:
        """Keep what this end sends to a flow specification from now on."""
        self.flow = flow
        self.shaper = shaper_of(flow, now_ns, self.shaper)


class Session(ABC):
    """What root and leaf have in common: legs by key, a queue of requests, outputs.

    Attributes:
        legs: Every association that has not been given back, by key.
        out: Outputs, oldest first; the owner takes them.
        dirty: Keys of legs with something to send, in order.
        touched: Keys of legs that the application or a clock did something to, which may have
            brought their deadlines forward; the owner clears it. What the network does to a leg's
            deadlines shows in an output.
        counters: Named counts.
        sequence: Number of this end's next message.
        doorstep: Who has connected and is no member yet.
    """

    _keep_bytes: ClassVar = 0  # of a reader's memory between messages; a root may have a thousand

    def __init__(
        self, settings: Settings, incarnation: bytes, scratch: memoryview | None = None
    ) -> None:
        self.settings = settings
        self.incarnation = incarnation
        self.legs: dict[int, Leg] = {}
        self.queue: dict[int, None] = {}
        self.out: deque[Output] = deque()
        self.dirty: dict[int, None] = {}
        self.touched: dict[int, None] = {}
        self.counters: dict[str, int] = {}
        self.sequence = 0
        self.backlog = settings.backlog
        self.doorstep = Doorstep()
        self._complained_ns: int | None = None
        self._guesses = GuessLimiter()
        self._now_ns = 0  # of the latest input
        self._scratch = scratch if scratch is not None else memoryview(bytearray(1 << 16))

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter."""
        self.counters[name] = self.counters.get(name, 0) + amount

    # Connections

    def connection_opened(self, key: int, peer: Address, local: Address, now_ns: int) -> None:
        """Somebody has connected; it has ``join_timeout`` to say a valid word."""
        self._now_ns = now_ns
        knock = self.doorstep.knock(peer.host, now_ns)
        deadline = now_ns + int(self.settings.join_timeout * SECOND)
        leg = self._add(key, peer, local, now_ns, asker=False, deadline_ns=deadline)
        self.count("connections_opened")
        if knock is not Knock.HEARD:
            self._complain(key, f"{peer.host} connects too often, and is put off")
        if knock is Knock.IGNORED:
            self.count("connections_ignored")
            self.process(key, leg.association.abort())
            return
        leg.put_off = knock is Knock.PUT_OFF
        excess = self.doorstep.half_open_excess(peer.host)
        if excess is not None:
            self._evict(excess, "has many connections that say nothing")
        self.doorstep.stand(key, peer.host)

    def _evict(self, key: int, text: str) -> None:
        leg = self.legs[key].association
        self.count("half_open_evicted")
        self._complain(key, f"{leg.peer.host} {text}: the oldest is dropped")
        self.process(key, leg.lost(self._now_ns))

    def _complain(self, key: int, text: str) -> None:
        last_ns = self._complained_ns
        if last_ns is None or self._now_ns - last_ns >= COMPLAIN_EVERY_NS:
            self._complained_ns = self._now_ns
            self.out.append(Crowded(key, text))

    def _weigh(self, key: int) -> None:
        """What a stranger has sent of a frame is held for it; all together may not be much."""
        self.doorstep.holds(key, self.legs[key].association.reader.pending)
        while (excess := self.doorstep.partial_excess()) is not None:
            self._evict(excess, "holds much memory by frames it does not finish")

    def _add(
        self,
        key: int,
        peer: Address,
        local: Address,
        now_ns: int,
        *,
        asker: bool,
        deadline_ns: int | None,
        request: Request | None = None,
    ) -> Leg:
        leg = Leg(
            Association(
                asker=asker,
                peer=peer,
                local=local,
                reader=FrameReader(self._scratch, keep=self._keep_bytes),
                now_ns=now_ns,
                deadline_ns=deadline_ns,
                dead_after_ns=int(self.settings.dead_after * SECOND),
                max_message=self.settings.max_message,
                request=request,
            )
        )
        self.legs[key] = leg
        self.touched[key] = None
        return leg

    def connected(self, key: int, now_ns: int) -> None:
        """The connection this end asked for stands."""
        self.process(key, self.legs[key].association.connected(now_ns))

    def hears(self, peer: Address, now_ns: int) -> bool:
        """Whether a new connection from there is taken: not after too many wrong keys."""
        if self._guesses.heard(peer.host, now_ns):
            return True
        self.count("connections_turned_away")
        return False

    def reached(self, key: int, now_ns: int) -> None:
        """The connection this end asked for stands, and is now being encrypted."""
        self.process(key, self.legs[key].association.reached(now_ns))

    def secured(self, key: int, now_ns: int, identity: str, gate: Gate | None) -> None:
        """The connection is encrypted; see ``Association.secured``."""
        self._now_ns = now_ns
        self.process(key, self.legs[key].association.secured(identity, gate, now_ns))

    def received(self, key: int, count: int, now_ns: int, wall_ns: int) -> None:
        """``count`` bytes are in the leg's reader; ``wall_ns`` dates what they carry."""
        self._now_ns = now_ns
        self.process(key, self.legs[key].association.received(count, now_ns), wall_ns)
        if self.doorstep.places and key in self.doorstep.places:
            self._weigh(key)

    def straight(self, key: int, count: int, now_ns: int, wall_ns: int) -> Batch | None:
        """As ``received``, where nothing but the next messages of the peer has come.

        Returns:
            What has come, which is then in no output; None, with nothing changed, if anything else
            has come or is to be done: call ``received``.
        """
        leg = self.legs[key]
        association = leg.association
        if self.out or not association.active or association.reader.pending:
            return None
        sender = self._heard_alone(leg)
        sequence = leg.expected.get(sender)
        if sequence is None:
            return None
        reader, limit = association.reader, self.settings.max_message
        messages = read_run(reader.buffer(), count, sender, sequence, limit)
        if not messages:
            return None
        leg.expected[sender] = sequence + len(messages)
        self._now_ns = association.heard_ns = now_ns
        self.count("messages_received", len(messages))
        return Batch(messages, association.peer, sequence, wall_ns)

    @abstractmethod
    def _heard_alone(self, leg: Leg) -> int:
        """Whose messages a leg brings to this end, and to nobody else; -1: it is not so simple."""

    @abstractmethod
    def pack(self, messages: Sequence[Buffer], keys: Sequence[int]) -> PackedBatch:
        """The frames of this end's next batch for all that hear it, by these legs.

        Raises:
            SpiError: WSAEMSGSIZE. In no case has anything changed.
        """

    @abstractmethod
    def packed_sent(self, packed: PackedBatch) -> None:
        """The batch made last has been sent to, or queued for, all that hear this end."""

    def lost(
        self, key: int, now_ns: int, *, code: int = 0, message: str = "", hint: str = ""
    ) -> None:
        """The leg's connection is gone."""
        leg = self.legs[key].association
        self.process(key, leg.lost(now_ns, code=code, message=message, hint=hint))

    def removed(self, key: int) -> None:
        """The owner has given the connection back."""
        self.legs.pop(key, None)
        self.dirty.pop(key, None)
        self.doorstep.leave(key)
        self.queue.pop(key, None)

    # Requests

    def offer(self) -> tuple[int, JoinRequest] | None:
        """Take up the first waiting request for a decision."""
        for key in self.queue:
            association = self.legs[key].association
            if association.state is LegState.QUEUED:
                association.offer()
                return key, self._join_request(association)
        return None

    def _join_request(self, association: Association) -> JoinRequest:
        request = association.request
        assert request is not None
        return JoinRequest(
            peer=association.peer,
            local=association.local,
            data=request.data,
            qos=request.qos.qos() if request.qos else None,
            role=JoinRole(request.role),
            name=request.name,
            incarnation=request.incarnation,
            identity=association.identity,
        )

    def defer(self, key: int) -> None:
        """CF_DEFER: the request stays first."""
        if key in self.legs:
            self.legs[key].association.defer()

    def reject(self, key: int, verdict: Reject, *, code: int = WSAECONNREFUSED) -> None:
        """CF_REJECT."""
        if key in self.legs:
            refusal = Refusal(code, verdict.message[:1024], bounded(verdict.data))
            self.count("joins_refused")
            self.queue.pop(key, None)
            self.process(key, self.legs[key].association.refuse(refusal))

    def close_leg(
        self, key: int, reason: EndReason, data: bytes, now_ns: int, linger_ns: int
    ) -> None:
        """Take leave of one leg in order; WSAEFAULT if ``data`` is over its bound."""
        bounded(data)
        if (leg := self.legs.get(key)) is not None:
            self.queue.pop(key, None)
            self._tell_missed(leg)
            self.process(key, leg.association.close(reason, data, now_ns + linger_ns))

    def abort_leg(self, key: int) -> None:
        """End one leg without ceremony."""
        if (leg := self.legs.get(key)) is not None:
            self.queue.pop(key, None)
            self.process(key, leg.association.abort())

    def tick(self, now_ns: int) -> None:
        """Run every clock that is due.

        The owner's one timer is used up by this, whichever leg it was set for, so all legs count
        as touched: the others' clocks would stand still until something else happened to them.
        """
        self._now_ns = now_ns
        self.touched.update(dict.fromkeys(self.legs))
        for key, leg in list(self.legs.items()):
            due = leg.association.next_deadline_ns()
            if due is not None and due <= now_ns:
                self.process(key, leg.association.tick(now_ns))

    def next_deadline_ns(self, keys: Iterable[int] | None = None) -> int | None:
        """When ``tick`` has something to do; for some legs only, if their keys are given."""
        legs = (
            self.legs.values()
            if keys is None
            else [leg for key in keys if (leg := self.legs.get(key)) is not None]
        )
        times = (leg.association.next_deadline_ns() for leg in legs)
        return min((time for time in times if time is not None), default=None)

    # Events of legs

    def process(self, key: int, events: Iterable[Event], wall_ns: int = 0) -> None:
        """Turn a leg's events into outputs; a breach found here ends the leg as well.

        ``wall_ns`` dates received bytes, and is 0 for all else.
        """
        leg = self.legs[key]
        if not wall_ns:
            self.touched[key] = None
        try:
            for event in events:
                self._event(key, leg, event, wall_ns)
        except RemoteProtocolError as error:
            for event in leg.association.breach(str(error)):
                self._event(key, leg, event, wall_ns)
        if leg.association.outbox:
            self.dirty[key] = None

    def _event(self, key: int, leg: Leg, event: Event, wall_ns: int) -> None:
        match event:
            case Data():
                self._data(key, leg, event, wall_ns)
            case Gap():
                self._gap(key, leg, event, wall_ns)
            case GroupWord():
                self._group_word(key, leg, event, wall_ns)
            case Named():
                self._named(event)
            case QosAgreed():
                self._qos_agreed(key, leg, event)
            case Requested():
                self._requested(key, leg, event.request)
            case Asked():
                self.doorstep.leave(key)
                self.out.append(RosterAsked(key))
            case Withdrawn():
                self.queue.pop(key, None)
                self.count("joins_withdrawn")
                self.out.append(RequestGone(key, event.reason))
            case WrongKey():
                self.count("keys_wrong")
                self._guesses.wrong(leg.association.peer.host, self._now_ns)
            case JoinSucceeded():
                self.doorstep.leave(key)
                self._joined(key, leg, event.answer)
            case JoinFailed():
                self.out.append(JoinEnded(key, event))
            case Closed():
                if event.reason is EndReason.PROTOCOL_ERROR:
                    self.count("protocol_errors")
                self._left(key, leg)
                self.out.append(LegEnded(key, event.reason, event.code, event.data, event.message))
            case Dropped():
                if self.doorstep.leave(key):
                    self.count("handshakes_failed")
                self._left(key, leg)
                self.out.append(Drop(key, event.flush))

    def _requested(self, key: int, leg: Leg, request: Request) -> None:
        self.doorstep.spoke(key)
        size = REQUEST_OVERHEAD + request.weight
        if wrong := self._unwanted(request) or self._no_room(key, leg, size):
            self.process(key, leg.association.refuse(Refusal(WSAECONNREFUSED, wrong)))
            return
        self.doorstep.waits(key, size)
        self.queue[key] = None
        self.out.append(RequestWaiting(key))

    def _no_room(self, key: int, leg: Leg, size: int) -> str:
        """Why a request of so many bytes cannot wait for an answer, or ``""``."""
        if leg.put_off:
            self.count("joins_put_off")
            return "too many connections come from your address; try again in a minute"
        if len(self.queue) >= self.backlog:
            self.count("backlog_full")
            return "too many requests are waiting; try again later"
        if not self.doorstep.may_wait(key, size, self.backlog):
            self.count("backlog_full")
            self._complain(key, f"{leg.association.peer.host} has many requests waiting")
            return "too many requests from your address are waiting; try again later"
        return ""

    @abstractmethod
    def _unwanted(self, request: Request) -> str:
        """Why this side can do nothing with the request, or ``""``."""

    @abstractmethod
    def _qos_agreed(self, key: int, leg: Leg, word: QosAgreed) -> None:
        """The peer says that the agreed flow specifications changed, or shall change."""

    @abstractmethod
    def _joined(self, key: int, leg: Leg, answer: Answer | None) -> None:
        """The leg is a member; ``answer`` is the peer's where this end asked."""

    def _left(self, key: int, leg: Leg) -> None:
        leg.member = None

    @abstractmethod
    def _data(self, key: int, leg: Leg, event: Data, wall_ns: int) -> None:
        """A DATA frame of a member."""

    @abstractmethod
    def _gap(self, key: int, leg: Leg, event: Gap, wall_ns: int) -> None:
        """The peer says that messages are missing."""

    @abstractmethod
    def _named(self, event: Named) -> None:
        """The peer says which address a leaf id stands for."""

    @abstractmethod
    def _group_word(self, key: int, leg: Leg, word: GroupWord, wall_ns: int) -> None:
        """The peer says something about the multicast stream."""

    def _tell_missed(self, leg: Leg) -> None:
        for sender, (first, count) in leg.missed.items():
            leg.association.outbox.push(gap_frame(sender, first, count))
        leg.missed.clear()

    def _check_sequence(self, leg: Leg, sender: int, sequence: int, count: int) -> None:
        expected = leg.expected.get(sender, sequence)
        if sequence != expected:
            raise RemoteProtocolError(f"message {sequence} where {expected} is due")
        leg.expected[sender] = sequence + count

    def _member_leg(self, key: int) -> Leg:
        leg = self.legs.get(key)
        if leg is None or not leg.association.active:
            raise SpiError(WSAENOTCONN, "the other side is no member", call="send")
        return leg

    def send_side(self, key: int, messages: Sequence[Buffer]) -> PackedBatch:
        """Queue side chat on one leg; WSAENOTCONN if there is no member at its other end."""
        leg = self._member_leg(key)
        packed = pack(
            messages,
            sender=ROOT_ID,
            sequence=0,
            flags=SIDE,
            max_message=leg.association.peer_max_message,
        )
        leg.association.outbox.extend(packed.buffers, packed.size)
        self.dirty[key] = None
        return packed

    def own_outboxes(self, keys: Iterable[int]) -> None:
        """Copy what is still queued on these legs, so that the sender may reuse its memory."""
        for key in keys:
            if (leg := self.legs.get(key)) is not None and leg.association.outbox:
                leg.association.outbox.own()


def gap_frame(sender: int, first: int, count: int = 0) -> bytes:
    """Messages of a sender from ``first`` on that a leg will not get; 0: only where they stand."""
    return control_frame(Kind.GAP, DATA_PREFIX.pack(sender, first) + count.to_bytes(8, "big"))


def longest(limit: int, flow: FlowSpec | None) -> int:
    """The longest message: of the session, or of what was agreed (MaxSduSize) if that is less."""
    agreed = flow.max_message if flow is not None else None
    return limit if not agreed else min(limit, agreed)


def bounded(data: bytes) -> bytes:
    """The same connect or disconnect data; WSAEFAULT if they are over their bound."""
    if len(data) > MAX_CONNECT_DATA:
        raise SpiError(
            WSAEFAULT,
            f"connect data of {len(data)} bytes is over the limit of {MAX_CONNECT_DATA}",
            hint="Send larger things as messages once joined",
        )
    return data
