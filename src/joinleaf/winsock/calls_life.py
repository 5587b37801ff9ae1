"""Sockets from WSPSocket to WSPCloseSocket, and the provider's own end."""

from __future__ import annotations

import os
from typing import Any, Final

from joinleaf.errors import SpiError
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.protocol_info import ProtocolInfo, accepts_roles
from joinleaf.spi.provider import DatagramEndpoint, Roles
from joinleaf.winsock.calls_base import CallsBase, answers
from joinleaf.winsock.conversions import info_to_c
from joinleaf.winsock.memory import (
    as_int,
    buffer,
    fault,
    info_at,
    is_null,
    struct_at,
    write,
)
from joinleaf.winsock.sockets import Kind, SocketRecord
from joinleaf.winsock.types import INVALID_SOCKET, SOCKET_ERROR, WSAPROTOCOL_INFOW

__all__ = ["LifeCalls"]

_FROM_INFO: Final = -1
_C: Final = c.WSA_FLAG_MULTIPOINT_C_ROOT | c.WSA_FLAG_MULTIPOINT_C_LEAF
_D: Final = c.WSA_FLAG_MULTIPOINT_D_ROOT | c.WSA_FLAG_MULTIPOINT_D_LEAF


class LifeCalls(CallsBase):
    """Making, sharing, shutting down and closing sockets."""

    @answers(INVALID_SOCKET)
    def WSPSocket(
        self,
        af: Any,
        type: Any,  # noqa: A002  # the header's name
        protocol: Any,
        lpProtocolInfo: Any,
        g: Any,
        dwFlags: Any,
        lpErrno: Any,
    ) -> int:
        """Make a socket, or another descriptor of one that WSPDuplicateSocket has named."""
        self.check_up()
        self.check_alone()
        if (shared := self._shared(lpProtocolInfo)) is not None:
            return self._another_descriptor(shared)
        info = info_at(lpProtocolInfo) or self.info
        flags = as_int(dwFlags)
        self._check_kind(as_int(af), as_int(type), as_int(protocol), info)
        if as_int(g):
            raise SpiError(codes.WSAEINVAL, "socket groups are reserved", call="WSPSocket")
        record = self._make(flags)
        try:
            return self.add_socket(record)
        except BaseException:
            record.endpoint.close(linger=0)
            raise

    def _check_kind(self, family: int, kind: int, protocol: int, info: ProtocolInfo) -> None:
        mine = self.info
        if info.address_family != mine.address_family or family not in (
            0,
            _FROM_INFO,
            mine.address_family,
        ):
            raise SpiError(codes.WSAEAFNOSUPPORT, f"family {family} is not offered here")
        if kind not in (0, _FROM_INFO, mine.socket_type):
            known = c.SOCK_STREAM <= kind <= c.SOCK_SEQPACKET
            code = codes.WSAEPROTOTYPE if known else codes.WSAESOCKTNOSUPPORT
            raise SpiError(code, f"socket type {kind} is not offered here")
        if protocol not in (0, _FROM_INFO, mine.protocol):
            raise SpiError(codes.WSAEPROTONOSUPPORT, f"protocol {protocol} is not offered here")

    def _make(self, flags: int) -> SocketRecord:
        c_root = bool(flags & c.WSA_FLAG_MULTIPOINT_C_ROOT)
        d_root = bool(flags & c.WSA_FLAG_MULTIPOINT_D_ROOT)
        c_leaf = bool(flags & c.WSA_FLAG_MULTIPOINT_C_LEAF)
        d_leaf = bool(flags & c.WSA_FLAG_MULTIPOINT_D_LEAF)
        if not accepts_roles(self.info, c_root, c_leaf, d_root, d_leaf):
            raise SpiError(codes.WSAEINVAL, f"flags {flags:#x} do not fit this entry")
        kind = Kind.ORDINARY
        if flags & (_C | _D):
            rooted = self.info.control_plane_rooted
            kind = Kind.C_ROOT if c_root else Kind.C_LEAF if rooted else Kind.NONROOTED
        endpoint = self.open_endpoint(Roles(c_root, d_root))
        if kind is Kind.ORDINARY and isinstance(endpoint, DatagramEndpoint):
            endpoint.open_to_all()
        record = self.new_record(endpoint, kind)
        record.overlapped = bool(flags & c.WSA_FLAG_OVERLAPPED)
        record.attach()
        return record

    # Several descriptors of one socket

    @answers(SOCKET_ERROR)
    def WSPDuplicateSocket(
        self, s: Any, dwProcessId: Any, lpProtocolInfo: Any, lpErrno: Any
    ) -> int:
        """Name a socket, so that WSPSocket makes another descriptor of it (5.18).

        Only this process can be given one: an endpoint's state lives in it. WSAEINVAL otherwise.
        """
        record = self.enter(s)
        if as_int(dwProcessId) not in (0, os.getpid()):
            raise SpiError(codes.WSAEINVAL, "sockets are shared within one process only")
        if is_null(lpProtocolInfo):
            raise fault("no place for the protocol information")
        structure = info_to_c(record.info)
        structure.dwProviderReserved = record.context
        write(lpProtocolInfo, bytes(structure))
        self.shared[record.context] = record
        return 0

    def _shared(self, pointer: Any) -> SocketRecord | None:
        if is_null(pointer) or isinstance(pointer, ProtocolInfo) or not self.shared:
            return None
        value = getattr(pointer, "value", None)
        place = value if isinstance(value, bytes) else pointer
        token = struct_at(place, WSAPROTOCOL_INFOW).dwProviderReserved
        record = self.shared.pop(token, None) if token else None
        if token and (record is None or record.closed):
            raise SpiError(codes.WSAEINVAL, "that socket has been closed", call="WSPSocket")
        return record

    def _another_descriptor(self, record: SocketRecord) -> int:
        return self.add_socket(record)

    # Closing

    @answers(SOCKET_ERROR)
    def WSPCloseSocket(self, s: Any, lpErrno: Any) -> int:
        """Release a descriptor; the last one ends what the socket takes part in (5.7)."""
        record = self.enter(s)
        handle = as_int(s)
        if len(record.handles) > 1:
            self.drop_handle(record, handle)
            return 0
        onoff, seconds = record.options.get(c.SO_LINGER, (0, 0))
        if onoff and seconds and not record.blocking and self._unsent(record):
            raise SpiError(codes.WSAEWOULDBLOCK, "peers have not taken all that was sent")
        self.close_record(record, abort=bool(onoff) and not seconds, linger=seconds * bool(onoff))
        return 0

    @staticmethod
    def _unsent(record: SocketRecord) -> bool:
        if record.kind is Kind.NONROOTED:
            return False
        # A root is no member of its session, and what it has sent may wait for its leaves.
        return record.blocked and (record.kind is Kind.C_ROOT or bool(record.joined))

    def close_record(
        self, record: SocketRecord, *, abort: bool, linger: float, quiet: bool = False
    ) -> None:
        """End a socket: silently for its client, except for overlapped operations (5.7)."""
        with record.lock:
            if record.closed:
                return
            record.closed = True
            attempt, record.attempt = record.attempt, None
        record.notices.silence()
        if attempt is not None:
            self._give_up(record, attempt)
        record.endpoint.subscribe(None)
        record.endpoint.cancel()
        record.interests.close()
        self.abort_operations(record, quiet=quiet)
        # The client's descriptors first: the carrier's then closes what is really the last one.
        for handle in list(record.handles):
            self.drop_handle(record, handle)
        record.endpoint.close(abort=abort, linger=linger)
        self.wake_select()

    @staticmethod
    def _give_up(record: SocketRecord, attempt: Any) -> None:
        """Closing s makes the new socket F; closing the new one frees s for another join."""
        attempt.cancel()
        if record.parent is not None:
            with record.parent.lock:
                if record.parent.attempt is attempt:
                    record.parent.attempt = None
        elif attempt.leg is not None:
            attempt.leg.attempt, attempt.leg.failed = None, True

    def abort_operations(self, record: SocketRecord, *, quiet: bool) -> None:
        """Overlapped operations end with WSA_OPERATION_ABORTED; the family of those does it."""

    @answers(SOCKET_ERROR)
    def WSPShutdown(self, s: Any, how: Any, lpErrno: Any) -> int:
        """End one direction or both; on a c_root, sending means the session (5.8)."""
        record = self.enter(s)
        direction = as_int(how)
        if direction not in (c.SD_RECEIVE, c.SD_SEND, c.SD_BOTH):
            raise SpiError(codes.WSAEINVAL, f"{direction} is no direction", call="WSPShutdown")
        one_way = {c.SD_SEND: c.XP1_UNI_RECV, c.SD_RECEIVE: c.XP1_UNI_SEND}.get(direction, 0)
        if one_way and record.info.has(one_way):
            raise SpiError(codes.WSAEINVAL, "a one-way socket has no such direction")
        self._shut_down(record, direction, b"")
        return 0

    @answers(SOCKET_ERROR)
    def WSPSendDisconnect(self, s: Any, lpOutboundDisconnectData: Any, lpErrno: Any) -> int:
        """WSPShutdown for sending, with data for whoever is told (5.9)."""
        record = self.enter(s)
        outgoing = buffer(lpOutboundDisconnectData)
        data = outgoing.read() if outgoing is not None else b""
        if data and not record.info.has(c.XP1_DISCONNECT_DATA):
            raise SpiError(codes.WSAENOPROTOOPT, "no disconnect data here")
        self._shut_down(record, c.SD_SEND, data)
        return 0

    def _shut_down(self, record: SocketRecord, direction: int, data: bytes) -> None:
        if record.is_unusable or (record.kind is Kind.LEG and record.is_ended):
            raise SpiError(codes.WSAENOTCONN, "not a member", call="WSPShutdown")
        if record.kind is not Kind.C_ROOT and not record.joined:
            raise SpiError(codes.WSAENOTCONN, "not a member", call="WSPShutdown")
        if not record.is_ended:
            record.endpoint.shutdown(direction, data=data)
        directions = {c.SD_BOTH: (c.SD_RECEIVE, c.SD_SEND)}.get(direction, (direction,))
        record.shut.update(directions)
        if c.SD_RECEIVE in directions:
            record.inbox.clear()
        if record.kind is Kind.C_ROOT and c.SD_SEND in directions:
            with record.lock:
                record.dissolved, record.listening = True, False
                attempt, record.attempt = record.attempt, None
            if attempt is not None:
                self._give_up(record, attempt)
        self.wake_select()

    @answers(SOCKET_ERROR)
    def WSPRecvDisconnect(self, s: Any, lpInboundDisconnectData: Any, lpErrno: Any) -> int:
        """Stop receiving, and fetch what came with the other side's end (5.9)."""
        record = self.enter(s)
        incoming = buffer(lpInboundDisconnectData)
        if incoming is not None and not record.info.has(c.XP1_DISCONNECT_DATA):
            raise SpiError(codes.WSAENOPROTOOPT, "no disconnect data here")
        if record.is_unusable or not (record.joined or record.kind is Kind.C_ROOT):
            raise SpiError(codes.WSAENOTCONN, "not a member", call="WSPRecvDisconnect")
        record.pump()
        if incoming is not None:
            data = record.end_data
            if len(data) > incoming.length:
                raise fault(f"{len(data)} bytes of disconnect data do not fit")
            incoming.put(data)
        record.shut.add(c.SD_RECEIVE)
        return 0

    # Blocking calls, and the end of everything

    @answers(SOCKET_ERROR)
    def WSPCancelBlockingCall(self, lpErrno: Any) -> int:
        """End the calling thread's blocking call; WSAEINVAL if there is none (5.16)."""
        self.check_up()
        if not self.outlet.objects.thread().cancel_blocking_call():
            raise SpiError(codes.WSAEINVAL, "this thread has no blocking call")
        return 0

    @answers(SOCKET_ERROR)
    def WSPCleanup(self, lpErrno: Any) -> int:
        """Balance one WSPStartup; the last one ends every socket, abortively and silently (4.2)."""
        with self.lock:
            if not self.startups:
                raise SpiError(codes.WSANOTINITIALISED, "not started", call="WSPCleanup")
            self.startups -= 1
            last = not self.startups
            records = list(self.sockets.values()) if last else []
        # First of all everybody is let go: a join that waits for a listener of this very provider
        # was cancelled, not refused, and nobody is told of the end of another.
        for record in records:
            record.notices.silence()
            if (attempt := record.attempt) is not None and attempt.blocking:
                attempt.cancel()
        # Legs before their roots: who looks at a descriptor finds it reset, not told goodbye.
        for record in sorted(records, key=lambda one: one.kind is Kind.C_ROOT):
            self.close_record(record, abort=True, linger=0, quiet=True)
        self.shared.clear()
        self.wake_select()
        return 0
