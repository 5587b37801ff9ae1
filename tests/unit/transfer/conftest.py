"""A session in memory, run by one thread: what the root sends and when leaves read is decided by
the test, and time passes only while the root waits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from joinleaf.errors import SessionTimeoutError
from joinleaf.transfer import TransferResult, send_object, wire
from joinleaf.transfer.assembly import Assembly, Phase
from joinleaf.transfer.channel import Buffer
from joinleaf.transfer.store import FolderStore, Store
from joinleaf.values import Address

OBJECT = bytes(range(16))
CHUNK = 1024


@dataclass(frozen=True)
class Handle:
    key: int
    address: Address
    name: str
    incarnation: bytes = b""


@dataclass(frozen=True)
class Change:
    joined: bool
    leaf: Handle
    reason: str = ""
    data: bytes = b""


@dataclass(frozen=True)
class Batch:
    messages: Sequence[bytes]
    sender: Address


@dataclass
class Leaf:
    handle: Handle
    store: Store
    assembly: Assembly
    inbox: list[bytes] = field(default_factory=list)
    frozen: bool = False  # takes nothing, says nothing
    closed: bool = False
    mute: bool = False  # takes everything, says nothing
    chunk_bytes: int = 0  # payload that reached it


class World:
    """The root's channel, its leaves and the clock."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000
        self.members: dict[int, Leaf] = {}
        self.to_root: list[tuple[Address, list[bytes]]] = []
        self.changes: list[Change] = []
        self.sends: list[tuple[tuple[str, ...] | None, list[wire.Message]]] = []
        self.chunks_sent = 0
        self.inbox_limit = 1 << 30
        self._keys = 0
        self._after_chunks: dict[int, list[Callable[[], object]]] = defaultdict(list)
        self._at: list[tuple[int, Callable[[], object]]] = []

    # What a test does.

    def start(
        self,
        name: str,
        where: Path | Store,
        *,
        expect: bytes | None = None,
        overwrite: bool = False,
        clean: bool = False,
    ) -> Leaf:
        self._keys += 1
        handle = Handle(self._keys, Address("10.0.0.1", 1000 + self._keys), name)
        store = where
        if isinstance(store, Path):
            store = FolderStore(store, overwrite=overwrite, clean=clean)
        leaf = Leaf(handle, store, Assembly(store, expect=expect))
        self.members[handle.key] = leaf
        self.changes.append(Change(True, handle))
        return leaf

    def kill(self, leaf: Leaf, reason: str = "lost") -> None:
        """As SIGKILL does: files stay as they are, nothing is remembered that was not before."""
        del self.members[leaf.handle.key]
        for descriptor in list(getattr(leaf.store, "_open", {})):
            leaf.store._release(descriptor)  # type: ignore[attr-defined]  # the kernel would
        self.changes.append(Change(False, leaf.handle, reason))

    def after_chunks(self, count: int, action: Callable[[], object]) -> None:
        self._after_chunks[count].append(action)

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        self._at.append((self.now_ns + int(seconds * 1e9), action))

    def clock(self) -> int:
        return self.now_ns

    def send(self, source: object, **options: object) -> TransferResult:
        settings: dict[str, object] = {
            "object_id": OBJECT,
            "chunk_size": CHUNK,
            "clock": self.clock,
            "stall_timeout": 5.0,
            **options,
        }
        result = send_object(self, source, **settings)  # type: ignore[arg-type]  # options by name
        self._run_leaves()
        return result

    # What the engine sees.

    @property
    def leaves(self) -> Sequence[Handle]:
        return [leaf.handle for leaf in self.members.values()]

    def membership_events(self) -> Sequence[Change]:
        changes, self.changes = self.changes, []
        return changes

    def send_many(
        self,
        messages: Sequence[Buffer],
        *,
        timeout: float | None = None,
        to: Collection[Handle] | None = None,
    ) -> None:
        keys = list(self.members) if to is None else [h.key for h in to if h.key in self.members]
        if any(len(self.members[key].inbox) >= self.inbox_limit for key in keys):
            assert timeout is not None
            self._pass(timeout)
            raise SessionTimeoutError("no room")
        copies = [bytes(message) for message in messages]
        decoded = [wire.decode(copy) for copy in copies]
        names = None if to is None else tuple(self.members[key].handle.name for key in keys)
        self.sends.append((names, decoded))
        size = sum(len(m.payload) for m in decoded if isinstance(m, wire.Chunk))
        for key in keys:
            self.members[key].inbox.extend(copies)
            self.members[key].chunk_bytes += size
        for _ in range(sum(isinstance(m, wire.Chunk) for m in decoded)):
            self.chunks_sent += 1
            for action in self._after_chunks.pop(self.chunks_sent, []):
                action()

    def receive_many(self, *, timeout: float | None = None) -> Batch:
        self._run_leaves()
        if not self.to_root and timeout:
            self._pass(timeout)
            self._run_leaves()
        if not self.to_root:
            raise SessionTimeoutError("nothing")
        sender, messages = self.to_root.pop(0)
        return Batch(messages, sender)

    def _pass(self, seconds: float) -> None:
        self.now_ns += max(1, round(seconds * 1e9))
        due = [action for when, action in self._at if when <= self.now_ns]
        self._at = [(when, action) for when, action in self._at if when > self.now_ns]
        for action in due:
            action()

    def _run_leaves(self) -> None:
        for leaf in list(self.members.values()):
            if leaf.frozen:
                continue
            inbox, leaf.inbox = leaf.inbox, []
            for message in inbox:
                leaf.assembly.handle(message, self.now_ns)
            while leaf.assembly.busy:
                leaf.assembly.work()
            leaf.assembly.tick(self.now_ns)
            if leaf.assembly.phase in (Phase.REPORTED, Phase.DONE) and not leaf.closed:
                leaf.closed = True
                leaf.assembly.close(self.now_ns)
            said, leaf.assembly.outbox[:] = list(leaf.assembly.outbox), []
            if said and not leaf.mute:
                self.to_root.append((leaf.handle.address, said))


@pytest.fixture
def world() -> World:
    return World()
