"""The leaf's side of a rooted session: one leg to the root, or invitations that wait."""

from __future__ import annotations

from collections.abc import Sequence

from joinleaf.core.association import (
    Data,
    Gap,
    Named,
)
from joinleaf.core.data_plane import Member
from joinleaf.core.leg import LegState
from joinleaf.core.session import (
    ROOT_ID,
    Arrived,
    Leg,
    LegJoined,
    QosChanged,
    Session,
    bounded,
)
from joinleaf.core.wire.control import (
    VERSION,
    Answer,
    QosBody,
    Request,
    SessionFacts,
)
from joinleaf.core.wire.data import PackedBatch, pack, unpack
from joinleaf.core.wire.frames import (
    DIRECT,
    SIDE,
)
from joinleaf.errors import RemoteProtocolError
from joinleaf.spi.provider import (
    Accept,
    Batch,
    Buffer,
    JoinRole,
    Settings,
)
from joinleaf.spi.qos import Qos
from joinleaf.values import Address

__all__ = ["LeafSession"]


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
            data=bounded(data),
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
            data=bounded(verdict.data),
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
