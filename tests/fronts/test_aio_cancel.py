"""Cancelled at any await, a call of ``joinleaf.aio`` leaves nothing behind.

Each case is run again and again and cancelled after one more turn of the loop each time, until it
is done before. After each: no task, no descriptor, no watch on the loop, no member, no thread.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import joinleaf
from joinleaf import aio

BOUND_S = 30.0
MAX_TURNS = 400
FINE_TURNS = 60
"""Then a turn is a millisecond: what is left to happen hangs on a clock, or on another process."""
BIG = 1 << 20
_numbers = itertools.count(1)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts in /proc")

Case = Callable[["World"], Awaitable[None]]


def descriptors() -> set[str]:
    """What is open, by kind and number; the loop's own stay the same."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}")
        except FileNotFoundError:  # of the listing itself
            continue
    return found


class World:
    """A root with a leaf, in the same loop, to which things are done."""

    def __init__(self, scheme: str) -> None:
        self.scheme = scheme

    def place(self) -> str:
        return "jl://127.0.0.1:0" if self.scheme == "jl" else f"mem://cancel-{next(_numbers)}"

    async def __aenter__(self) -> World:
        self.admitted = asyncio.Event()
        self.root = await aio.open_root(self.place(), queue_bytes=BIG)
        self.leaf = await aio.join(self.root.address)
        self.listener = await aio.listen(self.place())
        await self.root.wait_for_leaves(1)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.listener.close()
        await self.leaf.close()
        await self.root.close()


async def joins(world: World) -> None:
    leaf = await aio.join(world.root.address, data=b"x")
    await leaf.close()


async def joins_by_name(world: World) -> None:
    address = str(world.root.address).replace("127.0.0.1", "localhost")
    await (await aio.join(address)).close()


async def joins_in_a_block(world: World) -> None:
    async with aio.join(world.root.address) as leaf:
        await leaf.send(b"x")
        await world.root.receive_many()


async def opens(world: World) -> None:
    root = await aio.open_root(world.place())
    await root.close()


async def opens_and_is_joined(world: World) -> None:
    async def admit(request: joinleaf.Request) -> joinleaf.Decision:
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        return request.accept()

    async with aio.open_root(world.place(), admit=admit) as root, aio.join(root.address):
        await root.send(b"x")


async def listens(world: World) -> None:
    async with aio.listen(world.place()) as listener:
        inviting = asyncio.ensure_future(world.root.invite(str(listener.local_address)))
        try:
            await asyncio.sleep(0)
            await listener.close()  # with an invitation that waits for its answer
            await asyncio.wait((inviting,))
        finally:
            inviting.cancel()
            await asyncio.wait((inviting,))
            if not inviting.cancelled() and inviting.exception() is None:
                await inviting.result().close()


async def invites(world: World) -> None:
    accepting = asyncio.ensure_future(world.listener.accept())
    try:
        view = await world.root.invite(str(world.listener.local_address))
        await view.close()
        member = await accepting
        await member.close()
    finally:
        if not accepting.done():
            accepting.cancel()
        await asyncio.wait((accepting,))
        if not accepting.cancelled() and accepting.exception() is None:
            await accepting.result().close()


async def waits_for_messages(world: World) -> None:
    receiving = asyncio.ensure_future(world.leaf.receive())
    try:
        await asyncio.sleep(0)
        await world.root.send(b"x")
        await asyncio.shield(receiving)
    finally:
        receiving.cancel()
        await asyncio.wait((receiving,))


async def waits_for_room(world: World) -> None:
    end = b"end %d" % next(_numbers)
    sending = asyncio.ensure_future(world.root.send_many([*[bytes(BIG)] * 12, end]))
    try:
        await asyncio.sleep(0)
        while end not in (await world.leaf.receive_many()).messages:  # of earlier rounds as well
            continue
        await asyncio.shield(sending)
    finally:
        sending.cancel()
        await asyncio.wait((sending,))


async def waits_for_events(world: World) -> None:
    async for _ in world.leaf.events(timeout=0.002):
        pass
    with pytest.raises(joinleaf.SessionTimeoutError):
        await world.root.wait_for_leaves(9, timeout=0.002)
    with pytest.raises(joinleaf.SessionTimeoutError):
        await world.listener.accept(timeout=0.002)


async def joins_multicast(world: World) -> None:
    async with aio.join("udp://239.255.43.9:54309", interface="lo") as member:
        await member.send(b"x")
        await member.receive()


