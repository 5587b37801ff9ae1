/* The Windows Sockets 2 SPI for programs on other systems. Made by generate.py; do not edit.
 *
 * long has 32 bits there, whatever it has here; a handle is an unsigned integer as wide as a
 * pointer; a character of text has 16 bits. Some names are the system's as well (struct sockaddr,
 * fd_set): do not include <sys/socket.h>, <sys/select.h> or <stdlib.h> in the same file.
 */
#ifndef JOINLEAF_SPI_H
#define JOINLEAF_SPI_H

#include <stddef.h>
#include <stdint.h>

typedef int32_t BOOL, INT, LONG;
typedef uint32_t DWORD, ULONG, UINT, GROUP;
typedef int64_t INT64;
typedef uint16_t WORD, WCHAR, u_short;
typedef uint8_t UCHAR;
typedef uintptr_t SOCKET, HANDLE, HWND, WSAEVENT, DWORD_PTR, WPARAM;
typedef intptr_t LPARAM;
typedef void *LPVOID;
typedef INT *LPINT;
typedef DWORD *LPDWORD;
typedef DWORD_PTR *PDWORD_PTR;
typedef WCHAR *LPWSTR;

#define INVALID_SOCKET (~(SOCKET)0)
#define SOCKET_ERROR (-1)

