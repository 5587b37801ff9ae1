"""A sealed stream with somebody on the group who has no key, or no longer has one.

The attacker hears every datagram and may send any: it repeats, changes, cuts and splices what it
heard, and makes symbols, SYNCs and PROBEs up under every epoch. It cannot touch the legs. Whatever
it does, every member gets every message once and in order, and nobody's leg breaks; all it gains is
that more comes over the legs.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from tests.simulation.stream_world import MS, PROBE, TAG, Faults, Leaf, World

from joinleaf.core.keys.group import GroupKeys, KeyFact, LeafKeys, epoch_byte
from joinleaf.core.reliability.sender import Train
from joinleaf.core.wire import units
from joinleaf.core.wire.frames import RAW, data_header
from joinleaf.core.wire.reports import Timing, sync_body, unit_repair_frame
from joinleaf.core.wire.units import DATA, HEADER, HEADER_SIZE, SYNC
from joinleaf.errors import RemoteProtocolError

SEGMENT = 1452
KINDS = (DATA, units.POLL, units.REPAIR, units.XOR, SYNC, units.PROBE, 0, 200)
HEARD = 400  # datagrams the attacker keeps


class SealedWorld(World):
    """A world whose stream is sealed, with keys that change and somebody who listens."""

    def __init__(self, seed: object, *, segment: int = SEGMENT) -> None:
        self.random = random.Random(f"{seed}/attacker")
        self.keys = GroupKeys(self.random.randbytes(32), TAG)
        self.rings: list[LeafKeys] = []
        super().__init__(
            seed, segment=segment, sealer=self.keys, opener=self._ring, window_bytes=1 << 18
        )
        self.segment = segment
        self.heard: list[bytes] = []
        self.sender: Any = _Overheard(self.sender, self)

    def _ring(self) -> LeafKeys:
        self.rings.append(LeafKeys(self.keys.fact(), TAG))
        return self.rings[-1]

    def rotate(self, *, but: Leaf | None = None, late_ns: int = 0) -> None:
        """A new epoch, told over the legs; ``but`` is not told."""
        body = self.keys.rotate(self.random.randbytes(32)).body()
        for leaf in self.leaves:
            if leaf is not but:
                leaf.leg_ns = max(leaf.leg_ns, self.now + leaf.faults.delay_ns + late_ns)
                self.at(leaf.leg_ns, self._learner(leaf, body))

    def _learner(self, leaf: Leaf, body: bytes) -> Callable[[], None]:
        def learn() -> None:
            self.rings[leaf.key].learn(KeyFact.parse(body))
            leaf.receiver.keys_changed(self.now)
            leaf.settle()

        return learn

    def inject(self, datagrams: list[bytes], leaves: list[Leaf] | None = None) -> None:
        """Every leaf hears them, or these do, before anything that is under way."""
        for leaf in self.leaves if leaves is None else leaves:
            self.at(self.now, partial(leaf.receive, list(datagrams)))


class _Overheard:
    """The sender, of whose trains the attacker gets a copy."""

    def __init__(self, sender: Any, world: SealedWorld) -> None:
        self._sender = sender
        self._world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sender, name)

    def poll_transmit(self, now_ns: int) -> Train | None:
        train: Train | None = self._sender.poll_transmit(now_ns)
        if train is not None:
            heard = self._world.heard
            for at in range(0, len(train.buffer), train.segment):
                heard.append(bytes(train.buffer[at : at + train.segment]))
            del heard[:-HEARD]
        return train


# What an attacker makes of what it has heard. Each gives one datagram.


def replay(world: SealedWorld) -> bytes:
    return world.random.choice(world.heard)


def flip(world: SealedWorld) -> bytes:
    datagram = bytearray(world.random.choice(world.heard))
    datagram[world.random.randrange(len(datagram))] ^= 1 << world.random.randrange(8)
    return bytes(datagram)


def truncate(world: SealedWorld) -> bytes:
    datagram = world.random.choice(world.heard)
    return datagram[: world.random.randrange(len(datagram) + 1)]


def splice(world: SealedWorld) -> bytes:
    one, other = world.random.choice(world.heard), world.random.choice(world.heard)
    return one[:HEADER_SIZE] + other[HEADER_SIZE:]


def relabel(world: SealedWorld) -> bytes:
    """A payload that was sealed, under another header."""
    rng, datagram = world.random, world.random.choice(world.heard)
    fields = list(HEADER.unpack_from(datagram))
    for _ in range(rng.randint(1, 3)):
        field = rng.randrange(1, 6)
        fields[field] = rng.choice(KINDS) if field == 1 else rng.randrange(256)
        if field == 5:
            fields[5] = max(0, world.sender.next_unit + rng.randint(-3, 30))
    return HEADER.pack(*fields) + datagram[HEADER_SIZE:]


def forge(world: SealedWorld) -> bytes:
    """Symbols of units that are still to come, so that the true ones find their place taken."""
    rng = world.random
    count = rng.choice((1, 1, 2, 43))
    epoch = rng.choice((0, world.keys.epoch, world.keys.epoch % 255 + 1, rng.randrange(256)))
    unit = world.sender.next_unit + rng.randrange(rng.choice((3, 60, 9000)))
    head = HEADER.pack(TAG, rng.choice(KINDS), epoch, rng.randrange(count), count, unit)
    return head + rng.randbytes(rng.choice((20, world.segment - HEADER_SIZE)))


def combine_falsely(world: SealedWorld) -> bytes:
    """A parity symbol of a unit that may be under way, of any length and with anything in it."""
    rng = world.random
    count = rng.choice((2, 22, 43, 44, 64))
    unit = max(0, world.sender.next_unit - rng.randrange(20))
    parts = sum(1 << place for place in {rng.randrange(count) for _ in range(rng.randint(1, 20))})
    epoch = rng.choice((world.keys.epoch, world.keys.epoch, rng.randrange(256)))
    size = rng.choice((world.segment - HEADER_SIZE,) * 3 + (1, 99, world.segment))
    first = (parts & -parts).bit_length() - 1
    packed = (unit & 0xFFFFFF) << 40 | parts >> first + 1 & (1 << 40) - 1
    head = HEADER.pack(TAG, units.XOR, epoch, 128 | first, count, packed)
    return head + rng.randbytes(size)


def combine_what_was_heard(world: SealedWorld) -> bytes:
    """A parity symbol as the root would make it, but for one bit."""
    datagram = world.random.choice(world.heard)
    _, kind, epoch, index, count, unit = HEADER.unpack_from(datagram)
    if kind == units.XOR or not index < count:
        return datagram
    parts = 1 << index
    for other in world.heard:
        if other[5:6] + other[7:16] == datagram[5:6] + datagram[7:16] and len(parts_of(parts)) < 4:
            parts |= 1 << other[6] if other[6] < 64 else 0
    if parts.bit_length() - (parts & -parts).bit_length() >= units.MAX_SPAN:
        return datagram
    payload = bytearray(world.segment - HEADER_SIZE)
    payload[world.random.randrange(len(payload))] = 1
    return units.parity_header(TAG, epoch, count, unit, parts) + payload


def parts_of(parts: int) -> list[int]:
    return [place for place in range(64) if parts >> place & 1]


def speak_plainly(world: SealedWorld) -> bytes:
    """Cleartext, as a session without keys would take it: a unit, a SYNC, a PROBE."""
    rng, unit = world.random, world.sender.next_unit
    match rng.randrange(3):
        case 0:
            frame = data_header(4, RAW, 0, world.messages) + b"lies"
            return units.write_unit(units.Layout(world.segment), TAG, 0, unit, frame)
        case 1:
            body = sync_body(Timing(0, 0, 10_000, 1))
            return HEADER.pack(TAG, SYNC, 0, 255, rng.randrange(256), unit + 100) + body
        case _:
            return HEADER.pack(TAG, units.PROBE, 0, 255, 0, unit) + PROBE


ATTACKS = (
    replay,
    flip,
    truncate,
    splice,
    relabel,
    forge,
    combine_falsely,
    combine_what_was_heard,
    speak_plainly,
)


def run(world: SealedWorld, attacks: tuple[Callable[[SealedWorld], bytes], ...]) -> None:
    """Batches, losses, new keys and, all the while, the attacks."""
    rng = world.random
    for _ in range(rng.choice((1, 3))):
        world.join(Faults(rng.choice((0.0, 0.02)), delay_ns=rng.choice((50_000, 2 * MS))))
    world.run(5 * MS)
    for _ in range(25):
        world.send([rng.choice((10, 1400, 30_000)) for _ in range(rng.randint(1, 3))])
        world.inject([rng.choice(attacks)(world) for _ in range(rng.randint(1, 12))])
        if rng.random() < 0.2:
            world.rotate(late_ns=rng.choice((0, 3 * MS)))
        world.run(rng.randrange(4 * MS))
    world.settle()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: str(attack.__name__))
@pytest.mark.parametrize("seed", range(6))
def test_no_attack_from_outside_changes_what_members_get(
    seed: int, attack: Callable[[SealedWorld], bytes]
) -> None:
    world = SealedWorld(f"{seed}/{attack.__name__}", segment=(SEGMENT, 200, 60_000)[seed % 3])
    run(world, (attack,))
    for leaf in world.leaves:
        world.check_complete(leaf)


@pytest.mark.parametrize("seed", range(12))
def test_all_attacks_together_change_nothing_either(seed: int) -> None:
    world = SealedWorld(seed, segment=(SEGMENT, 200, 60_000)[seed % 3])
    run(world, ATTACKS)
    for leaf in world.leaves:
        world.check_complete(leaf)


def test_a_symbol_slipped_in_before_a_repair_by_leg_does_not_break_the_leg() -> None:
    world = SealedWorld(0)
    leaf = world.join()
    world.run(5 * MS)
    layout = units.Layout(SEGMENT)
    payload = data_header(4000, RAW, 0, 0) + world.body(0, 4000)
    sealed = world.keys.seal(0, 3, payload)
    image = units.write_unit(layout, TAG, world.keys.epoch, 0, sealed)
    symbols = [image[at : at + SEGMENT] for at in range(0, len(image), SEGMENT)]
    forged = symbols[0][:HEADER_SIZE] + bytes(SEGMENT - HEADER_SIZE)
    for symbol in (forged, symbols[0], symbols[2]):  # symbol 1 is lost
        leaf.receive([symbol])
    one = unit_repair_frame(0, world.keys.epoch, 3, layout.payload, 2, symbols[1][HEADER_SIZE:])
    leaf.on_leg(one)
    assert leaf.got == []
    whole = unit_repair_frame(0, world.keys.epoch, 3, layout.payload, units.ALL & 7, sealed)
    leaf.on_leg(whole)
    assert leaf.got == [0]


def test_a_unit_that_is_spoiled_though_all_of_it_came_over_the_leg_is_the_roots_fault() -> None:
    world = SealedWorld(0)
    leaf = world.join()
    world.run(5 * MS)
    layout = units.Layout(SEGMENT)
    with pytest.raises(RemoteProtocolError, match="spoiled"):
        leaf.on_leg(unit_repair_frame(0, world.keys.epoch, 1, layout.payload, 1, bytes(100)))


@pytest.mark.parametrize("seed", range(6))
def test_who_was_expelled_reads_nothing_more_and_stops_nobody(seed: int) -> None:
    """It was a member, keeps its key, and says with it what it can say to any purpose."""
    world = SealedWorld(seed, segment=(SEGMENT, 200, 60_000)[seed % 3])
    members = [world.join(Faults(0.01)) for _ in range(2)]
    expelled = world.join()
    world.run(5 * MS)
    world.send([1000, 1000])
    world.settle()
    assert expelled.got == [0, 1]
    key, first = world.keys.fact().key, world.sender.next_unit
    world.rotate(but=expelled)
    world.sender.remove_leaf(expelled.key)
    world.due.pop(expelled.key)
    world.run(5 * MS)  # KEY has reached the members
    forger = GroupKeys(key, TAG)
    layout = units.Layout(world.segment)
    for number in range(20):
        unit = first + 2 * number + world.random.randrange(2)
        lie = forger.seal(unit, 1, data_header(4, RAW, 0, number) + b"lies")
        body = forger.seal_control(SYNC, 1, unit + 50, sync_body(Timing(0, 0, 10_000, 1)))
        probe = forger.seal_control(units.PROBE, 0, 0, PROBE)
        epoch = epoch_byte(1)
        world.inject(
            [
                units.write_unit(layout, TAG, epoch, unit, lie),
                HEADER.pack(TAG, SYNC, epoch, 255, 1, unit + 50) + body,
                HEADER.pack(TAG, units.PROBE, epoch, 255, 0, 0) + probe,
            ],
            members,
        )
        world.send([1000, 20_000])
        world.run(2 * MS)
    world.leaves[expelled.key].faults.cut_off = True
    world.settle()
    for leaf in members:
        world.check_complete(leaf)
    assert expelled.got == [0, 1]
