"""Sending, receiving, overlapped operations, select: on mem, jl, and udp over loopback."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.values import Address
from joinleaf.winsock import Cell, Wsabuf
from joinleaf.winsock.types import WSAOVERLAPPED

BOUND = 5.0
OVERLAPPED = c.WSA_FLAG_OVERLAPPED


def group() -> bytes:
    """A session of this process's own."""
    pid = os.getpid()
    host = bytes((239, 255, pid >> 8 & 0xFF, pid & 0xFF))
    return b"\x02\0" + (20000 + pid % 20000).to_bytes(2, "big") + host + bytes(8)


def overlapped_receive(desk: Any, s: int, memory: bytearray, routine: Any = None) -> Any:
    """Start one that has to wait; gives its structure."""
    operation = WSAOVERLAPPED()
    operation.hEvent = desk.objects.create_event()
    arguments = ([memory], 1, Cell(), Cell(), operation, routine, None)
    assert desk.code("WSPRecv", s, *arguments) == codes.WSA_IO_PENDING
    return operation


def test_messages_keep_their_bounds_and_read_comes_once_per_receive(desk: Any) -> None:
    root, leaf, _ = desk.pair()
    event = desk.watch(leaf, c.FD_READ)
    desk.send(root, b"one")
    desk.await_event(leaf, event, c.FD_READ)
    desk.send(root, b"two")
    assert desk.record(leaf) == {}, "silent until the receive"
    assert desk.receive(leaf) == b"one"
    desk.await_event(leaf, event, c.FD_READ)
    assert desk.receive(leaf) == b"two"
    assert desk.receive_code(leaf) == codes.WSAEWOULDBLOCK


def test_peeking_leaves_a_message_and_one_that_does_not_fit_stays_whole(desk: Any) -> None:
    root, leaf, _ = desk.pair()
    desk.send(root, b"0123456789")
    memory, count = bytearray(20), Cell()
    desk.call("WSPRecv", leaf, [memory], 1, count, Cell(c.MSG_PEEK), None, None, None)
    assert memory[: count.value] == b"0123456789"
    small = [bytearray(4)]
    code = desk.code("WSPRecv", leaf, small, 1, Cell(), Cell(), None, None, None)
    assert (code, bytes(small[0])) == (codes.WSAEMSGSIZE, b"0123")
    first, second = bytearray(3), bytearray(9)
    desk.call("WSPRecv", leaf, [first, second], 2, count, Cell(), None, None, None)
    assert (count.value, bytes(first + second)) == (10, b"0123456789\0\0")


def test_side_chat_reaches_one_leaf_and_is_marked(desk: Any) -> None:
    root, leaf, leg = desk.pair()
    desk.send(leg, b"psst")
    memory, count, flags = bytearray(9), Cell(), Cell(0)
    desk.call("WSPRecv", leaf, [memory], 1, count, flags, None, None, None)
    assert (bytes(memory[: count.value]), flags.value) == (b"psst", c.MSG_DONTROUTE)
    desk.send(root, b"all")
    flags.value = 0
    desk.call("WSPRecv", leaf, [memory], 1, count, flags, None, None, None)
    assert flags.value == 0


def test_data_come_before_the_end_and_the_end_stays(desk: Any) -> None:
    root, leaf, leg = desk.pair()
    event = desk.watch(leaf, c.FD_READ | c.FD_CLOSE)
    desk.send(root, b"last words")
    desk.await_event(leaf, event, c.FD_READ)
    farewell = Wsabuf(b"bye")
    desk.call("WSPSendDisconnect", root, farewell)
    assert desk.receive(leaf) == b"last words"
    assert desk.await_event(leaf, event, c.FD_CLOSE) == 0
    assert desk.receive_code(leaf) == codes.WSAEDISCON
    assert desk.code("WSPSend", leaf, [b"x"], 1, Cell(), 0, None, None, None) == (
        codes.WSAESHUTDOWN
    )
    room = Wsabuf(16)
    desk.call("WSPRecvDisconnect", leaf, room)
    assert room.data == b"bye"
    assert desk.receive_code(leg) == codes.WSAEDISCON


