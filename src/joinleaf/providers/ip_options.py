"""Options and controls of a datagram endpoint: WSPGetSockOpt, WSPSetSockOpt, queries of WSPIoctl.

What Windows' UDP refuses (lingering, keep-alive, out-of-band data) is refused here as well.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Callable
from typing import Any, Final

from joinleaf.drivers.interfaces import list_interfaces, route_source
from joinleaf.errors import SpiError
from joinleaf.spi import constants as c
from joinleaf.spi.codes import (
    WSAEFAULT,
    WSAEINVAL,
    WSAENETUNREACH,
    WSAENOPROTOOPT,
    WSAEOPNOTSUPP,
    code_of_errno,
    spi_error_from_os,
)
from joinleaf.values import Address

__all__ = ["get_option", "query", "set_option"]

_FLAGS: Final = {
    c.SO_REUSEADDR: socket.SO_REUSEADDR,
    c.SO_BROADCAST: socket.SO_BROADCAST,
    c.SO_DONTROUTE: socket.SO_DONTROUTE,
}
_SIZES: Final = {c.SO_RCVBUF: socket.SO_RCVBUF, c.SO_SNDBUF: socket.SO_SNDBUF}
# Linux doubles what is set, for its own overhead; a reader wants back what was set.
_SIZE_FACTOR: Final = 2 if sys.platform == "linux" else 1


def get_option(sock: socket.socket, option: int) -> int | bool:
    """WSPGetSockOpt for what the kernel knows; the rest is the endpoint's.

    Raises:
        SpiError: WSAENOPROTOOPT: a datagram socket has no such option.
    """
    try:
        if option in _FLAGS:
            return bool(sock.getsockopt(socket.SOL_SOCKET, _FLAGS[option]))
        if option in _SIZES:
            return sock.getsockopt(socket.SOL_SOCKET, _SIZES[option]) // _SIZE_FACTOR
        if option == c.SO_ERROR:
            pending = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            return code_of_errno(pending) if pending else 0
    except OSError as error:
        raise spi_error_from_os(error, call="get_option") from error
    if option == c.SO_TYPE:
        return c.SOCK_DGRAM
    if option == c.SO_ACCEPTCONN:
        return False
    raise _unknown(option, "get_option")


def set_option(sock: socket.socket, option: int, value: Any) -> None:
    """WSPSetSockOpt. SO_REUSEADDR counts at bind time only.

    Raises:
        SpiError: WSAENOPROTOOPT (unknown, or read only), WSAEINVAL (the value).
    """
    if option in _FLAGS:
        number, setting = _FLAGS[option], int(bool(value))
    elif option in _SIZES:
        if not isinstance(value, int) or not 0 <= value < 1 << 31:
            raise SpiError(WSAEINVAL, f"{value!r} is no buffer size", call="set_option")
        number, setting = _SIZES[option], value
    else:
        raise _unknown(option, "set_option")
    try:
        sock.setsockopt(socket.SOL_SOCKET, number, setting)
    except OSError as error:
        raise spi_error_from_os(error, call="set_option") from error


def query(code: int, value: Any, version: int) -> Any:
    """WSPIoctl for codes that do not depend on the endpoint's state.

    Raises:
        SpiError: WSAENOPROTOOPT (no quality of service here, no handles to translate),
            WSAEOPNOTSUPP, WSAEFAULT (an address is missing), WSAENETUNREACH, WSAEINVAL (unknown).
    """
    if (answer := _QUERIES.get(code)) is not None:
        return answer(value, version)
    if code in _NO_SUCH_FEATURE:
        raise SpiError(
            WSAENOPROTOOPT,
            "plain IP multicast has no such feature",
            call="ioctl",
            hint="Rooted sessions (jl://) keep flow specifications",
        )
    if code in _NOT_POSSIBLE:
        raise SpiError(WSAEOPNOTSUPP, "the system offers no way to do that", call="ioctl")
    raise SpiError(WSAEINVAL, f"unknown control code {code:#x}", call="ioctl")


def _addresses(_value: Any, version: int) -> tuple[Address, ...]:
    """SIO_ADDRESS_LIST_QUERY: the own addresses of the family, link-local ones with scope."""
    return tuple(
        Address(str(one), 0, interface.name if one.version == 6 and one.is_link_local else "")
        for interface in list_interfaces()
        for one in interface.addresses
        if one.version == version
    )


def _routing_interface(value: Any, version: int) -> Address:
    """SIO_ROUTING_INTERFACE_QUERY: the own address that datagrams there would leave from."""
    ip = value.ip if isinstance(value, Address) else None
    if ip is None or ip.version != version:
        raise SpiError(WSAEFAULT, "an address of the family is needed", call="ioctl")
    local = route_source(ip)
    if local is None:
        raise SpiError(WSAENETUNREACH, f"no route leads to {ip}", call="ioctl")
    return Address(str(local))


def _broadcast_address(_value: Any, version: int) -> Address:
    if version == 6:
        raise SpiError(WSAENOPROTOOPT, "IPv6 has no broadcast", call="ioctl")
    return Address(str(ipaddress.IPv4Address(0xFFFFFFFF)))


def _flush(_value: Any, _version: int) -> None:
    """SIO_FLUSH: nothing is ever queued above the kernel."""


_QUERIES: Final[dict[int, Callable[[Any, int], Any]]] = {
    c.SIO_ADDRESS_LIST_QUERY: _addresses,
    c.SIO_ROUTING_INTERFACE_QUERY: _routing_interface,
    c.SIO_GET_BROADCAST_ADDRESS: _broadcast_address,
    c.SIO_FLUSH: _flush,
}
_NO_SUCH_FEATURE: Final = frozenset(
    {
        c.SIO_GET_QOS,
        c.SIO_SET_QOS,
        c.SIO_GET_GROUP_QOS,
        c.SIO_SET_GROUP_QOS,
        c.SIO_ASSOCIATE_HANDLE,
        c.SIO_TRANSLATE_HANDLE,
    }
)
_NOT_POSSIBLE: Final = frozenset(
    {
        c.SIO_ENABLE_CIRCULAR_QUEUEING,
        c.SIO_FIND_ROUTE,
        c.SIO_ROUTING_INTERFACE_CHANGE,
        c.SIO_ADDRESS_LIST_CHANGE,
    }
)


def _unknown(option: int, call: str) -> SpiError:
    return SpiError(WSAENOPROTOOPT, f"a datagram socket has no option {option:#x}", call=call)
