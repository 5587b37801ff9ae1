"""``joinleaf.aio`` on its loop: no thread of ours, no blocking, nothing that outlives the loop."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.package import SRC

import joinleaf
from joinleaf import aio

BOUND_S = 30.0
BIG = 1 << 20

PROGRAM = """
import asyncio, threading
from joinleaf import aio

async def session(address):
    async def admit(request):
        await asyncio.sleep(0.001)
        return request.accept(b"welcome")

    async with aio.open_root(address, admit=admit, queue_bytes=1 << 20) as root:
        async with aio.join(root.address, timeout=20) as leaf, aio.join(root.address) as other:
            await root.wait_for_leaves(2, timeout=20)
            async def take(member):
                return sum([len(m.data) async for m in member])
            taking = asyncio.gather(take(leaf), take(other))
            for _ in range(12):
                await root.send_many([bytes(1 << 20)] * 2)
            await leaf.send(b"up")
            assert (await root.receive(timeout=20)).data == b"up"
            assert leaf.welcome == b"welcome"
            closing = asyncio.ensure_future(root.close())
            assert await taking == [24 << 20] * 2
            await closing

async def invitation(address):
    there = address.replace("here", "there")
    async with aio.open_root(address) as root, aio.listen(there) as door:
        accepting = asyncio.ensure_future(door.accept(timeout=20))
        await root.invite(str(door.local_address))
        async with await accepting as leaf:
            await root.send(b"come")
            assert (await leaf.receive(timeout=20)).data == b"come"

async def multicast():
    group = "udp://239.255.44.9:54409"
    async with aio.join(group, interface="lo") as one, aio.join(group, interface="lo") as two:
        await one.send(b"x")
        assert (await two.receive(timeout=20)).data == b"x"

async def main():
    for address in ("mem://here", "jl://127.0.0.1:0"):
        await session(address)
        await invitation(address)
    await multicast()
    names = [thread.name for thread in threading.enumerate()]
    assert names == ["MainThread"], names
    assert len(asyncio.all_tasks()) == 1

"""

RUNNERS = {
    "asyncio": "asyncio.run(main())",
    "uvloop": "import uvloop; uvloop.run(main())",
}


def run_python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program],
        env={**os.environ, "PYTHONPATH": str(SRC), **environment},
        capture_output=True,
        text=True,
        timeout=BOUND_S * 2,
        check=False,
    )


def complaints(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What it wrote to stderr; asyncio's remarks on a slow machine are none of them."""
    return [line for line in done.stderr.splitlines() if not line.startswith("Executing <")]


@pytest.mark.parametrize("debug", ["", "1"])
@pytest.mark.parametrize("loop", list(RUNNERS))
def test_a_whole_program_runs_without_a_thread_of_ours(loop: str, debug: str) -> None:
    if loop != "asyncio" and importlib.util.find_spec(loop) is None:
        pytest.skip(f"{loop} is not installed")
    done = run_python(PROGRAM + RUNNERS[loop], PYTHONASYNCIODEBUG=debug)
    assert (done.returncode, complaints(done)) == (0, [])


@pytest.mark.parametrize(
    "program",
    [
        "leaf = await aio.join(sys.argv[1])",
        "leaf = await aio.join(sys.argv[1]); await leaf.send(b'x')",
        "root = await aio.open_root('jl://127.0.0.1:0'); leaf = await aio.join(root.address)",
    ],
)
def test_who_forgets_to_close_ends_all_the_same_and_takes_leave(program: str) -> None:
    with joinleaf.open_root("jl://127.0.0.1:0") as root:
        text = f"""
import asyncio, sys
from joinleaf import aio
sys.argv = ["", {str(root.address)!r}]
kept = []
async def main():
    {program}
    kept.append(leaf)
asyncio.run(main())
"""
        done = run_python(text)
        assert (done.returncode, complaints(done)) == (0, [])
        if "open_root" not in program:
            told = [type(e).__name__ for e in root.events(timeout=0.5)]
            assert told == ["LeafJoined", "LeafLeft"]


