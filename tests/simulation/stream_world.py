"""One sender, many receivers and a bad network between them, all drawn from a seed.

The group loses, repeats and reorders datagrams, each leaf its own, and coalesces what is left as
a kernel would. Legs are reliable and ordered, as TCP is. Time is simulated; nothing waits.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from joinleaf.core.reliability.receiver import StreamReceiver
from joinleaf.core.reliability.seams import Congestion, Opener, Pacer, Sealer
from joinleaf.core.reliability.sender import StreamSender, Train
from joinleaf.core.wire.frames import HEADER, RAW, FrameReader, Kind, data_header
from joinleaf.core.wire.landing import LANDING_BYTES, Landings
from joinleaf.core.wire.reports import decode_start, decode_unit
from joinleaf.core.wire.units import HEADER_SIZE, Layout

MS = 1_000_000
TAG = 0x5EED5EED
PROBE = b"nonce-of-probes!"


@dataclass
class Faults:
    """What the network does to datagrams on their way to one leaf."""

    loss: float = 0.0
    train_loss: float = 0.0  # share of trains that do not come at all
    duplicate: float = 0.0
    reorder: float = 0.0  # share of datagrams that come later than their successors
    spoil: float = 0.0  # share of datagrams of which a byte is changed
    delay_ns: int = 100_000
    jitter_ns: int = 20_000
    cut_off: bool = False  # multicast reaches this leaf no longer


class Leaf:
    """A receiver, what it was due and what it got."""

    def __init__(self, world: World, key: int, faults: Faults, window_bytes: int) -> None:
        self.world = world
        self.key = key
        self.faults = faults
        self.window_bytes = window_bytes
        self.rng = random.Random(f"{world.seed}/{key}")
        self.receiver = StreamReceiver(
            tag=TAG,
            window_bytes=window_bytes,
            backoff_seed=self.rng.getrandbits(64),
            probe=PROBE,
            opener=None if world.opener is None else world.opener(),
        )
        self.landings = Landings()
        self.reader = FrameReader(memoryview(bytearray(1 << 18)), 1 << 24)
        self.got: list[int] = []  # numbers of messages
        self.by_leg = False  # served by its leg
        self.reads = True  # its application fetches
        self.crashed = False
        self.skips = 0
        self.wake_ns: int | None = None
        self.leg_ns = 0  # arrival of the last thing on its leg: legs keep their order

    # network

    def hear(self, train: Train, now: int) -> None:
        """Multicast of one train to this leaf."""
        faults, rng = self.faults, self.rng
        if faults.cut_off or (faults.train_loss and rng.random() < faults.train_loss):
            return
        late: list[bytes] = []
        through: list[bytes] = []
        for at in range(0, len(train.buffer), train.segment):
            symbol = train.buffer[at : at + train.segment]
            if rng.random() < faults.loss:
                continue
            if faults.spoil and rng.random() < faults.spoil:
                place = rng.randrange(len(symbol))
                symbol = symbol[:place] + bytes([symbol[place] ^ 1]) + symbol[place + 1 :]
            if rng.random() < faults.duplicate:
                through.append(symbol)
            (late if rng.random() < faults.reorder else through).append(symbol)
        delay = faults.delay_ns + (rng.randrange(faults.jitter_ns) if faults.jitter_ns else 0)
        self.world.at(now + delay, lambda: self.receive(through))
        if late:
            delay += rng.randrange(4 * faults.delay_ns)
            self.world.at(now + delay, lambda: self.receive(late))

    def receive(self, symbols: list[bytes]) -> None:
        """Coalesce at random and hand over."""
        if self.crashed:
            return
        while symbols:
            size, most = len(symbols[0]), self.rng.choice((64, 64, 7, 1))
            count = 1
            while count < min(most, len(symbols)) and len(symbols[count - 1]) == size:
                if len(symbols[count]) > size:
                    break
                count += 1
            train = b"".join(symbols[:count])
            if len(train) > LANDING_BYTES or self.rng.random() < 0.5:
                self.receiver.handle_train(memoryview(bytearray(train)), size, self.world.now)
            else:
                self.land(train, size)
            del symbols[:count]
            self.settle()

    def land(self, train: bytes, segment: int) -> None:
        """Hand it over in a landing, as a driver does; nothing is left there of what was."""
        landing = self.landings.take()
        landing.view[:] = bytes(len(landing.view))
        landing.fill(train, segment)
        if not self.receiver.handle_landing(landing, self.world.now):
            self.landings.free(landing)

    def settle(self) -> None:
        """Fetch what is ready, send the report that is due, arm the timer."""
        if self.crashed:
            return
        if self.reads:
            self.fetch()
        frame = self.receiver.poll_report(self.world.now)
        if frame is not None:
            self.world.to_root(self, frame)
        due = self.receiver.next_deadline_ns()
        if due is not None and (self.wake_ns is None or due < self.wake_ns):
            due = max(due, self.world.now + 1000)
            self.wake_ns = due
            self.world.at(due, self.wake)

    def wake(self) -> None:
        self.wake_ns = None
        self.receiver.tick(self.world.now)
        self.settle()

    def fetch(self) -> None:
        for unit in self.receiver.take():
            if isinstance(unit, bytes):
                self.read(unit)
            else:
                self.read(unit.joined())
                self.landings.free(unit)

    def read(self, data: bytes | memoryview) -> None:
        for frame in self.reader.feed(data):
            assert frame.kind == Kind.DATA
            number = int.from_bytes(frame.body[4:12], "big")
            self.world.check_body(number, frame.body)
            self.got.append(number)

    def on_leg(self, frame: bytes) -> None:
        """A frame from the root."""
        if self.crashed:
            return
        _, kind, _, _ = HEADER.unpack_from(frame)
        body = memoryview(frame)[HEADER.size :]
        now = self.world.now
        if kind == Kind.START:
            unit, timing = decode_start(body)
            self.receiver.start(unit, timing)
        elif kind == Kind.UNIT_REPAIR:
            self.receiver.handle_unit_repair(body, now)
        elif kind == Kind.STOP:
            self.receiver.stop(decode_unit(body))
            self.fetch()
        elif kind == Kind.SKIP:
            self.fetch()
            self.receiver.skip(decode_unit(body))
            self.reader = FrameReader(memoryview(bytearray(1 << 18)), 1 << 24)
            self.skips += 1
        else:
            self.read(frame)
        self.settle()


@dataclass(order=True)
class _Event:
    at: int
    order: int
    act: Callable[[], None] = field(compare=False)


class World:
    """Sender, leaves, network, clock."""

    def __init__(
        self,
        seed: object,
        *,
        segment: int = 1452,
        window_bytes: int = 1 << 20,
        sealer: Sealer | None = None,
        opener: Callable[[], Opener] | None = None,
        congestion: Congestion | None = None,
        pacer: Pacer | None = None,
    ) -> None:
        self.seed = seed
        self.rng = random.Random(f"{seed}/world")
        self.opener = opener
        self.sender = StreamSender(
            Layout(segment),
            tag=TAG,
            window_bytes=window_bytes,
            sealer=sealer,
            congestion=congestion,
            pacer=pacer,
        )
        self.window_bytes = window_bytes
        self.now = 1_000_000_000
        self.leaves: list[Leaf] = []
        self.messages = 0  # begun so far
        self.due: dict[int, int] = {}  # key -> first message it must get
        self._events: list[_Event] = []
        self._order = 0
        self._wake_ns: int | None = None
        self.group_bytes = 0

    def at(self, when: int, act: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._events, _Event(when, self._order, act))

    def join(self, faults: Faults | None = None, window_bytes: int = 1 << 20) -> Leaf:
        """A leaf is served by the group from the next batch on."""
        leaf = Leaf(self, len(self.leaves), faults or Faults(), window_bytes)
        self.leaves.append(leaf)
        unit = self.sender.add_leaf(leaf.key, window_bytes, self.now)
        self.due[leaf.key] = self.messages
        self.to_leaf(leaf, self.sender.start(unit))
        return leaf

    def leave(self, leaf: Leaf) -> None:
        leaf.crashed = True
        self.sender.remove_leaf(leaf.key)
        self.pump()

    def demote(self, leaf: Leaf) -> None:
        for frame in self.sender.demote(leaf.key):
            self.to_leaf(leaf, frame)
        leaf.by_leg = True

    def to_leaf(self, leaf: Leaf, frame: bytes) -> None:
        leaf.leg_ns = max(leaf.leg_ns, self.now + leaf.faults.delay_ns)
        self.at(leaf.leg_ns, lambda: leaf.on_leg(frame))

    def to_root(self, leaf: Leaf, frame: bytes) -> None:
        self.at(self.now + leaf.faults.delay_ns, lambda: self._report(leaf, frame))

    def _report(self, leaf: Leaf, frame: bytes) -> None:
        self.sender.handle_report(leaf.key, memoryview(frame)[HEADER.size :], self.now)
        self.pump()

    def body(self, number: int, size: int) -> bytes:
        return random.Random(number).randbytes(size)

    def check_body(self, number: int, body: memoryview) -> None:
        data = bytes(body[12:])
        assert data == self.body(number, len(data)), f"message {number} is spoiled"

    def send(self, sizes: Sequence[int]) -> None:
        """Begin a batch of messages and let go what may leave."""
        buffers: list[bytes] = []
        for size in sizes:
            buffers += [data_header(size, RAW, 0, self.messages), self.body(self.messages, size)]
            self.messages += 1
        self.sender.begin(buffers, sum(map(len, buffers)))
        for leaf in self.leaves:
            if leaf.by_leg:
                self.to_leaf(leaf, b"".join(buffers))
        self.pump()

    def pump(self) -> None:
        sender = self.sender
        while (train := sender.poll_transmit(self.now)) is not None:
            assert len(train.buffer) <= 65_507
            self.group_bytes += len(train.buffer)
            for leaf in self.leaves:
                if not leaf.crashed:
                    leaf.hear(train, self.now)
        while (item := sender.poll_leg()) is not None:
            self.to_leaf(self.leaves[item[0]], item[1])
        due = sender.next_deadline_ns()
        if due is not None and (self._wake_ns is None or due < self._wake_ns):
            self._wake_ns = max(due, self.now + 1000)
            self.at(self._wake_ns, self._wake)

    def _wake(self) -> None:
        self._wake_ns = None
        self.sender.tick(self.now)
        self.pump()

    def run(self, duration_ns: int) -> None:
        """Let time pass."""
        end = self.now + duration_ns
        while self._events and self._events[0].at <= end:
            event = heapq.heappop(self._events)
            self.now = max(self.now, event.at)
            event.act()
        self.now = end

    def quiet(self, leaf: Leaf) -> bool:
        return leaf.crashed or leaf.by_leg or not self.sender.unacknowledged(leaf.key)

    def settle(self, bound_ns: int = 60_000 * MS) -> None:
        """Until everything is acknowledged, within a bound of simulated time."""
        end = self.now + bound_ns
        while not (self.sender.has_room and all(map(self.quiet, self.leaves))):
            assert self.now < end, f"no end in sight: {self.state()}"
            self.run(20 * MS)
        self.run(20 * MS)

    def state(self) -> str:
        lines = [f"seed {self.seed!r}: sender {self.sender.counters}"]
        lines += [
            f"leaf {leaf.key}: {self.sender.unacknowledged(leaf.key)} B left, {len(leaf.got)} got,"
            f" {leaf.receiver.counters}"
            for leaf in self.leaves
        ]
        return "\n".join(lines)

    def check_complete(self, leaf: Leaf) -> None:
        """Every message from its START on, in order, once."""
        expected = list(range(self.due[leaf.key], self.messages))
        assert leaf.got == expected, (
            f"leaf {leaf.key} got {leaf.got[:5]}.. ({len(leaf.got)}), expected from "
            f"{expected[:1]} ({len(expected)}); {self.state()}"
        )


__all__ = ["HEADER_SIZE", "MS", "PROBE", "TAG", "Faults", "Leaf", "World"]
