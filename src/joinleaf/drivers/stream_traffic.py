"""What goes in and out of the sockets of one rooted session. Nothing here waits.

Whoever polls them, a thread inside a blocking call or the reactor, does one turn: reads what is
there, sends what there is room for, takes connections. What follows from it in the session is
settled afterwards.
"""

from __future__ import annotations

import errno
import logging
import mmap
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from joinleaf.core.leg import LegState
from joinleaf.core.qos.shaper import Shaper
from joinleaf.core.root_session import RootSession
from joinleaf.core.session import Arrived, Drop, Leg, Output, Session
from joinleaf.drivers.connections import Connection
from joinleaf.drivers.group_link import GroupLink, LinkClock
from joinleaf.drivers.lane import Lane
from joinleaf.drivers.poller import READ, WRITE
from joinleaf.drivers.seldom import SELDOM_S, Seldom
from joinleaf.drivers.sides import Side
from joinleaf.drivers.stream_sockets import Callbacks, StreamSockets
from joinleaf.spi.codes import WSAECONNABORTED, code_of_errno
from joinleaf.spi.provider import Batch, SlowPolicy

__all__ = ["SCRATCH_BYTES", "StreamTraffic", "new_scratch"]

_log: Final = logging.getLogger("joinleaf")

T = TypeVar("T")

SCRATCH_BYTES: Final = 512 << 10
"""Read at most this much in one call: several frames of the usual size."""

READ_BUDGET: Final = 4
"""Reads per leg and turn, so that one eager leaf does not starve the others."""

TURN_BYTES: Final = 4 << 20
"""Bytes read per turn from all legs together. Only after a turn is the owner's queue looked at; a
thousand eager leaves would otherwise fill memory in one. The poller rotates, so nobody starves."""

PAUSE_S: Final = 0.2
"""A stream that pauses for less has a window that works, and nothing to tell."""

READ_ON_BYTES: Final = 16 << 20
"""How much more than the queue may be taken up from members whose reports the stream waits for:
what they, and the kernels on the way, may hold in front of a report."""

HANDSHAKE_BUDGET: Final = 32
"""Steps of handshakes per turn: one of TLS takes up to a millisecond, and members are not to wait
for a flood of them. The others are due in the next turn."""

LOOK_ROUND_NS: Final = 10_000_000
"""Who reads its one leg straight looks this often whether somebody knocks, at the least."""

BACK_SOON_NS: Final = 10_000_000
"""Who reads runs the stream's clocks, too, and the reactor's timer for them is this late."""

FINE_NS: Final = 1_000_000
"""What is due earlier is slept for: the kernel's waits count milliseconds."""

FLUSH_S: Final = 1.0
"""A connection to be closed once what is queued has been sent is given this long for it."""


def new_scratch() -> memoryview:
    """Memory to read into, of which only what is ever filled takes room.

    A bytearray would be written full of zeros at once: half a MiB for each of a thousand leaves.
    """
    if sys.platform == "win32":
        return memoryview(mmap.mmap(-1, SCRATCH_BYTES))
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    return memoryview(mmap.mmap(-1, SCRATCH_BYTES, flags=flags))


