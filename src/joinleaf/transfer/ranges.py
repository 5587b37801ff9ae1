"""Sets of byte positions, kept as sorted, disjoint, non-touching half-open ranges.

The engine numbers all bytes of an object in one line (see ``manifest.Layout``), so that what a
leaf has, wants or lacks is one set of ranges, whether the object is a file or a folder of them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["RangeSet"]


class RangeSet:
    """A set of non-negative integers, as ranges ``[start, end)``.

    Adding at the end of the last range, which is what orderly arrival does, costs O(1); anything
    else O(log n) to find plus a move of the list's tail.
    """

    __slots__ = ("_ends", "_starts", "_total")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._total = 0
        for start, end in ranges:
            self.add(start, end)

    def __len__(self) -> int:
        """Number of ranges, not of positions."""
        return len(self._starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._ends, strict=True)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RangeSet):
            return NotImplemented
        return self._starts == other._starts and self._ends == other._ends

    __hash__ = None  # type: ignore[assignment]  # mutable, so deliberately without a hash

    def __repr__(self) -> str:
        return f"RangeSet({list(self)!r})"

    @property
    def total(self) -> int:
        """Number of positions in the set."""
        return self._total

    @property
    def first(self) -> int | None:
        """Lowest position, or None if empty."""
        return self._starts[0] if self._starts else None

    @property
    def last(self) -> int | None:
        """Position behind the highest one, or None if empty."""
        return self._ends[-1] if self._ends else None

    def copy(self) -> RangeSet:
        """An independent equal set."""
        other = RangeSet()
        other._starts, other._ends = self._starts.copy(), self._ends.copy()
        other._total = self._total
        return other

    def add(self, start: int, end: int) -> None:
        """Put ``[start, end)`` in; an empty range changes nothing.

        Raises:
            ValueError: ``start`` is negative.
        """
        if start < 0:
            raise ValueError(f"range starts at {start}, below 0")
        if end <= start:
            return
        ends = self._ends
        if ends and ends[-1] == start:  # the fast path: in order
            ends[-1] = end
            self._total += end - start
            return
        low = bisect_left(ends, start)  # first range that touches or lies behind
        high = bisect_right(self._starts, end)  # first range that lies wholly behind
        if low < high:
            self._total -= sum(ends[i] - self._starts[i] for i in range(low, high))
            start, end = min(start, self._starts[low]), max(end, ends[high - 1])
        self._starts[low:high] = [start]
        ends[low:high] = [end]
        self._total += end - start

    def remove(self, start: int, end: int) -> None:
        """Take ``[start, end)`` out; what was not in stays out."""
        if end <= start:
            return
        low = bisect_right(self._ends, start)  # first range that reaches past start
        high = bisect_left(self._starts, end)  # first range that begins at or behind end
        if low >= high:
            return
        self._total -= sum(self._ends[i] - self._starts[i] for i in range(low, high))
        head, tail = (self._starts[low], start), (end, self._ends[high - 1])
        kept = [(s, e) for s, e in (head, tail) if s < e]
        self._starts[low:high] = [s for s, _ in kept]
        self._ends[low:high] = [e for _, e in kept]
        self._total += sum(e - s for s, e in kept)

    def contains(self, start: int, end: int) -> bool:
        """Whether all of ``[start, end)`` is in; true of an empty range."""
        if end <= start:
            return True
        at = bisect_right(self._starts, start) - 1
        return at >= 0 and self._ends[at] >= end

    def boundary(self, position: int) -> tuple[bool, int | None]:
        """Whether ``position`` is in, and where that next changes (None: never again)."""
        at = bisect_right(self._ends, position)
        if at == len(self._ends):
            return False, None
        start = self._starts[at]
        return (True, self._ends[at]) if start <= position else (False, start)

    def missing(self, start: int, end: int) -> list[tuple[int, int]]:
        """The ranges of ``[start, end)`` that are not in, in order."""
        gaps, position = [], start
        for at in range(bisect_right(self._ends, start), len(self._starts)):
            if self._starts[at] >= end:
                break
            if self._starts[at] > position:
                gaps.append((position, self._starts[at]))
            position = self._ends[at]
        if position < end:
            gaps.append((position, end))
        return gaps
