"""Faults on demand: what a test does to a memory provider. Nothing here is left to chance."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from joinleaf.providers.memory_endpoint import MemoryEndpoint
from joinleaf.spi.provider import Endpoint, EndReason
from joinleaf.values import Address

if TYPE_CHECKING:
    from joinleaf.providers.memory_hub import Hub

__all__ = ["Faults", "Link"]


class Link(enum.Enum):
    """What the network does with a join request, or with the answer to one."""

    PASS = "pass"
    HOLD = "hold"  # until ``release``
    DROP = "drop"  # for ever: the asker hears nothing, and times out if it has a time
    REFUSE = "refuse"  # WSAECONNREFUSED, without asking anybody; of an answer: as DROP


class Faults:
    """What goes wrong in one memory provider. All may be changed at any time, from any thread.

    Attributes:
        requests: What becomes of join requests from now on.
        answers: What becomes of acceptances from now on; the acceptor is a member already.
        network_down: Whether every call that needs the network is refused with WSAENETDOWN.
        no_buffers: Whether every join is refused with WSAENOBUFS.
        drop_every: Lose every n-th message in nonrooted sessions, 1 all; 0 loses none.
    """

    def __init__(self) -> None:
        self.requests = Link.PASS
        self.answers = Link.PASS
        self.network_down = False
        self.no_buffers = False
        self.drop_every = 0
        self._unreachable: set[str] = set()
        self._held: deque[Callable[[], None]] = deque()
        self._hub: Hub | None = None

    def attach(self, hub: Hub) -> None:
        """Say whose faults these are; the provider does it once."""
        self._hub = hub

    @property
    def held(self) -> int:
        """How many requests and answers are being held."""
        return len(self._held)

    def hold(self, go_on: Callable[[], None]) -> None:
        """Keep a step for ``release``; called by the provider under its lock."""
        self._held.append(go_on)

    def release(self, count: int | None = None) -> int:
        """Let held requests and answers go on, oldest first; those given up meanwhile are void.

        Args:
            count: How many at most; None: all that are held now.

        Returns:
            How many went on.
        """
        hub = self._require_hub()
        with hub:
            going = len(self._held) if count is None else min(count, len(self._held))
            for _ in range(going):
                self._held.popleft()()
        return going

    def drop_held(self) -> int:
        """Lose everything that is held; gives how many that was."""
        with self._require_hub():
            lost = len(self._held)
            self._held.clear()
        return lost

    def set_route(self, address: Address, *, exists: bool) -> None:
        """Take away the route to a name, or give it back. Joins there get WSAENETUNREACH."""
        (self._unreachable.discard if exists else self._unreachable.add)(address.host)

    def reaches(self, address: Address) -> bool:
        """Whether there is a route."""
        return address.host not in self._unreachable

    def kill(self, endpoint: Endpoint, *, silently: bool = False) -> None:
        """End an endpoint as if its process had died.

        Args:
            endpoint: One of this provider's. It is closed afterwards; its peers are told LOST
                (WSAECONNRESET), legs of a killed c_root included.
            silently: The peers notice by silence instead: TIMED_OUT (WSAECONNABORTED).
        """
        if not isinstance(endpoint, MemoryEndpoint):
            raise TypeError("kill ends endpoints of a memory provider only")
        endpoint.die(EndReason.TIMED_OUT if silently else EndReason.LOST)

    def _require_hub(self) -> Hub:
        if self._hub is None:
            raise RuntimeError("these faults belong to no provider")
        return self._hub
