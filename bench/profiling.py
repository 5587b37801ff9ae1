"""Where does the time of a contender's own Python go?

cProfile of one turn, in the sender and in the first receiver: calls and own time for each message
and each batch. It makes calls dearer than they are; read the order, not the sum. What other threads
do meanwhile does not show: perf or py-spy do.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.contenders import Contender, batch_of
from bench.crew import Crew
from bench.lan import BenchLan
from bench.places import PLACES, Place
from bench.record import print_table

__all__ = ["run"]

LINES = 20
"""Of each table."""


def run(
    *,
    leaves: int,
    sizes: Sequence[int],
    seconds: float,
    contenders: Sequence[Contender],
    where: Place = "loopback",
    net: BenchLan | None = None,
) -> None:
    """Print two tables for each contender and size; arguments as for ``messages.run``."""
    for size in sizes:
        for one in contenders:
            with Crew(one, size, leaves, net) as crew:
                times = 64
                while (trial := crew.send(times)).seconds < seconds / 10:
                    times *= 4
                times = max(1, round(times * seconds / trial.seconds))
                for end, lines in zip(("sender", "receiver"), crew.profile(times), strict=True):
                    title = f"{one.name}, {size:,} B to {leaves}, {PLACES[where]}: {end}"
                    _print(title, lines, times, len(batch_of(size)))


def _print(title: str, lines: Sequence[tuple[str, int, float]], times: int, batch: int) -> None:
    ordered = sorted(lines, key=lambda line: -line[2])
    total = sum(own_s for _, _, own_s in ordered)
    rows = [
        (
            name,
            f"{calls / times:,.2f}",
            f"{own_s / times * 1e6:,.2f}",
            f"{own_s / times / batch * 1e9:,.1f}",
            f"{own_s / total:.1%}",
        )
        for name, calls, own_s in ordered[:LINES]
    ]
    head = ("function", "calls/batch", "own us/batch", "own ns/message", "share")
    print_table(f"{title} ({times:,} batches of {batch:,})", head, rows)
