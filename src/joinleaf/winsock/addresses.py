"""Socket addresses in the order in which they are checked, and as text."""

from __future__ import annotations

import ipaddress
from typing import Final

from joinleaf.errors import SpiError
from joinleaf.spi import constants as c
from joinleaf.spi.codes import WSAEAFNOSUPPORT, WSAEFAULT, WSAEINVAL
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.values import Address
from joinleaf.winsock.conversions import pack_sockaddr, sockaddr_family, unpack_sockaddr

__all__ = ["address_text", "any_address", "decode", "encode", "parse_text"]

_MINIMUM: Final = {c.AF_INET: 16, c.AF_INET6: 28}


def decode(raw: bytes, info: ProtocolInfo, wrong_family: int = WSAEAFNOSUPPORT) -> Address:
    """Read an address of the entry's family: steps 9 to 11 of the model's section 5.6.

    Args:
        raw: The sockaddr; bytes beyond what the family needs are not looked at.
        info: The catalogue entry.
        wrong_family: What another family is answered with: WSAEFAULT in WSPBind (A-41).

    Raises:
        SpiError: ``wrong_family``; WSAEFAULT (too short, or no name in it).
    """
    family = sockaddr_family(raw)
    if family != info.address_family:
        raise SpiError(wrong_family, f"family {family} is not {info.address_family}")
    if len(raw) < _MINIMUM.get(family, info.min_sockaddr):
        raise SpiError(WSAEFAULT, f"{len(raw)} bytes are too short for an address")
    return unpack_sockaddr(raw)


def encode(address: Address, info: ProtocolInfo) -> bytes:
    """The sockaddr of an address, at least as long as the entry's shortest."""
    if info.address_family == c.AF_INET and address.is_any:
        address = Address("", address.port)  # a socket for both versions calls it ``::``
    return pack_sockaddr(address, info.address_family).ljust(info.min_sockaddr, b"\0")


def any_address(info: ProtocolInfo) -> Address:
    """The wildcard of the entry's family: what an implicit bind takes."""
    wildcard = {c.AF_INET: "0.0.0.0", c.AF_INET6: "::"}
    return Address(wildcard.get(info.address_family, ""))


def address_text(raw: bytes) -> str:
    """WSPAddressToString: ``1.2.3.4:80``, ``[fe80::1%3]:80``, without a port if it is 0."""
    address = unpack_sockaddr(raw)
    if address.port:
        return str(address)
    return f"{address.host}%{address.scope}" if address.scope else address.host


def parse_text(text: str, info: ProtocolInfo) -> bytes:
    """WSPStringToAddress. WSAEINVAL for text that is no address of the entry's family."""
    if info.address_family not in _MINIMUM:
        if not text:
            raise SpiError(WSAEINVAL, "an empty name")
        return encode(Address(text), info)
    try:
        bare = text.count(":") > 1 and not text.startswith("[")
        address = Address.parse(f"[{text}]" if bare else text, default_port=0)
        ip = ipaddress.ip_address(address.host)
    except ValueError as error:
        raise SpiError(WSAEINVAL, str(error)) from error
    if (ip.version == 4) != (info.address_family == c.AF_INET):
        raise SpiError(WSAEINVAL, f"{text!r} is of another family")
    return encode(address, info)
