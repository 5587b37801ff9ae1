"""The ledger of losses."""

from __future__ import annotations

import pytest

from joinleaf.core.reliability import repairs
from joinleaf.core.reliability.repairs import Losses

HOLD_OFF = 100
GATHER = 10


def report(losses: Losses, leaf: int, missing: dict[int, int], now: int) -> None:
    losses.reported(1 << leaf, missing, now, now - HOLD_OFF, GATHER)


def take(losses: Losses, now: int) -> dict[int, list[int]]:
    """Everything that is ripe, and let it leave."""
    taken: dict[int, list[int]] = {}
    losses.ripen(now, all_of_them=False)
    while (unit := losses.take()) is not None:
        number, patterns = unit
        taken[number] = sorted(patterns)
    return taken


def send(losses: Losses, unit: int, combinations: list[int], now: int) -> None:
    for again in losses.sending(unit, combinations, now - HOLD_OFF):
        again.sent_ns = now


def test_a_unit_waits_for_what_others_lack() -> None:
    losses = Losses()
    report(losses, 0, {5: 0b01}, 0)
    assert take(losses, GATHER - 1) == {}
    assert losses.due_ns() == GATHER
    report(losses, 1, {5: 0b10, 4: 1}, GATHER - 1)
    assert take(losses, GATHER) == {5: [0b01, 0b10]}
    assert take(losses, 2 * GATHER) == {4: [1]}


def test_nothing_waits_while_the_stream_rests() -> None:
    losses = Losses()
    report(losses, 0, {9: 1, 3: 1}, 0)
    assert losses.ripen(0, all_of_them=True)
    assert losses.take() is not None
    assert losses.take() is not None
    assert losses.size == 0


def test_the_oldest_unit_is_repaired_first() -> None:
    losses = Losses()
    report(losses, 0, {9: 1}, 0)
    report(losses, 1, {3: 1}, 0)
    assert list(take(losses, GATHER)) == [3, 9]


def test_what_is_asked_for_no_longer_has_arrived() -> None:
    losses = Losses()
    report(losses, 0, {5: 0b11, 6: 1}, 0)
    report(losses, 1, {5: 0b11}, 0)
    report(losses, 0, {5: 0b01}, 1)
    assert losses.wanted == {5: {0b11: 2, 0b01: 1}}
    losses.forget_leaf(2)
    assert losses.wanted == {5: {0b01: 1}}
    losses.forget_leaf(1)
    assert losses.wanted == {}
    assert losses.size == 0
    assert losses.due_ns() is None


def test_what_was_sent_again_is_held_off_for_a_round_trip() -> None:
    losses = Losses()
    send(losses, 5, [0b01], 0)
    report(losses, 0, {5: 0b11}, HOLD_OFF - 1)
    assert losses.wanted == {5: {0b10: 1}}
    report(losses, 0, {5: 0b11}, HOLD_OFF)
    assert losses.wanted == {5: {0b11: 1}}


def test_what_is_planned_and_has_not_left_is_held_off_however_long_the_pacer_takes() -> None:
    losses = Losses()
    losses.sending(5, [0b11], 0)
    report(losses, 0, {5: 0b01}, 1 << 50)
    assert losses.wanted == {}


def test_a_leaf_that_cannot_use_a_combination_is_heard_at_once() -> None:
    losses = Losses()
    send(losses, 5, [0b011], 0)
    report(losses, 0, {5: 0b001}, 1)  # will have it
    report(losses, 1, {5: 0b111}, 1)  # lacks both parts
    assert losses.wanted == {5: {0b111: 2}}


def test_a_unit_that_was_taken_can_be_asked_for_again() -> None:
    losses = Losses()
    report(losses, 0, {5: 1}, 0)
    assert take(losses, GATHER) == {5: [1]}
    report(losses, 0, {5: 1}, GATHER)
    report(losses, 0, {}, GATHER)
    assert losses.wanted == {}
    report(losses, 0, {5: 1}, GATHER)
    assert losses.wanted == {5: {1: 1}}


@pytest.mark.patches
def test_patterns_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repairs, "MAX_PATTERNS", 3)
    losses = Losses()
    report(losses, 0, dict.fromkeys(range(10), 1), 0)
    assert losses.size == 3
    report(losses, 1, {0: 1, 1: 1}, 0)  # the same patterns take no room
    assert losses.wanted[0] == {1: 3}
    report(losses, 0, {}, 0)
    report(losses, 1, {}, 0)
    assert losses.size == 0


def test_a_unit_that_everybody_has_is_forgotten() -> None:
    losses = Losses()
    report(losses, 0, {5: 1}, 0)
    send(losses, 5, [2], 0)
    losses.release(5)
    assert not losses.ripen(GATHER, all_of_them=True)
    assert losses.take() is None
    report(losses, 0, {}, 0)
    assert losses.size == 0
