"""The multicast stream over bad networks: everything arrives, once, in order."""

from __future__ import annotations

import random

import pytest
from tests.simulation.stream_world import MS, Faults, World

SIZES = (0, 1, 100, 1400, 5000, 62_000, 200_000)


def plan(seed: object, loss: float) -> World:
    """A world with some leaves and what the seed makes of it."""
    rng = random.Random(f"{seed}/plan")
    segment = rng.choice((200, 1452, 1452, 9000, 60_000))
    world = World(seed, segment=segment, window_bytes=rng.choice((1 << 18, 1 << 20)))

    def faults() -> Faults:
        duplicate, reorder = rng.choice((0, 0.05)), rng.choice((0, 0.05))
        return Faults(loss, duplicate, reorder, delay_ns=rng.choice((50_000, 2 * MS)))

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
