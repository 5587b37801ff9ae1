"""Every error joinleaf raises, in one tree.

    JoinleafError
    ├── SpiError                a call at the provider seam was refused: .code is the WSAE number
    ├── SessionError            what the session API raises; .code, .errno, .hint
    │   ├── JoinError           the join did not come about
    │   │   ├── JoinRefusedError    (ConnectionRefusedError) .data is what the other side said
    │   │   ├── JoinTimeoutError    (TimeoutError)
    │   │   ├── JoinPendingError    (BlockingIOError) a join is already under way on this socket
    │   │   └── AdmissionRefusedError   the flow specification cannot be met
    │   ├── SessionTimeoutError (TimeoutError) a send or receive did not finish in its time
    │   ├── SessionClosedError  you closed it, or it ended in an orderly way; .reason, .data
    │   ├── SessionBrokenError  (ConnectionError) root, peer or network ended it; .reason
    │   ├── MessageTooLargeError (OSError, EMSGSIZE)
    │   ├── BusyError           two threads in one direction of one session
    │   ├── DataLostError       a policy or a limit dropped messages; .count says how many
    │   ├── TransferError       a file did not arrive whole; .reason
    │   └── SessionOSError      (OSError) whatever else the system refuses
    ├── ProtocolError
    │   ├── LocalProtocolError  this program broke a rule of the protocol
    │   └── RemoteProtocolError the peer did; its connection is ended, nobody else's
    └── CatalogueError
        ├── ProviderNotFoundError
        └── ProviderBrokenError a plug-in could not be loaded, raised, or lied

Your mistake, the peer's and the network's are three families. Bad arguments stay ValueError and
TypeError. Only the session API translates (``spi/codes.py``), and chains with ``from``.
"""

from __future__ import annotations

import errno as _errno

__all__ = [
    "AdmissionRefusedError",
    "BusyError",
    "CatalogueError",
    "DataLostError",
    "JoinError",
    "JoinPendingError",
    "JoinRefusedError",
    "JoinTimeoutError",
    "JoinleafError",
    "LocalProtocolError",
    "MessageTooLargeError",
    "ProtocolError",
    "ProviderBrokenError",
    "ProviderNotFoundError",
    "RemoteProtocolError",
    "SessionBrokenError",
    "SessionClosedError",
    "SessionError",
    "SessionOSError",
    "SessionTimeoutError",
    "SpiError",
    "TransferError",
]


class JoinleafError(Exception):
    """The root of the tree.

    Attributes:
        hint: One sentence that names the way out, or ``""``. It is part of the text as well.
    """

    hint: str

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(f"{message}. {hint}" if hint and message else message or hint)
        self.hint = hint


class SpiError(JoinleafError):
    """A call at the provider seam was refused; what it would have changed is unchanged.

    Attributes:
        code: The WSAE number, as ``*lpErrno`` would hold it.
        call: Name of the seam's method, ``"join_leaf"`` for instance.
        reason: Why a leg or a session ended (a value of ``EndReason``), or ``""``.
        data: What the peer sent along with a refusal or a leave.
        sent: How many messages of a batch had left, where that cannot be undone.
    """

    def __init__(
        self,
        code: int,
        message: str,
        *,
        call: str = "",
        hint: str = "",
        reason: str = "",
        data: bytes = b"",
        sent: int = 0,
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = int(code)
        self.call = call
        self.reason = reason
        self.data = data
        self.sent = sent


class SessionError(JoinleafError):
    """What the session API raises. Catch this, or the built-in a subclass also is.

    Attributes:
        code: The WSAE number behind it, or 0.
        errno: The closest POSIX number, or None.
        reason: Why a leg or session ended, or ``""``.
        data: What the peer said, or ``b""``.
    """

    default_errno: int | None = None

    def __init__(
        self,
        message: str = "",
        *,
        code: int = 0,
        errno: int | None = None,
        hint: str = "",
        reason: str = "",
        data: bytes = b"",
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = int(code)
        # A plain attribute, although OSError has one: subclasses are both.
        self.errno = self.default_errno if errno is None else errno
        self.reason = reason
        self.data = data


class JoinError(SessionError):
    """The join did not come about; nobody became a member of anything."""


class JoinRefusedError(JoinError, ConnectionRefusedError):
    """The other side said no, or nobody listens there. ``data`` is what it said."""

    default_errno = _errno.ECONNREFUSED


class JoinTimeoutError(JoinError, TimeoutError):
    """Nobody answered in time; the request has been withdrawn."""

    default_errno = _errno.ETIMEDOUT


class JoinPendingError(JoinError, BlockingIOError):
    """A join is already under way on this socket; wait for it or close it."""

    default_errno = _errno.EALREADY


class AdmissionRefusedError(JoinError):
    """The flow specification asked for cannot be met; the text has the numbers."""

    default_errno = _errno.EOPNOTSUPP


class SessionTimeoutError(SessionError, TimeoutError):
    """Not done in the time given. Nothing was sent, or nothing received; try again."""

    default_errno = _errno.ETIMEDOUT


class SessionClosedError(SessionError):
    """The session is over, in an orderly way: closed here, left, dissolved or expelled."""


class SessionBrokenError(SessionError, ConnectionError):
    """The session is over because a peer or the network failed; ``reason`` says how."""

    default_errno = _errno.ECONNRESET


class MessageTooLargeError(SessionError, OSError):
    """The message is longer than this session carries; nothing was sent."""

    default_errno = _errno.EMSGSIZE


class BusyError(SessionError):
    """Another thread is already sending (or receiving) on this session."""

    default_errno = _errno.EBUSY


class DataLostError(SessionError):
    """Messages were dropped by a stated policy, or repair gave up.

    Attributes:
        count: How many messages are missing, at least.
    """

    def __init__(self, message: str = "", *, count: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.count = count


class TransferError(SessionError):
    """A file or folder did not arrive whole; ``reason`` is a word, the text a sentence."""


class SessionOSError(SessionError, OSError):
    """Whatever else the system or the network refuses; see ``errno`` and ``code``."""


class ProtocolError(JoinleafError):
    """A rule of the wire protocol was broken."""


class LocalProtocolError(ProtocolError):
    """By this program: a defect in joinleaf or in a provider."""


class RemoteProtocolError(ProtocolError):
    """By the peer, or by whoever sent these bytes."""


class CatalogueError(JoinleafError):
    """The catalogue of providers cannot serve the request."""


class ProviderNotFoundError(CatalogueError):
    """No provider is registered under that name."""


class ProviderBrokenError(CatalogueError):
    """A provider could not be loaded, raised where it must not, or broke its contract."""
