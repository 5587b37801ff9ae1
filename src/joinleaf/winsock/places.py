"""Places a caller points to: finding them, reading and writing them.

A pointer may be an address (int), a ctypes pointer, ``byref(...)``, a ctypes object, a buffer
(bytes, bytearray, memoryview), a ``Cell``, or None. What cannot be read or written is WSAEFAULT,
never a crash, as far as that can be known: None, wrong types, buffers that are too short or
read-only, and addresses in the first 64 KiB, which no system maps. Any other address is believed,
as every C library does.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any, Final, TypeVar

from joinleaf.errors import SpiError
from joinleaf.spi import codes
from joinleaf.winsock.types import LPBLOCKINGCALLBACK, POINTER_BYTES

__all__ = [
    "Cell",
    "address_of",
    "as_int",
    "check",
    "fault",
    "function_at",
    "is_c_function",
    "is_null",
    "locate",
    "read",
    "read_int",
    "struct_at",
    "write",
    "write_error",
    "write_int",
]

LOWEST_ADDRESS: Final = 0x10000
"""Windows never maps the first 64 KiB, nor does Linux with its usual ``vm.mmap_min_addr``."""

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


def fault(what: str) -> SpiError:
    """WSAEFAULT, with a sentence."""
    return SpiError(codes.WSAEFAULT, what)


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
    address, _, _ = locate(pointer, writable=False)
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


def locate(pointer: Any, *, writable: bool) -> tuple[int, int | None, Any]:
    """Address, size in bytes if known, and what must stay alive while the address is used.

    Raises:
        SpiError: WSAEFAULT.
    """
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


def check(pointer: Any, length: int, *, writable: bool) -> tuple[int, Any]:
    """See that there are ``length`` bytes; their address, and what must stay alive with it.

    Raises:
        SpiError: WSAEFAULT.
    """
    if is_null(pointer):
        raise fault("NULL where memory is needed")
    address, size, keep = locate(pointer, writable=writable)
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
    address, keep = check(pointer, length, writable=False)
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
    address, keep = check(pointer, len(data), writable=True)
    ctypes.memmove(address, data, len(data))
    del keep


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


def struct_at(pointer: Any, kind: type[_S], *, writable: bool = False) -> _S:
    """The structure a pointer points to; writing to its members writes to the caller's memory.

    Bytes give a copy, and only where nothing is to be written.

    Raises:
        SpiError: WSAEFAULT: NULL, no memory, or fewer bytes than the structure has.
    """
    if isinstance(pointer, kind):
        return pointer
    address, keep = check(pointer, ctypes.sizeof(kind), writable=writable)
    structure = kind.from_address(address)
    structure.keep_alive = keep
    return structure


def is_c_function(function: Any) -> bool:
    """Whether a callback is a C function pointer, which takes addresses, not Python objects."""
    return isinstance(function, _FUNCTION)


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
