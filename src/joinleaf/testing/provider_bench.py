"""What the checks of ``check_provider`` stand on: endpoints, threads and expectations, all bounded.

Nothing here trusts the provider: every wait has an end, every exception that is not the expected
``SpiError`` becomes a failed check, and whatever was opened is closed afterwards.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from joinleaf.errors import SpiError
from joinleaf.spi.codes import (
    WSAEDISCON,
    WSAEINTR,
    WSAENOTSOCK,
    WSAETIMEDOUT,
    WSAEWOULDBLOCK,
    name_of,
)
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.provider import (
    Batch,
    Condition,
    Endpoint,
    EndpointEvent,
    Joined,
    JoinRole,
    Provider,
    Roles,
    Settings,
)
from joinleaf.spi.qos import Qos
from joinleaf.values import Address, SessionAddress

__all__ = [
    "SHORT",
    "Bench",
    "CheckFailed",
    "Checks",
    "Events",
    "NotApplicable",
    "ProviderCheck",
    "Task",
]

T = TypeVar("T")

SHORT: Final = 0.05
"""Seconds given to what must time out: long enough to be told from "at once"."""


class CheckFailed(Exception):  # noqa: N818  # a verdict, not an error of this program
    """The provider does not conform; the text says how."""


class NotApplicable(Exception):  # noqa: N818  # a verdict
    """The check says nothing about this provider; the text says why."""


class Task(Generic[T]):
    """A call in a thread of its own, whose result or exception is collected later."""

    def __init__(self, call: Callable[[], T], patience: float) -> None:
        self._call = call
        self._patience = patience
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="provider check", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._results.append(self._call())
        except BaseException as error:  # whatever it is, the check must hear of it
            self._error = error

    @property
    def is_running(self) -> bool:
        """Whether it has neither returned nor raised."""
        return self._thread.is_alive()

    def result(self) -> T:
        """What the call returned, or raises what it raised."""
        self._thread.join(self._patience)
        if self._thread.is_alive():
            raise CheckFailed(f"a call did not return within {self._patience} s")
        if self._error is not None:
            raise self._error
        return self._results[0]


@dataclass(slots=True)
class Events:
    """Indications as they came, to be waited for."""

    patience: float
    seen: list[tuple[Endpoint, EndpointEvent]] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def __call__(self, endpoint: Endpoint, event: EndpointEvent) -> None:
        """Take one indication: what is given to ``subscribe``."""
        with self._changed:
            self.seen.append((endpoint, event))
            self._changed.notify_all()

    def of(self, endpoint: Endpoint, kind: int) -> list[EndpointEvent]:
        """Those of one kind on one endpoint, so far."""
        with self._changed:
            return [event for one, event in self.seen if one is endpoint and event.kind == kind]

    def wait(self, endpoint: Endpoint, kind: int, what: str) -> EndpointEvent:
        """The first of this kind on this endpoint."""
        with self._changed:
            found = self._changed.wait_for(lambda: self.of_unlocked(endpoint, kind), self.patience)
        if not found:
            raise CheckFailed(f"{what} was not indicated within {self.patience} s")
        return found[0]

    def of_unlocked(self, endpoint: Endpoint, kind: int) -> list[EndpointEvent]:
        """The same as ``of``, by whoever holds the lock."""
        return [event for one, event in self.seen if one is endpoint and event.kind == kind]


@dataclass(slots=True)
class Bench:
    """One check's own provider, with what the check has opened.

    Attributes:
        provider: Fresh from the factory.
        session: The session address that is checked.
        info: The entry that serves it.
        patience: Seconds that anything may take which should happen.
    """

    provider: Provider
    session: SessionAddress
    info: ProtocolInfo
    patience: float
    _opened: list[Endpoint] = field(default_factory=list)

    # Endpoints

    def open(self, roles: Roles, settings: Settings | None = None) -> Endpoint:
        """An endpoint, closed when the check is over."""
        endpoint = self.provider.open(
            self.info, roles, settings or Settings(), address=self.session
        )
        return self.keep(endpoint)

    def keep(self, endpoint: Endpoint) -> Endpoint:
        """Have it closed when the check is over."""
        self._opened.append(endpoint)
        return endpoint

    def root(self, settings: Settings | None = None, *, d_root: bool | None = None) -> Endpoint:
        """A c_root that listens at the session's address."""
        if d_root is None:
            d_root = self.info.data_plane_rooted
        root = self.open(Roles(c_root=True, d_root=d_root), settings)
        root.bind(self.session.address)
        root.listen()
        return root

    def leaf(self, settings: Settings | None = None, *, d_root: bool = False) -> Endpoint:
        """A c_leaf, unbound."""
        return self.open(Roles(d_root=d_root), settings)

    def listener(self) -> Endpoint:
        """A c_leaf that listens to be invited, at an address of its own."""
        leaf = self.leaf()
        where = self.session.address
        own = Address(where.host, 0, where.scope) if where.ip is not None else Address("")
        leaf.bind(own)
        leaf.listen()
        return leaf

    def admit(
        self,
        root: Endpoint,
        leaf: Endpoint,
        condition: Condition | None = None,
        *,
        data: bytes = b"",
        qos: Qos | None = None,
        role: JoinRole = JoinRole.BOTH,
    ) -> tuple[Endpoint, Joined]:
        """Have a leaf join a root; gives the leg and what the leaf got."""
        address = root.local_address
        joining = self.task(
            lambda: leaf.join_leaf(
                address, caller_data=data, qos=qos, role=role, timeout=self.patience
            )
        )
        leg = self.keep(root.accept(condition, timeout=self.patience))
        return leg, joining.result()

    def invite(
        self,
        root: Endpoint,
        listener: Endpoint,
        condition: Condition | None = None,
        *,
        data: bytes = b"",
    ) -> tuple[Joined, Endpoint]:
        """Have a root invite a leaf; gives what the root got and the leaf's member."""
        address = listener.local_address
        inviting = self.task(
            lambda: root.join_leaf(address, caller_data=data, timeout=self.patience)
        )
        member = self.keep(listener.accept(condition, timeout=self.patience))
        joined = inviting.result()
        self.keep(joined.endpoint)
        return joined, member

    def join(self, leaf: Endpoint, role: JoinRole = JoinRole.BOTH) -> Endpoint:
        """Have a leaf join the nonrooted session."""
        self.keep(leaf.join_leaf(self.session.address, role=role, timeout=self.patience).endpoint)
        return leaf

    def pair(self, settings: Settings | None = None) -> tuple[Endpoint, Endpoint]:
        """One that sends and one that hears it, in any quadrant."""
        if self.info.control_plane_rooted:
            root, leaf = self.root(settings), self.leaf()
            self.admit(root, leaf)
            return root, leaf
        sender = self.join(self.leaf(settings, d_root=self.info.data_plane_rooted))
        return sender, self.join(self.leaf())

    def task(self, call: Callable[[], T]) -> Task[T]:
        """Do it in another thread."""
        return Task(call, 2 * self.patience)

    def events(self, endpoint: Endpoint) -> Events:
        """Collect an endpoint's indications, and those of legs made from it."""
        events = Events(self.patience)
        endpoint.subscribe(events)
        return events

    def close(self) -> None:
        """Give everything back; what goes wrong here is another check's matter."""
        for endpoint in reversed(self._opened):
            with suppress(Exception):
                endpoint.close(linger=0)

    # Expectations

    @staticmethod
    def require(holds: object, text: str) -> None:
        """Fail the check unless it holds."""
        if not holds:
            raise CheckFailed(text)

    @contextmanager
    def refused(self, what: str, *accepted: int) -> Iterator[list[SpiError]]:
        """The block must raise SpiError with one of these numbers; it is given as a list."""
        caught: list[SpiError] = []
        names = " or ".join(map(name_of, accepted))
        try:
            yield caught
        except SpiError as error:
            if error.code not in accepted:
                raise CheckFailed(f"{what}: {name_of(error.code)}, not {names}") from error
            caught.append(error)
        else:
            raise CheckFailed(f"{what}: went through, should be refused with {names}")

    def interrupt(self, waiting: Task[T], interruption: Callable[[], None]) -> None:
        """Interrupt until it takes: a call that has not begun to wait cannot be cancelled."""
        end = time.monotonic() + self.patience
        while waiting.is_running:
            interruption()
            if time.monotonic() > end:
                raise CheckFailed("a call that waits is not ended from another thread")
            time.sleep(0.002)
        # An endpoint that was closed before the call began to wait is as good.
        with self.refused("the interrupted call", WSAEINTR, WSAENOTSOCK):
            waiting.result()

    # Data

    def gather(self, endpoint: Endpoint, count: int, mark: bytes) -> list[bytes]:
        """Receive until ``count`` messages that begin with ``mark`` are there; others are passed.

        Fails on a gap, on numbers that do not fit, and when they do not come in time.
        """
        found: list[bytes] = []
        numbers: dict[Address, int] = {}
        end = time.monotonic() + self.patience
        while len(found) < count:
            batch = self._receive(endpoint, end)
            if batch is None:
                raise CheckFailed(f"{len(found)} of {count} messages {mark!r} arrived in time")
            self._check_numbers(batch, numbers)
            found += [message for message in batch.messages if message.startswith(mark)]
        return found

    @staticmethod
    def _receive(endpoint: Endpoint, end: float) -> Batch | None:
        """The next batch; None if none comes before ``end``."""
        try:
            return endpoint.receive_many(timeout=max(0.0, end - time.monotonic()))
        except SpiError as error:
            if error.code not in (WSAETIMEDOUT, WSAEWOULDBLOCK):
                raise
            return None

    def _check_numbers(self, batch: Batch, numbers: dict[Address, int]) -> None:
        self.require(isinstance(batch, Batch), f"receive_many gave {type(batch).__name__}")
        self.require(batch.gap == 0, f"a gap of {batch.gap} messages, with nobody slow")
        if batch.sequence == -1 or batch.side:
            return
        expected = numbers.get(batch.sender, batch.sequence)
        self.require(
            batch.sequence == expected, f"message {batch.sequence} came where {expected} was due"
        )
        numbers[batch.sender] = expected + len(batch.messages)

    def drain(self, endpoint: Endpoint, mark: bytes) -> list[bytes]:
        """What can be received now, up to a message that begins with ``mark``, that left out."""
        found: list[bytes] = []
        end = time.monotonic() + self.patience
        while (batch := self._receive(endpoint, end)) is not None:
            for message in batch.messages:
                if message.startswith(mark):
                    return found
                found.append(message)
        raise CheckFailed(f"the message {mark!r} did not arrive")

    def until_end(self, endpoint: Endpoint, accepted: Collection[int] = (WSAEDISCON,)) -> SpiError:
        """Receive to the end of the membership; gives the error that says so."""
        end = time.monotonic() + self.patience
        batch: Batch | None = None
        while True:
            try:
                batch = self._receive(endpoint, end)
            except SpiError as error:
                if error.code in accepted:
                    return error
                names = " or ".join(map(name_of, accepted))
                raise CheckFailed(
                    f"the end was told by {name_of(error.code)}, not {names}"
                ) from error
            if batch is None:
                break
        raise CheckFailed(f"no end was told within {self.patience} s")

    def has_nothing(self, endpoint: Endpoint) -> None:
        """There must be nothing to receive now."""
        with self.refused("receive_many with nothing to receive", WSAEWOULDBLOCK):
            endpoint.receive_many(timeout=0)


@dataclass(frozen=True, slots=True)
class ProviderCheck:
    """One rule of the seam, and how to see whether it is kept.

    Attributes:
        name: A sentence.
        run: Raises CheckFailed or NotApplicable; SpiError that it does not expect is a failure.
        clause: Where the rule is written.
        control: "rooted" or "nonrooted": only for entries with such a control plane.
        plane: The same for the data plane.
        flags: XP1_* bits the entry must have.
    """

    name: str
    run: Callable[[Bench], None]
    clause: str
    control: str | None = None
    plane: str | None = None
    flags: int = 0


class Checks(list[ProviderCheck]):
    """A list that functions are put on by decorating them; the docstring is the check's name."""

    def add(
        self,
        clause: str,
        *,
        control: str | None = None,
        plane: str | None = None,
        flags: int = 0,
    ) -> Callable[[Callable[[Bench], None]], Callable[[Bench], None]]:
        """Decorate a check."""

        def put(run: Callable[[Bench], None]) -> Callable[[Bench], None]:
            name = (run.__doc__ or run.__name__).splitlines()[0].rstrip(".")
            self.append(ProviderCheck(name, run, clause, control, plane, flags))
            return run

        return put
