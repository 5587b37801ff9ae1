"""Random histories of mem sessions against a small model: members, and what each must receive.

The model knows nothing of state machines: it keeps who is a member of what, whose request waits
where, and for each endpoint the list of messages it has still to receive and how it will end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from joinleaf.errors import SpiError
from joinleaf.providers.memory import MemoryProvider
from joinleaf.spi import codes
from joinleaf.spi.provider import Accept, Endpoint, EndReason, JoinRole, Reject, Roles, Settings
from joinleaf.values import Address, SessionAddress

NAMES = ("north", "south")
MOST_LEAVES = 6
picks = st.integers(0, 99)


@dataclass(eq=False)
class Node:
    """An endpoint, and what the model knows of it."""

    endpoint: Endpoint
    number: int
    role: JoinRole = JoinRole.BOTH
    session: Session | None = None
    leg: Endpoint | None = None  # of a leaf in a rooted session
    due: list[bytes] = field(default_factory=list)
    ended: int = 0  # the number that receive gives once everything due has come
    used: bool = False  # a membership that ended is not renewed


@dataclass(eq=False)
class Session:
    """Who is in it, and who waits to be admitted."""

    root: Node | None
    members: list[Node] = field(default_factory=list)
    waiting: list[tuple[Node, JoinRole]] = field(default_factory=list)

    def audience(self, sender: Node, *, rooted: bool) -> list[Node]:
        everybody = [*([self.root] if self.root else []), *self.members]
        others = [node for node in everybody if node is not sender]
        if rooted and sender is not self.root:
            others = [node for node in others if node is self.root]
        return [node for node in others if node.role is not JoinRole.SENDER_ONLY]


class Sessions(RuleBasedStateMachine):
    """Rooted control planes; the data plane is drawn once for each history."""

    def __init__(self) -> None:
        super().__init__()
        self.provider = MemoryProvider()
        self.roots: dict[str, Session] = {}
        self.leaves: list[Node] = []
        self.finished: list[Node] = []  # roots that are closed, kept for nothing but counting
        self.counter = 0
        self.rooted = True

    @initialize(rooted=st.booleans())
    def choose_data_plane(self, rooted: bool) -> None:
        self.rooted = rooted

    def _open(self, *, c_root: bool) -> Node:
        plane = "rooted" if self.rooted else "nonrooted"
        info = self.provider.select(SessionAddress.parse(f"mem://x?plane={plane}"))
        roles = Roles(c_root=c_root, d_root=c_root and self.rooted)
        endpoint = self.provider.open(info, roles, Settings(loopback=False))
        self.counter += 1
        return Node(endpoint, self.counter)

    def _members(self) -> list[Node]:
        return [node for session in self.roots.values() for node in session.members]

    # Coming

    @precondition(lambda self: len(self.roots) < len(NAMES))
    @rule()
    def open_root(self) -> None:
        name = next(name for name in NAMES if name not in self.roots)
        root = self._open(c_root=True)
        root.endpoint.bind(Address(name))
        root.endpoint.listen()
        session = self.roots[name] = Session(root)
        root.session = session

    @precondition(lambda self: len(self.leaves) < MOST_LEAVES)
    @rule()
    def open_leaf(self) -> None:
        self.leaves.append(self._open(c_root=False))

    def _idle(self) -> list[Node]:
        return [node for node in self.leaves if node.session is None and not node.used]

    @precondition(lambda self: self.roots and self._idle())
    @rule(leaf=picks, name=st.sampled_from(NAMES), role=st.sampled_from(list(JoinRole)))
    def ask(self, leaf: int, name: str, role: JoinRole) -> None:
        idle = self._idle()
        node = idle[leaf % len(idle)]
        if name not in self.roots:
            with pytest.raises(SpiError) as refusal:
                node.endpoint.join_leaf(Address(name), timeout=0)
            assert refusal.value.code == codes.WSAECONNREFUSED
            return
        node.endpoint.start_join_leaf(Address(name), role=role)
        node.session = self.roots[name]
        self.roots[name].waiting.append((node, role))

    @precondition(lambda self: any(session.waiting for session in self.roots.values()))
    @rule(which=picks, admit=st.booleans())
    def answer(self, which: int, admit: bool) -> None:
        sessions = [session for session in self.roots.values() if session.waiting]
        session = sessions[which % len(sessions)]
        node, role = session.waiting.pop(0)
        assert session.root is not None
        if admit:
            node.leg = session.root.endpoint.accept(lambda _: Accept(), timeout=0)
            assert node.endpoint.join_result().endpoint is node.endpoint
            node.role = role
            session.members.append(node)
            return
        with pytest.raises(SpiError):
            session.root.endpoint.accept(lambda _: Reject(), timeout=0)
        with pytest.raises(SpiError) as refusal:
            node.endpoint.join_result()
        assert refusal.value.code == codes.WSAECONNREFUSED
        node.session = None

    @precondition(lambda self: self.roots and len(self.leaves) < MOST_LEAVES)
    @rule(name=st.sampled_from(NAMES))
    def invite(self, name: str) -> None:
        if name not in self.roots:
            return
        session = self.roots[name]
        assert session.root is not None
        listener = self._open(c_root=False)
        listener.endpoint.bind(Address(""))
        listener.endpoint.listen()
        leg = session.root.endpoint.start_join_leaf(listener.endpoint.local_address)
        member = Node(listener.endpoint.accept(timeout=0), listener.number, session=session)
        listener.endpoint.close()
        member.leg = leg
        session.members.append(member)
        self.leaves.append(member)

    # Data

    def _senders(self) -> list[Node]:
        roots = [session.root for session in self.roots.values() if session.root]
        return [*roots, *self._members()]

    @precondition(lambda self: self._senders())
    @rule(which=picks, count=st.integers(1, 3))
    def send(self, which: int, count: int) -> None:
        senders = self._senders()
        sender = senders[which % len(senders)]
        assert sender.session is not None
        messages = []
        for _ in range(count):
            self.counter += 1
            messages.append(b"%d from %d" % (self.counter, sender.number))
        audience = sender.session.audience(sender, rooted=self.rooted)
        if sender.role is JoinRole.RECEIVER_ONLY or not audience:
            with pytest.raises(SpiError) as refusal:
                sender.endpoint.send_many(messages, timeout=0)
            assert refusal.value.code in (codes.WSAENOTCONN, codes.WSAEOPNOTSUPP)
            return
        sender.endpoint.send_many(messages, timeout=0)
        for node in audience:
            node.due += messages

    @precondition(lambda self: self._senders() or self.leaves)
    @rule(which=picks)
    def receive(self, which: int) -> None:
        nodes = list(dict.fromkeys([*self._senders(), *self.leaves]))
        self._receive_all(nodes[which % len(nodes)])

    def _receive_all(self, node: Node) -> None:
        heard: list[bytes] = []
        with pytest.raises(SpiError) as end:  # noqa: PT012  # the last of them raises
            while True:
                batch = node.endpoint.receive_many(timeout=0)
                assert batch.gap == 0
                assert not batch.side
                heard += batch.messages
        assert heard == node.due
        node.due.clear()
        assert end.value.code == self._expected_end(node)

    def _expected_end(self, node: Node) -> int:
        if node.ended:
            return node.ended
        session = node.session
        if session is None or (node is not session.root and node not in session.members):
            return codes.WSAENOTCONN
        only_sends = node.role is JoinRole.SENDER_ONLY
        return codes.WSAEOPNOTSUPP if only_sends else codes.WSAEWOULDBLOCK

    # Going

    @precondition(lambda self: self.leaves)
    @rule(which=picks, dies=st.booleans())
    def leaf_goes(self, which: int, dies: bool) -> None:
        node = self.leaves.pop(which % len(self.leaves))
        was_member = node.session is not None and node in node.session.members
        if dies:
            self.provider.faults.kill(node.endpoint)
        else:
            node.endpoint.close()
        if node.session is not None:
            waited = [one for one in node.session.waiting if one[0] is node]
            self._withdrawn(node.session, waited)
            node.session.members = [one for one in node.session.members if one is not node]
        if was_member:
            assert node.leg is not None
            expected = codes.WSAECONNRESET if dies else codes.WSAEDISCON
            self._check_ended(node.leg, expected)
            node.leg.close()

    def _withdrawn(self, session: Session, waited: list[tuple[Node, JoinRole]]) -> None:
        """The listener hears of a withdrawn request when its turn comes: take it out at once."""
        assert session.root is not None
        for entry in waited:
            before = session.waiting.index(entry)
            session.waiting.remove(entry)
            for _ in range(before):  # those before it are refused, so that its turn comes
                self._reject_first(session)
            with pytest.raises(SpiError) as gone:
                session.root.endpoint.accept(timeout=0)
            assert gone.value.code == codes.WSAECONNRESET

    def _reject_first(self, session: Session) -> None:
        assert session.root is not None
        node, _ = session.waiting.pop(0)
        with pytest.raises(SpiError):
            session.root.endpoint.accept(lambda _: Reject(), timeout=0)
        node.session = None

    @precondition(lambda self: self._members())
    @rule(which=picks)
    def expel(self, which: int) -> None:
        members = self._members()
        node = members[which % len(members)]
        assert node.leg is not None
        assert node.session is not None
        node.leg.close()
        node.session.members.remove(node)
        self._end(node, codes.WSAEDISCON)

    @staticmethod
    def _end(node: Node, code: int) -> None:
        node.session, node.used, node.ended = None, True, code

    @precondition(lambda self: self.roots)
    @rule(which=picks, how=st.sampled_from(["close", "abort", "die"]))
    def root_goes(self, which: int, how: str) -> None:
        name = list(self.roots)[which % len(self.roots)]
        session = self.roots.pop(name)
        assert session.root is not None
        if how == "die":
            self.provider.faults.kill(session.root.endpoint, silently=True)
        else:
            session.root.endpoint.close(abort=how == "abort")
        code = {
            "close": codes.WSAEDISCON,
            "abort": codes.WSAECONNRESET,
            "die": codes.WSAECONNABORTED,
        }[how]
        for node in session.members:
            assert node.leg is not None
            self._check_ended(node.leg, code)
            node.leg.close()
            self._end(node, code)
        for node, _ in session.waiting:
            assert isinstance(_outcome(node.endpoint), SpiError)
            node.session = None

    @staticmethod
    def _check_ended(endpoint: Endpoint, code: int) -> None:
        with pytest.raises(SpiError) as end:
            endpoint.receive_many(timeout=0)
        assert end.value.code == code
        assert end.value.reason in set(EndReason)

    # Always

    @invariant()
    def membership_is_as_modelled(self) -> None:
        for session in self.roots.values():
            assert session.root is not None
            assert session.root.endpoint.statistics()["leaves"] == len(session.members)
            for node in session.members:
                assert node.endpoint.session_id == session.root.endpoint.session_id

    def teardown(self) -> None:
        for node in [*self._senders(), *self.leaves]:
            self._receive_all(node)
        for node in [*self.leaves, *self._senders()]:
            if node.leg is not None:
                node.leg.close()
            node.endpoint.close()
        assert self.provider.is_empty


def _outcome(endpoint: Endpoint) -> object:
    try:
        return endpoint.join_result()
    except SpiError as error:
        return error


class Standing(RuleBasedStateMachine):
    """Nonrooted control planes: sessions that exist as soon as they are named."""

    def __init__(self) -> None:
        super().__init__()
        self.provider = MemoryProvider()
        self.sessions: dict[str, Session] = {name: Session(None) for name in NAMES}
        self.counter = 0
        self.rooted = False

    @initialize(rooted=st.booleans())
    def choose_data_plane(self, rooted: bool) -> None:
        self.rooted = rooted

    def _all(self) -> list[Node]:
        return [node for session in self.sessions.values() for node in session.members]

    @precondition(lambda self: len(self._all()) < MOST_LEAVES)
    @rule(
        name=st.sampled_from(NAMES),
        d_root=st.booleans(),
        loopback=st.booleans(),
        role=st.sampled_from(list(JoinRole)),
    )
    def join(self, name: str, d_root: bool, loopback: bool, role: JoinRole) -> None:
        d_root = d_root and self.rooted
        plane = "rooted" if self.rooted else "nonrooted"
        text = f"mem://x?control=nonrooted&plane={plane}"
        info = self.provider.select(SessionAddress.parse(text))
        endpoint = self.provider.open(info, Roles(d_root=d_root), Settings(loopback=loopback))
        session = self.sessions[name]
        if d_root and any(node.endpoint.roles.d_root for node in session.members):
            with pytest.raises(SpiError) as refusal:
                endpoint.join_leaf(Address(name), role=role)
            assert refusal.value.code == codes.WSAECONNREFUSED
            endpoint.close()
            return
        endpoint.join_leaf(Address(name), role=role)
        self.counter += 1
        session.members.append(Node(endpoint, self.counter, role, session, used=loopback))

    @precondition(lambda self: self._all())
    @rule(which=picks)
    def send(self, which: int) -> None:
        sender = self._all()[which % len(self._all())]
        self.counter += 1
        message = b"%d" % self.counter
        if sender.role is JoinRole.RECEIVER_ONLY:
            with pytest.raises(SpiError) as refusal:
                sender.endpoint.send_many([message], timeout=0)
            assert refusal.value.code == codes.WSAEOPNOTSUPP
            return
        sender.endpoint.send_many([message], timeout=0)
        assert sender.session is not None
        for node in sender.session.members:
            if node.role is not JoinRole.SENDER_ONLY and self._hears(node, sender):
                node.due.append(message)

    def _hears(self, node: Node, sender: Node) -> bool:
        if self.rooted:
            return node.endpoint.roles.d_root is not sender.endpoint.roles.d_root
        return node is not sender or node.used

    @precondition(lambda self: self._all())
    @rule(which=picks)
    def receive(self, which: int) -> None:
        self._receive_all(self._all()[which % len(self._all())])

    @staticmethod
    def _receive_all(node: Node) -> None:
        heard: list[bytes] = []
        while node.due and len(heard) < len(node.due):
            batch = node.endpoint.receive_many(timeout=0)
            assert batch.gap == 0
            heard += batch.messages
        assert heard == node.due
        node.due.clear()
        with pytest.raises(SpiError) as refusal:
            node.endpoint.receive_many(timeout=0)
        assert refusal.value.code in (codes.WSAEWOULDBLOCK, codes.WSAEOPNOTSUPP)

    @precondition(lambda self: self._all())
    @rule(which=picks)
    def leave(self, which: int) -> None:
        node = self._all()[which % len(self._all())]
        node.endpoint.close()
        assert node.session is not None
        node.session.members.remove(node)

    @invariant()
    def members_share_an_identity(self) -> None:
        for session in self.sessions.values():
            assert len({node.endpoint.session_id for node in session.members}) <= 1

    def teardown(self) -> None:
        for node in self._all():
            self._receive_all(node)
            node.endpoint.close()
        assert self.provider.is_empty


BUDGET = settings(max_examples=60, stateful_step_count=40, deadline=None)

TestSessions = Sessions.TestCase
TestSessions.settings = BUDGET
TestStanding = Standing.TestCase
TestStanding.settings = BUDGET
