"""Descriptors of the system as handles: each its own, and no number met again soon.

A Unix system gives the lowest free number, so that a number just closed is the next one given, and
a client that closes late would hit a stranger. Here every handle is a duplicate with a rising
number; so several handles of one socket are several descriptors, as on Windows.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import Final

from joinleaf.errors import SpiError
from joinleaf.spi import codes

if sys.platform != "win32":
    import fcntl

__all__ = ["Descriptors"]

_FIRST: Final = 256  # above what a program's standard streams and first files have


class Descriptors:
    """Gives out duplicates of descriptors, and takes them back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = _FIRST
        self._ours: dict[int, int] = {}

    def share(self, fd: int) -> int:
        """A descriptor of the same socket with a number of its own.

        Raises:
            SpiError: WSAEMFILE: the process may have no more.
        """
        if sys.platform == "win32":
            return fd  # the system itself takes care of the numbers
        with self._lock:
            try:
                made = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, self._next)
            except OSError:  # beyond the highest number allowed: start again
                self._next = _FIRST
                try:
                    made = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0)
                except OSError as error:
                    raise SpiError(codes.WSAEMFILE, str(error)) from error
            self._next = max(made + 1, _FIRST)
            return made

    def keep(self, handle: int, fd: int) -> None:
        """Remember what stands behind a handle."""
        with self._lock:
            self._ours[handle] = fd

    def release(self, handle: int) -> None:
        """Close what stands behind a handle."""
        with self._lock:
            fd = self._ours.pop(handle, -1)
        if fd >= 0 and sys.platform != "win32":
            with contextlib.suppress(OSError):
                os.close(fd)
