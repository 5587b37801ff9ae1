"""Both fronts have the same names, arguments and defaults; what waits in one is awaited in the
other.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

import pytest
from tests.fronts.both_fronts import AWAITED

import joinleaf
import joinleaf.aio
import joinleaf.sync

CLASSES: Final = ("Session", "Leaf", "Root", "RootLeaf", "Listener", "Leaves")
FUNCTIONS: Final = ("join", "open_root", "listen")

TWINS: Final = {
    "__iter__": "__aiter__",
    "__enter__": "__aenter__",
    "__exit__": "__aexit__",
}
"""Only asyncio has ``__anext__``: there a session is its own iterator."""

PLAIN: Final = frozenset({"stats", "fileno", "membership_events", "set_qos"})
"""Methods that never wait."""


def public(cls: type) -> dict[str, Any]:
    return {
        name: value
        for part in reversed(cls.__mro__[:-1])
        if part.__module__.startswith("joinleaf")
        for name, value in vars(part).items()
        if not name.startswith("_") or name in TWINS or name in TWINS.values()
    }


def arguments(function: Callable[..., Any]) -> list[tuple[str, Any, Any, Any]]:
    return [
        (one.name, one.kind, one.default, str(one.annotation))
        for one in inspect.signature(function).parameters.values()
    ]


def test_the_same_names_are_offered() -> None:
    assert set(joinleaf.aio.__all__) - set(joinleaf.sync.__all__) == {"Opening"}
    assert set(joinleaf.sync.__all__) <= set(joinleaf.aio.__all__)
    assert {*CLASSES, *FUNCTIONS, "Admit"} == set(joinleaf.sync.__all__)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_ways_in_take_the_same_arguments(name: str) -> None:
    mine, theirs = getattr(joinleaf.aio, name), getattr(joinleaf.sync, name)
    assert arguments(mine) == arguments(theirs)
    opened = inspect.signature(theirs).return_annotation
    assert inspect.signature(mine).return_annotation == f"Opening[{opened}]"


@pytest.mark.parametrize("name", CLASSES)
def test_classes_have_the_same_members(name: str) -> None:
    mine, theirs = public(getattr(joinleaf.aio, name)), public(getattr(joinleaf.sync, name))
    if name == "Leaves":
        assert getattr(joinleaf.aio, name) is getattr(joinleaf.sync, name)
        return
    assert set(mine) == {TWINS.get(one, one) for one in theirs}
    for one, theirs_one in theirs.items():
        mine_one = mine[TWINS.get(one, one)]
        assert type(mine_one) is type(theirs_one), one
        if callable(theirs_one):
            assert arguments(mine_one) == arguments(theirs_one), one


@pytest.mark.parametrize("name", [name for name in CLASSES if name != "Leaves"])
def test_what_waits_is_awaited(name: str) -> None:
    for one, value in public(getattr(joinleaf.aio, name)).items():
        if one.startswith("_") or not inspect.isfunction(value):
            continue
        if one == "events":
            assert inspect.isasyncgenfunction(value)
        else:
            assert inspect.iscoroutinefunction(value) == (one in AWAITED), one
            assert (one in AWAITED) != (one in PLAIN), one


def test_a_door_of_threads_fits_a_door_of_asyncio() -> None:
    """``admit`` may be awaited there; a plain one serves both."""
    assert "Awaitable" in str(joinleaf.aio.Admit)
    assert "Awaitable" not in str(joinleaf.sync.Admit)
