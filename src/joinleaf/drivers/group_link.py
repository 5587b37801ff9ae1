"""A session's multicast stream and the socket it goes through: the root's end, and a leaf's.

``StreamDriver`` owns one at most, polls its socket beside the legs and calls it under its lock.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

from joinleaf.core.leaf_session import LeafSession
from joinleaf.core.reliability.sender import Train
from joinleaf.core.root_carriage import RootCarriage
from joinleaf.core.root_session import RootSession
from joinleaf.drivers.group_port import SEND_BUFFER, GroupReceiver, GroupSender
from joinleaf.drivers.local_queue import LocalQueue
from joinleaf.drivers.reactor import Cancellable, Reactor

__all__ = ["GroupLink", "LeafLink", "LinkClock", "RootLink"]

_log: Final = logging.getLogger("joinleaf")

TRAINS_PER_READ: Final = 8
"""Trains taken in one go: about half a megabyte, so that one receive call returns many messages
and the legs are not starved."""

TRAINS_IN_MESSAGE: Final = 64
"""The same in the middle of a long message, where they go straight to where they belong."""

READS_PER_TICK: Final = 8
"""A whole window, so that nothing is reported missing that has come; and no more, if strangers
send faster than is read."""

SLACK_NS: Final = 500_000
"""A timer that is this little late is not set anew."""

LULL_NS: Final = 1_000_000
"""How long a leaf leaves its empty socket alone at most, so that trains gather, while the stream
comes fast. Waking for each of them costs a busy host more than taking it in."""

LULL_IN_MESSAGE_NS: Final = 6_000_000
"""The same in the middle of a long message: nobody can have it before the rest is here."""

LULL_LOSSY_NS: Final = 500_000
"""And where something was missing of late: what is lost is asked for once what follows has been
looked at, and all of that waits for it. With 2 ms, a stream to one leaf kept half of its rate."""

LATELY_NS: Final = 200_000_000
"""So long after something was missing it may be so again."""

LULL_BYTES: Final = 1 << 19
"""And not for more than so many bytes: the kernel has room for some times that."""

LEAST_LULL_NS: Final = 100_000
"""For less it does not pay: a sleep takes half of that longer than it should."""

SHORT_BYTES: Final = 4096
"""A train that is waited for and shorter than this is a message of its own."""

FAST_NS: Final = 1 << 24
"""Who takes longer for ``LULL_BYTES`` (31 MB/s) is a live feed, and not left waiting."""


class LinkClock:
    """One timer for the stream's clocks. Everything under the driver's lock.

    Args:
        reactor: Where the timer runs.
        tick: Called when one is due; takes the lock by itself, and calls ``ticked`` first.
    """

    def __init__(self, reactor: Reactor, tick: Callable[[], None]) -> None:
        self._reactor = reactor
        self._tick = tick
        self._timer: Cancellable | None = None
        self._due_ns = 0

    def schedule(self, due_ns: int | None) -> None:
        """Have a deadline kept. One that has moved away is looked at again when it was due."""
        if due_ns is None or (self._timer is not None and due_ns >= self._due_ns - SLACK_NS):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due_ns = due_ns
        delay = max(0.0, (due_ns - time.monotonic_ns()) / 1e9)
        self._timer = self._reactor.call_later(delay, self._tick)

    def ticked(self) -> None:
        """The timer has run; the next deadline needs a new one."""
        self._timer = None

    def close(self) -> None:
        """Keep no deadline any more."""
        if self._timer is not None:
            self._timer.cancel()


class GroupLink(Protocol):
    """What the driver asks of either end. Everything is called under its lock."""

    @property
    def blocked(self) -> bool:
        """Whether the kernel's buffer was full: watch for room."""
        ...

    @property
    def idle(self) -> bool:
        """Whether everything that was to be sent has left once."""
        ...

    @property
    def listens(self) -> bool:
        """Whether something is to be read from it."""
        ...

    deaf: bool  # not read for now; the driver's note

    def fileno(self) -> int:
        """The socket."""
        ...

    def read(self, *, alone: bool = False) -> bool:
        """Take in what has come; False if nothing had.

        Args:
            alone: It was waited for: look for no more behind something short.
        """
        ...

    def set_deaf(self, deaf: bool) -> None:
        """Leave what has come where it is, or go on reading."""
        ...

    def transmit(self) -> None:
        """Send what may leave now."""
        ...

    def next_deadline_ns(self) -> int | None:
        """When ``tick`` has something to do."""
        ...

    def lull_ns(self) -> int:
        """Nothing is there: how long to look away; 0: wait for what comes. Asked once."""
        ...

    def tick(self) -> None:
        """Run the clocks."""
        ...

    def close(self) -> None:
        """Give the socket back."""
        ...


