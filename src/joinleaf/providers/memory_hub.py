"""What the endpoints of one memory provider share: a lock, names, sessions, and the data plane.

One lock guards everything. Nobody calls out while holding it: indications are queued under the lock
and delivered once it has been given back, one at a time and in the order in which they arose, by
whichever thread gets there first. A callback may therefore run on the thread of another call that
happens to end at the same moment, but never before what it tells of is true.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from joinleaf.core.data_plane import Member, hears
from joinleaf.spi.provider import Batch, EndpointEvent
from joinleaf.values import Address

if TYPE_CHECKING:
    from joinleaf.providers.memory_endpoint import MemoryEndpoint
    from joinleaf.providers.memory_faults import Faults

__all__ = ["MESSAGE_OVERHEAD", "Deadline", "Hub", "Inbox", "Readiness", "Session"]

_LOG: Final = logging.getLogger(__name__)

MESSAGE_OVERHEAD: Final = 16
"""Bytes each message counts beyond its length, so that a queue of empty ones is bounded too."""


class Deadline:
    """A point in time that a wait must not outlast; None is never."""

    __slots__ = ("_at",)

    def __init__(self, timeout: float | None) -> None:
        self._at = None if timeout is None else time.monotonic() + timeout

    def left(self) -> float | None:
        """Seconds that are left, at most 0 if it has passed; None where there is no end."""
        return None if self._at is None else self._at - time.monotonic()


class Readiness:
    """A descriptor that is readable while ``set`` was called last: an eventfd, or a socket pair."""

    __slots__ = ("_pair", "fd")

    def __init__(self) -> None:
        self._pair: tuple[socket.socket, socket.socket] | None = None
        if sys.platform == "linux":
            self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._pair = socket.socketpair()
            for end in self._pair:
                end.setblocking(False)
            self.fd = self._pair[0].fileno()

    def set(self, ready: bool) -> None:
        """Make it readable, or not. Repeating does no harm."""
        with contextlib.suppress(BlockingIOError):  # it is as wanted already
            if self._pair is not None:
                self._pair[0].recv(4096)
            elif sys.platform == "linux":
                os.eventfd_read(self.fd)
        if ready and self._pair is not None:
            self._pair[1].send(b"\0")
        elif ready and sys.platform == "linux":
            os.eventfd_write(self.fd, 1)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._pair is None:
            os.close(self.fd)
        else:
            for end in self._pair:
                end.close()


class Inbox:
    """What one endpoint has not received yet, in order of arrival."""

    __slots__ = ("_batches", "size")

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._batches)

    def put(self, batch: Batch) -> None:
        """Append; a gap alone is joined to one before it, so that dropping takes no room."""
        if self._batches and not batch.messages:
            last = self._batches[-1]
            if not last.messages and last.sender == batch.sender:
                last.gap += batch.gap
                last.sequence = batch.sequence
                return
        self._batches.append(batch)
        self.size += size_of(batch.messages)

    def take(self) -> Batch:
        """The oldest batch, with all that follows it without a break."""
        first = self._batches.popleft()
        while self._batches and _follows(first, self._batches[0]):
            then = self._batches.popleft()
            if not first.messages:
                first.gap, first.sequence = first.gap + then.gap, then.sequence
            first.messages += then.messages
        self.size -= size_of(first.messages)
        return first

    def clear(self) -> None:
        """Forget everything."""
        self._batches.clear()
        self.size = 0


def _follows(first: Batch, then: Batch) -> bool:
    if first.sender != then.sender or first.side != then.side:
        return False
    if first.sequence == -1 or then.sequence == -1:
        return first.sequence == then.sequence
    if not first.messages:  # a gap alone, and what ended it
        return True
    return then.gap == 0 and then.sequence == first.sequence + len(first.messages)


def size_of(messages: Sequence[bytes]) -> int:
    """What messages count towards the limit of a queue."""
    return sum(map(len, messages)) + MESSAGE_OVERHEAD * len(messages)


@dataclass(slots=True)
class Session:
    """Members, and what one of them sends to the others.

    Attributes:
        session_id: Its random identity.
        rooted: Whether the data plane is rooted.
        lossy: Whether ``Faults.drop_every`` applies.
        members: By key: the member as the data plane sees it, and its endpoint.
    """

    session_id: bytes
    rooted: bool
    lossy: bool = False
    members: dict[int, tuple[Member, MemoryEndpoint]] = field(default_factory=dict)
    _next_key: int = 1
    _sent: dict[int, int] = field(default_factory=dict)
    _until_loss: int = 0

    @property
    def has_d_root(self) -> bool:
        """Whether the data plane has its one root."""
        return any(member.d_root for member, _ in self.members.values())

    def new_key(self) -> int:
        """A number no member of this session had before."""
        key, self._next_key = self._next_key, self._next_key + 1
        return key

    def add(self, member: Member, endpoint: MemoryEndpoint) -> None:
        """Make it a member, or change what the data plane knows of one."""
        self.members[member.key] = (member, endpoint)

    def remove(self, key: int) -> None:
        """Take a member out, if it is one."""
        self.members.pop(key, None)
        self._sent.pop(key, None)

    def listeners(self, sender: Member) -> list[MemoryEndpoint]:
        """Whoever hears this member, oldest member first."""
        return [
            endpoint
            for member, endpoint in self.members.values()
            if hears(member, sender, rooted=self.rooted)
        ]

    def number(self, sender: int, count: int) -> int:
        """Take the next ``count`` numbers of a sender; gives the first."""
        first = self._sent.get(sender, 0)
        self._sent[sender] = first + count
        return first

    def runs(self, payloads: list[bytes], first: int, drop_every: int) -> Iterator[Batch]:
        """Cut a batch where the lossy link loses something; a loss at the end is a gap alone."""
        run = _run([], first)
        for number, payload in enumerate(payloads, first):
            if self.lossy and drop_every and self._loses(drop_every):
                if run.messages:
                    yield run
                    run = _run([], number)
                run.gap, run.sequence = run.gap + 1, number + 1
            else:
                run.messages.append(payload)
        if run.messages or run.gap:
            yield run

    def _loses(self, drop_every: int) -> bool:
        self._until_loss += 1
        lost = self._until_loss >= drop_every
        if lost:
            self._until_loss = 0
        return lost


def _run(messages: list[bytes], sequence: int) -> Batch:
    return Batch(messages, Address(""), sequence, time.time_ns())


class Hub:
    """The shared state of one provider. ``with hub:`` holds the lock, and delivers afterwards.

    Attributes:
        lock: Guards everything in the hub and in its endpoints.
        names: By name: the endpoints bound to it, more than one only with SO_REUSEADDR.
        listeners: By name: the one endpoint that takes join requests there.
        sessions: Nonrooted sessions with members, by name and kind of data plane.
        waiting_for_room: Endpoints with a thread that waits for somebody to receive.
        starved: Endpoints whose send would have blocked, by the bytes they had to send: owed an
            FD_WRITE.
        deciding: Threads that are inside a condition function.
        faults: What goes wrong on demand.
    """

    def __init__(self, faults: Faults) -> None:
        self.lock = threading.Lock()
        self.faults = faults
        self.names: dict[str, list[MemoryEndpoint]] = {}
        self.listeners: dict[str, MemoryEndpoint] = {}
        self.sessions: dict[tuple[str, bool], Session] = {}
        self.waiting_for_room: dict[MemoryEndpoint, None] = {}
        self.starved: dict[MemoryEndpoint, int] = {}
        self.deciding: set[int] = set()
        self._indications: deque[tuple[MemoryEndpoint, EndpointEvent]] = deque()
        self._delivering = False
        self._last_name = 0

    def __enter__(self) -> Hub:
        self.lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.lock.release()
        self._deliver()

    @property
    def is_empty(self) -> bool:
        """Whether nobody has left anything behind."""
        return not (self.names or self.listeners or self.sessions or self._indications)

    # Indications

    def indicate(self, endpoint: MemoryEndpoint, event: EndpointEvent) -> None:
        """Queue an indication for delivery once the lock is free."""
        self._indications.append((endpoint, event))

    def forget_indications(self, endpoint: MemoryEndpoint) -> None:
        """Drop what has not been delivered to this endpoint's subscriber."""
        kept = [item for item in self._indications if item[0] is not endpoint]
        self._indications = deque(kept)

    def _deliver(self) -> None:
        if not self._indications:
            return
        with self.lock:
            if self._delivering:  # that thread takes ours along
                return
            self._delivering = True
        try:
            while (item := self._next()) is not None:
                endpoint, event = item
                callback = endpoint.callback
                if callback is None:
                    continue
                try:
                    callback(endpoint, event)
                except Exception:
                    # It must not break the call of whoever made the thing happen.
                    _LOG.exception("a subscriber of %s raised", type(endpoint).__name__)
        except BaseException:  # Ctrl-C: leave the rest to the next one
            self._delivering = False
            raise

    def _next(self) -> tuple[MemoryEndpoint, EndpointEvent] | None:
        with self.lock:
            if not self._indications:
                self._delivering = False
                return None
            endpoint, event = self._indications.popleft()
            endpoint.told(event)
            return endpoint, event

    def wait(self, changed: threading.Condition, timeout: float | None) -> None:
        """Give the lock back until notified, or for ``timeout`` seconds; deliver before that."""
        if self._indications and not self._delivering:
            self.lock.release()
            try:
                self._deliver()
            finally:
                self.lock.acquire()
        else:
            changed.wait(timeout)

    # Names

    def new_name(self) -> str:
        """A name nobody has: what an implicit bind gives."""
        while True:
            self._last_name += 1
            if (name := f"~{self._last_name}") not in self.names:
                return name

    def release_name(self, endpoint: MemoryEndpoint, name: str) -> None:
        """Undo a bind and a listen."""
        holders = self.names.get(name, [])
        if endpoint in holders:
            holders.remove(endpoint)
        if not holders:
            self.names.pop(name, None)
        if self.listeners.get(name) is endpoint:
            del self.listeners[name]

    # Room in queues

    def room_made(self) -> None:
        """Somebody received, or left: let waiting senders look again."""
        for endpoint in self.waiting_for_room:
            endpoint.changed.notify_all()
        for endpoint, size in list(self.starved.items()):
            if endpoint.has_room(size):
                del self.starved[endpoint]
                endpoint.indicate_write()

    @staticmethod
    def put(listeners: Collection[MemoryEndpoint], batch: Batch) -> None:
        """Give a batch to each listener: the payloads are shared, the list is its own."""
        for listener in listeners:
            listener.arrived(
                Batch(
                    batch.messages.copy(),
                    batch.sender,
                    batch.sequence,
                    batch.time_ns,
                    batch.gap,
                    batch.side,
                )
            )
