"""Runs of trains taken out of a real socket, straight into frames, on loopback."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from joinleaf.core.wire.data import messages_of, pack
from joinleaf.core.wire.frames import Kind, control_frame
from joinleaf.core.wire.landing import Landing, Landings
from joinleaf.core.wire.native import TRAINS
from joinleaf.core.wire.quick import QuickReader, quick_reader
from joinleaf.core.wire.units import DATA as FIRST
from joinleaf.core.wire.units import HEADER_SIZE, POLL, Layout, write_unit
from joinleaf.drivers.group_port import GroupReceiver, GroupSender
from joinleaf.values import Address

pytestmark = pytest.mark.skipif(
    not hasattr(TRAINS, "receive_run"), reason="the short way in C was not built"
)

TAG = 77
LIMIT = 4 << 20
BOUND = 5.0  # seconds; nothing on loopback takes more than a few milliseconds
LOCAL, OTHER = "127.0.0.1", "127.0.0.2"
LAYOUT = Layout(1452)
GATE = control_frame(Kind.GATE, bytes(12))


class Ends:
    """A sender and a receiver of one group, and the reader of what comes.

    Attributes:
        sent: Units that have left.
        taken: Units that went straight.
        polled: Whether one of the last run asked for a report.
    """

    def __init__(self, sender: GroupSender, receiver: GroupReceiver) -> None:
        made = quick_reader(LIMIT, Landings())
        assert made is not None
        self.sender, self.receiver = sender, receiver
        self.reader: QuickReader = made
        self.landing = Landing()
        self.sent = self.taken = 0
        self.polled = False
        assert receiver.runs

    def wait(self) -> None:
        """For something to be there."""
        deadline = time.monotonic() + BOUND
        with socket.socket(fileno=os.dup(self.receiver.fileno())) as sock:
            while True:
                with contextlib.suppress(BlockingIOError):
                    sock.recv(1, socket.MSG_PEEK)
                    return
                assert time.monotonic() < deadline

    def send(self, stream: bytes, kind: int = FIRST) -> int:
        """Send units; how many."""
        size = LAYOUT.unit_bytes
        for at in range(0, len(stream), size):
            image = write_unit(LAYOUT, TAG, 0, self.sent, stream[at : at + size], kind)
            while not self.sender.send(image, LAYOUT.segment):
                pass
            self.sent += 1
        return -(-len(stream) // size)

    def run(self, most: int = 64, most_in_frame: int = 64, short_bytes: int = 0) -> int:
        """One run; what it left."""
        _, self.polled, left = self.receiver.receive_run(
            self.reader, self.landing, TAG, self.taken, most, most_in_frame, short_bytes
        )
        self.taken = max(self.taken, self.reader.next)
        return left

    def messages(self) -> list[bytes]:
        """What has been completed."""
        return [
            one
            for _, flags, _, _, payload, _ in self.reader.taken()
            for one in messages_of(flags, payload, LIMIT)
        ]


def frame(*messages: bytes) -> bytes:
    packed = pack(messages, sender=0, sequence=0, flags=0, max_message=LIMIT)
    return b"".join(bytes(part) for part in packed.buffers)


@pytest.fixture
def ends(group: Address) -> Iterator[Ends]:
    with (
        GroupReceiver(group, LOCAL, source=LOCAL) as receiver,
        GroupSender(group, LOCAL) as sender,
    ):
        yield Ends(sender, receiver)


def test_what_is_there_is_taken_in_order(ends: Ends) -> None:
    big = os.urandom(300_000)
    count = ends.send(frame(b"one", b"two") + frame(big) + frame(b"last"))
    ends.wait()
    assert ends.run() == -1
    assert ends.taken == count
    assert ends.messages() == [b"one", b"two", big, b"last"]
    assert not ends.polled
    assert ends.run() == -1
    assert ends.messages() == []


def test_a_run_ends_when_as_many_trains_have_come_as_were_asked_for(ends: Ends) -> None:
    count = ends.send(frame(os.urandom(500_000)))
    assert ends.run(most=1, most_in_frame=3) == 0
    assert ends.taken == 3
    assert ends.run(most=1, most_in_frame=64) == 0
    assert ends.taken == count
    for _ in range(3):
        ends.send(frame(b"whole"))
    ends.messages()
    assert ends.run(most=2) == 0
    assert ends.taken == count + 2
    assert ends.messages() == [b"whole"] * 2
    assert ends.run(most=1) == 0
    assert ends.messages() == [b"whole"]


@pytest.mark.parametrize("missing", [1, 40])
def test_a_train_that_is_not_the_next_is_left_in_the_landing(ends: Ends, missing: int) -> None:
    ends.send(frame(b"first"))
    ends.sent += missing
    ends.send(frame(b"behind"))
    left = ends.run()
    assert left == HEADER_SIZE + len(frame(b"behind"))
    assert ends.landing.size == left
    assert ends.landing.segment == left
    assert bytes(ends.landing.joined()) == frame(b"behind")
    assert ends.taken == 1
    assert ends.messages() == [b"first"]


def test_a_train_with_control_frames_is_left_whole(ends: Ends) -> None:
    ends.send(frame(b"first"))
    mixed = frame(os.urandom(5_000)) + GATE
    ends.send(mixed)
    left = ends.run()
    assert left == ends.landing.size == len(mixed) + 4 * HEADER_SIZE
    assert ends.landing.segment == 1452
    assert bytes(ends.landing.joined()) == mixed
    assert ends.messages() == [b"first"]


def test_a_short_train_ends_a_run_of_who_would_rather_wait(ends: Ends) -> None:
    ends.send(frame(b"short"))
    ends.send(frame(b"more"))
    assert ends.run(short_bytes=4096) == 0
    assert ends.messages() == [b"short"]
    assert ends.run(short_bytes=0) == -1
    assert ends.messages() == [b"more"]


def test_a_poll_is_told(ends: Ends) -> None:
    ends.send(frame(b"first"))
    ends.send(frame(b"asks"), POLL)
    ends.send(frame(b"last"))
    assert ends.run() == -1
    assert ends.polled
    assert ends.taken == 3


def test_a_run_is_over_when_many_strangers_have_come() -> None:
    assert TRAINS is not None
    reader, view = quick_reader(LIMIT, Landings()), Landing().view
    host = ip_address(LOCAL).packed
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to,
    ):
        sock.bind((OTHER, 0))
        to.bind((LOCAL, 0))
        for _ in range(100):
            sock.sendto(b"forged", to.getsockname())
        *_, strangers, left, _ = TRAINS.receive_run(
            reader, to.fileno(), host, view, TAG, 0, 8, 8, 0, 64
        )
    assert (strangers, left) == (64, -1)


@pytest.mark.parametrize(
    ("family", "host", "wanted", "taken"),
    [
        (socket.AF_INET, LOCAL, LOCAL, True),
        (socket.AF_INET, OTHER, LOCAL, False),
        (socket.AF_INET6, "::1", "::1", True),
        (socket.AF_INET6, "::1", "::2", False),
    ],
)
def test_hosts_are_told_apart_and_not_their_ports(
    family: int, host: str, wanted: str, taken: bool
) -> None:
    """As in Python: what tells sessions of one host apart is their tag."""
    assert TRAINS is not None
    reader = quick_reader(LIMIT, Landings())
    assert reader is not None
    with (
        socket.socket(family, socket.SOCK_DGRAM) as sock,
        socket.socket(family, socket.SOCK_DGRAM) as to,
    ):
        try:
            sock.bind((host, 0))
            to.bind(("::1" if family == socket.AF_INET6 else LOCAL, 0))
        except OSError:
            pytest.skip("no IPv6")
        sock.sendto(write_unit(LAYOUT, TAG, 0, 0, frame(b"one", b"two")), to.getsockname())
        *_, strangers, left, _ = TRAINS.receive_run(
            reader, to.fileno(), ip_address(wanted).packed, Landing().view, TAG, 0, 8, 8, 0, 64
        )
    assert (strangers, left, reader.next) == (not taken, -1, int(taken))


def test_another_session_of_the_same_host_does_not_silence_this_one(ends: Ends) -> None:
    """Its datagrams are left to Python, which counts them; ours go on being heard."""
    group = ends.sender.group
    with GroupSender(group, LOCAL) as other:
        assert other.send(write_unit(LAYOUT, TAG + 1, 0, 0, frame(b"theirs")), 1452)
        ends.wait()
        assert ends.run() > 0
        assert other.send(bytes(20), 1452)
        ends.wait()
        assert ends.receiver.receive(ends.landing)  # the last that Python heard is the other
        ends.send(frame(b"ours", b"too"))
        ends.wait()
        ends.run()
    assert ends.messages() == [b"ours", b"too"]
    assert ends.receiver.foreign == 0


@pytest.mark.parametrize("size", [0, 100, (1 << 16) - 1])
def test_a_view_without_room_for_a_train_is_an_error(size: int) -> None:
    assert TRAINS is not None
    reader, view = quick_reader(LIMIT, Landings()), bytearray(size)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        pytest.raises(ValueError, match="room"),
    ):
        TRAINS.receive_run(reader, sock.fileno(), b"", view, TAG, 0, 8, 8, 0, 64)


def test_nothing_there_leaves_nothing(ends: Ends) -> None:
    assert ends.run() == -1
    assert ends.landing.size == 0
    assert ends.taken == 0


def test_a_closed_port_raises(ends: Ends) -> None:
    ends.receiver.close()
    with pytest.raises(OSError, match="descriptor"):
        ends.run()
