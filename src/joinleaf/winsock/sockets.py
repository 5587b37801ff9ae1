"""One socket as its client sees it: an endpoint of the seam, and what Winsock adds to one.

The record knows in which state of the model's section 6 the socket is, because the order of checks
(section 5.6) and the answers of an unusable descriptor (6.7) are Winsock's and not the seam's.

What arrives is fetched one batch ahead of the client (``pump``). So whether there is something to
read, and whether the session's end has been reached, is always a matter of looking, whoever carries
the data; an indication of the seam is only the occasion to look again.

Locks: ``lock`` guards the fields and is never held while calling out; ``fetching`` admits one
thread at a time to ``receive_many``.
"""

from __future__ import annotations

import enum
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from joinleaf.errors import SpiError
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.provider import Endpoint, EndpointEvent, JoinRole, Settings
from joinleaf.values import Address
from joinleaf.winsock.changes import Interests
from joinleaf.winsock.notices import Notices
from joinleaf.winsock.overlapped import Queue, Routines

if TYPE_CHECKING:
    from joinleaf.spi.protocol_info import ProtocolInfo
    from joinleaf.spi.qos import Qos

__all__ = ["JoinAttempt", "Kind", "Message", "SocketRecord"]

_NOTHING_YET: Final = frozenset(
    {
        codes.WSAEWOULDBLOCK,
        codes.WSAETIMEDOUT,
        codes.WSAEINPROGRESS,
        codes.WSAENOTCONN,
        codes.WSAEOPNOTSUPP,
        codes.WSAESHUTDOWN,
        codes.WSAEINTR,
        codes.WSAENOTSOCK,
        codes.WSAEINVAL,
    }
)
"""What a look for data may raise without meaning that the membership is over."""


_JOIN_CODES: Final = frozenset(
    {
        codes.WSAEINTR,
        codes.WSAEFAULT,
        codes.WSAEOPNOTSUPP,
        codes.WSAEADDRINUSE,
        codes.WSAEADDRNOTAVAIL,
        codes.WSAENETDOWN,
        codes.WSAENETUNREACH,
        codes.WSAENOBUFS,
        codes.WSAETIMEDOUT,
        codes.WSAECONNREFUSED,
    }
)
"""What a join that has been started can end with (clause 62; steps 20 and 21 of section 5.6)."""


def _as_listed(error: SpiError) -> SpiError:
    """An outcome by a code of the page: unreachable is unreachable, and no answer is a refusal."""
    if error.code in _JOIN_CODES:
        return error
    unreachable = error.code in (codes.WSAEHOSTUNREACH, codes.WSAEHOSTDOWN)
    code = codes.WSAENETUNREACH if unreachable else codes.WSAECONNREFUSED
    return SpiError(code, str(error), call="WSPJoinLeaf", reason=error.reason, data=error.data)


class Kind(enum.Enum):
    """What a socket is in the control plane."""

    ORDINARY = "made without multipoint flags"
    C_ROOT = "c_root"
    C_LEAF = "c_leaf of a rooted control plane"
    NONROOTED = "c_leaf of a nonrooted control plane"
    LEG = "the root's side of one leg"

    @property
    def is_rooted(self) -> bool:
        """Whether somebody else ends its membership."""
        return self in (Kind.C_LEAF, Kind.LEG)


@dataclass(slots=True)
class Message:
    """One received message that the client has not fetched yet, or not wholly."""

    data: bytes
    sender: Address
    side: bool = False
    offset: int = 0

    @property
    def left(self) -> int:
        """Bytes still to be fetched."""
        return len(self.data) - self.offset


@dataclass(slots=True, eq=False)
class JoinAttempt:
    """One WSPJoinLeaf from its start to its outcome.

    Attributes:
        blocking: Whether a thread waits for it; otherwise FD_CONNECT tells.
        answer: Writes the callee data into the client's memory; gives an error code or 0.
        reset: Of a c_leaf: undo a membership whose callee data do not fit.
        leg: Of a c_root: the new socket.
        role: What was asked for.
        error: How it failed; None while it has not.
        done: Set once it has an outcome, or will never have one.
        launched: Whether the call that started it has got as far as returning.
        indicated: Whether the seam told of the outcome before that.
        void: Cancelled: no outcome is wanted any more.
    """

    blocking: bool
    answer: Callable[[bytes | None], int]
    role: JoinRole
    reset: Callable[[], None] | None = None
    leg: SocketRecord | None = None
    error: SpiError | None = None
    done: threading.Event = field(default_factory=threading.Event)
    launched: bool = False
    indicated: bool = False
    void: bool = False

    def cancel(self) -> None:
        """Nobody wants its outcome any more; a waiting thread gets WSAEINTR."""
        self.void = True
        self.error = SpiError(codes.WSAEINTR, "the join was cancelled", call="WSPJoinLeaf")
        self.done.set()


