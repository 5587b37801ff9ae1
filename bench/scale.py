"""``python -m bench scale``: what one stream costs when many hear it, in simulated time.

Every column but times of the processor is exact and the same in every run.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence

from bench.record import print_table
from bench.scale_world import Outcome, ScaleWorld

__all__ = ["LEAVES", "megabytes_for", "run"]

LEAVES = (10, 100, 1000, 10_000)

HEAD = (
    "leaves", "MB to each", "symbols", "sent again", "lost anywhere", "reports/s at root",
    "each leaf", "with gaps", "kB", "root ms/MB", "root us/lost", "leaf ms/MB", "complete s",
    "root busy", "kB/leaf",
)  # fmt: skip

NOTES = """\
MB to each: less for many leaves, so that it ends. symbols: datagrams of 1,452 B sent for the first
time; sent again: as a share of them. lost anywhere: symbols, repairs included, that somebody lost,
per symbol. reports/s: in simulated time, at the root and of each leaf; with gaps: those that tell
of a loss; kB: of all. root: processor time of its machine, no system calls; per symbol lost
anywhere. leaf: of one. root busy: processor time per simulated time; above 1 it would be what
limits the stream. kB/leaf: memory at the root once joined. 1 Gbit/s, 0.2 ms round trip, one core.
"""


def megabytes_for(leaves: int) -> float:
    """What is sent to so many."""
    return 16.0 if leaves <= 10 else 8.0 if leaves <= 100 else 2.0 if leaves <= 1000 else 0.5


def run(
    *, leaves: Sequence[int] = LEAVES, loss: float = 0.01, megabytes: int | None = None
) -> list[Outcome]:
    """Print the two tables; also what is in them."""
    outcomes: list[Outcome] = []
    for shared in (False, True):
        rows = []
        for number in leaves:
            size = int((megabytes or megabytes_for(number)) * 1_000_000)
            world = ScaleWorld(number, loss, shared=shared)
            outcomes.append(world.run(size))
            rows.append(_row(outcomes[-1]))
            del world
            gc.collect()
        what = "lost before the network branches" if shared else "lost by each leaf for itself"
        print_table(f"Scale: {loss:.0%} {what}", HEAD, rows)
    print(NOTES)
    return outcomes


def _row(one: Outcome) -> list[str]:
    megabytes = one.sent_bytes / 1e6
    rate = one.reports / one.simulated_s
    return [
        f"{one.leaves:,}",
        f"{megabytes:.2f}",
        f"{one.symbols:,}",
        f"{one.repairs / one.symbols:.1%}",
        f"{one.lost_anywhere / one.symbols:.2f}",
        f"{rate:,.0f}",
        f"{rate / one.leaves:.1f}",
        f"{one.gap_reports:,}",
        f"{one.report_bytes / 1e3:,.0f}",
        f"{one.root_cpu_s * 1e3 / megabytes:,.1f}",
        f"{one.root_cpu_s * 1e6 / max(1, one.lost_anywhere):,.0f}",
        f"{one.leaf_cpu_s * 1e3 / megabytes:.2f}",
        f"{one.simulated_s:.2f}",
        f"{one.root_cpu_s / one.simulated_s:.2f}",
        f"{one.bytes_per_leaf / 1e3:.1f}",
    ]
