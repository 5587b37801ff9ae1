"""Random histories of the thirty functions: what may come out, and that nothing is left behind.

On ``mem``, where everything happens at once, a small model of the state tables says what each
WSPJoinLeaf must answer. On the entries with a network the codes must be among those documented for
the function. Everywhere: no handle, no membership, no descriptor and no thread survives WSPCleanup.

``JOINLEAF_SEQUENCES`` says how many histories each entry gets; the default suits a test run.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from tests.conformance.test_clauses_errors import LISTED
from tests.conformance.world import PATIENCE, Condition, World, inet, memberships, memory_name, qos

from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.winsock.memory import Cell, Wsabuf
from joinleaf.winsock.types import INVALID_SOCKET, WSANETWORKEVENTS

SEQUENCES = os.environ.get("JOINLEAF_SEQUENCES", "")

EVERYWHERE = {0, codes.WSAENETDOWN, codes.WSAENOTSOCK, codes.WSAEINPROGRESS}
TRANSFER = {
    codes.WSAEACCES,
    codes.WSAEINTR,
    codes.WSAEFAULT,
    codes.WSAENETRESET,
    codes.WSAENOBUFS,
    codes.WSAENOTCONN,
    codes.WSAEWOULDBLOCK,
    codes.WSAECONNABORTED,
    codes.WSAECONNRESET,
    codes.WSAETIMEDOUT,
    codes.WSAEOPNOTSUPP,
    codes.WSAESHUTDOWN,
    codes.WSAEMSGSIZE,
    codes.WSAEINVAL,
}
DOCUMENTED: dict[str, set[int]] = {
    "WSPJoinLeaf": set(LISTED) | {codes.WSAEINVAL},
    "WSPAccept": {
        codes.WSAECONNREFUSED,
        codes.WSAECONNRESET,
        codes.WSAEACCES,
        codes.WSATRY_AGAIN,
        codes.WSAEFAULT,
        codes.WSAEINTR,
        codes.WSAEINVAL,
        codes.WSAEMFILE,
        codes.WSAENOBUFS,
        codes.WSAEOPNOTSUPP,
        codes.WSAEWOULDBLOCK,
    },
    "WSPBind": {
        codes.WSAEADDRINUSE,
        codes.WSAEADDRNOTAVAIL,
        codes.WSAEFAULT,
        codes.WSAEINVAL,
        codes.WSAENOBUFS,
    },
    "WSPListen": {
        codes.WSAEADDRINUSE,
        codes.WSAEINVAL,
        codes.WSAEISCONN,
        codes.WSAEMFILE,
        codes.WSAENOBUFS,
        codes.WSAEOPNOTSUPP,
    },
    "WSPConnect": {
        codes.WSAEADDRINUSE,
        codes.WSAEALREADY,
        codes.WSAEADDRNOTAVAIL,
        codes.WSAEAFNOSUPPORT,
        codes.WSAECONNREFUSED,
        codes.WSAEFAULT,
        codes.WSAEINVAL,
        codes.WSAEISCONN,
        codes.WSAENETUNREACH,
        codes.WSAENOBUFS,
        codes.WSAEOPNOTSUPP,
        codes.WSAETIMEDOUT,
        codes.WSAEWOULDBLOCK,
        codes.WSAEACCES,
    },
    "WSPCloseSocket": {codes.WSAEWOULDBLOCK, codes.WSAEINTR},
    "WSPShutdown": {codes.WSAEINVAL, codes.WSAENOTCONN},
    "WSPSendDisconnect": {codes.WSAENOPROTOOPT, codes.WSAENOTCONN, codes.WSAEFAULT},
    "WSPRecvDisconnect": {codes.WSAENOPROTOOPT, codes.WSAENOTCONN, codes.WSAEFAULT},
    "WSPSend": TRANSFER,
    "WSPSendTo": TRANSFER
    | {
        codes.WSAEADDRNOTAVAIL,
        codes.WSAEAFNOSUPPORT,
        codes.WSAEDESTADDRREQ,
        codes.WSAENETUNREACH,
    },
    "WSPRecv": TRANSFER | {codes.WSAEDISCON},
    "WSPRecvFrom": TRANSFER | {codes.WSAEDISCON},
    "WSPGetSockName": {codes.WSAEFAULT, codes.WSAEINVAL},
    "WSPGetPeerName": {codes.WSAEFAULT, codes.WSAENOTCONN},
    "WSPGetSockOpt": {codes.WSAEFAULT, codes.WSAEINVAL, codes.WSAENOPROTOOPT},
    "WSPSetSockOpt": {codes.WSAEFAULT, codes.WSAEINVAL, codes.WSAENOPROTOOPT},
    "WSPIoctl": {
        codes.WSAEFAULT,
        codes.WSAEINVAL,
        codes.WSAEOPNOTSUPP,
        codes.WSAEWOULDBLOCK,
        codes.WSAENOPROTOOPT,
    },
    "WSPEventSelect": {codes.WSAEINVAL},
    "WSPAsyncSelect": {codes.WSAEINVAL},
    "WSPEnumNetworkEvents": {codes.WSAEINVAL, codes.WSAEFAULT},
    "WSPSelect": {codes.WSAEFAULT, codes.WSAEINTR, codes.WSAEINVAL},
    "WSPCancelBlockingCall": {codes.WSAEINVAL},
    "WSPSocket": {codes.WSAEINVAL, codes.WSAEMFILE, codes.WSAENOBUFS},
}

NUMBERS = st.integers(0, 255)
"""Which of the sockets there are. What is drawn must not depend on what came before, since a
network makes no history come out the same twice; so there are no bundles."""

ROOT, LEAF = "root", "leaf"
IDLE, LISTENING, PENDING, MEMBER, ENDED, FAILED, CLOSED = (
    "idle",
    "listening",
    "pending",
    "member",
    "ended",
    "failed",
    "closed",
)


@dataclass(eq=False)
class Socket:
    """One socket as the model sees it.

    Attributes:
        handle: Its descriptor.
        kind: root, leaf, leg, or plain for an ordinary socket.
        state: See the model's section 3.
        name: Its address, once it is known to listen or to be bound.
        listening: Of a root: beside its state.
        queue: Requests that wait here: who asked; None for those taken back, which the acceptor
            is told of in their turn.
        other: Of a leg: the member, and the reverse. Of a pending root: the new leg.
        root: Of a leg: its root.
    """

    handle: int
    kind: str
    state: str = IDLE
    name: bytes = b""
    listening: bool = False
    queue: list[Socket | None] = field(default_factory=list)
    other: Socket | None = None
    root: Socket | None = None
    legs: list[Socket] = field(default_factory=list)

    @property
    def hears_requests(self) -> bool:
        return self.listening and self.state not in (CLOSED, ENDED)

    def may_not_join(self) -> int:
        """Steps 2 to 7 of section 5.6; 0 where they are passed."""
        if self.state == CLOSED:
            return codes.WSAENOTSOCK
        if self.kind == "plain":
            return codes.WSAEINVAL
        if self.state == PENDING:
            return codes.WSAEALREADY
        if self.state == MEMBER:
            return codes.WSAEISCONN
        if self.state in (ENDED, FAILED) or (self.kind == LEAF and self.listening):
            return codes.WSAEINVAL
        return 0

    # What others do to it

    def end(self) -> None:
        if self.state == MEMBER:
            self.state = ENDED

    def fail(self) -> None:
        """A request of this socket has come to nothing."""
        self.state = IDLE
        if self.kind == ROOT and self.other is not None:
            if self.other.state == PENDING:
                self.other.state = FAILED
            self.other = None


def drop(asker: Socket | None) -> None:
    """A request that waited is refused."""
    if asker is not None:
        asker.fail()


class History(RuleBasedStateMachine):
    """What all entries have in common; subclasses name the entry."""

    scheme = "mem"
    rooted = True
    exact = False

    def __init__(self) -> None:
        super().__init__()
        self.threads = set(threading.enumerate())
        self.world = World.start(self.scheme, rooted=self.rooted)
        self.world.provider.join_timeout = None if self.exact else 0.2
        self.sockets: dict[int, Socket] = {}
        self.event = self.world.objects.create_event()
        self.window = self.world.objects.create_window()
        self.groups: list[bytes] = []
        self.session = self.group() if not self.rooted else b""

    def call(self, name: str, *args: Any) -> int:
        code = self.world.code(name, *args)
        assert code in EVERYWHERE | DOCUMENTED[name], f"{name} answered {code}"
        return code

    def group(self) -> bytes:
        """A session nobody else is in."""
        self.groups.append(self.world.session())
        return self.groups[-1]

    def add(self, handle: int, kind: str, state: str = IDLE) -> Socket:
        self.sockets[handle] = made = Socket(handle, kind, state)
        return made

    def name_of(self, handle: int) -> bytes:
        memory, length = bytearray(300), Cell(300)
        code = self.call("WSPGetSockName", handle, memory, length)
        return bytes(memory[: length.value]) if not code else self.world.any_address()

    # Making sockets

    @initialize()
    def company(self) -> None:
        """Somebody to meet: two who can be asked, two who can ask."""
        for kind in (ROOT, LEAF):
            for ready in (True, False):
                self.socket(kind, ready)

    def pick(self, number: int) -> int:
        """One of the sockets that are open."""
        live = [one.handle for one in self.sockets.values() if one.state != CLOSED]
        return live[number % len(live)] if live else self.socket(LEAF, False)

    @rule(s=st.sampled_from([INVALID_SOCKET, 0, -1, 7]), number=st.integers(0, 100))
    def stranger(self, s: int, number: int) -> None:
        """What is no socket any more, or never was, is answered as that by every function."""
        gone = [one.handle for one in self.sockets.values() if one.state == CLOSED]
        if number and gone:
            s = gone[number % len(gone)]
        elif number % 7 == 0:
            s = self.event
        name = self.world.any_address()
        place = (bytearray(300), Cell(300))
        buffers: tuple[Any, ...] = ([Wsabuf(16)], 1, Cell())
        for call in (
            ("WSPJoinLeaf", s, name, len(name), None, None, None, None, c.JL_BOTH),
            ("WSPAccept", s, None, None, None, 0),
            ("WSPBind", s, name, len(name)),
            ("WSPListen", s, 5),
            ("WSPConnect", s, name, len(name), None, None, None, None),
            ("WSPCloseSocket", s),
            ("WSPShutdown", s, c.SD_SEND),
            ("WSPSend", s, *buffers, 0, None, None, None),
            ("WSPRecv", s, *buffers, Cell(0), None, None, None),
            ("WSPGetSockName", s, *place),
            ("WSPGetPeerName", s, *place),
            ("WSPEventSelect", s, self.event, c.FD_READ),
            ("WSPAsyncSelect", s, self.window, 0x400, c.FD_READ),
            ("WSPEnumNetworkEvents", s, None, WSANETWORKEVENTS()),
            ("WSPGetSockOpt", s, c.SOL_SOCKET, c.SO_ERROR, bytearray(4), Cell(4)),
        ):
            assert self.call(*call) == codes.WSAENOTSOCK

    @rule(kind=st.sampled_from([ROOT, LEAF, LEAF, "plain"]), ready=st.booleans())
    def another(self, kind: str, ready: bool) -> None:
        self.socket(kind, ready)

    def socket(self, kind: str, ready: bool) -> int:
        if kind == ROOT and not self.rooted:
            kind = LEAF
        make: dict[str, Callable[[], int]] = {
            ROOT: lambda: self.world.root(listening=False, bound=False),
            LEAF: self.world.leaf,
        }
        handle = make[kind]() if kind in make else self.world.socket(0)
        assert handle not in self.sockets or self.sockets[handle].state == CLOSED
        self.world.nonblocking(handle)
        made = self.add(handle, kind)
        if ready and kind != "plain" and self.rooted:
            made.name = self.world.bind(handle)
            self.listen(handle, 5)
        return handle

    # States

    @rule(s=NUMBERS, backlog=st.sampled_from([0, 1, 5, c.SOMAXCONN]))
    def listens(self, s: int, backlog: int) -> None:
        self.listen(self.pick(s), backlog)

    def listen(self, s: int, backlog: int) -> None:
        code = self.call("WSPListen", s, backlog)
        if not code and s in self.sockets:
            one = self.sockets[s]
            one.listening = True
            one.name = self.name_of(s)
            limit = max(1, backlog)
            while len(one.queue) > limit:  # the excess is reset and dropped
                drop(one.queue.pop())

    @rule(s=NUMBERS, named=st.booleans())
    def bind(self, s: int, named: bool) -> None:
        s = self.pick(s)
        name = self.name_of(s) if named else self.world.nobody_bound()
        self.call("WSPBind", s, name, len(name))

    @rule(
        s=NUMBERS,
        stray=NUMBERS,
        number=st.integers(0, 20),
        aim=st.sampled_from([*["listener"] * 6, "whom", "nobody", "any", "family", "null"]),
        flags=st.sampled_from([4, 4, 4, 4, 1, 2, 0, 3]),
        extra=st.sampled_from(["", "", "data", "room", "qos", "bad qos"]),
    )
    def ask(self, s: int, stray: int, number: int, aim: str, flags: int, extra: str) -> None:
        self.join(self.pick(s), self.pick(stray), number, aim, flags, extra)

    def join(self, s: int, stray: int, number: int, aim: str, flags: int, extra: str) -> None:
        whom = stray
        if aim == "listener":
            aim, whom = "whom", self.somebody_to_ask(s, number) or stray
        name = self.aim(aim, whom)
        hows: dict[str, dict[str, Any]] = {
            "data": {"caller": Wsabuf(b"hi")},
            "room": {"callee": Wsabuf(bytearray(64))},
            "qos": {"sqos": qos()},
            "bad qos": {"sqos": b"short"},
        }
        how = hows.get(extra, {})
        arguments = (how.get("caller"), how.get("callee"), how.get("sqos"), None, flags)
        cell = Cell(0)
        length = len(name) if name is not None else 16
        made = self.world.provider.WSPJoinLeaf(s, name, length, *arguments, cell)
        code = cell.value if made == INVALID_SOCKET else 0
        assert code in EVERYWHERE | DOCUMENTED["WSPJoinLeaf"], code
        assert (made == INVALID_SOCKET) == bool(code)
        self.follow(s, whom, aim, flags, extra, made, code)

    def somebody_to_ask(self, s: int, number: int) -> int | None:
        """A listener that this socket could join with."""
        kind = self.sockets[s].kind
        fitting = [
            one.handle
            for one in self.sockets.values()
            if one.hears_requests and one.kind in (ROOT, LEAF) and one.kind != kind
        ]
        return fitting[number % len(fitting)] if fitting else None

    def aim(self, aim: str, whom: int) -> bytes | None:
        if aim == "whom":
            return self.name_of(whom) if self.rooted else self.session
        if aim == "nobody":
            return self.world.nobody() if self.rooted else self.group()
        if aim == "any":
            return self.world.any_address()
        if aim == "family":
            return inet("1.2.3.4", 5) if self.scheme == "mem" else memory_name("no family")
        return None

    def follow(
        self, s: int, whom: int, aim: str, flags: int, extra: str, made: int, code: int
    ) -> None:
        """Compare with the model, and move it."""
        one = self.sockets.get(s)
        if one is None:
            assert code == codes.WSAENOTSOCK
            return
        if self.exact:
            assert code == self.expected(one, whom, aim, flags, extra), (one, aim, flags, extra)
        if code:
            return
        if one.kind == LEAF:
            assert made == s
            self.started(one, whom, aim, None)
            return
        assert made not in self.sockets
        leg = self.add(made, "leg", PENDING)
        leg.root = one
        self.started(one, whom, aim, leg)

    def expected(self, one: Socket, whom: int, aim: str, flags: int, extra: str) -> int:
        if (code := one.may_not_join()) != 0:
            return code
        target = self.sockets.get(whom)
        if aim == "null":
            return codes.WSAEFAULT
        if aim == "family":
            return codes.WSAEAFNOSUPPORT
        if aim == "any" or (aim == "whom" and self.rooted and not self.is_named(target)):
            return codes.WSAEADDRNOTAVAIL
        if flags not in (1, 2, 4):
            return codes.WSAEINVAL
        if extra == "bad qos":
            return codes.WSAEFAULT
        if extra == "data" and not self.rooted:
            return codes.WSAEPROTONOSUPPORT
        return 0

    def is_named(self, target: Socket | None) -> bool:
        return target is not None and self.name_of(target.handle) != self.world.any_address()

    def started(self, one: Socket, whom: int, aim: str, leg: Socket | None) -> None:
        """Where the request has gone."""
        if not self.rooted:
            one.state = MEMBER
            return
        one.state, one.other = PENDING, leg
        target = self.sockets.get(whom)
        name = self.name_of(whom) if aim == "whom" else b""
        found = next(
            (
                other
                for other in self.sockets.values()
                if name and other.hears_requests and other.name == name
            ),
            target if name else None,
        )
        # A root invites leaves, a leaf asks roots; whoever else is asked refuses at once.
        fits = found is not None and found.hears_requests and found.kind != one.kind
        if not fits or found is None or self.is_full(found):
            one.fail()
        else:
            found.queue.append(one)

    def is_full(self, target: Socket) -> bool:
        record = self.world.provider.by_handle.get(target.handle)
        return record is None or record.waiting_requests <= len(target.queue)

    @rule(
        number=st.integers(0, 20),
        stray=NUMBERS,
        verdict=st.sampled_from([c.CF_ACCEPT, c.CF_ACCEPT, c.CF_REJECT, c.CF_DEFER, None]),
    )
    def answer(self, number: int, stray: int, verdict: int | None) -> None:
        self.accept(number, self.pick(stray), verdict)

    def accept(self, number: int, stray: int, verdict: int | None) -> None:
        asked = [one.handle for one in self.sockets.values() if one.hears_requests and one.queue]
        s = asked[number % len(asked)] if asked else stray
        condition = None if verdict is None else Condition(verdict, b"yo")
        cell = Cell(0)
        made = self.world.provider.WSPAccept(s, None, None, condition, 0, cell)
        code = cell.value if made == INVALID_SOCKET else 0
        assert code in EVERYWHERE | DOCUMENTED["WSPAccept"], code
        one = self.sockets.get(s)
        if one is None or one.kind == "plain":
            return
        if self.exact and one.hears_requests and one.queue:
            asker = one.queue[0]
            if asker is None:
                assert code in (codes.WSAECONNRESET, codes.WSAEACCES)
                one.queue.pop(0)
            elif verdict == c.CF_DEFER:
                assert code == codes.WSATRY_AGAIN
            elif verdict == c.CF_REJECT:
                assert code == codes.WSAECONNREFUSED
                drop(one.queue.pop(0))
            else:
                self.accepted(one, asker, made, code)
            return
        if self.exact:
            assert code, "somebody was accepted who had not asked"
        if code:
            return
        self.add(made, "leg" if one.kind == ROOT else LEAF, MEMBER)

    @rule(s=NUMBERS, number=st.integers(0, 20))
    def meet(self, s: int, number: int) -> None:
        """A join and its admission: without it histories stay at the door."""
        s = self.pick(s)
        self.join(s, s, number, "listener", c.JL_BOTH, "")
        if self.sockets[s].state == PENDING:
            self.accept(number, s, None)

    def accepted(self, one: Socket, asker: Socket, made: int, code: int) -> None:
        if code in (codes.WSAEOPNOTSUPP, codes.WSAECONNREFUSED):
            drop(one.queue.pop(0))  # a second d_root, or a reservation that does not fit
            return
        assert code == 0, code
        one.queue.pop(0)
        new = self.add(made, "leg" if one.kind == ROOT else LEAF, MEMBER)
        if one.kind == ROOT:
            leg, member, root = new, asker, one
            asker.state = MEMBER
        else:
            assert asker.other is not None
            leg, member, root = asker.other, new, asker
            leg.state, asker.state, asker.other = MEMBER, IDLE, None
        leg.other, member.other, leg.root = member, leg, root
        root.legs.append(leg)

    @rule(s=NUMBERS)
    def close(self, s: int) -> None:
        s = self.pick(s)
        code = self.call("WSPCloseSocket", s)
        one = self.sockets.get(s)
        if one is None or code:
            assert one is None or one.state == CLOSED or code == codes.WSAEWOULDBLOCK
            return
        assert one.state != CLOSED
        self.closed(one)

    def closed(self, one: Socket) -> None:
        before, one.state = one.state, CLOSED
        for asker in one.queue:
            drop(asker)
        one.queue.clear()
        if before == PENDING:
            self.withdraw(one, before)
        if one.kind == ROOT:
            self.dissolve(one)
        elif one.other is not None:
            one.other.end()

    def withdraw(self, one: Socket, before: str) -> None:
        asker = one.root if one.kind == "leg" and one.root is not None else one
        for other in self.sockets.values():
            other.queue[:] = [None if one is asker else one for one in other.queue]
        if asker is not one:
            asker.state, asker.other = IDLE, None
        elif one.other is not None:
            one.other.state = FAILED

    def dissolve(self, root: Socket) -> None:
        for leg in root.legs:
            leg.end()
            if leg.other is not None:
                leg.other.end()
        root.legs.clear()

    @rule(s=NUMBERS, how=st.sampled_from([c.SD_RECEIVE, c.SD_SEND, c.SD_BOTH, 7]))
    def shuts_down(self, s: int, how: int) -> None:
        self.shutdown(self.pick(s), how)

    def shutdown(self, s: int, how: int) -> None:
        code = self.call("WSPShutdown", s, how)
        one = self.sockets.get(s)
        if one is None or code or how == c.SD_RECEIVE:
            return
        if one.kind == ROOT:
            if one.state == PENDING:
                self.withdraw(one, PENDING)
            for asker in one.queue:
                drop(asker)
            one.queue.clear()
            one.state, one.listening = ENDED, False
            self.dissolve(one)
        elif one.other is not None and self.rooted:
            one.other.end()
            one.end()

    # Calls that move nothing

    @rule(s=NUMBERS, to=st.booleans())
    def send(self, s: int, to: bool) -> None:
        s = self.pick(s)
        buffers: tuple[Any, ...] = ([Wsabuf(b"data")], 1, Cell(), 0)
        if to:
            name = self.session or self.world.any_address()
            self.call("WSPSendTo", s, *buffers, name, len(name), None, None, None)
        else:
            self.call("WSPSend", s, *buffers, None, None, None)

    @rule(s=NUMBERS)
    def receive(self, s: int) -> None:
        s = self.pick(s)
        arguments = ([Wsabuf(bytearray(64))], 1, Cell(), Cell(0), None, None, None)
        self.call("WSPRecv", s, *arguments)

    @rule(s=NUMBERS, name=st.sampled_from(["WSPSendDisconnect", "WSPRecvDisconnect"]))
    def disconnect_data(self, s: int, name: str) -> None:
        s = self.pick(s)
        one = self.sockets.get(s)
        if name == "WSPRecvDisconnect":
            self.call(name, s, Wsabuf(bytearray(64)))
        elif one is None or one.kind == "plain":
            self.call(name, s, None)
        else:
            self.shutdown(s, c.SD_SEND)

    @rule(s=NUMBERS)
    def names(self, s: int) -> None:
        s = self.pick(s)
        self.call("WSPGetPeerName", s, bytearray(300), Cell(300))
        self.call("WSPGetSockName", s, bytearray(3), Cell(3))

    @rule(s=NUMBERS, option=st.sampled_from([c.SO_ERROR, c.SO_LINGER, c.SO_RCVBUF, 0x7777]))
    def options(self, s: int, option: int) -> None:
        s = self.pick(s)
        self.call("WSPGetSockOpt", s, c.SOL_SOCKET, option, bytearray(4), Cell(4))
        if option != c.SO_LINGER:
            self.call("WSPSetSockOpt", s, c.SOL_SOCKET, option, b"\0\4\0\0", 4)

    @rule(
        s=NUMBERS,
        code=st.sampled_from(
            [c.FIONREAD, c.SIO_GET_QOS, c.SIO_MULTICAST_SCOPE, c.SIO_MULTIPOINT_LOOPBACK, 7]
        ),
    )
    def ioctl(self, s: int, code: int) -> None:
        s = self.pick(s)
        place = bytearray(256)
        self.call("WSPIoctl", s, code, b"\1\0\0\0", 4, place, 256, Cell(), None, None, None)

    @rule(s=NUMBERS, mask=st.sampled_from([0, c.FD_CONNECT, c.FD_ALL_EVENTS, 1 << 20]))
    def register(self, s: int, mask: int) -> None:
        s = self.pick(s)
        self.call("WSPEventSelect", s, self.event, mask)
        self.call("WSPEnumNetworkEvents", s, self.event, WSANETWORKEVENTS())

    @rule(s=NUMBERS, mask=st.sampled_from([0, c.FD_CONNECT, c.FD_ALL_EVENTS]))
    def post(self, s: int, mask: int) -> None:
        s = self.pick(s)
        self.call("WSPAsyncSelect", s, self.window, 0x400, mask)
        while (message := self.world.objects.get_message(self.window, 0)) is not None:
            assert message.wparam in self.sockets or message.wparam == s

    @rule(one=NUMBERS, two=NUMBERS)
    def select(self, one: int, two: int) -> None:
        one, two = self.pick(one), self.pick(two)
        self.call("WSPSelect", 0, [one, two], [one, two], [one, two], 0.0)

    @rule(s=NUMBERS, whom=NUMBERS)
    def connect(self, s: int, whom: int) -> None:
        s, whom = self.pick(s), self.pick(whom)
        if not self.rooted:
            return  # it would change where the socket sends; that is tested elsewhere
        name = self.name_of(whom)
        self.call("WSPConnect", s, name, len(name), None, None, None, None)

    @rule()
    def cancel(self) -> None:
        assert self.call("WSPCancelBlockingCall") == codes.WSAEINVAL

    # The end

    def teardown(self) -> None:
        self.world.objects.destroy_window(self.window)
        self.world.objects.close_event(self.event)
        self.world.end()
        assert self.world.seam.memory is None or self.world.seam.memory.is_empty
        deadline = time.monotonic() + PATIENCE
        while self.strays() and time.monotonic() < deadline:
            time.sleep(0.005)
        assert not self.strays()
        if self.scheme in ("udp", "ssm"):
            assert not any(memberships(name) for name in self.groups)

    def strays(self) -> set[threading.Thread]:
        """Threads that were not there before; the one that does all background work may stay."""
        new = set(threading.enumerate()) - self.threads
        return {thread for thread in new if not thread.name.startswith("joinleaf")}


def history(scheme: str, *, rooted: bool, count: int) -> Any:
    """The test of one entry."""
    name = f"{scheme}{'' if rooted else '_nonrooted'}"
    kind = type(
        f"History_{name}",
        (History,),
        {"scheme": scheme, "rooted": rooted, "exact": scheme == "mem"},
    )
    test = kind.TestCase  # type: ignore[attr-defined]  # hypothesis makes it
    test.settings = settings(
        max_examples=int(SEQUENCES or count),
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    return test


TestMemory = history("mem", rooted=True, count=150)
TestMemoryNonrooted = history("mem", rooted=False, count=60)
TestMulticast = history("udp", rooted=False, count=60)
TestSourceSpecific = history("ssm", rooted=False, count=40)
TestRooted = history("jl", rooted=True, count=60)
