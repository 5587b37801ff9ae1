"""A simulated nonrooted session: the machine of ``core/leaf_nonrooted.py`` over lossy datagrams.

Nodes join a group, send, lose their membership to a changing interface and get it back, close at
any moment, also while the stack has not answered yet. Datagrams are lost, late, repeated, out of
order and damaged, as they may be. What must hold: nobody hears itself without asking for it, what
is heard was sent, one join at a time, and a closed node leaves no membership behind.
"""

from __future__ import annotations

import hashlib
import random
import zlib
from collections.abc import Callable
from typing import Final

from joinleaf.core.leaf_nonrooted import (
    NonrootedAction,
    NonrootedInput,
    NonrootedLeafMachine,
    NonrootedState,
)
from joinleaf.errors import SpiError
from joinleaf.spi.codes import WSAEALREADY, WSAEISCONN, WSAENOTSOCK
from joinleaf.testing.checkers import SafetyError
from joinleaf.testing.clock import MILLISECOND, SECOND
from joinleaf.testing.network import DatagramProfile, SimNetwork
from joinleaf.values import Address

__all__ = ["GroupNode", "GroupSimulation"]

GROUP: Final = Address("239.1.2.3", 5000)
REFUSALS: Final = (WSAEALREADY, WSAEISCONN, WSAENOTSOCK)
_S, _I, _A = NonrootedState, NonrootedInput, NonrootedAction


class GroupNode:
    """One socket in the group, and the stack below it that answers later.

    Attributes:
        heard: How often each datagram was heard, by sender and number.
        damaged: Datagrams whose checksum was wrong, thrown away.
    """

    def __init__(self, world: GroupSimulation, host: str) -> None:
        self.world = world
        self.host = host
        self.dice = random.Random(f"{world.seed}/{host}")
        self.machine = NonrootedLeafMachine()
        self.heard: dict[tuple[str, int], int] = {}
        self.damaged = 0
        self.sent = 0
        self._asked = 0  # joins the stack has not answered

    def feed(self, kind: NonrootedInput) -> None:
        """An input, and what the machine wants done for it."""
        self.world.trace(f"{self.host} {kind.name}")
        for action in self.machine.handle(kind):
            self._perform(action)
        if self._asked > 1:
            raise SafetyError(f"{self._asked} joins outstanding at {self.host}")

    def join(self, *, sender_only: bool) -> None:
        """Ask to join; refused where that is not possible now, and nothing changes then."""
        state = self.machine.state
        try:
            self.feed(_I.JOIN_SENDER if sender_only else _I.JOIN)
        except SpiError as error:
            if error.code not in REFUSALS or self.machine.state is not state:
                raise SafetyError(f"a refused join changed {self.host}") from error
            return
        if state is not _S.IDLE:
            raise SafetyError(f"a join in state {state.name} was let through")

    def _perform(self, action: NonrootedAction) -> None:
        match action:
            case _A.ADD_MEMBERSHIP:
                self._answer(_I.JOIN_DONE, _I.JOIN_FAILED, subscribes=True)
            case _A.PREPARE_SENDING:
                self._answer(_I.SENDER_DONE, _I.JOIN_FAILED, subscribes=False)
            case _A.RENEW_MEMBERSHIP:
                self._renew()
            case _A.DROP_MEMBERSHIP:
                self.world.network.unsubscribe(GROUP, self.host)
            case _:
                pass  # what the owner is told

    def _answer(self, done: NonrootedInput, failed: NonrootedInput, *, subscribes: bool) -> None:
        self._asked += 1
        works = self.world.calm or self.dice.random() < 0.8

        def answer() -> None:
            self._asked -= 1
            if works and subscribes:
                self.world.network.subscribe(GROUP, self.host, self)
            self.feed(done if works else failed)

        self.world.network.agenda.after(self.dice.randint(0, 100) * MILLISECOND, answer)

    def _renew(self) -> None:
        """Try again until it works or nobody wants it any more."""

        def attempt() -> None:
            if self.machine.state is not _S.CUT_OFF:
                return
            if not self.world.calm and self.dice.random() < 0.5:
                self.feed(_I.LOST)
                self._renew()
                return
            self.world.network.subscribe(GROUP, self.host, self)
            self.feed(_I.RENEWED)

        self.world.network.agenda.after(self.dice.randint(1, 300) * MILLISECOND, attempt)

    def lose(self) -> None:
        """The interface goes, and the membership with it."""
        if self.machine.state is _S.JOINED:
            self.world.network.unsubscribe(GROUP, self.host)
            self.feed(_I.LOST)

    def send(self) -> None:
        """One datagram to the group: who, number, checksum."""
        if not self.machine.is_member:
            return
        body = f"{self.host} {self.sent}".encode()
        self.sent += 1
        data = zlib.crc32(body).to_bytes(4, "big") + body
        self.world.network.send_datagram(self.host, GROUP, data)

    def datagram_received(self, data: bytes, sender: Address) -> None:
        """Throw away what is damaged; hold the rest against what was sent."""
        if zlib.crc32(data[4:]).to_bytes(4, "big") != data[:4]:
            self.damaged += 1
            return
        name, number = data[4:].decode().split()
        self.world.trace(f"{self.host} heard {name} {number}")
        if self.machine.state in (_S.IDLE, _S.CLOSED, _S.SENDER):
            raise SafetyError(f"{self.host} hears the group in {self.machine.state.name}")
        if name == self.host or name != sender.host:
            raise SafetyError(f"{self.host} heard {name} from {sender}")
        if int(number) >= self.world.nodes[name].sent:
            raise SafetyError(f"{self.host} heard what {name} has not sent")
        self.heard[name, int(number)] = self.heard.get((name, int(number)), 0) + 1


