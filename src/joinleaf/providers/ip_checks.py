"""What a join of an IP multicast session is refused for before the system is asked."""

from __future__ import annotations

from joinleaf.errors import SpiError
from joinleaf.spi import constants as c
from joinleaf.spi.codes import (
    WSAEADDRNOTAVAIL,
    WSAEAFNOSUPPORT,
    WSAEINVAL,
    WSAEOPNOTSUPP,
    WSAEPROTONOSUPPORT,
)
from joinleaf.spi.provider import JoinRole
from joinleaf.spi.qos import Qos
from joinleaf.values import Address

__all__ = ["check_join"]

_CALL = "join_leaf"


def check_join(
    version: int, address: Address, caller_data: bytes, qos: Qos | None, role: JoinRole
) -> None:
    """Steps 10 to 17 of section 5.6 of the model, in that order.

    Args:
        version: IP version of the endpoint, 4 or 6.
        address: The session.
        caller_data: What the caller wants to send along.
        qos: What it wants kept.
        role: One of the three; a bare number is looked at too, since it may come from C.

    Raises:
        SpiError: WSAEAFNOSUPPORT, WSAEADDRNOTAVAIL, WSAEINVAL, WSAEPROTONOSUPPORT, WSAEOPNOTSUPP.
    """
    _check_session_address(version, address, role)
    if role not in (c.JL_SENDER_ONLY, c.JL_RECEIVER_ONLY, c.JL_BOTH):
        raise SpiError(WSAEINVAL, f"{role!r} is no role", call=_CALL)
    if caller_data:  # A-18; empty data are no data
        raise SpiError(
            WSAEPROTONOSUPPORT,
            "a join of IP multicast carries no data, there is nobody to take them",
            call=_CALL,
            hint="Send them once joined, or use jl:// where a root answers",
        )
    if qos is not None and not _asks_for_nothing(qos, JoinRole(role)):
        raise SpiError(
            WSAEOPNOTSUPP,
            "plain IP multicast keeps no flow specification",
            call=_CALL,
            hint="Leave it out, or use jl:// which does",
        )


def _check_session_address(version: int, address: Address, role: JoinRole) -> None:
    ip = address.ip
    if ip is not None and ip.version != version:
        raise SpiError(
            WSAEAFNOSUPPORT,
            f"{address} is not an IPv{version} address",
            call=_CALL,
            hint=f"Open the session with the IPv{ip.version} entry",
        )
    if ip is None or not ip.is_multicast:  # clause 43, A-26
        raise SpiError(
            WSAEADDRNOTAVAIL,
            f"{address} is not a multicast group",
            call=_CALL,
            hint="Groups are 224.0.0.0 to 239.255.255.255, and IPv6 addresses from ff00::",
        )
    if address.port == 0 and role != JoinRole.RECEIVER_ONLY:
        raise SpiError(
            WSAEADDRNOTAVAIL,
            f"{address}: nothing can be sent to port 0",
            call=_CALL,
            hint="Name the session's port; only a receiver may leave it out",
        )


def _asks_for_nothing(qos: Qos, role: JoinRole) -> bool:
    """Whether every direction that the role uses is unspecified (model 8.2, rules 3 and 5)."""
    return (not role.sends or qos.sending.is_unspecified) and (
        not role.receives or qos.receiving.is_unspecified
    )
