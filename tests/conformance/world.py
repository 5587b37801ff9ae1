"""What the conformance tests see of the world: started providers, and peers that do as told.

A ``World`` is one provider started through ``joinleaf.winsock.start``, with spied upcalls. Its
calls check by themselves what every call promises: a success leaves ``*lpErrno`` alone, a failure
writes it. A peer that listens and has not called WSPAccept yet is the "lossy link" of the clauses:
it answers late, never, or with a refusal, as the test likes, whoever carries the request.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from joinleaf import winsock
from joinleaf.errors import SpiError
from joinleaf.providers.ip_multicast import IpMulticastProvider
from joinleaf.providers.memory import AF_MEMORY, MemoryProvider
from joinleaf.providers.rooted import RootedProvider
from joinleaf.providers.source_specific import SourceSpecificProvider
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.provider import Endpoint, Roles, Settings
from joinleaf.values import SessionAddress
from joinleaf.winsock.declarations import PROVIDER_FUNCTIONS
from joinleaf.winsock.memory import Cell, Wsabuf
from joinleaf.winsock.objects import Objects
from joinleaf.winsock.types import (
    FLOWSPEC,
    INVALID_SOCKET,
    QOS,
    SOCKET_ERROR,
    WSANETWORKEVENTS,
    sockaddr_in,
    timeval,
)
from joinleaf.winsock.upcalls import Upcalls

__all__ = [
    "GUARD",
    "NONROOTED",
    "PATIENCE",
    "ROOTED",
    "SENTINEL",
    "SHORT",
    "Condition",
    "FragileProvider",
    "Pair",
    "RefusedError",
    "Starter",
    "Task",
    "Watch",
    "World",
    "flow",
    "inet",
    "inet6",
    "memberships",
    "memory_name",
    "qos",
]

T = TypeVar("T")

SENTINEL: Final = 0x55AA55AA
GUARD: Final = b"\xa5"
PATIENCE: Final = 4.0
"""Seconds that anything may take which must happen."""
SHORT: Final = 0.05
"""Seconds in which what must not happen gets its chance to."""

ROOTED: Final = ("mem", "jl")
NONROOTED: Final = ("mem", "udp", "ssm")

_LOOPBACK: Final = "127.0.0.1"
_RETURNS: Final = {name: one.returns for name, one in PROVIDER_FUNCTIONS.items()}
_FAILURES: Final = {"SOCKET": INVALID_SOCKET, "BOOL": 0}
_numbers = itertools.count(os.getpid() % 199 * 64)


class RefusedError(Exception):
    """A WSP* call failed.

    Attributes:
        code: What it wrote to ``*lpErrno``.
    """

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"{name}: {codes.name_of(code)} {code}")
        self.code = code


class Condition:
    """A condition function of WSPAccept that notes what it is shown.

    Args:
        verdict: CF_ACCEPT, CF_REJECT or CF_DEFER.
        data: Callee data.
        also: Called with the QOS the function is shown, which it may change.

    Attributes:
        caller: Address of the asker.
        data: The caller data; None if none came.
        qos: A copy of the flow specifications; None if none came.
        specific: The provider-specific part.
        called: Address that was asked.
        calls: How often it ran.
        room: Size of the buffer for callee data.
        context: dwCallbackData.
    """

    def __init__(
        self,
        verdict: int = c.CF_ACCEPT,
        data: bytes = b"",
        also: Callable[[Any], None] | None = None,
    ) -> None:
        self._verdict = verdict
        self._answer = data
        self._also = also
        self.caller = b""
        self.data: bytes | None = None
        self.qos: QOS | None = None
        self.specific = b""
        self.called = b""
        self.calls = 0
        self.room = 0
        self.context: Any = None

    def __call__(
        self,
        caller: Any,
        data: Any,
        sqos: Any,
        gqos: Any,
        called: Any,
        answer: Any,
        group: Any,
        context: Any,
    ) -> int:
        self.calls += 1
        self.caller, self.called, self.context = _bytes_of(caller), _bytes_of(called), context
        self.data = None if data is None else _bytes_of(data)
        assert gqos is None, "lpGQOS is reserved"
        if sqos is not None:
            self.qos = QOS.from_buffer_copy(sqos)
            self.specific = _bytes_of(sqos.ProviderSpecific)
        if self._also is not None:
            self._also(sqos)
        self.room = answer.len
        ctypes.memmove(answer.buf, self._answer, len(self._answer))
        answer.len = len(self._answer)
        return self._verdict


def _bytes_of(buffer: Any) -> bytes:
    return ctypes.string_at(buffer.buf, buffer.len) if buffer.len else b""


class Task(Generic[T]):
    """A call in a thread of its own."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="conformance task", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._results.append(self._call())
        except BaseException as error:
            self._error = error

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def lasts(self, seconds: float = SHORT) -> bool:
        """Whether the call is still in progress after so many seconds."""
        self._thread.join(seconds)
        return self._thread.is_alive()

    def result(self) -> T:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the call does not return"
        if self._error is not None:
            raise self._error
        return self._results[0]

    def code(self) -> int:
        """Number of the error it failed with."""
        try:
            result = self.result()
        except RefusedError as error:
            return error.code
        raise AssertionError(f"the call was expected to fail, and returned {result}")


