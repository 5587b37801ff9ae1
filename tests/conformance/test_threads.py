"""Several threads in one provider: calls that wait are ended by others, events are read by many.

``JOINLEAF_LOAD_SECONDS`` says how long the load lasts; the default suits a test run.
"""

from __future__ import annotations

import functools
import itertools
import os
import random
import threading
import time
from collections.abc import Callable

import pytest
from tests.conformance.test_clauses_result import BOTH_KINDS, parties
from tests.conformance.world import PATIENCE, RefusedError, Task, World

from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.winsock.memory import Cell, Wsabuf
from joinleaf.winsock.objects import ThreadState
from joinleaf.winsock.types import INVALID_SOCKET, WSANETWORKEVENTS

LOAD_SECONDS = float(os.environ.get("JOINLEAF_LOAD_SECONDS", "1.5"))
ROUNDS = 20


@BOTH_KINDS
def test_closing_a_socket_ends_its_blocked_join_in_another_thread(rooted: World, kind: str) -> None:
    for _ in range(ROUNDS):
        s, listener = parties(rooted, kind)
        name = rooted.local(listener)
        asking = Task(functools.partial(rooted.join, s, name))
        assert rooted.call("WSPSelect", 0, [listener], None, None, PATIENCE) == 1
        rooted.close(s)
        assert asking.code() == codes.WSAEINTR


@BOTH_KINDS
def test_a_blocked_join_is_cancelled_from_another_thread(rooted: World, kind: str) -> None:
    """What WSPCancelBlockingCall does for its own thread, done through the thread's state."""
    s, listener = parties(rooted, kind)
    name = rooted.local(listener)
    states: list[ThreadState] = []

    def ask() -> int:
        states.append(rooted.objects.thread())
        return rooted.join(s, name)

    asking = Task(ask)
    assert rooted.call("WSPSelect", 0, [listener], None, None, PATIENCE) == 1
    deadline = time.monotonic() + PATIENCE
    while not states[0].cancel_blocking_call():
        assert time.monotonic() < deadline, "the call never blocked"
        time.sleep(0.001)
    assert asking.code() == codes.WSAEINTR


@pytest.mark.parametrize("call", ["accept", "receive", "select"])
def test_closing_a_socket_ends_whatever_waits_for_it(rooted: World, call: str) -> None:
    waits: dict[str, Callable[[int], object]] = {
        "accept": rooted.accept,
        "receive": rooted.receive,
        "select": lambda s: rooted.call("WSPSelect", 0, [s], None, None, PATIENCE),
    }
    for _ in range(ROUNDS):
        pair = rooted.pair()
        s = pair.root if call == "accept" else pair.leaf
        waiting = Task(functools.partial(waits[call], s))
        assert waiting.lasts(0.002)
        rooted.close(s)
        assert waiting.code() in (codes.WSAEINTR, codes.WSAENOTSOCK)


def test_a_blocked_receive_of_a_group_is_ended_by_closing(group: World) -> None:
    s = group.member(group.session(), flags=c.JL_RECEIVER_ONLY)
    waiting = Task(lambda: group.receive(s))
    assert waiting.lasts()
    group.close(s)
    assert waiting.code() in (codes.WSAEINTR, codes.WSAENOTSOCK)


def test_cleanup_ends_what_waits_in_other_threads(rooted: World) -> None:
    root, listener = rooted.root(), rooted.listener()
    name, pair = rooted.local(listener), rooted.pair()
    calls: list[Callable[[], object]] = [
        lambda: rooted.join(root, name),
        lambda: rooted.accept(pair.root),
        lambda: rooted.receive(pair.leaf),
    ]
    waiting = [Task(call) for call in calls]
    assert all(task.lasts() for task in waiting)
    rooted.call("WSPCleanup")
    ends = {codes.WSAEINTR, codes.WSAENOTSOCK, codes.WSAENETDOWN, codes.WSAECONNRESET}
    for task in waiting:
        with pytest.raises(RefusedError) as refused:
            task.result()
        assert refused.value.code in ends


