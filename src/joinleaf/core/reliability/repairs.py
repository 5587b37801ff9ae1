"""Who misses what, and what is sent again.

Losses are kept by unit as *patterns*: a bitmap of symbols, and the leaves that miss just these.
So a symbol lost by a thousand leaves costs the root one repair, and a report costs what it tells
of. A report says everything its leaf lacks: what the leaf asked for before and does not ask for
now has arrived.

Every symbol that was sent again is left alone for about a round trip, or until its leaf has heard
what left later: reports that come meanwhile were written before the repair could arrive. They are
forgotten, not remembered; a leaf that still misses it says so again. But a parity symbol mends
nothing at a leaf that misses two of its parts, so such a leaf is heard at once.

A unit waits to be repaired until other leaves have told of it too, for what several lost can be
combined (``parity.py``). That holds for the repair of repairs as well: of 100 leaves with 5 % loss
each, five lack a repair, and not the same. But what most of them lost alike was lost before the
network branches: it does not wait, so that the others need not tell of it.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Container, Iterable
from functools import reduce
from operator import or_
from typing import Final

__all__ = ["Again", "Losses"]

MAX_PATTERNS: Final = 65_536
"""Patterns wanted at a time: those of a thousand leaves that each lost something of every unit of
a window. More are not taken up before some of these are sent; whoever lacks them will say so
again."""

ALIKE: Final = 3
"""So many leaves that lack the same of a unit, and are most of those that lack any, are enough to
tell that everybody does: by chance that does not happen."""

_NEVER: Final = 1 << 62


class Again:
    """A symbol that is sent again, or several of one unit combined.

    Attributes:
        unit: Its unit.
        parts: Bitmap of the symbols.
        whole: They are not combined, but all of the unit, sent as it was.
        sent_ns: When it left; far in the future before that.
    """

    __slots__ = ("parts", "sent_ns", "unit", "whole")

    def __init__(self, unit: int, parts: int, *, whole: bool = False) -> None:
        self.unit = unit
        self.parts = parts
        self.whole = whole
        self.sent_ns = _NEVER


class Losses:
    """The ledger of one stream.

    Attributes:
        wanted: Unit -> pattern -> bitmap of the leaves that miss it.
        size: Patterns wanted.
    """

    __slots__ = ("_again", "_asked", "_ripe", "_waiting", "size", "wanted")

    def __init__(self) -> None:
        self.wanted: dict[int, dict[int, int]] = {}
        self.size = 0
        self._asked: dict[int, dict[int, int]] = {}  # leaf's bit -> unit -> pattern
        self._again: dict[int, list[Again]] = {}
        self._waiting: deque[tuple[int, int]] = deque()  # (when it need wait no longer, unit)
        self._ripe: list[int] = []  # heap of units

    def reported(
        self,
        bit: int,
        missing: dict[int, int],
        now_ns: int,
        since_ns: int,
        gather_ns: int,
        whole: Container[int] = (),
    ) -> int:
        """A leaf misses this, and nothing else.

        Args:
            bit: The leaf's.
            missing: By unit, the bitmap of what it lacks.
            now_ns: Now.
            since_ns: What was sent again after that may still be on its way.
            gather_ns: For how long a unit waits for what other leaves lack.
            whole: Of these it lacks so much that all of them is sent again: they do not wait.

        Returns:
            How many symbols it asks for that it was not waiting for already.
        """
        before, asked, fresh = self._asked.get(bit, {}), {}, 0
        for unit, bitmap in missing.items():
            wants = bitmap
            if unit in self._again:
                wants &= ~self._under_way(unit, bitmap, since_ns)
            was = before.pop(unit, 0)
            if wants:
                asked[unit] = wants
                waits = self.wanted.get(unit, {}).get(was, 0) & bit
                fresh += (wants & ~was if waits else wants).bit_count()
            if was and was != wants:
                self._withdraw(bit, unit, was)
            if wants and not self._want(bit, unit, wants, now_ns + gather_ns):
                break
            if wants and unit in whole and wants != was:
                heapq.heappush(self._ripe, unit)
        for unit, was in before.items():
            self._withdraw(bit, unit, was)
        self._asked[bit] = asked
        return fresh

    def _under_way(self, unit: int, bitmap: int, since_ns: int) -> int:
        """What of it arrives without being sent again."""
        under_way = 0
        for again in self._again[unit]:
            mends = again.parts & bitmap
            if again.sent_ns > since_ns and (again.whole or not mends & mends - 1):
                under_way |= mends
        return under_way

    def _want(self, bit: int, unit: int, pattern: int, due_ns: int) -> bool:
        """Enter a pattern; False if there is no room."""
        patterns = self.wanted.get(unit)
        leaves = 0 if patterns is None else patterns.get(pattern, 0)
        if not leaves:
            if self.size >= MAX_PATTERNS:
                return False
            if patterns is None:
                patterns = self.wanted[unit] = {}
                self._waiting.append((due_ns, unit))
            self.size += 1
        assert patterns is not None
        leaves |= bit
        patterns[pattern] = leaves
        if (alike := leaves.bit_count()) >= ALIKE:
            all_told = reduce(or_, patterns.values()).bit_count() if len(patterns) > 1 else alike
            if 2 * alike > all_told:
                heapq.heappush(self._ripe, unit)
        return True

    def _withdraw(self, bit: int, unit: int, pattern: int) -> None:
        patterns = self.wanted.get(unit)
        leaves = 0 if patterns is None else patterns.get(pattern, 0)
        if patterns is None or not leaves & bit:
            return  # it has been taken meanwhile
        if leaves != bit:
            patterns[pattern] = leaves & ~bit
            return
        del patterns[pattern]
        self.size -= 1
        if not patterns:
            del self.wanted[unit]

    def forget_leaf(self, bit: int) -> None:
        """The leaf is gone, or wants nothing any more."""
        for unit, pattern in self._asked.pop(bit, {}).items():
            self._withdraw(bit, unit, pattern)

    def ripen(self, now_ns: int, *, all_of_them: bool) -> bool:
        """Whether something is to be sent again now.

        Args:
            now_ns: Now.
            all_of_them: Nothing need wait for the reports of others.
        """
        waiting, ripe = self._waiting, self._ripe
        while waiting and (all_of_them or waiting[0][0] <= now_ns):
            _, unit = waiting.popleft()
            if unit in self.wanted:
                heapq.heappush(ripe, unit)
        while ripe and ripe[0] not in self.wanted:
            heapq.heappop(ripe)
        return bool(ripe)

    def due_ns(self) -> int | None:
        """When the next unit need wait no longer; None: none waits."""
        waiting = self._waiting
        while waiting and waiting[0][1] not in self.wanted:
            waiting.popleft()
        return waiting[0][0] if waiting else None

    def take(self) -> tuple[int, Iterable[int]] | None:
        """The oldest unit that is to be repaired now, and its patterns; None: none is."""
        while self._ripe:
            unit = heapq.heappop(self._ripe)
            patterns = self.wanted.pop(unit, None)
            if patterns is not None:
                self.size -= len(patterns)
                return unit, patterns
        return None

    def sending(self, unit: int, combinations: list[int], since_ns: int) -> list[Again]:
        """These symbols of a unit are being sent again; reports of them are held off from now on.

        Args:
            unit: The unit.
            combinations: Bitmaps of what is sent together.
            since_ns: What was sent before has had its time.
        """
        planned = [Again(unit, parts) for parts in combinations]
        self._note(unit, planned, since_ns)
        return planned

    def sending_whole(self, unit: int, count: int, since_ns: int) -> Again:
        """The same for a unit of ``count`` symbols that is sent again as it was."""
        again = Again(unit, (1 << count) - 1, whole=True)
        self._note(unit, [again], since_ns)
        return again

    def _note(self, unit: int, planned: list[Again], since_ns: int) -> None:
        before = self._again.get(unit, ())
        self._again[unit] = [again for again in before if again.sent_ns > since_ns] + planned

    def release(self, unit: int) -> None:
        """Everybody has the unit."""
        self._again.pop(unit, None)
        patterns = self.wanted.pop(unit, None)
        if patterns is not None:
            self.size -= len(patterns)
