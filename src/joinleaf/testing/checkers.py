"""What must never happen, and what must have happened in the end.

A ``Ledger`` watches a whole simulation from outside. It learns from both ends of every leg and
believes neither: every message carries who sent it, in which session, and its number, so that what
a member is given can be held against what was sent.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from joinleaf.core.root_session import RootSession
from joinleaf.spi.provider import Batch, JoinRole
from joinleaf.values import Address

__all__ = ["Ledger", "Member", "SafetyError", "make_message"]

_HEAD: Final = struct.Struct(">8sII8sQ")
_MAGIC: Final = 0x6D657373


class SafetyError(AssertionError):
    """Something happened that must not, whatever the faults."""


def make_message(
    session: bytes, sender: int, incarnation: bytes, sequence: int, size: int, target: int = 0
) -> bytes:
    """A message that tells where it belongs.

    Args:
        session: The session's identity.
        sender: Leaf id, 0 for the root.
        incarnation: Identity of the sender's start.
        sequence: Its number among those of this sender.
        size: Its length in bytes, if that is enough for what it must tell.
        target: Leaf id it is for, 0 for all who hear the sender.
    """
    head = _HEAD.pack(session[:8], sender, target, incarnation[:8], sequence)
    tail = (sequence & 0xFF).to_bytes(1, "big") * max(0, size - len(head) - 4)
    return head + tail + _MAGIC.to_bytes(4, "big")


@dataclass(slots=True)
class Member:
    """A membership: one leaf's time in one session.

    Attributes:
        leaf: Its number in the session.
        incarnation: Identity of that start of the leaf.
        d_root: Whether it is the d_root.
        role: Whether it sends, receives or both.
        peer: Its address, as the root sees it.
        first: By sender, the number of the first message it is owed.
        next: By sender, the number of the next message it is due.
        owed: By sender, the number after the last it must be told of, once that is settled.
        sent: How many messages it had sent when it took leave; None while a member.
        over: Whether the root has ended it or seen it end.
    """

    leaf: int
    incarnation: bytes
    d_root: bool
    role: JoinRole
    peer: Address
    first: dict[int, int] = field(default_factory=dict)
    next: dict[int, int] = field(default_factory=dict)
    owed: dict[int, int] | None = None
    sent: int | None = None
    over: bool = False


@dataclass(slots=True)
class SessionRecord:
    """What the ledger knows of one session.

    Attributes:
        root: The root's own entry, leaf number 0.
        members: Everybody who ever was a member at the root.
        invited: Leaf numbers the root gave out in invitations.
        lossy: Whether the slow policy may drop.
        skips: Whether a leaf may be skipped in a stream: whom it had not heard before, it cannot
            know to have missed.
    """

    session: bytes
    rooted: bool
    lossy: bool
    skips: bool
    root: Member
    members: dict[int, Member] = field(default_factory=dict)
    invited: dict[int, None] = field(default_factory=dict)


class Ledger:
    """Checks safety as things happen. Every method may raise ``SafetyError``.

    Attributes:
        sessions: By identity.
        counts: How often each kind of thing was checked; a run that checks nothing proves nothing.
    """

    def __init__(self) -> None:
        self.sessions: dict[bytes, SessionRecord] = {}
        self.counts: dict[str, int] = {}
        self._verdicts: dict[bytes, tuple[bool, bytes]] = {}

    def _count(self, name: str, amount: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + amount

    def require(self, ok: bool, text: str) -> None:
        """Raise with this text unless it holds."""
        if not ok:
            raise SafetyError(text)

    # Admission

    def opened(self, core: RootSession, *, lossy: bool) -> None:
        """A root opened a session."""
        root = Member(0, core.incarnation, core.myself.d_root, core.myself.role, Address("root"))
        skips = lossy and core.carriage is not None
        self.sessions[core.session_id] = SessionRecord(
            core.session_id, core.rooted, lossy, skips, root
        )

    def decided(self, token: bytes, admitted: bool, data: bytes) -> None:
        """An answerer decided about the request that carries this token."""
        self.require(token not in self._verdicts, f"request {token!r} was decided twice")
        self._verdicts[token] = (admitted, data)
        self._count("admitted" if admitted else "refused")

    def asker_joined(self, token: bytes, data: bytes) -> None:
        """An asker believes that it got in, and was told this."""
        self.require(
            self._verdicts.get(token) == (True, data), f"{token!r} got in without being admitted"
        )

    def asker_refused(self, token: bytes, data: bytes) -> None:
        """An asker was told that it was refused, and why."""
        verdict = self._verdicts.get(token)
        if data:
            self.require(verdict == (False, data), f"{token!r} heard a refusal nobody spoke")

    def root_joined(self, core: RootSession, key: int) -> int:
        """A leg has become a member at the root; its leaf number.

        It may be none any more by now: an answer and a leave can come in one piece.
        """
        record, leg = self.sessions[core.session_id], core.legs[key]
        request, answer = leg.association.request, leg.answer
        assert request is not None
        assert answer is not None
        asked = leg.association.asker
        facts, theirs = (request.facts, answer) if asked else (answer.facts, request)
        assert facts is not None
        self.require(facts.leaf not in record.members, f"leaf {facts.leaf} is a member twice")
        member = Member(
            facts.leaf,
            theirs.incarnation,
            theirs.d_root,
            JoinRole(theirs.role),
            leg.association.peer,
        )
        member.first = {0: core.sequence, **self._numbers(core)}
        record.members[facts.leaf] = member
        present = [record.root, *(other for other in record.members.values() if not other.over)]
        roots = sum(other.d_root for other in present)
        self.require(roots <= 1, f"{roots} data roots in one session")
        self._count("memberships")
        return facts.leaf

    @staticmethod
    def _numbers(core: RootSession) -> dict[int, int]:
        """By leaf, the number of its next message at the root."""
        return {
            leg.member.key: leg.expected.get(leg.member.key, 0)
            for leg in core.legs.values()
            if leg.member is not None
        }

    def invited(self, session: bytes, leaf: int) -> None:
        """The root sent an invitation under this number."""
        self.sessions[session].invited[leaf] = None

    def leaf_joined(self, session: bytes, leaf: int, incarnation: bytes) -> None:
        """A leaf believes that it is a member."""
        record = self.sessions.get(session)
        self.require(record is not None, "a member of a session that never was")
        assert record is not None
        if leaf in record.invited:
            return  # the leaf knows first; the root hears by its answer
        member = record.members.get(leaf)
        self.require(member is not None, f"leaf {leaf} is a member only in its own mind")
        assert member is not None
        self.require(member.incarnation == incarnation, f"leaf {leaf} is somebody else's number")

    # Data

    def hears(self, record: SessionRecord, listener: Member, sender: Member) -> bool:
        """The rule of the data plane, written down a second time."""
        if listener.leaf == sender.leaf:
            return False
        if sender.role is JoinRole.RECEIVER_ONLY or listener.role is JoinRole.SENDER_ONLY:
            return False
        return not record.rooted or listener.d_root or sender.d_root

    def delivered(self, session: bytes, leaf: int, batch: Batch) -> None:
        """A member (0: the root) was given a batch."""
        record = self.sessions[session]
        listener = record.root if leaf == 0 else record.members.get(leaf)
        self.require(listener is not None, f"leaf {leaf} got data and is no member at the root")
        assert listener is not None
        if not batch.messages and not batch.gap:
            return
        if batch.gap:
            self._gap(record, listener, batch)
        if not batch.messages:
            return
        sender, target = self._origin(record, listener, batch)
        if target or batch.side or batch.sequence < 0:
            self.require(target in (leaf, 0) and batch.sequence < 0, "a message for somebody else")
            self._count("direct", len(batch.messages))
            return
        self._hold(record, listener, sender, batch.sequence, len(batch.messages))
        self._count("delivered", len(batch.messages))

    def _origin(self, record: SessionRecord, listener: Member, batch: Batch) -> tuple[Member, int]:
        """Who made these messages, and for whom; all must agree and be numbered in order."""
        first = _HEAD.unpack_from(batch.messages[0])
        session, number, target, incarnation, start = first
        self.require(session == record.session[:8], "data of another session")
        sender = record.root if number == 0 else record.members.get(number)
        self.require(sender is not None, f"data of leaf {number}, never a member")
        assert sender is not None
        self.require(incarnation == sender.incarnation[:8], "data of another incarnation")
        for offset, message in enumerate(batch.messages):
            head = _HEAD.unpack_from(message)
            self.require(head[:4] == first[:4], "a batch of several senders")
            self.require(head[4] == start + offset, f"number {head[4]} where {start + offset} is")
            self.require(message[-4:] == _MAGIC.to_bytes(4, "big"), "a message cut short")
        if not target and not batch.side:
            self.require(batch.sequence == start, f"told {batch.sequence}, sent as {start}")
            self.require(
                self.hears(record, listener, sender),
                f"leaf {listener.leaf} heard leaf {sender.leaf}, and must not",
            )
        return sender, target

    def _gap(self, record: SessionRecord, listener: Member, batch: Batch) -> None:
        self.require(record.lossy, "a gap where nothing may be lost")
        first = batch.sequence - batch.gap
        sender = self._missed_one(record, listener, batch.sender, first)
        self.require(
            self.hears(record, listener, sender),
            f"leaf {listener.leaf} missed leaf {sender.leaf}, whom it must not hear",
        )
        self._hold(record, listener, sender, first, batch.gap)
        self._count("missed", batch.gap)

    @staticmethod
    def _missed_one(
        record: SessionRecord, listener: Member, address: Address, first: int
    ) -> Member:
        """Whose messages a gap tells of: an address may have been several members in turn."""
        had = [member for member in record.members.values() if member.peer == address]
        for member in reversed(had):
            if listener.next.get(member.leaf, listener.first.get(member.leaf, 0)) == first:
                return member
        return had[-1] if had else record.root

    def _hold(
        self, record: SessionRecord, listener: Member, sender: Member, first: int, count: int
    ) -> None:
        due = listener.next.get(sender.leaf, listener.first.get(sender.leaf, 0))
        if record.skips and sender.leaf not in listener.next:
            due = max(first, due)
        self.require(
            first == due,
            f"leaf {listener.leaf} got message {first} of leaf {sender.leaf} where {due} is due",
        )
        listener.next[sender.leaf] = first + count

    # Ends

    def root_ends(self, core: RootSession, leaf: int) -> None:
        """The root takes leave of a member in order: what it has passed on so far is owed."""
        if (member := self.sessions[core.session_id].members.get(leaf)) is not None:
            member.owed = {0: core.sequence, **self._numbers(core)}
            member.over = True

    def root_left(self, session: bytes, leaf: int) -> None:
        """The root has seen a membership end, however."""
        if (member := self.sessions[session].members.get(leaf)) is not None:
            member.over = True

    def leaf_leaves(self, session: bytes, leaf: int, sent: int) -> None:
        """A leaf takes leave in order, having sent so many messages."""
        if (member := self.sessions[session].members.get(leaf)) is not None:
            member.sent = sent

    def leaf_heard_the_end(self, session: bytes, leaf: int) -> None:
        """A leaf was told in order that it is out: by then it must have been given all."""
        record = self.sessions[session]
        member = record.members.get(leaf)
        if member is None or member.owed is None:
            return
        for number, end in member.owed.items():
            self._complete(record, member, number, end)
        self._count("ends_heard")

    def root_heard_the_end(self, core: RootSession, leaf: int, taken: int) -> None:
        """The root was told in order that a leaf left: by then it must have taken all."""
        record = self.sessions[core.session_id]
        member = record.members[leaf]
        member.over = True
        if member.sent is not None:
            self.require(taken == member.sent, f"{taken} of {member.sent} messages before LEAVE")
            if self.hears(record, record.root, member):
                self._complete(record, record.root, leaf, member.sent)
            self._count("leaves_heard")

    def _complete(self, record: SessionRecord, listener: Member, number: int, end: int) -> None:
        """All before ``end`` was told, and nothing that came later."""
        sender = record.root if number == 0 else record.members.get(number)
        if sender is None or not self.hears(record, listener, sender):
            return
        if record.skips and number not in listener.next:
            return
        due = listener.next.get(number, listener.first.get(number, 0))
        self.require(
            due == end,
            f"leaf {listener.leaf} was told of {due} of {end} messages of leaf {number}",
        )

    def settled(self, core: RootSession) -> None:
        """All is quiet: whoever is a member has been told of everything that was sent."""
        record = self.sessions[core.session_id]
        numbers = {0: core.sequence, **self._numbers(core)}
        listeners = [record.root, *(record.members[leaf] for leaf in numbers if leaf)]
        for listener in listeners:
            for number, end in numbers.items():
                self._complete(record, listener, number, end)
        self._count("settled", len(listeners))
