"""The leaf's side of a rooted session: one leg to the root, or invitations that wait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from joinleaf.core.arrivals import Arrived, Data, GroupWord
from joinleaf.core.association import (
    Gap,
    Named,
    QosAgreed,
)
from joinleaf.core.data_plane import Member
from joinleaf.core.keys.group import LeafKeys
from joinleaf.core.leaf_carriage import NO_MORE, LeafCarriage, direct_count, place_of
from joinleaf.core.leg import LegState
from joinleaf.core.reliability.receiver import StreamReceiver
from joinleaf.core.session import (
    ROOT_ID,
    GroupOffered,
    Leg,
    LegJoined,
    QosChanged,
    Session,
    bounded,
    longest,
)
from joinleaf.core.wire.control import (
    VERSION,
    Answer,
    Name,
    QosBody,
    Request,
    SessionFacts,
    decode,
    encode,
)
from joinleaf.core.wire.data import MAX_FRAME_OVERHEAD, PackedBatch, messages_of, pack, unpack
from joinleaf.core.wire.frames import (
    DATA,
    DIRECT,
    MAX_CONTROL_BODY,
    SIDE,
    Kind,
    control_frame,
)
from joinleaf.core.wire.reports import decode_start, decode_unit
from joinleaf.core.wire.unit_frames import UnitFrame
from joinleaf.errors import RemoteProtocolError
from joinleaf.spi.provider import (
    Accept,
    Batch,
    Buffer,
    JoinRole,
    Settings,
)
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.values import Address

__all__ = ["LeafSession"]


class LeafSession(Session):
    """The c_leaf's side: listens for invitations, or has one leg.

    Attributes:
        facts: What the root told of the session, once joined.
        myself: This leaf in the data plane.
        stream: The multicast stream, where this leaf hears it.
        own_leg: Whether it wants everything over its leg.
    """

    _keep_bytes: ClassVar = 2 << 20  # one leg, and messages of a megabyte are common

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
        self._names: dict[int, Address] = {}
        self.stream: LeafCarriage | None = None
        self.own_leg = False
        self._directs = 0  # messages for this leaf only, since it joined

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
            data=bounded(data),
            qos=QosBody.of(qos),
            name=self.settings.name,
            own_leg=self.own_leg,
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
            data=bounded(verdict.data),
            qos=QosBody.of(leg.qos),
            name=self.settings.name,
        )
        self.queue.pop(key, None)
        self.process(key, leg.association.admit(leg.answer))

    def _unwanted(self, request: Request) -> str:
        return "" if request.facts else "this is a leaf that waits for invitations, not a root"

    def _qos_agreed(self, key: int, leg: Leg, word: QosAgreed) -> None:
        leg.qos = word.qos
        self.out.append(QosChanged(key, word.qos, word.refused))

    def ask_qos(self, key: int, qos: Qos) -> None:
        """Wish for other flow specifications, as the asker sees the directions; QosChanged follows.

        Raises:
            SpiError: WSAENOTCONN, it is no member.
        """
        body = QosBody.of(qos)
        assert body is not None
        outbox = self._member_leg(key).association.outbox
        outbox.push(control_frame(Kind.QOS, encode(body)))
        self.dirty[key] = None

    def shape(self, key: int, flow: FlowSpec | None, now_ns: int) -> None:
        """Keep what is sent to the root to this from now on."""
        if (leg := self.legs.get(key)) is not None:
            leg.shape(flow, now_ns)

    def adopt(self, key: int, leg: Leg) -> None:
        """Take over the leg of an accepted invitation from the listener."""
        self.legs[key] = leg
        leg.association.reader.move_to(self._scratch)  # the listener goes on using its own
        if leg.association.outbox:
            self.dirty[key] = None
        self._become(leg, None)
        self._offer_group(key)

    def _joined(self, key: int, leg: Leg, answer: Answer | None) -> None:
        if answer is not None:
            self._become(leg, answer)
        self.out.append(LegJoined(key, answer))
        if answer is not None:
            self._offer_group(key)

    def _offer_group(self, key: int) -> None:
        """Tell the owner of the multicast stream, if this leaf may receive one."""
        group = self.facts.group if self.facts is not None else None
        if group is not None and self.myself.role.receives:
            self.out.append(GroupOffered(key, group))

    def hear_group(self, key: int, receiver: StreamReceiver, keys: LeafKeys | None) -> None:
        """The owner has joined the group; what it receives there goes into ``receiver``."""
        bound = max(MAX_CONTROL_BODY, self.settings.max_message + MAX_FRAME_OVERHEAD)
        self.stream = LeafCarriage(key, receiver, keys, bound)

    def group_received(self, now_ns: int, wall_ns: int) -> None:
        """Trains have been put into the stream's receiver: take what is complete."""
        stream = self.stream
        if stream is None:
            return
        leg = self.legs.get(stream.key)
        if leg is None or not leg.association.active:
            stream.taken()  # nobody is given that any more, and nothing else bounds it
            return
        if not stream.ended:
            leg.association.heard_ns = now_ns  # the root lives
        self._stream_moved(stream, leg, wall_ns)
        if (report := stream.receiver.poll_report(now_ns)) is not None:
            leg.association.outbox.push(report)
            self.dirty[stream.key] = None

    def group_deadline_ns(self) -> int | None:
        """When the stream's clocks have something to do; None: nothing, or nobody to tell it."""
        stream = self.stream
        leg = self.legs.get(stream.key) if stream is not None else None
        if stream is None or leg is None or not leg.association.active:
            return None
        return stream.receiver.next_deadline_ns()

    def _stream_moved(self, stream: LeafCarriage, leg: Leg, wall_ns: int) -> None:
        if stream.receiver.ready and not stream.ended:
            stream.waiting.extend(stream.receiver.take())
        try:
            taken = stream.taken()
            if stream.waiting or taken:
                self._take_stream(stream, leg, wall_ns, taken)
            if stream.aside:
                self._take_aside(stream)
        except RemoteProtocolError as error:
            self.process(stream.key, leg.association.breach(str(error)))

    def _take_stream(
        self, stream: LeafCarriage, leg: Leg, wall_ns: int, taken: Sequence[UnitFrame]
    ) -> None:
        """Turn what is complete into batches: as few as senders and gaps allow.

        Args:
            stream: What waits there comes behind ``taken``.
            leg: The root's.
            wall_ns: When it came.
            taken: Frames that are complete already: nothing but data for all.
        """
        run: Batch | None = None
        size = 0
        waiting = stream.waiting
        while taken or waiting:
            if not taken and stream.aside and stream.aside[0][0] <= stream.position:
                self._put_run(stream.key, run, size)
                run = None
                self._take_aside(stream)
            frames = iter(taken) if taken else stream.frames_of_first()
            for kind, flags, sender, first, body, length in frames:
                if kind != DATA:
                    assert not isinstance(body, list)
                    if self._is_gate_closed(stream, kind, body):
                        stream.go_on_with(bytes(body), frames)
                        self._put_run(stream.key, run, size)
                        return  # until what is for this leaf only has come over its leg
                    continue
                if flags & (SIDE | DIRECT):
                    raise RemoteProtocolError("messages for one leaf in the stream for all")
                if sender == self.myself.key:
                    continue  # the group brings back what this leaf's own leg took up
                if isinstance(body, list) and length <= self.settings.max_message:
                    messages = body
                else:
                    messages = messages_of(flags, body, self.settings.max_message)
                gap = self._stream_gap(stream, leg, sender, first)
                self._check_sequence(leg, sender, first, len(messages))
                if (
                    run is not None
                    and not gap
                    and run.sequence + len(run.messages) == first
                    and run.sender is self._sender(leg, sender)
                ):
                    run.messages += messages
                    size += length
                    continue
                self._put_run(stream.key, run, size)
                run = Batch(messages, self._sender(leg, sender), first, wall_ns, gap)
                size = length
            if taken:
                taken = ()
            else:
                waiting.popleft()
                stream.position += 1
        self._put_run(stream.key, run, size)

    def _take_aside(self, stream: LeafCarriage) -> None:
        """Hand out what is for this leaf only and has its turn."""
        aside = stream.aside
        while aside and (not stream.started or aside[0][0] <= stream.position):
            _, batch, size = aside.popleft()
            self.out.append(Arrived(stream.key, batch, size))

    def _is_gate_closed(self, stream: LeafCarriage, kind: int, body: bytes | memoryview) -> bool:
        """Take in a control frame of the stream; True: this leaf may not go on yet."""
        if kind == Kind.GATE:
            demanded = direct_count(body, self.myself.key)
            if demanded == NO_MORE:
                stream.ended = True
                stream.waiting.clear()
            return demanded > self._directs
        if kind != Kind.NAME:
            raise RemoteProtocolError(f"frame {kind} in the stream")
        name = decode(Name, body)
        self._named(Named(name.leaf, name.address()))
        return False

    def _put_run(self, key: int, run: Batch | None, size: int) -> None:
        if run is not None:
            self.count("messages_received", len(run.messages))
            self.out.append(Arrived(key, run, size))

    def _stream_gap(self, stream: LeafCarriage, leg: Leg, sender: int, first: int) -> int:
        """How many of a sender's messages the root has skipped for this leaf."""
        expected = leg.expected.get(sender, first)
        if first <= expected or not stream.may_skip(sender):
            return 0  # a wrong number is found by the check that follows
        leg.expected[sender] = first
        self.count("messages_missed", first - expected)
        return first - expected

    def _group_word(self, key: int, leg: Leg, word: GroupWord, wall_ns: int) -> None:
        stream = self.stream
        if stream is None or stream.key != key:
            if word.kind in (Kind.KEY, Kind.STOP):
                return  # for whoever hears the group
            raise RemoteProtocolError(f"frame {word.kind} before the group was heard")
        match word.kind:
            case Kind.UNIT_REPAIR:
                stream.receiver.handle_unit_repair(word.body, self._now_ns)
            case Kind.START:
                stream.start(*decode_start(word.body))
            case Kind.STOP:
                self._stream_moved(stream, leg, wall_ns)
                stream.stop(decode_unit(word.body))
            case Kind.SKIP:
                self._stream_moved(stream, leg, wall_ns)
                stream.skip(decode_unit(word.body))
            case Kind.KEY:
                stream.learn(word.body, self._now_ns)
            case Kind.GATE:
                stream.place = place_of(word.body)
            case _:
                raise RemoteProtocolError(f"frame {word.kind} from a root")
        self._stream_moved(stream, leg, wall_ns)

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

    def _heard_alone(self, leg: Leg) -> int:
        return ROOT_ID if self.stream is None and self.myself.role.receives else -1

    def pack(self, messages: Sequence[Buffer], keys: Sequence[int]) -> PackedBatch:
        """The frames of this leaf's next batch, for its one leg."""
        leg = self.legs[keys[0]]
        return pack(
            messages,
            sender=self.myself.key,
            sequence=self.sequence,
            flags=0,
            max_message=longest(leg.association.peer_max_message, leg.flow),
        )

    def packed_sent(self, packed: PackedBatch) -> None:
        """The batch made last has been sent, or queued."""
        self.count("messages_sent", packed.count)
        self.sequence += packed.count

    def send(self, key: int, messages: Sequence[Buffer]) -> PackedBatch:
        """Queue a batch for whoever hears this leaf; WSAENOTCONN once it is no member."""
        leg = self._member_leg(key)
        packed = self.pack(messages, (key,))
        leg.association.outbox.extend(packed.buffers, packed.size)
        self.dirty[key] = None
        self.packed_sent(packed)
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
        flags, stream = event.flags, self.stream
        side = bool(flags & SIDE)
        if side or flags & DIRECT:
            sequence = -1
        else:
            self._check_sequence(leg, sender, sequence, len(messages))
        self.count("messages_received", len(messages))
        if not messages or not (self.myself.role.receives or side):
            return
        batch = Batch(messages, address, sequence, wall_ns, 0, side)
        if flags & DIRECT and not side:
            self._directs += len(messages)
            if stream is not None and stream.started:
                stream.aside.append((stream.place, batch, len(event.body)))
                self._stream_moved(stream, leg, wall_ns)
                return
        self.out.append(Arrived(key, batch, len(event.body)))

    def _gap(self, key: int, leg: Leg, event: Gap, wall_ns: int) -> None:
        address = self._sender(leg, event.sender)
        stream, skipped = self.stream, 0
        first, count = event.first, event.count
        if stream is not None and stream.key == key:  # after SKIP: where the sender stands
            expected = leg.expected.get(event.sender, first)
            if first < expected:  # the group has brought some of it, or all
                count = max(0, first + count - expected)
                first = expected
            skipped = self._stream_gap(stream, leg, event.sender, first)
        self._check_sequence(leg, event.sender, first, count)
        self.count("messages_missed", count)
        if gap := skipped + count:
            batch = Batch([], address, first + count, wall_ns, gap)
            self.out.append(Arrived(key, batch, 0))
