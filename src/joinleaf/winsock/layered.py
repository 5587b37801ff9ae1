"""Layered providers: what stands between a client and a base provider, and how handles get through.

``PassThrough`` changes nothing. It keeps the rules of section 9 of the model: where the provider
below answers with the handle it was given, the client gets the handle it gave; where it answers
with another, the client gets one of the layer's own, and if there is none to be had, the lower one
is closed. The upcalls go down unmodified, the entry of the chain too; only the base gets its own.

``Tracer`` logs every call on logger ``joinleaf.trace``. ``open_service`` makes what a catalogue's
chain describes.
"""

from __future__ import annotations

import functools
import inspect
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from joinleaf.errors import SpiError
from joinleaf.providers.layered_trace import LOGGER, TracedProvider
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.catalogue import Catalogue
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.provider import Settings
from joinleaf.winsock.conversions import info_to_c
from joinleaf.winsock.declarations import PROVIDER_FUNCTIONS
from joinleaf.winsock.memory import (
    Cell,
    as_int,
    info_at,
    is_null,
    read_fd_set,
    struct_at,
    write,
    write_error,
    write_fd_set,
)
from joinleaf.winsock.objects import Message, Objects, Window
from joinleaf.winsock.outlet import Outlet
from joinleaf.winsock.provider import ServiceProvider
from joinleaf.winsock.table import build_table, fill_table
from joinleaf.winsock.thunks import error_value
from joinleaf.winsock.tracing import outputs_text, parameters_text
from joinleaf.winsock.types import INVALID_SOCKET, WSAPROTOCOL_INFOW, WSPPROC_TABLE

__all__ = ["PassThrough", "Tracer", "open_service"]

_EARLY: Final = 64  # messages kept for a handle the client has not been given yet, per handle


