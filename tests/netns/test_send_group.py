"""``joinleaf send`` by a group between hosts: one copy on the wire, and who is deaf to it."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.netns.lan import Host, Lan, Process

SIZE = 6_000_000

DEAF = """
table ip deaf { chain in { type filter hook input priority 0; ip daddr 239.0.0.0/8 drop; }; }
table ip6 deaf { chain in { type filter hook input priority 0; ip6 daddr ff15::/16 drop; }; }
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.bin"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def joinleaf(stack: ExitStack, host: Host, *arguments: str | Path | int) -> Process:
    command = (sys.executable, "-m", "joinleaf", *map(str, arguments))
    return stack.enter_context(host.start(*command))


def deafen(host: Host) -> None:
    """The host still joins the group, and nothing of it gets through."""
    if shutil.which("nft") is None:
        pytest.skip("nftables is not installed")
    host.check_output("sh", "-c", f"echo '{DEAF}' | nft -f -")


def receivers(
    stack: ExitStack, lan: Lan, address: str, folder: Path, *arguments: str
) -> list[Process]:
    return [
        joinleaf(
            stack, host, "receive", address, "--to", folder / str(number), "--as", f"h{number}",
            "--json", *arguments,
        )
        for number, host in enumerate(lan.hosts[1:], 2)
    ]  # fmt: skip


def events(said: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.splitlines()]


def carriers(summary: dict[str, Any]) -> dict[str, str]:
    assert {leaf["state"] for leaf in summary["leaves"]} == {"verified"}
    return {leaf["name"]: leaf["carrier"] for leaf in summary["leaves"]}


def left_by(host: Host) -> int:
    """Bytes that have left the host's interface."""
    return int(host.check_output("cat", "/sys/class/net/eth0/statistics/tx_bytes"))


def listening(sender: Process) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(sender.hear("listening"))
    return event


def same_everywhere(folder: Path, image: Path, hosts: int) -> None:
    data = image.read_bytes()
    for number in range(2, hosts + 1):
        assert (folder / str(number) / image.name).read_bytes() == data, number


def test_one_copy_leaves_the_host_for_three_without_being_asked_for(
    make_lan: Callable[[int], Lan], stack: ExitStack, image: Path, tmp_path: Path
) -> None:
    lan = make_lan(4)
    root = lan.hosts[0]
    # jls, as it is by default: sealed.
    sender = joinleaf(stack, root, "send", image, "-n", 3, "--json", "--rate", "32M")
    heard = listening(sender)
    assert heard["group"].startswith("239.255.")
    line = heard["addresses"][0].strip('"')
    assert line.startswith(f"jls://{root.ipv4}:7400/#")
    before = left_by(root)
    leaves = receivers(stack, lan, line, tmp_path)
    summary = events(sender.finish())[-1]
    for leaf in leaves:
        leaf.finish()
    assert carriers(summary) == {"h2": "group", "h3": "group", "h4": "group"}
    same_everywhere(tmp_path, image, 4)
    assert SIZE < left_by(root) - before < 1.8 * SIZE  # headers, and what went before the probe


def test_a_leaf_that_cannot_hear_the_group_is_served_by_its_leg(
    make_lan: Callable[[int], Lan], stack: ExitStack, image: Path, tmp_path: Path
) -> None:
    lan = make_lan(4)
    deafen(lan.hosts[2])
    address = f"jl://{lan.hosts[0].ipv4}:7400"
    sender = joinleaf(
        stack, lan.hosts[0], "send", image, "-a", address, "--open", "-n", 3, "--json",
        "--rate", "16M",
    )  # fmt: skip
    listening(sender)
    leaves = receivers(stack, lan, address, tmp_path)
    # The bound of two seconds is over before the file is.
    warned = sender.hear("warning", errors=True)
    assert re.search(r"10\.77\.0\.3:\d+ does not hear 239\.255\.\S+: its leg serves it", warned)
    summary = events(sender.finish())[-1]
    for leaf in leaves:
        leaf.finish()
    assert carriers(summary) == {"h2": "group", "h3": "leg", "h4": "group"}
    same_everywhere(tmp_path, image, 4)
    assert SIZE < summary["leg_bytes"] < 2.5 * SIZE


def test_a_leaf_that_grows_deaf_in_the_middle_lacks_nothing(
    make_lan: Callable[[int], Lan], stack: ExitStack, image: Path, tmp_path: Path
) -> None:
    lan = make_lan(4)
    address = f"jl://{lan.hosts[0].ipv4}:7400"
    sender = joinleaf(
        stack, lan.hosts[0], "send", image, "-a", address, "--open", "-n", 3, "--json",
        "--rate", "12M",
    )  # fmt: skip
    listening(sender)
    leaves = receivers(stack, lan, address, tmp_path)
    sender.hear('"carrier": "group"')
    deafen(lan.hosts[2])
    warned = sender.hear("warning", errors=True)
    assert re.search(r"10\.77\.0\.3:\d+ hears no more of 239\.255", warned)
    summary = events(sender.finish())[-1]
    for leaf in leaves:
        leaf.finish()
    assert carriers(summary) == {"h2": "group", "h3": "leg", "h4": "group"}
    same_everywhere(tmp_path, image, 4)


def test_ipv6_has_a_group_of_its_own_and_without_any_route_the_legs_serve(
    make_lan: Callable[[int], Lan], stack: ExitStack, image: Path, tmp_path: Path
) -> None:
    lan = make_lan(4)
    root = lan.hosts[0]
    address = f"jl://[{root.ipv6}]:7400"
    send = ("send", image, "-a", address, "--open", "-n", 3, "--json", "--rate", "32M")
    for number, (kind, group) in enumerate((("group", "[ff15::"), ("leg", ""))):
        if kind == "leg":
            root.ip(f"addr del {root.ipv4}/24 dev eth0")
            route = "route del multicast ff00::/8 dev eth0 table local"
            root.check_output("ip", "-6", *route.split())
        sender = joinleaf(stack, root, *send)
        heard = listening(sender)
        assert heard["group"].startswith(group)
        assert bool(heard["group"]) is bool(group)
        assert ("no route to the group" in heard["why_no_group"]) is (kind == "leg")
        leaves = receivers(stack, lan, address, tmp_path / str(number))
        summary = events(sender.finish())[-1]
        for leaf in leaves:
            leaf.finish()
        assert set(carriers(summary).values()) == {kind}
        same_everywhere(tmp_path / str(number), image, 4)
