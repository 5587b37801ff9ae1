"""The benchmarks' network is what it says: offloads, losses, a limited wire; and then gone."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from contextlib import ExitStack

import pytest
from bench.lan import call_in, features, lan, set_features
from tests.netns.lan import Host, why_not

BOUND = 15.0  # seconds


@pytest.fixture(autouse=True)
def _network() -> None:
    if reason := why_not():
        pytest.skip(reason)


def names() -> str:
    return subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout


def on(host: Host, name: str) -> bool:
    return call_in(host, features, "eth0")[name]


def test_a_real_wire_is_cut_at_the_sender_and_coalesced_at_the_receiver() -> None:
    with lan(1) as plain:
        assert on(plain.root, "tx-tcp-segmentation")
        assert not on(plain.leaves[0], "rx-gro")
    with lan(1, wire="mtu") as real:
        for host in (real.root, *real.leaves):
            assert not on(host, "tx-udp-segmentation")
            assert not on(host, "tx-tcp-segmentation")
            assert on(host, "rx-gro")


def test_an_offload_that_does_not_exist_is_an_error() -> None:
    with lan(1) as net, pytest.raises(KeyError):
        call_in(net.root, set_features, "eth0", {"no-such-offload": True})


def test_nothing_stays_even_after_an_error() -> None:
    inside: list[str] = []

    def build_and_fail() -> None:
        with lan(2, loss=0.01, rate_bit_per_s=1_000_000_000) as net:
            inside.extend(host.namespace for host in (net.root, *net.leaves))
            inside.append(net.switch)
            assert all(name in names() for name in inside)
            raise LookupError

    with pytest.raises(LookupError):
        build_and_fail()
    assert len(inside) == 4
    assert not any(name in names() for name in inside)


def test_a_limited_wire_takes_the_time_it_should() -> None:
    size = 3_000_000  # at 100 Mbit/s 0.24 s; unlimited about a hundredth of that
    with lan(1, rate_bit_per_s=100_000_000) as net, ExitStack() as stack:
        place = (net.root.ipv4, 5000)
        server = stack.enter_context(call_in(net.root, socket.create_server, place))
        leaf = call_in(net.leaves[0], socket.create_connection, place, BOUND)
        stack.enter_context(leaf)
        peer = stack.enter_context(server.accept()[0])
        began = time.monotonic()
        writer = threading.Thread(target=peer.sendall, args=(bytes(size),))
        writer.start()
        got = 0
        while got < size:
            got += len(leaf.recv(1 << 16))
        writer.join(BOUND)
        assert time.monotonic() - began > 0.2
