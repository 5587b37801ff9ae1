"""The numbers of the Windows Sockets 2 service-provider interface, under their exact names.

Values are those of the Windows headers, on every platform: ``AF_INET6`` is 23 here although Linux
says 10, and the drivers translate. Error numbers are in ``codes.py``; ioctl codes are unsigned.
"""

from __future__ import annotations

from typing import Final

# Roles a joining member takes (dwFlags of WSPJoinLeaf). BOTH is a bit of its own, not 1 | 2.
JL_SENDER_ONLY: Final = 1
JL_RECEIVER_ONLY: Final = 2
JL_BOTH: Final = 4

# Socket creation (dwFlags of WSPSocket); table 2.1 says which go together.
WSA_FLAG_OVERLAPPED: Final = 0x001
WSA_FLAG_MULTIPOINT_C_ROOT: Final = 0x002
WSA_FLAG_MULTIPOINT_C_LEAF: Final = 0x004
WSA_FLAG_MULTIPOINT_D_ROOT: Final = 0x008
WSA_FLAG_MULTIPOINT_D_LEAF: Final = 0x010
WSA_FLAG_ACCESS_SYSTEM_SECURITY: Final = 0x040
WSA_FLAG_NO_HANDLE_INHERIT: Final = 0x080
WSA_FLAG_REGISTERED_IO: Final = 0x100

# Answers of the condition function of WSPAccept.
CF_ACCEPT: Final = 0
CF_REJECT: Final = 1
CF_DEFER: Final = 2

# Network events: numbers of the bits (indexes of iErrorCode in WSANETWORKEVENTS).
FD_READ_BIT: Final = 0
FD_WRITE_BIT: Final = 1
FD_OOB_BIT: Final = 2
FD_ACCEPT_BIT: Final = 3
FD_CONNECT_BIT: Final = 4
FD_CLOSE_BIT: Final = 5
FD_QOS_BIT: Final = 6
FD_GROUP_QOS_BIT: Final = 7
FD_ROUTING_INTERFACE_CHANGE_BIT: Final = 8
FD_ADDRESS_LIST_CHANGE_BIT: Final = 9

# Network events: the bits.
FD_READ: Final = 0x001
FD_WRITE: Final = 0x002
FD_OOB: Final = 0x004
FD_ACCEPT: Final = 0x008
FD_CONNECT: Final = 0x010
FD_CLOSE: Final = 0x020
FD_QOS: Final = 0x040
FD_GROUP_QOS: Final = 0x080
FD_ROUTING_INTERFACE_CHANGE: Final = 0x100
FD_ADDRESS_LIST_CHANGE: Final = 0x200

# Network events: how many, all of them, and the size of an fd_set.
FD_MAX_EVENTS: Final = 10
FD_ALL_EVENTS: Final = 1023
FD_SETSIZE: Final = 64

# Service flags (dwServiceFlags1 of WSAPROTOCOL_INFOW). The two PLANE bits mean rooted when set,
# and mean something only next to XP1_SUPPORT_MULTIPOINT.
XP1_CONNECTIONLESS: Final = 0x00001
XP1_GUARANTEED_DELIVERY: Final = 0x00002
XP1_GUARANTEED_ORDER: Final = 0x00004
XP1_MESSAGE_ORIENTED: Final = 0x00008
XP1_PSEUDO_STREAM: Final = 0x00010
XP1_GRACEFUL_CLOSE: Final = 0x00020
XP1_EXPEDITED_DATA: Final = 0x00040
XP1_CONNECT_DATA: Final = 0x00080
XP1_DISCONNECT_DATA: Final = 0x00100
XP1_SUPPORT_BROADCAST: Final = 0x00200
XP1_SUPPORT_MULTIPOINT: Final = 0x00400
XP1_MULTIPOINT_CONTROL_PLANE: Final = 0x00800
XP1_MULTIPOINT_DATA_PLANE: Final = 0x01000
XP1_QOS_SUPPORTED: Final = 0x02000
XP1_INTERRUPT: Final = 0x04000
XP1_UNI_SEND: Final = 0x08000
XP1_UNI_RECV: Final = 0x10000
XP1_IFS_HANDLES: Final = 0x20000
XP1_PARTIAL_MESSAGE: Final = 0x40000
XP1_SAN_SUPPORT_SDP: Final = 0x80000

