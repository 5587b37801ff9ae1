"""What the endpoints of rooted sessions share: queues, guards, events, closing at exit."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, cast

from joinleaf.core.leg import LegState
from joinleaf.core.qos.token_bucket import TokenBucket
from joinleaf.core.session import Arrived, LegEnded
from joinleaf.core.wire.data import PackedBatch
from joinleaf.drivers.readiness import ReadySignal
from joinleaf.drivers.streams import StreamDriver
from joinleaf.errors import SpiError
from joinleaf.spi import constants as c
from joinleaf.spi.codes import (
    WSAEDISCON,
    WSAEFAULT,
    WSAEINPROGRESS,
    WSAEINTR,
    WSAEINVAL,
    WSAENOPROTOOPT,
    WSAENOTSOCK,
    WSAESHUTDOWN,
    WSAETIMEDOUT,
    WSAEWOULDBLOCK,
)
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.provider import (
    Batch,
    Buffer,
    Endpoint,
    EndpointEvent,
    EndReason,
    EventCallback,
    Reject,
    Roles,
    Settings,
    SlowPolicy,
)
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.values import Address

__all__ = ["INBOX_BYTES", "EndpointBase", "Guard", "ended_error", "late"]

INBOX_BYTES: Final = 1 << 20
"""Received messages kept for a caller that does not fetch them; then reading stops, and TCP holds
the senders. About two reads' worth, so that a caller who does fetch them never notices."""

LINGER_AT_EXIT_S: Final = 0.3
"""Longest each forgotten endpoint holds up the end of the interpreter."""

Callbacks = list[Callable[[], None]]

BATCH_OVERHEAD: Final = 256
"""What a batch costs beside its payload: else gaps and empty frames would cost nothing, and a peer
that sends nothing else could fill memory."""

_open: weakref.WeakSet[EndpointBase] = weakref.WeakSet()
_all: weakref.WeakSet[EndpointBase] = weakref.WeakSet()


def _close_at_exit() -> None:
    """A clean leave at the other side, even for who forgot to close; all share one bound."""
    deadline = time.monotonic() + LINGER_AT_EXIT_S
    still_open = list(_open)
    for endpoint in still_open:
        with contextlib.suppress(Exception):
            endpoint.close(linger=max(0.0, deadline - time.monotonic()))
    for endpoint in still_open:  # nothing goes on in the background from here on
        with contextlib.suppress(Exception):
            endpoint.close(abort=True)


atexit.register(_close_at_exit)


def _abandon_in_child() -> None:
    """A forked child has none of its parent's sessions, and must not take leave for it."""
    _open.clear()
    for endpoint in list(_all):
        endpoint.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_in_child)


def forget_at_exit(endpoint: EndpointBase) -> None:
    """Somebody else closes this one."""
    _open.discard(endpoint)


def late(timeout: float | None, what: str) -> SpiError:
    """The error for a call that has run out of time, or was not to wait."""
    if timeout is not None and timeout <= 0:
        return SpiError(WSAEWOULDBLOCK, f"{what} would have to wait", call=what)
    return SpiError(WSAETIMEDOUT, f"{what} was not done within {timeout} s", call=what)


def ended_error(ended: LegEnded, call: str) -> SpiError:
    """What a call gets once the membership is over."""
    code = WSAEDISCON if ended.reason.orderly else ended.code or WSAEDISCON
    message = f": {ended.message}" if ended.message else ""
    return SpiError(
        code,
        f"the session is over: {ended.reason}{message}",
        call=call,
        reason=ended.reason,
        data=ended.data,
    )


class Guard:
    """Lets one thread through at a time and turns away a second, instead of making it wait."""

    __slots__ = ("_lock", "_what")

    def __init__(self, what: str) -> None:
        self._lock = threading.Lock()
        self._what = what

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise SpiError(
                WSAEINPROGRESS,
                f"another thread is inside {self._what} on this endpoint",
                call=self._what,
                hint=f"Let one thread {self._what} at a time",
            )

    def __exit__(self, *_: object) -> None:
        self._lock.release()


AHEAD_S: Final = 0.03
"""A batch is taken up so long before it conforms: else nothing would be there to send when it does,
as a caller that waits is woken late."""


class Inbox:
    """Received batches waiting for the caller.

    Attributes:
        size: Bytes of payload.
        cost: About how much memory they hold.
    """

    __slots__ = ("_batches", "size")

    def __init__(self) -> None:
        self._batches: deque[tuple[Batch, int]] = deque()
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._batches)

    @property
    def cost(self) -> int:
        return self.size + BATCH_OVERHEAD * len(self._batches)

    def put(self, batch: Batch, size: int) -> None:
        self._batches.append((batch, size))
        self.size += size

    def take(self) -> Batch | None:
        if not self._batches:
            return None
        batch, size = self._batches.popleft()
        self.size -= size
        return batch


