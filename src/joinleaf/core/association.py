"""One end of one leg: the leg's machine, its frames in, its frames out, and its clocks.

Bytes go in through ``reader`` (``buffer``/``received``), bytes come out of ``outbox``; what the
owner has to know comes back as events. Whatever the peer sends, nothing but events comes of it: a
breach of the protocol ends this leg and no other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from joinleaf.core.arrivals import Data, GroupWord
from joinleaf.core.keys.gates import SESSION_KEY, AnswererGate, AskerGate, Gate
from joinleaf.core.leg import LegAction, LegInput, LegMachine, LegState
from joinleaf.core.outbox import Outbox
from joinleaf.core.wire.control import (
    VERSION,
    Answer,
    Leave,
    Name,
    QosBody,
    Refusal,
    Request,
    decode,
    encode,
    unknown_critical,
)
from joinleaf.core.wire.data import MAX_FRAME_OVERHEAD
from joinleaf.core.wire.frames import (
    DATA,
    DATA_PREFIX,
    GROUP_KINDS,
    MAX_CONTROL_BODY,
    Frame,
    FrameReader,
    Kind,
    control_frame,
)
from joinleaf.errors import RemoteProtocolError
from joinleaf.spi.codes import (
    WSAEACCES,
    WSAECONNABORTED,
    WSAECONNREFUSED,
    WSAECONNRESET,
    WSAEOPNOTSUPP,
    WSAETIMEDOUT,
)
from joinleaf.spi.provider import EndReason
from joinleaf.spi.qos import Qos
from joinleaf.values import Address

__all__ = [
    "Asked",
    "Association",
    "Closed",
    "Data",
    "Dropped",
    "Event",
    "Gap",
    "GroupWord",
    "JoinFailed",
    "JoinSucceeded",
    "Named",
    "QosAgreed",
    "Requested",
    "Withdrawn",
    "WrongKey",
]

SECOND: Final = 1_000_000_000

BEATS_PER_BOUND: Final = 4
"""Signs of life sent within the peer's bound: three may be late before it gives up."""

SHORTEST_BEAT_NS: Final = 50_000_000
"""However small a bound the peer claims, it makes this end send no oftener than that."""

LONGEST_CLAIM_NS: Final = 60 * SECOND
"""An asker beats by its own bound until it knows the answerer's; a silent one that claims a longer
bound than this would hold its place in the queue for ever."""

_BEAT: Final = control_frame(Kind.BEAT)


@dataclass(frozen=True, slots=True)
class Requested:
    """A valid JOIN or INVITE has come."""

    request: Request


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody asks who is in the session."""


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The asker is gone before it was answered."""

    reason: EndReason


@dataclass(frozen=True, slots=True)
class WrongKey:
    """The peer has shown a proof of another secret; it is refused."""


@dataclass(frozen=True, slots=True)
class JoinSucceeded:
    """This end is a member now; the answer is that of the other end (None: it was ours)."""

    answer: Answer | None


