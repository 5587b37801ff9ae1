"""Options, commands, event registrations, names and the life of a provider."""

from __future__ import annotations

import ctypes
import socket
import struct
import threading
from typing import Any

import pytest

from joinleaf.drivers.changes import Change, Changes, host_changes, kinds_in
from joinleaf.errors import SpiError
from joinleaf.providers.memory import MemoryProvider
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.values import Address
from joinleaf.winsock import Cell, ServiceProvider, Upcalls, Wsabuf, start
from joinleaf.winsock.conversions import qos_to_c
from joinleaf.winsock.types import (
    QOS,
    WSANETWORKEVENTS,
    WSAOVERLAPPED,
    WSAPROTOCOL_INFOW,
    WSPDATA,
    WSPPROC_TABLE,
)

BOUND = 5.0


def command(desk: Any, s: int, code: int, given: bytes = b"", room: int = 0) -> bytes:
    """WSPIoctl that has to succeed; what it gives back."""
    place, count = bytearray(room), Cell()
    arguments = (given or None, len(given), place if room else None, room, count)
    desk.call("WSPIoctl", s, code, *arguments, None, None, None)
    return bytes(place[: count.value])


def refused_command(desk: Any, s: int, code: int, given: bytes = b"") -> int:
    arguments = (given or None, len(given), bytearray(64), 64, None, None, None, None)
    return int(desk.code("WSPIoctl", s, code, *arguments))


def option(desk: Any, s: int, number: int) -> int:
    value = Cell()
    desk.call("WSPGetSockOpt", s, c.SOL_SOCKET, number, value, None)
    return int(value.value)


def set_option(desk: Any, s: int, number: int, raw: bytes) -> None:
    desk.call("WSPSetSockOpt", s, c.SOL_SOCKET, number, raw, len(raw))


def word(value: int) -> bytes:
    return value.to_bytes(4, "little")


def test_options_of_a_root_are_those_of_its_legs(desk: Any) -> None:
    root, listener = desk.root(), desk.listener()
    set_option(desk, root, c.SO_LINGER, struct.pack("=HH", 1, 7))
    set_option(desk, root, c.SO_RCVBUF, word(12345))
    desk.nonblocking(root)
    event = desk.watch(root, c.FD_CONNECT)
    leg = desk.join(root, desk.name(listener))
    desk.accept(listener)
    desk.await_event(root, event, c.FD_CONNECT)
    assert option(desk, leg, c.SO_RCVBUF) == 12345
    assert option(desk, leg, c.SO_LINGER) == 1 | 7 << 16
    assert option(desk, leg, c.SO_DONTLINGER & 0xFFFFFFFF) == 0
    assert desk.receive_code(leg) == codes.WSAEWOULDBLOCK, "nonblocking as its root"


def test_options_have_their_sizes_levels_and_numbers(desk: Any) -> None:
    leaf = desk.leaf()
    put, get = "WSPSetSockOpt", "WSPGetSockOpt"
    assert desk.code(put, leaf, c.SOL_SOCKET, 0x7777, word(1), 4) == codes.WSAENOPROTOOPT
    assert desk.code(put, leaf, 0x1234, c.SO_KEEPALIVE, word(1), 4) == codes.WSAEINVAL
    assert desk.code(put, leaf, c.SOL_SOCKET, c.SO_KEEPALIVE, word(1), 2) == codes.WSAEFAULT
    short, length = bytearray(2), Cell(2)
    assert desk.code(get, leaf, c.SOL_SOCKET, c.SO_TYPE, short, length) == codes.WSAEFAULT
    whole, length = bytearray(628), Cell(628)
    desk.call(get, leaf, c.SOL_SOCKET, c.SO_PROTOCOL_INFOW, whole, length)
    info = WSAPROTOCOL_INFOW.from_buffer_copy(whole)
    assert info.dwServiceFlags1 == desk.provider.info.service_flags
    assert option(desk, desk.root(), c.SO_ACCEPTCONN) == 1


