"""The ways to do it on an asyncio event loop: joinleaf.aio, pyzmq.asyncio, nats-py.

As in ``contenders.py``; each end runs its loop only while it has a job. NATS goes through a server
of its own, and does not wait for a subscriber that is behind: the sender asks for an
acknowledgement of each batch from every receiver, so that it cannot run away from them.
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
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import joinleaf
import joinleaf.aio
from bench.contenders import (
    FRAMES_FROM,
    PATIENCE_S,
    Contender,
    JoinleafReceiver,
    JoinleafSender,
    Receiver,
    Sender,
    _zmq_queue,
    batch_of,
    stamp_of,
)

if TYPE_CHECKING:
    from nats.aio.client import Client

__all__ = ["AIO", "available"]

QUIET_S: Final = 3600.0
"""A loop that stands still between two jobs does not answer signs of life."""

NATS_WINDOW: Final = 16
"""Batches under way before the sender waits for the receivers."""


class _Looped:
    """An end with a loop of its own."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()

    def ask(self, count: int, interval_s: float, size: int) -> list[int]:
        raise NotImplementedError("the latency of loops is not measured here")

    def answer(self, count: int, turn: int, leaves: int) -> None:
        raise NotImplementedError("the latency of loops is not measured here")


class AioSender(_Looped):
    """A root; whole batches in one call."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.root = self.runner.run(self._open())
        self.address = str(self.root.address)

    async def _open(self) -> joinleaf.aio.Root:
        return await joinleaf.aio.open_root("jl://127.0.0.1:0", dead_after=QUIET_S)

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


class AioReceiver(_Looped):
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


class ZmqAioSender(_Looped):
    """XPUB with XPUB_NODROP, awaited."""

    def __init__(self, size: int) -> None:
        super().__init__()
        import zmq
        import zmq.asyncio

        self.context = zmq.asyncio.Context()
        self.socket: Any = self.context.socket(zmq.XPUB)
        for option, value in (
            (zmq.XPUB_NODROP, 1),
            (zmq.XPUB_VERBOSE, 1),
            (zmq.SNDHWM, _zmq_queue(size)),
        ):
            self.socket.setsockopt(option, value)
        self.address = str(self.socket.bind_to_random_port("tcp://127.0.0.1"))
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


class ZmqAioReceiver(_Looped):
    """SUB, one awaited ``recv`` for each message."""

    def __init__(self, address: str, size: int) -> None:
        super().__init__()
        import zmq
        import zmq.asyncio

        self.context = zmq.asyncio.Context()
        self.socket: Any = self.context.socket(zmq.SUB)
        self.socket.setsockopt(zmq.RCVHWM, _zmq_queue(size))
        self.socket.connect(f"tcp://127.0.0.1:{address}")
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


def _nats_server() -> str | None:
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


class NatsSender(_Looped):
    """Publishes through a server that it starts."""

    def __init__(self, size: int) -> None:
        super().__init__()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = _nats_server()
        assert server is not None, "asked before"
        self.server = subprocess.Popen(
            [server, "-a", "127.0.0.1", "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.address = f"127.0.0.1:{port}"
        self.leaves = 0
        self.client = self.runner.run(_nats(self.address))
        self.taken: Any = self.runner.run(self._subscribe())

    async def _subscribe(self) -> Any:
        subscription = await self.client.subscribe("taken")
        await self.client.flush()
        return subscription

    def wait_for(self, leaves: int) -> None:
        async def wait() -> None:
            for _ in range(leaves):
                await self.taken.next_msg(timeout=PATIENCE_S)

        self.leaves = leaves
        self.runner.run(wait())

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
        for _ in range(self.leaves):
            await self.taken.next_msg(timeout=PATIENCE_S)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.runner.run(self.client.close())
        self.server.terminate()
        self.server.wait()
        self.runner.close()


class NatsReceiver(_Looped):
    """Subscribes, and says after each batch that it has it."""

    def __init__(self, address: str, size: int) -> None:
        super().__init__()
        self.batch = len(batch_of(size))
        self.client = self.runner.run(_nats(address))
        self.feed: Any = self.runner.run(self._subscribe())

    async def _subscribe(self) -> Any:
        feed = await self.client.subscribe(
            "feed", pending_msgs_limit=1 << 22, pending_bytes_limit=1 << 30
        )
        await self.client.flush()
        await self.client.publish("taken", b"")
        await self.client.flush()
        return feed

    def receive(self, count: int) -> tuple[int, int]:
        return self.runner.run(self._receive(count))

    async def _receive(self, count: int) -> tuple[int, int]:
        total, data, left = 0, b"", self.batch
        async for message in self.feed.messages:
            data = message.data
            total += len(data)
            count -= 1
            left -= 1
            if not left:
                left = self.batch
                await self.client.publish("taken", b"")
            if not count:
                break
        await self.client.flush()
        return total, stamp_of(data)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.runner.run(self.client.close())
        self.runner.close()


def _entry(name: str, sender: type[Sender], receiver: type[Receiver]) -> tuple[str, Contender]:
    return name, Contender(name, sender, receiver)


AIO: Final = dict((
    _entry("joinleaf, batches", JoinleafSender, JoinleafReceiver),
    _entry("joinleaf.aio, batches", AioSender, AioReceiver),
    _entry("joinleaf.aio, one by one", AioSingleSender, AioSingleReceiver),
    _entry("pyzmq.asyncio", ZmqAioSender, ZmqAioReceiver),
    _entry("nats-py", NatsSender, NatsReceiver),
))  # fmt: skip
"""By name. The first is what the others are compared with: the same batches without a loop."""


def available() -> list[Contender]:
    """Those that are installed here."""
    missing = set() if _nats_server() and _importable("nats") else {"nats-py"}
    missing |= set() if _importable("zmq") else {"pyzmq.asyncio"}
    return [contender for name, contender in AIO.items() if name not in missing]


def _importable(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None
