"""Admission adds up reservations and says what would fit."""

import pytest

from joinleaf.core.qos.admission import Admission
from joinleaf.errors import SpiError
from joinleaf.spi import constants as c
from joinleaf.spi.codes import WSAEOPNOTSUPP
from joinleaf.spi.qos import FlowSpec


def guaranteed(rate: int) -> FlowSpec:
    return FlowSpec(token_rate=rate, service_type=c.SERVICETYPE_GUARANTEED)


def test_what_does_not_fit_is_refused_with_the_numbers_and_changes_nothing() -> None:
    admission = Admission(1000)
    admission.reserve("a", guaranteed(700))
    with pytest.raises(SpiError) as caught:
        admission.reserve("b", guaranteed(301))
    assert caught.value.code == WSAEOPNOTSUPP
    assert "301 bytes/s asked, 700 of 1000 bytes/s in use" in str(caught.value)
    assert "at most 300 bytes/s" in caught.value.hint
    assert admission.in_use == 700
    admission.check("b", guaranteed(300))
    assert admission.available == 300


def test_a_second_reservation_of_one_key_replaces_the_first() -> None:
    admission = Admission(1000)
    admission.reserve("a", guaranteed(700))
    admission.reserve("a", guaranteed(1000))
    assert admission.in_use == 1000
    with pytest.raises(SpiError):
        admission.reserve("a", guaranteed(1001))
    assert admission.in_use == 1000
    admission.reserve("a", FlowSpec())
    assert admission.in_use == 0


def test_release_gives_back_once() -> None:
    admission = Admission(1000)
    admission.reserve("a", guaranteed(600))
    admission.release("a")
    admission.release("a")
    assert admission.in_use == 0


def test_best_effort_costs_nothing_and_controlled_load_does() -> None:
    admission = Admission(10)
    admission.reserve("a", FlowSpec(token_rate=1_000_000))
    assert admission.in_use == 0
    admission.reserve("b", FlowSpec(token_rate=4, service_type=c.SERVICETYPE_CONTROLLEDLOAD))
    assert admission.in_use == 4


def test_an_unlimited_rate_fits_only_an_unlimited_capacity() -> None:
    endless = guaranteed(c.POSITIVE_INFINITY_RATE)
    with pytest.raises(SpiError, match="an unlimited rate asked"):
        Admission(1000).reserve("a", endless)
    Admission(None).reserve("a", endless)
    with pytest.raises(ValueError, match="capacity"):
        Admission(0)
