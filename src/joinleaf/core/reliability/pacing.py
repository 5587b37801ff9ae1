"""When a train may leave: a window's worth spread over the round trip, and an agreed rate.

A window that leaves at once is a burst that no queue on the way has room for; the losses look like
congestion, and are.
"""

from __future__ import annotations

from typing import Final

from joinleaf.core.qos.shaper import Shaper
from joinleaf.core.reliability.congestion import CongestionWindow

__all__ = ["StreamPacer"]

_NS: Final = 1_000_000_000

BURST_NS: Final = 2_000_000
"""What may leave at once, at the pace. Clocks wake a process a millisecond or two late; what was
not sent meanwhile is made up for."""

TRAIN_NS: Final = 1_000_000
"""A train is no longer than what leaves in this time: others on the way wait behind it (Linux cuts
TCP's trains so, tcp_tso_autosize)."""

LEAST_BURST: Final = 8 * 1500
"""And at least this much: what a TCP that has just begun sends at once (RFC 6928: 10 segments)."""

LONGEST_TRAIN: Final = 1 << 16
"""One send call takes no more."""


class StreamPacer:
    """Spreads what a ``CongestionWindow`` permits over the round trip. Implements ``Pacer``.

    Args:
        window: Tells how fast; while it knows no round trip nothing is held back.

    Attributes:
        shaper: Keeps the agreed flow specification besides; None: none limits a rate. It may be
            exchanged at any time.
    """

    __slots__ = ("_due_ns", "_window", "shaper")

    def __init__(self, window: CongestionWindow) -> None:
        self._window = window
        self._due_ns = 0.0  # when all that was sent will have left at the pace
        self.shaper: Shaper | None = None

    def max_burst(self) -> int:
        """Bytes that one train may have: less than a unit where the way is slow."""
        rate = self._window.rate_bytes_per_s
        most = LONGEST_TRAIN if self.shaper is None else min(LONGEST_TRAIN, self.shaper.burst)
        if not rate:
            return most
        rate = min(rate, 1.25 * (self._window.carried_bytes_per_s or rate))
        return min(most, max(LEAST_BURST, int(rate * TRAIN_NS / _NS)))

    def delay_ns(self, size: int, now_ns: int) -> int:
        """Nanoseconds until a send conforms; 0: now. Changes nothing."""
        agreed = self.shaper.delay_ns(size, now_ns) if self.shaper is not None else 0
        rate = self._window.rate_bytes_per_s
        if not rate:
            return agreed
        # Like a bucket: a train of any size leaves as soon as the one before has been paid for,
        # up to what may leave at once.
        spare = max(0, self._burst(rate) - size)
        return max(agreed, int(self._due_ns - spare * _NS / rate) - now_ns, 0)

    def consume(self, size: int, now_ns: int) -> None:
        """Account for a send of ``size`` bytes, whether it conformed or not."""
        if self.shaper is not None:
            self.shaper.consume(size, now_ns)
        rate = self._window.rate_bytes_per_s
        if rate:
            self._due_ns = max(self._due_ns, now_ns) + size * _NS / rate

    def _burst(self, rate: float) -> int:
        return max(LEAST_BURST, int(rate * BURST_NS / _NS))
