"""Processes for one contender: a sender and its receivers, told over pipes what to do.

They come from a fork server that has everything imported, so a crew costs milliseconds, and stay
for all rounds. CPU time is that of the processes themselves, user and system, over one job.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Final, Self

from bench.aio_contenders import AIO
from bench.contenders import ALL, PATIENCE_S, Contender, batch_of

__all__ = ["Crew", "Result"]

_context: Final = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["bench.contenders", "bench.aio_contenders"])

_EVERY: Final = {**ALL, **AIO}


@dataclass(frozen=True)
class Result:
    """One job.

    Attributes:
        seconds: From the first send to the last receiver's last message.
        cpu_s: User and system time of all processes.
        messages: How many each receiver got.
    """

    seconds: float
    cpu_s: float
    messages: int


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _guarded(pipe: Connection, work: Callable[[], None]) -> None:
    """Whatever goes wrong in a worker ends the benchmark with its traceback."""
    try:
        work()
    except EOFError:
        pass  # the parent is gone
    except BaseException:
        pipe.send(("failed", traceback.format_exc()))
        raise


def _run_sender(pipe: Connection, name: str, size: int, leaves: int) -> None:
    def work() -> None:
        end = _EVERY[name].sender(size)
        pipe.send(("address", end.address))
        end.wait_for(leaves)
        pipe.send(("ready", None))
        batch = batch_of(size)
        while (job := pipe.recv()) is not None:
            cpu_s, began = _cpu_s(), time.monotonic()
            if job[0] == "send":
                end.send(batch, job[1])
                pipe.send(("sent", began))
            else:
                pipe.send(("asked", end.ask(job[1], job[2], size)))
            pipe.recv()  # all have it: what ran in the background meanwhile counts as well
            pipe.send(("cpu", _cpu_s() - cpu_s))
        end.close()

    _guarded(pipe, work)


def _run_receiver(
    pipe: Connection, name: str, size: int, address: str, turn: int, leaves: int
) -> None:
    def work() -> None:
        end = _EVERY[name].receiver(address, size)
        pipe.send(("ready", None))
        batch = len(batch_of(size))
        while (job := pipe.recv()) is not None:
            pipe.send(("armed", None))
            cpu_s = _cpu_s()
            if job[0] == "send":
                total, stamp = end.receive(job[1] * batch)
                ended, cpu_s = time.monotonic(), _cpu_s() - cpu_s
                if total != job[1] * batch * size or stamp != batch - 1:
                    raise AssertionError(f"{total} bytes, last message {stamp}: not what was sent")
                pipe.send(("done", (ended, cpu_s)))
            else:
                end.answer(job[1], turn, leaves)
                pipe.send(("done", (time.monotonic(), _cpu_s() - cpu_s)))
        end.close()

    _guarded(pipe, work)


class Crew:
    """See the module. A context manager; leaving it ends the processes."""

    def __init__(self, contender: Contender, size: int, leaves: int) -> None:
        self._processes: list[Any] = []  # the context's own process type has no public name
        self._batch = len(batch_of(size))
        self._sender = self._start(_run_sender, contender.name, size, leaves)
        address = self._expect(self._sender, "address")
        self._receivers = [
            self._start(_run_receiver, contender.name, size, address, turn, leaves)
            for turn in range(leaves)
        ]
        for pipe in (*self._receivers, self._sender):
            self._expect(pipe, "ready")

    def _start(self, target: Callable[..., None], *args: object) -> Connection:
        ours, theirs = _context.Pipe()
        process = _context.Process(target=target, args=(theirs, *args), daemon=True)
        process.start()
        theirs.close()
        self._processes.append(process)
        return ours

    @staticmethod
    def _expect(pipe: Connection, what: str) -> Any:
        if not pipe.poll(PATIENCE_S):
            raise TimeoutError(f"no '{what}' from a worker within {PATIENCE_S} s")
        kind, value = pipe.recv()
        if kind != what:
            raise RuntimeError(f"a worker {kind}:\n{value}")
        return value

    def send(self, times: int) -> Result:
        """Have the batch sent so many times, and received by all."""
        began, ended, cpu_s = self._job(("send", times), "sent")
        return Result(ended - began, cpu_s, times * self._batch)

    def ask(self, count: int, interval_s: float) -> tuple[list[int], float]:
        """Round trips in nanoseconds, and CPU seconds of all processes together."""
        times, _, cpu_s = self._job(("ask", count, interval_s), "asked")
        return times, cpu_s

    def _job(self, job: tuple[Any, ...], word: str) -> tuple[Any, float, float]:
        for pipe in self._receivers:
            pipe.send(job)
        for pipe in self._receivers:
            self._expect(pipe, "armed")
        self._sender.send(job)
        answer = self._expect(self._sender, word)
        done = [self._expect(pipe, "done") for pipe in self._receivers]
        self._sender.send("all have it")
        cpu_s = self._expect(self._sender, "cpu") + sum(cpu for _, cpu in done)
        return answer, max(ended for ended, _ in done), cpu_s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pipe in (*self._receivers, self._sender):
            try:
                pipe.send(None)
            except OSError:
                continue  # ended already
        for process in self._processes:
            process.join(0.0 if error is not None else 5.0)
            if process.is_alive():
                process.kill()
                process.join()
