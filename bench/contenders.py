"""The ways to carry messages from one process to many that are compared.

Each has a sending end and a receiving end; both run in processes of their own. A receiving end
hands every message to a Python loop, which is what a user's program would do with them.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

import joinleaf

__all__ = ["ALL", "Contender", "Receiver", "Sender", "batch_of", "stamp_of"]

BATCH_BYTES: Final = 60_000
"""Messages are offered in batches of about this size; larger messages one at a time."""

PATIENCE_S: Final = 60.0
_STAMP: Final = struct.Struct(">I")
_LENGTH: Final = struct.Struct(">I")


def batch_of(size: int) -> list[bytes]:
    """Messages of ``size`` bytes (at least 4), each beginning with its number in the batch."""
    count = max(1, BATCH_BYTES // size)
    return [_STAMP.pack(number) + bytes(size - _STAMP.size) for number in range(count)]


def stamp_of(message: bytes | memoryview) -> int:
    """The number a message begins with."""
    return int(_STAMP.unpack_from(message)[0])


class Sender(Protocol):
    """The one end. Made ready by its constructor; ``address`` is what the others connect to."""

    address: str

    def wait_for(self, leaves: int) -> None:
        """Return once so many receive."""
        ...

    def send(self, batch: Sequence[bytes], times: int) -> None:
        """Send a batch again and again, waiting where a receiver does not keep up."""
        ...

    def ask(self, count: int, interval_s: float, size: int) -> list[int]:
        """Send messages at a rate; nanoseconds until the one that was asked has answered each."""
        ...

    def close(self) -> None: ...


class Receiver(Protocol):
    """One of the other ends."""

    def receive(self, count: int) -> tuple[int, int]:
        """Take exactly ``count`` messages; sum of their lengths, and the stamp of the last."""
        ...

    def answer(self, count: int, turn: int, leaves: int) -> None:
        """Take ``count`` messages and answer each whose turn it is."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Contender:
    """A pair of ends and its name.

    Attributes:
        packs: Whether it is only of interest where several messages make a batch.
    """

    name: str
    sender: Callable[[int], Sender]
    receiver: Callable[[str, int], Receiver]
    packs: bool = False


def _paced(count: int, interval_s: float, size: int, ask: Callable[[bytes], None]) -> list[int]:
    """Round trips of a blocking ``ask``, begun at a rate."""
    times = []
    due = time.perf_counter()
    for number in range(count):
        due += interval_s
        time.sleep(max(0.0, due - time.perf_counter()))
        message = _STAMP.pack(number) + bytes(size - _STAMP.size)
        began = time.perf_counter_ns()
        ask(message)
        times.append(time.perf_counter_ns() - began)
    return times


def _check_answer(asked: bytes, answer: bytes) -> None:
    if asked != answer:
        raise AssertionError(f"asked {stamp_of(asked)}, answered {stamp_of(answer)}")


# joinleaf


class JoinleafSender:
    """A root on TCP; whole batches in one call."""

    def __init__(self, size: int) -> None:
        self.root = joinleaf.open_root("jl://127.0.0.1:0")
        self.address = str(self.root.address)

    def wait_for(self, leaves: int) -> None:
        self.root.wait_for_leaves(leaves, timeout=PATIENCE_S)

    def send(self, batch: Sequence[bytes], times: int) -> None:
        send_many = self.root.send_many
        for _ in range(times):
            send_many(batch)

    def ask(self, count: int, interval_s: float, size: int) -> list[int]:
        root = self.root

        def ask(message: bytes) -> None:
            root.send(message)
            _check_answer(message, root.receive(timeout=PATIENCE_S).data)

        return _paced(count, interval_s, size, ask)

    def close(self) -> None:
        self.root.close(timeout=1.0)


class JoinleafSingleSender(JoinleafSender):
    """The same, one call for each message."""

    def send(self, batch: Sequence[bytes], times: int) -> None:
        send = self.root.send
        for _ in range(times):
            for message in batch:
                send(message)


class JoinleafReceiver:
    """A leaf; whole batches in one call."""

    def __init__(self, address: str, size: int) -> None:
        self.leaf = joinleaf.join(address)

    def receive(self, count: int) -> tuple[int, int]:
        receive_many = self.leaf.receive_many
        total, message = 0, b""
        while count:
            messages = receive_many(timeout=PATIENCE_S).messages
            for message in messages:
                total += len(message)
            count -= len(messages)
        return total, stamp_of(message)

    def answer(self, count: int, turn: int, leaves: int) -> None:
        for number in range(count):
            message = self.leaf.receive(timeout=PATIENCE_S).data
            if number % leaves == turn:
                self.leaf.send(message)

    def close(self) -> None:
        self.leaf.close(timeout=1.0)


