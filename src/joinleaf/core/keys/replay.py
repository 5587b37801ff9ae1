"""What has been seen already: a sliding window over the numbers of one sender."""

from __future__ import annotations

from typing import Final

__all__ = ["REPLAY_WINDOW", "ReplayWindow"]

REPLAY_WINDOW: Final = 1024
"""How far behind the newest number a late one is still taken. RFC 4303 asks for 32 and suggests
64; at a gigabit and 1 KiB, 1,024 are 8 ms of reordering."""


class ReplayWindow:
    """Accepts every number once, in any order within the window.

    It remembers the numbers that are *missing* rather than those seen: a stream in order then costs
    a comparison and an addition, however wide the window.

    Args:
        first: The lowest number that will be accepted.
        width: How far behind the newest a number may be; at least 1.

    Attributes:
        following: The number after the newest; it is new, and most that come are it.
    """

    __slots__ = ("_missing", "_width", "following")

    def __init__(self, first: int = 0, width: int = REPLAY_WINDOW) -> None:
        if width < 1:
            raise ValueError("a replay window is at least 1 wide")
        self.following = first
        self._width = width
        self._missing: set[int] = set()

    def is_new(self, number: int) -> bool:
        """Whether ``accept`` would take it. Ask before the crypto; it changes nothing."""
        return number >= self.following or (
            number in self._missing and number >= self.following - self._width
        )

    def accept(self, number: int) -> bool:
        """Take a number that has proved authentic; False if it was seen, or is too old."""
        following = self.following
        if number == following:
            self.following = following + 1
            return True
        if number > following:
            self.following = number + 1
            self._note_missing(max(following, number + 1 - self._width), number)
            return True
        if not self.is_new(number):
            return False
        self._missing.discard(number)
        return True

    def _note_missing(self, first: int, end: int) -> None:
        missing = self._missing
        missing.update(range(first, end))
        if len(missing) > 2 * self._width:  # at least a whole width of them are too old by now
            oldest = self.following - self._width
            self._missing = {number for number in missing if number >= oldest}
