"""WSABUF parameters: captured once, filled and drained in order, never beyond the stated length."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from joinleaf.errors import SpiError
from joinleaf.winsock.places import as_int, check, fault, is_null, read, struct_at, write
from joinleaf.winsock.types import WSABUF

__all__ = ["Buffer", "Wsabuf", "buffer", "buffers", "gather", "scatter"]


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
            check(self.memory, self.length, writable=writable)

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
        start, keep = check(pointer, number * size, writable=False)
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
