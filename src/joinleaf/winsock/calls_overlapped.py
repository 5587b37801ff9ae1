"""WSPGetOverlappedResult, and what closing does to operations under way."""

from __future__ import annotations

import ctypes
from typing import Any

from joinleaf.errors import SpiError
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.winsock.calls_base import CallsBase, answers
from joinleaf.winsock.memory import address_of, as_int, is_null, struct_at, write_int
from joinleaf.winsock.overlapped import Operation
from joinleaf.winsock.sockets import SocketRecord
from joinleaf.winsock.types import WSAOVERLAPPED

__all__ = ["OverlappedCalls"]


class OverlappedCalls(CallsBase):
    """Results of operations that were started earlier."""

    @answers(0)
    def WSPGetOverlappedResult(
        self,
        s: Any,
        lpOverlapped: Any,
        lpcbTransfer: Any,
        fWait: Any,
        lpdwFlags: Any,
        lpErrno: Any,
    ) -> int:
        """TRUE with bytes and flags; FALSE with WSA_IO_INCOMPLETE, or the operation's error."""
        record = self.enter(s)
        overlapped = struct_at(lpOverlapped, WSAOVERLAPPED)
        operation = _pending(record, address_of(overlapped))
        if operation is not None:
            if not as_int(fWait):
                raise SpiError(codes.WSA_IO_INCOMPLETE, "not done yet")
            if operation.routine is not None:
                raise SpiError(codes.WSAEINVAL, "its routine will tell")
            self._await(record, operation)
        elif overlapped.Internal == c.WSS_OPERATION_IN_PROGRESS:
            raise SpiError(codes.WSAEINVAL, "no operation of this socket")
        if overlapped.Internal:
            raise SpiError(int(overlapped.Internal), "the operation failed")
        if not is_null(lpcbTransfer):
            write_int(lpcbTransfer, overlapped.InternalHigh, ctypes.c_uint32)
        if not is_null(lpdwFlags):
            write_int(lpdwFlags, overlapped.Offset, ctypes.c_uint32)
        return 1

    def _await(self, record: SocketRecord, operation: Operation) -> None:
        def look(timeout: float | None) -> None:
            record.retry()
            if not operation.done.wait(timeout):
                raise SpiError(codes.WSAETIMEDOUT, "not done yet")

        self.wait(look, operation.done.set, call="WSPGetOverlappedResult")

    def abort_operations(self, record: SocketRecord, *, quiet: bool) -> None:
        """WSA_OPERATION_ABORTED for all: with their usual completion, or silently (5.7, 4.2)."""
        for queue in (record.receives, record.sends, record.controls):
            queue.abort(quiet=quiet)


def _pending(record: SocketRecord, place: int) -> Operation | None:
    for queue in (record.receives, record.sends, record.controls):
        if (operation := queue.find(place)) is not None:
            return operation
    return None
