"""Where a benchmark takes place: on loopback, or on a bridge between network namespaces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Literal

from tests.netns.lan import why_not

from bench.lan import BenchLan, Wire, lan

__all__ = ["GIGABIT", "PLACES", "Place", "loopback_only", "place", "why_no_hosts"]

Place = Literal["loopback", "bridge", "mtu", "gigabit"]

GIGABIT: Final = 1_000_000_000
"""Bits per second of the shaped link."""

PLACES: Final[Mapping[Place, str]] = {
    "loopback": "on loopback",
    "bridge": "across a bridge that carries whole trains",
    "mtu": "across a bridge, packets of 1,500 bytes on the wire",
    "gigabit": "across a bridge, 1 Gbit/s, packets of 1,500 bytes on the wire",
}


def why_no_hosts() -> str:
    """Why there can be no hosts but this one; empty if there can."""
    reason = why_not()
    return reason and f"only loopback can be measured: {reason}"


@contextmanager
def place(where: Place, leaves: int, *, loss: float = 0.0) -> Iterator[BenchLan]:
    """The root's host and one for each leaf; for ``loopback`` all in one.

    Args:
        where: One of ``PLACES``.
        leaves: How many hosts besides the root's.
        loss: Share of packets that each leaf loses; not on loopback.

    Raises:
        NamespaceError: No namespaces can be made; ``why_no_hosts`` says why.
    """
    if where == "loopback":
        with loopback_only() as net:
            yield net
        return
    rate = GIGABIT if where == "gigabit" else None
    wire: Wire = "veth" if where == "bridge" else "mtu"
    with lan(leaves, loss=loss, wire=wire, rate_bit_per_s=rate) as net:
        yield net


@contextmanager
def loopback_only() -> Iterator[BenchLan]:
    """One host with nothing but a loopback interface, which carries multicast."""
    with lan(0) as net:
        net.root.ip("link del eth0", "link set lo multicast on", "route add 224.0.0.0/4 dev lo")
        net.root.ipv4 = "127.0.0.1"
        yield net