# -- addresses and specifications -----------------------------------------------------------------


def inet(host: str, port: int) -> bytes:
    """sockaddr_in."""
    return struct.pack("=H", c.AF_INET) + struct.pack("!H4s8x", port, socket.inet_aton(host))


def inet6(host: str, port: int) -> bytes:
    """sockaddr_in6."""
    packed = socket.inet_pton(socket.AF_INET6, host)
    return struct.pack("=H", c.AF_INET6) + struct.pack("!HI16s", port, 0, packed) + bytes(4)


def memberships(name: bytes) -> int:
    """How many of this host's interfaces are members of a group, as the kernel tells it.

    Asked for one group, since other programs of the host have groups of their own.
    """
    group = name[4:8][::-1].hex().upper()
    path = Path("/proc/net/igmp")
    lines = path.read_text(encoding="ascii").splitlines() if path.exists() else []
    return sum(line.split()[0] == group for line in lines)


def memory_name(name: str) -> bytes:
    """sockaddr of the private family of ``mem``."""
    return (struct.pack("=H", AF_MEMORY) + name.encode()).ljust(4, b"\0") + b"\0"


def flow(rate: int = 0xFFFFFFFF, service: int = c.SERVICETYPE_BESTEFFORT, **more: int) -> FLOWSPEC:
    """A FLOWSPEC that says nothing but this."""
    members = dict.fromkeys(
        (
            "TokenRate",
            "TokenBucketSize",
            "PeakBandwidth",
            "Latency",
            "DelayVariation",
            "MaxSduSize",
            "MinimumPolicedSize",
        ),
        0xFFFFFFFF,
    )
    return FLOWSPEC(**(members | {"TokenRate": rate, "ServiceType": service} | more))


def qos(
    sending: FLOWSPEC | None = None, receiving: FLOWSPEC | None = None, specific: bytes = b""
) -> QOS:
    """A QOS; its provider-specific memory lives as long as it does."""
    structure = QOS(sending or flow(), receiving or flow())
    if specific:
        memory = Wsabuf(bytearray(specific))
        structure.ProviderSpecific.len = memory.len
        structure.ProviderSpecific.buf = memory.buf
        structure.memory = memory
    return structure


# -- providers that can be broken -----------------------------------------------------------------


class FragileProvider:
    """A provider whose network can be taken away (clause 33), and opened with options.

    Args:
        scheme: Whose it is.
        options: A session address whose options every endpoint is opened with.
    """

    def __init__(self, scheme: str, options: str | None = None) -> None:
        self.scheme = scheme
        self.down = False
        self.memory = MemoryProvider() if scheme == "mem" else None
        self._address = SessionAddress.parse(options) if options else None
        kinds = {"udp": IpMulticastProvider, "ssm": SourceSpecificProvider, "jl": RootedProvider}
        self._lower: Any = self.memory or kinds[scheme]()

    def check_up(self) -> None:
        """What the WSP* face asks before every call."""
        if self.down:
            raise SpiError(codes.WSAENETDOWN, "the network is down")

    def protocols(self) -> Any:
        return self._lower.protocols()

    def select(self, address: SessionAddress) -> ProtocolInfo:
        found: ProtocolInfo = self._lower.select(address)
        return found

    def open(
        self,
        info: ProtocolInfo,
        roles: Roles,
        settings: Settings | None = None,
        *,
        address: SessionAddress | None = None,
    ) -> Endpoint:
        made: Endpoint = self._lower.open(
            info, roles, settings or Settings(), address=address or self._address
        )
        return made


