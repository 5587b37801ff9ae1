"""Which symbols of a unit are sent again together, as one parity symbol.

A leaf can use a combination of which it lacks one part. Leaves that lack the same symbols of a unit
are alike, so that a unit's losses are a few patterns, bitmaps of symbols, however many leaves there
are. Two symbols of one pattern exclude each other; what is left is colouring a graph of at most
64 nodes, greedily, those with most neighbours first (Welsh and Powell, 1967).

Within one unit only: a leaf that has delivered a unit has its symbols no longer, so it could not
use a combination with one of them.
"""

from __future__ import annotations

from collections.abc import Iterable

from joinleaf.core.wire.units import MAX_PARTS, MAX_SPAN

__all__ = ["combine"]


def combine(patterns: Iterable[int], combinable: int) -> list[int]:
    """Combinations that mend all patterns, each a bitmap of symbols; single ones first, in order.

    Args:
        patterns: What leaves lack, as bitmaps of symbols.
        combinable: The symbols that may be combined.
    """
    excluded: dict[int, int] = {}  # symbol, as a bit -> those that some leaf lacks along with it
    for pattern in patterns:
        rest = pattern
        while rest:
            symbol = rest & -rest
            rest ^= symbol
            excluded[symbol] = excluded.get(symbol, 0) | pattern
    alone: list[int] = []
    together: list[int] = []
    for symbol in sorted(excluded, key=lambda symbol: -excluded[symbol].bit_count()):
        if not symbol & combinable:
            alone.append(symbol)
            continue
        for place, parts in enumerate(together):
            if not parts & excluded[symbol] and _fits(parts | symbol):
                together[place] = parts | symbol
                break
        else:
            together.append(symbol)
    alone += (parts for parts in together if not parts & parts - 1)
    return sorted(alone) + [parts for parts in together if parts & parts - 1]


def _fits(parts: int) -> bool:
    """Whether a header can tell of them."""
    span = parts.bit_length() - (parts & -parts).bit_length() + 1
    return span <= MAX_SPAN and parts.bit_count() <= MAX_PARTS
