"""Runs the command line as a user does: as a process, with pipes or on a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

WITHIN_S = 40.0  # bound of every wait: generous, for a busy machine


class Program:
    """One ``joinleaf`` process and what it has said so far."""

    def __init__(
        self,
        *arguments: str | Path,
        stdin: bool = False,
        terminal: bool = False,
        module: str = "joinleaf",
        environment: dict[str, str] | None = None,
        stdout: int = subprocess.PIPE,
    ) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("JOINLEAF_")}
        clean |= {"TERM": "xterm", "COLUMNS": "120", "LINES": "40", **(environment or {})}
        command = [sys.executable, "-m", module, *map(str, arguments)]
        self._changed = threading.Condition()
        self._said = {"out": b"", "err": b""}
        self.terminal = -1
        if terminal:
            self.terminal, slave = os.openpty()
            self.process = subprocess.Popen(
                command,
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env=clean,
                start_new_session=True,
                preexec_fn=_own_the_terminal,
            )
            os.close(slave)
            self._readers = [self._reader(self.terminal, "out")]
        else:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.PIPE,
                env=clean,
            )
            streams = {"out": self.process.stdout, "err": self.process.stderr}
            self._readers = [
                self._reader(stream.fileno(), name)
                for name, stream in streams.items()
                if stream is not None
            ]

    def _reader(self, descriptor: int, name: str) -> threading.Thread:
        thread = threading.Thread(target=self._read, args=(descriptor, name), daemon=True)
        thread.start()
        return thread

    def _read(self, descriptor: int, name: str) -> None:
        with suppress(OSError):  # a terminal's end is an error, EIO
            while data := os.read(descriptor, 65536):
                with self._changed:
                    self._said[name] += data
                    self._changed.notify_all()

    @property
    def stdout(self) -> bytes:
        return self._said["out"]

    @property
    def stderr(self) -> str:
        return self._said["err"].decode()

    @property
    def text(self) -> str:
        return (self._said["out"] + self._said["err"]).decode(errors="replace")

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Until something said matches, on either stream."""
        deadline = time.monotonic() + WITHIN_S
        with self._changed:
            while not (found := re.search(pattern, self.text)):
                left = deadline - time.monotonic()
                ended = self.process.poll() is not None
                assert left > 0, f"never said {pattern!r}, but:\n{self.text}"
                assert not ended or any(one.is_alive() for one in self._readers), (
                    f"ended with {self.process.returncode} without {pattern!r}:\n{self.text}"
                )
                self._changed.wait(min(left, 0.2))
        return found

    def address(self) -> str:
        """Where it says that it listens."""
        return self.wait_for(r"joinleaf (?:receive|leaf) (jl://[^\s\"\x1b]+)")[1]

    def type(self, text: str) -> None:
        if self.terminal >= 0:
            os.write(self.terminal, text.encode())
        else:
            assert self.process.stdin is not None
            self.process.stdin.write(text.encode())
            self.process.stdin.flush()

    def end_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def signal(self, number: signal.Signals = signal.SIGINT) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Wait for the exit code, and for the last word."""
        code = self.process.wait(timeout=WITHIN_S)
        for reader in self._readers:
            reader.join(timeout=WITHIN_S)
        assert "Traceback" not in self.text, self.text
        return code

    def events(self, name: str = "") -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.stdout.decode().splitlines()]
        return [one for one in found if name in ("", one["event"])]

    def summary(self) -> dict[str, Any]:
        """The last JSON line, which is the only summary."""
        (summary,) = self.events("summary")
        assert self.events()[-1] == summary
        return summary

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join(timeout=WITHIN_S)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        if self.terminal >= 0:
            os.close(self.terminal)


def _own_the_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


Start = Callable[..., Program]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts programs; whatever still runs at the end of the test is killed."""
    running: list[Program] = []

    def starter(*arguments: str | Path, **options: Any) -> Program:
        running.append(Program(*arguments, **options))
        return running[-1]

    yield starter
    for program in running:
        program.close()


@pytest.fixture
def free_address() -> str:
    """An address where nobody listens, for a root that is started later, or twice."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"jl://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A file of 3 MB that no two places of are alike."""
    path = tmp_path / "image.bin"
    path.write_bytes(os.urandom(3_000_000))
    return path
