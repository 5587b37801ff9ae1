"""Simulated programs: a root with its manners, a leaf that joins, a leaf that is invited.

Each drives the real core as a provider would, draws from a generator of its own, and tells the
ledger what it sees.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from joinleaf.core.association import JoinFailed
from joinleaf.core.doorstep import MAX_HALF_OPEN
from joinleaf.core.leaf_rooted import LeafInput, LeafMachine, LeafState
from joinleaf.core.leaf_session import LeafSession
from joinleaf.core.leg import LegState
from joinleaf.core.root import RootInput, RootMachine, RootState
from joinleaf.core.root_session import RootSession
from joinleaf.core.session import (
    Arrived,
    GroupOffered,
    JoinEnded,
    Leg,
    LegEnded,
    LegJoined,
    Output,
    RequestWaiting,
    RosterAsked,
    Session,
)
from joinleaf.core.wire.control import GroupFacts, Roster
from joinleaf.errors import SpiError
from joinleaf.spi.codes import WSAEALREADY
from joinleaf.spi.provider import (
    Accept,
    EndReason,
    JoinRequest,
    JoinRole,
    Reject,
    Settings,
    SlowPolicy,
)
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.testing.checkers import Ledger, SafetyError, make_message
from joinleaf.testing.clock import MILLISECOND, SECOND
from joinleaf.testing.driving import SessionDriver
from joinleaf.testing.multicast import LeafGroup, MulticastPlan, RootGroup
from joinleaf.testing.network import SimNetwork
from joinleaf.testing.streams import StreamEnd
from joinleaf.values import Address

__all__ = ["LeafNode", "ListeningLeaf", "Manners", "Node", "RootNode", "World"]

ROOT_PORT: Final = 7400
LEAF_PORT: Final = 7500
LEAF_PORTS: Final = 64
"""A listening leaf has this many ports, and a root takes the next for each invitation: memberships
one after the other then differ in address, which is all that a told gap says of its sender."""

SMALL: Final = 48
LONG: Final = 30_000
BATCH_BYTES: Final = 200_000
"""More than any batch that a node here sends at once."""

CONTROL_SLACK: Final = 16_384
"""Beats, names, gaps and leaves queued beside the data."""

GROUP_WINDOW: Final = 2 << 20
"""More than any stream here has under way, headers of repairs by leg included."""

ON_THE_WAY: Final = 400_000
"""What a member may have sent before it notices that it is not read: two kernel buffers."""

ASKING: Final = (LegState.CONNECTING, LegState.ASKED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """How a node behaves; chances are shares from 0 to 1.

    Attributes:
        settings: What its sessions are opened with.
        rooted: Root: whether its data plane is rooted.
        d_root: Whether it is the data root.
        role: Whether it sends, receives or both.
        reject: Share of requests that it refuses.
        defer: Share of offers that it puts off.
        patience_ns: How long it waits for an answer to its own requests.
        multicast: Root: the stream beside its legs; None: none.
        sending: Root: the rate it keeps to.
        qos: Leaf: what it asks for when it joins.
        hears_group: Leaf: whether its host can join the group.
        train_loss: Leaf: share of what its host has coalesced of the group that is lost then.
    """

    settings: Settings
    rooted: bool = True
    d_root: bool = False
    role: JoinRole = JoinRole.BOTH
    reject: float = 0.0
    defer: float = 0.0
    patience_ns: int = 2 * SECOND
    multicast: MulticastPlan | None = None
    sending: FlowSpec | None = None
    qos: Qos | None = None
    hears_group: bool = True
    train_loss: float = 0.0


class World(Protocol):
    """What a node may ask of the simulation around it."""

    network: SimNetwork
    ledger: Ledger
    calm: bool
    quiet: bool

    def trace(self, node: str, what: str) -> None:
        """Write down what happened."""

    def broken(self, node: Node) -> None:
        """This node's session is over; it may be replaced."""


