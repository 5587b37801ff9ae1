"""Both sides of a rooted session as a whole: many legs at the root, one at a leaf.

The coordinator routes: what a leg says happened becomes an output for the owner, and what a member
sends goes to whoever hears it. It owns no rule of its own: legs decide in ``leg.py``, who hears
whom in ``data_plane.py``, reservations in ``qos/admission.py``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from joinleaf.core.association import (
    Asked,
    Association,
    Closed,
    Data,
    Dropped,
    Event,
    Gap,
    JoinFailed,
    JoinSucceeded,
    Named,
    QosAgreed,
    Requested,
    Withdrawn,
)
from joinleaf.core.data_plane import Member, hears
from joinleaf.core.leg import LegState
from joinleaf.core.qos.admission import Admission
from joinleaf.core.wire.control import (
    MAX_CONNECT_DATA,
    VERSION,
    Answer,
    Name,
    QosBody,
    Refusal,
    Request,
    Roster,
    SessionFacts,
    encode,
)
from joinleaf.core.wire.data import PackedBatch, pack, unpack
from joinleaf.core.wire.frames import (
    DATA_PREFIX,
    DIRECT,
    SIDE,
    FrameReader,
    Kind,
    control_frame,
    data_header,
)
from joinleaf.errors import RemoteProtocolError, SpiError
from joinleaf.spi.codes import WSAECONNREFUSED, WSAEFAULT, WSAENOTCONN
from joinleaf.spi.provider import (
    Accept,
    Batch,
    Buffer,
    EndReason,
    JoinRequest,
    JoinRole,
    Reject,
    Settings,
    SlowPolicy,
)
from joinleaf.spi.qos import Qos
from joinleaf.values import Address

__all__ = [
    "Arrived",
    "Drop",
    "JoinEnded",
    "LeafSession",
    "LegEnded",
    "LegJoined",
    "QosChanged",
    "RequestGone",
    "RequestWaiting",
    "RootSession",
    "RosterAsked",
    "Session",
]

SECOND: Final = 1_000_000_000
ROOT_ID: Final = 0

MAX_HALF_OPEN: Final = 1024
"""Connections that have not yet said a valid word. When they are more, the oldest is dropped: an
honest joiner speaks within one round trip, a flood does not (compare the SYN backlog)."""

MAX_HALF_OPEN_PER_HOST: Final = 256
"""The same for one address, so that one host cannot push out the others' joins."""


@dataclass(frozen=True, slots=True)
class RequestWaiting:
    """A request is in the queue (FD_ACCEPT)."""

    key: int


@dataclass(frozen=True, slots=True)
class RosterAsked:
    """Somebody wants to know who is in the session; answer with ``answer_who`` or not at all."""

    key: int


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
    """A membership ended (FD_CLOSE)."""

    key: int
    reason: EndReason
    code: int
    data: bytes


class Arrived(msgspec.Struct, gc=False):
    """Messages for this end. Not a dataclass, as the others: there is one for each frame.

    Attributes:
        key: The leg they came by.
        batch: The messages.
        size: About how many bytes they take.
    """

    key: int
    batch: Batch
    size: int


@dataclass(frozen=True, slots=True)
class QosChanged:
    """The agreed flow specifications of a leg changed (FD_QOS)."""

    key: int
    qos: Qos


@dataclass(frozen=True, slots=True)
class Drop:
    """Give the connection back, at once or when all is flushed."""

    key: int
    flush: bool


