"""WSPPROC_TABLE from the C side: by index, by offset, with raw pointers, and with failures."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pytest

from joinleaf.errors import SpiError
from joinleaf.spi import codes
from joinleaf.winsock import types as t
from joinleaf.winsock.declarations import PROVIDER_FUNCTIONS
from joinleaf.winsock.memory import read, struct_at
from joinleaf.winsock.table import build_table, fill_table, missing_entries

NAMES = list(PROVIDER_FUNCTIONS)


class StandIn:
    """Thirty methods that note what they were called with; ``answer`` decides the rest."""

    def __init__(self, answer: Callable[[str], Any] = lambda name: 0) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.answer = answer

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in PROVIDER_FUNCTIONS:
            raise AttributeError(name)

        def call(*args: Any) -> Any:
            self.calls.append((name, args))
            return self.answer(name)

        return call


def entry(table: t.WSPPROC_TABLE, index: int) -> Any:
    """What a C program calls: the pointer at index times pointer size, no names involved."""
    address = ctypes.addressof(table) + index * t.POINTER_BYTES
    pointer = ctypes.c_void_p.from_address(address).value
    return t.FUNCTION_TYPES[NAMES[index]](pointer)


def arguments(name: str, error: ctypes.c_int32) -> list[Any]:
    """Distinct values for every parameter; 0x10000 and up, so that they could be addresses."""
    values: list[Any] = []
    for index, (_, parameter) in enumerate(PROVIDER_FUNCTIONS[name].parameters):
        values.append(ctypes.byref(error) if parameter == "lpErrno" else 0x10000 * (index + 1))
    return values


@pytest.mark.parametrize("index", range(30))
def test_each_entry_calls_its_method_with_all_parameters_in_order(index: int) -> None:
    provider, error = StandIn(), ctypes.c_int32(77)
    table = build_table(provider)
    result = entry(table, index)(*arguments(NAMES[index], error))
    assert result == 0
    ((name, args),) = provider.calls
    assert name == NAMES[index]
    expected = [0x10000 * (position + 1) for position in range(len(args) - 1)]
    assert args == (*expected, ctypes.addressof(error))
    assert error.value == 77


def failure(name: str) -> int:
    returns = PROVIDER_FUNCTIONS[name].returns
    return {"SOCKET": t.INVALID_SOCKET, "BOOL": 0}.get(returns, -1)


def refuse(_name: str) -> Any:
    raise SpiError(codes.WSAECONNREFUSED, "no")


def interrupt(_name: str) -> Any:
    raise KeyboardInterrupt


def crash(_name: str) -> Any:
    raise ZeroDivisionError("broken on purpose")


@pytest.mark.parametrize("index", range(30))
@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (refuse, codes.WSAECONNREFUSED),
        (crash, codes.WSASYSCALLFAILURE),
        (interrupt, codes.WSAEINTR),
        (lambda name: None, codes.WSASYSCALLFAILURE),
    ],
    ids=["refused", "crashed", "interrupted", "no number"],
)
def test_no_exception_crosses_into_c(
    index: int, answer: Callable[[str], Any], code: int, caplog: pytest.LogCaptureFixture
) -> None:
    table, error = build_table(StandIn(answer)), ctypes.c_int32(0)
    result = entry(table, index)(*arguments(NAMES[index], error))
    assert (result, error.value) == (failure(NAMES[index]), code)
    assert bool(caplog.records) == (code == codes.WSASYSCALLFAILURE)


def test_join_leaf_is_found_at_index_17_and_takes_nine_parameters() -> None:
    seen: list[Any] = []

    class Provider(StandIn):
        def WSPJoinLeaf(self, *args: Any) -> int:
            s, name, namelen, caller, callee, sqos, gqos, flags, _ = args
            place = struct_at(callee, t.WSABUF, writable=True)
            seen.extend((s, read(name, namelen), struct_at(caller, t.WSABUF).len, sqos, gqos))
            ctypes.memmove(place.buf, b"yo", 2)
            place.len = 2
            return 0x1_0000_0008 if t.POINTER_BYTES == 8 else flags

    table = build_table(Provider())
    caller, memory = ctypes.create_string_buffer(b"hi", 2), ctypes.create_string_buffer(16)
    buffers = t.WSABUF(2, ctypes.addressof(caller)), t.WSABUF(16, ctypes.addressof(memory))
    assert (NAMES[17], t.WSPPROC_TABLE.lpWSPJoinLeaf.offset) == (
        "WSPJoinLeaf",
        17 * t.POINTER_BYTES,
    )
    result = entry(table, 17)(
        t.INVALID_SOCKET - 3, b"\2\0name", 6, *map(ctypes.byref, buffers), None, None, 4, None
    )
    assert result == (0x1_0000_0008 if t.POINTER_BYTES == 8 else 4)
    assert seen == [t.INVALID_SOCKET - 3, b"\2\0name", 2, None, None]
    assert (buffers[1].len, memory.raw[:2]) == (2, b"yo")
    with pytest.raises(TypeError):
        entry(table, 17)(8, None, 0, None, None, None, None, 4)


def test_a_method_replaced_later_is_the_one_that_is_called() -> None:
    provider = StandIn()
    table = build_table(provider)
    provider.WSPCleanup = lambda lpErrno: 5  # type: ignore[attr-defined]  # a test's own method
    assert table.lpWSPCleanup(None) == 5


def test_a_failure_without_a_place_for_its_number_is_still_a_failure() -> None:
    assert build_table(StandIn(refuse)).lpWSPCleanup(None) == -1


def test_a_client_gets_thirty_pointers_and_keeps_calling_them() -> None:
    provider = StandIn()
    table, place = build_table(provider), ctypes.create_string_buffer(30 * t.POINTER_BYTES)
    fill_table(ctypes.addressof(place), table)
    copy = t.WSPPROC_TABLE.from_buffer(place)
    assert copy.lpWSPListen(8, 5, None) == 0
    assert provider.calls == [("WSPListen", (8, 5, None))]
    assert missing_entries(copy) == ()


@pytest.mark.parametrize("place", [None, bytes(240), bytearray(239)])
def test_a_table_has_to_have_a_place(place: Any) -> None:
    with pytest.raises(SpiError) as caught:
        fill_table(place, build_table(StandIn()))
    assert caught.value.code == codes.WSAEFAULT


def test_a_table_with_holes_is_told_from_a_full_one() -> None:
    table = t.WSPPROC_TABLE()
    assert missing_entries(table) == tuple(NAMES)
