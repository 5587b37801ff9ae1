"""Indications of a datagram endpoint: FD_CONNECT, FD_READ, FD_WRITE; never FD_CLOSE.

FD_READ and FD_WRITE are noticed by the reactor in use at the opening; each is told once and armed
again by the endpoint (model, section 7.3). Who has not subscribed pays nothing.
"""

from __future__ import annotations

import socket
import threading

from joinleaf.drivers.poller import WRITE, Poller, new_poller
from joinleaf.drivers.reactor import Reactor, chosen_reactor, shared_reactor
from joinleaf.spi.constants import FD_CONNECT, FD_READ, FD_WRITE
from joinleaf.spi.provider import Endpoint, EndpointEvent, EventCallback

__all__ = ["Indications"]


class Indications:
    """Tells one subscriber about one socket. Any thread may call; no lock is held calling out."""

    __slots__ = (
        "_callback",
        "_chosen",
        "_endpoint",
        "_lock",
        "_room",
        "_sock",
        "_unreported",
        "_watching",
    )

    def __init__(self, endpoint: Endpoint, sock: socket.socket) -> None:
        self._endpoint = endpoint
        self._sock = sock
        self._chosen = chosen_reactor()
        self._lock = threading.Lock()
        self._callback: EventCallback | None = None
        self._unreported: EndpointEvent | None = None
        self._watching = -1  # the descriptor under watch
        self._room: Poller | None = None

    @property
    def _reactor(self) -> Reactor:
        """The process's own is made only if somebody subscribes."""
        return self._chosen or shared_reactor()

    def subscribe(self, callback: EventCallback | None) -> None:
        """Tell this one from now on; an outcome that nobody has heard of yet comes at once."""
        if callback is None:
            self.close()
            return
        with self._lock:
            self._callback = callback
            missed, self._unreported = self._unreported, None
        if missed is not None:
            self._tell(missed)

    def connect(self, code: int) -> None:
        """A started join has its outcome (6.6, H2 and H3); kept until somebody subscribes."""
        event = EndpointEvent(FD_CONNECT, code)
        with self._lock:
            self._unreported = event if self._callback is None else None
        self._tell(event)

    def write(self) -> None:
        """Sending is possible."""
        self._tell(EndpointEvent(FD_WRITE))

    def arm_read(self, *, undelivered: bool) -> None:
        """Tell once when there is something to receive; at once if something is undelivered."""
        with self._lock:
            fd = self._sock.fileno()
            if self._callback is None or fd < 0:
                return
            if not undelivered:
                self._watching = fd
                self._reactor.watch(fd, self._on_readable)
                return
        self._tell(EndpointEvent(FD_READ))

    def arm_write(self) -> None:
        """Tell once when there is room (where a poller has a descriptor: Linux)."""
        with self._lock:
            fd = self._sock.fileno()
            if self._callback is None or self._room is not None or fd < 0:
                return
            room = new_poller()
            if room.fileno() < 0:
                room.close()
                return
            room.watch(fd, WRITE)
            self._room = room
            self._reactor.watch(room.fileno(), self._on_room)

    def close(self) -> None:
        """Tell nobody any more. Comes before the socket is closed."""
        with self._lock:
            self._callback = None
            self._stop_reading()
            self._stop_room()

    def _tell(self, event: EndpointEvent) -> None:
        callback = self._callback
        if callback is not None:
            callback(self._endpoint, event)

    def _on_readable(self) -> None:
        with self._lock:
            self._stop_reading()
        self._tell(EndpointEvent(FD_READ))

    def _on_room(self) -> None:
        with self._lock:
            self._stop_room()
        self._tell(EndpointEvent(FD_WRITE))

    def _stop_reading(self) -> None:
        watching, self._watching = self._watching, -1
        if watching >= 0:
            self._reactor.unwatch(watching)

    def _stop_room(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            self._reactor.unwatch(room.fileno())
            room.close()