class StreamTraffic(StreamSockets):
    """See the module.

    Attributes:
        lane: The short way to all that hear this end, while nothing but data happens; else None.
        finishing: Everything will be given back as soon as the last connection is gone.
        paused: No member is read, because one that must hear it all is behind.
    """

    def __init__(
        self,
        session: Session,
        dispatch: Callable[[Iterable[Output]], Callbacks],
        side: Side | None = None,
    ) -> None:
        super().__init__(session, dispatch, side)
        self.lane: Lane | None = None
        self.finishing = False
        self.paused = False
        self._read_on_is_over = False  # not even those are read whose reports are waited for
        self._hold_all = False  # no member is read: the owner's queue of received messages is full
        self._any_deaf = False
        self._held: dict[int, None] = {}  # legs not read: their own queue is full
        self._full: dict[int, None] = {}  # legs that have more queued than the settings allow
        self._pauses = Seldom()
        self._paused_since = float("inf")
        self._starved: dict[object, tuple[Sequence[int], Callable[[], Callbacks]]] = {}
        self._unarmed: dict[int, None] = {}
        self._turn_bytes = 0
        self._turn_handshakes = 0
        self._look_round_ns = 0
        self._link: GroupLink | None = None
        self._link_clock: LinkClock | None = None
        self._paced: dict[int, int] = {}  # legs that wait for their rate, and until when
        self._pace_clock = LinkClock(self._reactor, self._tick_pace)

    def use_link(self, link: GroupLink) -> None:
        """Serve a multicast stream beside the connections from now on. Under the lock."""
        self._link = link
        self._link_clock = LinkClock(self._reactor, self._tick_link)
        if link.listens:
            self.add_source(link.fileno(), self._link_ready)
        self._serve_link(link)

    def start_adopted(self) -> None:
        """Go to work on a connection that another driver handed over. Not under its lock."""
        self.run(self._readers.watch)

    def run(self, action: Callable[[], T], *, clocks: bool = True) -> T:
        """Do something with the session under the lock; then whatever follows from it.

        Args:
            action: Its result or error is handed on, after the callbacks have been made.
            clocks: Whether it may have brought a deadline forward.
        """
        callbacks: Callbacks = []
        try:
            with self.lock:
                try:
                    return action()
                finally:
                    callbacks = self.settle()
                    if clocks:
                        self._clock.schedule(self.session.touched)
                    self.session.touched.clear()
        finally:
            for callback in callbacks:
                callback()

    def settle(self, *, arm: bool = True) -> Callbacks:
        """Send what is queued and dispatch outputs, until nothing new comes. Under the lock.

        Args:
            arm: Have the reactor send what the kernel did not take; a sender that will wait for
                it itself says False, and calls ``arm_output`` in the end.

        Returns:
            Callbacks to make once the lock is free.
        """
        callbacks: Callbacks = []
        session = self.session
        self.lane = None
        if self._link is not None:
            self._serve_link(self._link)
        while session.out or session.dirty:
            self._flush_dirty(arm=arm)
            if session.out:
                outputs = list(session.out)
                session.out.clear()
                callbacks += self._dispatch(outputs)
                self._after_dispatch(outputs)
        self._update_paused()
        self._update_deaf()
        if self._starved:
            callbacks += self._feed_starved()
        if self.finishing and not self._connections:
            self.dispose()
        return callbacks

    def _flush_dirty(self, *, arm: bool) -> None:
        dirty = self.session.dirty
        while dirty:
            key = next(iter(dirty))
            del dirty[key]
            if not self.flush(key, arm=arm) and not arm:
                self._unarmed[key] = None

    def _update_paused(self) -> None:
        """Hold members who send what is passed on, while somebody who is to hear it is behind.

        That is so in a nonrooted plane, and where a leaf is the data root.
        """
        session = self.session
        if not isinstance(session, RootSession) or (session.rooted and session.myself.d_root):
            return
        behind = list(self._full)
        carriage = session.carriage
        crowded = False
        if carriage is not None and carriage.sender.pending_bytes > session.settings.queue_bytes:
            blocking = carriage.sender.blocking()
            if session.settings.slow is SlowPolicy.WAIT:
                behind += blocking
            # With nobody to wait for it is the rate, or congestion, that holds the stream: what is
            # passed on would pile up at the root. Else the policy frees the stream when more comes.
            crowded = not blocking
        now = time.monotonic()
        if not behind:
            self._paused_since = now
        elif (self._full or now - self._paused_since > PAUSE_S) and self._pauses.due():
            heard = [key for key in behind if not self._connections[key].deaf]
            # One that has room will go on as soon as it is heard; the others are what it waits for.
            stuck = [key for key in heard if carriage is None or not carriage.sender.awaits(key)]
            last = max(stuck or heard or behind, key=session.under_way)
            leg = session.legs[last].association
            _log.info(
                "%s is %d bytes behind: the members wait for it (said every %.0f s at most)",
                leg.peer,
                leg.outbox.size + session.under_way(last),
                SELDOM_S,
            )
        self.paused = bool(behind) or crowded
        if self.paused and carriage is not None:
            legs = (session.legs[key].association.outbox.size for key in self._full)
            most = max(carriage.sender.pending_bytes, max(legs, default=0))
            self._read_on_is_over = most > session.settings.queue_bytes + READ_ON_BYTES

    def flush_at_once(self, keys: Sequence[int]) -> bool:
        """Send what these legs have queued. Under the lock.

        Returns:
            Whether that was all there is to do: the kernel took it, and nothing came of it. If
            not, ``settle`` has to follow.
        """
        dirty, all_sent = self.session.dirty, True
        for key in keys:
            dirty.pop(key, None)
            if not self.flush(key, arm=False):
                self._unarmed[key] = None
                all_sent = False
        if self._link is not None:
            self._serve_link(self._link)
        return all_sent and not self.unsettled

    def open_lane(self, keys: Sequence[int]) -> None:
        """A batch to all that hear this end has left by these legs: let the next go straight.

        Under the lock.
        """
        if self._link is not None and not self._link.listens:
            return  # the group carries what the root sends
        legs, connections = [], []
        for key in keys:
            leg, connection = self.session.legs.get(key), self._connections.get(key)
            if leg is None or connection is None or not Lane.is_open(leg, connection):
                return
            legs.append(leg)
            connections.append(connection)
        if not self.unsettled:
            self.lane = Lane(self.session, keys, legs, connections)

    def tell_of_room(self, who: object, keys: Sequence[int], tell: Callable[[], Callbacks]) -> None:
        """Call ``tell`` under the lock, once, when these legs have nothing queued any more."""
        with self.lock:
            self._starved[who] = (keys, tell)
            self.arm_output(keys)

    def _feed_starved(self) -> Callbacks:
        callbacks: Callbacks = []
        for who, (keys, tell) in list(self._starved.items()):
            if not self._queued(keys) and (self._link is None or self._link.idle):
                del self._starved[who]
                callbacks += tell()
        return callbacks

    def _queued(self, keys: Iterable[int]) -> bool:
        """Whether any of these legs has something queued that the kernel did not take."""
        legs = self.session.legs
        for key in keys:
            leg = legs.get(key)
            if leg is not None and leg.association.outbox.size:
                return True
        return False

    def _after_dispatch(self, outputs: Iterable[Output]) -> None:
        touched: dict[int, None] = {}
        for output in outputs:
            if isinstance(output, Drop):
                self._drop(output.key, flush=output.flush)
            if not isinstance(output, Arrived):
                touched[output.key] = None
        self.waiter.interrupt()
        if touched:  # who waits in wait_for waits for none of the data
            self.changed.notify_all()
            self._clock.schedule(touched)

    def finish(self) -> None:
        """Give everything back as soon as the last connection is gone. Under the lock."""
        self.finishing = True
        if not self._connections:
            self.dispose()

    def _update_deaf(self) -> None:
        """Stop or resume reading members.

        Who has not joined yet, or is leaving, is always heard: what it says is bounded, and a full
        queue must not keep others from joining.
        """
        if self._link is not None and self._link.listens:
            self._link_deaf(self._link, self._hold_all)
        if not (self.paused or self._hold_all or self._held or self._any_deaf):
            return
        self._any_deaf = False
        now = time.monotonic_ns()
        for key, connection in self._connections.items():
            leg = self.session.legs.get(key)
            if leg is None:
                continue
            deaf = (
                leg.association.active
                and not connection.broken  # no more is coming, and its end has to be found
                and (self._is_paused(key, leg) or self._hold_all or key in self._held)
            )
            self._any_deaf |= deaf
            if deaf != connection.deaf:
                connection.deaf = deaf
                leg.association.reading_ns = None if deaf else now
                self._want(connection, connection.want)

    def _is_paused(self, key: int, leg: Leg) -> bool:
        """Whether a member is held because others are behind.

        Where the group brings what is passed on, only those who have sent something are: the
        others' reports are what the stream is waiting for. It may be waiting for the reports of
        one that has sent, which stand behind its messages: within a bound, these are taken up.
        """
        session = self.session
        if not self.paused or not isinstance(session, RootSession) or session.carriage is None:
            return self.paused
        sender = session.carriage.sender
        if not leg.expected:
            return False
        return self._read_on_is_over or not sender.awaits(key)

    def set_hold(self, hold: bool, key: int | None = None) -> None:
        """Stop or resume reading, because a queue is full or has room. Under the lock.

        Args:
            hold: Whether to stop.
            key: The leg whose side chat the queue holds; None: the owner's queue, which any
                member fills.
        """
        if key is None:
            self._hold_all = hold
        elif hold:
            self._held[key] = None
        else:
            self._held.pop(key, None)
        self._update_deaf()

    @property
    def unsettled(self) -> bool:
        """Whether there is something for ``settle`` to do. Under the lock."""
        session, link = self.session, self._link
        return bool(
            session.out
            or session.dirty
            or self.paused
            or self._starved
            or (link is not None and not link.idle)
        )

    # The multicast stream

    def _serve_link(self, link: GroupLink) -> None:
        """Send to the group what may leave; see that the rest follows. Under the lock."""
        link.transmit()
        if link.blocked:
            self.add_source(link.fileno(), self._link_ready, WRITE)
        elif not link.listens:
            self.remove_source(link.fileno())
        self._schedule_link(link)

    def _schedule_link(self, link: GroupLink) -> None:
        """Have the stream's clocks run when they must, by the reactor if nobody else does."""
        due_ns = link.next_deadline_ns()
        if due_ns is not None and self._readers.at_work:
            due_ns += BACK_SOON_NS
        if self._link_clock is not None:
            self._link_clock.schedule(due_ns)

    def _keep_link_time(self) -> tuple[float, float | None]:
        """Run the stream's clocks if they are due. For who reads, before it waits. Under the lock.

        Returns:
            How long to look away, and if that is 0, how long to wait at most; seconds.
        """
        link = self._link
        if link is None or self.closed:
            return 0.0, None
        now_ns, due_ns = time.monotonic_ns(), link.next_deadline_ns()
        if due_ns is not None and due_ns <= now_ns:
            link.tick()
            due_ns = link.next_deadline_ns()
        lull_ns = link.lull_ns()
        if due_ns is None:
            return lull_ns / 1e9, None
        left_ns = max(0, due_ns - now_ns)
        if lull_ns or left_ns < FINE_NS:  # who waits in the kernel waits for whole milliseconds
            lull_ns = min(lull_ns or FINE_NS, left_ns)
        return lull_ns / 1e9, left_ns / 1e9

    def _link_ready(self, what: int) -> None:
        link = self._link
        if link is not None and what & READ and link.listens:
            link.read()
        # What there is room for now, settling sends.

    def _link_deaf(self, link: GroupLink, deaf: bool) -> None:
        """Leave trains in the kernel's buffer while the owner is behind: the root then waits."""
        if deaf == link.deaf:
            return
        link.set_deaf(deaf)
        if deaf:
            self.remove_source(link.fileno())
        else:
            self.add_source(link.fileno(), self._link_ready)
        self._flush_dirty(arm=True)
        self._schedule_link(link)

    def _tick_link(self) -> None:
        def tick() -> None:
            if self._link_clock is not None:
                self._link_clock.ticked()
            link = self._link
            if link is None or self.closed:
                return
            due_ns = link.next_deadline_ns()
            if due_ns is None or due_ns > time.monotonic_ns():
                return  # somebody else was here before; settling sets the timer anew
            link.tick()
            if link.idle:
                self.waiter.interrupt()  # who waits in a send for this

        self.run(tick, clocks=False)

    def dispose(self) -> None:
        """Give everything back: sockets, descriptors, timers. The session is over."""
        with self.lock:
            self.lane = None
            self._close_link()
            self._pace_clock.close()
            super().dispose()

    def abandon(self) -> None:
        """Forget, in a forked child, a session of its parent."""
        self.lane = None
        super().abandon()

    def _close_link(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            self.remove_source(link.fileno())
            link.close()
        if self._link_clock is not None:
            self._link_clock.close()

    # Sending

    def flush(self, key: int, *, arm: bool = True) -> bool:
        """Send what a leg has queued, as far as the kernel takes it. True if nothing is left."""
        connection = self._connections.get(key)
        leg = self.session.legs.get(key)
        if connection is None or leg is None or connection.establishing:
            return True
        outbox = leg.association.outbox
        if connection.broken:
            outbox.clear()
        if leg.flow is not None or connection.dscp:
            dscp = leg.flow.dscp if leg.flow is not None else 0
            if dscp != connection.dscp:
                connection.set_dscp(dscp)
        try:
            while outbox.size:
                if leg.shaper is None:
                    connection.send(outbox)
                elif not self._send_at_rate(key, connection, leg, leg.shaper):
                    return False
                if not outbox.size and isinstance(self.session, RootSession):
                    self.session.flushed(key)
        except BlockingIOError:
            self._blocked(key, connection, outbox.size, arm=arm)
            return False
        except OSError as error:
            # The peer's last words may still wait to be read; reading then finds the end as well.
            connection.broken = error.errno or errno.EPIPE
            outbox.clear()
            self._update_deaf()
        self._emptied(key, connection, leg.association.state)
        return True

    def _send_at_rate(self, key: int, connection: Connection, leg: Leg, shaper: Shaper) -> bool:
        """One send of what was agreed may leave now; False if nothing may yet."""
        outbox, now_ns = leg.association.outbox, time.monotonic_ns()
        size = min(outbox.size, shaper.burst)
        if delay_ns := shaper.delay_ns(size, now_ns):
            if connection.want & WRITE:
                self._want(connection, connection.want & ~WRITE)
            self._blocked(key, connection, outbox.size, arm=False)
            self._paced[key] = now_ns + delay_ns
            self._pace_clock.schedule(now_ns + delay_ns)
            return False
        self._paced.pop(key, None)
        before, outbox.allowance = outbox.sent_bytes, size
        try:
            connection.send(outbox)
        finally:
            outbox.allowance = None
            shaper.consume(outbox.sent_bytes - before, now_ns)
        return True

    def _tick_pace(self) -> None:
        """Go on with legs whose rate permits it by now; wake who waits for them."""

        def tick() -> None:
            self._pace_clock.ticked()
            if self.closed:
                return
            now_ns = time.monotonic_ns()
            for key in [key for key, due_ns in self._paced.items() if due_ns <= now_ns]:
                del self._paced[key]
                self.flush(key)
            if self._paced:
                self._pace_clock.schedule(min(self._paced.values()))
            self.waiter.interrupt()

        self.run(tick, clocks=False)

    def _blocked(self, key: int, connection: Connection, size: int, *, arm: bool) -> None:
        if size > self.session.settings.queue_bytes:
            self._full[key] = None
        else:
            self._full.pop(key, None)
        if arm:
            self._arm(connection)

    def _emptied(self, key: int, connection: Connection, state: LegState) -> None:
        self._full.pop(key, None)
        if connection.want & WRITE:
            self._want(connection, connection.want & ~WRITE)
        if state is LegState.ENDING and not connection.half_closed:
            connection.end_sending()
        elif connection.closing:
            self._close_connection(key)

    def _arm(self, connection: Connection) -> None:
        """Have whoever polls, at the least the reactor, go on sending."""
        self._want(connection, connection.want | WRITE)
        self._readers.watch()

    def arm_output(self, keys: Iterable[int]) -> None:
        """Hand over to the reactor what a sender could not wait for. Under the lock."""
        self.lane = None
        for key in (*keys, *self._unarmed):
            leg, connection = self.session.legs.get(key), self._connections.get(key)
            if key in self._paced:
                continue
            if leg is not None and connection is not None and leg.association.outbox:
                self._arm(connection)
        self._unarmed.clear()

    def _lost(self, key: int, error: OSError) -> None:
        self.session.legs[key].association.outbox.clear()
        super()._lost(key, error)

    def _established(self, key: int) -> None:
        self.read(key)

    # Receiving

    def read(self, key: int) -> bool:
        """Read one leg once; False if nothing was there. Under the lock."""
        return self._read(key, straight=False) is not None

    def read_straight(self, now_ns: int) -> Batch | bool | None:
        """Read the one leg that has something, once, if nothing else is due.

        Under the lock.

        Returns:
            What has come, if that was data for this end and nothing else: it is in no output then.
            True: something else has come, and was taken in. False: nothing has. None: not looked.
        """
        if self.closed or (self._link is not None and self._link.listens):
            return None
        connections = self._connections
        if len(connections) != 1 or (self._sources and now_ns > self._look_round_ns):
            return self._read_ready_straight()
        ((key, connection),) = connections.items()
        if connection.establishing or connection.deaf:
            return None
        return self._read(key, straight=True) or False

    def _read_ready_straight(self) -> Batch | bool:
        ready = self._poller.poll(0)
        if len(ready) == 1:
            ((fd, what),) = ready
            key = self._keys.get(fd)
            if key is not None and what == READ:
                connection = self._connections[key]
                if not (connection.establishing or connection.deaf):
                    self._turn_bytes = 0
                    return self._read(key, straight=True) or False
        self._take_turns(ready)
        return bool(ready)

    def _read(self, key: int, *, straight: bool) -> Batch | bool | None:
        connection = self._connections.get(key)
        leg = self.session.legs.get(key)
        if connection is None or leg is None:
            return None
        counts: list[int] = []
        try:
            connection.receive_into(leg.association.reader.buffer(), counts)
        except BlockingIOError:
            return None
        except OSError as error:
            self._lost(key, error)
            return True
        except KeyboardInterrupt:
            if counts:
                self._received(key, connection, counts[0])
            raise
        return self._received(key, connection, counts[0], straight=straight) or True

    def _received(
        self, key: int, connection: Connection, count: int, *, straight: bool = False
    ) -> Batch | None:
        session = self.session
        if not count:
            code = code_of_errno(connection.broken) if connection.broken else 0
            session.lost(key, time.monotonic_ns(), code=code)
            return None
        self._turn_bytes += count
        try:
            now_ns, wall_ns = time.monotonic_ns(), time.time_ns()
            if straight and (batch := session.straight(key, count, now_ns, wall_ns)) is not None:
                return batch
            session.received(key, count, now_ns, wall_ns)
        except KeyboardInterrupt:
            # Half a read has been taken in; what comes after it would be read as something else.
            text = "interrupted while taking in what had arrived"
            session.lost(key, time.monotonic_ns(), code=WSAECONNABORTED, message=text)
            raise
        return None

    def _turn(self) -> None:
        """Everything that is ready now, once. Under the lock."""
        self._take_turns(self._poller.poll(0))

    def _take_turns(self, ready: Iterable[tuple[int, int]]) -> None:
        self._turn_bytes = self._turn_handshakes = 0
        self._look_round_ns = time.monotonic_ns() + LOOK_ROUND_NS
        for fd, what in ready:
            if (key := self._keys.get(fd)) is not None:
                self._turn_of(key, self._connections[key], what)
            elif (source := self._sources.get(fd)) is not None:
                source(what)

    def _turn_of(self, key: int, connection: Connection, what: int) -> None:
        if connection.establishing:
            if self._turn_handshakes < HANDSHAKE_BUDGET:
                self._turn_handshakes += 1
                self._establish(key, connection)
            return
        if what & WRITE:
            self.flush(key)
        if what & READ and not connection.deaf and self._turn_bytes < TURN_BYTES:
            self._read_some(key)

    def _read_some(self, key: int) -> None:
        for _ in range(READ_BUDGET):
            if not self.read(key) or key not in self._connections:
                return
            leg = self.session.legs[key].association
            if leg.reader.pending == 0:  # a short read: most likely nothing more is there
                return

    def catch_up(self) -> None:
        """Take note of everything that has come by now; never waits."""
        self.run(self._turn_if_open, clocks=False)

    def _turn_if_open(self) -> None:
        if not self.closed:
            self._turn()

    def _tick(self) -> None:
        def tick() -> None:
            self._clock.ticked()
            if not self.closed:
                # Read first: a process that was held up for long must not take what lies in its
                # own buffers for silence.
                self._turn()
                self.session.tick(time.monotonic_ns())

        self.run(tick)

    # The end

    def _drop(self, key: int, *, flush: bool) -> None:
        connection = self._connections.get(key)
        if connection is None:
            self.session.removed(key)
            return
        if flush and not connection.establishing and self.session.legs[key].association.outbox:
            connection.closing = True
            if not self.flush(key):
                # Not read any more: an end that nobody takes note of would be ready for ever.
                self._want(connection, WRITE)
                self._reactor.call_later(FLUSH_S, lambda: self._give_up(key, connection))
                return
        if self._connections.get(key) is connection:
            self._close_connection(key)

    def _give_up(self, key: int, connection: Connection) -> None:
        def give_up() -> None:
            if self._connections.get(key) is connection:
                self._close_connection(key)

        self.run(give_up)

    def _close_connection(self, key: int) -> None:
        self._held.pop(key, None)
        self._full.pop(key, None)
        self._paced.pop(key, None)
        super()._close_connection(key)
