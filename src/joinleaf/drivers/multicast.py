"""Multicast socket options, and what each platform really does with them.

Tested on Linux. What is written for macOS, BSD and Windows follows their documentation and is
marked "untested" where it stands.

* **Port sharing.** Several members of one host share the session's port. Linux: SO_REUSEADDR on
  each. macOS and BSD: SO_REUSEPORT. Windows: SO_REUSEADDR, which there means both.
* **Binding.** To the wildcard, not to the group: Windows refuses the latter.
* **Deafness.** A wildcard-bound socket on Linux hears every group that *any* process of the host
  has joined, unless IP_MULTICAST_ALL is 0 (model, section 14.5). We set it, for both families.
* **Loopback.** UNIX applies IP_MULTICAST_LOOP to the sender, Winsock to the receiver. We keep it
  on at every sender and filter at the receiver (section 14.6), which means the same everywhere.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import sys
from typing import Final

from joinleaf.drivers.interfaces import Interface, IpAddress
from joinleaf.errors import SpiError
from joinleaf.spi.codes import WSAEOPNOTSUPP

__all__ = [
    "MAX_DATAGRAM",
    "RECEIVE_BUFFER",
    "check_route",
    "family_of",
    "join_group",
    "join_source",
    "leave_group",
    "leave_source",
    "open_socket",
    "reception_buffer",
    "send_from",
    "set_hops",
    "share_port",
    "size_receive_buffer",
    "sockaddr",
    "usable_bytes",
]

_log = logging.getLogger("joinleaf")

MAX_DATAGRAM: Final = {4: 65535 - 20 - 8, 6: 65535 - 8}
"""Longest UDP payload in bytes by IP version: what the 16-bit length fields leave."""

RECEIVE_BUFFER: Final = 4 << 20
"""Bytes of datagrams asked of the kernel to keep while the program is busy: 4 ms at 1 GB/s."""

# Not in the socket module. Linux: include/uapi/linux/in.h, in6.h, asm-generic/socket.h.
_IP_MULTICAST_ALL: Final = 49
_IPV6_MULTICAST_ALL: Final = 29
_SO_RCVBUFFORCE: Final = 33
_MCAST_JOIN_SOURCE_GROUP: Final = 46
_MCAST_LEAVE_SOURCE_GROUP: Final = 47
# Elsewhere (untested): netinet/in.h of macOS; ws2ipdef.h.
_SOURCE_MEMBERSHIP: Final = (15, 16) if sys.platform == "win32" else (70, 71)

_LINUX: Final = sys.platform == "linux"
_warned_about_buffer: list[int] = []


def family_of(version: int) -> socket.AddressFamily:
    """AF_INET for IP version 4, AF_INET6 for 6."""
    return socket.AF_INET if version == 4 else socket.AF_INET6


def open_socket(version: int) -> socket.socket:
    """A non-blocking datagram socket that hears no group but those it joins, and loops back.

    Raises:
        OSError: No descriptor or no memory left, or the family does not exist on this host.
    """
    made = socket.socket(family_of(version), socket.SOCK_DGRAM)
    try:
        made.setblocking(False)
        if version == 6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)
        else:
            made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        if _LINUX:
            _hear_only_what_is_joined(made, version)
    except BaseException:
        made.close()
        raise
    return made


def _hear_only_what_is_joined(sock: socket.socket, version: int) -> None:
    if version == 4:
        sock.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
        return
    with contextlib.suppress(OSError):  # since Linux 4.20; older ones hear too much, no less
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)


def share_port(sock: socket.socket) -> None:
    """Let several sockets of this host bind the same port; each of them has to ask for it.

    On Linux SO_REUSEPORT is not wanted: it would demand equal users and share out unicast.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if not _LINUX and sys.platform != "win32":  # untested
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def size_receive_buffer(sock: socket.socket, wanted: int = RECEIVE_BUFFER) -> int:
    """Ask for a receive buffer of ``wanted`` bytes; say once, clearly, if the kernel gives less.

    Returns:
        The bytes granted, as the kernel counts them on reading (Linux: twice what was asked,
        since it counts its own overhead).
    """
    if _LINUX:
        with contextlib.suppress(OSError):  # needs CAP_NET_ADMIN, and then knows no limit
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, wanted)
    if usable_bytes(reception_buffer(sock)) < wanted:
        with contextlib.suppress(OSError):  # BSD refuses instead of capping
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted)
    granted = reception_buffer(sock)
    usable = usable_bytes(granted)
    if usable < wanted and usable not in _warned_about_buffer:
        _warned_about_buffer.append(usable)
        name = "net.core.rmem_max" if _LINUX else "kern.ipc.maxsockbuf"
        _log.warning(
            "the kernel keeps only %d of %d bytes for a receiver; bursts above that are lost. "
            "Raise the limit: sysctl -w %s=%d",
            usable,
            wanted,
            name,
            wanted,
        )
    return granted


def usable_bytes(granted: int) -> int:
    """How many bytes of data a buffer holds that the kernel counts as ``granted``.

    Linux doubles what is asked for, and counts what it needs itself against the double.
    """
    return granted // 2 if _LINUX else granted