#define JL_SENDER_ONLY 1
#define JL_RECEIVER_ONLY 2
#define JL_BOTH 4
#define WSA_FLAG_OVERLAPPED 1
#define WSA_FLAG_MULTIPOINT_C_ROOT 2
#define WSA_FLAG_MULTIPOINT_C_LEAF 4
#define WSA_FLAG_MULTIPOINT_D_ROOT 8
#define WSA_FLAG_MULTIPOINT_D_LEAF 0x10
#define WSA_FLAG_ACCESS_SYSTEM_SECURITY 0x40
#define WSA_FLAG_NO_HANDLE_INHERIT 0x80
#define WSA_FLAG_REGISTERED_IO 0x100
#define CF_ACCEPT 0
#define CF_REJECT 1
#define CF_DEFER 2
#define FD_READ_BIT 0
#define FD_WRITE_BIT 1
#define FD_OOB_BIT 2
#define FD_ACCEPT_BIT 3
#define FD_CONNECT_BIT 4
#define FD_CLOSE_BIT 5
#define FD_QOS_BIT 6
#define FD_GROUP_QOS_BIT 7
#define FD_ROUTING_INTERFACE_CHANGE_BIT 8
#define FD_ADDRESS_LIST_CHANGE_BIT 9
#define FD_READ 1
#define FD_WRITE 2
#define FD_OOB 4
#define FD_ACCEPT 8
#define FD_CONNECT 0x10
#define FD_CLOSE 0x20
#define FD_QOS 0x40
#define FD_GROUP_QOS 0x80
#define FD_ROUTING_INTERFACE_CHANGE 0x100
#define FD_ADDRESS_LIST_CHANGE 0x200
#define FD_MAX_EVENTS 0xA
#define FD_ALL_EVENTS 0x3FF
#define FD_SETSIZE 0x40
#define XP1_CONNECTIONLESS 1
#define XP1_GUARANTEED_DELIVERY 2
#define XP1_GUARANTEED_ORDER 4
#define XP1_MESSAGE_ORIENTED 8
#define XP1_PSEUDO_STREAM 0x10
#define XP1_GRACEFUL_CLOSE 0x20
#define XP1_EXPEDITED_DATA 0x40
#define XP1_CONNECT_DATA 0x80
#define XP1_DISCONNECT_DATA 0x100
#define XP1_SUPPORT_BROADCAST 0x200
#define XP1_SUPPORT_MULTIPOINT 0x400
#define XP1_MULTIPOINT_CONTROL_PLANE 0x800
#define XP1_MULTIPOINT_DATA_PLANE 0x1000
#define XP1_QOS_SUPPORTED 0x2000
#define XP1_INTERRUPT 0x4000
#define XP1_UNI_SEND 0x8000
#define XP1_UNI_RECV 0x10000
#define XP1_IFS_HANDLES 0x20000
#define XP1_PARTIAL_MESSAGE 0x40000
#define XP1_SAN_SUPPORT_SDP 0x80000
#define PFL_MULTIPLE_PROTO_ENTRIES 1
#define PFL_RECOMMENDED_PROTO_ENTRY 2
#define PFL_HIDDEN 4
#define PFL_MATCHES_PROTOCOL_ZERO 8
#define PFL_NETWORKDIRECT_PROVIDER 0x10
#define FROM_PROTOCOL_INFO (-1)
#define FIONBIO 0x8004667EU
#define FIONREAD 0x4004667F
#define SIOCATMARK 0x40047307
#define SIO_ASSOCIATE_HANDLE 0x88000001U
#define SIO_ENABLE_CIRCULAR_QUEUEING 0x28000002
#define SIO_FIND_ROUTE 0x48000003
#define SIO_FLUSH 0x28000004
#define SIO_GET_BROADCAST_ADDRESS 0x48000005
#define SIO_GET_EXTENSION_FUNCTION_POINTER 0xC8000006U
#define SIO_GET_QOS 0xC8000007U
#define SIO_GET_GROUP_QOS 0xC8000008U
#define SIO_MULTIPOINT_LOOPBACK 0x88000009U
#define SIO_MULTICAST_SCOPE 0x8800000AU
#define SIO_SET_QOS 0x8800000BU
#define SIO_SET_GROUP_QOS 0x8800000CU
#define SIO_TRANSLATE_HANDLE 0xC800000DU
#define SIO_ROUTING_INTERFACE_QUERY 0xC8000014U
#define SIO_ROUTING_INTERFACE_CHANGE 0x88000015U
#define SIO_ADDRESS_LIST_QUERY 0x48000016
#define SIO_ADDRESS_LIST_CHANGE 0x28000017
#define SIO_QUERY_TARGET_PNP_HANDLE 0x48000018
#define SIO_CHK_QOS 0xDC000001U
#define SOL_SOCKET 0xFFFF
#define SO_DEBUG 1
#define SO_ACCEPTCONN 2
#define SO_REUSEADDR 4
#define SO_KEEPALIVE 8
#define SO_DONTROUTE 0x10
#define SO_BROADCAST 0x20
#define SO_USELOOPBACK 0x40
#define SO_LINGER 0x80
#define SO_OOBINLINE 0x100
#define SO_SNDBUF 0x1001
#define SO_RCVBUF 0x1002
#define SO_SNDLOWAT 0x1003
#define SO_RCVLOWAT 0x1004
#define SO_SNDTIMEO 0x1005
#define SO_RCVTIMEO 0x1006
#define SO_ERROR 0x1007
#define SO_TYPE 0x1008
#define SO_GROUP_ID 0x2001
#define SO_GROUP_PRIORITY 0x2002
#define SO_MAX_MSG_SIZE 0x2003
#define SO_PROTOCOL_INFOA 0x2004
#define SO_PROTOCOL_INFOW 0x2005
#define SO_CONDITIONAL_ACCEPT 0x3002
#define SO_DONTLINGER (-129)
#define SO_EXCLUSIVEADDRUSE (-5)
#define SOMAXCONN 0x7FFFFFFF
#define MSG_OOB 1
#define MSG_PEEK 2
#define MSG_DONTROUTE 4
#define MSG_WAITALL 8
#define MSG_INTERRUPT 0x10
#define MSG_MAXIOVLEN 0x10
#define MSG_PUSH_IMMEDIATE 0x20
#define MSG_TRUNC 0x100
#define MSG_CTRUNC 0x200
#define MSG_BCAST 0x400
#define MSG_MCAST 0x800
#define MSG_PARTIAL 0x8000
#define SD_RECEIVE 0
#define SD_SEND 1
#define SD_BOTH 2
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define SOCK_RAW 3
#define SOCK_RDM 4
#define SOCK_SEQPACKET 5
#define AF_UNSPEC 0
#define AF_UNIX 1
#define AF_INET 2
#define AF_ATM 0x16
#define AF_INET6 0x17
#define IPPROTO_IP 0
#define IPPROTO_ICMP 1
#define IPPROTO_IGMP 2
#define IPPROTO_TCP 6
#define IPPROTO_UDP 0x11
#define IPPROTO_IPV6 0x29
#define IPPROTO_ICMPV6 0x3A
#define IPPROTO_PGM 0x71
#define IPPROTO_SCTP 0x84
#define IPPROTO_RAW 0xFF
#define IP_OPTIONS 1
#define IP_HDRINCL 2
#define IP_TOS 3
#define IP_TTL 4
#define IP_MULTICAST_IF 9
#define IP_MULTICAST_TTL 0xA
#define IP_MULTICAST_LOOP 0xB
#define IP_ADD_MEMBERSHIP 0xC
#define IP_DROP_MEMBERSHIP 0xD
#define IP_ADD_SOURCE_MEMBERSHIP 0xF
#define IP_DROP_SOURCE_MEMBERSHIP 0x10
#define IP_BLOCK_SOURCE 0x11
#define IP_UNBLOCK_SOURCE 0x12
#define IP_PKTINFO 0x13
#define IP_RECVTTL 0x15
#define IPV6_UNICAST_HOPS 4
#define IPV6_MULTICAST_IF 9
#define IPV6_MULTICAST_HOPS 0xA
#define IPV6_MULTICAST_LOOP 0xB
#define IPV6_ADD_MEMBERSHIP 0xC
#define IPV6_JOIN_GROUP 0xC
#define IPV6_DROP_MEMBERSHIP 0xD
#define IPV6_LEAVE_GROUP 0xD
#define IPV6_PKTINFO 0x13
#define IPV6_HOPLIMIT 0x15
#define IPV6_V6ONLY 0x1B
#define IPV6_TCLASS 0x27
#define SERVICETYPE_NOTRAFFIC 0
#define SERVICETYPE_BESTEFFORT 1
#define SERVICETYPE_CONTROLLEDLOAD 2
#define SERVICETYPE_GUARANTEED 3
#define SERVICETYPE_NETWORK_UNAVAILABLE 4
#define SERVICETYPE_GENERAL_INFORMATION 5
#define SERVICETYPE_NOCHANGE 6
#define SERVICETYPE_NONCONFORMING 9
#define SERVICETYPE_NETWORK_CONTROL 0xA
#define SERVICETYPE_QUALITATIVE 0xD
#define QOS_NOT_SPECIFIED 0xFFFFFFFFU
#define WSA_INVALID_HANDLE 6
#define WSA_NOT_ENOUGH_MEMORY 8
#define WSA_INVALID_PARAMETER 87
#define WSA_OPERATION_ABORTED 995
#define WSA_IO_INCOMPLETE 996
#define WSA_IO_PENDING 997
#define WSAEINTR 10004
#define WSAEBADF 10009
#define WSAEACCES 10013
#define WSAEFAULT 10014
#define WSAEINVAL 10022
#define WSAEMFILE 10024
#define WSAEWOULDBLOCK 10035
#define WSAEINPROGRESS 10036
#define WSAEALREADY 10037
#define WSAENOTSOCK 10038
#define WSAEDESTADDRREQ 10039
#define WSAEMSGSIZE 10040
#define WSAEPROTOTYPE 10041
#define WSAENOPROTOOPT 10042
#define WSAEPROTONOSUPPORT 10043
#define WSAESOCKTNOSUPPORT 10044
#define WSAEOPNOTSUPP 10045
#define WSAEPFNOSUPPORT 10046
#define WSAEAFNOSUPPORT 10047
#define WSAEADDRINUSE 10048
#define WSAEADDRNOTAVAIL 10049
#define WSAENETDOWN 10050
#define WSAENETUNREACH 10051
#define WSAENETRESET 10052
#define WSAECONNABORTED 10053
#define WSAECONNRESET 10054
#define WSAENOBUFS 10055
#define WSAEISCONN 10056
#define WSAENOTCONN 10057
#define WSAESHUTDOWN 10058
#define WSAETOOMANYREFS 10059
#define WSAETIMEDOUT 10060
#define WSAECONNREFUSED 10061
#define WSAELOOP 10062
#define WSAENAMETOOLONG 10063
#define WSAEHOSTDOWN 10064
#define WSAEHOSTUNREACH 10065
#define WSAENOTEMPTY 10066
#define WSAEPROCLIM 10067
#define WSAEUSERS 10068
#define WSAEDQUOT 10069
#define WSAESTALE 10070
#define WSAEREMOTE 10071
#define WSASYSNOTREADY 10091
#define WSAVERNOTSUPPORTED 10092
#define WSANOTINITIALISED 10093
#define WSAEDISCON 10101
#define WSAENOMORE 10102
#define WSAECANCELLED 10103
#define WSAEINVALIDPROCTABLE 10104
#define WSAEINVALIDPROVIDER 10105
#define WSAEPROVIDERFAILEDINIT 10106
#define WSASYSCALLFAILURE 10107
#define WSASERVICE_NOT_FOUND 10108
#define WSATYPE_NOT_FOUND 10109
#define WSA_E_NO_MORE 10110
#define WSA_E_CANCELLED 10111
#define WSAEREFUSED 10112
#define WSAHOST_NOT_FOUND 11001
#define WSATRY_AGAIN 11002
#define WSANO_RECOVERY 11003
#define WSANO_ADDRESS 11004
#define WSANO_DATA 11004
#define WSA_QOS_RECEIVERS 11005
#define WSA_QOS_SENDERS 11006
#define WSA_QOS_NO_SENDERS 11007
#define WSA_QOS_NO_RECEIVERS 11008
#define WSA_QOS_REQUEST_CONFIRMED 11009
#define WSA_QOS_ADMISSION_FAILURE 11010
#define WSA_QOS_POLICY_FAILURE 11011
#define WSA_QOS_BAD_STYLE 11012
#define WSA_QOS_BAD_OBJECT 11013
#define WSA_QOS_TRAFFIC_CTRL_ERROR 11014
#define WSA_QOS_GENERIC_ERROR 11015
#define WSA_QOS_ESERVICETYPE 11016
#define WSA_QOS_EFLOWSPEC 11017
#define WSA_QOS_EPROVSPECBUF 11018
#define WSA_QOS_EFILTERSTYLE 11019
#define WSA_QOS_EFILTERTYPE 11020
#define WSA_QOS_EFILTERCOUNT 11021
#define WSA_QOS_EOBJLENGTH 11022
#define WSA_QOS_EFLOWCOUNT 11023
#define WSA_QOS_EUNKNOWNPSOBJ 11024
#define WSA_QOS_EUNKOWNPSOBJ 11024
#define WSA_QOS_EPOLICYOBJ 11025
#define WSA_QOS_EFLOWDESC 11026
#define WSA_QOS_EPSFLOWSPEC 11027
#define WSA_QOS_EPSFILTERSPEC 11028
#define WSA_QOS_ESDMODEOBJ 11029
#define WSA_QOS_ESHAPERATEOBJ 11030
#define WSA_QOS_RESERVED_PETYPE 11031

