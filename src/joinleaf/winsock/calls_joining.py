"""WSPJoinLeaf, WSPConnect, WSPAccept: who gets into a session, and how.

The order of work is that of section 5.6 of the model; its steps are numbered here as there. The
state tables are those of section 6, whose row numbers are cited.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final

from joinleaf.core.wire.control import MAX_CONNECT_DATA
from joinleaf.errors import SpiError
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.provider import (
    DEFER,
    Accept,
    DatagramEndpoint,
    Defer,
    Endpoint,
    JoinRequest,
    JoinRole,
    Reject,
)
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.values import Address
from joinleaf.winsock.addresses import any_address, encode
from joinleaf.winsock.calls_base import CallsBase, answers
from joinleaf.winsock.conversions import flowspec_to_c, qos_from_c, qos_to_c
from joinleaf.winsock.memory import (
    Buffer,
    Cell,
    Wsabuf,
    as_int,
    buffer,
    fault,
    function_at,
    is_null,
    read_int,
    struct_at,
    write_sockaddr,
)
from joinleaf.winsock.sockets import JoinAttempt, Kind, SocketRecord
from joinleaf.winsock.types import GROUP, INVALID_SOCKET, LPCONDITIONPROC, QOS, SOCKET_ERROR

__all__ = ["JoiningCalls"]

_ROLES: Final = {int(role): role for role in JoinRole}
_ANYTHING: Final = FlowSpec()
_C_FUNCTION: Final[Any] = LPCONDITIONPROC.__mro__[1]


class JoiningCalls(CallsBase):
    """The three calls."""

    @answers(INVALID_SOCKET)
    def WSPJoinLeaf(
        self,
        s: Any,
        name: Any,
        namelen: Any,
        lpCallerData: Any,
        lpCalleeData: Any,
        lpSQOS: Any,
        lpGQOS: Any,
        dwFlags: Any,
        lpErrno: Any,
    ) -> int:
        """Join a leaf into a session; a new descriptor for a c_root, else ``s`` (clauses 1-133)."""
        record = self.enter(s)
        attempt = self._claim(record)
        try:
            address = self.read_name(record, name, namelen)
            role = self._check_target(record, address, as_int(dwFlags))
            caller, callee = self._check_buffers(lpCallerData, lpCalleeData)
            qos, unmet = _read_qos(lpSQOS, role, record)
            self._check_caller_data(record, caller)
            self._check_qos(record, qos, unmet)
            attempt.role = role
            attempt.answer = _answerer(callee)
            if record.kind is not Kind.C_ROOT:
                attempt.reset = lambda: self.replace_endpoint(record)
            self._launch(record, attempt, address, caller, qos)
        except BaseException:
            self._unclaim(record, attempt)
            raise
        if attempt.blocking:
            self._await_outcome(record, attempt)
        return attempt.leg.handles[0] if attempt.leg is not None else as_int(s)

    # Steps 4 to 8

    def _claim(self, record: SocketRecord) -> JoinAttempt:
        """State checks, and from here on every other join gets WSAEALREADY."""
        attempt = JoinAttempt(record.blocking, lambda _: 0, JoinRole.BOTH)
        with record.lock:
            self._check_may_join(record)
            record.attempt = attempt
        return attempt

    def _check_may_join(self, record: SocketRecord) -> None:
        if not record.is_multipoint:
            raise _invalid("not a multipoint socket")
        if record.is_pending:
            raise SpiError(codes.WSAEALREADY, "a join is under way", call="WSPJoinLeaf")
        if record.kind is not Kind.C_ROOT and record.joined and not record.is_ended:
            raise SpiError(codes.WSAEISCONN, "a member already", call="WSPJoinLeaf")
        if record.is_ended or record.failed or record.dissolved or record.kind is Kind.LEG:
            raise _invalid("discard it and make another")
        if record.listening and record.kind is not Kind.C_ROOT:
            raise _invalid("a listening c_leaf joins nothing")

    @staticmethod
    def _unclaim(record: SocketRecord, attempt: JoinAttempt) -> None:
        with record.lock:
            if record.attempt is attempt:
                record.attempt = None

    # Steps 12 to 17

    def _check_target(self, record: SocketRecord, address: Address, flags: int) -> JoinRole:
        role = _ROLES.get(flags)
        if address.is_any:
            raise _unavailable(f"{address} is nobody's address")
        if record.info.address_family in (c.AF_INET, c.AF_INET6):
            needs_port = record.kind is not Kind.NONROOTED or role is not JoinRole.RECEIVER_ONLY
            if needs_port and not address.port:
                raise _unavailable("port 0 cannot be reached")
            if (record.kind is Kind.NONROOTED) is not address.is_multicast:
                raise _unavailable(f"{address} is no address of such a session")
        if role is None:
            raise _invalid(f"dwFlags {flags:#x} is none of 1, 2 and 4")
        return role

    @staticmethod
    def _check_buffers(caller: Any, callee: Any) -> tuple[bytes, Buffer | None]:
        outgoing, incoming = buffer(caller), buffer(callee)
        if outgoing is not None:
            outgoing.check()
        if incoming is not None:
            incoming.check(writable=True)
        if outgoing is not None and outgoing.length > MAX_CONNECT_DATA:
            # Not copied: how many there are is answered after what kind of provider this is.
            return bytes(MAX_CONNECT_DATA + 1), incoming
        return outgoing.read() if outgoing is not None else b"", incoming

    @staticmethod
    def _check_caller_data(record: SocketRecord, data: bytes) -> None:
        if data and not record.info.has(c.XP1_CONNECT_DATA):
            raise SpiError(codes.WSAEPROTONOSUPPORT, "no connect data here", call="WSPJoinLeaf")
        if len(data) > MAX_CONNECT_DATA:
            raise fault(f"caller data are over {MAX_CONNECT_DATA} bytes")

    @staticmethod
    def _check_qos(record: SocketRecord, qos: Qos | None, unmet: SpiError | None) -> None:
        if unmet is not None:
            raise unmet
        known = record.info.has(c.XP1_QOS_SUPPORTED)
        if qos is not None and not qos.is_unspecified and not known:
            raise SpiError(codes.WSAEOPNOTSUPP, "this entry keeps no QoS", call="WSPJoinLeaf")

    # Steps 18 to 21

    def _launch(
        self,
        record: SocketRecord,
        attempt: JoinAttempt,
        address: Address,
        caller: bytes,
        qos: Qos | None,
    ) -> None:
        """Bind, make the new descriptor, start; a failure changes nothing but the bind."""
        endpoint = record.endpoint
        if record.interface and not address.scope:
            address = Address(address.host, address.port, record.interface)
        record.notices.enable(c.FD_CONNECT)  # each start arms it again
        record.unreported = None
        if record.kind is Kind.C_ROOT:
            if not record.is_bound:
                endpoint.bind(any_address(record.info))
            attempt.leg = self.child_of(record, endpoint, Kind.LEG)
            self.add_socket(attempt.leg, self.new_handle(attempt.leg))
            attempt.leg.attempt = attempt
            attempt.leg.parent = record
            attempt.leg.notices = record.notices.child(attempt.leg.handles[0])
        try:
            leg = endpoint.start_join_leaf(
                address, caller_data=caller, qos=qos, role=attempt.role, timeout=self.join_timeout
            )
        except BaseException:
            if attempt.leg is not None:
                self._discard(attempt.leg)
            raise
        if attempt.leg is not None:
            self._give_leg(attempt.leg, leg)
        self._launched(record, attempt)

    @staticmethod
    def _give_leg(record: SocketRecord, leg: Endpoint) -> None:
        record.endpoint = leg
        record.attach()

    def _discard(self, record: SocketRecord) -> None:
        """Take back a descriptor that nobody was given."""
        record.closed = True
        record.notices.silence()
        for handle in list(record.handles):
            self.drop_handle(record, handle)

    @staticmethod
    def _launched(record: SocketRecord, attempt: JoinAttempt) -> None:
        """The new descriptor is valid: from now on the outcome may be told (6.8, rule 2)."""
        with record.lock:
            attempt.launched = True
            indicated = attempt.indicated
        if indicated:
            record.finish_join(attempt)

    def _await_outcome(self, record: SocketRecord, attempt: JoinAttempt) -> None:
        """Blocking mode: the result tells all (clause 21)."""

        def look(timeout: float | None) -> None:
            if not attempt.done.wait(timeout):
                raise SpiError(codes.WSAETIMEDOUT, "no answer yet", call="WSPJoinLeaf")

        try:
            try:
                look(0)
            except SpiError:
                self.wait(look, attempt.cancel, call="WSPJoinLeaf")
        except BaseException:
            self._cancel(record, attempt)
            raise
        if attempt.void:
            self._cancel(record, attempt)
        elif attempt.error is not None and attempt.leg is not None:
            attempt.leg.endpoint.close(linger=0)
            self._discard(attempt.leg)
        if attempt.error is not None:
            raise attempt.error

    def _cancel(self, record: SocketRecord, attempt: JoinAttempt) -> None:
        """A cancelled blocking join: a c_root stays usable, a c_leaf does not (R6, L4, A-21)."""
        with record.lock:
            if record.attempt is attempt:
                record.attempt = None
            attempt.cancel()
        if attempt.leg is not None:
            attempt.leg.endpoint.close(linger=0)
            self._discard(attempt.leg)
        elif not record.closed:
            record.broken = True
            self.replace_endpoint(record)

    def replace_endpoint(self, record: SocketRecord) -> None:
        """Reset the connection under a c_leaf, and put a fresh endpoint of the same name in."""
        old = record.endpoint
        local = old.local_address if record.is_bound else None
        roles = old.roles
        old.subscribe(None)
        old.close(abort=True, linger=0)
        fresh = self.open_endpoint(roles)
        if local is not None:
            try:
                fresh.bind(local)
            except SpiError:
                fresh.bind(any_address(record.info))  # bound it stays, if not to the same port
        record.endpoint = fresh
        record.attach()

    # WSPConnect

    @answers(SOCKET_ERROR)
    def WSPConnect(
        self,
        s: Any,
        name: Any,
        namelen: Any,
        lpCallerData: Any,
        lpCalleeData: Any,
        lpSQOS: Any,
        lpGQOS: Any,
        lpErrno: Any,
    ) -> int:
        """Set the default peer of a connectionless socket; no way into a rooted session (5.4)."""
        record = self.enter(s)
        if record.is_pending:
            raise SpiError(codes.WSAEALREADY, "a join is under way", call="WSPConnect")
        if record.joined and not record.is_ended:
            raise SpiError(codes.WSAEISCONN, "a member already", call="WSPConnect")
        if record.kind is Kind.LEG or record.is_ended or record.listening or record.dissolved:
            raise _invalid("a socket in this state connects to nobody")
        address = self.read_name(record, name, namelen)
        if not record.info.has(c.XP1_CONNECTIONLESS):
            raise SpiError(codes.WSAEOPNOTSUPP, "join with WSPJoinLeaf", call="WSPConnect")
        if address.is_any:
            record.peer = None
        else:
            self.check_datagrams(record)
            record.peer = address
        return 0

    @staticmethod
    def check_datagrams(record: SocketRecord) -> None:
        """Raise WSAEOPNOTSUPP where nothing can be sent but to the session."""
        if not isinstance(record.endpoint, DatagramEndpoint):
            raise SpiError(codes.WSAEOPNOTSUPP, "this entry sends to its session only")

    # WSPAccept

    @answers(INVALID_SOCKET)
    def WSPAccept(
        self,
        s: Any,
        addr: Any,
        addrlen: Any,
        lpfnCondition: Any,
        dwCallbackData: Any,
        lpErrno: Any,
    ) -> int:
        """Answer the first waiting join request; always a c_leaf comes out (section 5.5)."""
        record = self.enter(s)
        self._check_may_accept(record)
        decision = _Decision(self, record, addr, addrlen, lpfnCondition, as_int(dwCallbackData))
        again = False
        try:
            endpoint = self.wait_or_not(record, decision.accept, call="WSPAccept")
        except SpiError as error:
            decision.undo()
            failure = decision.failure or error
            again = failure.code == codes.WSATRY_AGAIN
            raise failure from error
        except BaseException:
            decision.undo()
            raise
        finally:
            if not again:
                record.notices.enable(c.FD_ACCEPT)
                record.tell_level()
        return self._adopt(record, endpoint, decision.child, decision.handle)

    @staticmethod
    def _check_may_accept(record: SocketRecord) -> None:
        if record.info.has(c.XP1_CONNECTIONLESS):
            raise SpiError(codes.WSAEOPNOTSUPP, "nobody asks to join here", call="WSPAccept")
        if not record.listening or record.dissolved or record.kind is Kind.LEG:
            raise _invalid("not listening")

    def _adopt(
        self, parent: SocketRecord, endpoint: Endpoint, record: SocketRecord, handle: int
    ) -> int:
        """Make a socket of what the seam's accept gave."""
        record.endpoint = endpoint
        record.accepted = record.joined = True
        self.add_socket(record, handle)
        record.notices = parent.notices.child(handle)
        record.attach()
        if parent.kind is Kind.C_ROOT:
            parent.children.append(record)
            if parent.legs == 1:
                parent.tell_writable()
        record.tell_writable()
        record.pump()
        return handle


