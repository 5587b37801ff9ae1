"""The root of a session: who may join, who is there, and sending to everybody."""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from joinleaf.aio._bell import Bell
from joinleaf.aio._channel import Channel
from joinleaf.aio._door import Door
from joinleaf.aio._leaf import Admit
from joinleaf.aio._session import Session, awaited, names_for
from joinleaf.aio._transfers import CallsTheLoop, told_on_loop, transferred
from joinleaf.drivers.loop import LoopReactor
from joinleaf.drivers.names import looked_up
from joinleaf.errors import SessionClosedError, SessionTimeoutError, SpiError
from joinleaf.members import Leaves, MemberView
from joinleaf.messages import LeafJoined, LeafLeft, LeafRefused, QosChanged, both_directions
from joinleaf.opening import invited, join_line, may_enter
from joinleaf.spi import constants as c
from joinleaf.spi.codes import WSAEALREADY, WSAENOTCONN, session_error
from joinleaf.spi.provider import (
    Batch,
    Buffer,
    Endpoint,
    EndpointEvent,
    EndReason,
    Joined,
    JoinRequest,
    JoinRole,
)
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.transfer import SendProgress, TransferResult, send_object
from joinleaf.values import Address, SessionAddress

if TYPE_CHECKING:
    import os
    from typing import IO

    from joinleaf.transfer.channel import LeafHandle
    from joinleaf.transfer.digests import DigestKind
    from joinleaf.transfer.sender import Flag

__all__ = ["Root", "RootLeaf"]


class RootLeaf(MemberView):
    """The root's view of one leaf.

    Attributes:
        key: Tells this start of this leaf from every other.
        address: Where it is.
        name: What it calls itself; nothing vouches for it.
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
        expelled: Callable[[RootLeaf, bytes], None],
        reactor: LoopReactor,
    ) -> None:
        super().__init__(endpoint, key, request, data)
        self._expelled = expelled
        self._channel = Channel(endpoint, reactor.loop)

    async def send(self, data: Buffer, *, timeout: float | None = None) -> None:
        """Side chat: one message for this leaf only, told apart from session data."""
        await awaited(self._channel.send_many((data,), timeout))

    async def receive_many(self, *, timeout: float | None = None) -> Batch:
        """Side chat that this leaf sent."""
        return await awaited(self._channel.receive_many(timeout))

    async def close(self, data: bytes = b"") -> None:
        """Expel it; it is told so, with ``data``. The others are not concerned."""
        Session._call(lambda: self._endpoint.close(data=data, reason=EndReason.EXPELLED))
        self._channel.indicated(c.FD_CLOSE)
        self._expelled(self, data)


class RootSide(CallsTheLoop):
    """A root as the transfer engine wants it; the engine hands back the leaves it was given."""

    def __init__(self, root: Root) -> None:
        super().__init__(root.send_many, root.receive_many)
        self._root = root

    @property
    def leaves(self) -> Sequence[RootLeaf]:
        """Who is in the session now."""
        return self._root.leaves

    def send_many(
        self,
        messages: Sequence[Buffer],
        *,
        timeout: float | None = None,
        to: Collection[LeafHandle] | None = None,
    ) -> None:
        """To all, or to some of those that came from ``leaves``."""
        some = None if to is None else [leaf for leaf in to if isinstance(leaf, RootLeaf)]
        self.wait_for(self._root.send_many(messages, timeout=timeout, to=some))

    def membership_events(self) -> Sequence[LeafJoined | LeafLeft]:
        """As the root's."""
        return self.wait_for(self._membership_events())

    async def _membership_events(self) -> Sequence[LeafJoined | LeafLeft]:
        return self._root.membership_events()


