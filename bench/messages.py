"""How many messages a second reach every leaf?

Every contender's processes exist at the same time and take turns within each round. A first, short
run of each warms it up and says how many messages fill the time of a round.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from bench.contenders import ALL, Contender, batch_of
from bench.crew import Crew, Result
from bench.record import print_table, spread

__all__ = ["run"]


def run(
    *,
    leaves: Sequence[int],
    sizes: Sequence[int],
    rounds: int,
    seconds: float,
    only: Sequence[str],
    contenders: Sequence[Contender] = tuple(ALL.values()),
) -> None:
    """Print one table for each size and number of leaves."""
    for size in sizes:
        for count in leaves:
            results = measure(count, size, rounds, seconds, only, contenders)
            _print(results, size, count)


def measure(
    leaves: int,
    size: int,
    rounds: int,
    seconds: float,
    only: Sequence[str],
    contenders: Sequence[Contender] = tuple(ALL.values()),
) -> dict[str, list[Result]]:
    """Results by contender's name, in the order of the rounds."""
    batch = len(batch_of(size))
    chosen: list[Contender] = [
        contender
        for contender in contenders
        if (batch > 1 or not contender.packs) and (not only or contender.name in only)
    ]
    results: dict[str, list[Result]] = {contender.name: [] for contender in chosen}
    with ExitStack() as stack:
        crews = {
            contender.name: stack.enter_context(Crew(contender, size, leaves))
            for contender in chosen
        }
        times = {name: _calibrate(crew, size, batch, seconds) for name, crew in crews.items()}
        for _ in range(rounds):
            for name, crew in crews.items():
                results[name].append(crew.send(times[name]))
    return results


def _calibrate(crew: Crew, size: int, batch: int, seconds: float) -> int:
    """How many batches take about so long."""
    times = max(1, min(2_000_000 // (size * batch), 10_000 // batch))
    trial = crew.send(times)
    while trial.seconds < seconds / 10:
        times *= 4
        trial = crew.send(times)
    return max(1, round(times * seconds / trial.seconds))


def _print(results: dict[str, list[Result]], size: int, leaves: int) -> None:
    reference = next(iter(results.values()))
    rows = []
    for name, mine in results.items():
        rate = [result.messages / result.seconds for result in mine]
        cpu_ns = [result.cpu_s / result.messages * 1e9 for result in mine]
        faster = [
            value / (other.messages / other.seconds)
            for value, other in zip(rate, reference, strict=True)
        ]
        leaner = [
            (other.cpu_s / other.messages * 1e9) / value
            for value, other in zip(cpu_ns, reference, strict=True)
        ]
        rows.append((
            name,
            spread([value / 1e3 for value in rate], ",.1f"),
            f"{sorted(rate)[len(rate) // 2] * size / 1e6:,.0f}",
            spread(faster),
            spread(cpu_ns, ",.0f"),
            spread(leaner),
        ))  # fmt: skip
    first = next(iter(results))
    head = (
        "contender", "k msg/s at each", "MB/s at each", f"x {first}",
        "CPU ns/msg, all processes", f"{first}'s CPU / own",
    )  # fmt: skip
    print_table(f"{size:,} B to {leaves} {'leaf' if leaves == 1 else 'leaves'}", head, rows)
