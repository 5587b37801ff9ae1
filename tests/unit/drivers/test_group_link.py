"""How a leaf reads its group: when it looks away so that trains gather, and who runs the clocks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from joinleaf.core.wire.landing import Landing, Landings
from joinleaf.drivers import group_link
from joinleaf.drivers.group_link import (
    LATELY_NS,
    LEAST_LULL_NS,
    LULL_BYTES,
    LULL_IN_MESSAGE_NS,
    LULL_LOSSY_NS,
    LULL_NS,
    LeafLink,
)

pytestmark = pytest.mark.patches  # its socket, session and clock are made up

UNIT = 62_000


class Port:
    """A socket with so many trains of a length in it."""

    def __init__(self) -> None:
        self.waiting = self.taken = 0
        self.size = UNIT
        self.runs = False

    def receive(self, landing: Landing) -> bool:
        if not self.waiting:
            return False
        self.waiting -= 1
        self.taken += 1
        landing.size = landing.segment = self.size
        return True


class Clock:
    """Monotonic time, set by hand."""

    def __init__(self) -> None:
        self.now_ns = 10**12

    def monotonic_ns(self) -> int:
        return self.now_ns

    def time_ns(self) -> int:
        return self.now_ns


class Leaf:
    """A link, its socket and its clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.port, self.clock = Port(), Clock()
        monkeypatch.setattr(group_link, "time", self.clock)
        self.stream = SimpleNamespace(
            handle_landing=lambda landing, now_ns: False,
            landings=Landings(),
            in_message=False,
            receiver=SimpleNamespace(hole_ns=0),
        )
        self.session = SimpleNamespace(stream=self.stream, group_received=self.received, out=[])
        self.complete_after = 0  # trains that make a message
        self.link = LeafLink(cast("Any", self.port), cast("Any", self.session))

    def received(self, now_ns: int, wall_ns: int) -> None:
        if self.complete_after and self.port.taken >= self.complete_after:
            self.session.out.append("a message")

    def read_after(self, later_ns: int, trains: int, size: int = UNIT) -> int:
        """Read so many trains that have come, and say how long to look away then."""
        self.clock.now_ns += later_ns
        self.port.waiting, self.port.size = trains, size
        assert self.link.read() is (trains > 0)
        return self.link.lull_ns()


@pytest.fixture
def leaf(monkeypatch: pytest.MonkeyPatch) -> Leaf:
    leaf = Leaf(monkeypatch)
    leaf.read_after(0, 1)
    return leaf


def test_a_fast_stream_is_left_alone_until_a_read_is_worth_it(leaf: Leaf) -> None:
    assert leaf.read_after(200_000, 1) == LULL_NS  # 310 MB/s: half a megabyte in 1.7 ms
    assert leaf.read_after(100_000, 2) == 100_000 * LULL_BYTES // (2 * UNIT)


def test_but_only_once(leaf: Leaf) -> None:
    """Who finds nothing after that waits for the socket."""
    leaf.read_after(200_000, 1)
    assert leaf.link.lull_ns() == 0
    leaf.read_after(200_000, 1)
    assert leaf.read_after(200_000, 0) == 0


def test_in_the_middle_of_a_message_there_is_more_time(leaf: Leaf) -> None:
    leaf.stream.in_message = True
    assert leaf.read_after(1_500_000, 1) == LULL_IN_MESSAGE_NS


def test_where_something_was_missing_of_late_there_is_less(leaf: Leaf) -> None:
    leaf.stream.receiver.hole_ns = leaf.clock.now_ns
    for leaf.stream.in_message in (True, False):
        assert leaf.read_after(500_000, 1) == LULL_LOSSY_NS
    leaf.clock.now_ns += LATELY_NS
    leaf.read_after(0, 1)
    assert leaf.read_after(500_000, 1) == LULL_NS


@pytest.mark.parametrize(
    ("later_ns", "size"), [(3_000_000, UNIT), (10_000_000, UNIT), (50_000, 80)]
)
def test_a_live_feed_is_never_left_waiting(leaf: Leaf, later_ns: int, size: int) -> None:
    """20,000 messages of 80 bytes a second, or less than 30 MB/s."""
    assert leaf.read_after(later_ns, 1, size) == 0


def test_what_is_left_in_the_socket_is_not_left_alone(leaf: Leaf) -> None:
    leaf.complete_after = 8
    leaf.clock.now_ns += 1_000_000
    leaf.port.waiting = 20
    assert leaf.link.read()
    assert leaf.port.waiting == 12
    assert leaf.link.lull_ns() == 0


def test_of_a_long_message_all_is_read_that_is_there(leaf: Leaf) -> None:
    leaf.stream.in_message = True
    leaf.complete_after = 18
    leaf.port.waiting = 200
    assert leaf.link.read()
    assert leaf.port.waiting == 200 - 24
    leaf.complete_after, leaf.session.out = 0, []
    assert leaf.link.read()  # but then it is somebody else's turn
    assert leaf.port.waiting == 200 - 24 - 64


def test_a_short_read_behind_full_ones_does_not_make_the_stream_slow(leaf: Leaf) -> None:
    """Asked after every read, a stream of 1.5 GB/s was left alone for 2 ms with all its window."""
    leaf.stream.in_message = True
    leaf.clock.now_ns += 350_000
    leaf.port.waiting = 8
    leaf.link.read()
    assert leaf.read_after(50_000, 1) == 400_000 * LULL_BYTES // (9 * UNIT)


def test_a_stream_that_fills_the_room_in_no_time_is_read_on(leaf: Leaf) -> None:
    assert LEAST_LULL_NS > leaf.read_after(80_000, 15) == 0


def test_behind_a_short_message_that_was_waited_for_nothing_is_looked_for(leaf: Leaf) -> None:
    leaf.port.waiting, leaf.port.size = 3, 80
    assert leaf.link.read(alone=True)
    assert leaf.port.waiting == 2
    assert leaf.link.read()
    assert leaf.port.waiting == 0


def test_but_behind_a_train_there_may_be_more(leaf: Leaf) -> None:
    leaf.port.waiting = 5
    assert leaf.link.read(alone=True)
    assert leaf.port.waiting == 0
