"""Sessions fed by a hostile peer, with operations of their own in between.

A program is a string of bytes: each step is an operation byte and its arguments. The first byte
says how the hostile leg's bytes are cut. Besides it, honest legs are in the session; whatever the
hostile one sends, they must go on as before.
"""

from __future__ import annotations

import sys
from itertools import chain

from joinleaf.core.leaf_session import LeafSession
from joinleaf.core.leg import LegState
from joinleaf.core.root_session import RootSession
from joinleaf.core.session import Arrived, Drop, LegEnded, Session
from joinleaf.core.wire.control import Answer, Request, SessionFacts, encode
from joinleaf.core.wire.data import pack
from joinleaf.core.wire.frames import Kind, control_frame
from joinleaf.errors import SpiError
from joinleaf.spi.provider import Accept, EndReason, JoinRole, Reject, Settings, SlowPolicy
from joinleaf.values import Address

HERE, THERE = Address("10.0.0.1", 7400), Address("10.0.0.2", 50000)
HOSTILE = 1
SECOND = 1_000_000_000
FACTS = SessionFacts(b"S" * 16, 1, False, False, JoinRole.BOTH)
JOIN = Request((1, 1), b"L" * 16, JoinRole.BOTH, 10_000, 1 << 16)
INVITE = Request((1, 1), b"R" * 16, JoinRole.BOTH, 10_000, 1 << 16, facts=FACTS)
ANSWER = Answer(1, b"R" * 16, 10_000, 1 << 16, facts=FACTS)
OPERATIONS = 12
"""Steps from here on feed as many bytes as the operation byte says, 12 less."""


def settings() -> Settings:
    return Settings(
        max_message=1 << 16, queue_bytes=65536, slow=SlowPolicy.DROP, backlog=3, capacity=10_000
    )


class Conversation:
    """One session under test, and what must hold of it after every step."""

    def __init__(self, session: Session, *, bytewise: bool) -> None:
        self.session = session
        self.bytewise = bytewise
        self.now_ns = 0
        self.fed = 0
        self.refused = 0
        self.hostile_ends = 0

    def feed(self, key: int, data: bytes) -> None:
        """Bytes for one leg, in one piece or each for itself, until the leg is over."""
        for piece in (data[i : i + 1] for i in range(len(data))) if self.bytewise else (data,):
            rest = memoryview(piece)
            while rest and (leg := self.session.legs.get(key)) is not None:
                if leg.association.state in (LegState.ENDED, LegState.CONNECTING):
                    return
                place = leg.association.reader.buffer()
                assert len(place) > 0
                count = min(len(place), len(rest))
                place[:count] = rest[:count]
                self.session.received(key, count, self.now_ns, 0)
                rest = rest[count:]
                if key == HOSTILE:
                    self.fed += count
                    own = leg.association.reader._own
                    assert sys.getsizeof(own) <= self.fed * 9 // 8 + 200

    def run(self, program: bytes) -> None:
        """Every step of the program; outputs are taken and judged after each."""
        position = 0
        while position < len(program):
            code = program[position]
            position += 1
            if code >= OPERATIONS:
                length = code - OPERATIONS
                self.feed(HOSTILE, program[position : position + length])
                position += length
            else:
                self.operate(code)
            self.judge()

    def operate(self, code: int) -> None:
        """What the application, the clock or the network does; a refusal changes nothing."""
        session = self.session
        leg = session.legs.get(HOSTILE)
        try:
            if code == 0:
                session.offer()
            elif code == 1:
                self.admit()
            elif code == 2:
                session.reject(HOSTILE, Reject(b"no", "no"))
            elif code == 3:
                session.defer(HOSTILE)
            elif code == 4:
                session.close_leg(HOSTILE, EndReason.EXPELLED, b"bye", self.now_ns, SECOND)
            elif code == 5 and leg is not None:
                session.lost(HOSTILE, self.now_ns)
            elif code == 6:
                session.abort_leg(HOSTILE)
            elif code == 7:
                self.now_ns += SECOND
                session.tick(self.now_ns)
            elif code == 8:
                session.send_side(HOSTILE, [b"side"])
            elif code == 9:
                self.send()
            elif code == 10 and leg is not None:
                leg.association.outbox.sent(leg.association.outbox.size)
            elif code == 11 and leg is not None:
                leg.association.reading_ns = (
                    None if leg.association.reading_ns is not None else self.now_ns
                )
        except SpiError:
            self.refused += 1

    def admit(self) -> None:
        raise NotImplementedError

    def send(self) -> None:
        raise NotImplementedError

    def judge(self) -> None:
        """Take the outputs; a leg ends at most once, and what is dropped is over."""
        session = self.session
        while session.out:
            event = session.out.popleft()
            if isinstance(event, LegEnded) and event.key == HOSTILE:
                self.hostile_ends += 1
                assert self.hostile_ends == 1
            if isinstance(event, Arrived):
                assert all(len(message) <= 1 << 16 for message in event.batch.messages)
            if isinstance(event, Drop):
                assert session.legs[event.key].association.state is LegState.ENDED
                session.removed(event.key)
        assert all(key in session.legs for key in chain(session.dirty, session.queue))
        due = session.next_deadline_ns()
        assert due is None or due >= 0


