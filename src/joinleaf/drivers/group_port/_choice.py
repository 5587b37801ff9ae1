"""Which interface and which address a group port uses, and how it says no."""

from __future__ import annotations

import logging

from joinleaf.drivers.interfaces import IpAddress, find_interface
from joinleaf.errors import SpiError
from joinleaf.spi.codes import WSAEFAULT, spi_error_from_os
from joinleaf.values import Address

__all__ = ["interface_for", "numeric_group", "numeric_source", "own_address", "refusal"]

_log = logging.getLogger("joinleaf")


def numeric_group(group: Address) -> IpAddress:
    ip = group.ip
    if ip is None or not ip.is_multicast:
        raise SpiError(WSAEFAULT, f"{group} is no multicast group", call="join_leaf")
    return ip


def numeric_source(text: str, group: IpAddress) -> IpAddress | None:
    if not text:
        return None
    ip = Address(text.partition("%")[0]).ip
    if ip is None or ip.version != group.version:
        raise SpiError(WSAEFAULT, f"{text} is no IPv{group.version} address", call="join_leaf")
    return ip


def own_address(wanted: str | int | None, version: int) -> IpAddress | None:
    """The address that the interface is called by, where it is of the family."""
    ip = Address(wanted.partition("%")[0]).ip if isinstance(wanted, str) else None
    return ip if ip is not None and ip.version == version else None


def interface_for(group: IpAddress, local: str, source: str = "") -> str | None:
    """What to call the interface by; None: ``choose_interface`` decides, and logs why."""
    for text, why in ((source, "the root is on this host"), (local, "the leg's address is there")):
        address = Address(text.partition("%")[0])
        if address.is_any or address.ip is None:
            continue
        try:
            interface = find_interface(address.host)
        except SpiError:
            continue
        if interface.has_family(group.version):
            _log.info("interface %s for %s: %s", interface, group, why)
            return address.host if address.ip.version == group.version else interface.name
    return None


def refusal(error: OSError | SpiError, what: str) -> SpiError:
    """An error of the seam as it is, one of the system translated."""
    if isinstance(error, SpiError):
        return error
    return spi_error_from_os(error, call="join_leaf", message=what)
