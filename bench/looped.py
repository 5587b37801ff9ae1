"""What ends on an event loop have in common: the loop runs only while there is a job."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from bench.contenders import check_answer, numbered

__all__ = ["Looped", "paced_async"]


class Looped:
    """An end with a loop of its own."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()

    def ask(self, count: int, interval_s: float, size: int) -> list[int]:
        raise NotImplementedError("the latency of this one is not measured")

    def answer(self, count: int, turn: int, leaves: int) -> None:
        raise NotImplementedError("the latency of this one is not measured")


async def paced_async(
    count: int, interval_s: float, size: int, ask: Callable[[bytes], Awaitable[bytes]]
) -> list[int]:
    """Round trips in nanoseconds, begun at a rate; as ``contenders.paced`` on a loop."""
    times = []
    due = time.perf_counter()
    for number in range(count):
        due += interval_s
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        message = numbered(number, size)
        began = time.perf_counter_ns()
        check_answer(message, await ask(message))
        times.append(time.perf_counter_ns() - began)
    return times
