"""Who stands before the door: peers that have connected and are no members.

Nobody has said yes to them, so they may cost little, and all of them together as well, whatever
they do. What is bounded is how often an asker comes, how many stand there without a valid word, how
many wait for an answer, and the bytes that both hold. Where a bound is reached, somebody has to go:
one asker's bound costs that asker's own, oldest first; a bound on what all hold costs the asker
that holds the most. So an honest asker, who is one of few from its address and speaks within a
round trip, stays.

An asker is what ``sources.py`` says. Keys are the legs'; what a leg is, is not known here. How long
somebody may stand there, ``Association`` knows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from joinleaf.core.sources import is_this_host, source_of

__all__ = [
    "JOINS_PER_S",
    "JOIN_BURST",
    "MAX_HALF_OPEN",
    "MAX_HALF_OPEN_PER_SOURCE",
    "MAX_SOURCES",
    "PARTIAL_BYTES",
    "PENDING_BYTES",
    "Doorstep",
    "Knock",
]

SECOND: Final = 1_000_000_000

MAX_HALF_OPEN: Final = 1024
"""Connections that have not yet said a valid word. When they are more, the oldest is dropped: an
honest joiner speaks within one round trip, a flood does not (compare the SYN backlog)."""

MAX_HALF_OPEN_PER_SOURCE: Final = 256
"""The same for one asker, so that one host cannot push out the others' joins."""

PARTIAL_BYTES: Final = 8 << 20
"""Unfinished frames of all who are no members. A request of the ordinary kind comes in one piece
and holds nothing here; one of the longest kind holds 192 KiB for as long as it takes to arrive."""

PENDING_BYTES: Final = 32 << 20
"""Requests that wait, all together: a backlog of 1,024 with 32 KiB of connect data each, which is
a certificate chain and more; without a bound it were 192 MiB, for the asking."""

LEAST_SHARE: Final = 64
"""Requests of one asker that may wait, however short the backlog."""

SHARE: Final = 2
"""One asker may fill one half of the backlog and of its bytes. With a smaller part, a room full of
machines behind one address could not join at once."""

JOINS_PER_S: Final = 100
"""Connections of one asker in the long run. A join costs the root about a millisecond, so that is a
tenth of one core; a leaf that keeps coming back after a failure asks once a second."""

JOIN_BURST: Final = 1024
"""Connections of one asker at once: a room behind one address that is switched on together, and as
many as the usual backlog holds."""

LOCAL_FACTOR: Final = 16
"""This host itself may ask so much oftener: who can load it by joins can load it by anything."""

MAX_SOURCES: Final = 4096
"""Askers whose rate is remembered, about a megabyte; the one that came longest ago is forgotten.
Who has more addresses than that is not to be stopped by address, but by the bounds for all."""


class Knock(Enum):
    """What is done with a connection."""

    HEARD = auto()  # its request is looked at
    PUT_OFF = auto()  # its request is refused with a sentence
    IGNORED = auto()  # closed at once: it has been told as often as it may ask


@dataclass(slots=True)
class _Source:
    """What one asker has standing here, each oldest first.

    Attributes:
        standing: How many legs.
        half_open: Those without a valid word.
        waiting: Those whose request waits, and its bytes.
        partial: Those that hold bytes of an unfinished frame, and how many.
        bytes_waiting: Sum of ``waiting``.
        bytes_partial: Sum of ``partial``.
    """

    standing: int = 0
    half_open: dict[int, None] = field(default_factory=dict)
    waiting: dict[int, int] = field(default_factory=dict)
    partial: dict[int, int] = field(default_factory=dict)
    bytes_waiting: int = 0
    bytes_partial: int = 0


