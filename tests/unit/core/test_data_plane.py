"""Who hears whom, role by role and plane by plane."""

from __future__ import annotations

from itertools import product

import pytest

from joinleaf.core.data_plane import Member, check_may_receive, check_may_send, hears
from joinleaf.errors import SpiError
from joinleaf.spi.codes import WSAEOPNOTSUPP
from joinleaf.spi.provider import JoinRole

ROOT, A, B = Member(0, d_root=True), Member(1), Member(2)


def test_in_a_rooted_plane_root_and_leafs_hear_each_other_and_no_leaf_a_leaf() -> None:
    heard = {(x.key, y.key) for x, y in product((ROOT, A, B), repeat=2) if hears(x, y, rooted=True)}
    assert heard == {(0, 1), (0, 2), (1, 0), (2, 0)}


def test_in_a_nonrooted_plane_all_hear_all_others() -> None:
    heard = {
        (x, y) for x, y in product(range(3), repeat=2) if hears(Member(x), Member(y), rooted=False)
    }
    assert heard == {(x, y) for x, y in product(range(3), repeat=2) if x != y}


def test_loopback_lets_a_member_of_a_nonrooted_plane_hear_itself_but_no_root() -> None:
    echo = Member(1, loopback=True)
    assert hears(echo, echo, rooted=False)
    root = Member(0, d_root=True, loopback=True)
    assert not hears(root, root, rooted=True)


@pytest.mark.parametrize("rooted", [True, False])
def test_a_receiver_is_heard_by_nobody_and_a_sender_hears_nobody(rooted: bool) -> None:
    for role, other in product(JoinRole, repeat=2):
        one, two = Member(1, d_root=True, role=role), Member(2, role=other)
        assert hears(one, two, rooted=rooted) is (role.receives and other.sends)


def test_calls_against_the_role_are_refused() -> None:
    for role in JoinRole:
        for check, allowed in ((check_may_send, role.sends), (check_may_receive, role.receives)):
            if allowed:
                check(role)
                continue
            with pytest.raises(SpiError) as caught:
                check(role)
            assert caught.value.code == WSAEOPNOTSUPP
            assert "Join with" in str(caught.value)
