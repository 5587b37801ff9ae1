"""One unit on its way in: which symbols have come, and their payload."""

from __future__ import annotations

from collections.abc import Sequence

from joinleaf.core.wire.landing import Landing, Scattered
from joinleaf.core.wire.units import exclusive_or

__all__ = ["Partial", "full"]


def full(count: int) -> int:
    """The bitmap of all symbols of a unit."""
    return (1 << count) - 1


class Partial:
    """What has arrived of one unit.

    Attributes:
        unit: Its number.
        epoch: As its symbols say; one that says otherwise does not belong to it.
        count: The same, 1 to 64.
        symbol: Payload of all symbols but the last; 0 while only the last has come.
        mask: Bitmap of the symbols that are here.
        size: Bytes held.
        landings: Those that its symbols lie in, and those of no other unit.
        sealed: The whole payload, while the key for it has not come.
        payload: The whole payload, readable, or where it lies.
        by_leg: Something was wrong with what the group brought; only the leg is believed now.
        since_ns: When the first of it came, or when it was sealed and no key was there.
    """

    __slots__ = (
        "_parts", "by_leg", "count", "epoch", "landings", "mask", "payload",
        "sealed", "since_ns", "size", "symbol", "unit",
    )  # fmt: skip

    def __init__(self, unit: int, epoch: int, count: int, now_ns: int) -> None:
        self.unit = unit
        self.epoch = epoch
        self.count = count
        self.landings: list[Landing] = []
        self.sealed: bytes | None = None
        self.payload: bytes | Landing | Scattered | None = None
        self.by_leg = False
        self.since_ns = now_ns
        self.symbol = 0
        self.clear()

    def clear(self) -> None:
        """Drop what has come."""
        self.mask = 0
        self.size = 0
        self._parts: list[bytes | memoryview] = [b""] * self.count
        self.landings = []
        self.sealed = None

    @property
    def complete(self) -> bool:
        """Whether nothing of it need come any more."""
        return self.payload is not None or self.sealed is not None

    def fits(self, epoch: int, count: int, index: int, symbols: int, symbol: int) -> bool:
        """Whether symbols with these headers and this payload size can be part of it."""
        if epoch != self.epoch or count != self.count:
            return False
        if index + symbols == count and symbols == 1:  # the last alone: it may be shorter
            return not self.symbol or symbol <= self.symbol
        return not self.symbol or symbol == self.symbol

    def add(self, index: int, payloads: Sequence[bytes | memoryview]) -> int:
        """Add a run of symbols; how many of them are new.

        Args:
            index: Of the first.
            payloads: What each carries: all are of one length, but the unit's last may be shorter.
        """
        symbols, length = len(payloads), len(payloads[0])
        if index + 1 < self.count:
            self.symbol = length
        run = ((1 << symbols) - 1) << index
        if self.mask & run:
            return sum(
                self.add(number, (payload,))
                for number, payload in enumerate(payloads, index)
                if not self.mask >> number & 1
            )
        self._parts[index : index + symbols] = payloads
        self.mask |= run
        self.size += (symbols - 1) * length + len(payloads[-1])
        return symbols

    def take(self, landing: Landing) -> None:
        """All of it lies there, and nothing else does."""
        self.mask = (1 << self.count) - 1
        self.size = landing.payload_bytes
        self.payload = landing

    @property
    def whole(self) -> bool:
        """Whether every symbol is here."""
        return self.mask == (1 << self.count) - 1

    def scattered(self) -> Scattered:
        """The whole payload where it lies."""
        return Scattered(self._parts, self.landings, self.size)

    def joined(self) -> bytes:
        """The whole payload as one copy."""
        return b"".join(self._parts)

    def recovered(self, parts: int, missing: int, payload: memoryview) -> bytes | None:
        """What a parity symbol has of the one part that is missing here.

        Args:
            parts: Bitmap of what it combines.
            missing: The bit of that one; all others are here.
            payload: Its payload.

        Returns:
            The payload of the part; None if the others are not as long as this.
        """
        size = len(payload)
        if size != (self.symbol or size):
            return None
        combined: list[bytes | memoryview] = [payload]
        rest = parts & ~missing
        while rest:
            low = rest & -rest
            rest ^= low
            piece = self._parts[low.bit_length() - 1]
            if len(piece) != size:
                return None
            combined.append(piece)
        return exclusive_or(combined, size)
