"""What every family of calls starts with: the first three checks, waiting, and error cells.

A call is a method with the header's name and parameters, wrapped by ``answers``: it raises
``SpiError``, the wrapper writes ``*lpErrno`` and returns the function's failure value. On success
the cell is left alone (A-33).
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable
from typing import Any, Concatenate, Final, NoReturn, ParamSpec, TypeVar

from joinleaf.errors import SpiError
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.provider import CheckedProvider, Endpoint, Provider, Roles, Settings
from joinleaf.values import Address
from joinleaf.winsock.addresses import decode
from joinleaf.winsock.descriptors import Descriptors
from joinleaf.winsock.memory import as_int, read_sockaddr, write_error
from joinleaf.winsock.notices import Notices
from joinleaf.winsock.outlet import TICK, Outlet
from joinleaf.winsock.sockets import Kind, SocketRecord

__all__ = ["CallsBase", "answers"]

P = ParamSpec("P")
T = TypeVar("T")
B = TypeVar("B", bound="CallsBase")

_LATE: Final = frozenset({codes.WSAETIMEDOUT, codes.WSAEWOULDBLOCK})


def answers(
    failure: int,
) -> Callable[[Callable[Concatenate[B, P], int]], Callable[Concatenate[B, P], int]]:
    """Make a method answer like a WSP* function whose last parameter is ``lpErrno``."""

    def wrap(method: Callable[Concatenate[B, P], int]) -> Callable[Concatenate[B, P], int]:
        @functools.wraps(method)
        def answering(self: B, /, *args: P.args, **kwargs: P.kwargs) -> int:
            try:
                return method(self, *args, **kwargs)
            except SpiError as error:
                cell = kwargs["lpErrno"] if "lpErrno" in kwargs else args[-1]
                write_error(cell, error.code)
                return failure

        return answering

    return wrap


class CallsBase:
    """State of one loaded provider, and the beginning of every call.

    Args:
        seam: The provider below.
        info: Its catalogue entry that WSPStartup was given.
        settings: What endpoints are opened with.

    Attributes:
        outlet: The upcalls.
        startups: How many WSPStartup are not yet balanced by WSPCleanup.
        sockets: Live sockets, by the context given to WPUCreateSocketHandle.
        by_handle: The same, by descriptor.
        join_timeout: Seconds after which a join that nobody answers fails with WSAETIMEDOUT; None
            waits for ever.
        descriptors: The system's descriptors behind handles, where the entry has such.
        activity: Notified whenever a thread in WSPSelect may have to look again.
    """

    def __init__(self, seam: Provider, info: ProtocolInfo, settings: Settings | None) -> None:
        self.seam = seam
        self.info = info
        self.settings = settings if settings is not None else Settings()
        self.outlet = Outlet(None, info.catalog_entry_id)
        self.startups = 0
        self.sockets: dict[int, SocketRecord] = {}
        self.by_handle: dict[int, SocketRecord] = {}
        self.shared: dict[int, SocketRecord] = {}
        self.join_timeout: float | None = 60.0
        self.lock = threading.RLock()
        self.activity = threading.Condition()
        self.generation = 0
        self.descriptors = Descriptors()
        self._contexts = itertools.count(1)

    # The first three steps

    def check_up(self) -> None:
        """Step 1: started, and the network is there. WSAENETDOWN."""
        if not self.startups:
            raise SpiError(codes.WSAENETDOWN, "the provider has not been started")
        if isinstance(self.seam, CheckedProvider):
            self.seam.check_up()

    def check_alone(self) -> None:
        """Step 3: no callback of this thread is running. WSAEINPROGRESS."""
        if self.outlet.objects.thread().busy:
            raise SpiError(codes.WSAEINPROGRESS, "a callback of this thread is running")

    def find(self, s: Any) -> SocketRecord:
        """Step 2: a live socket of this provider. WSAENOTSOCK."""
        try:
            handle = as_int(s)
        except SpiError:
            handle = 0
        record = self.by_handle.get(handle)
        if record is None or record.closed:
            raise SpiError(codes.WSAENOTSOCK, f"{s!r} is no socket of this provider")
        if not record.info.has(c.XP1_IFS_HANDLES) and self.outlet.context_of(handle) != (
            record.context
        ):
            raise SpiError(codes.WSAENOTSOCK, f"{handle:#x} belongs to somebody else")
        return record

    def enter(self, s: Any) -> SocketRecord:
        """All three, in this order; gives the socket."""
        self.check_up()
        record = self.find(s)
        self.check_alone()
        return record

    # Sockets and their descriptors

    def open_endpoint(self, roles: Roles) -> Endpoint:
        """A new endpoint of this provider's entry."""
        return self.seam.open(self.info, roles, self.settings)

    def add_socket(self, record: SocketRecord, handle: int | None = None) -> int:
        """Give a socket its descriptor: one upcall, unless there is a handle already."""
        if handle is None:
            handle = self.new_handle(record)
        with self.lock:
            self.sockets[record.context] = record
            self.by_handle[handle] = record
            record.handles.append(handle)
        return handle

    def new_handle(self, record: SocketRecord) -> int:
        """WPUModifyIFSHandle or WPUCreateSocketHandle, whichever the entry demands."""
        if not self.info.has(c.XP1_IFS_HANDLES):
            return self.outlet.create_handle(record.context)
        proposed = self.descriptors.share(self.descriptor_of(record.endpoint))
        self.descriptors.keep(proposed, proposed)
        try:
            handle = self.outlet.modify_handle(proposed)
        except SpiError:
            self.descriptors.release(proposed)
            raise
        if handle != proposed:
            self.descriptors.keep(handle, proposed)
        return handle

    @staticmethod
    def descriptor_of(endpoint: Endpoint) -> int:
        """The system's own descriptor, where the carrier has one of its own."""
        try:
            return int(endpoint.ioctl(c.SIO_QUERY_TARGET_PNP_HANDLE))
        except SpiError:
            return endpoint.fileno()

    def drop_handle(self, record: SocketRecord, handle: int) -> None:
        """Take a descriptor back."""
        with self.lock:
            self.by_handle.pop(handle, None)
            if handle in record.handles:
                record.handles.remove(handle)
            if not record.handles:
                self.sockets.pop(record.context, None)
        if self.info.has(c.XP1_IFS_HANDLES):
            self.descriptors.release(handle)
        else:
            self.outlet.close_handle(handle)

    def new_record(self, endpoint: Endpoint, kind: Kind) -> SocketRecord:
        """A socket without a descriptor yet."""
        notices = Notices(self.outlet)
        record = SocketRecord(endpoint, kind, self.settings, notices, self.wake_select)
        record.context = next(self._contexts)
        return record

    def child_of(self, parent: SocketRecord, endpoint: Endpoint, kind: Kind) -> SocketRecord:
        """A socket with the properties of the one it comes from (clauses 93 to 95)."""
        record = self.new_record(endpoint, kind)
        record.blocking, record.overlapped = parent.blocking, parent.overlapped
        record.options = dict(parent.options)
        record.preset_qos = parent.preset_qos
        return record

    def wake_select(self) -> None:
        """Something has changed that WSPSelect may be waiting for."""
        with self.activity:
            self.generation += 1
            self.activity.notify_all()

    # Names

    def read_name(
        self,
        record: SocketRecord,
        name: Any,
        namelen: Any,
        wrong_family: int = codes.WSAEAFNOSUPPORT,
    ) -> Address:
        """Steps 9 to 11 of section 5.6."""
        info = record.info
        raw = read_sockaddr(name, namelen, info)
        return decode(raw, info, wrong_family)

    # Waiting

    def wait(
        self,
        attempt: Callable[[float | None], T],
        cancel: Callable[[], None],
        *,
        call: str,
    ) -> T:
        """Make a call of the seam that may wait, on this thread.

        Without a hook the seam waits by itself. With one it waits in short pieces, and the hook
        runs between them, on this thread and without any lock.

        Args:
            attempt: Makes the call with a time-out in seconds; WSAETIMEDOUT means: not yet.
            cancel: Wakes it, from any thread.
            call: For the text of errors.

        Raises:
            SpiError: WSAEINTR, if the hook says so or WSPCancelBlockingCall was called; else
                what the call raises.
        """
        hook = self.outlet.blocking_hook()
        thread = self.outlet.objects.thread()
        with thread.blocking(cancel) as blocking:
            while hook is not None:
                try:
                    return attempt(TICK)
                except SpiError as error:
                    if error.code not in _LATE:
                        _raise_in_wait(error, call)
                with thread.callback():
                    go_on = hook()
                if not go_on or blocking.cancelled:
                    raise SpiError(codes.WSAEINTR, "the blocking call was cancelled", call=call)
            try:
                return attempt(None)
            except SpiError as error:
                _raise_in_wait(error, call)

    def wait_or_not(
        self, record: SocketRecord, attempt: Callable[[float | None], T], *, call: str
    ) -> T:
        """Try at once; wait only if it must and the socket is a blocking one.

        Raises:
            SpiError: WSAEWOULDBLOCK on a nonblocking socket, else as ``wait``.
        """
        try:
            return attempt(0)
        except SpiError as error:
            if error.code not in _LATE:
                raise
            if not record.blocking:
                raise SpiError(codes.WSAEWOULDBLOCK, "it would block", call=call) from None
        return self.wait(attempt, record.endpoint.cancel, call=call)


def _raise_in_wait(error: SpiError, call: str) -> NoReturn:
    """Raise what a call that was waiting gets: a close under it cancels it (A-22)."""
    if error.code == codes.WSAENOTSOCK:
        raise SpiError(codes.WSAEINTR, "the socket was closed meanwhile", call=call) from error
    raise error
