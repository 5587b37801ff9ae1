"""Processes for one contender: a sender and its receivers, told over pipes what to do.

They come from a fork server that has everything imported, so a crew costs milliseconds, and stay
for all rounds. CPU time is that of the processes themselves, user and system, over one job.
"""

from __future__ import annotations

import contextlib
import cProfile
import multiprocessing
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any, Final, Self

from tests.netns.lan import Host

from bench.contenders import PATIENCE_S, Contender, batch_of
from bench.lan import BenchLan, enter
from bench.roster import EVERY

__all__ = ["Crew", "Result"]

_context: Final = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["bench.roster", "bench.lan"])

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


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


def _cpu_s(server: int | None = None) -> float:
    """Of this process, and of a server it started."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    own = usage.ru_utime + usage.ru_stime
    if server is None:
        return own
    # proc(5): user and system time are the twelfth and thirteenth field after the name.
    fields = Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()
    return own + (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


Line = tuple[str, int, float]
"""A function, how often it was called, and seconds in itself."""


def _profiled(work: Callable[[], object]) -> list[Line]:
    profile = cProfile.Profile()
    profile.runcall(work)
    return [
        (_name_of(entry.code), entry.callcount, entry.inlinetime) for entry in profile.getstats()
    ]


def _name_of(code: CodeType | str) -> str:
    if isinstance(code, str):
        return code.strip("<>")
    return f"{'/'.join(Path(code.co_filename).parts[-2:])}:{code.co_firstlineno} {code.co_name}"


def _guarded(pipe: Connection, work: Callable[[], None]) -> None:
    """Whatever goes wrong in a worker ends the benchmark with its traceback."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that an end closes what it started
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it and ends its workers
    try:
        work()
    except EOFError:
        pass  # the parent is gone
    except BaseException:
        pipe.send(("failed", traceback.format_exc()))
        raise


def _run_sender(pipe: Connection, host: Host | None, name: str, size: int, leaves: int) -> None:
    def work() -> None:
        if host is not None:
            enter(host)
        end = EVERY[name].sender(size, "127.0.0.1" if host is None else host.ipv4)
        server: int | None = getattr(end, "server_pid", None)
        with contextlib.closing(end):
            pipe.send(("address", end.address))
            end.wait_for(leaves)
            pipe.send(("ready", None))
            batch = batch_of(size)
            while (job := pipe.recv()) is not None:
                cpu_s, began = _cpu_s(server), time.monotonic()
                if job[0] == "send":
                    end.send(batch, job[1])
                    pipe.send(("sent", began))
                elif job[0] == "profile":
                    pipe.send(("profiled", _profiled(lambda: end.send(batch, job[1]))))
                else:
                    pipe.send(("asked", end.ask(job[1], job[2], size)))
                pipe.recv()  # all have it: what ran in the background meanwhile counts as well
                pipe.send(("cpu", _cpu_s(server) - cpu_s))

    _guarded(pipe, work)


def _run_receiver(
    pipe: Connection,
    host: Host | None,
    name: str,
    size: int,
    address: str,
    turn: int,
    leaves: int,
) -> None:
    def work() -> None:
        if host is not None:
            enter(host)
        end = EVERY[name].receiver(address, size)
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
            elif job[0] == "profile":
                lines = _profiled(lambda: end.receive(job[1] * batch))
                pipe.send(("done", (lines, 0.0)))
            else:
                end.answer(job[1], turn, leaves)
                pipe.send(("done", (time.monotonic(), _cpu_s() - cpu_s)))
        end.close()

    _guarded(pipe, work)


class Crew:
    """See the module. A context manager; leaving it ends the processes.

    Args:
        contender: Whose ends to run.
        size: Of the messages, in bytes.
        leaves: How many receivers.
        net: Where they are: the sender is its root. None: all on this host's loopback.
    """

    def __init__(
        self, contender: Contender, size: int, leaves: int, net: BenchLan | None = None
    ) -> None:
        hosts = [None] * (leaves + 1) if net is None else [net.root, *net.leaves]
        self._processes: list[Any] = []  # the context's own process type has no public name
        self._batch = len(batch_of(size))
        self._receivers: list[Connection] = []
        try:
            self._gather(hosts, contender.name, size, leaves)
        except BaseException:
            self._end(0.0)
            raise

    def _gather(self, hosts: Sequence[Host | None], name: str, size: int, leaves: int) -> None:
        self._sender = self._start(_run_sender, hosts[0], name, size, leaves)
        address = self._expect(self._sender, "address")
        self._receivers += [
            self._start(_run_receiver, hosts[1 + turn], name, size, address, turn, leaves)
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

    def profile(self, times: int) -> tuple[list[Line], list[Line]]:
        """Have the batch sent so many times; where the sender and the first receiver spent it."""
        for pipe in self._receivers:
            pipe.send(("profile", times))
        for pipe in self._receivers:
            self._expect(pipe, "armed")
        self._sender.send(("profile", times))
        sending = self._expect(self._sender, "profiled")
        receiving = [self._expect(pipe, "done")[0] for pipe in self._receivers]
        self._sender.send("all have it")
        self._expect(self._sender, "cpu")
        return sending, receiving[0]

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
        self._end(0.0 if error is not None else 5.0)

    def _end(self, patience_s: float) -> None:
        for process in self._processes:
            process.join(patience_s)
            if process.is_alive():
                process.terminate()
                process.join(1.0)
            if process.is_alive():
                process.kill()
                process.join()