class RootConversation(Conversation):
    """A root with two honest members, and one connection that says anything."""

    def __init__(self, *, bytewise: bool, rooted: bool, stage: int) -> None:
        self.root = RootSession(
            settings(), session_id=b"S" * 16, incarnation=b"R" * 16, rooted=rooted, d_root=rooted
        )
        super().__init__(self.root, bytewise=bytewise)
        for key in (2, 3):
            self.enter(key, stage=3)
            self.root.out.clear()
        self.rounds = 0
        self.enter(HOSTILE, stage=stage)
        self.root.out.clear()

    def enter(self, key: int, stage: int) -> None:
        """Come as far as the stage: 0 connected, 1 waiting, 2 offered, 3 a member, 4 leaving."""
        if stage == 5:
            self.root.invite(key, THERE, HERE, 0, data=b"", qos=None, deadline_ns=None)
            self.root.connected(key, 0)
            return
        self.root.connection_opened(key, THERE, HERE, 0)
        if stage >= 1:
            self.feed(key, control_frame(Kind.JOIN, encode(JOIN)))
        if stage >= 2:
            self.root.offer()
        if stage >= 3:
            self.root.admit(key, Accept())
        if stage >= 4:
            self.root.close_leg(key, EndReason.CLOSED, b"", 0, SECOND)

    def admit(self) -> None:
        self.root.admit(HOSTILE, Accept(b"welcome"))

    def send(self) -> None:
        self.root.send([b"x" * 1000] * 20, self.now_ns)

    def judge(self) -> None:
        super().judge()
        assert {2, 3} <= set(self.root.members)
        self.keep_honest_alive()
        assert all(self.root.legs[key].association.active for key in (2, 3))
        assert (HOSTILE in self.root.members) == (
            HOSTILE in self.root.legs and self.root.legs[HOSTILE].association.active
        )

    def keep_honest_alive(self) -> None:
        """The honest ones read all that they are sent, and say something each round."""
        message = pack([b"m"], sender=0, sequence=self.rounds, flags=0, max_message=100)
        self.rounds += 1
        for key in (2, 3):
            outbox = self.root.legs[key].association.outbox
            outbox.sent(outbox.size)
            self.root.flushed(key)
            whole, self.bytewise = self.bytewise, False
            self.feed(key, bytes(message.buffers[0]))
            self.bytewise = whole
        heard = [e.key for e in self.root.out if isinstance(e, Arrived)]
        assert heard == [2, 3]
        self.root.out.clear()


class LeafConversation(Conversation):
    """A leaf whose root says anything; or, invited, a listener and who invites it."""

    def __init__(self, *, bytewise: bool, invited: bool, stage: int) -> None:
        self.leaf = LeafSession(settings(), incarnation=b"L" * 16, d_root=False)
        super().__init__(self.leaf, bytewise=bytewise)
        if invited:
            self.be_invited(stage)
        else:
            self.ask(stage)
        self.leaf.out.clear()

    def ask(self, stage: int) -> None:
        self.leaf.join(
            HOSTILE, HERE, THERE, 0, data=b"", qos=None, role=JoinRole.BOTH, deadline_ns=SECOND * 9
        )
        self.leaf.connected(HOSTILE, 0)
        if stage >= 1:
            self.feed(HOSTILE, control_frame(Kind.ACCEPT, encode(ANSWER)))
        if stage >= 2:
            self.leaf.close_leg(HOSTILE, EndReason.CLOSED, b"", 0, SECOND)

    def be_invited(self, stage: int) -> None:
        self.leaf.connection_opened(HOSTILE, HERE, THERE, 0)
        if stage >= 1:
            self.feed(HOSTILE, control_frame(Kind.INVITE, encode(INVITE)))
        if stage >= 2:
            self.leaf.offer()
        if stage >= 3:
            self.admit()

    def admit(self) -> None:
        """Accept, and go on as the provider does: the member is a session of its own."""
        self.leaf.admit(HOSTILE, Accept(b"gladly"))
        leg = self.leaf.legs.get(HOSTILE)
        if leg is not None and leg.association.active and self.leaf.facts is None:
            if leg.answer is None:
                return
            member = LeafSession(settings(), incarnation=b"L" * 16, d_root=False)
            member.adopt(HOSTILE, leg)
            self.judge()
            self.leaf.removed(HOSTILE)
            self.leaf = self.session = member

    def send(self) -> None:
        self.leaf.send(HOSTILE, [b"x" * 1000] * 20)
