"""The sockets of one rooted session: which there are, how they come about and how they go.

One poller watches them all. What goes in and out of them is in ``stream_traffic.py``.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

from joinleaf.core.session import Output, Session
from joinleaf.drivers.connections import Connection, address_of, start_connecting
from joinleaf.drivers.listener import Listener
from joinleaf.drivers.names import Places
from joinleaf.drivers.poller import READ, new_poller
from joinleaf.drivers.reactor import Reactor, reactor_in_use
from joinleaf.drivers.readership import Readership
from joinleaf.drivers.session_clock import SessionClock
from joinleaf.drivers.sides import PlainSide, SecureConnection, Side
from joinleaf.drivers.tls_errors import TlsError
from joinleaf.drivers.waiting import Waiter
from joinleaf.spi.codes import code_of_errno
from joinleaf.values import Address

__all__ = ["Callbacks", "StreamSockets"]

Callbacks = list[Callable[[], None]]


class StreamSockets(ABC):
    """See the module.

    Args:
        session: The core it runs.
        dispatch: Called under the lock with outputs; returns callbacks to make without it.
        side: Makes connections of sockets, encrypted ones or not; None: they are not.

    Attributes:
        lock: Guards the session and everything of the endpoints that share this driver.
        changed: Notified after outputs other than data have been dispatched.
        waiter: What threads inside a blocking call wait on.
        closed: Everything has been given back.
    """

    def __init__(
        self,
        session: Session,
        dispatch: Callable[[Iterable[Output]], Callbacks],
        side: Side | None = None,
    ) -> None:
        self.session = session
        self._side = side or PlainSide()
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.waiter = Waiter()
        self.closed = False
        self._dispatch = dispatch
        self._reactor = reactor_in_use()
        self._poller = new_poller()
        self._clock = SessionClock(session, self._reactor, self._tick)
        self._readers = Readership(self.lock, self._poller, self._reactor, self.catch_up)
        self._connections: dict[int, Connection] = {}
        self._keys: dict[int, int] = {}  # descriptor to key
        self._sources: dict[int, Callable[[int], None]] = {}
        self._numbers = itertools.count(1)
        self._listener: Listener | None = None

    @abstractmethod
    def catch_up(self) -> None:
        """Take note of everything that has come by now; never waits."""

    @abstractmethod
    def _tick(self) -> None:
        """A deadline of the session is due."""

    @property
    def reactor(self) -> Reactor:
        """Who works in the background."""
        return self._reactor

    @property
    def runs_in_reactor(self) -> bool:
        """Whether this is the background thread, which must never wait."""
        return self._reactor.is_current_thread

    # Connections

    def new_key(self) -> int:
        """A number for a leg."""
        return next(self._numbers)

    def keys(self) -> list[int]:
        """Keys of all connections."""
        return list(self._connections)

    def listen(self, sock: socket.socket, backlog: int) -> None:
        """Accept connections on a bound socket from now on; again: with another backlog."""
        with self.lock:
            if self._listener is not None:
                self._listener.set_backlog(backlog)
                return
            self._listener = Listener(
                sock, backlog, self.lock, self._poller, self._reactor, self.session.count
            )
            self._sources[sock.fileno()] = self._accept
            self._readers.watch()

    def stop_listening(self) -> None:
        """Close the listening socket."""
        with self.lock:
            if self._listener is not None:
                del self._sources[self._listener.fileno()]
                self._listener.close()
                self._listener = None

    def add_source(self, fd: int, ready: Callable[[int], None], what: int = READ) -> None:
        """Poll another descriptor beside the connections; again: for something else.

        Args:
            fd: It is the owner's, who takes it out with ``remove_source`` before closing it.
            ready: Called under the lock in each turn, with READ, WRITE or both.
            what: What to watch for.
        """
        with self.lock:
            self._sources[fd] = ready
            self._poller.watch(fd, what)
            self._readers.watch()

    def remove_source(self, fd: int) -> None:
        """Poll it no more; nothing happens if it is not polled."""
        with self.lock:
            if self._sources.pop(fd, None) is not None:
                self._poller.forget(fd)

    def _accept(self, _what: int) -> None:
        listener = self._listener
        assert listener is not None
        fresh: list[int] = []
        for sock, peer in listener.accept():
            now = time.monotonic_ns()
            key = self.new_key()
            fresh.append(key)
            connection = self._side.accepted(sock, peer, heard=self.session.hears(peer, now))
            self._attach(key, connection)
            self.session.connection_opened(key, peer, address_of(sock.getsockname()), now)
        self._clock.schedule(fresh)

    def connect(
        self,
        key: int,
        places: Places,
        local: socket.socket | None,
        make: Callable[[socket.socket], Connection] = Connection,
    ) -> None:
        """Start connecting to the first place that works; the session already has the leg.

        Args:
            key: The leg's.
            places: Where the peer may be.
            local: A bound socket to use.
            make: What is made of the socket.
        """
        with self.lock:
            self._try_connect(key, places, make, local)
            self._clock.schedule((key,))
            self._readers.watch()

    def _try_connect(
        self,
        key: int,
        places: Places,
        make: Callable[[socket.socket], Connection],
        local: socket.socket | None = None,
        failure: OSError | None = None,
    ) -> None:
        try:
            sock = start_connecting(places, local, failure)
        except OSError as error:
            self._connect_failed(key, error)
            return
        connection = make(sock)
        connection.places = places
        self._attach(key, connection)

    def _connect_failed(self, key: int, failure: OSError) -> None:
        number = failure.errno or errno.ECONNREFUSED
        peer = self.session.legs[key].association.peer
        self.session.lost(
            key,
            time.monotonic_ns(),
            code=code_of_errno(number),
            message=f"cannot reach {peer}: {os.strerror(number)}",
        )

    def _establish(self, key: int, connection: Connection) -> None:
        """Go on with a connection over which nothing may be sent yet."""
        reached = connection.reached
        try:
            what = connection.establish()
        except OSError as error:
            self._not_established(key, connection, error)
            return
        now = time.monotonic_ns()
        self._want(connection, what or READ)
        if what and connection.reached and not reached:
            self.session.reached(key, now)
        if not what:
            if isinstance(connection, SecureConnection):
                self.session.secured(key, now, connection.identity, connection.gate)
            else:
                self.session.connected(key, now)
            self._established(key)
        self._clock.schedule((key,))  # an asker has to show that it lives, while it waits

    def _not_established(self, key: int, connection: Connection, error: OSError) -> None:
        if connection.reached:  # somebody is there, and another place would be somebody else
            self._lost(key, error)
            return
        self._detach(connection)
        connection.close()
        self._try_connect(key, connection.places, connection.like, failure=error)

    @abstractmethod
    def _established(self, key: int) -> None:
        """The first byte may be moved; what has come with the last of a handshake is there now."""

    def _lost(self, key: int, error: OSError) -> None:
        """The leg's connection has failed."""
        code = code_of_errno(error.errno or 0)
        now = time.monotonic_ns()
        if isinstance(error, TlsError):
            self.session.lost(key, now, code=code, message=error.message, hint=error.hint)
        else:
            self.session.lost(key, now, code=code, message=str(error))

    def _attach(self, key: int, connection: Connection) -> None:
        self._connections[key] = connection
        self._keys[connection.fileno()] = key
        self._want(connection, connection.want)

    def _detach(self, connection: Connection) -> None:
        fd = connection.fileno()
        if fd >= 0:
            self._poller.forget(fd)
            self._keys.pop(fd, None)

    def _want(self, connection: Connection, what: int) -> None:
        connection.want = what
        self._poller.watch(connection.fileno(), what & ~READ if connection.deaf else what)

    def hand_over(self, key: int, other: StreamSockets) -> int:
        """Move a connection to another driver (an accepted invitation to its member)."""
        connection = self._connections.pop(key)
        self._detach(connection)
        new = other.new_key()
        connection.want = READ
        other._attach(new, connection)
        return new

    def local_address(self, key: int) -> Address | None:
        """The leg's own socket address."""
        connection = self._connections.get(key)
        return None if connection is None else connection.local_address()

    def sole_connection(self) -> tuple[int, Connection] | None:
        """The one connection, with its key, where nothing else is polled. Under the lock."""
        if len(self._connections) != 1 or self._sources:
            return None
        return next(iter(self._connections.items()))

    def poller_fileno(self) -> int:
        """A descriptor that is readable when there is something to do."""
        return self._poller.fileno()

    # The end

    def _close_connection(self, key: int) -> None:
        connection = self._connections.pop(key, None)
        if connection is not None:
            self._detach(connection)
            connection.close()
        self.session.removed(key)
        self.changed.notify_all()
        self.waiter.interrupt()  # who waits for this very socket looks again

    def reset_connection(self, key: int) -> None:
        """Make the close that follows an abortive one (the peer sees a reset)."""
        connection = self._connections.get(key)
        if connection is not None:
            connection.reset_on_close()

    def dispose(self) -> None:
        """Give everything back: sockets, descriptors, timers. The session is over."""
        with self.lock:
            if self.closed:
                return
            self.closed = True
            self._readers.close()
            self._clock.close()
            self.stop_listening()
            self.waiter.close()
            for connection in self._connections.values():
                connection.close()
            self._connections.clear()
            self._poller.close()
            self.changed.notify_all()

    def abandon(self) -> None:
        """Forget, in a forked child, a session of its parent, without a word to the peers.

        The descriptors are only closed: taking them out of the poller would take them out of the
        parent's too. Locks are new, as others may have been held by threads that are not here.
        """
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.waiter = Waiter()
        self.waiter.close()
        self.closed = True
        self._readers.abandon(self.lock)
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        self._keys.clear()
        self._sources.clear()
        if self._listener is not None:
            self._listener.abandon()
            self._listener = None
        self._poller.close()