class Root(Session):
    """The root of a session. Made by ``open_root``."""

    def __init__(
        self,
        endpoint: Endpoint,
        address: SessionAddress,
        reactor: LoopReactor,
        linger: float,
        *,
        admit: Admit | None,
        open_to_all: bool | None,
    ) -> None:
        self._leaves: dict[int, RootLeaf] = {}
        self._legs: dict[Endpoint, RootLeaf] = {}
        self._welcomed: weakref.WeakSet[Endpoint] = weakref.WeakSet()
        self._ended_early: dict[Endpoint, EndpointEvent] = {}
        self._keys = 0
        self._view = 0
        self._joined = Bell(reactor.loop)
        self._invited = Bell(reactor.loop)
        self._changes: list[LeafJoined | LeafLeft] = []
        self._follow_changes = False
        self._members = Leaves(self._leaves, contextlib.nullcontext())
        self._door = Door(endpoint, reactor, admit, may_enter(endpoint, address, open_to_all))
        self._door.admitted = lambda leg, request: self._welcome(leg, request, b"")
        self._door.refused = self._refused
        super().__init__(endpoint, address, reactor, linger)
        self._door.ask()

    @property
    def address(self) -> SessionAddress:
        """The address to join, with the port that was really bound."""
        local = self.local_address
        where = self._address.address
        if self._address.scheme != "mem":
            where = Address(where.host, local.port, where.scope)
        return SessionAddress(self._address.scheme, where, "", self._address.options)

    @property
    def join_line(self) -> str:
        """What others join by: the address and, of ``jls://``, the session key. It lets in."""
        return join_line(self._endpoint, self.address)

    @property
    def leaves(self) -> Leaves[RootLeaf]:
        """Who is in the session: a live view, oldest first."""
        return self._members

    @property
    def view(self) -> int:
        """Number of the membership; grows with every change."""
        return self._view

    async def wait_for_leaves(
        self, number: int, *, timeout: float | None = None
    ) -> Leaves[RootLeaf]:
        """Wait until at least this many leaves are in the session.

        Raises:
            SessionTimeoutError: Fewer were there when the time was over; the text says how many.
            SessionClosedError: The root was closed meanwhile.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while len(self._leaves) < number:
            if self._over:
                raise SessionClosedError("the root was closed while waiting for leaves")
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise SessionTimeoutError(
                    f"{len(self._leaves)} of {number} leaves joined within {timeout} s",
                    hint="Go on with those there are, or wait longer",
                )
            self._joined.clear()
            await self._joined.wait(left)
        return self._members

    async def send(
        self,
        data: Buffer,
        *,
        timeout: float | None = None,
        to: Collection[RootLeaf] | None = None,
    ) -> None:
        """Send one message to every leaf, or only to some.

        Args:
            data: Bytes-like.
            timeout: Seconds to wait for room under ``slow="wait"``.
            to: Only to these; those that have left are passed over.

        With no leaf there nothing is sent and nothing kept: see ``wait_for_leaves``. Errors as for
        ``Session.send``.
        """
        await self.send_many((data,), timeout=timeout, to=to)

    async def send_many(
        self,
        messages: Sequence[Buffer],
        *,
        timeout: float | None = None,
        to: Collection[RootLeaf] | None = None,
    ) -> None:
        """Send many messages at once, to every leaf or to some; as ``send``."""
        legs = None if to is None else [leaf._endpoint for leaf in to]
        try:
            await self._channel.send_many(messages, timeout, legs)
        except SpiError as error:
            if error.code != WSAENOTCONN:
                raise session_error(error) from error

    async def invite(
        self,
        address: str | Address | SessionAddress,
        *,
        data: bytes = b"",
        qos: FlowSpec | Qos | None = None,
        timeout: float | None = 30.0,
    ) -> RootLeaf:
        """Bring in one leaf that waits for invitations (``joinleaf.aio.listen``).

        Cancelled, it takes the invitation back.

        Args:
            address: ``host:port`` of the leaf, or its join line.
            data: At most 64 KiB that it sees before it answers.
            qos: Flow specifications to agree on.
            timeout: Seconds.

        Returns:
            The root's view of it; its ``data`` is what the leaf answered.

        Raises:
            JoinRefusedError, JoinTimeoutError, AdmissionRefusedError, JoinPendingError (another
            invitation is under way), SessionOSError (unreachable).
        """
        where = invited(address)
        names = await names_for(self.info, where)
        try:
            with self._reactor.in_use(), looked_up(names):
                leg = self._endpoint.start_join_leaf(
                    where,
                    caller_data=data,
                    qos=both_directions(qos, JoinRole.BOTH),
                    timeout=timeout,
                )
            joined = await self._invitation(leg)
        except SpiError as error:
            raise session_error(error, joining=True) from error
        return self._welcome(joined.endpoint, None, joined.data)

    async def _invitation(self, leg: Endpoint) -> Joined:
        try:
            while True:
                self._invited.clear()
                try:
                    return self._endpoint.join_result()
                except SpiError as error:
                    if error.code != WSAEALREADY:
                        raise
                await self._invited.wait(None)
        except BaseException:
            leg.close()
            raise

    def membership_events(self) -> Sequence[LeafJoined | LeafLeft]:
        """Joins and leaves since the last call, oldest first; never waits.

        The first call tells of the leaves that are there. Independent of ``events``.
        """
        if not self._follow_changes:
            self._follow_changes = True
            return [LeafJoined(leaf, self._view) for leaf in self._leaves.values()]
        changes, self._changes = self._changes, []
        return changes

    # Transfers

    async def send_file(
        self,
        source: str | os.PathLike[str] | IO[bytes],
        *,
        leaves: int = 1,
        max_wait: float | None = None,
        start_now: Flag | None = None,
        rate: float | None = None,
        digest: DigestKind = "gmac",
        stall_timeout: float = 30.0,
        linger: float = 0.0,
        cancel: Flag | None = None,
        on_progress: Callable[[SendProgress], None] | None = None,
    ) -> TransferResult:
        """Send a file, a folder or a stream to every leaf, and learn who has it.

        Files block, so this works in a thread of the loop's executor. Nothing else may be sent or
        received on this session meanwhile.

        Args:
            source: A path or a binary stream.
            leaves: How many leaves to wait for, at least 1.
            max_wait: Longest wait for them in seconds; None: as long as it takes.
            start_now: An object with ``is_set`` (a ``threading.Event``) that ends the waiting.
            rate: Bytes per second; None: as fast as it goes.
            digest: How each file is proved: ``"gmac"``, which costs little, or ``"sha256"``,
                which can be compared with one from elsewhere.
            stall_timeout: Seconds without progress after which a leaf has failed.
            linger: Seconds to wait at the end for leaves that are gone to come back.
            cancel: Cuts it short when set.
            on_progress: Called at most ten times a second, on the loop.

        Returns:
            A verdict for every leaf: verified, failed and why, or gone.

        Raises:
            ValueError: An argument is out of range.
            OSError: The source cannot be read.
            SessionClosedError, SessionBrokenError: The session ended.
        """
        side = RootSide(self)
        tell = told_on_loop(on_progress)
        return await transferred(
            side,
            lambda flag: send_object(
                side,
                source,
                leaves=leaves,
                max_wait=max_wait,
                start_now=start_now,
                rate=rate,
                digest=digest,
                stall_timeout=stall_timeout,
                linger=linger,
                cancel=flag,
                on_progress=tell,
            ),
            cancel,
        )

    # Members

    def _refused(self, request: JoinRequest, why: str) -> None:
        self._tell(LeafRefused(request.peer, request.name, why))

    def _welcome(self, leg: Endpoint, request: JoinRequest | None, data: bytes) -> RootLeaf:
        self._keys += 1
        leaf = RootLeaf(leg, self._keys, request, data, self._expelled, self._reactor)
        self._legs[leg] = leaf
        self._welcomed.add(leg)
        self._leaves[leaf.key] = leaf
        self._view += 1
        self._changed(LeafJoined(leaf, self._view))
        early = self._ended_early.pop(leg, None)
        if early is not None:
            self._indicated(leg, early)
        return leaf

    def _changed(self, event: LeafJoined | LeafLeft) -> None:
        if self._follow_changes:
            self._changes.append(event)
        self._joined.ring()
        self._tell(event)

    def _indicated(self, endpoint: Endpoint, event: EndpointEvent) -> None:
        if endpoint is self._endpoint:
            if event.kind == c.FD_ACCEPT:
                self._door.ask()
            elif event.kind == c.FD_CONNECT:
                self._invited.ring()
            if event.kind != c.FD_QOS:  # the leg it is about tells
                super()._indicated(endpoint, event)
            return
        leaf = self._legs.get(endpoint)
        if event.kind == c.FD_QOS:
            self._tell(QosChanged(endpoint.qos, leaf))
        if leaf is not None:
            leaf._channel.indicated(event.kind)
        if event.kind == c.FD_CLOSE:
            self._leg_ended(endpoint, leaf, event)

    def _leg_ended(self, leg: Endpoint, leaf: RootLeaf | None, event: EndpointEvent) -> None:
        if leaf is not None:
            del self._legs[leg]
            self._removed(leaf, str(event.reason or EndReason.LOST), event.data)
        elif leg not in self._welcomed:  # ended before it was welcomed
            self._ended_early[leg] = event

    def _expelled(self, leaf: RootLeaf, data: bytes) -> None:
        """The root closed this leg itself, which no indication tells."""
        self._legs.pop(leaf._endpoint, None)
        self._removed(leaf, str(EndReason.EXPELLED), data)

    def _removed(self, leaf: RootLeaf, reason: str, data: bytes) -> None:
        if self._leaves.pop(leaf.key, None) is not None:
            self._view += 1
            self._changed(LeafLeft(leaf, self._view, reason, data))

    async def _wind_up(self) -> None:
        self._joined.ring()
        self._invited.ring()
        await self._door.close()
