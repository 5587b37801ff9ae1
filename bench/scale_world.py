"""One root and thousands of leaves in simulated time: the real machines, and little else.

The root is a whole ``RootSession`` with its stream; leaves join it by real handshakes and are their
``StreamReceiver`` from then on. The network is a link of the root's, one delay, and losses: for
each leaf its own, or one draw for all (before the network branches). Where nothing was lost a train
is handed over as it is, a repair to who has all of it not at all, and leaves share the memory of
what they have in common; the first few copy and hear everything, and theirs is the time that a leaf
is charged with.
"""

from __future__ import annotations

import gc
import heapq
import math
import random
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Final

from joinleaf.core.leaf_session import LeafSession
from joinleaf.core.reliability import receiver as receiver_module
from joinleaf.core.reliability.congestion import CongestionWindow
from joinleaf.core.reliability.pacing import StreamPacer
from joinleaf.core.reliability.receiver import StreamReceiver
from joinleaf.core.reliability.sender import StreamSender, Train
from joinleaf.core.root_carriage import RootCarriage
from joinleaf.core.root_session import RootSession
from joinleaf.core.session import Session
from joinleaf.core.wire.control import GroupFacts
from joinleaf.core.wire.frames import HEADER, Kind
from joinleaf.core.wire.reports import NO_UNIT, Report, decode_start, report_frame
from joinleaf.core.wire.units import HEADER as HEADER_OF_UNIT
from joinleaf.core.wire.units import REPAIR, UNIT_OVERHEAD, Layout
from joinleaf.core.wire.units import strip as copy_payload
from joinleaf.spi.provider import Accept, JoinRole, Settings
from joinleaf.values import Address

__all__ = ["Outcome", "ScaleWorld"]

MS: Final = 1_000_000
SEGMENT: Final = 1452
WINDOW: Final = 4 << 20  # as providers/rooted/_group.py
ONE_WAY_NS: Final = 100_000
LINK_BYTES_PER_S: Final = 125_000_000
SLACK_NS: Final = 500_000
"""Timers of a driver are this exact (drivers/group_link.py)."""

MEASURED: Final = 10
"""Leaves that copy what they receive, as in a process of their own, and are timed."""

_PLAIN_REPORT: Final = len(report_frame(Report(0, 0, NO_UNIT, 0, 0, True, False, 0, ())))
"""Length of a report that tells of no gap."""

ROOT: Final = Address("10.0.0.1", 7400)
SETTINGS: Final = Settings(dead_after=1e6, backlog=1 << 20, max_message=1 << 20)
"""Nobody dies of silence, nobody beats: the stream is what is asked about."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run cost. Times of the root are of its machine alone, not of any kernel."""

    leaves: int
    shared: bool
    sent_bytes: int
    symbols: int
    repairs: int
    lost: int
    lost_anywhere: int
    reports: int
    gap_reports: int
    report_bytes: int
    simulated_s: float
    root_cpu_s: float
    leaf_cpu_s: float
    bytes_per_leaf: float


class _Sharing:
    """Payloads of a train that several leaves cut out of it alike."""

    def __init__(self) -> None:
        self.on = True
        self._known: dict[tuple[bytes, int, int], bytes] = {}

    def clear(self) -> None:
        self._known.clear()

    def strip(self, view: memoryview, segment: int, count: int) -> bytes:
        if not self.on:
            return copy_payload(view, segment, count)
        key = (bytes(view[:16]), count, len(view))
        payload = self._known.get(key)
        if payload is None:
            payload = self._known[key] = copy_payload(view, segment, count)
        return payload


class _Leaf:
    __slots__ = ("key", "measured", "receiver", "until_loss", "wake_ns")

    def __init__(self, key: int, receiver: StreamReceiver, measured: bool) -> None:
        self.key = key
        self.receiver = receiver
        self.measured = measured
        self.until_loss = 0  # symbols that still come through
        self.wake_ns = 0  # 0: not set


