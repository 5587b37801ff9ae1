"""A socket's tie to a group on loopback, and the kernel's tables that say whether it holds."""

from __future__ import annotations

import ipaddress
import logging
import socket
import struct
import sys
from collections.abc import Iterator

import pytest

from joinleaf.drivers import attachment, multicast
from joinleaf.drivers.attachment import Attachment
from joinleaf.drivers.interfaces import find_interface
from joinleaf.errors import SpiError
from joinleaf.spi.codes import WSAEADDRNOTAVAIL, WSAEISCONN, WSAENOBUFS

GROUP = ipaddress.ip_address("239.255.77.1")
LOOPBACK = "127.0.0.1"

linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux' options and tables")


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with multicast.open_socket(4) as made:
        made.bind(("", 0))
        yield made


def receive(sock: socket.socket) -> bytes | None:
    try:
        return sock.recv(100)
    except BlockingIOError:
        return None


def test_what_is_attached_hears_itself_until_detached(sock: socket.socket) -> None:
    tie = Attachment(sock, GROUP, LOOPBACK)
    tie.attach(receive=True, send=True)
    target = (str(GROUP), sock.getsockname()[1])
    sock.sendto(b"x", target)
    assert receive(sock) == b"x"
    tie.detach()
    tie.detach()
    sock.sendto(b"y", target)
    assert receive(sock) is None


@linux
def test_a_socket_on_the_port_does_not_hear_a_group_that_others_joined(
    sock: socket.socket,
) -> None:
    tie = Attachment(sock, GROUP, LOOPBACK)
    tie.attach(receive=False, send=True)
    with multicast.open_socket(4) as member:
        Attachment(member, GROUP, LOOPBACK).attach(receive=True, send=False)
        sock.sendto(b"x", (str(GROUP), sock.getsockname()[1]))
        assert receive(sock) is None


@linux
def test_only_the_source_is_heard(sock: socket.socket) -> None:
    other = ipaddress.ip_address("127.0.0.2")
    Attachment(sock, GROUP, LOOPBACK, source=other).attach(receive=True, send=True)
    target = (str(GROUP), sock.getsockname()[1])
    for local in ("127.0.0.1", "127.0.0.2"):
        with multicast.open_socket(4) as sender:
            sender.bind((local, 0))
            Attachment(sender, GROUP, LOOPBACK, local=ipaddress.ip_address(local)).attach(
                receive=False, send=True
            )
            sender.sendto(local.encode(), target)
    assert receive(sock) == b"127.0.0.2"
    assert receive(sock) is None


def test_a_second_membership_of_a_socket_is_one_too_many(sock: socket.socket) -> None:
    Attachment(sock, GROUP, LOOPBACK).attach(receive=True, send=True)
    with pytest.raises(SpiError) as caught:
        Attachment(sock, GROUP, LOOPBACK).attach(receive=True, send=True)
    assert caught.value.code == WSAEISCONN


@linux
def test_too_many_memberships_name_the_limit_to_raise(sock: socket.socket) -> None:
    def join_many() -> None:
        for last in range(1, 255):
            group = ipaddress.ip_address(f"239.255.78.{last}")
            Attachment(sock, group, LOOPBACK).attach(receive=True, send=False)

    with open("/proc/sys/net/ipv4/igmp_max_memberships", encoding="ascii") as limit:
        if int(limit.read()) > 250:
            pytest.skip("this host allows very many memberships")
    with pytest.raises(SpiError) as caught:
        join_many()
    assert caught.value.code == WSAENOBUFS
    assert "igmp_max_memberships" in caught.value.hint


@linux
def test_a_membership_taken_away_is_noticed_and_renewed(sock: socket.socket) -> None:
    tie = Attachment(sock, GROUP, LOOPBACK)
    tie.attach(receive=True, send=True)
    assert tie.trouble() is None
    multicast.leave_group(sock, GROUP, tie.interface)  # what the kernel does to an interface
    trouble = tie.trouble()
    assert trouble is not None
    assert trouble.code == WSAEADDRNOTAVAIL
    tie.renew()
    assert tie.trouble() is None
    sock.sendto(b"x", (str(GROUP), sock.getsockname()[1]))
    assert receive(sock) == b"x"


IGMP_TABLE = [
    "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter",
    "1\tlo        :     1      V3",
    "\t\t\t\t010000E0     1 0:00000000\t\t0",
    "12\teth0      :     2      V3",
    "\t\t\t\t014DFFEF     1 0:00000000\t\t0",
    "\t\t\t\t010000E0     1 0:00000000\t\t0",
]


@pytest.mark.parametrize(
    ("group", "index", "listed"),
    [("014DFFEF", 12, True), ("014DFFEF", 1, False), ("010000E0", 1, True), ("0", 12, False)],
)
def test_the_table_of_groups_is_read_by_interface(group: str, index: int, listed: bool) -> None:
    assert attachment._is_listed_v4(IGMP_TABLE, group, index) is listed


@linux
@pytest.mark.skipif(struct.calcsize("P") != 8, reason="the layout of 64-bit Linux")
def test_the_source_request_has_the_kernels_layout() -> None:
    interface = find_interface(LOOPBACK)
    packed = multicast._group_source_request(GROUP, ipaddress.ip_address("10.0.0.1"), interface)
    assert len(packed) == 264
    assert struct.unpack_from("@I", packed) == (interface.index,)
    assert packed[8 + 4 : 8 + 8] == GROUP.packed
    assert packed[136 + 4 : 136 + 8] == bytes([10, 0, 0, 1])


def test_a_capped_receive_buffer_is_told_once_with_the_setting_to_change(
    sock: socket.socket, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multicast, "_warned_about_buffer", [])
    monkeypatch.setattr(multicast, "_SO_RCVBUFFORCE", -1)  # as without privileges
    with caplog.at_level(logging.WARNING, logger="joinleaf"):
        multicast.size_receive_buffer(sock, 1 << 30)
        multicast.size_receive_buffer(sock, 1 << 30)
    assert len(caplog.records) == 1
    assert "sysctl -w" in caplog.text
