"""C structures on one side, the seam's values on the other: addresses, QOS, catalogue entries.

Bytes and structures come in here already read (``memory.py`` did that) and leave as bytes or
structures; no pointer is followed but the one inside a QOS.
"""

from __future__ import annotations

import ctypes
import ipaddress
import struct
import sys
import uuid
from typing import Final

from joinleaf.drivers.interfaces import find_interface
from joinleaf.errors import SpiError
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.values import Address
from joinleaf.winsock.types import FLOWSPEC, GUID, QOS, WSABUF, WSAPROTOCOL_INFOW

__all__ = [
    "flowspec_from_c",
    "flowspec_to_c",
    "guid_from_c",
    "guid_to_c",
    "info_from_c",
    "info_to_c",
    "pack_sockaddr",
    "qos_from_c",
    "qos_to_c",
    "sockaddr_family",
    "store_qos",
    "unpack_sockaddr",
]

_FAMILY: Final = struct.Struct("=H")
_IN: Final = struct.Struct("!H4s8x")
_IN6: Final = struct.Struct("!H4x16s")
_SCOPE: Final = struct.Struct("=I")
_UTF16: Final = "utf-16-le" if sys.byteorder == "little" else "utf-16-be"

_FLOWSPEC: Final = (
    ("TokenRate", "token_rate"),
    ("TokenBucketSize", "token_bucket_size"),
    ("PeakBandwidth", "peak_bandwidth"),
    ("Latency", "latency"),
    ("DelayVariation", "delay_variation"),
    ("ServiceType", "service_type"),
    ("MaxSduSize", "max_sdu_size"),
    ("MinimumPolicedSize", "minimum_policed_size"),
)
_INFO: Final = (
    ("dwServiceFlags1", "service_flags"),
    ("dwProviderFlags", "provider_flags"),
    ("dwCatalogEntryId", "catalog_entry_id"),
    ("iVersion", "version"),
    ("iAddressFamily", "address_family"),
    ("iMaxSockAddr", "max_sockaddr"),
    ("iMinSockAddr", "min_sockaddr"),
    ("iSocketType", "socket_type"),
    ("iProtocol", "protocol"),
    ("iProtocolMaxOffset", "protocol_max_offset"),
    ("iNetworkByteOrder", "network_byte_order"),
    ("iSecurityScheme", "security_scheme"),
    ("dwMessageSize", "message_size"),
)


# -- addresses --------------------------------------------------------------------------------


def sockaddr_family(raw: bytes) -> int:
    """The family of a sockaddr: two bytes in host order.

    Raises:
        SpiError: WSAEFAULT, fewer than two bytes.
    """
    if len(raw) < _FAMILY.size:
        raise SpiError(codes.WSAEFAULT, f"an address of {len(raw)} bytes has no family")
    return int(_FAMILY.unpack_from(raw)[0])


def pack_sockaddr(address: Address, family: int) -> bytes:
    """The sockaddr of an address: 16 bytes for AF_INET, 28 for AF_INET6, else family and name.

    Every other family is taken to be one of names, as that of the mem entries: the name in UTF-8
    and one zero. An empty host is the family's wildcard; an IPv4 address is mapped into IPv6.

    Raises:
        SpiError: WSAEADDRNOTAVAIL, the family cannot express the address.
    """
    head = _FAMILY.pack(family)
    if family == c.AF_INET:
        return head + _IN.pack(address.port, _ip(address, 4))
    if family == c.AF_INET6:
        return head + _IN6.pack(address.port, _ip(address, 6)) + _SCOPE.pack(_scope_id(address))
    return head + address.host.encode() + b"\0"


def unpack_sockaddr(raw: bytes) -> Address:
    """The address in a sockaddr; bytes beyond the family's size are not looked at.

    Raises:
        SpiError: WSAEFAULT: shorter than its family demands, or a name that is not UTF-8.
    """
    family, body = sockaddr_family(raw), raw[_FAMILY.size :]
    if family == c.AF_INET:
        port, packed = _IN.unpack(_exactly(body, _IN.size))
        return Address(str(ipaddress.IPv4Address(packed)), port)
    if family == c.AF_INET6:
        body = _exactly(body, _IN6.size + _SCOPE.size)
        port, packed = _IN6.unpack_from(body)
        (scope,) = _SCOPE.unpack_from(body, _IN6.size)
        return Address(str(ipaddress.IPv6Address(packed)), port, str(scope) if scope else "")
    try:
        return Address(body.partition(b"\0")[0].decode())
    except UnicodeDecodeError as error:
        raise SpiError(codes.WSAEFAULT, "the name in the address is not UTF-8") from error


def _exactly(body: bytes, size: int) -> bytes:
    if len(body) < size:
        raise SpiError(
            codes.WSAEFAULT, f"an address of {len(body) + 2} bytes, {size + 2} are needed"
        )
    return body[:size]


def _ip(address: Address, version: int) -> bytes:
    ip = address.ip
    if ip is None and not address.host:
        return bytes(4 if version == 4 else 16)
    if ip is not None and ip.version == version:
        return ip.packed
    if version == 6 and isinstance(ip, ipaddress.IPv4Address):
        return b"\0" * 10 + b"\xff\xff" + ip.packed
    raise SpiError(codes.WSAEADDRNOTAVAIL, f"{address} is no IPv{version} address")


