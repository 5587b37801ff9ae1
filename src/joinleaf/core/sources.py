"""Whom a connection counts for: the address, or the network that its owner can choose from."""

from __future__ import annotations

import ipaddress

__all__ = ["is_this_host", "source_of"]


def source_of(host: str) -> str:
    """What is counted as one asker.

    An IPv6 host owns a /64 and can choose among its addresses, so the prefix counts. A link-local
    address counts as it is, without its interface: all on the link share that prefix, and one of
    them must not stop the others. Who is on the link can have as many of these as they like; what
    stops them are the bounds for all.

    Args:
        host: A numeric address, with or without a scope. A name counts as it is.
    """
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    if address.is_link_local or address.is_loopback:
        return str(address)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


def is_this_host(source: str) -> bool:
    """Whether a source is loopback, which nobody from outside can be."""
    return source.startswith("127.") or source in ("::1", "localhost")
