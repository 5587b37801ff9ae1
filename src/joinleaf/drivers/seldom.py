"""Saying something now and then instead of every time."""

from __future__ import annotations

import time
from typing import Final

__all__ = ["SELDOM_S", "Seldom"]

SELDOM_S: Final = 10.0
"""What lasts is logged this often, in seconds, and not at every turn it takes part in."""


class Seldom:
    """Lets a message through at most once in ``every_s`` seconds.

    Args:
        every_s: Above 0.
    """

    __slots__ = ("_every_s", "_last")

    def __init__(self, every_s: float = SELDOM_S) -> None:
        self._every_s = every_s
        self._last = float("-inf")

    def due(self) -> bool:
        """Whether it may be said now; if so, this counts as having said it."""
        now = time.monotonic()
        if now - self._last < self._every_s:
            return False
        self._last = now
        return True
