"""Sockets that take no more for now, and one descriptor to wait on for all of them."""

from __future__ import annotations

from collections.abc import Container, Iterable

from joinleaf.drivers.poller import WRITE, Poller, new_poller

__all__ = ["BlockedSockets"]


class BlockedSockets:
    """Who has still to send, by key. All are worth a try until they are said to be blocked.

    One blocked socket is waited for by itself; several need a poller, which is made only then.

    Args:
        keys: Who has something to send.
    """

    __slots__ = ("_fds", "_keys", "_poller", "_untried")

    def __init__(self, keys: Iterable[int]) -> None:
        self._untried = dict.fromkeys(keys)
        self._fds: dict[int, int] = {}  # key to descriptor
        self._keys: dict[int, int] = {}  # and back
        self._poller: Poller | None = None

    def __bool__(self) -> bool:
        return bool(self._fds or self._untried)

    def ready(self) -> list[int]:
        """Keys that are worth a try now."""
        if self._poller is None:
            return [*self._untried, *self._fds]
        ready = (self._keys.get(fd) for fd, _ in self._poller.poll(0))
        return [*self._untried, *(key for key in ready if key is not None)]

    def keep(self, living: Container[int]) -> None:
        """Forget whose connection is gone: no poller tells of a closed descriptor."""
        for key in [key for key in self._fds if key not in living]:
            self.discard(key)

    def add(self, key: int, fd: int) -> None:
        """Its socket takes no more."""
        self._untried.pop(key, None)
        if key not in self._fds:
            self._fds[key], self._keys[fd] = fd, key
            if self._poller is not None:
                self._poller.watch(fd, WRITE)

    def discard(self, key: int) -> None:
        """It has sent everything, or is gone."""
        self._untried.pop(key, None)
        if (fd := self._fds.pop(key, -1)) >= 0:
            del self._keys[fd]
            if self._poller is not None:
                self._poller.forget(fd)

    def wait_on(self) -> tuple[int, bool]:
        """The descriptor to wait on, and whether for writing (else for reading)."""
        first = next(iter(self._fds.values()))
        if len(self._fds) == 1 and self._poller is None:
            return first, True
        if self._poller is None:
            self._poller = new_poller()
            for fd in self._keys:
                self._poller.watch(fd, WRITE)
        fd = self._poller.fileno()
        return (fd, False) if fd >= 0 else (first, True)

    def close(self) -> None:
        """Give the poller back."""
        if self._poller is not None:
            self._poller.close()
            self._poller = None
