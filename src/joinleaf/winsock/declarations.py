"""The headers as text: structures and prototypes of ws2spi.h, qos.h and winsock2.h, read once.

A reader with the headers open can check this module line by line. ``types.py`` makes ctypes classes
and function types of it; a test compares sizes, offsets and parameter lists with a compiler's.
Nothing here depends on the platform: a word size comes in where a structure is laid out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

__all__ = [
    "OTHER_FUNCTIONS",
    "PROVIDER_FUNCTIONS",
    "STRUCTURES",
    "UPCALLS",
    "Member",
    "Prototype",
    "members",
]


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a structure: its type, its name and, for an array, how many."""

    type: str
    name: str
    count: int = 0


@dataclass(frozen=True, slots=True)
class Prototype:
    """One function: what it returns, its name, and type and name of each parameter."""

    returns: str
    name: str
    parameters: tuple[tuple[str, str], ...]

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """The names alone, in order, exactly as in the header."""
        return tuple(name for _, name in self.parameters)


_MEMBER: Final = re.compile(r"(.+?)\s*\b(\w+)(?:\[(\d+)\])?", re.DOTALL)
_PROTOTYPE: Final = re.compile(r"(.+?)\s+(\w+)\((.*)\)", re.DOTALL)


def _member(text: str) -> Member:
    match = _MEMBER.fullmatch(text.strip())
    assert match is not None, text
    return Member(" ".join(match[1].split()), match[2], int(match[3] or 0))


def _read(text: str) -> Mapping[str, Prototype]:
    functions = {}
    for line in filter(None, (part.strip() for part in text.split(";"))):
        match = _PROTOTYPE.fullmatch(line)
        assert match is not None, line
        parameters = tuple((m.type, m.name) for m in map(_member, match[3].split(",")))
        functions[match[2]] = Prototype(match[1], match[2], parameters)
    return MappingProxyType(functions)


