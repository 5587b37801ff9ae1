"""``python -m bench [QUESTION] [options]``: see the package."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Sequence

from bench import bulk, joins, latency, messages, profiling, scale
from bench.bulk_memory import MEMORY_WAYS
from bench.bulk_ways import FILE_WAYS
from bench.contenders import JOINLEAF, JOINLEAF_GROUP, Contender
from bench.places import PLACES, Place, place, why_no_hosts
from bench.record import print_where
from bench.roster import ALL, EVERY, ON_LOOPS, installed

__all__ = ["main"]

QUESTIONS = {
    "short": "a little of messages, latency and joins",
    "messages": "how many reach every leaf in a second",
    "latency": "round trips at a modest rate",
    "aio": "messages, on event loops",
    "joins": "how fast a root admits",
    "bulk": "a file, or memory, to all",
    "scale": "one stream to up to 10,000 leaves, in the simulator",
    "profile": "where a contender's Python spends the time of a batch (choose with --only)",
}


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _places(text: str) -> list[Place]:
    chosen = [where for where in PLACES if where in text.split(",")]
    if unknown := set(text.split(",")) - set(PLACES):
        raise argparse.ArgumentTypeError(f"no {unknown}: choose from {', '.join(PLACES)}")
    return chosen


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=__doc__,
        epilog="\n".join(f"{name:10} {what}" for name, what in QUESTIONS.items()),
    )
    parser.add_argument("--quick", action="store_true", help="a look: fewer rounds, less to send")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (default 5; bulk 3)")
    parser.add_argument("--seconds", type=float, default=0.5, help="each contender and round")
    parser.add_argument("--leaves", type=_numbers, help="for example 1,4,8")
    parser.add_argument("--sizes", type=_numbers, help="bytes, for example 64,1024,65536,1048576")
    parser.add_argument("--legs", type=int, default=1000, help="of the question joins")
    parser.add_argument(
        "--where", type=_places, help=f"of {', '.join(PLACES)}; all but loopback need root"
    )
    parser.add_argument(
        "--loss", type=_numbers, help="bulk, scale: per cent at every receiver: 0,1,5"
    )
    parser.add_argument("--megabytes", type=int, help="bulk (512; 128 with losses), scale")
    parser.add_argument("--of", choices=("file", "memory"), action="append", help="bulk")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=sorted({*EVERY, *FILE_WAYS, *MEMORY_WAYS}),
        metavar="CONTENDER",
        help="may be repeated",
    )
    parser.add_argument("question", nargs="?", choices=tuple(QUESTIONS), default="short")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer one question, or a little of each."""
    options = _parser().parse_args(arguments)
    asked = options.question
    wanted = options.where or (["bridge", "mtu", "gigabit"] if asked == "bulk" else ["loopback"])
    if (asked == "bulk" or wanted != ["loopback"]) and (reason := why_no_hosts()):
        print(reason)
        return 2
    print_where()
    # An end from outside is as good a reason to clean up as Ctrl-C.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _answer(options, wanted)
    except KeyboardInterrupt:
        print("interrupted; everything that was started is ended")
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)


def _answer(options: argparse.Namespace, wanted: Sequence[Place]) -> int:
    asked = options.question
    if asked == "scale":
        # A look leaves out what takes two minutes of the three.
        leaves = options.leaves or (scale.LEAVES[:-1] if options.quick else scale.LEAVES)
        for loss in options.loss or [1]:
            scale.run(leaves=leaves, loss=loss / 100, megabytes=options.megabytes)
        return 0
    if asked == "bulk":
        return bulk.run(
            wanted,
            what=options.of or ["file", "memory"],
            leaves=options.leaves or ([1, 8] if options.quick else [1, 4, 8]),
            losses=options.loss or [0, 1, 5],
            megabytes=options.megabytes,
            rounds=options.rounds or (1 if options.quick else 3),
            only=options.only,
            quick=options.quick,
        )
    if asked == "aio":
        _compare(options, wanted, ["messages"], ON_LOOPS, [64, 1024, 65536])
    elif asked == "profile":
        chosen = ALL if options.only else [JOINLEAF_GROUP, JOINLEAF[0]]
        _compare(options, wanted, ["profile"], chosen, [64, 1024, 65536])
    elif asked != "joins":
        sizes = [64, 65536] if asked == "short" else [64, 1024, 65536, 1 << 20]
        questions = ["messages", "latency"] if asked == "short" else [asked]
        if not _compare(options, wanted, questions, ALL, sizes):
            return 2
    if asked in ("short", "joins"):
        joins.run(legs=options.legs, rounds=_rounds(options))
    return 0


def _rounds(options: argparse.Namespace) -> int:
    short = options.quick or options.question == "short"
    return int(options.rounds or (3 if short else 5))


def _compare(
    options: argparse.Namespace,
    wanted: Sequence[Place],
    questions: Sequence[str],
    contenders: Sequence[Contender],
    sizes: Sequence[int],
) -> bool:
    able = installed(contenders, options.only)
    if not able:
        print("nobody is left to compare; see --only and pip install 'joinleaf[bench]'")
        return False
    few = options.quick or options.question != "messages"
    for where in wanted:
        for leaves in options.leaves or ([1, 8] if few else [1, 4, 8]):
            own = where == "loopback"  # this host's, which needs no root
            with contextlib.nullcontext() if own else place(where, leaves) as net:
                for question in questions:
                    shared = {
                        "leaves": leaves, "seconds": options.seconds,
                        "contenders": able, "where": where, "net": net,
                    }  # fmt: skip
                    rounds, wished = _rounds(options), options.sizes or sizes
                    if question == "messages":
                        messages.run(sizes=wished, rounds=rounds, **shared)
                    elif question == "profile":
                        profiling.run(sizes=wished, **shared)
                    else:
                        latency.run(size=(options.sizes or [64])[0], rounds=rounds, **shared)
    return True


if __name__ == "__main__":
    sys.exit(main())
