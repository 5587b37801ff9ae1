"""The fifteen WPU* functions a provider may call, in Python and as a WSPUPCALLTABLE.

``Upcalls`` is what ws2_32 is to a provider: it hands out handles, owns events, posts messages and
knows the blocking hooks. It counts every call, and any function can be replaced, so that a test
can watch or break one. ``Upcalls.table`` is the same for C. ``TableUpcalls`` reads a table that
came from C: same methods, so a provider does not care where its upcalls came from.

WPUCompleteOverlappedRequest is not in the table (ws2_32 exports it); it stands beside the others.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import logging
import types
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Concatenate, Final, ParamSpec

from joinleaf.errors import SpiError
from joinleaf.spi import codes
from joinleaf.winsock.conversions import guid_from_c, guid_to_c
from joinleaf.winsock.declarations import OTHER_FUNCTIONS, UPCALLS
from joinleaf.winsock.memory import (
    Cell,
    as_int,
    fault,
    function_at,
    is_null,
    read_fd_set,
    struct_at,
    write_error,
    write_int,
    write_wide,
)
from joinleaf.winsock.objects import Objects, ThreadState, process_objects
from joinleaf.winsock.thunks import error_value, thunk
from joinleaf.winsock.types import (
    DWORD_PTR,
    GUID,
    INVALID_SOCKET,
    LPBLOCKINGCALLBACK,
    LPWSAUSERAPC,
    WSAOVERLAPPED,
    WSATHREADID,
    WSPUPCALLTABLE,
    fd_set,
)

__all__ = ["TableUpcalls", "Upcalls"]

_log: Final = logging.getLogger("joinleaf.winsock")

_P = ParamSpec("_P")
_PROTOTYPES: Final = {**UPCALLS, **OTHER_FUNCTIONS}


@dataclass(frozen=True, slots=True)
class _SocketHandle:
    """What a socket handle made by an upcall stands for."""

    owner: Upcalls
    catalog_entry_id: int
    context: Any


@dataclass(frozen=True, slots=True)
class _ThreadHandle:
    state: ThreadState


def _upcall(
    function: Callable[Concatenate[Upcalls, _P], int],
) -> Callable[Concatenate[Upcalls, _P], int]:
    """Count the call, let a replacement answer, and turn SpiError into lpErrno and a value."""
    name = function.__name__
    has_errno = _PROTOTYPES[name].parameter_names[-1] == "lpErrno"

    @functools.wraps(function)
    def call(self: Upcalls, /, *args: _P.args, **kwargs: _P.kwargs) -> int:
        self.calls[name] += 1
        replacement = self.replaced.get(name)
        try:
            if replacement is not None:
                return replacement(*args, **kwargs)
            return function(self, *args, **kwargs)
        except SpiError as error:
            if has_errno:
                write_error(kwargs.get("lpErrno", args[-1] if args else None), error.code)
            return error_value(name)

    return call


class Upcalls:
    """The upcalls of one client, over the objects of a process.

    Args:
        objects: Handles, events and threads; those of this process if not given.

    Attributes:
        calls: How often each function was called, by its name.
        replaced: Functions that answer instead, by name; they get the same arguments.
        provider_paths: What WPUGetProviderPath answers, by provider id.
    """

    def __init__(self, objects: Objects | None = None) -> None:
        self.objects = objects if objects is not None else process_objects()
        self.calls: Counter[str] = Counter()
        self.replaced: dict[str, Callable[..., int]] = {}
        self.provider_paths: dict[uuid.UUID, str] = {}
        self._table: WSPUPCALLTABLE | None = None

    def replace(self, name: str, function: Callable[..., int] | None) -> None:
        """Have ``function`` answer for ``name``; None puts the default back. Counting goes on.

        The function takes the arguments of the upcall; it may raise SpiError.

        Raises:
            ValueError: There is no such upcall.
        """
        if name not in _PROTOTYPES or not hasattr(self, name):
            raise ValueError(f"{name!r} is not among the upcalls {', '.join(UPCALLS)}")
        if function is None:
            self.replaced.pop(name, None)
        else:
            self.replaced[name] = function

    def fail(self, name: str, code: int) -> None:
        """Have ``name`` fail with a number, as ``replace`` does."""

        def refuse(*_args: Any) -> int:
            raise SpiError(code, f"{name} was told to fail")

        self.replace(name, refuse)

    @property
    def table(self) -> WSPUPCALLTABLE:
        """The fifteen functions for C. Valid as long as this object lives."""
        if self._table is None:
            self._table = WSPUPCALLTABLE(*(thunk(name, self) for name in UPCALLS))
        return self._table

    @property
    def open_sockets(self) -> int:
        """How many socket handles are made and not yet closed."""
        things = self.objects.handles.things()
        return sum(isinstance(thing, _SocketHandle) and thing.owner is self for thing in things)

    # Events

    @_upcall
    def WPUCloseEvent(self, hEvent: int, lpErrno: Any) -> int:
        """Nonzero, or 0 with WSA_INVALID_HANDLE."""
        self.objects.close_event(as_int(hEvent))
        return 1

    @_upcall
    def WPUCreateEvent(self, lpErrno: Any) -> int:
        """A manual-reset event, not set; or WSA_INVALID_EVENT with WSAENOBUFS."""
        return self.objects.create_event()

    @_upcall
    def WPUResetEvent(self, hEvent: int, lpErrno: Any) -> int:
        """Nonzero, or 0 with WSA_INVALID_HANDLE."""
        self.objects.reset_event(as_int(hEvent))
        return 1

    @_upcall
    def WPUSetEvent(self, hEvent: int, lpErrno: Any) -> int:
        """Nonzero, or 0 with WSA_INVALID_HANDLE."""
        self.objects.set_event(as_int(hEvent))
        return 1

    # Socket handles

    @_upcall
    def WPUCreateSocketHandle(self, dwCatalogEntryId: int, dwContext: Any, lpErrno: Any) -> int:
        """A handle for a provider without handles of its own, or INVALID_SOCKET, WSAENOBUFS.

        ``dwContext`` may be any Python object where both sides are Python.
        """
        return self.objects.handles.open(_SocketHandle(self, as_int(dwCatalogEntryId), dwContext))

    @_upcall
    def WPUCloseSocketHandle(self, s: int, lpErrno: Any) -> int:
        """0, or SOCKET_ERROR with WSAENOTSOCK."""
        self._socket(s)
        self.objects.handles.close(as_int(s))
        return 0

    @_upcall
    def WPUQuerySocketHandleContext(self, s: int, lpContext: Any, lpErrno: Any) -> int:
        """0 and the context of the handle; SOCKET_ERROR with WSAENOTSOCK or WSAEFAULT."""
        write_int(lpContext, self._socket(s).context, DWORD_PTR)
        return 0

    @_upcall
    def WPUModifyIFSHandle(self, dwCatalogEntryId: int, ProposedHandle: int, lpErrno: Any) -> int:
        """The handle a client sees for an OS handle: the same; INVALID_SOCKET with WSAEINVAL."""
        handle = as_int(ProposedHandle)
        if handle in (0, INVALID_SOCKET):
            raise SpiError(codes.WSAEINVAL, "no handle is proposed")
        return handle

    @_upcall
    def WPUFDIsSet(self, s: int, fdset: Any) -> int:
        """Nonzero if the handle is in the set."""
        return int(as_int(s) in (read_fd_set(fdset) or ()))

    def _socket(self, handle: int) -> _SocketHandle:
        found = self.objects.handles.get(as_int(handle))
        if not isinstance(found, _SocketHandle):
            raise SpiError(codes.WSAENOTSOCK, f"{as_int(handle):#x} is no socket handle")
        return found

    # Messages, hooks and threads

    @_upcall
    def WPUPostMessage(self, hWnd: int, Msg: int, wParam: int, lParam: int) -> int:
        """Nonzero, or 0 if there is no such window (``Objects.create_window``)."""
        return int(self.objects.post(as_int(hWnd), Msg, wParam, lParam))

    @_upcall
    def WPUQueryBlockingCallback(
        self, dwCatalogEntryId: int, lplpfnCallback: Any, lpdwContext: Any, lpErrno: Any
    ) -> int:
        """0, with the blocking hook of this thread (NULL: wait natively) and its context.

        A Cell gets the Python callable or None; C gets a function pointer. SOCKET_ERROR with
        WSAEFAULT where one of the two places is missing.
        """
        if is_null(lplpfnCallback) or is_null(lpdwContext):
            raise fault("no place for the blocking hook")
        state = self.objects.thread()
        if isinstance(lplpfnCallback, Cell):
            lplpfnCallback.value = state.hook
        else:
            state.hook_pointer = _as_pointer(state.hook)
            write_int(lplpfnCallback, _address(state.hook_pointer), DWORD_PTR)
        write_int(lpdwContext, state.hook_context, DWORD_PTR)
        return 0

    @_upcall
    def WPUOpenCurrentThread(self, lpThreadId: Any, lpErrno: Any) -> int:
        """0 and an identity for WPUQueueApc; SOCKET_ERROR with WSAEFAULT or WSAENOBUFS."""
        if is_null(lpThreadId):
            raise fault("no place for the thread")
        handle = self.objects.handles.open(_ThreadHandle(self.objects.thread()))
        if isinstance(lpThreadId, Cell):
            lpThreadId.value = handle
            return 0
        place = struct_at(lpThreadId, WSATHREADID, writable=True)
        place.ThreadHandle, place.Reserved = handle, 0
        return 0

    @_upcall
    def WPUCloseThread(self, lpThreadId: Any, lpErrno: Any) -> int:
        """0, or SOCKET_ERROR with WSAEFAULT: no thread of WPUOpenCurrentThread."""
        handle, _ = self._thread(lpThreadId)
        self.objects.handles.close(handle)
        return 0

    @_upcall
    def WPUQueueApc(self, lpThreadId: Any, lpfnUserApc: Any, dwContext: Any, lpErrno: Any) -> int:
        """0: the function runs when that thread next waits alertably.

        SOCKET_ERROR with WSAEFAULT (no such thread), WSAEINVAL (no function) or WSAENOBUFS.
        """
        _, state = self._thread(lpThreadId)
        function = function_at(lpfnUserApc, LPWSAUSERAPC)
        if function is None:
            raise SpiError(codes.WSAEINVAL, "no function to queue")
        state.queue_apc(function, dwContext)
        return 0

    def _thread(self, pointer: Any) -> tuple[int, ThreadState]:
        if isinstance(pointer, Cell):
            handle = as_int(pointer)
        else:
            handle = struct_at(pointer, WSATHREADID).ThreadHandle
        found = self.objects.handles.get(handle)
        if not isinstance(found, _ThreadHandle):
            raise fault("no thread that WPUOpenCurrentThread has opened")
        return handle, found.state

    # The rest

    @_upcall
    def WPUGetProviderPath(
        self, lpProviderId: Any, lpszProviderDllPath: Any, lpProviderDllPathLen: Any, lpErrno: Any
    ) -> int:
        """0 and the path; SOCKET_ERROR with WSAEINVAL (unknown id) or WSAEFAULT (too short)."""
        identity = (
            lpProviderId
            if isinstance(lpProviderId, uuid.UUID)
            else guid_from_c(struct_at(lpProviderId, GUID))
        )
        if (path := self.provider_paths.get(identity)) is None:
            raise SpiError(codes.WSAEINVAL, f"no provider has the id {identity}")
        write_wide(lpszProviderDllPath, lpProviderDllPathLen, path)
        return 0

    @_upcall
    def WPUCompleteOverlappedRequest(
        self, s: int, lpOverlapped: Any, dwError: int, cbTransferred: int, lpErrno: Any
    ) -> int:
        """Complete an overlapped operation: store the result, then set its event if it has one.

        Not in the table. 0; SOCKET_ERROR with WSAEINVAL, WSAEFAULT or WSA_INVALID_HANDLE.
        """
        if not isinstance(self.objects.handles.get(as_int(s)), _SocketHandle):
            raise SpiError(codes.WSAEINVAL, "no handle that WPUCreateSocketHandle has made")
        overlapped = struct_at(lpOverlapped, WSAOVERLAPPED, writable=True)
        overlapped.InternalHigh = cbTransferred
        overlapped.Internal = dwError
        # The lowest bit only says that no completion port is wanted.
        if event := overlapped.hEvent & ~1:
            self.objects.set_event(event)
        return 0


def _as_pointer(function: Callable[..., Any] | None) -> Any:
    if function is None or isinstance(function, LPBLOCKINGCALLBACK):
        return function
    return LPBLOCKINGCALLBACK(lambda context: int(bool(function(context))))


def _address(function: Any) -> int:
    return (ctypes.cast(function, ctypes.c_void_p).value or 0) if function is not None else 0


# What stands behind an output parameter, by its type in the header.
_OUTPUTS: Final = {
    "LPINT": ctypes.c_int32,
    "PDWORD_PTR": DWORD_PTR,
    "LPBLOCKINGCALLBACK*": DWORD_PTR,
    "LPWSATHREADID": WSATHREADID,
}


class TableUpcalls:
    """Upcalls from a table that came from C: the methods of ``Upcalls``, each a call through it.

    Cells, Python functions (WPUQueueApc), lists (WPUFDIsSet) and UUIDs (WPUGetProviderPath) are
    turned into what C takes; contexts must be numbers. A missing entry fails with WSAEOPNOTSUPP:
    several upcalls are optional (section 4.4).

    Args:
        table: Copied, as WSPStartup gets it by value.
    """

    def __init__(self, table: WSPUPCALLTABLE) -> None:
        self.table = WSPUPCALLTABLE.from_buffer_copy(table)
        self._original = table  # where it was made in Python, it keeps the functions alive
        self._queued: dict[int, tuple[Callable[[Any], Any], Any]] = {}
        self._tickets = itertools.count(1)
        self._run_queued = LPWSAUSERAPC(self._run)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in UPCALLS:
            raise AttributeError(name)
        function = functools.partial(self._call, name)
        setattr(self, name, function)
        return function

    def _call(self, name: str, *args: Any) -> Any:
        entry = getattr(self.table, f"lp{name}")
        if not entry:
            if UPCALLS[name].parameter_names[-1] == "lpErrno":
                write_error(args[-1], codes.WSAEOPNOTSUPP)
            return error_value(name)
        if name == "WPUQueueApc" and isinstance(args[1], _FUNCTIONS):
            args = (args[0], self._run_queued, self._ticket(*args[1:3]), args[3])
        kinds = [kind.replace(" ", "") for kind, _ in UPCALLS[name].parameters]
        outputs: list[tuple[Cell, Any, str]] = []
        passed = [
            _argument(argument, kind, outputs) for argument, kind in zip(args, kinds, strict=True)
        ]
        result = entry(*passed)
        for cell, place, kind in outputs:
            cell.value = _outcome(place, kind)
        return result

    def _ticket(self, function: Callable[[Any], Any], context: Any) -> int:
        # One C function for all: a thunk per APC could be freed only after it has returned.
        ticket = next(self._tickets)
        self._queued[ticket] = function, context
        return ticket

    def _run(self, ticket: int) -> None:
        function, context = self._queued.pop(ticket)
        try:
            function(context)
        except Exception:
            _log.exception("a completion routine failed")


_FUNCTIONS: Final = (types.FunctionType, types.MethodType, functools.partial)


def _argument(argument: Any, kind: str, outputs: list[tuple[Cell, Any, str]]) -> Any:
    if kind == "LPINT" and argument is None:
        return ctypes.byref(ctypes.c_int32())  # C callees may write without looking
    if kind == "fd_set*" and isinstance(argument, list | set):
        return ctypes.byref(fd_set(len(argument), tuple(argument)))
    if kind == "LPGUID" and isinstance(argument, uuid.UUID):
        return ctypes.byref(guid_to_c(argument))
    if not isinstance(argument, Cell) or kind not in _OUTPUTS:
        return argument
    place: Any = _OUTPUTS[kind]()
    if isinstance(place, WSATHREADID):
        place.ThreadHandle = as_int(argument)
    elif isinstance(argument.value, int):
        place.value = argument.value
    outputs.append((argument, place, kind))
    return ctypes.byref(place)


def _outcome(place: Any, kind: str) -> Any:
    if isinstance(place, WSATHREADID):
        return place.ThreadHandle
    if kind == "LPBLOCKINGCALLBACK*":
        return LPBLOCKINGCALLBACK(place.value) if place.value else None
    return place.value
