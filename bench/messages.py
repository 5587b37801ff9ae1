"""How many messages a second reach every leaf?

Every contender's processes exist at the same time and take turns within each round. A first, short
run of each warms it up and says how many messages fill the time of a round.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.contenders import Contender, batch_of
from bench.crew import Crew, Result
from bench.lan import BenchLan
from bench.places import PLACES, Place
from bench.record import print_table, spread
from bench.rounds import Outcome, take_turns

__all__ = ["measure", "run"]


def run(
    *,
    leaves: int,
    sizes: Sequence[int],
    rounds: int,
    seconds: float,
    contenders: Sequence[Contender],
    where: Place = "loopback",
    net: BenchLan | None = None,
) -> None:
    """Print one table for each size.

    Args:
        leaves: How many receivers.
        sizes: Of the messages, in bytes, at least 4.
        rounds: How often each contender has its turn.
        seconds: About how long a turn takes.
        contenders: Who takes part. The first that gets through is what others are compared with.
        where: What the title says of ``net``.
        net: The hosts; None: this one.
    """
    for size in sizes:
        outcome = measure(leaves, size, rounds, seconds, contenders, net)
        _print(outcome, size, leaves, where)


def measure(
    leaves: int,
    size: int,
    rounds: int,
    seconds: float,
    contenders: Sequence[Contender],
    net: BenchLan | None = None,
) -> Outcome[Result]:
    """Results and failures by contender's name."""
    batch = len(batch_of(size))
    chosen = [
        contender
        for contender in contenders
        if (batch > 1 or not contender.packs)
        and size >= contender.smallest
        and (net is None or not contender.one_host)
    ]
    return take_turns(
        chosen,
        size,
        leaves,
        rounds,
        prepare=lambda crew: _calibrate(crew, size, batch, seconds),
        job=lambda crew, times: crew.send(times),
        net=net,
    )


def _calibrate(crew: Crew, size: int, batch: int, seconds: float) -> int:
    """How many batches take about so long."""
    times = max(1, min(2_000_000 // (size * batch), 10_000 // batch))
    trial = crew.send(times)
    while trial.seconds < seconds / 10:
        times *= 4
        trial = crew.send(times)
    return max(1, round(times * seconds / trial.seconds))


def _print(outcome: Outcome[Result], size: int, leaves: int, where: Place) -> None:
    first, reference = next(iter(outcome.results.items()), ("none", []))
    rows = [(name, *_cells(mine, reference, size)) for name, mine in outcome.results.items()]
    head = (
        "contender", "k msg/s at each", "MB/s at each", f"x {first}",
        "CPU ns/msg, all processes", f"{first}'s CPU / own",
    )  # fmt: skip
    to = f"{leaves} {'leaf' if leaves == 1 else 'leaves'}"
    print_table(f"{size:,} B to {to}, {PLACES[where]}", head, rows, outcome.failures)


def _cells(mine: Sequence[Result], reference: Sequence[Result], size: int) -> tuple[str, ...]:
    rates = [result.messages / result.seconds for result in mine]
    cpu_ns = [result.cpu_s / result.messages * 1e9 for result in mine]
    pairs = list(zip(mine, reference, strict=True))
    faster = [
        (own.messages / own.seconds) / (other.messages / other.seconds) for own, other in pairs
    ]
    leaner = [(other.cpu_s / other.messages) / (own.cpu_s / own.messages) for own, other in pairs]
    return (
        spread([rate / 1e3 for rate in rates], ",.1f"),
        f"{sorted(rates)[len(rates) // 2] * size / 1e6:,.0f}",
        spread(faster),
        spread(cpu_ns, ",.0f"),
        spread(leaner),
    )
