"""A short soak; the long one is ``python -m bench.soak``."""

from __future__ import annotations

import functools
import random

import pytest
from bench.soak import soak
from tests.netns.lan import why_not

_reason = functools.cache(why_not)


def test_leaves_come_go_crash_and_are_put_out_and_nothing_is_lost_or_left() -> None:
    if reason := _reason():
        pytest.skip(reason)
    seed = random.SystemRandom().randrange(1 << 30)
    assert soak(15.0, hosts=2, seed=seed) == [], f"seed {seed}"
