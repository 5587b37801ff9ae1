"""The application's side of Winsock, for programs that are ported: WSAJoinLeaf and its neighbours.

Names, parameters and results are those of winsock2.h: SOCKET_ERROR or INVALID_SOCKET and a number
from WSAGetLastError, no exceptions. Parameters take Python values where C has pointers: bytes for
addresses and data, bytearray for what is filled in, ``Cell()`` for output numbers, lists for arrays
and sets, None for NULL; ctypes objects and addresses work as well. Constants are in
``joinleaf.spi.constants``, numbers of errors in ``joinleaf.spi.codes``.

A window that WSAAsyncSelect posts to is made by ``create_window`` and read by ``get_message``: they
stand for what user32 offers.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any, Final, ParamSpec

from joinleaf.errors import SpiError
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.winsock.buffers import Wsabuf
from joinleaf.winsock.conversions import info_to_c, sockaddr_family
from joinleaf.winsock.library import LOWEST_VERSION, VERSION, Library, Wanted, choose
from joinleaf.winsock.memory import (
    Cell,
    address_of,
    as_int,
    fault,
    info_at,
    is_null,
    read,
    read_fd_set,
    read_int,
    struct_at,
    write,
    write_int,
)
from joinleaf.winsock.objects import Message
from joinleaf.winsock.places import check
from joinleaf.winsock.types import (
    HANDLE,
    INVALID_SOCKET,
    SOCKET_ERROR,
    WSA_INVALID_EVENT,
    WSABUF,
    WSADATA,
    WSAPROTOCOL_INFOW,
)

__all__ = [
    "INVALID_SOCKET",
    "LIBRARY",
    "SOCKET_ERROR",
    "WSA_INVALID_EVENT",
    "Cell",
    "WSAAccept",
    "WSAAddressToString",
    "WSAAsyncSelect",
    "WSACancelBlockingCall",
    "WSACleanup",
    "WSACloseEvent",
    "WSAConnect",
    "WSACreateEvent",
    "WSADuplicateSocket",
    "WSAEnumNetworkEvents",
    "WSAEnumProtocols",
    "WSAEventSelect",
    "WSAGetLastError",
    "WSAGetOverlappedResult",
    "WSAGetQOSByName",
    "WSAIoctl",
    "WSAJoinLeaf",
    "WSARecv",
    "WSARecvDisconnect",
    "WSARecvFrom",
    "WSAResetEvent",
    "WSASend",
    "WSASendDisconnect",
    "WSASendTo",
    "WSASetEvent",
    "WSASetLastError",
    "WSASocket",
    "WSAStartup",
    "WSAStringToAddress",
    "WSAWaitForMultipleEvents",
    "Wsabuf",
    "accept",
    "bind",
    "closesocket",
    "connect",
    "create_window",
    "get_message",
    "getpeername",
    "getsockname",
    "getsockopt",
    "ioctlsocket",
    "listen",
    "recv",
    "recvfrom",
    "select",
    "send",
    "sendto",
    "setsockopt",
    "shutdown",
    "socket",
]

P = ParamSpec("P")

LIBRARY: Final = Library()
"""The library of this process; set ``LIBRARY.settings`` before WSAStartup to change limits."""

_MILLISECONDS: Final = 1000


def _answers(failure: int) -> Callable[[Callable[P, int]], Callable[P, int]]:
    """Make a function that raises SpiError one that answers as Winsock does."""

    def wrap(function: Callable[P, int]) -> Callable[P, int]:
        @functools.wraps(function)
        def answering(*args: P.args, **kwargs: P.kwargs) -> int:
            try:
                return function(*args, **kwargs)
            except SpiError as error:
                LIBRARY.last_error = error.code
                return failure

        return answering

    return wrap


# -- the library ----------------------------------------------------------------------------------


def WSAStartup(wVersionRequested: Any, lpWSAData: Any) -> int:
    """Begin; 0, or WSAVERNOTSUPPORTED or WSAEFAULT as the result itself."""
    try:
        requested = _readable(as_int(wVersionRequested))
        if requested < _readable(LOWEST_VERSION):
            return codes.WSAVERNOTSUPPORTED
        place = WSADATA() if isinstance(lpWSAData, Cell) else struct_at(lpWSAData, WSADATA)
    except SpiError as error:
        return error.code
    major, minor = min(requested, _readable(VERSION))
    place.wVersion, place.wHighVersion = minor << 8 | major, VERSION
    place.szDescription, place.szSystemStatus = b"joinleaf", b"Running"
    if isinstance(lpWSAData, Cell):
        lpWSAData.value = place
    LIBRARY.start_up()
    return 0


def _readable(version: int) -> tuple[int, int]:
    return version & 0xFF, version >> 8 & 0xFF


@_answers(SOCKET_ERROR)
def WSACleanup() -> int:
    """End what one WSAStartup began; the last one resets every socket that is left."""
    LIBRARY.check_started()
    LIBRARY.clean_up()
    return 0


def WSAGetLastError() -> int:
    """Number of the last error of this thread; calls that succeed leave it alone."""
    return LIBRARY.last_error


def WSASetLastError(iError: int) -> None:
    """Set what WSAGetLastError gives on this thread."""
    LIBRARY.last_error = as_int(iError)


@_answers(SOCKET_ERROR)
def WSAEnumProtocols(lpiProtocols: Any, lpProtocolBuffer: Any, lpdwBufferLength: Any) -> int:
    """List the catalogue: how many entries; a Cell gets them as a list of ProtocolInfo.

    WSAENOBUFS where the memory is too short; ``*lpdwBufferLength`` then has the bytes needed.
    """
    LIBRARY.check_started()
    wanted = _numbers(lpiProtocols)
    found = [one for one in LIBRARY.entries() if wanted is None or one.protocol in wanted]
    if isinstance(lpProtocolBuffer, Cell):
        lpProtocolBuffer.value = found
        return len(found)
    needed = len(found) * ctypes.sizeof(WSAPROTOCOL_INFOW)
    room = read_int(lpdwBufferLength, ctypes.c_uint32)
    if is_null(lpProtocolBuffer) or room < needed:
        write_int(lpdwBufferLength, needed, ctypes.c_uint32)
        raise SpiError(codes.WSAENOBUFS, f"{needed} bytes are needed")
    write(lpProtocolBuffer, b"".join(bytes(info_to_c(one)) for one in found))
    return len(found)


def _numbers(pointer: Any) -> set[int] | None:
    """Protocol numbers: NULL, a Python collection, or memory that ends with a zero."""
    if is_null(pointer):
        return None
    if isinstance(pointer, list | tuple | set):
        return set(pointer)
    found: set[int] = set()
    start = address_of(pointer)
    while number := read_int(start + 4 * len(found)):
        found.add(number)
    return found


# -- sockets --------------------------------------------------------------------------------------


@_answers(INVALID_SOCKET)
def WSASocket(
    af: Any,
    type: Any,  # noqa: A002  # the header's name
    protocol: Any,
    lpProtocolInfo: Any,
    g: Any,
    dwFlags: Any,
) -> int:
    """Make a socket: of the entry that is named, else of the first one that fits."""
    LIBRARY.check_started()
    family, kind, number, flags = (as_int(one) for one in (af, type, protocol, dwFlags))
    info = info_at(lpProtocolInfo)
    if info is None:
        if c.FROM_PROTOCOL_INFO in (family, kind, number):
            raise SpiError(codes.WSAEINVAL, "no protocol information to take it from")
        info = choose(LIBRARY.catalogue.protocols(), Wanted(family, kind, number, flags))
    provider = LIBRARY.provider_for(info)
    given = lpProtocolInfo if not is_null(lpProtocolInfo) else info
    handle = LIBRARY.ask(provider, "WSPSocket", family, kind, number, given, g, flags)
    return LIBRARY.adopt(provider, handle)


def socket(af: Any, type: Any, protocol: Any) -> int:  # noqa: A002  # the header's name
    """WSASocket, overlapped, as Windows has it."""
    return WSASocket(af, type, protocol, None, 0, c.WSA_FLAG_OVERLAPPED)


@_answers(INVALID_SOCKET)
def WSAJoinLeaf(
    s: Any,
    name: Any,
    namelen: Any,
    lpCallerData: Any,
    lpCalleeData: Any,
    lpSQOS: Any,
    lpGQOS: Any,
    dwFlags: Any,
) -> int:
    """Join a leaf into a session; see WSPJoinLeaf."""
    given = (name, namelen, lpCallerData, lpCalleeData, lpSQOS, lpGQOS, dwFlags)
    return LIBRARY.adopt(LIBRARY.owner(s), LIBRARY.call(s, "WSPJoinLeaf", *given))


@_answers(INVALID_SOCKET)
def WSAAccept(s: Any, addr: Any, addrlen: Any, lpfnCondition: Any, dwCallbackData: Any) -> int:
    """Answer the first waiting request, asking the condition function if there is one."""
    given = (addr, addrlen, lpfnCondition, dwCallbackData)
    return LIBRARY.adopt(LIBRARY.owner(s), LIBRARY.call(s, "WSPAccept", *given))


def accept(s: Any, addr: Any = None, addrlen: Any = None) -> int:
    """WSAAccept without a condition function."""
    return WSAAccept(s, addr, addrlen, None, 0)


@_answers(SOCKET_ERROR)
def WSAConnect(
    s: Any, name: Any, namelen: Any, lpCallerData: Any, lpCalleeData: Any, lpSQOS: Any, lpGQOS: Any
) -> int:
    """Set the default peer; sessions are joined with WSAJoinLeaf."""
    given = (name, namelen, lpCallerData, lpCalleeData, lpSQOS, lpGQOS)
    return LIBRARY.call(s, "WSPConnect", *given)


def connect(s: Any, name: Any, namelen: Any) -> int:
    """WSAConnect without data."""
    return WSAConnect(s, name, namelen, None, None, None, None)


@_answers(SOCKET_ERROR)
def bind(s: Any, name: Any, namelen: Any) -> int:
    """WSPBind."""
    return LIBRARY.call(s, "WSPBind", name, namelen)


@_answers(SOCKET_ERROR)
def listen(s: Any, backlog: Any) -> int:
    """WSPListen."""
    return LIBRARY.call(s, "WSPListen", backlog)


@_answers(SOCKET_ERROR)
def closesocket(s: Any) -> int:
    """WSPCloseSocket."""
    LIBRARY.close(s)
    return 0


@_answers(SOCKET_ERROR)
def shutdown(s: Any, how: Any) -> int:
    """WSPShutdown."""
    return LIBRARY.call(s, "WSPShutdown", how)


@_answers(SOCKET_ERROR)
def WSASendDisconnect(s: Any, lpOutboundDisconnectData: Any) -> int:
    """WSPSendDisconnect."""
    return LIBRARY.call(s, "WSPSendDisconnect", lpOutboundDisconnectData)


@_answers(SOCKET_ERROR)
def WSARecvDisconnect(s: Any, lpInboundDisconnectData: Any) -> int:
    """WSPRecvDisconnect."""
    return LIBRARY.call(s, "WSPRecvDisconnect", lpInboundDisconnectData)


@_answers(SOCKET_ERROR)
def WSADuplicateSocket(s: Any, dwProcessId: Any, lpProtocolInfo: Any) -> int:
    """Fill a WSAPROTOCOL_INFOW, with which WSASocket makes another descriptor of the socket."""
    return LIBRARY.call(s, "WSPDuplicateSocket", dwProcessId, lpProtocolInfo)


@_answers(SOCKET_ERROR)
def getsockname(s: Any, name: Any, namelen: Any) -> int:
    """WSPGetSockName."""
    return LIBRARY.call(s, "WSPGetSockName", name, namelen)


@_answers(SOCKET_ERROR)
def getpeername(s: Any, name: Any, namelen: Any) -> int:
    """WSPGetPeerName."""
    return LIBRARY.call(s, "WSPGetPeerName", name, namelen)


@_answers(SOCKET_ERROR)
def getsockopt(s: Any, level: Any, optname: Any, optval: Any, optlen: Any) -> int:
    """WSPGetSockOpt."""
    return LIBRARY.call(s, "WSPGetSockOpt", level, optname, optval, optlen)


@_answers(SOCKET_ERROR)
def setsockopt(s: Any, level: Any, optname: Any, optval: Any, optlen: Any) -> int:
    """WSPSetSockOpt."""
    return LIBRARY.call(s, "WSPSetSockOpt", level, optname, optval, optlen)


@_answers(SOCKET_ERROR)
def WSAIoctl(
    s: Any,
    dwIoControlCode: Any,
    lpvInBuffer: Any,
    cbInBuffer: Any,
    lpvOutBuffer: Any,
    cbOutBuffer: Any,
    lpcbBytesReturned: Any,
    lpOverlapped: Any = None,
    lpCompletionRoutine: Any = None,
) -> int:
    """WSPIoctl."""
    buffers = (lpvInBuffer, cbInBuffer, lpvOutBuffer, cbOutBuffer, lpcbBytesReturned)
    later = (lpOverlapped, lpCompletionRoutine, None)
    return LIBRARY.call(s, "WSPIoctl", dwIoControlCode, *buffers, *later)


@_answers(SOCKET_ERROR)
def ioctlsocket(s: Any, cmd: Any, argp: Any) -> int:
    """FIONBIO, FIONREAD, SIOCATMARK: WSPIoctl with one number, in a Cell or a u_long."""
    size = ctypes.sizeof(ctypes.c_uint32)
    incoming = as_int(cmd) & 0xFFFFFFFF == c.FIONBIO
    places = (argp, size, None, 0) if incoming else (None, 0, argp, size)
    return LIBRARY.call(s, "WSPIoctl", cmd, *places, None, None, None, None)


@_answers(0)
def WSAGetQOSByName(s: Any, lpQOSName: Any, lpQOS: Any) -> int:
    """WSPGetQOSByName; TRUE or FALSE."""
    return LIBRARY.call(s, "WSPGetQOSByName", lpQOSName, lpQOS)


# -- data -----------------------------------------------------------------------------------------


@_answers(SOCKET_ERROR)
def WSASend(
    s: Any,
    lpBuffers: Any,
    dwBufferCount: Any,
    lpNumberOfBytesSent: Any,
    dwFlags: Any,
    lpOverlapped: Any = None,
    lpCompletionRoutine: Any = None,
) -> int:
    """WSPSend."""
    what = (lpBuffers, dwBufferCount, lpNumberOfBytesSent, dwFlags)
    return LIBRARY.call(s, "WSPSend", *what, lpOverlapped, lpCompletionRoutine, None)


@_answers(SOCKET_ERROR)
def WSASendTo(
    s: Any,
    lpBuffers: Any,
    dwBufferCount: Any,
    lpNumberOfBytesSent: Any,
    dwFlags: Any,
    lpTo: Any,
    iTolen: Any,
    lpOverlapped: Any = None,
    lpCompletionRoutine: Any = None,
) -> int:
    """WSPSendTo."""
    what = (lpBuffers, dwBufferCount, lpNumberOfBytesSent, dwFlags, lpTo, iTolen)
    return LIBRARY.call(s, "WSPSendTo", *what, lpOverlapped, lpCompletionRoutine, None)


@_answers(SOCKET_ERROR)
def WSARecv(
    s: Any,
    lpBuffers: Any,
    dwBufferCount: Any,
    lpNumberOfBytesRecvd: Any,
    lpFlags: Any,
    lpOverlapped: Any = None,
    lpCompletionRoutine: Any = None,
) -> int:
    """WSPRecv."""
    what = (lpBuffers, dwBufferCount, lpNumberOfBytesRecvd, lpFlags)
    return LIBRARY.call(s, "WSPRecv", *what, lpOverlapped, lpCompletionRoutine, None)


@_answers(SOCKET_ERROR)
def WSARecvFrom(
    s: Any,
    lpBuffers: Any,
    dwBufferCount: Any,
    lpNumberOfBytesRecvd: Any,
    lpFlags: Any,
    lpFrom: Any,
    lpFromlen: Any,
    lpOverlapped: Any = None,
    lpCompletionRoutine: Any = None,
) -> int:
    """WSPRecvFrom."""
    what = (lpBuffers, dwBufferCount, lpNumberOfBytesRecvd, lpFlags, lpFrom, lpFromlen)
    return LIBRARY.call(s, "WSPRecvFrom", *what, lpOverlapped, lpCompletionRoutine, None)


@_answers(SOCKET_ERROR)
def send(s: Any, buf: Any, len: Any, flags: Any) -> int:  # noqa: A002  # the header's name
    """Send one message; how many bytes went."""
    sent = Cell()
    one, keep = _one_buffer(buf, len, writable=False)
    LIBRARY.call(s, "WSPSend", one, 1, sent, flags, None, None, None)
    del keep
    return as_int(sent)


@_answers(SOCKET_ERROR)
def sendto(
    s: Any,
    buf: Any,
    len: Any,  # noqa: A002  # the header's name
    flags: Any,
    to: Any,
    tolen: Any,
) -> int:
    """Send one message to an address; how many bytes went."""
    sent = Cell()
    one, keep = _one_buffer(buf, len, writable=False)
    LIBRARY.call(s, "WSPSendTo", one, 1, sent, flags, to, tolen, None, None, None)
    del keep
    return as_int(sent)


@_answers(SOCKET_ERROR)
def recv(s: Any, buf: Any, len: Any, flags: Any) -> int:  # noqa: A002  # the header's name
    """Receive one message; how many bytes it has, 0 at the orderly end of a session."""
    return _receive(s, "WSPRecv", (buf, len), flags)


@_answers(SOCKET_ERROR)
def recvfrom(
    s: Any,
    buf: Any,
    len: Any,  # noqa: A002  # the header's name
    flags: Any,
    from_: Any = None,
    fromlen: Any = None,
) -> int:
    """As recv, and who sent it."""
    return _receive(s, "WSPRecvFrom", (buf, len), flags, from_, fromlen)


def _receive(s: Any, name: str, buf: tuple[Any, Any], flags: Any, *sender: Any) -> int:
    received, asked = Cell(), Cell(as_int(flags))
    one, keep = _one_buffer(*buf, writable=True)
    try:
        LIBRARY.call(s, name, one, 1, received, asked, *sender, None, None, None)
    except SpiError as error:
        # WSARecv tells the end of a session of messages by this number; recv() knows only 0.
        if error.code != codes.WSAEDISCON:
            raise
        return 0
    finally:
        del keep
    return as_int(received)


def _one_buffer(memory: Any, length: Any, *, writable: bool) -> tuple[WSABUF, Any]:
    """A WSABUF over the caller's memory, and what must stay alive with it."""
    size = as_int(length)
    if size < 0:
        raise fault(f"a buffer of {size} bytes")
    if size == 0:
        return WSABUF(0, None), None
    address, keep = check(memory, size, writable=writable)
    return WSABUF(size, address), keep


