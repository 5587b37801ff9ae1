"""The multicast stream over bad networks: everything arrives, once, in order."""

from __future__ import annotations

import random

import pytest
from tests.simulation.stream_world import MS, TAG, Faults, World

from joinleaf.core.wire.units import HEADER, XOR

SIZES = (0, 1, 100, 1400, 5000, 62_000, 200_000)


def plan(seed: object, loss: float) -> World:
    """A world with some leaves and what the seed makes of it."""
    rng = random.Random(f"{seed}/plan")
    segment = rng.choice((200, 1452, 1452, 9000, 60_000))
    world = World(seed, segment=segment, window_bytes=rng.choice((1 << 18, 1 << 20)))

    def faults() -> Faults:
        duplicate, reorder = rng.choice((0, 0.05)), rng.choice((0, 0.05))
        return Faults(
            loss,
            rng.choice((0, 0.01, 0.1)),
            duplicate,
            reorder,
            delay_ns=rng.choice((50_000, 2 * MS)),
        )

    for _ in range(rng.choice((1, 2, 5, 9))):
        world.join(faults())
    world.run(5 * MS)
    for _ in range(rng.randrange(1, 20)):
        world.send([rng.choice(SIZES) for _ in range(rng.randrange(1, 6))])
        if rng.random() < 0.2:
            world.join(faults())
        world.run(rng.randrange(5 * MS))
    return world


@pytest.mark.parametrize("loss", [0.0, 0.01, 0.05, 0.3])
@pytest.mark.parametrize("seed", range(8))
def test_every_leaf_gets_everything_from_its_start_on(seed: int, loss: float) -> None:
    world = plan(f"{seed}/{loss}", loss)
    world.settle()
    for leaf in world.leaves:
        world.check_complete(leaf)


def repaired(
    leaves: int, loss: float, *, trains: float = 0.0, units: int = 60, seed: object = 0
) -> World:
    """A world that has sent units to leaves that each lose their own."""
    world = World(f"{seed}/{leaves}/{loss}", window_bytes=4 << 20)
    for _ in range(leaves):
        world.join(Faults(loss, trains), window_bytes=4 << 20)
    world.run(20 * MS)
    for _ in range(units):
        world.send([62_000])
        world.run(600_000)
    world.settle()
    for leaf in world.leaves:
        world.check_complete(leaf)
    return world


@pytest.mark.parametrize("seed", range(3))
def test_eight_leaves_with_five_per_cent_each_cost_half_of_what_they_lose(seed: int) -> None:
    """Sent one by one it would be 34 per cent of all symbols; no code could do with 10."""
    counters = repaired(8, 0.05, seed=seed).sender.counters
    assert counters["repair_bytes"] < 0.17 * counters["bytes"]
    assert counters["repaired_symbols"] > 0.30 * 43 * counters["units"]


def test_one_leaf_is_repaired_as_before() -> None:
    world = repaired(1, 0.05)
    assert world.sender.counters["parity_symbols"] == 0
    assert world.sender.counters["repair_bytes"] < 0.07 * world.sender.counters["bytes"]


@pytest.mark.parametrize("seed", range(3))
def test_a_train_that_is_lost_is_sent_again_as_it_was_and_at_once(seed: int) -> None:
    """Once for each leaf that lost it, and once more where the repair was lost: 40 per cent."""
    world = repaired(8, 0, trains=0.05, seed=seed)
    counters = world.sender.counters
    assert counters["parity_symbols"] == 0
    assert counters["repair_trains"] <= 1 + counters["repaired_symbols"] / 40
    assert counters["repair_bytes"] < 0.6 * counters["bytes"]
    for leaf in world.leaves:
        assert leaf.receiver.counters["by_leg"] == 0
        assert leaf.receiver.counters["duplicates"] < 0.6 * 43 * counters["units"]


@pytest.mark.parametrize("seed", range(6))
def test_combinations_that_cannot_be_do_not_spoil_a_clear_stream(seed: int) -> None:
    """Of a length, count, place or unit that does not fit: what fits, anybody can forge."""
    world = World(f"{seed}/clear", window_bytes=1 << 19)
    rng = random.Random(seed)
    for _ in range(3):
        world.join(Faults(0.03, reorder=0.05), window_bytes=1 << 19)
    world.run(5 * MS)
    for _ in range(25):
        world.send([rng.choice((1400, 30_000, 62_000)) for _ in range(rng.randint(1, 3))])
        unit = max(0, world.sender.next_unit - rng.randrange(8))
        for _ in range(rng.randint(1, 6)):
            packed = (unit & 0xFFFFFF) << 40 | rng.getrandbits(40) & rng.getrandbits(40)
            epoch, count = rng.choice((0, 0, 0, 9)), rng.choice((1, 22, 44, 44, 200))
            head = HEADER.pack(TAG, XOR, epoch, 128 | rng.randrange(count) & 127, count, packed)
            forged = head + rng.randbytes(rng.choice((1, 700, 1435, 1437, 9000)))
            for leaf in world.leaves:
                leaf.receive([forged])
        world.run(rng.randrange(4 * MS))
    world.settle()
    for leaf in world.leaves:
        world.check_complete(leaf)
