"""Addresses and identities: parsed once at the edge, valid ever after."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["IDENTITY_BYTES", "Address", "KeyedAddress", "SessionAddress"]

IDENTITY_BYTES: Final = 16
"""Length of every session, incarnation and object id: random, so never met twice."""

_NO_OPTIONS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Where a node or a session is: an IP address or name, and a port.

    Attributes:
        host: An IPv4 or IPv6 address without brackets, a host name, or the name of a ``mem``
            session; ``""`` means any address of this host.
        port: 0 to 65535; 0 lets the system choose.
        scope: Interface name or index of a link-local IPv6 address, else ``""``.
    """

    host: str
    port: int = 0
    scope: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port {self.port} is not between 0 and 65535")

    def __str__(self) -> str:
        host = f"{self.host}%{self.scope}" if self.scope else self.host
        return f"[{host}]:{self.port}" if ":" in self.host else f"{host}:{self.port}"

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The numeric address, or None where ``host`` is a name."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    @property
    def is_any(self) -> bool:
        """Whether it is the wildcard: empty, 0.0.0.0 or ``::``."""
        return not self.host or ((ip := self.ip) is not None and ip.is_unspecified)

    @property
    def is_loopback(self) -> bool:
        """Whether only this host can reach it."""
        ip = self.ip
        return ip.is_loopback if ip is not None else self.host == "localhost"

    @property
    def is_multicast(self) -> bool:
        """Whether it names a group rather than a host."""
        ip = self.ip
        return ip is not None and ip.is_multicast

    @classmethod
    def parse(cls, text: str, *, default_port: int | None = None) -> Address:
        """Read ``host:port``, ``[v6%scope]:port``, ``:port`` or, with a default, ``host``.

        Raises:
            ValueError: It is none of these; the text says which part is wrong.
        """
        rest = text.strip()
        if rest.startswith("["):
            host, bracket, port_text = rest[1:].partition("]")
            if not bracket or (port_text and not port_text.startswith(":")):
                raise ValueError(f"{text!r}: write IPv6 addresses as [address]:port")
            port_text = port_text[1:]
        elif rest.count(":") > 1:
            raise ValueError(f"{text!r}: write IPv6 addresses in brackets, [address]:port")
        else:
            host, _, port_text = rest.partition(":")
        if port_text:
            if not (port_text.isascii() and port_text.isdigit()):
                raise ValueError(f"{text!r}: {port_text!r} is not a port number")
            port = int(port_text)
        elif default_port is not None:
            port = default_port
        else:
            raise ValueError(f"{text!r}: a port is missing, write host:port")
        host, _, scope = host.partition("%")
        return cls(host, port, scope)


@dataclass(frozen=True, slots=True, eq=False)
class KeyedAddress(Address):
    """An address together with the session key to whoever is there.

    Attributes:
        key: Text of the session key; never logged.
    """

    key: str = field(default="", repr=False)

    @property
    def plain(self) -> Address:
        """Without the key."""
        return Address(self.host, self.port, self.scope)


@dataclass(frozen=True, slots=True)
class SessionAddress:
    """A session as people write it: ``scheme://[source@]host:port[?option=value][#key]``.

    Attributes:
        scheme: Names the provider: ``jl``, ``udp``, ``ssm``, ``mem`` or a plug-in's.
        address: Host or group, and port.
        source: The one sender of an ``ssm`` session, else ``""``.
        options: What follows the question mark, each name once.
        key: What follows the hash mark: a session key or shared secret, never logged.
    """

    scheme: str
    address: Address
    source: str = ""
    options: Mapping[str, str] = field(default_factory=lambda: _NO_OPTIONS)
    key: str = field(default="", repr=False)

    def __str__(self) -> str:
        return self._text("")

    def _text(self, slash: str) -> str:
        source = f"{self.source}@" if self.source else ""
        where = self.address.host if self.scheme == "mem" else str(self.address)
        options = "&".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.scheme}://{source}{where}{slash}{'?' if options else ''}{options}"

    @property
    def target(self) -> Address:
        """Where to connect to, with the key if there is one."""
        where = self.address
        return KeyedAddress(where.host, where.port, where.scope, self.key) if self.key else where

    @property
    def line(self) -> str:
        """The join line: all of it, key included. For printing on purpose, never for a log."""
        return f"{self._text('/')}#{self.key}" if self.key else str(self)

    @classmethod
    def parse(cls, text: str | SessionAddress) -> SessionAddress:
        """Read a session address; one already parsed comes back as it is.

        Raises:
            ValueError: Not of the form above; the text says what is missing.
        """
        if isinstance(text, SessionAddress):
            return text
        shown = text.partition("#")[0]  # an error must not show the key
        if "://" not in text:
            raise ValueError(
                f"{shown!r} is no session address: write scheme://host:port, for example "
                "jl://127.0.0.1:7400 or udp://239.255.10.1:5000"
            )
        try:
            parts = urlsplit(text)
        except ValueError as error:
            raise ValueError(f"{shown!r} is no session address: {error}") from None
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        options = dict(pairs)
        if len(options) != len(pairs):
            raise ValueError(f"{shown!r}: an option is given twice")
        source, at, where = parts.netloc.rpartition("@")
        if parts.path.strip("/"):
            raise ValueError(f"{shown!r}: nothing may follow the port but ?options and #key")
        if parts.scheme == "mem":
            address = Address(where)
            if not where:
                raise ValueError(f"{shown!r}: a mem session needs a name, mem://name")
        else:
            address = Address.parse(where)
        return cls(
            parts.scheme.lower(),
            address,
            source.strip("[]") if at else "",
            MappingProxyType(options),
            parts.fragment,
        )
