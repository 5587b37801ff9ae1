"""What every front does to open an endpoint: from arguments to provider, entry and settings."""

from __future__ import annotations

import os
import socket
from typing import Final, Literal

from joinleaf.errors import SpiError
from joinleaf.spi.catalogue import default_catalogue
from joinleaf.spi.codes import session_error
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.provider import Endpoint, JoinRole, Provider, Roles, Settings
from joinleaf.values import SessionAddress

__all__ = ["RoleName", "entry_for", "open_endpoint", "own_name", "role_of"]

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