typedef struct in_addr {
    ULONG s_addr;
} in_addr;

typedef struct in6_addr {
    u_short s6_words[8];
} in6_addr;

typedef struct sockaddr {
    u_short sa_family;
    char sa_data[14];
} sockaddr;
typedef struct sockaddr *LPSOCKADDR;

typedef struct sockaddr_in {
    short sin_family;
    u_short sin_port;
    in_addr sin_addr;
    char sin_zero[8];
} sockaddr_in;

typedef struct sockaddr_in6 {
    short sin6_family;
    u_short sin6_port;
    ULONG sin6_flowinfo;
    in6_addr sin6_addr;
    ULONG sin6_scope_id;
} sockaddr_in6;

typedef struct sockaddr_storage {
    short ss_family;
    char __ss_pad1[6];
    INT64 __ss_align;
    char __ss_pad2[112];
} sockaddr_storage;

typedef struct WSABUF {
    ULONG len;
    char *buf;
} WSABUF;
typedef struct WSABUF *LPWSABUF;

typedef struct FLOWSPEC {
    ULONG TokenRate;
    ULONG TokenBucketSize;
    ULONG PeakBandwidth;
    ULONG Latency;
    ULONG DelayVariation;
    ULONG ServiceType;
    ULONG MaxSduSize;
    ULONG MinimumPolicedSize;
} FLOWSPEC;

