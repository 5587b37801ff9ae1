"""The C types of the Windows Sockets 2 SPI, as ctypes: names, sizes and offsets of the headers.

Classes are laid out for the running platform's word size from ``declarations.py``; ``layouts``
lays the same text out for either word size, so that a test can compare both with a compiler's.

Three rules hold everywhere. ``long`` is 32 bits (it is on Windows, whatever it is here), so
``c_long`` never appears. A handle is an unsigned integer as wide as a pointer, never None. A
pointer that comes in is its address as an integer, or None for NULL; reading through it is the
business of ``memory.py``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, TypeVar

from joinleaf.winsock.declarations import (
    OTHER_FUNCTIONS,
    PROVIDER_FUNCTIONS,
    STRUCTURES,
    UPCALLS,
    Prototype,
    members,
)

__all__ = [
    "BOOL",
    "DWORD",
    "DWORD_PTR",
    "FLOWSPEC",
    "FUNCTION_TYPES",
    "GROUP",
    "GROUP_REQ",
    "GROUP_SOURCE_REQ",
    "GUID",
    "HANDLE",
    "INVALID_SOCKET",
    "LONG",
    "LPARAM",
    "LPBLOCKINGCALLBACK",
    "LPCONDITIONPROC",
    "LPWSAOVERLAPPED_COMPLETION_ROUTINE",
    "LPWSAUSERAPC",
    "POINTER_BYTES",
    "QOS",
    "QOS_OBJECT_HDR",
    "QOS_SD_MODE",
    "QOS_SHAPING_RATE",
    "SOCKET",
    "SOCKET_ADDRESS",
    "SOCKET_ADDRESS_LIST",
    "SOCKET_ERROR",
    "ULONG",
    "WCHAR",
    "WORD",
    "WPARAM",
    "WSABUF",
    "WSADATA",
    "WSAEVENT",
    "WSANETWORKEVENTS",
    "WSAOVERLAPPED",
    "WSAPROTOCOLCHAIN",
    "WSAPROTOCOL_INFOW",
    "WSATHREADID",
    "WSA_INVALID_EVENT",
    "WSPDATA",
    "WSPPROC_TABLE",
    "WSPSTARTUP",
    "WSPUPCALLTABLE",
    "fd_set",
    "in6_addr",
    "in_addr",
    "ip_mreq",
    "ip_mreq_source",
    "ipv6_mreq",
    "layouts",
    "linger",
    "sockaddr",
    "sockaddr_in",
    "sockaddr_in6",
    "sockaddr_storage",
    "timeval",
]

POINTER_BYTES: Final = ctypes.sizeof(ctypes.c_void_p)

SOCKET = ctypes.c_size_t
HANDLE = ctypes.c_size_t
WSAEVENT = HANDLE
DWORD_PTR = ctypes.c_size_t
WPARAM = ctypes.c_size_t
LPARAM = ctypes.c_ssize_t
BOOL = ctypes.c_int32
DWORD = ctypes.c_uint32
ULONG = ctypes.c_uint32
LONG = ctypes.c_int32
WORD = ctypes.c_uint16
WCHAR = ctypes.c_uint16
GROUP = ctypes.c_uint32

INVALID_SOCKET: Final = (1 << 8 * POINTER_BYTES) - 1
SOCKET_ERROR: Final = -1
WSA_INVALID_EVENT: Final = 0

_FIXED: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "BOOL": BOOL,
        "DWORD": DWORD,
        "GROUP": GROUP,
        "INT": ctypes.c_int32,
        "INT64": ctypes.c_int64,
        "LONG": LONG,
        "UCHAR": ctypes.c_uint8,
        "UINT": ctypes.c_uint32,
        "ULONG": ULONG,
        "WCHAR": WCHAR,
        "WORD": WORD,
        "char": ctypes.c_char,
        "int": ctypes.c_int32,
        "short": ctypes.c_int16,
        "u_short": ctypes.c_uint16,
        "unsigned int": ctypes.c_uint32,
    }
)
"""Types that are as wide on Win32 as on Win64."""

_UNSIGNED_WORDS: Final = frozenset({"SOCKET", "HANDLE", "HWND", "WSAEVENT", "DWORD_PTR", "WPARAM"})
_SIGNED_WORDS: Final = frozenset({"LPARAM"})
_FOREIGN_WORDS: Final = MappingProxyType(
    {
        4: (ctypes.c_uint32, ctypes.c_int32),
        8: (ctypes.c_uint64, ctypes.c_int64),
    }
)


def _is_pointer(declared: str) -> bool:
    return declared.endswith("*") or declared.removeprefix("const ").startswith(("LP", "P"))


def _resolve(declared: str, pointer_bytes: int, structures: Mapping[str, Any]) -> Any:
    if declared in structures:
        return structures[declared]
    if declared in _FIXED:
        return _FIXED[declared]
    native = pointer_bytes == POINTER_BYTES
    unsigned, signed = _FOREIGN_WORDS[pointer_bytes]
    if declared in _UNSIGNED_WORDS:
        return SOCKET if native else unsigned
    if declared in _SIGNED_WORDS:
        return LPARAM if native else signed
    assert _is_pointer(declared), declared
    return ctypes.c_void_p if native else unsigned


def _fields(name: str, pointer_bytes: int, structures: Mapping[str, Any]) -> list[tuple[str, Any]]:
    fields = []
    for member in members(name, pointer_bytes):
        kind = _resolve(member.type, pointer_bytes, structures)
        fields.append((member.name, kind * member.count if member.count else kind))
    return fields


def layouts(pointer_bytes: int) -> dict[str, type[ctypes.Structure]]:
    """Lay out every structure and both tables for pointers of 4 or 8 bytes.

    For comparing only: a program uses the classes of this module, which are laid out for the
    platform it runs on. Pointers are plain integers here.

    Raises:
        KeyError: No Windows has pointers of that width.
    """
    made: dict[str, type[ctypes.Structure]] = {}
    for name in STRUCTURES:
        if "/" not in name:
            fields = _fields(name, pointer_bytes, made)
            made[name] = type(name, (ctypes.Structure,), {"_fields_": fields})
    word, _ = _FOREIGN_WORDS[pointer_bytes]
    for name, functions in (("WSPPROC_TABLE", PROVIDER_FUNCTIONS), ("WSPUPCALLTABLE", UPCALLS)):
        pointers = [(f"lp{function}", word) for function in functions]
        made[name] = type(name, (ctypes.Structure,), {"_fields_": pointers})
    return made


_Structure = TypeVar("_Structure", bound=type[ctypes.Structure])
_native: dict[str, Any] = {}


def _declared(structure: _Structure) -> _Structure:
    structure._fields_ = _fields(structure.__name__, POINTER_BYTES, _native)
    _native[structure.__name__] = structure
    return structure


@_declared
class in_addr(ctypes.Structure):
    """An IPv4 address in network byte order."""


@_declared
class in6_addr(ctypes.Structure):
    """An IPv6 address: eight words, each in network byte order."""


@_declared
class sockaddr(ctypes.Structure):
    """Any address: the family in host order, then what the family says."""


@_declared
class sockaddr_in(ctypes.Structure):
    """AF_INET (2): 16 bytes."""


@_declared
class sockaddr_in6(ctypes.Structure):
    """AF_INET6 (23 in Winsock): 28 bytes."""


@_declared
class sockaddr_storage(ctypes.Structure):
    """Room and alignment for an address of any family: 128 bytes."""


@_declared
class WSABUF(ctypes.Structure):
    """A length and an address. Where data come back, ``len`` is capacity in and count out."""


@_declared
class FLOWSPEC(ctypes.Structure):
    """One direction of a QOS; bytes, bytes per second and microseconds."""


@_declared
class QOS(ctypes.Structure):
    """Sending at offset 0, receiving at 32, and the provider's own objects."""


