"""One key press, told at once: Enter or ``s`` starts a sending that waits for leaves."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
from collections.abc import Iterator
from typing import Final

__all__ = ["START_KEYS", "can_press", "pressed"]

START_KEYS: Final = b"sS\r\n"
_LOOK_S: Final = 0.2  # between looks at whether this process is in the foreground


def can_press() -> bool:
    """Whether there is a keyboard: a terminal on standard input, on a POSIX system."""
    return os.name == "posix" and sys.stdin is not None and sys.stdin.isatty()


@contextlib.contextmanager
def pressed(keys: bytes = START_KEYS) -> Iterator[threading.Event]:
    """While inside, the event that is yielded is set once one of these keys is pressed.

    The terminal then gives keys one by one, and gets its old manners back at the end. Without a
    keyboard the event is just never set.
    """
    event = threading.Event()
    if not can_press():
        yield event
        return
    import termios  # POSIX only

    before = termios.tcgetattr(0)
    done = threading.Event()
    watcher = threading.Thread(
        target=_watch, args=(keys, event, done), name="joinleaf-keys", daemon=True
    )
    watcher.start()
    try:
        yield event
    finally:
        done.set()
        watcher.join(timeout=2 * _LOOK_S)
        if _in_foreground():
            termios.tcsetattr(0, termios.TCSADRAIN, before)


def _watch(keys: bytes, event: threading.Event, done: threading.Event) -> None:
    raw = False
    while not (done.is_set() or event.is_set()):
        # A background process that touches the terminal is stopped by the system.
        if not _in_foreground():
            raw = False
            done.wait(_LOOK_S)
            continue
        if not raw:
            _one_by_one()
            raw = True
        readable, _, _ = select.select([0], [], [], _LOOK_S)
        if not readable:
            continue
        read = os.read(0, 64)
        if not read:  # the terminal is gone
            return
        if any(key in keys for key in read):
            event.set()


def _one_by_one() -> None:
    """No waiting for the end of a line, no echo; Ctrl-C still interrupts."""
    import termios

    manners = termios.tcgetattr(0)
    manners[3] &= ~(termios.ICANON | termios.ECHO)
    manners[6][termios.VMIN], manners[6][termios.VTIME] = 1, 0
    termios.tcsetattr(0, termios.TCSADRAIN, manners)


def _in_foreground() -> bool:
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:  # not the controlling terminal of this session, or gone
        return False