typedef struct QOS {
    FLOWSPEC SendingFlowspec;
    FLOWSPEC ReceivingFlowspec;
    WSABUF ProviderSpecific;
} QOS;
typedef struct QOS *LPQOS;

typedef struct QOS_OBJECT_HDR {
    ULONG ObjectType;
    ULONG ObjectLength;
} QOS_OBJECT_HDR;

typedef struct QOS_SD_MODE {
    QOS_OBJECT_HDR ObjectHdr;
    ULONG ShapeDiscardMode;
} QOS_SD_MODE;

typedef struct QOS_SHAPING_RATE {
    QOS_OBJECT_HDR ObjectHdr;
    ULONG ShapingRate;
} QOS_SHAPING_RATE;

typedef struct WSANETWORKEVENTS {
    LONG lNetworkEvents;
    int iErrorCode[10];
} WSANETWORKEVENTS;
typedef struct WSANETWORKEVENTS *LPWSANETWORKEVENTS;

typedef struct WSAPROTOCOLCHAIN {
    int ChainLen;
    DWORD ChainEntries[7];
} WSAPROTOCOLCHAIN;

typedef struct GUID {
    ULONG Data1;
    u_short Data2;
    u_short Data3;
    UCHAR Data4[8];
} GUID;
typedef struct GUID *LPGUID;

