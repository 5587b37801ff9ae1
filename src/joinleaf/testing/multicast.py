"""The multicast stream of a simulated rooted session: the root's end, and a leaf's.

What ``drivers/group_link.py`` does with sockets, on simulated datagrams: every symbol is a datagram
of its own, and a leaf's kernel coalesces what has come as it likes. The group loses, repeats,
reorders and, where the stream is sealed, damages datagrams; some hosts do not hear it at all.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from joinleaf.core.keys.derive import KEY_BYTES
from joinleaf.core.keys.group import GroupKeys, KeyFact, LeafKeys
from joinleaf.core.leaf_session import LeafSession
from joinleaf.core.reliability.congestion import CongestionWindow
from joinleaf.core.reliability.pacing import StreamPacer
from joinleaf.core.reliability.receiver import StreamReceiver
from joinleaf.core.reliability.sender import StreamSender
from joinleaf.core.root_carriage import RootCarriage
from joinleaf.core.root_session import RootSession
from joinleaf.core.wire.control import GroupFacts
from joinleaf.core.wire.units import UNIT_OVERHEAD, Layout
from joinleaf.spi.provider import SlowPolicy
from joinleaf.testing.network import SimNetwork
from joinleaf.values import IDENTITY_BYTES, Address

__all__ = ["LeafGroup", "MulticastPlan", "RootGroup"]

GROUP_PORT: Final = 7401

SOCKET_BYTES: Final = 1 << 20
"""What a leaf's kernel holds of the group for a process that does not read."""

READ_ON_BYTES: Final = 1 << 18
"""What a root takes up beyond its limit of members whose reports stand behind their messages."""

LEAST_WAIT_NS: Final = 20_000
"""A timer that is due at once runs this much later, so that a simulation moves on."""


@dataclass(frozen=True, slots=True)
class MulticastPlan:
    """The stream that a root has beside its legs.

    Attributes:
        sealed: Whether only members can read it.
        segment: Bytes of a datagram.
        window_bytes: Most that is under way, and that a leaf holds.
        paced: Whether congestion control and its pacer hold it back.
    """

    sealed: bool
    segment: int
    window_bytes: int
    paced: bool


def group_of(host: str) -> Address:
    """The group of a root; its host part is a name, as those of all hosts here."""
    return Address(f"group of {host}", GROUP_PORT)


class RootGroup:
    """The root's end. ``serve`` after anything has happened."""

    def __init__(
        self,
        network: SimNetwork,
        host: str,
        session: RootSession,
        plan: MulticastPlan,
        dice: random.Random,
    ) -> None:
        self._network = network
        self._host = host
        self._session = session
        self._group = group_of(host)
        self._dice = dice
        tag = dice.getrandbits(32)
        keys = GroupKeys(self._fresh_key(), tag) if plan.sealed else None
        layout = Layout(plan.segment)
        window = CongestionWindow(
            ceiling=plan.window_bytes,
            symbol_bytes=layout.segment,
            unit_bytes=layout.segment * layout.symbols + UNIT_OVERHEAD,
        )
        pacer = StreamPacer(window)
        sender = StreamSender(
            layout,
            tag=tag,
            window_bytes=plan.window_bytes,
            sealer=keys,
            congestion=window if plan.paced else None,
            pacer=pacer,
        )
        facts = GroupFacts(
            host="239.255.70.1",
            port=GROUP_PORT,
            source=host,
            tag=tag,
            nonce=dice.randbytes(IDENTITY_BYTES),
            window=plan.window_bytes,
            key=keys.key_frame_body() if keys is not None else b"",
        )
        self.carriage = RootCarriage(facts, sender, pacer, keys)
        session.carriage = self.carriage

    def _fresh_key(self) -> bytes:
        return self._dice.randbytes(KEY_BYTES)

    def serve(self, now_ns: int) -> int | None:
        """Send what may leave now; when to be called again, if nothing happens before."""
        session, carriage, network = self._session, self.carriage, self._network
        session.renew_group_key(self._fresh_key)
        while (train := carriage.poll_transmit(now_ns)) is not None:
            for at in range(0, len(train.buffer), train.segment):
                symbol = bytes(train.buffer[at : at + train.segment])
                network.send_datagram(self._host, self._group, symbol)
        while (word := carriage.sender.poll_leg()) is not None:
            session.put_on_leg(*word)
        return carriage.next_deadline_ns()

    def tick(self, now_ns: int) -> None:
        """Run the clocks."""
        self._session.tick_group(now_ns)
        self.carriage.events.clear()

    @property
    def behind(self) -> bool:
        """Whether members wait because the stream has more waiting than the settings allow.

        As ``StreamTraffic._update_paused``: for leaves only where they are waited for.
        """
        sender, settings = self.carriage.sender, self._session.settings
        if sender.pending_bytes <= settings.queue_bytes:
            return False
        return settings.slow is SlowPolicy.WAIT or not sender.blocking()

    def holds(self, key: int) -> bool:
        """Whether a member that sent something is not read while others are behind.

        As ``StreamTraffic._is_paused``: its reports stand behind its messages.
        """
        session, sender = self._session, self.carriage.sender
        legs = max(leg.association.outbox.size for leg in session.legs.values())
        over = max(legs, sender.pending_bytes) > session.settings.queue_bytes + READ_ON_BYTES
        return bool(session.legs[key].expected) and (over or not sender.awaits(key))


