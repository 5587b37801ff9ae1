"""Parameters of the WSP* functions: reading and writing through whatever a caller passed.

A pointer parameter may be an address (int), a ctypes pointer, ``byref(...)``, a ctypes object, a
buffer (bytes, bytearray, memoryview), a plain Python value where the function says so, a ``Cell``
for an output, or None. What cannot be read or written is WSAEFAULT, never a crash, as far as that
can be known: None, wrong types, buffers that are too short or read-only, and addresses in the
first 64 KiB, which no system maps. Any other address is believed, as every C library does.

Nothing is ever written beyond a length the caller stated, and a length is only written by the
functions whose names say so.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from joinleaf.errors import SpiError
from joinleaf.spi import codes
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.qos import Qos
from joinleaf.values import Address
from joinleaf.winsock.conversions import (
    info_from_c,
    info_to_c,
    pack_sockaddr,
    qos_from_c,
    store_qos,
)
from joinleaf.winsock.types import (
    LPBLOCKINGCALLBACK,
    POINTER_BYTES,
    QOS,
    WSABUF,
    WSAPROTOCOL_INFOW,
    fd_set,
    timeval,
)

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

LOWEST_ADDRESS: Final = 0x10000
"""Windows never maps the first 64 KiB, nor does Linux with its usual ``vm.mmap_min_addr``."""

_LONGEST_STRING: Final = 32768
"""UTF-16 units read in search of a zero: the longest path or string Windows itself passes on."""

_UTF16: Final = "utf-16-le" if sys.byteorder == "little" else "utf-16-be"
_ORDER: Final = sys.byteorder
_FUNCTION: Final[Any] = LPBLOCKINGCALLBACK.__mro__[1]
_BYREF: Final[Any] = type(ctypes.byref(ctypes.c_int()))
_POINTERS: Final[tuple[Any, ...]] = (
    ctypes._Pointer,
    ctypes.c_void_p,
    ctypes.c_char_p,
    ctypes.c_wchar_p,
    _FUNCTION,
    _BYREF,
)
_OBJECTS: Final[tuple[Any, ...]] = (
    ctypes.Structure,
    ctypes.Union,
    ctypes.Array,
    ctypes._SimpleCData,
)

_S = TypeVar("_S", bound=ctypes.Structure)


class Cell:
    """A place for an output, for callers in Python: ``cell.value`` holds what was written.

    Equal to a C variable whose address is passed; works for every output parameter.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any = 0) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"Cell({self.value!r})"


class Wsabuf(WSABUF):
    """A WSABUF together with its memory.

    Args:
        memory: A bytearray is shared, bytes are copied, a number makes that many zero bytes, None
            makes the empty WSABUF: length 0 and no memory.
        length: Initial ``len``, bytes; the size of the memory if not given.
    """

    def __init__(
        self, memory: bytearray | bytes | int | None = None, length: int | None = None
    ) -> None:
        super().__init__(0, None)
        self.memory: Any = None
        if memory is None:
            return
        if isinstance(memory, bytearray):
            self.memory = (ctypes.c_char * len(memory)).from_buffer(memory)
        else:
            size = memory if isinstance(memory, int) else len(memory)
            self.memory = (ctypes.c_char * size)()
            self.memory.raw = bytes(size) if isinstance(memory, int) else memory
        self.buf = ctypes.addressof(self.memory)
        self.len = len(self.memory) if length is None else length

    @property
    def data(self) -> bytes:
        """The first ``len`` bytes of the memory."""
        return bytes(self.memory[: self.len]) if self.memory is not None else b""


def fault(what: str) -> SpiError:
    """WSAEFAULT, with a sentence."""
    return SpiError(codes.WSAEFAULT, what)


# -- places -----------------------------------------------------------------------------------


def is_null(pointer: Any) -> bool:
    """Whether it is NULL: None, 0, or a ctypes pointer that points nowhere."""
    if pointer is None:
        return True
    if isinstance(pointer, int):
        return pointer == 0
    return isinstance(pointer, _POINTERS) and not _pointed(pointer)


def address_of(pointer: Any) -> int:
    """The address a pointer parameter stands for; 0 for NULL.

    Raises:
        SpiError: WSAEFAULT: a Python object that has no address.
    """
    if is_null(pointer):
        return 0
    address, _, _ = _locate(pointer, writable=False)
    return address


def as_int(value: Any) -> int:
    """A parameter passed by value (a handle, a length, flags): an int or a ctypes integer.

    Raises:
        SpiError: WSAEFAULT: it is no number.
    """
    value = getattr(value, "value", value)
    if value is None:
        return 0
    if not isinstance(value, int):
        raise fault(f"{type(value).__name__} where a number is needed")
    return value


def _pointed(pointer: Any) -> int:
    return ctypes.cast(pointer, ctypes.c_void_p).value or 0


