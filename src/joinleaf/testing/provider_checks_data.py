"""Checks about who hears whom, order, boundaries, limits, and descriptors."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Callable
from typing import Final, TypeVar

from joinleaf.errors import SpiError
from joinleaf.spi import constants as c
from joinleaf.spi.codes import (
    WSAEINPROGRESS,
    WSAEINVAL,
    WSAEMSGSIZE,
    WSAENOPROTOOPT,
    WSAENOTCONN,
    WSAEOPNOTSUPP,
    WSAETIMEDOUT,
    WSAEWOULDBLOCK,
)
from joinleaf.spi.provider import Endpoint, JoinRole, Roles, Settings
from joinleaf.testing.provider_bench import SHORT, Bench, CheckFailed, Checks, NotApplicable

__all__ = ["DATA_CHECKS"]

T = TypeVar("T")

DATA_CHECKS: Final = Checks()
_check = DATA_CHECKS.add

_MIB: Final = 1 << 20
_MANY: Final = 2000
_FEW: Final = 50
"""Messages where delivery is not guaranteed: few enough for any socket buffer."""

_MOST_BUFFERED: Final = 128
"""MiB after which a sender that still does not wait is taken to keep no limit at all."""


@_check("1, model 10.1", control="rooted")
def who_hears_whom(bench: Bench) -> None:
    """What the root sends reaches all leaves; what a leaf sends, whom the data plane says."""
    quiet = Settings(loopback=False)
    root, one, two = bench.root(quiet), bench.leaf(quiet), bench.leaf(quiet)
    bench.admit(root, one)
    bench.admit(root, two)
    root.send_many([b"R1"], timeout=bench.patience)
    for leaf in (one, two):
        bench.require(bench.gather(leaf, 1, b"R") == [b"R1"], "a leaf heard something else")
    one.send_many([b"L1"], timeout=bench.patience)
    bench.require(bench.gather(root, 1, b"L") == [b"L1"], "the root heard something else")
    # The root has it: had it been for the other leaf too, it would be there before what follows.
    root.send_many([b"E"], timeout=bench.patience)
    heard = bench.drain(two, b"E")
    expected = [] if bench.info.data_plane_rooted else [b"L1"]
    bench.require(heard == expected, f"the other leaf heard {heard}, not {expected}")
    bench.require(bench.drain(one, b"E") == [], "a leaf heard itself, with loopback off")


@_check("model 10.1", control="rooted", plane="rooted")
def data_root_at_a_leaf(bench: Bench) -> None:
    """The d_root may be a c_leaf: all hear it, and it alone hears the others."""
    root = bench.root(d_root=False)
    source, leaf = bench.leaf(d_root=True), bench.leaf()
    bench.admit(root, source)
    bench.admit(root, leaf)
    source.send_many([b"S"], timeout=bench.patience)
    for listener in (root, leaf):
        bench.gather(listener, 1, b"S")
    root.send_many([b"R"], timeout=bench.patience)
    bench.gather(source, 1, b"R")
    leaf.send_many([b"L"], timeout=bench.patience)
    bench.gather(source, 1, b"L")
    source.send_many([b"E"], timeout=bench.patience)
    for listener in (root, leaf):
        bench.require(bench.drain(listener, b"E") == [], "a d_leaf heard a d_leaf")


@_check("1, model 10.1", control="nonrooted", plane="nonrooted")
def all_hear_all(bench: Bench) -> None:
    """In a nonrooted session every member hears every other."""
    members = [bench.join(bench.leaf()) for _ in range(3)]
    for number, sender in enumerate(members):
        mark = b"M%d" % number
        sender.send_many([mark], timeout=bench.patience)
        for listener in members:
            if listener is not sender:
                bench.gather(listener, 1, mark)


@_check("model 10.1", control="nonrooted", plane="rooted")
def all_hear_the_data_root(bench: Bench) -> None:
    """In a nonrooted session with a rooted data plane every member hears the d_root."""
    source = bench.join(bench.leaf(d_root=True))
    members = [bench.join(bench.leaf()) for _ in range(2)]
    source.send_many([b"S"], timeout=bench.patience)
    for member in members:
        bench.gather(member, 1, b"S")


@_check("model 10.1", flags=c.XP1_MESSAGE_ORIENTED)
def order(bench: Bench) -> None:
    """Messages of one sender arrive in order, each once, however they were batched."""
    sender, listener = bench.pair()
    count = _MANY if bench.info.has(c.XP1_GUARANTEED_ORDER) else _FEW
    sent = [b"N%06d" % number for number in range(count)]
    sending = bench.task(lambda: _send_batched(bench, sender, sent))
    heard = bench.gather(listener, count, b"N")
    sending.result()
    bench.require(heard == sent, "out of order, or not each once")


def _send_batched(bench: Bench, sender: Endpoint, messages: list[bytes]) -> None:
    size = 1
    while messages:
        sender.send_many(messages[:size], timeout=bench.patience)
        messages, size = messages[size:], size * 3 % 97 + 1


@_check("model 5.10", flags=c.XP1_MESSAGE_ORIENTED)
def boundaries(bench: Bench) -> None:
    """Messages keep their boundaries and their bytes, short ones and long ones."""
    sender, listener = bench.pair()
    long = 300_000 if bench.info.has(c.XP1_GUARANTEED_DELIVERY) else 1000
    sizes = (1, 2, 17, long, 3)
    sent = [b"B" + bytes((size + index) % 256 for index in range(size)) for size in sizes]
    kinds = (bytes, bytearray, memoryview)
    mixed = [kinds[index % 3](message) for index, message in enumerate(sent)]
    sending = bench.task(lambda: sender.send_many(mixed, timeout=bench.patience))
    heard = bench.gather(listener, len(sent), b"B")
    sending.result()
    bench.require(heard == sent, "boundaries or bytes have changed")
    bench.require(all(type(one) is bytes for one in heard), "what is received is not bytes")


@_check("model 5.10")
def message_limit(bench: Bench) -> None:
    """A message above ``max_message`` is refused with its whole batch."""
    sender, listener = bench.pair(Settings(max_message=500))
    with bench.refused("a message that is too long", WSAEMSGSIZE):
        sender.send_many([b"X", bytes(501)], timeout=bench.patience)
    sender.send_many([b"E"], timeout=bench.patience)
    bench.require(bench.drain(listener, b"E") == [], "part of a refused batch arrived")


@_check("127, 128, model 10.2", control="rooted")
def one_way_roles(bench: Bench) -> None:
    """A sender only does not receive, a receiver only does not send; both are told."""
    root, sender, receiver = bench.root(), bench.leaf(), bench.leaf()
    bench.admit(root, sender, role=JoinRole.SENDER_ONLY)
    bench.admit(root, receiver, role=JoinRole.RECEIVER_ONLY)
    with bench.refused("receiving as a sender only", WSAEOPNOTSUPP):
        sender.receive_many(timeout=0)
    with bench.refused("sending as a receiver only", WSAEOPNOTSUPP):
        receiver.send_many([b"x"], timeout=0)
    sender.send_many([b"S"], timeout=bench.patience)
    bench.gather(root, 1, b"S")
    root.send_many([b"R"], timeout=bench.patience)
    bench.gather(receiver, 1, b"R")


@_check("model 10.1, 10.2")
def nobody_there(bench: Bench) -> None:
    """Before joining nothing is sent or received; a root without leaves has nobody to send to."""
    leaf = bench.leaf()
    with bench.refused("sending before joining", WSAENOTCONN):
        leaf.send_many([b"x"], timeout=0)
    with bench.refused("receiving before joining", WSAENOTCONN, WSAEINVAL):
        leaf.receive_many(timeout=0)
    if bench.info.control_plane_rooted:
        with bench.refused("sending without leaves", WSAENOTCONN):
            bench.root().send_many([b"x"], timeout=0)


@_check("design 4", control="rooted", plane="rooted")
def chosen_legs(bench: Bench) -> None:
    """A data root may send to some of its legs only."""
    root, one, two = bench.root(), bench.leaf(), bench.leaf()
    leg, _ = bench.admit(root, one)
    bench.admit(root, two)
    root.send_many([b"A"], timeout=bench.patience, to=[leg])
    root.send_many([b"E"], timeout=bench.patience)
    bench.require(bench.drain(one, b"E") == [b"A"], "the chosen leaf did not get it")
    bench.require(bench.drain(two, b"E") == [], "another leaf got it")


@_check("98", control="rooted")
def side_chat(bench: Bench) -> None:
    """What is sent on a leg reaches its leaf only, marked as side chat; or it is refused."""
    root, one, two = bench.root(), bench.leaf(), bench.leaf()
    leg, _ = bench.admit(root, one)
    bench.admit(root, two)
    try:
        leg.send_many([b"C"], timeout=bench.patience)
    except SpiError as error:
        bench.require(error.code == WSAEOPNOTSUPP, f"refused with {error.code}, not WSAEOPNOTSUPP")
        raise NotApplicable("no side chat is offered") from error
    batch = one.receive_many(timeout=bench.patience)
    bench.require(batch.messages == [b"C"] and batch.side, "not told apart from session data")
    root.send_many([b"E"], timeout=bench.patience)
    bench.require(bench.drain(two, b"E") == [], "another leaf heard the side chat")


@_check("model 10.4")
def loopback(bench: Bench) -> None:
    """Loopback is of nonrooted data planes: there it decides whether a member hears itself."""
    if bench.info.data_plane_rooted and not bench.info.control_plane_rooted:
        raise NotApplicable("the carrier decides")  # model 10.4 knows no such carrier
    if bench.info.data_plane_rooted:
        leaf = bench.leaf()
        with bench.refused("SIO_MULTIPOINT_LOOPBACK in a rooted plane", WSAEINVAL):
            leaf.ioctl(c.SIO_MULTIPOINT_LOOPBACK, True)
        return
    if bench.info.control_plane_rooted:
        raise NotApplicable("an echo by way of the root is not promised")
    member = bench.join(bench.leaf())
    member.ioctl(c.SIO_MULTIPOINT_LOOPBACK, True)
    member.send_many([b"echo"], timeout=bench.patience)
    bench.gather(member, 1, b"echo")


@_check("seam", control="rooted", flags=c.XP1_GUARANTEED_DELIVERY)
def sender_waits(bench: Bench) -> None:
    """A sender waits for a slow leaf, lets nobody else in, and what was refused is not sent."""
    root, leaf = bench.root(Settings(queue_bytes=65536)), bench.leaf()
    bench.admit(root, leaf)
    sent = _fill(bench, root)
    with bench.refused("a send without room, with time", WSAETIMEDOUT):
        root.send_many([b"X"], timeout=SHORT)
    waiting = bench.task(lambda: _unless_busy(lambda: root.send_many([b"X"], timeout=None)))
    _until_busy(bench, lambda: root.send_many([b"Y"], timeout=0), "sender")
    bench.interrupt(waiting, root.cancel)
    closing = bench.task(lambda: _send_with_patience(bench, root, b"E"))
    heard = [len(message) for message in bench.drain(leaf, b"E")]
    closing.result()
    bench.require(heard == [_MIB] * sent, f"{len(heard)} messages arrived of {sent} accepted")


@_check("seam, model 7.3", control="rooted", flags=c.XP1_GUARANTEED_DELIVERY)
def room_is_told(bench: Bench) -> None:
    """After WSAEWOULDBLOCK, FD_WRITE tells that there is room, and then there is."""
    root, leaf = bench.root(Settings(queue_bytes=65536)), bench.leaf()
    bench.admit(root, leaf)
    events = bench.events(root)
    sent = _fill(bench, root)
    before = len(events.of(root, c.FD_WRITE))
    bench.gather(leaf, sent, b"F")
    end = time.monotonic() + bench.patience
    while len(events.of(root, c.FD_WRITE)) == before:
        bench.require(time.monotonic() < end, "no FD_WRITE came once there was room")
        time.sleep(0.001)
    root.send_many([b"R"], timeout=0)
    bench.gather(leaf, 1, b"R")


def _fill(bench: Bench, root: Endpoint) -> int:
    """Send until there is no room; gives how many MiB that took."""
    message = b"F" + bytes(_MIB - 1)
    for sent in range(_MOST_BUFFERED):
        try:
            root.send_many([message], timeout=SHORT)
        except SpiError as error:
            bench.require(error.code == WSAETIMEDOUT, f"no room was told by {error.code}")
            with bench.refused("a send without room", WSAEWOULDBLOCK):
                root.send_many([message], timeout=0)
            return sent
    raise CheckFailed(f"{_MOST_BUFFERED} MiB were taken for a leaf that receives nothing")


def _unless_busy(call: Callable[[], T]) -> T:
    """Call again while another thread, which only looks, happens to be in the way."""
    while True:
        try:
            return call()
        except SpiError as error:
            if error.code != WSAEINPROGRESS:
                raise


def _until_busy(bench: Bench, call: Callable[[], object], who: str) -> None:
    """Call, in vain, until that is refused because another thread is in the same call."""
    end = time.monotonic() + bench.patience
    while time.monotonic() < end:
        try:
            call()
        except SpiError as error:
            if error.code == WSAEINPROGRESS:
                return
            bench.require(error.code == WSAEWOULDBLOCK, f"a second {who} got {error.code}")
        time.sleep(0.001)
    raise CheckFailed(f"a second {who} is never refused with WSAEINPROGRESS")


def _send_with_patience(bench: Bench, root: Endpoint, message: bytes) -> None:
    root.send_many([message], timeout=bench.patience)


@_check("seam")
def second_receiver(bench: Bench) -> None:
    """A second thread that receives gets WSAEINPROGRESS; the first is undisturbed."""
    sender, listener = bench.pair()
    receiving = bench.task(lambda: _unless_busy(lambda: bench.gather(listener, 1, b"G")))
    _until_busy(bench, lambda: listener.receive_many(timeout=0), "receiver")
    sender.send_many([b"G"], timeout=bench.patience)
    receiving.result()


@_check("seam")
def readable_descriptor(bench: Bench) -> None:
    """The descriptor is readable exactly while something can be received."""
    if sys.platform == "win32":
        raise NotApplicable("select takes sockets only on this platform")
    sender, listener = bench.pair()
    number = listener.fileno()
    bench.require(number == listener.fileno() >= 0, "fileno is no lasting descriptor")
    bench.require(not _readable(number, 0), "readable with nothing to receive")
    sender.send_many([b"D"], timeout=bench.patience)
    bench.require(_readable(number, bench.patience), "not readable with something to receive")
    bench.gather(listener, 1, b"D")
    bench.require(not _readable(number, 0), "still readable after everything was received")
    listener.close()
    bench.require(listener.fileno() == -1, "a closed endpoint still has a descriptor")


def _readable(number: int, timeout: float) -> bool:
    return bool(select.select([number], [], [], timeout)[0])


@_check("model 7.3")
def read_event(bench: Bench) -> None:
    """What arrives is indicated by FD_READ, also to who subscribes afterwards."""
    sender, listener = bench.pair()
    events = bench.events(listener)
    sender.send_many([b"V"], timeout=bench.patience)
    events.wait(listener, c.FD_READ, "arrival (FD_READ)")
    late = bench.events(listener)
    late.wait(listener, c.FD_READ, "what was there already (FD_READ)")
    bench.gather(listener, 1, b"V")


@_check("model 5.13, 5.14")
def unknown_controls(bench: Bench) -> None:
    """Unknown commands and options are refused by name; statistics are numbers."""
    member, _ = bench.pair()
    with bench.refused("an unknown command", WSAEINVAL):
        member.ioctl(0x4800FFFF)
    for call in (lambda: member.get_option(0x7777), lambda: member.set_option(0x7777, 1)):
        with bench.refused("an unknown option", WSAENOPROTOOPT):
            call()
    bench.require(member.get_option(c.SO_TYPE) == bench.info.socket_type, "SO_TYPE is another")
    for name, value in member.statistics().items():
        bench.require(isinstance(name, str), f"statistic {name!r} has no name")
        bench.require(isinstance(value, int), f"statistic {name!r} is {value!r}")


@_check("model 10.2", control="nonrooted")
def sender_only_hears_nothing(bench: Bench) -> None:
    """A sender only hears nothing of a nonrooted session."""
    source_roles = Roles(d_root=bench.info.data_plane_rooted)
    sender = bench.join(bench.open(source_roles), JoinRole.SENDER_ONLY)
    listener = bench.join(bench.leaf(), JoinRole.RECEIVER_ONLY)
    sender.send_many([b"S"], timeout=bench.patience)
    bench.gather(listener, 1, b"S")
    with bench.refused("receiving as a sender only", WSAEOPNOTSUPP, WSAEWOULDBLOCK, WSAENOTCONN):
        sender.receive_many(timeout=0)
