"""One started provider per scheme, with calls that say what went wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from joinleaf.providers.ip_multicast import IpMulticastProvider
from joinleaf.providers.memory import MemoryProvider
from joinleaf.providers.rooted import RootedProvider
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.provider import Settings
from joinleaf.values import Address
from joinleaf.winsock import INVALID_SOCKET, SOCKET_ERROR, Cell, ServiceProvider, start
from joinleaf.winsock.types import WSANETWORKEVENTS

BOUND = 5.0
ROOT = c.WSA_FLAG_MULTIPOINT_C_ROOT | c.WSA_FLAG_MULTIPOINT_D_ROOT
LEAF = c.WSA_FLAG_MULTIPOINT_C_LEAF | c.WSA_FLAG_MULTIPOINT_D_LEAF


class Desk:
    """A provider and the client's things.

    Attributes:
        provider: The started provider.
        seam: What carries its data.
        objects: Events, windows, hooks.
    """

    def __init__(self, scheme: str, seam: Any, settings: Settings | None = None) -> None:
        self.scheme = scheme
        self.seam = seam
        self.provider: ServiceProvider = start(scheme, provider=seam, settings=settings)
        self.objects = self.provider.upcalls.objects
        self.upcalls = self.provider.upcalls
        self._names = iter(range(1000))

    def call(self, name: str, *args: Any) -> int:
        """A call that has to succeed; gives its result."""
        error = Cell(0)
        result: int = getattr(self.provider, name)(*args, error)
        assert error.value == 0, f"{name}: {codes.name_of(error.value)}"
        assert result not in (SOCKET_ERROR, INVALID_SOCKET)
        return result

    def code(self, name: str, *args: Any) -> int:
        """What a call that has to fail writes to lpErrno."""
        error = Cell(0)
        result = getattr(self.provider, name)(*args, error)
        assert error.value, f"{name} succeeded with {result}"
        return int(error.value)

    def socket(self, flags: int) -> int:
        return self.call("WSPSocket", -1, -1, -1, None, 0, flags)

    def root(self, flags: int = 0) -> int:
        s = self.socket(ROOT | flags)
        self.call("WSPBind", s, self.own_name(), 0)
        self.call("WSPListen", s, 8)
        return s

    def leaf(self, flags: int = 0) -> int:
        return self.socket(LEAF | flags)

    def listener(self) -> int:
        s = self.leaf()
        self.call("WSPBind", s, self.own_name(), 0)
        self.call("WSPListen", s, 8)
        return s

    def own_name(self) -> Address:
        if self.scheme == "mem":
            return Address(f"name {next(self._names)}")
        return Address("127.0.0.1", 0)

    def name(self, s: int) -> bytes:
        place, length = bytearray(300), Cell(300)
        self.call("WSPGetSockName", s, place, length)
        return bytes(place[: length.value])

    def join(self, s: int, to: bytes, callee: Any = None, flags: int = c.JL_BOTH) -> int:
        return self.call("WSPJoinLeaf", s, to, len(to), None, callee, None, None, flags)

    def refused(self, s: int, to: bytes, callee: Any = None, flags: int = c.JL_BOTH) -> int:
        return self.code("WSPJoinLeaf", s, to, len(to), None, callee, None, None, flags)

    def nonblocking(self, s: int) -> None:
        one = (1).to_bytes(4, "little")
        self.call("WSPIoctl", s, c.FIONBIO, one, 4, None, 0, None, None, None, None)

    def accept(self, s: int, condition: Any = None) -> int:
        return self.call("WSPAccept", s, None, None, condition, 0)

    def pair(self, flags: int = 0) -> tuple[int, int, int]:
        """A root, a leaf that has joined it, and the root's side of that leg."""
        root, leaf = self.root(flags), self.leaf(flags)
        legs: list[int] = []
        thread = threading.Thread(target=lambda: legs.append(self.accept(root)))
        thread.start()
        assert self.join(leaf, self.name(root)) == leaf
        thread.join(BOUND)
        return root, leaf, legs[0]

    def send(self, s: int, data: bytes) -> int:
        count = Cell()
        self.call("WSPSend", s, [data], 1, count, 0, None, None, None)
        return int(count.value)

    def receive(self, s: int, size: int = 100) -> bytes:
        memory, count, flags = bytearray(size), Cell(), Cell()
        self.call("WSPRecv", s, [memory], 1, count, flags, None, None, None)
        return bytes(memory[: count.value])

    def receive_code(self, s: int) -> int:
        return self.code("WSPRecv", s, [bytearray(9)], 1, Cell(), Cell(), None, None, None)

    def watch(self, s: int, mask: int = c.FD_ALL_EVENTS) -> int:
        event: int = self.objects.create_event()
        self.call("WSPEventSelect", s, event, mask)
        return event

    def record(self, s: int, event: int = 0) -> dict[int, int]:
        """The event record of a socket: bit and code."""
        cells = WSANETWORKEVENTS()
        self.call("WSPEnumNetworkEvents", s, event, cells)
        bits = range(c.FD_MAX_EVENTS)
        return {1 << n: cells.iErrorCode[n] for n in bits if cells.lNetworkEvents >> n & 1}

    def await_event(self, s: int, event: int, bit: int) -> int:
        """Wait for one event of one socket; gives its code."""
        while True:
            assert self.objects.wait(event, BOUND), f"{bit:#x} was not indicated"
            found = self.record(s, event)
            if bit in found:
                return found[bit]


SEAMS: dict[str, Callable[[], Any]] = {
    "mem": MemoryProvider,
    "jl": RootedProvider,
    "udp": IpMulticastProvider,
}


@pytest.fixture(params=["mem", "jl"])
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    """A provider with rooted sessions."""
    made = Desk(request.param, SEAMS[request.param]())
    yield made
    made.call("WSPCleanup")
    assert made.upcalls.open_sockets == 0


@pytest.fixture
def mem() -> Iterator[Desk]:
    """The memory provider, whose faults a test can command."""
    made = Desk("mem", MemoryProvider())
    yield made
    made.call("WSPCleanup")
    assert made.seam.is_empty


@pytest.fixture
def udp() -> Iterator[Desk]:
    """IP multicast on loopback."""
    made = Desk("udp", IpMulticastProvider(), Settings(interface="lo"))
    yield made
    made.call("WSPCleanup")
