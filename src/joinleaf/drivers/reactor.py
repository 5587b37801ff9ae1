"""Who does what must go on while callers are elsewhere.

Accepting connections, signs of life, departed peers, withdrawn joins, queued output. A ``Reactor``
does it: the one background thread of the process, unless the caller has named another with
``use_reactor``, as asyncio programs do (``loop.py``). The thread starts when first needed, is a
daemon, and starts anew in a forked child. Data do not pass through it while a caller is receiving
or sending: see ``streams.py``.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Final, Protocol

from joinleaf.drivers.poller import READ, new_poller

__all__ = [
    "Callback",
    "Cancellable",
    "Reactor",
    "ThreadReactor",
    "Timer",
    "chosen_reactor",
    "reactor_in_use",
    "shared_reactor",
    "use_reactor",
]

_log: Final = logging.getLogger("joinleaf")

Callback = Callable[[], None]


class Cancellable(Protocol):
    """A call to come."""

    def cancel(self) -> None:
        """Do not call; harmless once it has been."""
        ...


class Reactor(Protocol):
    """Watches descriptors and the clock. Any thread may call it; it calls back on its own."""

    def watch(self, fd: int, callback: Callback) -> None:
        """Call back whenever ``fd`` is readable, until ``unwatch``."""
        ...

    def unwatch(self, fd: int) -> None:
        """Stop. A callback that is running goes on to its end."""
        ...

    def call_later(self, seconds: float, callback: Callback) -> Cancellable:
        """Call back once, not before ``seconds`` have passed."""
        ...

    @property
    def is_current_thread(self) -> bool:
        """Whether this is the thread that calls back, which must never wait."""
        ...


class Timer:
    """A call that will be made unless it is cancelled first."""

    __slots__ = ("callback", "due")

    def __init__(self, due: float, callback: Callback) -> None:
        self.due = due
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        """Do not call; harmless once it has been."""
        self.callback = None


class ThreadReactor:
    """A reactor with a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._poller = new_poller()
        self._watched: dict[int, Callback] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_receiver.setblocking(False)
        self._wake_sender.setblocking(False)
        self._poller.watch(self._wake_receiver.fileno(), READ)
        self._sleeping_until = 0.0

    def watch(self, fd: int, callback: Callback) -> None:
        """Call back whenever ``fd`` is readable, until ``unwatch``."""
        with self._lock:
            self._watched[fd] = callback
            self._poller.watch(fd, READ)
            self._start()

    def unwatch(self, fd: int) -> None:
        """Stop. A callback that is running goes on to its end."""
        with self._lock:
            self._watched.pop(fd, None)
            self._poller.forget(fd)

    def call_later(self, seconds: float, callback: Callback) -> Timer:
        """Call back once, not before ``seconds`` have passed."""
        timer = Timer(time.monotonic() + seconds, callback)
        with self._lock:
            heapq.heappush(self._timers, (timer.due, next(self._numbers), timer))
            self._start()
            if timer.due < self._sleeping_until:
                self._wake()
        return timer

    def call_soon(self, callback: Callback) -> None:
        """Call back at once, on the reactor's thread."""
        self.call_later(0.0, callback)

    @property
    def is_current_thread(self) -> bool:
        """Whether this is the reactor's own thread, which must never wait."""
        return threading.current_thread() is self._thread

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="joinleaf-io", daemon=True)
            self._thread.start()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: awake already
            self._wake_sender.send(b"\0")

    def _run(self) -> None:
        while True:
            for fd, _ in self._poller.poll(self._next_timeout()):
                if fd == self._wake_receiver.fileno():
                    self._drain_wake()
                elif (callback := self._watched.get(fd)) is not None:
                    self._call(callback)
            for callback in self._due():
                self._call(callback)

    def _drain_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_receiver.recv(4096):
                pass

    def _next_timeout(self) -> float | None:
        with self._lock:
            while self._timers and self._timers[0][2].callback is None:
                heapq.heappop(self._timers)
            if not self._timers:
                self._sleeping_until = float("inf")
                return None
            self._sleeping_until = self._timers[0][0]
            return max(0.0, self._sleeping_until - time.monotonic())

    def _due(self) -> list[Callback]:
        now = time.monotonic()
        due: list[Callback] = []
        with self._lock:
            self._sleeping_until = 0.0
            while self._timers and self._timers[0][0] <= now:
                timer = heapq.heappop(self._timers)[2]
                if timer.callback is not None:
                    due.append(timer.callback)
        return due

    def _call(self, callback: Callback) -> None:
        try:
            callback()
        except Exception:
            # A defect of ours or of a subscriber must not stop the sessions of all others.
            _log.exception("a callback of the background thread failed")


class _Shared:
    """Holds the process's reactor; a class so that a forked child can start anew."""

    lock = threading.Lock()
    reactor: ThreadReactor | None = None

    @classmethod
    def reset(cls) -> None:
        cls.lock = threading.Lock()
        cls.reactor = None


def shared_reactor() -> ThreadReactor:
    """The process's reactor, made when first asked for."""
    with _Shared.lock:
        if _Shared.reactor is None:
            _Shared.reactor = ThreadReactor()
        return _Shared.reactor


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Shared.reset)


_chosen: Final[ContextVar[Reactor | None]] = ContextVar("joinleaf_reactor", default=None)


@contextlib.contextmanager
def use_reactor(reactor: Reactor) -> Iterator[None]:
    """Endpoints opened, and joins started, in this block have their background work done here.

    A context and no argument of ``Provider.open``: providers that have nothing to do in the
    background, or a thread of their own, need not know of it.
    """
    token = _chosen.set(reactor)
    try:
        yield
    finally:
        _chosen.reset(token)


def chosen_reactor() -> Reactor | None:
    """The reactor of the block we are in; None outside of all."""
    return _chosen.get()


def reactor_in_use() -> Reactor:
    """The reactor of the block we are in; the process's thread outside of all."""
    return _chosen.get() or shared_reactor()
