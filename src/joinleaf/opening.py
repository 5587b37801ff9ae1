"""What every front does to open an endpoint: from arguments to provider, entry and settings."""

from __future__ import annotations

import logging
import os
import socket
from typing import TYPE_CHECKING, Final, Literal

from joinleaf.errors import SpiError
from joinleaf.spi.catalogue import default_catalogue
from joinleaf.spi.codes import session_error
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.provider import (
    Endpoint,
    JoinRole,
    Provider,
    Roles,
    SecuredEndpoint,
    Settings,
    Trust,
)
from joinleaf.values import Address, SessionAddress

if TYPE_CHECKING:
    import ssl

__all__ = [
    "PathName",
    "RoleName",
    "entry_for",
    "invited",
    "join_line",
    "may_enter",
    "open_endpoint",
    "own_name",
    "role_of",
    "trust_of",
    "warn_if_closed",
]

_log: Final = logging.getLogger("joinleaf")

PathName = str | os.PathLike[str]

RoleName = Literal["both", "sender", "receiver"]

_ROLES: Final = {
    "both": JoinRole.BOTH,
    "sender": JoinRole.SENDER_ONLY,
    "receiver": JoinRole.RECEIVER_ONLY,
}


def role_of(name: str) -> JoinRole:
    """The role a user has named. ValueError for another word."""
    try:
        return _ROLES[name]
    except KeyError:
        raise ValueError(f"role is 'both', 'sender' or 'receiver', not {name!r}") from None


def own_name(given: str | None = None) -> str:
    """What to call oneself: the name given, or host name and process."""
    return f"{socket.gethostname()}:{os.getpid()}"[:200] if given is None else given


def entry_for(where: SessionAddress) -> tuple[Provider, ProtocolInfo]:
    """Who serves an address, and with which catalogue entry."""
    provider = default_catalogue().provider_for(where)
    return provider, provider.select(where)


def open_endpoint(
    provider: Provider,
    info: ProtocolInfo,
    roles: Roles,
    settings: Settings,
    where: SessionAddress,
) -> Endpoint:
    """WSPSocket. Raises SessionError."""
    try:
        return provider.open(info, roles, settings, address=where)
    except SpiError as error:
        raise session_error(error) from error


# Encrypted sessions


def trust_of(
    cert: PathName | None,
    key: PathName | None,
    ca: PathName | None,
    context: ssl.SSLContext | None,
) -> Trust | None:
    """What the arguments of both fronts say; None if they say nothing.

    Raises:
        ValueError: They contradict each other.
    """
    if cert is None and key is None and ca is None and context is None:
        return None
    return Trust(
        cert=os.fspath(cert or ""),
        key=os.fspath(key or ""),
        ca=os.fspath(ca or ""),
        context=context,
    )


def invited(address: str | Address | SessionAddress) -> Address:
    """Where a leaf waits for invitations: ``host:port``, or its join line.

    Raises:
        ValueError: Neither of both.
    """
    if isinstance(address, Address):
        return address
    if isinstance(address, SessionAddress) or "://" in address:
        return SessionAddress.parse(address).target
    return Address.parse(address)


def may_enter(endpoint: Endpoint, where: SessionAddress, open_to_all: bool | None) -> bool:
    """Whether a root that has no ``admit`` lets in whoever has come so far.

    Unless told: everybody in this process or on this host, and whoever has proved to be meant.
    """
    if open_to_all is not None:
        return open_to_all
    if where.scheme == "mem" or endpoint.local_address.is_loopback:
        return True
    return isinstance(endpoint, SecuredEndpoint) and endpoint.asks_proof


def warn_if_closed(where: SessionAddress) -> None:
    """Say that a root off loopback, with no ``admit``, will turn everybody away."""
    _log.warning(
        "%s is reachable from other hosts and admits nobody: give admit=, or open=True, or open "
        "jls://, which asks for a key",
        where,
    )


def join_line(endpoint: Endpoint, address: SessionAddress) -> str:
    """What others join by, the session key included."""
    key = endpoint.session_key if isinstance(endpoint, SecuredEndpoint) else ""
    return SessionAddress(
        address.scheme, address.address, address.source, address.options, key
    ).line
