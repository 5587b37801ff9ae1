"""What has left and not yet been noticed by every leaf: what congestion control counts.

Not what is unacknowledged: while a loss is being repaired the acknowledgement stands still, but the
rest has left the network, and may be followed by more (what TCP calls the pipe, RFC 6675).
"""

from __future__ import annotations

import heapq

__all__ = ["Flight"]


class Flight:
    """How far in the stream each leaf knows of, in bytes since it began."""

    __slots__ = ("_heap", "_seen")

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}
        self._heap: list[tuple[int, int]] = []  # (offset, leaf), some outdated

    def saw(self, leaf: int, offset: int) -> int:
        """A leaf knows of the stream up to here.

        Returns:
            By how many bytes this moved what *every* leaf knows of.
        """
        before = self._seen.get(leaf)
        if before is not None and offset <= before:
            return 0
        edge = self.edge(offset)
        self._seen[leaf] = offset
        heapq.heappush(self._heap, (offset, leaf))
        if len(self._heap) > 4 * len(self._seen) + 64:
            self._heap = [(offset, leaf) for leaf, offset in self._seen.items()]
            heapq.heapify(self._heap)
        return 0 if before is None else max(0, self.edge(offset) - edge)

    def forget(self, leaf: int) -> None:
        """A leaf is not served by the stream any more."""
        self._seen.pop(leaf, None)

    def at_edge(self, end: int) -> list[int]:
        """The leaves that know of the stream no further than ``edge``."""
        edge = self.edge(end)
        return [leaf for leaf, offset in self._seen.items() if offset <= edge]

    def edge(self, end: int) -> int:
        """The offset up to which every leaf knows of the stream; ``end`` if there is none."""
        heap, seen = self._heap, self._seen
        while heap:
            offset, leaf = heap[0]
            if seen.get(leaf) == offset:
                return min(offset, end)
            heapq.heappop(heap)
        return end
