"""``ServiceProvider``: one catalogue entry as a Winsock service provider, over the provider seam.

``WSPStartup`` is the one entry point of a provider; it fills a table with the other thirty
functions. Here it is a method, since an object is what a library with state is in Python;
``start`` makes the object and calls it.
"""

from __future__ import annotations

from typing import Any, Final

from joinleaf.errors import SpiError
from joinleaf.spi import codes
from joinleaf.spi.catalogue import default_catalogue
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.provider import Provider, Settings
from joinleaf.winsock.calls_data import DataCalls
from joinleaf.winsock.calls_events import EventCalls
from joinleaf.winsock.calls_joining import JoiningCalls
from joinleaf.winsock.calls_life import LifeCalls
from joinleaf.winsock.calls_names import NameCalls
from joinleaf.winsock.calls_options import OptionCalls
from joinleaf.winsock.calls_overlapped import OverlappedCalls
from joinleaf.winsock.memory import Cell, as_int, info_at, is_null, struct_at
from joinleaf.winsock.table import build_table, fill_table
from joinleaf.winsock.types import WSPDATA, WSPPROC_TABLE
from joinleaf.winsock.upcalls import Upcalls

__all__ = ["VERSION", "ServiceProvider", "start"]

VERSION: Final = 0x0202
"""The one version there is: 2.2, major number in the low byte."""

_DESCRIPTION: Final = "joinleaf"


class ServiceProvider(
    OverlappedCalls,
    JoiningCalls,
    DataCalls,
    EventCalls,
    NameCalls,
    OptionCalls,
    LifeCalls,
):
    """One loaded provider; its thirty calls are in the modules ``calls_*``.

    Args:
        seam: The provider that carries the data.
        info: Which of its entries; one of ``seam.protocols()``, numbered by a catalogue or not.
        settings: What its sockets are opened with.

    Attributes:
        upcalls: Those of the latest WSPStartup, or those that ``start`` made.
        proc_table: The table of thirty functions; C programs hold copies of its pointers, so it
            lives as long as this object.
    """

    def __init__(
        self, seam: Provider, info: ProtocolInfo, settings: Settings | None = None
    ) -> None:
        super().__init__(seam, info, settings)
        self.upcalls: Any = None
        self.proc_table: WSPPROC_TABLE = build_table(self)

    def WSPStartup(
        self,
        wVersionRequested: Any,
        lpWSPData: Any,
        lpProtocolInfo: Any,
        UpcallTable: Any,
        lpProcTable: Any,
    ) -> int:
        """Negotiate the version and fill the table (section 4.1).

        Args:
            wVersionRequested: Highest version the caller can use; 2.2 is the only one here.
            lpWSPData: Place for a WSPDATA.
            lpProtocolInfo: The entry wanted; NULL: the one this object was made for.
            UpcallTable: WSPUPCALLTABLE, or a Python object with the upcalls.
            lpProcTable: Place for thirty pointers; a Cell gets the table itself.

        Returns:
            0, WSAVERNOTSUPPORTED, WSAEFAULT, WSAEINPROGRESS or WSAEINVAL: there is no lpErrno.
        """
        try:
            self._start(wVersionRequested, lpWSPData, lpProtocolInfo, UpcallTable, lpProcTable)
        except SpiError as error:
            return error.code
        return 0

    def _start(self, version: Any, data: Any, info: Any, upcalls: Any, table: Any) -> None:
        if upcalls is None or is_null(data) or is_null(table):
            raise SpiError(codes.WSAEFAULT, "a parameter is missing", call="WSPStartup")
        requested = as_int(version)
        if _readable(requested) < _readable(VERSION):
            raise SpiError(codes.WSAVERNOTSUPPORTED, f"version {requested:#x} is too old")
        place = WSPDATA() if isinstance(data, Cell) else struct_at(data, WSPDATA, writable=True)
        if (entry := info_at(info)) is not None and not self.startups:
            self._check_entry(entry)
        with self.lock:
            if self.startups:
                self.check_alone()
            if isinstance(table, Cell):
                table.value = self.proc_table
            else:
                fill_table(table, self.proc_table)
            self.outlet.use(upcalls)
            self.upcalls = upcalls
            self.startups += 1
        place.wVersion = place.wHighVersion = VERSION
        for index, unit in enumerate(_DESCRIPTION):
            place.szDescription[index] = ord(unit)
        place.szDescription[len(_DESCRIPTION)] = 0
        if isinstance(data, Cell):
            data.value = place

    def _check_entry(self, entry: ProtocolInfo) -> None:
        """The client may name another entry of the same provider than this object was made for."""
        for known in (self.info, *self.seam.protocols()):
            if (known.provider_id, known.service_flags, known.address_family) == (
                entry.provider_id,
                entry.service_flags,
                entry.address_family,
            ):
                self.info = entry
                self.outlet.catalog_id = entry.catalog_entry_id
                return
        raise SpiError(codes.WSAEINVAL, f"{entry.name!r} is no entry of this provider")


def _readable(version: int) -> tuple[int, int]:
    """Major and minor number of a version word."""
    return version & 0xFF, version >> 8 & 0xFF


def start(
    scheme: str = "mem",
    *,
    upcalls: Any = None,
    version: int = VERSION,
    provider: Provider | None = None,
    settings: Settings | None = None,
    entry: ProtocolInfo | int | None = None,
) -> ServiceProvider:
    """Load a provider and start it.

    Args:
        scheme: Which provider of the default catalogue.
        upcalls: A Python object with the upcalls, or a WSPUPCALLTABLE; fresh ones if not given.
        version: What is requested.
        provider: A provider of the seam to use in place of the catalogue's.
        settings: What its sockets are opened with.
        entry: The entry, or its index among those of the provider; the first if not given.

    Returns:
        The provider, started once. ``WSPCleanup`` balances that.

    Raises:
        SpiError: WSPStartup failed; ``code`` is what it returned.
        ProviderNotFoundError: Nobody serves the scheme.
    """
    seam = provider if provider is not None else default_catalogue().find(scheme)
    entries = seam.protocols()
    info = entry if isinstance(entry, ProtocolInfo) else entries[entry or 0]
    made = ServiceProvider(seam, info, settings)
    given = upcalls if upcalls is not None else Upcalls()
    code = made.WSPStartup(version, WSPDATA(), None, given, Cell())
    if code:
        raise SpiError(code, f"WSPStartup of {info.name!r} failed", call="WSPStartup")
    return made
