"""A simulated network: hosts, directed links, partitions, streams and datagrams.

Every directed link draws from a generator of its own, seeded with the run's seed and the link's
name, so that a change on one link does not shift what happens on the others.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from joinleaf.testing.clock import MILLISECOND, Agenda, ManualClock
from joinleaf.testing.streams import StreamEnd, StreamOwner, StreamProfile
from joinleaf.values import Address

__all__ = ["DatagramOwner", "DatagramProfile", "SimNetwork"]

FIRST_EPHEMERAL = 32768


@dataclass(frozen=True, slots=True, kw_only=True)
class DatagramProfile:
    """How datagrams fare; chances are shares from 0 to 1.

    Attributes:
        latency_ns: Shortest way.
        jitter_ns: What may be added; enough of it reorders.
        loss: Share that never arrives.
        duplication: Share that arrives twice.
        corruption: Share that arrives with one bit changed.
    """

    latency_ns: int = MILLISECOND
    jitter_ns: int = 0
    loss: float = 0.0
    duplication: float = 0.0
    corruption: float = 0.0


class DatagramOwner(Protocol):
    """Whoever receives datagrams."""

    def datagram_received(self, data: bytes, sender: Address) -> None:
        """One datagram, possibly late, repeated or damaged."""


class SimNetwork:
    """Hosts by name and everything between them.

    Attributes:
        agenda: Everything that will happen.
        streams: How streams behave from now on.
        datagrams: How datagrams behave from now on.
    """

    def __init__(
        self,
        seed: int | str = 0,
        *,
        clock: ManualClock | None = None,
        streams: StreamProfile | None = None,
        datagrams: DatagramProfile | None = None,
    ) -> None:
        self.seed = seed
        self.clock = clock if clock is not None else ManualClock()
        self.agenda = Agenda(self.clock)
        self.streams = streams if streams is not None else StreamProfile()
        self.datagrams = datagrams if datagrams is not None else DatagramProfile()
        self._links: dict[tuple[str, str], random.Random] = {}
        self._blocked: dict[tuple[str, str], None] = {}
        self._down: dict[str, None] = {}
        self._listeners: dict[Address, Callable[[StreamEnd], StreamOwner]] = {}
        self._ends: dict[str, list[StreamEnd]] = {}
        self._groups: dict[Address, dict[str, DatagramOwner]] = {}
        self._next_port = FIRST_EPHEMERAL

    # Links

    def rng(self, source: str, target: str) -> random.Random:
        """The generator of one directed link."""
        if (link := self._links.get((source, target))) is None:
            link = random.Random(f"{self.seed}/{source}>{target}")
            self._links[source, target] = link
        return link

    def passes(self, source: str, target: str) -> bool:
        """Whether anything gets from one host to the other now."""
        return (
            target not in self._down
            and source not in self._down
            and (source, target) not in self._blocked
        )

    def block(self, source: str, target: str) -> None:
        """Let nothing pass in this direction."""
        self._blocked[source, target] = None

    def unblock(self, source: str, target: str) -> None:
        """Undo ``block``."""
        self._blocked.pop((source, target), None)

    def heal(self) -> None:
        """End every partition and start every host."""
        self._blocked.clear()
        self._down.clear()

    def delay_ns(self, end: StreamEnd) -> int:
        """How long the next segment of this end takes."""
        link, streams = self.rng(end.host, end.peer_host), self.streams
        delay_ns = streams.latency_ns + link.randint(0, streams.jitter_ns)
        if streams.stall_chance and link.random() < streams.stall_chance:
            delay_ns += streams.stall_ns
        return delay_ns

    def segment_size(self, end: StreamEnd, most: int) -> int:
        """Where the next segment is cut: mostly late, sometimes after a few bytes."""
        link = self.rng(end.host, end.peer_host)
        most = min(most, self.streams.segment_bytes)
        dice = link.random()
        if dice < 0.1:
            return link.randint(1, min(most, 40))
        return most if dice < 0.6 else link.randint(1, most)

    def later(self, end: StreamEnd, action: Callable[[], None]) -> None:
        """Do something after one way from this end to the other; it may not fail to come."""
        self.agenda.after(self.streams.latency_ns, action)

    # Streams

    def listen(self, address: Address, accept: Callable[[StreamEnd], StreamOwner]) -> None:
        """Accept connections to ``address``; its host part is the host's name."""
        self._listeners[address] = accept

    def stop_listening(self, address: Address) -> None:
        """Refuse them again."""
        self._listeners.pop(address, None)

    def ephemeral(self, host: str) -> Address:
        """An address of this host that nobody had before."""
        self._next_port = FIRST_EPHEMERAL + (self._next_port + 1 - FIRST_EPHEMERAL) % 32768
        return Address(host, self._next_port)

    def connect(self, host: str, target: Address, owner: StreamOwner) -> StreamEnd:
        """Start connecting; ``stream_connected`` or an error by ``stream_readable`` follows."""
        local = self.ephemeral(host)
        end = self._new_end(host, target.host, local, target)
        end.owner = owner

        def accept() -> StreamEnd | None:
            if (taker := self._listeners.get(target)) is None:
                return None
            other = self._new_end(target.host, host, target, local)
            other.other, other.connected = end, True
            other.owner = taker(other)
            return other

        end.begin(accept)
        return end

    def _new_end(self, host: str, peer_host: str, local: Address, peer: Address) -> StreamEnd:
        end = StreamEnd(self, host, peer_host, local, peer)
        self._ends.setdefault(host, []).append(end)
        return end

    def crash(self, host: str, *, power: bool) -> None:
        """Stop a host's program, or (``power``) the host itself, until ``restart``.

        A program's connections are closed by its kernel, and peers hear of it; a host without
        power says nothing.
        """
        for end in self._ends.pop(host, []):
            if power:
                end.vanish()
            else:
                end.close()
        for address in [address for address in self._listeners if address.host == host]:
            del self._listeners[address]
        for members in self._groups.values():
            members.pop(host, None)
        if power:
            self._down[host] = None

    def restart(self, host: str) -> None:
        """The host has power again; it remembers nothing."""
        self._down.pop(host, None)

    # Datagrams

    def subscribe(self, group: Address, host: str, owner: DatagramOwner) -> None:
        """Deliver what is sent to the group."""
        self._groups.setdefault(group, {})[host] = owner

    def unsubscribe(self, group: Address, host: str) -> None:
        """Stop that."""
        self._groups.get(group, {}).pop(host, None)

    def subscribed(self, group: Address) -> list[str]:
        """Hosts that get what is sent to the group, in order of joining."""
        return list(self._groups.get(group, ()))

    def hears(self, group: Address, host: str) -> DatagramOwner | None:
        """Who gets on this host what is sent to the group."""
        return self._groups.get(group, {}).get(host)

    def send_datagram(self, host: str, group: Address, data: bytes) -> None:
        """Send to everybody in the group but the sender itself."""
        for member in self.subscribed(group):
            if member != host:
                self._send_one(host, member, group, data)

    def _send_one(self, host: str, member: str, group: Address, data: bytes) -> None:
        link, datagrams = self.rng(host, member), self.datagrams
        if link.random() < datagrams.loss or not self.passes(host, member):
            return
        copies = 2 if link.random() < datagrams.duplication else 1
        for _ in range(copies):
            if data and link.random() < datagrams.corruption:
                damaged = bytearray(data)
                damaged[link.randrange(len(data))] ^= 1 << link.randrange(8)
                data = bytes(damaged)
            delay_ns = datagrams.latency_ns + link.randint(0, datagrams.jitter_ns)
            self.agenda.after(delay_ns, self._arrival(host, member, group, data))

    def _arrival(self, host: str, member: str, group: Address, data: bytes) -> Callable[[], None]:
        def arrive() -> None:
            owner = self._groups.get(group, {}).get(member)
            if owner is not None and self.passes(host, member):
                owner.datagram_received(data, Address(host, group.port))

        return arrive