def test_events_are_registered_changed_and_read_by_many(rooted: World) -> None:
    """Whoever enumerates gets an event or another does: each is seen by exactly one of them."""
    pair = rooted.pair()
    event = rooted.objects.create_event()
    rooted.call("WSPEventSelect", pair.leaf, event, c.FD_READ | c.FD_CLOSE)
    heard: list[bytes] = []
    over = threading.Event()
    total = 200

    def read() -> None:
        while not over.is_set():
            rooted.objects.wait(event, 0.05)
            cells = WSANETWORKEVENTS()
            rooted.call("WSPEnumNetworkEvents", pair.leaf, event, cells)
            if not cells.lNetworkEvents & c.FD_READ:
                continue
            memory, count = Wsabuf(bytearray(16)), Cell()
            code = rooted.code("WSPRecv", pair.leaf, [memory], 1, count, Cell(0), None, None, None)
            assert code in (0, codes.WSAEWOULDBLOCK, codes.WSAEINPROGRESS)
            if not code:
                heard.append(memory.data[: count.value])
            if len(heard) == total:
                over.set()

    def change() -> None:
        while not over.is_set():
            rooted.call("WSPEventSelect", pair.leaf, event, c.FD_READ | c.FD_CLOSE)
            over.wait(0.003)

    tasks = [Task(read) for _ in range(3)] + [Task(change)]
    for number in range(total):
        rooted.send(pair.root, b"%d" % number)
    assert over.wait(3 * PATIENCE), f"{len(heard)} of {total} messages were heard"
    for task in tasks:
        task.result()
    assert sorted(heard, key=int) == [b"%d" % number for number in range(total)]


def test_joins_closes_and_events_under_load_never_hang(rooted: World) -> None:
    """Roots, leaves and listeners come and go on six threads, each doing what it likes."""
    deadline = time.monotonic() + LOAD_SECONDS
    root = rooted.root()
    rooted.nonblocking(root)
    name = rooted.local(root)
    listener = rooted.listener()
    rooted.nonblocking(listener)
    invited = rooted.local(listener)
    window = rooted.objects.create_window()
    counts = itertools.count()
    rooted.provider.join_timeout = 0.5

    def leaf(dice: random.Random) -> None:
        s = rooted.leaf()
        if dice.random() < 0.7:
            rooted.nonblocking(s)
        rooted.code("WSPJoinLeaf", s, name, len(name), None, None, None, None, c.JL_BOTH)
        if dice.random() < 0.3:
            rooted.code("WSPAsyncSelect", s, window, 0x400, c.FD_ALL_EVENTS)
        rooted.code("WSPSend", s, [Wsabuf(b"x")], 1, Cell(), 0, None, None, None)
        rooted.close(s)

    def acceptor(dice: random.Random) -> None:
        for s in (root, listener):
            made = rooted.provider.WSPAccept(s, None, None, None, 0, Cell())
            if made != INVALID_SOCKET and dice.random() < 0.9:
                rooted.close(made)

    def inviter(dice: random.Random) -> None:
        cell = Cell()
        made = rooted.provider.WSPJoinLeaf(
            root, invited, len(invited), None, None, None, None, c.JL_BOTH, cell
        )
        if made != INVALID_SOCKET and dice.random() < 0.9:
            rooted.close(made)

    def watcher(dice: random.Random) -> None:
        event = rooted.objects.create_event()
        mask = dice.choice([0, c.FD_ACCEPT, c.FD_ALL_EVENTS])
        rooted.code("WSPEventSelect", root, event, mask)
        rooted.code("WSPEnumNetworkEvents", root, event, WSANETWORKEVENTS())
        rooted.code("WSPSelect", 0, [root, listener], [root], None, 0.001)
        rooted.code("WSPEventSelect", root, None, 0)
        rooted.objects.close_event(event)
        while rooted.objects.get_message(window, 0) is not None:
            pass

    def run(work: Callable[[random.Random], None], seed: int) -> None:
        dice = random.Random(seed)
        while time.monotonic() < deadline:
            work(dice)
            next(counts)

    works = [leaf, leaf, acceptor, inviter, watcher, leaf]
    for thread in [Task(functools.partial(run, work, seed)) for seed, work in enumerate(works)]:
        thread.lasts(LOAD_SECONDS)
        thread.result()
    assert next(counts) > len(works)
