"""Source-specific multicast, ``ssm://source@group:port``: control nonrooted, data rooted.

The d_root is the source: what it sends reaches every d_leaf, and nothing a d_leaf could send would
reach anybody, for routers forward the source's datagrams only. It fills the quadrant of the
taxonomy for which Winsock's documents know no example.

* A d_root (``Roles(d_root=True)``) sends from the source address, which has to be one of this
  host's, and hears nothing. It has no membership. ``JL_RECEIVER_ONLY`` is refused.
* A d_leaf receives, with ``JL_BOTH`` too; sending and ``JL_SENDER_ONLY`` are refused.

With a key, ``ssm://source@group:port#key``, datagrams are sealed (``ip_sealing``).

Refusals are WSAEOPNOTSUPP, as for every rooted data plane (model, section 10.2).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

from joinleaf.drivers.interfaces import IpAddress, find_interface
from joinleaf.errors import SpiError
from joinleaf.providers.ip_endpoint import IpMulticastEndpoint
from joinleaf.providers.ip_multicast import UDP_FLAGS, AddressOptions, check_roles, ip_entries
from joinleaf.providers.ip_sealing import Sealing
from joinleaf.spi import constants as c
from joinleaf.spi.codes import WSAEADDRNOTAVAIL, WSAEAFNOSUPPORT, WSAEOPNOTSUPP
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.provider import Batch, Endpoint, JoinRole, Roles, Settings
from joinleaf.values import SessionAddress

__all__ = ["SourceSpecificEndpoint", "SourceSpecificProvider"]

_SSM_FLAGS: Final = UDP_FLAGS | c.XP1_MULTIPOINT_DATA_PLANE


class SourceSpecificProvider:
    """The catalogue's ``ssm`` provider: one entry for IPv4, one for IPv6."""

    scheme = "ssm"

    def __init__(self) -> None:
        self._infos = ip_entries("source-specific multicast", _SSM_FLAGS, "ssm.joinleaf")

    def protocols(self) -> Sequence[ProtocolInfo]:
        """Source-specific multicast over IPv4, and over IPv6."""
        return self._infos

    def select(self, address: SessionAddress) -> ProtocolInfo:
        """The entry of the group's family.

        Raises:
            ValueError: No source, or source and group are not numbers of one family; or an option
                is unknown or wrong.
        """
        ip, source = address.address.ip, AddressOptions.parse(address).source
        if ip is None or source is None or ip.version != source.version:
            raise ValueError(
                f"{address}: write source and group as numbers of one family, "
                "ssm://10.0.0.1@232.1.2.3:5000 for instance"
            )
        return self._infos[0 if ip.version == 4 else 1]

    def open(
        self,
        info: ProtocolInfo,
        roles: Roles,
        settings: Settings | None = None,
        *,
        address: SessionAddress | None = None,
    ) -> Endpoint:
        """WSPSocket: a c_leaf that is the d_root, or a d_leaf. ``address`` brings the source.

        Raises:
            SpiError: WSAEINVAL (a c_root), WSAEMFILE, WSAENOBUFS, WSAEAFNOSUPPORT.
        """
        check_roles(info, roles)
        options = AddressOptions.parse(address)
        return SourceSpecificEndpoint(
            info,
            roles,
            options.over(settings or Settings()),
            unique_port=options.unique_port,
            source=options.source,
            sealing=options.sealing(address),
        )


class SourceSpecificEndpoint(IpMulticastEndpoint):
    """A member of a session in which one address speaks."""

    def __init__(
        self,
        info: ProtocolInfo,
        roles: Roles,
        settings: Settings,
        *,
        unique_port: bool = False,
        source: IpAddress | None = None,
        sealing: Sealing | None = None,
    ) -> None:
        super().__init__(info, roles, settings, unique_port=unique_port, sealing=sealing)
        self._speaker = source

    def receive_many(self, *, timeout: float | None = None) -> Batch:
        """WSPRecv; WSAEOPNOTSUPP at the d_root, to which nobody can send."""
        self._check_open("receive")
        if self.roles.d_root:
            raise SpiError(
                WSAEOPNOTSUPP,
                "the source of a source-specific session hears nobody",
                call="receive",
                hint="Use udp:// or jl:// for sessions in which members answer",
            )
        return super().receive_many(timeout=timeout)

    def _listens(self, role: JoinRole) -> bool:
        return not self.roles.d_root

    def _may_send(self) -> bool:
        return self.roles.d_root

    def _refuse_sending(self) -> SpiError:
        return SpiError(
            WSAEOPNOTSUPP,
            "only the source sends in a source-specific session",
            call="send",
            hint="Open the session as d_root on the source's host, or use udp://",
        )

    def _check_role(self, role: JoinRole) -> None:
        if self.roles.d_root and role == JoinRole.RECEIVER_ONLY:
            raise SpiError(
                WSAEOPNOTSUPP, "the source of the session cannot be a receiver", call="join_leaf"
            )
        if not self.roles.d_root and role == JoinRole.SENDER_ONLY:
            raise SpiError(
                WSAEOPNOTSUPP,
                "a d_leaf of a source-specific session has nobody to send to",
                call="join_leaf",
                hint="Open the session as d_root on the source's host to send",
            )
        self._check_speaker()

    def _check_speaker(self) -> None:
        """Raise unless there is a source of the family, and it is ours if we are the d_root."""
        if self._speaker is None:
            if self.roles.d_root:
                return  # any own address is a source
            raise SpiError(
                WSAEADDRNOTAVAIL,
                "no source is known, so there is nobody to hear",
                call="join_leaf",
                hint="Open it with a session address, ssm://source@group:port",
            )
        if self._speaker.version != self._version:
            raise SpiError(
                WSAEAFNOSUPPORT,
                f"source {self._speaker} is not an IPv{self._version} address",
                call="join_leaf",
            )
        if self.roles.d_root:
            find_interface(str(self._speaker))

    def _source(self) -> IpAddress | None:
        return None if self.roles.d_root else self._speaker

    def _send_address(self) -> IpAddress | None:
        speaks = self.roles.d_root and self._speaker is not None
        return self._speaker if speaks else super()._send_address()

    def _wants(self, host: str) -> bool:
        # The kernel filters the group; this keeps out what is sent to the port directly.
        return ipaddress.ip_address(host) == self._speaker and super()._wants(host)
