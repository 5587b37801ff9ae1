"""A root, its leaves and the bytes between them, with the time in the test's hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from joinleaf.core.leaf_session import LeafSession
from joinleaf.core.root_session import RootSession
from joinleaf.core.session import Arrived, Drop, Output, Session
from joinleaf.core.wire.frames import Frame, FrameReader
from joinleaf.spi.provider import Accept, JoinRole, Settings
from joinleaf.spi.qos import Qos
from joinleaf.values import Address

ROOT_ADDRESS = Address("10.0.0.1", 7400)
LEAF_ADDRESS = Address("10.0.0.2", 50000)
SECOND = 1_000_000_000
WALL_NS = 1_700_000_000 * SECOND


def drain(session: Session, key: int) -> bytes:
    """Everything a leg has to send."""
    outbox = session.legs[key].association.outbox
    data = b"".join(bytes(part) for part in iter_heads(session, key))
    assert not outbox
    session.dirty.pop(key, None)
    return data


def iter_heads(session: Session, key: int) -> Iterator[bytes]:
    outbox = session.legs[key].association.outbox
    while outbox:
        head = b"".join(outbox.head())
        outbox.sent(len(head))
        yield head


def feed(session: Session, key: int, data: bytes, now_ns: int = 0) -> None:
    """Hand bytes to a leg as a driver does."""
    rest = memoryview(data)
    while rest:
        place = session.legs[key].association.reader.buffer()
        count = min(len(place), len(rest))
        place[:count] = rest[:count]
        session.received(key, count, now_ns, WALL_NS)
        rest = rest[count:]


def frames(data: bytes) -> list[tuple[int, int, bytes]]:
    """Kind, flags and body of each whole frame."""
    reader = FrameReader(memoryview(bytearray(1 << 16)), 1 << 31)
    found: list[tuple[int, int, bytes]] = []

    def keep(frame: Frame) -> None:
        found.append((frame.kind, frame.flags, bytes(frame.body)))

    for frame in reader.feed(data):
        keep(frame)
    assert reader.pending == 0
    return found


@dataclass
class Hub:
    """One root; ``leaves`` by the key that the leg has at the root. A leaf's own key is 1."""

    settings: Settings = field(default_factory=Settings)
    rooted: bool = True
    d_root: bool = True
    role: JoinRole = JoinRole.BOTH
    now_ns: int = 0

    def __post_init__(self) -> None:
        self.root = RootSession(
            self.settings,
            session_id=b"S" * 16,
            incarnation=b"R" * 16,
            rooted=self.rooted,
            d_root=self.d_root,
            role=self.role,
        )
        self.leaves: dict[int, LeafSession] = {}
        self.next_key = 100

    def ask(
        self,
        *,
        data: bytes = b"",
        qos: Qos | None = None,
        role: JoinRole = JoinRole.BOTH,
        d_root: bool = False,
        settings: Settings | None = None,
    ) -> int:
        """A leaf connects and asks; the request waits at the root."""
        key, self.next_key = self.next_key, self.next_key + 1
        leaf = LeafSession(settings or self.settings, incarnation=b"L" * 16, d_root=d_root)
        self.leaves[key] = leaf
        address = Address("10.0.1.1", key)
        leaf.join(
            1, ROOT_ADDRESS, address, self.now_ns, data=data, qos=qos, role=role, deadline_ns=None
        )
        self.root.connection_opened(key, address, ROOT_ADDRESS, self.now_ns)
        leaf.connected(1, self.now_ns)
        self.pump()
        return key

    def join(
        self,
        *,
        verdict: Accept | None = None,
        qos: Qos | None = None,
        role: JoinRole = JoinRole.BOTH,
        d_root: bool = False,
        settings: Settings | None = None,
    ) -> int:
        """A leaf joins; all outputs of it are taken away."""
        key = self.ask(qos=qos, role=role, d_root=d_root, settings=settings)
        offered = self.root.offer()
        assert offered is not None
        assert offered[0] == key
        self.root.admit(key, verdict or Accept())
        self.pump()
        assert self.root.legs[key].association.active
        assert self.leaves[key].legs[1].association.active
        self.taken()
        return key

    def pump(self) -> None:
        """Carry bytes both ways until nobody has any."""
        moved = True
        while moved:
            moved = False
            for key, leaf in self.leaves.items():
                for here, mine, there, other in (
                    (leaf, 1, self.root, key),
                    (self.root, key, leaf, 1),
                ):
                    if mine in here.legs and (data := drain(here, mine)) and other in there.legs:
                        feed(there, other, data, self.now_ns)
                        moved = True

    def taken(self) -> list[Output]:
        """The root's outputs so far; the leaves' are discarded."""
        for leaf in self.leaves.values():
            leaf.out.clear()
        found = list(self.root.out)
        self.root.out.clear()
        return found

    def heard(self, key: int) -> list[bytes]:
        """Messages that a leaf has been given, in order."""
        out = self.leaves[key].out
        return [m for event in out if isinstance(event, Arrived) for m in event.batch.messages]

    def dropped(self, session: Session) -> list[int]:
        """Keys of the connections that the session wants given back."""
        return [event.key for event in session.out if isinstance(event, Drop)]


@pytest.fixture
def hub() -> type[Hub]:
    """The class itself: each test says what its root is like."""
    return Hub