def _locate(pointer: Any, *, writable: bool) -> tuple[int, int | None, Any]:
    """Address, size if known, and what must stay alive while the address is used."""
    if isinstance(pointer, _POINTERS):
        return _believable(_pointed(pointer)), None, pointer
    if isinstance(pointer, _OBJECTS):
        return ctypes.addressof(pointer), ctypes.sizeof(pointer), pointer
    if isinstance(pointer, int):
        return _believable(pointer), None, pointer
    return _locate_buffer(pointer, writable=writable)


def _believable(address: int) -> int:
    if not LOWEST_ADDRESS <= address < 1 << 8 * POINTER_BYTES:
        raise fault(f"{address:#x} is no address")
    return address


def _locate_buffer(pointer: Any, *, writable: bool) -> tuple[int, int | None, Any]:
    try:
        with memoryview(pointer) as view:
            size, readonly, contiguous = view.nbytes, view.readonly, view.c_contiguous
    except TypeError:
        raise fault(f"{type(pointer).__name__} is no memory") from None
    if not contiguous or (writable and readonly):
        raise fault("memory that cannot be written" if writable else "scattered memory")
    kind = ctypes.c_char * size
    memory = kind.from_buffer_copy(pointer) if readonly else kind.from_buffer(pointer)
    return ctypes.addressof(memory), size, memory


def _span(pointer: Any, length: int, *, writable: bool) -> tuple[int, Any]:
    if is_null(pointer):
        raise fault("NULL where memory is needed")
    address, size, keep = _locate(pointer, writable=writable)
    if length < 0 or (size is not None and length > size):
        raise fault(f"{length} bytes in memory of {size}")
    return address, keep


def read(pointer: Any, length: int) -> bytes:
    """Copy ``length`` bytes. A Cell gives its number, or its bytes.

    Raises:
        SpiError: WSAEFAULT: no memory, or fewer bytes than that.
    """
    if isinstance(pointer, Cell):
        return _cell_bytes(pointer.value, length)
    address, keep = _span(pointer, length, writable=False)
    data = ctypes.string_at(address, length)
    del keep
    return data


def _cell_bytes(value: Any, length: int) -> bytes:
    if isinstance(value, int) and 0 < length <= 8:
        return (value & ((1 << 8 * length) - 1)).to_bytes(length, _ORDER)
    return read(value, length)


def write(pointer: Any, data: bytes) -> None:
    """Copy bytes to where a pointer points; a Cell keeps them as they are.

    The caller has checked the stated capacity; memory known to be shorter is refused here.

    Raises:
        SpiError: WSAEFAULT: no memory, read-only, or too short. Nothing has been written.
    """
    if isinstance(pointer, Cell):
        pointer.value = bytes(data)
        return
    address, keep = _span(pointer, len(data), writable=True)
    ctypes.memmove(address, data, len(data))
    del keep


# -- numbers ----------------------------------------------------------------------------------


def read_int(pointer: Any, kind: Any = ctypes.c_int32) -> int:
    """The number a pointer points to, of a ctypes integer type.

    Raises:
        SpiError: WSAEFAULT.
    """
    if isinstance(pointer, Cell):
        return as_int(pointer)
    raw = read(pointer, ctypes.sizeof(kind))
    return int(kind.from_buffer_copy(raw).value or 0)


def write_int(pointer: Any, value: int, kind: Any = ctypes.c_int32) -> None:
    """Write a number of a ctypes integer type.

    Raises:
        SpiError: WSAEFAULT.
    """
    if isinstance(pointer, Cell):
        pointer.value = value
        return
    write(pointer, bytes(kind(value)))


def write_error(pointer: Any, code: int) -> None:
    """Write ``*lpErrno``. Never raises: a place that cannot be written gets nothing (A-34)."""
    if is_null(pointer):
        return
    try:
        write_int(pointer, code)
    except SpiError:
        return


# -- structures -------------------------------------------------------------------------------


def struct_at(pointer: Any, kind: type[_S], *, writable: bool = False) -> _S:
    """The structure a pointer points to; writing to its members writes to the caller's memory.

    Bytes give a copy, and only where nothing is to be written.

    Raises:
        SpiError: WSAEFAULT: NULL, no memory, or fewer bytes than the structure has.
    """
    if isinstance(pointer, kind):
        return pointer
    address, keep = _span(pointer, ctypes.sizeof(kind), writable=writable)
    structure = kind.from_address(address)
    structure.keep_alive = keep
    return structure


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


