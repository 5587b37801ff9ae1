"""How much a stream may have under way where no rate was agreed: the window.

The window grows and shrinks as that of a Linux TCP (CUBIC), so that one beside it on a link keeps
its share by construction. Three things differ, because one stream serves many leaves:

* Losses that are usual on the way to a leaf (``path.py``) are none of congestion. Where there are
  such, the queue tells it: the window grows while packets do not wait, and shrinks when they do.
* The leaf that loses most beyond its usual share speaks for all (PGMCC's "acker"). Were everybody's
  losses added up, a thousand leaves with one loss in a thousand each would stop the stream.
* A leaf that goes on losing far more than the others has no say (``outliers``): it is for the slow
  policy, or its leg, to serve it.

Where whole trains get lost (``symbols_lost_at_once``), trains are the packets: no link loses them
so, but a host that carries them uncut, where round trips are the time that processes take to get
round to it. So a train is what is added in a round, and losses are counted in trains, as long as
there is no queue.

What is *not* here: how fast a window leaves (``StreamPacer`` spreads it over the round trip), what
the leaves can take, and what was agreed (``core.qos``).
"""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Hashable
from typing import Final

from joinleaf.core.reliability.path import LeafPath

__all__ = ["CongestionWindow"]

_NS: Final = 1_000_000_000

BETA: Final = 0.7
"""Left of the window after a loss that comes with a queue (RFC 9438, 4.6)."""

MILD_BETA: Final = 0.85
"""Left after a loss without one, while it is not known whether losses are usual, or if more than
the usual were: it may be an error of the link (Veno: 0.8).

But never less than what the way was seen to carry with so short a queue (Westwood: bandwidth times
least round trip): errors of a link would add up.
"""

PROBING_SHARE: Final = 0.1
"""While the window has not met its first queue, fewer losses than this do not hold it up."""

HARD_BETA: Final = 0.5
"""Left after a round that lost more than ``HARD_SHARE``; what TCP did for thirty years."""

HARD_SHARE: Final = 0.2
"""Losses beyond this are taken for congestion, usual or not: no stream is worth such a network."""

HARD_SYMBOLS: Final = 64
"""The share of fewer symbols says little."""

CUBIC: Final = 0.4
"""Growth constant, segments per cubic second (RFC 9438, 5.1)."""

OUTLIER_SHARE: Final = 0.1
OUTLIER_TIMES: Final = 4
"""A leaf that usually loses this much, and so many times as much as half of the others, is bad."""

SEVERAL: Final = 3
"""Leaves that lose something each before it is usual for the stream: fewer are repaired one by
one."""

QUEUE_NS: Final = 2_000_000
"""A shorter wait is no sign of a queue: hosts take that long to get round to a packet."""

LOSSY_QUEUE_NS: Final = 6_000_000
"""The same where losses are usual, and the queue is all there is to go by: hosts that are busy with
the repairs take some milliseconds to get round to a packet, and a smaller window helps nobody
then. At 1 Gbit/s it is what a switch holds, and less than a TCP would fill."""

BURST_SYMBOLS: Final = 16
"""The wait behind so many symbols, two short trains, is of the stream's own making."""

REPAIRED_SHARE: Final = 5 / 8
"""Of the ceiling, where losses are usual: what is under way is a queue in front of the repairs, and
while they come the stream needs the rest of what the sender keeps."""

GRAINS: Final = 2
"""Where trains are lost, a block has this part of the packets of others: trains are large."""

GROWTH: Final = 8
"""Where losses are usual, an eighth of the window is added in a round without a queue.

After slow start too, until the first loss: the queue that ended it may be but a host that has much
to do, and from a window that was never too large CUBIC grows by some segments in seconds. HyStart++
has a quarter, in some rounds (RFC 9406, section 4.2).
"""