def test_a_blocked_receive_ends_when_another_thread_closes(desk: Any) -> None:
    _, leaf, _ = desk.pair()
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(desk.receive_code(leaf)))
    thread.start()
    desk.call("WSPCloseSocket", leaf)
    thread.join(BOUND)
    assert found[0] in (codes.WSAEINTR, codes.WSAENOTSOCK)


def test_an_overlapped_receive_completes_by_event(desk: Any) -> None:
    root, leaf, _ = desk.pair(OVERLAPPED)
    memory = bytearray(20)
    operation = overlapped_receive(desk, leaf, memory)
    result = ("WSPGetOverlappedResult", leaf, operation)
    assert desk.code(*result, Cell(), 0, Cell()) == codes.WSA_IO_INCOMPLETE
    desk.send(root, b"here")
    assert desk.objects.wait(operation.hEvent, BOUND)
    count = Cell()
    assert desk.call(*result, count, 0, Cell()) == 1
    assert memory[: count.value] == b"here"


def test_overlapped_receives_complete_in_the_order_of_their_start(desk: Any) -> None:
    root, leaf, _ = desk.pair(OVERLAPPED)
    first, second = bytearray(5), bytearray(5)
    overlapped_receive(desk, leaf, first)
    last = overlapped_receive(desk, leaf, second)
    desk.send(root, b"one")
    desk.send(root, b"two")
    assert desk.objects.wait(last.hEvent, BOUND)
    assert bytes(first[:3] + second[:3]) == b"onetwo"


def test_a_completion_routine_runs_at_an_alertable_wait_of_its_thread(desk: Any) -> None:
    root, leaf, _ = desk.pair(OVERLAPPED)
    memory = bytearray(9)
    seen: list[tuple[int, int, int]] = []

    def routine(error: int, count: int, _overlapped: Any, _flags: int) -> None:
        seen.append((error, count, threading.get_ident()))

    operation = overlapped_receive(desk, leaf, memory, routine)
    desk.send(root, b"four")
    while not seen:
        assert desk.objects.sleep(BOUND)
    assert seen == [(0, 4, threading.get_ident())]
    assert not desk.objects.is_set(operation.hEvent), "with a routine the event is not used"


def test_closing_aborts_overlapped_operations_and_tells(desk: Any) -> None:
    _, leaf, _ = desk.pair(OVERLAPPED)
    operation = overlapped_receive(desk, leaf, bytearray(9))
    desk.call("WSPCloseSocket", leaf)
    assert desk.objects.is_set(operation.hEvent)
    assert operation.Internal == codes.WSA_OPERATION_ABORTED


def test_cleanup_aborts_overlapped_operations_silently(desk: Any) -> None:
    _, leaf, _ = desk.pair(OVERLAPPED)
    operation = overlapped_receive(desk, leaf, bytearray(9))
    desk.call("WSPCleanup")
    assert not desk.objects.is_set(operation.hEvent)
    assert operation.Internal == codes.WSA_OPERATION_ABORTED
    desk.provider.WSPStartup(0x0202, Cell(), None, desk.upcalls, Cell())


def test_a_full_queue_blocks_and_write_is_told_once_there_is_room(desk: Any) -> None:
    root, leaf, _ = desk.pair()
    event = desk.watch(root, c.FD_WRITE)
    desk.await_event(root, event, c.FD_WRITE)
    block = bytes(1 << 20)
    for _ in range(200):
        code = Cell(0)
        desk.provider.WSPSend(root, [block], 1, Cell(), 0, None, None, None, code)
        if code.value:
            break
    assert code.value == codes.WSAEWOULDBLOCK
    assert desk.record(root) == {}
    stop = threading.Event()

    def read_all() -> None:
        while not stop.is_set():
            desk.provider.WSPRecv(
                leaf, [bytearray(1 << 20)], 1, Cell(), Cell(), None, None, None, Cell()
            )

    desk.nonblocking(leaf)
    thread = threading.Thread(target=read_all)
    thread.start()
    try:
        desk.await_event(root, event, c.FD_WRITE)
    finally:
        stop.set()
        thread.join(BOUND)


