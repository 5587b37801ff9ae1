"""What does a seal cost? ``python -m bench.sealing [--rounds N] [--sizes 64,1024]``.

Plain and sealed in the same run, in turns: the sealing alone, against AES-GCM with nothing around
it, and messages through the kernel on loopback, from one member to another in one thread. What is
sent fits into the receive buffer before it is read, so nothing is lost and nobody waits.
"""

from __future__ import annotations

import argparse
import itertools
import os
import secrets
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import joinleaf
from bench.record import print_table, print_where, spread
from joinleaf.core.keys.group import GroupKeys, LeafKeys
from joinleaf.core.wire.sealed import DatagramOpener, DatagramSealer, SharedKey

__all__ = ["run"]

GROUP: Final = "239.255.77.7"
BATCH: Final = 16
UNIT_BYTES: Final = 62_000  # what one call with UDP_SEGMENT carries

Timed = Callable[[], tuple[float, float]]
"""Seconds that sealing, or sending, took for one message; and opening, or receiving."""


def _bare(size: int, count: int) -> Timed:
    cipher, message, nonce = AESGCM(os.urandom(32)), os.urandom(size), bytes(12)
    opened = cipher.encrypt(nonce, message, b"")

    def timed() -> tuple[float, float]:
        begin = time.perf_counter()
        for _ in range(count):
            cipher.encrypt(nonce, message, b"")
        between = time.perf_counter()
        for _ in range(count):
            cipher.decrypt(nonce, opened, b"")
        return (between - begin) / count, (time.perf_counter() - between) / count

    return timed


def _in_batches(
    count: int, seal: Callable[[], list[bytes]], opened: Callable[[list[bytes]], int]
) -> tuple[float, float]:
    """Seal a batch and open it; keep the last 64, as a sender keeps its window for repair."""
    spent, window = [0.0, 0.0], deque[bytes](maxlen=64)
    for _ in range(count // BATCH):
        begin = time.perf_counter()
        sealed = seal()
        between = time.perf_counter()
        assert opened(sealed) == BATCH
        window.extend(sealed)
        spent[0] += between - begin
        spent[1] += time.perf_counter() - between
    messages = count // BATCH * BATCH
    return spent[0] / messages, spent[1] / messages


def _datagrams(size: int, count: int) -> Timed:
    key, message = SharedKey(os.urandom(32), b"bench"), os.urandom(size)
    sealer, opener = DatagramSealer(key, lambda: os.urandom(16)), DatagramOpener(key)

    def seal() -> list[bytes]:
        sealer.begin(time.time_ns())
        return list(map(sealer.seal, [message] * BATCH))

    def opened(datagrams: list[bytes]) -> int:
        return len(opener.open_run(datagrams, time.time_ns()))

    return lambda: _in_batches(count, seal, opened)


def _units(size: int, count: int) -> Timed:
    root, message, numbers = GroupKeys(os.urandom(32), 1), os.urandom(size), itertools.count()
    leaf, following = LeafKeys(root.fact(), 1), itertools.count()

    def seal() -> list[bytes]:
        return [root.seal(next(numbers), 43, message) for _ in range(BATCH)]

    def opened(sealed: list[bytes]) -> int:
        return sum(leaf.open(1, next(following), 43, unit) == message for unit in sealed)

    return lambda: _in_batches(count, seal, opened)


def _loopback(address: str, size: int, count: int) -> Timed:
    batch = [os.urandom(size)] * BATCH

    def timed() -> tuple[float, float]:
        with (
            joinleaf.join(address, role="receiver", interface="lo") as listener,
            joinleaf.join(address, role="sender", interface="lo") as speaker,
        ):

            def send() -> list[bytes]:
                speaker.send_many(batch)
                return []

            def receive(_: list[bytes]) -> int:
                received = 0
                while received < BATCH:
                    received += len(listener.receive_many(timeout=10).messages)
                return received

            return _in_batches(count, send, receive)

    return timed


def run(sizes: list[int], rounds: int) -> None:
    """Print a table: microseconds for a message, the median of some rounds with its spread."""
    rows = []
    for size in sizes:
        count = 2000 if size <= 2000 else 320
        ways: dict[str, Timed] = {
            "AES-GCM alone": _bare(size, count),
            "datagrams": _datagrams(size, count),
            "units": _units(size, count),
            "udp:// plain": _loopback(f"udp://{GROUP}:35001", size, count),
            "udp:// sealed": _loopback(
                f"udp://{GROUP}:35002#{secrets.token_urlsafe(32)}", size, count
            ),
        }
        figures: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, timed in ways.items():
                figures[name].append(timed())
        for name, found in figures.items():
            columns = [[1e6 * pair[side] for pair in found] for side in (0, 1)]
            rows.append([str(size), name, *(spread(column) for column in columns)])
    print_table("us a message", ["bytes", "what", "seal / send", "open / receive"], rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.sealing", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", default=f"64,1024,1400,{UNIT_BYTES}")
    options = parser.parse_args()
    print_where()
    run([int(size) for size in options.sizes.split(",")], options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
