"""What a verb says: talk for people on standard error, JSON lines on standard output.

Data (a received stream, a live session's messages, a listing) go to standard output, everything
else to standard error, so that a pipe carries nothing but data. Progress is drawn on a terminal
only and said in plain lines otherwise; ``NO_COLOR`` takes the colours away.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console
from rich.text import Text

__all__ = ["Common", "Talk", "hush_stdout"]

_log: Final = logging.getLogger("joinleaf")


@dataclass(frozen=True, slots=True)
class Common:
    """The options that every verb has.

    Attributes:
        json: Events as JSON lines on standard output, a summary last.
        quiet: Nothing on standard error but errors.
        verbose: 1 shows what the library logs, 2 its details as well.
    """

    json: bool = False
    quiet: bool = False
    verbose: int = 0


class Talk:
    """The voice of one verb. Safe to use from several threads.

    Attributes:
        verb: Its name.
        console: Standard error.
        live: Whether progress can be drawn there.
        talks: Whether anything is said to people at all.
    """

    def __init__(self, verb: str, common: Common) -> None:
        self.verb = verb
        self.common = common
        self.console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self.talks = not (common.quiet or common.json)
        self.live = self.talks and self.console.is_terminal and not self.console.is_dumb_terminal
        self._lock = threading.Lock()
        self._handler = _Handler(self)

    def start_logging(self) -> None:
        """Show what the library logs: warnings always, more with ``-v``."""
        levels = (logging.ERROR if self.common.quiet else logging.WARNING, logging.INFO)
        verbose = min(self.common.verbose, 2)
        _log.setLevel(logging.DEBUG if verbose == 2 else levels[verbose])
        _log.addHandler(self._handler)

    def stop_logging(self) -> None:
        """Undo ``start_logging``."""
        _log.removeHandler(self._handler)

    def say(self, text: str = "", style: str = "", *, end: str = "\n") -> None:
        """A line for people."""
        if self.talks:
            self._print(text, style, end)

    def complain(self, text: str, kind: str = "error") -> None:
        """One line for people that even ``--quiet`` does not hide."""
        self._print(f"joinleaf: {kind}: {text}", "red" if kind == "error" else "yellow", "\n")

    def _print(self, text: str, style: str, end: str) -> None:
        with self._lock:
            self.console.print(Text(text, style=style), end=end, soft_wrap=True)

    def event(self, name: str, /, **facts: Any) -> None:
        """A JSON line, with ``--json``."""
        if self.common.json:
            line = json.dumps({"event": name, "time": round(time.time(), 3), **facts})
            self.write(line.encode() + b"\n")

    def write(self, data: bytes) -> None:
        """Data, at once. BrokenPipeError where nobody reads on."""
        with self._lock:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()


class _Handler(logging.Handler):
    """Log records as lines of the talk, so that they do not tear a table apart."""

    def __init__(self, talk: Talk) -> None:
        super().__init__()
        self._talk = talk
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._talk.complain(self.format(record), record.levelname.lower())


def hush_stdout() -> None:
    """After a broken pipe: let the interpreter's last flush succeed, into nothing."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
