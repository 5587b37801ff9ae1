"""How long does a round trip take at a modest rate?

The root sends to everybody; the leaves take turns to answer. Measured at the root, from before the
send until the answer is in its hands.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from bench.contenders import ALL
from bench.crew import Crew
from bench.record import print_table, spread

__all__ = ["run"]

RATE_PER_S = 500


def run(
    *, leaves: Sequence[int], size: int, rounds: int, seconds: float, only: Sequence[str]
) -> None:
    """Print one table for each number of leaves."""
    for count in leaves:
        _print(measure(count, size, rounds, seconds, only), size, count)


def measure(
    leaves: int, size: int, rounds: int, seconds: float, only: Sequence[str]
) -> dict[str, list[tuple[list[int], float]]]:
    """By contender's name: sorted round trips in nanoseconds and CPU seconds, for each round."""
    asks = max(leaves, int(RATE_PER_S * seconds))
    # One message at a time: packing a batch, or asking for one, changes nothing here.
    chosen = [
        contender
        for name, contender in ALL.items()
        if not contender.packs and name != "joinleaf, one by one" and (not only or name in only)
    ]
    results: dict[str, list[tuple[list[int], float]]] = {one.name: [] for one in chosen}
    with ExitStack() as stack:
        crews = {one.name: stack.enter_context(Crew(one, size, leaves)) for one in chosen}
        for crew in crews.values():
            crew.ask(max(leaves, asks // 10), 1 / RATE_PER_S)
        for _ in range(rounds):
            for name, crew in crews.items():
                times, cpu_s = crew.ask(asks, 1 / RATE_PER_S)
                results[name].append((sorted(times), cpu_s))
    return results


def _quantile_us(times: Sequence[int], share: float) -> float:
    return times[min(len(times) - 1, int(len(times) * share))] / 1e3


def _print(results: dict[str, list[tuple[list[int], float]]], size: int, leaves: int) -> None:
    reference = next(iter(results.values()))
    rows = []
    for name, mine in results.items():
        cells = [
            spread([_quantile_us(times, share) for times, _ in mine], ".0f")
            for share in (0.5, 0.99, 0.999)
        ]
        ratio = [
            _quantile_us(own, 0.5) / _quantile_us(other, 0.5)
            for (own, _), (other, _) in zip(mine, reference, strict=True)
        ]
        cpu_us = [cpu_s / len(times) * 1e6 for times, cpu_s in mine]
        rows.append((name.replace(", batches", ""), *cells, spread(ratio), spread(cpu_us, ".0f")))
    first = next(iter(results))
    head = (
        "contender", "p50 us", "p99 us", "p99.9 us", f"p50 / {first}'s",
        "CPU us/round trip, all processes",
    )  # fmt: skip
    title = (
        f"round trip of {size} B, {RATE_PER_S}/s, {leaves} {'leaf' if leaves == 1 else 'leaves'}"
    )
    print_table(title, head, rows)
