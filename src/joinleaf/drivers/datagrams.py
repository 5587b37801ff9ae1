"""Draining a datagram socket: what has arrived becomes batches, a run of one sender at a time.

One system call a datagram is what the kernel asks for plain datagrams (recvmmsg gains nothing
worth its code); everything else is done once for each run of datagrams from the same sender.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from joinleaf.spi.provider import Batch
from joinleaf.values import Address

__all__ = ["DRAIN_LIMIT", "DatagramReader"]

DRAIN_LIMIT: Final = 256
"""Most datagrams taken at once: at 64 KiB each 16 MiB, so that a flood cannot eat the memory."""

_LONGEST: Final = 65535  # no datagram is longer, so none is ever cut
_SENDERS_KEPT: Final = 4096  # addresses kept in parsed form; forged ones may not pile up


class DatagramReader:
    """Reads a non-blocking socket. One thread at a time.

    Args:
        sock: The socket.
        wanted: Says for the host part of a sender's address whether to deliver what it sent; asked
            once a run.
        opened: Gives the messages that a run of datagrams holds, at a time in UNIX nanoseconds;
            None: every datagram is a message.

    Attributes:
        pending: What has been read and not fetched; no batch in it is empty.
        dropped: Datagrams that were not wanted.
    """

    __slots__ = ("_opened", "_runs", "_senders", "_sock", "_wanted", "dropped", "pending")

    def __init__(
        self,
        sock: socket.socket,
        wanted: Callable[[str], bool],
        opened: Callable[[list[bytes], int], list[bytes]] | None = None,
    ) -> None:
        self._sock = sock
        self._wanted = wanted
        self._opened = opened
        self._runs: list[Batch] = []
        self._senders: dict[Any, Address] = {}
        self.pending: deque[Batch] = deque()
        self.dropped = 0

    def drain(self, limit: int = DRAIN_LIMIT) -> None:
        """Move up to ``limit`` datagrams into ``pending``; never waits.

        Raises:
            OSError: The socket is closed or broken; what was read before is in ``pending``.
        """
        try:
            self._read(limit)
        finally:
            runs, self._runs = self._runs, []
            if self._opened is not None:
                runs = self._open(runs, self._opened)
            self.pending.extend(runs)

    @staticmethod
    def _open(runs: list[Batch], opened: Callable[[list[bytes], int], list[bytes]]) -> list[Batch]:
        batches = []
        for run in runs:
            messages = opened(run.messages, run.time_ns)
            if messages:
                batches.append(Batch(messages, run.sender, run.sequence, run.time_ns))
        return batches

    def _read(self, limit: int) -> None:
        recvfrom = self._sock.recvfrom
        last: Any = None
        run: list[bytes] | None = None
        for _ in range(limit):
            try:
                data, origin = recvfrom(_LONGEST)
            except BlockingIOError:
                return
            except ConnectionError:  # an ICMP answer to something sent earlier; not about us
                continue
            if origin != last:
                last, run = origin, self._start_run(origin)
            if run is None:
                self.dropped += 1
            else:
                run.append(data)

    def _start_run(self, origin: Any) -> list[bytes] | None:
        sender = self._senders.get(origin)
        if sender is None:
            sender = self._remember(origin)
        if not self._wanted(sender.host):
            return None
        run: list[bytes] = []
        self._runs.append(Batch(run, sender, -1, time.time_ns()))
        return run

    def _remember(self, origin: Any) -> Address:
        if len(self._senders) >= _SENDERS_KEPT:
            self._senders.clear()
        host, _, scope = str(origin[0]).partition("%")
        sender = self._senders[origin] = Address(host, int(origin[1]), scope)
        return sender
