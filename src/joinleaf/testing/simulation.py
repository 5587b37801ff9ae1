"""A whole simulation: one seed, one world, two phases.

Phase one: nodes come and go, send, stop reading, crash and are cut off; safety is checked at every
step. Phase two: the faults are over; everybody must find back, nobody may die of silence any more,
and in the end whoever is a member must have been told of everything that was sent.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from joinleaf.core.leaf_rooted import LeafState
from joinleaf.core.leg import LegState
from joinleaf.core.root import RootState
from joinleaf.testing.checkers import Ledger, SafetyError
from joinleaf.testing.clock import MILLISECOND, SECOND
from joinleaf.testing.network import SimNetwork
from joinleaf.testing.nodes import LeafNode, ListeningLeaf, Node, RootNode
from joinleaf.testing.scenario import LeafPlan, RootPlan, Scenario, draw
from joinleaf.testing.strangers import Stranger

__all__ = ["Result", "Simulation", "SimulationError", "simulate"]

DRAIN_SECONDS: Final = 30
"""What members have said at full speed may have to leave at the rate of their root."""

MOST_STEPS: Final = 400_000
MOST_STEPS_WITH_GROUPS: Final = 4_000_000  # every symbol is a step at every leaf
"""Far more than any run needs: whoever gets there goes round in circles."""


class SimulationError(AssertionError):
    """A run failed; the text begins with the command that replays it."""


@dataclass(frozen=True, slots=True)
class Result:
    """A run that found nothing.

    Attributes:
        digest: SHA-256 over the trace, in hexadecimal.
        steps: Entries of the agenda that were carried out.
        counts: How often each thing was checked.
    """

    seed: int
    scenario: Scenario
    digest: str
    steps: int
    counts: dict[str, int]


class Host:
    """A host and the programs on it, one of which is the present one.

    Attributes:
        node: The present program, if it runs.
        member: On a leaf that is invited, its membership.
        former: Programs whose session is over, and which still say goodbye.
        restarts: How often it started; each start has an identity of its own.
    """

    def __init__(self, seed: int, name: str) -> None:
        self.name = name
        self.dice = random.Random(f"{seed}/{name}")
        self.node: Node | None = None
        self.member: LeafNode | None = None
        self.former: list[Node] = []
        self.incarnation = b""
        self.down = False
        self.frozen = False

    @property
    def nodes(self) -> list[Node]:
        """Everything that runs in its process."""
        nodes = (self.node, self.member, *self.former)
        return [node for node in nodes if node is not None]

    def freeze(self) -> None:
        """Nothing of it runs any more, and nothing notices."""
        self.frozen = True
        for node in self.nodes:
            node.driver.freeze()

    def thaw(self) -> None:
        """It goes on."""
        self.frozen = False
        for node in self.nodes:
            node.driver.thaw()

    @property
    def leaf(self) -> LeafNode | None:
        """The membership, or what may become one."""
        return self.member if isinstance(self.node, ListeningLeaf) else self._asking

    @property
    def _asking(self) -> LeafNode | None:
        return self.node if isinstance(self.node, LeafNode) else None


class Simulation:
    """The world that nodes live in.

    Attributes:
        network: Hosts and links.
        ledger: The safety checks.
        calm: Whether phase two has begun.
        quiet: Whether nothing new is sent any more.
    """

    def __init__(self, scenario: Scenario, *, tell: Callable[[str], None] | None = None) -> None:
        self.scenario = scenario
        self.network = SimNetwork(
            scenario.seed, streams=scenario.stormy, datagrams=scenario.datagrams
        )
        self.ledger = Ledger()
        self.calm = False
        self.quiet = False
        self._tell = tell
        self._digest = hashlib.sha256()
        self._dice = random.Random(f"{scenario.seed}/faults")
        names = [plan.host for plan in scenario.plans]
        self.hosts = {name: Host(scenario.seed, name) for name in names}
        self._late_deaths_from_ns: int | None = None
        self._pauses = random.Random(f"{scenario.seed}/pauses")
        has_groups = any(plan.manners.multicast is not None for plan in scenario.roots)
        self._most_steps = MOST_STEPS_WITH_GROUPS if has_groups else MOST_STEPS

    # What nodes ask

    def trace(self, node: str, what: str) -> None:
        """Add a line to the trace."""
        line = f"{self.network.clock.now_ns} {node} {what}\n"
        self._digest.update(line.encode())
        if self._tell is not None:
            self._tell(line)
        due_ns = self._late_deaths_from_ns
        if due_ns is not None and self.network.clock.now_ns > due_ns and "timed out" in what:
            raise SafetyError(f"{node}: a membership died of silence while all links are fair")

    def broken(self, node: Node) -> None:
        """A node's session is over: it is replaced when its host next acts."""
        host = self.hosts[node.host]
        if host.member is node:
            # Two invitations may have crossed, and the membership by the first be what lasts.
            others = (one for one in host.former if isinstance(one, LeafNode) and one.joined)
            host.member = next(others, None)
            host.former = [one for one in host.former if one is not host.member] + [node]
        elif host.node is node and (not isinstance(node, LeafNode) or self._spent(node)):
            host.node = None
            host.former.append(node)
        host.former = host.former[-8:] if not host.down else []

    @staticmethod
    def _spent(node: LeafNode) -> bool:
        return node.machine.state in (LeafState.BROKEN, LeafState.CLOSED)

    # Hosts

    def _start(self, plan: RootPlan | LeafPlan) -> None:
        host = self.hosts[plan.host]
        if not host.incarnation:
            host.incarnation = host.dice.randbytes(16)
        self.trace(host.name, "starts")
        args = (self, host.name, plan.manners, host.dice, host.incarnation)
        if isinstance(plan, RootPlan):
            guests = [
                leaf.host
                for leaf in self.scenario.leaves
                if leaf.invited and leaf.root == plan.host
            ]
            host.node = RootNode(*args, guests)
        elif plan.invited:
            host.node = ListeningLeaf(*args, self._joined(host))
        else:
            host.node = LeafNode(*args)

    def _joined(self, host: Host) -> Callable[[LeafNode], None]:
        def joined(member: LeafNode) -> None:
            if host.member is not None:
                host.former.append(host.member)
            host.member = member

        return joined

    def _crash(self, host: Host, *, power: bool) -> None:
        self.trace(host.name, "loses power" if power else "is killed")
        host.frozen = False
        for node in host.nodes:
            node.stop()
        host.node = host.member = None
        host.former = []
        host.incarnation = b""
        host.down = True
        self.network.crash(host.name, power=power)
        delay_ns = self._dice.randint(50, 2500) * MILLISECOND

        def restart() -> None:
            host.down = False
            self.network.restart(host.name)

        self.network.agenda.after(delay_ns, restart)

    # What happens of itself

    def _act(self, plan: RootPlan | LeafPlan) -> None:
        """A host does something, and again after a while."""
        host = self.hosts[plan.host]
        if not host.down and not host.frozen:
            if host.node is None:
                self._start(plan)
            elif isinstance(host.node, RootNode):
                self._act_root(host.node)
            elif isinstance(plan, LeafPlan):
                self._act_leaf(plan, host)
        delay_ns = host.dice.randint(20, 250) * MILLISECOND
        self.network.agenda.after(delay_ns, lambda: self._act(plan))

    def _act_root(self, node: RootNode) -> None:
        dice = node.dice.random()
        node.invite_missing()
        if not self.quiet:
            for _ in range(node.dice.randint(0, 3)):
                node.send()
        if self.calm:
            return
        if dice < 0.02:
            node.dissolve()
            self.broken(node)
        elif dice < 0.08:
            node.expel()
        elif dice < 0.12:
            node.cancel_invitation()
        elif dice < 0.14:
            node.abort()

    def _act_leaf(self, plan: LeafPlan, host: Host) -> None:
        node = host.leaf
        if node is None:
            return
        dice = node.dice.random()
        if node.machine.state in (LeafState.IDLE, LeafState.JOINING):
            if dice > 0.95 and not self.calm:
                node.leave()
            else:
                node.join(plan.root)
            return
        if not self.quiet and dice < 0.7:
            node.send()
        if self.calm:
            return
        if dice > 0.97:
            node.abort()
        elif dice > 0.95:
            node.leave()
        elif dice > 0.85:
            node.pause_reading(node.dice.randint(50, 1500) * MILLISECOND)

    def _intrude(self) -> None:
        """Somebody who is no member knocks at a root, and again after a while."""
        if self.calm:
            return
        root = self._dice.choice(self.scenario.roots)
        Stranger(self.network, root.host, self._dice)
        delay_ns = self._dice.randint(20, 600) * MILLISECOND
        self.network.agenda.after(delay_ns, self._intrude)

    def _fault(self) -> None:
        """Something bad happens, and again after a while."""
        if self.calm:
            return
        dice, names = self._dice, list(self.hosts)
        what = dice.random()
        if what < 0.4:
            self._crash(self.hosts[dice.choice(names)], power=dice.random() < 0.5)
        else:
            one, other = dice.sample(names, 2)
            roots = [plan.host for plan in self.scenario.roots]
            if one not in roots:
                other = dice.choice(roots)
            if one != other:
                self._cut(one, other, both=what < 0.8)
        self.network.agenda.after(dice.randint(50, 900) * MILLISECOND, self._fault)

    def _pause(self) -> None:
        """A process stands still for a while, as after SIGSTOP; and again after a while."""
        if self.calm:
            return
        dice = self._pauses
        host = self.hosts[dice.choice(list(self.hosts))]
        if not host.down and not host.frozen:
            self.trace(host.name, "stands still")
            host.freeze()
            self._resume_later(host, dice.choice((20, 100, 400, 3000)) * MILLISECOND)
        self.network.agenda.after(dice.randint(50, 1200) * MILLISECOND, self._pause)

    def _resume_later(self, host: Host, most_ns: int) -> None:
        delay_ns = self._pauses.randint(most_ns // 4, most_ns)
        self.network.agenda.after(delay_ns, lambda: self._resume(host))

    def _resume(self, host: Host) -> None:
        if host.frozen:
            self.trace(host.name, "goes on")
            host.thaw()

    def _cut(self, one: str, other: str, *, both: bool) -> None:
        self.trace(one, f"cut off from {other}{' both ways' if both else ''}")
        ways = [(one, other), (other, one)] if both else [(one, other)]
        for way in ways:
            self.network.block(*way)
            duration_ns = self._dice.randint(20, 3000) * MILLISECOND
            self.network.agenda.after(duration_ns, partial(self.network.unblock, *way))

    # The run

    def run(self) -> Result:
        """Both phases; raises ``SafetyError`` or whatever a core let escape."""
        scenario, network = self.scenario, self.network
        for plan in scenario.plans:
            start_ns = self.hosts[plan.host].dice.randint(0, 400) * MILLISECOND
            start_ns += scenario.late_ns.get(plan.host, 0)
            network.agenda.after(start_ns, partial(self._act, plan))
        if scenario.untroubled:
            self._late_deaths_from_ns = 0
        network.agenda.after(SECOND // 10, self._intrude)
        if scenario.faults:
            network.agenda.after(300 * MILLISECOND, self._fault)
        if scenario.pauses:
            network.agenda.after(500 * MILLISECOND, self._pause)
        self._run(scenario.stormy_ns)
        self.calm = True
        self.trace("network", "heals")
        network.heal()
        for host in self.hosts.values():
            host.down = False
            self._resume(host)
        network.streams = scenario.fair
        network.datagrams = scenario.fair_datagrams
        # Old stalls and silent ends run out, then everybody finds back, refused or not.
        self._run(2 * scenario.bound_ns + 5 * SECOND // 2)
        self._late_deaths_from_ns = network.clock.now_ns
        self._run(2 * SECOND)
        self.quiet = True
        self._run(scenario.bound_ns + 4 * SECOND)  # invitations go out one by one
        for _ in range(DRAIN_SECONDS):
            if not self._is_draining():
                break
            self._run(SECOND)
        self._converged()
        return Result(
            scenario.seed,
            scenario,
            self._digest.hexdigest(),
            network.agenda.steps,
            dict(sorted(self.ledger.counts.items())),
        )

    def _run(self, duration_ns: int) -> None:
        end_ns = self.network.clock.now_ns + duration_ns
        while (now_ns := self.network.clock.now_ns) < end_ns:
            self.network.agenda.run(min(end_ns, now_ns + SECOND // 10))
            if self.network.agenda.steps > self._most_steps:
                raise SafetyError(f"{self.network.agenda.steps} steps: something never rests")

    def _is_draining(self) -> bool:
        """Whether a root's stream is still behind what its members wanted to say at its rate."""
        nodes = [self.hosts[plan.host].node for plan in self.scenario.roots]
        return any(isinstance(node, RootNode) and node.is_draining for node in nodes)

    def _converged(self) -> None:
        """Both ends of every leg agree, nobody is missing, nothing is owed."""
        for plan in self.scenario.roots:
            node = self.hosts[plan.host].node
            if not isinstance(node, RootNode) or node.machine.state is RootState.DISSOLVED:
                raise SafetyError(f"{plan.host} has not come back")
            self._agree(plan.host, node)
            self.ledger.settled(node.core)

    def _agree(self, name: str, root: RootNode) -> None:
        at_root = {leg.member.key: leg for leg in root.core.legs.values() if leg.member is not None}
        rest = [leg.association.state for leg in root.core.legs.values() if leg.member is None]
        misfits = any(plan.misfit and plan.root == name for plan in self.scenario.leaves)
        if not misfits and [state for state in rest if state is not LegState.CONNECTING]:
            raise SafetyError(f"{name} is left with legs in {rest}")
        for plan in self.scenario.leaves:
            if plan.root != name:
                continue
            leaf = self.hosts[plan.host].leaf
            if plan.misfit:
                continue  # it may believe in an invitation for a moment; the root may not
            if leaf is None or not leaf.joined or leaf.core.facts is None:
                state = leaf.machine.state if leaf is not None else None
                raise SafetyError(f"{plan.host} has not found back: {state}")
            if leaf.core.facts.session != root.core.session_id:
                raise SafetyError(f"{plan.host} is in a session that is over")
            if at_root.pop(leaf.core.facts.leaf, None) is None:
                raise SafetyError(f"{plan.host} is a member only in its own mind")
        if at_root:
            raise SafetyError(f"{name} has members that know nothing of it: {sorted(at_root)}")


def simulate(
    seed: int, *, tell: Callable[[str], None] | None = None, plain: bool = False
) -> Result:
    """Run one seed.

    Args:
        seed: Draws everything.
        tell: Called with every line of the trace.
        plain: Without multicast streams, processes that stand still, rates and misfits: what
            seeds stood for before there were these.

    Raises:
        SimulationError: Something happened that must not. The text begins with the command that
            replays the run; the cause is chained.
    """
    scenario = draw(seed, plain=plain)
    simulation = Simulation(scenario, tell=tell)
    try:
        return simulation.run()
    except Exception as error:
        raise SimulationError(
            f"python -m joinleaf.testing --seed {seed}{' --plain' if plain else ''}\n"
            f"at {simulation.network.clock.now_ns / SECOND:.6f} s, {scenario}:\n"
            f"{type(error).__name__}: {error}"
        ) from error
