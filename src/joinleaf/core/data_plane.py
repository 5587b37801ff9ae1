"""Who hears whom: the data plane of a multipoint session (model, sections 1.1, 10.1 and 10.2)."""

from __future__ import annotations

from dataclasses import dataclass

from joinleaf.errors import SpiError
from joinleaf.spi.codes import WSAEOPNOTSUPP
from joinleaf.spi.provider import JoinRole

__all__ = ["Member", "check_may_receive", "check_may_send", "hears"]


@dataclass(frozen=True, slots=True)
class Member:
    """A member as the data plane sees it.

    Attributes:
        key: Tells members apart; the same key is the same member.
        d_root: Whether it is the one root of a rooted data plane.
        role: Whether it sends, receives or both.
        loopback: Whether it hears itself (nonrooted planes only).
    """

    key: int
    d_root: bool = False
    role: JoinRole = JoinRole.BOTH
    loopback: bool = False


def hears(listener: Member, sender: Member, *, rooted: bool) -> bool:
    """Whether what ``sender`` sends to the session reaches ``listener``.

    In a rooted data plane the d_root and the d_leafs hear each other, and no d_leaf a d_leaf; the
    d_root never hears itself. In a nonrooted one all hear all others, and themselves with loopback.
    """
    if not (sender.role.sends and listener.role.receives):
        return False
    if rooted:
        return sender.d_root != listener.d_root
    return sender.key != listener.key or listener.loopback


def check_may_send(role: JoinRole) -> None:
    """Raise WSAEOPNOTSUPP where the role forbids sending (model 10.2, rooted providers)."""
    if not role.sends:
        raise SpiError(
            WSAEOPNOTSUPP,
            "this member joined as a receiver only",
            call="send",
            hint='Join with role="both" or role="sender" to send',
        )


def check_may_receive(role: JoinRole) -> None:
    """Raise WSAEOPNOTSUPP where the role forbids receiving (model 10.2, rooted providers)."""
    if not role.receives:
        raise SpiError(
            WSAEOPNOTSUPP,
            "this member joined as a sender only",
            call="receive",
            hint='Join with role="both" or role="receiver" to receive',
        )
