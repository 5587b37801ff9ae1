"""The two ends of a multicast stream, on loopback: trains, fallbacks, filters, full buffers."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from joinleaf.core.wire.landing import Landing
from joinleaf.drivers import multicast, offload
from joinleaf.drivers.attachment import Attachment
from joinleaf.drivers.group_port import SEGMENT_MAX, GroupReceiver, GroupSender
from joinleaf.errors import SpiError
from joinleaf.spi.codes import WSAEADDRINUSE, WSAEADDRNOTAVAIL, WSAEFAULT, WSAEOPNOTSUPP
from joinleaf.values import Address

LOOPBACK = "127.0.0.1"
BOUND = 5.0  # seconds; nothing on loopback takes more than a few milliseconds


def _can_segment() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return offload.can_segment(probe)


linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux' options")
needs_trains = pytest.mark.skipif(not _can_segment(), reason="the system knows no UDP_SEGMENT")


@pytest.fixture
def sender(group: Address) -> Iterator[GroupSender]:
    with GroupSender(group, LOOPBACK) as made:
        yield made


@pytest.fixture
def receiver(group: Address) -> Iterator[GroupReceiver]:
    with GroupReceiver(group, LOOPBACK, source=LOOPBACK) as made:
        yield made


def hear(receiver: GroupReceiver, total: int) -> list[tuple[bytes, int]]:
    """What arrives until it is ``total`` bytes."""
    heard: list[tuple[bytes, int]] = []
    deadline = time.monotonic() + BOUND
    while sum(len(data) for data, _ in heard) < total:
        landing = Landing()
        if receiver.receive(landing):
            heard.append((bytes(landing.view[: landing.size]), landing.segment))
        assert time.monotonic() < deadline, f"{[(len(d), s) for d, s in heard]} of {total} bytes"
    return heard


class FailingSocket:
    """A socket whose next sends fail with these errors; otherwise the real one."""

    def __init__(self, sock: socket.socket, errors: list[int]) -> None:
        self._sock = sock
        self.errors = errors

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def send(self, data: Any) -> int:
        if self.errors:
            number = self.errors.pop(0)
            if number:
                raise OSError(number, os.strerror(number))
        return self._sock.send(data)


def failing(sender: GroupSender, *errors: int) -> FailingSocket:
    """Have the sender's next system calls fail; 0 lets one pass."""
    sock = FailingSocket(sender._sock, list(errors))
    sender._sock = sock  # type: ignore[assignment]  # it quacks
    return sock


def test_on_loopback_a_symbol_is_as_long_as_a_unit_and_arrives_whole(
    sender: GroupSender, receiver: GroupReceiver
) -> None:
    if sys.platform == "linux":
        assert sender.segment == SEGMENT_MAX
    data = os.urandom(sender.segment)
    assert sender.send(data, sender.segment)
    assert hear(receiver, len(data)) == [(data, len(data))]
    assert not receiver.receive(Landing())


@needs_trains
def test_a_train_arrives_with_the_size_of_its_segments(
    sender: GroupSender, receiver: GroupReceiver
) -> None:
    data = os.urandom(42 * 1452 + 100)
    assert sender.send(bytearray(data), 1452)
    heard = hear(receiver, len(data))
    assert b"".join(part for part, _ in heard) == data
    assert all(segment == 1452 for part, segment in heard if len(part) > 1452)


@needs_trains
def test_headers_are_taken_out_whatever_the_shape_of_the_train(
    sender: GroupSender, receiver: GroupReceiver
) -> None:
    landing = Landing()  # one for all: what it keeps of one shape must not show in the next
    for segment, size in ((1452, 42 * 1452), (1452, 3 * 1452 - 900), (1180, 2 * 1180), (1452, 99)):
        data = os.urandom(size)
        assert sender.send(data, segment)
        deadline = time.monotonic() + BOUND
        while not receiver.receive(landing):
            assert time.monotonic() < deadline
        assert landing.view[: landing.size] == data
        pieces = [data[at : at + segment] for at in range(0, size, segment)]
        assert landing.count == len(pieces)
        assert landing.joined() == b"".join(piece[16:] for piece in pieces)
        assert landing.payload_bytes == len(landing.joined())


@needs_trains
def test_trains_of_changing_segment_sizes_are_cut_as_asked(
    sender: GroupSender, receiver: GroupReceiver
) -> None:
    for segment in (1452, 1180, 1452):
        data = os.urandom(3 * segment)
        assert sender.send(data, segment)
        heard = hear(receiver, len(data))
        assert {s for _, s in heard} == {segment}
        assert sender.send(b"short", segment)
        assert hear(receiver, 5) == [(b"short", 5)]


