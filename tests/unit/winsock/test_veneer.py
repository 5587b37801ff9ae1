"""The application's side: which provider is chosen, how errors are told, every other function."""

from __future__ import annotations

import ctypes
import itertools
import logging
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from joinleaf.errors import SpiError
from joinleaf.providers.layered_trace import add_tracer
from joinleaf.providers.memory import AF_MEMORY, MemoryProvider
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.catalogue import Catalogue, default_catalogue
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.winsock import veneer as ws
from joinleaf.winsock.conversions import info_from_c, info_to_c
from joinleaf.winsock.library import Library, Wanted, choose
from joinleaf.winsock.types import (
    QOS,
    WSADATA,
    WSANETWORKEVENTS,
    WSAOVERLAPPED,
    WSAPROTOCOL_INFOW,
    sockaddr_in,
)

ROOT = c.WSA_FLAG_MULTIPOINT_C_ROOT | c.WSA_FLAG_MULTIPOINT_D_ROOT
LEAF = c.WSA_FLAG_MULTIPOINT_C_LEAF | c.WSA_FLAG_MULTIPOINT_D_LEAF
BOUND_MS = 10_000
_names = itertools.count()


def name(text: str = "") -> bytes:
    text = text or f"veneer-{next(_names)}"
    return struct.pack("=H", AF_MEMORY) + text.encode() + b"\0"


@pytest.fixture
def started() -> Iterator[None]:
    assert ws.WSAStartup(0x0202, WSADATA()) == 0
    yield
    assert ws.WSACleanup() == 0
    assert ws.LIBRARY.upcalls.open_sockets == 0


def memory_socket(flags: int) -> int:
    s = ws.WSASocket(AF_MEMORY, c.SOCK_SEQPACKET, 0, None, 0, flags)
    assert s != ws.INVALID_SOCKET, ws.WSAGetLastError()
    return s


class Session:
    """A listening root with one leaf that has joined; everything nonblocking but the root."""

    def __init__(self, flags: int = 0) -> None:
        self.address = name()
        self.root, self.leaf = memory_socket(ROOT | flags), memory_socket(LEAF | flags)
        assert ws.bind(self.root, self.address, len(self.address)) == 0
        assert ws.listen(self.root, 5) == 0
        assert ws.ioctlsocket(self.leaf, c.FIONBIO, ws.Cell(1)) == 0
        nothing = (None,) * 4
        joined = ws.WSAJoinLeaf(self.leaf, self.address, len(self.address), *nothing, c.JL_BOTH)
        assert joined == self.leaf
        self.leg = ws.accept(self.root)
        assert self.leg not in (self.root, ws.INVALID_SOCKET)


# -- choosing --------------------------------------------------------------------------------------


def entries() -> tuple[ProtocolInfo, ...]:
    return Catalogue.discover().protocols()


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (Wanted(c.AF_INET, c.SOCK_SEQPACKET, 0, ROOT), "rooted session, rooted data [TCP/IP]"),
        (Wanted(c.AF_INET6, c.SOCK_SEQPACKET, 6, LEAF), "rooted session, rooted data [TCP/IPv6]"),
        (Wanted(c.AF_INET, c.SOCK_DGRAM, c.IPPROTO_UDP, LEAF), "UDP multicast/IPv4"),
        (Wanted(c.AF_INET6, c.SOCK_DGRAM, 0, LEAF), "UDP multicast/IPv6"),
        (Wanted(c.AF_INET, c.SOCK_DGRAM, 0), "UDP multicast/IPv4"),
        (Wanted(AF_MEMORY, 0, 0, ROOT), "control plane rooted, data plane rooted"),
        (
            Wanted(c.AF_INET, 0, 0, c.WSA_FLAG_MULTIPOINT_C_LEAF | c.WSA_FLAG_MULTIPOINT_D_ROOT),
            "rooted session, rooted data [TCP/IP]",
        ),
    ],
    ids=str,
)
def test_the_first_entry_that_fits_is_chosen(wanted: Wanted, text: str) -> None:
    assert text in choose(entries(), wanted).name


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (Wanted(c.AF_UNIX, c.SOCK_DGRAM, 0), codes.WSAEAFNOSUPPORT),
        (Wanted(c.AF_INET, c.SOCK_STREAM, 6), codes.WSAESOCKTNOSUPPORT),
        (Wanted(c.AF_INET, c.SOCK_RDM, 0), codes.WSAEPROTOTYPE),
        (Wanted(c.AF_INET, c.SOCK_DGRAM, 6), codes.WSAEPROTONOSUPPORT),
        (Wanted(c.AF_INET, c.SOCK_DGRAM, 0, ROOT), codes.WSAEINVAL),
        (Wanted(0, 0, 0, c.WSA_FLAG_MULTIPOINT_C_ROOT), codes.WSAEINVAL),
    ],
    ids=str,
)
def test_what_fits_no_entry_is_refused_with_the_reason(wanted: Wanted, code: int) -> None:
    with pytest.raises(SpiError) as refusal:
        choose(entries(), wanted)
    assert refusal.value.code == code


