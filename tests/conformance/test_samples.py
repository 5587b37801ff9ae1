"""Two call sequences every Winsock programmer has seen, written from their descriptions.

(a) The IP multicast sample: one overlapped socket, both planes nonrooted, joined as a sender or as
a receiver, then plain ``send`` and ``recv`` on it. (b) The rooted sample: a root finds its protocol
in the catalogue, adds one leaf after another and sends to all of them at once.
"""

from __future__ import annotations

import ctypes
import os
import socket as system
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from joinleaf.providers.memory import AF_MEMORY
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.provider import Settings
from joinleaf.winsock import veneer as ws
from joinleaf.winsock.types import WSADATA, sockaddr_in

BOUND_S = 10.0
NONROOTED = c.WSA_FLAG_MULTIPOINT_C_LEAF | c.WSA_FLAG_MULTIPOINT_D_LEAF | c.WSA_FLAG_OVERLAPPED
ROOT = c.WSA_FLAG_MULTIPOINT_C_ROOT | c.WSA_FLAG_MULTIPOINT_D_ROOT | c.WSA_FLAG_OVERLAPPED
LEAF = c.WSA_FLAG_MULTIPOINT_C_LEAF | c.WSA_FLAG_MULTIPOINT_D_LEAF | c.WSA_FLAG_OVERLAPPED


def inet(host: str, port: int) -> bytes:
    return struct.pack("=H", c.AF_INET) + struct.pack("!H4s8x", port, system.inet_aton(host))


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(ws.LIBRARY, "settings", Settings(interface="127.0.0.1"))
    assert ws.WSAStartup(0x0202, WSADATA()) == 0
    yield
    assert ws.WSACleanup() == 0
    assert ws.WSACleanup() == ws.SOCKET_ERROR
    assert ws.WSAGetLastError() == codes.WSANOTINITIALISED
    assert ws.LIBRARY.upcalls.open_sockets == 0


# -- (a) IP multicast ------------------------------------------------------------------------------


def multicast_socket(port: int, ttl: int = 8, loopback: bool = True) -> int:
    s = ws.WSASocket(c.AF_INET, c.SOCK_DGRAM, 0, None, 0, NONROOTED)
    assert s != ws.INVALID_SOCKET, ws.WSAGetLastError()
    assert ws.bind(s, inet("0.0.0.0", port), 16) == 0
    count = ws.Cell()
    scope, loop = ctypes.c_int(ttl), ctypes.c_int(loopback)
    for code, value in ((c.SIO_MULTICAST_SCOPE, scope), (c.SIO_MULTIPOINT_LOOPBACK, loop)):
        assert ws.WSAIoctl(s, code, ctypes.byref(value), 4, None, 0, count) == 0
    return s


def multicast_join(s: int, group: bytes, flags: int) -> int:
    return ws.WSAJoinLeaf(s, group, len(group), None, None, None, None, flags)


@pytest.fixture
def group() -> bytes:
    port = 21000 + os.getpid() % 9000
    return inet(f"239.192.{os.getpid() >> 8 & 255}.{os.getpid() & 255}", port)


def test_ip_multicast_from_a_sender_only_to_a_receiver_only_on_the_sockets_that_joined(
    group: bytes,
) -> None:
    (port,) = struct.unpack("!H", group[2:4])
    receiver, sender = multicast_socket(port), multicast_socket(0)
    assert multicast_join(receiver, group, c.JL_RECEIVER_ONLY) == receiver
    assert multicast_join(sender, group, c.JL_SENDER_ONLY) == sender
    assert ws.send(sender, b"to the group", 12, 0) == 12
    memory = bytearray(64)
    origin, length = bytearray(16), ws.Cell(16)
    assert ws.recvfrom(receiver, memory, 64, 0, origin, length) == 12
    assert (bytes(memory[:12]), length.value) == (b"to the group", 16)
    mine, size = bytearray(16), ws.Cell(16)
    assert ws.getsockname(sender, mine, size) == 0
    assert origin[2:4] == mine[2:4], "the true sender's port, not the session's"
    assert ws.send(sender, b"again", 5, 0) == 5
    assert ws.recv(receiver, memory, 64, 0) == 5
    assert ws.closesocket(sender) == 0
    assert ws.closesocket(receiver) == 0
    assert ws.closesocket(receiver) == ws.SOCKET_ERROR
    assert ws.WSAGetLastError() == codes.WSAENOTSOCK, "one close was enough"


