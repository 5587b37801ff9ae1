"""A file to many: started, watched from outside, compared with the original.

The clock runs from the first tenth of a megabyte that leaves the sender's interface to the moment
when the last receiver's file has its full length under its own name.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bench.bulk_ways import Job, Transfer, TransferError, Way
from bench.fleet import Fleet, Odometer, Program, wait_for

__all__ = ["send_file"]

FIRST_BYTES: Final = 100_000
"""More than any rendezvous takes: from here on it is the transfer."""

LOOK_S: Final = 0.002
LIMIT_S: Final = 60.0
"""For one transfer; who takes longer is out."""


def send_file(way: Way, job: Job) -> Transfer:
    """Do the job once.

    Raises:
        TransferError: A receiver does not have the file, or another; or the way cannot do this.
    """
    if reason := way.wants(job):
        raise TransferError(reason)
    folder = job.folder / "run"
    for number in range(len(job.leaves)):
        (job.folder / str(number)).mkdir()
    folder.mkdir()
    spare = job.folder / "spare"
    try:
        _touch_memory(spare, job)
        with Fleet(folder) as fleet, contextlib.closing(Odometer(job.root)) as sent:
            way.receive(job, fleet)
            receivers = list(fleet.programs)
            if way.listens:
                _wait_for_listeners(receivers, way.listens, job)
            spare.unlink()
            before = sent()
            senders = way.send(job, fleet)
            done = _watch(job, receivers, senders, lambda: sent() - before)
        _verify(job)
        return done
    finally:
        spare.unlink(missing_ok=True)
        for number in range(len(job.leaves)):
            shutil.rmtree(job.folder / str(number), ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def _touch_memory(spare: Path, job: Job) -> None:
    """Have the machine's memory for all the files in use, until the sender starts.

    A virtual machine gets memory from its host when it is first written to, and that takes five
    times as long as the writing: every way would be measured by it, and none by itself. What is
    free for some seconds it gives back, so that who takes long to start would have none.
    """
    block = bytes(1 << 20)
    with spare.open("wb", buffering=0) as file:
        for _ in range(job.size * len(job.leaves) >> 20):
            file.write(block)


def _wait_for_listeners(receivers: Sequence[Program], port: int, job: Job) -> None:
    deadline = time.monotonic() + LIMIT_S
    for number, receiver in enumerate(receivers):
        wanted = f":{port + number:04X} 00000000:0000 0A"  # proc_net_tcp(5): LISTEN
        while True:
            with contextlib.suppress(OSError):
                if wanted in Path(f"/proc/{receiver.process.pid}/net/tcp").read_text():
                    break
            if receiver.poll() is not None or time.monotonic() > deadline:
                raise TransferError(f"a receiver does not listen: {receiver.last_words()}")
            time.sleep(LOOK_S)


def _watch(
    job: Job, receivers: Sequence[Program], senders: Sequence[Program], sent: Callable[[], int]
) -> Transfer:
    started = time.monotonic()
    while sent() < FIRST_BYTES:
        _check(started, receivers, senders, job)
        time.sleep(LOOK_S)
    began = time.monotonic()
    cpu_s = sum(sender.cpu_so_far_s() for sender in senders)
    missing = set(range(len(job.leaves)))
    while missing := {number for number in missing if not _complete(job, number)}:
        _check(started, receivers, senders, job)
        time.sleep(LOOK_S)
    ended = time.monotonic()
    if not wait_for(senders, LIMIT_S):
        raise TransferError(f"the sender does not end: {senders[0].last_words()}")
    cpu_s = sum(sender.cpu_s for sender in senders) - cpu_s
    return Transfer(ended - began, ended - started, cpu_s)


def _complete(job: Job, number: int) -> bool:
    with contextlib.suppress(OSError):
        return job.target(number).stat().st_size == job.size
    return False


def _check(
    started: float, receivers: Sequence[Program], senders: Sequence[Program], job: Job
) -> None:
    failed = [program for program in (*senders, *receivers) if program.poll() not in (None, 0)]
    if time.monotonic() - started < LIMIT_S and not failed:
        return
    have = sum(_complete(job, number) for number in range(len(job.leaves)))
    why = f"{have} of {len(job.leaves)} finished"
    if failed:
        raise TransferError(f"{why}: {failed[0].last_words()[:120]} (exit {failed[0].status})")
    raise TransferError(f"{why} within {LIMIT_S:.0f} s")


def _verify(job: Job) -> None:
    wanted = _digest(job.source)
    for number in range(len(job.leaves)):
        if _digest(job.target(number)) != wanted:
            raise TransferError(f"the file of receiver {number + 1} is not what was sent")


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