@needs_trains
def test_a_single_datagram_after_a_train_of_shorter_ones_stays_whole(
    sender: GroupSender, receiver: GroupReceiver
) -> None:
    assert sender.send(os.urandom(3 * 340), 340)
    hear(receiver, 3 * 340)
    data = os.urandom(1452)
    assert sender.send(data, 1452)
    assert hear(receiver, len(data)) == [(data, len(data))]


def test_without_segmentation_each_segment_is_a_datagram(
    group: Address, receiver: GroupReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offload, "can_segment", lambda _sock: False)
    with GroupSender(group, LOOPBACK) as sender:
        assert not sender.trains
        data = os.urandom(3 * 1452 + 7)
        assert sender.send(data, 1452)
        heard = hear(receiver, len(data))
    assert b"".join(part for part, _ in heard) == data
    assert [len(part) for part, _ in heard] == [1452, 1452, 1452, 7]


@needs_trains
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_a_device_that_refuses_trains_gets_datagrams_and_is_told_once(
    sender: GroupSender,
    receiver: GroupReceiver,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    failing(sender, number)
    data = os.urandom(3 * 1452)
    with caplog.at_level(logging.WARNING, logger="joinleaf"):
        assert sender.send(data, 1452)
        assert sender.send(data, 1452)
    assert len(caplog.records) == 1
    assert not sender.trains
    heard = hear(receiver, 2 * len(data))
    assert b"".join(part for part, _ in heard) == data + data
    assert {len(part) for part, _ in heard} == {1452}


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOBUFS])
def test_a_full_buffer_takes_nothing_and_says_so(
    sender: GroupSender, receiver: GroupReceiver, number: int
) -> None:
    failing(sender, number)
    assert not sender.send(b"x", 1452)
    assert not receiver.receive(Landing())
    assert sender.send(b"y", 1452)
    assert hear(receiver, 1) == [(b"y", 1)]


def test_a_buffer_full_amid_a_train_sent_singly_keeps_the_rest_for_the_next_call(
    sender: GroupSender, receiver: GroupReceiver
) -> None:
    sender._trains = False
    failing(sender, 0, errno.EAGAIN, errno.EAGAIN)
    data = bytearray(os.urandom(3 * 1452))
    expected = bytes(data)
    assert sender.send(data, 1452)
    data[:] = bytes(len(data))  # the caller may use its buffer again
    assert not sender.send(b"next", 1452)
    assert sender.send(b"next", 1452)
    heard = hear(receiver, len(expected) + 4)
    assert b"".join(part for part, _ in heard) == expected + b"next"


def test_what_the_system_refuses_counts_as_lost_and_is_told_once(
    sender: GroupSender, receiver: GroupReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    failing(sender, errno.ENETUNREACH, errno.ENETUNREACH)
    with caplog.at_level(logging.WARNING, logger="joinleaf"):
        assert sender.send(b"x", 1452)
        assert sender.send(b"x", 1452)
    assert sender.refused == 2
    assert len(caplog.records) == 1
    assert not receiver.receive(Landing())


def test_a_closed_port_raises(sender: GroupSender, receiver: GroupReceiver) -> None:
    sender.close()
    sender.close()
    receiver.close()
    assert (sender.fileno(), receiver.fileno()) == (-1, -1)
    with pytest.raises(OSError, match="descriptor"):
        sender.send(b"x", 1452)
    with pytest.raises(OSError, match="descriptor"):
        receiver.receive(Landing())


def stranger(group: Address, local: str) -> socket.socket:
    made = multicast.open_socket(4)
    made.bind((local, 0))
    ip = group.ip
    assert ip is not None
    own = Address(local).ip
    Attachment(made, ip, LOOPBACK, local=own).attach(receive=False, send=True)
    made.connect((group.host, group.port))
    return made


@linux
def test_strangers_are_not_heard(
    group: Address, sender: GroupSender, receiver: GroupReceiver
) -> None:
    with stranger(group, "127.0.0.2") as other:
        other.send(b"x")
        sender.send(b"y", 1452)
        assert hear(receiver, 1) == [(b"y", 1)]


@linux
def test_where_the_system_does_not_filter_strangers_are_dropped_and_counted(
    group: Address, sender: GroupSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: Any) -> None:
        raise SpiError(WSAEOPNOTSUPP, "not here")

    monkeypatch.setattr(multicast, "join_source", refuse)
    with (
        GroupReceiver(group, LOOPBACK, source=LOOPBACK) as receiver,
        stranger(group, "127.0.0.2") as other,
    ):
        for _ in range(70):  # more than one call throws away
            other.send(b"x")
        sender.send(b"y", 1452)
        assert hear(receiver, 1) == [(b"y", 1)]
        assert 1 <= receiver.foreign <= 70
        assert not receiver.receive(Landing())


@linux
def test_other_groups_and_unicast_on_the_port_are_not_heard(
    group: Address, sender: GroupSender, receiver: GroupReceiver
) -> None:
    other = Address(f"239.191.77.{group.host.rpartition('.')[2]}", group.port)
    with (
        GroupReceiver(other, LOOPBACK) as other_receiver,
        GroupSender(other, LOOPBACK) as other_sender,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unicast,
    ):
        other_sender.send(b"x", 1452)
        with contextlib.suppress(ConnectionError):
            unicast.sendto(b"x", (LOOPBACK, group.port))
        sender.send(b"y", 1452)
        assert hear(receiver, 1) == [(b"y", 1)]
        assert hear(other_receiver, 1) == [(b"x", 1)]
        assert not receiver.receive(Landing())


def test_several_leaves_of_a_host_hear_the_same(
    group: Address, sender: GroupSender, receiver: GroupReceiver
) -> None:
    with GroupReceiver(group, LOOPBACK, source=LOOPBACK) as second:
        sender.send(b"hello", 1452)
        assert hear(receiver, 5) == hear(second, 5) == [(b"hello", 5)]


def test_a_program_that_does_not_share_the_port_is_named(group: Address) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("", group.port))
        with pytest.raises(SpiError) as caught:
            GroupReceiver(group, LOOPBACK)
    assert caught.value.code == WSAEADDRINUSE