def test_layers_and_hidden_entries_are_never_chosen() -> None:
    (base, *_) = entries()
    hidden = replace(base, provider_flags=c.PFL_HIDDEN)
    layer = replace(base, chain=())
    assert choose([layer, hidden, base], Wanted(0, 0, 0)) is base
    ranged = replace(base, protocol_max_offset=3)
    assert choose([ranged], Wanted(0, 0, base.protocol + 3)) is ranged
    with pytest.raises(SpiError):
        choose([ranged], Wanted(0, 0, base.protocol + 4))


@pytest.mark.usefixtures("started")
def test_an_entry_that_is_named_is_taken_and_must_exist() -> None:
    info = next(one for one in default_catalogue().protocols() if one.address_family == AF_MEMORY)
    anything = c.FROM_PROTOCOL_INFO
    s = ws.WSASocket(anything, anything, anything, info_to_c(info), 0, LEAF)
    place, length = WSAPROTOCOL_INFOW(), ws.Cell(ctypes.sizeof(WSAPROTOCOL_INFOW))
    assert ws.getsockopt(s, c.SOL_SOCKET, c.SO_PROTOCOL_INFOW, place, length) == 0
    assert info_from_c(place) == info
    assert ws.closesocket(s) == 0
    unknown = replace(info, catalog_entry_id=999_999)
    assert ws.WSASocket(anything, anything, anything, unknown, 0, LEAF) == ws.INVALID_SOCKET
    assert ws.WSAGetLastError() == codes.WSAEINVAL
    assert ws.WSASocket(anything, anything, anything, None, 0, LEAF) == ws.INVALID_SOCKET
    assert ws.WSAGetLastError() == codes.WSAEINVAL


@pytest.mark.usefixtures("started")
def test_a_chain_in_front_of_the_catalogue_is_what_programs_get(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = Catalogue()
    catalogue.add(MemoryProvider())
    chains = add_tracer(catalogue, "mem")
    library = Library(catalogue)
    monkeypatch.setattr(ws, "LIBRARY", library)
    caplog.set_level(logging.DEBUG, logger="joinleaf.trace")
    assert ws.WSAStartup(0x0202, WSADATA()) == 0
    session = Session()
    assert ws.send(session.root, b"x", 1, 0) == 1
    info = ws.Cell()
    assert ws.getsockopt(session.leaf, c.SOL_SOCKET, c.SO_PROTOCOL_INFOW, info, None) == 0
    structure = WSAPROTOCOL_INFOW.from_buffer_copy(info.value)
    assert info_from_c(structure) == chains[0]
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert f"WSPJoinLeaf(s={session.leaf:#x}" in text
    assert f"WSPAccept(s={session.root:#x}" in text
    assert ws.WSACleanup() == 0
    assert library.upcalls.open_sockets == 0


# -- the library -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requested", "version"),
    [(0x0202, 0x0202), (0x0002, 0x0002), (0x0101, 0x0101), (0x0001, 0x0001), (0x0003, 0x0202)],
)
def test_versions_are_negotiated_by_major_and_minor_number(requested: int, version: int) -> None:
    data = ws.Cell()
    assert ws.WSAStartup(requested, data) == 0
    assert (data.value.wVersion, data.value.wHighVersion) == (version, 0x0202)
    assert data.value.szSystemStatus == b"Running"
    assert ws.WSACleanup() == 0


