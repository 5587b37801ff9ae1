"""Ends of programs: forgotten sessions, Ctrl-C, forks. Each in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from tests.package import SRC

import joinleaf
from joinleaf import LeafLeft

BOUND = 20.0


@pytest.fixture
def root() -> Iterator[joinleaf.Root]:
    with joinleaf.open_root("jl://127.0.0.1:0") as made:
        yield made


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SRC), "PYTHONWARNINGS": "error"},
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Its output, with a word on how it ended."""
    try:
        out, err = process.communicate(timeout=BOUND)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert not err, err
    return out


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def reason_of_leave(root: joinleaf.Root) -> str:
    for event in root.events(timeout=BOUND):
        if isinstance(event, LeafLeft):
            return event.reason
    raise AssertionError("nobody left")


FORGETFUL = """
import sys, time, threading
import joinleaf
leaf = joinleaf.join(sys.argv[1])
{more}
leaf.send(b"x")
print(time.monotonic())
"""


@pytest.mark.parametrize(
    "more",
    [
        "",
        "threading.Thread(target=list, args=(leaf,), daemon=True).start()",
        "root = joinleaf.open_root('jl://127.0.0.1:0')",
        "del joinleaf",
    ],
)
def test_forgetting_to_close_is_a_clean_leave_and_no_hang(root: joinleaf.Root, more: str) -> None:
    process = start(FORGETFUL.format(more=more), root.address)
    out = finish(process)
    assert time.monotonic() - float(out) < 1.0
    assert reason_of_leave(root) == "closed"
    assert root.receive(timeout=BOUND).data == b"x"


def test_forgetting_a_root_dissolves_the_session_for_its_leaves() -> None:
    program = """
import joinleaf
root = joinleaf.open_root("jl://127.0.0.1:0")
print(root.address)
root.wait_for_leaves(1, timeout=10)
root.send(b"the last")
"""
    process = start(program)
    with joinleaf.join(hear(process), timeout=BOUND) as leaf:
        assert [message.data for message in leaf] == [b"the last"]
    finish(process)


def test_an_exit_is_not_held_up_by_a_leaf_that_is_stuck(root: joinleaf.Root) -> None:
    program = """
import joinleaf, sys, time
root = joinleaf.open_root("jl://127.0.0.1:0")
print(root.address)
root.wait_for_leaves(1, timeout=10)
print(time.monotonic())
"""
    process = start(program)
    stuck = start(
        "import sys, time, joinleaf; joinleaf.join(sys.argv[1]); print(1); time.sleep(60)",
        hear(process),
    )
    try:
        assert hear(stuck) == "1"
        stuck.send_signal(signal.SIGSTOP)
        began = float(hear(process))
        finish(process)
        assert time.monotonic() - began < 1.0
    finally:
        stuck.kill()
        stuck.communicate(timeout=BOUND)


INTERRUPTED = """
import sys, time, threading
import joinleaf
{before}
try:
    print("waiting")
    {call}
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize(
    ("before", "call"),
    [
        ("leaf = joinleaf.join(sys.argv[1])", "leaf.receive()"),
        ("leaf = joinleaf.join(sys.argv[1])", "leaf.send_many([bytes(1 << 20)] * 64)"),
        ("leaf = joinleaf.join(sys.argv[1])", "list(leaf.events())"),
        ("listener = joinleaf.listen('jl://127.0.0.1:0')", "listener.accept()"),
        ("root = joinleaf.open_root('jl://127.0.0.1:0')", "root.wait_for_leaves(1)"),
        ("leaf = joinleaf.join(sys.argv[1])", "[message for message in leaf]"),
    ],
)
def test_ctrl_c_ends_every_wait_at_once(root: joinleaf.Root, before: str, call: str) -> None:
    process = start(INTERRUPTED.format(before=before, call=call), root.address)
    try:
        assert hear(process) == "waiting"
        # The wait begins a moment after the word; a signal before it would end the print.
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert hear(process) == "interrupted"
        began = time.monotonic()
    finally:
        out = finish(process)
    assert out == ""
    assert time.monotonic() - began < 2.0
    if before.startswith("leaf") and "send" not in call:  # else its data are before its leave
        assert reason_of_leave(root) == "closed"


def test_a_session_goes_on_after_ctrl_c(root: joinleaf.Root) -> None:
    program = """
import sys, joinleaf
with joinleaf.join(sys.argv[1]) as leaf:
    try:
        print("waiting")
        leaf.receive()
    except KeyboardInterrupt:
        print("interrupted")
    print(leaf.receive(timeout=10).data)
    leaf.send(b"back")
