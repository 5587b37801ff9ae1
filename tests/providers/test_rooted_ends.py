"""jl:// over real sockets: every way a membership ends, and who is told what."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from tests.package import SRC
from tests.providers.rooted_world import (
    BOUND,
    Indications,
    World,
    in_thread,
    receive,
    target,
    until,
)

from joinleaf.drivers.reactor import shared_reactor
from joinleaf.errors import SpiError
from joinleaf.providers.rooted import RootEndpoint
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.provider import Endpoint, EndReason
from joinleaf.values import Address

LEAF = """
import sys, time
import joinleaf
with joinleaf.join(sys.argv[1], dead_after=float(sys.argv[2])) as leaf:
    print("joined", flush=True)
    for message in leaf:
        print(len(message.data), flush=True)
    print("over", flush=True)
"""


@pytest.fixture
def plain() -> Iterator[World]:
    """In the clear, for what stands in a program of its own."""
    with World() as made:
        yield made


@pytest.fixture(params=["jl", "jls"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with World(scheme=request.param) as made:
        yield made


class Peer:
    """A leaf in a process of its own."""

    def __init__(self, world: World, root: RootEndpoint, *, dead_after: float = 10.0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", LEAF, f"jl://{root.local_address}", str(dead_after)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(SRC)},
        )
        self.leg = root.accept(timeout=BOUND)
        assert self.hear() == "joined"

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate(timeout=BOUND)


def end_of(endpoint: object) -> SpiError:
    """How receiving ends, after all data."""
    with pytest.raises(SpiError) as error:
        receive_to_the_end(endpoint)
    return error.value


def receive_to_the_end(endpoint: object) -> None:
    while True:
        endpoint.receive_many(timeout=BOUND)  # type: ignore[attr-defined]


def test_a_leaf_that_leaves_is_told_of_with_reason_and_data(world: World) -> None:
    root = world.root()
    leaf, leg = world.join(root)
    news = Indications(leg)
    leaf.send_many([b"last words"])
    leaf.close(data=b"good night")
    event = news.wait(c.FD_CLOSE)
    assert (event.reason, event.code, event.data) == (EndReason.CLOSED, 0, b"good night")
    assert receive(root, 1) == [b"last words"]
    error = end_of(leg)
    assert (error.code, error.reason, error.data) == (
        codes.WSAEDISCON,
        EndReason.CLOSED,
        b"good night",
    )


def test_an_expelled_leaf_is_told_why_after_all_data_and_the_others_stay(world: World) -> None:
    root = world.root()
    (leaf, leg), (other, _) = world.join(root), world.join(root)
    root.send_many([bytes(1 << 20), b"for all"])
    leg.close(data=b"enough")
    assert receive(leaf, 2)[1] == b"for all"
    error = end_of(leaf)
    assert (error.code, error.reason, error.data) == (
        codes.WSAEDISCON,
        EndReason.EXPELLED,
        b"enough",
    )
    root.send_many([b"on we go"])
    assert receive(other, 3)[2] == b"on we go"
    with pytest.raises(SpiError) as closed:
        leg.send_many([b"x"])
    assert closed.value.code == codes.WSAENOTSOCK


def test_the_end_is_indicated_also_if_a_thread_inside_receive_finds_it(world: World) -> None:
    root = world.root()
    leaf, leg = world.join(root)
    news = Indications(leaf)
    receiving = in_thread(lambda: end_of(leaf))
    until(lambda: leaf._driver._readers.callers)
    leg.close(data=b"out")
    assert receiving().reason == EndReason.EXPELLED
    assert news.wait(c.FD_CLOSE).data == b"out"


def test_a_root_that_closes_dissolves_the_session_for_all(world: World) -> None:
    root = world.root()
    leaves = [world.join(root)[0] for _ in range(3)]
    root.send_many([b"x" * 3_000_000], timeout=1)

    def first_and_end(leaf: Endpoint) -> tuple[list[bytes], SpiError]:
        return receive(leaf, 1), end_of(leaf)

    heard = [in_thread(first_and_end, leaf) for leaf in leaves]
    root.close(data=b"the end")
    for call in heard:
        messages, error = call()
        assert len(messages[0]) == 3_000_000
        assert (error.code, error.reason, error.data) == (
            codes.WSAEDISCON,
            EndReason.DISSOLVED,
            b"the end",
        )
    with pytest.raises(SpiError):
        world.leaf().join_leaf(target(root), timeout=1)


def test_shutting_down_both_ways_dissolves_and_leaves_the_endpoint_open(world: World) -> None:
    root = world.root()
    leaf, _ = world.join(root)
    root.shutdown(c.SD_BOTH, data=b"bye")
    assert end_of(leaf).data == b"bye"
    for call in (lambda: root.send_many([b"x"]), lambda: root.receive_many(timeout=0)):
        with pytest.raises(SpiError) as error:
            call()
        assert error.value.code == codes.WSAESHUTDOWN


def test_an_abortive_close_looks_like_a_reset_to_the_others(world: World) -> None:
    root = world.root()
    leaf, leg = world.join(root)
    news = Indications(leg)
    leaf.close(abort=True)
    event = news.wait(c.FD_CLOSE)
    assert (event.reason, event.code) == (EndReason.LOST, codes.WSAECONNRESET)
    other, _ = world.join(root)
    root.close(abort=True)
    assert end_of(other).code == codes.WSAECONNRESET


def test_closing_wakes_a_receive_and_a_send_in_other_threads(world: World) -> None:
    root = world.root()
    leaf, _ = world.join(root)
    receiving = in_thread(leaf.receive_many)
    sending = in_thread(lambda: leaf.send_many([bytes(1 << 20)] * 32))
    accepting = in_thread(root.accept)
    until(lambda: leaf._driver._readers.callers and leaf.statistics()["bytes_queued"])
    leaf.close(linger=0)
    for call in (receiving, sending):
        with pytest.raises(SpiError) as error:
            call()
        assert error.value.code in (codes.WSAEINTR, codes.WSAENOTSOCK)
    root.close(linger=0)
    with pytest.raises(SpiError) as error:
        accepting()
    assert error.value.code in (codes.WSAEINTR, codes.WSAENOTSOCK)


def test_closing_twice_is_allowed_and_gives_everything_back(world: World) -> None:
    root = world.root()
    leaf, _ = world.join(root)
    for _ in range(2):
        leaf.close()
        root.close()
    assert leaf.fileno() == root.fileno() == -1
    assert leaf._driver.closed
    assert root._driver.closed


def test_a_close_that_no_peer_answers_ends_after_its_linger(plain: World) -> None:
    """The clocks of a close run at once, and not when some other clock happens to."""
    root = plain.root(linger=0.2)
    with Peer(plain, root) as peer:
        peer.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        root.close(linger=BOUND)
        assert root._driver.closed
        assert time.monotonic() - began < 2.0  # the next other clock is due after 2.5 s


def test_words_sent_right_before_a_death_are_delivered(world: World) -> None:
    """A send that fails must not throw away what the peer had said."""
    root = world.root()
    leaf, leg = world.join(root)
    news = Indications(leg)
    # Nobody reads for the root: its driver is as busy as one can be.
    with root._driver.lock:
        leaf.send_many([b"last words"])
        leaf.close(abort=True)
        root.send_many([bytes(100_000)], timeout=0)
        root.send_many([bytes(100_000)], timeout=0)
    assert receive(root, 1) == [b"last words"]
    assert news.wait(c.FD_CLOSE).code == codes.WSAECONNRESET


# Deaths


def test_a_killed_leaf_is_seen_at_once(plain: World) -> None:
    root = plain.root()
    with Peer(plain, root) as peer:
        news = Indications(peer.leg)
        peer.process.kill()
        event = news.wait(c.FD_CLOSE)
        assert (event.reason, event.code) == (EndReason.LOST, codes.WSAECONNRESET)
    assert root.statistics()["legs"] == 0


def test_a_stopped_leaf_is_dead_after_the_bound_and_not_before(plain: World) -> None:
    root = plain.root(dead_after=0.6)
    with Peer(plain, root, dead_after=0.6) as peer:
        news = Indications(peer.leg)
        peer.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        event = news.wait(c.FD_CLOSE)
        took = time.monotonic() - began
        assert (event.reason, event.code) == (EndReason.TIMED_OUT, codes.WSAECONNABORTED)
        assert took > 0.6 - 0.6 / 4 - 0.1


def test_a_leaf_stopped_for_less_than_the_bound_survives(plain: World) -> None:
    root = plain.root(dead_after=3.0)
    with Peer(plain, root, dead_after=3.0) as peer:
        peer.process.send_signal(signal.SIGSTOP)
        root.send_many([b"x" * 1000])
        time.sleep(1.2)  # the time it is stopped is what is tested
        peer.process.send_signal(signal.SIGCONT)
        assert peer.hear() == "1000"
        root.send_many([b"x" * 7])
        assert peer.hear() == "7"
        assert root.statistics()["legs"] == 1


def test_a_stopped_root_is_dead_for_its_leaf_after_the_bound(plain: World) -> None:
    program = LEAF.replace("joinleaf.join(", "joinleaf.open_root(").replace(
        'print("joined"', "print(leaf.address"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "jl://127.0.0.1:0", "0.6"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SRC)},
    )
    try:
        assert process.stdout is not None
        where = process.stdout.readline().decode().strip().removeprefix("jl://")
        leaf = plain.leaf(dead_after=0.6)
        leaf.join_leaf(Address.parse(where), timeout=BOUND)
        process.send_signal(signal.SIGSTOP)
        error = end_of(leaf)
        assert (error.code, error.reason) == (codes.WSAECONNABORTED, EndReason.TIMED_OUT)
    finally:
        process.kill()
        process.communicate(timeout=BOUND)


def test_an_idle_session_outlives_many_bounds(world: World) -> None:
    root = world.root(dead_after=0.2)
    leaf, _ = world.join(root, world.leaf(dead_after=0.2))
    receiving = in_thread(leaf.receive_many)
    time.sleep(1.0)  # five bounds of silence is what is tested
    root.send_many([b"still there"])
    assert receiving().messages == [b"still there"]


def test_a_program_with_the_default_sigpipe_survives_a_leaf_that_left(world: World) -> None:
    program = """
