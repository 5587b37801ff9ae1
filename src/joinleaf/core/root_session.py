"""The root's side of a rooted session: many legs, one membership, and what is sent to it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

import msgspec

from joinleaf.core.arrivals import Arrived, Data, GroupWord
from joinleaf.core.association import (
    Gap,
    JoinFailed,
    Named,
    QosAgreed,
)
from joinleaf.core.data_plane import Member, hears
from joinleaf.core.leaf_carriage import GATE_ENTRIES, NO_MORE, gate_frames, place_frame
from joinleaf.core.leg import LegState
from joinleaf.core.qos.admission import Admission
from joinleaf.core.qos.shaper import narrower
from joinleaf.core.root_carriage import RootCarriage
from joinleaf.core.session import (
    ROOT_ID,
    SECOND,
    JoinEnded,
    Leg,
    LegEnded,
    LegJoined,
    QosChanged,
    Session,
    bounded,
    gap_frame,
    longest,
)
from joinleaf.core.wire.control import (
    VERSION,
    Answer,
    GroupFacts,
    Name,
    QosBody,
    Request,
    Roster,
    SessionFacts,
    encode,
)
from joinleaf.core.wire.data import PackedBatch, pack, unpack
from joinleaf.core.wire.frames import (
    DATA_PREFIX,
    DIRECT,
    HEADER,
    KIND_AT,
    SIDE,
    Kind,
    control_frame,
    data_header,
)
from joinleaf.core.wire.reports import decode_unit
from joinleaf.errors import RemoteProtocolError, SpiError
from joinleaf.spi.codes import WSAECONNREFUSED
from joinleaf.spi.provider import (
    Accept,
    Batch,
    Buffer,
    EndReason,
    JoinRole,
    Reject,
    Settings,
    SlowPolicy,
)
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.values import Address

__all__ = ["RootSession"]


class RootSession(Session):
    """The c_root's side.

    Attributes:
        session_id: The session's identity.
        rooted: Whether the data plane is rooted.
        myself: The root in the data plane.
        view: Number of the membership; grows with every change.
        carriage: The multicast stream, where the session has one.
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
        scratch: memoryview | None = None,
    ) -> None:
        super().__init__(settings, incarnation, scratch)
        self.session_id = session_id
        self.rooted = rooted
        self.myself = Member(ROOT_ID, d_root=d_root, role=role)
        self.sending: FlowSpec | None = None  # what the root keeps to, whoever hears it
        self.view = 0
        self.admission = Admission(settings.capacity)
        self._next_leaf = 1
        self._by_leaf: dict[int, int] = {}
        self._routes: dict[int, tuple[int, ...]] = {}
        self.carriage: RootCarriage | None = None
        self._named_on_group: set[int] = set()
        self._bytes_by_former_legs = 0
        self._beside_group: dict[int, tuple[tuple[int, ...], int, tuple[int, ...]]] = {}
        self._at_hand: tuple[int, int] | None = None  # whose message has come, and is to go on
        # By leaf id: messages it must have got over its leg before what is sent to the group next.
        self._gates: dict[int, int] = {}

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
        # Who is merely asked must not know the key; a leg is encrypted as well, only dearer.
        carriage = self.carriage
        group = carriage.facts if carriage is not None and not carriage.sealed else None
        facts = self._facts(self._new_leaf_id(), group)
        request = self._ask(bounded(data), qos, facts=facts)
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

    def _facts(self, leaf: int, group: GroupFacts | None) -> SessionFacts:
        return SessionFacts(
            session=self.session_id,
            leaf=leaf,
            rooted=self.rooted,
            d_root=self.myself.d_root,
            role=self.myself.role,
            sequence=self.sequence,
            group=group,
        )

    def admit(self, key: int, verdict: Accept) -> None:
        """CF_ACCEPT.

        Raises:
            SpiError: WSAEOPNOTSUPP, the reservation does not fit, or WSAECONNREFUSED, a second
                d_root or a leaf too many; the asker has been refused with that.
        """
        leg = self.legs.get(key)
        if leg is None or leg.association.state is not LegState.OFFERED:
            return
        request = leg.association.request
        assert request is not None
        bounded(verdict.data)
        try:
            self._check_room()
            self._check_d_root(request.d_root)
            asked = request.qos.qos() if request.qos else None
            leg.qos = verdict.qos or asked
            self._reserve(key, leg.qos)
            self._shape_leg(leg)
        except SpiError as error:
            self.reject(key, Reject(message=str(error)), code=error.code)
            raise
        self.queue.pop(key, None)
        hears = JoinRole(request.role).receives and not request.own_leg
        group = self.carriage.tell(key) if self.carriage is not None and hears else None
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
            facts=self._facts(self._new_leaf_id(), group),
        )
        leg.answer = answer
        self.process(key, leg.association.admit(answer))

    def _check_room(self) -> None:
        if full := self._full():
            raise SpiError(WSAECONNREFUSED, full, hint="Raise max_leaves, or expel somebody")

    def _full(self) -> str:
        """Why there is no place for one more leaf, or ``""``."""
        most = self.settings.max_leaves
        if most is None or len(self._by_leaf) < most:
            return ""
        return f"the session is full: it takes {most} {'leaf' if most == 1 else 'leaves'}"

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
        """Raise where no invitation with these specifications could be kept.

        Raises:
            SpiError: WSAEOPNOTSUPP, or WSAECONNREFUSED where one leaf more would be too many.
        """
        self._check_room()
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
        self._shape_leg(leg)
        if self._may_hear_group(leg) and facts.group is not None:
            assert self.carriage is not None
            self.carriage.joined(key, self._now_ns)
        self.out.append(LegJoined(key, answer))

    def _may_join(self, key: int, leg: Leg, d_root: bool) -> bool:
        """Whether an invited leaf may be what it answered that it is; if not, it is put out."""
        try:
            self._check_room()
            self._check_d_root(d_root)
            self._reserve(key, leg.qos)
        except SpiError as error:
            self.out.append(JoinEnded(key, JoinFailed(error.code, str(error))))
            self.process(key, leg.association.abort())
            return False
        return True

    def _unwanted(self, request: Request) -> str:
        if request.facts:
            return "this is the root of a session, and cannot be invited"
        if full := self._full():
            self.count("joins_refused_full")
            return f"{full}; try again when one has left"
        return ""

    # Flow specifications

    def set_sending(self, flow: FlowSpec | None, now_ns: int) -> None:
        """Keep what the root sends to this from now on, to whomever."""
        self.sending, self._now_ns = flow, now_ns
        for key, leg in self.legs.items():
            self._shape_leg(leg)
            self._fit_to_group(key, leg)
        self._shape_group()

    def change_qos(self, key: int, qos: Qos, now_ns: int) -> None:
        """Other flow specifications for one leg, as its asker sees them; its leaf is told.

        Raises:
            SpiError: WSAENOTCONN, it is no member's; WSAEOPNOTSUPP, they do not fit the capacity.
                What was agreed before holds.
        """
        leg = self._member_leg(key)
        self._now_ns = now_ns
        self._rereserve(key, leg.qos, qos)
        leg.qos = qos
        self._shape_leg(leg)
        self._fit_to_group(key, leg)
        self._shape_group()
        self._tell_qos(key, leg, "")

    def _rereserve(self, key: int, before: Qos | None, qos: Qos) -> None:
        """All of it, or what there was: a smaller half must not make room for a refused one."""
        try:
            self._reserve(key, qos)
        except SpiError:
            if before is not None:
                self._reserve(key, before)
            raise

    def _qos_agreed(self, key: int, leg: Leg, word: QosAgreed) -> None:
        if word.qos is None or word.refused:
            raise RemoteProtocolError("a QOS that wishes for nothing")
        try:
            self.change_qos(key, word.qos, self._now_ns)
        except SpiError as error:
            self.count("qos_refused")
            self._tell_qos(key, leg, str(error)[:1024])
        else:
            self.out.append(QosChanged(key, word.qos))

    def _tell_qos(self, key: int, leg: Leg, refused: str) -> None:
        body = QosBody.of(leg.qos or Qos())
        assert body is not None
        told = msgspec.structs.replace(body, refused=refused, stated=leg.qos is not None)
        leg.association.outbox.push(control_frame(Kind.QOS, encode(told)))
        self.dirty[key] = None

    def _shape_leg(self, leg: Leg) -> None:
        """A leg carries what the root keeps to, and no faster than its leaf asked to receive."""
        leg.shape(narrower(self.sending, leg.outgoing), self._now_ns)

    def _slower(self, leg: Leg) -> bool:
        """Whether a leaf asked for less than the root sends, where nobody is waited for."""
        if self.settings.slow is SlowPolicy.WAIT or leg.shaper is None:
            return False
        asked, own = leg.shaper.flow, self.sending
        return own is None or (asked.rate, asked.peak) != (own.rate, own.peak)

    def _may_hear_group(self, leg: Leg) -> bool:
        hears_any = leg.member is not None and leg.member.role.receives
        return self.carriage is not None and hears_any and not self._slower(leg)

    def _fit_to_group(self, key: int, leg: Leg) -> None:
        """Serve a leaf by its leg from now on if the group has become too fast for it."""
        if self.carriage is not None and key in self.carriage.on_group and self._slower(leg):
            self.demote(key, self._now_ns)

    def _shape_group(self) -> None:
        """The group keeps what the root does and, where all are waited for, the slowest leaf."""
        carriage = self.carriage
        if carriage is None:
            return
        flow = self.sending
        if self.settings.slow is SlowPolicy.WAIT:
            for key in carriage.on_group:
                flow = narrower(flow, self.legs[key].outgoing)
        carriage.shape(flow, self._now_ns)

    def _left(self, key: int, leg: Leg) -> None:
        self.admission.release(("up", key))
        self.admission.release(("down", key))
        if self.carriage is not None:
            served = key in self.carriage.on_group
            self.carriage.left(key)
            if served:
                self._end_of_stream(leg)
        if leg.member is not None:
            if self.carriage is not None and leg.qos is not None:
                self._shape_group()
            del self._by_leaf[leg.member.key]
            leg.member = None
            self._membership_changed()

    def _membership_changed(self) -> None:
        self.view += 1
        self._routes.clear()
        self._beside_group.clear()

    def close_leg(
        self, key: int, reason: EndReason, data: bytes, now_ns: int, linger_ns: int
    ) -> None:
        """Take leave of one leg; it is no member from this moment on."""
        self.demote(key, now_ns)  # what the group has not brought it goes before LEAVE
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

    def _routes_of(self, sender: Member) -> tuple[tuple[int, ...], bool]:
        """Keys of the legs that carry what this member sends, and whether the group does too.

        The group reaches everybody on it, so it carries a member's messages only where everybody
        is to hear that member; the member itself knows its own by their sender.
        """
        keys = self.listeners(sender)
        carriage = self.carriage
        if carriage is None or (self.rooted and not sender.d_root):
            return keys, False
        on_group = carriage.on_group
        if not on_group:
            return keys, False
        # For each sender once, and not for each of its messages: ten thousand keys take a while.
        known = self._beside_group.get(sender.key)
        if known is None or known[0] is not keys or known[1] != carriage.changes:
            beside = tuple(key for key in keys if key not in on_group)
            known = self._beside_group[sender.key] = (keys, carriage.changes, beside)
        legs = known[2]
        return legs, len(legs) < len(keys)

    def demote(self, key: int, now_ns: int) -> None:
        """Serve a leaf by its leg from here on, beginning with what the group owes it."""
        leg = self.legs.get(key)
        if self.carriage is None or leg is None:
            return
        frames = self.carriage.demote(key, now_ns)
        for frame in frames:
            self.put_on_leg(key, frame)
        if frames:
            self._end_of_stream(leg)

    def tick_group(self, now_ns: int) -> None:
        """Run the clocks of the stream: who gets on there no more is served by its leg."""
        if self.carriage is not None:
            for key in self.carriage.tick(now_ns, self._is_read):
                self.demote(key, now_ns)

    def _is_read(self, key: int) -> bool:
        return self.legs[key].association.reading_ns is not None

    def _end_of_stream(self, leg: Leg) -> None:
        """What the group carries from here on is not for this leaf, which may hear it yet."""
        assert leg.member is not None
        self._gates[leg.member.key] = NO_MORE
        if len(self._gates) >= GATE_ENTRIES:
            self._give_gates()

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait to be sent, on all legs and by the group."""
        waiting = sum(leg.association.outbox.size for leg in self.legs.values())
        return waiting + (self.carriage.sender.pending_bytes if self.carriage is not None else 0)

    @property
    def carried(self) -> dict[str, int]:
        """What has left so far, by which carrier, and what the stream has repaired."""
        by_legs = sum(leg.association.outbox.sent_bytes for leg in self.legs.values())
        counts = {"leg_bytes": self._bytes_by_former_legs + by_legs}
        if self.carriage is not None:
            counts |= self.carriage.carried
        return counts

    def removed(self, key: int) -> None:
        """The owner has given the connection back."""
        if (leg := self.legs.get(key)) is not None:
            self._bytes_by_former_legs += leg.association.outbox.sent_bytes
        super().removed(key)

    def under_way(self, key: int) -> int:
        """Bytes the group carries that this leaf has not acknowledged."""
        return self.carriage.sender.unacknowledged(key) if self.carriage is not None else 0

    def own_outboxes(self, keys: Iterable[int]) -> None:
        """Copy what is still queued, so that the sender may reuse its memory."""
        super().own_outboxes(keys)
        if self.carriage is not None:
            self.carriage.sender.own()

    def over_limit(self, keys: Iterable[int]) -> list[int]:
        """Those legs that have more queued than the settings allow."""
        limit = self.settings.queue_bytes
        return [
            key
            for key in keys
            if (leg := self.legs.get(key)) is not None and leg.association.outbox.size > limit
        ]

    def _hears_me(self, leg: Leg) -> bool:
        """Whether the root's own messages are for this leaf: not where a leaf is the d_root."""
        member = leg.member
        return member is not None and hears(member, self.myself, rooted=self.rooted)

    def _heard_alone(self, leg: Leg) -> int:
        member = leg.member
        if member is None or not (self.rooted and self.myself.d_root):
            return -1
        return member.key if hears(self.myself, member, rooted=True) else -1

    def pack(self, messages: Sequence[Buffer], keys: Sequence[int]) -> PackedBatch:
        """The frames of the root's next batch to all that hear it by their legs."""
        limit = longest(self.settings.max_message, self.sending)
        return pack(messages, sender=ROOT_ID, sequence=self.sequence, flags=0, max_message=limit)

    def packed_sent(self, packed: PackedBatch) -> None:
        """The batch made last has been sent to, or queued for, all that hear the root."""
        self.count("messages_sent", packed.count)
        self.sequence += packed.count

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
        legs, on_group = (tuple(to), False) if to is not None else self._routes_of(self.myself)
        packed = pack(
            messages,
            sender=ROOT_ID,
            sequence=0 if direct else self.sequence,
            flags=DIRECT if direct else 0,
            max_message=longest(self.settings.max_message, self.sending),
            target=self.carriage.frame_target if self.carriage is not None and on_group else 0,
        )
        first = self.sequence
        if on_group:
            self._make_room_on_group(packed.size)
        if not direct:
            self.sequence += packed.count
        for key in legs:
            if direct:
                self._place(key, packed.count)
            self._give(key, packed.buffers, packed.size, ROOT_ID, first, packed.count, direct)
        if on_group:
            self._give_group(packed.buffers, first)
        self.count("messages_sent", packed.count)
        return packed

    def _give_group(self, buffers: Sequence[Buffer], first: int | None) -> None:
        """Put frames into the stream; ``first`` is the number of the root's message there."""
        assert self.carriage is not None
        if self._gates:
            self._give_gates()
        self.carriage.begin(buffers, first)

    def _give_gates(self) -> None:
        carriage = self.carriage
        assert carriage is not None
        if carriage.on_group:
            for gate in gate_frames(self._gates):
                carriage.begin([gate], None)
        else:
            carriage.sender.leave_hole()  # nobody gets beyond that either
        self._gates.clear()

    def _place(self, key: int, count: int) -> None:
        """Keep messages for one leaf where they stand in the order of the root's messages."""
        leg, carriage = self.legs[key], self.carriage
        leg.directs += count
        if carriage is not None and key in carriage.on_group and leg.member is not None:
            leg.association.outbox.push(place_frame(carriage.sender.next_unit))
            self._gates[leg.member.key] = leg.directs

    def _make_room_on_group(self, size: int) -> None:
        """Apply the policy, if it is due, to the leaves that hold the stream back."""
        assert self.carriage is not None
        slow, waiting = self.settings.slow, self.carriage.sender.pending_bytes
        limit = self.settings.queue_bytes
        if slow is SlowPolicy.WAIT or waiting + size <= limit or not waiting:
            return
        # Who only suffers from another, or from a window that has yet to grow, may have what the
        # window leaves of its memory, before it is taken for slow itself.
        sender = self.carriage.sender
        urgent = sender.held_bytes + size > limit + sender.window_bytes
        for key in self.carriage.blocking(self._now_ns, urgent=urgent):
            leg = self.legs[key]
            if slow is SlowPolicy.EXPEL:
                self._too_slow(key, leg, ROOT_ID, self.sequence, 0)
            else:
                if (frame := self.carriage.skip(key, self.sequence, self._now_ns)) is not None:
                    self.put_on_leg(key, frame)

    def renew_group_key(self, random_bytes: Callable[[], bytes]) -> None:
        """Give everybody who hears the group a new key, if one is due.

        Args:
            random_bytes: Gives 32 fresh ones.
        """
        carriage = self.carriage
        if carriage is None or not carriage.due_for_rotation:
            return
        frame, keys = carriage.rotate(random_bytes())
        self.count("group_keys", 1)
        for key in keys:
            self.put_on_leg(key, frame)

    def dropped(self, key: int) -> int:
        """Messages that the slow policy has kept from a leaf so far."""
        leg, carriage = self.legs.get(key), self.carriage
        if leg is None:
            return 0
        if carriage is None or not self._hears_me(leg):
            return leg.dropped
        return leg.dropped + carriage.skipping(key, self.sequence)

    def put_on_leg(self, key: int, frame: bytes) -> None:
        """Queue a frame of the stream on one leg; after a SKIP, where the root's messages stand."""
        leg = self.legs.get(key)
        if leg is None or not leg.association.active:
            return
        leg.association.outbox.push(frame)
        if self.carriage is not None and frame[KIND_AT] == Kind.SKIP:
            unit = decode_unit(memoryview(frame)[HEADER.size :])
            number = self.carriage.stands_at(unit, self.sequence)
            count = self.carriage.skipped(key, number)
            if self._hears_me(leg):
                leg.dropped += count
                self.count("messages_dropped", count)
            self._tell_stands(leg, number)
            self._named_on_group.clear()  # it may have missed who they are
        self.dirty[key] = None

    def _tell_stands(self, leg: Leg, number: int) -> None:
        """After SKIP: up to where a leaf has got, or missed, the messages of everybody it hears.

        Args:
            leg: The leaf's.
            number: Where the root's stand.
        """
        outbox, listener = leg.association.outbox, leg.member
        if listener is None:
            return
        if self._hears_me(leg):
            outbox.push(gap_frame(ROOT_ID, number))
        for origin in self.legs.values():
            sender = origin.member
            if sender is None or not hears(listener, sender, rooted=self.rooted):
                continue
            if (stand := origin.expected.get(sender.key)) is None:
                continue  # it has sent nothing yet
            if self._at_hand is not None and self._at_hand[0] == sender.key:
                stand = self._at_hand[1]
            if sender.key not in leg.named:
                leg.named.add(sender.key)
                outbox.push(_name_frame(sender.key, origin))
            outbox.push(gap_frame(sender.key, stand))

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
            self._relay(member, leg, event, sequence, len(messages))
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

    def _relay(self, member: Member, origin: Leg, event: Data, sequence: int, count: int) -> None:
        """Pass one member's frame on, under the id the root knows it by."""
        sender = member.key
        legs, on_group = self._routes_of(member)
        payload = bytes(event.body[DATA_PREFIX.size :])
        header = data_header(len(payload), event.flags, sender, sequence)
        size = len(header) + len(payload)
        for key in legs:
            leg = self.legs[key]
            if sender not in leg.named:
                leg.named.add(sender)
                leg.association.outbox.push(_name_frame(sender, origin))
            self._give(key, (header, payload), size, sender, sequence, count)
        if on_group:
            buffers = [header, payload]
            if sender not in self._named_on_group:
                self._named_on_group.add(sender)
                buffers.insert(0, name := _name_frame(sender, origin))
                size += len(name)
            self._at_hand = (sender, sequence)
            self._make_room_on_group(size)
            self._at_hand = None
            self._give_group(buffers, None)

    def answer_who(self, key: int, roster: Roster) -> None:
        """Send the roster to whoever asked; the connection ends after it."""
        self.legs[key].association.outbox.push(control_frame(Kind.ROSTER, encode(roster)))
        self.dirty[key] = None

    def _named(self, event: Named) -> None:
        raise RemoteProtocolError("NAME from a leaf")

    def _gap(self, key: int, leg: Leg, event: Gap, wall_ns: int) -> None:
        raise RemoteProtocolError("GAP from a leaf")

    def _group_word(self, key: int, leg: Leg, word: GroupWord, wall_ns: int) -> None:
        if self.carriage is None or word.kind != Kind.REPORT:
            raise RemoteProtocolError(f"frame {word.kind} from a leaf")
        may_hear = self._may_hear_group(leg)
        start = self.carriage.reported(key, word.body, self._now_ns, may_hear=may_hear)
        # At once: a SKIP tells where everybody's messages stand at its unit, and not later.
        while (frame := self.carriage.sender.poll_leg()) is not None:
            self.put_on_leg(*frame)
        if start is not None:
            assert leg.member is not None
            self._gates.pop(leg.member.key, None)
            if leg.qos is not None:
                self._shape_group()
            # Its leg has named those who sent while it carried them, the group not yet.
            self._named_on_group.clear()
            self._tell_missed(leg)  # what its leg has dropped is before what the group brings
            self.put_on_leg(key, start)


def _name_frame(sender: int, origin: Leg) -> bytes:
    peer = origin.association.peer
    return control_frame(Kind.NAME, encode(Name(sender, peer.host, peer.port)))