typedef struct WSAPROTOCOL_INFOW {
    DWORD dwServiceFlags1;
    DWORD dwServiceFlags2;
    DWORD dwServiceFlags3;
    DWORD dwServiceFlags4;
    DWORD dwProviderFlags;
    GUID ProviderId;
    DWORD dwCatalogEntryId;
    WSAPROTOCOLCHAIN ProtocolChain;
    int iVersion;
    int iAddressFamily;
    int iMaxSockAddr;
    int iMinSockAddr;
    int iSocketType;
    int iProtocol;
    int iProtocolMaxOffset;
    int iNetworkByteOrder;
    int iSecurityScheme;
    DWORD dwMessageSize;
    DWORD dwProviderReserved;
    WCHAR szProtocol[256];
} WSAPROTOCOL_INFOW;
typedef struct WSAPROTOCOL_INFOW *LPWSAPROTOCOL_INFOW;

typedef struct WSPDATA {
    WORD wVersion;
    WORD wHighVersion;
    WCHAR szDescription[256];
} WSPDATA;
typedef struct WSPDATA *LPWSPDATA;

typedef struct WSADATA {
#if UINTPTR_MAX > 0xFFFFFFFF
    WORD wVersion;
    WORD wHighVersion;
    u_short iMaxSockets;
    u_short iMaxUdpDg;
    char *lpVendorInfo;
    char szDescription[257];
    char szSystemStatus[129];
#else
    WORD wVersion;
    WORD wHighVersion;
    char szDescription[257];
    char szSystemStatus[129];
    u_short iMaxSockets;
    u_short iMaxUdpDg;
    char *lpVendorInfo;
#endif
} WSADATA;

