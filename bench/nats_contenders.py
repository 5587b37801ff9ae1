"""nats-py with nats-server, which the sending end starts.

NATS does not wait for a subscriber that is behind: it drops, at the server or, past the limit of
what is pending, in the client. So pending is unlimited, and the sender asks for an acknowledgement
of each batch from every receiver, a window of them ahead, so that it cannot run away from them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.contenders import PATIENCE_S, Contender, batch_of, stamp_of
from bench.looped import Looped, paced_async

if TYPE_CHECKING:
    from nats.aio.client import Client

__all__ = ["CONTENDER", "server"]

NATS_WINDOW: Final = 16
"""Batches under way before the sender waits for the receivers."""


def server() -> str | None:
    """The program, of the environment or of the system."""
    return shutil.which("nats-server", path=f"{Path(sys.executable).parent}{os.pathsep}/usr/bin")


async def _nats(address: str) -> Client:
    import nats

    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await nats.connect(
                f"nats://{address}", allow_reconnect=False, pending_size=64 << 20
            )
        except OSError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.02)


class NatsSender(Looped):
    """Publishes through a server that it starts."""

    def __init__(self, size: int, host: str) -> None:
        super().__init__()
        with socket.socket() as probe:
            probe.bind((host, 0))
            port = probe.getsockname()[1]
        program = server()
        assert program is not None, "asked before"
        self.server = subprocess.Popen(
            [program, "-a", host, "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.server_pid = self.server.pid
        self.address = f"{host}:{port}"
        self.leaves = 0
        self.client = self.runner.run(_nats(self.address))
        self.taken: asyncio.Queue[bytes] = asyncio.Queue()
        self.runner.run(self._subscribe())

    async def _subscribe(self) -> None:
        async def take(message: Any) -> None:
            self.taken.put_nowait(message.data)

        await self.client.subscribe("taken", cb=take)
        await self.client.flush()

    def wait_for(self, leaves: int) -> None:
        self.leaves = leaves
        self.runner.run(self._heard())

    def send(self, batch: Sequence[bytes], times: int) -> None:
        self.runner.run(self._send(batch, times))

    async def _send(self, batch: Sequence[bytes], times: int) -> None:
        publish = self.client.publish
        for number in range(times):
            for message in batch:
                await publish("feed", message)
            if number >= NATS_WINDOW:
                await self._heard()
        await self.client.flush()
        for _ in range(min(times, NATS_WINDOW)):
            await self._heard()

    async def _heard(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(self.leaves):
                await self.taken.get()

    def ask(self, count: int, interval_s: float, size: int) -> list[int]:
        async def one(message: bytes) -> bytes:
            await self.client.publish("feed", message)
            return await self.taken.get()

        return self.runner.run(paced_async(count, interval_s, size, one))

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.runner.run(self.client.close())
        self.server.terminate()
        self.server.wait()
        self.runner.close()


class NatsReceiver(Looped):
    """Subscribes with a callback, and says after each batch that it has it."""

    def __init__(self, address: str, size: int) -> None:
        super().__init__()
        self.batch = len(batch_of(size))
        self.take: Callable[[bytes], Awaitable[None]]  # what to do with a message in this job
        self.client = self.runner.run(_nats(address))
        self.runner.run(self._subscribe())

    async def _subscribe(self) -> None:
        async def take(message: Any) -> None:
            await self.take(message.data)

        await self.client.subscribe(
            "feed", cb=take, pending_msgs_limit=1 << 22, pending_bytes_limit=1 << 30
        )
        await self.client.publish("taken", b"")
        await self.client.flush()

    def receive(self, count: int) -> tuple[int, int]:
        return self.runner.run(self._receive(count))

    async def _receive(self, count: int) -> tuple[int, int]:
        total, number, last, batch = 0, 0, b"", self.batch
        finished = asyncio.Event()

        async def take(data: bytes) -> None:
            nonlocal total, number, last
            total += len(data)
            number += 1
            if not number % batch:
                await self.client.publish("taken", b"")
            if number == count:
                last = data
                finished.set()

        await self._work(take, finished)
        return total, stamp_of(last)

    def answer(self, count: int, turn: int, leaves: int) -> None:
        self.runner.run(self._answer(count, turn, leaves))

    async def _answer(self, count: int, turn: int, leaves: int) -> None:
        number = 0
        finished = asyncio.Event()

        async def take(data: bytes) -> None:
            nonlocal number
            if number % leaves == turn:
                await self.client.publish("taken", data)
            number += 1
            if number == count:
                finished.set()

        await self._work(take, finished)

    async def _work(
        self, take: Callable[[bytes], Awaitable[None]], finished: asyncio.Event
    ) -> None:
        self.take = take
        await asyncio.wait_for(finished.wait(), 2 * PATIENCE_S)
        await self.client.flush()

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.runner.run(self.client.close())
        self.runner.close()


CONTENDER: Final = Contender("nats-py", NatsSender, NatsReceiver, needs="nats")
