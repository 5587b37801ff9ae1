"""The fifteen upcalls: from Python, through a table by value, and through a table from C."""

from __future__ import annotations

import ctypes
import uuid
from typing import Any

import pytest

from joinleaf.errors import SpiError
from joinleaf.spi import codes
from joinleaf.winsock import types as t
from joinleaf.winsock.declarations import UPCALLS
from joinleaf.winsock.memory import Cell
from joinleaf.winsock.objects import Handles, Objects
from joinleaf.winsock.upcalls import TableUpcalls, Upcalls

PATH_ID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
SENTINEL = 0x55AA55AA


@pytest.fixture
def upcalls() -> Upcalls:
    return Upcalls(Objects())


@pytest.fixture(params=["python", "through C"])
def face(upcalls: Upcalls, request: pytest.FixtureRequest) -> Any:
    """The same functions, called directly and through a table."""
    return upcalls if request.param == "python" else TableUpcalls(upcalls.table)


def test_a_socket_handle_is_made_queried_and_closed(face: Any, upcalls: Upcalls) -> None:
    error, context = Cell(SENTINEL), Cell()
    handle = face.WPUCreateSocketHandle(1001, 0x1234_5678_9ABC, error)
    assert handle % 4 == 0
    assert face.WPUQuerySocketHandleContext(handle, context, error) == 0
    assert context.value == 0x1234_5678_9ABC
    assert upcalls.open_sockets == 1
    assert face.WPUCloseSocketHandle(handle, error) == 0
    assert error.value == SENTINEL, "lpErrno is untouched on success"
    assert face.WPUCloseSocketHandle(handle, error) == t.SOCKET_ERROR
    assert error.value == codes.WSAENOTSOCK
    assert face.WPUQuerySocketHandleContext(handle, context, error) == t.SOCKET_ERROR
    assert upcalls.open_sockets == 0


def test_a_context_may_be_any_object_between_python_and_python(upcalls: Upcalls) -> None:
    context, thing = Cell(), object()
    handle = upcalls.WPUCreateSocketHandle(1, thing, None)
    assert upcalls.WPUQuerySocketHandleContext(handle, context, None) == 0
    assert context.value is thing


def test_without_free_handles_creating_one_fails_with_wsaenobufs() -> None:
    upcalls, error = Upcalls(Objects(Handles(most=1))), Cell()
    for face in (upcalls, TableUpcalls(upcalls.table)):
        handle = face.WPUCreateSocketHandle(1, 1, error)
        assert face.WPUCreateSocketHandle(1, 1, error) == t.INVALID_SOCKET
        assert error.value == codes.WSAENOBUFS
        assert face.WPUCloseSocketHandle(handle, error) == 0


def test_an_ifs_handle_stays_what_it_is_and_none_is_refused(face: Any) -> None:
    error = Cell()
    assert face.WPUModifyIFSHandle(1001, 0x40, error) == 0x40
    assert face.WPUModifyIFSHandle(1001, t.INVALID_SOCKET, error) == t.INVALID_SOCKET
    assert error.value == codes.WSAEINVAL


def test_an_event_is_made_set_reset_and_closed(face: Any, upcalls: Upcalls) -> None:
    error = Cell()
    event = face.WPUCreateEvent(error)
    assert face.WPUSetEvent(event, error)
    assert upcalls.objects.is_set(event)
    assert face.WPUResetEvent(event, error)
    assert not upcalls.objects.is_set(event)
    assert face.WPUCloseEvent(event, error)
    for name in ("WPUSetEvent", "WPUResetEvent", "WPUCloseEvent"):
        error.value = 0
        assert getattr(face, name)(event, error) == 0
        assert error.value == codes.WSA_INVALID_HANDLE


