"""By what a root's data travel: one multicast stream, or a connection of its own for every leaf.

What a root does unless told otherwise is ``worth_a_group``. A group that was named is used, or it
is an error; one that was not named is a way to be faster, and never a reason to fail.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
from collections.abc import Callable, Iterator
from typing import Any, Final

from joinleaf.cli.output import Talk
from joinleaf.cli.running import UsageError, failure_text
from joinleaf.drivers.interfaces import list_interfaces
from joinleaf.errors import SessionOSError
from joinleaf.sync import Root
from joinleaf.values import Address, SessionAddress

__all__ = [
    "AUTO",
    "CARRIED",
    "LEG",
    "at_leaf",
    "facts",
    "group_of",
    "open_by",
    "tell",
    "worth_a_group",
]

AUTO: Final = "auto"
"""Some group, where there is an interface for it."""

LEG: Final = "leg"
"""No group."""

GROUP_PORT: Final = 7401
"""Of every group chosen here, so that a firewall can be told. Receivers bind the group as well."""

FROM_LEAVES: Final = 2
"""One is served faster over TCP, which has nothing to set up and gets everywhere. Two share the
link there: at 1 Gbit/s they get 110 MB/s each by a group and 60 over TCP."""

CARRIED: Final = ("leg_bytes", "group_bytes", "group_repair_bytes", "group_leg_repairs")
"""Counters of a root that are shown with a transfer."""

_EXAMPLE: Final = f"239.255.70.1:{GROUP_PORT}"

Open = Callable[[SessionAddress], Root]


def worth_a_group(where: SessionAddress, leaves: int | None) -> bool:
    """Whether a root that was told nothing about it sends to a group.

    Args:
        where: Where it listens.
        leaves: How many leaves are expected; None: any number.

    Not on loopback: there is no wire to be spared, and a group would be heard by every program of
    this host that asks for it.
    """
    return (leaves is None or leaves >= FROM_LEAVES) and not where.address.is_loopback


def open_by(
    wanted: str | None, where: SessionAddress, open_root: Open, *, worth: bool
) -> tuple[Root, str]:
    """Open a root whose data go by what was wanted.

    Args:
        wanted: ``auto``, ``leg`` or a group and port; None: not told.
        where: The address, which may have a ``data=`` of its own.
        open_root: Opens it.
        worth: Whether to send to a group if nothing was told.

    Returns:
        The root, and why it sends to no group though one was to be had; ``""`` if it does, or was
        to be without.

    Raises:
        UsageError: It is none of these, or told twice.
        SessionOSError: As ``open_root``; or the group that was named cannot be sent to.
    """
    if wanted is not None and "data" in where.options:
        raise UsageError(f"{where} says data= already: leave that out, or --data")
    if "data" in where.options or (wanted is None and not worth) or wanted == LEG:
        return open_root(where), ""
    if wanted in (None, AUTO):
        return _open_by_any(where, open_root)
    return open_root(_with_data(where, str(_group_named(wanted)))), ""


def _open_by_any(where: SessionAddress, open_root: Open) -> tuple[Root, str]:
    why = ""
    for group in _groups(where.address):
        if not _reaches_others(where.address, 6 if ":" in group.host else 4):
            continue
        try:
            return open_root(_with_data(where, str(group))), ""
        except SessionOSError as error:
            why = why or failure_text(error)
    # If it was not the group after all (the port is taken, say), this says so.
    return open_root(where), why or "no interface that others are reached by can multicast"


def _reaches_others(address: Address, version: int) -> bool:
    """Whether a group can be sent to by the way that leaves come, rather than to nobody."""
    if address.is_loopback:
        return True  # wanted here, and nowhere else
    interfaces = list_interfaces()
    if address.ip is not None and not address.is_any:
        interfaces = [one for one in interfaces if address.ip in one.addresses]
    return any(
        one.up and one.multicast and not one.loopback and one.has_family(version)
        for one in interfaces
    )


def _groups(address: Address) -> Iterator[Address]:
    """Groups to try, of the family first that the leaves are sure to have.

    Drawn anew for every session, so that hosts hear one session and not their neighbours'. Of
    239.255.0.0/16, which does not leave a site, without the 256 addresses that RFC 2365 sets aside;
    of IPv6 those of site scope that RFC 3307 leaves to be drawn.
    """
    drawn = int.from_bytes(os.urandom(4), "big")
    low = drawn % 0xFF00
    ipv4 = Address(f"239.255.{low >> 8}.{low & 0xFF}", GROUP_PORT)
    ipv6 = Address(str(ipaddress.IPv6Address((0xFF15 << 112) | 0x8000_0000 | drawn)), GROUP_PORT)
    ip = address.ip
    only_ipv6 = ip is not None and ip.version == 6 and not ip.is_unspecified
    yield from (ipv6, ipv4) if only_ipv6 else (ipv4, ipv6)


def _group_named(text: str) -> Address:
    """The group that an option names.

    Raises:
        UsageError: It names none; the text says what to write.
    """
    ways = f"write a group and a port, as {_EXAMPLE}; {AUTO}; or {LEG}"
    try:
        group = Address.parse(text)
    except ValueError:
        raise UsageError(f"--data {text}: no group with a port: {ways}") from None
    if group.ip is None or not group.is_multicast:
        raise UsageError(f"--data {text}: {group.host!r} is no multicast group: {ways}")
    if not group.port:
        raise UsageError(f"--data {text}: a group has no port 0: {ways}")
    return group


def at_leaf(wanted: str | None, where: SessionAddress) -> SessionAddress:
    """The address to join by, for a leaf that was told by what it wants to be served.

    A root names its group to whoever joins, so of a leaf only ``leg`` changes anything.

    Raises:
        UsageError: It is none of these, or such sessions know no carriers.
    """
    if wanted is None:
        return where
    if where.scheme not in ("jl", "jls"):
        raise UsageError(f"{where} is a group itself: --data and --group are for jl:// and jls://")
    if wanted == AUTO:
        return where
    return _with_data(where, LEG if wanted == LEG else str(_group_named(wanted)))


def group_of(root: Root) -> str:
    """The group and port that a root sends to; ``""``: none."""
    data = root.address.options.get("data", "")
    return "" if data == LEG else data


def facts(root: Root) -> dict[str, Any]:
    """What has left by which carrier so far, for JSON."""
    stats = root.stats()
    return {"group": group_of(root), **{name: stats[name] for name in CARRIED if name in stats}}


def tell(talk: Talk, root: Root, why: str) -> None:
    """Say what carries the data, where it is a group or was to be one."""
    if group := group_of(root):
        text = f"Over one multicast stream, {group}; to who does not hear it, over its leg."
        talk.say(text, "dim")
    elif why:
        talk.say(f"No multicast from here ({why}): to each leaf over its leg.", "yellow")


def _with_data(where: SessionAddress, data: str) -> SessionAddress:
    return dataclasses.replace(where, options={**where.options, "data": data})