def reception_buffer(sock: socket.socket) -> int:
    """The receive buffer in bytes, as the kernel counts it."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def join_group(sock: socket.socket, group: IpAddress, interface: Interface) -> None:
    """Become a member of the group on the interface, whoever sends.

    Raises:
        OSError: EADDRINUSE (a member already), ENODEV (no such interface, or it has no address of
            the family), ENOBUFS (too many groups on one socket: igmp_max_memberships).
    """
    if group.version == 6:
        request = group.packed + struct.pack("@I", interface.index)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
    else:
        request = _v4_request(group, interface)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)


def leave_group(sock: socket.socket, group: IpAddress, interface: Interface) -> None:
    """Undo ``join_group``. Raises OSError where there is nothing to undo."""
    if group.version == 6:
        request = group.packed + struct.pack("@I", interface.index)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_LEAVE_GROUP, request)
    else:
        request = _v4_request(group, interface)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, request)


def join_source(
    sock: socket.socket, group: IpAddress, source: IpAddress, interface: Interface
) -> None:
    """Become a member of the group on the interface, for datagrams of one source only.

    Raises:
        OSError: EADDRNOTAVAIL (a member for that source already), ENODEV, ENOBUFS (more than ten
            sources of a group: igmp_max_msf).
        SpiError: WSAEOPNOTSUPP: IPv6 on a platform other than Linux.
    """
    _source_membership(sock, group, source, interface, join=True)


def leave_source(
    sock: socket.socket, group: IpAddress, source: IpAddress, interface: Interface
) -> None:
    """Undo ``join_source``. Raises OSError where there is nothing to undo."""
    _source_membership(sock, group, source, interface, join=False)


def _source_membership(
    sock: socket.socket, group: IpAddress, source: IpAddress, interface: Interface, *, join: bool
) -> None:
    if _LINUX:
        option = _MCAST_JOIN_SOURCE_GROUP if join else _MCAST_LEAVE_SOURCE_GROUP
        level = socket.IPPROTO_IP if group.version == 4 else socket.IPPROTO_IPV6
        sock.setsockopt(level, option, _group_source_request(group, source, interface))
        return
    if group.version == 6:
        raise SpiError(
            WSAEOPNOTSUPP,
            "source-specific multicast over IPv6 is done on Linux only",
            hint="Use an IPv4 group, or udp:// and look at who sends",
        )
    # Untested. Group, source, interface: macOS, BSD and Windows have this order, Linux another.
    request = group.packed + source.packed + _v4_address(interface)
    sock.setsockopt(socket.IPPROTO_IP, _SOURCE_MEMBERSHIP[0 if join else 1], request)


def _group_source_request(group: IpAddress, source: IpAddress, interface: Interface) -> bytes:
    """Linux' struct group_source_req: an index, padded to a pointer, and two sockaddr_storage."""
    padding = struct.calcsize("P") - struct.calcsize("I")
    storages = b"".join(_packed_sockaddr(one).ljust(128, b"\0") for one in (group, source))
    return struct.pack("@I", interface.index) + bytes(padding) + storages


def _packed_sockaddr(address: IpAddress) -> bytes:
    family = struct.pack("@H", family_of(address.version))
    if address.version == 4:
        return family + bytes(2) + address.packed
    return family + bytes(6) + address.packed + bytes(4)


def _v4_request(group: IpAddress, interface: Interface) -> bytes:
    """Struct ip_mreqn where it exists, else ip_mreq."""
    if sys.platform == "win32":  # untested
        return group.packed + _v4_address(interface)
    return struct.pack("@4s4si", group.packed, bytes(4), interface.index)


def _v4_address(interface: Interface) -> bytes:
    for address in interface.addresses:
        if address.version == 4:
            return address.packed
    return bytes(4)


def send_from(
    sock: socket.socket, interface: Interface, *, source: IpAddress | None = None, version: int
) -> None:
    """Let multicast leave by this interface.

    Args:
        sock: A socket of the family.
        interface: The one to use; an address of the family is needed only when sending.
        source: The own address to send from, where the interface has several.
        version: IP version of the socket, 4 or 6.

    Raises:
        OSError: ENODEV, EADDRNOTAVAIL: the interface is gone.
    """
    if version == 6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, interface.index)
    elif sys.platform == "win32":  # untested
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, _v4_address(interface))
    else:
        local = bytes(4) if source is None else source.packed
        request = struct.pack("@4s4si", bytes(4), local, interface.index)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)


def check_route(group: IpAddress, interface: Interface) -> None:
    """Raise unless datagrams to the group can leave by the interface.

    Linux gives loopback no IPv6 multicast route, for one; better told when joining than found out
    by a member that hears and reaches nobody.

    Raises:
        OSError: ENETUNREACH, mostly.
    """
    with socket.socket(family_of(group.version), socket.SOCK_DGRAM) as asker:
        send_from(asker, interface, version=group.version)
        asker.connect(sockaddr(group, 9, interface.index))  # sends nothing


def set_hops(sock: socket.socket, hops: int, version: int) -> None:
    """Set the TTL or hop limit of multicast sends, 0 to 255; 0 stays on this host."""
    if version == 6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, hops)
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, hops)


def sockaddr(address: IpAddress | str, port: int, scope: int = 0) -> tuple[str | int, ...]:
    """What the socket module wants as an address; ``scope`` is the interface index for IPv6.

    Link-local IPv6 (groups ``ffx2::`` too) means nothing without the scope; the kernel ignores it
    for the others.
    """
    text = str(address)
    return (text, port, 0, scope) if ":" in text else (text, port)
