"""What one seed stands for: hosts, roles, policies, links and faults, all drawn from it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Final

from joinleaf.spi.provider import JoinRole, Settings, SlowPolicy
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.testing.clock import MILLISECOND, SECOND
from joinleaf.testing.multicast import MulticastPlan
from joinleaf.testing.network import DatagramProfile
from joinleaf.testing.nodes import Manners
from joinleaf.testing.streams import StreamProfile

__all__ = ["LeafPlan", "RootPlan", "Scenario", "draw"]

ROLES: Final = (JoinRole.BOTH, JoinRole.BOTH, JoinRole.SENDER_ONLY, JoinRole.RECEIVER_ONLY)

TRAINS_FROM: Final = 100_000
"""The first seed with leaves whose hosts lose whole trains: what was found with lower ones shall
stay as it was."""


@dataclass(frozen=True, slots=True)
class RootPlan:
    """A host that opens sessions, and how."""

    host: str
    manners: Manners


@dataclass(frozen=True, slots=True)
class LeafPlan:
    """A host that is a leaf of one root; invited, or joining of its own.

    Attributes:
        misfit: Its messages are shorter than its root's may be, so that it is never let in.
    """

    host: str
    root: str
    invited: bool
    manners: Manners
    misfit: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything drawn from a seed before anything happens.

    Attributes:
        faults: Whether phase one has crashes and partitions.
        stormy: How streams behave in phase one.
        fair: How they behave in phase two.
        stormy_ns: How long phase one lasts.
        bound_ns: The longest bound on silence that a node has.
        datagrams: How the groups behave in phase one.
        fair_datagrams: How they behave in phase two.
        pauses: Whether processes stand still now and then in phase one.
        late_ns: By host, how long after the others it starts.
    """

    seed: int
    roots: tuple[RootPlan, ...]
    leaves: tuple[LeafPlan, ...]
    faults: bool
    stormy: StreamProfile
    fair: StreamProfile
    stormy_ns: int
    bound_ns: int
    datagrams: DatagramProfile = field(default_factory=DatagramProfile)
    fair_datagrams: DatagramProfile = field(default_factory=DatagramProfile)
    pauses: bool = False
    late_ns: dict[str, int] = field(default_factory=dict)

    @property
    def plans(self) -> tuple[RootPlan | LeafPlan, ...]:
        """Every host's plan, roots first."""
        return (*self.roots, *self.leaves)

    @property
    def untroubled(self) -> bool:
        """Whether nothing in it is a reason for anybody to take anybody for dead."""
        return not self.faults and not self.stormy.stall_chance and not self.pauses

    def __str__(self) -> str:
        return (
            f"{len(self.roots)} roots, {len(self.leaves)} leaves "
            f"({sum(leaf.invited for leaf in self.leaves)} invited), "
            f"{'faults' if self.faults else 'no faults'}, policies "
            f"{', '.join(root.manners.settings.slow for root in self.roots)}"
            f"{''.join(map(self._group, self.roots))}"
            f"{', pauses' if self.pauses else ''}"
        )

    def _group(self, root: RootPlan) -> str:
        plan = root.manners.multicast
        if plan is None:
            return ""
        sealed, rate = "sealed " if plan.sealed else "", root.manners.sending
        at = f" at {rate.token_rate} B/s" if rate is not None else ""
        lost = any(leaf.manners.train_loss for leaf in self.leaves)
        trains = " and whole trains lost" if lost else ""
        return f", {sealed}group of {root.host}, {self.datagrams.loss:.0%} loss{trains}{at}"


def draw(seed: int, *, plain: bool = False) -> Scenario:
    """The scenario of a seed; the same for the same seed, always."""
    scenario = _draw_plain(seed)
    return scenario if plain else _widened(scenario)


def _widened(scenario: Scenario) -> Scenario:
    """Multicast streams, rates, pauses and more; drawn apart, so that the rest stays as it is."""
    dice = random.Random(f"{scenario.seed}/wide")
    sealed = dice.random() < 0.5
    grouped = dice.random() < 0.8
    loss = dice.choice((0.0, 0.01, 0.1, 0.3))
    datagrams = DatagramProfile(
        latency_ns=scenario.stormy.latency_ns,
        jitter_ns=dice.choice((0, 100_000, 5 * MILLISECOND)),
        loss=loss,
        duplication=dice.choice((0.0, 0.05)),
        # Nothing but a seal notices: the checksum of UDP has let it pass, or somebody made it.
        corruption=dice.choice((0.0, 0.02)) if sealed else 0.0,
    )
    roots = tuple(_widen_root(dice, plan, grouped, sealed) for plan in scenario.roots)
    leaves = tuple(_widen_leaf(dice, plan) for plan in scenario.leaves)
    if scenario.seed >= TRAINS_FROM and random.Random(f"{scenario.seed}/trains").random() < 0.5:
        leaves = tuple(_lose_trains(scenario.seed, plan) for plan in leaves)
    late = [plan.host for plan in scenario.leaves if dice.random() < 0.2]
    return replace(
        scenario,
        roots=roots,
        leaves=leaves,
        datagrams=datagrams,
        fair_datagrams=replace(datagrams, loss=dice.choice((0.0, loss)), corruption=0.0),
        pauses=scenario.faults and dice.random() < 0.5,
        late_ns={host: dice.randint(500, 3000) * MILLISECOND for host in late},
    )