typedef struct WSAOVERLAPPED {
    DWORD_PTR Internal;
    DWORD_PTR InternalHigh;
    DWORD Offset;
    DWORD OffsetHigh;
    WSAEVENT hEvent;
} WSAOVERLAPPED;
typedef struct WSAOVERLAPPED *LPWSAOVERLAPPED;

typedef struct WSATHREADID {
    HANDLE ThreadHandle;
    DWORD_PTR Reserved;
} WSATHREADID;
typedef struct WSATHREADID *LPWSATHREADID;

typedef struct linger {
    u_short l_onoff;
    u_short l_linger;
} linger;

typedef struct timeval {
    LONG tv_sec;
    LONG tv_usec;
} timeval;
typedef struct timeval *PTIMEVAL;

typedef struct fd_set {
    UINT fd_count;
    SOCKET fd_array[64];
} fd_set;

typedef struct ip_mreq {
    in_addr imr_multiaddr;
    in_addr imr_interface;
} ip_mreq;

typedef struct ip_mreq_source {
    in_addr imr_multiaddr;
    in_addr imr_sourceaddr;
    in_addr imr_interface;
} ip_mreq_source;

typedef struct ipv6_mreq {
    in6_addr ipv6mr_multiaddr;
    ULONG ipv6mr_interface;
} ipv6_mreq;

typedef struct GROUP_REQ {
    ULONG gr_interface;
    sockaddr_storage gr_group;
} GROUP_REQ;

typedef struct GROUP_SOURCE_REQ {
    ULONG gsr_interface;
    sockaddr_storage gsr_group;
    sockaddr_storage gsr_source;
} GROUP_SOURCE_REQ;

typedef struct SOCKET_ADDRESS {
    LPSOCKADDR lpSockaddr;
    INT iSockaddrLength;
} SOCKET_ADDRESS;
typedef struct SOCKET_ADDRESS *LPSOCKET_ADDRESS;

typedef struct SOCKET_ADDRESS_LIST {
    INT iAddressCount;
    SOCKET_ADDRESS Address[1];
} SOCKET_ADDRESS_LIST;

typedef BOOL (*LPBLOCKINGCALLBACK)(DWORD_PTR dwContext);
typedef void (*LPWSAUSERAPC)(DWORD_PTR dwContext);
typedef int (*LPCONDITIONPROC)(LPWSABUF lpCallerId, LPWSABUF lpCallerData, LPQOS lpSQOS, LPQOS lpGQOS, LPWSABUF lpCalleeId, LPWSABUF lpCalleeData, GROUP * g, DWORD_PTR dwCallbackData);
typedef void (*LPWSAOVERLAPPED_COMPLETION_ROUTINE)(DWORD dwError, DWORD cbTransferred, LPWSAOVERLAPPED lpOverlapped, DWORD dwFlags);

