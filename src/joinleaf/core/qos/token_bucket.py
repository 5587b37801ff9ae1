"""Token bucket with an optional peak rate: when may how much be sent.

Levels are integers in billionths of a byte, so that ``rate * elapsed nanoseconds`` is exact: asking
once a second and asking every microsecond give the same answer.
"""

from __future__ import annotations

from typing import Final

from joinleaf.spi.qos import FlowSpec

__all__ = ["TokenBucket", "bucket_of"]

_NS: Final = 1_000_000_000

_DEFAULT_BURST_NS: Final = 20_000_000
"""Burst of a flow without a stated bucket: 20 ms at its rate, longer than a scheduler's tick."""

_SMALLEST_DEFAULT_BUCKET: Final = 65536  # one kernel send of the largest kind


class TokenBucket:
    """A shaper for one direction. Starts full at time 0 and waits for nothing itself.

    In any time ``t`` what conforms is at most ``max(bucket, longest send) + rate * t`` bytes,
    and at most ``max(peak_burst, last send) + peak * t``. A send longer than the bucket conforms
    once the bucket is full, and puts it into debt.

    Args:
        rate: Bytes per second, at least 1.
        bucket: Bytes that may be sent at once after a rest, 0 or more.
        peak: Highest rate, bytes per second, at least ``rate``; None: without limit.
        minimum: Shorter sends count as this many bytes (MinimumPolicedSize).
        peak_burst: Bytes that may be sent at once in spite of the peak, 0 or more.

    Raises:
        ValueError: An argument is out of range.

    Source:
        RFC 2215, section 3.6 (token bucket and peak of a TSpec).
    """

    __slots__ = (
        "_full", "_last_ns", "_level", "_minimum", "_peak", "_peak_full", "_peak_level", "_rate",
    )  # fmt: skip

    def __init__(
        self,
        rate: int,
        bucket: int,
        peak: int | None = None,
        *,
        minimum: int = 0,
        peak_burst: int = 0,
    ) -> None:
        if rate < 1 or bucket < 0 or minimum < 0 or peak_burst < 0:
            raise ValueError("rate must be at least 1 byte/s, the rest not negative")
        if peak is not None and peak < rate:
            raise ValueError(f"peak {peak} is below rate {rate}")
        self._rate = rate
        self._peak = peak
        self._minimum = minimum
        self._full = bucket * _NS
        self._level = self._full
        self._peak_full = self._peak_level = peak_burst * _NS
        self._last_ns = 0

    @classmethod
    def from_flowspec(cls, flow: FlowSpec, *, peak_burst: int = 0) -> TokenBucket | None:
        """The shaper of a flow specification; None where it limits no rate.

        Raises:
            ValueError: Its rate is 0, at which nothing can ever be sent.
        """
        rate = flow.peak if flow.rate is None else flow.rate
        if rate is None:
            return None
        unit = flow.minimum_policed_size
        return cls(
            rate,
            bucket_of(flow) or 0,
            flow.peak,
            minimum=0 if unit == 0xFFFFFFFF else unit,
            peak_burst=peak_burst,
        )

    @property
    def rate(self) -> int:
        """Bytes per second."""
        return self._rate

    def restart(self, other: TokenBucket, now_ns: int) -> None:
        """Take the place of another from now on: what it had spent is not given anew."""
        level, peak_level = other._levels(now_ns)
        self._level = min(self._full, level)
        self._peak_level = min(self._peak_full, peak_level)
        self._last_ns = now_ns

    def delay_ns(self, size: int, now_ns: int) -> int:
        """Nanoseconds until a send of ``size`` bytes conforms; 0: now. Changes nothing."""
        level, peak_level = self._levels(now_ns)
        missing = min(max(size, self._minimum) * _NS, self._full) - level
        delay = -(-missing // self._rate) if missing > 0 else 0
        if self._peak is not None:
            missing = min(max(size, self._minimum) * _NS, self._peak_full) - peak_level
            if missing > 0:
                delay = max(delay, -(-missing // self._peak))
        return delay

    def consume(self, size: int, now_ns: int) -> None:
        """Account for a send of ``size`` bytes, whether it conformed or not."""
        level, peak_level = self._levels(now_ns)
        cost = max(size, self._minimum) * _NS
        self._level = level - cost
        self._peak_level = peak_level - cost
        self._last_ns = max(self._last_ns, now_ns)

    def _levels(self, now_ns: int) -> tuple[int, int]:
        # A clock that goes back earns nothing, and nothing twice when it comes forward again.
        elapsed = max(0, now_ns - self._last_ns)
        level = min(self._full, self._level + self._rate * elapsed)
        peak = self._rate if self._peak is None else self._peak
        return level, min(self._peak_full, self._peak_level + peak * elapsed)


def bucket_of(flow: FlowSpec) -> int | None:
    """The bucket of a flow specification, bytes; where none is stated what is usual at its rate.

    None where it limits no rate.
    """
    rate = flow.peak if flow.rate is None else flow.rate
    if flow.bucket is not None or rate is None:
        return flow.bucket
    return max(rate * _DEFAULT_BURST_NS // _NS, _SMALLEST_DEFAULT_BUCKET)