STRUCTURES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "in_addr": "ULONG s_addr",
        "in6_addr": "u_short s6_words[8]",
        "sockaddr": "u_short sa_family; char sa_data[14]",
        "sockaddr_in": "short sin_family; u_short sin_port; in_addr sin_addr; char sin_zero[8]",
        "sockaddr_in6": """short sin6_family; u_short sin6_port; ULONG sin6_flowinfo;
            in6_addr sin6_addr; ULONG sin6_scope_id""",
        "sockaddr_storage": """short ss_family; char __ss_pad1[6]; INT64 __ss_align;
            char __ss_pad2[112]""",
        "WSABUF": "ULONG len; char *buf",
        "FLOWSPEC": """ULONG TokenRate; ULONG TokenBucketSize; ULONG PeakBandwidth; ULONG Latency;
            ULONG DelayVariation; ULONG ServiceType; ULONG MaxSduSize; ULONG MinimumPolicedSize""",
        "QOS": """FLOWSPEC SendingFlowspec; FLOWSPEC ReceivingFlowspec;
            WSABUF ProviderSpecific""",
        "QOS_OBJECT_HDR": "ULONG ObjectType; ULONG ObjectLength",
        "QOS_SD_MODE": "QOS_OBJECT_HDR ObjectHdr; ULONG ShapeDiscardMode",
        "QOS_SHAPING_RATE": "QOS_OBJECT_HDR ObjectHdr; ULONG ShapingRate",
        "WSANETWORKEVENTS": "LONG lNetworkEvents; int iErrorCode[10]",
        "WSAPROTOCOLCHAIN": "int ChainLen; DWORD ChainEntries[7]",
        "GUID": "ULONG Data1; u_short Data2; u_short Data3; UCHAR Data4[8]",
        "WSAPROTOCOL_INFOW": """DWORD dwServiceFlags1; DWORD dwServiceFlags2; DWORD dwServiceFlags3;
            DWORD dwServiceFlags4; DWORD dwProviderFlags; GUID ProviderId; DWORD dwCatalogEntryId;
            WSAPROTOCOLCHAIN ProtocolChain; int iVersion; int iAddressFamily; int iMaxSockAddr;
            int iMinSockAddr; int iSocketType; int iProtocol; int iProtocolMaxOffset;
            int iNetworkByteOrder; int iSecurityScheme; DWORD dwMessageSize;
            DWORD dwProviderReserved; WCHAR szProtocol[256]""",
        "WSPDATA": "WORD wVersion; WORD wHighVersion; WCHAR szDescription[256]",
        "WSADATA": """WORD wVersion; WORD wHighVersion; u_short iMaxSockets; u_short iMaxUdpDg;
            char *lpVendorInfo; char szDescription[257]; char szSystemStatus[129]""",
        # The 32-bit structure is that of 1992; the 64-bit one was put into a better order.
        "WSADATA/4": """WORD wVersion; WORD wHighVersion; char szDescription[257];
            char szSystemStatus[129]; u_short iMaxSockets; u_short iMaxUdpDg;
            char *lpVendorInfo""",
        "WSAOVERLAPPED": """DWORD_PTR Internal; DWORD_PTR InternalHigh; DWORD Offset;
            DWORD OffsetHigh; WSAEVENT hEvent""",
        "WSATHREADID": "HANDLE ThreadHandle; DWORD_PTR Reserved",
        "linger": "u_short l_onoff; u_short l_linger",
        "timeval": "LONG tv_sec; LONG tv_usec",
        "fd_set": "UINT fd_count; SOCKET fd_array[64]",
        "ip_mreq": "in_addr imr_multiaddr; in_addr imr_interface",
        "ip_mreq_source": "in_addr imr_multiaddr; in_addr imr_sourceaddr; in_addr imr_interface",
        "ipv6_mreq": "in6_addr ipv6mr_multiaddr; ULONG ipv6mr_interface",
        "GROUP_REQ": "ULONG gr_interface; sockaddr_storage gr_group",
        "GROUP_SOURCE_REQ": """ULONG gsr_interface; sockaddr_storage gsr_group;
            sockaddr_storage gsr_source""",
        "SOCKET_ADDRESS": "LPSOCKADDR lpSockaddr; INT iSockaddrLength",
        "SOCKET_ADDRESS_LIST": "INT iAddressCount; SOCKET_ADDRESS Address[1]",
    }
)
"""Members of every structure, in order; ``name/4`` is the 32-bit variant where they differ."""


def members(name: str, pointer_bytes: int) -> tuple[Member, ...]:
    """Members of one structure on a platform whose pointers are 4 or 8 bytes wide."""
    text = STRUCTURES.get(f"{name}/{pointer_bytes}", STRUCTURES[name])
    return tuple(_member(part) for part in text.split(";"))


