"""The c_root over TCP, and the root's side of its legs."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, TypeGuard

from joinleaf.core.association import JoinFailed
from joinleaf.core.data_plane import check_may_receive, check_may_send
from joinleaf.core.leg import LegState
from joinleaf.core.root import RootInput, RootMachine, RootState
from joinleaf.core.root_session import RootSession
from joinleaf.core.session import (
    Arrived,
    JoinEnded,
    LegEnded,
    LegJoined,
    Output,
    QosChanged,
    RequestGone,
    RequestWaiting,
    RosterAsked,
)
from joinleaf.core.wire.control import MAX_CONNECT_DATA, Answer, Roster, RosterRow, encode
from joinleaf.core.wire.data import PackedBatch
from joinleaf.core.wire.frames import MAX_CONTROL_BODY
from joinleaf.drivers.connections import address_of, listen_on
from joinleaf.drivers.names import resolve
from joinleaf.drivers.stream_traffic import new_scratch
from joinleaf.drivers.streams import StreamDriver
from joinleaf.errors import SpiError
from joinleaf.providers.rooted._base import (
    Callbacks,
    EndpointBase,
    check_disconnect_data,
    close_event,
    closed_error,
    ended_error,
    forget_at_exit,
    late,
    total_bytes,
)
from joinleaf.spi import constants as c
from joinleaf.spi.codes import (
    WSAEACCES,
    WSAEADDRNOTAVAIL,
    WSAEALREADY,
    WSAECONNREFUSED,
    WSAECONNRESET,
    WSAEFAULT,
    WSAEINTR,
    WSAEINVAL,
    WSAEISCONN,
    WSAENOTCONN,
    WSAEPROTONOSUPPORT,
    WSAESHUTDOWN,
    WSATRY_AGAIN,
)
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.provider import (
    Accept,
    Buffer,
    Condition,
    Defer,
    Endpoint,
    EndpointEvent,
    EndReason,
    Joined,
    JoinRequest,
    JoinRole,
    Reject,
    Roles,
    Settings,
    SlowPolicy,
    TakenRequest,
)
from joinleaf.spi.qos import Qos
from joinleaf.values import IDENTITY_BYTES, Address

__all__ = ["LegEndpoint", "RootEndpoint", "check_join_arguments"]

FORMER_KEPT: Final = 100
"""Members that have left and are still in the roster, newest last."""


def check_join_arguments(address: Address, caller_data: bytes, info: ProtocolInfo) -> None:
    """Steps 9 to 16 of the model's section 5.6, as far as Python types leave them open."""
    if address.is_any or not address.port or address.is_multicast:
        raise SpiError(
            WSAEADDRNOTAVAIL,
            f"{address} is not the address of a peer",
            call="join_leaf",
            hint="Name one host and its port",
        )
    if caller_data and not info.has(c.XP1_CONNECT_DATA):
        raise SpiError(WSAEPROTONOSUPPORT, "no connect data on this entry", call="join_leaf")
    if len(caller_data) > MAX_CONNECT_DATA:
        raise SpiError(
            WSAEFAULT,
            f"connect data of {len(caller_data)} bytes are over {MAX_CONNECT_DATA}",
            call="join_leaf",
            hint="Send larger things as messages once joined",
        )


