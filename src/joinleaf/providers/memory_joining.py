"""How joins go in the memory provider: attempts, associations, and what asks and what answers.

A join is an ``Attempt`` of the asker. Where the control plane is rooted it becomes an
``Association`` at the listener, which is what stands in its queue; admitted, the association is the
leg between a root's ``LegEndpoint`` and a ``LeafEndpoint``. What may happen in which state is
decided by the machines of ``core``; all functions here run with the hub's lock held unless they
take it themselves.
"""

from __future__ import annotations

import secrets
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from joinleaf.core.data_plane import Member
from joinleaf.core.leg import LegInput, LegMachine, LegState
from joinleaf.core.tables import Machine
from joinleaf.drivers.reactor import Cancellable, reactor_in_use
from joinleaf.errors import SpiError
from joinleaf.providers.memory_endpoint import MemoryEndpoint, bounded, check_address
from joinleaf.providers.memory_faults import Link
from joinleaf.providers.memory_hub import Hub
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.provider import (
    Accept,
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
    TakenRequest,
)
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.values import IDENTITY_BYTES, Address

if TYPE_CHECKING:
    from joinleaf.providers.memory_members import LeafEndpoint, LegEndpoint, RootEndpoint

__all__ = ["Association", "Attempt", "JoiningEndpoint", "ListeningEndpoint"]


@dataclass(slots=True, eq=False)
class Attempt:
    """One join, from its call to its outcome.

    Attributes:
        asker: Whose it is.
        address: Who is asked.
        request: What the asker sends along.
        waits: Whether a thread waits for it; otherwise the outcome is indicated.
        leg: Of a c_root: the endpoint that the join is to yield.
        association: What stands for it at the listener.
        outcome: How it ended.
        timer: Ends a started join that has a time.
    """

    asker: JoiningEndpoint
    address: Address
    request: JoinRequest
    waits: bool
    leg: LegEndpoint | None = None
    association: Association | None = None
    outcome: Joined | SpiError | None = None
    timer: Cancellable | None = None

    def result(self) -> Joined:
        """The outcome, raised if it is an error; WSAEALREADY while there is none."""
        if self.outcome is None:
            raise SpiError(codes.WSAEALREADY, "the join is still pending", call="join_result")
        if isinstance(self.outcome, SpiError):
            raise self.outcome
        return self.outcome

    def settle(self, outcome: Joined | SpiError) -> bool:
        """Fix the outcome; False if it was fixed before."""
        if self.outcome is not None:
            return False
        self.outcome = outcome
        if self.timer is not None:
            self.timer.cancel()
        return True

    def fail(self, code: int, message: str, *, data: bytes = b"", reason: str = "") -> None:
        """It came to nothing; the asker is told."""
        error = SpiError(code, message, call="join_leaf", data=data, reason=reason)
        if self.settle(error):
            self.asker.join_failed(self, error)

    def give_up(self, code: int) -> None:
        """The asker no longer wants it; the listener's accept gets ``code``."""
        self.settle(SpiError(codes.WSAEINTR, "the join was given up", call="join_leaf"))
        if self.association is not None:
            self.association.withdraw(code)

    def expire(self) -> None:
        """Its time is over: what the timer calls, on the reactor's thread."""
        with self.asker.hub:
            if self.outcome is None:
                self.time_out()

    def time_out(self) -> None:
        """End it with WSAETIMEDOUT (clause 61)."""
        self.fail(codes.WSAETIMEDOUT, f"{self.address.host!r} did not answer in time")
        if self.association is not None:
            self.association.withdraw(codes.WSAEACCES)


