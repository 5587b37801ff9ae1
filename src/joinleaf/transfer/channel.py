"""What the transfer engine asks of a session: two small protocols, and nothing of any carrier.

The session API satisfies both; the tests satisfy them with queues in memory. Messages are
reliable and ordered per sender; whether they travel by TCP legs or by multicast is the carrier's
affair. The engine helps it by sending to everybody (``to=None``) whenever everybody wants the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Sequence

    from joinleaf.values import Address

__all__ = ["Buffer", "LeafChannel", "LeafHandle", "MembershipChange", "Received", "RootChannel"]

Buffer = bytes | bytearray | memoryview
"""One message, going out. It may be reused as soon as the call that sent it has returned."""


class Received(Protocol):
    """Messages of one sender, in order; ``joinleaf.spi.provider.Batch`` is one."""

    @property
    def messages(self) -> Sequence[bytes]:
        """Payloads, oldest first."""
        ...

    @property
    def sender(self) -> Address:
        """Who sent them."""
        ...


class LeafHandle(Protocol):
    """One admitted leaf, as the root sees it.

    It may have an attribute ``carrier``, too: ``"group"`` or ``"leg"``, what brings it messages.
    """

    @property
    def key(self) -> Hashable:
        """Tells this start of this leaf from every other; never used twice in a session."""
        ...

    @property
    def address(self) -> Address:
        """Where it is; equal to ``sender`` of what it sends."""
        ...

    @property
    def name(self) -> str:
        """What it calls itself; unverified."""
        ...

    @property
    def incarnation(self) -> bytes:
        """Identity of this start of the leaf."""
        ...


class MembershipChange(Protocol):
    """A leaf came or went."""

    @property
    def joined(self) -> bool:
        """True: it came; False: it left."""
        ...

    @property
    def leaf(self) -> LeafHandle:
        """Which."""
        ...

    @property
    def reason(self) -> str:
        """Why it left; ``""`` where it came."""
        ...

    @property
    def data(self) -> bytes:
        """What it sent along."""
        ...


class RootChannel(Protocol):
    """A session, seen from its root."""

    @property
    def leaves(self) -> Sequence[LeafHandle]:
        """Who is in the session now."""
        ...

    def send_many(
        self,
        messages: Sequence[Buffer],
        *,
        timeout: float | None = None,
        to: Collection[LeafHandle] | None = None,
    ) -> None:
        """Send to all leaves, or only to these; a leaf of ``to`` that has left is passed over.

        Raises:
            SessionTimeoutError: No room within ``timeout`` seconds; nobody got anything.
            SessionClosedError, SessionBrokenError: The session is over.
        """
        ...

    def receive_many(self, *, timeout: float | None = None) -> Received:
        """What leaves sent, one sender at a time.

        Raises:
            SessionTimeoutError: Nothing within ``timeout`` seconds; 0 only looks.
            SessionClosedError, SessionBrokenError: The session is over.
        """
        ...

    def membership_events(self) -> Sequence[MembershipChange]:
        """Changes since the last call, oldest first; never waits.

        What a leaf sent before it left can be received before its leaving shows here.
        """
        ...


class LeafChannel(Protocol):
    """A session, seen from one leaf; what it sends goes to the root."""

    def send_many(self, messages: Sequence[Buffer], *, timeout: float | None = None) -> None:
        """Send to the root; the errors are those of ``RootChannel.send_many``."""
        ...

    def receive_many(self, *, timeout: float | None = None) -> Received:
        """What the root sent; the errors are those of ``RootChannel.receive_many``."""
        ...
