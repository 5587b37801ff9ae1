"""TCP sockets: binding, connecting, and one connection as the driver sees it.

``Connection`` is all that the driver knows of what carries a leg. Another carrier, an encrypted
one, is another class of the same shape: ``establish`` goes on with a handshake, ``send`` and
``receive_into`` move bytes, and ``establishing`` says when the first may be moved.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from typing import Final

from joinleaf.core.outbox import Outbox
from joinleaf.drivers.names import Places, resolve
from joinleaf.drivers.poller import READ, WRITE
from joinleaf.spi.codes import spi_error_from_os
from joinleaf.values import Address

__all__ = [
    "NO_SIGNAL",
    "Connection",
    "address_of",
    "let_share",
    "listen_on",
    "start_connecting",
    "tune",
]

NO_SIGNAL: Final = getattr(socket, "MSG_NOSIGNAL", 0)
"""A program that has SIGPIPE at its default, as filters do, must not die of a leaf that left."""

_UNDER_WAY: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EINPROGRESS, errno.EINTR})


class Connection:
    """A TCP socket that carries one leg, and what the driver knows of it.

    Args:
        sock: Nonblocking, connected or being connected.
        accepted: Whether the other end asked for the connection.

    Attributes:
        sock: Changes only while a connection is being made.
        places: Where else the peer might be reached, if this attempt fails.
        accepted: See the argument.
        reached: TCP stands, whatever is to come before the first byte.
        establishing: Nothing may be sent or received yet; ``establish`` goes on with it.
        want: What the poller watches for, READ or WRITE or both, but for deafness.
        deaf: Not read for now, because the owner or a listener is behind.
        dscp: How its packets are marked, 0 to 63.
        broken: errno of a failed send: nothing more goes out, what came in is read; else 0.
        half_closed: This end has said its last word.
        closing: To be closed as soon as the outbox is empty.
    """

    __slots__ = (
        "accepted",
        "broken",
        "closing",
        "deaf",
        "dscp",
        "establishing",
        "half_closed",
        "places",
        "reached",
        "sock",
        "want",
    )

    def __init__(self, sock: socket.socket, *, accepted: bool = False) -> None:
        self.sock = sock
        self.places: Places = []
        self.accepted = accepted
        self.reached = accepted
        self.establishing = not accepted
        self.want = READ if accepted else WRITE
        self.deaf = False
        self.dscp = 0
        self.broken = 0
        self.half_closed = False
        self.closing = False

    def like(self, sock: socket.socket) -> Connection:
        """Another attempt at the same peer."""
        return Connection(sock)

    def fileno(self) -> int:
        """The descriptor to poll; -1 once closed."""
        return self.sock.fileno()

    def establish(self) -> int:
        """Go on with what comes before the first byte, when the poller says so.

        Returns:
            READ or WRITE, what to wait for until the next call; 0 once the connection stands.

        Raises:
            OSError: It does not come about.
        """
        number = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        with contextlib.suppress(OSError):
            if not number and self.sock.getsockname() == self.sock.getpeername():
                # Nobody listens, and the system chose the very port asked for as this end's own.
                number = errno.ECONNREFUSED
        if number:
            raise OSError(number, os.strerror(number))
        self.reached = True
        self.establishing = False
        return 0

    def send(self, outbox: Outbox) -> None:
        """One gathering send, and the account of it.

        Ctrl-C raises between any two steps of Python, and most likely right after a system call.
        Were the count lost there, the same bytes would be sent again, in the middle of a message.
        So it is put into a list by the very call that makes the system call, and accounted for on
        the way out; if Ctrl-C strikes the accounting itself, nothing more may follow on this
        connection.

        Raises:
            BlockingIOError: The kernel takes nothing for now.
            OSError: The connection is broken.
        """
        head, before, counts = outbox.head(), outbox.sent_bytes, list[int]()
        sock = self.sock
        try:
            if len(head) == 1:
                counts += map(sock.send, head, (NO_SIGNAL,))
            else:
                counts += map(sock.sendmsg, (head,), ((),), (NO_SIGNAL,))
            outbox.sent(counts[0])
        except KeyboardInterrupt:
            if counts and outbox.sent_bytes == before:
                outbox.sent(counts[0])
            elif counts:
                self.broken = errno.ECONNABORTED
                self.end_sending()
            raise

    def receive_into(self, view: memoryview, counts: list[int]) -> None:
        """Read once into ``view``; how many bytes it was, 0 at the end, is appended to ``counts``.

        It is not returned, because Ctrl-C may come between: see ``send``.

        Raises:
            BlockingIOError: Nothing is there.
            OSError: The connection is broken.
        """
        counts += map(self.sock.recv_into, (view,))

    def end_sending(self) -> None:
        """The last word has been said: the peer reads the end after it."""
        self.half_closed = True
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def reset_on_close(self) -> None:
        """Make the close that follows an abortive one (the peer sees a reset)."""
        linger = b"\1\0\0\0" if sys.platform == "win32" else b"\1\0\0\0\0\0\0\0"
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def set_dscp(self, dscp: int) -> None:
        """Mark its packets from now on, where the system lets us; 0 to 63. Windows ignores it."""
        self.dscp = dscp
        if self.sock.family == socket.AF_INET6 and hasattr(socket, "IPV6_TCLASS"):
            with contextlib.suppress(OSError):
                self.sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, dscp << 2)
        with contextlib.suppress(OSError):  # a socket of both families carries IPv4 as well
            self.sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)

    def local_address(self) -> Address | None:
        """This end's address; None if there is none."""
        with contextlib.suppress(OSError):
            return address_of(self.sock.getsockname())
        return None

    def close(self) -> None:
        """Give the descriptor back. Whoever polls it has forgotten it before."""
        self.sock.close()


def address_of(place: tuple[object, ...]) -> Address:
    """A socket's address as a value."""
    host, _, scope = str(place[0]).partition("%")
    mapped = host[7:] if host.startswith("::ffff:") and "." in host else host
    return Address(mapped, int(str(place[1])), scope)


def start_connecting(
    places: Places, local: socket.socket | None = None, failure: OSError | None = None
) -> socket.socket:
    """Begin to connect to the first place for which that is possible.

    Args:
        places: Where the peer may be; those that were tried are taken out.
        local: A bound socket to use for the first.
        failure: Why an earlier attempt failed; raised if no place is left.

    Raises:
        OSError: Why the last attempt failed.
    """
    while places:
        family, place = places.pop(0)
        sock, local = local, None
        try:
            if sock is None:
                sock = socket.socket(family, socket.SOCK_STREAM)
                sock.setblocking(False)
            let_share(sock)
            result = sock.connect_ex(place)
        except OSError as error:
            failure = error
            if sock is not None:
                sock.close()
            continue
        if result and result not in _UNDER_WAY:
            failure = OSError(result, os.strerror(result))
            sock.close()
            continue
        tune(sock)
        return sock
    raise failure or ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


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
        let_share(sock)
        sock.bind(place)


def let_share(sock: socket.socket) -> None:
    """Let the port be bound again once this socket's connections have ended."""
    if os.name == "posix":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def tune(sock: socket.socket) -> None:
    """Send at once what is to be sent: frames are made whole, and nothing is gained by waiting."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
