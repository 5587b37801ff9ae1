from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest

from joinleaf.drivers.loop import LoopReactor, look_up_soon
from joinleaf.drivers.reactor import chosen_reactor, reactor_in_use, shared_reactor
from joinleaf.values import Address

BOUND_S = 10.0


def run(body: Callable[[LoopReactor], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(BOUND_S):
            await body(LoopReactor(asyncio.get_running_loop()))

    asyncio.run(bounded(), debug=True)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_what_is_watched_is_called_until_it_is_not(pipe: tuple[int, int]) -> None:
    async def body(reactor: LoopReactor) -> None:
        called = asyncio.Event()
        reactor.watch(pipe[0], called.set)
        os.write(pipe[1], b"x")
        await called.wait()
        reactor.unwatch(pipe[0])
        called.clear()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not called.is_set()
        reactor.unwatch(pipe[0])  # twice does no harm

    run(body)


def test_a_call_to_come_comes_unless_it_is_cancelled() -> None:
    async def body(reactor: LoopReactor) -> None:
        came = asyncio.Event()
        reactor.call_later(0, pytest.fail).cancel()
        reactor.call_later(0.001, came.set)
        await came.wait()

    run(body)


def test_other_threads_may_ask_and_it_happens_on_the_loop(pipe: tuple[int, int]) -> None:
    async def body(reactor: LoopReactor) -> None:
        mine, where = threading.get_ident(), []
        done = asyncio.Event()

        def note() -> None:
            where.append(threading.get_ident())
            done.set()

        def ask() -> None:
            assert not reactor.is_current_thread
            reactor.call_later(0, pytest.fail).cancel()
            reactor.watch(pipe[0], note)

        assert reactor.is_current_thread
        await asyncio.to_thread(ask)
        os.write(pipe[1], b"x")
        await done.wait()
        await asyncio.to_thread(reactor.unwatch, pipe[0])
        assert await reactor.idle(BOUND_S)
        done.clear()
        await asyncio.to_thread(reactor.call_later, 0.001, note)
        await done.wait()
        assert set(where) == {mine}

    run(body)


def test_idle_waits_for_the_last_watch_to_end_and_no_longer_than_told(
    pipe: tuple[int, int],
) -> None:
    async def body(reactor: LoopReactor) -> None:
        assert await reactor.idle(0)
        reactor.watch(pipe[0], lambda: None)
        assert not await reactor.idle(0)
        assert not await reactor.idle(0.001)
        waiting = asyncio.ensure_future(reactor.idle(BOUND_S))
        await asyncio.sleep(0)
        assert not waiting.done()
        reactor.unwatch(pipe[0])
        assert await waiting
        reactor.watch(pipe[0], lambda: None)
        waiting = asyncio.ensure_future(reactor.idle(BOUND_S))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        reactor.unwatch(pipe[0])

    run(body)


def test_a_callback_that_fails_is_logged_and_the_next_one_is_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body(reactor: LoopReactor) -> None:
        came = asyncio.Event()
        reactor.call_later(0, lambda: 1 // 0)  # type: ignore[arg-type]  # it raises
        reactor.call_later(0.001, came.set)
        await came.wait()

    with caplog.at_level(logging.ERROR, "joinleaf"):
        run(body)
    assert "ZeroDivisionError" in caplog.text


def test_a_closed_loop_refuses_nothing_and_does_nothing(pipe: tuple[int, int]) -> None:
    kept: list[LoopReactor] = []

    async def body(reactor: LoopReactor) -> None:
        reactor.watch(pipe[0], pytest.fail)
        kept.append(reactor)

    run(body)
    (reactor,) = kept
    reactor.unwatch(pipe[0])
    reactor.watch(pipe[0], pytest.fail)
    reactor.call_later(0, pytest.fail).cancel()
    assert reactor.is_current_thread  # nobody is to wait for it


def test_the_reactor_in_use_is_the_threads_own_unless_one_was_named() -> None:
    async def body(reactor: LoopReactor) -> None:
        assert chosen_reactor() is None
        with reactor.in_use():
            assert chosen_reactor() is reactor_in_use() is reactor
        assert reactor_in_use() is shared_reactor()

    run(body)


def test_numbers_and_no_host_are_not_looked_up() -> None:
    async def body(_: LoopReactor) -> None:
        for host in ("", "127.0.0.1", "::1"):
            assert await look_up_soon(Address(host, 1)) == {}

    run(body)