class SocketRecord:
    """See the module.

    Args:
        endpoint: The socket below.
        kind: What it is.
        settings: What the endpoint was opened with.
        notices: Whom to tell.
        changed: Called, without a lock, whenever a thread in WSPSelect may have to look again.

    Attributes:
        handles: Its descriptors; the first is the one it was made with.
        blocking: Its mode.
        overlapped: Made with WSA_FLAG_OVERLAPPED.
        listening: WSPListen has succeeded.
        attempt: The join under way; of a leg, the one that is to make it usable.
        joined: Whether it is a member, or a leg in state A.
        accepted: Whether WSPAccept made it.
        failed: A leg in state F.
        broken: A member whose blocking join was cancelled (state X).
        dissolved: A c_root that has been shut down.
        end: What its membership ended with, once everything before that has been read.
        role: The role of the last successful join.
        parent: Of a leg made by WSPJoinLeaf: its c_root.
        children: Of a c_root: its legs.
        inbox: Messages fetched from the endpoint and not yet by the client.
        shut: Directions that have been shut down.
        options: SOL_SOCKET options set by the client.
        last_error: SO_ERROR.
        close_event: What the seam said of the end.
        unreported: Code of an outcome of a nonblocking join that nobody has been told of.
        blocked: Whether a send would have blocked since the last FD_WRITE.
        interface: For joins, chosen by IP_MULTICAST_IF; ``""``: the default one.
        peer: Default destination set by WSPConnect.
        sends: Overlapped sends that wait; ``receives`` and ``controls`` likewise.
        interests: What its client wants to hear of outside the session.
        routines: Runs their completion routines one at a time.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        kind: Kind,
        settings: Settings,
        notices: Notices,
        changed: Callable[[], None],
    ) -> None:
        self.endpoint = endpoint
        self.kind = kind
        self.settings = settings
        self.notices = notices
        self.lock = threading.RLock()
        self.fetching = threading.Lock()
        self.handles: list[int] = []
        self.context = 0
        self.blocking = True
        self.overlapped = False
        self.closed = False
        self.listening = False
        self.attempt: JoinAttempt | None = None
        self.joined = False
        self.accepted = False
        self.failed = False
        self.broken = False
        self.dissolved = False
        self.end: SpiError | None = None
        self.close_event: EndpointEvent | None = None
        self.role = JoinRole.BOTH
        self.parent: SocketRecord | None = None
        self.children: list[SocketRecord] = []
        self.inbox: deque[Message] = deque()
        self.shut: set[int] = set()
        self.options: dict[int, Any] = {}
        self.preset_qos: Qos | None = None
        self.last_error = 0
        self.unreported: int | None = None
        self.blocked = False
        self.peer: Address | None = None
        self.interface = ""
        self.routines = Routines()
        self.sends = Queue(notices.outlet, self.routines)
        self.receives = Queue(notices.outlet, self.routines)
        self.controls = Queue(notices.outlet, self.routines, in_turn=False)
        self.interests = Interests(self._surroundings_changed)
        self._changed = changed

    # Facts

    @property
    def info(self) -> ProtocolInfo:
        """The catalogue entry."""
        return self.endpoint.info

    @property
    def is_multipoint(self) -> bool:
        """Whether it was made with multipoint flags."""
        return self.kind is not Kind.ORDINARY

    @property
    def is_pending(self) -> bool:
        """States P, W and N."""
        return self.attempt is not None

    @property
    def is_unusable(self) -> bool:
        """For data and names: no member yet, or never. A c_root goes on meanwhile (R8, N10)."""
        return (self.is_pending and self.kind is not Kind.C_ROOT) or self.failed or self.broken

    @property
    def is_ended(self) -> bool:
        """State X: the other side, a failure or a cancelled join ended it."""
        return self.broken or self.end is not None or self.close_event is not None

    @property
    def end_data(self) -> bytes:
        """What the other side sent along with the end."""
        if self.end is not None and self.end.data:
            return self.end.data
        return self.close_event.data if self.close_event is not None else b""

    @property
    def is_bound(self) -> bool:
        """Whether it has a local address."""
        try:
            return bool(self.endpoint.local_address) or True
        except SpiError:
            return False

    @property
    def is_reliable(self) -> bool:
        """Whether what does not fit into the buffers is kept."""
        return self.info.has(c.XP1_GUARANTEED_DELIVERY)

    @property
    def is_stream(self) -> bool:
        """Whether boundaries of messages mean nothing."""
        return not self.info.has(c.XP1_MESSAGE_ORIENTED) or self.info.has(c.XP1_PSEUDO_STREAM)

    @property
    def waiting_requests(self) -> int:
        """Join requests that wait for WSPAccept."""
        if not self.listening or self.closed:
            return 0
        return int(self.endpoint.statistics().get("requests_waiting", 0))

    @property
    def legs(self) -> int:
        """Of a c_root: how many leaves are members now."""
        self.children = [leg for leg in self.children if not (leg.closed or leg.is_ended)]
        return sum(leg.joined for leg in self.children)

    @property
    def can_send(self) -> bool:
        """Whether a send would at least not fail for the socket's state, and has room."""
        if self.is_unusable or self.blocked or c.SD_SEND in self.shut or self.dissolved:
            return False
        if self.kind is Kind.C_ROOT:
            return self.legs > 0
        return self.joined and not self.is_ended

    # Indications of the seam

    def attach(self) -> None:
        """Have the endpoint's indications come here."""
        self.endpoint.subscribe(self.on_event)

    def on_event(self, endpoint: Endpoint, event: EndpointEvent) -> None:
        """Any thread, without a lock of the provider; must not block."""
        if endpoint is not self.endpoint or self.closed:
            return  # of a leg that has not got a record of its own yet
        if event.kind == c.FD_CONNECT:
            self._outcome_arrived()
        elif event.kind == c.FD_CLOSE:
            self.close_event = event
            self.pump()
        elif event.kind == c.FD_READ:
            self.pump()
        elif event.kind == c.FD_WRITE:
            if self.blocked:
                self.blocked = False
                self.notices.signal(c.FD_WRITE)
        elif event.kind == c.FD_ACCEPT:
            self.tell_level()
        else:
            self.interests.happened(event.kind)
            self.notices.signal(event.kind, event.code)
        self.retry()
        self._changed()

    def retry(self) -> None:
        """Do what pending overlapped operations wait for, as far as it can be done."""
        self.receives.retry()
        self.sends.retry()
        self.controls.retry()

    def _surroundings_changed(self, event: int) -> None:
        self.notices.signal(event)
        self.controls.retry()
        self._changed()

    def _outcome_arrived(self) -> None:
        with self.lock:
            attempt = self.attempt
            if attempt is None:
                return
            attempt.indicated = True
            if not attempt.launched:
                return  # the caller does not know its new descriptor yet (model 6.8, rule 2)
        self.finish_join(attempt)

    def finish_join(self, attempt: JoinAttempt) -> None:
        """The join has an outcome: callee data, then state, then who waits is told."""
        with self.lock:
            if attempt.void or self.attempt is not attempt:
                return
            self.attempt = None
        try:
            joined = self.endpoint.join_result()
        except SpiError as error:
            attempt.error = _as_listed(error)
            attempt.answer(None)
        else:
            if (code := attempt.answer(joined.data)) != 0:
                attempt.error = SpiError(code, "the answer does not fit", call="WSPJoinLeaf")
        self._settle(attempt)

    def _settle(self, attempt: JoinAttempt) -> None:
        code = attempt.error.code if attempt.error is not None else 0
        first = False
        if code == codes.WSAEFAULT and attempt.reset is not None:
            attempt.reset()
        with self.lock:
            if not code:
                self.joined, self.role = self.kind is not Kind.C_ROOT, attempt.role
            if attempt.leg is not None:
                first = not self.legs
                self.children.append(attempt.leg)
                attempt.leg.attempt = None
                attempt.leg.joined, attempt.leg.failed = not code, bool(code)
            if code and not attempt.blocking:
                self.last_error = code
            self.unreported = code if not attempt.blocking or self.kind is not Kind.C_ROOT else None
            if attempt.blocking and code:
                self.unreported = None
        if attempt.leg is not None and code == codes.WSAEFAULT:
            attempt.leg.endpoint.close(abort=True, linger=0)
        attempt.done.set()
        if not attempt.blocking:
            self.tell_outcome()
        if not code and (first or self.kind is not Kind.C_ROOT):
            self.tell_writable()
        if attempt.leg is not None:
            attempt.leg.pump()
        self.pump()

    # Looking for what there is

    def pump(self) -> bool:
        """Fetch a batch if there is none; then tell whoever wants to know of data or the end.

        Returns:
            Whether a receive would not wait now.
        """
        idle = not self.inbox and self.end is None and not self.is_unusable and not self.closed
        if idle and self.fetching.acquire(blocking=False):
            # Whoever else is fetching looks again by itself.
            try:
                self.fetch(0)
            except SpiError:
                pass  # nothing is there, or nothing can be: whoever receives is told
            finally:
                self.fetching.release()
        if self.receives and (self.inbox or self.end is not None):
            # An indication that came while this thread was fetching found nothing to complete.
            self.receives.retry()
        self.tell_level()
        return bool(self.inbox) or self.end is not None

    @contextmanager
    def reading(self, timeout: float | None) -> Iterator[None]:
        """Be the one thread that fetches, waiting so long for another that does.

        Raises:
            SpiError: WSAEWOULDBLOCK or WSAETIMEDOUT: another thread still does.
        """
        if not self.fetching.acquire(timeout=-1 if timeout is None else timeout):
            code = codes.WSAETIMEDOUT if timeout else codes.WSAEWOULDBLOCK
            raise SpiError(code, "another thread is receiving", call="WSPRecv")
        try:
            yield
        finally:
            self.fetching.release()

    def fetch(self, timeout: float | None) -> None:
        """Take a batch from the endpoint, waiting so long; for the thread that is ``reading``.

        Raises:
            SpiError: Whatever the endpoint says, but for the end of a membership: that is kept.
        """
        while not self.inbox and self.end is None:
            try:
                batch = self.endpoint.receive_many(timeout=timeout)
            except SpiError as error:
                if not self._is_end(error):
                    raise
                self.end = error
            else:  # a batch may tell of a gap alone
                self.inbox.extend(
                    Message(data, batch.sender, batch.side) for data in batch.messages
                )

    def _is_end(self, error: SpiError) -> bool:
        if error.code in _NOTHING_YET:
            return self.close_event is not None and error.code == codes.WSAENOTCONN
        return self.kind.is_rooted or self.kind is Kind.C_ROOT

    def tell_level(self) -> None:
        """Indicate whatever is true at this moment and may be indicated."""
        if self.is_unusable or self.closed:
            return
        if self.inbox and c.SD_RECEIVE not in self.shut:
            self.notices.signal(c.FD_READ)
        elif self.end is not None or (self.close_event is not None and not self.inbox):
            self._tell_close()
        if self.notices.wants(c.FD_ACCEPT) and self.waiting_requests:
            self.notices.signal(c.FD_ACCEPT)

    def _tell_close(self) -> None:
        # A connectionless member is never told of an end, nor a root of the one it made (7.5).
        if not self.kind.is_rooted or self.broken:
            return
        if self.end is None and not self._is_drained():
            return
        code = self.close_event.code if self.close_event is not None else self._close_code()
        self.notices.signal(c.FD_CLOSE, code)

    def _is_drained(self) -> bool:
        """The seam spoke of the end, and a look for data found none before it."""
        return self.close_event is not None and not self.fetching.locked()

    def _close_code(self) -> int:
        assert self.end is not None
        return 0 if self.end.code == codes.WSAEDISCON else self.end.code

    def tell_outcome(self) -> None:
        """Indicate the outcome of the last join, if nobody has heard of it (6.2, N14)."""
        code = self.unreported
        if code is None or self.accepted:
            return
        if self.notices.signal(c.FD_CONNECT, code):
            self.unreported = None

    def tell_writable(self) -> None:
        """Indicate that sending is possible, if it is."""
        if self.can_send and self.may_send:
            self.notices.signal(c.FD_WRITE)

    @property
    def may_send(self) -> bool:
        """Whether the role it joined with sends at all."""
        return self.role.sends or self.kind in (Kind.C_ROOT, Kind.LEG)

    def tell_present(self) -> None:
        """A registration has been made: indicate what is true already (model, 7.2)."""
        self.tell_outcome()
        self.tell_writable()
        self.pump()
