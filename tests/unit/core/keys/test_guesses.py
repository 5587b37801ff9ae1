"""Wrong keys: how many an address has, how they are forgotten, and what is remembered at most."""

from __future__ import annotations

from joinleaf.core.keys.guesses import BURST, FORGIVE_NS, MAX_ADDRESSES, GuessLimiter

SECOND = 1_000_000_000


def limited(host: str = "10.0.0.1", now_ns: int = 0) -> GuessLimiter:
    limiter = GuessLimiter()
    for _ in range(BURST):
        assert limiter.heard(host, now_ns)
        limiter.wrong(host, now_ns)
    return limiter


def test_some_wrong_keys_are_forgiven_and_then_the_address_is_not_heard() -> None:
    limiter = limited()
    assert not limiter.heard("10.0.0.1", 0)
    assert limiter.heard("10.0.0.2", 0)


def test_one_is_forgotten_each_second_however_long_the_flood_lasts() -> None:
    limiter, heard = limited(), 0
    for tick in range(1, 601):  # a minute of ten connections a second
        now_ns = tick * SECOND // 10
        if limiter.heard("10.0.0.1", now_ns):
            limiter.wrong("10.0.0.1", now_ns)
            heard += 1
    assert 55 <= heard <= 61
    assert FORGIVE_NS == SECOND


def test_an_address_that_stops_is_soon_forgotten_altogether() -> None:
    limiter = limited()
    assert limiter.heard("10.0.0.1", BURST * SECOND)
    assert len(limiter) == 0


def test_neighbours_in_one_ipv6_prefix_are_one_address_and_those_beyond_are_not() -> None:
    limiter = limited("2001:db8:0:1::1")
    assert not limiter.heard("2001:db8:0:1:ffff::2", 0)
    assert limiter.heard("2001:db8:0:2::1", 0)
    assert not limited("fe80::1%eth0").heard("fe80::1%eth1", 0)
    assert limited("fe80::1%eth0").heard("fe80::2%eth0", 0)  # one on the link is not all on it


def test_what_is_no_address_counts_by_its_name() -> None:
    assert not limited("host-a").heard("host-a", 0)
    assert limited("host-a").heard("host-b", 0)


def test_no_more_addresses_are_remembered_than_the_bound_and_the_oldest_goes() -> None:
    limiter = limited("10.9.9.9")
    for number in range(MAX_ADDRESSES):
        limiter.wrong(f"10.1.{number >> 8}.{number & 255}", 1)
        assert len(limiter) <= MAX_ADDRESSES
    assert limiter.heard("10.9.9.9", 1)
