"""What lasts is said now and then."""

from __future__ import annotations

import pytest

from joinleaf.drivers.seldom import Seldom


def test_it_is_said_at_first_and_then_once_in_every_span(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("joinleaf.drivers.seldom.time.monotonic", lambda: now[0])
    warning = Seldom(10.0)
    said = []
    for now[0] in (100.0, 100.0, 109.9, 110.0, 119.9, 150.0):
        said.append(warning.due())
    assert said == [True, False, False, True, False, True]