@_answers(0)
def WSAGetOverlappedResult(
    s: Any, lpOverlapped: Any, lpcbTransfer: Any, fWait: Any, lpdwFlags: Any
) -> int:
    """WSPGetOverlappedResult; TRUE or FALSE."""
    given = (lpOverlapped, lpcbTransfer, fWait, lpdwFlags)
    return LIBRARY.call(s, "WSPGetOverlappedResult", *given)


@_answers(SOCKET_ERROR)
def WSACancelBlockingCall() -> int:
    """End the blocking call that this thread is in: for blocking hooks."""
    LIBRARY.check_started()
    if not LIBRARY.objects.thread().cancel_blocking_call():
        raise SpiError(codes.WSAEINVAL, "this thread has no blocking call")
    return 0


# -- events ---------------------------------------------------------------------------------------


@_answers(SOCKET_ERROR)
def WSAEventSelect(s: Any, hEventObject: Any, lNetworkEvents: Any) -> int:
    """WSPEventSelect."""
    return LIBRARY.call(s, "WSPEventSelect", hEventObject, lNetworkEvents)


@_answers(SOCKET_ERROR)
def WSAAsyncSelect(s: Any, hWnd: Any, wMsg: Any, lEvent: Any) -> int:
    """WSPAsyncSelect; the window is one of ``create_window``."""
    return LIBRARY.call(s, "WSPAsyncSelect", hWnd, wMsg, lEvent)


