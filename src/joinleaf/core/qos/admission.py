"""Admission: whether one more reservation fits the capacity of a root."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from joinleaf.errors import SpiError
from joinleaf.spi.codes import WSAEOPNOTSUPP
from joinleaf.spi.constants import POSITIVE_INFINITY_RATE
from joinleaf.spi.qos import FlowSpec

__all__ = ["Admission"]

_CALL: Final = "join_leaf"


class Admission:
    """Adds up the token rates of guaranteed and controlled-load flows; others cost nothing.

    A reservation has a key, one for each direction of each leg, for instance ``(leg, "sending")``.

    Args:
        capacity: Bytes per second that may be reserved in all; None: unlimited.

    Raises:
        ValueError: The capacity is not above 0.
    """

    __slots__ = ("_capacity", "_in_use", "_reserved")

    def __init__(self, capacity: int | None) -> None:
        if capacity is not None and capacity < 1:
            raise ValueError("capacity must be at least 1 byte/s")
        self._capacity = capacity
        self._reserved: dict[Hashable, int] = {}
        self._in_use = 0

    @property
    def in_use(self) -> int:
        """Bytes per second reserved."""
        return self._in_use

    @property
    def available(self) -> int | None:
        """Bytes per second still to be had; None: unlimited."""
        return None if self._capacity is None else self._capacity - self._in_use

    def check(self, key: Hashable, flow: FlowSpec) -> None:
        """Raise what ``reserve`` would raise; reserve nothing."""
        self._cost_if_it_fits(key, flow)

    def reserve(self, key: Hashable, flow: FlowSpec) -> None:
        """Reserve for a flow, in place of what the key held before.

        Raises:
            SpiError: WSAEOPNOTSUPP; it does not fit. The key keeps what it had.
        """
        cost = self._cost_if_it_fits(key, flow)
        self._in_use += cost - self._reserved.pop(key, 0)
        if cost:
            self._reserved[key] = cost

    def release(self, key: Hashable) -> None:
        """Give back what the key holds; nothing is fine."""
        self._in_use -= self._reserved.pop(key, 0)

    def _cost_if_it_fits(self, key: Hashable, flow: FlowSpec) -> int:
        cost = (flow.rate or 0) if flow.reserves else 0
        if self._capacity is None:
            return cost
        others = self._in_use - self._reserved.get(key, 0)
        room = self._capacity - others
        # A reservation for an unlimited rate has no number, and never fits a limited capacity.
        endless = flow.reserves and flow.token_rate == POSITIVE_INFINITY_RATE
        if endless or cost > room:
            asked = "an unlimited rate" if endless else f"{cost} bytes/s"
            raise SpiError(
                WSAEOPNOTSUPP,
                f"{asked} asked, {others} of {self._capacity} bytes/s in use",
                call=_CALL,
                hint=f"Ask for at most {room} bytes/s, or for best effort",
            )
        return cost
