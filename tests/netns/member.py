"""A member of a session, as a program of its own: obeys lines on its standard input.

Started with one JSON argument: url, and optionally role, d_root and settings. Prints ``joined`` or
``error CODE TEXT``; then obeys ``send TEXT``, ``repeat TEXT`` (until it ends), ``receive SECONDS``
(answers ``got HOST TEXT,TEXT`` or an error), ``statistics``, ``leave`` and ``rejoin``.
"""

from __future__ import annotations

import json
import struct
import sys
import threading
import time
from typing import Any

from joinleaf.errors import SpiError
from joinleaf.providers.ip_multicast import IpMulticastProvider
from joinleaf.providers.source_specific import SourceSpecificProvider
from joinleaf.spi.provider import Endpoint, JoinRole, Roles, Settings
from joinleaf.values import SessionAddress


def open_member(plan: dict[str, Any]) -> Endpoint:
    address = SessionAddress.parse(plan["url"])
    provider = SourceSpecificProvider() if address.scheme == "ssm" else IpMulticastProvider()
    endpoint = provider.open(
        provider.select(address),
        Roles(d_root=plan.get("d_root", False)),
        Settings(**plan.get("settings", {})),
        address=address,
    )
    endpoint.join_leaf(address.address, role=JoinRole[plan.get("role", "BOTH")])
    return endpoint


def repeat(endpoint: Endpoint, text: str) -> None:
    while endpoint.fileno() >= 0:
        try:
            endpoint.send_many([text.encode()])
        except SpiError:
            return
        time.sleep(0.05)


def iperf_datagram(number: int) -> bytes:
    """What iperf 2 sends: number, seconds, microseconds, then the upper half of the number."""
    now = time.time_ns()
    seconds, rest = divmod(now, 1_000_000_000)
    return struct.pack("!iIIi", number, seconds, rest // 1000, -1 if number < 0 else 0).ljust(1470)


def obey(endpoint: Endpoint, command: str, argument: str) -> str:
    if command == "send":
        endpoint.send_many([argument.encode()])
        return "sent"
    if command == "repeat":
        threading.Thread(target=repeat, args=(endpoint, argument), daemon=True).start()
        return "repeating"
    if command == "receive":
        batch = endpoint.receive_many(timeout=float(argument))
        return f"got {batch.sender.host} {','.join(map(bytes.decode, batch.messages))}"
    if command == "count":
        batch = endpoint.receive_many(timeout=float(argument))
        sizes = sorted({len(message) for message in batch.messages})
        return f"got datagrams of {sizes[0]} bytes from {batch.sender.host}"
    if command == "iperf":
        endpoint.send_many([iperf_datagram(number) for number in range(20)])
        endpoint.send_many([iperf_datagram(-20)])  # its mark of the end
        return "sent"
    if command == "statistics":
        return json.dumps(dict(endpoint.statistics()))
    assert command == "leave"
    endpoint.close()
    return "left"


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def attempt(action: Any, *arguments: Any) -> Any:
    try:
        return action(*arguments)
    except SpiError as error:
        return f"error {error.code} {error}"


def main() -> None:
    plan = json.loads(sys.argv[1])
    endpoint = attempt(open_member, plan)
    say(endpoint if isinstance(endpoint, str) else "joined")
    for line in sys.stdin:
        command, _, argument = line.rstrip("\n").partition(" ")
        if isinstance(endpoint, str) or command == "rejoin":
            endpoint = attempt(open_member, plan)
            say(endpoint if isinstance(endpoint, str) else "joined")
        else:
            say(attempt(obey, endpoint, command, argument))


if __name__ == "__main__":
    main()