@_answers(SOCKET_ERROR)
def WSAEnumNetworkEvents(s: Any, hEventObject: Any, lpNetworkEvents: Any) -> int:
    """WSPEnumNetworkEvents."""
    return LIBRARY.call(s, "WSPEnumNetworkEvents", hEventObject, lpNetworkEvents)


@_answers(WSA_INVALID_EVENT)
def WSACreateEvent() -> int:
    """A manual-reset event, not set."""
    LIBRARY.check_started()
    return LIBRARY.objects.create_event()


@_answers(0)
def WSASetEvent(hEvent: Any) -> int:
    """Wake all who wait for it; TRUE or FALSE."""
    LIBRARY.objects.set_event(as_int(hEvent))
    return 1


@_answers(0)
def WSAResetEvent(hEvent: Any) -> int:
    """Let everybody wait again; TRUE or FALSE."""
    LIBRARY.objects.reset_event(as_int(hEvent))
    return 1


@_answers(0)
def WSACloseEvent(hEvent: Any) -> int:
    """Give the event back; TRUE or FALSE."""
    LIBRARY.objects.close_event(as_int(hEvent))
    return 1


@_answers(c.WSA_WAIT_FAILED)
def WSAWaitForMultipleEvents(
    cEvents: Any, lphEvents: Any, fWaitAll: Any, dwTimeout: Any, fAlertable: Any
) -> int:
    """Wait for events at most ``dwTimeout`` milliseconds.

    Returns:
        WSA_WAIT_EVENT_0 and the index, WSA_WAIT_TIMEOUT, WSA_WAIT_IO_COMPLETION (a completion
        routine ran), or WSA_WAIT_FAILED.
    """
    limit = as_int(dwTimeout)
    return LIBRARY.objects.wait_many(
        _handles(lphEvents, as_int(cEvents)),
        wait_all=bool(as_int(fWaitAll)),
        timeout=None if limit == c.WSA_INFINITE else limit / _MILLISECONDS,
        alertable=bool(as_int(fAlertable)),
    )