class Node:
    """What all programs have in common.

    Attributes:
        host: Name of the host it runs on.
        driver: Runs its session.
    """

    core: Session

    def __init__(
        self, world: World, host: str, manners: Manners, dice: random.Random, core: Session
    ) -> None:
        self.world = world
        self.host = host
        self.manners = manners
        self.dice = dice
        self.driver = SessionDriver(world.network, host, core, self._traced, self._checked, dice)
        self._requests = 0

    @property
    def now_ns(self) -> int:
        """The present time."""
        return self.world.network.clock.now_ns

    def later(self, delay_ns: int, action: Callable[[], None]) -> None:
        """Do something later, unless this program has ended by then."""

        def act() -> None:
            if self.driver.stands(act):
                action()

        self.world.network.agenda.after(delay_ns, act)

    def token(self) -> bytes:
        """Connect data that no other request carries."""
        self._requests += 1
        return f"{self.host} {self._requests} {self.dice.getrandbits(64):x}".encode()

    def stop(self) -> None:
        """The program is killed or its host is gone."""
        self.driver.stop()

    def pause_reading(self, duration_ns: int) -> None:
        """Be a slow reader for a while."""
        self.driver.set_reading(False)
        self.later(duration_ns, lambda: self.driver.set_reading(True))

    def _traced(self, output: Output) -> None:
        self.world.trace(self.host, _told(output))
        self._handle(output)

    def _handle(self, output: Output) -> None:
        raise NotImplementedError

    def _checked(self) -> None:
        """After every step: bounds hold, and at most one join is outstanding."""
        core, settings = self.core, self.core.settings
        asking = sum(leg.association.state in ASKING for leg in core.legs.values())
        most = settings.queue_bytes + BATCH_BYTES + CONTROL_SLACK
        if (carriage := core.carriage if isinstance(core, RootSession) else None) is not None:
            if carriage.sender.pending_bytes > most + ON_THE_WAY * len(core.legs):
                raise SafetyError(f"{carriage.sender.pending_bytes} bytes wait for the group")
            # What the group owes a leaf goes over its leg when the group has died for it.
            most += carriage.sender.pending_bytes + GROUP_WINDOW
        if asking > 1:
            raise SafetyError(f"{asking} joins outstanding at once at {self.host}")
        if len(core.queue) > core.backlog:
            raise SafetyError(f"{len(core.queue)} requests in a backlog of {core.backlog}")
        if core.counters.get("protocol_errors") or len(core.doorstep.half_open) > MAX_HALF_OPEN:
            raise SafetyError(f"protocol errors or too many half-open legs at {self.host}")
        for leg in core.legs.values():
            if (size := leg.association.outbox.size) > most:
                raise SafetyError(f"{size} bytes queued at {self.host}, {most} allowed")

    def _failed(self, token: bytes, failure: JoinFailed) -> None:
        if "protocol" in failure.message:
            raise SafetyError(f"{self.host}: {failure.message}")
        self.world.ledger.asker_refused(token, failure.data)

    def messages(self, session: bytes, sender: int, sequence: int, target: int = 0) -> list[bytes]:
        """A batch: many small messages, or a few long ones."""
        dice = self.dice
        if dice.random() < 0.8:
            count, size = dice.randint(1, 30), dice.randint(SMALL, 4 * SMALL)
        else:
            count, size = dice.randint(1, 4), dice.randint(SMALL, LONG)
        return [
            make_message(session, sender, self.core.incarnation, number, size, target)
            for number in range(sequence, sequence + count)
        ]


def _told(output: Output) -> str:
    """One line for the trace."""
    if isinstance(output, Arrived):
        batch = output.batch
        return f"{output.key} got {batch.sequence}+{len(batch.messages)} gap {batch.gap}"
    reason = f" {output.reason}" if isinstance(output, LegEnded) else ""
    return f"{output.key} {type(output).__name__}{reason}"


