"""Combinations of lost symbols: everybody can use each, and everything lost is in one."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from joinleaf.core.reliability.parity import combine
from joinleaf.core.wire.units import MAX_PARTS, MAX_SPAN

FULL = (1 << 43) - 1
patterns = st.sets(st.integers(1, (1 << 64) - 1), max_size=12)
sparse = st.sets(
    st.sets(st.integers(0, 63), min_size=1, max_size=5).map(lambda at: sum(1 << i for i in at)),
    max_size=40,
)


@given(patterns | sparse, st.integers(0, 64))
def test_each_symbol_goes_once_and_no_leaf_lacks_two_of_a_combination(
    lost: set[int], combinable: int
) -> None:
    combinations = combine(lost, (1 << combinable) - 1)
    union = 0
    for pattern in lost:
        union |= pattern
    assert sum(combinations) == union == _disjoint_union(combinations)
    for parts in combinations:
        if parts.bit_count() > 1:
            assert not parts >> combinable
            assert parts.bit_count() <= MAX_PARTS
            assert parts.bit_length() - (parts & -parts).bit_length() < MAX_SPAN
            assert all((parts & pattern).bit_count() <= 1 for pattern in lost)


def _disjoint_union(combinations: list[int]) -> int:
    union = 0
    for parts in combinations:
        assert not union & parts
        union |= parts
    return union


def test_what_a_thousand_leaves_lost_together_is_one_pattern_and_goes_once() -> None:
    assert combine({0b1010: (1 << 1000) - 1}, FULL) == [0b10, 0b1000]


def test_different_losses_of_eight_leaves_are_one_combination() -> None:
    assert combine([1 << index for index in range(8)], FULL) == [0xFF]


def test_the_short_last_symbol_goes_alone() -> None:
    assert combine([1, 2, 4], 0b11) == [4, 3]


def test_five_per_cent_at_eight_leaves_take_a_third_of_what_was_lost() -> None:
    rng = random.Random(1)
    lost = combined = 0
    for _ in range(50):
        drops = [[rng.random() < 0.05 for _ in range(43)] for _ in range(8)]
        leaves = {sum(1 << at for at, is_lost in enumerate(drop) if is_lost) for drop in drops}
        lost += sum(map(any, zip(*drops, strict=True)))
        combined += len(combine(leaves - {0}, FULL))
    assert combined < 0.37 * lost