import signal, sys, joinleaf
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
with joinleaf.open_root("jl://127.0.0.1:0") as root:
    leaf = joinleaf.join(root.address)
    root.wait_for_leaves(1, timeout=10)
    with root._endpoint._driver.lock:
        leaf.close(abort=True)
        for _ in range(3):
            root.send(b"x" * 100000, timeout=0)
print("alive")
"""
    assert run(program).strip() == "alive"


def run(program: str, *, bound: float = 30.0, limit: int | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=bound,
        env={**os.environ, "PYTHONPATH": str(SRC)},
        preexec_fn=None
        if limit is None
        else lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


# Descriptors, threads, processor time


def test_three_hundred_sessions_leave_no_descriptor_and_no_thread_behind() -> None:
    def session() -> None:
        with World() as world:
            root = world.root()
            leaf, _ = world.join(root)
            leaf.fileno()
            root.fileno()
            root.send_many([b"x"])
            receive(leaf, 1)
            leaf.close()
            root.close()

    def open_now() -> int:
        return len(os.listdir("/proc/self/fd"))

    session()
    threads, descriptors = threading.active_count(), open_now()
    for _ in range(300):
        session()
    assert threading.active_count() == threads
    assert until(lambda: open_now() <= descriptors)


def test_a_session_at_rest_costs_no_processor_time(world: World) -> None:
    root = world.root()
    leaf, _ = world.join(root)
    receiving = in_thread(leaf.receive_many)
    until(lambda: leaf._driver._readers.callers)
    reactor, calls = shared_reactor(), []
    original = reactor._call

    def counted(callback: Callable[[], None]) -> None:
        if getattr(callback, "__self__", None) in (root._driver, leaf._driver):
            calls.append(callback)
        original(callback)

    reactor._call = counted  # type: ignore[method-assign]  # the seam of this measurement
    try:
        time.sleep(1.0)  # rest is what is tested
    finally:
        del reactor._call
    assert len(calls) <= 6  # a sign of life each, what it sets off, and no more
    root.send_many([b"x"])
    receiving()


def test_a_root_without_descriptors_left_says_so_and_recovers() -> None:
    program = """