class Answering:
    """The side that decides about requests; mixed into nodes that listen."""

    world: World
    host: str
    manners: Manners
    dice: random.Random
    core: Session
    driver: SessionDriver
    later: Callable[[int, Callable[[], None]], None]

    def consider_soon(self) -> None:
        """Accept after a while."""
        self.later(
            self.dice.randint(0, 15 if self.world.calm else 150) * MILLISECOND, self.consider
        )

    def consider(self) -> None:
        """Take up the first request; decide at once, later, or not yet."""
        if (offered := self.core.offer()) is None:
            return
        key, request = offered
        if self.dice.random() < 0.5 and not self.world.calm:
            self.later(self.dice.randint(0, 200) * MILLISECOND, lambda: self.decide(key, request))
        else:
            self.decide(key, request)

    def decide(self, key: int, request: JoinRequest) -> None:
        """Yes, no, or later."""
        leg = self.core.legs.get(key)
        if leg is None or leg.association.state is not LegState.OFFERED:
            return
        dice = 1.0 if self.world.calm else self.dice.random()
        if dice < self.manners.reject:
            self.world.ledger.decided(request.data, False, b"no " + request.data)
            self.core.reject(key, Reject(b"no " + request.data, "not you"))
        elif dice < self.manners.reject + self.manners.defer:
            self.core.defer(key)
            self.consider_soon()
        else:
            self.admit(key, request)
        self.driver.pump()

    def admit(self, key: int, request: JoinRequest) -> None:
        """Yes."""
        raise NotImplementedError


