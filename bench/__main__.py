"""``python -m bench [QUESTION] [options]``: see the package."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence

from bench import aio_contenders, joins, latency, messages
from bench.contenders import ALL
from bench.record import print_where

__all__ = ["main"]


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--seconds", type=float, default=0.5, help="each contender and round")
    parser.add_argument("--leaves", type=_numbers, help="for example 1,4,8")
    parser.add_argument("--sizes", type=_numbers, help="bytes, for example 64,1024,65536,1048576")
    parser.add_argument("--legs", type=int, default=1000, help="of the question joins")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=list(ALL | aio_contenders.AIO),
        help="may be repeated",
    )
    parser.add_argument(
        "question",
        nargs="?",
        choices=("short", "messages", "latency", "joins", "aio"),
        default="short",
        help="short (default): a little of each",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer one question, or a little of each."""
    options = _parser().parse_args(arguments)
    if importlib.util.find_spec("zmq") is None and not options.only:
        print("pyzmq is not installed: pip install 'joinleaf[bench]', or choose with --only")
        return 2
    print_where()
    short = options.question == "short"
    if short or options.question == "messages":
        messages.run(
            leaves=options.leaves or ([1, 8] if short else [1, 4, 8]),
            sizes=options.sizes or ([64, 65536] if short else [64, 1024, 65536, 1 << 20]),
            rounds=3 if short else options.rounds,
            seconds=options.seconds,
            only=options.only,
        )
    if short or options.question == "latency":
        latency.run(
            leaves=options.leaves or [1, 8],
            size=(options.sizes or [64])[0],
            rounds=3 if short else options.rounds,
            seconds=options.seconds,
            only=options.only,
        )
    if options.question == "aio":
        messages.run(
            leaves=options.leaves or [1, 8],
            sizes=options.sizes or [64, 1024, 65536],
            rounds=options.rounds,
            seconds=options.seconds,
            only=options.only,
            contenders=aio_contenders.available(),
        )
    if short or options.question == "joins":
        joins.run(legs=options.legs, rounds=3 if short else options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
