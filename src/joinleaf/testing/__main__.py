"""Run simulations by seed: ``python -m joinleaf.testing --seed 12345``."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence

from joinleaf.testing.simulation import SimulationError, simulate

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the seeds asked for; 0 if none failed, 1 if one did."""
    parser = argparse.ArgumentParser(prog="python -m joinleaf.testing", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one seed")
    parser.add_argument("--start", type=int, default=0, help="first of several seeds")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to run")
    parser.add_argument("--trace", action="store_true", help="print every event")
    parser.add_argument("--plain", action="store_true", help="no multicast, no pauses, no rates")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at a failure")
    options = parser.parse_args(arguments)
    start, number = (options.start, options.seeds) if options.seed is None else (options.seed, 1)
    failures = 0
    totals: dict[str, int] = {}
    for seed in range(start, start + number):
        try:
            result = simulate(seed, tell=_tell if options.trace else None, plain=options.plain)
        except SimulationError as error:
            failures += 1
            _tell(f"{error}\n")
            if not options.keep_going:
                traceback.print_exception(error.__cause__)
                return 1
            continue
        for name, count in result.counts.items():
            totals[name] = totals.get(name, 0) + count
        if options.seed is not None:
            _tell(f"seed {seed}: {result.scenario}; {result.steps} steps\n")
            _tell(f"trace {result.digest}\n")
    _tell(f"{number} seeds, {failures} failed; checked {totals}\n")
    return 1 if failures else 0


def _tell(line: str) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
