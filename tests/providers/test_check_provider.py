"""The conformance kit: every provider here passes it, and providers that misbehave do not."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from joinleaf.errors import SpiError
from joinleaf.providers.memory import MemoryProvider
from joinleaf.spi.codes import WSAEACCES
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.provider import (
    Accept,
    Batch,
    Endpoint,
    EndpointEvent,
    EventCallback,
    Joined,
    Provider,
    Roles,
    Settings,
)
from joinleaf.testing import Report, Verdict, check_names, check_provider
from joinleaf.values import Address, SessionAddress

QUADRANTS = [
    f"mem://kit?control={control}&plane={plane}"
    for control in ("rooted", "nonrooted")
    for plane in ("rooted", "nonrooted")
]
# Where each scheme's provider lives, and addresses on loopback for it. Ports and groups are this
# test's own; the ports of nonrooted sessions must be fixed, since they are the session.
ADDRESSES = {
    **dict.fromkeys(QUADRANTS, "joinleaf.providers.memory:MemoryProvider"),
    "udp://239.255.83.17:48317?interface=127.0.0.1": (
        "joinleaf.providers.ip_multicast:IpMulticastProvider"
    ),
    "ssm://127.0.0.1@232.83.17.1:48318?interface=127.0.0.1": (
        "joinleaf.providers.source_specific:SourceSpecificProvider"
    ),
    "udp://239.255.83.17:48319?interface=127.0.0.1#a key for the kit of this test alone, long": (
        "joinleaf.providers.ip_multicast:IpMulticastProvider"
    ),
    "ssm://127.0.0.1@232.83.17.1:48320?interface=127.0.0.1#a key for the kit of this test alone": (
        "joinleaf.providers.source_specific:SourceSpecificProvider"
    ),
    "jl://127.0.0.1:0": "joinleaf.providers.rooted:RootedProvider",
    "jl://127.0.0.1:0?plane=nonrooted": "joinleaf.providers.rooted:RootedProvider",
    "jl://127.0.0.1:0?data=239.255.83.19:48319": "joinleaf.providers.rooted:RootedProvider",
    "jl://127.0.0.1:0?plane=nonrooted&data=239.255.83.20:48320": (
        "joinleaf.providers.rooted:RootedProvider"
    ),
}


def _provider_class(where: str) -> Callable[[], Provider]:
    module, _, name = where.partition(":")
    try:
        made: Callable[[], Provider] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        pytest.skip(f"{where} is not there: {error}")
    return made


@pytest.mark.parametrize("address", ADDRESSES)
def test_the_provider_of_every_scheme_conforms(address: str) -> None:
    report = check_provider(_provider_class(ADDRESSES[address]), [address], patience=5)
    assert report.ok, str(report)


def test_every_check_applies_to_some_quadrant_of_the_taxonomy() -> None:
    report = check_provider(MemoryProvider, QUADRANTS, patience=5)
    assert {result.name for result in report.passed} == set(check_names())


# --- providers that misbehave, each in one way, on top of one that does not ---------------------

ROOTED = "mem://kit"
PATIENCE = 0.4


def check(make: Callable[[], Provider], *names: str, address: str = ROOTED) -> Report:
    return check_provider(make, [address], patience=PATIENCE, only=names or None)


def reason(report: Report) -> str:
    (result,) = report.results
    assert result.verdict is Verdict.FAILED, result
    assert not report.ok
    return result.reason


ORDER = "Messages of one sender arrive in order, each once, however they were batched"
CONNECT_DATA = "Connect data of every byte value go both ways, in both directions of joining"
LEAF_JOINS = "A leaf joins a listening root: its own endpoint comes back, and both know each other"
WHO_HEARS = "What the root sends reaches all leaves; what a leaf sends, whom the data plane says"
LEAVES = "A leaf that closes is told on its leg, with its words; nobody else is disturbed"
ROLES = "Open accepts exactly the roles that the table for the entry's planes allows"
ENTRIES = "The scheme and the catalogue entries are valid and stay the same"
SELECT = "Select gives one of the entries, and ValueError for an option it does not know"
CANCELLED = "Cancel from another thread ends a receive with WSAEINTR; the endpoint goes on"
TIMES_OUT = "Receive with a time ends with WSAETIMEDOUT, not early; with none, WSAEWOULDBLOCK"
REFUSAL = "A refused leaf gets WSAECONNREFUSED and what was said, and may ask again"
QOS = "A reservation beyond the root's capacity is refused, one within it is not"
SECOND = "A second thread that receives gets WSAEINPROGRESS; the first is undisturbed"
CLOSED = "Closing twice is allowed; anything else on a closed endpoint is WSAENOTSOCK"


class Wrapped:
    """An endpoint that hands everything on; hostile ones override a method."""

    def __init__(self, inner: Endpoint) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def wrap(self, inner: Endpoint) -> Wrapped:
        return type(self)(inner)

    def accept(self, condition: Any = None, *, timeout: float | None = None) -> Any:
        return self.wrap(self.inner.accept(condition, timeout=timeout))

    def join_leaf(self, address: Address, **options: Any) -> Joined:
        joined = self.inner.join_leaf(address, **options)
        own = joined.endpoint is self.inner
        endpoint: Any = self if own else self.wrap(joined.endpoint)
        return Joined(endpoint, joined.data, joined.qos)

    def subscribe(self, callback: EventCallback | None) -> None:
        self.inner.subscribe(callback)


class Hostile:
    """A provider whose endpoints are wrapped."""

    scheme = "mem"

    def __init__(self, wrapper: type[Wrapped] = Wrapped) -> None:
        self.inner = MemoryProvider()
        self.wrapper = wrapper

    def protocols(self) -> Sequence[ProtocolInfo]:
        return self.inner.protocols()

    def select(self, address: SessionAddress) -> ProtocolInfo:
        return self.inner.select(address)

    def open(
        self,
        info: ProtocolInfo,
        roles: Roles,
        settings: Settings | None = None,
        *,
        address: SessionAddress | None = None,
    ) -> Any:
        return self.wrapper(self.inner.open(info, roles, settings or Settings(), address=address))


def hostile(wrapper: type[Wrapped]) -> Callable[[], Provider]:
    return lambda: Hostile(wrapper)


def test_wrapping_alone_does_no_harm() -> None:
    assert check(Hostile, ORDER, CONNECT_DATA, LEAF_JOINS, WHO_HEARS, CANCELLED).ok


def test_a_provider_that_cannot_be_made_fails_every_check() -> None:
    def make() -> Provider:
        raise RuntimeError("no licence")

    report = check(make)
    assert len(report.failed) == len(check_names())
    assert all("no licence" in result.reason for result in report.failed)


def test_a_provider_that_exits_the_interpreter_fails_and_does_not_exit() -> None:
    class Exits(Hostile):
        def open(self, *_: object, **__: object) -> Any:
            raise SystemExit(3)

    assert "SystemExit" in reason(check(Exits, LEAF_JOINS))


def test_raising_what_is_no_spi_error_is_told_with_its_place() -> None:
    class Raises(Wrapped):
        def receive_many(self, *, timeout: float | None = None) -> Batch:
            raise KeyError("oops")

    assert "KeyError('oops') at receive_many" in reason(check(hostile(Raises), ORDER))


def test_an_unexpected_refusal_is_told_by_name() -> None:
    class Refuses(Wrapped):
        def bind(self, address: Address) -> None:
            raise SpiError(WSAEACCES, "not today", call="bind")

    assert "bind was refused with WSAEACCES" in reason(check(hostile(Refuses), ORDER))


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """An event for a hostile provider to hang on; let go when the test is over."""
    event = threading.Event()
    yield event
    event.set()


def test_a_call_that_hangs_is_given_up_and_its_place_told(never: threading.Event) -> None:
    class Hangs(Wrapped):
        def listen(self, backlog: int | None = None) -> None:
            never.wait()

    assert "hangs in wait < wait < listen" in reason(check(hostile(Hangs), ORDER))


def test_a_close_that_hangs_is_given_up_too(never: threading.Event) -> None:
    class Hangs(Wrapped):
        def close(self, **_: object) -> None:
            never.wait()

    assert "did not come back" in reason(check(hostile(Hangs), LEAF_JOINS))


def test_a_provider_deaf_to_cancel_is_found(never: threading.Event) -> None:
    class Deaf(Wrapped):
        def cancel(self) -> None:
            pass

        def receive_many(self, *, timeout: float | None = None) -> Batch:
            if timeout is None:
                never.wait()
            return self.inner.receive_many(timeout=timeout)

    assert "not ended from another thread" in reason(check(hostile(Deaf), CANCELLED))


class Loses(Wrapped):
    def send_many(self, messages: Any, **options: Any) -> None:
        self.inner.send_many([one for one in messages if one != b"N000007"], **options)


class Doubles(Wrapped):
    def send_many(self, messages: Any, **options: Any) -> None:
        self.inner.send_many(list(messages) + list(messages)[-1:], **options)


class Swaps(Wrapped):
    def send_many(self, messages: Any, **options: Any) -> None:
        self.inner.send_many(list(messages)[::-1], **options)


@pytest.mark.parametrize("wrapper", [Loses, Doubles, Swaps])
def test_messages_lost_doubled_or_swapped_are_found(wrapper: type[Wrapped]) -> None:
    text = reason(check(hostile(wrapper), ORDER))
    assert "order" in text or "of 2000" in text or "where" in text


def test_a_leaf_that_hears_another_leaf_in_a_rooted_plane_is_found() -> None:
    class Leaks(Hostile):
        """A rooted data plane in name, a nonrooted one in fact."""

        def open(self, info: ProtocolInfo, roles: Roles, *rest: Any, **options: Any) -> Any:
            other = self.inner.select(SessionAddress.parse("mem://kit?plane=nonrooted"))
            return super().open(other, Roles(c_root=roles.c_root), *rest, **options)

    assert "the other leaf heard [b'L1']" in reason(check(Leaks, WHO_HEARS))


def test_connect_data_that_arrive_changed_are_found() -> None:
    class Strips(Wrapped):
        def join_leaf(self, address: Address, *, caller_data: bytes = b"", **rest: Any) -> Joined:
            return super().join_leaf(address, caller_data=caller_data.strip(b"\0"), **rest)

    assert "did not arrive unchanged" in reason(check(hostile(Strips), CONNECT_DATA))


def test_a_condition_that_is_never_asked_is_found() -> None:
    class Admits(Wrapped):
        def accept(self, condition: Any = None, *, timeout: float | None = None) -> Any:
            return super().accept(lambda _: Accept(), timeout=timeout)

    assert "should be refused with WSAECONNREFUSED" in reason(check(hostile(Admits), REFUSAL))


def test_capacity_that_is_promised_twice_is_found() -> None:
    class Generous(Hostile):
        def open(self, info: ProtocolInfo, roles: Roles, *_: Any, **__: Any) -> Any:
            return super().open(info, roles)

    assert "should be refused with WSAEOPNOTSUPP" in reason(check(Generous, QOS))


def test_a_leave_that_nobody_is_told_of_is_found() -> None:
    class Mute(Wrapped):
        def subscribe(self, callback: EventCallback | None) -> None:
            pass

    assert "FD_CLOSE on the leg) was not indicated" in reason(check(hostile(Mute), LEAVES))


def test_a_leave_with_the_wrong_reason_is_found() -> None:
    class Lies(Wrapped):
        wrappers: dict[int, Wrapped]

        def subscribe(self, callback: EventCallback | None) -> None:
            assert callback is not None

            def tell(endpoint: Endpoint, event: EndpointEvent) -> None:
                callback(endpoint, EndpointEvent(event.kind, 10054))

            self.inner.subscribe(tell)

        def wrap(self, inner: Endpoint) -> Any:
            return inner

    assert "FD_CLOSE has code 10054" in reason(check(hostile(Lies), LEAVES))


def test_roles_against_the_table_are_found() -> None:
    class Anything(Hostile):
        def open(self, info: ProtocolInfo, roles: Roles, *rest: Any, **options: Any) -> Any:
            return super().open(info, Roles(), *rest, **options)

    assert "reported" in reason(check(Anything, ROLES))
    nonrooted = "mem://kit?control=nonrooted&plane=nonrooted"
    assert "accepted, against the table" in reason(check(Anything, ROLES, address=nonrooted))


def test_entries_that_change_and_options_that_nobody_knows_are_found() -> None:
    class Restless(Hostile):
        calls = 0

        def protocols(self) -> Sequence[ProtocolInfo]:
            self.calls += 1
            return self.inner.protocols()[: 1 + self.calls % 2]

        def select(self, address: SessionAddress) -> ProtocolInfo:
            return self.inner.select(SessionAddress.parse(ROOTED))

    assert "changes between calls" in reason(check(Restless, ENTRIES))
    assert "options it does not know" in reason(check(Restless, SELECT))


def test_a_time_out_without_waiting_is_found() -> None:
    class Hasty(Wrapped):
        def receive_many(self, *, timeout: float | None = None) -> Batch:
            try:
                return self.inner.receive_many(timeout=0)
            except SpiError as error:
                raise SpiError(10060 if timeout else 10035, "no") from error

    assert "too early" in reason(check(hostile(Hasty), TIMES_OUT))


def test_a_provider_that_lets_two_threads_receive_is_found() -> None:
    class Crowded(Wrapped):
        def receive_many(self, *, timeout: float | None = None) -> Batch:
            if timeout == 0:
                raise SpiError(10035, "nothing")
            return self.inner.receive_many(timeout=timeout)

    assert "second receiver" in reason(check(hostile(Crowded), SECOND))


def test_a_closed_endpoint_that_goes_on_working_is_found() -> None:
    class Immortal(Wrapped):
        def close(self, **_: object) -> None:
            pass

    assert "closed endpoint" in reason(check(hostile(Immortal), CLOSED))


def test_unknown_names_and_addresses_are_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="no check is called 'nothing'"):
        check(MemoryProvider, "nothing")
    with pytest.raises(ValueError, match="no session address"):
        check_provider(MemoryProvider, ["nowhere"])


def test_a_report_says_what_failed_and_counts_the_rest() -> None:
    report = check(
        hostile(Loses),
        ORDER,
        LEAF_JOINS,
        "Nobody listens and nobody accepts in a nonrooted control plane",
    )
    assert str(report).splitlines()[0] == "1 passed, 1 failed, 1 not applicable"
    assert ORDER in str(report)
    assert [result.verdict for result in report.not_applicable] == [Verdict.NOT_APPLICABLE]
