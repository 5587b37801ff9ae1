"""A network for benchmarks: a root and its leaves on one bridge, each host a network namespace.

``with lan(4, loss=0.01, wire="mtu") as net:`` gives ``net.root`` and ``net.leaves``; leaving the
block removes everything. What is between them:

* ``wire="veth"``: what Linux does by itself. A veth pair carries whole trains and whole TCP
  bursts of 64 KB as one packet each, which flatters whoever sends such, and one loss takes all.
* ``wire="mtu"``: packets of 1,500 bytes, as on a real network: segmentation offload is off at
  every host, so that the kernel cuts before the wire, and generic receive offload is on, as with
  a real card. Losses hit single packets.

``loss`` is drawn for each leaf and packet apart, in the bridge on the way to the leaf, so that it
comes before any coalescing. ``rate_bit_per_s`` is a token bucket (tbf) at the root's interface.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import Any, Final, Literal, TypeVar

from tests.netns.lan import Host, Lan

__all__ = ["BenchLan", "Wire", "call_in", "enter", "features", "lan", "set_features"]

Wire = Literal["veth", "mtu"]

_Result = TypeVar("_Result")

# linux/sockios.h, linux/ethtool.h
_SIOCETHTOOL: Final = 0x8946
_GSTRINGS: Final = 0x1B
_GSSET_INFO: Final = 0x37
_GFEATURES: Final = 0x3A
_SFEATURES: Final = 0x3B
_SS_FEATURES: Final = 4
_STRING: Final = 32  # bytes of a feature's name

_CLONE_NEWNET: Final = 0x40000000
_BURST_BYTES: Final = 1 << 17  # of the token bucket: two trains; more would not be a gigabit
_QUEUE_BYTES: Final = 1 << 20  # in front of the bucket: 8 ms at 1 Gbit/s, as in a decent switch

_CUT_BEFORE_THE_WIRE: Final = (
    "tx-udp-segmentation",
    "tx-tcp-segmentation",
    "tx-tcp6-segmentation",
    "tx-tcp-ecn-segmentation",
    "tx-tcp-accecn-segmentation",
    "tx-tcp-mangleid-segmentation",
)

_numbers: Final = count()


class BenchLan:
    """The root, the leaves, and what is between them."""

    def __init__(self, made: Lan) -> None:
        self._lan = made
        self.root: Host = made.hosts[0]
        self.leaves: Sequence[Host] = made.hosts[1:]

    @property
    def switch(self) -> str:
        """The namespace of the bridge; the port of host *n* (the root is 1) is ``p<n>``."""
        return f"{self._lan.name}-sw"

    def lose(self, share: float, leaves: Sequence[int] | None = None) -> None:
        """From now on lose this share of the packets to leaves, whatever was lost before.

        Args:
            share: 0 to 1, in steps of a ten-thousandth.
            leaves: Indexes of ``self.leaves``; None: all.
        """
        hit = range(len(self.leaves)) if leaves is None else leaves
        ports = ", ".join(f"p{index + 2}" for index in hit)
        rules = (
            f"oifname {{ {ports} }} numgen random mod 10000 < {round(share * 10_000)} drop\n"
            if hit
            else ""
        )
        chain = "type filter hook postrouting priority 0; policy accept;"
        table = f"table bridge loss {{\nchain out {{\n{chain}\n{rules}}}\n}}\n"
        emptied = "table bridge loss {}\ndelete table bridge loss\n"
        _inside(self.switch, "nft", "-f", "-", told=emptied + (table if share else ""))

    def limit(self, rate_bit_per_s: int) -> None:
        """Let the root send at this rate and no faster; once."""
        _inside(
            self.root.namespace, "tc", "qdisc", "add", "dev", "eth0", "root", "tbf",
            "rate", f"{rate_bit_per_s}bit", "burst", str(_BURST_BYTES),
            "limit", str(_QUEUE_BYTES),
        )  # fmt: skip

    def make_wire_real(self) -> None:
        """See ``wire="mtu"`` above."""
        for number, host in enumerate((self.root, *self.leaves), 1):
            call_in(host, _cut_to_packets, "eth0", True)
            # Unless TSO is off at its other end, a veth does not even try to coalesce; and a
            # switch does not coalesce at all.
            _call_inside(self.switch, _cut_to_packets, f"p{number}", False)


@contextmanager
def lan(
    leaves: int,
    *,
    loss: float = 0.0,
    rate_bit_per_s: int | None = None,
    wire: Wire = "veth",
) -> Iterator[BenchLan]:
    """Build the network; see the module.

    Raises:
        NamespaceError: It cannot be built here (not root, no iproute2).
        RuntimeError: nft or tc refused.
    """
    made = Lan(f"jlb{os.getpid()}-{next(_numbers)}", leaves + 1)
    try:
        net = BenchLan(made)
        if wire == "mtu":
            net.make_wire_real()
        if loss:
            net.lose(loss)
        if rate_bit_per_s is not None:
            net.limit(rate_bit_per_s)
        yield net
    finally:
        made.close()


def enter(host: Host) -> None:
    """Move the calling thread into the host; threads and processes it starts are there as well.

    For worker processes, first thing. A process that has threads already keeps those outside.
    """
    _enter(host.namespace)


def _enter(name: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{name}", "rb") as namespace:
        if libc.setns(namespace.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"entering {name}")


def call_in(host: Host, function: Callable[..., _Result], *arguments: Any) -> _Result:
    """Call a function in the host, in a thread of its own: the caller stays where it is."""
    return _call_inside(host.namespace, function, *arguments)


def _call_inside(name: str, function: Callable[..., _Result], *arguments: Any) -> _Result:
    def work() -> _Result:
        _enter(name)
        return function(*arguments)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def _cut_to_packets(interface: str, coalesce: bool) -> None:
    known = features(interface)
    off: dict[str, bool] = {name: False for name in _CUT_BEFORE_THE_WIRE if name in known}
    set_features(interface, {"rx-gro": coalesce, **off})


def _inside(namespace: str, *command: str, told: str = "") -> None:
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, *command],
        input=told, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}\n{told}")


def features(interface: str) -> dict[str, bool]:
    """The offloads of an interface and whether they are on, as ``ethtool -k`` tells."""
    names = _feature_names(interface)
    blocks = (len(names) + 31) // 32
    request = bytearray(struct.pack("=II", _GFEATURES, blocks) + bytes(16 * blocks))
    _ethtool(interface, request)
    active = [word for _, _, word, _ in struct.iter_unpack("=4I", request[8:])]
    return {name: bool(active[at // 32] >> at % 32 & 1) for at, name in enumerate(names) if name}


def set_features(interface: str, wanted: Mapping[str, bool]) -> None:
    """Switch offloads on or off, as ``ethtool -K`` does.

    Raises:
        KeyError: No such offload.
        RuntimeError: The interface does not have it so.
    """
    names = _feature_names(interface)
    words = [[0, 0] for _ in range((len(names) + 31) // 32)]
    for name, on in wanted.items():
        word, bit = divmod(names.index(name) if name in names else _missing(name), 32)
        words[word][0] |= 1 << bit
        words[word][1] |= on << bit
    packed = b"".join(struct.pack("=II", *word) for word in words)
    _ethtool(interface, bytearray(struct.pack("=II", _SFEATURES, len(words)) + packed))
    now = features(interface)
    if refused := [name for name, on in wanted.items() if now[name] != on]:
        raise RuntimeError(f"{interface} keeps {', '.join(refused)}")


def _missing(name: str) -> int:
    raise KeyError(name)


def _feature_names(interface: str) -> list[str]:
    request = bytearray(struct.pack("=IIQI", _GSSET_INFO, 0, 1 << _SS_FEATURES, 0))
    _ethtool(interface, request)
    number = struct.unpack_from("=I", request, 16)[0]
    header = struct.pack("=III", _GSTRINGS, _SS_FEATURES, number)
    request = bytearray(header + bytes(_STRING * number))
    _ethtool(interface, request)
    strings = struct.iter_unpack(f"{_STRING}s", request[12:])
    return [name.partition(b"\0")[0].decode() for (name,) in strings]


def _ethtool(interface: str, request: bytearray) -> None:
    """SIOCETHTOOL: the kernel reads the request, and writes its answer over it."""
    held = (ctypes.c_char * len(request)).from_buffer(request)
    asked = struct.pack("16sQ16x", interface.encode(), ctypes.addressof(held))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        fcntl.ioctl(asker.fileno(), _SIOCETHTOOL, asked)