class RootNode(Answering, Node):
    """One session of one root.

    Attributes:
        guests: Hosts that it invites whenever they are not members.
    """

    core: RootSession

    def __init__(
        self,
        world: World,
        host: str,
        manners: Manners,
        dice: random.Random,
        incarnation: bytes,
        guests: list[str],
    ) -> None:
        self.core = RootSession(
            manners.settings,
            session_id=dice.randbytes(16),
            incarnation=incarnation,
            rooted=manners.rooted,
            d_root=manners.d_root,
            role=manners.role,
        )
        super().__init__(world, host, manners, dice, self.core)
        self.machine = RootMachine()
        self.guests = guests
        self._leaves: dict[int, int] = {}
        self._asked: dict[int, bytes] = {}
        self.group: RootGroup | None = None
        if (plan := manners.multicast) is not None:
            self.group = RootGroup(world.network, host, self.core, plan, dice)
            self.driver.link = self.group
        if manners.sending is not None:
            self.core.set_sending(manners.sending, self.now_ns)
        world.ledger.opened(self.core, lossy=manners.settings.slow is SlowPolicy.DROP)
        self.machine.handle(RootInput.LISTEN)
        world.network.listen(Address(host, ROOT_PORT), self.driver.take)

    def admit(self, key: int, request: JoinRequest) -> None:
        """Yes, unless the core knows better."""
        try:
            data = b"yes " + request.data
            self.core.admit(key, Accept(data))
        except SpiError:
            self.world.ledger.decided(request.data, False, b"")
        else:
            self.world.ledger.decided(request.data, True, data)

    def _handle(self, output: Output) -> None:
        ledger = self.world.ledger
        match output:
            case RequestWaiting():
                self.consider_soon()
            case RosterAsked(key):
                self.core.answer_who(key, Roster(self.core.session_id, self.core.view, [], []))
            case LegJoined(key, answer):
                self._leaves[key] = ledger.root_joined(self.core, key)
                if answer is not None:
                    self.machine.handle(RootInput.INVITE_DONE)
                    ledger.asker_joined(self._asked.pop(key), answer.data)
            case JoinEnded(key, failure):
                self.machine.handle(RootInput.INVITE_FAILED)
                self._failed(self._asked.pop(key), failure)
            case LegEnded(key, reason):
                self._ended(key, reason)
            case Arrived(_, batch):
                ledger.delivered(self.core.session_id, 0, batch)
            case _:
                pass

    def _ended(self, key: int, reason: EndReason) -> None:
        leaf = self._leaves.pop(key)
        if reason is EndReason.PROTOCOL_ERROR:
            raise SafetyError(f"{self.host} calls leaf {leaf} a breaker of the protocol")
        if reason is EndReason.CLOSED:
            taken = self.core.legs[key].expected.get(leaf, 0)
            self.world.ledger.root_heard_the_end(self.core, leaf, taken)
        else:
            self.world.ledger.root_left(self.core.session_id, leaf)

    def _checked(self) -> None:
        """Hold up reading while what is relayed has nowhere to go."""
        super()._checked()
        if not self.driver.alive:
            return
        if (group := self.group) is not None:
            behind = self._over_limit(self.core.members) or group.behind
            holds = [key for key in self.core.members if group.holds(key)] if behind else ()
            self.driver.set_deaf(holds)
        elif self.manners.settings.slow is SlowPolicy.WAIT:
            self.driver.set_reading(not self.core.over_limit(self.core.members))

    def _over_limit(self, keys: Sequence[int]) -> bool:
        """Whether somebody who is waited for is behind."""
        waits = self.manners.settings.slow is SlowPolicy.WAIT
        return waits and bool(self.core.over_limit(keys))

    # What it does of itself

    def send(self) -> None:
        """Send one batch to all, if the policy lets it, now and then to some only."""
        core = self.core
        listeners = core.listeners(core.myself)
        if self.machine.state in (RootState.DISSOLVED, RootState.CLOSED) or not listeners:
            return
        if self._over_limit(listeners) or self._group_waits():
            return
        if self.dice.random() < 0.1:
            self._send_directly(self.dice.choice(listeners))
            return
        lent = [bytearray(m) for m in self.messages(core.session_id, 0, core.sequence)]
        packed = core.send(lent, self.now_ns)
        if self.group is not None and self.dice.random() < 0.5:
            self.driver.pump()  # what the kernel takes at once is not copied
        if packed.borrowed:
            core.own_outboxes(listeners)
        for buffer in lent:
            buffer[:] = bytes(len(buffer))  # the caller may do as it likes with its memory
        self.world.trace(self.host, f"sent {packed.count} up to {core.sequence}")
        self.driver.pump()

    def _group_waits(self) -> bool:
        """Whether the stream has more waiting than a send may add to."""
        group = self.group
        if group is None or self.manners.settings.slow is not SlowPolicy.WAIT:
            return group is not None and self._shaped and not group.carriage.sender.has_room
        return group.carriage.sender.pending_bytes > self.manners.settings.queue_bytes

    @property
    def _shaped(self) -> bool:
        """Whether a send of the root's waits for its rate, whatever the policy."""
        return self.manners.sending is not None

    @property
    def is_draining(self) -> bool:
        """Whether something waits for the group, or for its leaves to acknowledge it."""
        if self.group is None:
            return False
        sender = self.group.carriage.sender
        waits = any(sender.unacknowledged(key) for key in self.core.members)
        return bool(self.driver.deaf) or not sender.has_room or waits

    def _send_directly(self, key: int) -> None:
        core = self.core
        if core.over_limit([key]):
            return
        messages = self.messages(core.session_id, 0, 0, target=self._leaves[key])
        if self.dice.random() < 0.5:
            packed = core.send(messages, self.now_ns, to=[key])
        else:
            packed = core.send_side(key, messages)
        if packed.borrowed:
            core.own_outboxes([key])
        self.driver.pump()

    def expel(self) -> None:
        """Send one member away."""
        if members := self.core.members:
            key = self.dice.choice(members)
            self._end(key, EndReason.EXPELLED)
            self.driver.pump()

    def abort(self) -> None:
        """Drop one member without a word."""
        if members := self.core.members:
            key = self.dice.choice(members)
            self.world.ledger.root_left(self.core.session_id, self._leaves.pop(key))
            self.driver.abort(key)

    def _end(self, key: int, reason: EndReason) -> None:
        self.world.trace(self.host, f"{key} end {reason}")
        if (leaf := self._leaves.pop(key, None)) is not None:
            self.world.ledger.root_ends(self.core, leaf)
        linger_ns = int(self.manners.settings.linger * SECOND)
        self.core.close_leg(key, reason, b"bye", self.now_ns, linger_ns)

    def invite(self, host: str) -> None:
        """Invite a guest; while another invitation is outstanding, be refused."""
        if self.machine.state is RootState.JOINING:
            _refused(lambda: self.machine.handle(RootInput.INVITE))
            return
        self.machine.handle(RootInput.INVITE)
        key, token = self.driver.new_key(), self.token()
        target = Address(host, LEAF_PORT + key % LEAF_PORTS)
        deadline_ns = self.now_ns + self.manners.patience_ns
        self.core.invite(
            key,
            target,
            Address(self.host),
            self.now_ns,
            data=token,
            qos=None,
            deadline_ns=deadline_ns,
        )
        self._asked[key] = token
        request = self.core.legs[key].association.request
        assert request is not None
        assert request.facts is not None
        self.world.ledger.invited(self.core.session_id, request.facts.leaf)
        self.driver.dial(key, target)

    def invite_missing(self) -> None:
        """Invite somebody who is not here."""
        here = {self.core.legs[key].association.peer.host for key in self.core.members}
        missing = [guest for guest in self.guests if guest not in here]
        if missing and self.machine.state in (RootState.IDLE, RootState.JOINING):
            self.invite(self.dice.choice(missing))

    def cancel_invitation(self) -> None:
        """Take the pending invitation back."""
        for key in list(self._asked):
            if self.core.legs[key].association.state in ASKING:
                self.machine.handle(RootInput.INVITE_CANCELLED)
                del self._asked[key]
                self._end(key, EndReason.CANCELLED)
        self.driver.pump()

    def dissolve(self) -> None:
        """End the session in order."""
        self.machine.handle(RootInput.DISSOLVE)
        self.world.network.stop_listening(Address(self.host, ROOT_PORT))
        self._asked.clear()
        for key in list(self.core.legs):
            self._end(key, EndReason.DISSOLVED)
        self.driver.pump()