def test_nothing_works_before_startup_and_startups_are_counted() -> None:
    assert ws.WSAStartup(0x0000, WSADATA()) == codes.WSAVERNOTSUPPORTED
    assert ws.WSAStartup(0x0202, None) == codes.WSAEFAULT
    refused = [
        lambda: ws.socket(AF_MEMORY, 0, 0),
        lambda: ws.send(256, b"x", 1, 0),
        lambda: ws.WSACreateEvent(),
        lambda: ws.WSAEnumProtocols(None, ws.Cell(), None),
        lambda: ws.select(0, [256], None, None, None),
        lambda: ws.WSAStringToAddress("127.0.0.1", c.AF_INET, None, ws.Cell(), None),
        ws.WSACancelBlockingCall,
        ws.WSACleanup,
    ]
    for call in refused:
        ws.WSASetLastError(0)
        assert call() in (ws.SOCKET_ERROR, ws.INVALID_SOCKET, ws.WSA_INVALID_EVENT)
        assert ws.WSAGetLastError() == codes.WSANOTINITIALISED
    for _ in range(2):
        assert ws.WSAStartup(0x0202, WSADATA()) == 0
    assert ws.WSACleanup() == 0
    assert memory_socket(LEAF) != ws.INVALID_SOCKET
    assert ws.WSACleanup() == 0
    assert ws.LIBRARY.upcalls.open_sockets == 0, "the last cleanup resets what is left"


@pytest.mark.usefixtures("started")
def test_the_last_error_is_each_threads_own_and_success_leaves_it_alone() -> None:
    assert ws.closesocket(0x7FFF0000) == ws.SOCKET_ERROR
    assert ws.WSAGetLastError() == codes.WSAENOTSOCK
    seen: list[int] = []

    def other() -> None:
        seen.append(ws.WSAGetLastError())
        ws.WSASetLastError(7)
        seen.append(ws.WSAGetLastError())

    thread = threading.Thread(target=other)
    thread.start()
    thread.join(BOUND_MS / 1000)
    assert seen == [0, 7]
    assert ws.closesocket(memory_socket(LEAF)) == 0
    assert ws.WSAGetLastError() == codes.WSAENOTSOCK


@pytest.mark.usefixtures("started")
def test_protocols_are_listed_into_memory_that_is_long_enough() -> None:
    listed = ws.Cell()
    count = ws.WSAEnumProtocols(None, listed, None)
    size = ctypes.sizeof(WSAPROTOCOL_INFOW)
    length = ws.Cell(size)
    memory = (WSAPROTOCOL_INFOW * count)()
    assert ws.WSAEnumProtocols(None, memory, length) == ws.SOCKET_ERROR
    assert (ws.WSAGetLastError(), length.value) == (codes.WSAENOBUFS, size * count)
    assert ws.WSAEnumProtocols(None, memory, length) == count
    assert [info_from_c(one) for one in memory] == listed.value
    wanted = (ctypes.c_int * 2)(c.IPPROTO_UDP, 0)
    assert 0 < ws.WSAEnumProtocols(wanted, listed, None) < count
    assert {one.protocol for one in listed.value} == {c.IPPROTO_UDP}
    assert ws.WSAEnumProtocols([c.IPPROTO_UDP], ws.Cell(), None) == len(listed.value)


@pytest.mark.usefixtures("started")
def test_addresses_become_text_and_text_addresses() -> None:
    place, length = sockaddr_in(), ctypes.c_int(16)
    text = "127.0.0.1:80"
    assert ws.WSAStringToAddress(text, c.AF_INET, None, place, ctypes.byref(length)) == 0
    assert bytes(place)[:8] == struct.pack("=H", c.AF_INET) + b"\0\x50\x7f\0\0\1"
    words = ws.Cell()
    assert ws.WSAAddressToString(place, 16, None, words, None) == 0
    assert words.value == text
    assert ws.WSAStringToAddress("nonsense", c.AF_INET, None, place, length) == ws.SOCKET_ERROR
    assert ws.WSAGetLastError() == codes.WSAEINVAL
    assert ws.WSAStringToAddress("x", 77, None, place, length) == ws.SOCKET_ERROR
    assert ws.WSAGetLastError() == codes.WSAEINVAL


# -- sockets and data ------------------------------------------------------------------------------


