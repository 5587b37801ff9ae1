"""The tables decide every (state, input) pair once, cite their clauses, and move the machines."""

from __future__ import annotations

import re
from enum import Enum
from typing import Any

import pytest

from joinleaf.core.leaf_nonrooted import NonrootedInput, NonrootedLeafMachine, NonrootedState
from joinleaf.core.leaf_rooted import LeafInput, LeafMachine, LeafState
from joinleaf.core.leg import LegInput, LegMachine, LegState
from joinleaf.core.root import RootAction, RootInput, RootMachine, RootState
from joinleaf.core.tables import Machine, Row, check_partition, to_dot
from joinleaf.errors import LocalProtocolError, SpiError
from joinleaf.spi.codes import WSAEALREADY, WSAENOTSOCK

MACHINES: list[tuple[type[Machine[Any, Any, Any]], type[Enum], type[Enum]]] = [
    (RootMachine, RootState, RootInput),
    (LeafMachine, LeafState, LeafInput),
    (LegMachine, LegState, LegInput),
    (NonrootedLeafMachine, NonrootedState, NonrootedInput),
]
# Numbers of clauses, or sections of the model or of the design, with the row of a state table.
CITATION = re.compile(
    r"(?P<first>\d+)( to (?P<last>\d+))?|(model |design )?\d+(\.\d+)?( [A-Z]\d+)?|[A-Z]\d+"
)

each_machine = pytest.mark.parametrize(
    ("machine", "states", "inputs"), MACHINES, ids=lambda value: value.__name__
)


@each_machine
def test_every_pair_is_decided_exactly_once(
    machine: type[Machine[Any, Any, Any]], states: type[Enum], inputs: type[Enum]
) -> None:
    assert check_partition(machine, states, inputs) == []


@each_machine
def test_no_table_decides_pairs_that_do_not_exist(
    machine: type[Machine[Any, Any, Any]], states: type[Enum], inputs: type[Enum]
) -> None:
    for table in (machine.TABLE, machine.REFUSED, machine.STALE):
        for state, kind in table:
            assert state in states
            assert kind in inputs


@each_machine
def test_every_row_cites_a_clause_or_a_section(
    machine: type[Machine[Any, Any, Any]], states: type[Enum], inputs: type[Enum]
) -> None:
    for pair, row in machine.TABLE.items():
        for word in row.clause.split(", "):
            match = CITATION.fullmatch(word)
            assert match, f"{pair}: {row.clause!r}"
            for number in (match["first"], match["last"]):
                assert number is None or 1 <= int(number) <= 133, f"{pair}: no clause {number}"


@each_machine
def test_every_state_can_be_reached_and_every_machine_ends(
    machine: type[Machine[Any, Any, Any]], states: type[Enum], inputs: type[Enum]
) -> None:
    starts = {RootMachine: {"IDLE"}, LegMachine: {"CONNECTING", "OPENED"}}
    # An accepted invitation makes a leaf that begins as a member.
    reached = {states[name] for name in starts.get(machine, {"IDLE"})}
    while (
        new := {row.next for (state, _), row in machine.TABLE.items() if state in reached} - reached
    ):
        reached |= new
    assert reached == set(states)
    ends = [state for state in states if not any(key[0] is state for key in machine.TABLE)]
    undoing = {NonrootedState.CLOSED}  # undoes what closing overtook, and stays closed
    assert {state.name for state in ends} | {state.name for state in undoing & set(states)} <= {
        "CLOSED",
        "ENDED",
    }
    assert ends or undoing & set(states)


@each_machine
def test_the_graph_has_an_edge_for_each_row(
    machine: type[Machine[Any, Any, Any]], states: type[Enum], inputs: type[Enum]
) -> None:
    assert to_dot(machine).count("->") == len(machine.TABLE)


class _State(Enum):
    ON = 1
    OFF = 2


class _Input(Enum):
    PUSH = 1
    PULL = 2


class _Sound(Machine[_State, _Input, RootAction]):
    TABLE = {(_State.ON, _Input.PUSH): Row(_State.OFF, (), "1")}  # noqa: RUF012  # a ClassVar
    REFUSED = {(_State.ON, _Input.PULL): WSAEALREADY}  # noqa: RUF012
    STALE = frozenset({(_State.OFF, _Input.PUSH), (_State.OFF, _Input.PULL)})


class _Unsound(_Sound):
    REFUSED = {(_State.ON, _Input.PUSH): WSAEALREADY}  # noqa: RUF012  # twice; and ON x PULL never


def test_the_check_finds_what_is_decided_twice_or_never() -> None:
    assert check_partition(_Sound, _State, _Input) == []
    assert check_partition(_Unsound, _State, _Input) == [
        "ON x PUSH: decided 2 times",
        "ON x PULL: decided 0 times",
    ]


def test_a_row_moves_the_machine_and_gives_its_actions() -> None:
    machine = RootMachine()
    states = [machine.state]
    for kind, action in (
        (RootInput.INVITE, RootAction.START_INVITATION),
        (RootInput.INVITE_DONE, RootAction.INDICATE_CONNECT),
    ):
        assert machine.handle(kind) == (action,)
        states.append(machine.state)
    assert states == [RootState.IDLE, RootState.JOINING, RootState.IDLE]


def test_a_refusal_names_call_and_number_and_changes_nothing() -> None:
    machine = RootMachine()
    machine.handle(RootInput.INVITE)
    assert not machine.allows(RootInput.INVITE)
    with pytest.raises(SpiError, match="invite in state joining") as refusal:
        machine.handle(RootInput.INVITE, call="join_leaf")
    assert refusal.value.code == WSAEALREADY
    assert refusal.value.call == "join_leaf"
    assert machine.state is RootState.JOINING
    assert machine.stale_inputs == 0


def test_a_stale_input_is_counted_and_changes_nothing() -> None:
    machine = RootMachine()
    assert machine.handle(RootInput.INVITE_DONE) == ()
    assert machine.state is RootState.IDLE
    assert machine.stale_inputs == 1


def test_an_undecided_pair_is_a_defect_of_this_program() -> None:
    machine = _Unsound(_State.ON)
    with pytest.raises(LocalProtocolError, match="undecided"):
        machine.handle(_Input.PULL)


def test_a_closed_leaf_answers_like_something_that_is_no_socket() -> None:
    machine = LeafMachine()
    machine.handle(LeafInput.CLOSE)
    for kind in (LeafInput.JOIN, LeafInput.LISTEN):
        with pytest.raises(SpiError) as refusal:
            machine.handle(kind)
        assert refusal.value.code == WSAENOTSOCK
    assert machine.handle(LeafInput.CLOSE) == ()
