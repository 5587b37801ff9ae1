"""What ties a multicast endpoint to its group: state machine, attachment, and their troubles."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from joinleaf.core.leaf_nonrooted import (
    NonrootedAction,
    NonrootedInput,
    NonrootedLeafMachine,
    NonrootedState,
)
from joinleaf.drivers.attachment import Attachment
from joinleaf.errors import SpiError
from joinleaf.values import Address

__all__ = ["LOOK_INTERVAL", "Membership"]

_log = logging.getLogger("joinleaf")

_I, _A, _S = NonrootedInput, NonrootedAction, NonrootedState

LOOK_INTERVAL: Final = 1.0
"""Seconds of silence after which a waiting receiver looks whether its membership still holds."""


class Membership:
    """The membership of one endpoint.

    Args:
        dead_after: Seconds without a usable interface after which receivers are told.
        redirect: Told the index of the interface that what is sent has to leave by from now on.

    Attributes:
        lock: Guards everything here; never held while waiting or calling out.
        machine: Where the endpoint stands.
        attachment: Its tie to the group; None before the first join.
        session: What it joined; None before.
        lost: How often the membership was lost.
        renewed: How often it came back.
    """

    __slots__ = (
        "_cut_off_since",
        "_dead_after",
        "_looked_at",
        "_redirect",
        "attachment",
        "lock",
        "lost",
        "machine",
        "renewed",
        "session",
    )

    def __init__(self, dead_after: float, redirect: Callable[[int], None]) -> None:
        self.lock = threading.RLock()
        self.machine = NonrootedLeafMachine()
        self.attachment: Attachment | None = None
        self.session: Address | None = None
        self.lost = self.renewed = 0
        self._dead_after = dead_after
        self._redirect = redirect
        self._looked_at = 0.0
        self._cut_off_since = 0.0

    @property
    def is_closed(self) -> bool:
        """Whether the endpoint is."""
        return self.machine.state is _S.CLOSED

    def close(self) -> bool:
        """Leave, and be closed; False if it was."""
        with self.lock:
            closing = not self.is_closed
            self._perform(self.machine.handle(_I.CLOSE))
        return closing

    def entered(self, session: Address) -> None:
        """A join has succeeded."""
        self.session = session
        self._looked_at = time.monotonic()

    def look_after(self, now: float) -> None:
        """Find out whether the system has forgotten the membership, and renew it.

        A receiver that has waited a second for nothing asks. While the interface is away it goes on
        waiting and trying; once that has lasted ``dead_after`` seconds the caller is told, with
        every call, and may go on calling: the session revives with its interface.

        Raises:
            SpiError: WSAENETDOWN, WSAENETUNREACH or WSAEADDRNOTAVAIL, as said.
        """
        if now - self._looked_at < LOOK_INTERVAL:
            return
        self._looked_at = now
        with self.lock:
            if self.attachment is None or self.machine.state not in (_S.JOINED, _S.CUT_OFF):
                return
            if self.machine.state is _S.JOINED:
                trouble = self.attachment.trouble()
                if trouble is None:
                    return
                _log.warning("%s: nothing arrives: %s", self.session, trouble)
                self._perform(self.machine.handle(_I.LOST))
            trouble = self._try_to_renew()
        if trouble is not None and now - self._cut_off_since >= self._dead_after:
            raise SpiError(
                trouble.code,
                f"{self.session}: nothing can arrive: {trouble}",
                call="receive",
                hint="The session revives with its interface: call again, or close it",
            ) from trouble

    def revive(self) -> bool:
        """Attach again if the interface is in trouble.

        Returns:
            Whether it was, and no longer is.

        Raises:
            SpiError: It was, and still is.
        """
        with self.lock:
            if self.attachment is None or (trouble := self.attachment.trouble()) is None:
                return False
            if self.machine.state is _S.JOINED:
                _log.warning("%s: nothing can be sent: %s", self.session, trouble)
                self._perform(self.machine.handle(_I.LOST))
            if self.machine.state is _S.CUT_OFF:
                failure = self._try_to_renew()
                if failure is not None:
                    raise failure
            else:
                self.attachment.renew()
                self._redirect(self.attachment.interface.index)
        return True

    def _try_to_renew(self) -> SpiError | None:
        """Attach again; what is in the way, or None if it worked."""
        assert self.attachment is not None
        try:
            self.attachment.renew()
        except SpiError as error:
            self.machine.handle(_I.LOST)
            return error
        self._redirect(self.attachment.interface.index)
        self._perform(self.machine.handle(_I.RENEWED))
        return None

    def _perform(self, actions: tuple[NonrootedAction, ...]) -> None:
        for action in actions:
            if action is _A.DROP_MEMBERSHIP and self.attachment is not None:
                self.attachment.detach()
            elif action is _A.TELL_LOST:
                self.lost += 1
                self._cut_off_since = time.monotonic()
            elif action is _A.TELL_RENEWED:
                self.renewed += 1
