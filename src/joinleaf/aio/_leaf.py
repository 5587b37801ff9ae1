"""A leaf of a session, or a member among equals; and the listener for invitations."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from joinleaf.aio._bell import Bell
from joinleaf.aio._session import Session, on_loop
from joinleaf.aio._transfers import CallsTheLoop, told_on_loop, transferred
from joinleaf.drivers.loop import LoopReactor
from joinleaf.errors import SpiError
from joinleaf.messages import Decision, Request
from joinleaf.opening import join_line
from joinleaf.spi.codes import WSAEINPROGRESS, WSAETIMEDOUT, WSAEWOULDBLOCK, session_error
from joinleaf.spi.provider import (
    DEFER,
    Accept,
    Endpoint,
    JoinRole,
    Reject,
    SecuredEndpoint,
    TakenRequest,
)
from joinleaf.transfer import ReceiveResult, receive_object
from joinleaf.values import Address, SessionAddress

if TYPE_CHECKING:
    import os
    from typing import IO

    from joinleaf.transfer import ReceiveProgress
    from joinleaf.transfer.sender import Flag

__all__ = ["Admit", "Leaf", "Listener"]

Admit = Callable[[Request], Decision | Awaitable[Decision]]
"""Decides about one join request: a function, or a coroutine function."""


class Leaf(Session):
    """A member of a session. Made by ``join`` or ``Listener.accept``.

    Attributes:
        welcome: What the other side sent back when this member was admitted; ``b""`` if nothing.
        role: Whether it sends, receives or both.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        address: SessionAddress,
        reactor: LoopReactor,
        linger: float,
        *,
        welcome: bytes,
        role: JoinRole,
    ) -> None:
        super().__init__(endpoint, address, reactor, linger)
        self.welcome = welcome
        self.role = role

    @property
    def address(self) -> SessionAddress:
        """The session's address, as it was joined."""
        return self._address

    @property
    def peer_identity(self) -> str:
        """Who the root is: whom its certificate names, ``"session key"``, ``""`` in cleartext."""
        endpoint = self._endpoint
        return endpoint.peer_identity if isinstance(endpoint, SecuredEndpoint) else ""

    @property
    def peer_address(self) -> Address:
        """The root's address; on multicast the group's."""
        return self._call(lambda: self._endpoint.peer_address)

    async def receive_file(
        self,
        destination: str | os.PathLike[str] | IO[bytes],
        *,
        name: str | None = None,
        overwrite: bool = False,
        clean: bool = False,
        max_bytes: int | None = None,
        timeout: float | None = None,
        cancel: Flag | None = None,
        on_progress: Callable[[ReceiveProgress], None] | None = None,
    ) -> ReceiveResult:
        """Receive the object that the root sends with ``send_file``.

        Files block, so this works in a thread of the loop's executor. A receive that was
        interrupted, by cancellation for instance, is resumed: give the same folder again while the
        root still sends, and only what is missing is asked for.

        Args:
            destination: A folder, or a binary stream.
            name: Instead of the object's own name.
            overwrite: Replace files that exist.
            clean: Remove what interrupted runs have left of other objects of the same name.
            max_bytes: Take no more than this many bytes.
            timeout: Longest wait for the offer in seconds; None: as long as it takes.
            cancel: Cuts it short when set; what has arrived is kept for a resumption.
            on_progress: Called at most ten times a second, on the loop.

        Returns:
            How it ended here; ``ok`` says whether everything is here and verified.

        Raises:
            SessionTimeoutError: Nothing was offered in time.
            SessionClosedError, SessionBrokenError: The session ended first.
        """
        channel = CallsTheLoop(self.send_many, self.receive_many)
        tell = told_on_loop(on_progress)
        return await transferred(
            channel,
            lambda flag: receive_object(
                channel,
                destination,
                name=name,
                overwrite=overwrite,
                clean=clean,
                max_bytes=max_bytes,
                timeout=timeout,
                cancel=flag,
                on_progress=tell,
            ),
            cancel,
        )


class Listener:
    """Waits for invitations of roots. Made by ``listen``; to be used with ``async with``."""

    def __init__(
        self,
        endpoint: Endpoint,
        address: SessionAddress,
        admit: Admit | None,
        reactor: LoopReactor,
        linger: float,
    ) -> None:
        self._endpoint = endpoint
        self._address = address
        self._admit = admit
        self._reactor = reactor
        self._linger = linger
        self._asked = Bell(reactor.loop)
        self._accepting = False
        endpoint.subscribe(on_loop(reactor.loop, lambda *_: self._asked.ring()))

    @property
    def local_address(self) -> Address:
        """Where roots can reach it."""
        return self._endpoint.local_address

    @property
    def join_line(self) -> str:
        """What roots invite it by: the address and, of ``jls://``, the session key."""
        where = SessionAddress(self._address.scheme, self.local_address, "", self._address.options)
        return join_line(self._endpoint, where)

    async def accept(self, *, timeout: float | None = None) -> Leaf:
        """Wait for an invitation and accept it, unless ``admit`` says no.

        Cancelled while ``admit`` decides, it leaves the invitation waiting for the next call.

        Args:
            timeout: Seconds; None for ever.

        Raises:
            SessionTimeoutError: None came in time.
            JoinRefusedError: ``admit`` turned the invitation down; call again for the next.
            SessionClosedError: The listener was closed.
            BusyError: Another task is accepting.
        """
        if self._accepting:
            raise session_error(SpiError(WSAEINPROGRESS, "another task is accepting"))
        self._accepting = True
        try:
            try:
                taken = await self._next_request(timeout)
            except SpiError as error:
                raise session_error(error) from error
            return await self._answer(taken)
        finally:
            self._accepting = False

    async def _next_request(self, timeout: float | None) -> TakenRequest:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._asked.clear()
            try:
                return self._endpoint.take_request(timeout=0)
            except SpiError as error:
                if error.code != WSAEWOULDBLOCK or (timeout is not None and timeout <= 0):
                    raise
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise SpiError(WSAETIMEDOUT, f"accept was not done within {timeout} s")
            await self._asked.wait(left)

    async def _answer(self, taken: TakenRequest) -> Leaf:
        verdict = await self._decide(taken)
        reactor = LoopReactor(self._reactor.loop)
        try:
            with reactor.in_use():
                endpoint = taken.answer(verdict)
        except SpiError as error:
            raise session_error(error, joining=True) from error
        data = taken.request.data
        return Leaf(
            endpoint, self._address, reactor, self._linger, welcome=data, role=JoinRole.BOTH
        )

    async def _decide(self, taken: TakenRequest) -> Decision:
        if self._admit is None:
            return Accept()
        try:
            verdict = self._admit(Request.of(taken.request))
            return await verdict if inspect.isawaitable(verdict) else verdict
        except asyncio.CancelledError:
            _answer_quietly(taken, DEFER)
            raise
        except BaseException:
            _answer_quietly(taken, Reject(message="the leaf could not decide; see its log"))
            raise

    async def close(self) -> None:
        """Stop listening; leaves that were accepted go on."""
        self._endpoint.close()
        self._asked.ring()
        try:
            await self._reactor.idle(self._linger)
        except asyncio.CancelledError:
            self._endpoint.close(abort=True)
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def _answer_quietly(taken: TakenRequest, verdict: Decision) -> None:
    try:
        taken.answer(verdict)
    except SpiError:  # what answering anything but yes always ends in
        return