def test_select_finds_what_can_be_read_and_written(desk: Any) -> None:
    root, leaf, leg = desk.pair()
    reading, writing = [leaf, leg], [root, leaf]
    assert desk.call("WSPSelect", 0, reading, writing, None, 0.0) == 2
    assert (reading, sorted(writing)) == ([], sorted([root, leaf]))
    timer = threading.Timer(0.02, lambda: desk.send(root, b"now"))
    timer.start()
    reading = [leaf, leg]
    assert desk.call("WSPSelect", 0, reading, None, None, BOUND) == 1
    assert reading == [leaf]
    timer.join(BOUND)
    assert desk.code("WSPSelect", 0, None, None, None, 0.0) == codes.WSAEINVAL
    assert desk.code("WSPSelect", 0, [12345], None, None, 0.0) == codes.WSAENOTSOCK


# UDP over loopback


def test_a_datagram_reaches_members_and_names_its_sender(udp: Any) -> None:
    sender, hearer = udp.leaf(), udp.leaf()
    session = group()
    assert udp.join(hearer, session, flags=c.JL_RECEIVER_ONLY) == hearer
    assert udp.join(sender, session, flags=c.JL_SENDER_ONLY) == sender
    udp.send(sender, b"datagram")
    memory, count, origin, length = bytearray(20), Cell(), bytearray(16), Cell(16)
    udp.call("WSPRecvFrom", hearer, [memory], 1, count, Cell(), origin, length, None, None, None)
    assert memory[: count.value] == b"datagram"
    assert bytes(origin[2:4]) == udp.name(sender)[2:4]
    assert udp.refused(hearer, session) == codes.WSAEISCONN
    assert udp.code("WSPSend", hearer, [b"x"], 1, Cell(), 0, None, None, None) == (
        codes.WSAENOTCONN
    )


def test_a_member_that_only_receives_may_still_send_to_one_address(udp: Any) -> None:
    member, ordinary = udp.leaf(), udp.socket(0)
    udp.join(member, group(), flags=c.JL_RECEIVER_ONLY)
    udp.call("WSPBind", ordinary, Address("127.0.0.1", 0), 0)
    to = udp.name(ordinary)
    udp.call("WSPSendTo", member, [b"unicast"], 1, Cell(), 0, to, 16, None, None, None)
    assert udp.receive(ordinary) == b"unicast"
    assert udp.refused(ordinary, group()) == codes.WSAEINVAL


def test_a_datagram_that_does_not_fit_loses_its_rest(udp: Any) -> None:
    member = udp.leaf()
    udp.join(member, group())
    udp.send(member, b"0123456789")
    udp.send(member, b"next")
    small = [bytearray(4)]
    assert udp.code("WSPRecv", member, small, 1, Cell(), Cell(), None, None, None) == (
        codes.WSAEMSGSIZE
    )
    assert udp.receive(member) == b"next"


def test_read_is_told_to_a_program_that_never_asks_for_connect(udp: Any) -> None:
    member = udp.leaf()
    event = udp.watch(member, c.FD_READ)
    udp.join(member, group())
    udp.send(member, b"echo")
    assert udp.await_event(member, event, c.FD_READ) == 0
    assert udp.receive(member) == b"echo"


def test_an_overlapped_receive_of_a_datagram_completes(udp: Any) -> None:
    member = udp.leaf(OVERLAPPED)
    udp.join(member, group())
    memory = bytearray(9)
    operation = overlapped_receive(udp, member, memory)
    udp.send(member, b"async")
    assert udp.objects.wait(operation.hEvent, BOUND)
    assert memory[:5] == b"async"


def test_handles_are_descriptors_and_their_numbers_are_not_met_again_soon(udp: Any) -> None:
    first = udp.leaf()
    os.fstat(first)
    udp.call("WSPCloseSocket", first)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(first)
    assert udp.leaf() != first
    assert udp.upcalls.calls["WPUModifyIFSHandle"] == 2
    assert udp.upcalls.calls["WPUCreateSocketHandle"] == 0