def _lose_trains(seed: int, plan: LeafPlan) -> LeafPlan:
    share = random.Random(f"{seed}/trains/{plan.host}").choice((0.0, 0.01, 0.1))
    return replace(plan, manners=replace(plan.manners, train_loss=share))


def _widen_root(dice: random.Random, plan: RootPlan, grouped: bool, sealed: bool) -> RootPlan:
    stream = MulticastPlan(
        sealed=sealed,
        segment=dice.choice((576, 1452, 1452, 9000, 60_000)),
        window_bytes=dice.choice((1 << 18, 1 << 20)),
        paced=dice.random() < 0.8,
    )
    rate = dice.choice((None, None, 1_000_000, 4_000_000))
    manners = replace(
        plan.manners,
        multicast=stream if grouped else None,
        sending=_flow(rate) if rate is not None else None,
    )
    return replace(plan, manners=manners)


def _widen_leaf(dice: random.Random, plan: LeafPlan) -> LeafPlan:
    settings = plan.manners.settings
    misfit = dice.random() < 0.05
    rate = dice.choice((None, None, None, 500_000, 8_000_000))
    manners = replace(
        plan.manners,
        settings=replace(settings, max_message=40_000) if misfit else settings,
        qos=Qos(receiving=_flow(rate)) if rate is not None else None,
        hears_group=dice.random() < 0.85,
    )
    return replace(plan, manners=manners, misfit=misfit)


def _flow(rate: int) -> FlowSpec:
    return FlowSpec(token_rate=rate, token_bucket_size=max(20_000, rate // 20))


def _draw_plain(seed: int) -> Scenario:
    dice = random.Random(f"{seed}/scenario")
    most_ms = dice.choice((400, 1000, 2000, 2000))
    roots = tuple(
        RootPlan(f"root{index}", _root(dice, most_ms)) for index in range(dice.choice((1, 1, 2)))
    )
    leaves: list[LeafPlan] = []
    for root in roots:
        invited = dice.choice((0.0, 0.3, 1.0))
        # At most one leaf is asked to be the d_root, and only where the root leaves it that part.
        chosen = dice.random() < 0.6 and root.manners.rooted and not root.manners.d_root
        for number in range(dice.choice((3, 6, 10, 14))):
            least = root.manners.settings.max_message
            manners = _leaf(dice, most_ms, least, d_root=chosen and not number)
            host = f"leaf{len(leaves)}"
            leaves.append(LeafPlan(host, root.host, dice.random() < invited, manners))
    stormy = _streams(dice, most_ms)
    return Scenario(
        seed=seed,
        roots=roots,
        leaves=tuple(leaves),
        faults=dice.random() < 0.8,
        stormy=stormy,
        fair=StreamProfile(
            latency_ns=stormy.latency_ns,
            jitter_ns=stormy.jitter_ns,
            send_buffer=stormy.send_buffer,
            receive_buffer=stormy.receive_buffer,
            give_up_ns=stormy.give_up_ns,
        ),
        stormy_ns=4 * SECOND,
        bound_ns=most_ms * MILLISECOND,
    )


def _settings(dice: random.Random, most_ms: int) -> Settings:
    return Settings(
        slow=dice.choice(list(SlowPolicy)),
        queue_bytes=dice.choice((65536, 65536, 262144)),
        dead_after=dice.choice((max(400, most_ms // 5), most_ms)) / 1000,
        join_timeout=1.0,
        linger=dice.choice((0.5, 1.5)),
        backlog=dice.choice((2, 8, 64)),
        max_message=dice.choice((65536, 65536, 1 << 20)),
    )


def _root(dice: random.Random, most_ms: int) -> Manners:
    rooted = dice.random() < 0.6
    return Manners(
        settings=_settings(dice, most_ms),
        rooted=rooted,
        d_root=rooted and dice.random() < 0.7,
        role=dice.choice(ROLES),
        reject=dice.choice((0.0, 0.2)),
        defer=dice.choice((0.0, 0.2)),
    )


def _leaf(dice: random.Random, most_ms: int, least: int, *, d_root: bool) -> Manners:
    """A leaf must take messages as long as its root's, or it is not let in."""
    settings = _settings(dice, most_ms)
    return Manners(
        settings=replace(settings, max_message=max(settings.max_message, least)),
        d_root=d_root,
        role=dice.choice(ROLES),
        reject=dice.choice((0.0, 0.2)),
        defer=dice.choice((0.0, 0.2)),
    )


def _streams(dice: random.Random, most_ms: int) -> StreamProfile:
    return StreamProfile(
        latency_ns=dice.choice((100_000, 2 * MILLISECOND, 15 * MILLISECOND)),
        jitter_ns=dice.choice((0, MILLISECOND, 20 * MILLISECOND)),
        stall_chance=dice.choice((0.0, 0.01, 0.05)),
        send_buffer=dice.choice((16384, 65536, 262144)),
        receive_buffer=dice.choice((16384, 65536, 262144)),
        give_up_ns=most_ms * MILLISECOND,
        connect_ns=dice.choice((300, 1000)) * MILLISECOND,
        reset_discards=dice.random() < 0.5,
    )
