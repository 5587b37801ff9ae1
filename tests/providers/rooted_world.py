"""Roots and leaves over real sockets on loopback, for the tests of ``jl://``."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from joinleaf.providers.rooted import LeafEndpoint, RootedProvider, RootEndpoint, SecuredProvider
from joinleaf.spi import constants as c
from joinleaf.spi.provider import (
    Accept,
    Condition,
    Endpoint,
    EndpointEvent,
    JoinRole,
    Roles,
    Settings,
)
from joinleaf.values import Address, KeyedAddress, SessionAddress

BOUND = 10.0  # seconds; no wait comes near it unless something is broken


class Indications:
    """What an endpoint reported, and a wait for it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.seen: list[tuple[Endpoint, EndpointEvent]] = []
        self._news = threading.Condition()
        endpoint.subscribe(self._note)

    def _note(self, endpoint: Endpoint, event: EndpointEvent) -> None:
        with self._news:
            self.seen.append((endpoint, event))
            self._news.notify_all()

    def wait(self, kind: int, *, of: Endpoint | None = None) -> EndpointEvent:
        """The first indication of a kind, from one endpoint or any."""

        def found() -> EndpointEvent | None:
            for endpoint, event in self.seen:
                if event.kind == kind and of in (None, endpoint):
                    return event
            return None

        with self._news:
            assert self._news.wait_for(lambda: found() is not None, BOUND), (kind, self.seen)
            event = found()
        assert event is not None
        return event


def until(condition: Callable[[], Any], what: str = "", bound: float = BOUND) -> Any:
    """Wait for something no event tells of."""
    deadline = time.monotonic() + bound
    while not (result := condition()):
        assert time.monotonic() < deadline, f"did not happen: {what or condition}"
        time.sleep(0.005)
    return result


class Call:
    """A call under way in a thread; calling this waits for its value or raises its error."""

    def __init__(self, call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._outcome: list[tuple[Any, BaseException | None]] = []
        self._thread = threading.Thread(target=self._run, args=(call, arguments), daemon=True)
        self._thread.start()

    def _run(self, call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            self._outcome.append((call(*arguments), None))
        except BaseException as error:
            self._outcome.append((None, error))

    @property
    def done(self) -> bool:
        return bool(self._outcome)

    def __call__(self) -> Any:
        self._thread.join(BOUND)
        assert self._outcome, "the call is still running"
        value, error = self._outcome[0]
        if error is not None:
            raise error
        return value


def in_thread(call: Callable[..., Any], *arguments: Any) -> Call:
    """Start a call in a thread."""
    return Call(call, arguments)


def say(sender: Endpoint, messages: list[bytes]) -> None:
    """Send messages one by one, however long it takes."""
    for message in messages:
        sender.send_many([message])


def cancelled(call: Call, cancel: Callable[[], Any]) -> None:
    """Cancel a call, whose thread may not be inside it yet: cancelling is for calls of the
    moment."""

    def again() -> bool:
        cancel()
        return call.done

    until(again)


class World:
    """Makes endpoints, joins them, and closes all in the end.

    Args:
        group: The group that roots send to, as ``?data=`` has it; None: everything goes by legs.
        scheme: ``jl``, or ``jls``: with the session key that the one connected to has made.
    """

    def __init__(self, group: str | None = None, scheme: str = "jl") -> None:
        self.group = group
        self.scheme = scheme
        self.provider = SecuredProvider() if scheme == "jls" else RootedProvider()
        self._made: list[Endpoint] = []

    def __enter__(self) -> World:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for endpoint in self._made:
            endpoint.close(linger=0)

    def _open(self, roles: Roles, plane: str, settings: dict[str, Any]) -> Any:
        data = f"&data={self.group}" if self.group and roles.c_root else ""
        address = SessionAddress.parse(f"{self.scheme}://127.0.0.1:1?plane={plane}{data}")
        info = self.provider.select(address)
        endpoint = self.provider.open(info, roles, Settings(**settings), address=address)
        self._made.append(endpoint)
        return endpoint

    def root(
        self,
        host: str = "127.0.0.1",
        *,
        plane: str = "rooted",
        d_root: bool | None = None,
        backlog: int | None = None,
        **settings: Any,
    ) -> RootEndpoint:
        """A root that listens."""
        d_root = plane == "rooted" if d_root is None else d_root
        root = self._open(Roles(c_root=True, d_root=d_root), plane, settings)
        assert isinstance(root, RootEndpoint)
        root.bind(Address(host, 0))
        root.listen(backlog)
        return root

    def leaf(self, *, plane: str = "rooted", d_root: bool = False, **settings: Any) -> LeafEndpoint:
        """A leaf that has done nothing yet."""
        leaf = self._open(Roles(d_root=d_root), plane, settings)
        assert isinstance(leaf, LeafEndpoint)
        return leaf

    def listener(self, host: str = "127.0.0.1", **settings: Any) -> LeafEndpoint:
        """A leaf that waits for invitations."""
        leaf = self.leaf(**settings)
        leaf.bind(Address(host, 0))
        leaf.listen()
        return leaf

    def join(
        self,
        root: RootEndpoint,
        leaf: LeafEndpoint | None = None,
        condition: Condition | None = None,
        **arguments: Any,
    ) -> tuple[LeafEndpoint, Endpoint]:
        """Join a leaf; returns it and the root's side of the leg."""
        plane = "rooted" if root.info.data_plane_rooted else "nonrooted"
        leaf = leaf or self.leaf(plane=plane)
        news = Indications(leaf)
        leaf.start_join_leaf(target(root), timeout=BOUND, **arguments)
        leg = root.accept(condition or (lambda request: Accept()), timeout=BOUND)
        assert news.wait(c.FD_CONNECT).code == 0
        leaf.subscribe(None)
        if self.group and arguments.get("role") is not JoinRole.SENDER_ONLY:
            until(lambda: leg.statistics()["on_group"], "the leaf hears the group")
        return leaf, leg


def target(endpoint: RootEndpoint | LeafEndpoint) -> Address:
    """Where to connect to, with the key that is asked for there."""
    where = endpoint.local_address
    key = endpoint.session_key
    return KeyedAddress(where.host, where.port, where.scope, key) if key else where


def receive(endpoint: Any, count: int) -> list[bytes]:
    """That many messages, in order."""
    got: list[bytes] = []
    while len(got) < count:
        got += endpoint.receive_many(timeout=BOUND).messages
    assert len(got) == count
    return got
