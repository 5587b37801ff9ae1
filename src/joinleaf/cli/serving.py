"""Where a root listens, who may come, and the address that others reach it at."""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import Final

from joinleaf.cli.running import UsageError
from joinleaf.drivers.interfaces import find_interface, list_interfaces, route_source
from joinleaf.errors import SpiError
from joinleaf.spi.codes import session_error
from joinleaf.values import Address, SessionAddress

__all__ = [
    "DEFAULT_PORT",
    "ONLY_HERE",
    "line_note",
    "local_on",
    "reachable",
    "served",
    "shell_word",
]

DEFAULT_PORT: Final = 7400

# An address set aside for documentation: asking for the route to it tells the way to the rest of
# the world, and sends nothing.
_ELSEWHERE: Final = ipaddress.ip_address("192.0.2.1")


ONLY_HERE: Final = "Only this host can reach that. Without an address, other hosts can too."


def served(
    address: str | None,
    *,
    open_to_all: bool,
    interface: str | None,
    cert: str | None = None,
    ca: str | None = None,
) -> SessionAddress:
    """The address to listen on.

    Without one: every interface, encrypted; in the clear with ``--open``.

    Raises:
        UsageError: It can be reached from other hosts, and nothing says whom to admit.
        ValueError: It is no address, or not one of a rooted session.
        SessionOSError: There is no such interface.
    """
    if address is None:
        scheme = "jl" if open_to_all and cert is None else "jls"
        where = SessionAddress(scheme, Address("", DEFAULT_PORT))
    else:
        where = SessionAddress.parse(address)
    if where.scheme in ("udp", "ssm"):
        raise UsageError(f"{where} has no root: every member runs joinleaf leaf {where}")
    if where.scheme == "mem":
        raise UsageError(f"{where}: such sessions live inside one process; write jl://host:port")
    if interface is not None and (address is None or where.address.is_any):
        host = _address_on(interface, 4)
        where = SessionAddress(where.scheme, Address(host, where.address.port), "", where.options)
    if open_to_all or where.address.is_loopback:
        return where
    if where.scheme == "jls" and cert is not None and ca is None:
        raise UsageError(
            f"{where}: with --cert alone nothing says whom to admit: add --ca for whoever has a "
            "certificate of that authority, or --open for everybody"
        )
    if where.scheme != "jls":
        raise UsageError(
            f"{where} can be reached from other hosts, and nothing says whom to admit: write "
            "jls:// for whoever has the join line, or add --open for everybody, in the clear"
        )
    return where


def line_note(line: str) -> str:
    """What to know about a join line."""
    if SessionAddress.parse(line).key:
        return "Encrypted. Whoever has this line can join, for 30 days or until this ends."
    return "Encrypted. Whoever shows a certificate that the authority has signed can join."


def shell_word(line: str) -> str:
    """A join line as one word of any shell: some take # or & for something else."""
    return f'"{line}"' if set(line) & set("#&?*;") else line


def local_on(interface: str | None, peer: Address) -> Address | None:
    """What a leaf binds to, to leave by that interface; None: the system chooses."""
    if interface is None:
        return None
    version = peer.ip.version if peer.ip is not None else 4
    return Address(_address_on(interface, version), 0)


def _address_on(interface: str, version: int) -> str:
    try:
        found = find_interface(interface)
    except SpiError as error:
        raise session_error(error) from error
    for address in found.addresses:
        if address.version == version and not address.is_link_local:
            return str(address)
    for address in found.addresses:
        if not address.is_link_local:
            return str(address)
    raise UsageError(f"interface {found} has no address to listen on or to leave from")


def reachable(line: str) -> list[SessionAddress]:
    """Addresses that others reach a root at, the most likely one first; never the wildcard.

    Without the group, which the root tells whoever joins: it would only lengthen what is typed.
    """
    where = SessionAddress.parse(line)
    options = {name: text for name, text in where.options.items() if name != "data"}
    where = dataclasses.replace(where, options=options)
    if not where.address.is_any:
        return [where]
    only_ipv4 = where.address.host == "0.0.0.0"
    hosts = [
        address
        for interface in list_interfaces()
        if interface.up and not interface.loopback
        for address in interface.addresses
        if not (address.is_link_local or (only_ipv4 and address.version == 6))
    ]
    main = route_source(_ELSEWHERE)
    hosts.sort(key=lambda address: (address != main, address.version))
    return [
        SessionAddress(
            where.scheme, Address(str(host), where.address.port), "", where.options, where.key
        )
        for host in hosts or [ipaddress.ip_address("127.0.0.1")]
    ]