class EndpointBase(ABC):
    """Fields and behaviour of every endpoint of a rooted session."""

    _takes_requests = True
    _hears_session = True  # else side chat alone

    def __init__(
        self, info: ProtocolInfo, roles: Roles, settings: Settings, driver: StreamDriver
    ) -> None:
        self._info = info
        self._roles = roles
        self._settings = settings
        self._driver = driver
        self._callback: EventCallback | None = None
        self._inbox = Inbox()
        self._sending = Guard("send")
        self._receiving = Guard("receive")
        self._qos: Qos | None = None
        self._bucket: TokenBucket | None = None
        self._was_invited = False
        self._closed = False
        self._ended: LegEnded | None = None
        self._cannot_send = False
        self._cannot_receive = False
        self._ready: ReadySignal | None = None
        self._hold_key: int | None = None  # the leg that alone fills the inbox
        self._holding = False
        _open.add(self)
        _all.add(self)

    @property
    def info(self) -> ProtocolInfo:
        """The catalogue entry it was made from."""
        return self._info

    @property
    def roles(self) -> Roles:
        """Its role in each plane."""
        return self._roles

    @property
    def qos(self) -> Qos | None:
        """The agreed flow specifications."""
        return self._qos

    @abstractmethod
    def close(
        self,
        *,
        data: bytes = b"",
        abort: bool = False,
        linger: float | None = None,
        reason: EndReason | None = None,
    ) -> None:
        """WSPCloseSocket."""

    def cancel(self) -> None:
        """End every call blocked on this endpoint with WSAEINTR."""
        self._driver.cancel()

    def subscribe(self, callback: EventCallback | None) -> None:
        """Have indications reported; conditions already true are indicated at once.

        FD_WRITE comes after a join, and after a send that WSAEWOULDBLOCK refused, once there is
        room again.
        """
        with self._driver.lock:
            self._callback = callback
            due = self._standing_events()
        if callback is not None:
            for event in due:
                callback(self._as_endpoint(), event)

    def _as_endpoint(self) -> Endpoint:
        # Not isinstance: a runtime protocol reads every property, and some of them raise.
        return cast("Endpoint", self)

    def _standing_events(self) -> list[EndpointEvent]:
        events = []
        if self._driver.session.queue and self._takes_requests:
            events.append(EndpointEvent(c.FD_ACCEPT))
        if self._inbox:
            events.append(EndpointEvent(c.FD_READ))
        if self._ended is not None:
            events.append(close_event(self._ended))
        return events

    def _indicate(self, event: EndpointEvent) -> Callbacks:
        """The call to make, outside the lock, if anybody listens."""
        callback = self._callback
        if callback is None or self._closed:
            return []
        endpoint = self._as_endpoint()
        return [lambda: callback(endpoint, event)]

    def _drop_excess(self) -> None:
        """A shorter queue than there are waiting requests: the last ones are refused (5.3)."""
        session = self._driver.session

        def drop() -> None:
            for key in list(session.queue)[session.backlog :]:
                if session.legs[key].association.state is LegState.QUEUED:
                    session.reject(key, Reject(message="the queue has been shortened"))

        self._driver.run(drop)

    # Received messages. Under the driver's lock.

    def _put(self, batch: Batch, size: int) -> Callbacks:
        if self._cannot_receive or self._closed:
            return []  # nobody will fetch it, and a full inbox would hold up the senders
        first = not self._inbox
        self._inbox.put(batch, size)
        if self._ready is not None:
            self._ready.set(True)
        if self._inbox.cost > INBOX_BYTES and not self._holding:
            self._hold(True)
        return self._indicate(EndpointEvent(c.FD_READ)) if first else []

    def _take(self) -> Batch | None:
        batch = self._inbox.take()
        if batch is None:
            return None
        if self._holding and self._inbox.cost <= INBOX_BYTES // 2:
            self._hold(False)
        if self._ready is not None:
            self._ready.set(bool(self._inbox) or self._ended is not None)
        return batch

    def _hold(self, hold: bool) -> None:
        self._holding = hold
        self._driver.set_hold(hold, self._hold_key)

    def _stop_receiving(self) -> None:
        """SD_RECEIVE: what is there and what comes is discarded."""
        with self._driver.lock:
            self._cannot_receive = True
            self._inbox = Inbox()
            if self._holding:
                self._hold(False)

    def abandon(self) -> None:
        """In a forked child: the session is the parent's, here the endpoint is closed."""
        self._closed = True
        self._sending, self._receiving = Guard("send"), Guard("receive")
        if self._ready is not None:
            self._ready.close()

    def _take_or_end(self) -> Batch | None:
        if self._inbox and (batch := self._take()) is not None:
            return batch
        if self._closed:
            raise closed_error("receive")
        if self._ended is not None:
            raise ended_error(self._ended, "receive")
        return None

    def _claim(self, arrived: Arrived) -> Batch | None:
        """Take a batch past the inbox, which is empty, if it is for this endpoint."""
        if self._cannot_receive or self._closed or not self._is_for_me(arrived):
            return None
        return arrived.batch

    @abstractmethod
    def _is_for_me(self, arrived: Arrived) -> bool:
        """Whether a batch is for this endpoint, and not for another of the same driver."""

    def receive_many(self, *, timeout: float | None = None) -> Batch:
        """WSPRecv."""
        with self._receiving:
            if self._cannot_receive:
                raise SpiError(WSAESHUTDOWN, "receiving was shut down", call="receive")
            self._check_may_receive()
            if self._hears_session:
                batch = self._driver.receive(self._take_or_end, timeout, self._claim)
            else:
                batch = self._driver.pump_until(self._take_or_end, timeout)
        if batch is None:
            raise late(timeout, "receive")
        return batch

    @abstractmethod
    def _check_may_receive(self) -> None:
        """Raise what a receive gets that is not allowed in this state."""

    def fileno(self) -> int:
        """Readable whenever something can be received; -1 once closed, or on Windows."""
        with self._driver.lock:
            if self._closed or self._driver.closed:
                return -1
            if not ReadySignal.available:
                return self._driver.poller_fileno()
            if self._ready is None:
                self._ready = ReadySignal(self._driver.poller_fileno())
                self._ready.set(bool(self._inbox) or self._ended is not None)
            return self._ready.fileno()

    # Shaping

    def _set_qos(self, qos: Qos | None) -> None:
        """Take over what was agreed; it is stated as the asker sees the directions."""
        self._qos = qos
        self._driver.lane = None
        sending = None
        if qos is not None:
            sending = qos.receiving if self._was_invited else qos.sending
        self._bucket = (
            TokenBucket.from_flowspec(sending) if sending is not None and sending.rate else None
        )
        self._keep_to(sending)

    @abstractmethod
    def _keep_to(self, sending: FlowSpec | None) -> None:
        """Have what leaves by the network kept to this too, packet by packet. Under the lock."""

    def _shape(self, size: int, deadline: float | None, timeout: float | None) -> None:
        """Wait until ``size`` bytes nearly conform to the agreed rate; all or nothing.

        What leaves is held to it by the session's shapers; here is decided whether a batch can
        leave in its time at all.
        """
        bucket = self._bucket
        if bucket is None:
            return
        delay = max(0.0, bucket.delay_ns(size, time.monotonic_ns()) / 1e9 - self._ahead_s(bucket))
        if deadline is not None and delay > 0 and time.monotonic() + delay > deadline:
            if timeout is not None and timeout <= 0 and self._callback is not None:
                self._driver.reactor.call_later(delay, self._tell_of_room)
            raise late(timeout, "send")
        end = time.monotonic() + delay
        while (left := end - time.monotonic()) > 0:
            self._driver.wait_for(self._gone, left)
            if self._gone():
                break
        bucket.consume(size, time.monotonic_ns())

    def _ahead_s(self, bucket: TokenBucket) -> float:
        """How long before its time a batch is taken up.

        Where a policy acts on what slow leaves leave, what waits for its time must not seem so.
        """
        if self._settings.slow is SlowPolicy.WAIT:
            return AHEAD_S
        return min(AHEAD_S, self._settings.queue_bytes / 4 / bucket.rate)

    def _send_off(
        self,
        queue: Callable[[], tuple[Sequence[int], PackedBatch]],
        deadline: float | None,
        *,
        waits: bool = True,
        to_all: Sequence[Buffer] | None = None,
    ) -> None:
        """Queue a batch, and have the kernel take it; what it does not take in time is kept.

        Args:
            queue: Checks and queues, under the lock; gives the legs concerned and the batch.
            deadline: Until when to wait for the kernel.
            waits: Whether to wait at all.
            to_all: The batch, if it is for all that hear this end: it may go straight.
        """
        driver = self._driver
        keys: Sequence[int] = ()
        borrowed = done = False
        calls: Callbacks = []
        try:
            with driver.lock:
                # Until it is known, and where Ctrl-C strikes in between: all of them, borrowed.
                keys, borrowed = driver.keys(), True
                lane = driver.lane if to_all is not None else None
                if lane is None or to_all is None:
                    keys, packed = queue()
                elif (rest := lane.send(to_all)) is None:
                    done = True
                    return
                else:
                    keys, packed = lane.keys, rest
                borrowed = packed.borrowed
                done = driver.flush_at_once(keys)
                if not done:
                    calls = driver.settle(arm=False)
                elif to_all is not None:
                    driver.open_lane(keys)
            for call in calls:
                call()
            if waits and not done:
                self._drain_queued(keys, deadline)
        finally:
            if not done:
                self._keep_unsent(keys, borrowed)

    def _drain_queued(self, keys: Sequence[int], deadline: float | None) -> None:
        try:
            self._driver.drain(keys, deadline)
        except SpiError as error:
            # A cancelled call has sent all the same: an error would say that nobody gets it.
            if error.code != WSAEINTR or self._closed:
                raise

    def _keep_unsent(self, keys: Sequence[int], borrowed: bool) -> None:
        with self._driver.lock:
            if borrowed:
                self._driver.session.own_outboxes(keys)
            self._driver.arm_output(keys)

    def _await_room(
        self, keys: Sequence[int], deadline: float | None, timeout: float | None
    ) -> None:
        """Wait until nothing is queued for any of these legs; WSAETIMEDOUT with nothing sent."""
        done = False
        try:
            done = self._driver.drain(keys, deadline)
        finally:
            if not done:
                self._keep_unsent(keys, False)
        if not done:
            if timeout is not None and timeout <= 0 and self._callback is not None:
                self._driver.tell_of_room(self, keys, self._room_again)
            raise late(timeout, "send")

    def _room_again(self) -> Callbacks:
        return self._indicate(EndpointEvent(c.FD_WRITE))

    def _tell_of_room(self) -> None:
        for call in self._room_again():
            call()

    def _gone(self) -> bool | None:
        return True if self._closed or self._ended is not None else None

    def _wait_for_peers(self, linger: float) -> None:
        """Give peers time to take what was sent; the rest goes on in the background."""
        if linger > 0 and not self._driver.runs_in_reactor:
            with contextlib.suppress(SpiError):
                self._driver.wait_for(lambda: self._driver.closed or None, linger)

    # Options that need no session

    def ioctl(self, code: int, value: Any = None) -> Any:
        """WSPIoctl."""
        with self._driver.lock:
            if self._closed:
                raise closed_error("ioctl")
            match code:
                case c.SIO_SET_QOS:
                    if not isinstance(value, Qos):
                        raise SpiError(WSAEFAULT, "SIO_SET_QOS takes a Qos", call="ioctl")
                    self._set_qos(value)
                    return None
                case c.SIO_GET_QOS:
                    return self.qos
                case c.FIONREAD:
                    return self._inbox.size
                case _:
                    raise SpiError(
                        WSAEINVAL,
                        f"ioctl {code:#x} means nothing on {self._info.name}",
                        call="ioctl",
                    )

    def get_option(self, option: int) -> Any:
        """WSPGetSockOpt."""
        match option:
            case c.SO_TYPE:
                return self._info.socket_type
            case c.SO_MAX_MSG_SIZE:
                return self._settings.max_message
            case c.SO_REUSEADDR:
                return self._settings.reuse_address
            case c.SO_ACCEPTCONN:
                return False
            case c.SO_SNDBUF:
                return self._settings.queue_bytes
            case c.SO_PROTOCOL_INFOW:
                return self._info
            case _:
                raise SpiError(
                    WSAENOPROTOOPT, f"option {option:#x} is not known", call="get_option"
                )

    def set_option(self, option: int, value: Any) -> None:
        """WSPSetSockOpt."""
        raise SpiError(
            WSAENOPROTOOPT,
            f"option {option:#x} cannot be set on {self._info.name}",
            call="set_option",
            hint="Options are given in Settings when the endpoint is opened",
        )


def close_event(ended: LegEnded) -> EndpointEvent:
    """FD_CLOSE for an ended membership."""
    return EndpointEvent(c.FD_CLOSE, ended.code, ended.reason, ended.data)


def closed_error(call: str) -> SpiError:
    """What every call on a closed endpoint gets."""
    return SpiError(WSAENOTSOCK, "the endpoint is closed", call=call, reason=EndReason.CLOSED)


def check_disconnect_data(data: bytes, limit: int) -> None:
    """Raise WSAEFAULT where disconnect data are over the limit."""
    if len(data) > limit:
        raise SpiError(WSAEFAULT, f"data of {len(data)} bytes are over {limit}", call="close")


def total_bytes(messages: Iterable[Buffer]) -> int:
    """Payload of a batch; a view counts in bytes whatever its items are."""
    return sum(m.nbytes if isinstance(m, memoryview) else len(m) for m in messages)


def same_address(first: Address, second: Address) -> bool:
    """Whether two addresses are the same host and port."""
    return (first.ip or first.host, first.port) == (second.ip or second.host, second.port)
