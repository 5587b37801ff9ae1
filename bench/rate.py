"""Is a rate kept, and how much of a link does the multicast use? ``python -m bench.rate``.

Two tables. The first: a link of 1 Gbit/s (tbf at the root) and losses drawn at each leaf; what
every leaf gets, beside what the link can carry of a message in packets of 1,500 bytes. The second:
an agreed flow specification, and what left in the worst windows of ten seconds. In namespaces;
needs root.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final, NamedTuple

from tests.netns.lan import Host, Process

from bench.lan import BenchLan, Wire, lan
from bench.record import print_table, print_where

__all__ = [
    "GROUP",
    "ROOT",
    "Arrived",
    "arrived",
    "leaves_of",
    "main",
    "most_in_windows",
    "send_for",
]

GROUP: Final = "239.255.62.1:7462"

ROOT: Final = """
import json, sys, time
import joinleaf
group, leaves, flow = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
root = joinleaf.open_root(
    f"jl://:7400?data={group}" if group else "jl://:7400", open=True, linger=5,
    qos=joinleaf.FlowSpec(**flow) if flow else None,
)
print("ready", flush=True)
root.wait_for_leaves(leaves, timeout=14)
until = time.monotonic() + 5
while group and time.monotonic() < until and {leaf.carrier for leaf in root.leaves} != {"group"}:
    time.sleep(0.02)
print(json.dumps(sorted({leaf.carrier for leaf in root.leaves})), flush=True)
batch = [bytes(65_536)] * 16
for line in sys.stdin:
    end, cpu = time.monotonic() + float(line), time.process_time()
    while time.monotonic() < end:
        root.send_many(batch)
    print(json.dumps({"cpu": time.process_time() - cpu}), flush=True)
root.close()
"""

LEAF: Final = """
import json, sys, time
import joinleaf
leaf = joinleaf.join(sys.argv[1], timeout=10)
print("joined", flush=True)
heard, receive, clock = [], leaf.receive_many, time.monotonic
try:
    while True:
        batch = receive()
        heard.append((clock(), sum(map(len, batch.messages))))
except joinleaf.SessionClosedError:
    print(json.dumps(heard), flush=True)
"""


class Arrived(NamedTuple):
    """What one leaf got.

    Attributes:
        times: When, seconds of the machine's monotonic clock.
        sizes: How many bytes at each time.
    """

    times: list[float]
    sizes: list[int]

    def rate(self, begin: float, end: float) -> float:
        """Bytes per second between two times."""
        inside = sum(n for at, n in zip(*self, strict=True) if begin < at <= end)
        return inside / (end - begin)


def leaves_of(net: BenchLan, root: Process, stack: ExitStack) -> list[Process]:
    """Start a leaf on every host and wait until the root is ready to send to all of them."""
    root.hear("ready")
    leaves = []
    for host in net.leaves:
        leaves.append(stack.enter_context(host.python(LEAF, f"jl://{net.root.ipv4}:7400")))
        leaves[-1].hear("joined")
    assert json.loads(root.hear("[")) == ["group"]
    return leaves


def arrived(leaf: Process) -> Arrived:
    """What a leaf got, once its root has closed."""
    times, sizes = zip(*json.loads(leaf.hear("[")), strict=True)
    return Arrived(list(times), list(sizes))


def send_for(
    net: BenchLan, seconds: float, flow: dict[str, int] | None = None
) -> tuple[list[Arrived], float]:
    """What all leaves get in a time; and CPU seconds of the root per second."""
    with ExitStack() as stack:
        root = start_root(net.root, len(net.leaves), flow, stack)
        leaves = leaves_of(net, root, stack)
        root.say(str(seconds))
        cpu = json.loads(root.hear("cpu"))["cpu"]
        root.finish()
        return [arrived(leaf) for leaf in leaves], cpu / seconds


def start_root(
    host: Host, leaves: int, flow: dict[str, int] | None, stack: ExitStack, group: str = GROUP
) -> Process:
    """Start a root that sends for as long as it is told, line by line."""
    return stack.enter_context(host.python(ROOT, group, str(leaves), json.dumps(flow)))


def most_in_windows(one: Arrived, seconds: float) -> int:
    """The most that arrived within any window of this length, bytes."""
    first = total = most = 0
    for at, size in zip(*one, strict=True):
        total += size
        while one.times[first] < at - seconds:
            total -= one.sizes[first]
            first += 1
        most = max(most, total)
    return most


def steady(one: Arrived, skip: float = 1.0) -> float:
    """Bytes per second without the first second, in which a stream finds its rate, and the last."""
    begin, end = one.times[0] + skip, one.times[-1] - 0.2
    return one.rate(begin, end)


def _links(mbit: int, leaves: int, losses: Sequence[float], seconds: float, wire: Wire) -> None:
    carried = mbit * 125_000 * 1436 / 1514  # a header of ours in each packet, and the frame's
    rows = []
    lossless = 0.0
    for loss in losses:
        with lan(leaves, loss=loss, rate_bit_per_s=mbit * 1_000_000, wire=wire) as net:
            got, cpu = send_for(net, seconds)
        rates = sorted(map(steady, got))
        lossless = lossless or rates[0]
        rows.append(
            [f"{loss:.0%}", f"{rates[0] / 1e6:.1f}", f"{rates[-1] / 1e6:.1f}",
             f"{rates[0] / carried:.0%}", f"{rates[0] / lossless:.0%}", f"{cpu:.0%}"]
        )  # fmt: skip
    head = ["loss", "slowest MB/s", "fastest", "of the link", "of no loss", "root's CPU"]
    print_table(f"{leaves} leaves, {mbit} Mbit/s, wire {wire}", head, rows)


def _agreed(seconds: float) -> None:
    rows = []
    for rate, bucket, peak in ((10, 200, 0), (10, 200, 15), (10, 50, 12), (50, 1000, 60)):
        flow = {"token_rate": rate * 1_000_000, "token_bucket_size": bucket * 1000}
        if peak:
            flow["peak_bandwidth"] = peak * 1_000_000
        with lan(2, wire="mtu") as net:
            got, _ = send_for(net, seconds, flow)
        total = sum(got[0].sizes) / (got[0].times[-1] - got[0].times[0])
        most = [f"{most_in_windows(got[0], window) / 1000:.0f}" for window in (0.01, 0.1, 1.0)]
        rows.append([str(rate), str(bucket), str(peak or "-"), f"{total / 1e6:.2f}", *most])
    head = [
        "MB/s agreed",
        "bucket kB",
        "peak MB/s",
        "MB/s got",
        "most kB in 10 ms",
        "100 ms",
        "1 s",
    ]
    print_table("Agreed rates, as a leaf sees them", head, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the questions chosen."""
    parser = argparse.ArgumentParser(prog="python -m bench.rate", description=__doc__)
    parser.add_argument("--leaves", type=int, default=8)
    parser.add_argument("--mbit", type=int, default=1000)
    parser.add_argument("--loss", default="0,1,5", help="per cent, for example 0,1,5")
    parser.add_argument("--seconds", type=float, default=5.0, help="each figure; rates twice that")
    parser.add_argument("--wire", choices=["veth", "mtu"], default="mtu")
    parser.add_argument("--only", choices=["links", "agreed"])
    chosen = parser.parse_args(arguments)
    print_where()
    if chosen.only != "agreed":
        losses = [float(part) / 100 for part in chosen.loss.split(",")]
        _links(chosen.mbit, chosen.leaves, losses, chosen.seconds, chosen.wire)
    if chosen.only != "links":
        _agreed(2 * chosen.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
