"""ProtocolInfo (WSAPROTOCOL_INFOW): what one catalogue entry can do, and which roles it offers."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Final

from joinleaf.spi import constants as c

__all__ = ["ANY_MESSAGE_SIZE", "ProtocolInfo", "accepts_roles", "flag_names"]

ANY_MESSAGE_SIZE: Final = 0xFFFFFFFF
"""``message_size`` of an entry that sets no limit; 0 means a stream, 1 depends on the network."""

_DWORD_MAX: Final = 0xFFFFFFFF
_NO_PROVIDER: Final = uuid.UUID(int=0)

_FLAG_NAMES: Final = {
    value: name.removeprefix("XP1_") for name, value in vars(c).items() if name.startswith("XP1_")
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolInfo:
    """WSAPROTOCOL_INFOW: one entry of the catalogue.

    Attributes:
        service_flags: dwServiceFlags1, XP1_* bits.
        name: szProtocol; at most 255 UTF-16 units.
        provider_flags: dwProviderFlags, PFL_* bits.
        provider_id: ProviderId, the same for all entries of one provider.
        catalog_entry_id: dwCatalogEntryId; 0 until the catalogue has given a number.
        chain: ProtocolChain. Empty: a layered protocol, not usable by itself. One number: a base
            protocol. Two to seven: a chain, catalogue ids from the top layer down to the base.
        version: iVersion.
        address_family: iAddressFamily, Winsock's number.
        max_sockaddr: iMaxSockAddr, bytes.
        min_sockaddr: iMinSockAddr, bytes, at most ``max_sockaddr``.
        socket_type: iSocketType, SOCK_*.
        protocol: iProtocol, IPPROTO_*.
        protocol_max_offset: iProtocolMaxOffset: how far above ``protocol`` a number may lie.
        network_byte_order: BIGENDIAN or LITTLEENDIAN.
        security_scheme: iSecurityScheme; 0 none.
        message_size: Longest message in bytes; 0 stream, 1 ask SO_MAX_MSG_SIZE, 0xFFFFFFFF any.

    Raises:
        ValueError: A field is out of range, or flags contradict each other.

    Source:
        Section 2 of the multipoint model.
    """

    service_flags: int
    name: str
    provider_flags: int = 0
    provider_id: uuid.UUID = _NO_PROVIDER
    catalog_entry_id: int = 0
    chain: tuple[int, ...] = (0,)
    version: int = 2
    address_family: int = c.AF_INET
    max_sockaddr: int = 16
    min_sockaddr: int = 16
    socket_type: int = c.SOCK_DGRAM
    protocol: int = 0
    protocol_max_offset: int = 0
    network_byte_order: int = c.BIGENDIAN
    security_scheme: int = c.SECURITY_PROTOCOL_NONE
    message_size: int = ANY_MESSAGE_SIZE

    def __post_init__(self) -> None:
        one_way = self.service_flags & (c.XP1_UNI_SEND | c.XP1_UNI_RECV)
        dwords = (self.service_flags, self.provider_flags, self.catalog_entry_id, self.message_size)
        for ok, text in (
            (all(0 <= value <= _DWORD_MAX for value in (*dwords, *self.chain)), "not 32 bits wide"),
            (
                one_way != c.XP1_UNI_SEND | c.XP1_UNI_RECV,
                "both UNI_SEND and UNI_RECV",
            ),
            (
                len(self.chain) <= c.MAX_PROTOCOL_CHAIN,
                "more than 7 in a chain",
            ),
            (0 <= self.min_sockaddr <= self.max_sockaddr, "min_sockaddr above max_sockaddr"),
            (_utf16_units(self.name) <= c.WSAPROTOCOL_LEN, "name above 255 UTF-16 units"),
            ("\0" not in self.name, "zero in the name"),
        ):
            if not ok:
                raise ValueError(f"protocol {self.name[:40]!r}: {text}")

    def has(self, flags: int) -> bool:
        """Whether every one of these XP1_* bits is set."""
        return self.service_flags & flags == flags

    @property
    def supports_multipoint(self) -> bool:
        """Whether its sockets can join anything at all."""
        return self.has(c.XP1_SUPPORT_MULTIPOINT)

    @property
    def control_plane_rooted(self) -> bool:
        """Whether a c_root decides who is in the session."""
        return self.has(c.XP1_SUPPORT_MULTIPOINT | c.XP1_MULTIPOINT_CONTROL_PLANE)

    @property
    def data_plane_rooted(self) -> bool:
        """Whether leaves hear the d_root only."""
        return self.has(c.XP1_SUPPORT_MULTIPOINT | c.XP1_MULTIPOINT_DATA_PLANE)

    @property
    def is_layered(self) -> bool:
        """Whether it is a layer, usable only as part of a chain."""
        return not self.chain

    @property
    def is_base(self) -> bool:
        """Whether it stands by itself."""
        return len(self.chain) == 1

    @property
    def is_chain(self) -> bool:
        """Whether it is made of layers over a base."""
        return len(self.chain) > 1


def accepts_roles(
    info: ProtocolInfo, c_root: bool, c_leaf: bool, d_root: bool, d_leaf: bool
) -> bool:
    """Whether WSPSocket accepts this set of WSA_FLAG_MULTIPOINT_* flags for this entry.

    None of the four is accepted everywhere: it makes an ordinary socket, which cannot join.

    Source:
        Table 2.1 of the multipoint model.
    """
    if not (c_root or c_leaf or d_root or d_leaf):
        return True
    if c_root == c_leaf or d_root == d_leaf or not info.supports_multipoint:
        return False
    return (c_leaf or info.control_plane_rooted) and (d_leaf or info.data_plane_rooted)


def flag_names(service_flags: int) -> tuple[str, ...]:
    """Names of the XP1_* bits that are set, without the prefix; bits without a name in hex."""
    bits = (1 << index for index in range(service_flags.bit_length()))
    return tuple(_FLAG_NAMES.get(bit, f"0x{bit:X}") for bit in bits if service_flags & bit)


def _utf16_units(text: str) -> int:
    # Lone surrogates can come from a C caller's buffer; they count one unit each.
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
