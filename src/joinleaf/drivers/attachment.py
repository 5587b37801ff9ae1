"""A socket's tie to one group on one interface: made, watched, renewed, undone.

What Linux does to a membership when its interface has trouble, found by trying it:

* **Down and up again**, or **the last address gone**: the membership stays; in between nothing
  arrives.
* **An MTU below 1280** switches IPv6 off on the interface: the membership vanishes from it while
  the socket still believes in it; an MTU restored does not bring it back.
* **The interface removed and made again**: as above, and the new one has another index.

So looking costs little and says all: is there an interface of that name and index, is it up, and
does the system list the group on it? Where the answer is no, ``renew`` leaves and joins again.
Being told by rtnetlink instead was rejected: a socket more, a parser, and Linux only.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import struct
import sys
from typing import Final

from joinleaf.drivers import multicast
from joinleaf.drivers.interfaces import (
    Interface,
    IpAddress,
    check_usable,
    choose_interface,
    find_interface,
)
from joinleaf.errors import SpiError
from joinleaf.spi.codes import (
    WSAEADDRNOTAVAIL,
    WSAEISCONN,
    WSAENETUNREACH,
    WSAENOBUFS,
    spi_error_from_os,
)

__all__ = ["Attachment"]

_log = logging.getLogger("joinleaf")

_CALL: Final = "join_leaf"
_LIMITS: Final = "net.ipv4.igmp_max_memberships, net.ipv4.igmp_max_msf"


class Attachment:
    """One socket, one group, one interface. Not for use by two threads at once.

    Args:
        sock: The socket, of the group's family.
        group: The multicast group.
        wanted: Name, index or address of the interface; None: chosen.
        source: The only sender to hear; None: any.
        local: The own address to send from; None: the interface's first.
    """

    __slots__ = (
        "_group",
        "_interface",
        "_local",
        "_member",
        "_sends",
        "_sock",
        "_source",
        "_wanted",
    )

    def __init__(
        self,
        sock: socket.socket,
        group: IpAddress,
        wanted: str | int | None,
        *,
        source: IpAddress | None = None,
        local: IpAddress | None = None,
    ) -> None:
        self._sock = sock
        self._group = group
        self._wanted = wanted
        self._source = source
        self._local = local
        self._member = False
        self._sends = False
        self._interface: Interface | None = None

    @property
    def interface(self) -> Interface:
        """The interface in use, as it was when attached."""
        assert self._interface is not None, "attach first"
        return self._interface

    def attach(self, *, receive: bool, send: bool) -> None:
        """Send to the group by the interface if ``send``; become a member if ``receive``.

        Raises:
            SpiError: WSAEADDRNOTAVAIL (no such interface, or no address of the family on it),
                WSAENETDOWN (it is down), WSAENETUNREACH (none to choose from, or no route on it),
                WSAENOBUFS (too many memberships), WSAEISCONN (a member already).
        """
        interface = self._find()
        check_usable(interface, self._group.version)
        try:
            if send or interface.loopback:  # there, nobody could be heard either
                multicast.check_route(self._group, interface)
            multicast.send_from(
                self._sock, interface, source=self._from(interface), version=self._group.version
            )
            if receive:
                self._join(interface)
        except OSError as error:
            raise _refusal(error, self._group, interface) from error
        self._interface = interface
        self._member, self._sends = receive, send

    def detach(self) -> None:
        """Stop being a member. What the system has forgotten by itself is no error."""
        if not self._member or self._interface is None:
            return
        self._member = False
        with contextlib.suppress(OSError):
            if self._source is None:
                multicast.leave_group(self._sock, self._group, self._interface)
            else:
                multicast.leave_source(self._sock, self._group, self._source, self._interface)

    def trouble(self) -> SpiError | None:
        """Why nothing can arrive at the moment; None while all is well."""
        held = self.interface
        try:
            now = find_interface(held.name)
            check_usable(now, self._group.version)
        except SpiError as error:
            return error
        if now.index != held.index:
            return SpiError(WSAEADDRNOTAVAIL, f"interface {held.name} is another one than before")
        if self._member and not _is_listed(self._group, held.index):
            return SpiError(WSAEADDRNOTAVAIL, f"the system has forgotten {self._group} on {held}")
        return None

    def renew(self) -> None:
        """Attach again, on the same interface or, where it was chosen, on another.

        Raises:
            SpiError: As ``attach``. The old interface stays noted, so that it can be tried again.
        """
        held, member = self.interface, self._member
        self.detach()
        try:
            self.attach(receive=member, send=self._sends)
        except SpiError:
            self._interface, self._member = held, member
            raise
        _log.info("renewed %s on interface %s", self._group, self.interface)

    def _from(self, interface: Interface) -> IpAddress | None:
        """The address to send from. Left alone, Linux takes another interface's on loopback."""
        if self._local is None and interface.loopback:
            return next(one for one in interface.addresses if one.version == self._group.version)
        return self._local

    def _find(self) -> Interface:
        if self._interface is not None:
            return self._find_again(self._interface)
        if self._wanted is not None:
            return find_interface(self._wanted)
        return choose_interface(self._group)

    def _find_again(self, held: Interface) -> Interface:
        """The one of the same name: an index changes when an interface is made anew."""
        try:
            again = find_interface(held.name)
            check_usable(again, self._group.version)
        except SpiError:
            if self._wanted is not None:
                raise
            other = choose_interface(self._group)
            if other.loopback and not held.loopback:  # would look alive and reach nobody
                raise
            return other
        return again

    def _join(self, interface: Interface) -> None:
        if self._source is None:
            multicast.join_group(self._sock, self._group, interface)
        else:
            multicast.join_source(self._sock, self._group, self._source, interface)


