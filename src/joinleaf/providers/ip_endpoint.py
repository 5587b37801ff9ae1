"""The endpoint of IP multicast sessions: a socket, a membership, and datagrams as they are.

Decisions where the texts are silent, and limits:

* A member that receives and is not bound binds to the session's port, shared with others of this
  host (model, A-24: the specification's "unique values" leave a receiver deaf on most systems); a
  sender only, or with ``unique_port`` everybody, gets a port of its own.
* A batch is one datagram after another; what has left cannot be recalled. Messages too long are
  found before the first leaves; on a time-out the error says how many have left.
* A member whose interface goes away keeps its session: see ``_look_after_membership``.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NoReturn

from joinleaf.core.leaf_nonrooted import (
    NonrootedAction,
    NonrootedInput,
    NonrootedLeafMachine,
    NonrootedState,
)
from joinleaf.drivers import multicast
from joinleaf.drivers.attachment import Attachment
from joinleaf.drivers.datagrams import DatagramReader
from joinleaf.drivers.interfaces import IpAddress, OwnAddresses, find_interface
from joinleaf.drivers.readiness import ReadySignal
from joinleaf.drivers.sending import DatagramWriter
from joinleaf.drivers.waiting import Waiter
from joinleaf.errors import SpiError
from joinleaf.providers import ip_options
from joinleaf.providers.ip_binding import Binding, as_ip
from joinleaf.providers.ip_checks import check_join
from joinleaf.providers.ip_indications import Indications
from joinleaf.providers.ip_sealing import Sealing
from joinleaf.spi import constants as c
from joinleaf.spi.codes import (
    WSAEADDRNOTAVAIL,
    WSAEAFNOSUPPORT,
    WSAEFAULT,
    WSAEINPROGRESS,
    WSAEINTR,
    WSAEINVAL,
    WSAEMSGSIZE,
    WSAENETDOWN,
    WSAENETUNREACH,
    WSAENOPROTOOPT,
    WSAENOTCONN,
    WSAENOTSOCK,
    WSAEOPNOTSUPP,
    WSAESHUTDOWN,
    WSAETIMEDOUT,
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

__all__ = ["LOOK_INTERVAL", "IpMulticastEndpoint"]

_log = logging.getLogger("joinleaf")

_I, _A, _S = NonrootedInput, NonrootedAction, NonrootedState

LOOK_INTERVAL: Final = 1.0
"""Seconds of silence after which a waiting receiver looks whether its membership still holds."""

_CLOSE_GRACE: Final = 1.0  # seconds that close leaves to other threads to get out of the socket

# Outcomes of step 20 of a join (model, section 5.6): a started join reports them by FD_CONNECT.
_NETWORK_OUTCOMES: Final = frozenset({WSAENETDOWN, WSAENETUNREACH})


class IpMulticastEndpoint:
    """A c_leaf and d_leaf of a session that always exists. See ``Endpoint`` for every contract.

    Locks: ``_lock`` guards the machine, the membership and the callback, and is never held while
    waiting or calling out; ``_sending`` and ``_receiving`` admit one thread to each direction.
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

        self._lock = threading.RLock()
        self._sending = threading.Lock()
        self._receiving = threading.Lock()
        self._machine = NonrootedLeafMachine()
        self._waiter = Waiter()
        self._own = OwnAddresses()
        self._reader = DatagramReader(
            self._sock, self._wants, None if sealing is None else sealing.open_run
        )
        self._writer = DatagramWriter(self._sock, self._waiter, self._revive_interface)
        self._loopback = settings.loopback
        self._binding = Binding(self._sock, self._version, unique_port=unique_port)
        self._session: Address | None = None
        self._role = JoinRole.BOTH
        self._qos: Qos | None = None
        self._attachment: Attachment | None = None
        self._shut = {c.SD_SEND: False, c.SD_RECEIVE: False}
        self._outcome: Joined | SpiError | None = None
        self._last_error = 0
        self._looked_at = 0.0
        self._cut_off_since = 0.0
        self._indications = Indications(self, self._sock)
        self._ready: ReadySignal | None = None
        self._one_by_one = False
        self._is_open_to_all = False
        self._counts = dict.fromkeys(
            (
                "messages_sent",
                "bytes_sent",
                "messages_received",
                "bytes_received",
                "memberships_lost",
                "memberships_renewed",
            ),
            0,
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
        if not self._machine.is_member or self._session is None:
            raise SpiError(WSAENOTCONN, "not in a session", call="peer_address")
        return self._session

    @property
    def session_id(self) -> bytes:
        """Empty: a group has no identity but its address."""
        return b""

    def statistics(self) -> Mapping[str, int]:
        """Counters: messages and bytes sent and received, drops by reason, memberships."""
        refused = {} if self._sealing is None else self._sealing.statistics()
        return {**self._counts, "messages_filtered": self._reader.dropped, **refused}

    # ---- control plane

    def bind(self, address: Address) -> None:
        """WSPBind. The host may be any, or one of this host's addresses."""
        self._check_open("bind")
        with self._lock:
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
        with self._lock:
            closing = self._machine.state is not _S.CLOSED
            self._perform(self._machine.handle(_I.CLOSE))
        if closing:
            self._waiter.close()
            self._indications.close()
            # Whoever is inside a system call gets out first, lest the number be reused under it.
            with _held(self._sending), _held(self._receiving):
                if self._ready is not None:
                    self._ready.close()
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
        with self._lock:
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
        if not self._receiving.acquire(blocking=False):
            raise _busy("receive")
        try:
            batch = self._next_batch(timeout, mark)
            self._counts["messages_received"] += len(batch.messages)
            self._counts["bytes_received"] += sum(map(len, batch.messages))
        finally:
            self._tell_readiness()
            self._receiving.release()
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
            return self._bytes_waiting()
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
        with self._lock:
            if self._machine.state is _S.CLOSED:
                return -1
            if not ReadySignal.available:
                self._one_by_one = True  # so that nothing read is ever left undelivered
                return self._sock.fileno()
            if self._ready is None:
                self._ready = ReadySignal(self._sock.fileno())
                self._tell_readiness()
            return self._ready.fileno()

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
        with self._lock:
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
                self._session, self._role, self._qos = address, role, qos
                self._looked_at = time.monotonic()
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
        self._attachment = attachment
        index = attachment.interface.index
        self._writer.destination = multicast.sockaddr(group, address.port, index)

    # ---- membership

    def _perform(self, actions: tuple[NonrootedAction, ...]) -> None:
        for action in actions:
            if action is _A.DROP_MEMBERSHIP and self._attachment is not None:
                self._attachment.detach()
            elif action is _A.TELL_LOST:
                self._counts["memberships_lost"] += 1
                self._cut_off_since = time.monotonic()
            elif action is _A.TELL_RENEWED:
                self._counts["memberships_renewed"] += 1

    def _look_after_membership(self, now: float) -> None:
        """Find out whether the system has forgotten the membership, and renew it.

        A receiver that has waited a second for nothing asks. While the interface is away it goes on
        waiting and trying; once that has lasted ``dead_after`` seconds the caller is told, with
        every call, and may go on calling: the session revives with its interface.

        Raises:
            SpiError: WSAENETDOWN, WSAENETUNREACH or WSAEADDRNOTAVAIL, as said.
        """
        if now - self._looked_at < LOOK_INTERVAL:
            return
        self._looked_at = now
        with self._lock:
            if self._attachment is None or self._machine.state not in (_S.JOINED, _S.CUT_OFF):
                return
            if self._machine.state is _S.JOINED:
                trouble = self._attachment.trouble()
                if trouble is None:
                    return
                _log.warning("%s: nothing arrives: %s", self._session, trouble)
                self._perform(self._machine.handle(_I.LOST))
            trouble = self._try_to_renew()
        if trouble is not None and now - self._cut_off_since >= self._settings.dead_after:
            raise SpiError(
                trouble.code,
                f"{self._session}: nothing can arrive: {trouble}",
                call="receive",
                hint="The session revives with its interface: call again, or close it",
            ) from trouble

    def _try_to_renew(self) -> SpiError | None:
        """Attach again; what is in the way, or None if it worked."""
        assert self._attachment is not None
        try:
            self._attachment.renew()
        except SpiError as error:
            self._machine.handle(_I.LOST)
            return error
        self._redirect()
        self._perform(self._machine.handle(_I.RENEWED))
        return None

    def _redirect(self) -> None:
        """Have what is sent leave by the interface now attached to."""
        assert self._attachment is not None
        group, port = self._writer.destination[:2]
        index = self._attachment.interface.index
        self._writer.destination = multicast.sockaddr(str(group), int(port), index)

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

    def _revive_interface(self) -> bool:
        """Attach again if the interface is in trouble.

        Returns:
            Whether it was, and no longer is.

        Raises:
            SpiError: It was, and still is.
        """
        with self._lock:
            if self._attachment is None or (trouble := self._attachment.trouble()) is None:
                return False
            if self._machine.state is _S.JOINED:
                _log.warning("%s: nothing can be sent: %s", self._session, trouble)
                self._perform(self._machine.handle(_I.LOST))
            if self._machine.state is _S.CUT_OFF:
                failure = self._try_to_renew()
                if failure is not None:
                    raise failure
            else:
                self._attachment.renew()
                self._redirect()
        return True

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

    def _next_batch(self, timeout: float | None, mark: int) -> Batch:
        pending = self._reader.pending
        if pending:
            return pending.popleft()
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            self._drain()
            if pending:
                return pending.popleft()
            now = time.monotonic()
            self._look_after_membership(now)
            left = min(LOOK_INTERVAL, deadline - now)
            if left <= 0:
                raise _nothing(timeout)
            self._waiter.wait_readable(self._sock.fileno(), left, mark=mark)

    def _drain(self) -> None:
        try:
            if self._one_by_one:
                self._reader.drain(1)
            else:
                self._reader.drain()
        except OSError as error:
            if self._machine.state is _S.CLOSED:
                raise SpiError(WSAEINTR, "closed by another thread", call="receive") from error
            if not self._reader.pending:
                raise spi_error_from_os(error, call="receive") from error

    def _bytes_waiting(self) -> int:
        """FIONREAD for messages: all that is queued, as far as one drain reaches."""
        if self._can_hear and self._receiving.acquire(blocking=False):
            try:
                if not self._reader.pending:
                    self._drain()
            finally:
                self._tell_readiness()
                self._receiving.release()
        return sum(
            len(message) for batch in tuple(self._reader.pending) for message in batch.messages
        )

    # ---- small things

    def _tell_readiness(self) -> None:
        if self._ready is not None:
            self._ready.set(bool(self._reader.pending))

    def _watch_for_data(self) -> None:
        if self._can_hear:
            self._indications.arm_read(undelivered=bool(self._reader.pending))

    def _check_open(self, call: str) -> None:
        if self._machine.state is _S.CLOSED:
            raise SpiError(WSAENOTSOCK, "closed", call=call)


def _size_of(message: Buffer) -> int:
    return message.nbytes if isinstance(message, memoryview) else len(message)


def _nothing(timeout: float | None) -> SpiError:
    if timeout is not None and timeout <= 0:
        return SpiError(WSAEWOULDBLOCK, "nothing has arrived", call="receive")
    return SpiError(WSAETIMEDOUT, f"nothing arrived within {timeout} s", call="receive")


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