def test_quality_of_service_is_set_read_and_overridden(desk: Any) -> None:
    leaf = desk.leaf()
    wanted = Qos(FlowSpec(token_rate=9200, token_bucket_size=1000))
    raw = bytes(qos_to_c(wanted))
    command(desk, leaf, c.SIO_SET_QOS, raw)
    got = QOS.from_buffer_copy(command(desk, leaf, c.SIO_GET_QOS, room=len(raw)))
    assert got.SendingFlowspec.TokenRate == 9200
    assert refused_command(desk, leaf, c.SIO_SET_QOS, raw[:10]) == codes.WSAEFAULT
    place = QOS()
    assert desk.call("WSPGetQOSByName", leaf, Wsabuf(b"g711\0"), place) == 1
    assert place.SendingFlowspec.ServiceType == c.SERVICETYPE_GUARANTEED
    assert desk.code("WSPGetQOSByName", leaf, Wsabuf(b"none"), place) == codes.WSAEINVAL


def test_multicast_options_of_the_bsd_form_and_commands_are_one(udp: Any) -> None:
    s = udp.leaf()
    put = ("WSPSetSockOpt", s, c.IPPROTO_IP)
    udp.call(*put, c.IP_MULTICAST_TTL, word(7), 4)
    value = Cell()
    udp.call("WSPGetSockOpt", s, c.IPPROTO_IP, c.IP_MULTICAST_TTL, value, None)
    assert value.value == 7
    command(udp, s, c.SIO_MULTICAST_SCOPE, word(9))
    udp.call("WSPGetSockOpt", s, c.IPPROTO_IP, c.IP_MULTICAST_TTL, value, None)
    assert value.value == 9
    assert refused_command(udp, s, c.SIO_MULTICAST_SCOPE, word(256)) == codes.WSAEINVAL
    assert refused_command(udp, s, c.SIO_GET_QOS) == codes.WSAENOPROTOOPT
    request = socket.inet_aton("239.255.9.9") + socket.inet_aton("127.0.0.1")
    udp.call(*put, c.IP_ADD_MEMBERSHIP, request, 8)
    assert udp.code(*put, c.IP_ADD_MEMBERSHIP, request, 8) == codes.WSAEADDRNOTAVAIL
    udp.call(*put, c.IP_DROP_MEMBERSHIP, request, 8)
    assert udp.code(*put, 99, word(1), 4) == codes.WSAENOPROTOOPT


def test_a_member_by_the_bsd_option_hears_its_group(udp: Any) -> None:
    hearer, sender = udp.socket(0), udp.leaf()
    udp.call("WSPBind", hearer, Address("0.0.0.0", 0), 0)
    port = int.from_bytes(udp.name(hearer)[2:4], "big")
    request = socket.inet_aton("239.255.9.10") + socket.inet_aton("127.0.0.1")
    udp.call("WSPSetSockOpt", hearer, c.IPPROTO_IP, c.IP_ADD_MEMBERSHIP, request, 8)
    udp.call("WSPJoinLeaf", sender, Address("239.255.9.10", port), 0, None, None, None, None, 1)
    udp.send(sender, b"both ways")
    assert udp.receive(hearer) == b"both ways"


def test_the_own_addresses_come_as_a_list_of_pointers(udp: Any) -> None:
    s = udp.leaf()
    memory = (ctypes.c_char * 4096)()
    count = Cell()
    udp.call(
        "WSPIoctl", s, c.SIO_ADDRESS_LIST_QUERY, None, 0, memory, 4096, count, None, None, None
    )
    number = int.from_bytes(memory.raw[:4], "little")
    hosts = []
    for index in range(number):
        pointer, length = struct.unpack_from("=Qi", memory.raw, 8 + 16 * index)
        hosts.append(socket.inet_ntoa(ctypes.string_at(pointer, length)[4:8]))
    assert "127.0.0.1" in hosts
    small = Cell()
    assert (
        udp.code(
            "WSPIoctl",
            s,
            c.SIO_ADDRESS_LIST_QUERY,
            None,
            0,
            bytearray(4),
            4,
            small,
            None,
            None,
            None,
        )
        == codes.WSAEFAULT
    )
    assert small.value == count.value, "the size needed is told"


def test_registrations_make_nonblocking_and_blocking_is_refused_while_they_last(
    desk: Any,
) -> None:
    leaf = desk.leaf()
    desk.watch(leaf, c.FD_CONNECT)
    assert refused_command(desk, leaf, c.FIONBIO, word(0)) == codes.WSAEINVAL
    desk.call("WSPEventSelect", leaf, 0, 0)
    command(desk, leaf, c.FIONBIO, word(0))
    assert desk.code("WSPEventSelect", leaf, 0, c.FD_READ) == codes.WSAEINVAL
    assert desk.code("WSPEventSelect", leaf, 4, 1 << 20) == codes.WSAEINVAL