"""
    process = start(program, root.address)
    assert hear(process) == "waiting"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert hear(process) == "interrupted"
    root.send(b"hello")
    assert root.receive(timeout=BOUND).data == b"back"
    assert finish(process) == "b'hello'\n"


FORK = """
import os, sys, warnings
import joinleaf
warnings.simplefilter("ignore", DeprecationWarning)  # of fork with threads, from Python 3.12 on
leaf = joinleaf.join(sys.argv[1])
root = joinleaf.open_root("jl://127.0.0.1:0")
own = joinleaf.join(root.address)
root.wait_for_leaves(1, timeout=10)
leaf.fileno()
child = os.fork()
if child == 0:
    {child}
    sys.exit(0)
{parent}
_, status = os.waitpid(child, 0)
assert status == 0, status
leaf.send(b"still here")
root.send(b"me too")
assert own.receive(timeout=10).data == b"me too"
assert leaf.receive(timeout=10).data == b"good"
print("done")
"""


@pytest.mark.parametrize(
    "child",
    [
        "pass",
        "leaf.close(); root.close(); own.close()",
        "del leaf, root, own; import gc; gc.collect()",
        "with joinleaf.join(sys.argv[1]) as mine: mine.send(b'child')",
    ],
)
def test_a_forked_child_takes_no_leave_for_its_parent(root: joinleaf.Root, child: str) -> None:
    process = start(FORK.format(child=child, parent=""), root.address)
    root.wait_for_leaves(1, timeout=BOUND)
    while root.receive(timeout=BOUND).data != b"still here":
        pass
    root.send(b"good")
    assert finish(process) == "done\n"


def test_a_forked_child_has_none_of_its_parents_sessions(root: joinleaf.Root) -> None:
    child = """
    for call in (leaf.receive, lambda: leaf.send(b"x"), lambda: root.send(b"y")):
        try:
            call()
        except joinleaf.SessionClosedError:
            pass
        else:
            raise SystemExit(1)
    assert leaf.fileno() == root.fileno() == -1"""
    process = start(FORK.format(child=child.strip(), parent=""), root.address)
    assert root.receive(timeout=BOUND).data == b"still here"
    root.send(b"good")
    assert finish(process) == "done\n"


def test_the_death_of_a_parent_is_seen_although_its_child_lives_on(root: joinleaf.Root) -> None:
    program = """
import os, sys, time, joinleaf
leaf = joinleaf.join(sys.argv[1])
child = os.fork()
if child == 0:
    sys.stdin.read(1)  # until the test lets go
    os._exit(0)
print(child)
time.sleep(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", program, str(root.address)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SRC)},
    )
    try:
        assert hear(process)
        process.kill()
        assert reason_of_leave(root) == "lost"
    finally:
        process.kill()
        process.communicate(timeout=BOUND)


def test_ctrl_c_in_the_middle_of_a_send_corrupts_no_message(root: joinleaf.Root) -> None:
    """At any moment of it: what arrives is whole and in order; at the worst the leg is lost."""
    program = """
import gc, signal, sys, time
import joinleaf
gc.disable()  # earlier leaves would be collected in a send, and Python ignores what strikes there
armed = interrupted = 0
def strike(*_):
    global armed, interrupted
    if armed:
        armed, interrupted = 0, interrupted + 1
        raise KeyboardInterrupt
signal.signal(signal.SIGALRM, strike)
block = [bytearray(300_000) for n in range(4)]
starts = 0
while interrupted < 60 and starts < 60:
    starts += 1
    leaf = joinleaf.join(sys.argv[1])
    signal.setitimer(signal.ITIMER_REAL, 0.005, 0.0031)
    try:
        for _ in range(40):
            for number, buffer in enumerate(block):
                buffer[:] = bytes([number]) * 300_000
            armed = 1
            try:
                leaf.send_many(block)
            except KeyboardInterrupt:
                pass
            armed = 0
            for buffer in block:
                buffer[:] = bytes([9]) * 300_000
    except joinleaf.SessionError:
        pass
    armed = 0
    signal.setitimer(signal.ITIMER_REAL, 0)
    leaf.close()
print(interrupted)
"""
    process = start(program, root.address)
    due: dict[joinleaf.Address, int] = {}
    while process.poll() is None or root.stats()["bytes_received_waiting"]:
        try:
            batch = root.receive_many(timeout=0.2)
        except joinleaf.SessionTimeoutError:
            continue
        for number, data in enumerate(batch.messages, batch.sequence):
            assert number == due.get(batch.sender, 0)
            assert data == bytes([number % 4]) * 300_000
            due[batch.sender] = number + 1
    assert int(finish(process)) >= 60
    assert sum(due.values()) > 100
