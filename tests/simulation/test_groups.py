"""The nonrooted leaf's machine over lossy datagrams, by seed."""

from __future__ import annotations

import pytest

from joinleaf.core.leaf_nonrooted import (
    NonrootedAction,
    NonrootedInput,
    NonrootedLeafMachine,
    NonrootedState,
)
from joinleaf.testing import GroupSimulation
from joinleaf.testing.checkers import SafetyError
from joinleaf.testing.groups import GroupNode
from joinleaf.testing.network import SimNetwork
from joinleaf.values import Address


@pytest.mark.parametrize("first", range(0, 100, 25))
def test_a_group_is_safe_and_comes_to_rest(first: int) -> None:
    for seed in range(first, first + 25):
        GroupSimulation(seed).run()


def test_faults_really_happen() -> None:
    groups = [GroupSimulation(seed) for seed in range(30)]
    digests = {group.run() for group in groups}
    assert len(digests) == len(groups)
    nodes = [node for group in groups for node in group.nodes.values()]
    assert any(node.damaged for node in nodes)
    assert any(times > 1 for node in nodes for times in node.heard.values())
    assert {node.machine.state for node in nodes} >= {
        NonrootedState.JOINED,
        NonrootedState.SENDER,
        NonrootedState.CLOSED,
    }


def test_the_same_group_gives_the_same_trace() -> None:
    assert GroupSimulation(5).run() == GroupSimulation(5).run()


def first_failure() -> str:
    for seed in range(60):
        try:
            GroupSimulation(seed).run()
        except SafetyError as error:
            return str(error)
    pytest.fail("a broken machine went through unseen")


def test_a_close_that_forgets_the_membership_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    perform = GroupNode._perform

    def forgetful(self: GroupNode, action: NonrootedAction) -> None:
        if action is not NonrootedAction.DROP_MEMBERSHIP:
            perform(self, action)

    monkeypatch.setattr(GroupNode, "_perform", forgetful)
    assert "in CLOSED" in first_failure()


def test_a_member_that_hears_itself_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    send = SimNetwork.send_datagram

    def loop(self: SimNetwork, host: str, group: Address, data: bytes) -> None:
        send(self, host, group, data)
        self._arrival(host, host, group, data)()

    monkeypatch.setattr(SimNetwork, "send_datagram", loop)
    assert "heard node" in first_failure()


def test_a_machine_that_joins_twice_at_once_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def lax(_: NonrootedLeafMachine, kind: NonrootedInput) -> tuple[NonrootedAction, ...]:
        return (NonrootedAction.ADD_MEMBERSHIP,) if kind is NonrootedInput.JOIN else ()

    monkeypatch.setattr(NonrootedLeafMachine, "handle", lax)
    node = next(iter(GroupSimulation(0).nodes.values()))
    node.feed(NonrootedInput.JOIN)
    with pytest.raises(SafetyError, match="outstanding"):
        node.feed(NonrootedInput.JOIN)