@_declared
class QOS_OBJECT_HDR(ctypes.Structure):
    """Head of one object in ``QOS.ProviderSpecific``."""


@_declared
class QOS_SD_MODE(ctypes.Structure):
    """Object: what happens to what does not conform."""


@_declared
class QOS_SHAPING_RATE(ctypes.Structure):
    """Object: rate of the shaper, bytes per second."""


@_declared
class WSANETWORKEVENTS(ctypes.Structure):
    """Event record: FD_* bits, and one error cell per bit number."""


@_declared
class WSAPROTOCOLCHAIN(ctypes.Structure):
    """Catalogue numbers of the layers, top first."""


@_declared
class GUID(ctypes.Structure):
    """Identity of a provider."""


@_declared
class WSAPROTOCOL_INFOW(ctypes.Structure):
    """One entry of the catalogue: 628 bytes."""


@_declared
class WSPDATA(ctypes.Structure):
    """What WSPStartup says of the provider."""


@_declared
class WSADATA(ctypes.Structure):
    """What WSAStartup says of the library."""


@_declared
class WSAOVERLAPPED(ctypes.Structure):
    """One overlapped operation; the first four members are the provider's."""


@_declared
class WSATHREADID(ctypes.Structure):
    """A thread, for WPUQueueApc."""


