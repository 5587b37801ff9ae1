"""The endpoint of IP multicast sessions: a socket, a membership, and datagrams as they are.

Decisions where the texts are silent, and limits:

* A member that receives and is not bound binds to the session's port, shared with others of this
  host (model, A-24: the specification's "unique values" leave a receiver deaf on most systems); a
  sender only, or with ``unique_port`` everybody, gets a port of its own.
* A batch is one datagram after another; what has left cannot be recalled. Messages too long are
  found before the first leaves; on a time-out the error says how many have left.
* A member whose interface goes away keeps its session: see ``ip_membership``.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NoReturn

from joinleaf.core.leaf_nonrooted import NonrootedInput
from joinleaf.drivers import multicast
from joinleaf.drivers.attachment import Attachment
from joinleaf.drivers.datagrams import DatagramReader
from joinleaf.drivers.interfaces import IpAddress, OwnAddresses, find_interface
from joinleaf.drivers.sending import DatagramWriter
from joinleaf.drivers.waiting import Waiter
from joinleaf.errors import SpiError
from joinleaf.providers import ip_options
from joinleaf.providers.ip_binding import Binding, as_ip
from joinleaf.providers.ip_checks import check_join
from joinleaf.providers.ip_incoming import Incoming
from joinleaf.providers.ip_indications import Indications
from joinleaf.providers.ip_membership import Membership
from joinleaf.providers.ip_sealing import Sealing
from joinleaf.spi import constants as c
from joinleaf.spi.codes import (
    WSAEADDRNOTAVAIL,
    WSAEAFNOSUPPORT,
    WSAEFAULT,
    WSAEINPROGRESS,
    WSAEINVAL,
    WSAEMSGSIZE,
    WSAENETDOWN,
    WSAENETUNREACH,
    WSAENOPROTOOPT,
    WSAENOTCONN,
    WSAENOTSOCK,
    WSAEOPNOTSUPP,
    WSAESHUTDOWN,
    WSAEWOULDBLOCK,
    spi_error_from_os,
)
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.provider import (
    Batch,
    Buffer,
    Condition,
    Endpoint,
    EndReason,
    EventCallback,
    Joined,
    JoinRole,
    Roles,
    Settings,
)
from joinleaf.spi.qos import Qos
from joinleaf.values import Address

__all__ = ["IpMulticastEndpoint"]

_log = logging.getLogger("joinleaf")

_I = NonrootedInput

_CLOSE_GRACE: Final = 1.0  # seconds that close leaves to other threads to get out of the socket

# Outcomes of step 20 of a join (model, section 5.6): a started join reports them by FD_CONNECT.
_NETWORK_OUTCOMES: Final = frozenset({WSAENETDOWN, WSAENETUNREACH})


class IpMulticastEndpoint:
    """A c_leaf and d_leaf of a session that always exists. See ``Endpoint`` for every contract.

    Locks: that of ``_membership`` guards the binding too, and is never held while waiting or
    calling out; ``_sending`` and that of ``_incoming`` admit one thread to each direction.
    """

    def __init__(
        self,
        info: ProtocolInfo,
        roles: Roles,
        settings: Settings,
        *,
        unique_port: bool = False,
        sealing: Sealing | None = None,
    ) -> None:
        self._info = info if sealing is None else sealing.entry(info)
        self._sealing = sealing
        self._roles = roles
        self._settings = settings
        self._version = 4 if info.address_family == c.AF_INET else 6
        try:
            self._sock = multicast.open_socket(self._version)
        except OSError as error:
            raise spi_error_from_os(error, call="open", message=f"opening {info.name}") from error
        multicast.size_receive_buffer(self._sock)
        multicast.set_hops(self._sock, settings.hops, self._version)
        if settings.reuse_address:
            multicast.share_port(self._sock)

        self._sending = threading.Lock()
        self._waiter = Waiter()
        self._own = OwnAddresses()
        self._membership = Membership(settings.dead_after, self._redirect)
        self._machine = self._membership.machine
        self._reader = DatagramReader(
            self._sock, self._wants, None if sealing is None else sealing.open_run
        )
        self._incoming = Incoming(self._sock, self._reader, self._waiter, self._membership)
        self._writer = DatagramWriter(self._sock, self._waiter, self._membership.revive)
        self._loopback = settings.loopback
        self._binding = Binding(self._sock, self._version, unique_port=unique_port)
        self._role = JoinRole.BOTH
        self._qos: Qos | None = None
        self._shut = {c.SD_SEND: False, c.SD_RECEIVE: False}
        self._outcome: Joined | SpiError | None = None
        self._last_error = 0
        self._indications = Indications(self, self._sock)
        self._is_open_to_all = False
        self._counts = dict.fromkeys(
            ("messages_sent", "bytes_sent", "messages_received", "bytes_received"), 0
        )

    # ---- what it is

    @property
    def info(self) -> ProtocolInfo:
        """The catalogue entry it was made from."""
        return self._info

    @property
    def roles(self) -> Roles:
        """Its role in each plane."""
        return self._roles

    @property
    def qos(self) -> Qos | None:
        """What the join stated: nothing, or specifications that ask for nothing."""
        return self._qos

    @property
    def local_address(self) -> Address:
        """WSPGetSockName. Raises WSAEINVAL while unbound."""
        self._check_open("local_address")
        return self._binding.address()

    @property
    def peer_address(self) -> Address:
        """WSPGetPeerName: the session's address, while a member (model, section 5.17)."""
        self._check_open("peer_address")
        session = self._membership.session
        if not self._machine.is_member or session is None:
            raise SpiError(WSAENOTCONN, "not in a session", call="peer_address")
        return session

    @property
    def session_id(self) -> bytes:
        """Empty: a group has no identity but its address."""
        return b""

    def statistics(self) -> Mapping[str, int]:
        """Counters: messages and bytes sent and received, drops by reason, memberships."""
        refused = {} if self._sealing is None else self._sealing.statistics()
        return {
            **self._counts,
            "memberships_lost": self._membership.lost,
            "memberships_renewed": self._membership.renewed,
            "messages_filtered": self._reader.dropped,
            **refused,
        }

    # ---- control plane

    def bind(self, address: Address) -> None:
        """WSPBind. The host may be any, or one of this host's addresses."""
        self._check_open("bind")
        with self._membership.lock:
            self._binding.bind(address)
        self._watch_for_data()

    def listen(self, backlog: int | None = None) -> None:
        """WSPListen: always refused, nobody asks to join a group."""
        raise SpiError(
            WSAEOPNOTSUPP,
            "nobody asks to join an IP multicast session, so there is nothing to listen for",
            call="listen",
            hint="Just join it; use jl:// for sessions that admit their members",
        )

    def accept(
        self, condition: Condition | None = None, *, timeout: float | None = None
    ) -> NoReturn:
        """WSPAccept: always refused, as ``listen``."""
        raise SpiError(WSAEOPNOTSUPP, "nothing to accept in IP multicast", call="accept")

    def take_request(self, *, timeout: float | None = None) -> NoReturn:
        """The first half of WSPAccept: always refused."""
        self.accept()

    def join_leaf(
        self,
        address: Address,
        *,
        caller_data: bytes = b"",
        qos: Qos | None = None,
        role: JoinRole = JoinRole.BOTH,
        timeout: float | None = None,
    ) -> Joined:
        """WSPJoinLeaf. The system answers at once, so ``timeout`` never matters."""
        self._join(address, caller_data, qos, role, started=False)
        return self.join_result()

    def start_join_leaf(
        self,
        address: Address,
        *,
        caller_data: bytes = b"",
        qos: Qos | None = None,
        role: JoinRole = JoinRole.BOTH,
        timeout: float | None = None,
    ) -> Endpoint:
        """WSPJoinLeaf on a nonblocking socket: FD_CONNECT is indicated before it returns."""
        self._join(address, caller_data, qos, role, started=True)
        return self

    def join_result(self) -> Joined:
        """Outcome of the last join. WSAENOTCONN while there was none."""
        outcome = self._outcome
        if outcome is None:
            raise SpiError(WSAENOTCONN, "no join has been started", call="join_result")
        if isinstance(outcome, SpiError):
            raise outcome
        return outcome

    def shutdown(self, how: int, *, data: bytes = b"") -> None:
        """WSPShutdown: local, and no leave (model, section 5.8). Data are refused (10042)."""
        self._check_open("shutdown")
        if how not in (c.SD_RECEIVE, c.SD_SEND, c.SD_BOTH):
            raise SpiError(WSAEINVAL, f"{how} is no direction", call="shutdown")
        if data:
            raise SpiError(WSAENOPROTOOPT, "no data travel with a leave here", call="shutdown")
        if not self._machine.is_member:
            raise SpiError(WSAENOTCONN, "not in a session", call="shutdown")
        for direction in self._shut:
            self._shut[direction] |= how in (direction, c.SD_BOTH)
        self._waiter.interrupt()

    def close(
        self,
        *,
        data: bytes = b"",
        abort: bool = False,
        linger: float | None = None,
        reason: EndReason | None = None,
    ) -> None:
        """WSPCloseSocket: leave. Nobody is told, so the arguments have nobody to go to."""
        if self._membership.close():
            self._waiter.close()
            self._indications.close()
            # Whoever is inside a system call gets out first, lest the number be reused under it.
            with _held(self._sending), _held(self._incoming.lock):
                self._incoming.close()
                self._sock.close()

    def cancel(self) -> None:
        """WSPCancelBlockingCall: sends and receives that wait raise WSAEINTR."""
        self._waiter.interrupt()

    # ---- data plane

    def send_many(
        self,
        messages: Sequence[Buffer],
        *,
        timeout: float | None = None,
        to: Collection[Endpoint] | None = None,
    ) -> None:
        """WSPSend: a datagram for each message, to the session.

        Raises:
            SpiError: WSAENOTCONN (no member, or a receiver only: model, section 10.2),
                WSAEMSGSIZE (nothing is sent), WSAEOPNOTSUPP (``to``, or against the role),
                WSAETIMEDOUT or WSAEWOULDBLOCK (the text says how many have left), WSAENETDOWN,
                WSAENETUNREACH, WSAEADDRNOTAVAIL (the interface), WSAESHUTDOWN, WSAEINTR,
                WSAEINPROGRESS.
        """
        mark = self._waiter.mark()
        self._check_may_send(to)
        self._check_sizes(messages)
        if not self._sending.acquire(blocking=False):
            raise _busy("send")
        try:
            self._write(self._writer, messages, timeout, mark)
        finally:
            self._sending.release()

    def open_to_all(self) -> None:
        """Receive whatever is sent to the own address, joined or not: an ordinary socket does."""
        self._is_open_to_all = True

    def send_to(
        self, address: Address, messages: Sequence[Buffer], *, timeout: float | None = None
    ) -> None:
        """WSPSendTo: a datagram for each message, to one address; a member or not, of any role.

        Raises:
            SpiError: WSAEAFNOSUPPORT, WSAEADDRNOTAVAIL (port 0), else as ``send_many``.
        """
        mark = self._waiter.mark()
        self._check_open("send_to")
        ip = address.ip
        if ip is None or ip.version != self._version:
            raise SpiError(WSAEAFNOSUPPORT, f"{address} is no IPv{self._version} address")
        if not address.port:
            raise SpiError(WSAEADDRNOTAVAIL, "nothing can be sent to port 0", call="send_to")
        if self._shut[c.SD_SEND]:
            raise SpiError(WSAESHUTDOWN, "sending has been shut down", call="send_to")
        self._check_sizes(messages)
        with self._membership.lock:
            if not self._binding.bound:
                self._binding.bind(Address(""))
        if not self._sending.acquire(blocking=False):
            raise _busy("send_to")
        try:
            writer = DatagramWriter(self._sock, self._waiter, lambda: False)
            scope = find_interface(address.scope).index if address.scope else 0
            writer.destination = multicast.sockaddr(ip, address.port, scope)
            self._write(writer, messages, timeout, mark)
        finally:
            self._sending.release()

    def receive_many(self, *, timeout: float | None = None) -> Batch:
        """WSPRecv: datagrams that have arrived, of one sender, oldest first.

        Raises:
            SpiError: WSAENOTCONN, WSAETIMEDOUT, WSAEWOULDBLOCK, WSAESHUTDOWN, WSAEINTR,
                WSAEINPROGRESS; WSAENETDOWN, WSAENETUNREACH or WSAEADDRNOTAVAIL: the interface has
                been unusable for ``dead_after`` seconds; call again, it may come back.
        """
        mark = self._waiter.mark()
        self._check_may_receive()
        if not self._incoming.lock.acquire(blocking=False):
            raise _busy("receive")
        try:
            batch = self._incoming.next_batch(timeout, mark)
            self._counts["messages_received"] += len(batch.messages)
            self._counts["bytes_received"] += sum(map(len, batch.messages))
        finally:
            self._incoming.tell_readiness()
            self._incoming.lock.release()
            # Who blocks needs no event, and would pay for one with a wake-up of another thread.
            if timeout is not None and timeout <= 0:
                self._watch_for_data()
        return batch

    # ---- controls and options

    def ioctl(self, code: int, value: Any = None) -> Any:
        """WSPIoctl. Loopback and scope are kept here; see ``ip_options.query`` for the rest."""
        self._check_open("ioctl")
        if code == c.SIO_MULTIPOINT_LOOPBACK:
            if not isinstance(value, int):
                raise SpiError(WSAEFAULT, "a boolean is needed", call="ioctl")
            self._loopback = bool(value)
            return None
        if code == c.SIO_MULTICAST_SCOPE:
            if not isinstance(value, int) or not 0 <= value <= 255:
                raise SpiError(WSAEINVAL, f"a scope is 0 to 255, not {value!r}", call="ioctl")
            multicast.set_hops(self._sock, value, self._version)
            return None
        if code == c.SIO_QUERY_TARGET_PNP_HANDLE:
            return self._sock.fileno()
        if code == c.FIONREAD:
            return self._incoming.bytes_waiting(self._can_hear)
        return ip_options.query(code, value, self._version)

    def get_option(self, option: int) -> Any:
        """WSPGetSockOpt at SOL_SOCKET."""
        self._check_open("get_option")
        if option == c.SO_MAX_MSG_SIZE:
            return self._info.message_size
        if option == c.SO_PROTOCOL_INFOW:
            return self._info
        if option == c.SO_ERROR and self._last_error:
            code, self._last_error = self._last_error, 0
            return code
        return ip_options.get_option(self._sock, option)

    def set_option(self, option: int, value: Any) -> None:
        """WSPSetSockOpt at SOL_SOCKET."""
        self._check_open("set_option")
        if option == c.SO_REUSEADDR and value and not self._binding.bound:
            multicast.share_port(self._sock)
            return
        ip_options.set_option(self._sock, option, value)

    def fileno(self) -> int:
        """A descriptor that is readable while something can be received; -1 once closed."""
        with self._membership.lock:
            return -1 if self._membership.is_closed else self._incoming.fileno()

    def subscribe(self, callback: EventCallback | None) -> None:
        """Indicate FD_CONNECT of started joins, FD_READ and FD_WRITE; never FD_CLOSE.

        FD_READ comes from the background thread, once, and again after a receive that did not wait
        (``timeout=0``). FD_WRITE comes after a join, and after WSAEWOULDBLOCK once there is room.
        """
        self._indications.subscribe(callback)
        if self._machine.is_member:
            if self._may_send():
                self._indications.write()
            self._watch_for_data()

    # ---- what a source-specific session does otherwise

    def _listens(self, role: JoinRole) -> bool:
        """Whether a member with this role has a membership."""
        return role is not JoinRole.SENDER_ONLY

    def _may_send(self) -> bool:
        """Whether the present role has a default destination."""
        return self._role.sends

    def _refuse_sending(self) -> SpiError:
        """What a send is answered with while ``_may_send`` is False."""
        return SpiError(
            WSAENOTCONN,
            "a receiver only has no destination",
            call="send",
            hint="Join as sender, or as both, to send",
        )

    def _check_role(self, role: JoinRole) -> None:
        """Raise for a role that this endpoint cannot take; all are fine here."""

    def _source(self) -> IpAddress | None:
        """The only sender to hear."""
        return None

    def _send_address(self) -> IpAddress | None:
        """The own address to send from; None: the interface's first."""
        return self._binding.local or as_ip(self._settings.interface)

    def _wants(self, host: str) -> bool:
        """Whether to deliver what ``host`` sent: the receive-side loopback (model, 10.4)."""
        return self._loopback or not self._own.contains(host, time.monotonic())

    # ---- joining

    def _join(
        self,
        address: Address,
        caller_data: bytes,
        qos: Qos | None,
        role: JoinRole,
        *,
        started: bool,
    ) -> None:
        listens = self._listens(role)
        with self._membership.lock:
            self._machine.handle(_I.JOIN if listens else _I.JOIN_SENDER, call="join_leaf")
            try:
                check_join(self._version, address, caller_data, qos, role)
                if self._sealing is not None:
                    self._sealing.check_session(address)
                self._check_role(role)
                self._enter(address, role, listens)
            except SpiError as error:
                self._machine.handle(_I.JOIN_FAILED)
                self._outcome, code = error, error.code
                if not (started and code in _NETWORK_OUTCOMES):
                    raise
                self._last_error = code
            else:
                self._role, self._qos = role, qos
                self._membership.entered(address)
                self._machine.handle(_I.JOIN_DONE if listens else _I.SENDER_DONE)
                self._outcome, code = Joined(self, b"", qos), 0
        self._after_join(code, started)

    def _after_join(self, code: int, started: bool) -> None:
        if started:
            self._indications.connect(code)
        if code == 0:
            if self._may_send():
                self._indications.write()
            self._watch_for_data()

    def _enter(self, address: Address, role: JoinRole, listens: bool) -> None:
        """Steps 18 to 20: bind, then tie the socket to the group."""
        group = address.ip
        assert group is not None, "checked before"
        local = self._send_address()
        wanted: str | int | None = address.scope or self._settings.interface
        if wanted is None and local is not None:
            wanted = str(local)
        if local is not None and local.version != self._version:
            local = None  # the interface was named by its address of the other family
        self._binding.bind_for(address, listens=listens, local=local)
        attachment = Attachment(self._sock, group, wanted, source=self._source(), local=local)
        attachment.attach(receive=listens, send=role != JoinRole.RECEIVER_ONLY)
        self._membership.attachment = attachment
        index = attachment.interface.index
        self._writer.destination = multicast.sockaddr(group, address.port, index)

    # ---- sending

    def _check_may_send(self, to: Collection[Endpoint] | None) -> None:
        self._check_open("send")
        if to is not None:
            raise SpiError(WSAEOPNOTSUPP, "a group has no single members to name", call="send")
        if not self._machine.is_member:
            raise SpiError(WSAENOTCONN, "not in a session", call="send", hint="Join one first")
        if self._shut[c.SD_SEND]:
            raise SpiError(WSAESHUTDOWN, "sending has been shut down", call="send")
        if not self._may_send():
            raise self._refuse_sending()

    def _check_sizes(self, messages: Sequence[Buffer]) -> None:
        limit = min(self._info.message_size, self._settings.max_message)
        longest = max(map(_size_of, messages), default=0)
        if longest > limit:
            raise SpiError(
                WSAEMSGSIZE,
                f"a message of {longest} bytes; {limit} fit into a datagram",
                call="send",
                hint="Send it in pieces, or use jl:// which carries messages of any length",
            )

    def _write(
        self,
        writer: DatagramWriter,
        messages: Sequence[Buffer],
        timeout: float | None,
        mark: int,
    ) -> None:
        sealing = self._sealing
        datagrams = messages if sealing is None else sealing.seal(messages, time.time_ns())
        try:
            writer.send_all(datagrams, timeout, mark)
        except SpiError as error:
            if error.code == WSAEWOULDBLOCK:
                self._indications.arm_write()
            raise
        self._counts["messages_sent"] += len(messages)
        self._counts["bytes_sent"] += sum(map(_size_of, messages))

    def _redirect(self, index: int) -> None:
        """Have what is sent leave by another interface."""
        group, port = self._writer.destination[:2]
        self._writer.destination = multicast.sockaddr(str(group), int(port), index)

    # ---- receiving

    @property
    def _can_hear(self) -> bool:
        """Whether anything can arrive: for members, and what is bound and open to all."""
        return self._machine.is_member or (self._is_open_to_all and self._binding.bound)

    def _check_may_receive(self) -> None:
        self._check_open("receive")
        if not self._can_hear:
            raise SpiError(WSAENOTCONN, "not in a session", call="receive", hint="Join one first")
        if self._shut[c.SD_RECEIVE]:
            raise SpiError(WSAESHUTDOWN, "receiving has been shut down", call="receive")

    # ---- small things

    def _watch_for_data(self) -> None:
        if self._can_hear:
            self._indications.arm_read(undelivered=self._incoming.is_waiting)

    def _check_open(self, call: str) -> None:
        if self._membership.is_closed:
            raise SpiError(WSAENOTSOCK, "closed", call=call)


def _size_of(message: Buffer) -> int:
    return message.nbytes if isinstance(message, memoryview) else len(message)


def _busy(call: str) -> SpiError:
    return SpiError(WSAEINPROGRESS, f"another thread is in {call}", call=call)


def _held(lock: threading.Lock) -> contextlib.AbstractContextManager[None]:
    """Hold the lock if it can be had within the grace that close leaves."""

    @contextlib.contextmanager
    def holding() -> Any:
        taken = lock.acquire(timeout=_CLOSE_GRACE)
        try:
            yield
        finally:
            if taken:
                lock.release()

    return holding()