@pytest.mark.usefixtures("started")
def test_messages_go_both_ways_with_the_bsd_names() -> None:
    session = Session()
    memory = bytearray(32)
    assert ws.send(session.root, b"down", 4, 0) == 4
    assert ws.recv(session.leaf, memory, 32, 0) == 4
    assert ws.send(session.leaf, b"up!", 3, 0) == 3
    origin, length = bytearray(300), ws.Cell(300)
    assert ws.recvfrom(session.root, memory, 32, 0, origin, length) == 3
    assert bytes(memory[:4]) == b"up!n"
    assert length.value > 2
    assert ws.recv(session.leaf, memory, 32, 0) == ws.SOCKET_ERROR
    assert ws.WSAGetLastError() == codes.WSAEWOULDBLOCK
    assert ws.recv(session.leaf, bytearray(2), 3, 0) == ws.SOCKET_ERROR
    assert ws.WSAGetLastError() == codes.WSAEFAULT
    assert ws.send(session.root, b"x", -1, 0) == ws.SOCKET_ERROR
    assert ws.WSAGetLastError() == codes.WSAEFAULT


@pytest.mark.usefixtures("started")
def test_recv_gives_0_at_the_orderly_end_where_wsarecv_gives_wsaediscon() -> None:
    session = Session()
    assert ws.WSASendDisconnect(session.root, b"bye") == 0
    count, flags = ws.Cell(), ws.Cell()
    assert ws.WSARecv(session.leaf, [bytearray(8)], 1, count, flags) == ws.SOCKET_ERROR
    assert ws.WSAGetLastError() == codes.WSAEDISCON
    assert ws.recv(session.leaf, bytearray(8), 8, 0) == 0
    words = ws.Wsabuf(8)
    assert ws.WSARecvDisconnect(session.leaf, words) == 0
    assert words.data == b"bye"


@pytest.mark.usefixtures("started")
def test_connect_data_go_through_the_condition_function() -> None:
    root, leaf, address = memory_socket(ROOT), memory_socket(LEAF), name()
    assert ws.bind(root, address, len(address)) == ws.listen(root, 1) == 0
    asked: list[bytes] = []

    def condition(caller, data, sqos, gqos, callee, answer, group, context):  # type: ignore[no-untyped-def]  # as ctypes calls it
        asked.append(data.data)
        ctypes.memmove(answer.buf, b"welcome", 7)
        answer.len = 7
        return c.CF_ACCEPT if context == 5 else c.CF_REJECT

    legs: list[int] = []
    thread = threading.Thread(
        target=lambda: legs.append(ws.WSAAccept(root, None, None, condition, 5))
    )
    thread.start()
    welcome = ws.Wsabuf(16)
    wish = Qos(FlowSpec(token_rate=1000))
    given = (ws.Wsabuf(b"please"), welcome, wish, None)
    assert ws.WSAJoinLeaf(leaf, address, len(address), *given, c.JL_BOTH) == leaf
    thread.join(BOUND_MS / 1000)
    assert (asked, welcome.data) == ([b"please"], b"welcome")
    agreed, count = QOS(), ws.Cell()
    size = ctypes.sizeof(QOS)
    assert ws.WSAIoctl(leaf, c.SIO_GET_QOS, None, 0, agreed, size, count) == 0
    assert agreed.SendingFlowspec.TokenRate == 1000
    named = QOS()
    assert ws.WSAGetQOSByName(leaf, ws.Wsabuf(b"G711"), named) == 1
    assert ws.WSAGetQOSByName(leaf, ws.Wsabuf(b"nobody"), named) == 0
    assert ws.shutdown(root, c.SD_BOTH) == 0


@pytest.mark.usefixtures("started")
def test_names_options_and_modes_pass_through() -> None:
    session = Session()
    memory, length = bytearray(300), ws.Cell(300)
    assert ws.getsockname(session.root, memory, length) == 0
    assert bytes(memory).startswith(session.address)
    length = ws.Cell(300)
    assert ws.getpeername(session.leaf, memory, length) == 0
    assert bytes(memory).startswith(session.address)
    assert ws.setsockopt(session.root, c.SOL_SOCKET, c.SO_KEEPALIVE, b"\1\0\0\0", 4) == 0
    value = ws.Cell()
    assert ws.getsockopt(session.root, c.SOL_SOCKET, c.SO_KEEPALIVE, value, None) == 0
    assert value.value == 1
    assert ws.send(session.root, b"12345", 5, 0) == 5
    waiting = ws.Cell()
    assert ws.ioctlsocket(session.leaf, c.FIONREAD, waiting) == 0
    assert waiting.value == 5
    address = session.address
    assert ws.connect(session.leaf, address, len(address)) == ws.SOCKET_ERROR
    assert ws.WSAGetLastError() == codes.WSAEISCONN