@dataclass(frozen=True, slots=True)
class JoinFailed:
    """The join did not come about; ``refused``: because the other side said so.

    ``hint`` is the way out, where it is another than that of the number.
    """

    code: int
    message: str
    data: bytes = b""
    refused: bool = field(default=False, compare=False)
    hint: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages that this leg will not get."""

    sender: int
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Named:
    """Which address a leaf id stands for."""

    leaf: int
    address: Address


@dataclass(frozen=True, slots=True)
class QosAgreed:
    """A root says what holds now; a leaf, what it wishes to.

    Attributes:
        qos: The flow specifications; None: none are agreed.
        refused: Why a wish was refused; ``""``: it was not.
    """

    qos: Qos | None
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Closed:
    """The membership ended, after all data (FD_CLOSE). ``message``: how the protocol was broken."""

    reason: EndReason
    code: int
    data: bytes = b""
    message: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Dropped:
    """Give the connection back, at once or when the outbox is empty."""

    flush: bool


Event = (
    Requested
    | Asked
    | Withdrawn
    | WrongKey
    | JoinSucceeded
    | JoinFailed
    | Data
    | Gap
    | GroupWord
    | Named
    | QosAgreed
    | Closed
    | Dropped
)

_CLOSE_CODES: Final = {
    EndReason.TIMED_OUT: WSAECONNABORTED,
    EndReason.LOST: WSAECONNRESET,
    EndReason.PROTOCOL_ERROR: WSAECONNABORTED,
    EndReason.SLOW: WSAECONNABORTED,
}


_UNANSWERED: Final = frozenset({LegState.CONNECTING, LegState.SECURING, LegState.ASKED})

_GATE_FRAMES: Final = frozenset({Kind.CHALLENGE, Kind.PROOF})

_HINT_COPY: Final = "Copy the join line that the root prints now"


class Association:
    """See the module. ``now_ns`` is monotonic; deadlines are of the same clock.

    Attributes:
        machine: The leg's state.
        peer: Address of the other end.
        local: Address of this end.
        reader: Where received bytes go.
        outbox: What is to be sent.
        request: The JOIN or INVITE, ours or the peer's, once there is one.
        peer_max_message: Longest message the peer takes.
        heard_ns: When the peer was last heard.
        reading_ns: Since when this end listens without pause; silence counts from here.
        reason: Why the leg ended.
        identity: Who the peer is, as far as that has been verified; else ``""``.
    """

    __slots__ = (
        "_breach",
        "_failure",
        "_gate",
        "_heard_as_member",
        "_next_beat_ns",
        "asker",
        "beat_every_ns",
        "dead_after_ns",
        "deadline_ns",
        "end_data",
        "heard_ns",
        "identity",
        "local",
        "machine",
        "max_message",
        "outbox",
        "peer",
        "peer_max_message",
        "reader",
        "reading_ns",
        "reason",
        "request",
    )

    def __init__(
        self,
        *,
        asker: bool,
        peer: Address,
        local: Address,
        reader: FrameReader,
        now_ns: int,
        deadline_ns: int | None,
        dead_after_ns: int,
        max_message: int,
        request: Request | None = None,
    ) -> None:
        self.asker = asker
        self.machine = LegMachine(asker=asker)
        self.peer = peer
        self.local = local
        self.reader = reader
        self.outbox = Outbox()
        self.request = request
        self.max_message = max_message
        self.peer_max_message = max_message
        self.heard_ns = now_ns
        self.reading_ns: int | None = now_ns
        self.dead_after_ns = dead_after_ns
        self.deadline_ns = deadline_ns
        self.beat_every_ns = dead_after_ns // BEATS_PER_BOUND
        self._next_beat_ns = now_ns + self.beat_every_ns
        self.reason: EndReason | None = None
        self.end_data = b""
        self.identity = ""
        self._gate: Gate | None = None
        self._heard_as_member = False
        self._failure = JoinFailed(WSAECONNREFUSED, "the join request was refused")
        self._breach = ""

    @property
    def state(self) -> LegState:
        """The machine's state."""
        return self.machine.state

    @property
    def active(self) -> bool:
        """Whether both ends are members."""
        return self.machine.state is LegState.ACTIVE

    # Inputs of the network

    def connected(self, now_ns: int) -> list[Event]:
        """The asker's connection stands."""
        self.heard_ns = now_ns
        return self._step(LegInput.CONNECTED)

    def reached(self, now_ns: int) -> list[Event]:
        """The asker's connection stands; ``secured`` follows, or ``lost``."""
        self.heard_ns = now_ns
        return self._step(LegInput.REACHED)

    def secured(self, identity: str, gate: Gate | None, now_ns: int) -> list[Event]:
        """The connection is encrypted now.

        Args:
            identity: Whom the peer's certificate names; ``""`` if it has shown none.
            gate: What stands before the leg until a session key is proved; None: nothing.
            now_ns: Now.
        """
        self.heard_ns = now_ns
        self.identity, self._gate = identity, gate
        if isinstance(gate, AnswererGate):
            self.outbox.push(gate.challenge())
        return self._step(LegInput.CONNECTED) if self.asker and gate is None else []

    def received(self, count: int, now_ns: int) -> Iterator[Event]:
        """``count`` more bytes are in ``reader.buffer()``; exhaust the events at once."""
        self.heard_ns = now_ns
        self._heard_as_member |= self.active
        try:
            for frame in self.reader.received(count):
                if frame.kind == DATA and self.machine.state is LegState.ACTIVE:
                    yield Data(frame.flags, frame.body)
                else:
                    yield from self._frame(frame, now_ns)
                if self.machine.state is LegState.ENDED:
                    return
        except RemoteProtocolError as error:
            yield from self.breach(str(error))

    def lost(self, now_ns: int, *, code: int = 0, message: str = "", hint: str = "") -> list[Event]:
        """The connection ended or never came; ``code`` is the system's, as a WSAE number."""
        if self.machine.state in _UNANSWERED:
            refused = "the other side ended the connection without an answer"
            self._failure = JoinFailed(code or WSAECONNREFUSED, message or refused, hint=hint)
        return self._end(LegInput.LOST, EndReason.LOST)

    # Inputs of the application

    def offer(self) -> None:
        """The request is taken up by accept."""
        self._step(LegInput.OFFER)

    def defer(self) -> None:
        """The condition function wants to decide later."""
        self._step(LegInput.DEFER)

    def admit(self, answer: Answer) -> list[Event]:
        """The condition function said yes."""
        if self.machine.allows(LegInput.ADMIT):
            self.outbox.push(control_frame(Kind.ACCEPT, encode(answer)))
        return self._become_member(self._step(LegInput.ADMIT))

    def refuse(self, refusal: Refusal) -> list[Event]:
        """The condition function said no, or there is no room."""
        self._refusal(refusal)
        return self._end(LegInput.REFUSE, EndReason.REFUSED)

    def close(
        self, reason: EndReason, data: bytes, deadline_ns: int, refusal: Refusal | None = None
    ) -> list[Event]:
        """Take leave in order: a member says LEAVE, an asker withdraws, an answerer refuses.

        From ACTIVE the leg goes to ENDING; the peer has until ``deadline_ns`` to end its side.
        """
        if self.machine.state in (LegState.QUEUED, LegState.OFFERED):
            self._refusal(refusal or Refusal(WSAECONNREFUSED, "the listener closed"))
        elif self.machine.state in (LegState.ACTIVE, LegState.ASKED):
            word = EndReason.WITHDRAWN if self.machine.state is LegState.ASKED else reason
            self.outbox.push(control_frame(Kind.LEAVE, encode(Leave(str(word), data))))
            self.deadline_ns = deadline_ns
        return self._end(LegInput.CLOSE, reason)

    def abort(self) -> list[Event]:
        """End without ceremony: the peer sees a reset."""
        self.outbox.clear()
        return self._end(LegInput.ABORT, EndReason.CLOSED)

    # Clocks

    def tick(self, now_ns: int) -> list[Event]:
        """Do what is due: a sign of life, the end of a time limit, the end of patience."""
        if self.deadline_ns is not None and now_ns >= self.deadline_ns:
            self.deadline_ns = None
            if events := self._deadline():
                return events
        silent_ns = self._silent_at_ns()
        if silent_ns is not None and now_ns >= silent_ns:
            self._failure = JoinFailed(WSAETIMEDOUT, f"{self.peer} fell silent")
            return self._end(LegInput.SILENT, EndReason.TIMED_OUT)
        if now_ns >= self._next_beat_ns:
            self._next_beat_ns = now_ns + self.beat_every_ns
            # With something queued the peer will hear from us anyway, or cannot hear at all.
            if self._beats and not self.outbox:
                self.outbox.push(_BEAT)
        return []

    def next_deadline_ns(self) -> int | None:
        """When ``tick`` has something to do; None once ended."""
        if self.machine.state is LegState.ENDED:
            return None
        times = (
            self.deadline_ns,
            self._silent_at_ns(),
            self._next_beat_ns if self._beats else None,
        )
        return min((time for time in times if time is not None), default=None)

    @property
    def _beats(self) -> bool:
        return self.machine.state in (LegState.ASKED, LegState.QUEUED, LegState.OFFERED) or (
            self.machine.state is LegState.ACTIVE
        )

    def _silent_at_ns(self) -> int | None:
        """When silence becomes death. It does not count while this end is not reading."""
        if self.reading_ns is None or self.machine.state in (
            LegState.CONNECTING,
            LegState.OPENED,
            LegState.ENDED,
        ):
            return None
        return max(self.heard_ns, self.reading_ns) + self._bound_ns()

    def _bound_ns(self) -> int:
        """This end's bound; an asker that cannot know it yet beats by its own.

        It knows once the answer has come, which the first word of the new member shows.
        """
        if not self._heard_as_member and not self.asker and self.request is not None:
            claimed_ns = min(self.request.dead_after_ms * 1_000_000, LONGEST_CLAIM_NS)
            return max(self.dead_after_ns, claimed_ns)
        return self.dead_after_ns

    def _deadline(self) -> list[Event]:
        if self.machine.state in _UNANSWERED:
            self._failure = JoinFailed(WSAETIMEDOUT, f"{self.peer} did not answer in time")
        if self.machine.state is LegState.ASKED:
            withdrawal = encode(Leave(str(EndReason.WITHDRAWN)))
            self.outbox.push(control_frame(Kind.LEAVE, withdrawal))
        return self._end(LegInput.DEADLINE, EndReason.TIMED_OUT)

    # Frames

    def _frame(self, frame: Frame, now_ns: int) -> list[Event]:
        state = self.machine.state
        if frame.kind == Kind.BEAT:
            return []
        if state is LegState.ENDING:
            return (
                self._end(LegInput.LEAVE, self.reason or EndReason.CLOSED)
                if (frame.kind == Kind.LEAVE)
                else []
            )
        if frame.kind in _GATE_FRAMES:
            return self._gate_frame(frame)
        if self._gate is not None and not self._gate.proved:
            self._check_unproved(frame)
        if state is LegState.ACTIVE:
            return self._member_frame(frame)
        if state is LegState.OPENED and frame.kind == Kind.WHO:
            return self._end(LegInput.QUERY, EndReason.CLOSED)
        if state is LegState.OPENED and frame.kind in (Kind.JOIN, Kind.INVITE):
            return self._requested(decode(Request, frame.body), frame.kind)
        if state is LegState.ASKED and frame.kind == Kind.ACCEPT:
            return self._accepted(decode(Answer, frame.body), now_ns)
        if state in (LegState.ASKED, LegState.SECURING) and frame.kind == Kind.REFUSE:
            refusal = decode(Refusal, frame.body)
            self._failure = JoinFailed(
                refusal.code or WSAECONNREFUSED,
                refusal.message or "the join was refused",
                refusal.data,
                refused=True,
                hint=_HINT_COPY if self._gate is not None and not self._gate.proved else "",
            )
            return self._end(LegInput.REFUSED, EndReason.REFUSED)
        if state in (LegState.QUEUED, LegState.OFFERED) and frame.kind == Kind.LEAVE:
            return self._end(LegInput.LEAVE, EndReason.WITHDRAWN)
        raise RemoteProtocolError(f"frame {frame.kind} in state {state.name.lower()}")

    def _check_unproved(self, frame: Frame) -> None:
        """Nothing is heard before the session key is proved, but what needs no trust."""
        # Whoever asks for the roster is judged by where it is; a refusal is no answer to trust.
        harmless = Kind.REFUSE if self.asker else Kind.WHO
        if frame.kind != harmless:
            raise RemoteProtocolError(f"frame {frame.kind} before the session key was proved")

    def _gate_frame(self, frame: Frame) -> list[Event]:
        gate, state, body = self._gate, self.machine.state, bytes(frame.body)
        if isinstance(gate, AskerGate):
            if state is LegState.SECURING and frame.kind == Kind.CHALLENGE:
                self.outbox.push(gate.challenged(body))
                return self._step(LegInput.CONNECTED)  # the request follows at once
            if state is LegState.ASKED and frame.kind == Kind.PROOF:
                if not gate.proof(body):
                    raise RemoteProtocolError("it does not know the secret of the session key")
                self.identity = SESSION_KEY
                return []
        elif gate is not None and state is LegState.OPENED and frame.kind == Kind.PROOF:
            return self._judge(gate, body)
        raise RemoteProtocolError(f"frame {frame.kind} in state {state.name.lower()}")

    def _judge(self, gate: AnswererGate, body: bytes) -> list[Event]:
        proof = gate.proof(body)
        if proof is None:
            refusal = Refusal(WSAEACCES, "the session key is wrong: its secret is another")
            return [WrongKey(), *self.refuse(refusal)]
        self.outbox.push(proof)
        self.identity = SESSION_KEY
        return []

    def _member_frame(self, frame: Frame) -> list[Event]:
        if frame.kind in GROUP_KINDS:
            return [GroupWord(frame.kind, frame.body)]
        if frame.kind == Kind.LEAVE:
            leave = decode(Leave, frame.body)
            self.end_data = leave.data
            try:
                reason = EndReason(leave.reason)
            except ValueError:
                reason = EndReason.CLOSED  # a newer peer's word
            return self._end(LegInput.LEAVE, reason)
        if frame.kind == Kind.GAP:
            if len(frame.body) != DATA_PREFIX.size + 8:
                raise RemoteProtocolError("a GAP of the wrong length")
            sender, first = DATA_PREFIX.unpack_from(frame.body)
            count = int.from_bytes(frame.body[DATA_PREFIX.size :], "big")
            return [Gap(sender, first, count)]
        if frame.kind == Kind.NAME:
            name = decode(Name, frame.body)
            return [Named(name.leaf, name.address())]
        if frame.kind == Kind.QOS:
            body = decode(QosBody, frame.body)
            return [QosAgreed(body.qos() if body.stated else None, body.refused)]
        raise RemoteProtocolError(f"frame {frame.kind} from a member")

    def _requested(self, request: Request, kind: int) -> list[Event]:
        if (request.facts is None) != (kind == Kind.JOIN):
            raise RemoteProtocolError("a request that contradicts itself")
        if request.qos is not None:
            request.qos.qos()
        lowest, highest = request.versions
        unknown = unknown_critical(request)
        if unknown or not lowest <= VERSION <= highest:
            what = f"fields {unknown}" if unknown else f"versions {lowest} to {highest}"
            return self.refuse(
                Refusal(WSAEOPNOTSUPP, f"{what} not understood; this end speaks version {VERSION}")
            )
        if kind == Kind.JOIN and (problem := self._too_small(request.max_message)):
            return self.refuse(Refusal(WSAEOPNOTSUPP, problem))
        self.request = request
        self._learn(request.dead_after_ms, request.max_message)
        self.deadline_ns = None  # the asker's patience counts now
        events = self._step(LegInput.REQUEST)
        return [Requested(request), *events]

    def _accepted(self, answer: Answer, now_ns: int) -> list[Event]:
        if answer.version != VERSION or unknown_critical(answer):
            raise RemoteProtocolError("an answer that was not asked for")
        if (answer.facts is None) == (self.request is not None and self.request.facts is None):
            raise RemoteProtocolError("an answer without the session's facts, or with too many")
        if answer.qos is not None:
            answer.qos.qos()
        if answer.facts is None and (problem := self._too_small(answer.max_message)):
            self._failure = JoinFailed(WSAEOPNOTSUPP, problem)
            return self._end(LegInput.REFUSED, EndReason.REFUSED)
        self._learn(answer.dead_after_ms, answer.max_message)
        self.reading_ns = now_ns
        return self._become_member(
            [
                JoinSucceeded(answer) if isinstance(event, JoinSucceeded) else event
                for event in self._step(LegInput.ACCEPTED)
            ]
        )

    def _too_small(self, leaf_max_message: int) -> str:
        """Why a leaf cannot take part whose messages may not be as long as the root's; or "".

        The root's limit is the session's: one leaf must not shrink everybody's messages, nor break
        at the first long one.
        """
        if leaf_max_message >= self.max_message:
            return ""
        return (
            f"messages of this session have up to {self.max_message} bytes and the leaf takes "
            f"{leaf_max_message}: raise its max_message, or lower the root's"
        )

    def _learn(self, dead_after_ms: int, max_message: int) -> None:
        self.beat_every_ns = max(SHORTEST_BEAT_NS, dead_after_ms * 1_000_000 // BEATS_PER_BOUND)
        self._next_beat_ns = min(self._next_beat_ns, self.heard_ns + self.beat_every_ns)
        self.peer_max_message = min(max_message, self.max_message)

    def _become_member(self, events: list[Event]) -> list[Event]:
        if self.active:
            self.deadline_ns = None
            self.reader.max_body = max(MAX_CONTROL_BODY, self.max_message + MAX_FRAME_OVERHEAD)
        return events

    def _refusal(self, refusal: Refusal) -> None:
        if self.machine.allows(LegInput.REFUSE):
            self.outbox.push(control_frame(Kind.REFUSE, encode(refusal)))

    def breach(self, message: str) -> list[Event]:
        """The peer broke the protocol; whatever the leg was, it ends."""
        self._breach = message
        self._failure = JoinFailed(WSAECONNREFUSED, f"the other side broke the protocol: {message}")
        return self._end(LegInput.BAD_BYTES, EndReason.PROTOCOL_ERROR)

    def _end(self, kind: LegInput, reason: EndReason) -> list[Event]:
        if self.reason is None and self.machine.allows(kind):
            self.reason = reason
        return self._step(kind)

    def _step(self, kind: LegInput) -> list[Event]:
        performed = map(self._perform, self.machine.handle(kind))
        return [event for event in performed if event is not None]

    def _perform(self, action: LegAction) -> Event | None:
        """Turn an action into an event or, for the request, into bytes."""
        if action is LegAction.SEND_REQUEST:
            assert self.request is not None
            kind = Kind.JOIN if self.request.facts is None else Kind.INVITE
            self.outbox.push(control_frame(kind, encode(self.request)))
            return None
        reason = self.reason or EndReason.CLOSED
        match action:
            case LegAction.JOINED:
                return JoinSucceeded(None)
            case LegAction.JOIN_FAILED:
                return self._failure
            case LegAction.INDICATE_QUERY:
                return Asked()
            case LegAction.INDICATE_WITHDRAWN:
                return Withdrawn(reason)
            case LegAction.INDICATE_CLOSE:
                message = self._breach if reason is EndReason.PROTOCOL_ERROR else ""
                return Closed(reason, _CLOSE_CODES.get(reason, 0), self.end_data, message)
            case LegAction.DROP:
                return Dropped(flush=False)
            case LegAction.DROP_FLUSHED:
                return Dropped(flush=True)
            case _:  # the senders of ACCEPT, REFUSE and LEAVE wrote them before the step
                return None