# Provider flags (dwProviderFlags).
PFL_MULTIPLE_PROTO_ENTRIES: Final = 0x01
PFL_RECOMMENDED_PROTO_ENTRY: Final = 0x02
PFL_HIDDEN: Final = 0x04
PFL_MATCHES_PROTOCOL_ZERO: Final = 0x08
PFL_NETWORKDIRECT_PROVIDER: Final = 0x10

# Catalogue entries (WSAPROTOCOL_INFOW) and their chains.
BASE_PROTOCOL: Final = 1
LAYERED_PROTOCOL: Final = 0
MAX_PROTOCOL_CHAIN: Final = 7
WSAPROTOCOL_LEN: Final = 255
FROM_PROTOCOL_INFO: Final = -1
BIGENDIAN: Final = 0
LITTLEENDIAN: Final = 1
SECURITY_PROTOCOL_NONE: Final = 0

# Parts of an ioctl code: direction (31 to 29) and family (28 and 27).
IOC_UNIX: Final = 0x0
IOCPARM_MASK: Final = 0x7F
IOC_WS2: Final = 0x8000000
IOC_PROTOCOL: Final = 0x10000000
IOC_VENDOR: Final = 0x18000000
IOC_VOID: Final = 0x20000000
IOC_OUT: Final = 0x40000000
IOC_IN: Final = 0x80000000
IOC_INOUT: Final = 0xC0000000

# Commands of WSPIoctl. Where a page and the headers disagree the headers win:
# SIO_MULTIPOINT_LOOPBACK takes input, SIO_GET_QOS may.
FIONBIO: Final = 0x8004667E
FIONREAD: Final = 0x4004667F
SIOCATMARK: Final = 0x40047307
SIO_ASSOCIATE_HANDLE: Final = 0x88000001
SIO_ENABLE_CIRCULAR_QUEUEING: Final = 0x28000002
SIO_FIND_ROUTE: Final = 0x48000003
SIO_FLUSH: Final = 0x28000004
SIO_GET_BROADCAST_ADDRESS: Final = 0x48000005
SIO_GET_EXTENSION_FUNCTION_POINTER: Final = 0xC8000006
SIO_GET_QOS: Final = 0xC8000007
SIO_GET_GROUP_QOS: Final = 0xC8000008
SIO_MULTIPOINT_LOOPBACK: Final = 0x88000009
SIO_MULTICAST_SCOPE: Final = 0x8800000A
SIO_SET_QOS: Final = 0x8800000B
SIO_SET_GROUP_QOS: Final = 0x8800000C
SIO_TRANSLATE_HANDLE: Final = 0xC800000D
SIO_ROUTING_INTERFACE_QUERY: Final = 0xC8000014
SIO_ROUTING_INTERFACE_CHANGE: Final = 0x88000015
SIO_ADDRESS_LIST_QUERY: Final = 0x48000016
SIO_ADDRESS_LIST_CHANGE: Final = 0x28000017
SIO_QUERY_TARGET_PNP_HANDLE: Final = 0x48000018
SIO_CHK_QOS: Final = 0xDC000001

# Kinds of companion handle for SIO_ASSOCIATE_HANDLE and SIO_TRANSLATE_HANDLE.
TH_NETDEV: Final = 1
TH_TAPI: Final = 2

