"""What the reliable stream asks of its neighbours: keys, congestion control, shaping.

Everything here is called with the stream's own lock held or from its one thread, and must not
wait. Sizes are bytes, times integers of nanoseconds of one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

from joinleaf.spi.provider import Buffer

__all__ = ["Congestion", "Opener", "Pacer", "Sealer", "SpoiledError"]


class SpoiledError(Exception):
    """A sealed body does not authenticate: something in it was not sent by the root."""


class Sealer(Protocol):
    """Seals what the root sends. Consulted once per unit, never twice for the same unit.

    Attributes:
        epoch: The current epoch modulo 256, 1 to 255 (0 is cleartext); what the next ``seal``
            uses. It may change between two calls.
        overhead: By how many bytes a sealed body is longer than its plaintext.
    """

    @property
    def epoch(self) -> int:
        """The current epoch modulo 256."""
        ...

    @property
    def overhead(self) -> int:
        """Bytes that sealing adds."""
        ...

    def seal(self, unit: int, count: int, payload: Buffer) -> bytes:
        """The sealed payload of a unit that will be cut into ``count`` symbols (1 to 64)."""
        ...

    def seal_control(self, kind: int, serial: int, unit: int, body: Buffer) -> bytes:
        """The sealed body of a SYNC or PROBE; many of them may name one ``unit``.

        ``serial``, 0 to 255, is part of the header too, and authenticated along.

        So the nonce cannot be made of the unit: the implementation numbers them apart from units
        and sends that number along.
        """
        ...


class Opener(Protocol):
    """Opens what a leaf receives. Replays are the receiver's care: it takes a unit once."""

    def open(self, epoch: int, unit: int, count: int, payload: Buffer) -> bytes | None:
        """The plaintext; None: the key of ``epoch`` has not come yet (try again after KEY).

        Raises:
            SpoiledError: It does not authenticate.
        """
        ...

    def open_control(
        self, kind: int, epoch: int, serial: int, unit: int, body: Buffer
    ) -> bytes | None:
        """The same for the body of a SYNC or PROBE; a number seen before is spoiled too.

        Raises:
            SpoiledError: It does not authenticate, or has been seen.
        """
        ...


class Congestion(Protocol):
    """How much may be under way, from losses and round trips. One for all leaves of a stream.

    Attributes:
        symbols_lost_at_once: What counts for one packet where packets get lost: 1, or those of a
            unit if whole trains do. The sender sets it.
    """

    symbols_lost_at_once: int

    @property
    def window_bytes(self) -> int:
        """Bytes, headers included, that may be on the way: sent, and not known of by every leaf."""
        ...

    @property
    def usual_loss(self) -> float:
        """Share of symbols, 0 to 1, that at least a few leaves lose each, whatever is sent."""
        ...

    def on_sent(self, size: int, now_ns: int) -> None:
        """``size`` bytes have left for the first time or again; called once per train."""
        ...

    def on_limited(self) -> None:
        """This window, and nothing else, has kept something from being sent: else it never grows.

        Cheap, and to be called each time a send finds no room in it.
        """
        ...

    def on_report(
        self,
        acked_bytes: int,
        lost_symbols: int,
        sent_symbols: int,
        rtt_ns: int | None,
        now_ns: int,
        leaf: Hashable = 0,
    ) -> None:
        """One leaf has reported.

        Args:
            acked_bytes: By how much this report moved what *every* leaf knows of, repaired or
                not (``flight.py``); 0 while somebody else is behind.
            lost_symbols: Symbols this report newly counts as missing at its leaf.
            sent_symbols: Symbols that left since this leaf's report before: what
                ``lost_symbols`` is a share of.
            rtt_ns: A round trip to this leaf without the time the leaf held its report; None if
                this report tells none.
            now_ns: Now.
            leaf: Which one; losses and round trips are kept for each.
        """
        ...

    def forget(self, leaf: Hashable) -> None:
        """This leaf is not served by the stream any more."""
        ...


class Pacer(Protocol):
    """Holds sends to a rate; ``core.qos.shaper.Shaper`` is one."""

    def max_burst(self) -> int:
        """Bytes that a train may have at most now; at least one symbol goes anyway."""
        ...

    def delay_ns(self, size: int, now_ns: int) -> int:
        """Nanoseconds until a send of ``size`` bytes conforms; 0: now. Changes nothing."""
        ...

    def consume(self, size: int, now_ns: int) -> None:
        """Account for a send of ``size`` bytes."""
        ...
