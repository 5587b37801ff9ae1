"""A thousand legs between two processes: joins, memory, rest, and one message to all."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from tests.package import SRC
from tests.providers.rooted_world import BOUND, until

import joinleaf

LEGS = 1000

LEAVES = """
import resource, sys
limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
import joinleaf
with open("/proc/self/statm") as file:
    before = int(file.read().split()[1]) * resource.getpagesize()
leaves = [joinleaf.join(sys.argv[1], timeout=60) for _ in range(int(sys.argv[2]))]
with open("/proc/self/statm") as file:
    grown = int(file.read().split()[1]) * resource.getpagesize() - before
print(grown // len(leaves), flush=True)
for _ in range(2):
    print(sum(len(leaf.receive(timeout=60).data) for leaf in leaves), flush=True)
sys.stdin.read()
for leaf in leaves:
    leaf.close(timeout=0)
"""


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3 * LEGS:
        pytest.skip(f"only {hard} descriptors allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3 * LEGS), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@pytest.mark.usefixtures("many_descriptors")
def test_a_thousand_leaves_join_rest_and_hear() -> None:
    with joinleaf.open_root("jl://127.0.0.1:0") as root:
        before = resident()
        leaves = subprocess.Popen(
            [sys.executable, "-c", LEAVES, str(root.address), str(LEGS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(SRC)},
        )
        assert leaves.stdout is not None
        assert leaves.stdin is not None
        try:
            each_leaf = int(leaves.stdout.readline())
            root.wait_for_leaves(LEGS, timeout=BOUND)
            each = (resident() - before) / LEGS
            assert each < 16384
            assert each_leaf < 65536

            began, busy = time.monotonic(), time.process_time()
            time.sleep(3.0)  # rest is what is tested
            share = (time.process_time() - busy) / (time.monotonic() - began)
            sys.stdout.write(
                f"{each:.0f} bytes an idle leg at the root, {each_leaf} at the leaf, "
                f"{share:.1%} of a processor at rest\n"
            )
            assert share < 0.4  # a slow processor, under coverage, took a quarter
            assert len(root.leaves) == LEGS

            root.send(b"x" * 100)
            assert leaves.stdout.readline() == b"%d\n" % (100 * LEGS)
            root.send(b"y" * 20_000)
            assert leaves.stdout.readline() == b"%d\n" % (20_000 * LEGS)
            leaves.stdin.close()
            until(lambda: len(root.leaves) == 0, bound=30.0)
            left = [e for e in root.events(timeout=0) if isinstance(e, joinleaf.LeafLeft)]
            assert {event.reason for event in left} == {"closed"}
            assert leaves.wait(BOUND) == 0
        finally:
            leaves.kill()
            leaves.wait(BOUND)
            leaves.stdout.close()
