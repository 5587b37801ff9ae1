"""The ends of a soak: roots that send numbers, leaves that come, check and go, and what they have.

``root FRONT ADDRESS SECONDS SEED`` and ``leaf FRONT ADDRESSES SECONDS SEED``; ADDRESSES are joined
by spaces, one of them is drawn for each visit. Every end prints one JSON object when it is done:
what it saw, and the most descriptors, threads, memory and memberships it had between visits, at the
beginning and at the end. A leaf fails at the first number that is missing, doubled or damaged.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import struct
import sys
import threading
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import joinleaf
import joinleaf.aio
from joinleaf.errors import JoinError, SessionClosedError, SessionTimeoutError

__all__ = ["main"]

NUMBER: Final = struct.Struct(">QI")
"""In front of each message: its number, and the checksum of what follows."""

ROUND_S: Final = 0.01
EXPEL_EVERY_S: Final = 2.0
VISIT_S: Final = (0.05, 3.0)
LINGER_S: Final = 20.0
PAUSE_S: Final = 0.3


class Ledger:
    """What one end has at moments when it should have little: the most in two spans of time."""

    def __init__(self, seconds: float) -> None:
        self._began = time.monotonic()
        self._seconds = seconds
        self.spans: dict[str, dict[str, int]] = {"early": {}, "late": {}}

    def note(self) -> None:
        """Take stock, in the second and in the last fifth of the time."""
        share = (time.monotonic() - self._began) / self._seconds
        span = "early" if 0.2 <= share < 0.4 else "late" if share >= 0.8 else ""
        if span:
            most = self.spans[span]
            for name, figure in belongings().items():
                most[name] = max(figure, most.get(name, 0))


def belongings() -> dict[str, int]:
    """Descriptors, threads, resident bytes and memberships of this process or host."""
    status = Path("/proc/self/status").read_text()
    resident = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert resident is not None
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "resident": int(resident[1]) << 10,
        "tasks": len(os.listdir("/proc/self/task")),
    }


def message(number: int, dice: random.Random) -> bytes:
    """A message that shows whether it is whole."""
    size = dice.choice((0, 20, 200, 1_400)) if dice.random() < 0.995 else 150_000
    body = number.to_bytes(8, "big") * (size // 8)
    return NUMBER.pack(number, zlib.crc32(body)) + body


class Checker:
    """What one visit has received; raises AssertionError at the first thing that is wrong."""

    def __init__(self, welcome: bytes) -> None:
        self.least = int(welcome)
        self.due: int | None = None

    def check(self, messages: Sequence[bytes]) -> None:
        """Numbers without a gap from the first on, and that not before the welcome."""
        for data in messages:
            number, told = NUMBER.unpack_from(data)
            assert zlib.crc32(data[NUMBER.size :]) == told, f"message {number} is damaged"
            if self.due is None:
                assert number >= self.least, f"message {number}, from before the welcome"
                self.due = number
            assert number == self.due, f"message {number} where {self.due} was due"
            self.due += 1

    def check_end(self, data: bytes) -> None:
        """The root took leave of all: whoever is still there has everything."""
        if data.startswith(b"end "):
            last = int(data[4:])
            assert self.due is None or self.due == last, f"{self.due} at the end, {last} were sent"


class Sending:
    """A root's numbers, and whom it puts out and when."""

    def __init__(self, seconds: float, seed: int) -> None:
        self.dice = random.Random(seed)
        self.number = 0
        self.expelled = self.joined = self.on_group = 0
        self.ends = time.monotonic() + seconds
        self._expels = time.monotonic() + EXPEL_EVERY_S

    def admit(self, request: Any) -> Any:
        """Everybody, with the number to come as welcome."""
        self.joined += 1
        return request.accept(str(self.number).encode())

    def batch(self) -> list[bytes]:
        """The next messages."""
        count = self.dice.randrange(1, 40)
        return [message(self.number + index, self.dice) for index in range(count)]

    def sent(self, batch: Sequence[bytes]) -> None:
        """It has been handed over: who is welcomed now does not get it."""
        self.number += len(batch)

    def victim(self, leaves: Sequence[Any]) -> Any | None:
        """A leaf to be put out, now and then."""
        self.on_group = max(self.on_group, sum(leaf.carrier == "group" for leaf in leaves))
        if time.monotonic() < self._expels or not leaves:
            return None
        self._expels = time.monotonic() + EXPEL_EVERY_S
        self.expelled += 1
        return self.dice.choice(list(leaves))

    def report(self, ledger: Ledger, stats: Any) -> None:
        """One object."""
        told = {
            "sent": self.number,
            "joined": self.joined,
            "expelled": self.expelled,
            "on_group": self.on_group,
        }
        print(json.dumps({**told, "stats": dict(stats), **ledger.spans}), flush=True)


