"""Worlds for the conformance tests: one provider per test, ended and searched for leaks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.conformance.world import NONROOTED, ROOTED, Starter, World


@pytest.fixture
def start() -> Iterator[Starter]:
    """``World.start``, with an end."""
    worlds: list[World] = []

    def make(scheme: str, **how: Any) -> World:
        worlds.append(World.start(scheme, **how))
        return worlds[-1]

    yield make
    for world in reversed(worlds):
        world.end()


@pytest.fixture(params=ROOTED)
def scheme(request: pytest.FixtureRequest) -> str:
    """A scheme with a rooted control plane."""
    return str(request.param)


@pytest.fixture
def rooted(scheme: str, start: Starter) -> World:
    """A provider of the "rooted pair": both planes rooted."""
    return start(scheme, rooted=True)


@pytest.fixture(params=NONROOTED)
def group_scheme(request: pytest.FixtureRequest) -> str:
    """A scheme with a nonrooted control plane."""
    return str(request.param)


@pytest.fixture
def group(group_scheme: str, start: Starter) -> World:
    """A provider of the "nonrooted group"."""
    return start(group_scheme, rooted=False)


@pytest.fixture(params=("mem", "udp", "ssm", "jl"))
def every(request: pytest.FixtureRequest, start: Starter) -> World:
    """A provider of each scheme."""
    return start(str(request.param))