# Socket options, level SOL_SOCKET. The two negative ones are complements of SO_LINGER and
# SO_REUSEADDR, as a C int. No option carries connect data: that is WSPJoinLeaf's alone.
SOL_SOCKET: Final = 0xFFFF
SO_DEBUG: Final = 0x1
SO_ACCEPTCONN: Final = 0x2
SO_REUSEADDR: Final = 0x4
SO_KEEPALIVE: Final = 0x8
SO_DONTROUTE: Final = 0x10
SO_BROADCAST: Final = 0x20
SO_USELOOPBACK: Final = 0x40
SO_LINGER: Final = 0x80
SO_OOBINLINE: Final = 0x100
SO_SNDBUF: Final = 0x1001
SO_RCVBUF: Final = 0x1002
SO_SNDLOWAT: Final = 0x1003
SO_RCVLOWAT: Final = 0x1004
SO_SNDTIMEO: Final = 0x1005
SO_RCVTIMEO: Final = 0x1006
SO_ERROR: Final = 0x1007
SO_TYPE: Final = 0x1008
SO_GROUP_ID: Final = 0x2001
SO_GROUP_PRIORITY: Final = 0x2002
SO_MAX_MSG_SIZE: Final = 0x2003
SO_PROTOCOL_INFOA: Final = 0x2004
SO_PROTOCOL_INFOW: Final = 0x2005
PVD_CONFIG: Final = 0x3001
SO_CONDITIONAL_ACCEPT: Final = 0x3002
SO_DONTLINGER: Final = -129
SO_EXCLUSIVEADDRUSE: Final = -5

# Longest queue WSPListen may be asked for: the provider chooses.
SOMAXCONN: Final = 0x7FFFFFFF

# Flags of the data functions.
MSG_OOB: Final = 0x0001
MSG_PEEK: Final = 0x0002
MSG_DONTROUTE: Final = 0x0004
MSG_WAITALL: Final = 0x0008
MSG_INTERRUPT: Final = 0x0010
MSG_MAXIOVLEN: Final = 0x0010
MSG_PUSH_IMMEDIATE: Final = 0x0020
MSG_TRUNC: Final = 0x0100
MSG_CTRUNC: Final = 0x0200
MSG_BCAST: Final = 0x0400
MSG_MCAST: Final = 0x0800
MSG_PARTIAL: Final = 0x8000

# Directions of WSPShutdown.
SD_RECEIVE: Final = 0
SD_SEND: Final = 1
SD_BOTH: Final = 2

# Socket types.
SOCK_STREAM: Final = 1
SOCK_DGRAM: Final = 2
SOCK_RAW: Final = 3
SOCK_RDM: Final = 4
SOCK_SEQPACKET: Final = 5

# Address families, by Winsock's numbers.
AF_UNSPEC: Final = 0
AF_UNIX: Final = 1
AF_INET: Final = 2
AF_ATM: Final = 22
AF_INET6: Final = 23

# IP protocols.
IPPROTO_IP: Final = 0
IPPROTO_ICMP: Final = 1
IPPROTO_IGMP: Final = 2
IPPROTO_TCP: Final = 6
IPPROTO_UDP: Final = 17
IPPROTO_IPV6: Final = 41
IPPROTO_ICMPV6: Final = 58
IPPROTO_PGM: Final = 113
IPPROTO_SCTP: Final = 132
IPPROTO_RAW: Final = 255

# Options at level IPPROTO_IP.
IP_OPTIONS: Final = 1
IP_HDRINCL: Final = 2
IP_TOS: Final = 3
IP_TTL: Final = 4
IP_MULTICAST_IF: Final = 9
IP_MULTICAST_TTL: Final = 10
IP_MULTICAST_LOOP: Final = 11
IP_ADD_MEMBERSHIP: Final = 12
IP_DROP_MEMBERSHIP: Final = 13
IP_ADD_SOURCE_MEMBERSHIP: Final = 15
IP_DROP_SOURCE_MEMBERSHIP: Final = 16
IP_BLOCK_SOURCE: Final = 17
IP_UNBLOCK_SOURCE: Final = 18
IP_PKTINFO: Final = 19
IP_RECVTTL: Final = 21