def test_a_message_is_posted_to_a_window_that_exists(face: Any, upcalls: Upcalls) -> None:
    window = upcalls.objects.create_window()
    assert face.WPUPostMessage(window, 0x401, 8, 0x10 | 10061 << 16)
    message = upcalls.objects.get_message(window, 0)
    assert message is not None
    assert (message.wparam, message.event, message.error) == (8, 0x10, 10061)
    assert not face.WPUPostMessage(window + 4, 0x401, 8, 0)


def test_a_handle_is_looked_for_in_a_set(face: Any) -> None:
    assert face.WPUFDIsSet(12, [8, 12])
    assert not face.WPUFDIsSet(16, [8, 12])
    place = t.fd_set(2, (8, 12))
    assert face.WPUFDIsSet(8, ctypes.byref(place))


def test_the_blocking_hook_is_that_of_the_calling_thread(face: Any, upcalls: Upcalls) -> None:
    none, callback, context, error = Cell("unset"), Cell(), Cell(), Cell()
    assert face.WPUQueryBlockingCallback(1, none, context, error) == 0
    assert none.value is None
    state = upcalls.objects.thread()
    seen: list[int] = []
    state.hook, state.hook_context = lambda value: seen.append(value), 42
    assert face.WPUQueryBlockingCallback(1, callback, context, error) == 0
    assert context.value == 42
    assert not callback.value(context.value)
    assert seen == [42]
    assert face.WPUQueryBlockingCallback(1, None, context, error) == t.SOCKET_ERROR
    assert error.value == codes.WSAEFAULT


def test_a_thread_gets_what_is_queued_for_it(face: Any, upcalls: Upcalls) -> None:
    thread, error, ran = Cell(), Cell(), list[int]()

    def routine(context: int) -> None:
        ran.append(context)

    assert face.WPUOpenCurrentThread(thread, error) == 0
    assert face.WPUQueueApc(thread, routine, 7, error) == 0
    native = t.LPWSAUSERAPC(routine)
    identity = t.WSATHREADID(thread.value)
    assert face.WPUQueueApc(ctypes.byref(identity), native, 8, error) == 0
    assert ran == []
    assert upcalls.objects.sleep(0) == 2
    assert ran == [7, 8]
    assert face.WPUQueueApc(thread, None, 7, error) == t.SOCKET_ERROR
    assert error.value == codes.WSAEINVAL
    assert face.WPUCloseThread(thread, error) == 0
    assert face.WPUQueueApc(thread, routine, 7, error) == t.SOCKET_ERROR
    assert error.value == codes.WSAEFAULT


def test_the_path_of_a_provider_is_told_where_it_fits(face: Any, upcalls: Upcalls) -> None:
    upcalls.provider_paths[PATH_ID] = "joinleaf.so"
    place, length, error = (t.WCHAR * 20)(), Cell(20), Cell()
    assert face.WPUGetProviderPath(PATH_ID, place, length, error) == 0
    assert length.value == 12
    assert bytes(place)[:22].decode("utf-16") == "joinleaf.so"
    length.value = 3
    assert face.WPUGetProviderPath(PATH_ID, place, length, error) == t.SOCKET_ERROR
    assert (length.value, error.value) == (12, codes.WSAEFAULT)
    unknown = uuid.UUID(int=1)
    assert face.WPUGetProviderPath(unknown, place, length, error) == t.SOCKET_ERROR
    assert error.value == codes.WSAEINVAL


def test_an_overlapped_operation_stores_its_result_before_its_event_is_set(
    upcalls: Upcalls,
) -> None:
    event, error = upcalls.WPUCreateEvent(None), Cell()
    handle = upcalls.WPUCreateSocketHandle(1, 1, None)
    overlapped = t.WSAOVERLAPPED(hEvent=event | 1)
    call = upcalls.WPUCompleteOverlappedRequest
    assert call(handle, ctypes.byref(overlapped), 995, 17, error) == 0
    assert (overlapped.Internal, overlapped.InternalHigh) == (995, 17)
    assert upcalls.objects.is_set(event)
    assert call(handle + 4, overlapped, 0, 0, error) == t.SOCKET_ERROR
    assert error.value == codes.WSAEINVAL
    assert call(handle, None, 0, 0, error) == t.SOCKET_ERROR
    assert error.value == codes.WSAEFAULT