@pytest.mark.usefixtures("started")
def test_a_duplicate_is_another_descriptor_of_the_same_socket() -> None:
    session, place = Session(), WSAPROTOCOL_INFOW()
    assert ws.WSADuplicateSocket(session.leaf, 0, place) == 0
    anything = c.FROM_PROTOCOL_INFO
    twin = ws.WSASocket(anything, anything, anything, place, 0, 0)
    assert twin not in (session.leaf, ws.INVALID_SOCKET)
    assert ws.closesocket(session.leaf) == 0
    assert ws.send(session.root, b"x", 1, 0) == 1
    assert ws.recv(twin, bytearray(4), 4, 0) == 1


@pytest.mark.usefixtures("started")
def test_a_close_that_would_block_leaves_the_socket_open() -> None:
    session = Session()
    lingering = struct.pack("=HH", 1, 30)
    assert ws.ioctlsocket(session.root, c.FIONBIO, ws.Cell(1)) == 0
    assert ws.setsockopt(session.root, c.SOL_SOCKET, c.SO_LINGER, lingering, 4) == 0
    piece = bytes(1 << 18)
    for _ in range(1000):
        if ws.send(session.root, piece, len(piece), 0) == ws.SOCKET_ERROR:
            break
    assert ws.WSAGetLastError() == codes.WSAEWOULDBLOCK
    for _ in range(2):
        assert ws.closesocket(session.root) == ws.SOCKET_ERROR
        assert ws.WSAGetLastError() == codes.WSAEWOULDBLOCK
    assert session.root in ws.LIBRARY.sockets
    assert ws.setsockopt(session.root, c.SOL_SOCKET, c.SO_LINGER, struct.pack("=HH", 1, 0), 4) == 0
    assert ws.closesocket(session.root) == 0
    assert session.root not in ws.LIBRARY.sockets
    assert set(ws.LIBRARY.sockets) == {session.leaf, session.leg}


@pytest.mark.usefixtures("started")
def test_datagrams_go_to_an_address_without_any_session() -> None:
    one, other = (ws.socket(c.AF_INET, c.SOCK_DGRAM, 0) for _ in range(2))
    name = ws.Cell()
    assert ws.WSAStringToAddress("127.0.0.1:0", c.AF_INET, None, name, None) == 0
    for s in (one, other):
        assert ws.bind(s, name.value, 16) == 0
    target, origin, size = bytearray(16), bytearray(16), ws.Cell(16)
    assert ws.getsockname(other, target, size) == 0
    assert ws.sendto(one, b"hello", 5, 0, target, 16) == 5
    memory = bytearray(8)
    assert ws.recvfrom(other, memory, 8, 0, origin, ws.Cell(16)) == 5
    assert ws.WSASendTo(other, [b"back"], 1, ws.Cell(), 0, origin, 16) == 0
    assert ws.recv(one, memory, 8, 0) == 4
    assert bytes(memory[:5]) == b"backo"


@pytest.mark.usefixtures("started")
def test_a_blocking_hook_may_cancel_the_call_that_it_runs_in() -> None:
    session = Session()
    thread = ws.LIBRARY.objects.thread()
    results: list[int] = []

    def hook(context: object) -> int:
        assert ws.send(session.root, b"x", 1, 0) == ws.SOCKET_ERROR
        assert ws.WSAGetLastError() == codes.WSAEINPROGRESS, "no calls but one from a hook"
        results.append(ws.WSACancelBlockingCall())
        return 1

    thread.hook = hook
    try:
        assert ws.recv(session.root, bytearray(8), 8, 0) == ws.SOCKET_ERROR
    finally:
        thread.hook = None
    assert (ws.WSAGetLastError(), results) == (codes.WSAEINTR, [0])
    assert ws.WSACancelBlockingCall() == ws.SOCKET_ERROR
    assert ws.WSAGetLastError() == codes.WSAEINVAL