def test_messages_replace_event_objects_and_carry_event_and_error(desk: Any) -> None:
    root, leaf = desk.root(), desk.leaf()
    event = desk.watch(leaf, c.FD_CONNECT)
    window = desk.objects.create_window()
    desk.call("WSPAsyncSelect", leaf, window, 0x400, c.FD_CONNECT | c.FD_WRITE)
    desk.join(leaf, desk.name(root))
    desk.accept(root)
    first = desk.objects.get_message(window, BOUND)
    second = desk.objects.get_message(window, BOUND)
    assert (first.msg, first.wparam, first.event, first.error) == (0x400, leaf, c.FD_CONNECT, 0)
    assert second.event == c.FD_WRITE
    assert not desk.objects.is_set(event)


def test_a_record_that_has_no_place_is_neither_cleared_nor_its_event_reset(desk: Any) -> None:
    root, leaf = desk.root(), desk.leaf()
    event = desk.watch(root, c.FD_ACCEPT)
    desk.nonblocking(leaf)
    desk.join(leaf, desk.name(root))
    assert desk.objects.wait(event, BOUND)
    assert desk.code("WSPEnumNetworkEvents", root, event, None) == codes.WSAEFAULT
    assert desk.code("WSPEnumNetworkEvents", root, 2, WSANETWORKEVENTS()) == codes.WSAEINVAL
    assert desk.objects.is_set(event)
    assert desk.record(root, event) == {c.FD_ACCEPT: 0}
    assert not desk.objects.is_set(event)


def test_a_duplicate_is_the_same_socket_until_the_last_is_closed(desk: Any) -> None:
    root, leaf, leg = desk.pair()
    info = WSAPROTOCOL_INFOW()
    desk.call("WSPDuplicateSocket", leaf, 0, info)
    twin = desk.call("WSPSocket", -1, -1, -1, info, 0, 0)
    assert twin != leaf
    desk.call("WSPCloseSocket", leaf)
    assert desk.code("WSPSend", leaf, [b"x"], 1, Cell(), 0, None, None, None) == (codes.WSAENOTSOCK)
    desk.send(root, b"still there")
    assert desk.receive(twin) == b"still there"
    desk.call("WSPCloseSocket", twin)
    assert desk.receive_code(leg) == codes.WSAEDISCON


def test_sockets_are_made_only_as_the_entry_has_them(desk: Any) -> None:
    make = "WSPSocket"
    assert desk.code(make, 999, -1, -1, None, 0, 0) == codes.WSAEAFNOSUPPORT
    assert desk.code(make, -1, c.SOCK_RAW, -1, None, 0, 0) == codes.WSAEPROTOTYPE
    assert desk.code(make, -1, 99, -1, None, 0, 0) == codes.WSAESOCKTNOSUPPORT
    assert desk.code(make, -1, -1, 99, None, 0, 0) == codes.WSAEPROTONOSUPPORT
    assert desk.code(make, -1, -1, -1, None, 1, 0) == codes.WSAEINVAL
    for flags in (0x02, 0x06, 0x1E, 0x18):
        assert desk.code(make, -1, -1, -1, None, 0, flags) == codes.WSAEINVAL


def test_addresses_turn_into_text_and_back(udp: Any) -> None:
    raw = b"\x02\0\x1f\x90\x7f\0\0\x01" + bytes(8)
    text, length = Cell(), Cell(64)
    udp.call("WSPAddressToString", raw, 16, None, text, length)
    assert (text.value, length.value) == ("127.0.0.1:8080", 15)
    place, size = bytearray(16), Cell(16)
    udp.call("WSPStringToAddress", "127.0.0.1:8080", c.AF_INET, None, place, size)
    assert bytes(place) == raw
    for wrong in ("nonsense", "1.2.3", "[::1]:9"):
        code = udp.code("WSPStringToAddress", wrong, c.AF_INET, None, place, size)
        assert code == codes.WSAEINVAL


