"""What the operating system lends to Winsock: handles, event objects, windows, threads with APCs.

One ``Objects`` stands for one process; ``process_objects()`` is the real one. Everything in it is
guarded by one reentrant lock, ``Objects.lock``, which is open to callers: what runs under it is
atomic towards every set, reset and wait. WSPEnumNetworkEvents copies a record, clears it and resets
its event in one such step. It is a leaf lock: nothing calls out while holding it.

Nothing polls: a waiter sleeps on a condition of its own, and whoever sets one of its events, or
queues an APC for its thread, wakes it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from joinleaf.errors import SpiError
from joinleaf.spi import codes

__all__ = [
    "MAXIMUM_WAIT_EVENTS",
    "WAIT_IO_COMPLETION",
    "WAIT_TIMEOUT",
    "BlockingCall",
    "EventObject",
    "Handles",
    "Message",
    "Objects",
    "ThreadState",
    "Window",
    "process_objects",
]

MAXIMUM_WAIT_EVENTS: Final = 64
"""WSA_MAXIMUM_WAIT_EVENTS."""

WAIT_IO_COMPLETION: Final = 0xC0
WAIT_TIMEOUT: Final = 0x102

_STEP: Final = 4
_FIRST_HANDLE: Final = 0x100
_LAST_HANDLE: Final = 0x7FFF_FFFC
_MOST_HANDLES: Final = 1 << 24  # per process, as on Windows
_MOST_MESSAGES: Final = 10_000  # per message queue, as on Windows
_MOST_APCS: Final = 1 << 16  # a thread that never waits alertably must not eat all memory


class Handles:
    """Numbers for objects: multiples of 4, rising, so that a closed one is not met again soon.

    Args:
        first: Lowest number, a multiple of 4.
        last: Highest; after it the search starts again at ``first`` and passes by those in use.
        most: Most handles open at once.
    """

    def __init__(
        self, first: int = _FIRST_HANDLE, last: int = _LAST_HANDLE, most: int = _MOST_HANDLES
    ) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, Any] = {}
        self._first, self._last = first, last
        self._next = first
        self._most = min(most, (last - first) // _STEP + 1)

    def open(self, thing: Any) -> int:
        """Give a thing a number.

        Raises:
            SpiError: WSAENOBUFS, all numbers are in use.
        """
        with self._lock:
            if len(self._open) >= self._most:
                raise SpiError(codes.WSAENOBUFS, f"{self._most} handles are open")
            while self._next in self._open:
                self._advance()
            handle = self._next
            self._open[handle] = thing
            self._advance()
            return handle

    def _advance(self) -> None:
        self._next = self._first if self._next + _STEP > self._last else self._next + _STEP

    def get(self, handle: int) -> Any:
        """The thing with that number, None if there is none."""
        return self._open.get(handle)

    def close(self, handle: int) -> Any:
        """Forget a number; the thing it stood for, None if there was none."""
        with self._lock:
            return self._open.pop(handle, None)

    def things(self) -> list[Any]:
        """Everything that has a number now."""
        with self._lock:
            return list(self._open.values())

    def __len__(self) -> int:
        return len(self._open)


@dataclass(eq=False, slots=True)
class EventObject:
    """A manual-reset event: once set, everybody passes until it is reset."""

    signalled: bool = False
    closed: bool = False
    waiters: list[threading.Condition] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a window, as WSPAsyncSelect posts them."""

    hwnd: int
    msg: int
    wparam: int
    lparam: int

    @property
    def event(self) -> int:
        """WSAGETSELECTEVENT: one FD_* bit."""
        return self.lparam & 0xFFFF

    @property
    def error(self) -> int:
        """WSAGETSELECTERROR: 0 or a WSAE number."""
        return self.lparam >> 16 & 0xFFFF


