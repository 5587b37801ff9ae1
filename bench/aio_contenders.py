"""The ways to do it on an asyncio event loop: joinleaf.aio, pyzmq.asyncio.

As in ``contenders.py``; each end runs its loop only while it has a job. nats-py, which has nothing
else, is in ``nats_contenders.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import joinleaf
import joinleaf.aio
from bench.contenders import PATIENCE_S, Contender, stamp_of
from bench.looped import Looped
from bench.zmq_contenders import FRAMES_FROM, queue_of

__all__ = ["AIO"]

QUIET_S: Final = 3600.0
"""A loop that stands still between two jobs does not answer signs of life."""


class AioSender(Looped):
    """A root; whole batches in one call."""

    def __init__(self, size: int, host: str) -> None:
        super().__init__()
        self.root = self.runner.run(self._open(host))
        self.address = str(self.root.address)

    async def _open(self, host: str) -> joinleaf.aio.Root:
        return await joinleaf.aio.open_root(f"jl://{host}:0", open=True, dead_after=QUIET_S)

    def wait_for(self, leaves: int) -> None:
        async def wait() -> None:
            await self.root.wait_for_leaves(leaves, timeout=PATIENCE_S)

        self.runner.run(wait())

    def send(self, batch: Sequence[bytes], times: int) -> None:
        self.runner.run(self._send(batch, times))

    async def _send(self, batch: Sequence[bytes], times: int) -> None:
        send_many = self.root.send_many
        for _ in range(times):
            await send_many(batch)
        await self._all_sent()

    async def _all_sent(self) -> None:
        # No loop would run to send it; and nothing tells of it.
        while self.root.stats()["bytes_queued"]:  # noqa: ASYNC110
            await asyncio.sleep(0)

    def close(self) -> None:
        self.runner.run(self.root.close(timeout=0))
        self.runner.close()


class AioSingleSender(AioSender):
    """The same, one call for each message."""

    async def _send(self, batch: Sequence[bytes], times: int) -> None:
        send = self.root.send
        for _ in range(times):
            for message in batch:
                await send(message)
        await self._all_sent()


class AioReceiver(Looped):
    """A leaf; whole batches in one call."""

    def __init__(self, address: str, size: int) -> None:
        super().__init__()
        self.leaf = self.runner.run(self._join(address))

    async def _join(self, address: str) -> joinleaf.aio.Leaf:
        return await joinleaf.aio.join(address, dead_after=QUIET_S)

    def receive(self, count: int) -> tuple[int, int]:
        return self.runner.run(self._receive(count))

    async def _receive(self, count: int) -> tuple[int, int]:
        receive_many = self.leaf.receive_many
        total, message = 0, b""
        while count:
            messages = (await receive_many(timeout=PATIENCE_S)).messages
            for message in messages:
                total += len(message)
            count -= len(messages)
        return total, stamp_of(message)

    def close(self) -> None:
        self.runner.run(self.leaf.close(timeout=0))
        self.runner.close()


class AioSingleReceiver(AioReceiver):
    """The same, message by message with ``async for``."""

    async def _receive(self, count: int) -> tuple[int, int]:
        total, data = 0, b""
        async for message in self.leaf:
            data = message.data
            total += len(data)
            count -= 1
            if not count:
                break
        return total, stamp_of(data)


class ZmqAioSender(Looped):
    """XPUB with XPUB_NODROP, awaited."""

    def __init__(self, size: int, host: str) -> None:
        super().__init__()
        import zmq
        import zmq.asyncio

        self.context = zmq.asyncio.Context()
        self.socket: Any = self.context.socket(zmq.XPUB)
        for option, value in (
            (zmq.XPUB_NODROP, 1),
            (zmq.XPUB_VERBOSE, 1),
            (zmq.SNDHWM, queue_of(size)),
        ):
            self.socket.setsockopt(option, value)
        self.address = f"{host}:{self.socket.bind_to_random_port(f'tcp://{host}')}"
        self.copy = size < FRAMES_FROM

    def wait_for(self, leaves: int) -> None:
        async def wait() -> None:
            for _ in range(leaves):
                await self.socket.recv()

        self.runner.run(wait())

    def send(self, batch: Sequence[bytes], times: int) -> None:
        self.runner.run(self._send(batch, times))

    async def _send(self, batch: Sequence[bytes], times: int) -> None:
        import zmq

        send, copy = self.socket.send, self.copy
        for _ in range(times):
            for message in batch:
                while True:
                    try:
                        await send(message, 0, copy)
                    except zmq.Again:  # told that there is room, it may find one subscriber full
                        await asyncio.sleep(0)
                    else:
                        break

    def close(self) -> None:
        self.context.destroy(linger=0)
        self.runner.close()


class ZmqAioReceiver(Looped):
    """SUB, one awaited ``recv`` for each message."""

    def __init__(self, address: str, size: int) -> None:
        super().__init__()
        import zmq
        import zmq.asyncio

        self.context = zmq.asyncio.Context()
        self.socket: Any = self.context.socket(zmq.SUB)
        self.socket.setsockopt(zmq.RCVHWM, queue_of(size))
        self.socket.connect(f"tcp://{address}")
        self.socket.setsockopt(zmq.SUBSCRIBE, b"")

    def receive(self, count: int) -> tuple[int, int]:
        async def receive() -> tuple[int, int]:
            recv = self.socket.recv
            total, message = 0, b""
            for _ in range(count):
                message = await recv()
                total += len(message)
            return total, stamp_of(message)

        return self.runner.run(receive())

    def close(self) -> None:
        self.context.destroy(linger=0)
        self.runner.close()


AIO: Final = (
    Contender("joinleaf.aio, batches", AioSender, AioReceiver),
    Contender("joinleaf.aio, one by one", AioSingleSender, AioSingleReceiver),
    Contender("pyzmq.asyncio", ZmqAioSender, ZmqAioReceiver, needs="zmq"),
)
