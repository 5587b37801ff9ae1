"""A link in a box: one queue that drops what does not fit, a stream to several leaves, a TCP.

Deterministic, from a seed. Packets are not simulated one by one but in bursts, as a burst enters
the queue at once; departures follow from the rate.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from joinleaf.core.reliability.congestion import CongestionWindow
from joinleaf.core.reliability.pacing import StreamPacer

NS = 1_000_000_000
PACKET = 1448
UNIT = 43 * PACKET


@dataclass
class Link:
    """Drop-tail: ``rate`` bytes per second out of a queue of ``room`` bytes, then ``delay_ns``."""

    rate: float
    room: float
    delay_ns: int
    free_ns: float = 0.0
    carried: int = 0

    def push(self, packets: int, size: int, now_ns: int) -> tuple[int, int]:
        """How many packets of a burst get in, and when the last of them is across."""
        queued = max(0.0, self.free_ns - now_ns) * self.rate / NS
        taken = max(0, min(packets, int((self.room - queued) // size)))
        if taken:
            self.free_ns = max(self.free_ns, now_ns) + taken * size * NS / self.rate
            self.carried += taken * size
        return taken, int(self.free_ns) + self.delay_ns


class Flow(Protocol):
    """Something that is woken by the clock."""

    def start(self) -> None:
        """Send the first of it."""


@dataclass
class World:
    """A clock, a seed and what is due."""

    seed: str
    now_ns: int = 0
    _due: list[tuple[int, int, Callable[[], None]]] = field(default_factory=list)
    _count: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def at(self, time_ns: float, call: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._due, (max(self.now_ns, int(time_ns)), self._count, call))

    def run_until(self, end_ns: int) -> None:
        while self._due and self._due[0][0] <= end_ns:
            self.now_ns, _, call = heapq.heappop(self._due)
            call()
        self.now_ns = end_ns

    def drops(self, packets: int, share: float) -> int:
        """How many of them a link with random losses loses."""
        if not share:
            return 0
        return sum(self.random.random() < share for _ in range(packets))


class Stream:
    """One stream to several leaves under a ``CongestionWindow``, with repairs by multicast.

    Args:
        loss: Share of symbols lost on the way to each leaf, after the queue.
        noise_ns: Longest time a leaf takes to get round to its report.
        trains: That share is of trains, which get lost as a whole, and the window knows it.
    """

    def __init__(
        self,
        world: World,
        link: Link,
        loss: list[float],
        *,
        ceiling: int = 4 << 20,
        noise_ns: int,
        trains: bool = False,
    ) -> None:
        self.world, self.link, self.loss, self.noise_ns = world, link, loss, noise_ns
        self.window = CongestionWindow(ceiling=ceiling, symbol_bytes=PACKET, unit_bytes=UNIT)
        self.window.symbols_lost_at_once = 43 if trains else 1
        self.trains = trains
        self.pacer = StreamPacer(self.window)
        self.delivered = [0] * len(loss)
        self._missing: dict[int, list[int]] = {}  # by unit: symbols missing at each leaf
        self._awaited: dict[int, int] = {}  # by unit: reports still to come
        self._next = self._acked = 0
        self._under_way = [0] * len(loss)  # symbols sent since the leaf's last report
        self._waiting = False

    @property
    def good_bytes(self) -> int:
        """Bytes that every leaf has, without those sent twice."""
        return self._acked * UNIT

    def start(self) -> None:
        self._send()

    def _send(self) -> None:
        now = self.world.now_ns
        while True:
            if (self._next - self._acked + 1) * UNIT > self.window.window_bytes:
                self.window.on_limited()
                return
            if delay := self.pacer.delay_ns(UNIT, now):
                if not self._waiting:
                    self._waiting = True
                    self.world.at(now + delay, self._wake)
                return
            unit, self._next = self._next, self._next + 1
            self._missing[unit] = [43] * len(self.loss)
            self._train(unit, 43)

    def _wake(self) -> None:
        self._waiting = False
        self._send()

    def _train(self, unit: int, symbols: int) -> None:
        """Send so many symbols of a unit, in trains no longer than the pacer permits."""
        most = max(1, self.pacer.max_burst() // PACKET)
        for first in range(0, symbols, most):
            count = min(most, symbols - first)
            delay = self.pacer.delay_ns(count * PACKET, self.world.now_ns)
            self.pacer.consume(count * PACKET, self.world.now_ns + delay)
            self._awaited[unit] = self._awaited.get(unit, 0) + len(self.loss)
            self.world.at(self.world.now_ns + delay, partial(self._depart, unit, count))

    def _depart(self, unit: int, symbols: int) -> None:
        """A train leaves; every leaf reports what it has got of it."""
        now = self.world.now_ns
        self.window.on_sent(symbols * PACKET, now)
        taken, there_ns = self.link.push(symbols, PACKET, now)
        for leaf, loss in enumerate(self.loss):
            self._under_way[leaf] += symbols
            lost = self.world.drops(1, loss) * taken if self.trains else None
            got = taken - (self.world.drops(taken, loss) if lost is None else lost)
            at_ns = there_ns + self.link.delay_ns + self.world.random.uniform(0, self.noise_ns)
            self.world.at(at_ns, partial(self._report, unit, leaf, got, symbols - got, now))

    def _report(self, unit: int, leaf: int, got: int, lost: int, sent_ns: int) -> None:
        missing = self._missing[unit]
        got = min(got, missing[leaf])
        missing[leaf] -= got
        self.delivered[leaf] += got * PACKET
        self._awaited[unit] -= 1
        before = self._acked
        while self._acked < self._next and not any(self._missing[self._acked]):
            self._acked += 1
        under_way, self._under_way[leaf] = self._under_way[leaf], 0
        now = self.world.now_ns
        rtt = now - sent_ns if lost < under_way else None
        self.window.on_report((self._acked - before) * UNIT, lost, under_way, rtt, now, leaf)
        if not self._awaited[unit] and any(missing):
            # One combination of symbols mends different losses at different leaves.
            self._train(unit, max(missing))
        self._send()


class Tcp:
    """Reno (halves once a round trip with losses, grows by a packet) or CUBIC, as Linux has it."""

    def __init__(self, world: World, link: Link, *, cubic: bool) -> None:
        self.world, self.link, self.cubic = world, link, cubic
        self._peak = self._reno = 0.0
        self._epoch_ns = 0
        self.window, self.threshold = 10.0, float("inf")
        self.acked_bytes = 0
        self._in_flight = 0
        self._deaf_until_ns = 0

    def start(self) -> None:
        self._send()

    def _send(self) -> None:
        now = self.world.now_ns
        while self._in_flight + 1 <= self.window:
            burst = max(1, min(8, int(self.window - self._in_flight)))
            self._in_flight += burst
            taken, there_ns = self.link.push(burst, PACKET, now)
            back_ns = there_ns + self.link.delay_ns
            self.world.at(back_ns, partial(self._back, taken, burst - taken, now))

    def _back(self, acked: int, lost: int, sent_ns: int) -> None:
        now = self.world.now_ns
        self._in_flight -= acked + lost
        self.acked_bytes += acked * PACKET
        if lost and sent_ns >= self._deaf_until_ns:
            self._peak = self.window
            self.window = max(2.0, self.window * (0.7 if self.cubic else 0.5))
            self.threshold = self._reno = self.window
            self._deaf_until_ns = self._epoch_ns = now
        elif acked and self.window < self.threshold:
            self.window += acked
        elif acked:
            self._grow(acked, now, now - sent_ns)
        self._send()

    def _grow(self, acked: int, now_ns: int, rtt_ns: int) -> None:
        self._reno += (0.53 if self.cubic and self._reno < self._peak else 1) * acked / self.window
        self.window = max(self.window, self._reno)
        if self.cubic:
            time_s = (now_ns - self._epoch_ns + rtt_ns) / NS - (0.3 * self._peak / 0.4) ** (1 / 3)
            target = min(self._peak + 0.4 * time_s**3, 1.5 * self.window)
            self.window += max(0.0, target - self.window) * acked / self.window