class LeafNode(Node):
    """One membership of one leaf: asks to join, or has been invited.

    Attributes:
        key: Its one leg; 0 while it has none.
    """

    core: LeafSession

    def __init__(
        self,
        world: World,
        host: str,
        manners: Manners,
        dice: random.Random,
        incarnation: bytes,
        state: LeafState = LeafState.IDLE,
    ) -> None:
        self.core = LeafSession(manners.settings, incarnation=incarnation, d_root=manners.d_root)
        super().__init__(world, host, manners, dice, self.core)
        self.machine = LeafMachine(state)
        self.key = 0
        self._token = b""

    @property
    def joined(self) -> bool:
        """Whether it believes itself a member."""
        return self.machine.state is LeafState.JOINED

    def join(self, root: str) -> None:
        """Ask to join; while that is outstanding, be refused a second time."""
        if self.machine.state is LeafState.JOINING:
            _refused(lambda: self.machine.handle(LeafInput.JOIN))
            return
        self.machine.handle(LeafInput.JOIN)
        self.key, self._token = self.driver.new_key(), self.token()
        target = Address(root, ROOT_PORT)
        self.core.join(
            self.key,
            target,
            Address(self.host),
            self.now_ns,
            data=self._token,
            qos=self.manners.qos,
            role=self.manners.role,
            deadline_ns=self.now_ns + self.manners.patience_ns,
        )
        self.driver.dial(self.key, target)

    def _handle(self, output: Output) -> None:
        match output:
            case LegJoined(_, answer):
                assert answer is not None
                self.machine.handle(LeafInput.JOIN_DONE)
                self.world.ledger.asker_joined(self._token, answer.data)
                self.tell_joined()
            case JoinEnded(_, failure):
                self.machine.handle(LeafInput.JOIN_FAILED)
                self._failed(self._token, failure)
                self.world.broken(self)
            case LegEnded(_, reason):
                self._ended(reason)
            case Arrived(_, batch):
                facts = self.core.facts
                assert facts is not None
                self.world.ledger.delivered(facts.session, facts.leaf, batch)
            case GroupOffered(key, group):
                self._hear(key, group)
            case _:
                pass

    def _hear(self, key: int, group: GroupFacts) -> None:
        """Join the group, where this host can; its leg serves it until it hears a probe."""
        if self.manners.hears_group:
            driver, network = self.driver, self.world.network
            driver.link = LeafGroup(
                network, self.host, group.source, self.core, key, group, self.dice,
                self.manners.train_loss, driver.group_ready,
            )  # fmt: skip

    def tell_joined(self) -> None:
        """It is a member now."""
        facts = self.core.facts
        assert facts is not None
        self.world.ledger.leaf_joined(facts.session, facts.leaf, self.core.incarnation)

    def _ended(self, reason: EndReason) -> None:
        facts = self.core.facts
        assert facts is not None
        if reason is EndReason.PROTOCOL_ERROR:
            raise SafetyError(f"{self.host} calls its root a breaker of the protocol")
        if reason in (EndReason.EXPELLED, EndReason.DISSOLVED):
            self.world.ledger.leaf_heard_the_end(facts.session, facts.leaf)
        self.machine.handle(LeafInput.ENDED)
        self.world.broken(self)

    def send(self) -> None:
        """Send one batch, if there is room for it."""
        core, facts = self.core, self.core.facts
        if not self.joined or facts is None or not self.manners.role.sends:
            return
        if core.legs[self.key].association.outbox.size > core.settings.queue_bytes:
            return
        packed = core.send(self.key, self.messages(facts.session, facts.leaf, core.sequence))
        if packed.borrowed:
            core.own_outboxes([self.key])
        self.world.trace(self.host, f"sent {packed.count} up to {core.sequence}")
        self.driver.pump()

    def abort(self) -> None:
        """Close without ceremony, whatever the state."""
        self.machine.handle(LeafInput.CLOSE)
        self.world.trace(self.host, "aborts")
        self.driver.abort(self.key)
        self.world.broken(self)

    def leave(self) -> None:
        """Close, whatever the state: leave, or take the request back."""
        state = self.machine.state
        self.machine.handle(LeafInput.CLOSE)
        if state is LeafState.JOINED and self.core.facts is not None:
            facts = self.core.facts
            self.world.ledger.leaf_leaves(facts.session, facts.leaf, self.core.sequence)
        self.world.trace(self.host, "leaves")
        linger_ns = int(self.manners.settings.linger * SECOND)
        self.core.close_leg(self.key, EndReason.CLOSED, b"bye", self.now_ns, linger_ns)
        self.driver.pump()
        self.world.broken(self)


