"""``jl://`` and ``jls://``: rooted sessions over TCP or TLS, one connection per leg.

The provider binds the two sides of ``core/session.py`` to ``drivers/streams.py``. Three kinds of
endpoint:

* ``RootEndpoint``: the c_root. Listens, accepts, invites, sends to everybody.
* ``LegEndpoint``: the root's side of one leg, what accept and join_leaf return. Side chat and the
  end of that leg; never session data (clause 96).
* ``LeafEndpoint``: the c_leaf. Joins, or listens for invitations.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import ClassVar, Final

from joinleaf.core.keys.session_key import SessionKey
from joinleaf.drivers.sides import PlainSide, Side
from joinleaf.drivers.tls_side import TlsSide
from joinleaf.errors import SpiError
from joinleaf.providers.rooted._group import LEG, group_of
from joinleaf.providers.rooted._leaf import LeafEndpoint
from joinleaf.providers.rooted._leg import LegEndpoint
from joinleaf.providers.rooted._root import RootEndpoint
from joinleaf.providers.rooted._who import query_roster
from joinleaf.spi import constants as c
from joinleaf.spi.codes import WSAEINVAL, spi_error_from_os
from joinleaf.spi.protocol_info import ProtocolInfo, accepts_roles
from joinleaf.spi.provider import Endpoint, Roles, Settings
from joinleaf.values import SessionAddress

__all__ = [
    "LeafEndpoint",
    "LegEndpoint",
    "RootEndpoint",
    "RootedProvider",
    "SecuredProvider",
    "query_roster",
]

_ROOTED_FLAGS: Final = (
    c.XP1_GUARANTEED_DELIVERY
    | c.XP1_GUARANTEED_ORDER
    | c.XP1_MESSAGE_ORIENTED
    | c.XP1_GRACEFUL_CLOSE
    | c.XP1_CONNECT_DATA
    | c.XP1_DISCONNECT_DATA
    | c.XP1_SUPPORT_MULTIPOINT
    | c.XP1_MULTIPOINT_CONTROL_PLANE
    | c.XP1_QOS_SUPPORTED
)
_OPTIONS: Final = frozenset({"data", "plane"})


def _entry(scheme: str, name: str, flags: int, family: int, size: int) -> ProtocolInfo:
    return ProtocolInfo(
        service_flags=flags,
        name=name,
        provider_flags=c.PFL_MULTIPLE_PROTO_ENTRIES,
        provider_id=uuid.uuid5(uuid.NAMESPACE_URL, f"joinleaf:{scheme}"),
        address_family=family,
        max_sockaddr=size,
        min_sockaddr=size,
        socket_type=c.SOCK_SEQPACKET,
        protocol=c.IPPROTO_TCP,
    )


_IN, _IN6 = (c.AF_INET, 16), (c.AF_INET6, 28)
_ROOTED: Final = _ROOTED_FLAGS | c.XP1_MULTIPOINT_DATA_PLANE


def _entries(scheme: str, carrier: str) -> tuple[ProtocolInfo, ...]:
    return tuple(
        _entry(scheme, f"joinleaf rooted session, {data} data [{carrier}/{network}]", flags, *sizes)
        for data, flags in (("rooted", _ROOTED), ("nonrooted", _ROOTED_FLAGS))
        for network, sizes in (("IP", _IN), ("IPv6", _IN6))
    )


class RootedProvider:
    """The ``jl`` entries of the catalogue."""

    scheme = "jl"
    secures = False  # whether it takes keys and certificates
    _entries: ClassVar[Sequence[ProtocolInfo]] = _entries("jl", "TCP")

    def protocols(self) -> Sequence[ProtocolInfo]:
        """Four entries: rooted and nonrooted data, IPv4 and IPv6."""
        return self._entries

    def select(self, address: SessionAddress) -> ProtocolInfo:
        """The entry for ``jl://host:port[?plane=rooted|nonrooted][&data=group:port|leg]``.

        ``data`` at the root names the group that carries the messages; a leaf is told of it, and
        may decline with ``leg``.
        """
        if address.key and not self.secures:
            raise ValueError(f"{address} takes no key, as nothing is encrypted: write jls://")
        if address.key:
            SessionKey.parse(address.key)  # told now rather than when the network has been asked
        if unknown := set(address.options) - _OPTIONS:
            raise ValueError(
                f"{address}: option {sorted(unknown)[0]!r} is not known to {self.scheme}://"
            )
        plane = address.options.get("plane", "rooted")
        if plane not in ("rooted", "nonrooted"):
            raise ValueError(f"{address}: plane is rooted or nonrooted, not {plane!r}")
        group_of(address)
        ip = address.address.ip
        version6 = ip is not None and ip.version == 6
        return self._entries[(2 if plane == "nonrooted" else 0) + version6]

    def open(
        self,
        info: ProtocolInfo,
        roles: Roles,
        settings: Settings | None = None,
        *,
        address: SessionAddress | None = None,
    ) -> Endpoint:
        """WSPSocket."""
        if not accepts_roles(
            info,
            c_root=roles.c_root,
            c_leaf=not roles.c_root,
            d_root=roles.d_root,
            d_leaf=not roles.d_root,
        ):
            raise SpiError(WSAEINVAL, f"{info.name} does not offer these roles", call="open")
        settings = settings or Settings()
        try:
            side = self._side(roles, settings, address.key if address is not None else "")
            if roles.c_root:
                group = group_of(address) if address else None
                return RootEndpoint(info, roles, settings, side, group=group)
            declines = address is not None and address.options.get("data") == LEG
            return LeafEndpoint(info, roles, settings, side, hears_groups=not declines)
        except OSError as error:
            raise spi_error_from_os(error, call="open") from error

    def _side(self, roles: Roles, settings: Settings, key: str) -> Side:
        """What makes connections. SpiError if keys or certificates are unusable."""
        if settings.trust is not None:
            # Ignoring them would send in the clear what somebody wanted to have encrypted.
            raise SpiError(
                WSAEINVAL, "certificates are of no use in cleartext", call="open", hint=_WRITE_JLS
            )
        return PlainSide()


class SecuredProvider(RootedProvider):
    """The ``jls`` entries: the same over TLS, with a session key or certificates."""

    scheme = "jls"
    secures = True
    _entries = _entries("jls", "TLS/TCP")

    def _side(self, roles: Roles, settings: Settings, key: str) -> Side:
        if roles.c_root and key:
            raise SpiError(
                WSAEINVAL,
                "a root makes its session key itself, anew each time it starts",
                call="open",
                hint="Leave the key out of its address",
            )
        side = TlsSide(settings.trust, key)
        if roles.c_root:
            side.listen()  # what cannot be loaded is told before an address is taken
        return side


_WRITE_JLS: Final = "Write jls:// for an encrypted session"
