"""What ws2_32 does between a program and the providers: start, choose, count, remember errors.

A ``Library`` starts a provider when the first socket of one of its entries is made, finds the
provider of a handle again, and keeps one error number for each thread. ``veneer.py`` puts the names
of the functions on top.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from joinleaf.errors import CatalogueError, SpiError
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.catalogue import Catalogue, default_catalogue
from joinleaf.spi.protocol_info import ProtocolInfo, accepts_roles
from joinleaf.spi.provider import Settings
from joinleaf.winsock.layered import open_service
from joinleaf.winsock.memory import Cell, as_int
from joinleaf.winsock.objects import Handles, Objects
from joinleaf.winsock.thunks import error_value
from joinleaf.winsock.types import WSPDATA
from joinleaf.winsock.upcalls import Upcalls

__all__ = ["LOWEST_VERSION", "VERSION", "Library", "Wanted", "choose"]

VERSION: Final = 0x0202
"""The highest version there is, 2.2: major number in the low byte."""
LOWEST_VERSION: Final = 0x0001
"""1.0, which programs of 1993 ask for."""

_FIRST_HANDLE: Final = 1 << 24
"""Above every number a descriptor of the system can have: both kinds are handles of sockets."""

_C_ROOT: Final = c.WSA_FLAG_MULTIPOINT_C_ROOT
_C_LEAF: Final = c.WSA_FLAG_MULTIPOINT_C_LEAF
_D_ROOT: Final = c.WSA_FLAG_MULTIPOINT_D_ROOT
_D_LEAF: Final = c.WSA_FLAG_MULTIPOINT_D_LEAF


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a program asks for that names no catalogue entry; 0 (family, type, protocol): any."""

    family: int
    kind: int
    protocol: int
    flags: int = 0

    def fits_protocol(self, info: ProtocolInfo) -> bool:
        """Whether the entry speaks the protocol; 0 is every one's."""
        above = self.protocol - info.protocol
        return self.protocol == 0 or 0 <= above <= info.protocol_max_offset

    def fits_flags(self, info: ProtocolInfo) -> bool:
        """Whether the entry offers the roles that the flags name."""
        roles = (self.flags & bit != 0 for bit in (_C_ROOT, _C_LEAF, _D_ROOT, _D_LEAF))
        return accepts_roles(info, *roles)


def choose(entries: Sequence[ProtocolInfo], wanted: Wanted) -> ProtocolInfo:
    """The first entry that fits, as ws2_32 chooses where lpProtocolInfo is NULL.

    One rule is ours: of connectionless entries, those without a root in the data plane come first.
    A session of source-specific multicast needs its source, which a program that has not named the
    entry cannot mean; plain IP multicast it can.

    Raises:
        SpiError: WSAEAFNOSUPPORT, WSAESOCKTNOSUPPORT (nobody has the type), WSAEPROTOTYPE (another
            family has), WSAEPROTONOSUPPORT, or WSAEINVAL (nobody offers these roles).
    """
    usable = [
        one for one in entries if not one.is_layered and not one.provider_flags & c.PFL_HIDDEN
    ]
    usable.sort(key=lambda one: one.has(c.XP1_CONNECTIONLESS) and one.data_plane_rooted)
    family = [one for one in usable if wanted.family in (0, one.address_family)]
    if not family:
        raise SpiError(codes.WSAEAFNOSUPPORT, f"nobody offers family {wanted.family}")
    kind = [one for one in family if wanted.kind in (0, one.socket_type)]
    if not kind:
        elsewhere = any(one.socket_type == wanted.kind for one in usable)
        code = codes.WSAEPROTOTYPE if elsewhere else codes.WSAESOCKTNOSUPPORT
        raise SpiError(code, f"nobody offers type {wanted.kind} in this family")
    protocol = [one for one in kind if wanted.fits_protocol(one)]
    if not protocol:
        raise SpiError(codes.WSAEPROTONOSUPPORT, f"nobody offers protocol {wanted.protocol}")
    for one in protocol:
        if wanted.fits_flags(one):
            return one
    raise SpiError(codes.WSAEINVAL, f"nobody offers the roles of flags {wanted.flags:#x}")


