"""Fixtures for the memory provider: endpoints of one provider, and threads that must end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import pytest

from joinleaf.providers.memory import MemoryProvider
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.provider import (
    Condition,
    Endpoint,
    EndpointEvent,
    Joined,
    JoinRole,
    Roles,
    Settings,
)
from joinleaf.values import Address, SessionAddress

T = TypeVar("T")
ROOT = Address("session")
PATIENCE = 10.0


class Running(Generic[T]):
    """A call in a thread; ``result`` waits for it, with a bound."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._result: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result.append(self._call())
        except BaseException as error:
            self._error = error

    def result(self) -> T:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the call does not return"
        if self._error is not None:
            raise self._error
        return self._result[0]

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()


@dataclass
class World:
    """One provider and what a test opened of it."""

    provider: MemoryProvider = field(default_factory=MemoryProvider)
    opened: list[Endpoint] = field(default_factory=list)
    events: list[tuple[Endpoint, EndpointEvent]] = field(default_factory=list)

    @property
    def faults(self) -> Any:
        return self.provider.faults

    def info(self, control: str = "rooted", plane: str = "rooted") -> ProtocolInfo:
        text = f"mem://session?control={control}&plane={plane}"
        return self.provider.select(SessionAddress.parse(text))

    def open(
        self,
        roles: Roles,
        settings: Settings | None = None,
        *,
        control: str = "rooted",
        plane: str = "rooted",
        listening: bool = False,
        name: str = "",
    ) -> Endpoint:
        endpoint = self.provider.open(self.info(control, plane), roles, settings or Settings())
        self.opened.append(endpoint)
        endpoint.subscribe(lambda one, event: self.events.append((one, event)))
        if listening:
            endpoint.bind(Address(name))
            endpoint.listen()
        return endpoint

    def root(
        self, settings: Settings | None = None, *, plane: str = "rooted", d_root: bool | None = None
    ) -> Endpoint:
        """A c_root that listens at ROOT."""
        is_d_root = plane == "rooted" if d_root is None else d_root
        roles = Roles(c_root=True, d_root=is_d_root)
        return self.open(roles, settings, plane=plane, listening=True, name=ROOT.host)

    def leaf(
        self, settings: Settings | None = None, *, plane: str = "rooted", d_root: bool = False
    ) -> Endpoint:
        return self.open(Roles(d_root=d_root), settings, plane=plane)

    def listener(self, *, plane: str = "rooted", d_root: bool = False) -> Endpoint:
        """A c_leaf that waits to be invited."""
        return self.open(Roles(d_root=d_root), plane=plane, listening=True)

    def member(
        self,
        settings: Settings | None = None,
        *,
        plane: str = "nonrooted",
        d_root: bool = False,
        role: JoinRole = JoinRole.BOTH,
    ) -> Endpoint:
        """A member of the nonrooted session."""
        leaf = self.open(Roles(d_root=d_root), settings, control="nonrooted", plane=plane)
        leaf.join_leaf(ROOT, role=role, timeout=PATIENCE)
        return leaf

    def admit(
        self, root: Endpoint, leaf: Endpoint, condition: Condition | None = None, **options: Any
    ) -> tuple[Endpoint, Joined]:
        """The leaf asks, the root accepts; gives the leg and the leaf's result."""
        leaf.start_join_leaf(root.local_address, **options)
        leg = root.accept(condition, timeout=0)
        self.opened.append(leg)
        return leg, leaf.join_result()

    def invite(
        self, root: Endpoint, listener: Endpoint, condition: Condition | None = None, **options: Any
    ) -> tuple[Endpoint, Endpoint]:
        """The root invites, the leaf accepts; gives the leg and the leaf's member."""
        leg = root.start_join_leaf(listener.local_address, **options)
        member = listener.accept(condition, timeout=0)
        self.opened += [leg, member]
        return leg, member

    def of(self, endpoint: Endpoint, *kinds: int) -> list[EndpointEvent]:
        """Indications of one endpoint, of these kinds or all."""
        return [
            event
            for one, event in self.events
            if one is endpoint and (not kinds or event.kind in kinds)
        ]

    def run(self, call: Callable[[], T]) -> Running[T]:
        return Running(call)


@pytest.fixture
def world() -> Iterator[World]:
    """A world that must be empty again once all its endpoints are closed."""
    made = World()
    yield made
    for endpoint in made.opened:
        endpoint.close()
    assert made.provider.is_empty, "names or sessions are left behind"
