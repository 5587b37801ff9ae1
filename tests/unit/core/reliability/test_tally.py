"""What counts as lost, and when."""

from joinleaf.core.reliability.tally import MENDED_KEPT, Mended, Tally


def test_what_is_reported_once_and_comes_after_all_was_not_lost() -> None:
    tally, mended = Tally(), Mended()
    assert tally.reported({7: 0b11}, 0, mended) == 0
    assert tally.reported({}, 0, mended) == 0


def test_what_is_reported_twice_is_lost_and_counts_once() -> None:
    tally, mended = Tally(), Mended()
    tally.reported({7: 0b111}, 0, mended)
    assert tally.reported({7: 0b011}, 0, mended) == 2
    assert tally.reported({7: 0b011}, 0, mended) == 0


def test_what_was_mended_in_between_was_lost() -> None:
    tally, mended = Tally(), Mended()
    tally.reported({7: 0b111}, 0, mended)
    mended.add(7, 0b001)
    mended.add(7, 0b100)
    assert tally.reported({}, 0, mended) == 2


def test_what_is_older_than_a_round_trip_is_lost_at_once() -> None:
    tally, mended = Tally(), Mended()
    assert tally.reported({6: 0b1, 7: 0b1}, 7, mended) == 1
    assert tally.reported({6: 0b1, 7: 0b1}, 8, mended) == 1
    assert tally.reported({6: 0b1, 7: 0b1}, 8, mended) == 0


def test_what_was_mended_is_remembered_for_a_while_only() -> None:
    mended = Mended()
    for unit in range(MENDED_KEPT + 1):
        mended.add(unit, 1)
    assert mended.of(0) == 0
    assert mended.of(MENDED_KEPT) == 1
