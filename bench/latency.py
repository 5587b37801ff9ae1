"""How long does a round trip take at a modest rate?

The root sends to everybody; the leaves take turns to answer. Measured at the root, from before the
send until the answer is in its hands.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.contenders import Contender
from bench.crew import Crew
from bench.lan import BenchLan
from bench.places import PLACES, Place
from bench.record import print_table, spread
from bench.rounds import Outcome, take_turns

__all__ = ["measure", "run"]

RATE_PER_S = 500

Times = tuple[list[int], float]
"""Sorted round trips in nanoseconds, and CPU seconds of all processes."""


def run(
    *,
    leaves: int,
    size: int,
    rounds: int,
    seconds: float,
    contenders: Sequence[Contender],
    where: Place = "loopback",
    net: BenchLan | None = None,
) -> None:
    """Print one table; arguments as for ``messages.run``."""
    _print(measure(leaves, size, rounds, seconds, contenders, net), size, leaves, where)


def measure(
    leaves: int,
    size: int,
    rounds: int,
    seconds: float,
    contenders: Sequence[Contender],
    net: BenchLan | None = None,
) -> Outcome[Times]:
    """Results and failures by contender's name."""
    asks = max(leaves, int(RATE_PER_S * seconds))
    # One message at a time: packing a batch, or asking for one, changes nothing here.
    chosen = [
        contender
        for contender in contenders
        if not contender.packs
        and contender.name != "joinleaf, one by one"
        and size >= contender.smallest
        and (net is None or not contender.one_host)
    ]

    def warm_up(crew: Crew) -> None:
        crew.ask(max(leaves, asks // 10), 1 / RATE_PER_S)

    def ask(crew: Crew, _: None) -> Times:
        times, cpu_s = crew.ask(asks, 1 / RATE_PER_S)
        return sorted(times), cpu_s

    return take_turns(chosen, size, leaves, rounds, prepare=warm_up, job=ask, net=net)


def _quantile_us(times: Sequence[int], share: float) -> float:
    return times[min(len(times) - 1, int(len(times) * share))] / 1e3


def _print(outcome: Outcome[Times], size: int, leaves: int, where: Place) -> None:
    first, reference = next(iter(outcome.results.items()), ("none", []))
    rows = []
    for name, mine in outcome.results.items():
        cells = [
            spread([_quantile_us(times, share) for times, _ in mine], ".0f")
            for share in (0.5, 0.99, 0.999)
        ]
        ratios = [
            spread([
                _quantile_us(own, share) / _quantile_us(other, share)
                for (own, _), (other, _) in zip(mine, reference, strict=True)
            ])
            for share in (0.5, 0.99)
        ]  # fmt: skip
        cpu_us = [cpu_s / len(times) * 1e6 for times, cpu_s in mine]
        rows.append((name.replace(", batches", ""), *cells, *ratios, spread(cpu_us, ".0f")))
    head = (
        "contender", "p50 us", "p99 us", "p99.9 us", f"p50 / {first}'s", f"p99 / {first}'s",
        "CPU us/round trip, all processes",
    )  # fmt: skip
    to = f"{leaves} {'leaf' if leaves == 1 else 'leaves'}"
    title = f"round trip of {size} B, {RATE_PER_S}/s, {to}, {PLACES[where]}"
    print_table(title, head, rows, outcome.failures)
