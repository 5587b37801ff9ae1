"""What makes connections of sockets: the one place where a driver learns whether they are safe."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from joinleaf.core.keys.gates import Gate
from joinleaf.drivers.connections import Connection
from joinleaf.values import Address

__all__ = ["PlainSide", "SecureConnection", "Side"]


@runtime_checkable
class SecureConnection(Protocol):
    """What an encrypted connection has beside the rest, once it is established."""

    identity: str
    gate: Gate | None


class Side(Protocol):
    """Makes connections for one endpoint."""

    @property
    def secures(self) -> bool:
        """Whether they are encrypted."""
        ...

    def listen(self) -> None:
        """Get ready to be connected to. SpiError if that is not possible."""
        ...

    @property
    def key_text(self) -> str:
        """The session key that a join line has to carry; ``""`` if none."""
        ...

    @property
    def asks_proof(self) -> bool:
        """Whether whoever connects has to have the session key, or a certificate."""
        ...

    def accepted(self, sock: socket.socket, peer: Address, *, heard: bool) -> Connection:
        """Of a socket that somebody has connected to; if not heard, to say no and nothing else."""
        ...

    def connecting(self, address: Address) -> Callable[[socket.socket], Connection]:
        """What makes connections of sockets that are being connected to this address.

        Raises:
            SpiError: It cannot be told whom to trust there.
        """
        ...


class PlainSide:
    """Cleartext."""

    key_text = ""
    secures = False
    asks_proof = False

    def listen(self) -> None:
        """Nothing is to be prepared."""

    def accepted(self, sock: socket.socket, peer: Address, *, heard: bool) -> Connection:
        """As it is: in cleartext there are no keys that could be wrong."""
        return Connection(sock, accepted=True)

    def connecting(self, address: Address) -> Callable[[socket.socket], Connection]:
        """As it is."""
        return Connection