def _handles(pointer: Any, count: int) -> list[int]:
    if isinstance(pointer, list | tuple):
        return list(pointer[:count])
    return list((HANDLE * count).from_buffer_copy(read(pointer, count * ctypes.sizeof(HANDLE))))


@_answers(SOCKET_ERROR)
def select(nfds: Any, readfds: Any, writefds: Any, exceptfds: Any, timeout: Any) -> int:
    """WSPSelect of the provider whose socket comes first; all must be of that one."""
    LIBRARY.check_started()
    sets = [read_fd_set(one) or [] for one in (readfds, writefds, exceptfds)]
    first = next((s for handles in sets for s in handles), None)
    if first is None:
        raise SpiError(codes.WSAEINVAL, "three empty sets", call="select")
    provider = LIBRARY.owner(first)
    return LIBRARY.ask(provider, "WSPSelect", nfds, readfds, writefds, exceptfds, timeout)


def create_window() -> int:
    """Something WSAAsyncSelect can post to; its handle."""
    return LIBRARY.objects.create_window()


def get_message(hWnd: int, timeout: float | None = None) -> Message | None:
    """Take a window's oldest message, waiting so many seconds for one; None: there was none."""
    return LIBRARY.objects.get_message(hWnd, timeout)


# -- addresses as text ----------------------------------------------------------------------------