def test_every_call_is_counted_wherever_it_comes_from(upcalls: Upcalls) -> None:
    through_c = TableUpcalls(upcalls.table)
    event = upcalls.WPUCreateEvent(None)
    upcalls.WPUSetEvent(event, None)
    through_c.WPUSetEvent(event, None)
    assert upcalls.calls == {"WPUCreateEvent": 1, "WPUSetEvent": 2}


def test_one_function_can_be_replaced_and_put_back(upcalls: Upcalls) -> None:
    through_c, error = TableUpcalls(upcalls.table), Cell()
    upcalls.fail("WPUCreateSocketHandle", codes.WSAEMFILE)
    for face in (upcalls, through_c):
        error.value = 0
        assert face.WPUCreateSocketHandle(1, 1, error) == t.INVALID_SOCKET
        assert error.value == codes.WSAEMFILE
    upcalls.replace("WPUCreateSocketHandle", lambda catalog, context, errno: 0x444)
    assert upcalls.WPUCreateSocketHandle(1, 1, error) == 0x444
    upcalls.replace("WPUCreateSocketHandle", None)
    assert upcalls.WPUCreateSocketHandle(1, 1, error) not in (0x444, t.INVALID_SOCKET)
    assert upcalls.calls["WPUCreateSocketHandle"] == 4
    with pytest.raises(ValueError, match="WPUNothing"):
        upcalls.replace("WPUNothing", None)


def test_a_replacement_that_breaks_is_a_failure_in_c_and_an_error_in_python(
    upcalls: Upcalls, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> int:
        raise RuntimeError("broken on purpose")

    upcalls.replace("WPUSetEvent", broken)
    error = Cell()
    assert TableUpcalls(upcalls.table).WPUSetEvent(4, error) == 0
    assert error.value == codes.WSASYSCALLFAILURE
    assert "broken on purpose" in caplog.text
    with pytest.raises(RuntimeError):
        upcalls.WPUSetEvent(4, error)


def test_a_missing_entry_fails_instead_of_crashing() -> None:
    empty, error = TableUpcalls(t.WSPUPCALLTABLE()), Cell()
    for name, prototype in UPCALLS.items():
        error.value = 0
        arguments = [error if p == "lpErrno" else 0 for p in prototype.parameter_names]
        failed = t.INVALID_SOCKET if prototype.returns == "SOCKET" else None
        result = getattr(empty, name)(*arguments)
        assert result == failed or (failed is None and result in (0, t.SOCKET_ERROR)), name
        expected = codes.WSAEOPNOTSUPP if error in arguments else 0
        assert error.value == expected, name
    with pytest.raises(AttributeError):
        _ = empty.WPUNothing


def test_the_table_travels_by_value_into_a_c_function(upcalls: Upcalls) -> None:
    got: list[Any] = []

    def start(version: int, data: int, info: int, table: t.WSPUPCALLTABLE, procs: int) -> int:
        copy = TableUpcalls(table)
        got.extend((version, ctypes.sizeof(table), copy.WPUCreateEvent(None)))
        return 0

    assert t.WSPSTARTUP(start)(0x0202, None, None, upcalls.table, None) == 0
    assert got[:2] == [0x0202, 15 * t.POINTER_BYTES]
    assert not upcalls.objects.is_set(got[2])


def test_an_error_of_the_seam_is_never_raised_by_an_upcall(upcalls: Upcalls) -> None:
    def refuse(*_: Any) -> int:
        raise SpiError(codes.WSAENETDOWN, "down")

    upcalls.replace("WPUPostMessage", refuse)
    assert upcalls.WPUPostMessage(1, 2, 3, 4) == 0
