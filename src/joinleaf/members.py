"""The members of a session as its root sees them, whichever front it uses."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar, overload

from joinleaf.errors import SpiError
from joinleaf.messages import both_directions
from joinleaf.spi import constants as c
from joinleaf.spi.codes import WSAEOPNOTSUPP, session_error
from joinleaf.spi.provider import Endpoint, JoinRequest, JoinRole, SecuredEndpoint
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.values import Address

__all__ = ["Leaves", "MemberView"]


class MemberView:
    """The root's view of one leaf, as far as nothing has to be waited for.

    Attributes:
        key: Tells this start of this leaf from every other.
        address: Where it is.
        name: What it calls itself; nothing vouches for it.
        identity: Who it is, as far as verified: whom its certificate names, or ``"session key"``;
            ``""`` in cleartext.
        role: Whether it sends, receives or both.
        data: What it sent with its join request, or with its answer to an invitation.
        incarnation: Random identity of this start of it; ``b""`` if unknown.
        since: When it joined, seconds since 1970.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        key: int,
        request: JoinRequest | None,
        data: bytes,
    ) -> None:
        self._endpoint = endpoint
        self.key = key
        self.address = endpoint.peer_address
        self.name = request.name if request is not None else ""
        self.identity = endpoint.peer_identity if isinstance(endpoint, SecuredEndpoint) else ""
        self.role = request.role if request is not None else JoinRole.BOTH
        self.data = request.data if request is not None else data
        self.incarnation = request.incarnation if request is not None else b""
        self.since = time.time()
        self._carrier = "leg"
        self._rate = 0.0
        self._rate_mark = (time.monotonic(), 0)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name or 'unnamed'} {self.address}>"

    @property
    def qos(self) -> Qos | None:
        """The flow specifications agreed with it."""
        return self._endpoint.qos

    def set_qos(self, qos: FlowSpec | Qos) -> None:
        """Agree on other flow specifications with this leaf, which is told; does not wait.

        Args:
            qos: As whoever asked for the join sees the directions; one FlowSpec stands for every
                direction the leaf's role has.

        Raises:
            AdmissionRefusedError: They do not fit the capacity; the text has the numbers, and what
                was agreed before holds.
            SessionClosedError, SessionBrokenError: The leaf is gone.
        """
        try:
            self._endpoint.ioctl(c.SIO_SET_QOS, both_directions(qos, self.role))
        except SpiError as error:
            raise session_error(error, joining=error.code == WSAEOPNOTSUPP) from error

    @property
    def lag(self) -> int:
        """Bytes queued for it here, beyond what the kernel took."""
        return self._endpoint.statistics().get("bytes_queued", 0)

    @property
    def carrier(self) -> str:
        """What brings it the session's messages, or did last: ``"group"`` or ``"leg"``."""
        on_group = self._endpoint.statistics().get("on_group")
        if on_group is not None:
            self._carrier = "group" if on_group else "leg"
        return self._carrier

    @property
    def dropped(self) -> int:
        """Messages it missed by the policy for slow leaves."""
        return self._endpoint.statistics().get("messages_dropped", 0)

    @property
    def rate(self) -> float:
        """Bytes per second sent to it, over the time since this was last asked."""
        sent = self._endpoint.statistics().get("bytes_sent", 0)
        then, before = self._rate_mark
        now = time.monotonic()
        if now - then >= 0.2:
            self._rate = (sent - before) / (now - then)
            self._rate_mark = (now, sent)
        return self._rate


L = TypeVar("L", bound=MemberView)


class Leaves(Sequence[L]):
    """The members of a session, live: it changes as leaves come and go."""

    def __init__(self, leaves: dict[int, L], lock: AbstractContextManager[object]) -> None:
        self._leaves = leaves
        self._lock = lock

    def _now(self) -> list[L]:
        with self._lock:
            return list(self._leaves.values())

    def __len__(self) -> int:
        return len(self._leaves)

    def __iter__(self) -> Iterator[L]:
        return iter(self._now())

    def __contains__(self, leaf: object) -> bool:
        return any(leaf is one or leaf == one.address for one in self._now())

    @overload
    def __getitem__(self, which: int) -> L: ...
    @overload
    def __getitem__(self, which: slice) -> list[L]: ...
    @overload
    def __getitem__(self, which: Address) -> L: ...
    def __getitem__(self, which: int | slice | Address) -> L | list[L]:
        """By position, oldest first, or by address."""
        leaves = self._now()
        if isinstance(which, Address):
            for leaf in leaves:
                if leaf.address == which:
                    return leaf
            raise KeyError(str(which))
        return leaves[which]

    def __repr__(self) -> str:
        return f"<{len(self)} leaves>"
