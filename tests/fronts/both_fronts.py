"""The synchronous front in the clothes of the other, so that one test body runs both.

Every call that the asyncio front awaits runs in a thread here; what it gives is wrapped in turn.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, Self

import joinleaf
import joinleaf.aio
import joinleaf.sync

__all__ = ["FRONTS", "Front"]

AWAITED: Final = frozenset(
    {
        "accept",
        "close",
        "invite",
        "receive",
        "receive_file",
        "receive_many",
        "send",
        "send_file",
        "send_many",
        "wait_for_leaves",
    }
)


class Blocking:
    """A session, listener or leaf of the synchronous front."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        if name not in AWAITED:
            return dressed(value)

        async def call(*arguments: Any, **named: Any) -> Any:
            plain = {key: undressed(argument) for key, argument in named.items()}
            return dressed(await asyncio.to_thread(value, *arguments, **plain))

        return call

    async def events(self, *, timeout: float | None = None) -> AsyncIterator[Any]:  # noqa: ASYNC109  # as the front has it
        events = self.inner.events(timeout=timeout)
        while (event := await asyncio.to_thread(next, events, None)) is not None:
            yield event

    async def __aiter__(self) -> AsyncIterator[Any]:
        messages = iter(self.inner)
        while (message := await asyncio.to_thread(next, messages, None)) is not None:
            yield message

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.inner.close)


class BlockingOpening:
    """What ``join`` gives: to be awaited, or entered."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call

    def __await__(self) -> Any:
        return self._open().__await__()

    async def _open(self) -> Blocking:
        return Blocking(await asyncio.to_thread(self.call))

    async def __aenter__(self) -> Blocking:
        self.opened = await self._open()
        return self.opened

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.opened.inner.close)


def dressed(value: Any) -> Any:
    if isinstance(value, joinleaf.sync.Session | joinleaf.sync.RootLeaf | joinleaf.sync.Listener):
        return Blocking(value)
    if isinstance(value, joinleaf.sync.Leaves):
        return [Blocking(leaf) for leaf in value]
    return value


def undressed(value: Any) -> Any:
    if isinstance(value, list):
        return [undressed(one) for one in value]
    return value.inner if isinstance(value, Blocking) else value


class Front:
    """``join``, ``open_root`` and ``listen`` of one front."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._module: Any = joinleaf.aio if name == "aio" else joinleaf

    def __repr__(self) -> str:
        return self.name

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(self._module, name)
        if self.name == "aio":
            return function  # type: ignore[no-any-return]  # Any by nature

        def call(*arguments: Any, **named: Any) -> BlockingOpening:
            return BlockingOpening(lambda: function(*arguments, **named))

        return call

    def admit(self, decide: Callable[[joinleaf.Request], Any]) -> Any:
        """A door: a coroutine function where the front takes one."""
        if self.name == "sync":
            return decide

        async def admit(request: joinleaf.Request) -> Any:
            await asyncio.sleep(0)
            verdict = decide(request)
            return await verdict if inspect.isawaitable(verdict) else verdict

        return admit

    def run(self, body: Callable[[], Awaitable[None]], bound: float = 30.0) -> None:
        """Run a test's body on a loop of its own, in debug mode."""

        async def bounded() -> None:
            async with asyncio.timeout(bound):
                await body()

        asyncio.run(bounded(), debug=True)


FRONTS: Final = (Front("sync"), Front("aio"))
