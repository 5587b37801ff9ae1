"""eclipse-zenoh: a publisher that blocks instead of dropping, and peers told where it is.

Best settings found: a queue of a thousand samples at the subscriber (a hundred thousand, or a
callback, were not faster), and with shared memory both ways to fill it: by the library (ahead with
one receiver) and by allocating there first (ahead with four). It is only for processes of one host.
"""

from __future__ import annotations

import contextlib
import functools
import json
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from bench.contenders import Contender, check_answer, paced, stamp_of

__all__ = ["ALLOCATED", "SHARED", "TCP", "tidied"]

QUEUE: Final = 1000
"""Samples between the library's thread and the program; a full queue holds the sender."""

POOL_BYTES: Final = 64 << 20
"""Shared memory to allocate messages in: a few dozen of the largest."""


@contextlib.contextmanager
def tidied() -> Iterator[None]:
    """Remove what zenoh leaves in /dev/shm when its processes do not end as Python programs do."""
    folder = Path("/dev/shm")
    before = set(folder.glob("*.zenoh"))
    try:
        yield
    finally:
        for left in set(folder.glob("*.zenoh")) - before:
            left.unlink(missing_ok=True)


def _open(shared: bool, *, listen: str = "", connect: str = "") -> Any:
    import zenoh

    config = zenoh.Config()
    for key, value in {
        "mode": "peer",
        "scouting/multicast/enabled": False,
        "scouting/gossip/enabled": False,
        "transport/shared_memory/enabled": shared,
        "listen/endpoints": [f"tcp/{listen}"] if listen else [],
        "connect/endpoints": [f"tcp/{connect}"] if connect else [],
    }.items():
        config.insert_json5(key, json.dumps(value))
    return zenoh.open(config)


class ZenohSender:
    """A publisher with CongestionControl.BLOCK; messages as ``bytes``."""

    def __init__(self, size: int, host: str, *, shared: bool = False) -> None:
        import zenoh

        with socket.socket() as probe:
            probe.bind((host, 0))
            self.address = f"{host}:{probe.getsockname()[1]}"
        self.session = _open(shared, listen=self.address)
        self.feed = self.session.declare_publisher(
            "feed", congestion_control=zenoh.CongestionControl.BLOCK
        )
        self.answers = self.session.declare_subscriber("answers", zenoh.handlers.FifoChannel(QUEUE))

    def wait_for(self, leaves: int) -> None:
        for _ in range(leaves):
            self.answers.recv()

    def send(self, batch: Sequence[bytes], times: int) -> None:
        put = self.feed.put
        for _ in range(times):
            for message in batch:
                put(message)

    def ask(self, count: int, interval_s: float, size: int) -> list[int]:
        def ask(message: bytes) -> None:
            self.feed.put(message)
            check_answer(message, bytes(self.answers.recv().payload))

        return paced(count, interval_s, size, ask)

    def close(self) -> None:
        self.session.close()


class ZenohAllocatingSender(ZenohSender):
    """The same; each message is written where the receivers will read it."""

    def __init__(self, size: int, host: str) -> None:
        import zenoh

        super().__init__(size, host, shared=True)
        self.pool = zenoh.shm.ShmProvider.default_backend(max(POOL_BYTES, 16 * size))
        self.policy = zenoh.shm.BlockOn(zenoh.shm.GarbageCollect())

    def send(self, batch: Sequence[bytes], times: int) -> None:
        put, alloc, policy = self.feed.put, self.pool.alloc, self.policy
        for _ in range(times):
            for message in batch:
                buffer = alloc(len(message), policy)
                buffer[:] = message
                put(buffer)


class ZenohReceiver:
    """A subscriber with a queue; the program takes each message as ``bytes``."""

    def __init__(self, address: str, size: int, *, shared: bool = False) -> None:
        import zenoh

        self.session = _open(shared, connect=address)
        self.feed = self.session.declare_subscriber("feed", zenoh.handlers.FifoChannel(QUEUE))
        self.back = self.session.declare_publisher(
            "answers", congestion_control=zenoh.CongestionControl.BLOCK
        )
        self.back.put(b"")

    def receive(self, count: int) -> tuple[int, int]:
        recv = self.feed.recv
        total, message = 0, b""
        for _ in range(count):
            message = bytes(recv().payload)
            total += len(message)
        return total, stamp_of(message)

    def answer(self, count: int, turn: int, leaves: int) -> None:
        for number in range(count):
            message = bytes(self.feed.recv().payload)
            if number % leaves == turn:
                self.back.put(message)

    def close(self) -> None:
        self.session.close()


_shared_sender: Final = functools.partial(ZenohSender, shared=True)
_shared_receiver: Final = functools.partial(ZenohReceiver, shared=True)

TCP: Final = Contender("zenoh, tcp", ZenohSender, ZenohReceiver, needs="zenoh")
SHARED: Final = Contender(
    "zenoh, shared memory", _shared_sender, _shared_receiver, one_host=True, needs="zenoh"
)
ALLOCATED: Final = Contender(
    "zenoh, allocated shared memory",
    ZenohAllocatingSender,
    _shared_receiver,
    one_host=True,
    smallest=16 << 10,
    needs="zenoh",
)
