"""A leaf's process is stopped for five seconds: each policy does what it says, within its memory.

Three policies by two carriers are six sessions, all at once. Each root is a process, so that its
memory can be told; one process has a leaf in every session and is stopped, another one is not.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.package import SRC

from joinleaf.providers.rooted._group import WINDOW_BYTES

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peaks of memory are read as Linux has them"
)

BOUND = 60.0
STOPPED_S = 5.0
QUEUE_BYTES = 1 << 20
MESSAGE = 50_000
SLACK_BYTES = 3 << 20  # of the allocator, and of a batch on its way
POLICIES = ("wait", "drop", "expel")
GROUP = "?data=239.255.83.61:{port}"

ROOT = """
import json, sys, threading, time
import joinleaf
slow, data, queue, size, seconds = sys.argv[1], sys.argv[2], *map(float, sys.argv[3:])
root = joinleaf.open_root(
    "jl://127.0.0.1:0" + data, slow=slow, queue_bytes=int(queue), dead_after=30, name="root"
)
print(root.address, flush=True)
root.wait_for_leaves(2, timeout=30)
while data and any(leaf.carrier == "leg" for leaf in root.leaves):
    time.sleep(0.01)
left, sent, longest, payload = {}, 0, 0.0, bytes(int(size) - 8)
def watch():
    for event in root.events():
        if isinstance(event, joinleaf.LeafLeft):
            left[event.leaf.name] = event.reason
threading.Thread(target=watch, daemon=True).start()
def send(seconds):
    global sent, longest
    begun = due = time.monotonic()
    while due < begun + seconds:
        before = time.monotonic()
        root.send(sent.to_bytes(8, "big") + payload)
        after = time.monotonic()
        longest, sent, due = max(longest, after - before), sent + 1, max(due, after - 0.1) + 0.00625
        time.sleep(max(0.0, due - after))
def memory(what):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(what))
send(1.0)
longest = 0.0
sys.stdin.readline()
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
rss = memory("VmRSS")
send(seconds)
grown = memory("VmHWM") - rss
deadline = time.monotonic() + 20
while any(leaf.lag for leaf in root.leaves) and time.monotonic() < deadline:
    time.sleep(0.02)
dropped = {leaf.name: leaf.dropped for leaf in root.leaves}
carriers = {leaf.name: leaf.carrier for leaf in root.leaves}
gone = dict(left)
root.close(timeout=10)
print(json.dumps(dict(
    sent=sent, longest=longest, grown=grown, left=gone, dropped=dropped, carriers=carriers
)), flush=True)
"""

LEAVES = """
import json, sys, threading, time
import joinleaf
name, *addresses = sys.argv[1:]
leaves = [joinleaf.join(one, name=name, dead_after=30, timeout=30) for one in addresses]
print("joined", flush=True)
told = [None] * len(leaves)
def receive(index, leaf):
    got = missed = wrong = 0
    silence, heard = 0.0, None
    try:
        while True:
            batch = leaf.receive_many()
            now = time.monotonic()
            silence, heard = max(silence, now - (heard or now)), now
            missed += batch.gap
            for message in batch.messages:
                wrong += int.from_bytes(message[:8], "big") != got + missed
                got += 1
    except (joinleaf.SessionClosedError, joinleaf.SessionBrokenError) as error:
        reason = error.reason
    told[index] = dict(got=got, missed=missed, wrong=wrong, silence=silence, reason=reason)
threads = [threading.Thread(target=receive, args=one) for one in enumerate(leaves)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps(told), flush=True)
"""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def start(stack: ExitStack, program: str, *arguments: object) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SRC)},
    )

    def end() -> None:
        process.kill()
        process.communicate()

    stack.callback(end)
    return process


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def finish(process: subprocess.Popen[str]) -> Any:
    return json.loads(process.communicate(timeout=BOUND)[0])


def test_a_stopped_leaf_is_waited_for_dropped_to_or_expelled_by_either_carrier(
    stack: ExitStack,
) -> None:
    cases = [(slow, carrier) for carrier in ("leg", "group") for slow in POLICIES]
    roots = []
    for number, (slow, carrier) in enumerate(cases):
        data = GROUP.format(port=48361 + number) if carrier == "group" else ""
        seconds = STOPPED_S + 1.0
        roots.append(start(stack, ROOT, slow, data, QUEUE_BYTES, MESSAGE, seconds))
    addresses = [line(root) for root in roots]
    stops, runs = (start(stack, LEAVES, name, *addresses) for name in ("stops", "runs"))
    assert (line(stops), line(runs)) == ("joined", "joined")
    time.sleep(1.5)  # the roots send, and everything is as it is to be
    stops.send_signal(signal.SIGSTOP)
    for root in roots:
        assert root.stdin is not None
        root.stdin.write("\n")
        root.stdin.flush()
    time.sleep(STOPPED_S)  # being stopped is what is tested
    stops.send_signal(signal.SIGCONT)
    told = [finish(root) for root in roots]
    at_stopped, at_running = finish(stops), finish(runs)
    for case, root, stopped, running in zip(cases, told, at_stopped, at_running, strict=True):
        check(case, root, stopped, running)


def check(
    case: tuple[str, str], root: dict[str, Any], stopped: dict[str, Any], running: dict[str, Any]
) -> None:
    slow, carrier = case
    told = (case, root, stopped, running)
    bound = QUEUE_BYTES + (WINDOW_BYTES if carrier == "group" else 0)
    assert root["grown"] < bound + SLACK_BYTES, told
    assert (running["got"], running["missed"]) == (root["sent"], 0), told
    assert stopped["wrong"] == running["wrong"] == 0, told
    if slow == "wait":
        assert root["longest"] > STOPPED_S / 3, told  # buffers of the system take the first part
        assert (stopped["got"], stopped["missed"]) == (root["sent"], 0), told
        assert not root["left"], told
        return
    assert root["longest"] < 1.5, told  # nobody waits; but the machine may be busy
    assert running["silence"] < 2.5, told
    if slow == "drop":
        dropped = root["dropped"]["stops"]
        # What was in the leaf's buffer when the root gave up on it has reached it all the same.
        assert 0 < stopped["missed"] <= dropped, told
        assert carrier == "group" or stopped["missed"] == dropped, told
        assert stopped["got"] + stopped["missed"] == root["sent"], told
        assert not root["left"], told
    else:
        assert root["left"] == {"stops": "slow"}, told
        assert stopped["reason"] == "slow", told
        assert stopped["missed"] == 0, told
