"""WSPPROC_TABLE: the thirty functions of a provider, callable from C."""

from __future__ import annotations

import ctypes
from typing import Any

from joinleaf.winsock.declarations import PROVIDER_FUNCTIONS
from joinleaf.winsock.memory import struct_at
from joinleaf.winsock.thunks import thunk
from joinleaf.winsock.types import WSPPROC_TABLE

__all__ = ["build_table", "fill_table", "missing_entries"]


def build_table(provider: Any) -> WSPPROC_TABLE:
    """The procedure table of an object with thirty methods named WSPAccept to WSPStringToAddress.

    Each entry calls the method with raw parameters: addresses or None for pointers, int for the
    rest. SpiError becomes ``*lpErrno`` and the function's failure value; any other exception is
    logged and becomes WSASYSCALLFAILURE.

    The table holds the C functions. They are valid as long as the table is: the provider keeps
    it, since C programs copy its 30 pointers.
    """
    return WSPPROC_TABLE(*(thunk(name, provider) for name in PROVIDER_FUNCTIONS))


def fill_table(lpProcTable: Any, table: WSPPROC_TABLE) -> None:
    """Copy a table to where WSPStartup was told to put it; ``table`` must be kept.

    Raises:
        SpiError: WSAEFAULT: no memory for 30 pointers there.
    """
    target = struct_at(lpProcTable, WSPPROC_TABLE, writable=True)
    ctypes.memmove(ctypes.addressof(target), ctypes.addressof(table), ctypes.sizeof(table))


def missing_entries(table: WSPPROC_TABLE) -> tuple[str, ...]:
    """Functions whose entry is NULL: what a client answers WSAEINVALIDPROCTABLE to."""
    return tuple(name for name in PROVIDER_FUNCTIONS if not getattr(table, f"lp{name}"))
