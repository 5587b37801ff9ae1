"""Runs one rooted session over TCP: sockets in, sockets out, clocks.

Whoever waits does the work: a thread inside receive reads the sockets itself, and a thread inside
send writes them; no data change hands between threads. Only while no thread is inside receive does
the reactor read on its behalf, up to a bound. It takes over a moment after the last receive, not at
once, so that a loop of receive calls keeps the sockets to itself.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import mmap
import os
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from joinleaf.core.association import Association
from joinleaf.core.leg import LegState
from joinleaf.core.outbox import Outbox
from joinleaf.core.root_session import RootSession
from joinleaf.core.session import Arrived, Drop, Output, Session
from joinleaf.drivers.blocked import BlockedSockets
from joinleaf.drivers.names import Places, resolve
from joinleaf.drivers.poller import READ, WRITE, new_poller
from joinleaf.drivers.reactor import Cancellable, Reactor, reactor_in_use
from joinleaf.drivers.waiting import Waiter
from joinleaf.errors import SpiError
from joinleaf.spi.codes import (
    WSAECONNABORTED,
    WSAEINTR,
    code_of_errno,
    spi_error_from_os,
)
from joinleaf.values import Address

__all__ = ["SCRATCH_BYTES", "StreamDriver", "listen_on", "new_scratch", "resolve"]

_log: Final = logging.getLogger("joinleaf")

T = TypeVar("T")

Callbacks = list[Callable[[], None]]

SCRATCH_BYTES: Final = 512 << 10
"""Read at most this much in one call: several frames of the usual size."""

TAKEOVER_S: Final = 0.05
"""The reactor reads for a session once no caller has for this long."""

ACCEPT_BUDGET: Final = 64
"""Connections taken per turn, so that a flood of them does not starve the legs."""

READ_BUDGET: Final = 4
"""Reads per leg and turn, for the same reason."""

TURN_BYTES: Final = 4 << 20
"""Bytes read per turn from all legs together. Only after a turn is the owner's queue looked at; a
thousand eager leaves would otherwise fill memory in one. The poller rotates, so nobody starves."""

WARN_EVERY_S: Final = 10.0
"""A lasting lack of descriptors is logged this often, not at every attempt."""

_NO_SIGNAL: Final = getattr(socket, "MSG_NOSIGNAL", 0)
"""A program that has SIGPIPE at its default, as filters do, must not die of a leaf that left."""

_WOULD_BLOCK: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EINPROGRESS, errno.EINTR})


def new_scratch() -> memoryview:
    """Memory to read into, of which only what is ever filled takes room.

    A bytearray would be written full of zeros at once: half a MiB for each of a thousand leaves.
    """
    if sys.platform == "win32":
        return memoryview(mmap.mmap(-1, SCRATCH_BYTES))
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    return memoryview(mmap.mmap(-1, SCRATCH_BYTES, flags=flags))


def address_of(place: tuple[object, ...]) -> Address:
    """A socket's address as a value."""
    host, _, scope = str(place[0]).partition("%")
    mapped = host[7:] if host.startswith("::ffff:") and "." in host else host
    return Address(mapped, int(str(place[1])), scope)


def listen_on(address: Address) -> socket.socket:
    """A bound TCP socket that does not listen yet.

    The wildcard serves IPv6 and IPv4 where the system has both. A port is taken from nobody who is
    bound to it; one that only lingers from an earlier connection is free.

    Raises:
        SpiError: WSAEADDRINUSE, WSAEADDRNOTAVAIL, WSAEACCES.
    """
    if not address.host and socket.has_dualstack_ipv6():
        places: Places = [(socket.AF_INET6, ("::", address.port, 0, 0))]
    elif not address.host:
        places = [(socket.AF_INET, ("0.0.0.0", address.port))]
    else:
        places = resolve(address, passive=True)
    family, place = places[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if not address.host else 1)
        _bind_alone(sock, place)
    except OSError as error:
        sock.close()
        raise spi_error_from_os(error, call="bind", message=f"cannot bind {address}") from error
    return sock


