"""The seam: what a provider offers and what an endpoint does, in Python types.

The session API and the WSP* functions are both clients of this module and know nothing below it.
A provider is found through the catalogue (``spi/catalogue.py``); ``Provider.open`` makes an
endpoint, which is what Winsock calls a socket.

Rules every endpoint keeps:

* A refused call raises ``SpiError`` with a WSAE number and changes nothing.
* Blocking calls take ``timeout`` in seconds: None waits for ever, 0 never waits. They wait in the
  caller's thread and end with WSAEINTR when ``cancel`` or ``close`` is called from another.
* One thread may send and one may receive at a time; a second gets WSAEINPROGRESS.
* Callbacks given to ``subscribe`` run on whichever thread made the thing happen, never under a
  lock of the provider; they must not block, and may call any method that does not.
* Data move in batches: a list of bytes-like messages in, a ``Batch`` out.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

import msgspec

from joinleaf.spi.constants import JL_BOTH, JL_RECEIVER_ONLY, JL_SENDER_ONLY
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.qos import Qos
from joinleaf.values import Address, SessionAddress

if TYPE_CHECKING:
    import ssl

__all__ = [
    "DEFER",
    "Accept",
    "Batch",
    "Buffer",
    "CheckedProvider",
    "Condition",
    "DatagramEndpoint",
    "Defer",
    "EndReason",
    "Endpoint",
    "EndpointEvent",
    "EventCallback",
    "JoinRequest",
    "JoinRole",
    "Joined",
    "Provider",
    "Reject",
    "Roles",
    "SecuredEndpoint",
    "Settings",
    "SlowPolicy",
    "TakenRequest",
    "Trust",
]

Buffer = bytes | bytearray | memoryview
"""One message, going out."""


class JoinRole(enum.IntEnum):
    """The role a member takes: the ``dwFlags`` of WSPJoinLeaf. BOTH is a bit of its own."""

    SENDER_ONLY = JL_SENDER_ONLY
    RECEIVER_ONLY = JL_RECEIVER_ONLY
    BOTH = JL_BOTH

    @property
    def sends(self) -> bool:
        """Whether a member with this role sends session data."""
        return self is not JoinRole.RECEIVER_ONLY

    @property
    def receives(self) -> bool:
        """Whether a member with this role receives session data."""
        return self is not JoinRole.SENDER_ONLY


@dataclass(frozen=True, slots=True)
class Roles:
    """What an endpoint is in each plane (WSA_FLAG_MULTIPOINT_C_ROOT and its companions)."""

    c_root: bool = False
    d_root: bool = False


class EndReason(enum.StrEnum):
    """Why a leg or a session ended. The strings travel on the wire and in JSON."""

    CLOSED = "closed"  # the member left of its own will
    EXPELLED = "expelled"  # the root closed this leg
    DISSOLVED = "dissolved"  # the root ended the session
    SLOW = "slow"  # expelled by the policy for slow leaves
    TIMED_OUT = "timed out"  # nothing heard within the bound
    LOST = "lost"  # the connection broke
    PROTOCOL_ERROR = "protocol error"  # the other side broke the protocol
    WITHDRAWN = "withdrawn"  # a join request taken back before it was answered
    REFUSED = "refused"
    CANCELLED = "cancelled"

    @property
    def orderly(self) -> bool:
        """Whether somebody decided it, rather than something having failed."""
        return self in _ORDERLY


_ORDERLY: Final = frozenset(
    {
        EndReason.CLOSED,
        EndReason.EXPELLED,
        EndReason.DISSOLVED,
        EndReason.WITHDRAWN,
        EndReason.REFUSED,
        EndReason.CANCELLED,
    }
)


class SlowPolicy(enum.StrEnum):
    """What a root does about a leaf that does not keep up."""

    WAIT = "wait"  # the sender waits; nothing is lost
    DROP = "drop"  # that leaf misses messages, and is told how many
    EXPEL = "expel"  # that leaf is expelled


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Certificates, for carriers that encrypt. Paths are of PEM files; ``""``: none.

    Attributes:
        cert: What this end shows, with those that vouch for it.
        key: Its private key; ``""``: it is in the same file.
        ca: Authorities whose certificates are taken. A root that has them asks every leaf for one.
        context: Instead of all three, a context of the user's own.
    """

    cert: str = ""
    key: str = ""
    ca: str = ""
    context: ssl.SSLContext | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.key and not self.cert:
            raise ValueError("key= is the private key of cert=, which is missing")
        if self.context is not None and (self.cert or self.ca):
            raise ValueError("ssl_context= has its own certificates: leave cert=, key=, ca= out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an endpoint is opened with. A provider ignores what has no meaning for it.

    Attributes:
        interface: Name, index or address of the interface for multicast; None: chosen, logged.
        hops: TTL or hop limit of multicast datagrams (SIO_MULTICAST_SCOPE), 0 to 255.
        loopback: Whether this member hears senders of its own host, itself included (receive-side
            meaning); of sessions without a root.
        reuse_address: SO_REUSEADDR before bind.
        slow: Policy for leaves that do not keep up.
        queue_bytes: Most bytes kept for one leaf beyond what the kernel took, before the policy
            acts; at least 65536.
        dead_after: Seconds of silence after which a peer is dead; at least 0.2.
        join_timeout: Seconds a peer has to finish the handshake once connected.
        linger: Longest an orderly close waits for peers to take what was sent, in seconds.
        backlog: Most join requests waiting for an answer.
        max_leaves: Most leaves a root has at a time; None: as many as there are descriptors for.
        max_message: Longest message in bytes, 1 to 1 GiB.
        capacity: Bytes per second that reservations may add up to; None: unlimited.
        name: What this member calls itself towards others; unverified.
        incarnation: Identity of this start of this member; 16 random bytes if empty.
        trust: Certificates, where the carrier encrypts; None: a session key, or the system's
            authorities.
    """

    interface: str | int | None = None
    hops: int = 1
    loopback: bool = True
    reuse_address: bool = False
    slow: SlowPolicy = SlowPolicy.WAIT
    queue_bytes: int = 4 << 20
    dead_after: float = 10.0
    join_timeout: float = 10.0
    linger: float = 5.0
    backlog: int = 1024
    max_leaves: int | None = None
    max_message: int = 64 << 20
    capacity: int | None = None
    name: str = ""
    incarnation: bytes = b""
    trust: Trust | None = None

    def __post_init__(self) -> None:
        for ok, text in (
            (0 <= self.hops <= 255, "hops must be 0 to 255"),
            (self.queue_bytes >= 65536, "queue_bytes must be at least 65536"),
            (self.dead_after >= 0.2, "dead_after must be at least 0.2 seconds"),
            (self.join_timeout > 0, "join_timeout must be above 0 seconds"),
            (self.linger >= 0, "linger must not be negative"),
            (1 <= self.backlog <= 1 << 20, "backlog must be 1 to 1048576"),
            (self.max_leaves is None or self.max_leaves >= 1, "max_leaves must be at least 1"),
            (1 <= self.max_message <= 1 << 30, "max_message must be 1 byte to 1 GiB"),
            (self.capacity is None or self.capacity > 0, "capacity must be above 0 bytes/s"),
            (len(self.name.encode()) <= 255, "name must be at most 255 bytes"),
            (len(self.incarnation) in (0, 16), "incarnation must be 16 bytes"),
        ):
            if not ok:
                raise ValueError(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRequest:
    """What the condition function of ``accept`` is shown (LPCONDITIONPROC).

    Attributes:
        peer: Address of the asker; of the root, where a leaf has been invited.
        local: Address that was asked.
        data: The asker's connect data; ``b""`` if none.
        qos: The asker's flow specifications; None: none supplied, no negotiation possible.
        role: What the asker wants to be.
        name: What the asker calls itself; nothing vouches for it.
        incarnation: Identity of this start of the asker.
        identity: Who the asker is, as far as that has been verified: ``"session key"``, or the
            name in its certificate; ``""`` where nothing has been.
    """

    peer: Address
    local: Address
    data: bytes = b""
    qos: Qos | None = None
    role: JoinRole = JoinRole.BOTH
    name: str = ""
    incarnation: bytes = b""
    identity: str = ""


@dataclass(frozen=True, slots=True)
class Accept:
    """CF_ACCEPT. ``data`` goes back to the asker; ``qos`` replaces what it asked for."""

    data: bytes = b""
    qos: Qos | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """CF_REJECT. The asker gets WSAECONNREFUSED with this data and this sentence."""

    data: bytes = b""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Defer:
    """CF_DEFER. The request stays first in the queue; accept raises WSATRY_AGAIN."""


DEFER: Final = Defer()

Condition = Callable[[JoinRequest], Accept | Reject | Defer]


@dataclass(frozen=True, slots=True)
class TakenRequest:
    """A join request that has been taken up and waits for its answer.

    For whoever cannot decide inside a condition function, because deciding takes awaiting.

    Attributes:
        request: What the condition function would have been shown.
        answer: Answers it, once; never waits. Gives the endpoint that ``accept`` would, and raises
            what ``accept`` would: WSAECONNREFUSED where the answer is a Reject, WSATRY_AGAIN where
            it is DEFER (the request is first in the queue again), WSAECONNRESET or WSAEACCES where
            the asker has gone meanwhile.
    """

    request: JoinRequest
    answer: Callable[[Accept | Reject | Defer], Endpoint]


class Batch(msgspec.Struct):
    """Messages of one sender, in order, as one delivery.

    Attributes:
        messages: Payloads, oldest first; may be empty where only a gap is told.
        sender: Who sent them.
        sequence: Number of the first message among those of this sender, from 0; -1 if the
            carrier does not number.
        time_ns: Wall-clock time of arrival, nanoseconds since 1970.
        gap: How many messages of this sender are known to be missing before the first.
        side: Whether it is side chat on a leg rather than session data.
    """

    messages: list[bytes]
    sender: Address
    sequence: int
    time_ns: int
    gap: int = 0
    side: bool = False


@dataclass(frozen=True, slots=True)
class Joined:
    """The result of WSPJoinLeaf.

    Attributes:
        endpoint: The new leg of a c_root; the very same endpoint of a c_leaf.
        data: The callee's connect data; ``b""`` if none.
        qos: The agreed flow specifications, None if none were stated.
    """

    endpoint: Endpoint
    data: bytes = b""
    qos: Qos | None = None


@dataclass(frozen=True, slots=True)
class EndpointEvent:
    """One indication.

    Attributes:
        kind: One FD_* bit.
        code: 0 or the WSAE number that goes with it.
        reason: With FD_CLOSE, why.
        data: With FD_CLOSE, what the other side sent along (disconnect data).
    """

    kind: int
    code: int = 0
    reason: EndReason | None = None
    data: bytes = b""


EventCallback = Callable[["Endpoint", EndpointEvent], None]


@runtime_checkable
class Endpoint(Protocol):
    """One multipoint socket. See the module's rules; numbers are WSAE numbers."""

    @property
    def info(self) -> ProtocolInfo:
        """The catalogue entry it was made from."""
        ...

    @property
    def roles(self) -> Roles:
        """Its role in each plane."""
        ...

    @property
    def qos(self) -> Qos | None:
        """The agreed flow specifications (SIO_GET_QOS); None while none are stated."""
        ...

    @property
    def local_address(self) -> Address:
        """WSPGetSockName. Raises WSAEINVAL while unbound."""
        ...

    @property
    def peer_address(self) -> Address:
        """WSPGetPeerName. Raises WSAENOTCONN where there is no single peer."""
        ...

    @property
    def session_id(self) -> bytes:
        """Random identity of the session, equal at all members; ``b""`` where none is known."""
        ...

    def bind(self, address: Address) -> None:
        """WSPBind. WSAEADDRINUSE, WSAEADDRNOTAVAIL, WSAEFAULT (family), WSAEINVAL (bound)."""
        ...

    def listen(self, backlog: int | None = None) -> None:
        """WSPListen; None takes the settings' backlog. WSAEINVAL, WSAEISCONN, WSAEOPNOTSUPP."""
        ...

    def accept(
        self, condition: Condition | None = None, *, timeout: float | None = None
    ) -> Endpoint:
        """WSPAccept: answer the first waiting join request; the condition runs on this thread.

        Returns:
            A c_leaf endpoint: the root's side of the leg, or the member of an invited leaf.

        Raises:
            SpiError: WSAECONNREFUSED (rejected by the condition), WSATRY_AGAIN (deferred),
                WSAECONNRESET or WSAEACCES (the asker is gone), WSAEWOULDBLOCK (timeout 0 and
                nothing waits), WSAETIMEDOUT, WSAEINTR, WSAEINVAL (not listening).
        """
        ...

    def take_request(self, *, timeout: float | None = None) -> TakenRequest:
        """The first half of ``accept``: take the first waiting join request up for an answer.

        Several may be taken before the first is answered. Those that are never answered are
        refused when this endpoint closes.

        Raises:
            SpiError: WSAECONNRESET or WSAEACCES (the asker is gone already), WSAEWOULDBLOCK
                (timeout 0 and nothing waits), WSAETIMEDOUT, WSAEINTR, WSAEINVAL, WSAEOPNOTSUPP.
        """
        ...

    def join_leaf(
        self,
        address: Address,
        *,
        caller_data: bytes = b"",
        qos: Qos | None = None,
        role: JoinRole = JoinRole.BOTH,
        timeout: float | None = None,
    ) -> Joined:
        """WSPJoinLeaf on a blocking socket: wait for the outcome.

        Raises:
            SpiError: One of the sixteen codes of the page, or WSAEINVAL; see clauses 33 to 62.
        """
        ...

    def start_join_leaf(
        self,
        address: Address,
        *,
        caller_data: bytes = b"",
        qos: Qos | None = None,
        role: JoinRole = JoinRole.BOTH,
        timeout: float | None = None,
    ) -> Endpoint:
        """WSPJoinLeaf on a nonblocking socket: start, and report by FD_CONNECT on *this* endpoint.

        ``timeout`` bounds the attempt (WSAETIMEDOUT as the code of FD_CONNECT). Returns the new
        leg of a c_root (closing it cancels), or this endpoint itself. Local errors are raised.
        """
        ...

    def join_result(self) -> Joined:
        """Outcome of the last started join; raises its SpiError, or WSAEALREADY while pending."""
        ...

    def send_many(
        self,
        messages: Sequence[Buffer],
        *,
        timeout: float | None = None,
        to: Collection[Endpoint] | None = None,
    ) -> None:
        """WSPSend: one batch to whoever hears this endpoint; on a leg, side chat to its leaf.

        All or nothing: on an error, WSAETIMEDOUT included, no member gets any of it.

        Args:
            messages: Each at most ``max_message`` bytes long (WSAEMSGSIZE).
            timeout: Seconds to wait for room.
            to: On a c_root that is the d_root: only these legs, as session data.

        Raises:
            SpiError: WSAENOTCONN (nobody to send to), WSAEOPNOTSUPP (against the role),
                WSAEMSGSIZE, WSAETIMEDOUT or WSAEWOULDBLOCK, WSAESHUTDOWN, WSAECONNRESET,
                WSAECONNABORTED, WSAEDISCON, WSAEINTR, WSAEINPROGRESS.
        """
        ...

    def receive_many(self, *, timeout: float | None = None) -> Batch:
        """WSPRecv: what has arrived, oldest first, one sender's messages at a time.

        Raises:
            SpiError: WSAEDISCON (orderly end, after all data; reason and data say why),
                WSAECONNRESET, WSAECONNABORTED (broken), WSAETIMEDOUT or WSAEWOULDBLOCK,
                WSAENOTCONN, WSAEOPNOTSUPP (against the role), WSAESHUTDOWN, WSAEINTR,
                WSAEINPROGRESS.
        """
        ...

    def shutdown(self, how: int, *, data: bytes = b"") -> None:
        """WSPShutdown and WSPSendDisconnect: SD_RECEIVE, SD_SEND or SD_BOTH; never waits.

        On a c_root the last two dissolve the session.
        """
        ...

    def close(
        self,
        *,
        data: bytes = b"",
        abort: bool = False,
        linger: float | None = None,
        reason: EndReason | None = None,
    ) -> None:
        """WSPCloseSocket. Never raises for what a peer or the network does.

        Twice is allowed; with ``abort`` the second ends at once what the first has left to be
        finished in the background.

        Args:
            data: Disconnect data for the peers, at most 64 KiB.
            abort: Peers see WSAECONNRESET, and what is still queued is dropped.
            linger: Longest wait for peers to take what was sent; None: as set.
            reason: What peers are told; None: the usual one (closed, expelled, dissolved).
        """
        ...

    def cancel(self) -> None:
        """WSPCancelBlockingCall for every call blocked on this endpoint: they raise WSAEINTR."""
        ...

    def ioctl(self, code: int, value: Any = None) -> Any:
        """WSPIoctl; WSAEINVAL for an unknown or inapplicable code.

        SIO_MULTIPOINT_LOOPBACK (bool), SIO_MULTICAST_SCOPE (int), SIO_SET_QOS (Qos), SIO_GET_QOS,
        FIONREAD (int), ...
        """
        ...

    def get_option(self, option: int) -> Any:
        """WSPGetSockOpt at SOL_SOCKET. WSAENOPROTOOPT for an unknown option."""
        ...

    def set_option(self, option: int, value: Any) -> None:
        """WSPSetSockOpt at SOL_SOCKET. WSAENOPROTOOPT, WSAEINVAL."""
        ...

    def subscribe(self, callback: EventCallback | None) -> None:
        """Have every indication reported; None stops it. Legs made afterwards inherit it.

        Conditions already true (a waiting request, an ended leg) are indicated at once.
        """
        ...

    def fileno(self) -> int:
        """A descriptor that is readable whenever something can be received; -1 once closed."""
        ...

    def statistics(self) -> Mapping[str, int]:
        """Counters and gauges by name: messages_sent, bytes_queued, joins_refused, ..."""
        ...


@runtime_checkable
class DatagramEndpoint(Protocol):
    """What a connectionless endpoint may offer beside ``Endpoint``: datagrams outside a session."""

    def open_to_all(self) -> None:
        """Receive whatever is sent to the own address, joined or not: an ordinary socket does."""
        ...

    def send_to(
        self, address: Address, messages: Sequence[Buffer], *, timeout: float | None = None
    ) -> None:
        """WSPSendTo past the session: WSAEAFNOSUPPORT, WSAEADDRNOTAVAIL, else as a send."""
        ...


@runtime_checkable
class SecuredEndpoint(Protocol):
    """What an endpoint of a carrier that encrypts offers beside ``Endpoint``."""

    @property
    def session_key(self) -> str:
        """Text of the key that whoever connects here must have; ``""`` if none is asked for."""
        ...

    @property
    def peer_identity(self) -> str:
        """Who the one peer is, as far as verified; ``""`` if it is not, or there is none."""
        ...

    @property
    def asks_proof(self) -> bool:
        """Whether whoever connects here has to have the session key, or a certificate."""
        ...


@runtime_checkable
class CheckedProvider(Protocol):
    """A provider that can say beforehand that its network is not there (WSAENETDOWN)."""

    def check_up(self) -> None:
        """Raise WSAENETDOWN if it is not: step 1 of the model's section 5.6."""
        ...


class Provider(Protocol):
    """What an entry point of the group ``joinleaf.providers`` yields, once called."""

    scheme: str
    """The part of a session address before ``://``; lower case."""

    def protocols(self) -> Sequence[ProtocolInfo]:
        """Its catalogue entries, best first."""
        ...

    def select(self, address: SessionAddress) -> ProtocolInfo:
        """The entry that serves this address. Raises ValueError for options it does not know."""
        ...

    def open(
        self,
        info: ProtocolInfo,
        roles: Roles,
        settings: Settings = ...,
        *,
        address: SessionAddress | None = None,
    ) -> Endpoint:
        """WSPSocket. ``address`` carries options of the session address (a source, say).

        Raises:
            SpiError: WSAEINVAL for roles that the entry does not offer (section 2.1 of the
                model), WSAEMFILE, WSAENOBUFS.
        """
        ...


@dataclass(slots=True)
class Counters:
    """Named counters, for providers to keep; a plain dict with a bounded set of names."""

    values: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, amount: int = 1) -> None:
        """Add to one counter."""
        self.values[name] = self.values.get(name, 0) + amount
