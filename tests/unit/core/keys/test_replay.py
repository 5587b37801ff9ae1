"""The replay window, against a set that forgets nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joinleaf.core.keys.replay import ReplayWindow

WIDTH = 16
NUMBERS = st.lists(st.integers(0, 6 * WIDTH), max_size=300)


@given(NUMBERS)
def test_a_number_is_accepted_once_and_only_within_the_window(numbers: list[int]) -> None:
    window, seen = ReplayWindow(0, WIDTH), set[int]()
    for number in numbers:
        newest = max(seen, default=-1)
        expected = number not in seen and number >= newest + 1 - WIDTH
        assert window.is_new(number) == expected
        assert window.accept(number) == expected
        if expected:
            seen.add(number)


@given(NUMBERS)
def test_memory_is_bounded_by_the_width(numbers: list[int]) -> None:
    window = ReplayWindow(0, WIDTH)
    for number in numbers:
        window.accept(number * 1000)
        assert len(window._missing) <= 3 * WIDTH


def test_asking_changes_nothing() -> None:
    window = ReplayWindow(5)
    assert window.is_new(7)
    assert window.is_new(7)
    assert not window.is_new(4)
    assert window.accept(7)
    assert not window.is_new(7)
    assert window.accept(5)


def test_a_window_without_width_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ReplayWindow(0, 0)