def _refusal(error: OSError, group: IpAddress, interface: Interface) -> SpiError:
    """The error of a membership option, with what can be done about it (model, section 14.8)."""
    what = f"joining {group} on interface {interface}"
    if error.errno == errno.EADDRINUSE:
        return SpiError(WSAEISCONN, f"{what}: a member already", call=_CALL)
    if error.errno == errno.ENOBUFS:
        return SpiError(
            WSAENOBUFS,
            f"{what}: too many memberships",
            call=_CALL,
            hint=f"Leave others first, or raise {_LIMITS}",
        )
    if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return SpiError(
            WSAENETUNREACH,
            f"{what}: no route to the group leads over it",
            call=_CALL,
            hint=_way_out(group, interface),
        )
    return spi_error_from_os(error, call=_CALL, message=what)


def _way_out(group: IpAddress, interface: Interface) -> str:
    if group.version == 4:
        return f"Add one (ip route add 224.0.0.0/4 dev {interface.name}), or name another interface"
    if interface.loopback:
        return "Linux has no IPv6 multicast on loopback: name another interface, or use IPv4"
    return (
        f"Add one (ip -6 route add multicast ff00::/8 dev {interface.name} table local), "
        "or name another interface"
    )


def _is_listed(group: IpAddress, index: int) -> bool:
    """Whether the system lists the group on the interface; True where it does not say (not Linux).

    /proc/thread-self: memberships belong to the network namespace of the calling thread.
    """
    if sys.platform != "linux":
        return True
    name = "igmp" if group.version == 4 else "igmp6"
    try:
        with open(f"/proc/thread-self/net/{name}", encoding="ascii") as table:
            lines = table.read().splitlines()
    except OSError:
        return True
    if group.version == 6:
        return any(
            fields[:1] == [str(index)] and fields[2:3] == [group.packed.hex()]
            for fields in map(str.split, lines)
        )
    return _is_listed_v4(lines, f"{struct.unpack('=I', group.packed)[0]:08X}", index)


def _is_listed_v4(lines: list[str], group: str, index: int) -> bool:
    """The table has a line for each interface, then indented ones for its groups."""
    here = False
    for line in lines[1:]:
        fields = line.split()
        if not line.startswith("\t"):
            here = fields[:1] == [str(index)]
        elif here and fields[:1] == [group]:
            return True
    return False
