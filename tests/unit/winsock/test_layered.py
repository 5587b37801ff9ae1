"""A layer over a provider: handles, entries, messages, upcalls, as section 9 of the model says."""

from __future__ import annotations

import ctypes
import inspect
import logging
import os
import re
import stat
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from joinleaf import winsock
from joinleaf.errors import CatalogueError
from joinleaf.providers.layered_trace import TracedProvider, add_tracer
from joinleaf.providers.memory import AF_MEMORY, MemoryProvider
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.catalogue import Catalogue
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.provider import Settings
from joinleaf.winsock import INVALID_SOCKET, SOCKET_ERROR, Cell, Upcalls
from joinleaf.winsock.conversions import info_from_c
from joinleaf.winsock.declarations import PROVIDER_FUNCTIONS
from joinleaf.winsock.layered import PassThrough, Tracer, open_service
from joinleaf.winsock.objects import Objects
from joinleaf.winsock.types import WSANETWORKEVENTS, WSAPROTOCOL_INFOW, WSPDATA, fd_set

ROOT = c.WSA_FLAG_MULTIPOINT_C_ROOT | c.WSA_FLAG_MULTIPOINT_D_ROOT
LEAF = c.WSA_FLAG_MULTIPOINT_C_LEAF | c.WSA_FLAG_MULTIPOINT_D_LEAF
BOUND_S = 10.0


def name(text: str) -> bytes:
    return struct.pack("=H", AF_MEMORY) + text.encode() + b"\0"


class World:
    """A chain of tracers over the memory provider, and what its client holds."""

    def __init__(self, layers: int = 1, scheme: str = "mem", settings: Any = None) -> None:
        catalogue = Catalogue.discover()
        seam = MemoryProvider() if scheme == "mem" else catalogue.find(scheme)
        self.base: Any = winsock.ServiceProvider(seam, seam.protocols()[0], settings)
        self.upcalls = Upcalls(Objects())
        self.layer: Any = self.base
        for number in range(layers):
            info = _numbered(self.base.info, 9000 + number, layers)
            self.layer = Tracer(self.layer, info)
        table = Cell()
        assert self.layer.WSPStartup(0x0202, WSPDATA(), None, self.upcalls, table) == 0
        assert table.value is self.layer.proc_table

    def call(self, function: str, *args: Any) -> int:
        cell = Cell(0)
        result: int = getattr(self.layer, function)(*args, cell)
        assert not cell.value, f"{function}: {codes.name_of(cell.value)}"
        return result

    def code(self, function: str, *args: Any) -> int:
        cell = Cell(0)
        getattr(self.layer, function)(*args, cell)
        return int(cell.value)

    def socket(self, flags: int) -> int:
        return self.call("WSPSocket", 0, 0, 0, None, 0, flags)

    def root(self, text: str = "root") -> int:
        s = self.socket(ROOT)
        self.call("WSPBind", s, name(text), len(name(text)))
        self.call("WSPListen", s, 5)
        return s

    def join(self, s: int, text: str) -> int:
        return self.call(
            "WSPJoinLeaf", s, name(text), len(name(text)), None, None, None, None, c.JL_BOTH
        )

    def pair(self) -> tuple[int, int, int]:
        """A root, its side of the leg, and a leaf that asked."""
        root, leaf, legs = self.root(), self.socket(LEAF), []

        def admit() -> None:
            legs.append(self.call("WSPAccept", root, None, None, None, 0))

        thread = threading.Thread(target=admit)
        thread.start()
        assert self.join(leaf, "root") == leaf
        thread.join(BOUND_S)
        return root, legs[0], leaf

    def lower(self, s: int) -> int:
        """The handle that the layer knows this one by, as its context."""
        context = Cell()
        assert self.upcalls.WPUQuerySocketHandleContext(s, context, Cell()) == 0
        return int(context.value)


def _numbered(info: ProtocolInfo, number: int, layers: int) -> ProtocolInfo:
    return replace(info, catalog_entry_id=number, chain=(*range(9000, 9000 + layers), 1))


