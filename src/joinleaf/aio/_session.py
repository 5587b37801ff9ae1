"""What every asyncio session does: send, receive, iterate, tell events, close."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self, TypeVar

from joinleaf.aio._bell import Bell
from joinleaf.aio._channel import Channel
from joinleaf.drivers.loop import LoopReactor, look_up_soon
from joinleaf.drivers.names import Answers
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
from joinleaf.spi.provider import (
    Batch,
    Buffer,
    Endpoint,
    EndpointEvent,
    EndReason,
    EventCallback,
    JoinRole,
)
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.values import Address, SessionAddress

__all__ = ["Session", "awaited", "names_for", "on_loop"]

T = TypeVar("T")

EVENTS_KEPT: Final = 10_000
"""Events kept for a program that does not fetch them; then the oldest go. Membership itself is
never lost, see ``Root.leaves``."""


class Session:
    """One member of a session. Made by ``join``, ``open_root`` or ``Listener.accept``.

    Use it with ``async with``: leaving the block is a clean leave at the other side. It belongs to
    the event loop it was made on. One task may send and another receive at the same time; a second
    one in the same direction gets ``BusyError``. Any task may close.
    """

    def __init__(
        self, endpoint: Endpoint, address: SessionAddress, reactor: LoopReactor, linger: float
    ) -> None:
        self._endpoint = endpoint
        self._address = address
        self._reactor = reactor
        self._loop = reactor.loop
        self._linger = linger
        self._channel = Channel(endpoint, reactor.loop)
        self._unpacker = Unpacker()  # the batch being handed out
        self._ready: ReadySignal | None = None
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._news = Bell(reactor.loop)
        self._over = False
        self._end_told = False
        endpoint.subscribe(on_loop(reactor.loop, self._indicated))

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
        not allow them; it does not wait: at both ends ``QosChanged`` tells what holds.

        Args:
            qos: One FlowSpec stands for every direction this member's role has.

        Raises:
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

    async def send(self, data: Buffer, *, timeout: float | None = None) -> None:
        """Send one message to everybody who hears this member.

        Cancelled while it waits for room, it has sent nothing.

        Args:
            data: Bytes-like; text has to be encoded first.
            timeout: Seconds to wait for room; None waits as long as it takes.

        Raises:
            SessionTimeoutError: No room in time; nothing was sent.
            MessageTooLargeError: Longer than the session carries; nothing was sent.
            SessionClosedError, SessionBrokenError: The session is over.
            BusyError: Another task is sending.
        """
        await self.send_many((data,), timeout=timeout)

    async def send_many(self, messages: Sequence[Buffer], *, timeout: float | None = None) -> None:
        """Send many messages at once: the fast way. All or none; errors as for ``send``."""
        try:
            await self._channel.send_many(messages, timeout)
        except SpiError as error:
            raise session_error(error) from error

    # Receiving

    async def receive(self, *, timeout: float | None = None) -> Message:
        """The next message. Cancelled, it has taken nothing.

        Args:
            timeout: Seconds to wait; None for ever, 0 only looks.

        Raises:
            SessionTimeoutError: Nothing came in time.
            SessionClosedError: The session ended in order and everything has been received;
                ``reason`` and ``data`` say why.
            SessionBrokenError: A peer or the network failed; what had arrived was delivered.
            BusyError: Another task is receiving.
        """
        unpacker = self._unpacker
        message = next(unpacker.waiting, None)
        if message is None:
            deadline = None if timeout is None else time.monotonic() + timeout
            while (message := unpacker.first(await self._next_batch(timeout))) is None:
                timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        if self._ready is not None:
            self._show_readiness()
        return message

    async def receive_many(self, *, timeout: float | None = None) -> Batch:
        """Everything of one sender that is there, at least one message: the fast way.

        Errors as for ``receive``. A batch without messages only tells of a gap.
        """
        if (rest := self._unpacker.rest()) is not None:
            self._show_readiness()
            return rest
        return self._unpacker.completed(await self._next_batch(timeout))

    async def _next_batch(self, timeout: float | None) -> Batch:
        try:
            batch = await self._channel.receive_many(timeout)
        except SpiError as error:
            raise session_error(error) from error
        if (lost := lost_in(batch)) is not None:
            self._tell(lost)
        return batch

    def _show_readiness(self) -> None:
        """Whether messages of the last batch are left, for who watches ``fileno``."""
        if self._ready is not None:
            self._ready.set(bool(self._unpacker))

    def __aiter__(self) -> Self:
        """Messages until the session ends in order; what a loop that is left leaves comes next."""
        return self

    async def __anext__(self) -> Message:
        """As ``receive``.

        Raises:
            StopAsyncIteration: The session ended in order.
            SessionBrokenError: It broke.
        """
        message = next(self._unpacker.waiting, None)
        if message is None or self._ready is not None:
            try:
                return message or await self.receive()
            except SessionClosedError:
                raise StopAsyncIteration from None
            finally:
                self._show_readiness()
        return message

    def fileno(self) -> int:
        """A descriptor that is readable whenever something can be received.

        For another loop than asyncio's; here ``receive`` is enough. Nothing can be read from the
        descriptor itself. -1 once closed.
        """
        fd = self._endpoint.fileno()
        if fd < 0 or not ReadySignal.available:
            return fd
        if self._ready is None:
            self._ready = ReadySignal(fd)
            self._show_readiness()
        return self._ready.fileno()

    # Events

    async def events(self, *, timeout: float | None = None) -> AsyncIterator[Event]:
        """Events as they happen, oldest first, until the session ends or none comes in time.

        Args:
            timeout: Longest wait for each next event in seconds; None for ever, 0: those there are.
        """
        while True:
            event = await self._next_event(timeout)
            if event is None:
                return
            yield event
            if isinstance(event, SessionEnded):
                return

    async def _next_event(self, timeout: float | None) -> Event | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._events:
            left = None if deadline is None else deadline - time.monotonic()
            if self._over or (left is not None and left <= 0):
                return None
            self._news.clear()
            await self._news.wait(left)
        return self._events.popleft()

    def _tell(self, event: Event) -> None:
        self._events.append(event)
        self._news.ring()

    def _tell_end(self, event: SessionEnded) -> None:
        if not self._end_told:
            self._end_told = True
            self._tell(event)
        self._news.ring()

    def _indicated(self, endpoint: Endpoint, event: EndpointEvent) -> None:
        if endpoint is not self._endpoint:
            return
        if event.kind == c.FD_CLOSE:
            self._tell_end(SessionEnded(str(event.reason or EndReason.LOST), event.data))
        elif event.kind == c.FD_QOS:
            self._tell(QosChanged(endpoint.qos, refused=bool(event.code)))
        self._channel.indicated(event.kind)

    # The end

    async def close(
        self, data: bytes = b"", *, abort: bool = False, timeout: float | None = None
    ) -> None:
        """Leave the session (a leaf) or end it for all (a root). Twice is allowed.

        Cancelled while it waits for the others, it ends the session without them.

        Args:
            data: At most 64 KiB for the others, with the reason.
            abort: Do not wait, and let the others see a broken connection.
            timeout: Longest wait in seconds for the others to take what was sent; None: 5.
        """
        if self._over:
            return
        # Refused, for too long data, it has changed nothing; on its loop it never waits.
        self._call(lambda: self._endpoint.close(data=data, abort=abort, linger=timeout))
        self._over = True
        if self._ready is not None:
            self._ready.close()
        self._channel.indicated(c.FD_CLOSE)
        self._tell_end(SessionEnded(str(EndReason.CLOSED)))
        try:
            await self._wind_up()
            if not abort:
                await self._reactor.idle(self._linger if timeout is None else timeout)
        except asyncio.CancelledError:
            self._endpoint.close(abort=True)
            raise

    async def _wind_up(self) -> None:
        """What a kind of session has to end beside its endpoint."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @staticmethod
    def _call(action: Callable[[], T]) -> T:
        """Call the seam and translate what it refuses."""
        try:
            return action()
        except SpiError as error:
            raise session_error(error) from error


async def awaited(work: Awaitable[T]) -> T:
    """Await work at the seam and translate what it refuses."""
    try:
        return await work
    except SpiError as error:
        raise session_error(error) from error


async def names_for(info: ProtocolInfo, address: Address, *, passive: bool = False) -> Answers:
    """Have a host's name looked up where waiting does no harm; other carriers' names stay names."""
    if info.address_family not in (c.AF_INET, c.AF_INET6):
        return {}
    return await look_up_soon(address, passive=passive)


def on_loop(loop: asyncio.AbstractEventLoop, callback: EventCallback) -> EventCallback:
    """Have indications come on the loop's thread: ``mem`` tells on the thread that did it."""
    thread = threading.get_ident()

    def tell(endpoint: Endpoint, event: EndpointEvent) -> None:
        if threading.get_ident() == thread:
            callback(endpoint, event)
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
                loop.call_soon_threadsafe(callback, endpoint, event)

    return tell