@linux
def test_what_does_not_fit_the_buffer_shows_in_a_counter(
    group: Address, sender: GroupSender
) -> None:
    with GroupReceiver(group, LOOPBACK, receive_buffer_bytes=100_000) as receiver:
        assert receiver.granted_bytes >= 100_000
        assert receiver.dropped_by_kernel == 0
        for _ in range(10):
            sender.send(bytes(50_000), 50_000)
        assert receiver.dropped_by_kernel > 0


def test_a_capped_buffer_is_told_once_with_the_setting_to_change(
    group: Address, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multicast, "_warned_about_buffer", [])
    monkeypatch.setattr(multicast, "_SO_RCVBUFFORCE", -1)  # as without privileges
    with caplog.at_level(logging.WARNING, logger="joinleaf"):
        for _ in range(2):
            with GroupReceiver(group, LOOPBACK, receive_buffer_bytes=1 << 30) as receiver:
                assert 0 < receiver.granted_bytes < 1 << 30
    assert len(caplog.records) == 1
    assert "sysctl -w" in caplog.text


def test_the_interface_follows_from_the_address_of_the_leg(
    group: Address, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.INFO, logger="joinleaf"),
        GroupSender(group, local=LOOPBACK) as sender,
        GroupReceiver(group, local=LOOPBACK) as receiver,
    ):
        assert sender.interface.loopback
        assert receiver.interface.loopback
        assert sender.local.host == LOOPBACK
        assert sender.group == receiver.group == group
        sender.send(b"hello", 1452)
        assert hear(receiver, 5) == [(b"hello", 5)]
    assert "the leg's address is there" in caplog.text


def test_the_root_on_this_host_is_heard_on_its_own_interface(
    group: Address, sender: GroupSender
) -> None:
    with GroupReceiver(group, source=LOOPBACK, local="203.0.113.9") as receiver:
        assert receiver.interface.loopback
        sender.send(b"hello", 1452)
        assert hear(receiver, 5) == [(b"hello", 5)]


def test_no_group_or_no_interface_is_refused(group: Address) -> None:
    for wrong in (Address("example", 1), Address("10.0.0.1", 1)):
        with pytest.raises(SpiError) as caught:
            GroupSender(wrong, LOOPBACK)
        assert caught.value.code == WSAEFAULT
    with pytest.raises(SpiError) as caught:
        GroupReceiver(group, LOOPBACK, source="::1")
    assert caught.value.code == WSAEFAULT
    with pytest.raises(SpiError) as caught:
        GroupReceiver(group, "no-such-interface")
    assert caught.value.code == WSAEADDRNOTAVAIL


@linux
def test_marks_and_hops_reach_the_socket(group: Address) -> None:
    with GroupSender(group, LOOPBACK, ttl=3, dscp=40, loopback=False) as sender:
        options = (socket.IP_MULTICAST_TTL, socket.IP_TOS, socket.IP_MULTICAST_LOOP)
        read = [sender._sock.getsockopt(socket.IPPROTO_IP, option) for option in options]
        assert read == [3, 40 << 2, 0]
        sender.set_dscp(0)
        assert sender._sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 0


@linux
def test_after_a_lost_membership_both_ends_can_be_renewed(
    sender: GroupSender, receiver: GroupReceiver
) -> None:
    assert sender.trouble() is None
    assert receiver.trouble() is None
    receiver._tie.detach()
    receiver._tie._member = True  # the system has forgotten, the program has not
    assert receiver.trouble() is not None
    receiver.renew()
    sender.renew()
    assert receiver.trouble() is None
    sender.send(b"again", 1452)
    assert hear(receiver, 5) == [(b"again", 5)]
