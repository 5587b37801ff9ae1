"""What a socket's client wants to hear of outside its session: routes, addresses, agreed QoS.

An interest lasts for one change, as the commands have it: SIO_ADDRESS_LIST_CHANGE and
SIO_ROUTING_INTERFACE_CHANGE ask anew each time, and so does an overlapped SIO_GET_QOS.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from joinleaf.drivers.changes import Change, host_changes
from joinleaf.spi import constants as c

__all__ = ["Interests"]

_EVENTS: Final = {
    Change.ROUTES: c.FD_ROUTING_INTERFACE_CHANGE,
    Change.ADDRESSES: c.FD_ADDRESS_LIST_CHANGE,
}


class Interests:
    """Counts changes of one socket's surroundings, and indicates those that are waited for.

    Args:
        changed: Called with the FD_* bit of a change that was asked about.
    """

    def __init__(self, changed: Callable[[int], None]) -> None:
        self._changed = changed
        self._lock = threading.Lock()
        self._counts: dict[int, int] = {}
        self._asked: set[int] = set()
        self._stop: Callable[[], None] | None = None

    def count(self, event: int) -> int:
        """How many changes of this kind there have been: differs once there is another."""
        return self._counts.get(event, 0)

    def ask(self, event: int) -> None:
        """Have the next change indicated. Raises WSAEOPNOTSUPP where nobody can tell."""
        with self._lock:
            self._asked.add(event)
            if self._stop is None:
                self._stop = host_changes.listen(self._on_change)

    def happened(self, event: int) -> None:
        """Count a change that somebody else has noticed."""
        with self._lock:
            self._counts[event] = self._counts.get(event, 0) + 1

    def _on_change(self, change: Change) -> None:
        for kind, event in _EVENTS.items():
            if kind in change:
                self.happened(event)
                with self._lock:
                    wanted = event in self._asked
                    self._asked.discard(event)
                if wanted:
                    self._changed(event)

    def close(self) -> None:
        """Hear no more."""
        with self._lock:
            stop, self._stop = self._stop, None
        if stop is not None:
            stop()
