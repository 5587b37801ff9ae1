"""Networks for tests, probed for once; where they cannot be made the tests are skipped."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterator

import pytest
from tests.netns.lan import Lan, why_not

_numbers = itertools.count()
_reason = functools.cache(why_not)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = os.path.dirname(__file__)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.netns)


def _make(hosts: int) -> Lan:
    if reason := _reason():
        pytest.skip(reason)
    return Lan(f"jl{os.getpid()}-{next(_numbers)}", hosts)


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    """Three hosts, shared by the tests of a module that leave the network as it is."""
    made = _make(3)
    yield made
    made.close()


@pytest.fixture
def make_lan() -> Iterator[Callable[[int], Lan]]:
    """Makes networks for one test, which may break them."""
    made: list[Lan] = []

    def make(hosts: int) -> Lan:
        made.append(_make(hosts))
        return made[-1]

    yield make
    for one in made:
        one.close()
