"""Numbers as people read them."""

from __future__ import annotations

import pytest

from joinleaf.cli import units


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (9_949, "9.9 kB"),
        (9_951, "10 kB"),
        (999_499, "999 kB"),
        (999_600, "1.0 MB"),
        (4_700_000_000, "4.7 GB"),
    ],
)
def test_sizes_have_three_digits_at_most(number: int, text: str) -> None:
    assert units.size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.9, "9.9 s"), (11.2, "12 s"), (99.5, "1:40"), (3661, "1:01:01")],
)
def test_durations_are_never_shorter_than_they_are(seconds: float, text: str) -> None:
    assert units.duration(seconds) == text


def test_a_hundred_per_cent_is_not_said_before_the_last_byte() -> None:
    assert units.percent(999_999, 1_000_000) == "99%"
    assert units.percent(1_000_000, 1_000_000) == "100%"
    assert units.percent(0, 0) == "100%"
    assert units.percent(5, None) == ""


def test_control_characters_of_peers_are_made_visible() -> None:
    assert (
        units.clean("a\x1b[2Jb\x07ü") == "a\N{REPLACEMENT CHARACTER}[2Jb\N{REPLACEMENT CHARACTER}ü"
    )
