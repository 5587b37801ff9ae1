"""Names: binding, listening, asking for addresses, and addresses as text."""

from __future__ import annotations

from typing import Any

from joinleaf.errors import SpiError
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.winsock.addresses import address_text, encode, parse_text
from joinleaf.winsock.calls_base import CallsBase, answers
from joinleaf.winsock.conversions import sockaddr_family
from joinleaf.winsock.memory import (
    as_int,
    fault,
    info_at,
    is_null,
    read_sockaddr,
    read_wide,
    write_sockaddr,
    write_wide,
)
from joinleaf.winsock.sockets import Kind, SocketRecord
from joinleaf.winsock.types import SOCKET_ERROR

__all__ = ["NameCalls"]


class NameCalls(CallsBase):
    """Six calls that need no peer."""

    @answers(SOCKET_ERROR)
    def WSPBind(self, s: Any, name: Any, namelen: Any, lpErrno: Any) -> int:
        """Bind to a local address; another family is WSAEFAULT here (A-41)."""
        record = self.enter(s)
        if record.kind is Kind.LEG or record.is_pending or record.is_ended or record.is_bound:
            raise SpiError(codes.WSAEINVAL, "bound already", call="WSPBind")
        address = self.read_name(record, name, namelen, codes.WSAEFAULT)
        record.endpoint.bind(address)
        return 0

    @answers(SOCKET_ERROR)
    def WSPListen(self, s: Any, backlog: Any, lpErrno: Any) -> int:
        """Take join requests; on a c_root before, between and after joins (clause 109)."""
        record = self.enter(s)
        self._check_may_listen(record)
        wanted = as_int(backlog)
        longest = 1 << 16
        limit = None if wanted == c.SOMAXCONN else min(max(1, wanted), longest)
        record.endpoint.listen(limit)
        record.listening = True
        record.tell_level()
        return 0

    @staticmethod
    def _check_may_listen(record: SocketRecord) -> None:
        if record.info.has(c.XP1_CONNECTIONLESS):
            raise SpiError(codes.WSAEOPNOTSUPP, "nobody asks to join here", call="WSPListen")
        if record.kind is Kind.LEG or record.dissolved or record.accepted:
            member = record.accepted and record.kind is Kind.C_LEAF and not record.is_ended
            code = codes.WSAEISCONN if member else codes.WSAEINVAL
            raise SpiError(code, "this socket cannot listen", call="WSPListen")
        if record.kind is not Kind.C_ROOT:
            if record.is_pending or record.is_ended:
                raise SpiError(codes.WSAEINVAL, "this socket cannot listen", call="WSPListen")
            if record.joined:
                raise SpiError(codes.WSAEISCONN, "a member cannot listen", call="WSPListen")
        if not record.is_bound:
            raise SpiError(codes.WSAEINVAL, "bind before listening", call="WSPListen")

    @answers(SOCKET_ERROR)
    def WSPGetSockName(self, s: Any, name: Any, namelen: Any, lpErrno: Any) -> int:
        """The local address; WSAEINVAL while unbound."""
        record = self.enter(s)
        owner = record.parent if record.parent is not None and record.is_pending else record
        _write_name(name, namelen, encode(owner.endpoint.local_address, record.info))
        return 0

    @answers(SOCKET_ERROR)
    def WSPGetPeerName(self, s: Any, name: Any, namelen: Any, lpErrno: Any) -> int:
        """The one peer, by the table of section 5.17; WSAENOTCONN where there is none."""
        record = self.enter(s)
        if record.is_pending or record.failed or record.broken:
            raise SpiError(codes.WSAENOTCONN, "not a member", call="WSPGetPeerName")
        address = record.peer if record.peer is not None else record.endpoint.peer_address
        _write_name(name, namelen, encode(address, record.info))
        return 0

    @answers(SOCKET_ERROR)
    def WSPAddressToString(
        self,
        lpsaAddress: Any,
        dwAddressLength: Any,
        lpProtocolInfo: Any,
        lpszAddressString: Any,
        lpdwAddressStringLength: Any,
        lpErrno: Any,
    ) -> int:
        """An address as text, with its terminating zero; WSAEFAULT with the length needed."""
        self.check_up()
        self.check_alone()
        info = info_at(lpProtocolInfo) or self.info
        raw = read_sockaddr(lpsaAddress, dwAddressLength, info)
        if sockaddr_family(raw) != info.address_family:
            raise SpiError(codes.WSAEINVAL, "an address of another family")
        write_wide(lpszAddressString, lpdwAddressStringLength, address_text(raw))
        return 0

    @answers(SOCKET_ERROR)
    def WSPStringToAddress(
        self,
        AddressString: Any,
        AddressFamily: Any,
        lpProtocolInfo: Any,
        lpAddress: Any,
        lpAddressLength: Any,
        lpErrno: Any,
    ) -> int:
        """Text as an address of this provider's family; names of hosts are not looked up."""
        self.check_up()
        self.check_alone()
        info = info_at(lpProtocolInfo) or self.info
        if as_int(AddressFamily) != info.address_family:
            raise SpiError(codes.WSAEINVAL, f"family {AddressFamily} is not offered here")
        _write_name(lpAddress, lpAddressLength, parse_text(read_wide(AddressString), info))
        return 0


def _write_name(name: Any, namelen: Any, raw: bytes) -> None:
    if is_null(name):
        raise fault("no place for the address")
    write_sockaddr(name, namelen, raw)
