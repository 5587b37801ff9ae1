"""Five traps that other one-to-many systems fall into, each set for jl://."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from tests.package import SRC

import joinleaf
from joinleaf import LeafJoined, LeafLeft

BOUND = 10.0
HERE = "jl://127.0.0.1:0"
BIG = 1 << 20

LEAF = """
import sys, joinleaf
leaf = joinleaf.join(sys.argv[1], name="station")
print(leaf.local_address, flush=True)
for message in leaf:
    print(message.sequence, message.gap, message.data.decode(), flush=True)
"""

ROOT = """
import sys, joinleaf
root = joinleaf.open_root(sys.argv[1])
print(root.address, root.session_id.hex(), flush=True)
root.wait_for_leaves(int(sys.argv[2]))
print("all", flush=True)
sys.stdin.read()
"""


class Program:
    """A program that talks by lines, ended at the end of the block."""

    def __init__(self, program: str, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(SRC)},
        )

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=BOUND)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.005)


def test_trap_1_control_on_a_shared_port_reaches_one_random_process() -> None:
    """sccn/liblsl#282: here a port has one owner, and a leg one connection of its own."""
    with joinleaf.open_root(HERE) as root:
        for second in (joinleaf.open_root, joinleaf.listen):
            with pytest.raises(OSError, match="in use") as error:
                second(str(root.address))
            assert error.value.errno == errno.EADDRINUSE
        leaves = {leaf.local_address: leaf for leaf in (joinleaf.join(root.address) for _ in "abc")}
        for view in root.wait_for_leaves(3, timeout=BOUND):
            view.send(str(view.address).encode())
        for address, leaf in leaves.items():
            assert leaf.receive(timeout=BOUND).data == str(address).encode()
            leaf.close()


def test_trap_2_a_leave_that_is_the_death_of_what_stands_between() -> None:
    """Measured on Zenoh: the router's death looks like its clients' leaving.

    Here leaving, dying and the end of the root are three different words.
    """
    with joinleaf.open_root(HERE) as root:
        left = joinleaf.join(root.address, name="left")
        with Program(LEAF, root.address) as died:
            died.hear()
            root.wait_for_leaves(2, timeout=BOUND)
        left.close()
        until(lambda: not root.leaves)
        reasons = {e.leaf.name: e.reason for e in root.events(timeout=0) if isinstance(e, LeafLeft)}
        assert reasons == {"left": "closed", "station": "lost"}
    with Program(ROOT, HERE + "?plane=nonrooted", 2) as root_process:
        address = root_process.hear().split()[0]
        with joinleaf.join(address) as one, joinleaf.join(address) as other:
            assert root_process.hear() == "all"
            root_process.kill()
            for leaf in (one, other):
                with pytest.raises(joinleaf.SessionBrokenError) as error:
                    leaf.receive(timeout=BOUND)
                assert error.value.reason == "lost"


def test_trap_3_a_rebooted_member_taken_up_in_mid_stream() -> None:
    """fogproject#1742: here every start is somebody else, and hears what is sent from then on."""
    with joinleaf.open_root(HERE) as root:
        with Program(LEAF, root.address) as first:
            assert first.hear()
            old = root.wait_for_leaves(1, timeout=BOUND)[0]
            root.send(b"before")
            assert first.hear() == "0 0 before"
        with Program(LEAF, root.address) as second:
            assert second.hear()
            until(lambda: [e for e in list(root._events) if isinstance(e, LeafLeft)])
            new = root.wait_for_leaves(1, timeout=BOUND)[0]
            assert new.name == old.name == "station"
            assert new is not old
            assert new.key != old.key
            assert new.incarnation != old.incarnation
            root.send(b"for the old one", to=[old])
            root.send(b"after")
            assert second.hear() == "1 0 after"
            told = [e for e in root.events(timeout=0) if isinstance(e, LeafJoined | LeafLeft)]
            kinds = [(type(e).__name__, e.leaf.key) for e in told]
            assert kinds[:3] == [("LeafJoined", 1), ("LeafLeft", 1), ("LeafJoined", 2)]
    with Program(ROOT, HERE, 1) as first_root:
        address, identity = first_root.hear().split()
        leaf = joinleaf.join(address)
    with Program(ROOT, address, 1) as second_root:
        assert second_root.hear().split() != [address, identity]
        with pytest.raises(joinleaf.SessionBrokenError):
            leaf.receive(timeout=BOUND)
        with joinleaf.join(address) as again:
            assert again.session_id.hex() != identity == leaf.session_id.hex()
        leaf.close()


def test_trap_4_waiting_for_leaves_that_can_no_longer_come() -> None:
    """clonezilla#122: who has left does not count, and the wait ends and says what it has."""
    with joinleaf.open_root(HERE) as root:
        joinleaf.join(root.address).close()
        until(lambda: [e for e in list(root._events) if isinstance(e, LeafLeft)])
        with joinleaf.join(root.address):
            with pytest.raises(TimeoutError, match=r"1 of 2 leaves joined within 0\.1 s"):
                root.wait_for_leaves(2, timeout=0.1)
            assert len(root.wait_for_leaves(1, timeout=0)) == 1


def test_trap_5_a_default_policy_that_silently_starves() -> None:
    """Aeron's max, Zenoh's drop, PUB's high-water mark.

    Here the sender is slowed, and sees who it waits for; the policies that lose say so at both
    ends.
    """
    with joinleaf.open_root(HERE) as root, joinleaf.join(root.address) as idle:
        view = root.wait_for_leaves(1, timeout=BOUND)[0]
        sent = 0
        with contextlib.suppress(joinleaf.SessionTimeoutError):
            while sent < 64:
                root.send(bytes(BIG), timeout=0.2)
                sent += 1
        assert sent < 64
        assert view.lag > 0
        got = [idle.receive(timeout=BOUND) for _ in range(sent)]
        assert [message.sequence for message in got] == list(range(sent))
        assert {message.gap for message in got} == {0}
        assert view.dropped == 0
    with (
        joinleaf.open_root(HERE, slow="drop", queue_bytes=BIG) as root,
        joinleaf.join(root.address) as idle,
    ):
        view = root.wait_for_leaves(1, timeout=BOUND)[0]
        while not view.dropped:
            root.send(bytes(BIG))
        root.send(bytes(BIG))
        total = int(root.stats()["messages_sent"])
        heard = missing = 0
        while heard + missing < total:
            batch = idle.receive_many(timeout=BOUND)
            heard, missing = heard + len(batch.messages), missing + batch.gap
        assert missing == view.dropped > 0
    with (
        joinleaf.open_root(HERE, slow="expel", queue_bytes=BIG) as root,
        joinleaf.join(root.address) as idle,
    ):
        root.wait_for_leaves(1, timeout=BOUND)
        while root.leaves:
            root.send(bytes(BIG))
        (left,) = [e for e in root.events(timeout=0) if isinstance(e, LeafLeft)]
        assert left.reason == "slow"
        with pytest.raises(joinleaf.SessionBrokenError, match="slow"):
            list(idle)
