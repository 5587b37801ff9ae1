"""Draining: runs of one sender, bounds, filters; and the descriptor that tells of leftovers."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import pytest

from joinleaf.drivers.datagrams import DatagramReader
from joinleaf.drivers.readiness import ReadySignal


@pytest.fixture
def reader_socket() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind(("127.0.0.1", 0))
        made.setblocking(False)
        yield made


@pytest.fixture
def senders(reader_socket: socket.socket) -> Iterator[list[socket.socket]]:
    made = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for index, one in enumerate(made):
        one.bind((f"127.0.0.{index + 1}", 0))
        one.connect(reader_socket.getsockname())
    yield made
    for one in made:
        one.close()


def test_runs_of_one_sender_become_batches_in_order(
    reader_socket: socket.socket, senders: list[socket.socket]
) -> None:
    for who, data in ((0, b"a"), (0, b"b"), (1, b"c"), (0, b""), (0, b"e")):
        senders[who].send(data)
    reader = DatagramReader(reader_socket, lambda _host: True)
    reader.drain()
    told = [(batch.sender.host, batch.messages, batch.sequence) for batch in reader.pending]
    assert told == [
        ("127.0.0.1", [b"a", b"b"], -1),
        ("127.0.0.2", [b"c"], -1),
        ("127.0.0.1", [b"", b"e"], -1),
    ]


def test_a_drain_is_bounded(reader_socket: socket.socket, senders: list[socket.socket]) -> None:
    for number in range(5):
        senders[0].send(bytes([number]))
    reader = DatagramReader(reader_socket, lambda _host: True)
    reader.drain(3)
    assert [len(batch.messages) for batch in reader.pending] == [3]
    reader.drain(3)
    assert [len(batch.messages) for batch in reader.pending] == [3, 2]


def test_what_is_not_wanted_is_counted_and_not_delivered(
    reader_socket: socket.socket, senders: list[socket.socket]
) -> None:
    for who in (0, 1, 1, 0):
        senders[who].send(b"x")
    reader = DatagramReader(reader_socket, lambda host: host != "127.0.0.2")
    reader.drain()
    assert [len(batch.messages) for batch in reader.pending] == [1, 1]
    assert reader.dropped == 2


def test_the_longest_datagram_arrives_whole(
    reader_socket: socket.socket, senders: list[socket.socket]
) -> None:
    longest = bytes(65507)
    senders[0].send(longest)
    reader = DatagramReader(reader_socket, lambda _host: True)
    reader.drain()
    assert reader.pending[0].messages == [longest]


@pytest.mark.skipif(not ReadySignal.available, reason="needs epoll and eventfd")
def test_the_signal_is_readable_for_the_socket_or_for_leftovers(
    reader_socket: socket.socket, senders: list[socket.socket]
) -> None:
    signal = ReadySignal(reader_socket.fileno())

    def readable() -> bool:
        return bool(select.select([signal.fileno()], [], [], 0)[0])

    assert not readable()
    signal.set(True)
    signal.set(True)
    assert readable()
    signal.set(False)
    assert not readable()
    senders[0].send(b"x")
    assert readable()
    reader_socket.recv(10)
    assert not readable()
    signal.close()
    signal.close()
    assert signal.fileno() == -1