Output = (
    RequestWaiting
    | RosterAsked
    | RequestGone
    | LegJoined
    | JoinEnded
    | LegEnded
    | Arrived
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
        qos: Agreed flow specifications.
        answer: What the end that was asked has answered.
    """

    association: Association
    member: Member | None = None
    expected: dict[int, int] = field(default_factory=dict)
    missed: dict[int, tuple[int, int]] = field(default_factory=dict)
    named: set[int] = field(default_factory=set)
    dropped: int = 0
    qos: Qos | None = None
    answer: Answer | None = None


class Session:
    """What root and leaf have in common: legs by key, a queue of requests, outputs.

    Attributes:
        legs: Every association that has not been given back, by key.
        out: Outputs, oldest first; the owner takes them.
        dirty: Keys of legs with something to send, in order.
        touched: Keys of legs that the application or a clock did something to, which may have
            brought their deadlines forward; the owner clears it. What the network does to a leg's
            deadlines shows in an output.
        counters: Named counts.
    """

    _keep_bytes = 0  # of a reader's memory between messages; a root may have a thousand

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
        self.backlog = settings.backlog
        self._half_open: dict[int, None] = {}
        self._now_ns = 0  # of the latest input
        self._scratch = scratch if scratch is not None else memoryview(bytearray(1 << 16))

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter."""
        self.counters[name] = self.counters.get(name, 0) + amount

    # Connections

    def connection_opened(self, key: int, peer: Address, local: Address, now_ns: int) -> None:
        """Somebody has connected; it has ``join_timeout`` to say a valid word."""
        self._make_room(peer)
        deadline = now_ns + int(self.settings.join_timeout * SECOND)
        self._add(key, peer, local, now_ns, asker=False, deadline_ns=deadline)
        self._half_open[key] = None
        self.count("connections_opened")

    def _make_room(self, peer: Address) -> None:
        if len(self._half_open) >= MAX_HALF_OPEN:
            self._evict(next(iter(self._half_open)))
            return
        same = [key for key in self._half_open if self.legs[key].association.peer.host == peer.host]
        if len(same) >= MAX_HALF_OPEN_PER_HOST:
            self._evict(same[0])

    def _evict(self, key: int) -> None:
        self.count("half_open_evicted")
        self.process(key, self.legs[key].association.abort())

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

    def received(self, key: int, count: int, now_ns: int, wall_ns: int) -> None:
        """``count`` bytes are in the leg's reader; ``wall_ns`` dates what they carry."""
        self._now_ns = now_ns
        self.process(key, self.legs[key].association.received(count, now_ns), wall_ns)

    def lost(self, key: int, now_ns: int, *, code: int = 0, message: str = "") -> None:
        """The leg's connection is gone."""
        self.process(key, self.legs[key].association.lost(now_ns, code=code, message=message))

    def removed(self, key: int) -> None:
        """The owner has given the connection back."""
        self.legs.pop(key, None)
        self.dirty.pop(key, None)
        self._half_open.pop(key, None)
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
        )

    def defer(self, key: int) -> None:
        """CF_DEFER: the request stays first."""
        if key in self.legs:
            self.legs[key].association.defer()

    def reject(self, key: int, verdict: Reject, *, code: int = WSAECONNREFUSED) -> None:
        """CF_REJECT."""
        if key in self.legs:
            refusal = Refusal(code, verdict.message[:1024], _bounded(verdict.data))
            self.count("joins_refused")
            self.queue.pop(key, None)
            self.process(key, self.legs[key].association.refuse(refusal))

    def close_leg(
        self, key: int, reason: EndReason, data: bytes, now_ns: int, linger_ns: int
    ) -> None:
        """Take leave of one leg in order; WSAEFAULT if ``data`` is over its bound."""
        _bounded(data)
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
            case Named():
                self._named(event)
            case QosAgreed():
                self._qos_agreed(key, leg, event.qos)
            case Requested():
                self._half_open.pop(key, None)
                self._requested(key, leg, event.request)
            case Asked():
                self._half_open.pop(key, None)
                self.out.append(RosterAsked(key))
            case Withdrawn():
                self.queue.pop(key, None)
                self.count("joins_withdrawn")
                self.out.append(RequestGone(key, event.reason))
            case JoinSucceeded():
                self._joined(key, leg, event.answer)
            case JoinFailed():
                self.out.append(JoinEnded(key, event))
            case Closed():
                if event.reason is EndReason.PROTOCOL_ERROR:
                    self.count("protocol_errors")
                self._left(key, leg)
                self.out.append(LegEnded(key, event.reason, event.code, event.data))
            case Dropped():
                if self._half_open.pop(key, 0) is None:
                    self.count("handshakes_failed")
                self._left(key, leg)
                self.out.append(Drop(key, event.flush))

    def _requested(self, key: int, leg: Leg, request: Request) -> None:
        wrong = self._unwanted(request)
        if not wrong and len(self.queue) >= self.backlog:
            self.count("backlog_full")
            wrong = "too many requests are waiting; try again later"
        if wrong:
            self.process(key, leg.association.refuse(Refusal(WSAECONNREFUSED, wrong)))
            return
        self.queue[key] = None
        self.out.append(RequestWaiting(key))

    def _unwanted(self, request: Request) -> str:
        """Why this side can do nothing with the request, or ``""``."""
        raise NotImplementedError

    def _qos_agreed(self, key: int, leg: Leg, qos: Qos) -> None:
        raise NotImplementedError

    def _joined(self, key: int, leg: Leg, answer: Answer | None) -> None:
        raise NotImplementedError

    def _left(self, key: int, leg: Leg) -> None:
        leg.member = None

    def _data(self, key: int, leg: Leg, event: Data, wall_ns: int) -> None:
        raise NotImplementedError

    def _gap(self, key: int, leg: Leg, event: Gap, wall_ns: int) -> None:
        raise NotImplementedError

    def _named(self, event: Named) -> None:
        raise RemoteProtocolError("NAME from a leaf")

    def _tell_missed(self, leg: Leg) -> None:
        for sender, (first, count) in leg.missed.items():
            body = DATA_PREFIX.pack(sender, first) + count.to_bytes(8, "big")
            leg.association.outbox.push(control_frame(Kind.GAP, body))
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


