"""Watches many descriptors at once: epoll where it exists, the best selector elsewhere."""

from __future__ import annotations

import contextlib
import select
import selectors
import sys
from typing import Final, Protocol

__all__ = ["READ", "WRITE", "Poller", "new_poller"]

READ: Final = 1
WRITE: Final = 2


class Poller(Protocol):
    """Level-triggered. A descriptor that is at its end or has failed is readable and writable."""

    def watch(self, fd: int, what: int) -> None:
        """Watch a descriptor for READ, WRITE, both or (0) nothing; replaces what was."""
        ...

    def forget(self, fd: int) -> None:
        """Stop watching; nothing happens if it is not watched."""
        ...

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        """What is ready within ``timeout`` seconds, as (descriptor, READ | WRITE) pairs."""
        ...

    def fileno(self) -> int:
        """A descriptor that is readable while ``poll(0)`` would return something; -1 if none."""
        ...

    def close(self) -> None:
        """Give the kernel's object back."""
        ...


class _EpollPoller:
    __slots__ = ("_epoll", "_watched")

    def __init__(self) -> None:
        assert sys.platform == "linux"
        self._epoll = select.epoll()
        self._watched: dict[int, int] = {}

    def watch(self, fd: int, what: int) -> None:
        assert sys.platform == "linux"
        if self._watched.get(fd) == what:
            return
        if not what:
            self.forget(fd)
            return
        mask = (select.EPOLLIN if what & READ else 0) | (select.EPOLLOUT if what & WRITE else 0)
        if fd in self._watched:
            self._epoll.modify(fd, mask)
        else:
            self._epoll.register(fd, mask)
        self._watched[fd] = what

    def forget(self, fd: int) -> None:
        if self._watched.pop(fd, None) is not None:
            with contextlib.suppress(OSError):  # closed already: the kernel forgot it by itself
                self._epoll.unregister(fd)

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        assert sys.platform == "linux"
        ready = []
        for fd, mask in self._epoll.poll(timeout, 256):
            failed = mask & (select.EPOLLERR | select.EPOLLHUP)
            what = READ if mask & select.EPOLLIN or failed else 0
            if mask & select.EPOLLOUT or failed:
                what |= WRITE
            ready.append((fd, what))
        return ready

    def fileno(self) -> int:
        return self._epoll.fileno()

    def close(self) -> None:
        self._epoll.close()


class _SelectorPoller:
    """For systems without epoll; untested there by us, on Linux the tests run it too."""

    __slots__ = ("_selector",)

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def watch(self, fd: int, what: int) -> None:
        if not what:
            self.forget(fd)
            return
        mask = (selectors.EVENT_READ if what & READ else 0) | (
            selectors.EVENT_WRITE if what & WRITE else 0
        )
        if fd in self._selector.get_map():
            self._selector.modify(fd, mask)
        else:
            self._selector.register(fd, mask)

    def forget(self, fd: int) -> None:
        with contextlib.suppress(KeyError, ValueError, OSError):
            self._selector.unregister(fd)

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        return [
            (
                key.fd,
                (READ if mask & selectors.EVENT_READ else 0)
                | (WRITE if mask & selectors.EVENT_WRITE else 0),
            )
            for key, mask in self._selector.select(timeout)
        ]

    def fileno(self) -> int:
        fileno = getattr(self._selector, "fileno", None)
        return int(fileno()) if fileno is not None else -1

    def close(self) -> None:
        self._selector.close()


def new_poller() -> Poller:
    """The best poller of this system."""
    return _EpollPoller() if sys.platform == "linux" else _SelectorPoller()