@dataclass(slots=True, eq=False)
class Association:
    """A join request at its listener, and the leg it becomes.

    Attributes:
        machine: Where it is, as the answerer sees it.
        root: The c_root it belongs to, whoever asked.
        gone: Once withdrawn before an answer: what accept raises for it.
        leg: The root's side, from admission on.
        leaf: The leaf's side, from admission on.
        member: The leaf in the data plane.
    """

    attempt: Attempt
    listener: ListeningEndpoint
    root: RootEndpoint
    machine: LegMachine
    gone: int = 0
    leg: LegEndpoint | None = None
    leaf: LeafEndpoint | None = None
    member: Member | None = None
    qos: Qos | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether it counts towards the backlog."""
        return self.machine.state in (LegState.QUEUED, LegState.OFFERED)

    @property
    def is_active(self) -> bool:
        """Whether both are members."""
        return self.machine.state is LegState.ACTIVE

    @property
    def is_from_root(self) -> bool:
        """Whether it is an invitation."""
        return self.attempt.asker is self.root

    def refuse(self, code: int, message: str, data: bytes = b"") -> None:
        """The answer is no."""
        self.machine.handle(LegInput.REFUSE)
        self.root.counters.add("joins_refused")
        self.attempt.fail(code, message, data=data, reason=str(EndReason.REFUSED))

    def withdraw(self, code: int) -> None:
        """The asker has gone: from the queue, or from an acceptance that it never heard of."""
        if self.is_active:
            self.end(EndReason.WITHDRAWN, tell_leg=True, tell_leaf=True)
        elif self.is_waiting:
            self.machine.handle(LegInput.LEAVE)
            self.gone = code

    def reserve(self, qos: Qos | None, role: JoinRole) -> None:
        """Take capacity for both directions, or raise WSAEOPNOTSUPP and keep what there was."""
        admission = self.root.admission
        earlier, self.qos = self.qos, qos
        self.release()
        try:
            for direction, flow in self._flows(qos, role):
                admission.reserve((direction, id(self)), flow)
        except SpiError:
            self.release()
            self.qos = earlier
            for direction, flow in self._flows(earlier, role):
                admission.reserve((direction, id(self)), flow)
            raise

    def _flows(self, qos: Qos | None, role: JoinRole) -> list[tuple[str, FlowSpec]]:
        if qos is None:
            return []
        # As the asker sees it, and only directions in which it takes part (model 8.2, rule 5).
        out, back = ("down", "up") if self.is_from_root else ("up", "down")
        return [
            *([(out, qos.sending)] if role.sends else []),
            *([(back, qos.receiving)] if role.receives else []),
        ]

    def release(self) -> None:
        """Give reserved capacity back."""
        for direction in ("up", "down"):
            self.root.admission.release((direction, id(self)))

    def end(self, reason: EndReason, data: bytes = b"", *, tell_leg: bool, tell_leaf: bool) -> None:
        """The leg is over; tell whichever side did not do it."""
        if not self.is_active:
            return
        self.machine.handle(_END_INPUTS.get(reason, LegInput.LEAVE))
        assert self.member is not None
        assert self.leg is not None
        assert self.leaf is not None
        self.release()
        self.root.data.remove(self.member.key)
        self.root.legs.pop(self.member.key, None)
        if self.attempt.outcome is None:  # it ended before its asker heard that it began
            self.attempt.fail(codes.WSAECONNREFUSED, f"the other side left: {reason}")
        if tell_leg:
            self.leg.ended(reason, data)
        if tell_leaf:
            self.leaf.ended(reason, data)
        self.root.hub.room_made()


_END_INPUTS: Final = {
    EndReason.LOST: LegInput.LOST,
    EndReason.TIMED_OUT: LegInput.SILENT,
    EndReason.PROTOCOL_ERROR: LegInput.BAD_BYTES,
}


class JoiningEndpoint(MemoryEndpoint):
    """What c_roots and c_leafs have in common: one join at a time, blocking or started."""

    machine: Machine[Any, Any, Any]

    def __init__(self, hub: Hub, info: ProtocolInfo, roles: Roles, settings: Settings) -> None:
        super().__init__(hub, info, roles, settings)
        self.attempt: Attempt | None = None
        self._started: Attempt | None = None
        self._connect_told = True

    # What kinds differ in

    def join_input(self, role: JoinRole) -> Any:
        """The machine's input for a join."""
        raise NotImplementedError

    def request_arrives(self, attempt: Attempt) -> None:
        """The network has passed the request on."""
        raise NotImplementedError

    def prepare(self, attempt: Attempt) -> None:
        """Make ready for a join; may refuse it (model 5.6, steps 17 and 19)."""

    def joined_endpoint(self, attempt: Attempt) -> Endpoint:
        """What the join yields."""
        return self

    def machine_failed(self, *, cancelled: bool) -> None:
        """Feed the machine an end of the join."""
        raise NotImplementedError

    # The calls

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
        with self.entered("join_leaf"):
            attempt = self._begin(address, caller_data, qos, role, waits=True)
            self._ask(attempt)
            try:
                # Never WSAEWOULDBLOCK (clause 81): no time at all is a time that is over.
                left = timeout if timeout is None or timeout > 0 else 1e-9
                self.wait_for(lambda: attempt.outcome is not None or None, left, "join_leaf")
            except SpiError as error:
                if error.code == codes.WSAETIMEDOUT:
                    attempt.time_out()
                    return attempt.result()
                self._abandon(attempt)
                raise
            except BaseException:  # Ctrl-C
                self._abandon(attempt)
                raise
            return attempt.result()

    def _abandon(self, attempt: Attempt) -> None:
        if attempt.outcome is None:
            attempt.give_up(codes.WSAEACCES)
            self.attempt = None
            self.machine_failed(cancelled=True)
            self._discard_leg(attempt)

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
        with self.entered("join_leaf"):
            attempt = self._begin(address, caller_data, qos, role, waits=False)
            self._started, self._connect_told = attempt, False
            self._ask(attempt)
            if timeout is not None and attempt.outcome is None:
                attempt.timer = reactor_in_use().call_later(max(0.0, timeout), attempt.expire)
            return self.joined_endpoint(attempt)

    def join_result(self) -> Joined:
        """Outcome of the last started join."""
        with self.hub:
            if self._started is None:
                raise SpiError(codes.WSAEINVAL, "no join has been started", call="join_result")
            return self._started.result()

    def _begin(
        self,
        address: Address,
        caller_data: bytes,
        qos: Qos | None,
        role: JoinRole,
        *,
        waits: bool,
    ) -> Attempt:
        """Steps 3 to 19 of the model's section 5.6: all that is refused without a change."""
        self._check_join(address, caller_data, role)
        qos = qos if qos is not None else self.preset_qos
        self._check_qos(qos)
        if self.hub.faults.no_buffers:
            raise SpiError(codes.WSAENOBUFS, "no buffers are left", call="join_leaf")
        self.bind_if_needed()
        request = JoinRequest(
            peer=self.local_address,
            local=address,
            data=bytes(caller_data),
            qos=qos,
            role=role,
            name=self.settings.name,
            incarnation=self.settings.incarnation or secrets.token_bytes(IDENTITY_BYTES),
        )
        attempt = Attempt(self, address, request, waits)
        self.prepare(attempt)
        self.machine.handle(self.join_input(role), call="join_leaf")
        self.attempt = attempt
        return attempt

    def _check_join(self, address: Address, caller_data: bytes, role: JoinRole) -> None:
        if threading.get_ident() in self.hub.deciding:
            raise SpiError(
                codes.WSAEINPROGRESS, "a condition function is running", call="join_leaf"
            )
        if role not in tuple(JoinRole):
            kind = self.join_input(JoinRole.BOTH)
        else:
            kind = self.join_input(role)
        if not self.machine.allows(kind):
            self.machine.handle(kind, call="join_leaf")  # raises what the table says
        check_address(address, codes.WSAEAFNOSUPPORT)
        if not address.host:
            raise SpiError(codes.WSAEADDRNOTAVAIL, "no name is given", call="join_leaf")
        self.check_name(address)
        if role not in tuple(JoinRole):
            raise SpiError(codes.WSAEINVAL, f"{role!r} is no role", call="join_leaf")
        if caller_data and not self.info.has(c.XP1_CONNECT_DATA):
            raise SpiError(
                codes.WSAEPROTONOSUPPORT, "this entry carries no connect data", call="join_leaf"
            )
        bounded(caller_data)

    def check_name(self, address: Address) -> None:
        """Raise WSAEADDRNOTAVAIL for a name that cannot be joined."""

    def _check_qos(self, qos: Qos | None) -> None:
        if qos is not None and not qos.is_unspecified and not self.info.has(c.XP1_QOS_SUPPORTED):
            raise SpiError(
                codes.WSAEOPNOTSUPP, "this entry keeps no flow specifications", call="join_leaf"
            )

    def _ask(self, attempt: Attempt) -> None:
        """Steps 20 and 21: what the network does."""
        faults = self.hub.faults
        if not faults.reaches(attempt.address):
            attempt.fail(codes.WSAENETUNREACH, f"no route leads to {attempt.address.host!r}")
        elif faults.requests is Link.PASS:
            self.request_arrives(attempt)
        elif faults.requests is Link.HOLD:
            faults.hold(lambda: self._go_on(attempt))
        elif faults.requests is Link.REFUSE:
            attempt.fail(codes.WSAECONNREFUSED, "the link refuses")

    def _go_on(self, attempt: Attempt) -> None:
        if attempt.outcome is None:
            self.request_arrives(attempt)

    # Outcomes

    def join_succeeded(self, attempt: Attempt, joined: Joined) -> None:
        """The answer is yes: order as in the model, 6.8."""
        if attempt.settle(joined):
            self.agreed_qos = joined.qos
            self.machine_joined(attempt)
            self.attempt = None
            self._report(attempt, 0)
            self.indicate_write()
            if self.inbox:  # what came before the answer did
                self.indicate(c.FD_READ)
            self.refresh_readiness()

    def machine_joined(self, attempt: Attempt) -> None:
        """Feed the machine the success."""
        raise NotImplementedError

    def join_failed(self, attempt: Attempt, error: SpiError) -> None:
        """The answer is no, or there is none."""
        self.machine_failed(cancelled=False)
        self.attempt = None
        self.inbox.clear()  # of a membership whose acceptance came too late
        self.last_error = error.code
        self._discard_leg(attempt)
        self._report(attempt, error.code)

    def _discard_leg(self, attempt: Attempt) -> None:
        if attempt.leg is not None:
            attempt.leg.state_failed = True

    def _report(self, attempt: Attempt, code: int) -> None:
        self.changed.notify_all()
        if not attempt.waits:
            self.indicate(c.FD_CONNECT, code)

    def told(self, event: EndpointEvent) -> None:
        """Remember that the outcome of the last started join is known to somebody."""
        if event.kind == c.FD_CONNECT:
            self._connect_told = True

    def indicate_present(self) -> None:
        """An outcome nobody has been told of comes first (model 6.2, N14)."""
        if not self._connect_told and self._started is not None:
            outcome = self._started.outcome
            if outcome is not None:
                self.indicate(c.FD_CONNECT, getattr(outcome, "code", 0))
        super().indicate_present()

    def release(self, data: bytes, reason: EndReason | None, abort: bool) -> None:
        """Take back a join under way; nobody is told (clause 74)."""
        if self.attempt is not None:
            attempt, self.attempt = self.attempt, None
            attempt.give_up(codes.WSAECONNRESET)
            self._discard_leg(attempt)


