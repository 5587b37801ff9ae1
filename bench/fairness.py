"""What does a TCP beside the multicast keep of a link? ``python -m bench.fairness``.

One link, narrow where ``--where`` says: at the root's interface, so that both share the root's own
queue, or in the network, between the root and the switch. A multicast session to two leaves, and a
TCP connection of the kernel's to one of them, which begins a second later. Alone, each would take
all. In namespaces; needs root.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final, NamedTuple

from tests.netns.lan import Process

from bench.lan import BenchLan, lan
from bench.rate import arrived, leaves_of, start_root
from bench.record import print_table, print_where, spread

__all__ = ["Shares", "beside_tcp", "main", "narrow"]

TCP_PORT: Final = 7480

SINK: Final = """
import socket, sys, time
server = socket.create_server(("", int(sys.argv[1])))
print("listening", flush=True)
connection, _ = server.accept()
buffer, total, marks = bytearray(1 << 18), 0, []
while count := connection.recv_into(buffer):
    total += count
    marks.append((time.monotonic(), total))
first = next(mark for mark in marks if mark[0] > marks[0][0] + float(sys.argv[2]))
print((marks[-1][1] - first[1]) / (marks[-1][0] - first[0]), first[0], marks[-1][0], flush=True)
"""

SOURCE: Final = """
import socket, sys, time
connection = socket.socket()
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, sys.argv[3].encode())
connection.connect((sys.argv[1], int(sys.argv[2])))
end, block = time.monotonic() + float(sys.argv[4]), bytes(1 << 16)
while time.monotonic() < end:
    connection.sendall(block)
connection.close()
print("done", flush=True)
"""


class Shares(NamedTuple):
    """Bytes per second that the stream and the TCP got while both were there."""

    stream: float
    tcp: float

    @property
    def of_tcp(self) -> float:
        """The TCP's share of what both got."""
        return self.tcp / (self.stream + self.tcp)


def narrow(net: BenchLan, mbit: int, queue_bytes: int, where: str) -> None:
    """Make the link narrow: "root", at its interface; "network", where the switch lets it in."""
    if where == "root":
        net.limit(mbit * 1_000_000)
        return
    # What the root sends comes into the bridge by p1: it is sent on through a slow pair of cables.
    commands = [
        "link add slow0 type veth peer name slow1",
        "link add br1 type bridge mcast_snooping 0",
        "link set br1 up",
        "link set p1 master br1",
        "link set slow0 master br1 up",
        "link set slow1 master br0 up",
    ]
    for command in commands:
        _run(net.switch, "ip", *command.split())
    _run(
        net.switch, "tc", "qdisc", "add", "dev", "slow0", "root", "tbf", "rate", f"{mbit}mbit",
        "burst", str(1 << 17), "limit", str(queue_bytes),
    )  # fmt: skip
    # Group members are behind br0, which snoops; the root is no member that it has to find.
    _run(net.switch, "bridge", "link", "set", "dev", "slow1", "mcast_router", "2")


def _run(namespace: str, *command: str) -> None:
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, *command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def beside_tcp(net: BenchLan, seconds: float, algorithm: str, settle: float = 2.0) -> Shares:
    """Both at once, the TCP a second later; what each gets once ``settle`` seconds have passed."""
    with ExitStack() as stack:
        root = start_root(net.root, len(net.leaves), None, stack)
        leaves = leaves_of(net, root, stack)
        where = (net.leaves[0].ipv4, str(TCP_PORT))
        sink: Process = stack.enter_context(net.leaves[0].python(SINK, str(TCP_PORT), str(settle)))
        sink.hear("listening")
        root.say(str(seconds + 2))
        source = stack.enter_context(net.root.python(SOURCE, *where, algorithm, str(seconds)))
        source.hear("done")
        rate, begin, end = map(float, sink.hear(".").split())
        root.hear("cpu")
        root.finish()
        stream = min(arrived(leaf).rate(begin, end) for leaf in leaves)
    return Shares(stream, rate)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.fairness", description=__doc__)
    parser.add_argument("--mbit", default="100,1000")
    parser.add_argument("--where", default="root,network")
    parser.add_argument("--tcp", default="cubic,reno")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--queue", type=int, default=1 << 20, help="bytes, of the network's queue")
    chosen = parser.parse_args(arguments)
    print_where()
    rows = []
    for where in chosen.where.split(","):
        for mbit in map(int, chosen.mbit.split(",")):
            for algorithm in chosen.tcp.split(","):
                shares = []
                for _ in range(chosen.rounds):
                    with lan(2, wire="mtu") as net:
                        narrow(net, mbit, chosen.queue, where)
                        shares.append(beside_tcp(net, chosen.seconds, algorithm))
                rows.append(
                    [where, str(mbit), algorithm,
                     spread([one.stream / 1e6 for one in shares], ".1f"),
                     spread([one.tcp / 1e6 for one in shares], ".1f"),
                     spread([one.of_tcp * 100 for one in shares], ".0f")]
                )  # fmt: skip
    head = ["narrow at", "Mbit/s", "TCP", "stream MB/s", "TCP MB/s", "TCP's share, per cent"]
    print_table("A multicast session and a TCP on one link", head, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
