"""One unit on its way in: which symbols have come, and their payload."""

from __future__ import annotations

from bisect import bisect_right

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
        sealed: The whole payload, while the key for it has not come.
        payload: The whole payload, readable.
        by_leg: Something was wrong with what the group brought; only the leg is believed now.
        since_ns: When the first of it came, or when it was sealed and no key was there.
    """

    __slots__ = (
        "by_leg", "chunks", "count", "epoch", "mask", "payload",
        "sealed", "since_ns", "size", "symbol", "unit",
    )  # fmt: skip

    def __init__(self, unit: int, epoch: int, count: int, now_ns: int) -> None:
        self.unit = unit
        self.epoch = epoch
        self.count = count
        self.symbol = 0
        self.mask = 0
        self.size = 0
        self.chunks: dict[int, bytes] = {}  # index of the first symbol in it -> payloads
        self.sealed: bytes | None = None
        self.payload: bytes | None = None
        self.by_leg = False
        self.since_ns = now_ns

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

    def add(self, index: int, symbols: int, symbol: int, payload: bytes) -> int:
        """Add a run of symbols; how many of them are new.

        Args:
            index: Of the first.
            symbols: How many.
            symbol: Payload of each, in bytes, but the unit's last may be shorter.
            payload: All of it.
        """
        if index + 1 < self.count:
            self.symbol = symbol
        run = ((1 << symbols) - 1) << index
        if not self.mask & run:
            self.chunks[index] = payload
            self.mask |= run
            self.size += len(payload)
            return symbols
        fresh = 0
        for number in range(symbols):
            if not self.mask >> (index + number) & 1:
                part = payload[number * symbol : (number + 1) * symbol]
                fresh += self.add(index + number, 1, symbol, part)
        return fresh

    def joined(self) -> bytes | None:
        """The whole payload once every symbol is here."""
        if self.mask != (1 << self.count) - 1:
            return None
        chunks = self.chunks
        whole = b"".join([chunks[index] for index in sorted(chunks)])
        chunks.clear()
        return whole

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
        combined = [payload]
        starts = sorted(self.chunks)
        rest = parts & ~missing
        while rest:
            low = rest & -rest
            rest ^= low
            index = low.bit_length() - 1
            start = starts[bisect_right(starts, index) - 1]
            piece = memoryview(self.chunks[start])[(index - start) * size :]
            if index + 1 < self.count:
                piece = piece[:size]
            if len(piece) != size:
                return None
            combined.append(piece)
        return exclusive_or(combined, size)
