"""Sending and receiving, at once, waiting, or overlapped (section 5.10 of the model)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final

from joinleaf.errors import SpiError
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.provider import DatagramEndpoint
from joinleaf.values import Address
from joinleaf.winsock.addresses import encode
from joinleaf.winsock.calls_base import CallsBase, answers
from joinleaf.winsock.memory import (
    Buffer,
    Cell,
    as_int,
    buffers,
    fault,
    gather,
    is_null,
    read_int,
    scatter,
    write_int,
    write_sockaddr,
)
from joinleaf.winsock.overlapped import Operation, Queue, Result
from joinleaf.winsock.sockets import Kind, SocketRecord
from joinleaf.winsock.types import SOCKET_ERROR

__all__ = ["SIDE_CHAT", "DataCalls"]

SIDE_CHAT: Final = c.MSG_DONTROUTE
"""Flag of a received message that is side chat on a leg: it did not come by way of the session
(clause 98 wants it told apart). Harmless where a program passes its flags on to the next call."""

_LATE: Final = frozenset({codes.WSAEWOULDBLOCK, codes.WSAETIMEDOUT})


def _is_session(record: SocketRecord, address: Address) -> bool:
    session = record.endpoint.peer_address
    return (address.host, address.port) == (session.host, session.port)


class DataCalls(CallsBase):
    """Four calls and what they share."""

    @answers(SOCKET_ERROR)
    def WSPSend(
        self,
        s: Any,
        lpBuffers: Any,
        dwBufferCount: Any,
        lpNumberOfBytesSent: Any,
        dwFlags: Any,
        lpOverlapped: Any,
        lpCompletionRoutine: Any,
        lpThreadId: Any,
        lpErrno: Any,
    ) -> int:
        """Send one message to whoever hears this socket; on a leg, side chat to its leaf."""
        record = self.enter(s)
        data = self._outgoing(lpBuffers, dwBufferCount, dwFlags)
        asked = (lpOverlapped, lpCompletionRoutine, lpThreadId)
        return self._send(record, data, record.peer, lpNumberOfBytesSent, asked)

    @answers(SOCKET_ERROR)
    def WSPSendTo(
        self,
        s: Any,
        lpBuffers: Any,
        dwBufferCount: Any,
        lpNumberOfBytesSent: Any,
        dwFlags: Any,
        lpTo: Any,
        iTolen: Any,
        lpOverlapped: Any,
        lpCompletionRoutine: Any,
        lpThreadId: Any,
        lpErrno: Any,
    ) -> int:
        """As WSPSend; on a connectionless socket ``lpTo`` overrides whatever it is joined to."""
        record = self.enter(s)
        data = self._outgoing(lpBuffers, dwBufferCount, dwFlags)
        to = record.peer
        if record.info.has(c.XP1_CONNECTIONLESS):
            to = self._destination(record, lpTo, iTolen)
        asked = (lpOverlapped, lpCompletionRoutine, lpThreadId)
        return self._send(record, data, to, lpNumberOfBytesSent, asked)

    @staticmethod
    def _outgoing(pointer: Any, count: Any, flags: Any) -> bytes:
        if as_int(flags) & (c.MSG_OOB | c.MSG_PARTIAL):
            raise SpiError(codes.WSAEOPNOTSUPP, "neither urgent data nor parts of messages")
        return gather(buffers(pointer, count))

    def _destination(self, record: SocketRecord, pointer: Any, length: Any) -> Address | None:
        if is_null(pointer):
            if record.peer is None and not record.joined:
                raise SpiError(codes.WSAEDESTADDRREQ, "no destination", call="WSPSendTo")
            return record.peer
        address = self.read_name(record, pointer, length)
        if address.is_any:
            raise SpiError(codes.WSAEADDRNOTAVAIL, f"{address} is nobody", call="WSPSendTo")
        if record.joined and not record.is_ended and _is_session(record, address):
            return None  # the session itself: by the way that the session's own settings apply to
        if not isinstance(record.endpoint, DatagramEndpoint):
            raise SpiError(codes.WSAEADDRNOTAVAIL, "this entry sends to its session only")
        return address

    def _send(
        self,
        record: SocketRecord,
        data: bytes,
        to: Address | None,
        counted: Any,
        asked: tuple[Any, Any, Any],
    ) -> int:
        try:
            self._check_may_send(record, to)

            def attempt(timeout: float | None) -> Result:
                self._transmit(record, data, to, timeout)
                return Result(len(data))

            if record.overlapped and not is_null(asked[0]):
                return self.overlap(record.sends, asked, lambda: attempt(0), counted, None)
            if not is_null(counted):
                write_int(counted, 0, ctypes.c_uint32)
            result = self.wait_or_not(record, attempt, call="WSPSend")
        finally:
            record.notices.enable(c.FD_WRITE)
        if not is_null(counted):
            write_int(counted, result.count, ctypes.c_uint32)
        return 0

    @staticmethod
    def _check_may_send(record: SocketRecord, to: Address | None) -> None:
        if record.info.has(c.XP1_UNI_RECV):
            raise SpiError(codes.WSAEOPNOTSUPP, "nothing is sent here", call="WSPSend")
        if c.SD_SEND in record.shut or record.dissolved:
            raise SpiError(codes.WSAESHUTDOWN, "sending has been shut down", call="WSPSend")
        if to is not None:
            return
        if record.is_unusable:
            raise SpiError(codes.WSAENOTCONN, "not a member", call="WSPSend")
        if record.kind is not Kind.C_ROOT and not record.joined:
            raise SpiError(codes.WSAENOTCONN, "not a member", call="WSPSend")

    def _transmit(
        self, record: SocketRecord, data: bytes, to: Address | None, timeout: float | None
    ) -> None:
        try:
            if to is not None:
                assert isinstance(record.endpoint, DatagramEndpoint), "checked before"
                record.endpoint.send_to(to, [data], timeout=timeout)
            else:
                record.endpoint.send_many([data], timeout=timeout)
        except SpiError as error:
            if error.code in _LATE and not timeout:
                record.blocked = True
            if error.code == codes.WSAEDISCON:
                raise SpiError(codes.WSAESHUTDOWN, str(error), call="WSPSend") from error
            if error.code == codes.WSAENOTSOCK:
                raise SpiError(codes.WSAEINTR, "closed meanwhile", call="WSPSend") from error
            raise
        record.blocked = False

    # Receiving

    @answers(SOCKET_ERROR)
    def WSPRecv(
        self,
        s: Any,
        lpBuffers: Any,
        dwBufferCount: Any,
        lpNumberOfBytesRecvd: Any,
        lpFlags: Any,
        lpOverlapped: Any,
        lpCompletionRoutine: Any,
        lpThreadId: Any,
        lpErrno: Any,
    ) -> int:
        """Receive one message, or what a stream has."""
        asked = (lpOverlapped, lpCompletionRoutine, lpThreadId)
        record = self.enter(s)
        parts = buffers(lpBuffers, dwBufferCount)
        return self._receive(record, parts, lpNumberOfBytesRecvd, lpFlags, (None, None), asked)

    @answers(SOCKET_ERROR)
    def WSPRecvFrom(
        self,
        s: Any,
        lpBuffers: Any,
        dwBufferCount: Any,
        lpNumberOfBytesRecvd: Any,
        lpFlags: Any,
        lpFrom: Any,
        lpFromlen: Any,
        lpOverlapped: Any,
        lpCompletionRoutine: Any,
        lpThreadId: Any,
        lpErrno: Any,
    ) -> int:
        """As WSPRecv, and who sent it; on a joined socket as on any other (model, 10.3)."""
        asked = (lpOverlapped, lpCompletionRoutine, lpThreadId)
        record = self.enter(s)
        parts = buffers(lpBuffers, dwBufferCount)
        if not is_null(lpFrom) and is_null(lpFromlen) and not isinstance(lpFrom, Cell):
            raise fault("an address without its length")
        place = (lpFrom, lpFromlen)
        return self._receive(record, parts, lpNumberOfBytesRecvd, lpFlags, place, asked)

    def _receive(
        self,
        record: SocketRecord,
        parts: list[Buffer],
        counted: Any,
        flags_place: Any,
        sender: tuple[Any, Any],
        asked: tuple[Any, Any, Any],
    ) -> int:
        flags = read_int(flags_place, ctypes.c_uint32) if not is_null(flags_place) else 0
        overlapped = record.overlapped and not is_null(asked[0])
        try:
            self._check_may_receive(record, flags, overlapped)

            def attempt(timeout: float | None) -> Result:
                return self._take(record, parts, flags, sender, timeout)

            if overlapped:
                return self.overlap(
                    record.receives, asked, lambda: attempt(0), counted, flags_place
                )
            result = self.wait_or_not(record, attempt, call="WSPRecv")
        finally:
            record.notices.enable(c.FD_READ | c.FD_OOB)
            if not record.closed:
                record.pump()
        if not is_null(counted):
            write_int(counted, result.count, ctypes.c_uint32)
        if not is_null(flags_place):
            write_int(flags_place, result.flags, ctypes.c_uint32)
        return 0

    @staticmethod
    def _check_may_receive(record: SocketRecord, flags: int, overlapped: bool) -> None:
        if record.info.has(c.XP1_UNI_SEND):
            raise SpiError(codes.WSAEOPNOTSUPP, "nothing is received here", call="WSPRecv")
        if flags & c.MSG_OOB or (overlapped and flags & c.MSG_PEEK):
            raise SpiError(codes.WSAEOPNOTSUPP, "no such flag here", call="WSPRecv")
        if c.SD_RECEIVE in record.shut:
            raise SpiError(codes.WSAESHUTDOWN, "receiving has been shut down", call="WSPRecv")
        if record.is_unusable:
            raise SpiError(codes.WSAENOTCONN, "not a member", call="WSPRecv")
        if record.kind in (Kind.C_ROOT, Kind.NONROOTED, Kind.ORDINARY):
            if not record.is_bound:
                raise SpiError(codes.WSAEINVAL, "not bound", call="WSPRecv")
        elif not record.joined:
            raise SpiError(codes.WSAENOTCONN, "not a member", call="WSPRecv")

    def _take(
        self,
        record: SocketRecord,
        parts: list[Buffer],
        flags: int,
        sender: tuple[Any, Any],
        timeout: float | None,
    ) -> Result:
        """Give the client the next message, waiting so long for one."""
        with record.reading(timeout):
            try:
                record.fetch(timeout)
            except SpiError as error:
                if error.code == codes.WSAENOTSOCK:
                    raise SpiError(codes.WSAEINTR, "closed meanwhile", call="WSPRecv") from error
                raise
            if not record.inbox:
                return self._at_the_end(record)
            message = record.inbox[0]
            if not is_null(sender[0]):
                write_sockaddr(*sender, encode(message.sender, record.info))
            room = sum(part.length for part in parts)
            count = scatter(parts, message.data[message.offset : message.offset + room])
            return self._account(record, count, room, flags)

    @staticmethod
    def _at_the_end(record: SocketRecord) -> Result:
        if record.closed:
            raise SpiError(codes.WSAEINTR, "closed meanwhile", call="WSPRecv")
        if record.end is None:
            raise SpiError(codes.WSAEWOULDBLOCK, "nothing has arrived", call="WSPRecv")
        if record.end.code == codes.WSAEDISCON and record.is_stream:
            return Result()
        raise SpiError(record.end.code, str(record.end), call="WSPRecv")

    @staticmethod
    def _account(record: SocketRecord, count: int, room: int, flags: int) -> Result:
        """What becomes of a message that did not fit, or was only looked at."""
        message = record.inbox[0]
        result_flags = SIDE_CHAT if message.side else 0
        too_long = message.left > room
        partial = record.is_stream or record.info.has(c.XP1_PARTIAL_MESSAGE)
        if too_long and partial and not flags & c.MSG_PEEK:
            message.offset += count
            return Result(count, result_flags | (0 if record.is_stream else c.MSG_PARTIAL))
        if not flags & c.MSG_PEEK and not (too_long and record.is_reliable):
            record.inbox.popleft()
        if too_long and not record.is_stream:
            raise SpiError(codes.WSAEMSGSIZE, "the message is longer", call="WSPRecv")
        return Result(count, result_flags)

    # Overlapped

    def overlap(
        self,
        queue: Queue,
        asked: tuple[Any, Any, Any],
        attempt: Callable[[], Result],
        counted: Any,
        flags_place: Any,
    ) -> int:
        """Start an overlapped operation: 0 if it is complete, else WSA_IO_PENDING is raised."""
        pointer, routine, thread = asked
        operation = Operation.start(self.outlet, pointer, routine, thread, attempt)
        result = queue.submit(operation)
        if result is None:
            queue.retry()  # what came between the attempt and its standing in the queue
            raise SpiError(codes.WSA_IO_PENDING, "started")
        if not is_null(counted):
            write_int(counted, result.count, ctypes.c_uint32)
        if not is_null(flags_place):
            write_int(flags_place, result.flags, ctypes.c_uint32)
        return 0
