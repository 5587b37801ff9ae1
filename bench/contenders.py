"""The ways to carry messages from one process to many that are compared.

Each has a sending end and a receiving end; both run in processes of their own. A receiving end
hands every message to a Python loop, which is what a user's program would do with them.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import joinleaf

__all__ = [
    "ASYNCIO",
    "JOINLEAF",
    "JOINLEAF_GROUP",
    "JOINLEAF_SEALED",
    "PATIENCE_S",
    "Contender",
    "Receiver",
    "Sender",
    "batch_of",
    "check_answer",
    "numbered",
    "paced",
    "stamp_of",
    "wait_for_group",
]

BATCH_BYTES: Final = 60_000
"""Messages are offered in batches of about this size; larger messages one at a time."""

PATIENCE_S: Final = 60.0
_STAMP: Final = struct.Struct(">I")
_LENGTH: Final = struct.Struct(">I")


def batch_of(size: int) -> list[bytes]:
    """Messages of ``size`` bytes (at least 4), each beginning with its number in the batch."""
    count = max(1, BATCH_BYTES // size)
    return [numbered(number, size) for number in range(count)]


def numbered(number: int, size: int) -> bytes:
    """A message of ``size`` bytes that begins with its number."""
    return _STAMP.pack(number) + bytes(size - _STAMP.size)


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
        sender: Takes the size of the messages and the address of its host.
        receiver: Takes the sender's address and the size of the messages.
        packs: Whether it is only of interest where several messages make a batch.
        one_host: Whether it cannot leave its host.
        smallest: Size of messages from which on it is of interest, in bytes.
        needs: A module that must be there.
    """

    name: str
    sender: Callable[[int, str], Sender]
    receiver: Callable[[str, int], Receiver]
    packs: bool = False
    one_host: bool = False
    smallest: int = 0
    needs: str = "joinleaf"


def paced(count: int, interval_s: float, size: int, ask: Callable[[bytes], None]) -> list[int]:
    """Round trips of a blocking ``ask``, begun at a rate."""
    times = []
    due = time.perf_counter()
    for number in range(count):
        due += interval_s
        time.sleep(max(0.0, due - time.perf_counter()))
        message = numbered(number, size)
        began = time.perf_counter_ns()
        ask(message)
        times.append(time.perf_counter_ns() - began)
    return times


def check_answer(asked: bytes, answer: bytes) -> None:
    if asked != answer:
        raise AssertionError(f"asked {stamp_of(asked)}, answered {stamp_of(answer)}")


# joinleaf


GROUP: Final = "239.255.70.1"
"""Where the multicast data of joinleaf go; each root draws a port of its own."""


class JoinleafSender:
    """A root on TCP; whole batches in one call."""

    def __init__(self, size: int, host: str) -> None:
        self.root = joinleaf.open_root(self.where(host), open=True)
        self.address = str(self.root.address)

    @staticmethod
    def where(host: str) -> str:
        """What to open."""
        return f"jl://{host}:0"

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
            check_answer(message, root.receive(timeout=PATIENCE_S).data)

        return paced(count, interval_s, size, ask)

    def close(self) -> None:
        self.root.close(timeout=1.0)


class JoinleafSingleSender(JoinleafSender):
    """The same, one call for each message."""

    def send(self, batch: Sequence[bytes], times: int) -> None:
        send = self.root.send
        for _ in range(times):
            for message in batch:
                send(message)


def wait_for_group(root: joinleaf.Root, leaves: int) -> None:
    """Until every leaf hears the multicast stream; before, its data go over its leg.

    Raises:
        TimeoutError: One does not.
    """
    deadline = time.monotonic() + PATIENCE_S
    while sum(getattr(leaf, "carrier", "leg") == "group" for leaf in root.leaves) < leaves:
        if time.monotonic() > deadline:
            raise TimeoutError("a leaf does not hear the group")
        time.sleep(0.02)


class JoinleafGroupSender(JoinleafSender):
    """The same; one multicast stream instead of a copy for each leaf."""

    @staticmethod
    def where(host: str) -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("", 0))
            return f"jl://{host}:0?data={GROUP}:{probe.getsockname()[1]}"

    def wait_for(self, leaves: int) -> None:
        super().wait_for(leaves)
        wait_for_group(self.root, leaves)


class JoinleafSealedSender(JoinleafGroupSender):
    """The same, encrypted: legs by TLS, the stream under a group key."""

    def __init__(self, size: int, host: str) -> None:
        self.root = joinleaf.open_root("jls" + self.where(host).removeprefix("jl"))
        self.address = self.root.join_line


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


# asyncio streams, as one writes them: a length, then the message


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    (size,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    return await reader.readexactly(size)


class AsyncioSender:
    """``start_server``; each message is written to every connection, drained once a batch."""

    def __init__(self, size: int, host: str) -> None:
        self.runner = asyncio.Runner()
        self.writers: list[asyncio.StreamWriter] = []
        self.readers: list[asyncio.StreamReader] = []
        self.address = f"{host}:{self.runner.run(self._start(host))}"

    async def _start(self, host: str) -> int:
        self.joined = asyncio.Semaphore(0)
        self.server = await asyncio.start_server(self._connected, host, 0)
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
            check_answer(message, await answers.get())
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
        self.reader, self.writer = self.runner.run(self._connect(address, size))

    async def _connect(
        self, address: str, size: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        # A limit below the message size would have the reader pause inside each message.
        limit = max(1 << 16, 2 * size)
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=limit)
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


JOINLEAF: Final = (
    Contender("joinleaf, batches", JoinleafSender, JoinleafReceiver),
    Contender("joinleaf, one by one", JoinleafSingleSender, JoinleafSingleReceiver),
)
JOINLEAF_GROUP: Final = Contender("joinleaf, multicast", JoinleafGroupSender, JoinleafReceiver)
JOINLEAF_SEALED: Final = Contender(
    "joinleaf, multicast, sealed", JoinleafSealedSender, JoinleafReceiver
)
ASYNCIO: Final = Contender("asyncio streams", AsyncioSender, AsyncioReceiver)
