"""What the session APIs hand out: messages, join requests, events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, count, repeat
from operator import length_hint
from typing import TYPE_CHECKING

import msgspec

from joinleaf.spi.provider import DEFER, Accept, Batch, Defer, JoinRequest, JoinRole, Reject
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.values import Address

if TYPE_CHECKING:
    from collections.abc import Hashable
    from typing import Protocol

    class LeafView(Protocol):
        """What every front's view of a leaf has."""

        @property
        def key(self) -> Hashable: ...
        @property
        def address(self) -> Address: ...
        @property
        def name(self) -> str: ...
        @property
        def incarnation(self) -> bytes: ...


__all__ = [
    "Decision",
    "Event",
    "LeafJoined",
    "LeafLeft",
    "LeafRefused",
    "Message",
    "MessagesLost",
    "QosChanged",
    "Request",
    "SessionEnded",
    "Unpacker",
    "both_directions",
    "lost_in",
]


class Message(msgspec.Struct, frozen=True):
    """One message.

    Attributes:
        data: The payload.
        sender: Who sent it.
        sequence: Its number among those of this sender, from 0; -1 where the carrier does not
            number (plain multicast, and what was sent to some leaves only).
        time: When it arrived, seconds since 1970.
        gap: How many messages of this sender are known to be missing right before it.
    """

    data: bytes
    sender: Address
    sequence: int
    time: float
    gap: int = 0


class Unpacker:
    """Hands out batches as messages, one by one, without a line of Python for each.

    Attributes:
        waiting: Messages of the present batch that have not been handed out.
    """

    __slots__ = ("_gaps", "_payloads", "waiting")

    def __init__(self) -> None:
        self._payloads: Iterator[bytes] = iter(())
        self._gaps: dict[Address, int] = {}  # missing before the next message of a sender
        self.waiting: Iterator[Message] = iter(())

    def put(self, batch: Batch) -> None:
        """The next batch; the one before has been handed out."""
        numbers = count(batch.sequence) if batch.sequence >= 0 else repeat(-1)
        seconds = repeat(batch.time_ns / 1e9)
        gap = batch.gap
        if gap or self._gaps:
            gap += self._gaps.pop(batch.sender, 0)
            if not batch.messages:
                self._gaps[batch.sender] = gap
        gaps = chain((gap,), repeat(0))
        self._payloads = iter(batch.messages)
        self.waiting = map(Message, self._payloads, repeat(batch.sender), numbers, seconds, gaps)

    def first(self, batch: Batch) -> Message | None:
        """As ``put``, and the first message of the batch; None if it only tells of a gap."""
        messages = batch.messages
        if len(messages) == 1 and not batch.gap and not self._gaps:
            return Message(messages[0], batch.sender, batch.sequence, batch.time_ns / 1e9)
        self.put(batch)
        return next(self.waiting, None)

    def rest(self) -> Batch | None:
        """What has not been handed out, as a batch again; None if nothing is left."""
        rest = list(self.waiting)
        if not rest:
            return None
        first = rest[0]
        return Batch(
            [message.data for message in rest],
            first.sender,
            first.sequence,
            int(first.time * 1e9),
            first.gap,
        )

    def completed(self, batch: Batch) -> Batch:
        """A batch that is handed out whole, with a gap that was told before it."""
        if self._gaps:
            batch.gap += self._gaps.pop(batch.sender, 0)
        return batch

    def __bool__(self) -> bool:
        return length_hint(self._payloads) > 0


def lost_in(batch: Batch) -> MessagesLost | None:
    """The event that a batch's gap is; None if it has none."""
    if not batch.gap:
        return None
    return MessagesLost(batch.sender, batch.sequence - batch.gap, batch.gap)


Decision = Accept | Reject | Defer
"""What ``admit`` returns; made by ``Request.accept``, ``.reject`` and ``.defer``."""


@dataclass(frozen=True, slots=True)
class Request:
    """A join request, as ``admit`` sees it. Return ``accept()``, ``reject()`` or ``defer()``.

    Attributes:
        peer: Address the request comes from.
        data: The asker's connect data, ``b""`` if none.
        qos: The flow specifications it asks for, None if none.
        role: Whether it wants to send, receive or both.
        name: What it calls itself; nothing vouches for it.
        incarnation: Random identity of this start of it.
        identity: Who it is, as far as verified: whom its certificate names, or ``"session key"``;
            ``""`` in cleartext.
    """

    peer: Address
    data: bytes
    qos: Qos | None
    role: JoinRole
    name: str
    incarnation: bytes
    identity: str = ""

    @classmethod
    def of(cls, request: JoinRequest) -> Request:
        """From the seam's form."""
        return cls(
            request.peer,
            request.data,
            request.qos,
            request.role,
            request.name,
            request.incarnation,
            request.identity,
        )

    def accept(self, data: bytes = b"", *, qos: Qos | None = None) -> Accept:
        """Let it in; it gets ``data`` (at most 64 KiB) as its welcome."""
        return Accept(bytes(data), qos)

    def reject(self, data: bytes = b"", *, message: str = "") -> Reject:
        """Turn it away; it gets ``data`` (at most 64 KiB) and a sentence with the refusal."""
        return Reject(bytes(data), message)

    def defer(self) -> Defer:
        """Decide later: it stays first in the queue and is asked about again."""
        return DEFER


@dataclass(frozen=True, slots=True)
class LeafJoined:
    """A leaf is a member now.

    Attributes:
        leaf: The root's view of it.
        view: Number of the membership, which grows with every change.
    """

    leaf: LeafView
    view: int
    joined = True
    reason = ""
    data = b""


@dataclass(frozen=True, slots=True)
class LeafLeft:
    """A leaf is a member no more.

    Attributes:
        leaf: The root's view of it.
        view: Number of the membership.
        reason: A value of ``EndReason``: closed, expelled, slow, timed out, lost, ...
        data: What it sent along.
    """

    leaf: LeafView
    view: int
    reason: str
    data: bytes = b""
    joined = False


@dataclass(frozen=True, slots=True)
class LeafRefused:
    """Somebody asked to join and was turned away, or gave up.

    Attributes:
        address: Who.
        name: What it calls itself.
        reason: Why, in words.
    """

    address: Address
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class QosChanged:
    """The agreed flow specifications changed, or a wish for others was refused.

    Attributes:
        qos: What holds now; None: nothing is agreed.
        leaf: At a root, with which leaf.
        refused: This member's wish did not fit; what was agreed before holds.
    """

    qos: Qos | None
    leaf: LeafView | None = None
    refused: bool = False


@dataclass(frozen=True, slots=True)
class MessagesLost:
    """Messages of a sender are missing, by a stated policy or on a carrier that does not repair.

    Attributes:
        sender: Whose.
        first: Number of the first one missing.
        count: How many.
    """

    sender: Address
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """The session is over for this member; the last event there is.

    Attributes:
        reason: A value of ``EndReason``.
        data: What the other side sent along.
    """

    reason: str
    data: bytes = b""


Event = LeafJoined | LeafLeft | LeafRefused | QosChanged | MessagesLost | SessionEnded


def both_directions(qos: FlowSpec | Qos | None, role: JoinRole) -> Qos | None:
    """A lone flow specification stands for each direction the role has."""
    if qos is None or isinstance(qos, Qos):
        return qos
    nothing = FlowSpec()
    return Qos(qos if role.sends else nothing, qos if role.receives else nothing)
