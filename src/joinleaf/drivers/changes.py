"""Telling when the host's addresses or routes change, as a netlink socket of Linux does.

What a change consists of is not told: whoever is interested looks at the interfaces again.
"""

from __future__ import annotations

import contextlib
import enum
import socket
import struct
import sys
import threading
from collections.abc import Callable
from typing import Final

from joinleaf.drivers.reactor import shared_reactor
from joinleaf.errors import SpiError
from joinleaf.spi.codes import WSAEOPNOTSUPP, spi_error_from_os

__all__ = ["Change", "Changes", "host_changes", "kinds_in"]


class Change(enum.Flag):
    """What has changed."""

    ADDRESSES = enum.auto()
    ROUTES = enum.auto()


_HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, sender
# Multicast groups of rtnetlink, from linux/rtnetlink.h: links, addresses and routes of both.
_GROUPS: Final = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
_NEWLINK, _DELLINK = 16, 17
_KINDS: Final = {
    _NEWLINK: Change.ROUTES,
    _DELLINK: Change.ROUTES,
    20: Change.ADDRESSES,  # RTM_NEWADDR
    21: Change.ADDRESSES,  # RTM_DELADDR
    24: Change.ROUTES,  # RTM_NEWROUTE
    25: Change.ROUTES,  # RTM_DELROUTE
}
_READ_BYTES: Final = 65536
_NONE: Final = Change(0)

Listener = Callable[[Change], None]


def kinds_in(data: bytes) -> Change:
    """The kinds of change that a netlink datagram tells of; what is not understood is skipped."""
    found, offset = _NONE, 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        found |= _KINDS.get(kind, _NONE)
        if length < _HEADER.size:
            break
        offset += (length + 3) & ~3
    return found


class Changes:
    """Tells listeners of changes, on the reactor's thread. Nothing is open while nobody listens."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[int, Listener] = {}
        self._next = 0
        self._sock: socket.socket | None = None

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Tell this one from now on; it must not block.

        Returns:
            What to call to hear no more; twice is allowed.

        Raises:
            SpiError: WSAEOPNOTSUPP: this system has no way to tell; or as the system says.
        """
        with self._lock:
            if self._sock is None:
                self._sock = _open()
                shared_reactor().watch(self._sock.fileno(), self._on_readable)
            self._next += 1
            number = self._next
            self._listeners[number] = listener
        return lambda: self._forget(number)

    def _forget(self, number: int) -> None:
        with self._lock:
            self._listeners.pop(number, None)
            if not self._listeners and self._sock is not None:
                shared_reactor().unwatch(self._sock.fileno())
                self._sock.close()
                self._sock = None

    def _on_readable(self) -> None:
        found = _NONE
        with self._lock:
            sock = self._sock
            while sock is not None:
                try:
                    found |= kinds_in(sock.recv(_READ_BYTES))
                except BlockingIOError:
                    break
                except OSError:  # more happened than the kernel kept: anything may have changed
                    found |= Change.ADDRESSES | Change.ROUTES
                    break
        if found:
            self.tell(found)

    def tell(self, change: Change) -> None:
        """Tell all listeners of a change, on this thread."""
        with self._lock:
            listeners = list(self._listeners.values())
        for listener in listeners:
            listener(change)

    @property
    def is_open(self) -> bool:
        """Whether the system is being listened to."""
        return self._sock is not None


def _open() -> socket.socket:
    if sys.platform != "linux":
        raise SpiError(WSAEOPNOTSUPP, "this system does not tell of changes")
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    except OSError as error:
        raise spi_error_from_os(error, call="changes") from error
    with contextlib.ExitStack() as undo:
        undo.callback(sock.close)
        sock.setblocking(False)
        sock.bind((0, _GROUPS))
        undo.pop_all()
    return sock


host_changes: Final = Changes()
"""Those of this host."""