class LeafGroup:
    """A leaf's end: a bounded socket buffer and a reader that takes trains out of it.

    Args:
        network: Where it hears the group.
        host: Its host.
        root: The root's.
        session: The leaf's.
        key: Its leg.
        facts: What the root told of the group.
        dice: How trains are coalesced.
        train_loss: Share of them that is lost then.
        wake: Called when something has come; ``read`` then takes it in.
    """

    def __init__(
        self,
        network: SimNetwork,
        host: str,
        root: str,
        session: LeafSession,
        key: int,
        facts: GroupFacts,
        dice: random.Random,
        train_loss: float,
        wake: Callable[[], None],
    ) -> None:
        self._network = network
        self._host = host
        self._group = group_of(root)
        self._session = session
        self._dice = dice
        self._train_loss = train_loss
        self._wake = wake
        self._inbox: deque[bytes] = deque()
        self._inbox_bytes = 0
        self.overflowed = 0
        keys = LeafKeys(KeyFact.parse(facts.key), facts.tag) if facts.key else None
        receiver = StreamReceiver(
            tag=facts.tag,
            window_bytes=facts.window,
            opener=keys,
            probe=facts.nonce,
            backoff_seed=dice.getrandbits(64),
        )
        session.hear_group(key, receiver, keys)
        network.subscribe(self._group, host, self)

    def datagram_received(self, data: bytes, sender: Address) -> None:
        """The kernel takes it, or has no room."""
        if self._inbox_bytes + len(data) > SOCKET_BYTES:
            self.overflowed += 1
            return
        self._inbox.append(data)
        self._inbox_bytes += len(data)
        self._wake()

    def read(self, now_ns: int, wall_ns: int) -> None:
        """Take in what has come."""
        stream = self._session.stream
        assert stream is not None
        while self._inbox:
            train, segment = self._coalesced()
            if self._train_loss and self._dice.random() < self._train_loss:
                continue
            landing = stream.landings.take()
            landing.fill(train, segment)
            if not stream.handle_landing(landing, now_ns):
                stream.landings.free(landing)
        self._session.group_received(now_ns, wall_ns)

    def _coalesced(self) -> tuple[bytes, int]:
        """Datagrams of one length, the last perhaps shorter, as the kernel gives them."""
        inbox = self._inbox
        most = self._dice.choice((64, 64, 7, 1))
        first = inbox.popleft()
        parts, segment, size = [first], len(first), len(first)
        while inbox and len(parts) < most and len(parts[-1]) == segment:
            if len(inbox[0]) > segment or size + len(inbox[0]) > 65_000:
                break
            parts.append(inbox.popleft())
            size += len(parts[-1])
        self._inbox_bytes -= size
        return b"".join(parts), segment

    def tick(self, now_ns: int, wall_ns: int) -> None:
        """Run the clocks."""
        stream = self._session.stream
        assert stream is not None
        stream.receiver.tick(now_ns)
        self._session.group_received(now_ns, wall_ns)

    def hold(self, holding: bool) -> None:
        """Leave trains in the kernel's buffer, and tell the root; or go on."""
        if self._session.stream is not None:
            self._session.stream.receiver.hold(holding)

    def next_deadline_ns(self) -> int | None:
        """When ``tick`` has something to do."""
        return self._session.group_deadline_ns()

    def close(self) -> None:
        """Leave the group."""
        if self._network.hears(self._group, self._host) is self:
            self._network.unsubscribe(self._group, self._host)
