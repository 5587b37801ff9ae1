"""jl:// between hosts: pulled cables, addresses that go and come back, IPv6 with a scope."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from tests.netns.lan import Host, Lan, Process

ROOT = """
import sys, threading, time
import joinleaf
dead_after = float(sys.argv[1])
root = joinleaf.open_root("jl://:7400", open=True, dead_after=dead_after, linger=0.5)
def tell():
    for event in root.events():
        said = type(event).__name__, getattr(event, "reason", "")
        print(*said, round(time.monotonic(), 2), flush=True)
threading.Thread(target=tell, daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    root.send(line.strip().encode(), timeout=0)
root.close()
"""

LEAF = """
import sys, time
import joinleaf
where, dead_after = sys.argv[1], float(sys.argv[2])
leaf = joinleaf.join(where, dead_after=dead_after, linger=0.5, timeout=10)
print("joined", leaf.peer_address, flush=True)
try:
    for message in leaf:
        print("heard", message.data.decode(), flush=True)
    print("closed", flush=True)
except joinleaf.SessionBrokenError as error:
    print("broken", error.reason, round(time.monotonic(), 2), flush=True)
"""


def started(lan: Lan, dead_after: float) -> tuple[Host, Host, Process, Process]:
    """A root on the first host and a leaf of it on the second."""
    one, two = lan.hosts[:2]
    root = one.python(ROOT, str(dead_after))
    root.hear("ready")
    leaf = two.python(LEAF, f"jl://{one.ipv4}:7400", str(dead_after))
    leaf.hear("joined")
    root.hear("LeafJoined")
    return one, two, root, leaf


def test_a_pulled_cable_is_seen_at_both_ends_within_the_bound(
    make_lan: Callable[[int], Lan],
) -> None:
    _, two, root, leaf = started(make_lan(2), 1.0)
    with root, leaf:
        root.say("hello")
        assert leaf.hear("heard") == "heard hello"
        pulled = time.monotonic()
        two.ip("link set eth0 down")
        *why, at_root = root.hear("LeafLeft").split(" ")
        assert why == ["LeafLeft", "timed", "out"]
        said = leaf.hear("broken")
        # A leaf may be told by its own system that the way is gone, which is sooner.
        assert said.startswith(("broken timed out", "broken lost"))
        at_leaf = float(said.rsplit(" ", 1)[1])
        for seen in (float(at_root), at_leaf):
            assert seen - pulled < 1.0 + 1.0  # the bound, and what a busy machine takes


def test_a_cable_pulled_for_less_than_the_bound_costs_nothing(
    make_lan: Callable[[int], Lan],
) -> None:
    _, two, root, leaf = started(make_lan(2), 6.0)
    with root, leaf:
        two.ip("link set eth0 down")
        root.say("while it was out")
        time.sleep(1.0)  # being out is what is tested
        two.ip("link set eth0 up")
        assert leaf.hear("heard") == "heard while it was out"


def test_an_address_that_goes_and_comes_back_within_the_bound_costs_nothing(
    make_lan: Callable[[int], Lan],
) -> None:
    _, two, root, leaf = started(make_lan(2), 6.0)
    with root, leaf:
        two.ip(f"addr del {two.ipv4}/24 dev eth0")
        root.say("while it was away")
        time.sleep(1.0)  # being away is what is tested
        two.ip(f"addr add {two.ipv4}/24 dev eth0")
        assert leaf.hear("heard") == "heard while it was away"


def test_others_hear_on_while_one_leafs_cable_is_out(make_lan: Callable[[int], Lan]) -> None:
    lan = make_lan(3)
    one, two, root, leaf = started(lan, 2.0)
    other = lan.hosts[2].python(LEAF, f"jl://{one.ipv4}:7400", "2.0")
    with root, leaf, other:
        other.hear("joined")
        root.hear("LeafJoined")
        two.ip("link set eth0 down")
        for number in range(20):
            root.say(f"number {number}")
            assert other.hear("heard") == f"heard number {number}"
        root.hear("LeafLeft")
        root.say("afterwards")
        assert other.hear("heard") == "heard afterwards"


@pytest.mark.parametrize("version", ["IPv4", "IPv6", "link-local"])
def test_a_leaf_joins_over_the_network(lan: Lan, version: str) -> None:
    one, two = lan.hosts[:2]
    with one.python(ROOT, "5") as root:
        root.hear("ready")
        host = {
            "IPv4": one.ipv4,
            "IPv6": f"[{one.ipv6}]",
            "link-local": f"[{link_local(one)}%eth0]",
        }[version]
        with two.python(LEAF, f"jl://{host}:7400", "5") as leaf:
            leaf.hear("joined")
            root.hear("LeafJoined")
            root.say("across")
            assert leaf.hear("heard") == "heard across"
            root.finish()
            leaf.hear("closed")


def link_local(host: Host) -> str:
    said = host.check_output("ip", "-6", "-o", "addr", "show", "dev", "eth0", "scope", "link")
    return said.split("inet6 ")[1].split("/")[0]


def test_a_host_that_is_not_there_is_unreachable_or_silent_but_never_a_hang(lan: Lan) -> None:
    program = """
import sys, joinleaf
try:
    joinleaf.join(sys.argv[1], timeout=1.0)
except OSError as error:
    print(type(error).__name__, error.errno is not None, flush=True)
"""
    for where in ("jl://10.77.0.99:7400", "jl://192.0.2.1:7400", "jl://[fd77::99]:7400"):
        with lan.hosts[0].python(program, where) as process:
            assert process.finish().split()[1] == "True"
