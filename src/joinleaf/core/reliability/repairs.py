"""Who misses what, and what is sent again.

Losses are kept per symbol: one integer whose bits are the leaves that miss it. So a symbol lost by
a thousand leaves costs the root one repair, and a report costs what it tells of. A report says
everything its leaf lacks: what the leaf asked for before and does not ask for now has arrived.

Every symbol that was sent again is left alone for the hold-off, about a round trip: reports that
come meanwhile were written before the repair could arrive. They are forgotten, not remembered; a
leaf that still misses it says so again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

__all__ = ["Losses"]

MAX_WANTED: Final = 16_384
"""Symbols wanted at a time: a window of 16 MB in segments of 1 KB. More are not taken up before
some of these are sent; whoever lacks them will say so again."""


class Losses:
    """The ledger of one stream.

    Attributes:
        wanted: Unit -> index -> bitmap of the leaves that miss that symbol.
        size: Symbols wanted.
    """

    __slots__ = ("_asked", "_sent_again_ns", "size", "wanted")

    def __init__(self) -> None:
        self.wanted: dict[int, dict[int, int]] = {}
        self.size = 0
        self._asked: dict[int, list[int]] = {}  # leaf's bit -> units it asked for
        self._sent_again_ns: dict[int, dict[int, int]] = {}

    def forget_leaf(self, bit: int) -> None:
        """What the leaf asked for has arrived, or it is gone."""
        for unit in self._asked.pop(bit, ()):
            symbols = self.wanted.get(unit)
            if symbols is None:
                continue
            for index in [index for index, losers in symbols.items() if losers & bit]:
                self._clear(unit, symbols, index, symbols[index] & ~bit)

    def _clear(self, unit: int, symbols: dict[int, int], index: int, left: int) -> None:
        if left:
            symbols[index] = left
            return
        del symbols[index]
        self.size -= 1
        if not symbols:
            del self.wanted[unit]

    def add(self, bit: int, unit: int, bitmap: int, now_ns: int, hold_off_ns: int) -> int:
        """A leaf misses symbols of a unit; the bitmap of those that will be sent again."""
        if self.size >= MAX_WANTED:
            return 0
        recent = self._sent_again_ns.get(unit)
        symbols = self.wanted.setdefault(unit, {})
        taken, rest = 0, bitmap
        while rest:
            low = rest & -rest
            rest ^= low
            index = low.bit_length() - 1
            if recent is not None and now_ns - recent.get(index, -hold_off_ns) < hold_off_ns:
                continue
            taken |= low
            if index not in symbols:
                self.size += 1
                symbols[index] = bit
            else:
                symbols[index] |= bit
        if not symbols:
            del self.wanted[unit]
        elif taken:
            self._asked.setdefault(bit, []).append(unit)
        return taken

    def take(self, unit: int, index: int, now_ns: int) -> int:
        """This symbol is being sent again: who missed it."""
        symbols = self.wanted[unit]
        losers = symbols[index]
        self._clear(unit, symbols, index, 0)
        self._sent_again_ns.setdefault(unit, {})[index] = now_ns
        return losers

    def oldest(self) -> Iterator[tuple[int, int]]:
        """(unit, index) of what is wanted, oldest first; may be taken while iterating."""
        for unit in sorted(self.wanted):
            for index in sorted(self.wanted[unit]):
                yield unit, index

    def release(self, unit: int) -> None:
        """Everybody has the unit."""
        self._sent_again_ns.pop(unit, None)
        symbols = self.wanted.pop(unit, None)
        if symbols is not None:
            self.size -= len(symbols)