# -- events ---------------------------------------------------------------------------------------


class Watch:
    """The events of one socket, by WSPEnumNetworkEvents. ``World.watch`` registers it first.

    Args:
        world: Whose socket it is.
        s: The socket.
        event: Handle of the event object it is registered with, or has inherited.

    Attributes:
        event: Handle of the event object.
        seen: Every indication enumerated so far, in order: bit and code.
    """

    def __init__(self, world: World, s: int, event: int) -> None:
        self._world = world
        self._s = s
        self.event = event
        self.seen: list[tuple[int, int]] = []

    def enumerate(self, *, reset: bool = True) -> dict[int, int]:
        """The record, bit to code; the event object is reset."""
        cells = WSANETWORKEVENTS()
        for index in range(c.FD_MAX_EVENTS):
            cells.iErrorCode[index] = SENTINEL
        event = self.event if reset else None
        self._world.call("WSPEnumNetworkEvents", self._s, event, cells)
        found = {}
        for index in range(c.FD_MAX_EVENTS):
            if cells.lNetworkEvents >> index & 1:
                found[1 << index] = cells.iErrorCode[index]
            else:
                assert cells.iErrorCode[index] == SENTINEL, "a cell of an unset bit was written"
        self.seen += found.items()
        return found

    def wait(self, bit: int) -> int:
        """Wait until the bit is indicated; gives its code."""
        deadline = time.monotonic() + PATIENCE
        while True:
            for number, (one, code) in enumerate(self.seen):
                if one == bit:
                    del self.seen[number]
                    return code
            left = deadline - time.monotonic()
            assert left > 0, f"event {bit:#x} was not indicated"
            self._world.objects.wait(self.event, left)
            self.enumerate()

    def silent(self, bit: int, seconds: float = SHORT) -> bool:
        """Whether the bit is not indicated within so many seconds."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._world.objects.wait(self.event, left)
            self.enumerate()
            if any(one == bit for one, _ in self.seen):
                return False
        return not any(one == bit for one, _ in self.seen)

    @property
    def is_set(self) -> bool:
        return self._world.objects.is_set(self.event)


@dataclass(frozen=True, slots=True)
class Pair:
    """A rooted session of one root and one leaf.

    Attributes:
        root: The c_root.
        leg: The root's side of the leg.
        leaf: The member.
    """

    root: int
    leg: int
    leaf: int


# -- the world ------------------------------------------------------------------------------------


@dataclass(slots=True)
class World:
    """One started provider. Use ``World.start``."""

    scheme: str
    seam: FragileProvider
    upcalls: Upcalls
    provider: Any
    rooted: bool
    opened: list[int] = field(default_factory=list)
    flags: int = 0
    """What the last WSPRecv wrote to ``*lpFlags``."""

    @classmethod
    def start(
        cls,
        scheme: str,
        *,
        rooted: bool | None = None,
        data_rooted: bool | None = None,
        settings: Settings | None = None,
        options: str | None = None,
        add_flags: int = 0,
        remove_flags: int = 0,
        seam: FragileProvider | None = None,
        **more: Any,
    ) -> World:
        """Start a provider of a scheme.

        Args:
            scheme: mem, udp, ssm or jl.
            rooted: Whether the control plane is; as the scheme has it if not given.
            data_rooted: Whether the data plane is; as the control plane if not given.
            settings: What endpoints are opened with.
            options: Options of a session address (a source, say).
            add_flags: XP1_* bits the entry gets besides.
            remove_flags: XP1_* bits the entry loses.
            seam: Share another world's provider.
            more: For ``winsock.start``.
        """
        rooted = scheme == "jl" or (scheme == "mem" if rooted is None else rooted)
        if scheme == "ssm" and options is None:
            options = f"ssm://{_LOOPBACK}@232.1.1.1:5000"
        data_rooted = (scheme == "ssm" or rooted) if data_rooted is None else data_rooted
        seam = seam or FragileProvider(scheme, options)
        entry = next(
            one
            for one in seam.protocols()
            if one.control_plane_rooted is rooted
            and one.data_plane_rooted is data_rooted
            and one.address_family in (c.AF_INET, AF_MEMORY)
        )
        flags = (entry.service_flags | add_flags) & ~remove_flags
        if flags != entry.service_flags:
            entry = replace(entry, service_flags=flags)
        if settings is None:
            settings = Settings(interface=_LOOPBACK if scheme in ("udp", "ssm") else None)
        upcalls = Upcalls()
        provider = winsock.start(
            scheme, upcalls=upcalls, provider=seam, settings=settings, entry=entry, **more
        )
        return cls(scheme, seam, upcalls, provider, rooted)

    @property
    def objects(self) -> Objects:
        return self.upcalls.objects

    @property
    def faults(self) -> Any:
        """Faults of the memory provider."""
        assert self.seam.memory is not None
        return self.seam.memory.faults

    def end(self) -> None:
        """Close what the test left open, and the provider."""
        self.seam.down = False
        with contextlib.suppress(RefusedError):
            while True:  # once for every WSPStartup
                self.call("WSPCleanup")
        assert self.upcalls.open_sockets == 0, "handles have leaked"

    # Calls

    def call(self, name: str, *args: Any) -> int:
        """One WSP* call; a sentinel proves what happens to ``*lpErrno``.

        Raises:
            RefusedError: It failed.
        """
        cell = Cell(SENTINEL)
        result: int = getattr(self.provider, name)(*args, cell)
        if result == _FAILURES.get(_RETURNS[name], SOCKET_ERROR):
            assert cell.value != SENTINEL, f"{name} failed without a number"
            raise RefusedError(name, cell.value)
        assert cell.value == SENTINEL, f"{name} succeeded and wrote {cell.value}"
        return result

    def code(self, name: str, *args: Any) -> int:
        """Number of the error a call fails with; 0 if it does not."""
        try:
            self.call(name, *args)
        except RefusedError as error:
            return error.code
        return 0

    # Sockets

    def socket(self, flags: int) -> int:
        s = self.call("WSPSocket", 0, 0, 0, None, 0, flags)
        self.opened.append(s)
        return s

    def root(self, *, listening: bool = True, bound: bool = True) -> int:
        """A c_root and, where the data plane is rooted, d_root."""
        d_flag = (
            c.WSA_FLAG_MULTIPOINT_D_ROOT
            if self.provider.info.data_plane_rooted
            else c.WSA_FLAG_MULTIPOINT_D_LEAF
        )
        s = self.socket(c.WSA_FLAG_MULTIPOINT_C_ROOT | d_flag)
        if bound:
            self.bind(s)
        if listening:
            self.call("WSPListen", s, c.SOMAXCONN)
        return s

    def leaf(self) -> int:
        """A c_leaf and d_leaf, unbound."""
        return self.socket(c.WSA_FLAG_MULTIPOINT_C_LEAF | c.WSA_FLAG_MULTIPOINT_D_LEAF)

    def speaker(self) -> int:
        """A c_leaf whose data reach the others: the d_root where there is one."""
        if not self.provider.info.data_plane_rooted:
            return self.leaf()
        return self.socket(c.WSA_FLAG_MULTIPOINT_C_LEAF | c.WSA_FLAG_MULTIPOINT_D_ROOT)

    def listener(self, backlog: int = c.SOMAXCONN) -> int:
        """A c_leaf that can be invited."""
        s = self.leaf()
        self.bind(s)
        self.call("WSPListen", s, backlog)
        return s

    def bind(self, s: int, name: bytes | None = None) -> bytes:
        name = self.nobody_bound() if name is None else name
        self.call("WSPBind", s, name, len(name))
        return name

    def nobody_bound(self) -> bytes:
        """An address to be bound to that nobody has."""
        if self.scheme == "mem":
            return memory_name(f"node-{next(_numbers)}")
        return inet(_LOOPBACK, 0)

    def close(self, s: int) -> None:
        self.call("WSPCloseSocket", s)

    def nonblocking(self, *sockets: int) -> None:
        for s in sockets:
            self.fionbio(s, 1)

    def fionbio(self, s: int, on: int) -> None:
        self.call(
            "WSPIoctl", s, c.FIONBIO, struct.pack("=I", on), 4, None, 0, Cell(), None, None, None
        )

    # Names

    def local(self, s: int) -> bytes:
        return self._name("WSPGetSockName", s)

    def peer(self, s: int) -> bytes:
        return self._name("WSPGetPeerName", s)

    def _name(self, call: str, s: int) -> bytes:
        memory, length = bytearray(300), Cell(300)
        self.call(call, s, memory, length)
        return bytes(memory[: length.value])

    def session(self) -> bytes:
        """A nonrooted session nobody is in."""
        number = next(_numbers)
        if self.scheme == "mem":
            return memory_name(f"group-{number}")
        first = "239.192" if self.scheme == "udp" else "232.7"
        return inet(f"{first}.{number >> 8 & 255}.{number & 255}", 20000 + number % 20000)

    def nobody(self) -> bytes:
        """An address of the family at which nobody listens."""
        if self.scheme == "mem":
            return memory_name(f"nobody-{next(_numbers)}")
        with socket.socket() as probe:
            probe.bind((_LOOPBACK, 0))
            return inet(_LOOPBACK, probe.getsockname()[1])

    def unreachable(self) -> bytes:
        """An address no route leads to: TCP goes to no broadcast address."""
        if self.scheme == "jl":
            return inet("255.255.255.255", 7400)
        name = f"far-{next(_numbers)}"
        self.faults.set_route(_Named(name), exists=False)
        return memory_name(name)

    def any_address(self) -> bytes:
        return memory_name("") if self.scheme == "mem" else inet("0.0.0.0", 5000)

    # Joining

    def join(
        self,
        s: int,
        name: Any,
        *,
        namelen: int | None = None,
        caller: Any = None,
        callee: Any = None,
        sqos: Any = None,
        gqos: Any = None,
        flags: int = c.JL_BOTH,
    ) -> int:
        length = len(name) if namelen is None else namelen
        made = self.call("WSPJoinLeaf", s, name, length, caller, callee, sqos, gqos, flags)
        assert made != INVALID_SOCKET
        return made

    def refusal(self, s: int, name: Any, **how: Any) -> int:
        """Number of the error a join fails with."""
        try:
            made = self.join(s, name, **how)
        except RefusedError as error:
            return error.code
        raise AssertionError(f"the join was expected to fail, and returned {made:#x}")

    def accept(self, s: int, condition: Any = None, data: int = 0) -> int:
        return self.call("WSPAccept", s, None, None, condition, data)

    def admit(self, root: int, leaf: int, condition: Any = None, **how: Any) -> Pair:
        """A leaf asks on its own."""
        name = self.local(root)
        asking = Task(lambda: self.join(leaf, name, **how))
        leg = self.accept(root, condition)
        assert asking.result() == leaf
        return Pair(root, leg, leaf)

    def invite(self, root: int, listener: int, condition: Any = None, **how: Any) -> Pair:
        """The root invites a listening leaf."""
        name = self.local(listener)
        asking = Task(lambda: self.join(root, name, **how))
        member = self.accept(listener, condition)
        return Pair(root, asking.result(), member)

    def pair(self, **how: Any) -> Pair:
        """A root with one leaf that asked."""
        return self.admit(self.root(), self.leaf(), **how)

    def member(self, name: bytes, *, speaks: bool = False, flags: int = c.JL_BOTH) -> int:
        """A member of a nonrooted session."""
        s = self.speaker() if speaks else self.leaf()
        assert self.join(s, name, flags=flags) == s
        return s

    def leaf_asking_as_root(self, name: bytes) -> int:
        """Another root's pending invitation of a leaf; gives the new descriptor."""
        root = self.root()
        self.nonblocking(root)
        return self.join(root, name)

    def wait_for_leaves(self, root: int) -> None:
        """Until a root has somebody to send to."""
        assert self.call("WSPSelect", 0, None, [root], None, PATIENCE) == 1

    # Data

    def send(self, s: int, data: bytes) -> int:
        sent = Cell(SENTINEL)
        self.call("WSPSend", s, [Wsabuf(bytearray(data))], 1, sent, 0, None, None, None)
        count: int = sent.value
        return count

    def receive(self, s: int, size: int = 65536) -> bytes:
        memory = Wsabuf(bytearray(size))
        count, flags = Cell(SENTINEL), Cell(0)
        self.call("WSPRecv", s, [memory], 1, count, flags, None, None, None)
        self.flags = flags.value
        assert memory.memory is not None
        return bytes(memory.memory[: count.value])

    def receive_from(self, s: int, size: int = 65536) -> tuple[bytes, bytes]:
        memory = Wsabuf(bytearray(size))
        count, flags, name, length = Cell(SENTINEL), Cell(0), bytearray(300), Cell(300)
        self.call("WSPRecvFrom", s, [memory], 1, count, flags, name, length, None, None, None)
        assert memory.memory is not None
        return bytes(memory.memory[: count.value]), bytes(name[: length.value])

    def send_to(self, s: int, data: bytes, name: bytes) -> None:
        buffers = [Wsabuf(bytearray(data))]
        self.call("WSPSendTo", s, buffers, 1, Cell(), 0, name, len(name), None, None, None)

    def receive_code(self, s: int) -> int:
        try:
            data = self.receive(s)
        except RefusedError as error:
            return error.code
        raise AssertionError(f"nothing was expected, and {data!r} arrived")

    def hears_nothing(self, s: int) -> bool:
        """Whether a nonblocking socket has nothing to read, now and in a little while."""
        watch = self.watch(s, c.FD_READ)
        quiet = watch.silent(c.FD_READ)
        self.call("WSPEventSelect", s, None, 0)
        return quiet

    # Events, options, specifications

    def watch(self, s: int, mask: int = c.FD_ALL_EVENTS, event: int | None = None) -> Watch:
        if event is None:
            event = self.objects.create_event()
        self.call("WSPEventSelect", s, event, mask)
        return Watch(self, s, event)

    def option(self, s: int, option: int, size: int = 4) -> int:
        memory, length = bytearray(size), Cell(size)
        self.call("WSPGetSockOpt", s, c.SOL_SOCKET, option, memory, length)
        return int.from_bytes(memory[: length.value], "little")

    def set_option(self, s: int, option: int, value: int, size: int = 4) -> None:
        raw = value.to_bytes(size, "little")
        self.call("WSPSetSockOpt", s, c.SOL_SOCKET, option, raw, size)

    def agreed(self, s: int) -> QOS:
        """SIO_GET_QOS."""
        place = qos()
        self.call(
            "WSPIoctl", s, c.SIO_GET_QOS, None, 0, place, _QOS_BYTES, Cell(), None, None, None
        )
        return place

    def preset(self, s: int, value: QOS) -> None:
        """SIO_SET_QOS."""
        self.call(
            "WSPIoctl", s, c.SIO_SET_QOS, value, _QOS_BYTES, None, 0, Cell(), None, None, None
        )

    def select(self, *sockets: int) -> tuple[list[int], list[int], list[int]]:
        """WSPSelect with these in all three sets, without waiting."""
        reading, writing, failing = list(sockets), list(sockets), list(sockets)
        count = self.call("WSPSelect", 0, reading, writing, failing, timeval(0, 0))
        assert count == len(reading) + len(writing) + len(failing)
        return reading, writing, failing

    def hook(self, function: Callable[[Any], Any] | None) -> None:
        """The blocking hook of the calling thread."""
        self.objects.thread().hook = function

    @contextlib.contextmanager
    def hooked(self, function: Callable[[Any], Any]) -> Iterator[None]:
        self.hook(function)
        try:
            yield
        finally:
            self.hook(None)


Starter = Callable[..., World]
"""``World.start``, with an end; a fixture."""


@dataclass(frozen=True, slots=True)
class _Named:
    host: str


_QOS_BYTES: Final = len(bytes(QOS()))
assert len(bytes(sockaddr_in())) == len(inet(_LOOPBACK, 0))
