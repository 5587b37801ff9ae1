"""Ctrl-C, SIGTERM and a closed terminal: one way out, which leaves nothing behind."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Final

__all__ = ["Stop"]

_NAMES: Final = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # what the platform has of them


class Stop:
    """Whether the user wants it to end.

    Outside ``gently`` a signal raises KeyboardInterrupt in the main thread. Inside, the first one
    only sets the flag, for what looks at it often and can end with a verdict; the second raises.
    """

    def __init__(self) -> None:
        self._set = False
        self._gentle = False

    def is_set(self) -> bool:
        """Whether a signal has come."""
        return self._set

    @contextlib.contextmanager
    def gently(self) -> Iterator[Stop]:
        """While inside, the first signal only sets the flag."""
        self._gentle = True
        try:
            yield self
        finally:
            self._gentle = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[Stop]:
        """Take over the signals, except those that this process was started to ignore."""
        before = {}
        for name in _NAMES:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, self._handle)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self._set = self._set, True
        if again or not self._gentle:
            raise KeyboardInterrupt