import logging, os, socket, time
import joinleaf
records = []
class Keep(logging.Handler):
    def emit(self, record): records.append(record.getMessage())
logging.getLogger("joinleaf").addHandler(Keep())
with joinleaf.open_root("jl://127.0.0.1:0", dead_after=60) as root:
    leaf = joinleaf.join(root.address)
    root.wait_for_leaves(1, timeout=10)
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        os.close(taken.pop())
    late = socket.create_connection(("127.0.0.1", root.local_address.port))
    deadline = time.monotonic() + 10
    while not root.stats().get("accepts_failed") and time.monotonic() < deadline:
        time.sleep(0.01)
    root.send(b"unhurt")
    assert leaf.receive(timeout=10).data == b"unhurt"
    time.sleep(0.5)
    assert len(records) == 1, records
    for fd in taken:
        os.close(fd)
    with joinleaf.join(root.address, timeout=10):
        pass
    late.close()
    leaf.close()
print(records[0])
"""
    assert "ulimit -n" in run(program, limit=64)


def test_a_join_without_descriptors_left_is_an_error_that_says_so() -> None:
    program = """
import errno, os
import joinleaf
import joinleaf.providers.rooted, encodings.idna, joinleaf.spi.catalogue
with joinleaf.open_root("jl://127.0.0.1:0") as root:
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        pass
    for free in range(2):
        try:
            joinleaf.join(root.address, timeout=5).close()
        except joinleaf.JoinleafError as error:
            assert error.errno == errno.EMFILE, repr(error)
            print("refused")
        os.close(taken.pop())
"""
    assert "refused" in run(program, limit=64)


def test_strangers_connections_do_not_outlive_the_time_for_a_handshake(world: World) -> None:
    root = world.root(join_timeout=0.2)
    with socket.create_connection(("127.0.0.1", root.local_address.port)) as stranger:
        stranger.settimeout(BOUND)
        assert stranger.recv(1) == b""
    assert root.statistics()["handshakes_failed"] == 1