class RootLink:
    """The root sends to the group; what leaves say of it comes by their legs."""

    listens = False
    deaf = True

    def __init__(
        self,
        port: GroupSender,
        session: RootSession,
        carriage: RootCarriage,
        draw: Callable[[], bytes],
    ) -> None:
        self._port = port
        self._draw = draw  # gives a fresh group key
        self._session = session
        self._carriage = carriage
        self._unsent: Train | None = None
        self._dscp = 0
        self._queue = LocalQueue(port, SEND_BUFFER)

    @property
    def blocked(self) -> bool:
        """Whether the kernel's buffer was full."""
        return self._unsent is not None

    @property
    def idle(self) -> bool:
        """Whether everything that was to be sent has left once."""
        return self._unsent is None and self._carriage.sender.has_room

    def fileno(self) -> int:
        """The socket."""
        return self._port.fileno()

    def read(self, *, alone: bool = False) -> bool:
        """Nobody answers to a group: nothing is ever read."""
        return False

    def set_deaf(self, deaf: bool) -> None:
        """It is."""

    def transmit(self) -> None:
        """Send trains as long as the window, the rate and the kernel allow."""
        port, carriage = self._port, self._carriage
        self._session.renew_group_key(self._draw)
        if (dscp := carriage.flow.dscp if carriage.flow is not None else 0) != self._dscp:
            self._dscp = dscp
            port.set_dscp(dscp)
        while True:
            waited = self._unsent
            train = waited or carriage.poll_transmit(time.monotonic_ns())
            if train is None:
                break
            left = port.queued() if waited is not None else 0
            if not port.send(train.buffer, train.segment):
                self._unsent = train
                break
            if waited is not None:
                self._queue.had_room(left, len(train.buffer))
                self._unsent = None
        self._put_on_legs()

    def _put_on_legs(self) -> None:
        """What the stream repairs for one leaf alone goes over its leg."""
        while (word := self._carriage.sender.poll_leg()) is not None:
            self._session.put_on_leg(*word)

    def lull_ns(self) -> int:
        """It reads nothing."""
        return 0

    def next_deadline_ns(self) -> int | None:
        """When ``tick`` has something to do."""
        return self._carriage.next_deadline_ns()

    def tick(self) -> None:
        """Run the clocks; leaves whose group has died are served by their legs from now on."""
        self._session.tick_group(time.monotonic_ns())
        self.transmit()
        self._tell()

    def _tell(self) -> None:
        """Say in the log who is served by its leg, and why."""
        events = self._carriage.events
        while events:
            fell = events.pop(0)
            leg = self._session.legs.get(fell.key)
            if leg is not None:
                group = self._carriage.facts.address()
                _log.warning("%s %s %s: its leg serves it", leg.association.peer, fell.cause, group)

    def close(self) -> None:
        """Give the socket back."""
        self._unsent = None
        self._port.close()


class LeafLink:
    """A leaf hears the group; what it has to say of it goes over its leg."""

    def __init__(self, port: GroupReceiver, session: LeafSession) -> None:
        self._port = port
        self._session = session
        self.deaf = False
        self._came = 0  # bytes, since it was last asked for a lull,
        self._asked_ns = 0  # and when that was
        self._drained = False  # nothing is left in the socket

    blocked = False
    idle = True
    listens = True

    def fileno(self) -> int:
        """The socket."""
        return self._port.fileno()

    def read(self, *, alone: bool = False) -> bool:
        """Take in some trains, and make batches of what is complete.

        Of a long message all that is there, for nothing else can be done meanwhile.

        Args:
            alone: It was waited for: look for no more behind something short.
        """
        if not self._read_some(alone=alone):
            return False
        for _ in range(READS_PER_TICK - 1):
            if self._drained or self._session.out or not self._read_some():
                break
        return True

    def _read_some(self, *, alone: bool = False) -> bool:
        stream, port = self._session.stream, self._port
        if stream is None:
            return False
        now_ns, landing, count, size = time.monotonic_ns(), stream.landings.take(), 0, 0
        runs, self._drained = port.runs, False
        while count < TRAINS_PER_READ:
            if runs and (unit := stream.straight()) >= 0:
                assert stream.quick is not None
                wire, polled, left = port.receive_run(
                    stream.quick, landing, stream.receiver.tag, unit, TRAINS_PER_READ - count,
                    TRAINS_IN_MESSAGE, SHORT_BYTES * alone,
                )  # fmt: skip
                count += stream.went_straight(wire, now_ns, polled=polled)
                size += wire
                if left <= 0:
                    self._drained = left < 0 or (alone and size < SHORT_BYTES)
                    break
                kept = stream.receiver.handle_landing(landing, now_ns)
            elif port.receive(landing):
                kept = stream.handle_landing(landing, now_ns)
            else:
                self._drained = True
                break
            count += 1
            size += landing.size
            if kept:
                landing = stream.landings.take()
            if alone and size < SHORT_BYTES:
                self._drained = True
                break
        stream.landings.free(landing)
        if not count:
            return False
        self._session.group_received(now_ns, time.time_ns())
        self._came += size
        return True

    def lull_ns(self) -> int:
        """Nothing is there: how long to look away; 0: wait for what comes. Asked once."""
        stream, came, now_ns = self._session.stream, self._came, time.monotonic_ns()
        took_ns, self._asked_ns, self._came = now_ns - self._asked_ns, now_ns, 0
        if not came or stream is None or not self._drained:
            return 0
        full_ns = took_ns * LULL_BYTES // came
        if now_ns - stream.receiver.hole_ns < LATELY_NS:
            most_ns = LULL_LOSSY_NS
        else:
            most_ns = LULL_IN_MESSAGE_NS if stream.in_message else LULL_NS
        return min(full_ns, most_ns) if LEAST_LULL_NS <= full_ns < FAST_NS else 0

    def set_deaf(self, deaf: bool) -> None:
        """Leave trains where they are, and tell the root; or go on."""
        self.deaf = deaf
        stream = self._session.stream
        if stream is not None:
            stream.receiver.hold(deaf)
            self._session.group_received(time.monotonic_ns(), time.time_ns())

    def transmit(self) -> None:
        """A leaf sends nothing to the group."""

    def next_deadline_ns(self) -> int | None:
        """When a report is due."""
        return self._session.group_deadline_ns()

    def tick(self) -> None:
        """Look once more before reporting: what is in the socket's buffer is not missing."""
        stream = self._session.stream
        if stream is None:
            return
        for _ in range(READS_PER_TICK):
            if self.deaf or not self._read_some():
                break
        now_ns = time.monotonic_ns()
        stream.receiver.tick(now_ns)
        self._session.group_received(now_ns, time.time_ns())

    def close(self) -> None:
        """Leave the group."""
        self._port.close()
