"""What the network carries by itself: C programs, without repair and without Python.

``python -m bench.limits --leaves 1,4,8 [--wire mtu]`` prints bytes per second at the slowest
receiver, of one offloaded multicast stream and of TCP to each; on loopback without ``--wire``. As
functions: ``group_limit`` and ``tcp_limit``, to be run beside a contender on the same network.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.lan import BenchLan, lan

__all__ = ["Carried", "group_limit", "main", "programs", "tcp_limit", "why_not"]

PATIENCE_S: Final = 60.0
CHUNK: Final = 1 << 18  # bytes of one TCP write
SEGMENT: Final = 1452  # of a 1,500-byte MTU, as the library cuts it

_GROUP: Final = "239.255.66.1"
_LOOPBACK: Final = "127.0.0.1"

WINDOW: Final = 2 << 20
"""How far the sender may be ahead of the slowest receiver; nothing is lost so on any wire here."""


@dataclass(frozen=True)
class Carried:
    """One run.

    Attributes:
        rates: Bytes per second, one figure a receiver.
        lost: The largest share of the bytes that a receiver did not get.
    """

    rates: tuple[float, ...]
    lost: float = 0.0

    @property
    def slowest(self) -> float:
        """Bytes per second at the slowest receiver."""
        return min(self.rates)


def why_not() -> str:
    """Why the programs cannot be built here; empty if they can."""
    if not hasattr(os, "setns") and not Path("/proc/self/ns/net").exists():
        return "they are for Linux only"
    return "" if shutil.which("gcc") else "gcc is not installed"


@functools.cache
def programs() -> Path:
    """The folder of the built programs; removed when this process ends.

    Raises:
        RuntimeError: gcc refused.
    """
    folder = _folder()
    for source in sorted((Path(__file__).parent / "c").glob("*.c")):
        built = str(folder / source.stem)
        command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", built, str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"gcc {source.name}: {done.stderr}")
    return folder


@functools.cache
def _held() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="joinleaf-bench-", ignore_cleanup_errors=True)


def _folder() -> Path:
    return Path(_held().name)


def group_limit(
    leaves: int,
    total_bytes: int,
    *,
    net: BenchLan | None = None,
    segment: int = SEGMENT,
    window_bytes: int = WINDOW,
) -> Carried:
    """One multicast stream to ``leaves`` receivers.

    Args:
        leaves: How many, 1 to 63; at most those of ``net``.
        total_bytes: What to send.
        net: Where; None: loopback.
        segment: Bytes of a datagram; up to 62,000 on loopback.
        window_bytes: See ``WINDOW``.

    Raises:
        RuntimeError: A program failed; its words are in the text.
    """
    port = str(_free_port())
    with tempfile.NamedTemporaryFile(dir="/dev/shm", prefix="joinleaf-bench-") as shared:
        shared.truncate(4096)
        receivers = [
            (where, ["receive", _GROUP, port, address, shared.name, str(turn)])
            for turn, (where, address) in enumerate(_leaves(net, leaves))
        ]
        where, address = _root(net)
        sizes = [str(number) for number in (leaves, segment, window_bytes, total_bytes)]
        sender = (where, ["send", _GROUP, port, address, shared.name, *sizes])
        lines = _run("group_limit", sender, receivers)
    told = [tuple(map(float, line.split())) for line in lines]
    return Carried(tuple(rate for rate, _ in told), max(lost for _, lost in told))


def tcp_limit(
    leaves: int, total_bytes: int, *, net: BenchLan | None = None, chunk: int = CHUNK
) -> Carried:
    """The same bytes to each receiver over a TCP connection of its own.

    Raises:
        RuntimeError: A program failed; its words are in the text.
    """
    where, address = _root(net)
    port = str(_free_port())
    receivers = [(leaf, ["receive", address, port, str(chunk)]) for leaf, _ in _leaves(net, leaves)]
    sender = (where, ["send", address, port, str(leaves), str(chunk), str(total_bytes)])
    return Carried(tuple(map(float, _run("tcp_limit", sender, receivers))))


_Job = tuple[str, list[str]]  # the namespace ("" is ours), and the arguments


def _root(net: BenchLan | None) -> tuple[str, str]:
    return ("", _LOOPBACK) if net is None else (net.root.namespace, net.root.ipv4)


def _leaves(net: BenchLan | None, leaves: int) -> list[tuple[str, str]]:
    if net is None:
        return [("", _LOOPBACK)] * leaves
    return [(leaf.namespace, leaf.ipv4) for leaf in net.leaves[:leaves]]


def _free_port() -> int:
    """Free here, where loopback needs it; in a network made for this run any is."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((_LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _run(program: str, sender: _Job, receivers: Sequence[_Job]) -> list[str]:
    """Run all to their end; what the sender printed, line by line."""
    with ExitStack() as stack:
        started = [stack.enter_context(_started(program, job)) for job in (sender, *receivers)]
        try:
            said = [started[0].communicate(timeout=PATIENCE_S)]
            if started[0].returncode:
                _kill(started)  # they would wait for what does not come
            said += [one.communicate(timeout=PATIENCE_S) for one in started[1:]]
        except BaseException:
            _kill(started)
            raise
        if any(one.returncode for one in started):
            raise RuntimeError(f"{program}: {''.join(errors for _, errors in said)}")
        return said[0][0].splitlines()


def _kill(started: Sequence[subprocess.Popen[str]]) -> None:
    for one in started:
        one.kill()


def _started(program: str, job: _Job) -> subprocess.Popen[str]:
    namespace, arguments = job
    inside = ["ip", "netns", "exec", namespace] if namespace else []
    command = [*inside, str(programs() / program), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _measure(leaves: int, wire: str, rounds: int, total_bytes: int) -> None:
    with ExitStack() as stack:
        net = None
        if wire:
            net = stack.enter_context(lan(leaves, wire="mtu" if wire == "mtu" else "veth"))
        groups = [group_limit(leaves, total_bytes, net=net) for _ in range(rounds)]
        tcp = [tcp_limit(leaves, total_bytes, net=net) for _ in range(rounds)]
    multicast = statistics.median(run.slowest for run in groups)
    each = statistics.median(run.slowest for run in tcp)
    print(
        f"{leaves:6}  {multicast / 1e6:9,.0f}  {max(run.lost for run in groups):6.2%}"
        f"  {each / 1e6:9,.0f}  {multicast / each:5.1f}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m bench.limits", description=__doc__)
    parser.add_argument("--leaves", default="1,4,8", help="counts, separated by commas")
    parser.add_argument("--wire", default="", choices=["", "veth", "mtu"], help="none: loopback")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=500, help="to each receiver and round")
    chosen = parser.parse_args(arguments)
    print("MB/s at the slowest receiver, median of the rounds")
    print("leaves  multicast    lost   TCP each  ratio")
    for leaves in map(int, chosen.leaves.split(",")):
        _measure(leaves, chosen.wire, chosen.rounds, chosen.megabytes * 1_000_000)


if __name__ == "__main__":
    main()
