"""Asking a root who is there, over the wire."""

from __future__ import annotations

import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

import joinleaf
from joinleaf.errors import SpiError
from joinleaf.providers.rooted import query_roster
from joinleaf.spi.codes import WSAEACCES, WSAECONNABORTED, WSAECONNREFUSED, WSAETIMEDOUT
from joinleaf.values import Address

MANY = 700  # with names as long as may be: about 200 kB, more than a control frame holds


def answer_once(listener: socket.socket, answer: bytes | None) -> None:
    """Take one connection and its question; answer, or (None) say nothing until it is closed."""
    connection, _ = listener.accept()
    with connection:
        connection.recv(1024)
        if answer is None:
            connection.recv(1024)
        else:
            connection.sendall(answer)


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Room for two sockets and a bit per leaf."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < 5 * MANY:
        pytest.skip(f"only {before[1]} descriptors may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 5 * MANY), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("many_descriptors")
def test_a_roster_too_long_for_a_frame_is_cut_and_the_session_lives_on() -> None:
    with ExitStack() as stack:
        root = stack.enter_context(joinleaf.open_root("jl://127.0.0.1:0"))
        for _ in range(MANY):
            leaf = joinleaf.join(root.address, name="x" * 255, timeout=40)
            stack.callback(leaf.close, abort=True)
        root.wait_for_leaves(MANY, timeout=40)
        roster = query_roster(root.local_address, 40)
        assert 0 < len(roster.members) < MANY
        root.send(b"still here", timeout=40)
        assert leaf.receive(timeout=40).data == b"still here"


@pytest.mark.parametrize(
    ("answer", "code", "timeout"),
    [
        (b"", WSAEACCES, 40.0),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", WSAECONNABORTED, 40.0),
        (None, WSAETIMEDOUT, 0.1),
    ],
)
def test_what_is_no_root_is_told_from_one_that_does_not_answer(
    answer: bytes | None, code: int, timeout: float
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        peer = threading.Thread(target=answer_once, args=(listener, answer))
        peer.start()
        with pytest.raises(SpiError) as caught:
            query_roster(Address(host, port), timeout)
        peer.join(timeout=40)
    assert caught.value.code == code


def test_nobody_there_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        with pytest.raises(SpiError) as caught:
            query_roster(Address("127.0.0.1", taken.getsockname()[1]))
    assert caught.value.code == WSAECONNREFUSED
