"""Blocking calls on a rooted session: whoever waits does the work.

A thread inside receive reads the sockets itself, and a thread inside send writes them; no data
change hands between threads. Only while no thread is inside receive does the reactor read on its
behalf, up to a bound (``readership.py``). What a turn at the sockets does is in
``stream_traffic.py``, which sockets there are in ``stream_sockets.py``.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from joinleaf.core.session import Arrived, Output, Session
from joinleaf.drivers.allocator import keep_long_blocks
from joinleaf.drivers.blocked import BlockedSockets
from joinleaf.drivers.group_link import GroupLink
from joinleaf.drivers.sides import PlainSide, Side
from joinleaf.drivers.stream_sockets import Callbacks
from joinleaf.drivers.stream_traffic import StreamTraffic
from joinleaf.errors import SpiError
from joinleaf.spi.codes import WSAEINTR
from joinleaf.spi.provider import Batch

__all__ = ["StreamDriver"]

T = TypeVar("T")

LOOK_AT_LEG_EVERY: Final = 8
"""Reads of the stream between two looks at the leg, however much the stream brings."""

LATE_NS: Final = 200_000
"""Who has waited so long for a message has emptied the socket, and will wait for the next."""


class StreamDriver(StreamTraffic):
    """See the module.

    Attributes:
        cancellations: How often the blocking calls of a moment have been cancelled.
    """

    def __init__(
        self,
        session: Session,
        dispatch: Callable[[Iterable[Output]], Callbacks],
        side: Side | None = None,
    ) -> None:
        super().__init__(session, dispatch, side)
        keep_long_blocks()
        self.cancellations = 0
        self._link_reads = 0
        self._comes_late = False  # the last message was waited for: the next will be, most likely
        self._poller_tells_all = side is None or isinstance(side, PlainSide)  # else some is inside
        self._abandon = self.abandon  # is held weakly in place of the driver: see _drivers
        _drivers.add(self._abandon)

    def receive(
        self,
        done: Callable[[], Batch | None],
        timeout: float | None,
        claim: Callable[[Arrived], Batch | None],
    ) -> Batch | None:
        """Read and wait in this thread until there is a batch, or the time is over.

        The usual case is short: what has come is data and nothing else, and goes from the socket
        to the caller without passing a queue.

        Args:
            done: Asked under the lock for what waits in the owner's queue.
            timeout: Seconds; None for ever.
            claim: Asked under the lock about what has arrived if it is the only thing that
                happened: a result spares the way through the owner's queue.

        Raises:
            SpiError: WSAEINTR, cancelled or closed.
        """
        lock, readers = self.lock, self._readers
        cancellations, entered, woken = self.cancellations, False, False
        waits_ns = 0  # since when, for the socket and not for trains to gather
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while True:
                callbacks: Callbacks = []
                try:
                    with lock:
                        if (batch := done()) is not None:
                            self._comes_late = False
                            return batch
                        now_ns = time.monotonic_ns()
                        if not entered and not readers.may_look(now_ns):
                            readers.enter()
                            entered = True
                        late = waits_ns > 0 and now_ns - waits_ns >= LATE_NS
                        came: Batch | bool | None = False
                        if woken or timeout == 0 or not self._comes_late:
                            came = self.read_straight(now_ns)
                        if type(came) is Batch:
                            self._comes_late = woken and self._poller_tells_all
                            return came
                        if came is None or (woken and not came):
                            if not self.closed:
                                self._read_now(late=late)
                            batch = self._claimed(claim)
                            self._comes_late = late and batch is not None
                        if came is not False or woken:
                            if self.unsettled:
                                callbacks = self.settle()
                            batch = batch or done()
                        if batch is None:
                            self._check_not_cancelled(cancellations)
                            mark = self.waiter.mark()
                            fd = self._fileno_to_read()
                            lull_s, due_s = self._keep_link_time()
                            if self.unsettled:
                                callbacks += self.settle()
                            if not entered:
                                readers.enter()
                                entered = True
                finally:  # also where ``done`` raised: the end of a session is an event as well
                    for callback in callbacks:
                        callback()
                if batch is not None:
                    return batch
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    self._comes_late = False  # the next call looks before it gives up
                    return None
                self._look_away_or_wait(fd, left, mark, lull_s, due_s)
                woken, waits_ns = True, 0 if lull_s else now_ns
        finally:
            if entered:
                readers.leave()

    def pump_until(self, done: Callable[[], T | None], timeout: float | None) -> T | None:
        """Read and wait in this thread until ``done`` gives something, or the time is over.

        Args:
            done: Asked under the lock.
            timeout: Seconds; None for ever.

        Raises:
            SpiError: WSAEINTR, cancelled or closed.
        """
        cancellations = self.cancellations
        deadline = None if timeout is None else time.monotonic() + timeout
        self._readers.enter()
        try:
            while True:
                callbacks: Callbacks = []
                try:
                    with self.lock:
                        result = done()
                        if result is None and not self.closed:
                            self._read_now()
                            if self.unsettled:
                                callbacks = self.settle()
                            result = done()
                        if result is None:
                            self._check_not_cancelled(cancellations)
                            mark = self.waiter.mark()
                            fd = self._poller.fileno()
                            lull_s, due_s = self._keep_link_time()
                            if self.unsettled:
                                callbacks += self.settle()
                finally:  # also where ``done`` raised: the end of a session is an event as well
                    for callback in callbacks:
                        callback()
                if result is not None:
                    return result
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._look_away_or_wait(fd, left, mark, lull_s, due_s)
        finally:
            self._readers.leave()

    def _check_not_cancelled(self, cancellations: int) -> None:
        if cancellations != self.cancellations or self.closed:
            raise SpiError(WSAEINTR, "the call was cancelled, or its endpoint closed")

    def _read_now(self, *, late: bool = False) -> None:
        if self._link is not None and self._link.listens:
            self._read_link_first(self._link, late=late)
        else:
            self._turn()

    def _read_link_first(self, link: GroupLink, *, late: bool) -> None:
        """The stream brings nearly everything; but its repairs and its end come by the leg."""
        self._link_reads += 1
        look = link.deaf or self._link_reads % LOOK_AT_LEG_EVERY == 0
        if look or not link.read(alone=late):
            self._turn()

    def _fileno_to_read(self) -> int:
        sole = self.sole_connection() if self._link is None else None
        return self._poller.fileno() if sole is None else sole[1].fileno()

    def _claimed(self, claim: Callable[[Arrived], Batch | None]) -> Batch | None:
        out = self.session.out
        if len(out) != 1 or type(out[0]) is not Arrived:
            return None
        result = claim(out[0])
        if result is not None:
            out.clear()
        return result

    def _look_away_or_wait(
        self, fd: int, left: float | None, mark: int, lull_s: float, due_s: float | None
    ) -> None:
        if left is None or (due_s is not None and due_s < left):
            left = due_s
        if lull_s:
            time.sleep(lull_s if left is None else min(lull_s, left))
        else:
            self._wait(fd, left, mark)

    def _wait(self, fd: int, left: float | None, mark: int, *, write: bool = False) -> None:
        try:
            if write:
                self.waiter.wait_writable(fd, left, mark=mark)
            else:
                self.waiter.wait_readable(fd, left, mark=mark)
        except SpiError as error:
            # Woken because something changed: the caller looks again.
            if error.code != WSAEINTR or self.waiter.closed:
                raise

    def wait_for(
        self, done: Callable[[], T | None], timeout: float | None, *, began: int | None = None
    ) -> T | None:
        """Wait in this thread while others, at the least the reactor, do the work.

        Args:
            done: Asked under the lock.
            timeout: Seconds; None for ever.
            began: ``cancellations`` when the call began, if it has done something before.

        Raises:
            SpiError: WSAEINTR, cancelled or closed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self.lock:
            cancellations = self.cancellations if began is None else began
            self._readers.watch()  # nobody else may be reading
            while True:
                if (result := done()) is not None:
                    return result
                self._check_not_cancelled(cancellations)
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self.changed.wait(None if left is None else min(left, threading.TIMEOUT_MAX))

    def drain(self, keys: Sequence[int], deadline: float | None) -> bool:
        """Send in this thread until the kernel has taken all that these legs have queued.

        Returns:
            False if the time was over before.
        """
        if self.has_room(keys):
            return True
        while (
            self._drain_legs(keys, deadline)
            and self._drain_link(deadline)
            and self._drain_paced(keys, deadline)
        ):
            with self.lock:
                if not self._queued(keys):  # else a leaf fell back on its leg meanwhile
                    return True
        return False

    def _drain_legs(self, keys: Sequence[int], deadline: float | None) -> bool:
        cancellations = self.cancellations
        blocked = BlockedSockets(keys)
        try:
            while True:
                callbacks: Callbacks = []
                try:
                    with self.lock:
                        self._flush_blocked(blocked)
                        if self.unsettled:
                            callbacks = self.settle(arm=False)
                        mark = self.waiter.mark()
                        if blocked:
                            # A close that came before this began waits for peers by itself.
                            self._check_not_cancelled(-1 if self.finishing else cancellations)
                            fd, write = blocked.wait_on()
                finally:
                    for callback in callbacks:
                        callback()
                if not blocked:
                    break
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._wait(fd, left, mark, write=write)
        finally:
            blocked.close()
        return True

    def _drain_link(self, deadline: float | None) -> bool:
        """Send to the group in this thread, as its leaves make room, until all has left once."""
        link = self._link
        if link is None or link.idle:
            return True
        left = None if deadline is None else max(0.0, deadline - time.monotonic())

        def done() -> bool | None:
            return True if self._link is None or link.idle else None

        return self.pump_until(done, left) is not None

    def _drain_paced(self, keys: Sequence[int], deadline: float | None) -> bool:
        """Wait while legs send at the rate that was agreed: the reactor does it."""
        if not self._paced:
            return True
        left = None if deadline is None else max(0.0, deadline - time.monotonic())

        def done() -> bool | None:
            return None if any(key in self._paced for key in keys) else True

        return self.pump_until(done, left) is not None

    def has_room(self, keys: Iterable[int] | None = None) -> bool:
        """The usual case: nothing is queued for these legs, or for any, and nothing is to do."""
        with self.lock:
            return not self.unsettled and not self._queued(
                self._connections if keys is None else keys
            )  # an unsent stream is unsettled

    def _flush_blocked(self, blocked: BlockedSockets) -> None:
        """Try all of them, and not one after another.

        One slow leaf would else hold back what others are in the middle of, until they take this
        end for dead.
        """
        blocked.keep(self._connections)
        for key in blocked.ready():
            leg, connection = self.session.legs.get(key), self._connections.get(key)
            if leg is None or connection is None or self.flush(key, arm=False):
                blocked.discard(key)
            elif key in self._paced:
                blocked.discard(key)  # its socket has room: it waits for its time
            else:
                blocked.add(key, connection.fileno())

    def cancel(self) -> None:
        """End every blocking call of this moment with WSAEINTR."""
        with self.lock:
            self.cancellations += 1
            self.changed.notify_all()
            self.waiter.interrupt()


_drivers: Final[weakref.WeakSet[Callable[[], None]]] = weakref.WeakSet()
"""How to abandon each. Not the drivers: an instance of a compiled class has no weak references."""


def _abandon_all() -> None:
    for abandon in list(_drivers):
        abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
