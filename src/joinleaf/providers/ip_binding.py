"""The local association of a multicast socket: explicit or implicit, exclusive or shared.

An explicit bind to one of this host's addresses chooses that address's interface and is what
WSPGetSockName reports; the kernel's socket is bound to the wildcard all the same, since elsewhere
than on Windows a socket bound to a unicast address hears no group.
"""

from __future__ import annotations

import ipaddress
import logging
import socket

from joinleaf.drivers import multicast
from joinleaf.drivers.interfaces import IpAddress, find_interface
from joinleaf.errors import SpiError
from joinleaf.spi.codes import WSAEADDRINUSE, WSAEFAULT, WSAEINVAL, spi_error_from_os
from joinleaf.values import Address

__all__ = ["Binding", "as_ip"]

_log = logging.getLogger("joinleaf")


class Binding:
    """Binds one socket, once.

    Args:
        sock: The socket.
        version: Its IP version, 4 or 6.
        unique_port: Whether an implicit bind never takes the session's port (model, A-24).

    Attributes:
        bound: Whether it has been bound; it stays so, whatever happens to a join.
        local: The own address an explicit bind named; None: any.
    """

    __slots__ = ("_sock", "_unique_port", "_version", "bound", "local")

    def __init__(self, sock: socket.socket, version: int, *, unique_port: bool) -> None:
        self._sock = sock
        self._version = version
        self._unique_port = unique_port
        self.bound = False
        self.local: IpAddress | None = None

    def address(self) -> Address:
        """WSPGetSockName. Raises WSAEINVAL while unbound."""
        if not self.bound:
            raise SpiError(WSAEINVAL, "not bound yet", call="local_address")
        try:
            host, port = self._sock.getsockname()[:2]
        except OSError as error:
            raise spi_error_from_os(error, call="local_address") from error
        return Address(str(self.local or host), port)

    def bind(self, address: Address) -> None:
        """WSPBind: WSAEINVAL, WSAEFAULT, WSAEADDRNOTAVAIL, WSAEADDRINUSE."""
        if self.bound:
            raise SpiError(WSAEINVAL, "bound already", call="bind")
        local = None if address.host == "" else address.ip
        if address.host and (local is None or local.version != self._version):
            # Not WSAEAFNOSUPPORT as in a join: A-41.
            raise SpiError(WSAEFAULT, f"{address} is no IPv{self._version} address", call="bind")
        if local is not None and local.is_unspecified:
            local = None
        if local is not None:
            find_interface(str(local))  # ours, or refused
        self._bind(None, address.port, "bind")
        self.local = local

    def bind_for(self, session: Address, *, listens: bool, local: IpAddress | None) -> None:
        """The implicit bind of a join.

        Args:
            session: Where it joins.
            listens: Whether it wants to hear the session: then it shares the session's port.
            local: The own address that one who only sends is to send from; None: any.

        Raises:
            SpiError: WSAEADDRINUSE: a program that does not share it has the port.
        """
        if not self.bound:
            shared = listens and not self._unique_port and session.port != 0
            if shared:
                multicast.share_port(self._sock)
            self._bind(None if listens else local, session.port if shared else 0, "join_leaf")
        port = self._sock.getsockname()[1]
        if listens and session.port not in (0, port):
            _log.warning(
                "joined %s but bound to port %d: what is sent to the session is not heard",
                session,
                port,
            )

    def _bind(self, local: IpAddress | None, port: int, call: str) -> None:
        wildcard = "0.0.0.0" if self._version == 4 else "::"  # see the module
        host = wildcard if local is None else str(local)
        scope = find_interface(host).index if local is not None and local.is_link_local else 0
        try:
            self._sock.bind(multicast.sockaddr(host, port, scope))
        except OSError as error:
            refused = spi_error_from_os(error, call=call, message=f"binding port {port}")
            if refused.code == WSAEADDRINUSE:
                raise SpiError(
                    WSAEADDRINUSE,
                    f"port {port} is in use by a program that does not share it",
                    call=call,
                    hint="Stop that program, choose another port, or have both set SO_REUSEADDR",
                ) from error
            raise refused from error
        self.bound = True


def as_ip(text: str | int | None) -> IpAddress | None:
    """The address that the setting of an interface is, or None if it is a name or an index."""
    try:
        return ipaddress.ip_address(text) if isinstance(text, str) else None
    except ValueError:
        return None