class PassThrough:
    """A layer that hands every call down.

    The thirty functions are attributes, as those of ``ServiceProvider``; ``proc_table`` has them
    for C.

    Args:
        lower: The provider below: a ServiceProvider, or another layer.
        info: The entry of the chain this layer is the top of, or stands in.

    Attributes:
        lower: The provider below.
        info: The chain's entry.
        upcalls: Those of the latest WSPStartup.
        proc_table: The thirty functions for C; lives as long as the layer.
    """

    def __init__(self, lower: Any, info: ProtocolInfo) -> None:
        self.lower = lower
        self.info = info
        self.upcalls: Any = None
        self.outlet = Outlet(None, info.catalog_entry_id)
        self.startups = 0
        self._lower_of: dict[int, int] = {}
        self._upper_of: dict[int, int] = {}
        self._early: dict[int, list[Message]] = {}
        self._windows: dict[int, int] = {}
        self._lock = threading.RLock()
        self.proc_table: WSPPROC_TABLE = build_table(self)

    def __getattr__(self, name: str) -> Callable[..., int]:
        if name not in PROVIDER_FUNCTIONS:
            raise AttributeError(f"{type(self).__name__} has no {name!r}")
        function = functools.partial(self.call, name)
        setattr(function, "__signature__", _signature(name))  # noqa: B010  # partial has no such field
        setattr(self, name, function)
        return function

    @property
    def base(self) -> ProtocolInfo:
        """The entry of the base provider, at the bottom."""
        found: ProtocolInfo = getattr(self.lower, "base", self.lower.info)
        return found

    # Starting

    def WSPStartup(
        self,
        wVersionRequested: Any,
        lpWSPData: Any,
        lpProtocolInfo: Any,
        UpcallTable: Any,
        lpProcTable: Any,
    ) -> int:
        """Start the provider below, then fill the table with this layer's functions (4.1)."""
        if UpcallTable is None or is_null(lpProcTable):
            return codes.WSAEFAULT
        try:
            entry = info_at(lpProtocolInfo) or self.info
            below = self._handed_down(lpProtocolInfo if not is_null(lpProtocolInfo) else entry)
            code: int = self.lower.WSPStartup(
                wVersionRequested, lpWSPData, below, UpcallTable, Cell()
            )
            if code:
                return code
            self._started(entry, UpcallTable, lpProcTable)
        except SpiError as error:
            return error.code
        return 0

    def _started(self, entry: ProtocolInfo, upcalls: Any, table: Any) -> None:
        if isinstance(table, Cell):
            table.value = self.proc_table
        else:
            fill_table(table, self.proc_table)
        with self._lock:
            self.info = entry
            self.outlet.catalog_id = entry.catalog_entry_id
            self.outlet.use(upcalls)
            self.upcalls = upcalls
            self.startups += 1

    def _handed_down(self, pointer: Any) -> Any:
        """The chain's entry goes to a layer as it is; the base is told its own."""
        if is_null(pointer) or isinstance(self.lower, PassThrough):
            return pointer
        structure = info_to_c(self.base)
        if not isinstance(pointer, ProtocolInfo | Cell):
            given = struct_at(pointer, WSAPROTOCOL_INFOW)
            structure.dwProviderReserved = given.dwProviderReserved
        return structure if structure.dwProviderReserved else self.base

    # Calling

    def call(self, name: str, /, *args: Any, **kwargs: Any) -> int:
        """One of the thirty functions, by its name; the last parameter is ``lpErrno``.

        Raises:
            TypeError: Not as many parameters as the header has.
        """
        given, error = _arguments(name, args, kwargs), Cell()
        try:
            result = self._pass(name, given[:-1], error)
        except SpiError as refusal:
            error.value, result = refusal.code, error_value(name)
        if result == error_value(name):
            write_error(given[-1], as_int(error))
        return result

    def _pass(self, name: str, args: tuple[Any, ...], error: Cell) -> int:
        special: Callable[[PassThrough, tuple[Any, ...], Cell], int] | None = _SPECIAL.get(name)
        if special is not None:
            return special(self, args, error)
        if PROVIDER_FUNCTIONS[name].parameters[0][0] == "SOCKET":
            args = (self._below(args[0]), *args[1:])
        return self._down(name, args, error)

    def _down(self, name: str, args: tuple[Any, ...], error: Cell) -> int:
        result: int = getattr(self.lower, name)(*args, error)
        return result

    def _below(self, s: Any) -> int:
        """The lower handle; for one that is not ours INVALID_SOCKET: the base then says what for.

        So the order of its checks is kept, whoever makes the mistake.
        """
        try:
            return self._lower_of.get(as_int(s), INVALID_SOCKET)
        except SpiError:
            return INVALID_SOCKET

    # Handles

    def _adopt(self, lower: int) -> int:
        """A handle of the layer's own for a new one of the provider below.

        Raises:
            SpiError: There is none to be had; the lower one has been closed.
        """
        try:
            if self.info.has(c.XP1_IFS_HANDLES):
                upper = self.outlet.modify_handle(lower)
            else:
                upper = self.outlet.create_handle(lower)
        except SpiError:
            self.lower.WSPCloseSocket(lower, Cell())
            self._early.pop(lower, None)
            raise
        with self._lock:
            self._lower_of[upper], self._upper_of[lower] = lower, upper
            early = self._early.pop(lower, [])
        for message in early:
            self.outlet.post(message.hwnd, message.msg, upper, message.lparam)
        return upper

    def _release(self, upper: int) -> None:
        if not self.info.has(c.XP1_IFS_HANDLES):
            self.outlet.close_handle(upper)

    def _new(self, name: str, args: tuple[Any, ...], error: Cell) -> int:
        lower = self._down(name, args, error)
        return lower if lower == INVALID_SOCKET else self._adopt(lower)

    def _socket(self, args: tuple[Any, ...], error: Cell) -> int:
        af, kind, protocol, info, *rest = args
        return self._new("WSPSocket", (af, kind, protocol, self._handed_down(info), *rest), error)

    def _accept(self, args: tuple[Any, ...], error: Cell) -> int:
        return self._new("WSPAccept", (self._below(args[0]), *args[1:]), error)

    def _join_leaf(self, args: tuple[Any, ...], error: Cell) -> int:
        lower = self._below(args[0])
        result = self._down("WSPJoinLeaf", (lower, *args[1:]), error)
        if result == INVALID_SOCKET:
            return result
        return as_int(args[0]) if result == lower else self._adopt(result)

    def _close(self, args: tuple[Any, ...], error: Cell) -> int:
        # Forgotten first: another thread may be given the very number once it is closed below.
        lower = self._below(args[0])
        with self._lock:
            upper = self._upper_of.pop(lower, None)
            if upper is not None:
                del self._lower_of[upper]
        result = self._down("WSPCloseSocket", (lower,), error)
        if upper is None:
            return result
        if result == 0:
            self._early.pop(lower, None)
            self._release(upper)
            return 0
        with self._lock:  # it would block: the socket is still there
            self._lower_of[upper], self._upper_of[lower] = lower, upper
        return result

    def _cleanup(self, args: tuple[Any, ...], error: Cell) -> int:
        result = self._down("WSPCleanup", (), error)
        if result:
            return result
        with self._lock:
            self.startups -= 1
            if self.startups:
                return 0
            left, windows = list(self._lower_of), list(self._windows.values())
            for table in (self._lower_of, self._upper_of, self._early, self._windows):
                table.clear()
        for upper in left:
            self._release(upper)
        for window in windows:
            self.outlet.objects.destroy_window(window)
        return 0

    # What speaks of handles or entries elsewhere than in its first parameter

    def _select(self, args: tuple[Any, ...], error: Cell) -> int:
        nfds, *places, timeout = args
        given = [read_fd_set(place) for place in places]
        below = [None if one is None else [self._below(s) for s in one] for one in given]
        ready = self._down("WSPSelect", (nfds, *below, timeout), error)
        if ready >= 0:
            for place, lowers in zip(places, below, strict=True):
                write_fd_set(place, [self._upper_of[lower] for lower in lowers or ()])
        return ready

    def _duplicate(self, args: tuple[Any, ...], error: Cell) -> int:
        s, process, place = args
        structure = WSAPROTOCOL_INFOW()
        given = (self._below(s), process, None if is_null(place) else structure)
        result = self._down("WSPDuplicateSocket", given, error)
        if result == 0:
            mine = info_to_c(self.info)
            mine.dwProviderReserved = structure.dwProviderReserved
            write(place, bytes(mine))
        return result

    def _get_option(self, args: tuple[Any, ...], error: Cell) -> int:
        s, level, option, place, length = args
        result = self._down("WSPGetSockOpt", (self._below(s), level, option, place, length), error)
        asked = (as_int(level), as_int(option))
        if result == 0 and asked == (c.SOL_SOCKET, c.SO_PROTOCOL_INFOW):
            write(place, bytes(info_to_c(self.info)))
        return result

    def _address_to_string(self, args: tuple[Any, ...], error: Cell) -> int:
        address, length, info, *rest = args
        given = (address, length, self._handed_down(info), *rest)
        return self._down("WSPAddressToString", given, error)

    def _string_to_address(self, args: tuple[Any, ...], error: Cell) -> int:
        text, family, info, *rest = args
        given = (text, family, self._handed_down(info), *rest)
        return self._down("WSPStringToAddress", given, error)

    def _async_select(self, args: tuple[Any, ...], error: Cell) -> int:
        """Messages name a handle, and the provider below knows only its own."""
        s, window, *rest = args
        lower = self._below(s)
        if not is_null(window) and lower not in (INVALID_SOCKET, as_int(s)):
            window = self._relay_to(as_int(window))
        return self._down("WSPAsyncSelect", (lower, window, *rest), error)

    def _relay_to(self, hwnd: int) -> int:
        """A window of the layer's own, whose messages go on to the client's.

        Raises:
            SpiError: WSAEOPNOTSUPP: the client's upcalls came from C, and their WPUPostMessage
                knows real windows only.
        """
        if not isinstance(getattr(self.upcalls, "objects", None), Objects):
            raise SpiError(codes.WSAEOPNOTSUPP, "this layer has no window of the system's")
        objects = self.outlet.objects
        with self._lock:
            if hwnd not in self._windows:
                relay = _Relay(objects, lambda message: self._relay(hwnd, message))
                self._windows[hwnd] = objects.handles.open(relay)
            return self._windows[hwnd]

    def _relay(self, hwnd: int, message: Message) -> None:
        with self._lock:
            upper = self._upper_of.get(message.wparam)
            if upper is None:
                # Of a leg whose handle is being made just now, or of one that has been closed.
                waiting = self._early.setdefault(message.wparam, [])
                if len(waiting) < _EARLY:
                    waiting.append(Message(hwnd, message.msg, 0, message.lparam))
                return
        self.outlet.post(hwnd, message.msg, upper, message.lparam)


