"""Crews that take turns: what else the machine does hits all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from bench.contenders import Contender
from bench.crew import Crew
from bench.lan import BenchLan
from bench.zenoh_contenders import tidied

__all__ = ["Outcome", "take_turns"]

_Prepared = TypeVar("_Prepared")
_Result = TypeVar("_Result")


@dataclass
class Outcome(Generic[_Result]):
    """What came of it.

    Attributes:
        results: By contender's name, in the order of the rounds.
        failures: By contender's name: why it has no results.
    """

    results: dict[str, list[_Result]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def take_turns(
    contenders: Sequence[Contender],
    size: int,
    leaves: int,
    rounds: int,
    *,
    prepare: Callable[[Crew], _Prepared],
    job: Callable[[Crew, _Prepared], _Result],
    net: BenchLan | None = None,
) -> Outcome[_Result]:
    """Have every contender do the job once a round; who fails is out, with the reason."""
    outcome: Outcome[_Result] = Outcome()
    with ExitStack() as stack:
        stack.enter_context(tidied())
        ready: dict[str, tuple[Crew, _Prepared]] = {}
        for one in contenders:
            try:
                crew = stack.enter_context(Crew(one, size, leaves, net))
                ready[one.name] = crew, prepare(crew)
                outcome.results[one.name] = []
            except (RuntimeError, TimeoutError, EOFError, OSError) as error:
                _fail(outcome, one.name, error)
        for _ in range(rounds):
            for name in [name for name in ready if name in outcome.results]:
                crew, prepared = ready[name]
                try:
                    outcome.results[name].append(job(crew, prepared))
                except (RuntimeError, TimeoutError, EOFError, OSError) as error:
                    _fail(outcome, name, error)
    return outcome


def _fail(outcome: Outcome[_Result], name: str, error: Exception) -> None:
    """A worker's traceback ends with what matters."""
    outcome.results.pop(name, None)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    outcome.failures[name] = lines[-1][:200]