class ListeningLeaf(Answering, Node):
    """A leaf that waits to be invited; each accepted invitation makes a ``LeafNode``."""

    core: LeafSession

    def __init__(
        self,
        world: World,
        host: str,
        manners: Manners,
        dice: random.Random,
        incarnation: bytes,
        joined: Callable[[LeafNode], None],
    ) -> None:
        self.core = LeafSession(manners.settings, incarnation=incarnation, d_root=manners.d_root)
        super().__init__(world, host, manners, dice, self.core)
        self.machine = LeafMachine()
        self.machine.handle(LeafInput.LISTEN)
        self._joined = joined
        for port in range(LEAF_PORT, LEAF_PORT + LEAF_PORTS):
            world.network.listen(Address(host, port), self.driver.take)

    def admit(self, key: int, request: JoinRequest) -> None:
        """Yes."""
        data = b"yes " + request.data
        self.world.ledger.decided(request.data, True, data)
        self.core.admit(key, Accept(data), self.manners.role)

    def _handle(self, output: Output) -> None:
        match output:
            case RequestWaiting():
                self.consider_soon()
            case LegJoined(key):
                self._spawn(*self.driver.hand_over(key), key)
            case LegEnded():
                raise SafetyError(f"{self.host}: the listener lost a membership it never had")
            case _:
                pass

    def _spawn(self, leg: Leg, end: StreamEnd, key: int) -> None:
        node = LeafNode(
            self.world,
            self.host,
            self.manners,
            self.dice,
            self.core.incarnation,
            LeafState.JOINED,
        )
        node.key = key
        node.core.adopt(key, leg)
        node.tell_joined()
        self._joined(node)
        node.driver.adopt(key, end)


def _refused(call: Callable[[], object]) -> None:
    """A second join while one is outstanding must be refused with WSAEALREADY."""
    try:
        call()
    except SpiError as error:
        if error.code == WSAEALREADY:
            return
        raise
    raise SafetyError("a second join was let through while the first is outstanding")