class _Decision:
    """One WSPAccept: shows the request to the client's condition function, and keeps its answer.

    The condition of the seam is always used, since the caller's address is wanted whatever the
    answer is. A request that cannot be answered for a reason of this side stays first in the queue.

    Attributes:
        child: The socket that is to come of it.
        handle: Its descriptor, once accepted.
        failure: What went wrong on this side.
    """

    def __init__(
        self,
        calls: JoiningCalls,
        record: SocketRecord,
        addr: Any,
        addrlen: Any,
        condition: Any,
        callback_data: int,
    ) -> None:
        self._calls = calls
        self._record = record
        self._addr, self._addrlen = addr, addrlen
        self._condition = function_at(condition, LPCONDITIONPROC)
        self._callback_data = callback_data
        kind = Kind.LEG if record.kind is Kind.C_ROOT else Kind.C_LEAF
        self.child = calls.child_of(record, record.endpoint, kind)
        self.handle = 0
        self.failure: SpiError | None = None
        self._raised: BaseException | None = None
        if not is_null(addr) and not isinstance(addr, Cell):
            read_int(addrlen)  # a length that cannot be read must not cost a request

    def accept(self, timeout: float | None) -> Endpoint:
        """Call the seam."""
        try:
            return self._record.endpoint.accept(self._decide, timeout=timeout)
        except SpiError:
            if self._raised is not None:
                raise self._raised from None
            raise

    def undo(self) -> None:
        """Nothing came of it: give back a descriptor that was made."""
        if self.handle and not self._calls.info.has(c.XP1_IFS_HANDLES):
            self._calls.outlet.close_handle(self.handle)

    def _decide(self, request: JoinRequest) -> Accept | Reject | Defer:
        try:
            return self._answer(request)
        except SpiError as error:
            self.failure = error
        except BaseException as error:  # the client's own, raised once the request is back
            self._raised = error
        return DEFER

    def _answer(self, request: JoinRequest) -> Accept | Reject | Defer:
        info = self._record.info
        verdict: Accept | Reject | Defer = Accept()
        if self._condition is not None:
            verdict = self._ask(self._condition, request)
        if not (is_null(self._addr) or (is_null(self._addrlen) and not _is_cell(self._addr))):
            write_sockaddr(self._addr, self._addrlen, encode(request.peer, info))
        if isinstance(verdict, Accept):
            try:
                self.handle = self._calls.new_handle(self.child)
            except SpiError as error:
                raise SpiError(codes.WSAEMFILE, str(error), call="WSPAccept") from error
        return verdict

    def _ask(self, condition: Callable[..., Any], request: JoinRequest) -> Accept | Reject | Defer:
        """Run the condition function with its eight parameters, on this thread."""
        info = self._record.info
        caller = Wsabuf(encode(request.peer, info))
        called = Wsabuf(encode(request.local, info))
        data = Wsabuf(request.data) if request.data else None
        qos = qos_to_c(request.qos) if request.qos is not None else None
        answer = Wsabuf(MAX_CONNECT_DATA if info.has(c.XP1_CONNECT_DATA) else 0)
        group = GROUP(0)
        arguments = (caller, data, qos, None, called, answer, group)
        with self._calls.outlet.objects.thread().callback():
            result = condition(
                *(_pointer(condition, argument) for argument in arguments), self._callback_data
            )
        if as_int(result) not in (c.CF_ACCEPT, c.CF_REJECT, c.CF_DEFER):
            raise _invalid(f"a condition function may not return {result!r}")
        if group.value:
            raise _invalid("socket groups are reserved")
        if result == c.CF_DEFER:
            return DEFER
        reply = answer.data[: min(answer.len, MAX_CONNECT_DATA)] if answer.len else b""
        if answer.len == MAX_CONNECT_DATA and not any(reply):
            reply = b""  # a function that knows nothing of callee data leaves the length as it was
        if result == c.CF_REJECT:
            return Reject(reply)
        return Accept(reply, _changed_qos(qos, request.qos))