PROVIDER_FUNCTIONS: Final = _read(
    """
    SOCKET WSPAccept(SOCKET s, struct sockaddr *addr, LPINT addrlen, LPCONDITIONPROC
        lpfnCondition, DWORD_PTR dwCallbackData, LPINT lpErrno);
    INT WSPAddressToString(LPSOCKADDR lpsaAddress, DWORD dwAddressLength, LPWSAPROTOCOL_INFOW
        lpProtocolInfo, LPWSTR lpszAddressString, LPDWORD lpdwAddressStringLength, LPINT
        lpErrno);
    int WSPAsyncSelect(SOCKET s, HWND hWnd, unsigned int wMsg, LONG lEvent, LPINT lpErrno);
    int WSPBind(SOCKET s, const struct sockaddr *name, int namelen, LPINT lpErrno);
    int WSPCancelBlockingCall(LPINT lpErrno);
    int WSPCleanup(LPINT lpErrno);
    int WSPCloseSocket(SOCKET s, LPINT lpErrno);
    int WSPConnect(SOCKET s, const struct sockaddr *name, int namelen, LPWSABUF lpCallerData,
        LPWSABUF lpCalleeData, LPQOS lpSQOS, LPQOS lpGQOS, LPINT lpErrno);
    int WSPDuplicateSocket(SOCKET s, DWORD dwProcessId, LPWSAPROTOCOL_INFOW lpProtocolInfo,
        LPINT lpErrno);
    int WSPEnumNetworkEvents(SOCKET s, WSAEVENT hEventObject, LPWSANETWORKEVENTS
        lpNetworkEvents, LPINT lpErrno);
    int WSPEventSelect(SOCKET s, WSAEVENT hEventObject, LONG lNetworkEvents, LPINT lpErrno);
    BOOL WSPGetOverlappedResult(SOCKET s, LPWSAOVERLAPPED lpOverlapped, LPDWORD lpcbTransfer,
        BOOL fWait, LPDWORD lpdwFlags, LPINT lpErrno);
    int WSPGetPeerName(SOCKET s, struct sockaddr *name, LPINT namelen, LPINT lpErrno);
    int WSPGetSockName(SOCKET s, struct sockaddr *name, LPINT namelen, LPINT lpErrno);
    int WSPGetSockOpt(SOCKET s, int level, int optname, char *optval, LPINT optlen, LPINT
        lpErrno);
    BOOL WSPGetQOSByName(SOCKET s, LPWSABUF lpQOSName, LPQOS lpQOS, LPINT lpErrno);
    int WSPIoctl(SOCKET s, DWORD dwIoControlCode, LPVOID lpvInBuffer, DWORD cbInBuffer, LPVOID
        lpvOutBuffer, DWORD cbOutBuffer, LPDWORD lpcbBytesReturned, LPWSAOVERLAPPED
        lpOverlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine, LPWSATHREADID
        lpThreadId, LPINT lpErrno);
    SOCKET WSPJoinLeaf(SOCKET s, const struct sockaddr *name, int namelen, LPWSABUF
        lpCallerData, LPWSABUF lpCalleeData, LPQOS lpSQOS, LPQOS lpGQOS, DWORD dwFlags, LPINT
        lpErrno);
    int WSPListen(SOCKET s, int backlog, LPINT lpErrno);
    int WSPRecv(SOCKET s, LPWSABUF lpBuffers, DWORD dwBufferCount, LPDWORD lpNumberOfBytesRecvd,
        LPDWORD lpFlags, LPWSAOVERLAPPED lpOverlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE
        lpCompletionRoutine, LPWSATHREADID lpThreadId, LPINT lpErrno);
    int WSPRecvDisconnect(SOCKET s, LPWSABUF lpInboundDisconnectData, LPINT lpErrno);
    int WSPRecvFrom(SOCKET s, LPWSABUF lpBuffers, DWORD dwBufferCount, LPDWORD
        lpNumberOfBytesRecvd, LPDWORD lpFlags, struct sockaddr *lpFrom, LPINT lpFromlen,
        LPWSAOVERLAPPED lpOverlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine,
        LPWSATHREADID lpThreadId, LPINT lpErrno);
    int WSPSelect(int nfds, fd_set *readfds, fd_set *writefds, fd_set *exceptfds, const PTIMEVAL
        timeout, LPINT lpErrno);
    int WSPSend(SOCKET s, LPWSABUF lpBuffers, DWORD dwBufferCount, LPDWORD lpNumberOfBytesSent,
        DWORD dwFlags, LPWSAOVERLAPPED lpOverlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE
        lpCompletionRoutine, LPWSATHREADID lpThreadId, LPINT lpErrno);
    int WSPSendDisconnect(SOCKET s, LPWSABUF lpOutboundDisconnectData, LPINT lpErrno);
    int WSPSendTo(SOCKET s, LPWSABUF lpBuffers, DWORD dwBufferCount, LPDWORD
        lpNumberOfBytesSent, DWORD dwFlags, const struct sockaddr *lpTo, int iTolen,
        LPWSAOVERLAPPED lpOverlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine,
        LPWSATHREADID lpThreadId, LPINT lpErrno);
    int WSPSetSockOpt(SOCKET s, int level, int optname, const char *optval, int optlen, LPINT
        lpErrno);
    int WSPShutdown(SOCKET s, int how, LPINT lpErrno);
    SOCKET WSPSocket(int af, int type, int protocol, LPWSAPROTOCOL_INFOW lpProtocolInfo, GROUP
        g, DWORD dwFlags, LPINT lpErrno);
    INT WSPStringToAddress(LPWSTR AddressString, INT AddressFamily, LPWSAPROTOCOL_INFOW
        lpProtocolInfo, LPSOCKADDR lpAddress, LPINT lpAddressLength, LPINT lpErrno);
    """
)
"""WSPPROC_TABLE: the thirty functions of a provider, in the order of the table."""