def _signature(name: str) -> inspect.Signature:
    """For help() and editors: the header's parameters."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = PROVIDER_FUNCTIONS[name].parameter_names
    return inspect.Signature([inspect.Parameter(one, kind) for one in names])


def _arguments(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """All parameters of a function in the header's order."""
    names = PROVIDER_FUNCTIONS[name].parameter_names
    given = (*args, *(kwargs[one] for one in names[len(args) :] if one in kwargs))
    if len(given) != len(names):
        raise TypeError(f"{name} takes {len(names)} parameters, not {len(given)}")
    return given


class _Relay(Window):
    """A window that keeps nothing: whatever is posted goes on at once."""

    def __init__(self, objects: Objects, forward: Callable[[Message], None]) -> None:
        super().__init__(objects.lock)
        self._forward = forward

    def post(self, message: Message) -> bool:
        self._forward(message)
        return True


_SPECIAL: Final[dict[str, Callable[[PassThrough, tuple[Any, ...], Cell], int]]] = {
    "WSPAccept": PassThrough._accept,
    "WSPAddressToString": PassThrough._address_to_string,
    "WSPAsyncSelect": PassThrough._async_select,
    "WSPCleanup": PassThrough._cleanup,
    "WSPCloseSocket": PassThrough._close,
    "WSPDuplicateSocket": PassThrough._duplicate,
    "WSPGetSockOpt": PassThrough._get_option,
    "WSPJoinLeaf": PassThrough._join_leaf,
    "WSPSelect": PassThrough._select,
    "WSPSocket": PassThrough._socket,
    "WSPStringToAddress": PassThrough._string_to_address,
}