def _is_cell(pointer: Any) -> bool:
    return isinstance(pointer, Cell)


def _pointer(function: Callable[..., Any], argument: Any) -> Any:
    """A ctypes function wants an address; a Python function the object itself."""
    if argument is None or not isinstance(function, _C_FUNCTION):
        return argument
    return ctypes.addressof(argument)


def _changed_qos(structure: QOS | None, asked: Qos | None) -> Qos | None:
    if structure is None:
        return None
    qos = qos_from_c(structure)
    return None if qos == asked else qos


def _read_qos(
    pointer: Any, role: JoinRole, record: SocketRecord
) -> tuple[Qos | None, SpiError | None]:
    """LpSQOS without the direction that does not exist here (clause 124; model 8.2, rule 5).

    Returns:
        What was read, and what is to be raised at step 17 if it cannot be satisfied by anybody.

    Raises:
        SpiError: WSAEFAULT.
    """
    if isinstance(pointer, Cell):
        pointer = pointer.value
    if is_null(pointer):
        return None, None
    sends = role.sends and not record.info.has(c.XP1_UNI_RECV)
    receives = role.receives and not record.info.has(c.XP1_UNI_SEND)
    structure = qos_to_c(pointer) if isinstance(pointer, Qos) else struct_at(pointer, QOS)
    copy = QOS(
        structure.SendingFlowspec if sends else flowspec_to_c(_ANYTHING),
        structure.ReceivingFlowspec if receives else flowspec_to_c(_ANYTHING),
        structure.ProviderSpecific,
    )
    try:
        return qos_from_c(copy), None
    except SpiError as error:
        if error.code == codes.WSAEFAULT:
            raise
        return None, error


def _answerer(callee: Buffer | None) -> Callable[[bytes | None], int]:
    """Write the callee data once the outcome is known; None: there are none to write."""

    def answer(data: bytes | None) -> int:
        if callee is None:
            return 0
        try:
            callee.put(data or b"")
        except SpiError as error:
            return error.code
        return 0

    return answer


def _invalid(what: str) -> SpiError:
    return SpiError(codes.WSAEINVAL, what)


def _unavailable(what: str) -> SpiError:
    return SpiError(codes.WSAEADDRNOTAVAIL, what, call="WSPJoinLeaf")
