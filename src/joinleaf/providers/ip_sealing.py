"""Sealing of plain multicast: what a ``#key`` in the address adds to an endpoint.

With it every datagram that leaves is sealed, and what is not sealed with the same key for the same
session is dropped before anybody sees it, counted, and told once in the log (``core/wire/sealed``
has the format and what it promises). The address a message comes from is not vouched for: anybody
on the way can send a sealed datagram on under another address, once.
"""

from __future__ import annotations

import ipaddress
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from joinleaf.core.keys.secret import check_secret, master_key
from joinleaf.core.wire.sealed import (
    FRESH_S,
    OVERHEAD,
    SENDER_BYTES,
    DatagramOpener,
    DatagramSealer,
    SharedKey,
)
from joinleaf.errors import SpiError
from joinleaf.spi.codes import WSAEINVAL
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.provider import Buffer
from joinleaf.values import Address, SessionAddress

__all__ = ["MAX_FRESH_S", "Sealing", "check_sealable"]

_log = logging.getLogger("joinleaf")

MAX_FRESH_S: Final = 30 * 365 * 86400
"""Thirty years, for hosts whose clocks start anywhere; replays of that age are then taken."""


def check_sealable(address: SessionAddress) -> None:
    """Raise ValueError if an address has a key with which it cannot be sealed."""
    if not address.key:
        return
    try:
        check_secret(address.key)
    except ValueError as error:
        raise ValueError(f"{address}: {error}") from None
    if not address.address.port:
        raise ValueError(f"{address}: a sealed session needs its port, the key is bound to it")


class Sealing:
    """Seals and opens the datagrams of one endpoint: one thread each.

    Args:
        address: The session, with its key; ``check_sealable`` has let it pass.
        fresh_s: How far the clock of a sender not heard before may be off, in seconds.
    """

    __slots__ = ("_address", "_opener", "_process", "_sealer", "_told")

    def __init__(self, address: SessionAddress, fresh_s: int = FRESH_S) -> None:
        self._address = address
        key = SharedKey(master_key(address.key), _session_of(address))
        self._sealer = DatagramSealer(key, lambda: os.urandom(SENDER_BYTES))
        self._opener = DatagramOpener(key, fresh_s=fresh_s)
        self._process = os.getpid()
        self._told: set[str] = set()

    def __repr__(self) -> str:
        return f"Sealing({self._address})"

    def entry(self, info: ProtocolInfo) -> ProtocolInfo:
        """The catalogue entry with the length of message that a sealed datagram has room for."""
        return replace(info, message_size=info.message_size - OVERHEAD)

    def check_session(self, address: Address) -> None:
        """Raise WSAEINVAL for any session but the one the key belongs to."""
        mine = self._address.address
        if (address.ip, address.port) != (mine.ip, mine.port):
            raise SpiError(
                WSAEINVAL,
                f"opened with a key for {mine}, not for {address}",
                call="join_leaf",
                hint="Open another endpoint for another session",
            )

    def seal(self, messages: Sequence[Buffer], now_ns: int) -> Iterator[bytes]:
        """The datagrams of some messages, sealed as they are asked for.

        Args:
            messages: None longer than the entry's ``message_size``.
            now_ns: UNIX nanoseconds.
        """
        process = os.getpid()
        if process != self._process:  # a fork: parent and child must not count on under one key
            self._process = process
            self._sealer.restart()
        self._sealer.begin(now_ns)
        return map(self._sealer.seal, messages)

    def open_run(self, datagrams: Sequence[bytes], now_ns: int) -> list[bytes]:
        """The messages of those datagrams that are authentic and new."""
        opened = self._opener.open_run(datagrams, now_ns)
        if len(opened) != len(datagrams):
            self._tell_once()
        return opened

    def statistics(self) -> Mapping[str, int]:
        """Counters of what was refused, by reason."""
        opener = self._opener
        return {
            "refused_plain": opener.plain,
            "refused_other_key": opener.other_key,
            "refused_forged": opener.forged,
            "refused_replayed": opener.replayed,
            "refused_stale": opener.stale,
            "refused_crowded": opener.crowded,
        }

    def _tell_once(self) -> None:
        """Log each kind of refusal at its first occurrence; strangers may not fill the log."""
        for reason, count in self.statistics().items():
            if count and reason not in self._told:
                self._told.add(reason)
                what = _EXPLANATIONS[reason].format(seconds=self._opener.last_stale_s)
                _log.warning("%s: %s; counted from now on", self._address, what)


_EXPLANATIONS: Final = {
    "refused_plain": "datagrams that are not sealed arrive and are dropped",
    "refused_other_key": "datagrams sealed with another key arrive and are dropped",
    "refused_forged": "datagrams that do not authenticate arrive and are dropped",
    "refused_replayed": "datagrams arrive a second time and are dropped",
    "refused_stale": "a datagram sealed {seconds} s ago is dropped: a replay, or clocks differ "
    "(fresh=SECONDS allows more)",
    "refused_crowded": "too many senders are known; datagrams of others are dropped",
}


def _session_of(address: SessionAddress) -> bytes:
    """What a key is bound to. An interface is no part of it: it has another name on each host."""
    group = address.address.ip
    assert group is not None, "checked by the provider"
    source = str(ipaddress.ip_address(address.source.partition("%")[0])) if address.source else ""
    return f"{address.scheme} {group} {address.address.port} {source}".encode()