@pytest.fixture(params=[1, 2], ids=["one layer", "two layers"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = World(request.param)
    yield made
    assert made.layer.WSPCleanup(Cell()) == 0
    assert made.upcalls.open_sockets == 0, "handles have leaked"


def test_a_join_of_a_leaf_returns_the_handle_of_the_client_and_a_root_gets_one_of_the_layers_own(
    world: World,
) -> None:
    root, leg, leaf = world.pair()
    assert len({root, leg, leaf}) == 3
    listener = world.socket(LEAF)
    world.call("WSPBind", listener, name("invited"), len(name("invited")))
    world.call("WSPListen", listener, 1)
    members: list[int] = []
    thread = threading.Thread(
        target=lambda: members.append(world.call("WSPAccept", listener, None, None, None, 0))
    )
    thread.start()
    invited = world.join(root, "invited")
    thread.join(BOUND_S)
    assert len({root, leg, leaf, listener, invited, members[0]}) == 6
    for handle in (root, leg, leaf, invited, members[0]):
        assert world.lower(handle) != handle
        assert world.code("WSPListen", world.lower(handle), 1) == codes.WSAENOTSOCK


def test_data_go_through_with_the_handles_of_the_client(world: World) -> None:
    root, _, leaf = world.pair()
    sent, got, flags, memory = Cell(), Cell(), Cell(), bytearray(16)
    world.call("WSPSend", root, [b"hello"], 1, sent, 0, None, None, None)
    world.call("WSPRecv", leaf, [memory], 1, got, flags, None, None, None)
    assert (sent.value, got.value, bytes(memory[:5])) == (5, 5, b"hello")


def test_select_gives_back_the_handles_that_were_asked_for(world: World) -> None:
    root, _, leaf = world.pair()
    world.call("WSPSend", root, [b"x"], 1, Cell(), 0, None, None, None)
    readable, writable = [root, leaf], [root]
    assert world.call("WSPSelect", 0, readable, writable, None, BOUND_S) >= 2
    assert (leaf in readable, writable) == (True, [root])
    place = fd_set(1, (leaf,))
    assert world.call("WSPSelect", 0, ctypes.byref(place), None, None, 0.0) == 1
    assert (place.fd_count, place.fd_array[0]) == (1, leaf)
    assert world.code("WSPSelect", 0, [world.lower(leaf)], None, None, 0.0) == codes.WSAENOTSOCK


def test_a_layer_that_gets_no_handle_closes_the_lower_one_and_says_wsaenobufs() -> None:
    world = World(1)
    root = world.root()
    before = world.upcalls.open_sockets
    tries = []

    def fail_for_the_layer(entry: int, context: Any, error: Any) -> int:
        tries.append(entry)
        if entry == world.layer.info.catalog_entry_id:
            error.value = codes.WSAENOBUFS
            return INVALID_SOCKET
        world.upcalls.replace("WPUCreateSocketHandle", None)
        try:
            return world.upcalls.WPUCreateSocketHandle(entry, context, error)
        finally:
            world.upcalls.replace("WPUCreateSocketHandle", fail_for_the_layer)

    world.upcalls.replace("WPUCreateSocketHandle", fail_for_the_layer)
    cell = Cell()
    assert world.layer.WSPSocket(0, 0, 0, None, 0, LEAF, cell) == INVALID_SOCKET
    assert cell.value == codes.WSAENOBUFS
    assert len(tries) == 2, "the base got its handle before the layer failed"
    assert world.upcalls.open_sockets == before
    world.upcalls.replace("WPUCreateSocketHandle", None)
    world.call("WSPCloseSocket", root)
    assert world.layer.WSPCleanup(Cell()) == 0
    assert world.upcalls.open_sockets == 0


def test_a_root_that_cannot_name_its_new_leg_takes_the_invitation_back() -> None:
    world = World(1)
    root, listener = world.root(), world.socket(LEAF)
    world.call("WSPBind", listener, name("invited"), len(name("invited")))
    world.call("WSPListen", listener, 1)
    world.call("WSPIoctl", root, c.FIONBIO, struct.pack("=I", 1), 4, None, 0, None, *[None] * 3)
    open_before = world.upcalls.open_sockets

    def only_for_the_base(entry: int, context: Any, error: Any) -> int:
        world.upcalls.replace("WPUCreateSocketHandle", None)
        handle = world.upcalls.WPUCreateSocketHandle(entry, context, error)
        world.upcalls.fail("WPUCreateSocketHandle", codes.WSAENOBUFS)
        return handle

    world.upcalls.replace("WPUCreateSocketHandle", only_for_the_base)
    invited = name("invited")
    nothing = [None] * 4
    code = world.code("WSPJoinLeaf", root, invited, len(invited), *nothing, c.JL_BOTH)
    assert code == codes.WSAENOBUFS
    assert world.upcalls.open_sockets == open_before
    world.upcalls.replace("WPUCreateSocketHandle", None)
    assert world.layer.WSPCleanup(Cell()) == 0


def test_upcalls_go_down_unmodified_and_each_provider_hears_of_its_own_entry() -> None:
    world = World(2)
    assert world.base.upcalls is world.upcalls
    assert world.layer.lower.upcalls is world.upcalls
    assert world.base.info.chain != world.layer.info.chain
    assert world.layer.lower.info == world.layer.info, "between layers the chain's entry"
    entries: list[int] = []

    def note(entry: int, context: Any, error: Any) -> int:
        entries.append(entry)
        world.upcalls.replace("WPUCreateSocketHandle", None)
        try:
            return world.upcalls.WPUCreateSocketHandle(entry, context, error)
        finally:
            world.upcalls.replace("WPUCreateSocketHandle", note)

    world.upcalls.replace("WPUCreateSocketHandle", note)
    world.socket(LEAF)
    chain = world.layer.info.catalog_entry_id
    assert entries == [world.base.info.catalog_entry_id, chain, chain]
    assert world.layer.WSPCleanup(Cell()) == 0


def test_protocol_information_of_a_socket_is_that_of_the_chain(world: World) -> None:
    s = world.socket(LEAF)
    place, length = WSAPROTOCOL_INFOW(), Cell(ctypes.sizeof(WSAPROTOCOL_INFOW))
    world.call("WSPGetSockOpt", s, c.SOL_SOCKET, c.SO_PROTOCOL_INFOW, place, length)
    assert info_from_c(place) == world.layer.info
    world.call("WSPDuplicateSocket", s, 0, place)
    assert place.dwCatalogEntryId == world.layer.info.catalog_entry_id
    twin = world.call("WSPSocket", 0, 0, 0, place, 0, LEAF)
    assert twin != s
    world.call("WSPBind", s, name("twin"), len(name("twin")))
    memory, size = bytearray(64), Cell(64)
    world.call("WSPGetSockName", twin, memory, size)
    assert b"twin" in memory


def test_messages_of_windows_name_the_handle_of_the_client(world: World) -> None:
    root = world.root()
    objects = world.upcalls.objects
    window = objects.create_window()
    world.call("WSPAsyncSelect", root, window, 0x401, c.FD_ACCEPT | c.FD_WRITE | c.FD_CLOSE)
    leaf = world.socket(LEAF)
    world.call("WSPIoctl", leaf, c.FIONBIO, struct.pack("=I", 1), 4, None, 0, None, *[None] * 3)
    world.join(leaf, "root")
    arrived = objects.get_message(window, BOUND_S)
    assert arrived is not None
    assert (arrived.wparam, arrived.event, arrived.msg) == (root, c.FD_ACCEPT, 0x401)
    leg = world.call("WSPAccept", root, None, None, None, 0)
    world.call("WSPCloseSocket", leaf)
    seen: set[tuple[int, int]] = set()
    while (leg, c.FD_CLOSE) not in seen:
        message = objects.get_message(window, BOUND_S)
        assert message is not None, seen
        assert message.wparam in (root, leg), "nobody but the layer knows lower handles"
        seen.add((message.wparam, message.event))
    assert (leg, c.FD_WRITE) in seen, "it was posted before the layer had a handle for the leg"


def test_messages_are_refused_where_the_layer_can_have_no_window() -> None:
    world = World(1)
    table = world.upcalls.table
    assert world.layer.WSPStartup(0x0202, WSPDATA(), None, table, Cell()) == 0
    s = world.socket(LEAF)
    code = world.code("WSPAsyncSelect", s, 0x1000, 0x401, c.FD_READ)
    assert code == codes.WSAEOPNOTSUPP, "upcalls of C post to real windows only"
    assert world.code("WSPAsyncSelect", s, None, 0, 0) == 0, "cancelling needs no window"
    assert world.layer.WSPCleanup(Cell()) == world.layer.WSPCleanup(Cell()) == 0


def test_events_go_through_and_name_no_handle(world: World) -> None:
    root = world.root()
    event = world.upcalls.objects.create_event()
    world.call("WSPEventSelect", root, event, c.FD_ACCEPT)
    leaf = world.socket(LEAF)
    world.call("WSPIoctl", leaf, c.FIONBIO, struct.pack("=I", 1), 4, None, 0, None, *[None] * 3)
    world.join(leaf, "root")
    assert world.upcalls.objects.wait(event, BOUND_S)
    record = WSANETWORKEVENTS()
    world.call("WSPEnumNetworkEvents", root, event, record)
    assert record.lNetworkEvents == c.FD_ACCEPT


def test_handles_of_the_system_pass_through_as_they_are() -> None:
    world = World(1, "udp", Settings(interface="127.0.0.1"))
    assert world.layer.info.has(c.XP1_IFS_HANDLES)
    first = world.socket(LEAF)
    assert world.upcalls.calls["WPUModifyIFSHandle"] == 2, "once for each provider"
    assert world.upcalls.calls["WPUCreateSocketHandle"] == 0
    assert stat.S_ISSOCK(os.fstat(first).st_mode), "an overlapped read on it needs no layer"
    length = Cell(4)
    assert (
        world.base.WSPGetSockOpt(first, c.SOL_SOCKET, c.SO_TYPE, bytearray(4), length, Cell()) == 0
    ), "the base knows it by the same number"
    world.call("WSPCloseSocket", first)
    assert world.code("WSPCloseSocket", first) == codes.WSAENOTSOCK
    assert world.layer.WSPCleanup(Cell()) == 0


def test_an_ifs_layer_whose_handle_is_refused_closes_the_lower_one() -> None:
    world = World(1, "udp", Settings(interface="127.0.0.1"))
    seen: list[int] = []

    def modify(entry: int, proposed: int, error: Any) -> int:
        seen.append(proposed)
        if entry == world.layer.info.catalog_entry_id:
            error.value = codes.WSAEINVAL
            return INVALID_SOCKET
        return proposed

    world.upcalls.replace("WPUModifyIFSHandle", modify)
    cell = Cell()
    assert world.layer.WSPSocket(0, 0, 0, None, 0, LEAF, cell) == INVALID_SOCKET
    assert cell.value == codes.WSAEINVAL
    cell = Cell()
    assert world.base.WSPListen(seen[0], 1, cell) == SOCKET_ERROR
    assert cell.value == codes.WSAENOTSOCK, "the lower handle has been closed"
    assert world.layer.WSPCleanup(Cell()) == 0


def test_a_close_that_would_block_leaves_the_handle_to_the_client(world: World) -> None:
    root, leg, leaf = world.pair()
    nonblocking = (struct.pack("=I", 1), 4, None, 0, None, None, None, None)
    world.call("WSPIoctl", root, c.FIONBIO, *nonblocking)
    world.call("WSPSetSockOpt", root, c.SOL_SOCKET, c.SO_LINGER, struct.pack("=HH", 1, 30), 4)
    piece = [bytes(1 << 18)]
    for _ in range(1000):
        if code := world.code("WSPSend", root, piece, 1, None, 0, None, None, None):
            break
    assert code == codes.WSAEWOULDBLOCK
    for _ in range(2):
        assert world.code("WSPCloseSocket", root) == codes.WSAEWOULDBLOCK
    world.call("WSPSetSockOpt", root, c.SOL_SOCKET, c.SO_LINGER, struct.pack("=HH", 1, 0), 4)
    for handle in (root, leg, leaf):
        world.call("WSPCloseSocket", handle)
    assert world.upcalls.open_sockets == 0


def test_the_order_of_checks_is_that_of_the_base_for_handles_of_nobody(world: World) -> None:
    busy = world.upcalls.objects.thread()
    with busy.callback():
        assert world.code("WSPListen", 0x7770, 1) == codes.WSAENOTSOCK
        assert world.code("WSPCancelBlockingCall") == codes.WSAEINVAL
    assert world.code("WSPSocket", 2, 0, 0, None, 0, LEAF) == codes.WSAEAFNOSUPPORT


def test_startups_are_counted_and_the_last_cleanup_gives_every_handle_back() -> None:
    world = World(1)
    assert world.layer.WSPStartup(0x0202, WSPDATA(), None, world.upcalls, Cell()) == 0
    world.socket(LEAF)
    assert world.layer.WSPCleanup(Cell()) == 0
    assert world.upcalls.open_sockets == 2
    assert world.layer.WSPCleanup(Cell()) == 0
    assert world.upcalls.open_sockets == 0
    assert world.code("WSPCleanup") == codes.WSANOTINITIALISED
    assert world.layer.WSPStartup(0x0101, WSPDATA(), None, world.upcalls, Cell()) == (
        codes.WSAVERNOTSUPPORTED
    )
    assert world.layer.WSPStartup(0x0202, WSPDATA(), None, world.upcalls, None) == codes.WSAEFAULT


def test_every_call_leaves_one_line_with_parameters_result_and_time(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="joinleaf.trace")
    root, _, leaf = world.pair()
    world.call("WSPSend", root, [b"secret"], 1, Cell(), 0, None, None, None)
    assert world.code("WSPListen", leaf, 1) == codes.WSAEISCONN
    text = "\n".join(record.getMessage() for record in caplog.records)
    for pattern in (
        r"WSPSocket\(af=AF_UNSPEC, .*dwFlags=\w*C_ROOT\|\w*D_ROOT\) -> 0x\w+ \[\d+\.\d{3} ms\]",
        rf"WSPBind\(s={root:#x}, name=root, namelen=\d+\) -> 0 \[",
        rf"WSPJoinLeaf\(s={leaf:#x}, name=root, .*, dwFlags=JL_BOTH\) -> {leaf:#x} \[",
        rf"WSPSend\(s={root:#x}, lpBuffers=\[6\], .*\) -> 0, lpNumberOfBytesSent=6 \[",
        rf"WSPListen\(s={leaf:#x}, backlog=1\) -> WSAEISCONN 10056 \[",
    ):
        assert re.search(pattern, text), f"{pattern} is not in\n{text}"
    assert "secret" not in text, "contents of messages stay out of logs"


def test_a_trace_survives_parameters_that_cannot_be_read(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="joinleaf.trace")
    for function, prototype in PROVIDER_FUNCTIONS.items():
        if function in ("WSPCleanup", "WSPSelect"):
            continue
        for value in (None, 3, object(), b""):
            count = len(prototype.parameters) - 1
            getattr(world.layer, function)(*[value] * count, Cell())
    for value in (None, 3):
        getattr(world.layer, "WSPSelect")(0, value, value, value, 0.0, Cell())  # noqa: B009  # as above
    assert len(caplog.records) >= 4 * 28


def test_parameters_may_be_named_but_none_may_be_missing() -> None:
    world = World(1)
    s = world.layer.WSPSocket(0, 0, 0, None, 0, LEAF, lpErrno=Cell())
    names = tuple(inspect.signature(world.layer.WSPListen).parameters)
    assert names == PROVIDER_FUNCTIONS["WSPListen"].parameter_names
    assert s != INVALID_SOCKET
    with pytest.raises(TypeError, match="takes 3 parameters"):
        world.layer.WSPListen(s, 1)
    with pytest.raises(AttributeError):
        world.layer.WSPNothing()
    assert world.layer.WSPCleanup(Cell()) == 0


def test_a_chain_of_the_catalogue_becomes_layers_of_winsock() -> None:
    catalogue = Catalogue()
    catalogue.add(MemoryProvider())
    chains = add_tracer(catalogue, "mem")
    assert len(chains) == len(MemoryProvider().protocols())
    assert isinstance(catalogue.find("mem"), TracedProvider), "it is found instead of its base"
    provider = open_service(catalogue, chains[1].catalog_entry_id)
    assert isinstance(provider, PassThrough)
    assert provider.info == chains[1]
    assert provider.base.chain == (chains[1].chain[-1],)
    assert provider.WSPStartup(0x0202, WSPDATA(), chains[1], Upcalls(Objects()), Cell()) == 0
    assert provider.WSPSocket(0, 0, 0, None, 0, LEAF, Cell()) != INVALID_SOCKET
    assert provider.WSPCleanup(Cell()) == 0
    plain = open_service(catalogue, chains[1].chain[-1])
    assert isinstance(plain, winsock.ServiceProvider)
    with pytest.raises(CatalogueError):
        add_tracer(catalogue, "mem")


def test_c_calls_a_layer_through_its_table(world: World) -> None:
    table, error = world.layer.proc_table, ctypes.c_int(77)
    s = table.lpWSPSocket(0, 0, 0, None, 0, LEAF, ctypes.addressof(error))
    assert (s in (0, INVALID_SOCKET), error.value) == (False, 77)
    assert table.lpWSPListen(s, 1, ctypes.addressof(error)) == SOCKET_ERROR
    assert error.value == codes.WSAEINVAL
    assert table.lpWSPCloseSocket(s, ctypes.addressof(error)) == 0