def test_startup_negotiates_the_version_and_counts() -> None:
    seam = MemoryProvider()
    provider = ServiceProvider(seam, seam.protocols()[0])
    upcalls, table, data = Upcalls(), WSPPROC_TABLE(), WSPDATA()
    assert provider.WSPStartup(0x0101, data, None, upcalls, table) == codes.WSAVERNOTSUPPORTED
    assert provider.WSPStartup(0x0202, None, None, upcalls, table) == codes.WSAEFAULT
    for _ in range(2):
        assert provider.WSPStartup(0x0302, data, None, upcalls.table, table) == 0
    assert (data.wVersion, data.wHighVersion) == (0x0202, 0x0202)
    error = ctypes.c_int(0)
    s = table.lpWSPSocket(-1, -1, -1, None, 0, 0x14, ctypes.addressof(error))
    assert error.value == 0
    assert provider.WSPCleanup(error) == 0
    assert table.lpWSPCloseSocket(s, ctypes.addressof(error)) == 0
    assert provider.WSPCleanup(error) == 0
    assert provider.WSPCleanup(error) == -1
    assert error.value == codes.WSANOTINITIALISED
    assert seam.is_empty


def test_cleanup_resets_what_is_open_and_the_peer_sees_it() -> None:
    seam = MemoryProvider()
    ours, theirs = start("mem", provider=seam), start("mem", provider=seam)
    cell = Cell(0)
    root = ours.WSPSocket(-1, -1, -1, None, 0, 0x0A, cell)
    ours.WSPBind(root, Address("r"), 0, cell)
    ours.WSPListen(root, 5, cell)
    leaf = theirs.WSPSocket(-1, -1, -1, None, 0, 0x14, cell)
    thread = threading.Thread(target=lambda: ours.WSPAccept(root, None, None, None, 0, Cell()))
    thread.start()
    assert theirs.WSPJoinLeaf(leaf, Address("r"), 0, None, None, None, None, 4, cell) == leaf
    thread.join(BOUND)
    ours.WSPCleanup(cell)
    nothing = ([bytearray(4)], 1, Cell(), Cell(), None, None, None)
    theirs.WSPRecv(leaf, *nothing, cell)
    assert cell.value == codes.WSAECONNRESET
    assert theirs.WSPCleanup(Cell()) == 0
    assert seam.is_empty


# Changes of the host's addresses and routes


def netlink(kind: int) -> bytes:
    return struct.pack("=IHHII", 16, kind, 0, 0, 0)


def test_netlink_messages_are_sorted_and_what_is_broken_is_skipped() -> None:
    assert kinds_in(netlink(20)) == Change.ADDRESSES
    assert kinds_in(netlink(25) + netlink(21)) == Change.ADDRESSES | Change.ROUTES
    assert not kinds_in(netlink(99) + b"\x01")
    assert not kinds_in(bytes(64))


def test_nobody_listening_costs_nothing() -> None:
    changes = Changes()
    try:
        stop = changes.listen(lambda _: None)
    except SpiError as error:  # a system without netlink says so
        pytest.skip(str(error))
    assert changes.is_open
    stop()
    stop()
    assert not changes.is_open


def test_a_change_of_addresses_is_indicated_once_for_each_time_asked(udp: Any) -> None:
    s = udp.leaf()
    event = udp.watch(s, c.FD_ADDRESS_LIST_CHANGE)
    ask = (c.SIO_ADDRESS_LIST_CHANGE,)
    assert refused_command(udp, s, *ask) == codes.WSAEWOULDBLOCK
    host_changes.tell(Change.ROUTES)
    assert udp.record(s) == {}
    host_changes.tell(Change.ADDRESSES)
    assert udp.await_event(s, event, c.FD_ADDRESS_LIST_CHANGE) == 0
    host_changes.tell(Change.ADDRESSES)
    assert udp.record(s) == {}
    assert refused_command(udp, s, *ask) == codes.WSAEWOULDBLOCK
    host_changes.tell(Change.ADDRESSES)
    assert udp.await_event(s, event, c.FD_ADDRESS_LIST_CHANGE) == 0


def test_an_overlapped_question_about_routes_completes_with_the_next_change(udp: Any) -> None:
    s = udp.leaf(c.WSA_FLAG_OVERLAPPED)
    operation = WSAOVERLAPPED()
    operation.hEvent = udp.objects.create_event()
    target = b"\x02\0\0\x09\x7f\0\0\x01" + bytes(8)
    code = udp.code(
        "WSPIoctl",
        s,
        c.SIO_ROUTING_INTERFACE_CHANGE,
        target,
        16,
        None,
        0,
        None,
        operation,
        None,
        None,
    )
    assert code == codes.WSA_IO_PENDING
    host_changes.tell(Change.ROUTES)
    assert udp.objects.wait(operation.hEvent, BOUND)
    assert udp.call("WSPGetOverlappedResult", s, operation, Cell(), 0, Cell()) == 1
