"""Wrong keys are counted, and an address that has shown many is not heard for a while.

A secret of 128 bits is not guessed. What this saves is the work: a handshake costs the root about
a millisecond, and every wrong key a line in somebody's log.
"""

from __future__ import annotations

from typing import Final

from joinleaf.core.sources import source_of

__all__ = ["GuessLimiter"]

SECOND: Final = 1_000_000_000

BURST: Final = 10
"""Wrong keys in a row that are forgiven: people mistake lines, and restart roots under a fleet."""

FORGIVE_NS: Final = 1 * SECOND
"""One wrong key is forgotten in this time: what a flood can make the root look at, per address."""

MAX_ADDRESSES: Final = 4096
"""Addresses remembered; when they are more, the one whose last wrong key is longest ago is
forgotten. Who owns so many addresses is not to be stopped by address."""


class GuessLimiter:
    """Which addresses have shown too many wrong keys lately.

    Each address has a level: a wrong key raises it by one, and it sinks by one each second. What
    counts as one address is in ``sources.py``.
    """

    __slots__ = ("_levels",)

    def __init__(self) -> None:
        self._levels: dict[str, tuple[float, int]] = {}  # level when it was last raised, and when

    def __len__(self) -> int:
        return len(self._levels)

    def heard(self, host: str, now_ns: int) -> bool:
        """Whether a connection from this address is to be heard."""
        return not self._levels or self._level(source_of(host), now_ns) <= BURST - 1

    def wrong(self, host: str, now_ns: int) -> None:
        """A wrong key has come from this address."""
        source = source_of(host)
        level = self._level(source, now_ns) + 1
        self._levels.pop(source, None)  # the dict is in the order of the last wrong key
        if len(self._levels) >= MAX_ADDRESSES:
            del self._levels[next(iter(self._levels))]
        self._levels[source] = (min(level, BURST), now_ns)

    def _level(self, source: str, now_ns: int) -> float:
        level, since_ns = self._levels.get(source, (0.0, now_ns))
        level -= (now_ns - since_ns) / FORGIVE_NS
        if level <= 0:
            self._levels.pop(source, None)
            return 0.0
        return level
