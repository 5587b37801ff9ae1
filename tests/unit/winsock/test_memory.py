"""Parameters in every form a caller may pass, and what is refused rather than touched."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import pytest

from joinleaf.errors import SpiError
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.values import Address
from joinleaf.winsock import memory as m
from joinleaf.winsock import types as t
from joinleaf.winsock.conversions import qos_to_c
from joinleaf.winsock.memory import Cell, Wsabuf

INFO = ProtocolInfo(service_flags=0x20609, name="test")
UTF16 = "utf-16-le" if sys.byteorder == "little" else "utf-16-be"


def code_of(call: Any, *args: Any, **kwargs: Any) -> int:
    with pytest.raises(SpiError) as caught:
        call(*args, **kwargs)
    return caught.value.code


def int_places() -> list[tuple[str, Any, Any]]:
    cell, value, array = Cell(7), ctypes.c_int32(7), bytearray((7).to_bytes(4, sys.byteorder))
    return [
        ("cell", cell, lambda: cell.value),
        ("object", value, lambda: value.value),
        ("byref", ctypes.byref(value), lambda: value.value),
        ("pointer", ctypes.pointer(value), lambda: value.value),
        ("address", ctypes.addressof(value), lambda: value.value),
        ("void pointer", ctypes.c_void_p(ctypes.addressof(value)), lambda: value.value),
        ("bytearray", array, lambda: int.from_bytes(array, sys.byteorder, signed=True)),
        ("memoryview", memoryview(array), lambda: int.from_bytes(array, sys.byteorder)),
    ]


@pytest.mark.parametrize("index", range(8))
def test_a_number_is_read_and_written_through_every_form_of_pointer(index: int) -> None:
    _, place, value = int_places()[index]
    assert m.read_int(place) == 7
    m.write_int(place, 10061)
    assert value() == 10061


@pytest.mark.parametrize("place", [None, 0, 1, 0xFFFF, -1, 1 << 64, True, "text", object(), 1.5])
def test_what_is_no_memory_is_a_fault(place: Any) -> None:
    assert code_of(m.read_int, place) == codes.WSAEFAULT
    assert code_of(m.write_int, place, 1) == codes.WSAEFAULT


def test_null_pointers_of_every_kind_are_null() -> None:
    nulls = [None, 0, ctypes.c_void_p(), ctypes.POINTER(ctypes.c_int)(), t.LPCONDITIONPROC()]
    assert all(m.is_null(pointer) for pointer in nulls)
    assert not m.is_null(ctypes.c_int(0))
    assert not m.is_null(b"")


def test_read_only_and_short_buffers_are_not_written() -> None:
    assert code_of(m.write, b"abcd", b"x") == codes.WSAEFAULT
    assert code_of(m.write, memoryview(b"abcd"), b"x") == codes.WSAEFAULT
    short = bytearray(b"abc")
    assert code_of(m.write, short, b"xxxx") == codes.WSAEFAULT
    assert short == b"abc"
    assert code_of(m.read, b"abc", 4) == codes.WSAEFAULT
    assert code_of(m.read, ctypes.c_int32(), 5) == codes.WSAEFAULT
    assert code_of(m.read, b"abc", -1) == codes.WSAEFAULT


def test_an_error_place_that_cannot_be_written_is_left_alone() -> None:
    for place in (None, 0, 12, b"\0\0\0\0", object()):
        m.write_error(place, 10014)
    value = ctypes.c_int32(5)
    m.write_error(ctypes.addressof(value), 10014)
    assert value.value == 10014


# WSABUF


def test_a_wsabuf_helper_owns_or_shares_its_memory() -> None:
    shared = bytearray(b"....")
    sharing = Wsabuf(shared)
    ctypes.memmove(sharing.buf, b"data", 4)
    assert shared == b"data"
    assert (Wsabuf(b"yo").data, Wsabuf(3).data, Wsabuf().data) == (b"yo", b"\0\0\0", b"")
    assert Wsabuf().buf is None
    assert Wsabuf(16, length=4).len == 4


def wsabuf_forms(structure: Wsabuf) -> list[Any]:
    return [
        structure,
        ctypes.byref(structure),
        ctypes.pointer(structure),
        ctypes.addressof(structure),
    ]


@pytest.mark.parametrize("form", range(4))
def test_callee_data_is_written_within_the_stated_length_only(form: int) -> None:
    memory = bytearray(b"........")
    structure = Wsabuf(memory, length=4)
    taken = m.buffer(wsabuf_forms(structure)[form])
    assert taken is not None
    assert code_of(taken.put, b"12345") == codes.WSAEFAULT
    assert (bytes(memory), structure.len) == (b"........", 0)
    taken.put(b"abc")
    assert (bytes(memory), structure.len, structure.data) == (b"abc.....", 3, b"abc")


def test_a_length_that_grows_during_the_call_is_not_believed() -> None:
    memory = bytearray(b"........")
    structure = Wsabuf(memory, length=2)
    taken = m.buffer(structure)
    assert taken is not None
    structure.len = 8
    assert code_of(taken.write, b"abc") == codes.WSAEFAULT
    assert memory == b"........"


def test_writing_data_does_not_touch_the_length() -> None:
    structure = Wsabuf(bytearray(8))
    assert m.scatter(m.buffers(structure, 1), b"abc") == 3
    assert structure.len == 8


def test_a_length_without_memory_is_a_fault() -> None:
    assert code_of(m.buffers, t.WSABUF(4, None), 1) == codes.WSAEFAULT
    assert code_of(m.buffers, None, 1) == codes.WSAEFAULT
    assert m.buffers(None, 0) == []
    taken = m.buffer(t.WSABUF(4, None))
    assert taken is not None
    assert code_of(taken.check) == codes.WSAEFAULT


def array_forms() -> list[tuple[Any, list[bytearray]]]:
    forms: list[tuple[Any, list[bytearray]]] = []
    for wrap in (lambda a: a, ctypes.addressof, lambda a: ctypes.byref(a[0]), ctypes.pointer):
        memories = [bytearray(2), bytearray(0), bytearray(3)]
        owners = [Wsabuf(memory) for memory in memories]
        array = (t.WSABUF * 3)(*owners)
        forms.append((_Kept(wrap(array), (array, owners)), memories))
    memories = [bytearray(2), bytearray(0), bytearray(3)]
    forms.append((_Kept([Wsabuf(memories[0]), memories[1], Wsabuf(memories[2])], None), memories))
    return forms


class _Kept:
    def __init__(self, pointer: Any, owner: Any) -> None:
        self.pointer, self.owner = pointer, owner


@pytest.mark.parametrize("form", range(5))
def test_an_array_of_buffers_is_filled_and_drained_in_order_without_holes(form: int) -> None:
    kept, memories = array_forms()[form]
    parts = m.buffers(kept.pointer, 3)
    assert m.scatter(parts, b"abcd") == 4
    assert [bytes(memory) for memory in memories] == [b"ab", b"", b"cd\0"]
    assert m.gather(parts) == b"abcd\0"
    assert m.scatter(parts, b"1234567") == 5


def test_more_buffers_than_there_are_is_a_fault() -> None:
    assert code_of(m.buffers, [Wsabuf(1)], 2) == codes.WSAEFAULT
    assert code_of(m.buffers, (t.WSABUF * 2)(), 3) == codes.WSAEFAULT
    assert code_of(m.buffers, [Wsabuf(1)], -1) == codes.WSAEFAULT


def test_a_plain_bytearray_serves_as_buffer_and_is_cut_to_what_came() -> None:
    memory = bytearray(16)
    taken = m.buffer(memory)
    assert taken is not None
    taken.put(b"yo")
    assert memory == b"yo"


# Structures


def test_a_structure_is_written_where_the_caller_keeps_it() -> None:
    record = t.WSANETWORKEVENTS()
    for pointer in (record, ctypes.byref(record), ctypes.addressof(record)):
        place = m.struct_at(pointer, t.WSANETWORKEVENTS, writable=True)
        place.lNetworkEvents += 1
    assert record.lNetworkEvents == 3
    assert code_of(m.struct_at, b"\0" * 43, t.WSANETWORKEVENTS) == codes.WSAEFAULT
    assert code_of(m.struct_at, b"\0" * 44, t.WSANETWORKEVENTS, writable=True) == codes.WSAEFAULT


def test_a_qos_is_read_from_every_form_and_a_short_one_is_a_fault() -> None:
    qos = Qos(FlowSpec(token_rate=9200), FlowSpec(token_rate=77), b"object")
    structure = qos_to_c(qos)
    for pointer in (qos, structure, ctypes.byref(structure), bytes(structure), Cell(qos)):
        assert m.qos_at(pointer) == qos
    assert m.qos_at(None) is None
    assert code_of(m.qos_at, bytes(structure)[:-1]) == codes.WSAEFAULT
    place = t.QOS()
    m.write_qos(ctypes.byref(place), qos)
    assert m.qos_at(place) == Qos(qos.sending, qos.receiving)
    assert code_of(m.write_qos, bytes(structure), qos) == codes.WSAEFAULT


def test_a_catalogue_entry_is_written_and_read_back() -> None:
    place = t.WSAPROTOCOL_INFOW()
    m.write_info(ctypes.byref(place), INFO)
    assert m.info_at(place) == INFO
    assert m.info_at(bytes(place)) == INFO
    assert m.info_at(None) is None
    assert code_of(m.info_at, bytes(place)[:-1]) == codes.WSAEFAULT


# Addresses


def test_an_address_is_read_no_further_than_the_entry_needs() -> None:
    raw = b"\x02\0" + b"\x13\x88" + bytes((239, 1, 2, 3)) + bytes(8) + b"beyond"
    assert m.read_sockaddr(raw, len(raw), INFO) == raw[:16]
    assert m.read_sockaddr(raw, 4, INFO) == raw[:4]
    assert m.read_sockaddr(Address("239.1.2.3", 5000), None, INFO)[2:8] == raw[2:8]


@pytest.mark.parametrize("length", [-1, 0, 1, 17])
def test_an_address_length_that_cannot_be_is_a_fault(length: int) -> None:
    assert code_of(m.read_sockaddr, bytes(16), length, INFO) == codes.WSAEFAULT
    assert code_of(m.read_sockaddr, None, 16, INFO) == codes.WSAEFAULT


def test_an_address_out_fills_both_or_neither() -> None:
    place, length = bytearray(16), Cell(15)
    assert code_of(m.write_sockaddr, place, length, bytes(range(16))) == codes.WSAEFAULT
    assert (bytes(place), length.value) == (bytes(16), 15)
    length.value = 100
    m.write_sockaddr(place, length, bytes(range(16)))
    assert (bytes(place), length.value) == (bytes(range(16)), 16)
    m.write_sockaddr(None, None, bytes(16))
    assert code_of(m.write_sockaddr, place, None, bytes(16)) == codes.WSAEFAULT
    cell = Cell()
    m.write_sockaddr(cell, None, b"raw")
    assert cell.value == b"raw"


# Text, sets, callbacks


def test_wide_text_goes_in_and_out_in_utf_16_units() -> None:
    text = "239.1.2.3 \N{GRINNING FACE}"
    place, length = (t.WCHAR * 20)(), Cell(20)
    m.write_wide(place, length, text)
    assert length.value == len(text) + 2
    assert m.read_wide(place) == text
    assert m.read_wide(ctypes.addressof(place)) == text
    assert m.read_wide(ctypes.create_unicode_buffer(text)) == text
    assert code_of(m.read_wide, text.encode(UTF16)) == codes.WSAEFAULT


def test_text_that_does_not_fit_tells_how_much_is_needed() -> None:
    place, length = (t.WCHAR * 4)(), ctypes.c_uint32(4)
    assert code_of(m.write_wide, place, ctypes.byref(length), "four") == codes.WSAEFAULT
    assert (length.value, list(place)) == (5, [0, 0, 0, 0])


def test_a_set_of_handles_shrinks_in_place() -> None:
    structure = t.fd_set(3, (8, 12, 16))
    plain = [8, 12, 16]
    for pointer in (ctypes.byref(structure), plain):
        assert m.read_fd_set(pointer) == [8, 12, 16]
        m.write_fd_set(pointer, [16])
        assert m.read_fd_set(pointer) == [16]
    assert m.read_fd_set(None) is None
    assert code_of(m.write_fd_set, structure, [1, 2]) == codes.WSAEFAULT
    assert code_of(m.read_fd_set, t.fd_set(65)) == codes.WSAEFAULT


def test_a_time_out_is_seconds_and_null_waits_for_ever() -> None:
    assert m.read_timeout(None) is None
    assert m.read_timeout(0.25) == 0.25
    assert m.read_timeout(t.timeval(1, 500_000)) == 1.5
    for bad in (t.timeval(-1, 0), t.timeval(0, 1_000_000), -0.5):
        assert code_of(m.read_timeout, bad) == codes.WSAEINVAL


def test_a_callback_is_called_whatever_form_it_has() -> None:
    seen: list[int] = []

    def note(context: int) -> int:
        seen.append(context)
        return 1

    native = t.LPBLOCKINGCALLBACK(note)
    for form in (native, m.address_of(native), ctypes.cast(native, ctypes.c_void_p), seen.append):
        function = m.function_at(form, t.LPBLOCKINGCALLBACK)
        assert function is not None
        function(42)
    assert seen == [42] * 4
    assert m.is_c_function(native)
    assert not m.is_c_function(seen.append)
    assert m.function_at(None, t.LPBLOCKINGCALLBACK) is None
    assert m.function_at(t.LPBLOCKINGCALLBACK(), t.LPBLOCKINGCALLBACK) is None
    assert code_of(m.function_at, "name", t.LPBLOCKINGCALLBACK) == codes.WSAEFAULT


def test_numbers_by_value_may_be_ctypes() -> None:
    assert m.as_int(t.SOCKET(8)) == 8
    assert m.as_int(c.FD_READ) == 1
    assert m.as_int(None) == 0
    assert code_of(m.as_int, "8") == codes.WSAEFAULT


def test_a_cell_stands_for_memory_of_any_kind() -> None:
    assert m.read(Cell(1), 4) == (1).to_bytes(4, sys.byteorder)
    assert m.read(Cell(b"abcd"), 2) == b"ab"
    cell = Cell()
    m.write(cell, b"raw")
    assert cell.value == b"raw"
    qos, text, info = Cell(), Cell(), Cell()
    m.write_qos(qos, Qos())
    m.write_wide(text, None, "host")
    m.write_info(info, INFO)
    assert (m.qos_at(qos), m.read_wide(text), m.info_at(info)) == (Qos(), "host", INFO)


def test_a_short_name_is_filled_up_to_the_shortest_address_of_its_entry() -> None:
    info = ProtocolInfo(
        service_flags=0, name="names", address_family=0x4A4C, min_sockaddr=4, max_sockaddr=258
    )
    assert m.read_sockaddr(Address(""), None, info)[2:] == b"\0\0"


def test_null_where_text_or_a_buffer_is_needed_is_a_fault() -> None:
    assert code_of(m.read_wide, None) == codes.WSAEFAULT
    assert code_of(m.write_wide, None, Cell(10), "text") == codes.WSAEFAULT
    assert m.buffer(None) is None
    taken = m.buffers([None, b"x"], 2)
    assert m.gather(taken) == b"x"
    assert m.buffers(b"all", 1)[0].read() == b"all"
    assert code_of(m.as_int, "8") == codes.WSAEFAULT


def test_a_set_of_python_loses_what_is_not_ready() -> None:
    handles = {8, 12}
    m.write_fd_set(handles, [12])
    assert handles == {12}
    m.write_fd_set(None, [12])
