"""The background thread: timers in order, no lost wake-up, defects contained."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from joinleaf.drivers import reactor as module
from joinleaf.drivers.poller import READ, WRITE, Poller, _EpollPoller, _SelectorPoller
from joinleaf.drivers.reactor import Reactor, shared_reactor

BOUND = 10.0


@pytest.fixture(scope="module")
def reactor() -> Reactor:
    return shared_reactor()


@pytest.fixture(params=[_EpollPoller, _SelectorPoller])
def poller(request: pytest.FixtureRequest) -> Iterator[Poller]:
    made: Poller = request.param()
    yield made
    made.close()


def test_calls_are_made_in_the_order_in_which_they_are_due(reactor: Reactor) -> None:
    made: list[str] = []
    done = threading.Event()
    reactor.call_later(0.06, done.set)
    reactor.call_later(0.04, lambda: made.append("late"))
    reactor.call_later(0.02, lambda: made.append("early"))
    reactor.call_later(0.03, lambda: made.append("never")).cancel()
    reactor.call_later(0.0, lambda: made.append("at once"))
    assert done.wait(BOUND)
    assert made == ["at once", "early", "late"]


def test_a_call_wakes_a_reactor_that_sleeps_longer(reactor: Reactor) -> None:
    far = reactor.call_later(3600, lambda: None)
    for _ in range(50):
        done = threading.Event()
        threading.Thread(target=reactor.call_later, args=(0.0, done.set)).start()
        assert done.wait(BOUND)
    far.cancel()


def test_a_callback_that_fails_is_logged_and_stops_nobody(
    reactor: Reactor, caplog: pytest.LogCaptureFixture
) -> None:
    done = threading.Event()

    def defect() -> None:
        raise ZeroDivisionError

    with caplog.at_level(logging.ERROR, "joinleaf"):
        reactor.call_later(0.0, defect)
        reactor.call_later(0.01, done.set)
        assert done.wait(BOUND)
    assert "ZeroDivisionError" in caplog.text


def test_a_descriptor_is_watched_until_it_is_not(reactor: Reactor) -> None:
    ours, theirs = socket.socketpair()
    heard = threading.Semaphore(0)
    ours.setblocking(False)

    def take() -> None:
        ours.recv(100)
        heard.release()

    with ours, theirs:
        reactor.watch(ours.fileno(), take)
        for _ in range(3):
            theirs.send(b"x")
            assert heard.acquire(timeout=BOUND)
        reactor.unwatch(ours.fileno())
        theirs.send(b"x")
        assert not heard.acquire(timeout=0.05)
        assert ours.recv(100) == b"x"


def test_it_knows_its_own_thread(reactor: Reactor) -> None:
    inside: list[bool] = []
    done = threading.Event()
    reactor.call_later(0.0, lambda: inside.append(reactor.is_current_thread))
    reactor.call_later(0.01, done.set)
    assert done.wait(BOUND)
    assert inside == [True]
    assert not reactor.is_current_thread


def test_there_is_one_for_the_process() -> None:
    found: list[Reactor] = []
    threads = [threading.Thread(target=lambda: found.append(shared_reactor())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND)
    assert set(map(id, found)) == {id(module.shared_reactor())}


def test_both_pollers_tell_of_reading_writing_and_ends(poller: Poller) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        fd = ours.fileno()
        poller.watch(fd, READ)
        assert poller.poll(0) == []
        poller.watch(fd, READ | WRITE)
        assert poller.poll(0) == [(fd, WRITE)]
        theirs.send(b"x")
        assert poller.poll(0) == [(fd, READ | WRITE)]
        poller.watch(fd, 0)
        assert poller.poll(0) == []
        poller.forget(fd)
        poller.watch(fd, READ)
        assert poller.poll(1.0) == [(fd, READ)]
        ours.recv(1)
        theirs.close()
        assert [(number, what & READ) for number, what in poller.poll(1.0)] == [(fd, READ)]
        poller.forget(fd)
        poller.forget(fd)


def test_a_poller_forgets_a_descriptor_whose_number_is_given_out_again(poller: Poller) -> None:
    first, other = socket.socketpair()
    number = first.fileno()
    poller.watch(number, READ)
    poller.forget(number)
    first.close()
    other.close()
    again, peer = socket.socketpair()
    with again, peer:
        poller.watch(again.fileno(), READ)
        peer.send(b"x")
        assert poller.poll(1.0) == [(again.fileno(), READ)]


def test_a_poll_without_anything_lasts_as_long_as_asked(poller: Poller) -> None:
    began = time.monotonic()
    assert poller.poll(0.02) == []
    assert time.monotonic() - began >= 0.019
