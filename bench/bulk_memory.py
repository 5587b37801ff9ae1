"""What is in memory to many: joinleaf in Python beside C programs.

The C programs (``bench/c``) tell what the network carries by itself: plain TCP to each receiver
with large writes, and one offloaded multicast stream that nobody repairs.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import limits
from bench.bulk_end import MESSAGE_BYTES
from bench.bulk_ways import GROUP, PORT, Job, Transfer, TransferError
from bench.fleet import Fleet, Program

__all__ = ["MEMORY_WAYS", "MemoryWay"]

LIMIT_S: Final = 60.0
"""For one transfer; who takes longer is out."""

SHAPED_WINDOW: Final = 256 << 10
"""Of the unrepaired stream on the shaped link, whose queue holds a megabyte."""

LOOPBACK_SEGMENT: Final = 60_000
"""The interface takes datagrams of that size as they are."""


@dataclass(frozen=True)
class MemoryWay:
    """One way.

    Attributes:
        run: Does the job once; raises TransferError.
        why_not: What is missing on this machine; empty if nothing is.
        reliable: Whether losses are repaired: otherwise it is only for networks without.
    """

    name: str
    run: Callable[[Job], Transfer]
    why_not: Callable[[], str] = lambda: ""
    reliable: bool = True


def _tcp(job: Job) -> Transfer:
    net = None if job.where == "loopback" else job.net
    with _explained():
        carried = limits.tcp_limit(len(job.leaves), job.size, net=net)
    return Transfer(job.size / carried.slowest)


def _group(job: Job) -> Transfer:
    on_loopback = job.where == "loopback"
    with _explained():
        carried = limits.group_limit(
            len(job.leaves),
            job.size,
            net=None if on_loopback else job.net,
            segment=LOOPBACK_SEGMENT if on_loopback else limits.SEGMENT,
            window_bytes=SHAPED_WINDOW if job.where == "gigabit" else limits.WINDOW,
        )
    if carried.lost:
        raise TransferError(f"{carried.lost:.2%} lost")
    return Transfer(job.size / carried.slowest)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, TimeoutError) as error:
        raise TransferError(str(error)[:120]) from error


def _joinleaf(suffix: str) -> Callable[[Job], Transfer]:
    def run(job: Job) -> Transfer:
        size = job.size // MESSAGE_BYTES * MESSAGE_BYTES
        folder = job.folder / "run"
        folder.mkdir()
        try:
            with Fleet(folder) as fleet:
                where = f"jl://{job.root.ipv4}:{PORT}"
                receivers = [
                    fleet.python(host, "bench.bulk_end", "receive", where, str(size))
                    for host in job.leaves
                ]
                counts = str(len(job.leaves)), str(size)
                sender = fleet.python(job.root, "bench.bulk_end", "send", where + suffix, *counts)
                return _await(job, sender, receivers, size)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    return run


def _await(job: Job, sender: Program, receivers: list[Program], size: int) -> Transfer:
    deadline = time.monotonic() + LIMIT_S
    everybody = [sender, *receivers]
    while any(program.poll() is None for program in everybody):
        failed = [program for program in everybody if program.poll() not in (None, 0)]
        if failed or time.monotonic() > deadline:
            have = sum(_told(receiver, "done") is not None for receiver in receivers)
            why = failed[0].last_words()[:120] if failed else f"within {LIMIT_S:.0f} s"
            raise TransferError(f"{have} of {len(receivers)} finished: {why}")
        time.sleep(0.005)
    began, cpu_s = _told(sender, "began"), _told(sender, "ended")
    done = [_told(receiver, "done") for receiver in receivers]
    if began is None or cpu_s is None or None in done:
        raise TransferError(f"no result: {sender.last_words()[:120]}")
    seconds = (max(moment for moment in done if moment is not None) - began) / 1e9
    return Transfer(seconds * job.size / size, sender_cpu_s=cpu_s)


def _told(program: Program, word: str) -> float | None:
    """The figure behind a word in what it printed."""
    for line in Path(program.log).read_text(errors="replace").splitlines():
        if line.startswith(word + " "):
            return float(line.split()[1])
    return None


MEMORY_WAYS: Final = {
    way.name: way
    for way in (
        MemoryWay("TCP to each (C)", _tcp, limits.why_not),
        MemoryWay("unrepaired multicast (C)", _group, limits.why_not, reliable=False),
        MemoryWay("joinleaf", _joinleaf("")),
        MemoryWay("joinleaf, multicast", _joinleaf(f"?data={GROUP}")),
    )
}
"""By name. The first is what the others are compared with."""