class GroupSimulation:
    """One seed's group. ``run`` raises ``SafetyError``, or whatever a machine let escape."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        dice = random.Random(f"{seed}/group")
        self.network = SimNetwork(
            seed,
            datagrams=DatagramProfile(
                jitter_ns=dice.choice((0, 50 * MILLISECOND)),
                loss=dice.choice((0.0, 0.1, 0.5)),
                duplication=dice.choice((0.0, 0.2)),
                corruption=dice.choice((0.0, 0.1)),
            ),
        )
        self.calm = False
        self.nodes = {
            name: GroupNode(self, name) for name in (f"node{i}" for i in range(dice.randint(2, 20)))
        }
        self._digest = hashlib.sha256()

    def trace(self, what: str) -> None:
        """Add a line to the trace."""
        self._digest.update(f"{self.network.clock.now_ns} {what}\n".encode())

    def run(self) -> str:
        """Faults, then none: whoever stayed must hear everybody. Returns the trace's digest."""
        agenda = self.network.agenda
        for node in self.nodes.values():
            agenda.after(node.dice.randint(0, 300) * MILLISECOND, self._acting(node))
        agenda.run(3 * SECOND)
        self.calm = True
        self.network.datagrams = DatagramProfile()
        agenda.run(5 * SECOND)
        before = {name: node.sent for name, node in self.nodes.items()}
        for node in self.nodes.values():
            node.send()
        agenda.run(6 * SECOND)
        self._check(before)
        return self._digest.hexdigest()

    def _acting(self, node: GroupNode) -> Callable[[], None]:
        def act() -> None:
            if self.calm:
                if node.machine.state is _S.IDLE:
                    node.join(sender_only=False)
                return
            self._act(node)
            self.network.agenda.after(node.dice.randint(5, 150) * MILLISECOND, act)

        return act

    @staticmethod
    def _act(node: GroupNode) -> None:
        dice = node.dice.random()
        if dice < 0.3:
            node.join(sender_only=dice < 0.05)
        elif dice < 0.9:
            node.send()
        elif dice < 0.97:
            node.lose()
        else:
            node.feed(_I.CLOSE)

    def _check(self, before: dict[str, int]) -> None:
        subscribed = self.network.subscribed(GROUP)
        for name, node in self.nodes.items():
            wants = node.machine.state is _S.JOINED
            if node.machine.state in (_S.CUT_OFF, _S.JOINING, _S.JOINING_SENDER):
                raise SafetyError(f"{name} is still {node.machine.state.name}")
            if wants != (name in subscribed):
                raise SafetyError(f"{name} is {node.machine.state.name}, the stack thinks not so")
            for other, number in before.items():
                due = wants and other != name and self.nodes[other].sent > number
                if due and node.heard.get((other, number)) != 1:
                    raise SafetyError(f"{name} has not heard {other} once, all links fair")