def on_loop(body: Callable[[], Any]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(BOUND_S):
            await body()

    asyncio.run(bounded(), debug=True)


def test_a_resolver_that_hangs_does_not_stop_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is let go by the loop, which therefore runs."""
    asked, go_on = threading.Event(), threading.Event()
    real = socket.getaddrinfo

    def hanging(host: Any, *arguments: Any, **named: Any) -> Any:
        if host != "localhost":
            return real(host, *arguments, **named)
        asked.set()
        assert go_on.wait(BOUND_S)
        return real("127.0.0.1", *arguments, **named)

    async def body() -> None:
        async with aio.open_root("jl://127.0.0.1:0") as root:
            monkeypatch.setattr(socket, "getaddrinfo", hanging)
            address = str(root.address).replace("127.0.0.1", "localhost")
            joining = asyncio.ensure_future(aio.join(address)._open())
            while not asked.is_set():  # noqa: ASYNC110  # an event of threads
                await asyncio.sleep(0.001)
            go_on.set()
            async with await joining:
                await root.wait_for_leaves(1)

    on_loop(body)


def test_the_loop_goes_on_while_a_close_waits_for_its_peers() -> None:
    async def body() -> None:
        root = await aio.open_root("jl://127.0.0.1:0")
        leaf = await aio.join(root.address)
        await root.wait_for_leaves(1)
        while root.stats()["bytes_queued"] == 0:
            await root.send(bytes(BIG))
        closing = asyncio.ensure_future(root.close(timeout=BOUND_S))
        await asyncio.sleep(0.01)
        assert not closing.done()
        total = sum([len(message.data) async for message in leaf])
        await closing
        assert total % BIG == 0
        await leaf.close()

    on_loop(body)


def test_a_sender_that_never_has_to_wait_lets_others_have_their_turn() -> None:
    async def body() -> None:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        where = "udp://239.255.44.10:54410"
        async with aio.join(where, interface="lo", role="sender") as member:
            counting = asyncio.ensure_future(count())
            sent = 0
            while turns < 5:
                await member.send(b"x")
                sent += 1
                assert sent < 1_000_000
            counting.cancel()

    on_loop(body)


def test_coroutines_of_admit_run_side_by_side() -> None:
    async def body() -> None:
        everybody = asyncio.Barrier(20)

        async def admit(request: joinleaf.Request) -> joinleaf.Decision:
            await everybody.wait()  # one after another they would wait for ever
            return request.accept(request.data)

        async with aio.open_root("jl://127.0.0.1:0", admit=admit) as root:
            joins = [aio.join(root.address, data=b"%d" % n)._open() for n in range(20)]
            leaves = await asyncio.gather(*joins)
            assert [leaf.welcome for leaf in leaves] == [b"%d" % n for n in range(20)]
            for leaf in leaves:
                await leaf.close()

    on_loop(body)


def test_admit_may_close_the_root() -> None:
    async def body() -> None:
        closed = asyncio.Event()

        async def admit(request: joinleaf.Request) -> joinleaf.Decision:
            await root.close()
            closed.set()
            return request.accept()

        root = await aio.open_root("jl://127.0.0.1:0", admit=admit)
        with pytest.raises(joinleaf.SessionError):
            await aio.join(root.address)
        await closed.wait()

    on_loop(body)


@pytest.mark.parametrize("scheme", ["mem", "jl"])
def test_threads_and_a_loop_talk_to_each_other(scheme: str) -> None:
    """mem:// tells of things on the thread that did them."""
    address = "jl://127.0.0.1:0" if scheme == "jl" else "mem://threads-and-loop"

    def in_thread(where: joinleaf.SessionAddress) -> list[bytes]:
        with joinleaf.join(where, timeout=BOUND_S) as leaf:
            leaf.send(b"from the thread")
            return [message.data for message in leaf]

    async def body() -> None:
        root = await aio.open_root(address)
        thread = asyncio.ensure_future(asyncio.to_thread(in_thread, root.address))
        assert (await root.receive()).data == b"from the thread"
        await root.send_many([b"1", b"2"])
        await root.close()
        assert await thread == [b"1", b"2"]

    on_loop(body)


def test_an_opening_does_nothing_until_it_is_awaited() -> None:
    opening = aio.open_root("jl://192.0.2.1:1")  # no loop, and no such address here
    assert isinstance(opening, aio.Opening)

    async def body() -> None:
        with pytest.raises(joinleaf.SessionOSError):
            await opening
        with pytest.raises(joinleaf.SessionOSError):
            async with opening:
                pass

    on_loop(body)


def test_a_cancelled_transfer_stops_its_worker(tmp_path: Path) -> None:
    async def body() -> None:
        async with aio.open_root("jl://127.0.0.1:0") as root, aio.join(root.address) as leaf:
            receiving = asyncio.ensure_future(leaf.receive_file(tmp_path))
            await asyncio.sleep(0.05)
            receiving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await receiving
            await root.wait_for_leaves(1)
            await root.send(b"the session is usable again")
            assert (await leaf.receive()).data == b"the session is usable again"

    on_loop(body)
