"""What one leg has still to send: bounded, and honest about what did not fit."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from joinleaf.spi.provider import Buffer

__all__ = ["Outbox"]

MAX_VECTOR: Final = 64
"""Buffers handed to one gathering call; far below every system's IOV_MAX (1024 on Linux)."""


class Outbox:
    """A queue of buffers and how far the first one has been sent.

    Attributes:
        allowance: Bytes that ``head`` gives at most; None: no bound.
        size: Bytes waiting.
        sent_bytes: Bytes that have left since the leg began.
    """

    __slots__ = ("_buffers", "allowance", "sent_bytes", "size")

    def __init__(self) -> None:
        self._buffers: deque[Buffer] = deque()
        self.allowance: int | None = None
        self.size = 0
        self.sent_bytes = 0

    def __bool__(self) -> bool:
        return self.size > 0

    def push(self, buffer: Buffer) -> None:
        """Queue one buffer."""
        self._buffers.append(buffer)
        self.size += len(buffer)

    def extend(self, buffers: Iterable[Buffer], size: int) -> None:
        """Queue several whose lengths add up to ``size``."""
        self._buffers.extend(buffers)
        self.size += size

    def head(self) -> list[Buffer]:
        """What to hand to the next gathering send; empty if nothing waits."""
        buffers = self._buffers
        if self.allowance is not None:
            return self._head_within(self.allowance)
        if len(buffers) <= MAX_VECTOR:
            return list(buffers)
        return [buffers[index] for index in range(MAX_VECTOR)]

    def _head_within(self, left: int) -> list[Buffer]:
        head: list[Buffer] = []
        for buffer in self._buffers:
            if left <= 0 or len(head) == MAX_VECTOR:
                break
            head.append(buffer if len(buffer) <= left else memoryview(buffer)[:left])
            left -= len(buffer)
        return head

    def sent(self, count: int) -> None:
        """Take ``count`` bytes off the front."""
        self.sent_bytes += count
        self.size -= count
        buffers = self._buffers
        if not self.size:
            buffers.clear()
            return
        while count:
            first = buffers[0]
            if count < len(first):
                buffers[0] = memoryview(first)[count:]
                return
            count -= len(first)
            buffers.popleft()

    def own(self) -> None:
        """Copy what waits of others' memory, so that the caller of a send may reuse it.

        Only views are borrowed, and a view of bytes cannot change: what was copied once stays.
        """
        self._buffers = deque(
            bytes(buffer)
            if type(buffer) is memoryview and type(buffer.obj) is not bytes
            else buffer
            for buffer in self._buffers
        )

    def clear(self) -> None:
        """Forget everything."""
        self._buffers.clear()
        self.size = 0