typedef struct WSPPROC_TABLE {
    SOCKET (*lpWSPAccept)(SOCKET s, struct sockaddr * addr, LPINT addrlen, LPCONDITIONPROC lpfnCondition, DWORD_PTR dwCallbackData, LPINT lpErrno);
    INT (*lpWSPAddressToString)(LPSOCKADDR lpsaAddress, DWORD dwAddressLength, LPWSAPROTOCOL_INFOW lpProtocolInfo, LPWSTR lpszAddressString, LPDWORD lpdwAddressStringLength, LPINT lpErrno);
    int (*lpWSPAsyncSelect)(SOCKET s, HWND hWnd, unsigned int wMsg, LONG lEvent, LPINT lpErrno);
    int (*lpWSPBind)(SOCKET s, const struct sockaddr * name, int namelen, LPINT lpErrno);
    int (*lpWSPCancelBlockingCall)(LPINT lpErrno);
    int (*lpWSPCleanup)(LPINT lpErrno);
    int (*lpWSPCloseSocket)(SOCKET s, LPINT lpErrno);
    int (*lpWSPConnect)(SOCKET s, const struct sockaddr * name, int namelen, LPWSABUF lpCallerData, LPWSABUF lpCalleeData, LPQOS lpSQOS, LPQOS lpGQOS, LPINT lpErrno);
    int (*lpWSPDuplicateSocket)(SOCKET s, DWORD dwProcessId, LPWSAPROTOCOL_INFOW lpProtocolInfo, LPINT lpErrno);
    int (*lpWSPEnumNetworkEvents)(SOCKET s, WSAEVENT hEventObject, LPWSANETWORKEVENTS lpNetworkEvents, LPINT lpErrno);
    int (*lpWSPEventSelect)(SOCKET s, WSAEVENT hEventObject, LONG lNetworkEvents, LPINT lpErrno);
    BOOL (*lpWSPGetOverlappedResult)(SOCKET s, LPWSAOVERLAPPED lpOverlapped, LPDWORD lpcbTransfer, BOOL fWait, LPDWORD lpdwFlags, LPINT lpErrno);
    int (*lpWSPGetPeerName)(SOCKET s, struct sockaddr * name, LPINT namelen, LPINT lpErrno);
    int (*lpWSPGetSockName)(SOCKET s, struct sockaddr * name, LPINT namelen, LPINT lpErrno);
    int (*lpWSPGetSockOpt)(SOCKET s, int level, int optname, char * optval, LPINT optlen, LPINT lpErrno);
    BOOL (*lpWSPGetQOSByName)(SOCKET s, LPWSABUF lpQOSName, LPQOS lpQOS, LPINT lpErrno);
    int (*lpWSPIoctl)(SOCKET s, DWORD dwIoControlCode, LPVOID lpvInBuffer, DWORD cbInBuffer, LPVOID lpvOutBuffer, DWORD cbOutBuffer, LPDWORD lpcbBytesReturned, LPWSAOVERLAPPED lpOverlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine, LPWSATHREADID lpThreadId, LPINT lpErrno);
    SOCKET (*lpWSPJoinLeaf)(SOCKET s, const struct sockaddr * name, int namelen, LPWSABUF lpCallerData, LPWSABUF lpCalleeData, LPQOS lpSQOS, LPQOS lpGQOS, DWORD dwFlags, LPINT lpErrno);
    int (*lpWSPListen)(SOCKET s, int backlog, LPINT lpErrno);
    int (*lpWSPRecv)(SOCKET s, LPWSABUF lpBuffers, DWORD dwBufferCount, LPDWORD lpNumberOfBytesRecvd, LPDWORD lpFlags, LPWSAOVERLAPPED lpOverlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine, LPWSATHREADID lpThreadId, LPINT lpErrno);
    int (*lpWSPRecvDisconnect)(SOCKET s, LPWSABUF lpInboundDisconnectData, LPINT lpErrno);
    int (*lpWSPRecvFrom)(SOCKET s, LPWSABUF lpBuffers, DWORD dwBufferCount, LPDWORD lpNumberOfBytesRecvd, LPDWORD lpFlags, struct sockaddr * lpFrom, LPINT lpFromlen, LPWSAOVERLAPPED lpOverlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine, LPWSATHREADID lpThreadId, LPINT lpErrno);
    int (*lpWSPSelect)(int nfds, fd_set * readfds, fd_set * writefds, fd_set * exceptfds, const PTIMEVAL timeout, LPINT lpErrno);
    int (*lpWSPSend)(SOCKET s, LPWSABUF lpBuffers, DWORD dwBufferCount, LPDWORD lpNumberOfBytesSent, DWORD dwFlags, LPWSAOVERLAPPED lpOverlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine, LPWSATHREADID lpThreadId, LPINT lpErrno);
    int (*lpWSPSendDisconnect)(SOCKET s, LPWSABUF lpOutboundDisconnectData, LPINT lpErrno);
    int (*lpWSPSendTo)(SOCKET s, LPWSABUF lpBuffers, DWORD dwBufferCount, LPDWORD lpNumberOfBytesSent, DWORD dwFlags, const struct sockaddr * lpTo, int iTolen, LPWSAOVERLAPPED lpOverlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine, LPWSATHREADID lpThreadId, LPINT lpErrno);
    int (*lpWSPSetSockOpt)(SOCKET s, int level, int optname, const char * optval, int optlen, LPINT lpErrno);
    int (*lpWSPShutdown)(SOCKET s, int how, LPINT lpErrno);
    SOCKET (*lpWSPSocket)(int af, int type, int protocol, LPWSAPROTOCOL_INFOW lpProtocolInfo, GROUP g, DWORD dwFlags, LPINT lpErrno);
    INT (*lpWSPStringToAddress)(LPWSTR AddressString, INT AddressFamily, LPWSAPROTOCOL_INFOW lpProtocolInfo, LPSOCKADDR lpAddress, LPINT lpAddressLength, LPINT lpErrno);
} WSPPROC_TABLE;