class Window:
    """A window as far as Winsock sees one: a queue of messages."""

    def __init__(self, lock: threading.RLock) -> None:
        self._arrived = threading.Condition(lock)
        self._messages: deque[Message] = deque()

    def post(self, message: Message) -> bool:
        """Append a message; False if the queue is full."""
        with self._arrived:
            if len(self._messages) >= _MOST_MESSAGES:
                return False
            self._messages.append(message)
            self._arrived.notify()
            return True

    def get(self, timeout: float | None = None) -> Message | None:
        """Take the oldest message, waiting at most ``timeout`` seconds; None if there is none."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._messages, timeout)
            return self._messages.popleft() if self._messages else None

    def __len__(self) -> int:
        return len(self._messages)


@dataclass(eq=False, slots=True)
class BlockingCall:
    """A blocking call in progress. ``cancel`` wakes it; ``cancelled`` says that it must end.

    ``cancelled`` is set before ``cancel`` is called, once.
    """

    cancel: Callable[[], None]
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class _Apc:
    function: Callable[[Any], Any]
    context: Any
    source: Any = None


class ThreadState:
    """What Winsock knows of one thread; made by ``Objects.thread`` on first use.

    Attributes:
        hook: The thread's blocking hook, called with ``hook_context`` while a call blocks; None
            for none. False ends the call.
        hook_context: Its argument.
        hook_pointer: The hook as a C function pointer, kept alive while C may call it.
        call: The blocking call in progress, None if there is none.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self.hook: Callable[[Any], Any] | None = None
        self.hook_context: Any = 0
        self.hook_pointer: Any = None
        self.call: BlockingCall | None = None
        self.waiters: list[threading.Condition] = []
        self._lock = lock
        self._callbacks = 0
        self._apcs: deque[_Apc] = deque()
        self._running: list[Any] = []

    @property
    def busy(self) -> bool:
        """Whether a provider call must answer WSAEINPROGRESS on this thread."""
        return self.call is not None or self._callbacks > 0

    @contextmanager
    def blocking(self, cancel: Callable[[], None]) -> Iterator[BlockingCall]:
        """Mark a blocking call as in progress; ``cancel`` must wake it from any thread."""
        outer, self.call = self.call, BlockingCall(cancel)
        try:
            yield self.call
        finally:
            self.call = outer

    @contextmanager
    def callback(self) -> Iterator[None]:
        """Mark that a callback of the client runs (a condition function, a hook)."""
        self._callbacks += 1
        try:
            yield
        finally:
            self._callbacks -= 1

    def cancel_blocking_call(self) -> bool:
        """WSPCancelBlockingCall; False if no call blocks. Safe from any thread."""
        call = self.call
        if call is None:
            return False
        if not call.cancelled:
            call.cancelled = True
            call.cancel()
        return True

    def queue_apc(self, function: Callable[[Any], Any], context: Any, source: Any = None) -> None:
        """Have ``function(context)`` run on this thread when it next waits alertably.

        Args:
            function: A completion routine or another user APC.
            context: Its argument.
            source: What it completes, a socket handle say: routines of one source never nest.

        Raises:
            SpiError: WSAENOBUFS, 65536 wait already.
        """
        with self._lock:
            if len(self._apcs) >= _MOST_APCS:
                raise SpiError(codes.WSAENOBUFS, f"{_MOST_APCS} completion routines wait")
            self._apcs.append(_Apc(function, context, source))
            for waiter in self.waiters:
                waiter.notify_all()

    def _next_apc(self) -> _Apc | None:
        for apc in self._apcs:
            if apc.source is None or apc.source not in self._running:
                return apc
        return None

    @property
    def has_apc(self) -> bool:
        """Whether something could run now. Ask under the lock."""
        return self._next_apc() is not None

    def run_apcs(self) -> int:
        """Run what waits, oldest first, on the calling thread, which must be this one.

        Returns:
            How many ran. One that raises ends the run; the rest stays queued.
        """
        count = 0
        while True:
            with self._lock:
                if (apc := self._next_apc()) is None:
                    return count
                self._apcs.remove(apc)
            self._running.append(apc.source)
            try:
                apc.function(apc.context)
            finally:
                self._running.pop()
            count += 1


