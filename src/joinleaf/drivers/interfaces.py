"""The interfaces of this host: look one up, choose one for a group, know one's own addresses.

Lists come from the system with every call (``ifaddr``, and the names of interfaces that have no
address yet); only ``OwnAddresses`` keeps one for a moment, since the data path asks it.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import ifaddr

from joinleaf.errors import SpiError
from joinleaf.spi.codes import WSAEADDRNOTAVAIL, WSAENETDOWN, WSAENETUNREACH

__all__ = [
    "Interface",
    "IpAddress",
    "OwnAddresses",
    "check_usable",
    "choose_interface",
    "find_interface",
    "list_interfaces",
    "own_addresses",
    "route_source",
]

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_log = logging.getLogger("joinleaf")

_SIOCGIFFLAGS: Final = 0x8913  # Linux
_IFF_UP: Final = 0x1
_IFF_LOOPBACK: Final = 0x8
_IFF_MULTICAST: Final = 0x1000

_OWN_ADDRESSES_LIFE: Final = 2.0  # seconds; an address that moves is wrong for at most that long


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface as it was when asked.

    Attributes:
        name: The system's name, ``"eth0"``.
        index: The system's number, from 1.
        addresses: Its addresses, IPv4 first, in the system's order.
        up: Whether it is switched on (the link may still be without a carrier).
        loopback: Whether it only reaches this host.
        multicast: Whether the system calls it able to multicast. Loopback usually is not called
            so and can nevertheless, when named.
    """

    name: str
    index: int
    addresses: tuple[IpAddress, ...] = ()
    up: bool = True
    loopback: bool = False
    multicast: bool = True

    def has_family(self, version: int) -> bool:
        """Whether it has an address of IP version 4 or 6."""
        return any(address.version == version for address in self.addresses)

    def __str__(self) -> str:
        addresses = ", ".join(str(address) for address in self.addresses) or "no address"
        return f"{self.name} ({addresses})"


def list_interfaces() -> list[Interface]:
    """Every interface of this host, by index; those without an address too."""
    found: dict[int, tuple[str, list[IpAddress]]] = {}
    for adapter in ifaddr.get_adapters(include_unconfigured=True):
        if adapter.index is not None:
            addresses = [ipaddress.ip_address(_text(ip.ip)) for ip in adapter.ips]
            found[adapter.index] = (adapter.name, addresses)
    for index, name in socket.if_nameindex():
        found.setdefault(index, (name, []))
    return [
        _interface(name, index, addresses) for index, (name, addresses) in sorted(found.items())
    ]


def find_interface(wanted: str | int) -> Interface:
    """The interface with this name, index (a number, or digits) or address.

    Raises:
        SpiError: WSAEADDRNOTAVAIL: there is none; the hint lists those that exist.
    """
    interfaces = list_interfaces()
    text = str(wanted).strip()
    for interface in interfaces:
        if text in (interface.name, str(interface.index)):
            return interface
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        address = None
    for interface in interfaces:
        if address is not None and address in interface.addresses:
            return interface
    raise SpiError(
        WSAEADDRNOTAVAIL,
        f"no interface has the name, index or address {text!r}",
        hint="This host has " + ("; ".join(str(interface) for interface in interfaces) or "none"),
    )


def choose_interface(group: IpAddress) -> Interface:
    """Choose the interface to join ``group`` on, and log at INFO which and why.

    In this order: where the route to the group leads; the first that is up, can multicast, is not
    loopback and has an address of the family; loopback.

    Raises:
        SpiError: WSAENETUNREACH: none of them exists with an address of the group's family.
    """
    interfaces = [one for one in list_interfaces() if one.has_family(group.version)]
    local = route_source(group)
    for interface in interfaces:
        if local in interface.addresses:
            return _chosen(interface, group, "the route to the group leads there")
    for interface in interfaces:
        if interface.up and interface.multicast and not interface.loopback:
            return _chosen(interface, group, "no route leads to the group; it is the first up")
    for interface in interfaces:
        if interface.up and interface.loopback:
            return _chosen(interface, group, "no other is up; only this host will be reached")
    raise SpiError(
        WSAENETUNREACH,
        f"no interface that is up has an IPv{group.version} address to reach {group} from",
        hint="Bring an interface up and give it an address, or name one to use",
    )


def check_usable(interface: Interface, version: int) -> None:
    """Raise if nothing can be joined on the interface at the moment.

    Raises:
        SpiError: WSAENETDOWN: it is down. WSAEADDRNOTAVAIL: it has no address of the family.
    """
    if not interface.up:
        raise SpiError(
            WSAENETDOWN,
            f"interface {interface.name} is down",
            hint=f"Bring it up (ip link set {interface.name} up), or name another",
        )
    if not interface.has_family(version):
        raise SpiError(
            WSAEADDRNOTAVAIL,
            f"interface {interface.name} has no IPv{version} address",
            hint=f"Give it one, switch IPv{version} on, or name another interface",
        )


class OwnAddresses:
    """Whether an address is one of this host's, for filters on the data path.

    The list is kept for two seconds of the time that the caller states, so that asking for every
    datagram costs a set look-up.
    """

    __slots__ = ("_known", "_read_at")

    def __init__(self) -> None:
        self._known: frozenset[str] = frozenset()
        self._read_at: float | None = None

    def contains(self, host: str, now: float) -> bool:
        """Whether ``host`` is an address of this host.

        Args:
            host: A numeric address as the socket module writes it; a scope is ignored.
            now: Monotonic time in seconds.
        """
        if self._read_at is None or now - self._read_at > _OWN_ADDRESSES_LIFE:
            self._known = own_addresses()
            self._read_at = now
        host = host.partition("%")[0]
        return host in self._known or host.startswith("127.")


def own_addresses(interfaces: Iterable[Interface] | None = None) -> frozenset[str]:
    """All addresses of this host, as text in the shortest form."""
    listed = list_interfaces() if interfaces is None else interfaces
    return frozenset(str(address) for one in listed for address in one.addresses)


def _text(address: str | tuple[str, int, int]) -> str:
    return address if isinstance(address, str) else address[0].partition("%")[0]


def _interface(name: str, index: int, addresses: list[IpAddress]) -> Interface:
    flags = _flags(name)
    loopback = any(address.is_loopback for address in addresses)
    ordered = tuple(sorted(addresses, key=lambda address: address.version))
    if flags is None:
        return Interface(name, index, ordered, up=True, loopback=loopback)
    return Interface(
        name,
        index,
        ordered,
        up=bool(flags & _IFF_UP),
        loopback=bool(flags & _IFF_LOOPBACK),
        multicast=bool(flags & _IFF_MULTICAST),
    )


def _flags(name: str) -> int | None:
    """The interface's flags; None where the system is not asked (not Linux) or it is gone."""
    if sys.platform != "linux":
        return None
    import fcntl  # does not exist on Windows

    request = struct.pack("16sH14x", name.encode()[:15], 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        try:
            answer = fcntl.ioctl(asker.fileno(), _SIOCGIFFLAGS, request)
        except OSError:
            return None
    flags: int = struct.unpack_from("H", answer, 16)[0]
    return flags


def route_source(group: IpAddress) -> IpAddress | None:
    """The own address that datagrams to the group would leave from; None without a route."""
    family = socket.AF_INET if group.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as asker:
            asker.connect((str(group), 9))  # sends nothing
            return ipaddress.ip_address(asker.getsockname()[0].partition("%")[0])
    except OSError:
        return None


def _chosen(interface: Interface, group: IpAddress, why: str) -> Interface:
    _log.info("interface %s for %s: %s", interface, group, why)
    return interface
