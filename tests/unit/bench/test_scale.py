"""Counted, not timed: what a loss costs the root however many leaves have it."""

from __future__ import annotations

import pytest
from bench.scale import run
from bench.scale_world import Outcome, ScaleWorld


@pytest.fixture(scope="module")
def lost_by_all() -> dict[int, Outcome]:
    """The same stream, and the same share of it lost before the network branches."""
    return {
        leaves: ScaleWorld(leaves, 0.01, shared=True, weigh=False).run(1_000_000)
        for leaves in (10, 100, 1000)
    }


@pytest.mark.parametrize("leaves", [10, 100, 1000])
def test_what_all_have_lost_is_sent_again_once(
    lost_by_all: dict[int, Outcome], leaves: int
) -> None:
    one = lost_by_all[leaves]
    assert one.lost == leaves * one.lost_anywhere > 0
    assert one.repairs == one.lost_anywhere


def test_reports_of_a_loss_do_not_grow_with_the_leaves_that_have_it(
    lost_by_all: dict[int, Outcome],
) -> None:
    """Ten report at once; of a hundred times as many the backoff leaves a few times that."""
    told = {leaves: one.gap_reports / one.lost_anywhere for leaves, one in lost_by_all.items()}
    assert told[100] <= 1.5 * told[10]
    assert told[1000] <= 5 * told[10]


def test_a_run_is_the_same_every_time() -> None:
    first, second = (ScaleWorld(20, 0.01, shared=False, weigh=False).run(300_000) for _ in "12")
    exact = ("symbols", "repairs", "lost", "reports", "gap_reports", "simulated_s")
    assert [getattr(first, name) for name in exact] == [getattr(second, name) for name in exact]


def test_the_question_prints_both_tables(capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = run(leaves=(3,), megabytes=1)
    assert [one.shared for one in outcomes] == [False, True]
    assert all(one.bytes_per_leaf > 500 for one in outcomes)
    printed = capsys.readouterr().out
    assert "before the network branches" in printed
    assert "by each leaf for itself" in printed
