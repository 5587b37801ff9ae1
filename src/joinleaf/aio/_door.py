"""Answers join requests as they come, without a task where ``admit`` is a plain function."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from joinleaf.aio._leaf import Admit
from joinleaf.drivers.loop import LoopReactor
from joinleaf.errors import SpiError
from joinleaf.messages import Decision, Request
from joinleaf.spi.codes import WSAEMFILE, WSAENOTSOCK, WSAEWOULDBLOCK, WSATRY_AGAIN
from joinleaf.spi.provider import Accept, Defer, Endpoint, JoinRequest, Reject, TakenRequest

__all__ = ["Door"]

_log: Final = logging.getLogger("joinleaf")

ASK_AGAIN_S: Final = 0.1
"""A deferred request is shown to ``admit`` again after this long."""

REQUESTS_PER_TURN: Final = 32
"""Answered before others of the loop have a turn: a thousand joins must not stop a program."""

CLOSED_DOOR: Final = (
    "this root admits nobody: it listens off loopback and was not told whom to admit"
)


class Door:
    """Who may join one root.

    Coroutines of ``admit`` run side by side, as many as the backlog holds: one that asks a data
    base does not hold up the next. All calls on the loop's thread.

    Attributes:
        admitted: Called with the new leg and what it asked with.
        refused: Called with a request that came to nothing, and why.
    """

    def __init__(
        self, endpoint: Endpoint, reactor: LoopReactor, admit: Admit | None, may_enter: bool
    ) -> None:
        self._endpoint = endpoint
        self._reactor = reactor
        self._loop = reactor.loop
        self._admit = admit
        self._may_enter = may_enter
        self._due: asyncio.Handle | None = None
        self._deciding: set[asyncio.Future[Decision]] = set()
        self._closed = False
        self.admitted: Callable[[Endpoint, JoinRequest], object] = lambda *_: None
        self.refused: Callable[[JoinRequest, str], object] = lambda *_: None

    def ask(self) -> None:
        """Somebody may be waiting: have a look, soon."""
        if self._due is None and not self._closed:
            self._due = self._loop.call_soon(self._look)

    async def close(self) -> None:
        """Nobody is answered any more; decisions under way are cancelled, and waited for."""
        self._closed = True
        if self._due is not None:
            self._due.cancel()
        others = self._deciding - {asyncio.current_task()}  # admit itself may close the root
        for future in others:
            future.cancel()
        if others:
            await asyncio.wait(others)

    def _look(self) -> None:
        self._due = None
        for _ in range(REQUESTS_PER_TURN):
            if self._due is not None or self._closed:  # one was deferred
                return
            try:
                taken = self._endpoint.take_request(timeout=0)
            except SpiError as error:
                if error.code in (WSAEWOULDBLOCK, WSAENOTSOCK):
                    return
                self._came_to_nothing(error)
            else:
                self._take(taken)
        self.ask()

    def _take(self, taken: TakenRequest) -> None:
        try:
            verdict = self._decide(taken.request)
            if inspect.isawaitable(verdict):
                future = asyncio.ensure_future(verdict)
                self._deciding.add(future)
                future.add_done_callback(partial(self._decided, taken))
                return
        except Exception:
            verdict = _failed()
        self._answer(taken, verdict)

    def _decide(self, request: JoinRequest) -> object:
        if self._admit is not None:
            return self._admit(Request.of(request))
        return Accept() if self._may_enter else Reject(message=CLOSED_DOOR)

    def _decided(self, taken: TakenRequest, future: asyncio.Future[Decision]) -> None:
        self._deciding.discard(future)
        if self._closed:
            if not future.cancelled():
                future.exception()  # nobody is left to be answered
            return
        try:
            verdict = future.result()
        except (Exception, asyncio.CancelledError):
            self._answer(taken, _failed())
        else:
            self._answer(taken, verdict)

    def _answer(self, taken: TakenRequest, verdict: object) -> None:
        if not isinstance(verdict, Accept | Reject | Defer):
            _log.error("admit returned %r instead of a decision; turned away", verdict)
            verdict = Reject(message="the root could not decide")
        try:
            with self._reactor.in_use():
                leg = taken.answer(verdict)
        except SpiError as error:
            if error.code != WSATRY_AGAIN:
                self.refused(taken.request, str(error))
            self._came_to_nothing(error)
        else:
            self.admitted(leg, taken.request)

    def _came_to_nothing(self, error: SpiError) -> None:
        if error.code in (WSATRY_AGAIN, WSAEMFILE):
            if self._due is not None:
                self._due.cancel()
            self._due = self._loop.call_later(ASK_AGAIN_S, self._look)
        else:
            _log.info("a join did not come about: %s", error)


def _failed() -> Reject:
    _log.exception("admit failed; the asker was turned away")
    return Reject(message="the root could not decide; see its log")
