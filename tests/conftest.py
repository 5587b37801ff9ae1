"""Settings for all tests."""

from __future__ import annotations

import pytest
from hypothesis import settings

import joinleaf

# How long an example takes says nothing about whether it is right, and much about who else is
# using the machine.
settings.register_profile("joinleaf", deadline=None)
settings.load_profile("joinleaf")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out, of a compiled build, tests that replace parts of it."""
    if not joinleaf.COMPILED:
        return
    bound = pytest.mark.skip(reason="it replaces what the compiled build has bound already")
    for item in items:
        if item.get_closest_marker("patches"):
            item.add_marker(bound)
