"""The header of a parity symbol, and what it combines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joinleaf.core.wire.units import (
    HEADER,
    INDICES,
    MAX_PARTS,
    MAX_SPAN,
    XOR,
    exclusive_or,
    parity_header,
    parity_parts,
    parity_unit,
)


@given(
    first=st.integers(0, 63),
    behind=st.sets(st.integers(1, MAX_SPAN - 1), min_size=1, max_size=MAX_PARTS - 1),
    unit=st.integers(0, 1 << 50),
    lag=st.integers(0, 8191),
)
def test_a_header_tells_its_unit_and_parts(
    first: int, behind: set[int], unit: int, lag: int
) -> None:
    parts = sum(1 << first + place for place in (0, *behind))
    count = parts.bit_length()
    header = parity_header(7, 3, min(count, 255), unit, parts)
    tag, kind, epoch, index, written, packed = HEADER.unpack(header)
    assert (tag, kind, epoch) == (7, XOR, 3)
    assert index not in INDICES  # no run of data goes on with it
    assert parity_parts(index, written, packed) == (parts if count <= 64 else 0)
    assert parity_unit(packed, max(0, unit - lag)) == unit


@pytest.mark.parametrize(
    ("index", "count", "packed"),
    [
        (5, 44, 1),  # an index as data has it
        (0x80, 44, 0),  # one part
        (0x80, 44, (1 << MAX_PARTS) - 1),  # one too many
        (0x80 | 43, 44, 1),  # behind the last symbol
        (0x80, 65, 1),  # no unit has so many
        (0x80 | 64, 64, 1),
    ],
)
def test_what_cannot_be_is_no_combination(index: int, count: int, packed: int) -> None:
    assert parity_parts(index, count, packed) == 0


@given(st.lists(st.binary(min_size=9, max_size=9), min_size=1, max_size=MAX_PARTS))
def test_a_part_is_what_all_others_and_the_combination_make(parts: list[bytes]) -> None:
    combined = exclusive_or(parts, 9)
    assert exclusive_or([combined, *parts[1:]], 9) == parts[0]