def test_ip_multicast_a_second_join_of_the_same_socket_is_wsaeisconn(group: bytes) -> None:
    s = multicast_socket(0)
    assert multicast_join(s, group, c.JL_SENDER_ONLY) == s
    other = inet("239.192.255.7", 5150)
    for name in (group, other):
        assert multicast_join(s, name, c.JL_SENDER_ONLY) == ws.INVALID_SOCKET
        assert ws.WSAGetLastError() == codes.WSAEISCONN == 10056
    assert ws.closesocket(s) == 0


def test_ip_multicast_a_receiver_without_loopback_hears_nothing_of_its_own_host(
    group: bytes,
) -> None:
    (port,) = struct.unpack("!H", group[2:4])
    reuse, sockets = ctypes.c_int(1), []
    for loopback in (True, False):
        s = ws.WSASocket(c.AF_INET, c.SOCK_DGRAM, 0, None, 0, NONROOTED)
        assert ws.setsockopt(s, c.SOL_SOCKET, c.SO_REUSEADDR, ctypes.byref(reuse), 4) == 0
        assert ws.bind(s, inet("0.0.0.0", port), 16) == 0
        value = ctypes.c_int(loopback)
        loop = c.SIO_MULTIPOINT_LOOPBACK
        assert ws.WSAIoctl(s, loop, ctypes.byref(value), 4, None, 0, None) == 0
        assert multicast_join(s, group, c.JL_RECEIVER_ONLY) == s
        sockets.append(s)
    hearing, deaf = sockets
    sender = multicast_socket(0)
    assert multicast_join(sender, group, c.JL_SENDER_ONLY) == sender
    assert ws.send(sender, b"x", 1, 0) == 1
    assert ws.recv(hearing, bytearray(8), 8, 0) == 1
    nonblocking = ws.Cell(1)
    assert ws.ioctlsocket(deaf, c.FIONBIO, nonblocking) == 0
    assert ws.recv(deaf, bytearray(8), 8, 0) == ws.SOCKET_ERROR
    assert ws.WSAGetLastError() == codes.WSAEWOULDBLOCK
    for s in (*sockets, sender):
        assert ws.closesocket(s) == 0


# -- (b) a rooted session --------------------------------------------------------------------------


def rooted_protocol(family: int) -> ProtocolInfo:
    """The entry such a program looks for: rooted in both planes."""
    listed = ws.Cell()
    count = ws.WSAEnumProtocols(None, listed, None)
    assert count == len(listed.value) > 0
    found: ProtocolInfo = next(
        one
        for one in listed.value
        if one.has(c.XP1_SUPPORT_MULTIPOINT)
        and one.has(c.XP1_MULTIPOINT_CONTROL_PLANE | c.XP1_MULTIPOINT_DATA_PLANE)
        and one.address_family == family
    )
    return found