class ListeningEndpoint(JoiningEndpoint):
    """What takes join requests: a c_root, or a c_leaf that wants to be invited."""

    listen_input: Any

    def __init__(self, hub: Hub, info: ProtocolInfo, roles: Roles, settings: Settings) -> None:
        super().__init__(hub, info, roles, settings)
        self.queue: deque[Association] = deque()
        self.backlog = settings.backlog

    def listen(self, backlog: int | None = None) -> None:
        """WSPListen; again, to change the backlog."""
        with self.entered("listen"):
            if not self.machine.allows(self.listen_input):
                self.machine.handle(self.listen_input, call="listen")  # raises
            name = self.local_address.host
            holder = self.hub.listeners.get(name, self)
            if holder is not self:
                raise SpiError(codes.WSAEADDRINUSE, f"{name!r} has a listener", call="listen")
            self.machine.handle(self.listen_input, call="listen")
            self.hub.listeners[name] = self
            wanted = self.settings.backlog if backlog is None else backlog
            self.backlog = min(max(1, wanted), 1 << 20)
            for excess in [one for one in self.queue if one.is_waiting][self.backlog :]:
                self._drop(excess, "the queue has been shortened")

    def _drop(self, association: Association, message: str) -> None:
        self.queue.remove(association)
        association.refuse(codes.WSAECONNREFUSED, message)

    def request_queued(self, association: Association) -> None:
        """A request has arrived and passed the first checks."""
        if sum(one.is_waiting for one in self.queue) >= self.backlog:
            self.counters.add("backlog_full")
            association.attempt.fail(codes.WSAECONNREFUSED, "too many requests are waiting")
            return
        # Nobody accepting must not mean that withdrawn requests pile up.
        gone = [one for one in self.queue if one.gone]
        if len(gone) >= self.backlog:
            self.queue.remove(gone[0])
        association.machine.handle(LegInput.REQUEST)
        association.attempt.association = association
        self.queue.append(association)
        self.changed.notify_all()
        if len(self.queue) == 1:
            self.indicate(c.FD_ACCEPT)

    def accept(
        self, condition: Condition | None = None, *, timeout: float | None = None
    ) -> Endpoint:
        """WSPAccept."""
        association = self._take_up(timeout)
        try:
            verdict = self._decide(condition, association.attempt.request)
        except BaseException:
            self._decided(association, Defer())
            raise
        return self._finish(association, verdict)

    def take_request(self, *, timeout: float | None = None) -> TakenRequest:
        """The first half of WSPAccept."""
        association = self._take_up(timeout)

        def answer(verdict: Accept | Reject | Defer) -> MemoryEndpoint:
            try:
                _check_verdict(verdict)
            except BaseException:
                self._decided(association, Defer())
                raise
            return self._finish(association, verdict)

        return TakenRequest(association.attempt.request, answer)

    def _take_up(self, timeout: float | None) -> Association:
        with self.entered("accept"):
            if threading.get_ident() in self.hub.deciding:
                raise SpiError(
                    codes.WSAEINPROGRESS, "a condition function is running", call="accept"
                )
            association = self.wait_for(self._next_request, timeout, "accept")
            if association.gone:
                self._taken(association)
                raise _asker_gone(association.gone)
            association.machine.handle(LegInput.OFFER)
            return association

    def _next_request(self) -> Association | None:
        if not self.is_listening:
            raise SpiError(codes.WSAEINVAL, "not listening", call="accept")
        for association in self.queue:
            if association.gone or association.machine.state is LegState.QUEUED:
                return association
        return None

    def _decide(self, condition: Condition | None, request: JoinRequest) -> Accept | Reject | Defer:
        """Ask the condition function, without the lock, on this thread."""
        if condition is None:
            return Accept()
        thread = threading.get_ident()
        self.hub.deciding.add(thread)
        try:
            verdict = condition(request)
        finally:
            self.hub.deciding.discard(thread)
        _check_verdict(verdict)
        return verdict

    def _decided(self, association: Association, verdict: Defer) -> None:
        """Put an offered request back where it was: first."""
        with self.hub:
            if association.machine.state is LegState.OFFERED:
                association.machine.handle(LegInput.DEFER)
                self.changed.notify_all()

    def _finish(self, association: Association, verdict: Accept | Reject | Defer) -> MemoryEndpoint:
        with self.hub:
            if association.machine.state is not LegState.OFFERED:
                self._taken(association)
                if self.closed:
                    raise SpiError(codes.WSAEINTR, "closed while deciding", call="accept")
                raise _asker_gone(association.gone or codes.WSAECONNRESET)
            if isinstance(verdict, Defer):
                association.machine.handle(LegInput.DEFER)
                self.changed.notify_all()
                raise SpiError(codes.WSATRY_AGAIN, "the request was deferred", call="accept")
            self._taken(association)
            if isinstance(verdict, Reject):
                message = verdict.message or "the join request was refused"
                association.refuse(codes.WSAECONNREFUSED, message, bytes(verdict.data))
                raise SpiError(codes.WSAECONNREFUSED, "rejected by the condition", call="accept")
            return self._admit(association, verdict)

    def _taken(self, association: Association) -> None:
        if association in self.queue:
            self.queue.remove(association)
        if self.queue and any(one.gone or one.is_waiting for one in self.queue):
            self.indicate(c.FD_ACCEPT)

    def _admit(self, association: Association, verdict: Accept) -> MemoryEndpoint:
        request = association.attempt.request
        try:
            association.root.check_d_root(association)
            association.reserve(verdict.qos or request.qos, request.role)
        except SpiError as error:
            association.refuse(error.code, str(error))
            raise SpiError(error.code, str(error), call="accept") from None
        association.machine.handle(LegInput.ADMIT)
        accepted = association.root.admit(association, self)
        joined = Joined(
            association.attempt.asker.joined_endpoint(association.attempt),
            bytes(verdict.data),
            association.qos,
        )
        self._answer(association.attempt, joined)
        accepted.indicate_write()
        return accepted

    def _answer(self, attempt: Attempt, joined: Joined) -> None:
        faults = self.hub.faults
        if faults.answers is Link.PASS:
            attempt.asker.join_succeeded(attempt, joined)
        elif faults.answers is Link.HOLD:
            faults.hold(lambda: attempt.asker.join_succeeded(attempt, joined))

    def indicate_present(self) -> None:
        """A waiting request, too."""
        super().indicate_present()
        if self.queue:
            self.indicate(c.FD_ACCEPT)

    def statistics(self) -> Mapping[str, int]:
        """Counters, and how many requests accept would answer without waiting."""
        waiting = sum(
            bool(one.gone) or one.machine.state is LegState.QUEUED for one in list(self.queue)
        )
        return {**super().statistics(), "requests_waiting": waiting}

    def stop_listening(self) -> None:
        """Refuse whoever waits, and give the name's requests up."""
        if self._local is not None and self.is_listening:
            del self.hub.listeners[self._local.host]
        for association in list(self.queue):
            self.queue.remove(association)
            if association.is_waiting:
                association.refuse(codes.WSAECONNREFUSED, "the listener closed")


def _check_verdict(verdict: object) -> None:
    if not isinstance(verdict, Accept | Reject | Defer):
        raise SpiError(codes.WSAEINVAL, f"the condition answered {verdict!r}", call="accept")
    if not isinstance(verdict, Defer):
        bounded(verdict.data)


def _asker_gone(code: int) -> SpiError:
    return SpiError(code, "the asker is gone", call="accept", reason=str(EndReason.WITHDRAWN))