# Options at level IPPROTO_IPV6.
IPV6_UNICAST_HOPS: Final = 4
IPV6_MULTICAST_IF: Final = 9
IPV6_MULTICAST_HOPS: Final = 10
IPV6_MULTICAST_LOOP: Final = 11
IPV6_ADD_MEMBERSHIP: Final = 12
IPV6_JOIN_GROUP: Final = 12
IPV6_DROP_MEMBERSHIP: Final = 13
IPV6_LEAVE_GROUP: Final = 13
IPV6_PKTINFO: Final = 19
IPV6_HOPLIMIT: Final = 21
IPV6_V6ONLY: Final = 27
IPV6_TCLASS: Final = 39

# Multicast options of either level, with a group_req (RFC 3678).
MCAST_JOIN_GROUP: Final = 41
MCAST_LEAVE_GROUP: Final = 42
MCAST_BLOCK_SOURCE: Final = 43
MCAST_UNBLOCK_SOURCE: Final = 44
MCAST_JOIN_SOURCE_GROUP: Final = 45
MCAST_LEAVE_SOURCE_GROUP: Final = 46

# Service types of a FLOWSPEC.
SERVICETYPE_NOTRAFFIC: Final = 0
SERVICETYPE_BESTEFFORT: Final = 1
SERVICETYPE_CONTROLLEDLOAD: Final = 2
SERVICETYPE_GUARANTEED: Final = 3
SERVICETYPE_NETWORK_UNAVAILABLE: Final = 4
SERVICETYPE_GENERAL_INFORMATION: Final = 5
SERVICETYPE_NOCHANGE: Final = 6
SERVICETYPE_NONCONFORMING: Final = 9
SERVICETYPE_NETWORK_CONTROL: Final = 10
SERVICETYPE_QUALITATIVE: Final = 13

# Modifiers of a service type, and types with the obligation to be met in both directions.
SERVICE_NO_QOS_SIGNALING: Final = 0x40000000
SERVICE_BESTEFFORT: Final = 0x80010000
SERVICE_CONTROLLEDLOAD: Final = 0x80020000
SERVICE_GUARANTEED: Final = 0x80040000
SERVICE_QUALITATIVE: Final = 0x80200000
SERVICE_NO_TRAFFIC_CONTROL: Final = 0x81000000

# Values of a FLOWSPEC field that are no number: not given, and without limit (rates only).
QOS_NOT_SPECIFIED: Final = 0xFFFFFFFF
POSITIVE_INFINITY_RATE: Final = 0xFFFFFFFE

# Objects that may stand in the provider-specific buffer of a QOS.
QOS_GENERAL_ID_BASE: Final = 2000
QOS_OBJECT_END_OF_LIST: Final = 2001
QOS_OBJECT_SD_MODE: Final = 2002
QOS_OBJECT_SHAPING_RATE: Final = 2003
QOS_OBJECT_DESTADDR: Final = 2004

# Socket groups, reserved.
SG_UNCONSTRAINED_GROUP: Final = 1
SG_CONSTRAINED_GROUP: Final = 2

# Results of functions. As a SOCKET (unsigned, pointer wide) INVALID_SOCKET is all ones.
INVALID_SOCKET: Final = -1
SOCKET_ERROR: Final = -1

# Addresses, in host order.
INADDR_ANY: Final = 0x00000000
INADDR_LOOPBACK: Final = 0x7F000001
INADDR_BROADCAST: Final = 0xFFFFFFFF
INADDR_NONE: Final = 0xFFFFFFFF

# Lengths of text, in units with the terminating zero where the headers count it.
WSADESCRIPTION_LEN: Final = 256
WSPDESCRIPTION_LEN: Final = 255
INET_ADDRSTRLEN: Final = 22
INET6_ADDRSTRLEN: Final = 65
WSASYS_STATUS_LEN: Final = 128

# Waiting for event objects and overlapped operations.
WSA_INFINITE: Final = 4294967295
WSA_MAXIMUM_WAIT_EVENTS: Final = 64
WSA_WAIT_EVENT_0: Final = 0
WSA_WAIT_FAILED: Final = 4294967295
WSA_WAIT_IO_COMPLETION: Final = 192
WSA_WAIT_TIMEOUT: Final = 258
WSS_OPERATION_IN_PROGRESS: Final = 259
WSA_INVALID_EVENT: Final = 0