def _bind_alone(sock: socket.socket, place: tuple[object, ...]) -> None:
    """Bind, sharing the port with nothing but connections that have ended.

    Unix lets two sockets have one port if both want to share and neither listens yet. So the first
    try does not share; the second does, and meets only what is not bound any more.
    """
    try:
        sock.bind(place)
    except OSError as error:
        # Elsewhere than on Unix sharing would let strangers take over the port.
        if os.name != "posix" or error.errno != errno.EADDRINUSE:
            raise
        _let_share(sock)
        sock.bind(place)


def _let_share(sock: socket.socket) -> None:
    """Let the port be bound again once this socket's connections have ended."""
    if os.name == "posix":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


class _Connection:
    """A socket and what the driver knows of it."""

    __slots__ = ("broken", "closing", "connecting", "deaf", "half_closed", "places", "sock", "want")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.broken = 0  # errno of a failed send: nothing more goes out, what came in is read
        self.deaf = False  # not read for now, because the owner or a listener is behind
        self.want = READ
        self.connecting = False
        self.half_closed = False
        self.closing = False
        self.places: Places = []


class StreamDriver:
    """See the module.

    Args:
        session: The core it runs.
        dispatch: Called under the lock with outputs; returns callbacks to make without it.

    Attributes:
        lock: Guards the session and everything of the endpoints that share this driver.
        changed: Notified after outputs other than data have been dispatched.
        waiter: What threads inside a blocking call wait on.
    """

    def __init__(
        self,
        session: Session,
        dispatch: Callable[[Iterable[Output]], list[Callable[[], None]]],
    ) -> None:
        self.session = session
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.waiter = Waiter()
        self.cancellations = 0
        self.closed = False
        self.finishing = False
        self.paused = False  # no member is read, because one that must hear it all is behind
        self._hold_all = False  # no member is read: the owner's queue of received messages is full
        self._any_deaf = False
        self._starved: dict[object, tuple[Sequence[int], Callable[[], Callbacks]]] = {}
        self._held: dict[int, None] = {}  # legs not read: their own queue is full
        self._turn_bytes = 0
        self._warned = float("-inf")
        self._unarmed: dict[int, None] = {}
        self._quantum = min(max(session.settings.dead_after / 40, 0.005), 0.25)
        self._dispatch = dispatch
        self._reactor = reactor_in_use()
        self._poller = new_poller()
        self._connections: dict[int, _Connection] = {}
        self._keys: dict[int, int] = {}  # descriptor to key
        self._numbers = itertools.count(1)
        self._listener: socket.socket | None = None
        self._pumping = 0
        self._watching = False
        self._last_pump = 0.0
        self._tick_timer: Cancellable | None = None
        self._tick_due = float("inf")
        self._takeover_armed = False
        _drivers.add(self)

    # Connections

    def new_key(self) -> int:
        """A number for a leg."""
        return next(self._numbers)

    def listen(self, sock: socket.socket, backlog: int) -> None:
        """Accept connections on a bound socket from now on."""
        with self.lock:
            _let_share(sock)  # its connections inherit it
            sock.listen(min(backlog, 65535))
            if self._listener is None:
                self._listener = sock
                self._poller.watch(sock.fileno(), READ)
                self._watch()

    def stop_listening(self) -> None:
        """Close the listening socket."""
        with self.lock:
            if self._listener is not None:
                self._poller.forget(self._listener.fileno())
                self._listener.close()
                self._listener = None

    def connect(self, key: int, places: Places, local: socket.socket | None) -> None:
        """Start connecting to the first place that works; the session already has the leg."""
        with self.lock:
            connection = self._try_connect(key, places, local)
            if connection is None:
                return
            self._connections[key] = connection
            self._keys[connection.sock.fileno()] = key
            self._want(connection, WRITE)
            self._schedule((key,))
            self._watch()

    def _try_connect(
        self,
        key: int,
        places: Places,
        local: socket.socket | None = None,
        failure: OSError | None = None,
    ) -> _Connection | None:
        while places:
            family, place = places.pop(0)
            sock, local = local, None
            try:
                if sock is None:
                    sock = socket.socket(family, socket.SOCK_STREAM)
                    sock.setblocking(False)
                _let_share(sock)
                result = sock.connect_ex(place)
            except OSError as error:
                failure = error
                if sock is not None:
                    sock.close()
                continue
            if result and result not in _WOULD_BLOCK:
                failure = OSError(result, os.strerror(result))
                sock.close()
                continue
            _tune(sock)
            connection = _Connection(sock)
            connection.connecting = True
            connection.places = places
            return connection
        self._connect_failed(key, failure)
        return None

    def _connect_failed(self, key: int, failure: OSError | None) -> None:
        number = failure.errno if failure is not None and failure.errno else errno.ECONNREFUSED
        peer = self.session.legs[key].association.peer
        self.session.lost(
            key,
            time.monotonic_ns(),
            code=code_of_errno(number),
            message=f"cannot reach {peer}: {os.strerror(number)}",
        )

    def _finish_connect(self, key: int, connection: _Connection) -> None:
        sock = connection.sock
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        with contextlib.suppress(OSError):
            if not number and sock.getsockname() == sock.getpeername():
                # Nobody listens, and the system chose the very port asked for as this end's own.
                number = errno.ECONNREFUSED
        if not number:
            connection.connecting = False
            self._want(connection, READ)
            self.session.connected(key, time.monotonic_ns())
            self._schedule((key,))  # an asker has to show that it lives, while it waits
            return
        self._detach(connection)
        sock.close()
        failure = OSError(number, os.strerror(number))
        fresh = self._try_connect(key, connection.places, failure=failure)
        if fresh is not None:
            self._connections[key] = fresh
            self._keys[fresh.sock.fileno()] = key
            self._want(fresh, WRITE)

    def local_address(self, key: int) -> Address | None:
        """The leg's own socket address."""
        connection = self._connections.get(key)
        if connection is None:
            return None
        with contextlib.suppress(OSError):
            return address_of(connection.sock.getsockname())
        return None

    def sole_socket(self) -> int:
        """The descriptor of the one connection, where there is just one; else the poller's."""
        if len(self._connections) == 1 and self._listener is None:
            return next(iter(self._connections.values())).sock.fileno()
        return self._poller.fileno()

    def poller_fileno(self) -> int:
        """A descriptor that is readable when there is something to do."""
        return self._poller.fileno()

    def hand_over(self, key: int, other: StreamDriver) -> int:
        """Move a connection to another driver (an accepted invitation to its member)."""
        connection = self._connections.pop(key)
        self._detach(connection)
        new = other.new_key()
        other._connections[new] = connection
        other._keys[connection.sock.fileno()] = new
        other._want(connection, READ)
        return new

    def start_adopted(self) -> None:
        """Go to work on a connection that another driver handed over. Not under its lock."""
        self.run(self._watch)

    def _want(self, connection: _Connection, what: int) -> None:
        connection.want = what
        self._poller.watch(connection.sock.fileno(), what & ~READ if connection.deaf else what)

    def _detach(self, connection: _Connection) -> None:
        fd = connection.sock.fileno()
        if fd >= 0:
            self._poller.forget(fd)
            self._keys.pop(fd, None)

    # The work

    def run(self, action: Callable[[], T], *, clocks: bool = True) -> T:
        """Do something with the session under the lock; then whatever follows from it.

        Args:
            action: Its result or error is handed on, after the callbacks have been made.
            clocks: Whether it may have brought a deadline forward.
        """
        callbacks: list[Callable[[], None]] = []
        try:
            with self.lock:
                try:
                    return action()
                finally:
                    callbacks = self.settle()
                    if clocks:
                        self._schedule(self.session.touched)
                    self.session.touched.clear()
        finally:
            for callback in callbacks:
                callback()

    def settle(self, *, arm: bool = True) -> list[Callable[[], None]]:
        """Send what is queued and dispatch outputs, until nothing new comes. Under the lock.

        Args:
            arm: Have the reactor send what the kernel did not take; a sender that will wait for
                it itself says False, and calls ``arm_output`` in the end.

        Returns:
            Callbacks to make once the lock is free.
        """
        callbacks: list[Callable[[], None]] = []
        session = self.session
        while session.out or session.dirty:
            while session.dirty:
                key = next(iter(session.dirty))
                del session.dirty[key]
                if not self.flush(key, arm=arm) and not arm:
                    self._unarmed[key] = None
            if session.out:
                outputs = list(session.out)
                session.out.clear()
                callbacks += self._dispatch(outputs)
                self._after_dispatch(outputs)
        # What a leaf sends is passed on in a nonrooted plane, and where a leaf is the data root.
        if isinstance(session, RootSession) and not (session.rooted and session.myself.d_root):
            self.paused = bool(session.over_limit(self._connections))
        self._update_deaf()
        if self._starved:
            callbacks += self._feed_starved()
        if self.finishing and not self._connections:
            self.dispose()
        return callbacks

    def flush_at_once(self, keys: Sequence[int]) -> bool:
        """Send what these legs have queued. Under the lock.

        Returns:
            Whether that was all there is to do: the kernel took it, and nothing came of it. If
            not, ``settle`` has to follow.
        """
        dirty, all_sent = self.session.dirty, True
        for key in keys:
            dirty.pop(key, None)
            if not self.flush(key, arm=False):
                self._unarmed[key] = None
                all_sent = False
        return all_sent and not self.unsettled

    def tell_of_room(self, who: object, keys: Sequence[int], tell: Callable[[], Callbacks]) -> None:
        """Call ``tell`` under the lock, once, when these legs have nothing queued any more."""
        with self.lock:
            self._starved[who] = (keys, tell)
            self.arm_output(keys)

    def _feed_starved(self) -> Callbacks:
        callbacks: Callbacks = []
        for who, (keys, tell) in list(self._starved.items()):
            if not self._queued(keys):
                del self._starved[who]
                callbacks += tell()
        return callbacks

    def _queued(self, keys: Iterable[int]) -> bool:
        """Whether any of these legs has something queued that the kernel did not take."""
        legs = self.session.legs
        for key in keys:
            leg = legs.get(key)
            if leg is not None and leg.association.outbox.size:
                return True
        return False

    def _after_dispatch(self, outputs: Iterable[Output]) -> None:
        touched: dict[int, None] = {}
        for output in outputs:
            if isinstance(output, Drop):
                self._drop(output.key, flush=output.flush)
            if not isinstance(output, Arrived):
                touched[output.key] = None
        self.waiter.interrupt()
        if touched:  # who waits in wait_for waits for none of the data
            self.changed.notify_all()
            self._schedule(touched)

    def finish(self) -> None:
        """Give everything back as soon as the last connection is gone. Under the lock."""
        self.finishing = True
        if not self._connections:
            self.dispose()

    def _update_deaf(self) -> None:
        """Stop or resume reading members.

        Who has not joined yet, or is leaving, is always heard: what it says is bounded, and a full
        queue must not keep others from joining.
        """
        if not (self.paused or self._hold_all or self._held or self._any_deaf):
            return
        self._any_deaf = False
        now = time.monotonic_ns()
        for key, connection in self._connections.items():
            leg = self.session.legs.get(key)
            if leg is None:
                continue
            deaf = (
                leg.association.active
                and not connection.broken  # no more is coming, and its end has to be found
                and (self.paused or self._hold_all or key in self._held)
            )
            self._any_deaf |= deaf
            if deaf != connection.deaf:
                connection.deaf = deaf
                leg.association.reading_ns = None if deaf else now
                self._want(connection, connection.want)

    def set_hold(self, hold: bool, key: int | None = None) -> None:
        """Stop or resume reading, because a queue is full or has room. Under the lock.

        Args:
            hold: Whether to stop.
            key: The leg whose side chat the queue holds; None: the owner's queue, which any
                member fills.
        """
        if key is None:
            self._hold_all = hold
        elif hold:
            self._held[key] = None
        else:
            self._held.pop(key, None)
        self._update_deaf()

    @property
    def unsettled(self) -> bool:
        """Whether there is something for ``settle`` to do. Under the lock."""
        return bool(self.session.out or self.session.dirty or self.paused or self._starved)

    def flush(self, key: int, *, arm: bool = True) -> bool:
        """Send what a leg has queued, as far as the kernel takes it. True if nothing is left."""
        connection = self._connections.get(key)
        leg = self.session.legs.get(key)
        if connection is None or leg is None or connection.connecting:
            return True
        association = leg.association
        outbox = association.outbox
        if connection.broken:
            outbox.clear()
        try:
            while outbox.size:
                _send_head(connection, outbox)
                if not outbox.size and isinstance(self.session, RootSession):
                    self.session.flushed(key)
        except BlockingIOError:
            if arm:
                self._arm(connection)
            return False
        except OSError as error:
            # The peer's last words may still wait to be read; reading then finds the end as well.
            connection.broken = error.errno or errno.EPIPE
            outbox.clear()
            self._update_deaf()
        if connection.want & WRITE:
            self._want(connection, connection.want & ~WRITE)
        if association.state is LegState.ENDING and not connection.half_closed:
            connection.half_closed = True
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_WR)
        elif connection.closing:
            self._close_connection(key)
        return True

    def _arm(self, connection: _Connection) -> None:
        """Have whoever polls, at the least the reactor, go on sending."""
        self._want(connection, connection.want | WRITE)
        if not self._pumping:
            self._watch()

    def arm_output(self, keys: Iterable[int]) -> None:
        """Hand over to the reactor what a sender could not wait for. Under the lock."""
        for key in (*keys, *self._unarmed):
            leg, connection = self.session.legs.get(key), self._connections.get(key)
            if leg is not None and connection is not None and leg.association.outbox:
                self._arm(connection)
        self._unarmed.clear()

    def _lost(self, key: int, association: Association, error: OSError) -> None:
        association.outbox.clear()
        self.session.lost(
            key, time.monotonic_ns(), code=code_of_errno(error.errno or 0), message=str(error)
        )

    def read(self, key: int) -> bool:
        """Read one leg once; False if nothing was there. Under the lock."""
        connection = self._connections.get(key)
        leg = self.session.legs.get(key)
        if connection is None or leg is None:
            return False
        counts: list[int] = []
        try:
            # The count is in the list before Ctrl-C can come between; see ``_send_head``.
            counts.extend(map(connection.sock.recv_into, (leg.association.reader.buffer(),)))
        except BlockingIOError:
            return False
        except OSError as error:
            self._lost(key, leg.association, error)
            return True
        except KeyboardInterrupt:
            if counts:
                self._received(key, connection, counts[0])
            raise
        self._received(key, connection, counts[0])
        return True

    def _received(self, key: int, connection: _Connection, count: int) -> None:
        if not count:
            code = code_of_errno(connection.broken) if connection.broken else 0
            self.session.lost(key, time.monotonic_ns(), code=code)
            return
        self._turn_bytes += count
        try:
            self.session.received(key, count, time.monotonic_ns(), time.time_ns())
        except KeyboardInterrupt:
            # Half a read has been taken in; what comes after it would be read as something else.
            text = "interrupted while taking in what had arrived"
            self.session.lost(key, time.monotonic_ns(), code=WSAECONNABORTED, message=text)
            raise

    def _turn(self) -> None:
        """Everything that is ready now, once. Under the lock."""
        self._turn_bytes = 0
        for fd, what in self._poller.poll(0):
            if self._listener is not None and fd == self._listener.fileno():
                self._accept()
                continue
            key = self._keys.get(fd)
            if key is None:
                continue
            connection = self._connections[key]
            if connection.connecting:
                self._finish_connect(key, connection)
                continue
            if what & WRITE:
                self.flush(key)
            if what & READ and not connection.deaf and self._turn_bytes < TURN_BYTES:
                self._read_some(key)

    def _read_some(self, key: int) -> None:
        for _ in range(READ_BUDGET):
            if not self.read(key) or key not in self._connections:
                return
            leg = self.session.legs[key].association
            if leg.reader.pending == 0:  # a short read: most likely nothing more is there
                return

    def _accept(self) -> None:
        listener = self._listener
        assert listener is not None
        fresh: list[int] = []
        for _ in range(ACCEPT_BUDGET):
            try:
                sock, place = listener.accept()
            except BlockingIOError:
                break
            except OSError as error:
                self._accept_failed(error)
                break
            sock.setblocking(False)
            _tune(sock)
            key = self.new_key()
            fresh.append(key)
            connection = _Connection(sock)
            self._connections[key] = connection
            self._keys[sock.fileno()] = key
            self._want(connection, READ)
            local = address_of(sock.getsockname())
            self.session.connection_opened(key, address_of(place), local, time.monotonic_ns())
        self._schedule(fresh)

    def _accept_failed(self, error: OSError) -> None:
        if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            return  # the connection was gone before we took it
        self.session.count("accepts_failed")
        if time.monotonic() - self._warned > WARN_EVERY_S:
            self._warned = time.monotonic()
            _log.warning(
                "cannot take further connections: %s. Raise the limit of open files (ulimit -n)",
                error.strerror,
            )
        listener = self._listener
        if listener is not None:
            self._poller.forget(listener.fileno())
            self._reactor.call_later(0.2, self._resume_accepting)

    def _resume_accepting(self) -> None:
        with self.lock:
            if self._listener is not None:
                self._poller.watch(self._listener.fileno(), READ)

    def _drop(self, key: int, *, flush: bool) -> None:
        connection = self._connections.get(key)
        if connection is None:
            self.session.removed(key)
            return
        if flush and not connection.connecting and self.session.legs[key].association.outbox:
            connection.closing = True
            if not self.flush(key):
                # Not read any more: an end that nobody takes note of would be ready for ever.
                self._want(connection, WRITE)
                self._reactor.call_later(1.0, lambda: self._give_up(key, connection))
                return
        if self._connections.get(key) is connection:
            self._close_connection(key)

    def _give_up(self, key: int, connection: _Connection) -> None:
        def give_up() -> None:
            if self._connections.get(key) is connection:
                self._close_connection(key)

        self.run(give_up)

    def _close_connection(self, key: int) -> None:
        connection = self._connections.pop(key, None)
        self._held.pop(key, None)
        if connection is not None:
            self._detach(connection)
            connection.sock.close()
        self.session.removed(key)
        self.changed.notify_all()
        self.waiter.interrupt()  # who waits for this very socket looks again

    def reset_connection(self, key: int) -> None:
        """Make the close that follows an abortive one (the peer sees a reset)."""
        connection = self._connections.get(key)
        if connection is not None:
            with contextlib.suppress(OSError):
                linger = b"\1\0\0\0" if sys.platform == "win32" else b"\1\0\0\0\0\0\0\0"
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    @property
    def reactor(self) -> Reactor:
        """Who works in the background."""
        return self._reactor

    @property
    def runs_in_reactor(self) -> bool:
        """Whether this is the background thread, which must never wait."""
        return self._reactor.is_current_thread

    def keys(self) -> list[int]:
        """Keys of all connections."""
        return list(self._connections)

    # Waiting

    def pump_until(
        self,
        done: Callable[[], T | None],
        timeout: float | None,
        *,
        claim: Callable[[Arrived], T | None] | None = None,
        direct: bool = False,
    ) -> T | None:
        """Read and wait in this thread until ``done`` gives something, or the time is over.

        Args:
            done: Asked under the lock.
            timeout: Seconds; None for ever.
            claim: Asked under the lock about what has arrived if it is the only thing that
                happened: a result spares the way through the owner's queue.
            direct: The one connection is read without asking the poller first.

        Raises:
            SpiError: WSAEINTR, cancelled or closed.
        """
        cancellations = self.cancellations
        deadline = None if timeout is None else time.monotonic() + timeout
        self._enter_pump()
        try:
            while True:
                callbacks: list[Callable[[], None]] = []
                try:
                    with self.lock:
                        result = done()
                        if result is None and not self.closed:
                            self._read_now(direct)
                            if claim is not None:
                                result = self._claimed(claim)
                            if self.unsettled:
                                callbacks = self.settle()
                            if result is None:
                                result = done()
                        if result is None:
                            self._check_not_cancelled(cancellations)
                            mark = self.waiter.mark()
                            fd = self.sole_socket() if direct else self._poller.fileno()
                finally:  # also where ``done`` raised: the end of a session is an event as well
                    for callback in callbacks:
                        callback()
                if result is not None:
                    return result
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._wait(fd, left, mark)
        finally:
            self._leave_pump()

    def _check_not_cancelled(self, cancellations: int) -> None:
        if cancellations != self.cancellations or self.closed:
            raise SpiError(WSAEINTR, "the call was cancelled, or its endpoint closed")

    def _read_now(self, direct: bool) -> None:
        if direct and len(self._connections) == 1 and self._listener is None:
            key, connection = next(iter(self._connections.items()))
            if not connection.connecting and not connection.deaf:
                self.read(key)
                return
        self._turn()

    def _claimed(self, claim: Callable[[Arrived], T | None]) -> T | None:
        out = self.session.out
        if len(out) != 1 or type(out[0]) is not Arrived:
            return None
        result = claim(out[0])
        if result is not None:
            out.clear()
        return result

    def _wait(self, fd: int, left: float | None, mark: int, *, write: bool = False) -> None:
        try:
            if write:
                self.waiter.wait_writable(fd, left, mark=mark)
            else:
                self.waiter.wait_readable(fd, left, mark=mark)
        except SpiError as error:
            # Woken because something changed: the caller looks again.
            if error.code != WSAEINTR or self.waiter.closed:
                raise

    def wait_for(self, done: Callable[[], T | None], timeout: float | None) -> T | None:
        """Wait in this thread while others, at the least the reactor, do the work.

        Raises:
            SpiError: WSAEINTR, cancelled or closed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self.lock:
            cancellations = self.cancellations
            self._watch()  # nobody else may be reading
            while True:
                if (result := done()) is not None:
                    return result
                self._check_not_cancelled(cancellations)
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self.changed.wait(None if left is None else min(left, threading.TIMEOUT_MAX))

    def drain(self, keys: Sequence[int], deadline: float | None) -> bool:
        """Send in this thread until the kernel has taken all that these legs have queued.

        Returns:
            False if the time was over before.
        """
        if self.has_room(keys):
            return True
        cancellations = self.cancellations
        blocked = BlockedSockets(keys)
        try:
            while True:
                callbacks: list[Callable[[], None]] = []
                try:
                    with self.lock:
                        self._flush_blocked(blocked)
                        if self.unsettled:
                            callbacks = self.settle(arm=False)
                        mark = self.waiter.mark()
                        if blocked:
                            # A close that came before this began waits for peers by itself.
                            self._check_not_cancelled(-1 if self.finishing else cancellations)
                            fd, write = blocked.wait_on()
                finally:
                    for callback in callbacks:
                        callback()
                if not blocked:
                    return True
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._wait(fd, left, mark, write=write)
        finally:
            blocked.close()

    def has_room(self, keys: Iterable[int] | None = None) -> bool:
        """The usual case: nothing is queued for these legs, or for any, and nothing is to do."""
        with self.lock:
            return not self.unsettled and not self._queued(
                self._connections if keys is None else keys
            )

    def _flush_blocked(self, blocked: BlockedSockets) -> None:
        """Try all of them, and not one after another.

        One slow leaf would else hold back what others are in the middle of, until they take this
        end for dead.
        """
        blocked.keep(self._connections)
        for key in blocked.ready():
            leg, connection = self.session.legs.get(key), self._connections.get(key)
            if leg is None or connection is None or self.flush(key, arm=False):
                blocked.discard(key)
            else:
                blocked.add(key, connection.sock.fileno())

    def cancel(self) -> None:
        """End every blocking call of this moment with WSAEINTR."""
        with self.lock:
            self.cancellations += 1
            self.changed.notify_all()
            self.waiter.interrupt()

    # Who reads

    def _enter_pump(self) -> None:
        if self._reactor.is_current_thread:
            return  # it reads for itself, and goes on watching
        with self.lock:
            self._pumping += 1
            if self._watching and not self.closed:
                self._watching = False
                self._reactor.unwatch(self._poller.fileno())

    def _leave_pump(self) -> None:
        if self._reactor.is_current_thread:
            return
        with self.lock:
            self._pumping -= 1
            self._last_pump = time.monotonic()
            if not self._takeover_armed and not self.closed:
                self._takeover_armed = True
                self._reactor.call_later(TAKEOVER_S, self._take_over)

    def _take_over(self) -> None:
        with self.lock:
            self._takeover_armed = False
            if self.closed or self._watching or self._pumping:
                return  # who waits in receive reads; leaving it arms this again
            quiet = time.monotonic() - self._last_pump
            if quiet < TAKEOVER_S:
                self._takeover_armed = True
                self._reactor.call_later(TAKEOVER_S - quiet, self._take_over)
                return
            self._watch()

    def _watch(self) -> None:
        if not self._watching and not self._pumping and not self.closed:
            if self._poller.fileno() >= 0:
                self._watching = True
                self._reactor.watch(self._poller.fileno(), self._background)
            else:  # no descriptor to nest (Windows): look now and then
                self._watching = True
                self._reactor.call_later(0.01, self._background_polling)

    def _background(self) -> None:
        self.run(self._turn_if_open, clocks=False)

    def catch_up(self) -> None:
        """Take note of everything that has come by now; never waits."""
        self.run(self._turn_if_open, clocks=False)

    def _turn_if_open(self) -> None:
        if not self.closed:
            self._turn()

    def _background_polling(self) -> None:
        if self._watching and not self.closed:
            self._background()
            self._reactor.call_later(0.01, self._background_polling)

    def _schedule(self, keys: Iterable[int] | None = None) -> None:
        """Have the earliest clock of these legs, or of all, run in time. Under the lock.

        Only a leg that something happened to can be due earlier than before; to ask all of them
        each time would make the join of the thousandth cost a thousand times that of the first.
        """
        due_ns = self.session.next_deadline_ns(keys) if not self.closed else None
        if due_ns is None:
            return
        # Rounded up: a thousand legs then share ticks instead of having one each.
        due = (due_ns / 1e9 // self._quantum + 1) * self._quantum
        if due < self._tick_due - 0.001:
            if self._tick_timer is not None:
                self._tick_timer.cancel()
            self._tick_due = due
            delay = max(0.0, due - time.monotonic())
            self._tick_timer = self._reactor.call_later(delay, self._tick)

    def _tick(self) -> None:
        def tick() -> None:
            self._tick_due = float("inf")
            if not self.closed:
                # Read first: a process that was held up for long must not take what lies in its
                # own buffers for silence.
                self._turn()
                self.session.tick(time.monotonic_ns())

        self.run(tick)

    def dispose(self) -> None:
        """Give everything back: sockets, descriptors, timers. The session is over."""
        with self.lock:
            if self.closed:
                return
            self.closed = True
            if self._watching:
                self._reactor.unwatch(self._poller.fileno())
            if self._tick_timer is not None:
                self._tick_timer.cancel()
            self.stop_listening()
            self.waiter.close()
            for connection in self._connections.values():
                connection.sock.close()
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
        self.closed, self._watching = True, False
        for connection in self._connections.values():
            connection.sock.close()
        self._connections.clear()
        self._keys.clear()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._poller.close()


_drivers: Final[weakref.WeakSet[StreamDriver]] = weakref.WeakSet()


def _abandon_all() -> None:
    for driver in list(_drivers):
        driver.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)


def _send_head(connection: _Connection, outbox: Outbox) -> None:
    """One gathering send, and the account of it.

    Ctrl-C raises between any two steps of Python, and most likely right after a system call. Were
    the count lost there, the same bytes would be sent again, in the middle of a message. So it is
    put into a list by the very call that makes the system call, and accounted for on the way out;
    if Ctrl-C strikes the accounting itself, nothing more may follow on this connection.
    """
    head, before, counts = outbox.head(), outbox.sent_bytes, list[int]()
    sock = connection.sock
    try:
        if len(head) == 1:
            counts.extend(map(sock.send, head, (_NO_SIGNAL,)))
        else:
            counts.extend(map(sock.sendmsg, (head,), ((),), (_NO_SIGNAL,)))
        outbox.sent(counts[0])
    except KeyboardInterrupt:
        if counts and outbox.sent_bytes == before:
            outbox.sent(counts[0])
        elif counts:
            connection.broken = errno.ECONNABORTED
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
        raise


def _tune(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
