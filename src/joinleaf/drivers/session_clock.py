"""One timer for all the clocks of a session."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

from joinleaf.core.session import Session
from joinleaf.drivers.reactor import Cancellable, Reactor

__all__ = ["SessionClock"]

TICKS_PER_BOUND: Final = 40
"""Deadlines are rounded up to a fraction of the bound on silence: legs share ticks by that."""

SHORTEST_TICK_S: Final = 0.005
LONGEST_TICK_S: Final = 0.25


class SessionClock:
    """Has the session's deadlines kept. Everything under the driver's lock.

    Args:
        session: Whose.
        reactor: Where the timer runs.
        tick: Called when one is due; takes the lock by itself, and calls ``ticked`` first.
    """

    def __init__(self, session: Session, reactor: Reactor, tick: Callable[[], None]) -> None:
        self._session = session
        self._reactor = reactor
        self._tick = tick
        quantum = session.settings.dead_after / TICKS_PER_BOUND
        self._quantum = min(max(quantum, SHORTEST_TICK_S), LONGEST_TICK_S)
        self._timer: Cancellable | None = None
        self._due = float("inf")
        self._closed = False

    def schedule(self, keys: Iterable[int] | None = None) -> None:
        """Have the earliest clock of these legs, or of all, run in time.

        Only a leg that something happened to can be due earlier than before; to ask all of them
        each time would make the join of the thousandth cost a thousand times that of the first.
        """
        due_ns = self._session.next_deadline_ns(keys) if not self._closed else None
        if due_ns is None:
            return
        # Rounded up: a thousand legs then share ticks instead of having one each.
        due = (due_ns / 1e9 // self._quantum + 1) * self._quantum
        if due < self._due - 0.001:
            if self._timer is not None:
                self._timer.cancel()
            self._due = due
            self._timer = self._reactor.call_later(max(0.0, due - time.monotonic()), self._tick)

    def ticked(self) -> None:
        """The timer has run; the next deadline needs a new one."""
        self._due = float("inf")

    def close(self) -> None:
        """Keep no deadline any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
