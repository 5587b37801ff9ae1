"""Simulated time: a clock that moves when told, and an agenda of what happens when."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

__all__ = ["MILLISECOND", "SECOND", "Agenda", "ManualClock"]

MILLISECOND: Final = 1_000_000
SECOND: Final = 1_000_000_000


class ManualClock:
    """A clock in integer nanoseconds that stands still until it is moved.

    Attributes:
        now_ns: The present time.
    """

    __slots__ = ("now_ns",)

    def __init__(self, now_ns: int = 0) -> None:
        self.now_ns = now_ns

    def advance(self, by_ns: int) -> int:
        """Move forward; ValueError for a negative step. Returns the new time."""
        if by_ns < 0:
            raise ValueError("a monotonic clock does not go back")
        self.now_ns += by_ns
        return self.now_ns


class Agenda:
    """What is to happen at which time; equal times in the order of entry.

    Attributes:
        clock: Moved to each entry's time as it is carried out.
        steps: Entries carried out so far.
    """

    __slots__ = ("_heap", "_serial", "clock", "steps")

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.steps = 0
        self._serial = 0
        self._heap: list[tuple[int, int, Callable[[], None]]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def at(self, time_ns: int, action: Callable[[], None]) -> None:
        """Enter an action; one for the past happens now, after what is entered already."""
        self._serial += 1
        heapq.heappush(self._heap, (max(time_ns, self.clock.now_ns), self._serial, action))

    def after(self, delay_ns: int, action: Callable[[], None]) -> None:
        """Enter an action for ``delay_ns`` from now."""
        self.at(self.clock.now_ns + delay_ns, action)

    def step(self) -> bool:
        """Carry out the next entry; False if there is none."""
        if not self._heap:
            return False
        time_ns, _, action = heapq.heappop(self._heap)
        self.clock.advance(time_ns - self.clock.now_ns)
        self.steps += 1
        action()
        return True

    def run(self, until_ns: int) -> None:
        """Carry out everything up to and including ``until_ns``; leave the clock there."""
        while self._heap and self._heap[0][0] <= until_ns:
            self.step()
        self.clock.advance(max(0, until_ns - self.clock.now_ns))