class Library:
    """One ws2_32: a count of startups, providers by entry, and the handles of a program.

    Args:
        catalogue: Where providers are chosen; the process's own if not given.
        settings: What sockets are opened with: limits and time-outs that Winsock has no call for.

    Attributes:
        settings: The same; a change concerns providers that are started later.
        objects: Events, windows and threads of the program.
        upcalls: What providers are started with.
        startups: How many WSAStartup are not yet balanced by WSACleanup.
    """

    def __init__(
        self, catalogue: Catalogue | None = None, settings: Settings | None = None
    ) -> None:
        self._catalogue = catalogue
        self.settings = settings
        self.objects = Objects(Handles(first=_FIRST_HANDLE))
        self.upcalls = Upcalls(self.objects)
        self.startups = 0
        self._providers: dict[int, Any] = {}
        self._owners: dict[int, Any] = {}
        self._lock = threading.RLock()
        self._local = threading.local()

    # Errors

    @property
    def last_error(self) -> int:
        """WSAGetLastError of the calling thread."""
        return int(getattr(self._local, "error", 0))

    @last_error.setter
    def last_error(self, code: int) -> None:
        self._local.error = code

    # Starting and choosing

    def start_up(self) -> None:
        """Count one WSAStartup."""
        with self._lock:
            self.startups += 1

    def clean_up(self) -> None:
        """Balance one; the last one ends every provider, with all of its sockets."""
        with self._lock:
            self.startups -= 1
            if self.startups:
                return
            providers = list(self._providers.values())
            self._providers.clear()
            self._owners.clear()
        for provider in providers:
            provider.WSPCleanup(Cell())

    def check_started(self) -> None:
        """WSANOTINITIALISED before the first WSAStartup and after the last WSACleanup."""
        if not self.startups:
            raise SpiError(codes.WSANOTINITIALISED, "call WSAStartup first")

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue in use."""
        return self._catalogue if self._catalogue is not None else default_catalogue()

    def entries(self) -> tuple[ProtocolInfo, ...]:
        """What WSAEnumProtocols lists: neither layers nor hidden entries."""
        return tuple(
            one
            for one in self.catalogue.protocols()
            if not one.is_layered and not one.provider_flags & c.PFL_HIDDEN
        )

    def provider_for(self, info: ProtocolInfo) -> Any:
        """The provider of an entry, started if it has not been.

        Raises:
            SpiError: WSAEINVAL: no such entry. WSAEPROVIDERFAILEDINIT: it cannot be started.
        """
        number = info.catalog_entry_id
        with self._lock:
            if number not in self._providers:
                self._providers[number] = self._start(number)
            return self._providers[number]

    def _start(self, number: int) -> Any:
        try:
            info = self.catalogue.entry(number)
        except CatalogueError as error:
            raise SpiError(codes.WSAEINVAL, str(error)) from error
        try:
            provider = open_service(self.catalogue, number, self.settings)
        except CatalogueError as error:
            raise SpiError(codes.WSAEPROVIDERFAILEDINIT, str(error)) from error
        if provider.WSPStartup(VERSION, WSPDATA(), info, self.upcalls, Cell()):
            raise SpiError(codes.WSAEPROVIDERFAILEDINIT, f"{info.name!r} does not start")
        return provider

    # Calling

    def owner(self, s: Any) -> Any:
        """The provider of a handle. WSANOTINITIALISED, WSAENOTSOCK."""
        self.check_started()
        try:
            handle = as_int(s)
        except SpiError:
            handle = 0
        provider = self._owners.get(handle)
        if provider is None:
            raise SpiError(codes.WSAENOTSOCK, f"{s!r} is no socket")
        return provider

    def call(self, s: Any, name: str, *args: Any) -> int:
        """One WSP* function on a handle.

        Raises:
            SpiError: What it wrote to ``*lpErrno``.
        """
        return self.ask(self.owner(s), name, s, *args)

    def ask(self, provider: Any, name: str, *args: Any) -> int:
        """One WSP* function of a provider."""
        error = Cell()
        result: int = getattr(provider, name)(*args, error)
        if result == error_value(name):
            raise SpiError(as_int(error), f"{name} failed", call=name)
        return result

    def adopt(self, provider: Any, handle: int) -> int:
        """Remember whose a handle is."""
        with self._lock:
            self._owners[handle] = provider
        return handle

    @property
    def sockets(self) -> tuple[int, ...]:
        """Handles of all sockets that are open."""
        with self._lock:
            return tuple(self._owners)

    def close(self, s: Any) -> None:
        """WSPCloseSocket; the handle is forgotten unless the close would block."""
        provider = self.owner(s)
        handle = as_int(s)
        # Before the call: the number may be another thread's as soon as it is closed.
        self._owners.pop(handle, None)
        try:
            self.ask(provider, "WSPCloseSocket", handle)
        except SpiError as error:
            if error.code != codes.WSAENOTSOCK:
                self.adopt(provider, handle)
            raise
