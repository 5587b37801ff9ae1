"""What every endpoint of the memory provider has: names, data, options, indications.

Who may join what, and what then happens, is in ``memory_joining.py`` and ``memory_members.py``.
Methods without an underscore that the seam does not know are called by these siblings, with the
hub's lock held.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeVar

from joinleaf.core.data_plane import Member, check_may_receive, check_may_send
from joinleaf.core.wire.control import MAX_CONNECT_DATA
from joinleaf.errors import SpiError
from joinleaf.providers.memory_hub import Deadline, Hub, Inbox, Readiness, Session, size_of
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.provider import (
    Batch,
    Buffer,
    Condition,
    Counters,
    Endpoint,
    EndpointEvent,
    EndReason,
    EventCallback,
    Joined,
    JoinRole,
    Roles,
    Settings,
    SlowPolicy,
    TakenRequest,
)
from joinleaf.spi.qos import Qos
from joinleaf.values import Address

__all__ = ["End", "MemoryEndpoint", "bounded", "check_address"]

T = TypeVar("T")

_SETTABLE: Final = {
    c.SO_DEBUG: bool,
    c.SO_REUSEADDR: bool,
    c.SO_KEEPALIVE: bool,
    c.SO_DONTROUTE: bool,
    c.SO_BROADCAST: bool,
    c.SO_OOBINLINE: bool,
    c.SO_CONDITIONAL_ACCEPT: bool,
    c.SO_SNDBUF: int,
    c.SO_RCVBUF: int,
    c.SO_LINGER: object,
}
"""Options that can be set and read back; here only SO_REUSEADDR has an effect."""

_CODES: Final = {
    EndReason.TIMED_OUT: codes.WSAECONNABORTED,
    EndReason.PROTOCOL_ERROR: codes.WSAECONNABORTED,
    EndReason.SLOW: codes.WSAECONNABORTED,
    EndReason.LOST: codes.WSAECONNRESET,
}


@dataclass(frozen=True, slots=True)
class End:
    """How a membership or session ended for this endpoint."""

    reason: EndReason
    data: bytes = b""

    @property
    def code(self) -> int:
        """The code of FD_CLOSE: 0 where somebody decided it (model, 7.4)."""
        return _CODES.get(self.reason, 0)

    def error(self, call: str) -> SpiError:
        """What send and receive raise from now on."""
        return SpiError(
            self.code or codes.WSAEDISCON,
            f"the session is over: {self.reason}",
            call=call,
            reason=str(self.reason),
            data=self.data,
        )


def bounded(data: bytes) -> bytes:
    """Connect or disconnect data, copied. WSAEFAULT above 64 KiB (clause 52)."""
    if len(data) > MAX_CONNECT_DATA:
        raise SpiError(
            codes.WSAEFAULT,
            f"connect data of {len(data)} bytes is over the limit of {MAX_CONNECT_DATA}",
            hint="Send larger things as messages once joined",
        )
    return bytes(data)


def check_address(address: Address, code: int) -> None:
    """Raise ``code`` for an address of another family: one with a port, a scope, or numeric."""
    if address.port or address.scope or address.ip is not None:
        raise SpiError(code, f"{address} is not the name of a mem session", hint="Write mem://name")


class MemoryEndpoint:
    """One multipoint socket inside the process; see ``spi.provider.Endpoint`` for its methods.

    Attributes:
        hub: What it shares with the others.
        settings: What it was opened with, or inherited.
        changed: Notified when something a thread of this endpoint may wait for has happened.
        callback: Its subscriber.
        inbox: What has not been received yet.
        end: How its membership ended, once it has.
        session: The data plane it takes part in, once it does.
        member: What it is there.
        counters: Its statistics.
    """

    def __init__(self, hub: Hub, info: ProtocolInfo, roles: Roles, settings: Settings) -> None:
        self.hub = hub
        self.settings = settings
        self.changed = threading.Condition(hub.lock)
        self.callback: EventCallback | None = None
        self.inbox = Inbox()
        self.end: End | None = None
        self.session: Session | None = None
        self.member: Member | None = None
        self.counters = Counters()
        self.options: dict[int, Any] = {
            option: kind() if kind in (bool, int) else None for option, kind in _SETTABLE.items()
        }
        self.options[c.SO_REUSEADDR] = settings.reuse_address
        self.options[c.SO_RCVBUF] = self.options[c.SO_SNDBUF] = settings.queue_bytes
        self.preset_qos: Qos | None = None
        self.agreed_qos: Qos | None = None
        # Of sessions without a root, as on multicast. With one, only the others hear, as on jl://:
        # one program text should not echo on one carrier and be silent on another.
        self.loopback = settings.loopback and not info.control_plane_rooted
        self.closed = False
        self.last_error = 0
        self._info = info
        self._roles = roles
        self._local: Address | None = None
        self._shut: set[int] = set()
        self._close_told = False
        self._cancelled = 0
        self._sending = threading.Lock()
        self._receiving = threading.Lock()
        self._readiness: Readiness | None = None

    # Facts

    @property
    def info(self) -> ProtocolInfo:
        """The catalogue entry."""
        return self._info

    @property
    def roles(self) -> Roles:
        """Its role in each plane."""
        return self._roles

    @property
    def qos(self) -> Qos | None:
        """The agreed flow specifications, before a join the preset ones."""
        return self.agreed_qos or self.preset_qos

    @property
    def local_address(self) -> Address:
        """WSPGetSockName."""
        if self._local is None:
            raise SpiError(codes.WSAEINVAL, "not bound to a name yet", call="local_address")
        return self._local

    @property
    def peer_address(self) -> Address:
        """WSPGetPeerName; those that have a single peer say so."""
        raise SpiError(codes.WSAENOTCONN, "there is no single peer", call="peer_address")

    @property
    def session_id(self) -> bytes:
        """Identity of the session."""
        return self.session.session_id if self.session is not None else b""

    # What kinds of endpoint differ in

    def listen(self, backlog: int | None = None) -> None:
        """WSPListen."""
        raise SpiError(codes.WSAEOPNOTSUPP, "this endpoint cannot listen", call="listen")

    def accept(
        self, condition: Condition | None = None, *, timeout: float | None = None
    ) -> Endpoint:
        """WSPAccept."""
        raise SpiError(codes.WSAEOPNOTSUPP, "this endpoint cannot accept", call="accept")

    def take_request(self, *, timeout: float | None = None) -> TakenRequest:
        """The first half of WSPAccept."""
        raise SpiError(codes.WSAEOPNOTSUPP, "this endpoint cannot accept", call="accept")

    def join_leaf(
        self,
        address: Address,
        *,
        caller_data: bytes = b"",
        qos: Qos | None = None,
        role: JoinRole = JoinRole.BOTH,
        timeout: float | None = None,
    ) -> Joined:
        """WSPJoinLeaf, blocking."""
        self.refuse_join()

    def start_join_leaf(
        self,
        address: Address,
        *,
        caller_data: bytes = b"",
        qos: Qos | None = None,
        role: JoinRole = JoinRole.BOTH,
        timeout: float | None = None,
    ) -> Endpoint:
        """WSPJoinLeaf, nonblocking."""
        self.refuse_join()

    def join_result(self) -> Joined:
        """Outcome of the last started join."""
        raise SpiError(codes.WSAEINVAL, "no join has been started", call="join_result")

    def refuse_join(self) -> NoReturn:
        """What a join is answered by an endpoint that never joins anything."""
        raise SpiError(codes.WSAEINVAL, "this endpoint cannot join", call="join_leaf")

    def check_connected(self, call: str) -> None:
        """Raise WSAENOTCONN while it is no member, and whatever ended a membership."""
        if self.end is not None:
            raise self.end.error(call)
        if self.session is None or self.member is None:
            raise SpiError(codes.WSAENOTCONN, "not a member of a session", call=call)

    def policy(self) -> Settings:
        """Whose settings say what happens to listeners that do not keep up."""
        return self.settings

    def too_slow(self) -> bool:
        """Apply the policy "expel" to this listener; False where it cannot be expelled."""
        return False

    def release(self, data: bytes, reason: EndReason | None, abort: bool) -> None:
        """Leave whatever it takes part in, on closing."""

    def shut_down(self, data: bytes) -> None:
        """Take leave in order, staying open."""

    # Names

    def bind(self, address: Address) -> None:
        """WSPBind."""
        with self.entered("bind"):
            self.check_may_bind()
            check_address(address, codes.WSAEFAULT)
            self.take_name(address.host or self.hub.new_name())

    def check_may_bind(self) -> None:
        """Raise WSAEINVAL where it is bound already."""
        if self._local is not None:
            raise SpiError(codes.WSAEINVAL, f"bound to {self._local.host!r} already", call="bind")

    def take_name(self, name: str) -> None:
        """Bind. WSAEADDRINUSE unless all holders, this one included, share it knowingly."""
        holders = self.hub.names.get(name, [])
        if any(not holder.options[c.SO_REUSEADDR] for holder in (*holders, self) if holders):
            raise SpiError(codes.WSAEADDRINUSE, f"the name {name!r} is in use", call="bind")
        self.hub.names[name] = [*holders, self]
        self._local = Address(name)

    def bind_if_needed(self) -> None:
        """The implicit bind of a join (clause 64)."""
        if self._local is None:
            self.take_name(self.hub.new_name())

    # Entering calls, and waiting inside them

    @contextmanager
    def entered(self, call: str) -> Iterator[None]:
        """Hold the hub's lock, if the call may be made at all (model 5.6, steps 1 and 2)."""
        with self.hub:
            if self.hub.faults.network_down:
                raise SpiError(codes.WSAENETDOWN, "the network is down", call=call)
            if self.closed:
                raise SpiError(codes.WSAENOTSOCK, "the endpoint is closed", call=call)
            yield

    def wait_for(self, ready: Callable[[], T | None], timeout: float | None, call: str) -> T:
        """Wait, lock held, until ``ready`` gives something; it may raise instead."""
        cancelled, deadline = self._cancelled, Deadline(timeout)
        while (result := ready()) is None:
            if timeout is not None and timeout <= 0:
                raise SpiError(codes.WSAEWOULDBLOCK, "it would have to wait", call=call)
            left = deadline.left()
            if left is not None and left <= 0:
                raise SpiError(codes.WSAETIMEDOUT, f"not done in {timeout} s", call=call)
            self.hub.wait(self.changed, left)
            if self.closed or self._cancelled != cancelled:
                raise SpiError(codes.WSAEINTR, "cancelled or closed while waiting", call=call)
        return result

    def cancel(self) -> None:
        """WSPCancelBlockingCall."""
        with self.hub:
            self._cancelled += 1
            self.changed.notify_all()

    # Data

    def send_many(
        self,
        messages: Sequence[Buffer],
        *,
        timeout: float | None = None,
        to: Collection[Endpoint] | None = None,
    ) -> None:
        """WSPSend."""
        payloads = [bytes(memoryview(message)) for message in messages]
        with self.entered("send_many"), _one_at_a_time(self._sending, "send_many"):
            self._check_sizes(payloads)
            self.hub.waiting_for_room[self] = None
            try:
                self.wait_for(lambda: self._try_send(payloads, to), timeout, "send_many")
            except SpiError as error:
                if error.code == codes.WSAEWOULDBLOCK:
                    self.hub.starved[self] = size_of(payloads)
                raise
            finally:
                self.hub.waiting_for_room.pop(self, None)

    def _check_sizes(self, payloads: Collection[bytes]) -> None:
        agreed = self.agreed_qos.sending.max_message if self.agreed_qos is not None else None
        limit = min(self.settings.max_message, agreed or self.settings.max_message)
        longest = max(map(len, payloads), default=0)
        if longest > limit:
            raise SpiError(
                codes.WSAEMSGSIZE,
                f"a message of {longest} bytes is over the limit of {limit}",
                call="send_many",
            )

    def check_may_send(self) -> None:
        """Raise what sending is refused with in this state."""
        if c.SD_SEND in self._shut:
            raise SpiError(codes.WSAESHUTDOWN, "sending has been shut down", call="send_many")
        self.check_connected("send_many")
        if self.member is not None:
            check_may_send(self.member.role)

    def audience(self, to: Collection[Endpoint] | None) -> list[MemoryEndpoint]:
        """Whoever is to get what this endpoint sends."""
        if to is not None:
            raise SpiError(
                codes.WSAEOPNOTSUPP, "only a c_root that is the d_root chooses", call="send_many"
            )
        assert self.session is not None
        assert self.member is not None
        return self.session.listeners(self.member)

    def _try_send(self, payloads: list[bytes], to: Collection[Endpoint] | None) -> bool | None:
        """Send if there is room wherever there must be; None: wait."""
        self.check_may_send()
        size = size_of(payloads)
        hearing = self.audience(to)
        full = [one for one in hearing if not one.takes(size, self.policy())]
        if full and not self._get_past(full, len(payloads), numbered=to is None):
            return None
        assert self.session is not None
        assert self.member is not None
        hearing = [one for one in hearing if one not in full]
        if to is not None:
            batches = [self.batch(payloads)]
        else:
            first = self.session.number(self.member.key, len(payloads))
            drop_every = self.hub.faults.drop_every
            batches = list(self.session.runs(payloads, first, drop_every))
        for batch in batches:
            batch.sender = self.local_address
            self.hub.put(hearing, batch)
        self.counters.add("messages_sent", len(payloads))
        return True

    def batch(self, payloads: list[bytes], *, side: bool = False) -> Batch:
        """A batch outside the numbering."""
        return Batch(payloads, self.local_address, -1, time.time_ns(), 0, side)

    def _get_past(self, full: list[MemoryEndpoint], count: int, *, numbered: bool) -> bool:
        """Apply the policy to listeners without room; False where they must be waited for."""
        slow = self.policy().slow
        # Nobody waits for the echo of its own words, or a member that only sends would stand still.
        others = [one for one in full if one is not self]
        waits = slow is SlowPolicy.WAIT or not all(one.is_droppable for one in others)
        if others and waits:
            return False
        assert self.session is not None
        assert self.member is not None
        # The number that the next message has: the gap is what comes before it.
        following = self.session.number(self.member.key, 0) + count if numbered else -1
        for one in full:
            if one is not self and slow is SlowPolicy.EXPEL and one.too_slow():
                continue
            one.counters.add("messages_dropped", count)
            gap = Batch([], self.local_address, following, time.time_ns(), count)
            one.arrived(gap)
        return True

    @property
    def is_droppable(self) -> bool:
        """Whether a policy for slow leaves applies to it; a root is always waited for."""
        return True

    def takes(self, size: int, policy: Settings) -> bool:
        """Whether its queue has room; an empty one takes anything."""
        return not self.inbox.size or self.inbox.size + size <= policy.queue_bytes

    def has_room(self, size: int) -> bool:
        """Whether a send of so many bytes would not wait now; true as well if it would fail."""
        try:
            self.check_may_send()
            hearing = [one for one in self.audience(None) if one is not self]
            return all(one.takes(size, self.policy()) for one in hearing)
        except SpiError:
            return True

    def arrived(self, batch: Batch) -> None:
        """Something to receive: wake and tell whoever wants to know."""
        if self.closed or c.SD_RECEIVE in self._shut:
            return
        first = not self.inbox
        self.inbox.put(batch)
        self.changed.notify_all()
        self.refresh_readiness()
        if first:
            self.indicate(c.FD_READ)

    def receive_many(self, *, timeout: float | None = None) -> Batch:
        """WSPRecv."""
        with self.entered("receive_many"), _one_at_a_time(self._receiving, "receive_many"):
            batch = self.wait_for(self._try_receive, timeout, "receive_many")
            self.counters.add("messages_received", len(batch.messages))
            self.counters.add("messages_missed", batch.gap)
            self.hub.room_made()
            self.refresh_readiness()
            if self.inbox:
                self.indicate(c.FD_READ)
            self._tell_close_if_due()
            return batch

    def _try_receive(self) -> Batch | None:
        if c.SD_RECEIVE in self._shut:
            raise SpiError(codes.WSAESHUTDOWN, "receiving has been shut down", call="receive_many")
        if self.inbox and self.is_usable:
            return self.inbox.take()
        self.check_connected("receive_many")
        if self.member is not None:
            check_may_receive(self.member.role)
        return None

    @property
    def is_usable(self) -> bool:
        """Whether data may be touched at all: not while a join is pending."""
        return True

    # Ending

    def shutdown(self, how: int, *, data: bytes = b"") -> None:
        """WSPShutdown, WSPSendDisconnect."""
        with self.entered("shutdown"):
            if how not in (c.SD_RECEIVE, c.SD_SEND, c.SD_BOTH):
                raise SpiError(codes.WSAEINVAL, f"{how} is no way to shut down", call="shutdown")
            data = bounded(data)
            self.check_may_shut_down()
            if how in (c.SD_RECEIVE, c.SD_BOTH):
                self._shut.add(c.SD_RECEIVE)
                self.inbox.clear()
                self.hub.room_made()
            if how in (c.SD_SEND, c.SD_BOTH):
                self._shut.add(c.SD_SEND)
                self.shut_down(data)
            self.changed.notify_all()
            self.refresh_readiness()

    def check_may_shut_down(self) -> None:
        """Raise WSAENOTCONN where there is nothing to shut down."""
        if self.end is None:
            self.check_connected("shutdown")

    def close(
        self,
        *,
        data: bytes = b"",
        abort: bool = False,
        linger: float | None = None,
        reason: EndReason | None = None,
    ) -> None:
        """WSPCloseSocket. Never waits: what was sent is in its readers' queues already."""
        data = bounded(data)
        with self.hub:
            if not self.closed:
                self._close(data, reason or (EndReason.LOST if abort else None), abort)

    def die(self, reason: EndReason) -> None:
        """Close as if the process had died; peers are told this reason."""
        with self.hub:
            if not self.closed:
                self._close(b"", reason, True)

    def _close(self, data: bytes, reason: EndReason | None, abort: bool) -> None:
        self.closed = True
        self.callback = None
        self.hub.forget_indications(self)
        self.release(data, reason, abort)
        if self._local is not None:
            self.hub.release_name(self, self._local.host)
        self.session = None
        self.inbox.clear()
        self.hub.starved.pop(self, None)
        self.hub.room_made()
        self.changed.notify_all()
        if self._readiness is not None:
            self._readiness.close()
            self._readiness = None

    def ended(self, reason: EndReason, data: bytes = b"") -> None:
        """The membership is over, by whomever; told once, after all data have been read."""
        if self.closed or self.end is not None:
            return
        self.end = End(reason, data)
        self.counters.add(f"ended_{reason.name.lower()}")
        self.changed.notify_all()
        self.refresh_readiness()
        self._tell_close_if_due()

    def _tell_close_if_due(self) -> None:
        if self.end is not None and not self.inbox and not self._close_told:
            self._close_told = True
            self._indicate_close()

    def _indicate_close(self) -> None:
        if self.end is not None:
            self.indicate(c.FD_CLOSE, self.end.code, self.end.reason, self.end.data)

    # Indications

    def indicate(
        self, kind: int, code: int = 0, reason: EndReason | None = None, data: bytes = b""
    ) -> None:
        """Tell the subscriber, if there is one; FD_CONNECT comes before anything else."""
        if self.callback is not None and self.is_usable:
            self.hub.indicate(self, EndpointEvent(kind, code, reason, data))

    def indicate_write(self) -> None:
        """Sending is possible, or possible again."""
        self.indicate(c.FD_WRITE)

    def told(self, event: EndpointEvent) -> None:
        """This indication is being delivered now."""

    def subscribe(self, callback: EventCallback | None) -> None:
        """Have indications reported; what is true already, at once."""
        with self.hub:
            if self.closed:
                return
            self.callback = callback
            self.hub.forget_indications(self)
            if callback is not None and self.is_usable:
                self.indicate_present()

    def indicate_present(self) -> None:
        """Indicate what is true already."""
        if self.inbox:
            self.indicate(c.FD_READ)
        elif self.end is not None:
            self._close_told = True
            self._indicate_close()

    def refresh_readiness(self) -> None:
        """Make the descriptor, if anybody asked for one, say whether there is anything."""
        if self._readiness is not None:
            over = self.end is not None or c.SD_RECEIVE in self._shut
            self._readiness.set(self.is_usable and (bool(self.inbox) or over))

    def fileno(self) -> int:
        """A descriptor that is readable whenever something can be received."""
        with self.hub:
            if self.closed:
                return -1
            if self._readiness is None:
                self._readiness = Readiness()
                self.refresh_readiness()
            return self._readiness.fd

    # Options

    def check_usable(self, call: str) -> None:
        """Raise WSAEINVAL where options and commands are refused (model, 6.7)."""

    def ioctl(self, code: int, value: Any = None) -> Any:
        """WSPIoctl."""
        with self.entered("ioctl"):
            self.check_usable("ioctl")
            if code == c.FIONREAD:
                return self.inbox.size
            if code == c.SIO_MULTIPOINT_LOOPBACK:
                return self._set_loopback(value)
            if code == c.SIO_GET_QOS and self._info.has(c.XP1_QOS_SUPPORTED):
                return self.qos or Qos()
            if code == c.SIO_SET_QOS and self._info.has(c.XP1_QOS_SUPPORTED):
                return self._set_qos(value)
            if code in (c.SIO_GET_QOS, c.SIO_SET_QOS):
                raise SpiError(codes.WSAENOPROTOOPT, "this entry knows no QoS", call="ioctl")
            raise SpiError(codes.WSAEINVAL, f"command {code:#x} is not known here", call="ioctl")

    def _set_loopback(self, value: Any) -> None:
        if self._info.data_plane_rooted:
            raise SpiError(codes.WSAEINVAL, "loopback is of nonrooted data planes", call="ioctl")
        self.loopback = bool(value)
        if self.session is not None and self.member is not None:
            member = self.member
            self.member = Member(member.key, member.d_root, member.role, self.loopback)
            self.session.add(self.member, self)

    def _set_qos(self, value: Any) -> None:
        if not isinstance(value, Qos):
            raise SpiError(codes.WSAEFAULT, "SIO_SET_QOS takes a Qos", call="ioctl")
        self.change_qos(value)

    def change_qos(self, qos: Qos) -> None:
        """SIO_SET_QOS: what the next join asks for; renegotiates where a membership stands."""
        self.preset_qos = qos

    def get_option(self, option: int) -> Any:
        """WSPGetSockOpt."""
        if option == c.SO_ERROR:
            error, self.last_error = self.last_error, 0
            return error
        self.check_usable("get_option")
        fixed = {
            c.SO_TYPE: self._info.socket_type,
            c.SO_ACCEPTCONN: self.is_listening,
            c.SO_MAX_MSG_SIZE: self.settings.max_message,
            c.SO_PROTOCOL_INFOW: self._info,
            c.SO_DONTLINGER: not self.options[c.SO_LINGER],
        }
        try:
            return fixed[option] if option in fixed else self.options[option]
        except KeyError:
            raise _no_option(option, "get_option") from None

    @property
    def is_listening(self) -> bool:
        """Whether it takes join requests."""
        return self._local is not None and self.hub.listeners.get(self._local.host) is self

    def set_option(self, option: int, value: Any) -> None:
        """WSPSetSockOpt."""
        self.check_usable("set_option")
        if option == c.SO_DONTLINGER:
            option, value = c.SO_LINGER, None
        if option not in _SETTABLE:
            raise _no_option(option, "set_option")
        if option == c.SO_CONDITIONAL_ACCEPT and self.is_listening:
            raise SpiError(codes.WSAEINVAL, "set it before listening", call="set_option")
        self.options[option] = bool(value) if _SETTABLE[option] is bool else value

    def inherit(self, parent: MemoryEndpoint) -> None:
        """Take over the properties of the endpoint this one comes from (clauses 93 to 95)."""
        self.callback = parent.callback
        self.options = dict(parent.options)
        self.preset_qos = parent.preset_qos
        self.loopback = parent.loopback

    def statistics(self) -> Mapping[str, int]:
        """Counters and gauges by name."""
        return {**self.counters.values, "bytes_queued": self.inbox.size}


def _no_option(option: int, call: str) -> SpiError:
    return SpiError(codes.WSAENOPROTOOPT, f"option {option:#x} is not known here", call=call)


class _one_at_a_time:  # noqa: N801  # reads as the statement it is
    """WSAEINPROGRESS for a second thread in the same direction.

    Entered after the hub's lock and left before it, so that it is free again when callbacks run.
    """

    __slots__ = ("_call", "_lock")

    def __init__(self, lock: threading.Lock, call: str) -> None:
        self._lock = lock
        self._call = call

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise SpiError(codes.WSAEINPROGRESS, "another thread is in this call", call=self._call)

    def __exit__(self, *_: object) -> None:
        self._lock.release()
