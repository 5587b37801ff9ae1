"""How long does it take to bring a file, or what is in memory, to all?

Files are in memory (tmpfs) at both ends, and every copy is compared with the original afterwards,
outside the time. Rendezvous and start-up are told apart, as the time of the whole command. Ways
take turns within every round; who fails is out, with the reason.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.bulk_files import send_file
from bench.bulk_memory import MEMORY_WAYS
from bench.bulk_ways import FILE_WAYS, Job, Transfer, TransferError
from bench.lan import BenchLan
from bench.places import GIGABIT, PLACES, Place, place
from bench.record import print_table, spread

__all__ = ["run"]

TMPFS: Final = Path("/dev/shm")
MEGABYTE: Final = 1_000_000

WIRE_BYTES_PER_S: Final = GIGABIT / 8 * 1448 / 1514
"""What the shaped link can carry of payload: 1,448 bytes in a frame of 1,514."""

Runs = Mapping[str, Callable[[Job], Transfer]]
"""Ways by name; each raises TransferError."""


@dataclass
class _Cell:
    """One table: what came of it, by name of the way, in the order of the rounds."""

    results: dict[str, list[Transfer]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Case:
    """What one table is about.

    Attributes:
        kind: "file" or "memory".
        loss: Per cent of packets that every receiver loses.
        size: In bytes.
    """

    kind: str
    where: Place
    loss: int
    leaves: int
    size: int


def run(
    wanted: Sequence[Place],
    *,
    what: Sequence[str],
    leaves: Sequence[int],
    losses: Sequence[int],
    megabytes: int | None,
    rounds: int,
    only: Sequence[str],
    quick: bool,
) -> int:
    """Print a table for each place, share of loss, kind and number of leaves.

    Args:
        wanted: Kinds of network. Losses are not for loopback and the shaped link.
        what: Of "file" and "memory".
        leaves: Numbers of receivers.
        losses: Per cent of packets that every receiver loses.
        megabytes: How much to send; None: 512, with losses and on the shaped link 128.
        rounds: How often each way has its turn.
        only: Names of ways; empty: all.
        quick: An eighth of the size, if ``megabytes`` does not say.

    Returns:
        The exit code: 2 if nobody is left to compare.
    """
    able = {"file": _files(only), "memory": _memory(only)}
    if not any(able[kind] for kind in what):
        print("nobody is left to compare; on Debian: apt install uftp udpcast socat gcc")
        return 2
    with _scratch() as folder:
        for where in wanted:
            for loss in losses if where in ("bridge", "mtu") else [0]:
                mine = megabytes or (512 if where != "gigabit" and not loss else 128)
                size = mine * MEGABYTE // (8 if quick and not megabytes else 1)
                for count in leaves:
                    for kind in what:
                        case = _Case(kind, where, loss, count, size)
                        _show(case, _measure(able[kind], case, rounds, folder))
    return 0


def _files(only: Sequence[str]) -> Runs:
    ways = {name: way for name, way in FILE_WAYS.items() if not only or name in only}
    reasons = {name: way.why_not() for name, way in ways.items()}
    _tell_missing(reasons)
    return {
        name: functools.partial(send_file, way) for name, way in ways.items() if not reasons[name]
    }


def _memory(only: Sequence[str]) -> Runs:
    ways = {name: way for name, way in MEMORY_WAYS.items() if not only or name in only}
    reasons = {name: way.why_not() for name, way in ways.items()}
    _tell_missing(reasons)
    return {name: way.run for name, way in ways.items() if not reasons[name]}


def _tell_missing(reasons: Mapping[str, str]) -> None:
    for name, reason in reasons.items():
        if reason:
            print(f"left out: {name} ({reason}); on Debian: apt install uftp udpcast socat gcc")


@contextmanager
def _scratch() -> Iterator[Path]:
    where = TMPFS if TMPFS.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="jlbench-", dir=where) as folder:
        yield Path(folder)


def _measure(runs: Runs, case: _Case, rounds: int, folder: Path) -> _Cell:
    cell = _Cell()
    chosen = {name: run for name, run in runs.items() if _fits(name, case)}
    if not chosen:
        return cell
    source = _source(folder, case)
    with place(case.where, case.leaves, loss=case.loss / 100) as net:
        job = _job(case, net, source, folder)
        for _ in range(rounds):
            for name, run in chosen.items():
                if name not in cell.failures:
                    _take_turn(cell, name, run, job)
    return cell


def _fits(name: str, case: _Case) -> bool:
    """Whether a way is of interest here."""
    if "Mbit/s" in name:
        return case.where == "gigabit"
    return not case.loss or name not in MEMORY_WAYS or MEMORY_WAYS[name].reliable


def _take_turn(cell: _Cell, name: str, run: Callable[[Job], Transfer], job: Job) -> None:
    try:
        cell.results.setdefault(name, []).append(run(job))
    except TransferError as error:
        cell.failures[name] = str(error)
        cell.results.pop(name, None)


def _source(folder: Path, case: _Case) -> Path:
    """The file to send, made when first wanted; one at a time."""
    source = folder / f"data-{case.size}"
    if case.kind == "file" and not source.exists():
        for old in folder.glob("data-*"):
            old.unlink()
        with source.open("wb") as file:
            for start in range(0, case.size, MEGABYTE):
                file.write(os.urandom(min(MEGABYTE, case.size - start)))
    return source


def _job(case: _Case, net: BenchLan, source: Path, folder: Path) -> Job:
    hosts = [net.root] * case.leaves if case.where == "loopback" else net.leaves
    return Job(case.where, net, hosts, source, case.size, folder)


def _show(case: _Case, cell: _Cell) -> None:
    if not cell.results and not cell.failures:
        return
    first, reference = next(iter(cell.results.items()), ("none", []))
    head = ["way", "s", "MB/s at each", f"speed / {first}'s", "sender's CPU s per leaf"]
    head += ["s, whole command"] if case.kind == "file" else []
    head += ["share of the wire"] if case.where == "gigabit" else []
    rows = [(name, *_cells(case, mine, reference)) for name, mine in cell.results.items()]
    to = f"{case.leaves} {'leaf' if case.leaves == 1 else 'leaves'}"
    lossy = f", {case.loss} % loss at every receiver" if case.loss else ""
    sent = f"{case.size // MEGABYTE:,} MB from {case.kind} to {case.kind}"
    title = f"{sent}, {to}, {PLACES[case.where]}{lossy}"
    print_table(title, head, rows, cell.failures)


def _cells(case: _Case, mine: Sequence[Transfer], reference: Sequence[Transfer]) -> list[str]:
    speeds = [case.size / one.seconds for one in mine]
    faster = [other.seconds / one.seconds for one, other in zip(mine, reference, strict=False)]
    cpu = [one.sender_cpu_s / case.leaves for one in mine if one.sender_cpu_s is not None]
    cells = [
        spread([one.seconds for one in mine]),
        spread([speed / MEGABYTE for speed in speeds], ",.0f"),
        spread(faster),
        spread(cpu, ".3f") if cpu else "-",
    ]
    if case.kind == "file":
        cells.append(spread([one.whole_s for one in mine if one.whole_s is not None]))
    if case.where == "gigabit":
        cells.append(spread([speed / WIRE_BYTES_PER_S for speed in speeds]))
    return cells
