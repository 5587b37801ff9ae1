"""Names of hosts into addresses of sockets.

The system's resolver blocks, for seconds where a name server does not answer. Who may not wait asks
beforehand, wherever waiting does no harm, and hands in the answer with ``looked_up``.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Final

from joinleaf.errors import SpiError
from joinleaf.spi.codes import WSAEAFNOSUPPORT, WSAHOST_NOT_FOUND
from joinleaf.values import Address

__all__ = ["Answers", "Places", "look_up", "looked_up", "resolve"]

Places = list[tuple[int, tuple[object, ...]]]
"""Family and socket address of every way to reach something, best first."""

Answers = Mapping[Address, Places | SpiError]
"""What asking beforehand came to."""

_known: Final[ContextVar[Answers]] = ContextVar("joinleaf_names", default={})  # noqa: B039  # never changed


def look_up(address: Address, *, passive: bool = False) -> Answers:
    """Ask the system now, for a ``resolve`` later; a failure is an answer as well."""
    try:
        return {address: _ask(address, passive=passive)}
    except SpiError as error:
        return {address: error}


@contextlib.contextmanager
def looked_up(answers: Answers) -> Iterator[None]:
    """In this block ``resolve`` gives these answers, and asks nobody for them."""
    token = _known.set(answers)
    try:
        yield
    finally:
        _known.reset(token)


def resolve(address: Address, *, passive: bool = False) -> Places:
    """Family and socket address of every way to reach it, best first.

    Raises:
        SpiError: WSAHOST_NOT_FOUND, or WSAEAFNOSUPPORT for what is no host name; the text names
            the host.
    """
    known = _known.get().get(address)
    if known is None:
        return _ask(address, passive=passive)
    if isinstance(known, SpiError):
        raise known
    return list(known)


def _ask(address: Address, *, passive: bool) -> Places:
    host = address.host or None
    if host is not None and address.scope:
        host = f"{host}%{address.scope}"
    flags = socket.AI_PASSIVE if passive else 0
    try:
        found = socket.getaddrinfo(
            host, address.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=flags
        )
    except socket.gaierror as error:
        raise SpiError(
            WSAHOST_NOT_FOUND,
            f"the host {address.host!r} is not known: {error.strerror}",
            call="resolve",
            hint="Check the spelling, or give the address in numbers",
        ) from error
    except UnicodeError:
        raise SpiError(WSAEAFNOSUPPORT, f"{address.host!r} is no host name") from None
    return [(family, place) for family, _, _, _, place in found]
