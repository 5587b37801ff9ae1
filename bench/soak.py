"""A soak: leaves that come, go, crash and are put out, for as long as you like, in namespaces.

``python -m bench.soak --seconds 600``. Two sessions, one of each front, both with a multicast
stream, on a network that loses 2 per cent of the packets at every leaf; each leaf visits either, by
the group or by its leg. What must hold: every visit sees numbers without a gap, from its welcome
on; whoever is there at the end has everything; and in the last fifth of the time no process has
more descriptors, threads or memory than in the second fifth, and no host a membership when all have
left. Prints the seed, and ends with status 1 if something does not hold.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench.fleet import Fleet, Program, wait_for
from bench.lan import BenchLan, lan

__all__ = ["main", "soak"]

FRONTS: Final = ("sync", "aio")
GROUPS: Final = {"sync": "239.255.61.1:7461", "aio": "239.255.61.2:7462"}
PORTS: Final = {"sync": 7463, "aio": 7464}
CRASH_EVERY_S: Final = 3.0
GRACE_S: Final = 40.0
"""After the time is over: for last visits and farewells."""

MORE_MEMORY: Final = 16 << 20
"""What allocators and caches may still come to need; a leak of a session a visit is far above."""


def soak(seconds: float, *, hosts: int = 4, loss: float = 0.02, seed: int) -> list[str]:
    """Run it.

    Args:
        seconds: How long the sessions last.
        hosts: Hosts with leaves; one leaf of each front in each, and one that crashes.
        loss: Share of packets lost at each of them.
        seed: What sizes, visits and crashes are drawn from.

    Returns:
        What does not hold, a line each.

    Raises:
        NamespaceError: The network cannot be built here.
    """
    dice = random.Random(seed)
    with (
        lan(hosts, loss=loss, wire="mtu") as net,
        tempfile.TemporaryDirectory(prefix="jlsoak-") as folder,
        Fleet(Path(folder)) as fleet,
    ):
        ends = _start(net, fleet, seconds, seed)
        time_over = time.monotonic() + seconds
        crashed = 0
        while time.monotonic() < time_over - 4.0 and not _failed(ends):
            host = dice.choice(net.leaves)
            doomed = _leaf(net, fleet, host, dice.choice(FRONTS), 1e6, dice.randrange(1 << 30))
            time.sleep(dice.uniform(0.3, CRASH_EVERY_S))
            if doomed.poll() is None:
                doomed.process.kill()
                crashed += 1
            wait_for([doomed], 5.0)
        wait_for(ends, max(0.0, time_over - time.monotonic()) + GRACE_S)
        wrong = [line for program in ends for line in _judge(program)]
        wrong += [
            f"{host.ipv4} is still a member: {left}"
            for host in net.leaves
            if (left := _memberships(host))
        ]
        _show(ends, crashed)
    return wrong


def _start(net: BenchLan, fleet: Fleet, seconds: float, seed: int) -> list[Program]:
    ends = []
    for number, front in enumerate(FRONTS):
        address = f"jl://{net.root.ipv4}:{PORTS[front]}?data={GROUPS[front]}"
        told = ("root", front, address, str(seconds), str(seed + number))
        ends.append(fleet.python(net.root, "bench.soak_end", *told))
    for place, host in enumerate(net.leaves):
        for front in FRONTS:
            number = seed + 1000 * place + len(ends)
            ends.append(_leaf(net, fleet, host, front, seconds - 1.0, number))
    return ends


def _leaf(net: BenchLan, fleet: Fleet, host: Any, front: str, seconds: float, seed: int) -> Program:
    ways = [
        f"jl://{net.root.ipv4}:{port}{way}" for port in PORTS.values() for way in ("", "?data=leg")
    ]
    told = ("leaf", front, " ".join(ways), str(seconds), str(seed))
    return fleet.python(host, "bench.soak_end", *told)


def _failed(ends: Sequence[Program]) -> bool:
    return any(program.poll() not in (None, 0) for program in ends)


def _memberships(host: Any) -> list[str]:
    groups = {group.split(":")[0] for group in GROUPS.values()}
    shown = host.check_output("ip", "-json", "maddress", "show", "dev", "eth0")
    return [
        entry["address"]
        for device in json.loads(shown)
        for entry in device["maddr"]
        if entry.get("address") in groups
    ]


def _told(program: Program) -> dict[str, Any]:
    for line in program.log.read_text(errors="replace").splitlines():
        if line.startswith("{"):
            told: dict[str, Any] = json.loads(line)
            return told
    return {}


def _name(program: Program) -> str:
    command = program.process.args
    assert isinstance(command, list)
    return " ".join(map(str, command[-5:-3]))


def _judge(program: Program) -> list[str]:
    """What does not hold at this end."""
    name = _name(program)
    if program.poll() != 0:
        state = "did not end" if program.poll() is None else f"ended with {program.poll()}"
        return [f"{name} {state}: {program.last_words()}"]
    told = _told(program)
    if told.get("on_group") == 0:
        return [f"{name}: no leaf was ever served by the group"]
    early, late = told.get("early", {}), told.get("late", {})
    room = {"resident": MORE_MEMORY, "descriptors": 2, "threads": 1, "tasks": 1}
    return [
        f"{name}: {late[what]} {what} at the end, {early[what]} at the beginning"
        for what in early
        if late.get(what, 0) > early[what] + room[what]
    ]


def _show(ends: Sequence[Program], crashed: int) -> None:
    for program in ends:
        told = _told(program)
        stats = told.pop("stats", {})
        chosen = {key: stats[key] for key in ("joins_admitted", "legs_lost") if key in stats}
        print(f"{_name(program):9}", json.dumps({**told, **chosen}))
    print(f"{crashed} leaves crashed")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--loss", type=float, default=2.0, help="per cent, default 2")
    parser.add_argument("--seed", type=int, default=None)
    chosen = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1 << 30) if chosen.seed is None else chosen.seed
    print(f"seed {seed}", flush=True)
    wrong = soak(chosen.seconds, hosts=chosen.hosts, loss=chosen.loss / 100, seed=seed)
    print("\n".join(wrong) or "all of it holds")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
