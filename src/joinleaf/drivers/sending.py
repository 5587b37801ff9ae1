"""Sending datagrams one by one, and what to do when one does not go at once."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Iterable

from joinleaf.drivers.waiting import Waiter
from joinleaf.errors import SpiError
from joinleaf.spi.codes import WSAEINTR, WSAETIMEDOUT, WSAEWOULDBLOCK, spi_error_from_os
from joinleaf.spi.provider import Buffer

__all__ = ["DatagramWriter"]


class DatagramWriter:
    """Writes to a non-blocking socket. One thread at a time.

    Args:
        sock: The socket.
        waiter: Waits for room.
        revive: Called when the system refuses a datagram: True if something has been mended and
            another try is worth it, False if there is nothing to mend; raises SpiError where
            something is broken and stays so.

    Attributes:
        destination: Where everything goes; ``revive`` may change it.
    """

    __slots__ = ("_revive", "_sock", "_waiter", "destination")

    def __init__(self, sock: socket.socket, waiter: Waiter, revive: Callable[[], bool]) -> None:
        self._sock = sock
        self._waiter = waiter
        self._revive = revive
        self.destination: tuple[str | int, ...] = ()

    def send_all(self, messages: Iterable[Buffer], timeout: float | None, mark: int) -> None:
        """A datagram for each message.

        Args:
            messages: None longer than a datagram can be.
            timeout: Seconds for all of them; None: no bound, 0: never wait.
            mark: What the waiter's ``mark`` said when the call began.

        Raises:
            SpiError: WSAEWOULDBLOCK, WSAETIMEDOUT, WSAEINTR, or what the system said; the text
                tells how many have left.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        patient = timeout is None or timeout > 0
        sendto = self._sock.sendto
        for index, message in enumerate(messages):
            try:
                sendto(message, self.destination)
            except OSError as error:
                self._send_slowly(message, error, deadline if patient else None, mark, index)

    def _send_slowly(
        self, message: Buffer, error: OSError, deadline: float | None, mark: int, sent: int
    ) -> None:
        mended = False
        while True:
            if isinstance(error, BlockingIOError):
                self._wait_for_room(deadline, mark, sent)
            elif self._waiter.closed:
                raise SpiError(WSAEINTR, "closed by another thread", call="send") from error
            elif not mended and isinstance(error, ConnectionError):
                mended = True  # the answer to an earlier datagram; being told has cleared it
            elif not mended and self._revive():
                mended = True
            else:
                what = f"sending to {self.destination[0]} ({sent} have left)"
                raise spi_error_from_os(error, call="send", message=what) from error
            try:
                self._sock.sendto(message, self.destination)
            except OSError as again:
                error = again
            else:
                return

    def _wait_for_room(self, deadline: float | None, mark: int, sent: int) -> None:
        if deadline is None:
            code = WSAEWOULDBLOCK
        else:
            left = None if deadline == math.inf else max(0.0, deadline - time.monotonic())
            if self._waiter.wait_writable(self._sock.fileno(), left, mark=mark):
                return
            code = WSAETIMEDOUT
        raise SpiError(
            code,
            f"no room to send; {sent} messages of the batch have left",
            call="send",
            hint="Send the rest again later, or slower",
            sent=sent,
        )
