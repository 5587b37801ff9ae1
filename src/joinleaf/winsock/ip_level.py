"""Options of levels IPPROTO_IP and IPPROTO_IPV6: the BSD way to multicast, beside WSPJoinLeaf.

Programs mix both on one socket (model, 11.1). Scope and loopback are the provider's own commands;
the others go to the system's socket, under the system's numbers.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import sys
from collections.abc import Iterator
from typing import Final

from joinleaf.errors import SpiError
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.codes import spi_error_from_os

__all__ = ["COMMANDS", "LEVELS", "get", "interface", "joins", "put"]

LEVELS: Final = {c.IPPROTO_IP: c.AF_INET, c.IPPROTO_IPV6: c.AF_INET6}
"""Level to the family it is for."""

COMMANDS: Final = {
    (c.IPPROTO_IP, c.IP_MULTICAST_TTL): c.SIO_MULTICAST_SCOPE,
    (c.IPPROTO_IP, c.IP_MULTICAST_LOOP): c.SIO_MULTIPOINT_LOOPBACK,
    (c.IPPROTO_IPV6, c.IPV6_MULTICAST_HOPS): c.SIO_MULTICAST_SCOPE,
    (c.IPPROTO_IPV6, c.IPV6_MULTICAST_LOOP): c.SIO_MULTIPOINT_LOOPBACK,
}
"""Options that are another way to write a command."""

_SYSTEM: Final = {
    (c.IPPROTO_IP, c.IP_TOS): (socket.IPPROTO_IP, socket.IP_TOS),
    (c.IPPROTO_IP, c.IP_TTL): (socket.IPPROTO_IP, socket.IP_TTL),
    (c.IPPROTO_IP, c.IP_MULTICAST_IF): (socket.IPPROTO_IP, socket.IP_MULTICAST_IF),
    (c.IPPROTO_IP, c.IP_ADD_MEMBERSHIP): (socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP),
    (c.IPPROTO_IP, c.IP_DROP_MEMBERSHIP): (socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP),
    (c.IPPROTO_IPV6, c.IPV6_UNICAST_HOPS): (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS),
    (c.IPPROTO_IPV6, c.IPV6_MULTICAST_IF): (socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF),
    (c.IPPROTO_IPV6, c.IPV6_JOIN_GROUP): (socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP),
    (c.IPPROTO_IPV6, c.IPV6_LEAVE_GROUP): (socket.IPPROTO_IPV6, socket.IPV6_LEAVE_GROUP),
    (c.IPPROTO_IPV6, c.IPV6_V6ONLY): (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY),
}
_JOINS: Final = {(c.IPPROTO_IP, c.IP_ADD_MEMBERSHIP), (c.IPPROTO_IPV6, c.IPV6_JOIN_GROUP)}
_WORD: Final = 4
_LONGEST: Final = 64


def joins(level: int, option: int) -> bool:
    """Whether setting this option makes a membership."""
    return (level, option) in _JOINS


def interface(level: int, option: int, value: bytes) -> str | None:
    """The interface that an option chooses for later joins, as an address or an index.

    Returns:
        ``""`` for the default one; None where the option is not about that.
    """
    if (level, option) == (c.IPPROTO_IP, c.IP_MULTICAST_IF):
        chosen = ipaddress.IPv4Address(value[:_WORD])
        # 0.0.0.n is the interface with index n.
        return str(chosen) if int(chosen) >> 24 else str(int(chosen) or "")
    if (level, option) == (c.IPPROTO_IPV6, c.IPV6_MULTICAST_IF):
        return str(int.from_bytes(value[:_WORD], sys.byteorder) or "")
    return None


def _system(level: int, option: int) -> tuple[int, int]:
    try:
        return _SYSTEM[level, option]
    except KeyError:
        text = f"option {option} of level {level} is not known"
        raise SpiError(codes.WSAENOPROTOOPT, text) from None


@contextlib.contextmanager
def _socket_of(descriptor: int) -> Iterator[socket.socket]:
    """The system's socket, borrowed: the descriptor stays its owner's."""
    borrowed = socket.socket(fileno=descriptor)
    try:
        yield borrowed
    except OSError as error:
        # Twice the same membership: Windows has another name for that (model, 11.1).
        if error.errno == errno.EADDRINUSE:
            raise SpiError(codes.WSAEADDRNOTAVAIL, "a member of that group already") from error
        raise spi_error_from_os(error, call="setsockopt") from error
    finally:
        borrowed.detach()


def put(descriptor: int, level: int, option: int, value: bytes) -> None:
    """Set an option of the system's socket. The value is the header's: structures are the same.

    Raises:
        SpiError: WSAENOPROTOOPT (unknown), WSAEFAULT (too short), WSAEADDRNOTAVAIL (a member of
            that group already, or no such interface), or as the system says.
    """
    number = _system(level, option)
    if len(value) < _WORD:
        raise SpiError(codes.WSAEFAULT, "the value is too short")
    with _socket_of(descriptor) as sock:
        sock.setsockopt(*number, value)


def get(descriptor: int, level: int, option: int) -> bytes:
    """Read an option of the system's socket. Raises as ``put``."""
    number = _system(level, option)
    if joins(level, option):
        raise SpiError(codes.WSAENOPROTOOPT, "memberships can only be set")
    with _socket_of(descriptor) as sock:
        return sock.getsockopt(*number, _LONGEST)
