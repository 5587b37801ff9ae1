"""``mem://name``: multipoint sessions inside one process, in all four quadrants of the taxonomy.

The shortest full reading of the model, for tests, examples and programs whose parts talk to each
other. ``mem://name?control=rooted&plane=rooted`` are the defaults; either may be ``nonrooted``, and
``plane`` is the data plane. Sessions of one ``MemoryProvider`` are invisible to another's.

What it promises: messages arrive whole, in order and once, in every session; a sender waits for
slow listeners, or drops or expels them, as the root's settings say (in a nonrooted session the
sender's, where nobody can be expelled and "expel" drops). What goes wrong, goes wrong because a
test asked ``MemoryProvider.faults`` for it. There is no wire, so ``hops``, ``interface``,
``dead_after`` and ``linger`` mean nothing here.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Final

from joinleaf.errors import SpiError
from joinleaf.providers.memory_endpoint import MemoryEndpoint
from joinleaf.providers.memory_faults import Faults, Link
from joinleaf.providers.memory_hub import Hub
from joinleaf.providers.memory_members import LeafEndpoint, NonrootedEndpoint, RootEndpoint
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.protocol_info import ProtocolInfo, accepts_roles
from joinleaf.spi.provider import Roles, Settings
from joinleaf.values import SessionAddress

__all__ = ["AF_MEMORY", "Faults", "Link", "MemoryProvider"]

AF_MEMORY: Final = 0x4A4C
"""A private address family ("JL"): names, and no numbers. Winsock's own end well below it."""

_PROVIDER_ID: Final = uuid.uuid5(uuid.NAMESPACE_URL, "mem://")
_NAME_BYTES: Final = 255

_COMMON: Final = (
    c.XP1_MESSAGE_ORIENTED
    | c.XP1_GUARANTEED_DELIVERY
    | c.XP1_GUARANTEED_ORDER
    | c.XP1_SUPPORT_MULTIPOINT
)
_ROOTED: Final = (
    _COMMON
    | c.XP1_MULTIPOINT_CONTROL_PLANE
    | c.XP1_GRACEFUL_CLOSE
    | c.XP1_CONNECT_DATA
    | c.XP1_DISCONNECT_DATA
    | c.XP1_QOS_SUPPORTED
)
_NONROOTED: Final = _COMMON | c.XP1_CONNECTIONLESS


def _entry(control: str, plane: str) -> ProtocolInfo:
    flags = _ROOTED if control == "rooted" else _NONROOTED
    if plane == "rooted":
        flags |= c.XP1_MULTIPOINT_DATA_PLANE
    return ProtocolInfo(
        service_flags=flags,
        name=f"joinleaf memory, control plane {control}, data plane {plane}",
        provider_flags=c.PFL_MULTIPLE_PROTO_ENTRIES,
        provider_id=uuid.uuid5(_PROVIDER_ID, f"{control}/{plane}"),
        address_family=AF_MEMORY,
        # Family and a name with its terminating zero, as other families of names have it.
        max_sockaddr=2 + _NAME_BYTES + 1,
        min_sockaddr=4,
        socket_type=c.SOCK_SEQPACKET if control == "rooted" else c.SOCK_RDM,
    )


_ENTRIES: Final = {
    (control, plane): _entry(control, plane)
    for control in ("rooted", "nonrooted")
    for plane in ("rooted", "nonrooted")
}


class MemoryProvider:
    """The provider behind ``mem://``.

    Attributes:
        faults: What goes wrong, on demand.
    """

    scheme: str = "mem"
    OPTIONS: ClassVar[tuple[str, ...]] = ("control", "plane")

    def __init__(self) -> None:
        self.faults = Faults()
        self._hub = Hub(self.faults)
        self.faults.attach(self._hub)

    @property
    def is_empty(self) -> bool:
        """Whether every name and session has been given back; for tests that look for leaks."""
        with self._hub:
            return self._hub.is_empty

    def check_up(self) -> None:
        """Raise WSAENETDOWN while ``faults.network_down``: step 1 of section 5.6, for all calls."""
        if self.faults.network_down:
            raise SpiError(codes.WSAENETDOWN, "the network is down")

    def protocols(self) -> Sequence[ProtocolInfo]:
        """Four entries, one for each quadrant."""
        return tuple(_ENTRIES.values())

    def select(self, address: SessionAddress) -> ProtocolInfo:
        """The entry for an address. ValueError for options it does not know."""
        if address.source or address.key:
            raise ValueError(f"{address}: a mem session has neither source nor key")
        if unknown := sorted(set(address.options) - set(self.OPTIONS)):
            raise ValueError(f"{address}: no option {unknown[0]!r}; there are control and plane")
        chosen = tuple(address.options.get(name, "rooted") for name in self.OPTIONS)
        entry = _ENTRIES.get((chosen[0], chosen[1]))
        if entry is None:
            raise ValueError(f"{address}: control and plane are rooted or nonrooted")
        return entry

    def open(
        self,
        info: ProtocolInfo,
        roles: Roles,
        settings: Settings = Settings(),  # noqa: B008  # frozen
        *,
        address: SessionAddress | None = None,
    ) -> MemoryEndpoint:
        """WSPSocket."""
        # The catalogue may have numbered the entry, and given it a place in a chain.
        entry = next((one for one in _ENTRIES.values() if _same(one, info)), None)
        fits = accepts_roles(info, roles.c_root, not roles.c_root, roles.d_root, not roles.d_root)
        if entry is None or not fits:
            raise SpiError(
                codes.WSAEINVAL, f"{info.name!r} does not offer these roles: {roles}", call="open"
            )
        self.check_up()
        if not info.control_plane_rooted:
            return NonrootedEndpoint(self._hub, info, roles, settings)
        kind = RootEndpoint if roles.c_root else LeafEndpoint
        return kind(self._hub, info, roles, settings)


def _same(entry: ProtocolInfo, info: ProtocolInfo) -> bool:
    given = replace(
        info,
        catalog_entry_id=entry.catalog_entry_id,
        chain=entry.chain,
        name=entry.name,
        provider_flags=entry.provider_flags,
    )
    return given == entry
