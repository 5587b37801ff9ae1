"""jl://: bounds before belief. What a stranger may hold, how long and how often; how many may stay.

Each test is an attacker at the root's port, beside a member who is to notice nothing.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from tests.providers.rooted_world import BOUND, World, in_thread, receive, until

from joinleaf.core import doorstep
from joinleaf.core.wire.control import Request, encode
from joinleaf.core.wire.frames import HEADER, MAGIC, Kind, control_frame
from joinleaf.errors import SpiError
from joinleaf.providers.rooted import RootEndpoint
from joinleaf.spi.codes import WSAECONNREFUSED
from joinleaf.spi.provider import Endpoint, JoinRole

BEAT = control_frame(Kind.BEAT)


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


def alive(root: Endpoint, leaf: Endpoint) -> None:
    """A running leg still carries data both ways."""
    root.send_many([b"down"], timeout=BOUND)
    leaf.send_many([b"up"], timeout=BOUND)
    assert receive(leaf, 1) == [b"down"]
    assert receive(root, 1) == [b"up"]


def connect(root: RootEndpoint, source: str = "127.0.0.1") -> socket.socket:
    where = ("127.0.0.1", root.local_address.port)
    return socket.create_connection(where, timeout=BOUND, source_address=(source, 0))


def request(data: bytes = b"") -> bytes:
    """A JOIN that any root takes."""
    asked = Request((1, 1), bytes(16), JoinRole.BOTH, 60_000, 1 << 30, data=data)
    return control_frame(Kind.JOIN, encode(asked))


def ended_within(sock: socket.socket, seconds: float) -> bytes:
    """What comes until the other side ends the connection, which it does in that time."""
    heard, deadline = b"", time.monotonic() + seconds
    sock.settimeout(seconds)
    with contextlib.suppress(ConnectionError):
        while piece := sock.recv(65536):
            heard += piece
            assert time.monotonic() < deadline
    return heard


@pytest.mark.parametrize("drip", ["byte by byte", "signs of life", "a long one"])
def test_a_join_that_drips_in_is_cut_off_in_time(world: World, drip: str) -> None:
    root = world.root(join_timeout=0.5)
    leaf, _ = world.join(root)
    pieces = {
        "byte by byte": [bytes([byte]) for byte in request()],
        "signs of life": [BEAT] * 100,
        "a long one": [request(bytes(60_000))[:-1][i : i + 600] for i in range(0, 60_000, 600)],
    }[drip]
    began = time.monotonic()
    over = threading.Event()
    with connect(root) as sock:

        def drop() -> None:
            with contextlib.suppress(OSError):
                for piece in pieces:
                    sock.send(piece)
                    if over.wait(0.02):
                        return

        dripping = in_thread(drop)
        assert ended_within(sock, BOUND) == b""
        took = time.monotonic() - began
        over.set()
        dripping()
    assert took >= 0.45
    assert root.statistics()["handshakes_failed"] == 1
    assert root.statistics()["connections"] == 1
    alive(root, leaf)


def test_unfinished_requests_of_many_hosts_take_no_more_than_their_budget(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    root = world.root(join_timeout=60.0)
    leaf, _ = world.join(root)
    half = HEADER.pack(190 << 10, Kind.JOIN, 0, MAGIC) + bytes(189 << 10)
    budget, count = doorstep.PARTIAL_BYTES, 120
    assert count * len(half) > 2 * budget
    with contextlib.ExitStack() as stack, caplog.at_level(logging.WARNING):
        for number in range(count):
            sock = stack.enter_context(connect(root, f"127.0.0.{2 + number % 6}"))
            with contextlib.suppress(ConnectionError):
                sock.sendall(half)
            assert held(root) <= budget
        until(lambda: held(root) > budget - 2 * len(half))
        until(lambda: root.statistics().get("half_open_evicted", 0) >= count - 45)
        alive(root, leaf)
        late = world.leaf()
        joining = in_thread(late.join_leaf, root.local_address)
        root.accept(timeout=BOUND)
        joining()
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1  # however many there were
    assert "127.0.0." in warnings[0]
    assert "frames it does not finish" in warnings[0]


def held(root: RootEndpoint) -> int:
    """Bytes of unfinished frames that the root holds for strangers, measured and as it counts."""
    with root._driver.lock:
        session = root._session
        measured = sum(
            leg.association.reader.pending
            for leg in session.legs.values()
            if not leg.association.active
        )
        assert session.doorstep.bytes_partial >= measured
        return measured


def test_requests_that_wait_take_no_more_than_their_budget(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorstep, "PENDING_BYTES", 1 << 20)
    root = world.root()
    leaf, _ = world.join(root)
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(root)) for _ in range(40)]
        for sock in socks:
            sock.sendall(request(bytes(60_000)))
        until(
            lambda: (
                root.statistics().get("backlog_full", 0) + root.statistics()["requests_waiting"]
                == 40
            )
        )
        assert root.statistics()["requests_waiting"] == (1 << 20) // (60_000 + 1024)
        assert root._session.doorstep.bytes_waiting <= 1 << 20
        alive(root, leaf)
        assert b"too many requests" in ended_within(socks[-1], BOUND)
    until(lambda: root.statistics()["requests_waiting"] == 0)  # they are gone: there is room again
    world.join(root)


def test_one_host_cannot_fill_the_backlog(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorstep, "is_this_host", lambda source: source == "127.0.0.1")
    root = world.root(backlog=200)
    with contextlib.ExitStack() as stack:
        for _ in range(130):
            stack.enter_context(connect(root, "127.0.0.9")).sendall(request())
        until(lambda: root.statistics().get("backlog_full", 0) == 30)
        assert root.statistics()["requests_waiting"] == 100
        stack.enter_context(connect(root, "127.0.0.8")).sendall(request())
        until(lambda: root.statistics()["requests_waiting"] == 101)


def test_who_connects_too_often_is_told_so_then_ignored_and_members_and_others_notice_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = world.root()
    leaf, _ = world.join(root)
    monkeypatch.setattr(doorstep, "JOIN_BURST", 30)
    monkeypatch.setattr(doorstep, "JOINS_PER_S", 1)
    monkeypatch.setattr(doorstep, "is_this_host", lambda source: source == "127.0.0.1")
    put_off, ignored = 0, 0
    with caplog.at_level(logging.WARNING):
        for number in range(120):
            with connect(root, "127.0.0.9") as sock, contextlib.suppress(ConnectionError):
                sock.sendall(request() if number >= 30 else b"")
                if number < 30:
                    continue
                heard = ended_within(sock, BOUND)
                put_off += b"try again" in heard
                ignored += heard == b""
        until(lambda: root.statistics()["connections"] == 1)
    assert put_off >= 30
    assert root.statistics()["joins_put_off"] == put_off
    assert root.statistics()["connections_ignored"] >= 55
    warnings = [record.getMessage() for record in caplog.records]
    assert warnings == ["127.0.0.9 connects too often, and is put off"]
    alive(root, leaf)
    world.join(root)  # from 127.0.0.1


def test_a_full_session_says_so_and_its_members_go_on(world: World) -> None:
    root = world.root(max_leaves=2)
    (first, _), (second, _) = world.join(root), world.join(root)
    third = world.leaf()
    with pytest.raises(SpiError, match="the session is full: it takes 2 leaves") as caught:
        third.join_leaf(root.local_address, timeout=BOUND)
    assert caught.value.code == WSAECONNREFUSED
    with pytest.raises(SpiError, match="full"):
        root.join_leaf(world.listener().local_address, timeout=BOUND)
    assert root.statistics()["joins_refused_full"] == 1
    assert root.statistics()["legs"] == 2
    alive(root, first)
    assert receive(second, 1) == [b"down"]
    first.close()
    until(lambda: root.statistics()["legs"] == 1)
    world.join(root)
