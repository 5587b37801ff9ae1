"""Plain IP multicast, ``udp://group:port``: both planes nonrooted, datagrams as they are.

Any other multicast program can take part: a message is a datagram, nothing is added. So nothing is
numbered, told apart or repaired either, and nobody learns of members that come and go.

With a key, ``udp://group:port#key``, datagrams are sealed instead: joinleaf programs that know the
key take part, and nobody else (``ip_sealing``).

Address options: ``interface=`` name, index or address; ``hops=`` 0 to 255; ``loopback=`` on or
off; ``bind=`` session (default) or unique: the port of a receiver that is not bound; ``fresh=``
seconds, with a key: by how much clocks may differ.
"""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from joinleaf.core.wire.sealed import FRESH_S
from joinleaf.drivers import multicast
from joinleaf.drivers.interfaces import IpAddress
from joinleaf.errors import SpiError
from joinleaf.providers.ip_endpoint import IpMulticastEndpoint
from joinleaf.providers.ip_sealing import MAX_FRESH_S, Sealing, check_sealable
from joinleaf.spi import constants as c
from joinleaf.spi.codes import WSAEINVAL
from joinleaf.spi.protocol_info import ProtocolInfo, accepts_roles
from joinleaf.spi.provider import Endpoint, Roles, Settings
from joinleaf.values import SessionAddress

__all__ = ["UDP_FLAGS", "AddressOptions", "IpMulticastProvider", "check_roles", "ip_entries"]

UDP_FLAGS: Final = (
    c.XP1_CONNECTIONLESS
    | c.XP1_MESSAGE_ORIENTED
    | c.XP1_SUPPORT_BROADCAST
    | c.XP1_SUPPORT_MULTIPOINT
    | c.XP1_IFS_HANDLES
)
"""0x20609, what Windows' own UDP entries have."""


class IpMulticastProvider:
    """The catalogue's ``udp`` provider: one entry for IPv4, one for IPv6."""

    scheme = "udp"

    def __init__(self) -> None:
        self._infos = ip_entries("UDP multicast", UDP_FLAGS, "udp.joinleaf")

    def protocols(self) -> Sequence[ProtocolInfo]:
        """UDP multicast over IPv4, and over IPv6."""
        return self._infos

    def select(self, address: SessionAddress) -> ProtocolInfo:
        """The entry of the group's family.

        Raises:
            ValueError: The group is not written as a number, an option is unknown or wrong, or the
                key is too easy to guess.
        """
        ip = address.address.ip
        if ip is None:
            raise ValueError(f"{address}: write the group as a number, 239.255.10.1 for instance")
        AddressOptions.parse(address)
        return self._infos[0 if ip.version == 4 else 1]

    def open(
        self,
        info: ProtocolInfo,
        roles: Roles,
        settings: Settings | None = None,
        *,
        address: SessionAddress | None = None,
    ) -> Endpoint:
        """WSPSocket. Only c_leaf with d_leaf exists here (model, section 2.1).

        Raises:
            SpiError: WSAEINVAL (other roles), WSAEMFILE, WSAENOBUFS, WSAEAFNOSUPPORT (this host
                has no IPv6).
        """
        check_roles(info, roles)
        options = AddressOptions.parse(address)
        return IpMulticastEndpoint(
            info,
            roles,
            options.over(settings or Settings()),
            unique_port=options.unique_port,
            sealing=options.sealing(address),
        )


def ip_entries(name: str, service_flags: int, identity: str) -> tuple[ProtocolInfo, ...]:
    """The IPv4 and the IPv6 entry of a provider."""
    return tuple(
        ProtocolInfo(
            service_flags=service_flags,
            name=f"joinleaf {name}/IPv{version}",
            provider_flags=c.PFL_MATCHES_PROTOCOL_ZERO,
            provider_id=uuid.uuid5(uuid.NAMESPACE_DNS, identity),
            address_family=family,
            max_sockaddr=size,
            min_sockaddr=size,
            protocol=c.IPPROTO_UDP,
            message_size=multicast.MAX_DATAGRAM[version],
        )
        for version, family, size in ((4, c.AF_INET, 16), (6, c.AF_INET6, 28))
    )


def check_roles(info: ProtocolInfo, roles: Roles) -> None:
    """Raise WSAEINVAL for roles that the entry does not offer (model, section 2.1)."""
    if not accepts_roles(info, roles.c_root, not roles.c_root, roles.d_root, not roles.d_root):
        raise SpiError(
            WSAEINVAL,
            f"{info.name} has no such role",
            call="open",
            hint="Nobody is root of the control plane of IP multicast; use jl:// for a root",
        )


class AddressOptions:
    """What follows the question mark of a session address.

    Attributes:
        interface: Name, index or address; None: as set.
        hops: TTL or hop limit; None: as set.
        loopback: Whether senders of this host are heard; None: as set.
        unique_port: Whether a receiver that is not bound gets a port of its own.
        source: The one sender of a source-specific session; None: not stated.
        fresh_s: By how many seconds clocks may differ in a sealed session.
    """

    __slots__ = ("fresh_s", "hops", "interface", "loopback", "source", "unique_port")

    def __init__(self) -> None:
        self.interface: str | None = None
        self.hops: int | None = None
        self.loopback: bool | None = None
        self.unique_port = False
        self.source: IpAddress | None = None
        self.fresh_s = FRESH_S

    @classmethod
    def parse(cls, address: SessionAddress | None) -> AddressOptions:
        """Read the options of a session address.

        Raises:
            ValueError: An option is unknown, or its value is not one it can have; or the key is
                too easy to guess.
        """
        made = cls()
        if address is None:
            return made
        check_sealable(address)
        for name, value in address.options.items():
            if name == "interface" and value:
                made.interface = value
            elif name == "hops" and _is_number(value, 0, 255):
                made.hops = int(value)
            elif name == "loopback" and value in ("on", "off"):
                made.loopback = value == "on"
            elif name == "bind" and value in ("session", "unique"):
                made.unique_port = value == "unique"
            elif name == "fresh" and address.key and _is_number(value, 1, MAX_FRESH_S):
                made.fresh_s = int(value)
            else:
                raise ValueError(
                    f"{address}: {name}={value} is not understood; there are interface=NAME, "
                    "hops=0 to 255, loopback=on or off, bind=session or unique, and with a #key "
                    "fresh=SECONDS"
                )
        if address.source:
            made.source = ipaddress.ip_address(address.source)
        return made

    def sealing(self, address: SessionAddress | None) -> Sealing | None:
        """What seals the session; None where the address has no key."""
        return Sealing(address, self.fresh_s) if address is not None and address.key else None

    def over(self, settings: Settings) -> Settings:
        """The settings, with what the address says in their place."""
        return replace(
            settings,
            interface=settings.interface if self.interface is None else self.interface,
            hops=settings.hops if self.hops is None else self.hops,
            loopback=settings.loopback if self.loopback is None else self.loopback,
        )


def _is_number(text: str, least: int, most: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and least <= int(text) <= most