def _converter(family: int, pointer: Any) -> Any:
    """The provider that converts: of the entry named, else the first of the family."""
    LIBRARY.check_started()
    info: ProtocolInfo | None = info_at(pointer)
    if info is None:
        known = [one for one in LIBRARY.entries() if one.address_family == family]
        if not known:
            raise SpiError(codes.WSAEINVAL, f"nobody knows addresses of family {family}")
        info = known[0]
    return LIBRARY.provider_for(info)


@_answers(SOCKET_ERROR)
def WSAAddressToString(
    lpsaAddress: Any,
    dwAddressLength: Any,
    lpProtocolInfo: Any,
    lpszAddressString: Any,
    lpdwAddressStringLength: Any,
) -> int:
    """An address as text, with its terminating zero; a Cell gets a str."""
    family = sockaddr_family(read(lpsaAddress, min(as_int(dwAddressLength), 2)))
    provider = _converter(family, lpProtocolInfo)
    given = (lpsaAddress, dwAddressLength, lpProtocolInfo)
    places = (lpszAddressString, lpdwAddressStringLength)
    return LIBRARY.ask(provider, "WSPAddressToString", *given, *places)


@_answers(SOCKET_ERROR)
def WSAStringToAddress(
    AddressString: Any,
    AddressFamily: Any,
    lpProtocolInfo: Any,
    lpAddress: Any,
    lpAddressLength: Any,
) -> int:
    """Text as an address; a Cell gets the bytes."""
    provider = _converter(as_int(AddressFamily), lpProtocolInfo)
    given = (AddressString, AddressFamily, lpProtocolInfo, lpAddress, lpAddressLength)
    return LIBRARY.ask(provider, "WSPStringToAddress", *given)
