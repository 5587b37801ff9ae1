"""Who stands before the door: rates, numbers and bytes, by asker and in all."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter

import pytest

from joinleaf.core.doorstep import (
    JOIN_BURST,
    JOINS_PER_S,
    LEAST_SHARE,
    LOCAL_FACTOR,
    MAX_HALF_OPEN,
    MAX_HALF_OPEN_PER_SOURCE,
    MAX_SOURCES,
    PARTIAL_BYTES,
    PENDING_BYTES,
    Doorstep,
    Knock,
)
from joinleaf.core.sources import is_this_host, source_of

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("host", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::1"),
        ("fe80::2%eth0", "fe80::2"),
        ("::1", "::1"),
        ("no:address", "no:address"),
        ("somebody", "somebody"),
    ],
)
def test_an_ipv6_network_is_one_asker_and_every_other_address_is_one(
    host: str, source: str
) -> None:
    assert source_of(host) == source


def test_nobody_from_outside_is_this_host() -> None:
    assert [
        host
        for host in ("127.0.0.1", "127.9.9.9", "::1", "12.7.0.0", "::2")
        if is_this_host(source_of(host))
    ] == ["127.0.0.1", "127.9.9.9", "::1"]


@pytest.mark.parametrize(("host", "factor"), [("10.0.0.1", 1), ("127.0.0.1", LOCAL_FACTOR)])
def test_a_burst_is_heard_the_next_are_put_off_and_the_rest_is_ignored(
    host: str, factor: int
) -> None:
    doorstep = Doorstep()
    size = JOIN_BURST * factor
    knocks = [doorstep.knock(host, 0) for _ in range(2 * size + 500)]
    assert knocks[:size] == [Knock.HEARD] * size
    assert set(knocks[size : 2 * size]) == {Knock.PUT_OFF}
    assert set(knocks[2 * size :]) == {Knock.IGNORED}
    # It is forgiven in time: half of it brings words again, all of it a hearing.
    assert doorstep.knock(host, SECOND) is Knock.PUT_OFF
    assert doorstep.knock(host, SECOND * (1 + 2 * JOIN_BURST // JOINS_PER_S + 1)) is Knock.HEARD


def test_who_comes_no_oftener_than_the_rate_is_always_heard() -> None:
    doorstep = Doorstep()
    step = SECOND // JOINS_PER_S
    assert {doorstep.knock("10.0.0.1", i * step) for i in range(5 * JOIN_BURST)} == {Knock.HEARD}


def test_one_asker_costs_no_other_its_hearing() -> None:
    doorstep = Doorstep()
    for _ in range(5 * JOIN_BURST):
        doorstep.knock("2001:db8::1", 0)
    assert doorstep.knock("2001:db8::2", 0) is Knock.IGNORED  # the same network
    assert doorstep.knock("2001:db8:0:1::2", 0) is Knock.HEARD
    assert doorstep.knock("10.0.0.1", 0) is Knock.HEARD


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    doorstep = Doorstep()
    for _ in range(JOIN_BURST):
        doorstep.knock("10.0.0.1", 10 * SECOND)
    assert doorstep.knock("10.0.0.1", 0) is Knock.PUT_OFF
    assert doorstep.knock("10.0.0.1", 10 * SECOND) is Knock.PUT_OFF


def test_the_table_of_rates_is_bounded_however_many_addresses_come() -> None:
    doorstep = Doorstep()
    tracemalloc.start()
    try:
        for number in range(5 * MAX_SOURCES):
            doorstep.knock(f"2001:db8:{number:x}::1", 0)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(doorstep._rates) == MAX_SOURCES
    assert taken < 2 << 20


def test_who_has_one_unfinished_frame_stays_when_others_have_many() -> None:
    doorstep = Doorstep()
    doorstep.stand(0, "10.0.0.1")
    doorstep.holds(0, 150_000)
    for key in range(1, 41):
        doorstep.stand(key, f"10.0.1.{key % 2}")
        doorstep.holds(key, 200_000)
    assert doorstep.partial_excess() is None
    for key in range(41, 44):
        doorstep.stand(key, "10.0.1.1")
        doorstep.holds(key, 200_000)
    assert doorstep.bytes_partial > PARTIAL_BYTES
    assert doorstep.partial_excess() == 1  # the oldest of the heaviest


def test_an_asker_may_have_half_of_the_backlog_and_of_its_bytes_waiting() -> None:
    doorstep = Doorstep()
    for key in range(512):
        doorstep.stand(key, "10.0.0.1")
        assert doorstep.may_wait(key, 100, 1024)
        doorstep.spoke(key)
        doorstep.waits(key, 100)
    doorstep.stand(1000, "10.0.0.1")
    assert not doorstep.may_wait(1000, 100, 1024)
    assert doorstep.may_wait(1000, 100, 1026)
    doorstep.stand(1001, "10.0.0.2")
    assert doorstep.may_wait(1001, 100, 1024)
    assert not doorstep.may_wait(1001, PENDING_BYTES // 2 + 1, 1024)
    doorstep.stand(1002, "127.0.0.1")
    assert doorstep.may_wait(1002, PENDING_BYTES - 512 * 100, 1024)
    assert not doorstep.may_wait(1002, PENDING_BYTES - 511 * 100, 1024)


def test_a_short_backlog_is_not_made_shorter_for_one_asker() -> None:
    doorstep = Doorstep()
    for key in range(LEAST_SHARE):
        doorstep.stand(key, "10.0.0.1")
        assert doorstep.may_wait(key, 100, 10)
        doorstep.waits(key, 100)
    doorstep.stand(1000, "10.0.0.1")
    assert not doorstep.may_wait(1000, 100, 10)


def test_whatever_comes_and_goes_the_accounts_add_up() -> None:
    dice, doorstep = random.Random(5), Doorstep()
    partial, waiting, silent = Counter[int](), Counter[int](), dict[int, str]()
    hosts = {}
    for number in range(20_000):
        key = dice.randrange(400)
        match dice.randrange(5):
            case 0 if key not in hosts:
                hosts[key] = f"10.0.0.{dice.randrange(5)}"
                if (victim := doorstep.half_open_excess(hosts[key])) is not None:
                    assert doorstep.leave(victim)
                    del hosts[victim], silent[victim], partial[victim]
                doorstep.stand(key, hosts[key])
                silent[key] = hosts[key]
            case 1 if key in hosts:
                partial[key] = dice.choice((0, 10, 1000))
                doorstep.holds(key, partial[key])
            case 2 if key in silent and doorstep.may_wait(key, number, 300):
                doorstep.spoke(key)
                doorstep.waits(key, number)
                waiting[key] = number
                del silent[key]
            case 3 if key in hosts:
                assert doorstep.leave(key) == (key in silent)
                silent.pop(key, None)
                del hosts[key], partial[key], waiting[key]
            case 4:
                assert not doorstep.leave(1000 + key)
        assert doorstep.bytes_partial == partial.total()
        assert doorstep.bytes_waiting == waiting.total()
        assert doorstep.half_open == dict.fromkeys(silent)
        assert len(silent) <= MAX_HALF_OPEN
        assert all(n <= MAX_HALF_OPEN_PER_SOURCE for n in Counter(silent.values()).values())
    for key in list(hosts):
        doorstep.leave(key)
    assert (doorstep.places, doorstep._sources) == ({}, {})
