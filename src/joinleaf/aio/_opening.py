"""Something that is opened by ``await``, or by ``async with``, which closes it as well."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["Opening"]


class _Closable(Protocol):
    async def close(self) -> None: ...


S = TypeVar("S", bound=_Closable)


class Opening(Generic[S]):
    """``session = await join(...)`` or ``async with join(...) as session``.

    Until then nothing happens.
    """

    __slots__ = ("_open", "_opened")

    def __init__(self, open_it: Callable[[], Coroutine[Any, Any, S]]) -> None:
        self._open = open_it
        self._opened: S | None = None

    def __await__(self) -> Generator[Any, Any, S]:
        return self._open().__await__()

    async def __aenter__(self) -> S:
        self._opened = await self._open()
        return self._opened

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._opened is not None:
            await self._opened.close()
