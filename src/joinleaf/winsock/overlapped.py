"""Overlapped operations: started, kept until they can be done, and completed.

The client's WSAOVERLAPPED holds the result: ``Internal`` is WSS_OPERATION_IN_PROGRESS, then 0 or an
error number, ``InternalHigh`` the bytes, ``Offset`` the flags. Its address identifies the
operation. Completion sets the event of the structure, or queues the completion routine to the
thread that was named; routines of one socket never nest.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from joinleaf.errors import SpiError
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.winsock.memory import address_of, function_at, is_null, struct_at
from joinleaf.winsock.outlet import Outlet
from joinleaf.winsock.types import LPWSAOVERLAPPED_COMPLETION_ROUTINE, WSAOVERLAPPED

__all__ = ["Operation", "Queue", "Result", "Routines"]

_COMPLETION_PORT_BIT: Final = 1  # of hEvent: only says that no completion port is wanted
_C_FUNCTION: Final[Any] = LPWSAOVERLAPPED_COMPLETION_ROUTINE.__mro__[1]
_LATE: Final = frozenset({codes.WSAEWOULDBLOCK, codes.WSAETIMEDOUT})


@dataclass(frozen=True, slots=True)
class Result:
    """What an operation came to: bytes moved, and flags of a receive."""

    count: int = 0
    flags: int = 0


@dataclass(slots=True, eq=False)
class Operation:
    """One overlapped operation.

    Attributes:
        overlapped: The client's structure.
        attempt: Do it now, or raise WSAEWOULDBLOCK.
        routine: Completion routine; None: none.
        thread: Where the routine runs.
        own_thread: Whether that identity is ours to close.
        done: Set at completion.
        event: hEvent, as it was at the start.
    """

    overlapped: WSAOVERLAPPED
    attempt: Callable[[], Result]
    routine: Callable[..., Any] | None = None
    thread: Any = None
    own_thread: bool = False
    done: threading.Event = field(default_factory=threading.Event)
    event: int = 0

    @classmethod
    def start(
        cls,
        outlet: Outlet,
        pointer: Any,
        routine: Any,
        thread: Any,
        attempt: Callable[[], Result],
    ) -> Operation:
        """Mark the client's structure as in progress.

        Raises:
            SpiError: WSAEFAULT: no structure there, or nothing that can be called.
        """
        overlapped = struct_at(pointer, WSAOVERLAPPED, writable=True)
        function = function_at(routine, LPWSAOVERLAPPED_COMPLETION_ROUTINE)
        own = function is not None and is_null(thread)
        made = cls(overlapped, attempt, function, outlet.current_thread() if own else thread, own)
        made.event = overlapped.hEvent & ~_COMPLETION_PORT_BIT
        overlapped.Internal = c.WSS_OPERATION_IN_PROGRESS
        overlapped.InternalHigh = overlapped.Offset = 0
        return made

    @property
    def place(self) -> int:
        """Address of the structure: the operation's identity."""
        return address_of(self.overlapped)


class Queue:
    """The overlapped operations of one direction of one socket, in the order of their start.

    Args:
        outlet: Sets events and queues routines.
        order: Lets one routine of the socket run at a time; shared by its queues.
        in_turn: Whether an operation waits for those before it; commands do not.
    """

    def __init__(self, outlet: Outlet, order: Routines, *, in_turn: bool = True) -> None:
        self._in_turn = in_turn
        self._outlet = outlet
        self._order = order
        self._lock = threading.Lock()
        self._waiting: deque[Operation] = deque()
        self._running = False

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def find(self, place: int) -> Operation | None:
        """The pending operation with that structure."""
        with self._lock:
            return next((one for one in self._waiting if one.place == place), None)

    def submit(self, operation: Operation) -> Result | None:
        """Do it now if it is its turn and it can be done.

        Returns:
            The result if it is complete; None if it is pending.

        Raises:
            SpiError: It failed at once; nothing is pending and nothing will be told.
        """
        with self._lock:
            if self._in_turn and self._waiting:
                self._waiting.append(operation)
                return None
        try:
            result = operation.attempt()
        except SpiError as error:
            if error.code not in _LATE:
                operation.overlapped.Internal = error.code
                raise
            with self._lock:
                self._waiting.append(operation)
            return None
        self.complete(operation, 0, result)
        return result

    def retry(self) -> None:
        """Do what can be done now, in order."""
        with self._lock:
            if self._running or not self._waiting:
                return
            self._running = True
        try:
            for operation in list(self._waiting):
                if not self._try(operation) and self._in_turn:
                    return
        finally:
            self._running = False

    def _try(self, operation: Operation) -> bool:
        """Do one operation if it can be done now."""
        try:
            result, code = operation.attempt(), 0
        except SpiError as error:
            if error.code in _LATE:
                return False
            result, code = Result(), error.code
        if self._remove(operation):  # and has not been aborted meanwhile
            self.complete(operation, code, result)
        return True

    def _remove(self, operation: Operation) -> bool:
        with self._lock:
            if operation in self._waiting:
                self._waiting.remove(operation)
                return True
            return False

    def abort(self, *, quiet: bool) -> None:
        """End all with WSA_OPERATION_ABORTED; ``quiet``: without telling anybody (4.2)."""
        with self._lock:
            aborted, self._waiting = self._waiting, deque()
        for operation in aborted:
            if quiet:
                operation.overlapped.Internal = codes.WSA_OPERATION_ABORTED
                operation.done.set()
            else:
                self.complete(operation, codes.WSA_OPERATION_ABORTED, Result())

    def complete(self, operation: Operation, code: int, result: Result) -> None:
        """Write the result, then tell: by routine if there is one, else by event."""
        overlapped = operation.overlapped
        overlapped.InternalHigh, overlapped.Offset = result.count, result.flags
        overlapped.Internal = code
        operation.done.set()
        if operation.routine is not None:
            self._outlet.queue(operation.thread, lambda: self._run_routine(operation, code, result))
        elif operation.event:
            self._outlet.set_event(operation.event)

    def _run_routine(self, operation: Operation, code: int, result: Result) -> None:
        routine = operation.routine
        assert routine is not None
        if operation.own_thread:
            self._outlet.close_thread(operation.thread)
        in_c = isinstance(routine, _C_FUNCTION)
        which = operation.place if in_c else operation.overlapped
        self._order.run(lambda: routine(code, result.count, which, result.flags))


class Routines:
    """Completion routines of one socket: one that comes while another runs, runs after it."""

    def __init__(self) -> None:
        self._due: deque[Callable[[], Any]] = deque()
        self._running = False
        self._lock = threading.Lock()

    def run(self, routine: Callable[[], Any]) -> None:
        """Run it, or have the one that is running be followed by it."""
        with self._lock:
            self._due.append(routine)
            if self._running:
                return
            self._running = True
        try:
            while (following := self._next()) is not None:
                following()
        except BaseException:
            self._running = False
            raise

    def _next(self) -> Callable[[], Any] | None:
        with self._lock:
            if not self._due:
                self._running = False
                return None
            return self._due.popleft()