@_declared
class linger(ctypes.Structure):
    """Value of SO_LINGER: on or off, seconds."""


@_declared
class timeval(ctypes.Structure):
    """Time-out of select: seconds and microseconds, 32 bits each."""


@_declared
class fd_set(ctypes.Structure):
    """A count and 64 handles; not a bit field as elsewhere."""


@_declared
class ip_mreq(ctypes.Structure):
    """Group and interface."""


@_declared
class ip_mreq_source(ctypes.Structure):
    """Group, source and interface, in this order (Linux has another)."""


@_declared
class ipv6_mreq(ctypes.Structure):
    """Group and interface index."""


@_declared
class GROUP_REQ(ctypes.Structure):
    """Interface index and group, any family."""


@_declared
class GROUP_SOURCE_REQ(ctypes.Structure):
    """Interface index, group and source, any family."""


@_declared
class SOCKET_ADDRESS(ctypes.Structure):
    """Pointer to an address, and its length."""


@_declared
class SOCKET_ADDRESS_LIST(ctypes.Structure):
    """Result of SIO_ADDRESS_LIST_QUERY; really as many as the count says."""


# WSPAPI is stdcall, which ctypes has on Windows only; elsewhere there is one convention.
_PROTOTYPE: Final[Any] = getattr(ctypes, "WINFUNCTYPE", ctypes.CFUNCTYPE)


def _function_type(prototype: Prototype) -> Any:
    returns = (
        None if prototype.returns == "VOID" else _resolve(prototype.returns, POINTER_BYTES, _native)
    )
    kinds = [_resolve(declared, POINTER_BYTES, _native) for declared, _ in prototype.parameters]
    return _PROTOTYPE(returns, *kinds)


def _table(prototypes: Mapping[str, Prototype]) -> list[tuple[str, Any]]:
    return [(f"lp{name}", FUNCTION_TYPES[name]) for name in prototypes]


FUNCTION_TYPES: Final[dict[str, Any]] = {
    name: _function_type(prototype)
    for functions in (PROVIDER_FUNCTIONS, UPCALLS)
    for name, prototype in functions.items()
}
"""Function pointer type of every function, by the function's name (``"WSPJoinLeaf"``)."""


class WSPPROC_TABLE(ctypes.Structure):
    """The thirty functions of a provider; each member can be called."""

    _fields_ = _table(PROVIDER_FUNCTIONS)


class WSPUPCALLTABLE(ctypes.Structure):
    """The fifteen functions a provider may call; travels by value."""

    _fields_ = _table(UPCALLS)


_native["WSPUPCALLTABLE"] = WSPUPCALLTABLE
FUNCTION_TYPES.update(
    {name: _function_type(prototype) for name, prototype in OTHER_FUNCTIONS.items()}
)

WSPSTARTUP: Final[Any] = FUNCTION_TYPES["WSPStartup"]
LPCONDITIONPROC: Final[Any] = FUNCTION_TYPES["LPCONDITIONPROC"]
LPBLOCKINGCALLBACK: Final[Any] = FUNCTION_TYPES["LPBLOCKINGCALLBACK"]
LPWSAUSERAPC: Final[Any] = FUNCTION_TYPES["LPWSAUSERAPC"]
LPWSAOVERLAPPED_COMPLETION_ROUTINE: Final[Any] = FUNCTION_TYPES[
    "LPWSAOVERLAPPED_COMPLETION_ROUTINE"
]