class Doorstep:
    """See the module. Methods named ``..._excess`` name the leg that has to go, if one has to.

    Attributes:
        places: By leg, the asker. Who is not in it is no matter of this class.
        half_open: Legs without a valid word, oldest first.
        bytes_partial: Bytes of unfinished frames.
        bytes_waiting: Bytes of requests that wait.
    """

    __slots__ = ("_rates", "_sources", "bytes_partial", "bytes_waiting", "half_open", "places")

    def __init__(self) -> None:
        self.places: dict[int, str] = {}
        self.half_open: dict[int, None] = {}
        self.bytes_partial = 0
        self.bytes_waiting = 0
        self._sources: dict[str, _Source] = {}
        self._rates: dict[str, tuple[int, int]] = {}  # level in billionths of a join, and when

    def knock(self, host: str, now_ns: int) -> Knock:
        """Somebody comes. A token bucket for each asker, which may go into debt by its size.

        Those within the bucket are heard. Who is in debt is put off in words, so that an honest
        leaf knows what to do; who is as deep in debt as can be is not worth the words.
        """
        source = source_of(host)
        factor = LOCAL_FACTOR if is_this_host(source) else 1
        full = JOIN_BURST * factor * SECOND
        level, since_ns = self._rates.pop(source, (full, now_ns))
        level = min(full, level + JOINS_PER_S * factor * max(0, now_ns - since_ns))
        knock = Knock.HEARD if level >= SECOND else Knock.PUT_OFF
        if level < SECOND - full:
            knock = Knock.IGNORED
        else:
            level -= SECOND
        if len(self._rates) >= MAX_SOURCES:
            del self._rates[next(iter(self._rates))]
        self._rates[source] = (level, max(now_ns, since_ns))
        return knock

    def half_open_excess(self, host: str) -> int | None:
        """Who has to go before one more from this host may stand here."""
        source = self._sources.get(source_of(host))
        if source is not None and len(source.half_open) >= MAX_HALF_OPEN_PER_SOURCE:
            return next(iter(source.half_open))
        return next(iter(self.half_open)) if len(self.half_open) >= MAX_HALF_OPEN else None

    def stand(self, key: int, host: str) -> None:
        """It has connected and has said nothing yet."""
        name = self.places[key] = source_of(host)
        source = self._sources.setdefault(name, _Source())
        source.standing += 1
        source.half_open[key] = self.half_open[key] = None

    def holds(self, key: int, size: int) -> None:
        """So many bytes of an unfinished frame are kept for it."""
        source = self._sources[self.places[key]]
        more = size - source.partial.pop(key, 0)
        if size:
            source.partial[key] = size
        source.bytes_partial += more
        self.bytes_partial += more

    def partial_excess(self) -> int | None:
        """Who has to go because unfinished frames take too much."""
        if self.bytes_partial <= PARTIAL_BYTES:
            return None
        heaviest = max(self._sources.values(), key=lambda source: source.bytes_partial)
        return next(iter(heaviest.partial))

    def may_wait(self, key: int, size: int, backlog: int) -> bool:
        """Whether a request of so many bytes may wait for an answer, beside its asker's others.

        The backlog itself is not looked at. This host may fill all of it.
        """
        name = self.places[key]
        source, part = self._sources[name], 1 if is_this_host(name) else SHARE
        return (
            len(source.waiting) < max(LEAST_SHARE, backlog // part)
            and source.bytes_waiting + size <= PENDING_BYTES // part
            and self.bytes_waiting + size <= PENDING_BYTES
        )

    def spoke(self, key: int) -> None:
        """It has said a valid word."""
        self._sources[self.places[key]].half_open.pop(key, None)
        self.half_open.pop(key, None)

    def waits(self, key: int, size: int) -> None:
        """Its request, of so many bytes, waits for an answer."""
        source = self._sources[self.places[key]]
        source.waiting[key] = size
        source.bytes_waiting += size
        self.bytes_waiting += size

    def leave(self, key: int) -> bool:
        """It is a member now, or gone; whether it went without a valid word."""
        if (name := self.places.get(key)) is None:
            return False
        silent = key in self.half_open
        self.spoke(key)
        self.holds(key, 0)
        del self.places[key]
        source = self._sources[name]
        size = source.waiting.pop(key, 0)
        source.bytes_waiting -= size
        self.bytes_waiting -= size
        source.standing -= 1
        if not source.standing:
            del self._sources[name]
        return silent
