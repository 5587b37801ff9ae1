"""What a TCP driver does for a session, on simulated streams.

The same contract as for real sockets: bytes into the reader, bytes out of the outbox, outputs in
order, ``tick`` at the deadline, connections given back when the session drops them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from typing import Final

from joinleaf.core.leg import LegState
from joinleaf.core.root_session import RootSession
from joinleaf.core.session import Arrived, Drop, Leg, Output, Session
from joinleaf.testing.multicast import LEAST_WAIT_NS, LeafGroup, RootGroup
from joinleaf.testing.network import SimNetwork
from joinleaf.testing.streams import StreamEnd
from joinleaf.values import Address

__all__ = ["SessionDriver"]

WALL_NS: Final = 1_700_000_000_000_000_000
"""Wall-clock time when a simulation begins."""

WHOLE_READS: Final = 0.85
"""Share of reads that ask for all there is; the others ask for less, down to one byte."""

GROUP_READ_NS: Final = 200_000
"""A leaf gets round to what the group has brought within this time."""


class SessionDriver:
    """Runs one session.

    Attributes:
        session: The session.
        ends: Connections by key.
        alive: False once the node has crashed; nothing is done any more.
        reading: Whether the application and the relay let legs be read.
        deaf: Legs that are not read though others are.
        frozen: Whether the process stands still, as after SIGSTOP: what happens waits.
        link: The multicast stream, where the session has one.
    """

    def __init__(
        self,
        network: SimNetwork,
        host: str,
        session: Session,
        handle: Callable[[Output], None],
        checked: Callable[[], None],
        dice: random.Random,
    ) -> None:
        self.network = network
        self.host = host
        self.session = session
        self.ends: dict[int, StreamEnd] = {}
        self.alive = True
        self.reading = True
        self.deaf: dict[int, None] = {}
        self.frozen = False
        self.link: RootGroup | LeafGroup | None = None
        self._missed: list[Callable[[], None]] = []
        self._group_read_set = False
        self._link_armed_ns: int | None = None
        self._handle = handle
        self._checked = checked
        self._dice = dice
        self._keys: dict[StreamEnd, int] = {}
        self._flushing: dict[int, None] = {}
        self._next_key = 1
        self._armed_ns: int | None = None
        self._told: dict[int, None] = {}  # legs whose deadlines may have come forward
        self._pumping = False

    @property
    def now_ns(self) -> int:
        """The present time."""
        return self.network.clock.now_ns

    # Connections

    def new_key(self) -> int:
        """A key no leg of this session had before."""
        key, self._next_key = self._next_key, self._next_key + 1
        return key

    def take(self, end: StreamEnd) -> SessionDriver:
        """Somebody connected: what a listener does with what it accepts."""
        if self.stands(lambda: self._take(end)):
            self._take(end)
        return self

    def _take(self, end: StreamEnd) -> None:
        key = self.new_key()
        self._keep(key, end)
        self.session.connection_opened(key, end.peer, end.local, self.now_ns)
        self._note_reading(key)
        self.pump()

    def dial(self, key: int, target: Address) -> None:
        """Connect for a leg that the session has just been told of."""
        end = self.network.connect(self.host, target, self)
        self._keep(key, end)
        self.session.legs[key].association.local = end.local
        self.pump()

    def _keep(self, key: int, end: StreamEnd) -> None:
        self.ends[key] = end
        self._keys[end] = key

    def hand_over(self, key: int) -> tuple[Leg, StreamEnd]:
        """Give a leg and its connection to another session's driver."""
        leg, end = self.session.legs[key], self.ends.pop(key)
        del self._keys[end]
        self.session.removed(key)
        return leg, end

    def adopt(self, key: int, end: StreamEnd) -> None:
        """Take over the connection of a leg that another driver handed over."""
        end.owner = self
        self._keep(key, end)
        self._told[key] = None
        self._next_key = max(self._next_key, key + 1)
        self.pump()
        self._read(key, end)
        self.pump()

    # What the network says

    def stream_connected(self, end: StreamEnd) -> None:
        """Pass it on."""
        if self.stands(lambda: self.stream_connected(end)) and end in self._keys:
            self.session.connected(self._keys[end], self.now_ns)
            self.pump()

    def stream_readable(self, end: StreamEnd) -> None:
        """Read, unless reading is held up: then what comes waits in the kernel."""
        if not self.stands(lambda: self.stream_readable(end)):
            return
        if (key := self._keys.get(end)) is None:
            return
        if self._reads(key) or not end.connected:
            self._read(key, end)
        elif end.error is not None:
            self._read(key, end)  # as poll tells of an error to who does not ask for input
        self.pump()

    def stream_writable(self, end: StreamEnd) -> None:
        """There is room again."""
        if not self.stands(lambda: self.stream_writable(end)):
            return
        if (key := self._keys.get(end)) is not None:
            self._write(key)
            self.pump()

    def _reads(self, key: int) -> bool:
        return self.reading and key not in self.deaf

    def _read(self, key: int, end: StreamEnd) -> None:
        """Read until nothing is left, the leg is over, or reading is held up."""
        error = end.error is not None
        while (leg := self.session.legs.get(key)) is not None and self.ends.get(key) is end:
            if not self._reads(key) and not error:
                return
            place = leg.association.reader.buffer()
            if self._dice.random() > WHOLE_READS:
                place = place[: self._dice.randint(1, len(place))]
            try:
                count = end.receive_into(place)
            except OSError:
                count = 0
            if count is None:
                return
            if key in self._flushing:
                if not count:
                    self._give_back(key)
                    return
                continue  # what still comes for a leg that has ended is read and forgotten
            if not count:
                self.session.lost(key, self.now_ns)
                self._outputs()
                return
            self.session.received(key, count, self.now_ns, WALL_NS + self.now_ns)
            self._outputs()
            self._checked()

    def set_reading(self, reading: bool) -> None:
        """Start or stop reading every leg."""
        if reading == self.reading:
            return
        self.reading = reading
        for key in list(self.session.legs):
            self._note_reading(key)
        if isinstance(self.link, LeafGroup):
            self.link.hold(not reading)
            self._serve_leaf_group()
        if reading:
            self.network.agenda.after(0, self._catch_up)

    def set_deaf(self, keys: Collection[int]) -> None:
        """Read all legs but these."""
        before, self.deaf = self.deaf, dict.fromkeys(keys)
        for key in before.keys() ^ self.deaf.keys():
            self._note_reading(key)
        if before.keys() - self.deaf.keys():
            self.network.agenda.after(0, self._catch_up)

    def _note_reading(self, key: int) -> None:
        if (leg := self.session.legs.get(key)) is not None:
            leg.association.reading_ns = self.now_ns if self._reads(key) else None
            self._told[key] = None

    def _catch_up(self) -> None:
        if not self.stands(self._catch_up):
            return
        for key, end in list(self.ends.items()):
            if self.alive and self._reads(key) and end.connected:
                self._read(key, end)
        self.group_ready()
        self.pump()

    # The multicast stream

    def group_ready(self) -> None:
        """Something has come, or may be read again: get round to it soon."""
        if isinstance(self.link, LeafGroup) and not self._group_read_set:
            self._group_read_set = True
            self.network.agenda.after(self._dice.randint(0, GROUP_READ_NS), self._read_group)

    def _read_group(self) -> None:
        if self.stands(self._read_group):
            self._group_read_set = False
            self._serve_leaf_group()

    def _serve_leaf_group(self, *, tick: bool = False) -> None:
        link = self.link
        if not isinstance(link, LeafGroup):
            return
        wall_ns = WALL_NS + self.now_ns
        if self.reading:
            link.read(self.now_ns, wall_ns)
        if tick or not self.reading:
            link.tick(self.now_ns, wall_ns)
        self.pump()

    def _arm_link(self, due_ns: int | None) -> None:
        armed_ns = self._link_armed_ns
        if due_ns is None or (armed_ns is not None and armed_ns <= due_ns):
            return
        due_ns = self._link_armed_ns = max(due_ns, self.now_ns + LEAST_WAIT_NS)
        self.network.agenda.at(due_ns, lambda: self._fire_link(due_ns))

    def _fire_link(self, due_ns: int) -> None:
        if self._link_armed_ns != due_ns or not self.stands(lambda: self._fire_link(due_ns)):
            return
        self._link_armed_ns = None
        if isinstance(self.link, RootGroup):
            self.link.tick(self.now_ns)
            self.pump()
        else:
            self._serve_leaf_group(tick=True)

    # What the session says

    def pump(self) -> None:
        """Do what is to be done now; safe to call after anything."""
        if self._pumping or not self.alive or self.frozen:
            return
        self._pumping = True
        link_due_ns = None
        try:
            self._outputs()
            while True:
                if isinstance(self.link, RootGroup):
                    link_due_ns = self.link.serve(self.now_ns)
                if not self.session.dirty:
                    break
                for key in list(self.session.dirty):
                    self._write(key)
                self._outputs()
        finally:
            self._pumping = False
        if isinstance(self.link, LeafGroup):
            link_due_ns = self.link.next_deadline_ns()
        self._arm_link(link_due_ns)
        self._arm()
        self._checked()

    def _outputs(self) -> None:
        while self.session.out and self.alive:
            output = self.session.out.popleft()
            if not isinstance(output, Arrived):
                self._told[output.key] = None
            if isinstance(output, Drop):
                self._drop(output.key, output.flush)
            else:
                self._handle(output)

    def _write(self, key: int) -> None:
        """Send what the connection takes; a broken one is left to the reader to notice."""
        self.session.dirty.pop(key, None)
        leg, end = self.session.legs.get(key), self.ends.get(key)
        if leg is None or end is None or not end.connected:
            return
        outbox = leg.association.outbox
        while outbox:
            head = outbox.head()
            try:
                count = end.send(head)
            except OSError:
                self._read(key, end)
                return
            outbox.sent(count)
            if count < sum(map(len, head)):
                return
            if not outbox and isinstance(self.session, RootSession):
                self.session.flushed(key)
        self.session.dirty.pop(key, None)
        if key in self._flushing:
            self._give_back(key)
        elif leg.association.state is LegState.ENDING:
            end.shut_down_sending()

    def _drop(self, key: int, flush: bool) -> None:
        leg = self.session.legs.get(key)
        if leg is None:
            return
        end = self.ends.get(key)
        if flush and leg.association.outbox and end is not None and end.connected:
            self._flushing[key] = None
            linger_ns = int(self.session.settings.linger * 1e9)
            self.network.agenda.after(linger_ns, lambda: self._give_back_late(key))
            self._write(key)
        else:
            self._give_back(key)

    def abort(self, key: int) -> None:
        """End a leg without ceremony: the peer sees a reset."""
        end = self.ends.get(key)
        self.session.abort_leg(key)
        if end is not None:
            end.reset()
        self.pump()

    def _give_back_late(self, key: int) -> None:
        if self.stands(lambda: self._give_back_late(key)) and key in self._flushing:
            self._give_back(key)

    def _give_back(self, key: int) -> None:
        self._flushing.pop(key, None)
        self.deaf.pop(key, None)
        self.session.removed(key)
        if isinstance(self.link, LeafGroup):
            self.link.close()  # a leaf has one leg
        if (end := self.ends.pop(key, None)) is not None:
            del self._keys[end]
            end.close()

    # Time

    def _arm(self) -> None:
        """Ask only the legs that something was done to, as the contract of ``touched`` allows."""
        touched = {**self.session.touched, **self._told}
        self.session.touched.clear()
        self._told.clear()
        due_ns = self.session.next_deadline_ns(touched)
        if due_ns is None or (self._armed_ns is not None and self._armed_ns <= due_ns):
            return
        self._armed_ns = due_ns
        self.network.agenda.at(due_ns, lambda: self._fire(due_ns))

    def _fire(self, due_ns: int) -> None:
        if self._armed_ns != due_ns or not self.stands(lambda: self._fire(due_ns)):
            return
        self._armed_ns = None
        self.session.tick(self.now_ns)
        self.pump()

    def stop(self) -> None:
        """The node is no more."""
        self.alive = False
        if isinstance(self.link, LeafGroup):
            self.link.close()

    # Standing still

    def stands(self, call: Callable[[], None]) -> bool:
        """Whether the process runs; if it is frozen, ``call`` is made once it thaws."""
        if self.frozen and self.alive:
            self._missed.append(call)
        return self.alive and not self.frozen

    def freeze(self) -> None:
        """The process stands still; its connections, timers and the group go on around it."""
        self.frozen = True

    def thaw(self) -> None:
        """It goes on, and sees all at once what has happened."""
        if not self.frozen:
            return
        self.frozen = False
        missed, self._missed = self._missed, []
        for call in missed:
            call()
        self.pump()