class Leaf(threading.Thread):
    """Binds, listens, accepts and receives until the end."""

    def __init__(self, info: ProtocolInfo, address: bytes) -> None:
        super().__init__(daemon=True)
        self.info = info
        self.address = address
        self.received: list[bytes] = []
        self.problem: Any = None
        self.listening = threading.Event()

    def run(self) -> None:
        try:
            self.serve()
        except BaseException as error:
            self.problem = error
            self.listening.set()

    def serve(self) -> None:
        info = c.FROM_PROTOCOL_INFO
        s = ws.WSASocket(info, info, info, self.info, 0, LEAF)
        assert s != ws.INVALID_SOCKET, ws.WSAGetLastError()
        assert ws.bind(s, self.address, len(self.address)) == 0, ws.WSAGetLastError()
        assert ws.listen(s, 1) == 0
        name, length = bytearray(300), ws.Cell(300)
        assert ws.getsockname(s, name, length) == 0
        self.address = bytes(name[: length.value])
        self.listening.set()
        peer, size = bytearray(300), ws.Cell(300)
        member = ws.WSAAccept(s, peer, size, None, 0)
        assert member not in (s, ws.INVALID_SOCKET), ws.WSAGetLastError()
        memory = bytearray(64)
        while (count := ws.recv(member, memory, len(memory), 0)) > 0:
            self.received.append(bytes(memory[:count]))
        assert count == 0, ws.WSAGetLastError()
        assert ws.closesocket(member) == 0
        assert ws.closesocket(s) == 0


@pytest.mark.parametrize("family", [c.AF_INET, AF_MEMORY], ids=["jl", "mem"])
def test_a_root_adds_one_leaf_after_another_and_sends_to_all(family: int) -> None:
    info = rooted_protocol(family)

    def address(number: int) -> bytes:
        if family == c.AF_INET:
            return inet("127.0.0.1", 0)
        return struct.pack("=H", family) + f"sample-{os.getpid()}-{number}".encode() + b"\0"

    leaves = [Leaf(info, address(number)) for number in range(3)]
    for leaf in leaves:
        leaf.start()
        assert leaf.listening.wait(BOUND_S)
        assert leaf.problem is None
    anything = c.FROM_PROTOCOL_INFO
    root = ws.WSASocket(anything, anything, anything, info, 0, ROOT)
    assert ws.bind(root, address(99), len(address(99))) == 0, ws.WSAGetLastError()
    handles = []
    for leaf in leaves:
        nothing = (None,) * 4
        made = ws.WSAJoinLeaf(root, leaf.address, len(leaf.address), *nothing, c.JL_SENDER_ONLY)
        assert made not in (root, ws.INVALID_SOCKET), ws.WSAGetLastError()
        handles.append(made)
    assert len(set(handles)) == 3
    messages = [f"message {number}".encode() for number in range(5)]
    for message in messages:
        assert ws.send(root, message, len(message), 0) == len(message)
    for handle in handles:
        assert ws.closesocket(handle) == 0
    assert ws.closesocket(root) == 0
    for leaf in leaves:
        leaf.join(BOUND_S)
        assert not leaf.is_alive()
        assert leaf.problem is None
        assert leaf.received == messages


def test_a_leaf_that_joins_by_address_structure_of_c_meets_the_same_root() -> None:
    """The address as ``struct sockaddr_in``, its parts in network order, as programs build it."""
    info = rooted_protocol(c.AF_INET)
    leaf = Leaf(info, inet("127.0.0.1", 0))
    leaf.start()
    assert leaf.listening.wait(BOUND_S)
    name = sockaddr_in()
    name.sin_family = c.AF_INET
    name.sin_port = struct.unpack("=H", leaf.address[2:4])[0]
    name.sin_addr.s_addr = struct.unpack("=I", leaf.address[4:8])[0]
    root = ws.WSASocket(c.AF_INET, c.SOCK_SEQPACKET, c.IPPROTO_TCP, None, 0, ROOT)
    assert ws.bind(root, inet("127.0.0.1", 0), 16) == 0
    nothing = (None,) * 4
    made = ws.WSAJoinLeaf(root, ctypes.byref(name), 16, *nothing, c.JL_SENDER_ONLY)
    assert made != ws.INVALID_SOCKET, ws.WSAGetLastError()
    assert ws.send(root, b"one", 3, 0) == 3
    assert ws.closesocket(made) == ws.closesocket(root) == 0
    leaf.join(BOUND_S)
    assert (leaf.is_alive(), leaf.problem, leaf.received) == (False, None, [b"one"])
