"""Which bytes go to whom next: a machine without clock, file or channel.

One line numbers all bytes of the object (``manifest.Layout``). The *first pass* goes along it
once, from 0 to the end: every byte is read (and so hashed, in order, exactly once); what nobody
wants is read and not sent. A leaf that joins meanwhile takes what comes by from then on. What is
still wanted behind the first pass is sent by a *second cursor* that goes round and round, so that
all who miss the same get it together; it moves whenever the first pass cannot (it is at its end,
or a stream has nothing new).

Pieces are cut where anybody's wish begins or ends, so that nobody is sent what it has. A leaf that
can use bytes only in order (its destination is a pipe) is served nowhere but at its own position.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from joinleaf.transfer.ranges import RangeSet

if TYPE_CHECKING:
    from collections.abc import Hashable

    from joinleaf.transfer.manifest import Layout

__all__ = ["Piece", "Plan"]


@dataclass(frozen=True, slots=True)
class Piece:
    """Read these bytes of this file, and send them to these leaves (to nobody: only read).

    Attributes:
        index: The file.
        offset: First byte in it.
        size: Number of bytes, at least 1.
        to: Keys of the leaves, in order of joining.
        first_pass: Whether these bytes have not been read before.
    """

    index: int
    offset: int
    size: int
    to: tuple[Hashable, ...]
    first_pass: bool


@dataclass(slots=True)
class _Wish:
    want: RangeSet
    in_order: bool


@dataclass(slots=True)
class Plan:
    """See the module's text.

    Attributes:
        layout: Where each file lies on the line.
        chunk_size: Longest piece, in bytes.
        read_to: How far the first pass is.
        next_end: The lowest file whose end the first pass has not reached.
    """

    layout: Layout
    chunk_size: int
    read_to: int = 0
    next_end: int = 0
    _round: int = 0  # where the second cursor stands
    _wishes: dict[Hashable, _Wish] = field(default_factory=dict)
    _dropped: RangeSet = field(default_factory=RangeSet)

    def want(self, key: Hashable, have: RangeSet, *, in_order: bool = False) -> None:
        """A leaf wants everything but ``have``."""
        wish = RangeSet([(0, self.layout.end)])
        for start, end in (*have, *self._dropped):
            wish.remove(start, end)
        self._wishes[key] = _Wish(wish, in_order)

    def want_again(self, key: Hashable, ranges: list[tuple[int, int]]) -> None:
        """A leaf lacks these after all; what lies beyond the object is ignored."""
        if (wish := self._wishes.get(key)) is not None:
            for start, end in ranges:
                wish.want.add(start, min(end, self.layout.end))
            for start, end in self._dropped:
                wish.want.remove(start, end)

    def drop_leaf(self, key: Hashable) -> None:
        """A leaf gets nothing more."""
        self._wishes.pop(key, None)

    def drop_file(self, index: int) -> tuple[Hashable, ...]:
        """A file cannot be had; gives the leaves that still wanted some of it."""
        start, end = self.layout.span(index)
        short = tuple(
            key
            for key, wish in self._wishes.items()
            if sum(e - s for s, e in wish.want.missing(start, end)) < end - start
        )
        for wish in self._wishes.values():
            wish.want.remove(start, end)
        self._dropped.add(start, end)
        if start <= self.read_to < end:
            self.read_to = end
        return short

    def finish_stream(self, size: int) -> None:
        """The stream has ended after ``size`` bytes."""
        for wish in self._wishes.values():
            wish.want.remove(size, self.layout.end)
        self.layout.finish_stream(size)

    def outstanding(self, key: Hashable) -> int:
        """Bytes that a leaf is still to be sent."""
        wish = self._wishes.get(key)
        return wish.want.total if wish is not None else 0

    @property
    def idle(self) -> bool:
        """Whether the first pass is over and nobody wants anything."""
        return self.read_to >= self.layout.end and not any(
            wish.want for wish in self._wishes.values()
        )

    def poll_end(self, available: int) -> int | None:
        """The next file whose end the first pass has reached, once each; else None.

        Args:
            available: Positions below this one can be read.
        """
        if self.next_end == len(self.layout) or self.layout.span(self.next_end)[1] > min(
            self.read_to, available
        ):
            return None
        self.next_end += 1
        return self.next_end - 1

    def poll_piece(self, available: int) -> Piece | None:
        """What to read and send now; it counts as sent. None: nothing can be done at present.

        Args:
            available: Positions below this one can be read; less than the end for a stream.
        """
        available = min(available, self.layout.end)
        if self.read_to < available:
            piece = self._cut(self.read_to, available, first_pass=True)
            self.read_to += piece.size
            return piece
        if (position := self._next_wanted()) is None:
            return None
        piece = self._cut(position, self.read_to, first_pass=False)
        self._round = position + piece.size
        return piece

    def _next_wanted(self) -> int | None:
        """The next position that the second cursor can serve, going round once."""
        found = [p for w in self._wishes.values() if (p := self._servable(w)) is not None]
        ahead = [p for p in found if p >= self._round]
        return min(ahead or found, default=None)

    def _servable(self, wish: _Wish) -> int | None:
        first = wish.want.first
        if first is None or first >= self.read_to:
            return None
        if wish.in_order:
            return first
        inside, change = wish.want.boundary(self._round)
        position = self._round if inside else change
        return position if position is not None and position < self.read_to else first

    def _cut(self, position: int, limit: int, *, first_pass: bool) -> Piece:
        index, offset = self.layout.locate(position)
        end = min(position + self.chunk_size, limit, self.layout.span(index)[1])
        to: list[Hashable] = []
        for key, wish in self._wishes.items():
            inside, change = wish.want.boundary(position)
            if change is not None:
                end = min(end, change)
            if inside and not (wish.in_order and wish.want.first != position):
                to.append(key)
        for key in to:
            self._wishes[key].want.remove(position, end)
        return Piece(index, offset, end - position, tuple(to), first_pass)
