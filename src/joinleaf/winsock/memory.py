"""Parameters of the WSP* functions: reading and writing through whatever a caller passed.

Numbers and memory are the business of ``places.py``, WSABUF of ``buffers.py``; here are the
parameters that have a meaning of their own, and everything of the three under one name. Where a
function says so, a plain Python value (Address, Qos, ProtocolInfo, str, list) serves as well as
memory, and a ``Cell`` takes such a value as output.

Nothing is ever written beyond a length the caller stated, and a length is only written by the
functions whose descriptions say so.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from typing import Any, Final

from joinleaf.errors import SpiError
from joinleaf.spi import codes
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.qos import Qos
from joinleaf.values import Address
from joinleaf.winsock.buffers import Buffer, Wsabuf, buffer, buffers, gather, scatter
from joinleaf.winsock.conversions import (
    info_from_c,
    info_to_c,
    pack_sockaddr,
    qos_from_c,
    store_qos,
)
from joinleaf.winsock.places import (
    Cell,
    address_of,
    as_int,
    check,
    fault,
    function_at,
    is_c_function,
    is_null,
    locate,
    read,
    read_int,
    struct_at,
    write,
    write_error,
    write_int,
)
from joinleaf.winsock.types import POINTER_BYTES, QOS, WSAPROTOCOL_INFOW, fd_set, timeval

__all__ = [
    "Buffer",
    "Cell",
    "Wsabuf",
    "address_of",
    "as_int",
    "buffer",
    "buffers",
    "fault",
    "function_at",
    "gather",
    "info_at",
    "is_c_function",
    "is_null",
    "qos_at",
    "read",
    "read_fd_set",
    "read_int",
    "read_sockaddr",
    "read_timeout",
    "read_wide",
    "scatter",
    "struct_at",
    "write",
    "write_error",
    "write_fd_set",
    "write_info",
    "write_int",
    "write_qos",
    "write_sockaddr",
    "write_wide",
]

_LONGEST_STRING: Final = 32768
"""UTF-16 units read in search of a zero: the longest path or string Windows itself passes on."""

_UTF16: Final = "utf-16-le" if sys.byteorder == "little" else "utf-16-be"


def qos_at(pointer: Any) -> Qos | None:
    """A QOS parameter: NULL, a Qos, or a structure.

    Raises:
        SpiError: WSAEFAULT: unreadable or too short. WSAEOPNOTSUPP: cannot be satisfied.
    """
    if isinstance(pointer, Cell):
        pointer = pointer.value
    if is_null(pointer):
        return None
    return pointer if isinstance(pointer, Qos) else qos_from_c(struct_at(pointer, QOS))


def write_qos(pointer: Any, qos: Qos) -> None:
    """Write a QOS; a Cell gets the Qos itself.

    Raises:
        SpiError: WSAEFAULT.
    """
    if isinstance(pointer, Cell):
        pointer.value = qos
    else:
        store_qos(struct_at(pointer, QOS, writable=True), qos)


def info_at(pointer: Any) -> ProtocolInfo | None:
    """A WSAPROTOCOL_INFOW parameter: NULL, a ProtocolInfo, or a structure.

    Raises:
        SpiError: WSAEFAULT: unreadable. WSAEINVAL: no possible entry.
    """
    if isinstance(pointer, Cell):
        pointer = pointer.value
    if is_null(pointer):
        return None
    if isinstance(pointer, ProtocolInfo):
        return pointer
    return info_from_c(struct_at(pointer, WSAPROTOCOL_INFOW))


def write_info(pointer: Any, info: ProtocolInfo) -> None:
    """Write a WSAPROTOCOL_INFOW; a Cell gets the ProtocolInfo itself.

    Raises:
        SpiError: WSAEFAULT.
    """
    if isinstance(pointer, Cell):
        pointer.value = info
    else:
        write(pointer, bytes(info_to_c(info)))


# -- addresses --------------------------------------------------------------------------------


def read_sockaddr(pointer: Any, length: Any, info: ProtocolInfo) -> bytes:
    """The bytes of a sockaddr parameter, at most as many as the entry's longest address has.

    Args:
        pointer: A sockaddr in any form, or an Address.
        length: ``namelen``, bytes; not looked at for an Address.
        info: The catalogue entry; bytes beyond its iMaxSockAddr are not read.

    Raises:
        SpiError: WSAEFAULT: NULL, a length below 2, or memory shorter than the length.
    """
    if isinstance(pointer, Address):
        return pack_sockaddr(pointer, info.address_family).ljust(info.min_sockaddr, b"\0")
    size = as_int(length)
    if size < 2:
        raise fault(f"an address of {size} bytes")
    check(pointer, size, writable=False)
    return read(pointer, min(size, info.max_sockaddr))


def write_sockaddr(pointer: Any, length: Any, raw: bytes) -> None:
    """Fill an address and its in/out length; nothing if both are NULL. A Cell gets the bytes.

    Raises:
        SpiError: WSAEFAULT: one of the two is missing, or too small. Nothing has been written.
    """
    if is_null(pointer) and is_null(length):
        return
    if isinstance(pointer, Cell) and is_null(length):
        pointer.value = raw
        return
    capacity = read_int(length)
    if capacity < len(raw) and not isinstance(pointer, Cell):
        raise fault(f"{len(raw)} bytes of address do not fit {capacity}")
    write(pointer, raw)
    write_int(length, len(raw))


# -- text -------------------------------------------------------------------------------------


def read_wide(pointer: Any) -> str:
    """A zero-terminated LPWSTR parameter: UTF-16 in memory, or a Python str.

    Raises:
        SpiError: WSAEFAULT: no memory, or no zero within 32768 units.
    """
    if isinstance(pointer, Cell):
        pointer = pointer.value
    if isinstance(pointer, str):
        return pointer
    if isinstance(pointer, ctypes.Array) and pointer._type_ is ctypes.c_wchar:
        return str(pointer.value)
    if is_null(pointer):
        raise fault("NULL where text is needed")
    address, size, keep = locate(pointer, writable=False)
    units = _LONGEST_STRING if size is None else size // 2
    raw = bytearray()
    for index in range(units):
        unit = ctypes.string_at(address + 2 * index, 2)
        if unit == b"\0\0":
            del keep
            return raw.decode(_UTF16, "surrogatepass")
        raw += unit
    raise fault("text without a terminating zero")


def write_wide(pointer: Any, length: Any, text: str) -> None:
    """Fill a string and its in/out length in UTF-16 units, the terminating zero counted.

    Raises:
        SpiError: WSAEFAULT: too small; ``*length`` then holds the units needed.
    """
    raw = text.encode(_UTF16, "surrogatepass") + b"\0\0"
    units = len(raw) // 2
    if isinstance(pointer, Cell):
        pointer.value = text
    else:
        capacity = read_int(length)
        if is_null(pointer) or capacity < units:
            write_int(length, units)
            raise fault(f"{units} characters do not fit {capacity}")
        write(pointer, raw)
    if not is_null(length):
        write_int(length, units)


# -- select ------------------------------------------------------------------------------------


def read_fd_set(pointer: Any) -> list[int] | None:
    """Handles of an fd_set: NULL, a structure of any size, or a Python list or set.

    Raises:
        SpiError: WSAEFAULT: memory shorter than its count says.
    """
    if is_null(pointer):
        return None
    if isinstance(pointer, list | set):
        return list(pointer)
    count = read_int(pointer, ctypes.c_uint32)
    offset = fd_set.fd_array.offset
    raw = read(pointer, offset + count * POINTER_BYTES)[offset:]
    return list((ctypes.c_size_t * count).from_buffer_copy(raw))


def write_fd_set(pointer: Any, handles: Sequence[int]) -> None:
    """Write the handles that are left of an fd_set; nothing for NULL.

    Raises:
        SpiError: WSAEFAULT: more than there were.
    """
    if is_null(pointer):
        return
    if isinstance(pointer, list | set):
        pointer.clear()
        pointer.extend(handles) if isinstance(pointer, list) else pointer.update(handles)
        return
    if len(handles) > read_int(pointer, ctypes.c_uint32):
        raise fault("an fd_set never grows")
    start = address_of(pointer)
    array = bytes((ctypes.c_size_t * len(handles))(*handles))
    ctypes.memmove(start + fd_set.fd_array.offset, array, len(array))
    write_int(start, len(handles), ctypes.c_uint32)


def read_timeout(pointer: Any) -> float | None:
    """A timeval parameter in seconds: None waits for ever; a float is taken as it is.

    Raises:
        SpiError: WSAEFAULT: unreadable. WSAEINVAL: negative, or a million microseconds or more.
    """
    if isinstance(pointer, float):
        seconds, microseconds = pointer, 0
    elif is_null(pointer):
        return None
    else:
        value = struct_at(pointer, timeval)
        seconds, microseconds = value.tv_sec, value.tv_usec
    if seconds < 0 or not 0 <= microseconds < 1_000_000:
        raise SpiError(codes.WSAEINVAL, "a time-out must not be negative")
    return seconds + microseconds / 1e6
