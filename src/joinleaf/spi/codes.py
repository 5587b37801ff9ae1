"""Error numbers of the seam, and the one table number <-> exception <-> POSIX errno.

A provider raises ``SpiError`` with one of these numbers; the session API turns it into an exception
of its own by ``session_error``, and chains the two with ``from``. Nobody else translates.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from joinleaf.errors import (
    AdmissionRefusedError,
    BusyError,
    JoinPendingError,
    JoinRefusedError,
    JoinTimeoutError,
    MessageTooLargeError,
    SessionBrokenError,
    SessionClosedError,
    SessionError,
    SessionOSError,
    SessionTimeoutError,
    SpiError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

# Numbers that are Win32 errors under another name.
WSA_INVALID_HANDLE: Final = 6
WSA_NOT_ENOUGH_MEMORY: Final = 8
WSA_INVALID_PARAMETER: Final = 87
WSA_OPERATION_ABORTED: Final = 995
WSA_IO_INCOMPLETE: Final = 996
WSA_IO_PENDING: Final = 997

# Numbers with a Berkeley ancestor: 10000 plus the old errno.
WSAEINTR: Final = 10004
WSAEBADF: Final = 10009
WSAEACCES: Final = 10013
WSAEFAULT: Final = 10014
WSAEINVAL: Final = 10022
WSAEMFILE: Final = 10024
WSAEWOULDBLOCK: Final = 10035
WSAEINPROGRESS: Final = 10036
WSAEALREADY: Final = 10037
WSAENOTSOCK: Final = 10038
WSAEDESTADDRREQ: Final = 10039
WSAEMSGSIZE: Final = 10040
WSAEPROTOTYPE: Final = 10041
WSAENOPROTOOPT: Final = 10042
WSAEPROTONOSUPPORT: Final = 10043
WSAESOCKTNOSUPPORT: Final = 10044
WSAEOPNOTSUPP: Final = 10045
WSAEPFNOSUPPORT: Final = 10046
WSAEAFNOSUPPORT: Final = 10047
WSAEADDRINUSE: Final = 10048
WSAEADDRNOTAVAIL: Final = 10049
WSAENETDOWN: Final = 10050
WSAENETUNREACH: Final = 10051
WSAENETRESET: Final = 10052
WSAECONNABORTED: Final = 10053
WSAECONNRESET: Final = 10054
WSAENOBUFS: Final = 10055
WSAEISCONN: Final = 10056
WSAENOTCONN: Final = 10057
WSAESHUTDOWN: Final = 10058
WSAETOOMANYREFS: Final = 10059
WSAETIMEDOUT: Final = 10060
WSAECONNREFUSED: Final = 10061
WSAELOOP: Final = 10062
WSAENAMETOOLONG: Final = 10063
WSAEHOSTDOWN: Final = 10064
WSAEHOSTUNREACH: Final = 10065
WSAENOTEMPTY: Final = 10066
WSAEPROCLIM: Final = 10067
WSAEUSERS: Final = 10068
WSAEDQUOT: Final = 10069
WSAESTALE: Final = 10070
WSAEREMOTE: Final = 10071

# Winsock's own.
WSASYSNOTREADY: Final = 10091
WSAVERNOTSUPPORTED: Final = 10092
WSANOTINITIALISED: Final = 10093
WSAEDISCON: Final = 10101
WSAENOMORE: Final = 10102
WSAECANCELLED: Final = 10103
WSAEINVALIDPROCTABLE: Final = 10104
WSAEINVALIDPROVIDER: Final = 10105
WSAEPROVIDERFAILEDINIT: Final = 10106
WSASYSCALLFAILURE: Final = 10107
WSASERVICE_NOT_FOUND: Final = 10108
WSATYPE_NOT_FOUND: Final = 10109
WSA_E_NO_MORE: Final = 10110
WSA_E_CANCELLED: Final = 10111
WSAEREFUSED: Final = 10112

# Names and addresses; WSPAccept borrows WSATRY_AGAIN for CF_DEFER.
WSAHOST_NOT_FOUND: Final = 11001
WSATRY_AGAIN: Final = 11002
WSANO_RECOVERY: Final = 11003
WSANO_ADDRESS: Final = 11004
WSANO_DATA: Final = 11004

# Quality of service. One name is spelled wrongly in the headers, so both spellings exist.
WSA_QOS_RECEIVERS: Final = 11005
WSA_QOS_SENDERS: Final = 11006
WSA_QOS_NO_SENDERS: Final = 11007
WSA_QOS_NO_RECEIVERS: Final = 11008
WSA_QOS_REQUEST_CONFIRMED: Final = 11009
WSA_QOS_ADMISSION_FAILURE: Final = 11010
WSA_QOS_POLICY_FAILURE: Final = 11011
WSA_QOS_BAD_STYLE: Final = 11012
WSA_QOS_BAD_OBJECT: Final = 11013
WSA_QOS_TRAFFIC_CTRL_ERROR: Final = 11014
WSA_QOS_GENERIC_ERROR: Final = 11015
WSA_QOS_ESERVICETYPE: Final = 11016
WSA_QOS_EFLOWSPEC: Final = 11017
WSA_QOS_EPROVSPECBUF: Final = 11018
WSA_QOS_EFILTERSTYLE: Final = 11019
WSA_QOS_EFILTERTYPE: Final = 11020
WSA_QOS_EFILTERCOUNT: Final = 11021
WSA_QOS_EOBJLENGTH: Final = 11022
WSA_QOS_EFLOWCOUNT: Final = 11023
WSA_QOS_EUNKNOWNPSOBJ: Final = 11024
WSA_QOS_EUNKOWNPSOBJ: Final = 11024
WSA_QOS_EPOLICYOBJ: Final = 11025
WSA_QOS_EFLOWDESC: Final = 11026
WSA_QOS_EPSFLOWSPEC: Final = 11027
WSA_QOS_EPSFILTERSPEC: Final = 11028
WSA_QOS_ESDMODEOBJ: Final = 11029
WSA_QOS_ESHAPERATEOBJ: Final = 11030
WSA_QOS_RESERVED_PETYPE: Final = 11031


@dataclass(frozen=True, slots=True)
class Row:
    """What one error number means above the seam.

    Attributes:
        error: The exception class of the session API.
        joining: The class where it ended a join, if another.
        errno: The closest POSIX number.
        meaning: What is the matter, if the provider did not say.
        hint: The way out, as a sentence.
    """

    error: type[SessionError]
    errno: int
    meaning: str
    hint: str
    joining: type[SessionError] | None = None

    def exception(self, joining: bool) -> type[SessionError]:
        """The class to raise."""
        return self.joining if joining and self.joining is not None else self.error


def _posix(name: str) -> int:
    """A number that not every platform has; EIO where it is missing."""
    return int(getattr(errno, name, errno.EIO))


_CLOSED_HINT: Final = "Open or join a session again to go on"
_BROKEN_HINT: Final = "Join again; what was sent last may not have arrived"
_NETWORK_HINT: Final = "Check interfaces and routes, or name the interface to use"
_ARGUMENT_HINT: Final = "Check the arguments against the documentation of the call"
_PLUGIN_HINT: Final = "Reinstall or remove the provider, or use another scheme"
_ADDRESS_HINT: Final = "Give an address of the kind this scheme is for"
_SETUP_HINT: Final = "Start and set up the service provider first"
_NAME_HINT: Final = "Check the spelling, or give the address as numbers"
_QOS_HINT: Final = "Ask for less, or for best effort"
_LIMIT_HINT: Final = "Close something else first, or raise the limit"
_SYSTEM_HINT: Final = "This is unexpected: the cause is chained to this error"

_OS: Final = SessionOSError

TABLE: Final[Mapping[int, Row]] = MappingProxyType(
    {
        WSA_INVALID_HANDLE: Row(_OS, errno.EBADF, "no such event object", _ARGUMENT_HINT),
        WSA_NOT_ENOUGH_MEMORY: Row(_OS, errno.ENOMEM, "out of memory", _LIMIT_HINT),
        WSA_INVALID_PARAMETER: Row(_OS, errno.EINVAL, "a parameter is wrong", _ARGUMENT_HINT),
        WSA_OPERATION_ABORTED: Row(
            SessionClosedError,
            errno.ECANCELED,
            "closed while an operation was under way",
            _CLOSED_HINT,
        ),
        WSA_IO_INCOMPLETE: Row(
            _OS, errno.EAGAIN, "the operation is still under way", "Wait for it"
        ),
        WSA_IO_PENDING: Row(_OS, errno.EAGAIN, "the operation has been started", "Wait for it"),
        WSAEINTR: Row(
            SessionClosedError, errno.EINTR, "cancelled or closed while waiting", _CLOSED_HINT
        ),
        WSAEBADF: Row(SessionClosedError, errno.EBADF, "the session is closed", _CLOSED_HINT),
        WSAEACCES: Row(
            _OS, errno.EACCES, "not permitted", "Ask for the right, or use another address or port"
        ),
        WSAEFAULT: Row(_OS, errno.EFAULT, "a buffer or address is unusable", _ARGUMENT_HINT),
        WSAEINVAL: Row(
            _OS, errno.EINVAL, "not possible with these arguments or in this state", _ARGUMENT_HINT
        ),
        WSAEMFILE: Row(_OS, errno.EMFILE, "too many open sockets", _LIMIT_HINT),
        WSAEWOULDBLOCK: Row(
            SessionTimeoutError,
            errno.EAGAIN,
            "nothing could be done without waiting",
            "Try again, or give a longer timeout",
        ),
        WSAEINPROGRESS: Row(
            BusyError,
            errno.EBUSY,
            "another thread is using this direction of the session",
            "Let one thread send and one receive, or hold a lock of your own",
        ),
        WSAEALREADY: Row(
            JoinPendingError,
            errno.EALREADY,
            "a join is already under way",
            "Wait for its outcome, or close the session to give it up",
        ),
        WSAENOTSOCK: Row(SessionClosedError, errno.ENOTSOCK, "the session is closed", _CLOSED_HINT),
        WSAEDESTADDRREQ: Row(
            _OS, errno.EDESTADDRREQ, "no address to send to", "Join a session first"
        ),
        WSAEMSGSIZE: Row(
            MessageTooLargeError,
            errno.EMSGSIZE,
            "the message is longer than this session carries",
            "Send it in pieces, as a file, or raise max_message at both ends",
        ),
        WSAEPROTOTYPE: Row(
            _OS, errno.EPROTOTYPE, "wrong protocol for this socket type", _ARGUMENT_HINT
        ),
        WSAENOPROTOOPT: Row(
            _OS,
            errno.ENOPROTOOPT,
            "this session has no such option",
            "See `joinleaf protocols` for what each scheme offers",
        ),
        WSAEPROTONOSUPPORT: Row(
            _OS,
            errno.EPROTONOSUPPORT,
            "this protocol cannot do that",
            "See `joinleaf protocols` for what each scheme offers",
        ),
        WSAESOCKTNOSUPPORT: Row(
            _OS, _posix("ESOCKTNOSUPPORT"), "socket type not supported", _ARGUMENT_HINT
        ),
        WSAEOPNOTSUPP: Row(
            _OS,
            errno.EOPNOTSUPP,
            "this session cannot do that, in this role or at all",
            "Check its role, and ask for less where a rate was asked for",
            joining=AdmissionRefusedError,
        ),
        WSAEPFNOSUPPORT: Row(
            _OS, _posix("EPFNOSUPPORT"), "protocol family not supported", _ADDRESS_HINT
        ),
        WSAEAFNOSUPPORT: Row(
            _OS, errno.EAFNOSUPPORT, "address family not supported", _ADDRESS_HINT
        ),
        WSAEADDRINUSE: Row(
            _OS,
            errno.EADDRINUSE,
            "the address is in use",
            "Choose another port, stop the other program, or set reuse_address",
        ),
        WSAEADDRNOTAVAIL: Row(
            _OS, errno.EADDRNOTAVAIL, "this host has no such address or interface", _NETWORK_HINT
        ),
        WSAENETDOWN: Row(_OS, errno.ENETDOWN, "the network is down", _NETWORK_HINT),
        WSAENETUNREACH: Row(_OS, errno.ENETUNREACH, "no route leads there", _NETWORK_HINT),
        WSAENETRESET: Row(
            SessionBrokenError, errno.ENETRESET, "the network dropped the connection", _BROKEN_HINT
        ),
        WSAECONNABORTED: Row(
            SessionBrokenError, errno.ECONNABORTED, "the connection was lost", _BROKEN_HINT
        ),
        WSAECONNRESET: Row(
            SessionBrokenError,
            errno.ECONNRESET,
            "the other side broke the connection",
            _BROKEN_HINT,
        ),
        WSAENOBUFS: Row(_OS, errno.ENOBUFS, "no room in the system's buffers", _LIMIT_HINT),
        WSAEISCONN: Row(
            _OS,
            errno.EISCONN,
            "already a member or already connected",
            "Use this session as it is, or open another one",
        ),
        WSAENOTCONN: Row(
            _OS,
            errno.ENOTCONN,
            "nobody is joined to this session",
            "Join first, or wait until somebody has joined",
        ),
        WSAESHUTDOWN: Row(
            SessionClosedError,
            _posix("ESHUTDOWN"),
            "this direction has been shut down",
            _CLOSED_HINT,
        ),
        WSAETOOMANYREFS: Row(_OS, _posix("ETOOMANYREFS"), "too many references", _LIMIT_HINT),
        WSAETIMEDOUT: Row(
            SessionTimeoutError,
            errno.ETIMEDOUT,
            "not done in the time given",
            "Try again, give a longer timeout, or check that the other side is running",
            joining=JoinTimeoutError,
        ),
        WSAECONNREFUSED: Row(
            JoinRefusedError,
            errno.ECONNREFUSED,
            "the join was refused, or nobody listens there",
            "Check address and port, and see .data for what the other side said",
        ),
        WSAELOOP: Row(_OS, errno.ELOOP, "too many links in the name", _NAME_HINT),
        WSAENAMETOOLONG: Row(_OS, errno.ENAMETOOLONG, "the name is too long", _NAME_HINT),
        WSAEHOSTDOWN: Row(_OS, _posix("EHOSTDOWN"), "the host is down", _NETWORK_HINT),
        WSAEHOSTUNREACH: Row(_OS, errno.EHOSTUNREACH, "the host cannot be reached", _NETWORK_HINT),
        WSAENOTEMPTY: Row(_OS, errno.ENOTEMPTY, "the folder is not empty", "Empty it first"),
        WSAEPROCLIM: Row(_OS, errno.EAGAIN, "too many programs use the provider", _LIMIT_HINT),
        WSAEUSERS: Row(_OS, _posix("EUSERS"), "too many users", _LIMIT_HINT),
        WSAEDQUOT: Row(_OS, _posix("EDQUOT"), "the quota is used up", _LIMIT_HINT),
        WSAESTALE: Row(_OS, _posix("ESTALE"), "the file is no longer there", "Open it again"),
        WSAEREMOTE: Row(_OS, _posix("EREMOTE"), "not available from here", _ADDRESS_HINT),
        WSASYSNOTREADY: Row(_OS, errno.ENETDOWN, "the network is not ready", _NETWORK_HINT),
        WSAVERNOTSUPPORTED: Row(_OS, errno.EPROTONOSUPPORT, "version not supported", _SETUP_HINT),
        WSANOTINITIALISED: Row(_OS, errno.EINVAL, "WSPStartup has not been called", _SETUP_HINT),
        WSAEDISCON: Row(
            SessionClosedError,
            errno.EPIPE,
            "the session has ended, in an orderly way",
            _CLOSED_HINT,
        ),
        WSAENOMORE: Row(_OS, errno.ENOENT, "no more entries", _ARGUMENT_HINT),
        WSAECANCELLED: Row(SessionClosedError, errno.ECANCELED, "cancelled", _CLOSED_HINT),
        WSAEINVALIDPROCTABLE: Row(
            _OS, errno.EINVAL, "the provider's table is invalid", _PLUGIN_HINT
        ),
        WSAEINVALIDPROVIDER: Row(_OS, errno.EINVAL, "the provider is invalid", _PLUGIN_HINT),
        WSAEPROVIDERFAILEDINIT: Row(_OS, errno.EIO, "the provider failed to start", _PLUGIN_HINT),
        WSASYSCALLFAILURE: Row(_OS, errno.EIO, "a system call failed", _SYSTEM_HINT),
        WSASERVICE_NOT_FOUND: Row(_OS, errno.ENOENT, "no such service", _NAME_HINT),
        WSATYPE_NOT_FOUND: Row(_OS, errno.ENOENT, "no such class", _NAME_HINT),
        WSA_E_NO_MORE: Row(_OS, errno.ENOENT, "no more entries", _ARGUMENT_HINT),
        WSA_E_CANCELLED: Row(SessionClosedError, errno.ECANCELED, "cancelled", _CLOSED_HINT),
        WSAEREFUSED: Row(_OS, errno.EACCES, "the query was refused", _NAME_HINT),
        WSAHOST_NOT_FOUND: Row(_OS, errno.ENOENT, "no host of that name", _NAME_HINT),
        WSATRY_AGAIN: Row(
            _OS, errno.EAGAIN, "deferred: the answer is not known yet", "Try again a little later"
        ),
        WSANO_RECOVERY: Row(_OS, errno.EIO, "the name service failed", _NAME_HINT),
        WSANO_DATA: Row(_OS, errno.ENOENT, "the name has no address", _NAME_HINT),
        WSA_QOS_ADMISSION_FAILURE: Row(
            AdmissionRefusedError, errno.EOPNOTSUPP, "not enough capacity", _QOS_HINT
        ),
        WSA_QOS_POLICY_FAILURE: Row(
            AdmissionRefusedError, errno.EACCES, "the policy forbids this reservation", _QOS_HINT
        ),
    }
)
"""Every number that has a meaning of its own here; ``row_of`` knows the rest."""

_QOS_ROW: Final = Row(_OS, errno.EINVAL, "a flow specification is not usable", _QOS_HINT)
_UNKNOWN_ROW: Final = Row(_OS, errno.EIO, "an unknown error", _SYSTEM_HINT)

_NAMES: Final[Mapping[int, str]] = MappingProxyType(
    {
        value: name
        for name, value in sorted(globals().items(), reverse=True)
        if name.startswith("WSA") and isinstance(value, int)
    }
)

# What the system says, in the seam's numbers. Section 14.8 of the model decides the first rows;
# EADDRINUSE from a membership option means "already a member" and is the provider's to tell.
_FROM_ERRNO: Final[Mapping[int, int]] = MappingProxyType(
    {
        **{row.errno: code for code, row in reversed(list(TABLE.items())) if 10000 < code < 10091},
        errno.ENODEV: WSAEADDRNOTAVAIL,
        errno.ENXIO: WSAEADDRNOTAVAIL,
        errno.ENETUNREACH: WSAENETUNREACH,
        errno.EHOSTUNREACH: WSAENETUNREACH,
        errno.ENOMEM: WSAENOBUFS,
        errno.EINPROGRESS: WSAEWOULDBLOCK,
        errno.EWOULDBLOCK: WSAEWOULDBLOCK,
        errno.EAGAIN: WSAEWOULDBLOCK,
        errno.EPERM: WSAEACCES,
        errno.ENFILE: WSAEMFILE,
        errno.EBADF: WSAENOTSOCK,
        errno.EPIPE: WSAECONNRESET,
        errno.ECANCELED: WSAECANCELLED,
        errno.EINTR: WSASYSCALLFAILURE,  # never WSAEINTR, which is for cancelled calls
        errno.EIO: WSASYSCALLFAILURE,
        errno.EBUSY: WSASYSCALLFAILURE,
    }
)


def row_of(code: int) -> Row:
    """What is said and raised about a number; unknown ones get a row as well."""
    row = TABLE.get(code)
    if row is not None:
        return row
    return _QOS_ROW if WSA_QOS_RECEIVERS <= code <= WSA_QOS_RESERVED_PETYPE else _UNKNOWN_ROW


def name_of(code: int) -> str:
    """The name of an error number, ``"WSAEALREADY"`` for 10037; the number where it has none."""
    return _NAMES.get(code, str(code))


def errno_of(code: int) -> int:
    """The POSIX number closest to a WSAE number; EIO for one that is unknown."""
    return row_of(code).errno


def code_of_errno(errno: int) -> int:
    """The WSAE number for what the system said; WSASYSCALLFAILURE where nothing fits.

    Source:
        Section 14.8 of the multipoint model. EINTR has no business here: retry the call.
    """
    if errno in TABLE and errno >= WSAEINTR:  # Windows numbers its errors this way already
        return errno
    return _FROM_ERRNO.get(errno, WSASYSCALLFAILURE)


def session_error(error: SpiError, *, joining: bool = False) -> SessionError:
    """Turn a refusal at the seam into what the session API raises; raise it ``from`` the refusal.

    Args:
        error: What the provider raised.
        joining: Whether it ended an attempt to join, where two numbers mean something else.

    Returns:
        The exception, with code, errno, reason and data filled in. Its text ends with the
        provider's hint or, without one, with the table's.
    """
    row = row_of(error.code)
    # The text of an error is "message. hint"; taken apart, so that the hint is not said twice.
    said = str(error).removesuffix(error.hint) if error.hint else str(error)
    return row.exception(joining)(
        said.rstrip(". ") or row.meaning,
        code=error.code,
        errno=row.errno,
        hint=error.hint or row.hint,
        reason=error.reason or ("cancelled" if error.code in _CANCELLED else ""),
        data=error.data,
    )


_CANCELLED: Final = frozenset({WSAEINTR, WSAECANCELLED, WSA_E_CANCELLED, WSA_OPERATION_ABORTED})


def spi_error_from_os(error: OSError, *, call: str, message: str = "") -> SpiError:
    """Turn what a system call raised into a refusal at the seam; raise it ``from`` the original.

    Args:
        error: What the system call raised.
        call: Name of the seam's method.
        message: What was being done; the system's own words follow.
    """
    code = _code_of(error)
    row = row_of(code)
    text = error.strerror or str(error) or row.meaning
    return SpiError(code, f"{message}: {text}" if message else text, call=call, hint=row.hint)


def _code_of(error: OSError) -> int:
    # Resolver errors number from their own list, which overlaps errno; known here by name,
    # since nothing below the drivers may import socket.
    if type(error).__name__ == "gaierror":
        return WSAHOST_NOT_FOUND
    if error.errno is None:
        return WSAETIMEDOUT if isinstance(error, TimeoutError) else WSASYSCALLFAILURE
    return code_of_errno(getattr(error, "winerror", None) or error.errno)
