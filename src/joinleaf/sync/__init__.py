"""The session API for threads and scripts: ``join``, ``open_root``, ``listen``.

Everything here is a client of the provider seam; which carrier serves a session is in its address.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from joinleaf.errors import SpiError
from joinleaf.members import Leaves
from joinleaf.messages import both_directions
from joinleaf.opening import (
    PathName,
    RoleName,
    entry_for,
    may_enter,
    open_endpoint,
    own_name,
    role_of,
    trust_of,
    warn_if_closed,
)
from joinleaf.spi import constants as c
from joinleaf.spi.codes import session_error
from joinleaf.spi.provider import JoinRole, Roles, Settings, SlowPolicy
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.sync._leaf import Leaf, Listener
from joinleaf.sync._root import Admit, Root, RootLeaf
from joinleaf.sync._session import Session
from joinleaf.values import Address, SessionAddress

if TYPE_CHECKING:
    import ssl

__all__ = [
    "Admit",
    "Leaf",
    "Leaves",
    "Listener",
    "Root",
    "RootLeaf",
    "Session",
    "join",
    "listen",
    "open_root",
]


def join(
    address: str | SessionAddress,
    *,
    data: bytes = b"",
    qos: FlowSpec | Qos | None = None,
    role: RoleName = "both",
    timeout: float | None = 30.0,
    interface: str | int | None = None,
    hops: int = 1,
    loopback: bool = True,
    local: str | Address | None = None,
    name: str | None = None,
    dead_after: float = 10.0,
    linger: float = 5.0,
    max_message: int = 64 << 20,
    cert: PathName | None = None,
    key: PathName | None = None,
    ca: PathName | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> Leaf:
    """Join a session.

    Args:
        address: ``jl://host:port``; ``jls://host:port/#key``, the root's join line;
            ``udp://group:port`` and ``ssm://source@group:port``, with ``#key`` sealed (and
            ``?fresh=seconds`` before it, if clocks differ by more than a minute); ``mem://name``;
            or what a plug-in serves. With ``?data=leg`` a leaf takes everything over its own
            connection, though the root has a multicast stream.
        data: Connect data for the root, at most 64 KiB; not on plain multicast.
        qos: Flow specifications; one FlowSpec stands for every direction the role has.
        role: ``"sender"`` does not receive session data, ``"receiver"`` does not send.
        timeout: Seconds to wait for the answer; None for ever.
        interface: Name, index or address of the interface, for multicast, a root's stream
            included; None: chosen, and logged with the reason.
        hops: TTL or hop limit of what ``udp://`` and ``ssm://`` send, 0 to 255; 1 stays on the
            segment.
        loopback: Whether to hear senders on this host, oneself included (``udp://``, ``ssm://``).
        local: ``host:port`` to bind instead of what the system chooses.
        name: What to call oneself towards the root; None: host name and process.
        dead_after: Seconds of silence after which the root is dead; at least 0.2.
        linger: Longest wait of ``close`` for the other side, in seconds.
        max_message: Longest message in bytes.
        cert: File (PEM) with the certificate to show, for ``jls://``; None: none, which will do
            unless the root asks for one.
        key: File with its private key; None: it is in the same file.
        ca: File with the authority whose certificates are taken; None: the system's
            authorities, or what the ``#key`` of the address names.
        ssl_context: Instead of all three; with TLS 1.3 and certificates of its own.

    Raises:
        ValueError: The address or an argument is wrong; nothing has happened.
        JoinRefusedError: The root said no (``data`` is what it said), or nobody listens there.
        JoinTimeoutError: No answer in time.
        AdmissionRefusedError: The flow specifications cannot be met.
        SessionOSError: Unreachable, no such interface, ...; ``errno`` says which.
        ProviderNotFoundError: Nobody serves that scheme.
    """
    where = SessionAddress.parse(address)
    member_role = role_of(role)
    settings = Settings(
        interface=interface,
        hops=hops,
        loopback=loopback,
        name=own_name(name),
        dead_after=dead_after,
        linger=linger,
        max_message=max_message,
        trust=trust_of(cert, key, ca, ssl_context),
    )
    provider, info = entry_for(where)
    d_root = info.data_plane_rooted and not info.control_plane_rooted
    roles = Roles(d_root=d_root and member_role is JoinRole.SENDER_ONLY)
    endpoint = open_endpoint(provider, info, roles, settings, where)
    try:
        if local is not None:
            endpoint.bind(Address.parse(local) if isinstance(local, str) else local)
        joined = endpoint.join_leaf(
            where.address,
            caller_data=bytes(data),
            qos=both_directions(qos, member_role),
            role=member_role,
            timeout=timeout,
        )
    except SpiError as error:
        endpoint.close(linger=0)
        raise session_error(error, joining=True) from error
    except BaseException:
        endpoint.close(linger=0)
        raise
    return Leaf(endpoint, where, welcome=joined.data, role=member_role)


def open_root(
    address: str | SessionAddress,
    *,
    admit: Admit | None = None,
    open: bool | None = None,  # noqa: A002  # the word users expect; shadows nothing used here
    qos: FlowSpec | Qos | None = None,
    capacity: int | None = None,
    slow: Literal["wait", "drop", "expel"] = "wait",
    role: RoleName = "both",
    queue_bytes: int = 4 << 20,
    backlog: int = 1024,
    max_leaves: int | None = None,
    dead_after: float = 10.0,
    join_timeout: float = 10.0,
    linger: float = 5.0,
    max_message: int = 64 << 20,
    interface: str | int | None = None,
    hops: int = 1,
    name: str | None = None,
    cert: PathName | None = None,
    key: PathName | None = None,
    ca: PathName | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> Root:
    """Open a session as its root, and let leaves in.

    Args:
        address: ``jl://host:port``, encrypted ``jls://host:port``, or ``mem://name``;
            ``jl://0.0.0.0:port`` serves every IPv4 interface, ``jl://:port`` every interface,
            port 0 a free one (see ``Root.address``). With ``?data=group:port`` what is for all
            leaves goes once, by one reliable multicast stream, from the interface of that host
            address; who does not hear it is served by its connection. With ``?plane=nonrooted``
            every member hears every other. Both: ``?plane=nonrooted&data=group:port``.
        admit: Decides about each join request; called on a thread of its own, one request at a
            time. Return ``request.accept(...)``, ``request.reject(...)`` or ``request.defer()``.
        open: True admits everybody, False nobody; None: everybody where the root listens on
            loopback only, else whoever has shown the key or a certificate of ``jls://``.
        qos: The session's flow specifications; sending is shaped to them. ``set_qos`` changes
            them later.
        capacity: Bytes per second that GUARANTEED and CONTROLLEDLOAD flows may add up to.
        slow: What happens to a leaf that does not keep up. ``"wait"``: sending waits for it,
            nothing is lost. ``"drop"``: it misses messages and is told how many. ``"expel"``.
        role: ``"sender"``: leaves cannot send to the root.
        queue_bytes: Most bytes kept for one leaf before the policy acts; at least 65536.
        backlog: Most join requests waiting for an answer.
        max_leaves: Most leaves at a time, of ``jl://`` and ``jls://`` sessions; who comes then is
            refused with that. None: no such bound.
        dead_after: Seconds of silence after which a leaf is dead; at least 0.2.
        join_timeout: Seconds a connection has to say what it wants.
        linger: Longest wait of ``close`` for leaves to take what was sent, in seconds.
        max_message: Longest message in bytes.
        interface: Name, index or address of the interface that the stream of ``?data=`` leaves
            by; None: that of the host address, or chosen, which the log tells.
        hops: TTL or hop limit of that stream, 0 to 255; 1 stays on the segment.
        name: What to call oneself.
        cert: File (PEM) with the certificate to show, for ``jls://``; None: one made for this
            session, and a key that joiners must have (see ``Root.join_line``).
        key: File with its private key; None: it is in the same file.
        ca: File with the authority whose certificates are taken; every leaf must then
            have one of them. None: leaves need none.
        ssl_context: Instead of all three; with TLS 1.3 and certificates of its own.

    Raises:
        ValueError: The address or an argument is wrong, or that carrier has no root.
        SessionOSError: The address cannot be bound, the group of ``?data=`` not be sent to, or
            the certificate not be read; ``errno`` says why.
        ProviderNotFoundError: Nobody serves that scheme.
    """
    where = SessionAddress.parse(address)
    own_role = role_of(role)
    settings = Settings(
        slow=SlowPolicy(slow),
        queue_bytes=queue_bytes,
        backlog=backlog,
        max_leaves=max_leaves,
        dead_after=dead_after,
        join_timeout=join_timeout,
        linger=linger,
        max_message=max_message,
        interface=interface,
        hops=hops,
        capacity=capacity,
        name=own_name(name),
        trust=trust_of(cert, key, ca, ssl_context),
    )
    provider, info = entry_for(where)
    if not info.control_plane_rooted:
        raise ValueError(
            f"{where.scheme}:// sessions have no root: every member joins them, "
            f"joinleaf.join({str(where)!r})"
        )
    roles = Roles(c_root=True, d_root=info.data_plane_rooted)
    endpoint = open_endpoint(provider, info, roles, settings, where)
    try:
        endpoint.bind(where.address)
        if qos is not None:
            endpoint.ioctl(c.SIO_SET_QOS, both_directions(qos, own_role))
        endpoint.listen()
    except SpiError as error:
        endpoint.close(linger=0)
        raise session_error(error) from error
    if admit is None and open is None and not may_enter(endpoint, where, None):
        warn_if_closed(where)
    return Root(endpoint, where, admit=admit, open_to_all=open)


def listen(
    address: str | SessionAddress,
    *,
    admit: Admit | None = None,
    name: str | None = None,
    dead_after: float = 10.0,
    linger: float = 5.0,
    max_message: int = 64 << 20,
    cert: PathName | None = None,
    key: PathName | None = None,
    ca: PathName | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> Listener:
    """Wait for invitations of roots (``Root.invite``).

    Args:
        address: ``jl://host:port``, ``jls://host:port`` or ``mem://name`` to be reached at.
        admit: Decides about each invitation; None accepts all.
        name: What to call oneself towards the root.
        dead_after: Seconds of silence after which a root is dead.
        linger: Longest wait of ``close`` for the other side, in seconds.
        max_message: Longest message in bytes.
        cert: File (PEM) with the certificate to show, for ``jls://``; None: one made for this
            session, and a key that roots must have (see ``Listener.join_line``).
        key: File with its private key; None: it is in the same file.
        ca: File with the authority whose certificates are taken; every root must then
            have one of them. None: roots need none.
        ssl_context: Instead of all three; with TLS 1.3 and certificates of its own.

    Raises:
        ValueError: The address is wrong, or its sessions have no root that could invite.
        SessionOSError: The address cannot be bound.
    """
    where = SessionAddress.parse(address)
    settings = Settings(
        name=own_name(name),
        dead_after=dead_after,
        linger=linger,
        max_message=max_message,
        trust=trust_of(cert, key, ca, ssl_context),
    )
    provider, info = entry_for(where)
    if not info.control_plane_rooted:
        raise ValueError(f"{where.scheme}:// sessions have no root that could invite")
    endpoint = open_endpoint(provider, info, Roles(), settings, where)
    try:
        endpoint.bind(where.address)
        endpoint.listen()
    except SpiError as error:
        endpoint.close(linger=0)
        raise session_error(error) from error
    return Listener(endpoint, where, admit)
