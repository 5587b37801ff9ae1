"""Who reads a session's sockets: whoever waits in receive, and else the reactor.

It takes over a moment after the last receive, not at once, so that a loop of receive calls keeps
the sockets to itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from joinleaf.drivers.poller import Poller
from joinleaf.drivers.reactor import Reactor

__all__ = ["Readership"]

TAKEOVER_S: Final = 0.05
"""The reactor reads for a session once no caller has for this long."""

_TAKEOVER_NS: Final = int(TAKEOVER_S * 1e9)

LOOK_EVERY_S: Final = 0.01
"""How often it looks where a poller has no descriptor to nest (Windows)."""


class Readership:
    """See the module.

    Args:
        lock: The driver's; what says so below is called under it.
        poller: The driver's.
        reactor: Who reads when nobody else does.
        work: One turn at the sockets; takes the lock by itself.

    Attributes:
        callers: Threads that read for themselves just now.
    """

    def __init__(
        self, lock: threading.RLock, poller: Poller, reactor: Reactor, work: Callable[[], None]
    ) -> None:
        self.callers = 0
        self._lock = lock
        self._poller = poller
        self._reactor = reactor
        self._work = work
        self._watching = False
        self._last_read_ns = 0
        self._takeover_armed = False
        self._closed = False

    def enter(self) -> None:
        """This thread reads from now on. Not under the lock."""
        if self._reactor.is_current_thread:
            return  # it reads for itself, and goes on watching
        with self._lock:
            self.callers += 1
            if self._watching and not self._closed:
                self._watching = False
                self._reactor.unwatch(self._poller.fileno())

    @property
    def at_work(self) -> bool:
        """Whether a caller reads, or is about to be back. Under the lock."""
        return self.callers > 0 or (self._takeover_armed and not self._watching)

    def may_look(self, now_ns: int) -> bool:
        """Whether this thread may read once without entering, as it does not wait.

        Under the lock. Not while the reactor watches: it would wake for all that comes.
        """
        self._last_read_ns = now_ns
        return self._takeover_armed and not self._watching

    def leave(self) -> None:
        """It reads no more. Not under the lock."""
        if self._reactor.is_current_thread:
            return
        with self._lock:
            self.callers -= 1
            self._last_read_ns = time.monotonic_ns()
            if not self._takeover_armed and not self._closed:
                self._takeover_armed = True
                self._reactor.call_later(TAKEOVER_S, self._take_over)

    def _take_over(self) -> None:
        with self._lock:
            self._takeover_armed = False
            if self._closed or self._watching or self.callers:
                return  # who waits in receive reads; leaving it arms this again
            left_ns = self._last_read_ns + _TAKEOVER_NS - time.monotonic_ns()
            if left_ns > 0:
                self._takeover_armed = True
                self._reactor.call_later(left_ns / 1e9, self._take_over)
                return
            self.watch()

    def watch(self) -> None:
        """Have the reactor read, if nobody else does. Under the lock."""
        if self._watching or self.callers or self._closed:
            return
        self._watching = True
        if self._poller.fileno() >= 0:
            self._reactor.watch(self._poller.fileno(), self._work)
        else:  # no descriptor to nest: look now and then
            self._reactor.call_later(LOOK_EVERY_S, self._look)

    def _look(self) -> None:
        if self._watching and not self._closed:
            self._work()
            self._reactor.call_later(LOOK_EVERY_S, self._look)

    def close(self) -> None:
        """Nobody reads any more. Under the lock, before the poller is closed."""
        if self._watching:
            self._reactor.unwatch(self._poller.fileno())
        self._closed, self._watching = True, False

    def abandon(self, lock: threading.RLock) -> None:
        """In a forked child: forget about it, and use this lock; the other may be held for ever."""
        self._lock = lock
        self._closed, self._watching = True, False