CASES: tuple[Case, ...] = (
    joins,
    joins_by_name,
    joins_in_a_block,
    opens,
    opens_and_is_joined,
    listens,
    invites,
    waits_for_messages,
    waits_for_room,
    waits_for_events,
    joins_multicast,
)


async def cancelled_after(turns: int, work: Awaitable[Any]) -> bool:
    """Whether it was done before."""
    task = asyncio.ensure_future(work)
    for turn in range(turns):
        if task.done():
            break
        await asyncio.sleep(0 if turn < FINE_TURNS else 0.001)
    done = task.done()
    task.cancel()
    await asyncio.wait((task,))
    if done:
        task.result()
    elif not task.cancelled():
        task.exception()
    return done


async def settled(world: World, before: set[str]) -> None:
    """Wait until the other side has heard of it as well, and nothing more is open."""
    while len(world.root.leaves) > 1 or len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    while descriptors() - before:
        gc.collect()
        await asyncio.sleep(0.001)


async def check(case: Case, scheme: str) -> None:
    async with World(scheme) as world:
        await case(world)  # whatever is made once for the process, such as an executor's thread
        await asyncio.sleep(0.01)
        before, threads = descriptors(), set(threading.enumerate())
        for turns in itertools.count():
            assert turns < MAX_TURNS, "never done"
            async with asyncio.timeout(BOUND_S):
                done = await cancelled_after(turns, case(world))
                await settled(world, before)
            fresh = {thread.name for thread in set(threading.enumerate()) - threads}
            if case is joins_by_name:  # whose name the loop's executor looks up
                fresh = {name for name in fresh if not name.startswith("asyncio_")}
            assert not fresh
            if done:
                break
        await works(world)


async def works(world: World) -> None:
    """What was there before is as good as new."""
    await world.root.send(b"still here")
    while (await world.leaf.receive(timeout=BOUND_S)).data != b"still here":
        continue
    async with aio.join(world.root.address):
        await world.root.wait_for_leaves(2, timeout=BOUND_S)


@pytest.mark.parametrize("scheme", ["mem", "jl"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_cancelled_anywhere_nothing_is_left(case: Case, scheme: str) -> None:
    if scheme == "mem" and case in (joins_by_name, joins_multicast):
        pytest.skip("has no names of hosts, and no part in it")
    asyncio.run(check(case, scheme))


def test_cancelled_while_admit_decides_the_asker_goes_and_the_root_stays() -> None:
    async def body() -> None:
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def admit(request: joinleaf.Request) -> joinleaf.Decision:
            asked.set()
            if request.data == b"slow":
                await go_on.wait()
            return request.accept()

        async with asyncio.timeout(BOUND_S), aio.open_root("jl://127.0.0.1:0", admit=admit) as root:
            joining = asyncio.ensure_future(aio.join(root.address, data=b"slow")._open())
            await asked.wait()
            joining.cancel()
            await asyncio.wait((joining,))
            async with aio.join(root.address):  # the decision under way holds up nobody
                await root.wait_for_leaves(1)
            go_on.set()
            refused = [
                event async for event in root.events(timeout=0.2)
                if isinstance(event, joinleaf.LeafRefused)
            ]  # fmt: skip
            assert len(refused) == 1
            assert not root.leaves

    asyncio.run(body())


def test_a_root_that_closes_cancels_the_decisions_under_way() -> None:
    cancelled = []

    async def body() -> None:
        asked = asyncio.Event()

        async def admit(request: joinleaf.Request) -> joinleaf.Decision:
            asked.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(request)
                raise
            return request.accept()

        async with asyncio.timeout(BOUND_S):
            root = await aio.open_root("mem://closing", admit=admit)
            joining = asyncio.ensure_future(aio.join("mem://closing")._open())
            await asked.wait()
            await root.close()
            with pytest.raises(joinleaf.JoinRefusedError):
                await joining
            assert len(asyncio.all_tasks()) == 1

    asyncio.run(body())
    assert len(cancelled) == 1


def test_a_close_that_is_cancelled_ends_at_once() -> None:
    """The other side never reads, so the last words never get through."""

    async def body() -> None:
        root = await aio.open_root("jl://127.0.0.1:0", linger=BOUND_S * 10)
        leaf = await aio.join(root.address)
        await root.wait_for_leaves(1)
        before = descriptors()
        async with asyncio.timeout(BOUND_S):
            while root.stats()["bytes_queued"] == 0:
                await root.send(bytes(BIG))
            closing = asyncio.ensure_future(root.close())
            await asyncio.sleep(0.02)
            assert not closing.done()
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            assert descriptors() < before  # the root's own are given back
            await leaf.close()

    asyncio.run(body())
