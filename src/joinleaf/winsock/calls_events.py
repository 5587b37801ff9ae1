"""WSPEventSelect, WSPAsyncSelect, WSPEnumNetworkEvents and WSPSelect (sections 5.11 and 7)."""

from __future__ import annotations

import time
from typing import Any

from joinleaf.errors import SpiError
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.winsock.calls_base import CallsBase, answers
from joinleaf.winsock.memory import (
    Cell,
    as_int,
    fault,
    is_null,
    read_fd_set,
    read_timeout,
    struct_at,
    write_fd_set,
)
from joinleaf.winsock.notices import EventTarget, Target, WindowTarget, bit_numbers
from joinleaf.winsock.sockets import Kind, SocketRecord
from joinleaf.winsock.types import SOCKET_ERROR, WSANETWORKEVENTS

__all__ = ["EventCalls"]


class EventCalls(CallsBase):
    """How a client learns that something has happened."""

    @answers(SOCKET_ERROR)
    def WSPEventSelect(self, s: Any, hEventObject: Any, lNetworkEvents: Any, lpErrno: Any) -> int:
        """Have events recorded, and an event object set; the socket becomes nonblocking."""
        record = self.enter(s)
        mask, event = as_int(lNetworkEvents), as_int(hEventObject)
        if mask and not event:
            raise SpiError(codes.WSAEINVAL, "no event object", call="WSPEventSelect")
        self._register(record, mask, EventTarget(event, mask))
        return 0

    @answers(SOCKET_ERROR)
    def WSPAsyncSelect(self, s: Any, hWnd: Any, wMsg: Any, lEvent: Any, lpErrno: Any) -> int:
        """Have a message posted for each event; the socket becomes nonblocking."""
        record = self.enter(s)
        mask, window = as_int(lEvent), as_int(hWnd)
        if mask and not window:
            raise SpiError(codes.WSAEINVAL, "no window", call="WSPAsyncSelect")
        self._register(record, mask, WindowTarget(window, as_int(wMsg), mask, as_int(s)))
        return 0

    @staticmethod
    def _register(record: SocketRecord, mask: int, target: Target) -> None:
        if mask & ~c.FD_ALL_EVENTS:
            raise SpiError(codes.WSAEINVAL, f"{mask:#x} has bits that are no FD_*")
        if record.kind is Kind.LEG and record.is_pending:
            raise SpiError(codes.WSAEINVAL, "the socket is not usable yet")
        record.blocking = False
        record.notices.register(target if mask else None)
        if mask:
            record.tell_present()

    @answers(SOCKET_ERROR)
    def WSPEnumNetworkEvents(
        self, s: Any, hEventObject: Any, lpNetworkEvents: Any, lpErrno: Any
    ) -> int:
        """Copy the record, clear it, reset the event; error cells of other bits are left alone.

        The event is reset before the record is copied: what happens in between is then in the
        record, or sets the event again, and is never lost.
        """
        record = self.enter(s)
        if is_null(lpNetworkEvents):
            raise fault("no place for the record")
        in_python = isinstance(lpNetworkEvents, Cell)
        place = (
            WSANETWORKEVENTS()
            if in_python
            else struct_at(lpNetworkEvents, WSANETWORKEVENTS, writable=True)
        )
        if as_int(hEventObject):
            self.outlet.reset_event(as_int(hEventObject))
        bits, errors = record.notices.take()
        place.lNetworkEvents = bits
        for number in bit_numbers(bits):
            place.iErrorCode[number] = errors[number]
        if in_python:
            lpNetworkEvents.value = place
        return 0

    # Select

    @answers(SOCKET_ERROR)
    def WSPSelect(
        self,
        nfds: Any,
        readfds: Any,
        writefds: Any,
        exceptfds: Any,
        timeout: Any,
        lpErrno: Any,
    ) -> int:
        """Which sockets could be read from or written to; nothing of a join's outcome (clause 86).

        Returns:
            How many descriptors are left in the three sets together.
        """
        self.check_up()
        self.check_alone()
        places = (readfds, writefds, exceptfds)
        given = [read_fd_set(place) for place in places]
        if all(handles is None for handles in given):
            raise SpiError(codes.WSAEINVAL, "three empty sets", call="WSPSelect")
        limit = read_timeout(timeout)
        sets = [[(handle, self.find(handle)) for handle in handles or ()] for handles in given]
        ready = self._look(sets)
        if not any(ready) and limit != 0:
            ready = self._wait_for_any(sets, limit)
        for place, handles in zip(places, ready, strict=True):
            write_fd_set(place, handles)
        return sum(map(len, ready))

    @staticmethod
    def _look(sets: list[list[tuple[int, SocketRecord]]]) -> list[list[int]]:
        reading, writing, _ = sets
        return [
            [handle for handle, record in reading if _readable(record)],
            [handle for handle, record in writing if _writable(record)],
            [],  # neither urgent data nor failed connects exist here
        ]

    def _wait_for_any(
        self, sets: list[list[tuple[int, SocketRecord]]], limit: float | None
    ) -> list[list[int]]:
        deadline = None if limit is None else time.monotonic() + limit
        ready: list[list[int]] = [[], [], []]

        def look(timeout: float | None) -> None:
            end = None if timeout is None else time.monotonic() + timeout
            while True:
                generation = self.generation
                ready[:] = self._look(sets)
                if any(ready):
                    return
                moments = [moment for moment in (deadline, end) if moment is not None]
                left = min(moments) - time.monotonic() if moments else None
                if left is not None and left <= 0:
                    if end is not None and (deadline is None or end < deadline):
                        raise SpiError(codes.WSAETIMEDOUT, "not yet", call="WSPSelect")
                    return
                self._sleep(generation, left, sets)

        self.wait(look, self.wake_select, call="WSPSelect")
        return ready

    def _sleep(
        self, generation: int, left: float | None, sets: list[list[tuple[int, SocketRecord]]]
    ) -> None:
        thread = self.outlet.objects.thread()
        with self.activity:
            while self.generation == generation:
                if not self.activity.wait(left):
                    return
        if thread.call is not None and thread.call.cancelled:
            raise SpiError(codes.WSAEINTR, "the blocking call was cancelled", call="WSPSelect")
        for _, record in (pair for pairs in sets for pair in pairs):
            if record.closed:
                raise SpiError(codes.WSAENOTSOCK, "closed meanwhile", call="WSPSelect")


def _readable(record: SocketRecord) -> bool:
    if record.is_unusable or record.closed:
        return False
    if record.waiting_requests:
        return True
    return record.pump()


def _writable(record: SocketRecord) -> bool:
    return not record.closed and record.can_send and record.may_send
