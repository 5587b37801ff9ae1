"""What reports tell of the way to one leaf: its round trip, its queue, its losses.

Losses are counted in *blocks* of many symbols and at least two round trips. A queue that overflows
loses something now and then: most blocks are clean. A radio link, a bad cable or an overrun card
loses in every block, however little is sent. So what the lower blocks have in common is *usual* for
this way, and only what exceeds it can be a sign of congestion.
"""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["LeafPath"]

_NS: Final = 1_000_000_000

BLOCK_SYMBOLS: Final = 512
"""At 1 per cent, 4 per cent of the blocks are clean by chance; with half as many it were 28."""

BLOCKS_KEPT: Final = 16
BLOCKS_TO_TELL: Final = 4
"""With fewer nothing is called usual: one overflow in slow start spans one or two blocks."""

CLEAN_SHARE: Final = 0.3
"""Where this share of the blocks was clean, losses are not usual."""

CLEAN_LOSS: Final = 0.003
"""A block that lost less counts as clean: streams that share a full queue lose up to so much."""

SLACK_SYMBOLS: Final = 4
"""Losses by which a block may exceed twice the usual: what chance does in a short one."""

BEST_WINDOW_NS: Final = 1_000_000_000
"""The rate of delivery is that of the best round of the last one or two windows: in most rounds
somebody had nothing to send, or no time to."""

LEAST_ROUND_NS: Final = 2_000_000
"""A rate over a shorter time is that of one train rather than of the way."""

BASE_WINDOW_NS: Final = 5_000_000_000
"""The least round trip is that of the last one or two windows, so that a new route is noticed."""

_SMOOTHING: Final = 8  # RFC 6298's weight for round trips; for shares of lost symbols too


class LeafPath:
    """The way to one leaf, as its reports show it.

    Attributes:
        smoothed_ns: Smoothed round trip; 0 while none is known.
        level: Smoothed share of symbols lost beyond what is usual here, 0 to 1.
        usual: Share of symbols that get lost here whatever is sent, 0 to 1.
        grain: In how many symbols losses are counted, 1 or more; set it freely.
    """

    __slots__ = (
        "_base_ns",
        "_best",
        "_best_rotate_ns",
        "_block_began_ns",
        "_block_lost",
        "_block_sent",
        "_blocks",
        "_delivered",
        "_former_base_ns",
        "_former_best",
        "_former_lost",
        "_former_sent",
        "_queue_now_ns",
        "_queue_ns",
        "_rate_began_ns",
        "_rotate_ns",
        "_round_began_ns",
        "grain",
        "level",
        "smoothed_ns",
        "usual",
    )

    def __init__(self, now_ns: int) -> None:
        self.smoothed_ns = 0
        self.level = 0.0
        self.usual = 0.0
        self.grain = 1
        self._block_lost = self._block_sent = 0
        self._former_lost = self._former_sent = 0
        self._blocks: deque[float] = deque(maxlen=BLOCKS_KEPT)
        self._block_began_ns = now_ns
        self._base_ns = self._former_base_ns = 0
        self._rotate_ns = now_ns + BASE_WINDOW_NS
        self._delivered = 0  # symbols, in this round
        self._best = self._former_best = 0.0  # symbols per second
        self._best_rotate_ns = now_ns + BEST_WINDOW_NS
        self._rate_began_ns = now_ns
        self._queue_ns = 0
        self._queue_now_ns: int | None = None
        self._round_began_ns = now_ns

    @property
    def base_ns(self) -> int:
        """The least round trip lately: what it takes without a queue; 0 while none is known."""
        return min(self._base_ns, self._former_base_ns or self._base_ns)

    @property
    def queue_ns(self) -> int:
        """How long packets wait in queues: the least of the last round, and of this one.

        The least, because a process that did not get the processor in time looks like a queue too,
        but not in every report.
        """
        if self._queue_now_ns is None:
            return self._queue_ns
        return min(self._queue_ns, self._queue_now_ns)

    @property
    def symbols_per_s(self) -> float:
        """At what rate symbols arrived in the best round of late; 0: not known yet."""
        return max(self._best, self._former_best)

    @property
    def share(self) -> float:
        """Share of symbols lost in the block under way and the one before.

        Both, because a report counts as sent what has just left, and as lost what left earlier.
        """
        sent = self._block_sent + self._former_sent
        return (self._block_lost + self._former_lost) / sent if sent else 0.0

    @property
    def told(self) -> int:
        """Symbols that ``share`` is a share of."""
        return self._block_sent + self._former_sent

    @property
    def known(self) -> bool:
        """Whether enough has been sent to tell whether losses are usual here."""
        return len(self._blocks) >= BLOCKS_TO_TELL

    @property
    def exceeds(self) -> bool:
        """Whether more than usual is being lost here."""
        if not self.usual:
            return self._block_lost > 0
        return (self.share - 2 * self.usual) * self.told > SLACK_SYMBOLS * self.grain

    def round_trip(self, rtt_ns: int, now_ns: int) -> None:
        """Take in one round trip."""
        if now_ns >= self._rotate_ns:
            self._former_base_ns, self._base_ns = self._base_ns, 0
            self._rotate_ns = now_ns + BASE_WINDOW_NS
        self._base_ns = min(self._base_ns or rtt_ns, rtt_ns)
        if not self.smoothed_ns:
            self.smoothed_ns = rtt_ns
        else:
            self.smoothed_ns += (rtt_ns - self.smoothed_ns) // _SMOOTHING
        if now_ns - self._round_began_ns > self.smoothed_ns:
            self._begin_round(now_ns)
        queue_ns = rtt_ns - self.base_ns
        self._queue_now_ns = (
            queue_ns if self._queue_now_ns is None else min(self._queue_now_ns, queue_ns)
        )

    def _begin_round(self, now_ns: int) -> None:
        self._queue_ns = self._queue_now_ns or 0
        self._queue_now_ns, self._round_began_ns = None, now_ns
        elapsed_ns = now_ns - self._rate_began_ns
        if elapsed_ns < LEAST_ROUND_NS:
            return
        if now_ns >= self._best_rotate_ns:
            self._former_best, self._best = self._best, 0.0
            self._best_rotate_ns = now_ns + BEST_WINDOW_NS
        self._best = max(self._best, self._delivered * _NS / elapsed_ns)
        self._delivered, self._rate_began_ns = 0, now_ns

    def losses(self, lost: int, sent: int, now_ns: int) -> bool:
        """Take in what a report counts; True if a block is complete with it."""
        sent = max(sent, lost)
        self._block_lost += lost
        self._block_sent += sent
        self._delivered += sent - lost
        long = now_ns - self._block_began_ns >= 2 * self.smoothed_ns
        return long and self._block_sent >= BLOCK_SYMBOLS * self.grain

    def close_block(self, now_ns: int) -> None:
        """Learn from the block that is complete, and begin another."""
        share = self._block_lost / self._block_sent
        self._blocks.append(share)
        self.level += (max(0.0, share - self.usual) - self.level) / _SMOOTHING
        self.usual = self._usual_share()
        self._former_lost, self._former_sent = self._block_lost, self._block_sent
        self._block_lost = self._block_sent = 0
        self._block_began_ns = now_ns

    def _usual_share(self) -> float:
        if not self.known:
            return 0.0
        ordered = sorted(self._blocks)
        if ordered[int(CLEAN_SHARE * len(ordered))] < CLEAN_LOSS:
            return 0.0
        return ordered[len(ordered) // 2]
