"""The root's side of one leg: what its accept and its join_leaf return."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from joinleaf.core.root_carriage import Carrier
from joinleaf.core.session import (
    Arrived,
    LegEnded,
)
from joinleaf.core.wire.control import MAX_CONNECT_DATA, Answer, RosterRow
from joinleaf.core.wire.data import PackedBatch
from joinleaf.errors import SpiError
from joinleaf.providers.rooted._base import (
    Callbacks,
    EndpointBase,
    check_disconnect_data,
    close_event,
    closed_error,
    ended_error,
    forget_at_exit,
)
from joinleaf.spi import constants as c
from joinleaf.spi.codes import (
    WSAEALREADY,
    WSAEINVAL,
    WSAEISCONN,
    WSAENOTCONN,
    WSAESHUTDOWN,
)
from joinleaf.spi.provider import (
    Buffer,
    Condition,
    Endpoint,
    EndpointEvent,
    EndReason,
    Joined,
    JoinRequest,
    JoinRole,
    Roles,
    TakenRequest,
)
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.values import Address

if TYPE_CHECKING:
    from joinleaf.providers.rooted._root import RootEndpoint

__all__ = ["LegEndpoint"]


class LegEndpoint(EndpointBase):
    """The root's side of one leg (clauses 89 to 100).

    Attributes:
        key: The leg's number in the driver.
        request: What the leaf asked with; None where the root invited.
    """

    _takes_requests = False
    _hears_session = False

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
        self._identity = request.identity if request is not None else ""

    @property
    def session_key(self) -> str:
        """Nobody connects to a leg."""
        return ""

    @property
    def asks_proof(self) -> bool:
        """Nobody connects to a leg."""
        return False

    @property
    def peer_identity(self) -> str:
        """Who the leaf is, as far as verified."""
        leg = self._root._session.legs.get(self.key)
        if leg is not None:
            self._identity = leg.association.identity
        return self._identity

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

    def ioctl(self, code: int, value: Any = None) -> Any:
        """WSPIoctl; SIO_SET_QOS agrees on something else with this leaf, which is told."""
        if code != c.SIO_SET_QOS or not isinstance(value, Qos):
            return super().ioctl(code, value)
        self._check_alive("ioctl")
        session, now_ns = self._root._session, time.monotonic_ns()
        return self._driver.run(lambda: session.change_qos(self.key, value, now_ns))

    def _keep_to(self, sending: FlowSpec | None) -> None:
        """The session keeps its legs to what was agreed; nothing is sent here."""

    def qos_changed(self) -> Callbacks:
        """FD_QOS. Under the lock."""
        return self._indicate(EndpointEvent(c.FD_QOS))

    @property
    def carrier(self) -> Carrier:
        """What serves this leaf. Under the lock."""
        carriage = self._root._session.carriage
        return carriage.carrier(self.key) if carriage is not None else Carrier.LEG

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
            dropped=self._root._session.dropped(self.key),
            carrier=str(self.carrier),
            left=left,
            identity=self.peer_identity,
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
        """bytes_queued, bytes_sent, messages_dropped; on_group: whether the group serves it."""
        with self._driver.lock:
            leg = self._root._session.legs.get(self.key)
            if leg is None:
                return {"bytes_queued": 0, "bytes_sent": 0, "messages_dropped": 0}
            outbox = leg.association.outbox
            return {
                "bytes_queued": outbox.size + self._root._session.under_way(self.key),
                "bytes_sent": outbox.sent_bytes,
                "messages_dropped": self._root._session.dropped(self.key),
                "on_group": int(self.carrier is Carrier.GROUP),
            }
