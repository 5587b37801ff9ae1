"""What does repair cost? ``python -m bench.parity [--only cost|ends|traffic] [--rounds N]``.

Three questions. *Cost*: what one symbol takes that mends the losses of several leaves, in
microseconds of a thread, by exclusive or (the standard library's integers; numpy) and by erasure
codes (zfec: Reed-Solomon; raptorq); then a leaf's recovery, and a whole unit at 8 leaves that lose
5 % each. What is not installed is left out: ``pip install zfec numpy raptorq``.

*Ends*: what a unit takes at the root (trains, reports) and at each leaf, with losses drawn for each
symbol and leaf between them, all in one process; CPU microseconds.

*Traffic*: symbols sent again, as a share of all, by number of leaves and loss, each leaf losing its
own: plain retransmission and combinations, both by the sender and the receivers themselves in the
simulator of the tests; combinations as they would be if the root knew every loss at once; and the
least that any code could need (the most that a leaf lacks, computed). The simulator loses repairs
as well; the two computed columns lose none.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any, Final
from unittest import mock

from tests.simulation.stream_world import MS, Faults, World

from bench.record import print_table, print_where, spread
from joinleaf.core.reliability import sender
from joinleaf.core.reliability.parity import combine
from joinleaf.core.reliability.partial import Partial
from joinleaf.core.reliability.receiver import StreamReceiver
from joinleaf.core.wire.frames import HEADER, RAW, data_header
from joinleaf.core.wire.reports import decode_start
from joinleaf.core.wire.units import Layout, exclusive_or

__all__ = ["main"]

LAYOUT: Final = Layout(1452)
SYMBOL: Final = LAYOUT.payload
COUNT: Final = 43  # symbols of a unit of 61,748 bytes
PARITY: Final = 5  # what 8 leaves that lose 5 % each need of a unit, about
GROUPS: Final = (1, 4, 8, 32, 100)
LOSSES: Final = (0.01, 0.05)

Call = Callable[[], object]


def _found(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _us(call: Call, rounds: int) -> str:
    """Microseconds of a call: median of the rounds, lowest and highest."""
    times = []
    for _ in range(rounds):
        begin = time.process_time_ns()
        for _ in range(200):
            call()
        times.append((time.process_time_ns() - begin) / 200_000)
    return spread(times)


# Cost


def _cost(rounds: int) -> None:
    numpy, zfec, raptorq = map(_found, ("numpy", "zfec", "raptorq"))
    symbols = [os.urandom(SYMBOL) for _ in range(COUNT)]
    views = [memoryview(symbol) for symbol in symbols]
    rows = []
    for parts in (2, 4, 8):
        rows.append([f"combine {parts}: int", _us(_by_int(views[:parts]), rounds)])
        if numpy is not None:
            rows.append([f"combine {parts}: numpy", _us(_by_numpy(numpy, views[:parts]), rounds)])
    rows += [
        [f"recover one of {parts}: int", _us(_recovery(symbols, parts), rounds)] for parts in (2, 8)
    ]
    if zfec is not None:
        rows += _by_zfec(zfec, symbols, rounds)
    if raptorq is not None:
        rows += _by_raptorq(raptorq, symbols, rounds)
    rows += _unit_of_eight_leaves(views, rounds)
    print_table(f"us, symbols of {SYMBOL} bytes, units of {COUNT}", ["what", "us"], rows)


def _by_int(parts: list[memoryview]) -> Call:
    return lambda: exclusive_or(parts, SYMBOL)


def _by_numpy(numpy: Any, parts: list[memoryview]) -> Call:
    def combined() -> bytes:
        total = numpy.frombuffer(parts[0], numpy.uint8).copy()
        for part in parts[1:]:
            total ^= numpy.frombuffer(part, numpy.uint8)
        return bytes(total)

    return combined


def _recovery(symbols: list[bytes], parts: int) -> Call:
    """As a leaf does it: the pieces lie in the chunks of a unit that lacks two symbols."""
    partial = Partial(0, 0, COUNT, 0)
    for first, end in ((0, 3), (4, 30), (31, COUNT)):
        partial.add(first, symbols[first:end])
    bitmap = sum(1 << 3 + 4 * place for place in range(parts))
    payload = memoryview(bytes(SYMBOL))
    return lambda: partial.recovered(bitmap, 1 << 3, payload)


def _by_zfec(zfec: Any, symbols: list[bytes], rounds: int) -> list[list[str]]:
    encoder, decoder = zfec.Encoder(COUNT, 2 * COUNT), zfec.Decoder(COUNT, 2 * COUNT)
    rows = []
    for lost in (1, 2, PARITY):
        numbers = list(range(COUNT, COUNT + lost))
        parity = encoder.encode(symbols, numbers)
        blocks, indices = parity + symbols[lost:], [*numbers, *range(lost, COUNT)]
        assert decoder.decode(blocks, indices)[:lost] == symbols[:lost]
        encode = _us(lambda numbers=numbers: encoder.encode(symbols, numbers), rounds)  # type: ignore[misc]
        decode = _us(lambda b=blocks, i=indices: decoder.decode(b, i), rounds)  # type: ignore[misc]
        rows.append([f"{lost} for a unit: zfec", encode])
        rows.append([f"recover {lost} of a unit: zfec", decode])
    return rows


def _by_raptorq(raptorq: Any, symbols: list[bytes], rounds: int) -> list[list[str]]:
    whole = b"".join(symbols)

    def encode() -> Any:
        return raptorq.Encoder.with_defaults(whole, SYMBOL).get_encoded_packets(PARITY)

    packets = encode()

    def decode() -> Any:
        decoder = raptorq.Decoder.with_defaults(len(whole), SYMBOL)
        for packet in packets[2:]:
            if (done := decoder.decode(packet)) is not None:
                return done
        raise AssertionError("not enough")

    assert decode() == whole
    return [
        [f"{PARITY} for a unit: raptorq", _us(encode, max(1, rounds // 5))],
        ["recover 2 of a unit: raptorq", _us(decode, max(1, rounds // 5))],
    ]


def _unit_of_eight_leaves(views: list[memoryview], rounds: int) -> list[list[str]]:
    """Choose and combine, on the average of some patterns of loss."""
    rng = random.Random(1)
    lost = [_patterns(rng, 8, 0.05) for _ in range(20)]

    def choose() -> list[list[int]]:
        return [combine(patterns, (1 << COUNT) - 1) for patterns in lost]

    def make() -> None:
        for combinations in choose():
            for parts in combinations:
                exclusive_or((views[at] for at in range(COUNT) if parts >> at & 1), SYMBOL)

    def per_unit(call: Call) -> str:
        times = []
        for _ in range(rounds):
            begin = time.process_time_ns()
            call()
            times.append((time.process_time_ns() - begin) / 1000 / len(lost))
        return spread(times)

    return [
        ["a unit, 8 leaves, 5 %: choose", per_unit(choose)],
        ["a unit, 8 leaves, 5 %: choose and combine, int", per_unit(make)],
    ]


def _patterns(rng: random.Random, leaves: int, loss: float) -> set[int]:
    """What leaves lack of one unit."""
    drawn = {
        sum(1 << place for place in range(COUNT) if rng.random() < loss) for _ in range(leaves)
    }
    return drawn - {0}


# Ends


def _ends(units: int) -> None:
    rows = []
    for leaves, loss in ((1, 0.0), (1, 0.05), (8, 0.0), (8, 0.01), (8, 0.05)):
        spent, share = _both_ends(leaves, loss, units)
        figures = (f"{each / units / 1000:.0f}" for each in spent)
        rows.append([str(leaves), f"{loss:.0%}", *figures, f"{share:.1%}"])
    head = ["leaves", "loss", "root: trains", "root: reports", "a leaf", "sent again"]
    print_table(f"CPU us a unit, {units} units", head, rows)


def _both_ends(leaves: int, loss: float, units: int) -> tuple[tuple[float, float, float], float]:
    """Nanoseconds for trains, reports and one leaf; and the share of bytes sent again."""
    rng, clock, now = random.Random(1), time.process_time_ns, 1_000_000_000
    root = sender.StreamSender(LAYOUT, tag=1, window_bytes=4 << 20)
    receivers = [StreamReceiver(tag=1, window_bytes=4 << 20, backoff_seed=n) for n in range(leaves)]
    for key, receiver in enumerate(receivers):
        frame = root.start(root.add_leaf(key, 4 << 20, now))
        receiver.start(*decode_start(memoryview(frame)[HEADER.size :]))
    payload = data_header(SYMBOL * COUNT - 20, RAW, 0, 0) + rng.randbytes(SYMBOL * COUNT - 20)
    poll = report = leaf = begun = 0
    reports: list[tuple[int, bytes]] = []
    while begun < units or not root.has_room or any(map(root.unacknowledged, range(leaves))):
        now += 50_000
        if begun < units and root.has_room:
            root.begin([payload], len(payload))
            begun += 1
        start = clock()
        for key, frame in reports:
            root.handle_report(key, memoryview(frame)[HEADER.size :], now)
        between = clock()
        trains = []
        while (train := root.poll_transmit(now)) is not None:
            trains.append(train)
        report, poll = report + between - start, poll + clock() - between
        reports.clear()
        for key, receiver in enumerate(receivers):
            heard = [(_lossy(train, rng, loss), train.segment) for train in trains]
            start = clock()
            for view, segment in heard:
                receiver.handle_train(view, segment, now + 200_000)
            receiver.take()
            told = receiver.poll_report(now + 200_000)
            leaf += clock() - start
            if told is not None:
                reports.append((key, told))
    counters = root.counters
    return (poll, report, leaf / leaves), counters["repair_bytes"] / counters["bytes"]


def _lossy(train: sender.Train, rng: random.Random, loss: float) -> memoryview:
    """A train as the kernel coalesces what is left of it."""
    places = range(0, len(train.buffer), train.segment)
    kept = [train.buffer[at : at + train.segment] for at in places if rng.random() >= loss]
    return memoryview(bytearray(b"".join(kept)))


# Traffic


def _traffic(units: int) -> None:
    rows = []
    for loss in LOSSES:
        for leaves in GROUPS:
            few = units if leaves < 32 else units // 3
            with mock.patch.object(sender, "combine", _one_by_one):
                plain = _sent_again(leaves, loss, few)
            shares = (
                plain,
                _sent_again(leaves, loss, few),
                _at_once(leaves, loss),
                least(leaves, loss),
            )
            rows.append([f"{loss:.0%}", str(leaves), *(f"{share:.1%}" for share in shares)])
    head = ["loss", "leaves", "one by one", "combined", "combined, all known", "least of any code"]
    print_table("Symbols sent again", head, rows)


def _one_by_one(patterns: Any, _combinable: int) -> list[int]:
    union = 0
    for pattern in patterns:
        union |= pattern
    return [1 << place for place in range(64) if union >> place & 1]


def _sent_again(leaves: int, loss: float, units: int) -> float:
    world = World(f"{leaves}/{loss}", window_bytes=4 << 20)
    for _ in range(leaves):
        world.join(Faults(loss), window_bytes=4 << 20)
    world.run(20 * MS)
    for _ in range(units):
        world.send([SYMBOL * COUNT - 20])
        world.run(600_000)  # 100 MB/s
    world.settle()
    for leaf in world.leaves:
        world.check_complete(leaf)
    counters = world.sender.counters
    return counters["repair_bytes"] / counters["bytes"]


def _at_once(leaves: int, loss: float) -> float:
    rng = random.Random(f"{leaves}/{loss}")
    units = 200
    sent = sum(len(combine(_patterns(rng, leaves, loss), (1 << COUNT) - 1)) for _ in range(units))
    return sent / units / COUNT


def least(leaves: int, loss: float) -> float:
    """The expected most that one of the leaves lacks of a unit, as a share of it."""
    most, below = 0.0, 0.0
    for lost in range(COUNT):
        below += math.comb(COUNT, lost) * loss**lost * (1 - loss) ** (COUNT - lost)
        most += 1 - below**leaves
    return most / COUNT


def main() -> int:
    """Answer what was asked."""
    parser = argparse.ArgumentParser(prog="python -m bench.parity", description=__doc__)
    parser.add_argument("--only", choices=["cost", "ends", "traffic"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--units", type=int, default=150, help="a third of them from 32 leaves on")
    options = parser.parse_args()
    print_where()
    if options.only in (None, "cost"):
        _cost(options.rounds)
    if options.only in (None, "ends"):
        _ends(10 * options.units)
    if options.only in (None, "traffic"):
        _traffic(options.units)
    return 0


if __name__ == "__main__":
    sys.exit(main())
