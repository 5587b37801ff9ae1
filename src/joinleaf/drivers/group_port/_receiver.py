"""A leaf's end of a multicast stream."""

from __future__ import annotations

import logging
import socket
import struct
import sys
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from joinleaf.core.wire.landing import Landing
from joinleaf.core.wire.native import TRAINS
from joinleaf.core.wire.quick import QuickReader
from joinleaf.drivers import multicast, offload
from joinleaf.drivers.attachment import Attachment
from joinleaf.drivers.group_port._choice import (
    interface_for,
    numeric_group,
    numeric_source,
    refusal,
)
from joinleaf.drivers.interfaces import Interface, IpAddress, choose_interface, find_interface
from joinleaf.errors import SpiError
from joinleaf.spi.codes import WSAEOPNOTSUPP
from joinleaf.values import Address

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["GroupReceiver"]

_log = logging.getLogger("joinleaf")

_FOREIGN_RUN: Final = 64  # datagrams of strangers that one receive() throws away at most
_ANCILLARY: Final = 64  # bytes: the size of segments, and room to spare

# Not in the socket module: include/uapi/asm-generic/socket.h, linux/sock_diag.h.
_SO_MEMINFO: Final = 55
_MEMINFO: Final = struct.Struct("=9I")  # the last is the number of drops
_LINUX: Final = sys.platform == "linux"


