"""Network events of one socket: who is to be told, what is recorded, when an event may come again.

The rules are those of section 7 of the model. An event that has been indicated stays silent until
its re-enabling call. Event objects are set, and messages posted, without any lock and in the order
in which things happened: whoever indicates something delivers whatever is due, one thread at a
time.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from joinleaf.spi import constants as c
from joinleaf.winsock.outlet import Outlet

__all__ = ["EventTarget", "Notices", "Target", "WindowTarget", "bit_numbers"]


@dataclass(frozen=True, slots=True)
class EventTarget:
    """Registered by WSPEventSelect.

    Attributes:
        event: Handle of the event object.
        mask: FD_* bits.
    """

    event: int
    mask: int


@dataclass(frozen=True, slots=True)
class WindowTarget:
    """Registered by WSPAsyncSelect.

    Attributes:
        window: hWnd.
        message: wMsg.
        mask: FD_* bits.
        handle: The descriptor that goes along as wParam.
    """

    window: int
    message: int
    mask: int
    handle: int


Target = EventTarget | WindowTarget


def bit_numbers(bits: int) -> list[int]:
    """Indexes into iErrorCode of the bits that are set."""
    return [number for number in range(c.FD_MAX_EVENTS) if bits >> number & 1]


class Notices:
    """Registration and event record of one socket. Every method may be called by any thread.

    Args:
        outlet: Sets events and posts messages.
    """

    __slots__ = (
        "_codes",
        "_delivering",
        "_due",
        "_enabled",
        "_lock",
        "_record",
        "outlet",
        "target",
    )

    def __init__(self, outlet: Outlet) -> None:
        self.target: Target | None = None
        self.outlet = outlet
        self._lock = threading.Lock()
        self._enabled = c.FD_ALL_EVENTS
        self._record = 0
        self._codes = [0] * c.FD_MAX_EVENTS
        self._due: deque[Callable[[], None]] = deque()
        self._delivering = False

    @property
    def is_active(self) -> bool:
        """Whether anybody is to be told of anything."""
        return self.target is not None

    def register(self, target: Target | None) -> None:
        """Replace the registration; everything may be indicated again. Clears the record."""
        with self._lock:
            self.target = target
            self._enabled = c.FD_ALL_EVENTS
            if not isinstance(target, WindowTarget):
                self._record = 0

    def wants(self, bit: int) -> bool:
        """Whether indicating this event now would reach anybody."""
        target = self.target
        return target is not None and bool(target.mask & bit & self._enabled)

    def enable(self, bits: int) -> None:
        """The re-enabling call has been made."""
        with self._lock:
            self._enabled |= bits

    def signal(self, bit: int, code: int = 0) -> bool:
        """Indicate one event, if somebody wants it and it is not silent.

        Returns:
            Whether it was indicated.
        """
        with self._lock:
            target = self.target
            if target is None or not target.mask & bit & self._enabled:
                return False
            self._enabled &= ~bit
            self._due.append(self._delivery(target, bit, code))
        self._deliver()
        return True

    def _delivery(self, target: Target, bit: int, code: int) -> Callable[[], None]:
        if isinstance(target, WindowTarget):
            lparam = bit | (code & 0xFFFF) << 16
            return lambda: self.outlet.post(target.window, target.message, target.handle, lparam)
        self._record |= bit
        self._codes[bit.bit_length() - 1] = code
        return lambda: self.outlet.set_event(target.event)

    def _deliver(self) -> None:
        with self._lock:
            if self._delivering:
                return  # that thread takes ours along
            self._delivering = True
        try:
            while (deliver := self._next()) is not None:
                deliver()
        except BaseException:
            self._delivering = False
            raise

    def _next(self) -> Callable[[], None] | None:
        with self._lock:
            if not self._due:
                self._delivering = False
                return None
            return self._due.popleft()

    def take(self) -> tuple[int, list[int]]:
        """WSPEnumNetworkEvents: the record and its ten codes; the record is empty afterwards."""
        with self._lock:
            bits, self._record = self._record, 0
            return bits, list(self._codes)

    def silence(self) -> None:
        """The socket is closed by its client: nothing is indicated any more."""
        with self._lock:
            self.target = None
            self._due.clear()
            self._record = 0

    def child(self, handle: int) -> Notices:
        """Registration of a socket that came from this one (clauses 94, 95); an empty record."""
        made = Notices(self.outlet)
        target = self.target
        if isinstance(target, WindowTarget):
            target = WindowTarget(target.window, target.message, target.mask, handle)
        made.target = target
        return made
