"""State machines as tables, in which every (state, input) pair is decided exactly once.

A pair stands in one of three places: TABLE (legal: a row), REFUSED (the caller's mistake: a WSAE
number, the state unchanged) or STALE (a late or repeated answer of the network: counted, ignored).
``check_partition`` proves it; documentation and conformance tests read the same tables.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import product
from typing import Any, ClassVar, Generic, TypeVar, cast

from joinleaf.errors import LocalProtocolError, SpiError

__all__ = ["Machine", "Row", "check_partition", "to_dot"]

S = TypeVar("S", bound=Enum)
I = TypeVar("I", bound=Enum)  # noqa: E741  # state, input, action: the letters of the theory
A = TypeVar("A", bound=Enum)


@dataclass(frozen=True, slots=True)
class Row(Generic[S, A]):
    """One legal transition.

    Attributes:
        next: State afterwards.
        actions: What the owner must now do, in order.
        clause: Where it is written: numbers of the specification page's clauses, or a section of
            the model around it.
    """

    next: S
    actions: tuple[A, ...] = ()
    clause: str = ""


class Machine(Generic[S, I, A]):
    """A state and the three tables that move it. Subclasses fill the tables and the start.

    Attributes:
        state: Where it is now.
        stale_inputs: How many late or repeated answers were ignored.
    """

    # The letters are the subclass's own enums; a ClassVar cannot name type variables.
    TABLE: ClassVar[Mapping[Any, Row[Any, Any]]]
    REFUSED: ClassVar[Mapping[Any, int]]
    STALE: ClassVar[Collection[Any]]

    __slots__ = ("stale_inputs", "state")

    def __init__(self, state: S) -> None:
        self.state = state
        self.stale_inputs = 0

    def handle(self, kind: I, *, call: str = "") -> tuple[A, ...]:
        """Feed one input; return what must now be done, in order.

        Raises:
            SpiError: The caller may not do that in this state; nothing has changed.
            LocalProtocolError: The pair is in no table: a defect of this program.
        """
        key = (self.state, kind)
        if (row := self.TABLE.get(key)) is not None:
            self.state = cast(S, row.next)
            return cast("tuple[A, ...]", row.actions)
        if (code := self.REFUSED.get(key)) is not None:
            raise SpiError(
                code, f"{kind.name.lower()} in state {self.state.name.lower()}", call=call
            )
        if key not in self.STALE:
            raise LocalProtocolError(f"undecided: {kind} in {self.state}")
        self.stale_inputs += 1
        return ()

    def allows(self, kind: I) -> bool:
        """Whether the input has a row in the present state."""
        return (self.state, kind) in self.TABLE


def check_partition(
    machine: type[Machine[S, I, A]], states: Iterable[S], inputs: Iterable[I]
) -> list[str]:
    """List every pair that is decided not at all, or more than once. Empty means sound."""
    wrong = []
    for pair in product(states, inputs):
        places = [pair in machine.TABLE, pair in machine.REFUSED, pair in machine.STALE]
        if sum(places) != 1:
            wrong.append(f"{pair[0].name} x {pair[1].name}: decided {sum(places)} times")
    return wrong


def to_dot(machine: type[Machine[S, I, A]]) -> str:
    """The transition table as a graph in DOT, rows in table order."""
    lines = [f"digraph {machine.__name__} {{"]
    for (state, kind), row in machine.TABLE.items():
        lines.append(f'  {state.name} -> {row.next.name} [label="{kind.name}"];')
    return "\n".join([*lines, "}"])
