"""What every synchronous session does: send, receive, iterate, tell events, close."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Final, Self, TypeVar

from joinleaf.drivers.readiness import ReadySignal
from joinleaf.errors import SessionClosedError, SpiError
from joinleaf.messages import (
    Event,
    Message,
    QosChanged,
    SessionEnded,
    Unpacker,
    both_directions,
    lost_in,
)
from joinleaf.spi import constants as c
from joinleaf.spi.codes import WSAEOPNOTSUPP, session_error
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.provider import Batch, Buffer, Endpoint, EndpointEvent, EndReason, JoinRole
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.values import Address, SessionAddress

__all__ = ["Session"]

T = TypeVar("T")

EVENTS_KEPT: Final = 10_000
"""Events kept for a program that does not fetch them; then the oldest go, and the next event
fetched is preceded by nothing: membership itself is never lost, see ``Root.leaves``."""


class Session:
    """One member of a session. Made by ``join``, ``open_root`` or ``Listener.accept``.

    Use it as a context manager: leaving the block is a clean leave at the other side. One thread
    may send and another receive at the same time; a second one in the same direction gets
    ``BusyError``. Any thread may close.
    """

    def __init__(self, endpoint: Endpoint, address: SessionAddress) -> None:
        self._endpoint = endpoint
        self._address = address
        self._unpacker = Unpacker()  # the batch being handed out
        self._ready: ReadySignal | None = None
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._news = threading.Condition()
        self._over = False
        self._end_told = False
        endpoint.subscribe(self._indicated)

    # What it is

    @property
    def info(self) -> ProtocolInfo:
        """The catalogue entry: what this carrier promises."""
        return self._endpoint.info

    @property
    def session_id(self) -> bytes:
        """Random identity of the session, equal at all members; ``b""`` on plain multicast."""
        return self._endpoint.session_id

    @property
    def local_address(self) -> Address:
        """This member's own address."""
        return self._call(lambda: self._endpoint.local_address)

    @property
    def qos(self) -> Qos | None:
        """The agreed flow specifications, None if none were stated."""
        return self._endpoint.qos

    def set_qos(self, qos: FlowSpec | Qos) -> None:
        """Agree on other flow specifications while the session runs.

        A root keeps what it sends to them from now on. A member asks its root, whose capacity may
        not allow them; at both ends ``QosChanged`` tells what holds.

        Args:
            qos: One FlowSpec stands for every direction this member's role has.

        Raises:
            AdmissionRefusedError: They do not fit the capacity; the text has the numbers, and what
                was agreed before holds.
            SessionClosedError, SessionBrokenError: The session is over.
        """
        role = getattr(self, "role", JoinRole.BOTH)
        flows = both_directions(qos, role)
        try:
            self._endpoint.ioctl(c.SIO_SET_QOS, flows)
        except SpiError as error:
            raise session_error(error, joining=error.code == WSAEOPNOTSUPP) from error

    @property
    def closed(self) -> bool:
        """Whether this member has been closed here."""
        return self._over

    def stats(self) -> Mapping[str, int]:
        """Counters and gauges by name; see the reference for their meaning."""
        return self._endpoint.statistics()

    def __repr__(self) -> str:
        state = "closed" if self._over else "open"
        return f"<{type(self).__name__} {self._address} {state}>"

    # Sending

    def send(self, data: Buffer, *, timeout: float | None = None) -> None:
        """Send one message to everybody who hears this member.

        Args:
            data: Bytes-like; text has to be encoded first.
            timeout: Seconds to wait for room; None waits as long as it takes.

        Raises:
            SessionTimeoutError: No room in time; nothing was sent.
            MessageTooLargeError: Longer than the session carries; nothing was sent.
            SessionClosedError, SessionBrokenError: The session is over.
            BusyError: Another thread is sending.
        """
        self.send_many((data,), timeout=timeout)

    def send_many(self, messages: Sequence[Buffer], *, timeout: float | None = None) -> None:
        """Send many messages at once: the fast way. All or none; errors as for ``send``."""
        try:
            self._endpoint.send_many(messages, timeout=timeout)
        except SpiError as error:
            raise session_error(error) from error

    # Receiving

    def receive(self, *, timeout: float | None = None) -> Message:
        """The next message.

        Args:
            timeout: Seconds to wait; None for ever, 0 only looks.

        Raises:
            SessionTimeoutError: Nothing came in time.
            SessionClosedError: The session ended in order and everything has been received;
                ``reason`` and ``data`` say why.
            SessionBrokenError: A peer or the network failed; what had arrived was delivered.
            BusyError: Another thread is receiving.
        """
        unpacker = self._unpacker
        message = next(unpacker.waiting, None)
        if message is None:
            deadline = None if timeout is None else time.monotonic() + timeout
            while (message := unpacker.first(self._next_batch(timeout))) is None:
                timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        if self._ready is not None:
            self._show_readiness()
        return message

    def receive_many(self, *, timeout: float | None = None) -> Batch:
        """Everything of one sender that is there, at least one message: the fast way.

        Errors as for ``receive``. A batch without messages only tells of a gap.
        """
        if (rest := self._unpacker.rest()) is not None:
            self._show_readiness()
            return rest
        return self._unpacker.completed(self._next_batch(timeout))

    def _next_batch(self, timeout: float | None) -> Batch:
        try:
            batch = self._endpoint.receive_many(timeout=timeout)
        except SpiError as error:
            raise session_error(error) from error
        if batch.gap and (lost := lost_in(batch)) is not None:
            self._tell(lost)
        return batch

    def _show_readiness(self) -> None:
        """Whether messages of the last batch are left, for who watches ``fileno``."""
        if self._ready is not None:
            self._ready.set(bool(self._unpacker))

    def __iter__(self) -> Iterator[Message]:
        """Messages until the session ends in order.

        Raises:
            SessionBrokenError: It broke.
        """
        try:
            while True:
                # What a loop that is left leaves is received next.
                yield from self._unpacker.waiting
                try:
                    self._unpacker.put(self._next_batch(None))
                except SessionClosedError:
                    return
                self._show_readiness()
        finally:
            self._show_readiness()

    def fileno(self) -> int:
        """A descriptor that is readable whenever something can be received.

        For select, trio or a GUI's loop; then call ``receive(timeout=0)`` until it raises
        ``SessionTimeoutError``. Nothing can be read from the descriptor itself. -1 once closed.
        """
        fd = self._endpoint.fileno()
        if fd < 0 or not ReadySignal.available:
            return fd
        if self._ready is None:
            self._ready = ReadySignal(fd)
            self._show_readiness()
        return self._ready.fileno()

    # Events

    def events(self, *, timeout: float | None = None) -> Iterator[Event]:
        """Events as they happen, oldest first, until the session ends or none comes in time.

        Args:
            timeout: Longest wait for each next event in seconds; None for ever, 0: those there are.
        """
        while True:
            event = self._next_event(timeout)
            if event is None:
                return
            yield event
            if isinstance(event, SessionEnded):
                return

    def _next_event(self, timeout: float | None) -> Event | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._news:
            while not self._events:
                left = None if deadline is None else deadline - time.monotonic()
                if self._over or (left is not None and left <= 0):
                    return None
                self._news.wait(left)
            return self._events.popleft()

    def _tell(self, event: Event) -> None:
        with self._news:
            self._events.append(event)
            self._news.notify_all()

    def _tell_end(self, event: SessionEnded) -> None:
        with self._news:
            if not self._end_told:
                self._end_told = True
                self._tell(event)
            self._news.notify_all()

    def _indicated(self, endpoint: Endpoint, event: EndpointEvent) -> None:
        if endpoint is not self._endpoint:
            return
        if event.kind == c.FD_CLOSE:
            self._tell_end(SessionEnded(str(event.reason or EndReason.LOST), event.data))
        elif event.kind == c.FD_QOS:
            self._tell(QosChanged(endpoint.qos, refused=bool(event.code)))

    # The end

    def close(
        self, data: bytes = b"", *, abort: bool = False, timeout: float | None = None
    ) -> None:
        """Leave the session (a leaf) or end it for all (a root). Twice is allowed.

        Args:
            data: At most 64 KiB for the others, with the reason.
            abort: Do not wait, and let the others see a broken connection.
            timeout: Longest wait in seconds for the others to take what was sent; None: 5.
        """
        if not self._over:
            self._over = True
            self._call(lambda: self._endpoint.close(data=data, abort=abort, linger=timeout))
            if self._ready is not None:
                self._ready.close()
            self._tell_end(SessionEnded(str(EndReason.CLOSED)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @staticmethod
    def _call(action: Callable[[], T]) -> T:
        """Call the seam and translate what it refuses."""
        try:
            return action()
        except SpiError as error:
            raise session_error(error) from error