# -- WSABUF -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Buffer:
    """One WSABUF parameter, read once: its length then, and where its memory is.

    The length is captured, so that a client that changes its WSABUF during a call cannot make the
    provider write further than it first said.

    Attributes:
        length: Bytes, as stated when the call began.
        memory: Address or Python buffer; NULL is possible.
        header: The client's WSABUF, whose ``len`` can be set; None for a plain Python buffer.
    """

    length: int
    memory: Any
    header: WSABUF | None = None

    def check(self, *, writable: bool = False) -> None:
        """See that a length comes with memory.

        Raises:
            SpiError: WSAEFAULT.
        """
        if self.length:
            _span(self.memory, self.length, writable=writable)

    def read(self) -> bytes:
        """A copy of the bytes.

        Raises:
            SpiError: WSAEFAULT.
        """
        return read(self.memory, self.length) if self.length else b""

    def write(self, data: bytes) -> None:
        """Write from the start; ``len`` stays as it is.

        Raises:
            SpiError: WSAEFAULT: more than fits, or no memory. Nothing has been written.
        """
        if len(data) > self.length:
            raise fault(f"{len(data)} bytes do not fit a WSABUF of {self.length}")
        if data:
            write(self.memory, data)

    def set_length(self, length: int) -> None:
        """Set the client's ``len``; a plain bytearray is cut to that length instead."""
        if self.header is not None:
            self.header.len = length
        elif isinstance(self.memory, bytearray):
            del self.memory[length:]

    def put(self, data: bytes) -> None:
        """Write the bytes and set the length to their number (callee data, disconnect data).

        Raises:
            SpiError: WSAEFAULT: more than fits. Nothing has been written, the length is 0.
        """
        try:
            self.write(data)
        except SpiError:
            self.set_length(0)
            raise
        self.set_length(len(data))


def buffer(pointer: Any) -> Buffer | None:
    """A WSABUF parameter: NULL, a WSABUF, a pointer to one, or a plain Python buffer.

    Raises:
        SpiError: WSAEFAULT: not readable as a WSABUF.
    """
    if is_null(pointer):
        return None
    if isinstance(pointer, Buffer):
        return pointer
    if isinstance(pointer, bytes | bytearray | memoryview):
        return Buffer(len(pointer), pointer)
    header = struct_at(pointer, WSABUF)
    return Buffer(header.len, header.buf, header)


def buffers(pointer: Any, count: Any) -> list[Buffer]:
    """An array of WSABUF, captured: NULL with count 0, a list, an array, or a pointer.

    Raises:
        SpiError: WSAEFAULT: NULL, fewer elements than ``count``, or an element without memory.
    """
    number = as_int(count)
    if number == 0:
        return []
    if is_null(pointer):
        raise fault("NULL where an array of WSABUF is needed")
    if isinstance(pointer, bytes | bytearray | memoryview):
        pointer = [pointer]
    if isinstance(pointer, list | tuple):
        taken = _elements(pointer, number)
    else:
        size = ctypes.sizeof(WSABUF)
        start, keep = _span(pointer, number * size, writable=False)
        headers = (WSABUF.from_address(start + index * size) for index in range(number))
        taken = [Buffer(header.len, header.buf, header) for header in headers]
        del keep
    for element in taken:
        element.check()
    return taken


def _elements(pointer: Sequence[Any], number: int) -> list[Buffer]:
    if not 0 <= number <= len(pointer):
        raise fault(f"{number} buffers in a list of {len(pointer)}")
    taken = [buffer(element) for element in pointer[:number]]
    return [element if element is not None else Buffer(0, None) for element in taken]


def gather(parts: Sequence[Buffer]) -> bytes:
    """All bytes of an array, in its order."""
    return parts[0].read() if len(parts) == 1 else b"".join(part.read() for part in parts)


def scatter(parts: Sequence[Buffer], data: bytes) -> int:
    """Fill an array in its order, without holes; lengths stay as they are.

    Returns:
        Bytes written: all of ``data``, or what the array holds.
    """
    done = 0
    for part in parts:
        if done >= len(data):
            break
        piece = data[done : done + part.length]
        part.write(piece)
        done += len(piece)
    return done


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
    _span(pointer, size, writable=False)
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
    address, size, keep = _locate(pointer, writable=False)
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


# -- select and callbacks ---------------------------------------------------------------------


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


def function_at(pointer: Any, kind: Any) -> Callable[..., Any] | None:
    """A callback parameter: NULL, a Python callable, a C function pointer, or its address.

    Args:
        pointer: The parameter.
        kind: Function pointer type of ``types.py``, LPCONDITIONPROC for instance.

    Raises:
        SpiError: WSAEFAULT: nothing that can be called.
    """
    if is_null(pointer):
        return None
    if isinstance(pointer, int):
        function: Callable[..., Any] = kind(_believable(pointer))
        return function
    if isinstance(pointer, ctypes.c_void_p):
        return function_at(pointer.value, kind)
    if not callable(pointer):
        raise fault(f"{type(pointer).__name__} cannot be called")
    return pointer  # type: ignore[no-any-return]  # callable() narrows Any to a function of Any