# -- events ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("started")
def test_events_wake_a_wait_and_are_enumerated() -> None:
    session = Session()
    idle, event = ws.WSACreateEvent(), ws.WSACreateEvent()
    assert ws.WSAEventSelect(session.leaf, event, c.FD_READ | c.FD_CLOSE) == 0
    both = (ctypes.c_size_t * 2)(idle, event)
    assert ws.WSAWaitForMultipleEvents(2, both, False, 0, False) == c.WSA_WAIT_TIMEOUT
    assert ws.send(session.root, b"x", 1, 0) == 1
    assert ws.WSAWaitForMultipleEvents(2, both, False, BOUND_MS, False) == 1
    record = WSANETWORKEVENTS()
    assert ws.WSAEnumNetworkEvents(session.leaf, event, record) == 0
    assert record.lNetworkEvents == c.FD_READ
    assert ws.WSAWaitForMultipleEvents(2, [idle, event], False, 0, False) == c.WSA_WAIT_TIMEOUT
    assert ws.WSASetEvent(idle) == 1
    assert ws.WSAWaitForMultipleEvents(1, [idle], True, c.WSA_INFINITE, False) == 0
    assert ws.WSAResetEvent(idle) == ws.WSACloseEvent(idle) == 1
    assert ws.WSASetEvent(idle) == 0
    assert ws.WSAGetLastError() == codes.WSA_INVALID_HANDLE
    assert ws.WSAWaitForMultipleEvents(1, [idle], True, 0, False) == c.WSA_WAIT_FAILED
    assert ws.WSACloseEvent(event) == 1


@pytest.mark.usefixtures("started")
def test_messages_come_to_a_window() -> None:
    session, window = Session(), ws.create_window()
    assert ws.WSAAsyncSelect(session.leaf, window, 0x401, c.FD_READ) == 0
    assert ws.get_message(window, 0) is None
    assert ws.send(session.root, b"x", 1, 0) == 1
    message = ws.get_message(window, BOUND_MS / 1000)
    assert message is not None
    assert (message.msg, message.wparam, message.event) == (0x401, session.leaf, c.FD_READ)


@pytest.mark.usefixtures("started")
def test_select_leaves_what_is_ready() -> None:
    session = Session()
    assert ws.send(session.root, b"x", 1, 0) == 1
    readable, writable = [session.leaf, session.root], [session.root]
    assert ws.select(0, readable, writable, None, 10.0) == 2
    assert (readable, writable) == ([session.leaf], [session.root])
    assert ws.select(0, [], None, None, None) == ws.SOCKET_ERROR
    assert ws.WSAGetLastError() == codes.WSAEINVAL


@pytest.mark.usefixtures("started")
def test_overlapped_operations_end_with_an_event_or_a_routine() -> None:
    session = Session(c.WSA_FLAG_OVERLAPPED)
    event = ws.WSACreateEvent()
    pending, memory = WSAOVERLAPPED(), ws.Wsabuf(16)
    pending.hEvent = event
    flags = ws.Cell()
    assert ws.WSARecv(session.leaf, [memory], 1, None, flags, pending) == ws.SOCKET_ERROR
    assert ws.WSAGetLastError() == codes.WSA_IO_PENDING
    count = ws.Cell()
    assert ws.WSAGetOverlappedResult(session.leaf, pending, count, False, flags) == 0
    assert ws.WSAGetLastError() == codes.WSA_IO_INCOMPLETE
    assert ws.WSASend(session.root, [b"later"], 1, count, 0) == 0
    assert ws.WSAWaitForMultipleEvents(1, [event], False, BOUND_MS, False) == 0
    assert ws.WSAGetOverlappedResult(session.leaf, pending, count, True, flags) == 1
    assert (count.value, memory.data[:5]) == (5, b"later")
    done: list[tuple[int, int]] = []

    def routine(error: int, transferred: int, overlapped: object, flags: int) -> None:
        done.append((error, transferred))

    again = WSAOVERLAPPED()
    given = ([memory], 1, None, flags, None, None, again, routine)
    assert ws.WSARecvFrom(session.leaf, *given) == ws.SOCKET_ERROR
    assert ws.WSAGetLastError() == codes.WSA_IO_PENDING
    assert ws.WSASend(session.root, [b"routine"], 1, count, 0) == 0
    idle = ws.WSACreateEvent()
    woken = ws.WSAWaitForMultipleEvents(1, [idle], False, BOUND_MS, True)
    assert (woken, done) == (c.WSA_WAIT_IO_COMPLETION, [(0, 7)])
