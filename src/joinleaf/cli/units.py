"""Numbers as people read them: sizes and rates in powers of 1000, times, shares."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["clean", "count", "duration", "percent", "rate", "size"]

_PREFIXES: Final = ("", "k", "M", "G", "T", "P")


def size(number: float) -> str:
    """Bytes: ``512 B``, ``1.5 kB``, ``23 MB``; three digits at most."""
    power = 0
    while number >= 999.5 and power < len(_PREFIXES) - 1:
        number, power = number / 1000, power + 1
    digits = 1 if power and number < 9.95 else 0
    return f"{number:.{digits}f} {_PREFIXES[power]}B"


def rate(bytes_per_s: float) -> str:
    """Bytes per second: ``112 MB/s``."""
    return f"{size(bytes_per_s)}/s"


def duration(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3:05``, ``2:01:09``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = math.ceil(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def percent(done: int, total: int | None) -> str:
    """Rounded down, so that 100% is never said too early; empty where the total is unknown."""
    if total is None:
        return ""
    return "100%" if done >= total else f"{100 * done // total}%"


def count(number: int, noun: str, plural: str = "") -> str:
    """``1 leaf``, ``3 leaves``."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def clean(text: str) -> str:
    """What a peer said, without what could command the terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
