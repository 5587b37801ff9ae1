"""The nonrooted leaf: every pair decided, and the kernel's memberships add up."""

from __future__ import annotations

from itertools import product

import pytest

from joinleaf.core.leaf_nonrooted import (
    NonrootedAction,
    NonrootedInput,
    NonrootedLeafMachine,
    NonrootedState,
)
from joinleaf.core.tables import check_partition
from joinleaf.errors import SpiError
from joinleaf.spi.codes import WSAEALREADY, WSAEISCONN, WSAENOTSOCK

I, A, S = NonrootedInput, NonrootedAction, NonrootedState  # noqa: E741  # input, action, state


def machine_after(*inputs: NonrootedInput) -> NonrootedLeafMachine:
    machine = NonrootedLeafMachine()
    for one in inputs:
        machine.handle(one)
    return machine


def test_every_pair_is_decided_exactly_once() -> None:
    assert check_partition(NonrootedLeafMachine, NonrootedState, NonrootedInput) == []


def test_every_row_names_its_source() -> None:
    assert all(row.clause for row in NonrootedLeafMachine.TABLE.values())


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ([I.JOIN], WSAEALREADY),
        ([I.JOIN_SENDER], WSAEALREADY),
        ([I.JOIN, I.JOIN_DONE], WSAEISCONN),
        ([I.JOIN_SENDER, I.SENDER_DONE], WSAEISCONN),
        ([I.JOIN, I.JOIN_DONE, I.LOST], WSAEISCONN),
        ([I.CLOSE], WSAENOTSOCK),
    ],
)
@pytest.mark.parametrize("again", [I.JOIN, I.JOIN_SENDER])
def test_a_second_join_is_refused_and_changes_nothing(
    inputs: list[NonrootedInput], code: int, again: NonrootedInput
) -> None:
    machine = machine_after(*inputs)
    before = machine.state
    with pytest.raises(SpiError) as caught:
        machine.handle(again)
    assert caught.value.code == code
    assert machine.state is before


def test_a_failed_join_can_be_tried_again() -> None:
    machine = machine_after(I.JOIN, I.JOIN_FAILED)
    assert machine.handle(I.JOIN) == (A.ADD_MEMBERSHIP,)


def test_a_sender_has_no_membership_to_drop() -> None:
    machine = machine_after(I.JOIN_SENDER, I.SENDER_DONE)
    assert machine.is_member
    assert machine.handle(I.CLOSE) == ()


def test_a_join_that_close_overtook_is_undone() -> None:
    machine = machine_after(I.JOIN, I.CLOSE)
    assert machine.handle(I.JOIN_DONE) == (A.DROP_MEMBERSHIP,)


def test_a_lost_membership_is_told_once_and_renewed() -> None:
    machine = machine_after(I.JOIN, I.JOIN_DONE)
    assert machine.handle(I.LOST) == (A.TELL_LOST, A.RENEW_MEMBERSHIP)
    assert machine.handle(I.LOST) == ()
    assert machine.is_member
    assert machine.handle(I.RENEWED) == (A.TELL_RENEWED,)
    assert machine.state is S.JOINED


def test_after_close_the_kernel_keeps_no_membership_whatever_came_before() -> None:
    # A kernel that counts: it answers ADD with one more, loses it with LOST, drops what is there.
    for sequence in product(NonrootedInput, repeat=5):
        machine, held, asked = NonrootedLeafMachine(), 0, False
        for kind in (*sequence, I.CLOSE, I.JOIN_DONE):
            if kind is I.JOIN_DONE and not asked:
                continue  # the kernel answers only what it was asked
            if kind is I.RENEWED and machine.state is not S.CUT_OFF:
                continue
            try:
                actions = machine.handle(kind)
            except SpiError:
                continue
            if A.ADD_MEMBERSHIP in actions:
                asked = True
            if kind in (I.JOIN_DONE, I.JOIN_FAILED):
                held, asked = held + (asked and kind is I.JOIN_DONE), False
            if kind is I.LOST and A.TELL_LOST in actions:
                held = 0
            if kind is I.RENEWED:
                held += 1
            if A.DROP_MEMBERSHIP in actions:
                held = max(0, held - 1)
        assert held == 0, sequence