class CongestionWindow:
    """See the module; one for all leaves of a stream. Implements ``seams.Congestion``.

    Args:
        ceiling: Never more than this many bytes: what the sender keeps for repair.
        symbol_bytes: Size of a symbol: what TCP calls a segment.
        unit_bytes: What a full unit counts for, headers included: the least window.

    Attributes:
        slow_start: Whether the window still doubles with every round trip.
        symbols_lost_at_once: What counts for one packet, 1 or more; set it freely.
        rate_bytes_per_s: How fast a window may leave, with some haste; 0: no round trip is known.
        carried_bytes_per_s: At what rate the stream arrived in the best round of late; 0: not
            known yet.
        usual_loss: Share of symbols, 0 to 1, that at least ``SEVERAL`` leaves lose each, whatever
            is sent.

    Source:
        RFC 9438 (CUBIC), TCP Veno (Fu and Liew, 2003), PGMCC (Rizzo, 2000; RFC 4654 for the
        choice of the slowest receiver).
    """

    __slots__ = (
        "_alpha",
        "_ceiling",
        "_deaf_until_ns",
        "_epoch_ns",
        "_estimate",
        "_floor",
        "_limited",
        "_origin",
        "_outliers",
        "_paths",
        "_peak",
        "_probing",
        "_symbol",
        "_undo",
        "_undo_slow_start",
        "_window",
        "_worst",
        "carried_bytes_per_s",
        "rate_bytes_per_s",
        "slow_start",
        "symbols_lost_at_once",
        "usual_loss",
    )

    def __init__(self, *, ceiling: int, symbol_bytes: int, unit_bytes: int) -> None:
        if not 0 < symbol_bytes <= unit_bytes:
            raise ValueError("symbol_bytes must be above 0 and not above unit_bytes")
        self._symbol = symbol_bytes
        self._floor = float(unit_bytes)
        self._ceiling = max(self._floor, float(ceiling))
        self._window = min(4 * self._floor, self._ceiling)
        self.slow_start = True
        self.symbols_lost_at_once = 1
        self._probing = False  # slow start has met a queue, but nothing has been lost yet
        self._paths: dict[Hashable, LeafPath] = {}
        self._outliers: dict[Hashable, None] = {}
        self._worst: Hashable = None
        self._limited = False
        self._deaf_until_ns = 0
        self._undo = 0.0  # the window before losses that may turn out to be usual,
        self._undo_slow_start = False  # and whether it still doubled then
        self._alpha = 1.0
        self._peak = self._window  # before the last reduction
        self._estimate = self._window  # what a Reno with the same losses would have
        self._epoch_ns: int | None = None
        self._origin = self._window  # when the epoch began
        self.rate_bytes_per_s = self.carried_bytes_per_s = self.usual_loss = 0.0

    @property
    def window_bytes(self) -> int:
        """Bytes, headers included, that may be on the way: sent, and not known of by every leaf."""
        return int(self._window)

    @property
    def outliers(self) -> tuple[Hashable, ...]:
        """Leaves that lose so much more than the others that they have no say."""
        return tuple(self._outliers)

    @property
    def _speaker(self) -> LeafPath | None:
        """The way to the leaf that loses most, or to any that is not bad."""
        if (worst := self._paths.get(self._worst)) is not None:
            return worst
        good = (path for leaf, path in self._paths.items() if leaf not in self._outliers)
        return next(good, None) or next(iter(self._paths.values()), None)

    def _reckon_rates(self) -> None:
        """Once for each report, and not for each train that asks for them."""
        path = self._speaker
        self.rate_bytes_per_s = self.carried_bytes_per_s = 0.0
        if path is None:
            return
        self.carried_bytes_per_s = path.symbols_per_s * self._symbol
        if path.smoothed_ns:
            haste = 2.0 if self.slow_start else 1.25
            self.rate_bytes_per_s = haste * self._window * _NS / path.smoothed_ns

    def on_sent(self, size: int, now_ns: int) -> None:
        """``size`` bytes have left."""

    def on_limited(self) -> None:
        """The window, and nothing else, has kept something from being sent.

        Only then it grows: what a slow application did not use has not been tried (RFC 7661).
        """
        self._limited = True

    def forget(self, leaf: Hashable) -> None:
        """A leaf is gone."""
        self._paths.pop(leaf, None)
        self._outliers.pop(leaf, None)
        if leaf == self._worst:
            self._worst = None
        self._reckon_rates()
        self._reckon_usual()

    def on_report(
        self,
        acked_bytes: int,
        lost_symbols: int,
        sent_symbols: int,
        rtt_ns: int | None,
        now_ns: int,
        leaf: Hashable = 0,
    ) -> None:
        """One leaf has reported; see ``seams.Congestion``."""
        path = self._paths.get(leaf)
        if path is None:
            path = self._paths[leaf] = LeafPath(now_ns)
        if rtt_ns is not None and rtt_ns > 0:
            path.round_trip(rtt_ns, now_ns)
        path.grain = max(1, self.symbols_lost_at_once // GRAINS)
        complete = path.losses(lost_symbols, sent_symbols, now_ns)
        if lost_symbols and leaf not in self._outliers:
            self._lost(leaf, path, now_ns)
        if complete:
            was_usual = path.usual
            path.close_block(now_ns)
            self._judge(leaf, path, was_usual)
            if path.usual != was_usual:
                self._reckon_usual()
        if acked_bytes:
            self._grow(acked_bytes, now_ns)
        self._reckon_rates()

    # Losses

    def _reckon_usual(self) -> None:
        usual = [path.usual for leaf, path in self._paths.items() if leaf not in self._outliers]
        most = heapq.nlargest(SEVERAL, usual)
        self.usual_loss = most[-1] if len(most) == SEVERAL else 0.0

    def _lost(self, leaf: Hashable, path: LeafPath, now_ns: int) -> None:
        hard = _is_telling(path) and path.share > HARD_SHARE
        if not (hard or (path.exceeds and self._speaks_for_all(leaf, path))):
            return
        self._worst = leaf
        if now_ns < self._deaf_until_ns:
            return  # sent before the window shrank
        if hard:
            self._reduce(HARD_BETA, path, now_ns)
        elif path.queue_ns > self._bearable_ns(path) or (path.known and not path.usual):
            self._reduce(BETA, path, now_ns)
        elif (self.slow_start or self._probing) and path.share < PROBING_SHARE:
            self.slow_start, self._probing = False, True
        else:
            self._reduce(MILD_BETA, path, now_ns, least=self._carried(path))

    def _carried(self, path: LeafPath) -> float:
        """The window at which the way to a leaf, as fast as it was seen, has a bearable queue."""
        time_ns = path.base_ns + max(QUEUE_NS, path.base_ns // 16)
        return min(self._window, path.symbols_per_s * self._symbol * time_ns / _NS)

    def _speaks_for_all(self, leaf: Hashable, path: LeafPath) -> bool:
        worst = self._paths.get(self._worst)
        if worst is None or leaf == self._worst or not worst.level:
            return True
        sudden = _is_telling(path) and path.share > 4 * worst.level + path.usual
        return sudden or path.level > 1.5 * worst.level

    def _reduce(self, beta: float, path: LeafPath, now_ns: int, least: float = 0.0) -> None:
        self._undo = max(self._undo, self._window)
        self._undo_slow_start |= self.slow_start
        # Fast convergence: who was reduced below its last peak leaves room for newcomers.
        shrinking = self._window < self._peak
        self._peak = self._window * ((1 + beta) / 2 if shrinking else 1)
        self._window = max(self._floor, self._window * beta, least)
        self._alpha = 3 * (1 - beta) / (1 + beta)
        self._estimate = self._window
        self._epoch_ns = None
        self.slow_start = self._probing = False
        self._deaf_until_ns = now_ns + path.smoothed_ns

    def _judge(self, leaf: Hashable, path: LeafPath, was_usual: float) -> None:
        """A block of this leaf's is complete: is it bad, are its losses usual, or is all well?"""
        bad, was_bad = self._is_outlier(leaf, path), leaf in self._outliers
        if bad and not was_bad:
            self._outliers[leaf] = None
        elif was_bad and not bad:
            del self._outliers[leaf]
        if leaf != self._worst:
            return
        if bad:
            self._worst = None
        told = bad or 0 < path.usual <= HARD_SHARE
        if told and not (was_bad or was_usual):
            self._take_back()
        if told or path.level < 1 / 4096:
            self._undo, self._undo_slow_start = 0.0, False

    def _take_back(self) -> None:
        """The window was reduced for losses that turned out to be none of its making."""
        self._window = max(self._window, self._undo)
        self._peak = self._window
        self._epoch_ns = None
        self.slow_start = self._undo_slow_start

    def _is_outlier(self, leaf: Hashable, path: LeafPath) -> bool:
        if path.usual < OUTLIER_SHARE or len(self._paths) < 2:
            return False
        others = [other.usual for key, other in self._paths.items() if key != leaf]
        return path.usual > OUTLIER_TIMES * statistics.median(others)

    # Growth

    def _bearable_ns(self, path: LeafPath) -> int:
        """A wait in queues that is no sign of congestion."""
        burst_ns = int(BURST_SYMBOLS * self._symbol * path.smoothed_ns / self._window)
        return max(QUEUE_NS, path.base_ns // 16, min(burst_ns, path.smoothed_ns))

    def _grow(self, acked: int, now_ns: int) -> None:
        if not self._limited:
            self._epoch_ns = None
            return
        self._limited = False
        path = self._speaker
        assert path is not None
        if self.slow_start:
            self._window += acked
            if path.queue_ns > self._bearable_ns(path):
                self.slow_start, self._probing = False, True
                self._peak = self._window
        elif self._probing:
            self._window += acked / GROWTH
        elif path.usual:
            self._follow_queue(acked, path, now_ns)
        elif now_ns >= self._deaf_until_ns:
            self._cubic(acked, path, now_ns)
        ceiling = self._ceiling * REPAIRED_SHARE if path.usual else self._ceiling
        self._window = min(max(self._window, self._floor), max(ceiling, self._floor))

    def _follow_queue(self, acked: int, path: LeafPath, now_ns: int) -> None:
        """Losses are usual, so that they tell nothing: go by the queue."""
        bearable_ns = max(LOSSY_QUEUE_NS, self._bearable_ns(path))
        if path.queue_ns <= bearable_ns:
            self._window += acked / GROWTH
        elif path.queue_ns > 2 * bearable_ns and now_ns >= self._deaf_until_ns:
            self._window *= MILD_BETA
            self._deaf_until_ns = now_ns + path.smoothed_ns

    def _cubic(self, acked: int, path: LeafPath, now_ns: int) -> None:
        """RFC 9438, sections 4.2 to 4.5."""
        if self._epoch_ns is None:
            self._epoch_ns = now_ns
            self._estimate = self._origin = self._window
            self._peak = max(self._peak, self._window)
        symbol = self._symbol
        if path.queue_ns <= self._bearable_ns(path):  # the queue of a link drops packets
            symbol *= self.symbols_lost_at_once
        recovery_s = (max(0.0, self._peak - self._origin) / symbol / CUBIC) ** (1 / 3)
        elapsed_s = (now_ns - self._epoch_ns + path.smoothed_ns) / _NS
        target = self._peak + CUBIC * (elapsed_s - recovery_s) ** 3 * symbol
        alpha = self._alpha if self._estimate < self._peak else 1.0
        self._estimate += alpha * symbol * acked / self._window
        if target > self._window:
            self._window += (min(target, 1.5 * self._window) - self._window) * acked / self._window
        self._window = max(self._window, self._estimate)


def _is_telling(path: LeafPath) -> bool:
    """Whether the share of what was lost is of enough to say something."""
    return path.told >= HARD_SYMBOLS * path.grain