def _scope_id(address: Address) -> int:
    if not address.scope:
        return 0
    if address.scope.isascii() and address.scope.isdigit():
        return int(address.scope) & 0xFFFFFFFF
    return find_interface(address.scope).index


# -- quality of service -----------------------------------------------------------------------


def flowspec_to_c(flow: FlowSpec) -> FLOWSPEC:
    """FLOWSPEC of one direction."""
    return FLOWSPEC(*(getattr(flow, ours) for _, ours in _FLOWSPEC))


def flowspec_from_c(structure: FLOWSPEC) -> FlowSpec:
    """One direction of a QOS.

    Raises:
        SpiError: WSAEOPNOTSUPP: numbers nobody can satisfy (an unknown service type, say).
    """
    try:
        return FlowSpec(**{ours: getattr(structure, theirs) for theirs, ours in _FLOWSPEC})
    except ValueError as error:
        raise SpiError(codes.WSAEOPNOTSUPP, f"flow specification: {error}") from error


def qos_to_c(qos: Qos) -> QOS:
    """A QOS; the memory of its provider-specific part lives as long as the structure."""
    specific = qos.provider_specific
    structure = QOS(flowspec_to_c(qos.sending), flowspec_to_c(qos.receiving))
    if specific:
        memory = ctypes.create_string_buffer(specific, len(specific))
        structure.ProviderSpecific = WSABUF(len(specific), ctypes.addressof(memory))
        structure.memory = memory
    return structure


def qos_from_c(structure: QOS) -> Qos:
    """Both directions and a copy of the provider-specific part.

    Raises:
        SpiError: WSAEFAULT: a length without memory. WSAEOPNOTSUPP: numbers nobody can satisfy.
    """
    specific = structure.ProviderSpecific
    if specific.len and not specific.buf:
        raise SpiError(codes.WSAEFAULT, "ProviderSpecific has a length and no memory")
    objects = ctypes.string_at(specific.buf, specific.len) if specific.len else b""
    sending = flowspec_from_c(structure.SendingFlowspec)
    receiving = flowspec_from_c(structure.ReceivingFlowspec)
    try:
        return Qos(sending, receiving, objects)
    except ValueError as error:
        raise SpiError(codes.WSAEOPNOTSUPP, f"flow specification: {error}") from error


def store_qos(target: QOS, qos: Qos) -> None:
    """Write a Qos over a client's QOS; its provider-specific memory stays the client's.

    The provider-specific part is copied where it fits, and its length set; else length 0.
    """
    target.SendingFlowspec = flowspec_to_c(qos.sending)
    target.ReceivingFlowspec = flowspec_to_c(qos.receiving)
    room = target.ProviderSpecific
    fits = bool(room.buf) and len(qos.provider_specific) <= room.len
    data = qos.provider_specific if fits else b""
    if data:
        ctypes.memmove(room.buf, data, len(data))
    room.len = len(data)


# -- catalogue entries ------------------------------------------------------------------------


def guid_to_c(value: uuid.UUID) -> GUID:
    """A GUID with the same text form."""
    low, mid, high = value.fields[:3]
    return GUID(low, mid, high, tuple(value.bytes[8:]))


def guid_from_c(structure: GUID) -> uuid.UUID:
    """The identity in a GUID."""
    head = struct.pack("!IHH", structure.Data1, structure.Data2, structure.Data3)
    return uuid.UUID(bytes=head + bytes(structure.Data4))


def info_to_c(info: ProtocolInfo) -> WSAPROTOCOL_INFOW:
    """WSAPROTOCOL_INFOW of a catalogue entry."""
    structure = WSAPROTOCOL_INFOW(**{theirs: getattr(info, ours) for theirs, ours in _INFO})
    structure.ProviderId = guid_to_c(info.provider_id)
    structure.ProtocolChain.ChainLen = len(info.chain)
    for index, entry in enumerate(info.chain):
        structure.ProtocolChain.ChainEntries[index] = entry
    raw = info.name.encode(_UTF16, "surrogatepass")
    offset = WSAPROTOCOL_INFOW.szProtocol.offset
    ctypes.memmove(ctypes.addressof(structure) + offset, raw, len(raw))
    return structure


def info_from_c(structure: WSAPROTOCOL_INFOW) -> ProtocolInfo:
    """The catalogue entry in a WSAPROTOCOL_INFOW.

    Raises:
        SpiError: WSAEINVAL: no entry any catalogue could hold.
    """
    chain = structure.ProtocolChain
    raw = bytes(structure.szProtocol).decode(_UTF16, "surrogatepass")
    values = {ours: getattr(structure, theirs) for theirs, ours in _INFO}
    if not 0 <= chain.ChainLen <= c.MAX_PROTOCOL_CHAIN:
        raise SpiError(codes.WSAEINVAL, f"protocol information: a chain of {chain.ChainLen}")
    try:
        return ProtocolInfo(
            name=raw.partition("\0")[0],
            provider_id=guid_from_c(structure.ProviderId),
            chain=tuple(chain.ChainEntries[: chain.ChainLen]),
            **values,
        )
    except ValueError as error:
        raise SpiError(codes.WSAEINVAL, f"protocol information: {error}") from error
