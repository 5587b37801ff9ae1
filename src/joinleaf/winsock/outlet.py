"""Calling up: the WPU* functions as a provider uses them, with errors raised.

Whether the upcalls are Python's or came from C by value, makes no difference here. Nothing is
called with a lock held.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable
from typing import Any, Final

from joinleaf.errors import SpiError
from joinleaf.spi import codes
from joinleaf.winsock.memory import Cell, as_int
from joinleaf.winsock.objects import Objects, process_objects
from joinleaf.winsock.types import INVALID_SOCKET, LPWSAUSERAPC, WSPUPCALLTABLE
from joinleaf.winsock.upcalls import TableUpcalls

__all__ = ["TICK", "Hook", "Outlet"]

Hook = Callable[[], bool]

TICK: Final = 0.02
"""Seconds between two calls of a blocking hook: short for a person, long for a processor."""


class Outlet:
    """The upcalls of one loaded provider.

    Args:
        upcalls: A WSPUPCALLTABLE, or an object with the methods.
        catalog_id: dwCatalogEntryId of the provider.

    Attributes:
        catalog_id: dwCatalogEntryId.
    """

    def __init__(self, upcalls: Any, catalog_id: int) -> None:
        self.catalog_id = catalog_id
        self._upcalls: Any = None
        self.use(upcalls)
        self._calls: dict[int, Callable[[], None]] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        # One C function for all: what it is to do, stands under the number it is given.
        self._apc = LPWSAUSERAPC(self._run)

    def use(self, upcalls: Any) -> None:
        """Take the table of the latest WSPStartup; only that one counts (model, 4.1)."""
        from_c = isinstance(upcalls, WSPUPCALLTABLE)
        self._upcalls = TableUpcalls(upcalls) if from_c else upcalls

    @property
    def objects(self) -> Objects:
        """Events and threads that the client uses; those of the process where it does not say."""
        found = getattr(self._upcalls, "objects", None)
        return found if isinstance(found, Objects) else process_objects()

    # Events and messages

    def set_event(self, event: int) -> None:
        """WPUSetEvent. A handle that is no event any more is the client's affair."""
        self._upcalls.WPUSetEvent(event, Cell())

    def reset_event(self, event: int) -> None:
        """WPUResetEvent.

        Raises:
            SpiError: WSAEINVAL: no event object.
        """
        if not self._upcalls.WPUResetEvent(event, Cell()):
            raise SpiError(codes.WSAEINVAL, f"{event:#x} is no event object")

    def post(self, window: int, message: int, wparam: int, lparam: int) -> None:
        """WPUPostMessage."""
        self._upcalls.WPUPostMessage(window, message, wparam, lparam)

    # Handles

    def create_handle(self, context: int) -> int:
        """WPUCreateSocketHandle.

        Raises:
            SpiError: WSAENOBUFS, whatever the reason given was (model, section 9, rule 4).
        """
        error = Cell()
        handle = as_int(self._upcalls.WPUCreateSocketHandle(self.catalog_id, context, error))
        if handle in (INVALID_SOCKET, -1):
            raise SpiError(codes.WSAENOBUFS, f"no socket handle: {error.value}")
        return handle

    def modify_handle(self, proposed: int) -> int:
        """WPUModifyIFSHandle. Raises the upcall's own code."""
        error = Cell()
        handle = as_int(self._upcalls.WPUModifyIFSHandle(self.catalog_id, proposed, error))
        if handle in (INVALID_SOCKET, -1):
            raise SpiError(as_int(error) or codes.WSAENOBUFS, "the handle was not taken")
        return handle

    def close_handle(self, handle: int) -> None:
        """WPUCloseSocketHandle. What it says does not matter any more."""
        self._upcalls.WPUCloseSocketHandle(handle, Cell())

    def context_of(self, handle: int) -> int:
        """WPUQuerySocketHandleContext.

        Raises:
            SpiError: WSAENOTSOCK.
        """
        context = Cell()
        if self._upcalls.WPUQuerySocketHandleContext(handle, context, Cell()):
            raise SpiError(codes.WSAENOTSOCK, f"{handle:#x} is no socket")
        return as_int(context)

    # Waiting

    def blocking_hook(self) -> Hook | None:
        """WPUQueryBlockingCallback: what to call now and then while waiting; None: just wait."""
        place, context = Cell(None), Cell()
        if self._upcalls.WPUQueryBlockingCallback(self.catalog_id, place, context, Cell()):
            return None
        hook = place.value
        return None if not hook else lambda: bool(hook(context.value))

    # Asynchronous procedure calls

    def current_thread(self) -> Cell:
        """WPUOpenCurrentThread.

        Raises:
            SpiError: The upcall's own code.
        """
        thread, error = Cell(), Cell()
        if self._upcalls.WPUOpenCurrentThread(thread, error):
            raise SpiError(as_int(error) or codes.WSAEINVAL, "this thread takes no calls")
        return thread

    def close_thread(self, thread: Any) -> None:
        """WPUCloseThread."""
        self._upcalls.WPUCloseThread(thread, Cell())

    def queue(self, thread: Any, call: Callable[[], None]) -> None:
        """WPUQueueApc: have that thread make the call at its next alertable wait."""
        with self._lock:
            number = next(self._numbers)
            self._calls[number] = call
        if self._upcalls.WPUQueueApc(thread, self._apc, number, Cell()):
            with self._lock, contextlib.suppress(KeyError):
                del self._calls[number]

    def _run(self, number: int) -> None:
        with self._lock:
            call = self._calls.pop(number, None)
        if call is not None:
            call()
