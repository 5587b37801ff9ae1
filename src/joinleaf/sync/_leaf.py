"""A leaf of a session, or a member among equals; and the listener for invitations."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from joinleaf.errors import SpiError
from joinleaf.messages import Request
from joinleaf.opening import join_line
from joinleaf.spi.codes import session_error
from joinleaf.spi.provider import (
    Accept,
    Defer,
    Endpoint,
    JoinRequest,
    JoinRole,
    Reject,
    SecuredEndpoint,
)
from joinleaf.sync._session import Session
from joinleaf.transfer import ReceiveResult, receive_object
from joinleaf.values import Address, SessionAddress

if TYPE_CHECKING:
    import os
    from typing import IO

    from joinleaf.sync._root import Admit
    from joinleaf.transfer import ReceiveProgress
    from joinleaf.transfer.sender import Flag

__all__ = ["Leaf", "Listener"]


class Leaf(Session):
    """A member of a session. Made by ``join`` or ``Listener.accept``.

    Attributes:
        welcome: What the other side sent back when this member was admitted; ``b""`` if nothing.
        role: Whether it sends, receives or both.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        address: SessionAddress,
        *,
        welcome: bytes,
        role: JoinRole,
    ) -> None:
        super().__init__(endpoint, address)
        self.welcome = welcome
        self.role = role

    @property
    def address(self) -> SessionAddress:
        """The session's address, as it was joined."""
        return self._address

    @property
    def peer_identity(self) -> str:
        """Who the root is: whom its certificate names, ``"session key"``, ``""`` in cleartext."""
        endpoint = self._endpoint
        return endpoint.peer_identity if isinstance(endpoint, SecuredEndpoint) else ""

    @property
    def peer_address(self) -> Address:
        """The root's address; on multicast the group's."""
        return self._call(lambda: self._endpoint.peer_address)

    def receive_file(
        self,
        destination: str | os.PathLike[str] | IO[bytes],
        *,
        name: str | None = None,
        overwrite: bool = False,
        clean: bool = False,
        max_bytes: int | None = None,
        timeout: float | None = None,
        cancel: Flag | None = None,
        on_progress: Callable[[ReceiveProgress], None] | None = None,
    ) -> ReceiveResult:
        """Receive the object that the root sends with ``send_file``.

        A receive that was interrupted is resumed: give the same folder again while the root still
        sends, and only what is missing is asked for.

        Args:
            destination: A folder, or a binary stream.
            name: Instead of the object's own name.
            overwrite: Replace files that exist.
            clean: Remove what interrupted runs have left of other objects of the same name.
            max_bytes: Take no more than this many bytes.
            timeout: Longest wait for the offer in seconds; None: as long as it takes.
            cancel: Cuts it short when set; what has arrived is kept for a resumption.
            on_progress: Called at most ten times a second.

        Returns:
            How it ended here; ``ok`` says whether everything is here and verified.

        Raises:
            SessionTimeoutError: Nothing was offered in time.
            SessionClosedError, SessionBrokenError: The session ended first.
        """
        return receive_object(
            self,
            destination,
            name=name,
            overwrite=overwrite,
            clean=clean,
            max_bytes=max_bytes,
            timeout=timeout,
            cancel=cancel,
            on_progress=on_progress,
        )


class Listener:
    """Waits for invitations of roots. Made by ``listen``; a context manager."""

    def __init__(self, endpoint: Endpoint, address: SessionAddress, admit: Admit | None) -> None:
        self._endpoint = endpoint
        self._address = address
        self._admit = admit

    @property
    def local_address(self) -> Address:
        """Where roots can reach it."""
        return self._endpoint.local_address

    @property
    def join_line(self) -> str:
        """What roots invite it by: the address and, of ``jls://``, the session key."""
        where = SessionAddress(self._address.scheme, self.local_address, "", self._address.options)
        return join_line(self._endpoint, where)

    def accept(self, *, timeout: float | None = None) -> Leaf:
        """Wait for an invitation and accept it, unless ``admit`` says no.

        Args:
            timeout: Seconds; None for ever.

        Raises:
            SessionTimeoutError: None came in time.
            JoinRefusedError: ``admit`` turned the invitation down; call again for the next.
            SessionClosedError: The listener was closed.
        """
        sent: list[bytes] = []

        def decide(request: JoinRequest) -> Accept | Reject | Defer:
            verdict = Accept() if self._admit is None else self._admit(Request.of(request))
            sent.append(request.data)
            return verdict

        try:
            endpoint = self._endpoint.accept(decide, timeout=timeout)
        except SpiError as error:
            raise session_error(error, joining=bool(sent)) from error
        return Leaf(endpoint, self._address, welcome=sent[0], role=JoinRole.BOTH)

    def close(self) -> None:
        """Stop listening; leaves that were accepted go on."""
        self._endpoint.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