class RootEndpoint(EndpointBase):
    """The c_root; see the package."""

    def __init__(self, info: ProtocolInfo, roles: Roles, settings: Settings) -> None:
        self._session = RootSession(
            settings,
            session_id=os.urandom(IDENTITY_BYTES),
            incarnation=settings.incarnation or os.urandom(IDENTITY_BYTES),
            rooted=info.data_plane_rooted,
            d_root=roles.d_root,
            scratch=new_scratch(),
        )
        super().__init__(info, roles, settings, StreamDriver(self._session, self._dispatch))
        self._machine = RootMachine()
        self._sock: socket.socket | None = None
        self._local: Address | None = None
        self._listening = False
        self._legs: dict[int, LegEndpoint] = {}
        self._deciding: dict[int, EndReason | None] = {}
        self._pending: LegEndpoint | None = None
        self._outcome: Joined | SpiError | None = None
        self._had_leg = False
        self._former: deque[RosterRow] = deque(maxlen=FORMER_KEPT)

    @property
    def session_id(self) -> bytes:
        """The session's identity."""
        return self._session.session_id

    @property
    def local_address(self) -> Address:
        """WSPGetSockName."""
        if self._local is None:
            raise SpiError(WSAEINVAL, "the endpoint is not bound", call="local_address")
        return self._local

    @property
    def peer_address(self) -> Address:
        """A c_root has no single peer."""
        raise SpiError(WSAENOTCONN, "a c_root has no single peer", call="peer_address")

    def _check_open(self, call: str) -> None:
        if self._closed:
            raise closed_error(call)

    # Names and listening

    def bind(self, address: Address) -> None:
        """WSPBind."""
        with self._driver.lock:
            self._check_open("bind")
            if self._sock is not None:
                raise SpiError(WSAEINVAL, f"already bound to {self._local}", call="bind")
            self._sock = listen_on(address)
            bound = address_of(self._sock.getsockname())
            self._local = bound if address.host else Address("", bound.port)

    def listen(self, backlog: int | None = None) -> None:
        """WSPListen; before, between or after joins (clause 109)."""
        with self._driver.lock:
            self._check_open("listen")
            if self._sock is None:
                raise SpiError(WSAEINVAL, "bind before listen", call="listen")
            self._machine.handle(RootInput.LISTEN, call="listen")
            if backlog is not None:
                self._session.backlog = max(1, backlog)
            self._driver.listen(self._sock, self._session.backlog)
            self._listening = True
        self._drop_excess()

    def accept(
        self, condition: Condition | None = None, *, timeout: float | None = None
    ) -> Endpoint:
        """WSPAccept; the condition runs on this thread, and no lock is held meanwhile."""
        taken = self.take_request(timeout=timeout)
        try:
            verdict = condition(taken.request) if condition is not None else Accept()
        except BaseException:
            sorry = Reject(message="the root could not decide; see its log")
            with contextlib.suppress(SpiError):
                taken.answer(sorry)
            raise
        return taken.answer(verdict)

    def take_request(self, *, timeout: float | None = None) -> TakenRequest:
        """The first half of WSPAccept; several requests may be taken before one is answered."""
        self._check_open("accept")
        if not self._listening:
            raise SpiError(WSAEINVAL, "listen before accept", call="accept")
        offered = self._driver.wait_for(self._offer, timeout)
        if offered is None:
            raise late(timeout, "accept")
        key, request = offered

        def answer(verdict: Accept | Reject | Defer) -> Endpoint:
            self._driver.catch_up()  # an asker may have withdrawn: the word is in the socket
            return self._driver.run(lambda: self._decide(key, request, verdict))

        return TakenRequest(request, answer)

    def _offer(self) -> tuple[int, JoinRequest] | None:
        self._check_open("accept")
        offered = self._session.offer()
        if offered is not None:
            self._deciding[offered[0]] = None
        return offered

    def _decide(self, key: int, request: JoinRequest, verdict: Accept | Reject | Defer) -> Endpoint:
        self._check_open("accept")
        if (reason := self._deciding.pop(key, None)) is not None:
            code = WSAECONNRESET if reason is EndReason.LOST else WSAEACCES
            raise SpiError(code, f"the asker is gone: {reason}", call="accept", reason=reason)
        waiting = self._session.legs.get(key)
        if waiting is None or waiting.association.state is not LegState.OFFERED:
            raise SpiError(WSAECONNRESET, "the session was dissolved meanwhile", call="accept")
        match verdict:
            case Defer():
                self._session.defer(key)
                raise SpiError(WSATRY_AGAIN, "the request is deferred", call="accept")
            case Reject():
                self._session.reject(key, verdict)
                raise SpiError(WSAECONNREFUSED, "rejected by the condition", call="accept")
            case Accept():
                leg = self._legs[key] = LegEndpoint(self, key, request)
                try:
                    self._session.admit(key, verdict)
                except BaseException:
                    del self._legs[key]
                    raise
                return leg
        self._session.reject(key, Reject(message="the root could not decide"))
        raise SpiError(WSAEINVAL, f"a condition may not return {verdict!r}", call="accept")

    # Invitations

    def start_join_leaf(
        self,
        address: Address,
        *,
        caller_data: bytes = b"",
        qos: Qos | None = None,
        role: JoinRole = JoinRole.BOTH,
        timeout: float | None = None,
    ) -> Endpoint:
        """WSPJoinLeaf on a nonblocking c_root: invite one leaf."""
        self._check_may_invite()
        check_join_arguments(address, caller_data, self._info)
        places = resolve(address)

        def start() -> LegEndpoint:
            self._check_may_invite()
            asked = qos if qos is not None else self._qos
            self._session.check_capacity(asked)
            if self._sock is None:
                self.bind(Address(""))
            now = time.monotonic_ns()
            key = self._driver.new_key()
            self._take_role(role)
            self._session.invite(
                key,
                address,
                self.local_address,
                now,
                data=bytes(caller_data),
                qos=asked,
                deadline_ns=None if timeout is None else now + int(timeout * 1e9),
            )
            self._machine.handle(RootInput.INVITE, call="join_leaf")
            leg = self._legs[key] = self._pending = LegEndpoint(self, key, None)
            self._outcome = None
            self._driver.connect(key, places, None)
            return leg

        return self._driver.run(start)

    def _check_may_invite(self) -> None:
        if not self._machine.allows(RootInput.INVITE):
            self._machine.handle(RootInput.INVITE, call="join_leaf")

    def _take_role(self, role: JoinRole) -> None:
        """Later legs with another role make it the union (model 10.2)."""
        if not self._had_leg and self._pending is None:
            self._session.set_role(role)
        elif role is not self._session.myself.role:
            self._session.set_role(JoinRole.BOTH)

    def join_leaf(
        self,
        address: Address,
        *,
        caller_data: bytes = b"",
        qos: Qos | None = None,
        role: JoinRole = JoinRole.BOTH,
        timeout: float | None = None,
    ) -> Joined:
        """WSPJoinLeaf on a blocking c_root."""
        leg = self.start_join_leaf(
            address, caller_data=caller_data, qos=qos, role=role, timeout=timeout
        )
        try:
            self._driver.wait_for(lambda: self._outcome, None)
        except BaseException:
            leg.close()
            raise
        return self.join_result()

    def join_result(self) -> Joined:
        """Outcome of the last started join."""
        if self._outcome is None:
            pending = self._machine.state is RootState.JOINING
            code, text = (WSAEALREADY, "still joining") if pending else (WSAEINVAL, "never joined")
            raise SpiError(code, text, call="join_result")
        if isinstance(self._outcome, SpiError):
            raise self._outcome
        return self._outcome

    def _invitation_done(self, leg: LegEndpoint, answer: Answer) -> Callbacks:
        self._machine.handle(RootInput.INVITE_DONE)
        qos = self._session.legs[leg.key].qos
        self._outcome = Joined(leg, answer.data, qos)
        self._pending = None
        leg.activate(answer)
        calls = self._indicate(EndpointEvent(c.FD_CONNECT))
        if not self._had_leg:
            calls += self._indicate(EndpointEvent(c.FD_WRITE))
        return calls

    def _invitation_failed(self, key: int, failure: JoinFailed) -> Callbacks:
        leg = self._legs.pop(key, None)
        if leg is None or leg is not self._pending:
            return []
        self._machine.handle(RootInput.INVITE_FAILED)
        self._pending = None
        leg.fail()
        self._outcome = SpiError(
            failure.code,
            failure.message,
            call="join_leaf",
            reason=EndReason.REFUSED,
            data=failure.data,
        )
        return self._indicate(EndpointEvent(c.FD_CONNECT, failure.code))

    def cancel_invitation(self, leg: LegEndpoint) -> None:
        """The pending leg was closed (clauses 74, 75). Under the lock."""
        if self._pending is leg:
            self._machine.handle(RootInput.INVITE_CANCELLED)
            self._pending = None
            self._outcome = SpiError(WSAEINTR, "the join was cancelled", call="join_leaf")

    # Outputs of the session

    def _dispatch(self, outputs: Iterable[Output]) -> Callbacks:
        calls: Callbacks = []
        for output in outputs:
            calls += self._output(output)
        return calls

    def _output(self, output: Output) -> Callbacks:
        match output:
            case Arrived(key, batch, size):
                target: EndpointBase | None = self._legs.get(key) if batch.side else self
                return target._put(batch, size) if target is not None else []
            case RequestWaiting():
                return self._indicate(EndpointEvent(c.FD_ACCEPT))
            case RequestGone(key, reason):
                if key in self._deciding:
                    self._deciding[key] = reason
            case LegJoined(key, answer):
                calls = []
                if answer is not None and key in self._legs:
                    calls = self._invitation_done(self._legs[key], answer)
                self._had_leg = True
                return calls
            case JoinEnded(key, failure):
                return self._invitation_failed(key, failure)
            case LegEnded(key, reason, _, _):
                if (leg := self._legs.pop(key, None)) is not None:
                    self._remember(leg, reason)
                    return leg.end(output)
            case QosChanged(key, qos):
                if (leg := self._legs.get(key)) is not None:
                    return leg.qos_changed(qos)
            case RosterAsked(key):
                self._answer_who(key)
        return []

    # Data

    def send_many(
        self,
        messages: Sequence[Buffer],
        *,
        timeout: float | None = None,
        to: Collection[Endpoint] | None = None,
    ) -> None:
        """WSPSend to every leaf that hears the root, or to some."""
        with self._sending:
            deadline = None if timeout is None else time.monotonic() + timeout
            waits = to is not None or self._settings.slow is SlowPolicy.WAIT
            if waits and not self._driver.has_room():
                self._await_room(self._targets(to), deadline, timeout)
            if self._bucket is not None:  # last: what it takes out is for what is really sent
                self._targets(to)
                self._shape(total_bytes(messages), deadline, timeout)
            self._commit(messages, to, deadline, waits=waits)

    def _targets(self, to: Collection[Endpoint] | None) -> Sequence[int]:
        self._check_open("send")
        if self._cannot_send or self._machine.state is RootState.DISSOLVED:
            raise SpiError(WSAESHUTDOWN, "the session was dissolved", call="send")
        check_may_send(self._session.myself.role)
        with self._driver.lock:
            if to is None:
                keys: Sequence[int] = self._session.listeners(self._session.myself)
            else:
                keys = list(dict.fromkeys(leg.key for leg in to if self._has(leg)))
        if not keys:
            raise SpiError(WSAENOTCONN, "nobody is there to hear it", call="send")
        return keys

    def _has(self, leg: Endpoint) -> TypeGuard[LegEndpoint]:
        return isinstance(leg, LegEndpoint) and self._legs.get(leg.key) is leg and leg.is_active

    def _commit(
        self,
        messages: Sequence[Buffer],
        to: Collection[Endpoint] | None,
        deadline: float | None,
        *,
        waits: bool,
    ) -> None:

        def queue() -> tuple[Sequence[int], PackedBatch]:
            keys = self._targets(to)  # again: members may have come and gone while it waited
            some = None if to is None else keys
            return keys, self._session.send(messages, time.monotonic_ns(), some)

        self._send_off(queue, deadline, waits=waits)

    def _is_for_me(self, arrived: Arrived) -> bool:
        return not arrived.batch.side

    def _check_may_receive(self) -> None:
        self._check_open("receive")
        check_may_receive(self._session.myself.role)

    # The end

    def shutdown(self, how: int, *, data: bytes = b"") -> None:
        """WSPShutdown; SD_SEND and SD_BOTH dissolve the session."""
        check_disconnect_data(data, MAX_CONNECT_DATA)
        self._check_open("shutdown")
        if how not in (c.SD_RECEIVE, c.SD_SEND, c.SD_BOTH):
            raise SpiError(WSAEINVAL, f"{how} is no way to shut down", call="shutdown")
        if how != c.SD_SEND:
            self._stop_receiving()
        if how != c.SD_RECEIVE:
            calls = self._driver.run(
                lambda: self._dissolve(RootInput.DISSOLVE, data, EndReason.DISSOLVED)
            )
            for call in calls:
                call()

    def close(
        self,
        *,
        data: bytes = b"",
        abort: bool = False,
        linger: float | None = None,
        reason: EndReason | None = None,
    ) -> None:
        """WSPCloseSocket: the session ends for every leg."""
        check_disconnect_data(data, MAX_CONNECT_DATA)
        calls: Callbacks = []

        def close() -> None:
            if self._closed:
                if abort:  # whoever has not taken leave yet is not waited for any more
                    self._driver.dispose()
                return
            calls.extend(
                self._dissolve(RootInput.CLOSE, data, reason or EndReason.DISSOLVED, abort)
            )
            self._closed = True
            self._hold(False)
            if self._sock is not None and not self._listening:
                self._sock.close()
            if self._ready is not None:
                self._ready.close()
            self._driver.cancel()
            self._driver.finish()

        self._driver.run(close)
        for call in calls:
            call()
        self._wait_for_peers(self._settings.linger if linger is None else linger)

    def _dissolve(
        self, kind: RootInput, data: bytes, reason: EndReason, abort: bool = False
    ) -> Callbacks:
        """End every leg, pending or active, and stop listening. Under the lock."""
        if self._pending is not None:
            self.cancel_invitation(self._pending)
        self._machine.handle(kind, call="close")
        self._driver.stop_listening()
        now, linger_ns = time.monotonic_ns(), int(self._settings.linger * 1e9)
        calls: Callbacks = []
        for key in list(self._session.legs):
            if abort:
                self._driver.reset_connection(key)
                self._session.abort_leg(key)
            else:
                self._session.close_leg(key, reason, data, now, linger_ns)
            if (leg := self._legs.pop(key, None)) is not None:
                self._remember(leg, reason)
                calls += leg.end(LegEnded(key, reason, WSAECONNRESET if abort else 0, data))
        return calls

    # Who is there

    def statistics(self) -> Mapping[str, int]:
        """Counters since it was opened, and gauges: legs, requests_waiting, bytes_queued."""
        with self._driver.lock:
            session = self._session
            return {
                **session.counters,
                "legs": len(session.members),
                "membership": session.view,
                "requests_waiting": len(session.queue),
                "connections": len(session.legs),
                "bytes_queued": sum(leg.association.outbox.size for leg in session.legs.values()),
                "bytes_received_waiting": self._inbox.size,
            }

    def _answer_who(self, key: int) -> None:
        """Only this host may ask; a roster is nothing for strangers."""
        association = self._session.legs[key].association
        peer, local = association.peer, association.local
        if not peer.is_loopback and (peer.ip is None or peer.ip != local.ip):
            self._session.count("roster_queries_refused")
            return
        rows = [leg.roster_row() for leg in self._legs.values() if leg.is_active][:10_000]
        former = list(self._former)
        # Long names can make it longer than a control frame may be; then the oldest are told.
        while len(encode(roster := self._roster(rows, former))) > MAX_CONTROL_BODY:
            rows, former = rows[: len(rows) // 2], former[len(former) // 2 :]
        self._session.answer_who(key, roster)

    def _roster(self, rows: list[RosterRow], former: list[RosterRow]) -> Roster:
        return Roster(self.session_id, self._session.view, rows, former)

    def _remember(self, leg: LegEndpoint, reason: EndReason) -> None:
        if leg.is_active:
            self._former.append(leg.roster_row(str(reason)))


class LegEndpoint(EndpointBase):
    """The root's side of one leg (clauses 89 to 100).

    Attributes:
        key: The leg's number in the driver.
        request: What the leaf asked with; None where the root invited.
    """

    _takes_requests = False

    def __init__(self, root: RootEndpoint, key: int, request: JoinRequest | None) -> None:
        super().__init__(root.info, Roles(c_root=False, d_root=False), root._settings, root._driver)
        forget_at_exit(self)  # the root closes it
        self.key = self._hold_key = key
        self.request = request
        self._root = root
        self._callback = root._callback
        self._pending = request is None
        self._failed = False
        self._since_ms = time.time_ns() // 1_000_000
        leg = root._session.legs[key]
        self._peer = leg.association.peer
        self._name = request.name if request is not None else ""

    @property
    def is_active(self) -> bool:
        """Whether its leaf is a member."""
        return not (self._pending or self._failed or self._closed) and self._ended is None

    @property
    def session_id(self) -> bytes:
        """The session's identity."""
        return self._root.session_id

    @property
    def local_address(self) -> Address:
        """The root's address."""
        return self._root.local_address

    @property
    def peer_address(self) -> Address:
        """The leaf's address."""
        if self._pending or self._failed:
            raise SpiError(WSAENOTCONN, "the join is not done", call="peer_address")
        return self._peer

    @property
    def qos(self) -> Qos | None:
        """The agreed flow specifications of this leg."""
        leg = self._root._session.legs.get(self.key)
        return leg.qos if leg is not None else self._qos

    def activate(self, answer: Answer) -> None:
        """The invited leaf said yes. Under the lock."""
        self._pending = False
        self._name = answer.name

    def fail(self) -> None:
        """The invited leaf said no, or nothing. Under the lock."""
        self._pending, self._failed = False, True

    def end(self, ended: LegEnded) -> Callbacks:
        """The membership is over. Under the lock."""
        self._pending = False
        if self._ended is None and not self._closed:
            self._ended = ended
            if self._ready is not None:
                self._ready.set(True)
            return self._indicate(close_event(ended))
        return []

    def qos_changed(self, qos: Qos) -> Callbacks:
        """FD_QOS. Under the lock."""
        self._qos = qos
        return self._indicate(EndpointEvent(c.FD_QOS))

    def roster_row(self, left: str = "") -> RosterRow:
        """This leg as others may see it. Under the lock."""
        leg = self._root._session.legs.get(self.key)
        member = leg.member if leg is not None else None
        role = member.role if member is not None else self.request.role if self.request else 4
        return RosterRow(
            address=str(self._peer)[:255],
            name=self._name,
            role=int(role),
            since_ms=self._since_ms,
            queued_bytes=leg.association.outbox.size if leg is not None else 0,
            dropped=leg.dropped if leg is not None else 0,
            left=left,
            left_ms=time.time_ns() // 1_000_000 if left else 0,
        )

    def _refuse(self, call: str, code: int) -> SpiError:
        if self._closed:
            return closed_error(call)
        return SpiError(code, f"a leg cannot {call}", call=call)

    def bind(self, address: Address) -> None:
        """A leg is bound already."""
        raise self._refuse("bind", WSAEINVAL)

    def listen(self, backlog: int | None = None) -> None:
        """A leg cannot listen."""
        raise self._refuse("listen", WSAEINVAL)

    def accept(
        self, condition: Condition | None = None, *, timeout: float | None = None
    ) -> Endpoint:
        """A leg cannot accept."""
        raise self._refuse("accept", WSAEINVAL)

    def take_request(self, *, timeout: float | None = None) -> TakenRequest:
        """A leg cannot accept."""
        raise self._refuse("accept", WSAEINVAL)

    def join_leaf(
        self,
        address: Address,
        *,
        caller_data: bytes = b"",
        qos: Qos | None = None,
        role: JoinRole = JoinRole.BOTH,
        timeout: float | None = None,
    ) -> Joined:
        """A leg cannot join again (model 6.7)."""
        if self._pending:
            raise self._refuse("join_leaf", WSAEALREADY)
        raise self._refuse("join_leaf", WSAEISCONN if self.is_active else WSAEINVAL)

    def start_join_leaf(
        self,
        address: Address,
        *,
        caller_data: bytes = b"",
        qos: Qos | None = None,
        role: JoinRole = JoinRole.BOTH,
        timeout: float | None = None,
    ) -> Endpoint:
        """As join_leaf."""
        return self.join_leaf(address).endpoint

    def join_result(self) -> Joined:
        """A leg never joined by itself."""
        raise self._refuse("join_result", WSAEINVAL)

    def send_many(
        self,
        messages: Sequence[Buffer],
        *,
        timeout: float | None = None,
        to: Collection[Endpoint] | None = None,
    ) -> None:
        """Side chat to this leaf; always waits for room, whatever the policy."""
        with self._sending:
            self._check_alive("send")
            deadline = None if timeout is None else time.monotonic() + timeout
            keys = (self.key,)
            self._await_room(keys, deadline, timeout)

            def queue() -> tuple[Sequence[int], PackedBatch]:
                self._check_alive("send")
                return keys, self._root._session.send_side(self.key, messages)

            self._send_off(queue, deadline)

    def _check_alive(self, call: str) -> None:
        if self._closed:
            raise closed_error(call)
        if self._ended is not None:
            raise ended_error(self._ended, call)
        if self._cannot_send and call == "send":
            raise SpiError(WSAESHUTDOWN, "sending was shut down", call=call)
        if self._pending or self._failed:
            raise SpiError(WSAENOTCONN, "the join is not done", call=call)

    def _is_for_me(self, arrived: Arrived) -> bool:
        return arrived.key == self.key and arrived.batch.side

    def _check_may_receive(self) -> None:
        if self._closed:
            raise closed_error("receive")
        if self._pending or self._failed:
            raise SpiError(WSAENOTCONN, "the join is not done", call="receive")

    def shutdown(self, how: int, *, data: bytes = b"") -> None:
        """SD_SEND and SD_BOTH end the membership of this leaf."""
        self._check_alive("shutdown")
        if how != c.SD_SEND:
            self._stop_receiving()
        if how != c.SD_RECEIVE:
            self._cannot_send = True
            self._driver.run(lambda: self._leave(EndReason.EXPELLED, data, abort=False))

    def _leave(self, reason: EndReason, data: bytes, *, abort: bool) -> None:
        """End the membership or the invitation. Under the lock, inside ``run``."""
        root = self._root
        if self._pending:
            root.cancel_invitation(self)
        if self.is_active:
            root._remember(self, reason)
        root._legs.pop(self.key, None)
        if abort:
            self._driver.reset_connection(self.key)
            root._session.abort_leg(self.key)
            return
        linger_ns = int(self._settings.linger * 1e9)
        root._session.close_leg(self.key, reason, data, time.monotonic_ns(), linger_ns)

    def close(
        self,
        *,
        data: bytes = b"",
        abort: bool = False,
        linger: float | None = None,
        reason: EndReason | None = None,
    ) -> None:
        """WSPCloseSocket: expels the leaf, or cancels a pending invitation. Does not wait."""
        check_disconnect_data(data, MAX_CONNECT_DATA)

        def close() -> None:
            if self._closed:
                return
            if self._ended is None and not self._failed:
                self._leave(reason or EndReason.EXPELLED, data, abort=abort)
            self._closed = True
            if self._holding:
                self._hold(False)
            if self._ready is not None:
                self._ready.close()
            self._driver.changed.notify_all()
            self._driver.waiter.interrupt()

        self._driver.run(close)

    def statistics(self) -> Mapping[str, int]:
        """bytes_queued, bytes_sent, messages_dropped."""
        with self._driver.lock:
            leg = self._root._session.legs.get(self.key)
            if leg is None:
                return {"bytes_queued": 0, "bytes_sent": 0, "messages_dropped": 0}
            outbox = leg.association.outbox
            return {
                "bytes_queued": outbox.size,
                "bytes_sent": outbox.sent_bytes,
                "messages_dropped": leg.dropped,
            }
