"""The waiting primitive: ready, interrupted, closed, out of time; in any number of threads."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from joinleaf.drivers import waiting
from joinleaf.drivers.waiting import Waiter
from joinleaf.errors import SpiError
from joinleaf.spi.codes import WSAEINTR

BOUND = 10.0  # seconds; no test comes near it unless it fails


@pytest.fixture(params=["poll", "selector"])
def waiter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Waiter]:
    if request.param == "selector":
        monkeypatch.setattr(waiting, "_new_slot", waiting._SelectorSlot)
    made = Waiter()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


class Blocked:
    """A thread inside a wait, and what became of it."""

    def __init__(self, waiter: Waiter, wait: Callable[[], bool]) -> None:
        self.outcome: bool | SpiError | None = None
        self._thread = threading.Thread(target=self._run, args=(wait,), daemon=True)
        before = len(waiter._busy)
        self._thread.start()
        deadline = time.monotonic() + BOUND
        while len(waiter._busy) == before and time.monotonic() < deadline:
            time.sleep(0.001)

    def _run(self, wait: Callable[[], bool]) -> None:
        try:
            self.outcome = wait()
        except SpiError as error:
            self.outcome = error

    def finish(self) -> bool | SpiError | None:
        self._thread.join(BOUND)
        assert not self._thread.is_alive()
        return self.outcome


def test_a_ready_socket_ends_the_wait_at_once(
    waiter: Waiter, pair: tuple[socket.socket, socket.socket]
) -> None:
    pair[1].send(b"x")
    assert waiter.wait_readable(pair[0].fileno(), None)
    assert waiter.wait_writable(pair[0].fileno(), None)


def test_data_that_come_later_end_the_wait(
    waiter: Waiter, pair: tuple[socket.socket, socket.socket]
) -> None:
    blocked = Blocked(waiter, lambda: waiter.wait_readable(pair[0].fileno(), BOUND))
    pair[1].send(b"x")
    assert blocked.finish() is True


def test_the_end_of_the_stream_counts_as_readable(
    waiter: Waiter, pair: tuple[socket.socket, socket.socket]
) -> None:
    blocked = Blocked(waiter, lambda: waiter.wait_readable(pair[0].fileno(), BOUND))
    pair[1].shutdown(socket.SHUT_WR)
    assert blocked.finish() is True


@pytest.mark.parametrize("timeout", [-1.0, 0.0, 0.02])
def test_a_wait_without_success_takes_its_time_and_says_no(
    waiter: Waiter, pair: tuple[socket.socket, socket.socket], timeout: float
) -> None:
    began = time.monotonic()
    assert not waiter.wait_readable(pair[0].fileno(), timeout)
    assert time.monotonic() - began >= timeout


def test_a_wait_of_years_is_accepted(
    waiter: Waiter, pair: tuple[socket.socket, socket.socket]
) -> None:
    pair[1].send(b"x")
    assert waiter.wait_readable(pair[0].fileno(), 1e12)


def test_a_socket_without_room_is_waited_for(
    waiter: Waiter, pair: tuple[socket.socket, socket.socket]
) -> None:
    pair[0].setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            pair[0].send(b"x" * 65536)
    assert not waiter.wait_writable(pair[0].fileno(), 0)
    blocked = Blocked(waiter, lambda: waiter.wait_writable(pair[0].fileno(), BOUND))
    pair[1].setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while pair[1].recv(1 << 20):
            pass
    assert blocked.finish() is True


def test_interrupt_ends_every_wait_of_the_moment_and_none_after(
    waiter: Waiter, pair: tuple[socket.socket, socket.socket]
) -> None:
    fd = pair[0].fileno()
    threads = [Blocked(waiter, lambda: waiter.wait_readable(fd, BOUND)) for _ in range(3)]
    assert waiter.interrupt() == 3
    for blocked in threads:
        outcome = blocked.finish()
        assert isinstance(outcome, SpiError)
        assert outcome.code == WSAEINTR
    assert not waiter.wait_readable(fd, 0)
    assert not waiter.wait_readable(fd, 0.01)


def test_interrupt_with_nobody_waiting_is_forgotten(
    waiter: Waiter, pair: tuple[socket.socket, socket.socket]
) -> None:
    assert waiter.interrupt() == 0
    assert not waiter.wait_readable(pair[0].fileno(), 0.01)


def test_an_interrupt_between_two_waits_of_one_call_ends_the_call(
    waiter: Waiter, pair: tuple[socket.socket, socket.socket]
) -> None:
    mark = waiter.mark()
    assert not waiter.wait_readable(pair[0].fileno(), 0, mark=mark)
    waiter.interrupt()
    with pytest.raises(SpiError) as caught:
        waiter.wait_readable(pair[0].fileno(), BOUND, mark=mark)
    assert caught.value.code == WSAEINTR


def test_close_ends_waits_now_and_later(
    waiter: Waiter, pair: tuple[socket.socket, socket.socket]
) -> None:
    blocked = Blocked(waiter, lambda: waiter.wait_readable(pair[0].fileno(), BOUND))
    waiter.close()
    waiter.close()
    assert isinstance(blocked.finish(), SpiError)
    assert waiter.closed
    with pytest.raises(SpiError) as caught:
        waiter.wait_readable(pair[0].fileno(), 0)
    assert caught.value.code == WSAEINTR


def test_a_closed_socket_is_an_interruption(waiter: Waiter) -> None:
    gone = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    fd = gone.fileno()
    gone.close()
    for number in (fd, gone.fileno()):
        with pytest.raises(SpiError) as caught:
            waiter.wait_readable(number, BOUND)
        assert caught.value.code == WSAEINTR


def test_no_descriptor_is_left_behind(pair: tuple[socket.socket, socket.socket]) -> None:
    before = sorted(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else []
    waiter = Waiter()
    for _ in range(5):
        waiter.wait_readable(pair[0].fileno(), 0)
        waiter.wait_writable(pair[1].fileno(), 0)
    blocked = Blocked(waiter, lambda: waiter.wait_readable(pair[0].fileno(), BOUND))
    waiter.close()
    blocked.finish()
    after = sorted(os.listdir("/proc/self/fd")) if before else []
    assert len(after) == len(before)