class RootSession(Session):
    """The c_root's side.

    Attributes:
        session_id: The session's identity.
        rooted: Whether the data plane is rooted.
        myself: The root in the data plane.
        sequence: Number of the root's next message.
        view: Number of the membership; grows with every change.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        session_id: bytes,
        incarnation: bytes,
        rooted: bool,
        d_root: bool,
        role: JoinRole = JoinRole.BOTH,
        qos: Qos | None = None,
        scratch: memoryview | None = None,
    ) -> None:
        super().__init__(settings, incarnation, scratch)
        self.session_id = session_id
        self.rooted = rooted
        self.myself = Member(ROOT_ID, d_root=d_root, role=role)
        self.qos = qos
        self.sequence = 0
        self.view = 0
        self.admission = Admission(settings.capacity)
        self._next_leaf = 1
        self._by_leaf: dict[int, int] = {}
        self._routes: dict[int, tuple[int, ...]] = {}

    @property
    def members(self) -> list[int]:
        """Keys of the legs whose peers are members, oldest first."""
        return list(self._by_leaf.values())

    def set_role(self, role: JoinRole) -> None:
        """Take a role towards the session; later joins with another make it the union."""
        self.myself = Member(ROOT_ID, d_root=self.myself.d_root, role=role)
        self._routes.clear()

    def invite(
        self,
        key: int,
        peer: Address,
        local: Address,
        now_ns: int,
        *,
        data: bytes,
        qos: Qos | None,
        deadline_ns: int | None,
    ) -> None:
        """Start asking a leaf; the connection is being made. WSAEFAULT if data are too long."""
        request = self._ask(_bounded(data), qos, facts=self._facts(self._new_leaf_id()))
        self._add(key, peer, local, now_ns, asker=True, deadline_ns=deadline_ns, request=request)

    def _ask(self, data: bytes, qos: Qos | None, facts: SessionFacts | None) -> Request:
        return Request(
            versions=(VERSION, VERSION),
            incarnation=self.incarnation,
            role=self.myself.role,
            dead_after_ms=max(1, int(self.settings.dead_after * 1000)),
            max_message=self.settings.max_message,
            data=data,
            qos=QosBody.of(qos),
            name=self.settings.name,
            facts=facts,
        )

    def _new_leaf_id(self) -> int:
        leaf, self._next_leaf = self._next_leaf, self._next_leaf + 1
        return leaf

    def _facts(self, leaf: int) -> SessionFacts:
        return SessionFacts(
            session=self.session_id,
            leaf=leaf,
            rooted=self.rooted,
            d_root=self.myself.d_root,
            role=self.myself.role,
            sequence=self.sequence,
        )

    def admit(self, key: int, verdict: Accept) -> None:
        """CF_ACCEPT.

        Raises:
            SpiError: WSAEOPNOTSUPP, the reservation does not fit, or WSAECONNREFUSED, a second
                d_root; the asker has been refused with that.
        """
        leg = self.legs.get(key)
        if leg is None or leg.association.state is not LegState.OFFERED:
            return
        request = leg.association.request
        assert request is not None
        _bounded(verdict.data)
        try:
            self._check_d_root(request.d_root)
            asked = request.qos.qos() if request.qos else None
            leg.qos = verdict.qos or asked
            self._reserve(key, leg.qos)
        except SpiError as error:
            self.reject(key, Reject(message=str(error)), code=error.code)
            raise
        self.queue.pop(key, None)
        answer = Answer(
            version=VERSION,
            incarnation=self.incarnation,
            dead_after_ms=max(1, int(self.settings.dead_after * 1000)),
            max_message=self.settings.max_message,
            role=self.myself.role,
            d_root=self.myself.d_root,
            data=verdict.data,
            qos=QosBody.of(leg.qos),
            name=self.settings.name,
            facts=self._facts(self._new_leaf_id()),
        )
        leg.answer = answer
        self.process(key, leg.association.admit(answer))

    def _check_d_root(self, claimed: bool) -> None:
        others = (leg.member for leg in self.legs.values() if leg.member is not None)
        if claimed and (
            not self.rooted or self.myself.d_root or any(member.d_root for member in others)
        ):
            raise SpiError(
                WSAECONNREFUSED,
                "the session has a data root already",
                hint="Join as d_leaf, or make the c_root a d_leaf",
            )

    def check_capacity(self, qos: Qos | None) -> None:
        """Raise WSAEOPNOTSUPP where no invitation with these specifications could be kept."""
        self._reserve(ROOT_ID, qos)
        self.admission.release(("down", ROOT_ID))
        self.admission.release(("up", ROOT_ID))

    def _reserve(self, key: int, qos: Qos | None) -> None:
        if qos is None:
            return
        self.admission.reserve(("down", key), qos.receiving)
        try:
            self.admission.reserve(("up", key), qos.sending)
        except SpiError:
            self.admission.release(("down", key))
            raise

    def _joined(self, key: int, leg: Leg, answer: Answer | None) -> None:
        request = leg.association.request
        assert request is not None
        if answer is None:  # a leaf asked, and this end answered
            assert leg.answer is not None
            facts, role, d_root = leg.answer.facts, request.role, request.d_root
        else:
            facts, role, d_root = request.facts, answer.role, answer.d_root
            asked = request.qos.qos() if request.qos else None
            leg.qos = answer.qos.qos() if answer.qos else asked
            leg.answer = answer
            if not self._may_join(key, leg, d_root):
                return
        assert facts is not None
        leg.member = Member(facts.leaf, d_root=d_root, role=JoinRole(role))
        self._by_leaf[facts.leaf] = key
        self._membership_changed()
        self.count("joins_admitted")
        self.out.append(LegJoined(key, answer))

    def _may_join(self, key: int, leg: Leg, d_root: bool) -> bool:
        """Whether an invited leaf may be what it answered that it is; if not, it is put out."""
        try:
            self._check_d_root(d_root)
            self._reserve(key, leg.qos)
        except SpiError as error:
            self.out.append(JoinEnded(key, JoinFailed(error.code, str(error))))
            self.process(key, leg.association.abort())
            return False
        return True

    def _unwanted(self, request: Request) -> str:
        return "this is the root of a session, and cannot be invited" if request.facts else ""

    def _qos_agreed(self, key: int, leg: Leg, qos: Qos) -> None:
        raise RemoteProtocolError("QOS from a leaf")  # else it would go round admission

    def _left(self, key: int, leg: Leg) -> None:
        self.admission.release(("up", key))
        self.admission.release(("down", key))
        if leg.member is not None:
            del self._by_leaf[leg.member.key]
            leg.member = None
            self._membership_changed()

    def _membership_changed(self) -> None:
        self.view += 1
        self._routes.clear()

    def close_leg(
        self, key: int, reason: EndReason, data: bytes, now_ns: int, linger_ns: int
    ) -> None:
        """Take leave of one leg; it is no member from this moment on."""
        super().close_leg(key, reason, data, now_ns, linger_ns)
        if (leg := self.legs.get(key)) is not None and not leg.association.active:
            self._left(key, leg)

    # Data

    def listeners(self, sender: Member) -> tuple[int, ...]:
        """Keys of the legs whose members hear this one."""
        keys = self._routes.get(sender.key)
        if keys is None:
            keys = self._routes[sender.key] = tuple(
                key
                for key in self._by_leaf.values()
                if (member := self.legs[key].member) is not None
                and hears(member, sender, rooted=self.rooted)
            )
        return keys

    def over_limit(self, keys: Iterable[int]) -> list[int]:
        """Those legs that have more queued than the settings allow."""
        limit = self.settings.queue_bytes
        return [
            key
            for key in keys
            if (leg := self.legs.get(key)) is not None and leg.association.outbox.size > limit
        ]

    def send(
        self, messages: Sequence[Buffer], now_ns: int, to: Collection[int] | None = None
    ) -> PackedBatch:
        """Queue a batch of the root's for everybody who hears it, or for the legs given.

        Messages for some legs only are outside the root's numbering.

        Raises:
            SpiError: WSAENOTCONN, one of the legs given is no member's; WSAEMSGSIZE.
        """
        self._now_ns = now_ns
        direct = to is not None
        for key in to or ():
            self._member_leg(key)
        packed = pack(
            messages,
            sender=ROOT_ID,
            sequence=0 if direct else self.sequence,
            flags=DIRECT if direct else 0,
            max_message=self.settings.max_message,
        )
        first = self.sequence
        if not direct:
            self.sequence += packed.count
        for key in self.listeners(self.myself) if to is None else to:
            self._give(key, packed.buffers, packed.size, ROOT_ID, first, packed.count, direct)
        self.count("messages_sent", packed.count)
        return packed

    def _give(
        self,
        key: int,
        buffers: Sequence[Buffer],
        size: int,
        sender: int,
        first: int,
        count: int,
        direct: bool = False,
    ) -> None:
        leg = self.legs[key]
        outbox = leg.association.outbox
        if (
            outbox.size
            and self.settings.slow is not SlowPolicy.WAIT
            and not direct  # addressed by name: waits, whatever the policy
            and outbox.size + size > self.settings.queue_bytes
        ):
            self._too_slow(key, leg, sender, first, count)
            return
        if leg.missed and not direct:
            self._tell_missed(leg)
        outbox.extend(buffers, size)
        self.dirty[key] = None

    def _too_slow(self, key: int, leg: Leg, sender: int, first: int, count: int) -> None:
        """Apply the policy to a leg whose queue is full."""
        if self.settings.slow is SlowPolicy.EXPEL:
            self.count("leaves_expelled_slow")
            self._left(key, leg)
            self.out.append(LegEnded(key, EndReason.SLOW, 0, b""))
            # What is queued stays, bounded: if the leaf wakes up in time it reads why it left.
            deadline = self._now_ns + int(self.settings.linger * SECOND)
            self.process(key, leg.association.close(EndReason.SLOW, b"", deadline))
            return
        earlier, missing = leg.missed.get(sender, (first, 0))
        leg.missed[sender] = (earlier, missing + count)
        leg.dropped += count
        self.count("messages_dropped", count)

    def flushed(self, key: int) -> None:
        """The leg's queue is empty: tell it now what it missed, even if nothing follows."""
        leg = self.legs.get(key)
        if leg is not None and leg.missed and leg.association.active:
            self._tell_missed(leg)
            self.dirty[key] = None

    def _data(self, key: int, leg: Leg, event: Data, wall_ns: int) -> None:
        member = leg.member
        if member is None:
            return
        _, sequence = DATA_PREFIX.unpack_from(event.body)
        side = event.flags & SIDE  # no session data, and hence of no role
        if event.flags & DIRECT or not (member.role.sends or side):
            raise RemoteProtocolError("data that this member may not send")
        if side:
            messages = unpack(event.flags, event.body, self.settings.max_message)[2]
            self._arrived(key, leg, event, messages, -1, wall_ns)
            return
        here = hears(self.myself, member, rooted=self.rooted)
        listeners = self.listeners(member)
        messages = unpack(event.flags, event.body, self.settings.max_message)[2]
        self._check_sequence(leg, member.key, sequence, len(messages))
        if listeners:
            self._relay(listeners, leg, member.key, event, sequence, len(messages))
        if here:
            self._arrived(key, leg, event, messages, sequence, wall_ns)

    def _arrived(
        self,
        key: int,
        leg: Leg,
        event: Data,
        messages: list[bytes],
        sequence: int,
        wall_ns: int,
    ) -> None:
        if not messages:
            return  # an empty batch is legal, and nothing to wake anybody for
        self.count("messages_received", len(messages))
        side = bool(event.flags & SIDE)
        batch = Batch(messages, leg.association.peer, sequence, wall_ns, 0, side)
        self.out.append(Arrived(key, batch, len(event.body)))

    def _relay(
        self,
        listeners: tuple[int, ...],
        origin: Leg,
        sender: int,
        event: Data,
        sequence: int,
        count: int,
    ) -> None:
        """Pass one member's frame on, under the id the root knows it by."""
        payload = bytes(event.body[DATA_PREFIX.size :])
        header = data_header(len(payload), event.flags, sender, sequence)
        size = len(header) + len(payload)
        for key in listeners:
            leg = self.legs[key]
            if sender not in leg.named:
                leg.named.add(sender)
                peer = origin.association.peer
                name = control_frame(Kind.NAME, encode(Name(sender, peer.host, peer.port)))
                leg.association.outbox.push(name)
            self._give(key, (header, payload), size, sender, sequence, count)

    def answer_who(self, key: int, roster: Roster) -> None:
        """Send the roster to whoever asked; the connection ends after it."""
        self.legs[key].association.outbox.push(control_frame(Kind.ROSTER, encode(roster)))
        self.dirty[key] = None

    def _gap(self, key: int, leg: Leg, event: Gap, wall_ns: int) -> None:
        raise RemoteProtocolError("GAP from a leaf")