class Objects:
    """Handles, events, windows and threads of one process."""

    def __init__(self, handles: Handles | None = None) -> None:
        self.lock = threading.RLock()
        self.handles = handles if handles is not None else Handles()
        self._local = threading.local()

    # Threads

    def thread(self) -> ThreadState:
        """State of the calling thread."""
        state: ThreadState | None = getattr(self._local, "state", None)
        if state is None:
            state = self._local.state = ThreadState(self.lock)
        return state

    # Events

    def create_event(self, signalled: bool = False) -> int:
        """WSACreateEvent: a manual-reset event; its handle. Raises WSAENOBUFS."""
        return self.handles.open(EventObject(signalled))

    def event(self, handle: int) -> EventObject:
        """The event with that handle. Raises WSA_INVALID_HANDLE."""
        found = self.handles.get(handle)
        if not isinstance(found, EventObject):
            raise SpiError(codes.WSA_INVALID_HANDLE, f"{handle:#x} is no event object")
        return found

    def set_event(self, handle: int) -> None:
        """WSASetEvent: wake all who wait for it. Raises WSA_INVALID_HANDLE."""
        with self.lock:
            event = self.event(handle)
            event.signalled = True
            _wake(event)

    def reset_event(self, handle: int) -> None:
        """WSAResetEvent. Raises WSA_INVALID_HANDLE."""
        with self.lock:
            self.event(handle).signalled = False

    def is_set(self, handle: int) -> bool:
        """Whether a wait would pass at once. Raises WSA_INVALID_HANDLE."""
        return self.event(handle).signalled

    def close_event(self, handle: int) -> None:
        """WSACloseEvent; waits for it end with WSA_INVALID_HANDLE. Raises the same."""
        with self.lock:
            event = self.event(handle)
            self.handles.close(handle)
            event.closed = True
            _wake(event)

    def wait(self, handle: int, timeout: float | None = None) -> bool:
        """Wait for one event at most ``timeout`` seconds; whether it is set."""
        return self.wait_many([handle], timeout=timeout) == 0

    def wait_many(
        self,
        handles: Sequence[int],
        *,
        wait_all: bool = False,
        timeout: float | None = None,
        alertable: bool = False,
    ) -> int:
        """WSAWaitForMultipleEvents.

        Args:
            handles: 1 to 64 event handles.
            wait_all: Until all are set at the same time, instead of any.
            timeout: Seconds; None waits for ever, 0 only looks.
            alertable: Run completion routines of this thread, which ends the wait.

        Returns:
            Lowest index of an event that is set; 0 with ``wait_all``; WAIT_TIMEOUT or
            WAIT_IO_COMPLETION.

        Raises:
            SpiError: WSA_INVALID_PARAMETER: none, or more than 64. WSA_INVALID_HANDLE.
        """
        if not 1 <= len(handles) <= MAXIMUM_WAIT_EVENTS:
            raise SpiError(codes.WSA_INVALID_PARAMETER, f"{len(handles)} events, not 1 to 64")
        with self.lock:
            events = [self.event(handle) for handle in handles]
            result = self._wait(events, wait_all, timeout, self.thread() if alertable else None)
        # Routines run outside the lock: they call whatever they like.
        if result == WAIT_IO_COMPLETION:
            self.thread().run_apcs()
        return result

    def sleep(self, timeout: float | None = None) -> int:
        """SleepEx, alertable: wait for completion routines, run them; how many ran."""
        with self.lock:
            self._wait([], False, timeout, self.thread())
        return self.thread().run_apcs()

    def _wait(
        self,
        events: list[EventObject],
        wait_all: bool,
        timeout: float | None,
        thread: ThreadState | None,
    ) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        waiter = threading.Condition(self.lock)
        lists = [event.waiters for event in events] + ([thread.waiters] if thread else [])
        for waiters in lists:
            waiters.append(waiter)
        try:
            while (result := _outcome(events, wait_all, thread)) is None:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return WAIT_TIMEOUT
                waiter.wait(left)
            return result
        finally:
            for waiters in lists:
                waiters.remove(waiter)

    # Windows

    def create_window(self) -> int:
        """A window that messages can be posted to; its handle. Raises WSAENOBUFS."""
        return self.handles.open(Window(self.lock))

    def window(self, hwnd: int) -> Window | None:
        """The window with that handle; None if there is none."""
        found = self.handles.get(hwnd)
        return found if isinstance(found, Window) else None

    def destroy_window(self, hwnd: int) -> None:
        """Forget a window and its messages."""
        if self.window(hwnd) is not None:
            self.handles.close(hwnd)

    def post(self, hwnd: int, msg: int, wparam: int, lparam: int) -> bool:
        """PostMessage; False if there is no such window or its queue is full."""
        window = self.window(hwnd)
        return window is not None and window.post(Message(hwnd, msg, wparam, lparam))

    def get_message(self, hwnd: int, timeout: float | None = None) -> Message | None:
        """Take a window's oldest message, waiting at most ``timeout`` seconds."""
        window = self.window(hwnd)
        return None if window is None else window.get(timeout)


def _wake(event: EventObject) -> None:
    for waiter in event.waiters:
        waiter.notify_all()


def _outcome(events: list[EventObject], wait_all: bool, thread: ThreadState | None) -> int | None:
    if any(event.closed for event in events):
        raise SpiError(codes.WSA_INVALID_HANDLE, "an event object was closed under a wait")
    ready = [index for index, event in enumerate(events) if event.signalled]
    if ready and (not wait_all or len(ready) == len(events)):
        return ready[0]
    return WAIT_IO_COMPLETION if thread is not None and thread.has_apc else None


_PROCESS: Final = Objects()


def process_objects() -> Objects:
    """The objects of this process: what everybody shares who asks for nothing else."""
    return _PROCESS