class JoinleafSingleReceiver(JoinleafReceiver):
    """The same, one call for each message."""

    def receive(self, count: int) -> tuple[int, int]:
        receive = self.leaf.receive
        total, data = 0, b""
        for _ in range(count):
            data = receive(timeout=PATIENCE_S).data
            total += len(data)
        return total, stamp_of(data)


# pyzmq: PUB/SUB that blocks instead of dropping; imported late, for it is an extra


FRAMES_FROM: Final = 64 << 10
"""From this size on pyzmq takes and gives frames without copying them: faster there, not below."""


def _zmq_queue(size: int) -> int:
    """High water mark in messages: deep, but bounded in memory."""
    return max(64, min(20_000, (64 << 20) // size))


class ZmqSender:
    """XPUB with XPUB_NODROP: ``send`` waits for the slowest subscriber."""

    def __init__(self, size: int) -> None:
        import zmq

        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.XPUB)
        self.socket.setsockopt(zmq.XPUB_NODROP, 1)
        self.socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # tell of each subscriber, not of the first
        self.socket.setsockopt(zmq.SNDHWM, _zmq_queue(size))
        self.socket.setsockopt(zmq.SNDTIMEO, int(PATIENCE_S * 1000))
        port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        self.answers = self.context.socket(zmq.PULL)
        self.answers.setsockopt(zmq.RCVTIMEO, int(PATIENCE_S * 1000))
        back = self.answers.bind_to_random_port("tcp://127.0.0.1")
        self.address = f"{port} {back}"
        self.copy = size < FRAMES_FROM

    def wait_for(self, leaves: int) -> None:
        for _ in range(leaves):
            self.socket.recv()  # a subscription

    def send(self, batch: Sequence[bytes], times: int) -> None:
        send, copy = self.socket.send, self.copy
        for _ in range(times):
            for message in batch:
                send(message, 0, copy)

    def ask(self, count: int, interval_s: float, size: int) -> list[int]:
        def ask(message: bytes) -> None:
            self.socket.send(message)
            _check_answer(message, self.answers.recv())

        return _paced(count, interval_s, size, ask)

    def close(self) -> None:
        self.context.destroy(linger=0)


class ZmqPackedSender(ZmqSender):
    """The same; the user packs each batch with msgspec."""

    def send(self, batch: Sequence[bytes], times: int) -> None:
        send, encode = self.socket.send, msgspec.msgpack.Encoder().encode
        for _ in range(times):
            send(encode(batch))


class ZmqReceiver:
    """SUB, one ``recv`` for each message."""

    def __init__(self, address: str, size: int) -> None:
        import zmq

        port, back = address.split()
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.SUB)
        self.socket.setsockopt(zmq.RCVHWM, _zmq_queue(size))
        self.socket.setsockopt(zmq.RCVTIMEO, int(PATIENCE_S * 1000))
        self.answers = self.context.socket(zmq.PUSH)
        self.answers.connect(f"tcp://127.0.0.1:{back}")
        self.socket.connect(f"tcp://127.0.0.1:{port}")
        self.socket.setsockopt(zmq.SUBSCRIBE, b"")
        self.copy = size < FRAMES_FROM

    def receive(self, count: int) -> tuple[int, int]:
        recv = self.socket.recv
        total = 0
        if not self.copy:
            for _ in range(count):
                view = recv(copy=False).buffer
                total += len(view)
            return total, stamp_of(view)
        for _ in range(count):
            message = recv()
            total += len(message)
        return total, stamp_of(message)

    def answer(self, count: int, turn: int, leaves: int) -> None:
        for number in range(count):
            message = self.socket.recv()
            if number % leaves == turn:
                self.answers.send(message)

    def close(self) -> None:
        self.context.destroy(linger=0)


class ZmqPackedReceiver(ZmqReceiver):
    """The same; the user unpacks each batch with msgspec."""

    def receive(self, count: int) -> tuple[int, int]:
        recv, decode = self.socket.recv, msgspec.msgpack.Decoder(list[bytes]).decode
        total, message = 0, b""
        while count:
            messages = decode(recv())
            for message in messages:
                total += len(message)
            count -= len(messages)
        return total, stamp_of(message)