class Tracer(PassThrough):
    """Logs every call with its parameters, its result and its duration; level DEBUG."""

    def call(self, name: str, /, *args: Any, **kwargs: Any) -> int:
        """As ``PassThrough.call``, and one line in the log."""
        if not LOGGER.isEnabledFor(logging.DEBUG):
            return super().call(name, *args, **kwargs)
        prototype = PROVIDER_FUNCTIONS[name]
        given = _arguments(name, args, kwargs)
        before = parameters_text(prototype, given, self.info)
        error = Cell()
        began = time.perf_counter_ns()
        result = super().call(name, *given[:-1], error)
        spent = (time.perf_counter_ns() - began) / 1e6
        if result == error_value(name):
            write_error(given[-1], as_int(error))
            outcome = f"{codes.name_of(as_int(error))} {error.value}"
        else:
            outcome = outputs_text(prototype, given, result, self.info)
        LOGGER.debug("%s(%s) -> %s [%.3f ms]", name, before, outcome, spent)
        return result


def open_service(
    catalogue: Catalogue, catalog_entry_id: int, settings: Settings | None = None
) -> Any:
    """The provider behind an entry, not yet started: a base, or layers around one.

    A layer of the catalogue that ``TraceLayer`` made becomes a ``Tracer``; layers of others stay
    where they wrap the seam, below the base's WSP* functions.

    Args:
        catalogue: Where the entry stands.
        catalog_entry_id: Its number.
        settings: What sockets are opened with.

    Raises:
        CatalogueError, ProviderBrokenError: As ``Catalogue.open_chain``.
    """
    info = catalogue.entry(catalog_entry_id)
    seam = catalogue.open_chain(catalog_entry_id)
    layers = 0
    while isinstance(seam, TracedProvider):
        seam, layers = seam.lower, layers + 1
    base = catalogue.entry(info.chain[-1])
    provider: Any = ServiceProvider(seam, base, settings)
    for _ in range(layers):
        provider = Tracer(provider, info)
    return provider
