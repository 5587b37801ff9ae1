"""When a train may leave: a window's worth spread over the round trip, and an agreed rate.

A window that leaves at once is a burst that no queue on the way has room for; the losses look like
congestion, and are.
"""

from __future__ import annotations

from typing import Final

from joinleaf.core.reliability.congestion import CongestionWindow

__all__ = ["StreamPacer"]

_NS: Final = 1_000_000_000

BURST_NS: Final = 2_000_000
"""What may leave at once, at the pace. Clocks wake a process a millisecond or two late; what was
not sent meanwhile is made up for."""

LEAST_BURST: Final = 8 * 1500
"""And at least this much: what a TCP that has just begun sends at once (RFC 6928: 10 segments)."""

LONGEST_TRAIN: Final = 1 << 16
"""One send call takes no more."""


class StreamPacer:
    """Spreads what a ``CongestionWindow`` permits over the round trip. Implements ``Pacer``.

    Args:
        window: Tells how fast; while it knows no round trip nothing is held back.
    """

    __slots__ = ("_due_ns", "_window")

    def __init__(self, window: CongestionWindow) -> None:
        self._window = window
        self._due_ns = 0.0  # when all that was sent will have left at the pace

    def max_burst(self, now_ns: int) -> int:
        """Bytes that one train may have: less than a unit where the way is slow."""
        rate = self._window.rate_bytes_per_s
        return min(LONGEST_TRAIN, self._burst(rate)) if rate else LONGEST_TRAIN

    def delay_ns(self, size: int, now_ns: int) -> int:
        """Nanoseconds until a send conforms; 0: now. Changes nothing."""
        rate = self._window.rate_bytes_per_s
        if not rate:
            return 0
        # Like a bucket: a train of any size leaves as soon as the one before has been paid for,
        # up to what may leave at once.
        spare = max(0, self._burst(rate) - size)
        return max(0, int(self._due_ns - spare * _NS / rate) - now_ns)

    def consume(self, size: int, now_ns: int) -> None:
        """Account for a send of ``size`` bytes, whether it conformed or not."""
        rate = self._window.rate_bytes_per_s
        if rate:
            self._due_ns = max(self._due_ns, now_ns) + size * _NS / rate

    def _burst(self, rate: float) -> int:
        return max(LEAST_BURST, int(rate * BURST_NS / _NS))
