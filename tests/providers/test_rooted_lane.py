"""Batches that go straight to every leaf's socket: the same promises as by the long way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.providers.rooted_world import BOUND, World, in_thread, receive

from joinleaf.spi.provider import SlowPolicy
from joinleaf.spi.qos import FlowSpec, Qos


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


def test_a_lane_opens_after_the_first_batch_and_closes_when_somebody_comes(world: World) -> None:
    root = world.root()
    first, _ = world.join(root)
    root.send_many([b"1"])
    assert root._driver.lane is not None
    root.send_many([b"2"])
    second, _ = world.join(root)
    assert root._driver.lane is None
    root.send_many([b"3"])
    root.send_many([b"4"])
    assert receive(first, 4) == [b"1", b"2", b"3", b"4"]
    assert receive(second, 2) == [b"3", b"4"]


def test_who_has_left_is_in_no_lane(world: World) -> None:
    root = world.root()
    stays, _ = world.join(root)
    goes, leg = world.join(root)
    root.send_many([b"1"])
    root.send_many([b"2"])
    leg.close()
    root.send_many([b"3"])
    assert receive(stays, 3) == [b"1", b"2", b"3"]
    assert receive(goes, 2) == [b"1", b"2"]


@pytest.mark.parametrize("slow", list(SlowPolicy))
def test_what_a_full_socket_does_not_take_follows_in_order(world: World, slow: SlowPolicy) -> None:
    root = world.root(slow=slow, queue_bytes=64 << 20)
    leaves = [world.join(root)[0] for _ in range(3)]
    for number in range(3):
        root.send_many([bytes([number])])
    batch = [bytes([number]) * 4000 for number in range(3, 256)]
    hearing = [in_thread(receive, leaf, 3 + 20 * len(batch)) for leaf in leaves]
    for _ in range(20):
        root.send_many(batch)
    for heard in hearing:
        assert [message[0] for message in heard()[3:]] == 20 * list(range(3, 256))
    statistics = root.statistics()
    assert statistics["messages_sent"] == 3 + 20 * len(batch)


def test_borrowed_memory_may_be_used_again_after_each_call(world: World) -> None:
    root = world.root()
    leaf, _ = world.join(root)
    root.send_many([b"1"])
    memory = bytearray(300_000)
    heard = in_thread(receive, leaf, 41)
    for number in range(40):
        memory[:] = bytes([number]) * len(memory)
        root.send_many([memory], timeout=BOUND)
    assert [message[:1] for message in heard()[1:]] == [bytes([n]) for n in range(40)]


def test_bytes_sent_count_by_both_ways(world: World) -> None:
    root = world.root()
    leaf, leg = world.join(root)
    before = leg.statistics()["bytes_sent"]
    root.send_many([b"x" * 100])
    long = leg.statistics()["bytes_sent"]
    root.send_many([b"x" * 100])
    assert leg.statistics()["bytes_sent"] - long == long - before
    assert receive(leaf, 2) == [b"x" * 100] * 2


def test_a_flow_specification_ends_the_lane(world: World) -> None:
    root = world.root()
    leaf, _ = world.join(root)
    root.send_many([b"1"])
    assert root._driver.lane is not None
    root._set_qos(Qos(sending=FlowSpec(token_rate=1_000_000, token_bucket_size=10_000)))
    assert root._driver.lane is None
    root.send_many([b"2"])
    assert root._driver.lane is None
    assert receive(leaf, 2) == [b"1", b"2"]


def test_a_leg_that_broke_is_found_by_the_lane_too(world: World) -> None:
    root = world.root()
    stays, _ = world.join(root)
    goes, _ = world.join(root)
    root.send_many([b"1"])
    goes.close(abort=True)
    for number in range(50):
        root.send_many([bytes([number])])
    assert receive(stays, 51)[1:] == [bytes([number]) for number in range(50)]
