"""Programs in hosts: started together, watched, their CPU time counted, ended whatever happens."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from tests.netns.lan import Host
from tests.package import SRC

from bench.lan import call_in

__all__ = ["Fleet", "Odometer", "Program", "wait_for"]

ROOT: Final = Path(__file__).resolve().parents[1]
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_GRACE_S: Final = 2.0
"""For a program that was asked to end, before it is killed."""


@dataclass
class Program:
    """One of them.

    Attributes:
        log: What it printed, both streams.
        status: Its exit status, negative for a signal; None while it runs.
        cpu_s: User and system seconds, once it has ended.
    """

    process: subprocess.Popen[bytes]
    log: Path
    status: int | None = None
    cpu_s: float = 0.0

    def poll(self) -> int | None:
        """Its status; takes in its CPU time where it has ended."""
        if self.status is None:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                self.status = self.process.returncode = os.waitstatus_to_exitcode(status)
                self.cpu_s = usage.ru_utime + usage.ru_stime
        return self.status

    def cpu_so_far_s(self) -> float:
        """User and system seconds, to a hundredth while it runs."""
        if self.poll() is not None:
            return self.cpu_s
        with contextlib.suppress(OSError):
            # proc(5): the twelfth and thirteenth field after the name.
            stat = Path(f"/proc/{self.process.pid}/stat").read_text()
            fields = stat.rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
        return 0.0

    def last_words(self) -> str:
        """The last line it printed."""
        with contextlib.suppress(OSError):
            lines = self.log.read_text(errors="replace").split("\n")
            return next((line.strip() for line in reversed(lines) if line.strip()), "")
        return ""


@dataclass
class Fleet:
    """A context manager; leaving it ends every program that it started."""

    folder: Path
    programs: list[Program] = field(default_factory=list)

    def start(self, host: Host, *command: str, output: Path | None = None) -> Program:
        """Start a program in a host, from the project's folder.

        Args:
            host: Where.
            command: What.
            output: Where its standard output goes; None: into its log, with its complaints.
        """
        # If this process is killed there is nobody left to end them.
        tied = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        log = self.folder / f"log-{len(self.programs)}"
        with log.open("wb") as said, (output or log).open("ab") as printed:
            process = subprocess.Popen(
                [*tied, "ip", "netns", "exec", host.namespace, *command],
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=said if output else printed,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": f"{ROOT}:{SRC}", "LC_ALL": "C"},
            )
        self.programs.append(Program(process, log))
        return self.programs[-1]

    def python(self, host: Host, module: str, *arguments: str) -> Program:
        """Start a Python module in a host."""
        return self.start(host, sys.executable, "-m", module, *arguments)

    def end(self) -> None:
        """End what still runs."""
        for program in self.programs:
            if program.poll() is None:
                os.kill(program.process.pid, signal.SIGTERM)  # Popen's own would wait for it, too
        wait_for(self.programs, _GRACE_S)
        for program in self.programs:
            if program.poll() is None:
                os.kill(program.process.pid, signal.SIGKILL)
        wait_for(self.programs, _GRACE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()


def wait_for(programs: Sequence[Program], seconds: float) -> bool:
    """Whether all of them ended within this time."""
    deadline = time.monotonic() + seconds
    while any(program.poll() is None for program in programs):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


class Odometer:
    """How many bytes the interfaces of a host have sent, read without a process there."""

    def __init__(self, host: Host) -> None:
        # What the thread opens goes on showing the network it was opened in.
        self._counters = call_in(host, _counters)

    def __call__(self) -> int:
        self._counters.seek(0)
        lines = self._counters.read().splitlines()[2:]
        return sum(int(line.partition(b":")[2].split()[8]) for line in lines)

    def close(self) -> None:
        self._counters.close()


def _counters() -> IO[bytes]:
    return open("/proc/thread-self/net/dev", "rb", buffering=0)