# asyncio streams, as one writes them: a length, then the message


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    (size,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    return await reader.readexactly(size)


class AsyncioSender:
    """``start_server``; each message is written to every connection, drained once a batch."""

    def __init__(self, size: int) -> None:
        self.runner = asyncio.Runner()
        self.writers: list[asyncio.StreamWriter] = []
        self.readers: list[asyncio.StreamReader] = []
        self.address = str(self.runner.run(self._start()))

    async def _start(self) -> int:
        self.joined = asyncio.Semaphore(0)
        self.server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return int(self.server.sockets[0].getsockname()[1])

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (turn,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        assert turn == 0
        self.readers.append(reader)
        self.writers.append(writer)
        self.joined.release()

    def wait_for(self, leaves: int) -> None:
        async def wait() -> None:
            async with asyncio.timeout(PATIENCE_S):
                for _ in range(leaves):
                    await self.joined.acquire()

        self.runner.run(wait())

    def send(self, batch: Sequence[bytes], times: int) -> None:
        self.runner.run(self._send(batch, times))

    async def _send(self, batch: Sequence[bytes], times: int) -> None:
        for _ in range(times):
            for message in batch:
                frame = _LENGTH.pack(len(message)) + message
                for writer in self.writers:
                    writer.write(frame)
            for writer in self.writers:
                await writer.drain()
        for writer in self.writers:  # drain() is content with a little left, but no loop runs then
            writer.transport.set_write_buffer_limits(0)
            await writer.drain()
            writer.transport.set_write_buffer_limits()

    def ask(self, count: int, interval_s: float, size: int) -> list[int]:
        return self.runner.run(self._ask(count, interval_s, size))

    async def _ask(self, count: int, interval_s: float, size: int) -> list[int]:
        answers: asyncio.Queue[bytes] = asyncio.Queue()

        async def collect(reader: asyncio.StreamReader) -> None:
            while True:
                answers.put_nowait(await _read_frame(reader))

        collectors = [asyncio.ensure_future(collect(reader)) for reader in self.readers]
        times = []
        for number in range(count):
            await asyncio.sleep(interval_s)
            message = _STAMP.pack(number) + bytes(size - _STAMP.size)
            began = time.perf_counter_ns()
            frame = _LENGTH.pack(size) + message
            for writer in self.writers:
                writer.write(frame)
            _check_answer(message, await answers.get())
            times.append(time.perf_counter_ns() - began)
        for collector in collectors:
            collector.cancel()
        await asyncio.gather(*collectors, return_exceptions=True)
        return times

    def close(self) -> None:
        for writer in self.writers:
            writer.close()
        self.server.close()
        self.runner.close()


class AsyncioReceiver:
    """``open_connection``; two ``readexactly`` for each message."""

    def __init__(self, address: str, size: int) -> None:
        self.runner = asyncio.Runner()
        self.reader, self.writer = self.runner.run(self._connect(int(address), size))

    async def _connect(
        self, port: int, size: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        # A limit below the message size would have the reader pause inside each message.
        limit = max(1 << 16, 2 * size)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=limit)
        writer.write(_LENGTH.pack(0))
        return reader, writer

    def receive(self, count: int) -> tuple[int, int]:
        return self.runner.run(self._receive(count))

    async def _receive(self, count: int) -> tuple[int, int]:
        total, message = 0, b""
        for _ in range(count):
            message = await _read_frame(self.reader)
            total += len(message)
        return total, stamp_of(message)

    def answer(self, count: int, turn: int, leaves: int) -> None:
        self.runner.run(self._answer(count, turn, leaves))

    async def _answer(self, count: int, turn: int, leaves: int) -> None:
        for number in range(count):
            message = await _read_frame(self.reader)
            if number % leaves == turn:
                self.writer.write(_LENGTH.pack(len(message)) + message)

    def close(self) -> None:
        self.writer.close()
        self.runner.close()


ALL: Final = {
    contender.name: contender
    for contender in (
        Contender("pyzmq", ZmqSender, ZmqReceiver),
        Contender("pyzmq, packed by hand", ZmqPackedSender, ZmqPackedReceiver, packs=True),
        Contender("asyncio streams", AsyncioSender, AsyncioReceiver),
        Contender("joinleaf, batches", JoinleafSender, JoinleafReceiver),
        Contender("joinleaf, one by one", JoinleafSingleSender, JoinleafSingleReceiver),
    )
}
"""By name. The first is what the others are compared with."""
