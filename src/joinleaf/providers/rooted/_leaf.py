"""The c_leaf over TCP: joins a root, or listens for invitations."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from joinleaf.core.association import JoinFailed
from joinleaf.core.data_plane import check_may_receive, check_may_send
from joinleaf.core.leaf_rooted import LeafInput, LeafMachine, LeafState
from joinleaf.core.leaf_session import LeafSession
from joinleaf.core.session import (
    Arrived,
    GroupOffered,
    JoinEnded,
    LegEnded,
    LegJoined,
    Output,
    QosChanged,
    RequestGone,
    RequestWaiting,
)
from joinleaf.core.wire.control import MAX_CONNECT_DATA, GroupFacts
from joinleaf.core.wire.data import PackedBatch
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
    close_event,
    ended_error,
    total_bytes,
)
from joinleaf.providers.rooted._group import hear_group
from joinleaf.providers.rooted._listening import ListeningEndpoint, check_join_arguments, plain
from joinleaf.spi import constants as c
from joinleaf.spi.codes import (
    WSAEINVAL,
    WSAENOTCONN,
    WSAEOPNOTSUPP,
    WSAESHUTDOWN,
    WSAETIMEDOUT,
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
)
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.values import IDENTITY_BYTES, Address

__all__ = ["LeafEndpoint"]


class LeafEndpoint(ListeningEndpoint):
    """The c_leaf; see the package."""

    _called = "the leaf"

    def __init__(
        self,
        info: ProtocolInfo,
        roles: Roles,
        settings: Settings,
        side: Side | None = None,
        *,
        hears_groups: bool = True,
    ) -> None:
        self._hears_groups = hears_groups
        self._session = LeafSession(
            settings,
            incarnation=settings.incarnation or os.urandom(IDENTITY_BYTES),
            d_root=roles.d_root,
            scratch=new_scratch(),
        )
        self._session.own_leg = not hears_groups
        driver = StreamDriver(self._session, self._dispatch, side)
        super().__init__(info, roles, settings, driver, side)
        self._machine = LeafMachine()
        self._peer: Address | None = None
        self._key = 0
        self._refused = ""  # why the last wish for other flow specifications was

    @property
    def session_id(self) -> bytes:
        """The session's identity, once joined."""
        facts = self._session.facts
        return facts.session if facts is not None else b""

    @property
    def peer_address(self) -> Address:
        """WSPGetPeerName: the root."""
        if self._peer is None or self._machine.state not in (LeafState.JOINED, LeafState.BROKEN):
            raise SpiError(WSAENOTCONN, "not joined", call="peer_address")
        return self._peer

    @property
    def peer_identity(self) -> str:
        """Whom the root has shown that it is; ``""`` before the join, or in cleartext."""
        leg = self._session.legs.get(self._key)
        return leg.association.identity if leg is not None else ""

    # Joining

    def bind(self, address: Address) -> None:
        """WSPBind."""
        with self._driver.lock:
            self._check_open("bind")
            if self._local is not None or self._machine.state is not LeafState.IDLE:
                raise SpiError(WSAEINVAL, f"already bound to {self._local}", call="bind")
            self._sock = listen_on(address)
            self._local = address_of(self._sock.getsockname())

    def start_join_leaf(
        self,
        address: Address,
        *,
        caller_data: bytes = b"",
        qos: Qos | None = None,
        role: JoinRole = JoinRole.BOTH,
        timeout: float | None = None,
    ) -> Endpoint:
        """WSPJoinLeaf on a nonblocking c_leaf: ask the root."""
        self._check_may_join()
        check_join_arguments(address, caller_data, self._info)
        make, address = self._side.connecting(address), plain(address)
        places = resolve(address)

        def start() -> None:
            self._check_may_join()
            now = time.monotonic_ns()
            self._key = key = self._driver.new_key()
            self._session.join(
                key,
                address,
                self._local or Address(""),
                now,
                data=bytes(caller_data),
                qos=qos if qos is not None else self._qos,
                role=role,
                deadline_ns=None if timeout is None else now + int(timeout * 1e9),
            )
            self._machine.handle(LeafInput.JOIN, call="join_leaf")
            self._outcome = None
            self._peer = address
            local, self._sock = self._sock, None
            self._driver.connect(key, places, local, make)
            self._local = self._driver.local_address(key) or self._local

        self._driver.run(start)
        return self

    def _check_may_join(self) -> None:
        if not self._machine.allows(LeafInput.JOIN):
            self._machine.handle(LeafInput.JOIN, call="join_leaf")

    def join_leaf(
        self,
        address: Address,
        *,
        caller_data: bytes = b"",
        qos: Qos | None = None,
        role: JoinRole = JoinRole.BOTH,
        timeout: float | None = None,
    ) -> Joined:
        """WSPJoinLeaf on a blocking c_leaf."""
        began = self._driver.cancellations
        self.start_join_leaf(address, caller_data=caller_data, qos=qos, role=role, timeout=timeout)
        try:
            self._driver.wait_for(lambda: self._outcome, None, began=began)
        except BaseException:
            self._driver.run(self._cancel_join)
            raise
        return self.join_result()

    def _cancel_join(self) -> None:
        if self._machine.state is LeafState.JOINING:
            self._machine.handle(LeafInput.JOIN_CANCELLED)
            now = time.monotonic_ns()
            self._session.close_leg(self._key, EndReason.CANCELLED, b"", now, 0)

    # Invitations

    def listen(self, backlog: int | None = None) -> None:
        """WSPListen: wait for invitations; only multipoint requests are taken."""
        with self._driver.lock:
            self._check_open("listen")
            if self._sock is None and self._machine.state is LeafState.IDLE:
                raise SpiError(WSAEINVAL, "bind before listen", call="listen")
            self._machine.handle(LeafInput.LISTEN, call="listen")
            if backlog is not None:
                self._session.backlog = max(1, backlog)
            assert self._sock is not None
            self._side.listen()
            self._driver.listen(self._sock, self._session.backlog)
        self._drop_excess()

    @property
    def _listens(self) -> bool:
        return self._machine.state is LeafState.LISTENING

    @property
    def _joining(self) -> bool:
        return self._machine.state is LeafState.JOINING

    def _make_accepted(self, key: int, request: JoinRequest, verdict: Accept) -> LeafEndpoint:
        self._session.admit(key, verdict)
        return self._make_member(key)

    def _start_accepted(self, accepted: EndpointBase) -> None:
        accepted._driver.start_adopted()

    def _make_member(self, key: int) -> LeafEndpoint:
        """Move the leg from this listener to an endpoint of its own."""
        member = LeafEndpoint(
            self._info, self._roles, self._settings, self._side, hears_groups=self._hears_groups
        )
        leg = self._session.legs[key]
        with member._driver.lock:
            member._callback = self._callback
            member._machine = LeafMachine(LeafState.JOINED)
            member._local, member._peer = leg.association.local, leg.association.peer
            member._key = self._driver.hand_over(key, member._driver)
            self._session.removed(key)
            member._session.adopt(member._key, leg)
            member._was_invited = True
            member._set_qos(leg.qos)
        return member

    # Outputs of the session

    def _output(self, output: Output) -> Callbacks:
        match output:
            case Arrived(_, batch, size):
                return self._put(batch, size)
            case RequestWaiting():
                return self._indicate(EndpointEvent(c.FD_ACCEPT))
            case RequestGone(key, reason):
                self._request_gone(key, reason)
            case LegJoined(key, answer) if answer is not None:
                return self._joined(key, answer.data)
            case JoinEnded(_, failure):
                return self._join_failed(failure)
            case LegEnded():
                return self._end(output)
            case GroupOffered(key, facts) if self._hears_groups:
                self._hear_group(key, facts)
            case QosChanged(_, qos, refused):
                self._set_qos(qos)
                self._refused = refused
                code = WSAEOPNOTSUPP if refused else 0
                return self._indicate(EndpointEvent(c.FD_QOS, code))
        return []

    def _hear_group(self, key: int, facts: GroupFacts) -> None:
        local = self._driver.local_address(key) or Address("")
        link = hear_group(
            self._session, key, facts, self._settings, local, sealed=self._side.secures
        )
        if link is not None:
            self._driver.use_link(link)

    def _joined(self, key: int, data: bytes) -> Callbacks:
        self._machine.handle(LeafInput.JOIN_DONE)
        if self._machine.state is not LeafState.JOINED:
            return []
        qos = self._session.legs[key].qos
        self._set_qos(qos)
        self._local = self._driver.local_address(key) or self._local
        self._outcome = Joined(self, data, qos)
        return self._indicate(EndpointEvent(c.FD_CONNECT)) + self._indicate(
            EndpointEvent(c.FD_WRITE)
        )

    def _join_failed(self, failure: JoinFailed) -> Callbacks:
        self._machine.handle(LeafInput.JOIN_FAILED)
        self._outcome = SpiError(
            failure.code,
            failure.message,
            call="join_leaf",
            hint=failure.hint,
            # A host where nobody listens answers with the same number; only a root refuses.
            reason=EndReason.REFUSED if failure.refused else "",
            data=failure.data,
        )
        return self._indicate(EndpointEvent(c.FD_CONNECT, failure.code))

    def _end(self, ended: LegEnded) -> Callbacks:
        self._machine.handle(LeafInput.ENDED)
        if self._ended is None:
            self._ended = ended
        if self._ready is not None:
            self._ready.set(True)
        return self._indicate(close_event(ended))

    # Flow specifications

    def _keep_to(self, sending: FlowSpec | None) -> None:
        self._session.shape(self._key, sending, time.monotonic_ns())

    def ioctl(self, code: int, value: Any = None) -> Any:
        """WSPIoctl; as a member SIO_SET_QOS asks the root, and FD_QOS tells what holds then.

        It waits for that, unless it is called by the thread that would have to bring it.

        Raises:
            SpiError: WSAEOPNOTSUPP, the root refused it, and what was agreed holds; WSAETIMEDOUT.
        """
        joined = self._machine.state is LeafState.JOINED and self._ended is None
        if code != c.SIO_SET_QOS or not isinstance(value, Qos) or not joined or self._closed:
            return super().ioctl(code, value)
        self._refused = ""
        self._driver.run(lambda: self._session.ask_qos(self._key, value))
        if not self._driver.runs_in_reactor:
            self._await_qos(value)
        return None

    def _await_qos(self, value: Qos) -> None:
        timeout = self._settings.join_timeout
        done = self._driver.wait_for(
            lambda: bool(self._gone() or self._refused or self._qos == value) or None, timeout
        )
        if self._refused:
            raise SpiError(WSAEOPNOTSUPP, self._refused, call="ioctl")
        if not done:
            raise SpiError(WSAETIMEDOUT, f"the root did not answer in {timeout} s", call="ioctl")

    # Data

    def send_many(
        self,
        messages: Sequence[Buffer],
        *,
        timeout: float | None = None,
        to: Collection[Endpoint] | None = None,
    ) -> None:
        """WSPSend to whoever hears this leaf: the d_root, or all others."""
        with self._sending:
            deadline = None if timeout is None else time.monotonic() + timeout
            keys = (self._key,)
            if self._bucket is not None or self._driver.lane is None:
                if not self._driver.has_room():
                    self._check_may_send()
                    self._await_room(keys, deadline, timeout)
                if self._bucket is not None:
                    self._check_may_send()
                    self._shape(total_bytes(messages), deadline, timeout)

            def queue() -> tuple[Sequence[int], PackedBatch]:
                self._check_may_send()
                return keys, self._session.send(self._key, messages)

            self._send_off(queue, deadline, to_all=messages)

    def _check_may_send(self) -> None:
        self._check_open("send")
        self._check_member("send")
        if self._cannot_send:
            raise SpiError(WSAESHUTDOWN, "sending was shut down", call="send")
        check_may_send(self._session.myself.role)

    def _is_for_me(self, arrived: Arrived) -> bool:
        return True  # session data and side chat alike

    def _check_may_receive(self) -> None:
        self._check_open("receive")
        if not self._inbox and self._ended is None:
            self._check_member("receive")
        check_may_receive(self._session.myself.role)

    def _check_member(self, call: str) -> None:
        if self._ended is not None:
            raise ended_error(self._ended, call)
        if self._machine.state is not LeafState.JOINED:
            raise SpiError(WSAENOTCONN, "not joined", call=call, hint="Join first")

    # The end

    def shutdown(self, how: int, *, data: bytes = b"") -> None:
        """WSPShutdown; SD_SEND and SD_BOTH leave the session."""
        check_disconnect_data(data, MAX_CONNECT_DATA)
        self._check_open("shutdown")
        self._check_member("shutdown")
        if how not in (c.SD_RECEIVE, c.SD_SEND, c.SD_BOTH):
            raise SpiError(WSAEINVAL, f"{how} is no way to shut down", call="shutdown")
        if how != c.SD_SEND:
            self._stop_receiving()
        if how != c.SD_RECEIVE:
            self._cannot_send = True
            self._driver.run(lambda: self._leave(EndReason.CLOSED, data))

    def _leave(self, reason: EndReason, data: bytes) -> None:
        now, linger_ns = time.monotonic_ns(), int(self._settings.linger * 1e9)
        for key in list(self._session.legs):
            self._session.close_leg(key, reason, data, now, linger_ns)

    def close(
        self,
        *,
        data: bytes = b"",
        abort: bool = False,
        linger: float | None = None,
        reason: EndReason | None = None,
    ) -> None:
        """WSPCloseSocket: leave, cancel a pending join, or stop listening."""
        check_disconnect_data(data, MAX_CONNECT_DATA)

        def close() -> None:
            if self._closed:
                if abort:  # the root is not waited for any more
                    self._driver.dispose()
                return
            self._machine.handle(LeafInput.CLOSE)
            self._closed = True
            self._hold(False)
            self._driver.stop_listening()
            if abort:
                for key in list(self._session.legs):
                    self._driver.reset_connection(key)
                    self._session.abort_leg(key)
            else:
                self._leave(reason or EndReason.CLOSED, data)
            if self._sock is not None:
                self._sock.close()
            if self._ready is not None:
                self._ready.close()
            self._driver.cancel()
            self._driver.finish()

        self._driver.run(close)
        self._wait_for_peers(self._settings.linger if linger is None else linger)

    def statistics(self) -> Mapping[str, int]:
        """Counters since it was opened, and gauges."""
        with self._driver.lock:
            return {
                **self._session.counters,
                "requests_waiting": len(self._session.queue),
                "bytes_queued": sum(
                    leg.association.outbox.size for leg in self._session.legs.values()
                ),
                "bytes_received_waiting": self._inbox.size,
            }
