"""The figures that ``bench.parity`` computes, and that its harness does not rot."""

from __future__ import annotations

import pytest
from bench import parity


@pytest.mark.parametrize(("leaves", "loss"), [(1, 0.01), (1, 0.05)])
def test_one_leaf_needs_what_it_loses(leaves: int, loss: float) -> None:
    assert parity.least(leaves, loss) == pytest.approx(loss)


def test_more_leaves_need_more_but_far_less_than_all_of_it() -> None:
    assert 0.10 < parity.least(8, 0.05) < 0.11 < parity.least(100, 0.05) < 0.15


def test_costs_are_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["parity", "--only", "cost", "--rounds", "1"])
    assert parity.main() == 0
    assert "combine 8: int" in capsys.readouterr().out