class GroupReceiver:
    """A leaf's socket. One thread at a time.

    Args:
        group: A numeric group and its port.
        interface: Name, index or address of the interface; None: the one that has ``source``,
            where the root is on this host; else the one that has ``local``; else the one that
            routes to the group lead to.
        receive_buffer_bytes: What the kernel shall keep while the program is busy.
        source: The address that the root's datagrams come from; ``""``: any, nothing is filtered.
        local: The leaf's own address of its leg; ``""`` or a wildcard: unknown.

    Raises:
        SpiError: As ``Attachment.attach``; WSAEFAULT: ``group`` is not a numeric group, or
            ``source`` not an address of its family; WSAEADDRINUSE: a program that does not share
            the port has it.

    Attributes:
        granted_bytes: Bytes of data that the kernel really keeps. Datagrams are charged with
            what they occupy, small ones with several times their length.
        foreign: Datagrams or trains from others than ``source`` that were thrown away.
        runs: Whether ``receive_run`` was built.
    """

    runs: ClassVar[bool] = hasattr(TRAINS, "receive_run")

    __slots__ = (
        "_accepted",
        "_group",
        "_host",
        "_sock",
        "_source",
        "_tie",
        "foreign",
        "granted_bytes",
    )

    def __init__(
        self,
        group: Address,
        interface: str | int | None = None,
        *,
        receive_buffer_bytes: int = multicast.RECEIVE_BUFFER,
        source: str = "",
        local: str = "",
    ) -> None:
        self._group = group
        ip = numeric_group(group)
        self._source = wanted_source = numeric_source(source, ip)
        self._accepted: Any = None  # the address, as the socket module writes it, that is heard
        self._host = b"" if wanted_source is None else wanted_source.packed
        self.foreign = 0
        wanted = interface_for(ip, local, source) if interface is None else interface
        self._sock = multicast.open_socket(ip.version)
        try:
            multicast.share_port(self._sock)
            self._bind(ip, wanted)
            self._tie = self._attach(ip, wanted, wanted_source)
        except (OSError, SpiError) as error:
            self._sock.close()
            raise refusal(error, f"receiving from {group}") from error
        trains = offload.enable_gro(self._sock)
        granted = multicast.size_receive_buffer(self._sock, receive_buffer_bytes)
        self.granted_bytes = multicast.usable_bytes(granted)
        _log.info(
            "receiving from %s on interface %s: %d bytes of buffer, %s",
            group,
            self.interface.name,
            self.granted_bytes,
            "a train a call" if trains else "one a call",
        )

    def _bind(self, ip: IpAddress, wanted: str | int | None) -> None:
        if not _LINUX:
            self._sock.bind(multicast.sockaddr("" if ip.version == 4 else "::", self._group.port))
            return
        scope = 0
        if ip.version == 6 and ip.packed[1] & 0x0F <= 2:  # means nothing without an interface
            scope = (choose_interface(ip) if wanted is None else find_interface(wanted)).index
        self._sock.bind(multicast.sockaddr(ip, self._group.port, scope))

    def _attach(
        self, ip: IpAddress, wanted: str | int | None, source: IpAddress | None
    ) -> Attachment:
        tie = Attachment(self._sock, ip, wanted, source=source)
        try:
            tie.attach(receive=True, send=False)
        except SpiError as error:
            if source is None or error.code != WSAEOPNOTSUPP:
                raise
            tie = Attachment(self._sock, ip, wanted)
            tie.attach(receive=True, send=False)
        return tie

    @property
    def group(self) -> Address:
        """What it receives."""
        return self._group

    @property
    def interface(self) -> Interface:
        """The interface it is a member on, as it was when attached."""
        return self._tie.interface

    @property
    def dropped_by_kernel(self) -> int:
        """Datagrams or trains lost since the start because the buffer was full; 0 if unknown."""
        if not _LINUX:
            return 0
        try:
            info = self._sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        except OSError:  # closed, or before Linux 4.12
            return 0
        drops: int = _MEMINFO.unpack(info)[-1] if len(info) == _MEMINFO.size else 0
        return drops

    def receive(self, landing: Landing) -> bool:
        """Take the next train or datagram from the source; never waits.

        Args:
            landing: Gets the bytes, their number, and the size of the datagrams they are made of.

        Returns:
            False if nothing is there, or only what strangers sent.

        Raises:
            OSError: EBADF: closed. ENETDOWN and the like: see ``trouble``; call again later.
        """
        place = [landing.view]
        for _ in range(_FOREIGN_RUN):
            try:
                size, ancillary, _flags, origin = self._sock.recvmsg_into(place, _ANCILLARY)
            except (BlockingIOError, ConnectionError):
                return False
            if origin == self._accepted or self._is_wanted(origin):
                landing.size = size
                landing.segment = offload.segment_size(ancillary, size) or 1
                return True
            self.foreign += 1
        return False

    def receive_run(
        self,
        reader: QuickReader,
        landing: Landing,
        tag: int,
        unit: int,
        most: int,
        most_in_frame: int,
        short_bytes: int,
    ) -> tuple[int, bool, int]:
        """Take trains as long as each is the next unit; never waits. If ``runs``.

        Args:
            reader: Takes them; its ``next`` says how many.
            landing: Gets the train that is not, as from ``receive``.
            tag: The session's.
            unit: The next one.
            most: Trains, once a frame is complete.
            most_in_frame: And before.
            short_bytes: Go on behind no train that is shorter.

        Returns:
            Bytes taken, whether one of them asked for a report, and bytes in the landing; 0: there
            may be more, -1: nothing is there, or only what strangers sent.

        Raises:
            OSError: As ``receive``, if nothing was taken.
            MemoryError: The stream cannot be read any further.
        """
        assert TRAINS is not None
        taken: int
        polled: bool
        left: int
        taken, polled, foreign, left, landing.segment = TRAINS.receive_run(
            reader, self._sock.fileno(), self._host, landing.view, tag, unit, most,
            most_in_frame, short_bytes, _FOREIGN_RUN,
        )  # fmt: skip
        landing.size = max(0, left)
        self.foreign += foreign
        return taken, polled, left

    def _is_wanted(self, origin: Any) -> bool:
        if self._source is not None:
            if ip_address(str(origin[0]).partition("%")[0]) != self._source:
                return False
            self._accepted = origin
        return True

    def trouble(self) -> SpiError | None:
        """Why nothing can arrive at the moment; None while all is well. Reads system tables."""
        return self._tie.trouble()

    def renew(self) -> None:
        """Join again after trouble. Raises SpiError as the constructor does; try again later."""
        self._tie.renew()

    def fileno(self) -> int:
        """The socket's descriptor; -1 once closed."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close the socket, which leaves the group. Closing twice is no error."""
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
