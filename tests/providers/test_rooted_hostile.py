"""jl:// under attack: what strangers send to the root's port costs them more than the session."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from tests.providers.rooted_world import BOUND, World, in_thread, receive, until

from joinleaf.core.wire.frames import HEADER, MAGIC, Kind
from joinleaf.errors import SpiError
from joinleaf.providers.rooted import RootEndpoint
from joinleaf.spi.provider import Endpoint
from joinleaf.values import Address

FLOOD = """
import errno, selectors, socket, sys
host, port, wanted = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
header = bytes.fromhex(sys.argv[4])
held, opened = [], 0
while opened < wanted:
    sock = socket.socket()
    sock.bind((f"127.0.0.{2 + opened % 40}", 0))  # from many hosts, as a real flood is
    try:
        sock.connect((host, port))
        if header:
            sock.send(header)
    except OSError as error:
        sock.close()
        if error.errno not in (errno.EMFILE, errno.ECONNRESET, errno.EPIPE):
            raise
    else:
        held.append(sock)
        opened += 1
    while len(held) > 3000:
        held.pop(0).close()
print(opened, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


def attack(root: RootEndpoint, data: bytes, *, then_read: bool = True) -> bytes:
    """Send bytes as a stranger, and what the root answered until it ended the connection."""
    heard = b""
    where = ("127.0.0.1", root.local_address.port)
    sock = socket.create_connection(where, timeout=BOUND)
    with sock, contextlib.suppress(ConnectionError):
        sock.sendall(data)
        while then_read and (piece := sock.recv(65536)):
            heard += piece
    return heard


def resident() -> int:
    """Bytes of memory this process holds now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def alive(root: Endpoint, leaf: Endpoint) -> None:
    """A running leg still carries data both ways."""
    root.send_many([b"down"], timeout=BOUND)
    leaf.send_many([b"up"], timeout=BOUND)
    assert receive(leaf, 1) == [b"down"]
    assert receive(root, 1) == [b"up"]


def test_random_bytes_end_their_connection_and_nothing_else(world: World) -> None:
    root = world.root()
    leaf, _ = world.join(root)
    dice = random.Random(7)
    for number in range(60):
        attack(root, dice.randbytes(dice.choice((8, 9, 20, 100, 5000))))
        if number % 20 == 0:
            alive(root, leaf)
    alive(root, leaf)
    until(lambda: root.statistics()["connections"] == 1)
    assert root.statistics()["handshakes_failed"] == 60


@pytest.mark.parametrize("kind", sorted(Kind))
def test_a_frame_out_of_place_ends_its_connection(world: World, kind: Kind) -> None:
    root = world.root(join_timeout=0.3)  # a sign of life says nothing, and is not waited for
    leaf, _ = world.join(root)
    body = b"\x93\x01\x02\x03" * 5
    answer = attack(root, HEADER.pack(len(body), kind, 0, MAGIC) + body)
    if kind is not Kind.WHO:
        assert answer == b""
    alive(root, leaf)
    until(lambda: root.statistics()["connections"] == 1)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 1 << 30, (192 << 10) + 1])
def test_an_oversized_length_is_refused_by_its_header_alone(world: World, size: int) -> None:
    root = world.root()
    before = resident()
    assert attack(root, struct.pack(">IBBH", size, Kind.JOIN, 0, MAGIC)) == b""
    assert attack(root, struct.pack(">IBBH", size, Kind.DATA, 0, MAGIC)) == b""
    assert resident() - before < 8 << 20
    assert root.statistics()["handshakes_failed"] == 2


def test_a_declared_length_costs_no_memory_until_bytes_come(world: World) -> None:
    root = world.root()
    header = struct.pack(">IBBH", 192 << 10, Kind.JOIN, 0, MAGIC)
    where = ("127.0.0.1", root.local_address.port)
    before = resident()
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            sock = stack.enter_context(socket.create_connection(where, timeout=BOUND))
            sock.sendall(header + b"x")
        until(lambda: root.statistics()["connections"] == 200)
        until(lambda: all(leg.association.reader.pending for leg in root._session.legs.values()))
        assert resident() - before < 200 * (192 << 10)


def test_a_request_cut_off_anywhere_is_no_request(world: World) -> None:
    root = world.root()
    leaf = world.leaf()
    sniffer = socket.create_server(("127.0.0.1", 0))
    with sniffer:
        joining = in_thread(
            lambda: leaf.join_leaf(Address("127.0.0.1", sniffer.getsockname()[1]), timeout=BOUND)
        )
        taken, _ = sniffer.accept()
        with taken:
            taken.settimeout(BOUND)
            request = taken.recv(65536)
    with pytest.raises(SpiError):
        joining()
    for end in range(len(request)):
        with socket.create_connection(("127.0.0.1", root.local_address.port)) as sock:
            sock.sendall(request[:end])
    until(lambda: root.statistics().get("handshakes_failed", 0) == len(request))
    assert root.statistics()["requests_waiting"] == 0
    # Whole but for one byte, or with a byte changed: never more than a refusal or a valid request.
    dice = random.Random(11)
    for _ in range(100):
        broken = bytearray(request)
        broken[dice.randrange(len(broken))] ^= 1 << dice.randrange(8)
        attack(root, bytes(broken), then_read=False)
    until(lambda: root.statistics()["connections"] == 0)


def test_a_member_that_turns_hostile_loses_its_own_leg_only(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    root = world.root()
    (bad, _), (good, _) = world.join(root), world.join(root)
    (connection,) = bad._driver._connections.values()
    connection.sock.send(b"\0" * 64)
    until(lambda: root.statistics()["legs"] == 1)
    assert root.statistics()["protocol_errors"] == 1
    assert f"{bad.local_address} broke the protocol: not a frame of this protocol" in caplog.text
    alive(root, good)


def test_who_meets_a_root_that_breaks_the_protocol_is_told_how(world: World) -> None:
    root = world.root()
    leaf, _ = world.join(root)
    (connection,) = root._driver._connections.values()
    connection.sock.send(b"\0" * 64)
    with pytest.raises(SpiError, match="over: protocol error: not a frame of this protocol"):
        leaf.receive_many(timeout=BOUND)


def test_ten_thousand_half_open_connections_cost_bounded_memory_and_no_leg(world: World) -> None:
    root = world.root(join_timeout=60.0)
    leaf, _ = world.join(root)
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    before = resident()
    valid = HEADER.pack(100, Kind.JOIN, 0, MAGIC).hex()
    flood = subprocess.Popen(
        [sys.executable, "-c", FLOOD, "127.0.0.1", str(root.local_address.port), "10000", valid],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (4000, 4000)),
    )
    try:
        rounds, began = 0, time.monotonic()
        assert flood.stdout is not None
        os.set_blocking(flood.stdout.fileno(), False)
        while not (said := flood.stdout.read()):
            alive(root, leaf)  # during the flood, not after it
            rounds += 1
            assert time.monotonic() - began < 60
        assert said.strip() == b"10000"
        alive(root, leaf)
        statistics = root.statistics()
        grown = resident() - before
        sys.stdout.write(f"{rounds} exchanges meanwhile; memory +{grown >> 10} KiB\n")
        assert rounds > 3
        assert statistics["connections_opened"] > 5000
        assert statistics["connections"] <= 1024 + 64 + 1
        assert statistics["half_open_evicted"] > 3000
        assert grown < 64 << 20
        late = world.leaf()
        joining = in_thread(late.join_leaf, root.local_address)
        root.accept(timeout=BOUND)
        joining()
    finally:
        flood.kill()
        flood.communicate(timeout=BOUND)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == descriptors
