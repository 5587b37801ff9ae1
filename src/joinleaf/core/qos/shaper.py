"""A flow specification kept packet by packet: pieces no longer than what may leave at once.

``TokenBucket`` alone lets one long send leave as a whole once the bucket is full. Here whoever
sends asks for ``burst`` first, and cuts.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Final

from joinleaf.core.qos.token_bucket import TokenBucket, bucket_of
from joinleaf.spi import constants as c
from joinleaf.spi.qos import FlowSpec

__all__ = ["Shaper", "narrower", "shaper_of"]

_NS: Final = 1_000_000_000

TRAIN: Final = 1 << 16
"""What may leave at once at the peak rate: one call to the kernel. The M of RFC 2215's M + pT."""

LATE_NS: Final = 2_000_000
"""Or what passes in this time, if that is more: so much later than asked a process is woken."""

LEAST: Final = 1500
"""A shorter piece costs more than it is worth: a bucket below 3,000 bytes is exceeded by it."""

CONTROL: Final = 512
"""Of a bucket, kept for packets that ask nobody: signs of life and probes."""


class Shaper:
    """Holds what is sent to one flow specification. Implements ``reliability.seams.Pacer``.

    In any time ``t`` no more than ``bucket + rate * t`` bytes leave, and with a peak rate no more
    than ``min(bucket, max(64 KiB, 2 ms at the peak)) + peak * t``.

    Args:
        flow: What was agreed; it limits a rate.
        now_ns: Now.
        former: What kept the flow before: what that had spent is not given anew.

    Attributes:
        flow: What was agreed.
        burst: Bytes that a send may have at most. Half of what may leave at once, so that the next
            is not late because its turn was noticed late.

    Raises:
        ValueError: It limits no rate, or to 0.
    """

    __slots__ = ("_bucket", "burst", "flow")

    def __init__(self, flow: FlowSpec, now_ns: int, former: Shaper | None = None) -> None:
        depth = bucket_of(flow)
        if depth is None:
            raise ValueError("a flow without a rate is not shaped")
        at_once = depth
        if flow.peak is not None:
            at_once = min(depth, max(TRAIN, flow.peak * LATE_NS // _NS))
        bucket = TokenBucket.from_flowspec(_without_control(flow, depth), peak_burst=at_once)
        assert bucket is not None
        self._bucket: TokenBucket = bucket
        if former is not None:
            bucket.restart(former._bucket, now_ns)
        self.flow = flow
        self.burst = max(LEAST, at_once // 2)

    def max_burst(self) -> int:
        """Bytes that one send may have at most."""
        return self.burst

    def delay_ns(self, size: int, now_ns: int) -> int:
        """Nanoseconds until a send of ``size`` bytes conforms; 0: now. Changes nothing."""
        return self._bucket.delay_ns(size, now_ns)

    def consume(self, size: int, now_ns: int) -> None:
        """Account for a send of ``size`` bytes, whether it conformed or not."""
        self._bucket.consume(size, now_ns)


def shaper_of(flow: FlowSpec | None, now_ns: int, former: Shaper | None) -> Shaper | None:
    """The shaper of a flow; the former one if it keeps the same. None where no rate is limited.

    A rate of 0 limits nothing: a peer that asked for it would never hear why.
    """
    if flow is None or not (flow.rate or flow.peak):
        return None
    if former is not None and former.flow == flow:
        return former
    return Shaper(flow, now_ns, former)


def _without_control(flow: FlowSpec, depth: int) -> FlowSpec:
    kept = depth - CONTROL if depth >= 8 * CONTROL else depth
    values = {entry.name: getattr(flow, entry.name) for entry in fields(flow)}
    return FlowSpec(**{**values, "token_bucket_size": kept})


def narrower(first: FlowSpec | None, second: FlowSpec | None) -> FlowSpec | None:
    """What keeps both: the smaller of each number, the better service of the two.

    Returns:
        None if neither is stated, or neither limits a rate or marks packets.
    """
    flows = [flow for flow in (first, second) if flow is not None and flow.has_traffic]
    if not flows:
        return None
    numbers = {
        entry.name: min(getattr(flow, entry.name) for flow in flows)
        for entry in fields(FlowSpec)
        if entry.name not in ("service_type", "minimum_policed_size")
    }
    peak = numbers["peak_bandwidth"]
    if numbers["token_rate"] > peak and peak not in (c.QOS_NOT_SPECIFIED, 0):
        numbers["token_rate"] = peak
    policed = [flow.minimum_policed_size for flow in flows]
    known = [size for size in policed if size != c.QOS_NOT_SPECIFIED]
    best = max(flows, key=lambda flow: flow.dscp)
    return FlowSpec(
        **numbers,
        service_type=best.service_type,
        minimum_policed_size=max(known, default=c.QOS_NOT_SPECIFIED),
    )
