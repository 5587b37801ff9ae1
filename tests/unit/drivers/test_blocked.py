"""Sockets that take no more: who is worth a try, and what to wait on."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import pytest

from joinleaf.drivers.blocked import BlockedSockets


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """Three sockets whose buffers are full, each with its other end."""
    made = [socket.socketpair() for _ in range(3)]
    for sender, _ in made:
        sender.setblocking(False)
        with pytest.raises(BlockingIOError):
            fill(sender)
    yield made
    for pair in made:
        for sock in pair:
            sock.close()


def fill(sender: socket.socket) -> None:
    while True:
        sender.send(bytes(65536))


def empty(receiver: socket.socket) -> None:
    receiver.setblocking(False)
    try:
        while receiver.recv(1 << 20):
            pass
    except BlockingIOError:
        pass


def is_ready(fd: int, write: bool) -> bool:
    lists = ([], [fd]) if write else ([fd], [])
    return any(select.select(*lists, [], 0))


def test_all_are_worth_a_try_at_first_and_each_key_once() -> None:
    blocked = BlockedSockets([3, 1, 3])
    assert blocked.ready() == [3, 1]
    blocked.discard(3)
    assert blocked
    blocked.discard(1)
    assert not blocked


def test_one_blocked_socket_is_waited_for_by_itself(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    sender, receiver = pairs[0]
    blocked = BlockedSockets([1])
    blocked.add(1, sender.fileno())
    assert blocked.wait_on() == (sender.fileno(), True)
    assert not is_ready(*blocked.wait_on())
    empty(receiver)
    assert is_ready(*blocked.wait_on())
    assert blocked.ready() == [1]
    blocked.close()


def test_of_several_only_those_with_room_are_tried_again(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    blocked = BlockedSockets(range(3))
    for key, (sender, _) in enumerate(pairs):
        blocked.add(key, sender.fileno())
    fd, write = blocked.wait_on()
    assert not is_ready(fd, write)
    assert blocked.ready() == []
    empty(pairs[1][1])
    assert is_ready(fd, write)
    assert blocked.ready() == [1]
    blocked.discard(1)
    assert not is_ready(fd, write)
    empty(pairs[2][1])
    assert blocked.ready() == [2]
    blocked.close()


def test_who_is_gone_is_forgotten_as_no_poller_tells_of_it(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    blocked = BlockedSockets(range(3))
    for key, (sender, _) in enumerate(pairs):
        blocked.add(key, sender.fileno())
    blocked.wait_on()
    for sender, _ in pairs[:2]:
        sender.close()
    blocked.keep({2: None})
    assert blocked.ready() == []
    blocked.discard(2)
    assert not blocked
    blocked.close()
