"""One end of joinleaf for the transfer from memory to memory, as a program of its own.

``python -m bench.bulk_end send ADDRESS LEAVES BYTES`` prints ``began NANOSECONDS`` before the first
message and ``ended CPU_SECONDS`` when everybody has all; ``python -m bench.bulk_end receive ADDRESS
BYTES`` prints ``done NANOSECONDS`` when everything is here. The clock is one for all of a machine.
"""

from __future__ import annotations

import resource
import sys
import time

import joinleaf
from bench.contenders import PATIENCE_S, numbered, stamp_of, wait_for_group

__all__ = ["MESSAGE_BYTES", "main"]

MESSAGE_BYTES = 1 << 20


def _say(word: str, figure: object) -> None:
    print(word, figure, flush=True)


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _send(address: str, leaves: int, size: int) -> None:
    with joinleaf.open_root(address, open=True, linger=PATIENCE_S) as root:
        root.wait_for_leaves(leaves, timeout=PATIENCE_S)
        if "data=" in address:
            wait_for_group(root, leaves)
        messages = [numbered(number, MESSAGE_BYTES) for number in range(16)]
        cpu_s = _cpu_s()
        _say("began", time.monotonic_ns())
        for number in range(size // MESSAGE_BYTES):
            root.send(messages[number % len(messages)])
    _say("ended", _cpu_s() - cpu_s)


def _receive(address: str, size: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            leaf = joinleaf.join(address)
            break
        except (ConnectionError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)  # the root is not there yet
    with leaf:
        count = size // MESSAGE_BYTES
        for number in range(count):
            data = leaf.receive(timeout=PATIENCE_S).data
            if len(data) != MESSAGE_BYTES or stamp_of(data) != number % 16:
                raise AssertionError(f"message {number} is not what was sent")
        _say("done", time.monotonic_ns())


def main(arguments: list[str]) -> None:
    """See the module."""
    if arguments[0] == "send":
        _send(arguments[1], int(arguments[2]), int(arguments[3]))
    else:
        _receive(arguments[1], int(arguments[2]))


if __name__ == "__main__":
    main(sys.argv[1:])
