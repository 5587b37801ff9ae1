"""The c_root over TCP."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Final, TypeGuard

from joinleaf.core.association import JoinFailed
from joinleaf.core.data_plane import check_may_receive, check_may_send
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
from joinleaf.drivers.sides import Side
from joinleaf.drivers.stream_traffic import new_scratch
from joinleaf.drivers.streams import StreamDriver
from joinleaf.errors import SpiError
from joinleaf.providers.rooted._base import (
    Callbacks,
    EndpointBase,
    check_disconnect_data,
    total_bytes,
)
from joinleaf.providers.rooted._group import open_group
from joinleaf.providers.rooted._leg import LegEndpoint
from joinleaf.providers.rooted._listening import ListeningEndpoint, check_join_arguments, plain
from joinleaf.spi import constants as c
from joinleaf.spi.codes import (
    WSAECONNRESET,
    WSAEINTR,
    WSAEINVAL,
    WSAENOTCONN,
    WSAESHUTDOWN,
)
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.provider import (
    Accept,
    Buffer,
    Endpoint,
    EndpointEvent,
    EndReason,
    Joined,
    JoinRequest,
    JoinRole,
    Roles,
    Settings,
    SlowPolicy,
)
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.values import IDENTITY_BYTES, Address

__all__ = ["RootEndpoint"]

FORMER_KEPT: Final = 100
"""Members that have left and are still in the roster, newest last."""


class RootEndpoint(ListeningEndpoint):
    """The c_root; see the package."""

    _called = "the root"

    def __init__(
        self,
        info: ProtocolInfo,
        roles: Roles,
        settings: Settings,
        side: Side | None = None,
        *,
        group: Address | None = None,
    ) -> None:
        self._group = group
        self._session = RootSession(
            settings,
            session_id=os.urandom(IDENTITY_BYTES),
            incarnation=settings.incarnation or os.urandom(IDENTITY_BYTES),
            rooted=info.data_plane_rooted,
            d_root=roles.d_root,
            scratch=new_scratch(),
        )
        driver = StreamDriver(self._session, self._dispatch, side)
        super().__init__(info, roles, settings, driver, side)
        self._machine = RootMachine()
        self._listening = False
        self._legs: dict[int, LegEndpoint] = {}
        self._pending: LegEndpoint | None = None
        self._had_leg = False
        self._former: deque[RosterRow] = deque(maxlen=FORMER_KEPT)

    @property
    def session_id(self) -> bytes:
        """The session's identity."""
        return self._session.session_id

    @property
    def peer_address(self) -> Address:
        """A c_root has no single peer."""
        raise SpiError(WSAENOTCONN, "a c_root has no single peer", call="peer_address")

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
            if self._group is not None:
                self._open_group(self._group, bound)

    def _open_group(self, group: Address, bound: Address) -> None:
        try:
            link = open_group(
                self._session, group, self._settings, bound, sealed=self._side.secures
            )
        except BaseException as error:
            assert self._sock is not None
            self._sock.close()
            self._sock = self._local = None
            if isinstance(error, SpiError):
                raise _no_group(error, group) from error
            raise
        self._driver.use_link(link)

    def listen(self, backlog: int | None = None) -> None:
        """WSPListen; before, between or after joins (clause 109)."""
        with self._driver.lock:
            self._check_open("listen")
            if self._sock is None:
                raise SpiError(WSAEINVAL, "bind before listen", call="listen")
            self._machine.handle(RootInput.LISTEN, call="listen")
            if backlog is not None:
                self._session.backlog = max(1, backlog)
            self._side.listen()
            self._driver.listen(self._sock, self._session.backlog)
            self._listening = True
        self._drop_excess()

    @property
    def _listens(self) -> bool:
        return self._listening

    @property
    def _joining(self) -> bool:
        return self._machine.state is RootState.JOINING

    def _make_accepted(self, key: int, request: JoinRequest, verdict: Accept) -> LegEndpoint:
        leg = self._legs[key] = LegEndpoint(self, key, request)
        try:
            self._session.admit(key, verdict)
        except BaseException:
            del self._legs[key]
            raise
        return leg

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
        make, address = self._side.connecting(address), plain(address)
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
            self._driver.connect(key, places, None, make)
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
        began = self._driver.cancellations
        leg = self.start_join_leaf(
            address, caller_data=caller_data, qos=qos, role=role, timeout=timeout
        )
        try:
            self._driver.wait_for(lambda: self._outcome, None, began=began)
        except BaseException:
            leg.close()
            raise
        return self.join_result()

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
            hint=failure.hint,
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

    def _output(self, output: Output) -> Callbacks:
        match output:
            case Arrived(key, batch, size):
                target: EndpointBase | None = self._legs.get(key) if batch.side else self
                return target._put(batch, size) if target is not None else []
            case RequestWaiting():
                return self._indicate(EndpointEvent(c.FD_ACCEPT))
            case RequestGone(key, reason):
                self._request_gone(key, reason)
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
            case QosChanged(key):
                if (leg := self._legs.get(key)) is not None:
                    return leg.qos_changed() + self._indicate(EndpointEvent(c.FD_QOS))
            case RosterAsked(key):
                self._answer_who(key)
        return []

    def _keep_to(self, sending: FlowSpec | None) -> None:
        self._session.set_sending(sending, time.monotonic_ns())

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
            if to is not None or self._bucket is not None or self._driver.lane is None:
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

        self._send_off(queue, deadline, waits=waits, to_all=messages if to is None else None)

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
                **session.carried,
                "legs": len(session.members),
                "membership": session.view,
                "requests_waiting": len(session.queue),
                "connections": len(session.legs),
                "bytes_queued": session.queued_bytes,
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


def _no_group(error: SpiError, group: Address) -> SpiError:
    text = str(error).removesuffix(error.hint).rstrip(". ")
    ways = f"{error.hint.rstrip('.')}; or" if error.hint else "Try"
    hint = f"{ways} data=leg, a connection for each leaf"
    return SpiError(error.code, f"cannot send to {group}: {text}", call="bind", hint=hint)
