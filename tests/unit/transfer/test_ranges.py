from __future__ import annotations

import pytest

from joinleaf.transfer.ranges import RangeSet


def test_ranges_that_touch_become_one() -> None:
    ranges = RangeSet([(0, 5), (10, 15), (5, 10)])
    assert list(ranges) == [(0, 15)]
    assert (len(ranges), ranges.total) == (1, 15)


def test_taking_out_the_middle_leaves_both_ends() -> None:
    ranges = RangeSet([(0, 15)])
    ranges.remove(5, 10)
    assert list(ranges) == [(0, 5), (10, 15)]
    assert ranges.missing(0, 20) == [(5, 10), (15, 20)]
    assert ranges.boundary(4) == (True, 5)
    assert ranges.boundary(7) == (False, 10)
    assert ranges.boundary(15) == (False, None)


def test_negative_positions_are_refused() -> None:
    with pytest.raises(ValueError, match="below 0"):
        RangeSet([(-1, 3)])


def test_a_copy_is_independent() -> None:
    ranges = RangeSet([(0, 5)])
    other = ranges.copy()
    other.add(7, 9)
    assert list(ranges) == [(0, 5)]
    assert ranges != other
    assert ranges != "ranges"
