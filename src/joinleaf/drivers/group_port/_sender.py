"""The root's end of a multicast stream."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import sys
from typing import TYPE_CHECKING, Any, Final, Self

from joinleaf.drivers import multicast, offload
from joinleaf.drivers.attachment import Attachment
from joinleaf.drivers.group_port._choice import (
    interface_for,
    numeric_group,
    own_address,
    refusal,
)
from joinleaf.drivers.interfaces import Interface
from joinleaf.errors import SpiError
from joinleaf.values import Address

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from types import TracebackType

    from joinleaf.spi.provider import Buffer

__all__ = ["SEGMENT_MAX", "SEGMENT_MIN", "SEND_BUFFER", "GroupSender"]

_log = logging.getLogger("joinleaf")

SEGMENT_MAX: Final = 65_000
"""Longest symbol in bytes: on loopback a unit is one datagram, and a datagram has 65,507."""

SEGMENT_MIN: Final = 1_180
"""Shortest full symbol: what IPv6 carries everywhere (1,280) less headers and room for tunnels."""

SEND_BUFFER: Final = 1 << 18
"""Bytes of datagrams the kernel may hold for the wire, and as many of its own: 4 ms at 1 Gbit/s.

More than the interface's queue takes would be lost there, without a word to the sender.
"""

_HEADERS: Final = 48  # bytes of IPv6 and UDP; for IPv4 too, so that both families cut alike
_DEFAULT_MTU: Final = 1_500

# Not in the socket module: include/uapi/linux/in.h, in6.h, asm-generic/socket.h.
_MTU_OPTION: Final = {4: (socket.IPPROTO_IP, 14), 6: (socket.IPPROTO_IPV6, 24)}
_SO_SNDBUFFORCE: Final = 32
_SIOCOUTQ: Final = 0x5411  # linux/sockios.h
_LINUX: Final = sys.platform == "linux"

_FULL: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS})
_NO_TRAINS: Final = frozenset({errno.EINVAL, errno.EIO, errno.EMSGSIZE, errno.EOPNOTSUPP})


class GroupSender:
    """The root's socket. One thread at a time.

    Args:
        group: Where to send: a numeric group and its port.
        interface: Name, index or address of the interface; None: the one that has ``local``, or
            else the one that routes to the group lead to.
        local: The root's own address that its leaves came to; ``""`` or a wildcard: unknown.
        ttl: Routers that datagrams may pass, plus one; 0 stays on this host.
        dscp: Differentiated services code point, 0 to 63.
        loopback: Whether members on this host hear it.
        send_buffer_bytes: What the kernel may hold for the wire, above 0.

    Raises:
        SpiError: As ``Attachment.attach``; WSAEFAULT: ``group`` is not a numeric group.

    Attributes:
        refused: Datagrams or trains that the system refused for another reason than a full
            buffer (no route, interface down): lost, as on the wire. ``trouble()`` tells why.
    """

    __slots__ = (
        "_cut",
        "_group",
        "_ip",
        "_rest",
        "_rest_segment",
        "_sock",
        "_tie",
        "_told",
        "_trains",
        "refused",
        "segment",
    )

    def __init__(
        self,
        group: Address,
        interface: str | int | None = None,
        *,
        local: str = "",
        ttl: int = 1,
        dscp: int = 0,
        loopback: bool = True,
        send_buffer_bytes: int = SEND_BUFFER,
    ) -> None:
        self._group = group
        self._ip = ip = numeric_group(group)
        self._cut = 0  # the segment size the kernel knows
        self._rest = memoryview(b"")  # of a train sent as datagrams, when the buffer got full
        self._rest_segment = 0
        self._told: int | None = None  # the last error that was logged
        self.refused = 0
        wanted = interface_for(ip, local) if interface is None else interface
        source = own_address(wanted, ip.version)
        self._sock = multicast.open_socket(ip.version)
        self._tie = Attachment(self._sock, ip, wanted, local=source)
        try:
            multicast.set_hops(self._sock, ttl, ip.version)
            _loop_back(self._sock, ip.version, on=loopback)
            _size_buffers(self._sock, send_buffer_bytes)
            self.set_dscp(dscp)
            self._tie.attach(receive=False, send=True)
            if source is not None:
                self._sock.bind(multicast.sockaddr(source, 0, self.interface.index))
            self._connect()
        except (OSError, SpiError) as error:
            self._sock.close()
            raise refusal(error, f"sending to {group}") from error
        self._trains = offload.can_segment(self._sock)
        self.segment = max(SEGMENT_MIN, min(_mtu(self._sock, ip.version) - _HEADERS, SEGMENT_MAX))
        self._log_start()

    def _connect(self) -> None:
        scope = self.interface.index
        self._sock.connect(multicast.sockaddr(self._ip, self._group.port, scope))

    def _log_start(self) -> None:
        _log.info(
            "sending to %s from %s on interface %s: segments of %d bytes, %s",
            self._group,
            self.local,
            self.interface.name,
            self.segment,
            "a train a call" if self._trains else "one a call",
        )

    @property
    def group(self) -> Address:
        """Where it sends."""
        return self._group

    @property
    def interface(self) -> Interface:
        """The interface it sends on, as it was when attached."""
        return self._tie.interface

    @property
    def local(self) -> Address:
        """The address that leaves see; a leaf's ``source`` is its ``host``."""
        return _address(self._sock.getsockname())

    @property
    def trains(self) -> bool:
        """Whether one call carries many segments; else as many calls as segments."""
        return self._trains

    def send(self, buffer: Buffer, segment: int) -> bool:
        """Send the buffer, cut into datagrams of ``segment`` bytes, the last perhaps shorter.

        Args:
            buffer: At most 64 segments, and at most 65,507 bytes. It may be changed afterwards.
            segment: Bytes of a datagram, from 1 to ``self.segment``.

        Returns:
            False if the kernel's buffer is full and nothing was taken: try again when the socket
            is writable. True: all of it is on its way, or was ``refused`` and so is lost.

        Raises:
            OSError: EBADF: closed.
        """
        if self._rest and not self._send_rest():
            return False
        size = len(buffer)
        if size > segment and not self._trains:
            return self._send_singly(buffer, segment)
        # One datagram too: the kernel would cut it where it cut the shorter ones before it.
        if segment != self._cut and (size > segment or size > self._cut > 0):
            offload.set_segment(self._sock, segment)
            self._cut = segment
        try:
            self._sock.send(buffer)
        except OSError as error:
            return self._failed(error, buffer, segment)
        return True

    def _failed(self, error: OSError, buffer: Buffer, segment: int) -> bool:
        """What to make of an error: try later, do without trains, or count a loss."""
        if error.errno in _FULL:
            return False
        if error.errno == errno.EBADF:
            raise error
        if len(buffer) > segment and self._trains and error.errno in _NO_TRAINS:
            self._trains = False
            _log.warning(
                "interface %s takes no trains of datagrams (%s): one call for each from now on",
                self.interface.name,
                error,
            )
            return self._send_singly(buffer, segment)
        self.refused += 1
        if error.errno != self._told:
            self._told = error.errno
            _log.warning("sending to %s: %s; it counts as lost", self._group, error)
        return True

    def _send_singly(self, buffer: Buffer, segment: int) -> bool:
        """As ``send``. Once the first datagram is taken, a copy of the others is, too."""
        if self._cut:  # or the kernel goes on refusing
            with contextlib.suppress(OSError):
                offload.set_segment(self._sock, 0)
            self._cut = 0
        whole = memoryview(buffer)
        if not self._send_one(whole[:segment]):
            return False
        self._rest, self._rest_segment = whole[segment:], segment
        if not self._send_rest():
            self._rest = memoryview(bytes(self._rest))
        return True

    def _send_rest(self) -> bool:
        """Send what is left of a train; False if the buffer got full before its end."""
        while self._rest:
            if not self._send_one(self._rest[: self._rest_segment]):
                return False
            self._rest = self._rest[self._rest_segment :]
        return True

    def _send_one(self, datagram: memoryview) -> bool:
        try:
            self._sock.send(datagram)
        except OSError as error:
            return self._failed(error, datagram, len(datagram))
        return True

    def queued(self) -> int:
        """Bytes that this host has not sent yet, the kernel's own included; 0 if it cannot tell."""
        if not _LINUX:
            return 0
        held = bytearray(4)
        fcntl.ioctl(self._sock, _SIOCOUTQ, held)
        return int.from_bytes(held, sys.byteorder)

    def limit_queue(self, size: int) -> None:
        """Let the kernel hold so many bytes of datagrams for the wire, and as many of its own."""
        _size_buffers(self._sock, size)

    def set_dscp(self, dscp: int) -> None:
        """Mark what is sent from now on.

        Args:
            dscp: 0 to 63. Windows ignores it (untested).
        """
        if self._ip.version == 4:
            self._sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)
        elif hasattr(socket, "IPV6_TCLASS"):
            self._sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, dscp << 2)

    def trouble(self) -> SpiError | None:
        """Why nothing can be sent at the moment; None while all is well. Reads system tables."""
        return self._tie.trouble()

    def renew(self) -> None:
        """Attach again after trouble. Raises SpiError as the constructor does; try again later."""
        self._tie.renew()
        try:
            self._connect()
        except OSError as error:
            raise refusal(error, f"sending to {self._group}") from error
        self._told = None

    def fileno(self) -> int:
        """The socket's descriptor; -1 once closed."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close the socket. Closing twice is no error."""
        self._rest = memoryview(b"")
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _loop_back(sock: socket.socket, version: int, *, on: bool) -> None:
    if version == 4:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, int(on))
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, int(on))


def _size_buffers(sock: socket.socket, send_bytes: int) -> None:
    for option in (_SO_SNDBUFFORCE, socket.SO_SNDBUF) if _LINUX else (socket.SO_SNDBUF,):
        with contextlib.suppress(OSError):  # the former needs a privilege
            sock.setsockopt(socket.SOL_SOCKET, option, send_bytes)
            return


def _mtu(sock: socket.socket, version: int) -> int:
    """Longest IP packet that the connected socket's route takes."""
    if _LINUX:
        with contextlib.suppress(OSError):
            return sock.getsockopt(*_MTU_OPTION[version])
    return _DEFAULT_MTU


def _address(name: Any) -> Address:
    host, _, scope = str(name[0]).partition("%")
    return Address(host, int(name[1]), scope)
