"""The C programs build without a warning, carry everything, and leave nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench import limits

pytestmark = pytest.mark.skipif(bool(limits.why_not()), reason=limits.why_not() or "can be built")

MEGABYTE = 1_000_000


def shared_files() -> set[str]:
    return {one.name for one in Path("/dev/shm").glob("joinleaf-bench-*")}


@pytest.mark.parametrize("segment", [1452, 60_000])
def test_one_multicast_stream_reaches_every_receiver(segment: int) -> None:
    before = shared_files()
    carried = limits.group_limit(2, 5 * MEGABYTE, segment=segment)
    assert len(carried.rates) == 2
    assert carried.slowest == min(carried.rates) > 0
    assert 0 <= carried.lost < 1
    assert shared_files() <= before


def test_tcp_reaches_every_receiver() -> None:
    carried = limits.tcp_limit(3, 5 * MEGABYTE)
    assert len(carried.rates) == 3
    assert carried.slowest > 0


def test_what_a_program_says_is_told() -> None:
    with pytest.raises(RuntimeError, match="send: Message too long"):
        limits.group_limit(1, MEGABYTE, segment=65_530)
