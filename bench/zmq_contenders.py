"""pyzmq: PUB and SUB that block instead of dropping; imported late, for it is an extra."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from bench.contenders import PATIENCE_S, Contender, check_answer, paced, stamp_of

__all__ = ["FRAMES_FROM", "PACKED", "PLAIN", "queue_of"]

FRAMES_FROM: Final = 64 << 10
"""From this size on pyzmq takes and gives frames without copying them: faster there, not below."""


def queue_of(size: int) -> int:
    """High water mark in messages: deep, but bounded in memory."""
    return max(64, min(20_000, (64 << 20) // size))


class ZmqSender:
    """XPUB with XPUB_NODROP: ``send`` waits for the slowest subscriber."""

    def __init__(self, size: int, host: str) -> None:
        import zmq

        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.XPUB)
        self.socket.setsockopt(zmq.XPUB_NODROP, 1)
        self.socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # tell of each subscriber, not of the first
        self.socket.setsockopt(zmq.SNDHWM, queue_of(size))
        self.socket.setsockopt(zmq.SNDTIMEO, int(PATIENCE_S * 1000))
        port = self.socket.bind_to_random_port(f"tcp://{host}")
        self.answers = self.context.socket(zmq.PULL)
        self.answers.setsockopt(zmq.RCVTIMEO, int(PATIENCE_S * 1000))
        back = self.answers.bind_to_random_port(f"tcp://{host}")
        self.address = f"{host}:{port} {host}:{back}"
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
            check_answer(message, self.answers.recv())

        return paced(count, interval_s, size, ask)

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
        self.socket.setsockopt(zmq.RCVHWM, queue_of(size))
        self.socket.setsockopt(zmq.RCVTIMEO, int(PATIENCE_S * 1000))
        self.answers = self.context.socket(zmq.PUSH)
        self.answers.connect(f"tcp://{back}")
        self.socket.connect(f"tcp://{port}")
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


PLAIN: Final = Contender("pyzmq", ZmqSender, ZmqReceiver, needs="zmq")
PACKED: Final = Contender(
    "pyzmq, packed by hand", ZmqPackedSender, ZmqPackedReceiver, packs=True, needs="zmq"
)
