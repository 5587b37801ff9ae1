"""Which of the symbols that a leaf reports missing are lost, and not merely late.

What was overtaken on the way is missing too, but not for long, and is no sign of anything. So a
loss counts once it is reported a second time, or later than a round trip takes, or by a leaf that
has heard what left later, or has been mended.

Source:
    RFC 8985 (RACK), section 3: losses are told by time, and not by order.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Mended", "Tally"]

MENDED_KEPT: Final = 1024
"""Units of which is known what was sent again: more than a window has, of full ones by far."""


class Mended:
    """What was sent again, by unit, for a while."""

    __slots__ = ("_symbols",)

    def __init__(self) -> None:
        self._symbols: dict[int, int] = {}

    def add(self, unit: int, bitmap: int) -> None:
        """These symbols have been sent again."""
        symbols = self._symbols
        symbols[unit] = symbols.get(unit, 0) | bitmap
        if len(symbols) > MENDED_KEPT:
            del symbols[next(iter(symbols))]

    def of(self, unit: int) -> int:
        """The bitmap of those of a unit."""
        return self._symbols.get(unit, 0)


class Tally:
    """The losses of one leaf, each counted once."""

    __slots__ = ("_counted", "_missing")

    def __init__(self) -> None:
        self._missing: dict[int, int] = {}  # unit -> bitmap, as reported last
        self._counted: dict[int, int] = {}

    @property
    def missing(self) -> dict[int, int]:
        """By unit, what the leaf lacked when it reported last."""
        return self._missing

    def reported(self, missing: dict[int, int], old_before: int, mended: Mended) -> int:
        """Take in a report.

        Args:
            missing: By unit, the bitmap of what the leaf lacks.
            old_before: Units before this one would have arrived, had they not been lost.
            mended: What was sent again so far.

        Returns:
            How many symbols are lost that were not counted before.
        """
        new = 0
        counted: dict[int, int] = {}
        for unit, before in self._missing.items():
            lost = before & (missing.get(unit, 0) | mended.of(unit))
            known = self._counted.get(unit, 0)
            new += (lost & ~known).bit_count()
            counted[unit] = lost | known
        for unit, bitmap in missing.items():
            known = counted.get(unit, 0)
            if unit < old_before:
                new += (bitmap & ~known).bit_count()
                known |= bitmap
            counted[unit] = known & bitmap
        self._missing = missing
        self._counted = {unit: counted[unit] for unit in missing}
        return new
