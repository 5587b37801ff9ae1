"""Sending and receiving on one endpoint without ever blocking: try, and await if it would."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from typing import Final

from joinleaf.aio._bell import Bell
from joinleaf.errors import SpiError
from joinleaf.spi import constants as c
from joinleaf.spi.codes import WSAEINPROGRESS, WSAETIMEDOUT, WSAEWOULDBLOCK
from joinleaf.spi.provider import Batch, Buffer, Endpoint

__all__ = ["Channel"]

TURN_S: Final = 0.005
"""A task whose calls never have to wait lets others have a turn after this long. Else a sender
faster than its network, or a receiver slower than it, would keep the loop to itself, and could not
be cancelled."""

LOOK_AGAIN_S: Final = 1.0
"""Where nobody tells of a membership that was lost, the endpoint finds out when it is asked."""


class Channel:
    """The data of one endpoint. One task may send and one receive at a time."""

    __slots__ = (
        "_endpoint",
        "_look_again",
        "_readable",
        "_receiving",
        "_sending",
        "_turn_due",
        "_writable",
    )

    def __init__(self, endpoint: Endpoint, loop: asyncio.AbstractEventLoop) -> None:
        self._endpoint = endpoint
        self._readable = Bell(loop)
        self._writable = Bell(loop)
        self._sending = False
        self._receiving = False
        self._turn_due = 0.0
        self._look_again = not endpoint.info.control_plane_rooted

    def indicated(self, kind: int) -> None:
        """Take note of an indication of the endpoint."""
        if kind != c.FD_WRITE:
            self._readable.ring()
        if kind != c.FD_READ:
            self._writable.ring()

    async def send_many(
        self,
        messages: Sequence[Buffer],
        timeout: float | None,
        to: Collection[Endpoint] | None = None,
    ) -> None:
        """As the endpoint's. Cancelled while it waits, it has sent nothing."""
        if self._sending:
            raise _busy("send")
        self._sending = True
        try:
            if time.monotonic() >= self._turn_due:
                await self._give_turn()
            self._writable.clear()
            try:
                self._endpoint.send_many(messages, timeout=0, to=to)
            except SpiError as error:
                if error.code != WSAEWOULDBLOCK or (timeout is not None and timeout <= 0):
                    raise
                await self._send_slowly(messages[error.sent :], timeout, to)
        finally:
            self._sending = False

    async def _send_slowly(
        self, messages: Sequence[Buffer], timeout: float | None, to: Collection[Endpoint] | None
    ) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            await self._wait(self._writable, deadline, timeout, "send")
            self._writable.clear()
            try:
                return self._endpoint.send_many(messages, timeout=0, to=to)
            except SpiError as error:
                if error.code != WSAEWOULDBLOCK:
                    raise
                messages = messages[error.sent :]

    async def receive_many(self, timeout: float | None) -> Batch:
        """As the endpoint's. Cancelled, it has taken nothing."""
        if self._receiving:
            raise _busy("receive")
        self._receiving = True
        try:
            if time.monotonic() >= self._turn_due:
                await self._give_turn()
            deadline = None if timeout is None else time.monotonic() + timeout
            while True:
                self._readable.clear()
                try:
                    return self._endpoint.receive_many(timeout=0)
                except SpiError as error:
                    if error.code != WSAEWOULDBLOCK or (timeout is not None and timeout <= 0):
                        raise
                await self._wait(self._readable, deadline, timeout, "receive")
        finally:
            self._receiving = False

    async def _wait(
        self, bell: Bell, deadline: float | None, timeout: float | None, call: str
    ) -> None:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise SpiError(WSAETIMEDOUT, f"{call} was not done within {timeout} s", call=call)
        if self._look_again:
            left = LOOK_AGAIN_S if left is None else min(left, LOOK_AGAIN_S)
        await bell.wait(left)
        self._turn_due = time.monotonic() + TURN_S

    async def _give_turn(self) -> None:
        await asyncio.sleep(0)
        self._turn_due = time.monotonic() + TURN_S


def _busy(call: str) -> SpiError:
    return SpiError(
        WSAEINPROGRESS,
        f"another task is inside {call} on this endpoint",
        call=call,
        hint=f"Let one task {call} at a time",
    )