class ScaleWorld:
    """See the module.

    Args:
        leaves: How many.
        loss: Share of symbols lost.
        shared: Whether all lose the same.
        seed: Draws the losses.
        weigh: Whether to measure the memory of a leaf at the root, which takes long.
    """

    def __init__(
        self, leaves: int, loss: float, *, shared: bool, seed: int = 0, weigh: bool = True
    ) -> None:
        self.now = 1_000 * MS
        self.shared = shared
        self._loss = loss
        self._dice = random.Random(f"{seed}/{shared}/{leaves}")
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self._root_ns = self._leaf_ns = 0
        self._root_wake_ns: int | None = None
        self._link_free_ns = self.now
        self._arriving: dict[int, list[tuple[int, bytes]]] = {}  # reports, by when they arrive
        self.lost = self.lost_anywhere = 0
        self.reports = self.gap_reports = self.report_bytes = 0
        self._sharing = _Sharing()
        self._scratch = memoryview(bytearray(1 << 19))
        self.root, self.carriage = self._open()
        self.bytes_per_leaf = 0.0
        if weigh:
            gc.collect()
            tracemalloc.start()
        keys = range(1, leaves + 1)
        for key in keys:
            self._join(key)
        if weigh:
            gc.collect()
            self.bytes_per_leaf = tracemalloc.get_traced_memory()[0] / leaves
            tracemalloc.stop()
        self._leaves = {key: self._leaf(key, key <= MEASURED) for key in keys}
        self._until_shared_loss = self._gap()

    def _open(self) -> tuple[RootSession, RootCarriage]:
        layout = Layout(SEGMENT)
        unit = layout.segment * layout.symbols + UNIT_OVERHEAD
        window = CongestionWindow(ceiling=WINDOW, symbol_bytes=layout.segment, unit_bytes=unit)
        pacer = StreamPacer(window)
        sender = StreamSender(layout, tag=1, window_bytes=WINDOW, congestion=window, pacer=pacer)
        facts = GroupFacts(
            host="239.255.70.1", port=7401, source=ROOT.host, tag=1, nonce=bytes(16), window=WINDOW
        )
        root = RootSession(
            SETTINGS, session_id=bytes(16), incarnation=bytes(16), rooted=True, d_root=True,
            scratch=self._scratch,
        )  # fmt: skip
        root.carriage = RootCarriage(facts, sender, pacer)
        return root, root.carriage

    # Joining

    def _join(self, key: int) -> None:
        """A real handshake, ended by the report that the group is heard."""
        peer = Address(f"10.1.{key >> 8}.{key & 255}", 9)
        leaf = LeafSession(SETTINGS, incarnation=bytes(16), d_root=False, scratch=self._scratch)
        leaf.join(1, ROOT, peer, self.now, data=b"", qos=None, role=JoinRole.BOTH, deadline_ns=None)
        root = self.root
        root.connection_opened(key, peer, ROOT, self.now)
        leaf.connected(1, self.now)
        _carry(leaf, 1, root, key, self.now)
        offered = root.offer()
        assert offered is not None
        root.admit(key, Accept())
        _carry(root, key, leaf, 1, self.now)
        receiver = StreamReceiver(tag=1, window_bytes=WINDOW, probe=bytes(16))
        receiver.handle_train(memoryview(self.carriage.sender.probe(bytes(16), 0).buffer), 99, 0)
        self._give(key, receiver.poll_report(self.now) or b"")
        root.out.clear()
        root.touched.clear()

    def _leaf(self, key: int, measured: bool) -> _Leaf:
        receiver = StreamReceiver(
            tag=1, window_bytes=WINDOW, probe=bytes(16), backoff_seed=self._dice.getrandbits(64)
        )
        leaf = _Leaf(key, receiver, measured)
        leaf.until_loss = self._gap()
        self._read_leg(leaf)
        return leaf

    def _gap(self) -> int:
        """Symbols until the next one that is lost."""
        if not self._loss:
            return 1 << 62
        return int(math.log(1.0 - self._dice.random()) / math.log(1.0 - self._loss))

    # Time

    def at(self, when: int, act: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._events, (when, self._order, act))

    def run(self, size: int, bound_s: float = 600.0) -> Outcome:
        """Send so many bytes to all, until everybody has acknowledged everything."""
        message = bytes(60_000)
        count = -(-size // len(message))
        before, sender = self.now, self.carriage.sender
        module: Any = receiver_module
        real_strip, module.strip = module.strip, self._sharing.strip
        try:
            self._timed_root(lambda: self._send([message] * count))
            self._pump()
            while sender.pending_bytes or sender._kept:
                when, _, act = heapq.heappop(self._events)
                self.now = max(self.now, when)
                act()
                if self.now - before > bound_s * 1e9:
                    raise RuntimeError(f"not complete after {bound_s} s: {sender.counters}")
        finally:
            module.strip = real_strip
        counters = sender.counters
        symbols = sender._sent_symbols
        measured = min(MEASURED, len(self._leaves))
        return Outcome(
            len(self._leaves), self.shared, count * len(message), symbols,
            counters["repair_bytes"] // sender._layout.segment, self.lost, self.lost_anywhere,
            self.reports, self.gap_reports, self.report_bytes, (self.now - before) / 1e9,
            self._root_ns / 1e9, self._leaf_ns / 1e9 / measured, self.bytes_per_leaf,
        )  # fmt: skip

    def _timed_root(self, call: Callable[[], Any]) -> Any:
        began = time.thread_time_ns()
        result = call()
        self._root_ns += time.thread_time_ns() - began
        return result

    def _send(self, messages: list[bytes]) -> None:
        for message in messages:
            self.root.send([message], self.now)

    # The root

    def _give(self, key: int, frame: bytes) -> None:
        """A frame has come on a leg."""
        place = self.root.legs[key].association.reader.buffer()
        place[: len(frame)] = frame
        self.root.received(key, len(frame), self.now, self.now)

    def _reports_arrive(self, arrival_ns: int) -> None:
        for key, frame in self._arriving.pop(arrival_ns):
            self._timed_root(partial(self._give, key, frame))
            self._pump()

    def _pump(self) -> None:
        """What a driver does after anything has happened."""
        while (
            train := self._timed_root(lambda: self.carriage.poll_transmit(self.now))
        ) is not None:
            self._launch(train)
        while (word := self.carriage.sender.poll_leg()) is not None:
            self.root.put_on_leg(*word)
        for key in list(self.root.dirty):
            del self.root.dirty[key]
            self.at(self.now + ONE_WAY_NS, partial(self._read_leg, self._leaves[key]))
        due = self._timed_root(self.carriage.next_deadline_ns)
        armed = self._root_wake_ns
        if due is not None and (armed is None or due < armed - SLACK_NS):
            self._root_wake_ns = due = max(due, self.now + 50_000)
            self.at(due, lambda: self._wake_root(due))

    def _wake_root(self, due: int) -> None:
        if due == self._root_wake_ns:
            self._root_wake_ns = None
            if self._timed_root(lambda: self.carriage.tick(self.now)):
                raise RuntimeError(
                    "a leaf was put on its leg: the figures would be of something else"
                )
            self._pump()

    # The network

    def _launch(self, train: Train) -> None:
        start = max(self.now, self._link_free_ns)
        self._link_free_ns = start + len(train.buffer) * 1_000_000_000 // LINK_BYTES_PER_S
        self.at(self._link_free_ns + ONE_WAY_NS, lambda: self._arrive(train))

    def _arrive(self, train: Train) -> None:
        """All leaves hear it, or what was not lost of it."""
        self._sharing.clear()
        view = memoryview(train.buffer)
        count = -(-len(view) // train.segment)
        anywhere: set[int] = set()
        runs = None
        if self.shared:
            lost, self._until_shared_loss = self._losses(self._until_shared_loss, count)
            self.lost += len(lost) * len(self._leaves)
            anywhere.update(lost)
            runs = _runs(view, train.segment, count, lost) if lost else [view]
        last = HEADER_OF_UNIT.unpack_from(view, (count - 1) * train.segment)
        over = last[5] if last[1] == REPAIR else -1  # units are in order: the last is the newest
        for leaf in self._leaves.values():
            if over >= 0 and leaf.receiver._next > over and not leaf.measured:
                # It has all of that. The losses it may have among them are nobody's.
                continue
            pieces = runs
            if pieces is None:
                if leaf.until_loss >= count:
                    leaf.until_loss -= count
                    pieces = [view]
                else:
                    lost, leaf.until_loss = self._losses(leaf.until_loss, count)
                    self.lost += len(lost)
                    anywhere.update(lost)
                    pieces = _runs(view, train.segment, count, lost)
            self._deliver(leaf, pieces, train.segment)
        self.lost_anywhere += len(anywhere)

    def _losses(self, until: int, count: int) -> tuple[list[int], int]:
        lost = []
        while until < count:
            lost.append(until)
            until += 1 + self._gap()
        return lost, until - count

    # A leaf

    def _deliver(self, leaf: _Leaf, pieces: list[memoryview], segment: int) -> None:
        if leaf.measured:
            self._sharing.on = False
            began = time.thread_time_ns()
        for piece in pieces:
            leaf.receiver.handle_train(piece, min(segment, len(piece)), self.now)
        leaf.receiver.take()
        if leaf.measured:
            self._sharing.on = True
            self._leaf_ns += time.thread_time_ns() - began
        self._settle(leaf)

    def _settle(self, leaf: _Leaf) -> None:
        began = time.thread_time_ns() if leaf.measured else 0
        frame = leaf.receiver.poll_report(self.now)
        due = leaf.receiver.next_deadline_ns()
        if leaf.measured:
            self._leaf_ns += time.thread_time_ns() - began
        if frame is not None:
            self._report(leaf, frame)
        if due is not None and (not leaf.wake_ns or due < leaf.wake_ns):
            leaf.wake_ns = due = max(due, self.now + 1000)
            self.at(due, lambda: self._wake(leaf, due))

    def _wake(self, leaf: _Leaf, due: int) -> None:
        if leaf.wake_ns == due:
            leaf.wake_ns = 0
            self._settle(leaf)

    def _report(self, leaf: _Leaf, frame: bytes) -> None:
        self.reports += 1
        self.gap_reports += len(frame) > _PLAIN_REPORT
        self.report_bytes += len(frame)
        arrival = self.now + ONE_WAY_NS
        if (together := self._arriving.get(arrival)) is None:
            together = self._arriving[arrival] = []
            self.at(arrival, lambda: self._reports_arrive(arrival))
        together.append((leaf.key, frame))

    def _read_leg(self, leaf: _Leaf) -> None:
        """What the root has put on the leg."""
        for kind, body in _frames(_taken(self.root, leaf.key)):
            if kind == Kind.START:
                leaf.receiver.start(*decode_start(body))
            elif kind == Kind.UNIT_REPAIR:
                leaf.receiver.handle_unit_repair(body, self.now)
        self._settle(leaf)


def _taken(session: Session, key: int) -> bytes:
    """All that waits in an outbox."""
    outbox = session.legs[key].association.outbox
    data = bytearray()
    while head := outbox.head():
        size = sum(map(len, head))
        data += b"".join(head)
        outbox.sent(size)
    session.dirty.pop(key, None)
    return bytes(data)


def _carry(source: Session, key: int, target: Session, target_key: int, now_ns: int) -> None:
    data = _taken(source, key)
    place = target.legs[target_key].association.reader.buffer()
    place[: len(data)] = data
    target.received(target_key, len(data), now_ns, now_ns)


def _frames(data: bytes) -> Iterator[tuple[int, memoryview]]:
    view = memoryview(data)
    while view:
        length, kind, _, _ = HEADER.unpack_from(view)
        yield kind, view[HEADER.size : HEADER.size + length]
        view = view[HEADER.size + length :]


def _runs(view: memoryview, segment: int, count: int, lost: list[int]) -> list[memoryview]:
    """What lies between the symbols that were lost."""
    edges = [-1, *lost, count]
    return [
        view[(before + 1) * segment : after * segment]
        for before, after in pairwise(edges)
        if after - before > 1
    ]