def root_sync(address: str, seconds: float, seed: int) -> None:
    """A root of the blocking front."""
    sending, ledger = Sending(seconds, seed), Ledger(seconds)
    with joinleaf.open_root(address, admit=sending.admit, dead_after=5.0, linger=LINGER_S) as root:
        while time.monotonic() < sending.ends:
            root.send_many(batch := sending.batch())
            sending.sent(batch)
            if (victim := sending.victim(root.leaves)) is not None:
                victim.close(b"out")
            ledger.note()
            time.sleep(ROUND_S)
        root.close(b"end %d" % sending.number)
        sending.report(ledger, root.stats())


async def root_aio(address: str, seconds: float, seed: int) -> None:
    """A root on an event loop."""
    sending, ledger = Sending(seconds, seed), Ledger(seconds)
    async with joinleaf.aio.open_root(
        address, admit=sending.admit, dead_after=5.0, linger=LINGER_S
    ) as root:
        while time.monotonic() < sending.ends:
            await root.send_many(batch := sending.batch())
            sending.sent(batch)
            if (victim := sending.victim(root.leaves)) is not None:
                await victim.close(b"out")
            ledger.note()
            await asyncio.sleep(ROUND_S)
        await root.close(b"end %d" % sending.number)
        sending.report(ledger, root.stats())


class Visiting:
    """A leaf's visits."""

    def __init__(self, addresses: str, seconds: float, seed: int) -> None:
        self.dice = random.Random(seed)
        self.addresses = addresses.split()
        self.ends = time.monotonic() + seconds
        self.visits = self.messages = self.refused = 0
        self.ended: dict[str, int] = {}

    def next(self) -> tuple[str, float]:
        """Where to, and until when; the last visit stays until the root takes leave."""
        left = self.ends - time.monotonic()
        stay = self.dice.uniform(*VISIT_S)
        self.visits += 1
        until = time.monotonic() + (stay if stay + 2.0 < left else 1e6)
        return self.dice.choice(self.addresses), until

    def over(self, checker: Checker, error: SessionClosedError) -> None:
        """The root has ended it."""
        self.ended[error.reason] = self.ended.get(error.reason, 0) + 1
        checker.check_end(error.data)

    def report(self, ledger: Ledger) -> None:
        """One object."""
        told = {"visits": self.visits, "messages": self.messages, "refused": self.refused}
        print(json.dumps({**told, "ended": self.ended, **ledger.spans}), flush=True)


def leaf_sync(addresses: str, seconds: float, seed: int) -> None:
    """Visits by the blocking front."""
    visiting, ledger = Visiting(addresses, seconds, seed), Ledger(seconds)
    while time.monotonic() < visiting.ends:
        address, until = visiting.next()
        try:
            leaf = joinleaf.join(address, timeout=5.0, dead_after=5.0)
        except JoinError:
            visiting.refused += 1
            time.sleep(PAUSE_S)
            continue
        checker = Checker(leaf.welcome)
        with leaf:
            try:
                while time.monotonic() < until:
                    with contextlib.suppress(SessionTimeoutError):
                        batch = leaf.receive_many(timeout=0.2)
                        checker.check(batch.messages)
                        visiting.messages += len(batch.messages)
            except SessionClosedError as error:
                visiting.over(checker, error)
        ledger.note()
    visiting.report(ledger)


async def leaf_aio(addresses: str, seconds: float, seed: int) -> None:
    """Visits on an event loop."""
    visiting, ledger = Visiting(addresses, seconds, seed), Ledger(seconds)
    while time.monotonic() < visiting.ends:
        address, until = visiting.next()
        try:
            leaf = await joinleaf.aio.join(address, timeout=5.0, dead_after=5.0)
        except JoinError:
            visiting.refused += 1
            await asyncio.sleep(PAUSE_S)
            continue
        checker = Checker(leaf.welcome)
        async with leaf:
            try:
                while time.monotonic() < until:
                    with contextlib.suppress(SessionTimeoutError):
                        batch = await leaf.receive_many(timeout=0.2)
                        checker.check(batch.messages)
                        visiting.messages += len(batch.messages)
            except SessionClosedError as error:
                visiting.over(checker, error)
        ledger.note()
    visiting.report(ledger)


def main(arguments: Sequence[str]) -> None:
    """See the module."""
    role, front, address, seconds, seed = arguments
    blocking = {"root": root_sync, "leaf": leaf_sync}
    on_a_loop = {"root": root_aio, "leaf": leaf_aio}
    if front == "sync":
        blocking[role](address, float(seconds), int(seed))
    else:
        asyncio.run(on_a_loop[role](address, float(seconds), int(seed)))


if __name__ == "__main__":
    main(sys.argv[1:])