class LeafSession(Session):
    """The c_leaf's side: listens for invitations, or has one leg.

    Attributes:
        facts: What the root told of the session, once joined.
        myself: This leaf in the data plane.
        sequence: Number of this leaf's next message.
    """

    _keep_bytes = 2 << 20  # one leg, and messages of a megabyte are common

    def __init__(
        self,
        settings: Settings,
        *,
        incarnation: bytes,
        d_root: bool,
        scratch: memoryview | None = None,
    ) -> None:
        super().__init__(settings, incarnation, scratch)
        self.facts: SessionFacts | None = None
        self.root_answer: Answer | None = None
        self.myself = Member(-1, d_root=d_root)
        self.sequence = 0
        self._names: dict[int, Address] = {}

    def join(
        self,
        key: int,
        root: Address,
        local: Address,
        now_ns: int,
        *,
        data: bytes,
        qos: Qos | None,
        role: JoinRole,
        deadline_ns: int | None,
    ) -> None:
        """Start asking the root; the connection is being made. WSAEFAULT if data are too long."""
        request = Request(
            versions=(VERSION, VERSION),
            incarnation=self.incarnation,
            role=role,
            dead_after_ms=max(1, int(self.settings.dead_after * 1000)),
            max_message=self.settings.max_message,
            d_root=self.myself.d_root,
            data=_bounded(data),
            qos=QosBody.of(qos),
            name=self.settings.name,
        )
        self._add(key, root, local, now_ns, asker=True, deadline_ns=deadline_ns, request=request)

    def admit(self, key: int, verdict: Accept, role: JoinRole = JoinRole.BOTH) -> None:
        """CF_ACCEPT of an invitation."""
        leg = self.legs.get(key)
        if leg is None or leg.association.state is not LegState.OFFERED:
            return
        request = leg.association.request
        assert request is not None
        leg.qos = verdict.qos or (request.qos.qos() if request.qos else None)
        leg.answer = Answer(
            version=VERSION,
            incarnation=self.incarnation,
            dead_after_ms=max(1, int(self.settings.dead_after * 1000)),
            max_message=self.settings.max_message,
            role=role,
            d_root=self.myself.d_root,
            data=_bounded(verdict.data),
            qos=QosBody.of(leg.qos),
            name=self.settings.name,
        )
        self.queue.pop(key, None)
        self.process(key, leg.association.admit(leg.answer))

    def _unwanted(self, request: Request) -> str:
        return "" if request.facts else "this is a leaf that waits for invitations, not a root"

    def _qos_agreed(self, key: int, leg: Leg, qos: Qos) -> None:
        leg.qos = qos
        self.out.append(QosChanged(key, qos))

    def adopt(self, key: int, leg: Leg) -> None:
        """Take over the leg of an accepted invitation from the listener."""
        self.legs[key] = leg
        leg.association.reader.move_to(self._scratch)  # the listener goes on using its own
        if leg.association.outbox:
            self.dirty[key] = None
        self._become(leg, None)

    def _joined(self, key: int, leg: Leg, answer: Answer | None) -> None:
        if answer is not None:
            self._become(leg, answer)
        self.out.append(LegJoined(key, answer))

    def _become(self, leg: Leg, answer: Answer | None) -> None:
        request = leg.association.request
        assert request is not None
        facts = request.facts if answer is None else answer.facts
        assert facts is not None
        if answer is None:
            assert leg.answer is not None
            role = leg.answer.role
        else:
            role = request.role
            asked = request.qos.qos() if request.qos else None
            leg.qos = answer.qos.qos() if answer.qos else asked
            leg.answer = answer
        self.facts = facts
        self.myself = Member(facts.leaf, d_root=self.myself.d_root, role=JoinRole(role))
        leg.member = Member(ROOT_ID, d_root=facts.d_root, role=JoinRole(facts.role))
        if answer is not None:
            # An invitation says where the numbering stood when it was written; what the root has
            # sent to others since then is not for this leaf, and its numbers are not missing.
            leg.expected[ROOT_ID] = facts.sequence

    def send(self, key: int, messages: Sequence[Buffer]) -> PackedBatch:
        """Queue a batch for whoever hears this leaf; WSAENOTCONN once it is no member."""
        leg = self._member_leg(key)
        packed = pack(
            messages,
            sender=self.myself.key,
            sequence=self.sequence,
            flags=0,
            max_message=leg.association.peer_max_message,
        )
        self.sequence += packed.count
        leg.association.outbox.extend(packed.buffers, packed.size)
        self.dirty[key] = None
        self.count("messages_sent", packed.count)
        return packed

    def _named(self, event: Named) -> None:
        if len(self._names) >= 1 << 20:
            raise RemoteProtocolError("more names than a session has members")
        self._names[event.leaf] = event.address

    def _sender(self, leg: Leg, sender: int) -> Address:
        if sender == ROOT_ID:
            return leg.association.peer
        address = self._names.get(sender)
        if address is None:
            raise RemoteProtocolError(f"data of leaf {sender}, which nobody named")
        return address

    def _data(self, key: int, leg: Leg, event: Data, wall_ns: int) -> None:
        sender, sequence, messages = unpack(event.flags, event.body, self.settings.max_message)
        address = self._sender(leg, sender)
        side = bool(event.flags & SIDE)
        if side or event.flags & DIRECT:
            sequence = -1
        else:
            self._check_sequence(leg, sender, sequence, len(messages))
        self.count("messages_received", len(messages))
        if messages and (self.myself.role.receives or side):
            batch = Batch(messages, address, sequence, wall_ns, 0, side)
            self.out.append(Arrived(key, batch, len(event.body)))

    def _gap(self, key: int, leg: Leg, event: Gap, wall_ns: int) -> None:
        address = self._sender(leg, event.sender)
        self._check_sequence(leg, event.sender, event.first, event.count)
        self.count("messages_missed", event.count)
        batch = Batch([], address, event.first + event.count, wall_ns, event.count)
        self.out.append(Arrived(key, batch, 0))


def _bounded(data: bytes) -> bytes:
    if len(data) > MAX_CONNECT_DATA:
        raise SpiError(
            WSAEFAULT,
            f"connect data of {len(data)} bytes is over the limit of {MAX_CONNECT_DATA}",
            hint="Send larger things as messages once joined",
        )
    return data