UPCALLS: Final = _read(
    """
    BOOL WPUCloseEvent(WSAEVENT hEvent, LPINT lpErrno);
    int WPUCloseSocketHandle(SOCKET s, LPINT lpErrno);
    WSAEVENT WPUCreateEvent(LPINT lpErrno);
    SOCKET WPUCreateSocketHandle(DWORD dwCatalogEntryId, DWORD_PTR dwContext, LPINT lpErrno);
    int WPUFDIsSet(SOCKET s, fd_set *fdset);
    int WPUGetProviderPath(LPGUID lpProviderId, WCHAR *lpszProviderDllPath, LPINT
        lpProviderDllPathLen, LPINT lpErrno);
    SOCKET WPUModifyIFSHandle(DWORD dwCatalogEntryId, SOCKET ProposedHandle, LPINT lpErrno);
    BOOL WPUPostMessage(HWND hWnd, UINT Msg, WPARAM wParam, LPARAM lParam);
    int WPUQueryBlockingCallback(DWORD dwCatalogEntryId, LPBLOCKINGCALLBACK *lplpfnCallback,
        PDWORD_PTR lpdwContext, LPINT lpErrno);
    int WPUQuerySocketHandleContext(SOCKET s, PDWORD_PTR lpContext, LPINT lpErrno);
    int WPUQueueApc(LPWSATHREADID lpThreadId, LPWSAUSERAPC lpfnUserApc, DWORD_PTR dwContext,
        LPINT lpErrno);
    BOOL WPUResetEvent(WSAEVENT hEvent, LPINT lpErrno);
    BOOL WPUSetEvent(WSAEVENT hEvent, LPINT lpErrno);
    int WPUOpenCurrentThread(LPWSATHREADID lpThreadId, LPINT lpErrno);
    int WPUCloseThread(LPWSATHREADID lpThreadId, LPINT lpErrno);
    """
)
"""WSPUPCALLTABLE: the fifteen functions a provider may call, in the order of the table."""

OTHER_FUNCTIONS: Final = _read(
    """
    int WSPStartup(WORD wVersionRequested, LPWSPDATA lpWSPData, LPWSAPROTOCOL_INFOW
        lpProtocolInfo, WSPUPCALLTABLE UpcallTable, LPWSPPROC_TABLE lpProcTable);
    int WPUCompleteOverlappedRequest(SOCKET s, LPWSAOVERLAPPED lpOverlapped, DWORD dwError,
        DWORD cbTransferred, LPINT lpErrno);
    BOOL LPBLOCKINGCALLBACK(DWORD_PTR dwContext);
    VOID LPWSAUSERAPC(DWORD_PTR dwContext);
    int LPCONDITIONPROC(LPWSABUF lpCallerId, LPWSABUF lpCallerData, LPQOS lpSQOS, LPQOS lpGQOS,
        LPWSABUF lpCalleeId, LPWSABUF lpCalleeData, GROUP *g, DWORD_PTR dwCallbackData);
    VOID LPWSAOVERLAPPED_COMPLETION_ROUTINE(DWORD dwError, DWORD cbTransferred, LPWSAOVERLAPPED
        lpOverlapped, DWORD dwFlags);
    """
)
"""A provider's entry point, what ws2_32 exports beside the table, and the clients' callbacks."""