typedef WSPPROC_TABLE *LPWSPPROC_TABLE;

typedef struct WSPUPCALLTABLE {
    BOOL (*lpWPUCloseEvent)(WSAEVENT hEvent, LPINT lpErrno);
    int (*lpWPUCloseSocketHandle)(SOCKET s, LPINT lpErrno);
    WSAEVENT (*lpWPUCreateEvent)(LPINT lpErrno);
    SOCKET (*lpWPUCreateSocketHandle)(DWORD dwCatalogEntryId, DWORD_PTR dwContext, LPINT lpErrno);
    int (*lpWPUFDIsSet)(SOCKET s, fd_set * fdset);
    int (*lpWPUGetProviderPath)(LPGUID lpProviderId, WCHAR * lpszProviderDllPath, LPINT lpProviderDllPathLen, LPINT lpErrno);
    SOCKET (*lpWPUModifyIFSHandle)(DWORD dwCatalogEntryId, SOCKET ProposedHandle, LPINT lpErrno);
    BOOL (*lpWPUPostMessage)(HWND hWnd, UINT Msg, WPARAM wParam, LPARAM lParam);
    int (*lpWPUQueryBlockingCallback)(DWORD dwCatalogEntryId, LPBLOCKINGCALLBACK * lplpfnCallback, PDWORD_PTR lpdwContext, LPINT lpErrno);
    int (*lpWPUQuerySocketHandleContext)(SOCKET s, PDWORD_PTR lpContext, LPINT lpErrno);
    int (*lpWPUQueueApc)(LPWSATHREADID lpThreadId, LPWSAUSERAPC lpfnUserApc, DWORD_PTR dwContext, LPINT lpErrno);
    BOOL (*lpWPUResetEvent)(WSAEVENT hEvent, LPINT lpErrno);
    BOOL (*lpWPUSetEvent)(WSAEVENT hEvent, LPINT lpErrno);
    int (*lpWPUOpenCurrentThread)(LPWSATHREADID lpThreadId, LPINT lpErrno);
    int (*lpWPUCloseThread)(LPWSATHREADID lpThreadId, LPINT lpErrno);
} WSPUPCALLTABLE;

typedef int (*LPWSPSTARTUP)(WORD wVersionRequested, LPWSPDATA lpWSPData, LPWSAPROTOCOL_INFOW lpProtocolInfo, WSPUPCALLTABLE UpcallTable, LPWSPPROC_TABLE lpProcTable);

typedef int (*LPWPUCOMPLETEOVERLAPPEDREQUEST)(SOCKET s, LPWSAOVERLAPPED lpOverlapped, DWORD dwError, DWORD cbTransferred, LPINT lpErrno);

#endif
